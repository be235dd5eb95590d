//! Addresses, targets, prefixes and hosts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::directive::Vars;
use crate::template::Template;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `":443"`: every IPv4 and IPv6 address of the machine.
    Port(u16),
    /// `"127.0.0.1:80"`, `"[::1]:80"`.
    Socket(SocketAddr),
    /// `"unix:/run/a.sock"`: absolute.
    Unix(PathBuf),
    /// `"fd:web"`: a socket passed in by this name.
    Fd(Box<str>),
}

impl Address {
    /// Reads an address; a relative socket path starts from `dir`.
    pub fn parse(text: &str, dir: &Path) -> Option<Address> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path, dir).map(Address::Unix);
        }
        if let Some(name) = text.strip_prefix("fd:") {
            return crate::scalar::is_name(name).then(|| Address::Fd(name.into()));
        }
        if let Some(port) = text.strip_prefix(':') {
            return parse_port(port).map(Address::Port);
        }
        let (host, port) = text.rsplit_once(':')?;
        parse_port(port)?;
        let bracketed = host.starts_with('[');
        let address: SocketAddr = text.parse().ok()?;
        (bracketed == address.is_ipv6()).then_some(Address::Socket(address))
    }
}

/// As the language writes it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Port(port) => write!(f, ":{port}"),
            Address::Socket(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Fd(name) => write!(f, "fd:{name}"),
        }
    }
}

/// What is spoken to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Nothing written, or `http://`.
    Http,
    /// TLS, HTTP/2 if the peer offers it.
    Https,
    /// HTTP/2 in the clear.
    H2c,
    /// HTTP/3.
    H3,
}

impl Scheme {
    pub(crate) fn port(self) -> u16 {
        match self {
            Scheme::Http | Scheme::H2c => 80,
            Scheme::Https | Scheme::H3 => 443,
        }
    }
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was written, for logs and metrics.
    pub text: Box<str>,
    /// What is spoken; `Http` where no scheme is written.
    pub scheme: Scheme,
    /// To whom.
    pub to: Endpoint,
}

/// To whom a target leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A name, in lower case, to be resolved while running; and a port.
    Name(Box<str>, u16),
    /// A Unix socket: absolute.
    Unix(PathBuf),
    /// A name of the DNS whose SRV records lead on.
    Srv(Box<str>),
    /// A host with variables, as `$host` or `$host:8080`, found for each request.
    Variable(Template),
}

impl Target {
    /// Reads a target; a relative socket path starts from `dir`. The error is what was expected.
    pub fn parse(text: &str, schemes: bool, variables: bool, dir: &Path) -> Result<Target, String> {
        let expected = || expected_target(schemes);
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) if schemes => (Some(Scheme::Http), rest),
            Some(("https", rest)) if schemes => (Some(Scheme::Https), rest),
            Some(("h2c", rest)) if schemes => (Some(Scheme::H2c), rest),
            Some(("h3", rest)) if schemes => (Some(Scheme::H3), rest),
            Some(_) => return Err(expected()),
        };
        let known = scheme.unwrap_or(Scheme::Http);
        let target = |to| {
            Ok(Target {
                text: text.into(),
                scheme: known,
                to,
            })
        };
        if let Some(path) = rest.strip_prefix("unix:") {
            return unix_path(path, dir)
                .map(Endpoint::Unix)
                .map_or_else(|| Err(expected()), target);
        }
        if let Some(name) = rest.strip_prefix("srv:") {
            let right = is_host_name(name);
            return if right {
                target(Endpoint::Srv(name.into()))
            } else {
                Err(expected())
            };
        }
        if rest.starts_with('/') && scheme.is_none() {
            return Err(format!("write a socket as \"unix:{rest}\""));
        }
        if rest.contains('/') {
            return Err("a target has no path: write `rewrite` above it".to_owned());
        }
        if variables && rest.contains('$') {
            let template = Template::parse(rest, Vars::Request).map_err(|wrong| wrong.help)?;
            return target(Endpoint::Variable(template));
        }
        let default_port = scheme.map(Scheme::port);
        endpoint(rest, default_port).map_or_else(|| Err(expected()), target)
    }
}

