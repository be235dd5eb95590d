//! The cache's fills: one transfer for all who want the same, and what becomes of it when readers or
//! the origin leave.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_tests::client::Conn;
use forebay_tests::pattern::Checker;
use forebay_tests::wire::{Body, Head};
use forebay_tests::{Asset, Client, Gate, Origin, Request, Script, Server, Shelf, Trouble, wait};

fn with_workers(origin: &Origin, workers: usize) -> Server {
    Server::builder(r#"site { "*", cache, proxy "@origin@" }"#)
        .origin("origin", origin)
        .workers(workers)
        .start()
}

fn cached(origin: &Origin) -> Server {
    with_workers(origin, 2)
}

/// A response that is being read, and checked against the pattern.
struct Reading {
    conn: Conn,
    head: Head,
    body: Body,
    checker: Checker,
    begun: u64,
}

impl Reading {
    fn start(client: &Client, request: &Request, at: u64) -> Self {
        let mut conn = client.connect();
        conn.send_head(request);
        let (head, body) = conn.read_head();
        Self {
            conn,
            head,
            body,
            checker: Checker::at(at),
            begun: at,
        }
    }

    fn get(client: &Client) -> Self {
        let reading = Self::start(client, &Request::get("/big"), 0);
        assert_eq!(reading.head.status, 200);
        reading
    }

    fn range(client: &Client, first: u64, last: u64) -> Self {
        let range = format!("bytes={first}-{last}");
        let request = Request::get("/big").field("Range", &range);
        let reading = Self::start(client, &request, first);
        assert_eq!(reading.head.status, 206, "{range}");
        reading
    }

    /// How many bytes have come.
    fn got(&self) -> u64 {
        self.checker.offset() - self.begun
    }

    /// Reads until so many bytes have come.
    #[track_caller]
    fn until(&mut self, got: u64) {
        while self.got() < got {
            match self.body.next(&mut self.conn) {
                Ok(Some(part)) => self.checker.feed(&part),
                other => panic!("{other:?} after {} of {got} bytes", self.got()),
            }
        }
    }

    /// Reads to the end, and says how long the body was.
    fn finish(mut self) -> Result<u64, Trouble> {
        while let Some(part) = self.body.next(&mut self.conn)? {
            self.checker.feed(&part);
        }
        Ok(self.got())
    }

    fn leave(self) {
        self.conn.abort();
    }
}

/// All of it, which is this version.
#[track_caller]
fn expect_whole(client: &Client, version: u64, len: u64) -> Head {
    let reading = Reading::start(client, &Request::get("/big"), version);
    assert_eq!(reading.head.status, 200);
    let head = reading.head.clone();
    assert_eq!(reading.finish(), Ok(len));
    head
}

// --- Readers -------------------------------------------------------------------------------------

#[test]
fn who_joins_gets_at_once_what_is_there_and_then_follows() {
    for workers in [1, 2] {
        let gate = Gate::new();
        let (_shelf, origin) = Shelf::start(Asset::new(600_000).hold(300_000, &gate));
        let server = with_workers(&origin, workers);
        let client = server.client();
        let mut first = Reading::get(&client);
        first.until(300_000);
        let mut readers: Vec<Reading> = (0..20).map(|_| Reading::get(&client)).collect();
        for reader in &mut readers {
            reader.until(300_000);
        }
        gate.open();
        for reader in readers.into_iter().chain([first]) {
            assert_eq!(reader.finish(), Ok(600_000));
        }
        assert_eq!(origin.requests().len(), 1, "{workers} workers");
        let head = expect_whole(&client, 0, 600_000);
        assert!(head.all("cache-status")[0].contains("hit"), "{head:?}");
    }
}

#[test]
fn fifty_who_ask_at_once_cost_one_request() {
    for (workers, asset) in [
        (1, Asset::new(400_000).rate(1_000_000)),
        (2, Asset::new(400_000).rate(1_000_000)),
        (2, Asset::plain(400_000).rate(1_000_000).chunked()),
    ] {
        let (_shelf, origin) = Shelf::start(asset);
        let server = with_workers(&origin, workers);
        let client = server.client();
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| assert_eq!(Reading::get(&client).finish(), Ok(400_000)));
            }
        });
        assert_eq!(origin.requests().len(), 1, "{workers} workers");
    }
}

