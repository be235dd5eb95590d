//! `Accept-Encoding` and `Accept-Language` in a form in which requests that mean the same are the
//! same (RFC 9111 §4.1, RFC 9110 §12.5).
//!
//! Requests are kept apart only by what their normal forms differ in, so an origin must not see
//! more than these: [`normalise_request`] is for every request that may fill the cache.

use forebay_fields::{EditError, Fields, Known};

/// The content codings of an `Accept-Encoding` that matter: `zstd`, `br` and `gzip`, and whether
/// `identity` is refused. Preferences among those that are accepted do not count, as any of them is
/// fine; other codings do not, as no origin gets to know of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codings(u8);

/// In the order in which they are written.
const CODINGS: [(&[u8], u8); 3] = [(b"zstd", 1), (b"br", 1 << 1), (b"gzip", 1 << 2)];
const NO_IDENTITY: u8 = 1 << 3;

impl Codings {
    /// Reads the field; `None` if there is none, which is not the same as refusing everything.
    #[must_use]
    pub fn of(fields: &Fields) -> Option<Self> {
        if !fields.contains(Known::AcceptEncoding) {
            return None;
        }
        let (mut listed, mut accepted, mut others) = (0, 0, None);
        for member in fields.list(Known::AcceptEncoding) {
            let (name, weight) = weighted(member);
            if name == b"*" {
                others.get_or_insert(weight > 0);
                continue;
            }
            let bit = Self::bit(name);
            // The first one of a name counts.
            if weight > 0 {
                accepted |= bit & !listed;
            }
            listed |= bit;
        }
        let unlisted = (Self::ALL | NO_IDENTITY) & !listed;
        // Whatever is not listed: acceptable with `*`, else only identity is.
        match others {
            Some(true) => accepted |= unlisted,
            Some(false) => {}
            None => accepted |= unlisted & NO_IDENTITY,
        }
        Some(Self(accepted ^ NO_IDENTITY))
    }

    const ALL: u8 = 0b111;

    fn bit(name: &[u8]) -> u8 {
        let is = |coding: &[u8]| name.eq_ignore_ascii_case(coding);
        let known = CODINGS.iter().find(|(coding, _)| is(coding));
        match known {
            Some((_, bit)) => *bit,
            // The old name (RFC 9110 §8.4.1.3).
            None if is(b"x-gzip") => 1 << 2,
            // Here as a bit of its own; what is kept is the reverse.
            None if is(b"identity") => NO_IDENTITY,
            None => 0,
        }
    }

    /// Whether a response with this `Content-Encoding` may be sent; an empty one is `identity`.
    /// One with several codings may not be: nobody asks for that.
    #[must_use]
    pub fn admits(self, coding: &[u8]) -> bool {
        match Self::bit(coding) {
            _ if coding.is_empty() => self.0 & NO_IDENTITY == 0,
            NO_IDENTITY => self.0 & NO_IDENTITY == 0,
            bit => self.0 & bit != 0,
        }
    }

    /// Appends the normal form, a valid `Accept-Encoding` that says the same.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut separator: &[u8] = b"";
        let accepted = CODINGS.iter().filter(|(_, bit)| self.0 & bit != 0);
        for (name, _) in accepted {
            out.extend_from_slice(separator);
            out.extend_from_slice(name);
            separator = b", ";
        }
        if self.0 & NO_IDENTITY != 0 {
            out.extend_from_slice(separator);
            out.extend_from_slice(b"identity;q=0");
        } else if self.0 == 0 {
            out.extend_from_slice(b"identity");
        }
    }
}

/// More languages than this are not looked at: weights go in tenths.
const MAX_LANGUAGES: usize = 10;

/// Appends the normal form of `Accept-Language`: the ranges in lower case, from the best one on,
/// with weights by their place alone; those that are refused behind them. `false` if there is no
/// such field.
pub(crate) fn write_languages(fields: &Fields, out: &mut Vec<u8>) -> bool {
    if !fields.contains(Known::AcceptLanguage) {
        return false;
    }
    let mut ranges: Vec<(Vec<u8>, u16)> = Vec::new();
    for member in fields.list(Known::AcceptLanguage) {
        let (name, weight) = weighted(member);
        let is_range = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*');
        let name = name.to_ascii_lowercase();
        let right = !name.is_empty() && name.len() <= 35 && name.iter().all(is_range);
        if right && !ranges.iter().any(|(known, _)| *known == name) {
            ranges.push((name, weight));
        }
        if ranges.len() == 2 * MAX_LANGUAGES {
            break;
        }
    }
    // Stable: of equals, the one that stands first.
    ranges.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    ranges.truncate(MAX_LANGUAGES);
    for (place, (name, weight)) in (0_u8..).zip(&ranges) {
        if place > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(name);
        match (place, weight) {
            (_, 0) => out.extend_from_slice(b";q=0"),
            (0, _) => {}
            (1..=9, _) => out.extend_from_slice(&[b';', b'q', b'=', b'0', b'.', b'0' + 10 - place]),
            _ => {}
        }
    }
    true
}

