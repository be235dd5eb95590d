//! `cache_store`: where `cache` keeps objects.

use std::sync::Arc;

use forebay_cache_policy::Policy;
use forebay_config::{Arg, Call, Directive, MAX_SIZE, Opt, Type};
use forebay_store::rules::Rule;
use forebay_store::{Options, Store};
use rustc_hash::FxHashMap;

use super::disks::{self, Disks, MIN_SIZE, Spec};
use super::join::Lives;
use super::key::QuerySpec;
use super::stored::Stored;

/// `cache_store [NAME]`
pub static DIRECTIVE: Directive = Directive::declaration(
    "cache_store",
    "Where `cache` keeps objects; without any, it is 256 MB of memory. With a name, one more \
     store, for the caches that name it.",
)
.args(&[Arg::optional("NAME", Type::Name)])
.namespace("cache_store")
.options(&[
    Opt::new(
        "memory",
        Type::Size {
            min: 1 << 20,
            max: 16 << 40,
        },
        "Memory for objects, all that belongs to them included.",
    )
    .default(r#""256MB""#),
    Opt::new(
        "disk",
        Type::List(&Type::Path),
        "Directories, one for each disk, in which objects are kept over restarts.",
    ),
    Opt::new(
        "disk_size",
        Type::Size {
            min: MIN_SIZE,
            max: MAX_SIZE,
        },
        "What each directory may hold.",
    ),
    Opt::new(
        "disk_admit",
        Type::OneOf(&["all", "second"]),
        "Which objects are written to disks: all, or those that are asked for a second time.",
    )
    .default(r#""all""#),
    Opt::new(
        "disk_write",
        Type::Bandwidth,
        "What comes faster than this is not written to a disk.",
    )
    .default(r#""100MB/s""#),
])
.check(disks::check)
.example(r#"cache_store { memory = "512MB", disk = "/var/cache/forebay", disk_size = "50GB" }"#);

/// What runs has at most this share of a store's memory, beside it, before windows become small; and
/// no more runs than small windows fit into that.
const LIVE_SHARE: u64 = 4;

/// Without any declaration.
const USUAL_MEMORY: u64 = 256 << 20;

/// A store with what it was declared as. One of the same name in the next configuration goes on
/// with what is stored, also with another size.
pub struct Kept {
    /// The name; empty for the one without.
    pub name: Box<str>,
    memory_bytes: u64,
    /// What is in it; the one of the configuration in service, if one of this name was there.
    ///
    /// It has the memory of that until [`put_in_service`](Kept::put_in_service) is called: what is
    /// being built may still turn out to have a mistake.
    pub store: Arc<Store<Stored>>,
    /// What it has beside its memory.
    pub disks: Arc<Disks>,
    /// What runs and is not stored; of the one in service, too.
    pub lives: Arc<Lives>,
}

impl Kept {
    /// What people call it.
    pub fn shown(&self) -> &str {
        match &*self.name {
            "" => "default",
            name => name,
        }
    }

    /// How it is.
    pub fn status(&self) -> serde_json::Value {
        let usage = self.store.usage();
        let live = self.lives.usage();
        serde_json::json!({
            "name": self.shown(),
            "memory_bytes": usage.bytes,
            "max_memory_bytes": usage.memory_bytes,
            "objects": usage.objects,
            "evicted": usage.evicted,
            "asking": usage.flights,
            "fills": usage.fills,
            "purge_rules": usage.rules,
            "purge_rules_widened": usage.rules_widened,
            "disk": self.disks.status(),
            "live_streams": live.streams,
            "live_readers": live.readers,
            "live_bytes": live.bytes,
            "live_cut": live.cut,
            "live_skipped": live.skipped,
        })
    }

    /// Puts purges in force, and returns when they are on its disks, for which it waits. The error
    /// says which one they could not be written to; they are in force all the same.
    pub fn purge(&self, rules: &[Rule], soft: bool) -> Result<(), String> {
        // Else what is opened a moment later would not know of them.
        self.put_in_service();
        let mut written = Ok(());
        for rule in rules {
            if let Err(error) = self.store.purge_durably(rule, soft) {
                tracing::error!(
                    "cache store {}: a purge is not written: {error}",
                    self.shown()
                );
                written = Err(error.to_string());
            }
        }
        written
    }

    /// Gives it the memory that it was declared with, and opens its disks. Takes a while where the
    /// memory is much less, and waits for the disks.
    pub fn put_in_service(&self) {
        self.disks
            .open(self.shown(), &self.store, self.memory_bytes);
        if self.store.usage().memory_bytes != self.memory_bytes {
            self.store.set_memory(self.memory_bytes);
        }
        self.lives.set_max_bytes(self.memory_bytes / LIVE_SHARE);
    }
}

/// The stores of a configuration, and what is known of who uses them.
#[derive(Default)]
pub struct Stores {
    previous: Vec<Arc<Kept>>,
    made: Vec<Arc<Kept>>,
    queries: FxHashMap<String, Arc<QuerySpec>>,
    policies: FxHashMap<String, (Arc<str>, Policy)>,
}

/// What the caches of a configuration are, each thing once.
pub struct Caches {
    /// The stores that were declared, or are used.
    pub stores: Vec<Arc<Kept>>,
    /// What caches make of queries; without those that leave them as they are.
    pub queries: Vec<Arc<QuerySpec>>,
    /// By what caches decide, with the names of their stores.
    pub policies: Vec<(Arc<str>, Policy)>,
}

impl Stores {
    /// With those of the configuration in service.
    pub fn new(previous: Vec<Arc<Kept>>) -> Stores {
        Stores {
            previous,
            ..Stores::default()
        }
    }

    /// All of them.
    pub fn all(self) -> Caches {
        Caches {
            stores: self.made,
            queries: self.queries.into_values().collect(),
            policies: self.policies.into_values().collect(),
        }
    }

    /// Notes by what a cache decides, and what it makes of queries: under other URLs than their own
    /// things are stored.
    pub fn note_cache(&mut self, kept: &Kept, policy: &Policy, query: &Arc<QuerySpec>) {
        let form = format!("{} {policy:?}", kept.name);
        self.policies
            .entry(form)
            .or_insert_with(|| (kept.name.as_ref().into(), policy.clone()));
        if let Some(form) = query.form() {
            self.queries.entry(form).or_insert_with(|| query.clone());
        }
    }

    /// The one that a `cache_store` declares.
    pub fn declare(&mut self, call: &Call) -> Arc<Kept> {
        let name = call.find::<&str>("NAME").unwrap_or_default();
        self.make(name, call.get("memory"), Spec::of(call))
    }

    /// The one without a name.
    pub fn usual(&mut self) -> Arc<Kept> {
        match self.made.iter().find(|kept| kept.name.is_empty()) {
            Some(kept) => kept.clone(),
            None => self.make("", USUAL_MEMORY, None),
        }
    }

    fn make(&mut self, name: &str, memory_bytes: u64, spec: Option<Spec>) -> Arc<Kept> {
        let same = |kept: &&Arc<Kept>| *kept.name == *name;
        if let Some(made) = self.made.iter().find(same) {
            return made.clone();
        }
        let previous = self.previous.iter().find(same);
        let disks = match previous {
            Some(kept) if kept.disks.spec() == spec.as_ref() => kept.disks.clone(),
            _ => Disks::new(spec),
        };
        // A store has its disks for good: with other ones it is another store, which begins with
        // what is on them. One without any may get some.
        let goes_on =
            |kept: &&Arc<Kept>| kept.disks.spec().is_none() || Arc::ptr_eq(&kept.disks, &disks);
        let (store, lives) = match previous.filter(goes_on) {
            Some(kept) => (kept.store.clone(), kept.lives.clone()),
            None => begin(memory_bytes),
        };
        let kept = Arc::new(Kept {
            name: name.into(),
            memory_bytes,
            store,
            disks,
            lives,
        });
        self.made.push(kept.clone());
        kept
    }
}

/// An empty one.
fn begin(memory_bytes: u64) -> (Arc<Store<Stored>>, Arc<Lives>) {
    let store = Store::new(Options {
        memory_bytes,
        secret: secret(),
    });
    let lives = Lives::new(memory_bytes / LIVE_SHARE);
    let running = lives.clone();
    store.before_sweep(move |rules| running.retain(|key, head| head.is_alive(key, rules)));
    (store, lives)
}

/// Two numbers that no remote knows: the standard library's seeds are the system's randomness.
pub fn secret() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let mut secret = [0; 16];
    for half in secret.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(0_u8).to_le_bytes());
    }
    secret
}
