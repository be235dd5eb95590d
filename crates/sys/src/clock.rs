//! Clocks that cost a few nanoseconds: read from the vDSO, without a system call.
//!
//! All times count from the same points as the precise clocks (`CLOCK_MONOTONIC`: the machine's
//! start; `CLOCK_REALTIME`: 1970), so coarse and precise readings can be compared: a coarse one
//! lags behind by at most one tick of the kernel (1–10 ms) and never runs ahead.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine started, without the time it was suspended; behind the precise
/// clock by up to one kernel tick (4 ms at 250 Hz). Never goes backwards.
#[must_use]
pub fn coarse_ms() -> u64 {
    millis(COARSE_MONOTONIC)
}

/// Milliseconds on the same scale as [`coarse_ms`], precise (rounded down). Costs about 20 ns.
#[must_use]
pub fn precise_ms() -> u64 {
    millis(ClockId::Monotonic)
}

/// Nanoseconds on the same scale, precise: for what happens more often than the coarse clock ticks.
/// Costs about 20 ns. 64 bits of them last for 584 years.
#[must_use]
pub fn precise_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds: for `Date` and for comparing file
/// times. May jump when the machine's clock is set. A clock before 1970 reads as 0.
#[must_use]
pub fn coarse_unix_seconds() -> u64 {
    u64::try_from(clock_gettime(COARSE_REALTIME).tv_sec).unwrap_or(0)
}

/// The same in milliseconds, as coarse as the kernel's tick.
#[must_use]
pub fn coarse_unix_ms() -> u64 {
    millis(COARSE_REALTIME)
}

fn millis(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Neither part is negative, but before 1970.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanos / 1_000_000
}

#[cfg(target_os = "linux")]
const COARSE_MONOTONIC: ClockId = ClockId::MonotonicCoarse;
#[cfg(target_os = "linux")]
const COARSE_REALTIME: ClockId = ClockId::RealtimeCoarse;
#[cfg(not(target_os = "linux"))]
const COARSE_MONOTONIC: ClockId = ClockId::Monotonic;
#[cfg(not(target_os = "linux"))]
const COARSE_REALTIME: ClockId = ClockId::Realtime;

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn coarse_lags_by_at_most_a_tick_and_never_leads() {
        let mut lags = Vec::new();
        for _ in 0..1_000 {
            let before = precise_ms();
            let coarse = coarse_ms();
            let after = precise_ms();
            assert!(coarse <= after, "coarse {coarse} ahead of {after}");
            lags.push(before.saturating_sub(coarse));
        }
        // 10 ms is a tick at 100 Hz. A virtual machine's tick comes late where its host has other
        // things to do, but not always.
        lags.sort_unstable();
        assert!(lags[lags.len() / 2] <= 10, "{lags:?}");
    }

    #[test]
    fn neither_clock_goes_backwards() {
        let (mut coarse, mut precise) = (0, 0);
        let start = Instant::now();
        while start.elapsed().as_millis() < 20 {
            let (c, p) = (coarse_ms(), precise_ms());
            assert!(c >= coarse && p >= precise);
            (coarse, precise) = (c, p);
        }
    }

    #[test]
    fn unix_seconds_are_those_of_the_standard_library() {
        let before = coarse_unix_seconds();
        let std = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(before <= std && std <= before + 1, "{before} {std}");
    }
}
