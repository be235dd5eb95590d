//! Heads: bytes in, [`RequestHead`] or [`ResponseHead`] out.
//!
//! Two readers look at the bytes. The *fast* one takes only what is complete and in order, and
//! gives up at anything else. The *exact* one ([`crate::exact`]) goes byte by byte; it runs only
//! when the fast one gave up, and says whether bytes are missing or which fault comes first. It
//! goes on where it stopped, so that a head that trickles in costs each byte once, and a fault is
//! told as soon as it is there. Complete heads then go through [`crate::semantics`].
//!
//! (`httparse` was tried as the fast reader. Its checks are not ours — bare LF, `#` and bytes over
//! 0x7e in the target pass — and its row of headers had to be walked again to find each line's
//! place: 630 ns for a browser's head where this one takes 350, on the same loaded machine. The
//! tests still compare the two.)
//!
//! ```text
//!            complete                       fault
//!   fast ───────────────▶ semantics ────────────────▶ HeadError
//!    │ ▲                     └─▶ Complete                 ▲
//!    │ └──────── complete ──┐                             │
//!    └─ gives up ─▶ exact ──┴── fault ────────────────────┘
//!                   ▲   │
//!                   └───┴─ Partial: more bytes
//! ```

use bytes::BytesMut;
use forebay_fields::{Fields, Known, KnownSet, Received, is_token};

