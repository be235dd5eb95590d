//! `server { watch = true }`: a reload when something that the configuration was made of changes.
//!
//! By looking once a second, not by the kernel's notifications: those say nothing of file systems
//! of other machines, and have no word for a pattern whose directories do not exist yet.

use std::time::{Duration, Instant, SystemTime};

use forebay_config::{Inputs, Look};

/// Between two looks, or longer where looking takes long: at most a fiftieth of one core.
const PAUSE: Duration = Duration::from_secs(1);
const SHARE: u32 = 50;

/// What a load has read.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Its files and patterns.
    pub inputs: Inputs,
    /// What they looked like; none: nobody knows.
    seen: Option<Look>,
}

impl Made {
    /// Of these, by a load that has just ended and began then: what has changed since may have been
    /// read before the change or after. Blocks on the file system.
    pub fn of(inputs: Inputs, begun: SystemTime) -> Made {
        let look = inputs.look();
        let seen = (!look.is_newer_than(begun)).then_some(look);
        Made { inputs, seen }
    }
}

/// Returns when what was read has changed and come to rest.
pub async fn changed(made: Made) {
    let Made { inputs, seen } = made;
    let mut pause = PAUSE;
    let mut settling = Settling { seen, last: None };
    loop {
        tokio::time::sleep(pause).await;
        let looked = inputs.clone();
        let look = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            (looked.look(), begun.elapsed())
        });
        // Fails only when the server ends.
        let Ok((look, took)) = look.await else { return };
        if settling.note(look) {
            return;
        }
        pause = PAUSE.max(took * SHARE);
    }
}

/// Waits for a change to come to rest: editors and deployments write in several steps, and half a
/// change would be a mistake.
struct Settling {
    /// What is in service was made of this.
    seen: Option<Look>,
    /// Another one, since the last look.
    last: Option<Look>,
}

impl Settling {
    /// Whether this look is another one than what was loaded, twice in a row.
    fn note(&mut self, look: Look) -> bool {
        let is_at_rest = self.last.as_ref() == Some(&look);
        self.last = (self.seen.as_ref() != Some(&look)).then_some(look);
        is_at_rest && self.last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_when_it_has_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lua");
        let mut inputs = Inputs::default();
        inputs.add([path.as_path()]);
        let look = |text: &str| {
            std::fs::write(&path, text).unwrap();
            inputs.look()
        };
        let looks = ["1", "22", "333"].map(look);
        let told = |seen: Option<usize>, order: &[usize]| {
            let mut settling = Settling {
                seen: seen.map(|at| looks[at].clone()),
                last: None,
            };
            let mut order = order.iter();
            order.position(|&at| settling.note(looks[at].clone()))
        };
        assert_eq!(told(Some(0), &[0, 0, 0]), None, "nothing has changed");
        assert_eq!(told(Some(0), &[0, 1, 1]), Some(2));
        assert_eq!(told(Some(0), &[1, 2, 2]), Some(2), "it goes on changing");
        assert_eq!(told(Some(0), &[1, 0, 1, 0, 0]), None, "and back again");
        assert_eq!(told(None, &[0, 0]), Some(1), "nobody knows what was loaded");
    }
}
