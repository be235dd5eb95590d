//! The file system as this server uses it: behind a trait, so that a test can put a slow or a
//! failing one in its place.

use std::fs::File;
use std::io;

use bytes::BytesMut;
use forebay_sys::files::{Links, Root, fill_at, read_now};

/// What is asked of a file system: each thing once without waiting, once with.
pub trait Disk: Send + Sync {
    /// Opens `path` below `root` if that needs no disk; else `WouldBlock`. Called on workers.
    fn open_now(&self, root: &Root, path: &[u8], links: Links) -> io::Result<File>;

    /// Opens `path` below `root`. Called on the pool.
    fn open(&self, root: &Root, path: &[u8], links: Links) -> io::Result<File>;

    /// Appends up to `max` bytes at `offset` that are in memory; `None` if the first of them is
    /// not. Called on workers.
    fn read_now(
        &self,
        file: &File,
        offset: u64,
        buffer: &mut BytesMut,
        max: usize,
    ) -> io::Result<Option<usize>>;

    /// Appends `len` bytes at `offset`, or as many as there are. Called on the pool.
    fn read(
        &self,
        file: &File,
        offset: u64,
        buffer: &mut BytesMut,
        len: usize,
    ) -> io::Result<usize>;
}

/// The one that the kernel has.
pub struct Kernel;

impl Disk for Kernel {
    fn open_now(&self, root: &Root, path: &[u8], links: Links) -> io::Result<File> {
        root.open_now(path, links)
    }

    fn open(&self, root: &Root, path: &[u8], links: Links) -> io::Result<File> {
        root.open(path, links)
    }

    fn read_now(
        &self,
        file: &File,
        offset: u64,
        buffer: &mut BytesMut,
        max: usize,
    ) -> io::Result<Option<usize>> {
        read_now(file, offset, buffer, max)
    }

    fn read(
        &self,
        file: &File,
        offset: u64,
        buffer: &mut BytesMut,
        len: usize,
    ) -> io::Result<usize> {
        fill_at(file, offset, buffer, len)
    }
}
