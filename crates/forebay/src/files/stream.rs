//! A part of a file as a stream.

use std::rc::Rc;
use std::task::{Context, Poll};

use crate::exchange::{FileRange, Pulled, Stream};
use crate::worker::Worker;

/// Reads a part of a file as it is pulled.
pub struct FileStream {
    range: FileRange,
}

impl FileStream {
    /// A stream of this part.
    pub fn new(_worker: &Rc<Worker>, range: FileRange) -> FileStream {
        FileStream { range }
    }
}

impl Stream for FileStream {
    fn poll_pull(&mut self, _cx: &mut Context<'_>) -> Poll<Pulled> {
        Poll::Ready(Pulled::End(None))
    }

    fn len_bytes(&self) -> Option<u64> {
        Some(self.range.end - self.range.start)
    }
}
