//! The wheel itself: entries in lists in slots in levels.

use std::task::Waker;

/// What [`Slots::set`] did.
pub(super) enum Set {
    /// The entry is in a slot that comes up early enough.
    Stays,
    /// It was put into a slot that comes up at this tick.
    Linked(u64),
    /// Its time has come already: wake whoever waits.
    Due(Option<Waker>),
}

/// The entries and the lists they are in; knows no time but what it is told, and wakes nobody.
pub(super) struct Slots {
    /// In pieces, so that growing copies nothing and doubles nothing.
    pub(super) pieces: Vec<Box<[Entry]>>,
    free: u32,
    pub(super) registered: usize,
    /// Heads of the lists of entries.
    slots: [u32; LEVELS * SLOTS],
    /// One bit per slot that is not empty.
    occupied: [[u64; SLOTS / 64]; LEVELS],
    /// All slots up to this tick are dealt with.
    tick: u64,
    /// No slot comes up before this tick.
    next: u64,
    /// The latest time told.
    now_ms: u64,
}

/// One deadline's entry, at most 48 bytes.
pub(super) struct Entry {
    /// When it expires; [`NEVER`] if it is not set.
    pub(super) at_ms: u64,
    /// The tick at which its slot comes up.
    slot_tick: u64,
    pub(super) waker: Option<Waker>,
    previous: u32,
    /// The next one of its list, or of the free ones.
    next: u32,
    /// Where it is linked, or [`UNLINKED`].
    pub(super) slot: u16,
}

const _: () = assert!(size_of::<Entry>() <= 48);

pub(super) const TICK_MS: u64 = 4;
const LEVELS: usize = 3;
/// Slots of a level: what a byte can tell apart.
const SLOTS: usize = 256;
/// By how many bits a tick is shifted to count in slots of each level.
const SHIFTS: [u32; LEVELS] = [0, 8, 16];
/// Furthest a slot can be from now, in ticks: a little more than 18 hours.
const REACH: u64 = 1 << 24;
pub(super) const PIECE: usize = 64;
const NIL: u32 = u32::MAX;
const UNLINKED: u16 = u16::MAX;
pub(super) const NEVER: u64 = u64::MAX;
/// The latest time: ticks and their sums must not overflow.
pub(super) const LAST_MS: u64 = u64::MAX / 2;
/// How many are woken while nothing else runs.
const BATCH: usize = 128;

