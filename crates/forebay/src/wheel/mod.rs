//! The times of a worker: one wheel in which every connection and exchange keeps its deadlines.
//!
//! A server sets deadlines all the time and hardly ever meets one. So setting must cost nothing:
//! a deadline that moves to a later time, or is cleared, is one store into its entry; the entry
//! stays in the slot of the earlier time, and when that slot comes up it is looked at and put
//! where it belongs by then. A busy connection with an idle time of 60 s is moved once a minute,
//! however often it sets it. Only a deadline that moves to an *earlier* time is taken out of one
//! list and put into another, which is O(1), too.
//!
//! ```text
//!   level 0: 256 slots of    4 ms  |  the next second
//!   level 1: 256 slots of 1024 ms  |  the next 4 minutes
//!   level 2: 256 slots of  262 s   |  the next 18 hours; what is later waits in the last slot
//! ```
//!
//! When the first tick of a slot of level 1 or 2 comes, its entries are dealt out to the levels
//! below. Bitmaps tell which slots hold anything, so nothing is done for empty ones, and a worker
//! without deadlines sleeps for good. (The idea: Varghese and Lauck, "Hashed and Hierarchical
//! Timing Wheels", 1987, scheme 6.)
//!
//! Times are milliseconds on the scale of [`clock::coarse_ms`]. A deadline never expires before its
//! time, and is seen at most 4 ms after it, plus what the event loop is late. (Counted from a
//! coarse time, that time itself is up to a kernel tick early.)

mod alarm;
mod slots;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_sys::clock;
use pin_project_lite::pin_project;

use self::alarm::Alarm;
use self::slots::{Batch, LAST_MS, NEVER, Set, Slots, TICK_MS};
use crate::exchange::guard;

/// The wheel of one worker. Not shared between threads.
pub struct Wheel {
    slots: RefCell<Slots>,
    driver: RefCell<Option<Waker>>,
    /// The tick until which the driver sleeps; 0 if it is about to run.
    asleep_until: Cell<u64>,
}

impl Wheel {
    /// Waits for as long, on a worker.
    pub async fn sleep(self: &Rc<Self>, duration: Duration) {
        let deadline = self.register();
        deadline.set(clock::coarse_ms(), duration);
        deadline.wait().await;
    }

    /// An empty wheel whose time starts at `now_ms`.
    pub fn new(now_ms: u64) -> Rc<Self> {
        Rc::new(Self {
            slots: RefCell::new(Slots::new(now_ms)),
            driver: RefCell::new(None),
            asleep_until: Cell::new(0),
        })
    }

    /// A new deadline, not set. Its entry (48 bytes) is given back when it is dropped.
    pub fn register(self: &Rc<Self>) -> Deadline {
        let index = self.slots.borrow_mut().allocate();
        Deadline {
            wheel: Rc::clone(self),
            index,
        }
    }

    /// Tells the time and wakes everyone whose deadline has come. Time never goes backwards: an
    /// earlier `now_ms` than one told before counts as that one.
    #[cfg(test)]
    pub fn advance(&self, now_ms: u64) {
        while self.advance_a_bit(now_ms) {}
    }

    /// The earliest time at which anything can be due, or `None` if nothing is set. May be too
    /// early by what deadlines have moved since, never too late.
    pub fn next_due(&self) -> Option<u64> {
        self.slots
            .borrow_mut()
            .next_event()
            .map(|tick| tick * TICK_MS)
    }

    /// How many deadlines are registered.
    #[cfg(test)]
    pub fn registered(&self) -> usize {
        self.slots.borrow().registered
    }

    /// Wakes at most [`Batch`] of those who are due; whether there may be more.
    fn advance_a_bit(&self, now_ms: u64) -> bool {
        let mut due = Batch::new();
        let more = self.slots.borrow_mut().advance(now_ms, &mut due);
        // Waking may run code that uses the wheel, so nothing is borrowed here.
        due.wake();
        more
    }

