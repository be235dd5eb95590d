//! The step `fastcgi` before an application that says what the test has it say, record by record.

use std::time::{Duration, Instant};

use forebay_tests::php::{App, Asked, record};
use forebay_tests::{Builder, Request, Server, pattern, wait};

fn builder(app: &App, options: &str) -> Builder {
    Server::builder(&format!(
        "site {{ \"*\", name = \"here\", fastcgi \"@app@\" {options} }}"
    ))
    .set("app", app.target())
}

fn plain(app: &App) -> Server {
    builder(app, "").start()
}

const OK: &str = "Content-Type: text/plain\r\n\r\nhello";

#[test]
fn fcgi_s6_2_a_request_as_it_should_be() {
    let app = App::start();
    let server = plain(&app);
    let mut client = server.client().connect();
    client.send(&Request::post("/a%20b?c", "body").host("a.test"));
    let mut asked = app.accept();
    assert_eq!((asked.id, asked.keeps), (1, true));
    assert_eq!(asked.read_stdin(), b"body");
    let names = [
        "SCRIPT_NAME",
        "PATH_INFO",
        "DOCUMENT_URI",
        "REQUEST_URI",
        "CONTENT_LENGTH",
    ];
    let values = names.map(|name| asked.param(name).unwrap_or("-").to_owned());
    assert_eq!(values, ["", "/a b", "/a b", "/a%20b?c", "4"]);
    assert_eq!(asked.param("SCRIPT_FILENAME"), None);
    for (name, _) in &asked.params {
        assert!(asked.param(name).is_some(), "{name} once");
    }
    asked.answer(OK);
    assert_eq!(client.read_response().expect(200).text(), "hello");
    // The next one comes on the same connection, with the same id.
    client.send(&Request::get("/"));
    asked.read_params();
    assert_eq!(asked.id, 1);
    assert_eq!(asked.read_stdin(), b"");
    assert_eq!(asked.param("CONTENT_LENGTH"), None);
    asked.answer(OK);
    assert_eq!(client.read_response().expect(200).text(), "hello");
}

#[test]
fn fcgi_s5_5_an_end_that_comes_after_the_body_is_waited_for() {
    let app = App::start();
    let server = plain(&app);
    let mut client = server.client().connect();
    client.send(&Request::get("/"));
    let mut asked = app.accept();
    let _ = asked.read_stdin();
    asked.stdout("Content-Type: text/plain\nContent-Length: 5\n\nhello");
    // The client has all of it; the application has not done yet, and must not be cut off.
    assert_eq!(client.read_response().expect(200).text(), "hello");
    asked.stderr("and this for the log");
    asked.end();
    client.send(&Request::get("/again"));
    asked.read_params();
    let _ = asked.read_stdin();
    asked.answer(OK);
    assert_eq!(client.read_response().expect(200).text(), "hello");
    server.wait_stderr("and this for the log");
    // One that goes without a word has said all the same what it had to say.
    client.send(&Request::get("/gone"));
    asked.read_params();
    let _ = asked.read_stdin();
    asked.stdout("Content-Type: text/plain\nContent-Length: 5\n\nhello");
    drop(asked);
    assert_eq!(client.read_response().expect(200).text(), "hello");
    client.send(&Request::get("/next"));
    let mut asked = app.accept();
    let _ = asked.read_stdin();
    asked.answer(OK);
    assert_eq!(client.read_response().expect(200).text(), "hello");
}

#[test]
fn fcgi_s3_3_padding_pieces_and_empty_streams() {
    let app = App::start();
    let server = plain(&app);
    let mut client = server.client().connect();
    client.send(&Request::get("/"));
    let mut asked = app.accept();
    let _ = asked.read_stdin();
    // Byte by byte, padded, both streams ended.
    let mut bytes = record(6, 1, b"Content-Type: text/plain\n\nhe");
    bytes[6] = 3;
    bytes.extend(b"xyz");
    bytes.extend(record(6, 1, b"llo"));
    bytes.extend(record(6, 1, b""));
    bytes.extend(record(7, 1, b""));
    bytes.extend(record(3, 1, &[0; 8]));
    for byte in bytes {
        asked.raw(&[byte]);
    }
    assert_eq!(client.read_response().expect(200).text(), "hello");
    client.send(&Request::get("/again"));
    asked.read_params();
    let _ = asked.read_stdin();
    asked.answer(OK);
    assert_eq!(client.read_response().expect(200).text(), "hello");
}

