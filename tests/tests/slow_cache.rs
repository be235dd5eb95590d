//! The cache over time: who joins a slow transfer, and what slow readers cost.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay_tests::load::best_of;
use forebay_tests::pattern::Checker;
use forebay_tests::{Asset, Client, Origin, Request, Server, Shelf, wait};

fn cached(origin: &Origin, workers: usize, store: &str) -> Server {
    Server::builder(&format!(
        "{store} site {{ \"*\", cache, proxy \"@origin@\" }}"
    ))
    .origin("origin", origin)
    .workers(workers)
    .start()
}

/// Within which time what is there has to begin to come, to half of those who join: the client is one
/// of many threads, and others may use the machine.
const SOON: Duration = Duration::from_millis(50);
/// And to all of them.
const AT_LAST: Duration = Duration::from_secs(1);

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

const RATE: u64 = 125_000;
const LEN: u64 = 8 * RATE;

/// After so many seconds somebody joins.
const JOINS: [u64; 5] = [0, 1, 3, 5, 7];

/// What curl gets of it at this address, after so many seconds, as its SHA-256.
fn curled(address: &str, seconds: u64) -> String {
    let url = format!("http://{address}/film");
    let command = format!("sleep {seconds}; curl -sSf -H 'Host: forebay.test' {url} | sha256sum");
    let output = Command::new("sh")
        .args(["-c", &command])
        .stderr(Stdio::inherit())
        .output();
    let output = output.expect("a shell");
    String::from_utf8(output.stdout).expect("a hash")
}

/// Joins and leaves ten times a second until it is over; how often.
fn come_and_go(client: &Client, is_over: &AtomicBool) -> u64 {
    let begun = Instant::now();
    let mut times = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut conn = client.connect();
        conn.send_head(&Request::get("/film"));
        let (head, mut body) = conn.read_head();
        assert_eq!(head.status, 200);
        let mut checker = Checker::default();
        // Some leave before anything has come, some in the midst of it.
        while checker.offset() < 20_000 * (times % 3) {
            match body.next(&mut conn).expect("some of it") {
                Some(part) => checker.feed(&part),
                None => break,
            }
        }
        conn.abort();
        times += 1;
        let due = begun + Duration::from_millis(100 * times);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    times
}

fn fifty_join(workers: usize, store: &str) {
    let (shelf, origin) = Shelf::start(Asset::new(LEN).rate(RATE));
    let server = cached(&origin, workers, store);
    let (client, address) = (server.client(), server.addr().to_string());
    // What the first connections make for good: threads, buffers, code that was touched.
    let warm: Vec<_> = (0..60).map(|_| client.connect()).collect();
    for mut conn in warm {
        let request = Request::get("/film?warm").field("Range", "bytes=0-9");
        conn.send(&request);
        let _ = conn.read_response().expect(206);
    }
    let asked = origin.requests().len();
    let (descriptors, memory) = (
        forebay_tests::proc::descriptors(server.pid()),
        server.memory_with_sockets(),
    );
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let coming = scope.spawn(|| come_and_go(&client, &is_over));
        let hashes = JOINS.map(|seconds| {
            let address = &address;
            scope.spawn(move || curled(address, seconds))
        });
        let mut readers = Vec::new();
        for seconds in JOINS.into_iter().cycle().take(50) {
            let client = &client;
            readers.push(scope.spawn(move || {
                std::thread::sleep(Duration::from_secs(seconds));
                let (first, at_once) = join(client, LEN);
                if seconds > 0 {
                    let there = (seconds * RATE).saturating_sub(RATE / 5);
                    assert!(at_once >= there, "{at_once} of {there} at {seconds} s");
                }
                (first, begun.elapsed())
            }));
        }
        let readers: Vec<_> = readers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        is_over.store(true, Ordering::Relaxed);
        let readers: Vec<_> = readers.into_iter().map(Result::unwrap).collect();
        // They follow it to its end, and none lags behind the others.
        let ended = readers.iter().map(|(_, ended)| *ended);
        let (soonest, latest) = (ended.clone().min().unwrap(), ended.max().unwrap());
        assert!(
            latest - soonest < Duration::from_secs(1),
            "{soonest:?} {latest:?}"
        );
        let times = coming.join().unwrap();
        assert!(times > 60, "{times} times");
        assert_eq!(origin.requests().len(), asked + 1, "one for all");
        shelf.edit(|asset| asset.rate = 0);
        let own = curled(&origin.target(), 0);
        for hash in hashes {
            assert_eq!(hash.join().unwrap(), own);
        }
        let late = readers
            .iter()
            .enumerate()
            .filter(|(nth, _)| nth % JOINS.len() > 0);
        let mut firsts: Vec<_> = late.map(|(_, (first, _))| *first).collect();
        firsts.sort_unstable();
        let (half, last) = (firsts[firsts.len() / 2], firsts[firsts.len() - 1]);
        println!("{workers} workers: the first byte after {half:?}, {last:?} at most");
        assert!(half < SOON && last < AT_LAST, "{firsts:?}");
    });
    let (_, at_once) = join(&client, LEN);
    assert_eq!(at_once, LEN, "stored");
    // Each worker may keep a connection to the origin for a while, and a disk has a file more.
    wait::until("its descriptors to return", || {
        forebay_tests::proc::descriptors(server.pid()) <= descriptors + workers + 1
    });
    let more = || server.memory_with_sockets().saturating_sub(memory);
    println!("{workers} workers: {} KiB more than before", more() / 1024);
    // The object is one of them.
    wait::until("its memory to return", || more() < 8 << 20);
}

