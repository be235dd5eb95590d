//! Big bodies through php-fpm, and through this server as an application; clients that are slow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay_tests::fcgi::{Front, begin, kind, pairs, record};
use forebay_tests::php::PhpFpm;
use forebay_tests::{Origin, Request, Script, Server, pattern};

const LEN: usize = 100 << 20;
const MOST_MEMORY: u64 = 16 << 20;

/// Sends `LEN` bytes of the pattern, whose period is in a file.
const DOWN: &str = "<?php ini_set('max_execution_time', 0); header('Content-Type: a/b');\
    $p = file_get_contents($_SERVER['DOCUMENT_ROOT'] . '/period'); $left = (int) $_GET['len'];\
    while ($left > 0) { $n = min($left, strlen($p)); echo $n == strlen($p) ? $p : substr($p, 0, $n); $left -= $n; }";

/// Compares what comes with the pattern.
const UP: &str = "<?php ini_set('max_execution_time', 0);\
    $p = file_get_contents($_SERVER['DOCUMENT_ROOT'] . '/period'); $len = strlen($p); $at = 0; $pp = $p . $p;\
    $in = fopen('php://input', 'r');\
    while (($s = fread($in, 65536)) != '') {\
      for ($i = 0; $i < strlen($s); $i += $n) { $n = min($len, strlen($s) - $i);\
        if (substr($s, $i, $n) !== substr($pp, ($at + $i) % $len, $n)) { exit('differs at ' . ($at + $i)); } }\
      $at += strlen($s); }\
    echo 'same ', $at;";

fn start(options: &str) -> (PhpFpm, Server) {
    let php = PhpFpm::start(2, &[("down.php", DOWN), ("up.php", UP)]);
    // Half of it: it is twice there, so that pieces can be cut from anywhere.
    php.file("period", period());
    let server = Server::builder(&format!(
        "site {{ \"*\", limit {{ body = \"1GB\" }}, fastcgi \"@php@\" {{ root = \"@root@\" {options} }} }}"
    ))
    .set("php", php.target())
    .set("root", php.root())
    .start();
    (php, server)
}

/// The shortest part of the pattern that repeats.
fn period() -> Vec<u8> {
    let twice = pattern::period();
    twice[..twice.len() / 2].to_vec()
}

/// Runs something and gives how much more memory the server took meanwhile.
fn memory_of(server: &Server, work: impl FnOnce()) -> u64 {
    let before = server.pss();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = server.pss().max(most);
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        work();
        done.store(true, Ordering::Relaxed);
        watch.join().expect("a measurement").saturating_sub(before)
    })
}

#[test]
fn a_huge_download_to_a_slow_client_costs_little() {
    let (_php, server) = start("");
    // What is there once a request was served.
    let mut warm = server.client().connect();
    warm.send(&Request::get("/down.php?len=1000000"));
    let _ = warm.slow_read(0).expect("the whole body");
    let more = memory_of(&server, || {
        let mut conn = server.client().receive_buffer(64 << 10).connect();
        conn.send(&Request::get(&format!("/down.php?len={LEN}")));
        let (head, len) = conn.slow_read(20 << 20).expect("the whole body");
        assert_eq!((head.status, len), (200, LEN as u64));
    });
    assert!(more < MOST_MEMORY, "{more} bytes more");
}

#[test]
fn a_huge_upload_costs_little() {
    let (_php, server) = start("");
    let more = memory_of(&server, || {
        let mut conn = server.client().connect();
        conn.raw(format!(
            "POST /up.php HTTP/1.1\r\nHost: a\r\nContent-Length: {LEN}\r\n\r\n"
        ));
        let whole = period();
        let begun = Instant::now();
        let mut sent = 0;
        while sent < LEN {
            let piece = &whole[..whole.len().min(LEN - sent)];
            conn.more(piece);
            sent += piece.len();
            let due = begun + Duration::from_millis((sent / (20 << 10)) as u64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let said = conn.read_response().expect(200).text().to_owned();
        assert_eq!(said, format!("same {LEN}"));
    });
    assert!(more < MOST_MEMORY, "{more} bytes more");
}

/// This server as an application, before an origin.
fn start_application(origin: &Origin) -> Server {
    Server::builder(
        "listen \"unix:@dir@/app.sock\" { protocol = \"fastcgi\" }\n\
         site { \"*\", limit { body = \"1GB\" }, proxy \"@origin@\" }",
    )
    .origin("origin", origin)
    .start()
}

const PER_SECOND: usize = 20 << 20;

/// Sleeps until so many bytes may have passed.
fn pace(begun: Instant, bytes: usize) {
    let due = begun + Duration::from_millis((bytes / (PER_SECOND / 1000)) as u64);
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

fn ask(web: &mut Front, method: &str, len: &str) {
    web.send(&begin(1, 1, true));
    let params = pairs(&[
        ("REQUEST_METHOD", method),
        ("REQUEST_URI", "/huge"),
        ("HTTP_HOST", "a"),
        ("CONTENT_LENGTH", len),
    ]);
    web.send(&record(kind::PARAMS, 1, &params));
    web.send(&record(kind::PARAMS, 1, b""));
}

#[test]
fn a_huge_response_to_a_slow_web_server_costs_little() {
    let origin = Origin::always(Script::pattern(LEN as u64));
    let server = start_application(&origin);
    let more = memory_of(&server, || {
        let mut web = Front::unix(&server.dir().join("app.sock"));
        ask(&mut web, "GET", "");
        web.send(&record(kind::STDIN, 1, b""));
        let mut checker = pattern::Checker::at(0);
        let (mut head, begun) = (Some(Vec::new()), Instant::now());
        loop {
            let record = web.read_record().expect("a record");
            if record.kind == kind::END {
                break;
            }
            let Some(bytes) = &mut head else {
                checker.feed(&record.content);
                pace(begun, usize::try_from(checker.offset()).expect("a length"));
                continue;
            };
            bytes.extend(record.content);
            let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
            if let Some(end) = end {
                checker.feed(&bytes[end + 4..]);
                head = None;
            }
        }
        assert_eq!(checker.offset(), LEN as u64);
    });
    assert!(more < MOST_MEMORY, "{more} bytes more");
}

#[test]
fn a_huge_request_of_a_slow_web_server_costs_little() {
    let origin = Origin::always(Script::ok("taken"));
    let server = start_application(&origin);
    let more = memory_of(&server, || {
        let mut web = Front::unix(&server.dir().join("app.sock"));
        ask(&mut web, "POST", &LEN.to_string());
        let (whole, begun) = (vec![b'x'; 60_000], Instant::now());
        let mut sent = 0;
        while sent < LEN {
            let piece = &whole[..whole.len().min(LEN - sent)];
            web.send(&record(kind::STDIN, 1, piece));
            sent += piece.len();
            pace(begun, sent);
        }
        web.send(&record(kind::STDIN, 1, b""));
        assert_eq!(web.answer(1).body(), "taken");
    });
    let received = origin.only_request();
    assert_eq!(received.body_len, LEN as u64);
    assert!(more < MOST_MEMORY, "{more} bytes more");
}
