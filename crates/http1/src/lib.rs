//! HTTP/1.x, without I/O and without a clock: bytes in → heads and parts of bodies; heads and
//! parts of bodies → bytes.
//!
//! ```text
//!            HeadParser::request / response          BodyDecoder::poll / decode
//! BytesMut ──────────────────────────────▶ *Head ──framing──▶ BodyDecoder ─▶ Data … End
//!              │ Partial: read more                               │ NeedMore: read more
//!              ▼ HeadError: answer its status, close              ▼ BodyError: break off
//! ```
//!
//! Order of calls for one connection: [`HeadParser::request`] until [`Progress::Complete`];
//! [`BodyDecoder::new`] with the head's framing; [`BodyDecoder::decode`] until [`Part::End`];
//! again. A head that was refused leaves the stream in no known state: answer and close.
//!
//! A request that came by another protocol is put together of its parts: [`RequestParts`].
//!
//! Whatever could be read in two ways is refused, because the server behind us might read it in
//! the other one (request smuggling). What is refused, and with which status, is one closed enum
//! each: [`HeadError`] and [`BodyError`].
//!
//! *Invariant*: the result does not depend on how the input was cut into reads: the same head,
//! the same body, the same error. *Invariant*: work is linear in the number of bytes received.
//! *Invariant*: nothing here panics on, or buffers without limit, what a peer sends.

mod authority;
mod body;
mod encode;
mod error;
mod exact;
mod head;
mod method;
mod parse;
mod parts;
mod scan;
mod semantics;

pub use authority::{Authority, parse_port};
pub use body::{BodyDecoder, BodyError, MAX_CHUNK_EXCESS, MAX_CHUNK_EXTENSION, Part, Step};
pub use encode::{
    LAST_CHUNK, canned_response, reason_phrase, write_chunk, write_chunk_size, write_last_chunk,
    write_request_line, write_status_line,
};
pub use error::HeadError;
pub use head::{Framing, Limits, RequestHead, ResponseHead, Scheme, TargetForm, Version};
pub use method::{Method, OtherMethod};
pub use parse::{HeadParser, Progress};
pub use parts::RequestParts;
