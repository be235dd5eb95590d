//! What the cache decides, end to end: what a client gets and what its origin sees of it.

use std::sync::{Arc, Mutex};

use forebay_tests::{Origin, Request, Response, Script, Server};

/// A server with a cache before an origin that answers as it is told.
struct Bench {
    answer: Arc<Mutex<String>>,
    origin: Origin,
    server: Server,
    paths: usize,
}

/// A request and what is to come of it.
struct Step {
    /// The method, `METHOD HOST`, and fields, a line each.
    ask: &'static str,
    /// What the origin answers if it is asked: the status and fields, a line each.
    answer: &'static str,
    status: u16,
    /// What `Cache-Status` says, among other things.
    says: &'static str,
    /// How many requests the origin has had by then.
    asked: usize,
}

const fn step(
    ask: &'static str,
    answer: &'static str,
    status: u16,
    says: &'static str,
    asked: usize,
) -> Step {
    Step {
        ask,
        answer,
        status,
        says,
        asked,
    }
}

fn request(ask: &str, target: &str) -> Request {
    let mut lines = ask.lines();
    let method = lines.next().expect("a method");
    lines.fold(Request::new(method, target), |request, line| {
        let (name, value) = line.split_once(": ").expect("a field");
        request.field(name, value)
    })
}

impl Bench {
    fn new(options: &str) -> Self {
        Self::before(&format!(
            "cache {options}, proxy \"@origin@\" {{ retries = 0 }}"
        ))
    }

    fn before(pipeline: &str) -> Self {
        let answer = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&answer);
        let count = Mutex::new(0);
        let origin = Origin::setup()
            .handle(move |_| {
                let told = told.lock().unwrap().clone();
                let mut count = count.lock().unwrap();
                *count += 1;
                if told.is_empty() {
                    return Script::raw("nonsense\r\n\r\n").close();
                }
                let (status, fields) = told.split_once('\n').unwrap_or((&told, ""));
                let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
                let status = status.parse().expect("a status");
                Script::with_fields(status, &fields, format!("body {count}"))
            })
            .start();
        let server = Server::before(&origin, pipeline);
        Self {
            answer,
            origin,
            server,
            paths: 0,
        }
    }

    fn ask(&self, ask: &str, target: &str, answer: &str) -> Response {
        *self.answer.lock().unwrap() = answer.to_owned();
        self.server.client().request(&request(ask, target))
    }

    fn asked(&self) -> usize {
        self.origin.requests().len()
    }

    /// Goes through the steps, on a path of their own.
    #[track_caller]
    fn check(&mut self, name: &str, steps: &[Step]) -> Vec<Response> {
        self.paths += 1;
        let target = format!("/{}", self.paths);
        let before = self.asked();
        let mut all = Vec::new();
        for (nth, step) in steps.iter().enumerate() {
            let got = self.ask(step.ask, &target, step.answer);
            let said = got.head.all("cache-status").join(", ");
            let what = format!("{name}, step {nth}: {said:?}");
            assert_eq!(got.status(), step.status, "{what}");
            assert!(said.contains(step.says), "{what}, not {:?}", step.says);
            assert_eq!(
                self.asked() - before,
                step.asked,
                "{what}: requests to the origin"
            );
            all.push(got);
        }
        all
    }
}

const FRESH: &str = "200\nCache-Control: max-age=60";
const NEW: &str = "200\nCache-Control: max-age=60\nX-New: 1";

/// Stored by the first request, and the answer to the second.
const HIT: &str = "forebay; hit";

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
