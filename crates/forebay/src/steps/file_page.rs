//! A file that is the body of an answer: read where waiting is allowed, kept while it is small.

use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use forebay_config::{Part, PathTemplate};
use forebay_sys::files::{Facts, Kind, Links, Root, fill_at};

use crate::exchange::{Body, Exchange, Fault, FileRange, Reason, expand_path};
use crate::files::{OpenFile, media_type};
use crate::log::Throttle;

/// What is kept in memory; a larger file is opened for each answer.
const MAX_KEPT_BYTES: u64 = 256 * 1024;

/// How long what was read stands for the file.
const FRESH_MS: u64 = 1_000;

/// One file, or one for each value of the variables in its path.
pub struct FilePage {
    path: PathTemplate,
    /// What was read last, of a path without variables.
    kept: ArcSwapOption<Kept>,
}

struct Kept {
    found: Found,
    /// When it was read, or when somebody last went to read it anew.
    read_ms: AtomicU64,
}

/// What reading has brought.
enum Found {
    Small(Bytes),
    /// It is not kept.
    Large,
    /// It cannot be read. Kept as well, so that a page that is missing does not cost a look at the
    /// disk for each request.
    Missing(Box<str>),
}

/// What a thread that may wait has read.
enum Read {
    Small(Bytes),
    Large(File, Facts),
}

impl FilePage {
    /// The page in the file that this path leads to. Nothing is read yet.
    pub fn new(path: &PathTemplate) -> FilePage {
        FilePage {
            path: path.clone(),
            kept: ArcSwapOption::empty(),
        }
    }

    /// Its path, if it is the same for every request.
    pub fn path(&self) -> Option<&Path> {
        self.path.rest.parts.is_empty().then_some(&self.path.base)
    }

    /// The media type, by the ending of the path.
    pub fn kind(&self) -> &'static str {
        let last = self
            .path
            .rest
            .parts
            .iter()
            .rev()
            .find_map(|part| match part {
                Part::Text(text) => Some(text.as_bytes()),
                Part::Var(_) => None,
            });
        media_type(last.unwrap_or(self.path.base.as_os_str().as_bytes()))
    }

    /// The page, if it needs no waiting; `Some(Err)` if it is known that it cannot be read.
    ///
    /// Once a second one request gets `None` and goes to [`read`](Self::read) the file anew; the
    /// others go on with what there is.
    pub fn now(&self, exchange: &Exchange) -> Option<Result<Bytes, Fault>> {
        self.path()?;
        let kept = self.kept.load();
        let kept = kept.as_deref()?;
        let (now, read) = (exchange.worker.now_ms(), kept.read_ms.load(Relaxed));
        if now.saturating_sub(read) >= FRESH_MS
            && kept
                .read_ms
                .compare_exchange(read, now, Relaxed, Relaxed)
                .is_ok()
        {
            return None;
        }
        match &kept.found {
            Found::Small(bytes) => Some(Ok(bytes.clone())),
            Found::Large => None,
            Found::Missing(why) => Some(Err(Fault::with(Reason::FileFailed, &**why))),
        }
    }

    /// Reads the file, on a thread that may wait for a disk.
    pub async fn read(&self, exchange: &Exchange) -> Result<Body, Fault> {
        let (dir, name, links) = self.place(exchange)?;
        let shown = dir.join(std::ffi::OsStr::from_bytes(&name));
        let reading = tokio::task::spawn_blocking(move || read(&dir, &name, links));
        let read = match reading.await {
            Ok(read) => read.map_err(|error| format!("{}: {error}", shown.display())),
            Err(error) => Err(error.to_string()),
        };
        if self.path().is_some() {
            self.keep(exchange, &read);
        }
        match read {
            Ok(Read::Small(bytes)) => Ok(bytes.into()),
            Ok(Read::Large(file, facts)) => {
                let file = OpenFile::new(file, facts);
                Ok(Body::File(FileRange {
                    file,
                    start: 0,
                    end: facts.len,
                }))
            }
            Err(why) => {
                // A path with variables is a client's choice.
                static LOG: Throttle = Throttle::new();
                if let Some(dropped) = LOG.pass() {
                    tracing::warn!(why, dropped, "a page cannot be read");
                }
                Err(Fault::with(Reason::FileFailed, why))
            }
        }
    }

    fn keep(&self, exchange: &Exchange, read: &Result<Read, String>) {
        let found = match read {
            Ok(Read::Small(bytes)) => Found::Small(bytes.clone()),
            Ok(Read::Large(..)) => Found::Large,
            Err(why) => Found::Missing(why.as_str().into()),
        };
        let read_ms = AtomicU64::new(exchange.worker.now_ms());
        self.kept.store(Some(Arc::new(Kept { found, read_ms })));
    }

    /// The directory that holds it, its name below that, and which links may be followed: a path
    /// with variables stays below what is written before them.
    fn place(&self, exchange: &Exchange) -> Result<(PathBuf, Vec<u8>, Links), Fault> {
        if let Some(path) = self.path() {
            let dir = path.parent().unwrap_or(path).to_owned();
            let name = path
                .file_name()
                .map(std::ffi::OsStr::to_owned)
                .unwrap_or_default();
            return Ok((dir, name.into_vec(), Links::Any));
        }
        let mut name = Vec::new();
        expand_path(&self.path.rest, exchange, &mut name)?;
        Ok((self.path.base.clone(), name, Links::Inside))
    }
}

fn read(dir: &Path, name: &[u8], links: Links) -> io::Result<Read> {
    let file = Root::open_dir(dir)?.open(name, links)?;
    let facts = Facts::of(&file)?;
    if facts.kind != Kind::File {
        return Err(io::Error::other("it is not a regular file"));
    }
    if facts.len > MAX_KEPT_BYTES {
        return Ok(Read::Large(file, facts));
    }
    let len = usize::try_from(facts.len).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(len);
    fill_at(&file, 0, &mut bytes, len)?;
    Ok(Read::Small(bytes.into()))
}
