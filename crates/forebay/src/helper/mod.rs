//! The helper: a small process that keeps the privileges which the server gives up.
//!
//! Forebay starts it first of all, before it has threads and before its memory grows: it executes
//! its own binary anew, so no fork ever copies the page tables of a large process. The helper
//! binds addresses and opens files for its server and passes the descriptors back. It has one
//! thread, keeps little between requests, and runs as whoever started Forebay.
//!
//! ```text
//!   server (after start as `user`)                helper (as started, perhaps root)
//!   Helper::bind_tcp ── request ──▶ descriptor 0 ── serve ── bind
//!          ◀── reply, descriptors ──
//! ```
//!
//! Both talk over a pair of Unix sockets that keep messages apart (SOCK_SEQPACKET); the helper
//! finds its end as standard input. [`protocol`] has the messages. The helper ends when the
//! server's end is closed, which the kernel does however the server has died. It leads a
//! session and a process group of its own and lets SIGINT, SIGTERM, SIGHUP and SIGQUIT pass: a terminal or a
//! service manager that signals all processes must not take it away from a server that drains.
//!
//! It also starts programs for the workers ([`programs`]). Before it ends it kills them with all that
//! they have started; so it does not ask the kernel to be killed with its server, as they do.
//!
//! *What it grants*: whoever controls the server process can bind any address and read any regular
//! file that the helper can. That is what a reload needs, whose files name new certificates; it is
//! not a wall against a server that was taken over, but the server itself, which parses what
//! strangers send, holds no privilege that it could misuse by mistake.

mod client;
pub mod programs;
mod protocol;
mod serve;
#[cfg(test)]
mod tests;

pub use client::Helper;
pub use serve::run_if_asked;

/// The hidden first argument that makes the binary a helper; the server's process id follows.
const ARGUMENT: &str = "--forebay-helper";
