//! Beside table tests, a naive model: a list that is searched.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::slots::{PIECE, TICK_MS};
use super::*;

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A task that waits for a deadline.
struct Waiter {
    deadline: Deadline,
    count: Arc<Count>,
}

impl Waiter {
    fn new(wheel: &Rc<Wheel>) -> Self {
        Self {
            deadline: wheel.register(),
            count: Arc::default(),
        }
    }

    fn poll(&self) -> bool {
        let waker = Waker::from(Arc::clone(&self.count));
        self.deadline
            .poll_expired(&mut Context::from_waker(&waker))
            .is_ready()
    }

    fn woken(&self) -> usize {
        self.count.0.load(Ordering::Relaxed)
    }
}

/// Splitmix64: a seed is all that is needed to repeat a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Mostly short, sometimes beyond every level.
    fn duration(&mut self) -> u64 {
        let most = [1, 10, 1_100, 70_000, 300_000, 80_000_000, 1 << 40];
        let most = most[usize::try_from(self.below(7)).unwrap()];
        self.below(most + 1)
    }
}

#[test]
fn expires_at_its_time_and_not_before() {
    for start in [0, 3, 1_023, 1_024, 262_143, 1 << 33] {
        for wait in [
            1,
            4,
            5,
            1_019,
            1_020,
            1_024,
            60_000,
            262_144,
            70_000_000,
            300_000_000,
        ] {
            let wheel = Wheel::new(start);
            let waiter = Waiter::new(&wheel);
            waiter.deadline.set(start, ms(wait));
            assert!(!waiter.poll());
            wheel.advance(start + wait - 1);
            assert!(!waiter.poll(), "start {start}, {wait} ms: too early");
            assert_eq!(waiter.woken(), 0);
            wheel.advance((start + wait).next_multiple_of(TICK_MS));
            assert_eq!(waiter.woken(), 1, "start {start}, {wait} ms: not woken");
            assert!(waiter.poll());
        }
    }
}

#[test]
fn a_time_that_has_come_already_wakes_at_once() {
    let wheel = Wheel::new(0);
    let waiter = Waiter::new(&wheel);
    assert!(!waiter.poll());
    waiter.deadline.set(10, ms(0));
    assert_eq!(waiter.woken(), 1);
    assert!(waiter.poll());
}

#[test]
fn setting_a_later_time_or_clearing_moves_nothing() {
    let wheel = Wheel::new(0);
    let waiter = Waiter::new(&wheel);
    waiter.deadline.set(0, ms(100));
    let slot = || wheel.slots.borrow_mut().entry(waiter.deadline.index).slot;
    let before = slot();
    waiter.deadline.set(50, ms(60_000));
    waiter.deadline.clear();
    waiter.deadline.set(60, ms(40));
    assert_eq!(slot(), before);
    assert_eq!(wheel.next_due(), Some(100));
    waiter.deadline.set(60, ms(10));
    assert_ne!(slot(), before);
    assert_eq!(wheel.next_due(), Some(72));
}

#[test]
fn nothing_is_due_once_cleared_entries_were_passed() {
    let wheel = Wheel::new(0);
    let waiter = Waiter::new(&wheel);
    waiter.deadline.set(0, ms(100));
    assert!(!waiter.poll());
    waiter.deadline.clear();
    wheel.advance(100);
    assert_eq!((waiter.woken(), wheel.next_due()), (0, None));
    assert!(!waiter.deadline.expired() && !waiter.deadline.is_set());
}

#[test]
fn the_last_task_that_polled_is_woken() {
    let wheel = Wheel::new(0);
    let first = Waiter::new(&wheel);
    first.deadline.set(0, ms(8));
    assert!(!first.poll());
    let second = Waiter {
        deadline: first.deadline,
        count: Arc::default(),
    };
    assert!(!second.poll());
    wheel.advance(8);
    assert_eq!(
        (first.count.0.load(Ordering::Relaxed), second.woken()),
        (0, 1)
    );
}

#[test]
fn entries_are_used_again() {
    let wheel = Wheel::new(0);
    for round in 0..100 {
        let waiters: Vec<_> = (0..PIECE * 2).map(|_| Waiter::new(&wheel)).collect();
        for (i, waiter) in waiters.iter().enumerate() {
            assert!(!waiter.deadline.is_set() && !waiter.poll());
            waiter.deadline.set(round, ms(i as u64 * 7));
        }
        assert_eq!(wheel.registered(), PIECE * 2);
    }
    let mut slots = wheel.slots.borrow_mut();
    slots.check_invariants();
    assert_eq!((slots.registered, slots.pieces.len()), (0, 2));
    assert_eq!(slots.next_event(), None);
}

