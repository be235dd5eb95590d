//! Parameters into a request.
//!
//! Those of nearly all requests are in order, and the request is made of them straight away
//! ([`straight`]). Where anything is not, they are written as the head of HTTP/1.1 that they are made
//! of, and read by the parser that reads all heads ([`by_head`]). So what is refused there is refused
//! here, with the same status, and no second set of rules can differ from the first.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use forebay_fastcgi::Params;
use forebay_fields::{Known, KnownSet, Name};
use forebay_http1::{
    HeadError, HeadParser, Limits, Progress, RequestHead, RequestParts, Version, parse_port,
};

use crate::exchange::{Exchange, Fault, Reason};
use crate::protocol::h1::{self, Link};

/// Fields that are about the client's connection to the web server, or are told otherwise. Not
/// `Connection`: what it names goes no further, and not every web server sees to that.
const SKIPPED: KnownSet = KnownSet::of(&[
    Known::ContentLength,
    Known::ContentType,
    Known::Expect,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::Proxy,
    Known::ProxyConnection,
    Known::Te,
    Known::Trailer,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// The longest name of a field that is not known and is not written in a head.
const SHORT_NAME: usize = 64;

/// What parameters say that are no fields; of several with one name the first counts.
#[derive(Default)]
struct Told<'a> {
    method: Option<&'a [u8]>,
    uri: Option<&'a [u8]>,
    script_name: Option<&'a [u8]>,
    path_info: Option<&'a [u8]>,
    query: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    https: Option<&'a [u8]>,
    remote_addr: Option<&'a [u8]>,
    remote_port: Option<&'a [u8]>,
    server_addr: Option<&'a [u8]>,
    server_port: Option<&'a [u8]>,
    server_name: Option<&'a [u8]>,
    /// There is a length among them.
    has_length: bool,
}

/// What a parameter is.
enum Param<'a> {
    /// It says something about the request, or nothing.
    Told,
    Host,
    Field(Known),
    /// A field that is not known; its name as it is behind `HTTP_`.
    Other(&'a [u8]),
}

/// Fills in the exchange. Gives the length of the body, if it was told.
pub fn read(link: &Link, params: &Params, exchange: &mut Exchange) -> Result<Option<u64>, Fault> {
    let limits = link.listener.with_served(|served| served.limits);
    let read = link.with_desk(|desk| {
        let head = &mut desk.head;
        let room = params.len_bytes();
        let told = link
            .worker
            .with_lines(room, |lines| make(params, &limits, lines, head))?;
        let len = h1::take(head, exchange);
        let dropped = u64::from(head.dropped_fields);
        link.worker.counters.fields_dropped.add(dropped);
        head.clear();
        Ok::<_, Fault>((told, len))
    });
    let (told, len) = read.unwrap_or_else(|| Err(Reason::Internal.into()))?;
    exchange.request.offers_upgrade = false;
    exchange.protocol = told.protocol();
    if is_believed(link) {
        told.name_client(exchange);
    }
    Ok(if told.has_length { len } else { None })
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

/// Makes a head of the parameters; `lines` is room for its fields.
fn make<'a>(
    params: &'a Params,
    limits: &Limits,
    lines: &mut BytesMut,
    head: &mut RequestHead,
) -> Result<Told<'a>, Fault> {
    let (told, made) = straight(params, limits, lines, head);
    match made {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(h1::refused(error)),
        None => by_head(params, &told, limits, head)?,
    }
    Ok(told)
}

// --- Straight away ---------------------------------------------------------------------------

/// `None`: something is not as it usually is.
fn straight<'a>(
    params: &'a Params,
    limits: &Limits,
    lines: &mut BytesMut,
    head: &mut RequestHead,
) -> (Told<'a>, Option<Result<(), HeadError>>) {
    let mut told = Told::default();
    let mut parts = RequestParts::new(head, lines, limits);
    let mut has_host = false;
    for (name, value) in params {
        match told.note(name, value) {
            Param::Told => {}
            Param::Host if value.is_empty() || has_host => parts.give_up(),
            Param::Host => {
                has_host = true;
                parts.field(Name::Known(Known::Host), value);
            }
            Param::Field(known) => parts.field(Name::Known(known), value),
            Param::Other(name) if name.len() > SHORT_NAME => parts.give_up(),
            Param::Other(name) => {
                let mut room = [0; SHORT_NAME];
                for (to, byte) in room.iter_mut().zip(spelled(name)) {
                    *to = byte;
                }
                let (name, _) = room.split_at(name.len());
                parts.field(Name::Other(name), value);
            }
        }
    }
    if !has_host {
        parts.give_up();
    }
    let method = told.method.unwrap_or_default();
    let uri = told.uri.unwrap_or_default();
    let made = parts.finish(method, uri, Version::Http11);
    (told, made)
}

