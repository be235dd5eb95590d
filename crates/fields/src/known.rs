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

        const LINE_STARTS: [&str; Known::ALL.len()] = [$(concat!($name, ": "),)+];
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

    /// What a line of it begins with, e.g. `Content-Length: `.
    #[inline]
    #[must_use]
    pub const fn line_start(self) -> &'static str {
        LINE_STARTS[self as usize]
    }

    /// Recognises a name, whatever its case; `None` if it is none of [`Known::ALL`].
    ///
    /// Two loads, one multiplication, one look into a table of 2 KiB, two comparisons: ~3 ns.
    #[inline]
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        Self::recognise(name, |word| word)
    }

    /// Recognises what CGI makes of a name (RFC 3875 §4.1.18), without the `HTTP_` before it:
    /// each `_` stands for `-`.
    ///
    /// ```
    /// # use forebay_fields::Known;
    /// assert_eq!(Known::of_variable(b"IF_NONE_MATCH"), Some(Known::IfNoneMatch));
    /// ```
    #[inline]
    #[must_use]
    pub fn of_variable(name: &[u8]) -> Option<Self> {
        Self::recognise(name, dashed)
    }

    /// Recognises a name of whose words each is first changed by `change`.
    #[inline(always)]
    fn recognise(name: &[u8], change: impl Fn(u64) -> u64) -> Option<Self> {
        let (first, last) = ends(name)?;
        let (first, last) = (change(first), change(last));
        let slot = TABLE[slot(first, last, name.len(), MULTIPLIER)];
        let shape = SHAPES.get(usize::from(slot))?;
        let same = shape.len == name.len()
            && first | shape.first.mask == shape.first.lower
            && last | shape.last.mask == shape.last.lower
            && (name.len() <= 16 || shape.has_middle_of(name, change));
        if same {
            Self::ALL.get(usize::from(slot)).copied()
        } else {
            None
        }
    }

    #[inline]
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
    #[inline]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names that are in both sets.
    #[inline]
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The names of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names in the set.
    pub fn iter(self) -> impl Iterator<Item = Known> {
        Known::ALL
            .iter()
            .copied()
            .filter(move |&known| self.contains(known))
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

/// A known name prepared for comparing.
#[derive(Clone, Copy)]
struct Shape {
    len: usize,
    first: Word,
    last: Word,
    /// The bytes from 8 to 16 and from 16 to 24; in use from a length of 17 and 25 on.
    middle: [Word; 2],
}

/// Some bytes of a name: a received word is the same if `received | mask == lower`. The mask is
/// 0x20 for letters and 0 for everything else: 0x20 for all would take a CR for a `-`.
#[derive(Clone, Copy)]
struct Word {
    lower: u64,
    mask: u64,
}

impl Word {
    const EMPTY: Self = Self { lower: 0, mask: 0 };

    /// `word` is in lower case.
    const fn new(word: u64) -> Self {
        let bytes = word.to_le_bytes();
        let mut mask = [0; 8];
        let mut at = 0;
        while at < 8 {
            mask[at] = if bytes[at].is_ascii_alphabetic() {
                0x20
            } else {
                0
            };
            at += 1;
        }
        Self {
            lower: word,
            mask: u64::from_le_bytes(mask),
        }
    }
}

impl Shape {
    const EMPTY: Self = Self {
        len: 0,
        first: Word::EMPTY,
        last: Word::EMPTY,
        middle: [Word::EMPTY; 2],
    };

    const fn new(name: &str) -> Self {
        let name = name.as_bytes();
        assert!(name.len() >= 2 && name.len() <= MAX_LEN);
        let mut lower = [0; MAX_LEN];
        let mut at = 0;
        while at < name.len() {
            lower[at] = name[at].to_ascii_lowercase();
            at += 1;
        }
        let (lower, _) = lower.split_at(name.len());
        let Some((first, last)) = ends(lower) else {
            panic!("it has two bytes")
        };
        let mut shape = Self::EMPTY;
        shape.len = name.len();
        shape.first = Word::new(first);
        shape.last = Word::new(last);
        if name.len() > 16 {
            shape.middle[0] = Word::new(load8(lower, 8));
        }
        if name.len() > 24 {
            shape.middle[1] = Word::new(load8(lower, 16));
        }
        shape
    }

    /// `name` is as long as the shape, and longer than 16.
    fn has_middle_of(&self, name: &[u8], change: impl Fn(u64) -> u64) -> bool {
        let [second, third] = self.middle;
        let word = |at| change(load8(name, at));
        word(8) | second.mask == second.lower
            && (name.len() <= 24 || word(16) | third.mask == third.lower)
    }
}

/// The word with every `_` in it made `-`.
#[inline(always)]
const fn dashed(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // A byte of it is 0 where `_` was; the highest bit of the mark is set there and nowhere else.
    let other = word ^ (u64::MAX / 0xff * b'_' as u64);
    let mark = !(((other & LOW) + LOW) | other | LOW);
    word ^ ((mark >> 7) * (b'_' ^ b'-') as u64)
}

const fn load8(bytes: &[u8], at: usize) -> u64 {
    match bytes.split_at(at).1.first_chunk() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => 0,
    }
}

/// The first and the last eight bytes of a name, overlapping if it is shorter than 16; of one
/// shorter than 8 the first and the last four, and so on. `None` for less than two bytes.
#[inline(always)]
const fn ends(name: &[u8]) -> Option<(u64, u64)> {
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return Some((u64::from_le_bytes(*first), u64::from_le_bytes(*last)));
    }
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return Some((
            u32::from_le_bytes(*first) as u64,
            u32::from_le_bytes(*last) as u64,
        ));
    }
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return Some((
            u16::from_le_bytes(*first) as u64,
            u16::from_le_bytes(*last) as u64,
        ));
    }
    None
}

/// The case of letters is left out by setting 0x20 in every byte; that some other bytes are
/// changed as well does no harm here, as names are compared afterwards.
#[inline(always)]
const fn slot(first: u64, last: u64, len: usize, multiplier: u64) -> usize {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let key = (first | LOWER) ^ (last | LOWER).rotate_left(29) ^ len as u64;
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
    let mut shapes = [Shape::EMPTY; NAMES.len() + 1];
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
    fn rfc3875_4_1_18_every_name_is_recognised_by_its_variable() {
        for &known in Known::ALL {
            let name = known.name();
            let variable = name.to_uppercase().replace('-', "_");
            assert_eq!(Known::of_variable(variable.as_bytes()), Some(known));
            assert_eq!(Known::of_variable(name.as_bytes()), Some(known));
            let variable = variable.as_bytes();
            for at in 0..variable.len() {
                for byte in 0..=u8::MAX {
                    let mut other = variable.to_vec();
                    other[at] = byte;
                    let dashed = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
                    let name: Vec<u8> = other.iter().map(dashed).collect();
                    let found = Known::of_variable(&other);
                    assert_eq!(found, Known::of(&name), "{}", other.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn unknown_names_of_every_length() {
        for len in 0..100 {
            assert_eq!(Known::of_variable(&vec![b'_'; len]), None);
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
