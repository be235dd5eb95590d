//! What was used since it was written is carried over when its segment goes.

use std::io;

use rustc_hash::FxHashMap;

use super::Got;
use super::index::Entry;
use super::record::{self, Header, Kind, Ref};
use super::volume::{How, ReadHead, Seen, Segment, walk};
use super::writer::Writer;
use crate::body::BLOCK_BYTES;

/// At most so many objects are carried over by one segment.
const MAX_CARRIED: usize = 64 * 1024;

/// An object in a segment that goes, whole or in part.
struct Used {
    entry: Entry,
    blocks: Vec<Header>,
}

impl Writer {
    /// Writes anew what was used of a segment, up to so many bytes.
    pub(super) fn carry(&mut self, segment: &Segment, room: u64) -> io::Result<()> {
        let mut small = Vec::new();
        let mut several: FxHashMap<u64, Used> = FxHashMap::default();
        self.volume.index.each(|entry| {
            if !entry.used || small.len() + several.len() >= MAX_CARRIED {
                return;
            }
            if entry.several {
                let blocks = Vec::new();
                several.insert(entry.tag, Used { entry, blocks });
            } else if entry.slot == segment.slot {
                small.push(entry);
            }
        });
        let mut room = room;
        for entry in small {
            let len = entry.head_bytes() as u64;
            if len > room || !self.fits(len) {
                continue;
            }
            if let Some(read) = self.read_used(&entry) {
                room -= len;
                self.carry_head(entry, read.id, &read.head)?;
            }
        }
        if several.is_empty() {
            return Ok(());
        }
        let end = segment.len_bytes.load(std::sync::atomic::Ordering::Acquire);
        walk(&*segment.file, segment.generation, 0, end, |seen| {
            if let Seen::Record(header) = seen
                && header.kind == Kind::Block
                && let Some(used) = several.get_mut(&header.tag.max(1))
            {
                used.blocks.push(*header);
            }
        })?;
        for used in several.into_values() {
            self.carry_several(segment, &used, &mut room)?;
        }
        Ok(())
    }

    fn read_used(&self, entry: &Entry) -> Option<ReadHead> {
        let segment = self.volume.segments.read().at(entry.slot).cloned()?;
        match self
            .volume
            .read_head(segment.generation, entry, None, How::Wait)
        {
            Got::Here(read) => Some(read),
            Got::Absent | Got::Wait => None,
        }
    }

    /// Its blocks in this segment, and its table and head, which say where they are now.
    fn carry_several(&mut self, segment: &Segment, used: &Used, room: &mut u64) -> io::Result<()> {
        let Some(ReadHead { id, mut head }) = self.read_used(&used.entry) else {
            return Ok(());
        };
        let Some(table) = head.table else {
            return Ok(());
        };
        let is_here = used.entry.slot == segment.slot || table.generation == segment.generation;
        let mine = used.blocks.iter().filter(|block| block.id == id);
        let blocks: u64 = mine.clone().map(Header::record_bytes).sum();
        if blocks == 0 && !is_here {
            return Ok(());
        }
        let count = usize::try_from(head.body_bytes.div_ceil(BLOCK_BYTES)).unwrap_or(usize::MAX);
        let own = record::record_bytes(count.saturating_mul(record::REF_BYTES))
            + used.entry.head_bytes() as u64;
        if blocks + own > *room || !self.fits(blocks + own) {
            return Ok(());
        }
        *room -= blocks + own;
        let Some(mut refs) = self.volume.read_table(table, id, count) else {
            return Ok(());
        };
        for block in mine {
            let at = usize::try_from(block.number).unwrap_or(usize::MAX);
            let Some(place) = refs
                .get_mut(at)
                .filter(|r| r.generation == segment.generation)
            else {
                continue;
            };
            let len = block.payload_bytes;
            let read = self
                .volume
                .read_block_at(*place, id, block.number, len, How::Wait);
            *place = match read {
                Got::Here(bytes) => {
                    let ids = (id, used.entry.tag, block.number);
                    self.carry_block(ids, &bytes)?.unwrap_or_default()
                }
                Got::Absent | Got::Wait => Ref::default(),
            };
        }
        let tag = head.hash.half();
        head.table = self.carry_table(id, tag, head.body_bytes, &refs)?;
        if head.table.is_some() {
            self.carry_head(used.entry, id, &head)?;
        }
        Ok(())
    }
}
