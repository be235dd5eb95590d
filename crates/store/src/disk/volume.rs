//! One directory: its segments and their index, as readers and the writer share them.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use super::Got;
use super::checkpoint::{self, Known};
use super::identity::{self, Identity};
use super::index::{Entry, Index};
use super::layer::{Layer, LayerFile};
use super::queue::Queue;
use super::record::{self, HEADER_BYTES, Head, Header, Kind, REF_BYTES, Ref, UNIT};
use super::rule_log::RuleLog;

/// That it is there says: what is in this directory is not to be used again.
pub(crate) const DIRTY: &str = "dirty";

/// What a directory is and may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// All files of it together.
    pub(crate) size_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) max_objects: usize,
    pub(crate) on_failure: fn(&str),
}

/// A file of records.
pub(crate) struct Segment {
    pub(crate) generation: u32,
    pub(crate) slot: u16,
    pub(crate) file: Arc<dyn LayerFile>,
    pub(crate) path: PathBuf,
    /// What has been written to it.
    pub(crate) len_bytes: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Segments {
    pub(crate) slots: Vec<Option<Arc<Segment>>>,
    by_generation: FxHashMap<u32, u16>,
}

impl Segments {
    pub(crate) fn with_generation(&self, generation: u32) -> Option<&Arc<Segment>> {
        let slot = *self.by_generation.get(&generation)?;
        self.slots.get(usize::from(slot))?.as_ref()
    }

    pub(crate) fn at(&self, slot: u16) -> Option<&Arc<Segment>> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.slots.iter().flatten()
    }

    /// A place that is free; there are 65,536.
    pub(crate) fn free_slot(&self) -> Option<u16> {
        let free = self.slots.iter().position(Option::is_none);
        u16::try_from(free.unwrap_or(self.slots.len())).ok()
    }

    pub(crate) fn add(&mut self, segment: Arc<Segment>) {
        let at = usize::from(segment.slot);
        while self.slots.len() <= at {
            self.slots.push(None);
        }
        self.by_generation.insert(segment.generation, segment.slot);
        self.slots[at] = Some(segment);
    }

    pub(crate) fn remove(&mut self, segment: &Segment) {
        self.by_generation.remove(&segment.generation);
        self.slots[usize::from(segment.slot)] = None;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.all().map(|one| one.len_bytes.load(Relaxed)).sum()
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) written_bytes: AtomicU64,
    pub(crate) refused_queue: AtomicU64,
    pub(crate) refused_rate: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) carried: AtomicU64,
    pub(crate) damaged: AtomicU64,
}

/// See the module.
pub(crate) struct Volume {
    pub(crate) dir: PathBuf,
    pub(crate) layer: Arc<dyn Layer>,
    pub(crate) store: u128,
    pub(crate) limits: Limits,
    pub(crate) index: Index,
    pub(crate) segments: RwLock<Segments>,
    pub(crate) queue: Queue,
    pub(crate) rules: Mutex<RuleLog>,
    pub(crate) counters: Counters,
    is_off: AtomicBool,
    error: Mutex<Option<Failure>>,
    /// Kept from others while this is here.
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

/// Why a directory is not used any more.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    /// What is in it will be discarded at the next start, so nothing purged can come back.
    pub(crate) is_marked: bool,
}

/// How a read goes about a disk that has to be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Now,
    Wait,
}

/// A head that was read, and whose it is.
pub(crate) struct ReadHead {
    pub(crate) id: u64,
    pub(crate) head: Head,
}

/// What a volume begins with.
pub(crate) struct Begin {
    pub(crate) dir: PathBuf,
    pub(crate) layer: Arc<dyn Layer>,
    pub(crate) store: u128,
    pub(crate) limits: Limits,
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) queue: Queue,
    pub(crate) rules: RuleLog,
    pub(crate) lock: Box<dyn Any + Send + Sync>,
}

impl Volume {
    pub(crate) fn new(begin: Begin) -> Volume {
        Volume {
            dir: begin.dir,
            layer: begin.layer,
            store: begin.store,
            limits: begin.limits,
            index: begin.index,
            segments: RwLock::new(begin.segments),
            queue: begin.queue,
            rules: Mutex::new(begin.rules),
            counters: Counters::default(),
            is_off: AtomicBool::new(false),
            error: Mutex::new(None),
            lock: Mutex::new(Some(begin.lock)),
        }
    }

