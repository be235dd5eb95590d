//! Conversations, from the bytes on.

use std::io::Cursor;

use bytes::Bytes;
use etherparse::PacketBuilder;
use forebay_fastcgi::{Header, ParamsBuilder, RecordType};

use super::capture;
use super::conversation::Filter;
use super::*;

fn record(kind: RecordType, id: u16, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("less than 64 KiB");
    let mut out = Header::new(kind, id, len).to_bytes().to_vec();
    out.extend_from_slice(content);
    out
}

fn request(id: u16, params: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut block = ParamsBuilder::new(100_000);
    for (name, value) in params {
        block
            .push(name.as_bytes(), value.as_bytes())
            .expect("it fits");
    }
    let mut out = record(RecordType::BeginRequest, id, &[0, 1, 1, 0, 0, 0, 0, 0]);
    out.extend(record(RecordType::Params, id, block.as_bytes()));
    out.extend(record(RecordType::Params, id, b""));
    out.extend(record(RecordType::Stdin, id, body));
    if !body.is_empty() {
        out.extend(record(RecordType::Stdin, id, b""));
    }
    out
}

fn response(id: u16, stdout: &[u8]) -> Vec<u8> {
    let mut out = record(RecordType::Stdout, id, stdout);
    out.extend(record(RecordType::Stdout, id, b""));
    out.extend(record(RecordType::EndRequest, id, &[0; 8]));
    out
}

const PAGE: &[u8] =
    b"Status: 404 Not Found\r\nSet-Cookie: a=b\r\nContent-Type: text/html\r\n\r\n<p>no\n";

fn trace(filter: Filter) -> Trace<Vec<u8>> {
    Trace {
        filter,
        show: Show {
            body: 100,
            hex: false,
            json: false,
        },
        conversations: HashMap::new(),
        out: BufWriter::new(Vec::new()),
        line: String::new(),
        ended: false,
    }
}

fn frame(what: Passed) -> Frame {
    Frame {
        time: 1_000_000,
        connection: 1,
        what,
    }
}

fn bytes(who: Who, bytes: &[u8]) -> Frame {
    frame(Passed::Bytes(who, Bytes::copy_from_slice(bytes)))
}

/// What is shown, without the lines' beginnings.
fn shown(filter: Filter, frames: &[Frame]) -> String {
    let mut trace = trace(filter);
    for frame in frames {
        trace.take(frame);
    }
    trace.flush();
    let all = String::from_utf8(trace.out.into_inner().expect("written")).expect("text");
    all.replace("00:00:01.000000 ", "")
        .replace("                     ", "  ")
}

const LOGIN: &[(&str, &str)] = &[
    ("REQUEST_URI", "/login?token=t"),
    ("SCRIPT_NAME", "/index.php"),
    ("CONTENT_TYPE", "application/x-www-form-urlencoded"),
    ("HTTP_COOKIE", "id=1"),
];

const WHOLE: &str = "\
#1/1 → BEGIN_REQUEST 8 bytes: Responder, keep the connection
#1/1 → PARAMS        114 bytes
#1/1 → PARAMS        0 bytes: 4 values in all
  REQUEST_URI = /login?token=***
  SCRIPT_NAME = /index.php
  CONTENT_TYPE = application/x-www-form-urlencoded
  HTTP_COOKIE = ***
#1/1 → STDIN         17 bytes
  | user=u&password=***
#1/1 → STDIN         0 bytes: the end of the stream
#1/1 ← STDOUT        73 bytes
  Status: 404 Not Found
  Set-Cookie: ***
  Content-Type: text/html
  | <p>no
#1/1 ← STDOUT        0 bytes: the end of the stream
#1/1 ← END_REQUEST   8 bytes: status 0 of the application, RequestComplete, after 0.000 ms
";

