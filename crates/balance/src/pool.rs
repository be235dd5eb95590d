//! A pool of peers: their permits and what becomes of their failures. How one is chosen stands in
//! `choose.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::Duration;

use crate::choose::{Ask, Chosen, NoPeer};
use crate::draw::Draw;
use crate::groups::{GROUP, Group, groups};
use crate::peer::{Cold, DOWN, EJECTED, Hot, STRIDE, WARMING};
use crate::spec::{Balance, MAX_CONNECTIONS, MAX_PEERS, MAX_WEIGHT, PeerSpec, PoolError, PoolSpec};
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

/// The state of a pool that all workers share.
#[derive(Debug)]
pub struct Pool {
    pub(crate) spec: PoolSpec,
    pub(crate) hot: Box<[Hot]>,
    pub(crate) cold: Box<[Cold]>,
    /// Of a large one.
    pub(crate) groups: Box<[Group]>,
    pub(crate) draw: Draw,
    /// The turn that was taken last.
    pub(crate) clock: AtomicU64,
    /// How many peers have the flag `EJECTED`.
    pub(crate) ejected: AtomicU32,
    /// How many have the flag `WARMING`.
    pub(crate) warming: AtomicU32,
    /// When the time of a flag is over next, in milliseconds.
    due: AtomicU64,
    max_ejected: u32,
}

impl Pool {
    /// A pool at its start: every peer up, nothing in flight.
    ///
    /// # Errors
    ///
    /// See [`PoolError`].
    pub fn new(spec: PoolSpec) -> Result<Pool, PoolError> {
        if spec.peers.is_empty() {
            return Err(PoolError::Empty);
        }
        if spec.peers.len() > MAX_PEERS {
            return Err(PoolError::TooManyPeers);
        }
        for (number, peer) in spec.peers.iter().enumerate() {
            if !(1..=MAX_WEIGHT).contains(&peer.weight) {
                return Err(PoolError::Weight(number));
            }
            if !(1..=MAX_CONNECTIONS).contains(&peer.max_connections) {
                return Err(PoolError::Connections(number));
            }
        }
        let unit = stride_unit(&spec.peers);
        let peers = u64::try_from(spec.peers.len()).unwrap_or(u64::MAX);
        let max_ejected = spec.eject.map_or(0, |eject| eject.max.of(peers));
        Ok(Pool {
            hot: (0..)
                .zip(&spec.peers)
                .map(|(number, peer)| Hot::new(number, peer, unit))
                .collect(),
            cold: spec.peers.iter().map(|_| Cold::default()).collect(),
            groups: groups(spec.peers.len()),
            draw: Draw::new(spec.balance, &spec.peers),
            clock: AtomicU64::new(0),
            ejected: AtomicU32::new(0),
            warming: AtomicU32::new(0),
            due: AtomicU64::new(u64::MAX),
            max_ejected: u32::try_from(max_ejected).unwrap_or(u32::MAX),
            spec,
        })
    }

    /// What it was made from.
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// How many peers it has.
    pub fn len(&self) -> usize {
        self.hot.len()
    }

    /// Never: a pool has a peer.
    pub fn is_empty(&self) -> bool {
        self.hot.is_empty()
    }

    /// Chooses a peer and takes one of its permits, which [`Pool::release`] gives back.
    ///
    /// # Errors
    ///
    /// See [`NoPeer`].
    pub fn acquire(&self, ask: &Ask) -> Result<Chosen, NoPeer> {
        match self.try_acquire(ask) {
            // Who waits in a queue by now must see a permit that was given back before its place
            // in the queue could be seen: see `WaitQueue`.
            Err(NoPeer::Full) => {
                fence(SeqCst);
                self.try_acquire(ask)
            }
            result => result,
        }
    }

    fn try_acquire(&self, ask: &Ask) -> Result<Chosen, NoPeer> {
        // Another worker may take the same peer at the same moment. Then this one looks again; but
        // not forever, a turn taken twice does no harm.
        for last_look in [false, false, true] {
            let (chosen, best) = self.look(ask)?;
            let hot = &self.hot[chosen.peer];
            if !hot.permits.try_acquire() {
                continue;
            }
            let is_right = self.take_turn(&best, ask.now) || last_look;
            if !is_right {
                hot.permits.release();
            }
            self.changed(chosen.peer);
            if is_right {
                return Ok(chosen);
            }
        }
        Err(NoPeer::Full)
    }

    /// Like [`Pool::acquire`], with a guard that gives the permit back.
    ///
    /// # Errors
    ///
    /// See [`NoPeer`].
    pub fn permit(self: &Arc<Self>, ask: &Ask) -> Result<Permit, NoPeer> {
        let chosen = self.acquire(ask)?;
        Ok(Permit {
            pool: Arc::clone(self),
            chosen,
        })
    }

    /// Chooses a peer, and changes nothing; for `explain`.
    ///
    /// # Errors
    ///
    /// See [`NoPeer`].
    pub fn choose(&self, ask: &Ask) -> Result<Chosen, NoPeer> {
        self.look(ask).map(|(chosen, _)| chosen)
    }

