//! Reload by signal and by command, and the admin socket.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use forebay_tests::origin::script::Act;
use forebay_tests::{Gate, Origin, Request, Script, Server, alternate, pattern, proc, wait};
use rustix::process::Signal;

const OLD: &str = r#"site { "*", respond(200, "old") }"#;
const NEW: &str = r#"site { "*", respond(200, "new") }"#;

#[test]
fn the_command_puts_a_new_configuration_into_service() {
    let server = Server::start(OLD);
    let mut kept = server.client().connect();
    assert_eq!(kept.get("/").text(), "old");
    server.reload_with(NEW);
    assert_eq!(kept.get("/").text(), "new", "on a connection that was open");
    for _ in 0..50 {
        assert_eq!(server.client().get("/").text(), "new");
    }
}

#[test]
fn sighup_does_the_same() {
    let server = Server::start(OLD);
    server.write_config(NEW);
    server.signal(Signal::HUP);
    wait::until("the new configuration", || {
        server.client().get("/").text() == "new"
    });
}

#[test]
fn a_change_of_a_file_reloads_where_that_is_asked_for() {
    let config = r#"local parts = require(glob "sites/*.lua")
        site { "*", respond(200, read "text.txt") }"#;
    let server = Server::builder(config)
        .server("watch = true")
        .file("sites/a.lua", "site { \"a.test\", respond(200, \"a\") }")
        .file("text.txt", "old")
        .start();
    let said = |host: &str| {
        let request = Request::get("/").host(host);
        server.client().request(&request).text().to_owned()
    };
    assert_eq!(
        (said("x.test").as_str(), said("a.test").as_str()),
        ("old", "a")
    );
    server.file("text.txt", "new");
    wait::until("the text that was read", || said("x.test") == "new");
    server.file("sites/a.lua", "site { \"a.test\", respond(200, \"aa\") }");
    wait::until("the file that was required", || said("a.test") == "aa");
    server.file("sites/b.lua", "site { \"b.test\", respnd(200, \"b\") }");
    server.wait_stderr("respnd");
    assert_eq!(
        (said("x.test").as_str(), said("a.test").as_str()),
        ("new", "aa")
    );
    server.file("sites/b.lua", "site { \"b.test\", respond(200, \"b\") }");
    wait::until("the new file, mended", || said("b.test") == "b");
    server.write_config(r#"site { "*", respond(200, "last") }"#);
    wait::until("the last one", || said("x.test") == "last");
}

#[test]
fn a_change_that_cannot_be_put_into_service_is_not_tried_again_and_again() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = held.local_addr().expect("its address");
    let server = Server::builder(OLD).server("watch = true").start();
    let other = Server::builder(OLD).server("watch = true").start();
    server.write_config(&format!("listen \"{taken}\" {NEW}"));
    let failures = || {
        let status = server.admin().get("/status").expect(200);
        let status: serde_json::Value = serde_json::from_str(status.text()).expect("JSON");
        status["reloads_failed"].as_u64().expect("a number")
    };
    wait::until("the failure", || failures() > 0);
    // As long as another server takes to notice two changes, this one lets it be.
    for text in ["one", "two"] {
        other.write_config(&format!("site {{ \"*\", respond(200, \"{text}\") }}"));
        wait::until(text, || other.client().get("/").text() == text);
    }
    assert_eq!(failures(), 1);
    server.write_config(NEW);
    wait::until("what was mended", || {
        server.client().get("/").text() == "new"
    });
}

#[test]
fn a_broken_configuration_changes_nothing_and_the_caller_is_told() {
    let mut server = Server::start(OLD);
    server.write_config("site { \"*\", respnd(200, \"broken\") }");
    let output = server.reload();
    assert!(output.code.is_some_and(|c| c != 0));
    let said = output.stdout + &output.stderr;
    assert!(
        said.contains("unknown name `respnd`") && said.contains("forebay.lua:1:"),
        "{said}"
    );
    assert_eq!(server.client().get("/").text(), "old");
    server.signal(Signal::HUP);
    server.wait_stderr("respnd");
    assert_eq!(server.client().get("/").text(), "old");
    // A file that is gone is no reason to stop either.
    std::fs::remove_file(server.config_path()).expect("the configuration");
    assert!(server.reload().code.is_some_and(|c| c != 0));
    assert!(server.is_running());
    server.reload_with(NEW);
    assert_eq!(server.client().get("/").text(), "new");
}

#[test]
fn a_listener_that_cannot_be_bound_changes_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address");
    let server = Server::start(OLD);
    server.write_config(&format!("listen \"{addr}\" {NEW}"));
    let output = server.reload();
    assert!(output.code.is_some_and(|c| c != 0));
    assert!((output.stdout + &output.stderr).contains(&addr.to_string()));
    assert_eq!(server.client().get("/").text(), "old");
}