/// Brings `Accept-Encoding` and `Accept-Language` of a request into their normal forms.
///
/// # Errors
/// Far too much was added to the fields before.
pub fn normalise_request(fields: &mut Fields) -> Result<(), EditError> {
    let mut value = Vec::new();
    if let Some(codings) = Codings::of(fields) {
        codings.write(&mut value);
        fields.set(Known::AcceptEncoding, &value)?;
        value.clear();
    }
    if write_languages(fields, &mut value) {
        fields.set(Known::AcceptLanguage, &value)?;
    }
    Ok(())
}

/// A member of a list with a weight (RFC 9110 §12.4.2): what stands before the `;`, and the
/// weight in thousandths. A weight that is none is 0: what cannot be read is not asked for.
fn weighted(member: &[u8]) -> (&[u8], u16) {
    let Some(semicolon) = member.iter().position(|&byte| byte == b';') else {
        return (member, 1000);
    };
    let (name, parameter) = (&member[..semicolon], &member[semicolon + 1..]);
    let weight = match parameter.trim_ascii() {
        [b'q' | b'Q', b'=', digits @ ..] => thousandths(digits).unwrap_or(0),
        _ => 0,
    };
    (name.trim_ascii(), weight)
}

fn thousandths(digits: &[u8]) -> Option<u16> {
    let (whole, rest) = digits.split_first()?;
    let mut weight = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    let decimals = match rest {
        [] => rest,
        [b'.', decimals @ ..] if decimals.len() <= 3 => decimals,
        _ => return None,
    };
    for (digit, worth) in decimals.iter().zip([100, 10, 1]) {
        weight += u16::from(digit.is_ascii_digit().then(|| digit - b'0')?) * worth;
    }
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{fields, text};

    fn codings(value: &str) -> Codings {
        Codings::of(&fields(&[("Accept-Encoding", value)])).unwrap()
    }

    fn check(value: &str, expected: &str) {
        let mut out = Vec::new();
        codings(value).write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{value}");
        // The normal form says the same.
        assert_eq!(codings(expected), codings(value), "{value}");
    }

    #[test]
    fn rfc9110_12_5_3_codings_in_their_normal_form() {
        check("gzip, deflate, br, zstd", "zstd, br, gzip");
        check("br;q=0.1, GZIP;q=1.0", "br, gzip");
        check("x-gzip", "gzip");
        check("gzip;q=0, br", "br");
        check("deflate", "identity");
        check("", "identity");
        check("identity", "identity");
        check("*", "zstd, br, gzip");
        check("br;q=0, *", "zstd, gzip");
        check("gzip, *;q=0", "gzip, identity;q=0");
        check("gzip, identity;q=0", "gzip, identity;q=0");
        check("*;q=0", "identity;q=0");
        check("*;q=0, identity", "identity");
        check("gzip;q=x, br;q=1.5, zstd;x=1", "identity");
        check("gzip, gzip;q=0", "gzip");
    }

    #[test]
    fn rfc9110_12_5_3_what_they_admit() {
        let own = codings("br, gzip;q=0");
        for (coding, expected) in [
            ("br", true),
            ("BR", true),
            ("gzip", false),
            ("", true),
            ("identity", true),
            ("zstd", false),
            ("deflate", false),
            ("br, gzip", false),
        ] {
            assert_eq!(own.admits(coding.as_bytes()), expected, "{coding}");
        }
        assert!(!codings("br, *;q=0").admits(b""));
        assert_eq!(Codings::of(&Fields::new()), None);
    }

    #[test]
    fn rfc9110_12_4_2_weights() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("0", Some(0)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.123", Some(123)),
            ("1.001", None),
            ("0.1234", None),
            ("2", None),
            (".5", None),
            ("", None),
            ("-1", None),
            ("0.a", None),
        ] {
            assert_eq!(thousandths(text.as_bytes()), expected, "{text}");
        }
    }

    fn language(value: &str, expected: &str) {
        let mut out = Vec::new();
        assert!(write_languages(
            &fields(&[("Accept-Language", value)]),
            &mut out
        ));
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{value}");
        let mut again = Vec::new();
        write_languages(&fields(&[("Accept-Language", expected)]), &mut again);
        assert_eq!(String::from_utf8(again).unwrap(), expected, "of {value}");
    }

    #[test]
    fn rfc9110_12_5_4_languages_in_their_normal_form() {
        language("de-AT,de;q=0.5 , en;q=0.3", "de-at, de;q=0.9, en;q=0.8");
        language("en;q=0.1, de", "de, en;q=0.9");
        language("en, de", "en, de;q=0.9");
        language("de, de;q=0.1, !, en;q=x", "de, en;q=0");
        language("*;q=0.1, en;q=0", "*, en;q=0");
        language("", "");
        let many = "a,b,c,d,e,f,g,h,i,j,k,l";
        let ten =
            "a, b;q=0.9, c;q=0.8, d;q=0.7, e;q=0.6, f;q=0.5, g;q=0.4, h;q=0.3, i;q=0.2, j;q=0.1";
        language(many, ten);
    }

    #[test]
    fn a_fill_shows_its_origin_the_normal_forms() {
        let mut request = fields(&[
            ("Accept-Language", "EN"),
            ("Accept-Encoding", "deflate, gzip"),
            ("accept-encoding", "br"),
        ]);
        normalise_request(&mut request).unwrap();
        assert_eq!(
            text(&request),
            "Accept-Language: en\nAccept-Encoding: br, gzip\n"
        );
        let mut none = Fields::new();
        normalise_request(&mut none).unwrap();
        assert!(none.is_empty());
    }
}
