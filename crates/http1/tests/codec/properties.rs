//! What holds for any input: cuts do not matter, what was written is read back, and the two
//! readers of heads (and `httparse`, as a third opinion) agree.

use bytes::BytesMut;
use forebay_fields::Fields;
use forebay_http1::{
    Framing, HeadParser, Limits, Method, Progress, RequestHead, ResponseHead, Version, write_chunk,
    write_last_chunk, write_request_line, write_status_line,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::{body_in, request_in, response_in};

/// Bytes that look like a head, with mistakes here and there.
fn heads(start: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let line_end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("")];
    let name = prop_oneof![
        4 => "[A-Za-z-]{1,12}",
        2 => Just("Content-Length".to_owned()),
        2 => Just("Transfer-Encoding".to_owned()),
        2 => Just("Connection".to_owned()),
        3 => Just("Host".to_owned()),
        1 => "[ -~]{0,8}",
        1 => "[A-Z_]{1,5}",
    ];
    let value = prop_oneof![
        4 => "[ -~\t]{0,20}",
        2 => "[0-9]{1,21}",
        1 => Just("chunked".to_owned()),
        1 => Just("close".to_owned()),
        1 => Just("a".to_owned()),
        1 => "[\0-\u{ff}]{0,3}",
    ];
    let colon = prop_oneof![20 => Just(": "), 3 => Just(":"), 1 => Just(" :"), 1 => Just("")];
    let line = (name, colon, value, line_end.clone()).prop_map(|(n, c, v, e)| n + c + &v + e);
    (
        prop::sample::select(start),
        line_end.clone(),
        vec(line, 0..6),
        line_end,
        "[\0-\u{ff}]{0,4}",
    )
        .prop_map(|(start, first, lines, last, rest)| {
            (start.to_owned() + first + &lines.concat() + last + &rest).into_bytes()
        })
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    heads(&[
        "GET / HTTP/1.1",
        "GET / HTTP/1.0",
        "POST /a?b HTTP/1.1",
        "GET http://a/ HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET / HTTP/2.0",
        "GET  / HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "\r\nGET / HTTP/1.1",
        "",
    ])
}

fn responses() -> impl Strategy<Value = Vec<u8>> {
    heads(&[
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 204",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 100 ",
        "HTTP/1.1 20 OK",
        "",
    ])
}

fn chunks() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => "[a-z]{1,20}".prop_map(|data| format!("{:x}\r\n{data}\r\n", data.len())),
        1 => "[a-z]{1,20}".prop_map(|data| format!("{:x};a=b\r\n{data}\r\n", data.len())),
        3 => Just("0\r\n\r\n".to_owned()),
        1 => Just("0\r\nA: b\r\nHost: c\r\n\r\n".to_owned()),
        1 => "[0-9a-f;\r\n ]{0,6}",
    ];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes())
}

/// The input cut at these places.
fn cut<'a>(input: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places
        .iter()
        .map(|place| place.index(input.len() + 1))
        .collect();
    places.push(input.len());
    places.sort_unstable();
    let mut start = 0;
    places
        .iter()
        .map(|&end| {
            let piece = &input[start..end];
            start = end;
            piece
        })
        .collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    vec(any::<prop::sample::Index>(), 0..8)
}

