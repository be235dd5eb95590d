//! Access logs: what is written, when, and what happens when it cannot be.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use forebay_tests::origin::script::Act;
use forebay_tests::port::Reserved;
use forebay_tests::server::binary;
use forebay_tests::{Client, Gate, Origin, Request, Script, Server, pattern, wait};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(10);

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits until there are so many lines, and no more.
#[track_caller]
fn wait_lines(path: &Path, count: usize) -> Vec<String> {
    wait::until(&format!("{count} lines in {}", path.display()), || {
        lines(path).len() >= count
    });
    let lines = lines(path);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

/// The value of a number or text in a line of JSON.
#[track_caller]
fn member(line: &str, name: &str) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
    value[name].clone()
}

#[test]
fn a_line_for_each_exchange_with_what_was_sent() {
    let origin = Origin::setup()
        .route("/chunked", Script::chunked(&["abc", "defg"], ""))
        .route("/big", Script::pattern(300_000))
        .start();
    let server = Server::builder(
        r#"site { "*", access_log "@dir@/a.log" { format = "$method $uri $status $bytes $peer" },
             route "/app/*" { rewrite "/$rest", proxy "@origin@" },
             route "/text" { respond(201, "hello") },
             files "@dir@/www" }"#,
    )
    .origin("origin", &origin)
    .file("www/small.txt", "12345")
    .file("www/large.bin", pattern::bytes(100_000))
    .start();
    let mut conn = server.client().connect();
    let _ = conn.get("/text").expect(201);
    let _ = conn.get("/none").expect(404);
    let _ = conn.get("/small.txt").expect(200);
    let _ = conn
        .exchange(&Request::new("HEAD", "/small.txt"))
        .expect(200);
    let _ = conn.get("/large.bin").expect(200);
    let _ = conn.get("/app/chunked").expect(200);
    let _ = conn.get("/app/big").expect(200);
    let path = server.dir().join("a.log");
    let got = wait_lines(&path, 7);
    let page = got[1].split(' ').nth(3).expect("a number").to_owned();
    let target = origin.target();
    assert_ne!(page, "0", "the error's page");
    assert_eq!(
        got,
        [
            "GET /text 201 5 ".to_owned(),
            format!("GET /none 404 {page} "),
            "GET /small.txt 200 5 ".to_owned(),
            "HEAD /small.txt 200 0 ".to_owned(),
            "GET /large.bin 200 100000 ".to_owned(),
            format!("GET /chunked 200 7 {target}"),
            format!("GET /big 200 300000 {target}"),
        ]
    );
    let mode = path.metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn combined_and_json_with_secrets_masked_and_bytes_escaped() {
    let server = Server::builder(
        r#"site { "*", access_log "@dir@/a.log", access_log "@dir@/b.log" { format = "json" },
             respond(200, "ok") }"#,
    )
    .server(r#"redact = { "pin", "x_*" }"#)
    .start();
    let _ = server
        .client()
        .raw(
            b"GET /p?pin=1234&X_a=s3&token=t HTTP/1.0\r\nHost: a.test\r\n\
              Referer: http://r/?pin=5\r\nUser-Agent: a\"\xff\r\n\r\n",
        )
        .expect(200);
    let combined = wait_lines(&server.dir().join("a.log"), 1).remove(0);
    assert!(combined.starts_with("127.0.0.1 - - ["), "{combined}");
    let end = "] \"GET /p?pin=***&X_a=***&token=t HTTP/1.0\" 200 2 \"http://r/?pin=***\" \
               \"a\\x22\\xFF\"";
    assert!(combined.ends_with(end), "{combined}");
    let json = wait_lines(&server.dir().join("b.log"), 1).remove(0);
    assert_eq!(member(&json, "uri"), "/p?pin=***&X_a=***&token=t");
    assert_eq!(member(&json, "user_agent"), "a\"\\xFF");
    assert_eq!(member(&json, "host"), "a.test");
}

#[test]
fn every_pipelined_request_has_its_line() {
    let server = Server::builder(
        r#"site { "*", access_log "@dir@/a.log" { format = "$path" }, respond(200, "ok") }"#,
    )
    .start();
    let requests: Vec<Request> = (0..500).map(|n| Request::get(&format!("/{n}"))).collect();
    let _ = server.client().connect().pipeline(&requests);
    let got = wait_lines(&server.dir().join("a.log"), 500);
    let expected: Vec<String> = (0..500).map(|n| format!("/{n}")).collect();
    assert_eq!(got, expected);
}

