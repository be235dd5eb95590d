//! What peers report of their load, and what that makes of them: `balance = "score"`.
//!
//! A score is half of the processor, three tenths of the memory and a fifth of input and output, each
//! from 0 to 100, smoothed: seven tenths of what it was, three of what is reported. To it comes one
//! for each request in flight since the report: else all would go to the one that was idle then, until
//! the next report. A report that is older than three periods counts for nothing; who has none counts
//! as the others do on average; and without any it is round robin.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use crate::groups::GROUP;
use crate::pool::Pool;
use crate::units::Tick;

/// How busy a peer is, each from 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Of its processor.
    pub cpu: f32,
    /// Of its memory.
    pub memory: f32,
    /// Of what it can read and write.
    pub io: f32,
}

/// Points of a score are counted in hundredths.
const HUNDREDTHS: f32 = 100.0;
/// One request in flight is one point.
const REQUEST: u64 = 100;
/// Reports count for so many periods.
const PERIODS: u32 = 3;

impl Load {
    /// The score that a single report makes, from 0 to 100; what is no number counts as nothing.
    #[must_use]
    pub fn score(&self) -> f32 {
        let part = |value: f32| {
            if value.is_nan() {
                0.0
            } else {
                value.clamp(0.0, 100.0)
            }
        };
        0.5 * part(self.cpu) + 0.3 * part(self.memory) + 0.2 * part(self.io)
    }
}

/// The scores of a pool: a word for each peer, side by side, since every choice reads all.
#[derive(Debug)]
pub(crate) struct Scores {
    words: Box<[AtomicU64]>,
    /// Until when some report counts, in milliseconds.
    until: AtomicU64,
    /// The average of those that count.
    mean: AtomicU32,
}

/// What a word holds: the score in hundredths, what was in flight when it was reported (as far as 16
/// bits go), and until when it counts: the lower half of the milliseconds, which is enough to tell
/// sooner from later for three weeks.
#[derive(Clone, Copy)]
struct Word {
    score: u16,
    in_flight: u16,
    until: u32,
}

impl Word {
    fn unpack(word: u64) -> Word {
        let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
        Word {
            score: u16::from_be_bytes([a, b]),
            in_flight: u16::from_be_bytes([c, d]),
            until: u32::from_be_bytes([e, f, g, h]),
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.score) << 48 | u64::from(self.in_flight) << 32 | u64::from(self.until)
    }

    fn counts(self, now: u32) -> bool {
        (1..1 << 31).contains(&self.until.wrapping_sub(now))
    }
}

impl Scores {
    pub(crate) fn new(peers: usize) -> Scores {
        Scores {
            words: (0..peers).map(|_| AtomicU64::new(0)).collect(),
            until: AtomicU64::new(0),
            mean: AtomicU32::new(0),
        }
    }

    /// Whether any report counts.
    pub(crate) fn any(&self, now: Tick) -> bool {
        now.as_millis() < self.until.load(Relaxed)
    }

    /// Takes the average of the reports that count, whoever has made them when.
    fn settle_mean(&self, now: Tick) {
        let words = self
            .words
            .iter()
            .map(|word| Word::unpack(word.load(Relaxed)));
        let (mut sum, mut count) = (0_u64, 0_u64);
        for word in words.filter(|word| word.counts(low(now))) {
            sum += u64::from(word.score);
            count += 1;
        }
        let mean = sum.checked_div(count).unwrap_or(0);
        self.mean
            .store(u32::try_from(mean).unwrap_or(u32::MAX), Relaxed);
    }

    /// What a choice goes by, the less the better, in hundredths of a point.
    #[inline]
    pub(crate) fn points(&self, peer: usize, in_flight: u32, now: Tick) -> u64 {
        let word = self.words.get(peer).map_or(0, |word| word.load(Relaxed));
        let word = Word::unpack(word);
        if !word.counts(low(now)) {
            let mean = u64::from(self.mean.load(Relaxed));
            return mean + u64::from(in_flight) * REQUEST;
        }
        let since = in_flight.saturating_sub(u32::from(word.in_flight));
        // In whole points: what is measured is never quite equal, and those that are nearly so take
        // turns.
        u64::from(word.score).next_multiple_of(REQUEST) + u64::from(since) * REQUEST
    }
}

/// The lower half of the milliseconds.
fn low(now: Tick) -> u32 {
    let [.., a, b, c, d] = now.as_millis().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl Pool {
    /// Takes what peers report of their load, for [`Balance::Score`](crate::Balance::Score); `period`
    /// is how often they do.
    pub fn report_loads(&self, loads: &[(usize, Load)], period: Duration, now: Tick) {
        let until = now + period * PERIODS;
        let mut any = false;
        for (peer, load) in loads {
            let (Some(word), Some(hot)) = (self.scores.words.get(*peer), self.hot.get(*peer))
            else {
                continue;
            };
            let known = Word::unpack(word.load(Relaxed));
            let new = load.score() * HUNDREDTHS;
            let score = if known.counts(low(now)) {
                0.7 * f32::from(known.score) + 0.3 * new
            } else {
                new
            };
            let new = Word {
                score: hundredths(score),
                in_flight: u16::try_from(hot.permits.used()).unwrap_or(u16::MAX),
                until: low(until),
            };
            word.store(new.pack(), Relaxed);
            any = true;
        }
        if any {
            self.scores.settle_mean(now);
            self.scores.until.fetch_max(until.as_millis(), Relaxed);
            // Those without a report count as the average does, so all have changed.
            (0..self.len())
                .step_by(GROUP)
                .for_each(|peer| self.changed(peer));
        }
    }

    /// Forgets what a peer has reported: there is another in its place.
    pub fn forget_load(&self, peer: usize) {
        if let Some(word) = self.scores.words.get(peer) {
            word.store(0, Relaxed);
            self.changed(peer);
        }
    }

    /// The score of a peer, from 0 to 100, if a report of its counts.
    #[must_use]
    pub fn score(&self, peer: usize, now: Tick) -> Option<f32> {
        let word = Word::unpack(self.scores.words.get(peer)?.load(Relaxed));
        word.counts(low(now))
            .then(|| f32::from(word.score) / HUNDREDTHS)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 0 and 10,000"
)]
fn hundredths(score: f32) -> u16 {
    score.clamp(0.0, 100.0 * HUNDREDTHS).round() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_processor_three_tenths_memory_a_fifth_io() {
        let check = |cpu, memory, io, expected: f32| {
            let score = Load { cpu, memory, io }.score();
            assert!((score - expected).abs() < 0.001, "{score} {expected}");
        };
        check(100.0, 0.0, 0.0, 50.0);
        check(0.0, 100.0, 0.0, 30.0);
        check(0.0, 0.0, 100.0, 20.0);
        check(100.0, 100.0, 100.0, 100.0);
        check(40.0, 20.0, 10.0, 28.0);
        check(-5.0, f32::NAN, 1_000.0, 20.0);
    }

    #[test]
    fn a_word_is_read_as_written() {
        let word = Word {
            score: 9_999,
            in_flight: 65_535,
            until: u32::MAX,
        };
        let read = Word::unpack(word.pack());
        assert_eq!(
            (read.score, read.in_flight, read.until),
            (9_999, 65_535, u32::MAX)
        );
        assert!(word.counts(u32::MAX - 1) && !word.counts(u32::MAX) && !word.counts(0));
        let wrapped = Word { until: 5, ..word };
        assert!(wrapped.counts(u32::MAX) && !wrapped.counts(5));
    }
}
