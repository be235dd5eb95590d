//! Sockets that cannot be one per worker: Unix sockets, and those that were passed in.
//!
//! One worker accepts and deals what it has accepted out to all, in turn, by mail.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use forebay_sys::net::{AcceptFault, InheritedSocket};
use socket2::Socket;
use tokio::net::{TcpListener, UnixListener};

use super::accept::{Spare, take};
use super::{Listener, ListenerId};
use crate::snapshot::Served;
use crate::transport::Transport;
use crate::worker::{Mail, Worker};

/// A listening socket that all workers are served from by one.
pub enum Shared {
    /// A Unix socket of ours.
    Unix(std::os::unix::net::UnixListener),
    /// One that was passed in, and that who has passed it in goes on to hold.
    Inherited(InheritedSocket),
}

/// The same, watched by the worker that deals.
enum Watched {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection on its way to the worker that will serve it.
pub struct Dealt {
    /// Where it came in.
    pub listener: ListenerId,
    /// What is served there, for the case that the listener is closed when it arrives.
    pub served: Arc<Served>,
    socket: Socket,
    address: Option<SocketAddr>,
}

/// A connection and its address, if it is one of IP.
type Accepted = (Transport, Option<SocketAddr>);

/// Accepts on a shared socket until the listener closes, and deals; then takes what still waits.
pub async fn deal_all(worker: Rc<Worker>, listener: Rc<Listener>, socket: Shared) {
    let is_inherited = matches!(socket, Shared::Inherited(_));
    let socket = match Watched::new(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be watched");
            return;
        }
    };
    let mut spare = Spare::open();
    let mut dealt = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = listener.closed() => break,
        };
        match accepted {
            Ok(connection) => {
                dealt += 1;
                let to = (worker.index + dealt) % worker.process.workers();
                deal(&worker, &listener, to, connection);
            }
            Err(error) => {
                spare
                    .get_over(&worker, &error, || socket.accept_now())
                    .await
            }
        }
    }
    // What waits in a socket that was passed in is served by whoever gets it next.
    if !is_inherited && let Ok(socket) = socket.into_socket() {
        accept_dry(&worker, &listener, &socket);
    }
}

impl Watched {
    fn new(socket: Shared) -> io::Result<Watched> {
        Ok(match socket {
            Shared::Inherited(InheritedSocket::Tcp(socket)) => {
                Watched::Tcp(TcpListener::from_std(socket)?)
            }
            Shared::Unix(socket) | Shared::Inherited(InheritedSocket::Unix(socket)) => {
                Watched::Unix(UnixListener::from_std(socket)?)
            }
        })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Watched::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                (Transport::Tcp(stream), Some(address))
            }
            Watched::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                (Transport::unix(stream.into_std()?.into())?, None)
            }
        })
    }

    /// The next connection, if one waits.
    fn accept_now(&self) -> Option<Socket> {
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        let accepted = match self {
            Watched::Tcp(socket) => socket
                .poll_accept(&mut nobody)
                .map_ok(|(stream, _)| stream.into_std().map(Socket::from)),
            Watched::Unix(socket) => socket
                .poll_accept(&mut nobody)
                .map_ok(|(stream, _)| stream.into_std().map(Socket::from)),
        };
        match accepted {
            Poll::Ready(Ok(socket)) => socket.ok(),
            _ => None,
        }
    }

    fn into_socket(self) -> io::Result<Socket> {
        Ok(match self {
            Watched::Tcp(socket) => socket.into_std()?.into(),
            Watched::Unix(socket) => socket.into_std()?.into(),
        })
    }
}

/// Takes what has connected before the socket closes. Bounded: no backlog holds more.
fn accept_dry(worker: &Rc<Worker>, listener: &Rc<Listener>, socket: &Socket) {
    for _ in 0..u16::MAX {
        match socket.accept() {
            Ok((connection, address)) => {
                if connection.set_nonblocking(true).is_ok() {
                    open(worker, listener, connection, address.as_socket());
                }
            }
            Err(error) if AcceptFault::of(&error) == AcceptFault::Gone => {}
            Err(_) => return,
        }
    }
}

/// Gives a connection to another worker. One that cannot take it now, because its mailbox is full
/// or it has ended, is not waited for: this worker serves the connection itself.
fn deal(worker: &Rc<Worker>, listener: &Rc<Listener>, to: usize, (transport, address): Accepted) {
    let mailbox = worker.process.mailboxes.get().and_then(|all| all.get(to));
    let mailbox = match mailbox {
        Some(mailbox) if to != worker.index => mailbox,
        _ => return take(worker, listener, transport, address),
    };
    let Some(socket) = transport.into_socket() else {
        return;
    };
    let mail = Mail::Dealt(Dealt {
        listener: listener.id,
        served: listener.served(),
        socket,
        address,
    });
    if let Err(returned) = mailbox.try_send(mail)
        && let Mail::Dealt(dealt) = returned.into_inner()
    {
        receive(worker, listener, dealt);
    }
}

/// Takes a connection that another worker has accepted.
pub fn receive(worker: &Rc<Worker>, listener: &Rc<Listener>, dealt: Dealt) {
    open(worker, listener, dealt.socket, dealt.address);
}

fn open(worker: &Rc<Worker>, listener: &Rc<Listener>, socket: Socket, address: Option<SocketAddr>) {
    match Transport::accepted(socket, address.is_some()) {
        Ok(transport) => take(worker, listener, transport, address),
        Err(error) => tracing::debug!(%error, "an accepted connection cannot be watched"),
    }
}
