//! Between memory and disks: what goes to them, and what comes back.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::body::{BLOCK_BYTES, Body, NotFilled, use_once};
use crate::content::Content;
use crate::disk::{self, Blocks, Disk, Found, FoundBody, Got, Intake, Opened};
use crate::key::{Hash, url_of};
use crate::object::{Mark, Meta, Object};
use crate::rules::{Rule, Verdict};
use crate::store::{Filler, Store};

/// At most so many blocks are brought from a disk at a time.
const BLOCKS_AT_ONCE: u64 = 8;

/// Nor more than this part of the memory that objects with this hash share.
const SOME_SHARE: u64 = 8;

/// Something that was found on a disk, to be chosen from and [taken up](Store::take_up).
pub struct Candidate<M> {
    /// What it says of itself.
    pub meta: M,
    found: Found,
    /// The first of its blocks, if it has several.
    first: Option<Bytes>,
}

impl<M: Meta> Store<M> {
    /// Gives it a disk tier, with what is known of purges. It keeps its first one.
    pub fn attach(&self, disk: Arc<Disk>, opened: &Opened) {
        // Before anything can be found on it.
        let rules = opened.rules.iter();
        let rules = rules.map(|one| (one.number, &one.rule, one.soft));
        self.rules.restore(opened.newest, rules);
        let _ = self.disk.set(disk);
    }

