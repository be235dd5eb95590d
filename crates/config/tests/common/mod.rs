//! A registry like the binary's, and how the tests run configurations with it.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use forebay_config::{
    Answers, Arg, Directive, LoadOptions, Loaded, MAX_COUNT, Opt, RecordType, Registry, Report,
    Type, Vars, When, load_text,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const TIMEOUT: Type = Type::Duration {
    min: Duration::from_millis(1),
    max: DAY.saturating_mul(7),
};
const REQUEST: Type = Type::Template(Vars::Request);
const FIELDS: Type = Type::Fields(Vars::Response);
const ONE_OR_MORE: Type = Type::Count {
    min: 1,
    max: 1_000_000,
};
const TLS: Type = Type::Or(&[Type::OneOf(&["auto", "internal"]), Type::Path]);
const POOL: Type = Type::Or(&[Type::Declared(&["upstream"]), Type::TARGET]);
const FASTCGI_POOL: Type = Type::Or(&[
    Type::Declared(&["upstream"]),
    Type::Target {
        schemes: false,
        variables: false,
    },
]);

static HEALTH: RecordType = RecordType {
    name: "health",
    args: &[],
    options: &[
        Opt::new("path", Type::Text, "What to ask for."),
        Opt::new("kind", Type::OneOf(&["http", "tcp", "tls"]), "How.").default("\"http\""),
        Opt::new(
            "every",
            Type::Duration {
                min: SECOND,
                max: DAY,
            },
            "How often.",
        )
        .default("\"5s\""),
        Opt::new("status", Type::List(&Type::Status), "What is well.").default("\"2xx\""),
    ],
};

static EJECT: RecordType = RecordType {
    name: "eject",
    args: &[],
    options: &[
        Opt::new("errors", ONE_OR_MORE, "How many.").default("5"),
        Opt::new("time", Type::DURATION, "For how long.").default("\"10s\""),
    ],
};

static PEER: RecordType = RecordType {
    name: "peer",
    args: &[Arg::required(
        "TARGET",
        Type::Target {
            schemes: true,
            variables: true,
        },
    )],
    options: &[
        Opt::new("weight", Type::Count { min: 1, max: 1_000 }, "Share.").default("1"),
        Opt::new("backup", Type::Boolean, "Only when no other is left.").default("false"),
    ],
};

static LISTEN: Directive = Directive::declaration("listen", "Bind an address.")
    .args(&[Arg::required("ADDRESS", Type::Address)])
    .options(&[
        Opt::new("tls", TLS, "Certificates."),
        Opt::new("protocol", Type::OneOf(&["http", "fastcgi"]), "Spoken.").default("\"http\""),
        Opt::new("owner", Type::Text, "Of a Unix socket.").unset("own user"),
        Opt::new(
            "passthrough",
            Type::Or(&[
                Type::Declared(&["upstream"]),
                Type::TARGET,
                Type::Map {
                    key: &Type::Host,
                    value: &POOL,
                },
            ]),
            "Pass on without decrypting.",
        ),
        Opt::new(
            "header_timeout",
            Type::Duration {
                min: SECOND,
                max: DAY,
            },
            "The whole head.",
        )
        .default("\"10s\""),
        Opt::new(
            "max_header",
            Type::Size {
                min: 1 << 10,
                max: 1 << 20,
            },
            "Else 431.",
        )
        .default("\"64KB\""),
        Opt::new("trust", Type::List(&Type::Prefix), "Believed peers."),
    ]);

static SITE: Directive = Directive::declaration("site", "Answer for these hosts.")
    .args(&[Arg::required("HOST", Type::List(&Type::Host))])
    .items("PIPELINE", Type::Pipeline)
    .options(&[
        Opt::new("https", Type::OneOf(&["force", "optional"]), "Redirect.").default("\"force\""),
        Opt::new("tls", TLS, "Certificates."),
        Opt::new("on", Type::List(&Type::Address), "Where.").unset("every listener"),
        Opt::new("name", Type::Name, "In logs."),
    ])
    .distinct("HOST", Some("on"))
    .example("site { \"example.com\", files \"/srv/www\" }");

