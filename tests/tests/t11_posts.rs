//! `methods = { "GET", "POST" }`: answers to requests that are keyed by what they carry.

use std::sync::atomic::{AtomicBool, Ordering};

use forebay_tests::origin::script::Act;
use forebay_tests::server::run_in;
use forebay_tests::{Gate, Origin, Request, Response, Script, Server, wait};

fn behind(origin: &Origin, options: &str) -> Server {
    Server::builder(&format!(
        "site {{ \"*\", cache {{ {options} }}, proxy \"@origin@\" }}"
    ))
    .origin("origin", origin)
    .start()
}

const POSTS: &str = "methods = { \"GET\", \"POST\" }";

/// Answers that may be stored and say what was asked.
fn telling() -> Origin {
    Origin::setup()
        .handle(|request| {
            let len = request.field("content-length").unwrap_or("0");
            let body = format!("{} {} {len}", request.method, request.target);
            Script::with_fields(200, "Cache-Control: max-age=60\r\nETag: \"e\"\r\n", body)
        })
        .start()
}

#[track_caller]
fn post(server: &Server, target: &str, body: &str, kind: &str) -> Response {
    let request = Request::post(target, body).field("Content-Type", kind);
    server.client().request(&request).expect(200)
}

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn a_post_is_keyed_by_its_content() {
    let origin = telling();
    let server = behind(&origin, POSTS);
    for (asked, (target, body, kind)) in [
        (1, ("/q", "a=1", FORM)),
        (1, ("/q", "a=1", FORM)),
        (2, ("/q", "a=2", FORM)),
        (3, ("/q", "a=1", "text/plain")),
        (4, ("/r", "a=1", FORM)),
        (5, ("/q", "", FORM)),
        (5, ("/q", "", FORM)),
        (5, ("/q", "a=2", FORM)),
    ] {
        let answer = post(&server, target, body, kind);
        assert_eq!(answer.text(), format!("POST {target} {}", body.len()));
        assert_eq!(origin.wait_requests(asked).len(), asked, "{target} {body}");
    }
    // What the origin has seen is the whole request.
    let first = origin.requests().remove(0);
    assert_eq!(
        (first.text(), first.field("content-type")),
        ("a=1", Some(FORM))
    );
    assert_eq!(first.field("content-length"), Some("3"));
    // GET is another key, and none of these POSTs has made it invalid.
    assert_eq!(server.client().get("/q").text(), "GET /q 0");
    let _ = post(&server, "/q", "a=3", FORM);
    assert_eq!(server.client().get("/q").text(), "GET /q 0");
    assert_eq!(origin.requests().len(), 7);
    // Sent in chunks it is the same.
    let chunks = Request::post("/q", "")
        .field("Content-Type", FORM)
        .chunks(&[b"a", b"=1"]);
    let answer = server.client().request(&chunks).expect(200);
    assert!(
        answer
            .field("cache-status")
            .is_some_and(|it| it.contains("hit"))
    );
}

#[test]
fn only_as_it_is_laid_down() {
    let origin = telling();
    // Without the option a POST changes something: what is stored under the URL goes.
    let server = behind(&origin, "");
    let _ = server.client().get("/a").expect(200);
    let _ = post(&server, "/a", "x", FORM);
    let _ = post(&server, "/a", "x", FORM);
    let _ = server.client().get("/a").expect(200);
    assert_eq!(origin.requests().len(), 4);
    // With POST alone GET is not stored.
    let server = behind(&origin, "methods = \"POST\"");
    for _ in 0..2 {
        let _ = server.client().get("/b").expect(200);
        let _ = post(&server, "/b", "x", FORM);
    }
    assert_eq!(origin.requests().len(), 4 + 3);
    let dir = tempfile::tempdir().expect("a directory");
    let text = "site { \"*\", cache { methods = \"PUT\" }, respond(200) }";
    std::fs::write(dir.path().join("forebay.lua"), text).expect("a file");
    let said = run_in(dir.path(), &["check", "forebay.lua"]).expect(2);
    assert!(
        said.stdout.contains("`methods` cannot be \"PUT\""),
        "{}",
        said.stdout
    );
}