#[test]
fn what_was_broken_off_is_told() {
    let gate = Gate::new();
    let origin = Origin::setup()
        .route("/stalls", Script::new().then(Act::Stall))
        .route(
            "/short",
            Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").close(),
        )
        .start();
    let server = Server::builder(
        r#"site { "*", access_log "@dir@/a.log" { format = "json" },
             route "/www/*" { rewrite "/$rest", files "@dir@/www" }, proxy "@origin@" }"#,
    )
    .origin("origin", &origin)
    .file("www/big.bin", pattern::bytes(32 << 20))
    .start();
    let log = server.dir().join("a.log");

    // Takes some of it and leaves.
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/www/big.bin"));
    let _ = conn.read_head();
    conn.abort();
    let line = wait_lines(&log, 1).remove(0);
    assert_eq!(
        (member(&line, "status"), member(&line, "fault")),
        (200.into(), "client_gone".into())
    );
    let bytes = member(&line, "bytes").as_u64().expect("a number");
    assert!(bytes < 32 << 20, "{line}");

    // Leaves before there is an answer.
    let mut conn = server.client().connect();
    conn.send(&Request::get("/stalls"));
    let _ = origin.wait_requests(1);
    conn.abort();
    let line = wait_lines(&log, 2).remove(1);
    assert_eq!(
        (member(&line, "status"), member(&line, "bytes")),
        (499.into(), 0.into())
    );

    // The application breaks off.
    let mut conn = server.client().connect();
    conn.send(&Request::get("/short"));
    assert!(conn.try_read_response().is_err());
    let line = wait_lines(&log, 3).remove(2);
    assert_eq!(member(&line, "fault"), "truncated", "{line}");
    assert_eq!(member(&line, "peer"), origin.target().as_str());
    gate.open();
}

#[test]
fn sigusr1_and_reload_open_the_files_anew() {
    let config = r#"site { "*", access_log "@dir@/a.log" { format = "$path" }, respond(200) }"#;
    let server = Server::start(config);
    let [log, first, second] = ["a.log", "a.1", "a.2"].map(|name| server.dir().join(name));
    let _ = server.client().get("/1").expect(200);
    assert_eq!(wait_lines(&log, 1), ["/1"]);
    std::fs::rename(&log, &first).expect("a file");
    server.signal(Signal::USR1);
    wait::until("a new file", || log.exists());
    let _ = server.client().get("/2").expect(200);
    assert_eq!(wait_lines(&log, 1), ["/2"]);
    std::fs::rename(&log, &second).expect("a file");
    let _ = server.reload().expect(0);
    wait::until("a new file", || log.exists());
    let _ = server.client().get("/3").expect(200);
    assert_eq!(wait_lines(&log, 1), ["/3"]);
    assert_eq!(
        (lines(&first), lines(&second)),
        (vec!["/1".into()], vec!["/2".into()])
    );
    // Another file, and none.
    server.reload_with(
        r#"site { "*", access_log "@dir@/b.log" { format = "$path" }, respond(200) }"#,
    );
    let _ = server.client().get("/4").expect(200);
    assert_eq!(wait_lines(&server.dir().join("b.log"), 1), ["/4"]);
    server.reload_with(r#"site { "*", respond(204) }"#);
    let _ = server.client().get("/5").expect(204);
    assert_eq!(lines(&log).len(), 1);
}

#[test]
fn nothing_is_lost_at_the_stop() {
    let origin = Origin::always(Script::new().then(Act::Stall));
    let mut server = Server::builder(
        r#"site { "*", access_log "@dir@/a.log" { format = "$path $status $bytes" },
             route "/stalls" { proxy "@origin@" }, route "/big.bin" { files "@dir@/www" },
             respond(200) }"#,
    )
    .origin("origin", &origin)
    .file("www/big.bin", pattern::bytes(32 << 20))
    .server(r#"drain = "1s""#)
    .start();
    let mut stuck = server.client().connect();
    stuck.send(&Request::get("/stalls"));
    let _ = origin.wait_requests(1);
    let mut slow = server.client().receive_buffer(16 << 10).connect();
    slow.send(&Request::get("/big.bin"));
    let _ = slow.read_head();
    for n in 0..20 {
        let _ = server.client().get(&format!("/{n}")).expect(200);
    }
    server.signal(Signal::TERM);
    assert!(server.wait_exit(PATIENCE).success());
    let mut got = lines(&server.dir().join("a.log"));
    got.sort();
    assert_eq!(got.len(), 22, "{got:#?}");
    // What was under way and is cut had no status.
    assert!(got.contains(&"/stalls 0 0".to_owned()), "{got:#?}");
    let big = got
        .iter()
        .find_map(|line| line.strip_prefix("/big.bin 200 "));
    let bytes: u64 = big.and_then(|bytes| bytes.parse().ok()).expect("a line");
    assert!(bytes > 0 && bytes < 32 << 20, "{bytes}");
}

#[test]
fn a_reload_with_a_log_that_cannot_be_written_changes_nothing() {
    let server = Server::builder(
        r#"site { "*", access_log "@dir@/a.log" { format = "$path" }, respond(200) }"#,
    )
    .start();
    server.write_config(r#"site { "*", access_log "@dir@/none/a.log", respond(204) }"#);
    let output = server.reload().expect(2);
    let expected = format!("there is no directory {}/none", server.dir().display());
    assert!(output.stderr.contains(&expected), "{}", output.stderr);
    let _ = server.client().get("/x").expect(200);
    assert_eq!(wait_lines(&server.dir().join("a.log"), 1), ["/x"]);
}

/// The value of a metric without labels.
#[track_caller]
fn metric(client: &Client, name: &str) -> u64 {
    let response = client.get("/metrics").expect(200);
    let line = response.text().lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        value.parse().ok()
    });
    line.unwrap_or_else(|| panic!("no {name} in {}", response.text()))
}

