//! The step `files`: what is found, what is refused, preconditions, ranges, files that change.

use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use forebay_tests::wire::{Framing, find};
use forebay_tests::{Request, Response, Server, Trouble, pattern, wait};

/// A server of `@dir@/www` with a few files.
fn site() -> Server {
    serve(r#"files "@dir@/www""#)
}

fn serve(pipeline: &str) -> Server {
    Server::builder(&format!("site {{ \"*\",\n{pipeline}\n}}"))
        .file("www/index.html", "<p>index</p>")
        .file("www/a.txt", "0123456789")
        .file("www/sub/index.html", "<p>sub</p>")
        .file("www/sub/b.txt", "b")
        .file("www/empty.txt", "")
        .file("www/none/x.txt", "x")
        .file("secret.txt", "secret")
        .start()
}

/// The 2nd of February 2020, 02:02:02 UTC, and as a field value.
const STAMP: (u64, &str) = (1_580_608_922, "Sun, 02 Feb 2020 02:02:02 GMT");
const BEFORE: &str = "Sun, 02 Feb 2020 02:02:01 GMT";
const LATER: &str = "Sun, 02 Feb 2020 02:02:03 GMT";

fn set_time(server: &Server, path: &str) {
    let file = std::fs::File::options()
        .write(true)
        .open(server.dir().join(path))
        .expect("a file");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(STAMP.0);
    file.set_modified(time).expect("a time");
}

fn kind(response: &Response) -> &str {
    response.field("content-type").unwrap_or_default()
}

#[test]
fn a_file_is_sent_with_what_is_known_of_it() {
    let server = site();
    set_time(&server, "www/a.txt");
    let response = server.client().get("/a.txt").expect(200);
    assert_eq!(response.text(), "0123456789");
    assert_eq!(response.framing, Framing::Length(10));
    assert!(kind(&response).starts_with("text/plain"));
    assert_eq!(response.field("last-modified"), Some(STAMP.1));
    assert_eq!(response.field("accept-ranges"), Some("bytes"));
    let etag = response.field("etag").expect("an ETag");
    assert!(
        etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2,
        "a strong one: {etag}"
    );
    assert_eq!(response.field("cache-control"), None);
    let empty = server.client().get("/empty.txt").expect(200);
    assert_eq!((empty.body.len(), empty.framing), (0, Framing::Length(0)));
}

#[test]
fn types_go_by_extension() {
    let names = [
        ("x.html", "text/html"),
        ("x.css", "text/css"),
        ("x.js", "text/javascript"),
        ("x.mjs", "text/javascript"),
        ("x.json", "application/json"),
        ("x.svg", "image/svg+xml"),
        ("x.png", "image/png"),
        ("x.jpg", "image/jpeg"),
        ("x.webp", "image/webp"),
        ("x.woff2", "font/woff2"),
        ("x.wasm", "application/wasm"),
        ("x.pdf", "application/pdf"),
        ("x.mp4", "video/mp4"),
        ("x.xml", "xml"),
        ("X.HTML", "text/html"),
        ("x.tar.gz", "gzip"),
    ];
    let server = serve(r#"files "@dir@/www""#);
    for (name, _) in names {
        server.file(&format!("www/{name}"), "x");
    }
    for (name, want) in names {
        let response = server.client().get(&format!("/{name}")).expect(200);
        assert!(
            kind(&response).contains(want),
            "{name}: {}",
            kind(&response)
        );
    }
}

#[test]
fn directories_have_an_index_and_a_slash() {
    let server = site();
    let client = server.client();
    assert_eq!(client.get("/").expect(200).text(), "<p>index</p>");
    assert_eq!(client.get("/sub/").expect(200).text(), "<p>sub</p>");
    for (target, want) in [
        ("/sub", "/sub/"),
        ("/sub?a=b", "/sub/?a=b"),
        ("/x/../sub", "/sub/"),
    ] {
        let response = client.get(target);
        assert!(
            matches!(response.status(), 301 | 302 | 307 | 308),
            "{target}"
        );
        let location = response.field("location").expect("a Location");
        let path = location
            .strip_prefix("http://forebay.test")
            .unwrap_or(location);
        assert_eq!(path, want, "{target}");
    }
    // RFC 3986: a path that begins with two slashes would lead to another host.
    let response = client.get("//sub");
    assert!(
        !response
            .field("location")
            .unwrap_or_default()
            .starts_with("//")
    );
    assert_eq!(
        client.get("/none/").status(),
        404,
        "no index and no listing"
    );
    assert_eq!(
        client.get("/a.txt/").status(),
        404,
        "a file is no directory"
    );
    assert_eq!(client.get("/a.txt/x").status(), 404);
}

#[test]
fn what_is_not_found_is_passed_on() {
    let server = serve(r#"files "@dir@/www", respond(200, "next: $path")"#);
    let client = server.client();
    assert_eq!(client.get("/a.txt").text(), "0123456789");
    assert_eq!(client.get("/missing").text(), "next: /missing");
    assert_eq!(
        client.request(&Request::post("/missing", "x")).text(),
        "next: /missing"
    );
}

#[test]
fn only_get_and_head_are_allowed() {
    let server = site();
    let mut conn = server.client().connect();
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let response = conn
            .exchange(&Request::new(method, "/a.txt").body("x"))
            .expect(405);
        let allow = response
            .field("allow")
            .expect("RFC 9110 section 15.5.6: Allow")
            .to_owned();
        assert!(allow.contains("GET") && allow.contains("HEAD"), "{allow}");
    }
    let options = conn.exchange(&Request::new("OPTIONS", "/a.txt"));
    assert!(
        matches!(options.status(), 200 | 204),
        "{}",
        options.status()
    );
    assert!(
        options
            .field("allow")
            .is_some_and(|a| a.contains("GET") && a.contains("HEAD"))
    );
    assert_eq!(
        conn.exchange(&Request::head("/a.txt"))
            .expect(200)
            .field("content-length"),
        Some("10")
    );
    assert_eq!(conn.exchange(&Request::post("/missing", "x")).status(), 404);
}

#[test]
fn preconditions_by_rfc9110_13_2_2() {
    let server = site();
    set_time(&server, "www/a.txt");
    let mut conn = server.client().connect();
    let etag = conn
        .get("/a.txt")
        .field("etag")
        .expect("an ETag")
        .to_owned();
    let mut check = |what: &str, method: &str, fields: &[(&str, &str)], status: u16| {
        let mut request = Request::new(method, "/a.txt");
        for (name, value) in fields {
            request = request.field(name, value);
        }
        let response = conn.exchange(&request);
        assert_eq!(response.status(), status, "{what}: {method} {fields:?}");
        response
    };
    let list = format!("\"x\", {etag}, \"y\"");
    let weak = format!("W/{etag}");
    for method in ["GET", "HEAD"] {
        // 1. If-Match, by strong comparison.
        let _ = check("the same", method, &[("If-Match", &etag)], 200);
        let _ = check("one of a list", method, &[("If-Match", &list)], 200);
        let _ = check("any", method, &[("If-Match", "*")], 200);
        let _ = check("another", method, &[("If-Match", "\"x\"")], 412);
        let _ = check("a weak one", method, &[("If-Match", &weak)], 412);
        // 2. If-Unmodified-Since, only without If-Match.
        let _ = check(
            "same time",
            method,
            &[("If-Unmodified-Since", STAMP.1)],
            200,
        );
        let _ = check("later", method, &[("If-Unmodified-Since", LATER)], 200);
        let _ = check("before", method, &[("If-Unmodified-Since", BEFORE)], 412);
        let _ = check(
            "no date",
            method,
            &[("If-Unmodified-Since", "yesterday")],
            200,
        );
        let both = [("If-Match", etag.as_str()), ("If-Unmodified-Since", BEFORE)];
        let _ = check("If-Match decides", method, &both, 200);
        // 3. If-None-Match, by weak comparison.
        let _ = check("the same", method, &[("If-None-Match", &etag)], 304);
        let _ = check("a weak one", method, &[("If-None-Match", &weak)], 304);
        let _ = check("one of a list", method, &[("If-None-Match", &list)], 304);
        let _ = check("any", method, &[("If-None-Match", "*")], 304);
        let _ = check("another", method, &[("If-None-Match", "\"x\"")], 200);
        // 4. If-Modified-Since, only without If-None-Match.
        let _ = check("same time", method, &[("If-Modified-Since", STAMP.1)], 304);
        let _ = check("later", method, &[("If-Modified-Since", LATER)], 304);
        let _ = check("before", method, &[("If-Modified-Since", BEFORE)], 200);
        let _ = check("no date", method, &[("If-Modified-Since", "never")], 200);
        let both = [("If-None-Match", "\"x\""), ("If-Modified-Since", LATER)];
        let _ = check("If-None-Match decides", method, &both, 200);
        // The first that fails decides.
        let both = [("If-Match", "\"x\""), ("If-None-Match", etag.as_str())];
        let _ = check("If-Match first", method, &both, 412);
    }
    // Obsolete forms of dates (RFC 9110 section 5.6.7) have to be understood.
    for date in ["Sunday, 02-Feb-20 02:02:02 GMT", "Sun Feb  2 02:02:02 2020"] {
        let _ = check("an old form", "GET", &[("If-Modified-Since", date)], 304);
    }
    let same = check("304", "GET", &[("If-None-Match", &etag)], 304);
    assert_eq!(
        same.field("etag"),
        Some(etag.as_str()),
        "RFC 9110 section 15.4.5"
    );
    assert_eq!(same.field("content-type"), None);
    // Two lines are one list.
    let two = [("If-None-Match", "\"x\""), ("If-None-Match", etag.as_str())];
    let _ = check("two lines", "GET", &two, 304);
}

#[test]
fn ranges() {
    let server = site();
    let mut conn = server.client().connect();
    let mut ask = |range: &str| conn.exchange(&Request::get("/a.txt").field("Range", range));
    for (range, body, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=5-", "56789", "bytes 5-9/10"),
        ("bytes=5-100", "56789", "bytes 5-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
        ("bytes=9-9", "9", "bytes 9-9/10"),
        ("bytes=0-18446744073709551615", "0123456789", "bytes 0-9/10"),
        ("Bytes=2-4", "234", "bytes 2-4/10"),
    ] {
        let response = ask(range);
        assert_eq!((response.status(), response.text()), (206, body), "{range}");
        assert_eq!(
            response.field("content-range"),
            Some(content_range),
            "{range}"
        );
        assert!(response.field("etag").is_some(), "{range}");
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999-"] {
        let response = ask(range).expect(416);
        assert_eq!(
            response.field("content-range"),
            Some("bytes */10"),
            "{range}"
        );
    }
    // What is not understood is as if it were not there (RFC 9110 section 14.2).
    for range in [
        "bytes=4-2",
        "bytes=a-b",
        "bytes",
        "bytes=",
        "lines=1-2",
        "bytes=1-2x",
        "bytes=--1",
    ] {
        assert_eq!(ask(range).expect(200).text(), "0123456789", "{range}");
    }
}

/// The parts of a `multipart/byteranges` body: (Content-Range, bytes).
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let boundary = kind(response)
        .strip_prefix("multipart/byteranges; boundary=")
        .expect("several parts");
    let delimiter = format!("--{boundary}");
    let mut rest = &response.body[..];
    let mut parts = Vec::new();
    loop {
        rest = rest
            .strip_prefix(delimiter.as_bytes())
            .expect("a delimiter");
        if rest == b"--\r\n" {
            return parts;
        }
        let head_end = find(rest, b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&rest[2..head_end]).into_owned();
        let range = head.split_once("Content-Range: ").expect("a range").1;
        rest = &rest[head_end + 4..];
        let end = find(rest, format!("\r\n{delimiter}").as_bytes()).expect("an end");
        parts.push((range.to_owned(), rest[..end].to_vec()));
        rest = &rest[end + 2..];
    }
}

#[test]
fn rfc9110_14_6_several_ranges_are_parts_of_one_body() {
    let server = site();
    let big = pattern::bytes(1_000_000);
    server.file("www/big.bin", &big);
    set_time(&server, "www/a.txt");
    let mut conn = server.client().connect();
    let mut ask = |target: &str, range: &str| {
        conn.exchange(&Request::get(target).field("Range", &format!("bytes={range}")))
    };
    let response = ask("/a.txt", "0-1,4-5, -1").expect(206);
    let part = |range: &str, body: &str| (format!("bytes {range}/10"), body.as_bytes().to_vec());
    assert_eq!(
        parts(&response),
        [part("0-1", "01"), part("4-5", "45"), part("9-9", "9")]
    );
    assert_eq!(response.field("content-range"), None);
    assert!(response.field("etag").is_some());
    assert_eq!(
        response.framing,
        Framing::Length(response.body.len() as u64)
    );
    // Of a long file, out of order.
    let response = ask("/big.bin", "700000-999999,0-299999").expect(206);
    let got = parts(&response);
    assert_eq!(got[0].0, "bytes 700000-999999/1000000");
    assert!(got[0].1 == big[700_000..] && got[1].1 == big[..300_000]);
    // Of several, those that cannot be satisfied are left out.
    let response = ask("/a.txt", "0-1,50-60").expect(206);
    assert_eq!(response.field("content-range"), Some("bytes 0-1/10"));
    let eight: Vec<String> = (0..9).map(|i| format!("{i}-{i}")).collect();
    assert_eq!(parts(&ask("/a.txt", &eight[..8].join(","))).len(), 8);
    // More than 8, and overlapping ones, are ignored.
    let huge = vec!["0-0"; 10_000].join(",");
    for range in [&eight.join(","), "0-4,3-6", "0-,0-", "0-1,-9", &huge] {
        assert_eq!(
            ask("/a.txt", range).expect(200).text(),
            "0123456789",
            "{range}"
        );
    }
    // By If-Range: the whole, unless it still is the same.
    let etag = response.field("etag").expect("an ETag").to_owned();
    for (tag, status) in [(etag.as_str(), 206), ("\"x\"", 200)] {
        let request = Request::get("/a.txt").field("Range", "bytes=0-1,4-5");
        let _ = conn
            .exchange(&request.field("If-Range", tag))
            .expect(status);
    }
}

#[test]
fn types_of_the_operators_own() {
    let server = serve(r#"files "@dir@/www" { types = { foo = "text/x-foo" } }"#);
    server.file("www/x.foo", "x");
    assert_eq!(
        kind(&server.client().get("/x.foo").expect(200)),
        "text/x-foo"
    );
    assert!(kind(&server.client().get("/a.txt").expect(200)).starts_with("text/plain"));
}

#[test]
fn if_range_by_rfc9110_13_1_5() {
    let server = site();
    set_time(&server, "www/a.txt");
    let mut conn = server.client().connect();
    let etag = conn
        .get("/a.txt")
        .field("etag")
        .expect("an ETag")
        .to_owned();
    let mut ask = |condition: &str| {
        let request = Request::get("/a.txt").field("Range", "bytes=0-1");
        conn.exchange(&request.field("If-Range", condition))
            .status()
    };
    assert_eq!(ask(&etag), 206);
    assert_eq!(ask("\"x\""), 200);
    assert_eq!(
        ask(&format!("W/{etag}")),
        200,
        "a weak validator may not join pieces"
    );
    assert_eq!(ask(STAMP.1), 206);
    assert_eq!(ask(BEFORE), 200);
    assert_eq!(ask(LATER), 200, "not the exact date");
    // A precondition comes before the range.
    let request = Request::get("/a.txt")
        .field("Range", "bytes=0-1")
        .field("If-None-Match", &etag);
    let _ = conn.exchange(&request).expect(304);
    // A range is for GET alone.
    let head = conn
        .exchange(&Request::head("/a.txt").field("Range", "bytes=0-1"))
        .expect(200);
    assert_eq!(head.field("content-length"), Some("10"));
}

#[test]
fn options_of_the_step() {
    let server = serve(
        r#"route "/aged/*" { rewrite "/$rest", files "@dir@/www" { max_age = "1h" } },
           route "/fixed/*" { rewrite "/$rest", files "@dir@/www" { max_age = "1y", immutable = true } },
           route "/fresh/*" { rewrite "/$rest", files "@dir@/www" { max_age = "0s" } },
           route "/spa/*" { rewrite "/$rest", files "@dir@/www" { try = { "$path", "/index.html" } } },
           route "/idx/*" { rewrite "/$rest", files "@dir@/www" { index = { "none.html", "b.txt" } } },
           route "/hide/*" { rewrite "/$rest", files "@dir@/www" { hide = { "*.txt" } } },"#,
    );
    let client = server.client();
    let control = |target: &str| {
        client
            .get(target)
            .expect(200)
            .field("cache-control")
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(control("/aged/a.txt"), "public, max-age=3600");
    assert_eq!(
        control("/fixed/a.txt"),
        "public, max-age=31536000, immutable"
    );
    assert_eq!(control("/fresh/a.txt"), "no-cache");
    assert_eq!(
        client.get("/spa/deep/link").expect(200).text(),
        "<p>index</p>"
    );
    assert_eq!(client.get("/spa/a.txt").expect(200).text(), "0123456789");
    assert_eq!(client.get("/idx/sub/").expect(200).text(), "b");
    assert_eq!(client.get("/hide/a.txt").status(), 404);
    assert_eq!(client.get("/hide/index.html").status(), 200);
}

#[test]
fn dotfiles_and_scripts_are_never_sent() {
    let server = site();
    for path in [
        ".env",
        ".git/config",
        "sub/.htaccess",
        "a.php",
        "x.PHP",
        "b.phtml",
        "c.phar",
        "d.cgi",
    ] {
        server.file(&format!("www/{path}"), "private");
        assert_eq!(
            server.client().get(&format!("/{path}")).status(),
            404,
            "{path}"
        );
    }
    assert_eq!(server.client().get("/%2eenv").status(), 404);
    assert_eq!(server.client().get("/a.ph%70").status(), 404);
    server.file("www/.well-known/acme", "public");
    assert_eq!(
        server.client().get("/.well-known/acme").expect(200).text(),
        "public"
    );
}

#[test]
fn nothing_outside_of_the_root_is_sent() {
    let server = site();
    for target in [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/sub/..%2f..%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/..%00/secret.txt",
        "/....//secret.txt",
        "/.%2e/secret.txt",
        "/a.txt%00.html",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/sub%2fb.txt",
        "/..;/secret.txt",
        "/%uff0e%uff0e/secret.txt",
    ] {
        let response = server
            .client()
            .raw(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(
            matches!(response.status(), 400 | 403 | 404),
            "{target}: {}",
            response.status()
        );
        assert!(!response.body.windows(6).any(|w| w == b"secret") || response.status() != 200);
    }
}

#[test]
fn names_are_decoded_once() {
    let server = site();
    server.file("www/with space.txt", "space");
    server.file("www/per%20cent.txt", "percent");
    server.file("www/\u{fc}.txt", "umlaut");
    server.file("www/q?.txt", "question");
    let client = server.client();
    assert_eq!(client.get("/with%20space.txt").expect(200).text(), "space");
    assert_eq!(
        client.get("/per%2520cent.txt").expect(200).text(),
        "percent"
    );
    assert_eq!(client.get("/per%20cent.txt").status(), 404);
    assert_eq!(client.get("/%C3%BC.txt").expect(200).text(), "umlaut");
    assert_eq!(client.get("/%c3%bc.txt?x").expect(200).text(), "umlaut");
    assert_eq!(client.get("/q%3f.txt").expect(200).text(), "question");
    assert_eq!(
        client.get(&format!("/{}", "x".repeat(300))).status(),
        404,
        "ENAMETOOLONG"
    );
    assert_eq!(
        client.get(&"/x".repeat(3000)).status(),
        404,
        "longer than PATH_MAX"
    );
}

#[test]
fn symbolic_links() {
    let server = serve(
        r#"route "/any/*" { rewrite "/$rest", files "@dir@/www" { symlinks = "any" } },
           route "/no/*" { rewrite "/$rest", files "@dir@/www" { symlinks = "none" } },
           files "@dir@/www""#,
    );
    let www = server.dir().join("www");
    symlink("a.txt", www.join("in.txt")).expect("a link");
    symlink("sub", www.join("in-dir")).expect("a link");
    symlink("../../www/a.txt", www.join("sub/back.txt")).expect("a link");
    symlink("../secret.txt", www.join("out.txt")).expect("a link");
    symlink(server.dir().join("secret.txt"), www.join("abs-out.txt")).expect("a link");
    symlink("/", www.join("root")).expect("a link");
    symlink("loop.txt", www.join("loop.txt")).expect("a link");
    let check = |target: &str, status: u16| {
        assert_eq!(server.client().get(target).status(), status, "{target}");
    };
    for target in [
        "/in.txt",
        "/in-dir/b.txt",
        "/any/out.txt",
        "/any/abs-out.txt",
    ] {
        check(target, 200);
    }
    for target in ["/out.txt", "/abs-out.txt", "/root/etc/passwd", "/loop.txt"] {
        assert!(
            matches!(server.client().get(target).status(), 403 | 404),
            "{target}"
        );
    }
    for target in ["/no/in.txt", "/no/in-dir/b.txt", "/no/out.txt"] {
        assert!(
            matches!(server.client().get(target).status(), 403 | 404),
            "{target}"
        );
    }
    check("/no/a.txt", 200);
}

#[test]
fn what_is_no_plain_file_is_not_sent() {
    let server = site();
    let www = server.dir().join("www");
    let made = std::process::Command::new("mkfifo")
        .arg(www.join("pipe"))
        .status();
    assert!(made.expect("mkfifo").success());
    let _socket = std::os::unix::net::UnixListener::bind(www.join("sock")).expect("a socket");
    symlink("/dev/zero", www.join("zero")).expect("a link");
    // Opening a pipe that nobody writes to would wait: nothing may.
    for target in ["/pipe", "/sock", "/zero"] {
        assert!(
            matches!(server.client().get(target).status(), 403 | 404),
            "{target}"
        );
    }
    assert_eq!(server.client().get("/a.txt").status(), 200);
}

#[test]
fn a_file_that_may_not_be_read_is_not_sent() {
    use std::os::unix::fs::PermissionsExt;
    let server = serve(r#"files "@dir@/www", respond(200, "next")"#);
    let path = server.dir().join("www/a.txt");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("permissions");
    let response = server.client().get("/a.txt");
    // Root may read everything.
    let root = rustix::process::geteuid().is_root();
    assert!(response.status() == 403 || root, "{}", response.status());
}

#[test]
fn a_big_file_is_whole() {
    let server = site();
    server.file("www/big.bin", pattern::bytes(20_000_003));
    let mut conn = server.client().connect();
    for _ in 0..2 {
        conn.send(&Request::get("/big.bin"));
        let (head, len) = conn.slow_read(0).expect("the whole file");
        assert_eq!(
            (len, head.field("content-length")),
            (20_000_003, Some("20000003"))
        );
    }
    let range = "bytes=10000000-10000099";
    let part = conn
        .exchange(&Request::get("/big.bin").field("Range", range))
        .expect(206);
    let mut checker = pattern::Checker::at(10_000_000);
    checker.feed(&part.body);
    assert_eq!(part.body.len(), 100);
}

#[test]
fn files_of_every_size_around_the_blocks() {
    let server = site();
    let mut conn = server.client().connect();
    for block in [4096_usize, 16 << 10, 64 << 10, 128 << 10, 256 << 10] {
        for size in [block - 1, block, block + 1] {
            server.file(&format!("www/{size}.bin"), pattern::bytes(size));
            conn.send(&Request::get(&format!("/{size}.bin")));
            let (_, len) = conn.slow_read(0).expect("the whole file");
            assert_eq!(len, size as u64);
        }
    }
}

#[test]
fn a_file_replaced_by_rename_is_sent_as_it_was() {
    let server = site();
    let old = pattern::bytes(8 << 20);
    server.file("www/big.bin", &old);
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    let (_, mut body) = conn.read_head();
    let mut checker = pattern::Checker::default();
    checker.feed(&body.next(&mut conn).expect("a piece").expect("a piece"));
    server.file("new.bin", vec![b'n'; 8 << 20]);
    let www = server.dir().join("www/big.bin");
    std::fs::rename(server.dir().join("new.bin"), www).expect("a rename");
    while let Some(part) = body.next(&mut conn).expect("the old file whole") {
        checker.feed(&part);
    }
    assert_eq!(checker.offset(), 8 << 20);
    // And the new one is seen, at the latest after the second that a file is believed.
    wait::until("the new file", || {
        server.client().get("/big.bin").body[0] == b'n'
    });
}

#[test]
fn a_file_cut_short_while_it_is_sent_is_visibly_broken_off() {
    let server = site();
    server.file("www/big.bin", pattern::bytes(8 << 20));
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    let (head, mut body) = conn.read_head();
    assert_eq!(head.field("content-length"), Some("8388608"));
    let first = body.next(&mut conn).expect("a piece").expect("a piece");
    let file = std::fs::File::options()
        .write(true)
        .open(server.dir().join("www/big.bin"));
    file.expect("the file")
        .set_len(4096)
        .expect("a shorter file");
    let mut got = first.len();
    let end = loop {
        match body.next(&mut conn) {
            Ok(Some(part)) => got += part.len(),
            Ok(None) => panic!("a whole body of {got} bytes from a file of 4096"),
            Err(end) => break end,
        }
    };
    assert!(
        matches!(end, Trouble::Truncated | Trouble::Reset),
        "{end:?}"
    );
    assert!(got < 8 << 20);
    let fresh = server.client();
    wait::until("the shorter file", || {
        fresh.get("/big.bin").body.len() == 4096
    });
}

#[test]
fn a_file_that_grows_while_it_is_sent_is_never_over_long() {
    let server = site();
    server.file("www/big.bin", pattern::bytes(4 << 20));
    let mut conn = server.client().receive_buffer(16 << 10).connect();
    conn.send(&Request::get("/big.bin"));
    conn.send(&Request::get("/a.txt"));
    let (_, mut body) = conn.read_head();
    let mut got = body
        .next(&mut conn)
        .expect("a piece")
        .expect("a piece")
        .len();
    server.file("www/big.bin", pattern::bytes(6 << 20));
    loop {
        match body.next(&mut conn) {
            Ok(Some(part)) => got += part.len(),
            Ok(None) => break,
            // A file changed in place may also be broken off: mixing both would be worse.
            Err(Trouble::Truncated | Trouble::Reset) => return,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(got, 4 << 20);
    assert_eq!(conn.read_response().text(), "0123456789");
}

#[test]
fn a_hot_file_is_whole_however_it_is_asked_for() {
    let server = site();
    let all = pattern::bytes(200_000);
    server.file("www/hot.bin", &all);
    set_time(&server, "www/hot.bin");
    let mut conn = server.client().connect();
    let get = Request::get("/hot.bin");
    // The first ones find it, the others take what was found.
    for _ in 0..5 {
        let whole = conn.exchange(&get).expect(200);
        assert!(whole.body == all);
        let part = conn.exchange(&get.clone().field("Range", "bytes=1000-150999"));
        assert!(part.expect(206).body == all[1000..151_000]);
        let head = conn.exchange(&Request::new("HEAD", "/hot.bin")).expect(200);
        assert_eq!(head.field("content-length"), Some("200000"));
        let etag = whole.field("etag").expect("an ETag");
        let same = get.clone().field("If-None-Match", etag);
        let _ = conn.exchange(&same).expect(304);
    }
    for response in conn.pipeline(&vec![get.clone(); 20]) {
        assert!(response.expect(200).body == all);
    }
    // Its client takes a little at a time.
    let mut slow = server.client().receive_buffer(4 << 10).connect();
    slow.pipeline(&vec![get.clone(); 3])
        .into_iter()
        .for_each(|response| assert!(response.body == all));
    // Cut short in place: from then on no answer is whole but the shorter file's.
    let file = std::fs::File::options()
        .write(true)
        .open(server.dir().join("www/hot.bin"));
    file.expect("the file").set_len(100_000).expect("shorter");
    wait::until("the shorter file", || {
        let mut conn = server.client().connect();
        conn.send(&get);
        match conn.try_read_response() {
            Ok(response) => {
                assert!(response.body == all[..100_000]);
                true
            }
            Err(Trouble::Truncated | Trouble::Reset) => false,
            Err(other) => panic!("{other}"),
        }
    });
}

#[test]
fn a_small_file_that_changes_is_seen_to() {
    let server = site();
    let client = server.client();
    let first = client.get("/a.txt").expect(200);
    let etag = first.field("etag").expect("an ETag").to_owned();
    server.file("www/a.txt", "changed, and longer");
    wait::until("the change", || {
        client.get("/a.txt").text() == "changed, and longer"
    });
    let response = client
        .request(&Request::get("/a.txt").field("If-None-Match", &etag))
        .expect(200);
    assert_ne!(response.field("etag"), Some(etag.as_str()));
    std::fs::remove_file(server.dir().join("www/a.txt")).expect("the file");
    wait::until("the file to be missed", || {
        client.get("/a.txt").status() == 404
    });
    server.file("www/a.txt", "back");
    wait::until("the file to be back", || {
        client.get("/a.txt").status() == 200
    });
}

#[test]
fn a_directory_of_ten_thousand_files() {
    let server = site();
    for i in 0..10_000 {
        server.file(&format!("www/many/{i}.txt"), format!("file {i}"));
    }
    let mut conn = server.client().connect();
    for i in 0..10_000 {
        // A few at a time: every one of them must be the right one.
        let response = conn.get(&format!("/many/{i}.txt"));
        assert_eq!(
            (response.status(), response.text()),
            (200, format!("file {i}").as_str())
        );
    }
}

#[test]
fn a_path_template_cannot_lead_out() {
    let server = Server::builder(r#"site { "*", files "@dir@/hosts/$host" }"#)
        .file("hosts/a.test/x.txt", "a")
        .file("hosts/b.test/x.txt", "b")
        .file("x.txt", "outside")
        .start();
    let ask = |host: &str| server.client().request(&Request::get("/x.txt").host(host));
    assert_eq!(ask("a.test").expect(200).text(), "a");
    assert_eq!(ask("b.test").expect(200).text(), "b");
    assert_eq!(ask("c.test").status(), 404);
    for host in ["..", "."] {
        assert!(matches!(ask(host).status(), 400 | 403 | 404), "{host}");
    }
}
