//! Which of the things in memory goes first: S3-FIFO, weighed in bytes.
//!
//! ```text
//!            first seen                              asked for again while in `small`
//!   insert ─────────────▶ small (a tenth) ── popped ─────────────────────────────────▶ main ─┐
//!      │                                       │ not asked for again                   ▲  │  │ popped,
//!      │ its hash is in `ghost`                ▼                                       └──┘  │ not used
//!      └───────────────────────────────────▶ gone, hash kept in `ghost`      used since: again ▼ gone
//! ```
//!
//! Most things that are asked for once are never asked for again (Yang and others, "FIFO queues
//! are all you need for cache eviction", SOSP 2023): they pass through the small queue and
//! disturb nothing. A hit changes two bits at most and takes no lock; all order is made when
//! something is thrown out.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

/// A use is counted up to this.
pub const MAX_USES: u8 = 3;

/// What stands in a queue: knows by itself how often it was used.
pub trait Unit {
    /// How often it was used since it was last asked, up to [`MAX_USES`]; `None`: it is gone
    /// already, for another reason.
    fn uses(&self) -> Option<u8>;

    /// Forgets uses.
    fn set_uses(&self, uses: u8);
}

struct Queued<U> {
    unit: U,
    hash: u64,
    weight: u32,
}

/// The order of one shard's memory.
pub struct Queue<U> {
    small: VecDeque<Queued<U>>,
    main: VecDeque<Queued<U>>,
    small_bytes: u64,
    main_bytes: u64,
    budget: u64,
    ghost: Ghost,
}

impl<U: Unit> Queue<U> {
    /// An empty one for so many bytes.
    pub fn new(budget: u64) -> Queue<U> {
        Queue {
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_bytes: 0,
            main_bytes: 0,
            budget,
            ghost: Ghost::default(),
        }
    }

    /// All that is in it, in bytes.
    pub fn bytes(&self) -> u64 {
        self.small_bytes + self.main_bytes
    }

    /// How many units it holds, with those that are gone for another reason.
    pub fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Another budget; what is too much goes with the next insertion, or [`shrink`](Queue::shrink).
    pub fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
    }

    /// Takes something in; what has to go for it is passed to `out`.
    pub fn insert(&mut self, hash: u64, weight: u32, unit: U, out: &mut impl FnMut(U)) {
        let queued = Queued { unit, hash, weight };
        if self.ghost.take(hash) {
            self.main_bytes += u64::from(weight);
            self.main.push_back(queued);
        } else {
            self.small_bytes += u64::from(weight);
            self.small.push_back(queued);
        }
        self.shrink(usize::MAX, out);
    }

    /// Throws out what is too much, in so many moves at most. Whether nothing is too much any more.
    pub fn shrink(&mut self, most: usize, out: &mut impl FnMut(U)) -> bool {
        let mut moves = 0;
        while self.bytes() > self.budget && !self.is_empty() {
            if moves == most {
                return false;
            }
            moves += 1;
            self.evict(out);
        }
        true
    }

    /// Moves one thing: out, or on.
    fn evict(&mut self, out: &mut impl FnMut(U)) {
        let small_first = self.small_bytes * 10 >= self.budget || self.main.is_empty();
        let from = match small_first {
            true => &mut self.small,
            false => &mut self.main,
        };
        let Some(queued) = from.pop_front() else {
            return;
        };
        let weight = u64::from(queued.weight);
        let uses = queued.unit.uses();
        if small_first {
            self.small_bytes -= weight;
            match uses {
                Some(uses) if uses > 0 => {
                    queued.unit.set_uses(0);
                    self.main_bytes += weight;
                    self.main.push_back(queued);
                }
                Some(_) => {
                    self.ghost
                        .put(queued.hash, self.main.len() + self.small.len());
                    out(queued.unit);
                }
                None => {}
            }
        } else {
            self.main_bytes -= weight;
            match uses {
                Some(uses) if uses > 0 => {
                    queued.unit.set_uses(uses - 1);
                    self.main_bytes += weight;
                    self.main.push_back(queued);
                }
                Some(_) => out(queued.unit),
                None => {}
            }
        }
    }

    /// Gives back what those hold that are gone for another reason.
    pub fn forget_gone(&mut self) {
        let mut small_bytes = 0;
        let mut main_bytes = 0;
        let keep = |bytes: &mut u64, queued: &Queued<U>| {
            let here = queued.unit.uses().is_some();
            *bytes += if here { u64::from(queued.weight) } else { 0 };
            here
        };
        self.small.retain(|queued| keep(&mut small_bytes, queued));
        self.main.retain(|queued| keep(&mut main_bytes, queued));
        self.small.shrink_to_fit();
        self.main.shrink_to_fit();
        (self.small_bytes, self.main_bytes) = (small_bytes, main_bytes);
    }
}

/// The hashes of what has gone through the small queue, as many as there are things in memory.
#[derive(Default)]
struct Ghost {
    order: VecDeque<u64>,
    known: FxHashSet<u64>,
}

impl Ghost {
    /// Whether it was here; not any more.
    fn take(&mut self, hash: u64) -> bool {
        // Its place in the order stays, and is passed over when its turn comes.
        self.known.remove(&hash)
    }

    fn put(&mut self, hash: u64, most: usize) {
        if self.known.insert(hash) {
            self.order.push_back(hash);
        }
        while self.order.len() > most.max(16) {
            if let Some(old) = self.order.pop_front() {
                self.known.remove(&old);
            }
        }
    }
}
