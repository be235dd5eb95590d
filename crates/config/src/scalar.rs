//! Durations, sizes, rates, statuses, percentages: text and number types with units.

use std::time::Duration;

use crate::directive::{MAX_COUNT, MAX_DURATION, MAX_SIZE};

/// A count per duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many, 1 to [`MAX_COUNT`].
    pub count: u64,
    /// In which time; never zero.
    pub per: Duration,
}

/// One status or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// `404`; 100 to 999.
    Code(u16),
    /// `"4xx"` is `4`; 1 to 5.
    Class(u8),
}

impl Status {
    /// Whether this is it, or in it.
    pub fn matches(self, status: u16) -> bool {
        match self {
            Status::Code(code) => code == status,
            Status::Class(class) => status / 100 == u16::from(class),
        }
    }
}

/// `"250ms"`: a whole number and a unit; at most [`MAX_DURATION`].
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "y" => 365 * 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(millis)?);
    (duration <= MAX_DURATION).then_some(duration)
}

/// Whether this is a duration but for its length.
pub(crate) fn is_too_long(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number
        && duration(text).is_none()
        && duration(&format!("1{}", &text[number.len()..])).is_some()
}

/// `"64KB"` in bytes: powers of 1,024; at most [`MAX_SIZE`].
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let shift = match unit {
        "B" => 0,
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    let bytes = number.checked_mul(1 << shift)?;
    (bytes <= MAX_SIZE).then_some(bytes)
}

/// `"1MB/s"` in bytes per second; not zero.
pub(crate) fn bandwidth(text: &str) -> Option<u64> {
    size(text.strip_suffix("/s")?).filter(|bytes| *bytes > 0)
}

/// `"100/s"`, `"20/10s"`.
pub fn rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once('/')?;
    let (count, rest) = split_number(count)?;
    // "100/s" is short for "100/1s".
    let per = match per.starts_with(|c: char| c.is_ascii_digit()) {
        true => duration(per)?,
        false => duration(&format!("1{per}"))?,
    };
    let right = rest.is_empty() && (1..=MAX_COUNT).contains(&count) && !per.is_zero();
    right.then_some(Rate { count, per })
}

/// `"10%"`, decimals allowed, 0 to 100.
pub fn percent(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?;
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    if !number.starts_with(|c: char| c.is_ascii_digit()) || !number.chars().all(plain) {
        return None;
    }
    number
        .parse()
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
}

/// `"4xx"`.
pub(crate) fn status_class(text: &str) -> Option<Status> {
    let class = text.strip_suffix("xx")?;
    let class = class.parse().ok().filter(|class| (1..=5).contains(class))?;
    (text.len() == 3).then_some(Status::Class(class))
}

/// A duration as the language writes it, in its largest whole unit.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [
        (31_536_000_000, "y"),
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
    ];
    for (unit, name) in units.into_iter().chain([(1_000, "s")]) {
        if millis >= unit && millis.is_multiple_of(unit) {
            return format!("{}{name}", millis / unit);
        }
    }
    if millis == 0 {
        "0s".to_owned()
    } else {
        format!("{millis}ms")
    }
}

/// A size as the language writes it, in its largest whole unit.
pub fn show_size(bytes: u64) -> String {
    for (shift, name) in [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{name}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// 1 to 64 letters, digits, `-`, `_`, `.`.
pub(crate) fn is_name(text: &str) -> bool {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(right)
}

/// The digits in front, and the rest. No sign, no blank, no decimals; leading zeros do no harm.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table = [
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("5s", Some(5_000)),
            ("10m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("1y", Some(31_536_000_000)),
            ("10y", Some(315_360_000_000)),
            ("11y", None),
            ("3651d", None),
            ("5", None),
            ("s", None),
            ("", None),
            ("5 s", None),
            ("-5s", None),
            ("+5s", None),
            ("1.5s", None),
            ("5S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615y", None),
        ];
        for (text, millis) in table {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
            let is_too_long = text.len() > 2 && millis.is_none() && text.ends_with(['y', 'd'])
                || text == "99999999999999999999s";
            assert_eq!(super::is_too_long(text), is_too_long, "{text}");
        }
    }

    #[test]
    fn sizes_and_bandwidths() {
        let table = [
            ("512B", Some(512)),
            ("64KB", Some(65_536)),
            ("1MB", Some(1 << 20)),
            ("50GB", Some(50 << 30)),
            ("16TB", Some(16 << 40)),
            ("1025TB", None),
            ("64", None),
            ("64kb", None),
            ("64KiB", None),
            ("1.5MB", None),
            ("18446744073709551615TB", None),
        ];
        for (text, bytes) in table {
            assert_eq!(size(text), bytes, "{text}");
        }
        assert_eq!(bandwidth("1MB/s"), Some(1 << 20));
        for text in ["1MB", "1MB/m", "0B/s", "/s"] {
            assert_eq!(bandwidth(text), None, "{text}");
        }
    }

    #[test]
    fn rates_percentages_statuses_names() {
        let rate_of = |count, millis| {
            Some(Rate {
                count,
                per: Duration::from_millis(millis),
            })
        };
        assert_eq!(rate("100/s"), rate_of(100, 1_000));
        assert_eq!(rate("20/10s"), rate_of(20, 10_000));
        assert_eq!(rate("10/m"), rate_of(10, 60_000));
        for text in [
            "100",
            "0/s",
            "100/0s",
            "100 per second",
            "/s",
            "5x/s",
            "1000000001/s",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
        assert_eq!(percent("10%"), Some(10.0));
        assert_eq!(percent("0.5%"), Some(0.5));
        for text in ["10", "101%", "-1%", "%", "inf%", "1e1%", ".5%", "1.2.3%"] {
            assert_eq!(percent(text), None, "{text}");
        }
        assert_eq!(status_class("4xx"), Some(Status::Class(4)));
        for text in ["6xx", "0xx", "404", "4x", "+4xx", "04xx"] {
            assert_eq!(status_class(text), None, "{text}");
        }
        assert!(Status::Class(4).matches(404) && !Status::Code(404).matches(403));
        assert!(is_name("a-B_9.x") && !is_name("") && !is_name("a b") && !is_name("ä"));
        assert!(is_name(&"x".repeat(64)) && !is_name(&"x".repeat(65)));
    }

    #[test]
    fn shown_as_written() {
        for text in ["0s", "1ms", "250ms", "90s", "1m", "1h", "7d", "1y", "400d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["0B", "1KB", "1025B", "16TB", "1MB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
    }
}
