//! The step `proxy`: what an origin sees of a request and a client of a response.

use std::time::Duration;

use forebay_tests::origin::script::Act;
use forebay_tests::peers::Nginx;
use forebay_tests::wire::Framing;
use forebay_tests::{Gate, Origin, Request, Script, Server, pattern, wait};

fn plain(origin: &Origin) -> Server {
    Server::before(origin, r#"proxy "@origin@""#)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn a_request_passes_as_it_is() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let request = Request::get("/a/b?c=d&e=%20")
        .host("Example.test:8080")
        .field("User-Agent", "x/1")
        .field("Accept", "*/*")
        .field("X-CaSe", "Kept")
        .field("Cookie", "a=b")
        .field("Cookie", "c=d");
    assert_eq!(
        server.client().request(&request).expect(200).text(),
        "GET /a/b?c=d&e=%20"
    );
    let seen = origin.only_request();
    assert_eq!((seen.method.as_str(), seen.minor), ("GET", 1));
    assert_eq!(
        seen.field("host").map(str::to_ascii_lowercase).as_deref(),
        Some("example.test:8080")
    );
    assert_eq!(seen.field("user-agent"), Some("x/1"));
    assert!(
        seen.fields
            .iter()
            .any(|(n, v)| n == "X-CaSe" && v == "Kept"),
        "case and order kept"
    );
    assert_eq!(seen.all("cookie").join("; "), "a=b; c=d");
    assert_eq!(seen.field("content-length"), None);
    assert_eq!(seen.field("transfer-encoding"), None);
}

#[test]
fn a_response_passes_as_it_is() {
    let fields = "X-CaSe: Kept\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nServer: app\r\n\
                  Date: Sun, 02 Feb 2020 02:02:02 GMT\r\nETag: W/\"x\"\r\n";
    let origin = Origin::always(Script::with_fields(203, fields, "body"));
    let response = plain(&origin).client().get("/").expect(203);
    assert!(
        response
            .head
            .fields
            .iter()
            .any(|(n, v)| n == "X-CaSe" && v == "Kept")
    );
    assert_eq!(response.head.all("set-cookie"), ["a", "b"]);
    assert_eq!(
        response.field("date"),
        Some("Sun, 02 Feb 2020 02:02:02 GMT")
    );
    assert_eq!(response.field("etag"), Some("W/\"x\""));
    assert_eq!(
        (response.text(), response.framing),
        ("body", Framing::Length(4))
    );
}

#[test]
fn every_status_passes() {
    for status in [
        200_u16, 201, 204, 206, 301, 304, 400, 404, 418, 429, 500, 503, 599,
    ] {
        let origin = Origin::always(Script::status(status, ""));
        let server = plain(&origin);
        let mut conn = server.client().connect();
        let _ = conn.get("/").expect(status);
    }
}

#[test]
fn forwarding_fields_are_rebuilt() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let request = Request::get("/")
        .field("Forwarded", "for=1.2.3.4;proto=https")
        .field("X-Forwarded-For", "1.2.3.4")
        .field("X-Forwarded-Proto", "https")
        .field("X-Forwarded-Host", "evil.test")
        .field("X-Forwarded-Port", "1")
        .field("X-Real-IP", "1.2.3.4")
        .field("X-Forwarded-For", "5.6.7.8");
    let _ = server.client().request(&request).expect(200);
    let seen = origin.only_request();
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-host"), Some("forebay.test"));
    let forwarded = seen
        .field("forwarded")
        .expect("Forwarded")
        .to_ascii_lowercase();
    let forwarded = forwarded.replace('"', "");
    assert!(
        forwarded.contains("for=127.0.0.1") && forwarded.contains("proto=http"),
        "{forwarded}"
    );
    assert!(forwarded.contains("host=forebay.test"), "{forwarded}");
    for (name, value) in &seen.fields {
        assert!(
            !value.contains("1.2.3.4") || name.eq_ignore_ascii_case("x-real-ip"),
            "{name}"
        );
        assert!(!value.contains("evil"), "{name}: {value}");
    }
    assert!(
        seen.field("via").is_some_and(|v| v.contains("1.1 ")),
        "RFC 9110 section 7.6.3: Via"
    );
    assert!(seen.field("cdn-loop").is_some(), "RFC 8586: CDN-Loop");
}

