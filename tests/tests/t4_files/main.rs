//! The step `files`: what is found, what is refused, preconditions, ranges, files that change.

mod asked;
mod changing;
mod kept_in;

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
