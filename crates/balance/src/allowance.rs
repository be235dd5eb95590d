//! The arrival times of very many keys, for all workers, in bounded memory.
//!
//! ```text
//!   shard (by the key's first bits)      cells; a key's lie in the window behind its own place
//!   ┌──────┬──────────────────────┐      ┌─────┬─────┬─────┬─────┬─────┬─────┬─────
//!   │ lock │ cells ───────────────┼────▶ │     │ key │ key │  0  │     │     │  ...
//!   └──────┴──────────────────────┘      └─────┴──▲──┴─────┴─────┴─────┴─────┴─────
//! ```
//!
//! A key that is there is found under a lock that any number may share, and its time is moved by
//! one atomic exchange: so the count is exact whichever workers its requests come to. Only a new
//! key takes the lock alone. A cell whose time is spent says no more than no cell at all and is
//! used again; a shard grows while it is more than half full of others. When it may grow no more,
//! the cell with the earliest time goes: what it forgets is the least that anybody has used up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::gcra::{Gcra, Verdict};

/// Two workers meet in one of these only by chance.
const SHARDS: usize = 64;

/// 32 MiB in all: twice as many cells as a million clients.
const MAX_CELLS: usize = 32 * 1024;

/// What a shard starts with.
const FIRST_CELLS: usize = 16;

/// How far from its own place a key may lie. Half full, a table has hardly any run of this length.
const WINDOW: usize = 32;

/// Keys with their arrival times.
///
/// A key is a number that a keyed hash has made of what is told apart: whoever could choose it
/// could make keys fall together. 0 is none.
#[derive(Debug)]
pub struct Allowances {
    /// Made at its first use: ten thousand sites may each have a limit that nobody ever comes to.
    shards: OnceLock<Box<[RwLock<Shard>]>>,
    max_cells: usize,
}

#[derive(Debug, Default)]
struct Shard {
    cells: Box<[Cell]>,
    /// Cells that have ever been used since the last growth.
    used: usize,
}

#[derive(Debug, Default)]
struct Cell {
    /// 0: it has never been used, and no run of keys goes on behind it.
    key: u64,
    arrival_ns: AtomicU64,
}

impl Default for Allowances {
    fn default() -> Allowances {
        Allowances::with_max_cells(MAX_CELLS)
    }
}

impl Allowances {
    /// At most so many cells in each shard: a power of two.
    fn with_max_cells(max_cells: usize) -> Allowances {
        Allowances {
            shards: OnceLock::new(),
            max_cells,
        }
    }

    /// Takes one, if one more may come at `now_ns`; else says how long it would have to wait. One that is
    /// ready to wait for that long (`patience_ns`) has taken it all the same.
    pub fn take(&self, key: u64, gcra: &Gcra, now_ns: u64, patience_ns: u64) -> Verdict {
        self.with(key, now_ns, |arrival| {
            let mut before = arrival.load(Relaxed);
            loop {
                let verdict = gcra.decide(before, now_ns);
                let after = match verdict {
                    Verdict::Later(ns) if ns > patience_ns => return verdict,
                    Verdict::Later(_) => gcra.charged(before, now_ns),
                    Verdict::Now(after) => after,
                };
                match arrival.compare_exchange_weak(before, after, Relaxed, Relaxed) {
                    Ok(_) => return verdict,
                    Err(found) => before = found,
                }
            }
        })
    }

    /// Whether one more may come; takes nothing.
    pub fn look(&self, key: u64, gcra: &Gcra, now_ns: u64) -> Verdict {
        let shard = read(self.shard(key));
        let arrival_ns = find(&shard.cells, key).map_or(0, |cell| cell.arrival_ns.load(Relaxed));
        gcra.decide(arrival_ns, now_ns)
    }

    /// Takes one, whether it may come or not: it has.
    pub fn charge(&self, key: u64, gcra: &Gcra, now_ns: u64) {
        self.take(key, gcra, now_ns, u64::MAX);
    }

