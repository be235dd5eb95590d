//! Feeds a codec in every way and puts what comes out into one comparable text.

use bytes::BytesMut;
use forebay_http1::{
    BodyDecoder, BodyError, Framing, HeadError, HeadParser, Limits, Method, Part, Progress,
    RequestHead, ResponseHead,
};

/// What a request's head is, in one line, with the bytes that were left behind it.
pub(crate) fn show_request(head: &RequestHead, rest: &[u8]) -> String {
    let mut text = format!(
        "{} {} {}",
        head.method,
        head.target(),
        head.version.as_str()
    );
    let path_len = head.target().find('?').unwrap_or(head.target().len());
    assert_eq!(head.path_len(), path_len, "{}", head.target());
    if let Some(host) = head.host() {
        text += &format!(" host={host}");
    }
    if let Some(port) = head.port() {
        text += &format!(" port={port}");
    }
    let flags = [
        (head.framing != Framing::None, format!("{:?}", head.framing)),
        (head.keep_alive, "keep-alive".to_owned()),
        (head.expect_continue, "expect".to_owned()),
        (head.upgrade, "upgrade".to_owned()),
        (
            head.dropped_fields > 0,
            format!("dropped={}", head.dropped_fields),
        ),
        (!rest.is_empty(), format!("rest={}", rest.escape_ascii())),
    ];
    for (_, flag) in flags.iter().filter(|(on, _)| *on) {
        text = text + " " + flag;
    }
    text
}

/// The fields as text, one per line.
pub(crate) fn show_fields(fields: &forebay_fields::Fields) -> String {
    fields.iter().map(|field| format!("{field:?}\n")).collect()
}

/// What a response's head is, in one line, with the bytes that were left behind it.
pub(crate) fn show_response(head: &ResponseHead, rest: &[u8]) -> String {
    let mut text = format!(
        "{} {} {} {:?}",
        head.version.as_str(),
        head.status,
        head.reason().escape_ascii(),
        head.framing
    );
    let flags = [
        (
            head.content_length.is_some(),
            format!("length={:?}", head.content_length),
        ),
        (head.keep_alive, "keep-alive".to_owned()),
        (head.upgrade, "upgrade".to_owned()),
        (head.is_interim(), "interim".to_owned()),
        (!rest.is_empty(), format!("rest={}", rest.escape_ascii())),
    ];
    for (_, flag) in flags.iter().filter(|(on, _)| *on) {
        text = text + " " + flag;
    }
    text
}

/// `Ok(None)`: more bytes are needed.
pub(crate) type Parsed = Result<Option<String>, HeadError>;

/// Parses a request that arrives in these pieces.
pub(crate) fn request_in(pieces: &[&[u8]], limits: &Limits, with_fields: bool) -> Parsed {
    let mut parser = HeadParser::new();
    let mut head = RequestHead::new();
    let mut buf = BytesMut::new();
    let mut pieces = pieces.iter();
    while let Some(piece) = pieces.next() {
        buf.extend_from_slice(piece);
        if parser.request(&mut buf, limits, &mut head)? == Progress::Complete {
            pieces
                .by_ref()
                .for_each(|piece| buf.extend_from_slice(piece));
            let fields = if with_fields {
                show_fields(&head.fields)
            } else {
                String::new()
            };
            return Ok(Some(show_request(&head, &buf) + &fields));
        }
    }
    Ok(None)
}

/// Parses a response that arrives in these pieces.
pub(crate) fn response_in(pieces: &[&[u8]], limits: &Limits, method: &Method) -> Parsed {
    let mut parser = HeadParser::new();
    let mut head = ResponseHead::new();
    let mut buf = BytesMut::new();
    let mut pieces = pieces.iter();
    while let Some(piece) = pieces.next() {
        buf.extend_from_slice(piece);
        if parser.response(&mut buf, limits, method, &mut head)? == Progress::Complete {
            pieces
                .by_ref()
                .for_each(|piece| buf.extend_from_slice(piece));
            return Ok(Some(show_response(&head, &buf)));
        }
    }
    Ok(None)
}

/// A body, whether it has ended, its trailers, and what was left; the data before an error too.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) data: Vec<u8>,
    pub(crate) end: Result<bool, BodyError>,
    pub(crate) trailers: String,
    pub(crate) rest: Vec<u8>,
}

/// Decodes a body that arrives in these pieces.
pub(crate) fn body_in(pieces: &[&[u8]], framing: Framing, limits: &Limits) -> Body {
    let mut decoder = BodyDecoder::new(framing, limits);
    let mut buf = BytesMut::new();
    let mut body = Body {
        data: vec![],
        end: Ok(false),
        trailers: String::new(),
        rest: vec![],
    };
    // At least once: a body may have ended before any byte of it came.
    for piece in [b"".as_slice()].iter().chain(pieces) {
        buf.extend_from_slice(piece);
        while body.end == Ok(false) {
            match decoder.decode(&mut buf) {
                Ok(Part::Data(data)) => {
                    assert!(!data.is_empty());
                    body.data.extend_from_slice(&data);
                }
                Ok(Part::NeedMore) => break,
                Ok(Part::End) => body.end = Ok(true),
                Err(error) => body.end = Err(error),
            }
        }
    }
    if body.end.is_ok() {
        body.rest.extend_from_slice(&buf);
    }
    body.trailers = decoder.trailers().map(show_fields).unwrap_or_default();
    body
}

/// Calls `same` with the input in one piece, in two pieces at every place, byte by byte, and
/// with an empty read between.
pub(crate) fn every_split<T: PartialEq + std::fmt::Debug>(
    input: &[u8],
    run: impl Fn(&[&[u8]]) -> T,
) -> T {
    let whole = run(&[input]);
    for at in 0..=input.len() {
        let (start, end) = input.split_at(at);
        let split = run(&[start, end]);
        assert_eq!(
            split,
            whole,
            "cut at {at}: {} | {}",
            start.escape_ascii(),
            end.escape_ascii()
        );
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(run(&bytes), whole, "byte by byte: {}", input.escape_ascii());
    whole
}

/// The chunk sizes 1, 2, 3, 5, … for inputs too long to be cut at every place.
pub(crate) fn some_splits<T: PartialEq + std::fmt::Debug>(
    input: &[u8],
    run: impl Fn(&[&[u8]]) -> T,
) -> T {
    let whole = run(&[input]);
    for size in [1, 2, 3, 7, 100, 511, 512, 513, 1000, 4096, 16_384, 65_536] {
        let pieces: Vec<&[u8]> = input.chunks(size).collect();
        assert_eq!(run(&pieces), whole, "in pieces of {size}");
    }
    whole
}
