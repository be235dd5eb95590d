//! What a response says to a cache (RFC 9111 §5, RFC 9213).

use forebay_fields::{Fields, Known, list_items};

use crate::directives::{Argument, Directive, cache_control, cdn_cache_control};
use crate::range::ContentRange;
use crate::time::{clamp_seconds, http_date, number};
use crate::vary::Vary;

/// What is known of a response: found once, when its head has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFacts {
    pub(crate) status: u16,
    /// Whether Forebay has made it itself.
    pub(crate) own: bool,
    pub(crate) said: Said,
    pub(crate) date: Option<u64>,
    pub(crate) age: u32,
    pub(crate) expires: Expires,
    pub(crate) last_modified: Option<u64>,
    pub(crate) etag: Etag,
    pub(crate) vary: Vary,
    pub(crate) set_cookie: bool,
    pub(crate) length: Option<u64>,
    pub(crate) part: Part,
}

/// The directives of the response that count: those of `CDN-Cache-Control` if that is valid, else
/// those of `Cache-Control`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) targeted: bool,
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) must_understand: bool,
    /// A number that is none is 0: who states a freshness that cannot be read is taken to be
    /// stale (RFC 9111 §4.2.1).
    pub(crate) max_age: Option<u32>,
    pub(crate) s_maxage: Option<u32>,
    pub(crate) stale_while_revalidate: Option<u32>,
    pub(crate) stale_if_error: Option<u32>,
    /// What `no-cache` and `private` name, in lower case: not stored.
    pub(crate) unstored: Vec<Box<[u8]>>,
}

/// `Expires` (RFC 9111 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expires {
    Absent,
    /// No date, as in "0" or "-1": it has expired.
    Invalid,
    At(u64),
}

/// `ETag` (RFC 9110 §8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Etag {
    None,
    Weak,
    Strong,
}

/// Which part of its representation a response has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Range(ContentRange),
    Multipart,
    Bad,
}

impl ResponseFacts {
    /// Looks at a response. `own`: Forebay has made it itself, as for a fault.
    #[must_use]
    pub fn of(status: u16, fields: &Fields, own: bool) -> Self {
        Self {
            status,
            own,
            said: Said::of(fields),
            date: fields.get(Known::Date).and_then(http_date),
            age: age(fields),
            expires: match fields.get(Known::Expires) {
                None => Expires::Absent,
                Some(value) => http_date(value).map_or(Expires::Invalid, Expires::At),
            },
            last_modified: fields.get_only(Known::LastModified).and_then(http_date),
            etag: Etag::of(fields),
            vary: Vary::of(fields),
            set_cookie: fields.contains(Known::SetCookie),
            length: fields.get(Known::ContentLength).and_then(number),
            part: match status {
                206 => Part::of(fields),
                _ => Part::Whole,
            },
        }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What it varies by.
    #[must_use]
    pub fn vary(&self) -> &Vary {
        &self.vary
    }

    /// The length of its content, as far as it says.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// Which bytes of the representation a 206 has; `None` for every other status, and for one
    /// that is not stored.
    #[must_use]
    pub fn content_range(&self) -> Option<&ContentRange> {
        match &self.part {
            Part::Range(range) => Some(range),
            _ => None,
        }
    }

    /// The fields that `no-cache` and `private` name, in lower case.
    pub fn unstored(&self) -> impl Iterator<Item = &[u8]> {
        self.said.unstored.iter().map(AsRef::as_ref)
    }
}

impl Said {
    fn of(fields: &Fields) -> Self {
        let mut said = Self::default();
        if fields.contains(Known::CdnCacheControl) {
            said.targeted = cdn_cache_control(fields, |directive, argument| {
                said.take(directive, &argument);
            });
        }
        if !said.targeted {
            said = Self::default();
            cache_control(fields, |directive, argument| {
                said.take(directive, &argument)
            });
        }
        said
    }

