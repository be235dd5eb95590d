//! The body of an object as a client gets it: what is there at once, the rest as it comes.

use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_store::{Read, Reader};

use super::fill::Filling;
use super::stored::{Kept, Stored};
use crate::exchange::{Body, Pulled, Reason, Stream};

/// An object of one block up to this size is copied rather than shared: two workers that count the
/// readers of one piece of memory cost each other more.
const COPIED_BYTES: usize = 8 * 1024;

/// So often in a row the same bytes are asked for when they are gone again, as from a memory that
/// is far too small.
const MAX_TRIES: u8 = 4;

/// A part of an object, or all of it as far as its end is known.
pub fn body(object: &Kept, range: Option<Range<u64>>, source: Option<&Rc<Filling>>) -> Body {
    let (start, end) = match &range {
        Some(range) => (range.start, Some(range.end)),
        None => (0, object.body.len_bytes()),
    };
    if let Some(whole) = object.body.whole() {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
        let end = end.map_or(whole.len(), place);
        let start = place(start).min(end);
        return match end - start {
            len if len <= COPIED_BYTES => Bytes::copy_from_slice(&whole[start..end]).into(),
            _ => whole.slice(start..end).into(),
        };
    }
    Body::Stream(Box::new(Following {
        reader: Reader::new(object.clone(), start, end),
        len_bytes: end.map(|end| end - start),
        source: source.cloned(),
        tried: (u64::MAX, 0),
    }))
}

/// A reader that has what is absent brought in.
struct Following {
    reader: Reader<Stored>,
    len_bytes: Option<u64>,
    source: Option<Rc<Filling>>,
    /// What was asked for last, and how often.
    tried: (u64, u8),
}

impl Following {
    /// Has the bytes from `at` on brought in. False: nobody can.
    fn bring(&mut self, at: u64) -> bool {
        match &mut self.tried {
            (last, times) if *last == at => {
                *times += 1;
                if *times == MAX_TRIES {
                    return false;
                }
            }
            tried => *tried = (at, 1),
        }
        match &self.source {
            Some(source) => source.bring(self.reader.object(), at, self.reader.end()),
            None => false,
        }
    }
}

impl Stream for Following {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        loop {
            return match self.reader.poll_read(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Read::Data(bytes)) => Poll::Ready(Pulled::Data(bytes)),
                Poll::Ready(Read::End) => Poll::Ready(Pulled::End(None)),
                Poll::Ready(Read::Absent(at)) if self.bring(at) => continue,
                Poll::Ready(Read::Absent(_) | Read::Failed) => {
                    Poll::Ready(Pulled::Abort(Reason::Truncated.into()))
                }
            };
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len_bytes
    }
}
