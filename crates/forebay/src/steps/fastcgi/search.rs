//! Looking for a script: in memory, if it was looked for within the last second; else on the worker,
//! or where waiting is allowed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, LazyLock};

use super::find::{Found, LINKS, Script, Scripts};
use crate::exchange::{Exchange, Fault};
use crate::files::{CHECK_MS, Roots};
use crate::snapshot::resource_id;
use crate::steps::files::find as lookup;
use crate::worker::Worker;

/// The most that a worker remembers; with more it begins anew. A path of more than so many bytes is
/// not remembered: clients choose them.
const MAX_REMEMBERED: usize = 4096;
const MAX_PATH: usize = 256;

/// What a worker has found lately, by the number of the step, whether a directory was asked for, and
/// the path. Looking costs three system calls, a tenth of what a small page of PHP does.
#[derive(Default)]
struct Memory {
    // By a keyed hash: remotes choose the paths.
    places: RefCell<HashMap<Box<[u8]>, Looked>>,
}

/// When it was looked for, and what came of it.
type Looked = (u64, Found);

impl Memory {
    fn get(&self, key: &[u8], now_ms: u64) -> Option<Found> {
        let places = self.places.borrow();
        let (since_ms, found) = places.get(key)?;
        (now_ms.saturating_sub(*since_ms) < CHECK_MS).then(|| found.clone())
    }

    fn put(&self, key: &[u8], now_ms: u64, found: &Found) {
        let mut places = self.places.borrow_mut();
        if places.len() >= MAX_REMEMBERED {
            places.clear();
        }
        places.insert(key.into(), (now_ms, found.clone()));
    }
}

/// What the request's path leads to; `fixed_root`: there are no variables in the root.
pub async fn look(
    exchange: &Exchange,
    root: &[u8],
    fixed_root: bool,
    scripts: &Arc<Scripts>,
) -> Result<Found, Fault> {
    let path = exchange.request.path();
    if !fixed_root || !scripts.go_by_path() || path.len() > MAX_PATH {
        let as_directory = path.ends_with('/');
        return Box::pin(search(exchange, root, scripts, as_directory)).await;
    }
    if let Some(found) = with_memory(exchange, scripts, Memory::get) {
        return Ok(found);
    }
    // In a box: once a second for each path.
    let searching = Box::pin(async {
        let found = search(exchange, root, scripts, path.ends_with('/')).await?;
        with_memory(exchange, scripts, |memory, key, now_ms| {
            memory.put(key, now_ms, &found);
        });
        Ok(found)
    });
    searching.await
}

/// What the worker remembers, the exchange's place in it, and what the time is.
fn with_memory<R>(
    exchange: &Exchange,
    scripts: &Scripts,
    use_it: impl FnOnce(&Memory, &[u8], u64) -> R,
) -> R {
    static MEMORY: LazyLock<u64> = LazyLock::new(resource_id);
    let worker = &exchange.worker;
    let mut key = smallvec::SmallVec::<[u8; MAX_PATH + 8]>::new();
    key.extend_from_slice(&scripts.id().to_le_bytes());
    key.extend_from_slice(exchange.request.path().as_bytes());
    use_it(
        &worker.local(*MEMORY, Memory::default),
        &key,
        worker.turn_ms(),
    )
}

/// The script that stands for a directory which was asked for without its slash.
pub async fn look_inside(
    exchange: &Exchange,
    root: &[u8],
    scripts: &Arc<Scripts>,
) -> Result<Option<Arc<Script>>, Fault> {
    Ok(match search(exchange, root, scripts, true).await? {
        Found::Script(script) => Some(script),
        Found::Directory | Found::Nothing => None,
    })
}

async fn search(
    exchange: &Exchange,
    root: &[u8],
    scripts: &Arc<Scripts>,
    as_directory: bool,
) -> Result<Found, Fault> {
    let (paths, scripts) = (scripts.paths(exchange), scripts.clone());
    let find =
        move |open: &dyn Fn(&[u8]) -> io::Result<File>| scripts.find(&paths, as_directory, open);
    let Worker { files, .. } = &*exchange.worker;
    match Roots::look(files, root, exchange.worker.now_ms(), LINKS, find).await? {
        // As `files` does: there is nothing in a directory that is not there.
        Err(error) if lookup::is_absent(&error) => Ok(Found::Nothing),
        found => found.map_err(|error| lookup::fault(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_believed_for_a_second() {
        let memory = Memory::default();
        memory.put(b"a", 5_000, &Found::Nothing);
        assert_eq!(memory.get(b"a", 5_999), Some(Found::Nothing));
        assert_eq!(memory.get(b"a", 6_000), None);
        assert_eq!(memory.get(b"b", 5_000), None);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let memory = Memory::default();
        for number in 0..3 * MAX_REMEMBERED {
            memory.put(&number.to_le_bytes(), 0, &Found::Directory);
            assert!(memory.places.borrow().len() <= MAX_REMEMBERED);
        }
    }
}
