//! PROXY headers: what is said of a beginning stays so whatever follows, and no header is endless.
#![no_main]

use libfuzzer_sys::fuzz_target;

use crate::parse::{Header, MAX_HEADER, parse};

// The parser alone: it is part of the binary.
#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/forebay/src/listen/proxy_protocol/parse.rs"]
mod parse;

fuzz_target!(|input: &[u8]| {
    let whole = parse(input);
    for end in 0..input.len() {
        let beginning = parse(&input[..end]);
        assert!(
            beginning == Ok(Header::Partial) || beginning == whole,
            "{beginning:?} at {end}, then {whole:?}"
        );
    }
    match whole {
        Ok(Header::Partial) => assert!(input.len() < MAX_HEADER),
        Ok(Header::Complete { len, ends }) => {
            assert!(len <= input.len() && len <= MAX_HEADER);
            assert_eq!(parse(&input[..len]), whole);
            assert_eq!(parse(&input[..len - 1]), Ok(Header::Partial));
            assert!(ends.is_none_or(|ends| {
                !ends.source.ip().is_unspecified()
                    && ends.source.is_ipv4() == ends.destination.is_ipv4()
            }));
        }
        Err(_) => {}
    }
});
