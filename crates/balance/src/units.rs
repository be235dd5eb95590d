//! The two quantities that are given from outside.

use std::time::{Duration, Instant};

/// A point in time: milliseconds since some start that the whole process agrees on. 64 bits of
/// them do not run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// So many milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Tick {
        Tick(millis)
    }

    /// `now` as seen from `start`; the start itself if `now` is earlier.
    pub fn between(start: Instant, now: Instant) -> Tick {
        Tick::default() + now.saturating_duration_since(start)
    }

    /// Milliseconds since the start.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` it is; nothing if it is not.
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Tick {
    type Output = Tick;

    /// A part of a millisecond is dropped; the end of time is not passed.
    fn add(self, duration: Duration) -> Tick {
        Tick(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// A part of a whole, from nothing to all of it, to a millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    millionths: u32,
}

impl Share {
    /// 0 %.
    pub const NONE: Share = Share { millionths: 0 };
    /// 100 %.
    pub const ALL: Share = Share {
        millionths: 1_000_000,
    };

    /// Whole percents; what is above 100 is 100.
    pub const fn percent(percent: u32) -> Share {
        Share {
            millionths: if percent > 100 {
                1_000_000
            } else {
                percent * 10_000
            },
        }
    }

    /// Percents with decimals, as a configuration has them; none if not from 0 to 100.
    pub fn from_percent(percent: f64) -> Option<Share> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 1,000,000, by the check above"
        )]
        let millionths = (percent * 10_000.0).round() as u32;
        Some(Share { millionths })
    }

    /// This share of a number, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        let part = u128::from(whole) * u128::from(self.millionths) / 1_000_000;
        // Not more than the whole, so it fits.
        u64::try_from(part).unwrap_or(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_and_rounded_down() {
        assert_eq!(Share::from_percent(20.0), Some(Share::percent(20)));
        assert_eq!(
            Share::from_percent(0.5).map(|share| share.of(1_000)),
            Some(5)
        );
        assert_eq!(Share::percent(50).of(3), 1);
        assert_eq!(Share::percent(50).of(1), 0);
        assert_eq!(Share::ALL.of(u64::MAX), u64::MAX);
        assert_eq!(Share::NONE.of(u64::MAX), 0);
        for wrong in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::from_percent(wrong), None);
        }
    }

    #[test]
    fn ticks_do_not_pass_the_end_of_time() {
        let late = Tick::from_millis(u64::MAX);
        assert_eq!(late + Duration::MAX, late);
        assert_eq!(
            Tick::from_millis(5).since(Tick::from_millis(9)),
            Duration::ZERO
        );
        let start = Instant::now();
        assert_eq!(
            Tick::between(start, start + Duration::from_micros(2_900)).as_millis(),
            2
        );
    }
}
