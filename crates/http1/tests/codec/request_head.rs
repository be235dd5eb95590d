//! Request heads, rule by rule. Each input is fed whole, cut at every place and byte by byte.

use crate::common::{every_split, request_in, some_splits};
use bytes::BytesMut;
use forebay_http1::{HeadError, HeadParser, Limits, Method, Progress, RequestHead, TargetForm};

use HeadError::{
    BadContentLength, BadFieldName, BadFieldValue, BadHost, BadTarget, BareCr, BareLf,
    ConnectionNamesField, HeadTooLarge, HostDiffers, LengthAndTransferEncoding,
    MalformedRequestLine, MethodTooLong, MissingHost, Nul, ObsFold, RequestLineTooLong,
    SeveralContentLengths, SeveralHosts, SpaceBeforeColon, TooManyConnectionOptions, TooManyFields,
    TransferEncodingInHttp10, UnsupportedTransferEncoding, UnsupportedVersion,
};

/// `Ok("")` stands for a head that is not complete.
#[track_caller]
fn check(input: &[u8], expected: Result<&str, HeadError>) {
    let found = every_split(input, |pieces| {
        request_in(pieces, &Limits::default(), false)
    });
    let expected = expected.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
    assert_eq!(found, expected, "{}", input.escape_ascii());
}

/// A GET with `Host: a` and these further field lines.
#[track_caller]
fn check_fields(lines: &str, expected: Result<&str, HeadError>) {
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let expected = expected.map(|more| format!("GET / HTTP/1.1 host=a{more}"));
    check(
        input.as_bytes(),
        expected.as_deref().map_err(|error| *error),
    );
}

// --- The request line --------------------------------------------------------------------------

#[test]
fn rfc9112_3_request_line() {
    check(
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Ok("GET / HTTP/1.1 host=a keep-alive"),
    );
    check(b"GET / HTTP/1.0\r\n\r\n", Ok("GET / HTTP/1.0"));
    check(b"GET / HTTP/1.0\r\n\r\nGET", Ok("GET / HTTP/1.0 rest=GET"));
    check(b"", Ok(""));
    check(b"GET / HT", Ok(""));
    check(b"GET / HTTP/1.1\r\nHost: a\r\n", Ok(""));
    for bad in [
        "GET /\r\n\r\n",
        " GET / HTTP/1.1\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        "GET /  HTTP/1.1\r\n",
        "GET\t/ HTTP/1.1\r\n",
        "GET / http/1.1\r\n",
        "GET / HTTP/1.1x\r\n",
        "GET / HTTP/1\r\n",
        "GET / HTTP/11.1\r\n",
        "GET / HTTP/1.11\r\n",
        "GET / HTTP/ 1.1\r\n",
        "GET / XTTP/1.1\r\n",
        "GET /a b HTTP/1.1\r\n",
        "G(T / HTTP/1.1\r\n",
        "G\u{e9}T / HTTP/1.1\r\n",
        "\r\r\n",
    ] {
        let expected = if bad == "\r\r\n" {
            BareCr
        } else {
            MalformedRequestLine
        };
        check(bad.as_bytes(), Err(expected));
    }
}

#[test]
fn rfc9112_2_3_versions() {
    for version in ["0.9", "1.2", "2.0", "3.0", "9.9"] {
        check(
            format!("GET / HTTP/{version}\r\n").as_bytes(),
            Err(UnsupportedVersion),
        );
    }
    // The preface of HTTP/2.
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(UnsupportedVersion));
}

