//! Traces, and what is kept of them by the store's queue and by LRU.
#![allow(dead_code, unreachable_pub, reason = "each user uses a part of it")]

use std::cell::Cell;

use forebay_store::queue::{MAX_USES, Queue, Tuning, Unit};

/// Numbers that look random, the same ones each time (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.0)
    }

    /// From 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Things drawn with a frequency of one by their rank to the power of `exponent`.
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(count: u32, exponent: f64) -> Zipf {
        let mut sum = 0.0;
        let sums = (1..=count).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Zipf(sums.collect())
    }

    pub fn draw(&self, random: &mut Random) -> u32 {
        let at = random.unit() * self.0.last().copied().unwrap_or(0.0);
        u32::try_from(self.0.partition_point(|sum| *sum < at)).unwrap()
    }
}

/// What is asked for, one after the other: numbers of things.
pub struct Trace {
    pub name: &'static str,
    pub asked: Vec<u32>,
    /// How many things there are.
    pub things: u32,
    /// What each weighs; `None`: they are mixed.
    pub weight: Option<u32>,
}

impl Trace {
    /// `wonders`: so many hundredths of the requests are for things that nobody asks for again.
    pub fn new(
        name: &'static str,
        things: u32,
        requests: usize,
        wonders: u64,
        mixed: bool,
    ) -> Self {
        let zipf = Zipf::new(things, 0.9);
        let mut random = Random(1);
        let mut next = things;
        let asked = (0..requests).map(|_| match random.next() % 100 < wonders {
            true => {
                next += 1;
                next - 1
            }
            false => zipf.draw(&mut random),
        });
        let asked = asked.collect();
        Trace {
            name,
            asked,
            things: next,
            weight: (!mixed).then_some(1024),
        }
    }

    /// The weight of a thing: all the same, or from 512 B to 64 KiB, small ones far more often.
    pub fn weight(&self, thing: u32) -> u32 {
        if let Some(weight) = self.weight {
            return weight;
        }
        let draw = Random(u64::from(thing)).next();
        let doublings = (draw | 1 << 7).trailing_zeros();
        (512 << doublings) + u32::try_from((draw >> 32) % (512 << doublings)).unwrap()
    }

    /// The weight of all that are asked for again and again.
    pub fn weight_of_all(&self, things: u32) -> u64 {
        (0..things).map(|one| u64::from(self.weight(one))).sum()
    }
}

/// A count of hits, once as many requests as fill the cache have gone by.
#[derive(Default)]
pub struct Score {
    hits: u32,
    asked: u32,
}

impl Score {
    pub fn note(&mut self, number: usize, trace: &Trace, hit: bool) {
        // The first third only warms it up.
        if number >= trace.asked.len() / 3 {
            self.asked += 1;
            self.hits += u32::from(hit);
        }
    }

    /// In hundredths.
    pub fn percent(&self) -> f64 {
        100.0 * f64::from(self.hits) / f64::from(self.asked.max(1))
    }
}

struct Thing<'a> {
    uses: &'a Cell<u8>,
    number: u32,
    weight: u32,
}

impl Unit for Thing<'_> {
    fn uses(&self) -> Option<u8> {
        Some(self.uses.get())
    }

    fn set_uses(&self, uses: u8) {
        self.uses.set(uses);
    }

    fn hash(&self) -> u64 {
        mixed(u64::from(self.number))
    }

    fn weight(&self) -> u32 {
        self.weight
    }
}

/// It is not in memory.
const ABSENT: u8 = u8::MAX;

/// The store's queue.
pub fn queue(trace: &Trace, budget: u64, tuning: Tuning) -> f64 {
    let there = vec![Cell::new(ABSENT); trace.things as usize];
    let mut queue = Queue::tuned(budget, tuning);
    let mut score = Score::default();
    for (number, &thing) in trace.asked.iter().enumerate() {
        let uses = &there[thing as usize];
        let hit = uses.get() != ABSENT;
        score.note(number, trace, hit);
        if hit {
            uses.set((uses.get() + 1).min(MAX_USES));
            continue;
        }
        uses.set(0);
        let unit = Thing {
            uses,
            number: thing,
            weight: trace.weight(thing),
        };
        let mut out = |gone: Thing<'_>| gone.uses.set(ABSENT);
        queue.insert(unit, &mut out);
    }
    score.percent()
}

/// The least recently used goes first.
pub fn lru(trace: &Trace, budget: u64) -> f64 {
    let mut list = Lru::new(trace.things as usize);
    let mut score = Score::default();
    let mut bytes = 0;
    for (number, &thing) in trace.asked.iter().enumerate() {
        let hit = list.is_there(thing as usize);
        score.note(number, trace, hit);
        if hit {
            list.take(thing as usize);
        } else {
            bytes += u64::from(trace.weight(thing));
        }
        list.push(thing as usize);
        while bytes > budget {
            let oldest = list.oldest();
            list.take(oldest);
            bytes -= u64::from(trace.weight(u32::try_from(oldest).unwrap()));
        }
    }
    score.percent()
}

/// A ring of those that are there; the last place is where it begins.
struct Lru {
    /// Before and behind.
    links: Vec<(usize, usize)>,
}

impl Lru {
    fn new(things: usize) -> Lru {
        let mut links = vec![(usize::MAX, usize::MAX); things + 1];
        links[things] = (things, things);
        Lru { links }
    }

    fn is_there(&self, thing: usize) -> bool {
        self.links[thing].0 != usize::MAX
    }

    fn oldest(&self) -> usize {
        self.links[self.links.len() - 1].1
    }

    fn take(&mut self, thing: usize) {
        let (before, behind) = self.links[thing];
        self.links[before].1 = behind;
        self.links[behind].0 = before;
        self.links[thing] = (usize::MAX, usize::MAX);
    }

    fn push(&mut self, thing: usize) {
        let root = self.links.len() - 1;
        let newest = self.links[root].0;
        self.links[thing] = (newest, root);
        self.links[newest].1 = thing;
        self.links[root].0 = thing;
    }
}
