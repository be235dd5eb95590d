//! `balance = "score"` of an upstream: what peers report of their load, by a field and by UDP.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use forebay_tests::php::PhpFpm;
use forebay_tests::port::Reserved;
use forebay_tests::{Origin, Script, Server, wait};

/// Longer than a report counts, and than a score takes to follow.
const LONG: Duration = Duration::from_secs(20);

/// The scores that the server has of the peers of a pool.
fn scores(server: &Server, pool: &str) -> Vec<Option<f64>> {
    let status = server.admin().get("/status").expect(200);
    let status: serde_json::Value = serde_json::from_str(status.text()).expect("JSON");
    let upstreams = status["upstreams"].as_array().expect("upstreams");
    let found = upstreams.iter().find(|one| one["name"] == pool);
    let peers = found.expect("the pool")["peers"].as_array().expect("peers");
    peers.iter().map(|peer| peer["score"].as_f64()).collect()
}

/// An origin that says by `X-Load` how busy it is, and who it is.
fn loaded(name: &'static str, cpu: u32) -> (Arc<AtomicU32>, Origin) {
    let load = Arc::new(AtomicU32::new(cpu));
    let said = load.clone();
    let origin = Origin::setup().handle(move |_| {
        let fields = format!("X-Load: cpu={}, memory=10\r\n", said.load(Relaxed));
        Script::with_fields(200, &fields, name)
    });
    (load, origin.start())
}

/// How many of so many requests, one after the other, come to the first peer.
fn share(server: &Server, count: usize) -> usize {
    let mut conn = server.client().connect();
    let is_first = |_: &usize| conn.get("/").expect(200).text() == "a";
    (0..count).filter(is_first).count()
}

fn by_field(workers: usize) {
    let (of_a, a) = loaded("a", 90);
    let (of_b, b) = loaded("b", 10);
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@a@", "@b@", balance = "score", report = "X-Load" }
           site { "*", proxy(pool) }"#,
    )
    .origin("a", &a)
    .origin("b", &b)
    .workers(workers)
    .start();
    let first = server.client().get("/").expect(200);
    assert_eq!(first.field("x-load"), None);
    wait::until("both have reported", || {
        let _ = share(&server, 2);
        scores(&server, "pool").iter().all(Option::is_some)
    });
    let known = scores(&server, "pool");
    assert!(known[0] > Some(40.0) && known[1] < Some(10.0), "{known:?}");
    assert!(share(&server, 40) < 4);
    let shown = server.command("upstream pool").expect(0).stdout;
    assert!(shown.contains("score"), "{shown}");
    // The other way round.
    of_a.store(5, Relaxed);
    of_b.store(100, Relaxed);
    wait::until_within(LONG, "the load is known", || share(&server, 40) > 36);
}

#[test]
fn a_field_of_responses_says_who_is_busy() {
    by_field(1);
}

#[test]
fn a_field_of_responses_says_so_to_all_workers() {
    by_field(2);
}

#[test]
fn a_field_that_is_no_report_is_told_and_taken_out_all_the_same() {
    let origin = Origin::always(Script::with_fields(
        200,
        "X-Load: cpu=a lot\r\nX-LOAD: cpu=1\r\nX-Other: cpu=1\r\n",
        "hello",
    ));
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@origin@", balance = "score", report = "x-load" }
           site { "*", proxy(pool) }"#,
    )
    .origin("origin", &origin)
    .start();
    let response = server.client().get("/").expect(200);
    assert_eq!(response.text(), "hello");
    assert_eq!(response.field("x-load"), None);
    assert_eq!(response.field("x-other"), Some("cpu=1"));
    server.wait_stderr("is no report of a load");
    assert!(!server.stderr().contains('\x1b'));
    assert_eq!(scores(&server, "pool"), [None]);
}

