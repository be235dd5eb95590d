//! `host[:port]`, as it stands in `Host` and in absolute targets (RFC 9110 §7.2, RFC 3986 §3.2).

use std::net::Ipv6Addr;

/// A host and perhaps a port, as slices of what was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The name or address as it was written: its case is kept, an IPv6 address keeps its
    /// brackets. Never empty, ASCII only.
    pub host: &'a str,
    /// The port, if one was given; `host:` without digits is no port (RFC 3986 §3.2.3).
    pub port: Option<u16>,
}

/// No name in the DNS is longer (RFC 1035 §3.1).
const MAX_HOST: usize = 255;

impl<'a> Authority<'a> {
    /// Parses `host[:port]`.
    ///
    /// Narrower than RFC 3986 on purpose: a name has letters, digits, `-`, `.` and `_` only. No
    /// host on the Internet needs more, and percent-encoding or `,;'()$&` in it would let one
    /// host be written in two ways, or reach lists and pages that quote it.
    #[inline]
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (host, port) = if text.first() == Some(&b'[') {
            let end = text.iter().position(|&b| b == b']')? + 1;
            let (host, port) = text.split_at(end);
            let address = std::str::from_utf8(host.get(1..end - 1)?).ok()?;
            address.parse::<Ipv6Addr>().ok()?;
            (host, port)
        } else {
            let end = text
                .iter()
                .position(|&b| !is_name_byte(b))
                .unwrap_or(text.len());
            text.split_at(end)
        };
        if host.is_empty() || host.len() > MAX_HOST {
            return None;
        }
        let port = match port {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return None,
        };
        Some(Self {
            host: std::str::from_utf8(host).ok()?,
            port,
        })
    }

    /// Whether both mean the same place, when `default_port` is what no port means.
    #[must_use]
    pub fn is_same(&self, other: &Authority<'_>, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// A port by its digits; leading zeros are allowed, a sign is not.
#[must_use]
pub fn parse_port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |port, &digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        port.checked_mul(10)?.checked_add(u16::from(digit))
    })
}