#[test]
fn fifty_join_a_slow_transfer_and_have_at_once_what_is_there() {
    for workers in [1, 2] {
        fifty_join(workers, "");
    }
}

#[test]
fn fifty_join_a_slow_transfer_that_goes_to_a_disk() {
    for workers in [1, 2] {
        fifty_join(
            workers,
            r#"cache_store { disk = "@dir@/store", disk_size = "256MB" }"#,
        );
    }
}

/// Reads at 10 KB/s until it is over.
fn read_slowly(client: &Client, is_over: &AtomicBool) {
    let mut conn = client.connect();
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
            scope.spawn(|| read_slowly(&slow, &is_over));
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

/// The same with a disk, without anybody who is fast; it comes all the same.
fn slow_readers_with_a_disk(count: usize) -> u64 {
    const LEN: u64 = 1 << 30;
    let (_shelf, origin) = Shelf::start(Asset::new(LEN).rate(60 << 20));
    let store = r#"cache_store { memory = "64MB", disk = "@dir@/store", disk_size = "2GB" }"#;
    let server = cached(&origin, 2, store);
    let warm = Request::get("/film?warm").field("Range", "bytes=0-9");
    let _ = server.client().request(&warm).expect(206);
    let before = server.memory_with_sockets();
    let is_over = AtomicBool::new(false);
    let slow = server.client().receive_buffer(16 * 1024);
    let mut most = 0;
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| read_slowly(&slow, &is_over));
        }
        forebay_tests::wait::until_within(Duration::from_secs(90), "all of it", || {
            most = most.max(server.memory_with_sockets().saturating_sub(before));
            origin.bytes_sent() > LEN
        });
        is_over.store(true, Ordering::Relaxed);
    });
    println!(
        "{count} readers of 10 KB/s, with a disk: {} KiB more",
        most / 1024
    );
    assert_eq!(origin.requests().len(), 2);
    let middle = Request::get("/film").field("Range", "bytes=500000000-500999999");
    let got = server.client().request(&middle).expect(206);
    Checker::at(500_000_000).feed(&got.body);
    assert_eq!(origin.requests().len(), 2, "it is on the disk");
    most
}

#[test]
fn slow_readers_of_a_gibibyte_cost_little_with_a_disk_too() {
    // A disk that others use as well has more wait for it.
    best_of(3, || {
        let most = slow_readers_with_a_disk(2);
        let said = format!("{most} bytes");
        if most < 16 << 20 { Ok(said) } else { Err(said) }
    });
    let most = slow_readers_with_a_disk(100);
    assert!(most < 64 << 20, "{most} bytes");
}
