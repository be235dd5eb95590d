//! Whether a failed request is tried again, and how often a pool may do so.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::units::{Share, Tick};

/// How a request to a peer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection came about: refused, unreachable, timed out, TLS or PROXY refused. Nothing of
    /// the request was sent.
    Connect,
    /// A reused connection was found closed before any byte of a response: the peer's idle
    /// timeout met our request on its way.
    Stale,
    /// The connection broke before the response head was complete.
    Reset,
    /// The response did not begin in time.
    Timeout,
    /// A complete response head with this status.
    Status(u16),
    /// What came is no HTTP. Never tried again: it is the peer's answer, if a bad one.
    Garbage,
}

/// What a request that failed was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How it failed.
    pub failure: Failure,
    /// Whether any byte of it may have reached the peer.
    pub sent: bool,
    /// Whether its method is idempotent, see [`is_idempotent`].
    pub idempotent: bool,
    /// Whether its body is there again: it has none, nothing of it was pulled, or a copy is held.
    pub replayable: bool,
    /// Whether the client has been sent any of a response.
    pub answered: bool,
    /// How many times it was tried again already.
    pub retries: u32,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Try it on another peer. The budget has been charged.
    AnotherPeer,
    /// Try it on a new connection, to the same peer or another. It is not counted as a retry; the
    /// connection must not be a reused one, so that this happens once at most.
    FreshConnection,
    /// Answer with the failure.
    GiveUp(GiveUp),
}

/// Why a request is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// The client has part of a response.
    Answered,
    /// The failure is not one of `retry_on`.
    NotListed,
    /// As many retries as `retries` allows have been made.
    NoneLeft,
    /// The peer may have acted on it, and its method is not idempotent (RFC 9110 §9.2.2).
    NotIdempotent,
    /// Its body has been read away.
    BodyGone,
    /// The pool's retries have reached `retry_budget`.
    Budget,
    /// Every peer that could be used was tried. Not from [`RetryPolicy::decide`], but from who
    /// then finds [`NoPeer`](crate::NoPeer).
    NoOtherPeer,
}

impl GiveUp {
    /// Every reason, for tables of metrics and documentation.
    pub const ALL: [GiveUp; 7] = [
        GiveUp::Answered,
        GiveUp::NotListed,
        GiveUp::NoneLeft,
        GiveUp::NotIdempotent,
        GiveUp::BodyGone,
        GiveUp::Budget,
        GiveUp::NoOtherPeer,
    ];

    /// A short constant name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            GiveUp::Answered => "answered",
            GiveUp::NotListed => "not_listed",
            GiveUp::NoneLeft => "none_left",
            GiveUp::NotIdempotent => "not_idempotent",
            GiveUp::BodyGone => "body_gone",
            GiveUp::Budget => "budget",
            GiveUp::NoOtherPeer => "no_other_peer",
        }
    }

    /// The sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            GiveUp::Answered => "the client has part of a response already",
            GiveUp::NotListed => "this failure is not one of `retry_on`",
            GiveUp::NoneLeft => "it was tried as often as `retries` allows",
            GiveUp::NotIdempotent => "it was sent and its method is not idempotent",
            GiveUp::BodyGone => "its body has been read and no copy was held",
            GiveUp::Budget => "the pool's retries have reached `retry_budget`",
            GiveUp::NoOtherPeer => "there is no other peer to try",
        }
    }
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// Which failures are worth another try: the option `retry_on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// [`Failure::Connect`].
    pub connect: bool,
    /// [`Failure::Reset`], and [`Failure::Stale`] where a fresh connection did not help.
    pub reset: bool,
    /// [`Failure::Timeout`].
    pub timeout: bool,
    /// One bit for each status from 0 to 639.
    statuses: [u64; 10],
}

impl Default for RetryOn {
    /// `connect` and `reset`.
    fn default() -> Self {
        RetryOn {
            connect: true,
            reset: true,
            ..RetryOn::nothing()
        }
    }
}

impl RetryOn {
    /// No failure at all.
    pub const fn nothing() -> RetryOn {
        RetryOn {
            connect: false,
            reset: false,
            timeout: false,
            statuses: [0; 10],
        }
    }

    /// Adds a status; one outside of 100 to 599 is no status and adds nothing.
    pub fn add_status(&mut self, status: u16) {
        if (100..600).contains(&status) {
            self.statuses[usize::from(status / 64)] |= 1 << (status % 64);
        }
    }

