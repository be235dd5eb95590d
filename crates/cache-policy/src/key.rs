//! The primary key: scheme, host, path and query, and what the operator adds (RFC 9111 §2).

use std::borrow::Cow;

/// What a primary key is made of.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// `http` or `https`, in lower case.
    pub scheme: &'a str,
    /// The host as it was asked for, without port; its case does not matter.
    pub host: &'a str,
    /// The port, also where it is the scheme's own.
    pub port: u16,
    /// The path in its one form.
    pub path: &'a [u8],
    /// The query as [`QueryRules::apply`] leaves it.
    pub query: Option<&'a [u8]>,
    /// The option `key`, with its variables filled in.
    pub extra: &'a [u8],
    /// The method and the content, where the method is one that is keyed by its content: neither
    /// GET nor HEAD.
    pub content: Option<(&'a str, &'a [u8])>,
}

impl Key<'_> {
    /// Appends the key. Different parts make different keys: it begins with the URI, which ends at
    /// the first line's end, and all that may hold anything is behind its length.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.scheme.as_bytes());
        out.extend_from_slice(b"://");
        let host = out.len();
        out.extend_from_slice(self.host.as_bytes());
        out.get_mut(host..)
            .unwrap_or_default()
            .make_ascii_lowercase();
        if Some(self.port) != default_port(self.scheme) {
            out.push(b':');
            out.extend_from_slice(self.port.to_string().as_bytes());
        }
        out.extend_from_slice(self.path);
        if let Some(query) = self.query {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        if self.extra.is_empty() && self.content.is_none() {
            return;
        }
        out.extend_from_slice(format!("\n{}:", self.extra.len()).as_bytes());
        out.extend_from_slice(self.extra);
        if let Some((method, content)) = self.content {
            out.extend_from_slice(format!("\n{method}:").as_bytes());
            out.extend_from_slice(content);
        }
    }
}

/// Whether a key was made of a content, too.
#[must_use]
pub fn has_content(key: &[u8]) -> bool {
    // Behind the URI: `\nLENGTH:EXTRA`, and then `\nMETHOD:CONTENT`.
    let after = key.iter().position(|byte| *byte == b'\n');
    let behind = after.and_then(|at| key.get(at + 1..)).unwrap_or_default();
    let mut parts = behind.splitn(2, |byte| *byte == b':');
    let len = parts.next().and_then(|text| std::str::from_utf8(text).ok());
    let len = len.and_then(|text| text.parse::<usize>().ok());
    let rest = parts.next().unwrap_or_default();
    len.and_then(|len| rest.get(len..))
        .is_some_and(|rest| rest.first() == Some(&b'\n'))
}

/// The port that a URI of this scheme means without saying it.
pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Whether a parameter of this name is meant.
pub type NameRule<'a> = &'a dyn Fn(&[u8]) -> bool;

/// `keep_query`, `ignore_query` and `sort_query`: what counts of a query. The origin is asked with
/// the same query as the key has, so that nothing that does not count can change what is stored.
#[derive(Clone, Copy, Default)]
pub struct QueryRules<'a> {
    /// Only parameters of these names count; without it all do.
    pub keep: Option<NameRule<'a>>,
    /// Parameters of these names do not count, also among those that are kept.
    pub ignore: Option<NameRule<'a>>,
    /// Their order does not count, but for those of the same name.
    pub sort: bool,
}

impl QueryRules<'_> {
    /// What counts of a query; nothing is copied where nothing has to be. `None` if nothing is
    /// left of it.
    #[must_use]
    pub fn apply<'q>(&self, query: &'q [u8]) -> Option<Cow<'q, [u8]>> {
        if self.keep.is_none() && self.ignore.is_none() && !self.sort {
            return Some(Cow::Borrowed(query));
        }
        let counts = |name: &[u8]| {
            self.keep.is_none_or(|keep| keep(name)) && !self.ignore.is_some_and(|drop| drop(name))
        };
        let mut left: Vec<(Cow<'q, [u8]>, &'q [u8])> = query
            .split(|&byte| byte == b'&')
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| (decoded_name(parameter), parameter))
            .filter(|(name, _)| counts(name))
            .collect();
        if self.sort {
            // Stable: of the same name, the order may mean something.
            left.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let mut joined = Vec::with_capacity(query.len());
        for (at, (_, parameter)) in left.iter().enumerate() {
            if at > 0 {
                joined.push(b'&');
            }
            joined.extend_from_slice(parameter);
        }
        match joined.as_slice() {
            [] => None,
            same if same == query => Some(Cow::Borrowed(query)),
            _ => Some(Cow::Owned(joined)),
        }
    }
}

