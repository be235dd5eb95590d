//! Names of peers, resolved while running.
//!
//! One task per name asks for its addresses, publishes them in the peers that bear it, sleeps as
//! long as the answer may be kept, and asks again. When DNS fails, the last good answer stays.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::task::AbortHandle;

use crate::upstream::{Place, Upstream};

/// An answer is kept at least so long: one that says zero must not make us ask for every request.
const MIN_TTL: Duration = Duration::from_secs(5);
/// And at most so long.
const MAX_TTL: Duration = Duration::from_secs(86_400);
/// After a failure, the name is asked for again this soon.
const FAIL_TTL: Duration = Duration::from_secs(10);
/// A new configuration waits this long for its names before it goes into service without them.
const PATIENCE: Duration = Duration::from_secs(2);
/// At most this many addresses of one name are used.
const MAX_ADDRESSES: usize = 64;

/// The names in use.
#[derive(Default)]
pub struct Names {
    resolver: Option<Arc<TokioResolver>>,
    watched: FxHashMap<Box<str>, Watched>,
}

struct Watched {
    peers: Arc<Mutex<Vec<PeerOf>>>,
    task: AbortHandle,
}

/// A peer that bears a name.
struct PeerOf {
    upstream: Weak<Upstream>,
    index: usize,
    port: u16,
}

impl Names {
    /// Watches the names of these upstreams and no others. Comes back when each new one has an
    /// answer or a failure, or two seconds have passed; names the ones without an address.
    pub async fn watch(&mut self, upstreams: &[Arc<Upstream>]) -> Vec<String> {
        let wanted = by_name(upstreams);
        self.watched.retain(|name, watched| {
            let stays = wanted.contains_key(name);
            if !stays {
                watched.task.abort();
            }
            stays
        });
        if wanted.is_empty() {
            return Vec::new();
        }
        let Some(resolver) = self.resolver() else {
            return wanted
                .keys()
                .map(|name| format!("`{name}`: no resolver"))
                .collect();
        };
        let mut first_answers = tokio::task::JoinSet::new();
        for (name, peers) in wanted {
            if let Some(watched) = self.watched.get(&name) {
                let known = addresses(&watched.peers.lock());
                publish(&peers, &known);
                *watched.peers.lock() = peers;
                continue;
            }
            let peers = Arc::new(Mutex::new(peers));
            let (told, answer) = tokio::sync::oneshot::channel();
            let task = tokio::spawn(keep_fresh(
                resolver.clone(),
                name.clone(),
                peers.clone(),
                told,
            ));
            let task = task.abort_handle();
            self.watched.insert(name.clone(), Watched { peers, task });
            first_answers.spawn(async move {
                match answer.await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(format!("`{name}`: {error}")),
                    Err(_) => Some(format!("`{name}`: given up")),
                }
            });
        }
        let mut failed = Vec::new();
        let all = async {
            while let Some(answer) = first_answers.join_next().await {
                failed.extend(answer.ok().flatten());
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            failed.push("some names have no answer yet".to_owned());
        }
        failed
    }

    /// What names are asked of; none if the system does not say.
    pub fn resolver(&mut self) -> Option<Arc<TokioResolver>> {
        if self.resolver.is_none() {
            let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
            match built {
                Ok(resolver) => self.resolver = Some(Arc::new(resolver)),
                Err(error) => {
                    tracing::error!(%error, "names cannot be resolved: see /etc/resolv.conf");
                }
            }
        }
        self.resolver.clone()
    }
}

fn by_name(upstreams: &[Arc<Upstream>]) -> FxHashMap<Box<str>, Vec<PeerOf>> {
    let mut names: FxHashMap<Box<str>, Vec<PeerOf>> = FxHashMap::default();
    for upstream in upstreams {
        for (index, peer) in upstream.peers.iter().enumerate() {
            if let Place::Name(name, port) = &peer.place {
                let peer = PeerOf {
                    upstream: Arc::downgrade(upstream),
                    index,
                    port: *port,
                };
                names.entry(name.clone()).or_default().push(peer);
            }
        }
    }
    names
}

type Told = tokio::sync::oneshot::Sender<Result<(), String>>;

async fn keep_fresh(
    resolver: Arc<TokioResolver>,
    name: Box<str>,
    peers: Arc<Mutex<Vec<PeerOf>>>,
    told: Told,
) {
    let mut told = Some(told);
    let mut failing = false;
    loop {
        let (outcome, pause) = match resolver.lookup_ip(&*name).await {
            Ok(answer) => {
                let addresses: Vec<IpAddr> = answer.iter().take(MAX_ADDRESSES).collect();
                publish(&peers.lock(), &addresses);
                let left = answer
                    .valid_until()
                    .saturating_duration_since(Instant::now());
                failing = false;
                (Ok(()), left.clamp(MIN_TTL, MAX_TTL))
            }
            Err(error) => {
                // Once per outage, not every ten seconds.
                if !failing && told.is_none() {
                    tracing::warn!(%name, %error, "a name cannot be resolved; keeping its addresses");
                }
                failing = true;
                (Err(error.to_string()), FAIL_TTL)
            }
        };
        if let Some(told) = told.take() {
            // Nobody waits for it any more if it took too long.
            let _ = told.send(outcome);
        }
        tokio::time::sleep(pause).await;
    }
}

fn publish(peers: &[PeerOf], addresses: &[IpAddr]) {
    for peer in peers {
        let Some(upstream) = peer.upstream.upgrade() else {
            continue;
        };
        let addresses: Vec<SocketAddr> = addresses
            .iter()
            .map(|ip| SocketAddr::new(*ip, peer.port))
            .collect();
        if !addresses.is_empty() {
            upstream.peers[peer.index]
                .addresses
                .store(Arc::new(addresses));
        }
    }
}

/// What the peers of a name have been told last.
fn addresses(peers: &[PeerOf]) -> Vec<IpAddr> {
    let alive = peers
        .iter()
        .find_map(|peer| Some((peer.upstream.upgrade()?, peer.index)));
    match alive {
        Some((upstream, index)) => upstream.peers[index]
            .addresses
            .load()
            .iter()
            .map(|address| address.ip())
            .collect(),
        None => Vec::new(),
    }
}