    // --- Failing ---------------------------------------------------------------------------------

    /// Whether the directory is not used any more.
    pub(crate) fn is_off(&self) -> bool {
        self.is_off.load(Acquire)
    }

    pub(crate) fn error(&self) -> Option<Failure> {
        self.error.lock().clone()
    }

    /// The directory is used no more, and what is in it is discarded at the next start: purges of
    /// the time in between are not written to it. Only the first failure counts.
    pub(crate) fn fail(&self, what: &str, error: &io::Error) {
        let mut slot = self.error.lock();
        if slot.is_some() {
            return;
        }
        let is_marked = mark_dirty(&*self.layer, &self.dir).is_ok();
        let text = format!("{}: {what}: {error}", self.dir.display());
        let failure = Failure { text, is_marked };
        *slot = Some(failure.clone());
        self.is_off.store(true, Release);
        drop(slot);
        (self.limits.on_failure)(&failure.text);
        self.queue.close();
        self.queue.clear();
        self.index.retain(|_| false);
    }

    /// The directory may be used by others from now on, and by this no more: who still has a
    /// block of it to read finds nothing.
    pub(crate) fn leave(&self) {
        self.error.lock().get_or_insert_with(|| Failure {
            text: format!("{}: it is not used any more", self.dir.display()),
            // Whoever uses it next does not hear of what is purged here.
            is_marked: false,
        });
        self.is_off.store(true, Release);
        self.lock.lock().take();
    }

    // --- Reading ---------------------------------------------------------------------------------

    fn read(&self, segment: &Segment, at: u64, len: usize, how: How) -> Got<Bytes> {
        let mut bytes = BytesMut::new();
        let read = match how {
            How::Now => segment.file.read_now(at, len, &mut bytes),
            How::Wait => segment.file.read_at(at, len, &mut bytes).map(|()| true),
        };
        match read {
            Ok(true) => Got::Here(bytes.freeze()),
            Ok(false) => Got::Wait,
            // What is done about it needs the disk, so it is found out once more by who may wait.
            Err(_) if how == How::Now => Got::Wait,
            Err(error) => {
                self.fail("cannot read", &error);
                Got::Absent
            }
        }
    }

    /// Reads a head with the key that it must have; what is not as it should be is forgotten.
    pub(crate) fn read_head(
        &self,
        generation: u32,
        entry: &Entry,
        key: Option<&[u8]>,
        how: How,
    ) -> Got<ReadHead> {
        if self.is_off() {
            return Got::Absent;
        }
        let segment = self.segments.read().at(entry.slot).cloned();
        let Some(segment) = segment.filter(|segment| segment.generation == generation) else {
            return Got::Absent;
        };
        let bytes = match self.read(&segment, entry.at_bytes(), entry.head_bytes(), how) {
            Got::Here(bytes) => bytes,
            Got::Absent => return Got::Absent,
            Got::Wait => return Got::Wait,
        };
        match check_head(bytes, generation, entry, key) {
            Some(read) => Got::Here(read),
            None => {
                self.counters.damaged.fetch_add(1, Relaxed);
                self.index.remove(entry.tag, |there| there.is_at(entry));
                Got::Absent
            }
        }
    }

    /// Reads where a block is.
    fn read_ref(&self, table: Ref, id: u64, number: u32, how: How) -> Got<Ref> {
        let Some(segment) = self
            .segments
            .read()
            .with_generation(table.generation)
            .cloned()
        else {
            return Got::Absent;
        };
        let at = u64::from(table.offset) * UNIT
            + HEADER_BYTES as u64
            + u64::from(number) * REF_BYTES as u64;
        match self.read(&segment, at, REF_BYTES, how) {
            Got::Here(bytes) => Ref::parse(&bytes, id, number).map_or(Got::Absent, Got::Here),
            Got::Absent => Got::Absent,
            Got::Wait => Got::Wait,
        }
    }

    /// Reads a block of a body whose table is there.
    pub(crate) fn read_block(
        &self,
        table: Ref,
        (id, body_bytes): (u64, u64),
        number: u32,
        how: How,
    ) -> Got<Bytes> {
        let Some(len) = record::block_bytes(body_bytes, number) else {
            return Got::Absent;
        };
        if self.is_off() {
            return Got::Absent;
        }
        match self.read_ref(table, id, number, how) {
            Got::Here(place) => self.read_block_at(place, id, number, len, how),
            Got::Absent => Got::Absent,
            Got::Wait => Got::Wait,
        }
    }

