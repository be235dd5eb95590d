//! Upstreams: what an origin does wrong, retries, pools and how their peers are chosen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_tests::origin::script::Act;
use forebay_tests::port::Reserved;
use forebay_tests::{Gate, Origin, Request, Script, Server, Trouble, wait};

fn plain(origin: &Origin) -> Server {
    Server::before(origin, r#"proxy "@origin@""#)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn connections_to_an_origin_are_reused() {
    let origin = Origin::echo();
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .workers(1)
        .start();
    for i in 0..20 {
        let _ = server
            .client()
            .request(&Request::post("/", format!("{i}")))
            .expect(200);
    }
    assert_eq!(origin.connections().len(), 1);
}

#[test]
fn a_connection_with_anything_odd_on_it_is_not_reused() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (what, script) in [
        ("more than announced", Script::raw(format!("{ok}extra"))),
        ("a second response", Script::raw(format!("{ok}{ok}"))),
        (
            "close",
            Script::with_fields(200, "Connection: close\r\n", "ok"),
        ),
        (
            "HTTP/1.0",
            Script::raw("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ),
        (
            "until close",
            Script::raw("HTTP/1.1 200 OK\r\n\r\nok").close(),
        ),
        (
            "a body to HEAD",
            Script::raw("HTTP/1.1 204 No Content\r\n\r\nbody"),
        ),
    ] {
        let origin = Origin::always(script);
        let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
            .origin("origin", &origin)
            .workers(1)
            .start();
        for _ in 0..3 {
            let response = server.client().get("/");
            assert!(
                matches!(response.status(), 200 | 204),
                "{what}: {}",
                response.status()
            );
            assert!(response.body.len() <= 2, "{what}: {}", response.text());
        }
        assert_eq!(origin.connections().len(), 3, "{what}");
    }
}

#[test]
fn an_answer_that_nobody_asked_for_is_never_given_to_the_next() {
    // The origin says more while its connection is idle, after the answer was taken.
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL";
    let origin = Origin::always(Script::ok("fine").then(Act::Delay(ms(20))).send(evil));
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .workers(1)
        .start();
    let fine = "HTTP/1.1 200 Scripted\r\nContent-Length: 4\r\n\r\nfine";
    let each = (fine.len() + evil.len()) as u64;
    for i in 0..5 {
        assert_eq!(
            server.client().get(&format!("/{i}")).expect(200).text(),
            "fine"
        );
        wait::until("the other answer to be sent", || {
            origin.bytes_sent() >= (i + 1) * each
        });
    }
}

#[test]
fn white_space_that_a_response_may_not_have_is_not_passed_on() {
    // RFC 9112 sections 5.1 and 5.2: a proxy removes it, or refuses the response.
    for fields in ["X : y\r\n", "X: a\r\n b\r\n"] {
        let script = Script::raw(format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"
        ));
        let origin = Origin::always(script);
        let response = plain(&origin).client().get("/");
        assert!(matches!(response.status(), 200 | 502), "{fields:?}");
        if response.status() == 200 {
            assert!(
                matches!(response.field("x"), Some("y" | "a b")),
                "{fields:?}"
            );
        }
    }
}

#[test]
fn an_early_answer_ends_the_connection_that_was_not_read() {
    let origin = Origin::setup()
        .route("/early", Script::status(200, "early").early())
        .start();
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .workers(1)
        .start();
    let mut conn = server.client().connect();
    conn.raw("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    assert_eq!(conn.read_response().expect(200).text(), "early");
    drop(conn);
    assert_eq!(server.client().get("/next").expect(200).text(), "GET /next");
    let next = origin.requests().pop().expect("a request");
    assert_eq!(
        (next.target.as_str(), next.nth),
        ("/next", 0),
        "on a connection of its own"
    );
}

#[test]
fn what_an_origin_does_wrong_gets_502() {
    let many = "X: y\r\n".repeat(101);
    let long = format!("X: {}\r\n", "y".repeat(2 << 20));
    for (what, script) in [
        ("closes", Script::new().close()),
        ("resets", Script::new().then(Act::Reset)),
        ("garbage", Script::raw("garbage\r\n\r\n").close()),
        ("a binary", Script::raw(b"\x16\x03\x01\x02\x00\x01").close()),
        ("HTTP/2", Script::raw("HTTP/2 200 OK\r\n\r\n").close()),
        (
            "half a head",
            Script::raw("HTTP/1.1 200 OK\r\nX: y").close(),
        ),
        ("no status", Script::raw("HTTP/1.1 OK\r\n\r\n").close()),
        (
            "a status of 99",
            Script::raw("HTTP/1.1 099 X\r\n\r\n").close(),
        ),
        (
            "a status of 1000",
            Script::raw("HTTP/1.1 1000 X\r\n\r\n").close(),
        ),
        (
            "two lengths",
            with("Content-Length: 2\r\nContent-Length: 3\r\n"),
        ),
        (
            "length and chunks",
            with("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
        ),
        ("a length with a sign", with("Content-Length: +2\r\n")),
        ("another coding", with("Transfer-Encoding: gzip\r\n")),
        ("NUL", with("X: a\0b\r\n")),
        ("a bare CR", with("X: a\rb\r\n")),
        ("too many fields", with(&many)),
        ("too big a head", with(&long)),
        (
            "a 101 that nobody asked for",
            Script::raw("HTTP/1.1 101 Switching\r\n\r\n").close(),
        ),
    ] {
        let origin = Origin::always(script);
        let server = plain(&origin);
        let mut conn = server.client().connect();
        let response = conn.get("/");
        assert_eq!(response.status(), 502, "{what}");
        // The client's own connection is none the worse for it.
        assert!(!response.says_close(), "{what}");
        assert_eq!(conn.get("/").status(), 502, "{what}");
    }
}

fn with(fields: &str) -> Script {
    Script::raw(format!("HTTP/1.1 200 OK\r\n{fields}\r\nok")).close()
}

#[test]
fn a_body_cut_short_is_visibly_cut_short() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    for (what, script) in [
        ("length", Script::raw(length).close()),
        ("length, reset", Script::raw(length).then(Act::Reset)),
        ("chunked", Script::raw(chunked).close()),
        (
            "within a chunk",
            Script::raw(format!("{chunked}5\r\nab")).close(),
        ),
        (
            "a bad chunk",
            Script::raw(format!("{chunked}zz\r\nab")).close(),
        ),
        (
            "before the last line",
            Script::raw(format!("{chunked}0\r\n")).close(),
        ),
    ] {
        let origin = Origin::always(script);
        let server = plain(&origin);
        let mut conn = server.client().connect();
        conn.send(&Request::get("/"));
        let got = conn.try_read_response();
        let broken = matches!(got, Err(Trouble::Truncated | Trouble::Reset));
        // With nothing sent yet a 502 is as good.
        let refused = got.as_ref().is_ok_and(|r| r.status() == 502);
        assert!(broken || refused, "{what}: {got:?}");
        // HTTP/1.0 knows no other sign than a reset.
        let mut conn = server.client().connect();
        conn.send(&Request::get("/").http10());
        let got = conn.try_read_response();
        let refused = got.as_ref().is_ok_and(|r| r.status() == 502);
        assert!(refused || got.is_err(), "{what}, HTTP/1.0: {got:?}");
    }
}

#[test]
fn an_origin_that_is_down_is_found_again() {
    let port = Arc::new(Reserved::new());
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .set("origin", port.addr().to_string())
        .start();
    for _ in 0..10 {
        let _ = server.client().get("/").expect(502);
    }
    let origin = Origin::setup().start_on(Arc::clone(&port));
    wait::until("the origin to be asked again", || {
        server.client().get("/").status() == 200
    });
    let _ = server.client().get("/").expect(200);
    drop(origin);
    wait::until("the origin to be missed", || {
        server.client().get("/").status() == 502
    });
    let _origin = Origin::setup().start_on(port);
    wait::until("the origin to be back", || {
        server.client().get("/").status() == 200
    });
}

#[test]
fn timeouts_get_504() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart";
    let origin = Origin::setup()
        .route("/first", Script::new().then(Act::Stall))
        .route("/between", Script::raw(head).then(Act::Stall))
        .route(
            "/trickle",
            Script::new().then(Act::Trickle(vec![b'x'; 10_000], 1, ms(20))),
        )
        .start();
    let server = Server::before(
        &origin,
        r#"route "/first" { proxy "@origin@" { first_byte_timeout = "200ms" } },
           route "/between" { proxy "@origin@" { read_timeout = "200ms" } },
           route "/trickle" { proxy "@origin@" { total_timeout = "300ms" } }"#,
    );
    let _ = server.client().get("/first").expect(504);
    assert_eq!(
        origin.wait_end(0),
        Some(Trouble::Closed),
        "the origin is told"
    );
    let mut conn = server.client().connect();
    conn.send(&Request::get("/between"));
    let end = conn.try_read_response().expect_err("a whole body");
    assert!(
        matches!(end, Trouble::Truncated | Trouble::Reset),
        "{end:?}"
    );
    let response = server.client().get("/trickle");
    assert!(
        matches!(response.status(), 502 | 504),
        "{}",
        response.status()
    );
}

#[test]
fn a_peer_that_does_not_accept_is_given_up_in_time() {
    // A listener whose queue is full: the kernel answers no more handshakes.
    let full = FullListener::new();
    let server = Server::builder(
        r#"site { "*", proxy "@full@" { connect_timeout = "200ms", retries = 0 } }"#,
    )
    .set("full", full.addr.to_string())
    .start();
    let begun = Instant::now();
    let _ = server.client().get("/").expect(504);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

/// A listener with a queue of no length, and connections that fill it.
struct FullListener {
    addr: std::net::SocketAddr,
    _listener: socket2::Socket,
    _held: Vec<socket2::Socket>,
}

impl FullListener {
    fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener
            .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .expect("a port");
        listener.listen(0).expect("listen");
        let addr = listener.local_addr().expect("an address");
        let held = (0..8)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                // Those beyond the queue's length wait for an answer that does not come.
                let _ = socket.connect_timeout(&addr, ms(50));
                socket
            })
            .collect();
        let addr = addr.as_socket().expect("an address");
        Self {
            addr,
            _listener: listener,
            _held: held,
        }
    }
}

