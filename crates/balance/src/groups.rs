//! What a large pool remembers of its peers, a group at a time.
//!
//! A request changes two peers: the one that it goes to, and the one whose answer has ended. So of 1,000
//! peers in groups of 32 a choice looks at 32 that are remembered, and at the members of the two or
//! three groups in which something has happened since they were looked at.
//!
//! Who changes what a choice goes by (permits, turn, flags) changes the group's version after it.
//! What is remembered bears the version that was read before the look, so a change that falls into
//! the look makes it worth nothing; nothing is locked and nobody waits. Between the change of a
//! member and that of the version another worker may still find that member remembered: it reads
//! how the member is now and ranks it by that.
//!
//! That the clock moves on does not matter: turns that it has passed count as being at it, so who had
//! the earliest turn then is still not later than any other.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Peers of a group.
pub(crate) const GROUP: usize = 32;

/// With fewer peers than this, a look at all of them is not slower.
const FEWEST: usize = 128;

/// The lower bits of `best`; above them is the version.
const MEMBER_BITS: u32 = 8;

/// The member of a group in which nobody can be used.
const NOBODY: u64 = 0xff;

/// The members of a pool with numbers from a multiple of [`GROUP`] on.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Changes with every change to a member.
    version: AtomicU64,
    /// The best member at some version.
    best: AtomicU64,
}

/// What a group remembers.
pub(crate) enum Recall {
    /// This member is the best.
    Member(usize),
    /// No member can be used.
    Nobody,
    /// Something has changed since.
    Unknown,
}

/// The groups of a pool of so many peers; none if it is small.
pub(crate) fn groups(peers: usize) -> Box<[Group]> {
    let count = if peers < FEWEST {
        0
    } else {
        peers.div_ceil(GROUP)
    };
    (0..count).map(|_| Group::new()).collect()
}

impl Group {
    fn new() -> Group {
        Group {
            // Of no version yet.
            version: AtomicU64::new(1),
            best: AtomicU64::new(0),
        }
    }

    /// What it is now; to be read before the members are looked at.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// To be told after each change to a member.
    pub(crate) fn change(&self) {
        self.version.fetch_add(1, Release);
    }

    /// Who was the best at this version.
    pub(crate) fn remember(&self, version: u64, member: Option<usize>) {
        let member = member.and_then(|at| u64::try_from(at).ok());
        let best = version << MEMBER_BITS | member.unwrap_or(NOBODY);
        self.best.store(best, Relaxed);
    }

    pub(crate) fn recall(&self) -> Recall {
        let best = self.best.load(Relaxed);
        if best >> MEMBER_BITS != self.version.load(Relaxed) << MEMBER_BITS >> MEMBER_BITS {
            return Recall::Unknown;
        }
        match best & NOBODY {
            NOBODY => Recall::Nobody,
            member => usize::try_from(member).map_or(Recall::Unknown, Recall::Member),
        }
    }
}

const _: () = assert!(GROUP < 1 << MEMBER_BITS && NOBODY == (1 << MEMBER_BITS) - 1);
