//! The memory for hot files: what is asked for again and again is answered without a system call.
//!
//! A file is let in at its second request, so that a walk over a million files throws nothing out.
//! Room is made in the order of entry, and what was used since gets another round ("second chance",
//! with up to three of them, as in the main queue of S3-FIFO): a hit then costs no more than a
//! saturating addition, where an LRU would move links about.

use std::collections::VecDeque;
use std::collections::hash_map::{HashMap, RandomState};
use std::hash::BuildHasher;
use std::rc::Rc;

use bytes::Bytes;
use forebay_fields::Fields;
use forebay_sys::files::Facts;
use forebay_sys::process;
use slab::Slab;

use super::OpenFile;
use crate::exchange::Codings;

/// At most this much per worker.
const MAX_BUDGET: usize = 64 << 20;

/// All workers together take at most this part of the machine's memory.
const SHARE: u64 = 16;

/// What a file that is kept open counts for. Its bytes are the kernel's, so this bounds descriptors:
/// about a thousand in 64 MiB.
const OPEN_COST: usize = 64 << 10;

/// What an entry costs beside key, head and body: slot, index, ring, allocator.
const OVERHEAD: usize = 512;

/// Requested once: so many are remembered, by a fingerprint.
const SEEN: usize = 16 * 1024;

/// Rounds that an entry can be owed.
const MAX_USED: u8 = 3;

/// Entries that get another round while room is made for one; past that, the next one goes
/// whatever it is owed, so that no request pays for a walk through everything.
const MAX_ROUNDS: usize = 64;

/// A file as it is kept.
pub struct Kept {
    /// What it was when it was read.
    pub facts: Facts,
    /// What it holds; `None` where only its siblings in other codings have been asked for.
    pub body: Option<KeptBody>,
    /// The codings in which it lies beside itself, each an entry of its own.
    pub siblings: Codings,
    /// The fields that describe it, settled: to be copied into each response.
    pub fields: Fields,
    /// Its `Last-Modified` in seconds since 1970, if it has one.
    pub last_modified: Option<u64>,
    /// When it was last known to be what is on the disk, on the worker's clock.
    pub checked_ms: u64,
}

/// What is kept of a file's content.
pub enum KeptBody {
    /// All of it: small files, which leave in one write with their heads.
    Bytes(Bytes),
    /// The open file: its pages leave from the kernel's memory without a copy.
    Open(Rc<OpenFile>),
}

impl Kept {
    fn cost(&self) -> usize {
        match &self.body {
            None => 0,
            Some(KeptBody::Bytes(bytes)) => bytes.len(),
            Some(KeptBody::Open(_)) => OPEN_COST,
        }
    }
}

/// The hot files of one worker.
pub struct Memory {
    budget: usize,
    used: usize,
    index: HashMap<Rc<[u8]>, usize, RandomState>,
    slots: Slab<Slot>,
    /// In the order of entry.
    ring: VecDeque<usize>,
    /// Fingerprints of keys asked for once, each at the place that its hash says.
    seen: Vec<u32>,
}

struct Slot {
    key: Rc<[u8]>,
    /// `None`: taken out; the slot goes when the ring comes to it.
    kept: Option<Kept>,
    cost: usize,
    used: u8,
}

impl Default for Memory {
    fn default() -> Memory {
        let machine = process::memory_available().unwrap_or(u64::MAX);
        let workers = u64::try_from(process::cores()).unwrap_or(1).max(1);
        let share = usize::try_from(machine / SHARE / workers).unwrap_or(usize::MAX);
        Memory::new(share.min(MAX_BUDGET))
    }
}

impl Memory {
    /// A memory of at most `budget` bytes, all told.
    pub fn new(budget: usize) -> Memory {
        Memory {
            budget,
            used: 0,
            index: HashMap::default(),
            slots: Slab::new(),
            ring: VecDeque::new(),
            seen: Vec::new(),
        }
    }

