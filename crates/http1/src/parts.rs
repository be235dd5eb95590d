//! Requests whose parts came by something else than HTTP/1, as FastCGI.
//!
//! As the fast reader of bytes ([`crate::parse`]) this takes what is in order and gives up at
//! anything else. Whoever gives the parts then writes them as a head and has that read
//! ([`HeadParser`](crate::HeadParser)), which says what is wrong: there is one set of rules. What
//! complete heads may not say is decided for both by [`crate::semantics`].

use bytes::BytesMut;
use forebay_fields::{Name, Received, is_token};

use crate::error::HeadError;
use crate::head::{Limits, RequestHead, Version};
use crate::method::Method;
use crate::parse::{Seen, is_target, offset, trimmed};
use crate::{scan, semantics};

/// The first line of a head has this much beside its method and its target.
const LINE_BYTES: usize = "  HTTP/1.1\r\n".len();

/// A request that is being put together.
pub struct RequestParts<'a> {
    head: &'a mut RequestHead,
    /// The lines of the fields, as they would have been received.
    lines: &'a mut BytesMut,
    limits: &'a Limits,
    seen: Seen,
    /// Nothing was given that it does not take.
    in_order: bool,
}

impl<'a> RequestParts<'a> {
    /// Makes it in `head`, which is cleared, with `lines` for the room of its fields: a buffer that
    /// is used again and again, and empty now.
    #[must_use]
    pub fn new(
        head: &'a mut RequestHead,
        lines: &'a mut BytesMut,
        limits: &'a Limits,
    ) -> RequestParts<'a> {
        debug_assert!(lines.is_empty());
        head.clear();
        lines.clear();
        RequestParts {
            head,
            lines,
            limits,
            seen: Seen::default(),
            in_order: true,
        }
    }

    /// Adds a field, behind those before it.
    #[inline]
    pub fn field(&mut self, name: Name<'_>, value: &[u8]) {
        let (known, name) = match name {
            Name::Known(known) => (Some(known), known.name().as_bytes()),
            // A field with `_` in its name is left out of a head, and counted.
            Name::Other(name) if is_token(name) && !name.contains(&b'_') => (None, name),
            Name::Other(_) => return self.in_order = false,
        };
        let most = self.limits.max_fields.min(Limits::MOST_FIELDS);
        if scan::control(value, 0).is_some() || self.head.fields.len() >= usize::from(most) {
            return self.in_order = false;
        }
        let start = self.lines.len();
        self.lines.extend_from_slice(name);
        self.lines.extend_from_slice(b": ");
        self.lines.extend_from_slice(value);
        self.lines.extend_from_slice(b"\r\n");
        let name_end = start + name.len();
        let behind = name_end + b": ".len();
        let (value_start, value_end) = trimmed(value, 0, value.len());
        let line = Received {
            start: offset(start),
            name_end: offset(name_end),
            value_start: offset(behind + value_start),
            value_end: offset(behind + value_end),
            end: offset(behind + value.len() + b"\r\n".len()),
        };
        if let Some(known) = known {
            self.seen.note(known);
        }
        self.head.fields.push_received(line, known);
    }

    /// Gives up: something is not as it usually is.
    pub fn give_up(&mut self) {
        self.in_order = false;
    }

    /// The request, in the head that was given. `None`: a part is not in order, or over a limit;
    /// the head is to be cleared.
    ///
    /// # Errors
    /// As [`HeadParser::request`](crate::HeadParser::request), for what is wrong with a request as a
    /// whole.
    pub fn finish(
        self,
        method: &[u8],
        target: &[u8],
        version: Version,
    ) -> Option<Result<(), HeadError>> {
        let line = method.len() + target.len() + LINE_BYTES;
        let in_order = self.in_order
            && is_target(target)
            && line <= self.limits.max_request_line as usize
            && self.lines.len() <= self.limits.max_header as usize;
        // Whatever was written must not be in the way of the next one.
        let lines = self.lines.split().freeze();
        if !in_order {
            return None;
        }
        let head = self.head;
        head.method = Method::new(method)?;
        head.target.push_str(std::str::from_utf8(target).ok()?);
        head.path_len = scan::question(target, 0, target.len());
        head.version = version;
        head.fields.adopt(lines, self.seen.present);
        Some(semantics::request(head, self.seen.repeated))
    }
}
