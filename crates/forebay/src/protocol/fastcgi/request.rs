//! Parameters into a request: they are written as the head of HTTP/1.1 that they are made of, and
//! read by the parser that reads all heads. So what is refused there is refused here, with the same
//! status, and no second set of rules can differ from the first.

use std::net::SocketAddr;

use bytes::BytesMut;
use forebay_fastcgi::Params;
use forebay_http1::{HeadParser, Progress, RequestHead};

use crate::exchange::{Exchange, Fault, Reason};
use crate::protocol::h1::{self, Link};

/// Fields that are about the client's connection to the web server, or are told otherwise. Not
/// `Connection`: what it names goes no further, and not every web server sees to that.
const SKIPPED: [&[u8]; 12] = [
    b"CONTENT_LENGTH",
    b"CONTENT_TYPE",
    b"EXPECT",
    b"HOST",
    b"HTTP2_SETTINGS",
    b"KEEP_ALIVE",
    b"PROXY",
    b"PROXY_CONNECTION",
    b"TE",
    b"TRAILER",
    b"TRANSFER_ENCODING",
    b"UPGRADE",
];

/// Fills in the exchange. Gives the length of the body, if it was told.
pub fn read(link: &Link, params: &Params, exchange: &mut Exchange) -> Result<Option<u64>, Fault> {
    let mut buf = BytesMut::with_capacity(1024);
    let has_length = write(params, &mut buf)?;
    let limits = link.listener.with_served(|served| served.limits);
    let mut head = RequestHead::default();
    let progress = HeadParser::default()
        .request(&mut buf, &limits, &mut head)
        .map_err(h1::refused)?;
    if progress != Progress::Complete || !buf.is_empty() {
        return Err(malformed("the parameters make no request"));
    }
    let len = h1::take(&mut head, exchange);
    exchange.request.offers_upgrade = false;
    exchange.protocol = protocol(params);
    let dropped = u64::from(head.dropped_fields);
    link.worker.counters.fields_dropped.add(dropped);
    if is_believed(link) {
        name_client(params, exchange);
    }
    Ok(if has_length { len } else { None })
}

/// What a request is refused with whose parameters FastCGI itself refuses.
pub fn refused(fault: forebay_fastcgi::Fault) -> Fault {
    use forebay_fastcgi::Fault as Its;
    let reason = match fault {
        Its::ParamsTooLarge | Its::TooManyParams | Its::NameTooLong | Its::ValueTooLong => {
            Reason::HeadTooLarge
        }
        _ => Reason::BadRequest,
    };
    Fault::with(reason, fault.sentence())
}

fn malformed(why: &'static str) -> Fault {
    Fault::with(Reason::BadRequest, why)
}

