//! The directories of a store: what is declared of them, and when they are open.
//!
//! ```text
//!   declared ── in service ──▶ open ── not declared any more, or the end ──▶ closed
//! ```
//!
//! A configuration that is only looked at (`check`, `explain`, a reload that is refused) opens
//! nothing. One directory is used by one at a time: who comes after another closes that one first.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use forebay_config::{Call, Code, Node, Report};
use forebay_store::Store;
use forebay_store::disk::{self, Admit, Disk, Layer, Notice, SystemFiles, What};
use forebay_sys::process::Identity;
use parking_lot::{Mutex, RwLock};
use serde_json::json;

use super::stored::Stored;

/// The least that a directory may hold: a few segments, with what belongs to them.
pub const MIN_SIZE: u64 = 16 << 20;

/// The index of what is on disks takes at most this share of the store's memory...
const INDEX_SHARE: u64 = 8;
/// ... of which this is one object's: three words, and the free room between them.
const INDEX_BYTES: u64 = 48;

/// What waits to be written takes at most this share of the store's memory, within these limits.
const QUEUE_SHARE: u64 = 16;
const QUEUE_BYTES: std::ops::RangeInclusive<u64> = 2 << 20..=32 << 20;

/// What a store's call says of disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    dirs: Box<[PathBuf]>,
    size_bytes: u64,
    admit: Admit,
    write_bytes_per_second: u64,
}

/// The directories of one store, from one configuration to the next as long as it says the same.
pub struct Disks {
    spec: Option<Spec>,
    state: RwLock<State>,
}

/// Those that are open, or were a moment ago: who opens a directory closes it first for who has it.
static OPEN: Mutex<Vec<Weak<Disks>>> = Mutex::new(Vec::new());

enum State {
    Declared,
    /// With why some of them are not.
    Open(Arc<Disk>, Vec<String>),
    Closed,
}

impl Spec {
    /// As a call says; none without `disk`.
    pub fn of(call: &Call) -> Option<Spec> {
        let nodes = call.find::<&[Node]>("disk")?;
        let dirs = nodes.iter().map(|node| node.get::<&Path>().to_owned());
        Some(Spec {
            dirs: dirs.collect(),
            size_bytes: call.find("disk_size")?,
            admit: match call.get::<&str>("disk_admit") {
                "second" => Admit::Second,
                _ => Admit::All,
            },
            write_bytes_per_second: call.get("disk_write"),
        })
    }

    fn has_one_of(&self, other: &Spec) -> bool {
        self.dirs.iter().any(|dir| other.dirs.contains(dir))
    }

    /// A disk that is full is not used any more: that it will be can be told before.
    fn check_room(&self, store: &str, dir: &Path) {
        // A directory that is not there yet is made where the one above it is.
        let there = dir.ancestors().find(|dir| dir.is_dir());
        let Some(Ok(found)) = there.map(rustix::fs::statvfs) else {
            return;
        };
        let bytes = found.f_blocks.saturating_mul(found.f_frsize);
        if bytes < self.size_bytes {
            tracing::warn!(
                "cache store {store}: `disk_size` is more than the {} MB of the file system of {}",
                bytes >> 20,
                dir.display()
            );
        }
    }

    fn options(&self, memory_bytes: u64) -> disk::Options {
        let dirs = self.dirs.len().max(1) as u64;
        let objects = memory_bytes / INDEX_SHARE / INDEX_BYTES / dirs;
        let queue = (memory_bytes / QUEUE_SHARE).clamp(*QUEUE_BYTES.start(), *QUEUE_BYTES.end());
        disk::Options {
            size_bytes: self.size_bytes,
            write_bytes_per_second: self.write_bytes_per_second,
            admit: self.admit,
            queue_bytes: usize::try_from(queue).unwrap_or(usize::MAX),
            max_objects: usize::try_from(objects).unwrap_or(usize::MAX),
            segment_bytes: None,
            secret: super::stores::secret(),
            on_failure: |error| {
                tracing::error!("a cache goes on without a disk: {error}");
            },
        }
    }
}

