//! The thread that writes: one per disk, in batches, at the end of one segment.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::checkpoint;
use super::coming::Landing;
use super::index::Entry;
use super::queue::{Job, Put, tags};
use super::record::{self, Head, Header, Kind, Ref, SEGMENT_HEADER_BYTES, UNIT};
use super::volume::{Segment, Volume, segment_name};
use crate::key::Hash;

/// Written at once.
const BATCH_BYTES: usize = 1024 * 1024;

/// The index is saved when so much time has gone by since something was written.
const SAVE_AFTER: Duration = Duration::from_secs(60);

/// There is no longer tail to be read at a start, as far as segments go.
const SAVE_BYTES: u64 = 64 * 1024 * 1024;

pub(crate) struct Writer {
    pub(crate) volume: Arc<Volume>,
    active: Option<Active>,
    next_generation: u32,
    /// Written since the index was saved.
    unsaved_bytes: u64,
    saved_at: Instant,
}

/// The segment that is written to.
struct Active {
    segment: Arc<Segment>,
    /// Where the batch begins.
    at: u64,
    batch: Vec<u8>,
    /// What is to be done when the batch is written.
    deeds: Vec<Deed>,
}

enum Deed {
    Insert(Entry),
    Relocate(Entry, Entry),
    Remove(u64),
    Land(Landing),
}

impl Active {
    fn end(&self) -> u64 {
        self.at + self.batch.len() as u64
    }
}

impl Writer {
    pub(crate) fn new(volume: Arc<Volume>, next_generation: u32) -> Writer {
        Writer {
            volume,
            active: None,
            next_generation,
            unsaved_bytes: 0,
            saved_at: Instant::now(),
        }
    }

