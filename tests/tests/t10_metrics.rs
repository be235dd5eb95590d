//! Metrics, as a real reader of them understands them, and the error log.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use forebay_tests::port::Reserved;
use forebay_tests::server::binary;
use forebay_tests::{Client, Gate, Origin, Request, Script, Server, wait};

/// The parser of Prometheus's own client: prints a line for each sample, and ends in an error for
/// what it does not take.
const PARSER: &str = r#"
import sys
if sys.argv[1] == "openmetrics":
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
else:
    from prometheus_client.parser import text_string_to_metric_families
seen = set()
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.name not in seen, family.name + " comes twice"
    seen.add(family.name)
    assert family.documentation and family.type != "unknown", family
    for sample in family.samples:
        labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
        assert (sample.name, labels) not in seen, sample
        seen.add((sample.name, labels))
        print(family.type, sample.name + "{" + labels + "}", repr(float(sample.value)))
"#;

/// What the parser has read: kind and value by name and labels.
struct Read(BTreeMap<String, (String, f64)>);

impl Read {
    #[track_caller]
    fn new(format: &str, text: &str) -> Read {
        let mut parser = Command::new("/usr/bin/python3")
            .args(["-c", PARSER, format])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3, of the Debian package python3");
        let mut stdin = parser.stdin.take().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("it reads");
        drop(stdin);
        let output = parser.wait_with_output().expect("it ends");
        assert!(
            output.status.success(),
            "is the Debian package python3-prometheus-client missing?\n{}\n{text}",
            String::from_utf8_lossy(&output.stderr)
        );
        let printed = String::from_utf8(output.stdout).expect("a text");
        let samples = printed.lines().map(|line| {
            let (kind, rest) = line.split_once(' ').expect("a kind");
            let (name, value) = rest.rsplit_once(' ').expect("a value");
            let value = value.parse().expect("a number");
            (name.to_owned(), (kind.to_owned(), value))
        });
        Read(samples.collect())
    }

    /// What the metrics of this client's server are now.
    #[track_caller]
    fn of(client: &Client, accept: &str, format: &str) -> Read {
        let request = Request::get("/metrics").field("Accept", accept);
        let response = client.request(&request).expect(200);
        let kind = response.field("content-type").expect("a type").to_owned();
        assert_eq!(
            kind.contains("openmetrics"),
            format == "openmetrics",
            "{kind}"
        );
        Read::new(format, response.text())
    }

    #[track_caller]
    fn value(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some((_, value)) => *value,
            None => panic!("no {name} in {:#?}", self.0.keys()),
        }
    }

    /// Expects a number that is whole.
    #[track_caller]
    fn check(&self, name: &str, expected: u32) {
        let value = self.value(name);
        assert!((value - f64::from(expected)).abs() < 0.5, "{name}: {value}");
    }
}

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

