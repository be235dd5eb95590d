//! The records of a segment. The format is laid down in `docs/internals/disk-format.md`.
//!
//! A record is a header, a payload and zeros up to the next unit. The header has a checksum of its
//! own, so that a scan can pass over payloads without reading them, and one of the payload.

use bytes::{Buf, Bytes};

use super::scan::{Scan, len32};
use crate::body::BLOCK_BYTES;
use crate::key::Hash;

/// Records begin at multiples of this.
pub const UNIT: u64 = 16;

/// How long a record's header is.
pub const HEADER_BYTES: usize = 48;

/// How long a segment's own header is.
pub const SEGMENT_HEADER_BYTES: usize = 64;

/// The version of all formats here; another one is not read.
pub const VERSION: u32 = 1;

/// Keys and metadata are no longer than this, each; what is longer is not stored on a disk.
pub const MAX_KEY_BYTES: usize = 64 * 1024;
pub const MAX_META_BYTES: usize = 256 * 1024;

const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"FbRc");
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"FbSegmnt");

/// What a head's payload begins with, before key, metadata and body.
const HEAD_BYTES: usize = 56;

/// How long an entry of a table is.
pub const REF_BYTES: usize = 16;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One block of a body of several.
    Block,
    /// Where the blocks of a body are.
    Table,
    /// An object's key and metadata, and its body if that is one block. The last one of an object:
    /// without it there is none.
    Head,
    /// What was stored before under this hash is gone.
    Gone,
}

/// The first part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// That of its segment.
    pub generation: u32,
    /// How long what follows is.
    pub payload_bytes: u32,
    /// The checksum of what follows.
    pub payload_crc: u32,
    /// The object's, never used for another one.
    pub id: u64,
    /// Half the hash of the object's key.
    pub tag: u64,
    /// Which block, or how many.
    pub number: u32,
}

/// How long a record with such a payload is, with the zeros behind it.
pub fn record_bytes(payload_bytes: usize) -> u64 {
    (HEADER_BYTES as u64 + payload_bytes as u64).next_multiple_of(UNIT)
}

impl Header {
    /// The header of a record whose payload consists of these parts.
    pub fn of(
        kind: Kind,
        generation: u32,
        (id, tag, number): (u64, u64, u32),
        parts: &[&[u8]],
    ) -> Header {
        let payload_crc = parts
            .iter()
            .fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        let payload_bytes = parts.iter().map(|part| len32(part)).sum();
        Header {
            kind,
            generation,
            payload_bytes,
            payload_crc,
            id,
            tag,
            number,
        }
    }

    /// Reads one; `None`: there is none here.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let (bytes, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let mut scan = Scan(bytes);
        if scan.u32()? != RECORD_MAGIC || scan.u32()? != crc32c::crc32c(&bytes[8..]) {
            return None;
        }
        let generation = scan.u32()?;
        let payload_bytes = scan.u32()?;
        let id = scan.u64()?;
        let payload_crc = scan.u32()?;
        let kind = match scan.u32()? {
            1 => Kind::Block,
            2 => Kind::Table,
            3 => Kind::Head,
            4 => Kind::Gone,
            _ => return None,
        };
        let tag = scan.u64()?;
        let number = scan.u32()?;
        (scan.u32()? == 0).then_some(Header {
            kind,
            generation,
            payload_bytes,
            payload_crc,
            id,
            tag,
            number,
        })
    }

    /// The bytes of it.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut fields = Vec::with_capacity(HEADER_BYTES);
        fields.extend_from_slice(&self.generation.to_le_bytes());
        fields.extend_from_slice(&self.payload_bytes.to_le_bytes());
        fields.extend_from_slice(&self.id.to_le_bytes());
        fields.extend_from_slice(&self.payload_crc.to_le_bytes());
        let kind: u32 = match self.kind {
            Kind::Block => 1,
            Kind::Table => 2,
            Kind::Head => 3,
            Kind::Gone => 4,
        };
        fields.extend_from_slice(&kind.to_le_bytes());
        fields.extend_from_slice(&self.tag.to_le_bytes());
        fields.extend_from_slice(&self.number.to_le_bytes());
        fields.extend_from_slice(&[0; 4]);
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&crc32c::crc32c(&fields).to_le_bytes());
        bytes[8..].copy_from_slice(&fields);
        bytes
    }

    /// How long the whole record is.
    pub fn record_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.payload_bytes)).next_multiple_of(UNIT)
    }
}

/// Appends a record.
pub fn write(into: &mut Vec<u8>, header: &Header, parts: &[&[u8]]) {
    let begin = into.len();
    into.extend_from_slice(&header.to_bytes());
    for part in parts {
        into.extend_from_slice(part);
    }
    let len = into.len() - begin;
    into.resize(begin + len.next_multiple_of(16), 0);
}

/// A record that is whole: its header, and its payload.
pub fn whole(mut bytes: Bytes) -> Option<(Header, Bytes)> {
    let header = Header::parse(&bytes)?;
    bytes.advance(HEADER_BYTES);
    let len = usize::try_from(header.payload_bytes).ok()?;
    if bytes.len() < len {
        return None;
    }
    bytes.truncate(len);
    (crc32c::crc32c(&bytes) == header.payload_crc).then_some((header, bytes))
}

