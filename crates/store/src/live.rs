//! Running responses that nobody stores, shared by those who want them while they run.
//!
//! A [`Live`] is a window over what its origin sends: pieces, each once in memory however many read
//! it. Who joins begins at the newest border, which is where something begins in what is sent; who
//! falls out of the window is cut, or goes on at the newest border.
//!
//! ```text
//!    gone      ◀──────────── window ───────────▶
//!   · · · · · [ piece ][ piece ][border][ piece ] ◀── filler, no further than AHEAD_BYTES
//!      ▲          ▲                  ▲        ▲       before its fastest reader
//!    late       slow               joins    fast
//! ```
//!
//! The fastest reader sets the pace, the others delay nobody. With the last one it is over: who
//! fills it finds that out, and closes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use forebay_sys::clock::coarse_ms;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use slab::Slab;
use smallvec::SmallVec;

use crate::key::Hash;

mod borders;

pub use borders::Borders;
use borders::Scanner;

/// So much is taken before the fastest reader wants it.
const AHEAD_BYTES: u64 = 256 * 1024;

/// So much is kept for those who are slower...
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;
/// ... and only so much where all windows together take more than they may.
const SMALL_WINDOW_BYTES: u64 = 512 * 1024;

/// So many are shared however little their windows may take.
const MIN_STREAMS: u64 = 8;

/// What has come since the newest border is kept for those who join or skip, up to so much.
const SINCE_BORDER_BYTES: u64 = 1024 * 1024;

/// What a piece costs beside its bytes.
const PIECE_BYTES: u64 = 96;

/// At most so many responses for one key run at once and are shared.
const MAX_OF_KEY: usize = 32;

/// What becomes of a reader that falls out of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooSlow {
    /// It is cut, so that its client sees it.
    Cut,
    /// It goes on at the newest border.
    Skip,
}

/// Running responses, by their keys. `H` is what a response says of itself, `E` how it has ended.
pub struct Lives<H, E> {
    table: Mutex<FxHashMap<Hash, OfKey<H, E>>>,
    counts: Counts,
}

/// Those of one key, the newest last.
type OfKey<H, E> = SmallVec<[Arc<Live<H, E>>; 1]>;

#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    max_bytes: AtomicU64,
    streams: AtomicU64,
    readers: AtomicU64,
    cut: AtomicU64,
    skipped: AtomicU64,
}

/// What there is of running responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveUsage {
    /// Responses that run and are shared.
    pub streams: u64,
    /// Those who read them.
    pub readers: u64,
    /// Memory of all windows, in bytes.
    pub bytes: u64,
    /// How many readers were cut.
    pub cut: u64,
    /// How often a reader has skipped ahead.
    pub skipped: u64,
}

/// A running response as it stands.
#[derive(Clone, Debug)]
pub struct Running<H> {
    /// Its key.
    pub key: Box<[u8]>,
    /// What it says of itself.
    pub head: Arc<H>,
    /// When it began, on the clock of [`coarse_ms`].
    pub since_ms: u64,
    /// How many bytes have come in all.
    pub bytes: u64,
    /// Memory of its window, in bytes.
    pub window_bytes: u64,
    /// Those who read it.
    pub readers: usize,
}

/// A running response.
struct Live<H, E> {
    of: Arc<Lives<H, E>>,
    hash: Hash,
    since_ms: u64,
    key: Box<[u8]>,
    head: Arc<H>,
    state: Mutex<State<E>>,
}

struct State<E> {
    pieces: VecDeque<Piece>,
    /// The number of the first piece that is there.
    first: u64,
    /// How many bytes have come in all.
    at: u64,
    /// What the pieces take.
    bytes: u64,
    scanner: Scanner,
    /// What comes next begins at a border.
    next_is_border: bool,
    /// The number of the newest piece that begins at one.
    newest_border: Option<u64>,
    readers: Slab<Place>,
    filler: Option<Waker>,
    /// It waits for a reader to come so far, not only for the last one to leave.
    waits_for_room: bool,
    end: Option<End<E>>,
}

