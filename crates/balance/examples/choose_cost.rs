//! What a choice costs. Run it with `--release`.
//!
//! The requests in flight are drawn at random, so that a pass meets what it meets in service;
//! "idle" is the case in which all peers are equal and every turn is looked at.

use std::hint::black_box;
use std::time::{Duration, Instant};

use forebay_balance::{
    Ask, Balance, Load, PeerSpec, Pool, PoolSpec, RetryBudget, Share, Tick, Tried,
};

fn main() {
    println!(
        "{:<16} {:>6}  {:>10} {:>10} {:>10}",
        "ns per choice", "peers", "idle", "busy", "retry"
    );
    for balance in Balance::ALL {
        for peers in [1, 2, 8, 64, 1_000] {
            let idle = cost(balance, peers, 0, Tried::default());
            let busy = cost(balance, peers, 40, Tried::default());
            let mut tried = Tried::default();
            tried.add(0);
            let retry = if peers > 1 {
                cost(balance, peers, 40, tried)
            } else {
                f64::NAN
            };
            println!(
                "{:<16} {peers:>6}  {idle:>10.1} {busy:>10.1} {retry:>10.1}",
                balance.name()
            );
        }
    }
    for balance in [Balance::LeastRequests, Balance::RoundRobin] {
        let cost = shared(balance, 1_000);
        println!(
            "{} among 1000, two threads at once: {cost:.1} ns",
            balance.name()
        );
    }
    let budget = RetryBudget::new(Share::percent(20));
    let request = least(1_000, || budget.handle_request(Tick::from_millis(1)));
    let retry = least(1_000, || {
        black_box(budget.try_retry(Tick::from_millis(1)));
    });
    println!("retry budget: a request {request:.1} ns, a retry {retry:.1} ns");
}

/// One acquire and release, in nanoseconds, in a pool with up to `load` requests on each peer.
fn cost(balance: Balance, peers: usize, load: u64, tried: Tried) -> f64 {
    let specs = vec![PeerSpec::default(); peers];
    let pool = Pool::new(PoolSpec {
        balance,
        ..PoolSpec::new(specs)
    })
    .expect("a right pool");
    let mut random = 0x5eed_u64;
    for _ in 0..load * u64::try_from(peers).unwrap_or(0) / 2 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // By turns, so that the counts differ: what is taken twice and given back at random.
        let ask = Ask::new(Tick::default()).draw(random);
        pool.acquire(&ask).expect("room");
        let peer = usize::try_from(random >> 33).unwrap_or(0) % peers;
        if random >> 32 & 1 == 0 && pool.view(peer, Tick::default()).in_flight > 0 {
            pool.release(peer);
        }
    }
    if balance == Balance::Score {
        let load = |peer: usize| Load {
            cpu: u16::try_from(peer * 37 % 100).map_or(0.0, f32::from),
            ..Load::default()
        };
        let loads: Vec<_> = (0..peers).map(|peer| (peer, load(peer))).collect();
        pool.report_loads(&loads, Duration::from_secs(1), Tick::default());
    }
    // In service, what ends is not what has just begun: so another peer's permit is given back.
    let mut held = vec![None; if load == 0 { 1 } else { 4_096.min(peers * 4) }];
    let ask = Ask::again(Tick::from_millis(1), tried);
    least((200_000 / peers.max(10)).max(3 * peers), || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let ask = black_box(&ask).draw(random);
        let chosen = pool.acquire(&ask).expect("room");
        let place = usize::try_from(random >> 40).unwrap_or(0) % held.len();
        if let Some(peer) = held[place].replace(black_box(chosen.peer)) {
            pool.release(peer);
        }
    })
}

/// The same by two threads that share the pool, each with some requests in flight.
fn shared(balance: Balance, peers: usize) -> f64 {
    const COUNT: usize = 200_000;
    let pool = Pool::new(PoolSpec {
        balance,
        ..PoolSpec::new(vec![PeerSpec::default(); peers])
    })
    .expect("a right pool");
    let run = |mut random: u64| {
        let mut held = vec![None; 4 * peers];
        let begun = Instant::now();
        for _ in 0..COUNT {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let chosen = pool.acquire(&Ask::new(Tick::default())).expect("room");
            let place = usize::try_from(random >> 40).unwrap_or(0) % held.len();
            if let Some(peer) = held[place].replace(chosen.peer) {
                pool.release(peer);
            }
        }
        let took = begun.elapsed().as_secs_f64();
        held.into_iter()
            .flatten()
            .for_each(|peer| _ = pool.release(peer));
        took * 1e9 / f64::from(u32::try_from(COUNT).unwrap_or(u32::MAX))
    };
    let round = |_| {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| run(1));
            let own = run(2);
            own.max(other.join().unwrap_or(f64::INFINITY))
        })
    };
    (0..9).map(round).fold(f64::INFINITY, f64::min)
}

/// The least of nine rounds, in nanoseconds for one call.
fn least(count: usize, mut call: impl FnMut()) -> f64 {
    let mut round = || {
        let start = Instant::now();
        (0..count).for_each(|_| call());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
    };
    (0..9).map(|_| round()).fold(f64::INFINITY, f64::min)
}
