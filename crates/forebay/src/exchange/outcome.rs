//! The end of an exchange: what came of it, and who is told.
//!
//! An exchange is over when its [`Lease`](super::Lease) is dropped, on whatever way out: answered,
//! broken off, panicked, or cut at the stop of the server. The protocol has noted by then what it
//! has sent ([`Outcome`]).

use std::sync::Arc;

use forebay_sys::clock;

use super::{Cached, Exchange, Reason};
use crate::access;
use crate::counters::SiteCounts;
use crate::upstream::Upstream;

/// The status that is logged for an exchange whose client left before it was answered: none was
/// sent. The number that nginx has made usual.
pub const CLIENT_LEFT: u16 = 499;

/// What came of an exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// The status that was sent; 0 while none is.
    pub status: u16,
    /// How many bytes of the body were sent.
    pub bytes: u64,
    /// Why this is not what was asked for, if a failure was the cause.
    pub fault: Option<Reason>,
    /// What a cache has made of it; none: it has come to none.
    pub cached: Option<Cached>,
}

/// The peer that an exchange was passed on to.
#[derive(Clone)]
pub struct Peered {
    upstream: Arc<Upstream>,
    peer: usize,
}

impl Exchange {
    /// Notes that it is passed on to this peer.
    pub fn set_peer(&mut self, upstream: &Arc<Upstream>, peer: usize) {
        self.peer = Some(Peered {
            upstream: upstream.clone(),
            peer,
        });
    }

    /// The peer that it was passed on to last.
    pub fn peered(&self) -> Option<&Peered> {
        self.peer.as_ref()
    }

    /// Notes that another exchange was passed on to this peer on its behalf.
    pub fn set_peered(&mut self, peer: Peered) {
        self.peer = Some(peer);
    }

    /// Notes that who was asked has not answered it.
    pub fn forget_peer(&mut self) {
        self.peer = None;
    }

    /// The peer that it was passed on to last, as it is written in the configuration.
    pub fn peer_label(&self) -> Option<&str> {
        let Peered { upstream, peer } = self.peer.as_ref()?;
        upstream.peers.get(*peer).map(|peer| &*peer.label)
    }

    /// From here on it takes time that is worth measuring.
    pub fn begin_waiting(&mut self) {
        self.waits_since_ns = clock::precise_ns();
        self.looked_ns = self.waits_since_ns;
    }

    /// The same where nobody has said so.
    pub(super) fn begin_waiting_unless_begun(&mut self) {
        if self.waits_since_ns == 0 {
            self.begin_waiting();
        }
    }

    /// A step of this kind has waited until now, since the waiting began or another step's ended.
    pub(super) fn note_wait(&mut self, kind: u8) {
        let now_ns = clock::precise_ns();
        let us = now_ns.saturating_sub(self.looked_ns) / 1_000;
        self.worker.counters.step_waited(kind, us);
        self.looked_ns = now_ns;
        self.looked_in_turn = self.worker.turn();
    }

    /// How long it has taken so far, in microseconds. One that was answered in the turn in which it
    /// came has taken none: the clock is not read for it.
    pub fn duration_us(&self) -> u64 {
        match self.waits_since_ns {
            0 => self.worker.turn_ms().saturating_sub(self.started_ms) * 1_000,
            since => {
                // A response that leaves in the turn in which a step has had it took no longer.
                let now_ns = match self.looked_in_turn == self.worker.turn() {
                    true => self.looked_ns,
                    false => clock::precise_ns(),
                };
                now_ns.saturating_sub(since) / 1_000
            }
        }
    }

    /// Lets go of its site, whose configuration a slow download must not keep in memory; who is
    /// to be told of the end stays known.
    pub fn release_site(&mut self) {
        if let Some(site) = self.site.take() {
            self.counts = Some(site.counts.clone());
        }
    }

    fn counts(&self) -> Option<&SiteCounts> {
        match &self.site {
            Some(site) => Some(&site.counts),
            None => self.counts.as_deref(),
        }
    }

    /// The name of the site that answers; empty where none does.
    pub fn site_name(&self) -> &str {
        self.counts().map_or("", |counts| &counts.name)
    }

    /// It is over.
    pub(super) fn end(&mut self) {
        // An errand is no client's request, and counted by whoever sent it out.
        if !self.is_errand {
            let worker = &self.worker;
            if let Some(listener) = &self.listener {
                listener.durations.note(self.duration_us());
            }
            if let Some(counts) = self.counts() {
                counts.note(worker, self.outcome.status, self.outcome.bytes);
                if let Some(cached) = self.outcome.cached {
                    counts.note_cached(worker, cached, self.outcome.bytes);
                }
            }
        }
        if !self.logs.is_empty() {
            access::write_lines(self);
        }
    }
}