    /// Works until the queue is closed and empty, then saves the index.
    pub(crate) fn run(mut self) {
        let volume = self.volume.clone();
        let worked = catch_unwind(AssertUnwindSafe(|| self.work()));
        match worked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => volume.fail("cannot write", &error),
            Err(_) => volume.fail("cannot write", &io::Error::other("internal error")),
        }
    }

    fn work(&mut self) -> io::Result<()> {
        while let Some(jobs) = self.volume.queue.take(SAVE_AFTER) {
            let tags = tags(&jobs);
            let mut flushed = Vec::new();
            for job in jobs {
                match job {
                    Job::Flush(done, save) => {
                        self.flush()?;
                        if save {
                            self.save()?;
                        }
                        flushed.push(done);
                    }
                    job => self.job(job)?,
                }
            }
            self.flush()?;
            self.volume.queue.settled(tags);
            for done in flushed {
                // Who asked may be gone.
                let _ = done.send(());
            }
            self.save_if_due()?;
            if self.volume.is_off() {
                return Ok(());
            }
        }
        self.flush()?;
        if self.unsaved_bytes > 0 {
            self.save()?;
        }
        Ok(())
    }

    fn job(&mut self, job: Job) -> io::Result<()> {
        match job {
            Job::Put(put) => self.put(*put),
            Job::Block {
                landing,
                tag,
                bytes,
            } => self.block(landing, tag, &bytes),
            Job::Gone(hash) => self.gone(hash),
            Job::Flush(..) => Ok(()),
        }
    }

    fn put(&mut self, put: Put) -> io::Result<()> {
        let tag = put.hash.half();
        let blocks = put.coming.map(|coming| coming.refs());
        let table = match blocks.filter(|refs| !refs.is_empty()) {
            Some(refs) => match self.table(put.id, tag, put.body_bytes, &refs)? {
                Some(table) => Some(table),
                None => return Ok(()),
            },
            None => None,
        };
        let head = Head {
            hash: put.hash,
            asked_at: put.asked_at,
            body_bytes: put.body_bytes,
            variant: put.variant,
            table,
            key: put.key,
            meta: put.meta,
            body: put.body,
        };
        if head.table.is_none() && head.body.len() as u64 != head.body_bytes {
            // Its blocks did not find room.
            return Ok(());
        }
        if let Some(entry) = self.head(put.id, &head)? {
            self.deed(Deed::Insert(entry));
        }
        Ok(())
    }

    fn block(&mut self, landing: Landing, tag: u64, bytes: &Bytes) -> io::Result<()> {
        // What nobody will finish is not worth writing.
        if landing.coming().is_given_up() {
            return Ok(());
        }
        let ids = (landing.coming().id, tag, landing.number());
        if let Some(place) = self.append(Kind::Block, ids, &[bytes])? {
            landing.set_place(place);
            self.deed(Deed::Land(landing));
        }
        Ok(())
    }

    /// Writes where blocks are. `None`: it does not fit into a segment.
    fn table(
        &mut self,
        id: u64,
        tag: u64,
        body_bytes: u64,
        refs: &[Ref],
    ) -> io::Result<Option<Ref>> {
        let count = u32::try_from(body_bytes.div_ceil(crate::body::BLOCK_BYTES));
        let Ok(count) = count else {
            return Ok(None);
        };
        let mut payload = Vec::new();
        for number in 0..count {
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            let place = refs.get(at).copied().unwrap_or_default();
            payload.extend_from_slice(&place.to_bytes(id, number));
        }
        self.append(Kind::Table, (id, tag, count), &[&payload])
    }

    fn head(&mut self, id: u64, head: &Head) -> io::Result<Option<Entry>> {
        let tag = head.hash.half();
        let fixed = head.fixed();
        let parts: [&[u8]; 4] = [&fixed, &head.key, &head.meta, &head.body];
        let units = record::record_bytes(head.payload_bytes()) / UNIT;
        let Ok(units) = u16::try_from(units) else {
            return Ok(None);
        };
        let Some(place) = self.append(Kind::Head, (id, tag, 0), &parts)? else {
            return Ok(None);
        };
        let slot = self.active.as_ref().map_or(0, |active| active.segment.slot);
        Ok(Some(Entry {
            tag,
            slot,
            offset: place.offset,
            units,
            variant: head.variant,
            asked_at: head.asked_at,
            several: head.table.is_some(),
            used: false,
        }))
    }

    fn gone(&mut self, hash: Hash) -> io::Result<()> {
        self.append(Kind::Gone, (0, hash.half(), 0), &[&hash.0.to_le_bytes()])?;
        self.deed(Deed::Remove(hash.half()));
        Ok(())
    }

    fn deed(&mut self, deed: Deed) {
        if let Some(active) = &mut self.active {
            active.deeds.push(deed);
        }
    }

    // --- Segments --------------------------------------------------------------------------------

    /// Appends a record and says where it is. `None`: no segment has room for such a long one.
    fn append(
        &mut self,
        kind: Kind,
        ids: (u64, u64, u32),
        parts: &[&[u8]],
    ) -> io::Result<Option<Ref>> {
        let payload: usize = parts.iter().map(|part| part.len()).sum();
        let len = record::record_bytes(payload);
        let room = self.volume.limits.segment_bytes;
        if len + SEGMENT_HEADER_BYTES as u64 > room / 2 {
            return Ok(None);
        }
        match &self.active {
            Some(active) if active.end() + len <= room => {}
            _ => self.rotate()?,
        }
        let Some(active) = &mut self.active else {
            return Ok(None);
        };
        let offset = u32::try_from(active.end() / UNIT).map_err(io::Error::other)?;
        let generation = active.segment.generation;
        let header = Header::of(kind, generation, ids, parts);
        record::write(&mut active.batch, &header, parts);
        if active.batch.len() >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(Some(Ref { generation, offset }))
    }

    /// Writes what was collected; from then on it can be found.
    fn flush(&mut self) -> io::Result<()> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if !active.batch.is_empty() {
            active.segment.file.write_at(active.at, &active.batch)?;
            let len = active.batch.len() as u64;
            active.at += len;
            active.segment.len_bytes.store(active.at, Release);
            self.unsaved_bytes += len;
            self.volume.counters.written_bytes.fetch_add(len, Relaxed);
            active.batch.clear();
        }
        for deed in active.deeds.drain(..) {
            match deed {
                Deed::Insert(entry) => self.volume.index.insert(entry),
                Deed::Relocate(from, to) => {
                    self.volume.index.relocate(&from, to);
                }
                Deed::Remove(tag) => {
                    self.volume.index.remove(tag, |_| true);
                }
                Deed::Land(landing) => landing.land(),
            }
        }
        Ok(())
    }

    /// Begins another segment, and makes room for the one after it.
    fn rotate(&mut self) -> io::Result<()> {
        self.flush()?;
        if let Some(active) = self.active.take() {
            active.segment.file.sync()?;
        }
        while !self.has_room(1) {
            // Only after a start with less room than before: nothing is carried over.
            if !self.evict(0)? {
                return Err(io::Error::other("there is no room for a segment"));
            }
        }
        self.begin_segment()?;
        let carry = self.volume.limits.segment_bytes / 4;
        while !self.has_room(1) || self.volume.index.len() > self.volume.limits.max_objects {
            if !self.evict(carry)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether so many whole segments would find room beside those that are there.
    fn has_room(&self, segments: u64) -> bool {
        let limits = &self.volume.limits;
        let there = self.volume.segments.read();
        let active = self.active.as_ref().map_or(0, |active| {
            limits.segment_bytes - active.segment.len_bytes.load(Relaxed)
        });
        let bytes = there.bytes() + active + segments * limits.segment_bytes;
        let has_slot = there.free_slot().is_some();
        drop(there);
        has_slot && bytes + self.volume.other_bytes() <= limits.size_bytes
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let volume = &self.volume;
        let generation = self.next_generation;
        self.next_generation = generation
            .checked_add(1)
            .ok_or_else(|| io::Error::other("too many segments"))?;
        let path = volume.dir.join(segment_name(generation));
        let file = volume.layer.create(&path)?;
        file.expect_scattered_reads();
        file.write_at(0, &record::segment_header(volume.store, generation))?;
        volume.layer.sync_dir(&volume.dir)?;
        let at = SEGMENT_HEADER_BYTES as u64;
        let slot = volume.segments.read().free_slot();
        let segment = Arc::new(Segment {
            generation,
            slot: slot.ok_or_else(|| io::Error::other("too many segments"))?,
            file,
            path,
            len_bytes: AtomicU64::new(at),
        });
        volume.segments.write().add(segment.clone());
        self.active = Some(Active {
            segment,
            at,
            batch: Vec::new(),
            deeds: Vec::new(),
        });
        Ok(())
    }

    /// Lets the oldest segment go, and carries over at most so many bytes of what was used since it
    /// was written. False: there is none to go.
    fn evict(&mut self, carry: u64) -> io::Result<bool> {
        let active = self.active.as_ref().map(|active| active.segment.generation);
        let oldest = {
            let segments = self.volume.segments.read();
            let others = segments.all().filter(|one| Some(one.generation) != active);
            others.min_by_key(|one| one.generation).cloned()
        };
        let Some(oldest) = oldest else {
            return Ok(false);
        };
        if carry > 0 {
            self.carry(&oldest, carry)?;
            self.flush()?;
        }
        let before = self.volume.index.len();
        self.volume.index.retain(|entry| entry.slot != oldest.slot);
        let gone = before.saturating_sub(self.volume.index.len());
        self.volume.counters.evicted.fetch_add(gone as u64, Relaxed);
        // First nobody finds it any more, then it goes; who reads it has it open.
        self.volume.segments.write().remove(&oldest);
        self.volume.layer.remove(&oldest.path)?;
        Ok(true)
    }

    // --- Carrying over: see carry.rs -------------------------------------------------------------

    /// Whether so much more fits into the segment that is written to.
    pub(super) fn fits(&self, len: u64) -> bool {
        let room = self.volume.limits.segment_bytes;
        self.active
            .as_ref()
            .is_some_and(|active| active.end() + len <= room)
    }

    pub(super) fn carry_head(&mut self, from: Entry, id: u64, head: &Head) -> io::Result<()> {
        if let Some(to) = self.head(id, head)? {
            self.deed(Deed::Relocate(from, to));
            self.volume.counters.carried.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    pub(super) fn carry_block(
        &mut self,
        ids: (u64, u64, u32),
        bytes: &Bytes,
    ) -> io::Result<Option<Ref>> {
        self.append(Kind::Block, ids, &[bytes])
    }

    pub(super) fn carry_table(
        &mut self,
        id: u64,
        tag: u64,
        body_bytes: u64,
        refs: &[Ref],
    ) -> io::Result<Option<Ref>> {
        self.table(id, tag, body_bytes, refs)
    }

    // --- Saving ----------------------------------------------------------------------------------

    fn save_if_due(&mut self) -> io::Result<()> {
        if self.unsaved_bytes == 0 {
            return Ok(());
        }
        // A large index is saved less often: no more is written for it than an eighth of what is
        // written anyway.
        let index = checkpoint::file_bytes(self.volume.index.len(), 0);
        if self.unsaved_bytes >= SAVE_BYTES.max(8 * index) || self.saved_at.elapsed() >= SAVE_AFTER
        {
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> io::Result<()> {
        if let Some(active) = &self.active {
            active.segment.file.sync()?;
        }
        let volume = &self.volume;
        let known = volume.known();
        checkpoint::save(
            &*volume.layer,
            &volume.dir,
            volume.store,
            &known,
            &volume.index,
        )?;
        self.unsaved_bytes = 0;
        self.saved_at = Instant::now();
        Ok(())
    }
}
