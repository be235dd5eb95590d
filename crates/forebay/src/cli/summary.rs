//! What a configuration makes reachable where, for people.

use std::fmt::Write as _;
use std::sync::Arc;

use forebay_config::{Call, Host, Node, Part, Pattern, Role, Status, Template, Value};

use super::start::place;
use crate::control::declarations::{Bind, SITE};
use crate::steps::route;

/// Sites that are shown; ten thousand would hide the mistakes above them.
const MAX_SITES: usize = 40;
/// Routes of a site that are shown.
const MAX_ROUTES: usize = 20;
/// Hosts of a site that are shown.
const MAX_HOSTS: usize = 6;
/// Where the steps of a route begin, if its patterns leave the room.
const STEPS_COLUMN: usize = 22;

/// `ok`, with counts; then the sites of each listener.
pub fn of(declarations: &[Arc<Call>], binds: &[Bind]) -> String {
    let sites: Vec<&Call> = declarations
        .iter()
        .map(|call| &**call)
        .filter(|call| is(call, SITE.name))
        .collect();
    let upstreams = declarations
        .iter()
        .filter(|call| is(call, "upstream"))
        .count();
    let routes = sites
        .iter()
        .map(|site| site.steps.iter().filter(|one| is_route(one)).count());
    let mut out = String::from("ok");
    let counts = [
        (binds.len(), "listener", "listeners"),
        (sites.len(), "site", "sites"),
        (routes.sum(), "route", "routes"),
        (upstreams, "upstream", "upstreams"),
    ];
    for (at, (count, one, many)) in counts
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .enumerate()
    {
        let lead = if at == 0 { ": " } else { ", " };
        let _ = write!(out, "{lead}{count} {}", if count == 1 { one } else { many });
    }
    out.push('\n');
    for (listeners, sites) in groups(&sites, binds) {
        out.push('\n');
        for bind in listeners {
            let _ = writeln!(out, "{}", place(bind));
        }
        if sites.is_empty() {
            out.push_str("  no site: every answer is 404\n");
        }
        for site in sites.iter().take(MAX_SITES) {
            describe_site(site, &mut out);
        }
        more(&mut out, "  ", sites.len(), MAX_SITES, "site");
    }
    out
}

/// Listeners that serve the same sites are shown together.
fn groups<'a>(sites: &[&'a Call], binds: &'a [Bind]) -> Vec<(Vec<&'a Bind>, Vec<&'a Call>)> {
    let mut groups: Vec<(Vec<&Bind>, Vec<&Call>)> = Vec::new();
    for bind in binds {
        let here: Vec<&Call> = sites
            .iter()
            .copied()
            .filter(|site| answers_on(site, bind))
            .collect();
        let same = |(_, sites): &&mut (Vec<&Bind>, Vec<&Call>)| {
            sites.len() == here.len() && sites.iter().zip(&here).all(|(a, b)| std::ptr::eq(*a, *b))
        };
        match groups.iter_mut().find(same) {
            Some((binds, _)) => binds.push(bind),
            None => groups.push((vec![bind], here)),
        }
    }
    groups
}

fn answers_on(site: &Call, bind: &Bind) -> bool {
    let on: Option<&[Node]> = site.find("on");
    on.is_none_or(|on| {
        on.iter()
            .any(|node| *node.get::<&forebay_config::Address>() == bind.address)
    })
}

fn describe_site(site: &Call, out: &mut String) {
    let hosts: &[Node] = site.get("HOST");
    let names: Vec<String> = hosts
        .iter()
        .take(MAX_HOSTS)
        .map(|node| node.get::<&Host>().to_string())
        .collect();
    let _ = write!(out, "  {}", names.join(" "));
    if hosts.len() > MAX_HOSTS {
        let _ = write!(out, " and {} more", hosts.len() - MAX_HOSTS);
    }
    out.push('\n');
    let (routes, others): (Vec<&Arc<Call>>, Vec<&Arc<Call>>) =
        site.steps.iter().partition(|call| is_route(call));
    for one in routes.iter().take(MAX_ROUTES) {
        let steps: Vec<&Arc<Call>> = one.steps.iter().collect();
        line(
            &patterns(one),
            &format!("{}{}", pipeline(&steps), condition(one)),
            out,
        );
    }
    more(out, "    ", routes.len(), MAX_ROUTES, "route");
    if !others.is_empty() {
        let lead = if routes.is_empty() {
            "everything"
        } else {
            "everything else"
        };
        line(lead, &pipeline(&others), out);
    }
}

