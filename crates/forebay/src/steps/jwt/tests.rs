//! The keys and tokens were made by OpenSSL; those that go by the clock are made here.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::steps::testing::{Bench, Got, mistakes};

const KEYS: &str = include_str!("fixtures/keys.json");
const TOKENS: &str = include_str!("fixtures/tokens.txt");

/// Signed with this algorithm's key; it says `sub` ann, `iss` https://id.test, `aud` api and web.
fn token(name: &str) -> &'static str {
    let mut lines = TOKENS.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(found, _)| *found == name).expect("a token").1
}

fn keys() -> Keys {
    Keys::parse(KEYS.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn check(token: &str) -> Option<Claims> {
    keys().check(token, &Rules::default())
}

/// Signed with the secret of the set.
fn signed(header: &Header, claims: &Value) -> String {
    let secret = EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
    jsonwebtoken::encode(header, claims, &secret).expect("a token")
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    i64::try_from(now.as_secs()).expect("a time") + seconds
}

#[test]
fn every_algorithm() {
    for algorithm in ["RS256", "ES256", "EdDSA", "HS256"] {
        let token = token(algorithm);
        let claims = check(token).unwrap_or_else(|| panic!("{algorithm}"));
        assert_eq!(claims["sub"], "ann", "{algorithm}");
        // One bit of it, anywhere: of the last digit only the first bits count.
        let dots: Vec<usize> = token.match_indices('.').map(|(at, _)| at).collect();
        for at in (0..token.len() - 1)
            .filter(|at| !dots.contains(at))
            .step_by(7)
        {
            let mut broken = token.as_bytes().to_vec();
            broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(broken).expect("a text");
            assert!(check(&broken).is_none(), "{algorithm} {at}");
        }
        for cut in [
            0,
            1,
            dots[0],
            dots[0] + 1,
            dots[1],
            dots[1] + 1,
            token.len() - 3,
        ] {
            assert!(check(&token[..cut]).is_none(), "{algorithm} {cut}");
        }
        assert!(check(&format!("{token}.")).is_none());
    }
}

#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    // Signed by HMAC with the modulus of the RSA key for a secret.
    assert!(check(token("CONFUSED")).is_none());
    // Without a signature, in every way to write that.
    let payload = token("RS256").split('.').nth(1).expect("claims");
    for alg in ["none", "None", "NONE", ""] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
        assert!(check(&format!("{header}.{payload}.")).is_none(), "{alg}");
    }
    // With the key of another algorithm's name.
    let claims = json!({ "exp": in_seconds(60) });
    for (kid, right) in [("h", true), ("r", false), ("e", false), ("other", false)] {
        let header = Header {
            kid: Some(kid.into()),
            ..Header::default()
        };
        assert_eq!(check(&signed(&header, &claims)).is_some(), right, "{kid}");
    }
    assert!(
        check(&signed(&Header::default(), &claims)).is_some(),
        "no name"
    );
    let critical = Header {
        crit: Some(vec!["exp".into()]),
        ..Header::default()
    };
    assert!(check(&signed(&critical, &claims)).is_none());
    // Of the same family, but not what the key is for.
    let longer = Header::new(jsonwebtoken::Algorithm::HS512);
    assert!(check(&signed(&longer, &claims)).is_none());
}

#[test]
fn when_a_token_holds() {
    for (claims, right) in [
        (json!({ "exp": in_seconds(5) }), true),
        (json!({ "exp": in_seconds(-20) }), true),
        (json!({ "exp": in_seconds(-40) }), false),
        (json!({}), false),
        (json!({ "exp": "tomorrow" }), false),
        (
            json!({ "exp": in_seconds(60), "nbf": in_seconds(20) }),
            true,
        ),
        (
            json!({ "exp": in_seconds(60), "nbf": in_seconds(50) }),
            false,
        ),
        (json!({ "exp": in_seconds(60), "nbf": "x" }), false),
    ] {
        let token = signed(&Header::default(), &claims);
        assert_eq!(check(&token).is_some(), right, "{claims}");
    }
}

