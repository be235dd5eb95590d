//! `Vary`: which fields of requests a stored response was chosen by (RFC 9111 §4.1).

use forebay_fields::{Fields, Known, is_token};

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

    #[test]
    fn lists_have_a_limit() {
        let list = |count: usize| (0..count).map(|n| format!("x{n:02},")).collect::<String>();
        assert!(matches!(vary(&[&list(MAX_NAMES)]), Vary::Names(_)));
        assert_eq!(vary(&[&list(MAX_NAMES + 1)]), Vary::TooLong);
        assert_eq!(vary(&[&"x".repeat(MAX_BYTES + 1)]), Vary::TooLong);
        assert_eq!(vary(&[&(list(MAX_NAMES + 1) + "*")]), Vary::Star);
    }
}
