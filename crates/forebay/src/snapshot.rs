//! The frozen configuration that workers serve from.
//!
//! A snapshot is swapped as a whole. An exchange looks its site up in the newest one when it
//! starts and then holds that site alone, so that a slow download does not keep ten thousand other
//! sites of an old configuration in memory.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_http1::Limits;
use forebay_route::HostTable;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::access::Sink;
use crate::counters::{ListenerCounts, SiteCounts};
use crate::exchange::{Pipeline, Remote, Trust};
use crate::listen::{ListenerId, Times};
use crate::steps::RemoteKeys;
use crate::steps::cache::Caches;
use crate::upstream::Upstream;

/// What answers for a set of host names.
pub struct Site {
    /// Its name, and what is counted under it.
    pub counts: Arc<SiteCounts>,
    /// What its requests flow through.
    pub pipeline: Arc<Pipeline>,
    /// The configuration it belongs to; held, so that `status` can tell which ones are alive.
    #[expect(dead_code, reason = "held for its count")]
    pub generation: Arc<Generation>,
}

/// One version of the configuration; alive while anything still uses a part of it.
#[derive(Debug)]
pub struct Generation {
    /// 1 for the first.
    pub number: u64,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP, of any version.
    #[default]
    Http,
    /// FastCGI: this server is the application of another one.
    Fastcgi,
}

/// What a listener serves.
pub struct Served {
    /// Its sites by host name.
    pub hosts: Arc<HostTable<Arc<Site>>>,
    /// What is counted of it.
    pub counts: Arc<ListenerCounts>,
    /// The times for its clients.
    pub times: Times,
    /// The limits for their heads.
    pub limits: Limits,
    /// Who is believed what about clients; none: nobody, as nearly everywhere.
    pub trust: Option<Arc<Trust>>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Connections of those who are trusted begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Connections that one client may have.
    pub max_per_client: u32,
}

impl Served {
    /// Whether a connection of this remote begins with a PROXY header.
    pub fn expects_header(&self, remote: &Remote) -> bool {
        let trust = self.trust.as_ref().filter(|_| self.proxy_protocol);
        trust.is_some_and(|trust| trust.believes(remote.address.ip()))
    }
}

/// A configuration in force.
pub struct Snapshot {
    /// Which version.
    pub generation: Arc<Generation>,
    /// What each listener serves.
    pub served: FxHashMap<ListenerId, Arc<Served>>,
    /// The resources that it uses; the local halves of all others are dropped.
    pub resources: FxHashSet<u64>,
    /// Its upstreams, for `status` and metrics.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Its caches and their stores.
    pub caches: Caches,
    /// Where its access logs go.
    pub sinks: Vec<Arc<Sink>>,
    /// The sets of keys that are fetched for it.
    pub key_sets: Vec<Arc<RemoteKeys>>,
    /// What is counted of its sites, each name once.
    pub sites: Vec<Arc<SiteCounts>>,
    /// The shared halves of its steps, for the next configuration.
    pub carried: Carried,
}

/// The shared halves of steps, by what they are declared as: a step that an equal definition
/// declares in the next configuration goes on with the same one.
#[derive(Clone, Default)]
pub struct Carried(FxHashMap<Box<str>, Arc<dyn Any + Send + Sync>>);

impl Carried {
    /// The one of this definition.
    pub fn get<T: Send + Sync + 'static>(&self, definition: &str) -> Option<Arc<T>> {
        self.0.get(definition)?.clone().downcast().ok()
    }

    /// Keeps the one of this definition.
    pub fn insert(&mut self, definition: &str, shared: Arc<dyn Any + Send + Sync>) {
        self.0.insert(definition.into(), shared);
    }
}

/// A number for a resource that no other has had.
pub fn resource_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
