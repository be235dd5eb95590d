//! What waits to be written to a disk. Nobody waits for it: what finds no room is not stored.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use super::coming::{Coming, Landing};
use crate::key::Hash;

/// An object to be written: all but the blocks that were sent before.
pub(crate) struct Put {
    pub(crate) id: u64,
    pub(crate) hash: Hash,
    pub(crate) asked_at: u64,
    pub(crate) variant: u16,
    pub(crate) key: Bytes,
    pub(crate) meta: Bytes,
    pub(crate) body_bytes: u64,
    /// The whole body, if it is one block.
    pub(crate) body: Bytes,
    /// Its blocks, if they were sent before.
    pub(crate) coming: Option<Arc<Coming>>,
}

/// One piece of work.
pub(crate) enum Job {
    Put(Box<Put>),
    /// One block of a body of several; the `Put` comes behind them all.
    Block {
        landing: Landing,
        tag: u64,
        bytes: Bytes,
    },
    /// What is stored under this is gone.
    Gone(Hash),
    /// Says when all before it is written; also saves the index if so asked.
    Flush(SyncSender<()>, bool),
}

/// Why something was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too much waits.
    Full,
    /// More than may be written in this time.
    Rate,
    /// Nothing is written any more.
    Closed,
}

/// Work that waits beyond this number is not taken, however small it is.
const MAX_JOBS: usize = 64 * 1024;

/// Words that something is gone are never lost while this many fit: what is to be written makes
/// way for them.
const MAX_GONE: usize = 1024 * 1024;

pub(crate) struct Queue {
    state: Mutex<State>,
    bell: Condvar,
    max_bytes: usize,
    /// 0: as much as can be.
    bytes_per_second: u64,
}

struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    gone: usize,
    /// Tags of what waits, or is being written and not in the index yet.
    pending: FxHashMap<u64, u32>,
    /// Bytes that may be taken now.
    allowance: u64,
    filled_up: Instant,
    is_closed: bool,
    /// The oldest number that something was asked for at which is being written.
    in_hand: u64,
    /// Those who wait until there is room.
    waiting: Vec<Waker>,
}

/// So long those who wait for room wait for the rate to allow more.
const RATE_PATIENCE: Duration = Duration::from_millis(20);

/// What one round of work takes on.
const ROUND_BYTES: usize = 1024 * 1024;
const ROUND_JOBS: usize = 1024;

fn weight(job: &Job) -> usize {
    match job {
        Job::Put(put) => size_of::<Put>() + put.key.len() + put.meta.len() + put.body.len(),
        Job::Block { bytes, .. } => size_of::<Job>() + bytes.len(),
        _ => 0,
    }
}

fn tag(job: &Job) -> Option<u64> {
    match job {
        Job::Put(put) => Some(put.hash.half()),
        Job::Block { tag, .. } => Some(*tag),
        _ => None,
    }
}

