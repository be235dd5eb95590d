//! What a test says to a server, and how: whole requests, raw bytes, in pieces, slowly, not at all.
//!
//! A [`Client`] knows where the server is and opens connections; a [`Conn`] is one of them. Methods
//! that expect something panic with a sentence when it does not come, and the journal is printed.

mod request;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

pub use request::Request;

use crate::journal::Journal;
use crate::pattern::Checker;
use crate::wait::PATIENCE;
use crate::wire::{self, Body, Head, Response, Source, Trouble};
use crate::{proc, wait};

/// Pieces of one connection that are written into the journal with their bytes.
const JOURNAL_PIECES: usize = 64;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP, without TLS.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    fn sock_addr(&self) -> SockAddr {
        match self {
            Self::Tcp(addr) => (*addr).into(),
            Self::Unix(path) => SockAddr::unix(path).expect("a path that fits a Unix address"),
        }
    }
}

/// Opens connections to one server.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    journal: Arc<Journal>,
    receive_buffer: Option<usize>,
    patience: Duration,
    from: Option<SocketAddr>,
}

impl Client {
    /// A client of this endpoint, writing to this thread's journal.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let journal = Journal::current();
        Self {
            endpoint,
            journal,
            receive_buffer: None,
            patience: PATIENCE,
            from: None,
        }
    }

    /// A client of a TCP address.
    #[must_use]
    pub fn tcp(addr: SocketAddr) -> Self {
        Self::new(Endpoint::Tcp(addr))
    }

    /// The same client with a small receive buffer, so that what it does not read waits in the
    /// server and not in the kernel.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// The same client, waiting this long for each piece.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same client, connecting from this local address (port 0: any).
    #[must_use]
    pub fn from(mut self, local: &str) -> Self {
        self.from = Some(SocketAddr::new(local.parse().expect("an address"), 0));
        self
    }

    /// Where it connects to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Opens a connection.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    #[must_use]
    pub fn connect(&self) -> Conn {
        self.try_connect()
            .unwrap_or_else(|e| panic!("connect to {:?}: {e}", self.endpoint))
    }

    /// Opens a connection if the server takes it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn try_connect(&self) -> io::Result<Conn> {
        let addr = self.endpoint.sock_addr();
        let domain = match &self.endpoint {
            Endpoint::Tcp(a) => Domain::for_address(*a),
            Endpoint::Unix(_) => Domain::UNIX,
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
            // Loopback's segments of 64 KiB do not fit a small window: each would wait for a timer.
            if domain != Domain::UNIX {
                socket.set_tcp_mss(1460)?;
            }
        }
        if let Some(from) = self.from {
            socket.bind(&from.into())?;
        }
        socket.connect_timeout(&addr, self.patience)?;
        socket.set_read_timeout(Some(self.patience))?;
        socket.set_write_timeout(Some(self.patience))?;
        if domain != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        let who = format!("client#{}", self.journal.number());
        self.journal.note(&who, "connected");
        Ok(Conn {
            socket,
            who,
            journal: Arc::clone(&self.journal),
            pending: Vec::new(),
            start: 0,
            pieces: 0,
            methods: VecDeque::new(),
            patience: self.patience,
        })
    }

    /// A GET on a connection of its own.
    ///
    /// # Panics
    /// When no whole response comes.
    #[track_caller]
    #[must_use]
    pub fn get(&self, target: &str) -> Response {
        self.request(&Request::get(target))
    }

    /// A request on a connection of its own.
    ///
    /// # Panics
    /// When no whole response comes.
    #[track_caller]
    #[must_use]
    pub fn request(&self, request: &Request) -> Response {
        self.connect().exchange(request)
    }

    /// Bytes on a connection of their own, and the response to them.
    ///
    /// # Panics
    /// When no whole response comes.
    #[track_caller]
    #[must_use]
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut conn = self.connect();
        conn.raw(bytes);
        conn.read_response()
    }

    /// As [`Client::raw`], in two pieces: the second is sent when the server has read the first.
    ///
    /// # Panics
    /// When no whole response comes.
    #[track_caller]
    #[must_use]
    pub fn raw_in_pieces(&self, bytes: impl AsRef<[u8]>, split: usize) -> Response {
        let mut conn = self.connect();
        conn.raw_in_pieces(bytes, split);
        conn.read_response()
    }

    /// Sends `bytes` once for every place they can be split at, and gives what came back: for each
    /// split all responses up to the end of the connection, and how it ended. The client closes its
    /// sending side, so a server that would wait for more ends as well.
    ///
    /// # Panics
    /// When a connection is refused or the server does not read.
    #[track_caller]
    #[must_use]
    pub fn split_everywhere(&self, bytes: &[u8]) -> Vec<(usize, Transcript)> {
        let mut conns: Vec<(usize, Conn)> =
            (1..bytes.len()).map(|at| (at, self.connect())).collect();
        for (at, conn) in &mut conns {
            conn.note_method(bytes);
            conn.write(&bytes[..*at]);
        }
        let ports: Vec<u16> = conns.iter().filter_map(|(_, c)| c.local_port()).collect();
        wait::until("the server to read the first pieces", || {
            proc::has_read(&ports)
        });
        for (at, conn) in &mut conns {
            // The server may have refused the first piece already; what it said is what counts.
            let _ = conn.try_write(&bytes[*at..]);
            conn.half_close();
        }
        conns
            .into_iter()
            .map(|(at, mut conn)| (at, conn.read_all()))
            .collect()
    }
}

