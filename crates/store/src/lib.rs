//! Stored responses: objects, their blocks, the fills that bring them and the readers who follow.
//!
//! * An [`Object`] is a head that never changes and a [`Content`]: a row of blocks.
//! * [`Store::with`] finds what is stored under a key, without a lock.
//! * [`Store::begin`] makes one of all who ask for something absent its [`Lead`]; the others
//!   [`Follow`]. The lead fetches the head and publishes an object, or says that it is none.
//! * A [`Filler`] brings an object's bytes in; a [`Reader`] takes them, at once what is there.
//! * [`Lives`] are responses that nobody stores, shared while they run.
//! * [`Rules`](rules::Rules) say what has been purged.
//!
//! What it knows nothing of: HTTP. Whether something may be stored, is fresh or fits a request is
//! said by its user; that what was stored under one name is never mixed with anything else, that
//! all who wait are served by one fill, and that memory has a bound, is said here.
//!
//! *Invariant*: a block never changes once it is there. *Invariant*: of a body that was broken off
//! nothing is ever taken for complete.

mod body;
mod content;
pub mod disk;
mod flight;
mod index;
pub mod key;
mod live;
mod object;
pub mod queue;
mod reader;
mod room;
pub mod rules;
mod store;
mod tier;

pub use body::{
    AHEAD_BYTES, BLOCK_BYTES, FAR_BYTES, FillState, MAX_FILLS, NotFilled, Pushed, WINDOW_BYTES,
};
pub use content::{Content, SHORT_BYTES, View};
pub use flight::{Begin, Follow, Lead, Outcome};
pub use key::{Hash, Secret};
pub use live::{Borders, Heard, LiveFiller, LiveReader, LiveUsage, Lives, Room, Running, TooSlow};
pub use object::{Meta, Object, Refresh};
pub use reader::{Read, Reader};
pub use room::room;
pub use store::{Filler, Options, Question, Store, Swept, Usage};
pub use tier::Candidate;
