//! FastCGI as the web server reads it: cuts do not matter, nor how much is taken at a time.
#![no_main]

use bytes::BytesMut;
use forebay_fastcgi::{Client, ClientEvent, Limits, Role};
use forebay_fuzz::same_however_it_arrives;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = same_however_it_arrives(input, run);
});

fn run(pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
    let (mut client, mut buf) = (Client::new(Limits::default()), BytesMut::new());
    let (mut events, mut data, mut out) = (Vec::new(), Vec::new(), Vec::new());
    client
        .begin(Role::Responder, true, &mut out)
        .expect("there is room");
    client
        .begin(Role::Authorizer, false, &mut out)
        .expect("there is room");
    client.get_values(&mut out).expect("nothing was asked yet");
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match client.poll(&mut buf) {
                Ok(ClientEvent::NeedMore) => break,
                Ok(ClientEvent::Stdout { len, .. } | ClientEvent::Stderr { len, .. }) => {
                    assert!(len > 0 && len <= buf.len());
                    data.extend_from_slice(&client.take(&mut buf, len.min(3)));
                }
                Ok(event) => events.push(format!("{event:?}")),
                Err(fault) => {
                    assert!(!fault.connection_goes_on());
                    events.push(format!("{fault:?}"));
                    return (events, data);
                }
            }
        }
    }
    events.push(format!("{:?}", client.handle_eof(&buf)));
    (events, data)
}
