//! An origin that records every byte and misbehaves as its scripts say.
//!
//! A thread accepts; every connection has a thread of its own, which reads a request, asks the
//! handler for a [`Script`] and acts it out, until the script or the other side ends the connection.

pub mod asset;
mod link;
pub mod script;

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::journal::{Journal, lock};
use crate::port::Reserved;
use crate::wait::PATIENCE;
use crate::wire::{self, Field, Trouble};
use link::Link;
use script::Script;

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
        let mut link = Link::new(socket, Arc::clone(shared), id);
        std::thread::spawn(move || {
            link.serve();
            link.finish();
        });
    }
}