#[test]
fn rfc9112_2_2_one_empty_line_before_a_request() {
    check(b"\r\nGET / HTTP/1.0\r\n\r\n", Ok("GET / HTTP/1.0"));
    check(b"\r\n", Ok(""));
    check(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n", Err(MalformedRequestLine));
    check(b"\nGET / HTTP/1.0\r\n\r\n", Err(BareLf));
}

#[test]
fn rfc9110_9_methods() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("TRACE", Method::Trace),
        ("PATCH", Method::Patch),
    ] {
        let mut buf = BytesMut::from(format!("{name} / HTTP/1.0\r\n\r\n").as_bytes());
        let mut head = RequestHead::new();
        let parsed = HeadParser::new().request(&mut buf, &Limits::default(), &mut head);
        assert_eq!(parsed, Ok(Progress::Complete));
        assert_eq!(head.method, method);
        assert_eq!(head.method.as_str(), name);
    }
    check(b"get / HTTP/1.0\r\n\r\n", Ok("get / HTTP/1.0"));
    check(
        b"UPDATEREDIRECTREF / HTTP/1.0\r\n\r\n",
        Ok("UPDATEREDIRECTREF / HTTP/1.0"),
    );
    check(
        b"AAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.0\r\n\r\n",
        Ok("AAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.0"),
    );
    check(
        b"AAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.0\r\n\r\n",
        Err(MethodTooLong),
    );
}

#[test]
fn a_tls_client_hello_is_refused_at_once() {
    check(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        Err(MalformedRequestLine),
    );
}

// --- The target --------------------------------------------------------------------------------

#[test]
fn rfc9112_3_2_bytes_of_a_target() {
    let all: String = ('!'..='~').filter(|&c| c != '#').collect();
    check(
        format!("GET /{all} HTTP/1.0\r\n\r\n").as_bytes(),
        Ok(&format!("GET /{all} HTTP/1.0")),
    );
    for bad in [b'#', 0x7f, 0x80, 0xc3, 0xff, 1, 0x1f, b'\t'] {
        let input = [b"GET /a".as_slice(), &[bad], b"b HTTP/1.0\r\n\r\n"].concat();
        check(&input, Err(BadTarget));
    }
    check(b"GET /a\0b HTTP/1.0\r\n\r\n", Err(Nul));
    check(b"GET /a\rb HTTP/1.0\r\n\r\n", Err(BareCr));
    check(b"GET /a\nb HTTP/1.0\r\n\r\n", Err(BareLf));
}

#[test]
fn rfc9112_3_2_1_origin_form() {
    check(b"GET // HTTP/1.0\r\n\r\n", Ok("GET // HTTP/1.0"));
    check(
        b"GET /a?b=/../%2F HTTP/1.0\r\n\r\n",
        Ok("GET /a?b=/../%2F HTTP/1.0"),
    );
    for bad in [
        "a", "a/b", "?a", "..", "host:80", "//", "http:/a", "http:a", "ftp://a/", "://a/",
    ] {
        if bad != "//" {
            check(
                format!("GET {bad} HTTP/1.0\r\n\r\n").as_bytes(),
                Err(BadTarget),
            );
        }
    }
}

#[test]
fn rfc9112_3_2_2_absolute_form() {
    let ok = |target: &str, host: &str, expected: &str| {
        let input = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        check(input.as_bytes(), Ok(expected));
    };
    ok(
        "http://a.b/c?d",
        "a.b",
        "GET /c?d HTTP/1.1 host=a.b keep-alive",
    );
    ok("http://a.b", "a.b", "GET / HTTP/1.1 host=a.b keep-alive");
    ok(
        "http://a.b?d",
        "a.b",
        "GET /?d HTTP/1.1 host=a.b keep-alive",
    );
    ok("HTTP://A.b/", "a.B", "GET / HTTP/1.1 host=a.b keep-alive");
    ok(
        "http://a.b:80/",
        "a.b",
        "GET / HTTP/1.1 host=a.b keep-alive",
    );
    ok(
        "https://a.b/",
        "a.b:443",
        "GET / HTTP/1.1 host=a.b port=443 keep-alive",
    );
    ok(
        "http://[::1]:8/",
        "[::1]:8",
        "GET / HTTP/1.1 host=[::1] port=8 keep-alive",
    );
    check(
        b"GET http://a.b:8/c HTTP/1.0\r\n\r\n",
        Ok("GET /c HTTP/1.0 host=a.b port=8"),
    );

    let refused = |target: &str, host: &str, expected: HeadError| {
        let input = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        check(input.as_bytes(), Err(expected));
    };
    refused("http://a.b/", "a.c", HostDiffers);
    refused("http://a.b:81/", "a.b", HostDiffers);
    refused("http://a.b/", "a.b:443", HostDiffers);
    refused("https://a.b/", "a.b:80", HostDiffers);
    refused("http://a.b@c/", "c", BadHost);
    refused("http://:80/", "a", BadHost);
    refused("http:///", "a", BadHost);
    refused("http://a%2eb/", "a.b", BadHost);
    refused("ws://a/", "a", BadTarget);
    check(b"GET http://a/ HTTP/1.1\r\n\r\n", Err(MissingHost));
}