/// What goes together in one call, and what a directory is said to be twice.
pub fn check(call: &Call, report: &mut Report) {
    let Some(disk) = call.node("disk") else {
        for option in ["disk_size", "disk_admit", "disk_write"] {
            if let Some(node) = call.node(option).filter(|node| node.place.is_known()) {
                let message = format!("cache_store: `{option}` without `disk` changes nothing");
                let help = "add a directory, as `disk = \"/var/cache/forebay\"`";
                report.mistake(node.place, Code::Missing, message, help);
            }
        }
        return;
    };
    if call.node("disk_size").is_none() {
        let message = "cache_store: `disk` needs `disk_size`";
        let help = "write what each directory may hold, as `disk_size = \"50GB\"`";
        report.mistake(disk.place, Code::Missing, message, help);
    }
}

/// Each directory is one store's, and that only once.
pub fn check_all<'c>(calls: impl Iterator<Item = &'c Arc<Call>>, report: &mut Report) {
    let mut seen: Vec<&Path> = Vec::new();
    for call in calls {
        for node in call.find::<&[Node]>("disk").unwrap_or_default() {
            let dir: &Path = node.get();
            if seen.contains(&dir) {
                let message = format!(
                    "cache_store: the directory \"{}\" is used twice",
                    dir.display()
                );
                let help = "give each store directories of its own";
                report.mistake(node.place, Code::Duplicate, message, help);
            }
            seen.push(dir);
        }
    }
}

impl Disks {
    /// As declared.
    pub fn new(spec: Option<Spec>) -> Arc<Disks> {
        Arc::new(Disks {
            spec,
            state: RwLock::new(State::Declared),
        })
    }

    /// What was declared.
    pub fn spec(&self) -> Option<&Spec> {
        self.spec.as_ref()
    }

    /// Makes directories that are missing, for the user that the server is about to become: that
    /// one may not be allowed to. What cannot be made is told of when it is opened.
    pub fn make_for(&self, user: &Identity) {
        let dirs = self.spec.iter().flat_map(|spec| &spec.dirs);
        for dir in dirs {
            if let Err(error) = make_dir(dir, user) {
                tracing::debug!("{} cannot be made: {error}", dir.display());
            }
        }
    }

    /// Opens them for this store, unless that is done or they are closed again. Waits for the disks.
    pub fn open(self: &Arc<Disks>, name: &str, store: &Arc<Store<Stored>>, memory_bytes: u64) {
        let Some(spec) = &self.spec else {
            return;
        };
        let mut state = self.state.write();
        if !matches!(*state, State::Declared) {
            return;
        }
        self.close_others(spec);
        spec.dirs.iter().for_each(|dir| spec.check_room(name, dir));
        let layer: Arc<dyn Layer> = Arc::new(SystemFiles);
        let (disk, opened) = Disk::open(&layer, &spec.dirs, &spec.options(memory_bytes));
        opened.notices.iter().for_each(|notice| tell(name, notice));
        store.attach(disk.clone(), &opened);
        let usage = disk.usage();
        tracing::info!(
            objects = usage.objects,
            bytes = usage.bytes,
            "cache store {name} has opened its disks"
        );
        let failed = opened.notices.iter().filter(|one| one.what == What::Failed);
        *state = State::Open(disk, failed.map(Notice::to_string).collect());
    }

    /// Writes what waits, saves the index, and leaves the directories to others. Waits for the
    /// disks.
    pub fn close(&self) {
        let mut state = self.state.write();
        if let State::Open(disk, _) = std::mem::replace(&mut *state, State::Closed) {
            disk.close();
        }
    }

    /// Closes those of others who have one of these directories, also where they are about to be.
    fn close_others(self: &Arc<Disks>, spec: &Spec) {
        let mut open = OPEN.lock();
        open.retain(|one| one.strong_count() > 0);
        let all: Vec<Arc<Disks>> = open.iter().filter_map(Weak::upgrade).collect();
        open.push(Arc::downgrade(self));
        // Closing waits for disks.
        drop(open);
        let others = all.iter().filter(|one| !Arc::ptr_eq(one, self));
        let has = |one: &&Arc<Disks>| one.spec.as_ref().is_some_and(|one| one.has_one_of(spec));
        others.filter(has).for_each(|one| one.close());
    }