struct Piece {
    bytes: Bytes,
    /// How many bytes came before it.
    at: u64,
}

/// Where a reader is.
struct Place {
    next: Next,
    too_slow: TooSlow,
    /// Its task, and whether that wants bytes or only to know that it is cut.
    waits: Option<(Waker, For)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Bytes,
    Cut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The piece with this number.
    Piece(u64),
    /// Whichever begins at a border next; it waits for that since so many bytes had come.
    Border(u64),
}

#[derive(Clone)]
enum End<E> {
    Said(E),
    /// Who filled it is gone without a word.
    Lost,
}

/// What a reader of a running response gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<E> {
    /// The next bytes.
    Data(Bytes),
    /// There are no more.
    End(E),
    /// It was too slow: what comes next for it is gone.
    Cut,
    /// Who brought it is gone.
    Lost,
}

/// Takes in what the origin sends. Dropped before its end, it is lost to all who read it.
pub struct LiveFiller<H, E: Clone> {
    live: Arc<Live<H, E>>,
    is_over: bool,
}

/// Follows a running response. With the last of them that is over.
pub struct LiveReader<H, E: Clone> {
    live: Arc<Live<H, E>>,
    place: usize,
}

/// What a filler may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// More may be pulled.
    More,
    /// Nobody reads it any more.
    Alone,
}

impl<H, E: Clone> Lives<H, E> {
    /// None yet.
    pub fn new(max_bytes: u64) -> Arc<Lives<H, E>> {
        let counts = Counts::default();
        counts.max_bytes.store(max_bytes, Relaxed);
        Arc::new(Lives {
            table: Mutex::default(),
            counts,
        })
    }

    /// From now on, beyond so much for all windows together each of them is small.
    pub fn set_max_bytes(&self, max_bytes: u64) {
        self.counts.max_bytes.store(max_bytes, Relaxed);
    }

    /// What there is.
    pub fn usage(&self) -> LiveUsage {
        let Counts {
            bytes,
            streams,
            readers,
            cut,
            skipped,
            ..
        } = &self.counts;
        LiveUsage {
            streams: streams.load(Relaxed),
            readers: readers.load(Relaxed),
            bytes: bytes.load(Relaxed),
            cut: cut.load(Relaxed),
            skipped: skipped.load(Relaxed),
        }
    }

    /// A response begins to run, with its first reader, who gets it from its beginning. `None`: so
    /// many do, of this key or in all, that their windows would take more memory than they may.
    pub fn begin(
        self: &Arc<Lives<H, E>>,
        hash: Hash,
        key: &[u8],
        head: H,
        borders: Borders,
        too_slow: TooSlow,
    ) -> Option<(LiveFiller<H, E>, LiveReader<H, E>)> {
        let mut readers = Slab::new();
        let place = readers.insert(Place {
            next: Next::Piece(0),
            too_slow,
            waits: None,
        });
        let live = Arc::new(Live {
            of: self.clone(),
            hash,
            since_ms: coarse_ms(),
            key: key.into(),
            head: Arc::new(head),
            state: Mutex::new(State {
                pieces: VecDeque::new(),
                first: 0,
                at: 0,
                bytes: 0,
                scanner: Scanner::new(borders),
                next_is_border: true,
                newest_border: None,
                readers,
                filler: None,
                waits_for_room: false,
                end: None,
            }),
        });
        let mut table = self.table.lock();
        let Counts {
            streams, max_bytes, ..
        } = &self.counts;
        let most = max_bytes.load(Relaxed) / SMALL_WINDOW_BYTES;
        if streams.load(Relaxed) >= most.max(MIN_STREAMS) {
            return None;
        }
        let of_key = table.entry(hash).or_default();
        if of_key.len() >= MAX_OF_KEY {
            return None;
        }
        of_key.push(live.clone());
        drop(table);
        self.counts.streams.fetch_add(1, Relaxed);
        self.counts.readers.fetch_add(1, Relaxed);
        let filler = LiveFiller {
            live: live.clone(),
            is_over: false,
        };
        Some((filler, LiveReader { live, place }))
    }

