//! FastCGI 1.0, both roles, without I/O and without a clock; and the part of CGI
//! (RFC 3875) that travels inside it.
//!
//! ```text
//!   the web server                                       the application
//!   Client::begin, params, stdin, abort ── records ──▶  Server::poll ─▶ Request, Stdin …
//!   Client::poll ─▶ Stdout, End …       ◀── records ──  Server::stdout, stderr, end
//! ```
//!
//! Both are fed with what was received, in a `BytesMut` that is the caller's: `poll` takes off it
//! what it understood and says what happened. Data of streams are not taken off: an event says how
//! many bytes at the start of the buffer they are, and the caller takes ([`Client::take`]) as many
//! as it has room for. Asked again, `poll` says the same of the rest; a caller that takes nothing
//! and reads nothing more has told the other end to wait. That is all the flow control that
//! FastCGI has: it holds up all the requests of one connection.
//!
//! What is to be sent is written to a `Vec`, but for bodies: of them a [`Piece`] has the header,
//! says how many bytes of the caller's data follow it, and how much padding follows those.
//!
//! A fault ([`Fault`]) that spoils one request is an event, and the connection goes on; any other
//! is an error, and the connection is of no more use.
//!
//! *Invariant*: what comes out does not depend on how the input was cut into reads. *Invariant*:
//! nothing here panics on, or buffers without limit, what a peer sends: see [`Limits`].
//! *Invariant*: work is linear in the number of bytes received.
#![forbid(unsafe_code)]

mod cgi;
mod client;
mod fault;
mod ids;
mod params;
mod reader;
mod record;
mod records;
mod server;
mod variables;

pub use cgi::{CgiError, CgiHead, CgiHeadParser, CgiLimits, Kind};
pub use client::{Client, ClientEvent, Misuse, Values};
pub use fault::Fault;
pub use params::{Params, ParamsBuilder, ParamsIter, PushError};
pub use record::{
    HEADER_LEN, Header, MAX_CONTENT, PADDING, Piece, ProtocolStatus, RecordType, Role, VERSION,
};
pub use records::{Begin, End, Record, Records, read_values};
pub use server::{Capacity, Refusal, Server, ServerEvent};
pub use variables::{PathSplit, push_fields, script_candidates};

/// How much a peer may send or ask for. Every length that FastCGI has is bounded by one of these,
/// or by the 16 bits it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way at once on one connection.
    pub max_requests: u16,
    /// Bytes of the parameters of one request as they are encoded. A head may have 64 KiB of
    /// fields and a target of 16 KiB, which stands in several variables.
    pub max_params_bytes: u32,
    /// How many parameters one request may have: the fields of a head and what servers add.
    pub max_params: u16,
    /// Bytes of the name of a parameter.
    pub max_name: u32,
    /// Bytes of the value of a parameter.
    pub max_value: u32,
    /// Bytes of the content of a management record. The three variables that FastCGI 1.0 knows
    /// need 51. Such a record must be in the buffer as a whole before it is looked at.
    pub max_management: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: 100,
            max_params_bytes: 256 * 1024,
            max_params: 512,
            max_name: 1024,
            max_value: 64 * 1024,
            max_management: 1024,
        }
    }
}
