//! `compress` above `cache`: what is stored is put into each coding once, and kept beside it.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_tests::wire::Framing;
use forebay_tests::{Origin, Request, Response, Script, Server, wait};

const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

fn text(len: usize, seed: usize) -> String {
    let words = (seed..=seed + len / 8).map(|n| format!("{:07} ", n * n % 9_999_991));
    words.collect::<String>()[..len].to_owned()
}

fn decoded(response: &Response) -> String {
    let (body, mut out) = (&response.body[..], String::new());
    let read = match response.field("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_string(&mut out),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_string(&mut out),
        Some("zstd") => zstd::Decoder::new(body).and_then(|mut d| d.read_to_string(&mut out)),
        None => body.take(u64::MAX).read_to_string(&mut out),
        Some(other) => panic!("coded by {other}"),
    };
    read.expect("a body that can be decoded");
    out
}

/// An origin whose every answer is another text, of this length.
fn origin(len: usize) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::setup()
        .handle(move |_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let fields = format!(
                "Content-Type: text/plain\r\nCache-Control: max-age=600\r\nETag: \"{number}\"\r\n"
            );
            Script::with_fields(200, &fields, text(len, number * 1000))
        })
        .start()
}

#[test]
fn a_stored_body_is_coded_once_for_all() {
    // Of one block and of several; coded as it goes, the second has no length.
    for len in [30_000, 200_000] {
        let origin = origin(len);
        let server = Server::before(
            &origin,
            "compress, cache { purge = client \"127.0.0.1\" }, proxy \"@origin@\"",
        );
        let ask = |accepts: &str| {
            let request = Request::get("/page").field("Accept-Encoding", accepts);
            server.client().request(&request).expect(200)
        };
        let first = ask("identity");
        wait::until("it to be stored", || {
            ask("identity").field("age").is_some() && origin.requests().len() == 1
        });
        for coding in CODINGS {
            let on_the_fly = ask(coding);
            assert_eq!(on_the_fly.field("content-encoding"), Some(coding));
            assert_eq!(decoded(&on_the_fly), first.text(), "{coding} {len}");
            let kept = wait::until_some("it to be kept", || {
                let got = ask(coding);
                assert_eq!(decoded(&got), first.text(), "{coding} {len}");
                // Coded with more care, it is another body.
                (got.body != on_the_fly.body).then_some(got)
            });
            assert_eq!(kept.framing, Framing::Length(kept.body.len() as u64));
            assert_eq!(kept.field("vary"), Some("Accept-Encoding"));
            assert_eq!(kept.field("etag"), Some("W/\"0\""));
            let head = Request::head("/page").field("Accept-Encoding", coding);
            let head = server.client().request(&head).expect(200);
            let len = kept.body.len().to_string();
            assert_eq!(head.field("content-length"), Some(&*len));
            let again = Request::get("/page")
                .field("Accept-Encoding", coding)
                .field("If-None-Match", "W/\"0\"");
            assert_eq!(server.client().request(&again).status(), 304);
        }
        // Who takes no coding gets none of them, nor a part of one.
        let plain = ask("identity");
        assert_eq!(
            (plain.text(), plain.field("content-encoding")),
            (first.text(), None)
        );
        let part = Request::get("/page")
            .field("Accept-Encoding", "gzip")
            .field("Range", "bytes=5-14");
        let part = server.client().request(&part).expect(206);
        assert_eq!(part.text(), &first.text()[5..15]);
        assert_eq!(origin.requests().len(), 1);

        // It goes with what it was made of.
        let purged = server.client().request(&Request::new("PURGE", "/page"));
        assert_eq!(purged.status(), 200);
        for coding in CODINGS {
            let got = ask(coding);
            assert_eq!(decoded(&got), text(len, 1000), "{coding} {len}");
        }
    }
}
