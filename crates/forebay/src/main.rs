//! Forebay: a web server, reverse proxy and load balancer in one binary, configured in Lua.

// Nothing of a binary can be reached from outside: here `pub` says what a room offers to the others.
#![allow(unreachable_pub)]

mod access;
mod cli;
mod compute;
mod control;
mod counters;
mod exchange;
mod explain;
mod files;
mod helper;
mod listen;
mod log;
mod protocol;
mod snapshot;
mod steps;
mod trace;
mod transport;
mod upstream;
mod wheel;
mod worker;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: the helper must stay small.
    if let Some(code) = helper::run_if_asked() {
        return code;
    }
    cli::run()
}