/// Dropping a waker may drop a task, and its deadlines, while the wheel is at work.
#[test]
fn a_waker_may_use_the_wheel() {
    thread_local!(static KEPT: RefCell<Vec<Deadline>> = const { RefCell::new(Vec::new()) });
    fn give_up() {
        for deadline in KEPT.take() {
            deadline.set(8, ms(1));
        }
    }
    struct Meddler;
    impl Wake for Meddler {
        fn wake(self: Arc<Self>) {
            give_up();
        }
    }
    impl Drop for Meddler {
        fn drop(&mut self) {
            give_up();
        }
    }

    let wheel = Wheel::new(0);
    let waiter = wheel.register();
    let waker = Waker::from(Arc::new(Meddler));
    waiter.set(0, ms(8));
    assert!(
        waiter
            .poll_expired(&mut Context::from_waker(&waker))
            .is_pending()
    );
    KEPT.with_borrow_mut(|kept| kept.push(wheel.register()));
    drop(waker);
    wheel.advance(8);
    assert_eq!(wheel.registered(), 1, "the kept one was set and dropped");

    let waker = Waker::from(Arc::new(Meddler));
    waiter.clear();
    assert!(
        waiter
            .poll_expired(&mut Context::from_waker(&waker))
            .is_pending()
    );
    KEPT.with_borrow_mut(|kept| kept.push(wheel.register()));
    drop(waker);
    drop(waiter);
    assert_eq!(wheel.registered(), 0);
}

/// Random setting, clearing, dropping and passing of time, beside a list that is searched.
#[test]
fn agrees_with_a_naive_model() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut now = random.below(1 << 34);
        let wheel = Wheel::new(now);
        let mut all: Vec<(Waiter, Option<u64>)> = Vec::new();
        for step in 0..400 {
            let pick = usize::try_from(random.below(all.len().max(1) as u64)).unwrap();
            match random.below(10) {
                0 => all.push((Waiter::new(&wheel), None)),
                1 if !all.is_empty() && random.below(3) == 0 => drop(all.swap_remove(pick)),
                1..=5 if !all.is_empty() => {
                    let wait = random.duration();
                    all[pick].0.deadline.set(now, ms(wait));
                    all[pick].1 = Some(now + wait);
                }
                6 if !all.is_empty() => {
                    all[pick].0.deadline.clear();
                    all[pick].1 = None;
                }
                _ => {
                    now += random.duration();
                    wheel.advance(now);
                }
            }
            wheel.slots.borrow_mut().check_invariants();
            check_all(&wheel, &all, now, seed, step);
        }
    }
}

fn check_all(wheel: &Wheel, all: &[(Waiter, Option<u64>)], now: u64, seed: u64, step: u32) {
    let next = wheel.next_due();
    for (i, (waiter, at)) in all.iter().enumerate() {
        let place = format!("seed {seed}, step {step}, deadline {i}: {at:?}, now {now}");
        let woken_before = waiter.woken();
        let expired = at.is_some_and(|at| at <= now);
        assert_eq!(waiter.deadline.expired(), expired, "{place}");
        assert_eq!(waiter.poll(), expired, "{place}");
        assert_eq!(waiter.woken(), woken_before, "{place}");
        if let (Some(at), false) = (at, expired) {
            let next = next.unwrap_or_else(|| panic!("{place}: nothing to come"));
            assert!(next <= at.next_multiple_of(TICK_MS), "{place}: next {next}");
        }
    }
}

/// Whoever waits is woken at the first advance past the tick of its time: never lost.
#[test]
fn a_hundred_thousand_are_each_woken_once() {
    const COUNT: u64 = 100_000;
    let wheel = Wheel::new(0);
    let mut random = Random(7);
    let mut waiters: Vec<(u64, Waiter)> = (0..COUNT)
        .map(|_| (1 + random.below(400_000), Waiter::new(&wheel)))
        .collect();
    for (at, waiter) in &waiters {
        waiter.deadline.set(0, ms(*at));
        assert!(!waiter.poll());
    }
    waiters.sort_by_key(|(at, _)| *at);
    let mut woken = 0;
    while let Some(due) = wheel.next_due() {
        wheel.advance(due);
        while woken < waiters.len() && waiters[woken].0 <= due {
            let (at, waiter) = &waiters[woken];
            assert_eq!(waiter.woken(), 1, "deadline at {at}, now {due}");
            woken += 1;
        }
        if let Some((at, waiter)) = waiters.get(woken) {
            assert_eq!(waiter.woken(), 0, "deadline at {at}, now {due}");
        }
    }
    assert_eq!(woken, waiters.len());
}

