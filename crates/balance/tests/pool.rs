//! What a pool promises, over many choices.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_balance::{
    Ask, Balance, Checked, Duty, Eject, Ejection, NoPeer, Outcome, PeerSpec, PeerState, Pool,
    PoolError, PoolSpec, Pushed, Share, Tick, Tier, Tried, WaitQueue,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// The policies by which each peer gets exactly its weight.
const IN_TURN: [Balance; 2] = [Balance::LeastRequests, Balance::RoundRobin];

fn at(millis: u64) -> Tick {
    Tick::from_millis(millis)
}

fn now() -> Ask {
    Ask::new(at(0))
}

fn weighted(balance: Balance, weights: &[u32]) -> PoolSpec {
    let peers = weights
        .iter()
        .map(|&weight| PeerSpec {
            weight,
            ..PeerSpec::default()
        })
        .collect();
    PoolSpec {
        balance,
        ..PoolSpec::new(peers)
    }
}

fn pool(balance: Balance, weights: &[u32]) -> Pool {
    Pool::new(weighted(balance, weights)).unwrap()
}

/// Takes `count` turns, each given back at once, and counts them by peer.
fn spread(pool: &Pool, count: usize, ask: &Ask) -> Vec<u32> {
    let mut picks = vec![0; pool.len()];
    for _ in 0..count {
        let peer = pool.acquire(ask).unwrap().peer;
        pool.release(peer);
        picks[peer] += 1;
    }
    picks
}

/// Ejects a peer by failures, in a pool with the default of 5.
fn fail(pool: &Pool, peer: usize, now: Tick) -> Option<Ejection> {
    (0..5)
        .map(|_| pool.report(peer, Outcome::Failure, now))
        .last()
        .unwrap()
}

fn gone_if(gone: bool) -> Checked {
    if gone { Checked::Gone } else { Checked::Well }
}

#[test]
fn weights_are_exact_over_every_cycle() {
    for balance in IN_TURN {
        for weights in [
            &[1, 1, 1][..],
            &[5, 1, 1],
            &[3, 2],
            &[1, 7, 100, 999, 1000],
            &[4, 6, 10],
        ] {
            let cycle: u32 = weights.iter().sum();
            let pool = pool(balance, weights);
            for round in 0..50 {
                let picks = spread(&pool, usize::try_from(cycle).unwrap(), &now());
                assert_eq!(picks, weights, "{balance:?}, round {round}");
            }
        }
    }
}

#[test]
fn weights_are_spread_within_a_cycle() {
    for balance in IN_TURN {
        let pool = pool(balance, &[5, 1, 1]);
        let picks: Vec<_> = (0..14)
            .map(|_| {
                let peer = pool.acquire(&now()).unwrap().peer;
                pool.release(peer);
                peer
            })
            .collect();
        // The heavy one never gets more than its five of seven in a row, and the light ones
        // never stand more than a cycle apart.
        for light in [1, 2] {
            let places: Vec<_> = (0..14).filter(|&place| picks[place] == light).collect();
            assert_eq!(places.len(), 2, "{picks:?}");
            assert!(places[1] - places[0] <= 8, "{picks:?}");
        }
    }
}

#[test]
fn least_requests_follows_what_is_in_flight() {
    let pool = pool(Balance::LeastRequests, &[1, 1, 1]);
    let first: Vec<_> = (0..3).map(|_| pool.acquire(&now()).unwrap().peer).collect();
    assert_eq!(
        {
            let mut sorted = first.clone();
            sorted.sort_unstable();
            sorted
        },
        [0, 1, 2]
    );
    pool.release(1);
    assert_eq!(pool.acquire(&now()).unwrap().peer, 1);
    pool.release(0);
    pool.release(0_usize.wrapping_sub(1));
    assert_eq!(pool.acquire(&now()).unwrap().peer, 0);
}

