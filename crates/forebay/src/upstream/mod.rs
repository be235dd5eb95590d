//! Upstreams: named pools of peers, and how a request gets to one of them.
//!
//! The shared half of a pool — its definition, who is in flight where, which peers are ejected,
//! who waits for a place — is an [`Upstream`], one for all workers and carried over a reload if its
//! definition stays. Its local half is each worker's [`pool::Idle`] connections.

mod connect;
mod declare;
mod fcgi;
pub mod fleet;
mod health;
mod line;
pub mod lines;
mod options;
mod pool;
pub mod report;
mod seat;
mod session;
pub mod sticky;
pub mod tally;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_balance::{Duty, Ejection, Outcome, PeerState, Pool, PoolSpec, Tick, WaitQueue};
use forebay_config::Template;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::oneshot;

pub use connect::{ProxyHeader, connect};
pub use declare::{DIRECTIVE, Upstreams, warn_of_nobody};
pub use fcgi::{FcgiSession, OnBehalf};
pub use health::{Ask, Health, Kind};
pub use line::{Line, Times};
pub use pool::{Idle, PeerConn};
use report::ReportBy;
pub use seat::Seat;
pub use session::Session;
use sticky::Sticky;
pub use tls::{TlsSpec, secure};

use crate::exchange::Fault;
use crate::log::Throttle;

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this address.
    Address(SocketAddr),
    /// At whatever addresses this name has at the time.
    Name(Box<str>, u16),
    /// On a Unix socket of this machine.
    Unix(PathBuf),
    /// The process in this slot of the pool's own; of a peer that is in service it is `Unix`.
    Process(usize),
}

/// What the peers of a pool speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// FastCGI, one request at a time on a connection.
    FastCgi,
}

/// One server of a pool.
#[derive(Debug)]
pub struct Peer {
    /// As it was written, for logs, metrics and `status`.
    pub label: Box<str>,
    /// Where it is.
    pub place: Place,
    /// Spoken to over TLS.
    pub tls: bool,
    /// The addresses of its name, newest answer; the resolver keeps them fresh.
    pub addresses: ArcSwap<Vec<SocketAddr>>,
    /// Requests sent to it, tries included.
    pub requests: AtomicU64,
    /// How many of them failed by its fault.
    pub failures: AtomicU64,
    /// Connections to a FastCGI application.
    pub lines: lines::Lines,
}

/// What an upstream was declared as. Pools with equal definitions are the same pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name; of a target given to a step, the target's text.
    pub name: Arc<str>,
    /// What they speak.
    pub protocol: Protocol,
    /// Its peers.
    pub peers: Vec<Member>,
    /// How one of them is chosen, and their limits.
    pub pool: PoolSpec,
    /// What `hash` makes its choice by.
    pub by: Option<Template>,
    /// How its peers report their load.
    pub report: Option<ReportBy>,
    /// The name of the cookie that leads clients back to their peers.
    pub sticky: Option<Box<str>>,
    /// How its peers are checked.
    pub health: Option<Health>,
    /// How many requests may wait for a full pool.
    pub queue: usize,
    /// For how long.
    pub queue_timeout: Duration,
    /// Connections kept per peer and worker.
    pub idle_connections: usize,
    /// For how long.
    pub idle_timeout: Duration,
    /// The PROXY header that starts each connection.
    pub send_proxy: Option<ProxyHeader>,
    /// For peers that are spoken to over TLS; none if no peer is.
    pub tls: Option<TlsSpec>,
    /// Its peers are processes of this server's own.
    pub processes: Option<fleet::Spec>,
}

/// A peer as it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// As it was written.
    pub label: Box<str>,
    /// Where it is.
    pub place: Place,
    /// Spoken to over TLS.
    pub tls: bool,
}

/// A pool of peers: the half of it that all workers share.
pub struct Upstream {
    /// Its number as a resource.
    pub id: u64,
    /// What it was declared as.
    pub definition: Definition,
    /// Its peers, under the same numbers as in `pool`.
    pub peers: Box<[Peer]>,
    /// Who is in flight where.
    pub pool: Arc<Pool>,
    /// What leads clients back to their peers.
    pub sticky: Option<Sticky>,
    /// What connections over TLS are made with, and the sessions that may be resumed.
    tls: Option<Arc<ClientConfig>>,
    /// Its processes, if it has its own.
    pub fleet: Option<fleet::Fleet>,
    /// What its peers report of their load, if they do.
    pub reports: Option<report::Reports>,
    waiting: Mutex<WaitQueue<oneshot::Sender<()>>>,
    /// How many wait, so that giving a place back costs no lock while nobody does.
    waiting_count: AtomicUsize,
}

