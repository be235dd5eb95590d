//! What the policies promise that draw, and `first`.

use std::time::Duration;

use forebay_balance::{
    Ask, Balance, Checked, NoPeer, Outcome, PeerSpec, Pool, PoolSpec, Tick, Tier, Tried, hash_key,
};
use proptest::prelude::*;

fn at(millis: u64) -> Tick {
    Tick::from_millis(millis)
}

fn peers(weights: &[u32]) -> Vec<PeerSpec> {
    let spec = |(number, weight): (usize, &u32)| PeerSpec {
        weight: *weight,
        id: hash_key(format!("10.0.0.{number}:80").as_bytes()),
        max_connections: 100_000,
        ..PeerSpec::default()
    };
    weights.iter().enumerate().map(spec).collect()
}

fn pool(balance: Balance, peers: Vec<PeerSpec>) -> Pool {
    let spec = PoolSpec {
        balance,
        ..PoolSpec::new(peers)
    };
    Pool::new(spec).unwrap()
}

fn ask(key: usize) -> Ask {
    Ask::new(at(0)).draw(hash_key(&key.to_le_bytes()))
}

fn pick(pool: &Pool, ask: &Ask) -> usize {
    let peer = pool.acquire(ask).unwrap().peer;
    pool.release(peer);
    peer
}

/// How many of so many keys each peer gets.
fn spread(pool: &Pool, keys: usize) -> Vec<usize> {
    let mut counts = vec![0; pool.len()];
    (0..keys).for_each(|key| counts[pick(pool, &ask(key))] += 1);
    counts
}

fn gone_if(gone: bool) -> Checked {
    if gone { Checked::Gone } else { Checked::Well }
}

#[test]
fn first_takes_the_first_that_can_be_used() {
    let mut list = peers(&[1, 9, 1]);
    list[0].max_connections = 2;
    let pool = pool(Balance::First, list);
    let picks: Vec<_> = (0..5)
        .map(|key| pool.acquire(&ask(key)).unwrap().peer)
        .collect();
    assert_eq!(picks, [0, 0, 1, 1, 1]);
    pool.set_health(1, Checked::Gone, at(0));
    assert_eq!(pool.acquire(&ask(1)).unwrap().peer, 2);
    pool.release(0);
    let mut tried = Tried::default();
    tried.add(0);
    assert_eq!(pool.acquire(&Ask::again(at(0), tried)).unwrap().peer, 2);
    assert_eq!(pool.acquire(&ask(1)).unwrap().peer, 0);
}

#[test]
fn random_goes_by_weight_among_those_that_can_be_used() {
    let pool = pool(Balance::Random, peers(&[1, 2, 5]));
    let share = |counts: &[usize], peer: usize| counts[peer] * 100 / counts.iter().sum::<usize>();
    let counts = spread(&pool, 40_000);
    let shares: Vec<_> = (0..3).map(|peer| share(&counts, peer)).collect();
    assert!(
        (11..=13).contains(&shares[0]) && (61..=63).contains(&shares[2]),
        "{shares:?}"
    );
    pool.set_health(2, Checked::Gone, at(0));
    let counts = spread(&pool, 40_000);
    assert_eq!(counts[2], 0);
    assert!((31..=35).contains(&share(&counts, 0)), "{counts:?}");
}

#[test]
fn p2c_leaves_the_slow_and_the_busy() {
    let pool = pool(Balance::P2cEwma, peers(&[1; 4]));
    assert!(
        spread(&pool, 10_000).iter().all(|count| *count > 2_000),
        "nothing is known yet"
    );
    for peer in 0..4 {
        let took = if peer == 2 { 50 } else { 1 };
        pool.report_time(peer, Duration::from_millis(took), at(0));
    }
    // It is chosen only when both draws have it.
    let counts = spread(&pool, 10_000);
    assert!(counts[2] < 100, "{counts:?}");
    // One that answers as fast and has much to do gets less.
    let mut held = 0;
    while held < 50 {
        let chosen = pool.acquire(&ask(1_000_000 + held)).unwrap().peer;
        if chosen != 0 {
            pool.release(chosen);
        }
        held += 1;
    }
    let busy = pool.view(0, at(0)).in_flight;
    assert!(busy > 0);
    let counts = spread(&pool, 10_000);
    assert!(
        counts[0] < counts[1] / 2,
        "{counts:?} with {busy} in flight"
    );
    // Long after, the slow one is tried again.
    let later = |key: usize| Ask::new(at(200_000)).draw(hash_key(&key.to_le_bytes()));
    assert!(
        (0..10_000)
            .filter(|key| pick(&pool, &later(*key)) == 2)
            .count()
            > 1_000
    );
}