#[test]
fn least_requests_in_flight_is_by_weight() {
    let pool = pool(Balance::LeastRequests, &[1, 2, 5]);
    for _ in 0..80 {
        pool.acquire(&now()).unwrap();
    }
    let in_flight: Vec<_> = (0..3)
        .map(|peer| pool.view(peer, at(0)).in_flight)
        .collect();
    assert_eq!(in_flight, [10, 20, 50]);
}

#[test]
fn a_slow_peer_gets_less_by_least_requests() {
    // Peer 0 keeps each request ten times as long as peer 1.
    let pool = pool(Balance::LeastRequests, &[1, 1]);
    let mut running: Vec<(u32, usize)> = Vec::new();
    let mut picks = [0_u32; 2];
    for time in 0..10_000 {
        running.retain(|&(until, peer)| {
            until > time || {
                pool.release(peer);
                false
            }
        });
        let peer = pool.acquire(&now()).unwrap().peer;
        picks[peer] += 1;
        running.push((time + if peer == 0 { 100 } else { 10 }, peer));
    }
    assert!(picks[1] > 8 * picks[0] && picks[0] > 500, "{picks:?}");
}

#[test]
fn neighbours_of_an_unusable_peer_get_no_more_than_others() {
    for balance in IN_TURN {
        let pool = pool(balance, &[1; 6]);
        pool.set_health(1, Checked::Gone, at(0));
        pool.set_health(2, Checked::Gone, at(0));
        assert_eq!(
            spread(&pool, 400, &now()),
            [100, 0, 0, 100, 100, 100],
            "{balance:?}"
        );
        pool.set_health(2, Checked::Well, at(0));
        // Back without a burst: its turns of the time it was away are gone, but for one.
        let picks = spread(&pool, 500, &now());
        assert!(
            picks[1] == 0 && (100..=101).contains(&picks[2]),
            "{balance:?}: {picks:?}"
        );
        assert_eq!(
            spread(&pool, 500, &now()),
            [100, 0, 100, 100, 100, 100],
            "{balance:?}"
        );
    }
}

#[test]
fn a_peer_that_was_away_for_long_is_not_starved() {
    let pool = pool(Balance::RoundRobin, &[1000, 1]);
    pool.set_health(1, Checked::Gone, at(0));
    spread(&pool, 100_000, &now());
    pool.set_health(1, Checked::Well, at(0));
    assert_eq!(spread(&pool, 1_001, &now()), [1000, 1]);
}

#[test]
fn backups_are_used_only_when_no_primary_can_be() {
    let mut spec = weighted(Balance::RoundRobin, &[1, 1, 1]);
    spec.peers[1].backup = true;
    spec.peers[0].max_connections = 1;
    spec.peers[2].max_connections = 1;
    let pool = Pool::new(spec).unwrap();
    assert_eq!(spread(&pool, 10, &now()), [5, 0, 5]);
    // Full is not gone: the requests wait.
    let held = [pool.acquire(&now()).unwrap(), pool.acquire(&now()).unwrap()];
    assert!(held.iter().all(|chosen| chosen.tier == Tier::Primary));
    assert_eq!(pool.acquire(&now()), Err(NoPeer::Full));
    assert!(pool.release(0) && pool.release(2), "both were full");
    assert!(pool.set_health(0, Checked::Gone, at(0)) && !pool.set_health(0, Checked::Gone, at(0)));
    assert_eq!(spread(&pool, 10, &now()), [0, 0, 10]);
    pool.set_health(2, Checked::Gone, at(0));
    let chosen = pool.choose(&now()).unwrap();
    assert_eq!((chosen.peer, chosen.tier), (1, Tier::Backup));
    assert_eq!(spread(&pool, 10, &now()), [0, 10, 0]);
    pool.set_health(1, Checked::Gone, at(0));
    assert_eq!(pool.acquire(&now()), Err(NoPeer::AllDown));
    assert!(pool.set_health(2, Checked::Well, at(0)) && !pool.set_health(2, Checked::Well, at(0)));
    assert_eq!(spread(&pool, 10, &now()), [0, 0, 10]);
}

