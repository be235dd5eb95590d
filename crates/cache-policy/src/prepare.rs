//! Fields that are stored, and fields of requests that fill the cache (RFC 9111 §3.1).

use std::ops::Range;

use forebay_fields::{EditError, Fields, Known, KnownSet};

use crate::policy::Policy;
use crate::response::ResponseFacts;
use crate::stored::{StoredFacts, Times};

/// What a client's request says about its own copy, and what part it wants: nothing of that is in
/// a request whose response is for everybody.
const OF_ONE_CLIENT: KnownSet = KnownSet::of(&[
    Known::IfMatch,
    Known::IfNoneMatch,
    Known::IfModifiedSince,
    Known::IfUnmodifiedSince,
    Known::IfRange,
    Known::Range,
]);

/// Takes out of a response's fields what is not stored: what belongs to the connection it came
/// over, what `no-cache` and `private` name, `Age`, which is counted from now on, `Content-Range`,
/// since a part is stored as a part of its whole, and `Set-Cookie` where it is to be stripped.
///
/// A `Date` is added where there is none that can be read (RFC 9110 §6.6.1).
///
/// # Errors
/// A `Date` cannot be added: far too much was added before.
pub fn prepare_fields(
    policy: &Policy,
    response: &ResponseFacts,
    times: &Times,
    fields: &mut Fields,
) -> Result<(), EditError> {
    fields.remove_hop_by_hop();
    fields.remove_all(KnownSet::of(&[Known::Age, Known::ContentRange]));
    if policy.strip_cookies {
        fields.remove(Known::SetCookie);
    }
    for name in response.unstored() {
        fields.remove(name);
    }
    if response.date.is_none() || !fields.contains(Known::Date) {
        fields.set(Known::Date, times.answered.to_http_date())?;
    }
    Ok(())
}

/// Makes of a client's fields those of a request that brings in what all can use: without its own
/// conditions and ranges, without what belongs to its connection, without `Cookie` where it is to
/// be stripped.
///
/// What the response may be chosen by goes on in its normal form: see
/// [`normalise_request`](crate::normalise_request).
pub fn prepare_request(policy: &Policy, fields: &mut Fields) {
    fields.remove_hop_by_hop();
    fields.remove_all(OF_ONE_CLIENT);
    if policy.strip_cookies {
        fields.remove(Known::Cookie);
    }
}

/// Makes a fill's request conditional (RFC 9111 §4.3.1) on the stored responses that it could
/// bring up to date: `If-None-Match` with all their entity tags, and `If-Modified-Since` where
/// there is just one. Whatever conditions were there are removed.
///
/// Says whether there is a condition now: without one, the answer is a whole response.
///
/// # Errors
/// Far too much was added before.
pub fn make_conditional<'a>(
    request: &mut Fields,
    stored: impl IntoIterator<Item = (&'a StoredFacts, &'a Fields)>,
) -> Result<bool, EditError> {
    request.remove_all(OF_ONE_CLIENT);
    let (mut tags, mut count, mut since) = (Vec::new(), 0, None);
    for (facts, fields) in stored.into_iter().take(MAX_VARIANTS) {
        count += 1;
        if facts.has_etag()
            && let Some(tag) = fields.get(Known::Etag)
        {
            if !tags.is_empty() {
                tags.extend_from_slice(b", ");
            }
            tags.extend_from_slice(tag);
        }
        if facts.last_modified().is_some() {
            since = fields.get(Known::LastModified);
        }
    }
    if !tags.is_empty() {
        request.append(Known::IfNoneMatch, &tags)?;
    }
    let since = since.filter(|_| count == 1);
    if let Some(since) = since {
        request.append(Known::IfModifiedSince, since)?;
    }
    Ok(!tags.is_empty() || since.is_some())
}

/// More stored responses are not validated at once: as many as there are variants of an object.
const MAX_VARIANTS: usize = 32;

