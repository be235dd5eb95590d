//! `sticky`: clients that come back to their peer, and `forebay upstream`, which takes peers out.

use forebay_tests::{Origin, Request, Response, Script, Server, wait};

/// Peers that answer with their names, and a server before them.
fn pool(names: &[&'static str], options: &str) -> (Vec<Origin>, Server) {
    let origins: Vec<_> = names
        .iter()
        .map(|name| Origin::always(Script::ok(*name)))
        .collect();
    let server = start(&origins, names, options);
    (origins, server)
}

fn start(origins: &[Origin], names: &[&str], options: &str) -> Server {
    let mut builder = Server::builder(&config(names, options)).server("state = \"state\"");
    for (name, origin) in names.iter().zip(origins) {
        builder = builder.origin(name, origin);
    }
    builder.start()
}

fn config(names: &[&str], options: &str) -> String {
    let peers: String = names.iter().map(|name| format!("\"@{name}@\", ")).collect();
    format!(
        "local pool = upstream \"pool\" {{ {peers} balance = \"round_robin\", {options} }}\n\
         site {{ \"*\", proxy(pool) }}"
    )
}

const STICKY: &str = "sticky = \"peer\"";

/// Asks with this cookie, if any.
fn ask(server: &Server, cookie: Option<&str>) -> Response {
    let mut request = Request::get("/");
    if let Some(cookie) = cookie {
        request = request.field("Cookie", cookie);
    }
    server.client().request(&request).expect(200)
}

/// The pair that a client sends back.
#[track_caller]
fn set(response: &Response) -> String {
    let set = response.field("set-cookie").expect("a cookie");
    set.split(';').next().expect("a pair").to_owned()
}

/// Asks without a cookie until this peer answers, and takes its cookie.
fn cookie_of(server: &Server, peer: &str) -> String {
    let found = (0..10)
        .map(|_| ask(server, None))
        .find(|response| response.text() == peer);
    set(&found.expect("each has its turn"))
}

#[test]
fn a_client_comes_back_to_its_peer() {
    let (origins, server) = pool(&["a", "b", "c"], STICKY);
    let first = ask(&server, None);
    let set = first.field("set-cookie").expect("a cookie").to_owned();
    let (pair, attributes) = set.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
    assert!(!set.contains("127.0.0.1"), "{set}");
    for _ in 0..7 {
        let again = ask(&server, Some(&format!("x=1; {pair}; y=2")));
        assert_eq!(again.text(), first.text());
        assert_eq!(again.field("set-cookie"), None, "nothing has changed");
    }
    // Those without one, or with one that nobody has made, go round.
    for cookie in [None, Some("peer=AAAAAAAAAAAAAAAAAAAAAA"), Some("peer")] {
        let mut who: Vec<_> = (0..6)
            .map(|_| {
                let response = ask(&server, cookie);
                assert!(response.field("set-cookie").is_some());
                response.text().to_owned()
            })
            .collect();
        who.sort();
        assert_eq!(who, ["a", "a", "b", "b", "c", "c"], "{cookie:?}");
    }
    // The peers see the other cookies only.
    for request in origins.iter().flat_map(Origin::requests) {
        let cookie = request.field("cookie");
        assert!(
            matches!(cookie, None | Some("x=1; y=2" | "peer")),
            "{cookie:?}"
        );
    }
}

#[test]
fn over_tls_the_cookie_is_for_tls() {
    let origin = Origin::always(Script::ok("a"));
    let config = r#"local pool = upstream "pool" { "@a@", sticky = "peer" }
        site { "*", proxy(pool) }"#;
    let server = Server::builder(config)
        .listen(r#"trust = "127.0.0.0/8""#)
        .server("state = \"state\"")
        .origin("a", &origin)
        .start();
    let request = Request::get("/").field("X-Forwarded-Proto", "https");
    let request = request.field("X-Forwarded-For", "192.0.2.1");
    let response = server.client().request(&request).expect(200);
    let set = response.field("set-cookie").expect("a cookie");
    assert!(set.ends_with("; SameSite=Lax; Secure"), "{set}");
}

#[test]
fn it_works_with_every_policy() {
    for balance in ["least_requests", "p2c_ewma", "random", "first"] {
        let (_origins, server) = pool(&["a", "b"], STICKY);
        let text = config(&["a", "b"], STICKY);
        server.reload_with(&text.replace("round_robin", balance));
        let first = ask(&server, None);
        let cookie = set(&first);
        (0..8).for_each(|_| assert_eq!(ask(&server, Some(&cookie)).text(), first.text()));
    }
}

#[test]
fn a_client_whose_peer_is_gone_gets_another_and_its_cookie() {
    let (a, b) = (
        Origin::always(Script::ok("a")),
        Origin::always(Script::ok("b")),
    );
    let origins = [a, b];
    let server = start(&origins, &["a", "b"], STICKY);
    let cookie = cookie_of(&server, "a");
    let [a, _b] = origins;
    drop(a);
    let moved = ask(&server, Some(&cookie));
    assert_eq!(moved.text(), "b");
    let cookie = set(&moved);
    let again = ask(&server, Some(&cookie));
    assert_eq!((again.text(), again.field("set-cookie")), ("b", None));
}

#[test]
fn reloads_and_restarts_lead_to_the_same_peer() {
    let names = ["a", "b", "c"];
    let (origins, server) = pool(&names, STICKY);
    let cookie = cookie_of(&server, "b");
    // In another order, and one less.
    server.reload_with(&config(&["b", "c"], STICKY));
    for _ in 0..5 {
        assert_eq!(ask(&server, Some(&cookie)).text(), "b");
    }
    server.reload_with(&config(&["c", "a"], STICKY));
    let moved = ask(&server, Some(&cookie));
    let other = set(&moved);
    assert_eq!(ask(&server, Some(&other)).text(), moved.text());
    // Another process with the same `state`.
    let state = server.dir().join("state");
    let key = std::fs::read(state.join("sticky.key")).expect("a key is kept");
    let mut builder = Server::builder(&config(&names, STICKY))
        .server("state = \"kept\"")
        .file("kept/sticky.key", &key);
    for (name, origin) in names.iter().zip(&origins) {
        builder = builder.origin(name, origin);
    }
    use std::os::unix::fs::PermissionsExt;
    let path = builder.dir().join("kept/sticky.key");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let second = builder.start();
    for _ in 0..5 {
        assert_eq!(ask(&second, Some(&cookie)).text(), "b");
    }
    // Without the key the cookie is worth nothing.
    let third = start(&origins, &names, STICKY);
    assert!(ask(&third, Some(&cookie)).field("set-cookie").is_some());
}

#[test]
fn a_key_that_cannot_be_kept_is_told() {
    let origin = Origin::always(Script::ok("a"));
    let config = r#"local pool = upstream "pool" { "@a@", sticky = "peer" }
        site { "*", proxy(pool) }"#;
    let server = Server::builder(config)
        .server("state = \"/proc/no/such\"")
        .origin("a", &origin)
        .start();
    server.wait_stderr("no key for `sticky` can be kept: /proc/no/such");
    let cookie = set(&ask(&server, None));
    assert_eq!(ask(&server, Some(&cookie)).field("set-cookie"), None);
}

/// Who answers these without a cookie.
fn who(server: &Server) -> String {
    let mut who: Vec<_> = (0..8)
        .map(|_| ask(server, None).text().to_owned())
        .collect();
    who.sort();
    who.dedup();
    who.join(" ")
}

#[test]
fn an_operator_takes_peers_out_and_back() {
    let (origins, server) = pool(&["a", "b", "c"], STICKY);
    let cookie = cookie_of(&server, "a");
    let a = origins[0].target();
    let order = |state: &str| {
        server
            .command(&format!("upstream pool {a} {state}"))
            .expect(0)
    };
    let shown = |name: &str| server.command(&format!("upstream {name}")).expect(0).stdout;
    assert_eq!(
        order("drain").stdout,
        format!("pool {a}: draining, 0 in flight\n")
    );
    assert_eq!(who(&server), "b c");
    assert_eq!(
        ask(&server, Some(&cookie)).text(),
        "a",
        "who belongs to it is served"
    );
    assert!(
        shown("pool").contains(&format!("{a:30} draining")),
        "{}",
        shown("pool")
    );
    let metrics = server.admin().get("/metrics").expect(200).text().to_owned();
    let line = format!("forebay_peer_state{{upstream=\"pool\",peer=\"{a}\",state=\"draining\"}} 1");
    assert!(metrics.contains(&line), "{metrics}");
    assert_eq!(
        order("down").stdout,
        format!("pool {a}: disabled, 0 in flight\n")
    );
    let moved = ask(&server, Some(&cookie));
    assert_ne!(moved.text(), "a");
    assert!(moved.field("set-cookie").is_some());
    // It holds over a reload, and shows in the status.
    let _ = server.reload().expect(0);
    assert_eq!(who(&server), "b c");
    let status = server.command("status").expect(0).stdout;
    assert!(status.contains(&format!("{a:30} disabled")), "{status}");
    // Also where something else of the pool has changed.
    let options = format!("{STICKY}, max_connections = 9");
    server.reload_with(&config(&["a", "b", "c"], &options));
    assert_eq!(who(&server), "b c");
    assert_eq!(order("up").stdout, format!("pool {a}: up\n"));
    assert_eq!(who(&server), "a b c");
    assert_eq!(ask(&server, Some(&cookie)).text(), "a");
    assert_eq!(shown(""), shown("pool"), "there is one");
}

#[test]
fn with_all_taken_out_the_answer_is_503_until_one_is_back() {
    let (origins, server) = pool(&["a", "b"], "");
    for origin in &origins {
        let _ = server
            .command(&format!("upstream pool {} down", origin.target()))
            .expect(0);
    }
    let _ = server.client().get("/").expect(503);
    let _ = server
        .command(&format!("upstream pool {} up", origins[1].target()))
        .expect(0);
    wait::until("the one that is back", || {
        server.client().get("/").text() == "b"
    });
}

#[test]
fn a_name_that_is_none_gives_the_nearest() {
    let (origins, server) = pool(&["a"], "");
    let a = origins[0].target();
    let wrong = |command: &str| server.command(command).expect(2).stderr;
    let said = wrong("upstream poll");
    assert!(
        said.contains("no upstream `poll`; did you mean `pool`?"),
        "{said}"
    );
    let said = wrong(&format!("upstream poool {a} up"));
    assert!(
        said.contains("no upstream `poool`; did you mean `pool`?"),
        "{said}"
    );
    let said = wrong(&format!("upstream pool {a}0 up"));
    let expected = format!("no peer of upstream `pool` `{a}0`; did you mean `{a}`?");
    assert!(said.contains(&expected), "{said}");
    let said = wrong(&format!("upstream pool {a} dwn"));
    assert!(said.contains("down"), "{said}");
    let said = wrong(&format!("upstream pool {a}"));
    assert!(said.contains("STATE"), "{said}");
    let strange = server
        .admin()
        .request(&Request::post("/upstream?name=pool", ""));
    assert_eq!(strange.status(), 400);
}
