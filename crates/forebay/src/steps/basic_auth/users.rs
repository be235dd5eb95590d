//! A file of users and the hashes of their passwords.
//!
//! One `user:hash` in a line, as `htpasswd -B` writes them; blank lines and those that begin with
//! `#` are left out.

use std::hash::{BuildHasher, RandomState};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier};
use bcrypt::HashParts;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::joined::Joined;
use crate::steps::watched::Wrong;

/// What a hash may cost at most. More would be a way to stop the server, by whoever knows a name.
const MAX_ARGON2_KIB: u32 = 1 << 20;
const MAX_ARGON2_PASSES: u32 = 64;
const MAX_BCRYPT_COST: u32 = 16;

/// The hash of one password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hash {
    Argon2(Box<str>),
    Bcrypt(Box<str>),
}

/// The users of a file.
#[derive(Debug)]
pub struct Users {
    hashes: FxHashMap<Box<[u8]>, Hash>,
    /// Of the file's first user: what is computed for one who is not in it, so that the time it
    /// takes does not tell.
    first: Option<Hash>,
}

impl Users {
    /// Reads a file.
    pub fn parse(bytes: &[u8]) -> Result<Users, Vec<Wrong>> {
        let (mut hashes, mut first, mut wrongs) = (FxHashMap::default(), None, Vec::new());
        for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            match user(line) {
                Ok((name, hash)) => {
                    first.get_or_insert_with(|| hash.clone());
                    if hashes.insert(name, hash).is_some() {
                        wrongs.push(Wrong {
                            line: at + 1,
                            what: "this user is there twice",
                            help: "expected one line for each user",
                        });
                    }
                }
                Err((what, help)) => wrongs.push(Wrong {
                    line: at + 1,
                    what,
                    help,
                }),
            }
        }
        if wrongs.is_empty() {
            Ok(Users { hashes, first })
        } else {
            Err(wrongs)
        }
    }

    /// What the password of this user is to be compared with, and whether there is such a user.
    pub fn hash_for(&self, user: &[u8]) -> (Option<&Hash>, bool) {
        match self.hashes.get(user) {
            Some(hash) => (Some(hash), true),
            None => (self.first.as_ref(), false),
        }
    }
}

type Said = (&'static str, &'static str);

fn user(line: &[u8]) -> Result<(Box<[u8]>, Hash), Said> {
    let expected = "expected user:hash, as `htpasswd -nB` prints it";
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, hash) = line.split_at(colon.ok_or(("there is no colon", expected))?);
    if name.is_empty() {
        return Err(("there is no name", expected));
    }
    let hash = std::str::from_utf8(&hash[1..]).map_err(|_| ("the hash is no text", expected))?;
    Ok((name.into(), Hash::parse(hash)?))
}

impl Hash {
    fn parse(text: &str) -> Result<Hash, Said> {
        let broken = ("the hash cannot be read", "expected all of it, in one line");
        if text.starts_with("$argon2") {
            let hash = PasswordHash::new(text).map_err(|_| broken)?;
            let known = Algorithm::try_from(hash.algorithm.as_str()).is_ok();
            let params = Params::try_from(&hash).map_err(|_| broken)?;
            if !known || hash.hash.is_none() || hash.salt.is_none() {
                return Err(broken);
            }
            if params.m_cost() > MAX_ARGON2_KIB || params.t_cost() > MAX_ARGON2_PASSES {
                let help = "expected at most 1 GiB of memory (m=1048576) and 64 passes (t=64)";
                return Err(("the hash costs too much", help));
            }
            return Ok(Hash::Argon2(text.into()));
        }
        if text.starts_with("$2") {
            let parts: HashParts = text.parse().map_err(|_| broken)?;
            return match parts.get_cost() {
                4..=MAX_BCRYPT_COST => Ok(Hash::Bcrypt(text.into())),
                _ => Err((
                    "the hash costs too much or too little",
                    "expected a cost of 4 to 16",
                )),
            };
        }
        let help = "expected argon2 ($argon2id$…) or bcrypt ($2y$…), as `htpasswd -nB` prints it";
        Err(("this kind of hash is not known", help))
    }

    /// Whether it is this password's. Takes as long as whoever made the hash wanted it to.
    pub fn matches(&self, password: &[u8]) -> bool {
        match self {
            Hash::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Hash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        }
    }

    fn text(&self) -> &str {
        match self {
            Hash::Argon2(text) | Hash::Bcrypt(text) => text,
        }
    }
}

/// Passwords that were found right within the last minute: a browser sends one with every request,
/// and each would cost what a hash costs.
#[derive(Default)]
pub struct Verified {
    /// What is being hashed.
    pub joined: Joined,
    /// Secret, drawn for this table, and used for nothing else: two keyed hashes of 64 bits.
    keys: [RandomState; 2],
    until_ms: Mutex<FxHashMap<[u64; 2], u64>>,
}

/// How long a password that was right is believed.
const BELIEVED_MS: u64 = 60_000;

/// How many of them at most; beyond that the oldest go.
const MAX_VERIFIED: usize = 16 * 1024;

impl Verified {
    /// The number of a password for a hash. Not of a password for a name: when the file gets
    /// another hash for the name, what was believed of the old one is worth nothing.
    pub fn key(&self, hash: &Hash, password: &[u8]) -> [u64; 2] {
        [0, 1].map(|at| self.keys[at].hash_one((hash.text(), password)))
    }

