//! One connection of an origin: reads requests and acts out scripts.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::script::{Act, Gate, Script};
use super::{Received, Shared};
use crate::journal::lock;
use crate::pattern;
use crate::wire::{self, Body, Framing, Source, Trouble};

/// Bytes kept of each connection and of each body; the rest is only counted.
const KEEP_BYTES: usize = 16 << 20;
/// Pieces of one connection that are written into the journal.
const JOURNAL_PIECES: usize = 64;

/// The origin's end of a connection.
pub(super) struct Link {
    socket: Socket,
    shared: Arc<Shared>,
    who: String,
    id: usize,
    pending: Vec<u8>,
    start: usize,
    pieces: usize,
    trouble: Option<Trouble>,
}

/// Whether the connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    End,
}

impl Link {
    pub(super) fn new(socket: Socket, shared: Arc<Shared>, id: usize) -> Self {
        let who = format!("{}.{id}", shared.name);
        shared.journal.note(&who, "accepted");
        Self {
            socket,
            shared,
            who,
            id,
            pending: Vec::new(),
            start: 0,
            pieces: 0,
            trouble: None,
        }
    }

    pub(super) fn serve(&mut self) {
        if let Some(script) = self.shared.on_accept.clone()
            && self.act(&script, None) == Next::End
        {
            return;
        }
        if self.shared.proxy_header && self.read_proxy_header().is_err() {
            return;
        }
        while let Ok(index) = self.read_request() {
            let request = lock(&self.shared.state).requests[index].clone();
            let script = (self.shared.handler)(&request);
            if !script.early && self.read_body(index).is_err() {
                return;
            }
            if self.act(&script, Some(index)) == Next::End || self.read_body(index).is_err() {
                return;
            }
        }
    }

    pub(super) fn finish(&mut self) {
        let trouble = self.trouble.take();
        self.shared.journal.note(
            &self.who,
            &match &trouble {
                Some(t) => format!("over: {t}"),
                None => "over: closed here".into(),
            },
        );
        let mut state = lock(&self.shared.state);
        state.open.remove(&self.id);
        state.conns[self.id].end = Some(trouble);
        drop(state);
        let _ = self.socket.shutdown(Shutdown::Both);
        self.shared.changed.notify_all();
    }

    fn read_proxy_header(&mut self) -> Result<(), Trouble> {
        const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
        let end = loop {
            let pending = self.pending();
            if pending.starts_with(V2) && pending.len() >= 16 {
                let len = 16 + usize::from(u16::from_be_bytes([pending[14], pending[15]]));
                if pending.len() >= len {
                    break len;
                }
            } else if let Some(end) = wire::find(pending, b"\r\n").filter(|&e| e > 0) {
                break end + 2;
            }
            if self.fill()? == 0 {
                return Err(Trouble::Truncated);
            }
        };
        let header = self.pending()[..end].to_vec();
        self.consume(end);
        lock(&self.shared.state).conns[self.id].proxy_header = header;
        Ok(())
    }

    /// Reads a head and gives the number of the request it begins.
    fn read_request(&mut self) -> Result<usize, Trouble> {
        let end = loop {
            if let Some(end) = wire::find(self.pending(), b"\r\n\r\n") {
                break end + 4;
            }
            if self.fill()? == 0 {
                return Err(Trouble::Closed);
            }
        };
        let raw = self.pending()[..end].to_vec();
        self.consume(end);
        let mut request = parse_request(&raw).map_err(Trouble::Malformed)?;
        let mut state = lock(&self.shared.state);
        request.conn = self.id;
        request.nth = state.conns[self.id].requests;
        if request.framing() == Framing::None {
            request.body_end = Some(Ok(()));
        }
        state.conns[self.id].requests += 1;
        state.requests.push(request);
        let index = state.requests.len() - 1;
        drop(state);
        self.shared.changed.notify_all();
        Ok(index)
    }

    fn read_body(&mut self, index: usize) -> Result<(), Trouble> {
        let framing = {
            let state = lock(&self.shared.state);
            let request = &state.requests[index];
            if let Some(end) = &request.body_end {
                return end.clone();
            }
            request.framing()
        };
        let mut body = Body::new(framing);
        let end = loop {
            match body.next(self) {
                Ok(Some(part)) => {
                    let mut state = lock(&self.shared.state);
                    let request = &mut state.requests[index];
                    request.body_len += part.len() as u64;
                    let room = KEEP_BYTES
                        .saturating_sub(request.body.len())
                        .min(part.len());
                    request.body.extend_from_slice(&part[..room]);
                    drop(state);
                    self.shared.changed.notify_all();
                }
                Ok(None) => break Ok(()),
                Err(trouble) => break Err(trouble),
            }
        };
        let mut state = lock(&self.shared.state);
        state.requests[index].trailers = body.trailers;
        state.requests[index].body_end = Some(end.clone());
        drop(state);
        self.shared.changed.notify_all();
        end
    }

