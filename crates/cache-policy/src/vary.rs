//! `Vary`: which fields of requests a stored response was chosen by (RFC 9111 §4.1).

use forebay_fields::{Fields, Known, Name, is_token};

use crate::accept::{Codings, write_languages};

/// What a response's `Vary` says, over all its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Vary {
    /// It is not there, or empty: the response is for every request of its key.
    #[default]
    Nothing,
    /// These fields.
    Names(VaryNames),
    /// `*`, or something that is no list of names: it matches no other request.
    Star,
    /// More than 16 names or 512 bytes.
    TooLong,
}

/// More fields than this are not compared.
pub(crate) const MAX_NAMES: usize = 16;
/// Nor are longer lists of names.
pub(crate) const MAX_BYTES: usize = 512;

impl Vary {
    /// Reads the field of a response.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        if !fields.contains(Known::Vary) {
            return Self::Nothing;
        }
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut too_long = false;
        for name in fields.list(Known::Vary) {
            // `*` counts wherever it stands, and what cannot be compared is as good as `*`.
            if name == b"*" || !is_token(name) {
                return Self::Star;
            }
            let name = name.to_ascii_lowercase();
            if let Err(place) = names.binary_search(&name) {
                too_long |= names.len() == MAX_NAMES || name.len() > MAX_BYTES;
                if !too_long {
                    names.insert(place, name);
                }
            }
        }
        let joined = names.join(b",".as_slice());
        match joined.len() {
            _ if too_long => Self::TooLong,
            0 => Self::Nothing,
            1..=MAX_BYTES => Self::Names(VaryNames(joined.into())),
            _ => Self::TooLong,
        }
    }
}

/// The names of a `Vary`: in lower case, sorted, each once, joined by commas. So two lists of the
/// same names are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaryNames(pub(crate) Box<[u8]>);

impl VaryNames {
    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b',')
    }

    /// The names, joined by commas.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same without these names, which are in lower case: of fields that no request which fills
    /// the cache has. `None` if nothing is left.
    #[must_use]
    pub fn without(&self, is_left_out: impl Fn(&[u8]) -> bool) -> Option<Self> {
        let left: Vec<&[u8]> = self.iter().filter(|name| !is_left_out(name)).collect();
        (!left.is_empty()).then(|| Self(left.join(b",".as_slice()).into()))
    }

    /// Appends the secondary key of a request: what it says in these fields, in normal form. Two
    /// requests match (RFC 9111 §4.1) if and only if these bytes are equal.
    ///
    /// A line for each name, `name:value`, or `name` alone where the field is not there: that
    /// matches only where it is not there either.
    ///
    /// `false`, and nothing is appended, if that is longer than 8 KiB: then go round the cache.
    pub fn write_key(&self, request: &Fields, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        for name in self.iter() {
            out.extend_from_slice(name);
            write_value(request, name, out);
            out.push(b'\n');
            if out.len() - start > MAX_KEY_BYTES {
                out.truncate(start);
                return false;
            }
        }
        true
    }
}

/// A longer secondary key is no key: whoever sends it would fill memory with it.
const MAX_KEY_BYTES: usize = 8192;

/// Appends a colon and the value of all lines, if there is one. Lines are joined
/// (RFC 9110 §5.3), nothing else is changed: what white space or case mean in a field that is not
/// known here, its origin alone knows.
fn write_value(request: &Fields, name: &[u8], out: &mut Vec<u8>) {
    let name = Name::from(name);
    if !request.contains(name) {
        return;
    }
    out.push(b':');
    match name {
        Name::Known(Known::AcceptEncoding) => {
            if let Some(codings) = Codings::of(request) {
                codings.write(out);
            }
        }
        Name::Known(Known::AcceptLanguage) => {
            write_languages(request, out);
        }
        // Lists: white space around their commas means nothing, nor do empty members.
        Name::Known(Known::Accept | Known::AcceptCharset) => {
            join(request.list(name), b", ", out);
        }
        // As HTTP/2 splits it (RFC 9113 §8.2.3).
        Name::Known(Known::Cookie) => join(request.all(name), b"; ", out),
        _ => join(request.all(name), b", ", out),
    }
}