fn line(lead: &str, steps: &str, out: &mut String) {
    let _ = writeln!(out, "    {lead:STEPS_COLUMN$} {steps}");
}

fn more(out: &mut String, indent: &str, all: usize, shown: usize, what: &str) {
    if let Some(rest @ 1..) = all.checked_sub(shown) {
        let plural = if rest == 1 { "" } else { "s" };
        let _ = writeln!(out, "{indent}… and {rest} more {what}{plural}");
    }
}

fn pipeline(steps: &[&Arc<Call>]) -> String {
    let steps: Vec<String> = steps.iter().map(|call| step(call)).collect();
    steps.join(", ")
}

/// A filter by its name; what answers, with what it answers from.
fn step(call: &Call) -> String {
    let name = call.name();
    let what = match call.directive().role {
        Role::Route => return format!("{name} {}", patterns(call)),
        Role::Handler => call.directive().args.first(),
        _ => None,
    };
    let what = what
        .and_then(|arg| call.node(arg.name))
        .and_then(|node| show(&node.value));
    let what = what.map(|what| format!(" {what}")).unwrap_or_default();
    format!("{name}{what}{}", condition(call))
}

fn condition(call: &Call) -> String {
    let names: Vec<&str> = call.when.iter().map(|one| one.name()).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" (when {})", names.join(" or "))
    }
}

fn patterns(call: &Call) -> String {
    let nodes: &[Node] = call.get("PATTERN");
    let texts: Vec<&str> = nodes
        .iter()
        .map(|node| node.get::<&Pattern>().text())
        .collect();
    texts.join(" ")
}

/// A value as the operator would know it again.
fn show(value: &Value) -> Option<String> {
    Some(match value {
        Value::Text(text) => text.to_string(),
        Value::Status(Status::Code(code)) => code.to_string(),
        Value::Target(target) => target.text.to_string(),
        Value::Declared(call) => call.subject(),
        Value::Path(path) => path.display().to_string(),
        Value::Url(url) => url.shown().to_owned(),
        Value::PathTemplate(path) => {
            format!("{}{}", path.base.display(), show_template(&path.rest))
        }
        Value::Template(template) => show_template(template),
        _ => return None,
    })
}

fn show_template(template: &Template) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.to_string(),
        Part::Var(variable) => variable.show(),
    };
    template.parts.iter().map(part).collect()
}

fn is(call: &Call, name: &str) -> bool {
    call.name() == name
}

fn is_route(call: &Call) -> bool {
    is(call, route::DIRECTIVE.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::build::build;
    use crate::control::source::Source;

    fn summary(config: &str) -> String {
        let mut loaded = Source::Text(config.to_owned())
            .load()
            .unwrap_or_else(|report| {
                panic!("{}", report.render());
            });
        let built = build(&loaded.declarations, &mut loaded.report, None);
        of(
            &loaded.declarations,
            &built.expect("a right configuration").binds,
        )
    }

    #[test]
    fn sites_stand_under_their_listeners() {
        let config = r#"
            listen "127.0.0.1:8080" listen "127.0.0.1:8081" listen ":9000"
            local app = upstream "app" { "127.0.0.1:1" }
            site { "example.com", "*.example.com",
              headers { response = { server = false } },
              route { "/api/*", "/v1/*" } { limit { body = "1MB" }, proxy(app) },
              route "/old/*" { when = method "GET", redirect "/new/$rest" },
              respond(200, "hello"),
            }
            site { "admin.test", on = ":9000", respond(403) }
        "#;
        let expected = "\
ok: 3 listeners, 2 sites, 2 routes, 1 upstream

http://127.0.0.1:8080/
http://127.0.0.1:8081/
  example.com *.example.com
    /api/* /v1/*           limit, proxy upstream \"app\"
    /old/*                 redirect /new/$rest (when method)
    everything else        headers, respond 200

http://localhost:9000/ and every other address of this machine
  example.com *.example.com
    /api/* /v1/*           limit, proxy upstream \"app\"
    /old/*                 redirect /new/$rest (when method)
    everything else        headers, respond 200
  admin.test
    everything             respond 403
";
        assert_eq!(summary(config), expected);
    }

    #[test]
    fn what_is_much_is_cut() {
        let text = summary(r#"for i = 1, 1000 do site { "h" .. i .. ".test", respond(200) } end"#);
        assert!(text.lines().count() < 100, "{text}");
        assert!(
            text.contains("h1.test") && text.contains("and 960 more sites"),
            "{text}"
        );
        assert!(text.starts_with("ok: 1 listener, 1000 sites\n"), "{text}");
    }
}