static UPSTREAM: Directive = Directive::declaration("upstream", "A pool of peers.")
    .args(&[Arg::required("NAME", Type::Name)])
    .items("PEER", Type::Record(&PEER))
    .options(&[
        Opt::new(
            "balance",
            Type::OneOf(&["least_requests", "round_robin", "hash"]),
            "How.",
        )
        .default("\"least_requests\""),
        Opt::new("by", REQUEST, "What is hashed.").default("\"$client_net\""),
        Opt::new("sticky", Type::Name, "Cookie."),
        Opt::new("health", Type::Record(&HEALTH), "Active checks."),
        Opt::new(
            "eject",
            Type::Or(&[Type::False, Type::Record(&EJECT)]),
            "Passive ones.",
        )
        .default("{ errors = 5, time = \"10s\" }"),
        Opt::new("max_connections", ONE_OR_MORE, "Per peer.").default("512"),
        Opt::new("send_proxy", Type::OneOf(&["v1", "v2"]), "PROXY header."),
        Opt::new("family", Type::OneOf(&["any", "ipv4", "ipv6"]), "Of names.").default("\"any\""),
        Opt::new("tls_name", REQUEST, "Name to check."),
        Opt::new("allow", Type::List(&Type::Prefix), "Only within."),
    ])
    .namespace("upstream");

static SERVER: Directive = Directive::declaration("server", "The process.")
    .options(&[
        Opt::new("workers", Type::Count { min: 1, max: 1024 }, "Threads.").unset("cores"),
        Opt::new("memory", Type::Or(&[Type::Percent, Type::SIZE]), "In all.").default("\"25%\""),
        Opt::new("watch", Type::Boolean, "Reload on change.").default("false"),
    ])
    .once();

static ACME: Directive = Directive::declaration("acme", "Automatic certificates.")
    .options(&[Opt::new("email", Type::Text, "Account.")]);

static RESOLVER: Directive = Directive::declaration("resolver", "DNS.").options(&[
    Opt::new("min_ttl", Type::DURATION, "At least.").default("\"5s\""),
    Opt::new("max_ttl", Type::DURATION, "At most.").default("\"1d\""),
]);

static CACHE_STORE: Directive = Directive::declaration("cache_store", "Where objects are kept.")
    .args(&[Arg::optional("NAME", Type::Name)])
    .options(&[
        Opt::new(
            "memory",
            Type::Size {
                min: 1 << 20,
                max: 16 << 40,
            },
            "RAM.",
        )
        .default("\"256MB\""),
        Opt::new("disk", Type::List(&Type::Path), "Directories."),
        Opt::new("disk_size", Type::SIZE, "Of each."),
    ]);

static ROUTE: Directive = Directive::route("route", "Steps for some paths.")
    .args(&[Arg::required("PATTERN", Type::List(&Type::Pattern))])
    .items("PIPELINE", Type::Pipeline);

static ACCESS_LOG: Directive = Directive::filter("access_log", "A line per exchange.")
    .args(&[Arg::required(
        "TO",
        Type::Or(&[Type::OneOf(&["stdout", "stderr"]), Type::Path]),
    )])
    .options(&[Opt::new(
        "format",
        Type::Or(&[
            Type::OneOf(&["combined", "json"]),
            Type::Template(Vars::Response),
        ]),
        "Of the line.",
    )
    .default("\"combined\"")])
    .when(When::Response);

static ALLOW: Directive = Directive::filter("allow", "403 for others.")
    .args(&[Arg::required("PREFIX", Type::List(&Type::Prefix))])
    .access_control();
static DENY: Directive = Directive::filter("deny", "403 for these.")
    .args(&[Arg::required("PREFIX", Type::List(&Type::Prefix))])
    .access_control();
static BASIC_AUTH: Directive = Directive::filter("basic_auth", "Passwords.")
    .args(&[Arg::required("FILE", Type::Path)])
    .access_control();
