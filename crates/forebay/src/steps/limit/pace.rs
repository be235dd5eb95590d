//! A body that is sent no faster than allowed.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use crate::exchange::{Body, Pulled, Stream};
use crate::files::FileStream;
use crate::wheel::Deadline;
use crate::worker::Worker;

/// Goes out at one time at most: what is sent in a tenth of a second, within these limits. Smaller
/// pieces would cost more than they carry, larger ones would come in jerks.
const MAX_PIECE: u64 = 64 * 1024;

/// So many bytes per second, after the first ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub bytes_per_second: u64,
    pub after_bytes: u64,
}

impl Pace {
    /// The same body at this pace.
    pub fn apply(self, worker: &Rc<Worker>, body: Body) -> Body {
        let len_bytes = body.len_bytes();
        // All of it is among the first bytes.
        if len_bytes.is_some_and(|len| len <= self.after_bytes) {
            return body;
        }
        let (source, held): (Option<Box<dyn Stream>>, _) = match body {
            // What goes through a tunnel is no response's body.
            Body::Empty | Body::Tunnel(_) => return body,
            Body::Bytes(bytes) => (None, bytes),
            Body::File(range) => (Some(Box::new(FileStream::new(worker, range))), Bytes::new()),
            Body::Stream(stream) => (Some(stream), Bytes::new()),
        };
        Body::Stream(Box::new(Paced {
            source,
            held,
            len_bytes,
            credit: Credit::new(self, worker.now_ms()),
            deadline: worker.wheel.register(),
            worker: worker.clone(),
        }))
    }
}

struct Paced {
    /// `None`: all that is left is held.
    source: Option<Box<dyn Stream>>,
    held: Bytes,
    len_bytes: Option<u64>,
    credit: Credit,
    deadline: Deadline,
    worker: Rc<Worker>,
}

impl Stream for Paced {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        while self.held.is_empty() {
            let Some(source) = &mut self.source else {
                return Poll::Ready(Pulled::End(None));
            };
            match ready!(source.poll_pull(cx)) {
                Pulled::Data(bytes) => self.held = bytes,
                end => return Poll::Ready(end),
            }
        }
        loop {
            let now_ms = self.worker.now_ms();
            match self.credit.spend(self.held.len(), now_ms) {
                Ok(len) => {
                    self.deadline.clear();
                    return Poll::Ready(Pulled::Data(self.held.split_to(len)));
                }
                Err(wait) => {
                    self.deadline.set(now_ms, wait);
                    ready!(self.deadline.poll_expired(cx));
                }
            }
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len_bytes
    }
}

/// How much may be sent now. In thousandths of a byte, so that slow paces are exact too.
struct Credit {
    pace: Pace,
    thousandths: u64,
    seen_ms: u64,
}

impl Credit {
    fn new(pace: Pace, now_ms: u64) -> Credit {
        Credit {
            pace,
            thousandths: pace.after_bytes.saturating_mul(1_000),
            seen_ms: now_ms,
        }
    }

    /// How many of these bytes may go now, or how long to wait.
    fn spend(&mut self, len: usize, now_ms: u64) -> Result<usize, Duration> {
        self.earn(now_ms);
        let len = len as u64;
        let rate = self.pace.bytes_per_second;
        // Not fewer than a piece, if there are as many, so that it is not sent byte by byte.
        let piece = (rate / 10).clamp(1, MAX_PIECE).min(len);
        let free = self.thousandths / 1_000;
        if free < piece {
            let missing = piece * 1_000 - self.thousandths;
            return Err(Duration::from_millis(missing.div_ceil(rate)));
        }
        let len = len.min(free);
        self.thousandths -= len * 1_000;
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// A client that has paused does not catch up on more than a second.
    fn earn(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.seen_ms).min(1_000);
        self.seen_ms = now_ms.max(self.seen_ms);
        let rate = self.pace.bytes_per_second;
        let most = rate.saturating_mul(1_000).max(self.thousandths);
        let earned = rate.saturating_mul(passed_ms);
        self.thousandths = self.thousandths.saturating_add(earned).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(bytes_per_second: u64, after_bytes: u64) -> Credit {
        let pace = Pace {
            bytes_per_second,
            after_bytes,
        };
        Credit::new(pace, 0)
    }

    /// How much of an endless body has gone at each of these times.
    fn sent(mut credit: Credit, times_ms: &[u64]) -> Vec<usize> {
        let mut total = 0;
        let mut until = |now: &u64| {
            while let Ok(len) = credit.spend(1 << 20, *now) {
                total += len;
            }
            total
        };
        times_ms.iter().map(&mut until).collect()
    }

    #[test]
    fn the_first_bytes_at_once_and_then_the_pace() {
        let times = [0, 50, 100, 1_000, 2_000];
        assert_eq!(sent(credit(1_000, 0), &times), [0, 0, 100, 1_000, 2_000]);
        assert_eq!(
            sent(credit(1_000, 5_000), &times),
            [5_000, 5_000, 5_100, 6_000, 7_000]
        );
        assert_eq!(
            sent(credit(1, 0), &[999, 1_000, 1_999, 2_000]),
            [0, 1, 1, 2]
        );
    }

    #[test]
    fn a_pause_is_caught_up_for_a_second_only() {
        assert_eq!(sent(credit(1_000, 0), &[60_000]), [1_000]);
        assert_eq!(sent(credit(1_000, 9_000), &[60_000]), [9_000]);
    }

    #[test]
    fn it_says_how_long_to_wait() {
        let mut credit = credit(1_000, 0);
        assert_eq!(credit.spend(1 << 20, 0), Err(Duration::from_millis(100)));
        assert_eq!(credit.spend(1 << 20, 70), Err(Duration::from_millis(30)));
        assert_eq!(credit.spend(1 << 20, 100), Ok(100));
        assert_eq!(credit.spend(20, 100), Err(Duration::from_millis(20)));
    }
}
