//! `share`: a part of the requests.

use std::hash::{DefaultHasher, Hasher};

use forebay_config::{Arg, Call, Directive, Template, Type, Vars};

use super::test;
use crate::control::build::Builder;
use crate::exchange::{Test, expand};

pub static DIRECTIVE: Directive = Directive::condition(
    "share",
    "True for this share of the requests: with a template always for the same values of it, by \
     their hash; without one at random, anew each time it is asked.",
)
.args(&[
    Arg::required("PERCENT", Type::Percent),
    Arg::optional("TEMPLATE", Type::Template(Vars::Request)),
])
.example(r#"share("10%", "$cookies.visitor")"#);

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let share: f64 = call.get("PERCENT");
    let template = call.find::<&Template>("TEMPLATE").cloned();
    test(move |exchange, _| {
        let number = match &template {
            Some(template) => {
                let mut text = Vec::new();
                expand(template, exchange, None, &mut text);
                // Without a secret key: a visitor must stay on their side after a restart and on
                // every server. Who chooses a value chooses a side; nothing else hangs on it.
                let mut hasher = DefaultHasher::new();
                hasher.write(&text);
                hasher.finish()
            }
            None => exchange.worker.random(),
        };
        is_in(share, number)
    })
}

/// Whether one of 2^32 equal parts is among the first `share` percent of them.
fn is_in(share: f64, number: u64) -> bool {
    let part = u32::try_from(number >> 32).unwrap_or(u32::MAX);
    f64::from(part) * 100.0 < share * (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::testing::condition;

    #[test]
    fn nothing_and_everything() {
        for number in [0, u64::from(u32::MAX), u64::MAX] {
            assert!(is_in(100.0, number));
            assert!(!is_in(0.0, number));
        }
        assert!(is_in(50.0, (1 << 63) - 1) && !is_in(50.0, 1 << 63));
    }

    #[test]
    fn the_same_value_stays_on_its_side() {
        let condition = condition(r#"share("30%", "$query.k")"#);
        let side = |k: usize| condition.holds(condition.get(&format!("/?k={k}&x={k}")));
        let first: Vec<bool> = (0..1000).map(side).collect();
        assert_eq!(first, (0..1000).map(side).collect::<Vec<_>>());
        let count = first.iter().filter(|yes| **yes).count();
        assert!((240..360).contains(&count), "{count} of 1000");
    }

    #[test]
    fn at_random() {
        let condition = condition(r#"share "10%""#);
        let count = (0..2000)
            .filter(|_| condition.holds(condition.get("/")))
            .count();
        assert!((120..290).contains(&count), "{count} of 2000");
    }
}
