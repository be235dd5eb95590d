//! `deny`: 403 for these clients.

use forebay_config::{Arg, Call, Directive, Type};

use super::networks::Networks;
use crate::control::build::Builder;
use crate::exchange::{Exchange, Flow, Reason, Step};
use crate::explain::{Notes, Told};

pub static DIRECTIVE: Directive = Directive::filter(
    "deny",
    "Answers clients with an address in one of these with 403; all others pass. Long lists cost \
     no more than short ones.",
)
.args(&[Arg::required("PREFIX", Type::List(&Type::Prefix))])
.access_control()
.stateless()
.example(r#"deny { "192.0.2.0/24", "198.51.100.7" }"#);

/// Keeps known clients out.
struct Deny(Networks);

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    Some(Box::new(Deny(Networks::new(call.get("PREFIX")))))
}

impl Step for Deny {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        notes.prefix(exchange.client_ip());
        Told::Runs
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        match self.0.contains(exchange.client_ip()) {
            true => Flow::Fail(Reason::Forbidden.into()),
            false => Flow::Next,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::Bench;

    #[test]
    fn clients_with_these_addresses_get_403() {
        let bench = Bench::new(r#"site { "*", deny "private", respond(200) }"#);
        for (from, status) in [("127.0.0.1", 403), ("::1", 403), ("192.0.2.1", 200)] {
            assert_eq!(bench.get("/").from(from).run().status(), status, "{from}");
        }
    }
}
