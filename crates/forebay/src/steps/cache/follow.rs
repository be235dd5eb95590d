//! The body of an object as a client gets it: what is there at once, the rest as it comes.

use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_store::{FAR_BYTES, NotFilled, Read, Reader, View};

use super::fill::{self, Filling};
use super::from_disk;
use super::stored::{Kept, Stored};
use crate::exchange::{Body, Fault, Lease, Local, Pulled, Reason, Stream};

/// So often bytes are asked for before [`STRIDE_BYTES`] of them have come, from an origin that breaks
/// off again and again.
const MAX_TRIES: u8 = 4;
/// So often into the object: where what has come is thrown out before it is read, the memory is far
/// too small, and nobody is served by more of that.
const MAX_SHARED_TRIES: u8 = 2;
const STRIDE_BYTES: u64 = FAR_BYTES;

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
        tried: (0, 0),
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
    /// Where it was when it began to ask, and how often it has since.
    tried: (u64, u8),
    /// Where it was when it last had the disk asked.
    read_at: Option<u64>,
}

enum State {
    Reads(Reader<Stored>),
    /// It reads a block from a disk for itself: what others bring in is thrown out before it is
    /// read, or too many bring something in.
    Alone(Asked, Local<'static, Option<Bytes>>),
    /// It asks the origin for its own: no reader of the object any more, which need not wait for it.
    Asks(Asked, Local<'static, Option<(Lease, Body)>>),
    Own(Asked, Own),
    Over,
}

/// What is fetched for one reader alone.
struct Asked {
    object: Kept,
    at: u64,
}

struct Own {
    stream: Box<dyn Stream>,
    _exchange: Lease,
}

impl Following {
    /// Whether to ask once more, being at this byte.
    fn may_try(&mut self, at: u64) -> bool {
        let (since, times) = &mut self.tried;
        if at >= *since + STRIDE_BYTES {
            (*since, *times) = (at, 0);
        }
        *times += 1;
        *times <= MAX_TRIES
    }

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
        if !self.may_try(at) {
            return false;
        }
        let Some(source) = &self.source else {
            return false;
        };
        if self.tried.1 > MAX_SHARED_TRIES {
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
        let end = self.end.unwrap_or(u64::MAX);
        let rest = fill::rest_of(source, asked.object.clone(), asked.at, end);
        self.state = State::Asks(asked, Box::pin(rest));
        true
    }

    /// What was fetched for this reader alone has ended.
    fn ended(&mut self, fault: Option<Fault>) -> Option<Pulled> {
        let State::Own(asked, _) = std::mem::replace(&mut self.state, State::Over) else {
            return None;
        };
        let is_short = self
            .end
            .or(asked.object.body.len_bytes())
            .is_some_and(|end| asked.at < end);
        match fault {
            None if !is_short => Some(Pulled::End(None)),
            fault => {
                let at = asked.at;
                match self.may_try(at) && self.ask(asked) {
                    true => None,
                    false => {
                        let fault = fault.unwrap_or_else(|| Reason::Truncated.into());
                        Some(Pulled::Abort(fault))
                    }
                }
            }
        }
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
                State::Asks(_, rest) => {
                    let rest = ready!(rest.as_mut().poll(cx));
                    let State::Asks(asked, _) = std::mem::replace(&mut self.state, State::Over)
                    else {
                        continue;
                    };
                    if let Some((exchange, body)) = rest {
                        let own = Own {
                            stream: fill::stream(&exchange, body),
                            _exchange: exchange,
                        };
                        self.state = State::Own(asked, own);
                    }
                    continue;
                }
                State::Own(asked, own) => match ready!(own.stream.poll_pull(cx)) {
                    Pulled::Data(mut bytes) => {
                        let left = self.end.map_or(u64::MAX, |end| end - asked.at);
                        if bytes.len() as u64 > left {
                            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                        }
                        asked.at += bytes.len() as u64;
                        if let Some(source) = &self.source {
                            source.errand.count_bytes(bytes.len());
                        }
                        match bytes.is_empty() {
                            true => Some(Pulled::End(None)),
                            false => Some(Pulled::Data(bytes)),
                        }
                    }
                    end => {
                        let fault = match end {
                            Pulled::Abort(fault) => Some(fault),
                            _ => None,
                        };
                        match self.ended(fault) {
                            None => continue,
                            pulled => pulled,
                        }
                    }
                },
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