#[test]
fn rfc9112_3_2_3_authority_form() {
    check(
        b"CONNECT a.b:443 HTTP/1.1\r\nHost: a.b\r\n\r\n",
        Ok("CONNECT a.b:443 HTTP/1.1 host=a.b keep-alive"),
    );
    for bad in ["a.b", "/", "*", "http://a.b/", "a.b:", "a.b:x", "a.b:65536"] {
        let input = format!("CONNECT {bad} HTTP/1.1\r\nHost: a.b\r\n\r\n");
        check(input.as_bytes(), Err(BadTarget));
    }
}

#[test]
fn rfc9112_3_2_4_asterisk_form() {
    check(b"OPTIONS * HTTP/1.0\r\n\r\n", Ok("OPTIONS * HTTP/1.0"));
    check(
        b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        Ok("OPTIONS * HTTP/1.1 host=a keep-alive"),
    );
    check(b"GET * HTTP/1.0\r\n\r\n", Err(BadTarget));
    check(b"OPTIONS *a HTTP/1.0\r\n\r\n", Err(BadTarget));
    check(b"TRACE /a HTTP/1.0\r\n\r\n", Ok("TRACE /a HTTP/1.0"));
}

#[test]
fn the_form_of_the_target_is_told() {
    for (line, form) in [
        ("GET /", TargetForm::Origin),
        (
            "GET http://a/",
            TargetForm::Absolute(forebay_http1::Scheme::Http),
        ),
        (
            "GET https://a/",
            TargetForm::Absolute(forebay_http1::Scheme::Https),
        ),
        ("CONNECT a:1", TargetForm::Authority),
        ("OPTIONS *", TargetForm::Asterisk),
    ] {
        let mut buf = BytesMut::from(format!("{line} HTTP/1.0\r\n\r\n").as_bytes());
        let mut head = RequestHead::new();
        HeadParser::new()
            .request(&mut buf, &Limits::default(), &mut head)
            .unwrap();
        assert_eq!(head.target_form(), form, "{line}");
    }
}

// --- Host --------------------------------------------------------------------------------------

#[test]
fn rfc9112_3_2_host() {
    let host = |value: &str, expected: Result<&str, HeadError>| {
        let input = format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
        let expected = expected.map(|more| format!("GET / HTTP/1.1 {more} keep-alive"));
        check(
            input.as_bytes(),
            expected.as_deref().map_err(|error| *error),
        );
    };
    host("a", Ok("host=a"));
    host("Example.COM", Ok("host=example.com"));
    host("a.b.", Ok("host=a.b."));
    host("a_b-c.d", Ok("host=a_b-c.d"));
    host("127.0.0.1:8080", Ok("host=127.0.0.1 port=8080"));
    host("[::1]", Ok("host=[::1]"));
    host("[2001:DB8::1]:8080", Ok("host=[2001:db8::1] port=8080"));
    host("a:", Ok("host=a"));
    host("a:0080", Ok("host=a port=80"));
    host("a:0", Ok("host=a port=0"));
    host(&"a".repeat(255), Ok(&format!("host={}", "a".repeat(255))));
    for bad in [
        "",
        ":80",
        "a b",
        "a,b",
        "a, a",
        "a/b",
        "a?b",
        "a@b",
        "a#b",
        "a\\b",
        "a%20b",
        "a;b",
        "a'b",
        "a\"b",
        "<a>",
        "a:x",
        "a:-1",
        "a:+1",
        "a:65536",
        "a:99999999999999999999",
        "a:80:80",
        "http://a",
        "[::1",
        "::1",
        "[a]",
        "[::1]a",
        "[::1%25eth0]",
        "[v1.a]",
        "[]",
        "\u{e9}",
        "a\tb",
        "*",
        &"a".repeat(256),
    ] {
        host(bad, Err(BadHost));
    }
    check(b"GET / HTTP/1.1\r\n\r\n", Err(MissingHost));
    check(b"GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", Err(MissingHost));
    check(
        b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        Err(SeveralHosts),
    );
    check(
        b"GET / HTTP/1.0\r\nHost: a\r\nHOST: b\r\n\r\n",
        Err(SeveralHosts),
    );
    check(b"GET / HTTP/1.0\r\nHost:\r\n\r\n", Err(BadHost));
}

