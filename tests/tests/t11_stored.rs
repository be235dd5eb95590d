//! What the cache stores of a response, for whom, and what its options change of that.

use forebay_tests::cache::{Bench, FRESH, HIT, NEW, step};
use forebay_tests::{Origin, Script, Server};

#[test]
fn variants() {
    let mut bench = Bench::new("");
    let vary = "200\nCache-Control: max-age=60\nVary: Accept-Language, X-Kind";
    bench.check(
        "by two fields",
        &[
            step(
                "GET\nAccept-Language: de\nX-Kind: 1",
                vary,
                200,
                "uri-miss",
                1,
            ),
            step(
                "GET\nAccept-Language: fr\nX-Kind: 1",
                vary,
                200,
                "vary-miss",
                2,
            ),
            step("GET\nAccept-Language: de", vary, 200, "vary-miss", 3),
            step("GET\nX-Kind: 1\nAccept-Language: de", NEW, 200, HIT, 3),
            step(
                "GET\nAccept-Language: fr\nX-Kind: 1\nUser-Agent: x",
                NEW,
                200,
                HIT,
                3,
            ),
        ],
    );
    let coded = "200\nCache-Control: max-age=60\nVary: Accept-Encoding";
    bench.check(
        "browsers that take the same",
        &[
            step(
                "GET\nAccept-Encoding: gzip, deflate, br",
                coded,
                200,
                "stored",
                1,
            ),
            step(
                "GET\nAccept-Encoding: br;q=1.0, gzip;q=0.8, deflate",
                NEW,
                200,
                HIT,
                1,
            ),
            step("GET", coded, 200, "vary-miss", 2),
        ],
    );
    // What is too long to be compared is like nothing else.
    let long: &'static str = format!("GET\nX-Kind: {}", "a".repeat(9000)).leak();
    let other: &'static str = format!("GET\nX-Kind: {}", "b".repeat(9000)).leak();
    let vary = "200\nCache-Control: max-age=60\nVary: X-Kind";
    let got = bench.check(
        "very long values",
        &[
            step(long, vary, 200, "vary-too-long", 1),
            step(other, vary, 200, "vary-too-long", 2),
            step("GET\nX-Kind: c", vary, 200, "stored", 3),
            step("GET\nX-Kind: c", NEW, 200, HIT, 3),
            step(long, vary, 200, "vary-", 4),
        ],
    );
    let (first, second) = (got[0].text().to_owned(), got[1].text());
    assert_ne!(first, second);
}

