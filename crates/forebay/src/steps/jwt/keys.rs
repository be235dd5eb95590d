//! A set of keys (JWKS, RFC 7517), and tokens checked with them (RFC 7519).
//!
//! A key is for one algorithm, which its type says and a token cannot choose: else a token signed
//! by HMAC with the text of a public key, which everybody has, would pass as one signed by RSA.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::steps::watched::Wrong;

/// More are no set of keys that anybody rotates.
const MAX_KEYS: usize = 100;

/// So many keys are tried for a token that does not name its own.
const MAX_TRIES: usize = 4;

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// The keys of a set that can be used here.
pub struct Keys(pub(super) Vec<Key>);

pub(super) struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Written {
    keys: Vec<Value>,
}

/// As it is written; what is not known is left out.
#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

impl Keys {
    /// Reads a set that the operator has written. Keys of other types, for other algorithms or not
    /// for signatures are left out, as RFC 7517 §5 says; one that should be right and is not is a
    /// mistake.
    pub fn parse(bytes: &[u8]) -> Result<Keys, Vec<Wrong>> {
        Keys::read(bytes, false).map_err(|(what, help)| {
            vec![Wrong {
                line: 0,
                what,
                help,
            }]
        })
    }

    /// Reads a set that was fetched; the error says what is wrong with it. A key that is not right
    /// is left out: that somebody elsewhere adds one must not take the others out of use.
    pub fn fetched(bytes: &[u8]) -> Result<Keys, &'static str> {
        Keys::read(bytes, true).map_err(|(what, _)| what)
    }

    fn read(bytes: &[u8], lenient: bool) -> Result<Keys, Said> {
        let no_set = (
            "it is no set of keys",
            "expected { \"keys\": [ … ] }, as RFC 7517 has it",
        );
        let written: Written = serde_json::from_slice(bytes).map_err(|_| no_set)?;
        if written.keys.len() > MAX_KEYS {
            return Err(("it has too many keys", "expected at most 100"));
        }
        let mut keys = Vec::new();
        for key in written.keys {
            let read = serde_json::from_value::<WrittenKey>(key).map_err(|_| no_set);
            match read.and_then(|key| key.read()) {
                Ok(Some(key)) => keys.push(key),
                Ok(None) => {}
                Err(_) if lenient => {}
                Err(wrong) => return Err(wrong),
            }
        }
        if keys.is_empty() {
            let help = "expected one for RS256, ES256, EdDSA or HS256";
            return Err(("it has no key that can be used", help));
        }
        Ok(Keys(keys))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is a token that names a key which is not here: a newer set may have it.
    pub fn misses_key_of(&self, token: &str) -> bool {
        let Ok(header) = jsonwebtoken::decode_header(token) else {
            return false;
        };
        let is_here = |kid: &str| self.0.iter().any(|key| key.id.as_deref() == Some(kid));
        header.kid.is_some_and(|kid| !is_here(&kid))
    }

    /// The claims of a token that one of the keys has signed and that holds now.
    pub fn check(&self, token: &str, rules: &Rules) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // What must be understood and is not (RFC 7515 §4.1.11): nothing is.
        if header.crit.is_some() {
            return None;
        }
        let is_meant = |key: &&Key| {
            let named = match (&key.id, &header.kid) {
                (Some(id), Some(wanted)) => **id == **wanted,
                _ => true,
            };
            named && key.algorithm == header.alg
        };
        let mut meant = self.0.iter().filter(is_meant).take(MAX_TRIES);
        meant.find_map(|key| {
            let validation = rules.validation(key.algorithm);
            let checked = jsonwebtoken::decode::<Claims>(token, &key.key, &validation);
            checked.ok().map(|token| token.claims)
        })
    }
}

type Said = (&'static str, &'static str);

impl WrittenKey {
    fn read(&self) -> Result<Option<Key>, Said> {
        let algorithm = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => Algorithm::RS256,
            ("EC", Some("P-256")) => Algorithm::ES256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDSA,
            ("oct", _) => Algorithm::HS256,
            _ => return Ok(None),
        };
        let named = match algorithm {
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            Algorithm::EdDSA => "EdDSA",
            _ => "HS256",
        };
        let other = self.alg.as_deref().is_some_and(|alg| alg != named);
        if other || self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Ok(None);
        }
        let key = match algorithm {
            Algorithm::RS256 => {
                let (modulus, exponent) = (part(&self.n)?, part(&self.e)?);
                let modulus = without_zeros(&modulus);
                if !(256..=1024).contains(&modulus.len()) {
                    return Err((
                        "an RSA key is too short or too long",
                        "expected 2048 to 8192 bits",
                    ));
                }
                DecodingKey::from_rsa_raw_components(modulus, without_zeros(&exponent))
            }
            Algorithm::ES256 => {
                let broken = ("a P-256 key is broken", "expected `x` and `y` of 32 bytes");
                let right = part(&self.x)?.len() == 32 && part(&self.y)?.len() == 32;
                let (x, y) = (self.x.as_deref(), self.y.as_deref());
                match (right, x, y) {
                    (true, Some(x), Some(y)) => {
                        DecodingKey::from_ec_components(x, y).map_err(|_| broken)?
                    }
                    _ => return Err(broken),
                }
            }
            Algorithm::EdDSA => match part(&self.x)? {
                x if x.len() == 32 => DecodingKey::from_ed_der(&x),
                _ => return Err(("an Ed25519 key is broken", "expected `x` of 32 bytes")),
            },
            _ => match part(&self.k)? {
                // RFC 7518 §3.2.
                secret if secret.len() >= 32 => DecodingKey::from_secret(&secret),
                _ => return Err(("a secret is too short", "expected `k` of 32 bytes or more")),
            },
        };
        Ok(Some(Key {
            id: self.kid.as_deref().map(Into::into),
            algorithm,
            key,
        }))
    }
}

/// A part of a key, in base64 as RFC 7518 has it.
fn part(text: &Option<String>) -> Result<Vec<u8>, Said> {
    let bytes = text
        .as_ref()
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes.ok_or((
        "a part of a key is missing or no base64url",
        "expected it without padding",
    ))
}

/// Numbers are written without leading zeros; some writers add one for the sign.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// What a token must say.
#[derive(Default)]
pub struct Rules {
    pub issuer: Option<Box<str>>,
    pub audience: Option<Box<str>>,
}

/// How far the clocks of those who issue tokens may be off.
const LEEWAY_SECONDS: u64 = 30;

impl Rules {
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.validate_aud = self.audience.is_some();
        // A token without an end is one that nobody can take back.
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}