// --- Fields ------------------------------------------------------------------------------------

#[test]
fn rfc9112_5_field_lines() {
    check_fields(
        "A:b\r\nA:\r\nA: \t \r\n!#$%&'*+-.^`|~: x\r\n",
        Ok(" keep-alive"),
    );
    check_fields(": a\r\n", Err(BadFieldName));
    check_fields("a\r\n", Err(BadFieldName));
    check_fields("a\r\nb: c\r\n", Err(BadFieldName));
    check_fields("a(b: c\r\n", Err(BadFieldName));
    check_fields("a\"b: c\r\n", Err(BadFieldName));
    check_fields("a\u{e9}b: c\r\n", Err(BadFieldName));
    check_fields("a\x7f: c\r\n", Err(BadFieldName));
}

#[test]
fn rfc9112_5_1_space_before_colon() {
    check_fields("Foo : a\r\n", Err(SpaceBeforeColon));
    check_fields("Foo\t: a\r\n", Err(SpaceBeforeColon));
    check_fields("Foo bar: a\r\n", Err(SpaceBeforeColon));
    check_fields("Content-Length : 3\r\n", Err(SpaceBeforeColon));
    check_fields("Transfer-Encoding : chunked\r\n", Err(SpaceBeforeColon));
}

#[test]
fn rfc9112_5_2_obs_fold() {
    check_fields("A: b\r\n c\r\n", Err(ObsFold));
    check_fields("A: b\r\n\tc\r\n", Err(ObsFold));
    check_fields(" A: b\r\n", Err(ObsFold));
    check_fields("A: b\r\n \r\n", Err(ObsFold));
    check(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(ObsFold));
}

#[test]
fn rfc9112_2_2_line_ends() {
    check(b"GET / HTTP/1.0\n\n", Err(BareLf));
    check(b"GET / HTTP/1.0\r\n\n", Err(BareLf));
    check(b"GET / HTTP/1.0\n\r\n", Err(BareLf));
    check(b"GET / HTTP/1.0\r\r\n", Err(BareCr));
    check(b"GET / HTTP/1.0\r\n\r\r\n", Err(BareCr));
    check_fields("A: b\nC: d\r\n", Err(BareLf));
    check_fields("A: b\rC: d\r\n", Err(BareCr));
    check_fields("A: b\r\r\n", Err(BareCr));
    check_fields("A\n: b\r\n", Err(BareLf));
    check_fields("A\r: b\r\n", Err(BareCr));
    check_fields("A:\n\r\n", Err(BareLf));
    check_fields("\nA: b\r\n", Err(BareLf));
}

#[test]
fn rfc9110_5_5_bytes_of_values() {
    check_fields("A: \u{e9}\u{80} \t~\"\\\r\n", Ok(" keep-alive"));
    check_fields("A: b\0c\r\n", Err(Nul));
    check_fields("A\0: b\r\n", Err(Nul));
    for bad in (1..=8).chain([0x0b, 0x0c]).chain(0x0e..=0x1f).chain([0x7f]) {
        let bad = char::from(bad);
        check_fields(&format!("A: b{bad}c\r\n"), Err(BadFieldValue));
    }
}

#[test]
fn fields_with_an_underscore_are_dropped_and_counted() {
    check_fields(
        "X_Forwarded_For: a\r\nContent_Length: 5\r\n_: a\r\n",
        Ok(" keep-alive dropped=3"),
    );
    let input = b"GET / HTTP/1.0\r\nA: 1\r\nB_C: 2\r\nD: 3\r\n\r\n";
    let found = every_split(input, |pieces| request_in(pieces, &Limits::default(), true));
    assert_eq!(
        found,
        Ok(Some("GET / HTTP/1.0 dropped=1A: 1\nD: 3\n".to_owned()))
    );
}

