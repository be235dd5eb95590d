//! Heads: bytes in, [`RequestHead`] or [`ResponseHead`] out.
//!
//! Two readers look at the bytes. The *fast* one is `httparse` (vectorised) followed by checks of
//! what it lets pass; it says complete, partial or refused. The *exact* one ([`crate::diagnose`])
//! goes byte by byte; it runs only when the fast one did not say "complete", and says which fault
//! comes first. Complete heads then go through [`crate::semantics`].
//!
//! ```text
//!            complete                        fault
//!   fast ───────────────▶ semantics ───────────────────────▶ HeadError
//!    │  ▲                    └─▶ Complete                        ▲
//!    │  └────────────── the end of the head was seen ──┐         │
//!    └─ partial, refused ─▶ exact ─▶ Partial: wait ────┘   fault │
//!                             └──────────────────────────────────┘
//! ```
//!
//! A head that trickles in is not parsed again with each read: only the new bytes are searched
//! for the end of the head. The exact reader looks again when the buffer has doubled, or when a
//! limit is passed. So the work stays linear, and a fault is told early.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use forebay_fields::{Fields, Known, KnownSet, Received};

use crate::diagnose::{self, StartLine, Verdict};
use crate::error::HeadError;
use crate::head::{Limits, RequestHead, ResponseHead, Version};
use crate::method::Method;
use crate::semantics;

/// How far the parser has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is complete; it was taken off the buffer, and what follows it stays there.
    Complete,
    /// More bytes are needed. The buffer is as it was (but for an empty line before a request).
    Partial,
}

/// Parses one head after the other; remembers between calls how far it looked.
///
/// One per direction and connection, or one per head: a new one is as good as one that has just
/// said [`Progress::Complete`]. After an error it must not be asked again.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadParser {
    /// Bytes in which no end of the head was found.
    scanned: usize,
    /// When the buffer is longer than this, the exact reader looks again.
    look_again: usize,
    /// The one empty line that may precede a request was dropped.
    skipped_line: bool,
}

impl HeadParser {
    /// A parser that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing of a head was received, so that an end of the stream here is no fault.
    #[must_use]
    pub fn is_idle(&self, buf: &[u8]) -> bool {
        // RFC 9112 §2.2: an empty line before a request is nothing.
        buf.is_empty() || (buf == b"\r" && !self.skipped_line)
    }