    /// What is kept under this key.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<&mut Kept> {
        let at = self.find(key)?;
        self.at(at)
    }

    /// Where it is, until anything is put in or taken out.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        self.index.get(key).copied()
    }

    /// What is kept there.
    #[inline]
    pub fn at(&mut self, at: usize) -> Option<&mut Kept> {
        let slot = self.slots.get_mut(at)?;
        slot.used = (slot.used + 1).min(MAX_USED);
        slot.kept.as_mut()
    }

    /// Whether this key was asked for before, and not too long ago: then its file is worth keeping.
    pub fn is_wanted(&mut self, key: &[u8]) -> bool {
        if self.seen.is_empty() {
            self.seen.resize(SEEN, 0);
        }
        let hash = self.index.hasher().hash_one(key);
        // The place and the fingerprint are different bits of it; 0 is an empty place.
        let place = usize::try_from(hash % SEEN as u64).unwrap_or(0);
        let print = u32::try_from(hash >> 32).unwrap_or(0) | 1;
        std::mem::replace(&mut self.seen[place], print) == print
    }

    /// Keeps a file, in the place of what was kept under this key, if there is room for it at all.
    pub fn insert(&mut self, key: &[u8], kept: Kept) {
        self.remove(key);
        let cost = OVERHEAD + 2 * key.len() + kept.fields.wire_len() + kept.cost();
        if cost > self.budget {
            return;
        }
        self.make_room(cost);
        self.used += cost;
        let key: Rc<[u8]> = key.into();
        let slot = Slot {
            key: key.clone(),
            kept: Some(kept),
            cost,
            used: 0,
        };
        let at = self.slots.insert(slot);
        self.index.insert(key, at);
        self.ring.push_back(at);
    }

    /// Forgets what is kept under this key.
    pub fn remove(&mut self, key: &[u8]) {
        let Some(at) = self.index.remove(key) else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(at) {
            let freed = slot.cost - OVERHEAD;
            slot.kept = None;
            slot.used = 0;
            slot.cost = OVERHEAD;
            self.used -= freed;
        }
    }

    fn make_room(&mut self, cost: usize) {
        let mut rounds = 0;
        while self.used + cost > self.budget {
            let Some(at) = self.ring.pop_front() else {
                return;
            };
            if self.slots[at].used > 0 && rounds < MAX_ROUNDS {
                self.slots[at].used -= 1;
                rounds += 1;
                self.ring.push_back(at);
                continue;
            }
            let slot = self.slots.remove(at);
            self.used -= slot.cost;
            if slot.kept.is_some() {
                self.index.remove(&slot.key);
            }
        }
    }

    /// Makes everything be looked at again at its next use.
    #[cfg(test)]
    pub fn expire(&mut self) {
        let kept = self
            .slots
            .iter_mut()
            .filter_map(|(_, slot)| slot.kept.as_mut());
        kept.for_each(|kept| kept.checked_ms = 0);
    }

    /// How many files it holds.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.index.len()
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        let costs: usize = self.slots.iter().map(|(_, slot)| slot.cost).sum();
        assert_eq!(self.used, costs);
        assert!(self.used <= self.budget);
        assert_eq!(self.ring.len(), self.slots.len());
        let kept = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.kept.is_some())
            .count();
        assert_eq!(self.index.len(), kept);
        for (key, at) in &self.index {
            assert_eq!(&self.slots[*at].key, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_sys::files::Kind;

    use super::*;

    fn kept(len: usize) -> Kept {
        let facts = Facts {
            len: len as u64,
            mtime_ns: 0,
            inode: 1,
            device: 1,
            is_executable: false,
            kind: Kind::File,
        };
        Kept {
            facts,
            body: Some(KeptBody::Bytes(vec![b'x'; len].into())),
            siblings: Codings::default(),
            fields: Fields::new(),
            last_modified: None,
            checked_ms: 0,
        }
    }

    fn key(number: usize) -> Vec<u8> {
        format!("/{number:06}").into_bytes()
    }

    #[test]
    fn a_file_is_wanted_at_its_second_request() {
        let mut memory = Memory::new(1 << 20);
        assert!(!memory.is_wanted(b"/a"));
        assert!(!memory.is_wanted(b"/b"));
        assert!(memory.is_wanted(b"/a"));
        assert!(memory.is_wanted(b"/a"));
    }

    #[test]
    fn it_stays_within_its_budget_and_keeps_what_is_used() {
        let mut memory = Memory::new(100 * 2048);
        memory.insert(&key(0), kept(1024));
        for number in 1..10_000 {
            memory.insert(&key(number), kept(1024));
            assert!(
                memory.get(&key(0)).is_some(),
                "the hot one went for {number}"
            );
            memory.check_invariants();
        }
        assert!(memory.get(&key(9_999)).is_some());
        assert!(memory.get(&key(5_000)).is_none());
        assert!(memory.index.len() > 50);
    }

    #[test]
    fn what_has_no_room_at_all_is_not_kept() {
        let mut memory = Memory::new(2000);
        memory.insert(b"/a", kept(2000));
        assert!(memory.get(b"/a").is_none());
        memory.insert(b"/a", kept(1000));
        assert!(memory.get(b"/a").is_some());
        let mut none = Memory::new(0);
        none.insert(b"/a", kept(0));
        assert!(none.get(b"/a").is_none());
    }

    #[test]
    fn what_is_replaced_or_removed_gives_its_room_back() {
        let mut memory = Memory::new(1 << 20);
        for len in (0..1000).rev() {
            memory.insert(b"/a", kept(len));
            memory.insert(b"/b", kept(len));
            memory.remove(b"/b");
            memory.check_invariants();
        }
        assert_eq!(memory.get(b"/a").map(|kept| kept.cost()), Some(0));
        assert!(memory.get(b"/b").is_none());
        memory.remove(b"/none");
        // Removed ones leave the ring in their turn.
        for number in 0..10_000 {
            memory.insert(&key(number), kept(1024));
        }
        memory.check_invariants();
        assert!(memory.slots.iter().all(|(_, slot)| slot.kept.is_some()));
    }

    #[test]
    fn open_files_are_bounded_like_bytes() {
        let mut memory = Memory::new(1 << 20);
        let file = OpenFile::new(tempfile::tempfile().expect("a file"), kept(0).facts);
        for number in 0..1000 {
            let body = Some(KeptBody::Open(file.clone()));
            memory.insert(&key(number), Kept { body, ..kept(0) });
            memory.check_invariants();
        }
        assert!((8..16).contains(&memory.count()), "{}", memory.count());
        // What is let go is closed: these, and ours.
        assert_eq!(Rc::strong_count(&file), memory.count() + 1);
    }

    #[test]
    fn when_all_are_hot_room_is_made_all_the_same() {
        let mut memory = Memory::new(64 * 2048);
        for number in 0..2000 {
            memory.insert(&key(number), kept(1024));
            for _ in 0..4 {
                for back in 0..100 {
                    memory.get(&key(number.saturating_sub(back)));
                }
            }
            memory.check_invariants();
            assert!(memory.get(&key(number)).is_some());
        }
    }
}
