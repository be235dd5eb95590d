//! Bytes of an object that one reader fetches for itself, since they are not brought in for all.
//!
//! It asks for a part at a time, as much as it takes within a second or so: what it does not take
//! would lie in the memory of the kernel, a megabyte and more for each reader. What a slow one asks
//! for is small enough to be held here; then the connection is free for others.

use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::fill::{self, Filling};
use super::stored::Kept;
use crate::exchange::{Fault, Lease, Local, Pulled, Reason, Stream};

/// So much is asked for at once in the beginning, and by who needs long for it...
const MIN_ASK: u64 = 64 * 1024;
/// ... and so much by who is fast: of a distant origin it is more than comes in the time that a
/// request takes.
const MAX_ASK: u64 = 4 * 1024 * 1024;
/// Who takes it in less than this, twice, asks for twice as much: the first time it may have gone
/// into the buffers of the kernel...
const FAST_MS: u64 = 1_000;
/// ... and who needs more than this, for half.
const SLOW_MS: u64 = 8_000;

/// Up to so much is taken from the origin before the reader wants it.
const HELD_BYTES: u64 = 128 * 1024;

/// Who has bytes asked for, and how often it has without getting any further.
#[derive(Clone, Copy, Default)]
pub struct Tries {
    since: u64,
    times: u8,
}

/// So often bytes are asked for before [`STRIDE_BYTES`] of them have come, from an origin that breaks
/// off again and again.
const MAX_TRIES: u8 = 4;
const STRIDE_BYTES: u64 = forebay_store::FAR_BYTES;

impl Tries {
    /// Whether to ask once more, being at this byte; how often it was asked, now included.
    pub fn again(&mut self, at: u64) -> Option<u8> {
        if at >= self.since + STRIDE_BYTES {
            (self.since, self.times) = (at, 0);
        }
        self.times += 1;
        (self.times <= MAX_TRIES).then_some(self.times)
    }
}

/// See the module.
pub struct Own {
    source: Rc<Filling>,
    object: Kept,
    at: u64,
    /// One past the last byte that is wanted; `None`: to the end, wherever that is.
    end: Option<u64>,
    tries: Tries,
    /// How much is asked for at once.
    ask_bytes: u64,
    /// It took that in no time, once.
    was_fast: bool,
    /// When it was asked last, and up to which byte.
    asked_ms: u64,
    until: u64,
    part: Part,
}

/// What was asked for.
enum Part {
    Asked(Local<'static, Option<Answer>>),
    Held(Bytes, Option<Fault>),
    Comes(
        Box<dyn Stream>,
        #[expect(dead_code, reason = "it is held")] Lease,
    ),
}

struct Answer {
    part: Part,
    /// How long all of it is, if that is known now.
    complete: Option<u64>,
}

impl Own {
    /// For a reader that is at this byte of an object.
    pub fn new(source: Rc<Filling>, object: Kept, at: u64, end: Option<u64>, tries: Tries) -> Own {
        let mut own = Own {
            source,
            object,
            at,
            end,
            tries,
            ask_bytes: MIN_ASK,
            was_fast: false,
            asked_ms: 0,
            until: at,
            part: Part::Held(Bytes::new(), None),
        };
        own.ask();
        own
    }

    /// Where it ends, as far as that is known.
    fn len(&self) -> Option<u64> {
        self.end.or(self.object.body.len_bytes())
    }

    fn now_ms(&self) -> u64 {
        self.source.errand.worker().now_ms()
    }

    fn ask(&mut self) {
        let until = self.at.saturating_add(self.ask_bytes);
        self.until = until.min(self.len().unwrap_or(u64::MAX));
        self.asked_ms = self.now_ms();
        let range = self.at..self.until;
        let answer = answer(self.source.clone(), self.object.clone(), range);
        self.part = Part::Asked(Box::pin(answer));
    }

