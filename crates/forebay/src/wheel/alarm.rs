//! What wakes the wheel's driver when something can be due.
//!
//! Not the runtime's own timers: with those the runtime reads the clock twice each time that it
//! looks for events, and the kernel once more and sets a timer of its own for the time limit of
//! that look. That is 3 % of what a short request over a few connections costs, and a worker looks
//! more than once per request then. A timer of the kernel is just one more descriptor, of which
//! nothing is heard before its time, and it is set a few times a second.

use std::io;
use std::task::{Context, Poll};

#[cfg(target_os = "linux")]
use forebay_sys::alarm;
#[cfg(target_os = "linux")]
use tokio::net::unix::pipe::Receiver;

/// An alarm, on a timer of the kernel.
#[cfg(target_os = "linux")]
pub struct Alarm {
    /// It is no pipe, but what the runtime does with one is all that is needed here: it watches a
    /// descriptor, and reads what is there.
    timer: Receiver,
    /// When it will ring; [`u64::MAX`] if it has rung or was never set.
    at_ms: u64,
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            timer: Receiver::from_owned_fd_unchecked(alarm::create()?)?,
            at_ms: u64::MAX,
        })
    }

    /// Waits for `due_ms`; may ring earlier, for a time that was waited for before: who is woken
    /// for nothing once sets it less often.
    pub fn poll_rings(&mut self, cx: &mut Context<'_>, due_ms: u64) -> Poll<()> {
        if due_ms < self.at_ms {
            match alarm::set(&self.timer, due_ms) {
                Ok(()) => self.at_ms = due_ms,
                // Nothing that the kernel could mind depends on the time.
                Err(error) => tracing::error!(%error, "the timer of a worker cannot be set"),
            }
        }
        loop {
            // It fails only when the runtime ends.
            let Ok(()) = std::task::ready!(self.timer.poll_read_ready(cx)) else {
                return Poll::Pending;
            };
            // How often it has rung. If it has not, the runtime now knows that, too.
            let mut times = [0; 8];
            if self.timer.try_read(&mut times).is_ok() {
                self.at_ms = u64::MAX;
                return Poll::Ready(());
            }
        }
    }
}

/// An alarm, on a timer of the runtime.
#[cfg(not(target_os = "linux"))]
pub struct Alarm(std::pin::Pin<Box<tokio::time::Sleep>>);

#[cfg(not(target_os = "linux"))]
impl Alarm {
    #[expect(clippy::unnecessary_wraps, reason = "the other one can fail")]
    pub fn new() -> io::Result<Self> {
        Ok(Self(Box::pin(tokio::time::sleep(
            std::time::Duration::ZERO,
        ))))
    }

    pub fn poll_rings(&mut self, cx: &mut Context<'_>, due_ms: u64) -> Poll<()> {
        let wait = due_ms
            .saturating_sub(forebay_sys::clock::precise_ms())
            .max(1);
        let wait = std::time::Duration::from_millis(wait);
        self.0.as_mut().reset(tokio::time::Instant::now() + wait);
        std::future::Future::poll(self.0.as_mut(), cx)
    }
}
