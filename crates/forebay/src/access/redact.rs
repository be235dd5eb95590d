//! What no log may show: the values of parameters that are secrets, known by their names.

use forebay_config::{Match, Node};

use crate::exchange::form_decoded;

/// What stands in the place of a secret.
const MASK: &[u8] = b"***";

/// The names of parameters whose values are masked.
#[derive(Default)]
pub struct Redact {
    names: Box<[Match]>,
}

impl Redact {
    /// What is masked unless the operator says otherwise, as the configuration would say it.
    pub const USUAL: &str = r#"{ "token", "*_token", "password", "passwd", "pwd", "key", "apikey", "api_key", "signature", "sig", "secret", "*_secret", "code", "auth", "session", "x-amz-signature", "x-amz-credential", "x-amz-security-token" }"#;

    /// The names that are usual.
    pub fn usual() -> Redact {
        // Every second piece stands between quotes.
        let names = Redact::USUAL.split('"').skip(1).step_by(2);
        Redact {
            names: names.filter_map(Match::parse).collect(),
        }
    }

    /// Those of an option of type `match…`.
    pub fn new(nodes: &[Node]) -> Redact {
        let names = nodes.iter().map(|node| node.get::<&Match>().clone());
        Redact {
            names: names.collect(),
        }
    }

    /// Whether the value of a parameter of this name is masked, whatever the case of its letters.
    /// Of `user[password]` each part is a name: that is how forms are encoded for PHP and Rails.
    pub fn hides(&self, name: &[u8]) -> bool {
        let name = name.to_ascii_lowercase();
        let known = |part: &[u8]| self.names.iter().any(|known| known.matches(part));
        known(&name)
            || (name.contains(&b'[')
                && name
                    .split(|byte| matches!(byte, b'[' | b']'))
                    .any(|part| !part.is_empty() && known(part)))
    }

    /// Appends a URL or a part of one by `push`, the secrets in its query masked.
    pub fn push_url(&self, url: &[u8], out: &mut Vec<u8>, push: fn(&mut Vec<u8>, &[u8])) {
        match memchr::memchr2(b'?', b'#', url) {
            // Most often there is nothing to look at.
            None => push(out, url),
            Some(at) => {
                push(out, &url[..=at]);
                self.push_query(&url[at + 1..], out, push);
            }
        }
    }

    /// The same for what stands behind the question mark.
    ///
    /// Names are looked for behind everything that may end a parameter somewhere; but a secret goes on
    /// to what ends it everywhere, or one that holds a `;` would be half shown.
    pub fn push_query(&self, query: &[u8], out: &mut Vec<u8>, push: fn(&mut Vec<u8>, &[u8])) {
        let mut is_within = false;
        for piece in query.split_inclusive(|byte| matches!(byte, b'&' | b';' | b'#' | b'?')) {
            let (pair, end) = match piece {
                [pair @ .., b'&' | b';' | b'#' | b'?'] => (pair, &piece[pair.len()..]),
                pair => (pair, &[][..]),
            };
            match memchr::memchr(b'=', pair) {
                _ if is_within => {}
                Some(at) if self.hides(&form_decoded(&pair[..at])) => {
                    push(out, &pair[..=at]);
                    out.extend_from_slice(MASK);
                    is_within = true;
                }
                _ => push(out, pair),
            }
            is_within &= matches!(end, b";" | b"?");
            if !is_within {
                out.extend_from_slice(end);
            }
        }
    }

    /// Appends the value of one parameter.
    pub fn push_value(
        &self,
        name: &str,
        value: &[u8],
        out: &mut Vec<u8>,
        push: fn(&mut Vec<u8>, &[u8]),
    ) {
        if !value.is_empty() && self.hides(name.as_bytes()) {
            out.extend_from_slice(MASK);
        } else {
            push(out, value);
        }
    }
}
