//! `forebay explain` says what the server does: to each request of a table, over one configuration with
//! every step, both are asked, and must answer the same.

use std::time::{Duration, SystemTime};

use forebay_tests::server::{Output, run_in};
use forebay_tests::{Origin, Request, Server};
use serde_json::Value;

const CONFIG: &str = r#"
local app = upstream "app" { "@origin@" }
local ways = {
  route "/assets/*" { files "@dir@/public" { max_age = "1h", immutable = true } },
  route "/old/*" { redirect("/new/$rest?from=$host", 301) },
  route { "/u/:id", "/user/:id/*" } { respond(200, "user $params.id") },
  route "/m" { when = method { "PUT", "DELETE" }, respond(202, "changed") },
  route "/m" { when = all { query "q", none { cookie "no" } }, respond(203, "asked") },
  route "/api/*" {
    limit { rate = "100/s", body = "1KB" }, rewrite "/$rest",
    headers { request = { x_added = "$original_uri", x_forged = false } },
    proxy(app) { host = "app.internal" },
  },
  route "/private/*" { basic_auth "@dir@/users" { realm = "Staff" }, respond(200, "in") },
  route "/token" { jwt "@dir@/keys.json", respond(200, "in") },
  route "/inside" { allow "192.0.2.0/24", respond(200, "in") },
  route "/shared" { cors { origins = "https://a.test" }, respond(200, "shared") },
  route "/text" { respond(200, string.rep("compress me ", 200)) },
  route "/flag" { respond(503, "closed") { when = exists "@dir@/closed" }, respond(200, "open") },
  route "/metrics" { metrics },
  route "/auth/*" { forward_auth(app) { uri = "/verify" }, respond(200, "verified") },
}
site { "a.test", compress, security_headers,
  headers { response = { x_site = "a" } },
  headers { response = { cache_control = "no-store" }, when = status "4xx" },
  errors { [404] = "@dir@/404.html", [403] = respond(403, "own page") },
  set("who", "$query.who"),
  ways,
  files "@dir@/public" { try = { "$path", "$path.html" }, listing = true },
}
site { "*.a.test", name = "below", respond(200, "below $host") }
"#;

/// What is asked: request line, fields, host; the step that answers; and what it answers.
type Asked<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, u16);

/// 32 requests: every step answers or lets pass at least once.
const REQUESTS: &[Asked] = &[
    ("GET /", "", "a.test", Some("files"), 200),
    ("HEAD /", "", "a.test", Some("files"), 200),
    ("GET /page", "", "a.test", Some("files"), 200),
    ("GET /sub", "", "a.test", Some("files"), 301),
    ("GET /list/", "", "a.test", Some("files"), 200),
    ("POST /", "", "a.test", None, 405),
    ("OPTIONS /page.html", "", "a.test", Some("files"), 204),
    ("GET /.env", "", "a.test", None, 404),
    ("GET /x.php", "", "a.test", None, 404),
    ("GET /assets/a.css", "", "a.test", Some("files"), 200),
    (
        "GET /assets/a.css",
        "Accept-Encoding: gzip",
        "a.test",
        Some("files"),
        200,
    ),
    (
        "GET /assets/a.css",
        "Range: bytes=2-5",
        "a.test",
        Some("files"),
        206,
    ),
    (
        "GET /assets/a.css",
        "If-None-Match: *",
        "a.test",
        Some("files"),
        304,
    ),
    ("GET /assets/none", "", "a.test", None, 404),
    ("GET /old/x/y", "", "a.test", Some("redirect"), 301),
    ("GET /u/7", "", "a.test", Some("respond"), 200),
    ("GET /user/8/a/b", "", "a.test", Some("respond"), 200),
    ("PUT /m", "", "a.test", Some("respond"), 202),
    ("GET /m?q", "", "a.test", Some("respond"), 203),
    ("GET /m?q", "Cookie: no=1", "a.test", None, 404),
    ("GET /private/", "", "a.test", Some("basic_auth"), 401),
    (
        "GET /private/",
        "Authorization: Basic YW5uOnNlY3JldA==",
        "a.test",
        Some("respond"),
        200,
    ),
    (
        "GET /private/",
        "Authorization: Basic YW5uOndyb25n",
        "a.test",
        Some("basic_auth"),
        401,
    ),
    (
        "GET /token",
        "Authorization: Bearer a.b.c",
        "a.test",
        Some("jwt"),
        401,
    ),
    ("GET /inside", "", "a.test", Some("allow"), 403),
    (
        "GET /shared",
        "Origin: https://a.test",
        "a.test",
        Some("respond"),
        200,
    ),
    (
        "GET /text",
        "Accept-Encoding: br;q=0.5, zstd",
        "a.test",
        Some("respond"),
        200,
    ),
    (
        "GET /text",
        "Accept-Encoding: *;q=0",
        "a.test",
        Some("compress"),
        406,
    ),
    ("GET /flag", "", "a.test", Some("respond"), 503),
    ("GET /metrics", "", "a.test", Some("metrics"), 200),
    ("POST /metrics", "", "a.test", Some("metrics"), 405),
    ("GET /any", "", "x.A.test", Some("respond"), 200),
    ("GET /any", "", "b.test", None, 404),
    ("GET /a/%00", "", "a.test", None, 400),
    ("GET /a/../../b", "", "a.test", None, 400),
    ("GET /%2e%2e/b", "", "a.test", None, 400),
    ("TRACE /", "", "a.test", None, 405),
    ("GET /a", "Transfer-Encoding: gzip", "a.test", None, 501),
];

