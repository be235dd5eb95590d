//! The disk tier: objects in a log of large files, found by an index in memory.
//!
//! ```text
//!   put ──▶ admitted? ──▶ queue ──▶ one thread per disk ──▶ segment ──▶ index
//!                │ no                  appends, evicts, saves the index    │
//!                ▼                                                         ▼
//!           not stored                                    find, read_head, read_block: by whoever asks
//! ```
//!
//! What is in a directory, by name: `store` (whose it is), `rules` (what has been purged), `index`
//! (the saved index), `segment-…` (the objects), `lock`. The formats are laid down in
//! `docs/internals/disk-format.md`.
//!
//! *Invariant*: nothing that was read is used before its checksum, its generation, its id and its key
//! were compared. *Invariant*: nobody but the writer's thread waits for a write, but for purges,
//! which are acknowledged when they are on the disk.

mod admit;
mod carry;
pub mod checkpoint;
mod coming;
pub mod identity;
mod index;
mod intake;
mod layer;
mod queue;
pub mod record;
mod recover;
pub mod rule_log;
mod scan;
mod volume;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;

pub use self::admit::Admit;
pub use self::index::{Entry, Index};
pub use self::intake::Intake;
pub use self::layer::{Layer, LayerFile, SystemFiles};
pub use self::recover::ASIDE;
pub use self::rule_log::{MAX_RULE_BYTES, Written};

use self::admit::Seen;
use self::coming::Coming;
use self::queue::{Job, Refused};
use self::record::Ref;
use self::volume::{How, ReadHead, Volume};
use self::writer::Writer;
use crate::key::{Hash, Secret};
use crate::rules::Rule;

/// How a disk tier is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// All that a directory holds, in bytes.
    pub size_bytes: u64,
    /// More than this is not stored; 0: no limit.
    pub write_bytes_per_second: u64,
    /// What is stored.
    pub admit: Admit,
    /// What may wait to be written, for each directory.
    pub queue_bytes: usize,
    /// Objects that the index of each directory may hold: it is in memory.
    pub max_objects: usize,
    /// How long a segment is; `None`: by the size.
    pub segment_bytes: Option<u64>,
    /// The secret of a new store.
    pub secret: [u8; 16],
    /// Is told, in words, when a directory is not used any more; on whichever thread finds out.
    pub on_failure: fn(&str),
}

/// An object to be stored.
pub struct Object<'a> {
    /// The hash of its key.
    pub hash: Hash,
    /// The whole key.
    pub key: &'a [u8],
    /// Which of the key's variants.
    pub variant: u16,
    /// The newest purge rule when it was asked for.
    pub asked_at: u64,
    /// What is to be kept with it.
    pub meta: Bytes,
}

/// Something that was found when the directories were opened.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Where.
    pub dir: PathBuf,
    /// What.
    pub what: What,
    /// In words.
    pub text: String,
}

/// What has happened to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is not used.
    Failed,
    /// What was in it is kept aside, and a new store is begun.
    Refused,
    /// What was in it is gone, and a new store is begun.
    Discarded,
    /// Some of what was in it is gone.
    Lost,
}

/// What is known of purges when the directories are open.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The number of the newest rule, or one that is higher.
    pub newest: u64,
    /// The rules that something may still be older than.
    pub rules: Vec<Written>,
    /// What to tell the operator.
    pub notices: Vec<Notice>,
}

/// Where an object's head is; it may be gone when it is read.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    volume: u16,
    generation: u32,
    entry: Entry,
}

/// What a read brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got<T> {
    /// What was asked for.
    Here(T),
    /// It is not there, or not as it must be.
    Absent,
    /// The disk would have to be waited for.
    Wait,
}

/// An object that was read: all but its blocks, if it has several.
#[derive(Clone, Debug)]
pub struct Found {
    /// The newest purge rule when it was asked for.
    pub asked_at: u64,
    /// What was kept with it.
    pub meta: Bytes,
    /// How long its body is.
    pub body_bytes: u64,
    /// Its body, or how to read it.
    pub body: FoundBody,
}

