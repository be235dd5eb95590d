//! Methods (RFC 9110 §9, RFC 5789, and the WebDAV family where it matters).

use std::fmt;

/// A request method. Case-sensitive: `get` is not [`Method::Get`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "each variant is the method that it is named after"
)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other token of at most [`OtherMethod::MAX_LEN`] bytes.
    Other(OtherMethod),
}

/// A method without a variant of its own, kept in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OtherMethod {
    len: u8,
    bytes: [u8; Self::MAX_LEN],
}

impl OtherMethod {
    /// The longest registered method (`UPDATEREDIRECTREF`) has 17 bytes.
    pub const MAX_LEN: usize = 23;

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Method {
    /// The method of that name; `None` if it is no token, or longer than
    /// [`OtherMethod::MAX_LEN`].
    #[inline]
    #[must_use]
    pub fn new(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            other if forebay_fields::is_token(other) => {
                let mut bytes = [0; OtherMethod::MAX_LEN];
                bytes.get_mut(..other.len())?.copy_from_slice(other);
                Self::Other(OtherMethod {
                    len: u8::try_from(other.len()).ok()?,
                    bytes,
                })
            }
            _ => return None,
        })
    }

    /// The method's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            // A token is ASCII; the default cannot occur.
            Self::Other(other) => std::str::from_utf8(other.as_bytes()).unwrap_or_default(),
        }
    }

    /// Whether the client asks for nothing to change (RFC 9110 §9.2.1; IANA's method registry).
    #[must_use]
    pub fn is_safe(&self) -> bool {
        match self {
            Self::Get | Self::Head | Self::Options | Self::Trace => true,
            Self::Other(other) => {
                matches!(
                    other.as_bytes(),
                    b"PROPFIND" | b"REPORT" | b"SEARCH" | b"QUERY" | b"PRI"
                )
            }
            _ => false,
        }
    }

    /// Whether sending it twice means the same as sending it once (RFC 9110 §9.2.2; IANA's
    /// method registry), so that it may be tried again. Unknown methods are not.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        match self {
            Self::Put | Self::Delete => true,
            Self::Other(other) => {
                self.is_safe()
                    || matches!(
                        other.as_bytes(),
                        b"ACL"
                            | b"BIND"
                            | b"CHECKIN"
                            | b"CHECKOUT"
                            | b"COPY"
                            | b"LABEL"
                            | b"LINK"
                            | b"MERGE"
                            | b"MKACTIVITY"
                            | b"MKCALENDAR"
                            | b"MKCOL"
                            | b"MKREDIRECTREF"
                            | b"MKWORKSPACE"
                            | b"MOVE"
                            | b"ORDERPATCH"
                            | b"PROPPATCH"
                            | b"REBIND"
                            | b"UNBIND"
                            | b"UNCHECKOUT"
                            | b"UNLINK"
                            | b"UNLOCK"
                            | b"UPDATE"
                            | b"UPDATEREDIRECTREF"
                            | b"VERSION-CONTROL"
                    )
            }
            _ => self.is_safe(),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for OtherMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}
