//! Programs that the helper starts for the server: each leads a group of its own, dies with the
//! server, and is ended together with all that it has started.
//!
//! ```text
//!   worker                                     helper
//!   Programs::start ── start, descriptors ──▶ Keeper ── clone, exec ──▶ program
//!            ◀── started ──────────────────────  │                        │ its group
//!   Program dropped ── end ───────────────────▶  │ ── TERM, then KILL ──▶ │
//!            ◀── ended ────────────────────────  │ ◀── SIGCHLD ───────────┘
//! ```
//!
//! Every worker has a channel of its own to the helper, a pair of sockets that keep messages apart
//! ([`message`]); nothing on it is waited for. When a channel closes, its programs are killed: so
//! nothing outlives its worker, nor the server, however that ended.

mod ask;
mod keep;
mod lines;
mod message;
#[cfg(test)]
mod tests;

pub use ask::{Channel, Place, Program, Programs, Spec, StartError, Watch};
pub use keep::Keeper;
pub use lines::each_line;