/// The body of an object that was read.
#[derive(Clone, Debug)]
pub enum FoundBody {
    /// All of it.
    Whole(Bytes),
    /// Its blocks are read one by one.
    Blocks(Blocks),
}

/// Where the blocks of a body are.
#[derive(Clone, Debug)]
pub struct Blocks {
    volume: u16,
    id: u64,
    body_bytes: u64,
    at: Where,
}

#[derive(Clone, Debug)]
enum Where {
    /// They stand in a table.
    Table(Ref),
    /// They were written since this process has begun, or will be.
    Coming(Arc<Coming>),
}

impl Blocks {
    /// Whether all of them are there, as far as is known: not while they come, nor when they have
    /// ceased to.
    pub fn is_whole(&self) -> bool {
        match &self.at {
            Where::Table(_) => true,
            Where::Coming(coming) => coming.is_whole(),
        }
    }

    /// Whether this one is there, as far as is known.
    pub fn has(&self, number: u32) -> bool {
        match &self.at {
            Where::Table(_) => true,
            Where::Coming(coming) => coming.find(number).is_some(),
        }
    }
}

/// What the tier holds, and has done.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Objects that can be found.
    pub objects: usize,
    /// What they take on the disks, with all that belongs to them.
    pub bytes: u64,
    /// Memory of the index.
    pub index_bytes: usize,
    /// Waits to be written.
    pub queue_bytes: usize,
    /// Was written since the start.
    pub written_bytes: u64,
    /// Objects that went to make room.
    pub evicted: u64,
    /// Objects that were carried over since they were used.
    pub carried: u64,
    /// Not stored: too much waited to be written.
    pub refused_queue: u64,
    /// Not stored: more than may be written in a second.
    pub refused_rate: u64,
    /// Reads that have found something else than they must.
    pub damaged: u64,
    /// Why directories are not used any more.
    pub errors: Vec<String>,
}

/// The disk tier of a store.
pub struct Disk {
    volumes: Box<[Arc<Volume>]>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    secret: Secret,
    epoch: u32,
    next_id: AtomicU64,
    seen: Option<Seen>,
    /// Why none of the directories is open. What is in them knows nothing of purges from now on; a
    /// single one that is not has missed them, and is emptied when it is opened with the others.
    unopened: Option<String>,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {}: {}", self.dir.display(), self.text)
    }
}

impl Notice {
    fn of(dir: &Path, what: What, text: String) -> Notice {
        let dir = dir.to_owned();
        Notice { dir, what, text }
    }

    fn refused(dir: &Path, why: &str) -> Notice {
        let text = format!("{why}; it is kept in `{ASIDE}`, and a new one is begun");
        Notice::of(dir, What::Refused, text)
    }
}

impl Disk {
    /// Opens the tier in these directories. Those that cannot be used are left out; the notices say
    /// why. This waits for the disks.
    pub fn open(
        layer: &Arc<dyn Layer>,
        dirs: &[PathBuf],
        options: &Options,
    ) -> (Arc<Disk>, Opened) {
        let recovered = recover::open(layer, dirs, options, random());
        let mut volumes = Vec::new();
        let mut threads = Vec::new();
        let mut notices = recovered.notices;
        for (volume, next_generation) in recovered.volumes {
            let volume = Arc::new(volume);
            let writer = Writer::new(volume.clone(), next_generation);
            let thread = std::thread::Builder::new().name("store".into());
            match thread.spawn(|| writer.run()) {
                Ok(thread) => {
                    threads.push(thread);
                    volumes.push(volume);
                }
                Err(error) => {
                    volume.fail("cannot start its thread", &error);
                    notices.push(Notice::of(&volume.dir, What::Failed, error.to_string()));
                }
            }
        }
        let failed = notices.iter().find(|notice| notice.what == What::Failed);
        let disk = Disk {
            unopened: failed.filter(|_| volumes.is_empty()).map(Notice::to_string),
            volumes: volumes.into(),
            threads: Mutex::new(threads),
            secret: Secret(recovered.identity.secret),
            epoch: recovered.identity.epoch,
            next_id: AtomicU64::new(0),
            seen: (options.admit == Admit::Second).then(Seen::new),
        };
        let opened = Opened {
            newest: recovered.newest,
            rules: recovered.rules,
            notices,
        };
        (Arc::new(disk), opened)
    }

