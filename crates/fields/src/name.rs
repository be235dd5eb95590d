//! Names to look for.

use crate::known::{Known, KnownSet};

/// A field name to look for: known, or any other.
///
/// Made from a [`Known`], a `&str` or bytes; text that spells a known name becomes `Known`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// One of the names that are found by their number.
    Known(Known),
    /// Any other name, compared without regard to case.
    Other(&'a [u8]),
}

impl<'a> Name<'a> {
    /// The name's text.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Known(known) => known.name().as_bytes(),
            Self::Other(other) => other,
        }
    }

    /// Whether this field is one that `Connection` may not name, because a message without it
    /// would mean something else further on: `Host`, `Content-*`, `Transfer-Encoding`,
    /// `Authorization`, the cookies, `Forwarded` and what it stands for.
    ///
    /// Known as the hop-by-hop abuse: a client makes a proxy strip what the application relies on.
    #[must_use]
    pub fn is_protected(self) -> bool {
        const PROTECTED: KnownSet = KnownSet::of(&[
            Known::Host,
            Known::TransferEncoding,
            Known::Authorization,
            Known::Cookie,
            Known::SetCookie,
        ])
        .union(KnownSet::FORWARDING);
        match self {
            Self::Known(known) if PROTECTED.contains(known) => true,
            _ => self
                .as_bytes()
                .first_chunk::<8>()
                .is_some_and(|start| start.eq_ignore_ascii_case(b"content-")),
        }
    }
}

impl From<Known> for Name<'_> {
    fn from(known: Known) -> Self {
        Self::Known(known)
    }
}

impl<'a> From<&'a [u8]> for Name<'a> {
    fn from(name: &'a [u8]) -> Self {
        Known::of(name).map_or(Self::Other(name), Self::Known)
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(name: &'a str) -> Self {
        Self::from(name.as_bytes())
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Name<'a> {
    fn from(name: &'a [u8; N]) -> Self {
        Self::from(name.as_slice())
    }
}
