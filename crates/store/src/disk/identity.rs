//! The file `store` of a directory: whose it is.

use std::io;
use std::path::Path;

use bytes::BytesMut;

use super::layer::Layer;
use super::record::VERSION;
use super::scan::Scan;

pub(crate) const NAME: &str = "store";

const MAGIC: u64 = u64::from_le_bytes(*b"FbStore\0");

/// How long the file is.
const BYTES: usize = 64;

/// Whose directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The store's; all its directories have the same.
    pub store: u128,
    /// Under what keys are hashed in it.
    pub secret: [u8; 16],
    /// How often the store was opened.
    pub epoch: u32,
    /// All directories of this epoch know of it: from now on rules are written to them. A directory
    /// with an older epoch has missed purges.
    pub is_settled: bool,
}

/// Why a store is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is none, or damaged.
    Damaged,
    /// It has another format.
    Version(u32),
}

impl Identity {
    /// The bytes of the file.
    pub fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.secret);
        bytes[48..52].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[52..56].copy_from_slice(&u32::from(self.is_settled).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads them.
    ///
    /// # Errors
    /// They are not those of a store of this version.
    pub fn parse(bytes: &[u8]) -> Result<Identity, Unread> {
        let mut scan = Scan(bytes);
        if scan.u64() != Some(MAGIC) {
            return Err(Unread::Damaged);
        }
        let crc = scan.u32();
        // First: what another version has behind it, and how it is checked, nobody knows here.
        match scan.u32() {
            Some(VERSION) => {}
            Some(other) => return Err(Unread::Version(other)),
            None => return Err(Unread::Damaged),
        }
        if bytes.len() != BYTES || crc != Some(crc32c::crc32c(&bytes[12..])) {
            return Err(Unread::Damaged);
        }
        let mut read = || {
            Some(Identity {
                store: scan.u128()?,
                secret: scan.array()?,
                epoch: scan.u32()?,
                is_settled: scan.u32()? == 1,
            })
        };
        read().ok_or(Unread::Damaged)
    }

    /// Reads that of a directory. `None`: it has none.
    pub(crate) fn read(
        layer: &dyn Layer,
        dir: &Path,
    ) -> io::Result<Option<Result<Identity, Unread>>> {
        let file = match layer.open(&dir.join(NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = BytesMut::new();
        file.read_at(0, BYTES, &mut bytes)?;
        Ok(Some(Identity::parse(&bytes)))
    }

    /// Writes it; returns when it is on the disk.
    pub(crate) fn write(self, layer: &dyn Layer, dir: &Path) -> io::Result<()> {
        replace(layer, dir, NAME, |file| file.write_at(0, &self.to_bytes()))
    }
}

/// Writes a file so that, whatever happens, either the old one or the new one is there.
pub(crate) fn replace(
    layer: &dyn Layer,
    dir: &Path,
    name: &str,
    write: impl FnOnce(&dyn super::layer::LayerFile) -> io::Result<()>,
) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let file = layer.create(&new)?;
    write(&*file)?;
    file.sync()?;
    layer.rename(&new, &dir.join(name))?;
    layer.sync_dir(dir)
}
