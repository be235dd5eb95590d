//! The step `fastcgi` before php-fpm: requests and answers, what is kept, and who fails.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_tests::php::PhpFpm;
use forebay_tests::port::Reserved;
use forebay_tests::{Builder, Request, Server, pattern, wait};

const HELLO: &str =
    "<?php echo 'hello ', $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['QUERY_STRING'];";
const ECHO: &str = "<?php header('Content-Type: application/octet-stream');\
                    header('X-Length: ' . ($_SERVER['CONTENT_LENGTH'] ?? 'none'));\
                    $in = fopen('php://input', 'r'); while (!feof($in)) { echo fread($in, 8192); }";
/// Says something, then waits for a file that its query names.
const WAITS: &str = "<?php echo 'begun '; flush(); $until = $_SERVER['DOCUMENT_ROOT'] . '/' . $_GET['f'];\
     for ($i = 0; $i < 2000 && !file_exists($until); $i++) { usleep(5000); clearstatcache(); }\
     echo 'done';";
/// The same without saying anything before.
const SILENT: &str = "<?php $until = $_SERVER['DOCUMENT_ROOT'] . '/' . $_GET['f'];\
     touch($until . '.begun');\
     for ($i = 0; $i < 2000 && !file_exists($until); $i++) { usleep(5000); clearstatcache(); }\
     echo 'done';";

fn builder(php: &PhpFpm, config: &str) -> Builder {
    Server::builder(config)
        .set("php", php.target())
        .set("root", php.root())
}

/// A server with this pipeline; `@php@` and `@root@` are the application's.
fn before(php: &PhpFpm, pipeline: &str) -> Server {
    builder(php, &format!("site {{ \"*\", {pipeline} }}")).start()
}

