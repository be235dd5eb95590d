//! Variants: by what the requests that fill the cache have, and by nothing else.

use forebay_tests::{Origin, Request, Script, Server, wait};

#[test]
fn what_fills_are_asked_for_without_makes_no_variants() {
    let fields = "Cache-Control: max-age=600\r\nVary: Cookie, X-Original-URL\r\n";
    let origin = Origin::always(Script::with_fields(200, fields, "the same"));
    let server = Server::before(
        &origin,
        "cache { strip_cookies = true }, proxy \"@origin@\"",
    );
    let ask = |number: usize| {
        let request = Request::get("/a")
            .field("Cookie", &format!("visit={number}"))
            .field("X-Original-URL", &format!("/admin/{number}"));
        server.client().request(&request).expect(200)
    };
    assert_eq!(ask(0).text(), "the same");
    wait::until("it to be stored", || {
        let got = ask(1);
        got.field("cache-status")
            .is_some_and(|status| status.contains("hit"))
    });
    for number in 2..10 {
        assert_eq!(ask(number).text(), "the same");
    }
    let asked = origin.only_request();
    assert_eq!(
        (asked.field("cookie"), asked.field("x-original-url")),
        (None, None)
    );
}