#[test]
fn who_issued_it_and_for_whom() {
    let rules = |issuer: Option<&str>, audience: Option<&str>| Rules {
        issuer: issuer.map(Into::into),
        audience: audience.map(Into::into),
    };
    for (issuer, audience, right) in [
        (Some("https://id.test"), Some("web"), true),
        (Some("https://id.test"), None, true),
        (Some("https://other.test"), None, false),
        (None, Some("api"), true),
        (None, Some("mail"), false),
    ] {
        let found = keys().check(token("ES256"), &rules(issuer, audience));
        assert_eq!(found.is_some(), right, "{issuer:?} {audience:?}");
    }
    // Who says nothing says nothing right.
    let silent = signed(&Header::default(), &json!({ "exp": in_seconds(60) }));
    assert!(keys().check(&silent, &rules(Some("x"), None)).is_none());
    assert!(keys().check(&silent, &rules(None, Some("x"))).is_none());
}

#[test]
fn sets_of_keys() {
    let what = |text: String| match Keys::parse(text.as_bytes()) {
        Ok(keys) => format!("{} keys", keys.0.len()),
        Err(wrong) => wrong[0].what.to_owned(),
    };
    let set = |key: Value| what(json!({ "keys": [key] }).to_string());
    let bytes = |len: usize| URL_SAFE_NO_PAD.encode(vec![0x81; len]);
    let unusable = "it has no key that can be used";
    for (key, expected) in [
        (json!({ "kty": "oct", "k": bytes(32) }), "1 keys"),
        (
            json!({ "kty": "oct", "k": bytes(31) }),
            "a secret is too short",
        ),
        (
            json!({ "kty": "oct", "k": "a=" }),
            "a part of a key is missing or no base64url",
        ),
        (
            json!({ "kty": "oct" }),
            "a part of a key is missing or no base64url",
        ),
        (
            json!({ "kty": "oct", "k": bytes(64), "alg": "HS512" }),
            unusable,
        ),
        (
            json!({ "kty": "oct", "k": bytes(64), "alg": "none" }),
            unusable,
        ),
        (
            json!({ "kty": "oct", "k": bytes(32), "use": "enc" }),
            unusable,
        ),
        (
            json!({ "kty": "RSA", "n": bytes(256), "e": "AQAB" }),
            "1 keys",
        ),
        (
            json!({ "kty": "RSA", "n": bytes(128), "e": "AQAB" }),
            "an RSA key is too short or too long",
        ),
        (
            json!({ "kty": "EC", "crv": "P-256", "x": bytes(32), "y": bytes(31) }),
            "a P-256 key is broken",
        ),
        (json!({ "kty": "EC", "crv": "P-521" }), unusable),
        (
            json!({ "kty": "OKP", "crv": "Ed25519", "x": bytes(31) }),
            "an Ed25519 key is broken",
        ),
        (json!({ "kty": "new" }), unusable),
    ] {
        assert_eq!(set(key.clone()), expected, "{key}");
    }
    assert_eq!(what(String::new()), "it is no set of keys");
    assert_eq!(what("[]".into()), "it is no set of keys");
    assert_eq!(what(json!({ "keys": [] }).to_string()), unusable);
}

#[test]
fn a_key_that_is_wrong_takes_no_other_out_of_use() {
    let mut set: Value = serde_json::from_str(KEYS).expect("a set");
    let keys = set["keys"].as_array_mut().expect("keys");
    keys.extend([
        json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" }),
        json!({ "kty": 5 }),
        json!("key"),
    ]);
    let set = set.to_string();
    assert!(Keys::parse(set.as_bytes()).is_err());
    let keys = Keys::fetched(set.as_bytes()).expect("a set");
    assert_eq!(keys.len(), 4);
    let many = json!({ "keys": vec![json!({ "kty": "new" }); 101] }).to_string();
    assert_eq!(
        Keys::fetched(many.as_bytes()).err(),
        Some("it has too many keys")
    );
}

