//! Patterns and hosts of a configuration, as what compares paths and names takes them.
//!
//! The types of the language have let them through; what only the comparing side refuses is
//! reported by the checks here, which a directive with such an argument has as its own.

use std::fmt::Display;

use forebay_config::{Call, Code, Host, Node, Report};
use forebay_route::{HostPattern, Pattern};

/// For a directive whose argument `PATTERN` is a list of patterns.
pub fn check_patterns(call: &Call, report: &mut Report) {
    for node in call.get::<&[Node]>("PATTERN") {
        check_pattern(call, "PATTERN", node, report);
    }
}

/// For a value that is a pattern.
pub fn check_pattern(call: &Call, name: &str, node: &Node, report: &mut Report) {
    let text = text_of(node);
    if let Err(error) = Pattern::parse(text) {
        refuse(call, name, node, text, &error, report);
    }
}

/// For a directive whose argument `HOST` is a list of hosts.
pub fn check_hosts(call: &Call, report: &mut Report) {
    for node in call.get::<&[Node]>("HOST") {
        let text = node.get::<&Host>().to_string();
        if let Err(error) = HostPattern::parse(&text) {
            refuse(call, "HOST", node, &text, &error, report);
        }
    }
}

fn refuse(
    call: &Call,
    name: &str,
    node: &Node,
    text: &str,
    error: &dyn Display,
    report: &mut Report,
) {
    let message = format!("{}: {name} cannot be \"{text}\"", call.name());
    report.mistake(node.place, Code::BadValue, message, error.to_string());
}

/// The pattern of a value that has been checked.
pub fn pattern(node: &Node) -> Option<Pattern> {
    Pattern::parse(text_of(node)).ok()
}

/// Those of the argument `PATTERN`.
pub fn patterns(call: &Call) -> Vec<Pattern> {
    let nodes: &[Node] = call.get("PATTERN");
    nodes.iter().filter_map(pattern).collect()
}

/// The host of a value that has been checked.
pub fn host(node: &Node) -> Option<HostPattern> {
    HostPattern::parse(&node.get::<&Host>().to_string()).ok()
}

fn text_of(node: &Node) -> &str {
    node.get::<&forebay_config::Pattern>().text()
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::mistakes;

    #[test]
    fn what_only_the_comparing_side_refuses_is_said_with_all_other_mistakes() {
        let said = mistakes(
            r#"site { "*",
                 route "/a/../b" { respond(200) },
                 rewrite("/%zz", "/"),
                 respond(200) { when = { path "/u/:1", method "get" } },
                 headers { request = { host = "x" } },
                 rewrite "x",
                 respnd(200) }"#,
        );
        for expected in [
            "route: PATTERN cannot be \"/a/../b\"",
            "rewrite: FROM cannot be \"/%zz\"",
            "path: PATTERN cannot be \"/u/:1\"",
            "method: TEXT cannot be \"get\"",
            "the field `host` cannot be changed",
            "rewrite: TO cannot be \"x\"",
            "unknown name `respnd`",
        ] {
            assert!(said.contains(expected), "no {expected:?} in\n{said}");
        }
    }
}
