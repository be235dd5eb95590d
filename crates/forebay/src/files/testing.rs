//! File systems that a test can slow down, stop and break.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use bytes::BytesMut;
use forebay_sys::files::{Links, Root};

use super::{Disk, Kernel};

/// The kernel's file system, with nothing in memory: every look must wait. While it is stopped,
/// waiting takes for ever; while it fails, everything fails with one error of the system.
#[derive(Default)]
pub struct ColdDisk {
    stopped: Mutex<bool>,
    moving: Condvar,
    errno: AtomicI32,
    waiting: AtomicUsize,
    /// What is opened without waiting all the same.
    opens_now: bool,
}

impl ColdDisk {
    /// One whose names are in memory, but no bytes.
    pub fn with_names() -> Arc<ColdDisk> {
        Arc::new(ColdDisk {
            opens_now: true,
            ..ColdDisk::default()
        })
    }

    /// Stops it, or lets it go on.
    pub fn stop(&self, stop: bool) {
        *self.stopped.lock().unwrap() = stop;
        self.moving.notify_all();
    }

    /// How many threads wait for it now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Lets everything fail with this error; with 0 nothing.
    pub fn fail(&self, errno: i32) {
        self.errno.store(errno, SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        match self.errno.load(SeqCst) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn wait(&self) -> io::Result<()> {
        self.waiting.fetch_add(1, SeqCst);
        let stopped = self.stopped.lock().unwrap();
        drop(self.moving.wait_while(stopped, |stopped| *stopped).unwrap());
        self.waiting.fetch_sub(1, SeqCst);
        self.check()
    }
}

impl Disk for ColdDisk {
    fn open_now(&self, root: &Root, path: &[u8], links: Links) -> io::Result<File> {
        self.check()?;
        match self.opens_now {
            true => Kernel.open_now(root, path, links),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn open(&self, root: &Root, path: &[u8], links: Links) -> io::Result<File> {
        self.wait()?;
        Kernel.open(root, path, links)
    }

    fn read_now(&self, _: &File, _: u64, _: &mut BytesMut, _: usize) -> io::Result<Option<usize>> {
        self.check()?;
        Ok(None)
    }

    fn read(
        &self,
        file: &File,
        offset: u64,
        buffer: &mut BytesMut,
        len: usize,
    ) -> io::Result<usize> {
        self.wait()?;
        Kernel.read(file, offset, buffer, len)
    }
}
