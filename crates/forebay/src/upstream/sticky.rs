//! `sticky`: a cookie that leads a client back to its peer.
//!
//! The cookie's value is a keyed hash of the pool's name and the peer's target, so it tells nothing of
//! the peer, nobody without the key can make one, and it stays the same wherever the peer stands in its
//! pool and whatever else of the pool changes. All of a pool's values are made once: to check one is to
//! look for it among them.

use std::sync::OnceLock;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forebay_fields::{Fields, Known};
use rustc_hash::FxHashMap;

use super::{Member, Upstream};
use crate::exchange::{Exchange, Response};

/// Bytes of the key.
pub const KEY_LEN: usize = 32;

/// Of a hash so many bytes are used: more than anybody can guess.
const TAG_LEN: usize = 16;

/// A [`TAG_LEN`] in base64.
type Token = [u8; 22];

/// The key of this process, for all pools and over all reloads.
static KEY: OnceLock<hmac::Key> = OnceLock::new();

/// Sets the key, before any pool is used. Nothing changes if there is one.
pub fn set_key(bytes: &[u8; KEY_LEN]) {
    KEY.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, bytes));
}

/// Whether there is a key.
pub fn has_key() -> bool {
    KEY.get().is_some()
}

/// A key of nobody else's.
pub fn random_key() -> Result<[u8; KEY_LEN], String> {
    let mut bytes = [0; KEY_LEN];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "there are no random numbers".to_owned())?;
    Ok(bytes)
}

/// The cookies of a pool.
pub struct Sticky {
    /// What they are called.
    name: Box<str>,
    /// Made when they are used first: what a configuration is only checked for needs none.
    tokens: OnceLock<Tokens>,
}

struct Tokens {
    /// By the number of the peer.
    of: Box<[Token]>,
    /// In their own order, each with its peer.
    peers: Box<[(Token, usize)]>,
}

impl Sticky {
    /// Of a pool with this option.
    pub fn new(name: &str) -> Sticky {
        Sticky {
            name: name.into(),
            tokens: OnceLock::new(),
        }
    }

    /// The name of the cookie.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn tokens(&self, pool: &str, peers: &[Member]) -> &Tokens {
        self.tokens.get_or_init(|| {
            let key = KEY.get_or_init(|| {
                let bytes = random_key().unwrap_or_default();
                hmac::Key::new(hmac::HMAC_SHA256, &bytes)
            });
            Tokens::new(key, pool, peers)
        })
    }
}

impl Tokens {
    fn new(key: &hmac::Key, pool: &str, members: &[Member]) -> Tokens {
        // Of several with the same target each is one of its own.
        let mut seen: FxHashMap<&str, u32> = FxHashMap::default();
        let of = members.iter().map(|member| {
            let number = seen.entry(&member.label).or_default();
            *number += 1;
            token(key, &format!("sticky\0{pool}\0{}\0{number}", member.label))
        });
        let of: Box<[Token]> = of.collect();
        let mut peers: Vec<_> = of.iter().copied().zip(0..).collect();
        peers.sort_unstable();
        Tokens {
            of,
            peers: peers.into(),
        }
    }

    fn find(&self, value: &[u8]) -> Option<usize> {
        // A token is no secret of anybody's: each client of the peer has it.
        let at = self
            .peers
            .binary_search_by(|(token, _)| token.as_slice().cmp(value));
        Some(self.peers[at.ok()?].1)
    }
}

fn token(key: &hmac::Key, text: &str) -> Token {
    let tag = hmac::sign(key, text.as_bytes());
    let mut token = [0; 22];
    // 16 bytes are 22 letters of base64.
    let written = URL_SAFE_NO_PAD.encode_slice(&tag.as_ref()[..TAG_LEN], &mut token);
    debug_assert_eq!(written, Ok(token.len()));
    token
}

impl Upstream {
    /// The peer that a cookie leads this client back to.
    pub fn led_to(&self, fields: &Fields) -> Option<usize> {
        let sticky = self.sticky.as_ref()?;
        if !fields.contains(Known::Cookie) {
            return None;
        }
        let definition = &self.definition;
        let tokens = sticky.tokens(&definition.name, &definition.peers);
        let mut own = fields
            .cookies()
            .filter(|(name, _)| *name == sticky.name.as_bytes());
        own.find_map(|(_, value)| tokens.find(value))
    }

    /// Has the client come back to this peer, with its next request.
    pub fn lead_to(&self, peer: usize, exchange: &Exchange, response: &mut Response) {
        let Some(sticky) = &self.sticky else {
            return;
        };
        let definition = &self.definition;
        let tokens = sticky.tokens(&definition.name, &definition.peers);
        let mut cookie = Vec::with_capacity(96);
        cookie.extend_from_slice(sticky.name.as_bytes());
        cookie.push(b'=');
        cookie.extend_from_slice(&tokens.of[peer]);
        cookie.extend_from_slice(b"; Path=/; HttpOnly; SameSite=Lax");
        if exchange.remote.tls {
            cookie.extend_from_slice(b"; Secure");
        }
        // A head that is full already goes without: the client is balanced anew then.
        let _ = response.fields.append(Known::SetCookie, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Place;

    fn members(labels: &[&str]) -> Vec<Member> {
        let member = |label: &&str| Member {
            label: (*label).into(),
            place: Place::Unix("/tmp/a.sock".into()),
            tls: false,
        };
        labels.iter().map(member).collect()
    }

    fn tokens(key: u8, pool: &str, labels: &[&str]) -> Tokens {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[key; KEY_LEN]);
        Tokens::new(&key, pool, &members(labels))
    }

    #[test]
    fn a_token_is_its_peers_wherever_that_stands() {
        let before = tokens(1, "app", &["a:1", "b:1", "c:1"]);
        let after = tokens(1, "app", &["new:1", "c:1", "a:1"]);
        assert_eq!(after.find(&before.of[0]), Some(2));
        assert_eq!(after.find(&before.of[1]), None, "it is gone");
        assert_eq!(after.find(&before.of[2]), Some(1));
    }

    #[test]
    fn a_token_is_of_one_pool_and_one_key() {
        let one = tokens(1, "app", &["a:1", "a:1", "b:1"]);
        assert_ne!(one.of[0], one.of[1], "two with one target");
        for (at, token) in one.of.iter().enumerate() {
            assert_eq!(one.find(token), Some(at));
            assert_eq!(tokens(2, "app", &["a:1", "a:1", "b:1"]).find(token), None);
            assert_eq!(tokens(1, "api", &["a:1", "a:1", "b:1"]).find(token), None);
        }
        for strange in [&b""[..], b"0", b"a:1", &one.of[0][..21], &[0xff; 22]] {
            assert_eq!(one.find(strange), None);
        }
    }
}