    /// Reads a block of a body that is known to be there.
    pub(crate) fn read_block_in(
        &self,
        place: Ref,
        (id, body_bytes): (u64, u64),
        number: u32,
        how: How,
    ) -> Got<Bytes> {
        match record::block_bytes(body_bytes, number) {
            Some(len) if !self.is_off() => self.read_block_at(place, id, number, len, how),
            _ => Got::Absent,
        }
    }

    /// Where a block of a body is, by its table.
    pub(crate) fn block_in_table(&self, table: Ref, id: u64, number: u32) -> Option<Ref> {
        match self.read_ref(table, id, number, How::Wait) {
            Got::Here(place) => Some(place),
            Got::Absent | Got::Wait => None,
        }
    }

    /// Has the disk begin to read a block of so many bytes that is there.
    pub(crate) fn will_read(&self, place: Ref, len: u32) {
        if let Some(segment) = self.segments.read().with_generation(place.generation) {
            let record = HEADER_BYTES + usize::try_from(len).unwrap_or(0);
            let at = u64::from(place.offset) * UNIT;
            segment.file.will_read(at, record);
        }
    }

    /// Reads where all blocks of a body are.
    pub(crate) fn read_table(&self, table: Ref, id: u64, count: usize) -> Option<Vec<Ref>> {
        let segment = self
            .segments
            .read()
            .with_generation(table.generation)
            .cloned()?;
        let len = HEADER_BYTES + count.checked_mul(REF_BYTES)?;
        let at = u64::from(table.offset) * UNIT;
        let Got::Here(bytes) = self.read(&segment, at, len, How::Wait) else {
            return None;
        };
        let (header, payload) = record::whole(bytes)?;
        let fits = header.kind == Kind::Table
            && header.generation == table.generation
            && header.id == id
            && payload.len() == count * REF_BYTES;
        let refs = payload.chunks_exact(REF_BYTES).filter(|_| fits);
        // One that is damaged is nowhere.
        let refs = refs
            .zip(0..)
            .map(|(bytes, number)| Ref::parse(bytes, id, number).unwrap_or_default());
        Some(refs.collect()).filter(|refs: &Vec<Ref>| refs.len() == count)
    }

    pub(crate) fn read_block_at(
        &self,
        place: Ref,
        id: u64,
        number: u32,
        len: u32,
        how: How,
    ) -> Got<Bytes> {
        let Some(segment) = self
            .segments
            .read()
            .with_generation(place.generation)
            .cloned()
        else {
            return Got::Absent;
        };
        // At most a block.
        let record = HEADER_BYTES + usize::try_from(len).unwrap_or(0);
        let at = u64::from(place.offset) * UNIT;
        let bytes = match self.read(&segment, at, record, how) {
            Got::Here(bytes) => bytes,
            Got::Absent => return Got::Absent,
            Got::Wait => return Got::Wait,
        };
        let whole = record::whole(bytes).filter(|(header, _)| {
            header.kind == Kind::Block
                && header.generation == place.generation
                && header.id == id
                && header.number == number
                && header.payload_bytes == len
        });
        match whole {
            Some((_, bytes)) => Got::Here(bytes),
            None => {
                self.counters.damaged.fetch_add(1, Relaxed);
                Got::Absent
            }
        }
    }

    // --- What is known at a start ----------------------------------------------------------------

    /// All segments, as far as they are written.
    pub(crate) fn known(&self) -> Vec<Known> {
        let segments = self.segments.read();
        let known = segments.all().map(|segment| Known {
            generation: segment.generation,
            slot: segment.slot,
            len_bytes: segment.len_bytes.load(Acquire),
        });
        known.collect()
    }

    /// Everything in the directory that belongs to it, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.read().bytes() + self.other_bytes() / 2
    }

    /// The room that files beside segments may take while they are written anew.
    pub(crate) fn other_bytes(&self) -> u64 {
        let segments = self.segments.read().slots.len();
        let index = checkpoint::file_bytes(self.index.len(), segments + 1);
        2 * (index + self.rules.lock().len_bytes()) + 4096
    }
}

