//! What peers report of their load, for `balance = "score"`: in a field of their responses, or by UDP.
//!
//! ```text
//!   response of a peer ─▶ line.rs: the field is taken out ─┐
//!                                                          ├─▶ Upstream::handle_report ─▶ its score
//!   datagram ─▶ control/reports.rs: whose is it? ──────────┘
//! ```

mod parse;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use forebay_balance::Tick;
use forebay_config::{Address, Call, Code, Opt, Report, Type, Value};
use forebay_fields::{Fields, Known};

use super::{Peer, Place, Upstream};
use crate::log::Throttle;

pub use parse::{LoadReport, MAX_REPORT};

/// `report`.
pub const OPTION: Opt = Opt::new(
    "report",
    Type::Or(&[Type::Address, Type::Name]),
    "How peers report their load for `score`, each second or as `period` in the report says: a field of their \
         responses, as \"X-Load\", which goes no further; or a UDP address that this server listens on. As in \
         `cpu=12, memory=30, io=5`, each from 0 to 100.",
);

/// How the peers of a pool report their load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportBy {
    /// By a field of this name.
    Field(Box<str>),
    /// By datagrams to this address. Its port may be open to IPv6 and IPv4.
    Udp(UdpAddress),
}

/// Where datagrams are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UdpAddress {
    /// At every address of the machine.
    Any(u16),
    /// At this one.
    Ip(SocketAddr),
}

/// What `report` says; `balance` must be one that goes by it.
pub fn check(call: &Call, report: &mut Report) {
    let balance: &str = call.get("balance");
    let mistake = |report: &mut Report, code, message: String, help: &str| {
        report.mistake(call.place_of("report"), code, message, help);
    };
    match call.node("report").map(|node| &node.value) {
        None if balance == "score" => {
            let message = format!("{}: nobody reports a load", call.subject());
            let help = "without `report`, \"score\" is as \"round_robin\"";
            report.warning(call.place_of("balance"), message, help);
        }
        None => {}
        Some(_) if balance != "score" => {
            let message = format!(
                "{}: `report` has no meaning for \"{balance}\"",
                call.subject()
            );
            mistake(
                report,
                Code::Conflict,
                message,
                "it is what `balance = \"score\"` goes by",
            );
        }
        Some(Value::Address(Address::Unix(_) | Address::Fd(_))) => {
            let message = format!("{}: `report` is by UDP", call.subject());
            mistake(
                report,
                Code::BadValue,
                message,
                "as \"127.0.0.1:9999\" or \":9999\"",
            );
        }
        Some(Value::Text(name)) if Known::of(name.as_bytes()).is_some() => {
            let message = format!("{}: \"{name}\" has a meaning of its own", call.subject());
            let help = "the field of `report` is taken out of responses: give it a name of your own, as \"X-Load\"";
            mistake(report, Code::BadValue, message, help);
        }
        Some(_) => {}
    }
}

/// How the peers of a checked declaration report.
pub fn of(call: &Call) -> Option<ReportBy> {
    match &call.node("report")?.value {
        Value::Text(name) => Some(ReportBy::Field((&**name).into())),
        Value::Address(Address::Port(port)) => Some(ReportBy::Udp(UdpAddress::Any(*port))),
        Value::Address(Address::Socket(address)) => Some(ReportBy::Udp(UdpAddress::Ip(*address))),
        _ => None,
    }
}

/// The reports of a pool's peers.
#[derive(Debug)]
pub struct Reports {
    by: ReportBy,
    /// Of each peer: before this time, in milliseconds, no report of its is taken. Scores are smoothed by
    /// the period; of a thousand responses a second each would count.
    due: Box<[AtomicU64]>,
}