#[test]
fn joining_and_leaving_changes_nothing_for_the_others() {
    let (_shelf, origin) = Shelf::start(Asset::new(2_000_000).rate(1_000_000));
    let server = cached(&origin);
    let client = server.client();
    // What the first connection makes for good.
    let _ = client.get("/other").expect(200);
    origin.close_all();
    let before = forebay_tests::proc::descriptors(server.pid());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let whole = Reading::get(&client).finish();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(whole, Ok(2_000_000));
        });
        for nth in 1..5 {
            let (client, is_over) = (&client, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut reading = Reading::get(client);
                    reading.until(nth * 10_000);
                    reading.leave();
                }
            });
        }
    });
    assert_eq!(origin.requests().len(), 2);
    origin.close_all();
    // Each worker may keep a connection to the origin for a while, and not know that it is closed.
    let most = before + 2;
    wait::until("its descriptors to return", || {
        forebay_tests::proc::descriptors(server.pid()) <= most
    });
}

#[test]
fn the_first_reader_may_leave() {
    let gate = Gate::new();
    let (_shelf, origin) = Shelf::start(Asset::new(4_000_000).hold(500_000, &gate));
    let server = cached(&origin);
    let mut first = Reading::get(&server.client());
    first.until(500_000);
    let mut second = Reading::get(&server.client());
    second.until(1);
    first.leave();
    gate.open();
    assert_eq!(second.finish(), Ok(4_000_000));
    assert_eq!(origin.requests().len(), 1);
}

// --- The last reader leaves ----------------------------------------------------------------------

#[test]
fn what_is_nearly_there_is_finished_without_readers() {
    // At most 1 MiB is to come; or a fifth.
    for (len, held) in [(1_500_000, 700_000), (10_000_000, 8_100_000)] {
        let gate = Gate::new();
        let (_shelf, origin) = Shelf::start(Asset::plain(len).hold(held, &gate));
        let server = cached(&origin);
        let mut reading = Reading::get(&server.client());
        reading.until(held);
        reading.leave();
        gate.open();
        origin.wait_for("the whole body to be taken", |_, conns| conns[0].sent > len);
        let _ = expect_whole(&server.client(), 0, len);
        assert_eq!(origin.requests().len(), 1);
    }
}

#[test]
fn what_is_stopped_is_completed_later_under_the_same_validator() {
    let gate = Gate::new();
    let (_shelf, origin) = Shelf::start(Asset::new(8_000_000).hold(1_000_000, &gate));
    let server = cached(&origin);
    read_a_little_and_leave(&server, &origin, &gate);
    let _ = expect_whole(&server.client(), 0, 8_000_000);
    let requests = origin.requests();
    assert_eq!(requests.len(), 2);
    let range = requests[1].field("range").expect("a range");
    assert!(
        range.starts_with("bytes=983040-"),
        "{range}: 15 blocks are there"
    );
    assert_eq!(requests[1].field("if-range"), Some("\"v0\""));
    let _ = expect_whole(&server.client(), 0, 8_000_000);
    assert_eq!(origin.requests().len(), 2);
}

/// The only reader of what is held back leaves; then nothing holds it back any more, but it has
/// been broken off.
fn read_a_little_and_leave(server: &Server, origin: &Origin, gate: &Gate) {
    let mut reading = Reading::get(&server.client());
    reading.until(1_000_000);
    reading.leave();
    wait::until("the transfer to be broken off", || is_left(origin));
    gate.open();
    let _ = origin.wait_end(0);
    assert!(origin.bytes_sent() < 7_000_000, "it was stopped");
}

/// Whether the server has closed its connection to the origin, who does not look.
fn is_left(origin: &Origin) -> bool {
    !forebay_tests::proc::is_in_use(origin.port())
}

#[test]
fn what_is_stopped_and_has_changed_is_never_put_together() {
    let gate = Gate::new();
    let (shelf, origin) = Shelf::start(Asset::new(8_000_000).hold(1_000_000, &gate));
    let server = cached(&origin);
    read_a_little_and_leave(&server, &origin, &gate);
    shelf.edit(Asset::change);
    // The old head is there and fresh; the rest of its body is not to be had any more.
    let old = Reading::get(&server.client());
    assert!(old.finish().is_err(), "a body that is put together");
    let _ = expect_whole(&server.client(), 1000, 8_000_000);
}

#[test]
fn what_is_stopped_without_a_validator_is_fetched_anew() {
    let gate = Gate::new();
    let (_shelf, origin) = Shelf::start(Asset::plain(8_000_000).hold(1_000_000, &gate));
    let server = cached(&origin);
    read_a_little_and_leave(&server, &origin, &gate);
    let _ = expect_whole(&server.client(), 0, 8_000_000);
    assert_eq!(origin.requests()[1].field("range"), None);
}

// --- Ranges --------------------------------------------------------------------------------------

