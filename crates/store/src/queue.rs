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
//!
//! What the queue itself takes is part of its budget: what stands in it, and 8 bytes and a little for
//! each ghost.

mod fifo;
mod ghost;

use self::fifo::Fifo;
use self::ghost::Ghost;

/// A use is counted up to this.
pub const MAX_USES: u8 = 3;

/// What stands in a queue: knows by itself how often it was used.
pub trait Unit {
    /// How often it was used since it was last asked, up to [`MAX_USES`]; `None`: it is gone
    /// already, for another reason.
    fn uses(&self) -> Option<u8>;

    /// Forgets uses.
    fn set_uses(&self, uses: u8);

    /// By what it is recognised when it comes back; asked only of what is not gone.
    fn hash(&self) -> u64;

    /// What it weighs, in bytes: always the same.
    fn weight(&self) -> u32;
}

/// What was measured to be best; see `examples/hit_ratio.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// The share of the small queue, in hundredths.
    pub small_percent: u64,
    /// So often a thing must have been used in the small queue to go on to the main one.
    pub uses_to_stay: u8,
    /// As many ghosts as there are things in memory, in hundredths.
    pub ghost_percent: usize,
}

impl Tuning {
    /// As the server has it.
    pub const USUAL: Tuning = Tuning {
        small_percent: 10,
        uses_to_stay: 1,
        ghost_percent: 100,
    };
}

/// The order of one shard's memory.
pub struct Queue<U> {
    small: Fifo<U>,
    main: Fifo<U>,
    small_bytes: u64,
    main_bytes: u64,
    budget: u64,
    ghost: Ghost,
    tuning: Tuning,
}

impl<U: Unit> Queue<U> {
    /// An empty one for so many bytes.
    pub fn new(budget: u64) -> Queue<U> {
        Queue::tuned(budget, Tuning::USUAL)
    }

    /// The same, otherwise tuned.
    pub fn tuned(budget: u64, tuning: Tuning) -> Queue<U> {
        Queue {
            small: Fifo::default(),
            main: Fifo::default(),
            small_bytes: 0,
            main_bytes: 0,
            budget,
            ghost: Ghost::default(),
            tuning,
        }
    }

    /// All that is in it, and what it takes itself, in bytes.
    pub fn bytes(&self) -> u64 {
        let own = self.small.heap_bytes() + self.main.heap_bytes() + self.ghost.heap_bytes();
        self.small_bytes + self.main_bytes + own as u64
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
    pub fn insert(&mut self, unit: U, out: &mut impl FnMut(U)) {
        let weight = u64::from(unit.weight());
        if self.ghost.take(unit.hash()) {
            self.main_bytes += weight;
            self.main.push(unit);
        } else {
            self.small_bytes += weight;
            self.small.push(unit);
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
        let small_most = self.budget / 100 * self.tuning.small_percent;
        let small_first = self.small_bytes >= small_most || self.main.len() == 0;
        let from = match small_first {
            true => &mut self.small,
            false => &mut self.main,
        };
        let Some(unit) = from.pop() else {
            return;
        };
        let weight = u64::from(unit.weight());
        let uses = unit.uses();
        if small_first {
            self.small_bytes -= weight;
            match uses {
                Some(uses) if uses >= self.tuning.uses_to_stay => {
                    unit.set_uses(0);
                    self.main_bytes += weight;
                    self.main.push(unit);
                }
                Some(_) => {
                    let most = self.len() * self.tuning.ghost_percent / 100;
                    self.ghost.put(unit.hash(), most);
                    out(unit);
                }
                None => {}
            }
        } else {
            self.main_bytes -= weight;
            match uses {
                Some(uses) if uses > 0 => {
                    unit.set_uses(uses - 1);
                    self.main_bytes += weight;
                    self.main.push(unit);
                }
                Some(_) => out(unit),
                None => {}
            }
        }
    }

    /// Gives back what those hold that are gone for another reason.
    pub fn forget_gone(&mut self) {
        let mut small_bytes = 0;
        let mut main_bytes = 0;
        let keep = |bytes: &mut u64, unit: &U| {
            let here = unit.uses().is_some();
            *bytes += if here { u64::from(unit.weight()) } else { 0 };
            here
        };
        self.small.retain(|unit| keep(&mut small_bytes, unit));
        self.main.retain(|unit| keep(&mut main_bytes, unit));
        (self.small_bytes, self.main_bytes) = (small_bytes, main_bytes);
    }
}
