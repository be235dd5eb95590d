//! A slow disk: a read-only file system in user space (FUSE) with one file, whose bytes come at a
//! fixed rate, one request after another, as from a disk with one head.
//!
//! Spoken directly over `/dev/fuse`, as described in the kernel's `include/uapi/linux/fuse.h`: it is
//! a dozen small messages, and a test needs nothing else of it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::pattern;

/// The directory, and the file in it.
const ROOT: u64 = 1;
const FILE: u64 = 2;
/// The file's name.
pub const NAME: &str = "slow.bin";

const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

/// A mounted slow disk; unmounted when dropped.
pub struct SlowDisk {
    dir: TempDir,
    slow: Arc<AtomicBool>,
}

impl SlowDisk {
    /// Mounts one whose file is a [`pattern`] of `size` bytes and comes at `rate` bytes a second.
    ///
    /// # Panics
    /// When it cannot be mounted: it needs root and `/dev/fuse`.
    #[must_use]
    pub fn mount(size: u64, rate: u64) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-disk-")
            .tempdir()
            .expect("a directory");
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.expect("/dev/fuse");
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let options = std::ffi::CString::new(options).expect("options");
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        mount(
            "forebay-test",
            dir.path(),
            "fuse",
            flags,
            options.as_c_str(),
        )
        .expect("to mount a file system: this case has to run as root");
        let slow = Arc::new(AtomicBool::new(true));
        let disk = Disk {
            device,
            size,
            rate,
            slow: Arc::clone(&slow),
        };
        std::thread::spawn(move || disk.serve());
        Self { dir, slow }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file's path.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }

    /// From now on every byte comes at once.
    pub fn heal(&self) {
        self.slow.store(false, Ordering::Relaxed);
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        self.heal();
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

struct Disk {
    device: File,
    size: u64,
    rate: u64,
    slow: Arc<AtomicBool>,
}

/// `struct fuse_in_header`, as far as it matters, and what follows it.
struct Message<'a> {
    opcode: u32,
    unique: u64,
    node: u64,
    body: &'a [u8],
}

impl Disk {
    fn serve(mut self) {
        let mut buf = vec![0; 256 << 10];
        // The device reports an error when the file system has been unmounted.
        while let Ok(n) = self.device.read(&mut buf) {
            let Some(message) = parse(&buf[..n]) else {
                return;
            };
            if let Some(reply) = self.answer(&message)
                && self.send(message.unique, reply).is_err()
            {
                return;
            }
        }
    }

    fn send(&mut self, unique: u64, reply: Result<Vec<u8>, i32>) -> std::io::Result<()> {
        let (error, body) = match reply {
            Ok(body) => (0, body),
            Err(errno) => (-errno, Vec::new()),
        };
        let len = u32::try_from(16 + body.len()).unwrap_or(16);
        let mut out = Vec::with_capacity(16 + body.len());
        out.extend(len.to_ne_bytes());
        out.extend(i32::to_ne_bytes(error));
        out.extend(unique.to_ne_bytes());
        out.extend(body);
        self.device.write_all(&out)
    }

    /// `None` for what wants no answer.
    fn answer(&self, message: &Message<'_>) -> Option<Result<Vec<u8>, i32>> {
        Some(match message.opcode {
            // FORGET, INTERRUPT, BATCH_FORGET
            2 | 36 | 42 => return None,
            // LOOKUP
            1 if message.body.strip_suffix(b"\0") == Some(NAME.as_bytes()) => Ok(self.entry()),
            1 => Err(ENOENT),
            // GETATTR
            3 => Ok(words(&[1, 0])
                .into_iter()
                .chain(self.attributes(message.node))
                .collect()),
            // OPEN, OPENDIR: a handle of 0, no flags
            14 | 27 => Ok(words(&[0, 0])),
            // READ
            15 => Ok(self.read(message.body)),
            // RELEASE, FLUSH, RELEASEDIR, ACCESS, DESTROY
            18 | 25 | 29 | 34 | 38 => Ok(Vec::new()),
            // INIT
            26 => Ok(init(message.body)),
            _ => Err(ENOSYS),
        })
    }

    /// `struct fuse_entry_out`: valid for a second.
    fn entry(&self) -> Vec<u8> {
        let mut out = words(&[FILE, 0, 1, 1, 0]);
        out.extend(self.attributes(FILE));
        out
    }

    /// `struct fuse_attr`
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size): (u32, u64) = if node == ROOT {
            (0o040_755, 4096)
        } else {
            (0o100_644, self.size)
        };
        let time = 1_580_608_922;
        let mut out = words(&[node, size, size.div_ceil(512), time, time, time]);
        for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
            out.extend(u32::to_ne_bytes(word));
        }
        out
    }

    /// `struct fuse_read_in`: handle, offset, size.
    fn read(&self, body: &[u8]) -> Vec<u8> {
        let offset = u64_at(body, 8);
        let wanted = u64::from(u32_at(body, 16));
        let len = wanted.min(self.size.saturating_sub(offset));
        if self.slow.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(len * 1_000_000 / self.rate));
        }
        let mut out = vec![0; usize::try_from(len).unwrap_or(0)];
        pattern::fill(offset, &mut out);
        out
    }
}

fn parse(bytes: &[u8]) -> Option<Message<'_>> {
    let body = bytes.get(40..)?;
    Some(Message {
        opcode: u32_at(bytes, 4),
        unique: u64_at(bytes, 8),
        node: u64_at(bytes, 16),
        body,
    })
}

/// `struct fuse_init_out` of version 7.31, with the kernel's own read-ahead and no flags.
fn init(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    for word in [7, 31, u32_at(body, 8), 0] {
        out.extend(u32::to_ne_bytes(word));
    }
    // max_background and congestion_threshold, 16 bits each; max_write; time_gran.
    out.extend(u16::to_ne_bytes(16));
    out.extend(u16::to_ne_bytes(12));
    out.extend(u32::to_ne_bytes(4096));
    out.extend(u32::to_ne_bytes(1));
    out.resize(64, 0);
    out
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_ne_bytes)
}