#[test]
fn a_range_of_what_is_filled_is_served_when_its_blocks_are_there() {
    for workers in [1, 2] {
        let gate = Gate::new();
        let (_shelf, origin) = Shelf::start(Asset::new(900_000).hold(500_000, &gate));
        let server = with_workers(&origin, workers);
        let client = server.client();
        let mut whole = Reading::get(&client);
        whole.until(500_000);
        assert_eq!(Reading::range(&client, 100, 199).finish(), Ok(100));
        assert_eq!(Reading::range(&client, 499_000, 499_999).finish(), Ok(1000));
        let mut waits = Reading::range(&client, 499_990, 600_009);
        waits.until(10);
        gate.open();
        assert_eq!(waits.finish(), Ok(100_020));
        assert_eq!(whole.finish(), Ok(900_000));
        assert_eq!(origin.requests().len(), 1);
    }
}

#[test]
fn a_range_far_ahead_is_fetched_by_itself_once() {
    for workers in [1, 2] {
        let gate = Gate::new();
        let (_shelf, origin) = Shelf::start(Asset::new(12_000_000).hold(1_000_000, &gate));
        let server = with_workers(&origin, workers);
        let client = server.client();
        let mut whole = Reading::get(&client);
        whole.until(1_000_000);
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    let range = Reading::range(&client, 6_000_000, 6_299_999);
                    assert_eq!(range.finish(), Ok(300_000));
                });
            }
        });
        let requests = origin.requests();
        assert_eq!(requests.len(), 2, "{workers} workers");
        let (first, last) = (5_963_776, 6_356_991);
        let range = requests[1].field("range");
        assert_eq!(range, Some(&*format!("bytes={first}-{last}")));
        assert_eq!(requests[1].field("if-range"), Some("\"v0\""));
        gate.open();
        assert_eq!(whole.finish(), Ok(12_000_000));
        let _ = expect_whole(&client, 0, 12_000_000);
        assert!(
            origin.requests().len() <= 3,
            "a request for what comes behind the range"
        );
        // No block is brought twice.
        let sent = origin.bytes_sent();
        assert!(sent < 12_000_000 + 8 * 1024 * 1024, "{sent}");
    }
}

