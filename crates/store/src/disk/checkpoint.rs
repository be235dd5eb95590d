//! The file `index` of a directory: the saved index, so that not all has to be read at a start.
//!
//! It says nothing that is believed without being checked: what it refers to may be gone or
//! overtaken by the time it is read.

use std::io;
use std::path::Path;

use bytes::BytesMut;

use super::identity::replace;
use super::index::{Entry, Index};
use super::layer::{Layer, LayerFile};
use super::record::VERSION;
use super::scan::{Scan, len32};

pub(crate) const NAME: &str = "index";

const MAGIC: u64 = u64::from_le_bytes(*b"FbIndex\0");
const HEADER_BYTES: usize = 48;
const SEGMENT_BYTES: usize = 16;
const ENTRY_BYTES: usize = 24;

/// So many entries have a checksum in common.
const CHUNK: usize = 4096;

/// A segment, and how far the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its generation.
    pub generation: u32,
    /// Its place among the segments when the index was saved.
    pub slot: u16,
    /// What lies behind this is not in the index.
    pub len_bytes: u64,
}

/// The beginning of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Of which store.
    pub store: u128,
    /// The segments.
    pub segments: Vec<Known>,
    /// How many objects there were.
    pub objects: u64,
}

/// How long the file of an index is at most.
pub(crate) fn file_bytes(objects: usize, segments: usize) -> u64 {
    let chunks = objects.div_ceil(CHUNK) + 1;
    (HEADER_BYTES + segments * SEGMENT_BYTES + objects * ENTRY_BYTES + chunks * 8) as u64
}

fn start(store: u128, segments: &[Known], objects: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + segments.len() * SEGMENT_BYTES);
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&store.to_le_bytes());
    bytes.extend_from_slice(&objects.to_le_bytes());
    // Places of segments have 16 bits.
    let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for one in segments {
        bytes.extend_from_slice(&one.generation.to_le_bytes());
        bytes.extend_from_slice(&one.slot.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&one.len_bytes.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// How long the beginning of a checkpoint is, of which these are the first bytes.
pub fn start_bytes(bytes: &[u8]) -> Option<usize> {
    let (bytes, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let mut scan = Scan(bytes);
    if scan.u64()? != MAGIC {
        return None;
    }
    scan.u32()?;
    if scan.u32()? != VERSION {
        return None;
    }
    scan.u128()?;
    scan.u64()?;
    let count = u16::try_from(scan.u32()?).ok()?;
    Some(HEADER_BYTES + usize::from(count) * SEGMENT_BYTES)
}

/// Reads the beginning of a checkpoint.
pub fn parse_start(bytes: &[u8]) -> Option<Start> {
    let bytes = bytes.get(..start_bytes(bytes)?)?;
    let mut scan = Scan(bytes);
    scan.u64()?;
    if scan.u32()? != crc32c::crc32c(&bytes[12..]) {
        return None;
    }
    scan.u32()?;
    let store = scan.u128()?;
    let objects = scan.u64()?;
    let count = scan.u64()?;
    let mut segments = Vec::new();
    for _ in 0..count {
        let generation = scan.u32()?;
        let slot = scan.u16()?;
        scan.u16()?;
        let len_bytes = scan.u64()?;
        segments.push(Known {
            generation,
            slot,
            len_bytes,
        });
    }
    Some(Start {
        store,
        segments,
        objects,
    })
}

/// Reads entries behind the beginning: those of one piece, and how long that is. No entries: it
/// was the last piece.
pub fn parse_chunk(bytes: &[u8]) -> Option<(Vec<Entry>, usize)> {
    let mut scan = Scan(bytes);
    let len = scan.u32()?;
    let crc = scan.u32()?;
    if usize::try_from(len).ok()? > CHUNK * ENTRY_BYTES {
        return None;
    }
    let entries = scan.bytes(len)?;
    if crc32c::crc32c(entries) != crc {
        return None;
    }
    let mut scan = Scan(entries);
    let mut read = Vec::with_capacity(entries.len() / ENTRY_BYTES);
    while !scan.0.is_empty() {
        read.push(Entry::from_words([scan.u64()?, scan.u64()?, scan.u64()?]));
    }
    Some((read, 8 + entries.len()))
}

/// Saves an index; returns when it is on the disk.
pub(crate) fn save(
    layer: &dyn Layer,
    dir: &Path,
    store: u128,
    segments: &[Known],
    index: &Index,
) -> io::Result<()> {
    replace(layer, dir, NAME, |file| {
        let mut out = Out {
            file,
            at: 0,
            piece: Vec::new(),
            failed: Ok(()),
        };
        let begin = start(store, segments, index.len() as u64);
        file.write_at(0, &begin)?;
        out.at = begin.len() as u64;
        index.each(|entry| out.add(entry));
        if !out.piece.is_empty() {
            out.end_piece();
        }
        // One of no entries is the end.
        out.end_piece();
        out.failed
    })
}

struct Out<'f> {
    file: &'f dyn LayerFile,
    at: u64,
    piece: Vec<u8>,
    failed: io::Result<()>,
}

impl Out<'_> {
    fn add(&mut self, entry: Entry) {
        for word in entry.to_words() {
            self.piece.extend_from_slice(&word.to_le_bytes());
        }
        if self.piece.len() == CHUNK * ENTRY_BYTES {
            self.end_piece();
        }
    }

    fn end_piece(&mut self) {
        let mut bytes = len32(&self.piece).to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&self.piece).to_le_bytes());
        bytes.append(&mut self.piece);
        if self.failed.is_ok() {
            self.failed = self.file.write_at(self.at, &bytes);
        }
        self.at += bytes.len() as u64;
    }
}

/// Reads a checkpoint: passes every entry on, and says which segments it knows. `None`: there is
/// none, or none that can be used; then what was passed on is to be forgotten.
pub(crate) fn load(
    layer: &dyn Layer,
    dir: &Path,
    store: u128,
    mut begin: impl FnMut(&Start),
    mut see: impl FnMut(Entry),
) -> Option<Start> {
    let file = layer.open(&dir.join(NAME)).ok()?;
    let mut bytes = BytesMut::new();
    file.read_at(0, HEADER_BYTES, &mut bytes).ok()?;
    let len = start_bytes(&bytes)?;
    file.read_at(HEADER_BYTES as u64, len - HEADER_BYTES, &mut bytes)
        .ok()?;
    let start = parse_start(&bytes).filter(|start| start.store == store)?;
    begin(&start);
    let mut at = len as u64;
    loop {
        bytes.clear();
        file.read_at(at, 8 + CHUNK * ENTRY_BYTES, &mut bytes).ok()?;
        let (entries, len) = parse_chunk(&bytes)?;
        if entries.is_empty() {
            return Some(start);
        }
        entries.into_iter().for_each(&mut see);
        at += len as u64;
    }
}
