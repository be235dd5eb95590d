//! The process: workers, listeners, signals, descriptors, privileges, the helper.

use std::time::{Duration, Instant};

use forebay_tests::origin::script::Act;
use forebay_tests::port::Reserved;
use forebay_tests::server::run;
use forebay_tests::{Gate, Origin, Request, Script, Server, Trouble, pattern, proc, wait};
use rustix::process::Signal;

const HELLO: &str = r#"site { "*", respond(200, "hello") }"#;

#[test]
fn each_worker_has_a_socket_of_its_own() {
    let server = Server::builder(HELLO).workers(3).start();
    assert_eq!(proc::listening_sockets(server.addr().port()), 3);
    let server = Server::builder(HELLO)
        .workers(3)
        .env("FOREBAY_WORKERS", "2")
        .start();
    assert_eq!(proc::listening_sockets(server.addr().port()), 2);
    for _ in 0..50 {
        let _ = server.client().get("/").expect(200);
    }
}

#[test]
fn a_port_alone_means_ipv4_and_ipv6() {
    let port = Reserved::any();
    let server = Server::start(&format!(
        "listen \":{}\" site {{ \"*\", respond(200, \"$client_ip\") }}",
        port.port()
    ));
    // An IPv4 client is one of IPv4, not `::ffff:127.0.0.1`.
    for (address, client_ip) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let addr = format!("{address}:{}", port.port());
        let client = forebay_tests::Client::tcp(addr.parse().expect("an address"));
        wait::until("it to listen there, too", || client.try_connect().is_ok());
        assert_eq!(client.get("/").text(), client_ip);
    }
    drop(server);
}

