//! Open files and their bytes, read without a worker ever waiting for a disk.
//!
//! Whatever may wait exists twice: asked of the kernel's memory on the worker, and if that says
//! "not in memory", asked again on the [`pool`].
//!
//! | | on the worker | on the pool |
//! |---|---|---|
//! | a hot file | [`memory`]: no system call | – |
//! | its check, once a second | `openat2(RESOLVE_CACHED)`, `fstat` | `openat2`, `fstat` |
//! | another small file | the same, and `preadv2(RWF_NOWAIT)` | `openat2`, `fstat`, `pread` |
//! | a window of a big file | `preadv2(RWF_NOWAIT)`, `fstat` | `pread`, `fstat` |

mod disk;
mod media;
pub mod memory;
pub mod pool;
mod roots;
mod stream;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;

use forebay_sys::files::Facts;

pub use disk::{Disk, Kernel};
pub use media::{ending, media_type};
pub use memory::{Kept, KeptBody, Memory};
pub use pool::Pool;
pub use roots::{Opened, Roots};
pub use stream::FileStream;

/// What is known of a file or a root is believed for this long.
pub const CHECK_MS: u64 = 1000;

/// A file that is being sent, with the facts under which its response was made.
#[derive(Debug)]
pub struct OpenFile {
    /// The file; shared with the pool while it reads.
    pub file: Arc<File>,
    /// What it was when it was opened.
    pub facts: Facts,
    /// Asking what it is now, or sending what is in memory of it, waits for nobody. A file of
    /// another machine or process is only touched on the pool.
    pub is_local: bool,
    /// When, on the worker's clock, it was last known to be what it was and wholly in memory.
    seen_ms: Cell<u64>,
}

/// For so long a file that was found unchanged and in memory is taken to be so still. Asking costs
/// two system calls, a tenth of sending 64 KiB. What was used so recently is the last that the
/// kernel gives up; and a file that is changed in place within this time is what it is within any
/// response: broken off where it has become shorter, mixed where it has not.
const AT_HAND_MS: u64 = 100;

impl OpenFile {
    /// A file of which nothing is known but its facts.
    pub fn new(file: File, facts: Facts) -> Rc<OpenFile> {
        OpenFile::found(file, facts, false)
    }

    /// A file that was found under a root ([`Opened::is_local`]).
    pub fn found(file: File, facts: Facts, is_local: bool) -> Rc<OpenFile> {
        let file = Arc::new(file);
        Rc::new(OpenFile {
            file,
            facts,
            is_local,
            seen_ms: Cell::new(0),
        })
    }

    /// Whether it was unchanged and wholly in memory a moment ago.
    pub fn is_at_hand(&self, now_ms: u64) -> bool {
        // 0 is never, also on a clock that has just begun.
        let seen_ms = self.seen_ms.get();
        seen_ms != 0 && now_ms.saturating_sub(seen_ms) < AT_HAND_MS
    }

    /// Notes that it is unchanged and wholly in memory.
    pub fn set_at_hand(&self, now_ms: u64) {
        self.seen_ms.set(now_ms);
    }

    /// Whether it is known, without waiting, to be what it was.
    pub fn is_unchanged(&self) -> bool {
        self.is_local && Facts::of(&*self.file).is_ok_and(|facts| facts == self.facts)
    }
}

/// What a worker has to serve files with.
pub struct Files {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Where the waiting is done.
    pub pool: Rc<Pool>,
    /// The hot files.
    pub memory: RefCell<Memory>,
    /// The directories.
    pub roots: Roots,
    /// Room for the key of a lookup.
    key: Cell<Vec<u8>>,
}

impl Default for Files {
    fn default() -> Files {
        Files::new(Arc::new(Kernel))
    }
}

impl Files {
    /// On this file system.
    pub fn new(disk: Arc<dyn Disk>) -> Files {
        Files {
            disk,
            pool: Rc::default(),
            memory: RefCell::default(),
            roots: Roots::default(),
            key: Cell::default(),
        }
    }

    /// Works with an empty buffer that keeps its room from one use to the next.
    #[inline]
    pub fn with_key<R>(&self, work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut key = self.key.take();
        key.clear();
        let result = work(&mut key);
        self.key.set(key);
        result
    }
}
