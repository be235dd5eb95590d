//! Active health: so many checks in a row decide.

/// What the checks of a peer say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// It may be used.
    Up,
    /// It is not used.
    Down,
}

/// Counts checks that contradict the present state.
///
/// ```text
///          `down` failures in a row
///     Up ────────────────────────────▶ Down
///      ▲                                 │
///      └─────────────────────────────────┘
///           `up` successes in a row
/// ```
///
/// A new peer is up until its checks say otherwise: a server that starts must not refuse
/// everything for the length of its first checks.
#[derive(Clone, Debug)]
pub struct HealthCounter {
    up: u32,
    down: u32,
    state: Health,
    /// Results in a row against `state`.
    against: u32,
}

impl HealthCounter {
    /// `up` successes in a row make it up, `down` failures in a row make it down; 0 counts as 1.
    pub fn new(up: u32, down: u32) -> HealthCounter {
        HealthCounter {
            up: up.max(1),
            down: down.max(1),
            state: Health::Up,
            against: 0,
        }
    }

    /// The present state.
    pub fn state(&self) -> Health {
        self.state
    }

    /// Takes in one result; returns the new state if it changed.
    pub fn handle_check(&mut self, passed: bool) -> Option<Health> {
        let (says, needed) = match passed {
            true => (Health::Up, self.up),
            false => (Health::Down, self.down),
        };
        if says == self.state {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.state = says;
        self.against = 0;
        Some(says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_row_of_results_changes_the_state() {
        let mut counter = HealthCounter::new(2, 3);
        let results = "--+---+-++--++---";
        let expected = "     D   U      D";
        for (at, (result, expected)) in results.chars().zip(expected.chars()).enumerate() {
            let changed = match expected {
                'D' => Some(Health::Down),
                'U' => Some(Health::Up),
                _ => None,
            };
            assert_eq!(counter.handle_check(result == '+'), changed, "at {at}");
        }
    }

    #[test]
    fn one_result_is_enough_if_so_configured() {
        let mut counter = HealthCounter::new(0, 1);
        assert_eq!(counter.handle_check(false), Some(Health::Down));
        assert_eq!(counter.handle_check(true), Some(Health::Up));
        assert_eq!(counter.state(), Health::Up);
    }
}
