//! What the cache decides, end to end: what a client gets and what its origin sees of it.

use forebay_tests::Request;
use forebay_tests::cache::{Bench, FRESH, HIT, NEW, Step, step};

#[test]
fn freshness() {
    let mut bench = Bench::new("");
    for (name, answer) in [
        ("max-age", FRESH),
        ("s-maxage", "200\nCache-Control: max-age=0, s-maxage=60"),
        ("in capitals", "200\nCache-Control: MAX-AGE=60"),
        ("Expires", "200\nExpires: Fri, 01 Jan 2100 00:00:00 GMT"),
        (
            "max-age before Expires",
            "200\nExpires: 0\nCache-Control: max-age=60",
        ),
        (
            "a heuristic",
            "200\nLast-Modified: Sun, 02 Feb 2020 02:02:02 GMT",
        ),
        (
            "targeted",
            "200\nCache-Control: no-store\nCDN-Cache-Control: max-age=60",
        ),
        (
            "must-understand",
            "200\nCache-Control: no-store, must-understand, max-age=60",
        ),
        ("404", "404\nCache-Control: max-age=60"),
        ("302", "302\nLocation: /x\nCache-Control: max-age=60"),
        ("204", "204\nCache-Control: max-age=60"),
        ("503, if it says so", "503\nCache-Control: max-age=60"),
    ] {
        let status = answer[..3].parse().unwrap();
        let got = bench.check(
            name,
            &[
                step("GET", answer, status, "fwd=uri-miss; fwd-status=", 1),
                step("GET", NEW, status, HIT, 1),
            ],
        );
        assert!(
            got[0].head.all("cache-status")[0].contains("stored"),
            "{name}"
        );
        assert_eq!(got[0].body, got[1].body);
        assert!(
            got[1].field("age").is_some() && got[1].field("date").is_some(),
            "{name}"
        );
    }
    for (name, answer, why) in [
        ("nothing said", "200", "never-usable"),
        ("max-age=0", "200\nCache-Control: max-age=0", "never-usable"),
        (
            "no-store",
            "200\nCache-Control: max-age=60, no-store",
            "no-store",
        ),
        (
            "private",
            "200\nCache-Control: max-age=60, private",
            "private",
        ),
        ("Expires: 0", "200\nExpires: 0", "never-usable"),
        (
            "Set-Cookie",
            "200\nCache-Control: max-age=60\nSet-Cookie: a=b",
            "set-cookie",
        ),
        (
            "Vary: *",
            "200\nCache-Control: max-age=60\nVary: *",
            "vary-star",
        ),
        (
            "targeted",
            "200\nCache-Control: max-age=60\nCDN-Cache-Control: no-store",
            "no-store",
        ),
        (
            "old",
            "200\nAge: 100\nCache-Control: max-age=60",
            "never-usable",
        ),
        ("404", "404", "never-usable"),
        ("429", "429\nCache-Control: max-age=60", "status-forbidden"),
    ] {
        let status = answer[..3].parse().unwrap();
        bench.check(
            name,
            &[
                step("GET", answer, status, why, 1),
                step("GET", answer, status, "hit-for-miss", 2),
            ],
        );
    }
    // An origin that breaks off has given no answer to store.
    bench.check(
        "own errors",
        &[
            step("GET", "", 502, "", 1),
            step("GET", FRESH, 200, "stored", 2),
        ],
    );
}

#[test]
fn age_and_date_go_on() {
    let mut bench = Bench::new("");
    let old =
        "200\nAge: 30\nDate: Sun, 02 Feb 2020 02:02:02 GMT\nCache-Control: s-maxage=999999999";
    let got = bench.check(
        "age",
        &[
            step("GET", old, 200, "stored", 1),
            step("GET", NEW, 200, HIT, 1),
        ],
    );
    for got in got {
        let age: u64 = got.field("age").expect("Age").parse().expect("a number");
        assert!(age > 100_000_000, "by the Date, not by the Age: {age}");
        assert_eq!(got.field("date"), Some("Sun, 02 Feb 2020 02:02:02 GMT"));
    }
}

