//! What is under way of a body: the runs of bytes that fills bring in, and those who wait for them.

use std::task::{Context, Waker};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{BLOCK_BYTES, FAR_BYTES, Look, MAX_FILLS};

/// So many fills that have failed are remembered, for those who waited for them.
const MAX_FAILED: usize = 2 * MAX_FILLS;

/// A fill's work, and those who wait for it.
#[derive(Default)]
pub(super) struct Work {
    pub(super) runs: SmallVec<[Run; 1]>,
    pub(super) next_run: u32,
    /// Complete blocks from the beginning of a body whose length is not known; `None`: gone again,
    /// since only a window is kept.
    pub(super) early: Vec<Option<Bytes>>,
    /// Readers, each once: they are all woken together, and that begins another round.
    pub(super) waiting: Vec<Waker>,
    /// The fill that waits for readers, or for none to be left.
    pub(super) filler: Vec<Waker>,
    /// How far the fastest reader is.
    pub(super) fastest: u64,
    /// Of a window, the first block that may still be there.
    pub(super) kept_from: u64,
    /// The fills that have failed last. Who has not waited for one of them may try another.
    pub(super) failed: SmallVec<[u32; MAX_FAILED]>,
}

/// A run of bytes that is being brought in.
pub(super) struct Run {
    pub(super) id: u32,
    /// The first byte of the block that is being filled.
    pub(super) block_at: u64,
    /// What is there of that block.
    pub(super) pieces: Vec<Bytes>,
    pub(super) pieces_bytes: u64,
    /// The first byte that this fill was to bring.
    pub(super) start: u64,
    /// One past the last byte that this fill brings; `UNKNOWN` where that is the end.
    pub(super) end: u64,
    /// What `end` was before another fill took a part of it over.
    pub(super) asked_end: u64,
    /// When it began, on the monotonic clock.
    pub(super) since_ms: u64,
}

/// Where a reader waits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    /// In which round, and its place among those who wait.
    pub(super) round: Option<(u64, usize)>,
    /// For which fill.
    pub(super) run: Option<u32>,
    /// It knows that it is far ahead of that.
    pub(super) knows_far: bool,
}

impl Run {
    pub(super) fn at(&self) -> u64 {
        self.block_at + self.pieces_bytes
    }

    pub(super) fn covers(&self, at: u64) -> bool {
        at >= self.block_at && at < self.end
    }

    pub(super) fn is_far(&self, at: u64) -> bool {
        at > self.at() + FAR_BYTES
    }

    /// All that is left to it has come, and what else was asked for is brought by another.
    pub(super) fn has_enough(&self) -> bool {
        self.end < self.asked_end && self.at() >= self.end
    }
}

impl Work {
    pub(super) fn wait(&mut self, place: &mut Place, now: u64, cx: &mut Context<'_>) {
        match place.round {
            // It is polled again, for another reason than this.
            Some((round, at)) if round == now => {
                if let Some(waker) = self.waiting.get_mut(at) {
                    waker.clone_from(cx.waker());
                }
            }
            _ => {
                place.round = Some((now, self.waiting.len()));
                self.waiting.push(cx.waker().clone());
            }
        }
    }

    /// Those who fill: as many as there are fills, and each may have come several times.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        if !self.filler.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.filler.push(cx.waker().clone());
        }
    }

    pub(super) fn note_failed(&mut self, run: u32) {
        if self.failed.len() == MAX_FAILED {
            self.failed.remove(0);
        }
        self.failed.push(run);
    }

    pub(super) fn look(&self, at: u64, place: &mut Place, windowed: bool) -> Look {
        let early = usize::try_from(at / BLOCK_BYTES).ok();
        if let Some(Some(block)) = early.and_then(|number| self.early.get(number)) {
            // A block's offset is less than its length, which is that of every early block.
            let within = usize::try_from(at % BLOCK_BYTES).unwrap_or(usize::MAX);
            return Look::Data(block.slice(within.min(block.len())..));
        }
        let Some(run) = self.runs.iter().find(|run| run.covers(at)) else {
            return match place.run.take() {
                Some(run) if self.failed.contains(&run) => Look::Failed,
                _ => Look::Absent,
            };
        };
        if run.is_far(at) {
            if windowed {
                // It would only make the fill leave the others behind.
                return Look::Absent;
            }
            if !place.knows_far {
                place.knows_far = true;
                return Look::Far;
            }
        }
        let mut skip = at - run.block_at;
        for piece in &run.pieces {
            let len = piece.len() as u64;
            if skip < len {
                // Less than its length, which is a usize.
                return Look::Data(piece.slice(usize::try_from(skip).unwrap_or(0)..));
            }
            skip -= len;
        }
        place.run = Some(run.id);
        Look::Wait
    }
}
