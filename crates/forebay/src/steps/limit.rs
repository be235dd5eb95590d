//! `limit`: how much a request may bring.

use forebay_config::{Call, Directive, Opt, Type};

use crate::control::build::Builder;
use crate::exchange::{DEFAULT_MAX_BODY, Exchange, Flow, Reason, Step};

pub static DIRECTIVE: Directive = Directive::filter(
    "limit",
    "Bounds what a request may bring. A request passes every limit that it comes to, so the \
     lowest counts; one in a route stands for that route alone.",
)
.options(&[Opt::new(
    "body",
    Type::SIZE,
    "Of the request's body; past it the answer is 413. Without any `limit` it is 1GB.",
)
.required()])
.access_control()
.example(r#"limit { body = "64MB" }"#);

/// Bounds the request's body.
struct Limit {
    body_bytes: u64,
}

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    Some(Box::new(Limit {
        body_bytes: call.get("body"),
    }))
}

impl Step for Limit {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        // A body that says how long it is is refused before anything is done with the request;
        // one that does not, when so much of it has been read.
        if exchange
            .request
            .body()
            .len_bytes()
            .is_some_and(|len| len > self.body_bytes)
        {
            return Flow::Fail(Reason::BodyTooLarge.into());
        }
        let limit = &mut exchange.max_body_bytes;
        // The first limit stands in the place of the default, which it may exceed.
        *limit = match *limit {
            DEFAULT_MAX_BODY => self.body_bytes,
            before => before.min(self.body_bytes),
        };
        Flow::Next
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{Bench, mistakes};

    #[test]
    fn a_body_that_is_announced_too_long_is_refused_at_once() {
        let bench = Bench::new(
            r#"site { "*", limit { body = "10B" }, route "/x" { limit { body = "5B" }, respond(200) }, respond(200) }"#,
        );
        for (path, len, status) in [
            ("/", 10, 200),
            ("/", 11, 413),
            ("/x", 5, 200),
            ("/x", 6, 413),
        ] {
            let got = bench.request("POST", path).body(vec![b'x'; len]).run();
            assert_eq!(got.status(), status, "{len} bytes to {path}");
        }
    }

    #[test]
    fn the_lowest_limit_counts_and_the_first_may_exceed_the_default() {
        let limit = |config: &str| {
            let bench = Bench::new(&format!("site {{ \"*\", {config}, respond(200) }}"));
            bench.get("/").run().exchange.max_body_bytes
        };
        assert_eq!(limit(r#"limit { body = "2GB" }"#), 2 << 30);
        assert_eq!(
            limit(r#"limit { body = "2KB" }, limit { body = "3KB" }"#),
            2 << 10
        );
        assert_eq!(
            limit(r#"limit { body = "3KB" }, limit { body = "2KB" }"#),
            2 << 10
        );
        assert_eq!(limit(r#"set("a", "b")"#), 1 << 30);
    }

    #[test]
    fn a_limit_of_nothing_is_a_mistake() {
        assert!(mistakes("site { \"*\", limit, respond(200) }").contains("`body` is missing"));
    }
}
