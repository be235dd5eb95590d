//! What an object is found by.
//!
//! The key is compared whole; its hash only says where to look. Keys are what remotes choose, so
//! the hash is keyed (SipHash-1-3, 128 bits): nobody can make two of them meet.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub u128);

/// The secret under which keys are hashed.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    /// The hash of these bytes.
    pub fn hash(&self, key: &[u8]) -> Hash {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(key);
        Hash(hasher.finish128().as_u128())
    }
}

impl Hash {
    /// Half of it, for tables that need no more.
    #[expect(clippy::cast_possible_truncation, reason = "half of it is asked for")]
    pub fn half(self) -> u64 {
        self.0 as u64
    }

    /// As much of it as objects in memory know; those that agree in it are told apart by their keys.
    #[expect(clippy::cast_possible_truncation, reason = "a part of it is asked for")]
    pub(crate) fn place(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Another one, of something that belongs to this: one variant of a key.
    #[must_use]
    pub fn with(self, other: Hash) -> Hash {
        Hash(self.0.rotate_left(1) ^ other.0)
    }
}

/// The part of a key that is the URL. Behind a line feed, which no URL has, stands what else the
/// operator has put into the key.
pub fn url_of(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// The host (and port) of a URL.
pub fn host_of(url: &[u8]) -> &[u8] {
    let rest = match url.windows(3).position(|three| three == b"://") {
        Some(at) => &url[at + 3..],
        None => url,
    };
    rest.split(|byte| *byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let key = b"https://a.example:8443/x/y?q=1\nphone";
        assert_eq!(url_of(key), b"https://a.example:8443/x/y?q=1");
        assert_eq!(host_of(url_of(key)), b"a.example:8443");
        assert_eq!(host_of(b""), b"");
    }

    #[test]
    fn hashes_differ_by_secret_and_key() {
        let one = Secret([1; 16]);
        assert_eq!(one.hash(b"a"), one.hash(b"a"));
        assert_ne!(one.hash(b"a"), one.hash(b"b"));
        assert_ne!(one.hash(b"a"), Secret([2; 16]).hash(b"a"));
        assert_ne!(one.hash(b"a").with(one.hash(b"b")), one.hash(b"a"));
    }
}
