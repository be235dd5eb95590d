//! Many connections at once.

use std::time::{Duration, Instant};

use forebay_tests::{Origin, Request, Server, proc};

#[test]
fn eight_thousand_keep_alive_connections_are_all_answered() {
    let server = Server::builder(r#"site { "*", respond(200, "hello") }"#)
        .listen("max_connections_per_client = 10000")
        .start();
    proc::raise_own_limit();
    let mut conns: Vec<_> = (0..8000).map(|_| server.client().connect()).collect();
    for round in 0..3 {
        for conn in &mut conns {
            conn.send(&Request::get("/"));
        }
        for conn in &mut conns {
            assert_eq!(
                conn.read_response().expect(200).text(),
                "hello",
                "round {round}"
            );
        }
    }
    let each = server.pss() / 8000;
    println!("{each} bytes of user memory per idle connection, everything counted");
}

#[test]
fn eight_thousand_connections_before_an_origin_are_all_answered() {
    let origin = Origin::echo();
    let server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .listen("max_connections_per_client = 10000")
        .start();
    proc::raise_own_limit();
    let mut conns: Vec<_> = (0..8000).map(|_| server.client().connect()).collect();
    // The pool has 512 places and a queue of 1024: more than those at a time would be refused.
    for some in conns.chunks_mut(500) {
        for conn in some.iter_mut() {
            conn.send(&Request::get("/x"));
        }
        for conn in some {
            assert_eq!(conn.read_response().expect(200).text(), "GET /x");
        }
    }
}

#[test]
fn without_descriptors_it_does_not_spin() {
    let server = Server::builder(r#"site { "*", respond(200, "hello") }"#)
        .descriptors(80)
        .start();
    let held: Vec<_> = (0..300)
        .filter_map(|_| server.client().try_connect().ok())
        .collect();
    let before = proc::cpu_time(server.pid());
    std::thread::sleep(Duration::from_secs(5));
    let used = proc::cpu_time(server.pid()) - before;
    assert!(used < Duration::from_secs(1), "{used:?} in 5 s of nothing");
    drop(held);
}

#[test]
fn memory_does_not_grow_with_requests() {
    let origin = Origin::echo();
    let server = Server::before(
        &origin,
        r#"route "/r" { respond(200, "hello") }, proxy "@origin@""#,
    );
    let mut conns: Vec<_> = (0..16).map(|_| server.client().connect()).collect();
    let mut run = |rounds: usize| {
        let batch: Vec<Request> = (0..32)
            .map(|i| {
                if i == 0 {
                    Request::get("/proxied")
                } else {
                    Request::get("/r")
                }
            })
            .collect();
        for _ in 0..rounds {
            for conn in &mut conns {
                let _ = conn.pipeline(&batch);
            }
        }
    };
    run(50);
    let first = server.rss();
    let begun = Instant::now();
    run(400);
    println!("{} requests in {:?}", 400 * 16 * 32, begun.elapsed());
    let grown = server.rss().saturating_sub(first);
    assert!(grown < 1 << 20, "{} KiB", grown >> 10);
}
