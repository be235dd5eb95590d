//! How often a hit writes to memory that the hits of other workers write to, too: each such
//! read-modify-write takes the memory away from another core.
//!
//! Nothing is trusted to say so of itself. The test has another process do the same hit in two
//! threads, goes through it instruction by instruction, and notes the addresses of all locked
//! instructions. Those that both threads have written to are the shared ones: counts of references,
//! wherever they are, but not what a thread has for itself. What libraries do counts as well.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../common/mod.rs"]
mod common;
mod decode;
mod steps;

use std::io::Read as _;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};

use common::{Head, KEY, bytes, store};
use forebay_store::{BLOCK_BYTES, Object, Read, Reader, Store};

/// Every thread has its own memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MB: u64 = 1 << 20;

/// Which hit the other process is to do.
const CASE: &str = "FOREBAY_TEST_HIT";

#[test]
fn a_short_hit_writes_to_nothing_that_is_shared() {
    assert_eq!(shared_writes("1024"), 0);
}

#[test]
fn a_hit_of_one_block_counts_its_reference() {
    assert_eq!(shared_writes("65536"), 2);
}

#[test]
fn a_hit_of_several_blocks_counts_the_reference_of_each() {
    let [four, eight] = ["262144", "524288"].map(shared_writes);
    assert_eq!((eight - four) / 4, 2, "{four} {eight}");
    // That somebody reads it, and the object, once each.
    assert_eq!(four - 4 * 2, 4);
}

fn shared_writes(case: &'static str) -> usize {
    let [one, other] = steps::locked(CASE, case, "hits_for_those_who_watch");
    assert!(
        !one.is_empty(),
        "a hit without a locked instruction was not seen"
    );
    other.iter().filter(|address| one.contains(address)).count()
}

/// What the others have done by another process; by itself it does nothing.
#[test]
fn hits_for_those_who_watch() {
    let Some(len) = std::env::var(CASE).ok().and_then(|len| len.parse().ok()) else {
        return;
    };
    let store = store(64 * MB);
    store.store(store.hash(KEY), KEY, 0, Head::default(), bytes(0..len));
    // Both are there until the end: neither gets what the other had.
    let (done, wait) = channel();
    std::thread::scope(|scope| {
        let mut wait = Some(wait);
        let mut threads = Vec::new();
        for _ in 0..2 {
            let (store, done) = (store.clone(), done.clone());
            threads.push(scope.spawn(move || {
                for _ in 0..3 {
                    hit(&store, len);
                }
                steps::announce(mark);
                let _ = std::io::stdin().read(&mut [0]);
                mark();
                hit(&store, len);
                mark();
                let _ = done.send(());
                std::thread::park();
            }));
            let _ = wait.as_mut().map(|wait| wait.recv());
        }
        threads.iter().for_each(|thread| thread.thread().unpark());
    });
}

/// Where what is watched begins and ends.
#[inline(never)]
fn mark() {
    std::hint::black_box(());
}

/// What the server does with a hit: as it stands in the index if it is one block, else by a reader.
fn hit(store: &Arc<Store<Head>>, len: u64) {
    let hash = store.hash(KEY);
    let look = |object: &Arc<Object<Head>>| {
        if !store.is_alive(object) {
            return None;
        }
        object.used();
        let view = object.body.view();
        Some(view.part(0, None).ok_or_else(|| object.clone()))
    };
    match store.with(hash, KEY, look).expect("it is stored") {
        Ok(whole) => assert_eq!(whole.len() as u64, len),
        Err(object) => read(object, len),
    }
}

fn read(object: Arc<Object<Head>>, len: u64) {
    let mut reader = Reader::new(object, 0, None);
    let mut cx = Context::from_waker(Waker::noop());
    let mut got = 0;
    while let Poll::Ready(Read::Data(bytes)) = reader.poll_read(&mut cx) {
        got += bytes.len() as u64;
    }
    assert_eq!((got, got % BLOCK_BYTES), (len, 0));
}
