//! Choosing by a number that is given: drawn at random, or the hash of something.
//!
//! A draw costs a binary search, whatever the number of peers: over the sums of the weights where
//! it is random, around a ring of points where it is a hash.

use crate::spec::{Balance, PeerSpec};

/// Points of a ring, about: a peer's share then is off by 3 % where there are few peers, and by some
/// more where there are very many.
const POINTS: u64 = 1 << 16;

/// The most points of a peer where there are few.
const POINTS_OF_ONE: u64 = 1024;

/// The primaries of a pool, arranged for draws.
#[derive(Debug)]
pub(crate) enum Draw {
    /// The policy draws nothing.
    None,
    /// Sums of the weights up to each peer, the peer included.
    ByWeight(Box<[(u64, u32)]>),
    /// Points in order of their place on the ring.
    Ring(Box<[(u64, u32)]>),
}

impl Draw {
    pub(crate) fn new(balance: Balance, peers: &[PeerSpec]) -> Draw {
        let primaries = || (0_u32..).zip(peers).filter(|(_, peer)| !peer.backup);
        match balance {
            Balance::Random | Balance::P2cEwma => {
                let mut sum = 0;
                let sums = primaries().map(|(number, peer)| {
                    sum += u64::from(peer.weight);
                    (sum, number)
                });
                Draw::ByWeight(sums.collect())
            }
            Balance::Hash => {
                let total: u64 = primaries().map(|(_, peer)| u64::from(peer.weight)).sum();
                let mut points = Vec::new();
                for (number, peer) in primaries() {
                    let weight = u64::from(peer.weight);
                    let count = (POINTS * weight / total.max(1)).clamp(1, POINTS_OF_ONE * weight);
                    let id = identity(peer, number);
                    points.extend((0..count).map(|point| (mix(id, point), number)));
                }
                points.sort_unstable();
                Draw::Ring(points.into())
            }
            _ => Draw::None,
        }
    }

    /// The peers that a number leads to, the first one first. Endless for the ring unless it is
    /// empty; one for the weights.
    pub(crate) fn of(&self, number: u64) -> impl Iterator<Item = usize> {
        let (list, at, round) = match self {
            Draw::None => (&[][..], 0, false),
            Draw::ByWeight(sums) => {
                let total = sums.last().map_or(0, |(sum, _)| *sum);
                // The upper half of the product is spread over 0 .. total evenly.
                let place = (u128::from(number) * u128::from(total)) >> 64;
                let at = sums.partition_point(|(sum, _)| u128::from(*sum) <= place);
                (&**sums, at, false)
            }
            Draw::Ring(points) => {
                let at = points.partition_point(|(point, _)| *point < number);
                (&**points, at, true)
            }
        };
        let (after, before) = (&list[at..], &list[..if round { at } else { 0 }]);
        let steps = after.iter().chain(before);
        steps
            .take(if round { usize::MAX } else { 1 })
            .filter_map(|(_, peer)| usize::try_from(*peer).ok())
    }
}

/// What a peer is called on the ring, wherever it stands in the list.
pub(crate) fn identity(peer: &PeerSpec, number: u32) -> u64 {
    match peer.id {
        0 => u64::from(number) + 1,
        id => id,
    }
}

/// Two numbers into one that looks like neither (the finish of SplitMix64).
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The hash of a key, or of a peer's name: the same on every machine and after every start, so that
/// several servers lead a client to the same peer.
pub fn hash_key(key: &[u8]) -> u64 {
    let (words, rest) = key.as_chunks::<8>();
    let mut state = u64::try_from(key.len()).unwrap_or(u64::MAX);
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(state, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(weights: &[u32]) -> Vec<PeerSpec> {
        let spec = |(id, weight): (u64, &u32)| PeerSpec {
            weight: *weight,
            id: hash_key(format!("10.0.0.{id}:80").as_bytes()),
            ..PeerSpec::default()
        };
        (1..).zip(weights).map(spec).collect()
    }

    fn shares(draw: &Draw, peers: usize) -> Vec<f64> {
        let mut counts = vec![0_u32; peers];
        for number in 0..100_000 {
            counts[draw.of(mix(7, number)).next().unwrap()] += 1;
        }
        counts
            .iter()
            .map(|count| f64::from(*count) / 100_000.0)
            .collect()
    }

    #[test]
    fn draws_go_by_weight() {
        for balance in [Balance::Random, Balance::Hash] {
            for weights in [&[1, 1, 1][..], &[1, 2, 5], &[10; 40]] {
                let total: u32 = weights.iter().sum();
                let draw = Draw::new(balance, &peers(weights));
                for (share, weight) in shares(&draw, weights.len()).iter().zip(weights) {
                    let expected = f64::from(*weight) / f64::from(total);
                    let off = (share / expected - 1.0).abs();
                    assert!(off < 0.12, "{balance:?} {weights:?}: {share} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_peer_that_goes_moves_only_what_was_its_own() {
        let all = peers(&[1; 10]);
        let fewer: Vec<_> = all[..9].to_vec();
        let [all, fewer] = [all, fewer].map(|peers| Draw::new(Balance::Hash, &peers));
        for number in 0..10_000 {
            let number = mix(1, number);
            let (before, after) = (all.of(number).next(), fewer.of(number).next());
            assert!(before == after || before == Some(9), "{before:?} {after:?}");
        }
    }

    #[test]
    fn the_ring_goes_round_and_leaves_out_backups() {
        let mut list = peers(&[1, 1, 1]);
        list[1].backup = true;
        let draw = Draw::new(Balance::Hash, &list);
        let mut seen: Vec<_> = draw.of(u64::MAX).collect();
        assert!(seen.len() > 1000);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 2]);
        assert!(Draw::new(Balance::Hash, &[]).of(3).next().is_none());
        assert!(Draw::new(Balance::Random, &[]).of(3).next().is_none());
        assert!(Draw::new(Balance::First, &list).of(3).next().is_none());
    }

    #[test]
    fn the_largest_pool_has_a_ring_of_bounded_size() {
        let list = peers(&[1_000; 2_000]);
        let Draw::Ring(points) = Draw::new(Balance::Hash, &list) else {
            panic!("a ring");
        };
        assert!(points.len() <= 2 << 16, "{}", points.len());
    }

    #[test]
    fn hashes_are_the_same_everywhere_and_differ() {
        assert_eq!(hash_key(b"192.0.2.7"), hash_key(b"192.0.2.7"));
        let mut seen = std::collections::HashSet::new();
        for number in 0..10_000 {
            assert!(seen.insert(hash_key(format!("client {number}").as_bytes())));
        }
        assert_ne!(hash_key(b"a"), hash_key(b"a\0"));
    }
}
