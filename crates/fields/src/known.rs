//! The field names that the server looks at, and how a received name is recognised.

/// Declares [`Known`] with each name in the case it is written in when the server adds it.
macro_rules! known {
    ($($variant:ident $name:literal,)+) => {
        /// A field name that the server looks at somewhere.
        ///
        /// Any other name is kept and passed on as well; it is only found by comparing names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each variant is the name that it stands for")]
        #[rustfmt::skip]
        pub enum Known { $($variant,)+ }

        impl Known {
            /// Every known name, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }

        const NAMES: [&str; Known::ALL.len()] = [$($name,)+];
    };
}

known! {
    // Connection and routing (RFC 9110 §7, RFC 9112).
    Host "Host",
    Connection "Connection",
    ContentLength "Content-Length",
    TransferEncoding "Transfer-Encoding",
    Te "TE",
    Trailer "Trailer",
    Upgrade "Upgrade",
    Expect "Expect",
    KeepAlive "Keep-Alive",
    MaxForwards "Max-Forwards",
    Http2Settings "HTTP2-Settings",
    ProxyConnection "Proxy-Connection",
    ProxyAuthenticate "Proxy-Authenticate",
    ProxyAuthorization "Proxy-Authorization",
    ProxyAuthenticationInfo "Proxy-Authentication-Info",
    // Not a field of HTTP: CGI turns it into HTTP_PROXY ("httpoxy").
    Proxy "Proxy",
    // Who asked, through whom (RFC 7239, RFC 9110 §7.6.3, RFC 8586).
    Forwarded "Forwarded",
    XForwardedFor "X-Forwarded-For",
    XForwardedProto "X-Forwarded-Proto",
    XForwardedHost "X-Forwarded-Host",
    XForwardedPort "X-Forwarded-Port",
    XForwardedPrefix "X-Forwarded-Prefix",
    XForwardedServer "X-Forwarded-Server",
    XForwardedScheme "X-Forwarded-Scheme",
    XForwardedSsl "X-Forwarded-Ssl",
    XForwardedBy "X-Forwarded-By",
    XForwarded "X-Forwarded",
    XRealIp "X-Real-IP",
    XRequestId "X-Request-Id",
    Via "Via",
    CdnLoop "CDN-Loop",
    // Validators and preconditions (RFC 9110 §8.8, §13).
    Date "Date",
    Etag "ETag",
    LastModified "Last-Modified",
    IfMatch "If-Match",
    IfNoneMatch "If-None-Match",
    IfModifiedSince "If-Modified-Since",
    IfUnmodifiedSince "If-Unmodified-Since",
    IfRange "If-Range",
    // Ranges (RFC 9110 §14).
    Range "Range",
    ContentRange "Content-Range",
    AcceptRanges "Accept-Ranges",
    // Negotiation (RFC 9110 §12).
    Accept "Accept",
    AcceptCharset "Accept-Charset",
    AcceptEncoding "Accept-Encoding",
    AcceptLanguage "Accept-Language",
    Vary "Vary",
    // Caching (RFC 9111, RFC 9211, RFC 9213).
    Age "Age",
    CacheControl "Cache-Control",
    CdnCacheControl "CDN-Cache-Control",
    CacheStatus "Cache-Status",
    CacheTag "Cache-Tag",
    SurrogateControl "Surrogate-Control",
    SurrogateKey "Surrogate-Key",
    Expires "Expires",
    Pragma "Pragma",
    Warning "Warning",
    NoVarySearch "No-Vary-Search",
    // The representation (RFC 9110 §8).
    ContentType "Content-Type",
    ContentEncoding "Content-Encoding",
    ContentLanguage "Content-Language",
    ContentLocation "Content-Location",
    ContentDisposition "Content-Disposition",
    ContentMd5 "Content-MD5",
    ContentSecurityPolicy "Content-Security-Policy",
    // State and credentials (RFC 6265, RFC 9110 §11).
    Cookie "Cookie",
    SetCookie "Set-Cookie",
    Authorization "Authorization",
    WwwAuthenticate "WWW-Authenticate",
    AuthenticationInfo "Authentication-Info",
    // Context of a request or an answer (RFC 9110 §10).
    Allow "Allow",
    Location "Location",
    Referer "Referer",
    RetryAfter "Retry-After",
    Server "Server",
    UserAgent "User-Agent",
    From "From",
    Origin "Origin",
    Link "Link",
    Refresh "Refresh",
    Priority "Priority",
    AltSvc "Alt-Svc",
    AltUsed "Alt-Used",
    EarlyData "Early-Data",
    StrictTransportSecurity "Strict-Transport-Security",
    UpgradeInsecureRequests "Upgrade-Insecure-Requests",
    AccessControlAllowOrigin "Access-Control-Allow-Origin",
    AccessControlRequestMethod "Access-Control-Request-Method",
    AccessControlRequestHeaders "Access-Control-Request-Headers",
    XContentTypeOptions "X-Content-Type-Options",
    XFrameOptions "X-Frame-Options",
    XPoweredBy "X-Powered-By",
    // WebSocket (RFC 6455).
    SecWebSocketKey "Sec-WebSocket-Key",
    SecWebSocketVersion "Sec-WebSocket-Version",
    SecWebSocketProtocol "Sec-WebSocket-Protocol",
    SecWebSocketExtensions "Sec-WebSocket-Extensions",
    SecWebSocketAccept "Sec-WebSocket-Accept",
    // What an application tells the server in front of it.
    Status "Status",
    XAccelRedirect "X-Accel-Redirect",
    XAccelBuffering "X-Accel-Buffering",
    XAccelExpires "X-Accel-Expires",
    XSendfile "X-Sendfile",
    // Ways to mean another request than the one that was sent (cache poisoning).
    XOriginalUrl "X-Original-URL",
    XRewriteUrl "X-Rewrite-URL",
    XHost "X-Host",
    XHttpHostOverride "X-HTTP-Host-Override",
    XHttpMethodOverride "X-HTTP-Method-Override",
    XHttpMethod "X-HTTP-Method",
    XMethodOverride "X-Method-Override",
    // What a browser sends with every request: known so that recognising them ends early.
    SecFetchDest "Sec-Fetch-Dest",
    SecFetchMode "Sec-Fetch-Mode",
    SecFetchSite "Sec-Fetch-Site",
    SecFetchUser "Sec-Fetch-User",
    SecChUa "Sec-CH-UA",
    SecChUaMobile "Sec-CH-UA-Mobile",
    SecChUaPlatform "Sec-CH-UA-Platform",
    Dnt "DNT",
}

impl Known {
    /// The name in the case in which the server writes it, e.g. `Content-Length`.
    #[inline]
    #[must_use]
    pub const fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Recognises a name, whatever its case; `None` if it is none of [`Known::ALL`].
    ///
    /// One multiplication, one look into a table of 2 KiB, one comparison: ~2 ns.
    #[inline]
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        let (first, last) = ends(name)?;
        let slot = TABLE[slot(first, last, name.len(), MULTIPLIER)];
        let shape = &SHAPES[usize::from(slot)];
        // The filler of empty slots has length 0, which no name that reaches this has.
        (shape.len == name.len() && shape.matches(name)).then(|| Self::ALL[usize::from(slot)])
    }

    const fn bit(self) -> u128 {
        1 << (self as u8)
    }
}

