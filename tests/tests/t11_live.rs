//! `live` of `cache`: responses that may not be stored, shared by those who ask while they run.

use std::process::{Command, Stdio};
use std::time::Duration;

use forebay_tests::client::Conn;
use forebay_tests::origin::script::Act;
use forebay_tests::peer::{Call, Peer};
use forebay_tests::wire::{Body, Head};
use forebay_tests::{Client, Gate, Origin, Request, Script, Server, Trouble, wait};

/// A server that shares what runs, before a peer or an origin.
fn sharing(options: &str, target: &str, workers: usize) -> Server {
    Server::builder(&format!(
        "site {{ \"*\", name = \"radio\", cache {{ {options} }}, proxy \"{target}\" }}"
    ))
    .workers(workers)
    .start()
}

/// A client that follows something.
struct Ear {
    conn: Conn,
    head: Head,
    body: Body,
    heard: Vec<u8>,
}

impl Ear {
    fn ask(client: &Client, request: &Request) -> Ear {
        let mut conn = client.connect();
        conn.send_head(request);
        Ear::after(conn)
    }

    fn after(mut conn: Conn) -> Ear {
        let (head, body) = conn.read_head();
        assert_eq!(head.status, 200);
        Ear {
            conn,
            head,
            body,
            heard: Vec::new(),
        }
    }

    fn get(server: &Server) -> Ear {
        Ear::ask(&server.client(), &Request::get("/live"))
    }

    /// Takes what comes next. False: it has come to its end.
    fn more(&mut self) -> Result<bool, Trouble> {
        let part = self.body.next(&mut self.conn)?;
        self.heard.extend(part.iter().flatten());
        Ok(part.is_some())
    }

    /// Hears exactly this next.
    #[track_caller]
    fn hears(&mut self, text: &str) {
        while self.heard.len() < text.len() {
            assert_eq!(self.more(), Ok(true), "after {:?}", self.heard);
        }
        let heard: Vec<u8> = self.heard.drain(..text.len()).collect();
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }

    /// Takes so many bytes.
    #[track_caller]
    fn takes(&mut self, len: usize) {
        while self.heard.len() < len {
            assert_eq!(self.more(), Ok(true));
        }
    }

    /// Takes all that comes; how it ended.
    fn follow(&mut self) -> Result<(), Trouble> {
        while self.more()? {}
        Ok(())
    }

    #[track_caller]
    fn ends(mut self) {
        assert_eq!(self.follow(), Ok(()));
        assert_eq!(self.heard, b"", "nothing more");
    }

    fn says(&self) -> &str {
        self.head.all("cache-status")[0]
    }