/// A head's record that is whole, and the one that was meant.
pub(crate) fn check_head(
    bytes: Bytes,
    generation: u32,
    entry: &Entry,
    key: Option<&[u8]>,
) -> Option<ReadHead> {
    let (header, payload) = record::whole(bytes)?;
    let fits = header.kind == Kind::Head
        && header.generation == generation
        && header.tag.max(1) == entry.tag.max(1);
    let head = Head::parse(&payload).filter(|_| fits)?;
    let is_meant = key.is_none_or(|key| *head.key == *key) && head.hash.half() == header.tag;
    is_meant.then_some(ReadHead {
        id: header.id,
        head,
    })
}

/// Sees to it that what is in a directory is not used again.
pub(crate) fn mark_dirty(layer: &dyn Layer, dir: &Path) -> io::Result<()> {
    let marked = layer.create(&dir.join(DIRTY)).and_then(|file| file.sync());
    // On a disk that is full there may be no room for a mark. There is for taking a name away, and
    // without this one the others mean nothing.
    let marked = marked.or_else(|_| layer.remove(&dir.join(identity::NAME)));
    marked.and_then(|()| layer.sync_dir(dir))
}

/// What stands in a segment.
pub(crate) enum Seen<'a> {
    /// A record whose payload was not read.
    Record(&'a Header),
    /// One of which all is read, and where it is in bytes: a head, or the word that something is
    /// gone.
    Whole(u64, &'a Header, Bytes),
}

/// Shows all records of a segment from `at` on. Between what is damaged it finds those that are
/// not: pages that have not reached the disk may lie anywhere.
pub(crate) fn walk(
    file: &dyn LayerFile,
    generation: u32,
    mut at: u64,
    end: u64,
    mut see: impl FnMut(Seen<'_>),
) -> io::Result<()> {
    /// Read at once.
    const WINDOW: usize = 512 * 1024;
    let mut window = BytesMut::new();
    let mut window_at = at;
    let read = |window: &mut BytesMut, at: u64, len: usize| {
        window.clear();
        file.read_at(at, len, window)
    };
    while at + HEADER_BYTES as u64 <= end {
        let mut within = usize::try_from(at - window_at).unwrap_or(usize::MAX);
        if within.saturating_add(HEADER_BYTES) > window.len() {
            read(&mut window, at, WINDOW)?;
            (window_at, within) = (at, 0);
            if window.len() < HEADER_BYTES {
                return Ok(());
            }
        }
        let header = Header::parse(&window[within..]);
        let Some(header) = header.filter(|header| header.generation == generation) else {
            at += UNIT;
            continue;
        };
        if !matches!(header.kind, Kind::Head | Kind::Gone) {
            see(Seen::Record(&header));
            at += header.record_bytes();
            continue;
        }
        let len = header.record_bytes();
        if len > MAX_HEAD_BYTES {
            at += UNIT;
            continue;
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if within + len > window.len() {
            read(&mut window, at, len.max(WINDOW))?;
            (window_at, within) = (at, 0);
        }
        let bytes = &window[within..window.len().min(within + len)];
        let payload = &bytes[HEADER_BYTES.min(bytes.len())..];
        let payload_len = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
        match payload.get(..payload_len) {
            Some(payload) if crc32c::crc32c(payload) == header.payload_crc => {
                see(Seen::Whole(at, &header, Bytes::copy_from_slice(payload)));
                at += header.record_bytes();
            }
            _ => at += UNIT,
        }
    }
    Ok(())
}

/// No head is longer, with all that stands in it.
const MAX_HEAD_BYTES: u64 = 1024 * 1024;

/// The name of a segment's file.
pub(crate) fn segment_name(generation: u32) -> String {
    format!("segment-{generation:08x}")
}

/// The generation in a segment's name.
pub(crate) fn generation_of(name: &str) -> Option<u32> {
    let hex = name.strip_prefix("segment-")?;
    (hex.len() == 8).then_some(())?;
    u32::from_str_radix(hex, 16).ok()
}

/// Whether a file of this name is the store's.
pub(crate) fn is_ours(name: &str) -> bool {
    let base = name.strip_suffix(".new").unwrap_or(name);
    [
        identity::NAME,
        super::rule_log::NAME,
        checkpoint::NAME,
        DIRTY,
    ]
    .contains(&base)
        || generation_of(name).is_some()
}

/// Reads whose a directory is.
pub(crate) type Whose = Option<Result<Identity, identity::Unread>>;
