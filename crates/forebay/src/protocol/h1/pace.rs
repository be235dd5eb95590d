//! The least speed of a client: 1 KB/s, over 30 s in which nobody waited but we.
//!
//! A stall is found by a deadline between two reads or writes. This finds the client that moves a
//! byte just before each deadline. Only the time counts in which we had to wait for it: a body that
//! is slow because its peer does not take it is not the client's fault.

/// Bytes per second that a client must move.
const LEAST_RATE: u64 = 1024;

/// Time of waiting after which the rate is looked at.
const WINDOW_MS: u64 = 30_000;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Since when we have been waiting for the client; none: we are not.
    since_ms: Option<u64>,
    waited_ms: u64,
    bytes: u64,
}

impl Pace {
    /// We wait for the client.
    pub fn wait(&mut self, now_ms: u64) {
        self.since_ms.get_or_insert(now_ms);
    }

    /// True while we wait for the client.
    pub fn is_waiting(&self) -> bool {
        self.since_ms.is_some()
    }

    /// The client has moved so many bytes. False: it is too slow.
    pub fn moved(&mut self, now_ms: u64, bytes: u64) -> bool {
        if let Some(since) = self.since_ms.take() {
            self.waited_ms += now_ms.saturating_sub(since);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited_ms < WINDOW_MS {
            return true;
        }
        let enough = self.bytes >= LEAST_RATE * (self.waited_ms / 1000);
        *self = Pace::default();
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves `bytes` every `every_ms`; says when it was found too slow.
    fn found_after(bytes: u64, every_ms: u64) -> Option<u64> {
        let mut pace = Pace::default();
        let mut now = 0;
        while now < 120_000 {
            pace.wait(now);
            now += every_ms;
            if !pace.moved(now, bytes) {
                return Some(now);
            }
        }
        None
    }

    #[test]
    fn a_byte_at_a_time_is_too_slow_after_the_window() {
        assert_eq!(found_after(1, 1_000), Some(30_000));
        assert_eq!(found_after(100, 500), Some(30_000));
    }

    #[test]
    fn the_least_rate_is_enough() {
        assert_eq!(found_after(1_024, 1_000), None);
        assert_eq!(found_after(10_240, 1_000), None);
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_client_does_not_count() {
        let mut pace = Pace::default();
        for now in (0..600_000).step_by(1_000) {
            assert!(pace.moved(now, 1));
        }
    }
}