#[test]
fn a_retry_goes_to_another_peer() {
    for balance in Balance::ALL {
        let mut spec = weighted(balance, &[9, 1, 1, 1]);
        spec.peers[3].backup = true;
        let pool = Pool::new(spec).unwrap();
        let mut tried = Tried::default();
        assert!(tried.is_empty());
        let mut order = Vec::new();
        while let Ok(chosen) = pool.acquire(&Ask::again(at(0), tried)) {
            assert!(!tried.contains(chosen.peer));
            tried.add(chosen.peer);
            order.push(chosen.peer);
            pool.release(chosen.peer);
        }
        assert_eq!(order.last(), Some(&3), "the backup comes last: {order:?}");
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(
            pool.acquire(&Ask::again(at(0), tried)),
            Err(NoPeer::AllTried)
        );
        assert!(pool.acquire(&now()).is_ok());
    }
}

#[test]
fn more_tries_than_are_remembered_forget_the_oldest() {
    let mut tried = Tried::default();
    (0..7).for_each(|peer| tried.add(peer));
    let known: Vec<_> = (0..8).filter(|&peer| tried.contains(peer)).collect();
    assert_eq!(known, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn five_failures_in_a_row_eject_for_ten_seconds() {
    let pool = pool(Balance::RoundRobin, &[1, 1]);
    for _ in 0..3 {
        for _ in 0..4 {
            assert_eq!(pool.report(0, Outcome::Failure, at(100)), None);
        }
        assert_eq!(pool.view(0, at(100)).errors, 4);
        assert_eq!(pool.report(0, Outcome::Success, at(100)), None);
    }
    let until = at(10_100);
    assert_eq!(fail(&pool, 0, at(100)), Some(Ejection::Ejected { until }));
    pool.check_invariants();
    assert_eq!(pool.view(0, at(10_099)).state, PeerState::Ejected);
    assert_eq!(spread(&pool, 10, &Ask::new(at(10_099))), [0, 10]);
    // Those that were under way when it was ejected do not make it longer.
    assert_eq!(fail(&pool, 0, at(10_099)), None);
    assert_eq!(
        pool.acquire(&Ask::new(until)).unwrap().peer,
        0,
        "it is at its turn at once"
    );
    assert_eq!(spread(&pool, 10, &Ask::new(until)), [5, 5]);
    assert_eq!(pool.view(0, until).state, PeerState::Up);
    assert_eq!(
        (pool.view(0, until).ejections, pool.view(0, until).errors),
        (1, 0)
    );
    pool.check_invariants();
}

#[test]
fn no_more_than_the_share_is_ejected_at_once() {
    let pool = pool(Balance::RoundRobin, &[1; 5]);
    let until = at(10_000);
    assert_eq!(fail(&pool, 0, at(0)), Some(Ejection::Ejected { until }));
    assert_eq!(fail(&pool, 1, at(0)), Some(Ejection::Ejected { until }));
    for peer in 2..5 {
        assert_eq!(fail(&pool, peer, at(0)), Some(Ejection::Spared));
        pool.check_invariants();
    }
    assert_eq!(spread(&pool, 9, &now()), [0, 0, 3, 3, 3]);
    // When the time of the first two is over there is room again, at the next failure.
    let ejected = pool.report(2, Outcome::Failure, at(10_000));
    assert_eq!(ejected, Some(Ejection::Ejected { until: at(20_000) }));
    pool.check_invariants();
    let one = self::pool(Balance::LeastRequests, &[1]);
    assert_eq!(fail(&one, 0, at(0)), Some(Ejection::Spared));
    assert!(one.acquire(&now()).is_ok());
}

#[test]
fn when_all_are_ejected_all_are_used_but_not_those_that_are_down() {
    let mut spec = weighted(Balance::RoundRobin, &[1; 3]);
    spec.eject = Some(Eject {
        max: Share::ALL,
        ..Eject::default()
    });
    let pool = Pool::new(spec).unwrap();
    for peer in 0..3 {
        assert!(matches!(
            fail(&pool, peer, at(0)),
            Some(Ejection::Ejected { .. })
        ));
    }
    assert_eq!(pool.choose(&now()).unwrap().tier, Tier::Panic);
    assert_eq!(spread(&pool, 9, &now()), [3, 3, 3]);
    pool.set_health(1, Checked::Gone, at(0));
    assert_eq!(spread(&pool, 10, &now()), [5, 0, 5]);
    let mut tried = Tried::default();
    [0, 2].into_iter().for_each(|peer| tried.add(peer));
    assert_eq!(
        pool.acquire(&Ask::again(at(0), tried)),
        Err(NoPeer::AllTried)
    );
}

#[test]
fn a_retry_does_not_go_to_an_ejected_peer_while_others_are_well() {
    let pool = pool(Balance::RoundRobin, &[1, 1]);
    fail(&pool, 0, at(0));
    let mut tried = Tried::default();
    tried.add(1);
    assert_eq!(
        pool.acquire(&Ask::again(at(0), tried)),
        Err(NoPeer::AllTried)
    );
}

#[test]
fn without_eject_nothing_is_ejected() {
    let mut spec = weighted(Balance::RoundRobin, &[1, 1]);
    spec.eject = None;
    let pool = Pool::new(spec).unwrap();
    assert_eq!(fail(&pool, 0, at(0)), None);
    assert_eq!(spread(&pool, 10, &now()), [5, 5]);
    assert_eq!(pool.report(99, Outcome::Failure, at(0)), None);
    assert!(!pool.set_health(99, Checked::Gone, at(0)));
    assert!(!pool.release(99));
}

#[test]
fn slow_start_takes_a_peer_to_its_share_step_by_step() {
    for balance in IN_TURN {
        let mut spec = weighted(balance, &[1, 1]);
        spec.slow_start = Duration::from_secs(10);
        let pool = Pool::new(spec).unwrap();
        assert_eq!(
            pool.view(0, at(0)).state,
            PeerState::Up,
            "from the start it is whole"
        );
        pool.set_health(0, Checked::Gone, at(0));
        pool.set_health(0, Checked::Well, at(1_000));
        let mut shares = Vec::new();
        for second in [1, 3, 6, 8, 11] {
            shares.push(spread(&pool, 1_000, &Ask::new(at(second * 1_000)))[0]);
        }
        assert_eq!(
            pool.view(0, at(10_999)).state,
            PeerState::Up,
            "looked at later before"
        );
        let expected = [91, 167, 333, 412, 500];
        for (share, expected) in shares.iter().zip(expected) {
            assert!(share.abs_diff(expected) <= 3, "{balance:?}: {shares:?}");
        }
    }
}

#[test]
fn slow_start_holds_for_what_is_in_flight_too() {
    let mut spec = weighted(Balance::LeastRequests, &[1, 1]);
    spec.slow_start = Duration::from_secs(10);
    let pool = Pool::new(spec).unwrap();
    pool.set_health(0, Checked::Gone, at(0));
    pool.set_health(0, Checked::Well, at(0));
    let half = Ask::new(at(5_000));
    (0..90).for_each(|_| assert!(pool.acquire(&half).is_ok()));
    assert_eq!(pool.view(0, at(5_000)).state, PeerState::Warming);
    assert_eq!(pool.view(0, at(5_000)).in_flight, 30);
}

#[test]
fn below_half_all_have_to_help_but_those_that_are_gone() {
    for balance in Balance::ALL {
        let pool = pool(balance, &[1; 5]);
        let used = || {
            let draws =
                (0..400_u64).map(|draw| now().draw(draw.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let mut used: Vec<_> = draws
                .map(|ask| {
                    let chosen = pool.acquire(&ask).unwrap();
                    // Held, so that `first` and `hash` go on to others.
                    (chosen.peer, chosen.tier)
                })
                .collect();
            used.iter().for_each(|(peer, _)| _ = pool.release(*peer));
            used.sort_unstable_by_key(|(peer, _)| *peer);
            used.dedup();
            used
        };
        let well = |peer: usize| (peer, Tier::Primary);
        let is_first = balance == Balance::First;
        // Three of five, then two, are well: they do it alone down to the half.
        pool.set_health(0, Checked::Unwell, at(0));
        pool.set_health(1, Checked::Gone, at(0));
        assert!(!pool.is_panicking());
        let expected = if is_first {
            vec![well(2)]
        } else {
            vec![well(2), well(3), well(4)]
        };
        assert_eq!(used(), expected, "{balance:?}");
        pool.set_health(3, Checked::Unwell, at(0));
        assert!(pool.is_panicking());
        let sick = |peer: usize| (peer, Tier::Panic);
        let expected = if is_first {
            vec![sick(0)]
        } else {
            vec![sick(0), well(2), sick(3), well(4)]
        };
        assert_eq!(used(), expected, "{balance:?}");
        // Who is taken out by hand is not asked for help, and does not count.
        pool.set_duty(0, Duty::Rest, at(0));
        assert!(!pool.is_panicking());
        pool.set_duty(2, Duty::Drain, at(0));
        assert!(pool.is_panicking());
        let expected = if is_first {
            vec![sick(3)]
        } else {
            vec![sick(3), well(4)]
        };
        assert_eq!(used(), expected, "{balance:?}");
        pool.check_invariants();
        // A check that finds it again does not make it well, but somebody.
        pool.set_health(1, Checked::Unwell, at(0));
        assert!(used().contains(&sick(1)), "{balance:?}");
        pool.set_health(1, Checked::Well, at(0));
        pool.set_health(3, Checked::Well, at(0));
        assert!(!pool.is_panicking());
        pool.check_invariants();
    }
}

#[test]
fn backups_that_are_well_come_before_primaries_that_are_not() {
    let mut spec = weighted(Balance::RoundRobin, &[1, 1, 1]);
    spec.peers[2].backup = true;
    let pool = Pool::new(spec).unwrap();
    pool.set_health(0, Checked::Unwell, at(0));
    pool.set_health(1, Checked::Unwell, at(0));
    assert_eq!(spread(&pool, 9, &now()), [0, 0, 9]);
    pool.set_health(2, Checked::Gone, at(0));
    assert_eq!(spread(&pool, 10, &now()), [5, 5, 0]);
    pool.set_health(0, Checked::Gone, at(0));
    pool.set_health(1, Checked::Gone, at(0));
    assert_eq!(pool.acquire(&now()), Err(NoPeer::AllDown));
}

#[test]
fn an_operator_has_the_last_word() {
    let mut spec = weighted(Balance::RoundRobin, &[1, 1]);
    spec.slow_start = Duration::from_secs(10);
    let pool = Pool::new(spec).unwrap();
    let state = |peer| pool.view(peer, at(0)).state;
    assert!(pool.set_duty(0, Duty::Drain, at(0)) && !pool.set_duty(0, Duty::Drain, at(0)));
    assert_eq!(state(0), PeerState::Draining);
    assert_eq!(spread(&pool, 4, &now()), [0, 4]);
    assert!(
        pool.acquire_at(0, at(0)),
        "who belongs to it is still served"
    );
    pool.release(0);
    assert!(pool.set_duty(0, Duty::Rest, at(0)));
    assert_eq!(state(0), PeerState::Off);
    assert!(!pool.acquire_at(0, at(0)));
    // What checks say meanwhile does not bring it back.
    pool.set_health(0, Checked::Gone, at(0));
    pool.set_health(0, Checked::Well, at(0));
    assert_eq!(state(0), PeerState::Off);
    pool.set_duty(1, Duty::Rest, at(0));
    assert_eq!(pool.acquire(&now()), Err(NoPeer::AllDown));
    assert!(pool.set_duty(1, Duty::Serve, at(0)) && !pool.set_duty(1, Duty::Serve, at(0)));
    assert_eq!(state(1), PeerState::Warming);
    // It ends an ejection, too.
    fail(&pool, 1, at(0));
    assert_eq!(state(1), PeerState::Ejected);
    assert!(pool.set_duty(1, Duty::Serve, at(0)));
    assert_eq!(state(1), PeerState::Warming);
    pool.check_invariants();
    assert!(!pool.set_duty(9, Duty::Rest, at(0)) && !pool.acquire_at(9, at(0)));
}

#[test]
fn a_client_that_belongs_to_a_peer_is_served_there_while_it_can_be() {
    let mut spec = weighted(Balance::RoundRobin, &[1, 1]);
    spec.peers[1].max_connections = 1;
    let pool = Pool::new(spec).unwrap();
    assert!(
        pool.acquire_at(1, at(0)) && !pool.acquire_at(1, at(0)),
        "it is full"
    );
    // It has counted as a turn: the next one is the other's.
    assert_eq!(pool.acquire(&now()).unwrap().peer, 0);
    pool.release(0);
    pool.release(1);
    fail(&pool, 1, at(0));
    assert!(!pool.acquire_at(1, at(0)));
    assert!(pool.acquire_at(1, at(10_000)), "the ejection is over");
    pool.release(1);
    pool.set_health(1, Checked::Unwell, at(10_000));
    assert!(!pool.acquire_at(1, at(10_000)));
    // With none left that is well, it is as good as others.
    pool.set_health(0, Checked::Gone, at(10_000));
    assert!(pool.acquire_at(1, at(10_000)) && !pool.acquire_at(0, at(10_000)));
    pool.check_invariants();
}

#[test]
fn a_permit_is_given_back_when_dropped() {
    let mut spec = weighted(Balance::LeastRequests, &[1]);
    spec.peers[0].max_connections = 2;
    let pool = Arc::new(Pool::new(spec).unwrap());
    let held = [pool.permit(&now()).unwrap(), pool.permit(&now()).unwrap()];
    assert_eq!(held[0].peer(), 0);
    assert_eq!(pool.permit(&now()).unwrap_err(), NoPeer::Full);
    drop(held);
    assert_eq!(pool.view(0, at(0)).in_flight, 0);
    assert!(pool.permit(&now()).is_ok());
}

#[test]
fn wrong_pools_are_refused() {
    let error = |change: &dyn Fn(&mut PoolSpec)| {
        let mut spec = weighted(Balance::RoundRobin, &[1, 1]);
        change(&mut spec);
        Pool::new(spec).map(|_| ()).unwrap_err()
    };
    assert_eq!(error(&|spec| spec.peers.clear()), PoolError::Empty);
    assert_eq!(
        error(&|spec| spec.peers[1].weight = 0),
        PoolError::Weight(1)
    );
    assert_eq!(
        error(&|spec| spec.peers[1].weight = 1_001),
        PoolError::Weight(1)
    );
    assert_eq!(
        error(&|spec| spec.peers[0].max_connections = 0),
        PoolError::Connections(0)
    );
    assert_eq!(
        error(&|spec| spec.peers.resize(10_001, PeerSpec::default())),
        PoolError::TooManyPeers
    );
    for balance in Balance::ALL {
        assert_eq!(Balance::from_name(balance.name()), Some(balance));
    }
    assert_eq!(Balance::from_name("best"), None);
}

#[test]
fn workers_share_turns_and_limits() {
    for balance in IN_TURN {
        let mut spec = weighted(balance, &[1, 2, 3]);
        spec.peers
            .iter_mut()
            .for_each(|peer| peer.max_connections = 2);
        let pool = Pool::new(spec).unwrap();
        let picks = [const { AtomicU32::new(0) }; 3];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..30_000 {
                        if let Ok(chosen) = pool.acquire(&now()) {
                            assert!(pool.view(chosen.peer, at(0)).in_flight <= 2);
                            picks[chosen.peer].fetch_add(1, Relaxed);
                            pool.release(chosen.peer);
                        }
                    }
                });
            }
        });
        pool.check_invariants();
        assert!((0..3).all(|peer| pool.view(peer, at(0)).in_flight == 0));
        let picks = picks.map(AtomicU32::into_inner);
        assert!(
            picks.iter().all(|&picks| picks > 0),
            "{balance:?}: {picks:?}"
        );
    }
}

