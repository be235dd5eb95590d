//! Responses that were chosen by fields of their requests (RFC 9111 §4.1).

use forebay_cache_policy::VaryNames;
use forebay_fields::Fields;
use forebay_store::Hash;

use super::Shared;
use super::key::Key;
use super::stored::{Kept, Variant};

/// What a request says in the fields that a `Vary` names. `None`: that is longer than is compared,
/// and like nothing else.
pub fn variant_key(names: &VaryNames, fields: &Fields) -> Option<Box<[u8]>> {
    let mut key = Vec::new();
    names.write_key(fields, &mut key).then(|| key.into())
}

/// Whether a response was chosen by what this request has, too.
pub fn is_for(vary: Option<&Variant>, fields: &Fields) -> bool {
    vary.is_none_or(|variant| {
        variant_key(&variant.names, fields).is_some_and(|key| key == variant.key)
    })
}

/// By what a question is known: all who ask for the same while nothing is known of it; one for each
/// variant once it is known by what they differ.
pub fn flight(shared: &Shared, key: &Key, newest: Option<&Kept>, fields: &Fields) -> Hash {
    match newest.and_then(|object| object.meta.vary.as_ref()) {
        None => key.hash,
        Some(variant) => match variant_key(&variant.names, fields) {
            Some(values) => key.hash.with(shared.store.hash(&values)),
            None => key.hash,
        },
    }
}
