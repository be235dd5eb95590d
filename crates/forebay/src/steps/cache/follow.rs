//! The body of an object as a client gets it: what is there at once, the rest as it comes.

use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_store::{NotFilled, Read, Reader, View};

use super::fill::Filling;
use super::from_disk;
use super::own::{Own, Tries};
use super::stored::{Kept, Stored};
use crate::exchange::{Body, Local, Pulled, Reason, Stream};

/// So often into the object: where what has come is thrown out before it is read, the memory is far
/// too small, and nobody is served by more of that.
const MAX_SHARED_TRIES: u8 = 2;

/// A part of an object, or all of it as far as its end is known.
pub fn body(
    object: &Kept,
    view: &View<'_>,
    range: Option<Range<u64>>,
    source: Option<&Rc<Filling>>,
) -> Body {
    let (start, end) = match &range {
        Some(range) => (range.start, Some(range.end)),
        None => (0, view.len_bytes()),
    };
    if let Some(part) = view.part(start, end) {
        return part.into();
    }
    Body::Stream(Box::new(Following {
        state: State::Reads(Reader::new(object.clone(), start, end)),
        end,
        len_bytes: end.map(|end| end - start),
        source: source.cloned(),
        tries: Tries::default(),
        read_at: None,
    }))
}

/// A reader that has what is absent brought in; where that cannot be, as of an object too large for
/// the memory whose fill is far ahead, it fetches the rest for itself.
struct Following {
    state: State,
    /// One past the last byte that is wanted; `None`: to the end, wherever that is.
    end: Option<u64>,
    len_bytes: Option<u64>,
    source: Option<Rc<Filling>>,
    /// How often it has asked.
    tries: Tries,
    /// Where it was when it last had the disk asked.
    read_at: Option<u64>,
}

enum State {
    Reads(Reader<Stored>),
    /// It reads a block from a disk for itself: what others bring in is thrown out before it is
    /// read, or too many bring something in.
    Alone(Asked, Local<'static, Option<Bytes>>),
    /// It asks the origin for its own: no reader of the object any more, which need not wait for it.
    Own(Box<Own>),
    Over,
}

/// What is fetched for one reader alone.
struct Asked {
    object: Kept,
    at: u64,
}

impl Following {
    /// Has the bytes from `at` on brought in, into the object or for this reader alone. False:
    /// nobody can.
    fn bring(&mut self, at: u64) -> bool {
        let (State::Reads(reader), Some(source)) = (&self.state, &self.source) else {
            return false;
        };
        let object = reader.object().clone();
        // Once for each place: what has come of it may be gone again.
        let brought = match self.read_at == Some(at) {
            false => source.bring_from_disk(&object, at, self.end),
            true => Some(Err(NotFilled::Refused)),
        };
        match brought {
            Some(Ok(())) => {
                self.read_at = Some(at);
                true
            }
            Some(Err(NotFilled::Refused)) => {
                let block = from_disk::block_of(source.clone(), object.clone(), at);
                self.state = State::Alone(Asked { object, at }, Box::pin(block));
                true
            }
            None | Some(Err(NotFilled::Needless)) => self.bring_from_origin(object, at),
        }
    }

    /// The same, where no disk has them.
    fn bring_from_origin(&mut self, object: Kept, at: u64) -> bool {
        let (Some(times), Some(source)) = (self.tries.again(at), &self.source) else {
            return false;
        };
        if times > MAX_SHARED_TRIES {
            return self.ask(Asked { object, at });
        }
        let end = from_disk::gap_end(source, &object, at, self.end);
        match source.bring(&object, at, end) {
            Ok(()) | Err(NotFilled::Needless) => true,
            Err(NotFilled::Refused) => self.ask(Asked { object, at }),
        }
    }

    /// What a disk had for this reader alone; then it goes on as before.
    fn read_alone(&mut self, block: Option<Bytes>) -> Option<Pulled> {
        let State::Alone(asked, _) = std::mem::replace(&mut self.state, State::Over) else {
            return None;
        };
        let Asked { object, at } = asked;
        let Some(mut bytes) = block else {
            self.state = State::Reads(Reader::new(object.clone(), at, self.end));
            return match self.bring_from_origin(object, at) {
                true => None,
                false => Some(Pulled::Abort(Reason::Truncated.into())),
            };
        };
        let left = self.end.map_or(u64::MAX, |end| end - at);
        bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let next = at + bytes.len() as u64;
        self.state = State::Reads(Reader::new(object, next, self.end));
        Some(Pulled::Data(bytes))
    }

    fn ask(&mut self, asked: Asked) -> bool {
        let Some(source) = self.source.clone() else {
            return false;
        };
        let Asked { object, at } = asked;
        let own = Own::new(source, object, at, self.end, self.tries);
        self.state = State::Own(Box::new(own));
        true
    }
}

impl Stream for Following {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        loop {
            let pulled = match &mut self.state {
                State::Over => None,
                State::Reads(reader) => match ready!(reader.poll_read(cx)) {
                    Read::Data(bytes) => Some(Pulled::Data(bytes)),
                    Read::End => Some(Pulled::End(None)),
                    Read::Far(at) => {
                        let object = reader.object().clone();
                        if let Some(source) = &self.source {
                            source.bring_far(&object, at, self.end);
                        }
                        continue;
                    }
                    Read::Absent(at) if self.bring(at) => continue,
                    Read::Absent(_) | Read::Failed => None,
                },
                State::Alone(_, block) => {
                    let block = ready!(block.as_mut().poll(cx));
                    match self.read_alone(block) {
                        None => continue,
                        pulled => pulled,
                    }
                }
                State::Own(own) => Some(ready!(own.poll_pull(cx))),
            };
            let pulled = pulled.unwrap_or_else(|| Pulled::Abort(Reason::Truncated.into()));
            return Poll::Ready(pulled);
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len_bytes
    }

    fn is_in_memory(&self) -> bool {
        matches!(&self.state, State::Reads(reader) if reader.object().body.is_complete())
    }
}