/// A set of known names; one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(u128);

impl KnownSet {
    /// The set of nothing.
    pub const EMPTY: Self = Self(0);

    /// The fields that belong to one connection and must not be passed on (RFC 9110 §7.6.1),
    /// with the historic ones that mean the same. What else `Connection` names goes, too: see
    /// [`crate::Fields::remove_hop_by_hop`].
    pub const HOP_BY_HOP: Self = Self::of(&[
        Known::Connection,
        Known::ProxyConnection,
        Known::KeepAlive,
        Known::Te,
        Known::TransferEncoding,
        Known::Upgrade,
        Known::Http2Settings,
        Known::ProxyAuthenticate,
        Known::ProxyAuthorization,
        Known::ProxyAuthenticationInfo,
        Known::Proxy,
    ]);

    /// Whatever says something about the client's side and can be forged by it.
    pub const FORWARDING: Self = Self::of(&[
        Known::Forwarded,
        Known::XForwarded,
        Known::XForwardedFor,
        Known::XForwardedProto,
        Known::XForwardedHost,
        Known::XForwardedPort,
        Known::XForwardedPrefix,
        Known::XForwardedServer,
        Known::XForwardedScheme,
        Known::XForwardedSsl,
        Known::XForwardedBy,
        Known::XRealIp,
    ]);

