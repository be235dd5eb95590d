//! The exact reader of heads: which fault comes first.
//!
//! It goes byte by byte from the start and stops at the first byte that makes the head wrong, so
//! that its verdict does not depend on how much of the head is there already. It is the grammar
//! that the fast reader must agree with; debug builds and the fuzz targets check that it does.

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
    Complete,
    /// No fault so far. With more than `limit` bytes and no line end there will be one.
    Partial {
        limit: usize,
    },
    Fault(HeadError),
}

/// Stops the reading: at a fault, or at the end of what is there.
enum Stop {
    Fault(HeadError),
    Starved,
}

impl From<HeadError> for Stop {
    fn from(fault: HeadError) -> Self {
        Self::Fault(fault)
    }
}

/// Reads a head.
pub(crate) fn head(bytes: &[u8], limits: &Limits, start: StartLine) -> Verdict {
    let mut reader = Reader {
        bytes,
        at: 0,
        limit: usize::MAX,
        beyond: HeadError::HeadTooLarge,
    };
    match reader.head(limits, start) {
        Ok(()) => Verdict::Complete,
        Err(Stop::Fault(fault)) => Verdict::Fault(fault),
        Err(Stop::Starved) => Verdict::Partial {
            limit: reader.limit,
        },
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The byte at this position is one too many …
    limit: usize,
    /// … and this is what it is called.
    beyond: HeadError,
}

impl Reader<'_> {
    fn head(&mut self, limits: &Limits, start: StartLine) -> Result<(), Stop> {
        self.limit = limits.max_request_line as usize;
        match start {
            StartLine::Request => {
                self.beyond = HeadError::RequestLineTooLong;
                self.request_line()?;
            }
            StartLine::Response => {
                self.beyond = HeadError::HeadTooLarge;
                self.status_line()?;
            }
            StartLine::None => {}
        }
        // The empty line is not counted, but may only stand where the fields ended.
        self.limit = self.at + limits.max_header as usize;
        self.beyond = HeadError::HeadTooLarge;
        let mut count = 0;
        while !self.empty_line()? {
            if count == limits.max_fields.min(Limits::MOST_FIELDS) {
                return Err(HeadError::TooManyFields.into());
            }
            count += 1;
            self.field(start == StartLine::Response)?;
        }
        Ok(())
    }

    /// The next byte, which is not taken yet.
    fn peek(&self) -> Result<u8, Stop> {
        match self.bytes.get(self.at) {
            Some(_) if self.at >= self.limit => Err(self.beyond.into()),
            Some(0) => Err(HeadError::Nul.into()),
            Some(&byte) => Ok(byte),
            None => Err(Stop::Starved),
        }
    }

    fn next(&mut self) -> Result<u8, Stop> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    /// Takes LF behind a CR.
    fn lf(&mut self) -> Result<(), Stop> {
        match self.next()? {
            b'\n' => Ok(()),
            _ => Err(HeadError::BareCr.into()),
        }
    }

    /// Takes CRLF; any other byte is `otherwise`.
    fn crlf(&mut self, otherwise: HeadError) -> Result<(), Stop> {
        match self.next()? {
            b'\r' => self.lf(),
            b'\n' => Err(HeadError::BareLf.into()),
            _ => Err(otherwise.into()),
        }
    }

    /// What is wrong with a line that ends too early, or with any other byte.
    fn misplaced(&mut self, byte: u8, otherwise: HeadError) -> Stop {
        match byte {
            b'\n' => HeadError::BareLf.into(),
            b'\r' => self.lf().err().unwrap_or(Stop::Fault(otherwise)),
            _ => otherwise.into(),
        }
    }

    fn request_line(&mut self) -> Result<(), Stop> {
        let malformed = HeadError::MalformedRequestLine;
        let mut len = 0;
        loop {
            match self.next()? {
                b' ' if len > 0 => break,
                byte if forebay_fields::is_token_byte(byte) => {
                    len += 1;
                    if len > OtherMethod::MAX_LEN {
                        return Err(HeadError::MethodTooLong.into());
                    }
                }
                byte => return Err(self.misplaced(byte, malformed)),
            }
        }
        len = 0;
        loop {
            match self.next()? {
                b' ' if len > 0 => break,
                b' ' => return Err(malformed.into()),
                b'#' => return Err(HeadError::BadTarget.into()),
                b'!'..=b'~' => len += 1,
                b'\r' => {
                    self.lf()?;
                    return Err(malformed.into());
                }
                b'\n' => return Err(HeadError::BareLf.into()),
                _ => return Err(HeadError::BadTarget.into()),
            }
        }
        self.version(malformed, HeadError::UnsupportedVersion)?;
        self.crlf(malformed)
    }

    /// `HTTP/` and the version; another one than 1.0 and 1.1 is `unsupported`.
    fn version(&mut self, malformed: HeadError, unsupported: HeadError) -> Result<(), Stop> {
        for &expected in b"HTTP/" {
            match self.next()? {
                byte if byte == expected => {}
                byte => return Err(self.misplaced(byte, malformed)),
            }
        }
        let mut version = [0; 3];
        for (at, place) in version.iter_mut().enumerate() {
            match self.next()? {
                byte if byte.is_ascii_digit() == (at != 1) && (at != 1 || byte == b'.') => {
                    *place = byte;
                }
                byte => return Err(self.misplaced(byte, malformed)),
            }
        }
        match &version {
            b"1.0" | b"1.1" => Ok(()),
            _ => Err(unsupported.into()),
        }
    }

    fn status_line(&mut self) -> Result<(), Stop> {
        let malformed = HeadError::MalformedStatusLine;
        self.version(malformed, HeadError::UnsupportedVersion)?;
        match self.next()? {
            b' ' => {}
            byte => return Err(self.misplaced(byte, malformed)),
        }
        for at in 0..3 {
            match self.next()? {
                b'1'..=b'9' => {}
                b'0' if at > 0 => {}
                byte => return Err(self.misplaced(byte, malformed)),
            }
        }
        match self.next()? {
            b' ' => {}
            b'\r' => return self.lf(),
            byte => return Err(self.misplaced(byte, malformed)),
        }
        loop {
            match self.next()? {
                b'\r' => return self.lf(),
                b'\n' => return Err(HeadError::BareLf.into()),
                b'\t' | b' '..=b'~' | 0x80.. => {}
                _ => return Err(malformed.into()),
            }
        }
    }

    /// Whether the empty line is next; if so it is taken.
    fn empty_line(&mut self) -> Result<bool, Stop> {
        if !matches!(self.bytes.get(self.at), Some(b'\r')) {
            // Also decides whether there is a byte at all.
            self.peek()?;
            return Ok(false);
        }
        self.at += 1;
        self.limit = usize::MAX;
        self.lf().map(|()| true)
    }

    fn field(&mut self, space_is_removed: bool) -> Result<(), Stop> {
        let mut len = 0;
        loop {
            match self.next()? {
                b':' if len > 0 => break,
                byte if forebay_fields::is_token_byte(byte) => len += 1,
                b' ' | b'\t' if len == 0 => return Err(HeadError::ObsFold.into()),
                b' ' | b'\t' if space_is_removed => {
                    self.colon_behind_space()?;
                    break;
                }
                b' ' | b'\t' => return Err(HeadError::SpaceBeforeColon.into()),
                byte => return Err(self.misplaced(byte, HeadError::BadFieldName)),
            }
        }
        loop {
            match self.next()? {
                b'\r' => return self.lf(),
                b'\n' => return Err(HeadError::BareLf.into()),
                b'\t' | b' '..=b'~' | 0x80.. => {}
                _ => return Err(HeadError::BadFieldValue.into()),
            }
        }
    }

    fn colon_behind_space(&mut self) -> Result<(), Stop> {
        loop {
            match self.next()? {
                b' ' | b'\t' => {}
                b':' => return Ok(()),
                byte => return Err(self.misplaced(byte, HeadError::BadFieldName)),
            }
        }
    }
}
