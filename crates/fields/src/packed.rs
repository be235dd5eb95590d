//! A head that is kept.

use bytes::Bytes;

use crate::fields::{Fields, Line, Received, Source, offset};
use crate::known::{Known, KnownSet};
use crate::name::Name;

/// Fields that never change, in one piece of memory: three or four bytes for each line beside its
/// text, where [`Fields`] take 28 and a shared buffer.
///
/// Copied into `Fields` that are used again it costs no allocation, and no reference is counted:
/// that is what workers who answer with the same head at once would cost each other most.
///
/// ```text
///   [ length of the row: 4 bytes ][ row: known name + 1, length of the name, of the value ]…[ text: whole lines ]
/// ```
/// Lengths have seven bits in each byte, the lowest first. A line is `Name: value CRLF`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed(Box<[u8]>);

/// Before the row.
const START: usize = 4;

impl Packed {
    /// The same fields, in the same order.
    #[must_use]
    pub fn of(fields: &Fields) -> Packed {
        let mut packed = Vec::with_capacity(START + 4 * fields.len() + fields.wire_len());
        packed.extend_from_slice(&[0; START]);
        for field in fields {
            packed.push(field.known.map_or(0, |known| known as u8 + 1));
            push_len(&mut packed, field.name.len());
            push_len(&mut packed, field.value.len());
        }
        let row = offset(packed.len() - START).to_le_bytes();
        packed[..START].copy_from_slice(&row);
        for field in fields {
            packed.extend_from_slice(field.name);
            packed.extend_from_slice(b": ");
            packed.extend_from_slice(field.value);
            packed.extend_from_slice(b"\r\n");
        }
        Packed(packed.into())
    }

    /// Puts them in place of what `fields` hold, in the room that is there.
    pub fn unpack_into(&self, fields: &mut Fields) {
        fields.clear();
        fields.scratch.extend_from_slice(self.parts().1);
        fields.present = self.lines(Source::Scratch, &mut fields.lines);
    }

    /// The same, anew.
    #[must_use]
    pub fn unpacked(&self) -> Fields {
        let mut fields = Fields::new();
        let text = Bytes::copy_from_slice(self.parts().1);
        let present = self.lines(Source::Base, &mut fields.lines);
        fields.adopt(text, present);
        fields
    }

    /// The value of the first field of that name.
    #[must_use]
    pub fn get<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let name = name.into();
        let (row, text) = self.parts();
        for (at, known) in Row::of(row) {
            let slice = |from: u32, to: u32| text.get(from as usize..to as usize);
            let is_it = match name {
                Name::Known(name) => known == Some(name),
                Name::Other(other) => {
                    let same = |name: &[u8]| name.eq_ignore_ascii_case(other);
                    known.is_none() && slice(at.start, at.name_end).is_some_and(same)
                }
            };
            if is_it {
                return slice(at.value_start, at.value_end);
            }
        }
        None
    }

    /// The memory that belongs to it, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.0.len()
    }

    fn lines(&self, source: Source, lines: &mut Vec<Line>) -> KnownSet {
        let mut present = KnownSet::EMPTY;
        for (at, known) in Row::of(self.parts().0) {
            if let Some(known) = known {
                present.insert(known);
            }
            lines.push(Line { at, known, source });
        }
        present
    }

    /// The row and the text.
    fn parts(&self) -> (&[u8], &[u8]) {
        let Some((start, rest)) = self.0.split_first_chunk::<START>() else {
            return (&[], &[]);
        };
        // Written by `of`.
        let len = u32::from_le_bytes(*start) as usize;
        rest.split_at_checked(len).unwrap_or_default()
    }
}

/// Where lines lie in the text.
struct Row<'a> {
    rest: &'a [u8],
    at: u32,
}

impl Row<'_> {
    fn of(rest: &[u8]) -> Row<'_> {
        Row { rest, at: 0 }
    }

    /// A line of any length: its known name and both lengths.
    ///
    /// By value: were the iterator lent out here, all of it would have to be in memory all the time.
    #[cold]
    #[inline(never)]
    fn long(mut self) -> Option<(Self, [u32; 3])> {
        let (known, rest) = self.rest.split_first()?;
        let (name_len, rest) = Self::len(rest)?;
        let (value_len, rest) = Self::len(rest)?;
        self.rest = rest;
        Some((self, [(*known).into(), name_len, value_len]))
    }

    fn len(mut row: &[u8]) -> Option<(u32, &[u8])> {
        let mut len = 0;
        for shift in (0..32).step_by(7) {
            let (byte, rest) = row.split_first()?;
            row = rest;
            len |= u32::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                break;
            }
        }
        Some((len, row))
    }
}

impl Iterator for Row<'_> {
    type Item = (Received, Option<Known>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let [known, name_len, value_len] = match self.rest {
            // As nearly every line is.
            [known, name @ ..0x80, value @ ..0x80, rest @ ..] => {
                self.rest = rest;
                [*known, *name, *value].map(u32::from)
            }
            _ => {
                let (behind, line) = Row { ..*self }.long()?;
                *self = behind;
                line
            }
        };
        let known = known.checked_sub(1).map(|known| known as usize);
        let known = known.and_then(|known| Known::ALL.get(known).copied());
        let start = self.at;
        let name_end = start + name_len;
        let value_start = name_end + 2;
        let value_end = value_start + value_len;
        let end = value_end + 2;
        self.at = end;
        let at = Received {
            start,
            name_end,
            value_start,
            value_end,
            end,
        };
        Some((at, known))
    }
}

/// Seven bits in each byte, the lowest first.
fn push_len(out: &mut Vec<u8>, len: usize) {
    let mut len = offset(len);
    loop {
        let low = (len & 0x7f) as u8;
        len >>= 7;
        if len == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[(&str, &str)]) {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, value).unwrap();
        }
        let packed = Packed::of(&fields);
        let written = |fields: &Fields| {
            let mut out = Vec::new();
            fields.write_to(&mut out);
            out
        };
        let mut used = Fields::new();
        used.append("Old", "gone").unwrap();
        packed.unpack_into(&mut used);
        for unpacked in [&packed.unpacked(), &used] {
            assert_eq!(written(unpacked), written(&fields));
            assert_eq!(unpacked.present(), fields.present());
            assert!(unpacked.iter().eq(fields.iter()));
        }
        for (name, _) in lines {
            assert_eq!(packed.get(*name), fields.get(*name), "{name}");
        }
        assert_eq!(packed.get("Nothing"), None);
        assert_eq!(packed.get(Known::Te), None);
        // What was unpacked can be changed.
        used.set("X", "1").unwrap();
        used.remove(Known::Etag);
        assert_eq!(used.get("X"), Some(&b"1"[..]));
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let long = "v".repeat(70_000);
        let name = "n".repeat(300);
        check(&[]);
        check(&[("ETag", "\"1\""), ("x-a", ""), ("X-A", "2"), ("etag", "3")]);
        check(&[
            ("Date", "now"),
            (&name, "v"),
            ("X-Long", &long),
            ("Age", "1"),
        ]);
    }

    #[test]
    fn lines_take_little() {
        let mut fields = Fields::new();
        for number in 0..10 {
            fields
                .append("X-Some-Field", format!("value {number}"))
                .unwrap();
        }
        let packed = Packed::of(&fields);
        assert_eq!(packed.heap_bytes(), fields.wire_len() + START + 10 * 3);
    }

    #[test]
    fn nothing_is_packed_by_default() {
        assert!(Packed::default().unpacked().is_empty());
    }
}
