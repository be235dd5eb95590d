//! A body that is coded as it is pulled.
//!
//! ```text
//!   source ──▶ input (one piece of the source) ──▶ encoder ──▶ out ──▶ who pulls
//! ```
//!
//! The encoder holds back what it may still make smaller. Where the source has nothing more to give
//! for now, it is made to give up all it has: an event is worth nothing when it comes late. After
//! every [`TURN_BYTES`] of work others get their turn.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use forebay_fields::Fields;

use super::encoder::Encoder;
use crate::exchange::{Body, Fault, Pulled, Reason, Stream, guard};
use crate::files::FileStream;
use crate::worker::Worker;

/// Coded in one go: less than half a millisecond with the slowest encoder.
pub const TURN_BYTES: usize = 16 * 1024;

/// What comes out is handed on in pieces of at least this many bytes, as long as more follows.
const SEND_BYTES: usize = 16 * 1024;

/// A body on its way through an encoder.
pub struct Coded {
    /// `None`: all of it has been read.
    source: Option<Box<dyn Stream>>,
    input: Bytes,
    /// `None`: the end has been written.
    encoder: Option<Encoder>,
    out: Vec<u8>,
    /// The encoder may hold something back.
    is_dirty: bool,
    /// Coded since others had their turn.
    turn: usize,
    trailers: Option<Box<Fields>>,
}

impl Coded {
    /// This body through this encoder.
    pub fn new(worker: &Rc<Worker>, body: Body, encoder: Encoder) -> Coded {
        let mut input = Bytes::new();
        let source: Option<Box<dyn Stream>> = match body {
            // With 101, which is not coded.
            Body::Empty | Body::Tunnel(_) => None,
            Body::Bytes(bytes) => {
                input = bytes;
                None
            }
            Body::File(range) => Some(Box::new(FileStream::new(worker, range))),
            Body::Stream(stream) => Some(stream),
        };
        Coded {
            source,
            input,
            encoder: Some(encoder),
            out: Vec::new(),
            is_dirty: false,
            turn: 0,
            trailers: None,
        }
    }

    /// What has come out so far.
    fn take(&mut self) -> Poll<Pulled> {
        Poll::Ready(Pulled::Data(std::mem::take(&mut self.out).into()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<Pulled>> {
        loop {
            let Some(encoder) = &mut self.encoder else {
                if !self.out.is_empty() {
                    return Ok(self.take());
                }
                return Ok(Poll::Ready(Pulled::End(self.trailers.take())));
            };
            if !self.input.is_empty() {
                let len = self.input.len().min(TURN_BYTES.saturating_sub(self.turn));
                if len == 0 {
                    self.turn = 0;
                    guard::end_turn(cx);
                    return Ok(Poll::Pending);
                }
                encoder.write(&self.input[..len], &mut self.out)?;
                self.input.advance(len);
                self.turn += len;
                self.is_dirty = true;
                if self.out.len() >= SEND_BYTES {
                    return Ok(self.take());
                }
                continue;
            }
            let pulled = match &mut self.source {
                Some(source) => source.poll_pull(cx),
                None => Poll::Ready(Pulled::End(None)),
            };
            match pulled {
                Poll::Ready(Pulled::Data(bytes)) => self.input = bytes,
                Poll::Ready(Pulled::End(trailers)) => {
                    // What produced it is let go at once.
                    self.source = None;
                    self.trailers = trailers;
                    if let Some(encoder) = self.encoder.take() {
                        encoder.finish(&mut self.out)?;
                    }
                }
                Poll::Ready(abort) => return Ok(Poll::Ready(abort)),
                Poll::Pending => {
                    self.turn = 0;
                    if std::mem::take(&mut self.is_dirty) {
                        encoder.flush(&mut self.out)?;
                    }
                    if self.out.is_empty() {
                        return Ok(Poll::Pending);
                    }
                    return Ok(self.take());
                }
            }
        }
    }
}

impl Stream for Coded {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        let polled = self.poll(cx);
        polled.unwrap_or_else(|error| Poll::Ready(broken(&error)))
    }

    fn len_bytes(&self) -> Option<u64> {
        None
    }

    fn read_ahead_bytes(&self) -> usize {
        let source = self.source.as_ref();
        source.map_or(0, |source| source.read_ahead_bytes())
    }
}

fn broken(error: &io::Error) -> Pulled {
    Pulled::Abort(Fault::with(Reason::Internal, error.to_string()))
}

/// A body whose encoder has failed, which none does but for want of memory.
pub struct Broken(Box<str>);

impl Broken {
    /// By this error.
    pub fn new(error: &io::Error) -> Broken {
        Broken(error.to_string().into())
    }
}

impl Stream for Broken {
    fn poll_pull(&mut self, _: &mut Context<'_>) -> Poll<Pulled> {
        let fault = Fault::with(Reason::Internal, &*self.0);
        Poll::Ready(Pulled::Abort(fault))
    }

    fn len_bytes(&self) -> Option<u64> {
        None
    }
}

/// The body of a response to HEAD, of which GET's length is not known beforehand: it is not pulled.
pub struct Unmeasured;

impl Stream for Unmeasured {
    fn poll_pull(&mut self, _: &mut Context<'_>) -> Poll<Pulled> {
        Poll::Ready(Pulled::End(None))
    }

    fn len_bytes(&self) -> Option<u64> {
        None
    }
}
