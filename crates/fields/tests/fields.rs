//! What a head's fields promise to whoever reads, changes and writes them.

use bytes::Bytes;
use forebay_fields::{
    EditError, Fields, Known, KnownSet, MAX_SCRATCH_BYTES, Name, Packed, Received, append_decimal,
    from_header_map, list_items, to_header_map,
};
use proptest::prelude::*;

/// The fields of a block of lines, as a parser would give them.
fn received(block: &str) -> Fields {
    let mut fields = Fields::new();
    let mut present = KnownSet::EMPTY;
    let mut start = 0;
    for line in block.split_inclusive("\r\n") {
        let colon = line.find(':').unwrap();
        let value = line[colon + 1..].trim_matches([' ', '\t', '\r', '\n']);
        let value_start = line.len() - line[colon + 1..].trim_start_matches([' ', '\t']).len();
        let known = Known::of(&line.as_bytes()[..colon]);
        if let Some(known) = known {
            present.insert(known);
        }
        let at = |offset: usize| u32::try_from(start + offset).unwrap();
        let at = Received {
            start: at(0),
            name_end: at(colon),
            value_start: at(value_start),
            value_end: at(value_start + value.len()),
            end: at(line.len()),
        };
        fields.push_received(at, known);
        start += line.len();
    }
    fields.adopt(Bytes::copy_from_slice(block.as_bytes()), present);
    fields
}

fn written(fields: &Fields) -> String {
    let mut out = b"".to_vec();
    fields.write_to(&mut out);
    assert_eq!(out.len(), fields.wire_len());
    String::from_utf8(out).unwrap()
}

fn texts<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    values
        .map(|value| value.escape_ascii().to_string())
        .collect()
}

const BLOCK: &str = "Host: a\r\nX-Foo:  1 \t\r\naccept: text/html, */*\r\nx-foo:2\r\nEmpty:\r\n\
    ACCEPT: x\r\nConnection: X-Foo , close,keep-alive\r\n";

// --- Asking ------------------------------------------------------------------------------------

#[test]
fn rfc9110_5_3_order_and_case_are_kept() {
    let fields = received(BLOCK);
    assert_eq!(fields.len(), 7);
    let names: Vec<_> = fields.iter().map(|field| field.name).collect();
    let expected: [&[u8]; 7] = [
        b"Host",
        b"X-Foo",
        b"accept",
        b"x-foo",
        b"Empty",
        b"ACCEPT",
        b"Connection",
    ];
    assert_eq!(names, expected);
    assert_eq!(texts(fields.all("X-FOO")), ["1", "2"]);
    assert_eq!(texts(fields.all(Known::Accept)), ["text/html, */*", "x"]);
    assert_eq!(fields.get("empty"), Some(b"".as_slice()));
    assert_eq!(fields.get("host"), Some(b"a".as_slice()));
    assert_eq!(fields.get(Known::Cookie), None);
    assert_eq!(fields.get("absent"), None);
    assert_eq!(fields.get_only(Known::Host), Some(b"a".as_slice()));
    assert_eq!(fields.get_only(Known::Accept), None);
    assert!(fields.contains("x-foo") && fields.contains(Known::Host));
    assert!(!fields.contains(Known::Te) && !fields.contains("Te") && !fields.contains("xx"));
    assert_eq!(
        fields
            .iter()
            .map(|field| field.known.is_some())
            .filter(|&known| known)
            .count(),
        4
    );
}

#[test]
fn rfc9110_5_6_1_lists() {
    let items = |value: &str| texts(list_items(value.as_bytes()));
    assert_eq!(items("a, b ,c"), ["a", "b", "c"]);
    assert_eq!(items(" , ,,\t"), [""; 0]);
    assert_eq!(items(",a,"), ["a"]);
    assert_eq!(items("a;x=\"1,2\", b"), ["a;x=\\\"1,2\\\"", "b"]);
    assert_eq!(items("\"a\\\",b\",c"), ["\\\"a\\\\\\\",b\\\"", "c"]);
    assert_eq!(items("\"open,a"), ["\\\"open,a"]);
    let fields = received(BLOCK);
    assert_eq!(texts(fields.list(Known::Accept)), ["text/html", "*/*", "x"]);
    assert!(fields.has_token(Known::Connection, "Close"));
    assert!(fields.has_token("connection", "x-foo"));
    assert!(!fields.has_token(Known::Connection, "clos"));
    assert!(!fields.has_token(Known::Te, "trailers"));
}

