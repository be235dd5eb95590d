//! Cache directives: `Cache-Control` (RFC 9111 §5.2) and `CDN-Cache-Control` (RFC 9213).
//!
//! Both are reduced to the same [`Directive`]s with an [`Argument`], so that what a directive means
//! is written once, in `request.rs` and `response.rs`.

use std::convert::Infallible;

use forebay_fields::{Fields, Known, is_token, list_items};
use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor};
use sfv::{BareItemFromInput, KeyRef, Parser};

use crate::time::{clamp_seconds, delta_seconds};

/// The directives that mean something to a shared cache, in requests or in responses. All others
/// are ignored (RFC 9111 §5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Directive {
    MaxAge,
    SMaxAge,
    NoCache,
    NoStore,
    Private,
    Public,
    MustRevalidate,
    ProxyRevalidate,
    MustUnderstand,
    MaxStale,
    MinFresh,
    OnlyIfCached,
    StaleWhileRevalidate,
    StaleIfError,
}

impl Directive {
    const ALL: [(Self, &'static str); 14] = [
        (Self::MaxAge, "max-age"),
        (Self::SMaxAge, "s-maxage"),
        (Self::NoCache, "no-cache"),
        (Self::NoStore, "no-store"),
        (Self::Private, "private"),
        (Self::Public, "public"),
        (Self::MustRevalidate, "must-revalidate"),
        (Self::ProxyRevalidate, "proxy-revalidate"),
        (Self::MustUnderstand, "must-understand"),
        (Self::MaxStale, "max-stale"),
        (Self::MinFresh, "min-fresh"),
        (Self::OnlyIfCached, "only-if-cached"),
        (Self::StaleWhileRevalidate, "stale-while-revalidate"),
        (Self::StaleIfError, "stale-if-error"),
    ];

    /// Whatever its case (RFC 9111 §5.2).
    fn of(name: &[u8]) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, own)| own.as_bytes().eq_ignore_ascii_case(name))
            .map(|(directive, _)| *directive)
    }
}

/// What stands behind a directive's `=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Argument<'a> {
    /// There is no `=`.
    None,
    /// A token or what is within quotes: of `Cache-Control` both are taken for all directives
    /// (RFC 9111 §5.2).
    Text(&'a [u8]),
    /// An integer of a structured field.
    Integer(i64),
    /// A string of a structured field: a list of names, never a number (RFC 9213 §2.1).
    String(Vec<u8>),
    /// Anything else.
    Bad,
}

impl Argument<'_> {
    /// As a number of seconds; `None` if it is none.
    pub(crate) fn seconds(&self) -> Option<u32> {
        match self {
            Self::Text(text) => delta_seconds(text),
            Self::Integer(number) => u64::try_from(*number).ok().map(clamp_seconds),
            Self::None | Self::String(_) | Self::Bad => None,
        }
    }

    /// As a list of field names, in lower case; `None` if it is none, and for an empty one.
    pub(crate) fn names(&self) -> Option<Vec<Box<[u8]>>> {
        let text = match self {
            Self::Text(text) => text,
            Self::String(text) => text.as_slice(),
            Self::None | Self::Integer(_) | Self::Bad => return None,
        };
        let names: Vec<Box<[u8]>> = list_items(text)
            .take(MAX_NAMES + 1)
            .map(|name| name.to_ascii_lowercase().into())
            .collect();
        let right = (1..=MAX_NAMES).contains(&names.len()) && names.iter().all(|n| is_token(n));
        right.then_some(names)
    }
}

/// A directive that names more fields than this is taken as if it named none, which forbids more.
const MAX_NAMES: usize = 32;

/// Visits the directives of all lines of `Cache-Control`, in order, repeated ones included.
pub(crate) fn cache_control<'a>(
    fields: &'a Fields,
    mut visit: impl FnMut(Directive, Argument<'a>),
) {
    for item in fields.list(Known::CacheControl) {
        if item.iter().filter(|&&byte| byte == b'"').count() % 2 == 0 {
            one(item, &mut visit);
            continue;
        }
        // A quote that is never closed must not hide the `no-store` behind it.
        for part in item.split(|&byte| byte == b',') {
            one(part.trim_ascii(), &mut visit);
        }
    }
}