impl Reports {
    /// Those of so many peers, who have reported nothing yet.
    pub(super) fn new(by: ReportBy, peers: usize) -> Reports {
        Reports {
            by,
            due: (0..peers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Where they are listened for, if by UDP.
    pub fn udp(&self) -> Option<UdpAddress> {
        match self.by {
            ReportBy::Udp(address) => Some(address),
            ReportBy::Field(_) => None,
        }
    }
}

/// What somebody takes for a report, for the log: the beginning of it is enough.
pub fn shown(said: &[u8]) -> String {
    const MOST: usize = 100;
    match said.split_at_checked(MOST) {
        Some((beginning, rest)) if !rest.is_empty() => format!("{}…", beginning.escape_ascii()),
        _ => said.escape_ascii().to_string(),
    }
}

/// Why a datagram is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nobody {
    /// No peer has the address that it came from.
    Stranger,
    /// Several have, and it names none.
    Several,
    /// No peer that has it is named so.
    Unknown,
}

impl Nobody {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Nobody::Stranger => "no peer is at the address that it came from",
            Nobody::Several => "several peers are at that address, and it names none",
            Nobody::Unknown => "no peer at that address is named so",
        }
    }
}

impl Upstream {
    /// Whose report it is that came from this address.
    pub fn reporter(&self, from: IpAddr, name: Option<&str>) -> Result<usize, Nobody> {
        let mut there = (0..self.peers.len()).filter(|peer| self.peers[*peer].is_at(from));
        match name {
            Some(name) => {
                let mut strange = true;
                there
                    .find(|peer| {
                        strange = false;
                        *self.peers[*peer].label == *name
                    })
                    .ok_or(if strange {
                        Nobody::Stranger
                    } else {
                        Nobody::Unknown
                    })
            }
            None => {
                let only = there.next().ok_or(Nobody::Stranger)?;
                match there.next() {
                    None => Ok(only),
                    Some(_) => Err(Nobody::Several),
                }
            }
        }
    }

    /// Takes what a peer reports, if it is time.
    pub fn handle_report(&self, peer: usize, report: &LoadReport, now: Tick) {
        let Some(due) = self
            .reports
            .as_ref()
            .and_then(|reports| reports.due.get(peer))
        else {
            return;
        };
        if now.as_millis() < due.load(Relaxed) {
            return;
        }
        // Who reports by a clock of its own may be a little early.
        let next = now + report.period * 9 / 10;
        due.store(next.as_millis(), Relaxed);
        self.pool
            .report_loads(&[(peer, report.load)], report.period, now);
    }

    /// Takes the field by which a peer reports its load out of the head of its response.
    pub(super) fn take_field(&self, peer: usize, fields: &mut Fields, now: Tick) {
        static LOG: Throttle = Throttle::new();
        let Some(reports) = &self.reports else {
            return;
        };
        let ReportBy::Field(name) = &reports.by else {
            return;
        };
        let due = reports.due.get(peer).map_or(0, |due| due.load(Relaxed));
        if now.as_millis() >= due && fields.contains(&**name) {
            let said = fields.get_only(&**name);
            match said.and_then(LoadReport::parse) {
                Some(report) => self.handle_report(peer, &report, now),
                None => {
                    if let Some(dropped) = LOG.pass() {
                        let (upstream, peer) = (&*self.definition.name, &*self.peers[peer].label);
                        let said = shown(said.unwrap_or_default());
                        tracing::warn!(
                            upstream,
                            peer,
                            dropped,
                            "the peer's `{name}` is no report of a load: {said}"
                        );
                    }
                }
            }
        }
        fields.remove(&**name);
    }
}

impl Peer {
    /// Whether it is at this address. Who is on a Unix socket is on this machine.
    fn is_at(&self, address: IpAddr) -> bool {
        match &self.place {
            Place::Address(at) => at.ip().to_canonical() == address,
            Place::Name(..) => {
                let addresses = self.addresses.load();
                addresses.iter().any(|at| at.ip().to_canonical() == address)
            }
            Place::Unix(_) => address.is_loopback(),
            Place::Process(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_no_report_the_beginning_is_shown() {
        for (said, expected) in [
            (String::new(), String::new()),
            ("cpu=\n\u{e9}".to_owned(), r"cpu=\n\xc3\xa9".to_owned()),
            ("x".repeat(100), "x".repeat(100)),
            ("x".repeat(60_000), "x".repeat(100) + "…"),
        ] {
            assert_eq!(shown(said.as_bytes()), expected);
        }
    }
}