// --- Framing -----------------------------------------------------------------------------------

#[test]
fn rfc9110_8_6_content_length() {
    check_fields("Content-Length: 0\r\n", Ok(" Length(0) keep-alive"));
    check_fields("content-length:   42  \r\n", Ok(" Length(42) keep-alive"));
    check_fields("Content-Length: 007\r\n", Ok(" Length(7) keep-alive"));
    check_fields(
        "Content-Length: 9223372036854775807\r\n",
        Ok(" Length(9223372036854775807) keep-alive"),
    );
    for bad in [
        "",
        "+5",
        "-5",
        " +5",
        "5,",
        "5, 5",
        "5,5",
        "5 5",
        "0x5",
        "5a",
        "a5",
        "5.0",
        "1e3",
        "5;",
        "\"5\"",
        "0_5",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999999",
        "\u{664}",
        "5\t6",
    ] {
        check_fields(&format!("Content-Length: {bad}\r\n"), Err(BadContentLength));
    }
    check_fields(
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        Err(SeveralContentLengths),
    );
    check_fields(
        "Content-Length: 5\r\nContent-length: 6\r\n",
        Err(SeveralContentLengths),
    );
}

#[test]
fn rfc9112_6_1_transfer_encoding() {
    check_fields("Transfer-Encoding: chunked\r\n", Ok(" Chunked keep-alive"));
    check_fields(
        "transfer-encoding:\tCHUNKED \r\n",
        Ok(" Chunked keep-alive"),
    );
    for other in [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "xchunked",
        "chunkedx",
        "chunked;a=b",
        "\"chunked\"",
        "chunked\u{a0}",
        "chun ked",
        "identity, chunked",
    ] {
        check_fields(
            &format!("Transfer-Encoding: {other}\r\n"),
            Err(UnsupportedTransferEncoding),
        );
    }
    check_fields(
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        Err(UnsupportedTransferEncoding),
    );
    check_fields(
        "Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n",
        Err(UnsupportedTransferEncoding),
    );
    check(
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        Err(TransferEncodingInHttp10),
    );
}

#[test]
fn rfc9112_6_1_both_framings() {
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    check_fields(both, Err(LengthAndTransferEncoding));
    check_fields(
        "Transfer-Encoding: x\r\nContent-Length: 0\r\n",
        Err(LengthAndTransferEncoding),
    );
    check_fields(
        "Transfer-Encoding: chunked\r\nContent-Length: \r\n",
        Err(LengthAndTransferEncoding),
    );
    let http10 = format!("POST / HTTP/1.0\r\n{both}\r\n");
    check(http10.as_bytes(), Err(LengthAndTransferEncoding));
}

// --- Connection, Expect, Upgrade ---------------------------------------------------------------

#[test]
fn rfc9112_9_3_persistence() {
    check_fields("Connection: close\r\n", Ok(""));
    check_fields("Connection: Close\r\n", Ok(""));
    check_fields("Connection: keep-alive, CLOSE\r\n", Ok(""));
    check_fields("Connection: x\r\nConnection: close\r\n", Ok(""));
    check_fields("Connection: closed\r\n", Ok(" keep-alive"));
    check_fields("Connection: \"close\"\r\n", Ok(" keep-alive"));
    check_fields("Proxy-Connection: close\r\n", Ok(" keep-alive"));
    check(
        b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        Ok("GET / HTTP/1.0 keep-alive"),
    );
    check(
        b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        Ok("GET / HTTP/1.0"),
    );
}

