//! What a line says, and how bytes that a remote has chosen are kept from saying anything else.

use std::io::Write as _;

use forebay_config::{Part, Template, Variable};
use forebay_fields::{Known, append_decimal};

use super::{Format, Log, Redact};
use crate::exchange::{Exchange, append_ip, append_variable};

/// Appends the line of an exchange that is over, without its end.
pub fn write(log: &Log, exchange: &Exchange, out: &mut Vec<u8>) {
    match &log.format {
        Format::Combined => combined(exchange, &log.redact, out),
        Format::Json => json(exchange, &log.redact, out),
        Format::Template(template) => expand(template, exchange, &log.redact, out),
    }
}

/// `192.0.2.1 - USER [21/Nov/2026:03:04:05 +0000] "GET / HTTP/1.1" 200 5 "REFERER" "USER AGENT"`
fn combined(exchange: &Exchange, redact: &Redact, out: &mut Vec<u8>) {
    let request = &exchange.request;
    // Who comes by a Unix socket has no address.
    match exchange.has_client_ip() {
        true => append_ip(exchange.client_ip(), out),
        false => out.push(b'-'),
    }
    out.extend_from_slice(b" - ");
    match &exchange.user {
        None => out.push(b'-'),
        Some(user) => push_word(out, user),
    }
    out.extend_from_slice(b" [");
    exchange.worker.with_date(|date| {
        // From "Sat, 21 Nov 2026 03:04:05 GMT".
        for (part, behind) in [(5..7, b'/'), (8..11, b'/'), (12..16, b':'), (17..25, b' ')] {
            out.extend_from_slice(&date[part]);
            out.push(behind);
        }
    });
    out.extend_from_slice(b"+0000] \"");
    push_escaped(out, request.method.as_str().as_bytes());
    out.push(b' ');
    redact.push_url(request.original_uri().as_bytes(), out, push_escaped);
    out.push(b' ');
    out.extend_from_slice(exchange.protocol.as_bytes());
    out.extend_from_slice(b"\" ");
    append_decimal(out, u64::from(exchange.outcome.status));
    out.push(b' ');
    append_decimal(out, exchange.outcome.bytes);
    out.extend_from_slice(b" \"");
    match request.fields.get(Known::Referer) {
        Some(referer) => redact.push_url(referer, out, push_escaped),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\" \"");
    push_escaped(out, request.fields.get(Known::UserAgent).unwrap_or(b"-"));
    out.push(b'"');
}

/// One object; what is absent is left out.
fn json(exchange: &Exchange, redact: &Redact, out: &mut Vec<u8>) {
    let request = &exchange.request;
    out.extend_from_slice(b"{\"time\":\"");
    push_time(exchange, out);
    let _ = write!(out, "\",\"id\":\"{:016x}\"", exchange.id);
    if exchange.has_client_ip() {
        member(out, "client_ip", |out| append_ip(exchange.client_ip(), out));
    }
    out.extend_from_slice(b",\"method\":\"");
    push_json(out, request.method.as_str().as_bytes());
    out.extend_from_slice(b"\",\"scheme\":\"");
    out.extend_from_slice(exchange.scheme().as_bytes());
    out.extend_from_slice(b"\",\"host\":\"");
    push_json(out, request.host().as_bytes());
    out.extend_from_slice(b"\",\"uri\":\"");
    redact.push_url(request.original_uri().as_bytes(), out, push_json);
    out.extend_from_slice(b"\",\"protocol\":\"");
    out.extend_from_slice(exchange.protocol.as_bytes());
    out.extend_from_slice(b"\",\"status\":");
    append_decimal(out, u64::from(exchange.outcome.status));
    out.extend_from_slice(b",\"bytes\":");
    append_decimal(out, exchange.outcome.bytes);
    out.extend_from_slice(b",\"duration\":");
    push_seconds(exchange.duration_us(), out);
    out.extend_from_slice(b",\"site\":\"");
    push_json(out, exchange.site_name().as_bytes());
    out.push(b'"');
    if let Some(user) = &exchange.user {
        member(out, "user", |out| push_json(out, user));
    }
    if let Some(cached) = exchange.outcome.cached {
        member(out, "cache", |out| {
            out.extend_from_slice(cached.how.name().as_bytes());
        });
    }
    if let Some(peer) = exchange.peer_label() {
        member(out, "peer", |out| push_json(out, peer.as_bytes()));
    }
    if let Some(referer) = request.fields.get(Known::Referer) {
        member(out, "referer", |out| {
            redact.push_url(referer, out, push_json);
        });
    }
    if let Some(agent) = request.fields.get(Known::UserAgent) {
        member(out, "user_agent", |out| push_json(out, agent));
    }
    if let Some(fault) = exchange.outcome.fault {
        member(out, "fault", |out| {
            out.extend_from_slice(fault.name().as_bytes());
        });
    }
    out.push(b'}');
}

fn member(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    value(out);
    out.push(b'"');
}

