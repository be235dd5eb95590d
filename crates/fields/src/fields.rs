//! [`Fields`] itself.

use std::fmt;

use bytes::Bytes;

use crate::known::{Known, KnownSet};
use crate::list::{Cookies, ListItems};
use crate::syntax::{is_token, is_value, trim};

/// How many bytes of edits one `Fields` takes. Whoever adds more is told
/// [`EditError::TooLarge`]: a head of that size would be refused by everybody anyway.
pub const MAX_SCRATCH_BYTES: usize = 1 << 20;

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
    scratch: Vec<u8>,
    lines: Vec<Line>,
    /// Which known names occur in `lines`.
    present: KnownSet,
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        Self {
            base: self.base.clone(),
            scratch: self.scratch.clone(),
            lines: self.lines.clone(),
            present: self.present,
        }
    }

    /// Copies into the room that is there: a head kept ready to be sent again and again, whose
    /// lines all lie in its base, is copied without allocating.
    fn clone_from(&mut self, source: &Self) {
        self.base.clone_from(&source.base);
        self.scratch.clone_from(&source.scratch);
        self.lines.clone_from(&source.lines);
        self.present = source.present;
    }
}

impl Fields {
    /// The same fields as they would have been received: all in the base, in the order they have,
    /// none in the scratch. For a head that is kept and copied often ([`Clone::clone_from`]).
    #[must_use]
    pub fn settled(&self) -> Self {
        let mut base = Vec::with_capacity(self.wire_len());
        let mut settled = Self::new();
        for line in &self.lines {
            let start = offset(base.len());
            base.extend_from_slice(self.slice(line, line.at.start, line.at.end));
            let moved = |at: u32| start + (at - line.at.start);
            let at = Received {
                start,
                name_end: moved(line.at.name_end),
                value_start: moved(line.at.value_start),
                value_end: moved(line.at.value_end),
                end: moved(line.at.end),
            };
            settled.push_received(at, line.known);
        }
        settled.adopt(base.into(), self.present);
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
struct Line {
    at: Received,
    known: Option<Known>,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
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

/// A field name to look for: known, or any other.
///
/// Made from a [`Known`], a `&str` or bytes; text that spells a known name becomes `Known`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// One of the names that are found by their number.
    Known(Known),
    /// Any other name, compared without regard to case.
    Other(&'a [u8]),
}

/// Why a field could not be added. The `Fields` is unchanged then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditError {
    /// The name is not a token (RFC 9110 §5.1).
    BadName,
    /// The value contains a control character, e.g. CR, LF or NUL (RFC 9110 §5.5).
    BadValue,
    /// More than [`MAX_SCRATCH_BYTES`] were added to this head.
    TooLarge,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadName => "the field name is not a token",
            Self::BadValue => "the field value contains a control character",
            Self::TooLarge => "too much was added to one head",
        })
    }
}

impl std::error::Error for EditError {}

// --- Receiving ---------------------------------------------------------------------------------

impl Fields {
    /// No fields, nothing allocated.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all fields and the received head, but keeps room for the next one of usual size.
    pub fn clear(&mut self) {
        self.base = Bytes::new();
        self.scratch.clear();
        self.lines.clear();
        // What an unusual head needed is given back.
        self.scratch.shrink_to(KEPT_SCRATCH_BYTES);
        self.lines.shrink_to(KEPT_LINES);
        self.present = KnownSet::EMPTY;
    }