#[test]
fn requests_one_after_another_spread_over_all_peers() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::echo()).collect();
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@a@", "@b@", "@c@" } site { "*", proxy(pool) }"#,
    )
    .origin("a", &origins[0])
    .origin("b", &origins[1])
    .origin("c", &origins[2])
    .workers(1)
    .start();
    let mut conn = server.client().connect();
    for _ in 0..60 {
        let _ = conn.get("/").expect(200);
    }
    for origin in &origins {
        let count = origin.requests().len();
        assert!((5..=40).contains(&count), "{count} of 60");
    }
}

#[test]
fn a_stale_idle_connection_is_no_fault_for_a_get() {
    let origin = Origin::echo();
    let server = Server::builder(r#"site { "*", proxy "@origin@" { retries = 1 } }"#)
        .origin("origin", &origin)
        .workers(1)
        .start();
    for i in 0..20 {
        let _ = server.client().get(&format!("/{i}")).expect(200);
        origin.close_all();
    }
}

#[test]
fn a_get_is_tried_again_and_a_post_is_not() {
    // The origin takes a first request on each connection and resets at the second.
    let origin = Origin::setup()
        .handle(|request| match request.nth {
            0 => Script::ok("first"),
            _ => Script::new().then(Act::Reset),
        })
        .start();
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .workers(1)
        .start();
    let _ = server.client().get("/warm").expect(200);
    let _ = server.client().get("/get").expect(200);
    let count = |origin: &Origin, target: &str| {
        origin
            .requests()
            .iter()
            .filter(|r| r.target == target)
            .count()
    };
    assert_eq!(count(&origin, "/get"), 2);
    let _ = server
        .client()
        .request(&Request::post("/post", "x"))
        .expect(502);
    assert_eq!(count(&origin, "/post"), 1, "a POST may have done its work");
}

#[test]
fn retries_are_on_another_peer_and_counted() {
    let bad = Origin::always(Script::new().close());
    let bad2 = Origin::always(Script::new().close());
    let good = Origin::echo();
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@bad@", "@good@", balance = "round_robin", eject = false }
           local sick = upstream "sick" { "@bad@", "@bad2@", "@bad3@", balance = "round_robin", eject = false }
           site { "*",
             route "/pool" { proxy(pool) { retries = 1, retry_budget = "100%" } },
             route "/never" { proxy(pool) { retries = 0 } },
             route "/sick" { proxy(sick) { retries = 1, retry_budget = "100%" } } }"#,
    )
    .origin("bad", &bad)
    .origin("bad2", &bad2)
    .origin("good", &good)
    .free_address("bad3")
    .workers(1)
    .start();
    for _ in 0..10 {
        let _ = server.client().get("/pool").expect(200);
    }
    assert!(!bad.requests().is_empty());
    let statuses: Vec<u16> = (0..10)
        .map(|_| server.client().get("/never").status())
        .collect();
    assert!(
        statuses.contains(&200) && statuses.contains(&502),
        "{statuses:?}"
    );
    assert_eq!(server.client().get("/sick").status(), 502);
}