#[test]
fn a_request_and_its_response_are_told_record_by_record() {
    let asked = request(1, LOGIN, b"user=u&password=p");
    let answered = response(1, PAGE);
    let frames = [
        bytes(Who::Server, &asked),
        bytes(Who::Application, &answered),
    ];
    assert_eq!(shown(Filter::default(), &frames), WHOLE);

    let secrets = Filter {
        secrets: true,
        ..Filter::default()
    };
    let all = shown(secrets, &frames);
    for secret in [
        "token=t\n",
        "HTTP_COOKIE = id=1",
        "password=p\n",
        "Set-Cookie: a=b",
    ] {
        assert!(all.contains(secret), "{secret} in {all}");
    }

    // In single bytes the same is understood.
    let single = |who, all: &[u8]| all.chunks(1).map(|one| bytes(who, one)).collect::<Vec<_>>();
    let mut frames = single(Who::Server, &asked);
    frames.extend(single(Who::Application, &answered));
    assert_eq!(shown(Filter::default(), &frames), WHOLE);
}

#[test]
fn only_what_was_asked_for_is_shown() {
    let mut asked = request(1, LOGIN, b"");
    asked.extend(request(2, &[("REQUEST_URI", "/a/b.php?x")], b""));
    let mut answered = response(2, b"Status: 200 OK\n\ntwo");
    answered.extend(response(1, PAGE));
    let frames = [
        frame(Passed::Opened("a to b".to_owned())),
        bytes(Who::Server, &asked),
        bytes(Who::Application, &answered),
        frame(Passed::Closed),
    ];
    let whole = shown(Filter::default(), &frames);
    assert!(whole.starts_with("#1 → (opened, a to b)\n"), "{whole}");
    assert!(whole.ends_with("#1 → (closed)\n"), "{whole}");
    let ids = |filter| {
        let text = shown(filter, &frames);
        assert!(!text.contains("opened"), "{text}");
        (text.contains("#1/1 "), text.contains("#1/2 "))
    };
    let path = |text: &str| Filter {
        path: Match::parse(text),
        ..Filter::default()
    };
    assert_eq!(ids(path("/a/*")), (false, true));
    assert_eq!(ids(path("*.php")), (true, true));
    assert_eq!(ids(path("/login")), (true, false));
    assert_eq!(ids(path("/other")), (false, false));
    let id = Filter {
        id: Some(2),
        ..Filter::default()
    };
    assert_eq!(ids(id), (false, true));
    // What came before the path was known is shown as well.
    assert!(shown(path("/login"), &frames).contains("#1/1 → BEGIN_REQUEST"));
}

#[test]
fn what_cannot_be_understood_is_said_once() {
    let begun = &request(1, LOGIN, b"")[..16];
    let told = shown(
        Filter::default(),
        &[
            bytes(Who::Server, begun),
            bytes(Who::Application, b"HTTP/1.1 200 OK\r\n\r\n"),
            bytes(Who::Application, b"more"),
            frame(Passed::Closed),
        ],
    );
    assert_eq!(
        told,
        "#1/1 → BEGIN_REQUEST 8 bytes: Responder, keep the connection\n\
         #1 ← (a FastCGI record is not of version 1: what follows in this direction is not shown)\n\
         #1 → (closed; not ended: request 1)\n"
    );
    // Of parameters without end no more is kept than they may have.
    let mut trace = trace(Filter::default());
    trace.take(&bytes(Who::Server, begun));
    let many = record(RecordType::Params, 1, &[b'x'; 65_535]);
    for _ in 0..10 {
        trace.take(&bytes(Who::Server, &many));
    }
    trace.flush();
    let all = String::from_utf8(trace.out.into_inner().expect("written")).expect("text");
    assert_eq!(all.matches("more parameters than are followed").count(), 1);
}

#[test]
fn begun_requests_without_end_do_not_grow_memory() {
    let mut trace = trace(Filter {
        path: Match::parse("/never"),
        ..Filter::default()
    });
    for id in 1..=u16::MAX {
        let begin = record(RecordType::BeginRequest, id, &[0, 1, 1, 0, 0, 0, 0, 0]);
        trace.take(&bytes(Who::Server, &begin));
        for _ in 0..3 {
            trace.take(&bytes(Who::Server, &record(RecordType::Params, 1, b"x")));
        }
    }
    let conversation = trace.conversations.get(&1).expect("it is there");
    assert_eq!(conversation.sizes(), (256, 64));
}

