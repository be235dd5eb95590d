//! The head of a CGI response (RFC 3875 §6).

use std::fmt;

use bytes::{Bytes, BytesMut};
use forebay_fields::{EditError, Fields, Known, is_token};
use memchr::memchr;

/// How much a head may be; both as those of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgiLimits {
    /// Bytes of all lines together.
    pub max_header: usize,
    /// How many lines.
    pub max_fields: usize,
}

impl Default for CgiLimits {
    fn default() -> Self {
        Self {
            max_header: 64 * 1024,
            max_fields: 100,
        }
    }
}

/// What kind of response it is (RFC 3875 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A document, or anything that says its status itself.
    Document,
    /// §6.2.2: `Location` is a path of this server, which is to be served instead.
    LocalRedirect,
    /// §6.2.3, §6.2.4: `Location` is for the client.
    ClientRedirect,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct CgiHead {
    /// 200 to 999. Without a `Status`: 302 with a `Location`, else 200.
    pub status: u16,
    /// What kind of response it is.
    pub kind: Kind,
    /// What `Content-Length` says.
    pub content_length: Option<u64>,
    /// The fields but `Status` and those of a connection. In a box, to be used again.
    pub fields: Box<Fields>,
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CgiError {
    /// Over `max_header`.
    TooLarge,
    /// Over `max_fields`.
    TooManyFields,
    /// §6.3: a line that is no name, colon and value, or is continued on the next.
    BadField,
    /// A control character in a value.
    BadValue,
    /// §5: a whole HTTP response, of a script that parses no headers.
    NonParsed,
    /// §6.2: no field at all.
    Empty,
    /// §6.3: `Status`, `Location`, `Content-Type` or `Content-Length` twice and different.
    Repeated,
    /// §6.3.3: no three digits from 200 on.
    BadStatus,
    /// §6.3.2: not what a local redirect may name, or empty.
    BadLocation,
    /// No decimal number below 2^63.
    BadContentLength,
}

impl CgiError {
    /// The fault in a sentence, without its full stop.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::TooLarge => "the head of the application's response is too large",
            Self::TooManyFields => "the application's response has too many fields",
            Self::BadField => "a line of the application's head is not a field",
            Self::BadValue => "a field of the application's head has control characters",
            Self::NonParsed => "the application sent a status line of HTTP in place of CGI fields",
            Self::Empty => "the application's response has no fields",
            Self::Repeated => "the application's head has a field twice",
            Self::BadStatus => "the application's Status is not a final status of HTTP",
            Self::BadLocation => "the application's Location cannot be served",
            Self::BadContentLength => "the application's Content-Length is not a decimal number",
        }
    }
}

impl fmt::Display for CgiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for CgiError {}

/// Reads one head; remembers between calls how far it came.
#[derive(Debug, Default)]
pub struct CgiHeadParser {
    /// Where the first line starts that was not read.
    line: usize,
    /// Up to where that line was looked through.
    seen: usize,
    lines: usize,
    fields: Box<Fields>,
}

impl CgiHeadParser {
    /// One that writes into these fields, which have perhaps room from another head.
    #[must_use]
    pub fn new(mut fields: Box<Fields>) -> Self {
        fields.clear();
        Self {
            line: 0,
            seen: 0,
            lines: 0,
            fields,
        }
    }

    /// Reads on, and takes the head off the buffer when it is complete; what follows is the body.
    /// `None`: more bytes are needed. It decides at the latest with `max_header` + 1 bytes, and
    /// must not be asked again after it has. Lines may end with LF or CRLF.
    ///
    /// # Errors
    /// No such head may be passed on: 502.
    pub fn parse(
        &mut self,
        buf: &mut BytesMut,
        limits: &CgiLimits,
    ) -> Result<Option<CgiHead>, CgiError> {
        Ok(self.read(buf, limits)?.map(|(head, len)| {
            let _: Bytes = buf.split_to(len).freeze();
            head
        }))
    }

