//! Things found by a hash, read without a lock.
//!
//! ```text
//!   buckets   0      1      2    …   n ─ next to be split off
//!             │      │      │
//!             ▼      ▼      ▼
//!           thing  thing    ·       each thing knows the next one of its bucket:
//!             │                     8 bytes in it and 8 for a bucket are all that it costs
//!             ▼
//!           thing
//! ```
//!
//! There are as many buckets as things: whenever there is one thing more, one bucket is split in two
//! (W. Litwin, "Linear hashing", VLDB 1980). So nothing is ever copied as a whole, no table is kept
//! beside the one that takes its place, and what is taken out leaves nothing behind: a table with
//! open addressing took 15 to 90 bytes a thing here, by what it had just been through.
//!
//! Who reads follows the chain of a bucket and writes to nothing that others read. Who moves or
//! removes things makes the shard's version odd, and even again when it is done. Who has found
//! nothing, and sees that the version has changed meanwhile, looks again behind the writers' lock:
//! he may have stood on a thing that was moved. Who has found something need not look.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

/// What stands in an index.
pub(crate) trait Node: Sized {
    /// Where the index notes what comes behind it in its bucket.
    fn next(&self) -> &ArcSwapOption<Self>;

    /// The hash by which it is found.
    fn place(&self) -> u32;
}

/// See the module. Several things may have the same hash: the one that was put in last is met first.
pub(crate) struct Index<T> {
    shards: Box<[Shard<T>]>,
}

/// A power of two.
const SHARDS: usize = 16;
const SHARD_BITS: u32 = SHARDS.ilog2();

/// Buckets of an empty shard, a power of two. Each segment but the first is as long as all before it
/// together.
const FIRST: usize = 16;
const SEGMENTS: usize = 24;
const MAX_BUCKETS: usize = FIRST << (SEGMENTS - 1);

/// So many buckets are looked through while writers wait.
const AT_ONCE: usize = 64;

struct Shard<T> {
    writer: Mutex<()>,
    /// Odd while something is moved or removed.
    version: AtomicU64,
    len: AtomicUsize,
    buckets: AtomicUsize,
    segments: [OnceLock<Box<[ArcSwapOption<T>]>>; SEGMENTS],
}

/// Things of one hash, or of a bucket.
type Some4<T> = SmallVec<[Arc<T>; 4]>;

/// Who may change a shard.
pub(crate) struct Writer<'i, T> {
    shard: &'i Shard<T>,
    _lock: MutexGuard<'i, ()>,
}

impl<T: Node> Default for Index<T> {
    fn default() -> Index<T> {
        let shard = |_| {
            let mut segments = [const { OnceLock::new() }; SEGMENTS];
            segments[0] = OnceLock::from(Shard::empty(FIRST));
            Shard {
                writer: Mutex::new(()),
                version: AtomicU64::new(0),
                len: AtomicUsize::new(0),
                buckets: AtomicUsize::new(FIRST),
                segments,
            }
        };
        Index {
            shards: (0..SHARDS).map(shard).collect(),
        }
    }
}

impl<T: Node> Index<T> {
    fn shard(&self, place: u32) -> &Shard<T> {
        // Less than there are shards.
        &self.shards[place as usize % SHARDS]
    }

    /// Shows what has this hash, until `look` has found what it wants. It may be shown the same thing
    /// twice.
    pub(crate) fn find<R>(
        &self,
        place: u32,
        mut look: impl FnMut(&Arc<T>) -> Option<R>,
    ) -> Option<R> {
        let shard = self.shard(place);
        let version = shard.version.load(Acquire);
        let found = shard.walk(place, &mut look);
        if found.is_some() || (version.is_multiple_of(2) && shard.version.load(Acquire) == version)
        {
            return found;
        }
        // Not shown behind the lock: who looks may want to remove what he sees.
        let there = self.lock(place).all(place);
        there.iter().find_map(look)
    }

    /// To change what has this hash.
    pub(crate) fn lock(&self, place: u32) -> Writer<'_, T> {
        let shard = self.shard(place);
        Writer {
            shard,
            _lock: shard.writer.lock(),
        }
    }

    /// Shows everything that is there from now on to the end; what comes or goes meanwhile, perhaps.
    pub(crate) fn each(&self, mut see: impl FnMut(Arc<T>)) {
        let mut there = Vec::new();
        for shard in &self.shards {
            let mut next = 0;
            // Things are only moved to buckets that were not there before, so none is missed.
            while next < shard.buckets.load(Acquire) {
                {
                    let _writer = shard.writer.lock();
                    let end = (next + AT_ONCE).min(shard.buckets.load(Relaxed));
                    (next..end).for_each(|bucket| there.extend(shard.chain(bucket)));
                    next = end;
                }
                there.drain(..).for_each(&mut see);
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.len.load(Relaxed))
            .sum()
    }
}

