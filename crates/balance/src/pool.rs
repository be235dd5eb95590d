//! A pool of peers and their permits. How one is chosen stands in `choose.rs`, what takes one out of
//! service in `state.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::Duration;

use crate::choose::{Ask, Best, Chosen, NoPeer};
use crate::draw::Draw;
use crate::groups::{GROUP, Group, groups};
use crate::peer::{Cold, DOWN, EJECTED, GONE, Hot, OFF, STRIDE, WARMING};
use crate::score::Scores;
use crate::spec::{Balance, MAX_CONNECTIONS, MAX_PEERS, MAX_WEIGHT, PeerSpec, PoolError, PoolSpec};
use crate::state::{is_serving, is_well};
use crate::units::Tick;

/// The state of a pool that all workers share.
#[derive(Debug)]
pub struct Pool {
    pub(crate) spec: PoolSpec,
    pub(crate) hot: Box<[Hot]>,
    pub(crate) cold: Box<[Cold]>,
    /// Of a large one.
    pub(crate) groups: Box<[Group]>,
    pub(crate) draw: Draw,
    pub(crate) scores: Scores,
    /// The turn that was taken last.
    pub(crate) clock: AtomicU64,
    /// How many peers have the flag `EJECTED`.
    pub(crate) ejected: AtomicU32,
    /// How many have the flag `WARMING`.
    pub(crate) warming: AtomicU32,
    /// How many primaries no operator has taken out.
    pub(crate) serving: AtomicU32,
    /// How many of those can be used.
    pub(crate) well: AtomicU32,
    /// When the time of a flag is over next, in milliseconds.
    pub(crate) due: AtomicU64,
    pub(crate) max_ejected: u32,
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
        let primaries = spec.peers.iter().filter(|peer| !peer.backup).count();
        let primaries = u32::try_from(primaries).unwrap_or(u32::MAX);
        Ok(Pool {
            hot: (0..)
                .zip(&spec.peers)
                .map(|(number, peer)| Hot::new(number, peer, unit))
                .collect(),
            cold: spec.peers.iter().map(|_| Cold::default()).collect(),
            groups: groups(spec.peers.len()),
            draw: Draw::new(spec.balance, &spec.peers),
            // The others need none.
            scores: Scores::new(match spec.balance {
                Balance::Score => spec.peers.len(),
                _ => 0,
            }),
            clock: AtomicU64::new(0),
            ejected: AtomicU32::new(0),
            warming: AtomicU32::new(0),
            serving: AtomicU32::new(primaries),
            well: AtomicU32::new(primaries),
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

    /// Takes a permit of this very peer, for a client that belongs to it: also where nobody else gets
    /// there any more. False if it cannot be used, or has none left.
    pub fn acquire_at(&self, peer: usize, now: Tick) -> bool {
        let Some(hot) = self.hot.get(peer) else {
            return false;
        };
        let flags = self.flags_at(peer, now);
        let mut out = DOWN | EJECTED | OFF;
        if self.is_panicking() {
            out = GONE | OFF;
        }
        if flags & out != 0 || !hot.permits.try_acquire() {
            return false;
        }
        // It counts as its turn. Where another worker is faster it does not, which does no harm.
        self.take_turn(&Best::of(peer, hot.turn.load(Relaxed)), now);
        self.changed(peer);
        true
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

    /// Tells how long a peer took to answer, for [`Balance::P2cEwma`].
    pub fn report_time(&self, peer: usize, took: Duration, now: Tick) {
        if self.spec.balance == Balance::P2cEwma
            && let Some(cold) = self.cold.get(peer)
        {
            let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            cold.ewma.add(micros, now);
        }
    }

    /// To be told after each change to what a choice goes by.
    pub(crate) fn changed(&self, peer: usize) {
        if let Some(group) = self.groups.get(peer / GROUP) {
            group.change();
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
        let flags = self.hot.iter().map(|hot| hot.flags.load(Relaxed));
        let (mut serving, mut well) = (0, 0);
        for flags in flags {
            serving += u32::from(is_serving(flags));
            well += u32::from(is_well(flags));
        }
        assert_eq!(
            (self.serving.load(Relaxed), self.well.load(Relaxed)),
            (serving, well),
            "primaries in service, and those of them that are well, are counted"
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
