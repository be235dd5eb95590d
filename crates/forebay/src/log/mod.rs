//! The error log: events to standard error.
//!
//! What a remote can cause again and again is logged through a [`Throttle`]: one line a second, and
//! in it how many were dropped since the last.

mod split;
mod stderr;

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use forebay_sys::clock;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::exchange::{Fault, Party, Reason};

pub use split::Split;
pub use stderr::{detach, dropped, flush};

/// How much is logged, from little to much: the words of `server { log = … }`.
pub const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// What a line is: the words of `server { log_format = … }`.
pub const FORMATS: [&str; 2] = ["text", "json"];

type Handle = reload::Handle<LevelFilter, Registry>;

/// What changes the level of the running server.
static LEVEL: OnceLock<Handle> = OnceLock::new();

fn filter_of(level: &str) -> LevelFilter {
    match level {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        _ => LevelFilter::INFO,
    }
}

/// Starts logging; `level` is one of [`LEVELS`], `format` one of [`FORMATS`]. Once per process.
pub fn start(level: &str, format: &str) {
    let (filter, handle) = reload::Layer::new(filter_of(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| stderr::Lines)
        .with_target(false);
    let subscriber = tracing_subscriber::registry().with(filter);
    // A second start, as in tests, changes nothing.
    let started = match format {
        "json" => subscriber.with(lines.json().flatten_event(true)).try_init(),
        _ => {
            let in_color = std::io::stderr().is_terminal();
            subscriber.with(lines.with_ansi(in_color)).try_init()
        }
    };
    if started.is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Logs as much as this from now on.
pub fn set_level(level: &str) {
    if let Some(handle) = LEVEL.get() {
        // It fails only when the log has ended, with the process.
        let _ = handle.modify(|filter| *filter = filter_of(level));
    }
}

/// How much is logged now.
pub fn level() -> &'static str {
    let filter = LEVEL
        .get()
        .and_then(|handle| handle.with_current(|f| *f).ok());
    let is_it = |level: &&&str| filter == Some(filter_of(level));
    LEVELS.iter().find(is_it).copied().unwrap_or("info")
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

/// Lets some events a second through.
pub struct Ration {
    most: u64,
    second: AtomicU64,
    used: AtomicU64,
    dropped: AtomicU64,
}

impl Ration {
    /// So many in a second.
    pub const fn new(most: u64) -> Ration {
        Ration {
            most,
            second: AtomicU64::new(0),
            used: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether an event may be logged now: then how many were not since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(clock::coarse_ms() / 1000 + 1)
    }

    fn pass_at(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Relaxed) != second {
            self.used.store(0, Relaxed);
        }
        if self.used.fetch_add(1, Relaxed) >= self.most {
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

    #[test]
    fn some_lines_a_second_and_a_count_of_the_others() {
        let ration = Ration::new(2);
        let passed = [5, 5, 5, 5, 6, 6, 6].map(|second| ration.pass_at(second));
        let expected = [Some(0), Some(0), None, None, Some(2), Some(0), None];
        assert_eq!(passed, expected);
    }
}
