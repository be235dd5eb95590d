//! The harness against itself: what it records and expects has to be right before it may judge.

use std::time::{Duration, Instant};

use forebay_tests::origin::script::Act;
use forebay_tests::peers::Nginx;
use forebay_tests::slow_disk::SlowDisk;
use forebay_tests::wire::Framing;
use forebay_tests::{Client, Gate, Origin, Request, Script, Trouble, pattern};

fn client(origin: &Origin) -> Client {
    Client::tcp(origin.target().parse().expect("an address"))
}

#[test]
fn client_and_origin_agree_on_every_byte() {
    let origin = Origin::echo();
    let mut conn = client(&origin).connect();
    let request = Request::post("/a?b=c", "body").field("X-One", "1");
    let response = conn.exchange(&request).expect(200);
    assert_eq!(response.text(), "POST /a?b=c");
    assert_eq!(response.framing, Framing::Length(11));
    assert_eq!(conn.get("/second").text(), "GET /second");
    let seen = origin.wait_requests(2);
    assert_eq!(seen[0].raw, request.head_bytes());
    assert_eq!(
        (seen[0].text(), seen[0].field("x-one")),
        ("body", Some("1"))
    );
    assert_eq!((seen[1].conn, seen[1].nth), (0, 1));
    assert!(
        origin.connections()[0]
            .bytes
            .starts_with(&request.to_bytes())
    );
}

#[test]
fn chunks_trailers_and_interim_responses_are_read() {
    let script = Script::raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    let script = script.send(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..]);
    let origin = Origin::always(script.send("3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"));
    let request = Request::new("PUT", "/")
        .chunks(&[b"one", b"two"])
        .trailer("X-T", "t");
    let response = client(&origin).request(&request);
    assert_eq!((response.text(), response.interim[0].status), ("abc", 103));
    assert_eq!(response.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
    let seen = origin.only_request();
    assert_eq!(seen.text(), "onetwo");
    assert_eq!(seen.trailers, [("X-T".to_owned(), "t".to_owned())]);
}

#[test]
fn misbehaviour_is_told_apart() {
    let truncated = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let origin = Origin::setup()
        .route("/close", Script::new().close())
        .route("/reset", Script::new().then(Act::Reset))
        .route("/garbage", Script::raw("\0\x01 garbage\r\n\r\n").close())
        .route("/truncate", Script::raw(truncated).close())
        .route("/cut", Script::raw(truncated).then(Act::Reset))
        .route("/stall", Script::new().then(Act::Stall))
        .start();
    let ask = |path: &str| {
        let mut conn = client(&origin)
            .patience(Duration::from_millis(300))
            .connect();
        conn.send(&Request::get(path));
        conn.try_read_response().expect_err(path)
    };
    assert_eq!(ask("/close"), Trouble::Closed);
    assert_eq!(ask("/reset"), Trouble::Reset);
    assert!(matches!(ask("/garbage"), Trouble::Malformed(_)));
    assert_eq!(ask("/truncate"), Trouble::Truncated);
    assert_eq!(ask("/cut"), Trouble::Reset);
    assert_eq!(ask("/stall"), Trouble::Timeout);
}

#[test]
fn how_a_client_leaves_is_seen() {
    let origin = Origin::always(Script::new().then(Act::Stall));
    let mut leaving = client(&origin).connect();
    leaving.send(&Request::get("/"));
    let _ = origin.wait_requests(1);
    leaving.abort();
    assert_eq!(origin.wait_end(0), Some(Trouble::Reset));
    let mut closing = client(&origin).connect();
    closing.send(&Request::get("/"));
    closing.half_close();
    assert_eq!(origin.wait_end(1), Some(Trouble::Closed));
    closing.expect_closed();
}

#[test]
fn a_gate_holds_an_origin_back() {
    let (reached, gate) = (Gate::new(), Gate::new());
    let script = Script::new()
        .then(Act::Open(reached.clone()))
        .then(Act::Wait(gate.clone()));
    let origin = Origin::always(script.send("HTTP/1.1 204 No Content\r\n\r\n"));
    let mut conn = client(&origin).connect();
    conn.send(&Request::get("/"));
    assert!(reached.wait(Duration::from_secs(5)));
    conn.expect_silence(Duration::from_millis(20));
    gate.open();
    let _ = conn.read_response().expect(204);
}

#[test]
fn an_early_answer_comes_before_the_body() {
    let origin = Origin::always(Script::status(413, "").early().close());
    let mut conn = client(&origin).connect();
    conn.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc");
    let _ = conn.read_response().expect(413);
    conn.expect_gone();
}

#[test]
fn splits_are_read_apart() {
    let origin = Origin::echo();
    let bytes = Request::post("/x", "0123456789").to_bytes();
    let got = client(&origin).split_everywhere(&bytes);
    assert_eq!(got.len(), bytes.len() - 1);
    for (at, transcript) in got {
        assert_eq!(transcript.statuses(), [200], "split at {at}");
        assert_eq!(transcript.end, Trouble::Closed, "split at {at}");
    }
}

#[test]
fn a_slow_reader_reads_slowly_and_checks() {
    let origin = Origin::always(Script::pattern(300_000));
    let mut conn = client(&origin).receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/"));
    let begun = Instant::now();
    let (_, len) = conn.slow_read(1_000_000).expect("a whole body");
    assert_eq!(len, 300_000);
    assert!(begun.elapsed() >= Duration::from_millis(280));
}

#[test]
fn pattern_notices_what_is_dropped_or_moved() {
    let body = pattern::bytes(200_000);
    let mut checker = pattern::Checker::default();
    checker.feed(&body[..70_000]);
    checker.feed(&body[70_000..]);
    for moved in [1_usize, 2, 255, 256, 4096, 65_536] {
        let piece = body[moved..moved + 1000].to_vec();
        assert!(std::panic::catch_unwind(|| pattern::Checker::default().feed(&piece)).is_err());
    }
}

#[test]
fn nginx_serves_as_a_real_peer() {
    let nginx = Nginx::start("location /x { return 200 hello; }", &[("f.txt", b"file")]);
    assert_eq!(nginx.client().get("/x").expect(200).text(), "hello");
    assert_eq!(nginx.client().get("/f.txt").expect(200).text(), "file");
    let mut conn = nginx.client().connect();
    let all = conn.pipeline(&[
        Request::get("/x"),
        Request::head("/x"),
        Request::get("/f.txt"),
    ]);
    assert_eq!(
        all.iter().map(|r| r.body.len()).collect::<Vec<_>>(),
        [5, 0, 4]
    );
}

#[test]
fn a_slow_disk_is_slow_and_right() {
    use std::io::Read as _;
    let disk = SlowDisk::mount(200_000, 1_000_000);
    let begun = Instant::now();
    let mut file = std::fs::File::open(disk.file()).expect("the file");
    let mut bytes = Vec::new();
    let _ = file.read_to_end(&mut bytes).expect("its bytes");
    assert!(bytes == pattern::bytes(200_000));
    assert!(
        begun.elapsed() >= Duration::from_millis(190),
        "{:?}",
        begun.elapsed()
    );
}
