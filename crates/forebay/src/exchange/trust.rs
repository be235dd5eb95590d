//! Who is believed what about the client: `Forwarded` (RFC 7239) and the `X-Forwarded-` fields.
//!
//! Each server on the way appends whom it got the request from. So the last entry was written by
//! the remote; if that one is trusted, the entry is believed, and if the address in it is trusted
//! too, so is the entry before it, and so on. Everything further left may have been made up by the
//! client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use forebay_fields::{Fields, Known};
use forebay_http1::Authority;
use smallvec::SmallVec;

use super::Exchange;
use crate::steps::networks::Networks;

/// Entries that are looked at. No chain of servers is so long.
const MAX_HOPS: usize = 32;

/// Whose word about clients a listener takes.
#[derive(Debug)]
pub struct Trust(Networks);

/// What a hop says of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hop {
    /// It came from there; port 0 where none is told.
    Address(SocketAddr),
    /// Nobody is to know where it came from: `unknown`, `_hidden` (RFC 7239 §6.2, §6.3).
    Hidden,
    /// What stands there is no address.
    Malformed,
}

/// What trusted servers have told of a request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told<'a> {
    /// Where the client is; unspecified where nobody is to know.
    client: Option<SocketAddr>,
    is_https: Option<bool>,
    host: Option<&'a str>,
    port: Option<u16>,
}

impl Trust {
    /// Trusts these networks, and whoever comes by a Unix socket: its file says who may.
    pub fn new(networks: Networks) -> Trust {
        Trust(networks)
    }

    /// Whether one with this address is believed. Unspecified is who has none.
    pub fn believes(&self, address: IpAddr) -> bool {
        address.is_unspecified() || self.0.contains(address)
    }

    /// Puts what trusted servers say of the client into the exchange.
    pub fn apply(&self, exchange: &mut Exchange) {
        let remote = exchange.remote.address.ip();
        if !self.believes(remote) || !names_any(&exchange.request.fields) {
            return;
        }
        let told = self.told(&exchange.request.fields);
        let (client, is_https, port) = (told.client, told.is_https, told.port);
        let host = told.host.map(str::to_ascii_lowercase);
        if let Some(client) = client {
            exchange.remote.address = client;
        }
        if let Some(is_https) = is_https {
            exchange.remote.tls = is_https;
        }
        if let Some(host) = &host
            && let Some(authority) = Authority::parse(host.as_bytes())
        {
            let request = &mut exchange.request;
            request.set_host(authority.host, authority.port);
            // It was parsed, so it is a value of a field.
            let _ = request.fields.set(Known::Host, host);
        }
        if is_https.is_some() || host.is_some() {
            // What the client has asked for came to another port than this listener's.
            let port = port.unwrap_or(exchange.port());
            exchange.remote.local.set_port(port);
        }
    }

    fn told<'a>(&self, fields: &'a Fields) -> Told<'a> {
        // One or the other: they cannot be merged (RFC 7239 §7.4). Nearly every server writes the
        // older one, and leaves the newer one as the client has sent it.
        if fields.contains(Known::XForwardedFor) || !fields.contains(Known::Forwarded) {
            self.told_by_x(fields)
        } else {
            self.told_by_forwarded(fields)
        }
    }

    fn told_by_x<'a>(&self, fields: &'a Fields) -> Told<'a> {
        let (client, hops) = self.walk(from_the_right(fields, Known::XForwardedFor).map(hop));
        let entry = |name| entry(fields, name, hops);
        let text = |name| entry(name).and_then(|value| std::str::from_utf8(value).ok());
        Told {
            client,
            is_https: entry(Known::XForwardedProto).and_then(is_https),
            host: text(Known::XForwardedHost),
            port: text(Known::XForwardedPort).and_then(|port| port.parse().ok()),
        }
    }

    fn told_by_forwarded<'a>(&self, fields: &'a Fields) -> Told<'a> {
        let elements = || from_the_right(fields, Known::Forwarded).map(Element::parse);
        let hops = elements().map(|element| match element {
            Some(Element {
                from: Some(from), ..
            }) => hop(from),
            Some(_) => Hop::Hidden,
            None => Hop::Malformed,
        });
        let (client, hops) = self.walk(hops);
        let said = elements().nth(hops.saturating_sub(1)).flatten();
        let said = said.unwrap_or_default();
        Told {
            client,
            is_https: said.proto.and_then(is_https),
            host: said.host.and_then(|host| std::str::from_utf8(host).ok()),
            port: None,
        }
    }

    /// Where the entries lead to, which are given from the last one to the first; and how many of
    /// them were believed.
    fn walk(&self, entries: impl Iterator<Item = Hop>) -> (Option<SocketAddr>, usize) {
        let mut client: Option<SocketAddr> = None;
        let mut believed = 0;
        for entry in entries.take(MAX_HOPS) {
            if client.is_some_and(|client| !self.believes(client.ip())) {
                break;
            }
            match entry {
                Hop::Address(address) => {
                    client = Some(address);
                    believed += 1;
                }
                Hop::Hidden => return (Some(HIDDEN), believed + 1),
                Hop::Malformed => break,
            }
        }
        (client, believed)
    }
}