/// A capture of the old format with one TCP packet for each: whether from the client, where its
/// data begin, flags (`S`yn, `F`in), data.
fn pcap(packets: &[(bool, u32, &str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    // Magic, version 2.4, no offset, snap length, Ethernet.
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0x4_0000, 1] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for (client, number, flags, data) in packets {
        let (from, to) = if *client {
            (40_000, 9000)
        } else {
            (9000, 40_000)
        };
        let builder = PacketBuilder::ethernet2([0; 6], [0; 6])
            .ipv4([127, 0, 0, 1], [127, 0, 0, 1], 64)
            .tcp(from, to, *number, 1000);
        let builder = if flags.contains('S') {
            builder.syn()
        } else {
            builder
        };
        let builder = if flags.contains('F') {
            builder.fin()
        } else {
            builder
        };
        let mut packet = Vec::new();
        builder.write(&mut packet, data).expect("a packet");
        let len = u32::try_from(packet.len()).expect("short");
        for word in [1, 0, len, len] {
            out.extend_from_slice(&u32::to_le_bytes(word));
        }
        out.extend_from_slice(&packet);
    }
    out
}

/// A pipe that gives a little at a time.
struct Trickle(Cursor<Vec<u8>>);

impl Read for Trickle {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(7);
        self.0.read(buf.get_mut(..len).unwrap_or_default())
    }
}

fn captured(file: Vec<u8>, port: Option<u16>) -> (String, Result<(), String>) {
    let mut trace = trace(Filter::default());
    let from = Trickle(Cursor::new(file));
    let result = capture::read(Vec::new(), from, port, &mut |frame| trace.take(&frame));
    trace.flush();
    let all = String::from_utf8(trace.out.into_inner().expect("written")).expect("text");
    let all = all
        .replace("00:00:01.000000 ", "")
        .replace("                     ", "  ");
    (all, result)
}

#[test]
fn a_capture_is_put_together_whatever_the_order_of_its_packets() {
    let asked = request(1, LOGIN, b"user=u&password=p");
    let answered = response(1, PAGE);
    let (a, b) = asked.split_at(50);
    let (c, d) = answered.split_at(20);
    // The numbers of bytes go over their end.
    let start = u32::MAX - 20;
    let at = |len: usize| {
        start
            .wrapping_add(1)
            .wrapping_add(u32::try_from(len).expect("short"))
    };
    let file = pcap(&[
        (true, start, "S", b""),
        (false, 500, "S", b""),
        (true, at(50), "", b),
        (true, at(0), "", a),
        (true, at(0), "", a),
        (false, 501, "", c),
        (false, 501, "", &answered[..30]),
        (false, 521, "F", d),
        (true, at(asked.len()), "F", b""),
    ]);
    let (told, result) = captured(file.clone(), None);
    assert_eq!(result, Ok(()));
    assert_eq!(
        told,
        format!("#1 → (opened, 127.0.0.1:40000 to 127.0.0.1:9000)\n{WHOLE}#1 → (closed)\n")
    );
    assert_eq!(captured(file.clone(), Some(9000)).0, told);
    assert_eq!(captured(file.clone(), Some(80)).0, "");
    // Wherever it is cut, nothing but an error follows.
    for cut in 0..file.len() {
        let (part, _) = captured(file[..cut].to_vec(), None);
        assert!(part.len() <= told.len() + 200, "cut at {cut}: {part}");
    }
}

#[test]
fn missing_packets_end_what_is_shown_of_a_connection() {
    let asked = request(1, LOGIN, b"");
    let file = pcap(&[
        (true, 0, "S", b""),
        (true, 1, "", &asked[..40]),
        (true, 100, "F", &asked[99..]),
    ]);
    let (told, result) = captured(file, None);
    assert_eq!(result, Ok(()));
    assert!(
        told.contains("packets are missing in the capture"),
        "{told}"
    );
    let other = pcap(&[(true, 1, "", b"GET / HTTP/1.1\r\n\r\n")]);
    let (told, result) = captured(other, None);
    assert_eq!(told, "");
    assert!(result.is_err_and(|error| error.starts_with("there is no FastCGI")));
    let (_, result) = captured(b"no capture at all, whatever it is".to_vec(), None);
    assert!(result.is_err_and(|error| error.starts_with("expected a capture")));
}