    /// The disk tier, if it has one.
    pub fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.get()
    }

    /// Counts a use of something in memory.
    pub fn used(&self, object: &Arc<Object<M>>) {
        // The first since it came, or since it was last looked at for being thrown out.
        if use_once(&object.uses) == 0
            && let Some(disk) = self.disk.get()
        {
            disk.used(disk.hash(&object.key));
            self.offer(object);
        }
    }

    // --- To the disks ----------------------------------------------------------------------------

    /// Has an object stored on a disk that is in memory as a whole, if it is not there and is
    /// admitted.
    pub(crate) fn offer(&self, object: &Arc<Object<M>>) {
        let Some(disk) = self.disk.get() else {
            return;
        };
        if object.has(Mark::Offered) || !object.body.is_complete() {
            return;
        }
        // All rules up to this one it has outlived, so it is as if it had been asked for after them:
        // those that it was asked for before may be forgotten by now.
        let judged = self.rules.in_force().max(object.asked_at);
        if !self.is_alive(object) || object.is_stale() {
            return;
        }
        let is_stored = disk.wants(disk.hash(&object.key))
            && put(disk, object, judged).is_some_and(|is_stored| is_stored);
        if is_stored {
            object.set(Mark::Offered);
        } else {
            // An older version must not outlive this one.
            disk.remove(disk.hash(&object.key));
        }
    }

    /// Begins to store an object on a disk whose blocks are to come.
    pub(crate) fn intake(&self, object: &Object<M>) -> Option<Intake> {
        let disk = self.disk.get()?;
        let hash = disk.hash(&object.key);
        let len = object.body.len_bytes()?;
        disk.wants(hash).then(|| disk.begin(hash, len))?
    }

    /// All blocks were sent, or could not be. Whether it is stored.
    pub(crate) fn commit(&self, object: &Arc<Object<M>>, intake: Intake) -> bool {
        // What was made invalid on its way is known in memory alone.
        let Some(disk) = self.disk.get().filter(|_| self.is_alive(object)) else {
            return false;
        };
        let len = object.body.len_bytes();
        if len.map(|len| len.div_ceil(BLOCK_BYTES)) != Some(intake.sent()) {
            // Others have brought the rest: who comes last finds it complete.
            drop(intake);
            self.offer(object);
            return false;
        }
        let about = describe(disk, object, object.asked_at);
        let is_stored = about.is_some_and(|about| intake.commit(&about));
        object.set(Mark::Offered);
        if !is_stored {
            disk.remove(disk.hash(&object.key));
        }
        is_stored
    }

    // --- From the disks --------------------------------------------------------------------------

    /// Whether there may be something on a disk. Asks no disk.
    pub fn may_be_on_disk(&self, key: &[u8]) -> bool {
        self.disk
            .get()
            .is_some_and(|disk| !disk.find(disk.hash(key)).is_empty())
    }

    /// What there is on disks, the newest first. Without `wait` only if no disk has to be waited
    /// for.
    pub fn look_on_disk(&self, key: &[u8], wait: bool) -> Got<Vec<Candidate<M>>> {
        let Some(disk) = self.disk.get() else {
            return Got::Absent;
        };
        let mut candidates = Vec::new();
        for place in disk.find(disk.hash(key)) {
            let found = match wait {
                true => disk.read(&place, key).map_or(Got::Absent, Got::Here),
                false => disk.try_read(&place, key),
            };
            let found = match found {
                Got::Here(found) => found,
                Got::Absent => continue,
                Got::Wait => return Got::Wait,
            };
            let Some(meta) = M::decode(&found.meta) else {
                continue;
            };
            let first = match &found.body {
                FoundBody::Whole(_) => None,
                FoundBody::Blocks(blocks) if wait => disk.read_block(blocks, 0),
                FoundBody::Blocks(blocks) => match disk.try_read_block(blocks, 0) {
                    Got::Here(bytes) => Some(bytes),
                    Got::Absent => None,
                    Got::Wait => return Got::Wait,
                },
            };
            candidates.push(Candidate { meta, found, first });
        }
        match candidates.is_empty() {
            true => Got::Absent,
            false => Got::Here(candidates),
        }
    }

    /// Puts what was found on a disk in memory, unless there is something newer by now. `None`: it
    /// was purged, or is of no use.
    pub fn take_up(
        self: &Arc<Store<M>>,
        hash: Hash,
        key: &[u8],
        candidate: Candidate<M>,
    ) -> Option<Arc<Object<M>>> {
        let disk = self.disk.get()?;
        let Candidate { meta, found, first } = candidate;
        if found.asked_at < disk.floor() {
            return None;
        }
        let verdict = {
            let tags = meta.tags();
            self.rules
                .judge(found.asked_at, url_of(key), tags.iter().copied())
        };
        if verdict == Verdict::Dead {
            return None;
        }
        let body = match found.body {
            FoundBody::Whole(bytes) => Content::of(bytes),
            FoundBody::Blocks(blocks) => {
                let body = Body::new(Some(found.body_bytes));
                // Without a block in memory nothing would throw it out again.
                if !body.set_block(0, first?) {
                    return None;
                }
                body.set_on_disk(blocks);
                Content::from(Arc::new(body))
            }
        };
        let object = self.object(hash, key, found.asked_at, meta, body);
        if verdict == Verdict::Stale {
            object.set(Mark::Stale);
        }
        object.set(Mark::Offered);
        if let Some(there) = self.insert_if_absent(&object) {
            return Some(there);
        }
        self.hold_all(&object);
        Some(object)
    }

    /// Begins to bring blocks of an object from a disk that are absent, the one with `at` first.
    /// `None`: it is not on a disk.
    pub fn fill_from_disk(
        self: &Arc<Store<M>>,
        object: &Arc<Object<M>>,
        at: u64,
        end: Option<u64>,
    ) -> Option<Result<(Filler<M>, Blocks), NotFilled>> {
        let number = u32::try_from(at / BLOCK_BYTES).ok()?;
        let blocks = self
            .blocks_on_disk(object)
            .filter(|blocks| blocks.has(number))?;
        let begin = at - at % BLOCK_BYTES;
        // No more than stays until it is read, though memory be little.
        let some =
            (self.shard_bytes() / SOME_SHARE).clamp(BLOCK_BYTES, BLOCKS_AT_ONCE * BLOCK_BYTES);
        let most = begin.saturating_add(some - some % BLOCK_BYTES);
        let end = end.map_or(most, |end| end.min(most));
        let filler = self.fill_by(object, at, Some(end), true);
        Some(filler.map(|filler| (filler, blocks)))
    }

    /// Whether all of an object is on a disk, or on its way there, as far as is known.
    pub fn is_on_disk(&self, object: &Object<M>) -> bool {
        match self.blocks_on_disk(object) {
            Some(blocks) => blocks.is_whole(),
            None => self.disk.get().is_some() && object.has(Mark::Offered),
        }
    }

    /// How blocks of an object are read from a disk, if they are on one.
    pub fn blocks_on_disk(&self, object: &Object<M>) -> Option<Blocks> {
        object.body.on_disk()
    }

    // --- Purging ---------------------------------------------------------------------------------

    /// Puts a purge in force, and returns when it is on all disks: it waits for them. From now on
    /// nothing that was asked for before it is used.
    ///
    /// # Errors
    /// It could not be written to a disk. It is in force all the same; but after a restart what it
    /// has met might come back, if the disk cannot even be marked as not to be used.
    pub fn purge_durably(&self, rule: &Rule, soft: bool) -> io::Result<u64> {
        let Some(disk) = self.disk.get() else {
            return Ok(self.purge(rule, soft));
        };
        let _one = self.purging.lock();
        // Before the disk is asked: what is asked for from here on is newer than this purge.
        let number = self.rules.reserve();
        let written = disk.purge(number, rule, soft);
        self.rules.add_reserved(number, rule, soft);
        written.map(|()| number)
    }

    /// Writes a purge down that is in force already, with its number; waits for the disks.
    ///
    /// # Errors
    /// See [`purge_durably`](Store::purge_durably).
    pub fn write_purge(&self, number: u64, rule: &Rule, soft: bool) -> io::Result<()> {
        let Some(disk) = self.disk.get() else {
            return Ok(());
        };
        let _one = self.purging.lock();
        disk.purge(number, rule, soft)
    }

    /// Rules up to this number are over, as far as disks go.
    pub(crate) fn disk_oldest(&self) -> u64 {
        self.disk.get().map_or(u64::MAX, |disk| disk.oldest_asked())
    }

    /// Forgets rules up to this number, also on disks.
    pub(crate) fn forget_rules(&self, oldest: u64) {
        let Some(disk) = self.disk.get() else {
            return self.rules.forget(oldest);
        };
        disk.set_floor(oldest);
        self.rules.forget(oldest);
        if disk.has_old_rules(self.rules.len()) {
            let _one = self.purging.lock();
            disk.keep_rules(self.rules.newest(), &self.rules.all());
        }
    }
}

