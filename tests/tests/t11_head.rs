//! What the answer to a HEAD tells of what is stored (RFC 9111 §4.3.5).

use forebay_tests::{Origin, Request, Response, Script, Server, wait};

/// An origin whose GET is always the same, and whose HEAD says this.
fn case(head: &'static str) -> (Origin, Server) {
    let origin = Origin::setup()
        .handle(move |received| match received.method.as_str() {
            "HEAD" => Script::new().send(format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n{head}\r\n"
            )),
            _ => {
                let fields = "ETag: \"1\"\r\nCache-Control: max-age=600\r\nX-Is: old\r\n";
                Script::with_fields(200, fields, "0123456789")
            }
        })
        .start();
    let server = Server::before(&origin, "cache, proxy \"@origin@\"");
    (origin, server)
}

fn get(server: &Server) -> Response {
    server.client().request(&Request::get("/a")).expect(200)
}

/// A HEAD that goes to the origin, though something is stored.
fn head(server: &Server) -> Response {
    let head = Request::head("/a").field("Cache-Control", "no-cache");
    server.client().request(&head).expect(200)
}

fn stored(origin: &Origin, server: &Server) {
    let _ = get(server);
    wait::until("it to be stored", || {
        let _ = get(server);
        origin.requests().len() == 1
    });
}

#[test]
fn a_head_of_the_same_brings_what_is_stored_up_to_date() {
    let (origin, server) = case("ETag: \"1\"\r\nContent-Length: 10\r\nX-Is: new\r\n");
    stored(&origin, &server);
    assert_eq!(head(&server).field("x-is"), Some("new"));
    let got = get(&server);
    assert_eq!((got.field("x-is"), got.text()), (Some("new"), "0123456789"));
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_head_of_something_else_has_what_is_stored_validated() {
    for fields in [
        "ETag: \"2\"\r\nContent-Length: 10\r\n",
        "ETag: \"1\"\r\nContent-Length: 11\r\n",
    ] {
        let (origin, server) = case(fields);
        stored(&origin, &server);
        let _ = head(&server);
        let _ = get(&server);
        let asked = origin.requests();
        assert_eq!(asked.len(), 3, "{fields}");
        assert_eq!(asked[2].field("if-none-match"), Some("\"1\""), "{fields}");
    }
}
