//! Moments and spans of time (RFC 9111 §1.2.2, RFC 9110 §5.6.7).

use std::time::{Duration, UNIX_EPOCH};

/// What a number of seconds is taken for that is too large, and what sums stop at: 2^31, as
/// RFC 9111 §1.2.2 lays down.
pub const MAX_SECONDS: u32 = 1 << 31;

/// A moment, in milliseconds since 1970.
///
/// Finer than the fields can say, so that an object which is fresh for one second is fresh for a
/// second, not for what is left of the one in which it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// That many milliseconds after the beginning of 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// That many seconds after the beginning of 1970.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds from `earlier` to this moment; 0 where it is not earlier: a clock that was
    /// set back makes nothing younger than new.
    #[inline]
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment, or the beginning of 1970 if that is nearer.
    #[must_use]
    pub const fn minus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }

    /// As it stands in a field, in the one form that is sent (RFC 9110 §5.6.7).
    #[must_use]
    pub fn to_http_date(self) -> String {
        // What lies behind the year 9999 cannot be written; `httpdate` would panic.
        let secs = self.as_secs().min(LAST_SECOND);
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(secs))
    }
}

/// The 31st of December 9999, 23:59:59.
const LAST_SECOND: u64 = 253_402_300_799;

/// `seconds`, but at most [`MAX_SECONDS`].
pub(crate) fn clamp_seconds(seconds: u64) -> u32 {
    u32::try_from(seconds).map_or(MAX_SECONDS, |seconds| seconds.min(MAX_SECONDS))
}

/// `delta-seconds` (RFC 9111 §1.2.2): digits and nothing else; more than fits is 2^31.
#[must_use]
pub fn delta_seconds(digits: &[u8]) -> Option<u32> {
    number(digits).map(clamp_seconds)
}

/// Digits and nothing else, however many: what does not fit is the largest number.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(value.saturating_mul(10).saturating_add(digit))
    })
}

/// A date in any of the three forms, in seconds since 1970; `None` if it is none, if its zone is
/// not GMT (RFC 9111 §4.2), or if it lies before 1970.
///
/// Case does not matter to a cache (RFC 9111 §4.2), so it is mended before the date is read. A
/// year of two digits is one of 1970 to 2069, which is what RFC 9110 §5.6.7 asks for.
#[must_use]
pub fn http_date(value: &[u8]) -> Option<u64> {
    let mut room = [0; LONGEST_DATE];
    let mended = room.get_mut(..value.len())?;
    let mut word_at = None;
    for (at, (byte, out)) in value.iter().zip(mended.iter_mut()).enumerate() {
        if !byte.is_ascii_alphabetic() {
            word_at = None;
            *out = *byte;
            continue;
        }
        let start = *word_at.get_or_insert(at);
        let zone = value
            .get(start..start + 3)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"GMT"));
        *out = if start == at || zone {
            byte.to_ascii_uppercase()
        } else {
            byte.to_ascii_lowercase()
        };
    }
    let text = std::str::from_utf8(mended).ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// `Wednesday, 09-Nov-94 08:49:37 GMT`, and some room for what will not be read anyway.
const LONGEST_DATE: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9111_1_2_2_delta_seconds() {
        for (text, expected) in [
            ("0", Some(0)),
            ("60", Some(60)),
            ("0060", Some(60)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", Some(MAX_SECONDS)),
            ("4294967297", Some(MAX_SECONDS)),
            ("99999999999999999999999999", Some(MAX_SECONDS)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1 ", None),
            ("1a", None),
            ("0x10", None),
        ] {
            assert_eq!(delta_seconds(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn rfc9110_5_6_7_three_forms_of_dates() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(http_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        assert_eq!(
            Time::from_secs(784_111_777).to_http_date(),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
        let _ = Time::from_millis(u64::MAX).to_http_date();
    }

    #[test]
    fn rfc9111_4_2_dates_in_any_case_and_only_in_gmt() {
        for text in [
            "sun, 06 nov 1994 08:49:37 gmt",
            "SUN, 06 NOV 1994 08:49:37 GMT",
            "sUNDAY, 06-nOV-94 08:49:37 gMt",
            "sun nov  6 08:49:37 1994",
        ] {
            assert_eq!(http_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for text in [
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 EST",
            "Sun, 06 Nov 1994 08:49:37 +0100",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "0",
            "-1",
            "",
            "never",
            "\u{fffd}",
        ] {
            assert_eq!(http_date(text.as_bytes()), None, "{text}");
        }
    }
}
