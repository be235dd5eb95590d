//! Both roles against each other: whatever is said, in whatever order and pieces, arrives.

use std::collections::BTreeMap;

use bytes::BytesMut;
use forebay_fastcgi::{
    Client, ClientEvent, Limits, ParamsBuilder, Piece, ProtocolStatus, Role, Server, ServerEvent,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::CAPACITY;

/// One request and its answer.
#[derive(Clone, Debug)]
struct Exchange {
    authorizer: bool,
    keep_conn: bool,
    params: Vec<(Vec<u8>, Vec<u8>)>,
    stdin: Vec<Vec<u8>>,
    stdout: Vec<Vec<u8>>,
    stderr: Vec<Vec<u8>>,
    app_status: u32,
    most: u16,
    pad: bool,
}

/// What has arrived of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Arrived {
    params: Vec<(Vec<u8>, Vec<u8>)>,
    stdin: Vec<u8>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    end: Option<(u32, bool)>,
}

fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let some = vec(any::<u8>(), 1..40);
    let large = (1_000..70_000_usize).prop_map(|len| vec![7; len]);
    vec(prop_oneof![9 => some, 1 => large], 0..4)
}

fn exchange() -> impl Strategy<Value = Exchange> {
    // Lengths on both sides of what one byte can say, and values longer than a record.
    let name = "[A-Z_]{1,9}|[a-z]{126,130}".prop_map(String::into_bytes);
    let long = (60_000..65_537_usize).prop_map(|len| vec![b'v'; len]);
    let value = prop_oneof![
        8 => "[ -~]{0,9}|[a-z]{126,130}".prop_map(String::into_bytes),
        1 => long,
    ];
    let params = vec((name, value), 0..4);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let rest = (
        any::<u32>(),
        prop_oneof![1..9_u16, Just(0xfff8), Just(u16::MAX)],
    );
    (flags, params, bodies(), bodies(), bodies(), rest).prop_map(
        |((authorizer, keep_conn, pad), params, stdin, stdout, stderr, (app_status, most))| {
            Exchange {
                authorizer,
                keep_conn,
                params,
                stdin: if authorizer { Vec::new() } else { stdin },
                stdout,
                stderr,
                app_status,
                most,
                pad,
            }
        },
    )
}

/// A row of numbers that all choices are made by.
struct Choices(std::vec::IntoIter<usize>);

impl Choices {
    fn below(&mut self, limit: usize) -> usize {
        self.0.next().unwrap_or(0) % limit.max(1)
    }
}

fn put(out: &mut Vec<u8>, data: &mut &[u8], piece: Piece) {
    let (now, rest) = data.split_at(piece.content);
    out.extend_from_slice(&piece.header);
    out.extend_from_slice(now);
    out.extend_from_slice(piece.padding());
    *data = rest;
}

/// What each request says next: bodies in order, then their ends.
fn say(
    client: &mut Client,
    id: u16,
    exchange: &Exchange,
    step: &mut usize,
    out: &mut Vec<u8>,
) -> bool {
    match exchange.stdin.get(*step) {
        _ if exchange.authorizer => return false,
        Some(data) => {
            let mut data = data.as_slice();
            while !data.is_empty() {
                let piece = client.stdin(id, data.len(), exchange.most, exchange.pad);
                put(out, &mut data, piece.unwrap());
            }
        }
        None if *step == exchange.stdin.len() => client.stdin_end(id, out).unwrap(),
        None => return false,
    }
    *step += 1;
    true
}

fn answer(
    server: &mut Server,
    id: u16,
    exchange: &Exchange,
    step: usize,
    out: &mut Vec<u8>,
) -> bool {
    for (stream, is_out) in [(&exchange.stdout, true), (&exchange.stderr, false)] {
        let mut data = stream.get(step).map_or(&[][..], Vec::as_slice);
        while !data.is_empty() {
            let piece = match is_out {
                true => server.stdout(id, data.len(), exchange.most, exchange.pad),
                false => server.stderr(id, data.len(), exchange.most, exchange.pad),
            };
            put(out, &mut data, piece.unwrap());
        }
    }
    let more = step + 1 < exchange.stdout.len().max(exchange.stderr.len());
    if !more {
        let status = ProtocolStatus::RequestComplete;
        server.end(id, exchange.app_status, status, out).unwrap();
    }
    more
}

/// A pipe: what is in it arrives in pieces of any size.
#[derive(Default)]
struct Pipe {
    on_the_way: Vec<u8>,
    arrived: BytesMut,
}