#[test]
fn retry_on_a_status() {
    let bad = Origin::always(Script::status(503, "busy"));
    let good = Origin::echo();
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@bad@", "@good@", balance = "round_robin", eject = false }
           site { "*", proxy(pool) { retry_on = { 503 }, retry_budget = "100%" } }"#,
    )
    .origin("bad", &bad)
    .origin("good", &good)
    .workers(1)
    .start();
    for _ in 0..6 {
        let _ = server.client().get("/").expect(200);
    }
    assert!(!bad.requests().is_empty());
}

#[test]
fn a_retry_budget_keeps_a_sick_pool_from_being_asked_twice_as_much() {
    let bad = Origin::always(Script::new().close());
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@bad@", "@bad2@", eject = false }
           site { "*", proxy(pool) { retries = 5, retry_budget = "10%" } }"#,
    )
    .origin("bad", &bad)
    .origin("bad2", &bad)
    .workers(1)
    .start();
    let mut conn = server.client().connect();
    for _ in 0..200 {
        let _ = conn.get("/").expect(502);
    }
    let asked = bad.requests().len();
    assert!((200..300).contains(&asked), "{asked} requests for 200");
}

#[test]
fn peers_take_turns() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::echo()).collect();
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@a@", { "@b@", weight = 2 }, "@c@", balance = "round_robin" }
           site { "*", proxy(pool) }"#,
    )
    .origin("a", &origins[0])
    .origin("b", &origins[1])
    .origin("c", &origins[2])
    .workers(1)
    .start();
    let mut conn = server.client().connect();
    for _ in 0..40 {
        let _ = conn.get("/").expect(200);
    }
    let counts: Vec<usize> = origins.iter().map(|o| o.requests().len()).collect();
    assert_eq!(counts, [10, 20, 10]);
}

