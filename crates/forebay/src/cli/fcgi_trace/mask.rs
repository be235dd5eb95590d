//! What a trace does not show unless asked: passwords, cookies, tokens.
//!
//! Values are masked where they can be told apart: parameters, header fields, queries and forms.
//! Other bodies that name a secret are not shown at all.

use std::borrow::Cow;

use bytes::Bytes;
use forebay_fastcgi::Params;

use crate::exchange::form_decoded;

/// In place of a value.
const MASK: &[u8] = b"***";
/// Names that hold one of these, in capitals with `_` for `-`, are of secrets.
const SECRET: &[&str] = &[
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PWD",
    "SECRET",
    "TOKEN",
    "API_KEY",
    "APIKEY",
    "AUTHORIZATION",
    "COOKIE",
    "CREDENTIAL",
    "PRIVATE_KEY",
    "SESSION",
    "SIGNATURE",
    "PHP_AUTH_PW",
    "PHP_AUTH_DIGEST",
    "NONCE",
];
/// A name longer than this is no name of a form's field.
const MAX_NAME: usize = 256;
/// Of a body, what the next record's data are looked at with: a name may lie across both.
const OVERLAP: usize = 24;

/// What is known of one request's secrets.
#[derive(Default)]
pub struct Masks {
    off: bool,
    form: Option<Form>,
    request: Watched,
    response: Watched,
    response_is_data: bool,
}

/// A body that is shown as long as it names no secret.
#[derive(Default)]
struct Watched {
    tail: Vec<u8>,
    named: bool,
}

/// A body of a form, in the middle of it.
#[derive(Default)]
struct Form {
    name: Vec<u8>,
    /// Behind the `=`: whether the value is a secret's.
    value: Option<bool>,
}

impl Masks {
    /// Masks nothing if `off`.
    pub fn new(off: bool) -> Self {
        Self {
            off,
            ..Self::default()
        }
    }

    /// Looks at the kind of the request's body.
    pub fn learn(&mut self, params: &Params) {
        let kind = params.get(b"CONTENT_TYPE").unwrap_or_default();
        if starts_with(kind, b"application/x-www-form-urlencoded") {
            self.form = Some(Form::default());
        }
    }

    /// A parameter's value.
    pub fn param<'v>(&self, name: &[u8], value: &'v [u8]) -> Cow<'v, [u8]> {
        if self.off || value.is_empty() {
            return Cow::Borrowed(value);
        }
        // `SERVER_SIGNATURE` and `PWD` are no secrets, though they are called so.
        let plain = matches!(name, b"PWD" | b"SERVER_SIGNATURE");
        if !plain && is_secret(name) {
            return Cow::Borrowed(MASK);
        }
        let query_at = match name {
            b"QUERY_STRING" => Some(0),
            b"REQUEST_URI" | b"HTTP_REFERER" | b"REDIRECT_URL" => {
                value.iter().position(|&b| b == b'?').map(|at| at + 1)
            }
            _ => None,
        };
        match query_at {
            Some(at) => {
                let (front, query) = value.split_at(at);
                let mut out = front.to_vec();
                Form::default().mask(query, &mut out);
                Cow::Owned(out)
            }
            None => Cow::Borrowed(value),
        }
    }

    /// The lines of a response's head.
    pub fn head(&mut self, lines: &mut [(Vec<u8>, Vec<u8>)]) {
        for (name, value) in lines {
            if name.eq_ignore_ascii_case(b"content-type") {
                self.response_is_data = contains(value, b"json") || contains(value, b"xml");
            }
            if !self.off && !value.is_empty() && is_secret(name) {
                *value = MASK.to_vec();
            }
        }
    }

    /// Data of the request's body; whether they are withheld.
    pub fn request(&mut self, data: &Bytes) -> (Bytes, bool) {
        if self.off {
            return (data.clone(), false);
        }
        if let Some(form) = &mut self.form {
            let mut out = Vec::with_capacity(data.len());
            form.mask(data, &mut out);
            return (out.into(), false);
        }
        self.request.look(data)
    }

    /// Data of the response's body. Pages name passwords without telling them; what programs
    /// send each other tells them.
    pub fn response(&mut self, data: &Bytes) -> (Bytes, bool) {
        if self.off || !self.response_is_data {
            return (data.clone(), false);
        }
        self.response.look(data)
    }
}

