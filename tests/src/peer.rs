//! A peer whose every byte the test sends and reads itself: for what comes behind HTTP, where an
//! origin that acts out scripts has nothing to say.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::journal::escape;
use crate::port::Reserved;
use crate::wait::PATIENCE;
use crate::wire;

/// Listens, and gives its connections to the test.
pub struct Peer {
    listener: TcpListener,
    port: Reserved,
}

/// One connection, whose first request has been read.
pub struct Call {
    socket: TcpStream,
    /// The request's head, the empty line included.
    pub head: String,
    /// What has come behind it and was not looked at yet.
    pending: Vec<u8>,
}

impl Peer {
    /// Listens on a free port of 127.0.0.1.
    #[must_use]
    pub fn start() -> Self {
        let port = Reserved::new();
        Self {
            listener: port.listen(),
            port,
        }
    }

    /// What to write as a target in a configuration.
    #[must_use]
    pub fn target(&self) -> String {
        self.port.addr().to_string()
    }

    /// Takes the next connection and reads the head of its first request.
    ///
    /// # Panics
    /// When none comes, or something else than a head.
    #[track_caller]
    #[must_use]
    pub fn accept(&self) -> Call {
        self.listener.set_nonblocking(true).expect("non-blocking");
        let end = Instant::now() + PATIENCE;
        let socket = loop {
            match self.listener.accept() {
                Ok((socket, _)) => break socket,
                Err(error) => {
                    assert!(Instant::now() < end, "no connection to the peer: {error}");
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        socket.set_nonblocking(false).expect("blocking");
        socket.set_nodelay(true).expect("no delay");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let mut call = Call {
            socket,
            head: String::new(),
            pending: Vec::new(),
        };
        call.read_head();
        call
    }
}

impl Call {
    /// Reads the head of the next request.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn read_head(&mut self) {
        let end = loop {
            if let Some(end) = wire::find(&self.pending, b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.fill() > 0, "the end instead of a head");
        };
        let head: Vec<u8> = self.pending.drain(..end).collect();
        self.head = String::from_utf8(head).expect("a head in UTF-8");
    }

    /// The values of all fields of this name in the head.
    #[must_use]
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|l| l.split_once(": "));
        let named = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value).collect()
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When they are not taken.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("a write");
    }

    /// Expects exactly these bytes next.
    ///
    /// # Panics
    /// When others come, or too few.
    #[track_caller]
    pub fn expect_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        while self.pending.len() < bytes.len() {
            assert!(self.fill() > 0, "the end instead of bytes");
        }
        let got: Vec<u8> = self.pending.drain(..bytes.len()).collect();
        assert!(got == bytes, "{} instead", escape(&got));
    }

    /// Expects the end of what the other side sends, with nothing before it.
    ///
    /// # Panics
    /// When bytes come, a reset, or nothing.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert!(self.pending.is_empty(), "{}", escape(&self.pending));
        assert_eq!(self.fill(), 0, "{}", escape(&self.pending));
    }

    /// Waits for the end of the connection, and says whether it was a reset. Bytes are read away.
    ///
    /// # Panics
    /// When it stays open.
    #[track_caller]
    #[must_use]
    pub fn is_reset(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
                Err(error) => panic!("{error} instead of an end"),
            }
        }
    }

    /// Sends bytes until nobody has taken any for a while; how many were.
    ///
    /// # Panics
    /// When it cannot.
    pub fn send_until_full(&mut self, bytes: &[u8]) -> usize {
        self.socket
            .set_write_timeout(Some(Duration::from_millis(500)))
            .expect("a timeout");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.socket
            .set_write_timeout(Some(PATIENCE))
            .expect("a timeout");
        sent
    }

    /// Closes the sending side.
    pub fn half_close(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn abort(self) {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    #[track_caller]
    fn fill(&mut self) -> usize {
        let mut buffer = [0; 64 * 1024];
        let read = loop {
            match self.socket.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let read: io::Result<usize> = read;
        let read = read.unwrap_or_else(|error| panic!("the peer reads: {error}"));
        self.pending.extend_from_slice(&buffer[..read]);
        read
    }
}
