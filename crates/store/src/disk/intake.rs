//! Sending an object to a disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::coming::Coming;
use super::queue::{Job, Put, Refused};
use super::record::{MAX_KEY_BYTES, MAX_META_BYTES};
use super::volume::Volume;
use super::{Blocks, Object, Where};
use crate::body::BLOCK_BYTES;

/// An object on its way to a disk. Dropped before all of it is sent, it is given up.
pub struct Intake {
    pub(super) volume: Arc<Volume>,
    /// Which of the volumes that is.
    pub(super) at: u16,
    pub(super) tag: u64,
    pub(super) coming: Arc<Coming>,
    pub(super) is_over: bool,
    /// So many blocks were sent, or wait to be.
    pub(super) sent: u64,
    pub(super) is_refused: bool,
    /// Blocks for which there was no room yet.
    pub(super) waiting: VecDeque<(u32, Bytes)>,
    /// Why there was none.
    pub(super) why: Refused,
}

impl Intake {
    /// Sends all of an object; see [`Disk::put`](super::Disk::put).
    pub fn put(self, object: &Object<'_>, body: &[Bytes]) -> bool {
        let body_bytes = self.coming.body_bytes;
        if body_bytes > BLOCK_BYTES {
            let blocks = body.iter().zip(0_u32..);
            let jobs = blocks.map(|(bytes, number)| self.job(number, bytes.clone()));
            let jobs = jobs.collect();
            return self.finish(object, Bytes::new(), jobs);
        }
        let whole = match body {
            [bytes] => bytes.clone(),
            [] => Bytes::new(),
            _ => return false,
        };
        self.finish(object, whole, Vec::new())
    }

    /// How its blocks are read, as far as they are there, if there are several.
    pub fn blocks(&self) -> Option<Blocks> {
        (self.coming.body_bytes > BLOCK_BYTES).then(|| Blocks {
            volume: self.at,
            id: self.coming.id,
            body_bytes: self.coming.body_bytes,
            at: Where::Coming(self.coming.clone()),
        })
    }

    fn job(&self, number: u32, bytes: Bytes) -> Job {
        Job::Block {
            landing: self.coming.landing(number),
            tag: self.tag,
            bytes,
        }
    }

    /// Sends the next block. False: there was no room for it, and the object is given up.
    pub fn block(&mut self, number: u32, bytes: Bytes) -> bool {
        if !self.is_refused {
            let job = self.job(number, bytes);
            self.is_refused = !offer(&self.volume, vec![job]);
            self.sent += 1;
        }
        !self.is_refused
    }

    /// Sends the next block now or when there is room for it: see [`poll_sent`](Intake::poll_sent).
    pub fn block_later(&mut self, number: u32, bytes: Bytes) {
        self.waiting.push_back((number, bytes));
        self.sent += 1;
        // What has not found room is tried again by who waits for it.
        let _ = self.send(None);
    }

    /// Ready when no block waits to be sent; false: nothing is written any more.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self.send(Some(cx.waker())) {
            Ok(()) => Poll::Ready(!self.is_refused && !self.volume.is_off()),
            Err(Refused::Closed) => Poll::Ready(false),
            Err(why) => {
                self.why = why;
                Poll::Pending
            }
        }
    }

    fn send(&mut self, waker: Option<&Waker>) -> Result<(), Refused> {
        while let Some((number, bytes)) = self.waiting.front() {
            self.volume.queue.has_room(bytes.len(), waker)?;
            let job = self.job(*number, bytes.clone());
            // Another one may have taken the room: then it is tried again.
            if self.volume.queue.offer(vec![job]).is_ok() {
                self.waiting.pop_front();
            }
        }
        Ok(())
    }

    /// Ready when no more than so many blocks are sent and not on the disk yet, or will not be.
    pub fn poll_written(&self, lag: u64, cx: &mut Context<'_>) -> Poll<()> {
        self.coming.watch(cx.waker());
        // After that, so that nobody is woken before he waits.
        let is_near = self.sent.saturating_sub(self.coming.written()) <= lag;
        match is_near || self.volume.is_off() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// How many blocks wait for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// It is given up, since nobody is to wait for room.
    pub fn refuse(self) {
        count(&self.volume, self.why);
    }

    /// So many blocks from the beginning are on the disk.
    pub fn written(&self) -> u64 {
        self.coming.written()
    }

    /// How many blocks were sent, or wait to be.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// All blocks were sent: now it can be found.
    pub fn commit(self, object: &Object<'_>) -> bool {
        let is_sent = self.sent > 0 && self.waiting.is_empty() && !self.is_refused;
        is_sent && self.coming.body_bytes > BLOCK_BYTES && {
            // It was let in with its first block, and this is little.
            self.finish_by(object, Bytes::new(), Vec::new(), |volume, jobs| {
                volume.queue.insist(jobs).is_ok()
            })
        }
    }

    fn finish(self, object: &Object<'_>, body: Bytes, jobs: Vec<Job>) -> bool {
        self.finish_by(object, body, jobs, offer)
    }

    fn finish_by(
        mut self,
        object: &Object<'_>,
        body: Bytes,
        mut jobs: Vec<Job>,
        offer: impl FnOnce(&Volume, Vec<Job>) -> bool,
    ) -> bool {
        if object.key.len() > MAX_KEY_BYTES || object.meta.len() > MAX_META_BYTES {
            return false;
        }
        let body_bytes = self.coming.body_bytes;
        let several = body_bytes > BLOCK_BYTES;
        jobs.push(Job::Put(Box::new(Put {
            id: self.coming.id,
            hash: object.hash,
            asked_at: object.asked_at,
            variant: object.variant,
            key: Bytes::copy_from_slice(object.key),
            meta: object.meta.clone(),
            body_bytes,
            body,
            coming: several.then(|| self.coming.clone()),
        })));
        self.is_over = offer(&self.volume, jobs);
        if self.is_over {
            self.coming.set_whole();
        }
        self.is_over
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        if !self.is_over {
            self.coming.give_up();
        }
    }
}

fn offer(volume: &Volume, jobs: Vec<Job>) -> bool {
    let taken = volume.queue.offer(jobs);
    if let Err(why) = taken {
        count(volume, why);
    }
    taken.is_ok()
}

fn count(volume: &Volume, why: Refused) {
    let counter = match why {
        Refused::Full => &volume.counters.refused_queue,
        Refused::Rate => &volume.counters.refused_rate,
        Refused::Closed => return,
    };
    counter.fetch_add(1, Relaxed);
}
