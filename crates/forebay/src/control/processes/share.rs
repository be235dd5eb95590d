//! The share of a core that a process may take: `cpu`.
//!
//! ```text
//!            has taken more than it had
//!   going ───────────────────────────────▶ held
//!     ▲        has earned what it owes       │
//!     └──────────────────────────────────────┘
//! ```
//!
//! It earns its share as time passes, saves up to what it earns in a second, and pays for what it
//! takes. No clock and no process is in here.

use std::time::{Duration, Instant};

/// So much a process may save: what it earns in this time. Short bursts pass unhindered.
const SAVED: Duration = Duration::from_secs(1);
/// It owes at most what it earns in this time, or this many microseconds: what 16 threads take in two
/// close looks. One that was found late is not stopped for long.
const OWED: Duration = Duration::from_secs(2);
const OWED_US: i64 = 800_000;
/// One that may take a whole core, has nothing to do and takes little is looked at so seldom.
const SELDOM: Duration = Duration::from_secs(1);
/// What one thread, or a few, may take before it is looked at next, in microseconds.
const SOON_US: i64 = 200_000;
/// A whole core.
const CORE_PPM: i64 = 1_000_000;

/// What a process has of its share.
#[derive(Debug)]
pub struct Share {
    /// Microseconds that it earns in a second.
    ppm: i64,
    /// What it has saved, in microseconds; below zero: what it owes.
    credit_us: i64,
    /// When it was looked at last, and what it had taken until then.
    looked: Instant,
    taken_us: u64,
    /// It has just taken more than half of its share.
    is_near: bool,
    is_held: bool,
}

impl Share {
    /// That of a process which has just been started, in millionths of a core.
    pub fn new(ppm: u32, now: Instant) -> Share {
        let ppm = i64::from(ppm);
        Share {
            ppm,
            credit_us: earned(ppm, SAVED),
            looked: now,
            taken_us: 0,
            is_near: false,
            is_held: false,
        }
    }

    /// Whether it is worth the effort to look what it has taken; `is_busy`: it has requests.
    pub fn is_due(&self, is_busy: bool, now: Instant) -> bool {
        // One thread never takes more than a core.
        let is_watched = is_busy || self.ppm < CORE_PPM;
        is_watched || self.is_near || self.is_held || now.duration_since(self.looked) >= SELDOM
    }

    /// Takes note of what it has taken since its start, in microseconds of processor time.
    pub fn handle_taken(&mut self, taken_us: u64, now: Instant) {
        let earned_us = earned(self.ppm, now.duration_since(self.looked));
        // Less than before: a child has ended that nobody has waited for.
        let taken = taken_us.saturating_sub(self.taken_us);
        let taken = i64::try_from(taken).unwrap_or(i64::MAX);
        (self.looked, self.taken_us) = (now, taken_us);
        self.is_near = taken.saturating_mul(2) > earned_us;
        let credit = self.credit_us + earned_us;
        let least = -earned(self.ppm, OWED).max(OWED_US);
        let most = earned(self.ppm, SAVED);
        self.credit_us = credit.saturating_sub(taken).clamp(least, most);
    }

    /// Whether it is to be held now.
    pub fn is_used_up(&self) -> bool {
        self.credit_us < 0
    }

    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// It was stopped, or goes on.
    pub fn set_held(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Whether that may soon be decided anew.
    pub fn is_tight(&self) -> bool {
        self.is_held || self.is_near && self.credit_us < SOON_US
    }
}

fn earned(ppm: i64, time: Duration) -> i64 {
    // What is longer than a minute is more than can be saved in any case.
    let time_us = time.min(Duration::from_secs(60)).as_micros();
    ppm * i64::try_from(time_us).unwrap_or(0) / CORE_PPM
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 25 ms, for so many seconds, at a process that takes so many cores whenever it may;
    /// gives what it took in each second.
    fn burn(share: &mut Share, from: Instant, cores: u64, seconds: u32) -> Vec<u64> {
        const LOOK: Duration = Duration::from_millis(25);
        let (mut now, mut taken_us) = (from, share.taken_us);
        let mut of_second = || {
            let before = taken_us;
            for _ in 0..40 {
                now += LOOK;
                if !share.is_held() {
                    taken_us += cores * 25_000;
                }
                share.handle_taken(taken_us, now);
                share.set_held(share.is_used_up());
            }
            taken_us - before
        };
        (0..seconds).map(|_| of_second()).collect()
    }

    fn check(ppm: u32, cores: u64) {
        let start = Instant::now();
        let mut share = Share::new(ppm, start);
        let taken = burn(&mut share, start, cores, 60);
        let (first, rest) = taken.split_at(1);
        let (ppm, slice) = (u64::from(ppm), cores * 25_000);
        assert!(first[0] <= 2 * ppm + slice, "{ppm} of {cores}: {taken:?}");
        let sum: u64 = rest.iter().sum();
        let expected = 59 * ppm;
        assert!(
            sum.abs_diff(expected) <= ppm + 2 * slice,
            "{ppm} of {cores}: {sum}, expected {expected}"
        );
    }

    #[test]
    fn who_burns_gets_its_share() {
        for ppm in [10_000, 100_000, 250_000, 500_000, 900_000] {
            check(ppm, 1);
            check(ppm, 4);
        }
        check(1_000_000, 2);
        check(1_000_000, 16);
    }

    #[test]
    fn who_stays_within_its_share_is_never_held() {
        let (start, mut now) = (Instant::now(), Instant::now());
        let mut share = Share::new(1_000_000, start);
        // By a clock that counts hundredths, and looks that come when they come.
        for round in 1..1_000_u64 {
            now += Duration::from_micros(90_000 + round * 7_919 % 30_000);
            let taken = u64::try_from((now - start).as_micros()).unwrap();
            share.handle_taken(taken.next_multiple_of(10_000), now);
            assert!(!share.is_used_up(), "round {round}");
        }
    }

    #[test]
    fn who_was_found_late_or_slept_is_back_within_seconds() {
        let start = Instant::now();
        let whole = Share::new(1_000_000, start);
        assert!(!whole.is_due(false, start) && whole.is_due(true, start));
        let late = start + Duration::from_secs(30);
        assert!(whole.is_due(false, late));
        let mut share = Share::new(100_000, start);
        assert!(share.is_due(false, start));
        share.handle_taken(30_000_000, late);
        assert!(share.is_used_up() && share.is_due(false, late));
        share.set_held(true);
        assert!(share.is_tight());
        share.handle_taken(30_000_000, late + Duration::from_secs(8));
        assert!(!share.is_used_up());
        // Nor does it save for more than a second, however long it rests.
        share.set_held(false);
        let rested = late + Duration::from_secs(86_400);
        share.handle_taken(30_000_000, rested);
        assert_eq!(share.credit_us, 100_000);
        // And who has lost a child owes nothing for it.
        share.handle_taken(0, rested);
        assert_eq!(share.credit_us, 100_000);
    }
}
