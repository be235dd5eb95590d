//! How many exchanges there are at once for each key, over all workers, and who waits for one of
//! them to end.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

const SHARDS: usize = 64;

/// How many may wait for one key. More than this is no crowd but an attack.
const MAX_WAITING: usize = 1024;

/// Those who are inside. A key without any takes no memory, so there are never more of them than
/// exchanges under way.
pub struct Crowd {
    limit: u32,
    /// Made at their first use: ten thousand sites may each have a limit that nobody comes to.
    shards: OnceLock<Box<[Shard]>>,
}

type Shard = Mutex<FxHashMap<u64, Inside>>;

#[derive(Default)]
struct Inside {
    count: u32,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// One place inside; given to the next one, or back, when it is dropped.
pub struct Permit {
    /// `None` once there is nothing to give back.
    crowd: Option<Arc<Crowd>>,
    key: u64,
}

/// What becomes of one who wants to be inside.
pub enum Entry {
    Inside(Permit),
    /// Gets a permit when it is its turn.
    Waiting(oneshot::Receiver<Permit>),
    /// Too many wait.
    Refused,
}

impl Crowd {
    /// At most `limit` for each key.
    pub fn new(limit: u32) -> Crowd {
        Crowd {
            limit,
            shards: OnceLock::new(),
        }
    }

    /// A place, if there is one.
    pub fn enter(self: &Arc<Self>, key: u64) -> Option<Permit> {
        let mut shard = self.shard(key).lock();
        let inside = shard.entry(key).or_default();
        self.admit(inside, key)
    }

    /// A place, or one as soon as there is one.
    pub fn enter_in_turn(self: &Arc<Self>, key: u64) -> Entry {
        let mut shard = self.shard(key).lock();
        let inside = shard.entry(key).or_default();
        if let Some(permit) = self.admit(inside, key) {
            return Entry::Inside(permit);
        }
        if inside.waiting.len() >= MAX_WAITING {
            inside.waiting.retain(|one| !one.is_closed());
            if inside.waiting.len() >= MAX_WAITING {
                return Entry::Refused;
            }
        }
        let (turn, waiting) = oneshot::channel();
        inside.waiting.push_back(turn);
        Entry::Waiting(waiting)
    }

    fn admit(self: &Arc<Self>, inside: &mut Inside, key: u64) -> Option<Permit> {
        if inside.count >= self.limit {
            return None;
        }
        inside.count += 1;
        Some(Permit {
            crowd: Some(self.clone()),
            key,
        })
    }

    /// One has left: who is next? Nobody: then there is one fewer.
    fn leave(&self, key: u64) -> Option<oneshot::Sender<Permit>> {
        let mut shard = self.shard(key).lock();
        let inside = shard.get_mut(&key)?;
        if let Some(next) = inside.waiting.pop_front() {
            return Some(next);
        }
        inside.count = inside.count.saturating_sub(1);
        if inside.count == 0 {
            shard.remove(&key);
        }
        None
    }

    fn shard(&self, key: u64) -> &Shard {
        let make = || (0..SHARDS).map(|_| Mutex::default()).collect();
        let index = usize::try_from(key >> (u64::BITS - SHARDS.trailing_zeros())).unwrap_or(0);
        &self.shards.get_or_init(make)[index]
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        let shards = self.shards.get().map_or(&[][..], |shards| shards);
        shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(crowd) = self.crowd.take() else {
            return;
        };
        // Handed over outside of the lock, and in a loop: a permit that comes back because nobody
        // waits for it any more would else be dropped within this drop, and so on.
        while let Some(next) = crowd.leave(self.key) {
            let permit = Permit {
                crowd: Some(crowd.clone()),
                key: self.key,
            };
            match next.send(permit) {
                Ok(()) => return,
                Err(mut back) => back.crowd = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_places() {
        let crowd = Arc::new(Crowd::new(2));
        let first = crowd.enter(1).expect("a place");
        let _second = crowd.enter(1).expect("a place");
        assert!(crowd.enter(1).is_none());
        let _other = crowd.enter(2).expect("a place of another");
        drop(first);
        assert!(crowd.enter(1).is_some());
    }

    #[test]
    fn a_place_goes_to_who_has_waited_longest_and_is_still_there() {
        let crowd = Arc::new(Crowd::new(1));
        let permit = crowd.enter(1).expect("a place");
        let wait = || match crowd.enter_in_turn(1) {
            Entry::Waiting(waiting) => waiting,
            _ => panic!("there is no place"),
        };
        let (gone, mut first, mut second) = (wait(), wait(), wait());
        drop(gone);
        assert!(first.try_recv().is_err());
        drop(permit);
        let permit = first.try_recv().expect("its turn");
        assert!(second.try_recv().is_err() && crowd.enter(1).is_none());
        // One that leaves with its permit unread gives it on as well.
        drop(permit);
        drop(second);
        assert!(crowd.enter(1).is_some());
        assert_eq!(crowd.keys(), 0);
    }

    #[test]
    fn many_who_are_gone_are_passed_over_and_too_many_are_refused() {
        let crowd = Arc::new(Crowd::new(1));
        let permit = crowd.enter(1).expect("a place");
        for _ in 0..10 * MAX_WAITING {
            assert!(matches!(crowd.enter_in_turn(1), Entry::Waiting(_)));
        }
        let here: Vec<Entry> = (0..=MAX_WAITING).map(|_| crowd.enter_in_turn(1)).collect();
        assert!(matches!(here.last(), Some(Entry::Refused)));
        drop(here);
        drop(permit);
        assert_eq!(crowd.keys(), 0);
    }
}
