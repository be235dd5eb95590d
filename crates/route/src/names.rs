//! A hash table from (number, bytes) to a number, filled from the configuration and then only
//! read.
//!
//! Why not `std::collections::HashMap`: the key of a lookup is borrowed from the request and has
//! two parts, which its `Borrow` cannot express without a copy; and one arena for all keys keeps
//! 10,000 names within the second-level cache. The hash is fast and not keyed: who fills the
//! table writes the configuration, and a remote can only choose what is looked up, which cannot
//! make the probe sequences longer than the table's own names made them.

/// Names of at most `u32::MAX` bytes in sum; the callers' limits keep far below.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameMap {
    /// A power of two of slots, at least twice as many as names, or none at all.
    slots: Vec<Slot>,
    keys: Vec<u8>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    tag: u32,
    start: u32,
    len: u32,
    value: u32,
}

const EMPTY: Slot = Slot {
    hash: 0,
    tag: 0,
    start: 0,
    len: 0,
    value: u32::MAX,
};

impl NameMap {
    pub(crate) fn get(&self, tag: u32, key: &[u8]) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = &self.slots[self.find(hash(tag, key), tag, key)];
        (slot.value != u32::MAX).then_some(slot.value)
    }

    /// Stores `value` (which is not `u32::MAX`) unless the key has one already; returns the value
    /// that the key has now.
    pub(crate) fn get_or_insert(&mut self, tag: u32, key: &[u8], value: u32) -> u32 {
        debug_assert_ne!(value, u32::MAX, "that value marks empty slots");
        if self.slots.len() < 2 * (self.len + 1) {
            self.grow();
        }
        let hash = hash(tag, key);
        let at = self.find(hash, tag, key);
        if self.slots[at].value == u32::MAX {
            let (start, len) = (self.keys.len(), key.len());
            self.keys.extend_from_slice(key);
            let small = |n: usize| u32::try_from(n).expect("the callers limit the names");
            self.slots[at] = Slot {
                hash,
                tag,
                start: small(start),
                len: small(len),
                value,
            };
            self.len += 1;
        }
        self.slots[at].value
    }

    /// The slot that holds the key, or the empty one where it belongs.
    fn find(&self, hash: u32, tag: u32, key: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = index(hash) & mask;
        loop {
            let slot = &self.slots[at];
            if slot.value == u32::MAX
                || slot.hash == hash && slot.tag == tag && self.key(slot) == key
            {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    fn key(&self, slot: &Slot) -> &[u8] {
        let start = index(slot.start);
        &self.keys[start..start + index(slot.len)]
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(8);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; size]);
        for slot in old.into_iter().filter(|slot| slot.value != u32::MAX) {
            let mut at = index(slot.hash) & (size - 1);
            while self.slots[at].value != u32::MAX {
                at = (at + 1) & (size - 1);
            }
            self.slots[at] = slot;
        }
    }
}

/// A 32-bit number as an index: never cut off on the machines that this is for.
pub(crate) fn index(number: u32) -> usize {
    usize::try_from(number).expect("usize has at least 32 bits")
}

/// Multiply and fold, eight bytes at a time, as wyhash and its relatives do.
fn hash(tag: u32, key: &[u8]) -> u32 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let len = u64::try_from(key.len()).unwrap_or(u64::MAX);
    let mut state = fold(u64::from(tag) ^ A, len ^ B);
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), A);
    }
    // The last bytes, read as one word that overlaps what was read before; short keys are put
    // together byte by byte.
    let tail = match key.last_chunk::<8>() {
        _ if rest.is_empty() => 0,
        Some(word) => u64::from_le_bytes(*word),
        None => rest
            .iter()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    let state = fold(state ^ tail, B);
    u32::try_from((state ^ state >> 32) & 0xffff_ffff).unwrap_or(0)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let [low, high] = [product & u128::from(u64::MAX), product >> 64];
    u64::try_from(low ^ high).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_was_given_and_nothing_else() {
        let mut map = NameMap::default();
        assert_eq!(map.get(0, b""), None);
        for number in 0..5_000_u32 {
            let key = format!("name-{}-{number}", "x".repeat(index(number % 23)));
            assert_eq!(
                map.get_or_insert(number % 3, key.as_bytes(), number),
                number
            );
        }
        for number in 0..5_000_u32 {
            let key = format!("name-{}-{number}", "x".repeat(index(number % 23)));
            assert_eq!(map.get(number % 3, key.as_bytes()), Some(number));
            assert_eq!(map.get(number % 3 + 1, key.as_bytes()), None);
            assert_eq!(map.get_or_insert(number % 3, key.as_bytes(), 9_999), number);
            assert_eq!(map.get(number % 3, format!("{key}x").as_bytes()), None);
        }
        assert_eq!(map.get_or_insert(7, b"", 1), 1);
        assert_eq!(map.get(7, b""), Some(1));
    }

    #[test]
    fn probe_sequences_stay_short_for_names_that_look_alike() {
        let mut map = NameMap::default();
        for number in 0..10_000 {
            map.get_or_insert(0, format!("site{number}.example.com").as_bytes(), number);
        }
        let mask = map.slots.len() - 1;
        let far = |at: usize, slot: &Slot| at.wrapping_sub(index(slot.hash)) & mask;
        let used = map
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.value != u32::MAX);
        let (sum, most) = used.fold((0, 0), |(sum, most), (at, slot)| {
            (sum + far(at, slot), most.max(far(at, slot)))
        });
        assert!(
            sum < 10_000 && most < 40,
            "{sum} steps in all, {most} for one"
        );
    }
}
