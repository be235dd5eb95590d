//! A connected Unix socket.
//!
//! One that is registered for writing makes an event whenever its remote has read something (Linux:
//! `unix_write_space`; TCP does so only behind a write that has found no room). Nobody waits for
//! those: behind a web server they woke the worker once more for nearly every response, which cost
//! as much as its read and its write. So a socket is registered for reading only, until a write finds
//! no room.
//!
//! ```text
//!   Reading ── a write was cut short ──▶ wants room ── somebody waits ──▶ Both
//!      ▲                                                                   │
//!      └─────────────────── a write was taken whole ───────────────────────┘
//! ```

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll, Waker};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;

/// A connected Unix socket that does not block.
pub struct Unix {
    io: Io,
    /// A write was cut short, and nobody has waited for room since then.
    wants_room: Cell<bool>,
    /// Who waits to read, and has to come again where the socket is registered anew.
    reader: RefCell<Option<Waker>>,
}

/// The socket by how it is registered with the event loop.
enum Io {
    /// For reading only. To the runtime this is the end of a pipe, as which it takes any descriptor.
    Reading(Receiver),
    /// For writing, too.
    Both(UnixStream),
    /// It could not be registered anew.
    Gone,
}

impl Unix {
    /// Gives a place in the event loop to a socket that does not block.
    pub fn new(socket: OwnedFd) -> io::Result<Unix> {
        Ok(Unix {
            io: Io::Reading(Receiver::from_owned_fd_unchecked(socket)?),
            wants_room: Cell::new(false),
            reader: RefCell::new(None),
        })
    }

