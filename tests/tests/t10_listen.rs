//! Listeners that are no plain TCP socket, and who is believed what about clients.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_tests::client::Endpoint;
use forebay_tests::load::Load;
use forebay_tests::peers::{Haproxy, Nginx};
use forebay_tests::port::Reserved;
use forebay_tests::{Builder, Client, Gate, Origin, Request, Script, Server, proc, wait};
use rustix::process::Signal;

const HELLO: &str = r#"site { "*", respond(200, "hello") }"#;

/// A server to be started whose configuration finds its own Unix socket as `@sock@`.
fn with_socket(config: &str) -> (Builder, PathBuf) {
    let builder = Server::builder(config);
    let path = builder.dir().join("web.sock");
    let address = format!("unix:{}", path.display());
    (builder.set("sock", address), path)
}

fn mode(path: &Path) -> u32 {
    let file = std::fs::symlink_metadata(path).expect("the socket's file");
    assert!(file.file_type().is_socket());
    file.permissions().mode() & 0o777
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

#[test]
fn a_unix_socket_is_served_and_its_file_has_mode_and_owner() {
    let (builder, path) = with_socket(
        r#"listen "@sock@" { mode = "0604", owner = "nobody:nogroup" } listen "@sock@2"
           site { "*", respond(200, "[$client_ip][$client_net][$client_port]") }"#,
    );
    let server = builder.start();
    let client = server.client_of("sock");
    assert_eq!(client.get("/").expect(200).text(), "[][][]");
    // Another reader of HTTP than ours.
    let curl = std::process::Command::new("curl")
        .args(["-sS", "-i", "http://any.test/", "--unix-socket"])
        .arg(&path)
        .output()
        .expect("curl, of the Debian package curl");
    let said = String::from_utf8_lossy(&curl.stdout);
    assert!(
        said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("[][][]"),
        "{said}"
    );
    assert_eq!(mode(&path), 0o604);
    let owner = std::fs::metadata(&path).expect("the file").uid();
    assert_ne!(owner, 0, "it is nobody's");
    let other = server.dir().join("web.sock2");
    assert_eq!(mode(&other), 0o660);
    assert_eq!(std::fs::metadata(other).expect("the file").uid(), 0);
}

/// How often each worker has gone to sleep so far.
fn sleeps_of_workers(pid: u32) -> Vec<u64> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running server") {
        let task = task.expect("a thread").path();
        let text = |file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default();
        if text("comm").starts_with("worker-") {
            let status = text("status");
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            all.push(line.expect("a count").trim().parse().expect("a number"));
        }
    }
    all
}

#[test]
fn connections_of_a_unix_socket_are_dealt_to_all_workers() {
    let (builder, _) = with_socket(&format!("listen \"@sock@\" {HELLO}"));
    let server = builder.workers(4).start();
    let before = wait::until_some("four threads with their names", || {
        let all = sleeps_of_workers(server.pid());
        (all.len() == 4).then_some(all)
    });
    for _ in 0..80 {
        let _ = server.client_of("sock").get("/").expect(200);
    }
    let after = sleeps_of_workers(server.pid());
    let grown: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    assert!(grown.iter().all(|n| *n >= 10), "{grown:?}");
}

#[test]
fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
    let (builder, path) = with_socket(&format!("listen \"@sock@\" {HELLO}"));
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(is_socket(&path), "nobody listens there any more");
    let server = builder.start();
    assert_eq!(
        server.client_of("sock").get("/").expect(200).text(),
        "hello"
    );

    let live = server.dir().join("live.sock");
    let other = UnixListener::bind(&live).expect("a socket");
    server.file("precious", "data");
    for (name, path) in [("live", "live.sock"), ("file", "precious")] {
        server.write_config(&format!(
            "listen \"@sock@\" listen \"unix:@dir@/new.sock\" listen \"unix:@dir@/{path}\" {HELLO}"
        ));
        let output = server.reload();
        assert!(output.code.is_some_and(|code| code != 0), "{name}");
        let said = output.stdout + &output.stderr;
        assert!(said.contains("in use") && said.contains(path), "{said}");
        assert!(said.contains("nothing was changed"), "{said}");
        let new = server.dir().join("new.sock");
        assert!(!new.exists(), "what was bound before the mistake is undone");
    }
    std::os::unix::net::UnixStream::connect(&live).expect("it still lives");
    other.accept().expect("a connection");
    let kept = std::fs::read_to_string(server.dir().join("precious"));
    assert_eq!(kept.expect("the file"), "data");
    assert_eq!(
        server.client_of("sock").get("/").expect(200).text(),
        "hello"
    );
}