    /// Whether it lists a failure.
    pub fn lists(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect => self.connect,
            Failure::Reset | Failure::Stale => self.reset,
            Failure::Timeout => self.timeout,
            Failure::Status(status) => {
                let word = self.statuses.get(usize::from(status / 64));
                word.is_some_and(|word| word >> (status % 64) & 1 == 1)
            }
            Failure::Garbage => false,
        }
    }

    /// Whether it lists any status: only then must a response head be looked at before it is
    /// passed on.
    pub fn has_statuses(&self) -> bool {
        self.statuses.iter().any(|&word| word != 0)
    }
}

/// The options `retries` and `retry_on` of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a request may be tried again, at most [`MAX_RETRIES`].
    pub retries: u32,
    /// After which failures.
    pub on: RetryOn,
}

impl Default for RetryPolicy {
    /// Once, after `connect` and `reset`.
    fn default() -> Self {
        RetryPolicy {
            retries: 1,
            on: RetryOn::default(),
        }
    }
}

impl RetryPolicy {
    /// What to do after a failure. Charges the budget if, and only if, it says
    /// [`Decision::AnotherPeer`].
    pub fn decide(&self, attempt: &Attempt, budget: &RetryBudget, now: Tick) -> Decision {
        match self.allows(attempt) {
            Ok(Decision::AnotherPeer) if !budget.try_retry(now) => Decision::GiveUp(GiveUp::Budget),
            Ok(decision) => decision,
            Err(reason) => Decision::GiveUp(reason),
        }
    }

    /// The decision as far as it does not depend on the budget; for `explain`.
    ///
    /// # Errors
    ///
    /// The reason to give up.
    pub fn allows(&self, attempt: &Attempt) -> Result<Decision, GiveUp> {
        if attempt.answered {
            return Err(GiveUp::Answered);
        }
        let repeatable = match attempt {
            Attempt {
                sent: true,
                idempotent: false,
                ..
            } => Err(GiveUp::NotIdempotent),
            Attempt {
                replayable: false, ..
            } => Err(GiveUp::BodyGone),
            _ => Ok(()),
        };
        // RFC 9112 §9.3.1. Not a peer's failure but a race that reusing connections has, so it
        // needs no leave of the operator; without this, `retries = 0` would mean that now and
        // then a request fails on a pool that has nothing wrong.
        if attempt.failure == Failure::Stale {
            return repeatable.map(|()| Decision::FreshConnection);
        }
        if !self.on.lists(attempt.failure) {
            return Err(GiveUp::NotListed);
        }
        if attempt.retries >= self.retries.min(MAX_RETRIES) {
            return Err(GiveUp::NoneLeft);
        }
        repeatable.map(|()| Decision::AnotherPeer)
    }
}

/// Whether a method may be repeated without asking: RFC 9110 §9.2.2.
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE"
    )
}

/// Keeps the retries of a pool to a share of its traffic, so that a pool in trouble is not given
/// the rest by its own balancer. Shared by all workers; counts over a window of 10 seconds that
/// slides by one.
///
/// Ten retries per second are always allowed, or a pool with little traffic could have none.
/// With a share of nothing there are none at all.
#[derive(Debug)]
pub struct RetryBudget {
    share: Share,
    /// One second each: its number, how many requests, how many retries; see [`Second`].
    seconds: [AtomicU64; WINDOW_SECONDS],
}

impl RetryBudget {
    /// Retries up to this share of the requests.
    pub fn new(share: Share) -> RetryBudget {
        RetryBudget {
            share,
            seconds: [const { AtomicU64::new(0) }; WINDOW_SECONDS],
        }
    }

    /// The share.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Counts a request that is sent for the first time.
    pub fn handle_request(&self, now: Tick) {
        self.update(now, |second| {
            second.requests = second.requests.saturating_add(1)
        });
    }

    /// Counts a retry if the budget allows one more, and says whether it does.
    #[must_use]
    pub fn try_retry(&self, now: Tick) -> bool {
        if self.share == Share::NONE {
            return false;
        }
        // Counted first and taken back if it was too much: so workers that ask at the same
        // moment may refuse one too many, but never allow one.
        let mine = self.update(now, |second| {
            second.retries = second.retries.saturating_add(1)
        });
        let (requests, retries) = self.counts(now);
        let allowed = mine.retries <= RETRIES_PER_SECOND
            || u64::from(retries) <= self.share.of(requests.into());
        if !allowed {
            self.update(now, |second| {
                second.retries = second.retries.saturating_sub(1)
            });
        }
        allowed
    }

    /// Requests and retries within the window.
    pub fn counts(&self, now: Tick) -> (u32, u32) {
        let number = second_number(now);
        let seconds = self
            .seconds
            .iter()
            .map(|word| Second::unpack(word.load(Relaxed)));
        // Numbers wrap around; those of the window are the last ones before and with `number`.
        let within =
            seconds.filter(|second| number.wrapping_sub(second.number) & NUMBER_MASK < WINDOW);
        within.fold((0, 0), |(requests, retries), second| {
            (requests + second.requests, retries + second.retries)
        })
    }

