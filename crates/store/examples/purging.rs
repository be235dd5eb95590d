//! What purges cost: a look at an object with 100,000 rules in force, and a sweep of 1,000,000
//! objects: `cargo run --release -p forebay-store --example purging`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use forebay_store::rules::Rule;
use forebay_store::{Meta, Options, Store};
use smallvec::SmallVec;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const OBJECTS: u64 = 1_000_000;
const RULES: u64 = 100_000;
const LOOKS: u64 = 20_000_000;

/// Every object has two tags; one in a hundred is tagged to be purged.
struct Head {
    tags: [Box<[u8]>; 2],
}

impl Meta for Head {
    type Failure = ();

    fn weight_bytes(&self) -> usize {
        self.tags.iter().map(|tag| tag.len()).sum()
    }

    fn replaces(&self, _: &Head) -> bool {
        true
    }

    fn encode(&self) -> Option<Bytes> {
        None
    }

    fn decode(_: &[u8]) -> Option<Head> {
        None
    }

    fn variant(&self) -> u16 {
        0
    }

    fn tags(&self) -> SmallVec<[&[u8]; 4]> {
        self.tags.iter().map(|tag| &**tag).collect()
    }
}

fn key_of(number: u64) -> Vec<u8> {
    format!("http://www.example.com/images/{number:08}.png").into_bytes()
}

fn put(store: &Arc<Store<Head>>, number: u64) {
    let key = key_of(number);
    let group: &[u8] = if number.is_multiple_of(100) {
        b"sale"
    } else {
        b"other"
    };
    let tags = [group.into(), format!("item-{number}").into_bytes().into()];
    let hash = store.hash(&key);
    let asked_at = store.rules.newest();
    let (_, mut filler) = store.publish(hash, &key, asked_at, Head { tags }, Some(10), false);
    filler.push(&Bytes::from_static(b"0123456789"));
    filler.finish();
}

/// Nanoseconds for a look at one object after the other, each once judged already.
fn look(store: &Arc<Store<Head>>) -> f64 {
    let keys: Vec<_> = (0..64)
        .map(key_of)
        .map(|key| (store.hash(&key), key))
        .collect();
    let mut best = f64::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let mut alive = 0;
        for number in 0..LOOKS / 5 {
            let (hash, key) = &keys[usize::try_from(number % 64).unwrap_or(0)];
            let found = store.with(*hash, key, |one| store.is_alive(one).then_some(()));
            alive += u64::from(found.is_some());
        }
        assert!(black_box(alive) > 0);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let each = began.elapsed().as_nanos() as f64 / (LOOKS / 5) as f64;
        best = best.min(each);
    }
    best
}

fn main() {
    let store = Store::<Head>::new(Options {
        memory_bytes: 4 << 30,
        secret: [7; 16],
    });
    (0..OBJECTS).for_each(|number| put(&store, number));
    println!("{OBJECTS} objects, {} bytes", store.usage().bytes);

    let without = look(&store);
    for number in 0..RULES {
        let text = format!("gone-{number}").into_bytes().into_boxed_slice();
        store.purge(&Rule::Tag(text), false);
    }
    assert_eq!(store.usage().rules as u64, RULES, "nobody has swept yet");
    let with = look(&store);
    println!("a look: {without:.1} ns; with {RULES} rules in force: {with:.1} ns");

    let began = Instant::now();
    let swept = store.sweep();
    let took = began.elapsed();
    println!(
        "a sweep that meets nothing: {took:?}, {} gone, {} rules left",
        swept.gone,
        store.usage().rules
    );

    let began = Instant::now();
    store.purge(&Rule::Tag((*b"sale").into()), false);
    println!("a purge of {}: {:?}", OBJECTS / 100, began.elapsed());
    let began = Instant::now();
    let swept = store.sweep();
    println!(
        "a sweep that takes them away: {:?}, {} gone, {} bytes back",
        began.elapsed(),
        swept.gone,
        swept.bytes
    );
}