#[test]
fn a_unix_socket_stays_over_reloads_and_goes_with_its_listener() {
    let gate = Gate::new();
    let origin = Origin::always(Script::ok("slow").when(&gate));
    let config = |listen: &str, text: &str| {
        format!(
            "{listen} site {{ \"*\", route \"/slow\" {{ proxy \"@origin@\" }}, respond(200, \"{text}\") }}"
        )
    };
    let (builder, path) = with_socket(&config(r#"listen "@sock@""#, "one"));
    let server = builder.origin("origin", &origin).start();
    let inode = std::fs::metadata(&path).expect("the file").ino();
    let mut kept = server.client_of("sock").connect();
    assert_eq!(kept.get("/").text(), "one");
    let mut busy = server.client_of("sock").connect();
    busy.send(&Request::get("/slow"));
    let _ = origin.wait_requests(1);

    server.reload_with(&config(r#"listen "@sock@" { mode = "0600" }"#, "two"));
    assert_eq!(kept.get("/").text(), "two", "on a connection that was open");
    assert_eq!(server.client_of("sock").get("/").text(), "two");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(std::fs::metadata(&path).expect("the file").ino(), inode);

    server.reload_with(&config("", "three"));
    assert!(!path.exists());
    kept.expect_gone();
    gate.open();
    assert_eq!(busy.read_response().expect(200).text(), "slow");

    server.reload_with(&config(r#"listen "@sock@""#, "four"));
    assert_eq!(server.client_of("sock").get("/").text(), "four");
}

#[test]
fn no_request_is_lost_while_unix_listeners_come_and_go() {
    let with = |more: &str| format!("listen \"@sock@\" {more} {HELLO}");
    let (builder, _) = with_socket(&with(""));
    let server = builder.workers(3).start();
    let client = server.client_of("sock");
    let load = Load::start(3, |_| {
        let client = client.clone();
        move || assert_eq!(client.get("/").expect(200).text(), "hello")
    });
    for round in 0..10 {
        server.reload_with(&with(if round % 2 == 0 {
            r#"listen "unix:@dir@/more.sock""#
        } else {
            ""
        }));
    }
    let enough = load.count() + 100;
    wait::until("some more requests", || load.count() > enough);
    assert!(load.finish() > 100);
}

#[test]
fn the_socket_file_is_removed_at_the_stop_but_not_somebody_elses() {
    let (builder, path) = with_socket(&format!(
        "listen \"@sock@\" listen \"unix:@dir@/taken.sock\" {HELLO}"
    ));
    let mut server = builder.start();
    let taken = server.dir().join("taken.sock");
    std::fs::remove_file(&taken).expect("the file");
    let other = UnixListener::bind(&taken).expect("a socket");
    server.signal(Signal::TERM);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
    assert!(!path.exists());
    assert!(is_socket(&taken), "it is another's by now");
    drop(other);
}

#[test]
fn what_has_connected_is_answered_at_the_stop() {
    let (builder, _) = with_socket(&format!("listen \"@sock@\" {HELLO}"));
    let mut server = builder.workers(3).start();
    let mut conns: Vec<_> = (0..20)
        .map(|_| server.client_of("sock").connect())
        .collect();
    server.signal(Signal::TERM);
    for conn in &mut conns {
        conn.send(&Request::get("/"));
    }
    for conn in &mut conns {
        assert_eq!(conn.read_response().expect(200).text(), "hello");
    }
    assert!(server.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn as_another_user_the_socket_is_that_users_and_the_helper_binds_and_removes() {
    // The directory is root's: only the helper may write to it.
    let (builder, path) = with_socket(&format!("listen \"@sock@\" {HELLO}"));
    let mut server = builder
        .server(r#"user = "nobody:nogroup""#)
        .open_to_all()
        .start();
    let (uid, _) = proc::user_and_group(server.pid()).expect("a running server");
    assert_eq!(std::fs::metadata(&path).expect("the file").uid(), uid);
    let new = r#"listen "unix:@dir@/new.sock" site { "*", respond(200, "new") }"#;
    server.reload_with(new);
    assert!(!path.exists());
    let path = server.dir().join("new.sock");
    let endpoint = Endpoint::Unix(path.clone());
    assert_eq!(Client::new(endpoint).get("/").text(), "new");
    server.signal(Signal::TERM);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
    assert!(!path.exists());
}

#[test]
fn a_client_without_an_address_is_unknown_to_the_origin() {
    let origin = Origin::echo();
    let (builder, _) = with_socket(r#"listen "@sock@" site { "*", proxy "@origin@" }"#);
    let server = builder.origin("origin", &origin).start();
    let _ = server
        .client_of("sock")
        .request(&Request::get("/").host("a.test"))
        .expect(200);
    let request = origin.only_request();
    assert!(request.all("x-forwarded-for").is_empty());
    assert_eq!(
        request.field("forwarded"),
        Some("for=unknown;host=\"a.test\";proto=http")
    );
    assert_eq!(request.field("x-forwarded-port"), Some("80"));
}

#[test]
fn a_trusted_server_speaks_for_its_clients() {
    let origin = Origin::echo();
    let server = Server::builder(
        r#"site { "a.test", allow "192.0.2.0/24", proxy "@origin@" }
           site { "*", respond(200, "$client_ip") }"#,
    )
    .listen(r#"trust = { "127.0.0.2", "10.0.0.0/8" }"#)
    .origin("origin", &origin)
    .start();
    let request = Request::get("/x")
        .host("front.test")
        .field("X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.0.0.1")
        .field("X-Forwarded-Proto", "https")
        .field("X-Forwarded-Host", "a.test");
    let trusted = server.client().from("127.0.0.2");
    let _ = trusted.request(&request).expect(200);
    let seen = origin.only_request();
    let field = |name: &str| seen.field(name).unwrap_or_default().to_owned();
    assert_eq!(field("x-forwarded-for"), "192.0.2.1");
    assert_eq!(field("x-forwarded-proto"), "https");
    assert_eq!(field("x-forwarded-port"), "443");
    assert_eq!(field("x-forwarded-host"), "a.test");
    assert_eq!(
        field("forwarded"),
        "for=192.0.2.1;host=\"a.test\";proto=https"
    );
    assert_eq!(field("host"), "a.test");
    // A connection serves many clients: what was said of one holds for its request alone.
    let mut conn = trusted.connect();
    let other = Request::get("/").field("Forwarded", "for=\"[2001:db8::1]:5\"");
    assert_eq!(conn.exchange(&other).expect(200).text(), "2001:db8::1");
    assert_eq!(conn.get("/").expect(200).text(), "127.0.0.2");
    let denied = Request::get("/")
        .host("a.test")
        .field("X-Forwarded-For", "192.0.3.1");
    let _ = conn.exchange(&denied).expect(403);
    // Others are not believed.
    let stranger = server.client().from("127.0.0.3");
    assert_eq!(stranger.request(&request).expect(200).text(), "127.0.0.3");
}

#[test]
fn nginx_in_front_speaks_for_its_clients() {
    let (builder, path) =
        with_socket(r#"listen "@sock@" site { "*", respond(200, "$client_ip $scheme $host") }"#);
    let builder = builder.open_to_all();
    let directive = |pass: &str| {
        format!(
            "location / {{ proxy_pass {pass}; proxy_set_header Host $host; \
             proxy_set_header X-Forwarded-Proto https; \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}"
        )
    };
    let _server = builder.server(r#"user = "nobody:nogroup""#).start();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("permissions");
    let nginx = Nginx::start(&directive(&format!("http://unix:{}:", path.display())), &[]);
    let request = Request::get("/")
        .host("a.test")
        .field("X-Forwarded-For", "6.6.6.6");
    let from = nginx.client().from("127.0.0.9");
    assert_eq!(
        from.request(&request).expect(200).text(),
        "127.0.0.9 https a.test"
    );
}

const ECHO: &str = r#"site { "*", respond(200, "$client_ip $client_port") }"#;

/// A server whose clients at 127.0.0.2 begin with a PROXY header.
fn behind_header(options: &str) -> Server {
    let listen = format!("proxy_protocol = true, trust = {{ \"127.0.0.2\" }}, {options}");
    Server::builder(ECHO).listen(&listen).start()
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    let len = u16::try_from(rest.len()).expect("a length");
    header.extend(len.to_be_bytes());
    header.extend(rest);
    header
}

const V4: &[u8] = b"\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\0\x50";

/// What a counter stands at, over all workers.
fn counted(server: &Server, name: &str) -> u64 {
    let metrics = server.admin().get("/metrics").expect(200);
    let line = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(&format!("forebay_{name} ")));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{}", metrics.text()));
    line.parse().expect("a number")
}

#[test]
fn a_proxy_header_says_who_the_client_is() {
    let server = behind_header("");
    let trusted = server.client().from("127.0.0.2");
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n".to_vec();
    let with_values = [V4, b"\x01\0\x02h2", &[0; 1000]].concat();
    for header in [&v1, &v2(0x21, 0x11, V4), &v2(0x21, 0x11, &with_values)] {
        let mut conn = trusted.connect();
        conn.raw([header, &get[..]].concat());
        assert_eq!(conn.read_response().expect(200).text(), "192.0.2.1 5000");
        // It holds for the connection.
        assert_eq!(conn.get("/").expect(200).text(), "192.0.2.1 5000");
    }
    let v6 = b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n".to_vec();
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::1 5000 80\r\n".to_vec();
    for (header, expected) in [(v6, "2001:db8::1 5000"), (mapped, "192.0.2.1 5000")] {
        let said = trusted.raw([&header, &get[..]].concat()).expect(200);
        assert_eq!(said.text(), expected);
    }
    // For itself, or for nobody that it can name.
    let unknown = b"PROXY UNKNOWN 1 2 3\r\n".to_vec();
    for header in [&unknown, &v2(0x20, 0x11, V4), &v2(0x21, 0, b"")] {
        let mut conn = trusted.connect();
        let port = conn.local_port().expect("TCP");
        conn.raw([header, &get[..]].concat());
        let said = conn.read_response().expect(200);
        assert_eq!(said.text(), format!("127.0.0.2 {port}"));
    }
    // Others send none.
    let stranger = server.client().from("127.0.0.3");
    assert!(stranger.get("/").text().starts_with("127.0.0.3 "));
    let _ = stranger.raw([&v1, &get[..]].concat()).expect(400);
    assert_eq!(counted(&server, "proxy_headers_malformed_total"), 0);
}

#[test]
fn a_proxy_header_may_be_cut_anywhere() {
    let server = behind_header("");
    let trusted = server.client().from("127.0.0.2");
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n".to_vec();
    for header in [v1, v2(0x21, 0x11, V4)] {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let all = [&header, &request[..]].concat();
        for split in 1..=header.len() + 1 {
            let said = trusted.raw_in_pieces(&all, split).expect(200);
            assert_eq!(said.text(), "192.0.2.1 5000", "cut at {split}");
        }
        let mut conn = trusted.connect();
        conn.slow_write(&all, 1, Duration::ZERO).expect("written");
        assert_eq!(conn.read_response().expect(200).text(), "192.0.2.1 5000");
    }
}

#[test]
fn without_a_right_header_a_trusted_connection_is_closed() {
    let server = behind_header(r#"header_timeout = "1s""#);
    let trusted = server.client().from("127.0.0.2");
    let long = v2(0x21, 0x11, &[1; 5000]);
    let wrong: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.1\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &v2(0x31, 0x11, V4),
        &long,
    ];
    for bytes in wrong {
        let mut conn = trusted.connect();
        let _ = conn.try_raw(bytes);
        conn.expect_gone();
    }
    assert_eq!(counted(&server, "proxy_headers_malformed_total"), 4);
    server.wait_stderr("a PROXY header is malformed");
    let mut slow = trusted.connect();
    slow.raw("PROXY TCP4 192");
    slow.expect_gone();
    assert_eq!(counted(&server, "proxy_headers_late_total"), 1);
    // Who only looks whether somebody listens is no mistake.
    let mut looks = trusted.connect();
    looks.half_close();
    looks.expect_gone();
    assert_eq!(counted(&server, "proxy_headers_malformed_total"), 4);
    assert_eq!(counted(&server, "requests_total"), 0);
}

#[test]
fn a_connection_that_waits_for_its_header_does_not_hold_up_the_stop() {
    let mut server = behind_header("");
    let trusted = server.client().from("127.0.0.2");
    let mut waits = trusted.connect();
    let mut comes = trusted.connect();
    comes.raw("PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\nGET / HT");
    server.signal(Signal::TERM);
    wait::until("the listener to close", || {
        server.client().try_connect().is_err()
    });
    comes.raw("TP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(comes.read_response().expect(200).text(), "192.0.2.1 5000");
    waits.expect_gone();
    assert!(server.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn curl_sends_a_proxy_header() {
    let server = behind_header("");
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--haproxy-protocol", "--interface", "127.0.0.2"])
        .arg(format!("http://{}/", server.addr()))
        .output()
        .expect("curl, of the Debian package curl");
    let said = String::from_utf8_lossy(&curl.stdout);
    assert!(said.starts_with("127.0.0.2 "), "{said}");
}

#[test]
fn haproxy_in_front_sends_either_version() {
    let server = Server::builder(ECHO)
        .listen(r#"proxy_protocol = true, trust = "127.0.0.1""#)
        .start();
    for version in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options unique-id",
    ] {
        let haproxy = Haproxy::start(&format!("server forebay {} {version}", server.addr()));
        let from = haproxy.client().from("127.0.0.9");
        let mut conn = from.connect();
        let port = conn.local_port().expect("TCP");
        let said = conn.get("/").expect(200);
        assert_eq!(said.text(), format!("127.0.0.9 {port}"), "{version}");
    }
}

#[test]
fn a_client_has_no_more_connections_than_it_may() {
    let server = Server::builder(HELLO)
        .listen(r#"max_connections_per_client = 5, trust = { "127.0.0.9" }"#)
        .workers(3)
        .start();
    let one = server.client().from("127.0.0.5");
    let mut held: Vec<_> = (0..5).map(|_| one.connect()).collect();
    for conn in &mut held {
        let _ = conn.get("/").expect(200);
    }
    for _ in 0..4 {
        one.connect().expect_gone();
    }
    assert_eq!(counted(&server, "clients_refused_total"), 4);
    // Another client, and one that speaks for many, have theirs.
    let mut more: Vec<_> = (0..5)
        .map(|_| server.client().from("127.0.0.6").connect())
        .chain((0..20).map(|_| server.client().from("127.0.0.9").connect()))
        .collect();
    for conn in &mut more {
        let _ = conn.get("/").expect(200);
    }
    drop(held.pop());
    wait::until("a place", || {
        let mut conn = one.connect();
        let _ = conn.try_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        conn.try_read_response().is_ok_and(|r| r.status() == 200)
    });
    for conn in &mut held {
        let _ = conn.get("/").expect(200);
    }
    // A reload changes nothing for those who are there.
    server.reload_with(HELLO);
    for conn in &mut held {
        let _ = conn.get("/").expect(200);
    }
}

#[test]
fn behind_a_proxy_header_the_client_in_it_counts() {
    let server = behind_header("max_connections_per_client = 2");
    let trusted = server.client().from("127.0.0.2");
    let open = |client: &str| {
        let mut conn = trusted.connect();
        let text = format!("PROXY TCP6 {client} ::1 5000 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        conn.raw(text);
        conn
    };
    let mut held: Vec<_> = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
        .map(open)
        .into();
    for conn in &mut held {
        let _ = conn.read_response().expect(200);
    }
    // The same /64 is one client.
    open("2001:db8::3").expect_gone();
    let _ = open("2001:db8:0:1::2").read_response().expect(200);
    assert_eq!(counted(&server, "clients_refused_total"), 1);
}

#[test]
fn who_connects_and_says_nothing_has_the_time_of_a_head() {
    let (builder, _) = with_socket(&format!(
        "listen \"@sock@\" {{ header_timeout = \"1s\" }} {HELLO}"
    ));
    let server = builder.listen(r#"header_timeout = "1s""#).start();
    let mut silent: Vec<_> = (0..4).map(|_| server.client().connect()).collect();
    silent.extend((0..4).map(|_| server.client_of("sock").connect()));
    // The time between requests is 75 s.
    silent.iter_mut().for_each(forebay_tests::Conn::expect_gone);
}

#[test]
fn sockets_that_are_passed_in_are_served_by_their_names() {
    let tcp = Reserved::new();
    let config = r#"listen "fd:web" listen "fd:app"
                    site { "*", respond(200, "all $client_ip") }
                    site { "app.test", on = "fd:app", respond(200, "app") }"#;
    let builder = Server::builder(config).workers(3);
    let path = builder.dir().join("app.sock");
    let unix = UnixListener::bind(&path).expect("a socket");
    let held = unix.try_clone().expect("another descriptor");
    let mut server = builder
        .set("app", format!("unix:{}", path.display()))
        .pass_in("web", tcp.listen())
        .pass_in("app", unix)
        .start();
    let web = Client::tcp(tcp.addr());
    for _ in 0..20 {
        assert_eq!(web.get("/").expect(200).text(), "all 127.0.0.1");
        assert_eq!(server.client_of("app").get("/").expect(200).text(), "all ");
    }
    let app = Request::get("/").host("app.test");
    let said = server.client_of("app").request(&app).expect(200);
    assert_eq!(said.text(), "app");
    assert_eq!(web.request(&app).expect(200).text(), "all 127.0.0.1");

    // They come and go with reloads, as they are kept.
    let mut idle = web.connect();
    let _ = idle.get("/").expect(200);
    server.reload_with(HELLO);
    idle.expect_gone();
    server.reload_with(config);
    assert_eq!(web.get("/").expect(200).text(), "all 127.0.0.1");

    server.write_config(&format!("listen \"fd:other\" {HELLO}"));
    let output = server.reload();
    let said = output.stdout + &output.stderr;
    let expected = "cannot listen on fd:other: no such socket was passed in; there are web, app";
    assert!(
        output.code.is_some_and(|code| code != 0) && said.contains(expected),
        "{said}"
    );

    // It is not ours: neither its file nor what waits in it goes with the server.
    server.signal(Signal::TERM);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
    assert!(is_socket(&path));
    let _waits = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
    held.set_nonblocking(true).expect("not waiting");
    held.accept().expect("the next one gets it");
}

#[test]
fn without_the_socket_the_start_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = format!(
        "listen \"fd:web\" server {{ admin = \"unix:{}/admin.sock\" }} {HELLO}",
        dir.path().display()
    );
    std::fs::write(dir.path().join("forebay.lua"), config).expect("a file");
    let output = forebay_tests::server::run_in(dir.path(), &["run", "forebay.lua"]);
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    let expected = "cannot listen on fd:web: no socket was passed in";
    assert!(output.stderr.contains(expected), "{}", output.stderr);
}

#[test]
fn systemd_starts_it_with_its_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = format!(
        "listen \"fd:web\" server {{ admin = \"unix:{}/admin.sock\", workers = 2 }} {HELLO}",
        dir.path().display()
    );
    let file = dir.path().join("forebay.lua");
    std::fs::write(&file, config).expect("a file");
    let path = dir.path().join("web.sock");
    let mut child = std::process::Command::new("systemd-socket-activate")
        .args(["--fdname=web", "-l"])
        .arg(&path)
        .arg(forebay_tests::server::binary())
        .arg("run")
        .arg(&file)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("systemd-socket-activate, of the Debian package systemd");
    let client = Client::new(Endpoint::Unix(path.clone()));
    wait::until("the socket", || is_socket(&path));
    wait::until("somebody who listens", || client.try_connect().is_ok());
    for _ in 0..10 {
        assert_eq!(client.get("/").expect(200).text(), "hello");
    }
    let pid = i32::try_from(child.id()).ok();
    let pid = pid
        .and_then(rustix::process::Pid::from_raw)
        .expect("a process");
    rustix::process::kill_process(pid, Signal::TERM).expect("a running server");
    assert!(child.wait().expect("its end").success());
}
