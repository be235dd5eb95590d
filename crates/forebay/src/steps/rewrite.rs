//! `rewrite`: the path, and the query if it says one, for the steps below.

use forebay_config::{
    Arg, Call, Code, Directive, Match, Part, Pattern, Report, Template, Type, Variable, Vars,
};

use super::patterns::{check_pattern, pattern};
use crate::control::build::Builder;
use crate::exchange::{Exchange, Fault, Flow, Reason, Step, expand_url};
use crate::explain::{Notes, Told};

/// Longer targets than this nobody takes.
const MAX_TARGET_BYTES: usize = 64 * 1024;

pub static DIRECTIVE: Directive = Directive::filter(
    "rewrite",
    "Changes the path for the steps below, and the query if TO has a `?`. With FROM, a pattern or \
     a `regex`, only a path that matches is changed. A leading part taken off is told on as \
     `X-Forwarded-Prefix`.",
)
.args(&[
    Arg::optional("FROM", Type::Or(&[Type::Pattern, Type::Regex])),
    Arg::required("TO", Type::Template(Vars::Captures)),
])
.check(check)
.stateless()
.example(r#"rewrite(regex [[^/item/(\d+)$]], "/item.php?id=$1")"#);

/// Rewrites.
struct Rewrite {
    from: From,
    to: Template,
    /// Whether TO ends its path with a part of the old one, so that something in front of it may
    /// have been taken off.
    keeps_tail: bool,
}

enum From {
    Any,
    Pattern(forebay_route::Pattern),
    Regex(Match),
}

fn check(call: &Call, report: &mut Report) {
    let to: &Template = call.get("TO");
    let rooted = match to.parts.first() {
        Some(Part::Text(text)) => text.starts_with('/'),
        Some(Part::Var(_)) => true,
        None => false,
    };
    if !rooted {
        let message = match to.as_literal() {
            Some(text) => format!("rewrite: TO cannot be \"{text}\""),
            None => "rewrite: TO is no path".to_owned(),
        };
        let help = "expected a path, as \"/x/$rest\"";
        report.mistake(call.place_of("TO"), Code::BadValue, message, help);
    }
    if let Some(node) = call
        .node("FROM")
        .filter(|node| node.as_a::<&Pattern>().is_some())
    {
        check_pattern(call, "FROM", node, report);
    }
}

pub fn build(call: &Call, _: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let to = call.get::<&Template>("TO").clone();
    let from = match call.node("FROM") {
        None => From::Any,
        Some(node) => match node.as_a::<&Match>() {
            Some(regex) => From::Regex(regex.clone()),
            None => From::Pattern(pattern(node)?),
        },
    };
    let keeps_tail = keeps_tail(&to);
    Some(Box::new(Rewrite {
        from,
        to,
        keeps_tail,
    }))
}

fn keeps_tail(to: &Template) -> bool {
    use Variable::{Capture, Path, Rest, Uri};
    let mut last = None;
    for part in &to.parts {
        match part {
            Part::Text(text) => match text.split_once('?') {
                Some(("", _)) => break,
                Some(_) => return false,
                None => last = None,
            },
            Part::Var(variable) => last = Some(variable),
        }
    }
    matches!(last, Some(Capture(_) | Path | Rest | Uri))
}

impl Rewrite {
    /// Whether the path is one to be changed; notes what FROM has matched.
    fn matches(&self, exchange: &mut Exchange) -> bool {
        let path = exchange.request.path();
        match &self.from {
            From::Any => true,
            From::Pattern(pattern) => match pattern.matches(path.as_bytes()) {
                Some(found) => {
                    exchange.captures.note(pattern, &found, path);
                    true
                }
                None => false,
            },
            From::Regex(expression) => {
                let found = expression
                    .as_regex()
                    .and_then(|regex| regex.captures(path.as_bytes()));
                let Some(found) = found else { return false };
                let group =
                    |number: usize| found.get(number).map_or(&b""[..], |group| group.as_bytes());
                let text = |number| String::from_utf8_lossy(group(number)).into_owned().into();
                exchange.captures.groups = (1..found.len().min(10)).map(text).collect();
                true
            }
        }
    }

    fn rewrite(&self, exchange: &mut Exchange) -> Result<(), Fault> {
        let mut target = Vec::new();
        expand_url(&self.to, exchange, &mut target);
        if target.len() > MAX_TARGET_BYTES {
            return Err(Reason::TargetTooLong.into());
        }
        if target.first() != Some(&b'/') {
            target.insert(0, b'/');
        }
        let (path, query) = forebay_route::split_target(&target);
        // Put together anew, it may hold dot segments again (RFC 3986 §6.2.2.3).
        let path = forebay_route::normalize(path)
            .map_err(|fault| Fault::with(Reason::BadPath, fault.sentence()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = text(&path);
        if self.keeps_tail {
            note_prefix(exchange, &path);
        }
        exchange.request.set_path(path);
        if let Some(query) = query {
            exchange
                .request
                .set_query((!query.is_empty()).then(|| text(query)));
        }
        Ok(())
    }
}

/// Notes what stood before the new path in the old one.
fn note_prefix(exchange: &mut Exchange, path: &str) {
    let request = &mut exchange.request;
    let old = request.path();
    let taken = match old.strip_suffix(path) {
        Some(taken) => taken,
        // "/docs" becomes "/" under `rewrite "/$rest"`.
        None if path == "/" => old,
        None => return,
    };
    let taken = taken.trim_end_matches('/');
    if !taken.is_empty() {
        let before = request.prefix.as_deref().unwrap_or_default();
        request.prefix = Some(format!("{before}{taken}").into());
    }
}

impl Step for Rewrite {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if !self.matches(exchange) {
            return Flow::Next;
        }
        match self.rewrite(exchange) {
            Ok(()) => Flow::Next,
            Err(fault) => Flow::Fail(fault),
        }
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        let path = exchange.request.path().as_bytes();
        match &self.from {
            From::Any => {}
            From::Pattern(pattern) => match pattern.examine(path) {
                Ok(_) => notes.add("from", format!("the path matches \"{pattern}\"")),
                Err(miss) => notes.add("from", format!("\"{pattern}\": no, {miss}")),
            },
            From::Regex(regex) => {
                let text = if regex.matches(path) {
                    "the path matches the expression"
                } else {
                    "the path does not match the expression"
                };
                notes.add("from", text);
            }
        }
        Told::Runs
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{Bench, mistakes};

    #[track_caller]
    fn check(step: &str, target: &str, expected: &str, prefix: Option<&str>) {
        let config =
            format!("site {{ \"*\", set(\"v\", \"$query.v\"), {step}, respond(200, \"$uri\") }}");
        let got = Bench::new(&config).get(target).run();
        assert_eq!(got.text(), expected, "{step} {target}");
        assert_eq!(
            got.exchange.request.prefix.as_deref(),
            prefix,
            "{step} {target}"
        );
        assert_eq!(got.exchange.request.original_uri(), target);
    }

    /// The same below a route.
    #[track_caller]
    fn routed(pattern: &str, step: &str, target: &str, expected: &str, prefix: Option<&str>) {
        let config =
            format!("site {{ \"*\", route \"{pattern}\" {{ {step}, respond(200, \"$uri\") }} }}");
        let got = Bench::new(&config).get(target).run();
        assert_eq!(got.text(), expected, "{pattern} {step} {target}");
        assert_eq!(
            got.exchange.request.prefix.as_deref(),
            prefix,
            "{pattern} {step} {target}"
        );
    }

    #[test]
    fn the_leading_part_is_taken_off_and_told_on() {
        routed(
            "/docs/*",
            r#"rewrite "/$rest""#,
            "/docs/a/b?c=d",
            "/a/b?c=d",
            Some("/docs"),
        );
        routed(
            "/docs/*",
            r#"rewrite "/$rest""#,
            "/docs",
            "/",
            Some("/docs"),
        );
        routed(
            "/docs/*",
            r#"rewrite "/$rest""#,
            "/docs/",
            "/",
            Some("/docs"),
        );
        routed(
            "/docs/*",
            r#"rewrite "/$rest""#,
            "/docs//a",
            "/a",
            Some("/docs"),
        );
        routed(
            "/a/*",
            r#"rewrite "/$rest", rewrite("/b/*", "/$rest")"#,
            "/a/b/c",
            "/c",
            Some("/a/b"),
        );
        routed("/a/*", r#"rewrite "/x""#, "/a/x", "/x", None);
        routed(
            "/add/*",
            r#"rewrite "/pre$path""#,
            "/add/x",
            "/pre/add/x",
            None,
        );
        routed(
            "/u/:id",
            r#"rewrite "/user/$params.id""#,
            "/u/7",
            "/user/7",
            None,
        );
    }

    #[test]
    fn from_must_match() {
        let step = r#"rewrite("/from/*", "/to/$rest")"#;
        check(step, "/from/a?b", "/to/a?b", None);
        check(step, "/else", "/else", None);
        let step = r#"rewrite(regex [[^/re/(\d+)-(\w+)$]], "/item/$2/$1$3")"#;
        check(step, "/re/12-abc?x", "/item/abc/12?x", None);
        check(step, "/re/other", "/re/other", None);
    }

    #[test]
    fn a_query_in_to_replaces_the_old_one() {
        check(r#"rewrite "/q?p=$path""#, "/x?old=1", "/q?p=/x", None);
        check(
            r#"rewrite "/q?p=$path&$query_string""#,
            "/a&b?c=1",
            "/q?p=/a%26b&c=1",
            None,
        );
        check(r#"rewrite "/q?""#, "/x?old=1", "/q", None);
        check(r#"rewrite "/p$uri""#, "/x?old=1", "/p/x?old=1", None);
    }

    #[test]
    fn what_is_put_together_is_brought_into_normal_form() {
        check(r#"rewrite "/a/$vars.v/c""#, "/?v=..", "/c?v=..", None);
        check(
            r#"rewrite "/a/$vars.v""#,
            "/?v=%3Fx%23",
            "/a/%3Fx%23?v=%3Fx%23",
            None,
        );
        check(r#"rewrite "/a b/%zz""#, "/", "/a%20b/%25zz", None);
        check(r#"rewrite "$vars.v""#, "/?v=x", "/x?v=x", None);
        for target in ["/?v=../..", "/?v=%00", "/?v=%0d%0a"] {
            let bench = Bench::new(
                r#"site { "*", set("v", "$query.v"), rewrite "/a/$vars.v", respond(200, "$uri") }"#,
            );
            assert_eq!(bench.get(target).run().status(), 400, "{target}");
        }
    }

    #[test]
    fn to_is_a_path() {
        let said = mistakes(r#"site { "*", rewrite "x", respond(200) }"#);
        assert!(said.contains("rewrite: TO cannot be \"x\""), "{said}");
    }
}
