//! Which objects are on a disk, and where: 24 bytes for each, and no more than 42 with the room
//! that the table keeps.
//!
//! Open addressing with linear probing, in shards, so that growing copies little at once and
//! readers of one shard do not meet the writer of another. What belongs to a place is taken by
//! half of the key's hash; the whole key stands on the disk.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::RwLock;
use smallvec::SmallVec;

use super::record::UNIT;
use crate::store::MAX_VARIANTS;

const SHARDS: usize = 64;

/// Numbers of rules are kept in so many bits: a million a second for half a year.
const ASKED_BITS: u32 = 44;

const USED: u64 = 1;
const SEVERAL: u64 = 1 << 1;

/// Where an object's head is, and what can be said of it without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Half the hash of its key.
    pub tag: u64,
    /// The segment's place among the segments.
    pub slot: u16,
    /// Where its head is in the segment, in units.
    pub offset: u32,
    /// How long its head is, with an only block, in units.
    pub units: u16,
    /// Which of the key's variants.
    pub variant: u16,
    /// The newest purge rule when it was asked for.
    pub asked_at: u64,
    /// Its body is several blocks.
    pub several: bool,
    /// It was used since it was written.
    pub used: bool,
}

impl Entry {
    /// How long its head is, in bytes.
    pub(crate) fn head_bytes(&self) -> usize {
        // 16 bits and 4.
        usize::from(self.units) * 16
    }

    pub(crate) fn at_bytes(&self) -> u64 {
        u64::from(self.offset) * UNIT
    }

    pub(crate) fn is_at(&self, other: &Entry) -> bool {
        (self.slot, self.offset) == (other.slot, other.offset)
    }

    /// As it stands in the table, and in a checkpoint.
    pub(crate) fn to_words(self) -> [u64; 3] {
        let asked_at = self.asked_at.min((1 << ASKED_BITS) - 1);
        let flags = [(self.used, USED), (self.several, SEVERAL)];
        let flags: u64 = flags.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum();
        [
            // 0 is an empty place.
            self.tag.max(1),
            u64::from(self.slot) << 48 | u64::from(self.offset) << 16 | u64::from(self.variant),
            asked_at << 20 | u64::from(self.units) << 4 | flags,
        ]
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is cut to its own bits"
    )]
    pub(crate) fn from_words(words: [u64; 3]) -> Entry {
        let [tag, place, rest] = words;
        Entry {
            tag,
            slot: (place >> 48) as u16,
            offset: (place >> 16) as u32,
            variant: place as u16,
            asked_at: rest >> 20,
            units: (rest >> 4) as u16,
            several: rest & SEVERAL != 0,
            used: rest & USED != 0,
        }
    }
}

/// The words are atomic only for the mark of a use, which is set while others read.
type Place = [AtomicU64; 3];

#[derive(Default)]
struct Table {
    places: Box<[Place]>,
    taken: usize,
}

/// The index of one disk.
pub struct Index {
    /// What was asked for before this number is not taken in: the rules that would tell whether it
    /// was purged are forgotten.
    floor: AtomicU64,
    shards: Box<[RwLock<Table>]>,
}

fn load(place: &Place) -> [u64; 3] {
    [0, 1, 2].map(|word| place[word].load(Relaxed))
}

fn save(place: &mut Place, words: [u64; 3]) {
    for (atomic, word) in place.iter_mut().zip(words) {
        *atomic.get_mut() = word;
    }
}

impl Table {
    /// Where a search for a tag begins.
    fn home(&self, tag: u64) -> usize {
        let low = tag & 0xFFFF_FFFF;
        // Less than the number of places.
        usize::try_from((low * self.places.len() as u64) >> 32).unwrap_or(0)
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.places.len() {
            0
        } else {
            at + 1
        }
    }

    /// Every place with this tag.
    fn each(&self, tag: u64, mut see: impl FnMut(usize, Entry)) {
        if self.taken == 0 {
            return;
        }
        let mut at = self.home(tag);
        loop {
            let words = load(&self.places[at]);
            if words[0] == 0 {
                return;
            }
            if words[0] == tag {
                see(at, Entry::from_words(words));
            }
            at = self.next(at);
        }
    }

