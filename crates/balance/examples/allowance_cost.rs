//! What a limit by client costs a request among a million clients, and the memory they take:
//! `cargo run --release -p forebay-balance --example allowance_cost`.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use forebay_balance::{Allowances, Gcra};

const CLIENTS: u64 = 1_000_000;

fn main() {
    let (table, gcra) = (
        Allowances::default(),
        Gcra::new(10, Duration::from_secs(60), 10),
    );
    let keys = RandomState::new();
    let start = Instant::now();
    let now_ns = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    for round in ["new", "known", "known"] {
        let begun = Instant::now();
        // Clients come in no order: one address is far from the next one.
        for number in 0..CLIENTS {
            let address = number.wrapping_mul(0x9e37_79b9) & 0xffff_ffff;
            let _ = table.take(keys.hash_one(address).max(1), &gcra, now_ns(), 0);
        }
        let each = begun.elapsed().as_nanos() / u128::from(CLIENTS);
        let mib = table.cells() * 16 / (1 << 20);
        println!("{round}: {each} ns a request; {mib} MiB");
    }
}
