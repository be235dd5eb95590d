use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::encoder::Encoder;
use super::stream::{Coded, TURN_BYTES};
use crate::exchange::{Body, Coding, Pulled, Stream};
use crate::steps::testing::{Bench, Got, mistakes};

const ALL: &str = "gzip, deflate, br, zstd";

fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        Coding::Gzip => {
            flate2::read::GzDecoder::new(bytes)
                .read_to_end(&mut out)
                .unwrap();
        }
        Coding::Br => {
            brotli::Decompressor::new(bytes, 4096)
                .read_to_end(&mut out)
                .unwrap();
        }
        Coding::Zstd => out = zstd::decode_all(bytes).unwrap(),
    }
    out
}

/// Decodes what has come so far of a body that is not complete.
fn decoded_so_far(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Gzip => {
            let mut decoder = flate2::write::GzDecoder::new(Vec::new());
            decoder.write_all(bytes).unwrap();
            decoder.flush().unwrap();
            decoder.get_ref().clone()
        }
        Coding::Br => {
            let mut decoder = brotli::DecompressorWriter::new(Vec::new(), 4096);
            decoder.write_all(bytes).unwrap();
            decoder.flush().unwrap();
            decoder.get_ref().clone()
        }
        Coding::Zstd => {
            let mut decoder = zstd::stream::write::Decoder::new(Vec::new()).unwrap();
            decoder.write_all(bytes).unwrap();
            decoder.flush().unwrap();
            decoder.get_ref().clone()
        }
    }
}

/// Text that is not all the same.
fn text(len: usize) -> String {
    let words = (0..=len / 8).map(|n| format!("{:07} ", n * n % 9_999_991));
    words.collect::<String>()[..len].to_owned()
}

fn bench(options: &str, answer: &str) -> Bench {
    Bench::new(&format!("site {{ \"*\", compress{options}, {answer} }}"))
}

/// A server of a text of this many bytes, with these fields.
fn page(len: usize, fields: &str) -> Bench {
    let text = text(len);
    bench(
        "",
        &format!("respond(200, [[{text}]]) {{ headers = {{ {fields} }} }}"),
    )
}

fn ask(bench: &Bench, accepts: &str) -> Got {
    bench.get("/").field("Accept-Encoding", accepts).run()
}

#[test]
fn every_encoder_gives_back_what_it_took_however_it_is_cut() {
    let whole = text(100_000);
    for coding in Coding::ALL {
        for cut in [1000, 7777, 100_000] {
            // The second one may be one that was used before.
            for (flush, len) in [(false, None), (true, None), (false, Some(100_000))] {
                let mut encoder = Encoder::new(coding, len).unwrap();
                let mut out = Vec::new();
                for piece in whole.as_bytes().chunks(cut) {
                    encoder.write(piece, &mut out).unwrap();
                    if flush {
                        encoder.flush(&mut out).unwrap();
                    }
                }
                encoder.finish(&mut out).unwrap();
                assert!(
                    decoded(coding, &out) == whole.as_bytes(),
                    "{coding:?} {cut} {flush}"
                );
                assert!(out.len() < whole.len() * 3 / 4, "{coding:?}: {}", out.len());
            }
        }
        // One that is broken off is clean at its next use.
        let mut broken = Encoder::new(coding, None).unwrap();
        broken.write(whole.as_bytes(), &mut Vec::new()).unwrap();
        drop(broken);
        let (mut encoder, mut out) = (Encoder::new(coding, None).unwrap(), Vec::new());
        encoder.write(b"x", &mut out).unwrap();
        encoder.finish(&mut out).unwrap();
        assert_eq!(decoded(coding, &out), b"x", "{coding:?}");
    }
}