/// The address of a client that nobody is to know.
const HIDDEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn names_any(fields: &Fields) -> bool {
    [
        Known::XForwardedFor,
        Known::Forwarded,
        Known::XForwardedProto,
        Known::XForwardedHost,
    ]
    .into_iter()
    .any(|name| fields.contains(name))
}

/// The entries of a list, the last one first; empty ones are none.
///
/// Cut at every comma, also within quotes: no address and no host holds one, and a quote that a
/// client has opened must not swallow what a server has appended.
fn from_the_right(fields: &Fields, name: Known) -> impl Iterator<Item = &[u8]> {
    let lines: SmallVec<[&[u8]; 4]> = fields.all(name).collect();
    lines
        .into_iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
}

/// The entry that the last believed server has written, of so many believed ones. A server that
/// replaces the field instead of adding to it leaves a shorter list.
fn entry(fields: &Fields, name: Known, believed: usize) -> Option<&[u8]> {
    let hops = believed.max(1);
    from_the_right(fields, name).take(hops).last()
}

fn is_https(value: &[u8]) -> Option<bool> {
    let is = |name: &[u8]| value.eq_ignore_ascii_case(name);
    if is(b"https") || is(b"wss") {
        Some(true)
    } else if is(b"http") || is(b"ws") {
        Some(false)
    } else {
        None
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, `unknown`,
/// `_name`; the last two with a port, too.
fn hop(text: &[u8]) -> Hop {
    let Ok(text) = std::str::from_utf8(text) else {
        return Hop::Malformed;
    };
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = match (text.parse::<SocketAddr>(), bare.unwrap_or(text).parse()) {
        (Ok(address), _) => address,
        (_, Ok(ip)) if bare.is_none() || matches!(ip, IpAddr::V6(_)) => SocketAddr::new(ip, 0),
        _ => {
            let name = text.split(':').next().unwrap_or(text);
            let is_hidden = name.starts_with('_') || name.eq_ignore_ascii_case("unknown");
            return if is_hidden {
                Hop::Hidden
            } else {
                Hop::Malformed
            };
        }
    };
    let address = forebay_sys::net::to_unmapped(address);
    if address.ip().is_unspecified() {
        return Hop::Malformed;
    }
    Hop::Address(address)
}

/// An element of `Forwarded`: pairs separated by `;`, each at most once (RFC 7239 §4). Values are
/// without their quotes; one with a backslash in it is no address, host or scheme anyway.
#[derive(Debug, Default, PartialEq, Eq)]
struct Element<'a> {
    from: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    proto: Option<&'a [u8]>,
}

impl<'a> Element<'a> {
    fn parse(text: &'a [u8]) -> Option<Element<'a>> {
        let mut element = Element::default();
        for pair in text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            if pair.is_empty() {
                continue;
            }
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&pair[..equals], unquoted(&pair[equals + 1..])?);
            let slot = if name.eq_ignore_ascii_case(b"for") {
                &mut element.from
            } else if name.eq_ignore_ascii_case(b"host") {
                &mut element.host
            } else if name.eq_ignore_ascii_case(b"proto") {
                &mut element.proto
            } else {
                continue;
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        Some(element)
    }
}

fn unquoted(value: &[u8]) -> Option<&[u8]> {
    match value {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'"') => Some(inner),
        value if value.contains(&b'"') => None,
        value => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::steps::testing::Bench;

    fn trust(prefixes: &[&str]) -> Trust {
        use forebay_config::{Node, Place, Prefix, Value};
        let node = |text: &&str| Node {
            value: Value::Prefix(Prefix::parse(text).expect("a prefix")),
            place: Place::NONE,
        };
        let nodes: Vec<Node> = prefixes.iter().map(node).collect();
        Trust::new(Networks::new(&nodes))
    }

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, *value).expect("a field");
        }
        fields
    }

    /// Where the fields lead, when the remote and 10.0.0.0/8 are trusted.
    #[track_caller]
    fn check(lines: &[(&str, &str)], expected: Option<&str>) {
        let fields = fields(lines);
        let trust = trust(&["10.0.0.0/8", "2001:db8::/32"]);
        let client = trust.told(&fields).client.map(|client| client.to_string());
        assert_eq!(client.as_deref(), expected, "{lines:?}");
    }

    #[test]
    fn x_forwarded_for_is_walked_from_the_right() {
        let x = "X-Forwarded-For";
        check(&[(x, "192.0.2.1")], Some("192.0.2.1:0"));
        check(&[(x, "6.6.6.6, 192.0.2.1")], Some("192.0.2.1:0"));
        check(&[(x, "6.6.6.6, 192.0.2.1, 10.0.0.1")], Some("192.0.2.1:0"));
        check(
            &[(x, "6.6.6.6, 192.0.2.1"), (x, "10.0.0.1,10.0.0.2")],
            Some("192.0.2.1:0"),
        );
        check(&[(x, "10.0.0.7,10.0.0.1")], Some("10.0.0.7:0"));
        check(&[(x, ", ,192.0.2.1 ,,")], Some("192.0.2.1:0"));
        check(&[(x, "192.0.2.1:5000")], Some("192.0.2.1:5000"));
        check(&[(x, "2001:db9::1")], Some("[2001:db9::1]:0"));
        check(&[(x, "[2001:db9::1]")], Some("[2001:db9::1]:0"));
        check(&[(x, "[2001:db9::1]:5000")], Some("[2001:db9::1]:5000"));
        check(&[(x, "192.0.2.9, 2001:db8::1")], Some("192.0.2.9:0"));
        check(&[(x, "192.0.2.9, ::ffff:10.0.0.1")], Some("192.0.2.9:0"));
        check(&[], None);
    }

    #[test]
    fn a_malformed_entry_ends_the_walk() {
        let x = "X-Forwarded-For";
        for bad in [
            "x",
            "192.0.2",
            "192.0.2.1.",
            "192.0.2.1:x",
            "192.0.2.1:99999",
            "[192.0.2.1]",
            "0.0.0.0",
            "::",
            "\"192.0.2.1\"",
            "for=192.0.2.1",
            "1.2.3.4 5.6.7.8",
            "[2001:db9::1",
            "-",
        ] {
            check(&[(x, bad)], None);
            check(&[(x, &format!("6.6.6.6, {bad}"))], None);
            check(
                &[(x, &format!("6.6.6.6, {bad}, 10.0.0.1"))],
                Some("10.0.0.1:0"),
            );
            check(&[(x, &format!("{bad}, 192.0.2.1"))], Some("192.0.2.1:0"));
        }
    }

    #[test]
    fn who_is_hidden_has_no_address() {
        check(&[("X-Forwarded-For", "unknown")], Some("0.0.0.0:0"));
        check(
            &[("X-Forwarded-For", "6.6.6.6, unknown, 10.0.0.1")],
            Some("0.0.0.0:0"),
        );
        check(
            &[("Forwarded", "for=6.6.6.6, for=\"_gazonk:80\"")],
            Some("0.0.0.0:0"),
        );
        check(&[("Forwarded", "by=10.0.0.1")], Some("0.0.0.0:0"));
    }

    #[test]
    fn rfc_7239_4_forwarded_is_walked_from_the_right() {
        let f = "Forwarded";
        check(&[(f, "for=192.0.2.1")], Some("192.0.2.1:0"));
        check(
            &[(f, "For=\"[2001:db9:cafe::17]:4711\"")],
            Some("[2001:db9:cafe::17]:4711"),
        );
        check(
            &[(f, "for=6.6.6.6, for=192.0.2.1;proto=http;by=10.0.0.3")],
            Some("192.0.2.1:0"),
        );
        check(
            &[
                (f, "for=6.6.6.6"),
                (f, "for=192.0.2.1 ; x=\"y\", for=10.0.0.1"),
            ],
            Some("192.0.2.1:0"),
        );
        // A quote that the client has opened does not reach what the server has appended.
        check(&[(f, "for=\", for=192.0.2.1")], Some("192.0.2.1:0"));
        for bad in [
            "for",
            "for=1.2.3.4;for=5.6.7.8",
            "for=\"1.2.3.4",
            "for=\"1.2\\.3.4\"",
        ] {
            check(&[(f, bad)], None);
            check(&[(f, &format!("{bad}, for=10.0.0.1"))], Some("10.0.0.1:0"));
        }
        // The older one counts: a server that writes it may leave the newer one to the client.
        check(
            &[(f, "for=6.6.6.6"), ("X-Forwarded-For", "192.0.2.1")],
            Some("192.0.2.1:0"),
        );
    }

    #[test]
    fn scheme_host_and_port_are_those_of_the_last_believed_server() {
        let told = |lines: &[(&str, &str)]| {
            let fields = fields(lines);
            let told = trust(&["10.0.0.0/8"]).told(&fields);
            (told.is_https, told.host.map(str::to_owned), told.port)
        };
        let host = |text: &str| Some(text.to_owned());
        let (x, proto) = ("X-Forwarded-For", "X-Forwarded-Proto");
        let one = [
            (x, "192.0.2.1"),
            (proto, "http, https"),
            ("X-Forwarded-Host", "evil, a.test"),
        ];
        assert_eq!(told(&one), (Some(true), host("a.test"), None));
        let two = [(x, "192.0.2.1, 10.0.0.1"), (proto, "http, https, http")];
        assert_eq!(told(&two), (Some(true), None, None));
        let replaced = [
            (x, "192.0.2.1, 10.0.0.1"),
            (proto, "https"),
            ("X-Forwarded-Port", "444"),
        ];
        assert_eq!(told(&replaced), (Some(true), None, Some(444)));
        assert_eq!(told(&[(proto, "gopher")]), (None, None, None));
        let new = [(
            "Forwarded",
            "for=6.6.6.6;host=evil, for=192.0.2.1;host=\"a.test:8443\";proto=https, for=10.0.0.1;proto=http",
        )];
        assert_eq!(told(&new), (Some(true), host("a.test:8443"), None));
    }

    #[test]
    fn only_trusted_remotes_are_believed() {
        let bench = Bench::new(
            r#"listen ":80" { trust = { "10.0.0.0/8" } }
               site { "a.test", respond(200, "$client_ip $client_port $scheme $host $port $headers.host") }
               site { "*", respond(200, "$client_ip $scheme $host") }"#,
        );
        let ask = |from: &str| {
            bench
                .get("/")
                .from(from)
                .field("Host", "front.test")
                .field("X-Forwarded-For", "192.0.2.1:7")
                .field("X-Forwarded-Proto", "https")
                .field("X-Forwarded-Host", "A.test")
        };
        let told = "192.0.2.1 7 https a.test 443 a.test";
        assert_eq!(ask("10.0.0.1").run().text(), told);
        assert_eq!(ask("11.0.0.1").run().text(), "11.0.0.1 http test");
        let odd = ask("10.0.0.1").field("X-Forwarded-Host", "a b").run();
        assert_eq!(
            odd.text(),
            "192.0.2.1 https test",
            "a host that is none is not believed"
        );
    }

    #[test]
    fn by_a_unix_socket_all_are_believed_and_by_default_nobody() {
        let config = |listen: &str| {
            format!("listen {listen} site {{ \"*\", respond(200, \"$client_ip\") }}")
        };
        for (listen, from, expected) in [
            ("\"unix:/run/a.sock\"", "0.0.0.0", "192.0.2.1"),
            ("\":80\"", "127.0.0.1", "127.0.0.1"),
            ("\":80\" { trust = \"private\" }", "127.0.0.1", "192.0.2.1"),
        ] {
            let bench = Bench::new(&config(listen));
            let ask = bench
                .get("/")
                .from(from)
                .field("X-Forwarded-For", "192.0.2.1");
            assert_eq!(ask.run().text(), expected, "{listen}");
        }
    }

    proptest! {
        /// Whatever the client has put to the left of what the trusted servers append changes
        /// nothing.
        #[test]
        fn what_stands_further_left_changes_nothing(forged in "[ -~]{0,60}", new in any::<bool>()) {
            let (name, ours) = if new {
                ("Forwarded", "for=192.0.2.1;proto=https, for=10.1.1.1;proto=http")
            } else {
                ("X-Forwarded-For", "192.0.2.1, 10.1.1.1")
            };
            let line = format!("{forged}, {ours}");
            let fields = fields(&[(name, &line)]);
            let told = trust(&["10.0.0.0/8"]).told(&fields).client.map(|client| client.to_string());
            prop_assert_eq!(told.as_deref(), Some("192.0.2.1:0"));
        }

        /// Nothing that is sent makes it panic.
        #[test]
        fn anything_may_be_sent(value in "[ -~]{0,80}") {
            for name in ["Forwarded", "X-Forwarded-For"] {
                let fields = fields(&[(name, &value)]);
                let _ = trust(&["0.0.0.0/0"]).told(&fields);
            }
        }
    }
}