    fn put(&mut self, words: [u64; 3]) {
        // A place in eight stays free, so searches are short and end.
        if (self.taken + 1) * 8 > self.places.len() * 7 {
            let more = (self.places.len() + self.places.len() / 2).max(16);
            self.resize(more);
        }
        let mut at = self.home(words[0]);
        while *self.places[at][0].get_mut() != 0 {
            at = self.next(at);
        }
        save(&mut self.places[at], words);
        self.taken += 1;
    }

    fn resize(&mut self, places: usize) {
        let empty = (0..places).map(|_| Place::default()).collect();
        let old = std::mem::replace(&mut self.places, empty);
        self.taken = 0;
        for place in &old {
            let words = load(place);
            if words[0] != 0 {
                self.put(words);
            }
        }
    }

    /// Empties a place and moves up those behind it that were put off by it.
    fn clear(&mut self, mut hole: usize) {
        let len = self.places.len();
        let mut at = hole;
        loop {
            at = self.next(at);
            let words = load(&self.places[at]);
            if words[0] == 0 {
                break;
            }
            let home = self.home(words[0]);
            // How far each is from where the search for it begins, round the end of the table.
            let from_home = (at + len - home) % len;
            let from_hole = (at + len - hole) % len;
            if from_home >= from_hole {
                save(&mut self.places[hole], words);
                hole = at;
            }
        }
        save(&mut self.places[hole], [0; 3]);
        self.taken -= 1;
    }
}

impl Default for Index {
    fn default() -> Index {
        Index {
            floor: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }
    }
}

impl Index {
    fn shard(&self, tag: u64) -> &RwLock<Table> {
        // Other bits than those by which a table places it; less than 64.
        &self.shards[usize::try_from(tag >> 58).unwrap_or(0)]
    }

    /// Room for so many objects in all, where that is known before.
    pub(crate) fn reserve(&self, objects: usize) {
        for shard in &self.shards {
            let mut table = shard.write();
            let places = (objects / SHARDS + 1) * 5 / 4;
            if places > table.places.len() {
                table.resize(places);
            }
        }
    }

    /// What is stored under a hash, the newest not always last.
    pub(crate) fn find(&self, tag: u64) -> SmallVec<[Entry; 1]> {
        let tag = tag.max(1);
        let mut found = SmallVec::new();
        self.shard(tag)
            .read()
            .each(tag, |_, entry| found.push(entry));
        found
    }

