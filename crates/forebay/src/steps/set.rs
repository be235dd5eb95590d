//! `set`: gives `$vars.NAME` a value.

use std::sync::Arc;

use forebay_config::{Arg, Call, Directive, Template, Type, Vars};

use crate::control::build::Builder;
use crate::exchange::{Exchange, Flow, Step, expand};

pub static DIRECTIVE: Directive = Directive::filter(
    "set",
    "Gives `$vars.NAME` a value, for the steps below and for the response on its way up. A later \
     one replaces it.",
)
.args(&[
    Arg::required("NAME", Type::Name),
    Arg::required("TO", Type::Template(Vars::Request)),
])
.stateless()
.example(r#"set("device", "mobile") { when = header("user-agent", "*Mobile*") }"#);

/// As much as a request's fields may have together. A variable made of itself several times over,
/// in several steps, would else grow from whatever a client sends without end.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Sets a variable.
struct Set {
    name: Arc<str>,
    to: Template,
}

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let name: &str = call.get("NAME");
    Some(Box::new(Set {
        name: name.into(),
        to: call.get::<&Template>("TO").clone(),
    }))
}

impl Step for Set {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        let mut value = Vec::new();
        expand(&self.to, exchange, None, &mut value);
        value.truncate(MAX_VALUE_BYTES);
        exchange.set_var(&self.name, value);
        Flow::Next
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::Bench;

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        let bench = Bench::new(
            r#"site { "*", set("a", "1"), set("b", "[$vars.a$path]"),
                 set("a", "2") { when = path "/two" }, respond(200, "$vars.a$vars.b$vars.c") }"#,
        );
        assert_eq!(bench.get("/two").run().text(), "2[1/two]");
        assert_eq!(bench.get("/x").run().text(), "1[1/x]");
    }

    #[test]
    fn a_value_does_not_grow_without_end() {
        let double = r#"set("a", "$vars.a$vars.a"), "#.repeat(60);
        let bench = Bench::new(&format!(
            "site {{ \"*\", set(\"a\", \"$path\"), {double} respond(200, \"$vars.a\") }}"
        ));
        assert_eq!(bench.get("/x").run().text().len(), super::MAX_VALUE_BYTES);
    }
}