#[test]
fn what_the_request_says() {
    let mut bench = Bench::new("");
    const STALE: &str = "200\nAge: 100\nCache-Control: max-age=10\nETag: \"a\"";
    const SAME: &str = "304\nCache-Control: max-age=60\nETag: \"a\"\nX-New: 1";
    let cases: &[(&str, &[Step])] = &[
        (
            "only-if-cached, cold",
            &[step(
                "GET\nCache-Control: only-if-cached",
                FRESH,
                504,
                "",
                0,
            )],
        ),
        (
            "only-if-cached, warm",
            &[
                step("GET", FRESH, 200, "stored", 1),
                step("GET\nCache-Control: only-if-cached", NEW, 200, HIT, 1),
            ],
        ),
        (
            "only-if-cached, stale",
            &[
                step("GET", STALE, 200, "stored", 1),
                step("GET\nCache-Control: only-if-cached", NEW, 504, "", 1),
            ],
        ),
        (
            "no-cache",
            &[
                step("GET", FRESH, 200, "stored", 1),
                step("GET\nCache-Control: no-cache", NEW, 200, "fwd=request", 2),
                step("GET", FRESH, 200, HIT, 2),
            ],
        ),
        (
            "max-age=0",
            &[
                step("GET", FRESH, 200, "stored", 1),
                step("GET\nCache-Control: max-age=0", NEW, 200, "fwd=request", 2),
            ],
        ),
        (
            "max-age=30",
            &[
                step("GET", FRESH, 200, "stored", 1),
                step("GET\nCache-Control: max-age=30", NEW, 200, HIT, 1),
            ],
        ),
        (
            "min-fresh",
            &[
                step("GET", FRESH, 200, "stored", 1),
                step("GET\nCache-Control: min-fresh=30", NEW, 200, HIT, 1),
                step(
                    "GET\nCache-Control: min-fresh=90",
                    NEW,
                    200,
                    "fwd=request",
                    2,
                ),
            ],
        ),
        (
            "max-stale",
            &[
                step("GET", STALE, 200, "stored", 1),
                step(
                    "GET\nCache-Control: max-stale=10",
                    SAME,
                    200,
                    "fwd-status=304",
                    2,
                ),
            ],
        ),
        (
            "max-stale, enough",
            &[
                step("GET", STALE, 200, "stored", 1),
                step("GET\nCache-Control: max-stale=1000", SAME, 200, HIT, 1),
                step("GET\nCache-Control: max-stale", SAME, 200, HIT, 1),
            ],
        ),
        (
            "Pragma",
            &[
                step("GET", FRESH, 200, "stored", 1),
                step(
                    "GET\nPragma: no-cache\nCache-Control: max-age=100",
                    NEW,
                    200,
                    HIT,
                    1,
                ),
                step("GET\nPragma: no-cache", NEW, 200, "fwd=request", 2),
            ],
        ),
        (
            "no-store",
            &[
                step(
                    "GET\nCache-Control: no-store",
                    FRESH,
                    200,
                    "request-no-store",
                    1,
                ),
                // That was about the request: who asks next need not go round.
                step("GET", FRESH, 200, "stored", 2),
                step("GET\nCache-Control: no-store", NEW, 200, HIT, 2),
            ],
        ),
        (
            "Authorization",
            &[
                step(
                    "GET\nAuthorization: Basic YTpi",
                    FRESH,
                    200,
                    "authorization",
                    1,
                ),
                step("GET", FRESH, 200, "stored", 2),
            ],
        ),
        (
            "Authorization, public",
            &[
                step(
                    "GET\nAuthorization: Basic YTpi",
                    "200\nCache-Control: public, max-age=60",
                    200,
                    "stored",
                    1,
                ),
                step("GET", NEW, 200, HIT, 1),
            ],
        ),
        (
            "Authorization, s-maxage",
            &[
                step(
                    "GET\nAuthorization: Basic YTpi",
                    "200\nCache-Control: s-maxage=60",
                    200,
                    "stored",
                    1,
                ),
                step("GET\nAuthorization: Basic YzpkCg", NEW, 200, HIT, 1),
            ],
        ),
        (
            "If-Match",
            &[
                step(
                    "GET",
                    "200\nCache-Control: max-age=60\nETag: \"a\"",
                    200,
                    "stored",
                    1,
                ),
                step("GET\nIf-Match: \"a\"", NEW, 200, "fwd=", 2),
            ],
        ),
    ];
    for (name, steps) in cases {
        bench.check(name, steps);
    }
}