    fn leaves(self) {
        self.conn.abort();
    }
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                      Cache-Control: no-cache\r\n";
const RADIO: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nCache-Control: no-store\r\n\r\n";

/// Sends a chunk.
fn send(call: &mut Call, text: &str) {
    call.send(format!("{:x}\r\n{text}\r\n", text.len()));
}

/// Begins a stream of events for whoever has asked.
fn begin(peer: &Peer) -> Call {
    let mut call = peer.accept();
    call.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n"));
    call
}

/// A first client, and what it is sent.
fn tune_in(server: &Server, peer: &Peer) -> (Ear, Call) {
    let mut conn = server.client().connect();
    conn.send_head(&Request::get("/live"));
    let call = begin(peer);
    (Ear::after(conn), call)
}

fn metric(server: &Server, name: &str) -> u64 {
    let text = server.admin().get("/metrics").expect(200).text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    value.trim().parse().expect("a number")
}

fn live(server: &Server, what: &str) -> u64 {
    let name = format!("forebay_cache_live_{what}{{store=\"default\"}}");
    metric(server, &name)
}

/// Numbered lines, by which one can tell where one has begun.
fn lines(count: usize) -> String {
    (0..count).map(|n| format!("{n:>8} of many\n")).collect()
}

// --- Joining -------------------------------------------------------------------------------------

#[test]
fn fifty_share_one_request_whenever_they_come() {
    for workers in [1, 2] {
        let text = lines(100_000);
        let stream = Act::Trickle(text.clone().into_bytes(), 1000, Duration::from_millis(1));
        let script = Script::raw(RADIO).then(stream).then(Act::Stall);
        let origin = Origin::always(script);
        let server = sharing("live = \"drop\"", &origin.target(), workers);
        let heard: Vec<(bool, String)> = std::thread::scope(|scope| {
            let listen = |nth: usize| {
                let (server, origin) = (&server, &origin);
                move || {
                    if nth >= 25 {
                        // In the midst of it.
                        let sent = 3000 * nth as u64;
                        origin.wait_for("some of it", |_, conns| {
                            conns.iter().any(|conn| conn.sent > sent)
                        });
                    }
                    let mut ear = Ear::get(server);
                    ear.takes(100_000);
                    let joined = ear.says().contains("collapsed; detail=live");
                    let led = ear.says() == "forebay; fwd=uri-miss; detail=no-store";
                    assert!(joined || led, "{:?}", ear.head);
                    (joined, String::from_utf8(ear.heard).unwrap())
                }
            };
            let all: Vec<_> = (0..50).map(|nth| scope.spawn(listen(nth))).collect();
            all.into_iter().map(|ear| ear.join().unwrap()).collect()
        });
        assert_eq!(origin.requests().len(), 1, "{workers} workers");
        assert_eq!(heard.iter().filter(|(joined, _)| !joined).count(), 1);
        for (_, part) in heard {
            assert!(text.contains(&part), "a part of it, with nothing left out");
        }
        // The last one has left.
        wait::until("the stream to be closed", || {
            !forebay_tests::proc::is_in_use(origin.port())
        });
        assert_eq!((live(&server, "streams"), live(&server, "readers")), (0, 0));
        assert_eq!(live(&server, "memory_bytes"), 0);
        assert_eq!(live(&server, "cut_total"), 0);
    }
}

#[test]
fn curl_joins_as_anybody_does() {
    let peer = Peer::start();
    let server = sharing("live = \"skip\"", &peer.target(), 2);
    let (mut first, mut call) = tune_in(&server, &peer);
    send(&mut call, "data: 1\n\n");
    first.hears("data: 1\n\n");
    let curl: Vec<_> = (0..5)
        .map(|_| {
            Command::new("curl")
                .args(["-sSN", "-i", "-H", "Host: forebay.test"])
                .arg(format!("http://{}/live", server.addr()))
                .stdout(Stdio::piped())
                .spawn()
                .expect("curl, of the Debian package curl")
        })
        .collect();
    wait::until("all to have joined", || live(&server, "readers") == 6);
    send(&mut call, "data: 2\n\n");
    call.send("0\r\n\r\n");
    for curl in curl {
        let output = curl.wait_with_output().expect("its output");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        assert!(text.ends_with("\r\n\r\ndata: 2\n\n"), "{text}");
        let said = "Cache-Status: forebay; fwd=uri-miss; collapsed; detail=live\r\n";
        assert!(text.contains(said), "{text}");
    }
    first.hears("data: 2\n\n");
    first.ends();
}

#[test]
fn who_joins_never_sees_half_an_event() {
    let peer = Peer::start();
    let server = sharing("live = \"drop\"", &peer.target(), 2);
    let (mut first, mut call) = tune_in(&server, &peer);
    send(&mut call, "data: 1\r\n\r\ndata: ");
    first.hears("data: 1\r\n\r\ndata: ");
    // The head comes at once, and all of the event that has begun.
    let mut second = Ear::get(&server);
    assert_eq!(second.head.field("content-type"), Some("text/event-stream"));
    second.hears("data: ");
    send(&mut call, "2\n");
    send(&mut call, "\n");
    first.hears("2\n\n");
    second.hears("2\n\n");
    // Between two events: nothing of the last one.
    let mut third = Ear::get(&server);
    send(&mut call, "data: 3\n\n");
    for ear in [&mut first, &mut second, &mut third] {
        ear.hears("data: 3\n\n");
    }
    call.send("0\r\n\r\n");
    for ear in [first, second, third] {
        ear.ends();
    }
}

#[test]
fn who_joins_pictures_begins_with_one() {
    let peer = Peer::start();
    let server = sharing("live = \"skip\"", &peer.target(), 2);
    let mut conn = server.client().connect();
    conn.send_head(&Request::get("/live").field("Accept", "image/*"));
    let mut call = peer.accept();
    call.send(
        "HTTP/1.1 200 OK\r\nCache-Control: no-cache, private=\"x-for\"\r\nX-For: you\r\n\
         Content-Type: multipart/x-mixed-replace; boundary=\"--cut\"\r\nConnection: close\r\n\r\n",
    );
    let mut first = Ear::after(conn);
    assert_eq!(first.head.field("x-for"), Some("you"));
    call.send("--cut\r\n\r\none\r\n--cut\r\n\r\ntwo");
    first.hears("--cut\r\n\r\none\r\n--cut\r\n\r\ntwo");
    let mut second = Ear::get(&server);
    assert_eq!(second.head.field("x-for"), None, "it is for the first one");
    second.hears("--cut\r\n\r\ntwo");
    call.send("\r\n--cut\r\n\r\nthree");
    second.hears("\r\n--cut\r\n\r\nthree");
    first.hears("\r\n--cut\r\n\r\nthree");
    drop(call);
    first.ends();
    second.ends();
}

#[test]
fn what_stands_above_is_done_for_each() {
    let peer = Peer::start();
    let target = peer.target();
    let config = format!(
        "site {{ \"*\", compress {{ types = \"text/event-stream\" }}, \
         headers {{ response = {{ x_for = \"$headers.x_me\" }} }}, \
         cache {{ live = \"drop\" }}, proxy \"{target}\" }}"
    );
    let server = Server::builder(&config).start();
    let (mut first, mut call) = tune_in(&server, &peer);
    send(&mut call, "data: 1\n\n");
    first.hears("data: 1\n\n");
    let url = format!("http://{}/live", server.addr());
    let curl = Command::new("curl")
        .args(["-sSN", "-i", "--compressed", "-H", "Host: forebay.test"])
        .args(["-H", "X-Me: curl", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl, of the Debian package curl");
    wait::until("it to have joined", || live(&server, "readers") == 2);
    // HTTP/1.0 knows no chunks: its end is that of the connection.
    let mut old = server.client().connect();
    old.raw("GET /live HTTP/1.0\r\nHost: forebay.test\r\n\r\n");
    let mut old = Ear::after(old);
    send(&mut call, "data: 2\n\n");
    for ear in [&mut first, &mut old] {
        ear.hears("data: 2\n\n");
    }
    call.send("0\r\n\r\n");
    first.ends();
    old.ends();
    let output = curl.wait_with_output().expect("its output");
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("\r\n\r\ndata: 2\n\n"), "{text}");
    assert!(text.contains("x-for: curl\r\n"), "{text}");
    assert!(text.contains("content-encoding: "), "{text}");
}

#[test]
fn those_who_wait_for_the_head_join_when_it_comes() {
    let (held, peer) = (Gate::new(), lines(10_000));
    let script = Script::raw(RADIO)
        .then(Act::Send(peer.clone().into_bytes()))
        .then(Act::Stall)
        .when(&held);
    let origin = Origin::always(script);
    let server = sharing("live = \"drop\"", &origin.target(), 2);
    let asked: Vec<Conn> = (0..20)
        .map(|_| {
            let mut conn = server.client().connect();
            conn.send_head(&Request::get("/live"));
            conn
        })
        .collect();
    let questions = || {
        let status = server.admin().get("/status").expect(200);
        let status: serde_json::Value = serde_json::from_str(status.text()).unwrap();
        status["connections"].as_u64()
    };
    wait::until("all to have asked", || questions() >= Some(20));
    let _ = origin.wait_requests(1);
    held.open();
    for conn in asked {
        let mut ear = Ear::after(conn);
        let said = ear.says().to_owned();
        // Who came after it had begun gets what comes then: perhaps nothing more.
        if said.contains("no-store") {
            ear.hears(&peer);
        }
    }
    assert_eq!(origin.requests().len(), 1);
}

// --- Those who are too slow ----------------------------------------------------------------------

/// Follows, and leaves what it does not read in the server.
fn stalled(server: &Server) -> Ear {
    let client = server.client().receive_buffer(16 * 1024);
    Ear::ask(&client, &Request::get("/live"))
}

#[test]
fn who_stalls_is_cut_and_delays_nobody() {
    for workers in [1, 2] {
        let endless = Act::Part {
            at: 0,
            len: u64::MAX >> 1,
            rate: 0,
            chunked: false,
        };
        let origin = Origin::always(Script::raw(RADIO).then(endless));
        let server = sharing("live = \"drop\"", &origin.target(), workers);
        let mut slow = stalled(&server);
        let mut fast = Ear::get(&server);
        let before = server.memory_with_sockets();
        let (mut took, mut most) = (0, 0);
        while took < 60_000_000 {
            assert_eq!(fast.more(), Ok(true), "after {took} bytes");
            took += fast.heard.len();
            fast.heard.clear();
            if took % 64 == 0 {
                most = most.max(server.memory_with_sockets().saturating_sub(before));
            }
        }
        // At once, not when it would read again.
        wait::until("the slow one to be cut", || live(&server, "cut_total") == 1);
        assert_eq!(live(&server, "readers"), 1);
        assert!(slow.follow().is_err(), "and it can see that");
        assert!(most < 24 << 20, "{most} bytes more, window and sockets");
        fast.leaves();
        assert_eq!(origin.requests().len(), 1);
    }
}

#[test]
fn who_stalls_skips_to_the_newest_event() {
    let events: Vec<String> = (0..20_000)
        .map(|n| format!("data: {n} {}\n\n", "x".repeat(1000)))
        .collect();
    let script = Script::raw(format!("{EVENTS}\r\n"))
        .send(events.concat())
        .then(Act::Stall);
    let origin = Origin::always(script);
    let server = sharing("live = \"skip\"", &origin.target(), 2);
    let mut slow = stalled(&server);
    let mut fast = Ear::get(&server);
    while !String::from_utf8_lossy(&fast.heard).contains("data: 19999 ") {
        fast.heard.clear();
        assert_eq!(fast.more(), Ok(true));
    }
    // Now it reads on: each event is whole, and some are missing.
    let mut seen = Vec::new();
    while seen.last() != Some(&19_999) {
        assert_eq!(slow.more(), Ok(true), "after {:?}", seen.last());
        while let Some(end) = forebay_tests::wire::find(&slow.heard, b"\n\n") {
            let event: Vec<u8> = slow.heard.drain(..end + 2).collect();
            let event = String::from_utf8(event).unwrap();
            let words: Vec<&str> = event.split_whitespace().collect();
            let number: usize = words[1].parse().unwrap();
            assert_eq!(event, events[number]);
            assert!(seen.last().is_none_or(|last| *last < number), "in order");
            seen.push(number);
        }
    }
    assert!(seen.len() < 20_000, "some were skipped");
    assert_eq!(seen[0], 0);
    assert!(live(&server, "skipped_total") > 0);
    assert_eq!(live(&server, "cut_total"), 0);
    assert_eq!(origin.requests().len(), 1);
}

// --- Leaving and ending --------------------------------------------------------------------------

#[test]
fn with_the_last_one_the_stream_is_closed() {
    let peer = Peer::start();
    let server = sharing("live = \"drop\"", &peer.target(), 2);
    let (mut first, mut call) = tune_in(&server, &peer);
    send(&mut call, "data: 1\n\n");
    first.hears("data: 1\n\n");
    let mut second = Ear::get(&server);
    first.leaves();
    wait::until("it to be gone", || live(&server, "readers") == 1);
    send(&mut call, "data: 2\n\n");
    second.hears("data: 2\n\n");
    assert_eq!(live(&server, "streams"), 1);
    second.leaves();
    // It is silent: nobody would find that out by sending.
    let _ = call.is_reset();
    wait::until("nothing to run", || live(&server, "streams") == 0);
    // Who comes now asks anew.
    let (mut third, mut call) = tune_in(&server, &peer);
    send(&mut call, "data: 3\n\n");
    third.hears("data: 3\n\n");
    assert_eq!(third.says(), "forebay; fwd=uri-miss; detail=never-usable");
}

#[test]
fn an_end_is_an_end_for_all_and_a_breakdown_too() {
    let peer = Peer::start();
    let server = sharing("live = \"drop\"", &peer.target(), 2);
    for dies in [false, true] {
        let (mut first, mut call) = tune_in(&server, &peer);
        let mut second = Ear::get(&server);
        send(&mut call, "data: 1\n\n");
        for ear in [&mut first, &mut second] {
            ear.hears("data: 1\n\n");
        }
        match dies {
            false => call.send("0\r\n\r\n"),
            true => call.abort(),
        }
        for mut ear in [first, second] {
            assert_eq!(ear.follow().is_err(), dies, "{dies}");
        }
        wait::until("nothing to run", || live(&server, "streams") == 0);
    }
}

#[test]
fn it_goes_on_over_a_reload_and_is_cut_by_a_drain() {
    let peer = Peer::start();
    let config = |more: &str| {
        let target = peer.target();
        format!("site {{ \"*\", {more} cache {{ live = \"drop\" }}, proxy \"{target}\" }}")
    };
    let mut server = Server::builder(&config(""))
        .server(r#"drain = "1s""#)
        .workers(2)
        .start();
    let (mut first, mut call) = tune_in(&server, &peer);
    server.reload_with(&config("headers { response = { x_new = \"1\" } },"));
    let mut second = Ear::get(&server);
    assert_eq!(second.head.field("x-new"), Some("1"));
    assert!(second.says().contains("detail=live"));
    send(&mut call, "data: 1\n\n");
    for ear in [&mut first, &mut second] {
        ear.hears("data: 1\n\n");
    }
    server.signal(rustix::process::Signal::TERM);
    for mut ear in [first, second] {
        assert!(ear.follow().is_err(), "it was not complete");
    }
    let _ = server.wait_exit(Duration::from_secs(10));
}

#[test]
fn what_is_purged_is_not_joined_any_more() {
    let peer = Peer::start();
    let server = sharing("live = \"drop\"", &peer.target(), 2);
    let (mut first, mut call) = tune_in(&server, &peer);
    let _ = server.command("purge http://forebay.test/live").expect(0);
    // Nothing is stored that the rule would be kept for.
    wait::until("the rule to go", || {
        metric(
            &server,
            "forebay_cache_store_purge_rules{store=\"default\"}",
        ) == 0
    });
    let (mut second, mut other) = tune_in(&server, &peer);
    send(&mut call, "data: old\n\n");
    send(&mut other, "data: new\n\n");
    first.hears("data: old\n\n");
    second.hears("data: new\n\n");
    let mut third = Ear::get(&server);
    send(&mut other, "data: newer\n\n");
    third.hears("data: newer\n\n");
}

// --- What is for one alone -----------------------------------------------------------------------

/// Streams that say so much and then nothing, for anybody who asks; the second must get his own.
#[track_caller]
fn each_alone(head: &str, first: &Request, second: &Request) {
    let script = Script::raw(format!("HTTP/1.1 200 OK\r\n{head}\r\ndata: 1\n\n")).then(Act::Stall);
    let origin = Origin::always(script);
    let server = sharing("live = \"drop\"", &origin.target(), 1);
    let mut ears = Vec::new();
    for (count, request) in [first, second].into_iter().enumerate() {
        let mut ear = Ear::ask(&server.client(), request);
        ear.hears("data: 1\n\n");
        assert_eq!(origin.requests().len(), count + 1, "{head}{request:?}");
        ears.push(ear);
    }
}

#[test]
fn what_is_for_one_client_is_not_shared() {
    let get = Request::get("/live");
    for head in [
        "Cache-Control: private\r\n",
        "Cache-Control: no-store, private\r\n",
        "Cache-Control: no-store\r\nSet-Cookie: a=b\r\n",
        "Cache-Control: no-store\r\nVary: *\r\n",
        // Nothing of these makes sense from its middle.
        "Cache-Control: no-store\r\nContent-Length: 100\r\n",
        "Cache-Control: no-store\r\nContent-Type: text/html\r\n",
        "Cache-Control: no-store\r\nContent-Encoding: gzip\r\n",
    ] {
        each_alone(head, &get, &get);
    }
    let plain = "Cache-Control: no-store\r\nContent-Type: text/event-stream\r\n";
    for (name, value) in [
        ("Cookie", "a=b"),
        ("Authorization", "Basic YTpi"),
        ("Range", "bytes=0-"),
        ("Last-Event-ID", "7"),
        ("Cache-Control", "no-store"),
    ] {
        let special = Request::get("/live").field(name, value);
        // Who has asked with it is joined by nobody...
        each_alone(plain, &special, &get);
        if name != "Cache-Control" {
            // ... nor joins others.
            each_alone(plain, &get, &special);
        }
    }
    let accepts = |kind: &str| Request::get("/live").field("Accept", kind);
    each_alone(plain, &accepts("text/event-stream"), &accepts("text/html"));
    let varies = format!("{plain}Vary: X-Kind\r\n");
    let kind = |kind: &str| Request::get("/live").field("X-Kind", kind);
    each_alone(&varies, &kind("a"), &kind("b"));
}

#[test]
fn head_and_post_go_to_the_origin() {
    let peer = Peer::start();
    let server = sharing("live = \"drop\"", &peer.target(), 1);
    let (mut first, mut call) = tune_in(&server, &peer);
    for request in [Request::head("/live"), Request::post("/live", "x")] {
        let mut conn = server.client().connect();
        conn.send(&request);
        let mut other = peer.accept();
        other.send("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(conn.read_head().0.status, 204);
    }
    send(&mut call, "data: 1\n\n");
    first.hears("data: 1\n\n");
    assert_eq!(live(&server, "readers"), 1);
}

#[test]
fn requests_that_may_not_join_do_not_keep_others_from_it() {
    let peer = Peer::start();
    let server = sharing("live = \"drop\"", &peer.target(), 1);
    // Not for all: nobody waits for this URL any more.
    let mut conn = server.client().connect();
    conn.send_head(&Request::get("/live").field("Cookie", "a=b"));
    let _own = begin(&peer);
    let _own_ear = Ear::after(conn);
    let (mut first, mut call) = tune_in(&server, &peer);
    let mut second = Ear::get(&server);
    send(&mut call, "data: 1\n\n");
    for ear in [&mut first, &mut second] {
        ear.hears("data: 1\n\n");
    }
    assert!(second.says().contains("detail=live"));
}

#[test]
fn without_the_option_each_has_his_own() {
    let peer = Peer::start();
    let server = sharing("live = \"off\"", &peer.target(), 1);
    let (_first, _call) = tune_in(&server, &peer);
    let (mut second, mut call) = tune_in(&server, &peer);
    send(&mut call, "data: 1\n\n");
    second.hears("data: 1\n\n");
    assert_eq!(live(&server, "streams"), 0);
}

#[test]
fn what_may_not_be_shared_makes_nobody_wait() {
    let gate = Gate::new();
    let page = Script::with_fields(200, "Cache-Control: no-store\r\n", "a page");
    let held = page.clone().when(&gate);
    let origin = Origin::setup()
        .handle(move |request| match request.nth == 0 && request.conn == 0 {
            true => page.clone(),
            false => held.clone(),
        })
        .start();
    let server = sharing("live = \"drop\"", &origin.target(), 2);
    // The first tells that it is not stored, and not to be shared either.
    let _ = server.client().get("/page").expect(200);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| server.client().get("/page").expect(200));
        }
        origin.wait_for("all of them", |requests, _| requests.len() == 11);
        gate.open();
    });
}