    /// Runs `change` on the time of a key; a new key's is 0.
    fn with<R>(&self, key: u64, now_ns: u64, change: impl Fn(&AtomicU64) -> R) -> R {
        let shard = self.shard(key);
        if let Some(cell) = find(&read(shard).cells, key) {
            return change(&cell.arrival_ns);
        }
        let mut shard = write(shard);
        // Another may have brought it meanwhile.
        let at = match position(&shard.cells, key) {
            Some(at) => at,
            None => shard.insert(key, now_ns, self.max_cells),
        };
        change(&shard.cells[at].arrival_ns)
    }

    fn shard(&self, key: u64) -> &RwLock<Shard> {
        let shards = self
            .shards
            .get_or_init(|| (0..SHARDS).map(|_| RwLock::default()).collect());
        // The first bits; the place within the shard comes from the last ones.
        let index = usize::try_from(key >> (u64::BITS - SHARDS.trailing_zeros())).unwrap_or(0);
        &shards[index]
    }

    /// How many cells have been made; each takes 16 bytes.
    pub fn cells(&self) -> usize {
        let shards = self.shards.get().map_or(&[][..], |shards| shards);
        shards.iter().map(|shard| read(shard).cells.len()).sum()
    }
}

// Nothing that is done under these locks panics, and if it did, every cell would be whole.
fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

/// The places in which a key may lie, its own first.
fn window(len: usize, key: u64) -> impl Iterator<Item = usize> {
    let mask = len.wrapping_sub(1);
    let bits = usize::try_from(key & 0xffff_ffff).unwrap_or(0);
    (0..WINDOW.min(len)).map(move |step| bits.wrapping_add(step) & mask)
}

fn position(cells: &[Cell], key: u64) -> Option<usize> {
    for at in window(cells.len(), key) {
        match cells[at].key {
            found if found == key => return Some(at),
            0 => return None,
            _ => {}
        }
    }
    None
}

fn find(cells: &[Cell], key: u64) -> Option<&Cell> {
    position(cells, key).map(|at| &cells[at])
}

impl Shard {
    /// Makes a place for a key that is not there.
    fn insert(&mut self, key: u64, now_ns: u64, max_cells: usize) -> usize {
        if self.used * 2 >= self.cells.len() && self.cells.len() < max_cells {
            self.grow(now_ns, max_cells);
        }
        let free = |at: &usize| {
            let cell = &self.cells[*at];
            cell.key == 0 || Gcra::is_spent(cell.arrival_ns.load(Relaxed), now_ns)
        };
        let mut places = window(self.cells.len(), key);
        let at = places.find(free).or_else(|| {
            let time = |at: &usize| self.cells[*at].arrival_ns.load(Relaxed);
            window(self.cells.len(), key).min_by_key(time)
        });
        // A window is never empty: growing has made cells.
        let at = at.unwrap_or(0);
        self.used += usize::from(self.cells[at].key == 0);
        self.cells[at] = Cell {
            key,
            arrival_ns: AtomicU64::new(0),
        };
        at
    }

    /// Forgets what is spent, and doubles its room if that was not most of it.
    fn grow(&mut self, now_ns: u64, max_cells: usize) {
        let live =
            |cell: &&Cell| cell.key != 0 && !Gcra::is_spent(cell.arrival_ns.load(Relaxed), now_ns);
        let count = self.cells.iter().filter(live).count();
        let len = match self.cells.len() {
            0 => FIRST_CELLS.min(max_cells),
            len if count * 4 >= len => len * 2,
            len => len,
        };
        let mut room: Box<[Cell]> = (0..len).map(|_| Cell::default()).collect();
        let mut used = 0;
        for cell in self.cells.iter().filter(live) {
            // In a table that is at most half full there is a place in nearly every window; where
            // there is none, the key begins anew.
            if let Some(at) = window(len, cell.key).find(|at| room[*at].key == 0) {
                room[at] = Cell {
                    key: cell.key,
                    arrival_ns: AtomicU64::new(cell.arrival_ns.load(Relaxed)),
                };
                used += 1;
            }
        }
        self.cells = room;
        self.used = used;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Spread as a keyed hash spreads.
    fn key(number: u64) -> u64 {
        let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) | 1
    }

