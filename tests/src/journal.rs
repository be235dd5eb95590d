//! Who sent what and when, kept so that a test that fails can show both sides' bytes.
//!
//! Every test thread has one journal; whatever the test starts (clients, origins, servers) writes to
//! the journal of the thread that made it and prints it once if it is dropped by a panic.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Events kept from the beginning, and as many from the end: what lies between is only counted.
const KEEP_EVENTS: usize = 300;
/// Bytes shown of one piece, from its beginning and from its end.
const SHOW_BYTES: (usize, usize) = (2048, 256);

/// What happened, in order.
pub struct Journal {
    start: Instant,
    names: AtomicUsize,
    printed: AtomicBool,
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    first: Vec<String>,
    last: VecDeque<String>,
    dropped: u64,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Journal>>> = const { RefCell::new(None) };
}

/// Locks without caring for a panic elsewhere: what was written before it is what we want to see.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// This thread's journal.
    #[must_use]
    pub fn current() -> Arc<Self> {
        CURRENT.with(|slot| {
            let mut slot = slot.borrow_mut();
            let journal = slot.get_or_insert_with(|| {
                Arc::new(Self {
                    start: Instant::now(),
                    names: AtomicUsize::new(0),
                    printed: AtomicBool::new(false),
                    events: Mutex::default(),
                })
            });
            Arc::clone(journal)
        })
    }

    /// A number that nobody else in this journal has.
    pub(crate) fn number(&self) -> usize {
        self.names.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Writes down a sentence.
    pub fn note(&self, who: &str, what: &str) {
        let line = format!(
            "{:>9.3} {who} {what}",
            self.start.elapsed().as_secs_f64() * 1000.0
        );
        let mut events = lock(&self.events);
        if events.first.len() < KEEP_EVENTS {
            events.first.push(line);
            return;
        }
        events.last.push_back(line);
        if events.last.len() > KEEP_EVENTS {
            events.last.pop_front();
            events.dropped += 1;
        }
    }

    /// Writes down bytes that went in the direction of `arrow`.
    pub fn bytes(&self, who: &str, arrow: &str, bytes: &[u8]) {
        self.note(who, &format!("{arrow} {} B {}", bytes.len(), escape(bytes)));
    }

    /// Prints everything to standard error if this thread is panicking; once.
    pub fn print_if_panicking(&self) {
        if !std::thread::panicking() || self.printed.swap(true, Ordering::Relaxed) {
            return;
        }
        let events = lock(&self.events);
        let mut text = String::from("--- what was said (ms) ---\n");
        for line in &events.first {
            text.push_str(line);
            text.push('\n');
        }
        if events.dropped > 0 {
            let _ = writeln!(text, "          … {} more …", events.dropped);
        }
        for line in &events.last {
            text.push_str(line);
            text.push('\n');
        }
        eprintln!("{text}---");
    }
}

/// Bytes as a reader can see them: `\r`, `\n` and whatever is not printable escaped, the middle of
/// a long piece left out.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let (head, tail) = SHOW_BYTES;
    if bytes.len() <= head + tail {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    format!(
        "\"{}\" … \"{}\"",
        bytes[..head].escape_ascii(),
        bytes[bytes.len() - tail..].escape_ascii()
    )
}