#[test]
fn sigterm_lets_exchanges_end() {
    let gate = Gate::new();
    let origin = Origin::always(Script::ok("done").when(&gate));
    let mut server = Server::before(&origin, r#"proxy "@origin@""#);
    let mut busy = server.client().connect();
    busy.send(&Request::get("/"));
    let _ = origin.wait_requests(1);
    let mut idle = server.client().connect();
    server.signal(Signal::TERM);
    wait::until("the listener to close", || {
        server.client().try_connect().is_err()
    });
    idle.expect_gone();
    assert!(server.is_running(), "an exchange is under way");
    gate.open();
    let response = busy.read_response().expect(200);
    assert_eq!(response.text(), "done");
    assert!(response.says_close(), "no more requests are wanted");
    assert!(server.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn sigterm_lets_downloads_end() {
    let mut server = Server::builder(r#"site { "*", files "@dir@/www" }"#)
        .file("www/big.bin", pattern::bytes(8 << 20))
        .start();
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    conn.wait_until_read();
    server.signal(Signal::TERM);
    wait::until("the listener to close", || {
        server.client().try_connect().is_err()
    });
    let (_, len) = conn.slow_read(0).expect("the whole file");
    assert_eq!(len, 8 << 20);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn draining_has_an_end() {
    let origin = Origin::always(Script::new().then(Act::Stall));
    let mut server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .server(r#"drain = "1s""#)
        .start();
    let mut stuck = server.client().connect();
    stuck.send(&Request::get("/"));
    let _ = origin.wait_requests(1);
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
    assert!(stuck.try_read_response().is_err());
}

#[test]
fn sigint_ends_it_too() {
    let mut server = Server::start(HELLO);
    server.signal(Signal::INT);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn a_signal_right_after_the_start_is_not_lost() {
    // Who sees it listen may tell it to reload or to stop: its handlers have to be there by then.
    for _ in 0..5 {
        let mut server = Server::builder(HELLO).start_in_haste();
        server.signal(Signal::HUP);
        assert_eq!(server.client().get("/").expect(200).text(), "hello");
        server.signal(Signal::TERM);
        assert!(server.wait_exit(Duration::from_secs(5)).success());
    }
    let mut server = Server::builder(HELLO).start_in_haste();
    server.signal(Signal::TERM);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn a_killed_server_leaves_no_helper_behind() {
    let mut server = Server::start(HELLO);
    let all = proc::tree(server.pid());
    assert!(all.len() >= 2, "the helper: {all:?}");
    server.signal(Signal::KILL);
    assert!(!server.wait_exit(Duration::from_secs(5)).success());
    wait::until("the helper to end", || {
        all.iter().all(|&p| proc::rss(p) == 0)
    });
}

#[test]
fn the_helper_is_small() {
    let server = Server::builder(
        r#"for i = 1, 2000 do site { "host" .. i .. ".test", respond(200, "site " .. i) } end"#,
    )
    .start();
    let helpers = &proc::tree(server.pid())[1..];
    for &helper in helpers {
        // Without the code, which is the main process's too and big in a build for debugging.
        let bytes = proc::anonymous(helper);
        assert!(bytes < 2 << 20, "{bytes} bytes");
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let server = Server::builder(HELLO).descriptors(80).start();
    let mut held: Vec<_> = (0..300)
        .filter_map(|_| server.client().try_connect().ok())
        .collect();
    for conn in &mut held {
        let _ = conn.try_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // It does not burn a core while it can accept nothing.
    let before = proc::cpu_time(server.pid());
    let begun = Instant::now();
    let mut answered = 0;
    for conn in &mut held {
        conn.set_read_timeout(Duration::from_millis(5));
        match conn.try_read_response() {
            Ok(response) => {
                assert!(
                    matches!(response.status(), 200 | 503),
                    "{}",
                    response.status()
                );
                answered += 1;
            }
            Err(Trouble::Closed | Trouble::Reset | Trouble::Timeout) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!(answered > 0);
    let (used, passed) = (proc::cpu_time(server.pid()) - before, begun.elapsed());
    assert!(
        used < passed / 2 + Duration::from_millis(200),
        "{used:?} of {passed:?}"
    );
    drop(held);
    wait::until("a new connection to be answered", || {
        let conn = server.client().try_connect();
        conn.is_ok_and(|mut conn| {
            let _ = conn.try_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            conn.try_read_response().is_ok_and(|r| r.status() == 200)
        })
    });
}

#[test]
fn running_out_of_descriptors_towards_an_origin_is_survived() {
    let gate = Gate::new();
    let origin = Origin::setup()
        .route("/hold", Script::ok("x").when(&gate))
        .start();
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .descriptors(80)
        .start();
    let mut held: Vec<_> = (0..60)
        .filter_map(|_| server.client().try_connect().ok())
        .collect();
    for conn in &mut held {
        let _ = conn.try_raw("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    origin.wait_for("some of them", |requests, _| !requests.is_empty());
    gate.open();
    for conn in &mut held {
        match conn.try_read_response() {
            Ok(response) => assert!(matches!(response.status(), 200 | 502 | 503)),
            Err(Trouble::Closed | Trouble::Reset) => {}
            Err(other) => panic!("{other}"),
        }
    }
    drop(held);
    wait::until("the next", || {
        let conn = server.client().try_connect();
        conn.is_ok_and(|mut conn| {
            let _ = conn.try_raw("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
            conn.try_read_response().is_ok_and(|r| r.status() == 200)
        })
    });
}

#[test]
fn what_is_idle_at_another_worker_makes_room() {
    // More workers than a few connections reach: some have none of their own that they could close.
    let server = Server::builder(HELLO).workers(8).descriptors(110).start();
    for _ in 0..20 {
        let mut held: Vec<_> = (0..80)
            .filter_map(|_| server.client().try_connect().ok())
            .collect();
        for conn in &mut held {
            let _ = conn.try_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for conn in &mut held {
            match conn.try_read_response() {
                Ok(response) => assert!(matches!(response.status(), 200 | 503)),
                Err(Trouble::Closed | Trouble::Reset) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn without_descriptors_the_admin_socket_answers() {
    let server = Server::builder(HELLO).workers(1).start();
    // All of it has started.
    let _ = server.command("status").expect(0);
    let _ = server.client().get("/").expect(200);
    let limit = proc::next_descriptor(server.pid());
    proc::limit_descriptors(server.pid(), limit);
    // What the start has given back since is taken by clients that do not come to an end.
    let mut held = Vec::new();
    wait::until("none that is free", || {
        let is_full = proc::next_descriptor(server.pid()) >= limit;
        if !is_full {
            let mut conn = server.client().connect();
            let _ = conn.try_raw("GET / HT");
            held.push(conn);
        }
        is_full
    });
    for _ in 0..3 {
        let _ = server.command("status").expect(0);
    }
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let server = Server::builder(HELLO).soft_descriptors(100).start();
    let (soft, hard) = proc::descriptor_limits(server.pid());
    assert_eq!(soft, hard);
}

#[test]
fn as_root_it_becomes_the_user() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this case has to run as root"
    );
    let server = Server::builder(r#"site { "*", files "@dir@/www" }"#)
        .server(r#"user = "nobody:nogroup""#)
        .file("www/a.txt", "all may read it")
        .file("www/root.txt", "root alone may")
        .open_to_all()
        .start();
    use std::os::unix::fs::PermissionsExt;
    let secret = server.dir().join("www/root.txt");
    std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    assert_eq!(
        server.client().get("/a.txt").expect(200).text(),
        "all may read it"
    );
    assert_eq!(server.client().get("/root.txt").status(), 403);
    let (uid, gid) = proc::user_and_group(server.pid()).expect("a running server");
    assert!(uid != 0 && gid != 0, "{uid}:{gid}");
    assert_eq!(proc::capabilities(server.pid()), 0, "it keeps nothing");
    assert_eq!(
        proc::groups(server.pid())
            .iter()
            .filter(|g| **g == 0)
            .count(),
        0
    );
    // The helper binds what a reload asks for.
    let port = Reserved::new();
    server.reload_with(&format!("listen \"{}\" {HELLO}", port.addr()));
    assert_eq!(
        forebay_tests::Client::tcp(port.addr()).get("/").text(),
        "hello"
    );
}

#[test]
fn an_address_in_use_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address");
    let dir = tempfile::tempdir().expect("a directory");
    let config = format!(
        "listen \"{addr}\" server {{ admin = \"unix:{}/admin.sock\" }} {HELLO}",
        dir.path().display()
    );
    std::fs::write(dir.path().join("forebay.lua"), config).expect("a file");
    let output = forebay_tests::server::run_in(dir.path(), &["run", "forebay.lua"]);
    assert!(output.code.is_some_and(|c| c != 0));
    let said = output.stdout + &output.stderr;
    assert!(said.contains(&addr.to_string()), "{said}");
}

#[test]
fn serve_and_proxy_need_no_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.txt"), "a file").expect("a file");
    let origin = Origin::echo();
    let url = format!("http://{}", origin.target());
    for (args, target, want) in [
        (
            ["serve", dir.path().to_str().expect("a name")],
            "/a.txt",
            "a file",
        ),
        (["proxy", url.as_str()], "/x", "GET /x"),
    ] {
        let port = Reserved::new();
        let addr = port.addr().to_string();
        let server = Server::from_command(&[args[0], args[1], "--listen", &addr], port.addr());
        assert_eq!(
            server.client().get(target).expect(200).text(),
            want,
            "{args:?}"
        );
    }
}

#[test]
fn proxy_caches_if_it_is_asked_to() {
    let fields = "Cache-Control: max-age=600\r\n";
    for (cache, requests) in [(None, 3), (Some("--cache"), 1)] {
        let origin = Origin::always(Script::with_fields(200, fields, "a page"));
        // As a browser shows it, with a slash at the end.
        let url = format!("http://{}/", origin.target());
        let port = Reserved::new();
        let addr = port.addr().to_string();
        let mut args = vec!["proxy", &url, "--listen", &addr];
        args.extend(cache);
        let server = Server::from_command(&args, port.addr());
        for _ in 0..3 {
            let response = server.client().get("/page").expect(200);
            assert_eq!(response.text(), "a page");
            assert_eq!(response.field("cache-status").is_some(), cache.is_some());
        }
        assert_eq!(origin.requests().len(), requests, "{cache:?}");
    }
    let out = run(&["proxy", "http://127.0.0.1:3000/app/"]).expect(2);
    let help = "give the server alone, http://127.0.0.1:3000: ";
    assert!(out.stderr.contains(help), "{}", out.stderr);
}

#[test]
fn without_a_configuration_there_is_a_welcome_site() {
    // Its address is fixed, so it gets a network of its own.
    let script = "ip link set lo up; cd \"$1\" || exit 1; \"$2\" & pid=$!; \
                  curl -sS --retry 100 --retry-delay 0 --retry-max-time 8 --retry-connrefused \
                  http://127.0.0.1:8080/; kill $pid; wait $pid; echo \"exit $?\"";
    let dir = tempfile::tempdir().expect("a directory");
    let output = std::process::Command::new("unshare")
        .args(["-n", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(forebay_tests::server::binary())
        .output()
        .expect("unshare, of the Debian package util-linux");
    let page = String::from_utf8_lossy(&output.stdout);
    for word in [
        "Forebay",
        "forebay.lua",
        "site {",
        "forebay check",
        "exit 0",
    ] {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(page.contains(word), "{word:?} is not in\n{page}\n{stderr}");
    }
}

#[test]
fn after_a_stop_nobody_finds_the_server() {
    for _ in 0..20 {
        let server = Server::start(HELLO);
        let _ = server.command("stop").expect(0);
        let after = server.command("status").expect(1).stderr;
        assert!(after.contains("no server runs there"), "{after}");
    }
}

#[test]
fn who_is_not_root_commands_a_server_of_their_own() {
    use forebay_tests::shell::Shell;
    let mut shell = Shell::start();
    // A copy, as that user may not read what is being built.
    let _ =
        shell.succeed("cp -L /mnt/bin/forebay /mnt/forebay && mkdir -p /run/user/65534 /srv/www");
    let _ = shell.succeed("chown 65534:65534 /run/user/65534 && cd /srv/www");
    let own = "env XDG_RUNTIME_DIR=/run/user/65534 \
               setpriv --reuid=65534 --regid=65534 --clear-groups /mnt/forebay";
    let _ = shell.spawn(&format!("{own} serve ."), "Forebay…\n…\n");
    let (said, code) = shell.run("forebay status");
    assert!(code == 1 && said.contains("/run/forebay.sock"), "{said}");
    let said = shell.succeed(&format!("{own} status"));
    assert!(said.contains("127.0.0.1:8080"), "{said}");
    assert_eq!(shell.succeed(&format!("{own} stop")), "stopped\n");
    // Without one of their own they are told of the machine's.
    let _ = shell.spawn("forebay serve .", "Forebay…\n…\n");
    let (said, code) = shell.run(&format!("{own} status"));
    assert!(
        code == 1 && said.contains("/run/forebay.sock") && said.contains("sudo"),
        "{said}"
    );
    let said = shell.succeed("forebay status");
    assert!(said.contains("127.0.0.1:8080"), "{said}");
}