    /// Whether a response for this key runs.
    pub fn has(&self, hash: Hash, key: &[u8]) -> bool {
        let table = self.table.lock();
        let of_key = table.get(&hash);
        of_key.is_some_and(|lives| lives.iter().any(|live| *live.key == *key))
    }

    /// What runs under these keys, `most` responses at most. Looks at all that run.
    pub fn running(&self, wanted: impl Fn(&[u8]) -> bool, most: usize) -> Vec<Running<H>> {
        let table = self.table.lock();
        let lives = table.values().flatten().filter(|live| wanted(&live.key));
        lives
            .take(most)
            .map(|live| {
                let state = live.state.lock();
                Running {
                    key: live.key.clone(),
                    head: live.head.clone(),
                    since_ms: live.since_ms,
                    bytes: state.at,
                    window_bytes: state.bytes,
                    readers: state.readers.len(),
                }
            })
            .collect()
    }

    /// Joins the newest response for this key that fits.
    pub fn join(
        &self,
        hash: Hash,
        key: &[u8],
        too_slow: TooSlow,
        mut fits: impl FnMut(&H) -> bool,
    ) -> Option<LiveReader<H, E>> {
        let table = self.table.lock();
        let mut newest_first = table.get(&hash)?.iter().rev();
        let place = |live: &Arc<Live<H, E>>| {
            (*live.key == *key && fits(&live.head)).then(|| live.join(too_slow))?
        };
        newest_first.find_map(place)
    }

    fn forget(&self, live: &Live<H, E>) {
        let mut table = self.table.lock();
        if let Some(of_key) = table.get_mut(&live.hash) {
            of_key.retain(|one| !std::ptr::eq(&**one, live));
            if of_key.is_empty() {
                table.remove(&live.hash);
            }
        }
    }

    /// Lets only those be joined from now on whose key and head `keep` takes; who reads another one
    /// goes on with it.
    pub fn retain(&self, keep: impl Fn(&[u8], &H) -> bool) {
        self.table.lock().retain(|_, of_key| {
            of_key.retain(|live| keep(&live.key, &live.head));
            !of_key.is_empty()
        });
    }

    fn window(&self) -> u64 {
        let Counts {
            bytes, max_bytes, ..
        } = &self.counts;
        match bytes.load(Relaxed) > max_bytes.load(Relaxed) {
            true => SMALL_WINDOW_BYTES,
            false => WINDOW_BYTES,
        }
    }
}

impl<H, E: Clone> Live<H, E> {
    fn join(self: &Arc<Live<H, E>>, too_slow: TooSlow) -> Option<LiveReader<H, E>> {
        let mut state = self.state.lock();
        // Without readers it is about to be closed.
        if state.end.is_some() || state.readers.is_empty() {
            return None;
        }
        let next = state.joint();
        let place = state.readers.insert(Place {
            next,
            too_slow,
            waits: None,
        });
        let filler = state.take_waiting();
        drop(state);
        self.of.counts.readers.fetch_add(1, Relaxed);
        filler.into_iter().for_each(Waker::wake);
        Some(LiveReader {
            live: self.clone(),
            place,
        })
    }

    fn end(&self, end: End<E>) {
        self.of.forget(self);
        let mut state = self.state.lock();
        state.end = Some(end);
        let mut wakers = Vec::new();
        for (_, place) in &mut state.readers {
            wakers.extend(place.waits.take());
        }
        drop(state);
        wakers.into_iter().for_each(|(waker, _)| waker.wake());
    }
}

impl<E> State<E> {
    /// The filler's task, if a reader that has come further is news to it.
    fn take_waiting(&mut self) -> Option<Waker> {
        let waits = std::mem::take(&mut self.waits_for_room);
        self.filler.take_if(|_| waits)
    }

    /// The number that the next piece will have.
    fn next(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }

