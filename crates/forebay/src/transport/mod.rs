//! What carries bytes between a remote and this server.
//!
//! Protocols know only [`Transport`]: readiness, reading, writing, closing. Everything here polls
//! and nothing blocks; a read that did not fill its buffer and a write that was not taken whole
//! clear the socket's readiness, so that no system call is spent on learning `EAGAIN`.

mod out;
mod tls;
mod unix;

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use forebay_sys::net;
use socket2::{SockRef, Socket};
use tokio::io::Interest;
use tokio::net::TcpStream;

pub use out::{COPY_BYTES, Out};
pub use tls::Tls;
pub use unix::Unix;

/// A connected byte stream.
pub enum Transport {
    /// TCP in the clear.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(Box<Unix>),
    /// TLS over one of the others.
    Tls(Box<Tls>),
}

/// Does the same with the socket, whatever kind it is; something else where TLS is in between.
macro_rules! on_socket {
    ($transport:ident, $socket:ident => $result:expr, $tls:pat => $other:expr) => {
        match $transport {
            Transport::Tcp($socket) => $result,
            Transport::Unix($socket) => $result,
            Transport::Tls($tls) => $other,
        }
    };
}

impl Transport {
    /// An accepted socket that does not block: of TCP if it has addresses of IP, else a Unix one.
    pub fn accepted(socket: Socket, is_tcp: bool) -> io::Result<Transport> {
        Ok(if is_tcp {
            Transport::Tcp(TcpStream::from_std(socket.into())?)
        } else {
            Transport::unix(socket.into())?
        })
    }

    /// A Unix socket that does not block.
    pub fn unix(socket: OwnedFd) -> io::Result<Transport> {
        Ok(Transport::Unix(Box::new(Unix::new(socket)?)))
    }

    /// A connection to a listener on a Unix socket; `WouldBlock` where its backlog is full.
    pub fn connect_unix(path: &Path) -> io::Result<Transport> {
        Ok(Transport::Unix(Box::new(Unix::connect(path)?)))
    }

    /// The socket alone, without the event loop.
    pub fn into_socket(self) -> Option<Socket> {
        match self {
            Transport::Tcp(s) => s.into_std().ok().map(Socket::from),
            Transport::Unix(s) => s.into_socket().ok().map(Socket::from),
            // What was read ahead of it would be lost.
            Transport::Tls(_) => None,
        }
    }