/// All that a connection brought until its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// The whole responses.
    pub responses: Vec<Response>,
    /// How it ended; `Closed` is a clean end after a whole response.
    pub end: Trouble,
}

impl Transcript {
    /// The status codes.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        self.responses.iter().map(Response::status).collect()
    }
}

/// One connection to a server.
pub struct Conn {
    socket: Socket,
    who: String,
    journal: Arc<Journal>,
    pending: Vec<u8>,
    start: usize,
    pieces: usize,
    methods: VecDeque<String>,
    patience: Duration,
}

impl Conn {
    /// Sends a request.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn send(&mut self, request: &Request) {
        self.methods.push_back(request.method().into());
        self.write(&request.to_bytes());
    }

    /// Sends a request and reads the response.
    ///
    /// # Panics
    /// When no whole response comes.
    #[track_caller]
    pub fn exchange(&mut self, request: &Request) -> Response {
        self.send(request);
        self.read_response()
    }

    /// Sends a GET and reads the response.
    ///
    /// # Panics
    /// When no whole response comes.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.exchange(&Request::get(target))
    }

    /// Sends all requests in one segment, then reads all responses.
    ///
    /// # Panics
    /// When a response is missing.
    #[track_caller]
    pub fn pipeline(&mut self, requests: &[Request]) -> Vec<Response> {
        let mut bytes = Vec::new();
        for request in requests {
            self.methods.push_back(request.method().into());
            bytes.extend(request.to_bytes());
        }
        self.write(&bytes);
        requests.iter().map(|_| self.read_response()).collect()
    }

    /// Sends bytes. Responses are read as those to the method the bytes begin with.
    ///
    /// # Panics
    /// When the server does not take them.
    #[track_caller]
    pub fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.note_method(bytes.as_ref());
        self.write(bytes.as_ref());
    }

    /// Sends bytes as far as the server takes them.
    ///
    /// # Errors
    /// When it closed or reset the connection, or does not read.
    pub fn try_raw(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.note_method(bytes.as_ref());
        self.try_write(bytes.as_ref())
    }

    /// Sends bytes in two pieces, the second when the server has read the first.
    ///
    /// # Panics
    /// When the server does not take them.
    #[track_caller]
    pub fn raw_in_pieces(&mut self, bytes: impl AsRef<[u8]>, split: usize) {
        let bytes = bytes.as_ref();
        self.note_method(bytes);
        self.write(&bytes[..split]);
        self.wait_until_read();
        self.write(&bytes[split..]);
    }

    /// Sends bytes `piece` at a time with a pause between; ends early if the server closes.
    ///
    /// # Errors
    /// When the server closed or reset the connection.
    pub fn slow_write(&mut self, bytes: &[u8], piece: usize, pause: Duration) -> io::Result<()> {
        self.note_method(bytes);
        for (i, part) in bytes.chunks(piece).enumerate() {
            if i > 0 {
                std::thread::sleep(pause);
            }
            self.try_write(part)?;
        }
        Ok(())
    }

    /// Waits until the server has taken everything sent so far out of its socket (TCP only).
    ///
    /// # Panics
    /// When it does not read.
    #[track_caller]
    pub fn wait_until_read(&self) {
        let port = self.local_port().expect("a TCP connection");
        wait::until("the server to read what was sent", || {
            proc::has_read(&[port])
        });
    }

    /// Reads the response to the oldest request that has none yet.
    ///
    /// # Panics
    /// When no whole response comes.
    #[track_caller]
    pub fn read_response(&mut self) -> Response {
        self.try_read_response()
            .unwrap_or_else(|t| panic!("{}: {t}", self.who))
    }

    /// As [`Conn::read_response`], if one comes.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn try_read_response(&mut self) -> Result<Response, Trouble> {
        let mut whole = Vec::new();
        let response = self.read_response_with(|part| whole.extend_from_slice(part))?;
        Ok(Response {
            body: whole,
            ..response
        })
    }

    /// As [`Conn::try_read_response`], but if nothing came in time the request stays unanswered and
    /// its response can be read later.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn try_peek_response(&mut self) -> Result<Response, Trouble> {
        if self.pending().is_empty() && self.fill()? == 0 {
            return Err(Trouble::Closed);
        }
        self.try_read_response()
    }

    /// Reads a response and gives each part of its body to `sink`; the response returned has none.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn read_response_with(&mut self, mut sink: impl FnMut(&[u8])) -> Result<Response, Trouble> {
        let method = self.methods.pop_front().unwrap_or_else(|| "GET".into());
        let mut interim = Vec::new();
        let head = wire::read_head(self, &mut interim)?;
        let framing = wire::framing(&head, &method).map_err(Trouble::Malformed)?;
        let mut body = Body::new(framing);
        while let Some(part) = body.next(self)? {
            sink(&part);
        }
        Ok(Response {
            head,
            body: Vec::new(),
            trailers: body.trailers,
            interim,
            framing,
        })
    }

    /// Reads a head and leaves its body; the [`Body`] reads it.
    ///
    /// # Panics
    /// When no head comes.
    #[track_caller]
    pub fn read_head(&mut self) -> (Head, Body) {
        let method = self.methods.pop_front().unwrap_or_else(|| "GET".into());
        let head =
            wire::read_head(self, &mut Vec::new()).unwrap_or_else(|t| panic!("{}: {t}", self.who));
        let framing = wire::framing(&head, &method).unwrap_or_else(|t| panic!("{}: {t}", self.who));
        (head, Body::new(framing))
    }

    /// Reads one interim response (1xx).
    ///
    /// # Panics
    /// When anything else comes.
    #[track_caller]
    pub fn read_interim(&mut self) -> Head {
        loop {
            if let Some(end) = wire::find(self.pending(), b"\r\n\r\n") {
                let head = wire::parse_head(&self.pending()[..end + 4])
                    .unwrap_or_else(|t| panic!("{}: {t}", self.who));
                assert!(
                    head.status < 200,
                    "{} instead of an interim response",
                    head.status
                );
                self.consume(end + 4);
                return head;
            }
            match self.fill() {
                Ok(0) => panic!("{}: closed instead of an interim response", self.who),
                Ok(_) => {}
                Err(t) => panic!("{}: {t}", self.who),
            }
        }
    }

    /// Reads a response whose body is a [`crate::pattern`], at most `rate` bytes a second (0: as
    /// fast as it comes), checks every byte and returns the head and the length of the body.
    ///
    /// # Errors
    /// See [`Trouble`].
    ///
    /// # Panics
    /// When the body is another one.
    #[track_caller]
    pub fn slow_read(&mut self, rate: u64) -> Result<(Head, u64), Trouble> {
        let begun = Instant::now();
        let mut checker = Checker::default();
        let response = self.read_response_with(|part| {
            checker.feed(part);
            if let Some(ms) = (checker.offset() * 1000).checked_div(rate) {
                let due = begun + Duration::from_millis(ms);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        })?;
        Ok((response.head, checker.offset()))
    }

    /// Reads everything up to the end of the connection.
    #[must_use]
    pub fn read_all(&mut self) -> Transcript {
        let mut responses = Vec::new();
        loop {
            match self.try_read_response() {
                Ok(response) => responses.push(response),
                Err(end) => return Transcript { responses, end },
            }
        }
    }

    /// Reads so many responses.
    ///
    /// # Panics
    /// When one of them is missing.
    #[track_caller]
    pub fn read_responses(&mut self, count: usize) -> Vec<Response> {
        (0..count).map(|_| self.read_response()).collect()
    }

    /// Sends the head of a request and keeps its body back.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn send_head(&mut self, request: &Request) {
        self.methods.push_back(request.method().into());
        self.write(&request.head_bytes());
    }

    /// Sends the rest of a request that was begun; as far as the server takes it.
    ///
    /// # Errors
    /// When it closed or reset the connection, or does not read.
    pub fn try_more(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.try_write(bytes.as_ref())
    }

    /// Sends the rest of a request that was begun.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn more(&mut self, bytes: impl AsRef<[u8]>) {
        self.write(bytes.as_ref());
    }

    /// Expects exactly these bytes next.
    ///
    /// # Panics
    /// When others come, or nothing.
    #[track_caller]
    pub fn expect_bytes(&mut self, bytes: &[u8]) {
        while self.pending().len() < bytes.len() {
            match self.fill() {
                Ok(0) => panic!("{}: the end instead of bytes", self.who),
                Ok(_) => {}
                Err(t) => panic!("{}: {t}", self.who),
            }
        }
        let got = self.pending()[..bytes.len()].to_vec();
        assert_eq!(
            got.escape_ascii().to_string(),
            bytes.escape_ascii().to_string()
        );
        self.consume(bytes.len());
    }

    /// Expects the server to close the connection cleanly, with nothing more on it.
    ///
    /// # Panics
    /// When bytes come, a reset, or nothing.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        assert!(
            self.pending().is_empty(),
            "{}: bytes after the response",
            self.who
        );
        match self.fill() {
            Ok(0) => {}
            Ok(n) => panic!("{}: {n} bytes instead of the end", self.who),
            Err(t) => panic!("{}: {t} instead of the end", self.who),
        }
    }

    /// Expects the server to end the connection, cleanly or not, with nothing more on it.
    ///
    /// # Panics
    /// When bytes or nothing come.
    #[track_caller]
    pub fn expect_gone(&mut self) {
        assert!(
            self.pending().is_empty(),
            "{}: bytes after the response",
            self.who
        );
        match self.fill() {
            Ok(0) | Err(Trouble::Reset) => {}
            Ok(n) => panic!("{}: {n} bytes instead of the end", self.who),
            Err(t) => panic!("{}: {t} instead of the end", self.who),
        }
    }

    /// Expects a reset after whatever bytes come.
    ///
    /// # Panics
    /// When the end is clean or does not come.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        loop {
            match self.fill() {
                Ok(0) => panic!("{}: a clean end instead of a reset", self.who),
                Ok(_) => {}
                Err(Trouble::Reset) => return,
                Err(t) => panic!("{}: {t} instead of a reset", self.who),
            }
        }
    }

    /// Expects nothing to come within this time.
    ///
    /// # Panics
    /// When something comes.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        assert!(
            self.pending().is_empty(),
            "{}: bytes instead of silence",
            self.who
        );
        self.set_read_timeout(time);
        let got = self.fill();
        self.set_read_timeout(self.patience);
        assert!(
            got == Err(Trouble::Timeout),
            "{}: {got:?} instead of silence",
            self.who
        );
    }

    /// Closes the sending side.
    pub fn half_close(&mut self) {
        self.journal.note(&self.who, "half-closed");
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn abort(self) {
        self.journal.note(&self.who, "reset");
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// How long each read waits from now on.
    pub fn set_read_timeout(&mut self, time: Duration) {
        self.socket
            .set_read_timeout(Some(time))
            .expect("SO_RCVTIMEO");
    }

    /// How long each write waits from now on.
    ///
    /// # Panics
    /// When the socket is gone.
    pub fn set_write_timeout(&mut self, time: Duration) {
        self.socket
            .set_write_timeout(Some(time))
            .expect("SO_SNDTIMEO");
    }

    /// The local port, if this is TCP.
    #[must_use]
    pub fn local_port(&self) -> Option<u16> {
        self.socket.local_addr().ok()?.as_socket().map(|a| a.port())
    }

    /// Takes at most `most` bytes that have come, without waiting and without looking at them; how
    /// many there were.
    ///
    /// # Errors
    /// `Closed` at the end, `Reset`.
    pub fn drain(&mut self, most: usize) -> Result<usize, Trouble> {
        self.pending.clear();
        self.start = 0;
        self.socket
            .set_nonblocking(true)
            .map_err(|e| Trouble::Io(e.to_string()))?;
        let mut buf = vec![0; most];
        let read = self.socket.read(&mut buf);
        let _ = self.socket.set_nonblocking(false);
        match read {
            Ok(0) => Err(Trouble::Closed),
            Ok(n) => Ok(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Err(Trouble::Reset),
            Err(e) => Err(Trouble::Io(e.to_string())),
        }
    }

    /// A second handle that only writes, for a thread of its own.
    ///
    /// # Panics
    /// When there are no descriptors left.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer(self.socket.try_clone().expect("a second handle"))
    }

    fn note_method(&mut self, bytes: &[u8]) {
        let word: Vec<u8> = bytes
            .iter()
            .copied()
            .take_while(u8::is_ascii_alphabetic)
            .collect();
        self.methods
            .push_back(String::from_utf8_lossy(&word).into());
    }

    #[track_caller]
    fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes)
            .unwrap_or_else(|e| panic!("{}: write: {e}", self.who));
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.note_bytes("→", bytes);
        let done = self.socket.write_all(bytes);
        if let Err(e) = &done {
            self.journal
                .note(&self.who, &format!("could not write: {e}"));
        }
        done
    }

    fn note_bytes(&mut self, arrow: &str, bytes: &[u8]) {
        self.pieces += 1;
        if self.pieces <= JOURNAL_PIECES {
            self.journal.bytes(&self.who, arrow, bytes);
        } else if self.pieces.is_power_of_two() {
            self.journal
                .note(&self.who, &format!("{arrow} piece {}", self.pieces));
        }
    }
}

impl Source for Conn {
    fn pending(&self) -> &[u8] {
        &self.pending[self.start..]
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.pending.len() {
            self.pending.clear();
            self.start = 0;
        }
    }

    fn fill(&mut self) -> Result<usize, Trouble> {
        self.pending.drain(..self.start);
        self.start = 0;
        let mut buf = [0; 16 * 1024];
        let read = loop {
            match self.socket.read(&mut buf) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match read {
            Ok(n) => {
                if n == 0 {
                    self.journal.note(&self.who, "← end");
                } else {
                    self.note_bytes("←", &buf[..n]);
                }
                self.pending.extend_from_slice(&buf[..n]);
                Ok(n)
            }
            Err(e) => {
                self.journal.note(&self.who, &format!("← {e}"));
                Err(match e.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Trouble::Timeout,
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Trouble::Reset,
                    _ => Trouble::Io(e.to_string()),
                })
            }
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.journal.print_if_panicking();
    }
}

/// The sending side of a connection.
pub struct Writer(Socket);

impl Writer {
    /// Sends bytes as far as the server takes them.
    ///
    /// # Errors
    /// When it closed or reset the connection, or does not read.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}