    /// As [`parse`](Self::parse), of bytes that are only looked at: those from the head's start on.
    /// With the head, its length.
    ///
    /// # Errors
    /// As there.
    pub fn read(
        &mut self,
        buf: &[u8],
        limits: &CgiLimits,
    ) -> Result<Option<(CgiHead, usize)>, CgiError> {
        loop {
            let unseen = buf.get(self.seen..).unwrap_or_default();
            let Some(len) = memchr(b'\n', unseen) else {
                self.seen = buf.len();
                let over = buf.len() > limits.max_header;
                return if over {
                    Err(CgiError::TooLarge)
                } else {
                    Ok(None)
                };
            };
            let end = self.seen + len;
            if end >= limits.max_header {
                return Err(CgiError::TooLarge);
            }
            let line = buf.get(self.line..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                let head = finish(std::mem::take(&mut self.fields))?;
                return Ok(Some((head, end + 1)));
            }
            self.lines += 1;
            if self.lines > limits.max_fields {
                return Err(CgiError::TooManyFields);
            }
            read_line(line, self.lines == 1, &mut self.fields)?;
            (self.line, self.seen) = (end + 1, end + 1);
        }
    }
}

fn read_line(line: &[u8], first: bool, fields: &mut Fields) -> Result<(), CgiError> {
    if first && line.starts_with(b"HTTP/") {
        return Err(CgiError::NonParsed);
    }
    let colon = memchr(b':', line);
    let (name, value) = colon
        .and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?)))
        .filter(|(name, _)| is_token(name))
        .ok_or(CgiError::BadField)?;
    fields.append(name, value).map_err(|error| match error {
        EditError::BadName => CgiError::BadField,
        EditError::BadValue => CgiError::BadValue,
        EditError::TooLarge => CgiError::TooLarge,
    })
}

fn finish(mut fields: Box<Fields>) -> Result<CgiHead, CgiError> {
    if fields.is_empty() {
        return Err(CgiError::Empty);
    }
    for name in [
        Known::Status,
        Known::Location,
        Known::ContentType,
        Known::ContentLength,
    ] {
        let mut all = fields.all(name);
        let (first, others) = (all.next(), all.clone().count());
        if all.any(|other| Some(other) != first) {
            return Err(CgiError::Repeated);
        }
        if let Some(first) = first.filter(|_| others > 0).map(<[u8]>::to_vec) {
            // Equal ones are reduced to one.
            fields.set(name, first).map_err(|_| CgiError::TooLarge)?;
        }
    }
    let stated = fields.get(Known::Status).map(read_status).transpose()?;
    let content_length = fields
        .get(Known::ContentLength)
        .map(read_length)
        .transpose()?;
    let kind = match fields.get(Known::Location) {
        Some(b"") => return Err(CgiError::BadLocation),
        // What starts with two slashes names another host to every browser.
        Some([b'/', rest @ ..]) if stated.is_none() && !rest.starts_with(b"/") => {
            if rest.iter().any(|b| !b.is_ascii_graphic() || *b == b'#') {
                return Err(CgiError::BadLocation);
            }
            Kind::LocalRedirect
        }
        Some(_) if stated.is_none_or(|status| status / 100 == 3) => Kind::ClientRedirect,
        _ => Kind::Document,
    };
    let default = if kind == Kind::ClientRedirect {
        302
    } else {
        200
    };
    fields.remove(Known::Status);
    fields.remove_hop_by_hop();
    Ok(CgiHead {
        status: stated.unwrap_or(default),
        kind,
        content_length,
        fields,
    })
}

fn read_status(value: &[u8]) -> Result<u16, CgiError> {
    let (digits, rest) = value.split_at_checked(3).ok_or(CgiError::BadStatus)?;
    let apart = rest.first().is_none_or(|&b| b == b' ' || b == b'\t');
    let status = number(digits).and_then(|status| u16::try_from(status).ok());
    status
        .filter(|status| apart && *status >= 200)
        .ok_or(CgiError::BadStatus)
}

fn read_length(value: &[u8]) -> Result<u64, CgiError> {
    let length = number(value).filter(|length| *length < 1 << 63);
    length.ok_or(CgiError::BadContentLength)
}

fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}
