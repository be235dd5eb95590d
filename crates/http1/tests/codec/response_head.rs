//! Response heads, rule by rule. Each input is fed whole, cut at every place and byte by byte.

use bytes::BytesMut;
use forebay_fields::Known;
use forebay_http1::{HeadError, HeadParser, Limits, Method, ResponseHead};

use crate::common::{every_split, response_in, show_fields, some_splits};

use HeadError::{
    BadContentLength, BadFieldName, BadFieldValue, BareCr, BareLf, HeadTooLarge,
    LengthAndTransferEncoding, MalformedStatusLine, Nul, ObsFold, SeveralContentLengths,
    TooManyFields, TransferEncodingInHttp10, UnsupportedTransferEncoding, UnsupportedVersion,
};

/// `Ok("")` stands for a head that is not complete.
#[track_caller]
fn check_as(method: Method, input: &[u8], expected: Result<&str, HeadError>) {
    let found = every_split(input, |pieces| {
        response_in(pieces, &Limits::default(), &method)
    });
    let expected = expected.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
    assert_eq!(found, expected, "{}", input.escape_ascii());
}

#[track_caller]
fn check(input: &str, expected: Result<&str, HeadError>) {
    check_as(Method::Get, input.as_bytes(), expected);
}

fn parse(input: &str) -> ResponseHead {
    let mut head = ResponseHead::new();
    let mut buf = BytesMut::from(input.as_bytes());
    HeadParser::new()
        .response(&mut buf, &Limits::default(), &Method::Get, &mut head)
        .unwrap();
    head
}

#[test]
fn rfc9112_4_status_line() {
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Ok("HTTP/1.1 200 OK Length(5) length=Some(5) keep-alive rest=hello"),
    );
    check(
        "HTTP/1.1 204 No Content\r\n\r\n",
        Ok("HTTP/1.1 204 No Content None keep-alive"),
    );
    check("HTTP/1.1 204 \r\n\r\n", Ok("HTTP/1.1 204  None keep-alive"));
    check("HTTP/1.1 204\r\n\r\n", Ok("HTTP/1.1 204  None keep-alive"));
    check(
        "HTTP/1.1 204 a\tb\u{e9}\r\n\r\n",
        Ok("HTTP/1.1 204 a\\tb\\xc3\\xa9 None keep-alive"),
    );
    check("HTTP/1.1 999 x\r\n\r\n", Ok("HTTP/1.1 999 x UntilClose"));
    check("HTTP/1.1 20", Ok(""));
    for bad in [
        "garbage\r\n",
        "<html>",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        " HTTP/1.1 200 OK\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 099 OK\r\n",
        "HTTP/1.1 -20 OK\r\n",
        "HTTP/1.1 200OK\r\n",
        "HTTP/1.1 2x0 OK\r\n",
        "http/1.1 200 OK\r\n",
        "HTTP/1.1\t200 OK\r\n",
        "HTTP/1.1 200 a\x01b\r\n",
        "HTTP/1.1\r\n",
        "HTTP/1 200 OK\r\n",
        "\u{0}",
    ] {
        let expected = if bad == "\u{0}" {
            Nul
        } else {
            MalformedStatusLine
        };
        check(bad, Err(expected));
    }
    check("HTTP/2.0 200 OK\r\n", Err(UnsupportedVersion));
    check("HTTP/0.9 200 OK\r\n", Err(UnsupportedVersion));
    check("ICY 200 OK\r\n", Err(MalformedStatusLine));
}

