//! Preconditions and ranges: what of a representation a request wants, if any of it.
//!
//! Pure: fields, validators and a time in, a [`Decision`] out. Whoever has a representation at hand
//! uses it: `files` now, a cache as well.

use std::ops::Range;
use std::time::UNIX_EPOCH;

use forebay_cache_policy::RangeSpec;
use forebay_fields::{Fields, Known, KnownSet};
use forebay_http1::Method;
use smallvec::SmallVec;

/// The request fields that are looked at here. Where none of them is present, the answer is the
/// whole representation, and [`decide`] need not be called.
pub const FIELDS: KnownSet = KnownSet::of(&[
    Known::IfMatch,
    Known::IfNoneMatch,
    Known::IfModifiedSince,
    Known::IfUnmodifiedSince,
    Known::IfRange,
    Known::Range,
]);

/// More ranges than this are more work than a client can want: the field is ignored then.
pub const MAX_RANGES: usize = 8;

/// What is known of a representation that exists.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// Its entity tag as it stands in the field, with quotes and perhaps `W/`.
    pub etag: Option<&'a [u8]>,
    /// Its `Last-Modified`, in seconds since 1970.
    pub last_modified: Option<u64>,
    /// Of a stored response, when it was made: where it has no `Last-Modified`,
    /// `If-Modified-Since` is compared with this (RFC 9111 §4.3.2), and nothing else is.
    pub made: Option<u64>,
    /// Now, in seconds since 1970: a time that was only just reached identifies nothing yet.
    pub now: u64,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// 200, all of it.
    Whole,
    /// 206, these parts of it: none empty, none overlapping, in the order asked for.
    Parts(SmallVec<[Range<u64>; 1]>),
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// 416.
    Unsatisfiable,
}

/// Evaluates the preconditions in the order of RFC 9110 §13.2.2, and then the ranges.
///
/// `len` is the length of the representation in bytes; `None` where it is not known, and then
/// ranges are ignored. To be called only where the answer without any condition would be 2xx.
pub fn decide(
    method: Method,
    fields: &Fields,
    validators: &Validators<'_>,
    len: Option<u64>,
) -> Decision {
    let reads = matches!(method, Method::Get | Method::Head);
    if fields.contains(Known::IfMatch) {
        if !etag_listed(fields, Known::IfMatch, validators, strongly_equal) {
            return Decision::Failed;
        }
    } else if let Some(date) = date(fields, Known::IfUnmodifiedSince)
        && validators.last_modified.is_some_and(|time| time > date)
    {
        return Decision::Failed;
    }
    if fields.contains(Known::IfNoneMatch) {
        if etag_listed(fields, Known::IfNoneMatch, validators, weakly_equal) {
            return if reads {
                Decision::NotModified
            } else {
                Decision::Failed
            };
        }
    } else if reads
        && let Some(date) = date(fields, Known::IfModifiedSince)
        && validators
            .last_modified
            .or(validators.made)
            .is_some_and(|time| time <= date)
    {
        return Decision::NotModified;
    }
    // A range is for GET alone (RFC 9110 §14.2).
    if method != Method::Get || !fields.contains(Known::Range) || !if_range(fields, validators) {
        return Decision::Whole;
    }
    match (fields.get_only(Known::Range), len) {
        (Some(value), Some(len)) => ranges(value, len),
        _ => Decision::Whole,
    }
}

