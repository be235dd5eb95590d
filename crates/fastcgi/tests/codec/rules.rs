//! One test for each rule, with the section of the FastCGI specification in its name.

use forebay_fastcgi::{Client, Limits, Misuse, Params, ParamsBuilder, Records, Role};

use crate::common::{begin, client_in, params, record, server_in};

fn server(input: &[u8]) -> Vec<String> {
    server_in(&[input], Limits::default(), usize::MAX).0
}

#[test]
fn s3_3_a_request_as_it_should_be() {
    let long = "v".repeat(300);
    let pairs = params(&[("A", "b"), ("LONG", &long)]);
    let block = pairs.as_bytes();
    let (one, two) = block.split_at(7);
    let input = [
        begin(1, 1, 1),
        record(4, 1, one),
        record(4, 1, two),
        record(4, 1, b""),
        record(5, 1, b"body"),
        record(5, 1, b""),
    ];
    let story = server(&input.concat());
    assert!(
        story[0].starts_with("Request { id: 1, role: Responder"),
        "{story:?}"
    );
    assert_eq!(story[1..], ["stdin 1 body", "StdinEnd { id: 1 }", "Ok(())"]);
}

#[test]
fn s4_1_values_and_s4_2_unknown_types_are_answered() {
    let asked = b"\x0e\0FCGI_MAX_CONNS\x0f\0FCGI_MPXS_CONNS\x01\0X";
    let input = [record(9, 0, asked), record(77, 0, b"zz")].concat();
    let (story, out) = server_in(&[&input], Limits::default(), usize::MAX);
    assert_eq!(story, ["Answered", "Answered", "Ok(())"]);
    let values = record(10, 0, b"\x0e\x02FCGI_MAX_CONNS10\x0f\x01FCGI_MPXS_CONNS1");
    let unknown = record(11, 0, &[77, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(out, [values.clone(), unknown].concat());
    let told = client_in(&[&values], 0, usize::MAX);
    let known = "Values(Values { max_conns: Some(10), max_reqs: None, multiplexes: Some(true) })";
    assert_eq!(told, [known, "Ok(())"]);
}

#[test]
fn s5_5_refusals_have_their_codes() {
    let (story, out) = server_in(&[&begin(1, 3, 1)], Limits::default(), usize::MAX);
    assert!(story[0].contains("UnknownRole"), "{story:?}");
    assert_eq!(out, record(3, 1, &[0, 0, 0, 0, 3, 0, 0, 0]));
    for (max_requests, code) in [(1, 1), (2, 2)] {
        let limits = Limits {
            max_requests,
            ..Limits::default()
        };
        let input: Vec<u8> = (1..=3).flat_map(|id| begin(id, 1, 0)).collect();
        let (_, out) = server_in(&[&input], limits, usize::MAX);
        assert!(out.ends_with(&record(3, 3, &[0, 0, 0, 0, code, 0, 0, 0])));
    }
}

#[test]
fn s3_3_faults_of_the_connection() {
    let begun = begin(1, 1, 1);
    for (fault, input) in [
        ("WrongVersion", b"\x02\x01\0\x01\0\x08\0\0".to_vec()),
        ("UnexpectedId", begin(0, 1, 1)),
        ("UnexpectedType", record(6, 1, b"x")),
        ("UnexpectedType", record(99, 1, b"x")),
        ("BadLength", record(1, 1, b"x")),
        ("DuplicateId", [begun.clone(), begun.clone()].concat()),
        ("ManagementTooLong", record(9, 0, &[0; 2000])),
        ("BadValues", record(9, 0, b"\x05")),
        ("Truncated", begun),
    ] {
        let story = server(&input);
        assert_eq!(story.last().unwrap(), &format!("Err({fault})"));
    }
    for (fault, input) in [
        ("UnexpectedId", record(6, 9, b"x")),
        ("UnexpectedType", begin(1, 1, 1)),
        (
            "UnknownProtocolStatus",
            record(3, 1, &[0, 0, 0, 0, 9, 0, 0, 0]),
        ),
        ("BadLength", record(3, 1, b"x")),
    ] {
        let story = client_in(&[&input], 1, usize::MAX);
        assert_eq!(story.last().unwrap(), &format!("Err({fault})"));
    }
}

#[test]
fn s5_2_faults_of_one_request_leave_the_others() {
    let other = [begin(2, 1, 1), record(4, 2, b""), record(5, 2, b"x")].concat();
    let small = Limits {
        max_params_bytes: 30,
        max_params: 2,
        max_name: 3,
        max_value: 4,
        ..Limits::default()
    };
    for (fault, block) in [
        ("BadParams", b"\x03\x01a".to_vec()),
        ("BadParams", b"\x80".to_vec()),
        ("ParamsTooLarge", vec![0; 31]),
        ("TooManyParams", vec![0; 6]),
        ("NameTooLong", b"\x04\0abcd".to_vec()),
        ("ValueTooLong", b"\0\xff\xff\xff\xff".to_vec()),
    ] {
        let spoiled = [begin(1, 1, 1), record(4, 1, &block), record(4, 1, b"")].concat();
        let input = [spoiled, other.clone()].concat();
        let (story, _) = server_in(&[&input], small, usize::MAX);
        assert_eq!(story[0], format!("Fault {{ id: 1, fault: {fault} }}"));
        assert_eq!(story[2], "stdin 2 x");
    }
}

#[test]
fn s5_3_data_after_the_end_of_a_stream() {
    let input = [
        record(6, 1, b"a"),
        record(6, 1, b""),
        record(6, 1, b"b"),
        record(7, 2, b"c"),
    ];
    let story = client_in(&[&input.concat()], 2, usize::MAX);
    let fault = "Fault { id: 1, fault: DataAfterEnd }";
    assert_eq!(
        story[..4],
        ["stdout 1 a", "StdoutEnd { id: 1 }", fault, "stderr 2 c"]
    );
}

#[test]
fn s5_1_a_connection_is_reused_only_if_all_was_sent() {
    let end = record(3, 1, &[0, 0, 1, 2, 0, 0, 0, 0]);
    for (sent, reusable) in [(false, false), (true, true)] {
        let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
        let id = client.begin(Role::Responder, true, &mut out).unwrap();
        client.params(id, &params(&[("A", "b")]), &mut out).unwrap();
        assert_eq!(
            client.params(id, &params(&[]), &mut out),
            Err(Misuse::WrongTurn)
        );
        if sent {
            client.stdin_end(id, &mut out).unwrap();
        }
        let event = client.poll(&mut end.as_slice().into()).unwrap();
        let text = format!("{event:?}");
        assert!(text.contains("app_status: 258"), "{text}");
        assert!(text.contains(&format!("reusable: {reusable}")), "{text}");
    }
}

/// PHP reads each record of parameters for itself.
#[test]
fn s5_2_no_pair_goes_on_in_the_next_record() {
    let records_of = |lens: &[usize]| {
        let mut pairs = ParamsBuilder::new(1 << 20);
        for (number, len) in lens.iter().enumerate() {
            let (name, value) = (format!("NAME_{number}"), vec![b'v'; *len]);
            pairs.push(name.as_bytes(), &value).unwrap();
        }
        let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
        let id = client.begin(Role::Responder, true, &mut out).unwrap();
        out.clear();
        client.params(id, &pairs, &mut out).unwrap();
        let mut records = Records::default();
        records.push(&out);
        let mut contents = Vec::new();
        while let Some(record) = records.next_record().unwrap() {
            contents.push(record.content);
        }
        assert!(contents.pop().unwrap().is_empty(), "the end of the stream");
        assert_eq!(contents.concat(), pairs.as_bytes());
        contents
    };
    let read = |content: &[u8]| Params::read(content.to_vec().into(), &Limits::default());
    for len in (60_000..65_500).step_by(7) {
        // What is in a record is whole, and the next pair had no room in it.
        let contents = records_of(&[len / 2, len / 2, 100, len, 3]);
        assert!(
            contents.iter().all(|content| read(content).is_ok()),
            "{len}"
        );
        assert!(contents.len() <= 4, "{len}: {}", contents.len());
    }
    // Exactly a record, and one more.
    assert_eq!(records_of(&[65_535 - 11]).len(), 1);
    assert_eq!(records_of(&[65_535 - 11, 0]).len(), 2);
    assert_eq!(records_of(&[65_535 - 10]).len(), 2);
    // A pair that is longer than any record is cut, and those behind it are not.
    let contents = records_of(&[1, 70_000, 2]);
    assert_eq!(contents.len(), 4);
    assert!(read(&contents[0]).is_ok() && read(&contents[3]).is_ok());
}
