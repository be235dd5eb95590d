//! Ranges of bytes: what is asked for, what a part says that it is (RFC 9110 §14).

use std::ops::Range;

use forebay_fields::{Fields, Known};

use crate::time::number;

/// One `range-spec` of bytes (RFC 9110 §14.1.2). A number that does not fit in 64 bits is the
/// largest: behind the end of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-last` or `first-`; both inclusive, the last not before the first.
    From(u64, u64),
    /// `-count`: the last ones.
    Last(u64),
}

impl RangeSpec {
    /// Reads one member of the set behind `bytes=`, without white space around it.
    #[must_use]
    pub fn parse(spec: &[u8]) -> Option<Self> {
        let dash = spec.iter().position(|&byte| byte == b'-')?;
        match (&spec[..dash], &spec[dash + 1..]) {
            ([], last) => Some(Self::Last(number(last)?)),
            (first, []) => Some(Self::From(number(first)?, u64::MAX)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, last))
            }
        }
    }

    /// Which bytes of a representation of `len` bytes that is; `None` if it has none of them.
    #[must_use]
    pub fn of(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first, last) => first..last.saturating_add(1).min(len),
            Self::Last(count) => len.saturating_sub(count)..len,
        };
        (range.start < range.end).then_some(range)
    }
}

/// What a request's `Range` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeAsk {
    /// Nothing that is understood: the field is not there, or is ignored.
    None,
    /// One range of bytes: a cold one brings in only what it touches.
    One(RangeSpec),
    /// Several ranges of bytes.
    Several,
}

impl RangeAsk {
    /// Reads the field (RFC 9110 §14.2).
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let Some((unit, set)) = fields
            .get_only(Known::Range)
            .and_then(|value| value.split_first_chunk::<6>())
        else {
            return Self::None;
        };
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return Self::None;
        }
        let mut ask = Self::None;
        let specs = set.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        for spec in specs.filter(|spec| !spec.is_empty()) {
            ask = match (ask, RangeSpec::parse(spec)) {
                (_, None) => return Self::None,
                (Self::None, Some(spec)) => Self::One(spec),
                (_, Some(_)) => Self::Several,
            };
        }
        ask
    }
}

/// What `Content-Range` says of a part (RFC 9110 §14.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Which bytes of the representation are in the content; never empty.
    pub range: Range<u64>,
    /// The length of the whole; `None` where it is given as `*`.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// Reads the value of a 206's field. `None` for another unit, for `bytes */LEN`, which a 416
    /// has, and for what is wrong: the last byte before the first, behind the end of the whole, or
    /// at the end of what 64 bits can count.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (unit, rest) = value.split_first_chunk::<6>()?;
        if !unit.eq_ignore_ascii_case(b"bytes ") {
            return None;
        }
        let slash = rest.iter().position(|&byte| byte == b'/')?;
        let dash = rest[..slash].iter().position(|&byte| byte == b'-')?;
        let first = number(&rest[..dash])?;
        let end = number(&rest[dash + 1..slash])?.checked_add(1)?;
        let complete = match &rest[slash + 1..] {
            b"*" => None,
            digits => Some(number(digits).filter(|&len| len < u64::MAX)?),
        };
        let right = first < end && complete.is_none_or(|len| end <= len);
        right.then_some(Self {
            range: first..end,
            complete,
        })
    }

    /// How many bytes the part has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Never: there is no way to say that a part is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl std::fmt::Display for ContentRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {}-{}/", self.range.start, self.range.end - 1)?;
        match self.complete {
            Some(len) => write!(f, "{len}"),
            None => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_14_4_content_range() {
        let check = |value: &str, expected: Option<(u64, u64, Option<u64>)>| {
            let got = ContentRange::parse(value.as_bytes());
            let parts = got
                .clone()
                .map(|c| (c.range.start, c.range.end, c.complete));
            assert_eq!(parts, expected, "{value}");
            if let Some(got) = got {
                assert_eq!(ContentRange::parse(got.to_string().as_bytes()), Some(got));
            }
        };
        check("bytes 0-499/1234", Some((0, 500, Some(1234))));
        check("Bytes 0-0/1", Some((0, 1, Some(1))));
        check("bytes 500-999/*", Some((500, 1000, None)));
        check("bytes 0-1233/1234", Some((0, 1234, Some(1234))));
        check(
            "bytes 0-9/18446744073709551614",
            Some((0, 10, Some(u64::MAX - 1))),
        );
        for bad in [
            "bytes */1234",
            "bytes 0-1234/1234",
            "bytes 5-4/10",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "bytes 0-9/18446744073709551615",
            "bytes 0-9",
            "bytes -9/10",
            "bytes 0-/10",
            "bytes 0-9/",
            "bytes 0-9/x",
            "bytes=0-9/10",
            "items 0-9/10",
            "bytes 0 - 9/10",
            "",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn rfc9110_14_1_2_what_a_range_selects() {
        use RangeSpec::{From, Last};
        for (spec, len, expected) in [
            (From(0, 9), 100, Some(0..10)),
            (From(90, 200), 100, Some(90..100)),
            (From(0, u64::MAX), 100, Some(0..100)),
            (From(100, 200), 100, None),
            (Last(5), 100, Some(95..100)),
            (Last(500), 100, Some(0..100)),
            (Last(0), 100, None),
            (Last(5), 0, None),
        ] {
            assert_eq!(spec.of(len), expected, "{spec:?} of {len}");
        }
    }

    #[test]
    fn rfc9110_14_2_what_a_range_field_asks() {
        let ask = |lines: &[&str]| {
            let mut fields = Fields::new();
            for line in lines {
                fields.append("Range", line).unwrap();
            }
            RangeAsk::of(&fields)
        };
        assert_eq!(ask(&["bytes=0-9"]), RangeAsk::One(RangeSpec::From(0, 9)));
        assert_eq!(ask(&["BYTES=-9"]), RangeAsk::One(RangeSpec::Last(9)));
        assert_eq!(
            ask(&["bytes=9-,"]),
            RangeAsk::One(RangeSpec::From(9, u64::MAX))
        );
        assert_eq!(ask(&["bytes=0-9, 20-29"]), RangeAsk::Several);
        for ignored in [
            "bytes=",
            "bytes=9-0",
            "bytes=a-b",
            "items=0-9",
            "bytes",
            "bytes=0-9,x",
        ] {
            assert_eq!(ask(&[ignored]), RangeAsk::None, "{ignored}");
        }
        assert_eq!(ask(&[]), RangeAsk::None);
        assert_eq!(ask(&["bytes=0-9", "bytes=0-9"]), RangeAsk::None);
    }
}