#[test]
fn without_a_validator_who_is_far_ahead_waits() {
    let gate = Gate::new();
    let asset = Asset {
        ranges: true,
        ..Asset::plain(6_000_000)
    };
    let (_shelf, origin) = Shelf::start(asset.hold(1_000_000, &gate));
    let server = cached(&origin);
    let mut whole = Reading::get(&server.client());
    whole.until(1_000_000);
    let client = server.client();
    std::thread::scope(|scope| {
        let far = scope.spawn(|| Reading::range(&client, 5_000_000, 5_000_099).finish());
        gate.open();
        assert_eq!(far.join().unwrap(), Ok(100));
    });
    assert_eq!(whole.finish(), Ok(6_000_000));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_cold_range_brings_only_the_blocks_it_touches() {
    // The second is larger than what memory keeps as a whole.
    for len in [10_000_000, 100_000_000] {
        let (_shelf, origin) = Shelf::start(Asset::new(len));
        let server = cached(&origin);
        let client = server.client();
        assert_eq!(
            Reading::range(&client, 7_000_000, 7_000_099).finish(),
            Ok(100)
        );
        let requests = origin.requests();
        assert_eq!(requests[0].field("range"), Some("bytes=6946816-7012351"));
        // What is there answers all that lies in it.
        assert_eq!(
            Reading::range(&client, 6_950_000, 7_010_000).finish(),
            Ok(60_001)
        );
        assert_eq!(origin.requests().len(), 1, "{len}");
        // Of what is absent no more than that is asked for.
        assert_eq!(
            Reading::range(&client, 7_000_000, 7_099_999).finish(),
            Ok(100_000)
        );
        let requests = origin.requests();
        assert_eq!(requests.len(), 2, "{len}");
        assert_eq!(requests[1].field("range"), Some("bytes=7012352-7143423"));
        assert!(origin.bytes_sent() < 300_000);
    }
    let (_shelf, origin) = Shelf::start(Asset::new(1_000_000));
    let server = cached(&origin);
    assert_eq!(
        Reading::range(&server.client(), 300_000, 300_099).finish(),
        Ok(100)
    );
    let _ = expect_whole(&server.client(), 0, 1_000_000);
    let _ = expect_whole(&server.client(), 0, 1_000_000);
    assert_eq!(
        origin.requests().len(),
        3,
        "what was absent before and behind it"
    );
    assert!(origin.bytes_sent() < 1_010_000, "no block twice");
}

#[test]
fn a_cold_range_of_what_has_no_validator_is_for_who_asked() {
    let asset = Asset {
        ranges: true,
        ..Asset::plain(1_000_000)
    };
    let (_shelf, origin) = Shelf::start(asset);
    let server = cached(&origin);
    assert_eq!(
        Reading::range(&server.client(), 300_000, 300_099).finish(),
        Ok(100)
    );
    // Nothing could be put together with it.
    let _ = expect_whole(&server.client(), 0, 1_000_000);
    let count = origin.requests().len();
    let _ = expect_whole(&server.client(), 0, 1_000_000);
    assert_eq!(
        Reading::range(&server.client(), 300_000, 300_099).finish(),
        Ok(100)
    );
    assert_eq!(origin.requests().len(), count, "the whole is stored");
}

#[test]
fn ranges_from_an_origin_without_them() {
    let asset = Asset {
        ranges: false,
        ..Asset::new(1_000_000)
    };
    let (_shelf, origin) = Shelf::start(asset);
    let server = cached(&origin);
    let client = server.client();
    assert_eq!(Reading::range(&client, 700_000, 700_099).finish(), Ok(100));
    assert_eq!(Reading::range(&client, 10, 19).finish(), Ok(10));
    let _ = expect_whole(&client, 0, 1_000_000);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn the_end_of_something_unknown() {
    let (_shelf, origin) = Shelf::start(Asset::new(1_000_000));
    let server = cached(&origin);
    let request = Request::get("/big").field("Range", "bytes=-100");
    let reading = Reading::start(&server.client(), &request, 999_900);
    assert_eq!(reading.head.status, 206);
    assert_eq!(
        reading.head.field("content-range"),
        Some("bytes 999900-999999/1000000")
    );
    assert_eq!(reading.finish(), Ok(100));
    assert!(origin.bytes_sent() < 200_000, "no more than it takes");
}

#[test]
fn several_ranges_and_those_behind_the_end() {
    let (_shelf, origin) = Shelf::start(Asset::new(300_000));
    let server = cached(&origin);
    let client = server.client();
    let ask = |range: &str| client.request(&Request::get("/big").field("Range", range));
    // Cold: nobody knows the length yet.
    let past = ask("bytes=400000-");
    assert_eq!(past.status(), 416);
    assert_eq!(past.field("content-range"), Some("bytes */300000"));
    let several = ask("bytes=0-9,200000-200009");
    assert_eq!(several.status(), 206);
    let kind = several.field("content-type").expect("a type");
    assert!(kind.starts_with("multipart/byteranges"), "{kind}");
    let text = String::from_utf8_lossy(&several.body).into_owned();
    assert!(text.contains("bytes 0-9/300000") && text.contains("bytes 200000-200009/300000"));
    // Stored.
    let past = ask("bytes=300000-");
    assert_eq!(past.status(), 416);
    assert_eq!(past.field("content-range"), Some("bytes */300000"));
    assert_eq!(ask("bytes=299999-").body.len(), 1);
    // And all of it is still what a plain request gets.
    let _ = expect_whole(&client, 0, 300_000);
}

#[test]
fn a_416_is_never_stored_as_the_answer_to_others() {
    let (_shelf, origin) = Shelf::start(Asset::new(1000));
    let server = cached(&origin);
    let client = server.client();
    let request = Request::get("/big").field("Range", "bytes=70000-");
    let _ = client.request(&request).expect(416);
    let _ = expect_whole(&client, 0, 1000);
    let _ = expect_whole(&client, 0, 1000);
    assert!(origin.requests().len() <= 3);
}

#[test]
fn if_range_by_tag_and_by_date() {
    let old = "Last-Modified: Sun, 02 Feb 2020 02:02:02 GMT\r\nCache-Control: max-age=600\r\n";
    let (_shelf, origin) = Shelf::start(Asset::new(1000).fields(old));
    let server = cached(&origin);
    let ask = |if_range: &str| {
        let request = Request::get("/big").field("Range", "bytes=0-9");
        server
            .client()
            .request(&request.field("If-Range", if_range))
            .status()
    };
    assert_eq!(ask("\"v0\""), 206);
    assert_eq!(ask("\"v1\""), 200);
    assert_eq!(ask("W/\"v0\""), 200);
    assert_eq!(ask("Sun, 02 Feb 2020 02:02:02 GMT"), 206);
    assert_eq!(ask("Sun, 02 Feb 2020 02:02:03 GMT"), 200);
    // Changed in the second in which it was sent: it may have changed again since.
    let stamp = "Sun, 02 Feb 2020 02:02:02 GMT";
    let young = format!(
        "Last-Modified: {stamp}\r\nDate: {stamp}\r\nExpires: Fri, 01 Jan 2100 00:00:00 GMT\r\n"
    );
    let (_shelf, origin) = Shelf::start(Asset::plain(1000).fields(&young));
    let server = cached(&origin);
    let _ = server.client().get("/big").expect(200);
    let request = Request::get("/big")
        .field("Range", "bytes=0-9")
        .field("If-Range", stamp);
    assert_eq!(
        server.client().request(&request).status(),
        200,
        "a weak validator"
    );
}

#[test]
fn more_ranges_at_once_than_fills_are_fetched_by_those_who_want_them() {
    let gate = Gate::new();
    let (shelf, origin) = Shelf::start(Asset::new(30_000_000));
    let server = cached(&origin);
    let client = server.client();
    // It is known how long it is; then all are held back in the middle of their block.
    assert_eq!(Reading::range(&client, 0, 9).finish(), Ok(10));
    shelf.edit(|asset| asset.hold_all = Some(gate.clone()));
    std::thread::scope(|scope| {
        for nth in 1..10 {
            let first = nth * 3_000_000;
            let client = &client;
            scope.spawn(move || {
                let range = Reading::range(client, first, first + 99_999);
                assert_eq!(range.finish(), Ok(100_000), "{nth}");
            });
        }
        origin.wait_for("all of them", |requests, _| requests.len() == 10);
        gate.open();
    });
}

// --- What memory cannot keep ---------------------------------------------------------------------

/// A store in which nothing of more than 1 MiB stays.
fn with_little_memory(origin: &Origin) -> Server {
    Server::builder(r#"cache_store { memory = "8MB" } site { "*", cache, proxy "@origin@" }"#)
        .origin("origin", origin)
        .start()
}

/// A client that leaves what it does not read in the server.
fn slow(server: &Server) -> Client {
    server.client().receive_buffer(16 * 1024)
}

#[test]
fn who_falls_behind_the_window_fetches_the_rest_for_himself() {
    for asset in [Asset::new(40_000_000), Asset::new(40_000_000).chunked()] {
        let (_shelf, origin) = Shelf::start(asset);
        let server = with_little_memory(&origin);
        let mut behind = Reading::get(&slow(&server));
        behind.until(100_000);
        assert_eq!(Reading::get(&server.client()).finish(), Ok(40_000_000));
        assert_eq!(behind.finish(), Ok(40_000_000));
        let requests = origin.requests();
        assert!(requests.len() <= 3, "{} requests", requests.len());
        let own = requests.last().expect("one of its own");
        assert_eq!(own.field("if-range"), Some("\"v0\""));
        assert!(
            own.field("range").is_some_and(|range| range.ends_with('-')),
            "{own:?}"
        );
    }
}

#[test]
fn who_cannot_fetch_the_rest_is_cut_visibly() {
    let (_shelf, origin) = Shelf::start(Asset::plain(40_000_000));
    let server = with_little_memory(&origin);
    let mut behind = Reading::get(&slow(&server));
    behind.until(100_000);
    assert_eq!(Reading::get(&server.client()).finish(), Ok(40_000_000));
    let end = behind.finish();
    assert!(end.is_err(), "{end:?}: it cannot be complete");
}

#[test]
fn who_joins_late_what_is_not_kept_gets_all_of_it() {
    let gate = Gate::new();
    let (_shelf, origin) = Shelf::start(Asset::new(30_000_000).hold(20_000_000, &gate));
    let server = with_little_memory(&origin);
    let client = server.client();
    let mut first = Reading::get(&client);
    first.until(20_000_000);
    let mut late = Reading::get(&client);
    late.until(19_000_000);
    assert_eq!(
        Reading::range(&client, 25_000_000, 25_000_099).finish(),
        Ok(100)
    );
    gate.open();
    assert_eq!(first.finish(), Ok(30_000_000));
    assert_eq!(late.finish(), Ok(30_000_000));
    // Nothing of it is found any more.
    let before = origin.requests().len();
    let _ = expect_whole(&client, 0, 30_000_000);
    assert_eq!(origin.requests().len(), before + 1);
}

#[test]
fn what_is_too_large_replaces_the_old_one_without_being_kept() {
    for chunked in [false, true] {
        let fields = format!("{STALE}, stale-while-revalidate=600\r\n");
        let (shelf, origin) = Shelf::start(Asset::new(500_000).fields(&fields));
        let server = with_little_memory(&origin);
        let client = server.client();
        let _ = expect_whole(&client, 0, 500_000);
        shelf.edit(|asset| {
            asset.change();
            asset.len = 20_000_000;
            asset.tells_length = !chunked;
        });
        let _ = expect_whole(&client, 0, 500_000);
        wait::until("the old one to go", || {
            let ask = Request::head("/big").field("Cache-Control", "only-if-cached");
            client.request(&ask).status() == 504
        });
        assert!(
            origin.bytes_sent() < 12_000_000,
            "it is not taken to its end for nobody"
        );
        let _ = expect_whole(&client, 1000, 20_000_000);
    }
}

#[test]
fn what_was_asked_for_before_a_change_is_not_stored_after_it() {
    // A fill of a variant that is known, and one in the background.
    let fields = format!("{STALE}, stale-while-revalidate=600\r\nVary: X-Kind\r\n");
    let (shelf, origin) = Shelf::start(Asset::new(500_000).fields(&fields));
    let server = cached(&origin);
    let client = server.client();
    let ask = |kind: &str| Request::get("/big").field("X-Kind", kind);
    let _ = Reading::start(&client, &ask("a"), 0).finish();
    let gate = Gate::new();
    shelf.edit(|asset| {
        asset.change();
        asset.hold = Some((0, gate.clone()));
    });
    let old = Reading::start(&client, &ask("a"), 0);
    assert_eq!(old.finish(), Ok(500_000), "stale, and validated behind it");
    let waits = Reading::start(&client, &ask("b"), 1000);
    origin.wait_for("both", |requests, _| requests.len() == 3);
    shelf.edit(|asset| {
        asset.change();
        asset.hold = None;
    });
    let posted = client.request(&Request::post("/big", "x"));
    assert_eq!(posted.status(), 200);
    gate.open();
    assert_eq!(waits.finish(), Ok(500_000));
    for kind in ["a", "b"] {
        // What it gets was asked for after the change.
        let new = Reading::start(&client, &ask(kind), 2000);
        assert_eq!(new.head.field("etag"), Some("\"v2000\""), "{kind}");
        assert_eq!(new.finish(), Ok(500_000), "{kind}");
    }
}

// --- Origins that die ----------------------------------------------------------------------------

#[test]
fn a_transfer_that_is_broken_off_goes_on_behind_what_has_come() {
    for asset in [Asset::new(2_000_000), Asset::new(2_000_000).chunked()] {
        let (_shelf, origin) = Shelf::start(asset.dies(500_000, 1));
        let server = cached(&origin);
        let _ = expect_whole(&server.client(), 0, 2_000_000);
        let requests = origin.requests();
        assert_eq!(requests.len(), 2);
        let range = requests[1].field("range").expect("a range");
        assert!(range.starts_with("bytes=500000-"), "{range}");
        assert_eq!(requests[1].field("if-range"), Some("\"v0\""));
        let _ = expect_whole(&server.client(), 0, 2_000_000);
        assert_eq!(origin.requests().len(), 2);
    }
}

#[test]
fn what_has_changed_meanwhile_is_never_spliced() {
    let asset = Asset {
        changes_when_dead: true,
        ..Asset::new(2_000_000).dies(500_000, 1)
    };
    let (_shelf, origin) = Shelf::start(asset);
    let server = cached(&origin);
    let reading = Reading::get(&server.client());
    let end = reading.finish();
    assert!(end.is_err(), "{end:?}: it cannot be complete");
    let _ = expect_whole(&server.client(), 1000, 2_000_000);
    let _ = expect_whole(&server.client(), 1000, 2_000_000);
    assert!(origin.requests().len() <= 3);
}

#[test]
fn what_cannot_go_on_is_broken_off_visibly_and_fetched_anew() {
    for asset in [
        Asset::plain(2_000_000),
        Asset::plain(2_000_000).chunked(),
        Asset::plain(20_000),
        Asset::plain(20_000).chunked(),
    ] {
        let len = asset.len;
        let (_shelf, origin) = Shelf::start(asset.dies(len / 4, 1));
        let server = cached(&origin);
        let reading = Reading::get(&server.client());
        let end = reading.finish();
        assert!(end.is_err(), "{end:?}: it cannot be complete");
        let _ = expect_whole(&server.client(), 0, len);
        assert_eq!(origin.requests().len(), 2);
        assert_eq!(origin.requests()[1].field("range"), None);
    }
}

#[test]
fn what_died_too_often_is_completed_by_the_next_who_asks() {
    // Three times at the same byte: nothing more has come in between.
    let shelf = Shelf::new(Asset::new(4_000_000).dies(1_000_000, 3));
    let origin = shelf.setup().start();
    let server = cached(&origin);
    let end = Reading::get(&server.client()).finish();
    assert!(end.is_err(), "{end:?}: it cannot be complete");
    assert_eq!(origin.requests().len(), 3);
    let _ = expect_whole(&server.client(), 0, 4_000_000);
    let requests = origin.requests();
    let range = requests[3]
        .field("range")
        .expect("a range: what is there stays");
    assert!(range.starts_with("bytes=983040-"), "{range}");
}

// --- What is not for all -------------------------------------------------------------------------

#[test]
fn what_may_not_be_stored_makes_nobody_wait() {
    let gate = Gate::new();
    let answer = Script::with_fields(200, "Cache-Control: no-store\r\n", "own");
    let held = answer.clone().when(&gate);
    let origin = Origin::setup()
        .handle(move |request| match request.target.as_str() {
            "/first" => answer.clone(),
            _ => held.clone(),
        })
        .start();
    let server = cached(&origin);
    let client = server.client();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| client.get("/slow").expect(200));
        origin.wait_for("the first", |requests, _| requests.len() == 1);
        gate.open();
        let first = first.join().unwrap();
        assert!(
            first.head.all("cache-status")[0].contains("no-store"),
            "{first:?}"
        );
    });
    // From now on all at once, though none of them has an answer yet.
    let shut = Gate::new();
    let answer = Script::with_fields(200, "Cache-Control: no-store\r\n", "own").when(&shut);
    drop(server);
    let first = AtomicBool::new(true);
    let origin = Origin::setup()
        .handle(move |_| match first.swap(false, Ordering::Relaxed) {
            true => Script::with_fields(200, "Cache-Control: no-store\r\n", "own"),
            false => answer.clone(),
        })
        .start();
    let server = cached(&origin);
    let client = server.client();
    let _ = client.get("/slow").expect(200);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| client.get("/slow").expect(200));
        }
        origin.wait_for("all of them", |requests, _| requests.len() == 21);
        shut.open();
    });
}

