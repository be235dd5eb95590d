//! What share of requests the memory tier answers, beside LRU, and how that depends on its tuning:
//! `cargo run --release -p forebay-store --example hit_ratio`

#[path = "../tests/sim/mod.rs"]
mod sim;

use forebay_store::queue::Tuning;
use sim::Trace;

const THINGS: u32 = 1_000_000;
const REQUESTS: usize = 10_000_000;

fn main() {
    let traces = [
        Trace::new("zipf 0.9", THINGS, REQUESTS, 0, false),
        Trace::new("zipf 0.9, mixed sizes", THINGS, REQUESTS, 0, true),
        Trace::new("30 % asked for once", THINGS, REQUESTS, 30, false),
        Trace::new("30 % once, mixed sizes", THINGS, REQUESTS, 30, true),
    ];
    let tune = |small_percent, uses_to_stay, ghost_percent| Tuning {
        small_percent,
        uses_to_stay,
        ghost_percent,
    };
    let tunings = [
        tune(10, 1, 100),
        tune(10, 2, 100),
        tune(5, 1, 100),
        tune(20, 1, 100),
        tune(10, 1, 50),
        tune(10, 1, 200),
        tune(5, 2, 200),
    ];
    println!("hits in %; small queue in %, uses to stay, ghosts in %");
    print!("{:24} {:>6} {:>6}", "trace", "budget", "lru");
    for t in &tunings {
        let name = format!("{}/{}/{}", t.small_percent, t.uses_to_stay, t.ghost_percent);
        print!(" {name:>9}");
    }
    println!();
    for trace in &traces {
        let all = trace.weight_of_all(THINGS);
        for percent in [1, 2, 5, 10] {
            let budget = all / 100 * percent;
            let lru = sim::lru(trace, budget);
            print!("{:24} {percent:>4} % {lru:>6.2}", trace.name);
            for tuning in &tunings {
                print!(" {:>9.2}", sim::queue(trace, budget, *tuning));
            }
            println!();
        }
    }
}
