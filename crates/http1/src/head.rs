//! Heads as they are after parsing.

use std::fmt;

use bytes::Bytes;
use forebay_fields::Fields;

use crate::method::Method;

/// The versions that are spoken here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

impl Version {
    /// `HTTP/1.0` or `HTTP/1.1`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// Where the body of a message ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// There is none.
    #[default]
    None,
    /// After so many bytes; at most 2^63 − 1.
    Length(u64),
    /// At the chunk of size 0 and its trailers.
    Chunked,
    /// When the connection is closed; responses only.
    UntilClose,
}

/// The scheme of a target in absolute form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`, whose default port is 80.
    Http,
    /// `https`, whose default port is 443.
    Https,
}

impl Scheme {
    /// The port that is meant when none is given.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// How the target was written (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`; [`RequestHead::target`] is reduced to `/path?query`.
    Absolute(Scheme),
    /// `host:port`, for CONNECT only.
    Authority,
    /// `*`, for OPTIONS only.
    Asterisk,
}

/// How much a head may be. The defaults are those of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line (or status line) with its CRLF; beyond it 414.
    pub max_request_line: u32,
    /// Bytes of all field lines with their CRLFs; beyond it 431. The request line and the
    /// empty line at the end do not count.
    pub max_header: u32,
    /// Field lines; beyond it 431. Values over [`Limits::MOST_FIELDS`] count as that.
    pub max_fields: u16,
}

impl Limits {
    /// More field lines than this are never taken.
    pub const MOST_FIELDS: u16 = 100;

    /// The most bytes that a head within the limits can have; a buffer that holds so many
    /// always makes the parser decide.
    #[must_use]
    pub const fn max_head(&self) -> usize {
        // An empty line before the request line and one at the end.
        self.max_request_line as usize + self.max_header as usize + 4
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_line: 16 * 1024,
            max_header: 64 * 1024,
            max_fields: Self::MOST_FIELDS,
        }
    }
}

/// The head of a request. Reusable: parsing the next one into it allocates nothing.
#[derive(Clone, Default)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The version the client speaks.
    pub version: Version,
    /// Where the body ends; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the client wants to send more requests on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for a 100 before it sends the body (RFC 9110 §10.1.1): only for
    /// HTTP/1.1 and only if there is a body.
    pub expect_continue: bool,
    /// Whether `Connection: upgrade` and an `Upgrade` field offer another protocol
    /// (RFC 9110 §7.8); only for HTTP/1.1.
    pub upgrade: bool,
    /// How many fields were dropped because there is a `_` in their name: CGI makes the same
    /// variable of `X_A` and `X-A`, so that one could pass for the other.
    pub dropped_fields: u16,
    /// The fields, without the dropped ones.
    pub fields: Fields,
    pub(crate) form: TargetForm,
    /// Copied, like the host, so that it outlives `fields` if those are taken away.
    pub(crate) target: String,
    /// Where the path ends in it.
    pub(crate) path_len: usize,
    /// In lower case; empty if there is none.
    pub(crate) host: String,
    /// What `Host` has said last, if that was a host as it is kept, and no port. Who asks more
    /// than once mostly says the same, and of that nothing has to be found out again.
    pub(crate) usual_host: String,
    pub(crate) port: Option<u16>,
}

/// Room that a head keeps for the next one; an unusually long target's is given back.
const KEPT_ROOM: usize = 4096;

impl RequestHead {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the request and lets go of the received bytes, but keeps its room.
    pub fn clear(&mut self) {
        self.method = Method::Get;
        self.version = Version::Http11;
        self.framing = Framing::None;
        self.keep_alive = false;
        self.expect_continue = false;
        self.upgrade = false;
        self.dropped_fields = 0;
        self.fields.clear();
        self.form = TargetForm::Origin;
        self.target.clear();
        if self.target.capacity() > KEPT_ROOM {
            self.target.shrink_to(KEPT_ROOM);
        }
        self.path_len = 0;
        self.host.clear();
        self.port = None;
    }

    /// The target: `/path?query` as it was sent (of an absolute target that part, with `/` for
    /// an empty path), `*`, or `host:port` for CONNECT. Visible ASCII without `#`, never empty.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// How much of [`target`](Self::target) comes before the question mark of its query.
    #[must_use]
    pub fn path_len(&self) -> usize {
        self.path_len
    }

    /// Moves target and host out, in exchange for the room of others. They must be asked for
    /// before; the host is empty where there is none.
    pub fn swap_names(&mut self, target: &mut String, host: &mut String) {
        std::mem::swap(&mut self.target, target);
        std::mem::swap(&mut self.host, host);
        self.target.clear();
        self.host.clear();
    }

    /// How the target was written.
    #[must_use]
    pub fn target_form(&self) -> TargetForm {
        self.form
    }

    /// The host in lower case, without the port; an IPv6 address in its brackets. `None` only
    /// for HTTP/1.0 without `Host`.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        Some(self.host.as_str()).filter(|host| !host.is_empty())
    }

    /// The port that stands in `Host`, if one does.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The head as it was received, from the request line to the empty line; empty once
    /// `fields` was taken away.
    #[must_use]
    pub fn received(&self) -> &Bytes {
        self.fields.base()
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("target", &self.target())
            .field("form", &self.form)
            .field("version", &self.version)
            .field("host", &self.host())
            .field("port", &self.port)
            .field("framing", &self.framing)
            .field("keep_alive", &self.keep_alive)
            .field("expect_continue", &self.expect_continue)
            .field("upgrade", &self.upgrade)
            .field("dropped_fields", &self.dropped_fields)
            .field("fields", &self.fields)
            .finish()
    }
}

/// The head of a response. Reusable like [`RequestHead`].
#[derive(Clone, Default)]
pub struct ResponseHead {
    /// 100 to 999. A status over 599 is invalid, but is passed on as origins do send them.
    pub status: u16,
    /// The version the sender speaks.
    pub version: Version,
    /// Where the body ends, given the request's method.
    pub framing: Framing,
    /// What `Content-Length` says, even where there is no body (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether the sender keeps the connection open for more; false with
    /// [`Framing::UntilClose`].
    pub keep_alive: bool,
    /// Whether `Connection: upgrade` and `Upgrade` are there; with status 101 the connection
    /// speaks another protocol behind this head.
    pub upgrade: bool,
    /// The fields. Repeated equal `Content-Length`s are reduced to one; those of 1xx and 204 are
    /// removed (RFC 9110 §8.6).
    pub fields: Fields,
    pub(crate) reason: Vec<u8>,
}

impl ResponseHead {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the response and lets go of the received bytes, but keeps its room.
    pub fn clear(&mut self) {
        self.status = 0;
        self.version = Version::Http11;
        self.framing = Framing::None;
        self.content_length = None;
        self.keep_alive = false;
        self.upgrade = false;
        self.fields.clear();
        self.reason.clear();
        self.reason.shrink_to(KEPT_ROOM);
    }

    /// The reason phrase as it was sent; may be empty, may hold bytes from 0x80 on.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        &self.reason
    }

    /// Whether this is an interim response (1xx) that another one follows. A 101 is final: the
    /// connection has switched to another protocol.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("reason", &format_args!("{}", self.reason().escape_ascii()))
            .field("version", &self.version)
            .field("framing", &self.framing)
            .field("content_length", &self.content_length)
            .field("keep_alive", &self.keep_alive)
            .field("upgrade", &self.upgrade)
            .field("fields", &self.fields)
            .finish()
    }
}
