//! Reports of load that peers send by UDP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_balance::Tick;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use crate::log::Throttle;
use crate::upstream::Upstream;
use crate::upstream::report::{self, LoadReport, MAX_REPORT, Nobody, UdpAddress};

/// Datagrams that are looked at before everything else in this thread has its turn, and how long that
/// turn is: whoever floods the port costs no more than this. The kernel drops the rest.
const AT_ONCE: usize = 256;
const TURN: Duration = Duration::from_millis(10);

/// The addresses at which reports are heard.
#[derive(Default)]
pub struct Reports {
    heard: FxHashMap<UdpAddress, Heard>,
}

struct Heard {
    pools: Pools,
    task: AbortHandle,
}

/// The pools whose peers report there.
type Pools = Arc<Mutex<Vec<Weak<Upstream>>>>;

/// Sockets that are not used yet.
pub struct Bound(Vec<(UdpAddress, UdpSocket)>);

impl Reports {
    /// Binds the addresses of these pools which are not bound yet; nothing else changes.
    ///
    /// # Errors
    /// A sentence: one cannot be bound.
    pub fn bind(&self, upstreams: &[Arc<Upstream>]) -> Result<Bound, String> {
        let mut bound: Vec<(UdpAddress, UdpSocket)> = Vec::new();
        for (address, upstream) in of(upstreams) {
            if self.heard.contains_key(&address) || bound.iter().any(|(one, _)| *one == address) {
                continue;
            }
            let socket = open(address).map_err(|error| {
                let name = &upstream.definition.name;
                format!("upstream \"{name}\": reports cannot be heard: {error}")
            })?;
            bound.push((address, socket));
        }
        Ok(Bound(bound))
    }

    /// Hears the reports to these pools, and to no others, from now on.
    pub fn watch(&mut self, upstreams: &[Arc<Upstream>], bound: Bound) {
        self.heard.retain(|address, heard| {
            let stays = of(upstreams).any(|(one, _)| one == *address);
            if !stays {
                heard.task.abort();
            }
            stays
        });
        for (address, socket) in bound.0 {
            let pools = Pools::default();
            let task = tokio::spawn(hear(socket, pools.clone())).abort_handle();
            self.heard.insert(address, Heard { pools, task });
        }
        for (address, heard) in &self.heard {
            let there = of(upstreams).filter(|(one, _)| one == address);
            *heard.pools.lock() = there.map(|(_, pool)| Arc::downgrade(pool)).collect();
        }
    }
}

fn of(upstreams: &[Arc<Upstream>]) -> impl Iterator<Item = (UdpAddress, &Arc<Upstream>)> {
    upstreams.iter().filter_map(|upstream| {
        let reports = upstream.reports.as_ref()?;
        Some((reports.udp()?, upstream))
    })
}

fn open(address: UdpAddress) -> std::io::Result<UdpSocket> {
    let socket = match address {
        UdpAddress::Ip(address) => StdUdpSocket::bind(address)?,
        // IPv6 and IPv4; where there is no IPv6, IPv4.
        UdpAddress::Any(port) => StdUdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| StdUdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?,
    };
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

async fn hear(socket: UdpSocket, pools: Pools) {
    // One byte more than there may be: what is longer shows.
    let mut buffer = [0; MAX_REPORT + 1];
    loop {
        for _ in 0..AT_ONCE {
            match socket.recv_from(&mut buffer).await {
                Ok((len, from)) => handle(&buffer[..len], from, &pools.lock()),
                Err(error) => {
                    tracing::warn!(%error, "reports of load cannot be read");
                    break;
                }
            }
        }
        tokio::time::sleep(TURN).await;
    }
}

/// Takes a report, for every pool whose peer has sent it.
fn handle(said: &[u8], from: SocketAddr, pools: &[Weak<Upstream>]) {
    static LOG: Throttle = Throttle::new();
    let now = Tick::from_millis(forebay_sys::clock::coarse_ms());
    let ip: IpAddr = from.ip().to_canonical();
    let why = match LoadReport::parse(said) {
        None => "it is none",
        Some(report) => {
            let mut why = Some(Nobody::Stranger);
            for upstream in pools.iter().filter_map(Weak::upgrade) {
                match upstream.reporter(ip, report.peer.as_deref()) {
                    Ok(peer) => {
                        upstream.handle_report(peer, &report, now);
                        why = None;
                    }
                    // That it is a stranger to one pool says less than what is wrong with another.
                    Err(Nobody::Stranger) => {}
                    Err(nobody) => why = why.map(|_| nobody),
                }
            }
            match why {
                Some(nobody) => nobody.text(),
                None => return,
            }
        }
    };
    if let Some(dropped) = LOG.pass() {
        let said = report::shown(said);
        tracing::warn!(%from, dropped, "a report of load is not taken: {why}: {said}");
    }
}