#[test]
fn rfc6265_4_2_1_cookies() {
    let fields = received("Cookie: a=1; b=\"2\";c ; a=3;=x; d=e=f\r\nX: y\r\ncookie: g=7\r\n");
    assert_eq!(fields.cookie(b"a"), Some(b"1".as_slice()));
    assert_eq!(fields.cookie(b"b"), Some(b"\"2\"".as_slice()));
    assert_eq!(fields.cookie(b"c"), None);
    assert_eq!(fields.cookie(b"d"), Some(b"e=f".as_slice()));
    assert_eq!(fields.cookie(b"g"), Some(b"7".as_slice()));
    assert_eq!(fields.cookie(b"A"), None);
    assert_eq!(fields.cookies().count(), 6);
}

// --- Writing -----------------------------------------------------------------------------------

#[test]
fn what_was_received_is_written_byte_for_byte() {
    assert_eq!(written(&received(BLOCK)), BLOCK);
    assert_eq!(written(&Fields::new()), "");
}

#[test]
fn edits_are_spliced_in() {
    let mut fields = received("A: 1\r\nB:2\r\nC: 3\r\n");
    fields.set("b", "two").unwrap();
    assert_eq!(written(&fields), "A: 1\r\nb: two\r\nC: 3\r\n");
    fields.append(Known::Via, "1.1 x").unwrap();
    fields.append("X-New", " padded\t").unwrap();
    assert_eq!(
        written(&fields),
        "A: 1\r\nb: two\r\nC: 3\r\nVia: 1.1 x\r\nX-New: padded\r\n"
    );
    assert!(fields.remove("a"));
    assert!(!fields.remove("a"));
    assert_eq!(
        written(&fields),
        "b: two\r\nC: 3\r\nVia: 1.1 x\r\nX-New: padded\r\n"
    );
    assert!(fields.remove(Known::Via));
    assert!(!fields.contains(Known::Via));
    fields.set_number(Known::ContentLength, u64::MAX).unwrap();
    assert_eq!(
        fields.get(Known::ContentLength),
        Some(b"18446744073709551615".as_slice())
    );
    fields.clear();
    assert!(fields.is_empty() && fields.present().is_empty());
    assert_eq!(written(&fields), "");
}

#[test]
fn set_leaves_one_where_the_first_was() {
    let mut fields = received(BLOCK);
    fields.set(Known::Accept, "y").unwrap();
    fields.set("X-Foo", "z").unwrap();
    assert_eq!(
        written(&fields),
        "Host: a\r\nX-Foo: z\r\nAccept: y\r\nEmpty:\r\n\
         Connection: X-Foo , close,keep-alive\r\n"
    );
    assert_eq!(texts(fields.all(Known::Accept)), ["y"]);
}

#[test]
fn sets_of_names_are_left_out_or_removed() {
    let mut fields = received(BLOCK);
    let names = KnownSet::of(&[Known::Accept, Known::Host, Known::Age]);
    let mut out = Vec::new();
    fields.write_without(&mut out, names);
    let rest = "X-Foo:  1 \t\r\nx-foo:2\r\nEmpty:\r\nConnection: X-Foo , close,keep-alive\r\n";
    assert_eq!(out, rest.as_bytes());
    fields.remove_all(names);
    assert_eq!(written(&fields), rest);
    assert!(!fields.contains(Known::Accept));
    fields.retain(|field| field.name == b"Empty");
    assert_eq!(written(&fields), "Empty:\r\n");
    assert!(fields.present().is_empty());
}

#[test]
fn rfc9110_7_6_1_hop_by_hop_fields() {
    let mut fields = received(
        "Host: a\r\nConnection: close, X-Foo, TE, cookie\r\nX-FOO: 1\r\nX-Foo-2: 2\r\n\
         TE: trailers\r\nConnection: Range, X_Bar, Host\r\nRange: bytes=0-\r\nX_Bar: 3\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nTransfer-Encoding: chunked\r\n\
         Upgrade: h2c\r\nProxy: x\r\nCookie: a=b\r\nProxy-Authorization: x\r\n\
         Trailer: X-Sum\r\nHTTP2-Settings: x\r\n",
    );
    fields.remove_hop_by_hop();
    assert_eq!(
        written(&fields),
        "Host: a\r\nX-Foo-2: 2\r\nCookie: a=b\r\nTrailer: X-Sum\r\n"
    );
}

#[test]
fn what_connection_may_not_name() {
    for name in [
        "Host",
        "content-LENGTH",
        "Content-Foo",
        "cookie",
        "Authorization",
        "Forwarded",
    ] {
        assert!(Name::from(name).is_protected(), "{name}");
    }
    for name in ["close", "TE", "X-Foo", "contents", "Keep-Alive", ""] {
        assert!(!Name::from(name).is_protected(), "{name}");
    }
}