/// `HOST:PORT`, `[IPV6]:PORT`, or a host alone if there is a default port.
pub(crate) fn endpoint(text: &str, default_port: Option<u16>) -> Option<Endpoint> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            let port = match after {
                "" => default_port?,
                _ => parse_port(after.strip_prefix(':')?)?,
            };
            return nonzero(port).map(|port| Endpoint::Socket((address, port).into()));
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, default_port?),
        },
    };
    let port = nonzero(port)?;
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Some(Endpoint::Socket((address, port).into()));
    }
    is_host_name(host).then(|| Endpoint::Name(host.to_ascii_lowercase().into(), port))
}

/// What a target looks like, for messages.
pub(crate) fn expected_target(schemes: bool) -> String {
    if schemes {
        "expected a target, as \"10.0.0.1:8080\", \"https://origin\" or \"unix:/run/app.sock\""
            .to_owned()
    } else {
        "expected a target, as \"10.0.0.1:9000\" or \"unix:/run/app.sock\"".to_owned()
    }
}

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// A network; a single address is one of its full length.
    Net(IpNet),
    /// `"private"`: the private, local and loopback ranges.
    Private,
}

/// RFC 1918, RFC 3927, RFC 1122 §3.2.1.3, RFC 6598 (addresses shared behind a carrier's NAT are no
/// one's clients on the Internet), RFC 4193, RFC 4291 §2.5.3 and §2.5.6.
static PRIVATE: [IpNet; 9] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0),
        7,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

impl Prefix {
    /// Reads `"10.0.0.0/8"`, `"192.0.2.7"`, `"private"`. Bits behind the prefix's length must be
    /// zero: `10.0.0.1/8` is more often a slip than meant.
    pub fn parse(text: &str) -> Option<Prefix> {
        if text == "private" {
            return Some(Prefix::Private);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Prefix::Net(IpNet::from(address)));
        }
        let net: IpNet = text.parse().ok()?;
        (net.network() == net.addr()).then_some(Prefix::Net(net))
    }

    /// The networks it stands for.
    pub fn nets(&self) -> &[IpNet] {
        match self {
            Prefix::Net(net) => std::slice::from_ref(net),
            Prefix::Private => &PRIVATE,
        }
    }

    /// Whether this address is in it. IPv4 addresses mapped into IPv6 must be unmapped before.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.nets().iter().any(|net| net.contains(&address))
    }
}

/// The host names that a site answers for; names in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// `"example.com"`, or an IP address as a client writes it in `Host` (`[::1]`).
    Exact(Box<str>),
    /// `"*.example.com"`: every name below this one, which is kept without the `*.`.
    Below(Box<str>),
    /// `"*"`: every other name.
    Any,
}

impl Host {
    /// Reads a host. Names are ASCII: an international one is written in its `xn--` form.
    pub fn parse(text: &str) -> Option<Host> {
        if text == "*" {
            return Some(Host::Any);
        }
        let lower = text.to_ascii_lowercase();
        if let Some(name) = lower.strip_prefix("*.") {
            return is_host_name(name).then(|| Host::Below(name.into()));
        }
        let bracketed = lower
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let right = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => is_host_name(&lower),
        };
        right.then(|| Host::Exact(lower.into()))
    }
}

/// As the language writes it.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Exact(name) => f.write_str(name),
            Host::Below(name) => write!(f, "*.{name}"),
            Host::Any => f.write_str("*"),
        }
    }
}

