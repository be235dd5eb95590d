//! Records: their headers and the bodies of fixed size (FastCGI 1.0 §3.3, §8).

use crate::fault::Fault;
use crate::params::read_len;

/// The version that every record has.
pub const VERSION: u8 = 1;
/// Bytes of a record's header, and of every body of fixed size.
pub const HEADER_LEN: usize = 8;
/// The most bytes of content that one record carries.
pub const MAX_CONTENT: usize = u16::MAX as usize;
/// What follows a content that is padded; the receiver ignores it.
pub const PADDING: [u8; u8::MAX as usize] = [0; u8::MAX as usize];
/// What one record carries of a long stream: as much as possible, without need of padding.
const FULL_CONTENT: u16 = u16::MAX - 7;
const KEEP_CONN: u8 = 1;

macro_rules! record_types {
    ($($(#[doc = $doc:literal])+ $variant:ident $number:literal,)+) => {
        /// The types of records (§8).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum RecordType { $($(#[doc = $doc])+ $variant = $number,)+ }

        impl RecordType {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The type of that number; `None` if FastCGI 1.0 has none.
            #[must_use]
            pub const fn of(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

record_types! {
    /// A request begins (§5.1).
    BeginRequest 1,
    /// The web server has no more use for a request (§5.4).
    AbortRequest 2,
    /// A request has ended (§5.5).
    EndRequest 3,
    /// A part of the parameters (§5.2).
    Params 4,
    /// A part of the request's body (§5.3).
    Stdin 5,
    /// A part of the response (§5.3).
    Stdout 6,
    /// A part of what the application has to say to the log (§5.3).
    Stderr 7,
    /// A part of the file that a Filter works on (§5.3).
    Data 8,
    /// Names of variables whose values are asked for (§4.1).
    GetValues 9,
    /// The answer to that (§4.1).
    GetValuesResult 10,
    /// The answer to a management record of a type that is not known (§4.2).
    UnknownType 11,
}

impl RecordType {
    /// Whether the record belongs to no request (§3.3).
    #[must_use]
    pub const fn is_management(self) -> bool {
        matches!(
            self,
            Self::GetValues | Self::GetValuesResult | Self::UnknownType
        )
    }
}

/// What an application is asked to be (§6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Answers requests, as a CGI program does.
    Responder,
    /// Says whether a request is allowed.
    Authorizer,
    /// Answers with a file that the web server sends along, changed.
    Filter,
}

impl Role {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Responder => 1,
            Self::Authorizer => 2,
            Self::Filter => 3,
        }
    }

    /// The role of that number.
    #[must_use]
    pub const fn of(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Responder),
            2 => Some(Self::Authorizer),
            3 => Some(Self::Filter),
            _ => None,
        }
    }
}

/// How a request ended, as far as FastCGI goes (§5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolStatus {
    /// As it should.
    RequestComplete,
    /// The application does one request at a time on a connection.
    CantMultiplex,
    /// The application has no room for another one.
    Overloaded,
    /// The application does not have that role.
    UnknownRole,
}

impl ProtocolStatus {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::RequestComplete => 0,
            Self::CantMultiplex => 1,
            Self::Overloaded => 2,
            Self::UnknownRole => 3,
        }
    }

    /// The status of that number.
    #[must_use]
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::RequestComplete),
            1 => Some(Self::CantMultiplex),
            2 => Some(Self::Overloaded),
            3 => Some(Self::UnknownRole),
            _ => None,
        }
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of its type: see [`RecordType::of`].
    pub kind: u8,
    /// The request it belongs to; 0 for those that belong to none.
    pub id: u16,
    /// Bytes of content that follow.
    pub content: u16,
    /// Bytes that follow the content and mean nothing.
    pub padding: u8,
}

impl Header {
    /// A header without padding.
    #[must_use]
    pub const fn new(kind: RecordType, id: u16, content: u16) -> Self {
        Self {
            kind: kind as u8,
            id,
            content,
            padding: 0,
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [id1, id0] = self.id.to_be_bytes();
        let [content1, content0] = self.content.to_be_bytes();
        let padding = self.padding;
        [VERSION, self.kind, id1, id0, content1, content0, padding, 0]
    }

    /// Reads it; the reserved byte is ignored.
    ///
    /// # Errors
    /// The version is not 1.
    pub const fn read(bytes: [u8; HEADER_LEN]) -> Result<Self, Fault> {
        let [version, kind, id1, id0, content1, content0, padding, _] = bytes;
        if version != VERSION {
            return Err(Fault::WrongVersion);
        }
        Ok(Self {
            kind,
            id: u16::from_be_bytes([id1, id0]),
            content: u16::from_be_bytes([content1, content0]),
            padding,
        })
    }
}

/// One record of a stream whose content is the caller's: `header`, then the first `content` bytes
/// of the data, then `padding` bytes of [`PADDING`] go out, all of them or the connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the record has been counted as sent"]
pub struct Piece {
    /// The header's bytes.
    pub header: [u8; HEADER_LEN],
    /// How many of the offered bytes this record carries.
    pub content: usize,
    /// How many bytes of padding follow.
    pub padding: usize,
}

impl Piece {
    /// A record for the first of `len` bytes; at most `most` of them, and padded to a multiple of
    /// 8 if asked for (§3.3 recommends it; nobody is known who gains by it).
    pub(crate) fn new(kind: RecordType, id: u16, len: usize, most: u16, pad: bool) -> Self {
        let content = u16::try_from(len).unwrap_or(FULL_CONTENT).min(most);
        let rest = u8::try_from(content % 8).unwrap_or(0);
        let padding = if pad { (8 - rest) % 8 } else { 0 };
        let header = Header {
            kind: kind as u8,
            id,
            content,
            padding,
        };
        Self {
            header: header.to_bytes(),
            content: content.into(),
            padding: padding.into(),
        }
    }

