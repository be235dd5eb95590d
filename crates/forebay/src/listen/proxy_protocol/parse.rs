//! The header of the PROXY protocol, versions 1 and 2 (HAProxy's doc/proxy-protocol.txt): a server
//! in front says on whose behalf it has connected, before anything else. No I/O.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is read. One of version 1 has 107 bytes at most (§2.1), one of version 2
/// could have 65,551, but what servers put into it beside the addresses fits by far.
pub const MAX_HEADER: usize = 4_096;

/// §2.1: the longest line, its end included.
const MAX_LINE: usize = 107;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What comes before the addresses in version 2.
const FIXED: usize = 16;

/// What has been received so far is …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// … the beginning of a header.
    Partial,
    /// … a header, perhaps with more behind it.
    Complete {
        /// Its length; what follows is the client's.
        len: usize,
        /// For whom the connection is; none: for the server in front itself (its health check), or
        /// for somebody it cannot name.
        ends: Option<Ends>,
    },
}

/// Both ends of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// What it has connected to.
    pub destination: SocketAddr,
}

/// It is no header of the PROXY protocol, or not a right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It begins otherwise.
    Signature,
    /// A line without an end, or too long.
    LineTooLong,
    /// A line that does not say what it must.
    Line,
    /// A version, command, family or transport that there is not.
    Unknown,
    /// Too short for its addresses.
    TooShort,
    /// Longer than [`MAX_HEADER`].
    TooLong,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Signature => "it begins otherwise",
            Malformed::LineTooLong => "its line does not end within 107 bytes",
            Malformed::Line => "its line is not as it must be",
            Malformed::Unknown => "its version, command, family or transport is none there is",
            Malformed::TooShort => "it is too short for its addresses",
            Malformed::TooLong => "it is longer than 4,096 bytes",
        })
    }
}

/// Reads the header that `input`, all that has been received, begins with.
///
/// What is said of the beginning of an input stays so whatever follows: [`Header::Partial`] alone
/// may change. With [`MAX_HEADER`] bytes it is never partial.
pub fn parse(input: &[u8]) -> Result<Header, Malformed> {
    let begins = |with: &[u8]| {
        let len = with.len().min(input.len());
        input[..len] == with[..len]
    };
    if begins(LINE_START) {
        parse_line(input)
    } else if begins(SIGNATURE) {
        parse_binary(input)
    } else {
        Err(Malformed::Signature)
    }
}

/// Version 1 (§2.1): `PROXY TCP4 192.0.2.1 192.0.2.2 5000 80`, `PROXY UNKNOWN` and anything.
fn parse_line(input: &[u8]) -> Result<Header, Malformed> {
    let start = &input[..input.len().min(MAX_LINE)];
    let Some(end) = start.iter().position(|byte| *byte == b'\n') else {
        return match start.len() {
            MAX_LINE => Err(Malformed::LineTooLong),
            _ => Ok(Header::Partial),
        };
    };
    let line = start[..end].strip_suffix(b"\r").ok_or(Malformed::Line)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Line)?;
    let mut words = line.split(' ').skip(1);
    let ends = match words.next() {
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(ends::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(ends::<Ipv6Addr>(words)?),
        _ => return Err(Malformed::Line),
    };
    Ok(complete(end + 1, ends))
}

fn ends<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Result<Ends, Malformed>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut next = || words.next().ok_or(Malformed::Line);
    let (source, destination, from, to) = (next()?, next()?, next()?, next()?);
    if words.next().is_some() {
        return Err(Malformed::Line);
    }
    let address = |text: &str| text.parse::<A>().map(A::into).map_err(|_| Malformed::Line);
    Ok(Ends {
        source: SocketAddr::new(address(source)?, port(from)?),
        destination: SocketAddr::new(address(destination)?, port(to)?),
    })
}

/// Decimal, without a sign and without zeroes in front.
fn port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if !is_plain && text != "0" {
        return Err(Malformed::Line);
    }
    text.parse().map_err(|_| Malformed::Line)
}