impl Slots {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            pieces: Vec::new(),
            free: NIL,
            registered: 0,
            slots: [NIL; LEVELS * SLOTS],
            occupied: [[0; SLOTS / 64]; LEVELS],
            tick: now_ms / TICK_MS,
            next: u64::MAX,
            now_ms,
        }
    }

    pub(super) fn entry(&mut self, index: u32) -> &mut Entry {
        let index = index as usize;
        &mut self.pieces[index / PIECE][index % PIECE]
    }

    pub(super) fn allocate(&mut self) -> u32 {
        if self.free == NIL {
            self.grow();
        }
        let index = self.free;
        self.free = self.entry(index).next;
        self.registered += 1;
        index
    }

    fn grow(&mut self) {
        // 2³² entries would be 200 GB: connections run out first.
        let first = u32::try_from(self.pieces.len() * PIECE).expect("less than 2^32 deadlines");
        let mut next = first;
        let entry = || {
            next += 1;
            Entry {
                at_ms: NEVER,
                slot_tick: 0,
                waker: None,
                previous: NIL,
                next,
                slot: UNLINKED,
            }
        };
        let mut piece: Box<[Entry]> = std::iter::repeat_with(entry).take(PIECE).collect();
        piece[PIECE - 1].next = NIL;
        self.pieces.push(piece);
        self.free = first;
    }

    pub(super) fn release(&mut self, index: u32) -> Option<Waker> {
        self.unlink(index);
        let free = self.free;
        let entry = self.entry(index);
        entry.at_ms = NEVER;
        entry.next = free;
        let waker = entry.waker.take();
        self.free = index;
        self.registered -= 1;
        waker
    }

    pub(super) fn expired(&mut self, index: u32) -> bool {
        let now_ms = self.now_ms;
        self.entry(index).at_ms <= now_ms
    }

    pub(super) fn set(&mut self, index: u32, now_ms: u64, at_ms: u64) -> Set {
        self.now_ms = self.now_ms.max(now_ms);
        let due = at_ms <= self.now_ms;
        let entry = self.entry(index);
        entry.at_ms = at_ms;
        if due {
            return Set::Due(entry.waker.take());
        }
        let tick = at_ms.div_ceil(TICK_MS);
        if entry.slot != UNLINKED {
            if entry.slot_tick <= tick {
                return Set::Stays;
            }
            self.unlink(index);
        }
        // If nothing comes up until now, now is where the wheel stands: after long quiet, entries
        // get into the level they belong to.
        let now_tick = now_ms / TICK_MS;
        if now_tick > self.tick && now_tick < self.next {
            self.tick = now_tick;
        }
        Set::Linked(self.link(index, tick))
    }

    /// Puts an entry that is in no slot into the one for `tick`, which is still to come. Returns
    /// when that slot comes up.
    fn link(&mut self, index: u32, tick: u64) -> u64 {
        debug_assert!(tick > self.tick, "{tick} is not after {}", self.tick);
        let tick = tick.min(self.tick + REACH - 1);
        let away = tick - self.tick;
        let level = SHIFTS.partition_point(|shift| away >> shift != 0) - 1;
        let shift = SHIFTS[level];
        let number = slot_number(tick >> shift);
        let slot = level * SLOTS + number;
        let slot_tick = (tick >> shift) << shift;

        let head = std::mem::replace(&mut self.slots[slot], index);
        if head != NIL {
            self.entry(head).previous = index;
        }
        let entry = self.entry(index);
        entry.previous = NIL;
        entry.next = head;
        entry.slot_tick = slot_tick;
        entry.slot = u16::try_from(slot).expect("less than 2^16 slots");
        self.occupied[level][number / 64] |= 1 << (number % 64);
        self.next = self.next.min(slot_tick);
        slot_tick
    }

    fn unlink(&mut self, index: u32) {
        let entry = self.entry(index);
        if entry.slot == UNLINKED {
            return;
        }
        let slot = usize::from(std::mem::replace(&mut entry.slot, UNLINKED));
        let (previous, next) = (entry.previous, entry.next);
        if next != NIL {
            self.entry(next).previous = previous;
        }
        if previous != NIL {
            self.entry(previous).next = next;
            return;
        }
        self.slots[slot] = next;
        if next == NIL {
            let number = slot % SLOTS;
            self.occupied[slot / SLOTS][number / 64] &= !(1 << (number % 64));
        }
    }

    /// Deals with all slots up to `now_ms`; `true` if `due` was full before the end.
    pub(super) fn advance(&mut self, now_ms: u64, due: &mut Batch) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        let end = self.now_ms / TICK_MS;
        loop {
            if !self.empty_slots_of_tick(due) {
                return true;
            }
            match self.next_event() {
                Some(tick) if tick <= end => self.tick = tick,
                _ => {
                    self.tick = self.tick.max(end);
                    return false;
                }
            }
        }
    }

    /// Empties the slots that come up at the present tick, the highest level first; `false` if
    /// `due` was full before.
    fn empty_slots_of_tick(&mut self, due: &mut Batch) -> bool {
        for level in (0..LEVELS).rev() {
            let shift = SHIFTS[level];
            if self.tick & ((1 << shift) - 1) != 0 {
                continue;
            }
            let slot = level * SLOTS + slot_number(self.tick >> shift);
            while self.slots[slot] != NIL {
                if due.is_full() {
                    return false;
                }
                let index = self.slots[slot];
                self.unlink(index);
                self.look_at(index, due);
            }
        }
        true
    }

    /// The slot of an entry has come up: is its time over, or has it moved?
    fn look_at(&mut self, index: u32, due: &mut Batch) {
        let now_tick = self.tick;
        let entry = self.entry(index);
        if entry.at_ms == NEVER {
            return;
        }
        let tick = entry.at_ms.div_ceil(TICK_MS);
        if tick > now_tick {
            self.link(index, tick);
        } else if let Some(waker) = entry.waker.take() {
            due.push(waker);
        }
    }

    /// The tick at which the next slot comes up that is not empty.
    pub(super) fn next_event(&mut self) -> Option<u64> {
        let mut next = u64::MAX;
        for (level, bits) in self.occupied.iter().enumerate() {
            let shift = SHIFTS[level];
            let now = self.tick >> shift;
            if let Some(away) = next_occupied(bits, slot_number(now)) {
                next = next.min((now + away) << shift);
            }
        }
        self.next = next;
        (next != u64::MAX).then_some(next)
    }

    /// Walks all lists; for tests.
    #[cfg(test)]
    pub(super) fn check_invariants(&mut self) {
        let mut seen = 0;
        for slot in 0..LEVELS * SLOTS {
            let mut previous = NIL;
            let mut index = self.slots[slot];
            let bit = self.occupied[slot / SLOTS][slot % SLOTS / 64] >> (slot % 64) & 1 == 1;
            assert_eq!(bit, index != NIL, "the bit of slot {slot}");
            while index != NIL {
                let (tick, next, now_ms) = (self.tick, self.next, self.now_ms);
                let entry = self.entry(index);
                assert_eq!((usize::from(entry.slot), entry.previous), (slot, previous));
                assert!(entry.slot_tick > tick, "entry {index} was passed by");
                assert!(
                    entry.slot_tick >= next,
                    "entry {index} comes before the next event"
                );
                if entry.at_ms > now_ms {
                    assert!(
                        entry.slot_tick <= entry.at_ms.div_ceil(TICK_MS),
                        "{index} is late"
                    );
                }
                (previous, index) = (index, entry.next);
                seen += 1;
            }
        }
        assert!(
            seen <= self.registered,
            "{seen} linked, {} registered",
            self.registered
        );
    }
}

