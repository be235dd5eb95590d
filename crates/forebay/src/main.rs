//! Forebay: a web server, reverse proxy and load balancer in one binary, configured in Lua.

mod counters;
mod exchange;
mod files;
mod listen;
mod protocol;
mod snapshot;
mod steps;
mod transport;
mod upstream;
mod wheel;
mod worker;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {}