#[test]
fn the_least_busy_peer_is_asked() {
    let gate = Gate::new();
    let slow = Origin::always(Script::ok("slow").when(&gate));
    let quick = Origin::echo();
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@slow@", "@quick@" } site { "*", proxy(pool) }"#,
    )
    .origin("slow", &slow)
    .origin("quick", &quick)
    .workers(1)
    .start();
    // One request hangs at the slow peer; from then on the quick one has the fewest.
    let mut held = Vec::new();
    while slow.requests().is_empty() {
        let mut conn = server.client().connect();
        conn.send(&Request::get("/hold"));
        let sent = held.len() + 1;
        held.push(conn);
        wait::until("the request to arrive", || {
            slow.requests().len() + quick.requests().len() >= sent
        });
    }
    for _ in 0..20 {
        assert_eq!(server.client().get("/x").expect(200).text(), "GET /x");
    }
    assert_eq!(slow.requests().len(), 1);
    gate.open();
}

#[test]
fn a_backup_is_asked_only_when_the_others_are_down() {
    let port = Arc::new(Reserved::new());
    let main = Origin::setup().start_on(Arc::clone(&port));
    let backup = Origin::always(Script::ok("backup"));
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@main@", { "@backup@", backup = true } }
           site { "*", proxy(pool) { retry_budget = "100%" } }"#,
    )
    .set("main", port.addr().to_string())
    .origin("backup", &backup)
    .start();
    for _ in 0..20 {
        assert_eq!(server.client().get("/").expect(200).text(), "GET /");
    }
    assert_eq!(backup.connections().len(), 0);
    drop(main);
    wait::until("the backup", || server.client().get("/").text() == "backup");
    for _ in 0..5 {
        assert_eq!(server.client().get("/").expect(200).text(), "backup");
    }
}

