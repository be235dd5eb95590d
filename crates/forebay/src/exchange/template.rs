//! Templates: text with variables, filled in from an exchange.

use forebay_config::{Part, Template, Variable};
use forebay_fields::append_decimal;

use super::{Exchange, Response};

/// Appends the template's text for this exchange to `out`. An absent value is the empty text.
pub fn expand(
    template: &Template,
    exchange: &Exchange,
    response: Option<&Response>,
    out: &mut Vec<u8>,
) {
    for part in &template.parts {
        match part {
            Part::Text(text) => out.extend_from_slice(text.as_bytes()),
            Part::Var(variable) => append(variable, exchange, response, out),
        }
    }
}

fn append(
    variable: &Variable,
    exchange: &Exchange,
    response: Option<&Response>,
    out: &mut Vec<u8>,
) {
    let request = &exchange.request;
    let mut text = |bytes: &[u8]| out.extend_from_slice(bytes);
    match variable {
        Variable::Method => text(request.method.as_str().as_bytes()),
        Variable::Scheme => text(exchange.scheme().as_bytes()),
        Variable::Host => text(request.host().as_bytes()),
        Variable::Port => append_decimal(out, u64::from(exchange.port())),
        Variable::Path => text(request.path().as_bytes()),
        Variable::QueryString => text(request.query().unwrap_or("").as_bytes()),
        Variable::Uri => request.write_uri(out),
        Variable::OriginalUri => text(request.original_uri().as_bytes()),
        Variable::Rest => text(exchange.rest().as_bytes()),
        Variable::ClientIp => text(exchange.client_ip().to_string().as_bytes()),
        Variable::ClientNet => text(exchange.client_net().as_bytes()),
        Variable::ClientPort => append_decimal(out, u64::from(exchange.remote.address.port())),
        Variable::Id => text(format!("{:016x}", exchange.id).as_bytes()),
        Variable::Header(name) => text(request.fields.get(&**name).unwrap_or(b"")),
        Variable::Cookie(name) => text(request.fields.cookie(name.as_bytes()).unwrap_or(b"")),
        Variable::Query(name) => text(request.query_value(name).unwrap_or("").as_bytes()),
        Variable::Param(name) => text(exchange.captures.param(name).unwrap_or("").as_bytes()),
        Variable::Var(name) => text(exchange.var(name).unwrap_or(b"")),
        Variable::Capture(number) => {
            let index = usize::from(*number).wrapping_sub(1);
            let group = exchange.captures.groups.get(index);
            text(group.map_or("", |group| group).as_bytes());
        }
        Variable::Status => {
            append_decimal(
                out,
                response.map_or(0, |response| u64::from(response.status)),
            );
        }
        Variable::Duration => {
            let ms = exchange.worker.now_ms().saturating_sub(exchange.started_ms);
            text(format!("{}.{:03}", ms / 1000, ms % 1000).as_bytes());
        }
        Variable::Bytes => {
            let len = response.and_then(|response| response.body.len_bytes());
            append_decimal(out, len.unwrap_or(0));
        }
        Variable::Site => text(
            exchange
                .site
                .as_ref()
                .map_or("", |site| &site.name)
                .as_bytes(),
        ),
        // No TLS listeners and no cache yet; which peer answered is known to `proxy` alone.
        _ => {}
    }
}
