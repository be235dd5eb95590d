//! What peers report of their load, for `balance = "score"`: in a field of their responses, or by UDP.
//!
//! ```text
//!   response of a peer ─▶ line.rs: the field is taken out ─┐
//!                                                          ├─▶ Upstream::handle_report ─▶ its score
//!   datagram ─▶ control/reports.rs: whose is it? ──────────┘
//! ```
//!
//! A report is a dictionary (RFC 9651 §3.2): `cpu=12, memory=30.5, io=5`, each from 0 to 100; what is
//! not said is 0. `period=5` says that it is made every five seconds, else every second. A datagram
//! may name its peer as the configuration does: `peer="10.0.0.1:8080"`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use forebay_balance::{Load, Tick};
use forebay_config::{Address, Call, Code, Opt, Report, Type, Value};
use forebay_fields::{Fields, Known};
use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor};
use sfv::{BareItemFromInput, KeyRef, Parser};

use super::{Peer, Place, Upstream};
use crate::log::Throttle;

/// The longest report.
pub const MAX_REPORT: usize = 512;
/// The longest period.
const MAX_PERIOD: f64 = 60.0;

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

/// One report as it was written.
#[derive(Debug, PartialEq)]
pub struct LoadReport {
    /// How busy the peer is.
    pub load: Load,
    /// So often it says so.
    pub period: Duration,
    /// Whose it is.
    pub peer: Option<Box<str>>,
}

impl LoadReport {
    /// Reads a report; none if it is not one, or says nothing of a load, or too much. What else it says
    /// is ignored: there may be more to say one day.
    pub fn parse(text: &[u8]) -> Option<LoadReport> {
        if text.len() > MAX_REPORT {
            return None;
        }
        let said = Parser::new(text).parse_dictionary_with_visitor(Said::default());
        let said = said.ok()?;
        let is_load = [said.cpu, said.memory, said.io].iter().any(Option::is_some);
        if said.is_bad || !is_load {
            return None;
        }
        let part = |part: Option<f64>| as_f32(part.unwrap_or(0.0));
        let period = said.period.unwrap_or(1.0);
        Some(LoadReport {
            load: Load {
                cpu: part(said.cpu),
                memory: part(said.memory),
                io: part(said.io),
            },
            period: Duration::from_secs_f64(period.clamp(1.0, MAX_PERIOD)),
            peer: said.peer,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "of a share, seven digits are plenty"
)]
fn as_f32(number: f64) -> f32 {
    number as f32
}

/// What a dictionary says; of a key that is there twice, the last counts (RFC 9651 §4.2.2).
#[derive(Default)]
struct Said {
    cpu: Option<f64>,
    memory: Option<f64>,
    io: Option<f64>,
    period: Option<f64>,
    peer: Option<Box<str>>,
    is_bad: bool,
}

enum Member<'a> {
    Number(&'a mut Option<f64>, f64, &'a mut bool),
    Name(&'a mut Option<Box<str>>, &'a mut bool),
}

impl<'de> DictionaryVisitor<'de> for Said {
    type Out = Self;
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        let bad = &mut self.is_bad;
        Ok(match key.as_str() {
            "cpu" => Some(Member::Number(&mut self.cpu, 100.0, bad)),
            "memory" => Some(Member::Number(&mut self.memory, 100.0, bad)),
            "io" => Some(Member::Number(&mut self.io, 100.0, bad)),
            "period" => Some(Member::Number(&mut self.period, MAX_PERIOD, bad)),
            "peer" => Some(Member::Name(&mut self.peer, bad)),
            _ => None,
        })
    }

    fn finish(self) -> Result<Self, Infallible> {
        Ok(self)
    }
}

impl<'de> EntryVisitor<'de> for Member<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(|item: BareItemFromInput<'de>| {
            match (self, item) {
                (Member::Number(number, most, bad), item) => {
                    let said = match item {
                        BareItemFromInput::Integer(said) => {
                            i32::try_from(i64::from(said)).map_or(f64::NAN, f64::from)
                        }
                        BareItemFromInput::Decimal(said) => f64::from(said),
                        _ => f64::NAN,
                    };
                    match (0.0..=most).contains(&said) {
                        true => *number = Some(said),
                        false => *bad = true,
                    }
                }
                (Member::Name(name, _), BareItemFromInput::String(said)) => {
                    *name = Some(said.as_str().into());
                }
                (Member::Name(_, bad), _) => *bad = true,
            }
            Ok::<_, Infallible>(Ignored)
        })
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        let (Member::Number(_, _, bad) | Member::Name(_, bad)) = self;
        *bad = true;
        Ok(Ignored)
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
                        let said = said.unwrap_or_default().escape_ascii();
                        tracing::warn!(
                            upstream,
                            peer,
                            dropped,
                            "the peer's `{name}` is no report of a load: {said:.100}"
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

    fn check(text: &str, expected: Option<(f32, f32, f32, u64, Option<&str>)>) {
        let read = LoadReport::parse(text.as_bytes());
        let expected = expected.map(|(cpu, memory, io, period, peer)| LoadReport {
            load: Load { cpu, memory, io },
            period: Duration::from_millis(period),
            peer: peer.map(Into::into),
        });
        assert_eq!(read, expected, "{text}");
    }

    #[test]
    fn reports() {
        check(
            "cpu=12, memory=30.5, io=5",
            Some((12.0, 30.5, 5.0, 1_000, None)),
        );
        check("  cpu=100  ", Some((100.0, 0.0, 0.0, 1_000, None)));
        check("io=0,cpu=0", Some((0.0, 0.0, 0.0, 1_000, None)));
        check("cpu=1, cpu=2", Some((2.0, 0.0, 0.0, 1_000, None)));
        check(
            "cpu=1;unit=percent, gpu=(1 2), later",
            Some((1.0, 0.0, 0.0, 1_000, None)),
        );
        check("cpu=1, period=2.5", Some((1.0, 0.0, 0.0, 2_500, None)));
        check("cpu=1, period=0", Some((1.0, 0.0, 0.0, 1_000, None)));
        check(
            r#"cpu=1, peer="10.0.0.1:8080""#,
            Some((1.0, 0.0, 0.0, 1_000, Some("10.0.0.1:8080"))),
        );
    }

    #[test]
    fn what_is_no_report() {
        for text in [
            "",
            "cpu",
            "cpu=",
            "cpu=101",
            "cpu=-1",
            "cpu=1e2",
            "cpu=\"1\"",
            "cpu=(1)",
            "cpu=99999999999999999999",
            "cpu=1, cpu=200",
            "cpu=1 memory=2",
            "cpu=1,",
            "CPU=1",
            "later=1",
            "period=1",
            "cpu=1, period=61",
            "cpu=1, peer=app",
            "cpu=1, peer=\"a",
            "cpu=1, peer=\"a\u{e9}\"",
            "12",
        ] {
            check(text, None);
        }
        assert_eq!(LoadReport::parse(b"cpu=1\0"), None);
        let long = format!("cpu=1, x=\"{}\"", "y".repeat(MAX_REPORT));
        check(&long, None);
    }

    /// Whatever it is, it is read or it is not: nothing panics, in no part of it.
    #[test]
    fn every_part_of_a_report_and_every_byte_in_it() {
        let text = br#"cpu=12.25, memory=30, io=5, period=5, peer="a\"b";x=?1"#;
        for end in 0..text.len() {
            let _ = LoadReport::parse(&text[..end]);
            for byte in 0..=255 {
                let mut other = text.to_vec();
                other[end] = byte;
                let _ = LoadReport::parse(&other);
            }
        }
    }
}