/// What a `Range` field selects of a representation of `len` bytes (RFC 9110 §14.1.2, §14.2).
///
/// A field that is malformed, of another unit than bytes, with more than [`MAX_RANGES`] ranges or
/// with ranges that overlap is ignored: [`Decision::Whole`]. Ranges that lie behind the end are left
/// out; where none is left, [`Decision::Unsatisfiable`].
pub fn ranges(value: &[u8], len: u64) -> Decision {
    let Some(set) = value
        .split_first_chunk::<6>()
        .filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))
        .map(|(_, set)| set)
    else {
        return Decision::Whole;
    };
    let mut parts: SmallVec<[Range<u64>; 1]> = SmallVec::new();
    let mut count = 0;
    let specs = set.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    // Empty members of a list mean nothing (RFC 9110 §5.6.1.2).
    for spec in specs.filter(|spec| !spec.is_empty()) {
        count += 1;
        let range = match RangeSpec::parse(spec) {
            Some(_) if count > MAX_RANGES => return Decision::Whole,
            None => return Decision::Whole,
            // The end of nothing: satisfiable, but no Content-Range could say so.
            Some(RangeSpec::Last(1..)) if len == 0 => return Decision::Whole,
            Some(spec) => spec.of(len),
        };
        let Some(range) = range else {
            continue;
        };
        let overlaps = |part: &Range<u64>| part.start < range.end && range.start < part.end;
        if parts.iter().any(overlaps) {
            return Decision::Whole;
        }
        parts.push(range);
    }
    match (count, parts.is_empty()) {
        (0, _) => Decision::Whole,
        (_, true) => Decision::Unsatisfiable,
        (_, false) => Decision::Parts(parts),
    }
}

/// Whether the range is to be looked at (RFC 9110 §13.1.5): the client's copy is of this very
/// representation, or it does not say.
fn if_range(fields: &Fields, validators: &Validators<'_>) -> bool {
    if !fields.contains(Known::IfRange) {
        return true;
    }
    match fields.get_only(Known::IfRange) {
        Some(etag @ ([b'"', ..] | [b'W', b'/', ..])) => {
            validators.etag.is_some_and(|own| strongly_equal(own, etag))
        }
        // By the exact date, and only once its second has passed: within it, the file may have
        // changed again (RFC 9110 §8.8.2.2).
        Some(_) => match (date(fields, Known::IfRange), validators.last_modified) {
            (Some(date), Some(time)) => date == time && time < validators.now,
            _ => false,
        },
        None => false,
    }
}

/// Whether the field names this representation's entity tag, or any.
fn etag_listed(
    fields: &Fields,
    name: Known,
    validators: &Validators<'_>,
    equal: fn(&[u8], &[u8]) -> bool,
) -> bool {
    fields.all(name).any(|line| {
        Tags(line).any(|tag| match tag {
            b"*" => true,
            tag => validators.etag.is_some_and(|own| equal(own, tag)),
        })
    })
}

/// Whether `If-None-Match` lists the weak form of this strong tag.
pub fn lists_weak(fields: &Fields, strong: &[u8]) -> bool {
    let mut lines = fields.all(Known::IfNoneMatch);
    lines.any(|line| Tags(line).any(|tag| tag.strip_prefix(b"W/") == Some(strong)))
}

/// The entity tags of one line. Not the list of [`Fields::list`]: in a tag a backslash is only a
/// backslash (RFC 9110 §8.8.3). What is malformed ends the line.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.0 {
            self.0 = rest;
        }
        let line = self.0;
        let quote = match line {
            [b'"', ..] => 0,
            [b'W', b'/', b'"', ..] => 2,
            [b'*', rest @ ..] => {
                self.0 = rest;
                return Some(&line[..1]);
            }
            _ => return None,
        };
        let inner = &line[quote + 1..];
        let end = quote + 2 + memchr::memchr(b'"', inner)?;
        self.0 = &line[end..];
        Some(&line[..end])
    }
}

/// RFC 9110 §8.8.3.2.
fn strongly_equal(a: &[u8], b: &[u8]) -> bool {
    a == b && !a.starts_with(b"W/")
}

/// RFC 9110 §8.8.3.2.
fn weakly_equal(a: &[u8], b: &[u8]) -> bool {
    let opaque = |tag| <[u8]>::strip_prefix(tag, b"W/").unwrap_or(tag);
    opaque(a) == opaque(b)
}