fn plain(php: &PhpFpm) -> Server {
    before(php, r#"fastcgi "@php@" { root = "@root@" }"#)
}

#[test]
fn a_page_is_made_by_php() {
    let php = PhpFpm::start(2, &[("index.php", HELLO), ("echo.php", ECHO)]);
    let server = plain(&php);
    let client = server.client();
    let response = client.get("/?a=b").expect(200);
    assert_eq!(response.text(), "hello GET a=b");
    assert_eq!(
        response.field("content-type"),
        Some("text/html; charset=UTF-8")
    );
    assert_eq!(response.field("content-length"), Some("13"));
    assert_eq!(client.get("/any/where").expect(200).text(), "hello GET ");
    let head = client.request(&Request::head("/")).expect(200);
    assert_eq!(head.body.len(), 0);
    let posted = client.request(&Request::post("/echo.php", "a=b&c=d"));
    let posted = posted.expect(200);
    assert_eq!(
        (posted.text(), posted.field("x-length")),
        ("a=b&c=d", Some("7"))
    );
}

#[test]
fn status_redirects_and_cookies_are_the_clients() {
    let php = PhpFpm::start(
        2,
        &[
            ("404.php", "<?php http_response_code(404); echo 'none';"),
            ("to.php", "<?php header('Location: /there?x=1');"),
            (
                "cookie.php",
                "<?php setcookie('a', '1'); setcookie('b', '2');",
            ),
            ("204.php", "<?php http_response_code(204);"),
        ],
    );
    let server = plain(&php);
    let client = server.client();
    assert_eq!(client.get("/404.php").expect(404).text(), "none");
    let to = client.get("/to.php").expect(302);
    assert_eq!(to.field("location"), Some("/there?x=1"));
    let cookies = client.get("/cookie.php").expect(200);
    assert_eq!(cookies.head.all("set-cookie").len(), 2);
    assert!(client.get("/204.php").expect(204).body.is_empty());
    // Whoever sent no body gets the next answer on the same connection.
    let mut conn = client.connect();
    for _ in 0..3 {
        assert_eq!(conn.get("/204.php").status(), 204);
        assert_eq!(conn.get("/404.php").text(), "none");
        assert_eq!(conn.exchange(&Request::head("/404.php")).status(), 404);
    }
}

#[test]
fn bodies_stream_both_ways() {
    let php = PhpFpm::start(2, &[("echo.php", ECHO), ("waits.php", WAITS)]);
    let server = plain(&php);
    let body = pattern::bytes(5_000_000);
    let response = server.client().request(&Request::post("/echo.php", &body));
    assert!(response.expect(200).body == body, "5 MB come back");
    // A byte goes out when it comes.
    let mut conn = server.client().connect();
    conn.send(&Request::get("/waits.php?f=go"));
    let (head, _) = conn.read_head();
    assert_eq!(head.status, 200);
    conn.expect_bytes(b"6\r\nbegun \r\n");
    php.file("go", "");
    conn.expect_bytes(b"4\r\ndone\r\n0\r\n\r\n");
}

#[test]
fn a_body_of_unknown_length_is_taken_in_first() {
    let php = PhpFpm::start(4, &[("echo.php", ECHO)]);
    let server = plain(&php);
    let chunked = |pieces: &[&[u8]]| Request::new("POST", "/echo.php").chunks(pieces);
    let response = server.client().request(&chunked(&[b"one ", b"two"]));
    let response = response.expect(200);
    assert_eq!(
        (response.text(), response.field("x-length")),
        ("one two", Some("7"))
    );
    let large = pattern::bytes(1 << 20);
    let asked = chunked(&[&large[..1000], &large[1000..]]);
    assert!(server.client().request(&asked).expect(200).body == large);
    let asked = chunked(&[&large, b"more"]);
    assert_eq!(server.client().request(&asked).status(), 411);
    let server = before(
        &php,
        r#"fastcgi "@php@" { root = "@root@", buffer_request = "2MB" }"#,
    );
    let response = server.client().request(&asked).expect(200);
    assert_eq!(response.body.len(), large.len() + 4);
}

/// A process of php-fpm belongs to one connection, also to one that is only kept.
#[test]
fn kept_connections_keep_no_request_waiting() {
    let php = PhpFpm::start(1, &[("index.php", HELLO)]);
    let pipeline = r#"fastcgi "@php@" { root = "@root@" }"#;
    let server = builder(&php, &format!("site {{ \"*\", {pipeline} }}"))
        .workers(4)
        .start();
    // Connections end up at all workers, each of which would keep one of its own.
    for _ in 0..40 {
        let begun = Instant::now();
        assert_eq!(server.client().get("/").expect(200).text(), "hello GET ");
        assert!(begun.elapsed() < Duration::from_secs(5), "it stood still");
    }
}

#[test]
fn more_requests_than_processes_are_all_answered() {
    let php = PhpFpm::start(2, &[("slow.php", "<?php usleep(20000); echo getmypid();")]);
    let server = builder(
        &php,
        "site { \"*\", fastcgi \"@php@\" { root = \"@root@\" } }",
    )
    .workers(2)
    .start();
    for _ in 0..3 {
        let ask = || {
            let client = server.client();
            std::thread::spawn(move || client.get("/slow.php").expect(200).text().to_owned())
        };
        let asked: Vec<_> = (0..24).map(|_| ask()).collect();
        let pids: std::collections::HashSet<String> = asked
            .into_iter()
            .map(|thread| thread.join().expect("an answer"))
            .collect();
        assert_eq!(pids.len(), 2, "both processes work: {pids:?}");
    }
}

/// All the others have it behind a Unix socket.
#[test]
fn over_tcp_it_is_the_same() {
    let port = Reserved::new();
    let user = match rustix::process::geteuid().is_root() {
        true => "user = www-data\ngroup = www-data\n",
        false => "",
    };
    let pool = format!(
        "[tcp]\nlisten = {}\npm = static\npm.max_children = 2\n{user}\
         php_admin_value[post_max_size] = 20M",
        port.addr()
    );
    let scripts = [
        ("index.php", HELLO),
        ("echo.php", ECHO),
        ("waits.php", WAITS),
    ];
    let mut php = PhpFpm::start_with(1, &pool, &scripts);
    let server = Server::builder("site { \"*\", fastcgi \"@tcp@\" { root = \"@root@\" } }")
        .set("tcp", port.addr().to_string())
        .set("root", php.root())
        .start();
    wait::until("its port", || {
        std::net::TcpStream::connect(port.addr()).is_ok()
    });
    let mut conn = server.client().connect();
    for _ in 0..3 {
        assert_eq!(conn.get("/a?b").expect(200).text(), "hello GET b");
    }
    let body = pattern::bytes(5_000_000);
    let echoed = conn.exchange(&Request::post("/echo.php", &body));
    assert!(echoed.expect(200).body == body, "5 MB come back");
    conn.send(&Request::get("/waits.php?f=go"));
    let _ = conn.read_head();
    conn.expect_bytes(b"6\r\nbegun \r\n");
    php.file("go", "");
    conn.expect_bytes(b"4\r\ndone\r\n0\r\n\r\n");
    php.stop();
    assert_eq!(server.client().get("/").status(), 502);
    php.run();
    wait::until("it to be there again", || {
        server.client().get("/").status() == 200
    });
}

/// A Unix socket refuses at once (EAGAIN) what its backlog has no room for.
#[test]
fn a_short_backlog_is_no_fault() {
    let script = "<?php usleep(5000); echo 'done';";
    let php = PhpFpm::start_with(1, "listen.backlog = 2", &[("a.php", script)]);
    let server = plain(&php);
    let threads: Vec<_> = (0..40)
        .map(|_| {
            let client = server.client();
            std::thread::spawn(move || client.get("/a.php").status())
        })
        .collect();
    let statuses: Vec<u16> = threads
        .into_iter()
        .map(|thread| thread.join().expect("an answer"))
        .collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// As long as it may take to connect, and then it is 503: it is there, and busy.
#[test]
fn a_backlog_that_stays_full_is_503() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let listener = listener.expect("a socket");
    let address = socket2::SockAddr::unix(&path).expect("an address");
    listener.bind(&address).expect("a socket");
    listener.listen(0).expect("a socket");
    let _only = std::os::unix::net::UnixStream::connect(&path).expect("the one it takes");
    let server = Server::builder(
        "site { \"*\", fastcgi \"unix:@app@\" { connect_timeout = \"300ms\", retries = 0 } }",
    )
    .set("app", path.display().to_string())
    .start();
    let begun = Instant::now();
    assert_eq!(server.client().get("/").status(), 503);
    assert!(
        begun.elapsed() > Duration::from_millis(250),
        "it has waited"
    );
}

#[test]
fn down_is_502_and_up_again_is_200() {
    let mut php = PhpFpm::start(2, &[("index.php", HELLO)]);
    let server = plain(&php);
    assert_eq!(server.client().get("/").status(), 200);
    php.stop();
    assert_eq!(server.client().get("/").status(), 502);
    assert_eq!(server.client().get("/").status(), 502);
    php.run();
    assert_eq!(server.client().get("/").expect(200).text(), "hello GET ");
    // A kept connection whose process is gone costs no request.
    php.stop();
    php.run();
    assert_eq!(server.client().get("/").expect(200).text(), "hello GET ");
}

#[test]
fn exhausted_is_a_queue_and_then_503() {
    let php = PhpFpm::start(1, &[("silent.php", SILENT)]);
    let server = builder(
        &php,
        r#"local php = upstream "php" { "@php@", max_connections = 1, queue = 1 }
           site { "*", fastcgi(php) { root = "@root@" } }"#,
    )
    .start();
    let ask = |target: &'static str| {
        let mut conn = server.client().connect();
        conn.send(&Request::get(target));
        conn
    };
    let mut first = ask("/silent.php?f=one");
    let begun = Path::new(&php.root()).join("one.begun");
    wait::until("the first request", || begun.exists());
    let mut second = ask("/silent.php?f=one");
    wait::until("the second to wait", || {
        server.command("status").stdout.contains("1 requests wait")
    });
    // Who has waited longest is refused first.
    let mut third = ask("/silent.php?f=one");
    let refused = second.read_response().expect(503);
    assert!(refused.field("retry-after").is_some());
    php.file("one", "");
    assert_eq!(first.read_response().expect(200).text(), "done");
    assert_eq!(third.read_response().expect(200).text(), "done");
}

