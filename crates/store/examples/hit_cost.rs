//! What finding and reading a stored object costs, by how many there are and how long they are:
//! `cargo run --release -p forebay-store --example hit_cost [HITS [CASE]]`
#![expect(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/sim/mod.rs"]
mod sim;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use common::Head;
use forebay_store::Store;
use sim::{Random, Zipf};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[inline(never)]
fn hit(store: &Arc<Store<Head>>, key: &[u8]) -> Bytes {
    let hash = store.hash(key);
    let found = store.with(hash, key, |object| {
        if !store.is_alive(object) {
            return None;
        }
        object.used();
        object.body.view().part(0, None)
    });
    found.expect("it is stored")
}

fn main() {
    let hits = std::env::args().nth(1).and_then(|hits| hits.parse().ok());
    let hits: usize = hits.unwrap_or(2_000_000);
    let cases = [
        ("1 KiB, one of 1", 1, 1024),
        ("1 KiB, Zipf 0.9 of 10,000", 10_000, 1024),
        ("1 KiB, Zipf 0.9 of 500,000", 500_000, 1024),
        ("64 KiB, one of 1", 1, 64 * 1024),
        ("64 KiB, Zipf 0.9 of 10,000", 10_000, 64 * 1024),
    ];
    let only: Option<usize> = std::env::args().nth(2).and_then(|only| only.parse().ok());
    for (number, (name, objects, len)) in cases.into_iter().enumerate() {
        if only.is_some_and(|only| only != number) {
            continue;
        }
        let store = common::store(4 << 30);
        let key = |number: u32| format!("http://www.example.com/images/{number:08}.png");
        for number in 0..objects {
            let key = key(number);
            let body = Bytes::from(vec![1; len]);
            let hash = store.hash(key.as_bytes());
            store.store(hash, key.as_bytes(), 0, Head::default(), body);
        }
        let zipf = Zipf::new(objects, 0.9);
        let mut random = Random(1);
        let asked: Vec<u32> = (0..hits.min(1 << 18))
            .map(|_| zipf.draw(&mut random))
            .collect();
        let keys: Vec<String> = asked.iter().map(|number| key(*number)).collect();
        let mut least = f64::MAX;
        for _ in 0..5 {
            let begin = Instant::now();
            let mut got = 0;
            for key in keys.iter().cycle().take(hits) {
                got += hit(&store, key.as_bytes()).len();
            }
            assert_eq!(got, hits * len);
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let each = begin.elapsed().as_nanos() as f64 / hits as f64;
            least = least.min(each);
        }
        println!("{name:28} {least:>6.1} ns");
    }
}