impl Pipe {
    fn deliver(&mut self, len: usize) {
        let len = len.min(self.on_the_way.len());
        self.arrived.extend_from_slice(&self.on_the_way[..len]);
        self.on_the_way.drain(..len);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_said_arrives(
        exchanges in vec(exchange(), 1..5),
        choices in vec(any::<usize>(), 0..400),
    ) {
        let mut choices = Choices(choices.into_iter());
        let limits = Limits { max_value: 1 << 17, ..Limits::default() };
        let (mut client, mut server) = (Client::new(limits), Server::new(limits, CAPACITY));
        let (mut there, mut back) = (Pipe::default(), Pipe::default());
        let mut said = vec![0; exchanges.len()];
        // The steps of the answers that were begun.
        let mut answers: BTreeMap<usize, usize> = BTreeMap::new();
        let mut arrived = vec![Arrived::default(); exchanges.len()];
        let id_of = |number: usize| u16::try_from(number + 1).unwrap();
        for (number, exchange) in exchanges.iter().enumerate() {
            let role = if exchange.authorizer { Role::Authorizer } else { Role::Responder };
            let out = &mut there.on_the_way;
            let id = client.begin(role, exchange.keep_conn, out).unwrap();
            prop_assert_eq!(id, id_of(number));
            let mut params = ParamsBuilder::new(1 << 20);
            for (name, value) in &exchange.params {
                params.push(name, value).unwrap();
            }
            client.params(id, &params, out).unwrap();
        }
        let mut turns = 0;
        while arrived.iter().any(|one| one.end.is_none()) {
            turns += 1;
            prop_assert!(turns < 100_000, "it does not come to its end");
            let first = choices.below(exchanges.len());
            let mut turn = (0..exchanges.len()).map(|step| (first + step) % exchanges.len());
            turn.find(|&number| {
                let (exchange, out) = (&exchanges[number], &mut there.on_the_way);
                say(&mut client, id_of(number), exchange, &mut said[number], out)
            });
            // An application answers when it has all, in any order.
            let chosen = choices.below(answers.len());
            let number = answers.keys().nth(chosen).copied();
            if let Some((number, step)) = number.and_then(|n| Some((n, answers.get_mut(&n)?))) {
                let at = std::mem::replace(step, *step + 1);
                let out = &mut back.on_the_way;
                if !answer(&mut server, id_of(number), &exchanges[number], at, out) {
                    answers.remove(&number);
                }
            }
            let cut = [1, 7, 8, 9, 100, 1 << 20][choices.below(6)];
            there.deliver(cut.max(there.on_the_way.len() / 50));
            back.deliver(cut.max(back.on_the_way.len() / 50));
            loop {
                let event = server.poll(&mut there.arrived, &mut back.on_the_way);
                match event.expect("no fault") {
                    ServerEvent::NeedMore => break,
                    ServerEvent::Request { id, params, .. } => {
                        let pairs = params.iter().map(|(name, value)| (name.to_vec(), value.to_vec()));
                        arrived[usize::from(id) - 1].params = pairs.collect();
                        if exchanges[usize::from(id) - 1].authorizer {
                            answers.insert(usize::from(id) - 1, 0);
                        }
                    }
                    ServerEvent::Stdin { id, len } => {
                        let data = server.take(&mut there.arrived, len.min(1 + choices.below(50)));
                        arrived[usize::from(id) - 1].stdin.extend_from_slice(&data);
                    }
                    ServerEvent::StdinEnd { id } => {
                        answers.insert(usize::from(id) - 1, 0);
                    }
                    event => prop_assert!(false, "{event:?}"),
                }
            }
            loop {
                match client.poll(&mut back.arrived).expect("no fault") {
                    ClientEvent::NeedMore => break,
                    ClientEvent::Stdout { id, len } => {
                        let data = client.take(&mut back.arrived, len.min(1 + choices.below(50)));
                        arrived[usize::from(id) - 1].stdout.extend_from_slice(&data);
                    }
                    ClientEvent::Stderr { id, len } => {
                        let data = client.take(&mut back.arrived, len);
                        arrived[usize::from(id) - 1].stderr.extend_from_slice(&data);
                    }
                    ClientEvent::StdoutEnd { .. } => {}
                    ClientEvent::End { id, app_status, status, reusable } => {
                        prop_assert_eq!(status, ProtocolStatus::RequestComplete);
                        arrived[usize::from(id) - 1].end = Some((app_status, reusable));
                    }
                    event => prop_assert!(false, "{event:?}"),
                }
            }
        }
        for (arrived, exchange) in arrived.iter().zip(&exchanges) {
            let expected = Arrived {
                params: exchange.params.clone(),
                stdin: exchange.stdin.concat(),
                stdout: exchange.stdout.concat(),
                stderr: exchange.stderr.concat(),
                end: Some((exchange.app_status, exchange.keep_conn)),
            };
            prop_assert_eq!(arrived, &expected);
        }
        prop_assert_eq!((client.requests(), server.requests()), (0, 0));
        back.deliver(usize::MAX);
        prop_assert!(client.settle(&mut back.arrived), "another request could begin");
    }
}
