//! `Cache-Status` (RFC 9211): what the cache did with a request.

use forebay_fields::{EditError, Fields, Known, append_decimal, is_token_byte};

use crate::reasons::{WhyAround, WhyValidate};

/// What is told of one exchange; see [`CacheStatus::append_to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// Who tells it: `forebay`.
    pub cache: &'a str,
    /// Answered from the cache, or not.
    pub outcome: Outcome,
    /// For how many seconds more the response is fresh; negative if it is stale.
    pub ttl: Option<i64>,
    /// The key, where it is to be shown.
    pub key: Option<&'a [u8]>,
    /// A [token](crate::WhyNot::token) of a reason, or a short text.
    pub detail: Option<&'a str>,
}

/// Answered from the cache, or not (RFC 9211 §2.1, §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache, without waiting for the origin.
    Hit,
    /// The origin was asked.
    Forwarded {
        /// Why.
        why: Forward,
        /// What it answered: `fwd-status`.
        status: Option<u16>,
        /// Whether that is stored.
        stored: bool,
        /// Whether other requests wait for the same answer.
        collapsed: bool,
    },
}

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The cache was configured not to handle it.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing is stored under its URI.
    UriMiss,
    /// What is stored under its URI was chosen for other requests.
    VaryMiss,
    /// Nothing is stored for it; which of both, is not known.
    Miss,
    /// There is a fresh response, but the request does not accept it.
    Request,
    /// There is a response, but it has to be validated.
    Stale,
    /// There is a response, but not all the bytes that are asked for.
    Partial,
}

impl Forward {
    /// Every one of them.
    pub const ALL: &'static [Self] = &[
        Self::Bypass,
        Self::Method,
        Self::UriMiss,
        Self::VaryMiss,
        Self::Miss,
        Self::Request,
        Self::Stale,
        Self::Partial,
    ];

    /// As it stands in the field.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

impl From<WhyAround> for Forward {
    fn from(why: WhyAround) -> Self {
        match why {
            WhyAround::Method => Self::Method,
            WhyAround::Body | WhyAround::Upgrade | WhyAround::Precondition | WhyAround::Bypass => {
                Self::Bypass
            }
        }
    }
}

impl From<WhyValidate> for Forward {
    fn from(why: WhyValidate) -> Self {
        match why {
            WhyValidate::RequestNoCache
            | WhyValidate::RequestMaxAge
            | WhyValidate::RequestMinFresh => Self::Request,
            WhyValidate::Invalidated | WhyValidate::NoCache | WhyValidate::Stale => Self::Stale,
        }
    }
}

/// A longer key is not shown.
const MAX_SHOWN_KEY: usize = 1024;

impl CacheStatus<'_> {
    /// Appends the member of the list that tells it, such as `forebay;hit;ttl=12`.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_token_or_string(self.cache.as_bytes(), out);
        match self.outcome {
            Outcome::Hit => out.extend_from_slice(b"; hit"),
            Outcome::Forwarded {
                why,
                status,
                stored,
                collapsed,
            } => {
                out.extend_from_slice(b"; fwd=");
                out.extend_from_slice(why.token().as_bytes());
                if let Some(status) = status {
                    out.extend_from_slice(b"; fwd-status=");
                    append_decimal(out, status.into());
                }
                if stored {
                    out.extend_from_slice(b"; stored");
                }
                if collapsed {
                    out.extend_from_slice(b"; collapsed");
                }
            }
        }
        if let Some(ttl) = self.ttl {
            out.extend_from_slice(if ttl < 0 { b"; ttl=-" } else { b"; ttl=" });
            // Integers of structured fields have 15 digits (RFC 9651 §3.3.1).
            append_decimal(out, ttl.unsigned_abs().min(999_999_999_999_999));
        }
        if let Some(key) = self.key.filter(|key| key.len() <= MAX_SHOWN_KEY) {
            out.extend_from_slice(b"; key=");
            write_string(key, out);
        }
        if let Some(detail) = self.detail {
            out.extend_from_slice(b"; detail=");
            write_token_or_string(detail.as_bytes(), out);
        }
    }

    /// Adds it to a response, behind what caches nearer to the origin have said (RFC 9211 §2).
    ///
    /// # Errors
    /// Far too much was added to the fields before.
    pub fn append_to(&self, fields: &mut Fields) -> Result<(), EditError> {
        fields.append_made(Known::CacheStatus, |out| self.write(out))
    }
}

