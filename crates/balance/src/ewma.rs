//! How long a peer takes to answer, lately.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::units::Tick;

/// After so long a time without a sample, a peer's figure counts for a third of what it was.
const DECAY_MS: f64 = 10_000.0;

/// A moving average that rises at once and falls slowly ("peak EWMA"), so that a peer that begins
/// to be slow is left at once; and that falls by itself, so that it is tried again.
#[derive(Debug, Default)]
pub(crate) struct Ewma {
    /// Microseconds, the bits of an `f32`, in the upper half; the time of the last sample, in
    /// milliseconds that wrap around, in the lower one. One atomic, so that they always belong
    /// together. 0: nothing is known.
    state: AtomicU64,
}

impl Ewma {
    /// Takes in one answer's time.
    pub(crate) fn add(&self, micros: u32, now: Tick) {
        // Never nothing, which would mean that nothing is known.
        let sample = narrow(f64::from(micros.max(1)));
        let _ = self.state.fetch_update(Relaxed, Relaxed, |state| {
            let (old, kept) = (average(state), kept(state, now));
            let faded = old * kept;
            let new = if sample >= faded {
                sample
            } else {
                faded + sample * (1.0 - kept)
            };
            Some(u64::from(new.to_bits()) << 32 | u64::from(low(now.as_millis())))
        });
    }

    /// What it is by now, in microseconds; 0 if nothing is known.
    pub(crate) fn at(&self, now: Tick) -> f32 {
        let state = self.state.load(Relaxed);
        average(state) * kept(state, now)
    }
}

fn average(state: u64) -> f32 {
    f32::from_bits(u32::try_from(state >> 32).unwrap_or(0))
}

/// The part of it that is left.
fn kept(state: u64, now: Tick) -> f32 {
    let elapsed = low(now.as_millis()).wrapping_sub(low(state));
    // Looked at by a worker whose clock is a little behind.
    if elapsed > u32::MAX / 2 {
        return 1.0;
    }
    narrow((-f64::from(elapsed) / DECAY_MS).exp())
}

fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}

/// Seven digits are more than the times are worth.
#[expect(clippy::cast_possible_truncation, reason = "rounds, see above")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let ewma = Ewma::default();
        let within = |time, low: f32, high: f32| {
            let is = ewma.at(at(time));
            assert!((low..=high).contains(&is), "{is} at {time}");
        };
        within(5, 0.0, 0.0);
        ewma.add(1_000, at(5));
        within(5, 1_000.0, 1_000.0);
        ewma.add(9_000, at(6));
        within(6, 9_000.0, 9_000.0);
        ewma.add(1_000, at(7));
        within(7, 8_990.0, 9_000.0);
        for time in 8..10_007 {
            ewma.add(1_000, at(time));
        }
        // A third of the difference is left, however many samples there were.
        within(10_007, 3_900.0, 4_000.0);
        for time in 10_008..120_000 {
            ewma.add(1_000, at(time));
        }
        within(120_000, 999.0, 1_001.0);
    }

    #[test]
    fn without_answers_it_is_forgotten() {
        let ewma = Ewma::default();
        ewma.add(8_000, at(0));
        assert!((2_900.0..3_000.0).contains(&ewma.at(at(10_000))));
        assert!(ewma.at(at(60_000)) < 30.0);
        // A clock that is behind, and one that has wrapped around.
        ewma.add(8_000, at(100));
        assert!(ewma.at(at(90)) > 7_999.0);
        let late = Ewma::default();
        late.add(5_000, at((1 << 32) - 10));
        assert!((4_980.0..5_000.0).contains(&late.at(at((1 << 32) + 10))));
    }

    #[test]
    fn no_time_is_too_long_or_too_short() {
        let ewma = Ewma::default();
        ewma.add(u32::MAX, at(1));
        assert!(ewma.at(at(1)) > 4e9);
        let other = Ewma::default();
        other.add(0, at(1));
        assert!(other.at(at(1)) > 0.0);
    }
}