    /// The hash of a key, under the secret of the directories: it outlives the process.
    pub fn hash(&self, key: &[u8]) -> Hash {
        self.secret.hash(key)
    }

    /// Never given before, nor by this store in its life so far.
    fn id(&self) -> u64 {
        let count = self.next_id.fetch_add(1, Relaxed) & ((1 << 40) - 1);
        u64::from(self.epoch) << 40 | count
    }

    /// The directory that something belongs to: the same one for the same hash, and when one comes
    /// or goes, for most others still the same, too (highest random weight).
    fn home(&self, hash: Hash) -> Option<(u16, &Arc<Volume>)> {
        let weight = |at: u64| {
            let mixed = hash.half() ^ at.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
            mixed ^ mixed >> 32
        };
        let there = (0_u16..).zip(&self.volumes);
        let there = there.filter(|(_, volume)| !volume.is_off());
        there.max_by_key(|(at, _)| weight(u64::from(*at)))
    }

    // --- Storing ---------------------------------------------------------------------------------

    /// Whether an object that somebody has asked for is to be stored, by what is admitted.
    pub fn wants(&self, hash: Hash) -> bool {
        self.seen.as_ref().is_none_or(|seen| seen.before(hash))
    }

    /// Offers an object whose body is all there: one piece if it is no longer than a block, else its
    /// blocks. False: it is not stored; nobody waits.
    pub fn put(&self, object: &Object<'_>, body: &[Bytes]) -> bool {
        let body_bytes = body.iter().map(|block| block.len() as u64).sum();
        self.begin(object.hash, body_bytes)
            .is_some_and(|intake| intake.put(object, body))
    }

    /// Begins to store an object, whose blocks are sent as they come if they are several. `None`:
    /// there is no disk.
    pub fn begin(&self, hash: Hash, body_bytes: u64) -> Option<Intake> {
        let (at, volume) = self.home(hash)?;
        Some(Intake {
            volume: volume.clone(),
            at,
            tag: hash.half(),
            coming: Coming::new(self.id(), body_bytes),
            is_over: false,
            sent: 0,
            is_refused: false,
            waiting: VecDeque::new(),
            why: Refused::Full,
        })
    }

    /// What is stored under this is gone, all variants of it.
    pub fn remove(&self, hash: Hash) {
        let tag = hash.half();
        for volume in self.volumes.iter().filter(|volume| !volume.is_off()) {
            // In this order: what does not wait any more is in the index already.
            let waits = volume.queue.is_pending(tag);
            if volume.index.remove(tag, |_| true) == 0 && !waits {
                continue;
            }
            if let Err(Refused::Full) = volume.queue.gone(hash) {
                // What was gone must not come back.
                volume.fail(
                    "cannot write",
                    &io::Error::other("too much is gone at once"),
                );
            }
        }
    }

    /// Notes that something was used, if it is there: it is carried over when its segment goes.
    pub fn used(&self, hash: Hash) {
        for volume in &self.volumes {
            volume.index.used(hash.half());
        }
    }

    // --- Finding ---------------------------------------------------------------------------------

    /// Where variants of this may be, the newest first. Asks no disk.
    pub fn find(&self, hash: Hash) -> SmallVec<[Place; 2]> {
        let mut places: SmallVec<[Place; 2]> = SmallVec::new();
        for (volume, at) in self.volumes.iter().zip(0_u16..) {
            if volume.is_off() {
                continue;
            }
            let entries = volume.index.find(hash.half());
            if entries.is_empty() {
                continue;
            }
            let segments = volume.segments.read();
            for entry in entries {
                if let Some(segment) = segments.at(entry.slot) {
                    places.push(Place {
                        volume: at,
                        generation: segment.generation,
                        entry,
                    });
                }
            }
        }
        places.sort_by_key(|place| std::cmp::Reverse((place.generation, place.entry.offset)));
        places
    }

