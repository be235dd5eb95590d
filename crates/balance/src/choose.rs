//! Choosing a peer of a pool.
//!
//! # The order in which peers are used
//!
//! 1. primaries that are well: neither ejected nor down. Where fewer than half of them are, those
//!    that are not well have to help, so that the few are not put out by the load of all;
//! 2. backups that are well, if there is no primary that is;
//! 3. peers that are not well, if there is none of the former either: an ejection is a guess from
//!    failures, and a failed check may come of too much to do; with nobody left a wrong guess would
//!    turn a bad moment into an outage.
//!
//! Peers of which health checks find nobody are never used, nor are those that an operator has taken
//! out.
//!
//! A peer that is full still counts as being there: its requests wait, they do not flow over to
//! the backups. A peer that the request has tried does not.
//!
//! # How one of several is chosen
//!
//! Every peer has a *turn*, a point in virtual time that moves on by 1/weight when the peer is
//! chosen (stride scheduling). `round_robin` takes the peer with the earliest turn, so over a
//! cycle each gets exactly its weight, as evenly spread as can be, and it stays so while peers
//! come, go, fill up and are skipped. `least_requests` takes the peer with the fewest requests in
//! flight for its weight, and among equals the one with the earliest turn, so idle peers are used
//! in rotation and not the first one always. A peer that was left out for long does not get a
//! burst when it is back: turns that lie behind the pool's clock count as being at it.
//!
//! `first` takes the first in the order of the configuration. `random`, `p2c_ewma` and `hash` draw
//! (see `draw.rs`); where a draw leads to a peer that cannot be used, and so do a few more, one pass over
//! all decides by a number that each peer makes of the draw, so that a key has its place then, too.
//!
//! The first two are one pass over a dense array, 32 bytes for each peer: there is nothing to keep in
//! order when the counts change under it, as a heap would have to, under a lock. A large pool is cut
//! into groups that remember which of their members is the best (see `groups.rs`), so that only
//! those are passed over in which something has happened since.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::draw::{identity, mix};
use crate::groups::{GROUP, Group, Recall};
use crate::peer::{BACKUP, DOWN, DRAINED, EJECTED, GONE, Hot, OFF, WARMING};
use crate::pool::Pool;
use crate::spec::Balance;
use crate::units::Tick;

/// What a choice depends on besides the pool.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Ask {
    /// The present.
    pub now: Tick,
    /// Peers that this request has been to.
    pub tried: Tried,
    /// For the policies that draw: a random number, or the [`hash_key`](crate::hash_key) of the
    /// request's key.
    pub draw: u64,
}

impl Ask {
    /// For a request that is sent for the first time.
    pub fn new(now: Tick) -> Ask {
        Ask {
            now,
            tried: Tried::default(),
            draw: 0,
        }
    }

    /// For one that is tried again.
    pub fn again(now: Tick, tried: Tried) -> Ask {
        Ask {
            now,
            tried,
            draw: 0,
        }
    }

    /// With the number that a policy needs which draws.
    #[must_use]
    pub fn draw(mut self, draw: u64) -> Ask {
        self.draw = draw;
        self
    }
}

/// The peers that a request has been to. Has room for the first try and every retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Peer numbers plus one.
    peers: [u32; 6],
}

impl Tried {
    /// Adds a peer. When there is no room left, the oldest is forgotten.
    pub fn add(&mut self, peer: usize) {
        let number = u32::try_from(peer + 1).unwrap_or(u32::MAX);
        self.peers.rotate_right(1);
        self.peers[0] = number;
    }

    /// Whether a peer was added.
    #[inline(never)]
    pub fn contains(&self, peer: usize) -> bool {
        self.peers
            .iter()
            .any(|&number| u32::try_from(peer + 1) == Ok(number))
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.peers[0] == 0
    }
}

/// Which of the orders in the module's docs a peer was chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// A primary.
    Primary,
    /// A backup: no primary could be used.
    Backup,
    /// A peer that is not well: too few are, or none.
    Panic,
}

/// A peer that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its number.
    pub peer: usize,
    /// From which tier.
    pub tier: Tier,
}

/// Why no peer was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoPeer {
    /// All that could be used have `max_connections` requests in flight: wait, or 503.
    Full,
    /// The request has been to all that could be used.
    AllTried,
    /// All are down.
    AllDown,
}

impl NoPeer {
    /// A short constant name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            NoPeer::Full => "pool_full",
            NoPeer::AllTried => "all_tried",
            NoPeer::AllDown => "all_down",
        }
    }

    /// The sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            NoPeer::Full => "all peers have as many requests as `max_connections` allows",
            NoPeer::AllTried => "the request has been to all peers that can be used",
            NoPeer::AllDown => "all peers are down",
        }
    }
}