const SMALL: Limits = Limits {
    max_request_line: 24,
    max_header: 64,
    max_fields: 4,
};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn cuts_do_not_matter_to_requests(input in requests(), cuts in cuts()) {
        for limits in [Limits::default(), SMALL] {
            let whole = request_in(&[&input], &limits, true);
            prop_assert_eq!(request_in(&cut(&input, &cuts), &limits, true), whole.clone());
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            prop_assert_eq!(request_in(&bytes, &limits, true), whole);
        }
    }

    #[test]
    fn cuts_do_not_matter_to_responses(input in responses(), cuts in cuts()) {
        for limits in [Limits::default(), SMALL] {
            let whole = response_in(&[&input], &limits, &Method::Get);
            prop_assert_eq!(response_in(&cut(&input, &cuts), &limits, &Method::Get), whole.clone());
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            prop_assert_eq!(response_in(&bytes, &limits, &Method::Get), whole);
        }
    }

    #[test]
    fn cuts_do_not_matter_to_bodies(input in chunks(), cuts in cuts()) {
        for framing in [Framing::Chunked, Framing::Length(9), Framing::UntilClose, Framing::None] {
            for limits in [Limits::default(), SMALL] {
                let whole = body_in(&[&input], framing, &limits);
                prop_assert_eq!(&body_in(&cut(&input, &cuts), framing, &limits), &whole);
                let bytes: Vec<&[u8]> = input.chunks(1).collect();
                prop_assert_eq!(body_in(&bytes, framing, &limits), whole);
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(input in vec(any::<u8>(), 0..200), cuts in cuts()) {
        let limits = Limits::default();
        let pieces = cut(&input, &cuts);
        prop_assert_eq!(request_in(&pieces, &limits, true), request_in(&[&input], &limits, true));
        prop_assert_eq!(
            response_in(&pieces, &limits, &Method::Get),
            response_in(&[&input], &limits, &Method::Get)
        );
        prop_assert_eq!(
            body_in(&pieces, Framing::Chunked, &limits),
            body_in(&[&input], Framing::Chunked, &limits)
        );
    }

    /// Whatever is accepted here, `httparse` reads in the same way.
    #[test]
    fn httparse_agrees_with_what_is_accepted(input in requests()) {
        let mut buf = BytesMut::from(input.as_slice());
        let mut head = RequestHead::new();
        let parsed = HeadParser::new().request(&mut buf, &Limits::default(), &mut head);
        if parsed == Ok(Progress::Complete) {
            let mut room = [httparse::EMPTY_HEADER; 100];
            let mut theirs = httparse::Request::new(&mut room);
            let end = theirs.parse(head.received()).unwrap();
            prop_assert_eq!(end, httparse::Status::Complete(head.received().len()));
            prop_assert_eq!(theirs.method.unwrap(), head.method.as_str());
            let ours: Vec<_> = head.fields.iter().map(|f| (f.name, f.value)).collect();
            let theirs: Vec<_> = theirs
                .headers
                .iter()
                .map(|header| (header.name.as_bytes(), header.value))
                .filter(|(name, _)| !name.contains(&b'_'))
                .collect();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_request_that_was_written_is_read_back(
        method in "[A-Z]{1,23}",
        target in "/[!-\"$-~]{0,30}",
        fields in vec(("[A-Za-z-]{1,20}x", "[!-~\u{e9}]([ -~\t]{0,20}[!-~])?"), 0..20),
    ) {
        let method = Method::new(method.as_bytes()).unwrap();
        prop_assume!(method != Method::Connect);
        let mut written = Fields::new();
        for (name, value) in &fields {
            written.append(name.as_str(), value).unwrap();
        }
        let mut out = Vec::new();
        prop_assert!(write_request_line(&mut out, &method, target.as_bytes(), Version::Http10));
        written.write_to(&mut out);
        out.extend_from_slice(b"\r\n");

        let mut buf = BytesMut::from(out.as_slice());
        let mut head = RequestHead::new();
        let parsed = HeadParser::new().request(&mut buf, &Limits::default(), &mut head);
        prop_assert_eq!(parsed, Ok(Progress::Complete));
        prop_assert_eq!(head.method, method);
        prop_assert_eq!(head.target(), target);
        prop_assert!(head.fields.iter().eq(written.iter()));
    }

    #[test]
    fn a_response_that_was_written_is_read_back(
        status in 100..=999_u16,
        reason in proptest::option::of("[ -~\u{e9}]{0,20}"),
    ) {
        let mut out = Vec::new();
        write_status_line(&mut out, status, reason.as_ref().map(String::as_bytes));
        out.extend_from_slice(b"\r\n");
        let mut buf = BytesMut::from(out.as_slice());
        let mut head = ResponseHead::new();
        let parsed =
            HeadParser::new().response(&mut buf, &Limits::default(), &Method::Get, &mut head);
        prop_assert_eq!(parsed, Ok(Progress::Complete));
        prop_assert_eq!(head.status, status);
        let known = forebay_http1::reason_phrase(status);
        prop_assert_eq!(head.reason(), reason.as_deref().unwrap_or(known).as_bytes());
    }

    #[test]
    fn chunks_that_were_written_are_read_back(
        parts in vec(vec(any::<u8>(), 0..300), 0..10),
        sum in proptest::option::of("[a-z]{1,9}"),
        cuts in cuts(),
    ) {
        let mut trailers = Fields::new();
        if let Some(sum) = &sum {
            trailers.append("X-Sum", sum).unwrap();
        }
        let mut out = Vec::new();
        for part in &parts {
            write_chunk(&mut out, part);
        }
        write_last_chunk(&mut out, &trailers);
        let body = body_in(&cut(&out, &cuts), Framing::Chunked, &Limits::default());
        prop_assert_eq!(body.end, Ok(true));
        prop_assert_eq!(body.data, parts.concat());
        prop_assert_eq!(body.trailers, sum.map(|s| format!("X-Sum: {s}\n")).unwrap_or_default());
    }
}