/// Version 2 (§2.2): the signature, version and command, family and transport, the length of the
/// rest, the addresses, and further values, which are skipped.
fn parse_binary(input: &[u8]) -> Result<Header, Malformed> {
    let Some(command) = input.get(SIGNATURE.len()) else {
        return Ok(Header::Partial);
    };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Unknown),
    };
    let Some(fixed) = input.get(..FIXED) else {
        return Ok(Header::Partial);
    };
    let (family, transport) = (fixed[13] >> 4, fixed[13] & 0xf);
    let rest = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    // A family's addresses may be left out only where they are of no interest.
    let least = match family {
        _ if is_local => 0,
        0 => 0,
        1 => 2 * 4 + 2 * 2,
        2 => 2 * 16 + 2 * 2,
        3 => 2 * 108,
        _ => return Err(Malformed::Unknown),
    };
    if !is_local && transport > 2 {
        return Err(Malformed::Unknown);
    }
    if rest < least {
        return Err(Malformed::TooShort);
    }
    let len = FIXED + rest;
    if len > MAX_HEADER {
        return Err(Malformed::TooLong);
    }
    let Some(addresses) = input.get(FIXED..len) else {
        return Ok(Header::Partial);
    };
    let ends = match family {
        _ if is_local => None,
        1 => binary_ends::<4>(addresses),
        2 => binary_ends::<16>(addresses),
        // Of Unix sockets, or unspecified.
        _ => None,
    };
    Ok(complete(len, ends))
}

/// Two addresses of so many bytes, then two ports.
fn binary_ends<const N: usize>(input: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let (source, input) = input.split_first_chunk::<N>()?;
    let (destination, input) = input.split_first_chunk::<N>()?;
    let (from, input) = input.split_first_chunk::<2>()?;
    let (to, _) = input.split_first_chunk::<2>()?;
    let end = |address: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*address), u16::from_be_bytes(*port))
    };
    Some(Ends {
        source: end(source, from),
        destination: end(destination, to),
    })
}

