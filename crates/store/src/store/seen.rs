//! What is under way, for people who look.

use std::sync::Arc;

use crate::key::Hash;
use crate::object::{Meta, Object};

use super::Store;

/// Something that was asked for and of which nothing is known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The key, whole.
    pub key: Box<[u8]>,
    /// Its hash, and that under which the question is known.
    pub hashes: (Hash, Hash),
    /// When it was asked, on the clock of those who ask.
    pub since_ms: u64,
    /// How many wait with the one who has asked.
    pub followers: usize,
}

impl<M: Meta> Store<M> {
    /// What is asked for under these keys, `most` questions at most. Looks at every question.
    pub fn questions(&self, wanted: impl Fn(&[u8]) -> bool, most: usize) -> Vec<Question> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let flights = shard.flights.lock();
            for (hash, under) in &flights.under_way {
                if found.len() < most && wanted(&under.text) {
                    found.push(Question {
                        key: under.text.clone(),
                        hashes: (under.key, *hash),
                        since_ms: under.since_ms,
                        followers: under.flight.followers(),
                    });
                }
            }
        }
        found
    }

    /// What is being brought in under these keys and is found only when it is complete.
    pub fn hidden(&self, wanted: impl Fn(&[u8]) -> bool, most: usize) -> Vec<Arc<Object<M>>> {
        let hidden = self.hidden.lock();
        let wanted = hidden.iter().filter(|(_, (object, _))| wanted(&object.key));
        wanted
            .map(|(_, (object, _))| object.clone())
            .take(most)
            .collect()
    }

    /// Until when nobody waits for this, as what came was not for all, and why.
    pub fn passed(&self, hash: Hash, now_ms: u64) -> Option<(u64, u8)> {
        let flights = self.shard(hash).flights.lock();
        let passed = flights.passes.get(&hash).copied();
        passed.filter(|(until, _)| *until > now_ms)
    }
}
