//! HTTP/1 on the wire: connections, framing, interim responses, both ends of a conversation.

use std::time::{Duration, Instant};

use forebay_tests::origin::script::Act;
use forebay_tests::wire::Framing;
use forebay_tests::{Gate, Origin, Request, Script, Server, Trouble, pattern};

/// A server without an origin: `/` says "hello", `/big` is a file of 1 MiB.
fn simple() -> Server {
    Server::builder(
        r#"site { "*", route "/" { respond(200, "hello") }, route "/b" { respond(201, "b") },
             files "@dir@/www" }"#,
    )
    .file("www/big.bin", pattern::bytes(1 << 20))
    .start()
}

/// A server before an origin, with nothing between.
fn plain(origin: &Origin) -> Server {
    Server::before(origin, r#"proxy "@origin@""#)
}

#[test]
fn a_get_is_answered() {
    let server = simple();
    let response = server.client().get("/").expect(200);
    assert_eq!(response.text(), "hello");
    assert_eq!(response.framing, Framing::Length(5));
    assert_eq!(response.head.minor, 1);
    let date = response
        .field("date")
        .expect("RFC 9110 section 6.6.1: an origin server sends Date");
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
}

#[test]
fn a_connection_persists() {
    let server = simple();
    let mut conn = server.client().connect();
    for _ in 0..100 {
        let response = conn.get("/").expect(200);
        assert!(!response.says_close());
    }
}

#[test]
fn close_is_honoured_and_said() {
    let server = simple();
    for field in ["close", "Close", "foo, close", "keep-alive, close"] {
        let mut conn = server.client().connect();
        let response = conn
            .exchange(&Request::get("/").field("Connection", field))
            .expect(200);
        assert!(response.says_close(), "{field}");
        conn.expect_closed();
    }
}

#[test]
fn requests_behind_a_close_are_not_answered() {
    let server = simple();
    let mut conn = server.client().connect();
    conn.raw(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(conn.read_all().statuses(), [200]);
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    // RFC 9112 section 2.2: a server ought to ignore at least one.
    let server = simple();
    let mut conn = server.client().connect();
    conn.raw("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let _ = conn.read_response().expect(200);
    conn.raw("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let _ = conn.read_response().expect(200);
}

#[test]
fn http10_closes_unless_asked_to_stay() {
    let server = simple();
    let mut conn = server.client().connect();
    let response = conn.exchange(&Request::get("/").http10()).expect(200);
    assert_eq!(response.text(), "hello");
    conn.expect_closed();

    let mut conn = server.client().connect();
    let stay = Request::get("/").http10().field("Connection", "keep-alive");
    for _ in 0..3 {
        let response = conn.exchange(&stay).expect(200);
        assert!(
            response.head.has_token("connection", "keep-alive"),
            "it has to be told"
        );
        assert_eq!(response.text(), "hello");
    }
}

#[test]
fn http10_gets_no_chunks() {
    let origin = Origin::always(Script::chunked(&["one", "two"], ""));
    let server = plain(&origin);
    for request in [
        Request::get("/").http10(),
        Request::get("/").http10().field("Connection", "keep-alive"),
    ] {
        let mut conn = server.client().connect();
        let response = conn.exchange(&request).expect(200);
        assert_eq!(response.text(), "onetwo");
        assert_eq!(response.head.field("transfer-encoding"), None);
        if response.framing == Framing::UntilClose {
            continue;
        }
        assert_eq!(response.framing, Framing::Length(6));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::setup()
        .route("/slow", Script::ok("slow").after(ms(50)))
        .start();
    let server = Server::before(
        &origin,
        r#"route "/hello" { respond(200, "hello") }, proxy "@origin@""#,
    );
    let mut conn = server.client().connect();
    let targets = ["/hello", "/slow", "/hello", "/a", "/slow", "/b", "/hello"];
    let requests: Vec<Request> = targets.iter().map(|t| Request::get(t)).collect();
    let got: Vec<String> = conn
        .pipeline(&requests)
        .iter()
        .map(|r| r.text().into())
        .collect();
    assert_eq!(
        got,
        [
            "hello", "slow", "hello", "GET /a", "slow", "GET /b", "hello"
        ]
    );
}

#[test]
fn a_thousand_pipelined_requests_are_answered() {
    let server = simple();
    let mut conn = server.client().connect();
    let requests: Vec<Request> = (0..1000)
        .map(|i| match i % 3 {
            0 => Request::get("/"),
            1 => Request::get("/b"),
            _ => Request::post("/b", "ignored"),
        })
        .collect();
    for (i, response) in conn.pipeline(&requests).iter().enumerate() {
        assert_eq!(response.status(), if i % 3 == 0 { 200 } else { 201 });
    }
}

#[test]
fn an_answer_does_not_wait_for_the_next_one() {
    let gate = Gate::new();
    let origin = Origin::setup()
        .route("/slow", Script::ok("slow").when(&gate))
        .start();
    let server = Server::before(
        &origin,
        r#"route "/fast" { respond(200, "fast") }, proxy "@origin@""#,
    );
    let mut conn = server.client().connect();
    conn.raw("GET /fast HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(conn.read_response().text(), "fast");
    gate.open();
    assert_eq!(conn.read_response().text(), "slow");
}

#[test]
fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
    let server = simple();
    let mut conn = server.client().connect();
    conn.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHo");
    let _ = conn.read_response().expect(200);
    conn.more("st: a\r\n\r\n");
    let _ = conn.read_response().expect(201);
}

#[test]
fn head_tells_what_get_would_and_sends_no_body() {
    let origin = Origin::setup()
        .handle(|request| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\n";
            Script::raw(if request.method == "HEAD" {
                head.into()
            } else {
                format!("{head}hello")
            })
        })
        .start();
    let server = Server::builder(
        r#"site { "*", route "/r" { respond(200, "hello") },
             route "/p" { proxy "@origin@" }, files "@dir@/www" }"#,
    )
    .origin("origin", &origin)
    .file("www/f.txt", "hello")
    .start();
    let mut conn = server.client().connect();
    for target in ["/r", "/p", "/f.txt"] {
        let get = conn.get(target).expect(200);
        let head = conn.exchange(&Request::head(target)).expect(200);
        assert_eq!(head.body, b"");
        let fields = |r: &forebay_tests::Response| {
            let mut f = r.head.fields.clone();
            f.retain(|(n, _)| !n.eq_ignore_ascii_case("date"));
            f
        };
        assert_eq!(fields(&get), fields(&head), "{target}");
    }
}

#[test]
fn bodies_reach_the_origin_whole() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let big = pattern::bytes(300_000);
    let mut conn = server.client().connect();
    let _ = conn.exchange(&Request::post("/a", "")).expect(200);
    let _ = conn.exchange(&Request::post("/b", "x")).expect(200);
    let _ = conn.exchange(&Request::post("/c", &big)).expect(200);
    let _ = conn
        .exchange(&Request::new("PUT", "/d").chunks(&[]))
        .expect(200);
    let _ = conn
        .exchange(&Request::new("PUT", "/e").chunks(&[b"x", b"yz"]))
        .expect(200);
    let _ = conn
        .exchange(&Request::new("PUT", "/f").chunks(&[&big, b"1", &big]))
        .expect(200);
    let seen = origin.wait_requests(6);
    let bodies: Vec<&[u8]> = seen.iter().map(|r| r.body.as_slice()).collect();
    assert_eq!(bodies[..2], [b"".as_slice(), b"x"]);
    assert!(bodies[2] == big);
    assert_eq!(bodies[3..5], [b"".as_slice(), b"xyz"]);
    assert!(bodies[5] == [big.as_slice(), b"1", &big].concat());
    for request in &seen {
        assert_eq!(request.body_end, Some(Ok(())), "{}", request.target);
    }
    // A length that was told stays told: an application may not know chunks.
    assert_eq!(seen[0].field("content-length"), Some("0"));
    assert_eq!(seen[2].field("content-length"), Some("300000"));
}

#[test]
fn trailers_pass_in_both_directions() {
    let origin = Origin::always(Script::chunked(&["abc"], "X-Sum: 1\r\nX-Two: 2\r\n"));
    let server = plain(&origin);
    let request = Request::post("/", "")
        .chunks(&[b"one", b"two"])
        .trailer("X-Check", "yes");
    let response = server
        .client()
        .request(&request.field("TE", "trailers"))
        .expect(200);
    assert_eq!(response.text(), "abc");
    let want = [
        ("x-sum".to_owned(), "1".to_owned()),
        ("x-two".to_owned(), "2".to_owned()),
    ];
    let got: Vec<_> = response
        .trailers
        .iter()
        .map(|(n, v)| (n.to_ascii_lowercase(), v.clone()))
        .collect();
    assert_eq!(got, want);
    let seen = origin.only_request();
    assert_eq!(seen.text(), "onetwo");
    assert_eq!(seen.trailers.len(), 1);
    assert_eq!(seen.trailers[0].1, "yes");
}

#[test]
fn trailers_cannot_carry_what_belongs_in_a_head() {
    // RFC 9110 section 6.5.1: framing, routing, authentication are never taken from a trailer.
    let origin = Origin::always(Script::chunked(
        &["abc"],
        "Content-Length: 9\r\nSet-Cookie: a\r\n",
    ));
    let server = plain(&origin);
    let request = Request::post("/", "")
        .chunks(&[b"one"])
        .trailer("Host", "evil");
    let request = request
        .trailer("Authorization", "x")
        .trailer("Transfer-Encoding", "chunked");
    let mut conn = server.client().connect();
    conn.send(&request.field("TE", "trailers"));
    if let Ok(response) = conn.try_read_response() {
        assert_eq!(response.trailers, []);
    }
    for request in origin.requests() {
        assert_eq!(request.trailers, []);
    }
}

#[test]
fn expect_100_continue_is_answered_when_the_body_is_wanted() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let mut conn = server.client().connect();
    conn.raw("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(conn.read_interim().status, 100);
    conn.more("body");
    assert_eq!(conn.read_response().text(), "POST /x");
    assert_eq!(origin.only_request().text(), "body");
}

#[test]
fn expect_100_continue_is_not_answered_when_the_body_is_not_wanted() {
    let origin = Origin::echo();
    let server = Server::builder(
        r#"site { "*", route "/no" { respond(403) },
             route "/small" { limit { body = "1KB" }, proxy "@origin@" } }"#,
    )
    .origin("origin", &origin)
    .start();
    for (target, status) in [("/no", 403), ("/small", 413)] {
        let mut conn = server.client().connect();
        conn.raw(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\
             Expect: 100-continue\r\n\r\n"
        ));
        let response = conn.read_response().expect(status);
        assert_eq!(response.interim, []);
    }
}