    fn passes(table: &Allowances, key: u64, gcra: &Gcra, now_ns: u64) -> bool {
        matches!(table.take(key, gcra, now_ns, 0), Verdict::Now(_))
    }

    #[test]
    fn each_key_has_its_own_allowance() {
        let (table, gcra) = (
            Allowances::default(),
            Gcra::new(2, Duration::from_secs(1), 2),
        );
        for number in 0..1_000 {
            let passed = [(); 3].map(|()| passes(&table, key(number), &gcra, SECOND));
            assert_eq!(passed, [true, true, false], "{number}");
        }
        for number in 0..1_000 {
            assert!(!passes(&table, key(number), &gcra, SECOND), "{number}");
            assert!(passes(&table, key(number), &gcra, 2 * SECOND), "{number}");
        }
    }

    #[test]
    fn looking_takes_nothing_and_charging_asks_nothing() {
        let (table, gcra) = (
            Allowances::default(),
            Gcra::new(1, Duration::from_secs(1), 1),
        );
        for _ in 0..3 {
            assert!(matches!(table.look(7, &gcra, SECOND), Verdict::Now(_)));
        }
        table.charge(7, &gcra, SECOND);
        table.charge(7, &gcra, SECOND);
        let later = Verdict::Later(2 * SECOND);
        assert_eq!(table.look(7, &gcra, SECOND), later);
        // Who is ready to wait for that long has taken it; who is not, has not.
        assert_eq!(table.take(7, &gcra, SECOND, 2 * SECOND - 1), later);
        assert_eq!(table.take(7, &gcra, SECOND, 2 * SECOND), later);
        assert_eq!(table.look(7, &gcra, SECOND), Verdict::Later(3 * SECOND));
    }

    #[test]
    fn a_million_keys_are_told_apart_in_bounded_memory() {
        let (table, gcra) = (
            Allowances::default(),
            Gcra::new(1, Duration::from_secs(1), 1),
        );
        let count = 1_000_000;
        for number in 0..count {
            table.take(key(number), &gcra, SECOND, 0);
        }
        assert!(table.cells() * size_of::<Cell>() <= 64 << 20);
        let forgotten = (0..count).filter(|number| passes(&table, key(*number), &gcra, SECOND));
        let forgotten = forgotten.count();
        assert!(forgotten < 1_000, "{forgotten} were forgotten");
    }

    #[test]
    fn spent_cells_are_used_again_and_nothing_grows() {
        let (table, gcra) = (
            Allowances::default(),
            Gcra::new(1, Duration::from_secs(1), 1),
        );
        for round in 1..50 {
            for number in 0..1_000 {
                let passed = passes(
                    &table,
                    key(round * 1_000 + number),
                    &gcra,
                    round * 2 * SECOND,
                );
                assert!(passed);
            }
        }
        assert!(table.cells() < 16_000, "{} cells", table.cells());
    }

    #[test]
    fn a_full_table_forgets_those_who_have_used_least() {
        let table = Allowances::with_max_cells(FIRST_CELLS);
        let gcra = Gcra::new(1, Duration::from_secs(1), 1_000);
        let greedy = key(5);
        for _ in 0..100 {
            table.charge(greedy, &gcra, SECOND);
        }
        for number in 10..100_000 {
            table.take(key(number), &gcra, SECOND, 0);
        }
        assert_eq!(table.cells(), SHARDS * FIRST_CELLS);
        let left = Gcra::new(1, Duration::from_secs(1), 1);
        assert!(matches!(
            table.look(greedy, &left, SECOND),
            Verdict::Later(_)
        ));
    }

    #[test]
    fn many_threads_together_take_exactly_what_there_is() {
        let (table, gcra) = (
            Allowances::default(),
            Gcra::new(1, Duration::from_secs(3_600), 5_000),
        );
        let passed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..20_000 {
                        // Others come in between, so that the table grows meanwhile.
                        table.take(key(number), &gcra, SECOND, 0);
                        if passes(&table, u64::MAX, &gcra, SECOND) {
                            passed.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 5_000);
    }
}
