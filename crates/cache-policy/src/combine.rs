//! Parts: which may be put together, and which ranges they can answer (RFC 9111 §3.3, §3.4).

use std::ops::Range;

use forebay_fields::{Fields, Known};

use crate::range::{ContentRange, RangeSpec};
use crate::reasons::WhyApart;
use crate::response::{Etag, ResponseFacts};
use crate::stored::StoredFacts;

/// Whether the part that a 206 has belongs to the stored response, and if so which part it is
/// (RFC 9111 §3.4): both have the same strong validator. `complete_len` is the length of the
/// stored representation, where it is known.
///
/// Then the stored fields are brought up to date by [`update`](crate::update()).
///
/// # Errors
/// Why it does not belong there: what was stored is to be dropped, if it is not in use.
pub fn may_combine<'a>(
    stored: (&StoredFacts, &Fields),
    complete_len: Option<u64>,
    new: (&'a ResponseFacts, &Fields),
) -> Result<&'a ContentRange, WhyApart> {
    let (facts, fields) = stored;
    let (new, new_fields) = new;
    let part = new.content_range().ok_or(WhyApart::NoPart)?;
    let same = match (facts.has_etag(), new.etag) {
        // An entity tag says more than a date: where either has one, tags are compared.
        (true, _) | (_, Etag::Weak | Etag::Strong) => {
            if !facts.has_strong_etag() || new.etag != Etag::Strong {
                return Err(WhyApart::NoStrongValidator);
            }
            fields.get(Known::Etag) == new_fields.get(Known::Etag)
        }
        (false, Etag::None) => {
            let strong = |time: u64| new.date.is_some_and(|date| time < date);
            if !facts.has_strong_date() || !new.last_modified.is_some_and(strong) {
                return Err(WhyApart::NoStrongValidator);
            }
            facts.last_modified() == new.last_modified
        }
    };
    if !same {
        return Err(WhyApart::OtherValidator);
    }
    let fits = match (complete_len, part.complete) {
        (Some(known), Some(len)) => known == len,
        (Some(known), None) => part.range.end <= known,
        (None, _) => true,
    };
    if fits {
        Ok(part)
    } else {
        Err(WhyApart::OtherLength)
    }
}

/// Which bytes answer a range, if those that are stored are enough for it: a smaller range of a
/// stored part (RFC 9111 §3.3). `have` is what is there; touching ranges are joined already.
///
/// While the length of the whole is not known, only a range with two ends can be answered.
#[must_use]
pub fn covered(
    spec: RangeSpec,
    complete_len: Option<u64>,
    have: &[Range<u64>],
) -> Option<Range<u64>> {
    let wanted = match (complete_len, spec) {
        (Some(len), _) => spec.of(len)?,
        (None, RangeSpec::From(first, last)) => first..last.checked_add(1)?,
        (None, RangeSpec::Last(_)) => return None,
    };
    let within = |range: &Range<u64>| range.start <= wanted.start && wanted.end <= range.end;
    have.iter().any(within).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lines, fields, stored_with};

    const DATE: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    const EARLY: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT");
    const LATE: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    const A: (&str, &str) = ("ETag", "\"a\"");
    const B: (&str, &str) = ("ETag", "\"b\"");
    const WEAK_A: (&str, &str) = ("ETag", "W/\"a\"");
    const PART: (&str, &str) = ("Content-Range", "bytes 10-19/100");

    fn check(stored: Lines<'_>, new: Lines<'_>, expected: Result<Range<u64>, WhyApart>) {
        check_len(stored, None, new, expected);
    }

    fn check_len(
        stored: Lines<'_>,
        len: Option<u64>,
        new: Lines<'_>,
        expected: Result<Range<u64>, WhyApart>,
    ) {
        let (facts, stored_fields) = stored_with(stored);
        let new_fields = fields(new);
        let new_facts = ResponseFacts::of(206, &new_fields, false);
        let got = may_combine((&facts, &stored_fields), len, (&new_facts, &new_fields));
        assert_eq!(
            got.map(|part| part.range.clone()),
            expected,
            "{stored:?} {new:?}"
        );
    }

    #[test]
    fn rfc9111_3_4_only_the_same_strong_validator() {
        check(&[A], &[A, PART], Ok(10..20));
        check(&[A], &[B, PART], Err(WhyApart::OtherValidator));
        check(&[A], &[WEAK_A, PART], Err(WhyApart::NoStrongValidator));
        check(&[WEAK_A], &[WEAK_A, PART], Err(WhyApart::NoStrongValidator));
        check(&[A], &[PART], Err(WhyApart::NoStrongValidator));
        check(&[], &[PART], Err(WhyApart::NoStrongValidator));
        check(&[DATE, EARLY], &[DATE, EARLY, PART], Ok(10..20));
        check(
            &[DATE, LATE],
            &[DATE, LATE, PART],
            Err(WhyApart::NoStrongValidator),
        );
        check(
            &[DATE, EARLY],
            &[EARLY, PART],
            Err(WhyApart::NoStrongValidator),
        );
        check(
            &[A, DATE, EARLY],
            &[B, DATE, EARLY, PART],
            Err(WhyApart::OtherValidator),
        );
        let other = ("Last-Modified", "Sun, 06 Nov 1994 07:00:00 GMT");
        check(
            &[DATE, EARLY],
            &[DATE, other, PART],
            Err(WhyApart::OtherValidator),
        );
    }

    #[test]
    fn rfc9110_14_4_the_whole_keeps_its_length() {
        check_len(&[A], Some(100), &[A, PART], Ok(10..20));
        check_len(&[A], Some(101), &[A, PART], Err(WhyApart::OtherLength));
        let open = ("Content-Range", "bytes 10-19/*");
        check_len(&[A], Some(20), &[A, open], Ok(10..20));
        check_len(&[A], Some(19), &[A, open], Err(WhyApart::OtherLength));
        check_len(&[A], None, &[A, open], Ok(10..20));
        check(&[A], &[A], Err(WhyApart::NoPart));
        check(
            &[A],
            &[A, ("Content-Range", "bytes 10-9/100")],
            Err(WhyApart::NoPart),
        );
    }

    #[test]
    fn rfc9111_3_3_smaller_ranges_of_a_stored_part() {
        use RangeSpec::{From, Last};
        let have = [10..20, 90..100];
        for (spec, len, expected) in [
            (From(10, 19), None, Some(10..20)),
            (From(12, 13), None, Some(12..14)),
            (From(9, 13), None, None),
            (From(12, 20), None, None),
            (From(12, u64::MAX), None, None),
            (Last(5), None, None),
            (Last(5), Some(100), Some(95..100)),
            (Last(50), Some(100), None),
            (From(90, u64::MAX), Some(100), Some(90..100)),
            (From(95, 500), Some(100), Some(95..100)),
            (From(100, 500), Some(100), None),
        ] {
            assert_eq!(covered(spec, len, &have), expected, "{spec:?} of {len:?}");
        }
    }
}
