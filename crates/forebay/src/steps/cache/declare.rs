//! `cache` as it is configured.

use std::sync::Arc;
use std::time::Duration;

use forebay_cache_policy::{Policy, Ttl};
use forebay_config::{Call, Code, Directive, Node, Opt, Report, Status, Type, Vars, When};

use super::key::KeyRules;
use super::{Cache, Shared, join};
use crate::control::build::Builder;
use crate::exchange::Step;
use crate::snapshot::resource_id;

const SECONDS: Type = Type::Duration {
    min: Duration::ZERO,
    max: forebay_config::MAX_DURATION,
};

pub static DIRECTIVE: Directive = Directive::filter(
    "cache",
    "Answers from the store, and fills it from the steps below: one request for all who ask, by \
     RFC 9111 unless an option says otherwise. Steps above it run for every request, steps below it \
     only for a fill.",
)
.options(&[
    Opt::new(
        "ttl",
        Type::Or(&[
            SECONDS,
            Type::Map {
                key: &Type::Or(&[Type::Status, Type::OneOf(&["other"])]),
                value: &SECONDS,
            },
        ]),
        "How long a response is fresh that does not say it; a duration alone is for 200, 203, 301, \
         308, 404, 410.",
    ),
    Opt::new(
        "force",
        Type::Boolean,
        "`ttl` replaces what the response states, `no-store` and `private` included.",
    )
    .default("false"),
    Opt::new(
        "strip_cookies",
        Type::Boolean,
        "Requests that do not bypass go on without `Cookie`, and their responses come back without \
         `Set-Cookie`.",
    )
    .default("false"),
    Opt::new(
        "set_cookie",
        Type::OneOf(&["refuse", "store"]),
        "Whether a response with `Set-Cookie` is stored.",
    )
    .default(r#""refuse""#),
    Opt::new(
        "stale_while_revalidate",
        SECONDS,
        "So long a stale object is served while one request refreshes it.",
    )
    .unset("as the response states"),
    Opt::new(
        "stale_if_error",
        SECONDS,
        "So long a stale object is served when the origin fails.",
    )
    .unset("as the response states"),
    Opt::new("bypass", Type::CONDITION, "Goes round the cache."),
    Opt::new("refresh", Type::CONDITION, "Fetches anew and replaces the object."),
    Opt::new(
        "key",
        Type::Template(Vars::Request),
        "Added to scheme, host, path and query, which are always in the key.",
    ),
    Opt::new(
        "keep_query",
        Type::List(&Type::Match),
        "The parameters that count; the origin sees no others.",
    )
    .unset("all"),
    Opt::new(
        "ignore_query",
        Type::List(&Type::Match),
        "Parameters that do not count; the origin does not see them.",
    ),
    Opt::new(
        "sort_query",
        Type::Boolean,
        "Parameters in any order are the same; the origin sees them sorted.",
    )
    .default("false"),
    Opt::new(
        "min_uses",
        Type::Count {
            min: 1,
            max: 1_000_000,
        },
        "A response is stored at so many requests for it; before, they pass.",
    )
    .default("1"),
    Opt::new(
        "methods",
        Type::List(&Type::OneOf(&["GET", "POST"])),
        "Whose responses are stored. HEAD goes with GET, a POST is keyed by its content (up to \
         64 KB), and then changes nothing.",
    )
    .default(r#""GET""#),
    Opt::new("max_object", Type::SIZE, "Larger ones pass.").default(r#""10GB""#),
    Opt::new(
        "purge",
        Type::CONDITION,
        "Who may send `PURGE`: this URL, or with `Purge: prefix` all that begin with it, with \
         `Purge: soft` to be validated; or with a field of tags all that have them.",
    ),
    Opt::new(
        "tags",
        Type::List(&Type::Text),
        "Response fields that hold tags, and are not sent on.",
    )
    .default(r#"{ "Cache-Tag", "Surrogate-Key", "xkey" }"#),
    Opt::new(
        "live",
        Type::OneOf(&["off", "drop", "skip"]),
        "Joins clients to a running response that may not be stored (GET without cookies); a reader \
         that is too slow is cut (`drop`), or skips ahead (`skip`).",
    )
    .default(r#""off""#),
    Opt::new(
        "store",
        Type::Declared(&["cache_store"]),
        "Where objects are kept.",
    )
    .unset("the unnamed one"),
])
.when(When::No)
.instead(&[(
    "when",
    "`bypass` says which requests go round it; or put it into a `route`",
)])
.caches()
.check(check)
.example(r#"cache { ttl = "10m", stale_while_revalidate = "1m" }"#);

fn check(call: &Call, report: &mut Report) {
    for option in ["ttl", "stale_while_revalidate", "stale_if_error"] {
        if let Some(node) = call.node(option) {
            check_seconds(option, node, report);
        }
    }
    let force: bool = call.get("force");
    if force && call.node("ttl").is_none() {
        let message = "cache: `force` without `ttl` changes nothing";
        let help = "add `ttl`, as `ttl = \"1m\"`";
        report.mistake(call.place_of("force"), Code::Missing, message, help);
    }
    if methods(call).next().is_none() {
        let message = "cache: without `methods` nothing is stored";
        let help = "expected \"GET\", or { \"GET\", \"POST\" }";
        report.mistake(call.place_of("methods"), Code::BadValue, message, help);
    }
    let tags: &[Node] = call.get("tags");
    for tag in tags {
        let name: &str = tag.get();
        if !forebay_fields::is_token(name.as_bytes()) {
            let message = format!("cache: `tags`: \"{name}\" cannot be the name of a field");
            let help = "expected the names of response fields, as \"Cache-Tag\"";
            report.mistake(tag.place, Code::BadValue, message, help);
        }
    }
}

/// HTTP tells ages and lifetimes in whole seconds (RFC 9111 §1.2.2): less would be rounded to
/// something that nobody has written.
fn check_seconds(option: &str, node: &Node, report: &mut Report) {
    if let Some(map) = node.as_a::<&[(Node, Node)]>() {
        for (_, value) in map {
            check_seconds(option, value, report);
        }
        return;
    }
    let time = node.as_a::<Duration>();
    if time.is_some_and(|time| time.subsec_nanos() > 0) {
        let message = format!("cache: `{option}` is not in whole seconds");
        let help = "expected a duration such as \"1s\" or \"10m\"";
        report.mistake(node.place, Code::BadValue, message, help);
    }
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let kept = match call.find::<&Arc<Call>>("store") {
        Some(declared) => builder.stores.declare(declared),
        None => builder.stores.usual(),
    };
    let seconds = |option: &str| {
        let time = call.find::<Duration>(option)?;
        u32::try_from(time.as_secs()).ok()
    };
    let policy = Policy {
        ttl: ttl(call),
        force: call.get("force"),
        strip_cookies: call.get("strip_cookies"),
        store_set_cookie: call.get::<&str>("set_cookie") == "store",
        stale_while_revalidate: seconds("stale_while_revalidate"),
        stale_if_error: seconds("stale_if_error"),
        max_object: call.get("max_object"),
        min_uses: call.get("min_uses"),
        methods: methods(call).map(Into::into).collect(),
        ..Policy::default()
    };
    let posts = policy.caches_method("POST");
    let tags: &[Node] = call.get("tags");
    let key = KeyRules::of(call);
    builder.stores.note_cache(&kept, &policy, key.query());
    let condition = |builder: &mut Builder<'_>, option: &str| {
        let calls = call.find::<&[Arc<Call>]>(option)?;
        builder.condition(calls)
    };
    Some(Box::new(Cache {
        bypass: condition(builder, "bypass"),
        refresh: condition(builder, "refresh"),
        purge: condition(builder, "purge"),
        shared: Arc::new(Shared {
            id: resource_id(),
            kept: kept.clone(),
            store: kept.store.clone(),
            lives: kept.lives.clone(),
            live: join::too_slow(call.get("live")),
            policy,
            key,
            posts,
            tag_fields: tags.iter().map(|node| node.get::<&str>().into()).collect(),
        }),
    }))
}

/// The methods whose responses are stored.
pub fn methods(call: &Call) -> impl Iterator<Item = &str> {
    let nodes: &[Node] = call.get("methods");
    nodes.iter().map(|node| node.get::<&str>())
}

fn ttl(call: &Call) -> Ttl {
    let seconds = |node: &Node| {
        let time: Duration = node.get();
        u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
    };
    let Some(node) = call.node("ttl") else {
        return Ttl::default();
    };
    let Some(map) = node.as_a::<&[(Node, Node)]>() else {
        return Ttl::usual(seconds(node));
    };
    let mut ttl = Ttl::default();
    for (key, value) in map {
        match key.as_a::<Status>() {
            Some(Status::Code(status)) => ttl.set(status, seconds(value)),
            Some(Status::Class(class)) => ttl.set_class(class, seconds(value)),
            None => ttl.set_other(seconds(value)),
        }
    }
    ttl
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{built, mistakes};

    #[test]
    fn what_can_mean_nothing_is_a_mistake() {
        for (options, expected) in [
            ("methods = {}", "cache: without `methods` nothing is stored"),
            (
                r#"tags = { "Cache-Tag", "Cache Tag" }"#,
                "cache: `tags`: \"Cache Tag\" cannot be the name of a field",
            ),
            (
                r#"when = method "GET""#,
                "`bypass` says which requests go round it",
            ),
            (r#"ttl = "11y""#, "the longest is \"10y\""),
            ("ttl = 60", "expected a duration, as \"250ms\""),
            (
                r#"store = "big""#,
                "as `local x = cache_store …` and then `x`",
            ),
            (r#"key = "$cookie.a""#, "did you mean `$cookies.NAME`?"),
        ] {
            let config = format!("site {{ \"*\", cache {{ {options} }}, respond(200) }}");
            let said = mistakes(&config);
            assert!(said.contains(expected), "{options}: {said}");
        }
        let said =
            mistakes(r#"cache_store { disk = {}, disk_size = "1GB" } site { "*", respond(200) }"#);
        assert!(said.contains("expected at least one"), "{said}");
        built(r#"site { "*", cache { tags = {}, keep_query = {} }, respond(200) }"#);
    }

    #[test]
    fn times_are_in_whole_seconds() {
        for (options, wrong) in [
            (r#"ttl = "500ms""#, "ttl"),
            (r#"ttl = { [200] = "1s", other = "1500ms" }"#, "ttl"),
            (
                r#"stale_while_revalidate = "1ms""#,
                "stale_while_revalidate",
            ),
            (r#"stale_if_error = "10ms""#, "stale_if_error"),
        ] {
            let config = format!("site {{ \"*\", cache {{ {options} }}, respond(200) }}");
            let said = mistakes(&config);
            let expected = format!("cache: `{wrong}` is not in whole seconds");
            assert!(said.contains(&expected), "{options}: {said}");
        }
        built(r#"site { "*", cache { ttl = "1000ms", stale_if_error = "0s" }, respond(200) }"#);
    }
}