#[test]
fn a_forged_host_cannot_break_out_of_forwarded() {
    let origin = Origin::echo();
    let server = plain(&origin);
    for host in ["a;for=evil", "a,for=evil", "a\"b", "[::1]:80"] {
        let response = server.client().request(&Request::get("/").host(host));
        if response.status() == 200 {
            let seen = origin.requests().pop().expect("a request");
            let forwarded = seen.field("forwarded").expect("Forwarded");
            // Outside of quotes there is one element with one `for`.
            let outside: String = forwarded.split('"').step_by(2).collect();
            assert_eq!(outside.matches("for=").count(), 1, "{forwarded}");
        }
    }
}

#[test]
fn a_loop_is_noticed_by_its_second_round() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let _ = server.client().get("/").expect(200);
    let seen = origin.only_request();
    let ours = (
        seen.field("via").expect("Via").to_owned(),
        seen.field("cdn-loop").expect("x").to_owned(),
    );
    let twice = Request::get("/")
        .field("Via", &format!("{0}, {0}", ours.0))
        .field("CDN-Loop", &format!("{0}, {0}", ours.1));
    let _ = server.client().request(&twice).expect(508);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn hop_by_hop_fields_end_here() {
    let fields = "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                  Proxy-Connection: x\r\nUpgrade: foo\r\nX-End: 1\r\nProxy-Authenticate: Basic\r\n";
    let origin = Origin::always(Script::with_fields(200, fields, "x"));
    let server = plain(&origin);
    let request = Request::get("/")
        .field("Connection", "X-Hop, Keep-Alive")
        .field("X-Hop", "1")
        .field("Keep-Alive", "timeout=5")
        .field("Proxy-Connection", "keep-alive")
        .field("TE", "gzip")
        .field("Upgrade", "h2c")
        .field("HTTP2-Settings", "AAMAAABkAAQAAP__")
        .field("Proxy-Authorization", "Basic x")
        .field("X-End", "1");
    let response = server.client().request(&request).expect(200);
    let seen = origin.only_request();
    for name in [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
    ] {
        assert_eq!(seen.all(name), [""; 0], "{name} reached the origin");
    }
    assert!(!seen.all("te").contains(&"gzip"));
    assert!(
        !seen
            .all("connection")
            .join(",")
            .to_ascii_lowercase()
            .contains("x-hop")
    );
    assert_eq!(seen.field("x-end"), Some("1"));
    for name in ["x-hop", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(
            response.head.all(name),
            [""; 0],
            "{name} reached the client"
        );
    }
    assert_eq!(response.field("x-end"), Some("1"));
}

#[test]
fn dangerous_fields_are_removed() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let request = Request::get("/")
        .field("Proxy", "http://evil:1")
        .field("X_Forwarded_For", "1.2.3.4")
        .field("Content_Length", "5")
        .field("X_Any", "1")
        .field("X-Any", "2");
    let _ = server.client().request(&request).expect(200);
    let seen = origin.only_request();
    assert_eq!(seen.field("proxy"), None, "httpoxy");
    assert!(
        seen.fields.iter().all(|(n, _)| !n.contains('_')),
        "{:?}",
        seen.fields
    );
    assert_eq!(seen.field("x-any"), Some("2"));
}

#[test]
fn the_host_it_sees() {
    let origin = Origin::echo();
    let server = Server::before(
        &origin,
        r#"route "/fixed" { proxy "@origin@" { host = "origin.test" } },
           route "/made" { proxy "@origin@" { host = "$headers.x_tenant.test" } },
           proxy "@origin@""#,
    );
    let ask = |target: &str| {
        let request = Request::get(target)
            .host("front.test")
            .field("X-Tenant", "t1");
        let _ = server.client().request(&request).expect(200);
        origin.requests().pop().expect("a request")
    };
    assert_eq!(ask("/").field("host"), Some("front.test"));
    let fixed = ask("/fixed");
    assert_eq!(fixed.field("host"), Some("origin.test"));
    assert_eq!(fixed.field("x-forwarded-host"), Some("front.test"));
    let made = ask("/made");
    assert!(
        made.field("host").is_some_and(|h| h.starts_with("t1")),
        "{:?}",
        made.field("host")
    );
    // HTTP/1.0 without a Host still gives the origin one.
    let _ = server
        .client()
        .request(&Request::get("/").http10())
        .expect(200);
    assert_eq!(
        origin
            .requests()
            .pop()
            .expect("a request")
            .all("host")
            .len(),
        1
    );
}