    /// Appends a line of a received head; the head itself is given by [`adopt`](Self::adopt)
    /// afterwards, before anything else is asked. `known` is what [`Known::of`] says of the name.
    ///
    /// The caller promises what a parser has checked: the name is a token, the value holds no
    /// CR, LF or NUL, a colon and optional white space are between them, CRLF ends the line.
    #[inline]
    pub fn push_received(&mut self, at: Received, known: Option<Known>) {
        if let Some(known) = known {
            self.present.insert(known);
        }
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
        for line in &self.lines {
            let whole = self.slice(line, line.at.start, line.at.end);
            assert!(whole.ends_with(b"\r\n"), "{}", whole.escape_ascii());
            let field = self.field(line);
            assert!(is_token(field.name), "{}", field.name.escape_ascii());
            assert!(is_value(field.value), "{}", field.value.escape_ascii());
            assert_eq!(Known::of(field.name), line.known);
            assert!(line.known.is_none_or(|known| self.present.contains(known)));
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
    fn position(&self, name: Name<'_>) -> Option<usize> {
        match name {
            Name::Known(known) if !self.present.contains(known) => None,
            _ => self.lines.iter().position(|line| self.is_named(line, name)),
        }
    }

    #[inline]
    fn is_named(&self, line: &Line, name: Name<'_>) -> bool {
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
    fn field(&self, line: &Line) -> Field<'_> {
        Field {
            name: self.slice(line, line.at.start, line.at.name_end),
            value: self.slice(line, line.at.value_start, line.at.value_end),
            known: line.known,
        }
    }
}

// --- Editing -----------------------------------------------------------------------------------

impl Fields {
    /// Adds a field behind all others. White space around the value is dropped.
    ///
    /// # Errors
    /// The name is no token, the value has control characters, or too much was added.
    pub fn append<'n>(
        &mut self,
        name: impl Into<Name<'n>>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), EditError> {
        let line = self.stage(name.into(), value.as_ref())?;
        if let Some(known) = line.known {
            self.present.insert(known);
        }
        self.lines.push(line);
        Ok(())
    }

    /// Gives a field one value: the first of that name is replaced where it stands, any others
    /// are removed; if there was none, it is appended.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn set<'n>(
        &mut self,
        name: impl Into<Name<'n>>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), EditError> {
        let name = name.into();
        let line = self.stage(name, value.as_ref())?;
        let Some(first) = self.position(name) else {
            if let Some(known) = line.known {
                self.present.insert(known);
            }
            self.lines.push(line);
            return Ok(());
        };
        self.lines[first] = line;
        let mut at = 0;
        self.retain_lines(|fields, line| {
            at += 1;
            at <= first + 1 || !fields.is_named(line, name)
        });
        Ok(())
    }

    /// As [`set`](Self::set), with a number as the value.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn set_number<'n>(
        &mut self,
        name: impl Into<Name<'n>>,
        value: u64,
    ) -> Result<(), EditError> {
        let mut digits = [0; 20];
        self.set(name, decimal(value, &mut digits))
    }

    /// Removes all fields of that name; says whether there were any.
    pub fn remove<'n>(&mut self, name: impl Into<Name<'n>>) -> bool {
        let name = name.into();
        let before = self.lines.len();
        if let Name::Known(known) = name {
            if !self.present.contains(known) {
                return false;
            }
            self.present.remove(known);
        }
        self.retain_lines(|fields, line| !fields.is_named(line, name));
        self.lines.len() != before
    }

    /// Removes all fields whose names are in `names`, in one pass; nothing is done if none is
    /// there.
    pub fn remove_all(&mut self, names: KnownSet) {
        if self.present.intersects(names) {
            self.lines
                .retain(|line| line.known.is_none_or(|known| !names.contains(known)));
            self.present = self.present.without(names);
        }
    }

    /// Keeps only the fields for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        self.retain_lines(|fields, line| keep(fields.field(line)));
        self.recount();
    }

    /// Removes what belongs to the connection the head came over: [`KnownSet::HOP_BY_HOP`] and
    /// every field that `Connection` names (RFC 9110 §7.6.1).
    ///
    /// What an end-to-end message cannot do without is kept, even if `Connection` names it: see
    /// [`Name::is_protected`]. (A request that tries is refused by the parser; in a response it
    /// is no reason to throw the response away.)
    pub fn remove_hop_by_hop(&mut self) {
        if self.present.contains(Known::Connection) {
            self.remove_connection_options();
        }
        self.remove_all(KnownSet::HOP_BY_HOP);
    }

    fn remove_connection_options(&mut self) {
        let mut known = KnownSet::EMPTY;
        let mut others = false;
        for option in self.list(Known::Connection) {
            match Name::from(option) {
                name if name.is_protected() => {}
                Name::Known(name) => known.insert(name),
                Name::Other(name) => {
                    // The usual options that are not names of fields.
                    others |= !name.eq_ignore_ascii_case(b"close") && name.len() < MAX_OPTION_BYTES;
                }
            }
        }
        if others {
            // Rare, so it may be slow: every unknown field is looked for in Connection.
            let named: Vec<bool> = self
                .iter()
                .map(|field| {
                    let option = |option: &[u8]| option.eq_ignore_ascii_case(field.name);
                    field.known.is_none()
                        && !Name::Other(field.name).is_protected()
                        && self.list(Known::Connection).take(MAX_OPTIONS).any(option)
                })
                .collect();
            let mut named = named.iter();
            self.lines
                .retain(|_| !named.next().copied().unwrap_or(false));
        }
        self.remove_all(known);
    }

    /// Writes the line into `scratch`; if that fails nothing has changed.
    fn stage(&mut self, name: Name<'_>, value: &[u8]) -> Result<Line, EditError> {
        let value = trim(value);
        let known = match name {
            Name::Known(known) => Some(known),
            Name::Other(other) => Known::of(other),
        };
        let name = name.as_bytes();
        if known.is_none() && !is_token(name) {
            return Err(EditError::BadName);
        }
        if !is_value(value) {
            return Err(EditError::BadValue);
        }
        let start = self.scratch.len();
        let end = start
            .saturating_add(name.len())
            .saturating_add(value.len())
            .saturating_add(4);
        if end > MAX_SCRATCH_BYTES {
            return Err(EditError::TooLarge);
        }
        self.scratch.reserve(end - start);
        self.scratch.extend_from_slice(name);
        self.scratch.extend_from_slice(b": ");
        self.scratch.extend_from_slice(value);
        self.scratch.extend_from_slice(b"\r\n");
        let value_start = start + name.len() + 2;
        let at = Received {
            start: offset(start),
            name_end: offset(start + name.len()),
            value_start: offset(value_start),
            value_end: offset(value_start + value.len()),
            end: offset(end),
        };
        Ok(Line {
            at,
            known,
            source: Source::Scratch,
        })
    }

    /// `present` must be right already, or be mended by the caller.
    fn retain_lines(&mut self, mut keep: impl FnMut(&Self, &Line) -> bool) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.retain(|line| keep(self, line));
        self.lines = lines;
    }

    fn recount(&mut self) {
        self.present = KnownSet::EMPTY;
        for known in self.lines.iter().filter_map(|line| line.known) {
            self.present.insert(known);
        }
    }
}

