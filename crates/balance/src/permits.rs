//! A limit on how much happens at once, shared by all workers.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// At most `limit` permits are out at any time. Acquiring and giving back are one atomic
/// operation each; nobody waits here.
#[derive(Debug)]
pub struct Permits {
    used: AtomicU32,
    limit: u32,
}

impl Permits {
    /// All permits in, none out.
    pub const fn new(limit: u32) -> Permits {
        Permits {
            used: AtomicU32::new(0),
            limit,
        }
    }

    /// Takes one permit, if one is in. Who gets `true` must call [`Permits::release`] once.
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        let take = |used: u32| (used < self.limit).then_some(used + 1);
        self.used.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Gives one permit back. To give back what was never taken is a bug of the caller; in a
    /// release build it changes nothing.
    pub fn release(&self) {
        // Not relaxed, for the sake of whoever looks for waiting ones next: see `WaitQueue`.
        let given_back = self
            .used
            .fetch_update(SeqCst, Relaxed, |used| used.checked_sub(1));
        debug_assert!(
            given_back.is_ok(),
            "a permit was given back that nobody had"
        );
    }

    /// How many are out.
    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// How many there are.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether none is left.
    pub fn is_full(&self) -> bool {
        self.used() >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn no_more_are_out_than_there_are() {
        let permits = Permits::new(2);
        assert!(permits.try_acquire() && permits.try_acquire());
        assert!(!permits.try_acquire() && permits.is_full());
        permits.release();
        assert!(permits.try_acquire());
        assert!(!Permits::new(0).try_acquire());
        assert!(Permits::new(u32::MAX).try_acquire());
    }

    #[test]
    fn many_threads_keep_the_limit_and_lose_nothing() {
        let permits = Permits::new(3);
        let inside = AtomicU32::new(0);
        let broken = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if permits.try_acquire() {
                            if inside.fetch_add(1, Relaxed) >= 3 {
                                broken.store(true, Relaxed);
                            }
                            inside.fetch_sub(1, Relaxed);
                            permits.release();
                        }
                    }
                });
            }
        });
        assert!(!broken.into_inner());
        assert_eq!(permits.used(), 0);
    }
}
