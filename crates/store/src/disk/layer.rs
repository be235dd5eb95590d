//! What the disk tier asks of a file system, so that tests can slow it, fill it, fail it and cut
//! its power.

use std::any::Any;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;

/// Files and directories.
pub trait Layer: Send + Sync + 'static {
    /// Makes a directory, and those above it, that only its owner can read; it may be there.
    ///
    /// # Errors
    /// Those of the file system; so is it everywhere here.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Keeps everybody else from locking this file, until what is returned is dropped.
    /// `WouldBlock`: somebody has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// The names in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// A new file, in place of one that may be there, that only its owner can read.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LayerFile>>;

    /// A file that is there.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LayerFile>>;

    /// Gives a file, or a directory, another name; a file that has it already is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file away. Who has it open reads on.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns when the names in a directory are on the disk.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file.
pub trait LayerFile: Send + Sync {
    /// How long it is.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Appends `len` bytes at `at` to `into`, fewer where the file ends.
    fn read_at(&self, at: u64, len: usize, into: &mut BytesMut) -> io::Result<()>;

    /// The same as far as no disk has to be waited for; false: it has to.
    fn read_now(&self, at: u64, len: usize, into: &mut BytesMut) -> io::Result<bool>;

    /// From now on it is read here and there, so that reading beyond what is asked for would only
    /// keep others waiting.
    fn expect_scattered_reads(&self) {}

    /// These bytes are about to be read.
    fn will_read(&self, at: u64, len: usize) {
        let _ = (at, len);
    }

    /// Writes all of it.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when what was written is on the disk.
    fn sync(&self) -> io::Result<()>;
}

/// The system's files.
pub struct SystemFiles;

impl Layer for SystemFiles {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = options().create(true).open(path)?;
        file.try_lock()?;
        Ok(Box::new(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // Our own names are ASCII; any other is none of ours.
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LayerFile>> {
        Ok(Arc::new(options().create(true).truncate(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LayerFile>> {
        Ok(Arc::new(options().open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl LayerFile for File {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, at: u64, len: usize, into: &mut BytesMut) -> io::Result<()> {
        into.reserve(len);
        forebay_sys::files::fill_at(self, at, into, len)?;
        Ok(())
    }

    fn read_now(&self, at: u64, len: usize, into: &mut BytesMut) -> io::Result<bool> {
        into.reserve(len);
        let mut done = 0;
        while done < len {
            match forebay_sys::files::read_now(self, at + done as u64, into, len - done)? {
                None => return Ok(false),
                Some(0) => break,
                Some(n) => done += n,
            }
        }
        Ok(true)
    }

    fn expect_scattered_reads(&self) {
        forebay_sys::files::expect_scattered_reads(self);
    }

    fn will_read(&self, at: u64, len: usize) {
        forebay_sys::files::will_read(self, at, len as u64);
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
