//! Thousands of programs, and processes under load.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use forebay_tests::{Request, Server, proc, wait};

#[test]
fn ten_thousand_runs_leave_nothing() {
    let server = Server::builder(r#"site { "*", cgi "@dir@/cgi" }"#)
        .file(
            "cgi/hello",
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello'\n",
        )
        .start();
    let program = server.dir().join("cgi/hello");
    std::fs::set_permissions(program, Permissions::from_mode(0o755)).expect("a mode");
    let _ = server.client().get("/hello").expect(200);
    let before = proc::rss(server.pid());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut conn = server.client().connect();
                for _ in 0..2_500 {
                    assert_eq!(conn.get("/hello").expect(200).text(), "hello");
                }
            });
        }
    });
    println!("{:?} for 10,000 runs", start.elapsed());
    // The server and its helper.
    wait::until("nothing is left", || proc::tree(server.pid()).len() == 2);
    let grown = proc::rss(server.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

#[test]
fn who_waits_for_a_program_for_too_long_is_503() {
    let server = Server::builder(r#"site { "*", cgi "@dir@/cgi" { concurrency = 1 } }"#)
        .file("cgi/slow", "#!/bin/sh\nsleep 1000\n")
        .start();
    let program = server.dir().join("cgi/slow");
    std::fs::set_permissions(program, Permissions::from_mode(0o755)).expect("a mode");
    let mut first = server.client().connect();
    first.send(&Request::get("/slow"));
    wait::until("it runs", || proc::tree(server.pid()).len() > 2);
    let begun = Instant::now();
    let client = server.client().patience(Duration::from_secs(30));
    let refused = client.get("/slow").expect(503);
    assert!(refused.field("retry-after").is_some());
    let took = begun.elapsed().as_secs();
    assert!((9..20).contains(&took), "{took} s");
}

const APP: &str = r#"
import os, socket, time
listener = socket.socket(fileno=3)
while True:
    conn, _ = listener.accept()
    conn.recv(65536)
    time.sleep(0.002)
    body = b"%d" % os.getpid()
    try: conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    except OSError: pass
    conn.close()
"#;

fn serve(options: &str) -> Server {
    let config = format!(
        "local app = processes \"app\" {{ \"python3\", \"app.py\", protocol = \"http\", {options} }}\n\
         site {{ \"*\", proxy(app) }}"
    );
    Server::builder(&config).file("app.py", APP).start()
}

#[test]
fn processes_that_are_killed_under_load_fail_their_own_requests_only() {
    let server = serve("count = 4");
    let is_over = AtomicBool::new(false);
    let (served, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut killed = 0;
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let client = server.client();
                while !is_over.load(Ordering::Relaxed) {
                    // A POST is not asked again.
                    let response = client.request(&Request::post("/", "x"));
                    match response.status() {
                        200 => served.fetch_add(1, Ordering::Relaxed),
                        502 => failed.fetch_add(1, Ordering::Relaxed),
                        other => panic!("status {other}"),
                    };
                }
            });
        }
        for round in 1..=10 {
            wait::until("some are served", || {
                served.load(Ordering::Relaxed) > round * 100
            });
            let all = proc::tree(server.pid());
            if let Some(pid) = all.get(2).and_then(|pid| i32::try_from(*pid).ok()) {
                let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                killed += 1;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let failed = failed.load(Ordering::Relaxed);
    assert!(failed <= killed, "{failed} failed, {killed} were killed");
}

#[test]
fn two_hundred_at_once_are_served_in_turn_by_four() {
    let server = serve("count = { 1, 4 }");
    let client = server.client();
    let mut conns: Vec<_> = (0..200)
        .map(|_| {
            let mut conn = client.connect();
            conn.send(&Request::get("/"));
            conn
        })
        .collect();
    let mut counts = BTreeMap::new();
    for conn in &mut conns {
        let response = conn.read_response().expect(200);
        *counts.entry(response.text().to_owned()).or_insert(0) += 1;
    }
    assert!(counts.len() <= 4, "{counts:?}");
}

#[test]
fn four_hundred_at_once_over_four_equal_ones() {
    let server = serve("count = 4, max_connections = 400");
    let client = server.client().patience(Duration::from_secs(60));
    // Until what starting them took is forgotten.
    let start = Instant::now();
    wait::until_within(
        Duration::from_secs(30),
        "they are measured a few times",
        || {
            let _ = client.get("/").expect(200);
            start.elapsed() > Duration::from_secs(6)
        },
    );
    let mut conns: Vec<_> = (0..400)
        .map(|_| {
            let mut conn = client.connect();
            conn.send(&Request::get("/"));
            conn
        })
        .collect();
    let mut counts = BTreeMap::new();
    for conn in &mut conns {
        let response = conn.read_response().expect(200);
        *counts.entry(response.text().to_owned()).or_insert(0) += 1;
    }
    println!("{counts:?}");
    assert!(
        counts.len() == 4 && counts.values().all(|count| (80..=120).contains(count)),
        "{counts:?}"
    );
}