impl Watched {
    fn look(&mut self, data: &Bytes) -> (Bytes, bool) {
        if !self.named {
            self.tail.extend_from_slice(data);
            self.named = is_secret(&self.tail);
            let drop = self.tail.len().saturating_sub(OVERLAP);
            self.tail.drain(..drop);
        }
        match self.named {
            true => (Bytes::new(), true),
            false => (data.clone(), false),
        }
    }
}

impl Form {
    /// Copies a piece of a form with the values of secrets masked.
    fn mask(&mut self, data: &[u8], out: &mut Vec<u8>) {
        for &byte in data {
            match (byte, self.value) {
                (b'&' | b';' | b'#', _) => {
                    self.name.clear();
                    self.value = None;
                    out.push(byte);
                }
                (b'=', None) => {
                    let secret = is_secret(&form_decoded(&self.name));
                    self.value = Some(secret);
                    out.push(byte);
                    if secret {
                        out.extend_from_slice(MASK);
                    }
                }
                (_, None) => {
                    if self.name.len() < MAX_NAME {
                        self.name.push(byte);
                    }
                    out.push(byte);
                }
                (_, Some(true)) => {}
                (_, Some(false)) => out.push(byte),
            }
        }
    }
}

fn is_secret(name: &[u8]) -> bool {
    let plain: Vec<u8> = name
        .iter()
        .map(|byte| match byte {
            b'-' => b'_',
            byte => byte.to_ascii_uppercase(),
        })
        .collect();
    let holds = |part: &&str| memchr::memmem::find(&plain, part.as_bytes()).is_some();
    SECRET.iter().any(holds)
}

fn starts_with(value: &[u8], start: &[u8]) -> bool {
    value
        .get(..start.len())
        .is_some_and(|front| front.eq_ignore_ascii_case(start))
}

fn contains(value: &[u8], part: &[u8]) -> bool {
    value
        .windows(part.len())
        .any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_masked_in_queries_and_forms() {
        for (form, expected) in [
            ("a=1&password=hunter2&b=3", "a=1&password=***&b=3"),
            ("pass%77ord=x&user[pwd]=y", "pass%77ord=***&user[pwd]=***"),
            ("plain", "plain"),
            ("access_token=a=b&c", "access_token=***&c"),
        ] {
            for at in 0..form.len() {
                let (mut mask, mut out) = (Form::default(), Vec::new());
                let (a, b) = form.as_bytes().split_at(at);
                mask.mask(a, &mut out);
                mask.mask(b, &mut out);
                assert_eq!(String::from_utf8_lossy(&out), expected, "split at {at}");
            }
        }
        let masks = Masks::new(false);
        for (name, value, expected) in [
            ("HTTP_COOKIE", "a=b", "***"),
            ("HTTP_AUTHORIZATION", "Basic eDp5", "***"),
            ("HTTP_COOKIE", "", ""),
            ("REQUEST_URI", "/a?token=1&b=2", "/a?token=***&b=2"),
            ("SCRIPT_NAME", "/token.php", "/token.php"),
            ("PWD", "/srv", "/srv"),
        ] {
            let shown = masks.param(name.as_bytes(), value.as_bytes());
            assert_eq!(String::from_utf8_lossy(&shown), expected, "{name}");
        }
        let all = Masks::new(true);
        assert_eq!(all.param(b"HTTP_COOKIE", b"a=b").as_ref(), b"a=b");
    }

    #[test]
    fn a_body_that_names_a_secret_is_withheld_from_there_on() {
        let mut masks = Masks::new(false);
        assert!(
            !masks
                .request(&Bytes::from_static(b"{\"user\": 1, \"pass"))
                .1
        );
        assert!(masks.request(&Bytes::from_static(b"word\": \"x\"")).1);
        assert!(masks.request(&Bytes::from_static(b"y\"}")).1);
    }
}
