//! How often something may happen: the generic cell rate algorithm (ITU-T I.371, annex A), which
//! is a leaky bucket that needs one number of memory and no ticking.
//!
//! The number is the *theoretical arrival time*: when the next arrival would come if they all kept
//! exactly to the rate. Each one that comes moves it on by one interval; it may run ahead of the
//! clock by `burst` intervals and no more:
//!
//! ```text
//!        now            arrival time            now + burst × interval
//!   ──────┼───────────────────┼───────────────────────────┼──────▶ nanoseconds
//!         │ ◀── used up ────▶ │ ◀────── still free ─────▶ │
//! ```
//!
//! In any span of time, at most `burst` plus the span's share of the rate come through.

use std::time::Duration;

/// So many per time, and so many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gcra {
    interval_ns: u64,
    tolerance_ns: u64,
}

/// Whether one more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes; this is the new arrival time.
    Now(u64),
    /// Not before so many nanoseconds have passed.
    Later(u64),
}

/// The longest tolerance: half of the range of a time, so that adding it to a time is safe.
const MAX_TOLERANCE_NS: u64 = u64::MAX / 2;

impl Gcra {
    /// `count` in each `per`, `burst` of them at once. What is zero counts as one.
    pub fn new(count: u64, per: Duration, burst: u64) -> Gcra {
        let per = u64::try_from(per.as_nanos()).unwrap_or(MAX_TOLERANCE_NS);
        // Rounded to the nearest: for ten million in a second that is off by less than a percent,
        // and for what a server can do by nothing.
        let count = count.max(1);
        let interval_ns = (per.saturating_add(count / 2) / count).max(1);
        Gcra {
            interval_ns,
            tolerance_ns: interval_ns
                .saturating_mul(burst.max(1))
                .min(MAX_TOLERANCE_NS),
        }
    }

    /// Whether one more may come at `now_ns`, where `arrival_ns` is the arrival time: 0 for one
    /// that has not been there yet.
    pub fn decide(&self, arrival_ns: u64, now_ns: u64) -> Verdict {
        let next = self.charged(arrival_ns, now_ns);
        match next.saturating_sub(now_ns).checked_sub(self.tolerance_ns) {
            None | Some(0) => Verdict::Now(next),
            Some(early_ns) => Verdict::Later(early_ns),
        }
    }

    /// The arrival time after one that comes whether it may or not.
    pub fn charged(&self, arrival_ns: u64, now_ns: u64) -> u64 {
        arrival_ns.max(now_ns).saturating_add(self.interval_ns)
    }

    /// Whether this arrival time says no more than none at all.
    pub fn is_spent(arrival_ns: u64, now_ns: u64) -> bool {
        arrival_ns <= now_ns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Which of the arrivals at these times, in milliseconds, come through.
    fn run(gcra: Gcra, times_ms: &[u64]) -> Vec<bool> {
        let mut arrival = 0;
        let mut one = |ms: &u64| match gcra.decide(arrival, SECOND + ms * 1_000_000) {
            Verdict::Now(next) => {
                arrival = next;
                true
            }
            Verdict::Later(_) => false,
        };
        times_ms.iter().map(&mut one).collect()
    }

    #[test]
    fn a_burst_and_then_evenly() {
        let gcra = Gcra::new(10, Duration::from_secs(1), 3);
        let times = [
            0, 0, 0, 0, 99, 100, 100, 199, 200, 1_000, 1_000, 1_000, 1_000,
        ];
        let passed = [
            true, true, true, false, false, true, false, false, true, true, true, true, false,
        ];
        assert_eq!(run(gcra, &times), passed);
    }

    #[test]
    fn how_long_it_takes() {
        let gcra = Gcra::new(4, Duration::from_secs(1), 1);
        let Verdict::Now(arrival) = gcra.decide(0, SECOND) else {
            panic!("the first one passes");
        };
        let later = gcra.decide(arrival, SECOND + SECOND / 10);
        assert_eq!(later, Verdict::Later(SECOND / 4 - SECOND / 10));
        assert!(!Gcra::is_spent(arrival, SECOND));
        assert!(Gcra::is_spent(arrival, SECOND + SECOND / 4));
        // Who is charged although nothing was free waits for longer.
        let over = gcra.charged(arrival, SECOND);
        assert_eq!(gcra.decide(over, SECOND), Verdict::Later(SECOND / 2));
    }

    #[test]
    fn the_ends_of_the_ranges() {
        let years = Duration::from_secs(10 * 365 * 86_400);
        for gcra in [
            Gcra::new(1, years, 1_000_000_000),
            Gcra::new(1_000_000_000, Duration::from_millis(1), 1_000_000_000),
            Gcra::new(0, Duration::ZERO, 0),
        ] {
            for (arrival, now) in [(0, 0), (0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
                let _ = gcra.decide(arrival, now);
            }
            assert!(matches!(gcra.decide(0, 5), Verdict::Now(_)));
        }
    }

    proptest! {
        /// The promise, for every span between two arrivals that came through.
        #[test]
        fn no_span_sees_more_than_its_share(
            count in 1_u64..50,
            burst in 1_u64..20,
            gaps in proptest::collection::vec(0_u64..60, 1..200),
        ) {
            let gcra = Gcra::new(count, Duration::from_secs(1), burst);
            let times: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let passed: Vec<u64> = times.iter().zip(run(gcra, &times))
                .filter_map(|(time, passed)| passed.then_some(*time))
                .collect();
            for (from, first) in passed.iter().enumerate() {
                for (to, last) in passed.iter().enumerate().skip(from) {
                    let seen = (to - from + 1) as u64;
                    // One more than its share: both ends of the span belong to it.
                    let share = burst + (last - first) * count / 1_000 + 1;
                    prop_assert!(seen <= share, "{seen} in {} ms, share {share}", last - first);
                }
            }
        }

        /// Who is told how long to wait, and does, comes through; a moment earlier, not.
        #[test]
        fn waiting_is_exact(
            count in 1_u64..1_000, burst in 1_u64..20, arrival in 0_u64..10 * SECOND, now in 0_u64..10 * SECOND,
        ) {
            let gcra = Gcra::new(count, Duration::from_secs(1), burst);
            if let Verdict::Later(ns) = gcra.decide(arrival, now) {
                prop_assert!(ns > 0);
                prop_assert!(matches!(gcra.decide(arrival, now + ns), Verdict::Now(_)));
                prop_assert!(matches!(gcra.decide(arrival, now + ns - 1), Verdict::Later(_)));
            }
        }
    }
}