/// Makes a fill's request one for some bytes of a stored response (RFC 9110 §13.1.5): `Range`,
/// and `If-Range` with its strong validator. The range is not empty.
///
/// Says `false`, and leaves the request without either, if there is no strong validator: what
/// comes could not be put together with what is there (RFC 9111 §3.4).
///
/// # Errors
/// Far too much was added before.
pub fn make_range(
    request: &mut Fields,
    range: &Range<u64>,
    stored: (&StoredFacts, &Fields),
) -> Result<bool, EditError> {
    debug_assert!(range.start < range.end);
    request.remove_all(OF_ONE_CLIENT);
    let (facts, fields) = stored;
    let validator = if facts.has_strong_etag() {
        fields.get(Known::Etag)
    } else if facts.has_strong_date() && !facts.has_etag() {
        fields.get(Known::LastModified)
    } else {
        None
    };
    let Some(validator) = validator else {
        return Ok(false);
    };
    let last = range.end.saturating_sub(1);
    request.append(Known::Range, format!("bytes={}-{last}", range.start))?;
    request.append(Known::IfRange, validator)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lines, NOW, fields, stored_with, text, times};

    fn check(policy: &Policy, lines: Lines<'_>, expected: &str) {
        let mut fields = fields(lines);
        let facts = ResponseFacts::of(200, &fields, false);
        prepare_fields(policy, &facts, &times(), &mut fields).unwrap();
        assert_eq!(text(&fields), expected, "{lines:?}");
    }

    const DATE: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    const DATE_LINE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\n";

    #[test]
    fn rfc9111_3_1_what_belongs_to_the_connection_is_not_stored() {
        let lines = [
            DATE,
            ("Connection", "keep-alive, X-Hop"),
            ("Keep-Alive", "timeout=5"),
            ("X-Hop", "1"),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy-Authentication-Info", "x"),
            ("Upgrade", "h2c"),
            ("Age", "5"),
        ];
        check(&Policy::default(), &lines, DATE_LINE);
    }

    #[test]
    fn rfc9111_5_2_2_4_and_7_named_fields_are_not_stored() {
        let control = ("Cache-Control", "no-cache=\"set-cookie, x-a\", private=x-b");
        let lines = [
            DATE,
            control,
            ("Set-Cookie", "a"),
            ("X-A", "1"),
            ("X-B", "2"),
        ];
        let expected = format!("{DATE_LINE}Cache-Control: {}\n", control.1);
        check(&Policy::default(), &lines, &expected);
    }

    #[test]
    fn rfc9110_6_6_1_a_date_is_added() {
        check(&Policy::default(), &[], DATE_LINE);
        check(&Policy::default(), &[("Date", "today")], DATE_LINE);
    }

    #[test]
    fn cookies_are_stripped_on_both_ways_if_configured() {
        let policy = Policy {
            strip_cookies: true,
            ..Policy::default()
        };
        check(&policy, &[DATE, ("Set-Cookie", "a=b")], DATE_LINE);
        let mut request = fields(&[("Cookie", "a=b"), ("A", "b")]);
        prepare_request(&Policy::default(), &mut request);
        assert_eq!(text(&request), "Cookie: a=b\nA: b\n");
        prepare_request(&policy, &mut request);
        assert_eq!(text(&request), "A: b\n");
    }

    #[test]
    fn a_fill_asks_without_its_clients_conditions() {
        let mut request = fields(&[
            ("Range", "bytes=0-9"),
            ("If-Range", "\"a\""),
            ("If-None-Match", "*"),
            ("If-Modified-Since", DATE.1),
            ("TE", "trailers"),
            ("Cache-Control", "no-cache"),
        ]);
        prepare_request(&Policy::default(), &mut request);
        assert_eq!(text(&request), "Cache-Control: no-cache\n");
    }

    #[test]
    fn rfc9111_4_3_1_conditional_requests() {
        let changed = ("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT");
        let check = |stored: &[Lines<'_>], expected: &str| {
            let mut request = fields(&[("If-None-Match", "\"client\""), ("Range", "bytes=0-1")]);
            let stored: Vec<_> = stored.iter().map(|lines| stored_with(lines)).collect();
            let stored = stored.iter().map(|(facts, fields)| (facts, fields));
            let any = make_conditional(&mut request, stored).unwrap();
            assert_eq!(text(&request), expected);
            assert_eq!(any, !expected.is_empty());
        };
        check(&[&[("ETag", "\"a\"")]], "If-None-Match: \"a\"\n");
        check(&[&[("ETag", "W/\"a\"")]], "If-None-Match: W/\"a\"\n");
        let since = format!("If-Modified-Since: {}\n", changed.1);
        check(&[&[changed]], &since);
        let both = format!("If-None-Match: \"a\"\n{since}");
        check(&[&[("ETag", "\"a\""), changed]], &both);
        check(
            &[&[("ETag", "\"a\""), changed], &[("ETag", "\"b\"")]],
            "If-None-Match: \"a\", \"b\"\n",
        );
        check(&[&[]], "");
        check(&[&[("ETag", "bad")]], "");
    }

    #[test]
    fn rfc9110_13_1_5_a_range_is_asked_for_by_a_strong_validator() {
        let before = ("Last-Modified", "Sun, 06 Nov 1994 08:49:36 GMT");
        let same = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(crate::http_date(same.1.as_bytes()), Some(NOW));
        let check = |lines: Lines<'_>, validator: Option<&str>| {
            let (facts, stored) = stored_with(lines);
            let mut request = fields(&[("Range", "bytes=0-1"), ("If-Range", "x")]);
            let asked = make_range(&mut request, &(65_536..131_072), (&facts, &stored));
            let expected = validator.map_or(String::new(), |validator| {
                format!("Range: bytes=65536-131071\nIf-Range: {validator}\n")
            });
            assert_eq!(asked, Ok(validator.is_some()));
            assert_eq!(text(&request), expected, "{lines:?}");
        };
        check(&[("ETag", "\"a\""), before], Some("\"a\""));
        check(&[("ETag", "W/\"a\""), before], None);
        check(&[before], Some(before.1));
        check(&[same], None);
        check(&[], None);
    }
}
