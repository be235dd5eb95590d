//! The cache over time: who joins a slow transfer, and what slow readers cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay_tests::pattern::Checker;
use forebay_tests::{Asset, Client, Origin, Request, Server, Shelf, server};

fn cached(origin: &Origin, workers: usize, store: &str) -> Server {
    Server::builder(&format!(
        "{store} site {{ \"*\", cache, proxy \"@origin@\" }}"
    ))
    .origin("origin", origin)
    .workers(workers)
    .start()
}

/// Within which time what is there has to begin to come.
fn soon() -> Duration {
    Duration::from_millis(if server::is_release() { 50 } else { 200 })
}

/// Reads all of it; says after which time the first byte came, and how many were there at once.
fn join(client: &Client, len: u64) -> (Duration, u64) {
    // That takes its time, too.
    let mut checker = Checker::default();
    let begun = Instant::now();
    let mut conn = client.connect();
    conn.send_head(&Request::get("/film"));
    let (head, mut body) = conn.read_head();
    assert_eq!(head.status, 200);
    let mut first = None;
    let mut at_once = 0;
    while let Some(part) = body.next(&mut conn).expect("all of it") {
        first.get_or_insert_with(|| begun.elapsed());
        checker.feed(&part);
        if begun.elapsed() < Duration::from_millis(300) {
            at_once = checker.offset();
        }
    }
    assert_eq!(checker.offset(), len);
    (first.expect("a byte"), at_once)
}

#[test]
fn fifty_join_a_slow_transfer_and_have_at_once_what_is_there() {
    const RATE: u64 = 125_000;
    const LEN: u64 = 8 * RATE;
    for workers in [1, 2] {
        let (_shelf, origin) = Shelf::start(Asset::new(LEN).rate(RATE));
        let server = cached(&origin, workers, "");
        let client = server.client();
        std::thread::scope(|scope| {
            for nth in 0..50_u64 {
                let seconds = [0, 1, 3, 5, 7][usize::try_from(nth % 5).unwrap()];
                let client = &client;
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_secs(seconds));
                    let (first, at_once) = join(client, LEN);
                    if seconds > 0 {
                        assert!(first < soon(), "{first:?} at {seconds} s");
                        let there = (seconds * RATE).saturating_sub(RATE / 5);
                        assert!(at_once >= there, "{at_once} of {there} at {seconds} s");
                    }
                });
            }
        });
        assert_eq!(origin.requests().len(), 1);
        let (_, at_once) = join(&client, LEN);
        assert_eq!(at_once, LEN, "stored");
    }
}

/// So many readers at 10 KB/s of a GiB that memory does not keep, beside one that takes all of it as
/// fast as it comes; says how many bytes more that takes, at most.
fn slow_readers(count: usize) -> u64 {
    const LEN: u64 = 1 << 30;
    // It takes long enough for the slow ones to come to what the fast one has left behind.
    let (_shelf, origin) = Shelf::start(Asset::new(LEN).rate(25_000_000));
    let server = cached(&origin, 2, r#"cache_store { memory = "64MB" }"#);
    // What stays for good: threads, buffers, the code that was touched.
    let warm = Request::get("/film?warm").field("Range", "bytes=0-9");
    let _ = server.client().request(&warm).expect(206);
    let before = server.memory_with_sockets();
    let is_over = AtomicBool::new(false);
    let client = server.client();
    let slow = server.client().receive_buffer(16 * 1024);
    let mut most = 0;
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut conn = slow.connect();
                conn.send_head(&Request::get("/film"));
                let (_, mut body) = conn.read_head();
                let mut checker = Checker::default();
                let begun = Instant::now();
                while !is_over.load(Ordering::Relaxed) {
                    let part = body.next(&mut conn).expect("more").expect("more");
                    checker.feed(&part);
                    let due = begun + Duration::from_millis(checker.offset() / 10);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            });
        }
        let fast = scope.spawn(|| join(&client, LEN));
        while !fast.is_finished() {
            most = most.max(server.memory_with_sockets().saturating_sub(before));
            std::thread::sleep(Duration::from_millis(20));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    println!(
        "{count} readers of 10 KB/s beside a fast one: {} KiB more, {} requests",
        most / 1024,
        origin.requests().len()
    );
    most
}

#[test]
fn two_slow_readers_of_a_gibibyte_cost_a_window() {
    let most = slow_readers(2);
    assert!(most < 16 << 20, "{most} bytes");
}

#[test]
fn a_hundred_slow_readers_of_a_gibibyte_cost_little_each() {
    let most = slow_readers(100);
    assert!(most < 64 << 20, "{most} bytes");
}