impl fmt::Display for NoPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// The result of a pass over the peers of one tier.
struct Pass {
    best: Option<Best>,
    saw_full: bool,
    saw_tried: bool,
    /// One that warms up was among them: what is best depends on the time, too.
    saw_warming: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Best {
    peer: usize,
    /// Its turn as it was seen.
    turn: u64,
    /// The lower, the better.
    rank: u128,
}

impl Pool {
    /// Looks through the tiers.
    pub(crate) fn look(&self, ask: &Ask) -> Result<(Chosen, Best), NoPeer> {
        self.settle_flags(ask.now);
        // Where none is well at all, backups come before those that are not.
        let have_help = self.is_panicking() && self.well.load(Relaxed) > 0;
        let usable = if have_help { OUT | BACKUP } else { PRIMARY };
        if let Some(peer) = self.drawn(ask, usable) {
            let tier = self.tier_of(peer);
            return Ok((Chosen { peer, tier }, Best::of(peer, 0)));
        }
        if !have_help && let Some(best) = self.best_of_groups(ask) {
            let (peer, tier) = (best.peer, Tier::Primary);
            return Ok((Chosen { peer, tier }, best));
        }
        let warming = self.warming.load(Relaxed) != 0;
        let pass = match (self.spec.balance, warming) {
            (Balance::LeastRequests, false) => Self::pass::<BY_LOAD, false>,
            (Balance::LeastRequests, true) => Self::pass::<BY_LOAD, true>,
            (Balance::RoundRobin, false) => Self::pass::<BY_TURN, false>,
            (Balance::RoundRobin, true) => Self::pass::<BY_TURN, true>,
            (Balance::First, _) => Self::pass::<BY_PLACE, false>,
            (Balance::Score, false) if self.scores.any(ask.now) => Self::pass::<BY_SCORE, false>,
            (Balance::Score, true) if self.scores.any(ask.now) => Self::pass::<BY_SCORE, true>,
            (Balance::Score, false) => Self::pass::<BY_TURN, false>,
            (Balance::Score, true) => Self::pass::<BY_TURN, true>,
            (Balance::Random | Balance::P2cEwma | Balance::Hash, _) => Self::pass::<BY_DRAW, false>,
        };
        let mut saw_tried = false;
        for (tier, mask, wanted) in [
            (Tier::Primary, usable, 0),
            (Tier::Backup, PRIMARY, BACKUP),
            (Tier::Panic, OUT, 0),
        ] {
            // Somebody who is well was there, so this is no time to panic.
            if tier == Tier::Panic && saw_tried {
                break;
            }
            let pass = pass(self, &self.hot, mask, wanted, ask);
            if let Some(best) = pass.best {
                let (peer, tier) = (best.peer, self.tier_of(best.peer));
                return Ok((Chosen { peer, tier }, best));
            }
            if pass.saw_full {
                return Err(NoPeer::Full);
            }
            saw_tried |= pass.saw_tried;
        }
        Err(if saw_tried {
            NoPeer::AllTried
        } else {
            NoPeer::AllDown
        })
    }

    fn tier_of(&self, peer: usize) -> Tier {
        match self.hot[peer].flags.load(Relaxed) {
            flags if flags & (DOWN | EJECTED) != 0 => Tier::Panic,
            flags if flags & BACKUP != 0 => Tier::Backup,
            _ => Tier::Primary,
        }
    }

