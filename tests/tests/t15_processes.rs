//! `processes`: pools of processes that the server starts itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use forebay_tests::{Builder, Client, Request, Server, load, proc, wait};

/// An application that serves one request after the other on descriptor 3.
const APP: &str = r#"
import os, socket, sys, time
assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_PID"] == str(os.getpid())
listener = socket.socket(fileno=3)
counted = 0
while True:
    conn, _ = listener.accept()
    data = b""
    while b"\r\n\r\n" not in data:
        more = conn.recv(65536)
        if not more: break
        data += more
    path = data.split(b" ")[1].decode() if data else "/"
    body = "pid=%d" % os.getpid()
    if path == "/crash": os._exit(3)
    if path == "/count":
        counted += 1
        body = "%d" % counted
    if path == "/sleep": time.sleep(1000)
    if path == "/gate":
        open("at-gate", "w").close()
        while not os.path.exists("go"): time.sleep(0.01)
    if path == "/eat":
        eaten = os.urandom(1 << 20) * 100
        time.sleep(1000)
    if path == "/print":
        print("to standard output \x1b[2J", flush=True)
        print("to standard error", file=sys.stderr, flush=True)
    if path == "/env":
        names = sorted(name for name in os.environ if name not in ("LC_CTYPE", "LISTEN_PID"))
        body = "%s %s %s" % (os.getcwd(), os.getuid(), ",".join(names))
    body = body.encode()
    try:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        conn.sendall(head + body)
    except OSError: pass
    conn.close()
"#;

fn builder(options: &str, pipeline: &str) -> Builder {
    let config = format!(
        "local app = processes \"app\" {{ \"python3\", \"app.py\", protocol = \"http\", dir = \"@dir@/app\",\n\
         {options} }}\nsite {{ \"*\", {pipeline} }}"
    );
    Server::builder(&config).file("app/app.py", APP)
}

fn serve(options: &str) -> Server {
    builder(options, "proxy(app)").start()
}

fn pid(client: &Client) -> u32 {
    let response = client.get("/").expect(200);
    pid_of(response.text())
}

fn pid_of(text: &str) -> u32 {
    let number = text.strip_prefix("pid=").expect("a process id");
    number.parse().expect("a process id")
}

/// The processes that run.
fn running(server: &Server) -> Vec<u32> {
    let mut all = proc::tree(server.pid());
    // The server and its helper.
    all.drain(..2);
    all
}

fn send(client: &Client, target: &str) -> forebay_tests::Conn {
    let mut conn = client.connect();
    conn.send(&Request::get(target));
    conn
}

