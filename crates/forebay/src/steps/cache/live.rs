//! What a running server has stored of a URL, and what is on its way, for `forebay explain --live`.

use std::sync::Arc;

use forebay_cache_policy::{
    LifetimeBy, Moment, Policy, RequestFacts, Reuse, Time, WhyNot, WhyStored, WhyValidate, reuse,
};
use forebay_fields::{Fields, Known};
use forebay_store::BLOCK_BYTES;
use forebay_store::disk::Got;
use forebay_store::key::url_of;
use forebay_sys::clock;
use serde::{Deserialize, Serialize};

use super::stored::{Kept, Stored, Variant};
use super::{Caches, derived, from_disk, stores};
use crate::explain::shown;

/// All that is known of a URL. The names of its fields are those of the admin socket.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// Stored responses, those included of which more is on its way.
    pub stored: Vec<Object>,
    /// What is asked for, and of which nothing has come.
    pub asked: Vec<Asked>,
    /// Responses that run, and are shared without being stored.
    pub streams: Vec<Stream>,
    /// Keys for which nobody waits.
    pub passed: Vec<Passed>,
}

/// One stored response.
#[derive(Debug, Serialize, Deserialize)]
pub struct Object {
    /// The store's name.
    pub store: String,
    /// All of the key.
    pub key: String,
    /// The coding, if this is one that `compress` has made of another one.
    pub coding: Option<String>,
    /// The status.
    pub status: u16,
    /// In seconds.
    pub age: u32,
    /// For how many seconds more it is fresh; negative once it is stale.
    pub ttl: i64,
    /// How long it is fresh in all, in seconds.
    pub lifetime: u32,
    /// Where that comes from.
    pub lifetime_by: String,
    /// What allowed to store it.
    pub stored_by: String,
    /// The fields that it was chosen by, with their values in normal form.
    pub vary: Vec<String>,
    /// What it can be purged by.
    pub tags: Vec<String>,
    /// Its entity tag.
    pub etag: Option<String>,
    /// The length of its body; null while that is not known.
    pub bytes: Option<u64>,
    /// Blocks of the body that are there.
    pub blocks: usize,
    /// Blocks that it has; null while that is not known.
    pub blocks_in_all: Option<u64>,
    /// All of them are on a disk.
    #[serde(default)]
    pub on_disk: bool,
    /// It is not found before all of it has come: then it takes the place of what is stored.
    #[serde(default)]
    pub hidden: bool,
    /// Memory keeps only a part of it, around its fastest reader.
    #[serde(default)]
    pub windowed: bool,
    /// What brings more of it in.
    #[serde(default)]
    pub fills: Vec<Fill>,
    /// How many follow it at the moment.
    pub readers: usize,
    /// What a plain request would get now, by each cache of this store.
    pub now: Vec<String>,
}

/// What brings bytes of a response in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fill {
    /// The first byte that it brings.
    pub from: u64,
    /// How many have come.
    pub bytes: u64,
    /// How many it brings in all; null while that is not known.
    pub bytes_in_all: Option<u64>,
    /// For so long.
    pub for_ms: u64,
}

/// A question that is under way.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The store's name.
    pub store: String,
    /// All of the key.
    pub key: String,
    /// Who is asked: `origin`, `disk`, or `compress`, which makes a coded body.
    pub whom: String,
    /// For so long.
    pub for_ms: u64,
    /// Requests that wait with the one that has asked.
    pub waiting: usize,
}

/// A response that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stream {
    /// The store beside which it runs.
    pub store: String,
    /// All of the key.
    pub key: String,
    /// Its media type.
    pub media_type: String,
    /// For so long.
    pub for_ms: u64,
    /// How many bytes have come.
    pub bytes: u64,
    /// Memory of the last of them, in bytes.
    pub window_bytes: u64,
    /// How many follow it.
    pub readers: usize,
    /// The fields of requests that it is for, with their values.
    pub vary: Vec<String>,
    /// What it can be purged by.
    pub tags: Vec<String>,
}

/// What was not to be stored when it was asked for last.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    /// The store's name.
    pub store: String,
    /// All of the key.
    pub key: String,
    /// Why it was not.
    pub why: String,
    /// For so long nobody waits for what another one asks for.
    pub for_more_ms: u64,
}

/// At most so many of each are told of.
const MOST: usize = 100;

/// Looks through the stores. Takes a while with many objects, and may wait for a disk: what is only
/// there comes into memory, as if it had been asked for.
pub fn look(caches: &Caches, wanted: &[Vec<u8>], now: Time) -> Live {
    let mut live = Live::default();
    for kept in &caches.stores {
        live.look(kept, wanted, &caches.policies, now);
    }
    live
}