static FORWARD_AUTH: Directive = Directive::filter("forward_auth", "Ask another.")
    .args(&[Arg::required("TARGET", POOL)])
    .options(&[
        Opt::new("uri", REQUEST, "Its target.").default("\"$uri\""),
        Opt::new("copy", Type::List(&Type::Text), "Fields."),
    ])
    .access_control();

static TTLS: Type = Type::Map {
    key: &Type::Or(&[Type::Status, Type::OneOf(&["other"])]),
    value: &Type::DURATION,
};
static CACHE: Directive = Directive::filter("cache", "Answer from the store.")
    .options(&[
        Opt::new("ttl", Type::Or(&[Type::DURATION, TTLS]), "Freshness."),
        Opt::new("force", Type::Boolean, "Replace.").default("false"),
        Opt::new("strip_cookies", Type::Boolean, "Without.").default("false"),
        Opt::new("stale_while_revalidate", Type::DURATION, "Stale."),
        Opt::new("stale_if_error", Type::DURATION, "Stale."),
        Opt::new("bypass", Type::CONDITION, "Go round."),
        Opt::new("key", REQUEST, "More key."),
        Opt::new("ignore_query", Type::List(&Type::Match), "Not counted."),
        Opt::new("sort_query", Type::Boolean, "In any order.").default("false"),
        Opt::new("purge", Type::CONDITION, "Who may."),
        Opt::new("tags", Type::List(&Type::Text), "Fields."),
    ])
    .when(When::No)
    .caches();

static COMPRESS: Directive = Directive::filter("compress", "By Accept-Encoding.").options(&[
    Opt::new(
        "encodings",
        Type::List(&Type::OneOf(&["zstd", "br", "gzip"])),
        "In order.",
    )
    .default("{ \"zstd\", \"br\", \"gzip\" }"),
    Opt::new("min_size", Type::SIZE, "Smaller are left.").default("\"1KB\""),
]);
static SECURITY: Directive = Directive::filter("security_headers", "Policies.")
    .options(&[Opt::new("frame", Type::Text, "Frames.").default("\"SAMEORIGIN\"")]);
static CORS: Directive = Directive::filter("cors", "Other origins.").options(&[
    Opt::new("origins", Type::List(&Type::Match), "Which.").required(),
    Opt::new("credentials", Type::Boolean, "With cookies.").default("false"),
]);
static ERRORS: Directive = Directive::filter("errors", "Replace responses.")
    .keyed(
        "STATUS = PAGE",
        Type::Status,
        Type::Or(&[Type::PathTemplate, Type::Pipeline]),
    )
    .options(&[Opt::new("intercept", Type::Boolean, "Also theirs.").default("false")]);
static HEADERS: Directive = Directive::filter("headers", "Change fields.")
    .options(&[
        Opt::new("request", Type::Fields(Vars::Request), "Down."),
        Opt::new("response", FIELDS, "Up."),
    ])
    .when(When::Response);
static LIMIT: Directive = Directive::filter("limit", "Rates and sizes.")
    .options(&[
        Opt::new("rate", Type::Rate, "How many."),
        Opt::new("burst", Type::COUNT, "At once."),
        Opt::new("concurrency", Type::COUNT, "Under way."),
        Opt::new("bandwidth", Type::Bandwidth, "Of each."),
        Opt::new("body", Type::SIZE, "Else 413."),
        Opt::new("by", REQUEST, "Per.").default("\"$client_net\""),
        Opt::new("count", Type::Condition { response: true }, "Which."),
    ])
    .access_control()
    .check(|call, report| {
        let any = ["rate", "concurrency", "bandwidth", "body"]
            .iter()
            .any(|name| call.is_set(name));
        if !any {
            let help = "give one of `rate`, `concurrency`, `bandwidth`, `body`";
            report.mistake(
                call.place,
                forebay_config::Code::Missing,
                "limit: no limit",
                help,
            );
        }
    });
static REWRITE: Directive = Directive::filter("rewrite", "The path.").args(&[
    Arg::optional("FROM", Type::Or(&[Type::Pattern, Type::Regex])),
    Arg::required("TO", Type::Template(Vars::Captures)),
]);
static SET: Directive = Directive::filter("set", "A variable.").args(&[
    Arg::required("NAME", Type::Name),
    Arg::required("TO", REQUEST),
]);