#[test]
fn bodies_pass_in_every_framing() {
    let big = pattern::bytes(1 << 20);
    let chunked = {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for part in big.chunks(10_007) {
            bytes.extend(format!("{:X};ext=1\r\n", part.len()).bytes());
            bytes.extend_from_slice(part);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    };
    let until_close = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &big].concat();
    let old = [b"HTTP/1.0 200 OK\r\n\r\n".as_slice(), &big].concat();
    let origin = Origin::setup()
        .route("/length", Script::pattern(1 << 20))
        .route("/chunked", Script::raw(chunked))
        .route("/close", Script::raw(until_close).close())
        .route("/old", Script::raw(old).close())
        .start();
    let server = plain(&origin);
    let mut conn = server.client().connect();
    for path in ["/length", "/chunked", "/close", "/old", "/length"] {
        let response = conn.get(path).expect(200);
        assert!(response.body == big, "{path}");
        let want = if path == "/length" {
            Framing::Length(1 << 20)
        } else {
            Framing::Chunked
        };
        assert_eq!(response.framing, want, "{path}");
    }
}

#[test]
fn a_body_streams_before_it_is_whole() {
    let gate = Gate::new();
    let script = Script::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    let script = script
        .then(Act::Wait(gate.clone()))
        .send("3\r\ntwo\r\n0\r\n\r\n");
    let origin = Origin::always(script);
    let server = plain(&origin);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let (_, mut body) = conn.read_head();
    assert_eq!(
        body.next(&mut conn),
        Ok(Some(b"one".to_vec())),
        "sent on although more will come"
    );
    gate.open();
    assert_eq!(body.next(&mut conn), Ok(Some(b"two".to_vec())));
    assert_eq!(body.next(&mut conn), Ok(None));
}

#[test]
fn an_upload_streams_before_it_is_whole() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let mut conn = server.client().connect();
    conn.raw("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none");
    origin.wait_for("the first half", |requests, _| {
        requests.first().is_some_and(|r| r.body == b"one")
    });
    conn.more("two");
    let _ = conn.read_response().expect(200);
    assert_eq!(origin.only_request().text(), "onetwo");
}

#[test]
fn an_upload_and_its_answer_pass_at_the_same_time() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n";
    let script = Script::raw(head)
        .then(Act::ReadBody)
        .send("4\r\nlate\r\n0\r\n\r\n")
        .early();
    let origin = Origin::always(script);
    let server = plain(&origin);
    let mut conn = server.client().connect();
    conn.raw("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none");
    let (_, mut body) = conn.read_head();
    assert_eq!(body.next(&mut conn), Ok(Some(b"early".to_vec())));
    conn.more("two");
    assert_eq!(body.next(&mut conn), Ok(Some(b"late".to_vec())));
    assert_eq!(body.next(&mut conn), Ok(None));
    assert_eq!(origin.only_request().text(), "onetwo");
}

#[test]
fn a_client_that_leaves_is_no_harm_to_the_next() {
    let origin = Origin::setup()
        .route("/big", Script::pattern(50 << 20))
        .start();
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .workers(1)
        .start();
    for _ in 0..10 {
        let mut conn = server.client().connect();
        conn.send(&Request::get("/big"));
        let (_, mut body) = conn.read_head();
        let _ = body.next(&mut conn).expect("a piece");
        conn.abort();
        assert_eq!(server.client().get("/next").expect(200).text(), "GET /next");
    }
    origin.wait_for("the big ones to be broken off", |_, conns| {
        conns
            .iter()
            .filter(|c| c.sent > 0 && c.sent < 50 << 20)
            .filter(|c| c.end.is_some())
            .count()
            >= 10
    });
}

