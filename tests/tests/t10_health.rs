//! Active health checks: who is asked, what counts, and what becomes of a peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_tests::certs::Authority;
use forebay_tests::origin::script::Act;
use forebay_tests::peers::Nginx;
use forebay_tests::port::Reserved;
use forebay_tests::{Origin, Request, Script, Server, proc, wait};

/// An origin whose `/up` says what the switch says; everything else is answered with its name.
fn origin(name: &'static str, well: &Arc<AtomicBool>, body: &'static str) -> Origin {
    let well = well.clone();
    Origin::setup()
        .handle(move |request| match request.target.as_str() {
            "/up" if well.load(Ordering::Relaxed) => Script::ok(body),
            "/up" => Script::with_fields(503, "", "not now"),
            _ => Script::ok(name),
        })
        .start()
}

fn switch(on: bool) -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(on))
}

fn server(a: &Origin, b: &Origin, health: &str) -> Server {
    let config = format!(
        r#"local pool = upstream "pool" {{ "@a@", "@b@", balance = "round_robin",
             health = {{ every = "20ms", timeout = "1s", up = 2, down = 2, {health} }} }}
           site {{ "*", proxy(pool) }}"#
    );
    Server::builder(&config)
        .origin("a", a)
        .origin("b", b)
        .start()
}

/// Who answers ten requests.
fn who(server: &Server) -> String {
    let mut who: Vec<_> = (0..10)
        .map(|_| server.client().get("/").expect(200).text().to_owned())
        .collect();
    who.sort();
    who.dedup();
    who.join(" ")
}

#[test]
fn a_peer_whose_checks_fail_is_left_alone_until_they_pass() {
    let (well, sick) = (switch(true), switch(true));
    let (a, b) = (origin("a", &well, "ok"), origin("b", &sick, "ok"));
    let server = server(&a, &b, r#"path = "/up""#);
    assert_eq!(who(&server), "a b");
    sick.store(false, Ordering::Relaxed);
    wait::until("the other one alone", || who(&server) == "a");
    let status = server.command("status").expect(0).stdout;
    assert!(status.contains("down"), "{status}");
    server.wait_stderr("the peer is down");
    assert!(server.stderr().contains("it answers with status 503"));
    // The checks go on over a reload that changes nothing of the pool, and so does what they say.
    assert_eq!(server.reload().code, Some(0));
    assert_eq!(who(&server), "a");
    sick.store(true, Ordering::Relaxed);
    wait::until("both", || who(&server) == "a b");
    server.wait_stderr("the peer is up");
    // With nobody left that is well, those that are there are better than nobody.
    well.store(false, Ordering::Relaxed);
    sick.store(false, Ordering::Relaxed);
    wait::until("none that is well", || {
        let status = server.command("status").expect(0).stdout;
        status.matches(" down ").count() == 2
    });
    assert_eq!(who(&server), "a b");
}

#[test]
fn a_peer_that_fails_is_left_alone_for_a_while_and_that_is_logged() {
    let good = Origin::always(Script::ok("good"));
    let bad = Origin::always(Script::new().then(Act::Reset));
    let config = r#"local pool = upstream "pool" { "@bad@", "@good@", balance = "round_robin",
             eject = { errors = 3, time = "1h" } }
           site { "*", proxy(pool) { retry_budget = "100%" } }"#;
    let server = Server::builder(config)
        .origin("bad", &bad)
        .origin("good", &good)
        .start();
    // Nobody sees the failures but the log.
    for _ in 0..20 {
        assert_eq!(server.client().get("/").expect(200).text(), "good");
    }
    assert_eq!(bad.connections().len(), 3);
    server.wait_stderr("the peer is ejected");
    let log = server.stderr();
    let line = log.lines().find(|line| line.contains("ejected"));
    let line = line.unwrap_or_default();
    for part in [&*bad.target(), "pool", "3600s", "broke off"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let status = server.command("status").expect(0).stdout;
    assert_eq!(status.matches(" ejected ").count(), 1, "{status}");
}

#[test]
fn without_descriptors_no_peer_is_to_blame() {
    let on = switch(true);
    let (a, b) = (origin("a", &on, "ok"), origin("b", &on, "ok"));
    let config = r#"local pool = upstream "pool" { "@a@", "@b@", balance = "round_robin",
             idle_connections = 0, eject = { errors = 2, time = "1h" },
             health = { path = "/up", every = "20ms", up = 1, down = 1 } }
           site { "*", proxy(pool) { retry_budget = "100%" } }"#;
    let server = Server::builder(config)
        .origin("a", &a)
        .origin("b", &b)
        .start();
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let _ = conn.read_response().expect(200);
    let limit = proc::limit_descriptors(server.pid(), 3);
    server.wait_stderr("peers cannot be checked");
    for _ in 0..8 {
        conn.send(&Request::get("/"));
        let refused = conn.read_response().expect(503);
        assert_eq!(refused.field("retry-after"), Some("1"));
    }
    proc::limit_descriptors(server.pid(), limit);
    assert_eq!(who(&server), "a b");
    let log = server.stderr();
    assert!(!log.contains("down") && !log.contains("ejected"), "{log}");
}