    /// The bytes of padding.
    #[must_use]
    pub fn padding(&self) -> &'static [u8] {
        PADDING.get(..self.padding).unwrap_or_default()
    }
}

/// Writes the stream of parameters, with its end. A pair goes on in another record only if it is
/// longer than one: PHP reads each record for itself, and breaks off where a pair is cut.
pub(crate) fn write_params(id: u16, mut block: &[u8], out: &mut Vec<u8>) {
    while !block.is_empty() {
        let (mut pairs, behind) = block.split_at(whole_pairs(block, MAX_CONTENT));
        while !pairs.is_empty() {
            let piece = Piece::new(RecordType::Params, id, pairs.len(), u16::MAX, false);
            let (now, rest) = pairs.split_at(piece.content);
            out.extend_from_slice(&piece.header);
            out.extend_from_slice(now);
            pairs = rest;
        }
        block = behind;
    }
    write_end(RecordType::Params, id, out);
}

/// How long the first pairs of a block are that have room in `most` bytes, at least one pair.
fn whole_pairs(block: &[u8], most: usize) -> usize {
    if block.len() <= most {
        return block.len();
    }
    let mut end = 0;
    while let Some(len) = block.get(end..).and_then(pair_len) {
        let next = end.saturating_add(len);
        if next > most && end > 0 {
            return end;
        }
        if next >= most {
            return next.min(block.len());
        }
        end = next;
    }
    block.len()
}

/// How long the first pair is, its lengths included.
fn pair_len(block: &[u8]) -> Option<usize> {
    let mut rest = block;
    let mut len = || read_len(&mut rest).ok().map(u64::from);
    let sum = len()? + len()?;
    usize::try_from(sum)
        .ok()?
        .checked_add(block.len() - rest.len())
}

/// Writes the empty record that ends a stream (§3.3); the same as a record without content.
pub(crate) fn write_end(kind: RecordType, id: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&Header::new(kind, id, 0).to_bytes());
}

pub(crate) fn write_begin(id: u16, role: Role, keep_conn: bool, out: &mut Vec<u8>) {
    let [role1, role0] = role.number().to_be_bytes();
    let flags = if keep_conn { KEEP_CONN } else { 0 };
    write_fixed(
        RecordType::BeginRequest,
        id,
        [role1, role0, flags, 0, 0, 0, 0, 0],
        out,
    );
}

/// The number of the role, and whether the connection is kept.
pub(crate) fn read_begin(body: [u8; HEADER_LEN]) -> (u16, bool) {
    let [role1, role0, flags, ..] = body;
    (u16::from_be_bytes([role1, role0]), flags & KEEP_CONN != 0)
}

pub(crate) fn write_end_request(
    id: u16,
    app_status: u32,
    status: ProtocolStatus,
    out: &mut Vec<u8>,
) {
    let [a3, a2, a1, a0] = app_status.to_be_bytes();
    let body = [a3, a2, a1, a0, status.number(), 0, 0, 0];
    write_fixed(RecordType::EndRequest, id, body, out);
}

/// The application's status, and how the request ended.
pub(crate) fn read_end_request(body: [u8; HEADER_LEN]) -> Result<(u32, ProtocolStatus), Fault> {
    let [a3, a2, a1, a0, status, ..] = body;
    let status = ProtocolStatus::of(status).ok_or(Fault::UnknownProtocolStatus)?;
    Ok((u32::from_be_bytes([a3, a2, a1, a0]), status))
}

pub(crate) fn write_unknown_type(kind: u8, out: &mut Vec<u8>) {
    let body = [kind, 0, 0, 0, 0, 0, 0, 0];
    write_fixed(RecordType::UnknownType, 0, body, out);
}

fn write_fixed(kind: RecordType, id: u16, body: [u8; HEADER_LEN], out: &mut Vec<u8>) {
    out.extend_from_slice(&Header::new(kind, id, 8).to_bytes());
    out.extend_from_slice(&body);
}