/// The slot's number within its level for a tick in units of that level.
fn slot_number(tick: u64) -> usize {
    usize::from(tick.to_le_bytes()[0])
}

/// How far the next bit is that is set, going round, from the one after `from`: 1 to 256.
fn next_occupied(bits: &[u64; SLOTS / 64], from: usize) -> Option<u64> {
    const WORDS: usize = SLOTS / 64;
    let first = (from + 1) % SLOTS;
    for step in 0..=WORDS {
        let at = (first / 64 + step) % WORDS;
        let word = match step {
            0 => bits[at] & (u64::MAX << (first % 64)),
            // Round once: the part before `first`.
            WORDS => bits[at] & !(u64::MAX << (first % 64)),
            _ => bits[at],
        };
        if word != 0 {
            let number = at * 64 + word.trailing_zeros() as usize;
            return Some(((number + SLOTS - first) % SLOTS) as u64 + 1);
        }
    }
    None
}

/// Wakers collected while the wheel is borrowed, on the stack.
pub(super) struct Batch {
    wakers: [Option<Waker>; BATCH],
    len: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            wakers: [const { None }; BATCH],
            len: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.len == BATCH
    }

    fn push(&mut self, waker: Waker) {
        self.wakers[self.len] = Some(waker);
        self.len += 1;
    }

    /// Wakes them all. The wheel must not be borrowed.
    pub(super) fn wake(self) {
        for waker in self.wakers.into_iter().take(self.len).flatten() {
            waker.wake();
        }
    }
}