    /// The best peer among those whose flags, as far as `mask` goes, are `wanted`: the one with
    /// the least load, and among equals the one whose turn is the least ahead of the clock.
    ///
    /// Nothing is called in the loop and few things are kept over it, so that all of them stay in
    /// registers; and the comparison is of one number, without a short circuit: equal loads come
    /// at random, and a branch that is guessed wrong costs more than all the rest. With both it
    /// takes half the time for 1,000 peers.
    #[inline(never)]
    fn pass<const BY: u8, const WARMING: bool>(
        &self,
        peers: &[Hot],
        mask: u32,
        wanted: u32,
        ask: &Ask,
    ) -> Pass {
        let (mut saw_full, mut saw_tried, mut saw_warming) = (false, false, false);
        let (mut best, mut best_turn, mut least) = (None, 0, u128::MAX);
        let clock = self.clock.load(Relaxed);
        for hot in peers {
            let flags = hot.flags.load(Relaxed);
            if flags & mask != wanted {
                continue;
            }
            let used = hot.permits.used();
            if used >= hot.permits.limit() {
                saw_full = true;
                continue;
            }
            let stride = if WARMING {
                saw_warming |= flags & self::WARMING != 0;
                self.stride(hot, flags, ask.now)
            } else {
                hot.stride
            };
            // A stride is one by weight, so this compares requests by weight, without a division.
            let turn = hot.turn.load(Relaxed);
            let rank = match BY {
                BY_LOAD => u128::from(u64::from(used) * stride) << 64,
                // Of those that nothing leads to directly, each request still has its own.
                BY_SCORE => {
                    let points = self.scores.points(hot.number(), used, ask.now);
                    u128::from(points.saturating_mul(stride)) << 64
                }
                BY_DRAW => u128::from(mix(self.identity(hot), ask.draw)) + 1,
                // The first one there is.
                _ => 0,
            };
            let rank = match BY {
                BY_LOAD | BY_TURN | BY_SCORE => rank | u128::from(ahead_of(clock, turn)),
                _ => rank,
            };
            if rank >= least {
                continue;
            }
            if !ask.tried.is_empty() && ask.tried.contains(hot.number()) {
                saw_tried = true;
                continue;
            }
            (best, best_turn, least) = (Some(hot), turn, rank);
            if rank == 0 {
                // There can be none better.
                break;
            }
        }
        let best = best.map(|hot| Best {
            peer: hot.number(),
            turn: best_turn,
            rank: least,
        });
        Pass {
            best,
            saw_full,
            saw_tried,
            saw_warming,
        }
    }

    /// The best primary of a large pool, if its policy is one of ranks and there is one.
    fn best_of_groups(&self, ask: &Ask) -> Option<Best> {
        if self.groups.is_empty() {
            return None;
        }
        match self.spec.balance {
            Balance::LeastRequests => self.best_by::<BY_LOAD>(ask),
            Balance::RoundRobin => self.best_by::<BY_TURN>(ask),
            Balance::Score if self.scores.any(ask.now) => self.best_by::<BY_SCORE>(ask),
            _ => None,
        }
    }

    fn best_by<const BY: u8>(&self, ask: &Ask) -> Option<Best> {
        let clock = self.clock.load(Relaxed);
        let mut best: Option<Best> = None;
        for (group, peers) in self.groups.iter().zip(self.hot.chunks(GROUP)) {
            let own = match group.recall() {
                Recall::Nobody => continue,
                Recall::Member(at) => self.rank_now::<BY>(&peers[at], clock, ask),
                Recall::Unknown => None,
            };
            let Some(own) = own.or_else(|| self.best_of_group::<BY>(group, peers, ask)) else {
                continue;
            };
            if best.is_none_or(|best| own.rank < best.rank) {
                best = Some(own);
                if own.rank == 0 {
                    break;
                }
            }
        }
        best
    }

    /// What a group remembers, as it is now; nothing if it is not what it was, because another
    /// worker is about to change it.
    fn rank_now<const BY: u8>(&self, hot: &Hot, clock: u64, ask: &Ask) -> Option<Best> {
        let flags = hot.flags.load(Relaxed);
        let (used, turn) = (hot.permits.used(), hot.turn.load(Relaxed));
        let is_tried = !ask.tried.is_empty() && ask.tried.contains(hot.number());
        if flags & (PRIMARY | WARMING) != 0 || used >= hot.permits.limit() || is_tried {
            return None;
        }
        let load = match BY {
            BY_LOAD => u128::from(u64::from(used) * hot.stride) << 64,
            BY_SCORE => {
                let points = self.scores.points(hot.number(), used, ask.now);
                u128::from(points.saturating_mul(hot.stride)) << 64
            }
            _ => 0,
        };
        Some(Best {
            peer: hot.number(),
            turn,
            rank: load | u128::from(ahead_of(clock, turn)),
        })
    }

    /// Looks at all of a group, and has it remember who is the best.
    fn best_of_group<const BY: u8>(&self, group: &Group, peers: &[Hot], ask: &Ask) -> Option<Best> {
        let version = group.version();
        let pass = if self.warming.load(Relaxed) == 0 {
            self.pass::<BY, false>(peers, PRIMARY, 0, ask)
        } else {
            self.pass::<BY, true>(peers, PRIMARY, 0, ask)
        };
        // Whom this request has been to says nothing of others.
        if !pass.saw_tried && !pass.saw_warming {
            let member = pass.best.map(|best| best.peer % GROUP);
            group.remember(version, member);
        }
        pass.best
    }

