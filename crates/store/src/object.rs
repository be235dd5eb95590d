//! A stored representation, and what comes of asking for one.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::body::{Body, use_once};
use crate::disk::Blocks;
use crate::key::Hash;

/// What the store has to know of that which an object says of itself: its head.
pub trait Meta: Send + Sync + 'static {
    /// Why a fill has failed, for those who wait for it.
    type Failure: Clone + Send;

    /// The memory it takes, in bytes.
    fn weight_bytes(&self) -> usize;

    /// Whether it is the same variant as the other, in a newer version or not.
    fn replaces(&self, other: &Self) -> bool;

    /// The same as it is kept on a disk. `None`: it is not to be kept there.
    fn encode(&self) -> Option<Bytes>;

    /// What [`encode`](Meta::encode) has made, in this or another version of the program.
    fn decode(bytes: &[u8]) -> Option<Self>
    where
        Self: Sized;

    /// A number of the variant: equal for those that replace each other, and hardly ever for
    /// others.
    fn variant(&self) -> u16;

    /// What it can be purged by.
    fn tags(&self) -> SmallVec<[&[u8]; 4]>;
}

/// One version of one variant of a resource.
///
/// Its head never changes: what a 304 updates is another object with the same body. So a reader
/// needs no lock, and a head never meets the body of another version.
pub struct Object<M> {
    /// Never used for another one.
    pub id: u64,
    /// Where it is found.
    pub hash: Hash,
    /// The whole key.
    pub key: Box<[u8]>,
    /// The newest rule when its fill's request was sent.
    pub asked_at: u64,
    /// Its head and what follows from it.
    pub meta: M,
    /// Its bytes.
    pub body: Arc<Body>,
    /// The newest rule when it was last judged.
    pub(crate) judged_at: AtomicU64,
    /// A soft purge has met it.
    stale: AtomicBool,
    gone: AtomicBool,
    /// What may replace it is being asked for, in nobody's presence.
    refreshing: AtomicBool,
    /// It stands in a queue, as a whole.
    pub(crate) queued: AtomicBool,
    pub(crate) uses: AtomicU8,
    /// It is on a disk, or on its way there, or was not taken.
    pub(crate) offered: AtomicBool,
    /// Where its blocks are, if they came from a disk.
    pub(crate) on_disk: OnceLock<Box<Blocks>>,
}

impl<M: Meta> Object<M> {
    pub(crate) fn new(
        id: u64,
        hash: Hash,
        key: Box<[u8]>,
        asked_at: u64,
        meta: M,
        body: Arc<Body>,
    ) -> Object<M> {
        Object {
            id,
            hash,
            key,
            asked_at,
            meta,
            body,
            judged_at: AtomicU64::new(asked_at),
            stale: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            refreshing: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            uses: AtomicU8::new(0),
            offered: AtomicBool::new(false),
            on_disk: OnceLock::new(),
        }
    }

    /// Counts a use of what does not go to disks; else see [`Store::used`](crate::Store::used).
    pub fn used(&self) {
        use_once(&self.uses);
    }

    /// Whether a soft purge demands that it be validated.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Relaxed)
    }

    pub(crate) fn set_stale(&self) {
        self.stale.store(true, Relaxed);
    }

    /// Whether it is not to be found any more: purged, replaced or thrown out.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Acquire)
    }

    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Release);
    }

    /// The memory it takes without its blocks, in bytes.
    pub(crate) fn own_bytes(&self) -> usize {
        OVERHEAD_BYTES
            + size_of::<Object<M>>()
            + size_of::<Body>()
            + self.key.len()
            + self.meta.weight_bytes()
    }
}

/// The one that asks for what may replace an object. Dropped, another one may.
pub struct Refresh<M: Meta>(Arc<Object<M>>);

impl<M: Meta> Refresh<M> {
    /// `None`: somebody does already.
    pub fn begin(object: &Arc<Object<M>>) -> Option<Refresh<M>> {
        match object.refreshing.swap(true, AcqRel) {
            true => None,
            false => Some(Refresh(object.clone())),
        }
    }
}

impl<M: Meta> Drop for Refresh<M> {
    fn drop(&mut self) {
        self.0.refreshing.store(false, Release);
    }
}

/// What an object costs beside what can be counted: its place in the index, in a queue, among the
/// ghosts, and the rounding of the allocator. Measured; see `examples/fill_memory.rs`.
const OVERHEAD_BYTES: usize = 144;
