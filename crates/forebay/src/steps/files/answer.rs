//! From a file that was found to a response: the fields that describe it, preconditions, ranges.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use forebay_fields::{Fields, Known, KnownSet, append_decimal};
use forebay_http1::Method;
use forebay_sys::clock;
use forebay_sys::files::Facts;
use smallvec::SmallVec;

use super::parts::Parts;
use crate::exchange::conditional::{self, Decision, Validators};
use crate::exchange::{Body, Coding, Exchange, FileRange, Response};
use crate::files::{Disk, Kept, KeptBody, OpenFile};

/// A file changed so recently that the next change might carry the same time: kernels count in
/// ticks of up to 10 ms, FAT in 2 s. Its tag is weak (RFC 9110 §8.8.1) and it is not kept.
const UNSETTLED_SECONDS: u64 = 2;

/// What of a description a 304 leaves out (RFC 9110 §15.4.5).
const CONTENT: KnownSet = KnownSet::of(&[
    Known::ContentType,
    Known::ContentEncoding,
    Known::AcceptRanges,
    Known::LastModified,
]);

/// The last second that a date of HTTP can say: the year 9999's.
const MAX_SECONDS: u64 = 253_402_300_799;

/// A file as its response describes it.
pub struct Description {
    etag: SmallVec<[u8; 24]>,
    pub last_modified: Option<u64>,
    now: u64,
    /// What has been read of it can be told from what comes next.
    pub is_settled: bool,
}

/// What is said of a file beside what can be seen of it.
pub struct Said<'a> {
    /// Its media type, whatever coding it is in.
    pub kind: &'a str,
    pub coding: Option<Coding>,
    /// Other clients may get it in another coding.
    pub varies: bool,
    pub cache_control: Option<&'a str>,
}

impl Description {
    /// Of a file with these facts, now.
    pub fn new(facts: &Facts) -> Description {
        let now = clock::coarse_unix_seconds();
        let modified = u64::try_from(facts.mtime_seconds()).ok();
        // A time in the future is never that of a change to come, either.
        let is_settled = modified.is_none_or(|time| time.abs_diff(now) > UNSETTLED_SECONDS);
        Description {
            etag: etag(facts, is_settled),
            // RFC 9110 §8.8.2.1: not later than the Date.
            last_modified: modified.map(|time| time.min(now).min(MAX_SECONDS)),
            now,
            is_settled,
        }
    }

    /// Writes it into `fields`, with what else is said.
    pub fn write(&self, said: &Said<'_>, fields: &mut Fields) {
        let mut set = |known: Known, value: &[u8]| {
            // All of our own making; one that could not stand in a field would be left out.
            let kept = fields.append(known, value);
            debug_assert!(kept.is_ok(), "{known:?}");
        };
        set(Known::ContentType, said.kind.as_bytes());
        if let Some(coding) = said.coding {
            set(Known::ContentEncoding, coding.name().as_bytes());
        }
        if let Some(time) = self.last_modified {
            let time = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time));
            set(Known::LastModified, time.as_bytes());
        }
        set(Known::Etag, &self.etag);
        set(Known::AcceptRanges, b"bytes");
        if let Some(value) = said.cache_control {
            set(Known::CacheControl, value.as_bytes());
        }
        if said.varies {
            set(Known::Vary, b"Accept-Encoding");
        }
    }

    fn validators(&self) -> Validators<'_> {
        Validators {
            etag: Some(&self.etag),
            last_modified: self.last_modified,
            made: None,
            now: self.now,
        }
    }
}

/// The entity tag: a number made of all that tells two versions of a file apart. The inode is among
/// it, because images are built with one time for all files; it is mixed in, because in clear it
/// would say something of the machine.
fn etag(facts: &Facts, is_strong: bool) -> SmallVec<[u8; 24]> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut mixed = 0;
    for word in [facts.len, facts.mtime_ns.cast_unsigned(), facts.inode] {
        mixed = mix(mixed ^ word);
    }
    let mut tag = SmallVec::new();
    if !is_strong {
        tag.extend_from_slice(b"W/");
    }
    tag.push(b'"');
    let digits = mixed.to_be_bytes();
    tag.extend(
        digits
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|n| HEX[usize::from(n)]),
    );
    tag.push(b'"');
    tag
}

/// The finaliser of splitmix64: every bit of the input changes half of the output's.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The answer from what is kept in memory, if its content is: no system call and, without
/// conditions, no allocation.
#[inline]
pub fn from_memory(exchange: &mut Exchange, kept: &Kept) -> Option<Response> {
    let content = kept.body.as_ref()?;
    let mut response = Response::new(exchange, 200);
    (*response.fields).clone_from(&kept.fields);
    let len = kept.facts.len;
    // What nearly all ask for, apart from the rest: a response is a big thing to hand around.
    if !is_conditional(exchange) && exchange.request.method == Method::Get {
        response.body = match content {
            KeptBody::Bytes(bytes) => bytes.clone().into(),
            KeptBody::Open(file) => open(file, 0..len),
        };
        return Some(response);
    }
    let validators = Validators {
        etag: kept.fields.get(Known::Etag),
        last_modified: kept.last_modified,
        made: None,
        now: clock::coarse_unix_seconds(),
    };
    let decision = decide(exchange, &validators, len);
    let part = |part| match content {
        KeptBody::Bytes(bytes) => slice(bytes, &part),
        KeptBody::Open(file) => open(file, part),
    };
    Some(finish(exchange, response, decision, len, part))
}

