//! `balance = "score"`.

use std::time::Duration;

use forebay_balance::{Ask, Balance, Load, PeerSpec, Pool, PoolSpec, Tick};

const PERIOD: Duration = Duration::from_secs(1);

fn pool(peers: usize) -> Pool {
    let spec = PoolSpec {
        balance: Balance::Score,
        ..PoolSpec::new(vec![PeerSpec::default(); peers])
    };
    Pool::new(spec).unwrap()
}

fn cpu(percent: f32) -> Load {
    Load {
        cpu: percent,
        ..Load::default()
    }
}

fn at(ms: u64) -> Tick {
    Tick::from_millis(ms)
}

/// How often each is chosen, one request after the other.
fn in_turn(pool: &Pool, count: usize, now: Tick) -> Vec<usize> {
    let mut chosen = vec![0; pool.len()];
    for _ in 0..count {
        let peer = pool.acquire(&Ask::new(now)).unwrap().peer;
        pool.release(peer);
        chosen[peer] += 1;
    }
    chosen
}

/// The same, all at once.
fn at_once(pool: &Pool, count: usize, now: Tick) -> Vec<usize> {
    let mut chosen = vec![0; pool.len()];
    for _ in 0..count {
        chosen[pool.acquire(&Ask::new(now)).unwrap().peer] += 1;
    }
    for (peer, count) in chosen.iter().enumerate() {
        for _ in 0..*count {
            pool.release(peer);
        }
    }
    chosen
}

#[test]
fn without_a_report_it_is_round_robin() {
    assert_eq!(in_turn(&pool(4), 400, at(5)), [100; 4]);
}

#[test]
fn the_least_loaded_gets_the_request() {
    let pool = pool(3);
    let loads = [(0, cpu(50.0)), (1, cpu(10.0)), (2, cpu(90.0))];
    pool.report_loads(&loads, PERIOD, at(0));
    assert_eq!(in_turn(&pool, 10, at(1)), [0, 10, 0]);
    assert_eq!(pool.score(1, at(1)), Some(5.0));
}

#[test]
fn one_period_does_not_herd() {
    let four = pool(4);
    // As equal as measured things are.
    let loads: Vec<_> = [20.0, 24.0, 18.0, 22.0]
        .into_iter()
        .map(cpu)
        .enumerate()
        .collect();
    four.report_loads(&loads, PERIOD, at(0));
    let chosen = at_once(&four, 400, at(1));
    assert!(
        chosen.iter().all(|count| (80..=120).contains(count)),
        "{chosen:?}"
    );
}

#[test]
fn a_busy_one_is_spared_within_two_reports_and_recovers() {
    let pool = pool(4);
    let report = |busy: f32, now: u64| {
        let loads = [
            (0, cpu(busy)),
            (1, cpu(20.0)),
            (2, cpu(20.0)),
            (3, cpu(20.0)),
        ];
        pool.report_loads(&loads, PERIOD, at(now));
    };
    for second in 0..5 {
        report(20.0, second * 1_000);
    }
    report(100.0, 5_000);
    report(100.0, 6_000);
    // A hundred at a time.
    let chosen = at_once(&pool, 100, at(6_001));
    assert!(chosen[0] < 10 + 10, "{chosen:?}");
    let chosen = at_once(&pool, 60, at(6_002));
    assert!(chosen[0] < 6, "{chosen:?}");
    for second in 7..17 {
        report(20.0, second * 1_000);
    }
    let chosen = at_once(&pool, 100, at(16_500));
    assert!(chosen[0] >= 20, "{chosen:?}");
}

#[test]
fn reports_are_smoothed_and_count_for_three_periods() {
    let pool = pool(2);
    pool.report_loads(&[(0, cpu(100.0)), (1, cpu(20.0))], PERIOD, at(0));
    pool.report_loads(&[(0, cpu(0.0))], PERIOD, at(1_000));
    assert_eq!(pool.score(0, at(1_000)), Some(35.0));
    assert_eq!(pool.score(1, at(2_999)), Some(10.0));
    assert_eq!(pool.score(1, at(3_000)), None);
    assert_eq!(pool.score(0, at(3_999)), Some(35.0));
    assert_eq!(pool.score(0, at(4_000)), None);
    assert_eq!(in_turn(&pool, 10, at(4_000)), [5, 5]);
    // The first report after that is not smoothed with what counts no more.
    pool.report_loads(&[(0, cpu(10.0))], PERIOD, at(5_000));
    assert_eq!(pool.score(0, at(5_000)), Some(5.0));
}

