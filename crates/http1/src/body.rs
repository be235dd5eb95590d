//! Bodies: bytes in, their data out (RFC 9112 §6, §7).

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use forebay_fields::Fields;

use crate::error::HeadError;
use crate::head::{Framing, Limits};
use crate::parse::{self, HeadParser};

/// Bytes of extensions that one chunk may have. Nobody uses them; they are read over.
pub const MAX_CHUNK_EXTENSION: u16 = 256;

/// How many bytes of chunk lines a body may have beyond what its data pay for.
///
/// Each chunk pays 16 bytes of its line, and each byte of data two more; what a line costs above
/// that adds up and may not pass this. So any honest stream, even of chunks of one byte, goes
/// through for ever, and a sender of extensions around little data is stopped soon.
pub const MAX_CHUNK_EXCESS: u32 = 16 * 1024;

/// Where the next data bytes are; see [`BodyDecoder::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes at the start of the buffer are data; at least one.
    Data(usize),
    /// The buffer holds nothing that could be told yet.
    NeedMore,
    /// The body has ended; what is in the buffer belongs to the next message.
    End,
}

/// A part of a body; see [`BodyDecoder::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Data; at least one byte. Shares the buffer it was received in.
    Data(Bytes),
    /// The buffer holds nothing that could be told yet.
    NeedMore,
    /// The body has ended; what is in the buffer belongs to the next message.
    End,
}

/// Why a body was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyError {
    /// RFC 9112 §7.1: the size is not hexadecimal digits, or the line does not end with CRLF.
    BadChunkSize,
    /// RFC 9112 §7.1: the sizes are 2^63 or more together with all before, or have more than
    /// 16 digits.
    ChunkTooLarge,
    /// RFC 9112 §7.1.1: an extension with control characters, or over [`MAX_CHUNK_EXTENSION`].
    BadChunkExtension,
    /// RFC 9112 §7.1: no CRLF behind a chunk's data.
    BadChunkEnd,
    /// More than [`MAX_CHUNK_EXCESS`] bytes of framing around too little data.
    TooMuchFraming,
    /// RFC 9112 §7.1.2: the trailer section is malformed or too large.
    BadTrailers(HeadError),
    /// RFC 9112 §8: the stream ended before the body did.
    Truncated,
}