#[test]
fn a_connection_is_kept_only_if_all_is_well() {
    let app = App::start();
    let server = plain(&app);
    let client = server.client();
    let ask = || {
        let mut conn = client.connect();
        conn.send(&Request::get("/"));
        conn
    };
    let mut conn = ask();
    let mut first = app.accept();
    let _ = first.read_stdin();
    // More behind the end: nobody knows whose that is.
    let mut bytes = record(6, 1, OK.as_bytes());
    bytes.extend(record(3, 1, &[0; 8]));
    bytes.extend(record(6, 1, b"evil"));
    first.raw(&bytes);
    assert_eq!(conn.read_response().expect(200).text(), "hello");
    first.expect_closed();
    // The application closes it: no harm, and no request is lost.
    let mut conn = ask();
    let mut second = app.accept();
    let _ = second.read_stdin();
    second.answer(OK);
    assert_eq!(conn.read_response().expect(200).text(), "hello");
    drop(second);
    let mut conn = ask();
    let mut third = app.accept();
    let _ = third.read_stdin();
    third.answer(OK);
    assert_eq!(conn.read_response().expect(200).text(), "hello");
}

/// Of two requests that begin together, the first to be answered keeps its connection, though the
/// other one's has not been heard from: unless that takes so long that it may wait for a process.
#[test]
fn connections_are_kept_beside_new_ones() {
    wait::until("a round that takes less than 10 ms", || {
        // A server remembers for a while who was slow.
        let app = App::start();
        let server = plain(&app);
        let begun = Instant::now();
        let mut conns = ["/0", "/1"].map(|target| {
            let mut conn = server.client().connect();
            conn.send(&Request::get(target));
            conn
        });
        let [mut first, mut second] = [app.accept(), app.accept()];
        let other = usize::from(first.param("REQUEST_URI") == Some("/0"));
        let mut finish = |asked: &mut Asked, number: usize| {
            let _ = asked.read_stdin();
            asked.answer(OK);
            assert_eq!(conns[number].read_response().expect(200).text(), "hello");
            conns[number].send(&Request::get("/again"));
        };
        finish(&mut first, 1 - other);
        let is_kept = wait::until_some("the next request, or the end", || first.goes_on());
        if is_kept {
            first.read_params();
            assert_eq!(first.param("REQUEST_URI"), Some("/again"));
        } else {
            // The server has decided so before the end could be seen, after 10 ms by its own clock:
            // counted from the last tick of the kernel's before the turn that it began in.
            let took = begun.elapsed();
            assert!(took > Duration::from_millis(4), "not kept after {took:?}");
        }
        finish(&mut second, other);
        is_kept
    });
}

