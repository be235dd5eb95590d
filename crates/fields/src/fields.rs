//! [`Fields`] itself.

use std::fmt;

use bytes::Bytes;

use crate::known::{Known, KnownSet};
use crate::list::{Cookies, ListItems};
use crate::name::Name;
#[cfg(debug_assertions)]
use crate::syntax::{is_token, is_value};

/// Room that [`Fields::clear`] keeps for the next head.
const KEPT_SCRATCH_BYTES: usize = 4096;
const KEPT_LINES: usize = 128;

/// The fields of one head, in order, repeated ones included.
///
/// Made to be reused: [`clear`](Self::clear) keeps what was allocated, so that the next head of
/// the same size costs no allocation.
#[derive(Default)]
pub struct Fields {
    /// The received head; lines with `Source::Base` point into it.
    base: Bytes,
    /// Whole lines `Name: value CRLF` that were added; lines with `Source::Scratch` point into it.
    pub(crate) scratch: Vec<u8>,
    pub(crate) lines: Vec<Line>,
    /// Which known names occur in `lines`.
    pub(crate) present: KnownSet,
    /// `scratch` may hold something else than all `lines`, in their order: it is not what is
    /// written. Not so of a head of our own making that nothing was taken out of.
    pub(crate) is_mixed: bool,
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        Self {
            base: self.base.clone(),
            scratch: self.scratch.clone(),
            lines: self.lines.clone(),
            present: self.present,
            is_mixed: self.is_mixed,
        }
    }

    /// Copies into the room that is there: a head kept ready to be sent again and again is copied
    /// without allocating.
    fn clone_from(&mut self, source: &Self) {
        self.base.clone_from(&source.base);
        self.scratch.clone_from(&source.scratch);
        self.lines.clone_from(&source.lines);
        self.present = source.present;
        self.is_mixed = source.is_mixed;
    }
}

impl Fields {
    /// The same fields in as little room as they need, in one piece and in their order. For a head
    /// that is kept and copied often ([`Clone::clone_from`]): so it is written in one copy, too, and
    /// no reference to a received head is counted.
    #[must_use]
    pub fn settled(&self) -> Self {
        let mut settled = Self {
            scratch: Vec::with_capacity(self.wire_len()),
            lines: Vec::with_capacity(self.lines.len()),
            present: self.present,
            ..Self::default()
        };
        for line in &self.lines {
            let start = offset(settled.scratch.len());
            let whole = self.slice(line, line.at.start, line.at.end);
            settled.scratch.extend_from_slice(whole);
            let moved = |at: u32| start + (at - line.at.start);
            let at = Received {
                start,
                name_end: moved(line.at.name_end),
                value_start: moved(line.at.value_start),
                value_end: moved(line.at.value_end),
                end: moved(line.at.end),
            };
            settled.lines.push(Line {
                at,
                known: line.known,
                source: Source::Scratch,
            });
        }
        settled.check_invariants();
        settled
    }
}

/// Where one field line of a received head lies, in bytes from the start of the head.
///
/// The name starts where the line does. The value is without the white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The first byte of the line, which is that of the name.
    pub start: u32,
    /// Behind the last byte of the name.
    pub name_end: u32,
    /// The first byte of the value.
    pub value_start: u32,
    /// Behind the last byte of the value.
    pub value_end: u32,
    /// Behind the line's CRLF.
    pub end: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) at: Received,
    pub(crate) known: Option<Known>,
    pub(crate) source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Base,
    Scratch,
}

/// One field as [`Fields::iter`] shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it was received or given; its case is kept.
    pub name: &'a [u8],
    /// The value without white space around it.
    pub value: &'a [u8],
    /// Which name it is, if it is one that the server knows.
    pub known: Option<Known>,
}

// --- Receiving ---------------------------------------------------------------------------------

impl Fields {
    /// No fields, nothing allocated.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all fields and the received head, but keeps room for the next one of usual size.
    #[inline]
    pub fn clear(&mut self) {
        if !self.base.is_empty() {
            self.base = Bytes::new();
        }
        self.scratch.clear();
        self.lines.clear();
        self.present = KnownSet::EMPTY;
        self.is_mixed = false;
        if self.scratch.capacity() > KEPT_SCRATCH_BYTES || self.lines.capacity() > KEPT_LINES {
            self.shrink();
        }
    }

    /// Gives back what an unusual head needed.
    #[cold]
    fn shrink(&mut self) {
        self.scratch.shrink_to(KEPT_SCRATCH_BYTES);
        self.lines.shrink_to(KEPT_LINES);
    }

    /// Appends a line of a received head; the head itself is given by [`adopt`](Self::adopt)
    /// afterwards, before anything else is asked. `known` is what [`Known::of`] says of the name.
    /// It is the parser that counts which names occur.
    ///
    /// The caller promises what a parser has checked: the name is a token, the value holds no
    /// CR, LF or NUL, a colon and optional white space are between them, CRLF ends the line.
    #[inline]
    pub fn push_received(&mut self, at: Received, known: Option<Known>) {
        self.lines.push(Line {
            at,
            known,
            source: Source::Base,
        });
    }