impl Live {
    fn look(
        &mut self,
        kept: &stores::Kept,
        wanted: &[Vec<u8>],
        policies: &[(Arc<str>, Policy)],
        now: Time,
    ) {
        let store = &kept.store;
        let is_wanted = |key: &[u8]| wanted.iter().any(|url| **url == *url_of(key));
        // First: what comes from a disk for this look is nothing that others ask for.
        self.look_at_questions(kept, wanted, is_wanted);
        for url in wanted {
            if let Got::Here(found) = store.look_on_disk(url, true) {
                for one in found {
                    store.take_up(store.hash(url), url, one);
                }
            }
        }
        let of_store = policies.iter().filter(|(name, _)| **name == *kept.name);
        let policies: Vec<&Policy> = of_store.map(|(_, policy)| policy).collect();
        let mut found = store.find(is_wanted, MOST);
        found.retain(|object| store.is_alive(object));
        found.sort_by_key(|object| object.id);
        let found = found.iter();
        self.stored
            .extend(found.map(|object| tell(kept, object, &policies, now)));
        let hidden = store.hidden(is_wanted, MOST);
        // What a plain request gets is the one whose place it takes.
        self.stored.extend(hidden.iter().map(|object| Object {
            hidden: true,
            now: Vec::new(),
            ..tell(kept, object, &[], now)
        }));
        let running = kept.lives.running(is_wanted, MOST);
        let streams = running.iter().map(|one| Stream {
            store: kept.shown().to_owned(),
            key: shown(&one.key),
            media_type: one.head.media_type(),
            for_ms: since(one.since_ms),
            bytes: one.bytes,
            window_bytes: one.window_bytes,
            readers: one.readers,
            vary: {
                let (variant, accept) = one.head.chosen_by();
                let accept = accept.map(|accept| format!("accept:{}", shown(accept)));
                lines_of(variant).into_iter().chain(accept).collect()
            },
            tags: one.head.tags().iter().map(shown).collect(),
        });
        self.streams.extend(streams);
    }

    fn look_at_questions(
        &mut self,
        kept: &stores::Kept,
        wanted: &[Vec<u8>],
        is_wanted: impl Fn(&[u8]) -> bool,
    ) {
        let (store, now_ms) = (&kept.store, clock::coarse_ms());
        let questions = store.questions(is_wanted, MOST);
        let asked = questions.iter().map(|question| Asked {
            store: kept.shown().to_owned(),
            key: shown(&question.key),
            whom: match question.hashes {
                (key, hash) if hash == from_disk::flight(key) => "disk",
                _ if derived::coding(&question.key).is_some() => "compress",
                _ => "origin",
            }
            .to_owned(),
            for_ms: since(question.since_ms),
            waiting: question.followers,
        });
        self.asked.extend(asked);
        let passed = wanted.iter().filter_map(|key| {
            let (until, why) = store.passed(store.hash(key), now_ms)?;
            let why = WhyNot::ALL.get(usize::from(why))?;
            Some(Passed {
                store: kept.shown().to_owned(),
                key: shown(key),
                why: why.to_string(),
                for_more_ms: until - now_ms,
            })
        });
        self.passed.extend(passed);
    }
}

fn since(ms: u64) -> u64 {
    clock::coarse_ms().saturating_sub(ms)
}

/// The fields that something was chosen by, with their values in normal form.
fn lines_of(variant: Option<&Variant>) -> Vec<String> {
    variant.map_or_else(Vec::new, |variant| {
        let lines = variant.key.split(|byte| *byte == b'\n');
        lines.filter(|line| !line.is_empty()).map(shown).collect()
    })
}

fn tell(kept: &stores::Kept, object: &Kept, policies: &[&Policy], now: Time) -> Object {
    let Stored {
        facts,
        fields,
        vary,
        tags,
    } = &object.meta;
    let body = &object.body;
    let blocks_in_all = body.len_bytes().map(|len| len.div_ceil(BLOCK_BYTES));
    let is_own = derived::coding(&object.key).is_none();
    let policies = policies.iter().filter(|_| is_own);
    let mut said: Vec<String> = policies.map(|policy| says(policy, object, now)).collect();
    said.sort_unstable();
    said.dedup();
    let by: LifetimeBy = facts.lifetime_by();
    let stored_by: WhyStored = facts.why_stored();
    let fills = body.fills().into_iter().map(|fill| Fill {
        from: fill.from,
        bytes: fill.at.saturating_sub(fill.from),
        bytes_in_all: fill.to.map(|to| to.saturating_sub(fill.from)),
        for_ms: since(fill.since_ms),
    });
    Object {
        store: kept.shown().to_owned(),
        key: shown(&object.key),
        coding: derived::coding(&object.key).map(shown),
        status: facts.status(),
        age: facts.age(now),
        ttl: facts.ttl(now),
        lifetime: facts.lifetime(),
        lifetime_by: by.to_string(),
        stored_by: stored_by.to_string(),
        vary: lines_of(vary.as_deref()),
        tags: tags.iter().map(shown).collect(),
        etag: fields.get(Known::Etag).map(shown),
        bytes: body.len_bytes(),
        blocks: match body.is_whole() {
            true => usize::from(body.len_bytes() != Some(0)),
            false => body.resident_blocks(),
        },
        blocks_in_all,
        on_disk: kept.store.is_on_disk(object),
        hidden: false,
        windowed: body.is_windowed(),
        fills: fills.collect(),
        readers: body.readers(),
        now: said,
    }
}

/// What a GET without any fields would get under this policy.
fn says(policy: &Policy, object: &Kept, now: Time) -> String {
    let fields = Fields::new();
    let request = RequestFacts::of(
        policy,
        &forebay_cache_policy::Asked {
            method: "GET",
            safe: true,
            has_body: false,
            fields: &fields,
        },
    );
    let decision = match object.is_stale() {
        true => Reuse::Validate(WhyValidate::Invalidated),
        false => reuse(policy, &request, &object.meta.facts, &Moment::at(now)),
    };
    match decision {
        Reuse::Fresh => "it is used: it is fresh (RFC 9111 §4.2)".to_owned(),
        Reuse::Stale(why) => format!("it is used though it is stale: {why}"),
        Reuse::Validate(_) if object.is_stale() => {
            "it is validated first: a soft purge has met it (configuration)".to_owned()
        }
        Reuse::Validate(why) => format!("it is validated first: {why}"),
        Reuse::OnlyIfCached(why) => format!("it is not used: {why}"),
        Reuse::Forbidden(why) => format!("it is not used: {why}"),
    }
}