#[test]
fn garbage_is_502() {
    let app = App::start();
    let server = builder(&app, "{ retries = 0 }").start();
    let end = record(3, 1, &[0; 8]);
    let stdout = |text: &str| record(6, 1, text.as_bytes());
    let with_end = |text: &str| [stdout(text), end.clone()].concat();
    for (what, bytes) in [
        ("no FastCGI", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        ("another version", vec![2, 6, 0, 1, 0, 0, 0, 0]),
        ("another request's", record(6, 2, b"Content-Type: a/b\n\nx")),
        ("no type", record(77, 1, b"x")),
        ("a question", record(9, 0, b"")),
        ("an end of another length", record(3, 1, &[0; 4])),
        ("an unknown end", record(3, 1, &[0, 0, 0, 0, 9, 0, 0, 0])),
        ("nothing", end.clone()),
        ("half a head", with_end("Content-Type: a/b\n")),
        ("no head", with_end("hello world\n\n")),
        ("no fields", with_end("\r\n\r\nx")),
        (
            "a whole response",
            with_end("HTTP/1.1 200 OK\r\nA: b\r\n\r\n"),
        ),
        ("a bad status", with_end("Status: 99\n\n")),
        ("a status above", with_end("Status: 700\n\n")),
        ("a split field", with_end("A: b\rSet-Cookie: x\n\n")),
        (
            "two lengths",
            with_end("Content-Length: 1\nContent-Length: 2\n\nxx"),
        ),
        ("too short", with_end("Content-Length: 10\n\nshort")),
        ("too many fields", with_end(&("A: b\n".repeat(101) + "\n"))),
        ("too long a head", stdout(&"A: ".to_owned().repeat(21_845))),
    ] {
        let mut conn = server.client().connect();
        conn.send(&Request::get("/"));
        let mut asked = app.accept();
        let _ = asked.read_stdin();
        asked.raw(&bytes);
        if what == "too long a head" {
            asked.raw(&stdout(&"b".repeat(1000)));
        }
        assert_eq!(conn.read_response().status(), 502, "{what}");
        asked.expect_closed();
    }
}

#[test]
fn what_ends_in_the_middle_is_visibly_broken_off() {
    let app = App::start();
    let server = plain(&app);
    for bytes in [
        // The connection ends, another request's record comes, data come after their end.
        vec![],
        record(6, 3, b"x"),
        [record(6, 1, b""), record(6, 1, b"x")].concat(),
    ] {
        let mut conn = server.client().connect();
        conn.send(&Request::get("/"));
        let mut asked = app.accept();
        let _ = asked.read_stdin();
        asked.stdout("Content-Type: a/b\r\n\r\nhalf");
        let (head, _) = conn.read_head();
        assert_eq!(head.status, 200);
        conn.expect_bytes(b"4\r\nhalf\r\n");
        asked.raw(&bytes);
        drop(asked);
        conn.expect_gone();
    }
}

#[test]
fn more_than_announced_is_cut() {
    let app = App::start();
    let server = plain(&app);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let mut asked = app.accept();
    let _ = asked.read_stdin();
    asked.answer("Content-Length: 3\r\n\r\nabcdef");
    let response = conn.read_response().expect(200);
    assert_eq!(
        (response.text(), response.field("content-length")),
        ("abc", Some("3"))
    );
    server.wait_stderr("more than its Content-Length");
}

#[test]
fn rfc3875_6_2_2_a_local_redirect_is_served_here() {
    let app = App::start();
    let server = Server::builder(
        r#"site { "*", limit { concurrency = 1 },
             route "/page" { respond(200, "the page $query_string by $method") },
             route "/admin/*" { deny "0.0.0.0/0", respond(200, "secret") },
             fastcgi "@app@" }"#,
    )
    .set("app", app.target())
    .start();
    let ask = |request: &Request, answer: &str| {
        let mut conn = server.client().connect();
        conn.send(request);
        let mut asked = app.accept();
        let _ = asked.read_stdin();
        asked.answer(answer);
        drop(asked);
        conn.read_response()
    };
    let to_page = "Location: /page?a=b\r\n\r\n";
    let got = ask(&Request::post("/x", "body"), to_page).expect(200);
    assert_eq!(got.text(), "the page a=b by GET");
    // From the top: nothing that guards a path is gone round.
    let got = ask(&Request::get("/x"), "Location: /admin/x\n\n");
    assert_eq!(got.status(), 403);
    // Those for the client go to the client.
    for (answer, status) in [
        ("Location: https://b.test/\n\n", 302),
        ("Status: 301 Moved\nLocation: /page\n\n", 301),
        ("Location: //b.test/\n\n", 302),
    ] {
        let got = ask(&Request::get("/x"), answer).expect(status);
        assert!(got.field("location").is_some(), "{answer}");
    }
    assert_eq!(
        ask(&Request::get("/x"), "Location: /../../x\n\n").status(),
        502
    );
    assert_eq!(ask(&Request::get("/x"), "Location: /a b\n\n").status(), 502);
}

#[test]
fn local_redirects_come_to_an_end() {
    let app = App::start();
    let server = plain(&app);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/a"));
    let mut asked = app.accept();
    for number in 0..6 {
        if number > 0 {
            asked.read_params();
        }
        let _ = asked.read_stdin();
        asked.answer(format!("Location: /a{number}\n\n"));
    }
    assert_eq!(conn.read_response().status(), 502);
}

