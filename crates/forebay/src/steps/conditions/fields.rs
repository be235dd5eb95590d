//! Conditions on what a request carries by name: fields, cookies, parameters, variables.

use forebay_config::{Arg, Call, Code, Directive, Match, Node, Type};
use smallvec::SmallVec;

use super::test;
use crate::control::build::Builder;
use crate::exchange::{Exchange, Test, query_pairs};

const ARGS: &[Arg] = &[
    Arg::required("NAME", Type::List(&Type::Match)),
    Arg::optional("VALUE", Type::Match),
];

pub static HEADER: Directive = Directive::condition(
    "header",
    "True for a request that has a field with one of these names, in any case; with VALUE, one \
     whose value matches.",
)
.args(ARGS)
.example(r#"header("user-agent", "*Mobile*")"#);

pub fn header(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let mut names = Vec::new();
    for node in call.get::<&[Node]>("NAME") {
        match node.get::<&Match>().for_fields() {
            Ok(name) => names.push(name),
            Err(error) => {
                let message = "header: NAME cannot be this expression";
                builder
                    .report
                    .mistake(node.place, Code::BadValue, message, error);
            }
        }
    }
    let value = value(call);
    let one = move |exchange: &Exchange, name: &Match| match name.exact() {
        Some(name) => exchange
            .request
            .fields
            .all(name)
            .any(|found| is_right(&value, found)),
        None => exchange
            .request
            .fields
            .iter()
            .any(|field| is_right(&value, field.value) && name.matches(&lowered(field.name))),
    };
    test(move |exchange, _| names.iter().any(|name| one(exchange, name)))
}

pub static COOKIE: Directive = Directive::condition(
    "cookie",
    "True for a request that has a cookie with one of these names; with VALUE, one whose value \
     matches.",
)
.args(ARGS)
.example(r#"cookie { "session", "wordpress_logged_in_*" }"#);

pub fn cookie(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let (names, value) = (names(call), value(call));
    test(move |exchange, _| {
        let mut cookies = exchange.request.fields.cookies();
        cookies.any(|(name, found)| is_named(&names, name) && is_right(&value, found))
    })
}

pub static QUERY: Directive = Directive::condition(
    "query",
    "True for a request whose query has a parameter with one of these names; with VALUE, one \
     whose value matches. Names and values are compared decoded.",
)
.args(ARGS)
.example(r#"query("debug", "1")"#);

pub fn query(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let (names, value) = (names(call), value(call));
    test(move |exchange, _| {
        let query = exchange.request.query().unwrap_or_default();
        query_pairs(query).any(|(name, found)| is_named(&names, &name) && is_right(&value, &found))
    })
}

pub static VAR: Directive = Directive::condition(
    "var",
    "True for a request for which `set` has given this variable a value; with VALUE, one that \
     matches.",
)
.args(&[
    Arg::required("NAME", Type::Name),
    Arg::optional("VALUE", Type::Match),
])
.example(r#"var("device", "mobile")"#);

pub fn var(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let name: Box<str> = call.get::<&str>("NAME").into();
    let value = value(call);
    test(move |exchange, _| {
        exchange
            .var(&name)
            .is_some_and(|found| is_right(&value, found))
    })
}

fn names(call: &Call) -> Box<[Match]> {
    call.get::<&[Node]>("NAME")
        .iter()
        .map(|node| node.get::<&Match>().clone())
        .collect()
}

fn value(call: &Call) -> Option<Match> {
    call.find::<&Match>("VALUE").cloned()
}

fn is_named(names: &[Match], name: &[u8]) -> bool {
    names.iter().any(|one| one.matches(name))
}

fn is_right(value: &Option<Match>, found: &[u8]) -> bool {
    value.as_ref().is_none_or(|value| value.matches(found))
}

/// Names of fields are short: this stays on the stack.
fn lowered(name: &[u8]) -> SmallVec<[u8; 64]> {
    name.iter().map(u8::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::condition;

    #[track_caller]
    fn header(text: &str, name: &str, value: &str, expected: bool) {
        let condition = condition(text);
        let got = condition.holds(condition.get("/").field(name, value));
        assert_eq!(got, expected, "{text} for {name}: {value}");
    }

    #[test]
    fn fields() {
        header(r#"header "x-a""#, "X-A", "", true);
        header(r#"header "X_A""#, "x-a", "1", true);
        header(r#"header "x-a""#, "X-B", "1", false);
        header(r#"header("x-a", "abc*")"#, "X-A", "abcd", true);
        header(r#"header("x-a", "abc*")"#, "X-A", "Abcd", false);
        header(r#"header { "x-a", "x-b*" }"#, "X-Bc", "1", true);
        header(r#"header("x-*", "1")"#, "X-Any", "1", true);
        header(r#"header("x-*", "1")"#, "X-Any", "2", false);
        header(r#"header(regex "^X-[0-9]$")"#, "x-1", "", true);
        header(r#"header("x-c", regex [[^\d+$]])"#, "X-C", "12a", false);
        header(
            r#"header("user-agent", "*bot*")"#,
            "User-Agent",
            "a bot b",
            true,
        );
    }

    #[test]
    fn cookies() {
        header(r#"cookie "session""#, "Cookie", "a=b; session=c", true);
        header(
            r#"cookie "session""#,
            "Cookie",
            "a=session; Session=c",
            false,
        );
        header(r#"cookie { "s_*" }"#, "Cookie", "s_1=c", true);
        header(r#"cookie("s", "on")"#, "Cookie", "s=off; s=on", true);
    }

    #[test]
    fn parameters() {
        let check = |text: &str, target: &str, expected: bool| {
            let condition = condition(text);
            assert_eq!(
                condition.holds(condition.get(target)),
                expected,
                "{text} for {target}"
            );
        };
        check(r#"query "debug""#, "/?a&debug", true);
        check(r#"query "debug""#, "/?xdebug=1", false);
        check(r#"query "debug""#, "/?d%65bug=1", true);
        check(r#"query("debug", "1 2")"#, "/?debug=0&debug=1+2", true);
        check(r#"query("debug", "1")"#, "/?debug=%31", true);
        check(r#"query "*""#, "/?", false);
        check(r#"query "*""#, "/?&", false);
        check(r#"query "*""#, "/?=", true);
        check(r#"query "*""#, "/", false);
        check(r#"query "utm_*""#, "/?utm_source=x", true);
    }
}
