//! Active health checks: who is asked, what counts, and what becomes of a peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_tests::port::Reserved;
use forebay_tests::{Origin, Script, Server, wait};

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
    // With nobody left there is nobody to ask.
    well.store(false, Ordering::Relaxed);
    sick.store(false, Ordering::Relaxed);
    wait::until("nobody", || server.client().get("/").status() == 503);
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
