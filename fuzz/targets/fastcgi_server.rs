//! FastCGI as the application reads it: cuts do not matter, nor how much is taken at a time.
#![no_main]

use bytes::BytesMut;
use forebay_fastcgi::{Begin, Capacity, End, Limits, Records, Server, ServerEvent, read_values};
use forebay_fuzz::same_however_it_arrives;
use libfuzzer_sys::fuzz_target;

const CAPACITY: Capacity = Capacity {
    max_conns: 1,
    max_reqs: 1,
    responder: true,
    authorizer: true,
    filter: true,
};

/// Small enough to be passed by a short input.
const SMALL: Limits = Limits {
    max_requests: 2,
    max_params_bytes: 24,
    max_params: 3,
    max_name: 6,
    max_value: 10,
    max_management: 40,
};

fuzz_target!(|input: &[u8]| {
    for limits in [Limits::default(), SMALL] {
        let _ = same_however_it_arrives(input, |pieces| run(pieces, limits));
    }
    let _ = same_however_it_arrives(input, look_on);
});

/// As who looks on sees it.
fn look_on(pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let (mut records, mut seen) = (Records::default(), Vec::new());
    for piece in pieces {
        records.push(piece);
        loop {
            match records.next_record() {
                Ok(None) => break,
                Ok(Some(record)) => {
                    assert_eq!(record.content.len(), usize::from(record.header.content));
                    let begin = Begin::read(&record.content);
                    let end = End::read(&record.content);
                    let values = read_values(&record.content);
                    seen.push(format!("{record:?} {begin:?} {end:?} {values:?}"));
                }
                Err(fault) => {
                    seen.push(format!("{fault:?}"));
                    return (seen, false);
                }
            }
        }
    }
    (seen, records.is_between())
}

fn run(pieces: &[&[u8]], limits: Limits) -> (Vec<String>, Vec<u8>, Vec<u8>) {
    let (mut server, mut buf) = (Server::new(limits, CAPACITY), BytesMut::new());
    let (mut events, mut data, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match server.poll(&mut buf, &mut out) {
                Ok(ServerEvent::NeedMore) => break,
                Ok(ServerEvent::Stdin { len, .. } | ServerEvent::Data { len, .. }) => {
                    assert!(len > 0 && len <= buf.len());
                    data.extend_from_slice(&server.take(&mut buf, len.min(3)));
                }
                Ok(event) => events.push(format!("{event:?}")),
                Err(fault) => {
                    assert!(!fault.connection_goes_on());
                    events.push(format!("{fault:?}"));
                    return (events, data, out);
                }
            }
            assert!(server.requests() <= usize::from(limits.max_requests));
        }
    }
    events.push(format!("{:?}", server.handle_eof(&buf)));
    (events, data, out)
}