#[test]
fn validation() {
    let mut bench = Bench::new("");
    let stale = "200\nCache-Control: max-age=0\nETag: \"a\"\nX-Old: 1\nX-Both: 1";
    let same = "304\nCache-Control: max-age=60\nETag: \"a\"\nX-Both: 2\nContent-Length: 999";
    let got = bench.check(
        "304",
        &[
            step("GET", stale, 200, "stored", 1),
            step("GET", same, 200, "fwd=stale; fwd-status=304; stored", 2),
            step("GET", NEW, 200, HIT, 2),
        ],
    );
    assert_eq!(
        bench.origin.requests()[1].field("if-none-match"),
        Some("\"a\"")
    );
    for got in &got[1..] {
        assert_eq!(got.text(), "body 1");
        assert_eq!(
            (got.field("x-old"), got.field("x-both")),
            (Some("1"), Some("2"))
        );
    }

    let stale = "200\nCache-Control: max-age=0\nLast-Modified: Sun, 02 Feb 2020 02:02:02 GMT";
    let got = bench.check(
        "another one",
        &[
            step("GET", stale, 200, "stored", 1),
            step("GET", NEW, 200, "fwd=stale; fwd-status=200; stored", 2),
            step("GET", stale, 200, HIT, 2),
        ],
    );
    let since = Some("Sun, 02 Feb 2020 02:02:02 GMT");
    assert_eq!(bench.origin.requests()[3].field("if-modified-since"), since);
    assert_eq!(
        (got[1].field("x-new"), got[2].field("x-new")),
        (Some("1"), Some("1"))
    );

    let stale = "200\nCache-Control: max-age=0, must-revalidate\nETag: \"a\"";
    bench.check(
        "must-revalidate",
        &[
            step("GET", stale, 200, "stored", 1),
            step("GET", "503", 503, "", 2),
            step("GET", "", 502, "", 3),
            step("GET", "304\nETag: \"a\"", 200, "fwd-status=304", 4),
        ],
    );
    let stale = "200\nAge: 100\nCache-Control: max-age=10, stale-if-error=600\nETag: \"a\"";
    bench.check(
        "stale-if-error",
        &[
            step("GET", stale, 200, "stored", 1),
            step("GET", "503", 200, "fwd=stale; fwd-status=503", 2),
            step("GET", "", 200, "fwd=stale; ", 3),
            step("GET", "404", 404, "fwd=stale", 4),
        ],
    );
    let gone = "200\nCache-Control: max-age=0\nETag: \"a\"";
    bench.check(
        "a 304 about something else",
        &[
            step("GET", gone, 200, "stored", 1),
            // The origin says the same to the question without conditions: then the client gets it.
            step("GET", "304\nETag: \"b\"", 304, "fwd=stale", 3),
        ],
    );
    let no_cache = "200\nCache-Control: max-age=60, no-cache\nETag: \"a\"";
    bench.check(
        "no-cache",
        &[
            step("GET", no_cache, 200, "stored", 1),
            step(
                "GET",
                "304\nCache-Control: max-age=60, no-cache",
                200,
                "fwd-status=304",
                2,
            ),
            step(
                "GET",
                "304\nCache-Control: no-store",
                200,
                "fwd-status=304",
                3,
            ),
            step("GET", FRESH, 200, "uri-miss", 4),
        ],
    );
}