/// Labels of letters, digits, `-` and `_` (in use for services), none empty, at most 63 and 253
/// bytes (RFC 1035 §2.3.4).
fn is_host_name(text: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(byte) && !label.starts_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn nonzero(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

/// A socket's path: not empty, without NUL, short enough for `sockaddr_un` as it was written.
fn unix_path(text: &str, dir: &Path) -> Option<PathBuf> {
    let right = !text.is_empty() && !text.contains('\0') && text.len() <= 107;
    right.then(|| dir.join(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let dir = Path::new("/conf");
        let good = [
            ":443",
            ":0",
            "127.0.0.1:80",
            "[::1]:80",
            "unix:/run/a.sock",
            "fd:web",
        ];
        for text in good {
            let address = Address::parse(text, dir);
            assert_eq!(
                address.map(|address| address.to_string()).as_deref(),
                Some(text)
            );
        }
        let relative = Address::parse("unix:a.sock", dir);
        assert_eq!(relative, Some(Address::Unix("/conf/a.sock".into())));
        let bad = [
            "",
            "443",
            ":",
            ":65536",
            ":+80",
            "localhost:80",
            "127.0.0.1",
            "::1:80",
            "unix:",
            "fd:",
            "fd:a b",
            "127.0.0.1:",
            "[::1]",
            "unix:a\0b",
        ];
        for text in bad {
            assert_eq!(Address::parse(text, dir), None, "{text}");
        }
    }

    #[test]
    fn targets() {
        let socket = |text: &str| Endpoint::Socket(text.parse().unwrap());
        let name = |text: &str, port| Endpoint::Name(text.into(), port);
        let good = [
            ("10.0.0.1:8080", Scheme::Http, socket("10.0.0.1:8080")),
            ("[::1]:8080", Scheme::Http, socket("[::1]:8080")),
            ("http://[::1]", Scheme::Http, socket("[::1]:80")),
            (
                "https://Origin.example",
                Scheme::Https,
                name("origin.example", 443),
            ),
            ("https://origin:8443", Scheme::Https, name("origin", 8443)),
            (
                "h2c://127.0.0.1:50051",
                Scheme::H2c,
                socket("127.0.0.1:50051"),
            ),
            ("h3://o", Scheme::H3, name("o", 443)),
            (
                "unix:/run/a.sock",
                Scheme::Http,
                Endpoint::Unix("/run/a.sock".into()),
            ),
            (
                "unix:a.sock",
                Scheme::Http,
                Endpoint::Unix("/d/a.sock".into()),
            ),
            (
                "srv:_http._tcp.app",
                Scheme::Http,
                Endpoint::Srv("_http._tcp.app".into()),
            ),
        ];
        for (text, scheme, to) in good {
            let target = Target::parse(text, true, false, Path::new("/d"));
            assert_eq!(
                target,
                Ok(Target {
                    text: text.into(),
                    scheme,
                    to
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_targets() {
        let bad = [
            "",
            "app",
            "app:",
            "app:0",
            "app:99999",
            "ftp://x",
            "https://",
            "[::1",
            "[::1]x",
            "a b:1",
            "-x:1",
            "unix:",
            "srv:",
            "$host:80",
            "a..b:1",
            "http://u@h",
            "::1:80",
        ];
        for text in bad {
            let target = Target::parse(text, true, false, Path::new("/d"));
            assert_eq!(target, Err(expected_target(true)), "{text}");
        }
        let path = Target::parse("http://app:1/x", true, false, Path::new("/d"));
        assert_eq!(
            path,
            Err("a target has no path: write `rewrite` above it".to_owned())
        );
        assert!(Target::parse("http://app", false, false, Path::new("/d")).is_err());
        let variable = Target::parse("https://$host", true, true, Path::new("/d")).unwrap();
        assert!(matches!(variable.to, Endpoint::Variable(_)));
        let wrong = Target::parse("https://$hots", true, true, Path::new("/d"));
        assert_eq!(wrong, Err("did you mean `$host`?".to_owned()));
    }

    #[test]
    fn prefixes() {
        for text in [
            "10.0.0.0/8",
            "2001:db8::/32",
            "192.0.2.7",
            "::1",
            "private",
            "0.0.0.0/0",
        ] {
            assert!(Prefix::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0",
            "example.com",
            "Private",
        ] {
            assert_eq!(Prefix::parse(text), None, "{text}");
        }
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let ten = Prefix::parse("10.0.0.0/8").unwrap();
        assert!(ten.contains(address("10.255.0.1")) && !ten.contains(address("11.0.0.0")));
        for text in [
            "127.0.0.1",
            "::1",
            "192.168.3.4",
            "fe80::1",
            "fd00::7",
            "172.31.0.1",
        ] {
            assert!(Prefix::Private.contains(address(text)), "{text}");
        }
        for text in ["8.8.8.8", "2001:db8::1", "172.32.0.1"] {
            assert!(!Prefix::Private.contains(address(text)), "{text}");
        }
    }

    #[test]
    fn hosts() {
        let table = [
            ("Example.com", Some(Host::Exact("example.com".into()))),
            ("*.example.com", Some(Host::Below("example.com".into()))),
            ("*", Some(Host::Any)),
            ("localhost", Some(Host::Exact("localhost".into()))),
            ("127.0.0.1", Some(Host::Exact("127.0.0.1".into()))),
            ("[::1]", Some(Host::Exact("[::1]".into()))),
            ("", None),
            ("example.com:80", None),
            ("example.com.", None),
            ("a*.example.com", None),
            ("*.*.com", None),
            ("http://x", None),
            ("bücher.example", None),
            ("[x]", None),
        ];
        for (text, host) in table {
            assert_eq!(Host::parse(text), host, "{text}");
        }
    }
}
