//! Heads of CGI responses: cuts do not matter; what is accepted is clean.
#![no_main]

use bytes::BytesMut;
use forebay_fastcgi::{CgiError, CgiHead, CgiHeadParser, CgiLimits};
use forebay_fuzz::{check_fields, same_however_it_arrives};
use libfuzzer_sys::fuzz_target;

/// Small enough to be passed by a short input.
const SMALL: CgiLimits = CgiLimits {
    max_header: 128,
    max_fields: 5,
};

fuzz_target!(|input: &[u8]| {
    for limits in [CgiLimits::default(), SMALL] {
        let _ = same_however_it_arrives(input, |pieces| {
            parse(pieces, &limits).map(|head| format!("{head:?}"))
        });
    }
    if let Ok(Some((head, rest))) = parse(&[input], &CgiLimits::default()) {
        assert!(input.ends_with(&rest));
        assert!((200..=999).contains(&head.status));
        check_fields(&head.fields);
    }
});

fn parse(pieces: &[&[u8]], limits: &CgiLimits) -> Result<Option<(CgiHead, Vec<u8>)>, CgiError> {
    let (mut parser, mut buf, mut head) = (CgiHeadParser::default(), BytesMut::new(), None);
    for piece in pieces {
        buf.extend_from_slice(piece);
        if head.is_none() {
            head = parser.parse(&mut buf, limits)?;
        }
    }
    Ok(head.map(|head| (head, buf.to_vec())))
}