    /// Reads an object's head, and its body if that is one block, as far as no disk has to be
    /// waited for.
    pub fn try_read(&self, place: &Place, key: &[u8]) -> Got<Found> {
        self.read_head(place, key, How::Now)
    }

    /// The same, and waits.
    pub fn read(&self, place: &Place, key: &[u8]) -> Option<Found> {
        match self.read_head(place, key, How::Wait) {
            Got::Here(found) => Some(found),
            Got::Absent | Got::Wait => None,
        }
    }

    fn read_head(&self, place: &Place, key: &[u8], how: How) -> Got<Found> {
        let Some(volume) = self.volumes.get(usize::from(place.volume)) else {
            return Got::Absent;
        };
        let ReadHead { id, head } =
            match volume.read_head(place.generation, &place.entry, Some(key), how) {
                Got::Here(read) => read,
                Got::Absent => return Got::Absent,
                Got::Wait => return Got::Wait,
            };
        volume.index.used(place.entry.tag);
        let body = match head.table {
            None => FoundBody::Whole(head.body),
            Some(table) => FoundBody::Blocks(Blocks {
                volume: place.volume,
                id,
                body_bytes: head.body_bytes,
                at: Where::Table(table),
            }),
        };
        Got::Here(Found {
            asked_at: head.asked_at,
            meta: head.meta,
            body_bytes: head.body_bytes,
            body,
        })
    }

    /// Reads one block as far as no disk has to be waited for. It may be gone while others are
    /// there.
    pub fn try_read_block(&self, blocks: &Blocks, number: u32) -> Got<Bytes> {
        self.block(blocks, number, How::Now)
    }

    /// The same, and waits.
    pub fn read_block(&self, blocks: &Blocks, number: u32) -> Option<Bytes> {
        match self.block(blocks, number, How::Wait) {
            Got::Here(bytes) => Some(bytes),
            Got::Absent | Got::Wait => None,
        }
    }

    /// Reads these blocks, up to the first one that is not there, and waits; but for all of them
    /// together, as far as the disk reads several at once.
    pub fn read_blocks(&self, blocks: &Blocks, numbers: std::ops::Range<u32>) -> Vec<Bytes> {
        numbers
            .clone()
            .for_each(|number| self.will_read(blocks, number));
        let each = numbers.map_while(|number| self.read_block(blocks, number));
        each.collect()
    }

    fn will_read(&self, blocks: &Blocks, number: u32) {
        let Some(volume) = self.volumes.get(usize::from(blocks.volume)) else {
            return;
        };
        let place = match &blocks.at {
            Where::Table(table) => volume.block_in_table(*table, blocks.id, number),
            Where::Coming(coming) => coming.find(number),
        };
        if let (Some(place), Some(len)) = (place, record::block_bytes(blocks.body_bytes, number)) {
            volume.will_read(place, len);
        }
    }

    fn block(&self, blocks: &Blocks, number: u32, how: How) -> Got<Bytes> {
        match self.volumes.get(usize::from(blocks.volume)) {
            Some(volume) => {
                let body = (blocks.id, blocks.body_bytes);
                match &blocks.at {
                    Where::Table(table) => volume.read_block(*table, body, number, how),
                    Where::Coming(coming) => match coming.find(number) {
                        Some(place) => volume.read_block_in(place, body, number, how),
                        None => Got::Absent,
                    },
                }
            }
            None => Got::Absent,
        }
    }

    // --- Purging ---------------------------------------------------------------------------------