fn join<'a>(parts: impl Iterator<Item = &'a [u8]>, separator: &[u8], out: &mut Vec<u8>) {
    for (at, part) in parts.enumerate() {
        if at > 0 {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vary(lines: &[&str]) -> Vary {
        let mut fields = Fields::new();
        for line in lines {
            fields.append("Vary", line).unwrap();
        }
        Vary::of(&fields)
    }

    fn check(lines: &[&str], expected: &str) {
        let expected = Vary::Names(VaryNames(expected.as_bytes().into()));
        assert_eq!(vary(lines), expected, "{lines:?}");
    }

    #[test]
    fn rfc9111_4_1_lists_of_names() {
        check(&["Accept-Encoding"], "accept-encoding");
        check(&["b, A,,", "a", "C"], "a,b,c");
        assert_eq!(vary(&[]), Vary::Nothing);
        assert_eq!(vary(&["", " ,"]), Vary::Nothing);
    }

    #[test]
    fn rfc9111_4_1_star_matches_nothing() {
        for star in ["*", "a, *", "*, a", "a b", "\"a\""] {
            assert_eq!(vary(&[star]), Vary::Star, "{star}");
        }
        assert_eq!(vary(&["a", "*"]), Vary::Star);
    }

    fn key(names: &str, request: &[(&str, &str)]) -> String {
        let Vary::Names(names) = vary(&[names]) else {
            panic!("{names}");
        };
        let mut out = Vec::new();
        assert!(names.write_key(&crate::testing::fields(request), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc9111_4_1_requests_match_by_the_fields_that_vary_names() {
        let same = |names, a: &[_], b: &[_]| key(names, a) == key(names, b);
        // Lines are joined, white space at the ends does not count, nor does the name's case.
        assert!(same(
            "X-A",
            &[("x-a", "1"), ("X-A", "2")],
            &[("X-A", " 1, 2 ")]
        ));
        assert!(!same("X-A", &[("X-A", "1,2")], &[("X-A", "1, 2")]));
        assert!(!same("X-A", &[("X-A", "a")], &[("X-A", "A")]));
        // Absent matches only absent.
        assert!(!same("X-A", &[], &[("X-A", "")]));
        assert!(same("X-A", &[("X-B", "1")], &[]));
        // The order of different fields does not count.
        let (a, b) = (("A", "1"), ("B", "2"));
        assert!(same("B, A", &[a, b], &[b, a]));
        assert_ne!(key("a, b", &[("A", "1")]), key("a, b", &[("B", "1")]));
        assert_eq!(key("b, a", &[("A", "1")]), "a:1\nb\n");
        assert!(same(
            "Cookie",
            &[("Cookie", "a=1; b=2")],
            &[("Cookie", "a=1"), ("Cookie", "b=2")]
        ));
        assert!(same(
            "Accept",
            &[("Accept", "a/b ,c/d")],
            &[("Accept", "a/b, c/d,")]
        ));
    }

    #[test]
    fn rfc9111_4_1_normalised_accept_fields() {
        assert_eq!(
            key(
                "Accept-Encoding",
                &[("Accept-Encoding", "deflate, gzip;q=0.5, br")]
            ),
            "accept-encoding:br, gzip\n"
        );
        assert_eq!(key("Accept-Encoding", &[]), "accept-encoding\n");
        assert_eq!(
            key("Accept-Language", &[("Accept-Language", "EN, de;q=0.7")]),
            "accept-language:en, de;q=0.9\n"
        );
    }

    #[test]
    fn a_key_has_a_limit() {
        let Vary::Names(names) = vary(&["x-a"]) else {
            panic!("no names");
        };
        let long = "a".repeat(MAX_KEY_BYTES);
        let mut out = b"kept".to_vec();
        assert!(!names.write_key(&crate::testing::fields(&[("X-A", &long)]), &mut out));
        assert_eq!(out, b"kept");
    }

    #[test]
    fn lists_have_a_limit() {
        let list = |count: usize| (0..count).map(|n| format!("x{n:02},")).collect::<String>();
        assert!(matches!(vary(&[&list(MAX_NAMES)]), Vary::Names(_)));
        assert_eq!(vary(&[&list(MAX_NAMES + 1)]), Vary::TooLong);
        assert_eq!(vary(&[&"x".repeat(MAX_BYTES + 1)]), Vary::TooLong);
        assert_eq!(vary(&[&(list(MAX_NAMES + 1) + "*")]), Vary::Star);
    }

    #[test]
    fn names_that_no_fill_has_are_left_out() {
        let mut fields = Fields::new();
        fields.append("Vary", "Cookie, X-Host, Accept").unwrap();
        let Vary::Names(names) = Vary::of(&fields) else {
            panic!("it has names");
        };
        let without = |names: &VaryNames, out: &[&[u8]]| names.without(|name| out.contains(&name));
        let left = without(&names, &[b"cookie", b"x-host"]).unwrap();
        assert_eq!(left.as_bytes(), b"accept");
        assert_eq!(without(&left, &[]), Some(left.clone()));
        assert_eq!(without(&left, &[b"accept"]), None);
    }
}