#[test]
fn rfc9112_2_2_line_ends() {
    check("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Err(BareLf));
    check("HTTP/1.1 200\n", Err(BareLf));
    check("HTTP/1.1 200 OK\rA: b\r\n\r\n", Err(BareCr));
    check("HTTP/1.1 200 OK\r\nA: b\n\r\n", Err(BareLf));
    check("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", Err(BareCr));
    check("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", Err(Nul));
    check("HTTP/1.1 200 OK\r\nA: b\x01c\r\n\r\n", Err(BadFieldValue));
    check("HTTP/1.1 200 OK\r\nA\r\n\r\n", Err(BadFieldName));
    check("HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", Err(BadFieldName));
}

#[test]
fn rfc9112_5_2_obs_fold() {
    check("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Err(ObsFold));
    check("HTTP/1.1 200 OK\r\n\tA: b\r\n\r\n", Err(ObsFold));
}

#[test]
fn rfc9112_5_1_space_before_the_colon_is_removed() {
    let input = "HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length \t:  0\r\nFoo : bar \r\nB: 2\r\n\r\n";
    check(
        input,
        Ok("HTTP/1.1 200 OK Length(0) length=Some(0) keep-alive"),
    );
    let head = parse(input);
    assert_eq!(
        show_fields(&head.fields),
        "A: 1\nContent-Length: 0\nFoo: bar\nB: 2\n"
    );
    let mut out = Vec::new();
    head.fields.write_to(&mut out);
    assert_eq!(
        out.escape_ascii().to_string(),
        "A: 1\\r\\nContent-Length: 0\\r\\nFoo: bar\\r\\nB: 2\\r\\n"
    );
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length : 6\r\n\r\n",
        Err(SeveralContentLengths),
    );
}

#[test]
fn rfc9112_6_3_framing() {
    let ok = |lines: &str, expected: &str| {
        let input = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        check(&input, Ok(&format!("HTTP/1.1 200 OK {expected}")));
    };
    ok("", "UntilClose");
    ok("Connection: close\r\n", "UntilClose");
    ok(
        "Content-Length: 0\r\n",
        "Length(0) length=Some(0) keep-alive",
    );
    ok(
        "Content-Length: 5\r\nConnection: close\r\n",
        "Length(5) length=Some(5)",
    );
    ok("Transfer-Encoding: Chunked\r\n", "Chunked keep-alive");
    let refused = |lines: &str, expected: HeadError| {
        check(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"), Err(expected));
    };
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    refused(both, LengthAndTransferEncoding);
    refused("Transfer-Encoding: gzip\r\n", UnsupportedTransferEncoding);
    refused(
        "Transfer-Encoding: gzip, chunked\r\n",
        UnsupportedTransferEncoding,
    );
    refused(
        "Transfer-Encoding: identity\r\n",
        UnsupportedTransferEncoding,
    );
    refused(
        &"Transfer-Encoding: chunked\r\n".repeat(2),
        UnsupportedTransferEncoding,
    );
    refused("Content-Length: x\r\n", BadContentLength);
    refused("Content-Length: 5, 5\r\n", BadContentLength);
    refused("Content-Length: -1\r\n", BadContentLength);
    refused(
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        SeveralContentLengths,
    );
    refused(
        "Content-Length: 5\r\nContent-Length: x\r\n",
        BadContentLength,
    );
    check(
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        Err(TransferEncodingInHttp10),
    );
    // Even where there is no body: whoever stands between might read one.
    check_as(
        Method::Head,
        format!("HTTP/1.1 200 OK\r\n{both}\r\n").as_bytes(),
        Err(LengthAndTransferEncoding),
    );
}

#[test]
fn rfc9110_8_6_equal_lengths_become_one() {
    let input = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\nContent-Length: 05\r\n\r\n";
    check(
        input,
        Ok("HTTP/1.1 200 OK Length(5) length=Some(5) keep-alive"),
    );
    assert_eq!(
        show_fields(&parse(input).fields),
        "Content-Length: 5\nA: b\n"
    );
}

#[test]
fn rfc9112_6_3_responses_without_a_body() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    check_as(
        Method::Head,
        head,
        Ok("HTTP/1.1 200 OK None length=Some(5) keep-alive"),
    );
    check_as(
        Method::Connect,
        head,
        Ok("HTTP/1.1 200 OK None length=Some(5) keep-alive"),
    );
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_as(Method::Head, chunked, Ok("HTTP/1.1 200 OK None keep-alive"));
    check(
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        Ok("HTTP/1.1 304 Not Modified None length=Some(5) keep-alive"),
    );
    check(
        "HTTP/1.1 103 x\r\nLink: a\r\n\r\n",
        Ok("HTTP/1.1 103 x None keep-alive interim"),
    );
    check(
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x01",
        Ok("HTTP/1.1 101 x None keep-alive upgrade rest=\\x01"),
    );
}

#[test]
fn rfc9110_8_6_no_length_with_1xx_and_204() {
    for status in [100, 103, 204] {
        let head = parse(&format!(
            "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nA: b\r\n\r\n"
        ));
        assert!(!head.fields.contains(Known::ContentLength), "{status}");
        assert_eq!(head.content_length, None);
    }
}

#[test]
fn rfc9112_9_3_persistence() {
    let length = "Content-Length: 0\r\n";
    let shown = "Length(0) length=Some(0)";
    for (version, connection, keep) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        (
            "1.0",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
        ),
    ] {
        let input = format!("HTTP/{version} 200 OK\r\n{length}{connection}\r\n");
        let keep = if keep { " keep-alive" } else { "" };
        check(&input, Ok(&format!("HTTP/{version} 200 OK {shown}{keep}")));
    }
}

#[test]
fn fields_with_an_underscore_are_the_origin_s_own_business() {
    let head = parse("HTTP/1.1 200 OK\r\nX_A: b\r\n\r\n");
    assert_eq!(show_fields(&head.fields), "X_A: b\n");
}

#[test]
fn limits() {
    let limits = Limits {
        max_request_line: 20,
        max_header: 30,
        max_fields: 2,
    };
    let run = |input: &str| {
        every_split(input.as_bytes(), |pieces| {
            response_in(pieces, &limits, &Method::Head)
        })
    };
    assert!(run("HTTP/1.1 200 12345\r\n\r\n").is_ok_and(|head| head.is_some()));
    assert_eq!(run("HTTP/1.1 200 123456\r\n\r\n"), Err(HeadTooLarge));
    assert_eq!(run("HTTP/1.1 200 12345678"), Err(HeadTooLarge));
    assert_eq!(
        run("HTTP/1.1 200 \r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n\r\n"),
        Err(HeadTooLarge)
    );
    assert_eq!(
        run("HTTP/1.1 200 \r\nA:b\r\nA:b\r\nA:b\r\n\r\n"),
        Err(TooManyFields)
    );
    let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(200_000));
    let run = |pieces: &[&[u8]]| response_in(pieces, &Limits::default(), &Method::Get);
    assert_eq!(some_splits(long.as_bytes(), run), Err(HeadTooLarge));
}
