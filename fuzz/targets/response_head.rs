//! Heads of responses: cuts do not matter; what is accepted is clean and means the same when it
//! is written and read again.
#![no_main]

use bytes::BytesMut;
use forebay_fuzz::{check_fields, pairs, same_however_it_arrives};
use forebay_http1::{
    HeadError, HeadParser, Limits, Method, Progress, ResponseHead, write_status_line,
};
use libfuzzer_sys::fuzz_target;

/// Small enough to be passed by a short input.
const SMALL: Limits = Limits {
    max_request_line: 32,
    max_header: 128,
    max_fields: 5,
};

fuzz_target!(|input: &[u8]| {
    for limits in [Limits::default(), SMALL] {
        let _ = same_however_it_arrives(input, |pieces| {
            parse(pieces, &limits, Method::Get).map(|parsed| {
                parsed.map(|(head, rest)| format!("{head:?} {}", rest.escape_ascii()))
            })
        });
    }
    for method in [Method::Get, Method::Head] {
        if let Ok(Some((head, rest))) = parse(&[input], &Limits::default(), method) {
            assert!(input.ends_with(&rest));
            assert!((100..=999).contains(&head.status));
            check_fields(&head.fields);
            check_again(&head, method);
        }
    }
});

type Parsed = Option<(ResponseHead, Vec<u8>)>;

fn parse(pieces: &[&[u8]], limits: &Limits, method: Method) -> Result<Parsed, HeadError> {
    let (mut parser, mut head, mut buf) = (HeadParser::new(), ResponseHead::new(), BytesMut::new());
    let mut pieces = pieces.iter();
    while let Some(piece) = pieces.next() {
        buf.extend_from_slice(piece);
        if parser.response(&mut buf, limits, &method, &mut head)? == Progress::Complete {
            pieces
                .by_ref()
                .for_each(|piece| buf.extend_from_slice(piece));
            return Ok(Some((head, buf.to_vec())));
        }
        assert!(
            buf.len() < limits.max_head(),
            "undecided with {} bytes",
            buf.len()
        );
    }
    Ok(None)
}

fn check_again(head: &ResponseHead, method: Method) {
    let mut out = Vec::new();
    write_status_line(&mut out, head.status, Some(head.reason()));
    head.fields.write_to(&mut out);
    out.extend_from_slice(b"\r\n");
    let again = parse(&[&out], &Limits::default(), method).expect("it was accepted before");
    let (again, rest) = again.expect("it is complete");
    assert!(rest.is_empty());
    assert_eq!(
        (
            again.status,
            again.reason(),
            again.framing,
            again.content_length,
            again.upgrade
        ),
        (
            head.status,
            head.reason(),
            head.framing,
            head.content_length,
            head.upgrade
        )
    );
    // Written as HTTP/1.1, it may be kept alive where the original was not, but not the reverse
    // but for `Connection: keep-alive` of HTTP/1.0, which is one still.
    assert!(again.keep_alive || !head.keep_alive);
    assert_eq!(pairs(&again.fields), pairs(&head.fields));
}
