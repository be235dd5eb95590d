//! TLS on a connected byte stream.
//!
//! Records are read when somebody wants bytes and written when somebody gives some, never behind
//! anybody's back: what waits in here is either what came with the last record that was asked for,
//! or what the socket did not take of the last bytes that were given. An idle connection holds
//! neither.

use std::io::{self, BufRead, IoSlice, Write};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use rustls::ClientConfig;
use rustls::client::ClientConnection;
use rustls::pki_types::ServerName;

use super::Transport;

/// At most so much of what is to be sent is encrypted before the socket has taken it.
const AHEAD_BYTES: usize = 64 * 1024;

/// What is read from the socket at once: two of the largest records. The library itself reads
/// 4 KiB, and a record of 16 KiB would cost five system calls.
const READ_BYTES: usize = 32 * 1024;

/// A connection over TLS.
pub struct Tls {
    /// What carries the records; never TLS itself.
    io: Transport,
    conn: ClientConnection,
    /// Received, and not decrypted yet.
    sealed: BytesMut,
    /// Something decrypted was left over, because who read had no room for it.
    has_plain: bool,
    /// Who the remote has proved to be.
    name: Box<str>,
    /// How many bytes have been encrypted of a write that the socket has not taken as a whole. The
    /// caller was told to wait, and comes again with the same bytes.
    accepted: usize,
}

impl Tls {
    /// Makes a connection to the server of this name out of one in the clear.
    pub async fn connect(
        io: Transport,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<Transport> {
        let server = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut conn = ClientConnection::new(config, server).map_err(io::Error::other)?;
        conn.set_buffer_limit(Some(AHEAD_BYTES));
        let mut tls = Box::new(Tls {
            io,
            conn,
            sealed: BytesMut::new(),
            has_plain: false,
            name: name.into(),
            accepted: 0,
        });
        std::future::poll_fn(|cx| tls.poll_handshake(cx)).await?;
        Ok(Transport::Tls(tls))
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.conn.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Who the remote has proved to be.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What carries the records.
    pub fn io(&self) -> &Transport {
        &self.io
    }

    /// Ready when a read may say something; now and then it only finds a record that is not for
    /// who reads.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_plain || !self.sealed.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.io.poll_read_ready(cx)
    }

    /// True if something has come that is not TLS's own, as the tickets that a server sends when
    /// it likes, or if the connection has ended.
    pub fn has_news(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        loop {
            match self.conn.reader().fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return true,
            }
            match self.poll_receive(&mut nobody) {
                Poll::Pending => return false,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return true,
            }
        }
    }

    /// As [`Transport::poll_read`]. A connection that ends without saying so is an error: somebody
    /// in between may have cut it.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let start = buf.len();
        loop {
            let is_over = match self.take_plain(buf) {
                Ok(is_over) => is_over,
                Err(error) if buf.len() == start => return Poll::Ready(Err(error)),
                Err(_) => true,
            };
            let read = buf.len() - start;
            if is_over || buf.len() == buf.capacity() {
                return Poll::Ready(Ok(read));
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(_)) => {}
                // What has come before it counts first; the error stays.
                _ if read > 0 => return Poll::Ready(Ok(read)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Moves what was decrypted into the room of `buf`. True: the remote has ended.
    fn take_plain(&mut self, buf: &mut BytesMut) -> io::Result<bool> {
        self.has_plain = false;
        loop {
            let mut reader = self.conn.reader();
            let plain = match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(plain) => plain,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            if buf.len() == buf.capacity() {
                // Nobody would be woken for it: the socket may have no more.
                self.has_plain = true;
                return Ok(false);
            }
            let taken = plain.len().min(buf.capacity() - buf.len());
            buf.extend_from_slice(&plain[..taken]);
            reader.consume(taken);
        }
    }

    /// Reads some records and decrypts them. `Ok(0)`: the socket has ended.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while self.sealed.is_empty() {
            ready!(self.io.poll_read_ready(cx))?;
            let mut room = BytesMut::with_capacity(READ_BYTES);
            match self.io.try_read(&mut room, READ_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(0) => break,
                Ok(_) => self.sealed = room,
            }
        }
        let mut sealed = &self.sealed[..];
        let read = self.conn.read_tls(&mut sealed)?;
        self.sealed.advance(read);
        if self.sealed.is_empty() {
            self.sealed = BytesMut::new();
        }
        let processed = self.conn.process_new_packets();
        // An answer of TLS's own, or the alert that tells why it ends here. The socket has room for
        // so little, or the connection is of no use any more.
        let sent = self.poll_send(cx);
        if let Err(error) = processed {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        if let Poll::Ready(Err(error)) = sent {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(read))
    }

    /// Waits until the socket takes something.
    pub fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_write_ready(cx)
    }

    /// As [`Transport::poll_write`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_put(cx, |conn| conn.writer().write(bytes))
    }

    /// As [`Transport::poll_writev`].
    pub fn poll_writev(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(cx, |conn| conn.writer().write_vectored(slices))
    }

    /// Encrypts some bytes and says how many when the socket has taken all of them: so whoever has
    /// written everything need not come again.
    fn poll_put(
        &mut self,
        cx: &mut Context<'_>,
        put: impl FnOnce(&mut ClientConnection) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.accepted == 0 {
            // Something of TLS's own may still be in the way.
            ready!(self.poll_send(cx))?;
            self.accepted = put(&mut self.conn)?;
        }
        ready!(self.poll_send(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.accepted)))
    }

    /// Sends what is encrypted.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.conn.wants_write() {
            ready!(self.io.poll_write_ready(cx))?;
            match self.conn.write_tls(&mut Wire(&self.io)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more is sent, and ends the sending side.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        // Where the socket does not take it, the remote sees an end that was not announced.
        let _ = self.poll_send(&mut Context::from_waker(Waker::noop()));
        self.io.shutdown()
    }
}

/// The socket, as rustls writes to it.
struct Wire<'a>(&'a Transport);

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_writev(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_writev(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
