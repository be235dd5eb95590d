//! What a peer is at the moment: in service or not, and why.
//!
//! Three things take a peer out, and each only itself brings it back: its failures (for a time), its
//! health checks, and an operator. All are flags of one word, changed in one place
//! ([`Pool::flag`]), which keeps the counts of the pool right whoever changes what at the same time.

use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::time::Duration;

use crate::peer::{BACKUP, DOWN, DRAINED, EJECTED, GONE, OFF, WARMING};
use crate::pool::Pool;
use crate::units::Tick;

/// How a request to a peer ended, for its ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It answered, whatever it said.
    Success,
    /// It did not: no connection, a reset, a timeout, garbage. What the client did is never one.
    Failure,
}

/// What [`Pool::report`] has to say about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// The peer is ejected from now until then.
    Ejected {
        /// When it comes back.
        until: Tick,
    },
    /// It has failed often enough, but as many as `max` allows are ejected already.
    Spared,
}

/// What the health checks of a peer say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checked {
    /// It answers as it should.
    Well,
    /// It is there, and does not answer as it should, or not in time. It may have too much to do.
    Unwell,
    /// Nobody is there. It is never used.
    Gone,
}

/// What an operator has a peer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    /// What all do.
    Serve,
    /// Serve only the clients that belong to it ([`Pool::acquire_at`]).
    Drain,
    /// Nothing.
    Rest,
}

/// What a peer is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// It is used.
    Up,
    /// It is used, and gets less than its share yet: `slow_start`.
    Warming,
    /// Its failures have ejected it for a time.
    Ejected,
    /// Its health checks fail.
    Down,
    /// An operator has it serve the clients that belong to it and no others.
    Draining,
    /// An operator has taken it out.
    Off,
}

/// A peer as status pages and metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// What it is.
    pub state: PeerState,
    /// Requests in flight.
    pub in_flight: u32,
    /// How often it was ejected.
    pub ejections: u32,
    /// Failures in a row.
    pub errors: u32,
}

/// With a smaller share of the primaries well, those that are not are used, too: to send everything
/// to the few would put them out as well. The figure is Envoy's (`healthy_panic_threshold`).
const PANIC_PERCENT: u64 = 50;

impl Pool {
    /// Tells how a request to a peer ended. A failure that ejects the peer, or would, is
    /// returned, to be logged.
    pub fn report(&self, peer: usize, outcome: Outcome, now: Tick) -> Option<Ejection> {
        let eject = self.spec.eject?;
        let cold = self.cold.get(peer)?;
        if outcome == Outcome::Success {
            // Nearly always so already, and then the line stays shared between the workers.
            if cold.errors.load(Relaxed) != 0 {
                cold.errors.store(0, Relaxed);
            }
            return None;
        }
        // What fails while it is ejected was sent before, or for want of others: it does not
        // make the ejection longer.
        if self.flags_at(peer, now) & EJECTED != 0 {
            return None;
        }
        let errors = cold.errors.fetch_add(1, Relaxed).saturating_add(1);
        if errors < eject.errors.max(1) {
            return None;
        }
        self.eject(peer, eject.time, now)
    }

    /// Tells what the health checks of a peer say. Returns whether it goes or comes by that.
    pub fn set_health(&self, peer: usize, checked: Checked, now: Tick) -> bool {
        let (Some(hot), Some(cold)) = (self.hot.get(peer), self.cold.get(peer)) else {
            return false;
        };
        match checked {
            Checked::Gone => self.flag(peer, DOWN | GONE, 0) & DOWN == 0,
            Checked::Unwell => self.flag(peer, DOWN, GONE) & DOWN == 0,
            Checked::Well if hot.flags.load(Relaxed) & DOWN == 0 => false,
            Checked::Well => {
                cold.errors.store(0, Relaxed);
                self.bring_back(peer, DOWN | GONE, now) & DOWN != 0
            }
        }
    }

    /// Does what an operator says of a peer. To serve is to serve at once: it ends an ejection.
    /// Returns whether that is a change.
    pub fn set_duty(&self, peer: usize, duty: Duty, now: Tick) -> bool {
        let (Some(hot), Some(cold)) = (self.hot.get(peer), self.cold.get(peer)) else {
            return false;
        };
        let out = DRAINED | OFF;
        match duty {
            Duty::Drain => self.flag(peer, DRAINED, OFF) & out != DRAINED,
            Duty::Rest => self.flag(peer, OFF, DRAINED) & out != OFF,
            Duty::Serve if hot.flags.load(Relaxed) & (out | EJECTED) == 0 => false,
            Duty::Serve => {
                cold.errors.store(0, Relaxed);
                self.bring_back(peer, out | EJECTED, now) & (out | EJECTED) != 0
            }
        }
    }

    /// What an operator has it do.
    pub fn duty(&self, peer: usize) -> Duty {
        match self.hot.get(peer).map(|hot| hot.flags.load(Relaxed)) {
            Some(flags) if flags & OFF != 0 => Duty::Rest,
            Some(flags) if flags & DRAINED != 0 => Duty::Drain,
            _ => Duty::Serve,
        }
    }

    /// A peer as it is now.
    ///
    /// # Panics
    ///
    /// If there is no peer of this number.
    pub fn view(&self, peer: usize, now: Tick) -> PeerView {
        let (hot, cold) = (&self.hot[peer], &self.cold[peer]);
        let flags = self.flags_at(peer, now);
        let state = match flags {
            _ if flags & OFF != 0 => PeerState::Off,
            _ if flags & DOWN != 0 => PeerState::Down,
            _ if flags & DRAINED != 0 => PeerState::Draining,
            _ if flags & EJECTED != 0 => PeerState::Ejected,
            _ if flags & WARMING != 0 => PeerState::Warming,
            _ => PeerState::Up,
        };
        PeerView {
            state,
            in_flight: hot.permits.used(),
            ejections: cold.ejections.load(Relaxed),
            errors: cold.errors.load(Relaxed),
        }
    }

