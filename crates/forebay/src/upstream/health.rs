//! `health` of an upstream: what its checks ask and what they expect.

use std::time::Duration;

use forebay_config::{
    Call, Code, Match, Node, Opt, Record, RecordType, Report, Scheme, Status, Target, Type, Value,
};

/// How the peers of a pool are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What is looked at.
    pub kind: Kind,
    /// Between the end of a check and the next.
    pub every: Duration,
    /// For one check, connecting included.
    pub timeout: Duration,
    /// Checks in a row that make a peer usable again.
    pub up: u32,
    /// Checks in a row that put it out of use.
    pub down: u32,
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A connection is enough.
    Tcp,
    /// A handshake too, in which the peer proves who it is: a bare address, by this name.
    Tls(Option<Box<str>>),
    /// The answer to a request.
    Http(Ask),
    /// The answer to FastCGI's question for its values (FastCGI 1.0 §4.1).
    FastCgi,
}

/// A request, and the answer that is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Path and query.
    pub path: Box<str>,
    /// The Host field; none: the peer's own name.
    pub host: Option<Box<str>>,
    /// One of these.
    pub status: Vec<Status>,
    /// What the body, its first 64 KiB, must match.
    pub body: Option<Match>,
}

/// The table that `health` takes.
pub static RECORD: RecordType = RecordType {
    name: "health",
    args: &[],
    options: &[
        Opt::new(
            "path",
            Type::Text,
            "What is asked for by `http`: path and query.",
        ),
        Opt::new(
            "kind",
            Type::OneOf(&["http", "tcp", "tls", "fastcgi"]),
            "A request; a connection only; a connection and a handshake, in which the peer proves \
             who it is; FastCGI's question for the values of the application.",
        )
        .default(r#""http""#),
        Opt::new(
            "status",
            Type::List(&Type::Status),
            "The statuses that are right.",
        )
        .default(r#""2xx""#),
        Opt::new(
            "body",
            Type::Match,
            "What the first 64 KiB of the body must match.",
        ),
        Opt::new(
            "host",
            Type::Text,
            "The Host field; over TLS also the name of a peer that is a bare address.",
        )
        .unset("the peer"),
        Opt::new("every", TIME, "Between two checks.").default(r#""5s""#),
        Opt::new("timeout", TIME, "For one check.").default(r#""2s""#),
        Opt::new(
            "up",
            ROW,
            "Right answers in a row after which a peer is used again.",
        )
        .default("2"),
        Opt::new(
            "down",
            ROW,
            "Wrong ones in a row after which it is used no more.",
        )
        .default("3"),
    ],
};

const TIME: Type = Type::Duration {
    min: Duration::from_millis(10),
    max: Duration::from_secs(86_400),
};

const ROW: Type = Type::Count { min: 1, max: 1_000 };

/// What only the whole table can be wrong in.
pub fn check(call: &Call, report: &mut Report) {
    let Some(node) = call.node("health") else {
        return;
    };
    let record: &Record = node.get();
    let is_http = record.get::<&str>("kind") == "http";
    let mut wrong = |option: Option<&Node>, code: Code, what: &str, help: &str| {
        let place = option.map_or(node.place, |option| option.place);
        let message = format!("{}: `health` {what}", call.subject());
        report.mistake(place, code, message, help);
    };
    match record.find::<&str>("path") {
        None if is_http => wrong(
            None,
            Code::Missing,
            "has no `path`",
            "say what to ask for, as path = \"/healthz\"; or kind = \"tcp\"",
        ),
        Some(path) if is_http && !is_target(path) => wrong(
            record.node("path"),
            Code::BadValue,
            "has a `path` that cannot be asked for",
            "expected a path that begins with / and holds no space, as \"/healthz\"",
        ),
        _ => {}
    }
    let host = record.find::<&str>("host");
    if host.is_some_and(|host| host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        wrong(
            record.node("host"),
            Code::BadValue,
            "has a `host` that is none",
            "expected a name, as \"app.example.com\"",
        );
    }
    let kind: &str = record.get("kind");
    let (unused, help): (&[&str], _) = match kind {
        "tcp" => (
            &["path", "body", "status", "host"],
            "a connection is all that is looked at",
        ),
        "tls" => (
            &["path", "body", "status"],
            "a handshake is all that is looked at",
        ),
        "fastcgi" => (
            &["path", "body", "status", "host"],
            "an application that answers at all is well",
        ),
        _ => (&[], ""),
    };
    for option in unused {
        let given = record.node(option).filter(|node| node.place.is_known());
        if given.is_some() {
            let what = format!("with kind = \"{kind}\" has no `{option}`");
            wrong(given, Code::Conflict, &what, help);
        }
    }
    if kind == "tls" && call.items.iter().any(is_clear) {
        wrong(
            record.node("kind"),
            Code::Conflict,
            "with kind = \"tls\" has a peer that is not spoken to over TLS",
            "write its target as \"https://…\"; or kind = \"tcp\"",
        );
    }
}

fn is_clear(peer: &Node) -> bool {
    let target = match &peer.value {
        Value::Record(record) => record.get::<&Target>("TARGET"),
        _ => peer.get::<&Target>(),
    };
    target.scheme != Scheme::Https
}

fn is_target(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// From the checked table.
pub fn of(call: &Call) -> Option<Health> {
    let record: &Record = call.find("health")?;
    let host = record.find::<&str>("host").map(Into::into);
    let kind = match record.get("kind") {
        "tcp" => Kind::Tcp,
        "tls" => Kind::Tls(host),
        "fastcgi" => Kind::FastCgi,
        _ => Kind::Http(Ask {
            path: record.find::<&str>("path").unwrap_or("/").into(),
            host,
            status: record
                .get::<&[Node]>("status")
                .iter()
                .map(|node| node.get::<Status>())
                .collect(),
            body: record.find::<&Match>("body").cloned(),
        }),
    };
    Some(Health {
        kind,
        every: record.get("every"),
        timeout: record.get("timeout"),
        up: record.get("up"),
        down: record.get("down"),
    })
}