// --- What may not be added ---------------------------------------------------------------------

#[test]
fn rfc9110_5_5_no_value_can_split_a_head() {
    let mut fields = received("A: 1\r\n");
    for bad in [
        "a\r\nSet-Cookie: x",
        "a\nb",
        "a\rb",
        "a\0b",
        "\r\n",
        "a\x0b",
        "\x7f",
    ] {
        assert_eq!(fields.append("X", bad), Err(EditError::BadValue), "{bad:?}");
        assert_eq!(fields.set("A", bad), Err(EditError::BadValue), "{bad:?}");
        assert_eq!(
            fields.set(Known::Host, bad),
            Err(EditError::BadValue),
            "{bad:?}"
        );
    }
    for bad in ["", "a b", "a:", "a\r\n", "a\0", "\u{e9}", "(a)"] {
        assert_eq!(fields.append(bad, "x"), Err(EditError::BadName), "{bad:?}");
    }
    assert_eq!(written(&fields), "A: 1\r\n");
    fields.append("Ok", "caf\u{e9} \t ~").unwrap();
}

#[test]
fn edits_are_bounded() {
    let mut fields = Fields::new();
    let big = "x".repeat(MAX_SCRATCH_BYTES / 2);
    fields.append("A", &big).unwrap();
    assert_eq!(fields.append("B", &big), Err(EditError::TooLarge));
    assert_eq!(fields.len(), 1);
    fields.clear();
    fields.append("B", &big).unwrap();
}

// --- The rest ----------------------------------------------------------------------------------

#[test]
fn header_maps_there_and_back() {
    let fields = received("Host: a\r\nSet-Cookie: a=b\r\nX-Foo: \u{e9}\r\nSet-Cookie: c=d\r\n");
    let map = to_header_map(&fields).unwrap();
    assert_eq!(map.len(), 4);
    let cookies: Vec<_> = map.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=b", "c=d"]);
    let mut back = Fields::new();
    from_header_map(&map, &mut back).unwrap();
    assert_eq!(texts(back.all(Known::SetCookie)), ["a=b", "c=d"]);
    assert_eq!(back.get("x-foo"), fields.get("x-foo"));
    assert_eq!(back.len(), 4);
}

#[test]
fn settled_fields_are_the_same_fields() {
    let mut fields = received(BLOCK);
    fields.set("x-foo", "3").unwrap();
    fields.append(Known::Via, "x").unwrap();
    fields.remove(Known::Host);
    let settled = fields.settled();
    assert!(settled.iter().eq(fields.iter()));
    assert_eq!(settled.present(), fields.present());
    assert!(settled.base().is_empty());
    assert_eq!(written(&settled), written(&fields));
    let mut copy = received("Te: x\r\n");
    copy.clone_from(&settled);
    assert_eq!(written(&copy), written(&fields));
    assert!(!copy.contains(Known::Te));
}

/// A head of our own making is written in one piece, unless something was taken out of it.
#[test]
fn a_head_of_our_own_is_written_as_it_is_now() {
    let check = |edit: &dyn Fn(&mut Fields), expected: &str| {
        let mut fields = Fields::new();
        for (name, value) in [("Age", "1"), ("X-A", "a"), ("Via", "v"), ("X-A", "b")] {
            fields.append(name, value).unwrap();
        }
        let packed = Packed::of(&fields);
        let mut unpacked = received("Te: x\r\n");
        packed.unpack_into(&mut unpacked);
        for mut fields in [fields.settled(), fields, unpacked] {
            edit(&mut fields);
            assert_eq!(written(&fields), expected);
            assert_eq!(written(&fields.clone()), expected);
            assert_eq!(written(&fields.settled()), expected);
            let mut copy = received("Te: x\r\n");
            copy.clone_from(&fields);
            assert_eq!(written(&copy), expected);
        }
    };
    let all = "Age: 1\r\nX-A: a\r\nVia: v\r\nX-A: b\r\n";
    check(&|_| {}, all);
    check(&|fields| _ = fields.remove("X-B"), all);
    check(&|fields| fields.retain(|_| true), all);
    check(
        &|fields| fields.append("B", "c").unwrap(),
        &format!("{all}B: c\r\n"),
    );
    check(
        &|fields| fields.set_number(Known::MaxForwards, 10).unwrap(),
        &format!("{all}Max-Forwards: 10\r\n"),
    );
    let without = |name: &str| {
        let lines = all.split_inclusive("\r\n");
        lines
            .filter(|line| !line.starts_with(name))
            .collect::<String>()
    };
    check(&|fields| _ = fields.remove("x-a"), &without("X-A"));
    check(&|fields| _ = fields.remove(Known::Age), &without("Age"));
    check(
        &|fields| fields.remove_all(KnownSet::of(&[Known::Via])),
        &without("Via"),
    );
    check(
        &|fields| fields.retain(|field| field.value != b"b"),
        "Age: 1\r\nX-A: a\r\nVia: v\r\n",
    );
    check(
        &|fields| fields.set("X-A", "c").unwrap(),
        "Age: 1\r\nX-A: c\r\nVia: v\r\n",
    );
    check(
        &|fields| fields.set_number(Known::Age, 2).unwrap(),
        "Age: 2\r\nX-A: a\r\nVia: v\r\nX-A: b\r\n",
    );
    let options = "Age: 1\r\nVia: v\r\n";
    check(
        &|fields| {
            fields.append(Known::Connection, "x-a").unwrap();
            fields.remove_hop_by_hop();
        },
        options,
    );
}