/// A number of the metrics, about the pool of most cases.
fn metric(server: &Server, name: &str, labels: &str) -> f64 {
    let text = server.admin().get("/metrics").expect(200).text().to_owned();
    let start = format!("forebay_processes_{name}{{upstream=\"app\"{labels}}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    let value = line.unwrap_or_else(|| panic!("no {start}in\n{text}"));
    value.trim().parse().expect("a number")
}

/// Waits until at least one process has ended for this reason by the metrics; and none for most of
/// the others.
fn wait_ended(server: &Server, reason: &str) {
    let ended = |why| metric(server, "ended_total", &format!(",reason=\"{why}\""));
    wait::until(&format!("one ended by {reason}"), || ended(reason) > 0.0);
    let all = [
        "start", "crash", "exit", "time", "memory", "requests", "spare",
    ];
    for other in all.into_iter().filter(|other| *other != reason) {
        assert!(ended(other) < 0.5, "{reason} and {other}");
    }
}

#[test]
fn processes_answer() {
    let server = serve("count = 2");
    let client = server.client();
    let pids: BTreeSet<u32> = (0..20).map(|_| pid(&client)).collect();
    assert_eq!(pids.len(), 2);
    assert_eq!(pids, running(&server).into_iter().collect());
    wait::until("both are told of", || {
        metric(&server, "running", "") == 2.0 && metric(&server, "memory_bytes", "") > 1e6
    });
    assert_eq!(metric(&server, "started_total", ""), 2.0);
    let told = server.command("upstream app").expect(0).stdout;
    assert!(told.contains("\n  2 run, 2 started\n"), "{told}");
    for pid in pids {
        assert!(told.contains(&format!("  process {pid}, ")), "{told}");
    }
}

#[test]
fn a_process_has_what_it_was_given_and_nothing_else() {
    let server = serve(r#"count = 1, env = { APP_MODE = "test" }"#);
    let response = server.client().get("/env").expect(200);
    let mut words = response.text().split(' ');
    let dir = server.dir().join("app");
    assert_eq!(words.next(), dir.to_str());
    let _ = words.next();
    assert_eq!(words.next(), Some("APP_MODE,LISTEN_FDS,PATH"));
}

#[test]
fn they_run_in_the_directory_of_the_configuration_unless_it_says_otherwise() {
    let server = Server::builder(
        r#"local app = processes "app" { "python3", "app/app.py", protocol = "http", count = 1 }
           site { "*", proxy(app) }"#,
    )
    .file("app/app.py", APP)
    .start();
    let response = server.client().get("/env").expect(200);
    let main = server.config_path().parent().and_then(|dir| dir.to_str());
    assert_eq!(response.text().split(' ').next(), main);
}

#[test]
fn what_processes_print_is_in_the_log() {
    let server = serve("count = 1");
    let _ = server.client().get("/print").expect(200);
    server.wait_stderr("to standard error");
    let log = server.stderr();
    assert!(log.contains(r"to standard output \x1b[2J"), "{log}");
    assert!(log.contains(r#"peer="app/0""#), "{log}");
}

#[test]
fn a_crash_costs_its_own_request_only() {
    let server = serve("count = 1");
    let client = server.client();
    let first = pid(&client);
    let crash = client.request(&Request::post("/crash", "x"));
    assert_eq!(crash.status(), 502);
    // At once, and the ones that come meanwhile wait.
    let second = pid(&client);
    assert_ne!(first, second);
    server.wait_stderr("ended with status 3");
    wait_ended(&server, "crash");
    let mut waiting = send(&client, "/gate");
    wait::until("it is asked", || running(&server).len() == 1);
    let mut queued = send(&client, "/");
    proc::kill(second);
    server.file("app/go", "");
    // A GET is asked again, of the one that is there then.
    assert_eq!(waiting.read_response().status(), 200);
    assert_eq!(queued.read_response().status(), 200);
}

#[test]
fn a_request_that_takes_too_long_costs_its_process() {
    let server = serve(r#"count = 1, time = "300ms""#);
    let client = server.client();
    let first = pid(&client);
    assert_eq!(client.get("/sleep").status(), 504);
    let second = pid(&client);
    assert_ne!(first, second);
    server.wait_stderr("took too long for a request");
    wait_ended(&server, "time");
    wait::until("one is left", || running(&server) == [second]);
}

#[test]
fn a_process_that_holds_too_much_memory_is_replaced() {
    let server = serve(r#"count = 1, memory = "50MB""#);
    let client = server.client();
    let first = pid(&client);
    let response = client.request(&Request::post("/eat", "x"));
    assert_eq!(response.status(), 502);
    assert_ne!(pid(&client), first);
    server.wait_stderr("holds too much memory");
    wait_ended(&server, "memory");
}

#[test]
fn processes_are_replaced_after_their_requests_and_none_fails() {
    let server = serve("count = { 2, 2 }, max_requests = 10");
    let client = server.client();
    let mut pids = BTreeSet::new();
    wait::until("some are replaced", || {
        pids.insert(pid(&client));
        pids.len() >= 6
    });
    wait::until("two are left", || running(&server).len() == 2);
    wait_ended(&server, "requests");
}

#[test]
fn as_many_as_are_needed_and_the_others_wait() {
    let server = serve("count = { 1, 3 }");
    let client = server.client();
    let _ = pid(&client);
    assert_eq!(running(&server).len(), 1);
    let mut conns: Vec<_> = (0..10).map(|_| send(&client, "/gate")).collect();
    wait::until("three run", || running(&server).len() == 3);
    server.file("app/go", "");
    let mut pids = BTreeSet::new();
    for conn in &mut conns {
        let response = conn.read_response().expect(200);
        pids.insert(pid_of(response.text()));
    }
    assert!(pids.len() <= 3, "{pids:?}");
    assert_eq!(running(&server).len(), 3);
}

#[test]
fn past_the_queue_is_503() {
    let server = serve(r#"count = 1, queue = 2, queue_timeout = "200ms""#);
    let client = server.client();
    let _ = pid(&client);
    let mut first = send(&client, "/gate");
    wait::until("it is asked", || server.dir().join("app/at-gate").exists());
    let mut others: Vec<_> = (0..5).map(|_| send(&client, "/gate")).collect();
    for conn in &mut others {
        let response = conn.read_response().expect(503);
        assert!(response.field("retry-after").is_some());
    }
    server.file("app/go", "");
    assert_eq!(first.read_response().status(), 200);
}

#[test]
fn those_that_wait_are_served_in_the_order_in_which_they_came() {
    let server = serve("count = 1");
    let client = server.client();
    let _ = pid(&client);
    let mut first = send(&client, "/gate");
    wait::until("it is asked", || server.dir().join("app/at-gate").exists());
    let mut others = Vec::new();
    for number in 1..=10 {
        others.push(send(&client, "/count"));
        let waiting = format!("\"waiting\": {number}\n");
        wait::until("it waits", || {
            let status = server.admin().get("/status").expect(200);
            status.text().contains(&waiting)
        });
    }
    server.file("app/go", "");
    assert_eq!(first.read_response().status(), 200);
    let counts: Vec<_> = others
        .iter_mut()
        .map(|conn| conn.read_response().expect(200).text().to_owned())
        .collect();
    let expected: Vec<_> = (1..=10).map(|number| number.to_string()).collect();
    assert_eq!(counts, expected);
}

#[test]
fn a_process_is_not_free_before_it_has_done_what_nobody_waits_for() {
    let server = serve("count = 1");
    let client = server.client();
    let _ = pid(&client);
    let gone = send(&client, "/gate");
    let mut next = send(&client, "/");
    gone.abort();
    server.file("app/go", "");
    assert_eq!(next.read_response().status(), 200);
}

#[test]
fn an_equal_definition_keeps_its_processes_and_another_gets_its_own() {
    let server = serve("count = 1");
    let client = server.client();
    let first = pid(&client);
    let config = |options: &str| {
        format!(
            "local app = processes \"app\" {{ \"python3\", \"app.py\", protocol = \"http\", dir = \"@dir@/app\",\n\
             {options} }}\nsite {{ \"*\", proxy(app) }}"
        )
    };
    server.reload_with(&config("count = 1"));
    assert_eq!(pid(&client), first);
    let mut under_way = send(&client, "/gate");
    let mut queued = send(&client, "/");
    under_way.wait_until_read();
    queued.wait_until_read();
    server.reload_with(&config("count = 1, max_requests = 500"));
    let second = pid(&client);
    assert_ne!(second, first);
    assert_eq!(running(&server).len(), 2);
    server.file("app/go", "");
    assert_eq!(pid_of(under_way.read_response().expect(200).text()), first);
    let _ = queued.read_response().expect(200);
    wait::until("the old one is ended", || running(&server) == [second]);
}

#[test]
fn what_cannot_start_is_tried_again_later_and_later() {
    let server = Server::builder(
        r#"local app = processes "app" { "false", protocol = "http", count = 1 }
           local none = processes "none" { "no-such-program", protocol = "http", count = 1 }
           site { "*", route "/none" { proxy(none) }, route "/app" { proxy(app) { first_byte_timeout = "1s" } }, respond(200, "here") }"#,
    )
    .start();
    server.wait_stderr("ended with status 1");
    server.wait_stderr("there is no program");
    let client = server.client();
    assert_eq!(client.get("/none").status(), 503);
    assert!(matches!(client.get("/app").status(), 502..=504));
    assert_eq!(client.get("/").text(), "here");
    let count = server.stderr().matches("ended with status 1").count();
    assert!(count < 20, "{count} times");
    wait_ended(&server, "crash");
    let told = server.command("upstream").expect(0).stdout;
    let none = "upstream none\n  0 run, 0 started, 1 could not be started\n";
    assert!(told.contains(none), "{told}");
}

#[test]
fn all_end_with_the_server() {
    let mut server = serve("count = 3");
    let _ = pid(&server.client());
    wait::until("all run", || running(&server).len() == 3);
    let all = running(&server);
    server.signal(rustix::process::Signal::TERM);
    let status = server.wait_exit(wait::PATIENCE);
    assert!(status.success(), "{status}");
    assert!(all.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn all_die_with_a_server_that_is_killed() {
    let mut server = serve("count = 3");
    let _ = pid(&server.client());
    wait::until("all run", || running(&server).len() == 3);
    let all = running(&server);
    server.signal(rustix::process::Signal::KILL);
    server.wait_exit(wait::PATIENCE);
    wait::until("all are dead", || all.iter().all(|pid| !is_alive(*pid)));
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn another_user_runs_them_when_root_starts_the_server() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = builder(r#"count = 1, user = "65534:65533""#, "proxy(app)")
        .open_to_all()
        .start();
    let response = server.client().get("/env").expect(200);
    assert_eq!(response.text().split(' ').nth(1), Some("65534"));
}

#[test]
fn php_runs_by_fastcgi() {
    let server = Server::builder(
        r#"local php = processes "php" { "php-cgi", protocol = "fastcgi", count = { 2, 4 } }
           site { "*", files "@dir@/www", fastcgi(php) { root = "@dir@/www" } }"#,
    )
    .file(
        "www/index.php",
        "<?php echo 'hello ', $_SERVER['REQUEST_METHOD'], ' ', file_get_contents('php://input');",
    )
    .file("www/die.php", "<?php posix_kill(getmypid(), 9);")
    .file("www/a.txt", "a file")
    .start();
    let client = server.client();
    assert_eq!(client.get("/a.txt").expect(200).text(), "a file");
    assert_eq!(client.get("/").expect(200).text(), "hello GET ");
    let posted = client.request(&Request::post("/", "body")).expect(200);
    assert_eq!(posted.text(), "hello POST body");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let client = server.client();
            std::thread::spawn(move || {
                for _ in 0..50 {
                    assert_eq!(client.get("/x/y").expect(200).text(), "hello GET ");
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("all served"));
    let died = client.request(&Request::post("/die.php", "x"));
    assert!(matches!(died.status(), 500 | 502), "{}", died.status());
    assert_eq!(client.get("/").expect(200).text(), "hello GET ");
}

/// The same, each request in a thread; `/burn` keeps its process busy until there is a file.
const THREADS: &str = r#"
import os, socket, threading
listener = socket.socket(fileno=3)
def burn():
    while not os.path.exists("cool"): sum(range(10000))
def serve(conn):
    path = conn.recv(65536).split(b" ")[1]
    if path == b"/burn": threading.Thread(target=burn).start()
    if path == b"/burn-by-children":
        for _ in range(4):
            if os.fork() == 0:
                burn()
                os._exit(0)
    body = b"pid=%d" % os.getpid()
    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    conn.close()
while True:
    conn, _ = listener.accept()
    threading.Thread(target=serve, args=(conn,)).start()
"#;

#[test]
fn a_busy_process_gets_little_and_recovers() {
    let server = builder("count = 4, max_connections = 200", "proxy(app)")
        .file("app/app.py", THREADS)
        .start();
    let client = server.client();
    // Of so many, twenty at a time.
    let share_of = |burning: u32| {
        let mut conns: Vec<_> = (0..20).map(|_| client.connect()).collect();
        let mut count = 0;
        for _ in 0..2 {
            conns
                .iter_mut()
                .for_each(|conn| conn.send(&Request::get("/")));
            for conn in &mut conns {
                count += usize::from(pid_of(conn.read_response().expect(200).text()) == burning);
            }
        }
        count
    };
    // What starting them has taken is forgotten.
    let all = wait::until_some("all run", || {
        Some(running(&server)).filter(|all| all.len() == 4)
    });
    let patience = Duration::from_secs(20);
    wait::until_within(patience, "all are equal", || {
        all.iter().all(|pid| share_of(*pid) >= 7)
    });
    let response = client.get("/burn").expect(200);
    let burning = pid_of(response.text());
    // Two reports are two seconds; the machine may have other things to do.
    let patience = Duration::from_secs(4);
    wait::until_within(patience, "it gets less than a tenth", || {
        share_of(burning) < 4
    });
    server.file("app/cool", "");
    let patience = Duration::from_secs(20);
    wait::until_within(patience, "it gets its share again", || {
        share_of(burning) >= 8
    });
}

#[test]
fn a_new_process_takes_its_time_to_its_full_share() {
    let options = r#"count = 2, max_connections = 200, balance = "round_robin", slow_start = "5s""#;
    let server = builder(options, "proxy(app)")
        .file("app/app.py", THREADS)
        .start();
    let client = server.client();
    let are = |state: &str, count: usize| {
        let status = server.admin().get("/status").expect(200);
        let state = format!(r#""state": "{state}""#);
        status.text().matches(&state).count() == count
    };
    // Before they are started they do not pass for new yet.
    wait::until("both are started", || are("warming", 2));
    wait::until("both have their share", || are("up", 2));
    let old = pid(&client);
    let mut new = wait::until_some("the other", || Some(pid(&client)).filter(|pid| *pid != old));
    load::best_of(5, || {
        let killed = new;
        let begun = Instant::now();
        proc::kill(killed);
        new = wait::until_some("a new one", || {
            running(&server)
                .into_iter()
                .find(|pid| ![old, killed].contains(pid))
        });
        wait::until("it is started", || are("warming", 1));
        let count = (0..20).filter(|_| pid(&client) == new).count();
        let took = begun.elapsed();
        let said = format!("{count} of 20 within {took:?}");
        // Half of the time and longer, it has half of its share and more.
        assert!(count <= 7 || took > Duration::from_millis(2500), "{said}");
        if count <= 7 { Ok(said) } else { Err(said) }
    });
    let patience = Duration::from_secs(20);
    wait::until_within(patience, "it has its share", || {
        are("up", 2) && (0..20).filter(|_| pid(&client) == new).count() == 10
    });
}

#[test]
fn a_process_that_takes_more_than_its_share_of_a_core_is_held_back() {
    let options = r#"count = 2, max_connections = 200, balance = "round_robin", cpu = "10%""#;
    let server = builder(options, "proxy(app)")
        .file("app/app.py", THREADS)
        .start();
    let client = server.client().patience(Duration::from_secs(30));
    let both = wait::until_some("both run", || {
        Some(running(&server)).filter(|both| both.len() == 2)
    });
    let burning = pid_of(client.get("/burn-by-children").expect(200).text());
    let other = both[usize::from(both[0] == burning)];
    server.wait_stderr("more than its share of a core: it is held back");
    wait::until("it is stopped", || proc::state(burning) == Some('T'));
    wait::until("it is told that it is", || {
        let told = server.command("upstream app").expect(0).stdout;
        let held = "held back: it has used up its cpu";
        let line = told.lines().find(|line| line.ends_with(held));
        line.is_some_and(|line| line.contains(&format!("process {burning}, ")))
    });
    wait::until("it is counted", || {
        metric(&server, "held_seconds_total", "") > 0.5
    });
    // Children count, too.
    let taken = || -> Duration { proc::tree(burning).into_iter().map(proc::cpu_time).sum() };
    let (start, before) = (Instant::now(), taken());
    let mut answered = BTreeSet::new();
    while start.elapsed() < Duration::from_secs(3) {
        answered.insert(pid(&client));
        assert_ne!(proc::state(other), Some('T'));
    }
    let took = (taken() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(took < 0.25, "{took:.2} of a core");
    // It is slow, but it is not cut off, and goes on.
    assert_eq!(answered, BTreeSet::from([burning, other]));
    wait::until("it takes its share", || taken() > before);
    server.file("app/cool", "");
    wait::until_within(Duration::from_secs(25), "it is free again", || {
        proc::state(burning) != Some('T') && pid(&client) == burning
    });
}

#[test]
fn mistakes_are_named() {
    let check = |options: &str, expected: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        let config = format!(
            "local app = processes \"app\" {{ \"x\", {options} }}\nsite {{ \"*\", proxy(app) }}"
        );
        std::fs::write(dir.path().join("forebay.lua"), config).expect("a file");
        let said = forebay_tests::server::run_in(dir.path(), &["check", "forebay.lua"]);
        assert_eq!(said.code, Some(2), "{options}: {}", said.stdout);
        assert!(said.stdout.contains(expected), "{options}: {}", said.stdout);
    };
    check("", "`protocol`");
    check(
        "protocol = \"fastcgi\"",
        "processes \"app\" speaks FastCGI, and `proxy` HTTP",
    );
    check(
        "protocol = \"http\", health = { path = \"/\" }",
        "what ends, hangs or takes too much is replaced",
    );
    check(
        "protocol = \"http\", count = { 3, 2 }",
        "more at least than at most",
    );
    check("protocol = \"http\", cpu = \"0.5%\"", "nothing would run");
    check(
        "protocol = \"http\", user = \"nobody-like-this\"",
        "there is no user",
    );
    check(
        "protocol = \"http\", env = { [\"A=B\"] = \"x\" }",
        "`env` cannot have",
    );
    let nameless = tempfile::tempdir().expect("a directory");
    let config = r#"local app = processes { "x", protocol = "http" } site { "*", proxy(app) }"#;
    std::fs::write(nameless.path().join("forebay.lua"), config).expect("a file");
    let said = forebay_tests::server::run_in(nameless.path(), &["check", "forebay.lua"]);
    assert!(
        said.stdout.contains("processes: NAME is missing"),
        "{}",
        said.stdout
    );
}
