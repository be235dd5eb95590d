//! What a configuration was made of, and whether it has changed since.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::load::Loaded;

/// Files and patterns that a load has looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    files: BTreeSet<PathBuf>,
    globs: BTreeSet<String>,
}

/// What they looked like at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// By file; none: it could not be looked at.
    files: Vec<Option<Stamp>>,
    /// What each pattern matches.
    matches: Vec<Vec<PathBuf>>,
}

/// What tells that a file is another, or has other contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len_bytes: u64,
    /// Seconds and nanoseconds: of the last change of the contents, and of anything.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Times of files come from a clock that is behind by up to a tick of the kernel.
const TICK: Duration = Duration::from_millis(10);

impl Inputs {
    /// Those of a load.
    pub fn of(loaded: &Loaded) -> Inputs {
        Inputs {
            files: loaded.files.iter().cloned().collect(),
            globs: loaded.globs.iter().cloned().collect(),
        }
    }

    /// These files, too: those of a load that failed.
    pub fn add<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) {
        self.files.extend(files.into_iter().map(Path::to_owned));
    }

    /// Looks at all of them. Blocks on the file system.
    pub fn look(&self) -> Look {
        let stamp = |path: &PathBuf| std::fs::metadata(path).ok().map(|data| Stamp::of(&data));
        let matches = |pattern: &String| match glob::glob(pattern) {
            Ok(paths) => paths.filter_map(Result::ok).collect(),
            // It was a pattern when it was loaded.
            Err(_) => Vec::new(),
        };
        Look {
            files: self.files.iter().map(stamp).collect(),
            matches: self.globs.iter().map(matches).collect(),
        }
    }
}

impl Look {
    /// Whether something was changed at this time or later, as far as the files' times tell: a
    /// load that began then may have read it before the change or after.
    pub fn is_newer_than(&self, time: SystemTime) -> bool {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_sub(TICK);
        let since = (
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            i64::from(since.subsec_nanos()),
        );
        self.files
            .iter()
            .flatten()
            .any(|stamp| stamp.changed >= since)
    }
}

impl Stamp {
    fn of(data: &Metadata) -> Stamp {
        Stamp {
            inode: data.ino(),
            len_bytes: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("a.lua"), "1").unwrap();
        std::fs::create_dir(file("sites")).unwrap();
        let inputs = Inputs {
            files: [file("a.lua"), file("missing")].into(),
            globs: [format!("{}/*.lua", file("sites").display())].into(),
        };
        let mut last = inputs.look();
        assert_eq!(inputs.look(), last);
        let mut changed = |what: &str| {
            let look = inputs.look();
            assert_ne!(look, last, "{what}");
            last = look;
        };
        std::fs::write(file("a.lua"), "22").unwrap();
        changed("longer");
        std::fs::write(file("new"), "33").unwrap();
        std::fs::rename(file("new"), file("a.lua")).unwrap();
        changed("replaced by one of the same length");
        std::fs::write(file("missing"), "").unwrap();
        changed("there now");
        std::fs::write(file("sites/b.lua"), "").unwrap();
        changed("one more that the pattern matches");
        std::fs::remove_file(file("a.lua")).unwrap();
        changed("gone");
    }

    #[test]
    fn what_changed_while_it_was_read_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lua");
        std::fs::write(&path, "1").unwrap();
        let mut inputs = Inputs::default();
        inputs.add([path.as_path()]);
        let now = SystemTime::now();
        assert!(inputs.look().is_newer_than(now - Duration::from_secs(9)));
        assert!(!inputs.look().is_newer_than(now + Duration::from_secs(9)));
    }
}
