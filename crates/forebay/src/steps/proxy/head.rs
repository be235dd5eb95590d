//! The head of a request as its peer sees it: the received fields as they came, without what
//! belongs to the client's connection or could be forged, and what we have to say of the client.

use std::net::IpAddr;

use forebay_config::Template;
use forebay_fields::{Fields, Known, KnownSet, append_decimal, is_token};
use forebay_http1::{Method, Version, write_request_line};

use crate::exchange::{Body, Exchange, Fault, Reason, append_ip, expand};

/// Fields of a request that are written anew or go no further.
const NOT_PASSED: KnownSet = KnownSet::HOP_BY_HOP
    .union(KnownSet::FORWARDING)
    .union(KnownSet::of(&[Known::ContentLength, Known::Expect]));

/// A request that has come through this server this often is in a loop.
const LOOPS: usize = 2;

/// Protocols that are not passed on as an offer: under them the client would send requests of its
/// own through the tunnel, which no step would see (`h2c` has been used for that).
const NOT_OFFERED: [&[u8]; 4] = [b"h2c", b"h2", b"http", b"tls"];

/// The protocols that the client would go on with (RFC 9110 §7.8), as a peer gets to see them.
/// `None` where it offers none that may be passed on. Looked at once: writing a head for a first
/// peer removes them.
pub fn offer(exchange: &Exchange) -> Option<Vec<u8>> {
    let request = &exchange.request;
    if !request.offers_upgrade {
        return None;
    }
    let mut offer = Vec::new();
    for protocol in request.fields.list(Known::Upgrade) {
        let mut parts = protocol.splitn(2, |&b| b == b'/');
        let name = parts.next().unwrap_or_default();
        let is_refused = NOT_OFFERED.iter().any(|no| name.eq_ignore_ascii_case(no));
        let version = parts.next().unwrap_or(b"1");
        if is_refused || !is_token(name) || !is_token(version) {
            continue;
        }
        if !offer.is_empty() {
            offer.extend_from_slice(b", ");
        }
        offer.extend_from_slice(protocol);
    }
    (!offer.is_empty()).then_some(offer)
}

/// Writes the request's head for a peer, which is to see this host and not this cookie, with this
/// offer to go on with another protocol; says whether the body is chunked.
pub fn write(
    exchange: &mut Exchange,
    host: Option<&Template>,
    own_cookie: Option<&str>,
    body: &Body,
    offer: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<bool, Fault> {
    // What it has removed stays removed for another try. In nearly every request there is nothing
    // to look for, because `Connection` names no field.
    if names_fields(&exchange.request.fields) {
        exchange.request.fields.remove_hop_by_hop();
    }
    let request = &exchange.request;
    let start = out.len();
    if request.is_as_received() {
        let target = request.original_uri().as_bytes();
        if !write_request_line(out, &request.method, target, Version::Http11) {
            return Err(Reason::BadRequest.into());
        }
    } else {
        let mut uri = Vec::with_capacity(request.path().len() + 16);
        request.write_uri(&mut uri);
        if !write_request_line(out, &request.method, &uri, Version::Http11) {
            out.truncate(start);
            return Err(Fault::with(Reason::BadPath, "after `rewrite`"));
        }
    }
    let mut skip = NOT_PASSED;
    if let Some(host) = host {
        let mut value = Vec::new();
        expand(host, exchange, None, &mut value);
        if !forebay_fields::is_value(&value) {
            return Err(Fault::with(Reason::BadRequest, "`host` of proxy"));
        }
        skip.insert(Known::Host);
        line(out, b"Host", &value);
    } else if !request.fields.contains(Known::Host) {
        // An HTTP/1.0 client may name none, an HTTP/1.1 server must be given one.
        line(out, b"Host", request.host().as_bytes());
    }
    if let Some(own) = own_cookie.map(str::as_bytes)
        && request.fields.contains(Known::Cookie)
        && request.fields.cookie(own).is_some()
    {
        skip.insert(Known::Cookie);
        for value in cookies_without(own, &request.fields) {
            line(out, b"Cookie", &value);
        }
    }
    request.fields.write_without(out, skip);
    if let Some(offer) = offer {
        line(out, b"Connection", b"upgrade");
        line(out, b"Upgrade", offer);
    }
    forwarded(exchange, out);
    let chunked = match body.len_bytes() {
        None => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            true
        }
        // RFC 9110 §8.6: a method that means something by its content says when there is none.
        Some(0) if !matches!(request.method, Method::Post | Method::Put | Method::Patch) => false,
        Some(len) => {
            out.extend_from_slice(b"Content-Length: ");
            append_decimal(out, len);
            out.extend_from_slice(b"\r\n");
            false
        }
    };
    out.extend_from_slice(b"\r\n");
    Ok(chunked)
}

