//! The exact reader of heads: byte by byte, resumable, says which fault comes first.
//!
//! It stops at the first byte that makes the head wrong, so its verdict does not depend on how
//! much of the head is there. It is the grammar that the fast reader must agree with; debug
//! builds and the fuzz targets check that it does.
//!
//! ```text
//! Method ▶ Target ▶ Version ▶ LineCr ▶ LineLf ─┐        ┌──────────────────────┐
//!                      └▶ StatusSpace ▶ Status │        ▼                      │
//!                           ▶ AfterStatus ─────┤     FieldStart ▶ Name ▶ Value ▶ ValueLf
//!                             └▶ Reason ───────┴──────▶ └▶ EndLf ▶ (complete)
//! ```

use crate::error::HeadError;
use crate::head::Limits;
use crate::method::OtherMethod;

/// What stands before the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartLine {
    Request,
    Response,
    /// Nothing: a trailer section.
    None,
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A head of so many bytes.
    Complete(usize),
    /// No fault so far.
    Partial,
    Fault(HeadError),
}

/// Where the reader is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exact {
    /// Bytes read.
    at: usize,
    state: State,
    /// Where the start line ended.
    fields_start: usize,
    /// Field lines so far.
    count: u16,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing was read.
    Start,
    Method {
        len: u8,
    },
    Target {
        empty: bool,
    },
    /// So many of the eight bytes were read.
    Version {
        len: u8,
        major: u8,
    },
    LineCr,
    LineLf,
    StatusSpace,
    /// So many digits were read.
    Status {
        len: u8,
    },
    AfterStatus,
    Reason,
    FieldStart,
    Name,
    /// White space behind a name.
    NameSpace,
    Value,
    ValueLf,
    /// LF of the empty line.
    EndLf,
    /// Behind a misplaced CR: with LF it is this fault, otherwise the CR itself is one.
    Misplaced(HeadError),
}

impl Default for Exact {
    fn default() -> Self {
        Self {
            at: 0,
            state: State::Start,
            fields_start: 0,
            count: 0,
        }
    }
}

impl Exact {
    /// Whether it has read anything.
    #[inline]
    pub(crate) const fn has_begun(&self) -> bool {
        self.at != 0
    }

    /// Reads on in `bytes`, which start where they did in the last call.
    pub(crate) fn read(&mut self, bytes: &[u8], limits: &Limits, start: StartLine) -> Verdict {
        if matches!(self.state, State::Start) {
            self.state = match start {
                StartLine::Request => State::Method { len: 0 },
                StartLine::Response => State::Version { len: 0, major: 0 },
                StartLine::None => State::FieldStart,
            };
        }
        while let Some(&byte) = bytes.get(self.at) {
            if let Some(fault) = self.beyond_limit(byte, limits, start) {
                return Verdict::Fault(fault);
            }
            match self.step(byte, limits, start) {
                Ok(_) if byte == 0 => return Verdict::Fault(HeadError::Nul),
                Ok(state) => self.state = state,
                Err(_) if byte == 0 => return Verdict::Fault(HeadError::Nul),
                Err(fault) => return Verdict::Fault(fault),
            }
            self.at += 1;
            if matches!(self.state, State::Start) {
                return Verdict::Complete(self.at);
            }
        }
        Verdict::Partial
    }

    /// What is wrong with there being a byte here at all.
    fn beyond_limit(&self, byte: u8, limits: &Limits, start: StartLine) -> Option<HeadError> {
        let in_fields = matches!(
            self.state,
            State::FieldStart | State::Name | State::NameSpace | State::Value | State::ValueLf
        );
        let limit = match self.state {
            // The empty line is not counted.
            State::EndLf => return None,
            State::FieldStart if byte == b'\r' => return None,
            // `Misplaced` is where it came from; the byte before it was within the limit.
            State::Misplaced(_) => return None,
            _ if in_fields => self.fields_start.saturating_add(limits.max_header as usize),
            _ => limits.max_request_line as usize,
        };
        if self.at < limit {
            None
        } else if in_fields || start != StartLine::Request {
            Some(HeadError::HeadTooLarge)
        } else {
            Some(HeadError::RequestLineTooLong)
        }
    }