impl<'a> Told<'a> {
    /// Notes what a parameter says, if it is no field.
    #[inline(always)]
    fn note(&mut self, name: &'a [u8], value: &'a [u8]) -> Param<'a> {
        if let [b'H', b'T', b'T', b'P', b'_', name @ ..] = name {
            return match Known::of_variable(name) {
                None => Param::Other(name),
                Some(Known::Host) => Param::Host,
                Some(known) if SKIPPED.contains(known) => Param::Told,
                Some(known) => Param::Field(known),
            };
        }
        // By lengths first: names differ in them more often than not, and many are looked at.
        let place = match name.len() {
            5 if name == b"HTTPS" => &mut self.https,
            9 if name == b"PATH_INFO" => &mut self.path_info,
            11 => match name {
                b"REQUEST_URI" => &mut self.uri,
                b"SCRIPT_NAME" => &mut self.script_name,
                b"REMOTE_ADDR" => &mut self.remote_addr,
                b"REMOTE_PORT" => &mut self.remote_port,
                b"SERVER_ADDR" => &mut self.server_addr,
                b"SERVER_PORT" => &mut self.server_port,
                b"SERVER_NAME" => &mut self.server_name,
                _ => return Param::Told,
            },
            12 => match name {
                b"QUERY_STRING" => &mut self.query,
                b"CONTENT_TYPE" if !value.is_empty() => return Param::Field(Known::ContentType),
                _ => return Param::Told,
            },
            14 => match name {
                b"REQUEST_METHOD" => &mut self.method,
                b"REQUEST_SCHEME" => &mut self.scheme,
                b"CONTENT_LENGTH" if !value.is_empty() => {
                    self.has_length = true;
                    return Param::Field(Known::ContentLength);
                }
                _ => return Param::Told,
            },
            15 if name == b"SERVER_PROTOCOL" => &mut self.protocol,
            _ => return Param::Told,
        };
        place.get_or_insert(value);
        Param::Told
    }

    fn protocol(&self) -> &'static str {
        match self.protocol {
            Some(b"HTTP/1.0") => "HTTP/1.0",
            Some(b"HTTP/2.0" | b"HTTP/2") => "HTTP/2.0",
            Some(b"HTTP/3.0" | b"HTTP/3") => "HTTP/3.0",
            _ => "HTTP/1.1",
        }
    }

    fn name_client(&self, exchange: &mut Exchange) {
        let remote = &mut exchange.remote;
        let address = |ip: Option<&[u8]>, port: Option<&[u8]>| {
            let port = port.and_then(parse_port);
            Some(SocketAddr::new(parse_ip(ip?)?, port.unwrap_or(0)))
        };
        if let Some(client) = address(self.remote_addr, self.remote_port) {
            remote.address = forebay_sys::net::to_unmapped(client);
        }
        if let Some(local) = address(self.server_addr, self.server_port) {
            remote.local = forebay_sys::net::to_unmapped(local);
        }
        let https = self.https.unwrap_or_default();
        let scheme = self.scheme.unwrap_or_default();
        remote.tls = https.eq_ignore_ascii_case(b"on") || https == b"1" || scheme == b"https";
    }
}

/// An address. Most are of IPv4: as bytes those are read in a third of the time.
fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    parse_ipv4(text).or_else(|| std::str::from_utf8(text).ok()?.parse().ok())
}

