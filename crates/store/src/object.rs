//! A stored representation, and what comes of asking for one.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicU8, AtomicU64};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use smallvec::SmallVec;

use crate::body::use_once;
use crate::content::Content;
use crate::index::Node;
use crate::key::Hash;
use crate::room::{COUNTS_BYTES, room};

/// What the store has to know of that which an object says of itself: its head.
pub trait Meta: Send + Sync + 'static {
    /// Why a fill has failed, for those who wait for it.
    type Failure: Clone + Send;

    /// The memory that belongs to it, beside itself, in bytes; see [`room`].
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
    /// Where it is found: a part of its key's hash.
    pub(crate) place: u32,
    /// The whole key.
    pub key: Box<[u8]>,
    /// The newest rule when its fill's request was sent.
    pub asked_at: u64,
    /// Its head and what follows from it.
    pub meta: M,
    /// Its bytes.
    pub body: Content,
    /// The newest rule when it was last judged.
    pub(crate) judged_at: AtomicU64,
    marks: AtomicU8,
    pub(crate) uses: AtomicU8,
    next: ArcSwapOption<Object<M>>,
}

/// What can be said of an object, each a bit of its marks.
#[derive(Clone, Copy)]
pub(crate) enum Mark {
    /// A soft purge has met it.
    Stale = 1,
    /// It is not to be found any more.
    Gone = 1 << 1,
    /// What may replace it is being asked for, in nobody's presence.
    Refreshing = 1 << 2,
    /// It stands in a queue, as a whole.
    Queued = 1 << 3,
    /// It is on a disk, or on its way there.
    Offered = 1 << 4,
}

impl<M> Node for Object<M> {
    fn next(&self) -> &ArcSwapOption<Object<M>> {
        &self.next
    }

    fn place(&self) -> u32 {
        self.place
    }
}

impl<M: Meta> Object<M> {
    pub(crate) fn new(
        id: u64,
        hash: Hash,
        key: Box<[u8]>,
        asked_at: u64,
        meta: M,
        body: Content,
    ) -> Object<M> {
        Object {
            id,
            place: hash.place(),
            key,
            asked_at,
            meta,
            body,
            judged_at: AtomicU64::new(asked_at),
            marks: AtomicU8::new(0),
            uses: AtomicU8::new(0),
            next: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.marks.load(Acquire) & mark as u8 != 0
    }

    /// Whether it had the mark before.
    pub(crate) fn set(&self, mark: Mark) -> bool {
        self.marks.fetch_or(mark as u8, AcqRel) & mark as u8 != 0
    }

    pub(crate) fn clear(&self, mark: Mark) {
        self.marks.fetch_and(!(mark as u8), Release);
    }

    /// Counts a use of what does not go to disks; else see [`Store::used`](crate::Store::used).
    pub fn used(&self) {
        use_once(&self.uses);
    }

    /// Whether a soft purge demands that it be validated.
    pub fn is_stale(&self) -> bool {
        self.has(Mark::Stale)
    }

    /// Whether it is not to be found any more: purged, replaced or thrown out.
    pub fn is_gone(&self) -> bool {
        self.has(Mark::Gone)
    }

    /// The memory it takes without its blocks, in bytes.
    pub(crate) fn own_bytes(&self) -> usize {
        INDEX_BYTES
            + room(COUNTS_BYTES + size_of::<Object<M>>())
            + room(self.key.len())
            + self.meta.weight_bytes()
            + self.body.own_bytes()
    }
}

/// The one that asks for what may replace an object. Dropped, another one may.
pub struct Refresh<M: Meta>(Arc<Object<M>>);

impl<M: Meta> Refresh<M> {
    /// `None`: somebody does already.
    pub fn begin(object: &Arc<Object<M>>) -> Option<Refresh<M>> {
        match object.set(Mark::Refreshing) {
            true => None,
            false => Some(Refresh(object.clone())),
        }
    }
}

impl<M: Meta> Drop for Refresh<M> {
    fn drop(&mut self) {
        self.0.clear(Mark::Refreshing);
    }
}

/// Its bucket in the index: between 8 and 16.
const INDEX_BYTES: usize = 12;
