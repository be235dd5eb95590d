//! `jwt`: tokens that say who somebody is, signed by somebody whose keys we have (RFC 7519).

mod keys;

use std::sync::Arc;

use forebay_config::{Arg, Call, Code, Directive, Opt, Report, Template, Type, Vars};
use forebay_fields::Known;
use serde_json::Value;

use self::keys::{Claims, Keys, Rules};
use super::watched::Watched;
use crate::control::build::Builder;
use crate::exchange::{Exchange, Flow, Local, Reason, Response, Step, expand};

pub static DIRECTIVE: Directive = Directive::filter(
    "jwt",
    "Lets those pass who bring a token (JWT) signed with a key of KEYS, the path of a set of keys \
     (JWKS), which is read again when it has changed; for all others the answer is 401. A key is \
     for one algorithm: RS256, ES256 (P-256), EdDSA (Ed25519) or HS256, by its type. A token must \
     have an end (`exp`); `nbf` counts too, each with 30 s for clocks that differ. Claims that are \
     texts, numbers, booleans or lists of texts become `$vars.jwt_NAME`.",
)
.args(&[Arg::required("KEYS", Type::Path)])
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
.check(check)
.access_control()
.example(r#"jwt "/etc/forebay/keys.json" { issuer = "https://id.example.com" }"#);

fn check(call: &Call, report: &mut Report) {
    let keys: &std::path::Path = call.get("KEYS");
    if keys.to_string_lossy().contains("://") {
        let message = "jwt: KEYS cannot be a URL";
        let help = "expected the path of a file";
        report.mistake(call.place_of("KEYS"), Code::BadValue, message, help);
    }
}

/// A token with more claims than this makes no more variables of them.
const MAX_CLAIMS: usize = 32;

/// See the module.
struct Jwt {
    keys: Arc<Watched<Keys>>,
    rules: Rules,
    from: Template,
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let text = |option: &str| call.find::<&str>(option).map(Into::into);
    Some(Box::new(Jwt {
        keys: Arc::new(Watched::of(call, "KEYS", Keys::parse, builder.report)?),
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
    fn decide(&self, exchange: &mut Exchange) -> Flow {
        let Some(token) = self.token(exchange) else {
            return refuse(exchange, "");
        };
        match self.keys.now().check(&token, &self.rules) {
            Some(claims) => {
                note(&claims, exchange);
                Flow::Next
            }
            None => refuse(exchange, ", error=\"invalid_token\""),
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
        if self.keys.is_due(exchange.worker.now_ms()) {
            return Flow::Wait;
        }
        self.decide(exchange)
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move {
            self.keys.refresh(exchange.worker.now_ms()).await;
            self.decide(exchange)
        })
    }
}

#[cfg(test)]
mod tests;
