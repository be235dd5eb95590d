//! What Forebay asks of the operating system, behind safe functions.
//!
//! This is the only crate of the workspace in which `unsafe` is allowed. It is rarely needed:
//! `rustix`, `socket2` and `nix` are used wherever they do the job, and what remains stands in one
//! small function each, with a `SAFETY:` sentence and a test.
//!
//! Linux comes first. What only Linux has ([`files`]: `openat2`, `RWF_NOWAIT`, `sendfile`; [`net`]:
//! socket filters, balanced `SO_REUSEPORT`) has a portable fallback behind the same function, and
//! where a switch can choose the fallback on Linux too, the tests run both.
//!
//! * [`net`]: listeners, socket options, descriptors passed between processes
//! * [`files`]: opening below a root, reading without waiting for a disk, `sendfile`
//! * [`process`]: limits, users, cores, memory
//! * [`memory`]: giving back what is free
//! * [`clock`]: the cheap clocks
//! * `alarm`: a time that an event loop waits for as for a socket

#[cfg(target_os = "linux")]
pub mod alarm;
pub mod clock;
pub mod files;
pub mod memory;
pub mod net;
pub mod process;
mod spare;