#[test]
fn an_application_of_fastcgi_reports_by_a_field_too() {
    let script = "<?php header('X-Load: cpu=50, io=50, period=60'); echo 'hello';";
    let php = PhpFpm::start(1, &[("index.php", script)]);
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@php@", balance = "score", report = "X-Load" }
           site { "*", fastcgi(pool) { root = "@root@" } }"#,
    )
    .set("php", php.target())
    .set("root", php.root())
    .start();
    let response = server.client().get("/").expect(200);
    assert_eq!((response.text(), response.field("x-load")), ("hello", None));
    assert_eq!(scores(&server, "pool"), [Some(35.0)]);
}

/// Sends reports from an address, again and again, until the server has taken them.
struct Reporter {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Reporter {
    fn new(from: &str, to: &Reserved) -> Reporter {
        let socket = UdpSocket::bind((from, 0)).expect("a socket");
        Reporter {
            socket,
            to: to.addr(),
        }
    }

    fn send(&self, report: impl AsRef<[u8]>) {
        self.socket
            .send_to(report.as_ref(), self.to)
            .expect("a datagram is sent");
    }
}

fn by_udp(workers: usize) {
    let (a, b) = (
        Origin::always(Script::ok("a")),
        Origin::always(Script::ok("b")),
    );
    let port = Reserved::new();
    let config = |options: &str| {
        format!(
            r#"local pool = upstream "pool" {{ "@a@", "@b@", balance = "score", {options} }}
               local one = upstream "one" {{ "@a@", balance = "score", report = "@udp@" }}
               site {{ "*", route "/one" {{ proxy(one) }}, proxy(pool) }}"#
        )
    };
    let server = Server::builder(&config(r#"report = "@udp@""#))
        .origin("a", &a)
        .origin("b", &b)
        .set("udp", port.addr().to_string())
        .workers(workers)
        .start();
    assert_eq!(share(&server, 40), 20);
    let here = Reporter::new("127.0.0.1", &port);
    let report =
        |cpu: u32, peer: &Origin| here.send(format!("cpu={cpu}, peer=\"{}\"", peer.target()));
    report(80, &a);
    report(20, &b);
    wait::until("both are known", || {
        scores(&server, "pool") == [Some(40.0), Some(10.0)]
    });
    assert_eq!(scores(&server, "one"), [Some(40.0)]);
    assert_eq!(share(&server, 40), 0);
    let metrics = server.admin().get("/metrics").expect(200);
    assert!(metrics.text().contains("forebay_peer_score{"));
    wait::until_within(LONG, "it follows what is reported", || {
        report(0, &a);
        report(100, &b);
        share(&server, 40) == 40
    });
    // What is too old counts for nothing.
    wait::until_within(LONG, "it is round robin again", || {
        scores(&server, "pool") == [None, None] && share(&server, 40) == 20
    });
    // Without a name, it is whoever is the only one there.
    here.send("cpu=30");
    wait::until("one is known", || scores(&server, "one") == [Some(15.0)]);
    assert_eq!(scores(&server, "pool"), [None, None]);
    // Another definition hears at the same socket.
    server.reload_with(&config(r#"report = "@udp@", queue = 5"#));
    report(60, &b);
    wait::until("it is heard", || {
        scores(&server, "pool") == [None, Some(30.0)]
    });
    // And none does no more.
    server.reload_with(r#"site { "*", proxy "@a@" }"#);
    wait::until("the port is free", || UdpSocket::bind(port.addr()).is_ok());
}

#[test]
fn datagrams_say_who_is_busy() {
    by_udp(1);
}

#[test]
fn datagrams_say_so_for_all_workers() {
    by_udp(2);
}

#[test]
fn only_peers_are_believed_and_only_for_themselves() {
    let origin = Origin::echo();
    let port = Reserved::new();
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@origin@", "127.0.0.1:1", "127.0.0.2:1", balance = "score", report = "@udp@" }
           site { "*", proxy(pool) }"#,
    )
    .origin("origin", &origin)
    .set("udp", port.addr().to_string())
    .start();
    let [here, there, stranger] =
        ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|from| Reporter::new(from, &port));
    let named = format!("cpu=50, peer=\"{}\"", origin.target());
    // One line a second is logged: each is sent until it is there.
    let refused = |reporter: &Reporter, report: &[u8], why: &str| {
        wait::until(why, || {
            reporter.send(report);
            server.stderr().contains(why)
        });
        assert_eq!(scores(&server, "pool"), [None, None, None], "{why}");
    };
    refused(
        &stranger,
        named.as_bytes(),
        "no peer is at the address that it came from",
    );
    refused(
        &there,
        named.as_bytes(),
        "no peer at that address is named so",
    );
    refused(
        &here,
        b"cpu=50",
        "several peers are at that address, and it names none",
    );
    refused(&here, b"\x1b[2Jcpu=50", "is not taken: it is none");
    refused(&here, &[b'x'; 2_000], "xxxxxxxxxx");
    assert!(!server.stderr().contains('\x1b'));
    there.send("cpu=50");
    wait::until("the only one there is known", || {
        scores(&server, "pool") == [None, None, Some(25.0)]
    });
    here.send(&named);
    wait::until("who names itself is known", || {
        scores(&server, "pool")[0] == Some(25.0)
    });
}

#[test]
fn a_port_alone_is_open_to_both_families() {
    let port = Reserved::any();
    let number = port.addr().port();
    let server = Server::builder(&format!(
        r#"local pool = upstream "pool" {{ "127.0.0.1:1", "[::1]:1", balance = "score", report = ":{number}" }}
           site {{ "*", proxy(pool) }}"#
    ))
    .start();
    // It has come up, not only its listener.
    assert_eq!(scores(&server, "pool"), [None, None]);
    for (from, expected) in [
        ("127.0.0.1", [Some(10.0), None]),
        ("::1", [Some(10.0), Some(10.0)]),
    ] {
        let socket = UdpSocket::bind((from, 0)).expect("a socket");
        socket
            .send_to(b"cpu=20, period=60", (from, number))
            .expect("a datagram is sent");
        wait::until(from, || scores(&server, "pool") == expected);
    }
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("an address").to_string();
    let origin = Origin::echo();
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    let config = format!(
        r#"local pool = upstream "pool" {{ "@origin@", balance = "score", report = "{address}" }}
           site {{ "*", proxy(pool) }}"#
    );
    server.write_config(&config);
    let said = server.reload();
    assert!(said.code != Some(0) && said.stderr.contains("reports cannot be heard"));
    assert!(
        said.stderr.contains("nothing was changed"),
        "{}",
        said.stderr
    );
    assert_eq!(server.client().get("/x").expect(200).text(), "GET /x");
    drop(taken);
    server.reload_with(&config);
}

#[test]
fn mistakes_are_named() {
    let check = |options: &str, code: i32, expected: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        let config = format!(
            "local app = upstream \"app\" {{ \"127.0.0.1:1\", {options} }}\nsite {{ \"*\", proxy(app) }}"
        );
        std::fs::write(dir.path().join("forebay.lua"), config).expect("a file");
        let said = forebay_tests::server::run_in(dir.path(), &["check", "forebay.lua"]);
        let text = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(said.code, Some(code), "{options}: {text}");
        assert!(text.contains(expected), "{options}: {text}");
    };
    check(
        "report = \"X-Load\"",
        2,
        "`report` has no meaning for \"least_requests\"",
    );
    check("balance = \"score\"", 0, "nobody reports a load");
    let score = |report: &str| format!("balance = \"score\", report = \"{report}\"");
    check(&score("X-Load"), 0, "");
    check(&score(":9999"), 0, "");
    check(&score("Content-Length"), 2, "has a meaning of its own");
    check(&score("unix:/run/x.sock"), 2, "`report` is by UDP");
    check(&score("fd:x"), 2, "`report` is by UDP");
    check(&score("X Load"), 2, "expected");
    check(&score("127.0.0.1:70000"), 2, "expected");
}
