//! What a report of load says. No I/O.
//!
//! A report is a dictionary (RFC 9651 §3.2): `cpu=12, memory=30.5, io=5`, each from 0 to 100; what is
//! not said is 0. `period=5` says that it is made every five seconds, else every second. A datagram
//! may name its peer as the configuration does: `peer="10.0.0.1:8080"`.

use std::convert::Infallible;
use std::time::Duration;

use forebay_balance::Load;
use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor};
use sfv::{BareItemFromInput, KeyRef, Parser};

/// The longest report.
pub const MAX_REPORT: usize = 512;
/// The longest period.
const MAX_PERIOD: f64 = 60.0;

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
