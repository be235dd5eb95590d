//! The request as steps see it, whatever protocol carried it.

use std::borrow::Cow;

use forebay_fields::Fields;
use forebay_http1::{Method, RequestHead};
use forebay_route::{PathFault, Pattern};
use smallvec::SmallVec;

use super::{Body, Fault, Reason};

/// A request on its way down.
///
/// The target is kept as it came; the path that steps match and pass on is its normal form
/// (RFC 3986 §6.2.2), which in most requests is the same bytes and then costs no copy.
#[derive(Default)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its fields, without those of the framing.
    pub fields: Fields,
    /// What it carries.
    body: Body,
    /// The target in origin form (`/path?query`) or `*`, as received. Copied: a target is short,
    /// and the room for it is used again and again.
    target: String,
    /// Where the path ends in `target`.
    target_path_len: usize,
    /// The path, where it is not that of `target`.
    path: Option<Box<str>>,
    /// The query, where it is not that of `target`; without the question mark.
    query: Option<Option<Box<str>>>,
    /// The host name in lower case, without port; empty where HTTP/1.0 sent none.
    host: String,
    /// The port that the client wrote.
    pub port: Option<u16>,
    /// The client offers to go on with another protocol (RFC 9110 §7.8).
    pub offers_upgrade: bool,
    /// What a `rewrite` has taken off the front of the path.
    pub prefix: Option<Box<str>>,
}

impl Request {
    /// Fills in what was asked for, as it was received.
    pub fn set_target(&mut self, target: &str) {
        self.target.clear();
        self.target.push_str(target);
        self.target_path_len = memchr::memchr(b'?', target.as_bytes()).unwrap_or(target.len());
        self.path = None;
        self.query = None;
    }

    /// Takes over target and host from a head that has found out where the path ends.
    pub fn take_names(&mut self, head: &mut RequestHead) {
        self.port = head.port();
        self.target_path_len = head.path_len();
        head.swap_names(&mut self.target, &mut self.host);
        self.path = None;
        self.query = None;
    }

    /// Brings the path into normal form.
    pub fn normalize(&mut self) -> Result<(), Fault> {
        let path = &self.target.as_bytes()[..self.target_path_len];
        match forebay_route::normalize(path) {
            Ok(Cow::Borrowed(_)) => Ok(()),
            Ok(Cow::Owned(path)) => {
                // Normalising ASCII gives ASCII.
                self.path = String::from_utf8(path).ok().map(String::into_boxed_str);
                Ok(())
            }
            Err(PathFault::AboveRoot) => Err(Reason::PathAboveRoot.into()),
            Err(fault) => Err(Fault::with(Reason::BadPath, fault.sentence())),
        }
    }

    /// Fills in the host asked for: lower case, without port.
    pub fn set_host(&mut self, host: &str, port: Option<u16>) {
        self.host.clear();
        self.host.push_str(host);
        self.port = port;
    }

    /// The same in as little room as it needs, without its body: to be kept for long.
    #[must_use]
    pub fn compact(mut self) -> Request {
        self.fields = self.fields.settled();
        self.target.shrink_to_fit();
        self.host.shrink_to_fit();
        self.body = Body::Empty;
        self
    }

    /// The target as received, in origin form.
    pub fn original_uri(&self) -> &str {
        &self.target
    }

    /// The path, normalised and perhaps rewritten.
    pub fn path(&self) -> &str {
        match &self.path {
            Some(path) => path,
            None => &self.target[..self.target_path_len],
        }
    }

    /// The query without its question mark; `None` where there is no question mark.
    pub fn query(&self) -> Option<&str> {
        match &self.query {
            Some(query) => query.as_deref(),
            None => self.target.get(self.target_path_len + 1..),
        }
    }

    /// Replaces the path.
    pub fn set_path(&mut self, path: impl Into<Box<str>>) {
        self.path = Some(path.into());
    }

    /// Replaces the query.
    pub fn set_query(&mut self, query: Option<String>) {
        self.query = Some(query.map(String::into_boxed_str));
    }

    /// True while path and query are those that the client sent, byte for byte.
    pub fn is_as_received(&self) -> bool {
        self.path.is_none() && self.query.is_none()
    }

    /// Appends path and query to `out`.
    pub fn write_uri(&self, out: &mut Vec<u8>) {
        if self.is_as_received() {
            out.extend_from_slice(self.target.as_bytes());
            return;
        }
        out.extend_from_slice(self.path().as_bytes());
        if let Some(query) = self.query() {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }

    /// The host name in lower case, without port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The body, to look at.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Gives it a body.
    pub fn set_body(&mut self, body: Body) {
        self.body = body;
    }

    /// Takes the body to read it, at most `max_bytes` of it.
    pub fn take_body(&mut self, max_bytes: u64) -> Result<Body, Fault> {
        if self.body.len_bytes().is_some_and(|len| len > max_bytes) {
            return Err(Reason::BodyTooLarge.into());
        }
        let mut body = std::mem::take(&mut self.body);
        if let Body::Stream(stream) = &mut body {
            stream.limit(max_bytes);
        }
        Ok(body)
    }

    /// The same request, but for its body.
    pub fn without_body(&self) -> Request {
        Request {
            method: self.method,
            fields: self.fields.clone(),
            body: Body::Empty,
            target: self.target.clone(),
            target_path_len: self.target_path_len,
            path: self.path.clone(),
            query: self.query.clone(),
            host: self.host.clone(),
            port: self.port,
            offers_upgrade: self.offers_upgrade,
            prefix: self.prefix.clone(),
        }
    }

    /// Makes it fit for the next request.
    pub fn clear(&mut self) {
        self.method = Method::Get;
        self.fields.clear();
        self.body = Body::Empty;
        self.target.clear();
        self.target_path_len = 0;
        self.path = None;
        self.query = None;
        self.host.clear();
        self.port = None;
        self.offers_upgrade = false;
        self.prefix = None;
    }
}

/// What the patterns of the routes that were taken have matched. Their room is used again.
#[derive(Clone, Default)]
pub struct Captures {
    rest: String,
    has_rest: bool,
    params: SmallVec<[(Box<str>, Box<str>); 2]>,
    /// What the groups of the last regular expression matched: `$1` to `$9`.
    pub groups: Vec<Box<str>>,
}

impl Captures {
    /// What `*` of the innermost route matched, without leading slashes.
    pub fn rest(&self) -> Option<&str> {
        self.has_rest.then_some(&self.rest)
    }

    /// Notes what a route's pattern has matched in `path`.
    pub fn note(&mut self, pattern: &Pattern, found: &forebay_route::Captures, path: &str) {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or("");
        self.rest.clear();
        self.rest.push_str(text(found.rest(path.as_bytes())));
        self.has_rest = true;
        for (number, name) in pattern.params().iter().enumerate() {
            if let Some(value) = found.param(number, path.as_bytes()) {
                self.params.push((name.clone(), text(value).into()));
            }
        }
    }

    /// The value of `$params.NAME`; that of the innermost route counts.
    pub fn param(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().rev().find(|(n, _)| &**n == name);
        found.map(|(_, value)| &**value)
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.rest.clear();
        self.has_rest = false;
        self.params.clear();
        self.groups.clear();
    }
}