impl BodyError {
    /// The status that answers the request, if no response has begun.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadTrailers(HeadError::HeadTooLarge | HeadError::TooManyFields) => 431,
            _ => 400,
        }
    }

    /// A name for metrics and machine-readable logs, in `snake_case`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadChunkSize => "bad_chunk_size",
            Self::ChunkTooLarge => "chunk_too_large",
            Self::BadChunkExtension => "bad_chunk_extension",
            Self::BadChunkEnd => "bad_chunk_end",
            Self::TooMuchFraming => "too_much_framing",
            Self::BadTrailers(_) => "bad_trailers",
            Self::Truncated => "truncated_body",
        }
    }

    /// The fault in a sentence, without its full stop.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::BadChunkSize => "the size of a chunk is not a hexadecimal number and CRLF",
            Self::ChunkTooLarge => "the size of a chunk is too large",
            Self::BadChunkExtension => "the extension of a chunk is malformed or too long",
            Self::BadChunkEnd => "the data of a chunk are not followed by CRLF",
            Self::TooMuchFraming => "there is too much framing around too little data",
            Self::BadTrailers(_) => "the trailers are malformed or too large",
            Self::Truncated => "the connection ended before the body did",
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())?;
        match self {
            Self::BadTrailers(fault) => write!(f, ": {fault}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BodyError {}

/// Takes the framing off a body.
///
/// ```text
/// Length(n) ──n bytes──▶ Done                         UntilClose ──end of stream──▶ Done
///
///    ┌──────────────────────── CRLF ◀── DataEnd ◀── n bytes ─┐
///    ▼                                                       │
///   Size ──digits──▶ Size ──";"──▶ Extension ──CRLF──▶ Data(n > 0)
///                                             └──────▶ Trailers (n = 0) ──empty line──▶ Done
/// ```
///
/// After an error the stream's state is unknown: break off, close.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of chunk lines not yet paid for; see [`MAX_CHUNK_EXCESS`].
    excess: u32,
    max_trailers: u32,
    max_trailer_fields: u16,
    /// All sizes of chunks so far.
    total: u64,
    trailers: Option<Box<Fields>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many bytes of data are left.
    Length(u64),
    UntilClose,
    Size {
        size: u64,
        digits: u8,
    },
    /// Behind `;`, or behind white space that must lead to one.
    Extension {
        size: u64,
        len: u16,
        semicolon: bool,
    },
    SizeLf {
        size: u64,
        line: u16,
    },
    /// So many bytes of the chunk are left; never 0.
    Data(u64),
    DataCr,
    DataLf,
    Trailers(HeadParser),
    Done,
}

impl BodyDecoder {
    /// A decoder for one body. `limits` hold for its trailers.
    #[must_use]
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            excess: 0,
            max_trailers: limits.max_header,
            max_trailer_fields: limits.max_fields,
            total: 0,
            trailers: None,
        }
    }

    /// Whether the body has ended.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How many bytes of data are still to come, where the framing says so.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// The next part of the body, taken off the start of `buf` without copying.
    ///
    /// # Errors
    /// The framing is malformed or too costly.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Part, BodyError> {
        Ok(match self.poll(buf)? {
            Step::Data(len) => {
                let data = buf.split_to(len.min(buf.len())).freeze();
                self.consumed(len);
                Part::Data(data)
            }
            Step::NeedMore => Part::NeedMore,
            Step::End => Part::End,
        })
    }

    /// Takes framing off the start of `buf` until data are there, and says how many, leaving
    /// them in place. Whoever has taken some or all of them off says so with
    /// [`consumed`](Self::consumed), then asks again.
    ///
    /// For passing a body on without a slice of its own for each part.
    ///
    /// # Errors
    /// The framing is malformed or too costly.
    pub fn poll(&mut self, buf: &mut BytesMut) -> Result<Step, BodyError> {
        loop {
            match self.state {
                State::Done => return Ok(Step::End),
                State::Length(_) | State::Data(_) | State::UntilClose => {
                    return Ok(match self.ready(buf) {
                        0 => Step::NeedMore,
                        len => Step::Data(len),
                    });
                }
                State::Trailers(_) => {
                    if !self.trailer_section(buf)? {
                        return Ok(Step::NeedMore);
                    }
                }
                _ => {
                    if !self.framing(buf)? {
                        return Ok(Step::NeedMore);
                    }
                }
            }
        }
    }

    /// How many bytes at the start of `buf` are data, without looking at framing: 0 where some
    /// comes first.
    #[inline]
    #[must_use]
    pub fn ready(&self, buf: &[u8]) -> usize {
        match self.state {
            State::Length(left) | State::Data(left) => {
                usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()))
            }
            State::UntilClose => buf.len(),
            _ => 0,
        }
    }

    /// Says that `len` bytes of data were taken off the buffer: at most as many as
    /// [`ready`](Self::ready) or [`poll`](Self::poll) said.
    #[inline]
    pub fn consumed(&mut self, len: usize) {
        let taken = len as u64;
        match &mut self.state {
            State::Length(left) | State::Data(left) => {
                debug_assert!(taken <= *left, "{taken} bytes taken of {left}");
                *left = left.saturating_sub(taken);
            }
            State::UntilClose => {}
            _ => debug_assert!(taken == 0, "{taken} bytes taken where no data are"),
        }
        match self.state {
            State::Length(0) => self.state = State::Done,
            State::Data(0) => self.state = State::DataCr,
            _ => {}
        }
    }

    /// The stream has ended: says whether the body had.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] if not.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// The trailers, once the body has ended and if it had any that may be there
    /// (RFC 9110 §6.5.1): fields that frame, route, authenticate or control were dropped, and
    /// those with `_` in their name.
    #[must_use]
    pub fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }

    /// As [`trailers`](Self::trailers), given away.
    pub fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers.take().map(|fields| *fields)
    }

    /// Reads chunk lines. False if the buffer was used up without getting to data or trailers.
    fn framing(&mut self, buf: &mut BytesMut) -> Result<bool, BodyError> {
        let mut at = 0;
        while let Some(&byte) = buf.get(at) {
            at += 1;
            self.state = self.framing_byte(byte)?;
            if matches!(self.state, State::Data(_) | State::Trailers(_)) {
                buf.advance(at);
                return Ok(true);
            }
        }
        buf.advance(at);
        Ok(false)
    }

    fn framing_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        Ok(match self.state {
            State::Size { size, digits } => match (byte, hex_digit(byte)) {
                (_, Some(_)) if digits == 16 => return Err(BodyError::ChunkTooLarge),
                (_, Some(digit)) => State::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                },
                _ if digits == 0 => return Err(BodyError::BadChunkSize),
                (b'\r', _) => State::SizeLf {
                    size,
                    line: u16::from(digits),
                },
                (b';', _) => State::Extension {
                    size,
                    len: 1,
                    semicolon: true,
                },
                (b' ' | b'\t', _) => State::Extension {
                    size,
                    len: 1,
                    semicolon: false,
                },
                _ => return Err(BodyError::BadChunkSize),
            },
            State::Extension {
                size,
                len,
                semicolon,
            } => match byte {
                b'\r' if semicolon => State::SizeLf {
                    size,
                    line: len + 16,
                },
                _ if len == MAX_CHUNK_EXTENSION => return Err(BodyError::BadChunkExtension),
                b';' => State::Extension {
                    size,
                    len: len + 1,
                    semicolon: true,
                },
                b' ' | b'\t' => State::Extension {
                    size,
                    len: len + 1,
                    semicolon,
                },
                b'!'..=b'~' | 0x80.. if semicolon => State::Extension {
                    size,
                    len: len + 1,
                    semicolon,
                },
                // White space behind the size that leads nowhere: RFC 9112 §7.1 has none there.
                _ if !semicolon => return Err(BodyError::BadChunkSize),
                _ => return Err(BodyError::BadChunkExtension),
            },
            State::SizeLf { size, line } => match byte {
                b'\n' => self.chunk(size, line)?,
                _ => return Err(BodyError::BadChunkSize),
            },
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => State::Size { size: 0, digits: 0 },
            State::DataCr | State::DataLf => return Err(BodyError::BadChunkEnd),
            other => other,
        })
    }

    /// A chunk line of `line` bytes is complete.
    fn chunk(&mut self, size: u64, line: u16) -> Result<State, BodyError> {
        let total = self
            .total
            .checked_add(size)
            .filter(|&total| i64::try_from(total).is_ok());
        self.total = total.ok_or(BodyError::ChunkTooLarge)?;
        let paid = u32::try_from(size.saturating_mul(2))
            .unwrap_or(u32::MAX)
            .saturating_add(16);
        self.excess = self
            .excess
            .saturating_add(u32::from(line))
            .saturating_sub(paid);
        if self.excess > MAX_CHUNK_EXCESS {
            return Err(BodyError::TooMuchFraming);
        }
        Ok(match size {
            0 => State::Trailers(HeadParser::new()),
            _ => State::Data(size),
        })
    }

    /// False if the section is not complete.
    fn trailer_section(&mut self, buf: &mut BytesMut) -> Result<bool, BodyError> {
        // As good as always there are none.
        match (buf.first(), buf.get(1)) {
            (Some(b'\r'), Some(b'\n')) => {
                buf.advance(2);
                self.state = State::Done;
                return Ok(true);
            }
            (None, _) | (Some(b'\r'), None) => return Ok(false),
            _ => {}
        }
        let limits = Limits {
            max_request_line: 0,
            max_header: self.max_trailers,
            max_fields: self.max_trailer_fields,
        };
        let State::Trailers(parser) = &mut self.state else {
            return Ok(false);
        };
        match parse::trailers(parser, buf, &limits).map_err(BodyError::BadTrailers)? {
            None => Ok(false),
            Some(fields) => {
                self.trailers = (!fields.is_empty()).then(|| Box::new(fields));
                self.state = State::Done;
                Ok(true)
            }
        }
    }
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
