//! A pool as it is configured.

use std::fmt;
use std::time::Duration;

use crate::units::Share;

/// How a peer is chosen: the option `balance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Balance {
    /// The peer with the fewest requests in flight, for its weight.
    #[default]
    LeastRequests,
    /// One after the other, by weight.
    RoundRobin,
    /// Of two drawn at random by weight, the one that answers sooner for its requests in flight.
    P2cEwma,
    /// The one that the hash of a key leads to, on a ring: who has the key stays with the peer, and a
    /// peer that goes moves only those that were with it.
    Hash,
    /// At random, by weight.
    Random,
    /// The first that can be used, in the order of the configuration.
    First,
    /// The one that is the least busy by what they report.
    Score,
}

impl Balance {
    /// Every policy that is built.
    pub const ALL: [Balance; 7] = [
        Balance::LeastRequests,
        Balance::RoundRobin,
        Balance::P2cEwma,
        Balance::Hash,
        Balance::Random,
        Balance::First,
        Balance::Score,
    ];

    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Balance::LeastRequests => "least_requests",
            Balance::RoundRobin => "round_robin",
            Balance::P2cEwma => "p2c_ewma",
            Balance::Hash => "hash",
            Balance::Random => "random",
            Balance::First => "first",
            Balance::Score => "score",
        }
    }

    /// The policy of this name.
    pub fn from_name(name: &str) -> Option<Balance> {
        Balance::ALL
            .into_iter()
            .find(|balance| balance.name() == name)
    }
}

/// Passive ejection: the option `eject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// So many failures in a row eject a peer; 0 counts as 1.
    pub errors: u32,
    /// For so long.
    pub time: Duration,
    /// But never more than this share of the pool (backups included) at once, rounded down: with
    /// half of the pool, a single peer is never ejected.
    pub max: Share,
}

impl Default for Eject {
    fn default() -> Self {
        Eject {
            errors: 5,
            time: Duration::from_secs(10),
            max: Share::percent(50),
        }
    }
}

/// One peer of a pool, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSpec {
    /// From 1 to [`MAX_WEIGHT`]: its part of the requests, compared with the others.
    pub weight: u32,
    /// Used only when no primary can be.
    pub backup: bool,
    /// Requests in flight at once, from 1 to [`MAX_CONNECTIONS`].
    pub max_connections: u32,
    /// What it is known by to [`Balance::Hash`], wherever it stands: [`hash_key`](crate::hash_key)
    /// of its name. 0: its place.
    pub id: u64,
}

impl Default for PeerSpec {
    fn default() -> Self {
        PeerSpec {
            weight: 1,
            backup: false,
            max_connections: 512,
            id: 0,
        }
    }
}

/// A pool, as configured. Equal ones may share one [`Pool`](crate::Pool) over a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// How a peer is chosen.
    pub balance: Balance,
    /// From 1 to [`MAX_PEERS`]. A peer's place here is its number everywhere.
    pub peers: Vec<PeerSpec>,
    /// Passive ejection, if any.
    pub eject: Option<Eject>,
    /// How long a peer that comes back takes to its full share; zero: none at all.
    pub slow_start: Duration,
}

impl PoolSpec {
    /// A pool of these peers with the defaults of the configuration.
    pub fn new(peers: Vec<PeerSpec>) -> PoolSpec {
        PoolSpec {
            balance: Balance::default(),
            peers,
            eject: Some(Eject::default()),
            slow_start: Duration::ZERO,
        }
    }
}

/// Why a [`PoolSpec`] is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// No peer.
    Empty,
    /// More than [`MAX_PEERS`].
    TooManyPeers,
    /// The weight of this peer is not from 1 to [`MAX_WEIGHT`].
    Weight(usize),
    /// `max_connections` of this peer is not from 1 to [`MAX_CONNECTIONS`].
    Connections(usize),
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolError::Empty => f.write_str("a pool has at least one peer"),
            PoolError::TooManyPeers => write!(f, "a pool has at most {MAX_PEERS} peers"),
            PoolError::Weight(_) => write!(f, "a weight is from 1 to {MAX_WEIGHT}"),
            PoolError::Connections(_) => {
                write!(f, "`max_connections` is from 1 to {MAX_CONNECTIONS}")
            }
        }
    }
}

impl std::error::Error for PoolError {}

/// The most peers of a pool: a choice is one pass over them, and must stay in the microseconds.
pub const MAX_PEERS: usize = 10_000;

/// The largest weight.
pub const MAX_WEIGHT: u32 = 1_000;

/// The most requests in flight at one peer. Their number times a stride stays within 64 bits.
pub const MAX_CONNECTIONS: u32 = 1_000_000;
