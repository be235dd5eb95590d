//! Requests that wait for a full pool.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::units::Tick;

/// Who waits, in which order they leave, and who is refused when too many do. Of one pool; `T` is
/// whatever wakes the request.
///
/// They leave by priority (0 first), and within one priority in the order in which they came.
/// When the queue is full, the one who has waited longest, among those of the worst priority, is
/// refused: it is the least likely to be still wanted, and the one whose time runs out next.
///
/// It is not shared by itself; where workers share one, it stands under a lock. So that no wake-up
/// is lost between pool and queue: who finds the pool full pushes, and then asks the pool once
/// more (and cancels if there is a permit after all); who gives a permit back looks into the queue
/// after it, whether or not the pool was full. If that look is at a count beside the lock, the
/// count is written before the lock is let go, and written and read with `SeqCst`: then one of
/// the two sees the other.
#[derive(Clone, Debug)]
pub struct WaitQueue<T> {
    waiting: BTreeMap<Ticket, Waiting<T>>,
    limit: usize,
    timeout: Duration,
    next: u64,
}

#[derive(Clone, Debug)]
struct Waiting<T> {
    until: Tick,
    token: T,
}

/// A place in a [`WaitQueue`]; the order of tickets is that of leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    priority: u8,
    number: u64,
}

/// What became of a request that came to a [`WaitQueue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed<T> {
    /// It waits.
    Waits(Ticket),
    /// It waits in the place of another, which is refused.
    Displaced {
        /// The place of the one that came.
        ticket: Ticket,
        /// The one that is refused.
        refused: T,
    },
    /// It is refused itself: all who wait have a better priority, or nobody may wait.
    Refused(T),
}

impl<T> WaitQueue<T> {
    /// At most `limit` wait, each for `timeout` at most.
    pub fn new(limit: usize, timeout: Duration) -> WaitQueue<T> {
        WaitQueue {
            waiting: BTreeMap::new(),
            limit,
            timeout,
            next: 0,
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts a request at the end of its priority: 0 leaves first, [`WORST_PRIORITY`] last (what is
    /// above counts as that).
    pub fn push(&mut self, priority: u8, now: Tick, token: T) -> Pushed<T> {
        let ticket = Ticket {
            priority: priority.min(WORST_PRIORITY),
            number: self.next,
        };
        let mut refused = None;
        if self.waiting.len() >= self.limit {
            let Some(victim) = self
                .first_of_worst()
                .filter(|v| v.priority >= ticket.priority)
            else {
                return Pushed::Refused(token);
            };
            refused = self.cancel(victim);
        }
        self.next += 1;
        self.waiting.insert(
            ticket,
            Waiting {
                until: now + self.timeout,
                token,
            },
        );
        self.check_invariants();
        match refused {
            Some(refused) => Pushed::Displaced { ticket, refused },
            None => Pushed::Waits(ticket),
        }
    }

    /// Takes out the one whose turn it is. One whose time has run out is not skipped: it may
    /// well be served, until [`WaitQueue::poll_expired`] has taken it out.
    pub fn poll_next(&mut self) -> Option<T> {
        self.waiting.pop_first().map(|(_, waiting)| waiting.token)
    }

    /// Takes out one whose time has run out; to be called until there is none.
    pub fn poll_expired(&mut self, now: Tick) -> Option<T> {
        let (ticket, until) = self.soonest()?;
        if until > now {
            return None;
        }
        self.cancel(ticket)
    }

    /// When [`WaitQueue::poll_expired`] has something next.
    pub fn next_expiry(&self) -> Option<Tick> {
        self.soonest().map(|(_, until)| until)
    }

    /// Takes out the one with this ticket, if it still waits: its client has left.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        self.waiting.remove(&ticket).map(|waiting| waiting.token)
    }

    /// Within a priority the first one came first, and all wait for the same time.
    fn soonest(&self) -> Option<(Ticket, Tick)> {
        (0..=WORST_PRIORITY)
            .filter_map(|priority| self.first_of(priority))
            .min_by_key(|&(ticket, until)| (until, ticket.number))
    }

    fn first_of(&self, priority: u8) -> Option<(Ticket, Tick)> {
        let range = Ticket {
            priority,
            number: 0,
        }..=Ticket {
            priority,
            number: u64::MAX,
        };
        self.waiting
            .range(range)
            .next()
            .map(|(&ticket, waiting)| (ticket, waiting.until))
    }

    fn first_of_worst(&self) -> Option<Ticket> {
        let (worst, _) = self.waiting.last_key_value()?;
        self.first_of(worst.priority).map(|(ticket, _)| ticket)
    }

    fn check_invariants(&self) {
        debug_assert!(self.waiting.len() <= self.limit);
        debug_assert!(self.waiting.keys().all(|ticket| ticket.number < self.next));
    }
}

/// Priorities are 0 to 9.
pub const WORST_PRIORITY: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    fn queue(limit: usize) -> WaitQueue<&'static str> {
        WaitQueue::new(limit, Duration::from_secs(10))
    }

    #[test]
    fn they_leave_by_priority_then_in_the_order_they_came() {
        let mut queue = queue(10);
        for (priority, token) in [(5, "a"), (5, "b"), (0, "c"), (9, "d"), (5, "e"), (200, "f")] {
            assert!(matches!(
                queue.push(priority, at(0), token),
                Pushed::Waits(_)
            ));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.poll_next()).collect();
        assert_eq!(order, ["c", "a", "b", "e", "d", "f"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn when_full_who_has_waited_longest_of_the_worst_is_refused() {
        let mut queue = queue(3);
        for (priority, token) in [(5, "a"), (7, "b"), (7, "c")] {
            queue.push(priority, at(0), token);
        }
        assert!(matches!(
            queue.push(5, at(1), "d"),
            Pushed::Displaced { refused: "b", .. }
        ));
        assert!(matches!(
            queue.push(7, at(1), "e"),
            Pushed::Displaced { refused: "c", .. }
        ));
        assert_eq!(queue.push(8, at(1), "f"), Pushed::Refused("f"));
        assert_eq!(queue.len(), 3);
        assert_eq!(
            super::WaitQueue::new(0, Duration::ZERO).push(0, at(0), 1),
            Pushed::Refused(1)
        );
    }

    #[test]
    fn time_runs_out_for_whoever_came_first_whatever_its_priority() {
        let mut queue = queue(10);
        queue.push(9, at(1), "old");
        queue.push(0, at(2), "young");
        assert_eq!(queue.next_expiry(), Some(at(10_001)));
        assert_eq!(queue.poll_expired(at(10_000)), None);
        assert_eq!(queue.poll_expired(at(10_001)), Some("old"));
        assert_eq!(queue.poll_expired(at(10_001)), None);
        assert_eq!(queue.poll_expired(at(99_999)), Some("young"));
        assert_eq!(
            (queue.poll_expired(at(99_999)), queue.next_expiry()),
            (None, None)
        );
    }

    #[test]
    fn who_leaves_is_taken_out_once() {
        let mut queue = queue(10);
        let Pushed::Waits(ticket) = queue.push(5, at(0), "a") else {
            panic!("there was room")
        };
        queue.push(5, at(0), "b");
        assert_eq!(queue.cancel(ticket), Some("a"));
        assert_eq!(queue.cancel(ticket), None);
        assert_eq!(queue.poll_next(), Some("b"));
    }
}
