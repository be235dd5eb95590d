//! The step `proxy`: bodies that are taken in first, and files in place of answers.

use forebay_tests::origin::script::Script;
use forebay_tests::{Origin, Request, Server, pattern};

#[test]
fn an_upload_is_taken_in_before_a_peer_is_asked() {
    let origin = Origin::echo();
    let server = Server::before(&origin, r#"proxy "@origin@" { buffer_request = "64KB" }"#);
    let mut conn = server.client().connect();
    conn.raw("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    conn.wait_until_read();
    // Somebody else is served; nobody has been asked for the first one.
    assert_eq!(server.client().get("/b").status(), 200);
    assert_eq!(origin.wait_requests(1).len(), 1);
    conn.raw("3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(conn.read_response().status(), 200);
    let seen = origin.wait_requests(2);
    let first = seen.iter().find(|request| request.method == "POST");
    let first = first.expect("the upload");
    // Now that its length is known, it is told.
    assert_eq!(first.field("content-length"), Some("6"));
    assert_eq!(first.field("transfer-encoding"), None);
    assert_eq!(first.body, b"onetwo");
}

#[test]
fn what_does_not_fit_goes_on_as_it_comes() {
    let origin = Origin::echo();
    let server = Server::before(&origin, r#"proxy "@origin@" { buffer_request = "64KB" }"#);
    let body = pattern::bytes(1 << 20);
    let chunked = Request::new("POST", "/").chunks(&[&body[..100_000], &body[100_000..]]);
    for request in [Request::post("/", &body), chunked] {
        assert_eq!(server.client().request(&request).status(), 200);
    }
    let seen = origin.wait_requests(2);
    assert!(seen.iter().all(|request| request.body == body));
    assert_eq!(seen[0].field("content-length"), Some("1048576"));
    assert_eq!(seen[1].field("transfer-encoding"), Some("chunked"));
}

#[test]
fn a_file_in_place_of_an_answer() {
    let file = |field: &str| Script::with_fields(200, &format!("{field}\r\nX-Kept: 1\r\n"), "x");
    let origin = Origin::setup()
        .route("/in", file("X-Accel-Redirect: /a%20b.txt"))
        .route("/out", file("X-Sendfile: /etc/passwd"))
        .route("/none", file("X-Accel-Redirect: /none"))
        .start();
    let server = Server::builder(
        r#"site { "a.test", proxy "@origin@" { send_files = { "@dir@/one", "@dir@/two" } } }
           site { "b.test", proxy "@origin@" }"#,
    )
    .origin("origin", &origin)
    .file("one/x", "")
    .file("two/a b.txt", "the file")
    .start();
    let ask = |target: &str| {
        server
            .client()
            .request(&Request::get(target).host("a.test"))
    };
    let got = ask("/in").expect(200);
    assert_eq!((got.text(), got.field("x-kept")), ("the file", Some("1")));
    assert_eq!(got.field("x-accel-redirect"), None);
    assert!(
        got.field("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    let part = Request::get("/in")
        .host("a.test")
        .field("Range", "bytes=4-");
    assert_eq!(server.client().request(&part).expect(206).text(), "file");
    assert_eq!(ask("/out").status(), 502);
    assert_eq!(ask("/none").status(), 404);
    let plain = server
        .client()
        .request(&Request::get("/out").host("b.test"));
    assert_eq!(plain.expect(200).field("x-sendfile"), Some("/etc/passwd"));
}