impl Upstream {
    /// A new pool. The definition has been checked by the configuration.
    pub fn new(id: u64, definition: Definition) -> Result<Upstream, String> {
        let slots = definition.peers.len();
        let fleet = definition.processes.as_ref();
        let fleet = fleet.map(|_| fleet::Fleet::new(id, slots));
        let place_of = |member: &Member| match (&member.place, &fleet) {
            (Place::Process(slot), Some(fleet)) => Place::Unix(fleet.sockets[*slot].clone()),
            (place, _) => place.clone(),
        };
        let rooms = definition
            .pool
            .peers
            .iter()
            .map(|peer| peer.max_connections);
        let peers = definition.peers.iter().zip(rooms);
        let peers = peers.map(|(member, room)| Peer {
            label: member.label.clone(),
            place: place_of(member),
            tls: member.tls,
            addresses: ArcSwap::default(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            lines: match (&member.place, room) {
                (Place::Process(_), 1) => lines::Lines::of_one_process(),
                _ => lines::Lines::default(),
            },
        });
        let pool = Pool::new(definition.pool.clone()).map_err(|error| error.to_string())?;
        let tls = definition.tls.as_ref().map(TlsSpec::client_config);
        let peers: Box<[Peer]> = peers.collect();
        let reports = definition.report.clone();
        let reports = reports.map(|by| report::Reports::new(by, peers.len()));
        let upstream = Upstream {
            id,
            peers,
            pool: Arc::new(pool),
            sticky: definition.sticky.as_deref().map(Sticky::new),
            tls: tls.transpose()?,
            fleet,
            reports,
            waiting: Mutex::new(WaitQueue::new(definition.queue, definition.queue_timeout)),
            waiting_count: AtomicUsize::new(0),
            definition,
        };
        upstream.muster();
        Ok(upstream)
    }

    /// What `forebay status` shows.
    pub fn status(&self, now: Tick) -> serde_json::Value {
        let peers = self.peers.iter().enumerate().map(|(index, peer)| {
            let view = self.pool.view(index, now);
            serde_json::json!({
                "peer": peer.label,
                "state": state_name(view.state),
                "in_flight": view.in_flight,
                "score": self.pool.score(index, now),
                "process": self.fleet.as_ref().map(|fleet| fleet.tally.status_of(index)),
                "addresses": *peer.addresses.load_full(),
            })
        });
        serde_json::json!({
            "name": *self.definition.name,
            "waiting": self.waiting(),
            "processes": self.fleet.as_ref().map(|fleet| fleet.tally.status()),
            "peers": peers.collect::<Vec<_>>(),
        })
    }

    /// Does what an operator says of a peer.
    pub fn order(&self, peer: usize, duty: Duty, now: Tick) {
        if self.pool.set_duty(peer, duty, now) && duty == Duty::Serve {
            self.wake_some(peer);
        }
    }

    /// What an operator has said of peers of the pool of this name that was in service before: who
    /// is being repaired must not get requests because somebody has added another one.
    pub fn take_orders_of(&self, before: &Upstream) {
        // A process that does not run is no repair.
        if before.definition.name != self.definition.name || self.fleet.is_some() {
            return;
        }
        for (peer, known) in self.peers.iter().enumerate() {
            let mut peers = before.peers.iter();
            let Some(number) = peers.position(|old| old.label == known.label) else {
                continue;
            };
            let duty = before.pool.duty(number);
            if duty != Duty::Serve {
                self.pool.set_duty(peer, duty, Tick::from_millis(0));
            }
        }
    }

    /// Counts a failure of a peer's, which may eject it. That is told in the log: the requests that
    /// failed may all have been answered by other peers.
    pub fn handle_failure(&self, peer: usize, fault: &Fault, now: Tick) {
        static LOG: Throttle = Throttle::new();
        let ejection = self.pool.report(peer, Outcome::Failure, now);
        if let Some(Ejection::Ejected { until }) = ejection
            && let Some(dropped) = LOG.pass()
        {
            let (upstream, peer) = (&*self.definition.name, &*self.peers[peer].label);
            let time = until.since(now);
            tracing::warn!(upstream, peer, ?time, dropped, last = %fault, "the peer is ejected");
        }
    }

    /// Whether connections are kept when their exchange is over. One that began with a PROXY header
    /// speaks for one client only.
    pub fn keeps_connections(&self) -> bool {
        let definition = &self.definition;
        definition.send_proxy.is_none()
            && !definition.idle_timeout.is_zero()
            && definition.idle_connections > 0
    }

    /// How many requests wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting_count.load(Ordering::Relaxed)
    }
}

/// What a peer is, in a word.
pub fn state_name(state: PeerState) -> &'static str {
    match state {
        PeerState::Up => "up",
        PeerState::Warming => "warming",
        PeerState::Ejected => "ejected",
        PeerState::Down => "down",
        PeerState::Draining => "draining",
        PeerState::Off => "disabled",
    }
}
