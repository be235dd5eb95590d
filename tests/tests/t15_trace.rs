//! `forebay fcgi-trace`: between nginx and PHP, and of what was captured.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use forebay_tests::peers::Nginx;
use forebay_tests::php::PhpFpm;
use forebay_tests::port::Reserved;
use forebay_tests::server::{binary, run};
use forebay_tests::wait::{until, until_some};
use forebay_tests::{Request, Server};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A program of the test's, killed when dropped.
struct Job(Child);

impl Job {
    fn signal(&mut self, signal: Signal) -> i32 {
        let pid = i32::try_from(self.0.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it runs");
        let status = until_some("its end", || self.0.try_wait().expect("its state"));
        status.code().unwrap_or(-1)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Real PHP that listens for FastCGI.
fn php(at: &Reserved) -> Job {
    let child = Command::new("php-cgi")
        .args(["-b", &at.addr().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("php-cgi, of the Debian package php-cgi, does not run: {e}"));
    until("PHP", || TcpStream::connect(at.addr()).is_ok());
    Job(child)
}

/// A tap whose output goes to `DIR/shown`, and what it says to `DIR/said`.
fn tap(dir: &Path, args: &[&str]) -> Job {
    let shown = std::fs::File::create(dir.join("shown")).expect("a file");
    tap_to(dir, args, shown.into())
}

fn tap_to(dir: &Path, args: &[&str], shown: Stdio) -> Job {
    let said = std::fs::File::create(dir.join("said")).expect("a file");
    let child = Command::new(binary())
        .arg("fcgi-trace")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(shown)
        .stderr(said)
        .spawn()
        .expect("the forebay binary to run");
    let job = Job(child);
    until("the tap", || {
        text(dir, "said").contains("end it with Ctrl-C")
    });
    job
}

fn text(dir: &Path, name: &str) -> String {
    let bytes = std::fs::read(dir.join(name)).expect("a file");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn nginx_before(tap: SocketAddr) -> Nginx {
    let server = format!(
        "location / {{ include /etc/nginx/fastcgi_params;\n\
         fastcgi_param SCRIPT_FILENAME @dir@/page.php; fastcgi_pass {tap}; }}"
    );
    let page = b"<?php setcookie('secret', 'of-the-page'); error_log('a warning');\n\
                 echo 'for '.$_SERVER['REQUEST_URI'].\"\\n\";";
    Nginx::start(&server, &[("page.php", page)])
}

/// Without times, and from the parameters on only what PHP and nginx always say.
fn plain(shown: &str) -> Vec<String> {
    let line = |line: &str| match line.strip_prefix(' ') {
        Some(detail) => format!("  {}", detail.trim_start()),
        None => line.chars().skip(16).collect(),
    };
    shown.lines().map(line).collect()
}

#[test]
fn a_tap_shows_what_nginx_and_php_say_and_reads_it_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (app, at) = (Reserved::new(), Reserved::new());
    let _php = php(&app);
    let nginx = nginx_before(at.addr());
    let (listen, to) = (at.addr().to_string(), app.addr().to_string());
    let mut tap = tap(
        dir.path(),
        &["--listen", &listen, "--to", &to, "--write", "kept"],
    );
    let client = nginx.client();
    let answer = client.request(&Request::get("/a?token=t&b=1").field("Cookie", "c=hidden"));
    assert_eq!(answer.text(), "for /a?token=t&b=1\n");
    let form = Request::post("/form", "user=u&password=hidden")
        .field("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(client.request(&form).text(), "for /form\n");
    until("both to be shown", || {
        text(dir.path(), "shown").matches("(closed)").count() == 2
    });
    assert_eq!(
        tap.signal(Signal::SIGTERM),
        0,
        "{}",
        text(dir.path(), "said")
    );

    let shown = text(dir.path(), "shown");
    let lines = plain(&shown);
    let has = |expected: &str| {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected} in\n{shown}"
        );
    };
    has("#1/1 → BEGIN_REQUEST 8 bytes: Responder");
    has("  QUERY_STRING = token=***&b=1");
    has("  HTTP_COOKIE = ***");
    assert!(
        shown.contains("← STDERR ") && shown.contains("a warning"),
        "{shown}"
    );
    has("  Set-Cookie: ***");
    has("  | for /form");
    has("  | user=u&password=***");
    has("#2/1 → STDIN         0 bytes: the end of the stream");
    assert!(
        !shown.contains("hidden") && !shown.contains("of-the-page"),
        "{shown}"
    );
    assert!(
        shown.contains("END_REQUEST   8 bytes: status 0 of the application, RequestComplete"),
        "{shown}"
    );

    let kept = dir.path().join("kept");
    let mode = kept.metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "there are secrets in it");
    let kept = kept.to_str().expect("text");
    assert_eq!(run(&["fcgi-trace", "--read", kept]).expect(0).stdout, shown);
    let all = run(&["fcgi-trace", "--read", kept, "--secrets"]).expect(0);
    assert!(all.stdout.contains("password=hidden"), "{}", all.stdout);
    let some = run(&["fcgi-trace", "--read", kept, "--path", "/form", "--json"]).expect(0);
    let records: Vec<serde_json::Value> = some
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert!(records.iter().all(|record| record["connection"] == 2));
    let kinds: Vec<_> = records
        .iter()
        .filter_map(|one| one["type"].as_str())
        .collect();
    assert_eq!(kinds.first(), Some(&"BEGIN_REQUEST"));
    assert_eq!(kinds.last(), Some(&"END_REQUEST"));
    let body = records.iter().find(|one| one["type"] == "STDIN");
    assert_eq!(body.expect("a body")["data"], "user=u&password=***");
}

#[test]
fn of_a_running_server_is_shown_what_its_steps_offer() {
    let dir = tempfile::tempdir().expect("a directory");
    let php = PhpFpm::start(
        1,
        &[("a.php", "<?php echo 'for '.$_SERVER['REQUEST_URI'];")],
    );
    let config = "site { \"*\", route \"/quiet/*\" { rewrite \"/$rest\", fastcgi \"@php@\" { root = \"@app@\" } },\n\
                  fastcgi \"@php@\" { root = \"@app@\", trace = true } }";
    let server = Server::builder(config)
        .set("php", php.target())
        .set("app", php.root())
        .start();
    let admin = server.dir().join("admin.sock");
    let admin = admin.to_str().expect("text");
    let shown = std::fs::File::create(dir.path().join("shown")).expect("a file");
    let said = std::fs::File::create(dir.path().join("said")).expect("a file");
    let child = Command::new(binary())
        .args(["fcgi-trace", "--admin", admin, "--write", "kept"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(shown)
        .stderr(said)
        .spawn()
        .expect("the forebay binary to run");
    let mut job = Job(child);
    until("it to look on", || {
        text(dir.path(), "said").contains("looking on")
    });
    let client = server.client();
    assert_eq!(client.get("/quiet/a.php").text(), "for /quiet/a.php");
    let form = Request::post("/a.php?x", "user=u&password=hidden")
        .field("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(client.request(&form).text(), "for /a.php?x");
    until("all to be shown", || {
        text(dir.path(), "shown").contains("(closed)")
    });
    let shown = text(dir.path(), "shown");
    let lines = plain(&shown);
    let has = |expected: &str| {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected} in\n{shown}"
        );
    };
    has("#1/1 → BEGIN_REQUEST 8 bytes: Responder, keep the connection");
    has("  REQUEST_URI = /a.php?x");
    has("  | user=u&password=***");
    has("#1/1 → STDIN         0 bytes: the end of the stream");
    has("  | for /a.php?x");
    assert!(shown.contains("END_REQUEST"), "{shown}");
    assert!(
        !shown.contains("quiet") && !shown.contains("hidden"),
        "{shown}"
    );
    // In a file there is all of it.
    let kept = dir.path().join("kept");
    let kept = kept.to_str().expect("text");
    assert_eq!(run(&["fcgi-trace", "--read", kept]).expect(0).stdout, shown);
    // It ends with the server, and where nothing is offered that is said.
    server.reload_with("site { \"*\", respond(200) }");
    let refused = run(&["fcgi-trace", "--admin", admin]).expect(1);
    assert!(
        refused.stderr.contains("trace = true"),
        "{}",
        refused.stderr
    );
    drop(server);
    let status = until_some("its end", || job.0.try_wait().expect("its state"));
    assert!(status.code().is_some(), "{status}");
}

#[test]
fn packets_that_tcpdump_captured_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let app = Reserved::new();
    let _php = php(&app);
    let nginx = nginx_before(app.addr());
    let port = app.port().to_string();
    for interface in ["lo", "any"] {
        let said = std::fs::File::create(dir.path().join("said")).expect("a file");
        let child = Command::new("tcpdump")
            .args(["-i", interface, "-U", "-w", "packets", "port", &port])
            .current_dir(dir.path())
            .stderr(said)
            .spawn()
            .unwrap_or_else(|e| panic!("tcpdump, of the package tcpdump, does not run: {e}"));
        let mut tcpdump = Job(child);
        until("tcpdump", || {
            text(dir.path(), "said").contains("listening on")
        });
        assert_eq!(nginx.client().get("/captured").text(), "for /captured\n");
        let file = dir.path().join("packets");
        let file = file.to_str().expect("text");
        // The last packets come to it a moment later.
        let shown = until_some("the whole request in the capture", || {
            let shown = run(&["fcgi-trace", "--read", file]).stdout;
            shown.contains("END_REQUEST").then_some(shown)
        });
        tcpdump.signal(Signal::SIGINT);
        assert!(shown.contains("REQUEST_URI = /captured\n"), "{shown}");
        assert!(shown.contains("| for /captured\n"), "{shown}");
        assert!(shown.contains(&format!(" to {})", app.addr())), "{shown}");
    }
}

#[test]
fn a_socket_of_a_tap_is_open_to_whom_the_applications_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let app = dir.path().join("app.sock");
    let _app = UnixListener::bind(&app).expect("a socket");
    std::fs::set_permissions(&app, PermissionsExt::from_mode(0o622)).expect("its mode");
    std::os::unix::fs::chown(&app, Some(33), Some(33)).expect("its owner");
    let mut tap = tap(
        dir.path(),
        &["--listen", "unix:tap.sock", "--to", "unix:app.sock"],
    );
    let socket = dir.path().join("tap.sock");
    let is = socket.metadata().expect("it is there");
    assert!(is.file_type().is_socket());
    assert_eq!((is.mode() & 0o777, is.uid(), is.gid()), (0o622, 33, 33));
    assert_eq!(tap.signal(Signal::SIGINT), 0);
    assert!(!socket.exists(), "it is removed at the end");
}

#[test]
fn an_application_that_is_down_is_told_and_does_not_end_the_tap() {
    let dir = tempfile::tempdir().expect("a directory");
    let (app, at) = (Reserved::new(), Reserved::new());
    let nginx = nginx_before(at.addr());
    let (listen, to) = (at.addr().to_string(), app.addr().to_string());
    let _tap = tap(dir.path(), &["--listen", &listen, "--to", &to]);
    assert_eq!(nginx.client().get("/").status(), 502);
    until("the reason", || {
        text(dir.path(), "shown").contains("cannot reach")
    });
    let _php = php(&app);
    assert_eq!(nginx.client().get("/up").text(), "for /up\n");
}

/// Bytes that mean nothing, so that nothing in them is cut or kept by chance.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn what_passes_is_unchanged_and_waits_for_nobody_who_looks_on() {
    let dir = TempDir::new().expect("a directory");
    let app = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = app.local_addr().expect("its address").to_string();
    let at = Reserved::new();
    // Its output is a pipe that nobody reads.
    let listen = at.addr().to_string();
    let args = ["--listen", &listen, "--to", &to, "--body", "65535"];
    let tap = tap_to(dir.path(), &args, Stdio::piped());
    let sent = noise(40 << 20);
    let expected = sent.clone();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = app.accept().expect("a connection");
        let mut all = Vec::new();
        // Up to the half-close, which is passed on.
        stream.read_to_end(&mut all).expect("all of it");
        stream.write_all(&all).expect("an answer");
    });
    let mut front = TcpStream::connect(at.addr()).expect("the tap");
    // Records of a type that nobody knows, for the tap to show: all of it would fill the pipe.
    let mut stream = front.try_clone().expect("a second handle");
    let writer = std::thread::spawn(move || {
        for piece in sent.chunks(60_000) {
            let len = u16::try_from(piece.len()).expect("short").to_be_bytes();
            let header = [1, 5, 0, 1, len[0], len[1], 0, 0];
            stream.write_all(&header).expect("it is read");
            stream.write_all(piece).expect("it is read");
        }
        stream.shutdown(Shutdown::Write).expect("an end");
    });
    let mut back = Vec::new();
    front.read_to_end(&mut back).expect("all of it");
    writer.join().expect("it was written");
    echo.join().expect("it was answered");
    let mut rest = back.as_slice();
    for piece in expected.chunks(60_000) {
        let (record, behind) = rest.split_at(8 + piece.len());
        assert!(record[8..] == *piece, "the bytes are others");
        rest = behind;
    }
    assert!(rest.is_empty());
    // What it holds of what is not read is bounded.
    let rss = forebay_tests::proc::rss(tap.0.id());
    assert!(rss < 80 << 20, "{rss} bytes");
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("text"), "no capture, but text\n").expect("a file");
    let path = dir.path().join("text");
    let path = path.to_str().expect("text");
    let output = run(&["fcgi-trace", "--read", path]).expect(1);
    assert!(
        output.stderr.contains("expected a capture"),
        "{}",
        output.stderr
    );
    for args in [
        &["fcgi-trace", "--listen", "127.0.0.1:1"][..],
        &["fcgi-trace", "--listen", "nowhere", "--to", "127.0.0.1:1"],
        &[
            "fcgi-trace",
            "--listen",
            "127.0.0.1:1",
            "--to",
            "srv:_http._tcp.app",
        ],
        &["fcgi-trace", "--read", "x", "--path", "a*b"],
    ] {
        let output = run(args).expect(2);
        assert!(!output.stderr.is_empty());
    }
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = busy.local_addr().expect("its address").to_string();
    let output = run(&["fcgi-trace", "--listen", &at, "--to", "127.0.0.1:1"]).expect(1);
    assert!(
        output.stderr.contains("cannot listen on"),
        "{}",
        output.stderr
    );
}
