//! `jwt`: tokens that say who somebody is, signed by somebody whose keys we have (RFC 7519).

mod keys;
mod remote;

use std::sync::Arc;
use std::time::Duration;

use forebay_config::{Arg, Call, Directive, Opt, Scheme, Template, Type, Url, Vars};
use forebay_fields::Known;
use serde_json::Value;

use self::keys::{Claims, Keys, Rules};
pub use self::remote::RemoteKeys;
use super::watched::Watched;
use crate::control::build::Builder;
use crate::exchange::{Exchange, Fault, Flow, Local, Reason, Response, Step, expand};
use crate::explain::{Notes, Told, show_template};
use crate::upstream::{TlsSpec, warn_of_nobody};
use crate::wheel::timeout;

pub static DIRECTIVE: Directive = Directive::filter(
    "jwt",
    "Lets those pass who bring a token (JWT) signed with a key of KEYS, a set of keys (JWKS); for \
     all others the answer is 401. A file is read again when it has changed; a URL is fetched every \
     hour, and when a token names a key that is not in the set, but for that at most once a \
     minute. While it cannot be fetched the last good set stands; before there is any, the answer \
     is 503. A key is for one algorithm: RS256, ES256 (P-256), EdDSA (Ed25519) or HS256, by its \
     type. A token must have an end (`exp`); `nbf` counts too, each with 30 s for clocks that \
     differ. Claims that are texts, numbers, booleans or lists of texts become `$vars.jwt_NAME`.",
)
.args(&[Arg::required("KEYS", Type::PathOrUrl)])
.options(&[
    Opt::new("issuer", Type::Text, "The `iss` that a token must have.").unset("any"),
    Opt::new(
        "audience",
        Type::Text,
        "What must be among a token's `aud`.",
    )
    .unset("any"),
    Opt::new(
        "from",
        Type::Template(Vars::Request),
        "Where the token is; `Bearer` before it is taken off.",
    )
    .default(r#""$headers.authorization""#),
])
.access_control()
.example(r#"jwt "/etc/forebay/keys.json" { issuer = "https://id.example.com" }"#);

/// How long a request waits for keys that are being fetched: about as long as fetching may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A token with more claims than this makes no more variables of them.
const MAX_CLAIMS: usize = 32;

/// See the module.
struct Jwt {
    keys: Source,
    rules: Rules,
    from: Template,
}

/// Where the keys are.
enum Source {
    File(Arc<Watched<Keys>>),
    Url(Arc<RemoteKeys>),
}

impl Source {
    fn of(call: &Call, builder: &mut Builder<'_>) -> Option<Source> {
        let Some(url) = call.node("KEYS")?.as_a::<&Url>() else {
            let file = Watched::of(call, "KEYS", Keys::parse, builder.report)?;
            return Some(Source::File(Arc::new(file)));
        };
        let place = call.place_of("KEYS");
        if url.scheme == Scheme::Https {
            warn_of_nobody(Some(&TlsSpec::default()), place, builder.report);
        } else if !url.is_local() {
            let message = "jwt: keys that come in the clear can be replaced on their way";
            let help = "fetch them over https";
            builder.report.warning(place, message, help);
        }
        Some(Source::Url(builder.key_set(url)))
    }
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let text = |option: &str| call.find::<&str>(option).map(Into::into);
    Some(Box::new(Jwt {
        keys: Source::of(call, builder)?,
        rules: Rules {
            issuer: text("issuer"),
            audience: text("audience"),
        },
        from: call.get::<&Template>("from").clone(),
    }))
}

impl Jwt {
    /// The token that a request brings.
    fn token(&self, exchange: &Exchange) -> Option<String> {
        let mut text = Vec::new();
        expand(&self.from, exchange, None, &mut text);
        let text = String::from_utf8(text).ok()?;
        let token = match text.split_at_checked("Bearer ".len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer ") => token,
            _ => &text,
        };
        let token = token.trim_ascii();
        (!token.is_empty()).then(|| token.to_owned())
    }

    /// Checking costs up to a tenth of a millisecond, so it is done here and now.
    fn decide(&self, keys: &Keys, token: &str, exchange: &mut Exchange) -> Flow {
        match keys.check(token, &self.rules) {
            Some(claims) => {
                note(&claims, exchange);
                Flow::Next
            }
            None => refuse(exchange, ", error=\"invalid_token\""),
        }
    }

    fn decide_by_fetched(&self, keys: &RemoteKeys, token: &str, exchange: &mut Exchange) -> Flow {
        match keys.now() {
            Some(keys) => self.decide(&keys, token, exchange),
            None => Flow::Fail(Fault::with(Reason::KeysMissing, keys.url.shown())),
        }
    }
}

impl RemoteKeys {
    /// The fetch that may bring what this token needs and is not here.
    fn awaited_by(&self, token: &str, now_ms: u64) -> Option<u64> {
        match self.now() {
            None => self.coming(),
            Some(keys) if keys.misses_key_of(token) => self.want(now_ms),
            Some(_) => None,
        }
    }
}

/// 401, and what is asked for (RFC 6750 §3): nothing is said of what is wrong where nothing came.
fn refuse(exchange: &mut Exchange, error: &str) -> Flow {
    // A site's name holds no quote.
    let asked = format!("Bearer realm=\"{}\"{error}", exchange.site_name());
    let mut response = Response::fault(exchange, Reason::Unauthorized.into());
    response.set(Known::WwwAuthenticate, asked.as_bytes());
    Flow::Answer(response)
}

/// Makes variables of the claims.
fn note(claims: &Claims, exchange: &mut Exchange) {
    let is_name = |name: &str| {
        let right = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        (1..=60).contains(&name.len()) && name.bytes().all(right)
    };
    let named = claims.iter().filter(|(name, _)| is_name(name));
    let plain = named.filter_map(|(name, value)| Some((name, plain(value)?)));
    for (name, value) in plain.take(MAX_CLAIMS) {
        exchange.set_var(&Arc::from(format!("jwt_{name}")), value.into_bytes());
    }
}

/// A claim as a text; none for what is none.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Array(values) => {
            let texts: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

impl Step for Jwt {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        let Some(token) = self.token(exchange) else {
            return refuse(exchange, "");
        };
        let now_ms = exchange.worker.now_ms();
        match &self.keys {
            Source::File(keys) if keys.is_due(now_ms) => Flow::Wait,
            Source::File(keys) => self.decide(&keys.now(), &token, exchange),
            Source::Url(keys) if keys.awaited_by(&token, now_ms).is_some() => Flow::Wait,
            Source::Url(keys) => self.decide_by_fetched(keys, &token, exchange),
        }
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        let from = show_template(&self.from);
        if self.token(exchange).is_none() {
            notes.add("token", format!("{from} holds none"));
            return Told::Runs;
        }
        notes.add(
            "token",
            format!("{from} holds one: keys, times and rules decide"),
        );
        match &self.keys {
            Source::File(_) => Told::RunsAndWaits,
            // Fetched by the running server only.
            Source::Url(keys) => {
                notes.add(
                    "keys",
                    format!("fetched from {} while running", keys.url.shown()),
                );
                Told::AsksLeave
            }
        }
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move {
            let Some(token) = self.token(exchange) else {
                return refuse(exchange, "");
            };
            let now_ms = exchange.worker.now_ms();
            match &self.keys {
                Source::File(keys) => {
                    keys.refresh(now_ms).await;
                    self.decide(&keys.now(), &token, exchange)
                }
                Source::Url(keys) => {
                    if let Some(number) = keys.awaited_by(&token, now_ms) {
                        let deadline = exchange.worker.wheel.register();
                        // If it takes too long, what was there before will do.
                        let _ = timeout(&deadline, now_ms, PATIENCE, keys.wait(number)).await;
                    }
                    self.decide_by_fetched(keys, &token, exchange)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
