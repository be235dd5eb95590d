//! Heads of requests: cuts do not matter; what is accepted is clean, is read by `httparse` in the
//! same way, and means the same when it is written and read again.
#![no_main]

use bytes::BytesMut;
use forebay_fuzz::{check_fields, pairs, same_however_it_arrives};
use forebay_http1::{
    HeadError, HeadParser, Limits, Method, Progress, RequestHead, TargetForm, write_request_line,
};
use libfuzzer_sys::fuzz_target;

/// Small enough to be passed by a short input.
const SMALL: Limits = Limits {
    max_request_line: 64,
    max_header: 128,
    max_fields: 5,
};

fuzz_target!(|input: &[u8]| {
    for limits in [Limits::default(), SMALL] {
        let _ =
            same_however_it_arrives(input, |pieces| parse(pieces, &limits).map(|(text, _)| text));
    }
    if let Ok((_, Some((head, rest)))) = parse(&[input], &Limits::default()) {
        assert!(input.ends_with(&rest));
        check_head(&head);
        check_httparse(&head);
        check_again(&head);
    }
});

type Parsed = (String, Option<(RequestHead, Vec<u8>)>);

fn parse(pieces: &[&[u8]], limits: &Limits) -> Result<Parsed, HeadError> {
    let (mut parser, mut head, mut buf) = (HeadParser::new(), RequestHead::new(), BytesMut::new());
    let mut pieces = pieces.iter();
    while let Some(piece) = pieces.next() {
        buf.extend_from_slice(piece);
        if parser.request(&mut buf, limits, &mut head)? == Progress::Complete {
            pieces
                .by_ref()
                .for_each(|piece| buf.extend_from_slice(piece));
            let text = format!("{head:?} {}", buf.escape_ascii());
            return Ok((text, Some((head, buf.to_vec()))));
        }
        assert!(
            buf.len() < limits.max_head(),
            "undecided with {} bytes",
            buf.len()
        );
    }
    Ok((String::new(), None))
}

fn check_head(head: &RequestHead) {
    check_fields(&head.fields);
    assert!(!head.target().is_empty());
    assert!(
        head.target()
            .bytes()
            .all(|b| matches!(b, b'!'..=b'~') && b != b'#')
    );
    assert!(!head.fields.iter().any(|field| field.name.contains(&b'_')));
    if let Some(host) = head.host() {
        assert!(!host.bytes().any(|b| b.is_ascii_uppercase()));
    }
}

/// `httparse` lets more pass, but what passes here it must read in the same way.
fn check_httparse(head: &RequestHead) {
    let mut room = [httparse::EMPTY_HEADER; 100];
    let mut theirs = httparse::Request::new(&mut room);
    let parsed = theirs.parse(head.received());
    assert_eq!(
        parsed,
        Ok(httparse::Status::Complete(head.received().len()))
    );
    assert_eq!(theirs.method, Some(head.method.as_str()));
    let theirs: Vec<_> = theirs
        .headers
        .iter()
        .map(|header| (header.name.as_bytes().to_vec(), header.value.to_vec()))
        .filter(|(name, _)| !name.contains(&b'_'))
        .collect();
    assert_eq!(pairs(&head.fields), theirs);
}

fn check_again(head: &RequestHead) {
    let mut out = Vec::new();
    assert!(write_request_line(
        &mut out,
        &head.method,
        head.target().as_bytes(),
        head.version
    ));
    head.fields.write_to(&mut out);
    out.extend_from_slice(b"\r\n");
    let (_, again) = parse(&[&out], &Limits::default()).expect("it was accepted before");
    let (again, rest) = again.expect("it is complete");
    assert!(rest.is_empty());
    assert_eq!(
        (again.method, again.target(), again.version, again.framing),
        (head.method, head.target(), head.version, head.framing)
    );
    assert_eq!(
        (
            again.keep_alive,
            again.expect_continue,
            again.upgrade,
            again.dropped_fields
        ),
        (head.keep_alive, head.expect_continue, head.upgrade, 0)
    );
    assert_eq!(pairs(&again.fields), pairs(&head.fields));
    // An absolute target that was reduced may have been all that named a host.
    if !matches!(head.target_form(), TargetForm::Absolute(_)) || again.host().is_some() {
        assert_eq!((again.host(), again.port()), (head.host(), head.port()));
    }
    assert!(head.method != Method::Connect || head.target_form() == TargetForm::Authority);
}
