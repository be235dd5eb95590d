//! What a cache has made of an exchange, for logs, metrics and `$cache`.

use forebay_cache_policy::{WhyAround, WhyNot, WhyStale};

/// What a cache has made of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// Where its response is from.
    pub how: How,
    /// Why, where that is not all there is to say.
    pub why: Why,
}

/// Where a response is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum How {
    /// From the store.
    Hit,
    /// From the origin, and stored.
    Miss,
    /// From the store, though it is no longer fresh.
    Stale,
    /// From the store, after the origin has said that it is still right.
    Revalidated,
    /// From what another request was bringing in.
    Collapsed,
    /// From the steps below: the request went round the cache.
    Bypass,
    /// From the steps below, and not stored.
    Pass,
}

/// Why a response is from where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is nothing to be said.
    Usual,
    /// Why a stale response was used.
    Stale(WhyStale),
    /// Why the request went round the cache.
    Around(WhyAround),
    /// Why the response was not stored.
    Not(WhyNot),
    /// HEAD, and nothing is stored.
    Head,
    /// What came a short while ago was not for all, so nobody waits for it.
    HitForMiss,
    /// `only-if-cached`, and nothing is stored that would do.
    OnlyIfCached,
    /// It may not be stored, and is shared while it runs.
    Live,
}

impl How {
    /// Every one of them.
    pub const ALL: [How; 7] = [
        How::Hit,
        How::Miss,
        How::Stale,
        How::Revalidated,
        How::Collapsed,
        How::Bypass,
        How::Pass,
    ];

    /// The value of `$cache`.
    pub const fn name(self) -> &'static str {
        match self {
            How::Hit => "hit",
            How::Miss => "miss",
            How::Stale => "stale",
            How::Revalidated => "revalidated",
            How::Collapsed => "collapsed",
            How::Bypass => "bypass",
            How::Pass => "pass",
        }
    }

    /// Whether the body is one that no origin was asked for on this behalf.
    pub const fn is_from_store(self) -> bool {
        matches!(
            self,
            How::Hit | How::Stale | How::Revalidated | How::Collapsed
        )
    }
}

const STALE: usize = 1;
const AROUND: usize = STALE + WhyStale::ALL.len();
const NOT: usize = AROUND + WhyAround::ALL.len();
const OWN: usize = NOT + WhyNot::ALL.len();

impl Why {
    /// How many there are.
    pub const COUNT: usize = OWN + 4;

    /// Every one of them, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Why> {
        let stale = WhyStale::ALL.iter().copied().map(Why::Stale);
        let around = WhyAround::ALL.iter().copied().map(Why::Around);
        let not = WhyNot::ALL.iter().copied().map(Why::Not);
        let own = [Why::Head, Why::HitForMiss, Why::OnlyIfCached, Why::Live];
        std::iter::once(Why::Usual)
            .chain(stale)
            .chain(around)
            .chain(not)
            .chain(own)
    }

    /// Its place in a table of them.
    pub const fn number(self) -> usize {
        match self {
            Why::Usual => 0,
            Why::Stale(why) => STALE + why as usize,
            Why::Around(why) => AROUND + why as usize,
            Why::Not(why) => NOT + why as usize,
            Why::Head => OWN,
            Why::HitForMiss => OWN + 1,
            Why::OnlyIfCached => OWN + 2,
            Why::Live => OWN + 3,
        }
    }

    /// A short name, as in `Cache-Status`.
    pub const fn token(self) -> &'static str {
        match self {
            Why::Usual => "",
            Why::Stale(why) => why.token(),
            Why::Around(why) => why.token(),
            Why::Not(why) => why.token(),
            Why::Head => "head-miss",
            Why::HitForMiss => "hit-for-miss",
            Why::OnlyIfCached => "only-if-cached",
            Why::Live => "live",
        }
    }
}

impl Cached {
    /// From there, and nothing is to be said of why.
    pub const fn of(how: How) -> Cached {
        Cached {
            how,
            why: Why::Usual,
        }
    }

    /// From there for this reason.
    pub const fn because(how: How, why: Why) -> Cached {
        Cached { how, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        let numbers: Vec<usize> = Why::all().map(Why::number).collect();
        let expected: Vec<usize> = (0..Why::COUNT).collect();
        assert_eq!(numbers, expected);
        let mut tokens: Vec<&str> = Why::all().map(Why::token).collect();
        tokens.sort_unstable();
        assert!(tokens.windows(2).all(|two| two[0] != two[1]), "{tokens:?}");
        for (at, how) in How::ALL.iter().enumerate() {
            assert_eq!(*how as usize, at);
        }
    }
}
