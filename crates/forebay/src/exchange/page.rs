//! The built-in pages: what a client sees where there is no answer of the site's own.

use bytes::Bytes;
use forebay_fields::{Fields, Known};

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
    let (kind, text) = match Form::of(&exchange.request.fields) {
        Form::Html => ("text/html; charset=utf-8", html(status, title, sentence)),
        Form::Json => ("application/problem+json", json(status, title, sentence)),
        Form::Text => ("text/plain; charset=utf-8", plain(status, title, sentence)),
    };
    response.set(Known::ContentType, kind.as_bytes());
    response.vary("Accept");
    response.body = Bytes::from(text).into();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Html,
    Json,
    Text,
}

/// Whether a client would rather have JSON than HTML or text.
pub fn prefers_json(fields: &Fields) -> bool {
    Form::of(fields) == Form::Json
}

/// What a client says about one form: its quality in thousandths, how exactly it was named, and,
/// from the end, where.
type Wish = (u16, u8, u8);

impl Form {
    /// The form that `Accept` prefers (RFC 9110 §12.5.1); text for who has no preference, as curl.
    fn of(fields: &Fields) -> Form {
        if !fields.contains(Known::Accept) {
            return Form::Text;
        }
        // Only a strictly better wish takes the place of one before it.
        let mut best = (Form::Text, Form::Text.wish(fields));
        for form in [Form::Html, Form::Json] {
            let wish = form.wish(fields);
            if wish > best.1 {
                best = (form, wish);
            }
        }
        best.0
    }

    /// The wish of the most exact range that names this form; quality 0 for one that none names.
    fn wish(self, fields: &Fields) -> Wish {
        let mut best = (0, 0, 0);
        let ranges = fields.list(Known::Accept).take(MAX_RANGES);
        for (at, range) in ranges.enumerate() {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let exactness = self.exactness(parts.next().unwrap_or_default());
            if exactness > best.1 {
                let from_end = u8::try_from(MAX_RANGES - at).unwrap_or(0);
                best = (quality(parts), exactness, from_end);
            }
        }
        // All that counts of a wildcard is its quality: it names no form before the others.
        if best.1 < EXACT {
            (best.0, best.1, 0)
        } else {
            best
        }
    }

    fn exactness(self, range: &[u8]) -> u8 {
        let names: &[&[u8]] = match self {
            Form::Html => &[b"text/html", b"application/xhtml+xml"],
            Form::Json => &[b"application/problem+json", b"application/json"],
            Form::Text => &[b"text/plain"],
        };
        let family: &[u8] = match self {
            Form::Html | Form::Text => b"text/*",
            Form::Json => b"application/*",
        };
        if names.iter().any(|name| range.eq_ignore_ascii_case(name)) {
            EXACT
        } else if range.eq_ignore_ascii_case(family) {
            2
        } else {
            u8::from(range == b"*/*")
        }
    }
}

/// A type named in full; less are `type/*` and `*/*`.
const EXACT: u8 = 3;

/// Ranges looked at in one `Accept`: browsers send ten at most.
const MAX_RANGES: usize = 32;

/// The weight among a range's parameters (RFC 9110 §12.4.2) in thousandths; 1000 without one, 0
/// for one that cannot be read.
pub fn quality<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> u16 {
    for parameter in parameters {
        let [b'q' | b'Q', b'=', value @ ..] = parameter else {
            continue;
        };
        let (whole, decimals) = match value {
            [whole, b'.', decimals @ ..] => (*whole, decimals),
            [whole] => (*whole, &[][..]),
            _ => return 0,
        };
        if decimals.len() > 3 || !decimals.iter().all(u8::is_ascii_digit) {
            return 0;
        }
        let digit = |at: usize| decimals.get(at).map_or(0, |digit| u16::from(digit - b'0'));
        return match whole {
            b'0' => digit(0) * 100 + digit(1) * 10 + digit(2),
            b'1' => 1000,
            _ => 0,
        };
    }
    1000
}

fn plain(status: u16, title: &str, sentence: &str) -> String {
    if sentence.is_empty() {
        format!("{status} {title}\n")
    } else {
        format!("{status} {title}\n{sentence}\n")
    }
}

/// A problem of no type of its own (RFC 9457 §4.2.1: `about:blank` is what an absent type means,
/// and its title is the status's phrase).
fn json(status: u16, title: &str, sentence: &str) -> String {
    let mut value = serde_json::json!({ "type": "about:blank", "status": status, "title": title });
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
    match (forebay_http1::reason_phrase(status), status) {
        ("", 200..=299) => "Success",
        ("", 300..=399) => "Redirection",
        ("", 400..=499) => "Client Error",
        ("", _) => "Server Error",
        (known, _) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Reason;

    fn form(accept: &[&str]) -> Form {
        let mut fields = Fields::new();
        for line in accept {
            fields.append(Known::Accept, line).expect("a field");
        }
        Form::of(&fields)
    }

    #[test]
    fn rfc9110_12_5_1_the_most_wanted_form_wins() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, expected) in [
            ("", Form::Text),
            ("*/*", Form::Text),
            ("image/png", Form::Text),
            (browser, Form::Html),
            ("application/json", Form::Json),
            ("application/problem+json", Form::Json),
            ("application/json, text/plain, */*", Form::Json),
            ("text/plain, application/json", Form::Text),
            ("text/html;q=0.1, application/json", Form::Json),
            ("text/html; Q=0.9, application/json;q=0.899", Form::Html),
            ("text/html;q=0, */*", Form::Text),
            ("text/plain;q=0, text/html;q=0, */*;q=0.001", Form::Json),
            ("text/*", Form::Text),
            ("text/*, text/html", Form::Html),
            ("TEXT/HTML", Form::Html),
            ("text/html;level=1;q=0.3, application/*;q=0.4", Form::Json),
            ("text/html;q=2, application/json;q=0.1", Form::Json),
            ("text/html;q=0.1234, application/json;q=0.1", Form::Json),
            ("text/html;q=, application/json;q=0.1", Form::Json),
        ] {
            assert_eq!(form(&[accept]), expected, "{accept}");
        }
        assert_eq!(form(&["text/plain;q=0.5", "text/html"]), Form::Html);
        assert_eq!(form(&[]), Form::Text);
        let many = "a/b, ".repeat(1000) + "text/html";
        assert_eq!(form(&[&many]), Form::Text);
    }

    #[test]
    fn rfc9457_a_problem_has_type_title_status_and_detail() {
        let sentence = Reason::NotFound.sentence();
        let value: serde_json::Value =
            serde_json::from_str(&json(404, reason(404), sentence)).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({ "type": "about:blank", "status": 404, "title": "Not Found", "detail": sentence })
        );
    }

    #[test]
    fn pages_hold_our_own_words_only() {
        let bench =
            crate::steps::testing::Bench::new(r#"site { "*", route "/x" { respond(200) } }"#);
        let got = bench.get("/<b>").field("Accept", "text/html").run();
        assert_eq!(got.status(), 404);
        assert!(!got.text().contains("<b>"), "{}", got.text());
        assert!(
            got.text()
                .contains("<h1>404 Not Found</h1>\n<p>There is nothing here.</p>")
        );
        assert_eq!(
            (got.field("vary"), got.field("content-type")),
            (Some("Accept"), Some("text/html; charset=utf-8"))
        );
    }
}