use crate::error::HeadError;
use crate::exact::{Exact, StartLine, Verdict};
use crate::head::{Limits, RequestHead, ResponseHead, Version};
use crate::method::{Method, OtherMethod};
use crate::{scan, semantics};

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
    /// Has begun if the head was not complete when it was first looked at.
    exact: Exact,
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
        if !self.skip_empty_line(buf) || !self.is_worth_a_look(buf, limits, StartLine::Request)? {
            return Ok(Progress::Partial);
        }
        head.clear();
        let fast = fast_request(buf, limits, head);
        let Some(end) = self.settle(fast, buf, limits, StartLine::Request)? else {
            return Ok(Progress::Partial);
        };
        head.fields
            .adopt(buf.split_to(end.head).freeze(), end.seen.present);
        semantics::request(head, end.seen.repeated)?;
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
        if !self.is_worth_a_look(buf, limits, StartLine::Response)? {
            return Ok(Progress::Partial);
        }
        head.clear();
        let fast = fast_response(buf, limits, head);
        let Some(end) = self.settle(fast, buf, limits, StartLine::Response)? else {
            return Ok(Progress::Partial);
        };
        head.fields
            .adopt(buf.split_to(end.head).freeze(), end.seen.present);
        semantics::response(head, method, end.seen.repeated)?;
        Ok(Progress::Complete)
    }

    /// Drops one empty line before a request (RFC 9112 §2.2: some clients send one after a body).
    /// False if it cannot be told yet whether there is one.
    #[inline]
    fn skip_empty_line(&mut self, buf: &mut BytesMut) -> bool {
        if buf.first() == Some(&b'\r') && !self.skipped_line && !self.exact.has_begun() {
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

    /// Whether the fast reader should look: the first time, and then when the head is complete.
    #[inline]
    fn is_worth_a_look(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        start: StartLine,
    ) -> Result<bool, HeadError> {
        if !self.exact.has_begun() {
            return Ok(!buf.is_empty());
        }
        match self.exact.read(buf, limits, start) {
            Verdict::Complete(_) => Ok(true),
            Verdict::Partial => Ok(false),
            Verdict::Fault(fault) => Err(fault),
        }
    }

    /// What the fast reader's answer means; `None` that bytes are missing.
    #[inline]
    fn settle(
        &mut self,
        fast: Option<End>,
        buf: &[u8],
        limits: &Limits,
        start: StartLine,
    ) -> Result<Option<End>, HeadError> {
        if let Some(end) = fast {
            debug_assert_eq!(
                Exact::default().read(buf, limits, start),
                Verdict::Complete(end.head),
                "{}",
                buf.escape_ascii()
            );
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
        self.exact = Exact::default();
        match self.exact.read(buf, limits, start) {
            Verdict::Fault(fault) => Err(fault),
            Verdict::Partial => Ok(()),
            Verdict::Complete(_) => {
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

/// Where a complete head ends.
#[derive(Clone, Copy)]
struct End {
    /// Bytes of the whole head.
    head: usize,
    seen: Seen,
}

/// The names of a head.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Known names that occur.
    pub(crate) present: KnownSet,
    /// Known names that occur more than once.
    pub(crate) repeated: KnownSet,
}

impl Seen {
    #[inline(always)]
    pub(crate) fn note(&mut self, known: Known) {
        if self.present.contains(known) {
            self.repeated.insert(known);
        }
        self.present.insert(known);
    }
}

/// `None` means: not complete, or wrong, or over a limit; the exact reader knows what.
#[inline]
fn fast_request(buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Option<End> {
    let method_end = if buf.starts_with(b"GET ") {
        head.method = Method::Get;
        3
    } else {
        let longest = OtherMethod::MAX_LEN + 1;
        let end = buf.iter().take(longest).position(|&b| b == b' ')?;
        head.method = Method::new(buf.get(..end)?)?;
        end
    };
    let target_start = method_end + 1;
    let target_end = scan::target_end(buf, target_start)?;
    let line_end = target_end + " HTTP/1.1\r\n".len();
    head.version = match buf.get(target_end..line_end)? {
        b" HTTP/1.1\r\n" => Version::Http11,
        b" HTTP/1.0\r\n" => Version::Http10,
        _ => return None,
    };
    let target = std::str::from_utf8(buf.get(target_start..target_end)?).ok()?;
    if target.is_empty() || line_end > limits.max_request_line as usize {
        return None;
    }
    head.target.push_str(target);
    head.path_len = scan::question(buf, target_start, target_end) - target_start;
    FieldLines {
        buf,
        start: line_end,
        limits,
        kind: StartLine::Request,
    }
    .read(&mut head.fields, &mut head.dropped_fields)
}

/// `None` as for requests.
#[inline]
fn fast_response(buf: &[u8], limits: &Limits, head: &mut ResponseHead) -> Option<End> {
    head.version = match buf.first_chunk::<9>()? {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return None,
    };
    let digits: &[u8; 3] = buf.get(9..)?.first_chunk()?;
    head.status = digits.iter().try_fold(0, |status, &digit| {
        digit
            .is_ascii_digit()
            .then(|| status * 10 + u16::from(digit - b'0'))
    })?;
    let reason_start = if buf.get(12) == Some(&b' ') { 13 } else { 12 };
    let reason_end = scan::control(buf, reason_start)?;
    let line_end = reason_end + 2;
    if head.status < 100
        || (reason_start == 12 && reason_end != 12)
        || buf.get(reason_end..line_end)? != b"\r\n"
        || line_end > limits.max_request_line as usize
    {
        return None;
    }
    head.reason
        .extend_from_slice(buf.get(reason_start..reason_end)?);
    FieldLines {
        buf,
        start: line_end,
        limits,
        kind: StartLine::Response,
    }
    .read(&mut head.fields, &mut 0)
}

/// Parses a trailer section, which is field lines and an empty line, from the start of `buf`.
///
/// `Ok(None)` means that it is not complete. Fields that trailers may not have are left out.
pub(crate) fn trailers(
    parser: &mut HeadParser,
    buf: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<Fields>, HeadError> {
    if !parser.is_worth_a_look(buf, limits, StartLine::None)? {
        return Ok(None);
    }
    let mut fields = Fields::new();
    let lines = FieldLines {
        buf,
        start: 0,
        limits,
        kind: StartLine::None,
    };
    let fast = lines.read(&mut fields, &mut 0);
    let Some(end) = parser.settle(fast, buf, limits, StartLine::None)? else {
        return Ok(None);
    };
    fields.adopt(buf.split_to(end.head).freeze(), end.seen.present);
    fields.remove_all(KnownSet::FORBIDDEN_IN_TRAILERS);
    Ok(Some(fields))
}

/// The field lines of a head.
#[derive(Clone, Copy)]
struct FieldLines<'a> {
    buf: &'a [u8],
    /// The first field line.
    start: usize,
    limits: &'a Limits,
    /// What they belong to. In anything but a response fields with `_` in their name are dropped.
    kind: StartLine,
}

impl FieldLines<'_> {
    /// Reads all lines and the empty one. Those that were left out are counted in `dropped`.
    ///
    /// This loop is where the time of parsing goes. What keeps it short: two vectorised searches
    /// per line, and no look at the characters of a name that is known.
    #[inline]
    fn read(self, fields: &mut Fields, dropped: &mut u16) -> Option<End> {
        let most = self.limits.max_fields.min(Limits::MOST_FIELDS);
        let mut seen = Seen::default();
        let mut at = self.start;
        let mut count = 0;
        while self.buf.get(at..at + 2)? != b"\r\n" {
            count += 1;
            if count > most {
                return None;
            }
            let line = self.line(at)?;
            at = line.end as usize;
            let name = self.slice(line.start, line.name_end);
            if let Some(known) = Known::of(name) {
                seen.note(known);
                fields.push_received(line, Some(known));
                continue;
            }
            match self.unknown(name) {
                Unknown::Keep => fields.push_received(line, None),
                Unknown::Drop => *dropped = dropped.saturating_add(1),
                Unknown::Respell(name) => {
                    if let Some(known) = Known::of(name) {
                        seen.note(known);
                    }
                    let value = self.slice(line.value_start, line.value_end);
                    fields.append(name, value).ok()?;
                }
                Unknown::Bad => return None,
            }
        }
        let within = at - self.start <= self.limits.max_header as usize;
        within.then_some(End { head: at + 2, seen })
    }

    /// Finds the parts of the line that starts at `at`. The name is not looked at: it may even
    /// have a line end in it.
    #[inline]
    fn line(&self, at: usize) -> Option<Received> {
        let name_end = scan::colon(self.buf, at)?;
        let value_end = scan::control(self.buf, name_end + 1)?;
        let end = value_end + 2;
        if self.buf.get(value_end..end)? != b"\r\n" {
            return None;
        }
        let (value_start, value_end) = trimmed(self.buf, name_end + 1, value_end);
        Some(Received {
            start: offset(at),
            name_end: offset(name_end),
            value_start: offset(value_start),
            value_end: offset(value_end),
            end: offset(end),
        })
    }

    #[inline]
    fn slice(&self, start: u32, end: u32) -> &[u8] {
        self.buf
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }

    fn unknown<'n>(&self, name: &'n [u8]) -> Unknown<'n> {
        if self.kind == StartLine::Response {
            // RFC 9112 §5.1: white space before the colon is removed from a response that is
            // passed on, so such a line cannot be one that is sent as it was received.
            let bare = name.trim_ascii_end();
            return match (is_token(bare), name.len() - bare.len()) {
                (true, 0) => Unknown::Keep,
                (true, _) if name[bare.len()..].iter().all(|b| is_space(Some(b))) => {
                    Unknown::Respell(bare)
                }
                _ => Unknown::Bad,
            };
        }
        match is_token(name) {
            true if name.contains(&b'_') => Unknown::Drop,
            true => Unknown::Keep,
            false => Unknown::Bad,
        }
    }
}

/// What becomes of a field whose name is not one of [`Known`].
enum Unknown<'a> {
    Keep,
    Drop,
    /// It is this name with white space behind it.
    Respell(&'a [u8]),
    Bad,
}

/// Where what lies between `start` and `end` begins and ends without white space around it.
#[inline]
pub(crate) fn trimmed(buf: &[u8], mut start: usize, mut end: usize) -> (usize, usize) {
    while start < end && is_space(buf.get(start)) {
        start += 1;
    }
    while start < end && is_space(buf.get(end - 1)) {
        end -= 1;
    }
    (start, end)
}

#[inline]
fn is_space(byte: Option<&u8>) -> bool {
    // What most bytes are not is found by one comparison.
    byte.is_some_and(|byte| *byte <= b' ' && matches!(byte, b' ' | b'\t'))
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a head is at most `u32` + `u32` + 4 bytes long; were it more, `Fields` would show \
              wrong slices, but none out of bounds"
)]
pub(crate) const fn offset(position: usize) -> u32 {
    position as u32
}

/// Whether a target has only visible ASCII without `#`, and at least one of it.
pub(crate) fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && scan::target_end(target, 0).is_none()
}