#[test]
fn who_has_no_report_counts_as_the_others_on_average() {
    let pool = pool(3);
    pool.report_loads(&[(0, cpu(80.0)), (1, cpu(20.0))], PERIOD, at(0));
    assert_eq!(in_turn(&pool, 5, at(1)), [0, 5, 0]);
    pool.report_loads(&[(0, cpu(80.0)), (1, cpu(80.0))], PERIOD, at(1_000));
    pool.forget_load(1);
    let chosen = in_turn(&pool, 9, at(1_001));
    assert_eq!(chosen[0], 0, "{chosen:?}");
    // Numbers beyond the pool and every kind of time do no harm.
    pool.report_loads(&[(7, cpu(1.0))], Duration::MAX / 4, at(u64::MAX));
    assert_eq!(pool.score(7, at(0)), None);
    pool.check_invariants();
}

#[test]
fn the_average_is_of_all_whose_report_counts() {
    let pool = pool(3);
    pool.report_loads(&[(0, cpu(80.0))], PERIOD, at(0));
    pool.report_loads(&[(1, cpu(20.0))], PERIOD, at(500));
    // The third counts as 25.
    assert_eq!(in_turn(&pool, 4, at(600)), [0, 4, 0]);
    let chosen = at_once(&pool, 30, at(600));
    assert!(chosen[1] > chosen[2] && chosen[2] > chosen[0], "{chosen:?}");
    // The first is too old now: what is left is the second's.
    pool.report_loads(&[(1, cpu(20.0))], PERIOD, at(3_400));
    let chosen = in_turn(&pool, 30, at(3_450));
    assert!(
        chosen.iter().all(|count| (9..=11).contains(count)),
        "{chosen:?}"
    );
}

#[test]
fn who_is_new_warms_up() {
    let spec = PoolSpec {
        balance: Balance::Score,
        slow_start: Duration::from_secs(10),
        ..PoolSpec::new(vec![PeerSpec::default(); 3])
    };
    let pool = Pool::new(spec).unwrap();
    let report = |now| {
        let loads = [(0, cpu(20.0)), (1, cpu(20.0)), (2, cpu(20.0))];
        pool.report_loads(&loads, PERIOD, at(now));
    };
    // Without a report by turns, with one by score: all to who is not new.
    pool.warm_up(1, at(1_000));
    let chosen = in_turn(&pool, 210, at(1_100));
    assert!((5..=15).contains(&chosen[1]), "{chosen:?}");
    report(1_200);
    assert_eq!(in_turn(&pool, 20, at(1_300)), [10, 0, 10]);
    let chosen = at_once(&pool, 300, at(1_300));
    assert!((1..60).contains(&chosen[1]), "{chosen:?}");
    report(11_000);
    let chosen = in_turn(&pool, 30, at(11_001));
    assert!(chosen.iter().all(|count| *count >= 9), "{chosen:?}");
    pool.warm_up(7, at(11_002));
    pool.check_invariants();
}

#[test]
fn what_was_in_flight_at_the_report_is_in_the_report() {
    let pool = pool(2);
    for _ in 0..10 {
        assert!(pool.acquire_at(0, at(0)));
    }
    pool.report_loads(&[(0, cpu(10.0)), (1, cpu(14.0))], PERIOD, at(0));
    assert_eq!(in_turn(&pool, 4, at(1)), [4, 0]);
}

#[test]
fn a_large_pool_chooses_as_a_small_one_does() {
    let large = pool(1_000);
    let load = |peer: usize| cpu([60.0, 40.0, 80.0][peer % 3]);
    let loads: Vec<_> = (0..1_000).map(|peer| (peer, load(peer))).collect();
    large.report_loads(&loads, PERIOD, at(0));
    let chosen = in_turn(&large, 333, at(1));
    let expected: Vec<usize> = (0..1_000).map(|peer| usize::from(peer % 3 == 1)).collect();
    assert_eq!(chosen, expected);
    // What is reported next counts at once.
    large.report_loads(&[(700, cpu(0.0))], PERIOD, at(1_000));
    large.report_loads(&[(700, cpu(0.0))], PERIOD, at(1_500));
    assert_eq!(in_turn(&large, 10, at(1_501))[700], 10);
    // Nothing is left of it when it is too old.
    let chosen = in_turn(&large, 1_000, at(10_000));
    assert!(chosen.iter().all(|count| *count <= 2), "{chosen:?}");
}