#[test]
fn values_are_made_in_place() {
    let mut fields = Fields::new();
    let made = |fields: &mut Fields, value: &[u8]| {
        fields.append_made(Known::Via, |out| out.extend_from_slice(value))
    };
    assert_eq!(made(&mut fields, b"one"), Ok(()));
    for wrong in [&b"a\r\nB: c"[..], b"\n", b" a", b"a\t"] {
        assert_eq!(made(&mut fields, wrong), Err(EditError::BadValue));
    }
    let large = vec![b'v'; MAX_SCRATCH_BYTES];
    assert_eq!(made(&mut fields, &large), Err(EditError::TooLarge));
    assert_eq!(made(&mut fields, b""), Ok(()));
    assert_eq!(written(&fields), "Via: one\r\nVia: \r\n");
    assert_eq!(
        texts(fields.all(Known::Via)),
        ["one".to_owned(), String::new()]
    );
}

#[test]
fn debug_output_is_escaped() {
    let fields = received("A: caf\u{e9}\r\n");
    assert_eq!(format!("{fields:?}"), "[A: caf\\xc3\\xa9]");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decimals(value: u64) {
        let mut out = Vec::new();
        append_decimal(&mut out, value);
        prop_assert_eq!(out, value.to_string().into_bytes());
    }

    /// Whatever is done to them, the fields stay what a plain list of pairs would be.
    #[test]
    fn edits_do_what_a_list_of_pairs_would(
        edits in prop::collection::vec(
            (0..5_u8, prop::sample::select(vec!["A", "a", "Host", "via", "X-Y"]), "[a-z]{0,3}"),
            0..30,
        ),
    ) {
        let start = [("Host", "a"), ("A", "1"), ("X-Y", "2"), ("a", "3"), ("Via", "4")];
        let block: String = start.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let mut fields = received(&block);
        let mut model = start.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        for (kind, name, value) in edits {
            // A known name is written as it is spelled by the server.
            let spelled = Known::of(name.as_bytes()).map_or(name, Known::name).to_owned();
            let is_named = |pair: &(String, String)| pair.0.eq_ignore_ascii_case(name);
            match kind {
                0 => {
                    fields.append(name, &value).unwrap();
                    model.push((spelled, value));
                }
                1 | 2 => {
                    fields.set(name, &value).unwrap();
                    match model.iter().position(is_named) {
                        None => model.push((spelled, value)),
                        Some(first) => {
                            model[first] = (spelled, value);
                            let mut at = 0;
                            model.retain(|pair| {
                                at += 1;
                                at <= first + 1 || !is_named(pair)
                            });
                        }
                    }
                }
                3 => {
                    prop_assert_eq!(fields.remove(name), model.iter().any(is_named));
                    model.retain(|pair| !is_named(pair));
                }
                _ => {
                    fields.remove_all(KnownSet::of(&[Known::Via]));
                    model.retain(|pair| pair.0 != "Via");
                }
            }
            let found: Vec<_> = fields
                .iter()
                .map(|f| (f.name.escape_ascii().to_string(), f.value.escape_ascii().to_string()))
                .collect();
            prop_assert_eq!(&found, &model);
            for name in ["a", "host", "via", "x-y"] {
                let expected = model.iter().any(|pair| pair.0.eq_ignore_ascii_case(name));
                prop_assert_eq!(fields.contains(name), expected);
            }
        }
        let expected: String = model.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        prop_assert_eq!(written(&fields), expected);
    }
}
