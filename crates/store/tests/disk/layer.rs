//! Files in memory, of a disk that can be slow, full, broken, or lose its power.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bytes::BytesMut;
use forebay_store::disk::{Layer, LayerFile};
use parking_lot::{Mutex, RwLock};

const PAGE: usize = 4096;

/// Numbers that look like chance, by a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    /// What is on the disk for sure.
    synced: Vec<u8>,
    /// Pages that were written since.
    dirty: BTreeSet<usize>,
}

#[derive(Default)]
struct Inode(Mutex<Content>);

#[derive(Clone)]
enum Change {
    Set(PathBuf, Arc<Inode>),
    Take(PathBuf),
}

#[derive(Default)]
struct Names {
    now: BTreeMap<PathBuf, Arc<Inode>>,
    synced: BTreeMap<PathBuf, Arc<Inode>>,
    /// Since a directory was synced; all directories are one here.
    changes: Vec<Change>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
}

impl Names {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.changes.push(change);
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Arc<Inode>>, change: &Change) {
    match change {
        Change::Set(path, inode) => names.insert(path.clone(), inode.clone()),
        Change::Take(path) => names.remove(path),
    };
}

/// What is wrong with the disk.
#[derive(Default)]
pub struct Faults {
    /// No more than this is taken; 0: any.
    pub room: AtomicU64,
    pub used: AtomicU64,
    pub fail_writes: AtomicBool,
    pub fail_reads: AtomicBool,
    pub fail_syncs: AtomicBool,
    /// What is not in memory has to be waited for.
    pub cold: AtomicBool,
    /// Of each write.
    pub slow_ms: AtomicU64,
    /// Held by a test, it stops all writes.
    pub gate: RwLock<()>,
}

#[derive(Default, Clone)]
pub struct Memory {
    names: Arc<Mutex<Names>>,
    pub faults: Arc<Faults>,
}

struct Opened {
    inode: Arc<Inode>,
    faults: Arc<Faults>,
}

struct Locked(Arc<Mutex<Names>>, PathBuf);

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.lock().locks.remove(&self.1);
    }
}

impl Faults {
    fn write(&self, bytes: usize) -> io::Result<()> {
        let _gate = self.gate.read();
        if self.slow_ms.load(SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(self.slow_ms.load(SeqCst)));
        }
        if self.fail_writes.load(SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        let used = self.used.fetch_add(bytes as u64, SeqCst) + bytes as u64;
        match self.room.load(SeqCst) {
            room if room > 0 && used > room => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Memory {
    /// What a file contains.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let names = self.names.lock();
        names.now.get(path).map(|inode| inode.0.lock().now.clone())
    }

    /// Puts bytes into a file as if they had always been there.
    pub fn set(&self, path: &Path, bytes: Vec<u8>) {
        let inode = Arc::new(Inode(Mutex::new(Content {
            now: bytes.clone(),
            synced: bytes,
            dirty: BTreeSet::new(),
        })));
        let mut names = self.names.lock();
        names.now.insert(path.to_owned(), inode.clone());
        names.synced.insert(path.to_owned(), inode);
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.names.lock().now.keys().cloned().collect()
    }

    /// All files together, in bytes.
    pub fn total(&self) -> u64 {
        let names = self.names.lock();
        names
            .now
            .values()
            .map(|inode| inode.0.lock().now.len() as u64)
            .sum()
    }

    /// What is there when the power comes back: of what was not synced, pages at random, and of
    /// names the first changes.
    pub fn cut(&self, dice: &mut Dice) -> Memory {
        let names = self.names.lock();
        let mut after = names.synced.clone();
        let kept = dice.roll(names.changes.len() as u64 + 1);
        for change in names.changes.iter().take(usize::try_from(kept).unwrap()) {
            apply(&mut after, change);
        }
        let cut = Memory::default();
        for (path, inode) in after {
            let content = inode.0.lock();
            let len = match dice.roll(2) {
                0 => content.synced.len(),
                _ => content.now.len(),
            };
            let mut bytes = content.synced.clone();
            bytes.resize(len, 0);
            for page in &content.dirty {
                let begin = (page * PAGE).min(len);
                let end = ((page + 1) * PAGE).min(len).min(content.now.len());
                match dice.roll(3) {
                    // It was never written.
                    0 => {}
                    1 if begin < end => bytes[begin..end].fill(0),
                    _ if begin < end => bytes[begin..end].copy_from_slice(&content.now[begin..end]),
                    _ => {}
                }
            }
            cut.set(&path, bytes);
        }
        cut.names.lock().dirs = names.dirs.clone();
        cut
    }

    /// The same files for another process, after this one was killed.
    pub fn killed(&self) -> Memory {
        let killed = Memory::default();
        for path in self.paths() {
            killed.set(&path, self.bytes(&path).unwrap());
        }
        killed
    }

    fn open_as(&self, inode: Arc<Inode>) -> Arc<dyn LayerFile> {
        Arc::new(Opened {
            inode,
            faults: self.faults.clone(),
        })
    }
}

impl Layer for Memory {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.names.lock().dirs.insert(dir.to_owned());
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        if !self.names.lock().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Locked(self.names.clone(), path.to_owned())))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self.names.lock();
        let inside = names.now.keys().filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(inside.filter_map(name).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LayerFile>> {
        self.faults.write(0)?;
        let inode = Arc::<Inode>::default();
        let change = Change::Set(path.to_owned(), inode.clone());
        self.names.lock().change(change);
        Ok(self.open_as(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LayerFile>> {
        let inode = self.names.lock().now.get(path).cloned();
        Ok(self.open_as(inode.ok_or(io::ErrorKind::NotFound)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.write(0)?;
        let mut names = self.names.lock();
        let inode = names
            .now
            .get(from)
            .cloned()
            .ok_or(io::ErrorKind::NotFound)?;
        names.change(Change::Take(from.to_owned()));
        names.change(Change::Set(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        if !names.now.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        names.change(Change::Take(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        if self.faults.fail_syncs.load(SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        let mut names = self.names.lock();
        names.synced = names.now.clone();
        names.changes.clear();
        Ok(())
    }
}

impl LayerFile for Opened {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.inode.0.lock().now.len() as u64)
    }

    fn read_at(&self, at: u64, len: usize, into: &mut BytesMut) -> io::Result<()> {
        if self.faults.fail_reads.load(SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        let content = self.inode.0.lock();
        let at = usize::try_from(at).unwrap().min(content.now.len());
        let end = (at + len).min(content.now.len());
        into.extend_from_slice(&content.now[at..end]);
        Ok(())
    }

    fn read_now(&self, at: u64, len: usize, into: &mut BytesMut) -> io::Result<bool> {
        if self.faults.cold.load(SeqCst) {
            return Ok(false);
        }
        self.read_at(at, len, into).map(|()| true)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.write(bytes.len())?;
        let mut content = self.inode.0.lock();
        let at = usize::try_from(at).unwrap();
        let end = at + bytes.len();
        if content.now.len() < end {
            content.now.resize(end, 0);
        }
        content.now[at..end].copy_from_slice(bytes);
        content.dirty.extend(at / PAGE..end.div_ceil(PAGE));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.fail_syncs.load(SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        let mut content = self.inode.0.lock();
        content.synced = content.now.clone();
        content.dirty.clear();
        Ok(())
    }
}
