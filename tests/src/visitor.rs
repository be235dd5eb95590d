//! A browser, as far as an application's forms go: it keeps cookies.

use std::collections::BTreeMap;

use crate::client::{Client, Request};
use crate::wire::Response;

/// Someone who visits a site.
pub struct Visitor {
    client: Client,
    host: String,
    cookies: BTreeMap<String, String>,
}

impl Visitor {
    /// One who asks this server for this host.
    #[must_use]
    pub fn new(client: Client, host: &str) -> Self {
        Self {
            client,
            host: host.to_owned(),
            cookies: BTreeMap::new(),
        }
    }

    /// Takes a cookie, as if a script had set it.
    pub fn keep(&mut self, name: &str, value: &str) {
        self.cookies.insert(name.to_owned(), value.to_owned());
    }

    /// Sends a request with the cookies, and keeps those of the answer.
    pub fn send(&mut self, request: Request) -> Response {
        let mut request = request.host(&self.host);
        if !self.cookies.is_empty() {
            let pairs = self.cookies.iter();
            let all: Vec<_> = pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            request = request.field("Cookie", &all.join("; "));
        }
        let response = self.client.request(&request);
        for cookie in response.head.all("set-cookie") {
            let pair = cookie.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.keep(name, value);
            }
        }
        response
    }

    /// Opens a page.
    pub fn get(&mut self, target: &str) -> Response {
        self.send(Request::get(target))
    }

    /// Sends a form.
    pub fn form(&mut self, target: &str, form: &str) -> Response {
        let request = Request::post(target, form);
        self.send(request.field("Content-Type", "application/x-www-form-urlencoded"))
    }
}

/// What stands in a page between these two texts.
///
/// # Panics
/// When it is not there.
#[track_caller]
#[must_use]
pub fn between(page: &Response, before: &str, behind: char) -> String {
    let text = page.text();
    let at = text.find(before);
    let at = at.unwrap_or_else(|| panic!("there is no {before:?} in {text}")) + before.len();
    let inner = text.get(at..).and_then(|rest| rest.split(behind).next());
    inner.unwrap_or_default().to_owned()
}
