//! Active health checks: one task per peer, once per process.

use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_balance::{Health as State, HealthCounter, Tick, hash_key};
use rustc_hash::FxHashMap;
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

use super::ask::{Question, connect, said};
use crate::transport::Transport;
use crate::upstream::{Ask, Health, Place, Upstream};

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
    pub fn watch(&mut self, upstreams: &[Arc<Upstream>]) {
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
                    let check = keep_checking(Arc::downgrade(upstream), peer, health.clone());
                    tokio::spawn(check).abort_handle()
                };
                (0..upstream.peers.len()).map(task).collect()
            });
        }
    }
}

async fn keep_checking(upstream: Weak<Upstream>, peer: usize, health: Health) {
    let mut counter = HealthCounter::new(health.up, health.down);
    // Not all at the same moment: each peer has its own place within the first interval. The very
    // first check comes at once, so that what is down at the start is soon known.
    let mut pause = spread(&upstream, peer, health.every);
    loop {
        let checked = {
            // Held for the check only: a pool that is gone ends its checks.
            let Some(upstream) = upstream.upgrade() else {
                return;
            };
            let check = check(&upstream, peer, &health);
            match tokio::time::timeout(health.timeout, check).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer within {:?}", health.timeout)),
            }
        };
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let changed = counter.handle_check(checked.is_ok());
        if let Some(state) = changed {
            let now = Tick::from_millis(forebay_sys::clock::coarse_ms());
            upstream.pool.set_down(peer, state == State::Down, now);
            let (upstream, peer) = (&*upstream.definition.name, &*upstream.peers[peer].label);
            match checked {
                Ok(()) => tracing::info!(upstream, peer, "the peer is up: its checks pass"),
                Err(why) => {
                    tracing::warn!(upstream, peer, why, "the peer is down: its checks fail")
                }
            }
        }
        drop(upstream);
        tokio::time::sleep(pause).await;
        pause = health.every;
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

/// One check; the error says what was wrong.
async fn check(upstream: &Upstream, peer: usize, health: &Health) -> Result<(), String> {
    let peer = &upstream.peers[peer];
    let (io, label) = match &peer.place {
        Place::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(said)?;
            (Transport::Unix(stream), "localhost")
        }
        Place::Address(address) => (connect(&[*address]).await?, host_of(&peer.label)),
        Place::Name(..) => {
            let addresses = peer.addresses.load_full();
            (connect(&addresses).await?, host_of(&peer.label))
        }
    };
    let Some(asked) = &health.ask else {
        return Ok(());
    };
    let io = upstream.secure_check(peer, io, asked.host.as_deref());
    ask(io.await.map_err(said)?, asked, label).await
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
