//! Sets of client addresses, compiled.

use std::net::{IpAddr, Ipv6Addr};

use forebay_config::{Node, Prefix};

/// A set of networks: finding an address in it costs a binary search, so that a blocklist of a
/// hundred thousand lines costs no more than a short one.
#[derive(Debug, Default)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Ranges that neither overlap nor touch, in ascending order; both ends included.
#[derive(Debug, Default)]
struct Ranges<T>(Box<[(T, T)]>);

impl Networks {
    /// The networks of a list of prefixes.
    pub fn new(prefixes: &[Node]) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in prefixes
            .iter()
            .flat_map(|node| node.get::<&Prefix>().nets())
        {
            match (net.network(), net.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    // ::ffff:192.0.2.0/120 means the IPv4 network: clients are unmapped.
                    match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                        (Some(first), Some(last)) => v4.push((first.to_bits(), last.to_bits())),
                        _ => v6.push((first.to_bits(), last.to_bits())),
                    }
                }
                _ => {}
            }
        }
        Networks {
            v4: Ranges::new(v4, |n| n.checked_add(1)),
            v6: Ranges::new(v6, |n| n.checked_add(1)),
        }
    }

    /// Whether an address is in one of them. An IPv4 address mapped into IPv6 counts as itself.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.contains_v6(address),
        }
    }

    fn contains_v6(&self, address: Ipv6Addr) -> bool {
        match address.to_ipv4_mapped() {
            Some(address) => self.v4.contains(address.to_bits()),
            None => self.v6.contains(address.to_bits()),
        }
    }
}

impl<T: Copy + Ord> Ranges<T> {
    fn new(mut all: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Ranges<T> {
        all.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match merged.last_mut() {
                // The one before reaches up to this one, or to the very end.
                Some(before) if next(before.1).is_none_or(|next| first <= next) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Ranges(merged.into_boxed_slice())
    }

    fn contains(&self, address: T) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        behind > 0 && address <= self.0[behind - 1].1
    }
}

#[cfg(test)]
mod tests {
    use forebay_config::{Place, Value};

    use super::*;

    fn networks(prefixes: &[&str]) -> Networks {
        let node = |text: &&str| Node {
            value: Value::Prefix(Prefix::parse(text).expect("a prefix")),
            place: Place::NONE,
        };
        Networks::new(&prefixes.iter().map(node).collect::<Vec<_>>())
    }

    fn check(networks: &Networks, address: &str, expected: bool) {
        let found = networks.contains(address.parse().expect("an address"));
        assert_eq!(found, expected, "{address} in {networks:?}");
    }

    #[test]
    fn addresses_are_found_at_both_ends() {
        let some = networks(&[
            "10.0.0.0/30",
            "192.0.2.7",
            "2001:db8::/32",
            "255.255.255.255",
        ]);
        for address in [
            "10.0.0.0",
            "10.0.0.3",
            "192.0.2.7",
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "255.255.255.255",
            "::ffff:10.0.0.1",
        ] {
            check(&some, address, true);
        }
        for address in [
            "9.255.255.255",
            "10.0.0.4",
            "192.0.2.6",
            "2001:db7::1",
            "2001:db9::",
            "::1",
        ] {
            check(&some, address, false);
        }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let some = networks(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25", "10.0.3.0/24"]);
        assert_eq!(some.v4.0.len(), 2);
        check(&some, "10.0.1.255", true);
        check(&some, "10.0.2.0", false);
        let all = networks(&["0.0.0.0/0", "255.0.0.0/8", "::/0"]);
        assert_eq!((all.v4.0.len(), all.v6.0.len()), (1, 1));
        check(&all, "1.2.3.4", true);
        check(&networks(&["::/0"]), "1.2.3.4", false);
        check(&networks(&[]), "0.0.0.0", false);
    }

    #[test]
    fn mapped_prefixes_are_ipv4_networks() {
        let some = networks(&["::ffff:10.0.0.0/120", "private"]);
        check(&some, "10.0.0.9", true);
        check(&some, "127.0.0.1", true);
        check(&some, "::1", true);
        check(&some, "8.8.8.8", false);
    }

    #[test]
    fn a_hundred_thousand_lines_are_found_like_one() {
        let texts: Vec<String> = (0..100_000u32)
            .map(|n| std::net::Ipv4Addr::from_bits(n * 2).to_string())
            .collect();
        let some = networks(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        for n in (0..200_000u32).step_by(997) {
            let address = std::net::Ipv4Addr::from_bits(n);
            assert_eq!(some.contains(address.into()), n % 2 == 0, "{address}");
        }
    }
}
