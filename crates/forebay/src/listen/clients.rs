//! How many connections each client has, over all workers.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

use super::ListenerId;

/// Workers that accept at the same moment mostly meet in different ones.
const SHARDS: usize = 16;

/// A table with fewer entries than this keeps its room.
const SMALL: usize = 64;

/// A client of a listener, as one client counts: IPv4 /32, IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    listener: ListenerId,
    net: u64,
}

impl Client {
    /// The client with this address; none, where it has none.
    pub fn of(listener: ListenerId, address: IpAddr) -> Option<Client> {
        let net = match address {
            _ if address.is_unspecified() => return None,
            // As if it were a network within ::/32, where no client can be.
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => {
                let net = ip.to_bits() >> 64;
                u64::try_from(net).unwrap_or(u64::MAX)
            }
        };
        Some(Client { listener, net })
    }
}

/// The clients that have connections. One without is not in it, so it never holds more than there
/// are connections.
///
/// Locked for the time of one look-up, when a connection comes and when it goes; never while a
/// request is answered. Addresses are chosen by remotes, so the hash is keyed.
#[derive(Default)]
pub struct Clients([Mutex<HashMap<Client, u32>>; SHARDS]);

impl Clients {
    /// Counts one more connection of a client, unless it has so many already.
    pub fn enter(&self, client: Client, most: u32) -> bool {
        let mut shard = self.shard(client).lock();
        let count = shard.entry(client).or_insert(0);
        if *count >= most {
            // `most` is at least 1, so nothing is left behind here.
            return false;
        }
        *count += 1;
        true
    }

    /// One of them has gone.
    pub fn leave(&self, client: Client) {
        let mut shard = self.shard(client).lock();
        let Some(count) = shard.get_mut(&client) else {
            debug_assert!(false, "it has entered");
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        shard.remove(&client);
        if shard.capacity() > SMALL && shard.len() < shard.capacity() / 8 {
            let room = shard.len() * 2;
            shard.shrink_to(room);
        }
    }

    fn shard(&self, client: Client) -> &Mutex<HashMap<Client, u32>> {
        let mixed = client.net ^ (client.net >> 32);
        let mixed = mixed ^ (mixed >> 8);
        &self.0[usize::from(mixed.to_le_bytes()[0]) % SHARDS]
    }

    /// How many clients have connections, and for how many there is room.
    #[cfg(test)]
    fn len_and_room(&self) -> (usize, usize) {
        let mut sum = (0, 0);
        for shard in &self.0 {
            let shard = shard.lock();
            sum.0 += shard.len();
            sum.1 += shard.capacity();
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client::of(1, address.parse().expect("an address")).expect("a client")
    }

    #[test]
    fn one_client_is_an_ipv4_address_or_an_ipv6_64() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:0:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_ne!(
            Client::of(2, [192, 0, 2, 1].into()),
            Some(client("192.0.2.1"))
        );
        for none in ["0.0.0.0", "::"] {
            assert_eq!(Client::of(1, none.parse().expect("an address")), None);
        }
    }

    #[test]
    fn no_client_gets_more_than_its_share() {
        let (clients, one, other) = (Clients::default(), client("192.0.2.1"), client("::1"));
        assert!(clients.enter(one, 2) && clients.enter(one, 2));
        assert!(!clients.enter(one, 2));
        assert!(clients.enter(other, 2));
        clients.leave(one);
        assert!(clients.enter(one, 2));
        assert!(!clients.enter(one, 2));
        // A lower limit holds for those who come.
        clients.leave(one);
        assert!(!clients.enter(one, 1));
        clients.leave(one);
        clients.leave(other);
        assert_eq!(clients.len_and_room().0, 0);
    }

    #[test]
    fn exact_over_threads_and_nothing_is_kept() {
        let clients = Clients::default();
        let entered = std::thread::scope(|scope| {
            let enter = || {
                (0..1000)
                    .filter(|_| clients.enter(client("::1"), 1500))
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(enter)).collect();
            let counts = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            counts.sum::<usize>()
        });
        assert_eq!(entered, 1500);
        (0..1500).for_each(|_| clients.leave(client("::1")));
        let all = (0..100_000_u32).map(|n| Client {
            listener: 1,
            net: u64::from(n) << 32 | 0x2001,
        });
        assert!(all.clone().all(|client| clients.enter(client, 1)));
        let (len, room) = clients.len_and_room();
        assert!(len == 100_000 && room >= len);
        all.for_each(|client| clients.leave(client));
        let (len, room) = clients.len_and_room();
        assert!(len == 0 && room <= SHARDS * 2 * SMALL, "{room}");
    }
}