// --- Stale ---------------------------------------------------------------------------------------

/// Stale from the beginning.
const STALE: &str = "Age: 100\r\nCache-Control: max-age=10";

#[test]
fn one_at_a_time_validates_in_the_background() {
    let fields = format!("{STALE}, stale-while-revalidate=600\r\n");
    let (shelf, origin) = Shelf::start(Asset::new(1_000_000).fields(&fields));
    let server = cached(&origin);
    let client = server.client();
    let _ = expect_whole(&client, 0, 1_000_000);
    // What replaces it comes slowly; all that time the old one answers.
    let gate = Gate::new();
    shelf.edit(|asset| {
        asset.change();
        asset.hold = Some((500_000, gate.clone()));
    });
    for nth in 0..5 {
        let head = expect_whole(&client, 0, 1_000_000);
        assert!(
            head.all("cache-status")[0].contains("hit"),
            "{nth}: {head:?}"
        );
        origin.wait_for("the validation", |requests, _| requests.len() == 2);
    }
    origin.wait_for("half of it", |_, conns| {
        conns.iter().map(|conn| conn.sent).sum::<u64>() > 1_500_000
    });
    for _ in 0..5 {
        let _ = expect_whole(&client, 0, 1_000_000);
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), 2, "one at a time");
    assert_eq!(requests[1].field("if-none-match"), Some("\"v0\""));
    gate.open();
    wait::until("the new one", || {
        let head = Reading::start(&client, &Request::head("/big"), 0).head;
        head.field("etag") == Some("\"v1000\"")
    });
    let _ = expect_whole(&client, 1000, 1_000_000);
}

