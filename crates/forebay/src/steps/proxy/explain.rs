//! What `explain` tells of a request that is passed on: by the functions that pass it on, up to
//! where something would be sent.

use forebay_balance::{Ask, Balance, PeerState, Tick, Tried};
use forebay_config::show_duration;

use super::pass::Passing;
use super::{Proxy, head};
use crate::exchange::{Exchange, Reason};
use crate::explain::{Notes, Told, shown, value_shown};
use crate::upstream::{self, sticky::Sticky};

impl Proxy {
    /// Tells who would be asked what.
    pub fn tell(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        if head::loops(exchange) {
            return Told::Fails(Reason::Loop.into());
        }
        let body = match exchange.take_body() {
            Ok(body) => body,
            Err(fault) => return Told::Fails(fault),
        };
        let offer = head::offer(exchange);
        self.passing.tell_peers(exchange, notes);
        let mut out = Vec::new();
        let host = self.host.as_ref();
        let cookie = self.passing.upstream.sticky.as_ref().map(Sticky::name);
        let offer = offer.as_deref();
        if let Err(fault) = head::write(exchange, host, cookie, &body, offer, &mut out) {
            return Told::Fails(fault);
        }
        let text = shown(&out);
        let mut lines = text.lines().filter(|line| !line.is_empty());
        notes.add("request", lines.next().unwrap_or_default());
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            notes.add("sends", format!("{name}: {}", value_shown(name, value)));
        }
        self.passing.tell_times(notes);
        Told::Asks
    }
}

impl Passing {
    /// How long what may take, and how often it is tried.
    pub fn tell_times(&self, notes: &mut Notes<'_>) {
        let times = [
            ("to connect", self.times.connect),
            ("for the first byte", self.times.first_byte),
            ("between bytes", self.times.read),
            ("of silence in a tunnel", self.times.tunnel),
            ("for all of it", self.times.total),
        ];
        let times = times.map(|(what, time)| format!("{} {what}", show_duration(time)));
        notes.add("times", times.join(", "));
        notes.add("retries", format!("at most {}", self.policy.retries));
    }

    /// The pool, and whom its policy chooses while nothing else is under way.
    pub fn tell_peers(&self, exchange: &Exchange, notes: &mut Notes<'_>) {
        let definition = &self.upstream.definition;
        let balance = definition.pool.balance;
        notes.add(
            "upstream",
            format!("{}, by {}", definition.name, balance.name()),
        );
        let now = Tick::from_millis(exchange.worker.now_ms());
        for (index, peer) in self.upstream.peers.iter().enumerate() {
            let state = match self.upstream.pool.view(index, now).state {
                PeerState::Up => String::new(),
                state => format!(" ({})", upstream::state_name(state)),
            };
            let tls = self.upstream.tls_name(peer, exchange);
            let tls = tls.map(|name| format!(" over TLS, as \"{name}\""));
            let tls = tls.unwrap_or_default();
            notes.add("peer", format!("{}{tls}{state}", peer.label));
        }
        if let Some(sticky) = &self.upstream.sticky {
            let name = sticky.name();
            let text = format!("the cookie \"{name}\" leads back to the peer that it was set for");
            notes.add("sticky", text);
        }
        let draw = self.draw(exchange);
        let ask = Ask::again(now, Tried::default()).draw(draw);
        let chosen = self.upstream.pool.choose(&ask).ok();
        let chosen = chosen.and_then(|chosen| self.upstream.peers.get(chosen.peer));
        let text = match (chosen, balance) {
            (None, _) => "none can be used".to_owned(),
            (Some(_), Balance::Random | Balance::P2cEwma) if self.upstream.peers.len() > 1 => {
                "drawn for each request".to_owned()
            }
            (Some(peer), Balance::Hash) => format!("{}, for this key always", peer.label),
            (Some(peer), _) => format!("{}, if nothing else is under way", peer.label),
        };
        notes.add("choice", text);
    }
}