impl<T: Node> Shard<T> {
    /// The bucket of a hash, among so many.
    fn number(place: u32, buckets: usize) -> usize {
        let place = (place >> SHARD_BITS) as usize;
        let all = usize::MAX >> buckets.leading_zeros();
        match place & all {
            // Not split off yet.
            number if number >= buckets => place & (all >> 1),
            number => number,
        }
    }

    fn empty(buckets: usize) -> Box<[ArcSwapOption<T>]> {
        (0..buckets).map(|_| ArcSwapOption::empty()).collect()
    }

    fn bucket(&self, number: usize) -> Option<&ArcSwapOption<T>> {
        let segment = ((number | (FIRST - 1)).ilog2() + 1 - FIRST.ilog2()) as usize;
        // Of the first one it is 0.
        let start = ((FIRST / 2) << segment) & !(FIRST / 2);
        self.segments.get(segment)?.get()?.get(number - start)
    }

    fn walk<R>(&self, place: u32, look: &mut impl FnMut(&Arc<T>) -> Option<R>) -> Option<R> {
        let number = Self::number(place, self.buckets.load(Acquire));
        let mut here = self.bucket(number)?.load();
        while let Some(node) = &*here {
            if node.place() == place
                && let Some(found) = look(node)
            {
                return Some(found);
            }
            let next = node.next().load();
            here = next;
        }
        None
    }

    /// What is in a bucket. Only behind the lock.
    fn chain(&self, number: usize) -> Some4<T> {
        let mut chain = SmallVec::new();
        let mut next = self.bucket(number).and_then(ArcSwapOption::load_full);
        while let Some(node) = next {
            next = node.next().load_full();
            chain.push(node);
        }
        chain
    }

    /// Changes what readers may stand on.
    fn change(&self, change: impl FnOnce()) {
        // Before the change for who sees any of it: links are swapped, which releases this.
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Release);
        change();
        self.version.store(version + 2, Release);
    }

    /// One bucket more: what belongs in it comes from another.
    fn split(&self) {
        let new = self.buckets.load(Relaxed);
        if new == MAX_BUCKETS {
            return;
        }
        let half = 1 << new.ilog2();
        let old = new - half;
        if new == half {
            let segment = (new / FIRST).ilog2() as usize + 1;
            if let Some(segment) = self.segments.get(segment) {
                segment.get_or_init(|| Self::empty(new));
            }
        }
        let (Some(old_bucket), Some(new_bucket)) = (self.bucket(old), self.bucket(new)) else {
            return;
        };
        let chain = self.chain(old);
        let goes = |node: &Arc<T>| Self::number(node.place(), new + 1) == new;
        if !chain.iter().any(goes) {
            self.buckets.store(new + 1, Release);
            return;
        }
        self.change(|| {
            let (mut stay, mut go) = (None, None);
            for node in chain.into_iter().rev() {
                let behind = if goes(&node) { &mut go } else { &mut stay };
                node.next().store(behind.replace(node.clone()));
            }
            new_bucket.store(go);
            self.buckets.store(new + 1, Release);
            old_bucket.store(stay);
        });
    }
}

