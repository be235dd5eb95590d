//! `exists`: while a file exists.
//!
//! A worker must not wait for a disk, and a condition cannot wait at all. So a look asks for what
//! the kernel has in memory (`RESOLVE_CACHED`), which it nearly always has, that a file is *not*
//! there included. Where it has not, a thread that may wait looks, and until it has, what was
//! known before stands; at load that thread is the one that builds the configuration.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use forebay_config::{Arg, Call, Directive, PathTemplate, Type};
use forebay_sys::clock;
use forebay_sys::files::{Links, Root};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::control::build::Builder;
use crate::exchange::{Exchange, Response, Test, expand_path};

pub static DIRECTIVE: Directive = Directive::condition(
    "exists",
    "True while this file or directory exists; looked at no more than once a second.",
)
.args(&[Arg::required("PATH", Type::PathTemplate)])
.example(r#"exists "/srv/maintenance.on""#);

/// How long a look is good for.
const FRESH_MS: u64 = 1_000;

/// Paths remembered by one condition whose path has variables. Clients choose them, so there is an
/// end to it.
const MAX_PATHS: usize = 1_024;

/// Looks by threads that may wait, under way at one time, for all conditions together: clients
/// that ask for ever new paths must not fill the pool that files are read by.
const MAX_LOOKS: usize = 32;

static LOOKS: AtomicUsize = AtomicUsize::new(0);

/// Paths are resolved from here.
static ROOT: LazyLock<Option<Root>> = LazyLock::new(|| Root::open_dir("/").ok());

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let path: &PathTemplate = call.get("PATH");
    if !path.rest.parts.is_empty() {
        return Some(Box::new(Varying {
            path: path.clone(),
            known: Mutex::default(),
        }));
    }
    let path: Arc<[u8]> = path.base.as_os_str().as_bytes().into();
    let known = Known::new(look(&path));
    Some(Box::new(Fixed {
        path,
        known: Arc::new(known),
    }))
}

/// What is known of one path.
struct Known {
    there: AtomicBool,
    /// When somebody last looked, or set out to.
    looked_ms: AtomicU64,
}

impl Known {
    fn new(there: bool) -> Known {
        let looked_ms = AtomicU64::new(clock::coarse_ms());
        Known {
            there: AtomicBool::new(there),
            looked_ms,
        }
    }

    /// Whether the file is there, as of a second ago at most, or of the last look if the disk has
    /// to be waited for.
    fn is_there(self: &Arc<Known>, path: &Arc<[u8]>) -> bool {
        let (now, looked) = (clock::coarse_ms(), self.looked_ms.load(Relaxed));
        if now.saturating_sub(looked) >= FRESH_MS
            && self
                .looked_ms
                .compare_exchange(looked, now, Relaxed, Relaxed)
                .is_ok()
        {
            self.renew(path);
        }
        self.there.load(Relaxed)
    }

    fn renew(self: &Arc<Known>, path: &Arc<[u8]>) {
        match look_now(path) {
            Some(there) => self.there.store(there, Relaxed),
            None => self.look_elsewhere(path),
        }
    }

    fn look_elsewhere(self: &Arc<Known>, path: &Arc<[u8]>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // Nobody is kept waiting where nothing runs.
            return self.there.store(look(path), Relaxed);
        };
        if LOOKS.fetch_add(1, Relaxed) >= MAX_LOOKS {
            LOOKS.fetch_sub(1, Relaxed);
            return;
        }
        let (known, path) = (self.clone(), path.clone());
        runtime.spawn_blocking(move || {
            known.there.store(look(&path), Relaxed);
            LOOKS.fetch_sub(1, Relaxed);
        });
    }
}

/// Looks without waiting; `None`: that cannot be told without a disk.
fn look_now(path: &[u8]) -> Option<bool> {
    let below = path.strip_prefix(b"/")?;
    match ROOT.as_ref()?.open_now(below, Links::Any) {
        Ok(_) => Some(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some(false),
            // Not in memory; or there and not to be opened: only its name is asked for.
            _ => None,
        },
    }
}

/// Looks, and waits for the disk if it must.
fn look(path: &[u8]) -> bool {
    Path::new(std::ffi::OsStr::from_bytes(path)).exists()
}

/// A path without variables.
struct Fixed {
    path: Arc<[u8]>,
    known: Arc<Known>,
}

impl Test for Fixed {
    fn holds(&self, _: &Exchange, _: Option<&Response>) -> bool {
        self.known.is_there(&self.path)
    }
}

/// A path for each value of its variables.
struct Varying {
    path: PathTemplate,
    known: Mutex<FxHashMap<Arc<[u8]>, Arc<Known>>>,
}

impl Varying {
    fn known(&self, path: &Arc<[u8]>) -> Arc<Known> {
        let mut all = self.known.lock();
        if let Some(known) = all.get(path) {
            return known.clone();
        }
        if all.len() >= MAX_PATHS {
            all.clear();
        }
        let known = Arc::new(Known::new(false));
        known.renew(path);
        all.insert(path.clone(), known.clone());
        known
    }
}

impl Test for Varying {
    fn holds(&self, exchange: &Exchange, _: Option<&Response>) -> bool {
        let mut path = self.path.base.as_os_str().as_bytes().to_vec();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut below = Vec::new();
        if expand_path(&self.path.rest, exchange, &mut below).is_err() {
            // What would lead out of the directory is not there.
            return false;
        }
        path.append(&mut below);
        let path: Arc<[u8]> = path.into();
        self.known(&path).is_there(&path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::testing::condition;

    #[test]
    fn a_file_that_comes_and_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let flag = dir.path().join("flag");
        let condition = condition(&format!("exists \"{}\"", flag.display()));
        let holds = || condition.holds(condition.get("/"));
        assert!(!holds());
        std::fs::write(&flag, "").expect("a file");
        assert!(!holds(), "looked at no more than once a second");
        condition.until(holds);
        std::fs::remove_file(&flag).expect("the file");
        condition.until(|| !holds());
    }

    #[test]
    fn at_load_what_is_there_is_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let condition = condition(&format!("exists \"{}\"", dir.path().display()));
        assert!(condition.holds(condition.get("/")));
    }

    #[test]
    fn variables_stay_below_what_is_written_before_them() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("in")).expect("a directory");
        std::fs::write(dir.path().join("in/a b"), "").expect("a file");
        std::fs::write(dir.path().join("out"), "").expect("a file");
        let condition = condition(&format!("exists \"{}/in/$path\"", dir.path().display()));
        condition.until(|| condition.holds(condition.get("/a%20b")));
        for target in ["/a", "/..%2Fout", "/a%20b/x", "/..%5Cout"] {
            assert!(!condition.holds(condition.get(target)), "{target}");
        }
    }

    #[test]
    fn clients_cannot_fill_the_memory_with_paths() {
        let template = PathTemplate::parse("/nowhere/$path", Path::new("/")).expect("a template");
        let varying = Varying {
            path: template,
            known: Mutex::default(),
        };
        for n in 0..3 * MAX_PATHS {
            let path: Arc<[u8]> = format!("/nowhere/{n}").into_bytes().into();
            assert!(!varying.known(&path).is_there(&path));
            assert!(varying.known.lock().len() <= MAX_PATHS);
        }
    }
}
