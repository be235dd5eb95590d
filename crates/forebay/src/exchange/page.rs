//! The built-in pages: what a client sees where there is no answer of the site's own.

use bytes::Bytes;
use forebay_fields::Known;

use super::{Exchange, Response};

/// Gives a response that has no body of its own, but should have one, a page: HTML, JSON or text,
/// by what the client accepts.
pub fn dress(exchange: &Exchange, response: &mut Response) {
    if !response.wants_page || response.status < 300 || response.status == 304 {
        return;
    }
    response.wants_page = false;
    let status = response.status;
    let title = reason(status);
    // Our own words only: what a remote sent is for the log, never for a page.
    let sentence = match &response.fault {
        Some(fault) if fault.reason.status() == status => fault.reason.sentence(),
        _ => "",
    };
    let (kind, text) = match form(exchange) {
        Form::Html => ("text/html; charset=utf-8", html(status, title, sentence)),
        Form::Json => ("application/json", json(status, title, sentence)),
        Form::Text => ("text/plain; charset=utf-8", plain(status, title, sentence)),
    };
    response.set(Known::ContentType, kind.as_bytes());
    response.body = Bytes::from(text).into();
}

enum Form {
    Html,
    Json,
    Text,
}

/// The first of the three forms that `Accept` names; text for who names none, as curl.
fn form(exchange: &Exchange) -> Form {
    for item in exchange.request.fields.list(Known::Accept) {
        let kind = item.split(|&b| b == b';').next().unwrap_or(item);
        match kind.trim_ascii() {
            b"text/html" | b"application/xhtml+xml" => return Form::Html,
            b"application/json" | b"application/problem+json" => return Form::Json,
            b"text/plain" => return Form::Text,
            _ => {}
        }
    }
    Form::Text
}

fn plain(status: u16, title: &str, sentence: &str) -> String {
    if sentence.is_empty() {
        format!("{status} {title}\n")
    } else {
        format!("{status} {title}\n{sentence}\n")
    }
}

fn json(status: u16, title: &str, sentence: &str) -> String {
    let mut value = serde_json::json!({ "status": status, "title": title });
    if !sentence.is_empty() {
        value["detail"] = sentence.into();
    }
    format!("{value}\n")
}

fn html(status: u16, title: &str, sentence: &str) -> String {
    let detail = if sentence.is_empty() {
        String::new()
    } else {
        format!("\n<p>{sentence}</p>")
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{status} {title}</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:20vh auto;\
         padding:0 1rem}}</style>\n<h1>{status} {title}</h1>{detail}\n</html>\n"
    )
}

/// The reason phrase of a status (RFC 9110 §15), or a word on its class.
pub fn reason(status: u16) -> &'static str {
    let known = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason());
    known.unwrap_or(match status {
        200..=299 => "Success",
        300..=399 => "Redirection",
        400..=499 => "Client Error",
        _ => "Server Error",
    })
}
