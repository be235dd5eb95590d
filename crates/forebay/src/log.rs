//! The error log: events to standard error.
//!
//! What a remote can cause again and again is logged through a [`Throttle`]: one line a second, and
//! in it how many were dropped since the last.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use forebay_sys::clock;
use tracing_subscriber::filter::LevelFilter;

use crate::exchange::{Fault, Party, Reason};

/// Starts logging; `level` is one of the words of `server { log = … }`. Once per process.
pub fn start(level: &str) {
    let level = match level {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        _ => LevelFilter::INFO,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start, as in tests, changes nothing.
    let _ = subscriber.try_init();
}

/// Lets one event a second through.
pub struct Throttle {
    /// The second of the last one that passed.
    last: AtomicU64,
    dropped: AtomicU64,
}

impl Throttle {
    /// One that has let nothing through yet.
    pub const fn new() -> Throttle {
        Throttle {
            last: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether an event may be logged now: then how many were not since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(clock::coarse_ms() / 1000 + 1)
    }

    fn pass_at(&self, second: u64) -> Option<u64> {
        // Of several workers in the same second, one gets through.
        if self.last.swap(second, Relaxed) == second {
            self.dropped.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.dropped.swap(0, Relaxed))
    }
}

/// Logs why an exchange failed: what upstreams, the operator or we have done as a warning, what
/// clients do for whoever debugs.
pub fn fault(fault: &Fault, site: &str) {
    static LOG: [Throttle; Reason::ALL.len()] = [const { Throttle::new() }; Reason::ALL.len()];
    if fault.reason.by() == Party::Client {
        tracing::debug!(site, reason = fault.reason.name(), "{fault}");
        return;
    }
    if let Some(dropped) = LOG[fault.reason as usize].pass() {
        tracing::warn!(site, reason = fault.reason.name(), dropped, "{fault}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_a_count_of_the_others() {
        let throttle = Throttle::new();
        assert_eq!(throttle.pass_at(5), Some(0));
        assert_eq!(throttle.pass_at(5), None);
        assert_eq!(throttle.pass_at(5), None);
        assert_eq!(throttle.pass_at(6), Some(2));
        assert_eq!(throttle.pass_at(7), Some(0));
    }
}
