//! What goes out.

use forebay_fields::{Fields, Known};
use forebay_http1::{
    Method, Version, canned_response, reason_phrase, write_chunk, write_chunk_size,
    write_last_chunk, write_request_line, write_status_line,
};

#[track_caller]
fn check(write: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let mut out = b"before ".to_vec();
    write(&mut out);
    assert_eq!(out.escape_ascii().to_string(), format!("before {expected}"));
}

#[test]
fn rfc9112_4_status_line() {
    check(
        |out| write_status_line(out, 200, None),
        "HTTP/1.1 200 OK\\r\\n",
    );
    check(
        |out| write_status_line(out, 200, Some(b"OK")),
        "HTTP/1.1 200 OK\\r\\n",
    );
    check(
        |out| write_status_line(out, 404, Some(b"Gone fishing")),
        "HTTP/1.1 404 Gone fishing\\r\\n",
    );
    check(
        |out| write_status_line(out, 200, Some(b"")),
        "HTTP/1.1 200 \\r\\n",
    );
    check(
        |out| write_status_line(out, 299, None),
        "HTTP/1.1 299 \\r\\n",
    );
    check(
        |out| write_status_line(out, 299, Some(b"Odd")),
        "HTTP/1.1 299 Odd\\r\\n",
    );
    // A reason cannot end the line.
    check(
        |out| write_status_line(out, 200, Some(b"a\r\nX: y")),
        "HTTP/1.1 200 OK\\r\\n",
    );
    check(
        |out| write_status_line(out, 299, Some(b"a\nb")),
        "HTTP/1.1 299 \\r\\n",
    );
    check(
        |out| write_status_line(out, 42, Some(b"x")),
        "HTTP/1.1 500 Internal Server Error\\r\\n",
    );
    check(
        |out| write_status_line(out, 1000, None),
        "HTTP/1.1 500 Internal Server Error\\r\\n",
    );
    assert_eq!(reason_phrase(599), "");
}

#[test]
fn rfc9112_3_request_line() {
    check(
        |out| {
            assert!(write_request_line(
                out,
                &Method::Get,
                b"/a?b",
                Version::Http11
            ))
        },
        "GET /a?b HTTP/1.1\\r\\n",
    );
    for bad in [b"".as_slice(), b"/a b", b"/a\r\nb", b"/\0", b"/#", b"/\xc3"] {
        check(
            |out| assert!(!write_request_line(out, &Method::Get, bad, Version::Http11)),
            "",
        );
    }
}

#[test]
fn rfc9112_7_1_chunks() {
    check(|out| write_chunk_size(out, 1), "1\\r\\n");
    check(|out| write_chunk_size(out, 0x1a2b), "1a2b\\r\\n");
    check(
        |out| write_chunk_size(out, usize::MAX),
        &format!("{:x}\\r\\n", usize::MAX),
    );
    check(|out| write_chunk_size(out, 0), "");
    check(|out| write_chunk(out, b"hello"), "5\\r\\nhello\\r\\n");
    check(|out| write_chunk(out, b""), "");
    let mut trailers = Fields::new();
    check(|out| write_last_chunk(out, &trailers), "0\\r\\n\\r\\n");
    trailers.append("X-Sum", "1").unwrap();
    trailers.append(Known::Etag, "\"a\"").unwrap();
    check(
        |out| write_last_chunk(out, &trailers),
        "0\\r\\nX-Sum: 1\\r\\nETag: \\\"a\\\"\\r\\n\\r\\n",
    );
}

#[test]
fn canned_responses_are_whole_responses() {
    for status in [400, 408, 414, 431, 500, 501, 503, 505, 999] {
        let text = std::str::from_utf8(canned_response(status)).unwrap();
        let status = if status == 999 { 500 } else { status };
        let start = format!("HTTP/1.1 {status} {}\r\n", reason_phrase(status));
        assert!(text.starts_with(&start), "{text}");
        assert!(
            text.ends_with("Content-Length: 0\r\nConnection: close\r\n\r\n"),
            "{text}"
        );
        assert_eq!(text.contains("Retry-After: 1\r\n"), status == 503);
    }
}