/// A part of an open file.
pub fn open(file: &Rc<OpenFile>, part: Range<u64>) -> Body {
    if part.is_empty() {
        return Body::Empty;
    }
    Body::File(FileRange {
        file: file.clone(),
        start: part.start,
        end: part.end,
    })
}

/// A part of a body that is in memory.
pub fn slice(body: &Bytes, part: &Range<u64>) -> Body {
    let end = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
    body.slice(end(part.start)..end(part.end)).into()
}

/// What of a file that is not in memory is to be sent.
pub fn decision(exchange: &Exchange, description: &Description, len: u64) -> Decision {
    if is_conditional(exchange) {
        decide(exchange, &description.validators(), len)
    } else {
        Decision::Whole
    }
}

#[inline]
fn is_conditional(exchange: &Exchange) -> bool {
    exchange
        .request
        .fields
        .present()
        .intersects(conditional::FIELDS)
}

fn decide(exchange: &Exchange, validators: &Validators<'_>, len: u64) -> Decision {
    let request = &exchange.request;
    conditional::decide(request.method, &request.fields, validators, Some(len))
}

/// Completes a response that has the description's fields; `body` gives a part of the file.
pub fn finish(
    exchange: &mut Exchange,
    mut response: Response,
    decision: Decision,
    len: u64,
    body: impl Fn(Range<u64>) -> Body,
) -> Response {
    match decision {
        Decision::Whole if exchange.request.method == Method::Head => {
            response.announced_len = Some(len);
        }
        Decision::Whole => response.body = body(0..len),
        Decision::Parts(parts) if parts.len() > 1 => {
            response.status = 206;
            let kind = response.fields.get(Known::ContentType).unwrap_or_default();
            let (parts, kind) = Parts::new(&exchange.worker, &parts, len, kind, body);
            // No Content-Range: each part has its own (RFC 9110 §15.3.7.2).
            response.set(Known::ContentType, &kind);
            response.body = Body::Stream(Box::new(parts));
        }
        Decision::Parts(parts) => {
            let part = parts.first().cloned().unwrap_or(0..len);
            response.status = 206;
            response.set(Known::ContentRange, &content_range(Some(&part), len));
            response.body = body(part);
        }
        Decision::NotModified => {
            response.status = 304;
            response.fields.remove_all(CONTENT);
        }
        Decision::Failed => return instead(exchange, response, 412),
        Decision::Unsatisfiable => {
            response = instead(exchange, response, 416);
            response.set(Known::ContentRange, &content_range(None, len));
        }
    }
    response
}

fn instead(exchange: &mut Exchange, unused: Response, status: u16) -> Response {
    exchange.worker.give_back_fields(unused.fields);
    Response::page(exchange, status)
}

/// RFC 9110 §14.4.
pub fn content_range(part: Option<&Range<u64>>, len: u64) -> Vec<u8> {
    let mut value = b"bytes ".to_vec();
    match part {
        Some(part) => {
            append_decimal(&mut value, part.start);
            value.push(b'-');
            append_decimal(&mut value, part.end.saturating_sub(1));
        }
        None => value.push(b'*'),
    }
    value.push(b'/');
    append_decimal(&mut value, len);
    value
}

/// What reading a whole file comes to.
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// Some of it is not in memory.
    NotInMemory,
    /// It is no longer what its facts say.
    Changed,
}

/// Reads a whole file that has these facts, through `read`: (offset, buffer, how much) → how much
/// came, `None` if it would have to wait.
pub fn read_whole(
    facts: &Facts,
    file: &std::fs::File,
    mut read: impl FnMut(u64, &mut BytesMut, usize) -> io::Result<Option<usize>>,
) -> io::Result<Content> {
    let len = usize::try_from(facts.len).map_err(io::Error::other)?;
    let mut buffer = BytesMut::with_capacity(len);
    while buffer.len() < len {
        let at = buffer.len() as u64;
        let left = len - buffer.len();
        match read(at, &mut buffer, left)? {
            None => return Ok(Content::NotInMemory),
            Some(0) => return Ok(Content::Changed),
            Some(_) => {}
        }
    }
    // What was read before a change and after it would be a file that never was.
    if Facts::of(file)? == *facts {
        Ok(Content::Whole(buffer.freeze()))
    } else {
        Ok(Content::Changed)
    }
}

/// Reads a whole file that is in memory.
pub fn read_whole_now(disk: &dyn Disk, file: &std::fs::File, facts: &Facts) -> io::Result<Content> {
    read_whole(facts, file, |at, buffer, left| {
        disk.read_now(file, at, buffer, left)
    })
}
