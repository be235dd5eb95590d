//! What an object says of itself: its head, and what decisions need of it.

use std::sync::Arc;

use forebay_cache_policy::{StoredFacts, VaryNames};
use forebay_fields::Fields;
use forebay_store::{Meta, Object};
use smallvec::SmallVec;

use crate::exchange::Fault;

/// The head of a stored response.
pub struct Stored {
    /// What every hit looks at.
    pub facts: StoredFacts,
    /// The fields that are sent on, in one piece of memory.
    pub fields: Fields,
    /// What requests it is for; `None`: for every one of its key.
    pub vary: Option<Box<Variant>>,
    /// What it can be purged by.
    pub tags: Box<[Box<[u8]>]>,
}

/// What a response was chosen by.
pub struct Variant {
    /// The fields that its `Vary` names.
    pub names: VaryNames,
    /// Their values in the request it answers, in normal form.
    pub key: Box<[u8]>,
}

impl Stored {
    /// The same variant under another head.
    pub fn renewed(&self, facts: StoredFacts, fields: Fields) -> Stored {
        let vary = self.vary.as_ref().map(|variant| {
            Box::new(Variant {
                names: variant.names.clone(),
                key: variant.key.clone(),
            })
        });
        Stored {
            facts,
            fields,
            vary,
            tags: self.tags.clone(),
        }
    }
}

/// A stored response.
pub type Kept = Arc<Object<Stored>>;

impl Meta for Stored {
    type Failure = Fault;

    fn weight_bytes(&self) -> usize {
        let variant = self.vary.as_ref().map_or(0, |variant| {
            size_of::<Variant>() + variant.names.as_bytes().len() + variant.key.len()
        });
        let tags: usize = self
            .tags
            .iter()
            .map(|tag| size_of_val(tag) + tag.len())
            .sum();
        self.fields.heap_bytes() + variant + tags
    }

    fn replaces(&self, other: &Stored) -> bool {
        let key = |stored: &'_ Stored| -> Option<Box<[u8]>> {
            stored.vary.as_ref().map(|variant| variant.key.clone())
        };
        key(self) == key(other)
    }

    fn tags(&self) -> SmallVec<[&[u8]; 4]> {
        self.tags.iter().map(|tag| &**tag).collect()
    }
}
