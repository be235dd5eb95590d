//! What an object says of itself: its head, and what decisions need of it.

use std::sync::Arc;

use bytes::Bytes;
use forebay_cache_policy::{StoredFacts, Vary, VaryNames};
use forebay_fields::{Fields, Known, Packed};
use forebay_store::{Meta, Object, room};
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
    pub tags: Tags,
}

/// What an object can be purged by. Most have none, and then this is 8 bytes of it.
///
/// ```text
///   [ its length: 2 bytes ][ tag ]…
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Option<Box<Box<[u8]>>>);

/// What a response was chosen by.
pub struct Variant {
    /// The fields that its `Vary` names.
    pub names: VaryNames,
    /// Their values in the request it answers, in normal form.
    pub key: Box<[u8]>,
}

impl Tags {
    /// These; one that is longer than a tag can be is left out.
    pub fn of<'t>(tags: impl IntoIterator<Item = &'t [u8]>) -> Tags {
        let mut all = Vec::new();
        for tag in tags {
            if let Ok(len) = u16::try_from(tag.len()) {
                all.extend_from_slice(&len.to_le_bytes());
                all.extend_from_slice(tag);
            }
        }
        Tags((!all.is_empty()).then(|| Box::new(all.into())))
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_deref().map_or(&[][..], |all| all);
        std::iter::from_fn(move || {
            let len = u16::from_le_bytes(take_array(&mut rest)?);
            let (tag, behind) = rest.split_at_checked(len.into())?;
            rest = behind;
            Some(tag)
        })
    }

    fn heap_bytes(&self) -> usize {
        let all = self.0.as_ref();
        all.map_or(0, |all| room(size_of_val(all)) + room(all.len()))
    }
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

/// Every object has one.
const _: () = assert!(size_of::<Stored>() <= 88);

/// A stored response.
pub type Kept = Arc<Object<Stored>>;

impl Meta for Stored {
    type Failure = Fault;

    fn weight_bytes(&self) -> usize {
        let variant = self.vary.as_ref().map_or(0, |variant| {
            let names = variant.names.as_bytes();
            room(size_of::<Variant>()) + room(names.len()) + room(variant.key.len())
        });
        room(self.fields.heap_bytes()) + variant + self.tags.heap_bytes()
    }

    fn replaces(&self, other: &Stored) -> bool {
        fn key(stored: &Stored) -> Option<&[u8]> {
            stored.vary.as_ref().map(|variant| &*variant.key)
        }
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
        out.extend_from_slice(&u16::try_from(self.tags.iter().count()).ok()?.to_le_bytes());
        for tag in self.tags.iter() {
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
            tags.push(take(&mut rest)?);
        }
        rest.is_empty().then(|| Stored {
            facts,
            fields: Packed::of(&fields),
            vary,
            tags: Tags::of(tags),
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
        self.tags.iter().collect()
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
            tags: Tags::of([&b"one"[..], b"two"]),
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