/// Whether `Connection` says more than whether the connection goes on.
fn names_fields(fields: &Fields) -> bool {
    let usual = |value: &[u8]| {
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    };
    fields.contains(Known::Connection) && !fields.all(Known::Connection).all(usual)
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The values of the `Cookie` fields but for cookies of this name, which is ours.
pub fn cookies_without(own: &[u8], fields: &Fields) -> Vec<Vec<u8>> {
    let is_own = |pair: &[u8]| {
        let name = pair.split(|&b| b == b'=').next().unwrap_or_default();
        name.trim_ascii() == own && name.len() < pair.len()
    };
    let mut values = Vec::new();
    for value in fields.all(Known::Cookie) {
        let mut left = Vec::with_capacity(value.len());
        for pair in value.split(|&b| b == b';').filter(|pair| !is_own(pair)) {
            if !left.is_empty() {
                left.extend_from_slice(b"; ");
            }
            left.extend_from_slice(pair.trim_ascii());
        }
        if !left.is_empty() {
            values.push(left);
        }
    }
    values
}

/// Tells the peer about the client (RFC 7239, and the older fields that applications read), and
/// that the request has come through here (RFC 9110 §7.6.3, RFC 8586).
fn forwarded(exchange: &Exchange, out: &mut Vec<u8>) {
    let ip = exchange.client_ip();
    let host = exchange.request.fields.get(Known::Host).unwrap_or(b"");
    let scheme = exchange.scheme().as_bytes();
    if exchange.has_client_ip() {
        out.extend_from_slice(b"X-Forwarded-For: ");
        append_ip(ip, out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"X-Forwarded-Proto: ");
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"\r\nX-Forwarded-Port: ");
    let port = match exchange.remote.local.port() {
        // A Unix socket has none.
        0 => exchange.port(),
        port => port,
    };
    append_decimal(out, u64::from(port));
    if !host.is_empty() {
        out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
        out.extend_from_slice(host);
    }
    if let Some(prefix) = &exchange.request.prefix {
        out.extend_from_slice(b"\r\nX-Forwarded-Prefix: ");
        out.extend_from_slice(prefix.as_bytes());
    }
    out.extend_from_slice(b"\r\nForwarded: for=");
    match ip {
        // RFC 7239 §6.2.
        _ if !exchange.has_client_ip() => out.extend_from_slice(b"unknown"),
        IpAddr::V4(_) => append_ip(ip, out),
        IpAddr::V6(_) => {
            out.extend_from_slice(b"\"[");
            append_ip(ip, out);
            out.extend_from_slice(b"]\"");
        }
    }
    // A host is of letters, digits, `-._~`, `:` and brackets only: nothing in it needs a backslash.
    if !host.is_empty() {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(host);
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"\r\nVia: 1.1 ");
    out.extend_from_slice(own_name().as_bytes());
    out.extend_from_slice(b"\r\nCDN-Loop: ");
    out.extend_from_slice(own_name().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// This process's name in `Via` and `CDN-Loop`. Its own: two servers behind one another are no
/// loop.
pub fn own_name() -> &'static str {
    use std::hash::{BuildHasher, Hasher};
    use std::sync::OnceLock;
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let number = std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish();
        format!("forebay-{:08x}", number & 0xffff_ffff)
    })
}

/// Whether the request has been here before, too often.
pub fn loops(exchange: &Exchange) -> bool {
    let fields = &exchange.request.fields;
    let seen = |name: Known| {
        if !fields.contains(name) {
            return 0;
        }
        fields
            .list(name)
            .filter(|item| {
                let mut words = item.split(|&b| b == b' ' || b == b';');
                words.any(|word| word == own_name().as_bytes())
            })
            .count()
    };
    seen(Known::CdnLoop).max(seen(Known::Via)) >= LOOPS
}