    fn update(&self, now: Tick, change: impl Fn(&mut Second)) -> Second {
        let number = second_number(now);
        let place = usize::try_from(now.as_millis() / 1000 % u64::from(WINDOW)).unwrap_or(0);
        let word = &self.seconds[place];
        let mut old = word.load(Relaxed);
        loop {
            let mut second = Second::unpack(old);
            if second.number != number {
                second = Second {
                    number,
                    requests: 0,
                    retries: 0,
                };
            }
            change(&mut second);
            match word.compare_exchange_weak(old, second.pack(), Relaxed, Relaxed) {
                Ok(_) => return second,
                Err(now) => old = now,
            }
        }
    }
}

/// What one second counted, packed into a word so that it changes and expires as a whole: 16 bits
/// of its number, 24 of requests, 24 of retries.
#[derive(Clone, Copy)]
struct Second {
    number: u32,
    requests: u32,
    retries: u32,
}

impl Second {
    fn unpack(word: u64) -> Second {
        let field = |shift: u32, bits: u32| {
            u32::try_from(word >> shift & ((1 << bits) - 1)).unwrap_or(u32::MAX)
        };
        Second {
            number: field(48, 16),
            requests: field(24, 24),
            retries: field(0, 24),
        }
    }

    fn pack(self) -> u64 {
        let most = (1 << 24) - 1;
        u64::from(self.number) << 48
            | u64::from(self.requests.min(most)) << 24
            | u64::from(self.retries.min(most))
    }
}

/// Counted from 1, so that a word of zeros is not the first second after the start.
fn second_number(now: Tick) -> u32 {
    let number = now.as_millis() / 1000 + u64::from(WINDOW);
    u32::try_from(number & u64::from(NUMBER_MASK)).unwrap_or(0)
}

/// The most retries of one request.
pub const MAX_RETRIES: u32 = 5;

/// Always allowed, by the whole pool, as in Finagle's budget. A peer that dies fails `eject.errors`
/// requests, 5 unless told otherwise, before it is left alone: with fewer retries than that a pool
/// with little traffic would lose some of them.
const RETRIES_PER_SECOND: u32 = 10;

