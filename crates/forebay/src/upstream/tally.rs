//! What becomes of the processes of a pool, for metrics and `forebay status`.
//!
//! Written by their keeper alone, read by whoever asks.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

/// Why a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It could not be started.
    Start,
    /// It ended by itself, with a failure or by a signal, or without having served.
    Crash,
    /// It ended by itself, with status 0, and had served.
    Exit,
    /// It was killed: a request took longer than `time`.
    Time,
    /// It was killed: it held more than `memory`.
    Memory,
    /// It has had `max_requests`.
    Requests,
    /// It was not needed any more.
    Spare,
}

impl Gone {
    /// All of them.
    pub const ALL: [Gone; 7] = [
        Gone::Start,
        Gone::Crash,
        Gone::Exit,
        Gone::Time,
        Gone::Memory,
        Gone::Requests,
        Gone::Spare,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Gone::Start => "start",
            Gone::Crash => "crash",
            Gone::Exit => "exit",
            Gone::Time => "time",
            Gone::Memory => "memory",
            Gone::Requests => "requests",
            Gone::Spare => "spare",
        }
    }
}

/// What is counted of a pool's processes.
#[derive(Debug, Default)]
pub struct Tally {
    starts: AtomicU64,
    gone: [AtomicU64; Gone::ALL.len()],
    held_ms: AtomicU64,
    slots: Box<[Slot]>,
}

/// What runs in a slot at the moment.
#[derive(Debug, Default)]
struct Slot {
    /// 0: nothing that is known of.
    pid: AtomicU32,
    memory_bytes: AtomicU64,
    is_held: AtomicBool,
}

/// A process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub pid: u32,
    /// Memory of it and its children, as it was measured last.
    pub memory_bytes: u64,
    /// It has used up its `cpu`, and is stopped for a moment.
    pub is_held: bool,
}

/// What pools of one name have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Processes that run.
    pub running: u64,
    /// Those of them that are held back at the moment.
    pub held: u64,
    /// Memory of all of them.
    pub memory_bytes: u64,
    /// Processes that were started.
    pub starts: u64,
    /// Those that have ended, in the order of [`Gone::ALL`].
    pub gone: [u64; Gone::ALL.len()],
    /// How long processes were held back, together.
    pub held_ms: u64,
}

impl Tally {
    /// Of so many slots.
    pub fn new(slots: usize) -> Tally {
        Tally {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            ..Tally::default()
        }
    }

    /// One was started.
    pub fn note_start(&self) {
        self.starts.fetch_add(1, Relaxed);
    }

    /// The one in this slot has ended.
    pub fn note_gone(&self, slot: usize, why: Gone) {
        self.gone[why as usize].fetch_add(1, Relaxed);
        if let Some(slot) = self.slots.get(slot) {
            slot.pid.store(0, Relaxed);
            slot.is_held.store(false, Relaxed);
        }
    }

    /// The one in this slot has this number.
    pub fn note_pid(&self, slot: usize, pid: u32) {
        if let Some(slot) = self.slots.get(slot)
            && slot.pid.swap(pid, Relaxed) != pid
        {
            slot.memory_bytes.store(0, Relaxed);
        }
    }

    /// The one in this slot was measured.
    pub fn note_memory(&self, slot: usize, bytes: u64) {
        if let Some(slot) = self.slots.get(slot) {
            slot.memory_bytes.store(bytes, Relaxed);
        }
    }

    /// The one in this slot is held back from now on, or goes on after so long.
    pub fn note_held(&self, slot: usize, was_held: Option<Duration>) {
        if let Some(time) = was_held {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            self.held_ms.fetch_add(ms, Relaxed);
        }
        if let Some(slot) = self.slots.get(slot) {
            slot.is_held.store(was_held.is_none(), Relaxed);
        }
    }

    /// What runs in a slot.
    pub fn seen(&self, slot: usize) -> Option<Seen> {
        let slot = self.slots.get(slot)?;
        let pid = Some(slot.pid.load(Relaxed)).filter(|pid| *pid != 0)?;
        Some(Seen {
            pid,
            memory_bytes: slot.memory_bytes.load(Relaxed),
            is_held: slot.is_held.load(Relaxed),
        })
    }

    /// Adds what is counted here.
    pub fn add_to(&self, sums: &mut Sums) {
        for seen in (0..self.slots.len()).filter_map(|slot| self.seen(slot)) {
            sums.running += 1;
            sums.held += u64::from(seen.is_held);
            sums.memory_bytes += seen.memory_bytes;
        }
        sums.starts += self.starts.load(Relaxed);
        for (sum, count) in sums.gone.iter_mut().zip(&self.gone) {
            *sum += count.load(Relaxed);
        }
        sums.held_ms += self.held_ms.load(Relaxed);
    }

    /// For the status.
    pub fn status(&self) -> serde_json::Value {
        let mut sums = Sums::default();
        self.add_to(&mut sums);
        let ended = Gone::ALL.iter().zip(sums.gone).filter(|(_, n)| *n > 0);
        let ended = ended.map(|(why, count)| (why.name().to_owned(), count.into()));
        serde_json::json!({
            "running": sums.running,
            "held": sums.held,
            "memory_bytes": sums.memory_bytes,
            "started": sums.starts,
            "ended": serde_json::Map::from_iter(ended),
            "held_ms": sums.held_ms,
        })
    }

    /// For the status of a peer.
    pub fn status_of(&self, slot: usize) -> serde_json::Value {
        let seen = self.seen(slot);
        seen.map_or(serde_json::Value::Null, |seen| {
            serde_json::json!({
                "pid": seen.pid,
                "memory_bytes": seen.memory_bytes,
                "held": seen.is_held,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place() {
        for (at, why) in Gone::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
            let tally = Tally::new(1);
            tally.note_gone(0, why);
            let ended = &tally.status()["ended"];
            assert_eq!(*ended, serde_json::json!({ why.name(): 1 }));
        }
    }

    #[test]
    fn what_runs_is_told_until_it_ends() {
        let tally = Tally::new(2);
        tally.note_start();
        assert_eq!(tally.seen(1), None);
        tally.note_pid(1, 7);
        tally.note_memory(1, 4096);
        tally.note_pid(1, 7);
        tally.note_held(1, None);
        let seen = Seen {
            pid: 7,
            memory_bytes: 4096,
            is_held: true,
        };
        assert_eq!(tally.seen(1), Some(seen));
        tally.note_held(1, Some(Duration::from_millis(30)));
        let mut sums = Sums::default();
        tally.add_to(&mut sums);
        let expected = Sums {
            running: 1,
            memory_bytes: 4096,
            starts: 1,
            held_ms: 30,
            ..Sums::default()
        };
        assert_eq!(sums, expected);
        tally.note_gone(1, Gone::Crash);
        assert_eq!(tally.seen(1), None);
        assert_eq!(tally.seen(2), None);
    }
}