    /// Takes the received head that the pushed lines point into. `present` are all known names
    /// among those lines, which the parser has counted on its way.
    ///
    /// Lines that point elsewhere are a caller's mistake, found in debug builds; otherwise they
    /// show as empty slices and never as a panic.
    pub fn adopt(&mut self, base: Bytes, present: KnownSet) {
        self.base = base;
        self.present = self.present.union(present);
        self.is_mixed = true;
        self.check_invariants();
    }

    /// The received head as it was adopted; empty if there is none.
    #[must_use]
    pub fn base(&self) -> &Bytes {
        &self.base
    }

    /// Checks, in debug builds, what every head promises: see the crate's invariants.
    fn check_invariants(&self) {
        #[cfg(debug_assertions)]
        assert!(
            self.present
                .iter()
                .all(|known| self.all(known).next().is_some())
        );
        #[cfg(debug_assertions)]
        assert!(
            self.lines
                .iter()
                .filter_map(|line| line.known)
                .all(|known| self.present.contains(known))
        );
        #[cfg(debug_assertions)]
        for line in &self.lines {
            let whole = self.slice(line, line.at.start, line.at.end);
            assert!(whole.ends_with(b"\r\n"), "{}", whole.escape_ascii());
            let field = self.field(line);
            assert!(is_token(field.name), "{}", field.name.escape_ascii());
            assert!(is_value(field.value), "{}", field.value.escape_ascii());
            assert_eq!(Known::of(field.name), line.known);
        }
    }
}

// --- Asking ------------------------------------------------------------------------------------

impl Fields {
    /// How many field lines there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The known names that occur.
    #[inline]
    #[must_use]
    pub fn present(&self) -> KnownSet {
        self.present
    }

    /// Whether a field of that name occurs. For a known name a bit test.
    #[inline]
    #[must_use]
    pub fn contains<'n>(&self, name: impl Into<Name<'n>>) -> bool {
        match name.into() {
            Name::Known(known) => self.present.contains(known),
            other @ Name::Other(_) => self.position(other).is_some(),
        }
    }

    /// The value of the first field of that name.
    #[inline]
    #[must_use]
    pub fn get<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let at = self.position(name.into())?;
        Some(self.field(&self.lines[at]).value)
    }

    /// The value of the only field of that name; `None` if there is none, or more than one.
    #[must_use]
    pub fn get_only<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The values of all fields of that name, in order.
    pub fn all<'a, 'n>(&'a self, name: impl Into<Name<'n>>) -> Values<'a, 'n> {
        let name = name.into();
        let lines = match name {
            Name::Known(known) if !self.present.contains(known) => &[],
            _ => self.lines.as_slice(),
        };
        Values {
            fields: self,
            lines: lines.iter(),
            name,
        }
    }

    /// All fields, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            fields: self,
            lines: self.lines.iter(),
        }
    }

    /// The members of a list-valued field, over all its lines (RFC 9110 §5.6.1): separated by
    /// commas outside quoted strings, without white space around them, empty ones left out.
    pub fn list<'a, 'n>(&'a self, name: impl Into<Name<'n>>) -> ListItems<'a, 'n> {
        ListItems::over(self.all(name))
    }

    /// Whether a list-valued field has `token` as a member, without regard to case.
    #[must_use]
    pub fn has_token<'n>(&self, name: impl Into<Name<'n>>, token: &str) -> bool {
        let name = name.into();
        self.lines
            .iter()
            .filter(|line| self.is_named(line, name))
            .any(|line| {
                crate::list_items(self.field(line).value)
                    .any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
            })
    }

    /// All cookies of a request, as (name, value), in order (RFC 6265 §4.2.1).
    pub fn cookies(&self) -> Cookies<'_> {
        Cookies::over(self.all(Known::Cookie))
    }

    /// The value of the first cookie of that name, as it was sent. Names are case-sensitive.
    #[must_use]
    pub fn cookie(&self, name: &[u8]) -> Option<&[u8]> {
        self.cookies()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    #[inline]
    pub(crate) fn position(&self, name: Name<'_>) -> Option<usize> {
        match name {
            Name::Known(known) if !self.present.contains(known) => None,
            _ => self.lines.iter().position(|line| self.is_named(line, name)),
        }
    }

    #[inline]
    pub(crate) fn is_named(&self, line: &Line, name: Name<'_>) -> bool {
        match name {
            Name::Known(known) => line.known == Some(known),
            Name::Other(other) => {
                line.known.is_none()
                    && self
                        .slice(line, line.at.start, line.at.name_end)
                        .eq_ignore_ascii_case(other)
            }
        }
    }

    #[inline]
    fn slice(&self, line: &Line, from: u32, to: u32) -> &[u8] {
        let source = match line.source {
            Source::Base => self.base.as_ref(),
            Source::Scratch => self.scratch.as_slice(),
        };
        // Offsets are right by construction; were one not, that is no reason to panic.
        source.get(from as usize..to as usize).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn field(&self, line: &Line) -> Field<'_> {
        Field {
            name: self.slice(line, line.at.start, line.at.name_end),
            value: self.slice(line, line.at.value_start, line.at.value_end),
            known: line.known,
        }
    }
}