    /// The peer that a draw leads to, if the policy draws and that peer can be used: it has none of
    /// the flags `out`. Else the pass over all decides.
    fn drawn(&self, ask: &Ask, out: u32) -> Option<usize> {
        match self.spec.balance {
            Balance::Hash => {
                let mut peers = self.draw.of(ask.draw).take(DRAWS);
                peers.find(|&peer| self.can_be_drawn(peer, ask, 0, out))
            }
            Balance::Random => self.draws(ask, out).next(),
            Balance::P2cEwma => {
                let mut draws = self.draws(ask, out);
                let first = draws.next()?;
                let second = draws.find(|&peer| peer != first).unwrap_or(first);
                let cost = |peer: usize| {
                    let used = f64::from(self.hot[peer].permits.used());
                    f64::from(self.cold[peer].ewma.at(ask.now) + 1.0) * (used + 1.0)
                };
                Some(if cost(second) < cost(first) {
                    second
                } else {
                    first
                })
            }
            _ => None,
        }
    }

    /// Usable primaries at random, by weight.
    fn draws(&self, ask: &Ask, out: u32) -> impl Iterator<Item = usize> {
        (0..)
            .zip(0..DRAWS)
            .filter_map(move |(number, _)| {
                let drawn = mix(ask.draw, number);
                Some((drawn, self.draw.of(drawn).next()?))
            })
            .filter(move |&(drawn, peer)| self.can_be_drawn(peer, ask, drawn, out))
            .map(|(_, peer)| peer)
    }

    /// Whether a draw may lead to this primary. One that warms up is passed over as often as its
    /// share is short of the full one; a hash (`drawn` 0) spares it nothing, since its keys are its.
    fn can_be_drawn(&self, peer: usize, ask: &Ask, drawn: u64, out: u32) -> bool {
        let hot = &self.hot[peer];
        let flags = hot.flags.load(Relaxed);
        if flags & out != 0 || hot.permits.is_full() || ask.tried.contains(peer) {
            return false;
        }
        if flags & WARMING == 0 || drawn == 0 {
            return true;
        }
        // Its stride is as much longer as its share is shorter.
        let longer = u128::from(self.stride(hot, flags, ask.now));
        u128::from(mix(drawn, 1)) * longer < u128::from(hot.stride) << 64
    }

    fn identity(&self, hot: &Hot) -> u64 {
        let number = hot.number();
        identity(
            &self.spec.peers[number],
            u32::try_from(number).unwrap_or(u32::MAX),
        )
    }

    /// Moves the turn of the chosen peer on. False if another worker has done so meanwhile.
    pub(crate) fn take_turn(&self, best: &Best, now: Tick) -> bool {
        // With one peer there are no turns, and nothing that workers would have to share; and some
        // policies have none.
        let has_turns = matches!(
            self.spec.balance,
            Balance::LeastRequests | Balance::RoundRobin | Balance::Score
        );
        if self.hot.len() == 1 || !has_turns {
            return true;
        }
        let hot = &self.hot[best.peer];
        let clock = self.clock.load(Relaxed);
        let start = if ahead_of(clock, best.turn) == 0 {
            clock
        } else {
            best.turn
        };
        let next = start.wrapping_add(self.stride(hot, hot.flags.load(Relaxed), now));
        if hot
            .turn
            .compare_exchange(best.turn, next, Relaxed, Relaxed)
            .is_err()
        {
            return false;
        }
        // Two workers may set this in either order. The clock then is behind by one stride, which
        // at worst gives a peer that was away one turn more.
        self.clock.store(start, Relaxed);
        true
    }

