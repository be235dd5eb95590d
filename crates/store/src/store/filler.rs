//! Those who bring the bytes of an object in.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::body::{BLOCK_BYTES, Body, Landed, Pushed};
use crate::disk::Intake;
use crate::object::{Meta, Object};

use super::{Store, WHOLE};

/// An object of at most this share of the memory stays in it.
const MAX_SHARE: u64 = 8;

/// Bodies whose length is not known yet take at most this share of the memory together; beyond it
/// those of more than [`SMALL_BYTES`] do not stay.
const MAX_UNSETTLED_SHARE: u64 = 4;
const SMALL_BYTES: u64 = 4 * BLOCK_BYTES;

/// Brings some bytes of an object in. Dropped before its end, it has failed.
pub struct Filler<M: Meta> {
    store: Arc<Store<M>>,
    object: Arc<Object<M>>,
    /// That of the object.
    body: Arc<Body>,
    run: u32,
    range: Range<u64>,
    /// The object is only to be found when it is complete; until then it is noted here.
    hidden: Option<usize>,
    /// It does not stay in memory as a whole.
    windowed: bool,
    /// How much of [`Store::unsettled`] is its.
    unsettled: u64,
    landed: Vec<Landed>,
    /// Blocks go to a disk as they come.
    intake: Option<Intake>,
    is_over: bool,
}

impl<M: Meta> Filler<M> {
    pub(super) fn new(
        store: &Arc<Store<M>>,
        object: Arc<Object<M>>,
        body: Arc<Body>,
        run: u32,
        range: Range<u64>,
        hidden: Option<usize>,
    ) -> Filler<M> {
        store.fills.fetch_add(1, Relaxed);
        let mut filler = Filler {
            store: store.clone(),
            object,
            body,
            run,
            range,
            hidden,
            windowed: false,
            unsettled: 0,
            landed: Vec::new(),
            intake: None,
            is_over: false,
        };
        // What comes from a disk goes out of memory block by block, and comes again.
        if filler.body.on_disk().is_some() {
            return filler;
        }
        let len = filler.body.len_bytes();
        if filler.range.start == 0 && len == Some(filler.range.end) && len > Some(BLOCK_BYTES) {
            filler.intake = store.intake(&filler.object);
        }
        // Of a large body, too, the parts that were asked for stay, as long as others do not need
        // the memory more.
        let range = &filler.range;
        if range.end != u64::MAX && range.end - range.start > filler.largest() {
            filler.keep_window();
        }
        filler
    }

    /// The object.
    pub fn object(&self) -> &Arc<Object<M>> {
        &self.object
    }

    /// The bytes it is to bring; the end is `u64::MAX` where that of the body is not known.
    pub fn range(&self) -> Range<u64> {
        match self.run {
            u32::MAX => self.range.clone(),
            run => self.range.start..self.body.end(run),
        }
    }

    /// Whether what it brings does not stay.
    pub fn is_windowed(&self) -> bool {
        self.windowed
    }

    /// The byte that comes next.
    pub fn position(&self) -> u64 {
        self.body.position(self.run)
    }

    /// A larger object is not kept as a whole.
    fn largest(&self) -> u64 {
        self.store.memory_bytes.load(Relaxed) / MAX_SHARE
    }

    fn keep_window(&mut self) {
        self.windowed = true;
        self.body.keep_window();
    }

    fn note_unsettled(&mut self, bytes: u64) {
        let unsettled = &self.store.unsettled;
        match bytes.checked_sub(self.unsettled) {
            Some(more) => unsettled.fetch_add(more, Relaxed),
            None => unsettled.fetch_sub(self.unsettled - bytes, Relaxed),
        };
        self.unsettled = bytes;
    }

    /// Ready when more may be pulled.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.body.poll_room(self.run, cx)
    }

    /// Ready when nobody reads the object.
    pub fn poll_alone(&self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.body.watch_readers(cx));
        Poll::Ready(())
    }

    /// Takes what was received.
    pub fn push(&mut self, bytes: &Bytes) -> Pushed {
        let pushed = self.body.push(self.run, bytes, &mut self.landed);
        if !self.windowed && self.range.end == u64::MAX {
            self.note_unsettled(self.position());
            let all = self.store.unsettled.load(Relaxed);
            let is_crowded = all > self.store.memory_bytes.load(Relaxed) / MAX_UNSETTLED_SHARE;
            if self.unsettled > self.largest() || (is_crowded && self.unsettled > SMALL_BYTES) {
                self.keep_window();
                self.note_unsettled(0);
            }
        }
        self.settle();
        pushed
    }

    /// All has come. False: too little has.
    pub fn finish(mut self) -> bool {
        self.is_over = true;
        let is_whole = match self.run {
            u32::MAX => true,
            run => self.body.finish(run, &mut self.landed).is_some(),
        };
        if !is_whole {
            self.body.give_up(self.run, true);
            self.store.take_out(&self.object);
            return false;
        }
        if self.windowed {
            // What is left of it would be found, and be of no use; on a disk it may be whole.
            self.settle();
            self.send_to_disk();
            self.store.take_out(&self.object);
            return true;
        }
        if self.hidden.is_some() {
            self.store.insert(&self.object);
        }
        self.settle();
        if let Some(whole) = self.body.whole() {
            self.store.hold(&self.object, WHOLE, whole.len());
        }
        self.send_to_disk();
        true
    }

    /// All has come: it is to be stored on a disk.
    fn send_to_disk(&mut self) {
        match self.intake.take() {
            Some(intake) => self.store.commit(&self.object, intake),
            None => self.store.offer(&self.object),
        }
    }

    /// Nothing more comes. If `keep`, complete blocks stay to be completed under the same validator
    /// later; else the object is gone.
    pub fn stop(mut self, failed: bool, keep: bool) {
        self.is_over = true;
        self.end(failed, keep);
    }

    fn end(&mut self, failed: bool, keep: bool) {
        self.body.give_up(self.run, failed);
        let is_of_use = keep
            && !self.windowed
            && self.hidden.is_none()
            && self.body.len_bytes().is_some()
            && self.body.resident_blocks() > 0;
        if !is_of_use {
            self.store.take_out(&self.object);
        }
    }

    /// Counts the blocks that have come.
    fn settle(&mut self) {
        for landed in self.landed.drain(..) {
            if let Some(intake) = &mut self.intake {
                let block = self.body.block(landed.block);
                let number = u32::try_from(landed.block).ok();
                let sent = match (number, block) {
                    (Some(number), Some(block)) => intake.block(number, block),
                    _ => false,
                };
                if !sent {
                    self.intake = None;
                }
            }
            // Of an object of one block the whole is counted, when it is complete.
            if !self.windowed && self.body.slot(landed.block).is_some() {
                self.store
                    .hold_block(&self.object, landed.block, landed.len_bytes);
            }
        }
    }
}

impl<M: Meta> Drop for Filler<M> {
    fn drop(&mut self) {
        self.note_unsettled(0);
        if !self.is_over {
            self.end(true, false);
        }
        self.store.fills.fetch_sub(1, Relaxed);
        if let Some(ticket) = self.hidden {
            self.store.hidden.lock().try_remove(ticket);
        }
    }
}
