//! RFC 3875.

use bytes::BytesMut;
use forebay_fastcgi::{
    CgiHeadParser, CgiLimits, Limits, Params, ParamsBuilder, PathSplit, push_fields,
    script_candidates,
};
use forebay_fields::{Fields, KnownSet};

fn parse(pieces: &[&[u8]], limits: &CgiLimits) -> String {
    let (mut parser, mut buf) = (CgiHeadParser::default(), BytesMut::new());
    let mut head = Ok(None);
    for piece in pieces {
        buf.extend_from_slice(piece);
        if matches!(head, Ok(None)) {
            head = parser.parse(&mut buf, limits);
        }
    }
    match head {
        Ok(Some(head)) => {
            let (kind, body) = (head.kind, buf.escape_ascii());
            format!("{kind:?} {} {:?} {body}", head.status, head.fields)
        }
        Ok(None) => "more".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn rfc3875_6_heads() {
    let small = CgiLimits {
        max_header: 60,
        max_fields: 3,
    };
    for (input, expected) in [
        (
            "Content-Type: a/b\n\nx",
            "Document 200 [Content-Type: a/b] x",
        ),
        ("Status: 404 No\r\nA: b\r\n\r\n", "Document 404 [A: b] "),
        ("Status: 304\nConnection: x\n\n", "Document 304 [] "),
        ("Location: /a?b\n\n", "LocalRedirect 200 [Location: /a?b] "),
        (
            "Location: //a/b\n\n",
            "ClientRedirect 302 [Location: //a/b] ",
        ),
        (
            "Location: http://a/\n\n",
            "ClientRedirect 302 [Location: http://a/] ",
        ),
        (
            "Status: 301\nLocation: /a\n\n",
            "ClientRedirect 301 [Location: /a] ",
        ),
        (
            "Status: 201\nLocation: /a\n\n",
            "Document 201 [Location: /a] ",
        ),
        ("A: b", "more"),
        ("\n", "Empty"),
        ("HTTP/1.1 200 OK\n\n", "NonParsed"),
        ("A : b\n\n", "BadField"),
        ("A: b\n c\n\n", "BadField"),
        ("A: b\rX: c\n\n", "BadValue"),
        ("A: b\0\n\n", "BadValue"),
        ("Status: 100\n\n", "BadStatus"),
        ("Status: 2000\n\n", "BadStatus"),
        ("Location: /a#b\n\n", "BadLocation"),
        ("Location: /a b\n\n", "BadLocation"),
        ("Content-Length: +1\n\n", "BadContentLength"),
        (
            "Content-Length: 9223372036854775808\n\n",
            "BadContentLength",
        ),
        ("Status: 200\nStatus: 201\n\n", "Repeated"),
        ("A: a\nA: b\nA: c\nA: d\n\n", "TooManyFields"),
        (
            "A: 01234567890123456789012345678901234567890123456789012345678",
            "TooLarge",
        ),
    ] {
        assert_eq!(parse(&[input.as_bytes()], &small), expected, "{input:?}");
        let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        assert_eq!(parse(&bytes, &small), expected, "{input:?}");
    }
}

#[test]
fn rfc3875_4_1_18_fields_become_variables() {
    let mut fields = Fields::new();
    for (name, value) in [
        ("Host", "a"),
        ("X-One", "1"),
        ("x_one", "forged"),
        ("X.One", "forged"),
        ("Proxy", "http://evil/"),
        ("Content-Length", "3"),
        ("Cookie", "a=b"),
        ("x-one", "2"),
        ("Cookie", "c=d"),
        ("Forwarded", "for=forged"),
        ("X-Own", "the operator has one"),
    ] {
        fields.append(name, value).unwrap();
    }
    let mut params = ParamsBuilder::new(1000);
    let wanted = |name: &[u8]| name != b"HTTP_X_OWN";
    push_fields(&fields, KnownSet::FORWARDING, wanted, &mut params).unwrap();
    let block = params.as_bytes().to_vec().into();
    let params = Params::read(block, &Limits::default()).unwrap();
    let all: Vec<_> = params.iter().collect();
    let expected: [(&[u8], &[u8]); 3] = [
        (b"HTTP_HOST", b"a"),
        (b"HTTP_X_ONE", b"1, 2"),
        (b"HTTP_COOKIE", b"a=b; c=d"),
    ];
    assert_eq!(all, expected);
}

#[test]
fn rfc3875_4_1_5_path_info() {
    let split = |path: &'static str, script: &str| {
        PathSplit::of(path.as_bytes(), script.as_bytes()).map(|split| split.path_info)
    };
    assert_eq!(split("/a.php/b/c", "/a.php"), Some(&b"/b/c"[..]));
    assert_eq!(split("/a.php", "/a.php"), Some(&b""[..]));
    assert_eq!(split("/a", "/a.php"), None);
    assert_eq!(split("/a.phpx", "/a.php"), None);
    let names: Vec<_> = script_candidates(b"/u.jpg/x.php", 9)
        .map(|it| it.script_name)
        .collect();
    assert_eq!(names, [&b"/u.jpg/x.php"[..], b"/u.jpg"]);
}
