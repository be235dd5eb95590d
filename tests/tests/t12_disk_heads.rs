//! What changes of an object on a disk without its body: its head, and what `compress` makes of it.

use forebay_tests::disk::STORE;
use forebay_tests::reading::STALE;
use forebay_tests::{Asset, Request, Server, Shelf, wait};

fn written(server: &Server) {
    wait::until("it to be written", || {
        let metrics = server.admin().get("/metrics").expect(200);
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        text.contains("forebay_cache_disk_objects{store=\"default\"} 1\n")
    });
}

#[test]
fn what_a_304_renews_has_its_body_on_the_disk() {
    // Of one block: the new head is written, too. Of several: after a restart it is validated anew.
    for (len, asked) in [(30_000, 0), (700_000, 1), (5_000_000, 1)] {
        let stale = format!("{STALE}\r\n");
        let (shelf, origin) = Shelf::start(Asset::new(len).fields(&stale));
        let mut server = Server::builder(&format!(
            "{STORE} site {{ \"*\", cache, proxy \"@origin@\" }}"
        ))
        .origin("origin", &origin)
        .start();
        let get = |server: &Server| {
            let reading = forebay_tests::reading::Reading::get(&server.client());
            let said = reading.head.all("cache-status")[0].to_owned();
            assert_eq!(reading.finish(), Ok(len));
            said
        };
        get(&server);
        // What is replaced before it is written as a whole is not.
        written(&server);
        shelf.edit(|asset| asset.fields = "Cache-Control: max-age=600\r\n".into());
        let said = get(&server);
        assert!(said.contains("fwd=stale; fwd-status=304"), "{len}: {said}");
        let said = get(&server);
        assert!(said.contains("; hit"), "{len}: {said}");
        written(&server);
        server.stop();
        server.start_again();
        let before = origin.requests().len();
        get(&server);
        get(&server);
        let requests = origin.requests();
        assert_eq!(requests.len() - before, asked, "{len}");
        let bodies = requests
            .iter()
            .filter(|one| one.field("if-none-match").is_none());
        assert_eq!(bodies.count(), 1, "{len}: its body has come once");
    }
}

#[test]
fn what_is_compressed_is_made_anew_of_what_is_on_the_disk() {
    let text = "words that come again and again ".repeat(4000);
    let origin = forebay_tests::Origin::always(forebay_tests::Script::with_fields(
        200,
        "Content-Type: text/plain\r\nCache-Control: max-age=600\r\nETag: \"1\"\r\n",
        &text,
    ));
    let mut server = Server::builder(&format!(
        "{STORE} site {{ \"*\", compress, cache, proxy \"@origin@\" }}"
    ))
    .origin("origin", &origin)
    .start();
    let get = |server: &Server, coding: &str| {
        let request = Request::get("/").field("Accept-Encoding", coding);
        let got = server.client().request(&request);
        assert_eq!(got.status(), 200);
        let coded = got.head.field("content-encoding").unwrap_or("identity");
        assert_eq!(coded, coding);
        if coding == "identity" {
            assert!(got.body == text.as_bytes());
        }
        got
    };
    for _ in 0..2 {
        get(&server, "identity");
        for coding in ["gzip", "br", "zstd"] {
            wait::until("it to be kept", || {
                let got = get(&server, coding);
                // What is made as it goes has no length.
                got.head.field("content-length").is_some()
            });
        }
        get(&server, "identity");
        server.stop();
        server.start_again();
    }
    assert_eq!(origin.requests().len(), 1);
}