    /// Whether too few primaries are well. Those that an operator has taken out do not count: they
    /// are out because somebody knows better.
    pub fn is_panicking(&self) -> bool {
        let (serving, well) = (self.serving.load(Relaxed), self.well.load(Relaxed));
        u64::from(well) * 100 < u64::from(serving) * PANIC_PERCENT
    }

    /// Takes off the flags whose time is over.
    pub(crate) fn settle_flags(&self, now: Tick) {
        if now.as_millis() < self.due.load(Relaxed) {
            return;
        }
        // A flag that is set from here on is either seen below, or lowers this after it.
        self.due.swap(u64::MAX, AcqRel);
        for (peer, cold) in self.cold.iter().enumerate() {
            let flags = self.flags_at(peer, now);
            if flags & EJECTED != 0 {
                self.due
                    .fetch_min(cold.ejected_until.load(Relaxed), Relaxed);
            }
            if flags & WARMING != 0 {
                let since = Tick::from_millis(cold.warm_since.load(Relaxed));
                let until = since + self.spec.slow_start;
                self.due.fetch_min(until.as_millis(), Relaxed);
            }
        }
    }

    /// The flags of a peer, once those whose time is over have been taken off.
    pub(crate) fn flags_at(&self, peer: usize, now: Tick) -> u32 {
        let (hot, cold) = (&self.hot[peer], &self.cold[peer]);
        let flags = hot.flags.load(Relaxed);
        if flags & (EJECTED | WARMING) == 0 {
            return flags;
        }
        if flags & EJECTED != 0 && cold.ejected_until.load(Relaxed) <= now.as_millis() {
            self.bring_back(peer, EJECTED, now);
        }
        if hot.flags.load(Relaxed) & WARMING != 0 {
            let since = Tick::from_millis(cold.warm_since.load(Relaxed));
            if now.since(since) >= self.spec.slow_start {
                self.flag(peer, 0, WARMING);
            }
        }
        hot.flags.load(Relaxed)
    }

    /// Tells that there is another server in the place of a peer: it warms up, if there is a
    /// `slow_start`.
    pub fn warm_up(&self, peer: usize, now: Tick) {
        if peer < self.len() && self.spec.slow_start > Duration::ZERO {
            self.bring_back(peer, 0, now);
        }
    }

    /// Takes off what keeps a peer out; from then on it warms up, if there is a `slow_start`. Returns
    /// the flags that it had.
    fn bring_back(&self, peer: usize, flags: u32, now: Tick) -> u32 {
        if self.spec.slow_start == Duration::ZERO {
            return self.flag(peer, 0, flags);
        }
        self.cold[peer].warm_since.store(now.as_millis(), Relaxed);
        let before = self.flag(peer, WARMING, flags);
        let until = now + self.spec.slow_start;
        self.due.fetch_min(until.as_millis(), Release);
        before
    }

    /// None if another worker was faster, to which it is told.
    fn eject(&self, peer: usize, time: Duration, now: Tick) -> Option<Ejection> {
        // Those whose time is over must not keep this one in.
        for other in 0..self.len() {
            self.flags_at(other, now);
        }
        let room = |ejected: u32| (ejected < self.max_ejected).then_some(ejected + 1);
        if self.ejected.fetch_update(Relaxed, Relaxed, room).is_err() {
            return Some(Ejection::Spared);
        }
        let cold = &self.cold[peer];
        let until = now + time;
        cold.ejected_until.store(until.as_millis(), Relaxed);
        cold.errors.store(0, Relaxed);
        if self.flag(peer, EJECTED, 0) & EJECTED != 0 {
            // Another worker was faster; the room it took is enough.
            self.ejected.fetch_sub(1, Relaxed);
            self.due.fetch_min(until.as_millis(), Release);
            return None;
        }
        cold.ejections.fetch_add(1, Relaxed);
        self.due.fetch_min(until.as_millis(), Release);
        Some(Ejection::Ejected { until })
    }

    /// Sets and takes off flags of a peer in one step; whoever changes one counts. Returns the flags
    /// that it had. Room for an ejection has been taken before.
    fn flag(&self, peer: usize, set: u32, clear: u32) -> u32 {
        let change = |flags: u32| flags & !clear | set;
        let flags = &self.hot[peer].flags;
        let before = flags
            .fetch_update(Relaxed, Relaxed, |flags| Some(change(flags)))
            .unwrap_or_else(|flags| flags);
        let after = change(before);
        let (gained, lost) = (after & !before, before & !after);
        if lost & EJECTED != 0 {
            self.ejected.fetch_sub(1, Relaxed);
        }
        for (count, is, was) in [
            (&self.warming, gained & WARMING != 0, lost & WARMING != 0),
            (&self.serving, is_serving(after), is_serving(before)),
            (&self.well, is_well(after), is_well(before)),
        ] {
            match (was, is) {
                (false, true) => _ = count.fetch_add(1, Relaxed),
                (true, false) => _ = count.fetch_sub(1, Relaxed),
                _ => {}
            }
        }
        self.changed(peer);
        before
    }
}

/// A primary that no operator has taken out.
pub(crate) fn is_serving(flags: u32) -> bool {
    flags & (BACKUP | DRAINED | OFF) == 0
}

/// One of those that can be used.
pub(crate) fn is_well(flags: u32) -> bool {
    is_serving(flags) && flags & (DOWN | EJECTED) == 0
}