// --- Seen from outside ---------------------------------------------------------------------------

#[test]
fn it_is_counted_once_what_the_origin_sends() {
    let peer = Peer::start();
    let server = sharing("live = \"drop\"", &peer.target(), 2);
    let (mut first, mut call) = tune_in(&server, &peer);
    let mut others: Vec<Ear> = (0..4).map(|_| Ear::get(&server)).collect();
    let text = server.command("status").expect(0).stdout;
    assert!(text.contains("1 live streams with 5 readers"), "{text}");
    send(&mut call, "data: 1\n\n");
    call.send("0\r\n\r\n");
    first.hears("data: 1\n\n");
    first.ends();
    for ear in &mut others {
        ear.hears("data: 1\n\n");
    }
    others.into_iter().for_each(Ear::ends);
    let site = "site=\"radio\"";
    let count = |what: &str, label: &str| {
        metric(
            &server,
            &format!("forebay_cache_{what}_total{{{site},{label}}}"),
        )
    };
    wait::until("all to be counted", || {
        count("requests", "cache=\"collapsed\"") == 4
    });
    assert_eq!(count("requests", "cache=\"pass\""), 1);
    assert_eq!(count("reasons", "reason=\"live\""), 5);
    assert_eq!(count("body_bytes", "from=\"origin\""), 9);
    assert_eq!(count("body_bytes", "from=\"store\""), 36);
}

#[test]
fn explain_tells_who_joins() {
    let server = sharing("live = \"drop\"", "127.0.0.1:1", 1);
    let config = server.config_path().to_str().expect("a path");
    let explain = |more: &[&str]| {
        let args = [&["explain", config, "http://forebay.test/live"], more].concat();
        forebay_tests::server::run(&args).expect(0).stdout
    };
    let text = explain(&[]);
    let joins =
        "live: a stream that may not be stored is joined where it is; who is too slow is cut";
    assert!(text.contains(joins), "{text}");
    let text = explain(&["-H", "Cookie: a=b"]);
    assert!(text.contains("live: not with this request"), "{text}");
}
