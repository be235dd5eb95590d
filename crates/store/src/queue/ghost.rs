//! What has gone through the small queue a short while ago.

/// Places in one bucket.
const WAYS: usize = 8;

/// Remembers hashes, as many as it is told, in 8 bytes each: half a hash and when it was put in.
/// Where a bucket is full, the oldest of it is forgotten. Among a million ghosts, one in 4,000
/// things that were never here is taken for one that was; it then only stays longer.
#[derive(Default)]
pub(super) struct Ghost {
    /// Half a hash, and its turn; the turn 0 is an empty place.
    places: Vec<[(u32, u32); WAYS]>,
    /// How many have been put in.
    turn: u32,
    most: u32,
}

impl Ghost {
    /// The memory it takes, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.places.len() * size_of::<[(u32, u32); WAYS]>()
    }

    /// Whether it was here; not any more.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        let (mark, turn, most) = (mark(hash), self.turn, self.most);
        let Some(bucket) = self.bucket(mark) else {
            return false;
        };
        for place in bucket {
            if place.0 == mark && place.1 != 0 {
                let is_here = turn.wrapping_sub(place.1) < most;
                *place = (0, 0);
                return is_here;
            }
        }
        false
    }

    /// Puts one in; the oldest go as soon as there are more than `most`.
    pub(super) fn put(&mut self, hash: u64, most: usize) {
        let most = u32::try_from(most).unwrap_or(u32::MAX / 2);
        self.most = most.clamp(16, u32::MAX / 2);
        self.fit();
        // 0 is an empty place.
        self.turn = self.turn.wrapping_add(1).max(1);
        let (mark, turn) = (mark(hash), self.turn);
        if let Some(bucket) = self.bucket(mark) {
            set(bucket, mark, turn);
        }
    }

    /// A bucket for every eight, with a quarter to spare, since they fill unevenly.
    fn fit(&mut self) {
        let wanted = (self.most as usize).div_ceil(WAYS) * 5 / 4 + 1;
        let has = self.places.len();
        if wanted <= has && wanted * 4 > has {
            return;
        }
        // By quarters: memory beyond what is needed is memory lost to objects.
        let before = std::mem::replace(&mut self.places, vec![Default::default(); wanted * 5 / 4]);
        for (mark, turn) in before.into_iter().flatten() {
            if turn != 0
                && let Some(bucket) = self.bucket(mark)
            {
                set(bucket, mark, turn);
            }
        }
    }

    fn bucket(&mut self, mark: u32) -> Option<&mut [(u32, u32); WAYS]> {
        let number = (u64::from(mark) * self.places.len() as u64) >> 32;
        self.places.get_mut(usize::try_from(number).ok()?)
    }
}

fn set(bucket: &mut [(u32, u32); WAYS], mark: u32, turn: u32) {
    let age = |place: &(u32, u32)| match place.1 {
        // Empty ones first.
        0 => u32::MAX,
        at => turn.wrapping_sub(at) & (u32::MAX / 2),
    };
    let same = bucket.iter().position(|p| p.0 == mark && p.1 != 0);
    let oldest = || (0..WAYS).max_by_key(|at| age(&bucket[*at]));
    if let Some(at) = same.or_else(oldest) {
        bucket[at] = (mark, turn);
    }
}

/// The half of a hash that is remembered.
fn mark(hash: u64) -> u32 {
    // Half of it is what is wanted.
    u32::try_from(hash >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[test]
    fn it_remembers_as_many_as_it_is_told() {
        let mut ghost = Ghost::default();
        assert!(!ghost.take(hash(0)));
        for number in 0..10_000 {
            ghost.put(hash(number), 1000);
        }
        assert!(ghost.heap_bytes() < 1000 * 16);
        let there = |ghost: &mut Ghost, range: std::ops::Range<u64>| {
            range.filter(|number| ghost.take(hash(*number))).count()
        };
        assert_eq!(there(&mut ghost, 0..9000), 0);
        let known = there(&mut ghost, 9000..10_000);
        assert!(known > 970, "{known}");
        // Taken, they are gone.
        assert_eq!(there(&mut ghost, 9000..10_000), 0);
    }

    #[test]
    fn it_grows_and_keeps_what_it_knows() {
        let mut ghost = Ghost::default();
        for number in 0..5000 {
            ghost.put(hash(number), usize::try_from(number).unwrap());
        }
        let known = (1000..5000).filter(|n| ghost.take(hash(*n))).count();
        assert!(known > 3850, "{known}");
    }
}