    fn act(&mut self, script: &Script, request: Option<usize>) -> Next {
        for act in &script.acts {
            match act {
                Act::Send(bytes) => {
                    if !self.send(bytes) {
                        return Next::End;
                    }
                }
                Act::Pattern(len) => {
                    if !self.send_pattern(*len) {
                        return Next::End;
                    }
                }
                Act::Part {
                    at,
                    len,
                    rate,
                    chunked,
                } => {
                    if !self.send_part(*at, *len, *rate, *chunked) {
                        return Next::End;
                    }
                }
                Act::Trickle(bytes, piece, pause) => {
                    for part in bytes.chunks(*piece) {
                        if !self.send(part) {
                            return Next::End;
                        }
                        std::thread::sleep(*pause);
                    }
                }
                Act::ReadBody => {
                    if request.is_some_and(|index| self.read_body(index).is_err()) {
                        return Next::End;
                    }
                }
                Act::Delay(time) => std::thread::sleep(*time),
                Act::Wait(gate) => self.wait_gate(gate),
                Act::Open(gate) => gate.open(),
                Act::Stall => {
                    while !matches!(self.fill(), Ok(0) | Err(_)) {}
                    return Next::End;
                }
                Act::HalfClose => {
                    let _ = self.socket.shutdown(Shutdown::Write);
                }
                Act::Close => {
                    self.shared.journal.note(&self.who, "closes");
                    return Next::End;
                }
                Act::Reset => {
                    self.shared.journal.note(&self.who, "resets");
                    let _ = self.socket.set_linger(Some(Duration::ZERO));
                    // The reset goes out with the last handle, so the other one must go first.
                    lock(&self.shared.state).open.remove(&self.id);
                    if let Ok(fresh) = Socket::new(Domain::IPV4, Type::STREAM, None) {
                        self.socket = fresh;
                    }
                    return Next::End;
                }
            }
        }
        Next::Request
    }

    fn wait_gate(&self, gate: &Gate) {
        while !gate.wait(Duration::from_millis(50)) {
            if self.shared.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn send_pattern(&mut self, len: u64) -> bool {
        let period = pattern::period();
        let mut offset = 0;
        while offset < len {
            let most = usize::try_from(len - offset)
                .unwrap_or(usize::MAX)
                .min(65_521);
            let part = pattern::cut(&period, offset, most);
            if !self.send(part) {
                return false;
            }
            offset += part.len() as u64;
        }
        true
    }

    fn send_part(&mut self, at: u64, len: u64, rate: u64, chunked: bool) -> bool {
        let period = pattern::period();
        let begun = Instant::now();
        // At a rate: a piece every 20 ms.
        let piece = usize::try_from(rate / 50).unwrap_or(usize::MAX);
        let piece = if rate == 0 { 65_521 } else { piece.max(1) };
        let mut sent = 0;
        while sent < len {
            let most = usize::try_from(len - sent).unwrap_or(usize::MAX).min(piece);
            let part = pattern::cut(&period, at + sent, most);
            let is_sent = match chunked {
                true => {
                    let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
                    chunk.extend_from_slice(part);
                    chunk.extend(b"\r\n");
                    self.send(&chunk)
                }
                false => self.send(part),
            };
            if !is_sent || self.shared.stop.load(Ordering::Relaxed) {
                return false;
            }
            sent += part.len() as u64;
            if let Some(ms) = (sent * 1000).checked_div(rate) {
                let due = begun + Duration::from_millis(ms);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        true
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.note_bytes("→", bytes);
        let mut left = bytes;
        while !left.is_empty() {
            match self.socket.write(left) {
                Ok(n) => {
                    left = &left[n..];
                    lock(&self.shared.state).conns[self.id].sent += n as u64;
                    self.shared.changed.notify_all();
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.trouble = Some(Trouble::Reset);
                    return false;
                }
            }
        }
        true
    }

    fn note_bytes(&mut self, arrow: &str, bytes: &[u8]) {
        self.pieces += 1;
        if self.pieces <= JOURNAL_PIECES {
            self.shared.journal.bytes(&self.who, arrow, bytes);
        }
    }
}

impl Source for Link {
    fn pending(&self) -> &[u8] {
        &self.pending[self.start..]
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
    }

    fn fill(&mut self) -> Result<usize, Trouble> {
        self.pending.drain(..self.start);
        self.start = 0;
        let mut buf = [0; 64 * 1024];
        let read = loop {
            match self.socket.read(&mut buf) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let n = match read {
            Ok(n) => n,
            Err(e) => {
                let trouble = match e.kind() {
                    ErrorKind::ConnectionReset => Trouble::Reset,
                    _ => Trouble::Io(e.to_string()),
                };
                self.trouble = Some(trouble.clone());
                return Err(trouble);
            }
        };
        if n == 0 {
            self.trouble = Some(Trouble::Closed);
            return Ok(0);
        }
        self.note_bytes("←", &buf[..n]);
        let mut state = lock(&self.shared.state);
        let seen = &mut state.conns[self.id];
        seen.received += n as u64;
        let room = KEEP_BYTES.saturating_sub(seen.bytes.len()).min(n);
        seen.bytes.extend_from_slice(&buf[..room]);
        drop(state);
        self.shared.changed.notify_all();
        self.pending.extend_from_slice(&buf[..n]);
        Ok(n)
    }
}

impl Received {
    fn framing(&self) -> Framing {
        if wire::has_token(&self.fields, "transfer-encoding", "chunked") {
            return Framing::Chunked;
        }
        let length = self
            .all("content-length")
            .first()
            .and_then(|v| v.parse().ok());
        length.map_or(Framing::None, Framing::Length)
    }
}

/// As forgiving as an origin may be: what it cannot read ends the connection.
fn parse_request(raw: &[u8]) -> Result<Received, String> {
    let text = String::from_utf8_lossy(raw);
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(format!("request line {line:?}"));
    };
    let fields = lines
        .map(|l| {
            let (name, value) = l.split_once(':').ok_or_else(|| format!("field {l:?}"))?;
            Ok((name.to_owned(), value.trim().to_owned()))
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok(Received {
        conn: 0,
        nth: 0,
        raw: raw.to_vec(),
        method: method.into(),
        target: target.into(),
        minor: u8::from(version != "HTTP/1.0"),
        fields,
        body: Vec::new(),
        body_len: 0,
        trailers: Vec::new(),
        body_end: None,
    })
}