/// The date of a field in seconds since 1970. A field with several values, or one that is no date,
/// is as if it were not there (RFC 9110 §13.1.3, §13.1.4).
fn date(fields: &Fields, name: Known) -> Option<u64> {
    let text = std::str::from_utf8(fields.get_only(name)?).ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    /// The 2nd of February 2020, 02:02:02 UTC.
    const STAMP: u64 = 1_580_608_922;
    const SAME: &str = "Sun, 02 Feb 2020 02:02:02 GMT";
    const BEFORE: &str = "Sun, 02 Feb 2020 02:02:01 GMT";
    const LATER: &str = "Sun, 02 Feb 2020 02:02:03 GMT";

    fn decision(method: Method, etag: &str, lines: &[(&str, &str)]) -> Decision {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, value).unwrap();
        }
        let validators = Validators {
            etag: Some(etag.as_bytes()),
            last_modified: Some(STAMP),
            made: None,
            now: STAMP + 1000,
        };
        decide(method, &fields, &validators, Some(10))
    }

    fn check(lines: &[(&str, &str)], expected: Decision) {
        let got = decision(Method::Get, "\"own\"", lines);
        assert_eq!(got, expected, "{lines:?}");
    }

    fn check_range(value: &str, len: u64, expected: Decision) {
        assert_eq!(ranges(value.as_bytes(), len), expected, "{value} of {len}");
    }

    fn part(start: u64, end: u64) -> Decision {
        Decision::Parts(smallvec![start..end])
    }

    #[test]
    fn rfc9110_13_1_1_if_match_compares_strongly() {
        for good in [
            "\"own\"",
            "*",
            "\"x\", \"own\"",
            "\"a,b\",,\"own\"",
            "\"x\\\", \"own\"",
        ] {
            check(&[("If-Match", good)], Decision::Whole);
        }
        for bad in [
            "\"x\"",
            "W/\"own\"",
            "own",
            "",
            "\"own",
            "w/\"own\"",
            "x\"own\"",
        ] {
            check(&[("If-Match", bad)], Decision::Failed);
        }
        check(
            &[("If-Match", "\"x\""), ("If-Match", "\"own\"")],
            Decision::Whole,
        );
        let weak = decision(Method::Get, "W/\"own\"", &[("If-Match", "W/\"own\"")]);
        assert_eq!(weak, Decision::Failed);
    }

    #[test]
    fn rfc9110_13_1_2_if_none_match_compares_weakly() {
        for same in [
            "\"own\"",
            "W/\"own\"",
            "*",
            "\"x\", W/\"own\"",
            "\"x\"  ,\t\"own\"",
        ] {
            check(&[("If-None-Match", same)], Decision::NotModified);
        }
        for other in ["\"x\"", "own", "\"Own\"", "\"x,\"own\""] {
            check(&[("If-None-Match", other)], Decision::Whole);
        }
        let weak = decision(Method::Get, "W/\"own\"", &[("If-None-Match", "\"own\"")]);
        assert_eq!(weak, Decision::NotModified);
        let head = decision(Method::Head, "\"own\"", &[("If-None-Match", "*")]);
        assert_eq!(head, Decision::NotModified);
        let put = decision(Method::Put, "\"own\"", &[("If-None-Match", "*")]);
        assert_eq!(put, Decision::Failed);
    }

    #[test]
    fn rfc9110_13_1_3_if_modified_since() {
        check(&[("If-Modified-Since", SAME)], Decision::NotModified);
        check(&[("If-Modified-Since", LATER)], Decision::NotModified);
        check(&[("If-Modified-Since", BEFORE)], Decision::Whole);
        check(&[("If-Modified-Since", "never")], Decision::Whole);
        let twice = [("If-Modified-Since", SAME), ("If-Modified-Since", SAME)];
        check(&twice, Decision::Whole);
        let post = decision(Method::Post, "\"own\"", &[("If-Modified-Since", LATER)]);
        assert_eq!(post, Decision::Whole);
    }

    #[test]
    fn rfc9110_5_6_7_obsolete_dates_are_understood() {
        for date in ["Sunday, 02-Feb-20 02:02:02 GMT", "Sun Feb  2 02:02:02 2020"] {
            check(&[("If-Modified-Since", date)], Decision::NotModified);
        }
    }

    #[test]
    fn rfc9110_13_1_4_if_unmodified_since() {
        check(&[("If-Unmodified-Since", SAME)], Decision::Whole);
        check(&[("If-Unmodified-Since", LATER)], Decision::Whole);
        check(&[("If-Unmodified-Since", BEFORE)], Decision::Failed);
        check(&[("If-Unmodified-Since", "yesterday")], Decision::Whole);
    }

    #[test]
    fn rfc9110_13_1_5_if_range() {
        let ask = |condition: &str, expected| {
            check(&[("Range", "bytes=0-1"), ("If-Range", condition)], expected);
        };
        ask("\"own\"", part(0, 2));
        ask("\"x\"", Decision::Whole);
        ask("W/\"own\"", Decision::Whole);
        ask(SAME, part(0, 2));
        ask(BEFORE, Decision::Whole);
        ask(LATER, Decision::Whole);
        ask("nonsense", Decision::Whole);
        // A changed representation is sent whole, not refused (RFC 9110 §14.2).
        let behind = [("Range", "bytes=99-"), ("If-Range", "\"x\"")];
        check(&behind, Decision::Whole);
    }

    #[test]
    fn rfc9110_8_8_2_2_a_date_of_this_second_is_weak() {
        let mut fields = Fields::new();
        fields.append("Range", "bytes=0-1").unwrap();
        fields.append("If-Range", SAME).unwrap();
        let validators = |now| Validators {
            etag: None,
            last_modified: Some(STAMP),
            made: None,
            now,
        };
        let decide = |now| decide(Method::Get, &fields, &validators(now), Some(10));
        assert_eq!(decide(STAMP), Decision::Whole);
        assert_eq!(decide(STAMP + 1), part(0, 2));
    }

    #[test]
    fn rfc9111_4_3_2_the_date_of_a_stored_response_stands_in_for_a_missing_one() {
        let validators = Validators {
            etag: None,
            last_modified: None,
            made: Some(STAMP),
            now: STAMP + 1000,
        };
        for (name, value, expected) in [
            ("If-Modified-Since", SAME, Decision::NotModified),
            ("If-Modified-Since", BEFORE, Decision::Whole),
            ("If-Unmodified-Since", BEFORE, Decision::Whole),
        ] {
            let mut fields = Fields::new();
            fields.append(name, value).unwrap();
            let got = decide(Method::Get, &fields, &validators, Some(10));
            assert_eq!(got, expected, "{name}: {value}");
        }
        let mut fields = Fields::new();
        fields.append("Range", "bytes=0-1").unwrap();
        fields.append("If-Range", SAME).unwrap();
        let got = decide(Method::Get, &fields, &validators, Some(10));
        assert_eq!(got, Decision::Whole);
    }

    #[test]
    fn rfc9110_13_2_2_order() {
        let own = ("If-None-Match", "\"own\"");
        check(&[("If-Match", "\"x\""), own], Decision::Failed);
        check(&[("If-Match", "\"own\""), own], Decision::NotModified);
        // With If-Match, If-Unmodified-Since is not looked at; likewise the other pair.
        let both = [("If-Match", "\"own\""), ("If-Unmodified-Since", BEFORE)];
        check(&both, Decision::Whole);
        let both = [("If-None-Match", "\"x\""), ("If-Modified-Since", LATER)];
        check(&both, Decision::Whole);
        check(&[("If-Unmodified-Since", BEFORE), own], Decision::Failed);
        let all = [("If-Unmodified-Since", SAME), ("If-Modified-Since", SAME)];
        check(&all, Decision::NotModified);
        // The range comes last.
        check(&[("Range", "bytes=0-1"), own], Decision::NotModified);
        check(
            &[("Range", "bytes=0-1"), ("If-Match", "\"x\"")],
            Decision::Failed,
        );
    }

    #[test]
    fn rfc9110_14_2_a_range_is_for_get_alone() {
        let range = [("Range", "bytes=0-1")];
        check(&range, part(0, 2));
        assert_eq!(decision(Method::Head, "\"own\"", &range), Decision::Whole);
        check(
            &[("Range", "bytes=0-1"), ("Range", "bytes=2-3")],
            Decision::Whole,
        );
        let mut fields = Fields::new();
        fields.append("Range", "bytes=0-1").unwrap();
        let none = Validators {
            etag: None,
            last_modified: None,
            made: None,
            now: 0,
        };
        let unknown = decide(Method::Get, &fields, &none, None);
        assert_eq!(unknown, Decision::Whole);
    }

    #[test]
    fn rfc9110_14_1_2_one_range() {
        let table = [
            ("bytes=0-0", 0, 1),
            ("bytes=2-4", 2, 5),
            ("bytes=5-", 5, 10),
            ("bytes=5-100", 5, 10),
            ("bytes=-3", 7, 10),
            ("bytes=-100", 0, 10),
            ("bytes=9-9", 9, 10),
            ("bytes=0-18446744073709551615", 0, 10),
            ("bytes=0-99999999999999999999999999", 0, 10),
            ("bytes=-99999999999999999999999999", 0, 10),
            ("BYTES= 2-4 ", 2, 5),
            ("bytes=,2-4,,", 2, 5),
            ("bytes=0-1,50-60", 0, 2),
            ("bytes=0002-0004", 2, 5),
        ];
        for (value, start, end) in table {
            check_range(value, 10, part(start, end));
        }
        check_range("bytes=0-", u64::MAX, part(0, u64::MAX));
    }

    #[test]
    fn rfc9110_14_1_2_unsatisfiable() {
        for value in [
            "bytes=10-",
            "bytes=10-20",
            "bytes=-0",
            "bytes=99999999999999999999999999-",
            "bytes=10-,-0",
        ] {
            check_range(value, 10, Decision::Unsatisfiable);
        }
        check_range("bytes=0-", 0, Decision::Unsatisfiable);
        check_range("bytes=-0", 0, Decision::Unsatisfiable);
        check_range("bytes=-1", 0, Decision::Whole);
    }

    #[test]
    fn rfc9110_14_2_what_is_malformed_is_ignored() {
        for value in [
            "bytes=4-2",
            "bytes=a-b",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes =0-1",
            "lines=1-2",
            "bytes=1-2x",
            "bytes=--1",
            "bytes=-",
            "bytes=1",
            "bytes=+1-2",
            "bytes=1-2;3-4",
            "bytes=1 - 2",
            "bytes=10-,x",
            "bytes=0-1,5-4",
        ] {
            check_range(value, 10, Decision::Whole);
        }
    }

    #[test]
    fn rfc9110_14_2_many_and_overlapping_ranges_are_ignored() {
        let several = "bytes=0-1, 4-5,-1";
        check_range(several, 10, Decision::Parts(smallvec![0..2, 4..6, 9..10]));
        check_range("bytes=4-5,0-1", 10, Decision::Parts(smallvec![4..6, 0..2]));
        for value in [
            "bytes=0-4,3-6",
            "bytes=0-,0-",
            "bytes=0-1,-9",
            "bytes=0-0,0-0",
        ] {
            check_range(value, 10, Decision::Whole);
        }
        let many = |count: u64| {
            let specs: Vec<String> = (0..count).map(|n| format!("{n}-{n}")).collect();
            format!("bytes={}", specs.join(","))
        };
        let eight = Decision::Parts((0..8).map(|n| n..n + 1).collect());
        check_range(&many(8), 10, eight);
        check_range(&many(9), 10, Decision::Whole);
        check_range(&many(10_000), 1 << 40, Decision::Whole);
    }
}