#[test]
fn a_full_pool_queues_and_then_says_so() {
    let gate = Gate::new();
    let origin = Origin::always(Script::ok("done").when(&gate));
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@origin@", max_connections = 2, queue = 2, queue_timeout = "10s" }
           site { "*", proxy(pool) }"#,
    )
    .origin("origin", &origin)
    .start();
    let mut held: Vec<_> = (0..6)
        .map(|_| {
            let mut conn = server.client().connect();
            conn.send(&Request::get("/"));
            conn.wait_until_read();
            conn
        })
        .collect();
    let _ = origin.wait_requests(2);
    // Two are at the origin, two wait; of the rest each is told at once.
    let mut refused = 0;
    for conn in &mut held {
        conn.set_read_timeout(ms(500));
        if let Ok(response) = conn.try_peek_response() {
            assert_eq!(response.status(), 503);
            assert!(response.field("retry-after").is_some());
            refused += 1;
        }
    }
    assert_eq!(refused, 2);
    assert_eq!(origin.requests().len(), 2, "over all workers");
    gate.open();
    origin.wait_for("those that waited", |requests, _| requests.len() == 4);
}

#[test]
fn waiting_for_a_full_pool_has_an_end() {
    let gate = Gate::new();
    let origin = Origin::always(Script::ok("done").when(&gate));
    let server = Server::builder(
        r#"local pool = upstream "pool" { { "@origin@", max_connections = 1 }, queue_timeout = "200ms" }
           site { "*", proxy(pool) }"#,
    )
    .origin("origin", &origin)
    .start();
    let mut first = server.client().connect();
    first.send(&Request::get("/"));
    let _ = origin.wait_requests(1);
    let second = server.client().get("/").expect(503);
    assert!(second.field("retry-after").is_some());
    gate.open();
    let _ = first.read_response().expect(200);
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let gate = Gate::new();
    let origin = Origin::setup()
        .route("/hold", Script::ok("x").when(&gate))
        .start();
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@origin@", max_connections = 1 } site { "*", proxy(pool) }"#,
    )
    .origin("origin", &origin)
    .start();
    let mut leaver = server.client().connect();
    leaver.send(&Request::get("/hold"));
    let _ = origin.wait_requests(1);
    leaver.abort();
    assert_eq!(server.client().get("/next").expect(200).text(), "GET /next");
    gate.open();
}

#[test]
fn an_origin_on_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let origin = Origin::setup().start_unix(&dir.path().join("app.sock"));
    let server = plain(&origin);
    assert_eq!(server.client().get("/x").expect(200).text(), "GET /x");
    assert_eq!(origin.only_request().field("host"), Some("forebay.test"));
    drop(origin);
    wait::until("the origin to be missed", || {
        server.client().get("/").status() == 502
    });
}

