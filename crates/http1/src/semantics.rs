//! What a complete head means, and what no head may say.

use forebay_fields::{Fields, Known, KnownSet, Name};

use crate::authority::Authority;
use crate::error::HeadError;
use crate::head::{Framing, RequestHead, ResponseHead, Scheme, TargetForm, Version};
use crate::method::Method;

/// Fields that a request's meaning depends on here, but for `Host`.
const LOOKED_AT: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Expect,
    Known::Upgrade,
]);

/// `repeated`: the known names that occur more than once.
pub(crate) fn request(head: &mut RequestHead, repeated: KnownSet) -> Result<(), HeadError> {
    host(head, repeated)?;
    target(head)?;
    debug_assert_eq!(
        head.path_len,
        head.target.find('?').unwrap_or(head.target.len()),
        "whoever fills in the target says where its path ends"
    );
    head.keep_alive = head.version == Version::Http11;
    if !head.fields.present().intersects(LOOKED_AT) {
        return Ok(());
    }
    head.framing = request_framing(&head.fields, head.version, repeated)?;
    let options = Options::of(&head.fields, repeated)?;
    if options.names_protected {
        return Err(HeadError::ConnectionNamesField);
    }
    head.keep_alive = options.keep_alive(head.version);
    if head.version == Version::Http11 {
        head.upgrade = options.upgrade && head.fields.contains(Known::Upgrade);
        // RFC 9110 §10.1.1: without content there is nothing to be expected.
        head.expect_continue = !matches!(head.framing, Framing::None | Framing::Length(0))
            && head.fields.has_token(Known::Expect, "100-continue");
    }
    Ok(())
}

/// `repeated`: the known names that occur more than once.
pub(crate) fn response(
    head: &mut ResponseHead,
    method: &Method,
    repeated: KnownSet,
) -> Result<(), HeadError> {
    let options = Options::of(&head.fields, repeated)?;
    head.keep_alive = options.keep_alive(head.version);
    head.upgrade = options.upgrade && head.fields.contains(Known::Upgrade);

    let present = head.fields.present();
    let chunked = present.contains(Known::TransferEncoding);
    if chunked {
        check_transfer_encoding(&head.fields, head.version, repeated)?;
    }
    if present.contains(Known::ContentLength) {
        // RFC 9110 §8.6: several equal ones may be taken for one; only one is passed on.
        let mut values = head.fields.all(Known::ContentLength).map(content_length);
        let length = values.next().flatten().ok_or(HeadError::BadContentLength)?;
        for other in values {
            if other.ok_or(HeadError::BadContentLength)? != length {
                return Err(HeadError::SeveralContentLengths);
            }
        }
        head.content_length = Some(length);
        if repeated.contains(Known::ContentLength) {
            // Cannot fail for a number; if it did, no length is better than two.
            if head
                .fields
                .set_number(Known::ContentLength, length)
                .is_err()
            {
                return Err(HeadError::SeveralContentLengths);
            }
        }
    }
    // RFC 9112 §6.3, in its order.
    let no_body = *method == Method::Head
        || matches!(head.status, 100..200 | 204 | 304)
        || (*method == Method::Connect && matches!(head.status, 200..300));
    head.framing = match head.content_length {
        _ if no_body => Framing::None,
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => {
            head.keep_alive = false;
            Framing::UntilClose
        }
    };
    if matches!(head.status, 100..200 | 204) {
        // RFC 9110 §8.6: it must not have been sent, so it is not passed on.
        head.fields.remove(Known::ContentLength);
        head.content_length = None;
    }
    Ok(())
}

// --- Host and target ---------------------------------------------------------------------------

/// RFC 9112 §3.2.
fn host(head: &mut RequestHead, repeated: KnownSet) -> Result<(), HeadError> {
    if repeated.contains(Known::Host) {
        return Err(HeadError::SeveralHosts);
    }
    let Some(value) = head.fields.get(Known::Host) else {
        return match head.version {
            Version::Http10 => Ok(()),
            Version::Http11 => Err(HeadError::MissingHost),
        };
    };
    if !value.is_empty() && value == head.usual_host.as_bytes() {
        head.host.push_str(&head.usual_host);
        return Ok(());
    }
    let authority = Authority::parse(value).ok_or(HeadError::BadHost)?;
    head.port = authority.port;
    set_host(&mut head.host, authority.host);
    if value == head.host.as_bytes() {
        head.usual_host.clone_from(&head.host);
    }
    Ok(())
}

fn set_host(place: &mut String, host: &str) {
    place.clear();
    place.push_str(host);
    place.make_ascii_lowercase();
}

