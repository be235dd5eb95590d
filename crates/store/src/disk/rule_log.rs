//! The file `rules` of a directory: what has been purged and is not over.
//!
//! A rule is on the disk before its purge is acknowledged, and the next one is written after that;
//! so only the last record of the file can be incomplete, and that one was not acknowledged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;

use super::identity::replace;
use super::layer::{Layer, LayerFile};
use super::record::VERSION;
use super::scan::{Scan, len32};
use crate::rules::Rule;

pub(crate) const NAME: &str = "rules";

const MAGIC: u64 = u64::from_le_bytes(*b"FbRules\0");
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"FbRu");
const HEADER_BYTES: usize = 48;
const RECORD_BYTES: usize = 24;

/// What a rule is about is no longer than this.
pub const MAX_RULE_BYTES: usize = 64 * 1024;

/// More than this no file of rules has: a million long ones.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A rule that was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub number: u64,
    /// What it is about.
    pub rule: Rule,
    /// What it meets is to be validated, not gone.
    pub soft: bool,
}

/// All that a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Of which store.
    pub store: u128,
    /// The newest number when the file was begun, or that of its last rule.
    pub newest: u64,
    /// Rules up to this number may have been forgotten: what was asked for before it is of no use.
    pub floor: u64,
    /// The rules.
    pub rules: Vec<Written>,
    /// How much of the file they are: what is behind was never acknowledged.
    pub len_bytes: usize,
}

fn header(store: u128, newest: u64, floor: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(&store.to_le_bytes());
    bytes[32..40].copy_from_slice(&newest.to_le_bytes());
    bytes[40..].copy_from_slice(&floor.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Appends a rule's record.
pub fn write(into: &mut Vec<u8>, number: u64, rule: &Rule, soft: bool) {
    let (kind, text): (u8, &[u8]) = match rule {
        Rule::Url(text) => (1, text),
        Rule::Prefix(text) => (2, text),
        Rule::Host(text) => (3, text),
        Rule::Tag(text) => (4, text),
        Rule::All => (5, &[]),
    };
    let mut fields = Vec::with_capacity(RECORD_BYTES + text.len());
    fields.extend_from_slice(&len32(text).to_le_bytes());
    fields.extend_from_slice(&number.to_le_bytes());
    fields.extend_from_slice(&[kind, u8::from(soft), 0, 0]);
    fields.extend_from_slice(text);
    into.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
    into.extend_from_slice(&crc32c::crc32c(&fields).to_le_bytes());
    into.extend_from_slice(&fields);
}

/// Reads a record, and says how long it is.
fn parse_record(bytes: &[u8]) -> Option<(Written, usize)> {
    let mut scan = Scan(bytes);
    if scan.u32()? != RECORD_MAGIC {
        return None;
    }
    let crc = scan.u32()?;
    let fields = scan.0;
    let len = scan.u32()?;
    let number = scan.u64()?;
    let [kind, soft, 0, 0] = scan.array::<4>()? else {
        return None;
    };
    let text = scan.bytes(len)?;
    let len = RECORD_BYTES + text.len();
    if text.len() > MAX_RULE_BYTES || crc32c::crc32c(&fields[..len - 8]) != crc || soft > 1 {
        return None;
    }
    let rule = match kind {
        1 => Rule::Url(text.into()),
        2 => Rule::Prefix(text.into()),
        3 => Rule::Host(text.into()),
        4 => Rule::Tag(text.into()),
        5 if text.is_empty() => Rule::All,
        _ => return None,
    };
    let soft = soft == 1;
    Some((Written { number, rule, soft }, len))
}

/// Reads a file. `None`: it is damaged, and a rule that was acknowledged may be lost.
pub fn parse(bytes: &[u8]) -> Option<Log> {
    let (head, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let mut scan = Scan(head);
    if scan.u64()? != MAGIC || scan.u32()? != crc32c::crc32c(&head[12..]) {
        return None;
    }
    if scan.u32()? != VERSION {
        return None;
    }
    let mut log = Log {
        store: scan.u128()?,
        newest: scan.u64()?,
        floor: scan.u64()?,
        rules: Vec::new(),
        len_bytes: HEADER_BYTES,
    };
    while let Some((written, len)) = parse_record(&bytes[log.len_bytes..]) {
        log.len_bytes += len;
        log.newest = log.newest.max(written.number);
        log.rules.push(written);
    }
    // Behind the end stands nothing, or one record that has not come whole. If there is more, it
    // was not the end.
    let rest = &bytes[log.len_bytes..];
    let more = rest.len() > RECORD_BYTES + MAX_RULE_BYTES
        || (1..rest.len()).any(|at| parse_record(&rest[at..]).is_some());
    (!more).then_some(log)
}

/// A directory's file, open to be appended to.
pub(crate) struct RuleLog {
    layer: Arc<dyn Layer>,
    dir: PathBuf,
    file: Arc<dyn LayerFile>,
    store: u128,
    len_bytes: u64,
}

impl RuleLog {
    /// Reads the file of a directory. `None`: it is missing or damaged.
    pub(crate) fn read(layer: &dyn Layer, dir: &Path) -> io::Result<Option<Log>> {
        let file = match layer.open(&dir.join(NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len_bytes = file.len_bytes()?;
        if len_bytes > MAX_FILE_BYTES {
            return Ok(None);
        }
        let mut bytes = BytesMut::new();
        file.read_at(0, usize::try_from(len_bytes).unwrap_or(0), &mut bytes)?;
        Ok(parse(&bytes))
    }

    /// A new file with these rules, in place of the one that is there.
    pub(crate) fn begin<'r>(
        layer: &Arc<dyn Layer>,
        dir: &Path,
        store: u128,
        (newest, floor): (u64, u64),
        rules: impl IntoIterator<Item = &'r Written>,
    ) -> io::Result<RuleLog> {
        let mut bytes = header(store, newest, floor).to_vec();
        for one in rules {
            write(&mut bytes, one.number, &one.rule, one.soft);
        }
        replace(&**layer, dir, NAME, |file| file.write_at(0, &bytes))?;
        Ok(RuleLog {
            layer: layer.clone(),
            dir: dir.to_owned(),
            file: layer.open(&dir.join(NAME))?,
            store,
            len_bytes: bytes.len() as u64,
        })
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Writes a rule down; returns when it is on the disk.
    pub(crate) fn append(&mut self, number: u64, rule: &Rule, soft: bool) -> io::Result<()> {
        let mut record = Vec::new();
        write(&mut record, number, rule, soft);
        self.file.write_at(self.len_bytes, &record)?;
        self.file.sync()?;
        self.len_bytes += record.len() as u64;
        Ok(())
    }

    /// Lets go of all but these.
    pub(crate) fn compact(&mut self, numbers: (u64, u64), rules: &[Written]) -> io::Result<()> {
        *self = RuleLog::begin(&self.layer, &self.dir, self.store, numbers, rules)?;
        Ok(())
    }
}