fn serve(origin: &Origin) -> Server {
    let server = Server::builder(CONFIG)
        .origin("origin", origin)
        .file("public/index.html", "<h1>hello</h1>")
        .file("public/page.html", "<h1>page</h1>")
        .file("public/sub/index.html", "<h1>sub</h1>")
        .file("public/list/one.txt", "1")
        .file("public/x.php", "<?php")
        .file("public/.env", "secret")
        .file("public/assets/a.css", "a { color: teal }".repeat(100))
        .file("404.html", "<h1>not here</h1>")
        .file("closed", "")
        // "secret", at the least cost there is.
        .file(
            "users",
            "ann:$2y$04$fDAv0K4SApzl7KMayXa.yOQBrsm3/4BCyVlUNVN1Abhf.xBegj6y2\n",
        )
        .file(
            "keys.json",
            include_str!("../../crates/forebay/src/steps/jwt/fixtures/keys.json"),
        );
    // Else their tags would change from weak to strong between one answer and the other.
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for name in [
        "index.html",
        "page.html",
        "sub/index.html",
        "list/one.txt",
        "assets/a.css",
    ] {
        let path = server.dir().join("public").join(name);
        let file = std::fs::File::options()
            .write(true)
            .open(path)
            .expect("a file");
        file.set_modified(hour_ago).expect("a time");
    }
    server.start()
}

/// `METHOD TARGET` and fields, a line each, as arguments.
fn explain(server: &Server, request: &str, fields: &str, host: &str) -> Output {
    let (method, target) = request.split_once(' ').expect("a request line");
    let config = server.config_path().to_str().expect("a path");
    let url = format!("http://{}{target}", server.addr());
    let host = format!("Host: {host}");
    let mut args = vec!["explain", config, &url, "--json", "-X", method, "-H", &host];
    for field in fields.lines() {
        args.extend(["-H", field]);
    }
    run_in(server.dir(), &args)
}

fn told(server: &Server, request: &str, fields: &str, host: &str) -> Value {
    let output = explain(server, request, fields, host).expect(0);
    assert_eq!(output.stderr, "", "{request}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{request}: {error}"))
}

fn request(line: &str, fields: &str, host: &str) -> Request {
    let (method, target) = line.split_once(' ').expect("a request line");
    let mut request = Request::new(method, target).host(host);
    for field in fields.lines() {
        let (name, value) = field.split_once(": ").expect("a field");
        request = request.field(name, value);
    }
    request
}

#[test]
fn the_server_answers_as_explain_says() {
    let origin = Origin::echo();
    let server = serve(&origin);
    for (line, fields, host, by, status) in REQUESTS {
        let told = told(&server, line, fields, host);
        let answer = &told["answer"];
        let what = format!("{line} {fields} {host}\n{answer:#}");
        assert_eq!(answer["status"], *status, "{what}");
        assert_eq!(answer["by"].as_str(), *by, "{what}");
        let got = server.client().request(&request(line, fields, host));
        assert_eq!(got.status(), *status, "{what}");
        for pair in answer["fields"].as_array().expect("fields") {
            let (name, value) = (pair[0].as_str().expect("a name"), &pair[1]);
            assert!(
                got.head.all(name).iter().any(|one| value == one),
                "{name}: {:?}\n{what}",
                got.head.all(name)
            );
        }
        // Counters have moved on between the two.
        if let Some(len) = answer["body_bytes"]
            .as_u64()
            .filter(|_| *by != Some("metrics"))
        {
            // Of 204 and 304 nothing is said.
            let announced = got.field("content-length").and_then(|len| len.parse().ok());
            assert_eq!(announced.unwrap_or(0), len, "{what}");
        }
    }
    // Nothing was sent for any of this.
    origin.expect_untouched();
}

