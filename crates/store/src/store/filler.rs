//! Those who bring the bytes of an object in.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::body::{BLOCK_BYTES, Body, Landed, Pushed, Slot};
use crate::disk::Intake;
use crate::object::{Meta, Object};

use super::{Store, WHOLE};

/// An object of at most this share of the memory stays in it.
const MAX_SHARE: u64 = 8;

/// Bodies whose length is not known yet take at most this share of the memory together; beyond it
/// those of more than [`SMALL_BYTES`] do not stay.
const MAX_UNSETTLED_SHARE: u64 = 4;
const SMALL_BYTES: u64 = 4 * BLOCK_BYTES;

/// So much of what memory does not keep may be on its way to a disk: 2 MiB.
const LAG_BLOCKS: u64 = 32;

/// So many of its blocks may wait until the disk takes more, where a reader is near: about as many
/// as are in memory anyway.
const MAX_WAITING: usize = 64;

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
    /// Those before this one that are on the disk need not be in memory.
    dropped: u64,
    /// It is a disk that it brings them from.
    from_disk: bool,
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
        from_disk: bool,
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
            dropped: 0,
            from_disk,
            is_over: false,
        };
        // What is on a disk goes out of memory block by block, and comes again.
        if from_disk
            || filler
                .body
                .on_disk()
                .is_some_and(|blocks| blocks.is_whole())
        {
            return filler;
        }
        let len = filler.body.len_bytes();
        if filler.range.start == 0 && len == Some(filler.range.end) && len > Some(BLOCK_BYTES) {
            filler.intake = store.intake(&filler.object);
            if let Some(blocks) = filler.intake.as_ref().and_then(Intake::blocks) {
                filler.body.set_on_disk(blocks);
            }
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

    /// Whether what it brings stays, in memory or on a disk.
    pub fn stays(&self) -> bool {
        !self.windowed || self.intake.is_some()
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
    ///
    /// What memory does not keep goes by its fastest reader; if it goes to a disk, by that one. But no
    /// reader waits for a disk: it is given up then.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(intake) = self.intake.as_mut().filter(|_| self.windowed) else {
            return self.body.poll_room(self.run, cx);
        };
        let is_read = self.body.readers() > 0;
        match intake.poll_sent(cx) {
            Poll::Ready(true) if intake.poll_written(LAG_BLOCKS, cx).is_ready() => Poll::Ready(()),
            // Where a reader is near, the blocks are in memory anyway.
            Poll::Ready(true) if is_read => self.body.poll_room(self.run, cx),
            Poll::Ready(true) => Poll::Pending,
            Poll::Ready(false) => {
                self.intake = None;
                self.body.poll_room(self.run, cx)
            }
            Poll::Pending => {
                if !is_read {
                    return Poll::Pending;
                }
                let is_late = intake.waiting() > MAX_WAITING;
                ready!(self.body.poll_room(self.run, cx));
                if is_late {
                    self.intake.take().into_iter().for_each(Intake::refuse);
                }
                Poll::Ready(())
            }
        }
    }

    /// Ready when all that has come is on its way to the disk, or will not be.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(intake) = &mut self.intake
            && !ready!(intake.poll_sent(cx))
        {
            self.intake = None;
        }
        Poll::Ready(())
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
            self.finish_window();
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

    /// All has come of what memory does not keep.
    fn finish_window(&mut self) {
        self.settle();
        let intake = self.intake.take();
        let is_stored = intake.is_some_and(|intake| self.store.commit(&self.object, intake));
        if self.hidden.is_some() {
            // The one that it replaces goes.
            self.store.insert(&self.object);
        }
        if !is_stored || self.body.resident_blocks() == 0 {
            // What is left of it would be found, and be of no use.
            return self.store.take_out(&self.object);
        }
        // From now on it is as if it had come from the disk: what is left of it in memory is found
        // until all of that is thrown out, and the rest is read.
        self.body.keep_all();
        let len = self.body.len_bytes().unwrap_or(0);
        for block in 0..len.div_ceil(BLOCK_BYTES) {
            if self.body.slot(block).is_some_and(Slot::is_resident) {
                let len = BLOCK_BYTES.min(len - block * BLOCK_BYTES);
                self.store.hold_block(&self.object, block, len);
            }
        }
    }

    /// All has come: it is to be stored on a disk.
    fn send_to_disk(&mut self) {
        match self.intake.take() {
            _ if self.from_disk => {}
            Some(intake) => _ = self.store.commit(&self.object, intake),
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
            && (self.body.resident_blocks() > 0 || self.body.is_filling());
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
                    (Some(number), Some(block)) if self.windowed => {
                        intake.block_later(number, block);
                        true
                    }
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
        if let Some(intake) = self.intake.as_ref().filter(|_| self.windowed) {
            let written = intake.written();
            self.body.drop_ahead(self.dropped, written);
            self.dropped = self.dropped.max(written);
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
