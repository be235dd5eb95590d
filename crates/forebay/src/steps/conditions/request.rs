//! Conditions on the request's target, method and sender.

use forebay_config::{Arg, Call, Code, Directive, Node, Report, Type};
use forebay_http1::Method;
use forebay_route::{HostTable, RouteSet};

use super::test;
use crate::control::build::Builder;
use crate::exchange::Test;
use crate::steps::networks::Networks;
use crate::steps::patterns::{self, check_hosts, check_patterns, patterns};

pub static PATH: Directive = Directive::condition(
    "path",
    "True for a request whose path matches one of these patterns.",
)
.args(&[Arg::required("PATTERN", Type::List(&Type::Pattern))])
.check(check_patterns)
.example(r#"path { "/media/*", "*.css" }"#);

pub fn path(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    match RouteSet::new([patterns(call)]) {
        Ok(set) => test(move |exchange, _| set.is_match(exchange.request.path().as_bytes())),
        Err(error) => {
            let message = format!("path: {error}");
            builder
                .report
                .mistake(call.place, Code::Conflict, message, "");
            None
        }
    }
}

pub static HOST: Directive = Directive::condition(
    "host",
    "True for a request to one of these host names; the port does not count.",
)
.args(&[Arg::required("HOST", Type::List(&Type::Host))])
.check(check_hosts)
.example(r#"host "*.example.com""#);

pub fn host(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let mut table = HostTable::new();
    for host in call
        .get::<&[Node]>("HOST")
        .iter()
        .filter_map(patterns::host)
    {
        // Given twice is given.
        let _ = table.insert(host, ());
    }
    test(move |exchange, _| table.get(exchange.request.host().as_bytes()).is_some())
}

pub static METHOD: Directive =
    Directive::condition("method", "True for a request with one of these methods.")
        .args(&[Arg::required("TEXT", Type::List(&Type::Text))])
        .check(check_methods)
        .example(r#"method { "GET", "HEAD" }"#);

fn check_methods(call: &Call, report: &mut Report) {
    for node in call.get::<&[Node]>("TEXT") {
        if method_of(node).is_none() {
            let text: &str = node.get();
            let message = format!("method: TEXT cannot be \"{}\"", text.escape_debug());
            let help = "expected a method, as \"GET\" or \"POST\"";
            report.mistake(node.place, Code::BadValue, message, help);
        }
    }
}

/// Methods are in capitals, all that are registered; `get` would never match.
fn method_of(node: &Node) -> Option<Method> {
    let text: &str = node.get();
    let capitals = !text.bytes().any(|byte| byte.is_ascii_lowercase());
    Method::new(text.as_bytes()).filter(|_| capitals)
}

pub fn method(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let nodes: &[Node] = call.get("TEXT");
    let methods: Box<[Method]> = nodes.iter().filter_map(method_of).collect();
    test(move |exchange, _| methods.contains(&exchange.request.method))
}

pub static SCHEME: Directive =
    Directive::condition("scheme", "True for a request that came with this scheme.")
        .args(&[Arg::required("TEXT", Type::OneOf(&["http", "https"]))])
        .example(r#"scheme "http""#);

pub fn scheme(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let https = call.get::<&str>("TEXT") == "https";
    test(move |exchange, _| (exchange.scheme() == "https") == https)
}

pub static CLIENT: Directive = Directive::condition(
    "client",
    "True for a request of a client whose address is in one of these.",
)
.args(&[Arg::required("PREFIX", Type::List(&Type::Prefix))])
.example(r#"client { "127.0.0.1", "10.0.0.0/24" }"#);

pub fn client(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let networks = Networks::new(call.get("PREFIX"));
    test(move |exchange, _| networks.contains(exchange.client_ip()))
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{condition, mistakes};

    #[test]
    fn targets() {
        let path = condition(r#"path { "/a/*", "*.css" }"#);
        for (target, expected) in [
            ("/a", true),
            ("/a/b?c", true),
            ("/x.css", true),
            ("/ab", false),
            ("/%61/", true),
        ] {
            assert_eq!(path.holds(path.get(target)), expected, "{target}");
        }
        let host = condition(r#"host { "a.test", "*.b.test", "*.b.test" }"#);
        for (name, expected) in [
            ("a.test", true),
            ("x.b.test", true),
            ("b.test", false),
            ("c.a.test", false),
        ] {
            assert_eq!(host.holds(host.get("/").host(name)), expected, "{name}");
        }
    }

    #[test]
    fn methods_and_schemes() {
        let method = condition(r#"method("PUT", "PROPFIND")"#);
        for (name, expected) in [("PUT", true), ("PROPFIND", true), ("GET", false)] {
            assert_eq!(method.holds(method.request(name, "/")), expected, "{name}");
        }
        for (name, expected) in [("http", true), ("https", false)] {
            let scheme = condition(&format!("scheme \"{name}\""));
            assert_eq!(scheme.holds(scheme.get("/")), expected, "{name}");
        }
        let said = mistakes(r#"site { "*", respond(200) { when = method { "get", "A B" } } }"#);
        assert_eq!(said.matches("method: TEXT cannot be").count(), 2, "{said}");
    }

    #[test]
    fn senders() {
        let client = condition(r#"client { "127.0.0.1", "10.0.0.0/24" }"#);
        for (from, expected) in [
            ("127.0.0.1", true),
            ("10.0.0.255", true),
            ("10.0.1.0", false),
        ] {
            assert_eq!(client.holds(client.get("/").from(from)), expected, "{from}");
        }
    }
}
