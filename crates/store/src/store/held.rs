//! What stands in a queue for memory: an object, or one block of it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::object::{Meta, Object};
use crate::queue::Unit;
use crate::room::{COUNTS_BYTES, room};

/// A unit of memory: an object of one block, or one block of a larger one.
pub(crate) struct Held<M> {
    object: Weak<Object<M>>,
    block: u32,
    weight: u32,
}

/// The whole object.
pub(crate) const WHOLE: u32 = u32::MAX;

/// What a block costs that is shared rather than copied: the references of its bytes are counted
/// from the first time on that somebody has them.
const SHARED_BYTES: usize = 32;

impl<M: Meta> Held<M> {
    /// The unit, with all that belongs to it. What belongs to an object of several blocks is a part
    /// of each of them.
    pub(crate) fn new(object: &Arc<Object<M>>, block: u32, len: usize) -> Held<M> {
        let own = object.own_bytes();
        let weight = match (block, object.body.is_short()) {
            (WHOLE, true) => own + room(len),
            (WHOLE, false) => own + room(len) + SHARED_BYTES,
            _ => {
                let place = room(COUNTS_BYTES + size_of::<Bytes>());
                own / object.body.blocks().max(1) + place + room(len) + SHARED_BYTES
            }
        };
        Held {
            object: Arc::downgrade(object),
            block,
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
        }
    }

    /// What it is of, and which block; `None`: it is gone.
    pub(crate) fn unit(&self) -> Option<(Arc<Object<M>>, u32)> {
        Some((self.object.upgrade()?, self.block))
    }
}

impl<M: Meta> Unit for Held<M> {
    fn uses(&self) -> Option<u8> {
        let object = self.object.upgrade()?;
        if object.is_gone() {
            return None;
        }
        match self.block {
            WHOLE => Some(object.uses.load(Relaxed)),
            block => object.body.uses(u64::from(block)),
        }
    }

    fn set_uses(&self, uses: u8) {
        let Some(object) = self.object.upgrade() else {
            return;
        };
        match self.block {
            WHOLE => object.uses.store(uses, Relaxed),
            block => object.body.set_uses(u64::from(block), uses),
        }
    }

    fn hash(&self) -> u64 {
        let Some(object) = self.object.upgrade() else {
            return 0;
        };
        let hash = u64::from(object.place) << 32;
        match self.block {
            WHOLE => hash,
            // Blocks of one object are remembered each by itself.
            block => hash ^ u64::from(block + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        }
    }

    fn weight(&self) -> u32 {
        self.weight
    }
}