#[test]
fn no_wake_up_is_lost_between_pool_and_queue() {
    let mut spec = weighted(Balance::LeastRequests, &[1]);
    spec.peers[0].max_connections = 1;
    let pool = Pool::new(spec).unwrap();
    let queue = Mutex::new(WaitQueue::new(16, Duration::from_secs(10)));
    let waiting = AtomicUsize::new(0);
    // If one were lost, a thread would stay parked and the test would not end.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..3_000 {
                    while pool.acquire(&now()).is_err() {
                        let woken = Arc::new(AtomicBool::new(false));
                        let token = (std::thread::current(), woken.clone());
                        let mut locked = queue.lock().unwrap();
                        let Pushed::Waits(ticket) = locked.push(5, at(0), token) else {
                            panic!("three threads fit in")
                        };
                        waiting.store(locked.len(), SeqCst);
                        drop(locked);
                        let got_one = pool.acquire(&now()).is_ok();
                        if got_one {
                            let mut locked = queue.lock().unwrap();
                            locked.cancel(ticket);
                            waiting.store(locked.len(), SeqCst);
                            break;
                        }
                        while !woken.load(SeqCst) {
                            std::thread::park();
                        }
                    }
                    pool.release(0);
                    if waiting.load(SeqCst) > 0 {
                        let mut locked = queue.lock().unwrap();
                        let next = locked.poll_next();
                        waiting.store(locked.len(), SeqCst);
                        drop(locked);
                        if let Some((thread, woken)) = next {
                            woken.store(true, SeqCst);
                            thread.unpark();
                        }
                    }
                }
            });
        }
    });
    assert_eq!(
        (pool.view(0, at(0)).in_flight, waiting.into_inner()),
        (0, 0)
    );
}