#[test]
fn listeners_come_and_go() {
    let server = Server::builder(OLD).free_address("more").start();
    assert!(server.client_of("more").try_connect().is_err());
    server.reload_with(&format!("listen \"@more@\" {NEW}"));
    let mut idle = server.client_of("more").connect();
    assert_eq!(idle.get("/").text(), "new");
    server.reload_with(OLD);
    wait::until("the listener to be gone", || {
        server.client_of("more").try_connect().is_err()
    });
    assert_eq!(server.client().get("/").text(), "old");
    server.reload_with(&format!("listen \"@more@\" {NEW}"));
    assert_eq!(server.client_of("more").get("/").text(), "new");
}

#[test]
fn an_exchange_keeps_the_configuration_it_started_with() {
    let gate = Gate::new();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234";
    let origin = Origin::setup()
        .route("/before", Script::ok("x").when(&gate))
        .route(
            "/within",
            Script::raw(head)
                .then(Act::Wait(gate.clone()))
                .send("56789"),
        )
        .start();
    let config = |letter: &str| {
        format!(
            "site {{ \"*\", headers {{ response = {{ x_config = \"{letter}\" }} }}, proxy \"@origin@\" }}"
        )
    };
    let server = Server::builder(&config("A"))
        .origin("origin", &origin)
        .start();
    let mut conns: Vec<_> = ["/before", "/within"]
        .map(|target| {
            let mut conn = server.client().connect();
            conn.send(&Request::get(target));
            conn
        })
        .into();
    let _ = origin.wait_requests(2);
    server.reload_with(&config("B"));
    server.reload_with(r#"site { "*", headers { response = { x_config = "C" } }, respond(200) }"#);
    gate.open();
    for conn in &mut conns {
        assert_eq!(
            conn.read_response().expect(200).field("x-config"),
            Some("A")
        );
        assert_eq!(conn.get("/").expect(200).field("x-config"), Some("C"));
    }
}

#[test]
fn downloads_go_on_over_many_reloads() {
    let server = Server::builder(r#"site { "*", files "@dir@/www" }"#)
        .file("www/big.bin", pattern::bytes(8 << 20))
        .start();
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    let (_, mut body) = conn.read_head();
    let mut checker = pattern::Checker::default();
    for i in 0..20 {
        checker.feed(&body.next(&mut conn).expect("a piece").expect("a piece"));
        server.reload_with(&format!("site {{ \"*\", respond(200, \"{i}\") }}"));
    }
    while let Some(part) = body.next(&mut conn).expect("the rest") {
        checker.feed(&part);
    }
    assert_eq!(checker.offset(), 8 << 20);
    assert_eq!(conn.get("/").text(), "19");
}

#[test]
fn what_did_not_change_is_carried_over() {
    let origin = Origin::echo();
    let config = |text: &str| {
        format!(
            "local app = upstream \"app\" {{ \"@origin@\" }}\n\
             site {{ \"*\", route \"/x\" {{ respond(200, \"{text}\") }}, proxy(app) }}"
        )
    };
    let server = Server::builder(&config("1"))
        .origin("origin", &origin)
        .workers(1)
        .start();
    for i in 0..10 {
        let _ = server.client().get("/").expect(200);
        server.reload_with(&config(&i.to_string()));
    }
    assert_eq!(origin.connections().len(), 1, "idle connections live on");
}

#[test]
fn under_load_no_request_fails_and_no_answer_is_mixed() {
    // The tenth is of a broken configuration.
    let requests = alternate::run(Duration::from_secs(3), Duration::from_millis(100), 11);
    assert!(requests > 100, "{requests} requests");
}

#[test]
fn the_admin_socket_is_its_owners() {
    let server = Server::start(OLD);
    let path = server.dir().join("admin.sock");
    let mode = std::fs::metadata(path)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(server.admin().get("/no/such/thing").status(), 404);
    // It is not to be had over the listener.
    assert_eq!(server.client().get("/status").text(), "old");
}

#[test]
fn status_tells_what_runs() {
    let server = Server::builder(OLD).workers(2).start();
    let status = server.command("status").expect(0).stdout;
    assert!(status.contains("generation"), "{status}");
    let many = server.client().connect();
    server.reload_with(NEW);
    let status = server.command("status").expect(0).stdout;
    assert!(
        status.contains(&server.pid().to_string()) || status.contains("worker"),
        "{status}"
    );
    drop(many);
}

#[test]
fn stop_ends_it() {
    let mut server = Server::start(OLD);
    let helper: Vec<u32> = proc::tree(server.pid());
    let _ = server.command("stop").expect(0);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
    wait::until("the helper to end", || {
        helper.iter().all(|&p| proc::rss(p) == 0)
    });
    assert!(server.client().try_connect().is_err());
    assert!(
        !server.dir().join("admin.sock").exists(),
        "the socket is taken away"
    );
}