#[test]
fn the_request_is_as_it_was_configured() {
    let on = switch(true);
    let (a, b) = (origin("a", &on, "ok"), origin("b", &on, "ok"));
    let _server = server(&a, &b, r#"path = "/up", host = "app.test""#);
    a.wait_for("a check", |requests, _| !requests.is_empty());
    let check = &a.requests()[0];
    assert_eq!(
        (check.method.as_str(), check.target.as_str()),
        ("GET", "/up")
    );
    assert_eq!(check.field("host"), Some("app.test"));
    assert_eq!(check.field("connection"), Some("close"));
}

#[test]
fn the_body_and_the_status_count() {
    let on = switch(true);
    let (a, b) = (
        origin("a", &on, "all is well"),
        origin("b", &on, "not well"),
    );
    let server = server(&a, &b, r#"path = "/up", body = "all*""#);
    wait::until("the one with the right body", || who(&server) == "a");
    let (a, b) = (origin("a", &on, ""), origin("b", &switch(false), ""));
    let server = self::server(&a, &b, r#"path = "/up", status = { 503, 404 }"#);
    wait::until("the one with the right status", || who(&server) == "b");
}

#[test]
fn a_connection_is_enough_where_no_more_is_asked() {
    let on = switch(true);
    let a = origin("a", &on, "");
    let dead = Arc::new(Reserved::new());
    let config = r#"local pool = upstream "pool" { "@a@", "@dead@", eject = false,
             balance = "round_robin", health = { kind = "tcp", every = "20ms", down = 1 } }
           site { "*", proxy(pool) { retries = 0 } }"#;
    let server = Server::builder(config)
        .origin("a", &a)
        .set("dead", dead.addr().to_string())
        .start();
    server.wait_stderr("the peer is down");
    assert_eq!(who(&server), "a");
    assert!(a.requests().iter().all(|request| request.target == "/"));
    // It comes up.
    let _b = Origin::setup()
        .handle(|_| Script::ok("b"))
        .start_on(dead.clone());
    wait::until("both", || who(&server) == "a b");
}

#[test]
fn a_handshake_is_enough_if_the_peer_proves_who_it_is() {
    let authority = Authority::new();
    let peer = |names: &str, body: &str| {
        let certificate = authority.issue(names);
        let (cert, key) = (certificate.cert_pem(), certificate.key_pem());
        let config = format!(
            "ssl_certificate @dir@/cert; ssl_certificate_key @dir@/key; \
             location / {{ return 200 {body}; }}"
        );
        Nginx::start_tls(&config, &[("cert", &cert), ("key", &key)])
    };
    let (right, other) = (peer("DNS:app.test", "a"), peer("DNS:other.test", "b"));
    let no_tls = Script::raw("HTTP/1.1 400 Bad Request\r\n\r\n").close();
    let clear = Origin::setup().on_accept(no_tls).start();
    let config = r#"local pool = upstream "pool" { "https://@other@", "https://@clear@",
             "https://@right@", tls_ca = "@ca@", eject = false, balance = "round_robin",
             health = { kind = "tls", host = "app.test", every = "20ms", down = 1 } }
           site { "*", proxy(pool) { retries = 0 } }"#;
    let server = Server::builder(config)
        .set("right", right.target())
        .set("other", other.target())
        .origin("clear", &clear)
        .set("ca", authority.cert().display().to_string())
        .start();
    let down = |target: &str| {
        let status = server.command("status").expect(0).stdout;
        let peer = format!("https://{target}");
        status
            .lines()
            .any(|line| line.contains(&peer) && line.contains(" down "))
    };
    wait::until("two that are down", || {
        down(&other.target()) && down(&clear.target())
    });
    assert!(!down(&right.target()));
    // None of the others is asked, however few are left: nobody is there who could be spoken to.
    let ask = Request::get("/").host("app.test");
    for _ in 0..10 {
        assert_eq!(server.client().request(&ask).expect(200).text(), "a");
    }
    assert!(
        clear.requests().is_empty(),
        "no request is sent for a handshake"
    );
}

#[test]
fn when_too_few_are_well_all_have_to_help_but_the_dead() {
    let (on, off) = (switch(true), switch(false));
    let (a, b) = (origin("a", &on, ""), origin("b", &off, ""));
    let (c, dead) = (origin("c", &off, ""), Arc::new(Reserved::new()));
    let config = r#"local pool = upstream "pool" { "@a@", "@b@", "@c@", "@dead@",
             balance = "round_robin", eject = false,
             health = { path = "/up", every = "20ms", up = 1, down = 1 } }
           site { "*", proxy(pool) { retries = 0 } }"#;
    let server = Server::builder(config)
        .origin("a", &a)
        .origin("b", &b)
        .origin("c", &c)
        .set("dead", dead.addr().to_string())
        .start();
    let down = || {
        let status = server.command("status").expect(0).stdout;
        status.matches(" down ").count()
    };
    wait::until("three that are down", || down() == 3);
    // Nobody is there at the fourth: with one try each, a request to it would fail.
    (0..10).for_each(|_| assert_eq!(who(&server), "a b c"));
    // With half of them well, they do it alone.
    off.store(true, Ordering::Relaxed);
    wait::until("one that is down", || down() == 1);
    on.store(false, Ordering::Relaxed);
    wait::until("two that are down", || down() == 2);
    assert_eq!(who(&server), "b c");
}