static FILES: Directive = Directive::handler("files", "Files under ROOT.")
    .args(&[Arg::required("ROOT", Type::PathTemplate)])
    .options(&[
        Opt::new(
            "try",
            Type::List(&Type::PathUnder { query: false }),
            "In order.",
        )
        .default("\"$path\""),
        Opt::new("index", Type::List(&Type::Text), "Of directories.").default("\"index.html\""),
        Opt::new("listing", Type::Boolean, "Of directories.").default("false"),
        Opt::new("max_age", Type::DURATION, "Cache-Control."),
        Opt::new("immutable", Type::Boolean, "Cache-Control.").default("false"),
    ])
    .answers(Answers::Sometimes);
static PROXY: Directive = Directive::handler("proxy", "HTTP to an upstream.")
    .args(&[Arg::required("TARGET", POOL)])
    .options(&[
        Opt::new("host", REQUEST, "The Host it sees.").default("\"$host\""),
        Opt::new("priority", Type::Count { min: 0, max: 9 }, "In the queue.").default("5"),
        Opt::new("retries", Type::Count { min: 0, max: 5 }, "On another.").default("1"),
        Opt::new(
            "retry_on",
            Type::List(&Type::Or(&[
                Type::OneOf(&["connect", "reset", "timeout"]),
                Type::Status,
            ])),
            "When.",
        )
        .default("{ \"connect\", \"reset\" }"),
        Opt::new("read_timeout", TIMEOUT, "Between bytes.").default("\"60s\""),
    ]);
static FASTCGI: Directive = Directive::handler("fastcgi", "A FastCGI application.")
    .args(&[Arg::required("TARGET", FASTCGI_POOL)])
    .options(&[
        Opt::new("root", Type::PathTemplate, "Of its scripts."),
        Opt::new(
            "try",
            Type::List(&Type::PathUnder { query: true }),
            "In order.",
        )
        .default("{ \"$path\", \"$path/index.php\", \"/index.php\" }"),
        Opt::new(
            "env",
            Type::Map {
                key: &Type::Text,
                value: &REQUEST,
            },
            "More.",
        )
        .default("{}"),
    ])
    .answers(Answers::Without("root"));
static FUNCTIONS: Directive = Directive::handler("functions", "Live functions.")
    .args(&[Arg::required("DIR", Type::Path)])
    .options(&[
        Opt::new("time", Type::DURATION, "Of a request.").default("\"30s\""),
        Opt::new("memory", Type::SIZE, "Of a process.").default("\"256MB\""),
        Opt::new(
            "count",
            Type::Or(&[ONE_OR_MORE, Type::Pair(&ONE_OR_MORE, &ONE_OR_MORE)]),
            "How many.",
        )
        .default("{ 1, 2 }"),
        Opt::new("user", Type::Text, "Of a process.").unset("own"),
    ])
    .answers(Answers::Sometimes);
static RESPOND: Directive = Directive::handler("respond", "A fixed answer.")
    .args(&[
        Arg::required("STATUS", Type::StatusCode),
        Arg::optional("TEXT", REQUEST),
    ])
    .options(&[
        Opt::new("headers", FIELDS, "Fields."),
        Opt::new("file", Type::PathTemplate, "Body."),
    ]);
static REDIRECT: Directive = Directive::handler("redirect", "Elsewhere.").args(&[
    Arg::required("TO", Type::Template(Vars::Captures)),
    Arg::optional("STATUS", Type::Count { min: 301, max: 308 }),
]);
static DASHBOARD: Directive = Directive::handler("dashboard", "The live page.");

const NAMES: Arg = Arg::required("NAME", Type::List(&Type::Match));
const VALUE: Arg = Arg::optional("VALUE", Type::Match);
static PATH: Directive = Directive::condition("path", "Whose path is one of these.")
    .args(&[Arg::required("PATTERN", Type::List(&Type::Pattern))]);
static METHOD: Directive = Directive::condition("method", "Whose method is one of these.")
    .args(&[Arg::required("METHOD", Type::List(&Type::Text))]);