    /// The next bytes.
    pub fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        loop {
            let pulled = match &mut self.part {
                Part::Asked(answer) => match ready!(answer.as_mut().poll(cx)) {
                    Some(Answer { part, complete }) => {
                        self.part = part;
                        self.end = self.end.or(complete);
                        continue;
                    }
                    None => Pulled::Abort(Reason::Truncated.into()),
                },
                Part::Held(bytes, fault) => match (std::mem::take(bytes), fault.take()) {
                    (bytes, None) if bytes.is_empty() => Pulled::End(None),
                    (bytes, Some(fault)) if bytes.is_empty() => Pulled::Abort(fault),
                    (bytes, left) => {
                        *fault = left;
                        Pulled::Data(bytes)
                    }
                },
                Part::Comes(stream, _) => ready!(stream.poll_pull(cx)),
            };
            let has_failed = matches!(self.part, Part::Asked(_));
            let fault = match pulled {
                Pulled::Data(mut bytes) => {
                    let left = usize::try_from(self.until - self.at).unwrap_or(usize::MAX);
                    bytes.truncate(left);
                    self.at += bytes.len() as u64;
                    self.source.errand.count_bytes(bytes.len());
                    match bytes.is_empty() {
                        true => None,
                        false => return Poll::Ready(Pulled::Data(bytes)),
                    }
                }
                Pulled::End(_) => None,
                // The origin has something else, or nothing.
                Pulled::Abort(fault) if has_failed => return Poll::Ready(Pulled::Abort(fault)),
                Pulled::Abort(fault) => Some(fault),
            };
            if let Some(end) = self.go_on(fault) {
                return Poll::Ready(end);
            }
        }
    }

    /// What was asked for has come to its end: asks for what comes next, or says that this was all.
    fn go_on(&mut self, fault: Option<Fault>) -> Option<Pulled> {
        let len = self.len();
        match fault {
            None if len.is_some_and(|len| self.at >= len) => return Some(Pulled::End(None)),
            None if self.at >= self.until => self.adapt(),
            // Nobody knows how long it is, and there was no more of it.
            None if len.is_none() => return Some(Pulled::End(None)),
            fault => {
                if self.tries.again(self.at).is_none() {
                    let fault = fault.unwrap_or_else(|| Reason::Truncated.into());
                    return Some(Pulled::Abort(fault));
                }
            }
        }
        self.ask();
        None
    }

    fn adapt(&mut self) {
        let took_ms = self.now_ms().saturating_sub(self.asked_ms);
        let is_fast = took_ms < FAST_MS;
        if is_fast && self.was_fast {
            self.ask_bytes = (self.ask_bytes * 2).min(MAX_ASK);
        } else if took_ms >= SLOW_MS {
            self.ask_bytes = (self.ask_bytes / 2).max(MIN_ASK);
        }
        self.was_fast = is_fast && !self.was_fast;
    }
}

/// Asks for a part; `None`: it is not to be had.
async fn answer(source: Rc<Filling>, object: Kept, range: Range<u64>) -> Option<Answer> {
    let len = range.end - range.start;
    let (exchange, body, complete) = fill::part_of(source, object, range).await?;
    let mut stream = fill::stream(&exchange, body);
    let part = match len > HELD_BYTES {
        true => Part::Comes(stream, exchange),
        false => hold(&mut *stream, len).await,
    };
    Some(Answer { part, complete })
}

/// Takes all of a part.
async fn hold(stream: &mut dyn Stream, len: u64) -> Part {
    // What was received lies in buffers that hold more.
    let mut held = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
    let fault = loop {
        match std::future::poll_fn(|cx| stream.poll_pull(cx)).await {
            Pulled::Data(bytes) => {
                let left = held.capacity() - held.len();
                held.extend_from_slice(&bytes[..bytes.len().min(left)]);
                // More than was asked for is of no use.
                if bytes.len() > left {
                    break None;
                }
            }
            Pulled::End(_) => break None,
            Pulled::Abort(fault) => break Some(fault),
        }
    };
    Part::Held(held.freeze(), fault)
}
