//! Sets of keys that are fetched: one task per URL.
//!
//! ```text
//!   start ──▶ fetch ──▶ a set ──▶ in an hour, or when a token names a key that is not in it
//!               ▲  └──▶ none  ──▶ soon again; the last good set stays
//!               └───────────────────────────┘
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_config::{Endpoint, Scheme, Url};
use hickory_resolver::TokioResolver;
use rustc_hash::FxHashMap;
use tokio::task::AbortHandle;

use super::ask::{Question, connect, said};
use super::dns::Names;
use crate::steps::RemoteKeys;
use crate::upstream;

/// How long a set is good.
const FRESH: Duration = Duration::from_secs(3_600);
/// After a failure while there is a set.
const AGAIN: Duration = Duration::from_secs(60);
/// After the first failure while there is none; doubled up to [`AGAIN`].
const SOON: Duration = Duration::from_secs(2);
/// A fetch may take so long.
pub const FETCH_TIME: Duration = Duration::from_secs(10);
/// Larger ones are refused: a hundred keys with their certificates take less.
const MAX_BYTES: usize = 1 << 20;
/// So many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;

/// The sets that are kept fresh.
#[derive(Default)]
pub struct KeySets {
    /// By URL.
    running: FxHashMap<Box<str>, (Weak<RemoteKeys>, AbortHandle)>,
}

impl KeySets {
    /// Keeps these fresh and no others. Those that stay go on as they are.
    pub fn watch(&mut self, wanted: &[Arc<RemoteKeys>], names: &mut Names) {
        let is_wanted = |known: &Weak<RemoteKeys>| {
            let same = |keys: &Arc<RemoteKeys>| std::ptr::eq(Arc::as_ptr(keys), known.as_ptr());
            wanted.iter().any(same)
        };
        self.running.retain(|_, (known, task)| {
            let stays = is_wanted(known);
            if !stays {
                task.abort();
            }
            stays
        });
        for keys in wanted {
            if self.running.contains_key(&keys.url.text) {
                continue;
            }
            let resolver = match keys.url.to {
                Endpoint::Name(..) => names.resolver(),
                _ => None,
            };
            let known = Arc::downgrade(keys);
            let task = tokio::spawn(keep_fresh(known.clone(), resolver)).abort_handle();
            self.running.insert(keys.url.text.clone(), (known, task));
        }
    }
}

async fn keep_fresh(keys: Weak<RemoteKeys>, resolver: Option<Arc<TokioResolver>>) {
    let mut failed = String::new();
    let mut soon = SOON;
    loop {
        // Held for the fetch only: a set that nobody uses any more ends its task.
        let Some(keys) = keys.upgrade() else {
            return;
        };
        keys.begin();
        let fetching = fetch(&keys.url, resolver.as_deref());
        let fetched = match tokio::time::timeout(FETCH_TIME, fetching).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no answer within {FETCH_TIME:?}")),
        };
        let outcome = fetched.and_then(|bytes| keys.take(&bytes));
        let url = keys.url.shown();
        let pause = match outcome {
            Ok(count) => {
                if !failed.is_empty() {
                    failed.clear();
                    tracing::info!(url, "keys for tokens: {count} were fetched at last");
                }
                soon = SOON;
                FRESH
            }
            Err(why) => {
                let (stands, pause) = match keys.now() {
                    Some(_) => ("those that were fetched before stand", AGAIN),
                    None => ("until there are some, no token is accepted", soon),
                };
                soon = (soon * 2).min(AGAIN);
                // Once for each way to fail, not once a minute.
                if why != failed {
                    tracing::error!(url, why, "keys for tokens cannot be fetched; {stands}");
                    failed = why;
                }
                pause
            }
        };
        keys.end();
        let woken = keys.woken();
        drop(keys);
        // Who wakes us holds the set, and does so at most once a minute.
        let _ = tokio::time::timeout(pause, woken.notified()).await;
    }
}

async fn fetch(url: &Url, resolver: Option<&TokioResolver>) -> Result<Vec<u8>, String> {
    let (addresses, name) = match &url.to {
        Endpoint::Socket(address) => (vec![*address], address.ip().to_string()),
        Endpoint::Name(name, port) => (resolve(name, *port, resolver).await?, name.to_string()),
        _ => return Err("it is no URL".to_owned()),
    };
    let mut io = connect(&addresses).await.map_err(said)?;
    if url.scheme == Scheme::Https {
        io = upstream::secure(io, &name).await.map_err(said)?;
    }
    let question = Question {
        target: &url.target,
        host: &url.authority,
        agent: "keys for tokens",
        accept: "application/jwk-set+json, application/json",
    };
    let mut answer = question.ask(io).await?;
    // A redirect is not followed: it would let another server say who is trusted.
    if answer.status() != 200 {
        return Err(format!("the answer has status {}", answer.status()));
    }
    let body = answer.body(MAX_BYTES).await?;
    if !body.is_whole {
        return Err("the answer is larger than 1MB".to_owned());
    }
    Ok(body.bytes)
}

async fn resolve(
    name: &str,
    port: u16,
    resolver: Option<&TokioResolver>,
) -> Result<Vec<SocketAddr>, String> {
    let resolver = resolver.ok_or("names cannot be resolved")?;
    let answer = resolver.lookup_ip(name).await;
    let answer = answer.map_err(|error| format!("its name cannot be resolved: {error}"))?;
    let addresses = answer.iter().take(MAX_ADDRESSES);
    Ok(addresses.map(|ip| SocketAddr::new(ip, port)).collect())
}
