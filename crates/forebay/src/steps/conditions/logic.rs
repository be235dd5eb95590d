//! Conditions on the response, and conditions made of others.

use forebay_config::{Arg, Call, Directive, Node, Status, Type};

use super::test;
use crate::control::build::Builder;
use crate::exchange::{Exchange, Response, Test};

pub static STATUS: Directive = Directive::condition(
    "status",
    "True for an exchange whose response has one of these statuses; only where the response is \
     known.",
)
.args(&[Arg::required("STATUS", Type::List(&Type::Status))])
.response_only()
.example(r#"status { 404, "5xx" }"#);

pub fn status(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let statuses: Box<[Status]> = call
        .get::<&[Node]>("STATUS")
        .iter()
        .map(Node::get)
        .collect();
    test(move |_, response| {
        response.is_some_and(|response| statuses.iter().any(|one| one.matches(response.status)))
    })
}

pub static ALL: Directive =
    Directive::condition("all", "True when every one of these conditions is.")
        .items("CONDITION", Type::Condition { response: true })
        .example(r#"all { method "POST", cookie "session" }"#);

pub fn all(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    Some(Box::new(All(builder.tests(&call.steps))))
}

struct All(Box<[Box<dyn Test>]>);

impl Test for All {
    fn holds(&self, exchange: &Exchange, response: Option<&Response>) -> bool {
        self.0.iter().all(|test| test.holds(exchange, response))
    }

    fn parts(&self) -> &[Box<dyn Test>] {
        &self.0
    }
}

pub static NONE: Directive =
    Directive::condition("none", "True when not one of these conditions is.")
        .items("CONDITION", Type::Condition { response: true })
        .example(r#"none { path { "/media/*", "/theme/*" } }"#);

pub fn none(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    Some(Box::new(NoneOf(builder.tests(&call.steps))))
}

struct NoneOf(Box<[Box<dyn Test>]>);

impl Test for NoneOf {
    fn holds(&self, exchange: &Exchange, response: Option<&Response>) -> bool {
        !self.0.iter().any(|test| test.holds(exchange, response))
    }

    fn parts(&self) -> &[Box<dyn Test>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::condition;

    #[test]
    fn conditions_of_conditions() {
        for (text, target, expected) in [
            (r#"all { query "a", query "b" }"#, "/?a&b", true),
            (r#"all { query "a", query "b" }"#, "/?a", false),
            (r#"none { query "a", query "b" }"#, "/?b", false),
            (r#"none { query "a", query "b" }"#, "/?c", true),
            (r#"{ query "a", query "b" }"#, "/?b", true),
            (
                r#"{ query "a", { query "b", all { query "c" } } }"#,
                "/?c",
                true,
            ),
            (r#"all { query "a", none { query "b" } }"#, "/?a&b", false),
            (r#"all { query "a", none { query "b" } }"#, "/?a", true),
        ] {
            let condition = condition(text);
            assert_eq!(
                condition.holds(condition.get(target)),
                expected,
                "{text} for {target}"
            );
        }
    }
}
