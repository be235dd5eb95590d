//! The memory tier keeps what is asked for again: more of it than LRU would, and as much as its
//! queue does alone. The whole table: `examples/hit_ratio.rs`.

mod common;
mod sim;

use common::Head;
use forebay_store::queue::Tuning;
use sim::{Score, Trace};

const THINGS: u32 = 50_000;

fn check(trace: &Trace, percent: u64, gain: f64) {
    let budget = trace.weight_of_all(THINGS) / 100 * percent;
    let lru = sim::lru(trace, budget);
    let ours = sim::queue(trace, budget, Tuning::USUAL);
    let name = trace.name;
    assert!(
        ours > lru + gain,
        "{name}: {percent} %: {ours} against {lru} of LRU"
    );
}

#[test]
fn more_hits_than_lru() {
    let plain = Trace::new("zipf", THINGS, 300_000, 0, false);
    check(&plain, 1, 10.0);
    check(&plain, 10, 4.0);
    let mixed = Trace::new("zipf, mixed sizes", THINGS, 300_000, 0, true);
    check(&mixed, 2, 6.0);
    let wonders = Trace::new("asked for once", THINGS, 300_000, 30, false);
    check(&wonders, 2, 6.0);
    check(&wonders, 10, 4.0);
}

#[test]
fn the_store_hits_what_its_queue_does() {
    let mut trace = Trace::new("zipf", THINGS, 300_000, 0, false);
    let key = |thing: u32| format!("http://a.example/{thing:08}").into_bytes();
    let body = bytes::Bytes::from(vec![0; 512]);
    let weight = {
        let one = common::store(1 << 20);
        let put = |thing: u32| {
            let key = key(thing);
            one.store(one.hash(&key), &key, 0, Head::default(), body.clone());
            one.usage().bytes
        };
        // The first one brings the queue's own memory with it.
        let before = put(0);
        put(1) - before
    };
    trace.weight = Some(u32::try_from(weight).unwrap());
    for percent in [2, 10] {
        let budget = u64::from(THINGS) * weight / 100 * percent;
        let store = common::store(budget);
        let mut score = Score::default();
        for (number, thing) in trace.asked.iter().enumerate() {
            let key = key(*thing);
            let found = common::found(&store, &key);
            score.note(number, &trace, found.is_some());
            match found {
                Some(object) => object.used(),
                None => {
                    store.store(store.hash(&key), &key, 0, Head::default(), body.clone());
                }
            }
        }
        let alone = sim::queue(&trace, budget, Tuning::USUAL);
        let ours = score.percent();
        assert!(
            (alone - ours).abs() < 1.0,
            "{percent} %: {ours}, alone {alone}"
        );
    }
}
