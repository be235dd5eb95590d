//! What an origin does with a request, as a list of acts.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// One act. The request's head has been read; its body is read before the first act unless the
/// script was made [`Script::early`].
#[derive(Debug, Clone)]
pub enum Act {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send so many bytes of [`crate::pattern`].
    Pattern(u64),
    /// Send bytes of [`crate::pattern`] from an offset on, at a rate.
    Part {
        /// The first byte's offset.
        at: u64,
        /// How many.
        len: u64,
        /// Bytes per second; 0: as fast as it goes.
        rate: u64,
        /// In chunks, without the last one.
        chunked: bool,
    },
    /// Send bytes in pieces of this length with a pause between them.
    Trickle(Vec<u8>, usize, Duration),
    /// Read the rest of the request.
    ReadBody,
    /// Do nothing for this time: a slow application.
    Delay(Duration),
    /// Do nothing until the gate is open.
    Wait(Gate),
    /// Open a gate: tell the test that this point has been reached.
    Open(Gate),
    /// Do nothing until the other side ends the connection or the test is over.
    Stall,
    /// Close the sending side.
    HalfClose,
    /// Close the connection.
    Close,
    /// Reset the connection.
    Reset,
}

/// A list of acts. If none of them ends the connection the next request on it is read.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub(crate) acts: Vec<Act>,
    pub(crate) early: bool,
}

impl Script {
    /// No acts: the next one is added by [`Script::then`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A 200 with this body, its length told.
    #[must_use]
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200, body)
    }

    /// A response with this status and body, its length told.
    #[must_use]
    pub fn status(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self::with_fields(status, "", body)
    }

    /// A response with more fields (each line ending in CRLF), its length told.
    #[must_use]
    pub fn with_fields(status: u16, fields: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = format!("HTTP/1.1 {status} Scripted\r\n{fields}").into_bytes();
        if status != 204 && status != 304 {
            bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend_from_slice(body);
        Self::raw(bytes)
    }

    /// A 200 with a [`crate::pattern`] of this length.
    #[must_use]
    pub fn pattern(len: u64) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
        Self::raw(head).then(Act::Pattern(len))
    }

    /// A 200 whose body comes in these chunks, then these trailer lines (each ending in CRLF).
    #[must_use]
    pub fn chunked(chunks: &[&str], trailers: &str) -> Self {
        let mut text = String::from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in chunks {
            text += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
        }
        text += &format!("0\r\n{trailers}\r\n");
        Self::raw(text)
    }

    /// These bytes.
    #[must_use]
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::new().send(bytes)
    }

    /// Then these bytes.
    #[must_use]
    pub fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Act::Send(bytes.as_ref().to_vec()))
    }

    /// Then this act.
    #[must_use]
    pub fn then(mut self, act: Act) -> Self {
        self.acts.push(act);
        self
    }

    /// The acts begin before the request's body is read, which only [`Act::ReadBody`] does.
    #[must_use]
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    /// Then the connection is closed.
    #[must_use]
    pub fn close(self) -> Self {
        self.then(Act::Close)
    }

    /// All of this after this time.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.acts.insert(0, Act::Delay(time));
        self
    }

    /// All of this when the gate is open.
    #[must_use]
    pub fn when(mut self, gate: &Gate) -> Self {
        self.acts.insert(0, Act::Wait(gate.clone()));
        self
    }
}

/// A door that is opened once and then stays open: how a test holds an origin back.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens it.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Whether it opened within this time.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.0.1.wait_timeout_while(open, time, |open| !*open);
        *open.unwrap_or_else(PoisonError::into_inner).0
    }
}