#[test]
fn what_is_too_large_or_has_a_condition_goes_round() {
    let origin = telling();
    let server = behind(&origin, POSTS);
    let (most, more) = ("x".repeat(64 << 10), "x".repeat((64 << 10) + 1));
    for (asked, body) in [(1, &most), (1, &most), (2, &more), (3, &more)] {
        let answer = post(&server, "/", body, FORM);
        assert_eq!(answer.text(), format!("POST / {}", body.len()));
        assert_eq!(origin.wait_requests(asked).len(), asked, "{}", body.len());
    }
    assert_eq!(origin.requests()[2].body_len, more.len() as u64);
    // RFC 9110 §14.2: a range is of GET only. §13.1.2: a condition is not about this answer.
    let asking = |name: &str, value: &str| {
        let request = Request::post("/", &most).field("Content-Type", FORM);
        let answer = server.client().request(&request.field(name, value));
        (answer.status(), origin.requests().len())
    };
    assert_eq!(asking("Range", "bytes=0-1"), (200, 3));
    assert_eq!(asking("If-None-Match", "\"e\""), (200, 4));
}

#[test]
fn many_who_ask_the_same_cost_one_request() {
    let gate = Gate::new();
    let origin = Origin::always(
        Script::with_fields(200, "Cache-Control: max-age=60\r\n", "answer").when(&gate),
    );
    let server = behind(&origin, POSTS);
    let mut conns: Vec<_> = (0..20).map(|_| server.client().connect()).collect();
    for conn in &mut conns {
        conn.send(&Request::post("/q", "same"));
    }
    let _ = origin.wait_requests(1);
    gate.open();
    for conn in &mut conns {
        assert_eq!(conn.read_response().expect(200).text(), "answer");
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn what_is_stale_is_fetched_anew_and_what_broke_off_is_not_kept() {
    let broken = AtomicBool::new(false);
    let origin = Origin::setup()
        .handle(move |request| match request.field("content-length") {
            Some("6") if !broken.swap(true, Ordering::Relaxed) => Script::raw(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"e\"\r\n\
                 Accept-Ranges: bytes\r\nContent-Length: 200000\r\n\r\n",
            )
            .then(Act::Pattern(100_000))
            .close(),
            _ => Script::with_fields(200, "Cache-Control: max-age=0\r\nETag: \"e\"\r\n", "whole"),
        })
        .start();
    let server = behind(&origin, &format!("{POSTS}, ttl = \"1m\""));
    let _ = post(&server, "/", "stale", FORM);
    let _ = post(&server, "/", "stale", FORM);
    let asked = origin.wait_requests(2);
    // RFC 9110 §13.1.2: under a condition a POST would be refused, not validated.
    assert_eq!(asked[1].field("if-none-match"), None);
    let request = Request::post("/", "broken");
    let mut conn = server.client().connect();
    conn.send(&request);
    let (_, mut body) = conn.read_head();
    let end = loop {
        match body.next(&mut conn) {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "it is visibly broken off");
    // Nothing of it was asked for by a range, and nothing of it is left.
    wait::until("a whole answer", || {
        server.client().request(&request).text() == "whole"
    });
    assert!(
        origin
            .requests()
            .iter()
            .all(|asked| asked.field("range").is_none())
    );
}

#[test]
fn a_purge_of_the_url_and_a_restart() {
    let origin = telling();
    let dir = tempfile::tempdir().expect("a directory");
    let disk = dir.path().display();
    let text = format!(
        "cache_store {{ disk = \"{disk}\", disk_size = \"32MB\" }}\n\
         site {{ \"*\", cache {{ {POSTS} }}, proxy \"@origin@\" }}"
    );
    let start = || Server::builder(&text).origin("origin", &origin).start();
    let mut server = start();
    let _ = post(&server, "/q", "a=1", FORM);
    let _ = post(&server, "/q", "a=2", FORM);
    let _ = server.command("purge http://forebay.test/q").expect(0);
    let _ = post(&server, "/q", "a=1", FORM);
    assert_eq!(origin.requests().len(), 3, "all that was keyed so is gone");
    server.signal(forebay_tests::server::Signal::TERM);
    assert!(server.wait_exit(wait::PATIENCE).success());
    let server = start();
    let answer = post(&server, "/q", "a=1", FORM);
    assert_eq!(answer.text(), "POST /q 3");
    assert_eq!(origin.requests().len(), 3, "it was on the disk");
}
