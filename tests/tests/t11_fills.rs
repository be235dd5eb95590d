//! The cache's fills: one transfer for all who want the same, and what becomes of it when readers
//! leave.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_tests::pattern::Checker;
use forebay_tests::reading::{Reading, STALE, cached, expect_whole, with_workers};
use forebay_tests::{Asset, Client, Gate, Origin, Request, Server, Shelf, wait};

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
        // A part at a time, none of them twice.
        let requests = origin.requests();
        assert!(requests.len() <= 40, "{} requests", requests.len());
        let mut next = None;
        for own in &requests[1..] {
            assert_eq!(own.field("if-range"), Some("\"v0\""));
            let range = own
                .field("range")
                .and_then(|range| range.strip_prefix("bytes="));
            let (first, last) = range
                .and_then(|range| range.split_once('-'))
                .expect("a range");
            let first: u64 = first.parse().expect("a number");
            assert!(next.is_none_or(|next| next == first), "{first}: {next:?}");
            next = last.parse::<u64>().ok().map(|last| last + 1);
            assert!(next.is_none_or(|next| next - first <= 4 << 20), "{own:?}");
        }
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
    let config = format!(
        "{} site {{ \"*\", cache, proxy \"{}\", }} --",
        forebay_tests::reading::store(),
        origin.target()
    );
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