#[test]
fn a_pool_that_is_gone_is_checked_no_more() {
    let on = switch(true);
    let (a, b) = (origin("a", &on, ""), origin("b", &on, ""));
    let server = server(&a, &b, r#"path = "/up""#);
    a.wait_for("a check", |requests, _| !requests.is_empty());
    server.reload_with(r#"site { "*", respond(200, "none") }"#);
    // A check that was under way may still come; then none does, while much else is done.
    wait::until("an end of the checks", || {
        let before = a.requests().len();
        (0..300).for_each(|_| _ = server.client().get("/").expect(200));
        a.requests().len() == before
    });
}

#[test]
fn what_is_wrong_is_said() {
    let on = switch(true);
    let (a, b) = (origin("a", &on, ""), origin("b", &on, ""));
    let server = server(&a, &b, r#"path = "/up""#);
    for (health, expected) in [
        ("{}", "`health` has no `path`"),
        (r#"{ path = "up" }"#, "a `path` that cannot be asked for"),
        (r#"{ path = "/a b" }"#, "a `path` that cannot be asked for"),
        (
            r#"{ kind = "tcp", path = "/" }"#,
            "with kind = \"tcp\" has no `path`",
        ),
        (
            r#"{ kind = "tls" }"#,
            "with kind = \"tls\" has a peer that is not spoken to over TLS",
        ),
        (
            r#"{ kind = "tls", path = "/" }"#,
            "with kind = \"tls\" has no `path`",
        ),
        (
            r#"{ kind = "tcp", status = 204 }"#,
            "with kind = \"tcp\" has no `status`",
        ),
        (r#"{ path = "/", host = "a b" }"#, "a `host` that is none"),
        (
            r#"{ path = "/", kind = "smtp" }"#,
            "`health.kind` cannot be \"smtp\"",
        ),
        (r#"{ path = "/", evry = "1s" }"#, "`evry`"),
    ] {
        server.write_config(&format!(
            r#"site {{ "*", proxy(upstream "x" {{ "127.0.0.1:1", health = {health} }}) }}"#
        ));
        let said = server.reload();
        let said = said.stdout + &said.stderr;
        assert!(said.contains(expected), "{health}: {said}");
    }
}