    /// The number of a password that somebody of this name has sent. Where two names with one
    /// password shared a hash, the time it takes would tell that neither of them is in the file.
    pub fn key_of_user(&self, user: &[u8], key: [u64; 2]) -> [u64; 2] {
        [0, 1].map(|at| self.keys[at].hash_one((user, key)))
    }

    pub fn contains(&self, key: [u64; 2], now_ms: u64) -> bool {
        let until_ms = self.until_ms.lock();
        until_ms.get(&key).is_some_and(|until| now_ms < *until)
    }

    pub fn insert(&self, key: [u64; 2], now_ms: u64) {
        let mut until_ms = self.until_ms.lock();
        if until_ms.len() >= MAX_VERIFIED && !until_ms.contains_key(&key) {
            until_ms.retain(|_, until| now_ms < *until);
            // Still full: half of the time that is left at most, so that this is not done again
            // for the next one.
            if until_ms.len() >= MAX_VERIFIED {
                until_ms.retain(|_, until| now_ms + BELIEVED_MS / 2 < *until);
            }
            if until_ms.len() >= MAX_VERIFIED {
                until_ms.clear();
            }
        }
        until_ms.insert(key, now_ms + BELIEVED_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `secret`, as cheap as the formats allow.
    const ARGON2: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$";

    fn bcrypt_of(password: &str) -> String {
        bcrypt::hash_with_salt(password, 4, [7; 16])
            .expect("a hash")
            .to_string()
    }

    fn argon2_of(password: &str) -> String {
        use argon2::PasswordHasher;
        let params = Params::new(8, 1, 1, None).expect("parameters");
        let hash = Argon2::from(params).hash_password_with_salt(password.as_bytes(), b"saltsalt");
        hash.expect("a hash").to_string()
    }

    #[test]
    fn passwords_of_both_kinds() {
        let (argon2, bcrypt) = (argon2_of("secret"), bcrypt_of("öther"));
        assert!(argon2.starts_with(ARGON2), "{argon2}");
        let file = format!("# people\n\nann:{argon2}\r\n b\u{f6}b:{bcrypt}\n");
        let users = Users::parse(file.as_bytes()).expect("it is right");
        for (user, password, right) in [
            ("ann", "secret", true),
            ("ann", "Secret", false),
            ("ann", "", false),
            ("böb", "öther", true),
            ("böb", "secret", false),
        ] {
            let (hash, known) = users.hash_for(user.as_bytes());
            assert!(known, "{user}");
            let matches = hash.expect("a hash").matches(password.as_bytes());
            assert_eq!(matches, right, "{user} {password}");
        }
        // The work for somebody unknown is that for the first one.
        let (hash, known) = users.hash_for(b"eve");
        assert_eq!((hash, known), (users.hash_for(b"ann").0, false));
        assert!(
            Users::parse(b"")
                .expect("no users")
                .hash_for(b"x")
                .0
                .is_none()
        );
        // `$2y$`, `$2b$` and `$2a$` are the same thing.
        for version in ["$2y$", "$2b$", "$2a$"] {
            let hash = Hash::parse(&bcrypt.replacen(&bcrypt[..4], version, 1)).expect("a hash");
            assert!(hash.matches("öther".as_bytes()), "{version}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_line_by_line() {
        let argon2 = argon2_of("x");
        let expensive = argon2.replace("m=8", "m=2000000");
        let slow = bcrypt_of("x").replace("$04$", "$31$");
        let cut = &argon2[..argon2.len() - 50];
        let file = format!(
            "nothing\n:{argon2}\na:plain\nb:$1$md5$x\nc:{expensive}\nd:{slow}\ne:{argon2}\ne:{argon2}\nf:{cut}\ng:$2y$05$short\n"
        );
        let wrongs = Users::parse(file.as_bytes()).expect_err("it is wrong");
        let said: Vec<(usize, &str)> = wrongs
            .iter()
            .map(|wrong| (wrong.line, wrong.what))
            .collect();
        let unknown = "this kind of hash is not known";
        assert_eq!(
            said,
            [
                (1, "there is no colon"),
                (2, "there is no name"),
                (3, unknown),
                (4, unknown),
                (5, "the hash costs too much"),
                (6, "the hash costs too much or too little"),
                (8, "this user is there twice"),
                (9, "the hash cannot be read"),
                (10, "the hash cannot be read"),
            ]
        );
    }

    #[test]
    fn what_was_right_is_believed_for_a_minute() {
        let verified = Verified::default();
        let hash = |text: &str| Hash::Bcrypt(text.into());
        let key = verified.key(&hash("one"), b"secret");
        assert!(!verified.contains(key, 0));
        verified.insert(key, 0);
        assert!(verified.contains(key, BELIEVED_MS - 1));
        assert!(!verified.contains(key, BELIEVED_MS));
        assert_ne!(key, verified.key(&hash("two"), b"secret"));
        assert_ne!(key, verified.key(&hash("one"), b"Secret"));
        assert_ne!(key, Verified::default().key(&hash("one"), b"secret"));
    }

    #[test]
    fn as_many_as_there_may_be() {
        let verified = Verified::default();
        for number in 0..3 * MAX_VERIFIED as u64 {
            verified.insert([number, number], number);
        }
        assert!(verified.until_ms.lock().len() <= MAX_VERIFIED);
        let last = 3 * MAX_VERIFIED as u64 - 1;
        assert!(verified.contains([last, last], last));
    }
}
