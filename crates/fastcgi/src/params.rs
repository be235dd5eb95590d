//! Name-value pairs (FastCGI 1.0 §3.4).

use std::fmt;

use bytes::Bytes;

use crate::Limits;
use crate::fault::Fault;

/// Lengths up to this are written in one byte.
const SHORT: usize = 0x7f;
/// The parameters of a browser's request.
const USUAL: usize = 2048;
/// The longest that four bytes can say.
const LONGEST: usize = 0x7fff_ffff;

/// The parameters of one request, as they were received. Names may repeat and are not checked.
///
/// All lengths in the block are right. They are read again by whoever asks: that takes less than a
/// row of places would, which had to be allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    block: Bytes,
    count: usize,
}

impl Params {
    /// Reads a whole block.
    ///
    /// # Errors
    /// A length points behind the end, or a limit is passed; whatever comes first.
    pub fn read(block: Bytes, limits: &Limits) -> Result<Self, Fault> {
        if u32::try_from(block.len()).map_or(true, |len| len > limits.max_params_bytes) {
            return Err(Fault::ParamsTooLarge);
        }
        let mut count = 0;
        let mut rest = block.as_ref();
        // Short pairs are within the limits, if those are not shorter.
        let short_fit = limits.max_name.min(limits.max_value) as usize >= SHORT;
        while !rest.is_empty() {
            if count >= usize::from(limits.max_params) {
                return Err(Fault::TooManyParams);
            }
            if short_fit
                && let [name, value, behind @ ..] = rest
                && (name | value) & 0x80 == 0
                && let Some(behind) = behind.get(usize::from(*name) + usize::from(*value)..)
            {
                rest = behind;
                count += 1;
                continue;
            }
            let (name, value) = read_lens(&mut rest)?;
            if name > limits.max_name {
                return Err(Fault::NameTooLong);
            }
            if value > limits.max_value {
                return Err(Fault::ValueTooLong);
            }
            let len = u64::from(name) + u64::from(value);
            rest = usize::try_from(len)
                .ok()
                .and_then(|len| rest.get(len..))
                .ok_or(Fault::BadParams)?;
            count += 1;
        }
        Ok(Self { block, count })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value of the first of that name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find(|(its, _)| *its == name)
            .map(|(_, value)| value)
    }

    /// All of them, in order, as (name, value).
    #[must_use]
    pub fn iter(&self) -> ParamsIter<'_> {
        ParamsIter { rest: &self.block }
    }

    /// How many bytes they are, as they are encoded.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.block.len()
    }
}

impl<'a> IntoIterator for &'a Params {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = ParamsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// See [`Params::iter`].
#[derive(Clone, Debug)]
pub struct ParamsIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for ParamsIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // `None` at the end, and nowhere else: the block was read once.
        let (name, value) = read_lens(&mut self.rest).ok()?;
        let (name, rest) = self.rest.split_at_checked(name as usize)?;
        let (value, rest) = rest.split_at_checked(value as usize)?;
        self.rest = rest;
        Some((name, value))
    }
}

/// Takes the lengths of a name and its value off the front.
#[inline]
fn read_lens(rest: &mut &[u8]) -> Result<(u32, u32), Fault> {
    // Nearly all of them are short.
    if let [name, value, behind @ ..] = *rest
        && (name | value) & 0x80 == 0
    {
        *rest = behind;
        return Ok((u32::from(*name), u32::from(*value)));
    }
    Ok((read_len(rest)?, read_len(rest)?))
}

/// Takes the length of a name or a value off the front.
pub(crate) fn read_len(rest: &mut &[u8]) -> Result<u32, Fault> {
    match **rest {
        [short, ref behind @ ..] if short & 0x80 == 0 => {
            *rest = behind;
            Ok(short.into())
        }
        [b3, b2, b1, b0, ref behind @ ..] => {
            *rest = behind;
            Ok(u32::from_be_bytes([b3 & 0x7f, b2, b1, b0]))
        }
        _ => Err(Fault::BadParams),
    }
}

/// Why a parameter was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushError {
    /// The name is empty, or has `=` or NUL in it: as a variable of an environment it would be
    /// another one.
    BadName,
    /// The value has NUL in it: programs in C would see a part of it, and a file's name could
    /// end before its extension.
    BadValue,
    /// There are more bytes than the builder takes.
    TooLarge,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadName => "the name of a parameter is empty, or has = or NUL in it",
            Self::BadValue => "the value of a parameter has NUL in it",
            Self::TooLarge => "the parameters are too large",
        })
    }
}

impl std::error::Error for PushError {}

/// The parameters of a request that is to be sent, encoded as they are added.
#[derive(Clone, Debug)]
pub struct ParamsBuilder {
    block: Vec<u8>,
    max_bytes: usize,
}