#[derive(Clone, Debug)]
enum Step {
    Acquire { tried: Vec<usize> },
    Release(usize),
    Fail(usize),
    Succeed(usize),
    SetDown(usize, bool),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(0..6_usize, 0..3).prop_map(|tried| Step::Acquire { tried }),
        4 => (0..64_usize).prop_map(Step::Release),
        6 => (0..6_usize).prop_map(Step::Fail),
        1 => (0..6_usize).prop_map(Step::Succeed),
        1 => (0..6_usize, any::<bool>()).prop_map(|(peer, down)| Step::SetDown(peer, down)),
        1 => (0..8_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_rules_hold(
        round_robin in any::<bool>(),
        specs in vec((1..=5_u32, any::<bool>(), 1..=3_u32), 1..6),
        errors in 1..=3_u32,
        max in 0..=100_u32,
        slow_start in prop_oneof![Just(0), Just(3_000_u64)],
        steps in vec(steps(), 1..120),
    ) {
        let peers: Vec<_> = specs
            .iter()
            .map(|&(weight, backup, max_connections)| PeerSpec { weight, backup, max_connections, id: 0 })
            .collect();
        let pool = Pool::new(PoolSpec {
            balance: if round_robin { Balance::RoundRobin } else { Balance::LeastRequests },
            peers: peers.clone(),
            eject: Some(Eject { errors, time: Duration::from_secs(5), max: Share::percent(max) }),
            slow_start: Duration::from_millis(slow_start),
        })
        .unwrap();
        let mut now = 0;
        let mut held: Vec<usize> = Vec::new();
        for step in steps {
            match step {
                Step::Acquire { tried: peers_tried } => {
                    let mut tried = Tried::default();
                    peers_tried.iter().for_each(|&peer| tried.add(peer));
                    let ask = Ask::again(at(now), tried);
                    let views: Vec<_> = (0..peers.len()).map(|n| pool.view(n, at(now))).collect();
                    let well = |n: &usize| {
                        matches!(views[*n].state, PeerState::Up | PeerState::Warming)
                    };
                    let full = |n: &usize| views[*n].in_flight >= peers[*n].max_connections;
                    let mut all = 0..peers.len();
                    prop_assert_eq!(pool.choose(&ask).is_ok(), pool.choose(&ask).is_ok());
                    match pool.acquire(&ask) {
                        Ok(chosen) => {
                            let peer = chosen.peer;
                            held.push(peer);
                            prop_assert!(!tried.contains(peer));
                            prop_assert!(!full(&peer));
                            prop_assert!(views[peer].state != PeerState::Down);
                            let primaries = || (0..peers.len()).filter(|n| !peers[*n].backup);
                            let primary_left =
                                primaries().any(|n| well(&n) && !tried.contains(n));
                            let count = primaries().filter(well).count();
                            prop_assert_eq!(well(&peer), chosen.tier != Tier::Panic);
                            if count > 0 && 2 * count < primaries().count() {
                                // Those that are not well help.
                                prop_assert!(pool.is_panicking());
                                prop_assert!(!primary_left || !peers[peer].backup);
                            } else {
                                prop_assert_eq!(chosen.tier == Tier::Primary, primary_left);
                                let any_well = (0..peers.len()).any(|n| well(&n));
                                prop_assert!(chosen.tier != Tier::Panic || !any_well);
                            }
                        }
                        Err(NoPeer::Full) => prop_assert!(all.any(|n| full(&n))),
                        Err(NoPeer::AllTried) => prop_assert!(all.any(|n| tried.contains(n))),
                        Err(NoPeer::AllDown) => {
                            prop_assert!(all.all(|n| views[n].state == PeerState::Down));
                        }
                    }
                }
                Step::Release(number) if !held.is_empty() => {
                    pool.release(held.swap_remove(number % held.len()));
                }
                Step::Release(_) => {}
                Step::Fail(peer) => {
                    pool.report(peer, Outcome::Failure, at(now));
                }
                Step::Succeed(peer) => {
                    pool.report(peer, Outcome::Success, at(now));
                }
                Step::SetDown(peer, down) => {
                    pool.set_health(peer, gone_if(down), at(now));
                }
                Step::Wait(millis) => now += millis,
            }
            pool.check_invariants();
            for peer in 0..peers.len() {
                let count = held.iter().filter(|&&held| held == peer).count();
                prop_assert_eq!(usize::try_from(pool.view(peer, at(now)).in_flight), Ok(count));
            }
        }
    }

    #[test]
    fn no_peer_is_starved_and_none_gets_more_than_its_turn(
        weights in vec(1..=40_u32, 1..12),
        round_robin in any::<bool>(),
        picks in 1..400_usize,
    ) {
        let balance = if round_robin { Balance::RoundRobin } else { Balance::LeastRequests };
        let pool = pool(balance, &weights);
        let total: u32 = weights.iter().sum();
        let got = spread(&pool, picks, &now());
        for (&got, &weight) in got.iter().zip(&weights) {
            // At every moment each has its share of what was given out, but for one turn of it
            // and one of each that is before it.
            let part = f64::from(weight) / f64::from(total);
            let count = |n: usize| f64::from(u32::try_from(n).unwrap());
            let off = (f64::from(got) - count(picks) * part).abs();
            let bound = 1.0 + part * count(weights.len());
            prop_assert!(off <= bound, "{} of {} for weight {} of {}", got, picks, weight, total);
        }
    }
}
