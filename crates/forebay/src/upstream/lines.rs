//! What all workers know of the connections to one FastCGI application.
//!
//! A process of php-fpm, as of most FastCGI applications, belongs to one connection for as long as that
//! is open, also while nothing is asked on it. So kept connections are a danger: a new one waits, with
//! a request already sent, for a process that will be free only when somebody closes another one; and
//! nobody can see that it waits, since the kernel has accepted it. With two processes and two workers a
//! site could stand still until the kept connections come of age.
//!
//! Nor can it be seen how many processes there are. So as long as new connections are answered at once,
//! all are kept; one that is not answered in [`PATIENCE_MS`] makes the application pass for tight, for
//! [`TIGHT_MS`]. Then:
//!
//! ```text
//!   a request needs a new connection ─▶ one that is kept, here or by another worker, is closed
//!   a request is over, and some connection has not been answered yet ─▶ its own is closed, not kept
//! ```
//!
//! So there are never more connections than there were requests at once, and no request waits for long
//! for a process that only keeps a connection. (A process of this server's own is a peer of its own, and
//! is always tight.) Always to do so would cost a busy application with room
//! enough a connection per request: of those that begin together, each is closed for the next one's
//! sake. An application that is slow passes for tight, too; to it, a connection is nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Upstream;
use crate::worker::{Mail, Process};

/// Workers are told apart by this many bits.
const BITS: usize = 64;

/// A new connection that is not answered for so long may wait for a process. Pages that are made faster
/// are those that a connection for each would weigh on.
pub const PATIENCE_MS: u64 = 10;

/// So long an application passes for tight: who has waited once should not have to often.
const TIGHT_MS: u64 = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Lines {
    /// New connections from which nothing has come yet.
    unheard: AtomicU32,
    /// The workers that keep connections, as bits.
    kept_by: AtomicU64,
    /// Until when the application passes for tight.
    tight_until_ms: AtomicU64,
}

impl Lines {
    /// Those to an application of a single process: no second connection is answered beside a kept one.
    pub fn of_one_process() -> Lines {
        Lines {
            tight_until_ms: AtomicU64::new(u64::MAX),
            ..Lines::default()
        }
    }

    /// Whether there may be no more processes than connections.
    pub fn is_tight(&self, now_ms: u64) -> bool {
        now_ms < self.tight_until_ms.load(Ordering::SeqCst)
    }

    /// Whether some connection may be waiting for a process.
    pub fn is_waited_for(&self, now_ms: u64) -> bool {
        self.is_tight(now_ms) && self.unheard.load(Ordering::SeqCst) > 0
    }

    /// A new connection was not answered in time.
    pub fn tighten(&self, now_ms: u64) {
        let until_ms = now_ms.saturating_add(TIGHT_MS);
        self.tight_until_ms.fetch_max(until_ms, Ordering::SeqCst);
    }

    /// Notes whether a worker keeps any connections.
    pub fn set_kept_by(&self, worker: usize, keeps: bool) {
        let bit = 1 << (worker % BITS);
        if keeps {
            self.kept_by.fetch_or(bit, Ordering::SeqCst);
        } else {
            self.kept_by.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Workers that may keep connections; those behind this one first, so that not always the same one
    /// is asked, and itself last.
    fn keepers(&self, worker: usize, workers: usize) -> impl Iterator<Item = usize> {
        let kept_by = self.kept_by.load(Ordering::SeqCst);
        (1..=workers)
            .map(move |step| (worker + step) % workers)
            .filter(move |other| kept_by & (1 << (other % BITS)) != 0)
    }
}

/// Has one of the workers behind this one close a connection that it keeps to a peer; at most `left`
/// are asked, each by the one before.
pub fn ask_for_room(
    upstream: &Upstream,
    peer: usize,
    process: &Process,
    worker: usize,
    left: usize,
) {
    let Some(mailboxes) = process.mailboxes.get() else {
        return;
    };
    let Some(left) = left.checked_sub(1) else {
        return;
    };
    let mut keepers = upstream.peers[peer].lines.keepers(worker, mailboxes.len());
    if let Some(mailbox) = keepers.next().and_then(|keeper| mailboxes.get(keeper)) {
        let upstream = upstream.id;
        // One whose mailbox is full has much to do, and so uses what it keeps.
        let _ = mailbox.try_send(Mail::MakeRoom {
            upstream,
            peer,
            left,
        });
    }
}

/// A new connection from which nothing has come yet, until this is dropped.
pub struct Unheard {
    upstream: Arc<Upstream>,
    peer: usize,
}

impl Unheard {
    /// One to this peer.
    pub fn new(upstream: &Arc<Upstream>, peer: usize) -> Unheard {
        let lines = &upstream.peers[peer].lines;
        lines.unheard.fetch_add(1, Ordering::SeqCst);
        Unheard {
            upstream: upstream.clone(),
            peer,
        }
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        let lines = &self.upstream.peers[self.peer].lines;
        lines.unheard.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_slow_once_is_tight() {
        let lines = Lines::default();
        lines.unheard.fetch_add(1, Ordering::SeqCst);
        assert!(!lines.is_tight(5) && !lines.is_waited_for(5));
        lines.tighten(5);
        lines.tighten(0);
        assert!(lines.is_tight(5) && lines.is_waited_for(4 + TIGHT_MS));
        assert!(!lines.is_tight(5 + TIGHT_MS) && !lines.is_waited_for(5 + TIGHT_MS));
        lines.unheard.fetch_sub(1, Ordering::SeqCst);
        assert!(!lines.is_waited_for(5));
        assert!(Lines::of_one_process().is_tight(u64::MAX - 1));
    }

    #[test]
    fn who_keeps_connections_is_asked_in_turn() {
        let lines = Lines::default();
        let asked = |worker| lines.keepers(worker, 4).collect::<Vec<_>>();
        assert!(asked(0).is_empty());
        for keeper in [0, 2, 3] {
            lines.set_kept_by(keeper, true);
        }
        assert_eq!(asked(0), [2, 3, 0]);
        assert_eq!(asked(1), [2, 3, 0]);
        assert_eq!(asked(2), [3, 0, 2]);
        lines.set_kept_by(3, false);
        assert_eq!(asked(2), [0, 2]);
    }
}
