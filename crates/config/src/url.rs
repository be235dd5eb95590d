//! Where something on the web is that is read while running.

use crate::address::{Endpoint, Scheme, endpoint};

/// An absolute `http` or `https` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it was written.
    pub text: Box<str>,
    /// `Http` or `Https`.
    pub scheme: Scheme,
    /// Whom to connect to: an address or a name.
    pub to: Endpoint,
    /// The host with its port, if one is written: what goes into `Host`.
    pub authority: Box<str>,
    /// Path and query: what is asked for.
    pub target: Box<str>,
}

impl Url {
    /// Reads a URL. One with a name and password is none: both would stand wherever it is shown.
    pub fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        // A fragment is never sent (RFC 9110 §7.1); what is no ASCII would have to be escaped.
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if !rest.bytes().all(plain) {
            return None;
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let target = match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("/{target}"),
        };
        Some(Url {
            text: text.into(),
            scheme,
            to: endpoint(authority, Some(scheme.port()))?,
            authority: authority.to_ascii_lowercase().into(),
            target: target.into(),
        })
    }

    /// For logs: without the query, which may hold what lets us in.
    pub fn shown(&self) -> &str {
        self.text.split('?').next().unwrap_or_default()
    }

    /// Whether it leads to this very machine.
    pub fn is_local(&self) -> bool {
        match &self.to {
            Endpoint::Socket(address) => address.ip().is_loopback(),
            Endpoint::Name(name, _) => &**name == "localhost",
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, to, authority, target) in [
            ("https://id.test/keys", "id.test:443", "id.test", "/keys"),
            ("http://ID.test", "id.test:80", "id.test", "/"),
            (
                "https://id.test:8443?a=b/c",
                "id.test:8443",
                "id.test:8443",
                "/?a=b/c",
            ),
            ("http://127.0.0.1:81/", "127.0.0.1:81", "127.0.0.1:81", "/"),
            ("https://[::1]/a?b", "[::1]:443", "[::1]", "/a?b"),
        ] {
            let url = Url::parse(text).unwrap_or_else(|| panic!("{text}"));
            let found = match &url.to {
                Endpoint::Socket(address) => address.to_string(),
                Endpoint::Name(name, port) => format!("{name}:{port}"),
                other => panic!("{text}: {other:?}"),
            };
            let found = (found.as_str(), &*url.authority, &*url.target);
            assert_eq!(found, (to, authority, target), "{text}");
        }
        for text in [
            "id.test/keys",
            "ftp://id.test/keys",
            "HTTPS//id.test",
            "https://",
            "https:///keys",
            "https://id.test:0/",
            "https://id.test:99999/",
            "https://ann:secret@id.test/keys",
            "https://id.test/keys#first",
            "https://id.test/a b",
            "https://id.test/\r\nX: y",
            "https://id.test/schlüssel",
            "https://$host/keys",
            "https://unix:/run/a.sock",
        ] {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        let url = Url::parse("https://id.test/keys?token=secret").expect("a URL");
        assert_eq!(url.shown(), "https://id.test/keys");
    }
}