#[test]
fn who_waits_for_a_place_for_too_long_is_503() {
    let php = PhpFpm::start(1, &[("silent.php", SILENT)]);
    let server = builder(
        &php,
        r#"local php = upstream "php" { "@php@", max_connections = 1, queue_timeout = "300ms" }
           site { "*", fastcgi(php) { root = "@root@" } }"#,
    )
    .start();
    let mut first = server.client().connect();
    first.send(&Request::get("/silent.php?f=one"));
    let begun = Path::new(&php.root()).join("one.begun");
    wait::until("the first request", || begun.exists());
    let since = Instant::now();
    let refused = server.client().get("/silent.php?f=one").expect(503);
    assert!(refused.field("retry-after").is_some());
    assert!(
        since.elapsed() > Duration::from_millis(250),
        "it has waited"
    );
    php.file("one", "");
    assert_eq!(first.read_response().expect(200).text(), "done");
}

#[test]
fn who_is_too_slow_is_504() {
    let php = PhpFpm::start(2, &[("silent.php", SILENT), ("waits.php", WAITS)]);
    let server = before(
        &php,
        r#"fastcgi "@php@" { root = "@root@", first_byte_timeout = "200ms", read_timeout = "200ms", retries = 0 }"#,
    );
    assert_eq!(server.client().get("/silent.php?f=x").status(), 504);
    // In the middle of an answer nobody can say that any more: it is visibly broken off.
    let mut conn = server.client().connect();
    conn.send(&Request::get("/waits.php?f=y"));
    assert!(conn.try_read_response().is_err(), "it is not complete");
    php.file("x", "");
    php.file("y", "");
}