#[test]
fn what_is_stored_of_the_fields() {
    let mut bench = Bench::new("");
    let answer = "200\nCache-Control: max-age=60, private=\"x-mine\"\nX-Mine: 1\nX-All: 1\n\
                  Connection: x-hop\nX-Hop: 1\nProxy-Authenticate: Basic\nKeep-Alive: timeout=5";
    let got = bench.check(
        "fields",
        &[
            step("GET", answer, 200, "stored", 1),
            step("GET", NEW, 200, HIT, 1),
        ],
    );
    for name in ["x-mine", "x-hop", "proxy-authenticate", "keep-alive"] {
        assert_eq!(got[1].field(name), None, "{name}");
    }
    assert_eq!(got[1].field("x-all"), Some("1"));
    assert_eq!(got[1].field("content-length"), Some("6"));

    let origin = Origin::setup()
        .route("/trailers", {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTrailer: X-Sum\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            Script::raw(head).send("3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
        })
        .route("/early", {
            let early =
                "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nCache-Control: max-age=60\r\n\r\n";
            let last = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\nx";
            Script::raw(early).send(last)
        })
        .start();
    let server = Server::before(&origin, r#"cache, proxy "@origin@""#);
    for nth in 0..2 {
        let got = server.client().get("/trailers").expect(200);
        assert_eq!((got.text(), got.field("trailer")), ("abc", None), "{nth}");
        assert!(got.trailers.is_empty());
        let got = server.client().get("/early").expect(200);
        assert_eq!((got.text(), got.field("link")), ("x", None), "{nth}");
    }
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn whoever_asks_first_the_object_is_the_same() {
    let bench = Bench::new("");
    for (nth, fields) in [
        "Cookie: a=1\nUser-Agent: one\nX-Forwarded-For: 192.0.2.1\nX-Original-URL: /evil\n\
         X-Rewrite-URL: /evil\nX-Host: evil.test\nX-HTTP-Method-Override: DELETE\n\
         If-None-Match: \"x\"\nAccept-Encoding: gzip",
        "Cookie: b=2\nUser-Agent: two\nX-Forwarded-For: 192.0.2.2\nRange: bytes=100-",
    ]
    .iter()
    .enumerate()
    {
        let target = format!("/{nth}");
        let _ = bench.ask(&format!("GET\n{fields}"), &target, FRESH);
        let got = bench.ask("GET", &target, NEW).expect(200);
        assert!(got.head.all("cache-status")[0].contains("hit"), "{got:?}");
        assert_eq!(got.text(), format!("body {}", nth + 1));
    }
    let seen = &bench.origin.requests()[0];
    for name in [
        "x-original-url",
        "x-rewrite-url",
        "x-host",
        "x-http-method-override",
    ] {
        assert_eq!(seen.field(name), None, "{name}");
    }
}

#[test]
fn a_dangerous_field_that_is_in_the_key_goes_on() {
    let bench = Bench::new(r#"{ key = "$headers.x_host" }"#);
    for (host, says) in [("a", "stored"), ("b", "stored"), ("a", "hit")] {
        let got = bench.ask(&format!("GET\nX-Host: {host}"), "/", FRESH);
        assert!(
            got.head.all("cache-status")[0].contains(says),
            "{host}: {got:?}"
        );
    }
    let requests = bench.origin.requests();
    assert_eq!(
        (requests.len(), requests[1].field("x-host")),
        (2, Some("b"))
    );
}

#[test]
fn configured_times() {
    let mut bench = Bench::new(r#"{ ttl = "1m" }"#);
    bench.check(
        "200",
        &[
            step("GET", "200", 200, "stored", 1),
            step("GET", NEW, 200, HIT, 1),
        ],
    );
    bench.check(
        "404",
        &[
            step("GET", "404", 404, "stored", 1),
            step("GET", NEW, 404, HIT, 1),
        ],
    );
    bench.check("500", &[step("GET", "500", 500, "not-cacheable", 1)]);
    bench.check(
        "what the origin says goes first",
        &[step(
            "GET",
            "200\nCache-Control: no-store",
            200,
            "no-store",
            1,
        )],
    );
    let mut bench = Bench::new(r#"{ ttl = { [404] = "1m", ["5xx"] = "10s", [200] = "0s" } }"#);
    bench.check(
        "404",
        &[
            step("GET", "404", 404, "stored", 1),
            step("GET", NEW, 404, HIT, 1),
        ],
    );
    bench.check(
        "500",
        &[
            step("GET", "500", 500, "stored", 1),
            step("GET", NEW, 500, HIT, 1),
        ],
    );
    bench.check("200", &[step("GET", "200", 200, "ttl-zero", 1)]);
    bench.check(
        "own errors",
        &[
            step("GET", "", 502, "", 1),
            step("GET", FRESH, 200, "stored", 2),
        ],
    );
    let mut bench = Bench::new(r#"{ ttl = "1m", force = true }"#);
    for answer in [
        "200\nCache-Control: no-store",
        "200\nCache-Control: private, max-age=0",
    ] {
        let answer: &'static str = answer;
        let steps = [
            step("GET", answer, 200, "stored", 1),
            step("GET", NEW, 200, HIT, 1),
        ];
        bench.check(answer, &steps);
    }
}

#[test]
fn cookies() {
    let answer = "200\nCache-Control: max-age=60\nVary: Cookie\nSet-Cookie: s=1";
    let mut bench = Bench::new(r"{ strip_cookies = true }");
    let got = bench.check(
        "stripped",
        &[
            step("GET\nCookie: a=1", answer, 200, "stored", 1),
            step("GET\nCookie: b=2", NEW, 200, HIT, 1),
            step("GET", NEW, 200, HIT, 1),
        ],
    );
    for got in got {
        assert_eq!(got.field("set-cookie"), None);
    }
    assert_eq!(bench.origin.requests()[0].field("cookie"), None);
    let never = "200\nCache-Control: no-store\nSet-Cookie: s=1";
    let got = bench.check(
        "stripped, not stored",
        &[
            step("GET\nCookie: a=1", never, 200, "no-store", 1),
            step("GET\nCookie: a=1", never, 200, "hit-for-miss", 2),
            step("POST\nCookie: a=1", never, 200, "method", 3),
        ],
    );
    let of = |nth: usize| {
        bench.origin.requests()[nth]
            .field("cookie")
            .map(str::to_owned)
    };
    assert_eq!((of(1), of(2)), (None, None));
    assert_eq!(
        (got[0].field("set-cookie"), got[1].field("set-cookie")),
        (None, None)
    );
    let mut bench = Bench::new(r#"{ set_cookie = "store" }"#);
    bench.check(
        "stored",
        &[
            step(
                "GET",
                "200\nCache-Control: max-age=60\nSet-Cookie: a=b",
                200,
                "stored",
                1,
            ),
            step("GET", NEW, 200, HIT, 1),
        ],
    );
}

#[test]
fn queries() {
    for (options, same, other, seen) in [
        (
            r#"{ ignore_query = { "utm_*", "gclid" } }"#,
            ["/?a=1&utm_x=2", "/?gclid=3&a=1"],
            "/?a=2",
            "/?a=1",
        ),
        (
            r#"{ keep_query = "a" }"#,
            ["/?b=2&a=1", "/?a=1&c=3"],
            "/?a=2",
            "/?a=1",
        ),
        (
            r"{ sort_query = true }",
            ["/?b=2&a=1", "/?a=1&b=2"],
            "/?a=1",
            "/?a=1&b=2",
        ),
        (r#"{ ignore_query = "*" }"#, ["/?b=2&a=1", "/"], "/x", "/"),
    ] {
        let bench = Bench::new(options);
        let _ = bench.ask("GET", same[0], FRESH).expect(200);
        let got = bench.ask("GET", same[1], NEW).expect(200);
        assert!(
            got.head.all("cache-status")[0].contains("hit"),
            "{options}: {got:?}"
        );
        let got = bench.ask("GET", other, FRESH).expect(200);
        assert!(
            got.head.all("cache-status")[0].contains("uri-miss"),
            "{options}: {got:?}"
        );
        assert_eq!(bench.origin.requests()[0].target, seen, "{options}");
    }
    let bench = Bench::new("");
    for target in ["/?", "/", "/?a", "/?b", "/%41", "/A"] {
        let _ = bench.ask("GET", target, FRESH).expect(200);
    }
    assert_eq!(bench.asked(), 5, "/%41 and /A are one");
}

#[test]
fn bypass_and_refresh() {
    let mut bench = Bench::new(r#"{ bypass = cookie "s", refresh = header "x-refresh" }"#);
    let got = bench.check(
        "bypass",
        &[
            step("GET", FRESH, 200, "stored", 1),
            step("GET\nCookie: s=1", NEW, 200, "fwd=bypass", 2),
            step("GET", NEW, 200, HIT, 2),
            step("GET\nX-Refresh: 1", NEW, 200, "fwd=request", 3),
            step("GET", FRESH, 200, HIT, 3),
        ],
    );
    assert_eq!(got[4].field("x-new"), Some("1"), "refreshed");
    assert_eq!(bench.origin.requests()[1].field("cookie"), Some("s=1"));
}

#[test]
fn purges() {
    let bench = Bench::new(r#"{ purge = header "x-key" }"#);
    let fill = |target: &str, tags: &str| {
        let answer = format!("200\nCache-Control: max-age=60\nETag: \"a\"\nCache-Tag: {tags}");
        bench.ask("GET", target, &answer).expect(200)
    };
    let is_there = |target: &str| {
        let ask = "GET\nCache-Control: only-if-cached";
        bench.ask(ask, target, "").status() == 200
    };
    let all = ["/a/1?q", "/a/1", "/a/2", "/b"];
    let refill = || {
        for (target, tag) in all.iter().zip(["x", "y", "x y", "z"]) {
            assert_eq!(
                fill(target, tag).field("cache-tag"),
                None,
                "tags are not sent on"
            );
        }
    };
    for (ask, target, gone) in [
        ("PURGE\nX-Key: 1", "/a/1", &["/a/1"][..]),
        (
            "PURGE\nX-Key: 1\nPurge: prefix",
            "/a/",
            &["/a/1?q", "/a/1", "/a/2"],
        ),
        (
            "PURGE\nX-Key: 1\nCache-Tag: x",
            "/nowhere",
            &["/a/1?q", "/a/2"],
        ),
        (
            "PURGE\nX-Key: 1\nCache-Tag: y, z",
            "/nowhere",
            &["/a/1", "/a/2", "/b"],
        ),
    ] {
        refill();
        let _ = bench.ask(ask, target, "").expect(200);
        for one in all {
            assert_eq!(is_there(one), !gone.contains(&one), "{ask} {target}: {one}");
        }
    }
    // Softly: it has to be validated.
    refill();
    let _ = bench
        .ask("PURGE\nX-Key: 1\nPurge: soft", "/b", "")
        .expect(200);
    let got = bench
        .ask("GET", "/b", "304\nCache-Control: max-age=60\nETag: \"a\"")
        .expect(200);
    assert!(
        got.head.all("cache-status")[0].contains("fwd-status=304"),
        "{got:?}"
    );
    assert!(is_there("/b"));
    // Others may not.
    let before = bench.asked();
    assert_eq!(bench.ask("PURGE", "/b", "").status(), 403);
    assert!(is_there("/b"));
    assert_eq!(bench.asked(), before, "the origin has seen nothing of it");
}

#[test]
fn steps_below_run_once_and_those_above_for_each() {
    let mut bench = Bench::before(
        r#"headers { response = { x_above = "$uri" } }, cache,
           headers { response = { x_below = "1", set_cookie = false } }, proxy "@origin@""#,
    );
    let answer = "200\nCache-Control: max-age=60\nSet-Cookie: a=b";
    let got = bench.check(
        "steps",
        &[
            step("GET", answer, 200, "stored", 1),
            step("GET", NEW, 200, HIT, 1),
        ],
    );
    for got in got {
        assert_eq!(
            (got.field("x-above"), got.field("x-below")),
            (Some("/1"), Some("1"))
        );
        assert_eq!(
            got.field("set-cookie"),
            None,
            "what a step takes out does not count"
        );
    }
}