fn one<'a>(item: &'a [u8], visit: &mut impl FnMut(Directive, Argument<'a>)) {
    let (name, argument) = match item.iter().position(|&byte| byte == b'=') {
        None => (item, Argument::None),
        Some(equals) => (item[..equals].trim_ascii(), argument(item, equals)),
    };
    if let Some(directive) = Directive::of(name) {
        visit(directive, argument);
    }
}

/// White space around `=` is against the grammar, so what it belongs to has no meaning; the
/// directive itself is still seen.
fn argument(item: &[u8], equals: usize) -> Argument<'_> {
    let (before, after) = (&item[..equals], &item[equals + 1..]);
    match after {
        _ if before.ends_with(b" ") || before.ends_with(b"\t") => Argument::Bad,
        // An escaped character is no digit and stands in no name: what is within is left as it is.
        [b'"', inner @ .., b'"'] => Argument::Text(inner),
        token if is_token(token) => Argument::Text(token),
        _ => Argument::Bad,
    }
}

/// Visits the directives of `CDN-Cache-Control`; `false` if there is no such field, or one that is
/// empty or no dictionary: then it is as if it were not there (RFC 9213 §2.2).
pub(crate) fn cdn_cache_control(
    fields: &Fields,
    mut visit: impl FnMut(Directive, Argument<'static>),
) -> bool {
    let mut lines = fields.all(Known::CdnCacheControl);
    let Some(first) = lines.next() else {
        return false;
    };
    let mut joined = Vec::new();
    let whole = match lines.next() {
        None => first,
        Some(second) => {
            // RFC 9651 §4.2: all lines as one list.
            joined.extend_from_slice(first);
            for line in std::iter::once(second).chain(lines) {
                joined.extend_from_slice(b", ");
                joined.extend_from_slice(line);
            }
            joined.as_slice()
        }
    };
    let parsed = Parser::new(whole).parse_dictionary_with_visitor(Members::default());
    match parsed {
        Ok(members) if members.any => {
            for ((directive, _), argument) in Directive::ALL.into_iter().zip(members.last) {
                if let Some(argument) = argument {
                    visit(directive, argument);
                }
            }
            true
        }
        _ => false,
    }
}

/// The last member of each name, which is the one that counts (RFC 9651 §4.2.2).
#[derive(Default)]
struct Members {
    any: bool,
    last: [Option<Argument<'static>>; Directive::ALL.len()],
}

impl<'de> DictionaryVisitor<'de> for Members {
    type Out = Self;
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        self.any = true;
        let directive = Directive::of(key.as_str().as_bytes());
        Ok(directive.and_then(|directive| self.last.get_mut(directive as usize).map(Member)))
    }

    fn finish(self) -> Result<Self, Infallible> {
        Ok(self)
    }
}

struct Member<'a>(&'a mut Option<Argument<'static>>);

impl<'de> EntryVisitor<'de> for Member<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(|item: BareItemFromInput<'de>| {
            *self.0 = match item {
                BareItemFromInput::Boolean(true) => Some(Argument::None),
                // `no-store=?0`: it is said that it is not said.
                BareItemFromInput::Boolean(false) => None,
                BareItemFromInput::Integer(number) => Some(Argument::Integer(number.into())),
                BareItemFromInput::String(text) => {
                    Some(Argument::String(text.as_str().as_bytes().to_vec()))
                }
                _ => Some(Argument::Bad),
            };
            // Parameters mean nothing (RFC 9213 §2.1).
            Ok::<_, Infallible>(Ignored)
        })
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        *self.0 = Some(Argument::Bad);
        Ok(Ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str, lines: &[&str]) -> Fields {
        let mut fields = Fields::new();
        for line in lines {
            fields.append(name, line).unwrap();
        }
        fields
    }

    fn check(lines: &[&str], expected: &[(Directive, Argument<'_>)]) {
        let fields = fields("Cache-Control", lines);
        let mut seen = Vec::new();
        cache_control(&fields, |directive, argument| {
            seen.push((directive, argument))
        });
        assert_eq!(seen, expected, "{lines:?}");
    }

    fn check_cdn(lines: &[&str], expected: Option<&[(Directive, Argument<'_>)]>) {
        let fields = fields("CDN-Cache-Control", lines);
        let mut seen = Vec::new();
        let valid = cdn_cache_control(&fields, |d, argument| seen.push((d, argument)));
        let seen = valid.then_some(seen.as_slice());
        assert_eq!(seen, expected, "{lines:?}");
    }

    #[test]
    fn rfc9111_5_2_directives_in_any_case_and_over_lines() {
        use Directive::{MaxAge, NoCache, NoStore};
        check(&[], &[]);
        check(&["", " , ,, "], &[]);
        check(
            &["No-Store, MAX-AGE=5", "no-cache"],
            &[
                (NoStore, Argument::None),
                (MaxAge, Argument::Text(b"5")),
                (NoCache, Argument::None),
            ],
        );
    }

    #[test]
    fn rfc9111_5_2_arguments_as_token_and_as_quoted_string() {
        use Directive::MaxAge;
        check(&["max-age=\"5\""], &[(MaxAge, Argument::Text(b"5"))]);
        for bad in [
            "max-age =5",
            "max-age= 5",
            "max-age=",
            "max-age=5 6",
            "max-age=(5)",
        ] {
            check(&[bad], &[(MaxAge, Argument::Bad)]);
        }
        assert_eq!(Argument::Text(b"'5'").seconds(), None);
    }

    #[test]
    fn rfc9111_5_2_3_unknown_directives_are_ignored() {
        use Directive::NoStore;
        check(
            &["x, y=\"no-cache, private\", z=1, no-store-x, no-store"],
            &[(NoStore, Argument::None)],
        );
    }

    #[test]
    fn an_open_quote_hides_nothing() {
        check(
            &["ext=\"abc, no-store"],
            &[(Directive::NoStore, Argument::None)],
        );
    }

    #[test]
    fn rfc9111_5_2_2_4_lists_of_names() {
        let names = |text: &'static str| Argument::Text(text.as_bytes()).names();
        assert_eq!(
            names("Set-Cookie, X-A").unwrap(),
            [
                Box::from(b"set-cookie".as_slice()),
                Box::from(b"x-a".as_slice())
            ]
        );
        for none in ["", ",", "a b", "a,\"b\"", "a\\b"] {
            assert_eq!(names(none), None, "{none}");
        }
        assert_eq!(
            Argument::String(vec![b'a'; 9]).names().map(|n| n.len()),
            Some(1)
        );
        let many = "a,".repeat(MAX_NAMES + 1);
        assert_eq!(Argument::Text(many.as_bytes()).names(), None);
    }

    #[test]
    fn rfc9213_2_1_a_dictionary_of_directives() {
        use Directive::{MaxAge, NoCache, NoStore, Private};
        check_cdn(
            &[
                "max-age=60;x=1, no-store, private=\"a\"",
                "no-cache=?0, foo",
            ],
            Some(&[
                (MaxAge, Argument::Integer(60)),
                (NoStore, Argument::None),
                (Private, Argument::String(b"a".to_vec())),
            ]),
        );
        // The last one of a name counts, also where it takes the first one back.
        check_cdn(
            &["max-age=60, no-cache, max-age=\"5\", no-cache=?0"],
            Some(&[(MaxAge, Argument::String(b"5".to_vec()))]),
        );
        check_cdn(&["no-cache=(a b)"], Some(&[(NoCache, Argument::Bad)]));
        check_cdn(&["foo"], Some(&[]));
    }

    #[test]
    fn rfc9213_2_2_a_field_that_is_no_dictionary_is_not_there() {
        for bad in ["", "max-age=", "Max-Age=5", "max-age=5,", "a b", "\"", "&"] {
            check_cdn(&[bad], None);
        }
        check_cdn(&[], None);
        check_cdn(&["max-age=5", "&"], None);
    }

    #[test]
    fn rfc9213_2_1_numbers_are_integers() {
        assert_eq!(Argument::Integer(5).seconds(), Some(5));
        assert_eq!(Argument::Integer(-5).seconds(), None);
        assert_eq!(Argument::String(b"5".to_vec()).seconds(), None);
        assert_eq!(Argument::Integer(1 << 40).seconds(), Some(1 << 31));
    }
}
