//! The step `cgi`, with real programs.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use forebay_tests::{Conn, Request, Response, Server, Trouble, load, pattern, proc, wait};

/// A server for all hosts with this pipeline.
fn serve(pipeline: &str) -> Server {
    Server::builder(&format!("site {{ \"*\",\n{pipeline}\n}}"))
        .file("cgi/plain.txt", "not a program")
        .start()
}

/// One of the programs in the directory `cgi`.
fn site() -> Server {
    serve(r#"cgi "@dir@/cgi""#)
}

fn put(server: &Server, path: &str, text: &str, mode: u32) {
    server.file(path, text);
    let at = server.dir().join(path);
    std::fs::set_permissions(at, Permissions::from_mode(mode)).expect("a mode");
}

/// A program of the shell that says this.
fn shell(server: &Server, name: &str, script: &str) {
    put(
        server,
        &format!("cgi/{name}"),
        &format!("#!/bin/sh\n{script}\n"),
        0o755,
    );
}

const HEAD: &str = r"printf 'Content-Type: text/plain\n\n'";

/// One that prints its environment.
fn env_program(server: &Server) {
    shell(
        server,
        "env",
        &format!("{HEAD}; env; echo dir=$(pwd) arg0=$0; echo args=$#; echo fds=$(ls /proc/$$/fd)"),
    );
}

/// What a program has said of a variable.
fn value<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let mut lines = response.text().lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// The helper, and what it has started.
fn programs(server: &Server) -> Vec<u32> {
    let mut all = proc::tree(helper(server));
    all.remove(0);
    all
}

fn helper(server: &Server) -> u32 {
    children(server.pid())[0]
}

fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("a process");
    let pids = children.split_whitespace();
    pids.map(|pid| pid.parse().expect("a process id")).collect()
}

#[test]
fn a_program_answers() {
    let server = site();
    shell(&server, "hello", &format!("{HEAD}; echo hello"));
    let client = server.client();
    let response = client.get("/hello").expect(200);
    assert_eq!(response.text(), "hello\n");
    assert_eq!(response.field("content-type"), Some("text/plain"));
    let head = client.request(&Request::head("/hello")).expect(200);
    assert!(head.body.is_empty());
    assert_eq!(head.field("content-type"), Some("text/plain"));
}

#[test]
fn programs_of_other_languages_answer() {
    let server = site();
    let python = "#!/usr/bin/env python3\nimport os, sys\n\
        body = sys.stdin.buffer.read(int(os.environ['CONTENT_LENGTH']))\n\
        print('Content-Type: text/plain\\r\\n\\r')\nprint(body[::-1].decode())\n";
    put(&server, "cgi/back.py", python, 0o755);
    let perl = "#!/usr/bin/perl\nprint \"Status: 201 Made\\nX-From: perl\\nContent-Type: text/plain\\n\\n\";\n\
        print \"$ENV{QUERY_STRING}\";\n";
    put(&server, "cgi/made.pl", perl, 0o755);
    let client = server.client();
    let back = client
        .request(&Request::post("/back.py", "abc"))
        .expect(200);
    assert_eq!(back.text(), "cba\n");
    let made = client.get("/made.pl?a=b%20c").expect(201);
    assert_eq!(
        (made.text(), made.field("x-from")),
        ("a=b%20c", Some("perl"))
    );
}