#[test]
fn a_real_parser_reads_what_was_counted() {
    let gate = Gate::new();
    let origin = Origin::setup()
        .route("/slow", Script::ok("slow").when(&gate))
        .route("/fast", Script::ok("fast"))
        .route("/bad", Script::raw("nonsense\r\n\r\n").close())
        .start();
    let server = Server::builder(
        r#"local app = upstream "app" { "@origin@" }
           site { "a.test", name = "shop", route "/none" { respond(404, "none") }, proxy(app) }
           site { "*", metrics }"#,
    )
    .origin("origin", &origin)
    .start();
    let get = |target: &str| {
        let request = Request::get(target).host("a.test");
        server.client().request(&request)
    };
    for _ in 0..3 {
        let _ = get("/fast").expect(200);
    }
    let _ = get("/none").expect(404);
    let _ = get("/bad").expect(502);
    let mut slow = server.client().connect();
    slow.send(&Request::get("/slow").host("a.test"));
    let _ = origin.wait_requests(5);

    let target = origin.target();
    let peer = |name: &str| format!("forebay_peer_{name}{{peer={target},upstream=app}}");
    for (accept, format) in [("text/plain", "prometheus"), (OPENMETRICS, "openmetrics")] {
        let read = Read::of(&server.client(), accept, format);
        read.check("forebay_site_requests_total{class=2xx,site=shop}", 3);
        read.check("forebay_site_requests_total{class=4xx,site=shop}", 1);
        read.check("forebay_site_requests_total{class=5xx,site=shop}", 1);
        read.check("forebay_faults_total{by=upstream,reason=bad_response}", 1);
        read.check(&peer("requests_total"), 5);
        read.check(&peer("failures_total"), 1);
        read.check(&peer("in_flight"), 1);
        read.check(&peer("up"), 1);
        read.check("forebay_upstream_waiting{upstream=app}", 0);
        // The slow one and this.
        read.check("forebay_exchanges{}", 2);
        read.check("forebay_workers{}", 2);
        assert!(read.value("process_resident_memory_bytes{}") > 1e6);
        assert!(read.value("process_cpu_seconds_total{}") > 0.0);
        let files = read.value("process_open_fds{}");
        assert!(
            files > 10.0 && files <= read.value("process_max_fds{}"),
            "{files}"
        );
        check_histogram(
            &read,
            "request_duration",
            &format!("listener={}", server.addr()),
            5,
        );
        // The answers that came: the slow one is still waited for.
        check_histogram(&read, "step_wait", "step=proxy", 4);
    }
    gate.open();
    let _ = slow.read_response().expect(200);
}