    /// Parses a request's head from the start of `buf` into `head`, which is cleared.
    ///
    /// Call it when bytes have arrived, with all that were not taken yet. It decides at the
    /// latest when `buf` holds [`Limits::max_head`] bytes.
    ///
    /// # Errors
    /// The head is malformed, ambiguous or too large: answer [`HeadError::status`], then close.
    pub fn request(
        &mut self,
        buf: &mut BytesMut,
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<Progress, HeadError> {
        if !self.skip_empty_line(buf) || !self.is_worth_a_look(buf) {
            return Ok(Progress::Partial);
        }
        head.clear();
        let fast = fast_request(buf, limits, head);
        let Some(end) = self.settle(fast, buf, limits, StartLine::Request)? else {
            return Ok(Progress::Partial);
        };
        head.base = buf.split_to(end.head).freeze();
        head.fields.adopt(head.base.clone());
        semantics::request(head, end.repeated)?;
        Ok(Progress::Complete)
    }

    /// Parses a response's head from the start of `buf` into `head`, which is cleared.
    /// `method` is that of the request: it decides whether there is a body.
    ///
    /// Interim responses (1xx) are heads of their own: see [`ResponseHead::is_interim`].
    ///
    /// # Errors
    /// The head is malformed, ambiguous or too large: the connection is of no more use.
    pub fn response(
        &mut self,
        buf: &mut BytesMut,
        limits: &Limits,
        method: &Method,
        head: &mut ResponseHead,
    ) -> Result<Progress, HeadError> {
        if !self.is_worth_a_look(buf) {
            return Ok(Progress::Partial);
        }
        head.clear();
        let fast = fast_response(buf, limits, head);
        let Some(end) = self.settle(fast, buf, limits, StartLine::Response)? else {
            return Ok(Progress::Partial);
        };
        head.base = buf.split_to(end.head).freeze();
        head.fields.adopt(head.base.clone());
        semantics::response(head, method, end.repeated)?;
        Ok(Progress::Complete)
    }

    /// Drops one empty line before a request (RFC 9112 §2.2: some clients send one after a body).
    /// False if it cannot be told yet whether there is one.
    #[inline]
    fn skip_empty_line(&mut self, buf: &mut BytesMut) -> bool {
        if buf.first() == Some(&b'\r') && !self.skipped_line {
            match buf.get(1) {
                None => return false,
                Some(b'\n') => {
                    self.skipped_line = true;
                    bytes::Buf::advance(buf, 2);
                }
                Some(_) => {}
            }
        }
        !buf.is_empty()
    }

    /// Whether a new look can find anything else than the last one did.
    #[inline]
    fn is_worth_a_look(&mut self, buf: &[u8]) -> bool {
        if self.scanned == 0 {
            return !buf.is_empty();
        }
        // The end may have been cut: `\n\r` | `\n`.
        let new = buf
            .get(self.scanned.saturating_sub(2)..)
            .unwrap_or_default();
        self.scanned = buf.len();
        buf.len() > self.look_again || has_empty_line(new)
    }

    /// What the fast reader's answer means.
    #[inline]
    fn settle(
        &mut self,
        fast: Fast,
        buf: &[u8],
        limits: &Limits,
        start: StartLine,
    ) -> Result<Option<End>, HeadError> {
        if let Fast::Complete(end) = fast {
            debug_assert!(matches!(
                diagnose::head(buf, limits, start),
                Verdict::Complete
            ));
            *self = Self::default();
            return Ok(Some(end));
        }
        self.undecided(buf, limits, start).map(|()| None)
    }

    #[cold]
    fn undecided(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        start: StartLine,
    ) -> Result<(), HeadError> {
        match diagnose::head(buf, limits, start) {
            Verdict::Fault(fault) => Err(fault),
            Verdict::Partial { limit } => {
                self.scanned = buf.len();
                self.look_again = buf.len().saturating_mul(2).max(FIRST_LOOK).min(limit);
                Ok(())
            }
            Verdict::Complete => {
                // The two readers disagree, which is our mistake; refusing is the safe side.
                debug_assert!(false, "refused without a fault: {}", buf.escape_ascii());
                Err(match start {
                    StartLine::Request => HeadError::MalformedRequestLine,
                    StartLine::Response => HeadError::MalformedStatusLine,
                    StartLine::None => HeadError::BadFieldName,
                })
            }
        }
    }
}

/// Below this many bytes a partial head is looked at only when its end was seen.
const FIRST_LOOK: usize = 512;

/// Whether a line end is followed by an empty line. A bare LF counts: it is the exact reader's
/// business to refuse it.
fn has_empty_line(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, &byte)| {
        byte == b'\n'
            && match bytes.get(at + 1) {
                Some(b'\n') => true,
                Some(b'\r') => bytes.get(at + 2) == Some(&b'\n'),
                _ => false,
            }
    })
}

/// What the fast reader says.
enum Fast {
    Complete(End),
    Partial,
    /// Something is wrong, or over a limit; the exact reader knows what.
    Refused,
}

/// Where a complete head ends.
#[derive(Clone, Copy)]
struct End {
    /// Bytes of the whole head.
    head: usize,
    /// Known names that occur more than once.
    repeated: KnownSet,
}

type Room<'b> = [MaybeUninit<httparse::Header<'b>>; Limits::MOST_FIELDS as usize];