#[test]
fn what_was_not_begun_goes_to_another_peer() {
    let (busy, free) = (App::start(), App::start());
    let server = Server::builder(
        r#"local apps = upstream "apps" { "@busy@", "@free@", balance = "first" }
           site { "*", fastcgi(apps) { buffer_request = "1KB" } }"#,
    )
    .set("busy", busy.target())
    .set("free", free.target())
    .start();
    // §5.5: overloaded. Not even a POST has been begun.
    for status in [2, 1] {
        let mut conn = server.client().connect();
        conn.send(&Request::post("/", "body"));
        let mut asked = busy.accept();
        let _ = asked.read_stdin();
        asked.send(3, &[0, 0, 0, 0, status, 0, 0, 0]);
        let mut asked = free.accept();
        assert_eq!(asked.read_stdin(), b"body");
        asked.answer(OK);
        drop(asked);
        assert_eq!(conn.read_response().expect(200).text(), "hello");
    }
    // A role it does not have it will not have the next time.
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let mut asked = busy.accept();
    let _ = asked.read_stdin();
    asked.send(3, &[0, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(conn.read_response().status(), 502);
    // What was sent and broken off is tried again only if it may be.
    let mut conn = server.client().connect();
    conn.send(&Request::post("/", "body"));
    let mut asked = busy.accept();
    let _ = asked.read_stdin();
    drop(asked);
    assert_eq!(conn.read_response().status(), 502);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let mut asked = busy.accept();
    let _ = asked.read_stdin();
    drop(asked);
    let mut asked = free.accept();
    let _ = asked.read_stdin();
    asked.answer(OK);
    assert_eq!(conn.read_response().expect(200).text(), "hello");
}

#[test]
fn an_upload_is_not_read_faster_than_it_is_taken() {
    let app = App::start();
    let server = plain(&app);
    let len = 64 << 20;
    let mut conn = server.client().connect();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n");
    conn.raw(head);
    let mut asked = app.accept();
    let mut writer = conn.writer();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = sent.clone();
    let sending = std::thread::spawn(move || {
        let piece = pattern::bytes(1 << 16);
        for _ in 0..len >> 16 {
            if writer.send(&piece).is_err() {
                return;
            }
            count.fetch_add(1 << 16, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // It comes to a halt, however long one looks.
    let mut before = usize::MAX;
    wait::until("the upload to stand still", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        now == std::mem::replace(&mut before, now) && now > 0
    });
    assert!(before < 16 << 20, "{before} bytes were taken");
    assert_eq!(asked.read_stdin().len(), len);
    sending.join().expect("a sender");
    asked.answer(OK);
    assert_eq!(conn.read_response().expect(200).text(), "hello");
}

/// A process of PHP is busy with a request from its first byte on.
#[test]
fn an_upload_that_is_taken_in_first_keeps_no_application_busy() {
    let app = App::start();
    let server = builder(&app, r#"{ buffer_request = "1MB" }"#).start();
    let mut slow = server.client().connect();
    slow.raw("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nbegun");
    slow.wait_until_read();
    let mut quick = server.client().connect();
    quick.send(&Request::post("/quick", "body"));
    let mut asked = app.accept();
    assert_eq!(
        asked.param("REQUEST_URI"),
        Some("/quick"),
        "the other waits"
    );
    let _ = asked.read_stdin();
    asked.answer(OK);
    assert_eq!(quick.read_response().expect(200).text(), "hello");
    drop(asked);
    slow.raw("ended");
    let mut asked = app.accept();
    assert_eq!(asked.param("REQUEST_URI"), Some("/slow"));
    assert_eq!(asked.read_stdin(), b"begunended");
    asked.answer(OK);
    assert_eq!(slow.read_response().expect(200).text(), "hello");
}

#[test]
fn a_client_that_leaves_closes_the_connection() {
    let app = App::start();
    let server = plain(&app);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let mut asked = app.accept();
    let _ = asked.read_stdin();
    conn.abort();
    asked.expect_closed();
    // Also in the middle of an upload.
    let mut conn = server.client().connect();
    conn.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegun");
    let mut asked = app.accept();
    assert_eq!(asked.record(), Some((5, b"begun".to_vec())));
    conn.abort();
    asked.expect_closed();
    // And of an answer.
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let mut asked = app.accept();
    let _ = asked.read_stdin();
    asked.stdout("Content-Type: text/plain\r\n\r\nbegun");
    let _ = conn.read_head();
    conn.abort();
    asked.expect_closed();
}

#[test]
fn an_answer_before_the_whole_request_is_passed_on() {
    let app = App::start();
    let server = plain(&app);
    let mut conn = server.client().connect();
    conn.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegun");
    let mut asked = app.accept();
    assert_eq!(asked.record(), Some((5, b"begun".to_vec())));
    asked.answer("Status: 413 Too Large\r\nContent-Type: text/plain\r\n\r\nno");
    assert_eq!(conn.read_response().expect(413).text(), "no");
    asked.expect_closed();
}

#[test]
fn the_log_holds_what_it_says_and_no_more() {
    let app = App::start();
    let server = plain(&app);
    for _ in 0..3 {
        let mut conn = server.client().connect();
        conn.send(&Request::get("/"));
        let mut asked = app.accept();
        let _ = asked.read_stdin();
        asked.stderr("a word\nand \x07 another\n");
        for _ in 0..20 {
            asked.stderr("x".repeat(10_000));
        }
        asked.answer(OK);
        drop(asked);
        assert_eq!(conn.read_response().expect(200).text(), "hello");
    }
    server.wait_stderr("the application says");
    let log = server.stderr();
    assert!(log.contains(r"a word\nand \u{7} another"), "{log}");
    assert!(log.contains("site=\"here\""), "{log}");
    assert!(log.len() < 3 * 24 * 1024, "{} bytes", log.len());
}

#[test]
fn an_event_stream_may_be_silent() {
    let app = App::start();
    let server = builder(&app, r#"{ read_timeout = "150ms" }"#).start();
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let mut asked = app.accept();
    let _ = asked.read_stdin();
    asked.stdout("Content-Type: text/event-stream\r\n\r\ndata: 1\n\n");
    let _ = conn.read_head();
    conn.expect_bytes(b"9\r\ndata: 1\n\n\r\n");
    conn.expect_silence(Duration::from_millis(400));
    asked.stdout("data: 2\n\n");
    conn.expect_bytes(b"9\r\ndata: 2\n\n\r\n");
    asked.end();
    conn.expect_bytes(b"0\r\n\r\n");
}

#[test]
fn the_cookie_of_a_pool_is_not_the_applications() {
    let app = App::start();
    let server = Server::builder(
        r#"local apps = upstream "apps" { "@app@", "127.0.0.1:1", sticky = "peer", balance = "first" }
           site { "*", fastcgi(apps) }"#,
    )
    .set("app", app.target())
    .server(r#"state = "@dir@/state""#)
    .start();
    let ask = |request: &Request| {
        let mut conn = server.client().connect();
        conn.send(request);
        let mut asked = app.accept();
        let _ = asked.read_stdin();
        asked.answer(OK);
        (asked, conn.read_response().expect(200))
    };
    let (asked, first) = ask(&Request::get("/"));
    drop(asked);
    let cookie = first.field("set-cookie").expect("a cookie");
    let cookie = cookie.split(';').next().expect("a pair");
    let (asked, second) = ask(&Request::get("/").field("Cookie", &format!("a=1; {cookie}; b=2")));
    assert_eq!(asked.param("HTTP_COOKIE"), Some("a=1; b=2"));
    assert_eq!(second.field("set-cookie"), None);
}

#[test]
fn a_loop_is_found() {
    let app = App::start();
    let server = plain(&app);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let mut asked = app.accept();
    let _ = asked.read_stdin();
    let own = asked.param("HTTP_CDN_LOOP").expect("a name").to_owned();
    asked.answer(OK);
    assert_eq!(conn.read_response().status(), 200);
    let again = Request::get("/").field("CDN-Loop", &format!("{own}, {own}"));
    assert_eq!(server.client().request(&again).status(), 508);
}

#[test]
fn a_reload_keeps_connections_of_a_pool_that_stays() {
    let app = App::start();
    let config = |more: &str| {
        format!(
            "site {{ \"*\", headers {{ response = {{ x = \"{more}\" }} }}, fastcgi \"@app@\" }}"
        )
    };
    let server = Server::builder(&config("1"))
        .set("app", app.target())
        .workers(1)
        .start();
    let ask = || {
        let mut conn = server.client().connect();
        conn.send(&Request::get("/"));
        conn
    };
    let mut conn = ask();
    let mut asked = app.accept();
    let _ = asked.read_stdin();
    asked.answer(OK);
    assert_eq!(conn.read_response().expect(200).field("x"), Some("1"));
    server.reload_with(&config("2"));
    let mut conn = ask();
    asked.read_params();
    let _ = asked.read_stdin();
    asked.answer(OK);
    assert_eq!(conn.read_response().expect(200).field("x"), Some("2"));
    // With the pool its connections go.
    server.reload_with("site { \"*\", respond(200) }");
    asked.expect_closed();
}