/// As a token where it is one (RFC 9651 §3.3.4), else as a string.
fn write_token_or_string(text: &[u8], out: &mut Vec<u8>) {
    let is_token = text.first().is_some_and(u8::is_ascii_alphabetic)
        && text
            .iter()
            .all(|&byte| is_token_byte(byte) || matches!(byte, b':' | b'/'));
    if is_token {
        out.extend_from_slice(text);
    } else {
        write_string(text, out);
    }
}

/// A string (RFC 9651 §3.3.3). It cannot hold everything: what it cannot is written as in a URI.
fn write_string(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{fields, text};

    const HIT: CacheStatus<'_> = CacheStatus {
        cache: "forebay",
        outcome: Outcome::Hit,
        ttl: None,
        key: None,
        detail: None,
    };

    fn forwarded(why: Forward) -> CacheStatus<'static> {
        CacheStatus {
            outcome: Outcome::Forwarded {
                why,
                status: None,
                stored: false,
                collapsed: false,
            },
            ..HIT
        }
    }

    /// That it is a list of structured fields is for another's parser to say.
    fn is_valid(value: &[u8]) -> bool {
        sfv::Parser::new(value)
            .parse_list_with_visitor(sfv::visitor::Ignored)
            .is_ok()
    }

    fn check(status: CacheStatus<'_>, expected: &str) {
        let mut out = Vec::new();
        status.write(&mut out);
        assert!(is_valid(&out), "{}", out.escape_ascii());
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn rfc9211_2_1_hit() {
        check(HIT, "forebay; hit");
        let ttl = Some(376);
        check(CacheStatus { ttl, ..HIT }, "forebay; hit; ttl=376");
        let stale = CacheStatus {
            ttl: Some(-412),
            detail: Some("stale-while-revalidate"),
            ..HIT
        };
        check(
            stale,
            "forebay; hit; ttl=-412; detail=stale-while-revalidate",
        );
        let ttl = Some(i64::MIN);
        check(
            CacheStatus { ttl, ..HIT },
            "forebay; hit; ttl=-999999999999999",
        );
    }

    #[test]
    fn rfc9211_2_2_to_2_6_forwarded() {
        for why in Forward::ALL {
            check(forwarded(*why), &format!("forebay; fwd={}", why.token()));
        }
        let full = CacheStatus {
            outcome: Outcome::Forwarded {
                why: Forward::Stale,
                status: Some(304),
                stored: true,
                collapsed: true,
            },
            ttl: Some(60),
            ..HIT
        };
        check(
            full,
            "forebay; fwd=stale; fwd-status=304; stored; collapsed; ttl=60",
        );
    }

    #[test]
    fn rfc9211_2_7_and_2_8_key_and_detail() {
        let key = Some(b"https://a/\"b\\\xe9\n".as_slice());
        check(
            CacheStatus { key, ..HIT },
            r#"forebay; hit; key="https://a/\"b\\%E9%0A""#,
        );
        let detail = Some("two words");
        check(
            CacheStatus { detail, ..HIT },
            r#"forebay; hit; detail="two words""#,
        );
        let cache = "edge 1";
        check(CacheStatus { cache, ..HIT }, r#""edge 1"; hit"#);
        let key = vec![b'a'; MAX_SHOWN_KEY + 1];
        let key = Some(key.as_slice());
        check(CacheStatus { key, ..HIT }, "forebay; hit");
    }

    #[test]
    fn every_reason_can_be_a_detail() {
        for why in crate::WhyNot::ALL {
            let detail = Some(why.token());
            let expected = format!("forebay; fwd=miss; detail={}", why.token());
            check(
                CacheStatus {
                    detail,
                    ..forwarded(Forward::Miss)
                },
                &expected,
            );
        }
    }

    #[test]
    fn rfc9211_2_it_comes_behind_what_others_said() {
        let mut response = fields(&[("Cache-Status", "Origin; hit"), ("A", "b")]);
        HIT.append_to(&mut response).unwrap();
        assert_eq!(
            text(&response),
            "Cache-Status: Origin; hit\nA: b\nCache-Status: forebay; hit\n"
        );
    }

    #[test]
    fn rfc9211_2_2_why_by_reason() {
        assert_eq!(Forward::from(WhyAround::Method), Forward::Method);
        assert_eq!(Forward::from(WhyAround::Body), Forward::Bypass);
        assert_eq!(Forward::from(WhyValidate::RequestMaxAge), Forward::Request);
        assert_eq!(Forward::from(WhyValidate::NoCache), Forward::Stale);
    }
}