#[test]
fn a_process_that_dies_spoils_its_own_request_only() {
    let kill = "exec('kill -9 ' . getmypid());";
    let php = PhpFpm::start(
        2,
        &[
            ("index.php", HELLO),
            ("die.php", &format!("<?php {kill}")),
            ("half.php", &format!("<?php echo 'half'; flush(); {kill}")),
        ],
    );
    let server = before(&php, r#"fastcgi "@php@" { root = "@root@", retries = 0 }"#);
    for _ in 0..2 {
        assert_eq!(server.client().get("/die.php").status(), 502);
        let mut conn = server.client().connect();
        conn.send(&Request::get("/half.php"));
        assert!(conn.try_read_response().is_err(), "it is not complete");
        assert_eq!(server.client().get("/").expect(200).text(), "hello GET ");
    }
}

#[test]
fn what_php_says_is_logged_with_site_and_request() {
    let php = PhpFpm::start(
        2,
        &[(
            "says.php",
            "<?php error_log(\"a \\x1b[2J word\"); error_log(str_repeat('x', 40000)); echo 'ok';",
        )],
    );
    let server = builder(
        &php,
        r#"site { "*", name = "shop", headers { response = { x_id = "$id" } },
             fastcgi "@php@" { root = "@root@" } }"#,
    )
    .start();
    let response = server.client().get("/says.php").expect(200);
    let id = response.field("x-id").expect("an id").to_owned();
    server.wait_stderr("the application says");
    server.wait_stderr(&id);
    let log = server.stderr();
    assert!(log.contains("site=\"shop\""), "{log}");
    assert!(log.contains("a \\u{1b}[2J word"), "it is escaped: {log}");
    assert!(log.len() < 30_000, "it is bounded: {}", log.len());
}

#[test]
fn a_client_that_leaves_ends_its_script() {
    let php = PhpFpm::start(
        2,
        &[(
            "long.php",
            "<?php register_shutdown_function(function () {\
               touch($_SERVER['DOCUMENT_ROOT'] . (connection_aborted() ? '/gone' : '/there')); });\
             for ($i = 0; $i < 2000; $i++) { echo 'x'; flush(); usleep(5000); }",
        )],
    );
    let server = plain(&php);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/long.php"));
    let _ = conn.read_head();
    conn.abort();
    let gone = Path::new(&php.root()).join("gone");
    wait::until("the script to end", || gone.exists());
}

