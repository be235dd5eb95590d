//! Accepting, and what happens near the limits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_sys::net::{AcceptFault, refuse_new, to_unmapped};
use socket2::Socket;
use tokio::net::{TcpListener, TcpStream};

use super::Listener;
use super::place::{Place, serve};
use super::proxy_protocol::serve_behind_header;
use crate::exchange::{Remote, guard};
use crate::protocol::h1;
use crate::snapshot::Protocol;
use crate::transport::Transport;
use crate::worker::Worker;

/// What a client reads whom there is no room for. Written before anything is read from it: near
/// the limit nothing is spent on knowing what it wants.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
Content-Length: 0\r\nConnection: close\r\n\r\n";

/// At the limit this many of the oldest idle connections make room, so that looking for them is
/// paid once for many.
pub const REAP: usize = 32;

/// Of what a client has sent whom there is no room for, so many pieces of 4 KiB are read away: one
/// that sends without end must not keep the worker.
const REFUSED_READS: usize = 32;

/// Pause after an `accept` that fails for want of memory or descriptors.
const BREATH: Duration = Duration::from_millis(20);

/// Accepts on `socket` until the listener closes, then what still waits, then closes.
pub async fn accept_all(worker: Rc<Worker>, listener: Rc<Listener>, socket: TcpListener) {
    let mut spare = Spare::open();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = listener.closed() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                take(&worker, &listener, Transport::Tcp(stream), Some(address));
            }
            Err(error) => {
                spare
                    .get_over(&worker, &error, || accept_now(&socket))
                    .await
            }
        }
    }
    accept_dry(&worker, &listener, socket);
}

/// Takes what the kernel has already connected, after it was told to connect no more.
fn accept_dry(worker: &Rc<Worker>, listener: &Rc<Listener>, socket: TcpListener) {
    if let Err(error) = refuse_new(&socket) {
        tracing::debug!(%error, "a closing listener keeps taking connections to its end");
    }
    // By the system's own call: the runtime would only say what it has heard of already.
    let Ok(socket) = socket.into_std() else {
        return;
    };
    // Bounded: the backlog can hold no more than this once nothing new comes.
    for _ in 0..u16::MAX {
        match socket.accept() {
            Ok((stream, address)) => {
                let stream = stream
                    .set_nonblocking(true)
                    .and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    take(worker, listener, Transport::Tcp(stream), Some(address));
                }
            }
            Err(error) if AcceptFault::of(&error) == AcceptFault::Gone => {}
            Err(_) => return,
        }
    }
}

/// Serves an accepted connection. Without an address it is one of a Unix socket.
pub(super) fn take(
    worker: &Rc<Worker>,
    listener: &Rc<Listener>,
    transport: Transport,
    address: Option<SocketAddr>,
) {
    let process = &worker.process;
    let (place, open) = Place::take(worker);
    worker.counters.accepted.add(1);
    if open > process.max_connections.load(Relaxed) && !worker.reap_idle(REAP) {
        worker.counters.refused.add(1);
        // FastCGI has no word for it before a request.
        if listener.with_served(|served| served.protocol) == Protocol::Http {
            refuse(transport.into_socket());
        }
        return;
    }
    let Ok(local) = transport.local_addr() else {
        return;
    };
    let remote = Remote {
        address: to_unmapped(address.unwrap_or(NOBODY)),
        local: to_unmapped(local.unwrap_or(NOBODY)),
        tls: false,
    };
    let link = h1::Link::new(worker, listener, transport, remote);
    let begins_with_header = listener.with_served(|served| served.expects_header(&remote));
    if begins_with_header {
        let behind = serve_behind_header(link, place);
        tokio::task::spawn_local(guard::Task::new(worker.clone(), behind));
    } else {
        serve(link, place);
    }
}

/// Answers 503 and closes. The client may have sent its request already; closing with it unread
/// would reset the connection and take the answer with it, so what is there is read away.
fn refuse(socket: Option<Socket>) {
    let Some(mut socket) = socket else {
        return;
    };
    let _ = socket.write(OVERLOADED);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut sink = [0; 4096];
    for _ in 0..REFUSED_READS {
        if !matches!(socket.read(&mut sink), Ok(1..)) {
            return;
        }
    }
}

/// A descriptor kept for the moment when there is none left.
pub(super) struct Spare(Option<File>);

impl Spare {
    /// Takes one.
    pub(super) fn open() -> Spare {
        Spare(File::open("/dev/null").ok())
    }

    /// Does what an `accept` that failed asks for, and comes back when the next may be tried.
    pub(super) async fn get_over(
        &mut self,
        worker: &Worker,
        error: &io::Error,
        accept: impl FnOnce() -> Option<Socket>,
    ) {
        match AcceptFault::of(error) {
            AcceptFault::Gone | AcceptFault::Empty => {}
            AcceptFault::Exhausted => {
                self.shed(worker, accept);
                if !worker.reap_idle(REAP) {
                    worker.process.ask_for_descriptors(worker.index);
                    worker.wheel.sleep(BREATH).await;
                }
                // Another worker may have been quicker to take the one that was given up.
                if self.0.is_none() {
                    *self = Spare::open();
                }
            }
            AcceptFault::Broken => {
                tracing::error!(%error, "accepting failed; trying again");
                worker.wheel.sleep(BREATH).await;
            }
        }
    }

    /// Out of descriptors: gives up the spare one for a moment to take a connection and close it,
    /// so that its client learns at once that it cannot be served.
    fn shed(&mut self, worker: &Worker, accept: impl FnOnce() -> Option<Socket>) {
        self.0 = None;
        if let Some(socket) = accept() {
            worker.counters.refused.add(1);
            refuse(Some(socket));
        }
        *self = Spare::open();
    }
}

/// The next connection, if one waits.
fn accept_now(socket: &TcpListener) -> Option<Socket> {
    let mut nobody = Context::from_waker(std::task::Waker::noop());
    match socket.poll_accept(&mut nobody) {
        Poll::Ready(Ok((stream, _))) => Transport::Tcp(stream).into_socket(),
        _ => None,
    }
}

/// The address of who has none: the ends of a Unix socket.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