    /// Fields that may not stand in a trailer section (RFC 9110 §6.5.1): those that frame the
    /// message, route it, authenticate, control it or say how its content is to be read. They
    /// would change a decision that was already taken.
    pub const FORBIDDEN_IN_TRAILERS: Self = Self::of(&[
        Known::Host,
        Known::ContentLength,
        Known::TransferEncoding,
        Known::Te,
        Known::Trailer,
        Known::Upgrade,
        Known::Expect,
        Known::MaxForwards,
        Known::Http2Settings,
        Known::IfMatch,
        Known::IfNoneMatch,
        Known::IfModifiedSince,
        Known::IfUnmodifiedSince,
        Known::IfRange,
        Known::Range,
        Known::ContentRange,
        Known::AcceptRanges,
        Known::Accept,
        Known::AcceptCharset,
        Known::AcceptEncoding,
        Known::AcceptLanguage,
        Known::Vary,
        Known::Age,
        Known::CacheControl,
        Known::CdnCacheControl,
        Known::SurrogateControl,
        Known::Expires,
        Known::Pragma,
        Known::Date,
        Known::Location,
        Known::RetryAfter,
        Known::ContentType,
        Known::ContentEncoding,
        Known::Cookie,
        Known::SetCookie,
        Known::Authorization,
        Known::WwwAuthenticate,
        Known::Origin,
        Known::Allow,
        Known::AltSvc,
        Known::StrictTransportSecurity,
        Known::Status,
        Known::XAccelRedirect,
        Known::XAccelBuffering,
        Known::XAccelExpires,
        Known::XSendfile,
        Known::XOriginalUrl,
        Known::XRewriteUrl,
        Known::XHost,
        Known::XHttpHostOverride,
        Known::XHttpMethodOverride,
        Known::XHttpMethod,
        Known::XMethodOverride,
        Known::Via,
        Known::CdnLoop,
        Known::Connection,
    ])
    .union(Self::HOP_BY_HOP)
    .union(Self::FORWARDING);

    /// The set of `names`.
    #[must_use]
    pub const fn of(names: &[Known]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < names.len() {
            bits |= names[at].bit();
            at += 1;
        }
        Self(bits)
    }

    /// Whether `name` is in the set.
    #[inline]
    #[must_use]
    pub const fn contains(self, name: Known) -> bool {
        self.0 & name.bit() != 0
    }

    /// Whether the two sets have a name in common.
    #[inline]
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The names of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is no name in the set.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds a name.
    #[inline]
    pub const fn insert(&mut self, name: Known) {
        self.0 |= name.bit();
    }

    #[inline]
    pub(crate) const fn remove(&mut self, name: Known) {
        self.0 &= !name.bit();
    }
}

// --- Recognition -------------------------------------------------------------------------------

/// The longest known name; longer ones are not looked at.
const MAX_LEN: usize = 32;
/// Slots of the table: enough that a multiplier without collisions is found at compile time.
const SLOT_BITS: u32 = 11;
const SLOTS: usize = 1 << SLOT_BITS;

/// A known name prepared for comparing: `(byte | mask) == lower` for each byte. The mask is 0x20
/// for letters and 0 for everything else: 0x20 for all would take a CR for a `-`.
#[derive(Clone, Copy)]
struct Shape {
    len: usize,
    lower: [u8; MAX_LEN],
    mask: [u8; MAX_LEN],
}

impl Shape {
    const fn new(name: &str) -> Self {
        let name = name.as_bytes();
        assert!(name.len() >= 2 && name.len() <= MAX_LEN);
        let mut shape = Self {
            len: name.len(),
            lower: [0; MAX_LEN],
            mask: [0; MAX_LEN],
        };
        let mut at = 0;
        while at < name.len() {
            shape.lower[at] = name[at].to_ascii_lowercase();
            shape.mask[at] = if name[at].is_ascii_alphabetic() {
                0x20
            } else {
                0
            };
            at += 1;
        }
        shape
    }

    /// `name` must be as long as the shape.
    #[inline]
    fn matches(&self, name: &[u8]) -> bool {
        let len = name.len().min(MAX_LEN);
        let eight = |at: usize| load8(name, at) | load8(&self.mask, at) == load8(&self.lower, at);
        if len >= 8 {
            let mut at = 0;
            while at + 8 < len {
                if !eight(at) {
                    return false;
                }
                at += 8;
            }
            // The last eight bytes may overlap with what was already compared.
            eight(len - 8)
        } else {
            name.iter()
                .zip(&self.mask)
                .zip(&self.lower)
                .all(|((&b, &m), &l)| b | m == l)
        }
    }
}

