//! A file that a step works with, read again when it has changed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use forebay_config::{Call, Code, Report};
use rustix::fs::{Mode, OFlags};

/// How long a look at the file stands for it.
const FRESH_MS: u64 = 1_000;

/// Larger ones are refused: they are lists that people keep.
const MAX_BYTES: u64 = 16 << 20;

/// How the bytes of a file become what is used of it; what is wrong with them, each with its line.
pub type Parse<T> = fn(&[u8]) -> Result<T, Vec<Wrong>>;

/// A mistake in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// From 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong there. Never the text itself: it may be a secret.
    pub what: &'static str,
    /// What was expected.
    pub help: &'static str,
}

/// What was read of a file, and how to read it again.
pub struct Watched<T> {
    path: PathBuf,
    parse: Parse<T>,
    read: ArcSwap<Version<T>>,
    /// When somebody last looked whether it has changed, or went to look.
    looked_ms: AtomicU64,
}

struct Version<T> {
    value: Arc<T>,
    facts: Facts,
}

/// What differs when a file has changed: device, inode, length, and both of its times.
type Facts = (u64, u64, u64, (i64, i64), (i64, i64));

impl<T: Send + Sync + 'static> Watched<T> {
    /// The file in this argument of a call; reports what is wrong with it.
    pub fn of(call: &Call, arg: &str, parse: Parse<T>, report: &mut Report) -> Option<Watched<T>> {
        let path: &Path = call.get(arg);
        let (place, name, shown) = (call.place_of(arg), call.name(), path.display());
        let (bytes, facts) = match read(path) {
            Ok(read) => read,
            Err(error) => {
                let message = format!("{name}: {shown} cannot be read: {error}");
                report.mistake(place, Code::NotFound, message, "expected a file");
                return None;
            }
        };
        match parse(&bytes) {
            Ok(value) => Some(Watched {
                path: path.to_owned(),
                parse,
                read: ArcSwap::from_pointee(Version {
                    value: Arc::new(value),
                    facts,
                }),
                looked_ms: AtomicU64::new(0),
            }),
            Err(wrongs) => {
                for wrong in wrongs {
                    let message = format!("{name}: {shown}{}", wrong.sentence());
                    report.mistake(place, Code::BadValue, message, wrong.help);
                }
                None
            }
        }
    }

    /// What was read last.
    pub fn now(&self) -> Arc<T> {
        self.read.load().value.clone()
    }

    /// Whether it is time to look at the file again.
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.looked_ms.load(Relaxed)) >= FRESH_MS
    }

    /// Looks at the file again, if it is time and nobody else does, on a thread that may wait for a
    /// disk. A file that cannot be read or is wrong leaves things as they are.
    pub async fn refresh(self: &Arc<Self>, now_ms: u64) {
        let looked_ms = self.looked_ms.load(Relaxed);
        let mine = now_ms.saturating_sub(looked_ms) >= FRESH_MS
            && self
                .looked_ms
                .compare_exchange(looked_ms, now_ms, Relaxed, Relaxed)
                .is_ok();
        if mine {
            let this = self.clone();
            // It can only fail when the server ends.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    fn look(&self) {
        let known = self.read.load();
        if std::fs::metadata(&self.path).is_ok_and(|found| facts(&found) == known.facts) {
            return;
        }
        let shown = self.path.display();
        let (bytes, facts) = match read(&self.path) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!("{shown} cannot be read, what it held before stands: {error}");
                return;
            }
        };
        match (self.parse)(&bytes) {
            Ok(value) => {
                let value = Arc::new(value);
                self.read.store(Arc::new(Version { value, facts }));
                tracing::info!("{shown} has changed and was read again");
            }
            Err(wrongs) => {
                let what = wrongs.first().map(Wrong::sentence).unwrap_or_default();
                tracing::warn!("{shown}{what}; what it held before stands");
            }
        }
    }
}

impl Wrong {
    /// To be put behind the file's name.
    fn sentence(&self) -> String {
        match self.line {
            0 => format!(": {}", self.what),
            line => format!(", line {line}: {}", self.what),
        }
    }
}

fn read(path: &Path) -> io::Result<(Vec<u8>, Facts)> {
    // A pipe would be waited for, already to be opened; a directory says something that nobody
    // understands.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 16MB"));
    }
    Ok((bytes, facts(&found)))
}

fn facts(found: &std::fs::Metadata) -> Facts {
    (
        found.dev(),
        found.ino(),
        found.len(),
        (found.mtime(), found.mtime_nsec()),
        (found.ctime(), found.ctime_nsec()),
    )
}