    /// Gives back a permit that [`Pool::acquire`] took. Whoever does so must then look whether
    /// somebody waits, see [`WaitQueue`](crate::WaitQueue). That the peer was full until now is
    /// returned, but as a hint only: of two that give back at the same moment one may miss it.
    pub fn release(&self, peer: usize) -> bool {
        let Some(hot) = self.hot.get(peer) else {
            return false;
        };
        let was_full = hot.permits.is_full();
        hot.permits.release();
        self.changed(peer);
        was_full
    }

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
        (errors >= eject.errors.max(1)).then(|| self.eject(peer, eject.time, now))
    }

    /// Tells how long a peer took to answer, for [`Balance::P2cEwma`].
    pub fn report_time(&self, peer: usize, took: Duration, now: Tick) {
        if self.spec.balance == Balance::P2cEwma
            && let Some(cold) = self.cold.get(peer)
        {
            let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            cold.ewma.add(micros, now);
        }
    }

    /// Tells what the health checks of a peer say. Returns whether that is a change.
    pub fn set_down(&self, peer: usize, down: bool, now: Tick) -> bool {
        let (Some(hot), Some(cold)) = (self.hot.get(peer), self.cold.get(peer)) else {
            return false;
        };
        if down {
            let before = hot.flags.fetch_or(DOWN, Relaxed);
            self.changed(peer);
            return before & DOWN == 0;
        }
        if hot.flags.load(Relaxed) & DOWN == 0 {
            return false;
        }
        cold.errors.store(0, Relaxed);
        self.begin_warming(peer, now);
        let before = hot.flags.fetch_and(!DOWN, Relaxed);
        self.changed(peer);
        before & DOWN != 0
    }

    /// To be told after each change to what a choice goes by.
    fn changed(&self, peer: usize) {
        if let Some(group) = self.groups.get(peer / GROUP) {
            group.change();
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
            _ if flags & DOWN != 0 => PeerState::Down,
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

    /// What must always hold; tests call it after each step.
    pub fn check_invariants(&self) {
        let flagged = |flag: u32| {
            let count = self
                .hot
                .iter()
                .filter(|hot| hot.flags.load(Relaxed) & flag != 0)
                .count();
            u32::try_from(count).ok()
        };
        assert_eq!(
            flagged(EJECTED),
            Some(self.ejected.load(Relaxed)),
            "ejected are counted"
        );
        assert_eq!(
            flagged(WARMING),
            Some(self.warming.load(Relaxed)),
            "warming are counted"
        );
        assert!(
            self.ejected.load(Relaxed) <= self.max_ejected,
            "more ejected than allowed"
        );
        for hot in &self.hot {
            assert!(
                hot.permits.used() <= hot.permits.limit(),
                "more in flight than allowed"
            );
        }
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
    #[cold]
    pub(crate) fn flags_at(&self, peer: usize, now: Tick) -> u32 {
        let (hot, cold) = (&self.hot[peer], &self.cold[peer]);
        let mut flags = hot.flags.load(Relaxed);
        if flags & EJECTED != 0 && cold.ejected_until.load(Relaxed) <= now.as_millis() {
            self.begin_warming(peer, now);
            // Whoever takes the flag off counts.
            if hot.flags.fetch_and(!EJECTED, Relaxed) & EJECTED != 0 {
                self.ejected.fetch_sub(1, Relaxed);
                self.changed(peer);
            }
            flags = hot.flags.load(Relaxed);
        }
        if flags & WARMING != 0 {
            let since = Tick::from_millis(cold.warm_since.load(Relaxed));
            if now.since(since) >= self.spec.slow_start {
                if hot.flags.fetch_and(!WARMING, Relaxed) & WARMING != 0 {
                    self.warming.fetch_sub(1, Relaxed);
                    self.changed(peer);
                }
                flags &= !WARMING;
            }
        }
        flags
    }

    fn begin_warming(&self, peer: usize, now: Tick) {
        if self.spec.slow_start > Duration::ZERO {
            self.cold[peer].warm_since.store(now.as_millis(), Relaxed);
            if self.hot[peer].flags.fetch_or(WARMING, Relaxed) & WARMING == 0 {
                self.warming.fetch_add(1, Relaxed);
            }
            self.changed(peer);
            let until = now + self.spec.slow_start;
            self.due.fetch_min(until.as_millis(), Release);
        }
    }

    fn eject(&self, peer: usize, time: Duration, now: Tick) -> Ejection {
        // Those whose time is over must not keep this one in.
        for other in 0..self.len() {
            self.flags_at(other, now);
        }
        let room = |ejected: u32| (ejected < self.max_ejected).then_some(ejected + 1);
        if self.ejected.fetch_update(Relaxed, Relaxed, room).is_err() {
            return Ejection::Spared;
        }
        let (hot, cold) = (&self.hot[peer], &self.cold[peer]);
        let until = now + time;
        cold.ejected_until.store(until.as_millis(), Relaxed);
        cold.errors.store(0, Relaxed);
        if hot.flags.fetch_or(EJECTED, Relaxed) & EJECTED != 0 {
            // Another worker was faster; the room it took is enough.
            self.ejected.fetch_sub(1, Relaxed);
        } else {
            cold.ejections.fetch_add(1, Relaxed);
        }
        self.changed(peer);
        self.due.fetch_min(until.as_millis(), Release);
        Ejection::Ejected { until }
    }
}

/// The virtual time of one turn at weight 1: near [`STRIDE`], and a multiple of all weights if
/// there is one, because then no stride is rounded and the weights are exact forever. Else they
/// are off by less than one in a million.
fn stride_unit(peers: &[PeerSpec]) -> u64 {
    let common = peers.iter().try_fold(1_u64, |common, peer| {
        let weight = u64::from(peer.weight);
        let common = common / greatest_common_divisor(common, weight) * weight;
        (common <= STRIDE).then_some(common)
    });
    common.map_or(STRIDE, |common| STRIDE / common * common)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// A permit of a peer, given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
    chosen: Chosen,
}

impl Permit {
    /// The peer it is for.
    pub fn chosen(&self) -> Chosen {
        self.chosen
    }

    /// The number of that peer.
    pub fn peer(&self) -> usize {
        self.chosen.peer
    }

    /// The pool it is of.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.release(self.chosen.peer);
    }
}