    /// The address it came to; a Unix socket has none.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Transport::Tcp(s) => s.local_addr().map(Some),
            Transport::Unix(_) => Ok(None),
            Transport::Tls(tls) => tls.io().local_addr(),
        }
    }

    /// The name that the remote has proved to have, over TLS.
    pub fn tls_name(&self) -> Option<&str> {
        match self {
            Transport::Tls(tls) => Some(tls.name()),
            _ => None,
        }
    }

    /// The socket itself, in the clear.
    fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Transport::Tcp(s) => Ok(s.as_fd()),
            Transport::Unix(s) => s.socket(),
            Transport::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Reads or writes, in the clear, and has the runtime know if it would block.
    fn try_io<R>(
        &self,
        interest: Interest,
        work: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Transport::Tcp(s) => s.try_io(interest, || work(s.as_fd())),
            Transport::Unix(s) => s.try_io(interest, work),
            Transport::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Waits until a read would say something: bytes, the end, or an error. Takes no buffer, so an
    /// idle connection costs none.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, s => s.poll_read_ready(cx), tls => tls.poll_read_ready(cx))
    }

    /// True if something has already been seen to arrive, or the connection to end. No system call,
    /// but for records of TLS's own, which are not news.
    pub fn has_news(&mut self) -> bool {
        if let Transport::Tls(tls) = self {
            return tls.has_news();
        }
        self.poll_read_ready(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    /// Reads into the spare capacity of `buf`, which must not be empty. `Ok(0)` is the end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let room = buf.capacity() - buf.len();
        debug_assert!(room > 0);
        if let Transport::Tls(tls) = self {
            return tls.poll_read(cx, buf);
        }
        loop {
            ready!(self.poll_read_ready(cx))?;
            match self.try_read(buf, room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// The same where something is mostly known to have come: the runtime is asked only if not.
    /// It counts what a task asks of it and sends it to the end of the queue in time; who reads in
    /// this way has to end its turn itself.
    pub fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let room = buf.capacity() - buf.len();
        debug_assert!(room > 0);
        if !matches!(self, Transport::Tls(_)) {
            match self.try_read(buf, room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
        self.poll_read(cx, buf)
    }

    /// Looks at what has come, in the clear, without taking it. `Ok(0)` is the end.
    pub fn poll_peek(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let peeked = self.try_io(Interest::READABLE, |socket| net::peek(socket, into));
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return Poll::Ready(peeked),
            }
        }
    }

    /// Takes what has been looked at: all of `bytes` is there.
    pub fn take_out(&self, bytes: &mut [u8]) -> io::Result<()> {
        let taken = net::take(self.socket()?, bytes)?;
        if taken < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads what the socket has, in the clear, into the `room` that `buf` has at once.
    fn try_read(&self, buf: &mut BytesMut, room: usize) -> io::Result<usize> {
        let read = self.try_io(Interest::READABLE, |socket| net::read(socket, buf));
        if let Ok(read) = read
            && read > 0
            && read < room
        {
            self.is_exhausted(Interest::READABLE);
        }
        read
    }

    /// Writes what the socket takes, in the clear.
    fn try_writev(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, |socket| net::writev(socket, slices))
    }

    /// Waits until the socket takes something.
    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, s => s.poll_write_ready(cx), tls => tls.poll_write_ready(cx))
    }

    /// Writes some of `bytes`. `more`: so much follows at once that a segment cut short here would
    /// be wasted.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        more: bool,
    ) -> Poll<io::Result<usize>> {
        if let Transport::Tls(tls) = self {
            return tls.poll_write(cx, bytes);
        }
        self.poll_out(cx, bytes.len(), |socket| net::write(socket, bytes, more))
    }

    /// Writes some of `slices`, in order.
    pub fn poll_writev(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Transport::Tls(tls) = self {
            return tls.poll_writev(cx, slices);
        }
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.poll_out(cx, len, |socket| net::writev(socket, slices))
    }

    /// Whether [`poll_send_file`](Transport::poll_send_file) works here: not where bytes must pass
    /// through us to be encrypted.
    pub fn sends_files(&self) -> bool {
        matches!(self, Transport::Tcp(_))
    }

    /// Sends up to `max` bytes of a file, from the kernel's memory to the socket without a copy.
    /// Whoever calls has made sure that they are in memory. `Ok(0)` is the end of the file.
    pub fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        offset: u64,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        // A short count may be the file's doing, and says nothing of the socket.
        self.poll_out(cx, 0, |socket| {
            forebay_sys::files::send_file(socket, file, offset, max)
        })
    }

    /// Writes when the socket is writable, as it nearly always is: the runtime is asked only where
    /// it is not. One that does not take all of `len` takes no more now.
    fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        len: usize,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let written = self.try_io(Interest::WRITABLE, &mut write);
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_write_ready(cx))?;
                }
                Ok(written) if written > 0 && written < len => {
                    self.is_exhausted(Interest::WRITABLE);
                    return Poll::Ready(Ok(written));
                }
                Ok(written) => {
                    if let Transport::Unix(unix) = self
                        && written == len
                    {
                        unix.has_taken_all()?;
                    }
                    return Poll::Ready(Ok(written));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Makes the runtime forget that the socket is ready, as a system call that would block does;
    /// but a short read or write has proved it already. Nothing is lost by it: the runtime looks at
    /// the sockets on this very thread, so that no event comes in between.
    fn is_exhausted(&self, interest: Interest) {
        let said = self.try_io(interest, |_| {
            io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())
        });
        debug_assert!(said.is_err());
    }

    /// What has broken the connection, if something has, though nobody was reading or writing.
    pub fn broken(&self) -> io::Result<()> {
        match on_socket!(self, s => s.take_error(), tls => return tls.io().broken())? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Ends the sending side; the remote reads what was sent and then the end.
    pub fn shutdown(&mut self) -> io::Result<()> {
        if let Transport::Tls(tls) = self {
            return tls.shutdown();
        }
        SockRef::from(&self.socket()?).shutdown(std::net::Shutdown::Write)
    }

    /// Makes the coming close a reset, so that a remote that would take the end of the connection
    /// for the end of the message (HTTP/1.0) sees that it was cut off.
    pub fn reset_on_close(&self) {
        match self {
            Transport::Tcp(s) => {
                // Fails only on a socket that is gone already, which is what is wanted.
                let _ = SockRef::from(s).set_linger(Some(std::time::Duration::ZERO));
            }
            Transport::Unix(_) => {}
            Transport::Tls(tls) => tls.io().reset_on_close(),
        }
    }
}
