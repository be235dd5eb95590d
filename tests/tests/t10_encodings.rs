//! Content codings: the step `compress`, and files that lie beside others in a coding; decoded by
//! curl and by the usual libraries.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use forebay_tests::origin::script::Act;
use forebay_tests::wire::Framing;
use forebay_tests::{Gate, Origin, Request, Response, Script, Server};

const ALL: &str = "gzip, deflate, br, zstd";
const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

fn text(len: usize) -> String {
    let words = (0..=len / 8).map(|n| format!("{:07} ", n * n % 9_999_991));
    words.collect::<String>()[..len].to_owned()
}

fn decoded(response: &Response) -> Vec<u8> {
    let (body, mut out) = (&response.body[..], Vec::new());
    let read = match response.field("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut out),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut out),
        Some("zstd") => zstd::Decoder::new(body).and_then(|mut d| d.read_to_end(&mut out)),
        None => body.take(u64::MAX).read_to_end(&mut out),
        Some(other) => panic!("coded by {other}"),
    };
    read.expect("a body that can be decoded");
    out
}

fn get(target: &str, accepts: &str) -> Request {
    Request::get(target).field("Accept-Encoding", accepts)
}

/// What curl makes of it with these arguments.
fn curl(args: &[&str]) -> Vec<u8> {
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "60"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("curl, of the Debian package curl");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn curl_gets_what_was_sent_in_every_coding() {
    let whole = text(1_000_000);
    let fields = "Content-Type: text/plain\r\nETag: \"x\"\r\n";
    let origin = Origin::always(Script::with_fields(200, fields, &whole));
    let server =
        Server::builder("site { \"*\", compress, files \"@dir@/www\", proxy \"@origin@\" }")
            .origin("origin", &origin)
            .file("www/long.txt", &whole)
            .file("www/short.txt", &whole[..5000])
            .start();
    for target in ["/proxied", "/long.txt", "/short.txt"] {
        let url = format!("http://{}{target}", server.addr());
        let expected = if target == "/short.txt" {
            &whole[..5000]
        } else {
            &whole
        };
        for coding in CODINGS {
            let accepts = format!("Accept-Encoding: {coding}");
            let got = curl(&["--compressed", "-H", &accepts, &url]);
            assert!(got == expected.as_bytes(), "{target} {coding}");
            // And in what form it came.
            let response = server.client().request(&get(target, coding)).expect(200);
            assert_eq!(response.field("content-encoding"), Some(coding));
            assert_eq!(response.field("vary"), Some("Accept-Encoding"));
            assert!(
                response
                    .field("etag")
                    .is_some_and(|tag| tag.starts_with("W/\""))
            );
            assert!(
                response.body.len() < expected.len() / 2,
                "{}",
                response.body.len()
            );
            let framing = match response.framing {
                Framing::Length(len) => target == "/short.txt" && len == response.body.len() as u64,
                framing => target != "/short.txt" && framing == Framing::Chunked,
            };
            assert!(framing, "{target} {:?}", response.framing);
        }
        assert!(curl(&["--compressed", &url]) == expected.as_bytes());
        assert!(curl(&[&url]) == expected.as_bytes());
        let http10 = get(target, "gzip").http10();
        assert!(decoded(&server.client().request(&http10).expect(200)) == expected.as_bytes());
        let head = Request::head(target).field("Accept-Encoding", "gzip");
        let head = server.client().request(&head).expect(200);
        assert_eq!(head.field("content-encoding"), Some("gzip"), "{target}");
        assert_eq!(head.field("content-length"), None, "{target}");
    }
}

#[test]
fn an_event_arrives_at_once() {
    for coding in CODINGS {
        let gate = Gate::new();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let origin = Origin::always(
            Script::raw(head)
                .send("9\r\ndata: 1\n\n\r\n")
                .then(Act::Wait(gate.clone()))
                .send("9\r\ndata: 2\n\n\r\n0\r\nX-Sum: 3\r\n\r\n"),
        );
        let server = Server::before(&origin, "compress, proxy \"@origin@\"");
        let mut conn = server.client().connect();
        conn.send(&get("/", coding).field("TE", "trailers"));
        let (head, mut body) = conn.read_head();
        assert_eq!(head.field("content-encoding"), Some(coding));
        let mut came = Vec::new();
        let mut next = |came: &mut Vec<u8>| {
            let part = body.next(&mut conn).expect("more of the body");
            part.map(|part| came.extend_from_slice(&part)).is_some()
        };
        // The origin says no more until this one has been read.
        while decoded_so_far(coding, &came) != b"data: 1\n\n" {
            assert!(next(&mut came), "the body has ended");
        }
        gate.open();
        while next(&mut came) {}
        assert_eq!(decoded_so_far(coding, &came), b"data: 1\n\ndata: 2\n\n");
    }
}

fn decoded_so_far(coding: &str, bytes: &[u8]) -> Vec<u8> {
    fn write<W: Write>(mut decoder: W, bytes: &[u8]) -> W {
        decoder.write_all(bytes).expect("bytes that can be decoded");
        decoder.flush().expect("bytes that can be decoded");
        decoder
    }
    match coding {
        "gzip" => write(flate2::write::GzDecoder::new(Vec::new()), bytes)
            .get_ref()
            .clone(),
        "br" => write(brotli::DecompressorWriter::new(Vec::new(), 4096), bytes)
            .get_ref()
            .clone(),
        _ => {
            let decoder = zstd::stream::write::Decoder::new(Vec::new()).expect("a decoder");
            write(decoder, bytes).get_ref().clone()
        }
    }
}

#[test]
fn a_body_that_is_broken_off_is_seen_to_be() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n";
    let origin = Origin::always(Script::raw(head).send(text(50_000)).close());
    let server = Server::before(&origin, "compress, proxy \"@origin@\"");
    for coding in CODINGS {
        let mut conn = server.client().connect();
        conn.send(&get("/", coding));
        assert!(conn.try_read_response().is_err(), "{coding}");
    }
}