/// Prints what setting costs; not judged, timings never are.
#[test]
fn cost_of_setting() {
    const COUNT: u32 = 100_000;
    let wheel = Wheel::new(0);
    let deadlines: Vec<_> = (0..COUNT).map(|_| wheel.register()).collect();
    let cost = |what: &str, from: u64, wait: fn(u64) -> u64| {
        let start = std::time::Instant::now();
        for (i, deadline) in (0..).zip(&deadlines) {
            deadline.set(from, ms(wait(i)));
        }
        let per_set = start.elapsed().as_nanos() / u128::from(COUNT);
        println!("{what}: {per_set} ns per set, {COUNT} deadlines");
    };
    cost("first time", 0, |i| 60_000 + i % 1_000);
    cost("later", 10, |_| 61_000);
    cost("earlier", 20, |i| 5_000 + i % 1_000);
    let start = std::time::Instant::now();
    wheel.advance(100_000);
    let per_deadline = start.elapsed().as_nanos() / u128::from(COUNT);
    println!("expire: {per_deadline} ns per deadline");
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn the_driver_wakes_up_for_an_earlier_deadline() {
    run(async {
        let wheel = Wheel::new(clock::precise_ms());
        tokio::task::spawn_local(driver(Rc::clone(&wheel)).unwrap());
        let far = wheel.register();
        far.set(clock::precise_ms(), ms(3_600_000));
        // The driver is asleep for an hour by now.
        tokio::task::yield_now().await;
        let near = wheel.register();
        let start = clock::precise_ms();
        near.set(start, ms(20));
        near.wait().await;
        assert!(clock::precise_ms() >= start + 20);
        assert!(!far.expired());
    });
}

#[test]
fn the_driver_sleeps_for_good_while_nothing_is_set() {
    run(async {
        let wheel = Wheel::new(clock::precise_ms());
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let readings = Cell::new(0);
        let mut driver = pin!(drive(&wheel, Alarm::new().unwrap(), || {
            readings.set(readings.get() + 1);
            clock::precise_ms()
        }));
        let mut cx = Context::from_waker(&waker);
        assert!(driver.as_mut().poll(&mut cx).is_pending());
        assert_eq!((wheel.asleep_until.get(), readings.get()), (u64::MAX, 1));
        // One wake-up for the first deadline, none for those that come later.
        let deadlines: Vec<_> = (0..10).map(|_| wheel.register()).collect();
        for deadline in &deadlines {
            deadline.set(clock::precise_ms(), ms(3_600_000));
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn timeout_ends_what_takes_too_long_and_leaves_the_deadline_clear() {
    run(async {
        let wheel = Wheel::new(clock::precise_ms());
        tokio::task::spawn_local(driver(Rc::clone(&wheel)).unwrap());
        let deadline = wheel.register();
        let now = clock::precise_ms();
        let never = std::future::pending::<()>();
        assert_eq!(timeout(&deadline, now, ms(10), never).await, Err(Expired));
        assert!(!deadline.is_set());
        let quick = async { 7 };
        assert_eq!(timeout(&deadline, now, ms(0), quick).await, Ok(7));
        assert!(!deadline.is_set());
        drop(timeout(&deadline, now, ms(10), async {}));
        assert!(!deadline.is_set());
    });
}

#[test]
fn what_many_tasks_wait_for_comes_to_all() {
    run(async {
        let wheel = Wheel::new(clock::precise_ms());
        tokio::task::spawn_local(driver(Rc::clone(&wheel)).unwrap());
        let tasks: Vec<_> = (0..1_000)
            .map(|i| {
                let deadline = wheel.register();
                deadline.set(clock::precise_ms(), ms(i % 50));
                tokio::task::spawn_local(async move { deadline.wait().await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(wheel.registered(), 0);
    });
}
