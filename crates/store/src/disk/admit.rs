//! What is stored: everything, or what is asked for a second time.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::key::Hash;

/// Which objects are stored on disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// All.
    All,
    /// Those that are asked for a second time.
    Second,
}

/// What was asked for before: 4 MiB for the last million or so. What meets another one's place
/// takes it, so the table forgets by itself, and never grows.
pub(crate) struct Seen(Box<[AtomicU32]>);

const PLACES: usize = 1 << 20;

impl Seen {
    pub(crate) fn new() -> Seen {
        Seen((0..PLACES).map(|_| AtomicU32::new(0)).collect())
    }

    /// Whether it was asked for before; from now on it was.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "parts of a hash are asked for"
    )]
    pub(crate) fn before(&self, hash: Hash) -> bool {
        let at = hash.0 as usize % PLACES;
        // Other bits than those of the place; 0 is an empty one.
        let mark = ((hash.0 >> 64) as u32).max(1);
        self.0[at].swap(mark, Relaxed) == mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_time_counts() {
        let seen = Seen::new();
        let hashes = [3_u128, 4, 3 << 64, 5 << 64].map(Hash);
        assert!(!seen.before(hashes[1]));
        assert!(seen.before(hashes[1]));
        assert!(!seen.before(hashes[2]));
        assert!(!seen.before(hashes[3]));
        assert!(!seen.before(hashes[2]), "it was forgotten for another one");
    }
}
