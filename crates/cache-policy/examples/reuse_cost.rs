//! What a decision costs: `cargo run --release -p forebay-cache-policy --example reuse_cost`.
//!
//! The stored facts lie in a row of 100,000 and are looked at in no order, as hits do, so what is
//! measured is mostly one cache line from memory; "hot" is one of them, over and over.

use std::hint::black_box;
use std::time::Instant;

use forebay_cache_policy::{
    Asked, Moment, Policy, RequestFacts, ResponseFacts, Reuse, StoredFacts, Time, Times, reuse,
    storable,
};
use forebay_fields::Fields;

const OBJECTS: usize = 100_000;
const ROUNDS: usize = 2_000_000;

fn main() {
    let policy = Policy::default();
    let fields = |lines: &[(&str, &str)]| {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, value).expect("a valid field");
        }
        fields
    };
    let browser = fields(&[
        ("Host", "example.com"),
        (
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        ),
        (
            "Accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("Accept-Language", "en-US,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Cookie", "a=b; c=d"),
    ]);
    let reload = fields(&[
        ("Cache-Control", "max-age=0"),
        ("Accept-Encoding", "gzip, br"),
    ]);
    let answer = fields(&[("Cache-Control", "public, max-age=600"), ("ETag", "\"a\"")]);
    let now = Time::from_secs(1_700_000_000);
    let times = Times {
        asked: now,
        answered: now,
    };
    let asked = |fields| Asked {
        method: "GET",
        safe: true,
        has_body: false,
        fields,
    };
    let request = RequestFacts::of(&policy, &asked(&browser));
    let response = ResponseFacts::of(200, &answer, false);
    let stored = storable(&policy, &request, &response, &times).expect("it may be stored");
    println!("StoredFacts: {} bytes", size_of::<StoredFacts>());

    let row = vec![stored; OBJECTS];
    let moment = Moment::at(now);
    for (name, step) in [("hot", 0), ("in no order", 61_803)] {
        let mut at = 0;
        each(&format!("reuse, a plain hit, {name}"), || {
            at = (at + step) % OBJECTS;
            let got = reuse(&policy, &request, black_box(&row[at]), &moment);
            assert_eq!(got, Reuse::Fresh);
        });
    }
    let again = RequestFacts::of(&policy, &asked(&reload));
    each("reuse, max-age=0", || {
        black_box(reuse(&policy, &again, black_box(&stored), &moment));
    });
    each("RequestFacts, a browser's", || {
        black_box(RequestFacts::of(&policy, &asked(black_box(&browser))));
    });
    each("RequestFacts, a browser's reload", || {
        black_box(RequestFacts::of(&policy, &asked(black_box(&reload))));
    });
    each("ResponseFacts and storable", || {
        let response = ResponseFacts::of(200, black_box(&answer), false);
        let _ = black_box(storable(&policy, &request, &response, &times));
    });
}

fn each(name: &str, mut run: impl FnMut()) {
    // The least of five: what others do on the machine only adds.
    let round = |run: &mut dyn FnMut()| {
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            run();
        }
        begun.elapsed().as_secs_f64() * 1e9 / ROUNDS as f64
    };
    let least = (0..5).map(|_| round(&mut run)).fold(f64::MAX, f64::min);
    println!("{name:<36} {least:>7.1} ns");
}