    fn take(&mut self, directive: Directive, argument: &Argument<'_>) {
        let seconds = argument.seconds();
        // What allows something is there only as the grammar has it; what forbids something is
        // there also with an argument that it should not have.
        let bare = *argument == Argument::None;
        match directive {
            Directive::NoStore => self.no_store = true,
            Directive::NoCache => match argument.names() {
                Some(names) => self.unstored.extend(names),
                None => self.no_cache = true,
            },
            Directive::Private => match argument.names() {
                Some(names) => self.unstored.extend(names),
                None => self.private = true,
            },
            Directive::Public => self.public |= bare,
            Directive::MustUnderstand => self.must_understand |= bare,
            Directive::MustRevalidate => self.must_revalidate = true,
            Directive::ProxyRevalidate => self.proxy_revalidate = true,
            // The first of several counts (RFC 9111 §4.2.1).
            Directive::MaxAge => {
                self.max_age.get_or_insert(seconds.unwrap_or(0));
            }
            Directive::SMaxAge => {
                self.s_maxage.get_or_insert(seconds.unwrap_or(0));
            }
            Directive::StaleWhileRevalidate => {
                self.stale_while_revalidate = self.stale_while_revalidate.or(seconds);
            }
            Directive::StaleIfError => self.stale_if_error = self.stale_if_error.or(seconds),
            Directive::MaxStale | Directive::MinFresh | Directive::OnlyIfCached => {}
        }
    }
}

impl Etag {
    fn of(fields: &Fields) -> Self {
        match fields.get_only(Known::Etag) {
            Some([b'"', inner @ .., b'"']) if is_opaque(inner) => Self::Strong,
            Some([b'W', b'/', b'"', inner @ .., b'"']) if is_opaque(inner) => Self::Weak,
            _ => Self::None,
        }
    }
}

/// Nothing in it could end the tag early in a list of them (RFC 9110 §8.8.3).
fn is_opaque(inner: &[u8]) -> bool {
    inner
        .iter()
        .all(|&byte| byte > b' ' && byte != b'"' && byte != 0x7f)
}

impl Part {
    fn of(fields: &Fields) -> Self {
        let multipart = b"multipart/";
        let kind = fields.get(Known::ContentType).unwrap_or_default();
        let is_multipart = kind
            .get(..multipart.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(multipart));
        match fields.get_only(Known::ContentRange) {
            Some(value) => ContentRange::parse(value).map_or(Self::Bad, Self::Range),
            None if is_multipart && !fields.contains(Known::ContentRange) => Self::Multipart,
            None => Self::Bad,
        }
    }
}

/// `Age` (RFC 9111 §5.1): of a list the first member counts; what is no number is ignored.
fn age(fields: &Fields) -> u32 {
    let first = fields.get(Known::Age).and_then(|line| {
        let members = if line.is_empty() { None } else { Some(line) };
        list_items(members?).next()
    });
    first.and_then(number).map_or(0, clamp_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, lines: &[(&str, &str)]) -> ResponseFacts {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, value).unwrap();
        }
        ResponseFacts::of(status, &fields, false)
    }

    fn cc(value: &str, expected: impl Fn(&mut Said)) {
        let mut wanted = Said::default();
        expected(&mut wanted);
        assert_eq!(of(200, &[("Cache-Control", value)]).said, wanted, "{value}");
    }

    #[test]
    fn rfc9111_5_1_age() {
        for (lines, expected) in [
            (&["5"][..], 5),
            (&["5", "9"], 5),
            (&["5, 9"], 5),
            (&[" , 7"], 7),
            (&["5, x"], 5),
            (&["x, 5"], 0),
            (&["x", "5"], 0),
            (&["-5"], 0),
            (&["5.5"], 0),
            (&["\"5\""], 0),
            (&[""], 0),
            (&[], 0),
            (&["99999999999999999999"], 1 << 31),
        ] {
            let lines: Vec<_> = lines.iter().map(|value| ("Age", *value)).collect();
            assert_eq!(of(200, &lines).age, expected, "{lines:?}");
        }
    }

    #[test]
    fn rfc9111_5_3_expires_in_every_form() {
        for (value, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Expires::At(784_111_777)),
            ("sunday, 06-nov-94 08:49:37 gmt", Expires::At(784_111_777)),
            ("0", Expires::Invalid),
            ("-1", Expires::Invalid),
            ("", Expires::Invalid),
            ("never", Expires::Invalid),
            ("Sun, 06 Nov 1994 08:49:37 PST", Expires::Invalid),
        ] {
            assert_eq!(of(200, &[("Expires", value)]).expires, expected, "{value}");
        }
        assert_eq!(of(200, &[]).expires, Expires::Absent);
    }

    #[test]
    fn rfc9111_4_2_1_invalid_and_repeated_freshness() {
        cc("max-age=5", |s| s.max_age = Some(5));
        cc("max-age=\"5\"", |s| s.max_age = Some(5));
        cc("max-age=5, max-age=9", |s| s.max_age = Some(5));
        cc("s-maxage=5, S-MaxAge=1", |s| s.s_maxage = Some(5));
        for bad in [
            "max-age=x",
            "max-age=5.5",
            "max-age=-1",
            "max-age",
            "max-age = 5",
        ] {
            cc(bad, |s| s.max_age = Some(0));
        }
        cc("max-age=99999999999", |s| s.max_age = Some(1 << 31));
        // Nobody has to allow stale responses: what cannot be read is not there.
        cc("stale-if-error=x, stale-while-revalidate", |_| {});
    }

    #[test]
    fn rfc9111_5_2_2_response_directives() {
        cc("no-store", |s| s.no_store = true);
        cc("no-store=1", |s| s.no_store = true);
        cc("public", |s| s.public = true);
        cc("public=1", |_| {});
        cc("must-understand=1", |_| {});
        cc("must-understand", |s| s.must_understand = true);
        cc("must-revalidate, proxy-revalidate", |s| {
            s.must_revalidate = true;
            s.proxy_revalidate = true;
        });
        cc("no-cache", |s| s.no_cache = true);
        cc("private", |s| s.private = true);
        cc("max-stale, min-fresh=1, only-if-cached", |_| {});
        cc("stale-while-revalidate=5, stale-if-error=6", |s| {
            s.stale_while_revalidate = Some(5);
            s.stale_if_error = Some(6);
        });
    }

    #[test]
    fn rfc9111_5_2_2_4_and_7_with_names_of_fields() {
        cc("no-cache=\"Set-Cookie, X-A\"", |s| {
            s.unstored = vec![b"set-cookie".as_slice().into(), b"x-a".as_slice().into()];
        });
        cc("private=X-A", |s| {
            s.unstored = vec![b"x-a".as_slice().into()]
        });
        cc("private=\"\"", |s| s.private = true);
        cc("no-cache=\"a b\"", |s| s.no_cache = true);
        cc("private=\"x-a\", private", |s| {
            s.private = true;
            s.unstored = vec![b"x-a".as_slice().into()];
        });
    }

    #[test]
    fn rfc9213_2_2_the_targeted_field_goes_first() {
        let said = |lines: &[(&str, &str)]| of(200, lines).said;
        let both = said(&[
            ("Cache-Control", "no-store"),
            ("CDN-Cache-Control", "max-age=5"),
        ]);
        assert!(both.targeted && !both.no_store && both.max_age == Some(5));
        let invalid = said(&[
            ("Cache-Control", "max-age=9"),
            ("CDN-Cache-Control", "max-age=5,"),
        ]);
        assert!(!invalid.targeted && invalid.max_age == Some(9));
        let wrong = said(&[("CDN-Cache-Control", "max-age=\"5\"")]);
        assert_eq!(wrong.max_age, Some(0));
        let names = said(&[("CDN-Cache-Control", "private=\"x-a\"")]);
        assert!(!names.private && names.unstored.len() == 1);
    }

    #[test]
    fn rfc9110_8_8_3_entity_tags() {
        for (lines, expected) in [
            (&["\"a\""][..], Etag::Strong),
            (&["\"\""], Etag::Strong),
            (&["W/\"a\""], Etag::Weak),
            (&["w/\"a\""], Etag::None),
            (&["a"], Etag::None),
            (&["\"a"], Etag::None),
            (&["\""], Etag::None),
            (&["\"a\"b\""], Etag::None),
            (&["\"a b\""], Etag::None),
            (&["\"a\"", "\"b\""], Etag::None),
        ] {
            let lines: Vec<_> = lines.iter().map(|value| ("ETag", *value)).collect();
            assert_eq!(of(200, &lines).etag, expected, "{lines:?}");
        }
    }

    #[test]
    fn rfc9110_15_3_7_which_part_a_206_has() {
        let part = |lines: &[(&str, &str)]| of(206, lines).part;
        let range = ("Content-Range", "bytes 0-9/20");
        assert!(matches!(part(&[range]), Part::Range(_)));
        assert_eq!(part(&[range, range]), Part::Bad);
        assert_eq!(part(&[]), Part::Bad);
        assert_eq!(
            part(&[("Content-Type", "Multipart/ByteRanges")]),
            Part::Multipart
        );
        // Of any other status it means nothing (RFC 9110 §14.4).
        assert_eq!(of(200, &[range]).part, Part::Whole);
    }
}
