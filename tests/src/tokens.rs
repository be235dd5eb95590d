//! Keys and tokens (RFC 7517, RFC 7519), made and signed by `openssl`.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

/// A key that signs tokens.
pub struct Signer {
    dir: TempDir,
    kid: String,
    algorithm: &'static str,
}

impl Signer {
    /// A new Ed25519 key of this name.
    #[must_use]
    pub fn ed25519(kid: &str) -> Self {
        Self::new(kid, "EdDSA", &["-algorithm", "ed25519"])
    }

    /// A new RSA key of this name.
    #[must_use]
    pub fn rsa(kid: &str) -> Self {
        Self::new(kid, "RS256", &["-algorithm", "RSA"])
    }

    fn new(kid: &str, algorithm: &'static str, args: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-tokens-")
            .tempdir()
            .expect("a directory");
        let signer = Self {
            dir,
            kid: kid.into(),
            algorithm,
        };
        signer.openssl(&[&["genpkey", "-out", "key"], args].concat(), &[]);
        signer.openssl(&["pkey", "-in", "key", "-pubout", "-out", "public"], &[]);
        signer
    }

    /// The public key, in PEM form.
    #[must_use]
    pub fn public_pem(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("public")).expect("a key")
    }

    /// The public key as a member of a set.
    #[must_use]
    pub fn jwk(&self) -> serde_json::Value {
        if self.algorithm == "EdDSA" {
            let der = self.openssl(&["pkey", "-in", "key", "-pubout", "-outform", "DER"], &[]);
            let x = base64url(&der[der.len() - 32..]);
            return serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x });
        }
        let said = self.openssl(&["rsa", "-in", "key", "-modulus", "-noout"], &[]);
        let said = String::from_utf8(said).expect("a text");
        let digits = said.trim().split('=').nth(1).expect("a modulus");
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits");
        let modulus: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        serde_json::json!({ "kty": "RSA", "kid": self.kid, "n": base64url(&modulus), "e": "AQAB" })
    }

    /// A token of this somebody that holds for an hour.
    #[must_use]
    pub fn token(&self, subject: &str) -> String {
        let text = unsigned(self.algorithm, &self.kid, subject);
        let signature = if self.algorithm == "EdDSA" {
            let file = self.dir.path().join("text");
            std::fs::write(&file, &text).expect("a file");
            let args = ["pkeyutl", "-sign", "-rawin", "-inkey", "key", "-in", "text"];
            self.openssl(&args, &[])
        } else {
            let args = ["dgst", "-sha256", "-sign", "key"];
            self.openssl(&args, text.as_bytes())
        };
        format!("{text}.{}", base64url(&signature))
    }

    /// A token signed by HMAC, with these bytes for a secret, that bears this key's name.
    #[must_use]
    pub fn confused_token(&self, secret: &[u8]) -> String {
        let text = unsigned("HS256", &self.kid, "eve");
        let secret = secret.iter().map(|byte| format!("{byte:02x}"));
        let secret = format!("hexkey:{}", secret.collect::<String>());
        let args = ["dgst", "-sha256", "-binary", "-mac", "HMAC", "-macopt"];
        let args = [&args[..], &[&secret]].concat();
        let signature = self.openssl(&args, text.as_bytes());
        format!("{text}.{}", base64url(&signature))
    }

    fn openssl(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("openssl")
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl, of the Debian package openssl");
        let mut stdin = child.stdin.take().expect("its input");
        // One that reads none of it may be gone.
        let _ = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {args:?}: {said}");
        output.stdout
    }
}

/// A set of these keys.
#[must_use]
pub fn jwks(signers: &[&Signer]) -> String {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    serde_json::json!({ "keys": keys }).to_string()
}

/// Header and claims of a token without its signature.
///
/// # Panics
/// When the clock is before 1970.
#[must_use]
pub fn unsigned(algorithm: &str, kid: &str, subject: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let end = now.expect("a time").as_secs() + 3_600;
    let header = serde_json::json!({ "alg": algorithm, "kid": kid, "typ": "JWT" });
    let claims = serde_json::json!({ "sub": subject, "exp": end });
    let part = |value: serde_json::Value| base64url(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

/// Base64 as RFC 7515 has it: for URLs, without padding.
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..=group.len() {
            let shift = 18 - 6 * u32::try_from(digit).expect("at most 3");
            let value = usize::try_from(bits >> shift & 63).expect("6 bits");
            text.push(char::from(DIGITS[value]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64url;

    #[test]
    fn rfc_4648_10_without_padding() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}