#[test]
fn an_upload_broken_off_by_the_client_is_broken_off_for_the_origin() {
    let origin = Origin::echo();
    let server = plain(&origin);
    for abort in [true, false] {
        let count = origin.requests().len();
        let mut conn = server.client().connect();
        conn.raw("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart");
        origin.wait_for("the part", |r, _| {
            r.get(count).is_some_and(|r| r.body == b"part")
        });
        if abort {
            conn.abort();
        } else {
            conn.half_close();
            let got = conn.read_all();
            assert!(matches!(got.statuses().as_slice(), [] | [400]), "{got:?}");
        }
        let id = origin.requests()[count].conn;
        let _ = origin.wait_end(id);
        let last = origin.requests().pop().expect("a request");
        assert!(matches!(last.body_end, Some(Err(_))), "{:?}", last.body_end);
    }
}

#[test]
fn the_origin_waits_for_a_slow_client() {
    let origin = Origin::always(Script::pattern(64 << 20));
    let server = Server::before(&origin, r#"proxy "@origin@" { buffer = "64KB" }"#);
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/"));
    let (_, mut body) = conn.read_head();
    let _ = body.next(&mut conn).expect("a piece");
    // The origin gets rid of what the buffer and the sockets hold, and then stands still.
    let mut last = 0;
    wait::until("the origin to stand still", || {
        let sent = origin.bytes_sent();
        std::thread::sleep(ms(100));
        std::mem::replace(&mut last, sent) == sent && sent == origin.bytes_sent()
    });
    assert!(
        last < 16 << 20,
        "{last} bytes went out for a client that does not read"
    );
}

#[test]
fn a_small_page_frees_its_origin_at_once() {
    let origin = Origin::always(Script::pattern(200_000));
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .workers(1)
        .start();
    let slow = server.client().receive_buffer(16 << 10);
    let mut conn = slow.connect();
    conn.send(&Request::get("/"));
    origin.wait_for("the whole page to be taken", |_, c| {
        c.iter().any(|c| c.sent > 200_000)
    });
    // The connection is free for the next, although the first client has read nothing yet.
    wait::until("the connection to be free", || {
        let _ = server.client().get("/");
        origin.requests().iter().any(|r| r.nth > 0)
    });
    let (_, len) = conn.slow_read(0).expect("the whole page");
    assert_eq!(len, 200_000);
}

#[test]
fn any_split_of_a_response_is_the_same_response() {
    let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n\
                  6;x=y\r\n world\r\n0\r\nX-T: t\r\n\r\n";
    let origin = Origin::setup()
        .handle(move |request| {
            let at: usize = request.target[1..].parse().expect("a number");
            Script::raw(&whole[..at])
                .then(Act::Delay(ms(1)))
                .send(&whole[at..])
        })
        .start();
    let server = plain(&origin);
    let mut conn = server.client().connect();
    for at in 1..whole.len() {
        let response = conn.get(&format!("/{at}")).expect(200);
        assert_eq!(
            (response.text(), response.field("x-a")),
            ("hello world", Some("b")),
            "{at}"
        );
    }
    let trickle = Act::Trickle(whole.to_vec(), 1, Duration::from_micros(100));
    let origin = Origin::always(Script::new().then(trickle));
    assert_eq!(
        plain(&origin).client().get("/").expect(200).text(),
        "hello world"
    );
}

#[test]
fn an_upgrade_that_is_not_asked_for_is_not_made() {
    let origin = Origin::echo();
    let server = plain(&origin);
    let request = Request::get("/")
        .field("Connection", "Upgrade, HTTP2-Settings")
        .field("Upgrade", "h2c")
        .field("HTTP2-Settings", "AAMAAABkAAQAAP__");
    assert_eq!(
        server.client().request(&request).expect(200).text(),
        "GET /"
    );
    assert_eq!(origin.only_request().field("upgrade"), None);
}

#[test]
fn abort_on_close_takes_a_half_close_for_leaving() {
    let gate = Gate::new();
    let origin = Origin::setup()
        .route("/", Script::new().then(Act::Stall))
        .start();
    let server = Server::before(&origin, r#"proxy "@origin@" { abort_on_close = true }"#);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/"));
    let _ = origin.wait_requests(1);
    conn.half_close();
    assert!(origin.wait_end(0).is_some(), "the origin is told");
    gate.open();
}

#[test]
fn rfc9110_8_6_the_length_that_head_is_not_told_is_not_made_up() {
    let check = |fields: &str, expected: Option<&str>| {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let origin = Origin::always(Script::raw(head));
        let server = plain(&origin);
        let mut conn = server.client().connect();
        for _ in 0..2 {
            let response = conn.exchange(&Request::head("/")).expect(200);
            assert_eq!(response.field("content-length"), expected, "{fields}");
        }
    };
    check("Transfer-Encoding: chunked\r\n", None);
    check("", None);
    check("Content-Length: 5\r\n", Some("5"));
    check("Content-Length: 0\r\n", Some("0"));
}

#[test]
fn curl_downloads_and_uploads() {
    let body = pattern::bytes(3 << 20);
    let origin = Origin::setup()
        .route("/get", Script::pattern(3 << 20))
        .start();
    let server = plain(&origin);
    let dir = tempfile::tempdir().expect("a directory");
    let (sent, got) = (dir.path().join("sent"), dir.path().join("got"));
    std::fs::write(&sent, &body).expect("a file");
    let url = |path: &str| format!("http://{}{path}", server.addr());
    let curl = |args: &[&str]| {
        let status = std::process::Command::new("curl")
            .args(["-sSf"])
            .args(args)
            .status();
        assert!(
            status.expect("curl, of the Debian package curl").success(),
            "{args:?}"
        );
    };
    let (sent, to) = (
        sent.to_str().expect("a name"),
        got.to_str().expect("a name"),
    );
    curl(&["-o", to, &url("/get")]);
    assert!(std::fs::read(&got).expect("a file") == body);
    curl(&["-o", to, "-T", sent, &url("/put")]);
    curl(&[
        "-o",
        to,
        "-T",
        sent,
        "-H",
        "Transfer-Encoding: chunked",
        &url("/chunks"),
    ]);
    curl(&[
        "-o",
        to,
        "-0",
        "--data-binary",
        &format!("@{sent}"),
        &url("/old"),
    ]);
    for request in origin.wait_requests(4) {
        assert!(
            request.target == "/get" || request.body == body,
            "{}",
            request.target
        );
    }
}

#[test]
fn nginx_behind_it_gives_the_same_as_nginx() {
    let big = pattern::bytes(11 << 20);
    let nginx = Nginx::start(
        "location /old { return 301 /new; } location /none { return 204; }
         location /up { client_max_body_size 64m; dav_methods PUT; }
         location /gzip { gzip on; gzip_proxied any; gzip_types *; gzip_min_length 1; gzip_http_version 1.0; }",
        &[
            ("a.txt", b"0123456789"),
            ("big.bin", &big),
            ("gzip/x.txt", &[b'z'; 10_000]),
        ],
    );
    let server = Server::builder(r#"site { "*", proxy "@nginx@" }"#)
        .set("nginx", nginx.target())
        .start();
    let (mut direct, mut through) = (nginx.client().connect(), server.client().connect());
    for request in [
        Request::get("/a.txt"),
        Request::head("/a.txt"),
        Request::get("/a.txt").field("Range", "bytes=2-4"),
        Request::get("/a.txt").field("Range", "bytes=0-1,4-5"),
        Request::get("/a.txt").field("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"),
        Request::get("/old"),
        Request::get("/none"),
        Request::get("/missing"),
        Request::get("/gzip/x.txt").field("Accept-Encoding", "gzip"),
        Request::get("/big.bin"),
    ] {
        let (want, got) = (direct.exchange(&request), through.exchange(&request));
        assert_eq!(got.status(), want.status(), "{request:?}");
        if want
            .field("content-type")
            .is_none_or(|t| !t.starts_with("multipart/"))
        {
            assert!(got.body == want.body, "{request:?}");
        }
        for name in [
            "etag",
            "last-modified",
            "content-type",
            "content-encoding",
            "content-range",
        ] {
            if want
                .field(name)
                .is_none_or(|v| !v.starts_with("multipart/"))
            {
                assert_eq!(got.field(name), want.field(name), "{request:?}: {name}");
            }
        }
    }
}
