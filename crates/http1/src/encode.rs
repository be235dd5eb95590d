//! Heads and bodies: what goes out.
//!
//! Everything appends to a `Vec<u8>` that the caller keeps. Fields are written by
//! [`Fields::write_to`]; the empty line behind them is the caller's `\r\n`.

use forebay_fields::{Fields, append_decimal};

use crate::head::Version;
use crate::method::Method;

/// The chunk that ends a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

macro_rules! statuses {
    ($($status:literal $reason:literal,)+) => {
        /// The registered reason phrase of a status; empty for one that is not known.
        #[must_use]
        pub const fn reason_phrase(status: u16) -> &'static str {
            match status { $($status => $reason,)+ _ => "" }
        }

        const fn status_line(status: u16) -> Option<&'static [u8]> {
            match status {
                $($status => Some(
                    concat!("HTTP/1.1 ", $status, " ", $reason, "\r\n").as_bytes()
                ),)+
                _ => None,
            }
        }
    };
}

// IANA's HTTP Status Code Registry.
statuses! {
    100 "Continue",
    101 "Switching Protocols",
    102 "Processing",
    103 "Early Hints",
    200 "OK",
    201 "Created",
    202 "Accepted",
    203 "Non-Authoritative Information",
    204 "No Content",
    205 "Reset Content",
    206 "Partial Content",
    207 "Multi-Status",
    208 "Already Reported",
    226 "IM Used",
    300 "Multiple Choices",
    301 "Moved Permanently",
    302 "Found",
    303 "See Other",
    304 "Not Modified",
    305 "Use Proxy",
    307 "Temporary Redirect",
    308 "Permanent Redirect",
    400 "Bad Request",
    401 "Unauthorized",
    402 "Payment Required",
    403 "Forbidden",
    404 "Not Found",
    405 "Method Not Allowed",
    406 "Not Acceptable",
    407 "Proxy Authentication Required",
    408 "Request Timeout",
    409 "Conflict",
    410 "Gone",
    411 "Length Required",
    412 "Precondition Failed",
    413 "Content Too Large",
    414 "URI Too Long",
    415 "Unsupported Media Type",
    416 "Range Not Satisfiable",
    417 "Expectation Failed",
    418 "I'm a teapot",
    421 "Misdirected Request",
    422 "Unprocessable Content",
    423 "Locked",
    424 "Failed Dependency",
    425 "Too Early",
    426 "Upgrade Required",
    428 "Precondition Required",
    429 "Too Many Requests",
    431 "Request Header Fields Too Large",
    451 "Unavailable For Legal Reasons",
    500 "Internal Server Error",
    501 "Not Implemented",
    502 "Bad Gateway",
    503 "Service Unavailable",
    504 "Gateway Timeout",
    505 "HTTP Version Not Supported",
    506 "Variant Also Negotiates",
    507 "Insufficient Storage",
    508 "Loop Detected",
    510 "Not Extended",
    511 "Network Authentication Required",
}

/// Writes a status line of HTTP/1.1: whatever version the client speaks, ours is said
/// (RFC 9110 §2.5).
///
/// `reason` is what an upstream said; `None` stands for the registered one. One with control
/// characters is replaced by that as well, so that it cannot end the line. A status outside of
/// 100 to 999 is written as 500.
pub fn write_status_line(out: &mut Vec<u8>, status: u16, reason: Option<&[u8]>) {
    let (status, reason) = match status {
        100..=999 => (status, reason),
        _ => (500, None),
    };
    match (
        reason.filter(|reason| forebay_fields::is_value(reason)),
        status_line(status),
    ) {
        (None, Some(line)) => out.extend_from_slice(line),
        (Some(reason), _) if reason == reason_phrase(status).as_bytes() => {
            write_status_line(out, status, None);
        }
        (reason, _) => {
            out.extend_from_slice(b"HTTP/1.1 ");
            append_decimal(out, status.into());
            // RFC 9112 §4: the space is there even if the reason is not.
            out.push(b' ');
            out.extend_from_slice(reason.unwrap_or_default());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Writes a request line. `target` must be visible ASCII without spaces, as that of a received
/// head is; nothing is written and false returned if it is not, or if it is empty.
#[must_use]
pub fn write_request_line(
    out: &mut Vec<u8>,
    method: &Method,
    target: &[u8],
    version: Version,
) -> bool {
    if !crate::parse::is_target(target) {
        return false;
    }
    let method = method.as_str();
    out.reserve(method.len() + target.len() + 12);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.push(b' ');
    out.extend_from_slice(version.as_str().as_bytes());
    out.extend_from_slice(b"\r\n");
    true
}

/// Writes the line that announces a chunk of `size` bytes. The data and `\r\n` follow.
/// A size of 0 would end the body: nothing is written then.
pub fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    if size == 0 {
        return;
    }
    let mut line = [b'\n'; 18];
    let mut at = line.len() - 2;
    line[at] = b'\r';
    let mut rest = size;
    while rest != 0 {
        at -= 1;
        line[at] = b"0123456789abcdef"[rest & 0xf];
        rest >>= 4;
    }
    out.extend_from_slice(&line[at..]);
}

/// Writes a whole chunk; nothing for no data, because that would end the body.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        out.reserve(data.len() + 20);
        write_chunk_size(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the last chunk with its trailers.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &Fields) {
    out.extend_from_slice(b"0\r\n");
    trailers.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// A whole response without content that ends the connection, for where nothing better can be
/// made: the process is out of files or memory, or no site is known yet.
///
/// 503 says `Retry-After: 1`. Other statuses than 400, 408, 414, 431, 500, 501, 503, 505 become
/// 500. There is no `Date`: RFC 9110 §6.6.1 lets a server without a clock leave it out.
#[must_use]
pub const fn canned_response(status: u16) -> &'static [u8] {
    macro_rules! canned {
        ($status:literal, $fields:literal) => {
            concat!(
                "HTTP/1.1 ",
                $status,
                "\r\n",
                $fields,
                "Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .as_bytes()
        };
    }
    match status {
        400 => canned!("400 Bad Request", ""),
        408 => canned!("408 Request Timeout", ""),
        414 => canned!("414 URI Too Long", ""),
        431 => canned!("431 Request Header Fields Too Large", ""),
        501 => canned!("501 Not Implemented", ""),
        503 => canned!("503 Service Unavailable", "Retry-After: 1\r\n"),
        505 => canned!("505 HTTP Version Not Supported", ""),
        _ => canned!("500 Internal Server Error", ""),
    }
}
