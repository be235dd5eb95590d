//! What an object says of itself: its head, and what decisions need of it.

use std::sync::Arc;

use bytes::Bytes;
use forebay_cache_policy::{StoredFacts, Vary, VaryNames};
use forebay_fields::{Fields, Known, Packed};
use forebay_store::{Meta, Object};
use smallvec::SmallVec;

use crate::exchange::Fault;

/// The head of a stored response.
pub struct Stored {
    /// What every hit looks at.
    pub facts: StoredFacts,
    /// The fields that are sent on.
    pub fields: Packed,
    /// What requests it is for; `None`: for every one of its key.
    pub vary: Option<Box<Variant>>,
    /// What it can be purged by.
    pub tags: Box<[Box<[u8]>]>,
}

/// What a response was chosen by.
pub struct Variant {
    /// The fields that its `Vary` names.
    pub names: VaryNames,
    /// Their values in the request it answers, in normal form.
    pub key: Box<[u8]>,
}

impl Stored {
    /// The same variant under another head.
    pub fn renewed(&self, facts: StoredFacts, fields: &Fields) -> Stored {
        let vary = self.vary.as_ref().map(|variant| {
            Box::new(Variant {
                names: variant.names.clone(),
                key: variant.key.clone(),
            })
        });
        Stored {
            facts,
            fields: Packed::of(fields),
            vary,
            tags: self.tags.clone(),
        }
    }
}

/// A stored response.
pub type Kept = Arc<Object<Stored>>;

impl Meta for Stored {
    type Failure = Fault;

    fn weight_bytes(&self) -> usize {
        let variant = self.vary.as_ref().map_or(0, |variant| {
            size_of::<Variant>() + variant.names.as_bytes().len() + variant.key.len()
        });
        let tags: usize = self
            .tags
            .iter()
            .map(|tag| size_of_val(tag) + tag.len())
            .sum();
        self.fields.heap_bytes() + variant + tags
    }

    fn replaces(&self, other: &Stored) -> bool {
        let key = |stored: &'_ Stored| -> Option<Box<[u8]>> {
            stored.vary.as_ref().map(|variant| variant.key.clone())
        };
        key(self) == key(other)
    }

    fn encode(&self) -> Option<Bytes> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.facts.to_bytes());
        let fields = self.fields.unpacked();
        out.extend_from_slice(&u16::try_from(fields.len()).ok()?.to_le_bytes());
        for field in fields.iter() {
            put(&mut out, field.name)?;
            put(&mut out, field.value)?;
        }
        let (names, key) = match &self.vary {
            Some(variant) => (variant.names.as_bytes(), &*variant.key),
            None => (&[][..], &[][..]),
        };
        put(&mut out, names)?;
        put(&mut out, key)?;
        out.extend_from_slice(&u16::try_from(self.tags.len()).ok()?.to_le_bytes());
        for tag in &self.tags {
            put(&mut out, tag)?;
        }
        Some(out.into())
    }

    fn decode(bytes: &[u8]) -> Option<Stored> {
        let mut rest = bytes;
        if take_array(&mut rest)? != [VERSION] {
            return None;
        }
        let facts = StoredFacts::from_bytes(&take_array(&mut rest)?)?;
        let mut fields = Fields::new();
        for _ in 0..u16::from_le_bytes(take_array(&mut rest)?) {
            let name = take(&mut rest)?;
            fields.append(name, take(&mut rest)?).ok()?;
        }
        let names = take(&mut rest)?;
        let key = take(&mut rest)?;
        let vary = match names {
            [] => None,
            names => Some(Box::new(Variant {
                names: vary_names(names)?,
                key: key.into(),
            })),
        };
        let mut tags = Vec::new();
        for _ in 0..u16::from_le_bytes(take_array(&mut rest)?) {
            tags.push(take(&mut rest)?.into());
        }
        rest.is_empty().then(|| Stored {
            facts,
            fields: Packed::of(&fields),
            vary,
            tags: tags.into(),
        })
    }

    /// By a keyless hash: it has to be the same after a restart, and that two variants meet does no
    /// more harm than that one of them is not kept.
    #[expect(clippy::cast_possible_truncation, reason = "a part of it is enough")]
    fn variant(&self) -> u16 {
        match &self.vary {
            Some(variant) => (hash_of(&variant.key) as u16).max(1),
            None => 0,
        }
    }

    fn tags(&self) -> SmallVec<[&[u8]; 4]> {
        self.tags.iter().map(|tag| &**tag).collect()
    }
}

/// What [`Stored`] is on a disk: this number, the facts, how many fields there are (16 bits), name
/// and value of each, the names of `Vary` and the variant's key (both empty: there is none), how
/// many tags there are (16 bits), each tag. Texts have their length (32 bits) before them; all is
/// little-endian. Another version is not read: such an object is fetched anew.
const VERSION: u8 = 1;

fn put(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    out.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
    out.extend_from_slice(text);
    Some(())
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (array, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*array)
}

fn take<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let len = usize::try_from(u32::from_le_bytes(take_array(rest)?)).ok()?;
    let (text, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(text)
}

/// Names that were written are in their own form; if these are not, they were not written.
fn vary_names(names: &[u8]) -> Option<VaryNames> {
    let mut fields = Fields::new();
    fields.append(Known::Vary, names).ok()?;
    match Vary::of(&fields) {
        Vary::Names(read) if read.as_bytes() == names => Some(read),
        _ => None,
    }
}

/// FNV-1a.
fn hash_of(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811C_9DC5, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        let mut bytes = [0; StoredFacts::BYTES];
        bytes[44..46].copy_from_slice(&200_u16.to_le_bytes());
        let mut fields = Fields::new();
        for (name, value) in [("ETag", "\"a\""), ("X-Odd", ""), ("x-odd", "b")] {
            fields.append(name, value).unwrap();
        }
        Stored {
            facts: StoredFacts::from_bytes(&bytes).unwrap(),
            fields: Packed::of(&fields),
            vary: Some(Box::new(Variant {
                names: vary_names(b"accept,x-device").unwrap(),
                key: (*b"accept:a\nx-device").into(),
            })),
            tags: [(*b"one").into(), (*b"two").into()].into(),
        }
    }

    #[test]
    fn what_is_kept_is_read() {
        let stored = stored();
        let bytes = stored.encode().unwrap();
        let read = Stored::decode(&bytes).unwrap();
        assert_eq!(read.facts, stored.facts);
        assert_eq!(read.tags, stored.tags);
        assert!(read.replaces(&stored) && read.variant() == stored.variant());
        assert_eq!(read.fields, stored.fields);
        assert_eq!(read.encode(), Some(bytes));
    }

    #[test]
    fn what_is_not_whole_is_not_read() {
        let bytes = stored().encode().unwrap();
        for len in 0..bytes.len() {
            assert!(Stored::decode(&bytes[..len]).is_none(), "{len}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Stored::decode(&longer).is_none());
        let mut other = bytes.to_vec();
        other[0] = VERSION + 1;
        assert!(Stored::decode(&other).is_none());
        // Whatever stands in it, it is read or not; nothing panics.
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0xFF;
            let _ = Stored::decode(&damaged);
        }
    }
}
