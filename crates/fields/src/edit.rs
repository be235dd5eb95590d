//! Adding, changing and removing fields.

use std::fmt;

use crate::fields::{Field, Fields, Line, Received, Source, append_decimal, decimal, offset};
use crate::known::{Known, KnownSet};
use crate::name::Name;
use crate::syntax::{is_token, is_value, trim};

/// How many bytes of edits one `Fields` takes. Whoever adds more is told
/// [`EditError::TooLarge`]: a head of that size would be refused by everybody anyway.
pub const MAX_SCRATCH_BYTES: usize = 1 << 20;

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

    /// As [`append`](Self::append), of a value that is written where it stands: `make` appends it
    /// to what it is given.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn append_made(
        &mut self,
        name: Known,
        make: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), EditError> {
        self.append_line(name, make, |value| {
            is_value(value) && trim(value).len() == value.len()
        })
    }

    #[inline]
    fn append_line(
        &mut self,
        name: Known,
        make: impl FnOnce(&mut Vec<u8>),
        is_right: impl FnOnce(&[u8]) -> bool,
    ) -> Result<(), EditError> {
        let start = self.scratch.len();
        let begin = name.line_start();
        // Most values that are made are short.
        self.scratch.reserve(begin.len() + 64);
        self.scratch.extend_from_slice(begin.as_bytes());
        let value_start = self.scratch.len();
        make(&mut self.scratch);
        let value = self.scratch.get(value_start..).unwrap_or_default();
        let is_right = is_right(value);
        let value_end = self.scratch.len();
        let end = value_end + 2;
        if !is_right || end > MAX_SCRATCH_BYTES {
            self.scratch.truncate(start);
            return Err(match is_right {
                true => EditError::TooLarge,
                false => EditError::BadValue,
            });
        }
        self.scratch.extend_from_slice(b"\r\n");
        let at = Received {
            start: offset(start),
            name_end: offset(value_start - 2),
            value_start: offset(value_start),
            value_end: offset(value_end),
            end: offset(end),
        };
        self.present.insert(name);
        self.lines.push(Line {
            at,
            known: Some(name),
            source: Source::Scratch,
        });
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
        self.is_mixed = true;
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
        let name = name.into();
        if let Name::Known(known) = name
            && !self.present.contains(known)
        {
            return self.append_line(known, |out| append_decimal(out, value), |_| true);
        }
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
            self.is_mixed = true;
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
            self.is_mixed = true;
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
        let before = lines.len();
        lines.retain(|line| keep(self, line));
        self.is_mixed |= lines.len() != before;
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