/// Who has no address is nobody that could be named.
fn complete(len: usize, ends: Option<Ends>) -> Header {
    let ends = ends.filter(|ends| !ends.source.ip().is_unspecified());
    Header::Complete { len, ends }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        let len = u16::try_from(rest.len()).expect("a length");
        header.extend(len.to_be_bytes());
        header.extend(rest);
        header
    }

    /// A header is read as this, wherever the input is cut and whatever follows.
    #[track_caller]
    fn check(input: &[u8], source: Option<&str>, destination: &str) {
        let ends = source.map(|source| Ends {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        });
        let len = input.len();
        let expected = Ok(Header::Complete { len, ends });
        let shown = input.escape_ascii();
        assert_eq!(parse(input), expected, "{shown}");
        let more = [input, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&more), expected, "{shown} and more");
        for end in 0..len {
            assert_eq!(
                parse(&input[..end]),
                Ok(Header::Partial),
                "{shown} cut at {end}"
            );
        }
    }

    #[track_caller]
    fn refuse(input: &[u8], expected: Malformed) {
        assert_eq!(parse(input), Err(expected), "{}", input.escape_ascii());
        for end in 0..input.len() {
            let said = parse(&input[..end]);
            let stays = said == Ok(Header::Partial) || said == Err(expected);
            assert!(stays, "{} cut at {end}: {said:?}", input.escape_ascii());
        }
    }

    #[test]
    fn proxy_protocol_2_1_lines() {
        check(
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n",
            Some("192.0.2.1:5000"),
            "192.0.2.2:80",
        );
        check(
            b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n",
            Some("[2001:db8::1]:65535"),
            "[::1]:0",
        );
        check(b"PROXY UNKNOWN\r\n", None, "");
        check(
            b"PROXY UNKNOWN ffff::1 \xc3\xa9 whatever 1 2 3\r\n",
            None,
            "",
        );
        check(b"PROXY TCP4 0.0.0.0 192.0.2.2 5000 80\r\n", None, "");
        let longest = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 91], b"\r\n"].concat();
        assert_eq!(longest.len(), MAX_LINE);
        check(&longest, None, "");
    }

    #[test]
    fn proxy_protocol_2_1_wrong_lines() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 5000 80\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 5000 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000 80 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000 80 90\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 5000 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 05000 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +5000 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2  80\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 5000 80\r\n",
            "PROXY TCP4 ::1 ::1 5000 80\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 5000 80\r\n",
            "PROXY TCP6 [::1] [::1] 5000 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\n",
            "PROXY UNKNOWN\n",
            "PROXY TCP4 192.0.2.1\r192.0.2.2 5000 80\r\n",
        ] {
            refuse(line.as_bytes(), Malformed::Line);
        }
        refuse(b"PROXY UNKNOWN \xff\r\n", Malformed::Line);
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 92], b"\r\n"].concat();
        refuse(&long, Malformed::LineTooLong);
        for start in [
            "GET / HTTP/1.1\r\n",
            "PROXYTCP4",
            "proxy ",
            " PROXY",
            "\n",
            "\r\n\r\n\0\r\nQUIT\r",
        ] {
            refuse(start.as_bytes(), Malformed::Signature);
        }
    }

    const V4: &[u8] = b"\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\0\x50";

    #[test]
    fn proxy_protocol_2_2_binary() {
        let (source, destination) = (Some("192.0.2.1:5000"), "192.0.2.2:80");
        check(&v2(0x21, 0x11, V4), source, destination);
        check(&v2(0x21, 0x12, V4), source, destination);
        // What stands behind the addresses is skipped.
        let more = [V4, b"\x01\0\x02h2", &[0; 300]].concat();
        check(&v2(0x21, 0x11, &more), source, destination);
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(b"\x20\x01\x0d\xb8");
        (v6[15], v6[31]) = (1, 1);
        v6[32..].copy_from_slice(b"\x13\x88\x01\xbb");
        check(
            &v2(0x21, 0x21, &v6),
            Some("[2001:db8::1]:5000"),
            "[::1]:443",
        );
        check(&v2(0x21, 0x31, &[b'a'; 216]), None, "");
        check(&v2(0x21, 0x00, b""), None, "");
        check(&v2(0x21, 0x00, b"whatever"), None, "");
        check(&v2(0x21, 0x11, &[0; 12]), None, "");
        // LOCAL: whatever it says of addresses.
        for (family, rest) in [(0x00, &b""[..]), (0x11, V4), (0x11, b"x"), (0xff, b"x")] {
            check(&v2(0x20, family, rest), None, "");
        }
        check(
            &v2(0x21, 0x11, &[V4, &[0; MAX_HEADER - 28]].concat()),
            source,
            destination,
        );
    }

    #[test]
    fn proxy_protocol_2_2_wrong_binary() {
        for (command, family) in [
            (0x11, 0x11),
            (0x31, 0x11),
            (0x22, 0x11),
            (0x2f, 0),
            (0x21, 0x41),
            (0x21, 0x13),
        ] {
            refuse(&v2(command, family, V4), Malformed::Unknown);
        }
        for (family, len) in [(0x11, 11), (0x21, 35), (0x31, 215), (0x12, 0)] {
            refuse(&v2(0x21, family, &vec![1; len]), Malformed::TooShort);
        }
        refuse(&v2(0x21, 0x11, &[1; MAX_HEADER - 15]), Malformed::TooLong);
        refuse(&v2(0x20, 0x00, &[1; 65_535]), Malformed::TooLong);
    }

    /// Bytes that often get somewhere.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let start = prop_oneof![
            Just(SIGNATURE.to_vec()),
            Just(v2(0x21, 0x11, V4)),
            Just(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n".to_vec()),
            Just(b"PROXY UNKNOWN".to_vec()),
            Just(Vec::new()),
        ];
        let change = proptest::option::of((any::<prop::sample::Index>(), any::<u8>()));
        (
            start,
            change,
            proptest::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|(mut bytes, change, more)| {
                if let Some((at, byte)) = change.filter(|_| !bytes.is_empty()) {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes.extend(more);
                bytes
            })
    }

    proptest! {
        #[test]
        fn what_is_said_of_a_beginning_stays_so(input in input(), at in any::<prop::sample::Index>()) {
            let end = at.index(input.len() + 1);
            let (beginning, whole) = (parse(&input[..end]), parse(&input));
            prop_assert!(beginning == Ok(Header::Partial) || beginning == whole, "{beginning:?} {whole:?}");
            if let Ok(Header::Complete { len, .. }) = whole {
                prop_assert!(len <= input.len() && len <= MAX_HEADER);
                prop_assert_eq!(parse(&input[..len]), whole);
                prop_assert_eq!(parse(&input[..len - 1]), Ok(Header::Partial));
            }
        }

        #[test]
        fn what_is_written_is_read(
            source in any::<(IpAddr, u16)>(),
            destination in any::<(IpAddr, u16)>(),
        ) {
            let (from, to) = (SocketAddr::from(source), SocketAddr::from(destination));
            prop_assume!(from.is_ipv4() == to.is_ipv4() && !from.ip().is_unspecified());
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
            let ends = Some(Ends { source: from, destination: to });
            prop_assert_eq!(parse(line.as_bytes()), Ok(Header::Complete { len: line.len(), ends }));
        }
    }
}
