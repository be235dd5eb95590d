//! What the index of a million objects takes, and how long a start with them does:
//! `cargo run --release -p forebay-store --example disk_index [DIR]`.
//!
//! A tenth of the objects have two variants and three tags, one in a hundred has 64 blocks. Those are
//! of zeros, which are not written but left out of the files, so that 40 GB of them take no room.
#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use forebay_store::disk::{Admit, Disk, Layer, LayerFile, Object, Options, SystemFiles};
use forebay_store::{BLOCK_BYTES, Hash};

const OBJECTS: u128 = 1_000_000;

/// As many as the largest objects have.
const BLOCKS: usize = 64;

/// The system's files, with holes where nothing but zeros is written.
struct Sparse;

struct SparseFile(Arc<dyn LayerFile>);

const PAGE: usize = 4096;

impl Layer for Sparse {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        SystemFiles.make_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        SystemFiles.lock(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        SystemFiles.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LayerFile>> {
        Ok(Arc::new(SparseFile(SystemFiles.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LayerFile>> {
        SystemFiles.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemFiles.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        SystemFiles.sync_dir(dir)
    }
}

impl LayerFile for SparseFile {
    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }

    fn read_at(&self, at: u64, len: usize, into: &mut BytesMut) -> io::Result<()> {
        self.0.read_at(at, len, into)
    }

    fn read_now(&self, at: u64, len: usize, into: &mut BytesMut) -> io::Result<bool> {
        self.0.read_now(at, len, into)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut at = at;
        let mut pages = bytes.chunks(PAGE).peekable();
        while let Some(page) = pages.next() {
            // The last one says how long the file is.
            if pages.peek().is_none() || page.iter().any(|byte| *byte != 0) {
                self.0.write_at(at, page)?;
            }
            at += page.len() as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

fn main() {
    let dir = std::env::args().nth(1).map_or_else(
        || std::env::temp_dir().join(format!("forebay-index-{}", std::process::id())),
        PathBuf::from,
    );
    let layer: Arc<dyn Layer> = Arc::new(Sparse);
    let options = Options {
        size_bytes: 64 << 30,
        write_bytes_per_second: 0,
        admit: Admit::All,
        queue_bytes: 64 << 20,
        max_objects: 10_000_000,
        segment_bytes: None,
        on_failure: |_| {},
        secret: [1; 16],
    };
    let open = || Disk::open(&layer, std::slice::from_ref(&dir), &options);
    let (disk, _) = open();
    let small = [Bytes::from(vec![b'x'; 1024])];
    let block = Bytes::from(vec![0; usize::try_from(BLOCK_BYTES).unwrap_or(0)]);
    let large = vec![block; BLOCKS];
    let begin = Instant::now();
    for number in 0..OBJECTS {
        let key = format!("https://www.example.com/some/path/to/{number}.html");
        let hash = Hash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
        let is_tenth = number % 10 == 0;
        let body = if number % 100 == 5 {
            &large[..]
        } else {
            &small
        };
        let meta: &[u8] = match is_tenth {
            true => b"status 200, tags: one-tag another-tag and-a-third",
            false => b"status 200",
        };
        for variant in 0..if is_tenth { 2 } else { 1 } {
            let object = Object {
                hash,
                key: key.as_bytes(),
                variant,
                asked_at: 0,
                meta: Bytes::from_static(meta),
            };
            while !disk.put(&object, body) {
                disk.flush(false);
            }
        }
    }
    disk.flush(false);
    let usage = disk.usage();
    println!(
        "{} objects written in {:.2?}; index {} bytes, {:.1} per object of {OBJECTS}",
        usage.objects,
        begin.elapsed(),
        usage.index_bytes,
        usage.index_bytes as f64 / 1e6,
    );
    disk.close();
    drop(disk);
    let begin = Instant::now();
    let (disk, opened) = open();
    println!(
        "{} objects ready in {:.0?}; notices: {:?}",
        disk.usage().objects,
        begin.elapsed(),
        opened.notices
    );
    let first = Instant::now();
    let hash = Hash(7_u128.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
    let place = disk.find(hash)[0];
    let found = disk.read(&place, b"https://www.example.com/some/path/to/7.html");
    println!(
        "a hit in {:.0?}: {} bytes",
        first.elapsed(),
        found.map_or(0, |found| found.body_bytes)
    );
    disk.close();
    // Of a directory that was named only what is ours goes, so it is left as it is.
    if std::env::args().nth(1).is_none()
        && let Err(error) = std::fs::remove_dir_all(&dir)
    {
        println!("{}: {error}", dir.display());
    }
}