#[test]
fn what_all_encoders_take_is_limited() {
    for coding in Coding::ALL {
        for len in [None, Some(1 << 20)] {
            let mut encoders = Vec::new();
            while let Ok(encoder) = Encoder::new(coding, len) {
                encoders.push(encoder);
                assert!(encoders.len() < 1000);
            }
            assert!(encoders.len() > 80, "{coding:?}: {}", encoders.len());
        }
    }
    // What has no encoder passes as it is.
    let bench = page(5000, r#"etag = '"x"'"#);
    let all: Vec<Encoder> = std::iter::from_fn(|| Encoder::new(Coding::Br, None).ok()).collect();
    let got = ask(&bench, ALL);
    assert_eq!(
        (got.field("content-encoding"), got.field("etag")),
        (None, Some("\"x\""))
    );
    assert_eq!(
        (got.field("vary"), got.text().len()),
        (Some("Accept-Encoding"), 5000)
    );
    drop(all);
    assert_eq!(ask(&bench, ALL).field("content-encoding"), Some("zstd"));
}

/// A source that gives these pieces; `None`: not yet.
struct Pieces(VecDeque<Option<Bytes>>);

impl Stream for Pieces {
    fn poll_pull(&mut self, _: &mut Context<'_>) -> Poll<Pulled> {
        match self.0.pop_front() {
            Some(Some(bytes)) => Poll::Ready(Pulled::Data(bytes)),
            Some(None) => Poll::Pending,
            None => Poll::Ready(Pulled::End(None)),
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        None
    }

    fn read_ahead_bytes(&self) -> usize {
        77
    }
}

#[test]
fn what_has_been_written_leaves_as_soon_as_the_source_waits() {
    let bench = page(10, "");
    for coding in Coding::ALL {
        let event = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let pieces = [
            event("data: 1\n\n"),
            None,
            None,
            event("data: 2"),
            event("\n\n"),
            None,
        ];
        let source = Body::Stream(Box::new(Pieces(pieces.into())));
        let mut coded = Coded::new(&bench.worker, source, Encoder::new(coding, None).unwrap());
        assert_eq!((coded.len_bytes(), coded.read_ahead_bytes()), (None, 77));
        let mut all = Vec::new();
        for expected in ["data: 1\n\n", "data: 1\n\ndata: 2\n\n"] {
            let waker = std::task::Waker::noop();
            let Poll::Ready(Pulled::Data(bytes)) = coded.poll_pull(&mut Context::from_waker(waker))
            else {
                panic!("{coding:?}: nothing has come")
            };
            all.extend_from_slice(&bytes);
            assert_eq!(
                decoded_so_far(coding, &all),
                expected.as_bytes(),
                "{coding:?}"
            );
            // Nothing new: nothing is sent.
            if expected.len() < 10 {
                let polled = coded.poll_pull(&mut Context::from_waker(waker));
                assert!(polled.is_pending());
            }
        }
        loop {
            match bench.block_on(poll_fn(|cx| coded.poll_pull(cx))) {
                Pulled::Data(bytes) => all.extend_from_slice(&bytes),
                Pulled::End(_) => break,
                Pulled::Abort(_) => panic!("broken off"),
            }
        }
        assert_eq!(decoded(coding, &all), b"data: 1\n\ndata: 2\n\n");
    }
}

#[test]
fn others_get_their_turn_between_pieces() {
    let bench = page(10, "");
    let whole = text(20 * TURN_BYTES);
    for coding in Coding::ALL {
        let body = Body::Bytes(whole.clone().into());
        let mut coded = Coded::new(&bench.worker, body, Encoder::new(coding, None).unwrap());
        let (mut turns, mut all) = (0, Vec::new());
        let mut context = Context::from_waker(std::task::Waker::noop());
        loop {
            match coded.poll_pull(&mut context) {
                Poll::Pending => turns += 1,
                Poll::Ready(Pulled::Data(bytes)) => all.extend_from_slice(&bytes),
                Poll::Ready(_) => break,
            }
        }
        assert_eq!(turns, 19, "{coding:?}");
        assert!(decoded(coding, &all) == whole.as_bytes());
    }
}

#[test]
fn by_the_clients_wish_and_the_order_of_the_configuration() {
    let whole = text(5000);
    let bench = page(5000, "");
    for (accepts, coding) in [
        (ALL, Some(Coding::Zstd)),
        ("gzip, br", Some(Coding::Br)),
        ("gzip, br;q=0.9", Some(Coding::Gzip)),
        ("*", Some(Coding::Zstd)),
        ("identity, gzip;q=0.9", None),
        ("deflate", None),
        ("", None),
    ] {
        let got = ask(&bench, accepts);
        assert_eq!(
            got.field("content-encoding"),
            coding.map(Coding::name),
            "{accepts}"
        );
        assert_eq!(got.field("vary"), Some("Accept-Encoding"), "{accepts}");
        let bytes = got.pulled(&bench);
        match coding {
            Some(coding) => assert!(decoded(coding, &bytes) == whole.as_bytes(), "{accepts}"),
            None => assert!(bytes == whole.as_bytes(), "{accepts}"),
        }
    }
    let none = bench.get("/").run();
    assert_eq!(
        (none.field("content-encoding"), none.field("vary")),
        (None, Some("Accept-Encoding"))
    );
    // A small body is coded at once, with its length; a long one as it leaves.
    assert!(ask(&bench, ALL).response.body.len_bytes().is_some());
    let long = page(3 * TURN_BYTES, "");
    let got = ask(&long, "gzip");
    assert_eq!(got.response.body.len_bytes(), None);
    assert!(decoded(Coding::Gzip, &got.pulled(&long)) == text(3 * TURN_BYTES).as_bytes());
    let options = r#" { encodings = { "gzip", "br" } }"#;
    let bench = self::bench(options, &format!("respond(200, [[{whole}]])"));
    for (accepts, coding) in [(ALL, Some("gzip")), ("br", Some("br")), ("zstd", None)] {
        assert_eq!(
            ask(&bench, accepts).field("content-encoding"),
            coding,
            "{accepts}"
        );
    }
}

#[test]
fn head_says_what_get_would() {
    for (len, coding) in [
        (5000, Some("gzip")),
        (3 * TURN_BYTES, Some("gzip")),
        (100, None),
    ] {
        let bench = page(len, r#"etag = '"x"'"#);
        let head = bench
            .request("HEAD", "/")
            .field("Accept-Encoding", "gzip")
            .run();
        assert_eq!(head.field("content-encoding"), coding);
        let get = ask(&bench, "gzip");
        for name in ["content-encoding", "etag", "vary", "content-type"] {
            assert_eq!(head.field(name), get.field(name), "{name} of {len}");
        }
        assert_eq!(head.response.announced_len, None);
        let len = coding.is_none().then_some(100);
        assert_eq!(head.response.body.len_bytes(), len);
    }
}

#[test]
fn types_and_sizes() {
    let coded = |options: &str, kind: &str, len: usize| {
        let kind = if kind.is_empty() {
            "false".into()
        } else {
            format!("{kind:?}")
        };
        let answer = format!(
            "respond(200, [[{}]]) {{ headers = {{ content_type = {kind} }} }}",
            text(len)
        );
        let got = ask(&bench(options, &answer), ALL);
        let is_coded = got.field("content-encoding").is_some();
        assert_eq!(got.field("vary").is_some(), is_coded, "{kind}");
        is_coded
    };
    for kind in [
        "text/html",
        "Text/HTML; charset=utf-8",
        "application/json",
        "application/ld+json;profile=x",
        "application/problem+json",
        "image/svg+xml",
        "application/rss+xml",
        "text/event-stream",
        "application/javascript",
        "application/wasm",
        "font/ttf",
    ] {
        assert!(coded("", kind, 2000), "{kind}");
    }
    for kind in [
        "image/png",
        "font/woff2",
        "application/zip",
        "application/octet-stream",
        "text",
    ] {
        assert!(!coded("", kind, 2000), "{kind}");
    }
    assert!(coded("", "text/css", 1024) && !coded("", "text/css", 1023));
    assert!(coded(r#" { min_size = "0B" }"#, "text/css", 1));
    assert!(coded(r#" { types = "image/*" }"#, "image/png", 2000));
    assert!(!coded(r#" { types = "image/*" }"#, "text/css", 2000));
}

#[test]
fn never_twice_and_never_against_the_rules() {
    for fields in [
        r#"content_encoding = "br""#,
        r#"content_encoding = "identity""#,
        r#"cache_control = "max-age=1, No-Transform""#,
    ] {
        let got = ask(&page(5000, fields), ALL);
        assert_eq!(got.response.body.len_bytes(), Some(5000), "{fields}");
        assert_eq!(got.field("vary"), None, "{fields}");
    }
    let bench = page(5000, "");
    let got = bench
        .get("/")
        .field("Accept-Encoding", ALL)
        .field("Cache-Control", "no-transform")
        .run();
    assert_eq!(got.field("content-encoding"), None);
    // Twice in a pipeline.
    let twice = self::bench("", &format!("compress, respond(200, [[{}]])", text(5000)));
    let got = ask(&twice, "gzip");
    assert_eq!(got.field("content-encoding"), Some("gzip"));
    assert!(decoded(Coding::Gzip, &got.bytes()) == text(5000).as_bytes());
    for (status, coding) in [(206, None), (404, Some("gzip")), (500, Some("gzip"))] {
        let bench = self::bench("", &format!("respond({status}, [[{}]])", text(5000)));
        assert_eq!(
            ask(&bench, "gzip").field("content-encoding"),
            coding,
            "{status}"
        );
    }
}

#[test]
fn rfc9110_8_8_1_the_tag_of_coded_bytes_is_weak() {
    let fields = r#"etag = '"x"', accept_ranges = "bytes", content_md5 = "x", repr_digest = "x""#;
    let bench = page(5000, fields);
    let got = ask(&bench, "gzip");
    assert_eq!(got.field("etag"), Some("W/\"x\""));
    for name in ["accept-ranges", "content-md5", "repr-digest"] {
        assert_eq!(got.field(name), None, "{name}");
        assert!(ask(&bench, "").field(name).is_some(), "{name}");
    }
    assert_eq!(ask(&bench, "").field("etag"), Some("\"x\""));
    let weak = page(5000, r#"etag = 'W/"x"'"#);
    assert_eq!(ask(&weak, "gzip").field("etag"), Some("W/\"x\""));
}

#[test]
fn files_are_coded_and_found_again_by_their_tag() {
    let dir = tempfile::tempdir().unwrap();
    let whole = text(100_000);
    let path = dir.path().join("a.txt");
    std::fs::write(&path, &whole).unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_580_608_922);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    let bench = self::bench("", &format!("files {:?}", dir.path().to_str().unwrap()));
    let ask = |name: &str, value: &str| {
        let ask = bench.get("/a.txt").field("Accept-Encoding", "zstd");
        ask.field(name, value).run()
    };
    let got = ask("X", "");
    let weak = got.field("etag").unwrap().to_owned();
    assert!(
        weak.starts_with("W/\"") && got.field("last-modified").is_some(),
        "{weak}"
    );
    assert!(decoded(Coding::Zstd, &got.pulled(&bench)) == whole.as_bytes());
    let got = ask("If-None-Match", &weak);
    assert_eq!(
        (got.status(), got.field("etag")),
        (304, Some(weak.as_str()))
    );
    assert_eq!(got.field("vary"), Some("Accept-Encoding"));
    let got = ask("If-None-Match", &weak[2..]);
    assert_eq!((got.status(), got.field("etag")), (304, Some(&weak[2..])));
    // Parts are of the bytes as they are.
    let got = ask("Range", "bytes=0-9");
    assert_eq!((got.status(), got.field("content-encoding")), (206, None));
    assert_eq!(got.field("vary"), Some("Accept-Encoding"));
    assert_eq!(got.field("content-range"), Some("bytes 0-9/100000"));
}

#[test]
fn breach_a_secret_is_not_coded_beside_what_an_attacker_asks_for() {
    let bench = page(5000, r#"set_cookie = "token=1""#);
    for (name, coding) in [
        ("Cookie", None),
        ("Authorization", None),
        ("X", Some("gzip")),
    ] {
        let got = bench
            .get("/")
            .field("Accept-Encoding", "gzip")
            .field(name, "a=b")
            .run();
        assert_eq!(got.field("content-encoding"), coding, "{name}");
        assert_eq!(got.field("vary"), Some("Accept-Encoding"), "{name}");
    }
    let got = page(5000, "")
        .get("/")
        .field("Accept-Encoding", "gzip")
        .field("Cookie", "a=b")
        .run();
    assert_eq!(got.field("content-encoding"), Some("gzip"));
}

#[test]
fn breach_who_knows_better_may_say_so() {
    let bench = Bench::new(&format!(
        r#"site {{ "*", compress {{ set_cookie = "compress" }},
             respond(200, "{}") {{ headers = {{ set_cookie = "token=1" }} }} }}"#,
        text(5000)
    ));
    let got = bench
        .get("/")
        .field("Accept-Encoding", "gzip")
        .field("Cookie", "a=b")
        .run();
    assert_eq!(got.field("content-encoding"), Some("gzip"));
    assert_eq!(got.field("set-cookie"), Some("token=1"));
}

#[test]
fn rfc9110_12_5_3_a_client_that_refuses_all_gets_406() {
    let bench = page(100, r#"content_type = "image/png""#);
    for (accepts, status, coding) in [
        ("identity;q=0", 406, None),
        ("*;q=0", 406, None),
        ("gzip;q=0, identity;q=0", 406, None),
        ("identity;q=0, gzip", 200, Some("gzip")),
        ("identity;q=0, deflate", 200, None),
        ("gzip;q=0", 200, None),
    ] {
        let got = ask(&bench, accepts);
        assert_eq!(
            (got.status(), got.field("content-encoding")),
            (status, coding),
            "{accepts}"
        );
    }
}

#[test]
fn mistakes_in_it() {
    let said = |options: &str| {
        mistakes(&format!(
            "site {{ \"*\", compress {options}, respond(200) }}"
        ))
    };
    assert!(said(r#"{ encodings = "deflate" }"#).contains("`encodings`"));
    assert!(said(r#"{ min_size = 5 }"#).contains("`min_size`"));
    assert!(said(r#"{ set_cookie = true }"#).contains("`set_cookie`"));
    assert!(said(r#"{ level = 5 }"#).contains("has no option `level`"));
}