#[test]
fn a_program_knows_what_rfc_3875_says() {
    let server = site();
    server.file("cgi/sub/x", "");
    env_program(&server);
    let request = Request::post("/env/a%20b/../c?q=%41&r", "12345")
        .field("Content-Type", "text/x-y")
        .field("X-One", "1")
        .field("X-One", "2")
        .field("Cookie", "a=b")
        .field("Proxy", "evil")
        .field("X_One", "evil")
        .field("Authorization", "Basic eDp5");
    let response = server.client().request(&request).expect(200);
    let root = format!("{}/cgi", server.dir().display());
    for (name, expected) in [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_NAME", "/env"),
        ("PATH_INFO", "/c"),
        ("QUERY_STRING", "q=%41&r"),
        ("REQUEST_URI", "/env/a%20b/../c?q=%41&r"),
        ("CONTENT_LENGTH", "5"),
        ("CONTENT_TYPE", "text/x-y"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("SERVER_NAME", "forebay.test"),
        ("HTTP_HOST", "forebay.test"),
        ("HTTP_X_ONE", "1, 2"),
        ("HTTP_COOKIE", "a=b"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("DOCUMENT_ROOT", &root),
        ("SCRIPT_FILENAME", &format!("{root}/env")),
        ("PATH_TRANSLATED", &format!("{root}/c")),
        ("dir", &format!("{root} arg0={root}/env")),
    ] {
        assert_eq!(value(&response, name), Some(expected), "{name}");
    }
    for absent in [
        "HTTP_PROXY",
        "HTTP_CONTENT_TYPE",
        "HTTPS",
        "HOME",
        "LISTEN_FDS",
    ] {
        assert_eq!(value(&response, absent), None, "{absent}");
    }
    assert!(!response.text().contains("evil"), "{}", response.text());
    let spaced = server.client().get("/env/a%20b").expect(200);
    assert_eq!(value(&spaced, "PATH_INFO"), Some("/a b"));
    assert_eq!(value(&spaced, "CONTENT_LENGTH"), None);
}

/// RFC 3875 §4.4 lets a query without `=` be arguments; php-cgi took them for options, among them one
/// that shows the source (CVE-2012-1823).
#[test]
fn a_program_has_nothing_but_its_variables() {
    let server = Server::builder(r#"site { "*", cgi "@dir@/cgi" }"#)
        .env("A_SECRET", "of the server's")
        .env("HTTP_PROXY", "http://proxy.test")
        .start();
    env_program(&server);
    let response = server.client().get("/env?-s+-d").expect(200);
    assert_eq!(value(&response, "args"), Some("0"));
    // The last two are the shell's own: what it reads from, its script and what `ls` says.
    assert_eq!(value(&response, "fds"), Some("0 1 10 2 3"));
    let known = "GATEWAY_INTERFACE SERVER_PROTOCOL SERVER_SOFTWARE SERVER_NAME SERVER_PORT SERVER_ADDR \
        REQUEST_METHOD REQUEST_URI REQUEST_SCHEME REDIRECT_STATUS QUERY_STRING SCRIPT_NAME SCRIPT_FILENAME \
        DOCUMENT_ROOT DOCUMENT_URI REMOTE_ADDR REMOTE_PORT PATH HTTP_HOST HTTP_CDN_LOOP \
        PWD OLDPWD SHLVL _ dir args fds";
    for line in response.text().lines() {
        let name = line.split('=').next().unwrap_or_default();
        assert!(known.split(' ').any(|one| one == name), "{line}");
    }
}

#[test]
fn php_cgi_shows_no_source_to_who_asks_for_options() {
    let server = Server::builder(r#"site { "*", cgi "@dir@/cgi" }"#)
        .file(
            "cgi/a.php",
            "#!/usr/bin/env php-cgi\n<?php /* secret */ echo 'ran ', $_SERVER['QUERY_STRING'];",
        )
        .start();
    let program = server.dir().join("cgi/a.php");
    std::fs::set_permissions(program, Permissions::from_mode(0o755)).expect("a mode");
    for query in [
        "-s",
        "-s+-d",
        "%2ds",
        "-d+auto_prepend_file=/etc/passwd",
        "-h",
    ] {
        let got = server.client().get(&format!("/a.php?{query}")).expect(200);
        assert_eq!(got.text(), format!("ran {query}"));
    }
}

#[test]
fn variables_of_the_operator_go_first() {
    let server = serve(
        r#"cgi "@dir@/cgi" { env = { APP = "x-$host", PATH = "/bin", QUERY_STRING = "mine" } }"#,
    );
    env_program(&server);
    let response = server.client().get("/env?theirs").expect(200);
    for (name, expected) in [
        ("APP", "x-forebay.test"),
        ("PATH", "/bin"),
        ("QUERY_STRING", "mine"),
    ] {
        assert_eq!(value(&response, name), Some(expected));
        assert_eq!(response.text().matches(&format!("\n{name}=")).count(), 1);
    }
}

#[test]
fn what_is_no_program_is_passed_on() {
    let server = serve(r#"cgi "@dir@/cgi", respond(200, "the next step")"#);
    shell(&server, "sub/x.sh", &format!("{HEAD}; echo ran $PATH_INFO"));
    shell(&server, ".hidden", &format!("{HEAD}; echo ran"));
    shell(&server, "x.sh~", &format!("{HEAD}; echo ran"));
    std::os::unix::fs::symlink("/bin/true", server.dir().join("cgi/out")).expect("a link");
    let client = server.client();
    for path in [
        "/",
        "/no",
        "/plain.txt",
        "/plain.txt/sub/x.sh",
        "/sub",
        "/sub/",
        "/.hidden",
        "/x.sh~",
        "/out",
        "/sub%2Fx.sh",
        "//sub/x.sh",
    ] {
        assert_eq!(
            client.get(path).expect(200).text(),
            "the next step",
            "{path}"
        );
    }
    assert_eq!(client.get("/sub/x.sh/a/b").expect(200).text(), "ran /a/b\n");
    let response = client.get("/sub/nph-x");
    assert_eq!(response.text(), "the next step");
    shell(&server, "sub/nph-x", r"printf 'HTTP/1.0 200 OK\n\n'");
    assert_eq!(client.get("/sub/nph-x").status(), 501);
}

#[test]
fn programs_are_never_sent_as_files() {
    let server = serve(r#"files "@dir@/cgi", cgi "@dir@/cgi""#);
    for name in ["a.sh", "b", "c.cgi", "index.html"] {
        shell(&server, name, &format!("{HEAD}; echo ran # secret"));
    }
    for name in ["a.sh~", "a.sh.bak", "c.cgi.swp", "c.CGI.old", "b_1", "#b#"] {
        server.file(&format!("cgi/{name}"), "secret");
    }
    let client = server.client();
    assert_eq!(client.get("/plain.txt").expect(200).text(), "not a program");
    for path in ["/a.sh", "/b", "/c.cgi", "/a.sh/plain.txt", "/index.html"] {
        assert_eq!(client.get(path).expect(200).text(), "ran\n", "{path}");
    }
    for path in [
        "/a.sh~",
        "/a.sh.bak",
        "/c.cgi.swp",
        "/c.CGI.old",
        "/b_1",
        "/%23b%23",
        "/C.CGI",
        "/",
        "/b%2F",
    ] {
        let response = client.get(path);
        assert_eq!(response.status(), 404, "{path}");
        assert!(!response.text().contains("secret"), "{path}");
    }
    // One that becomes a program is sent no longer.
    put(&server, "cgi/later", "#!/bin/sh\necho; # secret\n", 0o644);
    assert!(client.get("/later").expect(200).text().contains("secret"));
    put(
        &server,
        "cgi/later",
        &format!("#!/bin/sh\n{HEAD}; echo ran # secret\n"),
        0o755,
    );
    wait::until("it runs", || client.get("/later").text() == "ran\n");
}

#[test]
fn redirects_are_the_clients_or_our_own() {
    let server = serve(
        r#"headers { response = { x_seen = "once" } },
           route "/inner" { respond(200, "inner $method $query_string") },
           cgi "@dir@/cgi""#,
    );
    shell(
        &server,
        "client",
        r"printf 'Location: https://example.com/x\n\n'",
    );
    shell(
        &server,
        "stated",
        r"printf 'Status: 301 Moved\nLocation: /x\n\n'",
    );
    shell(&server, "local", r"printf 'Location: /inner?a=b\n\n'");
    shell(&server, "round", r"printf 'Location: /round\n\n'");
    shell(&server, "bad", r"printf 'Location: //evil.test\nX: y\n\n'");
    let client = server.client();
    let response = client.get("/client").expect(302);
    assert_eq!(response.field("location"), Some("https://example.com/x"));
    assert_eq!(
        client.get("/stated").expect(301).field("location"),
        Some("/x")
    );
    let local = client.get("/local").expect(200);
    assert_eq!(local.text(), "inner GET a=b");
    let posted = client.request(&Request::post("/local", "body")).expect(200);
    assert_eq!(posted.text(), "inner GET a=b");
    assert_eq!(client.get("/round").status(), 502);
    let bad = client.get("/bad");
    assert_eq!(
        (bad.status(), bad.field("location")),
        (302, Some("//evil.test"))
    );
}

#[test]
fn what_is_no_cgi_response_is_502() {
    let server = site();
    for (name, script) in [
        ("silent", ":"),
        ("garbage", "echo hello; echo world; echo"),
        ("http", r"printf 'HTTP/1.1 200 OK\n\n'"),
        ("empty", "echo; echo body"),
        ("headless", "printf 'Content-Type: text/plain\n'"),
        ("status", r"printf 'Status: 99\n\n'"),
        ("informal", r"printf 'Status: 100 Continue\n\n'"),
        ("twice", r"printf 'Status: 200\nStatus: 201\n\n'"),
        ("failed", "exit 3"),
        ("killed", "kill -9 $$"),
        ("endless", "while :; do echo 'X: y'; done"),
    ] {
        shell(&server, name, script);
        let response = server.client().get(&format!("/{name}"));
        assert_eq!(response.status(), 502, "{name}: {}", response.text());
    }
    server.wait_stderr("it was ended by signal 9");
    // What cannot be executed at all.
    put(&server, "cgi/no-interpreter", "#!/no/such/thing\n", 0o755);
    put(&server, "cgi/no-format", "\n\n", 0o755);
    for name in ["/no-interpreter", "/no-format"] {
        assert_eq!(server.client().get(name).status(), 500, "{name}");
    }
    server.wait_stderr("executing it: No such file or directory");
    wait::until("all are ended", || programs(&server).is_empty());
}

#[test]
fn an_upload_and_a_download_are_streamed() {
    let server = site();
    shell(&server, "cat", &format!("{HEAD}; cat"));
    let body = pattern::bytes(40 << 20);
    let mut conn = server.client().connect();
    let mut writer = conn.writer();
    let head = format!(
        "POST /cat HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let before = proc::rss(server.pid());
    let sender = std::thread::spawn(move || {
        writer.send(head.as_bytes()).expect("sent");
        for piece in body.chunks(100_000) {
            writer.send(piece).expect("sent");
        }
    });
    let mut checker = pattern::Checker::at(0);
    let response = conn
        .read_response_with(|piece| checker.feed(piece))
        .expect("a response");
    sender.join().expect("sent");
    assert_eq!((response.status(), checker.offset()), (200, 40 << 20));
    let grown = proc::rss(server.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

#[test]
fn bytes_come_when_the_program_says_them() {
    let server = site();
    shell(
        &server,
        "talk",
        &format!("{HEAD}; echo one; read line; echo \"got $line\"; read line; echo \"got $line\""),
    );
    let mut conn = server.client().connect();
    conn.raw("POST /talk HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n");
    let (head, _) = conn.read_head();
    assert_eq!(head.status, 200);
    conn.expect_bytes(b"4\r\none\n\r\n");
    conn.raw("abc\n");
    conn.expect_bytes(b"8\r\ngot abc\n\r\n");
    conn.raw("def\n");
    conn.expect_bytes(b"8\r\ngot def\n\r\n0\r\n\r\n");
}

#[test]
fn a_body_without_a_length_is_counted_first() {
    let server = site();
    shell(
        &server,
        "len",
        &format!("{HEAD}; echo $CONTENT_LENGTH; cat"),
    );
    let client = server.client();
    let chunked = Request::new("POST", "/len").chunks(&[b"abc", b"defg"]);
    assert_eq!(client.request(&chunked).expect(200).text(), "7\nabcdefg");
    let large = vec![b'x'; 2 << 20];
    let chunked = Request::new("POST", "/len").chunks(&[&large]);
    let mut conn = client.connect();
    let _ = conn.try_raw(chunked.to_bytes());
    assert_eq!(conn.read_response().status(), 411);
    wait::until("all are ended", || programs(&server).is_empty());
}

#[test]
fn a_program_that_takes_no_input_still_answers() {
    let server = site();
    shell(
        &server,
        "deaf",
        &format!("exec <&-; {HEAD}; echo no thanks"),
    );
    let body = vec![b'x'; 300_000];
    let response = server.client().request(&Request::post("/deaf", body));
    assert_eq!((response.status(), response.text()), (200, "no thanks\n"));
}

#[test]
fn lengths_are_kept() {
    let server = site();
    shell(&server, "exact", r"printf 'Content-Length: 3\n\nabcdef'");
    shell(&server, "short", r"printf 'Content-Length: 9\n\nabc'");
    shell(&server, "died", &format!("{HEAD}; echo begun; kill -9 $$"));
    shell(&server, "unhappy", &format!("{HEAD}; echo all; exit 1"));
    let client = server.client();
    let exact = client.get("/exact").expect(200);
    assert_eq!(
        (exact.text(), exact.field("content-length")),
        ("abc", Some("3"))
    );
    for name in ["/short", "/died"] {
        let mut conn = client.connect();
        conn.send(&Request::get(name));
        let cut = conn.try_read_response();
        assert!(matches!(cut, Err(Trouble::Truncated)), "{name}: {cut:?}");
    }
    assert_eq!(client.get("/unhappy").expect(200).text(), "all\n");
}

#[test]
fn too_much_output_is_broken_off() {
    let server = serve(r#"cgi "@dir@/cgi" { output = "10KB" }"#);
    shell(
        &server,
        "much",
        &format!("{HEAD}; head -c 20000 /dev/zero; sleep 1000"),
    );
    shell(
        &server,
        "enough",
        &format!("{HEAD}; head -c 10240 /dev/zero"),
    );
    shell(
        &server,
        "announced",
        r"printf 'Content-Length: 20000\n\n'; sleep 1000",
    );
    let client = server.client();
    assert_eq!(client.get("/enough").expect(200).body.len(), 10_240);
    let mut conn = client.connect();
    conn.send(&Request::get("/much"));
    let cut = conn.try_read_response();
    assert!(matches!(cut, Err(Trouble::Truncated)), "{cut:?}");
    assert_eq!(client.get("/announced").status(), 502);
    wait::until("all are ended", || programs(&server).is_empty());
}

#[test]
fn time_ends_a_program_with_its_children() {
    let server = serve(r#"cgi "@dir@/cgi" { time = "300ms" }"#);
    shell(
        &server,
        "slow",
        "sleep 1000 & trap '' TERM; sleep 1000; sleep 1000",
    );
    shell(&server, "begun", &format!("{HEAD}; echo begun; sleep 1000"));
    let client = server.client();
    assert_eq!(client.get("/slow").status(), 504);
    let mut conn = client.connect();
    conn.send(&Request::get("/begun"));
    let cut = conn.try_read_response();
    assert!(matches!(cut, Err(Trouble::Truncated)), "{cut:?}");
    wait::until("all are ended", || programs(&server).is_empty());
}

#[test]
fn a_client_that_is_slow_does_not_use_up_the_time() {
    let server = serve(r#"cgi "@dir@/cgi" { time = "500ms" }"#);
    shell(&server, "count", &format!("{HEAD}; wc -c"));
    let mut conn = server.client().connect();
    conn.raw("POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    // It runs and waits; twice its time goes by meanwhile.
    wait::until("it runs", || !programs(&server).is_empty());
    conn.slow_write(b"0123456789", 1, Duration::from_millis(100))
        .expect("sent");
    let response = conn.read_response();
    assert_eq!((response.status(), response.text().trim()), (200, "10"));
}

#[test]
fn a_client_that_leaves_takes_its_program_along() {
    let server = site();
    shell(&server, "slow", "sleep 1000 & sleep 1000");
    let mut conn = server.client().connect();
    conn.send(&Request::get("/slow"));
    wait::until("it runs", || programs(&server).len() == 3);
    conn.half_close();
    wait::until("it is ended", || programs(&server).is_empty());
    let server = serve(r#"cgi "@dir@/cgi" { abort_on_close = false }"#);
    shell(
        &server,
        "wait",
        &format!("while [ ! -e go ]; do sleep 0.01; done; {HEAD}; echo done"),
    );
    let mut conn = server.client().connect();
    conn.send(&Request::get("/wait"));
    wait::until("it runs", || !programs(&server).is_empty());
    conn.half_close();
    server.file("cgi/go", "");
    assert_eq!(conn.read_response().expect(200).text(), "done\n");
}

#[test]
fn a_client_that_leaves_in_mid_response_takes_all_of_its_programs_along() {
    let server = site();
    shell(
        &server,
        "endless",
        &format!("(sleep 1000 & sleep 1000) & {HEAD}; while :; do echo more; done"),
    );
    shell(&server, "upload", "sleep 1000 & cat >/dev/null; sleep 1000");
    for _ in 0..2 {
        let mut conn = server.client().connect();
        conn.send(&Request::get("/endless"));
        let _ = conn.read_head();
        wait::until("they run", || programs(&server).len() >= 3);
        conn.abort();
        wait::until("all are ended", || programs(&server).is_empty());
        let mut conn = server.client().connect();
        conn.raw("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbegun");
        wait::until("it runs", || programs(&server).len() == 3);
        conn.abort();
        wait::until("all are ended", || programs(&server).is_empty());
    }
}

#[test]
fn no_more_run_than_may_and_the_others_wait() {
    let server = serve(r#"cgi "@dir@/cgi" { concurrency = 2 }"#);
    shell(
        &server,
        "gate",
        &format!("while [ ! -e go ]; do sleep 0.01; done; {HEAD}; echo done"),
    );
    let client = server.client();
    let mut conns: Vec<_> = (0..5)
        .map(|_| {
            let mut conn = client.connect();
            conn.send(&Request::get("/gate"));
            conn
        })
        .collect();
    // Not what they have started themselves, which looks like them for a moment.
    let shells = || children(helper(&server)).len();
    wait::until("two run", || shells() == 2);
    assert!(shells() <= 2);
    server.file("cgi/go", "");
    for conn in &mut conns {
        assert_eq!(conn.read_response().expect(200).text(), "done\n");
    }
}

#[test]
fn slow_programs_do_not_delay_files() {
    let server = serve(r#"files "@dir@/www", cgi "@dir@/cgi" { concurrency = 50 }"#);
    server.file("www/x.txt", "a file");
    shell(&server, "slow", "sleep 1000");
    let client = server.client();
    // How long files take otherwise, on a machine that may have other things to do.
    let files = |conn: &mut Conn| {
        let begun = std::time::Instant::now();
        for _ in 0..200 {
            assert_eq!(conn.get("/x.txt").expect(200).text(), "a file");
        }
        begun.elapsed()
    };
    let mut conn = client.connect();
    let usual = files(&mut conn);
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let mut conn = client.connect();
            conn.send(&Request::get("/slow"));
            conn
        })
        .collect();
    wait::until("all run", || programs(&server).len() >= 50);
    // Each waits for a moment while programs are started, but for none of them.
    let most = Duration::from_secs(1) + usual * 8;
    load::best_of(3, || {
        let took = files(&mut conn);
        let said = format!("{took:?}, otherwise {usual:?}");
        if took < most { Ok(said) } else { Err(said) }
    });
    assert!(programs(&server).len() >= 50, "they all run still");
    drop(slow);
    wait::until("all are ended", || programs(&server).is_empty());
}

#[test]
fn what_a_program_complains_of_is_in_the_log() {
    let server = site();
    let many = "i=0; while [ $i -lt 200 ]; do echo line-$i >&2; i=$((i+1)); done";
    shell(
        &server,
        "complains",
        &format!("{HEAD}; echo fine; printf 'oh\\033[2J no\\n' >&2; {many}; printf unended >&2"),
    );
    assert_eq!(
        server.client().get("/complains").expect(200).text(),
        "fine\n"
    );
    server.wait_stderr("more lines were dropped");
    let log = server.stderr();
    assert!(log.contains(r"oh\x1b[2J no"), "{log}");
    assert!(
        log.contains("program=complains") && log.contains("line-50"),
        "{log}"
    );
    assert!(!log.contains("line-150"), "{log}");
}

/// How many pipes a process has open.
fn pipes(pid: u32) -> usize {
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a server");
    let links = all.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("pipe:"))
        .count()
}

#[test]
fn nothing_is_left_of_hundreds() {
    let server = site();
    shell(&server, "hello", &format!("{HEAD}; echo hello"));
    let before = pipes(server.pid());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let client = server.client();
            std::thread::spawn(move || {
                let mut conn = client.connect();
                for _ in 0..100 {
                    assert_eq!(conn.get("/hello").expect(200).text(), "hello\n");
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("all served"));
    wait::until("all are gone", || programs(&server).is_empty());
    wait::until("all pipes are closed", || pipes(server.pid()) <= before);
    let memory = proc::anonymous(helper(&server));
    assert!(memory < 2 << 20, "{memory} bytes");
}

#[test]
fn everything_dies_with_a_server_that_is_killed() {
    let mut server = site();
    shell(
        &server,
        "stays",
        "trap '' TERM; setsid sleep 1000 & sleep 1000; sleep 1000",
    );
    let mut conn = server.client().connect();
    conn.send(&Request::get("/stays"));
    wait::until("it runs", || programs(&server).len() == 3);
    let all = proc::tree(server.pid());
    server.signal(rustix::process::Signal::KILL);
    server.wait_exit(wait::PATIENCE);
    let is_alive = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    wait::until("all are dead", || !all.iter().any(is_alive));
}

#[test]
fn a_reload_loses_no_program() {
    let server = site();
    shell(
        &server,
        "wait",
        &format!("while [ ! -e go ]; do sleep 0.01; done; {HEAD}; echo done"),
    );
    let mut conn = server.client().connect();
    conn.send(&Request::get("/wait"));
    wait::until("it runs", || !programs(&server).is_empty());
    server.reload_with(r#"site { "*", respond(200, "new") }"#);
    assert_eq!(server.client().get("/wait").text(), "new");
    server.file("cgi/go", "");
    assert_eq!(conn.read_response().expect(200).text(), "done\n");
}

#[test]
fn another_user_runs_programs_when_root_starts_the_server() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = Server::builder(
        "site { \"*\", route \"/own/*\" { cgi \"@dir@\" }, cgi \"@dir@/cgi\" { user = \"65534:65533\" } }",
    )
    .file("own/x", "")
    .server(r#"user = "65533:65532""#)
    .open_to_all()
    .start();
    shell(
        &server,
        "id",
        &format!("{HEAD}; echo $(id -u) $(id -g) $(id -G)"),
    );
    put(
        &server,
        "own/id",
        &format!("#!/bin/sh\n{HEAD}; echo $(id -u) $(id -g) $(id -G)\n"),
        0o755,
    );
    let client = server.client();
    assert_eq!(client.get("/id").expect(200).text(), "65534 65533 65533\n");
    assert_eq!(
        client.get("/own/id").expect(200).text(),
        "65533 65532 65532\n"
    );
}

#[test]
fn programs_that_run_as_root_are_warned_of() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let config = |processes: &str, cgi: &str| {
        format!(
            "local app = processes \"app\" {{ \"true\", protocol = \"http\", count = 1 {processes} }}\n\
             site {{ \"a.test\", route \"/x\" {{ cgi \"@dir@\" {cgi} }}, proxy(app) }}"
        )
    };
    let user = r#"user = "65534:65534""#;
    let named = config(&format!(", {user}"), &format!("{{ {user} }}"));
    let server = Server::builder(&config("", "")).start();
    server.wait_stderr("processes \"app\": its programs run as root");
    server.wait_stderr("cgi of site \"a.test\": its programs run as root");
    // Also what comes with a reload.
    let server = Server::builder(&named).open_to_all().start();
    server.reload_with(&config("", &format!("{{ {user} }}")));
    server.wait_stderr("processes \"app\": its programs run as root");
    assert!(
        !server.stderr().contains("cgi of site"),
        "{}",
        server.stderr()
    );
    let server = Server::builder(&config("", ""))
        .server(user)
        .open_to_all()
        .start();
    server.wait_stderr("ended with status");
    assert!(!server.stderr().contains("as root"), "{}", server.stderr());
}