#[inline]
fn load8(bytes: &[u8], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// The first and the last four bytes of a name (overlapping if it is short), in lower case.
#[inline]
const fn ends(name: &[u8]) -> Option<(u32, u32)> {
    const LOWER: u32 = 0x2020_2020;
    match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (Some(first), Some(last)) => Some((
            u32::from_le_bytes(*first) | LOWER,
            u32::from_le_bytes(*last) | LOWER,
        )),
        _ => match name {
            [a, b] => Some((u32::from_le_bytes([*a, *b, 0, 0]) | LOWER, 0)),
            [a, b, c] => Some((u32::from_le_bytes([*a, *b, *c, 0]) | LOWER, 0)),
            _ => None,
        },
    }
}

#[inline]
const fn slot(first: u32, last: u32, len: usize, multiplier: u64) -> usize {
    let key = ((first as u64) << 32 | last as u64).wrapping_add((len as u64) << 24);
    (key.wrapping_mul(multiplier) >> (u64::BITS - SLOT_BITS)) as usize
}

const fn slot_of(name: &str, multiplier: u64) -> usize {
    match ends(name.as_bytes()) {
        Some((first, last)) => slot(first, last, name.len(), multiplier),
        None => panic!("a known name has at least two bytes"),
    }
}

/// An odd number under which no two known names share a slot; found by trying.
const MULTIPLIER: u64 = {
    let mut candidate: u64 = 0x9e37_79b9_7f4a_7c15;
    loop {
        let mut used = [0_u64; SLOTS / 64];
        let mut at = 0;
        while at < NAMES.len() {
            let slot = slot_of(NAMES[at], candidate);
            if used[slot / 64] & (1 << (slot % 64)) != 0 {
                break;
            }
            used[slot / 64] |= 1 << (slot % 64);
            at += 1;
        }
        if at == NAMES.len() {
            break candidate;
        }
        candidate = candidate
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(2);
    }
};

/// Slot → number of the name; an empty slot holds the number behind the last name.
static TABLE: [u8; SLOTS] = {
    assert!(NAMES.len() < 128, "KnownSet has 128 bits");
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let mut table = [NAMES.len() as u8; SLOTS];
    let mut at = 0;
    while at < NAMES.len() {
        #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
        {
            table[slot_of(NAMES[at], MULTIPLIER)] = at as u8;
        }
        at += 1;
    }
    table
};

static SHAPES: [Shape; NAMES.len() + 1] = {
    let filler = Shape {
        len: 0,
        lower: [0; MAX_LEN],
        mask: [0; MAX_LEN],
    };
    let mut shapes = [filler; NAMES.len() + 1];
    let mut at = 0;
    while at < NAMES.len() {
        shapes[at] = Shape::new(NAMES[at]);
        at += 1;
    }
    shapes
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_5_1_every_name_is_recognised_in_any_case() {
        for &known in Known::ALL {
            let name = known.name();
            for spelled in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(Known::of(spelled.as_bytes()), Some(known), "{spelled}");
            }
            assert!(crate::is_token(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn rfc9110_5_1_one_changed_byte_is_another_name() {
        for &known in Known::ALL {
            let name = known.name().as_bytes();
            for at in 0..name.len() {
                for byte in 0..=u8::MAX {
                    let mut other = name.to_vec();
                    other[at] = byte;
                    if other.eq_ignore_ascii_case(name) {
                        continue;
                    }
                    let found = Known::of(&other).map(Known::name);
                    let equal = found.is_some_and(|f| f.as_bytes().eq_ignore_ascii_case(&other));
                    assert_eq!(found.is_some(), equal, "{}", other.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn unknown_names_of_every_length() {
        for len in 0..100 {
            assert_eq!(Known::of(&vec![b'x'; len]), None);
            assert_eq!(Known::of(&vec![0; len]), None);
        }
    }

    #[test]
    fn sets() {
        let set = KnownSet::of(&[Known::Host, Known::Dnt]);
        assert!(set.contains(Known::Host) && set.contains(Known::Dnt));
        assert!(!set.contains(Known::Te));
        assert!(set.intersects(KnownSet::of(&[Known::Dnt])));
        assert!(!set.intersects(KnownSet::HOP_BY_HOP));
        assert!(set.without(set).is_empty());
    }
}
