//! What a pool keeps of each peer.

use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::ewma::Ewma;
use crate::permits::Permits;
use crate::spec::{MAX_CONNECTIONS, PeerSpec};

/// What every choice reads: half a cache line each, side by side, so that a pass over 1,000 peers
/// stays within the first-level cache. A line of its own for each would keep workers from
/// disturbing each other, but costs every pass twice the lines, and a pass reads them all.
#[derive(Debug)]
#[repr(align(32))]
pub(crate) struct Hot {
    pub(crate) permits: Permits,
    /// Its place among the peers: a pass then needs no counter beside the pointer.
    number: u32,
    pub(crate) flags: AtomicU32,
    /// Its place in virtual time.
    pub(crate) turn: AtomicU64,
    /// How far a choice moves it on: one by its weight.
    pub(crate) stride: u64,
}

/// What is read when something happens to it.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    /// Failures in a row.
    pub(crate) errors: AtomicU32,
    pub(crate) ejections: AtomicU32,
    /// In milliseconds, as `Tick` has them; of use while the flag is set.
    pub(crate) ejected_until: AtomicU64,
    pub(crate) warm_since: AtomicU64,
    /// How long its answers take.
    pub(crate) ewma: Ewma,
}

impl Hot {
    /// `unit` is the virtual time of one turn at weight 1.
    pub(crate) fn new(number: u32, spec: &PeerSpec, unit: u64) -> Hot {
        Hot {
            number,
            permits: Permits::new(spec.max_connections),
            flags: AtomicU32::new(if spec.backup { BACKUP } else { 0 }),
            turn: AtomicU64::new(0),
            stride: unit / u64::from(spec.weight),
        }
    }

    pub(crate) fn number(&self) -> usize {
        usize::try_from(self.number).expect("usize has at least 32 bits")
    }
}

/// Its health checks fail.
pub(crate) const DOWN: u32 = 1;
/// Its failures have ejected it.
pub(crate) const EJECTED: u32 = 2;
/// It is on its way to its full share.
pub(crate) const WARMING: u32 = 4;
/// It is a backup; never changes.
pub(crate) const BACKUP: u32 = 8;
/// Beside [`DOWN`]: its health checks find nobody.
pub(crate) const GONE: u32 = 16;
/// An operator lets no new clients to it.
pub(crate) const DRAINED: u32 = 32;
/// An operator lets nobody to it.
pub(crate) const OFF: u32 = 64;

/// About the virtual time of one turn at weight 1. Its products with a count of requests stay
/// within 64 bits, also where a peer that warms up has a stride ten times as long.
pub(crate) const STRIDE: u64 = 1 << 32;

const _: () = assert!(size_of::<Hot>() == 32);
const _: () = assert!((10 * STRIDE).checked_mul(MAX_CONNECTIONS as u64).is_some());