#[test]
fn the_client_hears_100_continue_once() {
    // The server and the origin both have reason to say it.
    let script = Script::raw("HTTP/1.1 100 Continue\r\n\r\n")
        .then(Act::ReadBody)
        .send(OK)
        .early();
    let origin = Origin::always(script);
    let server = plain(&origin);
    let mut conn = server.client().connect();
    conn.raw("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(conn.read_interim().status, 100);
    conn.more("body");
    assert_eq!(conn.read_response().expect(200).interim, []);
    assert_eq!(origin.only_request().text(), "body");
}

#[test]
fn options_for_the_server_itself_is_answered() {
    let server = simple();
    let mut conn = server.client().connect();
    conn.raw("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = conn.read_response();
    assert!(response.status() < 500, "{}", response.status());
    if !response.says_close() {
        let _ = conn.get("/").expect(200);
    }
}

#[test]
fn http10_gets_no_interim_response() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let origin = Origin::always(Script::raw(hints).send("HTTP/1.1 204 No Content\r\n\r\n"));
    let server = plain(&origin);
    let mut conn = server.client().connect();
    conn.raw("POST /x HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\na");
    let response = conn.read_response().expect(204);
    assert_eq!(response.interim, []);
}

#[test]
fn early_hints_pass_before_the_answer() {
    let gate = Gate::new();
    let script = Script::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    let origin = Origin::always(script.then(Act::Wait(gate.clone())).send(OK));
    let server = plain(&origin);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let hints = conn.read_interim();
    assert_eq!(hints.status, 103);
    assert_eq!(hints.field("link"), Some("</a.css>; rel=preload"));
    gate.open();
    let _ = conn.read_response().expect(200);
}

#[test]
fn no_more_than_eight_interim_responses_pass() {
    for count in [8_usize, 9, 1000] {
        let mut bytes = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count);
        bytes += OK;
        let origin = Origin::always(Script::raw(bytes));
        let server = plain(&origin);
        let response = server.client().get("/");
        assert!(
            response.interim.len() <= 8,
            "{} of {count}",
            response.interim.len()
        );
        if count == 8 {
            assert_eq!((response.status(), response.interim.len()), (200, 8));
        } else {
            assert!(
                matches!(response.status(), 200 | 502),
                "{}",
                response.status()
            );
        }
    }
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let gate = Gate::new();
    let origin = Origin::setup()
        .route("/slow", Script::ok("slow").when(&gate))
        .start();
    let server = plain(&origin);
    let mut conn = server.client().connect();
    conn.raw("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    conn.half_close();
    assert_eq!(conn.read_response().text(), "GET /a");
    let _ = origin.wait_requests(2);
    gate.open();
    assert_eq!(conn.read_response().text(), "slow");
    conn.expect_closed();
}

#[test]
fn a_half_closed_client_gets_a_big_file() {
    let server = simple();
    let mut conn = server.client().connect();
    conn.send(&Request::get("/big.bin"));
    conn.half_close();
    let (_, len) = conn.slow_read(0).expect("the whole file");
    assert_eq!(len, 1 << 20);
    conn.expect_closed();
}

#[test]
fn a_refused_upload_sees_its_status() {
    let origin = Origin::echo();
    let server = Server::before(&origin, r#"limit { body = "1KB" }, proxy "@origin@""#);
    let body = vec![b'x'; 10 << 20];
    for _ in 0..100 {
        let mut conn = server.client().connect();
        conn.send_head(&Request::post("/", &body));
        // The server stops reading somewhere in it; what counts is that the answer is not lost.
        let _ = conn.try_more(&body);
        let response = conn.read_response().expect(413);
        assert!(response.says_close());
    }
    origin.expect_untouched();
}

#[test]
fn a_huge_request_line_sees_its_status() {
    let server = simple();
    let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(200 << 10));
    for _ in 0..100 {
        let mut conn = server.client().connect();
        let _ = conn.try_raw(&line);
        let response = conn.read_response().expect(414);
        assert!(response.says_close());
    }
}

#[test]
fn an_answer_before_the_end_of_the_upload_is_not_lost() {
    // The origin answers at once and never reads; the client goes on sending until it hears it.
    let origin = Origin::always(Script::status(403, "go away").early().close());
    let server = plain(&origin);
    for _ in 0..20 {
        let mut conn = server.client().connect();
        conn.send_head(&Request::post("/", vec![b'x'; 10 << 20]));
        let _ = conn.try_more(vec![b'x'; 10 << 20]);
        let response = conn.read_response();
        // The origin may have reset the connection under the upload before its answer was read.
        assert!(
            matches!(response.status(), 403 | 502),
            "{}",
            response.status()
        );
    }
}

#[test]
fn an_unread_body_does_not_become_a_request() {
    let server = simple();
    let mut conn = server.client().connect();
    let inner = "GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let _ = conn.exchange(&Request::post("/", inner)).expect(200);
    let _ = conn
        .exchange(&Request::post("/", "").chunks(&[inner.as_bytes()]))
        .expect(200);
    let _ = conn.get("/b").expect(201);
}

#[test]
fn connect_and_trace_are_refused() {
    let origin = Origin::echo();
    let server = plain(&origin);
    for head in [
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let response = server.client().raw(head);
        assert!(
            matches!(response.status(), 405 | 501),
            "{head:?}: {}",
            response.status()
        );
    }
    origin.expect_untouched();
}

#[test]
fn unknown_methods_pass() {
    let origin = Origin::echo();
    let server = plain(&origin);
    for method in ["PATCH", "DELETE", "PROPFIND", "M-SEARCH", "x"] {
        let response = server
            .client()
            .request(&Request::new(method, "/a"))
            .expect(200);
        assert_eq!(response.text(), format!("{method} /a"));
    }
}

#[test]
fn absolute_form_is_as_good_as_origin_form() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let text = server
        .client()
        .raw("GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(text.expect(200).text(), "GET /x?y");
    let text = server
        .client()
        .raw("GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(text.expect(200).text(), "GET /");
}

#[test]
fn any_split_of_a_request_is_the_same_request() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let requests = [
        Request::get("/a?b").field("X-Long", "value with spaces"),
        Request::post("/b", "0123456789"),
        Request::post("/c", "")
            .chunks(&[b"01234", b"56789"])
            .trailer("X-T", "t"),
    ];
    for request in &requests {
        let before = origin.requests().len();
        for (at, got) in server.client().split_everywhere(&request.to_bytes()) {
            assert_eq!(got.statuses(), [200], "split at {at} of {request:?}");
            assert_eq!(got.end, Trouble::Closed, "split at {at} of {request:?}");
        }
        for seen in &origin.requests()[before..] {
            assert_eq!(seen.body_end, Some(Ok(())));
            if request.method() == "POST" {
                assert_eq!(seen.text(), "0123456789");
            }
        }
    }
}

#[test]
fn any_split_of_two_pipelined_requests_gives_two_answers() {
    let server = simple();
    let bytes = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /b HTTP/1.1\r\n\
                 Host: a\r\n\r\n";
    for (at, got) in server.client().split_everywhere(bytes.as_bytes()) {
        assert_eq!(got.statuses(), [200, 201], "split at {at}");
        assert_eq!(got.end, Trouble::Closed, "split at {at}");
    }
}

#[test]
fn a_request_byte_by_byte_is_a_request() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let mut conn = server.client().connect();
    let request = Request::post("/c", "").chunks(&[b"01234", b"56789"]);
    conn.slow_write(&request.to_bytes(), 1, Duration::from_micros(200))
        .expect("to be read");
    let _ = conn.read_response().expect(200);
    assert_eq!(origin.only_request().text(), "0123456789");
}

