//! The disk tier against a model, and on disks that fail in every way.
#![allow(unreachable_pub, reason = "helpers of one test")]

mod faults;
mod layer;
mod model;
mod power;
mod tier;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::disk::{Admit, Disk, FoundBody, Layer, Object, Opened, Options};
use forebay_store::{BLOCK_BYTES, Hash, Secret};

use layer::{Dice, Memory};

pub const DIR: &str = "/disk";
pub const SEGMENT: u64 = 512 * 1024;

pub fn options() -> Options {
    Options {
        size_bytes: 8 * SEGMENT,
        write_bytes_per_second: 0,
        admit: Admit::All,
        queue_bytes: 64 * 1024 * 1024,
        max_objects: 1_000_000,
        segment_bytes: Some(SEGMENT),
        on_failure: |_| {},
        secret: [3; 16],
    }
}

pub fn open(layer: &Memory, options: &Options) -> (Arc<Disk>, Opened) {
    open_in(layer, &[DIR], options)
}

pub fn open_in(layer: &Memory, dirs: &[&str], options: &Options) -> (Arc<Disk>, Opened) {
    let layer: Arc<dyn Layer> = Arc::new(layer.clone());
    let dirs: Vec<PathBuf> = dirs.iter().map(|dir| Path::new(dir).to_owned()).collect();
    Disk::open(&layer, &dirs, options)
}

pub fn hash(key: &str) -> Hash {
    Secret([3; 16]).hash(key.as_bytes())
}

/// Bytes that say whose they are.
pub fn body(key: &str, version: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(hash(key).half() ^ version);
    let words = std::iter::repeat_with(|| dice.roll(u64::MAX).to_le_bytes());
    words.flatten().take(len).collect()
}

pub fn meta(key: &str, version: u64, len: usize) -> Bytes {
    format!("{key} {version} {len}").into_bytes().into()
}

/// Stores a version of something.
pub fn put(disk: &Disk, key: &str, variant: u16, version: u64, len: usize, asked_at: u64) -> bool {
    let object = Object {
        hash: hash(key),
        key: key.as_bytes(),
        variant,
        asked_at,
        meta: meta(key, version, len),
    };
    let bytes = body(key, version, len);
    let block = usize::try_from(BLOCK_BYTES).unwrap();
    let blocks: Vec<Bytes> = bytes.chunks(block).map(Bytes::copy_from_slice).collect();
    disk.put(&object, &blocks)
}

/// What was read: version, the number it was asked for at, variant; and how many of its blocks are
/// gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub version: u64,
    pub asked_at: u64,
    pub absent: u32,
}

/// Reads all that is stored under a key, and checks every byte of it.
pub fn read(disk: &Disk, key: &str) -> Vec<Read> {
    let mut all = Vec::new();
    for place in disk.find(hash(key)) {
        let Some(found) = disk.read(&place, key.as_bytes()) else {
            continue;
        };
        let words = String::from_utf8(found.meta.to_vec()).unwrap();
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(words[0], key);
        let version: u64 = words[1].parse().unwrap();
        let wanted = body(key, version, words[2].parse().unwrap());
        assert_eq!(found.body_bytes, wanted.len() as u64);
        let mut absent = 0;
        match &found.body {
            FoundBody::Whole(bytes) => assert!(*bytes == wanted, "{key} {version}"),
            FoundBody::Blocks(blocks) => {
                let block = usize::try_from(BLOCK_BYTES).unwrap();
                for (wanted, number) in wanted.chunks(block).zip(0..) {
                    match disk.read_block(blocks, number) {
                        Some(bytes) => assert!(bytes == wanted, "{key} {version} {number}"),
                        None => absent += 1,
                    }
                }
            }
        }
        all.push(Read {
            version,
            asked_at: found.asked_at,
            absent,
        });
    }
    all
}

/// The only version of a key, whole.
pub fn version(disk: &Disk, key: &str) -> Option<u64> {
    let all = read(disk, key);
    assert!(all.len() <= 1, "{all:?}");
    all.first().map(|read| {
        assert_eq!(read.absent, 0, "{key}");
        read.version
    })
}

pub type Model = HashMap<String, u64>;