impl<M: Meta> Object<M> {
    /// Its body, block by block, if all of it is in memory.
    fn blocks(&self) -> Option<SmallVec<[Bytes; 1]>> {
        let len = self.body.len_bytes()?;
        let count = len.div_ceil(BLOCK_BYTES);
        (0..count).map(|number| self.body.block(number)).collect()
    }
}

/// Stores an object that is in memory as a whole; from now on its blocks may go out of that.
fn put<M: Meta>(disk: &Disk, object: &Object<M>, asked_at: u64) -> Option<bool> {
    let blocks = object.blocks()?;
    let about = describe(disk, object, asked_at)?;
    let intake = disk.begin(about.hash, object.body.len_bytes()?)?;
    let at = intake.blocks();
    let is_stored = intake.put(&about, &blocks);
    if let (true, Some(at), Some(body)) = (is_stored, at, object.body.body()) {
        body.set_on_disk(at);
    }
    Some(is_stored)
}

fn describe<'o, M: Meta>(
    disk: &Disk,
    object: &'o Object<M>,
    asked_at: u64,
) -> Option<disk::Object<'o>> {
    Some(disk::Object {
        hash: disk.hash(&object.key),
        key: &object.key,
        variant: object.meta.variant(),
        asked_at,
        meta: object.meta.encode()?,
    })
}