fn room_for(limits: &Limits) -> usize {
    usize::from(limits.max_fields.min(Limits::MOST_FIELDS))
}

fn fast_request(buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Fast {
    // `httparse` would skip any number of empty lines.
    if matches!(buf.first(), Some(b'\r' | b'\n')) {
        return Fast::Refused;
    }
    let mut room: Room = [const { MaybeUninit::uninit() }; Limits::MOST_FIELDS as usize];
    let mut request = httparse::Request::new(&mut []);
    let end = match request.parse_with_uninit_headers(buf, &mut room[..room_for(limits)]) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Fast::Partial,
        Err(_) => return Fast::Refused,
    };
    let (Some(name), Some(target)) = (request.method, request.path) else {
        return Fast::Refused;
    };
    let Some(method) = Method::new(name.as_bytes()) else {
        return Fast::Refused;
    };
    head.method = method;
    head.version = if request.version == Some(0) {
        Version::Http10
    } else {
        Version::Http11
    };

    // `method SP target SP HTTP/1.x CRLF`: with all lengths known, only the line end is open.
    let target_start = name.len() + 1;
    let target_end = target_start + target.len();
    let line_end = target_end + " HTTP/1.1\r\n".len();
    if !is_target(target.as_bytes())
        || buf.get(line_end - 2..line_end) != Some(b"\r\n")
        || line_end > limits.max_request_line as usize
    {
        return Fast::Refused;
    }
    head.target.set(target_start, target_end);
    let lines = Lines {
        buf,
        start: line_end,
        end,
        limits,
    };
    lines.push(
        request.headers,
        &mut head.fields,
        Some(&mut head.dropped_fields),
    )
}

fn fast_response(buf: &[u8], limits: &Limits, head: &mut ResponseHead) -> Fast {
    if matches!(buf.first(), Some(b'\r' | b'\n')) {
        return Fast::Refused;
    }
    let mut room: Room = [const { MaybeUninit::uninit() }; Limits::MOST_FIELDS as usize];
    let mut response = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    let parsed = config.parse_response_with_uninit_headers(
        &mut response,
        buf,
        &mut room[..room_for(limits)],
    );
    let end = match parsed {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Fast::Partial,
        Err(_) => return Fast::Refused,
    };
    head.status = response.code.unwrap_or(0);
    head.version = if response.version == Some(0) {
        Version::Http10
    } else {
        Version::Http11
    };

    // `HTTP/1.x SP status [SP reason] CRLF`. The reason is measured here, because `httparse`
    // does not give one with bytes over 0x7f.
    let code_end = "HTTP/1.1 200".len();
    let reason_start = code_end + usize::from(buf.get(code_end) == Some(&b' '));
    let rest = buf.get(reason_start..).unwrap_or_default();
    let Some(reason_len) = rest.iter().position(|&b| b == b'\r' || b == b'\n') else {
        return Fast::Refused;
    };
    let reason_end = reason_start + reason_len;
    let line_end = reason_end + 2;
    if head.status < 100
        || buf.get(reason_end..line_end) != Some(b"\r\n")
        || line_end > limits.max_request_line as usize
    {
        return Fast::Refused;
    }
    head.reason.set(reason_start, reason_end);
    let lines = Lines {
        buf,
        start: line_end,
        end,
        limits,
    };
    lines.push(response.headers, &mut head.fields, None)
}