#[test]
fn rfc9110_7_6_1_connection_must_not_name_what_all_must_see() {
    for name in [
        "Host",
        "Content-Length",
        "content-type",
        "Content-Foo",
        "Authorization",
        "COOKIE",
        "Forwarded",
        "X-Forwarded-For",
        "X-Real-IP",
        "Transfer-Encoding",
    ] {
        check_fields(
            &format!("Connection: {name}\r\n"),
            Err(ConnectionNamesField),
        );
        check_fields(
            &format!("Connection: close, te , {name}\r\n"),
            Err(ConnectionNamesField),
        );
        check_fields(
            &format!("Connection: a\r\nConnection: {name}\r\n"),
            Err(ConnectionNamesField),
        );
    }
    check_fields(
        "Connection: TE, X-Foo, Upgrade, Keep-Alive\r\n",
        Ok(" keep-alive"),
    );
    let many = |count| format!("Connection: {}\r\n", vec!["a"; count].join(","));
    check_fields(&many(32), Ok(" keep-alive"));
    check_fields(&many(33), Err(TooManyConnectionOptions));
}

#[test]
fn rfc9110_7_8_upgrade() {
    check_fields(
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        Ok(" keep-alive upgrade"),
    );
    check_fields("Upgrade: websocket\r\n", Ok(" keep-alive"));
    check_fields("Connection: upgrade\r\n", Ok(" keep-alive"));
    check(
        b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        Ok("GET / HTTP/1.0"),
    );
}

#[test]
fn rfc9110_10_1_1_expect() {
    check_fields(
        "Expect: 100-continue\r\nContent-Length: 5\r\n",
        Ok(" Length(5) keep-alive expect"),
    );
    check_fields(
        "Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n",
        Ok(" Chunked keep-alive expect"),
    );
    check_fields("Expect: 100-continue\r\n", Ok(" keep-alive"));
    check_fields(
        "Expect: 100-continue\r\nContent-Length: 0\r\n",
        Ok(" Length(0) keep-alive"),
    );
    check_fields(
        "Expect: x\r\nContent-Length: 5\r\n",
        Ok(" Length(5) keep-alive"),
    );
    check(
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        Ok("POST / HTTP/1.0 Length(5)"),
    );
}

// --- Limits ------------------------------------------------------------------------------------

const SMALL: Limits = Limits {
    max_request_line: 40,
    max_header: 60,
    max_fields: 3,
};

#[track_caller]
fn check_limits(input: &str, expected: Result<&str, HeadError>) {
    let found = every_split(input.as_bytes(), |pieces| request_in(pieces, &SMALL, false));
    assert_eq!(found, expected.map(|text| Some(text.to_owned())), "{input}");
}

#[test]
fn rfc9112_3_request_line_too_long() {
    let line = |len: usize| format!("GET /{} HTTP/1.0\r\n", "a".repeat(len - 16));
    let fits = line(40);
    assert_eq!(fits.len(), 40);
    check_limits(&(fits.clone() + "\r\n"), Ok(fits.trim_end()));
    check_limits(&(line(41) + "\r\n"), Err(RequestLineTooLong));
    // Known before the line ends, and before anything that is wrong behind the limit.
    check_limits(&format!("GET /{}", "a".repeat(36)), Err(RequestLineTooLong));
    check_limits(
        &format!("GET /{}\n", "a".repeat(35)),
        Err(RequestLineTooLong),
    );
    check_limits(&format!("GET /{}\n", "a".repeat(34)), Err(BareLf));
}

#[test]
fn rfc6585_5_head_too_large() {
    let head = |len: usize| format!("GET / HTTP/1.0\r\nA: {}\r\n", "b".repeat(len - 5));
    check_limits(&(head(60) + "\r\n"), Ok("GET / HTTP/1.0"));
    check_limits(&(head(61) + "\r\n"), Err(HeadTooLarge));
    check_limits(
        &format!("GET / HTTP/1.0\r\nA: {}", "b".repeat(58)),
        Err(HeadTooLarge),
    );
    check_limits(&(head(60) + "B"), Err(HeadTooLarge));
    check_limits(
        &format!("GET / HTTP/1.0\r\n{}", "b".repeat(61)),
        Err(HeadTooLarge),
    );
}

#[test]
fn rfc6585_5_too_many_fields() {
    let head = |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(count));
    check_limits(&head(3), Ok("GET / HTTP/1.0"));
    check_limits(&head(4), Err(TooManyFields));
    check_limits(
        "GET / HTTP/1.0\r\nA:\r\nB_:\r\nC:\r\nD_:\r\n\r\n",
        Err(TooManyFields),
    );
}