#[test]
fn a_failure_in_the_background_keeps_the_old_one() {
    let fields = format!("{STALE}, stale-while-revalidate=600\r\n");
    let (shelf, origin) = Shelf::start(Asset::new(1_000_000).fields(&fields));
    let server = cached(&origin);
    let client = server.client();
    let _ = expect_whole(&client, 0, 1_000_000);
    shelf.edit(|asset| {
        asset.change();
        asset.etag = None;
        asset.dies = Some((500_000, usize::MAX));
    });
    for count in 2..5 {
        let _ = expect_whole(&client, 0, 1_000_000);
        origin.wait_for("the next validation to die", |requests, conns| {
            requests.len() >= count
                && conns.iter().filter(|conn| conn.end.is_some()).count() >= count - 1
        });
    }
    let _ = expect_whole(&client, 0, 1_000_000);
}

#[test]
fn a_dead_origin_is_stood_in_for_where_that_is_allowed() {
    let allowed = format!("{STALE}, stale-if-error=600\r\n");
    let strict = format!("{STALE}, must-revalidate\r\n");
    for (fields, status) in [(allowed, 200), (strict, 502)] {
        let (_shelf, origin) = Shelf::start(Asset::new(1000).fields(&fields));
        let server = cached(&origin);
        let _ = expect_whole(&server.client(), 0, 1000);
        drop(origin);
        for _ in 0..3 {
            let answer = server.client().get("/big");
            assert_eq!(answer.status(), status, "{fields}");
        }
    }
    let allowed = format!("{STALE}, stale-if-error=600\r\n");
    let shelf = Shelf::new(Asset::new(1000).fields(&allowed));
    for (script, status) in [
        (Script::status(503, "down"), 200),
        (Script::status(500, "down"), 200),
        (Script::status(404, "gone"), 404),
        (Script::raw("nonsense\r\n\r\n").close(), 200),
        (Script::new().close(), 200),
        (
            Script::new().then(forebay_tests::origin::script::Act::Stall),
            200,
        ),
    ] {
        let shelf = shelf.clone();
        let first = AtomicBool::new(true);
        let origin = Origin::setup()
            .handle(move |request| match first.swap(false, Ordering::Relaxed) {
                true => shelf.answer(request),
                false => script.clone(),
            })
            .start();
        let server = Server::before(
            &origin,
            r#"cache, proxy "@origin@" { first_byte_timeout = "1s", retries = 0 }"#,
        );
        let _ = expect_whole(&server.client(), 0, 1000);
        assert_eq!(server.client().get("/big").status(), status);
    }
}

