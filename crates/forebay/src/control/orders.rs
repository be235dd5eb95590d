//! What an operator says of peers while the server runs.

use std::sync::Arc;

use forebay_balance::{Duty, PeerState, Tick};
use forebay_config::nearest;

use crate::exchange::query_pairs;
use crate::upstream::{Upstream, state_name};

/// `forebay upstream NAME PEER drain|down|up`, as the admin socket gets it.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// The pool's name.
    pub upstream: String,
    /// The peer, as the configuration writes it.
    pub peer: String,
    /// What it shall do.
    pub duty: Duty,
}

/// The words for that.
pub const DUTIES: [(&str, Duty); 3] = [
    ("drain", Duty::Drain),
    ("down", Duty::Rest),
    ("up", Duty::Serve),
];

impl Order {
    /// From a query: `name=app&peer=10.0.0.1%3A80&state=drain`.
    pub fn parse(query: &str) -> Option<Order> {
        let value = |wanted: &str| {
            let mut pairs = query_pairs(query);
            let (_, value) = pairs.find(|(name, _)| **name == *wanted.as_bytes())?;
            String::from_utf8(value.into_owned()).ok()
        };
        let state = value("state")?;
        let (_, duty) = DUTIES.iter().find(|(word, _)| *word == state)?;
        Some(Order {
            upstream: value("name")?,
            peer: value("peer")?,
            duty: *duty,
        })
    }

    /// Does it; says what the peer is now, or what there is instead of what was named.
    pub fn carry_out(&self, upstreams: &[Arc<Upstream>], now: Tick) -> Result<String, String> {
        let named = |upstream: &&Arc<Upstream>| *upstream.definition.name == *self.upstream;
        let pools: Vec<_> = upstreams.iter().filter(named).collect();
        if pools.is_empty() {
            let names = upstreams.iter().map(|upstream| &*upstream.definition.name);
            return Err(unknown("upstream", &self.upstream, names));
        }
        let mut found = Vec::new();
        for pool in &pools {
            for (index, peer) in pool.peers.iter().enumerate() {
                if *peer.label == *self.peer {
                    pool.order(index, self.duty, now);
                    found.push(pool.pool.view(index, now));
                }
            }
        }
        let Some(view) = found.first() else {
            let labels = pools.iter().flat_map(|pool| pool.peers.iter());
            let what = format!("peer of upstream `{}`", self.upstream);
            return Err(unknown(&what, &self.peer, labels.map(|peer| &*peer.label)));
        };
        let (upstream, peer, state) = (&*self.upstream, &*self.peer, state_name(view.state));
        tracing::info!(
            upstream,
            peer,
            state,
            "an operator has changed what a peer does"
        );
        let in_flight: u32 = found.iter().map(|view| view.in_flight).sum();
        let rest = match view.state {
            PeerState::Draining | PeerState::Off => format!(", {in_flight} in flight"),
            _ => String::new(),
        };
        Ok(format!("{upstream} {peer}: {state}{rest}"))
    }
}

/// That there is none of this name, and which one may have been meant.
pub fn unknown<'a>(
    what: &str,
    name: &str,
    names: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    match nearest(name, names.clone()) {
        Some(near) => format!("there is no {what} `{name}`; did you mean `{near}`?"),
        None => {
            // Enough to see what names look like.
            let mut known: Vec<_> = names.into_iter().take(8).collect();
            known.dedup();
            let known = known.join("`, `");
            format!("there is no {what} `{name}`; known are `{known}`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        let order = |query| Order::parse(query);
        assert_eq!(
            order("name=app&peer=https%3A%2F%2Fa.test%3A1&state=down"),
            Some(Order {
                upstream: "app".to_owned(),
                peer: "https://a.test:1".to_owned(),
                duty: Duty::Rest
            })
        );
        for wrong in [
            "",
            "name=app&peer=a",
            "name=app&state=up",
            "peer=a&state=up",
            "name=app&peer=a&state=left",
            "name=app&peer=%ff&state=up",
        ] {
            assert_eq!(order(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn who_is_not_known_is_told_who_is() {
        let said = unknown("upstream", "ap", ["api", "shop"]);
        assert_eq!(said, "there is no upstream `ap`; did you mean `api`?");
        let said = unknown("upstream", "x", ["api", "shop"]);
        assert_eq!(said, "there is no upstream `x`; known are `api`, `shop`");
    }
}