#[test]
fn what_is_not_to_be_coded_passes_as_it_is() {
    let whole = text(5000);
    let check = |fields: &str, request: Request, status: u16| {
        let origin = Origin::always(Script::with_fields(status, fields, &whole));
        let server = Server::before(&origin, "compress, proxy \"@origin@\"");
        let response = server.client().request(&request).expect(status);
        assert!(response.body == whole.as_bytes(), "{fields}");
        assert_eq!(response.framing, Framing::Length(5000), "{fields}");
    };
    let plain = "Content-Type: text/plain\r\n";
    let all = || get("/", ALL);
    check(&format!("{plain}Content-Encoding: zstd\r\n"), all(), 200);
    check(
        &format!("{plain}Cache-Control: no-transform\r\n"),
        all(),
        200,
    );
    check("Content-Type: image/png\r\n", all(), 200);
    check(
        &format!("{plain}Content-Range: bytes 0-4999/9999\r\n"),
        all(),
        206,
    );
    check(
        &format!("{plain}Set-Cookie: a=b\r\n"),
        all().field("Cookie", "a=b"),
        200,
    );
    check(plain, get("/", "identity"), 200);
}

#[test]
fn a_client_that_refuses_everything_gets_406_and_the_application_sees_nothing() {
    let origin = Origin::echo();
    let server = Server::before(&origin, "compress, proxy \"@origin@\"");
    let request = Request::post("/", "x").field("Accept-Encoding", "identity;q=0, br;q=0, *;q=0");
    let _ = server.client().request(&request).expect(406);
    origin.expect_untouched();
}

#[test]
fn files_lie_ready_in_codings() {
    let whole = text(100_000);
    let coded = |coding: &str| {
        let mut out = Vec::new();
        match coding {
            "zstd" => return zstd::encode_all(whole.as_bytes(), 19).expect("zstd"),
            "br" => {
                let mut encoder = brotli::CompressorReader::new(whole.as_bytes(), 4096, 9, 22);
                encoder.read_to_end(&mut out).expect("br");
            }
            _ => {
                let level = flate2::Compression::best();
                let mut encoder = flate2::read::GzEncoder::new(whole.as_bytes(), level);
                encoder.read_to_end(&mut out).expect("gzip");
            }
        }
        out
    };
    // With and without the step: what is coded already is not coded again.
    for pipeline in ["files \"@dir@/www\"", "compress, files \"@dir@/www\""] {
        let server = Server::builder(&format!("site {{ \"*\", {pipeline} }}"))
            .file("www/a.txt", &whole)
            .file("www/a.txt.br", coded("br"))
            .file("www/a.txt.zst", coded("zstd"))
            .file("www/a.txt.gz", coded("gzip"))
            .start();
        let url = format!("http://{}/a.txt", server.addr());
        let mut conn = server.client().connect();
        // Again and again: from the disk, then from memory.
        for _ in 0..3 {
            for coding in CODINGS {
                let response = conn.exchange(&get("/a.txt", coding)).expect(200);
                assert!(response.body == coded(coding), "{coding} {pipeline}");
                assert_eq!(response.field("content-encoding"), Some(coding));
                assert_eq!(response.field("vary"), Some("Accept-Encoding"));
                assert!(
                    response
                        .field("content-type")
                        .is_some_and(|t| t.starts_with("text/plain"))
                );
                assert!(decoded(&response) == whole.as_bytes());
                let accepts = format!("Accept-Encoding: {coding}");
                assert!(curl(&["--compressed", "-H", &accepts, &url]) == whole.as_bytes());
                let part = get("/a.txt", coding).field("Range", "bytes=100-199");
                let part = conn.exchange(&part).expect(206);
                assert!(part.body == coded(coding)[100..200]);
            }
            let response = conn.get("/a.txt").expect(200);
            assert!(response.body == whole.as_bytes() && response.field("vary").is_some());
        }
        let best = conn.exchange(&get("/a.txt", ALL)).expect(200);
        assert_eq!(best.field("content-encoding"), Some("br"));
    }
}
