//! Chunked bodies: cuts do not matter, nor whether data are taken off in place; what is accepted
//! is the same when it is written and read again.
#![no_main]

use bytes::{Buf, BytesMut};
use forebay_fields::KnownSet;
use forebay_fuzz::{check_fields, pairs, same_however_it_arrives};
use forebay_http1::{
    BodyDecoder, BodyError, Framing, Limits, Part, Step, write_chunk, write_last_chunk,
};
use libfuzzer_sys::fuzz_target;

/// Small enough to be passed by a short input.
const SMALL: Limits = Limits {
    max_request_line: 0,
    max_header: 48,
    max_fields: 3,
};

fuzz_target!(|input: &[u8]| {
    for limits in [Limits::default(), SMALL] {
        let body = same_however_it_arrives(input, |pieces| decode(pieces, &limits));
        assert_eq!(poll(input, &limits), body.data);
    }
    let body = decode(&[input], &Limits::default());
    if body.end == Ok(true) {
        assert!(input.ends_with(&body.rest));
        check_again(input, &body);
    }
});

#[derive(Debug, PartialEq)]
struct Body {
    data: Vec<u8>,
    end: Result<bool, BodyError>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    rest: Vec<u8>,
}

fn decode(pieces: &[&[u8]], limits: &Limits) -> Body {
    let mut decoder = BodyDecoder::new(Framing::Chunked, limits);
    let mut buf = BytesMut::new();
    let mut body = Body {
        data: vec![],
        end: Ok(false),
        trailers: vec![],
        rest: vec![],
    };
    for piece in pieces {
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
    if body.end == Ok(true) {
        body.rest = buf.to_vec();
        if let Some(trailers) = decoder.trailers() {
            check_fields(trailers);
            assert!(
                !trailers
                    .present()
                    .intersects(KnownSet::FORBIDDEN_IN_TRAILERS)
            );
            body.trailers = pairs(trailers);
        }
    }
    body
}

/// The data, taken off the buffer in place, at most three bytes at a time.
fn poll(input: &[u8], limits: &Limits) -> Vec<u8> {
    let mut decoder = BodyDecoder::new(Framing::Chunked, limits);
    let mut buf = BytesMut::from(input);
    let mut data = Vec::new();
    while let Ok(Step::Data(len)) = decoder.poll(&mut buf) {
        assert!(len > 0 && len <= buf.len());
        assert_eq!(decoder.ready(&buf), len);
        let taken = len.min(3);
        data.extend_from_slice(&buf[..taken]);
        buf.advance(taken);
        decoder.consumed(taken);
    }
    data
}

fn check_again(input: &[u8], body: &Body) {
    let mut decoder = BodyDecoder::new(Framing::Chunked, &Limits::default());
    let mut buf = BytesMut::from(input);
    let mut out = Vec::new();
    while let Ok(Part::Data(data)) = decoder.decode(&mut buf) {
        write_chunk(&mut out, &data);
    }
    let trailers = decoder.take_trailers().unwrap_or_default();
    write_last_chunk(&mut out, &trailers);
    let again = decode(&[&out], &Limits::default());
    assert_eq!((&again.data, &again.trailers), (&body.data, &body.trailers));
    assert!(again.end == Ok(true) && again.rest.is_empty());
}
