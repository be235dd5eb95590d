//! Active health checks: one task per peer, once per process.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_balance::{Checked, Health as State, HealthCounter, Tick, hash_key};
use forebay_sys::net::is_exhausted;
use rustc_hash::FxHashMap;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::ask::{Question, connect, said, values};
use crate::log::Throttle;
use crate::transport::Transport;
use crate::upstream::lines::{Unheard, ask_for_room};
use crate::upstream::{Ask, Health, Kind, Peer, Place, Protocol, Upstream};
use crate::worker::Process;

/// Of an answer's body, so much is looked at.
const BODY_BYTES: usize = 64 * 1024;

/// The checks that run.
#[derive(Default)]
pub struct Checks {
    /// By the pool's number.
    running: FxHashMap<u64, Vec<AbortHandle>>,
}

impl Checks {
    /// Checks the peers of these upstreams and of no others. Those that stay go on as they are.
    pub fn watch(&mut self, upstreams: &[Arc<Upstream>], process: &Arc<Process>) {
        self.running.retain(|id, tasks| {
            let stays = upstreams.iter().any(|upstream| upstream.id == *id);
            if !stays {
                tasks.iter().for_each(AbortHandle::abort);
            }
            stays
        });
        for upstream in upstreams {
            let Some(health) = &upstream.definition.health else {
                continue;
            };
            self.running.entry(upstream.id).or_insert_with(|| {
                let task = |peer| {
                    let (pool, process) = (Arc::downgrade(upstream), process.clone());
                    let check = keep_checking(pool, peer, health.clone(), process);
                    tokio::spawn(check).abort_handle()
                };
                (0..upstream.peers.len()).map(task).collect()
            });
        }
    }
}

async fn keep_checking(
    upstream: Weak<Upstream>,
    peer: usize,
    health: Health,
    process: Arc<Process>,
) {
    let mut counter = HealthCounter::new(health.up, health.down);
    // Not all at the same moment: each peer has its own place within the first interval. The very
    // first check comes at once, so that what is down at the start is soon known.
    let mut pause = spread(&upstream, peer, health.every);
    loop {
        // Held for the check only: a pool that is gone ends its checks.
        let Some(held) = upstream.upgrade() else {
            return;
        };
        let checked = check(&held, peer, &health, &process).await;
        handle_check(&held, peer, &mut counter, checked);
        drop(held);
        tokio::time::sleep(pause).await;
        pause = health.every;
    }
}

/// What comes of a check.
fn handle_check(
    upstream: &Upstream,
    peer: usize,
    counter: &mut HealthCounter,
    checked: Result<(), Wrong>,
) {
    static UNCHECKED: Throttle = Throttle::new();
    if let Err(wrong) = &checked
        && wrong.with == With::Us
    {
        if let Some(dropped) = UNCHECKED.pass() {
            let (upstream, why) = (&*upstream.definition.name, &*wrong.why);
            tracing::error!(upstream, why, dropped, "peers cannot be checked");
        }
        return;
    }
    let changed = counter.handle_check(checked.is_ok());
    let now = Tick::from_millis(forebay_sys::clock::coarse_ms());
    // One that is down may come to be there, or be no longer, without being well.
    if changed.is_some() || counter.state() == State::Down {
        let says = match &checked {
            _ if counter.state() == State::Up => Checked::Well,
            Err(wrong) if wrong.with == With::Nobody => Checked::Gone,
            _ => Checked::Unwell,
        };
        if upstream.pool.set_health(peer, says, now) && says == Checked::Well {
            upstream.wake_some(peer);
        }
    }
    if changed.is_some() {
        let (upstream, peer) = (&*upstream.definition.name, &*upstream.peers[peer].label);
        match checked {
            Ok(()) => tracing::info!(upstream, peer, "the peer is up: its checks pass"),
            Err(Wrong { why, .. }) => {
                tracing::warn!(upstream, peer, why, "the peer is down: its checks fail");
            }
        }
    }
}

fn spread(upstream: &Weak<Upstream>, peer: usize, every: Duration) -> Duration {
    let Some(upstream) = upstream.upgrade() else {
        return every;
    };
    let hash = hash_key(upstream.peers[peer].label.as_bytes());
    let part = u32::try_from(hash % 1_000).unwrap_or(0) + 1;
    every * part / 1_000
}

