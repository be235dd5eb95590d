//! An origin that records every byte and misbehaves as its scripts say.
//!
//! A thread accepts; every connection has a thread of its own, which reads a request, asks the
//! handler for a [`Script`] and acts it out, until the script or the other side ends the connection.

pub mod script;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::journal::{Journal, lock};
use crate::pattern;
use crate::port::Reserved;
use crate::wait::PATIENCE;
use crate::wire::{self, Body, Field, Framing, Source, Trouble};
use script::{Act, Gate, Script};

/// Bytes kept of each connection and of each body; the rest is only counted.
const KEEP_BYTES: usize = 16 << 20;
/// Pieces of one connection that are written into the journal.
const JOURNAL_PIECES: usize = 64;

/// A request as the origin received it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The number of its connection, from 0.
    pub conn: usize,
    /// How many requests came on it before.
    pub nth: usize,
    /// The bytes of the head, the empty line included.
    pub raw: Vec<u8>,
    /// The method.
    pub method: String,
    /// The target as it stood in the request line.
    pub target: String,
    /// 0 or 1.
    pub minor: u8,
    /// The fields in their order.
    pub fields: Vec<Field>,
    /// The body, up to 16 MiB of it; whole when `body_end` is `Some(Ok(()))`.
    pub body: Vec<u8>,
    /// How many bytes of it came.
    pub body_len: u64,
    /// The trailer fields.
    pub trailers: Vec<Field>,
    /// How the body ended, when it has.
    pub body_end: Option<Result<(), Trouble>>,
}

impl Received {
    /// The value of the field that occurs at most once.
    ///
    /// # Panics
    /// When it occurs more than once.
    #[track_caller]
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} occurs {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// The values of all fields of this name.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        wire::find_all(&self.fields, name)
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[track_caller]
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }
}

/// A connection as the origin saw it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The bytes received, up to 16 MiB of them.
    pub bytes: Vec<u8>,
    /// How many bytes were received.
    pub received: u64,
    /// How many bytes were sent.
    pub sent: u64,
    /// The PROXY header, if the origin expects one.
    pub proxy_header: Vec<u8>,
    /// How many whole request heads came.
    pub requests: usize,
    /// When it is over: how the other side ended it (`Closed` or `Reset`), or `None` if we did.
    pub end: Option<Option<Trouble>>,
}

#[derive(Default)]
struct State {
    conns: Vec<Seen>,
    requests: Vec<Received>,
    open: HashMap<usize, Socket>,
}

type Handler = Box<dyn Fn(&Received) -> Script + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    handler: Handler,
    on_accept: Option<Script>,
    proxy_header: bool,
    journal: Arc<Journal>,
    name: String,
}

/// How an origin is to be.
pub struct Setup {
    routes: Vec<(String, Script)>,
    handler: Option<Handler>,
    on_accept: Option<Script>,
    proxy_header: bool,
}

impl Setup {
    /// What to do with requests for this path (the target up to `?`).
    #[must_use]
    pub fn route(mut self, path: &str, script: Script) -> Self {
        self.routes.push((path.into(), script));
        self
    }

    /// What to do with all other requests; without it the answer is a 200 whose body is the method,
    /// a space and the target.
    #[must_use]
    pub fn handle(mut self, handler: impl Fn(&Received) -> Script + Send + Sync + 'static) -> Self {
        self.handler = Some(Box::new(handler));
        self
    }

    /// What to do with a new connection before anything is read.
    #[must_use]
    pub fn on_accept(mut self, script: Script) -> Self {
        self.on_accept = Some(script);
        self
    }

    /// Every connection begins with a PROXY header, version 1 or 2.
    #[must_use]
    pub fn expect_proxy_header(mut self) -> Self {
        self.proxy_header = true;
        self
    }

    /// Starts it on a free port of 127.0.0.1.
    #[must_use]
    pub fn start(self) -> Origin {
        self.start_on(Arc::new(Reserved::new()))
    }

    /// Starts it on a reserved port, which may have been refusing connections before.
    #[must_use]
    pub fn start_on(self, port: Arc<Reserved>) -> Origin {
        let listener = Socket::from(port.listen());
        let addr = port.addr();
        self.run(listener, Place::Tcp(addr, port))
    }

    /// Starts it on a Unix socket at this path.
    ///
    /// # Panics
    /// When the socket cannot be made there.
    #[must_use]
    pub fn start_unix(self, path: &Path) -> Origin {
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let addr = SockAddr::unix(path).expect("a path that fits a Unix address");
        listener
            .bind(&addr)
            .unwrap_or_else(|e| panic!("bind {}: {e}", path.display()));
        listener.listen(4096).expect("listen");
        self.run(listener, Place::Unix(path.into()))
    }

    fn run(self, listener: Socket, place: Place) -> Origin {
        let journal = Journal::current();
        let name = format!("origin#{}", journal.number());
        let routes = self.routes;
        let fallback = self.handler;
        let handler = move |request: &Received| {
            let path = request.target.split('?').next().unwrap_or_default();
            if let Some((_, script)) = routes.iter().find(|(p, _)| p == path) {
                return script.clone();
            }
            match &fallback {
                Some(handler) => handler(request),
                None => Script::ok(format!("{} {}", request.method, request.target)),
            }
        };
        journal.note(&name, &format!("is {}", place.target()));
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            handler: Box::new(handler),
            on_accept: self.on_accept,
            proxy_header: self.proxy_header,
            journal,
            name,
        });
        let accepting = listener.try_clone().expect("a second handle");
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&shared, &accepting))
        };
        Origin {
            place,
            shared,
            listener,
            thread: Some(thread),
        }
    }
}

