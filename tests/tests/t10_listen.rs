//! Listeners that are no plain TCP socket, and who is believed what about clients.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_tests::load::Load;
use forebay_tests::peers::Nginx;
use forebay_tests::{Builder, Gate, Origin, Request, Script, Server, proc, wait};
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
    let endpoint = forebay_tests::client::Endpoint::Unix(path.clone());
    assert_eq!(forebay_tests::Client::new(endpoint).get("/").text(), "new");
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
