//! What goes on and on: WebSocket and other protocols behind a 101, and event streams.

use std::process::{Command, Stdio};
use std::time::Duration;

use forebay_tests::origin::script::Act;
use forebay_tests::peer::{Call, Peer};
use forebay_tests::wire::{self, Trouble};
use forebay_tests::{Conn, Gate, Origin, Request, Script, Server, pattern, wait};

/// What a peer says to begin a tunnel.
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

fn before(peer: &Peer, options: &str) -> Server {
    Server::builder(&format!(
        "site {{ \"*\", route \"/metrics\" {{ metrics }}, proxy \"@peer@\" {{ {options} }} }}"
    ))
    .set("peer", peer.target())
    .workers(1)
    .start()
}

fn websocket(path: &str) -> Request {
    Request::get(path)
        .field("Connection", "keep-alive, Upgrade")
        .field("Upgrade", "websocket")
        .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .field("Sec-WebSocket-Version", "13")
}

/// A tunnel through a server, from end to end.
fn tunnel(server: &Server, peer: &Peer) -> (Conn, Call) {
    let mut conn = server.client().connect();
    conn.send(&websocket("/chat"));
    let mut call = peer.accept();
    call.send(SWITCH);
    let (head, _) = conn.read_head();
    assert_eq!(head.status, 101);
    (conn, call)
}

fn metric(server: &Server, name: &str) -> u64 {
    let text = server.client().get("/metrics").expect(200);
    let line = format!("forebay_{name} ");
    text.text()
        .lines()
        .find_map(|l| l.strip_prefix(&line))
        .unwrap_or_else(|| panic!("no {name} in\n{}", text.text()))
        .parse()
        .expect("a number")
}