impl<T: Node> Writer<'_, T> {
    /// All that has a hash, the newest first.
    pub(crate) fn all(&self, place: u32) -> Some4<T> {
        let mut all = SmallVec::new();
        self.shard.walk(place, &mut |node| {
            all.push(node.clone());
            None::<()>
        });
        all
    }

    /// Puts something in that is in no index. Nothing that readers stand on is changed by it.
    ///
    /// Behind the others of its bucket, but before what has the same hash: what has been there for
    /// long is what is asked for most.
    pub(crate) fn insert(&self, node: Arc<T>) {
        let shard = self.shard;
        let buckets = shard.buckets.load(Relaxed);
        let Some(bucket) = shard.bucket(Shard::<T>::number(node.place(), buckets)) else {
            return;
        };
        let mut before = None;
        let mut here = bucket.load();
        while let Some(one) = &*here
            && one.place() != node.place()
        {
            let next = one.next().load();
            before = Some(std::mem::replace(&mut here, next));
        }
        if here.is_some() {
            node.next().store(here.clone());
        }
        match before.as_ref().and_then(|before| before.as_ref()) {
            Some(before) => before.next().store(Some(node)),
            None => bucket.store(Some(node)),
        }
        if shard.len.fetch_add(1, Relaxed) >= buckets {
            shard.split();
        }
    }

    /// Takes something out; false: it is not there.
    pub(crate) fn remove(&self, node: &Arc<T>) -> bool {
        let shard = self.shard;
        let number = Shard::<T>::number(node.place(), shard.buckets.load(Relaxed));
        let chain = shard.chain(number);
        let Some(at) = chain.iter().position(|one| Arc::ptr_eq(one, node)) else {
            return false;
        };
        let before = match at.checked_sub(1) {
            Some(before) => Some(chain[before].next()),
            None => shard.bucket(number),
        };
        shard.change(|| {
            if let Some(before) = before {
                before.store(chain.get(at + 1).cloned());
            }
            // Who keeps what is gone is not to keep what stood behind it, too.
            node.next().store(None);
        });
        shard.len.fetch_sub(1, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    struct Thing {
        next: ArcSwapOption<Thing>,
        place: u32,
        number: usize,
    }

    impl Node for Thing {
        fn next(&self) -> &ArcSwapOption<Thing> {
            &self.next
        }

        fn place(&self) -> u32 {
            self.place
        }
    }

    fn thing(place: u32, number: usize) -> Arc<Thing> {
        Arc::new(Thing {
            next: ArcSwapOption::empty(),
            place,
            number,
        })
    }

    fn numbers(index: &Index<Thing>, place: u32) -> Vec<usize> {
        let mut numbers = Vec::new();
        index.find(place, |thing| {
            numbers.push(thing.number);
            None::<()>
        });
        numbers
    }

    /// Spread over all bits, as hashes are.
    fn spread(number: u32) -> u32 {
        number.wrapping_mul(0x9E37_79B9).rotate_left(16) ^ number.wrapping_mul(0x85EB_CA6B)
    }

    proptest! {
        #[test]
        fn the_newest_of_a_hash_is_met_first(
            steps in prop::collection::vec((0_u32..200, any::<bool>()), 0..1500),
        ) {
            let index = Index::default();
            let mut model: Vec<Vec<Arc<Thing>>> = vec![Vec::new(); 200];
            for (number, (key, add)) in steps.into_iter().enumerate() {
                // Few shards and few buckets, so that chains are long and are split.
                let place = key % 2 + (key << 4);
                let there = &mut model[key as usize];
                if add {
                    let thing = thing(place, number);
                    index.lock(place).insert(thing.clone());
                    there.insert(0, thing);
                } else if !there.is_empty() {
                    let thing = there.remove(there.len() / 2);
                    prop_assert!(index.lock(place).remove(&thing));
                    prop_assert!(!index.lock(place).remove(&thing));
                }
                let wanted: Vec<usize> = there.iter().map(|thing| thing.number).collect();
                prop_assert_eq!(numbers(&index, place), wanted);
            }
            let mut all: Vec<usize> = Vec::new();
            index.each(|thing| all.push(thing.number));
            all.sort_unstable();
            let mut wanted: Vec<usize> = model.iter().flatten().map(|one| one.number).collect();
            wanted.sort_unstable();
            prop_assert_eq!(index.len(), all.len());
            prop_assert_eq!(all, wanted);
        }
    }

    #[test]
    fn buckets_keep_pace() {
        let index = Index::default();
        for number in 0..100_000 {
            let place = spread(number);
            index.lock(place).insert(thing(place, 0));
        }
        for shard in &index.shards {
            let buckets = shard.buckets.load(Relaxed);
            assert_eq!(buckets, shard.len.load(Relaxed));
            let longest = (0..buckets).map(|bucket| shard.chain(bucket).len()).max();
            assert!(longest < Some(12), "{longest:?}");
        }
    }

    /// Things that stay are found at every moment, whatever becomes of those around them.
    #[test]
    fn what_stays_is_always_found() {
        const STAY: u32 = 500;
        let index = Index::default();
        for number in 0..STAY {
            let place = spread(number);
            index.lock(place).insert(thing(place, number as usize));
        }
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut looked = 0;
                    while !is_over.load(Acquire) || looked == 0 {
                        for number in 0..STAY {
                            let is_it = |thing: &Arc<Thing>| {
                                (thing.number == number as usize).then_some(())
                            };
                            assert!(index.find(spread(number), is_it).is_some(), "{number}");
                        }
                        looked += 1;
                    }
                });
            }
            for round in 0..4 {
                let others = STAY + round * 20_000..STAY + (round + 1) * 20_000;
                let others: Vec<Arc<Thing>> =
                    others.map(|n| thing(spread(n), n as usize)).collect();
                for other in &others {
                    index.lock(other.place).insert(other.clone());
                }
                for other in &others {
                    assert!(index.lock(other.place).remove(other));
                }
            }
            is_over.store(true, Release);
        });
        assert_eq!(index.len(), STAY as usize);
    }
}