/// Writes the head; says whether there is a length among it.
fn write(params: &Params, out: &mut BytesMut) -> Result<bool, Fault> {
    let method = params.get(b"REQUEST_METHOD").unwrap_or_default();
    if method.is_empty() {
        return Err(malformed("there is no REQUEST_METHOD"));
    }
    word(method, out)?;
    out.extend_from_slice(b" ");
    match params.get(b"REQUEST_URI") {
        Some(uri) if !uri.is_empty() => word(uri, out)?,
        _ => write_target(params, out),
    }
    let mut hosts = params.iter().filter(|(name, _)| *name == b"HTTP_HOST");
    let host = hosts.next().map(|(_, host)| host);
    if hosts.next().is_some() {
        return Err(malformed("there are several HTTP_HOST"));
    }
    let host = host.filter(|host| !host.is_empty());
    let name = params.get(b"SERVER_NAME").filter(|name| !name.is_empty());
    match (host, name) {
        (Some(host), _) => {
            out.extend_from_slice(b" HTTP/1.1\r\n");
            field(b"Host", host, out)?;
        }
        (None, Some(name)) => {
            out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
            value(name, out)?;
            let port = params.get(b"SERVER_PORT").unwrap_or_default();
            if !matches!(port, b"" | b"80" | b"443") {
                out.extend_from_slice(b":");
                value(port, out)?;
            }
            out.extend_from_slice(b"\r\n");
        }
        // Only the first version has requests without.
        (None, None) => out.extend_from_slice(b" HTTP/1.0\r\n"),
    }
    let mut has_length = false;
    for (name, value) in params {
        match name {
            b"CONTENT_TYPE" if !value.is_empty() => field(b"Content-Type", value, out)?,
            b"CONTENT_LENGTH" if !value.is_empty() => {
                field(b"Content-Length", value, out)?;
                has_length = true;
            }
            _ => {
                if let Some(name) = name.strip_prefix(b"HTTP_")
                    && !SKIPPED.contains(&name)
                {
                    write_name(name, out)?;
                    field(b"", value, out)?;
                }
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(has_length)
}

/// The target of a web server that does not tell it: what it has made of it (RFC 3875 §3.3).
fn write_target(params: &Params, out: &mut BytesMut) {
    let script = params.get(b"SCRIPT_NAME").unwrap_or_default();
    let rest = params.get(b"PATH_INFO").unwrap_or_default();
    if script.is_empty() && rest.is_empty() {
        out.extend_from_slice(b"/");
    }
    for byte in script.iter().chain(rest) {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'/'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b':'
            | b'@'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b';'
            | b'=' => out.extend_from_slice(&[*byte]),
            byte => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                let digit = |half: u8| HEX[usize::from(half)];
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    let query = params.get(b"QUERY_STRING").unwrap_or_default();
    // It is as the client wrote it; what is no query there is refused like any other target.
    if !query.is_empty() && query.iter().all(u8::is_ascii_graphic) {
        out.extend_from_slice(b"?");
        out.extend_from_slice(query);
    }
}

/// A part of the first line.
fn word(text: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
    if !text.iter().all(u8::is_ascii_graphic) {
        return Err(malformed(
            "there is a space or a control character in the request line",
        ));
    }
    out.extend_from_slice(text);
    Ok(())
}

fn field(name: &[u8], text: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    value(text, out)?;
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// A value that ends where it ends: with a line's end in it, it would be two fields.
fn value(text: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
    if text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(malformed("there is a control character in a field"));
    }
    out.extend_from_slice(text);
    Ok(())
}

/// `X_FORWARDED_FOR` was `X-Forwarded-For`; web servers take away those that had `_` themselves.
fn write_name(name: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
    if name
        .iter()
        .any(|byte| matches!(byte, b':' | b' ' | b'\t' | b'\r' | b'\n' | 0))
    {
        return Err(malformed("there is a field with a wrong name"));
    }
    let mut begins = true;
    for byte in name {
        let written = match byte {
            b'_' => b'-',
            byte if begins => byte.to_ascii_uppercase(),
            byte => byte.to_ascii_lowercase(),
        };
        begins = *byte == b'_';
        out.extend_from_slice(&[written]);
    }
    Ok(())
}

fn protocol(params: &Params) -> &'static str {
    match params.get(b"SERVER_PROTOCOL") {
        Some(b"HTTP/1.0") => "HTTP/1.0",
        Some(b"HTTP/2.0" | b"HTTP/2") => "HTTP/2.0",
        Some(b"HTTP/3.0" | b"HTTP/3") => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// Whether the web server is believed who its client is.
fn is_believed(link: &Link) -> bool {
    let address = link.remote.get().address.ip();
    link.listener.with_served(|served| {
        let trust = served.trust.as_ref();
        trust.is_some_and(|trust| trust.believes(address))
    })
}

fn name_client(params: &Params, exchange: &mut Exchange) {
    let remote = &mut exchange.remote;
    let address = |ip: &[u8], port: &[u8]| {
        let text = |name| params.get(name).and_then(|it| std::str::from_utf8(it).ok());
        let ip = text(ip)?.parse().ok()?;
        let port = text(port).and_then(|port| port.parse().ok());
        Some(SocketAddr::new(ip, port.unwrap_or(0)))
    };
    if let Some(client) = address(b"REMOTE_ADDR", b"REMOTE_PORT") {
        remote.address = forebay_sys::net::to_unmapped(client);
    }
    if let Some(local) = address(b"SERVER_ADDR", b"SERVER_PORT") {
        remote.local = forebay_sys::net::to_unmapped(local);
    }
    let https = params.get(b"HTTPS").unwrap_or_default();
    let scheme = params.get(b"REQUEST_SCHEME").unwrap_or_default();
    remote.tls = https.eq_ignore_ascii_case(b"on") || https == b"1" || scheme == b"https";
}