fn expand(template: &Template, exchange: &Exchange, redact: &Redact, out: &mut Vec<u8>) {
    let mut value = Vec::new();
    for part in &template.parts {
        let variable = match part {
            Part::Text(text) => {
                out.extend_from_slice(text.as_bytes());
                continue;
            }
            Part::Var(variable) => variable,
        };
        match variable {
            Variable::Status => append_decimal(out, u64::from(exchange.outcome.status)),
            Variable::Bytes => append_decimal(out, exchange.outcome.bytes),
            Variable::Duration => push_seconds(exchange.duration_us(), out),
            Variable::Time => push_time(exchange, out),
            variable => {
                value.clear();
                append_variable(variable, exchange, None, &mut value);
                match variable {
                    Variable::Uri | Variable::OriginalUri => {
                        redact.push_url(&value, out, push_escaped);
                    }
                    Variable::Header(name) if &**name == "referer" => {
                        redact.push_url(&value, out, push_escaped);
                    }
                    Variable::QueryString => redact.push_query(&value, out, push_escaped),
                    Variable::Query(name) => redact.push_value(name, &value, out, push_escaped),
                    _ => push_escaped(out, &value),
                }
            }
        }
    }
}

/// The time, as RFC 3339 has it, in seconds: `2026-11-21T03:04:05Z`.
pub fn push_time(exchange: &Exchange, out: &mut Vec<u8>) {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    exchange.worker.with_date(|date| {
        let month = MONTHS.chunks(3).position(|month| *month == date[8..11]);
        out.extend_from_slice(&date[12..16]);
        let _ = write!(out, "-{:02}-", month.map_or(0, |month| month + 1));
        out.extend_from_slice(&date[5..7]);
        out.push(b'T');
        out.extend_from_slice(&date[17..25]);
        out.push(b'Z');
    });
}

/// Seconds to the microsecond: `0.000143`.
fn push_seconds(us: u64, out: &mut Vec<u8>) {
    append_decimal(out, us / 1_000_000);
    out.push(b'.');
    let mut rest = us % 1_000_000;
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

/// What stands for itself in a line: visible ASCII and the blank, but for quotes and backslashes.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

/// Where the first byte is that does not stand for itself.
fn plain_len(bytes: &[u8]) -> usize {
    // Most lines have none, and a browser's name alone is a hundred bytes: eight at a time cost a
    // quarter of one by one.
    let eights = bytes.chunks_exact(8).map_while(|eight| {
        let eight = u64::from_ne_bytes(eight.try_into().ok()?);
        are_plain(eight).then_some(8)
    });
    let sure: usize = eights.sum();
    let rest = &bytes[sure..];
    let first = rest.iter().position(|byte| !PLAIN[usize::from(*byte)]);
    sure + first.unwrap_or(rest.len())
}

/// Whether each of eight bytes stands for itself, as [`PLAIN`] says of one. A byte is marked by its
/// highest bit; a borrow can mark one too many only next to one that is marked.
fn are_plain(eight: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = ONES << 7;
    let is_zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let below_blank = eight.wrapping_sub(ONES * 0x20) & !eight;
    let quote = is_zero(eight ^ (ONES * u64::from(b'"')));
    let backslash = is_zero(eight ^ (ONES * u64::from(b'\\')));
    let delete = is_zero(eight ^ (ONES * 0x7f));
    (eight | below_blank | quote | backslash | delete) & HIGHEST == 0
}

/// Appends bytes so that they can end neither a line nor a quoted text, nor drive a terminal:
/// `\x22`, as nginx and Apache write it.
pub fn push_escaped(out: &mut Vec<u8>, mut bytes: &[u8]) {
    loop {
        let (plain, rest) = bytes.split_at(plain_len(bytes));
        out.extend_from_slice(plain);
        let Some((byte, rest)) = rest.split_first() else {
            return;
        };
        push_hex(out, b"\\x", *byte);
        bytes = rest;
    }
}

/// As [`push_escaped`], spaces too: it is a field of a line of which spaces divide the fields.
fn push_word(out: &mut Vec<u8>, bytes: &[u8]) {
    for (at, part) in bytes.split(|byte| *byte == b' ').enumerate() {
        if at > 0 {
            push_hex(out, b"\\x", b' ');
        }
        push_escaped(out, part);
    }
}

fn push_hex(out: &mut Vec<u8>, before: &[u8], byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(before);
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

/// Appends bytes as the inside of a JSON string, all in ASCII: characters that turn the direction
/// of text or drive a terminal are not only below U+0020. What is not UTF-8 is written as `\xFF`,
/// its backslash escaped.
pub fn push_json(out: &mut Vec<u8>, bytes: &[u8]) {
    if plain_len(bytes) == bytes.len() {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                ' '..='~' => out.push(u8::try_from(char).unwrap_or(b'?')),
                other => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
            }
        }
        for byte in chunk.invalid() {
            push_hex(out, b"\\\\x", *byte);
        }
    }
}