const WINDOW_SECONDS: usize = 10;
const WINDOW: u32 = 10;
const NUMBER_MASK: u32 = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    const GET: Attempt = Attempt {
        failure: Failure::Connect,
        sent: false,
        idempotent: true,
        replayable: true,
        answered: false,
        retries: 0,
    };

    #[track_caller]
    fn check(attempt: Attempt, expected: Result<Decision, GiveUp>) {
        assert_eq!(
            RetryPolicy::default().allows(&attempt),
            expected,
            "{attempt:?}"
        );
    }

    #[test]
    fn by_default_connect_and_reset_are_tried_once_more() {
        let again = Ok(Decision::AnotherPeer);
        check(GET, again);
        check(
            Attempt {
                failure: Failure::Reset,
                sent: true,
                ..GET
            },
            again,
        );
        check(Attempt { retries: 1, ..GET }, Err(GiveUp::NoneLeft));
        for failure in [Failure::Timeout, Failure::Status(503), Failure::Garbage] {
            check(Attempt { failure, ..GET }, Err(GiveUp::NotListed));
        }
    }

    #[test]
    fn rfc9110_9_2_2_what_may_have_been_acted_on_is_not_repeated() {
        let post = Attempt {
            idempotent: false,
            ..GET
        };
        check(post, Ok(Decision::AnotherPeer));
        check(
            Attempt {
                failure: Failure::Reset,
                sent: true,
                ..post
            },
            Err(GiveUp::NotIdempotent),
        );
        for (method, expected) in [
            ("GET", true),
            ("PUT", true),
            ("POST", false),
            ("PATCH", false),
            ("get", false),
        ] {
            assert_eq!(is_idempotent(method.as_bytes()), expected, "{method}");
        }
    }

    #[test]
    fn a_body_that_is_gone_and_a_response_that_has_begun_end_it() {
        check(
            Attempt {
                replayable: false,
                ..GET
            },
            Err(GiveUp::BodyGone),
        );
        check(
            Attempt {
                answered: true,
                ..GET
            },
            Err(GiveUp::Answered),
        );
        check(
            Attempt {
                failure: Failure::Stale,
                answered: true,
                ..GET
            },
            Err(GiveUp::Answered),
        );
    }

    #[test]
    fn rfc9112_9_3_1_a_stale_connection_is_replaced_without_counting() {
        let stale = Attempt {
            failure: Failure::Stale,
            sent: true,
            retries: 1,
            ..GET
        };
        check(stale, Ok(Decision::FreshConnection));
        check(
            Attempt {
                idempotent: false,
                ..stale
            },
            Err(GiveUp::NotIdempotent),
        );
        check(
            Attempt {
                replayable: false,
                ..stale
            },
            Err(GiveUp::BodyGone),
        );
        let never = RetryPolicy {
            retries: 0,
            on: RetryOn::nothing(),
        };
        let nothing_left = RetryBudget::new(Share::NONE);
        assert_eq!(
            never.decide(&stale, &nothing_left, at(0)),
            Decision::FreshConnection
        );
    }

    #[test]
    fn statuses_are_tried_again_where_listed() {
        let mut on = RetryOn::nothing();
        assert!(!on.has_statuses());
        for status in [503, 504, 100, 599, 99, 600, u16::MAX] {
            on.add_status(status);
        }
        assert!(on.has_statuses());
        for status in [503, 504, 100, 599] {
            assert!(on.lists(Failure::Status(status)), "{status}");
        }
        for status in [0, 99, 200, 502, 505, 600, u16::MAX] {
            assert!(!on.lists(Failure::Status(status)), "{status}");
        }
        let policy = RetryPolicy { retries: 9, on };
        let attempt = Attempt {
            failure: Failure::Status(503),
            sent: true,
            ..GET
        };
        assert_eq!(policy.allows(&attempt), Ok(Decision::AnotherPeer));
        let attempt = Attempt {
            retries: MAX_RETRIES,
            ..attempt
        };
        assert_eq!(policy.allows(&attempt), Err(GiveUp::NoneLeft));
    }

    #[test]
    fn the_budget_is_a_share_of_the_window() {
        let budget = RetryBudget::new(Share::percent(20));
        for _ in 0..1_000 {
            budget.handle_request(at(500));
        }
        let allowed = (0..1_000).filter(|_| budget.try_retry(at(1_500))).count();
        assert_eq!(allowed, 200);
        assert_eq!(budget.counts(at(9_999)), (1_000, 200));
        // The requests have left the window, the retries not yet: nothing but the few.
        let allowed = (0..1_000).filter(|_| budget.try_retry(at(10_500))).count();
        assert_eq!(allowed, 10);
        assert_eq!(budget.counts(at(30_000)), (0, 0));
    }

    #[test]
    fn little_traffic_may_retry_a_few_times_per_second() {
        let budget = RetryBudget::new(Share::percent(20));
        for second in 0..20 {
            budget.handle_request(at(second * 1_000));
            let allowed = (0..20)
                .filter(|_| budget.try_retry(at(second * 1_000 + 999)))
                .count();
            assert_eq!(allowed, 10, "in second {second}");
        }
    }

    #[test]
    fn without_a_share_there_is_no_retry() {
        let budget = RetryBudget::new(Share::NONE);
        budget.handle_request(at(0));
        assert!(!budget.try_retry(at(0)));
        let policy = RetryPolicy::default();
        assert_eq!(
            policy.decide(&GET, &budget, at(0)),
            Decision::GiveUp(GiveUp::Budget)
        );
    }

    #[test]
    fn seconds_are_told_apart_when_their_numbers_wrap() {
        let budget = RetryBudget::new(Share::ALL);
        let wrap = (0x1_0000 - u64::from(WINDOW)) * 1_000;
        for millis in [wrap - 2_000, wrap - 1_000, wrap, wrap + 1_000] {
            budget.handle_request(at(millis));
        }
        assert_eq!(budget.counts(at(wrap + 1_000)), (4, 0));
        assert_eq!(budget.counts(at(wrap + 9_000)), (2, 0));
        assert_eq!(budget.counts(at(wrap + 12_000)), (0, 0));
    }

    #[test]
    fn many_threads_do_not_pass_the_budget() {
        let budget = RetryBudget::new(Share::percent(20));
        for _ in 0..10_000 {
            budget.handle_request(at(0));
        }
        let allowed: usize = std::thread::scope(|scope| {
            let ask = || (0..5_000).filter(|_| budget.try_retry(at(0))).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert!((1_990..=2_000).contains(&allowed), "{allowed}");
    }

    #[test]
    fn every_reason_has_a_name_and_a_sentence_of_its_own() {
        let names: std::collections::HashSet<_> =
            GiveUp::ALL.iter().map(|why| why.name()).collect();
        let texts: std::collections::HashSet<_> =
            GiveUp::ALL.iter().map(|why| why.to_string()).collect();
        assert_eq!(
            (names.len(), texts.len()),
            (GiveUp::ALL.len(), GiveUp::ALL.len())
        );
    }
}