#[test]
fn conditions_of_the_client() {
    let mut bench = Bench::new("");
    let tagged = "200\nCache-Control: max-age=60\nETag: \"a\"\nContent-Type: text/x";
    let got = bench.check(
        "cold",
        &[
            step("GET\nIf-None-Match: \"a\"", tagged, 304, "stored", 1),
            step("GET\nIf-None-Match: \"b\", W/\"a\"", NEW, 304, HIT, 1),
            step("GET\nIf-None-Match: \"b\"", NEW, 200, HIT, 1),
            step("GET", NEW, 200, HIT, 1),
        ],
    );
    let seen = &bench.origin.requests()[0];
    assert_eq!(
        seen.field("if-none-match"),
        None,
        "what is stored is for all"
    );
    assert_eq!(got[0].field("etag"), Some("\"a\""));
    assert_eq!(got[3].text(), "body 1");
    let dated = "200\nCache-Control: max-age=60\nLast-Modified: Sun, 02 Feb 2020 02:02:02 GMT";
    bench.check(
        "dates",
        &[
            step("GET", dated, 200, "stored", 1),
            step(
                "GET\nIf-Modified-Since: Sun, 02 Feb 2020 02:02:02 GMT",
                NEW,
                304,
                HIT,
                1,
            ),
            step(
                "GET\nIf-Modified-Since: Sun, 02 Feb 2020 02:02:01 GMT",
                NEW,
                200,
                HIT,
                1,
            ),
        ],
    );
    bench.check(
        "a 404 has no conditions and no ranges",
        &[
            step(
                "GET",
                "404\nCache-Control: max-age=60\nETag: \"a\"",
                404,
                "stored",
                1,
            ),
            step("GET\nIf-None-Match: \"a\"", NEW, 404, HIT, 1),
            step("GET\nRange: bytes=0-1", NEW, 404, HIT, 1),
        ],
    );
}

#[test]
fn other_methods() {
    let mut bench = Bench::new("");
    let got = bench.check(
        "HEAD from what GET has stored",
        &[
            step("GET", FRESH, 200, "stored", 1),
            step("HEAD", NEW, 200, HIT, 1),
        ],
    );
    assert_eq!(got[1].field("content-length"), Some("6"));
    bench.check(
        "HEAD stores nothing",
        &[
            step("HEAD", "200\nCache-Control: max-age=60", 200, "fwd=miss", 1),
            step("GET", FRESH, 200, "stored", 2),
        ],
    );
    assert_eq!(bench.origin.requests()[1].method, "HEAD");
    bench.check(
        "POST makes it invalid",
        &[
            step("GET", FRESH, 200, "stored", 1),
            step("POST", "500", 500, "fwd=method", 2),
            step("GET", NEW, 200, HIT, 2),
            step("POST", "200", 200, "fwd=method", 3),
            step("GET", NEW, 200, "uri-miss", 4),
        ],
    );
    for method in ["PUT", "DELETE", "PATCH", "FROB"] {
        let ask: &'static str = method;
        bench.check(
            method,
            &[
                step("GET", FRESH, 200, "stored", 1),
                step(ask, "204", 204, "fwd=method", 2),
                step("GET", NEW, 200, "stored", 3),
            ],
        );
    }
    bench.check(
        "OPTIONS does not",
        &[
            step("GET", FRESH, 200, "stored", 1),
            step("OPTIONS", "204", 204, "fwd=method", 2),
            step("GET", NEW, 200, HIT, 2),
        ],
    );
    let fill = |bench: &Bench, target: &str| bench.ask("GET", target, FRESH);
    for target in ["/there", "/content", "/foreign"] {
        let _ = fill(&bench, target).expect(200);
    }
    let moved = "201\nLocation: /there\nContent-Location: http://forebay.test/content";
    let _ = bench.ask("POST", "/other", moved).expect(201);
    let away = "201\nLocation: http://elsewhere.test/foreign";
    let _ = bench.ask("POST", "/other", away).expect(201);
    for (target, said) in [
        ("/there", "uri-miss"),
        ("/content", "uri-miss"),
        ("/foreign", HIT),
    ] {
        let got = fill(&bench, target);
        assert!(
            got.head.all("cache-status")[0].contains(said),
            "{target}: {got:?}"
        );
    }
    // A GET with content asks for more than its URI says.
    let before = bench.asked();
    let _ = fill(&bench, "/with");
    let with = Request::get("/with").body("more");
    let got = bench.server.client().request(&with).expect(200);
    assert!(
        got.head.all("cache-status")[0].contains("request-body"),
        "{got:?}"
    );
    assert_eq!(bench.origin.requests()[before + 1].text(), "more");
}