/// How many connection options are looked at; the request parser refuses more than that.
const MAX_OPTIONS: usize = 32;
/// Longer options name no field that anybody uses.
const MAX_OPTION_BYTES: usize = 256;

/// `position` is at most [`MAX_SCRATCH_BYTES`].
fn offset(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

// --- Writing -----------------------------------------------------------------------------------

impl Fields {
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

/// Appends `value` in decimal digits.
pub fn append_decimal(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(decimal(value, &mut [0; 20]));
}

/// The digits of `value`, written to the end of `room`.
fn decimal(mut value: u64, room: &mut [u8; 20]) -> &[u8] {
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

impl<'a> Name<'a> {
    /// The name's text.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Known(known) => known.name().as_bytes(),
            Self::Other(other) => other,
        }
    }

    /// Whether this field is one that `Connection` may not name, because a message without it
    /// would mean something else further on: `Host`, `Content-*`, `Transfer-Encoding`,
    /// `Authorization`, the cookies, `Forwarded` and what it stands for.
    ///
    /// Known as the hop-by-hop abuse: a client makes a proxy strip what the application relies on.
    #[must_use]
    pub fn is_protected(self) -> bool {
        const PROTECTED: KnownSet = KnownSet::of(&[
            Known::Host,
            Known::TransferEncoding,
            Known::Authorization,
            Known::Cookie,
            Known::SetCookie,
        ])
        .union(KnownSet::FORWARDING);
        match self {
            Self::Known(known) if PROTECTED.contains(known) => true,
            _ => self
                .as_bytes()
                .first_chunk::<8>()
                .is_some_and(|start| start.eq_ignore_ascii_case(b"content-")),
        }
    }
}

impl From<Known> for Name<'_> {
    fn from(known: Known) -> Self {
        Self::Known(known)
    }
}

impl<'a> From<&'a [u8]> for Name<'a> {
    fn from(name: &'a [u8]) -> Self {
        Known::of(name).map_or(Self::Other(name), Self::Known)
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(name: &'a str) -> Self {
        Self::from(name.as_bytes())
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Name<'a> {
    fn from(name: &'a [u8; N]) -> Self {
        Self::from(name.as_slice())
    }
}

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
        assert!(settled.scratch.is_empty() && settled.contains(Known::Etag));

        let mut copy = head.clone();
        copy.append("X-Other", "3").unwrap();
        let room = copy.lines.as_ptr();
        copy.clone_from(&settled);
        assert_eq!(wire(&copy), wire(&settled));
        assert!(copy.present() == settled.present() && copy.lines.as_ptr() == room);
        assert_eq!(Fields::new().settled().len(), 0);
    }
}
