//! What one client does must not be felt by another.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_tests::load::{SlowReaders, best_of, percentile, times};
use forebay_tests::slow_disk::{NAME, SlowDisk};
use forebay_tests::{Client, Origin, Request, Script, Server, pattern};

const ROUND: Duration = Duration::from_secs(3);

/// What no scheduling of clients and origins on the same core explains: somebody was starved.
const STARVED: Duration = Duration::from_millis(100);

/// Says whether the bar was met. Only starving fails the test: on a machine with other work the
/// rest of the time is that work's as often as the server's.
fn judge(said: String, bar_met: bool, busy: Duration) -> Result<String, String> {
    let said = format!("{said}: bar {}met", if bar_met { "" } else { "not " });
    if bar_met || busy < STARVED {
        Ok(said)
    } else {
        Err(said)
    }
}

/// The 99th percentile of a client that asks for a small answer again and again. It goes first among
/// those on its core: what it waits for is the server.
fn p99(client: &Client) -> Duration {
    let me = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut conn = client.connect();
    let request = Request::get("/small");
    run("chrt", &["--reset-on-fork", "--fifo", "--pid", "10", &me]);
    let times = times(ROUND, || drop(conn.exchange(&request).expect(200)));
    run("chrt", &["--other", "--pid", "0", &me]);
    percentile(&times, 99)
}

/// The server on one core, and all others, greedy clients and origins, on another.
fn apart(server: &Server) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let last = (cores - 1).to_string();
    run("taskset", &["-acp", "0", &server.pid().to_string()]);
    run("taskset", &["-acp", &last, &std::process::id().to_string()]);
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

#[test]
fn a_thousand_slow_downloads_leave_a_fast_client_alone() {
    let server = Server::builder(
        r#"site { "*", route "/small" { respond(200, "small") }, files "@dir@/www" }"#,
    )
    .file("www/ten.bin", pattern::bytes(10 << 20))
    .listen("max_connections_per_client = 2000")
    .workers(1)
    .start();
    apart(&server);
    best_of(5, || {
        let idle = p99(&server.client());
        let request = Request::get("/ten.bin");
        let readers = SlowReaders::start(&server.client(), &request, 1000, 10 << 10);
        let busy = p99(&server.client());
        assert_eq!(readers.stop(), 1000, "nobody who moves is cut");
        let said = format!("p99 {idle:?} alone, {busy:?} beside 1,000 slow downloads");
        let bar = busy <= idle * 3 / 2 && busy <= idle + Duration::from_millis(1);
        judge(said, bar, busy)
    });
}

#[test]
fn greedy_clients_leave_another_alone() {
    let origin = Origin::always(Script::pattern(10 << 30));
    let server = Server::builder(
        r#"site { "*", route "/small" { respond(200, "small") }, proxy "@origin@" }"#,
    )
    .origin("origin", &origin)
    .workers(1)
    .start();
    apart(&server);
    best_of(5, || {
        let idle = p99(&server.client());
        let stop = Arc::new(AtomicBool::new(false));
        let threads = [
            pipeliner(&server.client(), &stop),
            reader(&server.client(), &stop),
        ];
        let busy = p99(&server.client());
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("a greedy client");
        }
        let said = format!("p99 {idle:?} alone, {busy:?} beside a pipeliner and a reader");
        judge(said, busy <= idle * 2, busy)
    });
}

#[test]
fn a_slow_disk_leaves_other_connections_alone() {
    // 4 MB/s: reading the 128 KiB of one request takes 31 ms, which a worker must not wait for.
    let disk = SlowDisk::mount(64 << 20, 4 << 20);
    let server = Server::builder(
        r#"site { "*", route "/small" { respond(200, "small") }, files "@disk@" }"#,
    )
    .set("disk", disk.dir().display().to_string())
    .workers(1)
    .start();
    apart(&server);
    best_of(5, || {
        let request = Request::get(&format!("/{NAME}"));
        let readers = SlowReaders::start(&server.client(), &request, 8, 8 << 20);
        let busy = p99(&server.client());
        let read = readers.read();
        let _ = readers.stop();
        let said = format!(
            "p99 {busy:?} while {} KiB came from the slow disk",
            read >> 10
        );
        assert!(read > 1 << 20, "{said}");
        // One read that a worker waits for takes 31 ms.
        if busy < Duration::from_millis(20) {
            Ok(said)
        } else {
            Err(said)
        }
    });
    // And what came was right.
    disk.heal();
    let mut conn = server.client().connect();
    conn.send(&Request::get(&format!("/{NAME}")));
    let (_, len) = conn.slow_read(0).expect("the whole file");
    assert_eq!(len, 64 << 20);
}

/// Sends requests without end, 64 at a time, and reads whatever comes.
fn pipeliner(client: &Client, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (mut conn, stop) = (client.connect(), Arc::clone(stop));
    let batch = vec![Request::get("/small"); 64];
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let _ = conn.pipeline(&batch);
        }
    })
}

/// Reads 10 GB as fast as they come.
fn reader(client: &Client, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (mut conn, stop) = (client.connect(), Arc::clone(stop));
    std::thread::spawn(move || {
        conn.send(&Request::get("/big"));
        while !stop.load(Ordering::Relaxed) {
            if conn.drain(256 << 10) == Ok(0) {
                std::thread::yield_now();
            }
        }
    })
}