    /// How far a choice moves the turn of a peer on; further while it warms up.
    fn stride(&self, hot: &Hot, flags: u32, now: Tick) -> u64 {
        let full = hot.stride;
        if flags & WARMING == 0 {
            return full;
        }
        let since = Tick::from_millis(self.cold[hot.number()].warm_since.load(Relaxed));
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let (whole, elapsed) = (millis(self.spec.slow_start), millis(now.since(since)));
        let longer = u128::from(full) * u128::from(whole) / u128::from(elapsed.min(whole));
        // Never more than ten times: of no requests at all nothing would be learned.
        u64::try_from(longer).unwrap_or(u64::MAX).min(full * 10)
    }
}

impl Best {
    /// One that is not the best of any others.
    pub(crate) fn of(peer: usize, turn: u64) -> Best {
        let rank = 0;
        Best { peer, turn, rank }
    }
}

/// The flags that a primary does not have which can be used.
const PRIMARY: u32 = DOWN | EJECTED | BACKUP | DRAINED | OFF;

/// Those that no peer has which is used when too few are well.
const OUT: u32 = GONE | DRAINED | OFF;

/// How many times a policy draws before all peers are looked at.
const DRAWS: usize = 16;

/// What a pass goes by.
const BY_TURN: u8 = 0;
const BY_LOAD: u8 = 1;
const BY_PLACE: u8 = 2;
const BY_DRAW: u8 = 3;
/// By what they report.
const BY_SCORE: u8 = 9;

/// How far a turn lies ahead of the clock: not at all if it is behind. The two wrap around; a turn
/// is ahead by a few strides at most, so what looks further ahead is behind.
fn ahead_of(clock: u64, turn: u64) -> u64 {
    match turn.wrapping_sub(clock) {
        ahead if ahead < 1 << 60 => ahead,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{PeerSpec, PoolSpec};
    use crate::state::{Checked, Duty, Outcome};

    /// Numbers that look random, the same each time.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(1);
            let number = mix(0x5eed, self.0) % u64::try_from(end).unwrap();
            usize::try_from(number).unwrap()
        }
    }

    fn specs(numbers: &mut Numbers, peers: usize) -> Vec<PeerSpec> {
        let mut weight = || [1, 1, 1, 2, 5][numbers.below(5)];
        let spec = |at: usize| PeerSpec {
            weight: weight(),
            backup: at % 50 == 49,
            max_connections: 1 + u32::try_from(at % 7).unwrap(),
            ..PeerSpec::default()
        };
        (0..peers).map(spec).collect()
    }

    /// What happens to a pool between two choices.
    fn something(pool: &Pool, numbers: &mut Numbers, held: &mut Vec<usize>, now: Tick) {
        let peer = numbers.below(pool.len());
        match numbers.below(12) {
            0 => _ = pool.set_health(peer, Checked::Gone, now),
            1 => _ = pool.set_health(peer, Checked::Well, now),
            2 => {
                let duty = [Duty::Serve, Duty::Serve, Duty::Drain, Duty::Rest];
                pool.set_duty(peer, duty[numbers.below(4)], now);
            }
            3 => (0..5).for_each(|_| _ = pool.report(peer, Outcome::Failure, now)),
            4..=7 if !held.is_empty() => {
                let peer = held.swap_remove(numbers.below(held.len()));
                pool.release(peer);
            }
            _ => {}
        }
    }

    /// Nothing that groups remember makes another choice than a look at all peers does.
    #[test]
    fn groups_choose_what_a_look_at_all_peers_chooses() {
        for balance in [Balance::LeastRequests, Balance::RoundRobin] {
            for slow_start in [Duration::ZERO, Duration::from_millis(500)] {
                let mut numbers = Numbers(0);
                let spec = PoolSpec {
                    balance,
                    slow_start,
                    ..PoolSpec::new(specs(&mut numbers, 300))
                };
                let pool = Pool::new(spec.clone()).unwrap();
                assert!(!pool.groups.is_empty());
                let (mut held, mut chosen) = (Vec::new(), 0);
                for step in 0..20_000 {
                    let now = Tick::from_millis(step * 3);
                    let mut tried = Tried::default();
                    if numbers.below(4) == 0 {
                        (0..numbers.below(4)).for_each(|_| tried.add(numbers.below(pool.len())));
                    }
                    let ask = Ask::again(now, tried);
                    pool.settle_flags(now);
                    let (mask, peers) = (PRIMARY, &pool.hot);
                    let all = match balance {
                        Balance::RoundRobin => pool.pass::<BY_TURN, true>(peers, mask, 0, &ask),
                        _ => pool.pass::<BY_LOAD, true>(peers, mask, 0, &ask),
                    };
                    // Who tried the best comes next in the groups as well.
                    let own = pool.best_of_groups(&ask).map(|best| best.rank);
                    assert_eq!(own, all.best.map(|best| best.rank), "{balance:?} at {step}");
                    if let Ok(taken) = pool.acquire(&ask) {
                        held.push(taken.peer);
                        chosen += 1;
                    }
                    something(&pool, &mut numbers, &mut held, now);
                    pool.check_invariants();
                }
                assert!(chosen > 5_000, "{chosen} chosen of {balance:?}");
            }
        }
    }

    #[test]
    fn small_pools_have_no_groups() {
        let spec = PoolSpec::new(vec![PeerSpec::default(); 100]);
        assert!(Pool::new(spec).unwrap().groups.is_empty());
    }
}