#[test]
fn the_default_limits() {
    let run = |input: &str| {
        some_splits(input.as_bytes(), |pieces| {
            request_in(pieces, &Limits::default(), false)
        })
    };
    // 200 KB of a request line get their 414 although its end never came.
    assert_eq!(
        run(&format!("GET /{}", "a".repeat(200_000))),
        Err(RequestLineTooLong)
    );
    assert_eq!(
        run(&format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(200_000))),
        Err(HeadTooLarge)
    );
    assert_eq!(
        run(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101))),
        Err(TooManyFields)
    );
    let most = "A: b\r\n".repeat(99);
    let found = run(&format!("GET / HTTP/1.1\r\nHost: a\r\n{most}\r\n"));
    assert_eq!(
        found,
        Ok(Some("GET / HTTP/1.1 host=a keep-alive".to_owned()))
    );
}

// --- The parser itself -------------------------------------------------------------------------

#[test]
fn pipelined_requests_come_one_by_one_and_the_head_is_reused() {
    let mut buf =
        BytesMut::from(b"POST /1 HTTP/1.1\r\nHost: A\r\nContent-Length: 1\r\n\r\n".as_slice());
    buf.extend_from_slice(b"GET http://b HTTP/1.1\r\nHost: b\r\nX_Y: z\r\n\r\nGET /3");
    let (mut parser, mut head, limits) = (HeadParser::new(), RequestHead::new(), Limits::default());
    assert_eq!(
        parser.request(&mut buf, &limits, &mut head),
        Ok(Progress::Complete)
    );
    assert_eq!(
        crate::common::show_request(&head, &[]),
        "POST /1 HTTP/1.1 host=a Length(1) keep-alive"
    );
    assert_eq!(
        parser.request(&mut buf, &limits, &mut head),
        Ok(Progress::Complete)
    );
    assert_eq!(
        crate::common::show_request(&head, &[]),
        "GET / HTTP/1.1 host=b keep-alive dropped=1"
    );
    assert_eq!(
        parser.request(&mut buf, &limits, &mut head),
        Ok(Progress::Partial)
    );
    assert_eq!(&buf[..], b"GET /3");
    assert!(!parser.is_idle(&buf));
    assert!(HeadParser::new().is_idle(b"\r"));
}

#[test]
fn the_received_block_is_kept_byte_for_byte() {
    let fields = b"host:a\r\nX-ODD:   b \t\r\nACCEPT:*/*\r\n";
    let mut buf = BytesMut::from(
        [b"GET / HTTP/1.1\r\n", fields.as_slice(), b"\r\n"]
            .concat()
            .as_slice(),
    );
    let whole = buf.clone();
    let mut head = RequestHead::new();
    HeadParser::new()
        .request(&mut buf, &Limits::default(), &mut head)
        .unwrap();
    let mut out = Vec::new();
    head.fields.write_to(&mut out);
    assert_eq!(out, fields);
    assert_eq!(head.received(), &whole);
}

#[test]
fn every_reason_has_a_name_and_a_status_of_its_kind() {
    let mut names: Vec<_> = HeadError::ALL.iter().map(|error| error.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), HeadError::ALL.len());
    for error in HeadError::ALL {
        assert!(
            matches!(error.status(), 400 | 414 | 431 | 501 | 505),
            "{error:?}"
        );
        assert!(
            !error.sentence().is_empty() && !error.sentence().ends_with('.'),
            "{error:?}"
        );
    }
}

#[test]
fn a_trickled_head_costs_linear_work() {
    // With work that grows with the square this would take minutes, not milliseconds.
    let mut input = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    while input.len() < 60_000 {
        input.extend_from_slice(b"X-Filler: ");
        input.extend_from_slice(&[b'a'; 1000]);
        input.extend_from_slice(b"\r\n");
    }
    input.extend_from_slice(b"\r\n");
    let pieces: Vec<&[u8]> = input.chunks(1).collect();
    let found = request_in(&pieces, &Limits::default(), false);
    assert_eq!(
        found,
        Ok(Some("GET / HTTP/1.1 host=a keep-alive".to_owned()))
    );
}
