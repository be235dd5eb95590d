//! Ranges of what the cache has, brings in, or has never heard of.

use forebay_tests::reading::{Reading, cached, expect_whole, with_workers};
use forebay_tests::{Asset, Gate, Request, Shelf};

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