    /// From now on nothing is here that was asked for before this number.
    pub(crate) fn set_floor(&self, floor: u64) {
        self.floor.fetch_max(floor, Relaxed);
        // Who takes the lock of a shard after this has sees the new number.
        self.retain(|entry| entry.asked_at >= floor);
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Relaxed)
    }

    /// Puts an object in, in place of the same variant.
    pub(crate) fn insert(&self, entry: Entry) {
        let words = entry.to_words();
        let tag = words[0];
        let mut table = self.shard(tag).write();
        if entry.asked_at < self.floor() {
            return;
        }
        let mut same = None;
        let mut first = None;
        let mut variants = 0;
        table.each(tag, |at, there| {
            variants += 1;
            first.get_or_insert(at);
            if there.variant == entry.variant {
                same = Some(at);
            }
        });
        match same {
            Some(at) => save(&mut table.places[at], words),
            None => {
                if variants >= MAX_VARIANTS
                    && let Some(first) = first
                {
                    table.clear(first);
                }
                table.put(words);
            }
        }
    }

    /// The same object at another place; false: it is not where it was.
    pub(crate) fn relocate(&self, from: &Entry, to: Entry) -> bool {
        let words = to.to_words();
        let mut table = self.shard(words[0]).write();
        let mut found = None;
        table.each(words[0], |at, there| {
            if there.is_at(from) {
                found = Some(at);
            }
        });
        if let Some(at) = found {
            save(&mut table.places[at], words);
        }
        found.is_some()
    }

    /// Takes those of a tag out that are meant. Says how many.
    pub(crate) fn remove(&self, tag: u64, meant: impl Fn(&Entry) -> bool) -> usize {
        let tag = tag.max(1);
        let mut table = self.shard(tag).write();
        let mut removed = 0;
        loop {
            let mut found = None;
            table.each(tag, |at, entry| {
                if meant(&entry) {
                    found = Some(at);
                }
            });
            match found {
                Some(at) => table.clear(at),
                None => return removed,
            }
            removed += 1;
        }
    }

    /// Notes that what has this tag was used.
    pub(crate) fn used(&self, tag: u64) {
        let tag = tag.max(1);
        let table = self.shard(tag).read();
        table.each(tag, |at, entry| {
            if !entry.used {
                table.places[at][2].fetch_or(USED, Relaxed);
            }
        });
    }

    /// Takes out what is not to stay.
    pub(crate) fn retain(&self, mut stays: impl FnMut(&Entry) -> bool) {
        for shard in &self.shards {
            let mut table = shard.write();
            let mut kept = Vec::new();
            let before = table.taken;
            for place in &mut table.places {
                let words = load(place);
                if words[0] != 0 && stays(&Entry::from_words(words)) {
                    kept.push(words);
                }
            }
            if kept.len() == before {
                continue;
            }
            // Much smaller now: the memory goes back.
            let places = match kept.len() * 4 < table.places.len() {
                true => (kept.len() * 5 / 4 + 1).max(16),
                false => table.places.len(),
            };
            table.places = (0..places).map(|_| Place::default()).collect();
            table.taken = 0;
            kept.into_iter().for_each(|words| table.put(words));
        }
    }

    /// Shows every entry; each shard is locked while its own are shown.
    pub(crate) fn each(&self, mut see: impl FnMut(Entry)) {
        for shard in &self.shards {
            for place in &shard.read().places {
                let words = load(place);
                if words[0] != 0 {
                    see(Entry::from_words(words));
                }
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().taken).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory it takes.
    pub fn memory_bytes(&self) -> usize {
        let tables = self
            .shards
            .iter()
            .map(|shard| size_of_val(&*shard.read().places));
        tables.sum::<usize>() + size_of_val(&*self.shards)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(tag: u64, variant: u16, offset: u32) -> Entry {
        Entry {
            tag: tag.max(1),
            slot: 7,
            offset,
            units: 9,
            variant,
            asked_at: 5,
            several: false,
            used: false,
        }
    }

    proptest! {
        #[test]
        fn an_entry_is_what_was_put(
            tag in 1_u64.., slot: u16, offset: u32, units: u16, variant: u16,
            asked_at in 0_u64..1 << ASKED_BITS, several: bool, used: bool,
        ) {
            let entry = Entry { tag, slot, offset, units, variant, asked_at, several, used };
            prop_assert_eq!(Entry::from_words(entry.to_words()), entry);
        }

        /// Few tags, in one shard, that begin at few places: everything is put off by something.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0_u64..40, 0_u16..3, any::<bool>()), 0..400)) {
            let index = Index::default();
            let mut model = BTreeMap::new();
            for (at, (tag, variant, add)) in steps.into_iter().enumerate() {
                let tag = 1 + (tag << 29);
                if add {
                    let entry = entry(tag, variant, u32::try_from(at).unwrap());
                    index.insert(entry);
                    model.insert((tag, variant), entry);
                } else {
                    let removed = index.remove(tag, |there| there.variant == variant);
                    prop_assert_eq!(removed, usize::from(model.remove(&(tag, variant)).is_some()));
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for tag in 0..40 {
                let tag = 1 + (tag << 29);
                let mut found = index.find(tag).to_vec();
                found.sort_by_key(|entry| entry.variant);
                let wanted: Vec<Entry> = model.range((tag, 0)..=(tag, 9)).map(|(_, e)| *e).collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn variants_are_bounded_and_uses_noted() {
        let index = Index::default();
        for variant in 0..100 {
            index.insert(entry(3, variant, 1));
        }
        assert_eq!(index.find(3).len(), MAX_VARIANTS);
        assert!(index.find(3).iter().all(|entry| !entry.used));
        index.used(3);
        assert!(index.find(3).iter().all(|entry| entry.used));
        index.retain(|entry| entry.variant == 99);
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn a_million_objects_take_little() {
        let index = Index::default();
        let mut tag = 1_u64;
        for offset in 0..1_000_000 {
            tag = tag
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            index.insert(entry(tag ^ tag >> 29, 0, offset));
        }
        assert!(
            index.memory_bytes() / index.len() <= 42,
            "{}",
            index.memory_bytes()
        );
    }
}
