//! The bytes of a stored response: a row of blocks.
//!
//! A block is absent, being filled, or in memory. One fill brings one run of absent blocks; readers
//! take what is there at once, and are woken as more of it comes. Nobody polls.
//!
//! ```text
//!   blocks  0       1       2       3       4       5
//!          [ there ][ there ][ fill ▶ · · · ][ absent ][ there ]
//!              ▲                 ▲
//!           reader            reader, waits for the fill's next bytes
//! ```
//!
//! A block never changes once it is there, and is read without a lock. A body of one block, which
//! most are, is one piece of memory and no row.

mod work;

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use forebay_sys::clock::coarse_ms;
use parking_lot::Mutex;

use self::work::{Run, Work};
use crate::disk::Blocks;

pub(crate) use self::work::Place;

/// How long every block is but the last.
pub const BLOCK_BYTES: u64 = 64 * 1024;

/// Where the length is not known.
const UNKNOWN: u64 = u64::MAX;

/// One fill goes on so far before the fastest reader when a body is too big to be kept...
pub const AHEAD_BYTES: u64 = 1024 * 1024;
/// ... and keeps so much behind it.
pub const WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// At most so many fills of one body at once: a far range has its own.
pub const MAX_FILLS: usize = 4;

/// A reader that wants what a fill will bring only after so much else is far from it: another fill
/// may bring that.
pub const FAR_BYTES: u64 = 1024 * 1024;

/// A body, or what is there of it.
pub(crate) struct Body {
    /// All of it, where it is one block.
    whole: OnceLock<Bytes>,
    /// Its blocks, where there are several, as soon as it is known how many.
    row: OnceLock<Box<[Slot]>>,
    len_bytes: AtomicU64,
    /// Blocks of the row that are in memory.
    resident: AtomicUsize,
    /// Those who read it now.
    readers: AtomicUsize,
    /// Only a window of it is kept, around its fastest reader.
    windowed: AtomicBool,
    /// A fill is under way.
    filling: AtomicBool,
    /// How often those who wait have been woken.
    round: AtomicU64,
    /// What is under way. Nothing in it is needed to read what is there.
    work: Mutex<Option<Box<Work>>>,
    /// Where its blocks are, if they came from a disk.
    on_disk: ArcSwapOption<Blocks>,
}

/// A block's place.
#[derive(Default)]
pub(crate) struct Slot {
    block: ArcSwapOption<Bytes>,
    uses: AtomicU8,
}

/// What a look at a body brings.
pub(crate) enum Look {
    /// Bytes from there on.
    Data(Bytes),
    /// There is nothing behind it.
    End,
    /// A fill will bring it.
    Wait,
    /// A fill will bring it, but much else before; said once.
    Far,
    /// No fill brings it.
    Absent,
    /// The fill that would have brought it has failed.
    Failed,
}

/// Why no fill was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFilled {
    /// It is there, or coming: look again.
    Needless,
    /// There are too many fills, or what came would not stay: who wants it has to fetch it for
    /// himself.
    Refused,
}

/// A fill as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillState {
    /// The first byte that it brings.
    pub from: u64,
    /// The byte that comes next.
    pub at: u64,
    /// One past the last byte that it brings; `None`: that is not known.
    pub to: Option<u64>,
    /// When it began, on the clock of [`coarse_ms`].
    pub since_ms: u64,
}

/// What a fill's bytes were to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// More is to come.
    More,
    /// The rest is brought by another fill: this one is at its end.
    Enough,
    /// More came than was to come.
    TooMuch,
}

/// What a fill has made of some bytes.
pub(crate) struct Landed {
    /// The number of a block that is complete now, and how long it is.
    pub(crate) block: u64,
    pub(crate) len_bytes: u64,
}

