//! The two ways from parameters to a request lead to the same one.

use bytes::{Bytes, BytesMut};
use forebay_fastcgi::{Limits as FastcgiLimits, Params};
use forebay_http1::{Limits, RequestHead, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{SHORT_NAME, Told, by_head, is_host, parse_ip, straight};
use crate::protocol::h1;

type Pair = (Vec<u8>, Vec<u8>);

const ORDINARY: [(&str, &str); 16] = [
    ("QUERY_STRING", "c=d"),
    ("REQUEST_METHOD", "GET"),
    ("CONTENT_TYPE", ""),
    ("CONTENT_LENGTH", ""),
    ("SCRIPT_NAME", "/a b"),
    ("REQUEST_URI", "/a%20b?c=d"),
    ("SERVER_PROTOCOL", "HTTP/2.0"),
    ("HTTPS", "on"),
    ("REMOTE_ADDR", "192.0.2.7"),
    ("SERVER_PORT", "443"),
    ("SERVER_NAME", "example.net"),
    ("HTTP_HOST", "example.com:8080"),
    ("HTTP_USER_AGENT", "a (b; c) d/1.0"),
    ("HTTP_SEC_CH_UA_PLATFORM", "\"Linux\""),
    ("HTTP_X_OTHER", "\tan äther "),
    ("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "x-other"),
];

const NAMES: [&str; 40] = [
    "REQUEST_METHOD",
    "REQUEST_URI",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "SERVER_NAME",
    "SERVER_PORT",
    "REDIRECT_STATUS",
    "HTTP_HOST",
    "HTTP_host",
    "HTTP_",
    "HTTP__",
    "HTTP_A",
    "HTTP_X_A",
    "HTTP_X-A",
    "HTTP_X__A_",
    "HTTP_X.A",
    "HTTP_X:A",
    "HTTP_X A",
    "HTTP_X\r\nHost",
    "HTTP_X\0",
    "HTTP_\u{fc}",
    "HTTP_CONNECTION",
    "HTTP_CONTENT_LENGTH",
    "HTTP_CONTENT-LENGTH",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_Transfer-Encoding",
    "HTTP_EXPECT",
    "HTTP_UPGRADE",
    "HTTP_PROXY",
    "HTTP_TE",
    "HTTP_COOKIE",
    "HTTP_ETAG",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_A_NAME_OF_EXACTLY_SIXTY_FOUR_BYTES_THAT_IS_NONE_OF_THOSE_KNOWN_0",
    "HTTP_A_NAME_OF_EXACTLY_SIXTY_FIVE_BYTES_THAT_IS_NONE_OF_THOSE_KNOWN__0",
    "http_host",
    "",
];

const VALUES: [&str; 40] = [
    "",
    " ",
    "\t a \t",
    "a, b",
    "a\tb",
    "a\rb",
    "a\nb",
    "a\r\nHost: b",
    "a\0",
    "\x7f",
    "\x0b",
    "\u{e9}",
    "GET",
    "POST",
    "CONNECT",
    "OPTIONS",
    "PROPFIND",
    "G ET",
    "A-METHOD-THAT-IS-MUCH-TOO-LONG",
    "/",
    "/a#b",
    "/a b",
    "/\u{e9}",
    "*",
    "a",
    "http://example.com:8080/x?y",
    "https://user@example.com/",
    "example.com:8080",
    "example.com:99999",
    "example.com,example.net",
    "[::1]:80",
    "a..b_c",
    "close",
    "keep-alive, Upgrade",
    "content-type",
    "x-a, cookie",
    "0",
    "12",
    "+12",
    "9223372036854775808",
];

fn encoded(pairs: &[Pair]) -> Params {
    let mut block = Vec::new();
    for (name, value) in pairs {
        for text in [name, value] {
            let len = u32::try_from(text.len()).unwrap_or(0) | 1 << 31;
            block.extend_from_slice(&len.to_be_bytes());
        }
        block.extend_from_slice(name);
        block.extend_from_slice(value);
    }
    Params::read(Bytes::from(block), &FastcgiLimits::default()).expect("parameters")
}

fn owned(pairs: &[(&str, &str)]) -> Vec<Pair> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let owned = pairs
        .iter()
        .map(|(name, value)| (bytes(name), bytes(value)));
    owned.collect()
}

/// What is refused, or all that there is to know of a request.
fn seen(made: Result<(), String>, head: &RequestHead) -> Result<String, String> {
    made?;
    let mut wire = Vec::new();
    head.fields.write_to(&mut wire);
    let present = head.fields.present();
    Ok(format!("{head:?} {present:?} {}", wire.escape_ascii()))
}

/// Whether parameters in order are left to the other way: it is rare, and is seen to by that.
fn is_unusual(pairs: &[Pair], told: &Told<'_>) -> bool {
    let mut hosts = pairs.iter().filter(|(name, _)| is_host(name));
    let host = hosts.next().is_some_and(|(_, host)| !host.is_empty());
    let has_long_name = pairs
        .iter()
        .any(|(name, _)| name.starts_with(b"HTTP_") && name.len() > SHORT_NAME + b"HTTP_".len());
    told.uri.unwrap_or_default().is_empty() || !host || has_long_name
}

/// Looks at both ways; says what comes of them.
fn check(pairs: &[Pair], limits: &Limits) -> Result<String, String> {
    let params = encoded(pairs);
    let (mut one, mut other) = (RequestHead::new(), RequestHead::new());
    let mut lines = BytesMut::new();
    let (told, made) = straight(&params, limits, &mut lines, &mut one);
    assert!(lines.is_empty(), "nothing is left for the next one");
    let words = |fault| format!("{fault:?}");
    let expected = by_head(&params, &told, limits, &mut other).map_err(words);
    let expected = seen(expected, &other);
    match made {
        Some(made) => {
            let made = made.map_err(|error| words(h1::refused(error)));
            assert_eq!(seen(made, &one), expected);
        }
        None => assert!(
            expected.is_err() || is_unusual(pairs, &told),
            "{expected:?}"
        ),
    }
    expected
}

fn limits() -> impl Strategy<Value = Limits> {
    let few = (10..60_u32, 40..200_u32, 0..8_u16);
    let small = few.prop_map(|(max_request_line, max_header, max_fields)| Limits {
        max_request_line,
        max_header,
        max_fields,
    });
    prop_oneof![Just(Limits::default()), small]
}

/// Parameters that are ordinary but for a few.
fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let text = |from: &'static [&'static str]| {
        let known = select(from).prop_map(|text| text.as_bytes().to_vec());
        prop_oneof![8 => known, 1 => vec(any::<u8>(), 0..12)]
    };
    let odd = vec((text(&NAMES), text(&VALUES)), 0..6);
    let left = vec(prop::bool::weighted(0.9), ORDINARY.len());
    let ordinary = left.prop_map(|left| {
        let kept = owned(&ORDINARY).into_iter().zip(left);
        kept.filter_map(|(pair, is_left)| is_left.then_some(pair))
            .collect()
    });
    (ordinary, odd).prop_flat_map(|(ordinary, odd): (Vec<Pair>, Vec<Pair>)| {
        Just([odd, ordinary].concat()).prop_shuffle()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_request_is_the_same_however_it_is_made((pairs, limits) in (pairs(), limits())) {
        let _ = check(&pairs, &limits);
    }

    #[test]
    fn an_address_is_what_others_read(text in "[0-9]{0,3}(\\.[0-9]{1,3}){2,4}|[0-9a-f:.]{0,9}|\\PC{0,4}") {
        prop_assert_eq!(parse_ip(text.as_bytes()), text.parse().ok());
    }
}

#[test]
fn ordinary_parameters_need_no_head() {
    let params = encoded(&owned(&ORDINARY));
    let (mut head, mut lines) = (RequestHead::new(), BytesMut::new());
    let (told, made) = straight(&params, &Limits::default(), &mut lines, &mut head);
    assert_eq!(made, Some(Ok(())));
    assert_eq!(head.version, Version::Http11);
    assert_eq!(
        (head.target(), head.host(), head.port()),
        ("/a%20b?c=d", Some("example.com"), Some(8080))
    );
    let fields: Vec<_> = head
        .fields
        .iter()
        .map(|field| (field.name, field.value))
        .collect();
    let expected: [(&[u8], &[u8]); 5] = [
        (b"Host", b"example.com:8080"),
        (b"User-Agent", b"a (b; c) d/1.0"),
        (b"Sec-CH-UA-Platform", b"\"Linux\""),
        (b"X-Other", "an äther".as_bytes()),
        (b"Access-Control-Request-Headers", b"x-other"),
    ];
    assert_eq!(fields, expected);
    assert_eq!((told.protocol(), told.has_length), ("HTTP/2.0", false));
}

#[test]
fn what_no_head_may_say_no_parameters_may_say() {
    let with = |more: &[(&str, &str)]| {
        let mut pairs = owned(&ORDINARY);
        pairs.retain(|(name, _)| !more.iter().any(|(other, _)| other.as_bytes() == name));
        pairs.extend(owned(more));
        check(&pairs, &Limits::default())
    };
    assert!(with(&[]).is_ok());
    let many: Vec<_> = (0..90).map(|_| ("HTTP_X", "")).collect();
    let large = "a".repeat(60_000);
    for more in [
        &[("REQUEST_METHOD", "")][..],
        &[("REQUEST_METHOD", "G ET")],
        &[("REQUEST_URI", "/a b")],
        &[("REQUEST_URI", "/a#b")],
        &[("REQUEST_URI", "a")],
        &[("REQUEST_URI", "http://example.net/")],
        &[("REQUEST_URI", &large)],
        &[("HTTP_HOST", "a/b")],
        &[("HTTP_HOST", "a"), ("HTTP_HOST", "a")],
        &[("HTTP_HOST", "a"), ("HTTP_host", "b")],
        &[("HTTP_X", "a\r\nHost: b")],
        &[("HTTP_X", "a\0")],
        &[("HTTP_X", "\x7f")],
        &[("HTTP_X:", "a")],
        &[("HTTP_", "a")],
        &[("CONTENT_LENGTH", "-1")],
        &[("CONTENT_LENGTH", "1, 1")],
        &[("CONTENT_LENGTH", "1"), ("CONTENT_LENGTH", "1")],
        &[("HTTP_CONNECTION", "content-length")],
        &[("HTTP_X", &large), ("HTTP_Y", &large)],
        &[&many[..], &many[..]].concat(),
    ] {
        let refused = with(more);
        assert!(refused.is_err(), "{:.200?}: {refused:?}", more);
    }
}
