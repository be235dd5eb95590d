//! The bytes of an object, whatever there is of them.
//!
//! Most bodies are short. One that is there as a whole is a piece of memory and nothing else: what
//! knew of its blocks, fills and readers is given back. Every other one is a [`Body`].
//!
//! ```text
//!   coming ──┬─▶ short: all of it is there
//!            └─▶ long:  a body, for good; at once where it is known how long it is
//! ```

use std::sync::{Arc, OnceLock};
use std::task::Context;

use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;

use crate::body::{Body, FillState, Look, Place, Slot};
use crate::disk::Blocks;
use crate::room::{COUNTS_BYTES, room};

/// Up to so many bytes are copied for each who wants them: two workers that count the references of
/// one piece of memory cost each other more.
pub const SHORT_BYTES: usize = 8 * 1024;

/// The bytes of an object.
pub struct Content {
    settled: OnceLock<Settled>,
    /// `None` only where it is settled.
    coming: ArcSwapOption<Body>,
}

/// What is never another any more.
enum Settled {
    Short(Box<[u8]>),
    Long(Arc<Body>),
}

// Every object has one.
const _: () = assert!(size_of::<Content>() <= 4 * size_of::<usize>());

/// How the bytes of an object are at the moment. Held only while it is looked at.
pub struct View<'o>(Seen<'o>);

enum Seen<'o> {
    Short(&'o [u8]),
    Long(&'o Arc<Body>),
    Coming(Guard<Option<Arc<Body>>>),
}

impl From<Arc<Body>> for Content {
    fn from(body: Arc<Body>) -> Content {
        let (settled, coming) = match is_long(&body) {
            true => (OnceLock::from(Settled::Long(body)), None),
            false => (OnceLock::new(), Some(body)),
        };
        Content {
            settled,
            coming: ArcSwapOption::new(coming),
        }
    }
}

impl From<Box<[u8]>> for Content {
    fn from(short: Box<[u8]>) -> Content {
        Content {
            settled: OnceLock::from(Settled::Short(short)),
            coming: ArcSwapOption::empty(),
        }
    }
}

impl<'o> From<&'o Settled> for Seen<'o> {
    fn from(settled: &'o Settled) -> Seen<'o> {
        match settled {
            Settled::Short(short) => Seen::Short(short),
            Settled::Long(body) => Seen::Long(body),
        }
    }
}

impl Seen<'_> {
    /// What knows of its blocks; `None`: it is short, and whole.
    fn body(&self) -> Option<&Arc<Body>> {
        match self {
            Seen::Short(_) => None,
            Seen::Long(body) => Some(body),
            Seen::Coming(body) => body.as_ref(),
        }
    }
}

impl Content {
    /// What is there as a whole.
    pub(crate) fn of(bytes: Bytes) -> Content {
        match bytes.len() {
            ..=SHORT_BYTES => Content::from(Box::<[u8]>::from(&*bytes)),
            _ => Content::from(Arc::new(Body::of(bytes))),
        }
    }

    /// The same, for another head: what is still to come, comes for both.
    pub(crate) fn share(&self) -> Content {
        let seen = self.seen();
        match (&seen, seen.body()) {
            (_, Some(body)) => Content::from(body.clone()),
            (Seen::Short(short), _) => Content::from(Box::<[u8]>::from(*short)),
            _ => Content::from(Box::<[u8]>::default()),
        }
    }