#[test]
fn who_does_not_read_the_log_stalls_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = Reserved::new();
    let config = format!(
        "server {{ workers = 1, admin = \"unix:{0}/admin.sock\" }} listen \"{1}\" {{ max_request_line = \"32KB\" }}\n\
         site {{ \"*\", route \"/metrics\" {{ metrics }},\n\
           access_log \"stdout\", access_log \"{0}/a.log\" {{ format = \"$status\" }}, respond(200) }}",
        dir.path().display(),
        port.addr()
    );
    let path = dir.path().join("forebay.lua");
    std::fs::File::create(&path)
        .and_then(|mut file| file.write_all(config.as_bytes()))
        .expect("a configuration");
    // Nobody reads this pipe.
    let mut server = Command::new(binary())
        .arg("run")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the forebay binary to run");
    let client = Client::tcp(port.addr());
    wait::until("it to listen", || client.try_connect().is_ok());
    let target = format!("/{}", "x".repeat(16_000));
    let mut conn = client.connect();
    // 16 MB of lines, for which there is room for 8.
    for _ in 0..1_000 {
        let _ = conn.get(&target).expect(200);
    }
    let dropped = metric(&client, "forebay_access_log_dropped_lines_total");
    assert!(dropped > 200, "{dropped}");
    assert_eq!(metric(&client, "forebay_access_log_failed_lines_total"), 0);
    drop(server.stdout.take());
    server.kill().expect("it runs");
    let _ = server.wait();
}

#[test]
fn the_file_belongs_to_the_user_that_the_server_becomes() {
    use std::os::unix::fs::MetadataExt;
    assert!(
        rustix::process::geteuid().is_root(),
        "this case has to run as root"
    );
    let config =
        r#"site { "*", access_log "@dir@/logs/a.log" { format = "$path" }, respond(200) }"#;
    let builder = Server::builder(config)
        .server(r#"user = "nobody:nogroup""#)
        .file("logs/old.log", "")
        .open_to_all();
    let logs = builder.dir().join("logs");
    std::fs::set_permissions(&logs, std::fs::Permissions::from_mode(0o777)).expect("permissions");
    let server = builder.start();
    let _ = server.client().get("/1").expect(200);
    let log = logs.join("a.log");
    assert_eq!(wait_lines(&log, 1), ["/1"]);
    assert_ne!(log.metadata().expect("a file").uid(), 0);
    // What it may not write to it does not take either.
    std::fs::set_permissions(&logs, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    server.write_config(&config.replace("a.log", "b.log"));
    let output = server.reload().expect(2);
    assert!(
        output.stderr.contains("cannot be written to"),
        "{}",
        output.stderr
    );
    let _ = server.client().get("/2").expect(200);
    assert_eq!(wait_lines(&log, 2), ["/1", "/2"]);
}
