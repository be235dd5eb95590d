//! A body of several blocks on its way to a disk: who sends it learns how far it has come, and who
//! reads it finds its blocks there before all of them are.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::Waker;

use parking_lot::Mutex;

use super::record::Ref;

/// See the module.
#[derive(Debug)]
pub(crate) struct Coming {
    pub(crate) id: u64,
    pub(crate) body_bytes: u64,
    refs: Mutex<Vec<Ref>>,
    /// So many blocks from its beginning are on the disk: they come in order.
    written: AtomicU64,
    /// Nothing more of it is written.
    given_up: AtomicBool,
    /// All of it was sent.
    is_whole: AtomicBool,
    /// Who sends it.
    sender: Mutex<Option<Waker>>,
}

/// One block on its way. When it is over, on the disk or not, who sends the body is woken.
pub(crate) struct Landing {
    coming: Arc<Coming>,
    number: u32,
}

impl Coming {
    pub(crate) fn new(id: u64, body_bytes: u64) -> Arc<Coming> {
        Arc::new(Coming {
            id,
            body_bytes,
            refs: Mutex::default(),
            written: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
            is_whole: AtomicBool::new(false),
            sender: Mutex::default(),
        })
    }

    pub(crate) fn landing(self: &Arc<Coming>, number: u32) -> Landing {
        Landing {
            coming: self.clone(),
            number,
        }
    }

    /// Where all blocks are that were written or are about to be.
    pub(crate) fn refs(&self) -> Vec<Ref> {
        self.refs.lock().clone()
    }

    /// Where a block is, once it is there.
    pub(crate) fn find(&self, number: u32) -> Option<Ref> {
        if u64::from(number) >= self.written() {
            return None;
        }
        let at = usize::try_from(number).ok()?;
        self.refs.lock().get(at).copied()
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Release);
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Acquire)
    }

    pub(crate) fn set_whole(&self) {
        self.is_whole.store(true, Release);
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole.load(Acquire)
    }

    /// Wakes this one when more of it is written, or will not be.
    pub(crate) fn watch(&self, waker: &Waker) {
        let mut sender = self.sender.lock();
        match &mut *sender {
            Some(there) => there.clone_from(waker),
            None => *sender = Some(waker.clone()),
        }
    }
}

impl Landing {
    pub(crate) fn coming(&self) -> &Arc<Coming> {
        &self.coming
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// It is about to be written here.
    pub(crate) fn set_place(&self, place: Ref) {
        let at = usize::try_from(self.number).unwrap_or(usize::MAX);
        let mut refs = self.coming.refs.lock();
        // Blocks come in order, so this is the next one.
        if refs.len() <= at {
            refs.resize(at + 1, Ref::default());
        }
        refs[at] = place;
    }

    /// It is there.
    pub(crate) fn land(self) {
        let written = u64::from(self.number) + 1;
        self.coming.written.fetch_max(written, Release);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let sender = self.coming.sender.lock().take();
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}
