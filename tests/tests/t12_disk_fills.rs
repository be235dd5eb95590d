//! The cases of fills, of ranges and of failing origins once more, with a disk; and what only a disk
//! makes possible.

#[path = "t11_failing.rs"]
mod failing;
#[path = "t11_fills.rs"]
mod fills;
#[path = "t11_ranges.rs"]
mod ranges;

use forebay_tests::reading::{Reading, STALE, expect_whole};
use forebay_tests::{Asset, Gate, Origin, Server, Shelf, proc, wait};

/// Far more than the memory of these cases keeps...
const LEN: u64 = 40_000_000;

/// ... at a rate at which no machine's disk falls behind by what may wait for it, some six megabytes:
/// what comes too fast is not stored.
const RATE: u64 = 10_000_000;

fn with_little_memory(origin: &Origin) -> Server {
    Server::builder(
        r#"cache_store { memory = "8MB", disk = "@dir@/store", disk_size = "256MB" }
           site { "*", cache, proxy "@origin@" }"#,
    )
    .origin("origin", origin)
    .start()
}

/// What the server says of its disk.
fn disk(server: &Server) -> serde_json::Value {
    let status = server.command("status --json").expect(0).stdout;
    let mut status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["stores"][0]["disk"].take()
}

#[track_caller]
fn wait_sent(origin: &Origin, bytes: u64) {
    origin.wait_for("it to be taken", |_, conns| {
        conns.iter().map(|conn| conn.sent).sum::<u64>() > bytes
    });
}

#[test]
fn a_slow_reader_does_not_hold_up_what_goes_to_a_disk() {
    let (_shelf, origin) = Shelf::start(Asset::new(LEN).rate(RATE));
    let mut server = with_little_memory(&origin);
    let client = server.client();
    let mut slow = Reading::get(&client.clone().receive_buffer(16 * 1024));
    slow.until(100_000);
    wait_sent(&origin, LEN);
    // Who joins late, too, gets what memory has let go.
    assert_eq!(Reading::get(&client).finish(), Ok(LEN));
    let part = Reading::range(&client, 20_000_000, 20_099_999);
    assert_eq!(part.finish(), Ok(100_000));
    assert_eq!(slow.finish(), Ok(LEN));
    assert_eq!(origin.requests().len(), 1);
    wait::until("it to be written", || disk(&server)["objects"] == 1);
    server.kill();
    server.start_again();
    let head = expect_whole(&server.client(), 0, LEN);
    assert!(head.all("cache-status")[0].contains("hit"), "{head:?}");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn what_is_coming_is_read_from_the_disk_by_those_behind() {
    let gate = Gate::new();
    let (_shelf, origin) = Shelf::start(Asset::new(LEN).rate(RATE).hold(30_000_000, &gate));
    let server = with_little_memory(&origin);
    let client = server.client();
    let mut slow = Reading::get(&client.clone().receive_buffer(16 * 1024));
    slow.until(100_000);
    wait_sent(&origin, 30_000_000);
    let mut late = Reading::get(&client);
    late.until(29_000_000);
    slow.until(10_000_000);
    gate.open();
    assert_eq!(late.finish(), Ok(LEN));
    assert_eq!(slow.finish(), Ok(LEN));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn what_goes_to_a_disk_is_finished_without_readers_if_little_is_left() {
    // Sockets hold some megabytes that the origin has sent.
    for (held, finished) in [(38_500_000, true), (20_000_000, false)] {
        let gate = Gate::new();
        let (_shelf, origin) = Shelf::start(Asset::new(LEN).rate(RATE).hold(held, &gate));
        let server = with_little_memory(&origin);
        let client = server.client();
        let mut slow = Reading::get(&client.clone().receive_buffer(16 * 1024));
        slow.until(100_000);
        wait_sent(&origin, held);
        slow.leave();
        if finished {
            gate.open();
            wait_sent(&origin, LEN);
        } else {
            wait::until("it to be given up", || !proc::is_in_use(origin.port()));
            gate.open();
        }
        let _ = expect_whole(&client, 0, LEN);
        assert_eq!(origin.requests().len(), if finished { 1 } else { 2 });
    }
}

#[test]
fn what_goes_to_a_disk_may_be_replaced_there_in_the_background() {
    let fields = format!("{STALE}, stale-while-revalidate=600\r\n");
    let (shelf, origin) = Shelf::start(Asset::new(LEN).rate(RATE).fields(&fields));
    let server = with_little_memory(&origin);
    let client = server.client();
    // Its one reader is near all the time, and not kept waiting for a disk that falls behind.
    wait::until("it to be stored", || {
        let _ = expect_whole(&client, 0, LEN);
        wait::until("what is queued to be written", || {
            disk(&server)["queue_bytes"] == 0
        });
        disk(&server)["objects"] == 1
    });
    shelf.edit(Asset::change);
    let head = expect_whole(&client, 0, LEN);
    assert!(head.all("cache-status")[0].contains("stale-while-revalidate"));
    // Each who asks meanwhile has it validated; one at a time.
    wait::until("the new one", || {
        let reading = Reading::start(&client, &forebay_tests::Request::head("/big"), 0);
        reading.head.field("etag") == Some("\"v1000\"")
    });
    let _ = expect_whole(&client, 1000, LEN);
}

#[test]
fn a_disk_that_is_too_slow_holds_nobody_up() {
    let (_shelf, origin) = Shelf::start(Asset::new(LEN));
    let server = Server::builder(
        r#"cache_store {
             memory = "8MB", disk = "@dir@/store", disk_size = "256MB", disk_write = "1MB/s",
           }
           site { "*", cache, proxy "@origin@" }"#,
    )
    .origin("origin", &origin)
    .start();
    let begun = std::time::Instant::now();
    for nth in 1..4 {
        let _ = expect_whole(&server.client(), 0, LEN);
        assert_eq!(origin.requests().len(), nth, "it is not stored");
    }
    let took = begun.elapsed();
    assert!(took.as_secs() < 30, "{took:?}, not at the disk's pace");
}