    fn piece(&self, number: u64) -> Option<&Piece> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.pieces.get(at)
    }

    /// Where who joins begins: nothing that was complete before.
    fn joint(&self) -> Next {
        match self.next_is_border {
            true => Next::Piece(self.next()),
            false => self.newest(),
        }
    }

    /// Where who skips goes on: it has missed the newest thing, too.
    fn newest(&self) -> Next {
        match self.newest_border {
            Some(number) if number >= self.first => Next::Piece(number),
            _ => Next::Border(self.at),
        }
    }

    /// How many bytes come before what this reader wants next.
    fn position(&self, next: Next) -> u64 {
        match next {
            Next::Piece(number) if number < self.first => 0,
            Next::Piece(number) => self.piece(number).map_or(self.at, |piece| piece.at),
            // What it waits for may never come: others are not left behind for that.
            Next::Border(since) => self.at.min(since + SINCE_BORDER_BYTES),
        }
    }

    fn fastest(&self) -> u64 {
        let positions = self
            .readers
            .iter()
            .map(|(_, place)| self.position(place.next));
        positions.max().unwrap_or(0)
    }

    fn take_in(&mut self, bytes: &Bytes) {
        let cuts = self.scanner.scan(bytes);
        let mut rest = bytes.clone();
        let mut taken = 0;
        for cut in cuts.within {
            let piece = rest.split_to(cut - taken);
            taken = cut;
            self.add(&piece);
            self.next_is_border = true;
        }
        self.add(&rest);
        self.next_is_border = cuts.ends_at_border;
    }

    fn add(&mut self, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        let number = self.next();
        if self.next_is_border {
            self.newest_border = Some(number);
            for (_, place) in &mut self.readers {
                if let Next::Border(_) = place.next {
                    place.next = Next::Piece(number);
                }
            }
        }
        self.pieces.push_back(Piece {
            // What was received lies in buffers that hold more, and must not be kept by it.
            bytes: Bytes::copy_from_slice(bytes),
            at: self.at,
        });
        self.at += bytes.len() as u64;
        self.bytes += weight(bytes);
    }

    /// Lets go of what nobody wants any more, and of what does not fit into the window.
    fn trim(&mut self, window: u64) {
        let wanted = self
            .readers
            .iter()
            .filter_map(|(_, place)| match place.next {
                // Who is late gets none of it.
                Next::Piece(number) if number >= self.first => Some(number),
                _ => None,
            });
        let mut keep_from = wanted.min().unwrap_or(u64::MAX);
        if let Some(number) = self.newest_border
            && let Some(piece) = self.piece(number)
            && self.at - piece.at <= SINCE_BORDER_BYTES
        {
            keep_from = keep_from.min(number);
        }
        while self.first < keep_from || self.bytes > window {
            let Some(piece) = self.pieces.pop_front() else {
                return;
            };
            self.first += 1;
            self.bytes -= weight(&piece.bytes);
        }
    }
}

impl<H, E: Clone> LiveFiller<H, E> {
    /// Whether to go on; wakes the task of `cx` when that changes.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Room> {
        let mut state = self.live.state.lock();
        if state.readers.is_empty() {
            return Poll::Ready(Room::Alone);
        }
        match &mut state.filler {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        state.waits_for_room = state.at > state.fastest() + AHEAD_BYTES;
        match state.waits_for_room {
            true => Poll::Pending,
            false => Poll::Ready(Room::More),
        }
    }