    /// The state behind `byte`; `Start` if the head is complete.
    fn step(&mut self, byte: u8, limits: &Limits, start: StartLine) -> Result<State, HeadError> {
        match self.state {
            State::Start => Ok(State::Start),
            State::Method { .. } | State::Target { .. } => self.request_line(byte),
            State::Version { len, major } => version(byte, len, major, start),
            State::StatusSpace | State::Status { .. } | State::AfterStatus | State::Reason => {
                self.status_line(byte)
            }
            State::LineCr => match byte {
                b'\r' => Ok(State::LineLf),
                b'\n' => Err(HeadError::BareLf),
                _ => Err(HeadError::MalformedRequestLine),
            },
            State::LineLf => {
                self.fields_start = self.at + 1;
                lf(byte, State::FieldStart)
            }
            State::ValueLf => lf(byte, State::FieldStart),
            State::EndLf => lf(byte, State::Start),
            State::Misplaced(fault) => match byte {
                b'\n' => Err(fault),
                _ => Err(HeadError::BareCr),
            },
            State::FieldStart if byte == b'\r' => Ok(State::EndLf),
            State::FieldStart => {
                if self.count >= limits.max_fields.min(Limits::MOST_FIELDS) {
                    return Err(HeadError::TooManyFields);
                }
                self.count += 1;
                match byte {
                    b' ' | b'\t' => Err(HeadError::ObsFold),
                    b':' => Err(HeadError::BadFieldName),
                    byte => name(byte, start),
                }
            }
            State::Name => name(byte, start),
            State::NameSpace => match byte {
                b' ' | b'\t' => Ok(State::NameSpace),
                b':' => Ok(State::Value),
                byte => misplaced(byte, HeadError::BadFieldName),
            },
            State::Value => match byte {
                b'\r' => Ok(State::ValueLf),
                b'\n' => Err(HeadError::BareLf),
                b'\t' | b' '..=b'~' | 0x80.. => Ok(State::Value),
                _ => Err(HeadError::BadFieldValue),
            },
        }
    }

    fn request_line(&self, byte: u8) -> Result<State, HeadError> {
        match (self.state, byte) {
            (State::Method { len: 1.. }, b' ') => Ok(State::Target { empty: true }),
            (State::Method { len }, _) if forebay_fields::is_token_byte(byte) => {
                if usize::from(len) == OtherMethod::MAX_LEN {
                    return Err(HeadError::MethodTooLong);
                }
                Ok(State::Method { len: len + 1 })
            }
            (State::Target { empty: false }, b' ') => Ok(State::Version { len: 0, major: 0 }),
            (State::Target { .. }, b'!'..=b'~') if byte != b'#' => {
                Ok(State::Target { empty: false })
            }
            (State::Target { .. }, b' ' | b'\r' | b'\n') | (State::Method { .. }, _) => {
                misplaced(byte, HeadError::MalformedRequestLine)
            }
            _ => Err(HeadError::BadTarget),
        }
    }

    fn status_line(&self, byte: u8) -> Result<State, HeadError> {
        match (self.state, byte) {
            (State::StatusSpace, b' ') => Ok(State::Status { len: 0 }),
            (State::Status { len: 0 }, b'1'..=b'9') => Ok(State::Status { len: 1 }),
            (State::Status { len: 1 }, b'0'..=b'9') => Ok(State::Status { len: 2 }),
            (State::Status { len: 2 }, b'0'..=b'9') => Ok(State::AfterStatus),
            (State::AfterStatus, b' ') => Ok(State::Reason),
            (State::AfterStatus | State::Reason, b'\r') => Ok(State::LineLf),
            (State::Reason, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Reason),
            _ => misplaced(byte, HeadError::MalformedStatusLine),
        }
    }
}

/// `HTTP/`, a digit, a point, a digit.
fn version(byte: u8, len: u8, major: u8, start: StartLine) -> Result<State, HeadError> {
    let (malformed, next) = match start {
        StartLine::Response => (HeadError::MalformedStatusLine, State::StatusSpace),
        _ => (HeadError::MalformedRequestLine, State::LineCr),
    };
    match (b"HTTP/".get(usize::from(len)), len, byte) {
        (Some(expected), _, _) if byte == *expected => Ok(State::Version {
            len: len + 1,
            major,
        }),
        (None, 5, b'0'..=b'9') => Ok(State::Version {
            len: 6,
            major: byte,
        }),
        (None, 6, b'.') => Ok(State::Version { len: 7, major }),
        (None, 7, b'0' | b'1') if major == b'1' => Ok(next),
        (None, 7, b'0'..=b'9') => Err(HeadError::UnsupportedVersion),
        _ => misplaced(byte, malformed),
    }
}

fn name(byte: u8, start: StartLine) -> Result<State, HeadError> {
    match byte {
        b':' => Ok(State::Value),
        byte if forebay_fields::is_token_byte(byte) => Ok(State::Name),
        // RFC 9112 §5.1: removed from a response that is passed on.
        b' ' | b'\t' if start == StartLine::Response => Ok(State::NameSpace),
        b' ' | b'\t' => Err(HeadError::SpaceBeforeColon),
        byte => misplaced(byte, HeadError::BadFieldName),
    }
}

fn lf(byte: u8, next: State) -> Result<State, HeadError> {
    match byte {
        b'\n' => Ok(next),
        _ => Err(HeadError::BareCr),
    }
}

/// What is wrong with a line that ends too early, or with any other byte.
fn misplaced(byte: u8, otherwise: HeadError) -> Result<State, HeadError> {
    match byte {
        b'\n' => Err(HeadError::BareLf),
        b'\r' => Ok(State::Misplaced(otherwise)),
        _ => Err(otherwise),
    }
}
