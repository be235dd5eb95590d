//! Files: opened below a root directory, read without ever waiting for a disk where it matters.
//!
//! A worker must not wait for a disk. So everything here exists twice: once as a call that only
//! uses what the kernel has in memory and otherwise says so ([`Root::open_now`], [`read_now`]), and
//! once as a call that may wait and belongs on a thread pool ([`Root::open`], [`read_at`]).

mod advice;
mod read;
mod resident;
mod root;
mod walk;

use std::{fs::File, io, os::fd::AsFd, path::Path};

use rustix::{
    fs::{CWD, FileType, Mode, fstat, openat},
    io::retry_on_intr,
};

pub use advice::{expect_scattered_reads, will_read};
pub use read::{fill_at, read_at, read_now, send_file};
pub use resident::is_resident;
pub use root::{Links, Resolver, Root, is_link_refused};

/// Opens a file anywhere for reading, follows links and waits for the disk. Unlike the standard
/// library's way, a pipe without a writer does not make it wait, and a terminal does not become the
/// process's own.
pub fn open(path: &Path) -> io::Result<File> {
    Ok(retry_on_intr(|| openat(CWD, path, root::READ, Mode::empty()))?.into())
}

/// What a server must know of an open file, from one `fstat`.
///
/// Two readings with the same `inode`, `device`, `len` and `mtime_ns` are taken for the same
/// representation: that is what an `ETag` is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Length in bytes.
    pub len: u64,
    /// Time of the last change of the content: nanoseconds since 1970, saturating in 1677 and 2262.
    pub mtime_ns: i64,
    /// Number of the file on its device.
    pub inode: u64,
    /// The device.
    pub device: u64,
    /// What it is.
    pub kind: Kind,
    /// Somebody may execute it.
    pub is_executable: bool,
}

/// What a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else (pipe, socket, device): never served.
    Other,
}

impl Facts {
    /// Reads the facts of an open file. Does not wait for a disk: an open file's inode is in memory
    /// (a network file system may ask its server).
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let stat = fstat(file)?;
        let mtime_ns = i64::try_from(
            i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        );
        Ok(Self {
            // A negative size or inode does not exist; both types differ between platforms.
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: mtime_ns.unwrap_or(if stat.st_mtime < 0 {
                i64::MIN
            } else {
                i64::MAX
            }),
            inode: stat.st_ino,
            device: stat.st_dev,
            kind: match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Directory,
                _ => Kind::Other,
            },
            is_executable: stat.st_mode & 0o111 != 0,
        })
    }

    /// Seconds since 1970 of the last change, rounded down: what `Last-Modified` can say.
    #[must_use]
    pub fn mtime_seconds(&self) -> i64 {
        self.mtime_ns.div_euclid(1_000_000_000)
    }
}