impl ParamsBuilder {
    /// Takes at most `max_bytes` bytes of encoded parameters.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self::with_room(Vec::new(), max_bytes)
    }

    /// The same with the room that another one had.
    #[must_use]
    pub fn with_room(mut room: Vec<u8>, max_bytes: usize) -> Self {
        room.clear();
        room.reserve(max_bytes.min(USUAL));
        Self {
            block: room,
            max_bytes,
        }
    }

    /// Its room.
    #[must_use]
    pub fn into_room(self) -> Vec<u8> {
        self.block
    }

    /// The encoded pairs.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.block
    }

    /// Adds one.
    ///
    /// # Errors
    /// The name or the value cannot be passed, or there are too many bytes; nothing was added.
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), PushError> {
        if !is_name(name) {
            return Err(PushError::BadName);
        }
        if value.contains(&0) {
            return Err(PushError::BadValue);
        }
        self.push_fit(name, value)
    }

    /// Adds one that is known to be fit: a name that the program has, and a value that a parser has
    /// looked at. Debug builds look once more.
    ///
    /// # Errors
    /// There are too many bytes; nothing was added.
    #[inline]
    pub fn push_fit(&mut self, name: &[u8], value: &[u8]) -> Result<(), PushError> {
        debug_assert!(is_name(name) && !value.contains(&0));
        self.make_room(name.len(), value.len())?;
        self.block.extend_from_slice(name);
        self.block.extend_from_slice(value);
        Ok(())
    }

    /// The same of a value that is being written; a short one is not moved.
    ///
    /// # Errors
    /// As there.
    pub fn push_written(
        &mut self,
        name: &[u8],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), PushError> {
        let start = self.block.len();
        self.make_room(name.len(), 0)?;
        let len_at = self.block.len() - 1;
        self.block.extend_from_slice(name);
        let value_start = self.block.len();
        write(&mut self.block);
        let len = self.block.len() - value_start;
        let fits = self.block.len() <= self.max_bytes;
        match (u8::try_from(len), self.block.get_mut(len_at)) {
            (Ok(len @ ..0x80), Some(at)) if fits => *at = len,
            _ => {
                let value = self.block.split_off(value_start);
                self.block.truncate(start);
                return self.push(name, &value);
            }
        }
        Ok(())
    }

    /// Adds the variable of a field, unless that is not `wanted`.
    ///
    /// # Errors
    /// As [`push_fit`](Self::push_fit).
    pub(crate) fn push_field(
        &mut self,
        name: &[u8],
        value: &[u8],
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<(), PushError> {
        let start = self.block.len();
        self.make_room(VARIABLE.len() + name.len(), value.len())?;
        let name_start = self.block.len();
        write_variable(name, &mut self.block);
        if self.block.get(name_start..).is_some_and(wanted) {
            self.block.extend_from_slice(value);
        } else {
            self.block.truncate(start);
        }
        Ok(())
    }

    /// Adds one whose value is made of these parts.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_parts(&mut self, name: &[u8], parts: &[&[u8]]) -> Result<(), PushError> {
        self.push_joined(name, parts.iter().copied(), b"")
    }

    /// Adds one whose value is made of several with `separator` between them.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_joined<'v>(
        &mut self,
        name: &[u8],
        values: impl Iterator<Item = &'v [u8]> + Clone,
        separator: &[u8],
    ) -> Result<(), PushError> {
        if !is_name(name) {
            return Err(PushError::BadName);
        }
        let mut value_len = 0_usize;
        for (at, value) in values.clone().enumerate() {
            if value.contains(&0) {
                return Err(PushError::BadValue);
            }
            let between = if at == 0 { 0 } else { separator.len() };
            value_len = value_len.saturating_add(between + value.len());
        }
        self.make_room(name.len(), value_len)?;
        self.block.extend_from_slice(name);
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.block.extend_from_slice(separator);
            }
            self.block.extend_from_slice(value);
        }
        Ok(())
    }

    /// Writes the lengths of a pair, if there is room for it.
    #[inline]
    fn make_room(&mut self, name_len: usize, value_len: usize) -> Result<(), PushError> {
        let len = name_len.saturating_add(value_len).saturating_add(8);
        if name_len.max(value_len) > LONGEST
            || self.block.len().saturating_add(len) > self.max_bytes
        {
            return Err(PushError::TooLarge);
        }
        self.block.reserve(len);
        // Nearly all of them are short.
        match (u8::try_from(name_len), u8::try_from(value_len)) {
            (Ok(name @ ..0x80), Ok(value @ ..0x80)) => {
                self.block.extend_from_slice(&[name, value]);
            }
            _ => {
                write_len(&mut self.block, name_len);
                write_len(&mut self.block, value_len);
            }
        }
        Ok(())
    }
}

/// What the variable of a field begins with (RFC 3875 §4.1.18).
const VARIABLE: &[u8] = b"HTTP_";

/// Writes what the variable of a field of this name is called.
pub(crate) fn write_variable(name: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(VARIABLE);
    out.extend(name.iter().map(|&byte| match byte {
        b'-' => b'_',
        byte => byte.to_ascii_uppercase(),
    }));
}

/// Whether it can stand in front of the first `=` of a variable. Without a way out in the middle:
/// names are short, and many are looked at.
fn is_name(name: &[u8]) -> bool {
    let odd = |odd, &byte: &u8| odd | (byte == b'=') | (byte == 0);
    !name.is_empty() && !name.iter().fold(false, odd)
}

/// `len` is at most [`LONGEST`].
fn write_len(out: &mut Vec<u8>, len: usize) {
    match u8::try_from(len) {
        Ok(short) if len <= SHORT => out.push(short),
        _ => {
            let long = u32::try_from(len).unwrap_or(u32::MAX) | 0x8000_0000;
            out.extend_from_slice(&long.to_be_bytes());
        }
    }
}
