//! What steps above make of a stored response: kept as an object of its own, under the key of the
//! one it was made of and that one's number.
//!
//! So it dies with it: rules that meet the one meet the other, which has the same URL, tags and
//! age; what replaces the one has another number, and then nobody asks for this any more.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use forebay_fields::Packed;
use forebay_store::{BLOCK_BYTES, Begin, Hash, Outcome, Store};

use super::follow;
use super::stored::{Kept, Stored};
use crate::exchange::{Body, CodeAll, Coding, Keeps};
use crate::worker::Worker;

/// Larger bodies are coded as they go: keeping them twice costs more than it saves.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The coding of such an object, by its key.
pub fn coding(key: &[u8]) -> Option<&[u8]> {
    let at = memchr::memmem::find(key, b"\n\0")?;
    key[at + 2..].split(|byte| *byte == 0).next()
}

struct Beside {
    store: Arc<Store<Stored>>,
    object: Kept,
    worker: Rc<Worker>,
}

/// The way to what is made of an object; none, where it is not all there or too large.
pub fn beside(
    store: &Arc<Store<Stored>>,
    object: &Kept,
    worker: &Rc<Worker>,
) -> Option<Rc<dyn Keeps>> {
    let is_small = object.body.len_bytes().is_some_and(|len| len <= MAX_BYTES);
    if !is_small || object.meta.facts.status() != 200 || !object.body.is_complete() {
        return None;
    }
    Some(Rc::new(Beside {
        store: store.clone(),
        object: object.clone(),
        worker: worker.clone(),
    }))
}

impl Beside {
    fn key(&self, coding: Coding) -> (Hash, Vec<u8>) {
        let mut key = self.object.key.to_vec();
        key.extend_from_slice(format!("\n\0{}\0{}", coding.name(), self.object.id).as_bytes());
        (self.store.hash(&key), key)
    }

    fn pieces(&self) -> Option<Vec<Bytes>> {
        let len = self.object.body.len_bytes()?;
        let blocks = 0..len.div_ceil(BLOCK_BYTES);
        blocks.map(|block| self.object.body.block(block)).collect()
    }
}

impl Keeps for Beside {
    fn coded(&self, coding: Coding) -> Option<(Body, u64)> {
        let (hash, key) = self.key(coding);
        let newest = self.store.with(hash, &key, |object| Some(object.clone()));
        let coded = newest.filter(|object| self.store.is_alive(object))?;
        coded.used();
        let view = coded.body.view();
        let len = view.len_bytes()?;
        // A part of it that had to make room would have to be made again.
        coded
            .body
            .is_complete()
            .then(|| (follow::body(&coded, &view, None, None), len))
    }

    fn code(&self, coding: Coding, code: CodeAll) {
        let (hash, key) = self.key(coding);
        let Begin::Lead(lead) = self.store.begin(hash, &key, self.worker.now_ms()) else {
            return;
        };
        let Some(pieces) = self.pieces() else {
            return;
        };
        let store = self.store.clone();
        let object = self.object.clone();
        tokio::task::spawn_local(async move {
            let made = crate::compute::run(move || code(coding, &pieces)).await;
            // Where there is too much to do, it is made another time.
            let Ok(Ok(bytes)) = made else {
                return;
            };
            let meta = Stored {
                facts: object.meta.facts,
                fields: Packed::default(),
                vary: None,
                tags: object.meta.tags.clone(),
            };
            let coded = store.store(hash, &key, object.asked_at, meta, bytes.into());
            lead.land(Outcome::Object(coded));
        });
    }
}
