//! What is not in memory but on a disk.
//!
//! ```text
//!   miss ──▶ in the index? ──▶ head in the page cache? ──▶ taken up, and answered where it stands
//!                │ no             │ no
//!                ▼                ▼
//!            the origin       read on a thread of the pool; others who ask for it wait with it
//! ```
//!
//! A body of several blocks is brought in as it is read, a few blocks at a time.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use forebay_fields::Fields;
use forebay_store::disk::{Blocks, Got};
use forebay_store::{BLOCK_BYTES, Begin, Candidate, Filler, Follow, Hash, Lead, NotFilled, Pushed};

use super::fill::Filling;
use super::key::Key;
use super::stored::{Kept, Stored};
use super::vary::is_for;
use super::{Cache, Shared};
use crate::exchange::{Exchange, guard};
use crate::wheel::timeout;
use crate::worker::Worker;

/// A disk that does not answer for so long is not waited for: the origin is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// So many blocks are read in one visit to the pool.
const BLOCKS_AT_ONCE: u32 = 8;

/// What a look at the disks has come to.
pub enum OnDisk {
    Absent,
    Here(Kept),
    /// A disk has to be waited for.
    Wait(Reading),
}

/// What has to be waited for.
pub enum Reading {
    /// It is to be read; those who ask for the same meanwhile wait for this.
    Leads(Key, Lead<Stored>),
    /// Somebody reads it.
    Follows(Follow<Stored>),
}

impl Cache {
    /// Takes up what disks have for this request, if none has to be waited for.
    pub(super) fn find_on_disk(&self, exchange: &Exchange) -> OnDisk {
        let store = &self.shared.store;
        let key = Key::of(&self.shared, exchange);
        if !store.may_be_on_disk(&key.bytes) {
            return OnDisk::Absent;
        }
        // Under way as a question to the origin is: what makes this invalid meanwhile sees that it
        // is, and it is not taken up then.
        let flight = flight(key.hash);
        let now_ms = exchange.worker.now_ms();
        match store.begin_variant(key.hash, &key.bytes, flight, now_ms) {
            Begin::Lead(lead) => match store.look_on_disk(&key.bytes, false) {
                Got::Here(found) => {
                    let fields = &exchange.request.fields;
                    let object = self.take_up(&key, fields, found);
                    object.map_or(OnDisk::Absent, OnDisk::Here)
                }
                Got::Absent => OnDisk::Absent,
                Got::Wait => OnDisk::Wait(Reading::Leads(key, lead)),
            },
            Begin::Follow(follow) => OnDisk::Wait(Reading::Follows(follow)),
            Begin::Pass => OnDisk::Absent,
        }
    }

    /// Waits until what is on disks is in memory, or is not going to be. False: the disk does not
    /// answer, and is not to be waited for once more.
    pub(super) async fn read_from_disk(&self, exchange: &mut Exchange, reading: Reading) -> bool {
        let worker = exchange.worker.clone();
        match reading {
            Reading::Leads(key, lead) => {
                let (store, bytes) = (self.shared.store.clone(), key.bytes.clone());
                let read = move || store.look_on_disk(&bytes, true);
                let got = wait(&self.shared, &worker, read).await;
                let answers = got.is_some();
                if let Some(Got::Here(found)) = got {
                    self.take_up(&key, &exchange.request.fields, found);
                }
                drop(lead);
                answers
            }
            Reading::Follows(follow) => {
                let deadline = worker.wheel.register();
                // What has come is seen by looking again.
                let come = timeout(&deadline, worker.now_ms(), PATIENCE, follow).await;
                come.is_ok()
            }
        }
    }

    /// Puts what fits a request in memory.
    fn take_up(
        &self,
        key: &Key,
        fields: &Fields,
        mut found: Vec<Candidate<Stored>>,
    ) -> Option<Kept> {
        let store = &self.shared.store;
        let fits = found
            .iter()
            .position(|one| is_for(one.meta.vary.as_deref(), fields));
        // If none does, the newest one tells by what they are chosen: whoever asks for another
        // variant is not made to wait for this one's.
        let chosen = found.swap_remove(fits.unwrap_or(0));
        let object = store.take_up(key.hash, &key.bytes, chosen)?;
        (fits.is_some() && store.is_alive(&object)).then_some(object)
    }
}