#[test]
fn an_upgrade_is_offered_and_taken_up() {
    let peer = Peer::start();
    let server = before(&peer, "");
    let mut conn = server.client().connect();
    conn.send(&websocket("/chat?a=b"));
    let mut call = peer.accept();
    assert!(call.head.starts_with("GET /chat?a=b HTTP/1.1\r\n"));
    assert_eq!(call.fields("connection"), ["upgrade"]);
    assert_eq!(call.fields("upgrade"), ["websocket"]);
    assert_eq!(call.fields("sec-websocket-version"), ["13"]);
    assert_eq!(call.fields("x-forwarded-for"), ["127.0.0.1"]);
    call.send(SWITCH);
    let (head, _) = conn.read_head();
    assert_eq!(
        (head.status, head.field("upgrade")),
        (101, Some("websocket"))
    );
    assert_eq!(head.field("connection"), Some("upgrade"));
    assert_eq!(head.field("sec-websocket-accept"), Some("x"));
    for name in ["content-length", "transfer-encoding", "keep-alive"] {
        assert_eq!(head.field(name), None, "{name}");
    }
    conn.more(b"\x81\x05hello\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    call.expect_bytes(b"\x81\x05hello\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    call.send(b"\0\xff any bytes");
    conn.expect_bytes(b"\0\xff any bytes");
}

#[test]
fn what_comes_early_is_not_lost() {
    let peer = Peer::start();
    let server = before(&peer, "");
    // Larger than any head, so that it does not come with one read.
    let (up, down) = (pattern::bytes(100_000), pattern::bytes(70_000));
    let mut conn = server.client().connect();
    let mut first = websocket("/chat").to_bytes();
    first.extend_from_slice(&up);
    conn.raw(&first);
    let mut call = peer.accept();
    let mut answer = SWITCH.as_bytes().to_vec();
    answer.extend_from_slice(&down);
    call.send(&answer);
    assert_eq!(conn.read_head().0.status, 101);
    conn.expect_bytes(&down);
    call.expect_bytes(&up);
    // A request before it on the same connection has its own answer.
    let mut conn = server.client().connect();
    let mut both = Request::get("/first").to_bytes();
    both.extend(websocket("/chat").to_bytes());
    both.extend_from_slice(b"early");
    conn.raw(&both);
    let mut call = peer.accept();
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(conn.read_response().expect(200).text(), "ok");
    call.read_head();
    call.send(SWITCH);
    assert_eq!(conn.read_head().0.status, 101);
    call.expect_bytes("early");
}

#[test]
fn each_side_ends_by_itself() {
    let peer = Peer::start();
    let server = before(&peer, "");
    let (mut conn, mut call) = tunnel(&server, &peer);
    conn.more("last words");
    conn.half_close();
    call.expect_bytes("last words");
    call.expect_end();
    call.send("and an answer to them");
    conn.expect_bytes(b"and an answer to them");
    call.half_close();
    conn.expect_closed();
    // The other way around.
    let (mut conn, mut call) = tunnel(&server, &peer);
    call.send("bye");
    call.half_close();
    conn.expect_bytes(b"bye");
    conn.expect_closed();
    conn.more("still here");
    call.expect_bytes("still here");
    conn.half_close();
    call.expect_end();
    wait::until("both to be over", || metric(&server, "tunnels_open") == 0);
    assert_eq!(metric(&server, "tunnels_total"), 2);
}

#[test]
fn what_breaks_one_side_breaks_the_other() {
    let peer = Peer::start();
    let server = before(&peer, "");
    let (conn, mut call) = tunnel(&server, &peer);
    conn.abort();
    assert!(call.is_reset(), "the peer sees a clean end");
    let (mut conn, call) = tunnel(&server, &peer);
    call.abort();
    conn.expect_reset();
}

#[test]
fn a_client_that_leaves_is_seen_though_its_peer_reads_nothing() {
    let peer = Peer::start();
    let server = before(&peer, "");
    let (mut conn, mut call) = tunnel(&server, &peer);
    // More than all sockets on the way hold: the server reads no more of it.
    conn.set_write_timeout(Duration::from_millis(500));
    assert!(conn.try_more(vec![b'x'; 64 << 20]).is_err());
    conn.abort();
    wait::until("the tunnel to be over", || {
        metric(&server, "tunnels_open") == 0
    });
    assert!(call.is_reset());
}

#[test]
fn who_does_not_read_is_not_sent_more() {
    let peer = Peer::start();
    let server = before(&peer, "");
    let (mut conn, mut call) = tunnel(&server, &peer);
    let period = pattern::period();
    let body = period.repeat((64 << 20) / period.len());
    let before = server.rss();
    let sent = call.send_until_full(&body);
    assert!(sent < 32 << 20, "{sent} bytes are somewhere on the way");
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes of them in the server");
    let rest = body[sent..sent + 1_000_000].to_vec();
    let writer = std::thread::spawn(move || {
        call.send(&rest);
        call.half_close();
        call
    });
    for part in body[..sent + 1_000_000].chunks(64 << 10) {
        conn.expect_bytes(part);
    }
    conn.expect_closed();
    drop(writer.join());
}

#[test]
fn what_leads_to_another_http_is_not_offered() {
    for (offered, passed) in [
        ("h2c", None),
        ("H2C", None),
        ("HTTP/2.0", None),
        ("TLS/1.0, HTTP/1.1", None),
        ("h2c, websocket", Some("websocket")),
        ("foo/2, h2c,, bar", Some("foo/2, bar")),
        ("\"websocket", None),
    ] {
        let origin = Origin::echo();
        let server = Server::before(&origin, r#"proxy "@origin@""#);
        let request = Request::get("/")
            .field("Connection", "Upgrade, HTTP2-Settings")
            .field("Upgrade", offered)
            .field("HTTP2-Settings", "AAMAAABkAAQAAP__");
        let _ = server.client().request(&request).expect(200);
        let seen = origin.only_request();
        assert_eq!(seen.field("upgrade"), passed, "{offered}");
        let connection = passed.map(|_| "upgrade");
        assert_eq!(seen.field("connection"), connection, "{offered}");
        assert_eq!(seen.field("http2-settings"), None, "{offered}");
    }
}

#[test]
fn only_http11_with_both_fields_offers_anything() {
    let old = websocket("/").http10();
    let unnamed = Request::get("/").field("Upgrade", "websocket");
    let unsaid = Request::get("/").field("Connection", "upgrade");
    for request in [old, unnamed, unsaid] {
        let origin = Origin::echo();
        let server = Server::before(&origin, r#"proxy "@origin@""#);
        let _ = server.client().request(&request).expect(200);
        let seen = origin.only_request();
        assert_eq!(seen.field("upgrade"), None);
        assert_eq!(seen.field("connection"), None);
    }
}

#[test]
fn a_refusal_is_an_ordinary_response() {
    let origin = Origin::always(Script::with_fields(426, "Upgrade: other\r\n", "no"));
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    let mut conn = server.client().connect();
    for _ in 0..2 {
        let response = conn.exchange(&websocket("/")).expect(426);
        assert_eq!((response.text(), response.field("upgrade")), ("no", None));
        assert!(!response.says_close());
    }
}

#[test]
fn a_101_that_does_not_fit_gets_502() {
    let switch = |fields: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
    for (what, answer) in [
        ("without its fields", switch("")),
        ("without `Connection`", switch("Upgrade: websocket\r\n")),
        ("without `Upgrade`", switch("Connection: upgrade\r\n")),
        (
            "for another protocol",
            switch("Connection: upgrade\r\nUpgrade: h2c\r\n"),
        ),
        ("of HTTP/1.0", SWITCH.replace("HTTP/1.1", "HTTP/1.0")),
    ] {
        let origin = Origin::always(Script::raw(answer).then(Act::Stall));
        let server = Server::before(&origin, r#"proxy "@origin@""#);
        let mut conn = server.client().connect();
        assert_eq!(conn.exchange(&websocket("/")).status(), 502, "{what}");
        assert!(origin.wait_end(0).is_some(), "{what}: the origin is told");
        // What follows is a request, not bytes of a tunnel.
        assert_eq!(conn.get("/").status(), 502, "{what}");
    }
    let origin = Origin::always(Script::raw(SWITCH).then(Act::Stall));
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    assert_eq!(server.client().get("/").status(), 502, "nobody asked");
}

#[test]
fn a_request_with_a_body_comes_to_its_end_first() {
    let peer = Peer::start();
    let server = before(&peer, "");
    let request = Request::post("/exec", "{\"Tty\":false}")
        .field("Connection", "Upgrade")
        .field("Upgrade", "tcp");
    let mut conn = server.client().connect();
    conn.send(&request);
    let mut call = peer.accept();
    assert_eq!(call.fields("upgrade"), ["tcp"]);
    call.expect_bytes("{\"Tty\":false}");
    call.send(SWITCH.replace("websocket", "TCP"));
    let (head, _) = conn.read_head();
    assert_eq!((head.status, head.field("upgrade")), (101, Some("TCP")));
    conn.more("ls\n");
    call.expect_bytes("ls\n");
    // A peer that switches in the middle of a request would get the rest of it as its protocol.
    let mut conn = server.client().connect();
    conn.send_head(&request);
    let mut call = peer.accept();
    call.send(SWITCH.replace("websocket", "TCP"));
    let _ = conn.read_response().expect(502);
    let _ = call.is_reset();
}

#[test]
fn tunnel_timeout_takes_the_place_of_read_timeout() {
    let peer = Peer::start();
    let server = before(&peer, r#"read_timeout = "50ms", tunnel_timeout = "1500ms""#);
    let (mut conn, mut call) = tunnel(&server, &peer);
    conn.expect_silence(Duration::from_millis(500));
    call.send("moves");
    conn.expect_bytes(b"moves");
    conn.expect_silence(Duration::from_millis(1000));
    // Bytes of the other direction count as well.
    conn.more("too");
    call.expect_bytes("too");
    conn.expect_silence(Duration::from_millis(1000));
    conn.expect_reset();
    assert!(call.is_reset());
}

#[test]
fn a_tunnel_has_the_time_of_the_drain() {
    let peer = Peer::start();
    let mut server = Server::builder(r#"site { "*", proxy "@peer@" }"#)
        .set("peer", peer.target())
        .server(r#"drain = "2s""#)
        .start();
    let (mut conn, mut call) = tunnel(&server, &peer);
    let (mut short, mut brief) = tunnel(&server, &peer);
    server.reload_with(r#"site { "*", respond(200, "new") }"#);
    assert_eq!(server.client().get("/").expect(200).text(), "new");
    conn.more("over the reload");
    call.expect_bytes("over the reload");
    server.signal(rustix::process::Signal::TERM);
    server.wait_stderr("stopping");
    call.send("while it drains");
    conn.expect_bytes(b"while it drains");
    brief.half_close();
    short.expect_closed();
    short.half_close();
    brief.expect_end();
    assert!(server.wait_exit(Duration::from_secs(10)).success());
    conn.expect_gone();
    let _ = call.is_reset();
}

#[test]
fn tunnels_are_counted() {
    let peer = Peer::start();
    let server = before(&peer, "");
    let sent = metric(&server, "sent_bytes_total");
    let (mut conn, mut call) = tunnel(&server, &peer);
    assert_eq!(metric(&server, "tunnels_open"), 1);
    assert_eq!(metric(&server, "tunnels_total"), 1);
    call.send(vec![b'x'; 1_000_000]);
    conn.expect_bytes(&vec![b'x'; 1_000_000]);
    let sent = metric(&server, "sent_bytes_total") - sent;
    assert!(sent >= 1_000_000, "{sent}");
    drop(conn);
    call.half_close();
    wait::until("it to be over", || metric(&server, "tunnels_open") == 0);
}

#[test]
fn a_tunnel_holds_its_place_of_a_limit() {
    let peer = Peer::start();
    let server = Server::builder(
        r#"site { "*", route "/metrics" { metrics }, limit { concurrency = 2 }, proxy "@peer@" }"#,
    )
    .set("peer", peer.target())
    .start();
    let tunnels = [(); 2].map(|()| tunnel(&server, &peer));
    assert_eq!(server.client().request(&websocket("/chat")).status(), 429);
    let [(first, _call), (mut conn, mut call)] = tunnels;
    // It is one that goes on, however many ended.
    first.abort();
    wait::until("the end of one", || metric(&server, "tunnels_open") == 1);
    let (_conn, _call) = tunnel(&server, &peer);
    assert_eq!(server.client().get("/").status(), 429);
    conn.half_close();
    call.expect_end();
    assert_eq!(
        server.client().get("/").status(),
        429,
        "the other half is open"
    );
    drop(call);
    conn.expect_closed();
    wait::until("a place", || metric(&server, "tunnels_open") == 1);
    let (_conn, _call) = tunnel(&server, &peer);
}

#[test]
fn a_tunnel_is_logged_when_it_ends() {
    let peer = Peer::start();
    let server = Server::builder(
        r#"site { "*", access_log "log" { format = "$method $uri $status $bytes $headers.user_agent $vars.a $params.id $site $peer $duration" },
             access_log "json" { format = "json", when = status("1xx") }, access_log "none" { when = status "2xx" },
             route "/brief" { proxy "@peer@" { tunnel_timeout = "1s" } },
             route "/:id" { set("a", "b"), proxy "@peer@" } }"#,
    )
    .set("peer", peer.target())
    .workers(1)
    .start();
    let log = |name: &str| std::fs::read_to_string(server.dir().join(name)).unwrap_or_default();
    let open = |path: &str| {
        let mut conn = server.client().connect();
        conn.send(&websocket(path).field("User-Agent", "test"));
        let mut call = peer.accept();
        call.send(SWITCH);
        assert_eq!(conn.read_head().0.status, 101);
        (conn, call)
    };
    let (mut conn, mut call) = open("/chat?token=secret&x=1");
    let data = pattern::bytes(100_000);
    call.send(&data);
    conn.expect_bytes(&data);
    conn.more("abc");
    call.expect_bytes(b"abc");
    // Another exchange of the same worker, in the memory that the first one has used.
    let mut other = server.client().connect();
    other.send(&Request::get("/other"));
    let mut answer = peer.accept();
    answer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(other.read_response().status(), 200);
    wait::until("its line", || log("log").ends_with('\n'));
    assert!(
        log("log").starts_with("GET /other 200 0 "),
        "{}",
        log("log")
    );
    drop(call);
    conn.expect_closed();
    conn.half_close();
    wait::until("the tunnel's line", || log("log").lines().count() == 2);
    let text = log("log");
    let line = text.lines().last().expect("a line");
    let expected = format!(
        "GET /chat?token=***&x=1 101 100000 test b chat * {} ",
        peer.target()
    );
    let seconds = line
        .strip_prefix(&expected)
        .unwrap_or_else(|| panic!("{line}"));
    // The other exchange and a second of waiting for its line have passed meanwhile.
    assert!(seconds.parse::<f64>().expect("a number") > 0.5, "{line}");
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    wait::until("the other log", || log("json").ends_with('\n'));
    let first = json(&log("json"));
    assert_eq!(
        (&first["status"], &first["bytes"]),
        (&101.into(), &100_000.into())
    );
    assert_eq!(first.get("fault"), None);
    // One that is broken off says so: silence, a reset, and the end of the server.
    let (_conn, _call) = open("/brief");
    wait::until("the end by silence", || log("json").lines().count() == 2);
    assert_eq!(
        json(log("json").lines().last().expect("a line"))["fault"],
        "tunnel_idle"
    );
    let (conn, _call) = open("/chat");
    conn.abort();
    wait::until("the end by a reset", || log("json").lines().count() == 3);
    assert_eq!(
        json(log("json").lines().last().expect("a line"))["fault"],
        "client_gone"
    );
    assert_eq!(log("none").lines().count(), 1, "{}", log("none"));
}

#[test]
fn a_tunnel_that_is_cut_at_the_stop_is_logged() {
    let peer = Peer::start();
    let mut server = Server::builder(r#"site { "*", access_log "log", proxy "@peer@" }"#)
        .set("peer", peer.target())
        .server(r#"drain = "100ms""#)
        .start();
    let (mut conn, mut call) = tunnel(&server, &peer);
    call.send("12345");
    conn.expect_bytes(b"12345");
    server.signal(rustix::process::Signal::TERM);
    let _ = server.wait_exit(Duration::from_secs(10));
    let log = std::fs::read_to_string(server.dir().join("log")).expect("a log");
    assert_eq!(log.lines().count(), 1);
    assert!(log.contains("\"GET /chat HTTP/1.1\" 101 5 "), "{log}");
}

#[test]
fn a_tunnel_holds_its_place_at_the_peer() {
    let peer = Peer::start();
    let server = Server::builder(
        r#"local pool = upstream "pool" { "@peer@", max_connections = 1 }
           site { "*", proxy(pool) }"#,
    )
    .set("peer", peer.target())
    .start();
    let (conn, call) = tunnel(&server, &peer);
    let mut next = server.client().connect();
    next.send(&Request::get("/"));
    next.expect_silence(Duration::from_millis(300));
    drop((conn, call));
    peer.accept()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(next.read_response().expect(200).text(), "ok");
}

/// A client and a server of WebSocket that are not ours, from Debian's python3-websockets: the
/// server says everything back, the client checks it.
const WEBSOCKET_SERVER: &str = r#"
import asyncio, websockets
async def echo(socket):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
"#;

const WEBSOCKET_CLIENT: &str = r#"
import asyncio, os, sys, websockets
async def talk(url, number):
    async with websockets.connect(url, max_size=None, ping_interval=None) as socket:
        for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
            message = os.urandom(size)
            await socket.send(message)
            assert await socket.recv() == message, size
        await socket.send("text " + str(number))
        assert await socket.recv() == "text " + str(number)
        # More under way at once than any buffer holds, both ways.
        parts = [os.urandom(1 << 20) for _ in range(4)]
        async def send():
            for part in parts: await socket.send(part)
        sending = asyncio.ensure_future(send())
        for part in parts: assert await socket.recv() == part
        await sending
        pong = await socket.ping()
        await asyncio.wait_for(pong, 10)
    assert socket.close_code == 1000, socket.close_code
async def main():
    await asyncio.gather(*(talk(sys.argv[1], number) for number in range(4)))
asyncio.run(main())
print("ok")
"#;

#[test]
fn a_real_websocket_client_talks_to_a_real_server() {
    let python = |program: &str| {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", program]).stdin(Stdio::null());
        command
    };
    let mut echo = python(WEBSOCKET_SERVER)
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3, of the Debian package python3");
    let mut line = String::new();
    let mut out = std::io::BufReader::new(echo.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    let port = line.trim();
    assert!(
        port.parse::<u16>().is_ok(),
        "no server: is the Debian package python3-websockets missing?"
    );
    let server = Server::builder(r#"site { "*", proxy "127.0.0.1:@port@" }"#)
        .set("port", port)
        .start();
    let url = format!("ws://{}/chat", server.addr());
    let talked = python(WEBSOCKET_CLIENT).arg(&url).output();
    let _ = echo.kill();
    let _ = echo.wait();
    let talked = talked.expect("python3");
    let said = String::from_utf8_lossy(&talked.stdout);
    let cried = String::from_utf8_lossy(&talked.stderr);
    assert!(talked.status.success() && said.trim() == "ok", "{cried}");
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
                      Transfer-Encoding: chunked\r\n\r\n";

#[test]
fn an_event_arrives_at_once() {
    let (first, second) = (Gate::new(), Gate::new());
    let script = Script::raw(EVENTS)
        .then(Act::Wait(first.clone()))
        .send("9\r\ndata: 1\n\n\r\n")
        .then(Act::Wait(second.clone()))
        .send("9\r\ndata: 2\n\n\r\n")
        .then(Act::Stall);
    let origin = Origin::always(script);
    // The time between two bytes of other responses is not that of events.
    let server = Server::before(&origin, r#"proxy "@origin@" { read_timeout = "50ms" }"#);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/events"));
    let (head, mut body) = conn.read_head();
    assert_eq!(head.status, 200);
    conn.expect_silence(Duration::from_millis(500));
    first.open();
    assert_eq!(body.next(&mut conn), Ok(Some(b"data: 1\n\n".to_vec())));
    second.open();
    assert_eq!(body.next(&mut conn), Ok(Some(b"data: 2\n\n".to_vec())));
    // A client that has gone is noticed before there is another event.
    conn.abort();
    assert!(origin.wait_end(0).is_some());
}

#[test]
fn an_event_stream_ends_when_nothing_happens() {
    let origin = Origin::always(Script::raw(EVENTS).then(Act::Stall));
    let server = Server::before(&origin, r#"proxy "@origin@" { tunnel_timeout = "300ms" }"#);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/events"));
    let got = conn.try_read_response();
    assert!(matches!(got, Err(Trouble::Truncated | Trouble::Reset)));
    assert_eq!(origin.wait_end(0), Some(Trouble::Closed));
}

#[test]
fn with_abort_on_close_the_end_of_an_event_streams_client_is_its_leaving() {
    let origin = Origin::always(Script::raw(EVENTS).then(Act::Stall));
    let server = Server::before(&origin, r#"proxy "@origin@" { abort_on_close = true }"#);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/events"));
    assert_eq!(conn.read_head().0.status, 200);
    conn.half_close();
    assert!(origin.wait_end(0).is_some());
}

#[test]
fn events_for_an_old_client_arrive_at_once() {
    let gate = Gate::new();
    let script = Script::raw(EVENTS)
        .send("9\r\ndata: 1\n\n\r\n")
        .then(Act::Wait(gate.clone()))
        .send("0\r\n\r\n");
    let origin = Origin::always(script);
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    let mut conn = server.client().connect();
    conn.send(&Request::get("/events").http10());
    let (head, _) = conn.read_head();
    assert!(!wire::has_token(
        &head.fields,
        "transfer-encoding",
        "chunked"
    ));
    conn.expect_bytes(b"data: 1\n\n");
    gate.open();
    conn.expect_closed();
}