/// What was wrong.
struct Wrong {
    with: With,
    /// In words.
    why: String,
}

/// With whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    /// There is nobody to speak to: the peer is of no use even where all others are worse.
    Nobody,
    /// The peer.
    Peer,
    /// This process, which has nothing left to ask with. To take out peers for that would take out all.
    Us,
}

impl Wrong {
    fn gone(why: String) -> Wrong {
        let with = With::Nobody;
        Wrong { with, why }
    }

    fn unwell(why: String) -> Wrong {
        let with = With::Peer;
        Wrong { with, why }
    }

    fn ours(why: String) -> Wrong {
        let with = With::Us;
        Wrong { with, why }
    }
}

/// One check. Who takes no connection in time is as good as gone; who has one and does not answer may
/// have too much to do.
async fn check(
    upstream: &Arc<Upstream>,
    peer: usize,
    health: &Health,
    process: &Process,
) -> Result<(), Wrong> {
    // One that keeps a process of the application for nothing gives way to the check, too.
    let _unheard = match upstream.definition.protocol {
        Protocol::FastCgi => {
            ask_for_room(upstream, peer, process, 0, process.workers());
            Some(Unheard::new(upstream, peer))
        }
        Protocol::Http => None,
    };
    let peer = &upstream.peers[peer];
    let until = Instant::now() + health.timeout;
    let late = |what: &str| format!("no {what} within {:?}", health.timeout);
    let io = match timeout_at(until, open(peer)).await {
        Ok(Err(error)) if is_exhausted(&error) => return Err(Wrong::ours(said(error))),
        Ok(opened) => opened.map_err(|error| Wrong::gone(said(error)))?,
        Err(_) => return Err(Wrong::gone(late("connection"))),
    };
    let host = match &health.kind {
        Kind::Tcp => return Ok(()),
        Kind::FastCgi => {
            return match timeout_at(until, values(io)).await {
                Ok(answered) => answered.map_err(Wrong::unwell),
                Err(_) => Err(Wrong::unwell(late("answer"))),
            };
        }
        Kind::Tls(host) => host,
        Kind::Http(ask) => &ask.host,
    };
    let secured = upstream.secure_check(peer, io, host.as_deref());
    let io = match timeout_at(until, secured).await {
        // No request would get through to who is not who it should be.
        Ok(secured) => secured.map_err(|error| Wrong::gone(said(error)))?,
        Err(_) => return Err(Wrong::unwell(late("handshake"))),
    };
    let Kind::Http(asked) = &health.kind else {
        return Ok(());
    };
    let label = match &peer.place {
        Place::Unix(_) | Place::Process(_) => "localhost",
        Place::Address(_) | Place::Name(..) => host_of(&peer.label),
    };
    match timeout_at(until, ask(io, asked, label)).await {
        Ok(answered) => answered.map_err(Wrong::unwell),
        Err(_) => Err(Wrong::unwell(late("answer"))),
    }
}

async fn open(peer: &Peer) -> io::Result<Transport> {
    match &peer.place {
        Place::Unix(path) => Transport::connect_unix(path),
        Place::Process(_) => Err(io::ErrorKind::NotFound.into()),
        Place::Address(address) => connect(&[*address]).await,
        Place::Name(..) => connect(&peer.addresses.load_full()).await,
    }
}

/// What a target's text says of who it is.
fn host_of(label: &str) -> &str {
    label.split_once("://").map_or(label, |(_, host)| host)
}

/// Asks, and looks at the answer.
async fn ask(io: Transport, ask: &Ask, label: &str) -> Result<(), String> {
    let question = Question {
        target: &ask.path,
        host: ask.host.as_deref().unwrap_or(label),
        agent: "health check",
        accept: "*/*",
    };
    let mut answer = question.ask(io).await?;
    if !ask
        .status
        .iter()
        .any(|wanted| wanted.matches(answer.status()))
    {
        return Err(format!("it answers with status {}", answer.status()));
    }
    let Some(wanted) = &ask.body else {
        return Ok(());
    };
    let body = answer.body(BODY_BYTES).await?;
    if wanted.matches(&body.bytes) {
        Ok(())
    } else {
        Err("the body of its answer does not match".to_owned())
    }
}