#[test]
fn what_a_token_says_of_its_key() {
    let keys = keys();
    for (kid, misses) in [
        (Some("h"), false),
        (Some("new"), true),
        (Some(""), true),
        (None, false),
    ] {
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::default()
        };
        let token = signed(&header, &json!({ "exp": in_seconds(60) }));
        assert_eq!(keys.misses_key_of(&token), misses, "{kid:?}");
    }
    for garbage in ["", "a.b.c", "..", "bm8.bm8.bm8"] {
        assert!(!keys.misses_key_of(garbage), "{garbage}");
    }
}

#[test]
fn keys_in_the_clear_are_warned_of() {
    let said = |url: &str| {
        let config = format!("site {{ \"*\", jwt \"{url}\", respond(200) }}");
        let (built, report) = crate::steps::testing::try_build(&config);
        assert!(built.is_some(), "{}", report.render());
        report.render_warnings()
    };
    assert!(said("http://id.test/keys").contains("can be replaced on their way"));
    for local in [
        "http://127.0.0.1:81/keys",
        "http://localhost/",
        "http://[::1]/",
    ] {
        assert_eq!(said(local), "");
    }
}

fn bench(dir: &tempfile::TempDir, options: &str) -> Bench {
    let file = dir.path().join("keys.json");
    std::fs::write(&file, KEYS).expect("a file");
    Bench::new(&format!(
        "site {{ \"*\", name = \"api\", jwt \"{}\" {{ {options} }},
           respond(200, \"$vars.jwt_sub|$vars.jwt_admin|$vars.jwt_level|$vars.jwt_groups|$vars.jwt_nested|$vars.jwt_none\") }}",
        file.display()
    ))
}

#[test]
fn who_brings_a_token_passes() {
    let dir = tempfile::tempdir().expect("a directory");
    let bench = bench(&dir, r#"audience = "api""#);
    let ask = |value: &str| -> Got { bench.get("/").field("Authorization", value).run() };
    let token = token("EdDSA");
    for scheme in ["Bearer", "bearer"] {
        let got = ask(&format!("{scheme} {token}"));
        assert_eq!((got.status(), got.text()), (200, "ann|true|7|a,b||".into()));
    }
    let asked = |got: &Got| got.field("www-authenticate").map(str::to_owned);
    let none = bench.get("/").run();
    assert_eq!(none.status(), 401);
    assert_eq!(asked(&none).as_deref(), Some("Bearer realm=\"api\""));
    for value in [
        "Bearer x",
        "Basic YTpi",
        "Bearer a.b.c",
        &format!("Basic {token}"),
    ] {
        let got = ask(value);
        assert_eq!(got.status(), 401, "{value}");
        let expected = "Bearer realm=\"api\", error=\"invalid_token\"";
        assert_eq!(asked(&got).as_deref(), Some(expected));
    }
}

#[test]
fn the_token_may_be_elsewhere_and_keys_may_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let bench = bench(&dir, r#"from = "$cookies.token""#);
    let ask = || {
        let cookie = format!("a=b; token={}", token("RS256"));
        bench.get("/").field("Cookie", &cookie).run().status()
    };
    assert_eq!(ask(), 200);
    assert_eq!(bench.get("/").field("Cookie", "token=").run().status(), 401);
    // The key is taken out of the set.
    let other = KEYS.replace("\"kid\": \"r\"", "\"kid\": \"old\"");
    std::fs::write(dir.path().join("keys.json"), other).expect("a file");
    bench.until(|| ask() == 401);
}

#[test]
fn mistakes_in_it() {
    let said = |call: &str| mistakes(&format!("site {{ \"*\", {call}, respond(200) }}"));
    for url in [
        "ftp://id.test/keys",
        "https://a:b@id.test/",
        "https://id.test/keys#a",
    ] {
        let said = said(&format!("jwt \"{url}\""));
        let message = format!("jwt: KEYS cannot be \"{url}\"");
        assert!(
            said.contains(&message) && said.contains("or a URL as"),
            "{said}"
        );
    }
    let none = said(r#"jwt "/nowhere/keys.json""#);
    assert!(none.contains("/nowhere/keys.json cannot be read"), "{none}");
}