impl Body {
    /// A body of which nothing is there yet.
    pub(crate) fn new(len_bytes: Option<u64>) -> Body {
        let body = Body {
            whole: OnceLock::new(),
            row: OnceLock::new(),
            len_bytes: AtomicU64::new(UNKNOWN),
            resident: AtomicUsize::new(0),
            readers: AtomicUsize::new(0),
            windowed: AtomicBool::new(false),
            filling: AtomicBool::new(false),
            round: AtomicU64::new(0),
            work: Mutex::new(None),
            on_disk: ArcSwapOption::empty(),
        };
        if let Some(len_bytes) = len_bytes {
            body.set_len(len_bytes);
        }
        body
    }

    /// A body that is there.
    pub(crate) fn of(bytes: Bytes) -> Body {
        let body = Body::new(Some(bytes.len() as u64));
        if let Some(row) = body.row.get() {
            let mut rest = bytes;
            for slot in row {
                let len = usize::try_from(BLOCK_BYTES)
                    .unwrap_or(usize::MAX)
                    .min(rest.len());
                let block = Bytes::copy_from_slice(&rest.split_to(len));
                slot.block.store(Some(std::sync::Arc::new(block)));
            }
            body.resident.store(row.len(), Relaxed);
        } else {
            let _ = body.whole.set(bytes);
        }
        body
    }

    /// How long it is, once that is known.
    pub(crate) fn len_bytes(&self) -> Option<u64> {
        Some(self.len_bytes.load(Acquire)).filter(|len| *len != UNKNOWN)
    }