    /// Takes what was received.
    pub fn push(&self, bytes: &Bytes) {
        let of = &self.live.of;
        let window = of.window();
        let mut state = self.live.state.lock();
        let before = state.bytes;
        state.take_in(bytes);
        state.trim(window);
        note(&of.counts.bytes, before, state.bytes);
        let mut wakers: SmallVec<[Waker; 8]> = SmallVec::new();
        let first = state.first;
        for (_, place) in &mut state.readers {
            let is_late = matches!(place.next, Next::Piece(number) if number < first);
            let wakes = |wants: For| wants == For::Bytes || is_late;
            if place.waits.as_ref().is_some_and(|(_, wants)| wakes(*wants)) {
                wakers.extend(place.waits.take().map(|(waker, _)| waker));
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// All has come, or no more will.
    pub fn finish(mut self, end: E) {
        self.is_over = true;
        self.live.end(End::Said(end));
    }
}

impl<H, E: Clone> Drop for LiveFiller<H, E> {
    fn drop(&mut self) {
        self.live.of.counts.streams.fetch_sub(1, Relaxed);
        if !self.is_over {
            self.live.end(End::Lost);
        }
    }
}

impl<H, E: Clone> LiveReader<H, E> {
    /// What the response says of itself.
    pub fn head(&self) -> &Arc<H> {
        &self.live.head
    }

    /// The next bytes: at once what is there, or when they come.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Heard<E>> {
        let counts = &self.live.of.counts;
        let mut guard = self.live.state.lock();
        let state = &mut *guard;
        let newest = state.newest();
        let Some(place) = state.readers.get_mut(self.place) else {
            return Poll::Ready(Heard::Lost);
        };
        if let Next::Piece(number) = place.next
            && number < state.first
        {
            match place.too_slow {
                TooSlow::Cut => {
                    counts.cut.fetch_add(1, Relaxed);
                    return Poll::Ready(Heard::Cut);
                }
                TooSlow::Skip => {
                    counts.skipped.fetch_add(1, Relaxed);
                    place.next = newest;
                }
            }
        }
        let next = place.next;
        let there = match next {
            Next::Piece(number) => state.piece(number).map(|piece| piece.bytes.clone()),
            Next::Border(_) => None,
        };
        let Some(place) = state.readers.get_mut(self.place) else {
            return Poll::Ready(Heard::Lost);
        };
        if let (Some(bytes), Next::Piece(number)) = (there, next) {
            place.next = Next::Piece(number + 1);
            let filler = state.take_waiting();
            drop(guard);
            filler.into_iter().for_each(Waker::wake);
            return Poll::Ready(Heard::Data(bytes));
        }
        match &state.end {
            Some(End::Said(end)) => Poll::Ready(Heard::End(end.clone())),
            Some(End::Lost) => Poll::Ready(Heard::Lost),
            None => {
                wait(place, For::Bytes, cx);
                Poll::Pending
            }
        }
    }

    /// Ready when it is cut, for one that takes nothing at the moment.
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut guard = self.live.state.lock();
        let state = &mut *guard;
        let Some(place) = state.readers.get_mut(self.place) else {
            return Poll::Ready(());
        };
        if place.too_slow == TooSlow::Skip {
            return Poll::Pending;
        }
        if matches!(place.next, Next::Piece(number) if number < state.first) {
            self.live.of.counts.cut.fetch_add(1, Relaxed);
            return Poll::Ready(());
        }
        wait(place, For::Cut, cx);
        Poll::Pending
    }
}

fn wait(place: &mut Place, wants: For, cx: &mut Context<'_>) {
    match &mut place.waits {
        Some((waker, before)) => {
            waker.clone_from(cx.waker());
            *before = wants;
        }
        none => *none = Some((cx.waker().clone(), wants)),
    }
}

impl<H, E: Clone> Drop for LiveReader<H, E> {
    fn drop(&mut self) {
        let mut state = self.live.state.lock();
        state.readers.try_remove(self.place);
        let is_last = state.readers.is_empty();
        let filler = match is_last {
            true => state.filler.take(),
            // The one that it has waited for may be gone.
            false => state.take_waiting(),
        };
        drop(state);
        self.live.of.counts.readers.fetch_sub(1, Relaxed);
        if is_last {
            // Who comes now begins another one.
            self.live.of.forget(&self.live);
        }
        filler.into_iter().for_each(Waker::wake);
    }
}

impl<H, E> Drop for Live<H, E> {
    fn drop(&mut self) {
        note(&self.of.counts.bytes, self.state.get_mut().bytes, 0);
    }
}

fn weight(bytes: &Bytes) -> u64 {
    bytes.len() as u64 + PIECE_BYTES
}

fn note(all: &AtomicU64, before: u64, now: u64) {
    match now.checked_sub(before) {
        Some(more) => all.fetch_add(more, Relaxed),
        None => all.fetch_sub(before - now, Relaxed),
    };
}

#[cfg(test)]
mod tests;