/// The buckets rise, and the last one counts all, at least so many.
#[track_caller]
fn check_histogram(read: &Read, name: &str, label: &str, least: u32) {
    let prefix = format!("forebay_{name}_seconds_bucket{{");
    let mut buckets: Vec<(f64, f64)> = read
        .0
        .iter()
        .filter_map(|(name, (_, count))| {
            let labels = name.strip_prefix(&prefix)?.strip_suffix('}')?;
            // The parser puts them in the order of their names.
            let end = labels.strip_prefix("le=")?.strip_suffix(label)?;
            let end = end.strip_suffix(',')?.replace("+Inf", "inf");
            Some((end.parse().expect("a number"), *count))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.len() > 50, "{buckets:?}");
    assert!(
        buckets.windows(2).all(|two| two[0].1 <= two[1].1),
        "{buckets:?}"
    );
    let all = buckets.last().expect("a bucket").1;
    let count = format!("forebay_{name}_seconds_count{{{label}}}");
    assert_eq!(read.0[&count].0, "histogram");
    let count = read.value(&count);
    assert!((all - count).abs() < 0.5, "{all} {count}");
    assert!(count > f64::from(least) - 0.5, "{count} {least}");
    // Those that went through the proxy have taken some time.
    assert!(read.value(&format!("forebay_{name}_seconds_sum{{{label}}}")) > 0.0);
}

#[test]
fn connections_by_what_they_do() {
    let gate = Gate::new();
    let origin = Origin::always(Script::ok("done").when(&gate));
    let server = Server::builder(r#"site { "a.test", proxy "@origin@" } site { "*", metrics }"#)
        .origin("origin", &origin)
        .start();
    let ask = Request::get("/").host("a.test");
    let mut busy = server.client().connect();
    busy.send(&ask);
    let _ = origin.wait_requests(1);
    let idle: Vec<_> = (0..3).map(|_| server.client().connect()).collect();
    let mut scraper = server.client().connect();
    let mut counts = || {
        let text = scraper.get("/metrics").expect(200);
        let value = |name: &str| {
            let line = text.text().lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u32>().ok())
        };
        (
            value("forebay_connections_open "),
            value("forebay_connections_idle "),
        )
    };
    // Those that have been accepted and say nothing, beside the busy one and this one.
    wait::until("three idle connections of five", || {
        counts() == (Some(5), Some(3))
    });
    gate.open();
    let _ = busy.read_response().expect(200);
    wait::until("four idle ones", || counts() == (Some(5), Some(4)));
    drop((idle, busy));
    wait::until("none but this", || counts() == (Some(1), Some(0)));
}

#[test]
fn counters_go_on_over_reloads() {
    let config = r#"site { "a.test", name = "one", respond(200) } site { "*", metrics }"#;
    let server = Server::start(config);
    let ask = Request::get("/").host("a.test");
    let _ = server.client().request(&ask).expect(200);
    server.reload_with(&config.replace("respond(200)", "respond(204)"));
    let _ = server.client().request(&ask).expect(204);
    let read = Read::of(&server.client(), "*/*", "prometheus");
    read.check("forebay_site_requests_total{class=2xx,site=one}", 2);
    read.check("forebay_config_generation{}", 2);
}

#[test]
fn the_level_of_the_error_log_is_changed_live() {
    let server = Server::builder(r#"site { "a.test", respond(200) }"#)
        .server(r#"log = "warn""#)
        .start();
    let unknown = || {
        let request = Request::get("/").host("b.test");
        let _ = server.client().request(&request).expect(404);
    };
    unknown();
    assert_eq!(server.command("log").expect(0).stdout, "warn\n");
    let admin = server.admin();
    let answer = admin.request(&Request::new("POST", "/log/debug"));
    assert_eq!(answer.expect(200).text(), "debug, was warn\n");
    unknown();
    server.wait_stderr("No site answers for this host name.");
    let said = server.stderr().matches("No site answers").count();
    assert_eq!(said, 1, "{}", server.stderr());
    let _ = admin
        .request(&Request::new("POST", "/log/loud"))
        .expect(404);
    assert_eq!(server.command("log").expect(0).stdout, "debug\n");
    // The file says it again.
    let _ = server.reload().expect(0);
    assert_eq!(server.command("log").expect(0).stdout, "warn\n");
}

#[test]
fn the_error_log_as_json() {
    let nobody = Reserved::new();
    let server = Server::builder(r#"site { "*", proxy "@nobody@" }"#)
        .set("nobody", nobody.addr().to_string())
        .server(r#"log_format = "json""#)
        .start();
    for _ in 0..20 {
        let _ = server.client().get("/").expect(502);
    }
    server.wait_stderr("connect_failed");
    let stderr = server.stderr();
    let lines: Vec<serde_json::Value> = stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|value: &serde_json::Value| value["reason"] == "connect_failed")
        .collect();
    // One a second, with a count of the others: twenty requests take less than three.
    assert!((1..=3).contains(&lines.len()), "{stderr}");
    assert_eq!(
        (&lines[0]["level"], &lines[0]["site"]),
        (&"WARN".into(), &"*".into())
    );
}

#[test]
fn who_does_not_read_the_error_log_stalls_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = Reserved::new();
    let path = dir.path().join("forebay.lua");
    let config = format!(
        "server {{ workers = 1, log = \"debug\", admin = \"unix:{}/admin.sock\" }} listen \"{}\"\n\
         site {{ \"a.test\", respond(200) }} site {{ \"m.test\", metrics }}",
        dir.path().display(),
        port.addr()
    );
    std::fs::write(&path, config).expect("a configuration");
    // Nobody reads this pipe.
    let mut server = Command::new(binary())
        .arg("run")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the forebay binary to run");
    let client = Client::tcp(port.addr());
    wait::until("it to listen", || client.try_connect().is_ok());
    let mut conn = client.connect();
    let unknown: Vec<Request> = (0..200).map(|_| Request::get("/").host("b.test")).collect();
    // A line each, of over 100 bytes; there is room for a megabyte.
    for _ in 0..75 {
        let _ = conn.pipeline(&unknown);
    }
    let text = client
        .request(&Request::get("/").host("m.test"))
        .expect(200);
    let dropped =
        Read::new("prometheus", text.text()).value("forebay_error_log_dropped_lines_total{}");
    assert!(dropped > 100.0, "{dropped}");
    server.kill().expect("it runs");
    let _ = server.wait();
}