    /// The driver goes to sleep until `tick`.
    fn park(&self, tick: u64, waker: &Waker) {
        self.asleep_until.set(tick);
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *driver = Some(waker.clone());
        }
    }

    /// An entry now waits for `tick`: is the driver awake in time?
    fn linked_at(&self, tick: u64) {
        if tick < self.asleep_until.get() {
            self.asleep_until.set(0);
            let waker = self.driver.borrow().clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// One deadline: belongs to one task, which sets it again and again for whatever it waits for next.
pub struct Deadline {
    wheel: Rc<Wheel>,
    index: u32,
}

impl Deadline {
    /// Sets the deadline to `duration` after `now_ms` (the caller's cached time will do), whatever
    /// it was before. Rounded up to milliseconds; years away is fine.
    pub fn set(&self, now_ms: u64, duration: Duration) {
        let mut millis = duration.as_secs().saturating_mul(1_000);
        millis = millis.saturating_add(u64::from(duration.subsec_nanos().div_ceil(1_000_000)));
        let at_ms = now_ms.saturating_add(millis).min(LAST_MS);
        let set = self.wheel.slots.borrow_mut().set(self.index, now_ms, at_ms);
        match set {
            Set::Stays => {}
            Set::Linked(tick) => self.wheel.linked_at(tick),
            Set::Due(Some(waker)) => waker.wake(),
            Set::Due(None) => {}
        }
    }

    /// The deadline is off: it does not expire until it is set again.
    pub fn clear(&self) {
        self.wheel.slots.borrow_mut().entry(self.index).at_ms = NEVER;
    }

    /// Whether it is set and its time has come, by what the wheel was last told. Stays so until it
    /// is set again or cleared.
    #[cfg(test)]
    pub fn expired(&self) -> bool {
        self.wheel.slots.borrow_mut().expired(self.index)
    }

    /// Whether it is set, expired or not.
    pub fn is_set(&self) -> bool {
        self.wheel.slots.borrow_mut().entry(self.index).at_ms != NEVER
    }

    /// Ready once [`Deadline::expired`]; until then the task is woken when it expires. A deadline
    /// that is not set never is, but the task stays known for when it is set.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut slots = self.wheel.slots.borrow_mut();
            if slots.expired(self.index) {
                return Poll::Ready(());
            }
            let waker = &slots.entry(self.index).waker;
            if waker.as_ref().is_some_and(|old| old.will_wake(cx.waker())) {
                return Poll::Pending;
            }
        }
        // Cloning and dropping a waker may run code that uses the wheel.
        let new = Some(cx.waker().clone());
        let old = std::mem::replace(
            &mut self.wheel.slots.borrow_mut().entry(self.index).waker,
            new,
        );
        drop(old);
        Poll::Pending
    }

    /// Waits until it expires.
    pub async fn wait(&self) {
        poll_fn(|cx| self.poll_expired(cx)).await;
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let waker = self.wheel.slots.borrow_mut().release(self.index);
        // The last waker of a task drops the task, and with it perhaps other deadlines.
        drop(waker);
    }
}

/// A time has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

pin_project! {
    /// See [`timeout`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Timeout<'a, F> {
        deadline: &'a Deadline,
        #[pin]
        future: F,
    }

    impl<F> PinnedDrop for Timeout<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            // Nobody waits for it any more, and the next one to use the deadline must not find it
            // expired.
            this.deadline.clear();
        }
    }
}

/// Runs `future` for at most `duration` from `now_ms` on. The deadline is set at once, and cleared
/// when the result is dropped. If both happen at the same time, the future wins.
pub fn timeout<F: Future>(
    deadline: &Deadline,
    now_ms: u64,
    duration: Duration,
    future: F,
) -> Timeout<'_, F> {
    deadline.set(now_ms, duration);
    Timeout { deadline, future }
}

impl<F: Future> Future for Timeout<'_, F> {
    type Output = Result<F::Output, Expired>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        this.deadline.poll_expired(cx).map(|()| Err(Expired))
    }
}

/// What runs the wheel of a worker: a task of its own on the worker's runtime, which sleeps until
/// something can be due, and for good while nothing is set. Never ends.
///
/// # Errors
/// When there is no descriptor left for its alarm.
pub fn driver(wheel: Rc<Wheel>) -> io::Result<impl Future<Output = ()>> {
    let alarm = Alarm::new()?;
    Ok(async move { drive(&wheel, alarm, clock::precise_ms).await })
}

/// Runs it, by a clock that must be a precise one: a coarse clock is behind when the sleep is over,
/// and we would sleep again, a millisecond at a time.
async fn drive(wheel: &Wheel, mut alarm: Alarm, clock: impl Fn() -> u64) {
    poll_fn(|cx| {
        loop {
            let now_ms = clock();
            wheel.asleep_until.set(0);
            // When very many are due at once, those who were woken have their turn in between.
            if wheel.advance_a_bit(now_ms) {
                guard::end_turn(cx);
                return Poll::Pending;
            }
            let Some(due_ms) = wheel.next_due() else {
                wheel.park(u64::MAX, cx.waker());
                return Poll::Pending;
            };
            wheel.park(due_ms / TICK_MS, cx.waker());
            if alarm.poll_rings(cx, due_ms).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

const _: () = assert!(size_of::<Deadline>() <= 16);