impl Filling {
    /// Has bytes of an object brought in from a disk. `None`: it is on none, or on one that hangs.
    pub fn bring_from_disk(
        self: &Rc<Filling>,
        object: &Kept,
        at: u64,
        end: Option<u64>,
    ) -> Option<Result<(), NotFilled>> {
        if self.disk_hangs.get() {
            return None;
        }
        let begun = self.shared.store.fill_from_disk(object, at, end)?;
        Some(begun.map(|(filler, blocks)| {
            let worker = self.errand.worker().clone();
            let reading = read_in(self.clone(), filler, blocks);
            tokio::task::spawn_local(guard::Task::new(worker, reading));
        }))
    }

    /// Does on the pool what may wait for the disk; `None`: it is not waited for, now and whatever
    /// else of this object is wanted.
    async fn wait<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let done = wait(&self.shared, self.errand.worker(), work).await;
        self.disk_hangs.set(done.is_none());
        done
    }
}

/// So far an origin is asked for what a disk should have had: the rest may be there.
pub fn gap_end(filling: &Filling, object: &Kept, at: u64, end: Option<u64>) -> Option<u64> {
    if filling.disk_hangs.get() {
        return end;
    }
    match filling.shared.store.blocks_on_disk(object) {
        Some(blocks) if blocks.is_whole() => {
            let most = (at - at % BLOCK_BYTES).saturating_add(GAP_BYTES);
            Some(end.map_or(most, |end| end.min(most)))
        }
        _ => end,
    }
}

/// See [`gap_end`].
const GAP_BYTES: u64 = 8 * BLOCK_BYTES;

/// The bytes of an object from `at` to the end of their block, for one reader alone. `None`: no
/// disk has them.
pub async fn block_of(filling: Rc<Filling>, object: Kept, at: u64) -> Option<Bytes> {
    if filling.disk_hangs.get() {
        return None;
    }
    let store = &filling.shared.store;
    let blocks = store.blocks_on_disk(&object)?;
    let disk = store.disk()?.clone();
    let number = u32::try_from(at / BLOCK_BYTES).ok()?;
    let block = match disk.try_read_block(&blocks, number) {
        Got::Here(bytes) => bytes,
        Got::Absent => return None,
        Got::Wait => {
            let read = move || disk.read_block(&blocks, number);
            filling.wait(read).await??
        }
    };
    let within = usize::try_from(at % BLOCK_BYTES).ok()?;
    (within < block.len()).then(|| block.slice(within..))
}

/// Reads blocks of an object from a disk. What cannot be read stays absent, for whoever wants it to
/// fetch from the origin.
async fn read_in(filling: Rc<Filling>, mut filler: Filler<Stored>, blocks: Blocks) {
    let Some(disk) = filling.shared.store.disk().cloned() else {
        return filler.stop(false, true);
    };
    let range = filler.range();
    let number = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
    let mut next = number(range.start / BLOCK_BYTES);
    let end = number(range.end.div_ceil(BLOCK_BYTES));
    while next < end {
        let read: Vec<Bytes> = match disk.try_read_block(&blocks, next) {
            Got::Here(bytes) => vec![bytes],
            Got::Absent => Vec::new(),
            Got::Wait => {
                let (disk, blocks) = (disk.clone(), blocks.clone());
                let numbers = next..end.min(next.saturating_add(BLOCKS_AT_ONCE));
                let read = move || disk.read_blocks(&blocks, numbers);
                filling.wait(read).await.unwrap_or_default()
            }
        };
        if read.is_empty() {
            return filler.stop(false, true);
        }
        for bytes in read {
            next += 1;
            match filler.push(&bytes) {
                Pushed::More => {}
                // Somebody else brings the rest.
                Pushed::Enough => next = end,
                Pushed::TooMuch => return filler.stop(false, true),
            }
        }
    }
    filler.finish();
}

/// Does what may wait for a disk where that is done, for a while. `None`: too many wait for it, or
/// it does not answer.
async fn wait<T: Send + 'static>(
    shared: &Shared,
    worker: &Worker,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let deadline = worker.wheel.register();
    let work = worker.files.pool.run_or_refuse(lane(shared), work);
    let done = timeout(&deadline, worker.now_ms(), PATIENCE, Box::pin(work)).await;
    done.ok()?.ok()
}

/// Where those wait who wait for the disks of this cache.
pub fn lane(shared: &Shared) -> u64 {
    LANES | shared.id
}

/// What is asked of a disk is no question to an origin.
const READING: Hash = Hash(0xD15C);

/// By what it is known that something is read from a disk.
pub fn flight(key: Hash) -> Hash {
    key.with(READING)
}

/// The lanes of caches in the pool: other numbers than those of file systems.
const LANES: u64 = 1 << 63;