#[test]
fn a_key_keeps_its_peer_and_others_do_not_move_when_one_goes() {
    let list = peers(&[1, 1, 2, 1]);
    let pool = pool(Balance::Hash, list.clone());
    let before: Vec<_> = (0..5_000).map(|key| pick(&pool, &ask(key))).collect();
    let again: Vec<_> = (0..5_000).map(|key| pick(&pool, &ask(key))).collect();
    assert_eq!(before, again);
    pool.set_health(1, Checked::Gone, at(0));
    let mut moved_to = [0; 4];
    for (key, was) in before.iter().enumerate() {
        let now = pick(&pool, &ask(key));
        assert!(now == *was || *was == 1, "{key} moved from {was} to {now}");
        if *was == 1 {
            moved_to[now] += 1;
        }
    }
    assert!(moved_to[1] == 0 && moved_to.iter().filter(|count| **count > 50).count() == 3);
    pool.set_health(1, Checked::Well, at(0));
    // The order in which they are written makes no difference.
    let turned = [&list[2..], &list[..2]].concat();
    let turned = self::pool(Balance::Hash, turned);
    for (key, was) in before.iter().enumerate() {
        assert_eq!((pick(&turned, &ask(key)) + 2) % 4, *was);
    }
}

#[test]
fn slow_start_holds_for_draws_too() {
    for balance in [Balance::Random, Balance::P2cEwma] {
        let spec = PoolSpec {
            balance,
            slow_start: Duration::from_secs(10),
            ..PoolSpec::new(peers(&[1, 1]))
        };
        let pool = Pool::new(spec).unwrap();
        pool.set_health(0, Checked::Gone, at(0));
        pool.set_health(0, Checked::Well, at(0));
        let share = |time: u64| {
            let ask = |key: usize| Ask::new(at(time)).draw(hash_key(&key.to_le_bytes()));
            (0..10_000)
                .filter(|key| pick(&pool, &ask(*key)) == 0)
                .count()
        };
        let (early, half, whole) = (share(1_000), share(5_000), share(10_000));
        assert!(
            early < half && half < whole,
            "{balance:?}: {early} {half} {whole}"
        );
        assert!((4_700..5_300).contains(&whole), "{balance:?}: {whole}");
    }
}

proptest! {
    /// Whatever is down, ejected, full or tried: a choice is made exactly where one can be made,
    /// among those of the best tier.
    #[test]
    fn a_peer_is_found_wherever_there_is_one(
        states in proptest::collection::vec((any::<bool>(), 0_u8..5), 1..12),
        draw in any::<u64>(),
    ) {
        for balance in Balance::ALL {
            let list = states.iter().enumerate().map(|(number, (backup, state))| PeerSpec {
                backup: *backup,
                max_connections: if *state == 2 { 1 } else { 9 },
                id: hash_key(&number.to_le_bytes()),
                ..PeerSpec::default()
            });
            let pool = pool(balance, list.collect());
            let mut tried = Tried::default();
            let mut room = 5;
            let (mut usable, mut full) = (vec![], vec![]);
            for (number, (backup, state)) in states.iter().enumerate() {
                let tier = if *backup { Tier::Backup } else { Tier::Primary };
                match state {
                    1 => _ = pool.set_health(number, Checked::Gone, at(0)),
                    // Taken by hand: the others are down meanwhile.
                    2 => {
                        (0..states.len()).for_each(|other| {
                            pool.set_health(other, gone_if(other != number), at(0));
                        });
                        pool.acquire(&Ask::new(at(0)).draw(draw)).unwrap();
                        full.push(tier);
                    }
                    3 if room > 0 => {
                        tried.add(number);
                        room -= 1;
                    }
                    _ => usable.push((number, tier)),
                }
            }
            for (number, (_, state)) in states.iter().enumerate() {
                pool.set_health(number, gone_if(*state == 1), at(0));
            }
            let chosen = pool.acquire(&Ask::again(at(0), tried).draw(draw));
            let has = |wanted: Tier| usable.iter().any(|(_, tier)| *tier == wanted);
            match chosen {
                Ok(chosen) => {
                    prop_assert!(usable.contains(&(chosen.peer, chosen.tier)), "{balance:?}");
                    prop_assert!(chosen.tier == Tier::Primary || !has(Tier::Primary));
                }
                Err(NoPeer::Full) => {
                    prop_assert!(!full.is_empty() && !has(Tier::Primary), "{balance:?}");
                }
                Err(_) => prop_assert!(usable.is_empty() && full.is_empty(), "{balance:?}"),
            }
            pool.check_invariants();
        }
    }
}

#[test]
fn failures_eject_whatever_the_policy() {
    for balance in Balance::ALL {
        let pool = pool(balance, peers(&[1, 1, 1]));
        let key = ask(7);
        let bad = pick(&pool, &key);
        (0..5).for_each(|_| _ = pool.report(bad, Outcome::Failure, at(0)));
        assert!(
            (0..100).all(|key| pick(&pool, &ask(key)) != bad),
            "{balance:?}"
        );
        let later = Ask::new(at(10_000)).draw(key.draw);
        if balance == Balance::Hash {
            assert_eq!(pick(&pool, &later), bad, "it is back with its keys");
        }
    }
}