#[test]
fn an_origin_by_name() {
    let origin = Origin::echo();
    let server = Server::builder(r#"site { "*", proxy "localhost:@port@" }"#)
        .set("port", origin.port().to_string())
        .start();
    // localhost may also be ::1, where nobody listens: all addresses are tried.
    wait::until("the name to be resolved", || {
        server.client().get("/x").status() == 200
    });
    for _ in 0..10 {
        let _ = server.client().get("/x").expect(200);
    }
}

#[test]
fn an_origin_whose_name_does_not_resolve() {
    let server = Server::start(
        r#"site { "*", route "/a" { proxy "no-such-name.invalid:80" }, respond(200) }"#,
    );
    let _ = server.client().get("/a").expect(502);
    let _ = server.client().get("/b").expect(200);
}

#[test]
fn a_proxy_header_is_sent() {
    let origin = Origin::setup().expect_proxy_header().start();
    let server = Server::builder(
        r#"local one = upstream "one" { "@origin@", send_proxy = "v1" }
           local two = upstream "two" { "@origin@", send_proxy = "v2" }
           site { "*", route "/1" { proxy(one) }, route "/2" { proxy(two) } }"#,
    )
    .origin("origin", &origin)
    .workers(1)
    .start();
    let mut conn = server.client().from("127.0.0.5").connect();
    let port = conn.local_port().expect("TCP");
    let _ = conn.get("/1").expect(200);
    let _ = conn.get("/2").expect(200);
    let headers: Vec<Vec<u8>> = origin
        .connections()
        .iter()
        .map(|c| c.proxy_header.clone())
        .collect();
    let local = server.addr().port();
    assert_eq!(
        String::from_utf8_lossy(&headers[0]),
        format!("PROXY TCP4 127.0.0.5 127.0.0.1 {port} {local}\r\n")
    );
    let two = &headers[1];
    assert_eq!(
        two[12..16],
        [0x21, 0x11, 0, 12],
        "version 2, PROXY, TCP over IPv4, 12 bytes"
    );
    assert_eq!(two[16..24], [127, 0, 0, 5, 127, 0, 0, 1]);
    assert_eq!(two[24..26], port.to_be_bytes());
    assert_eq!(two[26..28], local.to_be_bytes());
    // Such a connection speaks for one client: another one gets another connection.
    let _ = server.client().from("127.0.0.6").get("/1").expect(200);
    let last = origin.connections().pop().expect("a connection");
    assert!(String::from_utf8_lossy(&last.proxy_header).contains("127.0.0.6"));
}

/// Three origins that say their own number, and a server before them.
fn three(options: &str, slow: Option<usize>) -> (Vec<Origin>, Server) {
    let origins: Vec<_> = (0..3)
        .map(|number| {
            let script = Script::ok(number.to_string());
            Origin::always(if slow == Some(number) {
                script.after(ms(300))
            } else {
                script
            })
        })
        .collect();
    let config = format!(
        r#"local pool = upstream "pool" {{ "@a@", "@b@", "@c@", {options} }}
           site {{ "*", proxy(pool) }}"#
    );
    let server = Server::builder(&config)
        .origin("a", &origins[0])
        .origin("b", &origins[1])
        .origin("c", &origins[2])
        .start();
    (origins, server)
}

#[test]
fn a_hash_leads_a_key_to_its_peer() {
    let (origins, server) = three(r#"balance = "hash", by = "$headers.x_key""#, None);
    let who = |key: usize| {
        let request = Request::get("/").field("X-Key", &key.to_string());
        server
            .client()
            .request(&request)
            .expect(200)
            .text()
            .to_owned()
    };
    let first: Vec<_> = (0..60).map(who).collect();
    let again: Vec<_> = (0..60).map(who).collect();
    assert_eq!(first, again);
    for origin in &origins {
        assert!(!origin.requests().is_empty(), "each has keys");
    }
    // Without `by` it is the client's address: always the same.
    let (origins, server) = three(r#"balance = "hash""#, None);
    (0..20).for_each(|_| _ = server.client().get("/").expect(200));
    let used = origins
        .iter()
        .filter(|origin| !origin.requests().is_empty());
    assert_eq!(used.count(), 1);
}

#[test]
fn first_and_random_and_what_has_no_meaning() {
    let (origins, server) = three(r#"balance = "first""#, None);
    (0..20).for_each(|_| _ = server.client().get("/").expect(200));
    let counts: Vec<_> = origins
        .iter()
        .map(|origin| origin.requests().len())
        .collect();
    assert_eq!(counts, [20, 0, 0]);
    let (origins, server) = three(r#"balance = "random""#, None);
    (0..90).for_each(|_| _ = server.client().get("/").expect(200));
    assert!(origins.iter().all(|origin| origin.requests().len() > 5));
    server.write_config(r#"site { "*", proxy(upstream "x" { "127.0.0.1:1", by = "$host" }) }"#);
    let said = server.reload();
    assert!((said.stdout + &said.stderr).contains("`by` has no meaning"));
}

#[test]
fn p2c_ewma_leaves_the_one_that_answers_late() {
    let (origins, server) = three(r#"balance = "p2c_ewma""#, Some(1));
    (0..150).for_each(|_| _ = server.client().get("/").expect(200));
    let counts: Vec<_> = origins
        .iter()
        .map(|origin| origin.requests().len())
        .collect();
    // Once it is known to be late, it is chosen only where both draws lead to it. (On a busy machine
    // one of the others may have been late once, too.)
    assert!(counts[1] < 15 && counts[0].min(counts[2]) > 0, "{counts:?}");
}