// --- Many at once --------------------------------------------------------------------------------

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// One request of any kind; false if its answer was broken off.
fn ask_anything(client: &Client, dice: &mut Dice, len: u64) -> bool {
    let target = format!("/{}", dice.below(4));
    let plain = Request::get(&target);
    let first = dice.below(len);
    let (request, at, wanted) = match dice.below(4) {
        0 => (
            plain.field("Range", &format!("bytes={first}-")),
            first,
            len - first,
        ),
        1 => {
            let last = (first + dice.below(500_000)).min(len - 1);
            let range = format!("bytes={first}-{last}");
            (plain.field("Range", &range), first, last + 1 - first)
        }
        2 => (
            plain.field("Range", &format!("bytes=-{}", len - first)),
            first,
            len - first,
        ),
        _ => (plain, 0, len),
    };
    let mut reading = Reading::start(client, &request, at);
    // An origin without ranges' worth of luck may have been asked for all of it.
    if reading.head.status == 200 && at > 0 {
        reading.checker = Checker::at(0);
        reading.begun = 0;
        return reading.finish().is_ok_and(|got| got == len);
    }
    match dice.below(3) {
        0 => {
            let some = dice.below(wanted);
            while reading.got() < some {
                match reading.body.next(&mut reading.conn) {
                    Ok(Some(part)) => reading.checker.feed(&part),
                    Ok(None) => break,
                    Err(_) => return false,
                }
            }
            reading.leave();
            true
        }
        _ => match reading.finish() {
            Ok(got) => {
                assert_eq!(got, wanted, "{target}: silently short");
                true
            }
            Err(_) => false,
        },
    }
}