    /// Writes a purge down; returns when it is on every disk. Waits for them.
    ///
    /// # Errors
    /// On one of them it could be neither written nor made sure that what is there is not used
    /// again, or the rule is too long.
    pub fn purge(&self, number: u64, rule: &Rule, soft: bool) -> io::Result<()> {
        let text = match rule {
            Rule::Url(text) | Rule::Prefix(text) | Rule::Host(text) | Rule::Tag(text) => &**text,
            Rule::All => &[],
        };
        if text.len() > MAX_RULE_BYTES {
            let text = format!("longer than {MAX_RULE_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut failed = match &self.unopened {
            None => Ok(()),
            Some(why) => Err(io::Error::other(why.clone())),
        };
        for volume in &self.volumes {
            if volume.is_off() {
                // Of what was marked as not to be used again, nothing comes back.
                if let Some(failure) = volume.error().filter(|failure| !failure.is_marked) {
                    failed = Err(io::Error::other(failure.text));
                }
                continue;
            }
            if let Err(error) = volume.rules.lock().append(number, rule, soft) {
                volume.fail("cannot write a purge", &error);
                let text = format!("{}: {error}", volume.dir.display());
                failed = Err(io::Error::new(error.kind(), text));
            }
        }
        failed
    }

    /// The oldest number that something stored was asked for at: rules up to this one are over.
    pub fn oldest_asked(&self) -> u64 {
        let mut oldest = u64::MAX;
        for volume in &self.volumes {
            // First what waits: it may be in the index by the time that this is looked at.
            oldest = oldest.min(volume.queue.oldest_asked());
            volume
                .index
                .each(|entry| oldest = oldest.min(entry.asked_at));
        }
        oldest
    }

    /// Whether files of rules are so long that it is worth while to write them anew.
    pub fn has_old_rules(&self, rules: usize) -> bool {
        let long = 64 * 1024 + rules as u64 * 512;
        self.volumes
            .iter()
            .any(|volume| !volume.is_off() && volume.rules.lock().len_bytes() > long)
    }

    /// What was asked for before this number is of no use any more, so rules up to it can be
    /// forgotten.
    pub fn set_floor(&self, floor: u64) {
        for volume in &self.volumes {
            volume.index.set_floor(floor);
        }
    }

    /// See [`set_floor`](Disk::set_floor).
    pub fn floor(&self) -> u64 {
        self.volumes
            .iter()
            .map(|volume| volume.index.floor())
            .max()
            .unwrap_or(0)
    }

    /// Lets go of all written rules but these. No rule may be added meanwhile, and only such may be
    /// missing as are not above the floor.
    pub fn keep_rules(&self, newest: u64, rules: &[Written]) {
        let numbers = (newest, self.floor());
        for volume in self.volumes.iter().filter(|volume| !volume.is_off()) {
            let compacted = volume.rules.lock().compact(numbers, rules);
            if let Err(error) = compacted {
                volume.fail("cannot write purges anew", &error);
            }
        }
    }

    // --- Otherwise -------------------------------------------------------------------------------

    /// What it holds, and has done.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for volume in &self.volumes {
            let counters = &volume.counters;
            usage.objects += volume.index.len();
            usage.index_bytes += volume.index.memory_bytes();
            usage.queue_bytes += volume.queue.bytes();
            if !volume.is_off() {
                usage.bytes += volume.bytes();
            }
            usage.written_bytes += counters.written_bytes.load(Relaxed);
            usage.evicted += counters.evicted.load(Relaxed);
            usage.carried += counters.carried.load(Relaxed);
            usage.refused_queue += counters.refused_queue.load(Relaxed);
            usage.refused_rate += counters.refused_rate.load(Relaxed);
            usage.damaged += counters.damaged.load(Relaxed);
            usage
                .errors
                .extend(volume.error().map(|failure| failure.text));
        }
        usage
    }

    /// Returns when all that was offered so far is written, or given up; `save`: the index, too.
    pub fn flush(&self, save: bool) {
        for volume in &self.volumes {
            let (done, wait) = sync_channel(1);
            volume.queue.tell(Job::Flush(done, save));
            // A writer that has ended has dropped the other end.
            let _ = wait.recv();
        }
    }

    /// Writes what waits, saves the index, and ends: nothing is found any more, and the directories
    /// may be opened by others. Waits for the disks.
    pub fn close(&self) {
        for volume in &self.volumes {
            volume.queue.close();
        }
        for thread in self.threads.lock().drain(..) {
            // Its panics are caught.
            let _ = thread.join();
        }
        for volume in &self.volumes {
            volume.leave();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

/// A number that no remote knows: the standard library's seeds are the system's randomness.
fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one(0_u8));
    half() << 64 | half()
}
