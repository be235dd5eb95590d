//! Feeds either role in pieces and puts what comes out into one comparable text.

use bytes::BytesMut;
use forebay_fastcgi::{
    Capacity, Client, ClientEvent, Fault, Limits, ParamsBuilder, Server, ServerEvent,
};

pub(crate) const CAPACITY: Capacity = Capacity {
    max_conns: 10,
    max_reqs: 20,
    responder: true,
    authorizer: true,
    filter: false,
};

/// A record without padding.
pub(crate) fn record(kind: u8, id: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut record = vec![1, kind, 0, id, len[0], len[1], 0, 0];
    record.extend_from_slice(content);
    record
}

pub(crate) fn begin(id: u8, role: u8, flags: u8) -> Vec<u8> {
    record(1, id, &[0, role, flags, 0, 0, 0, 0, 0])
}

pub(crate) fn params(pairs: &[(&str, &str)]) -> ParamsBuilder {
    let mut params = ParamsBuilder::new(1 << 20);
    for (name, value) in pairs {
        params.push(name.as_bytes(), value.as_bytes()).unwrap();
    }
    params
}

/// Events as lines; neighbouring data of one stream are one.
#[derive(Default)]
struct Story {
    lines: Vec<String>,
    data: Option<(String, Vec<u8>)>,
}

impl Story {
    fn data(&mut self, stream: String, bytes: &[u8]) {
        match &mut self.data {
            Some((last, data)) if *last == stream => data.extend_from_slice(bytes),
            _ => {
                self.flush();
                self.data = Some((stream, bytes.to_vec()));
            }
        }
    }

    fn flush(&mut self) {
        if let Some((stream, data)) = self.data.take() {
            self.lines.push(format!("{stream} {}", data.escape_ascii()));
        }
    }

    fn event(&mut self, event: &impl std::fmt::Debug) {
        self.flush();
        self.lines.push(format!("{event:?}"));
    }
}

pub(crate) fn server_in(pieces: &[&[u8]], limits: Limits, most: usize) -> (Vec<String>, Vec<u8>) {
    let (mut server, mut buf) = (Server::new(limits, CAPACITY), BytesMut::new());
    let (mut out, mut story) = (Vec::new(), Story::default());
    let mut fault = None::<Fault>;
    'pieces: for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match server.poll(&mut buf, &mut out) {
                Ok(ServerEvent::NeedMore) => break,
                Ok(ServerEvent::Stdin { id, len }) => {
                    let data = server.take(&mut buf, len.min(most));
                    story.data(format!("stdin {id}"), &data);
                }
                Ok(event) => story.event(&event),
                Err(error) => {
                    fault = Some(error);
                    break 'pieces;
                }
            }
        }
    }
    story.event(&fault.map_or_else(|| server.handle_eof(&buf), Err));
    (story.lines, out)
}

/// A client that has begun `ids` requests from 1 on, and has asked for values.
pub(crate) fn client_in(pieces: &[&[u8]], ids: u16, most: usize) -> Vec<String> {
    let (mut client, mut buf) = (Client::new(Limits::default()), BytesMut::new());
    let mut out = Vec::new();
    for _ in 0..ids {
        let role = forebay_fastcgi::Role::Responder;
        client.begin(role, true, &mut out).unwrap();
    }
    client.get_values(&mut out).unwrap();
    let (mut story, mut fault) = (Story::default(), None::<Fault>);
    'pieces: for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match client.poll(&mut buf) {
                Ok(ClientEvent::NeedMore) => break,
                Ok(ClientEvent::Stdout { id, len }) => {
                    let data = client.take(&mut buf, len.min(most));
                    story.data(format!("stdout {id}"), &data);
                }
                Ok(ClientEvent::Stderr { id, len }) => {
                    let data = client.take(&mut buf, len.min(most));
                    story.data(format!("stderr {id}"), &data);
                }
                Ok(event) => story.event(&event),
                Err(error) => {
                    fault = Some(error);
                    break 'pieces;
                }
            }
        }
    }
    story.event(&fault.map_or_else(|| client.handle_eof(&buf), Err));
    story.lines
}