/// RFC 9112 §3.2.1 to §3.2.4: which of the four forms it is, and whether it may be.
fn target(head: &mut RequestHead) -> Result<(), HeadError> {
    if head.method == Method::Connect {
        head.form = TargetForm::Authority;
        return match Authority::parse(head.target.as_bytes()) {
            Some(Authority { port: Some(_), .. }) => Ok(()),
            _ => Err(HeadError::BadTarget),
        };
    }
    if head.target.starts_with('/') {
        return Ok(());
    }
    if head.target == "*" {
        head.form = TargetForm::Asterisk;
        return match head.method {
            Method::Options => Ok(()),
            _ => Err(HeadError::BadTarget),
        };
    }
    absolute(head)
}

/// RFC 9112 §3.2.2: `http://authority/path?query`, of which the path and the query are kept.
fn absolute(head: &mut RequestHead) -> Result<(), HeadError> {
    let (scheme, rest) = [(Scheme::Http, "http://"), (Scheme::Https, "https://")]
        .into_iter()
        .find_map(|(scheme, prefix)| {
            let (start, rest) = head.target.split_at_checked(prefix.len())?;
            start.eq_ignore_ascii_case(prefix).then_some((scheme, rest))
        })
        .ok_or(HeadError::BadTarget)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // User information, an old way to disguise a host, is refused with the `@`.
    let authority = Authority::parse(authority.as_bytes()).ok_or(HeadError::BadHost)?;
    if head.host.is_empty() {
        // HTTP/1.0.
        head.port = authority.port;
        set_host(&mut head.host, authority.host);
    } else {
        let said = Authority {
            host: &head.host,
            port: head.port,
        };
        if !authority.is_same(&said, scheme.default_port()) {
            return Err(HeadError::HostDiffers);
        }
    }
    head.form = TargetForm::Absolute(scheme);
    let before = head.target.len() - path.len();
    // RFC 9112 §3.2.4: without a path, OPTIONS asks about the server.
    let missing = match path.bytes().next() {
        Some(b'/') => "",
        None if head.method == Method::Options => "*",
        _ => "/",
    };
    head.target.replace_range(..before, missing);
    head.path_len = head.target.find('?').unwrap_or(head.target.len());
    Ok(())
}

// --- Framing -----------------------------------------------------------------------------------

/// RFC 9112 §6.
fn request_framing(
    fields: &Fields,
    version: Version,
    repeated: KnownSet,
) -> Result<Framing, HeadError> {
    if fields.present().contains(Known::TransferEncoding) {
        check_transfer_encoding(fields, version, repeated)?;
        return Ok(Framing::Chunked);
    }
    match fields.get(Known::ContentLength) {
        None => Ok(Framing::None),
        Some(_) if repeated.contains(Known::ContentLength) => Err(HeadError::SeveralContentLengths),
        Some(value) => content_length(value)
            .map(Framing::Length)
            .ok_or(HeadError::BadContentLength),
    }
}

/// Only `chunked`, once, in HTTP/1.1, without a length beside it (RFC 9112 §6.1, §6.3).
///
/// Everything else is where two servers have read two different messages: `chunked, identity`,
/// `xchunked`, `chunked` twice, a second field with another coding.
fn check_transfer_encoding(
    fields: &Fields,
    version: Version,
    repeated: KnownSet,
) -> Result<(), HeadError> {
    if fields.contains(Known::ContentLength) {
        return Err(HeadError::LengthAndTransferEncoding);
    }
    if version == Version::Http10 {
        return Err(HeadError::TransferEncodingInHttp10);
    }
    match fields.get(Known::TransferEncoding) {
        Some(value)
            if value.eq_ignore_ascii_case(b"chunked")
                && !repeated.contains(Known::TransferEncoding) =>
        {
            Ok(())
        }
        _ => Err(HeadError::UnsupportedTransferEncoding),
    }
}

/// `1*DIGIT` below 2^63: no sign, no white space, no list (RFC 9110 §8.6).
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let length = value.iter().try_fold(0_u64, |length, &digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        length.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    i64::try_from(length).ok().map(|_| length)
}

// --- Connection --------------------------------------------------------------------------------

/// What `Connection` says (RFC 9110 §7.6.1).
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    names_protected: bool,
}

/// Each option costs a look at every field when the head is passed on.
const MAX_OPTIONS: usize = 32;

impl Options {
    fn of(fields: &Fields, repeated: KnownSet) -> Result<Self, HeadError> {
        let mut options = Self::default();
        if !fields.present().contains(Known::Connection) {
            return Ok(options);
        }
        // What nearly everybody sends; the way of lists below costs 20 ns more.
        let is_one = !repeated.contains(Known::Connection);
        if is_one && fields.get(Known::Connection) == Some(b"keep-alive") {
            options.keep_alive = true;
            return Ok(options);
        }
        for (count, option) in fields.list(Known::Connection).enumerate() {
            if count == MAX_OPTIONS {
                return Err(HeadError::TooManyConnectionOptions);
            }
            if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else {
                options.names_protected |= Name::from(option).is_protected();
            }
        }
        Ok(options)
    }

    /// RFC 9112 §9.3.
    fn keep_alive(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}
