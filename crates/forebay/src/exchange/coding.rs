//! Content codings: what they are called, and which of them a client takes (RFC 9110 §8.4, §12.5.3).

use forebay_fields::{Fields, Known};

use super::page::quality;

/// A content coding that this server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Coding {
    /// RFC 7932.
    Br,
    /// RFC 8878, in windows of at most 8 MiB (RFC 9659).
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them, the one that makes the smallest files first.
    pub const ALL: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];

    /// Its name in fields.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Br => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// The one of this name, in any case.
    pub fn of(name: &[u8]) -> Option<Coding> {
        // RFC 9110 §8.4.1.3.
        let name = if name.eq_ignore_ascii_case(b"x-gzip") {
            b"gzip"
        } else {
            name
        };
        let mut all = Coding::ALL.into_iter();
        all.find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
    }

    fn at(self) -> usize {
        usize::from(self as u8)
    }
}

/// A set of codings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codings(u8);

impl Codings {
    /// Puts one in.
    pub fn insert(&mut self, coding: Coding) {
        self.0 |= 1 << coding as u8;
    }

    /// Whether it holds none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What it holds, in the order of [`Coding::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Coding> {
        let all = Coding::ALL.into_iter();
        all.filter(move |coding| self.0 & (1 << *coding as u8) != 0)
    }
}

/// What a client says of codings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// Of each coding, in thousandths, by [`Coding::at`].
    weights: [u16; Coding::ALL.len()],
    /// Of no coding at all.
    identity: u16,
    /// It takes a coding that this server does not have.
    takes_others: bool,
}

/// Members looked at in one `Accept-Encoding`: browsers send four.
const MAX_MEMBERS: usize = 32;

impl Accepts {
    /// What these fields of a request say. Without a word on it no coding is taken: any would be
    /// right (RFC 9110 §12.5.3), but who does not ask may not understand.
    pub fn of(fields: &Fields) -> Accepts {
        let mut weights = [None; Coding::ALL.len()];
        let (mut identity, mut any, mut takes_others) = (None, None, false);
        for member in fields.list(Known::AcceptEncoding).take(MAX_MEMBERS) {
            let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let quality = quality(parts);
            let place = match Coding::of(name) {
                Some(coding) => &mut weights[coding.at()],
                None if name.eq_ignore_ascii_case(b"identity") => &mut identity,
                None if name == b"*" => &mut any,
                None => {
                    takes_others |= quality > 0;
                    continue;
                }
            };
            place.get_or_insert(quality);
        }
        Accepts {
            weights: weights.map(|weight| weight.or(any).unwrap_or(0)),
            // Acceptable unless refused, but the least of all: who names codings wants one.
            identity: identity.unwrap_or(if any == Some(0) { 0 } else { 1 }),
            takes_others,
        }
    }

    /// The best of those that there are, the first of equals; `None` where none is better than no
    /// coding.
    pub fn choose(&self, there: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best = (None, 0);
        for coding in there {
            let weight = self.weights[coding.at()];
            if weight > best.1 && weight >= self.identity {
                best = (Some(coding), weight);
            }
        }
        best.0
    }

    /// Whether it refuses what is not coded.
    pub fn refuses_identity(&self) -> bool {
        self.identity == 0
    }

    /// Whether it refuses what is not coded and whatever these make of it.
    pub fn refuses_all(&self, there: impl IntoIterator<Item = Coding>) -> bool {
        self.refuses_identity() && !self.takes_others && self.choose(there).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(lines: &[&str]) -> Accepts {
        let mut fields = Fields::new();
        for line in lines {
            fields.append(Known::AcceptEncoding, line).expect("a field");
        }
        Accepts::of(&fields)
    }

    #[test]
    fn rfc9110_12_5_3_the_heaviest_coding_that_is_there_wins() {
        use Coding::{Br, Gzip, Zstd};
        for (line, there, expected) in [
            ("gzip, deflate, br, zstd", &Coding::ALL[..], Some(Br)),
            ("gzip, deflate, br, zstd", &[Zstd, Br, Gzip], Some(Zstd)),
            ("gzip, deflate, br, zstd", &[Gzip], Some(Gzip)),
            ("gzip, deflate, br, zstd", &[], None),
            ("gzip;q=0.9, br;q=0.8", &Coding::ALL, Some(Gzip)),
            ("gzip;q=0.1, br;q=0", &Coding::ALL, Some(Gzip)),
            ("gzip;q=0", &Coding::ALL, None),
            ("GZip; Q=0.5", &Coding::ALL, Some(Gzip)),
            ("x-gzip", &Coding::ALL, Some(Gzip)),
            ("*", &Coding::ALL, Some(Br)),
            ("br;q=0, *;q=0.5", &Coding::ALL, Some(Zstd)),
            ("*;q=0, gzip", &Coding::ALL, Some(Gzip)),
            ("identity", &Coding::ALL, None),
            ("identity;q=1, gzip;q=0.5", &Coding::ALL, None),
            ("identity;q=0.5, gzip;q=0.5", &Coding::ALL, Some(Gzip)),
            ("gzip;q=0.001", &Coding::ALL, Some(Gzip)),
            ("gzip;q=x, br;q=2", &Coding::ALL, None),
            ("gzip;q=0, gzip", &Coding::ALL, None),
            ("deflate", &Coding::ALL, None),
            ("", &Coding::ALL, None),
            ("gzipped, brx", &Coding::ALL, None),
        ] {
            let got = accepts(&[line]).choose(there.iter().copied());
            assert_eq!(got, expected, "{line} {there:?}");
        }
        assert_eq!(accepts(&[]).choose(Coding::ALL), None);
        assert_eq!(
            accepts(&["br;q=0.1", "gzip"]).choose(Coding::ALL),
            Some(Gzip)
        );
        let many = "x, ".repeat(1000) + "gzip";
        assert_eq!(accepts(&[&many]).choose(Coding::ALL), None);
    }

    #[test]
    fn rfc9110_12_5_3_no_coding_can_be_refused() {
        for (line, refuses, all) in [
            ("identity;q=0", true, true),
            ("*;q=0", true, true),
            ("identity;q=0, gzip", true, false),
            ("identity;q=0, gzip;q=0", true, true),
            ("identity;q=0, *", true, false),
            ("*;q=0, identity;q=0.1", false, false),
            ("*;q=0, deflate", true, false),
            ("gzip;q=0, br;q=0", false, false),
            ("", false, false),
        ] {
            let got = accepts(&[line]);
            let got = (got.refuses_identity(), got.refuses_all(Coding::ALL));
            assert_eq!(got, (refuses, all), "{line}");
        }
    }

    #[test]
    fn a_set_of_codings() {
        let mut set = Codings::default();
        assert!(set.is_empty());
        set.insert(Coding::Gzip);
        set.insert(Coding::Br);
        set.insert(Coding::Gzip);
        assert!(set.iter().eq([Coding::Br, Coding::Gzip]) && !set.is_empty());
    }
}
