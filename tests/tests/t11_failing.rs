//! The cache before origins that die, that have nothing for all, or that fail while something stale is
//! there.

use std::sync::atomic::{AtomicBool, Ordering};

use forebay_tests::reading::{Reading, STALE, cached, expect_whole};
use forebay_tests::{Asset, Gate, Origin, Request, Script, Server, Shelf, wait};

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
        // The one before may not be over yet for the server when it is for the origin.
        wait::until("the next validation to die", || {
            let _ = expect_whole(&client, 0, 1_000_000);
            let conns = origin.connections();
            let died = conns.iter().filter(|conn| conn.end.is_some()).count();
            origin.requests().len() >= count && died >= count - 1
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