#[test]
fn what_is_passed_on_is_what_explain_says() {
    let origin = Origin::echo();
    let server = serve(&origin);
    let line = "GET /api/v1/x?y=1";
    let fields = "X-Forged: 1\nAccept: */*\nUser-Agent: x/1";
    let told = told(&server, line, fields, "a.test");
    origin.expect_untouched();
    assert_eq!(told["answer"]["status"], Value::Null);
    assert_eq!(told["answer"]["by"], "proxy");
    let _ = server
        .client()
        .request(&request(line, fields, "a.test"))
        .expect(200);
    let seen = origin.only_request();
    let steps = told["steps"].as_array().expect("steps");
    let proxy = steps.last().expect("a step");
    let notes = |about: &str| -> Vec<String> {
        let notes = proxy["notes"].as_array().expect("notes").iter();
        let of = notes.filter(|note| note["about"] == about);
        of.map(|note| note["text"].as_str().expect("a text").to_owned())
            .collect()
    };
    assert_eq!(
        notes("request"),
        [format!(
            "{} {} HTTP/1.{}",
            seen.method, seen.target, seen.minor
        )]
    );
    // All fields, in their order; only the name that each process draws for itself differs.
    let own = |(name, _): &&(String, String)| !matches!(&**name, "Via" | "CDN-Loop");
    let expected: Vec<String> = seen
        .fields
        .iter()
        .filter(own)
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let said = notes("sends").into_iter();
    let said: Vec<String> = said
        .filter(|line| !line.starts_with("Via: ") && !line.starts_with("CDN-Loop: "))
        .collect();
    assert_eq!(said, expected);
    assert!(
        expected.contains(&"Host: app.internal".to_owned()),
        "{expected:?}"
    );
}

#[test]
fn a_server_that_is_asked_for_leave_is_not_asked() {
    let origin = Origin::echo();
    let server = serve(&origin);
    let told = told(&server, "GET /auth/x", "", "a.test");
    origin.expect_untouched();
    assert_eq!(told["answer"]["status"], 200);
    let sentence = told["answer"]["sentence"].as_str().expect("a sentence");
    assert!(sentence.contains("forward_auth at "), "{sentence}");
    let _ = server
        .client()
        .request(&Request::get("/auth/x").host("a.test"))
        .expect(200);
    assert_eq!(origin.only_request().target, "/verify");
}

#[test]
fn bodies_that_are_too_long() {
    let origin = Origin::echo();
    let server = serve(&origin);
    let told = told(&server, "POST /api/x", "Content-Length: 1025", "a.test");
    assert_eq!(told["answer"]["status"], 413);
    assert_eq!(told["answer"]["reason"], "body_too_large");
    let post = Request::post("/api/x", vec![b'x'; 1025]).host("a.test");
    assert_eq!(server.client().request(&post).status(), 413);
    origin.expect_untouched();
}

#[test]
fn what_is_wrong_with_the_question() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |text: &str| std::fs::write(dir.path().join("forebay.lua"), text).expect("a file");
    write("site { \"a.test\", respond(200) }\nsite { \"b.test\", respond(201) }");
    let wrong = |args: &[&str], expected: &str| {
        let output = run_in(dir.path(), &[&["explain"], args].concat()).expect(2);
        assert!(
            output.stderr.contains(expected),
            "{args:?}: {}",
            output.stderr
        );
        assert_eq!(output.stdout, "", "{args:?}");
    };
    wrong(&["a.test/x"], "is no URL");
    wrong(&["http://a.test/a b"], "is no URL");
    wrong(&["/x"], "a host is needed, as in http://a.test/x");
    wrong(&["http://a.test/", "-H", "X-A"], "is no field");
    wrong(&["http://a.test/", "-H", "X-A: 1\r\nX-B: 2"], "is no field");
    wrong(&["http://a.test/", "--client", "here"], "is no address");
    // The file may be left out, as with `run`.
    let output = run_in(dir.path(), &["explain", "http://b.test/"]).expect(0);
    let last = output.stdout.lines().last().expect("a line");
    assert_eq!(last, "answered by respond at forebay.lua:2 with 201");
    // Mistakes are those of `check`.
    write("site { \"*\", respnd(200) }");
    for json in [&[][..], &["--json"]] {
        let checked = run_in(dir.path(), &[&["check", "forebay.lua"], json].concat()).expect(2);
        let told = run_in(
            dir.path(),
            &[&["explain", "forebay.lua", "/"], json].concat(),
        )
        .expect(2);
        assert_eq!(told.stdout, checked.stdout);
        assert!(told.stdout.contains("respnd"));
    }
}

#[test]
fn secrets_of_the_environment_are_not_shown() {
    let origin = Origin::echo();
    let server = Server::builder(
        r#"site { "*", headers { request = { x_key = env "EXPLAIN_KEY" } }, proxy "@origin@" }"#,
    )
    .origin("origin", &origin)
    .env("EXPLAIN_KEY", "very-\"secret\"-key")
    .start();
    let config = server.config_path().to_str().expect("a path");
    for json in [&[][..], &["--json"]] {
        let args = [&["explain", config, "/x"], json].concat();
        let output = std::process::Command::new(forebay_tests::server::binary())
            .args(&args)
            .env("EXPLAIN_KEY", "very-\"secret\"-key")
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("***") && !text.contains("very-"), "{text}");
    }
}
