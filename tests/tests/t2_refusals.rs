//! What bad input gets: the status, the end of the connection, and that no origin saw a byte.

use forebay_tests::origin::script::Act;
use forebay_tests::{Origin, Request, Response, Script, Server, Trouble};

/// A server before an origin that must stay untouched.
struct Guard {
    origin: Origin,
    server: Server,
}

impl Guard {
    fn new(pipeline: &str) -> Self {
        let origin = Origin::echo();
        let server = Server::before(&origin, pipeline);
        Self { origin, server }
    }

    fn plain() -> Self {
        Self::new(r#"proxy "@origin@""#)
    }

    /// Sends `head`, and behind it in the same segment a request that is as it should be: what is
    /// refused ends the connection, so nothing behind it may be answered (request smuggling).
    #[track_caller]
    fn refuses(&self, what: &str, head: impl AsRef<[u8]>, statuses: &[u16]) -> Response {
        let mut bytes = head.as_ref().to_vec();
        bytes.extend(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut conn = self.server.client().connect();
        conn.raw(&bytes);
        let got = conn.read_all();
        assert!(
            matches!(got.statuses().as_slice(), [s] if statuses.contains(s)),
            "{what}: {:?} {:?} instead of one of {statuses:?}",
            got.statuses(),
            got.end
        );
        assert!(
            got.responses[0].says_close(),
            "{what}: it does not say that it closes"
        );
        assert_eq!(got.end, Trouble::Closed, "{what}");
        self.origin.expect_untouched();
        got.responses[0].clone()
    }

    /// As [`Guard::refuses`], with 400 and in every split.
    #[track_caller]
    fn refuses_in_every_split(&self, what: &str, head: impl AsRef<[u8]>, status: u16) {
        let head = head.as_ref();
        let _ = self.refuses(what, head, &[status]);
        for (at, got) in self.server.client().split_everywhere(head) {
            assert_eq!(
                got.statuses(),
                [status],
                "{what}, split at {at}: {:?}",
                got.end
            );
        }
        self.origin.expect_untouched();
    }
}

/// `GET / HTTP/1.1` with these field lines.
fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

/// `POST / HTTP/1.1` with these field lines and a body of five bytes.
fn post(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nhello")
}

#[test]
fn ambiguous_lengths() {
    let guard = Guard::plain();
    for (what, fields) in [
        (
            "length and chunks",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "chunks and length",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        (
            "the same length twice",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
        ),
        ("a list of lengths", "Content-Length: 5, 5\r\n"),
        ("a sign", "Content-Length: +5\r\n"),
        ("a negative length", "Content-Length: -5\r\n"),
        ("no length", "Content-Length:\r\n"),
        ("hex", "Content-Length: 0x5\r\n"),
        ("a space within", "Content-Length: 5 5\r\n"),
        ("a point", "Content-Length: 5.0\r\n"),
        ("2^63", "Content-Length: 9223372036854775808\r\n"),
        ("2^64 + 5", "Content-Length: 18446744073709551621\r\n"),
        ("a vertical tab before it", "Content-Length: \x0b5\r\n"),
    ] {
        guard.refuses_in_every_split(what, post(fields), 400);
    }
}

#[test]
fn transfer_codings() {
    let guard = Guard::plain();
    for (what, fields) in [
        ("gzip", "Transfer-Encoding: gzip\r\n"),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
        ("chunked, gzip", "Transfer-Encoding: chunked, gzip\r\n"),
        ("identity", "Transfer-Encoding: identity\r\n"),
        ("xchunked", "Transfer-Encoding: xchunked\r\n"),
        ("chunkedx", "Transfer-Encoding: chunkedx\r\n"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n"),
        ("a parameter", "Transfer-Encoding: chunked;a=b\r\n"),
        ("a quoted one", "Transfer-Encoding: \"chunked\"\r\n"),
    ] {
        guard.refuses_in_every_split(what, post(fields), 501);
    }
    for (what, fields) in [
        (
            "two fields",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ),
        ("an empty field", "Transfer-Encoding:\r\n"),
        ("a control character", "Transfer-Encoding: \x0bchunked\r\n"),
    ] {
        let _ = guard.refuses(what, post(fields), &[400, 501]);
    }
    // RFC 9112 section 6.1: its framing is to be taken as faulty.
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let _ = guard.refuses("chunks in HTTP/1.0", old, &[400, 501]);
}

#[test]
fn malformed_lines() {
    let guard = Guard::plain();
    for (what, head) in [
        ("a folded line", get("X: a\r\n b\r\n")),
        ("a folded line with a tab", get("X: a\r\n\tb\r\n")),
        (
            "a space before the first field",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(),
        ),
        ("a space before a colon", get("X : a\r\n")),
        ("a tab before a colon", get("X\t: a\r\n")),
        (
            "a space before the colon of a length",
            post("Content-Length : 5\r\n"),
        ),
        ("a field without a colon", get("X\r\n")),
        ("a field without a name", get(": a\r\n")),
        ("a bare CR in a value", get("X: a\rb\r\n")),
        ("a bare CR at the end of a value", get("X: a\r\r\n")),
        ("a bare CR in a name", get("X\rY: a\r\n")),
        ("a bare LF after a field", get("X: a\n")),
        (
            "a bare LF after the request line",
            "GET / HTTP/1.1\nHost: a\r\n\r\n".into(),
        ),
        ("bare LFs alone", "GET / HTTP/1.1\nHost: a\n\n".into()),
        (
            "a bare LF as the empty line",
            "GET / HTTP/1.1\r\nHost: a\r\n\n".into(),
        ),
        ("NUL in a value", get("X: a\0b\r\n")),
        ("NUL in a name", get("X\0: a\r\n")),
        ("a control character in a value", get("X: a\x01b\r\n")),
        ("DEL in a value", get("X: a\x7fb\r\n")),
        ("a bracket in a name", get("X[: a\r\n")),
        ("a quote in a name", get("X\": a\r\n")),
    ] {
        guard.refuses_in_every_split(what, head, 400);
    }
}

#[test]
fn malformed_request_lines() {
    let guard = Guard::plain();
    for (what, line) in [
        ("no version", "GET /"),
        ("two spaces", "GET  / HTTP/1.1"),
        ("a trailing space", "GET / HTTP/1.1 "),
        ("a tab", "GET\t/ HTTP/1.1"),
        ("a leading space", " GET / HTTP/1.1"),
        ("no target", "GET HTTP/1.1"),
        ("no slash", "GET x HTTP/1.1"),
        ("a method with a parenthesis", "G(T / HTTP/1.1"),
        ("a method with a colon", "GET: / HTTP/1.1"),
        ("a space in the target", "GET /a b HTTP/1.1"),
        ("a fragment", "GET /a#b HTTP/1.1"),
        ("a control character in the target", "GET /a\x01 HTTP/1.1"),
        ("NUL in the target", "GET /a\0b HTTP/1.1"),
        ("DEL in the target", "GET /a\x7f HTTP/1.1"),
        ("UTF-8 in the target", "GET /\u{e4} HTTP/1.1"),
        ("an asterisk for a GET", "GET * HTTP/1.1"),
        ("an authority for a GET", "GET a:80 HTTP/1.1"),
        ("user information", "GET http://u:p@a/ HTTP/1.1"),
    ] {
        guard.refuses_in_every_split(what, format!("{line}\r\nHost: a\r\n\r\n"), 400);
    }
    guard.refuses_in_every_split("a raw byte", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    for version in [
        "HTTP/0.9",
        "http/1.1",
        "HTTP/1.10",
        "HTTP/11",
        "HTTP/1",
        "HTTP/1.",
        "HTTPS/1.1",
    ] {
        let head = format!("GET / {version}\r\nHost: a\r\n\r\n");
        let _ = guard.refuses(version, head, &[400, 505]);
    }
    let _ = guard.refuses("HTTP/2", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", &[400, 505]);
    let _ = guard.refuses(
        "TLS on a clear port",
        b"\x16\x03\x01\x00\xa5\x01\r\n\r\n",
        &[400],
    );
    let _ = guard.refuses(
        "HTTP/2 itself",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[400, 505],
    );
}

#[test]
fn hosts() {
    let guard = Guard::plain();
    for (what, head) in [
        ("none", "GET / HTTP/1.1\r\n\r\n".into()),
        ("two", get("Host: a\r\n")),
        ("two that differ", get("Host: b\r\n")),
        ("a list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into()),
        ("a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into()),
        ("a slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into()),
        (
            "user information",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(),
        ),
        (
            "a question mark",
            "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n".into(),
        ),
        (
            "a number sign",
            "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n".into(),
        ),
        ("a backslash", "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n".into()),
        (
            "a port that is none",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".into(),
        ),
        (
            "a port too high",
            "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n".into(),
        ),
        ("two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n".into()),
        (
            "an open bracket",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".into(),
        ),
        (
            "a bad IPv6 address",
            "GET / HTTP/1.1\r\nHost: [zz]\r\n\r\n".into(),
        ),
        (
            "another in the target",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        ),
        (
            "another port in the target",
            "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        ),
        (
            "two with HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(),
        ),
    ] {
        guard.refuses_in_every_split(what, head, 400);
    }
}

#[test]
fn a_connection_field_that_names_what_it_may_not() {
    let guard = Guard::plain();
    for name in [
        "Host",
        "Content-Length",
        "content-type",
        "Content-Encoding",
        "Authorization",
        "Cookie",
        "Forwarded",
        "close, Host",
        "keep-alive, authorization",
    ] {
        let fields = format!("Cookie: a\r\nAuthorization: b\r\nConnection: {name}\r\n");
        guard.refuses_in_every_split(name, get(&fields), 400);
    }
}

#[test]
fn what_is_too_long() {
    let guard = Guard::plain();
    let long = "x".repeat(17 << 10);
    let line = format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n");
    let _ = guard.refuses("a request line of 17 KiB", line, &[414]);
    let line = format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n");
    let _ = guard.refuses("a method of 17 KiB", line, &[400, 414, 501]);
    let fields = format!("X: {}\r\n", "x".repeat(65 << 10));
    let _ = guard.refuses("a field of 65 KiB", get(&fields), &[431]);
    let fields = format!("{}: x\r\n", "x".repeat(65 << 10));
    let _ = guard.refuses("a field name of 65 KiB", get(&fields), &[400, 431]);
    let fields: String = (0..70)
        .map(|i| format!("X-{i}: {}\r\n", "x".repeat(1000)))
        .collect();
    let _ = guard.refuses("fields of 70 KiB together", get(&fields), &[431]);
    let fields: String = (0..101).map(|i| format!("X-{i}: x\r\n")).collect();
    let _ = guard.refuses("102 fields", get(&fields), &[431]);
    // And what is just within.
    let line = format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "x".repeat(16 << 10 >> 1)
    );
    let _ = guard.server.client().raw(line).expect(200);
    let fields: String = (0..99).map(|i| format!("X-{i}: x\r\n")).collect();
    let _ = guard.server.client().raw(get(&fields)).expect(200);
    let fields = format!("X: {}\r\n", "x".repeat(60 << 10));
    let _ = guard.server.client().raw(get(&fields)).expect(200);
}

#[test]
fn limits_of_the_listener() {
    let server = Server::builder(r#"site { "*", respond(200) }"#)
        .listen(r#"max_request_line = "1KB", max_header = "2KB""#)
        .start();
    let line = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n));
    let _ = server.client().raw(line(900)).expect(200);
    let _ = server.client().raw(line(1100)).expect(414);
    let field = |n: usize| get(&format!("X: {}\r\n", "x".repeat(n)));
    let _ = server.client().raw(field(1900)).expect(200);
    let _ = server.client().raw(field(2100)).expect(431);
}

#[test]
fn bodies_over_the_limit() {
    let guard = Guard::new(r#"limit { body = "1KB" }, proxy "@origin@""#);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n";
    let mut conn = guard.server.client().connect();
    conn.raw(head);
    let response = conn.read_response().expect(413);
    guard.origin.expect_untouched();
    // What is left is so little that the connection may be kept; then it has to be read past.
    if !response.says_close() {
        conn.more([b'x'; 1025]);
        let _ = conn.get("/next").expect(200);
    }
    let whole = Request::post("/", vec![b'x'; 1024]);
    let _ = guard.server.client().request(&whole).expect(200);
    // In chunks it is found out later: what had begun is broken off.
    let before = guard.origin.requests().len();
    let mut conn = guard.server.client().connect();
    conn.send(&Request::post("/", "").chunks(&[&[b'x'; 1000], &[b'y'; 1000]]));
    let got = conn.read_all();
    assert_eq!(got.statuses(), [413]);
    for request in &guard.origin.requests()[before..] {
        let _ = guard.origin.wait_end(request.conn);
    }
    for request in &guard.origin.requests()[before..] {
        assert!(
            matches!(request.body_end, Some(Err(_))),
            "{:?}",
            request.body_end
        );
    }
}

#[test]
fn the_default_limit_of_a_body_is_a_gigabyte() {
    let guard = Guard::plain();
    let mut conn = guard.server.client().connect();
    conn.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741825\r\n\r\n");
    let _ = conn.read_response().expect(413);
    guard.origin.expect_untouched();
}

#[test]
fn faults_found_in_the_body() {
    let origin = Origin::echo();
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    for (what, body) in [
        ("a size that is no number", "5\r\nhello\r\nxyz\r\n"),
        ("a sign", "5\r\nhello\r\n+1\r\na\r\n0\r\n\r\n"),
        ("0x", "5\r\nhello\r\n0x1\r\na\r\n0\r\n\r\n"),
        ("an empty size", "5\r\nhello\r\n\r\n"),
        ("a chunk longer than its size", "5\r\nhelloX\r\n0\r\n\r\n"),
        ("a chunk shorter than its size", "5\r\nhell\r\n0\r\n\r\n"),
        (
            "a bare LF after the size",
            "5\r\nhello\r\n1\na\r\n0\r\n\r\n",
        ),
        ("a bare LF after the chunk", "5\r\nhello\n0\r\n\r\n"),
        (
            "a bare CR in an extension",
            "5\r\nhello\r\n1;a\rb\r\na\r\n0\r\n\r\n",
        ),
        ("a size of 2^64", "5\r\nhello\r\n10000000000000000\r\na"),
        (
            "a space before the size",
            "5\r\nhello\r\n 1\r\na\r\n0\r\n\r\n",
        ),
        ("a folded trailer", "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
        (
            "a trailer with a space before its colon",
            "5\r\nhello\r\n0\r\nX : a\r\n\r\n",
        ),
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut conn = server.client().connect();
        conn.raw(format!("{head}{body}"));
        let got = conn.read_all();
        assert_eq!(got.statuses(), [400], "{what}: {:?}", got.end);
        assert!(got.responses[0].says_close(), "{what}");
    }
    // Everything that reached the origin was broken off visibly, each on a connection of its own.
    for (id, seen) in origin.connections().iter().enumerate() {
        if seen.received > 0 {
            let _ = origin.wait_end(id);
        }
        assert!(seen.requests <= 1, "connection {id} was used again");
    }
    for request in origin.requests() {
        assert!(
            !matches!(request.body_end, Some(Ok(()))),
            "{:?}",
            request.body_end
        );
    }
}

#[test]
fn endless_chunk_extensions_and_trailers() {
    let server = Server::start(r#"site { "*", proxy "@dir@" }"#.replace("@dir@", &dead()).as_str());
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (what, part) in [
        (
            "one endless extension",
            format!("5;{}", "a".repeat(1 << 20)),
        ),
        (
            "endless trailers",
            format!("0\r\n{}", "X: y\r\n".repeat(100_000)),
        ),
    ] {
        let mut conn = server.client().connect();
        conn.raw(head);
        let _ = conn.try_more(part);
        let got = conn.read_all();
        let ok = matches!(got.statuses().as_slice(), [400 | 431 | 413 | 502]);
        assert!(ok, "{what}: {:?} {:?}", got.statuses(), got.end);
    }
}

#[test]
fn paths_that_leave_the_root() {
    let guard = Guard::plain();
    for path in [
        "/..",
        "/../",
        "/../x",
        "/a/../../x",
        "/%2e%2e/x",
        "/.%2e/x",
        "/%2E%2E",
        "/a/%2e%2e/../x",
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let got = guard.server.client().raw(head);
        assert_eq!(got.status(), 400, "{path}");
    }
    for path in ["/%00", "/a%00b", "/%0a", "/%0A", "/%0d", "/x%0Dy"] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let got = guard.server.client().raw(head);
        assert_eq!(got.status(), 400, "{path}");
    }
    guard.origin.expect_untouched();
}

#[test]
fn paths_are_normalised_by_rfc3986_6_2_2_and_no_further() {
    let origin = Origin::echo();
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    for (target, want) in [
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/%61%2d%7e", "/a-~"),
        ("/%c3%a4", "/%C3%A4"),
        ("/a%2fb", "/a%2Fb"),
        ("/a//b", "/a//b"),
        ("/a%20b", "/a%20b"),
        ("/a;b=c", "/a;b=c"),
        ("/a?x=%61&y=../%2e", "/a?x=%61&y=../%2e"),
        ("/?", "/?"),
        ("/...", "/..."),
        ("/%2e%2e%2e", "/..."),
        ("/%25%32%65", "/%252e"),
    ] {
        let response = server.client().get(target).expect(200);
        assert_eq!(response.text(), format!("GET {want}"), "{target}");
    }
}

#[test]
fn unknown_hosts_get_404() {
    let server = Server::start(
        r#"site { "a.test", "*.b.test", respond(200, "a") } site { "c.test", respond(200, "c") }"#,
    );
    let ask = |host: &str| {
        server
            .client()
            .request(&Request::get("/").host(host))
            .status()
    };
    for host in [
        "a.test",
        "A.TEST",
        "a.test:8080",
        "x.b.test",
        "x.y.b.test",
        "c.test",
    ] {
        assert_eq!(ask(host), 200, "{host}");
    }
    for host in [
        "d.test",
        "b.test",
        "xa.test",
        "127.0.0.1",
        "[::1]",
        "localhost",
    ] {
        assert_eq!(ask(host), 404, "{host}");
    }
    assert_eq!(
        server
            .client()
            .request(&Request::get("/").http10())
            .status(),
        404
    );
}

#[test]
fn a_loop_is_broken() {
    let server = Server::builder(r#"site { "*", proxy "@listen@" }"#).start();
    let _ = server.client().get("/").expect(508);
}

#[test]
fn a_full_server_answers_503() {
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#);
    let origin = Origin::always(Script::new().then(Act::Stall));
    let server = server
        .origin("origin", &origin)
        .server("max_connections = 20")
        .workers(1)
        .start();
    // A connection without a request would be closed for a newer one; these have theirs under way.
    let held: Vec<_> = (0..20)
        .map(|before| {
            let mut conn = server.client().connect();
            conn.raw(get(""));
            let _ = origin.wait_requests(before + 1);
            conn
        })
        .collect();
    // Those over the limit get their answer while the others still wait.
    for _ in 0..20 {
        let mut conn = server.client().connect();
        let response = conn.read_response();
        assert_eq!(response.status(), 503);
        assert!(response.field("retry-after").is_some());
        conn.expect_closed();
    }
    assert_eq!(origin.requests().len(), held.len());
    // The admin socket stays reachable.
    let _ = server.command("status").expect(0);
}

#[test]
fn what_a_remote_sent_is_escaped_in_the_log() {
    let origin = Origin::echo();
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    let _ = server
        .client()
        .raw("GET /\x1b[31mred HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect(400);
    let _ = server
        .client()
        .raw("GET / HTTP/1.1\r\nHost: a\x1b[31m\r\n\r\n")
        .expect(400);
    assert!(
        !server.stderr().contains("\x1b[31mred"),
        "{:?}",
        server.stderr()
    );
}

fn dead() -> String {
    // Reserved and given back at the end of the process: nobody listens on it meanwhile.
    let port = Box::leak(Box::new(forebay_tests::port::Reserved::new()));
    port.addr().to_string()
}