#[test]
fn a_slow_head_is_ended_in_time() {
    let server = Server::builder(r#"site { "*", respond(200) }"#)
        .listen(r#"header_timeout = "1s""#)
        .start();
    let mut conn = server.client().connect();
    let begun = Instant::now();
    // A byte every 100 ms: each of them in time, the whole head not.
    let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(100));
    let _ = conn.slow_write(head.as_bytes(), 1, ms(100));
    let end = conn.read_all();
    assert!(matches!(end.statuses().as_slice(), [] | [408]), "{end:?}");
    let took = begun.elapsed();
    assert!(took >= ms(900) && took < ms(4000), "{took:?}");
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let server = Server::builder(r#"site { "*", respond(200) }"#)
        .listen(r#"idle_timeout = "1s""#)
        .start();
    let mut conn = server.client().connect();
    let _ = conn.get("/").expect(200);
    let begun = Instant::now();
    conn.expect_closed();
    let took = begun.elapsed();
    assert!(took >= ms(800) && took < ms(4000), "{took:?}");
}

#[test]
fn a_stalled_body_is_ended_in_time() {
    let origin = Origin::echo();
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .listen(r#"body_timeout = "1s""#)
        .start();
    let mut conn = server.client().connect();
    conn.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    let begun = Instant::now();
    let end = conn.read_all();
    assert!(matches!(end.statuses().as_slice(), [] | [408]), "{end:?}");
    let took = begun.elapsed();
    assert!(took >= ms(800) && took < ms(4000), "{took:?}");
    // What had begun is broken off where the origin can see it.
    assert!(
        origin
            .requests()
            .iter()
            .all(|r| !matches!(r.body_end, Some(Ok(()))))
    );
}

#[test]
fn a_client_that_does_not_read_is_ended_in_time() {
    let server = Server::builder(r#"site { "*", files "@dir@/www" }"#)
        .listen(r#"write_timeout = "1s""#)
        .file("www/big.bin", pattern::bytes(32 << 20))
        .start();
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    let port = conn.local_port().expect("TCP");
    forebay_tests::wait::until("the server to give up", || {
        !forebay_tests::proc::is_connected(server.addr().port(), port)
    });
    assert!(
        conn.slow_read(0).is_err(),
        "the whole file, although it did not read for long"
    );
    let _ = server.client().get("/nothing").expect(404);
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
