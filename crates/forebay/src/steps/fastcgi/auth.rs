//! `fastcgi_auth`: asks a FastCGI Authorizer whether a request may go on (FastCGI 1.0 §6.3).
//!
//! ```text
//!   request ──▶ its parameters, without its body ──▶ 200 ──▶ its `Variable-` fields are kept ──▶ next
//!                                                └─▶ anything else: that is the answer
//!                                                └─▶ none in time: 502 or 504, never the next step
//! ```

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use forebay_config::{Arg, Call, Directive, Type};
use forebay_fastcgi::Role;
use forebay_fields::Fields;

use super::{Asked, params};
use crate::control::build::Builder;
use crate::exchange::{Body, Exchange, Fault, Flow, Local, Reason, Response, Step};
use crate::explain::{Notes, Told};
use crate::snapshot::resource_id;
use crate::steps::proxy::loops;
use crate::steps::proxy::pass::Passing;

/// See the module.
pub static DIRECTIVE: Directive = Directive::filter(
    "fastcgi_auth",
    "Asks a FastCGI Authorizer, with the parameters of the request and without its body. An answer \
     200 lets the request go on; any other is the answer to the client. Its fields `Variable-NAME` \
     become parameters of `fastcgi` and `cgi` below, and `$vars.NAME`; `REMOTE_USER` is the user \
     in logs, too. Where no answer comes, the request does not go on.",
)
.args(&[Arg::required(
    "TARGET",
    Type::Or(&[Type::Declared(&["upstream"]), Type::TARGET]),
)])
.access_control()
.example(r#"fastcgi_auth "unix:/run/auth.sock""#);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an answer's fields begin with that are for who answers the request.
const PREFIX: &str = "variable-";

/// Variables of one request. A head has a hundred fields.
const MAX_VARIABLES: usize = 100;

/// What authorizers have said of a request: names with values.
pub struct Variables(Vec<(Box<str>, Box<[u8]>)>);

static VARIABLES: LazyLock<u64> = LazyLock::new(resource_id);

impl Variables {
    /// What they have said of this one.
    pub fn of(exchange: &Exchange) -> &[(Box<str>, Box<[u8]>)] {
        let kept: Option<&Variables> = exchange.kept(*VARIABLES);
        kept.map_or(&[], |kept| kept.0.as_slice())
    }
}

/// See the module.
struct FastCgiAuth(Passing);

/// Makes the step of a call.
pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let upstream = builder.fastcgi_upstream(call.node("TARGET")?)?;
    Some(Box::new(FastCgiAuth(Passing::plain(upstream, PATIENCE))))
}

impl Step for FastCgiAuth {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if loops(exchange) {
            return Flow::Fail(Reason::Loop.into());
        }
        Flow::Wait
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move {
            let answer = match self.ask(exchange).await {
                Ok(answer) => answer,
                Err(fault) => return Flow::Fail(fault),
            };
            if answer.status != 200 {
                return Flow::Answer(answer);
            }
            keep(exchange, &answer.fields);
            exchange.worker.give_back_fields(answer.fields);
            // It has not answered this request.
            exchange.forget_peer();
            Flow::Next
        })
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        if loops(exchange) {
            return Told::Fails(Reason::Loop.into());
        }
        self.0.tell_peers(exchange, notes);
        if let Err(fault) = params::of_authorizer(exchange) {
            return Told::Fails(fault);
        }
        Told::AsksLeave
    }
}

impl FastCgiAuth {
    async fn ask(&self, exchange: &mut Exchange) -> Result<Response, Fault> {
        let asked = Asked {
            passing: &self.0,
            offered: None,
            params: params::of_authorizer(exchange)?,
            role: Role::Authorizer,
            led_on: RefCell::default(),
        };
        match self.0.pass_on(exchange, Body::Empty, &asked).await {
            Flow::Answer(response) => Ok(response),
            Flow::Fail(fault) => Err(fault),
            _ => Err(Reason::Internal.into()),
        }
    }
}

/// Keeps what an authorizer says of a request that it allows.
fn keep(exchange: &mut Exchange, fields: &Fields) {
    let kept = exchange.take_kept::<Variables>(*VARIABLES);
    let mut all = kept.map_or_else(Vec::new, |kept| kept.0);
    for field in fields {
        let Some(name) = variable(field.name) else {
            continue;
        };
        if name == "REMOTE_USER" {
            exchange.user = Some(field.value.into());
        }
        exchange.set_var(&Arc::from(name), field.value.to_vec());
        // A later authorizer knows better than one before it.
        all.retain(|(other, _)| **other != *name);
        if all.len() < MAX_VARIABLES {
            all.push((name.into(), field.value.into()));
        }
    }
    if !all.is_empty() {
        exchange.keep(*VARIABLES, Variables(all));
    }
}

/// The name of the variable that a field is.
fn variable(name: &[u8]) -> Option<&str> {
    let (prefix, name) = name.split_at_checked(PREFIX.len())?;
    if !prefix.eq_ignore_ascii_case(PREFIX.as_bytes()) || name.is_empty() {
        return None;
    }
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    std::str::from_utf8(name)
        .ok()
        .filter(|name| name.bytes().all(|byte| is_plain(&byte)))
}

#[cfg(test)]
mod tests {
    use super::variable;

    #[test]
    fn fastcgi_6_3_variables_are_fields_with_a_prefix() {
        for (name, expected) in [
            ("Variable-AUTH_METHOD", Some("AUTH_METHOD")),
            ("variable-x", Some("x")),
            ("Variable-", None),
            ("Variable-a-b", None),
            ("Variables-a", None),
            ("X", None),
        ] {
            assert_eq!(variable(name.as_bytes()), expected, "{name}");
        }
    }
}
