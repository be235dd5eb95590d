//! What carries bytes between a remote and this server.
//!
//! Protocols know only [`Transport`]: readiness, reading, writing, closing. Everything here polls
//! and nothing blocks; a read that did not fill its buffer and a write that was not taken whole
//! clear the socket's readiness, so that no system call is spent on learning `EAGAIN`.

mod out;

use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

pub use out::Out;

/// A connected byte stream.
pub enum Transport {
    /// TCP in the clear.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
}

impl Transport {
    /// Waits until a read would say something: bytes, the end, or an error. Takes no buffer, so an
    /// idle connection costs none.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Tcp(s) => s.poll_read_ready(cx),
            Transport::Unix(s) => s.poll_read_ready(cx),
        }
    }

    /// True if something has already been seen to arrive, or the connection to end. No system call.
    pub fn has_news(&self) -> bool {
        self.poll_read_ready(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    /// Reads into the spare capacity of `buf`, which must not be empty. `Ok(0)` is the end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(buf.capacity() > buf.len());
        match self {
            Transport::Tcp(s) => tokio_util::io::poll_read_buf(Pin::new(s), cx, buf),
            Transport::Unix(s) => tokio_util::io::poll_read_buf(Pin::new(s), cx, buf),
        }
    }

    /// Writes some of `bytes`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Transport::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Transport::Unix(s) => Pin::new(s).poll_write(cx, bytes),
        }
    }

    /// Writes some of `slices`, in order.
    pub fn poll_writev(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Transport::Tcp(s) => Pin::new(s).poll_write_vectored(cx, slices),
            Transport::Unix(s) => Pin::new(s).poll_write_vectored(cx, slices),
        }
    }

    /// Whether [`poll_send_file`](Transport::poll_send_file) works here: not where bytes must pass
    /// through us to be encrypted.
    pub fn sends_files(&self) -> bool {
        matches!(self, Transport::Tcp(_))
    }

    /// Writes some of `bytes`, telling the kernel that more follows at once, so that a head leaves
    /// in one segment with the beginning of its file.
    pub fn poll_write_more(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Transport::Tcp(s) => poll_try(s, cx, || {
                SockRef::from(&*s).send_with_flags(bytes, MSG_MORE)
            }),
            Transport::Unix(_) => self.poll_write(cx, bytes),
        }
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
        match self {
            Transport::Tcp(s) => poll_try(s, cx, || {
                forebay_sys::files::send_file(&*s, file, offset, max)
            }),
            Transport::Unix(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Ends the sending side; the remote reads what was sent and then the end.
    pub fn shutdown(&mut self) -> io::Result<()> {
        use std::net::Shutdown;
        match self {
            Transport::Tcp(s) => SockRef::from(&*s).shutdown(Shutdown::Write),
            Transport::Unix(s) => SockRef::from(&*s).shutdown(Shutdown::Write),
        }
    }

    /// Makes the coming close a reset, so that a remote that would take the end of the connection
    /// for the end of the message (HTTP/1.0) sees that it was cut off.
    pub fn reset_on_close(&self) {
        if let Transport::Tcp(s) = self {
            // Fails only on a socket that is gone already, which is what is wanted.
            let _ = SockRef::from(s).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

/// `MSG_MORE` of send(2): the same number on every Linux. Elsewhere the kernel decides itself.
const MSG_MORE: i32 = if cfg!(target_os = "linux") { 0x8000 } else { 0 };

/// Calls `write` when the socket is writable, again if it was not after all.
fn poll_try(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    mut write: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_io(Interest::WRITABLE, &mut write) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}