    /// All of it, where it is one block and there.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        self.whole.get()
    }

    /// One block of it, if that is in memory.
    pub(crate) fn block(&self, number: u64) -> Option<Bytes> {
        match self.row.get() {
            Some(_) => self.slot(number)?.block.load().as_deref().cloned(),
            None => self.whole.get().filter(|_| number == 0).cloned(),
        }
    }

    /// Puts a block where none is, of a body that nobody fills yet.
    pub(crate) fn set_block(&self, number: u64, block: Bytes) -> bool {
        let Some(slot) = self.slot(number) else {
            return false;
        };
        slot.block.store(Some(std::sync::Arc::new(block)));
        self.resident.fetch_add(1, Release);
        true
    }

    /// Whether every byte of it is in memory.
    pub(crate) fn is_complete(&self) -> bool {
        match self.row.get() {
            Some(row) => self.resident.load(Acquire) == row.len(),
            None => self.whole.get().is_some(),
        }
    }

    /// Whether a fill is under way.
    pub(crate) fn is_filling(&self) -> bool {
        self.filling.load(Acquire)
    }

    /// The fills that are under way.
    pub(crate) fn fills(&self) -> Vec<FillState> {
        let guard = self.work.lock();
        let runs = guard.iter().flat_map(|work| &work.runs);
        runs.map(|run| FillState {
            from: run.start,
            at: run.at(),
            to: Some(run.end).filter(|end| *end != UNKNOWN),
            since_ms: run.since_ms,
        })
        .collect()
    }

    /// Whether it does not stay as a whole: blocks go when the fastest reader is [`WINDOW_BYTES`]
    /// further, and who falls behind has to fetch the rest for himself.
    pub(crate) fn is_windowed(&self) -> bool {
        self.windowed.load(Acquire)
    }

    /// How many blocks of it are in memory.
    pub(crate) fn resident_blocks(&self) -> usize {
        match self.row.get() {
            Some(_) => self.resident.load(Relaxed),
            None => usize::from(self.whole.get().is_some()),
        }
    }

    /// How many read it now.
    pub(crate) fn readers(&self) -> usize {
        self.readers.load(Relaxed)
    }

    /// How many blocks there are in its row; none, where it is one block.
    pub(crate) fn blocks(&self) -> usize {
        self.row.get().map_or(0, |row| row.len())
    }

    pub(crate) fn on_disk(&self) -> Option<Blocks> {
        self.on_disk.load().as_deref().cloned()
    }

    pub(crate) fn set_on_disk(&self, blocks: Blocks) {
        self.on_disk.store(Some(std::sync::Arc::new(blocks)));
    }

    pub(crate) fn slot(&self, block: u64) -> Option<&Slot> {
        self.row.get()?.get(usize::try_from(block).ok()?)
    }

    /// A body without bytes is complete as it is.
    pub(crate) fn set_empty(&self) {
        let _ = self.whole.set(Bytes::new());
    }

    fn set_len(&self, len_bytes: u64) {
        if len_bytes > BLOCK_BYTES {
            let blocks = usize::try_from(len_bytes.div_ceil(BLOCK_BYTES)).unwrap_or(usize::MAX);
            let _ = self.row.set((0..blocks).map(|_| Slot::default()).collect());
        }
        self.len_bytes.store(len_bytes, Release);
    }

    // --- Reading ---------------------------------------------------------------------------------

    pub(crate) fn add_reader(&self) {
        self.readers.fetch_add(1, Relaxed);
    }

    /// One reader less; who fills may want to know that it was the last.
    pub(crate) fn remove_reader(&self) {
        if self.readers.fetch_sub(1, Relaxed) == 1 && self.is_filling() {
            let filler = match &mut *self.work.lock() {
                Some(work) => std::mem::take(&mut work.filler),
                None => Vec::new(),
            };
            wake(filler);
        }
    }

    /// The bytes from `at` on that are in memory, without a lock: up to the end of their block.
    pub(crate) fn resident(&self, at: u64) -> Option<Bytes> {
        if let Some(whole) = self.whole.get() {
            let at = usize::try_from(at).ok()?;
            return (at < whole.len()).then(|| whole.slice(at..));
        }
        let slot = self.slot(at / BLOCK_BYTES)?;
        let block = slot.block.load();
        let block = block.as_ref()?;
        use_once(&slot.uses);
        let within = usize::try_from(at % BLOCK_BYTES).ok()?;
        (within < block.len()).then(|| block.slice(within..))
    }

    /// What is there from `at` on; where a fill is to bring it, wakes the task of `cx` then.
    pub(crate) fn look(&self, at: u64, place: &mut Place, cx: &mut Context<'_>) -> Look {
        if let Some(bytes) = self.resident(at) {
            return Look::Data(bytes);
        }
        if self.len_bytes().is_some_and(|len| at >= len) {
            return Look::End;
        }
        let mut guard = self.work.lock();
        // What has landed meanwhile.
        if let Some(bytes) = self.resident(at) {
            return Look::Data(bytes);
        }
        let Some(work) = &mut *guard else {
            return match self.len_bytes() {
                Some(len) if at >= len => Look::End,
                _ => Look::Absent,
            };
        };
        let look = work.look(at, place, self.is_windowed());
        if let Look::Wait = look {
            work.wait(place, self.round.load(Relaxed), cx);
        }
        let filler = match look {
            // It is where the fill is: it may go on.
            Look::Wait if self.is_windowed() => std::mem::take(&mut work.filler),
            _ => Vec::new(),
        };
        drop(guard);
        wake(filler);
        look
    }

    /// Notes how far a reader is, where the fill goes by that.
    pub(crate) fn note_position(&self, at: u64) {
        if !self.is_windowed() {
            return;
        }
        let filler = match &mut *self.work.lock() {
            Some(work) if at > work.fastest => {
                work.fastest = at;
                std::mem::take(&mut work.filler)
            }
            _ => return,
        };
        wake(filler);
    }

    // --- Filling ---------------------------------------------------------------------------------

    /// Begins a fill of the absent bytes from the block on in which `at` is, up to `end`, or to the
    /// next block that is there or under way. What a fill that is far behind was to bring of that
    /// is taken over from it.
    pub(crate) fn begin(
        &self,
        at: u64,
        end: Option<u64>,
    ) -> Result<(u32, std::ops::Range<u64>), NotFilled> {
        let mut guard = self.work.lock();
        let len = self.len_bytes.load(Acquire);
        if self.whole.get().is_some() || at >= len {
            return Err(NotFilled::Needless);
        }
        if self.is_windowed() {
            return Err(NotFilled::Refused);
        }
        let work = guard.get_or_insert_default();
        let first = at - at % BLOCK_BYTES;
        let is_full = match len {
            // Nobody knows where a second one would have to end, nor which block comes next behind
            // what is gone.
            UNKNOWN => !work.runs.is_empty() || first > 0,
            _ => work.runs.len() >= MAX_FILLS,
        };
        let coming = work.runs.iter().position(|run| run.covers(at));
        let slow = match coming {
            Some(number) if !is_full && work.runs[number].is_far(first) => Some(number),
            Some(_) => return Err(NotFilled::Needless),
            None => None,
        };
        if self
            .slot(first / BLOCK_BYTES)
            .is_some_and(Slot::is_resident)
        {
            return Err(NotFilled::Needless);
        }
        if is_full {
            return Err(NotFilled::Refused);
        }
        let limit = slow.map_or(len, |number| work.runs[number].end);
        let wanted = end.unwrap_or(UNKNOWN).min(limit);
        let mut stop = first;
        while stop < wanted {
            let is_there = self.slot(stop / BLOCK_BYTES).is_some_and(Slot::is_resident);
            let is_coming = slow.is_none() && work.runs.iter().any(|run| run.covers(stop));
            if is_there || is_coming {
                break;
            }
            if len == UNKNOWN {
                stop = UNKNOWN;
                break;
            }
            stop = (stop + BLOCK_BYTES).min(len);
        }
        if let Some(number) = slow {
            work.runs[number].end = first;
        }
        let id = work.next_run;
        work.next_run += 1;
        work.runs.push(Run {
            id,
            block_at: first,
            pieces: Vec::new(),
            pieces_bytes: 0,
            start: first,
            end: stop,
            asked_end: stop,
            since_ms: coarse_ms(),
        });
        self.filling.store(true, Release);
        // Who waits for what the slow one will not bring any more has to find that out.
        let waiting = match slow {
            Some(_) => self.wake_all(work),
            None => Vec::new(),
        };
        drop(guard);
        wake(waiting);
        Ok((id, first..stop))
    }

    /// Takes what a fill has received.
    pub(crate) fn push(&self, run: u32, bytes: &Bytes, landed: &mut Vec<Landed>) -> Pushed {
        let mut guard = self.work.lock();
        let Some(work) = guard.as_deref_mut() else {
            return Pushed::TooMuch;
        };
        let Some(at) = work.runs.iter().position(|r| r.id == run) else {
            return Pushed::TooMuch;
        };
        let mut pushed = Pushed::More;
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let run = &mut work.runs[at];
            let block_end = (run.block_at + BLOCK_BYTES).min(run.end);
            let room = usize::try_from(block_end - run.at()).unwrap_or(usize::MAX);
            if room == 0 {
                pushed = Pushed::TooMuch;
                break;
            }
            let piece = rest.split_to(rest.len().min(room));
            run.pieces_bytes += piece.len() as u64;
            run.pieces.push(piece);
            if run.at() == block_end && (run.pieces_bytes == BLOCK_BYTES || run.end != UNKNOWN) {
                self.land(work, at, landed);
            }
        }
        if work.runs[at].has_enough() {
            pushed = Pushed::Enough;
        }
        if self.is_windowed() {
            self.drop_behind(work);
        }
        let waiting = self.wake_all(work);
        drop(guard);
        wake(waiting);
        pushed
    }

    /// A block is complete.
    fn land(&self, work: &mut Work, at: usize, landed: &mut Vec<Landed>) {
        let run = &mut work.runs[at];
        let number = run.block_at / BLOCK_BYTES;
        let block = join(std::mem::take(&mut run.pieces), run.pieces_bytes);
        landed.push(Landed {
            block: number,
            len_bytes: run.pieces_bytes,
        });
        run.block_at += run.pieces_bytes;
        run.pieces_bytes = 0;
        match self.slot(number) {
            Some(slot) => {
                slot.block.store(Some(std::sync::Arc::new(block)));
                self.resident.fetch_add(1, Release);
            }
            None if self.len_bytes.load(Acquire) == UNKNOWN => work.early.push(Some(block)),
            None => {
                let _ = self.whole.set(block);
            }
        }
    }

    /// The fill has come to its end. `None`: before it should have.
    pub(crate) fn finish(&self, run: u32, landed: &mut Vec<Landed>) -> Option<()> {
        let mut guard = self.work.lock();
        let work = (*guard).as_deref_mut()?;
        let at = work.runs.iter().position(|r| r.id == run)?;
        if work.runs[at].end == UNKNOWN {
            self.settle_len(work, at, landed);
        }
        let run = work.runs.remove(at);
        let is_whole = run.pieces_bytes == 0 && (run.block_at >= run.end || run.end == UNKNOWN);
        if is_whole && self.len_bytes() == Some(0) {
            self.set_empty();
        }
        if !is_whole {
            let id = run.id;
            work.note_failed(id);
        }
        let waiting = self.wake_all(work);
        self.filling.store(!work.runs.is_empty(), Release);
        if work.runs.is_empty() && is_whole {
            *guard = None;
        }
        drop(guard);
        wake(waiting);
        is_whole.then_some(())
    }

    /// What came is all there is: now it is known how much that is.
    fn settle_len(&self, work: &mut Work, at: usize, landed: &mut Vec<Landed>) {
        let len = work.runs[at].at();
        self.set_len(len);
        for (number, block) in std::mem::take(&mut work.early).into_iter().enumerate() {
            // Of these it is only known now that they stay.
            landed.push(Landed {
                block: number as u64,
                len_bytes: block.as_ref().map_or(0, |block| block.len() as u64),
            });
            match (self.slot(number as u64), block) {
                (_, None) => {}
                (Some(slot), Some(block)) => {
                    slot.block.store(Some(std::sync::Arc::new(block)));
                    self.resident.fetch_add(1, Release);
                }
                (None, Some(block)) => {
                    let _ = self.whole.set(block);
                }
            }
        }
        work.runs[at].end = len;
        if work.runs[at].pieces_bytes > 0 {
            self.land(work, at, landed);
        }
    }

    /// The fill brings nothing more; blocks that are complete stay.
    pub(crate) fn give_up(&self, run: u32, failed: bool) {
        let mut guard = self.work.lock();
        let Some(work) = &mut *guard else {
            return;
        };
        let given_up = work.runs.iter().position(|r| r.id == run);
        if let Some(given_up) = given_up.map(|at| work.runs.remove(at)) {
            if failed {
                work.note_failed(run);
            }
            // Who it was taken over from still brings it, if nothing has come of it.
            let is_before = |one: &&mut Run| {
                one.end == given_up.start && one.asked_end >= given_up.end && one.at() < one.end
            };
            if given_up.at() == given_up.start
                && let Some(before) = work.runs.iter_mut().find(is_before)
            {
                before.end = given_up.end;
            }
        }
        if work.runs.is_empty() {
            // Of an unknown length without a fill nothing can be made any more.
            work.early.clear();
        }
        self.filling.store(!work.runs.is_empty(), Release);
        let waiting = self.wake_all(work);
        drop(guard);
        wake(waiting);
    }

    /// From now on only a window of it is kept.
    pub(crate) fn keep_window(&self) {
        self.windowed.store(true, Release);
    }

    /// From now on what comes stays.
    pub(crate) fn keep_all(&self) {
        self.windowed.store(false, Release);
    }

    /// Whether a fill may go on: always, but where only a window is kept and no reader is near.
    pub(crate) fn poll_room(&self, run: u32, cx: &mut Context<'_>) -> Poll<()> {
        let mut guard = self.work.lock();
        let Some(work) = &mut *guard else {
            return Poll::Ready(());
        };
        let at = work.runs.iter().find(|r| r.id == run).map_or(0, Run::at);
        if self.is_windowed() && at > work.fastest + AHEAD_BYTES && self.readers() > 0 {
            work.watch(cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Wakes the fill's task when the last reader leaves.
    pub(crate) fn watch_readers(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut guard = self.work.lock();
        if self.readers() == 0 {
            return Poll::Ready(());
        }
        guard.get_or_insert_default().watch(cx);
        Poll::Pending
    }

    /// One past the last byte that a fill is to bring; `u64::MAX` where that is the body's end and
    /// not known.
    pub(crate) fn end(&self, run: u32) -> u64 {
        let guard = self.work.lock();
        let work = guard.as_ref();
        work.and_then(|w| w.runs.iter().find(|r| r.id == run))
            .map_or(0, |run| run.end)
    }

    /// How far a fill is.
    pub(crate) fn position(&self, run: u32) -> u64 {
        let guard = self.work.lock();
        let work = guard.as_ref();
        work.and_then(|w| w.runs.iter().find(|r| r.id == run))
            .map_or(0, Run::at)
    }

    /// Begins another round of waiting; with the work still locked.
    fn wake_all(&self, work: &mut Work) -> Vec<Waker> {
        self.round.fetch_add(1, Relaxed);
        std::mem::take(&mut work.waiting)
    }

    fn drop_behind(&self, work: &mut Work) {
        let keep_from = work.fastest.saturating_sub(WINDOW_BYTES) / BLOCK_BYTES;
        // Only as far as there is something: a reader may have begun anywhere.
        let there = work.runs.iter().map(|run| run.block_at / BLOCK_BYTES).max();
        let keep_from = keep_from.min(there.unwrap_or(0));
        for block in work.kept_from..keep_from {
            self.evict(block);
            let early = usize::try_from(block).ok();
            if let Some(early) = early.and_then(|number| work.early.get_mut(number)) {
                *early = None;
            }
        }
        work.kept_from = work.kept_from.max(keep_from);
    }

    /// Takes blocks out of memory that are on a disk, but for those that the fastest reader wants
    /// next: those go when it has them.
    pub(crate) fn drop_ahead(&self, from: u64, to: u64) {
        let fastest = self.work.lock().as_ref().map_or(0, |work| work.fastest);
        let next = fastest.saturating_add(AHEAD_BYTES).div_ceil(BLOCK_BYTES);
        for block in from.max(next)..to {
            self.evict(block);
        }
    }

    /// Takes a block out of memory. True if it was there.
    pub(crate) fn evict(&self, block: u64) -> bool {
        let was_there = self
            .slot(block)
            .is_some_and(|slot| slot.block.swap(None).is_some());
        if was_there {
            self.resident.fetch_sub(1, Release);
        }
        was_there
    }
}

impl Slot {
    pub(crate) fn is_resident(&self) -> bool {
        self.block.load().is_some()
    }

    /// How often it was used; `None`: it is not there.
    pub(crate) fn uses(&self) -> Option<u8> {
        self.is_resident().then(|| self.uses.load(Relaxed))
    }

    pub(crate) fn set_uses(&self, uses: u8) {
        self.uses.store(uses, Relaxed);
    }
}

/// One more use, up to [`MAX_USES`](crate::queue::MAX_USES): no read-modify-write, and no write at
/// all for what is used much. Two readers at once may count as one; that is exact enough.
/// Says how many were counted before.
pub(crate) fn use_once(uses: &AtomicU8) -> u8 {
    let before = uses.load(Relaxed);
    if before < crate::queue::MAX_USES {
        uses.store(before + 1, Relaxed);
    }
    before
}

/// One piece of memory, exactly as long as it must be: what was received lies in buffers that
/// hold more, and must not be kept by it.
fn join(pieces: Vec<Bytes>, len_bytes: u64) -> Bytes {
    let mut whole = BytesMut::with_capacity(usize::try_from(len_bytes).unwrap_or(0));
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
