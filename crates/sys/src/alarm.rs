//! A time that an event loop waits for as it waits for a socket: a timer of the kernel
//! (timerfd_create(2)), whose descriptor is readable from the time on that it was set for. Only
//! Linux has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// One that is not set.
///
/// # Errors
/// When there is no descriptor left.
pub fn create() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    Ok(timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

/// Has it ring at `at_ms` on the scale of [`crate::clock::precise_ms`], at once if that is past, and
/// not at the time that it was set for before. An earlier ring that nobody has noticed is forgotten.
///
/// # Errors
/// When it is no such timer.
pub fn set(alarm: impl AsFd, at_ms: u64) -> io::Result<()> {
    // Of all zeros it would be switched off.
    let at_ms = i64::try_from(at_ms.max(1)).unwrap_or(i64::MAX);
    let once = Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: Timespec {
            tv_sec: at_ms / 1_000,
            tv_nsec: at_ms % 1_000 * 1_000_000,
        },
    };
    timerfd_settime(alarm, TimerfdTimerFlags::ABSTIME, &once)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::{create, set};
    use crate::clock::precise_ms;

    /// Whether it rings within so many milliseconds.
    fn rings_within(alarm: &OwnedFd, millis: i64) -> bool {
        let within = rustix::time::Timespec {
            tv_sec: millis / 1_000,
            tv_nsec: millis % 1_000 * 1_000_000,
        };
        poll(&mut [PollFd::new(alarm, PollFlags::IN)], Some(&within)).unwrap() == 1
    }

    #[test]
    fn it_rings_at_its_time_not_before_and_until_it_is_set_anew() {
        let alarm = create().unwrap();
        assert!(!rings_within(&alarm, 0));
        let start = precise_ms();
        set(&alarm, start + 20).unwrap();
        assert!(rings_within(&alarm, 10_000));
        assert!(precise_ms() >= start + 20);
        assert!(rings_within(&alarm, 0));
        set(&alarm, precise_ms() + 3_600_000).unwrap();
        assert!(!rings_within(&alarm, 0));
    }

    #[test]
    fn a_time_that_is_past_rings_at_once() {
        let alarm = create().unwrap();
        for at_ms in [0, 1, precise_ms()] {
            set(&alarm, at_ms).unwrap();
            assert!(rings_within(&alarm, 10_000), "{at_ms}");
        }
        set(&alarm, u64::MAX).unwrap();
        assert!(!rings_within(&alarm, 0));
    }
}