    fn seen(&self) -> Seen<'_> {
        if let Some(settled) = self.settled.get() {
            return settled.into();
        }
        match self.coming.load() {
            // It was settled between the two.
            coming if coming.is_none() => self.settled.get().map_or(Seen::Short(&[]), Seen::from),
            coming => Seen::Coming(coming),
        }
    }

    /// How it is now.
    pub fn view(&self) -> View<'_> {
        View(self.seen())
    }

    /// See [`Seen::body`].
    pub(crate) fn body(&self) -> Option<Arc<Body>> {
        self.seen().body().cloned()
    }

    /// Settles what it is, if that is known: of what is short and whole only the bytes are kept.
    pub(crate) fn settle(&self) {
        let settled = {
            let Seen::Coming(coming) = self.seen() else {
                return;
            };
            coming.as_ref().and_then(|body| match body.whole() {
                Some(whole) if whole.len() <= SHORT_BYTES => {
                    Some(Settled::Short((&**whole).into()))
                }
                _ if is_long(body) => Some(Settled::Long(body.clone())),
                _ => None,
            })
        };
        if let Some(settled) = settled {
            // Whoever is the second to come has the same bytes.
            let _ = self.settled.set(settled);
            self.coming.store(None);
        }
    }

    /// Whether its bytes are all there is of it.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self.settled.get(), Some(Settled::Short(_)))
    }

    /// How many blocks there are, where they are several.
    pub(crate) fn blocks(&self) -> usize {
        self.with(0, Body::blocks)
    }

    /// Whether these are the very same blocks as the other's.
    pub(crate) fn is_shared_with(&self, other: &Content) -> bool {
        match (self.seen().body(), other.seen().body()) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The memory it takes beside the blocks, in bytes.
    pub(crate) fn own_bytes(&self) -> usize {
        self.with(0, |body| {
            room(COUNTS_BYTES + size_of::<Body>()) + room(body.blocks() * size_of::<Slot>())
        })
    }

    /// See [`View::len_bytes`].
    pub fn len_bytes(&self) -> Option<u64> {
        self.view().len_bytes()
    }

    /// See [`View::is_whole`].
    pub fn is_whole(&self) -> bool {
        self.view().is_whole()
    }

    /// How long it is, if it is one block and there.
    pub(crate) fn whole_bytes(&self) -> Option<usize> {
        match self.seen() {
            Seen::Short(short) => Some(short.len()),
            seen => seen.body()?.whole().map(Bytes::len),
        }
    }

    /// One block of it, if that is in memory.
    pub fn block(&self, number: u64) -> Option<Bytes> {
        match self.seen() {
            Seen::Short(short) => (number == 0).then(|| Bytes::copy_from_slice(short)),
            seen => seen.body()?.block(number),
        }
    }

    /// Whether every byte of it is in memory.
    pub fn is_complete(&self) -> bool {
        self.with(true, Body::is_complete)
    }

    /// Whether a fill is under way.
    pub fn is_filling(&self) -> bool {
        self.with(false, Body::is_filling)
    }

    /// The fills that are under way.
    pub fn fills(&self) -> Vec<FillState> {
        self.with(Vec::new(), Body::fills)
    }

    /// See [`Body::is_windowed`].
    pub fn is_windowed(&self) -> bool {
        self.with(false, Body::is_windowed)
    }

    /// How many blocks of it are in memory.
    pub fn resident_blocks(&self) -> usize {
        self.with(1, Body::resident_blocks)
    }

    /// How many read it now; of what is short and whole nobody counts them.
    pub fn readers(&self) -> usize {
        self.with(0, Body::readers)
    }

    /// Where its blocks are, if they came from a disk.
    pub(crate) fn on_disk(&self) -> Option<Blocks> {
        self.with(None, Body::on_disk)
    }

    fn with<R>(&self, short: R, ask: impl FnOnce(&Body) -> R) -> R {
        match self.seen().body() {
            Some(body) => ask(body),
            None => short,
        }
    }

    // --- Reading ---------------------------------------------------------------------------------

    /// Counts a reader; false: there is nothing to count.
    pub(crate) fn add_reader(&self) -> bool {
        self.with(false, |body| {
            body.add_reader();
            true
        })
    }

    /// A reader that was counted has gone; who counted them may have gone before it.
    pub(crate) fn remove_reader(&self) {
        self.with((), Body::remove_reader);
    }

    /// See [`Body::note_position`].
    pub(crate) fn note_position(&self, at: u64) {
        self.with((), |body| body.note_position(at));
    }

    /// See [`Body::look`].
    pub(crate) fn look(&self, at: u64, place: &mut Place, cx: &mut Context<'_>) -> Look {
        let seen = self.seen();
        if let Some(body) = seen.body() {
            return body.look(at, place, cx);
        }
        let Seen::Short(short) = seen else {
            return Look::Absent;
        };
        match usize::try_from(at).ok().and_then(|at| short.get(at..)) {
            None | Some([]) => Look::End,
            Some(rest) => Look::Data(Bytes::copy_from_slice(rest)),
        }
    }

    // --- Being thrown out ------------------------------------------------------------------------

    /// How often a block was used; `None`: it is not there.
    pub(crate) fn uses(&self, block: u64) -> Option<u8> {
        self.with(None, |body| body.slot(block)?.uses())
    }

    /// Forgets uses of a block.
    pub(crate) fn set_uses(&self, block: u64, uses: u8) {
        self.with((), |body| {
            if let Some(slot) = body.slot(block) {
                slot.set_uses(uses);
            }
        });
    }

    /// Takes a block out of memory.
    pub(crate) fn evict(&self, block: u64) {
        self.with((), |body| {
            body.evict(block);
        });
    }
}

fn is_long(body: &Body) -> bool {
    body.len_bytes() > Some(SHORT_BYTES as u64)
}

impl View<'_> {
    /// How long it is, once that is known.
    pub fn len_bytes(&self) -> Option<u64> {
        match &self.0 {
            Seen::Short(short) => Some(short.len() as u64),
            seen => seen.body()?.len_bytes(),
        }
    }

    /// Whether it is one block and there.
    pub fn is_whole(&self) -> bool {
        self.0.body().is_none_or(|body| body.whole().is_some())
    }

    /// A part of what is one block and there, or all of it from `start` on. What is little is
    /// copied.
    pub fn part(&self, start: u64, end: Option<u64>) -> Option<Bytes> {
        let place = |at: u64, len: usize| usize::try_from(at).unwrap_or(usize::MAX).min(len);
        let range = |len: usize| {
            let end = end.map_or(len, |end| place(end, len));
            place(start, end)..end
        };
        if let Seen::Short(short) = &self.0 {
            return Some(Bytes::copy_from_slice(&short[range(short.len())]));
        }
        let whole = self.0.body()?.whole()?;
        let range = range(whole.len());
        Some(match range.len() {
            ..=SHORT_BYTES => Bytes::copy_from_slice(&whole[range]),
            _ => whole.slice(range),
        })
    }
}
