//! As a service: what the service manager is told, with a socket of the test's own in its place.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use forebay_tests::proc::Stopped;
use forebay_tests::{Gate, Origin, Request, Script, Server, wait};
use rustix::process::Signal;
use tempfile::TempDir;

const HELLO: &str = r#"site { "*", respond(200, "hello") }"#;

/// The service manager.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        Manager { socket, dir }
    }

    fn name(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    /// The next message within this time.
    fn next_within(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).expect("a timeout");
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// The next message that is no sign of life.
    #[track_caller]
    fn next(&self) -> String {
        wait::until_some("a message", || {
            self.next_within(wait::PATIENCE)
                .filter(|text| text != ALIVE)
        })
    }

    /// Reads what is there already.
    fn drain(&self) {
        self.socket.set_nonblocking(true).expect("a socket");
        let mut buffer = [0; 4096];
        while self.socket.recv(&mut buffer).is_ok() {}
        self.socket.set_nonblocking(false).expect("a socket");
    }
}

const ALIVE: &str = "WATCHDOG=1\n";

#[test]
fn ready_reloading_and_stopping_are_told() {
    let manager = Manager::new();
    let mut server = Server::builder(HELLO)
        .server(r#"drain = "3s""#)
        .env("NOTIFY_SOCKET", &manager.name())
        .start();
    let addr = server.addr();
    let serves = |n: u32| format!("READY=1\nSTATUS=Serves 1 site on {addr}, generation {n}");
    assert_eq!(manager.next(), serves(1) + "\n");

    server.reload_with(HELLO);
    let reloading = manager.next();
    let lines: Vec<&str> = reloading.lines().collect();
    assert_eq!(lines[0], "RELOADING=1");
    let (_, time) = lines[1].split_once("MONOTONIC_USEC=").expect("a time");
    assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{time}");
    assert_eq!(manager.next(), serves(2) + "\n");

    server.write_config("site { nothing }");
    assert_eq!(server.reload().code, Some(2));
    assert!(manager.next().starts_with("RELOADING=1\n"));
    let refused = serves(2) + "; the last reload was refused\n";
    assert_eq!(manager.next(), refused);

    server.signal(Signal::TERM);
    // The time of the drain, and what ending takes after it: the last exchanges and lines of logs, the
    // disks of caches, processes of its own.
    let stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=22000000\nSTATUS=Finishing what is under way\n";
    assert_eq!(manager.next(), stopping);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn without_a_watchdog_there_are_no_signs_of_life() {
    let manager = Manager::new();
    let server = Server::builder(HELLO)
        .env("NOTIFY_SOCKET", &manager.name())
        // Another process's.
        .env("WATCHDOG_USEC", "20000")
        .env("WATCHDOG_PID", "1")
        .start();
    assert!(manager.next().starts_with("READY=1\n"));
    assert_eq!(manager.next_within(Duration::from_millis(200)), None);
    drop(server);
}

#[test]
fn signs_of_life_come_twice_in_the_watchdogs_time() {
    let manager = Manager::new();
    let server = watched(&manager);
    assert!(manager.next().starts_with("READY=1\n"));
    // On a machine that is busy one may come late, but not all of them; none comes early.
    let mut came = Vec::new();
    for _ in 0..10 {
        let sign = manager.next_within(wait::PATIENCE);
        assert_eq!(sign.as_deref(), Some(ALIVE));
        came.push(Instant::now());
    }
    let least = WATCHDOG * 9 / 2 - Duration::from_millis(100);
    let all = came[9] - came[0];
    assert!(all >= least, "ten of them are nine halves: {all:?}");
    let gaps = came.windows(2).map(|two| two[1] - two[0]);
    let shortest = gaps.min().expect("nine of them");
    assert!(shortest < WATCHDOG * 3 / 4, "{shortest:?}");
    drop(server);
}

#[test]
fn without_descriptors_it_is_alive() {
    let manager = Manager::new();
    let server = watched(&manager);
    assert!(manager.next().starts_with("READY=1\n"));
    forebay_tests::proc::limit_descriptors(server.pid(), 3);
    manager.drain();
    for _ in 0..2 {
        let sign = manager.next_within(wait::PATIENCE);
        assert_eq!(sign.as_deref(), Some(ALIVE));
    }
}

/// Long enough for a machine that is busy with other tests.
const WATCHDOG: Duration = Duration::from_millis(1000);

fn watched(manager: &Manager) -> Server {
    Server::builder(HELLO)
        .workers(2)
        .env("NOTIFY_SOCKET", &manager.name())
        .env("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string())
        .start()
}

#[test]
fn a_worker_that_hangs_ends_the_signs_of_life() {
    let manager = Manager::new();
    let server = watched(&manager);
    assert!(manager.next().starts_with("READY=1\n"));
    for name in ["worker-1", "worker-0", "forebay"] {
        // The thread alone, as if it never came out of a loop. The last is the control plane's.
        let stopped = Stopped::threads(server.pid(), name);
        // One may be on its way.
        manager.drain();
        let first = manager.next_within(WATCHDOG);
        let then = manager.next_within(WATCHDOG * 2);
        assert_eq!(then, None, "{name} is stopped; before that {first:?}");
        drop(stopped);
        let sign = manager.next_within(wait::PATIENCE);
        assert_eq!(sign.as_deref(), Some(ALIVE), "{name} goes on");
    }
}

#[test]
fn while_it_drains_it_is_alive() {
    let manager = Manager::new();
    let gate = Gate::new();
    let origin = Origin::always(Script::ok("done").when(&gate));
    let mut server = Server::builder(r#"site { "*", proxy "@origin@" }"#)
        .origin("origin", &origin)
        .env("NOTIFY_SOCKET", &manager.name())
        .env("WATCHDOG_USEC", "100000")
        .start();
    let mut busy = server.client().connect();
    busy.send(&Request::get("/"));
    let _ = origin.wait_requests(1);
    assert!(manager.next().starts_with("READY=1\n"));
    server.signal(Signal::TERM);
    assert!(manager.next().starts_with("STOPPING=1\n"));
    for _ in 0..5 {
        let sign = manager.next_within(wait::PATIENCE);
        assert_eq!(sign.as_deref(), Some(ALIVE));
    }
    gate.open();
    let _ = busy.read_response().expect(200);
    assert!(server.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn a_manager_that_is_gone_is_no_reason_to_end() {
    let manager = Manager::new();
    let server = Server::builder(HELLO)
        .env("NOTIFY_SOCKET", "/nonexistent/notify")
        .start();
    assert_eq!(server.client().get("/").expect(200).text(), "hello");
    server.reload_with(HELLO);
    server.wait_stderr("the service manager cannot be told");
    drop(manager);
}

/// A signal for the whole service, as `systemctl kill` sends it, leaves the helper.
#[test]
fn the_helper_survives_the_signals_of_a_service() {
    let server = Server::start(HELLO);
    let helper = forebay_tests::proc::tree(server.pid())[1];
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP, Signal::TERM] {
        let pid = rustix::process::Pid::from_raw(i32::try_from(helper).expect("a process id"));
        rustix::process::kill_process(pid.expect("a process id"), signal).expect("the helper");
    }
    // It is asked for new sockets.
    let port = forebay_tests::port::Reserved::new();
    server.reload_with(&format!("listen \"{}\" {HELLO}", port.addr()));
    let client = forebay_tests::Client::tcp(port.addr());
    assert_eq!(client.get("/").expect(200).text(), "hello");
}