impl Queue {
    pub(crate) fn new(max_bytes: usize, bytes_per_second: u64) -> Queue {
        Queue {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                bytes: 0,
                gone: 0,
                pending: FxHashMap::default(),
                allowance: bytes_per_second,
                filled_up: Instant::now(),
                is_closed: false,
                in_hand: u64::MAX,
                waiting: Vec::new(),
            }),
            bell: Condvar::new(),
            max_bytes,
            bytes_per_second,
        }
    }

    /// Takes work on, if there is room for all of it.
    pub(crate) fn offer(&self, jobs: Vec<Job>) -> Result<(), Refused> {
        let bytes: usize = jobs.iter().map(weight).sum();
        let mut state = self.state.lock();
        let cost = self.cost(&mut state, bytes, jobs.len())?;
        state.allowance -= cost;
        self.push(state, bytes, jobs);
        Ok(())
    }

    /// Takes work on though there is no room for it: the last of something that was let in.
    pub(crate) fn insist(&self, jobs: Vec<Job>) -> Result<(), Refused> {
        let bytes: usize = jobs.iter().map(weight).sum();
        let state = self.state.lock();
        if state.is_closed {
            return Err(Refused::Closed);
        }
        self.push(state, bytes, jobs);
        Ok(())
    }

    /// Whether there is room for a piece of so many bytes; if not, wakes this one when it is worth
    /// while to ask again.
    pub(crate) fn has_room(&self, bytes: usize, waker: Option<&Waker>) -> Result<(), Refused> {
        let mut state = self.state.lock();
        let why = match self.cost(&mut state, bytes + size_of::<Job>(), 1) {
            Ok(_) => return Ok(()),
            Err(Refused::Closed) => return Err(Refused::Closed),
            Err(why) => why,
        };
        let Some(waker) = waker else {
            return Err(why);
        };
        if !state.waiting.iter().any(|there| there.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        drop(state);
        // The writer may sleep for long, and has to look at the rate from time to time now.
        self.bell.notify_one();
        Err(why)
    }

    /// What work costs of the rate, if there is room for it.
    fn cost(&self, state: &mut State, bytes: usize, jobs: usize) -> Result<u64, Refused> {
        if state.is_closed {
            return Err(Refused::Closed);
        }
        if state.bytes + bytes > self.max_bytes || state.jobs.len() + jobs > MAX_JOBS {
            return Err(Refused::Full);
        }
        if self.bytes_per_second == 0 {
            return Ok(0);
        }
        state.fill_up(self.bytes_per_second);
        // What is more than a second's worth may go when nothing else has gone for a second.
        let cost = (bytes as u64).min(self.bytes_per_second);
        match cost <= state.allowance {
            true => Ok(cost),
            false => Err(Refused::Rate),
        }
    }

    fn push(&self, mut state: MutexGuard<'_, State>, bytes: usize, jobs: Vec<Job>) {
        state.bytes += bytes;
        for job in jobs {
            if let Some(tag) = tag(&job) {
                *state.pending.entry(tag).or_default() += 1;
            }
            state.jobs.push_back(job);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Work that costs nothing and is not refused.
    pub(crate) fn tell(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.jobs.push_back(job);
            drop(state);
            self.bell.notify_one();
        }
    }

    /// Whether something with this tag waits to be written, or is being written.
    pub(crate) fn is_pending(&self, tag: u64) -> bool {
        self.state.lock().pending.contains_key(&tag)
    }

    /// What is stored, or waits to be stored, under this is gone. `Err`: that cannot be kept in mind.
    pub(crate) fn gone(&self, hash: Hash) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(Refused::Closed);
        }
        if state.gone >= MAX_GONE {
            return Err(Refused::Full);
        }
        state.gone += 1;
        state.jobs.push_back(Job::Gone(hash));
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    /// The next work; empty after `patience`. `None`: all is done, and nothing comes any more.
    pub(crate) fn take(&self, patience: Duration) -> Option<Vec<Job>> {
        let mut state = self.state.lock();
        let until = Instant::now() + patience;
        while state.jobs.is_empty() {
            if state.is_closed {
                return None;
            }
            // Nothing else says when the rate allows more.
            let until = match state.waiting.is_empty() {
                true => until,
                false => until.min(Instant::now() + RATE_PATIENCE),
            };
            if self.bell.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let mut jobs = Vec::new();
        let mut bytes = 0;
        while bytes < ROUND_BYTES
            && jobs.len() < ROUND_JOBS
            && let Some(job) = state.jobs.pop_front()
        {
            bytes += weight(&job);
            state.gone -= usize::from(matches!(job, Job::Gone(_)));
            jobs.push(job);
        }
        state.bytes -= bytes;
        state.in_hand = oldest(&jobs);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Some(jobs)
    }

    /// What these jobs were about is in the index now, or never will be.
    pub(crate) fn settled(&self, tags: impl IntoIterator<Item = u64>) {
        let mut state = self.state.lock();
        state.in_hand = u64::MAX;
        for tag in tags {
            if let Some(count) = state.pending.get_mut(&tag) {
                *count -= 1;
                if *count == 0 {
                    state.pending.remove(&tag);
                }
            }
        }
    }

    /// Takes nothing any more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        self.bell.notify_all();
    }

    /// Forgets what waits.
    pub(crate) fn clear(&self) {
        let mut state = self.state.lock();
        let jobs = std::mem::take(&mut state.jobs);
        state.pending.clear();
        state.bytes = 0;
        state.gone = 0;
        drop(state);
        // Some wake others.
        drop(jobs);
    }

    /// The oldest number that something was asked for at which is not in the index yet.
    pub(crate) fn oldest_asked(&self) -> u64 {
        let state = self.state.lock();
        oldest(&state.jobs).min(state.in_hand)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

fn oldest<'j>(jobs: impl IntoIterator<Item = &'j Job>) -> u64 {
    let asked = jobs.into_iter().filter_map(|job| match job {
        Job::Put(put) => Some(put.asked_at),
        _ => None,
    });
    asked.min().unwrap_or(u64::MAX)
}

/// The tags of jobs that [`Queue::settled`] is to be told of.
pub(crate) fn tags(jobs: &[Job]) -> Vec<u64> {
    jobs.iter().filter_map(tag).collect()
}

impl State {
    fn fill_up(&mut self, bytes_per_second: u64) {
        let now = Instant::now();
        let millis = u64::try_from((now - self.filled_up).as_millis()).unwrap_or(u64::MAX);
        let more = millis.saturating_mul(bytes_per_second) / 1000;
        if more > 0 {
            self.allowance = self.allowance.saturating_add(more).min(bytes_per_second);
            self.filled_up = now;
        }
    }
}