#[test]
fn what_php_marks_is_cached() {
    let count = "<?php header('Cache-Control: max-age=60');\
                 $f = $_SERVER['DOCUMENT_ROOT'] . '/n'; $n = (int) @file_get_contents($f) + 1;\
                 file_put_contents($f, $n); echo $n;";
    let php = PhpFpm::start(2, &[("count.php", count)]);
    php.file("n", "0");
    let writable = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(Path::new(&php.root()).join("n"), writable).expect("permissions");
    let server = before(&php, r#"cache, fastcgi "@php@" { root = "@root@" }"#);
    let client = server.client();
    let first = client.get("/count.php").expect(200);
    let second = client.get("/count.php").expect(200);
    assert_eq!((first.text(), second.text()), ("1", "1"));
    assert!(
        second
            .field("cache-status")
            .is_some_and(|s| s.contains("hit"))
    );
    assert_eq!(client.get("/count.php?2").expect(200).text(), "2");
}

#[test]
fn files_go_out_in_the_place_of_an_answer() {
    let php = PhpFpm::start(
        4,
        &[
            (
                "sendfile.php",
                "<?php header('Content-Type: application/pdf'); header('X-Kept: 1');\
                              header('X-Sendfile: ' . $_GET['f']); echo 'never seen';",
            ),
            (
                "accel.php",
                "<?php header('X-Accel-Redirect: ' . $_GET['f']);",
            ),
        ],
    );
    let body = pattern::bytes(100_000);
    let server = builder(
        &php,
        r#"site { "*", fastcgi "@php@" { root = "@root@", send_files = "@dir@/secret" } }"#,
    )
    .file("secret/a/b.pdf", &body)
    .file("public/x", "x")
    .start();
    let client = server.client();
    let path = server.dir().join("secret/a/b.pdf").display().to_string();
    let whole = client.get(&format!("/sendfile.php?f={path}")).expect(200);
    assert!(whole.body == body, "the file");
    assert_eq!(whole.field("content-type"), Some("application/pdf"));
    assert_eq!(whole.field("x-kept"), Some("1"));
    assert_eq!(
        (whole.field("x-sendfile"), whole.field("content-length")),
        (None, Some("100000"))
    );
    let part = Request::get(&format!("/sendfile.php?f={path}")).field("Range", "bytes=10-19");
    let part = client.request(&part).expect(206);
    assert!(part.body == body[10..20], "a part of it");
    let etag = whole.field("etag").expect("a tag");
    let again = Request::get(&format!("/sendfile.php?f={path}")).field("If-None-Match", etag);
    assert_eq!(client.request(&again).status(), 304);
    let accel = client.get("/accel.php?f=/a/b.pdf").expect(200);
    assert!(accel.body == body && accel.field("x-accel-redirect").is_none());
    assert_eq!(client.get("/accel.php?f=/a/none").status(), 404);
    for outside in ["/etc/passwd", "../public/x", "a/b.pdf", "", "/"] {
        let got = client.get(&format!("/sendfile.php?f={outside}"));
        assert_eq!(
            got.status(),
            if outside.is_empty() { 200 } else { 502 },
            "{outside}"
        );
    }
    assert_eq!(client.get("/accel.php?f=/../public/x").status(), 502);
    // Without the option it is a field as any other.
    let server = plain(&php);
    let got = server
        .client()
        .get("/sendfile.php?f=/etc/passwd")
        .expect(200);
    assert_eq!(got.text(), "never seen");
}

#[test]
fn health_is_asked_for_in_fastcgi() {
    let mut php = PhpFpm::start(1, &[("index.php", HELLO)]);
    let server = builder(
        &php,
        r#"local php = upstream "php" { "@php@",
             health = { kind = "fastcgi", every = "50ms", timeout = "2s", up = 1, down = 1 } }
           site { "*", fastcgi(php) { root = "@root@" } }"#,
    )
    .workers(2)
    .start();
    // A kept connection holds the only process: the check gets it all the same.
    for _ in 0..5 {
        assert_eq!(server.client().get("/").status(), 200);
        std::thread::sleep(Duration::from_millis(60));
    }
    assert!(
        !server.stderr().contains("the peer is down"),
        "{}",
        server.stderr()
    );
    php.stop();
    server.wait_stderr("the peer is down");
    // A check whose connection was still taken finds it unwell first, which is better than none: a
    // request is tried with it.
    wait::until("503: there is nobody", || {
        server.client().get("/").status() == 503
    });
    php.run();
    server.wait_stderr("the peer is up");
    assert_eq!(server.client().get("/").status(), 200);
}

/// php-fpm ends a process, and with it a connection that is kept, right behind its last answer.
#[test]
fn processes_that_are_replaced_cost_no_request() {
    let script = "<?php echo file_get_contents('php://input');";
    let php = PhpFpm::start_with(4, "pm.max_requests = 3", &[("in.php", script)]);
    let server = builder(
        &php,
        "site { \"*\", fastcgi \"@php@\" { root = \"@root@\" } }",
    )
    .workers(2)
    .start();
    let hammer = |number: usize| {
        let client = server.client();
        std::thread::spawn(move || {
            let mut conn = client.connect();
            for round in 0..150 {
                let body = format!("{number} {round}");
                let response = conn.exchange(&Request::post("/in.php", &body));
                assert_eq!(response.expect(200).text(), body);
            }
        })
    };
    let threads: Vec<_> = (0..4).map(hammer).collect();
    for thread in threads {
        thread.join().expect("every POST is answered");
    }
}