// --- Writing -----------------------------------------------------------------------------------

impl Fields {
    /// The memory that belongs to it, in bytes; a base that is shared counts as its own.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.base.len() + self.scratch.capacity() + self.lines.capacity() * size_of::<Line>()
    }

    /// How many bytes [`write_to`](Self::write_to) will write.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.lines
            .iter()
            .map(|line| line.at.end.saturating_sub(line.at.start) as usize)
            .sum()
    }

    /// Appends all lines, each with its CRLF, but without the empty line that ends a head.
    ///
    /// Lines that were received next to each other go out byte for byte as they came in, in one
    /// copy. With no edits at all that is the whole received block.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.write_runs(out, KnownSet::EMPTY);
    }

    /// As [`write_to`](Self::write_to), leaving out the fields in `skip`: cheaper than removing
    /// them, and the head stays as it is for a second attempt.
    pub fn write_without(&self, out: &mut Vec<u8>, skip: KnownSet) {
        self.write_runs(out, skip);
    }

    fn write_runs(&self, out: &mut Vec<u8>, skip: KnownSet) {
        if !self.is_mixed && !self.present.intersects(skip) {
            debug_assert_eq!(self.scratch.len(), self.wire_len());
            out.extend_from_slice(&self.scratch);
            return;
        }
        out.reserve(self.wire_len());
        let wanted = |line: &&Line| line.known.is_none_or(|known| !skip.contains(known));
        let mut lines = self.lines.iter().filter(wanted);
        let Some(mut run) = lines.next().copied() else {
            return;
        };
        for line in lines {
            if line.source == run.source && line.at.start == run.at.end {
                run.at.end = line.at.end;
            } else {
                out.extend_from_slice(self.slice(&run, run.at.start, run.at.end));
                run = *line;
            }
        }
        out.extend_from_slice(self.slice(&run, run.at.start, run.at.end));
    }
}

/// A position in a head or a scratch as a line keeps it; both are far smaller than 4 GiB.
pub(crate) fn offset(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Appends `value` in decimal digits.
pub fn append_decimal(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(decimal(value, &mut [0; 20]));
}

/// The digits of `value`, written to the end of `room`.
pub(crate) fn decimal(mut value: u64, room: &mut [u8; 20]) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        let digit = (value % 10) as u8;
        room[at] = b'0' + digit;
        value /= 10;
        if value == 0 {
            return &room[at..];
        }
    }
}

// --- The small types ---------------------------------------------------------------------------

/// The values of one name; see [`Fields::all`].
#[derive(Clone)]
pub struct Values<'a, 'n> {
    fields: &'a Fields,
    lines: std::slice::Iter<'a, Line>,
    name: Name<'n>,
}

impl<'a> Iterator for Values<'a, '_> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let line = self
            .lines
            .find(|line| self.fields.is_named(line, self.name))?;
        Some(self.fields.field(line).value)
    }
}

/// All fields in order; see [`Fields::iter`].
#[derive(Clone)]
pub struct Iter<'a> {
    fields: &'a Fields,
    lines: std::slice::Iter<'a, Line>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.lines.next().map(|line| self.fields.field(line))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lines.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Fields {
    type Item = Field<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            self.name.escape_ascii(),
            self.value.escape_ascii()
        )
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_head_is_copied_into_the_room_that_is_there() {
        let mut head = Fields::new();
        head.append("ETag", "\"a\"").unwrap();
        head.append("X-Own", "1").unwrap();
        head.set("ETag", "\"b\"").unwrap();
        head.append("X-Own", "2").unwrap();
        let settled = head.settled();
        let wire = |fields: &Fields| {
            let mut out = Vec::new();
            fields.write_to(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(wire(&settled), "ETag: \"b\"\r\nX-Own: 1\r\nX-Own: 2\r\n");
        assert!(settled.base.is_empty() && settled.contains(Known::Etag));

        let mut copy = head.clone();
        copy.append("X-Other", "3").unwrap();
        let room = copy.lines.as_ptr();
        copy.clone_from(&settled);
        assert_eq!(wire(&copy), wire(&settled));
        assert!(copy.present() == settled.present() && copy.lines.as_ptr() == room);
        assert_eq!(Fields::new().settled().len(), 0);
    }
}
