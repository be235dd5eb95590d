//! `allow`: 403 for all other clients.

use forebay_config::{Arg, Call, Directive, Type};

use super::networks::Networks;
use crate::control::build::Builder;
use crate::exchange::{Exchange, Flow, Reason, Step};
use crate::explain::{Notes, Told};

pub static DIRECTIVE: Directive = Directive::filter(
    "allow",
    "Lets clients with an address in one of these pass; for all others the answer is 403.",
)
.args(&[Arg::required("PREFIX", Type::List(&Type::Prefix))])
.access_control()
.stateless()
.example(r#"allow { "10.0.0.0/8", "2001:db8::/32" }"#);

/// Lets known clients pass.
struct Allow(Networks);

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    Some(Box::new(Allow(Networks::new(call.get("PREFIX")))))
}

impl Step for Allow {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        notes.prefix(exchange.client_ip());
        Told::Runs
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        match self.0.contains(exchange.client_ip()) {
            true => Flow::Next,
            false => Flow::Fail(Reason::Forbidden.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::Bench;

    #[test]
    fn only_clients_with_these_addresses_pass() {
        let bench =
            Bench::new(r#"site { "*", allow { "10.0.0.0/8", "2001:db8::/32" }, respond(200) }"#);
        for (from, status) in [
            ("10.1.2.3", 200),
            ("11.0.0.0", 403),
            ("2001:db8::1", 200),
            ("2001:db9::1", 403),
            ("::ffff:10.1.2.3", 200),
        ] {
            assert_eq!(bench.get("/").from(from).run().status(), status, "{from}");
        }
    }

    #[test]
    fn an_empty_list_lets_nobody_pass() {
        let bench = Bench::new(r#"site { "*", allow({}), respond(200) }"#);
        assert_eq!(bench.get("/").run().status(), 403);
    }
}