/// Parses a trailer section, which is field lines and an empty line, from the start of `buf`.
///
/// `Ok(None)` means that it is not complete. Fields that trailers may not have are left out.
pub(crate) fn trailers(
    parser: &mut HeadParser,
    buf: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<Fields>, HeadError> {
    if !parser.is_worth_a_look(buf) {
        return Ok(None);
    }
    let mut fields = Fields::new();
    let mut room = [httparse::EMPTY_HEADER; Limits::MOST_FIELDS as usize];
    let fast = match httparse::parse_headers(buf, &mut room[..room_for(limits)]) {
        Ok(httparse::Status::Complete((end, headers))) => Lines {
            buf,
            start: 0,
            end,
            limits,
        }
        .push(headers, &mut fields, Some(&mut 0)),
        Ok(httparse::Status::Partial) => Fast::Partial,
        Err(_) => Fast::Refused,
    };
    let Some(end) = parser.settle(fast, buf, limits, StartLine::None)? else {
        return Ok(None);
    };
    fields.adopt(buf.split_to(end.head).freeze());
    fields.remove_all(KnownSet::FORBIDDEN_IN_TRAILERS);
    Ok(Some(fields))
}

/// The field lines of a head that `httparse` has taken apart.
#[derive(Clone, Copy)]
struct Lines<'a> {
    buf: &'a [u8],
    /// The first field line.
    start: usize,
    /// Behind the empty line.
    end: usize,
    limits: &'a Limits,
}

impl Lines<'_> {
    /// Finds out where each line lies, by adding up lengths, and so checks what `httparse` lets
    /// pass: every line must end with CRLF, the last one must be CRLF alone.
    ///
    /// With `dropped`, lines with `_` in their name are counted there and not pushed.
    #[inline]
    fn push(
        self,
        headers: &[httparse::Header<'_>],
        fields: &mut Fields,
        mut dropped: Option<&mut u16>,
    ) -> Fast {
        if self.end - self.start > self.limits.max_header as usize + 2 {
            return Fast::Refused;
        }
        let mut repeated = KnownSet::EMPTY;
        let mut at = self.start;
        for header in headers {
            let name = header.name.as_bytes();
            let name_end = at + name.len();
            let mut colon = name_end;
            if dropped.is_none() {
                colon = self.skip_white_space(colon);
            }
            let value_start = self.skip_white_space(colon + 1);
            let value_end = value_start + header.value.len();
            let line_end = self.skip_white_space(value_end) + 2;
            if self.buf.get(colon) != Some(&b':')
                || self.buf.get(line_end - 2..line_end) != Some(b"\r\n")
            {
                return Fast::Refused;
            }
            let known = Known::of(name);
            if let Some(known) = known {
                if fields.present().contains(known) {
                    repeated.insert(known);
                }
            } else if name.contains(&b'_')
                && let Some(dropped) = dropped.as_deref_mut()
            {
                *dropped = dropped.saturating_add(1);
                at = line_end;
                continue;
            }
            if colon == name_end {
                let line = Received {
                    start: offset(at),
                    name_end: offset(name_end),
                    value_start: offset(value_start),
                    value_end: offset(value_end),
                    end: offset(line_end),
                };
                fields.push_received(line, known);
            } else if fields.append(name, header.value).is_err() {
                // RFC 9112 §5.1: white space before the colon is removed from a response that is
                // passed on, so this line cannot be one that is sent as it was received.
                return Fast::Refused;
            }
            at = line_end;
        }
        if self.buf.get(at..self.end) != Some(b"\r\n") {
            return Fast::Refused;
        }
        Fast::Complete(End {
            head: self.end,
            repeated,
        })
    }

    #[inline]
    fn skip_white_space(&self, mut at: usize) -> usize {
        while let Some(b' ' | b'\t') = self.buf.get(at) {
            at += 1;
        }
        at
    }
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a head is at most `u32` + `u32` + 4 bytes, \
    and `Fields::adopt` drops a line that does not fit"
)]
fn offset(position: usize) -> u32 {
    position as u32
}

/// Whether a target has only visible ASCII without `#`: `httparse` lets `#` and 0x80.. pass.
#[inline]
pub(crate) fn is_target(target: &[u8]) -> bool {
    // Without a branch per byte, so that the compiler can do 16 or 32 at a time.
    target
        .iter()
        .fold(true, |ok, &b| ok & (b > b' ') & (b < 0x7f) & (b != b'#'))
}