static HEADER: Directive = Directive::condition("header", "That has this.").args(&[NAMES, VALUE]);
static COOKIE: Directive = Directive::condition("cookie", "That has this.").args(&[NAMES, VALUE]);
static QUERY: Directive = Directive::condition("query", "That has this.").args(&[NAMES, VALUE]);
static CLIENT: Directive = Directive::condition("client", "From there.")
    .args(&[Arg::required("PREFIX", Type::List(&Type::Prefix))]);
static EXISTS: Directive = Directive::condition("exists", "While this file exists.")
    .args(&[Arg::required("PATH", Type::PathTemplate)]);
static SHARE: Directive = Directive::condition("share", "For this share.").args(&[
    Arg::required("PERCENT", Type::Percent),
    Arg::optional("BY", REQUEST),
]);
static STATUS: Directive = Directive::condition("status", "Whose response has one of these.")
    .args(&[Arg::required("STATUS", Type::List(&Type::Status))])
    .response_only();
static ALL: Directive = Directive::condition("all", "Of which every one is true.")
    .items("CONDITION", Type::Condition { response: true });
static NONE: Directive = Directive::condition("none", "Of which no one is true.")
    .items("CONDITION", Type::Condition { response: true });

/// The directives that the configurations of the language's description use.
pub(crate) fn registry() -> Registry {
    assert_eq!(MAX_COUNT, 1_000_000_000);
    Registry::new([
        &LISTEN,
        &SITE,
        &UPSTREAM,
        &SERVER,
        &ACME,
        &RESOLVER,
        &CACHE_STORE,
        &ROUTE,
        &ACCESS_LOG,
        &ALLOW,
        &DENY,
        &BASIC_AUTH,
        &FORWARD_AUTH,
        &CACHE,
        &COMPRESS,
        &SECURITY,
        &CORS,
        &ERRORS,
        &HEADERS,
        &LIMIT,
        &REWRITE,
        &SET,
        &FILES,
        &PROXY,
        &FASTCGI,
        &FUNCTIONS,
        &RESPOND,
        &REDIRECT,
        &DASHBOARD,
        &PATH,
        &METHOD,
        &HEADER,
        &COOKIE,
        &QUERY,
        &CLIENT,
        &EXISTS,
        &SHARE,
        &STATUS,
        &ALL,
        &NONE,
    ])
}

/// Options with an environment of one variable, `SECRET`.
pub(crate) fn options() -> LoadOptions {
    let env = HashMap::from([("SECRET".to_owned(), "hunter22".to_owned())]);
    LoadOptions {
        env: Some(env),
        ..LoadOptions::default()
    }
}

/// Loads this text as `forebay.lua` in this directory.
pub(crate) fn load_in(dir: &Path, text: &str) -> Result<Loaded, Report> {
    load_text(
        &dir.join("forebay.lua"),
        text.into(),
        &registry(),
        &options(),
    )
}

/// Loads this text as `forebay.lua` of the working directory.
pub(crate) fn load(text: &str) -> Result<Loaded, Report> {
    load_in(Path::new(""), text)
}

/// What `forebay check` shows of this text: its mistakes, or its warnings, or nothing.
pub(crate) fn shown(text: &str) -> String {
    match load(text) {
        Ok(loaded) => loaded.report.render_warnings(),
        Err(report) => report.render(),
    }
}

/// A test: the first lines of this text's messages.
#[track_caller]
pub(crate) fn check(text: &str, expected: &[&str]) {
    let all = match load(text) {
        Ok(loaded) => loaded.report.warnings(),
        Err(report) => report.mistakes(),
    };
    let short = |one: &forebay_config::Diagnostic| {
        let warning = if one.code.is_none() { "warning: " } else { "" };
        let (line, column, message) = (one.line, one.column, &one.message);
        match one.help.as_str() {
            "" => format!("{line}:{column}: {warning}{message}"),
            help => format!("{line}:{column}: {warning}{message} ({help})"),
        }
    };
    let found: Vec<String> = all.iter().map(short).collect();
    assert_eq!(found, expected, "\n{}", shown(text));
}
