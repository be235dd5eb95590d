//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long anything that happens at once may take before a test gives up: on a machine of two cores
/// with eight cases and two compilers at work some of it has taken ten seconds. Nothing is proven by
/// less, as who waits for a condition goes on once it holds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `probe` until it gives a value, and returns it.
///
/// # Panics
/// When [`PATIENCE`] is over; the message says `what` was waited for.
#[track_caller]
pub fn until_some<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    until_some_within(PATIENCE, what, probe)
}

/// As [`until_some`], with a time of its own.
///
/// # Panics
/// When `patience` is over.
#[track_caller]
pub fn until_some_within<T>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {patience:?} in vain for {what}"
        );
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Calls `probe` until it is true.
///
/// # Panics
/// When [`PATIENCE`] is over.
#[track_caller]
pub fn until(what: &str, mut probe: impl FnMut() -> bool) {
    until_some(what, || probe().then_some(()));
}

/// As [`until`], with a time of its own.
///
/// # Panics
/// When `patience` is over.
#[track_caller]
pub fn until_within(patience: Duration, what: &str, mut probe: impl FnMut() -> bool) {
    until_some_within(patience, what, || probe().then_some(()));
}