#[test]
fn whatever_many_ask_for_at_once_they_get_or_see_that_they_do_not() {
    const LEN: u64 = 900_000;
    for (seed, deaths, workers, memory) in [
        (0x5eed, 0, 2, "2MB"),
        (0x1dea, 0, 2, "8MB"),
        (0xfeed, 40, 2, "8MB"),
        (0xbeef, 40, 1, "2MB"),
    ] {
        let (shelf, origin) = Shelf::start(Asset::new(LEN).dies(300_001, deaths));
        let store = format!("cache_store {{ memory = \"{memory}\" }}");
        let server = Server::builder(&format!(
            "{store} site {{ \"*\", cache, proxy \"@origin@\" }}"
        ))
        .origin("origin", &origin)
        .workers(workers)
        .start();
        shelf.edit(|asset| asset.rate = 50_000_000);
        let failed = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 1..9 {
                let (server, failed) = (&server, &failed);
                scope.spawn(move || {
                    let mut dice = Dice(seed * 8 + thread);
                    let client = server.client();
                    for _ in 0..12 {
                        if !ask_anything(&client, &mut dice, LEN) {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner();
        assert!(failed <= deaths, "{failed} broken off, seed {seed:#x}");
        for nth in 0..4 {
            let request = Request::get(&format!("/{nth}"));
            let whole = Reading::start(&server.client(), &request, 0);
            assert_eq!(whole.finish(), Ok(LEN), "seed {seed:#x}");
        }
    }
}

// --- The server changes --------------------------------------------------------------------------

#[test]
fn a_fill_goes_on_over_a_reload_and_a_drain() {
    let gate = Gate::new();
    let (_shelf, origin) = Shelf::start(Asset::new(600_000).hold(300_000, &gate));
    let mut server = cached(&origin);
    let mut first = Reading::get(&server.client());
    first.until(300_000);
    let config = format!("site {{ \"*\", cache, proxy \"{}\", }} --", origin.target());
    server.reload_with(&config);
    // Another snapshot, the same store, the same fill.
    let mut second = Reading::get(&server.client());
    second.until(300_000);
    assert_eq!(origin.requests().len(), 1);
    server.signal(rustix::process::Signal::TERM);
    wait::until("the listener to close", || {
        server.client().try_connect().is_err()
    });
    gate.open();
    assert_eq!(first.finish(), Ok(600_000));
    assert_eq!(second.finish(), Ok(600_000));
    let _ = server.wait_exit(Duration::from_secs(10));
}