/// Where a record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ref {
    /// That of its segment; 0: nowhere.
    pub generation: u32,
    /// In units from the segment's beginning.
    pub offset: u32,
}

impl Ref {
    /// The bytes of it in the table of an object. They are read one by one, so each has a checksum,
    /// over what it is of, too.
    pub fn to_bytes(self, id: u64, number: u32) -> [u8; REF_BYTES] {
        let mut bytes = [0; REF_BYTES];
        bytes[..4].copy_from_slice(&self.generation.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&number.to_le_bytes());
        let crc = ref_crc(id, &bytes);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads one of this object and block.
    pub fn parse(bytes: &[u8], id: u64, number: u32) -> Option<Ref> {
        let (bytes, _) = bytes.split_first_chunk::<REF_BYTES>()?;
        let mut scan = Scan(bytes);
        let (generation, offset) = (scan.u32()?, scan.u32()?);
        let fits = scan.u32()? == number && scan.u32()? == ref_crc(id, bytes);
        fits.then_some(Ref { generation, offset })
    }
}

fn ref_crc(id: u64, bytes: &[u8; REF_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&id.to_le_bytes()), &bytes[..12])
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The hash of the key.
    pub hash: Hash,
    /// The newest purge rule when the object was asked for.
    pub asked_at: u64,
    /// How long the body is.
    pub body_bytes: u64,
    /// Which of the key's variants.
    pub variant: u16,
    /// Where the table of its blocks is, if there are several.
    pub table: Option<Ref>,
    /// The whole key.
    pub key: Bytes,
    /// What the store's user keeps with it.
    pub meta: Bytes,
    /// The body, if it is one block.
    pub body: Bytes,
}

impl Head {
    /// How long its payload is.
    pub fn payload_bytes(&self) -> usize {
        HEAD_BYTES + self.key.len() + self.meta.len() + self.body.len()
    }

    /// The first part of its payload; behind it stand key, metadata and body.
    pub fn fixed(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        let table = self.table.unwrap_or_default();
        bytes.extend_from_slice(&self.hash.0.to_le_bytes());
        bytes.extend_from_slice(&self.asked_at.to_le_bytes());
        bytes.extend_from_slice(&self.body_bytes.to_le_bytes());
        bytes.extend_from_slice(&len32(&self.key).to_le_bytes());
        bytes.extend_from_slice(&len32(&self.meta).to_le_bytes());
        bytes.extend_from_slice(&table.generation.to_le_bytes());
        bytes.extend_from_slice(&table.offset.to_le_bytes());
        bytes.extend_from_slice(&self.variant.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        debug_assert_eq!(bytes.len(), HEAD_BYTES);
        bytes
    }

    /// Reads one.
    pub fn parse(payload: &Bytes) -> Option<Head> {
        let mut scan = Scan(payload);
        let hash = Hash(scan.u128()?);
        let asked_at = scan.u64()?;
        let body_bytes = scan.u64()?;
        let key_bytes = usize::try_from(scan.u32()?).ok()?;
        let meta_bytes = usize::try_from(scan.u32()?).ok()?;
        let table = Ref {
            generation: scan.u32()?,
            offset: scan.u32()?,
        };
        let table = (table != Ref::default()).then_some(table);
        let variant = scan.u16()?;
        if scan.array()? != [0; 6] || key_bytes > MAX_KEY_BYTES || meta_bytes > MAX_META_BYTES {
            return None;
        }
        let meta_at = HEAD_BYTES + key_bytes;
        let body_at = meta_at + meta_bytes;
        if body_at > payload.len() {
            return None;
        }
        let body = payload.slice(body_at..);
        let fits = match table {
            Some(_) => body.is_empty() && body_bytes > BLOCK_BYTES,
            None => body.len() as u64 == body_bytes && body_bytes <= BLOCK_BYTES,
        };
        fits.then(|| Head {
            hash,
            asked_at,
            body_bytes,
            variant,
            table,
            key: payload.slice(HEAD_BYTES..meta_at),
            meta: payload.slice(meta_at..body_at),
            body,
        })
    }
}

/// How long the block with this number is in a body of so many bytes.
pub fn block_bytes(body_bytes: u64, number: u32) -> Option<u32> {
    let at = u64::from(number).checked_mul(BLOCK_BYTES)?;
    let len = body_bytes.checked_sub(at)?.min(BLOCK_BYTES);
    u32::try_from(len).ok().filter(|len| *len > 0)
}

/// The beginning of a segment.
pub fn segment_header(store: u128, generation: u32) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..8].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
    bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(&store.to_le_bytes());
    bytes[32..36].copy_from_slice(&generation.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads the beginning of a segment: its store and its generation.
pub fn parse_segment_header(bytes: &[u8]) -> Option<(u128, u32)> {
    let (bytes, _) = bytes.split_first_chunk::<SEGMENT_HEADER_BYTES>()?;
    let mut scan = Scan(bytes);
    if scan.u64()? != SEGMENT_MAGIC || scan.u32()? != crc32c::crc32c(&bytes[12..]) {
        return None;
    }
    (scan.u32()? == VERSION).then_some(())?;
    Some((scan.u128()?, scan.u32()?))
}