    /// Connects to a listener, which never takes time; `WouldBlock` where its backlog is full.
    pub fn connect(path: &Path) -> io::Result<Unix> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Unix::new(socket.into())
    }

    /// The socket alone.
    pub fn into_socket(self) -> io::Result<OwnedFd> {
        match self.io {
            Io::Reading(io) => io.into_nonblocking_fd(),
            Io::Both(io) => io.into_std().map(OwnedFd::from),
            Io::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The socket, to do something with it at once.
    pub fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.io {
            Io::Reading(io) => Ok(io.as_fd()),
            Io::Both(io) => Ok(io.as_fd()),
            Io::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Takes another place in the event loop.
    fn register(&mut self, for_both: bool) -> io::Result<()> {
        let gone = Unix {
            io: Io::Gone,
            wants_room: Cell::new(false),
            reader: RefCell::new(None),
        };
        let socket = std::mem::replace(self, gone);
        let reader = socket.reader.take();
        let socket = socket.into_socket()?;
        self.io = if for_both {
            Io::Both(UnixStream::from_std(socket.into())?)
        } else {
            Io::Reading(Receiver::from_owned_fd_unchecked(socket)?)
        };
        // Who waits to read comes again, and is known there then.
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Waits until a read would say something.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = match &self.io {
            Io::Reading(io) => io.poll_read_ready(cx),
            Io::Both(io) => io.poll_read_ready(cx),
            Io::Gone => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        if ready.is_pending() {
            let waker = cx.waker();
            let is_known = |old: &Waker| old.will_wake(waker);
            if !self.reader.borrow().as_ref().is_some_and(is_known) {
                // The last waker of a task drops the task, and with it perhaps more.
                drop(self.reader.replace(Some(waker.clone())));
            }
        }
        ready
    }

    /// Waits until a write would be taken.
    pub fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wants_room.get() {
            self.register(true)?;
        }
        match &self.io {
            Io::Reading(_) => Poll::Ready(Ok(())),
            Io::Both(io) => io.poll_write_ready(cx),
            Io::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Reads or writes; notes what is learnt by it.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        work: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        match &self.io {
            Io::Reading(io) if interest.is_readable() => io.try_io(|| work(io.as_fd())),
            Io::Reading(_) if self.wants_room.get() => Err(io::ErrorKind::WouldBlock.into()),
            Io::Reading(io) => {
                let done = work(io.as_fd());
                let is_full = matches!(&done, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
                self.wants_room.set(is_full);
                done
            }
            Io::Both(io) => io.try_io(interest, || work(io.as_fd())),
            Io::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// All that was to be written was taken.
    pub fn has_taken_all(&mut self) -> io::Result<()> {
        match self.io {
            Io::Both(_) => self.register(false),
            Io::Reading(_) | Io::Gone => Ok(()),
        }
    }

    /// What has broken it.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(&self.socket()?).take_error()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use bytes::BytesMut;

    use super::*;
    use crate::transport::Transport;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_for_both(transport: &Transport) -> bool {
        matches!(transport, Transport::Unix(unix) if matches!(unix.io, Io::Both(_)))
    }

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().build();
        runtime.expect("a runtime").block_on(test);
    }

    fn pair() -> (Transport, net::UnixStream) {
        let (ours, theirs) = net::UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("does not block");
        (Transport::unix(ours.into()).expect("registered"), theirs)
    }

    async fn write(transport: &mut Transport, bytes: &[u8]) -> usize {
        let written = poll_fn(|cx| transport.poll_write(cx, bytes, false)).await;
        written.expect("written")
    }

    #[test]
    fn a_socket_without_room_is_written_to_when_there_is_some() {
        run(async {
            let (mut ours, mut theirs) = pair();
            assert_eq!(write(&mut ours, b"a").await, 1);
            assert!(!is_for_both(&ours));
            // Much more than the socket takes.
            let much = vec![b'b'; 4 << 20];
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                theirs.read_to_end(&mut all).expect("read");
                all.len()
            });
            let (mut sent, mut waited) = (0, false);
            while sent < much.len() {
                sent += write(&mut ours, &much[sent..]).await;
                waited |= is_for_both(&ours);
            }
            assert!(waited);
            // The last one was taken whole.
            assert!(!is_for_both(&ours));
            drop(ours);
            assert_eq!(reader.join().expect("a reader"), much.len() + 1);
        });
    }

    #[test]
    fn who_waits_to_read_is_woken_however_often_it_is_registered_anew() {
        run(async {
            let (mut ours, mut theirs) = pair();
            let mut buf = BytesMut::with_capacity(16);
            let mut nobody = Context::from_waker(Waker::noop());
            // Until the runtime has looked, everything may be ready.
            tokio::task::yield_now().await;
            let count = Arc::new(Count::default());
            let waker = Waker::from(count.clone());
            let mut cx = Context::from_waker(&waker);
            assert!(ours.poll_read(&mut cx, &mut buf).is_pending());
            let much = vec![b'b'; 4 << 20];
            while ours.poll_write(&mut nobody, &much, false).is_ready() {}
            assert!(is_for_both(&ours));
            assert_eq!(count.0.load(Ordering::Relaxed), 1, "it has to come again");
            assert!(ours.poll_read(&mut cx, &mut buf).is_pending());
            theirs.write_all(b"x").expect("written");
            poll_fn(|cx| ours.poll_read_ready(cx))
                .await
                .expect("readable");
            assert!(matches!(
                ours.poll_read(&mut cx, &mut buf),
                Poll::Ready(Ok(1))
            ));
        });
    }

    #[test]
    fn a_listener_without_room_is_told_from_one_that_is_not_there() {
        run(async {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("socket");
            let kind = |made: io::Result<Unix>| made.map(|_| ()).map_err(|error| error.kind());
            assert_eq!(kind(Unix::connect(&path)), Err(io::ErrorKind::NotFound));
            let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
            let address = SockAddr::unix(&path).expect("an address");
            listener.bind(&address).expect("bound");
            listener.listen(0).expect("listening");
            let mut waiting = Vec::new();
            let refused = loop {
                match Unix::connect(&path) {
                    Ok(unix) => waiting.push(unix),
                    Err(error) => break error.kind(),
                }
                assert!(waiting.len() < 100, "its backlog has an end");
            };
            assert_eq!(refused, io::ErrorKind::WouldBlock);
            assert!(!waiting.is_empty());
        });
    }
}