/// The name of a parameter as an application sees it: `%75tm_id` is `utm_id`, `+` is a space.
fn decoded_name(parameter: &[u8]) -> Cow<'_, [u8]> {
    let end = parameter.iter().position(|&byte| byte == b'=');
    let name = &parameter[..end.unwrap_or(parameter.len())];
    if !name.iter().any(|&byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(name);
    }
    let hex = |digit: &u8| {
        char::from(*digit)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, behind)) = rest.split_first() {
        let pair = match behind {
            [high, low, ..] if *first == b'%' => hex(high).zip(hex(low)),
            _ => None,
        };
        let (byte, read) = match (pair, first) {
            (Some((high, low)), _) => (high << 4 | low, 3),
            (None, b'+') => (b' ', 1),
            (None, _) => (*first, 1),
        };
        decoded.push(byte);
        rest = rest.get(read..).unwrap_or_default();
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Key<'_> = Key {
        scheme: "https",
        host: "example.com",
        port: 443,
        path: b"/a",
        query: None,
        extra: b"",
        content: None,
    };

    fn check(key: Key<'_>, expected: &str) {
        let mut out = Vec::new();
        key.write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn rfc9111_2_the_primary_key() {
        check(PLAIN, "https://example.com/a");
        let host = "ExAmple.COM";
        check(Key { host, ..PLAIN }, "https://example.com/a");
        check(Key { port: 80, ..PLAIN }, "https://example.com:80/a");
        let http = Key {
            scheme: "http",
            ..PLAIN
        };
        check(http, "http://example.com:443/a");
        check(Key { port: 80, ..http }, "http://example.com/a");
        let query = Some(b"B=1&a".as_slice());
        check(Key { query, ..PLAIN }, "https://example.com/a?B=1&a");
        let query = Some(b"".as_slice());
        check(Key { query, ..PLAIN }, "https://example.com/a?");
    }

    #[test]
    fn what_the_operator_adds_cannot_be_taken_for_anything_else() {
        let extra = b"mobile EUR".as_slice();
        check(
            Key { extra, ..PLAIN },
            "https://example.com/a\n10:mobile EUR",
        );
        let content = Some(("POST", b"x=1".as_slice()));
        for (extra, content) in [
            (b"".as_slice(), None),
            (b"\nPOST:x", None),
            (b"a:b\n3:c", None),
            (b"", content),
            (b"a\n1:b", content),
        ] {
            let key = Key {
                extra,
                content,
                ..PLAIN
            };
            let mut bytes = Vec::new();
            key.write(&mut bytes);
            assert_eq!(has_content(&bytes), content.is_some(), "{key:?}");
        }
        check(
            Key { content, ..PLAIN },
            "https://example.com/a\n0:\nPOST:x=1",
        );
        let extra = b"\nPOST:x=1".as_slice();
        check(
            Key { extra, ..PLAIN },
            "https://example.com/a\n9:\nPOST:x=1",
        );
    }

    fn query(rules: &QueryRules<'_>, query: &str, expected: Option<&str>) {
        let got = rules.apply(query.as_bytes());
        assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{query}");
        // What is left stays.
        if let Some(left) = got {
            assert_eq!(rules.apply(&left).as_deref(), Some(&*left), "{query}");
        }
    }

    #[test]
    fn parameters_that_do_not_count() {
        let utm = |name: &[u8]| name.starts_with(b"utm_");
        let rules = QueryRules {
            ignore: Some(&utm),
            ..QueryRules::default()
        };
        query(&rules, "a=1&utm_x=2&b", Some("a=1&b"));
        query(&rules, "%75tm_x=2&a=utm_", Some("a=utm_"));
        query(&rules, "utm_x", None);
        query(&rules, "", None);
        query(&rules, "b=2&a=1", Some("b=2&a=1"));
    }

    #[test]
    fn parameters_that_count() {
        let id = |name: &[u8]| name == b"id" || name == b"a b";
        let a = |name: &[u8]| name == b"a b";
        let rules = QueryRules {
            keep: Some(&id),
            ..QueryRules::default()
        };
        query(&rules, "x=1&id=2&a+b=3&a%20b&a%2", Some("id=2&a+b=3&a%20b"));
        let both = QueryRules {
            ignore: Some(&a),
            ..rules
        };
        query(&both, "x=1&id=2&a+b=3", Some("id=2"));
    }

    #[test]
    fn parameters_in_any_order() {
        let rules = QueryRules {
            sort: true,
            ..QueryRules::default()
        };
        query(&rules, "b=1&a=2&b=0&&a", Some("a=2&a&b=1&b=0"));
        query(&rules, "b&%61", Some("%61&b"));
        // Many, because few are sorted stably by any sort.
        let name = |value: u32| if value * 7 % 5 < 2 { "a" } else { "b" };
        let mixed: Vec<String> = (0..99).map(|v| format!("{}={v}", name(v))).collect();
        let of = |name: &str| {
            mixed
                .iter()
                .filter(|one| one.starts_with(name))
                .cloned()
                .collect()
        };
        let sorted: [Vec<String>; 2] = [of("a"), of("b")];
        query(&rules, &mixed.join("&"), Some(&sorted.concat().join("&")));
        query(&QueryRules::default(), "b&&a", Some("b&&a"));
        query(&QueryRules::default(), "", Some(""));
    }
}