enum Place {
    Tcp(
        SocketAddr,
        #[expect(dead_code, reason = "kept from others")] Arc<Reserved>,
    ),
    Unix(PathBuf),
}

impl Place {
    fn target(&self) -> String {
        match self {
            Self::Tcp(addr, _) => addr.to_string(),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// A running origin; it ends when dropped.
pub struct Origin {
    place: Place,
    shared: Arc<Shared>,
    listener: Socket,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Origin {
    /// An origin to set up.
    #[must_use]
    pub fn setup() -> Setup {
        Setup {
            routes: Vec::new(),
            handler: None,
            on_accept: None,
            proxy_header: false,
        }
    }

    /// An origin that answers everything with the method and the target.
    #[must_use]
    pub fn echo() -> Self {
        Self::setup().start()
    }

    /// An origin that does the same with every request.
    #[must_use]
    pub fn always(script: Script) -> Self {
        Self::setup().handle(move |_| script.clone()).start()
    }

    /// What to write as a target in a configuration.
    #[must_use]
    pub fn target(&self) -> String {
        self.place.target()
    }

    /// Its TCP port.
    ///
    /// # Panics
    /// When it is on a Unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        match &self.place {
            Place::Tcp(addr, _) => addr.port(),
            Place::Unix(path) => panic!("{} has no port", path.display()),
        }
    }

    /// All requests whose heads have come so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.shared.state).requests.clone()
    }

    /// The only request that has come, its body read or broken off.
    ///
    /// # Panics
    /// When none or more came.
    #[track_caller]
    #[must_use]
    pub fn only_request(&self) -> Received {
        self.wait_for("one request with its body", |requests, _| {
            requests.len() == 1 && requests[0].body_end.is_some()
        });
        self.requests().remove(0)
    }

    /// Waits until so many requests have come, with their bodies, and returns them.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    #[must_use]
    pub fn wait_requests(&self, count: usize) -> Vec<Received> {
        self.wait_for(&format!("{count} requests"), |requests, _| {
            requests.iter().filter(|r| r.body_end.is_some()).count() >= count
        });
        self.requests()
    }

    /// All connections so far.
    #[must_use]
    pub fn connections(&self) -> Vec<Seen> {
        lock(&self.shared.state).conns.clone()
    }

    /// How many bytes have come on all connections together.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        lock(&self.shared.state)
            .conns
            .iter()
            .map(|c| c.received)
            .sum()
    }

    /// How many bytes were sent on all connections together.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        lock(&self.shared.state).conns.iter().map(|c| c.sent).sum()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.state).open.len()
    }

    /// Expects that nothing has ever come.
    ///
    /// # Panics
    /// When a byte has.
    #[track_caller]
    pub fn expect_untouched(&self) {
        let bytes: Vec<u8> = lock(&self.shared.state)
            .conns
            .iter()
            .flat_map(|c| c.bytes.clone())
            .collect();
        assert!(
            bytes.is_empty(),
            "the origin saw {}",
            crate::journal::escape(&bytes)
        );
    }

    /// Waits until this is true of the requests and the connections.
    ///
    /// # Panics
    /// When it does not become true.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut test: impl FnMut(&[Received], &[Seen]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = lock(&self.shared.state);
        while !test(&state.requests, &state.conns) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{}: waited in vain for {what}",
                self.shared.name
            );
            state = wait_changed(&self.shared, state, left);
        }
    }

    /// Waits until connection number `conn` is over and says how the other side ended it; `None`
    /// when the origin did.
    ///
    /// # Panics
    /// When it stays open.
    #[track_caller]
    #[must_use]
    pub fn wait_end(&self, conn: usize) -> Option<Trouble> {
        self.wait_for(&format!("the end of connection {conn}"), |_, conns| {
            conns.get(conn).is_some_and(|c| c.end.is_some())
        });
        lock(&self.shared.state).conns[conn].end.clone().flatten()
    }

    /// Closes every open connection, as an origin does with idle ones.
    pub fn close_all(&self) {
        for socket in lock(&self.shared.state).open.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.wait_for("its connections to end", |_, conns| {
            conns.iter().all(|c| c.end.is_some())
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.listener.shutdown(Shutdown::Both);
        for socket in lock(&self.shared.state).open.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Place::Unix(path) = &self.place {
            let _ = std::fs::remove_file(path);
        }
        self.shared.journal.print_if_panicking();
    }
}

fn wait_changed<'a>(
    shared: &'a Shared,
    state: MutexGuard<'a, State>,
    time: Duration,
) -> MutexGuard<'a, State> {
    match shared.changed.wait_timeout(state, time) {
        Ok((state, _)) => state,
        Err(poisoned) => poisoned.into_inner().0,
    }
}

fn accept(shared: &Arc<Shared>, listener: &Socket) {
    while let Ok((socket, _)) = listener.accept() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let _ = socket.set_tcp_nodelay(true);
        let Ok(handle) = socket.try_clone() else {
            return;
        };
        let id = {
            let mut state = lock(&shared.state);
            state.conns.push(Seen::default());
            let id = state.conns.len() - 1;
            state.open.insert(id, handle);
            id
        };
        shared.changed.notify_all();
        let mut link = Link {
            socket,
            shared: Arc::clone(shared),
            who: format!("{}.{id}", shared.name),
            id,
            pending: Vec::new(),
            start: 0,
            pieces: 0,
            trouble: None,
        };
        shared.journal.note(&link.who, "accepted");
        std::thread::spawn(move || {
            link.serve();
            link.finish();
        });
    }
}

/// The origin's end of a connection.
struct Link {
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
    fn serve(&mut self) {
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

    fn finish(&mut self) {
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
