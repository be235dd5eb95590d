//! Big bodies, slow clients, slow origins: nothing is lost, and nothing grows.

use std::time::{Duration, Instant};

use forebay_tests::load::{SlowReaders, best_of};
use forebay_tests::peers::Nginx;
use forebay_tests::{Client, Origin, Request, Script, Server, pattern, wait};

const ELEVEN: usize = 11 << 20;

fn before_nginx(files: &[(&str, &[u8])]) -> (Nginx, Server) {
    let nginx = Nginx::start("", files);
    let server = Server::builder(r#"site { "*", proxy "@nginx@" }"#)
        .set("nginx", nginx.target())
        .start();
    (nginx, server)
}

fn eleven_megabytes(client: &Client, rate: u64) {
    let mut conn = client.connect();
    conn.send(&Request::get("/big.bin"));
    let (head, len) = conn.slow_read(rate).expect("the whole body");
    assert_eq!((len, head.status), (ELEVEN as u64, 200));
}

#[test]
fn a_throttled_client_gets_every_byte() {
    let (_nginx, server) = before_nginx(&[("big.bin", &pattern::bytes(ELEVEN))]);
    eleven_megabytes(&server.client().receive_buffer(64 << 10), 1 << 20);
}

#[test]
fn a_client_that_starts_reading_late_gets_every_byte() {
    let (_nginx, server) = before_nginx(&[("big.bin", &pattern::bytes(ELEVEN))]);
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    // A client that is busy with something else for as long as nothing may be cut.
    std::thread::sleep(Duration::from_secs(10));
    let (_, len) = conn.slow_read(0).expect("the whole body");
    assert_eq!(len, ELEVEN as u64);
}

#[test]
fn a_slow_upload_reaches_the_origin_whole() {
    let origin = Origin::echo();
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    let body = pattern::bytes(3 << 20);
    let request = Request::post("/", &body);
    let mut conn = server.client().connect();
    conn.send_head(&request);
    for part in body.chunks(64 << 10) {
        conn.more(part);
        std::thread::sleep(Duration::from_millis(60));
    }
    let _ = conn.read_response().expect(200);
    assert!(origin.only_request().body == body);
}

#[test]
fn requests_to_a_slow_origin_are_asked_in_parallel() {
    let origin = Origin::always(Script::ok("slow").after(Duration::from_secs(5)));
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    let begun = Instant::now();
    let mut conns: Vec<_> = (0..4)
        .map(|_| {
            let mut conn = server.client().connect();
            conn.send(&Request::get("/"));
            conn
        })
        .collect();
    for conn in &mut conns {
        assert_eq!(conn.read_response().expect(200).text(), "slow");
    }
    // One after the other it would take 20 s, two at a time 10 s.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(9), "{took:?}");
}

#[test]
fn a_fast_answer_before_a_slow_one_comes_within_50_ms() {
    let origin = Origin::setup()
        .route("/slow5s", Script::ok("slow").after(Duration::from_secs(5)))
        .start();
    let server = Server::before(
        &origin,
        r#"route "/fast" { respond(200, "fast") }, proxy "@origin@""#,
    );
    best_of(5, || {
        let mut conn = server.client().connect();
        let begun = Instant::now();
        conn.raw("GET /fast HTTP/1.1\r\nHost: a\r\n\r\nGET /slow5s HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(conn.read_response().text(), "fast");
        let took = begun.elapsed();
        assert_eq!(conn.read_response().text(), "slow");
        let said = format!("the first after {took:?}");
        if took < Duration::from_millis(50) {
            Ok(said)
        } else {
            Err(said)
        }
    });
}

#[test]
fn slow_readers_of_a_huge_proxied_body_cost_little() {
    let origin = Origin::always(Script::pattern(1 << 30));
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    let _ = server.client().patience(Duration::from_secs(60)).connect();
    let idle = server.memory_with_sockets();
    let readers = SlowReaders::start(&server.client(), &Request::get("/"), 2, 10 << 10);
    let mut most = 0;
    let end = Instant::now() + Duration::from_secs(15);
    wait::until_within(Duration::from_secs(20), "the time to pass", || {
        most = most.max(server.memory_with_sockets().saturating_sub(idle));
        Instant::now() > end
    });
    assert_eq!(readers.stop(), 2, "nobody who moves is cut");
    assert!(most < 16 << 20, "{} KiB", most >> 10);
    println!("two readers at 10 KB/s: {} KiB", most >> 10);
}

#[test]
fn a_huge_file_is_not_kept_in_memory() {
    let server = Server::builder(r#"site { "*", files "@dir@/www" }"#).start();
    server.file("www/huge.bin", "");
    let path = server.dir().join("www/huge.bin");
    std::fs::File::options()
        .write(true)
        .open(path)
        .expect("a file")
        .set_len(2 << 30)
        .expect("2 GiB");
    let _ = server.client().get("/nothing");
    let idle = server.rss();
    let mut conns = Vec::new();
    let mut read = 0_u64;
    let mut most = 0;
    for _ in 0..4 {
        // Not before: on a slow machine it would be idle for too long until it is its turn.
        let mut conn = server.client().connect();
        conn.send(&Request::get("/huge.bin"));
        let got = conn.read_response_with(|part| {
            read += part.len() as u64;
            if read.is_multiple_of(1 << 20) {
                most = most.max(server.rss().saturating_sub(idle));
            }
        });
        let _ = got.expect("the whole file");
        conns.push(conn);
    }
    assert_eq!(read, 4 * (2 << 30));
    assert!(most < 16 << 20, "{} KiB", most >> 10);
}

#[test]
fn a_client_below_the_least_rate_is_ended() {
    // 1 KB/s over 30 s: who sends a body slower than that holds a place for nothing.
    let origin = Origin::echo();
    let server = Server::before(&origin, r#"proxy "@origin@""#);
    let mut conn = server.client().connect();
    conn.send_head(&Request::post("/", vec![b'x'; 1 << 20]));
    let begun = Instant::now();
    let mut ended = false;
    while begun.elapsed() < Duration::from_secs(60) && !ended {
        ended = conn.try_more("0123456789").is_err();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(ended, "50 bytes a second for a minute");
    assert!(
        begun.elapsed() > Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}
