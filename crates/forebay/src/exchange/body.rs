//! Bodies: what a message carries, pulled by whoever sends it on.
//!
//! A body is one of a few kinds, so that a protocol can pick the cheapest way to send each. It ends
//! in exactly one of [`Pulled::End`] and [`Pulled::Abort`]; dropping it cancels what produces it.
//! Backpressure is the absence of a pull.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_fields::Fields;

use super::{Fault, Tunnel};
use crate::files::OpenFile;

/// The body of a request or a response.
#[derive(Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// All of it, in memory.
    Bytes(Bytes),
    /// A part of an open file.
    File(FileRange),
    /// Something that is still coming.
    Stream(Box<dyn Stream>),
    /// No body: the connection goes on with another protocol. Of a response only, with status 101.
    Tunnel(Box<Tunnel>),
}

/// Bytes `start..end` of an open file.
pub struct FileRange {
    /// The file, with the facts it was opened under.
    pub file: Rc<OpenFile>,
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// What a pull brings.
pub enum Pulled {
    /// Some bytes, at least one.
    Data(Bytes),
    /// The body is complete; its trailers, if any came.
    End(Option<Box<Fields>>),
    /// The body will never be complete.
    Abort(Fault),
}

/// A body that is still coming.
pub trait Stream {
    /// The next piece. After `End` or `Abort` it is not called again.
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled>;

    /// How long the body will be, where that is known, in bytes from its beginning.
    fn len_bytes(&self) -> Option<u64>;

    /// How many bytes may be held for a client that is slower than the source. 0: one piece.
    fn read_ahead_bytes(&self) -> usize {
        0
    }

    /// Whether all that comes is in memory anyway: then pulling several pieces before any is sent
    /// takes none.
    fn is_in_memory(&self) -> bool {
        false
    }

    /// Ready when it has broken off though nobody pulls: its client takes nothing at the moment.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        let _ = cx;
        Poll::Pending
    }

    /// Lets no more than this many bytes through; then it aborts with
    /// [`BodyTooLarge`](super::Reason::BodyTooLarge).
    fn limit(&mut self, max_bytes: u64) {
        let _ = max_bytes;
    }
}

impl Body {
    /// How long the body is, in bytes, where that is known beforehand.
    pub fn len_bytes(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::File(range) => Some(range.end - range.start),
            Body::Stream(stream) => stream.len_bytes(),
            Body::Tunnel(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        if bytes.is_empty() {
            Body::Empty
        } else {
            Body::Bytes(bytes)
        }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Bytes::from(text).into()
    }
}
