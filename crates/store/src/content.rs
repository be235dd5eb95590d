//! The bytes of an object, whatever there is of them.
//!
//! Most bodies are short. One that is there as a whole is a piece of memory and nothing else: what
//! knew of its blocks, fills and readers is given back. Every other one is a [`Body`].
//!
//! ```text
//!   a fill brings it: body ──▶ it is whole, and short: short
//!                       └────▶ it is longer: body, for good
//! ```

use std::sync::{Arc, OnceLock};
use std::task::Context;

use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;

use crate::body::{Body, Look, Place, Slot};
use crate::disk::Blocks;
use crate::room::{COUNTS_BYTES, room};

/// Up to so many bytes are copied for each who wants them: two workers that count the references of
/// one piece of memory cost each other more.
pub const SHORT_BYTES: usize = 8 * 1024;

/// The bytes of an object.
pub struct Content {
    short: OnceLock<Box<[u8]>>,
    /// `None` only where `short` is there.
    body: ArcSwapOption<Body>,
}

/// How the bytes of an object are at the moment. Held only while it is looked at.
pub struct View<'o>(Seen<'o>);

enum Seen<'o> {
    Short(&'o [u8]),
    Body(Guard<Option<Arc<Body>>>),
}

impl From<Arc<Body>> for Content {
    fn from(body: Arc<Body>) -> Content {
        Content {
            short: OnceLock::new(),
            body: ArcSwapOption::new(Some(body)),
        }
    }
}

impl From<Box<[u8]>> for Content {
    fn from(short: Box<[u8]>) -> Content {
        Content {
            short: OnceLock::from(short),
            body: ArcSwapOption::empty(),
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
        match self.view().0 {
            Seen::Short(short) => Content::from(Box::<[u8]>::from(short)),
            Seen::Body(body) => Content {
                short: OnceLock::new(),
                body: ArcSwapOption::new(body.clone()),
            },
        }
    }

    /// How it is now.
    pub fn view(&self) -> View<'_> {
        View(match self.short.get() {
            Some(short) => Seen::Short(short),
            None => match self.body.load() {
                // It has become short between the two.
                body if body.is_none() => Seen::Short(self.short.get().map_or(&[], |short| short)),
                body => Seen::Body(body),
            },
        })
    }

    /// What knows of its blocks; `None`: it is short, and whole.
    pub(crate) fn body(&self) -> Option<Arc<Body>> {
        match self.view().0 {
            Seen::Short(_) => None,
            Seen::Body(body) => body.clone(),
        }
    }

    /// Keeps no more of what is short and whole than its bytes.
    pub(crate) fn fold(&self) {
        let short: Option<Box<[u8]>> = match self.view().0 {
            Seen::Short(_) => None,
            Seen::Body(body) => {
                let whole = body.as_ref().and_then(|body| body.whole());
                let whole = whole.filter(|whole| whole.len() <= SHORT_BYTES);
                whole.map(|whole| (&**whole).into())
            }
        };
        if let Some(short) = short {
            // Whoever is the second to come has the same bytes.
            let _ = self.short.set(short);
            self.body.store(None);
        }
    }

    /// Whether its bytes are all there is of it.
    pub(crate) fn is_short(&self) -> bool {
        self.short.get().is_some()
    }

    /// How many blocks there are, where they are several.
    pub(crate) fn blocks(&self) -> usize {
        self.with(0, Body::blocks)
    }

    /// Whether these are the very same blocks as the other's.
    pub(crate) fn is_shared_with(&self, other: &Content) -> bool {
        match (self.view().0, other.view().0) {
            (Seen::Body(one), Seen::Body(other)) => match (&*one, &*other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                _ => false,
            },
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
        match self.view().0 {
            Seen::Short(short) => Some(short.len()),
            Seen::Body(body) => body.as_ref()?.whole().map(Bytes::len),
        }
    }

    /// One block of it, if that is in memory.
    pub fn block(&self, number: u64) -> Option<Bytes> {
        match self.view().0 {
            Seen::Short(short) => (number == 0).then(|| Bytes::copy_from_slice(short)),
            Seen::Body(body) => body.as_ref()?.block(number),
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
        match self.view().0 {
            Seen::Short(_) => short,
            Seen::Body(body) => body.as_deref().map_or(short, ask),
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
        match self.view().0 {
            Seen::Short(short) => {
                let rest = usize::try_from(at).ok().and_then(|at| short.get(at..));
                match rest {
                    None | Some([]) => Look::End,
                    Some(rest) => Look::Data(Bytes::copy_from_slice(rest)),
                }
            }
            Seen::Body(body) => match body.as_deref() {
                Some(body) => body.look(at, place, cx),
                None => Look::Absent,
            },
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

impl View<'_> {
    /// How long it is, once that is known.
    pub fn len_bytes(&self) -> Option<u64> {
        match &self.0 {
            Seen::Short(short) => Some(short.len() as u64),
            Seen::Body(body) => body.as_ref()?.len_bytes(),
        }
    }

    /// Whether it is one block and there.
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            Seen::Short(_) => true,
            Seen::Body(body) => body.as_ref().is_some_and(|body| body.whole().is_some()),
        }
    }

    /// A part of what is one block and there, or all of it from `start` on. What is little is
    /// copied.
    pub fn part(&self, start: u64, end: Option<u64>) -> Option<Bytes> {
        let place = |at: u64, len: usize| usize::try_from(at).unwrap_or(usize::MAX).min(len);
        let range = |len: usize| {
            let end = end.map_or(len, |end| place(end, len));
            place(start, end)..end
        };
        match &self.0 {
            Seen::Short(short) => Some(Bytes::copy_from_slice(&short[range(short.len())])),
            Seen::Body(body) => {
                let whole = body.as_ref()?.whole()?;
                let range = range(whole.len());
                Some(match range.len() {
                    ..=SHORT_BYTES => Bytes::copy_from_slice(&whole[range]),
                    _ => whole.slice(range),
                })
            }
        }
    }
}