/// `None`: it is none, or to be looked at by somebody else.
fn parse_ipv4(text: &[u8]) -> Option<IpAddr> {
    let mut octets = [0; 4];
    let (mut at, mut digits, mut value) = (0, 0, 0_u8);
    for byte in text {
        match byte {
            // Of a number that begins with 0, some would say that it is octal.
            b'0'..=b'9' if digits == 0 || value > 0 => {
                value = value.checked_mul(10)?.checked_add(byte - b'0')?;
                digits += 1;
            }
            b'.' if digits > 0 => {
                *octets.get_mut(at)? = value;
                (at, digits, value) = (at + 1, 0, 0);
            }
            _ => return None,
        }
    }
    *octets.get_mut(at)? = value;
    (at == 3 && digits > 0).then(|| IpAddr::from(octets))
}

/// `X_FORWARDED_FOR` was `X-Forwarded-For`; web servers take away those that had `_` themselves.
fn spelled(name: &[u8]) -> impl Iterator<Item = u8> {
    let mut begins = true;
    name.iter().map(move |byte| {
        let written = match byte {
            b'_' => b'-',
            byte if begins => byte.to_ascii_uppercase(),
            byte => byte.to_ascii_lowercase(),
        };
        begins = *byte == b'_';
        written
    })
}

/// Whether the web server is believed who its client is.
fn is_believed(link: &Link) -> bool {
    let address = link.remote.get().address.ip();
    link.listener.with_served(|served| {
        let trust = served.trust.as_ref();
        trust.is_some_and(|trust| trust.believes(address))
    })
}

// --- As a head -------------------------------------------------------------------------------

/// Writes the parameters as a head and has that read.
#[cold]
fn by_head(
    params: &Params,
    told: &Told<'_>,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<(), Fault> {
    let mut buf = BytesMut::with_capacity(1024);
    write(params, told, &mut buf)?;
    let progress = HeadParser::default()
        .request(&mut buf, limits, head)
        .map_err(h1::refused)?;
    if progress != Progress::Complete || !buf.is_empty() {
        return Err(malformed("the parameters make no request"));
    }
    Ok(())
}

fn write(params: &Params, told: &Told<'_>, out: &mut BytesMut) -> Result<(), Fault> {
    let method = told.method.unwrap_or_default();
    if method.is_empty() {
        return Err(malformed("there is no REQUEST_METHOD"));
    }
    word(method, out)?;
    out.extend_from_slice(b" ");
    match told.uri {
        Some(uri) if !uri.is_empty() => word(uri, out)?,
        _ => write_target(told, out),
    }
    let mut hosts = params.iter().filter(|(name, _)| is_host(name));
    let host = hosts.next().map(|(_, host)| host);
    if hosts.next().is_some() {
        return Err(malformed("there are several HTTP_HOST"));
    }
    let host = host.filter(|host| !host.is_empty());
    let name = told.server_name.filter(|name| !name.is_empty());
    match (host, name) {
        (Some(_), _) => out.extend_from_slice(b" HTTP/1.1\r\n"),
        (None, Some(name)) => {
            out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
            value(name, out)?;
            let port = told.server_port.unwrap_or_default();
            if !matches!(port, b"" | b"80" | b"443") {
                out.extend_from_slice(b":");
                value(port, out)?;
            }
            out.extend_from_slice(b"\r\n");
        }
        // Only the first version has requests without.
        (None, None) => out.extend_from_slice(b" HTTP/1.0\r\n"),
    }
    let mut again = Told::default();
    for (name, value) in params {
        match again.note(name, value) {
            Param::Told => {}
            Param::Host if value.is_empty() => {}
            Param::Host => field(Known::Host.name().as_bytes(), value, out)?,
            Param::Field(known) => field(known.name().as_bytes(), value, out)?,
            Param::Other(name) => {
                if name.iter().any(|byte| b": \t\r\n\0".contains(byte)) {
                    return Err(malformed("there is a field with a wrong name"));
                }
                out.extend(spelled(name));
                field(b"", value, out)?;
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn is_host(name: &[u8]) -> bool {
    let field = name.strip_prefix(b"HTTP_");
    field.is_some_and(|name| Known::of_variable(name) == Some(Known::Host))
}

/// The target of a web server that does not tell it: what it has made of it (RFC 3875 §3.3).
fn write_target(told: &Told<'_>, out: &mut BytesMut) {
    let script = told.script_name.unwrap_or_default();
    let rest = told.path_info.unwrap_or_default();
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
    let query = told.query.unwrap_or_default();
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
