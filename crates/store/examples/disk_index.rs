//! What the index of a million objects takes, and how long a start with them does:
//! `cargo run --release -p forebay-store --example disk_index [DIR]`.
//!
//! A tenth of the objects have two variants. How many blocks an object has makes no difference: where
//! they are stands on the disk.
#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use forebay_store::Hash;
use forebay_store::disk::{Admit, Disk, Layer, Object, Options, SystemFiles};

const OBJECTS: u128 = 1_000_000;

fn main() {
    let dir = std::env::args().nth(1).map_or_else(
        || std::env::temp_dir().join(format!("forebay-index-{}", std::process::id())),
        PathBuf::from,
    );
    let layer: Arc<dyn Layer> = Arc::new(SystemFiles);
    let options = Options {
        size_bytes: 16 << 30,
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
    let body = Bytes::from(vec![b'x'; 1024]);
    let begin = Instant::now();
    for number in 0..OBJECTS {
        let key = format!("https://www.example.com/some/path/to/{number}.html");
        let hash = Hash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
        for variant in 0..if number % 10 == 0 { 2 } else { 1 } {
            let object = Object {
                hash,
                key: key.as_bytes(),
                variant,
                asked_at: 0,
                meta: Bytes::from_static(b"status 200, one two three"),
            };
            while !disk.put(&object, std::slice::from_ref(&body)) {
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