    /// How they are; null without any.
    pub fn status(&self) -> serde_json::Value {
        let Some(usage) = self.usage() else {
            return serde_json::Value::Null;
        };
        json!({
            "bytes": usage.bytes,
            "max_bytes": self.max_bytes(),
            "objects": usage.objects,
            "evicted": usage.evicted,
            "carried": usage.carried,
            "index_bytes": usage.index_bytes,
            "queue_bytes": usage.queue_bytes,
            "written_bytes": usage.written_bytes,
            "refused_queue": usage.refused_queue,
            "refused_rate": usage.refused_rate,
            "damaged": usage.damaged,
            "errors": usage.errors,
        })
    }

    /// All that they may hold, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.spec.as_ref().map_or(0, |spec| {
            spec.size_bytes.saturating_mul(spec.dirs.len() as u64)
        })
    }

    /// What they hold, if they are open.
    pub fn usage(&self) -> Option<disk::Usage> {
        // Being opened, they are not waited for.
        match &*self.state.try_read()? {
            State::Open(disk, failed) => {
                let mut usage = disk.usage();
                usage.errors.extend_from_slice(failed);
                Some(usage)
            }
            State::Declared | State::Closed => None,
        }
    }
}

fn tell(store: &str, notice: &Notice) {
    match notice.what {
        What::Failed => tracing::error!("cache store {store} goes on without {notice}"),
        What::Refused => tracing::error!("cache store {store}: {notice}"),
        What::Discarded | What::Lost => tracing::warn!("cache store {store}: {notice}"),
    }
}

/// Makes a directory that only this user can read. One that is there is left as it is: what is in
/// it may be anybody's.
fn make_dir(dir: &Path, user: &Identity) -> io::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().mode(0o700).create(dir)?;
    lchown(dir, Some(user.user), Some(user.group))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::steps::testing::{build_after, built, mistakes};

    #[test]
    fn what_is_wrong_with_disks_is_told() {
        for (stores, expected) in [
            (
                r#"cache_store { disk = "/a" }"#,
                "cache_store: `disk` needs `disk_size`",
            ),
            (
                r#"cache_store { disk_size = "1GB" }"#,
                "cache_store: `disk_size` without `disk` changes nothing",
            ),
            (
                r#"cache_store { disk_admit = "second" }"#,
                "cache_store: `disk_admit` without `disk` changes nothing",
            ),
            (
                r#"cache_store { disk = { "/a", "/a/" }, disk_size = "1GB" }"#,
                "cache_store: the directory \"/a/\" is used twice",
            ),
            (
                r#"cache_store { disk = "/a", disk_size = "1GB" }
                   cache_store "b" { disk = { "/b", "/a" }, disk_size = "1GB" }"#,
                "cache_store: the directory \"/a\" is used twice",
            ),
            (r#"cache_store { disk = "/a", disk_size = "1MB" }"#, "16MB"),
        ] {
            let said = mistakes(&format!("{stores} site {{ \"*\", cache, respond(200) }}"));
            assert!(said.contains(expected), "{stores}: {said}");
        }
    }

    #[test]
    fn equal_disks_are_carried_over_and_nothing_is_opened() {
        let config = |size: &str| {
            format!(
                r#"cache_store {{ disk = {{ "/nowhere/a", "/nowhere/b" }}, disk_size = "{size}" }}
                   site {{ "*", cache, respond(200) }}"#
            )
        };
        let store = |built: &crate::control::build::Built| {
            let kept = &built.snapshot.caches.stores[0];
            (kept.store.clone(), kept.disks.clone())
        };
        let none = built(r#"site { "*", cache, respond(200) }"#);
        let first = build_after(&config("1GB"), Some(&none)).0.expect("built");
        assert!(
            Arc::ptr_eq(&store(&none).0, &store(&first).0),
            "what is in memory stays where disks are added"
        );
        let same = build_after(&config("1GB"), Some(&first)).0.expect("built");
        assert!(Arc::ptr_eq(&store(&first).1, &store(&same).1));
        let other = build_after(&config("2GB"), Some(&same)).0.expect("built");
        assert!(!Arc::ptr_eq(&store(&same).0, &store(&other).0));
        assert!(store(&other).0.disk().is_none());
    }
}
