//! What a running server has stored of a URL, for `forebay explain --live`.

use std::sync::Arc;

use forebay_cache_policy::{
    Asked, LifetimeBy, Moment, Policy, RequestFacts, Reuse, Time, WhyStored, WhyValidate, reuse,
};
use forebay_fields::{Fields, Known};
use forebay_store::BLOCK_BYTES;
use forebay_store::disk::Got;
use forebay_store::key::url_of;
use serde::{Deserialize, Serialize};

use super::stored::{Kept, Stored};
use super::{derived, stores};
use crate::explain::shown;

/// One stored response. Its field names are those of the admin socket.
#[derive(Debug, Serialize, Deserialize)]
pub struct Live {
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
    /// More of it is being brought in.
    pub filling: bool,
    /// How many follow it at the moment.
    pub readers: usize,
    /// What a plain request would get now, by each cache of this store.
    pub now: Vec<String>,
}

/// At most so many are told of.
const MOST: usize = 100;

/// Looks through a store. Takes a while with many objects, and may wait for a disk: what is only
/// there comes into memory, as if it had been asked for.
pub fn look(
    kept: &stores::Kept,
    wanted: &[Vec<u8>],
    policies: &[(Arc<str>, Policy)],
    now: Time,
) -> Vec<Live> {
    for url in wanted {
        let store = &kept.store;
        if let Got::Here(found) = store.look_on_disk(url, true) {
            for one in found {
                store.take_up(store.hash(url), url, one);
            }
        }
    }
    let is_wanted = |key: &[u8]| wanted.iter().any(|url| **url == *url_of(key));
    let mut found = kept.store.find(is_wanted, MOST);
    found.retain(|object| kept.store.is_alive(object));
    found.sort_by_key(|object| object.id);
    let of_store = policies.iter().filter(|(name, _)| **name == *kept.name);
    let policies: Vec<&Policy> = of_store.map(|(_, policy)| policy).collect();
    found
        .iter()
        .map(|object| tell(kept, object, &policies, now))
        .collect()
}

fn tell(kept: &stores::Kept, object: &Kept, policies: &[&Policy], now: Time) -> Live {
    let Stored {
        facts,
        fields,
        vary,
        tags,
    } = &object.meta;
    let body = &object.body;
    let vary = vary.as_ref().map_or_else(Vec::new, |variant| {
        let lines = variant.key.split(|byte| *byte == b'\n');
        lines.filter(|line| !line.is_empty()).map(shown).collect()
    });
    let blocks_in_all = body.len_bytes().map(|len| len.div_ceil(BLOCK_BYTES));
    let is_own = derived::coding(&object.key).is_none();
    let policies = policies.iter().filter(|_| is_own);
    let mut said: Vec<String> = policies.map(|policy| says(policy, object, now)).collect();
    said.sort_unstable();
    said.dedup();
    let by: LifetimeBy = facts.lifetime_by();
    let stored_by: WhyStored = facts.why_stored();
    Live {
        store: kept.shown().to_owned(),
        key: shown(&object.key),
        coding: derived::coding(&object.key).map(shown),
        status: facts.status(),
        age: facts.age(now),
        ttl: facts.ttl(now),
        lifetime: facts.lifetime(),
        lifetime_by: by.to_string(),
        stored_by: stored_by.to_string(),
        vary,
        tags: tags.iter().map(shown).collect(),
        etag: fields.get(Known::Etag).map(shown),
        bytes: body.len_bytes(),
        blocks: match body.is_whole() {
            true => usize::from(body.len_bytes() != Some(0)),
            false => body.resident_blocks(),
        },
        blocks_in_all,
        on_disk: kept.store.is_on_disk(object),
        filling: body.is_filling(),
        readers: body.readers(),
        now: said,
    }
}

/// What a GET without any fields would get under this policy.
fn says(policy: &Policy, object: &Kept, now: Time) -> String {
    let fields = Fields::new();
    let request = RequestFacts::of(
        policy,
        &Asked {
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
