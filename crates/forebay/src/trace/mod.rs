//! What is said to FastCGI applications, for whom it may concern: `forebay fcgi-trace`.
//!
//! ```text
//!   a step with `trace = true` ─▶ Offered            a client of the admin socket ─▶ watch()
//!        │ somebody watches                                                             │
//!        ▼                                                                              ▼
//!   Tap, of one request ── frames, while there is room ── one bounded queue each ──▶ the client
//! ```
//!
//! Nobody waits for who looks on: a queue that is full costs that one the rest of a request.

mod frames;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, Receiver, Sender};

pub use frames::{Frame, MAGIC, Passed, Time, Who, read_full};

/// Who may look on at once.
const MAX_WATCHERS: usize = 4;
/// Frames that wait for one of them; of at most 64 KiB each.
const QUEUE: usize = 256;
/// Connections that one of them is told of having missed.
const MAX_MISSED: usize = 1024;

/// Whether anybody looks on: one look at this is all that a request costs otherwise.
static WATCHED: AtomicBool = AtomicBool::new(false);
static WATCHERS: Mutex<Vec<Watcher>> = Mutex::new(Vec::new());
static OFFERED: AtomicUsize = AtomicUsize::new(0);

/// One who looks on, as those who tell see it.
#[derive(Clone)]
struct Watcher {
    frames: Sender<Frame>,
    missed: Missed,
}

/// The connections of which one who looks on has missed the rest.
type Missed = Arc<Mutex<Vec<u32>>>;

/// One who looks on.
pub struct Watching {
    frames: Receiver<Frame>,
    missed: Missed,
}

/// Held by a step whose conversations may be looked at.
#[derive(Debug)]
pub struct Offered(());

impl Offered {
    /// They may be.
    pub fn new() -> Offered {
        OFFERED.fetch_add(1, Ordering::Relaxed);
        Offered(())
    }

    /// Looks on at one request, if anybody wants to see it; `between` says of whom.
    pub fn tap(&self, between: impl FnOnce() -> String) -> Option<Box<Tap>> {
        if !WATCHED.load(Ordering::Relaxed) {
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut tap = Box::new(Tap {
            connection: NUMBER.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
            watchers: WATCHERS.lock().clone(),
        });
        tap.tell(&Passed::Opened(between()));
        Some(tap)
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        OFFERED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why nobody can look on.
#[derive(Debug, PartialEq, Eq)]
pub enum Unwatchable {
    /// No step offers it.
    NotOffered,
    /// As many look on as may.
    Crowded,
}

impl Unwatchable {
    /// What to do, in a line.
    pub fn sentence(&self) -> &'static str {
        match self {
            Unwatchable::NotOffered => {
                "no step offers its conversations: write `fastcgi … { trace = true }`, and reload\n"
            }
            Unwatchable::Crowded => "four look on already, and no more may at once\n",
        }
    }
}

/// Looks on from now on, until it is dropped.
pub fn watch() -> Result<Watching, Unwatchable> {
    if OFFERED.load(Ordering::Relaxed) == 0 {
        return Err(Unwatchable::NotOffered);
    }
    let mut watchers = WATCHERS.lock();
    watchers.retain(|one| !one.frames.is_closed());
    if watchers.len() >= MAX_WATCHERS {
        return Err(Unwatchable::Crowded);
    }
    let (sender, frames) = mpsc::channel(QUEUE);
    let missed = Missed::default();
    watchers.push(Watcher {
        frames: sender,
        missed: missed.clone(),
    });
    WATCHED.store(true, Ordering::Relaxed);
    Ok(Watching { frames, missed })
}

impl Watching {
    /// Waits for what passes next, and takes what else has passed.
    pub async fn next(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.frames.recv_many(&mut frames, QUEUE).await;
        for connection in std::mem::take(&mut *self.missed.lock()) {
            let why = "the output was read too slowly".to_owned();
            for what in [Passed::Gap(why), Passed::Closed] {
                frames.push(Frame {
                    time: now(),
                    connection,
                    what,
                });
            }
        }
        frames
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.frames.close();
        let mut watchers = WATCHERS.lock();
        watchers.retain(|one| !one.frames.is_closed());
        WATCHED.store(!watchers.is_empty(), Ordering::Relaxed);
    }
}

/// Looks on at one request.
pub struct Tap {
    connection: u32,
    /// Those who see it from its beginning, and have not missed any of it.
    watchers: Vec<Watcher>,
}

impl Tap {
    /// Bytes that were sent by one of both.
    pub fn bytes(&mut self, who: Who, bytes: &[u8]) {
        if self.watchers.is_empty() {
            return;
        }
        for piece in bytes.chunks(frames::MAX_LEN) {
            self.tell(&Passed::Bytes(who, Bytes::copy_from_slice(piece)));
        }
    }

    fn tell(&mut self, what: &Passed) {
        let frame = Frame {
            time: now(),
            connection: self.connection,
            what: what.clone(),
        };
        // A part of a record can't be understood: who has missed some sees no more of this request.
        self.watchers.retain(|one| {
            let is_told = one.frames.try_send(frame.clone()).is_ok();
            if !is_told {
                let mut missed = one.missed.lock();
                // Whoever does not read at all is not told of each.
                if missed.len() < MAX_MISSED {
                    missed.push(frame.connection);
                }
            }
            is_told
        });
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.tell(&Passed::Closed);
    }
}

/// Microseconds since 1970.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}
