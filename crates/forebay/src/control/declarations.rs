//! The declarations that belong to the process and its listeners: their directives, and what
//! becomes of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay_config::{
    Address, Arg, Call, Code, Directive, MAX_COUNT, Node, Opt, Place, Report, Type,
};
use forebay_http1::Limits;
use rustc_hash::FxHashMap;

use super::admin::default_path;
use crate::access::Redact;
use crate::exchange::Trust;
use crate::listen::{ListenerId, Times};
use crate::log::{FORMATS, LEVELS};
use crate::snapshot::{Protocol, resource_id};
use crate::steps;
use crate::steps::networks::Networks;
use crate::steps::patterns::check_hosts;
use crate::upstream::fleet;

const TIME: Type = Type::Duration {
    min: Duration::from_secs(1),
    max: Duration::from_secs(86_400),
};
const HEAD: Type = Type::Size {
    min: 1 << 10,
    max: 1 << 20,
};

/// `listen ADDRESS`
pub static LISTEN: Directive = Directive::declaration(
    "listen",
    "Binds an address. A file without any `listen` is served on `:80`. `:80` stands for every \
     IPv4 and IPv6 address of the machine.",
)
.args(&[Arg::required("ADDRESS", Type::Address)])
.options(&[
    Opt::new(
        "protocol",
        Type::OneOf(&["http", "fastcgi"]),
        "`fastcgi`: this server is a FastCGI application of another one, which tells it of its \
         clients; on TCP `trust` names who is believed.",
    )
    .default(r#""http""#),
    Opt::new(
        "trust",
        Type::List(&Type::Prefix),
        "Peers whose `Forwarded` and `X-Forwarded-*` are believed; on a Unix socket all are.",
    ),
    Opt::new(
        "proxy_protocol",
        Type::Boolean,
        "These peers start each connection with a PROXY header, version 1 or 2; without a right \
         one it is closed.",
    )
    .default("false"),
    Opt::new(
        "mode",
        Type::Text,
        "Of the file of a Unix socket, in octal digits.",
    )
    .default(r#""0660""#),
    Opt::new(
        "owner",
        Type::Text,
        "`user:group` of the file of a Unix socket.",
    )
    .unset("own user"),
    Opt::new(
        "header_timeout",
        TIME,
        "For the whole head of a request; else 408.",
    )
    .default(r#""10s""#),
    Opt::new(
        "body_timeout",
        TIME,
        "Between two reads of a request's body; else 408.",
    )
    .default(r#""30s""#),
    Opt::new(
        "idle_timeout",
        TIME,
        "Between two requests on one connection.",
    )
    .default(r#""75s""#),
    Opt::new(
        "write_timeout",
        TIME,
        "Between two writes to a client that reads too slowly.",
    )
    .default(r#""30s""#),
    Opt::new(
        "max_request_line",
        HEAD,
        "The first line of a request; else 414.",
    )
    .default(r#""16KB""#),
    Opt::new(
        "max_header",
        HEAD,
        "All fields of a request together; else 431.",
    )
    .default(r#""64KB""#),
    Opt::new(
        "max_connections_per_client",
        Type::Count {
            min: 1,
            max: 1_000_000,
        },
        "Connections of one `$client_net`; more are closed. Those whom `trust` names are not \
         counted.",
    )
    .default("1000"),
])
.example(r#"listen "127.0.0.1:8080" { idle_timeout = "2m" }"#);

/// `site HOST… PIPELINE`
pub static SITE: Directive = Directive::declaration(
    "site",
    "Answers for these host names. The most exact name wins, in whatever order they stand; for \
     other hosts the answer is 404.",
)
.args(&[Arg::required("HOST", Type::List(&Type::Host))])
.items("PIPELINE", Type::Pipeline)
.options(&[
    Opt::new(
        "on",
        Type::List(&Type::Address),
        "Answers on these addresses only.",
    )
    .unset("every listener"),
    Opt::new("name", Type::Name, "Its name in logs and metrics.").unset("first host"),
])
.distinct("HOST", Some("on"))
.check(check_hosts)
.example(
    r#"site { "example.com", "*.example.com",
  route "/api/*" { proxy "127.0.0.1:3000" },
  proxy "127.0.0.1:8080",
}"#,
);

/// `server`
pub static SERVER: Directive = Directive::declaration(
    "server",
    "The process. At most one in a configuration.",
)
.options(&[
    Opt::new(
        "workers",
        Type::Count { min: 1, max: 1024 },
        "Threads that serve.",
    )
    .unset("cores"),
    Opt::new("user", Type::Text, "`user:group` to become after binding.").unset("none"),
    Opt::new(
        "max_connections",
        Type::Count {
            min: 1,
            max: MAX_COUNT,
        },
        "Connections open at once; past it, idle ones are closed and new ones are \
                 answered 503.",
    )
    .unset("80 % of descriptors"),
    Opt::new("admin", Type::Address, "The admin socket, mode 0600.").unset(
        "`\"unix:/run/forebay.sock\"`; started by another user than root, `forebay.sock` in \
                 `$XDG_RUNTIME_DIR`",
    ),
    Opt::new(
        "log",
        Type::OneOf(&LEVELS),
        "How much is written to standard error.",
    )
    .default(r#""info""#),
    Opt::new(
        "watch",
        Type::Boolean,
        "Reload when a file that was read changes, or what a pattern matches.",
    )
    .default("false"),
    Opt::new(
        "log_format",
        Type::OneOf(&FORMATS),
        "Lines for people, or an object of JSON in each. Holds from the start.",
    )
    .default(r#""text""#),
    Opt::new(
        "redact",
        Type::List(&Type::Match),
        "The names of parameters whose values no access log shows; the case of letters \
                 does not count: write them small.",
    )
    .default(Redact::USUAL),
    Opt::new(
        "state",
        Type::Path,
        "A directory for what outlives the process: the key of `sticky`.",
    )
    .default(r#""/var/lib/forebay""#),
    Opt::new(
        "drain",
        Type::DURATION,
        "For exchanges under way, at the stop.",
    )
    .default(r#""30s""#),
])
.once()
.example(r#"server { workers = 2, user = "www-data:www-data" }"#);

/// An address to listen on.
#[derive(Clone, Debug)]
pub struct Bind {
    /// Its number; the same address keeps it from one configuration to the next.
    pub id: ListenerId,
    /// Where.
    pub address: Address,
    /// The times for its clients.
    pub times: Times,
    /// The limits for their heads.
    pub limits: Limits,
    /// Who is believed what about clients.
    pub trust: Option<Arc<Trust>>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Connections of those who are trusted begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Connections that one client may have.
    pub max_per_client: u32,
    /// The file, where it is a Unix socket.
    pub file: File,
}

/// The file of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its permission bits.
    pub mode: u32,
    /// `user:group`; none: the user that serves.
    pub owner: Option<Box<str>>,
}

impl Default for File {
    fn default() -> File {
        File {
            mode: 0o660,
            owner: None,
        }
    }
}

/// What `server` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Threads; none: as many as there are cores.
    pub workers: Option<usize>,
    /// `user:group` to become.
    pub user: Option<Box<str>>,
    /// Connections open at once; none: by the number of descriptors.
    pub max_connections: Option<usize>,
    /// The admin socket.
    pub admin: Address,
    /// Whether `admin` was written: a default that cannot be bound is no reason not to start.
    pub admin_is_set: bool,
    /// `error`, `warn`, `info` or `debug`.
    pub log: &'static str,
    /// Whether to reload when what the configuration was made of changes.
    pub watch: bool,
    /// `text` or `json`.
    pub log_format: &'static str,
    /// For exchanges under way, at the stop.
    pub drain: Duration,
    /// What outlives the process is kept here.
    pub state: PathBuf,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            workers: None,
            user: None,
            max_connections: None,
            admin: Address::Unix(default_path().into()),
            admin_is_set: false,
            log: "info",
            watch: false,
            log_format: "text",
            drain: Duration::from_secs(30),
            state: PathBuf::from("/var/lib/forebay"),
        }
    }
}

/// What the `server` declaration says, or the defaults.
pub fn server(declarations: &[Arc<Call>]) -> Server {
    let Some(call) = declarations.iter().find(|call| call.name() == SERVER.name) else {
        return Server::default();
    };
    Server {
        workers: call.find("workers"),
        user: call.find("user").map(|user: &str| user.into()),
        max_connections: call.find("max_connections"),
        admin: match call.find::<&Address>("admin") {
            Some(address) => address.clone(),
            None => Address::Unix(default_path().into()),
        },
        admin_is_set: call.is_set("admin"),
        watch: call.get("watch"),
        log: word(call.get("log"), &LEVELS),
        log_format: word(call.get("log_format"), &FORMATS),
        drain: call.get("drain"),
        state: call.get::<&Path>("state").to_owned(),
    }
}

/// The same word, which lives as long as the program; the first one if it is none of them.
fn word(given: &str, words: &[&'static str]) -> &'static str {
    let known = words.iter().find(|known| **known == given);
    known.or(words.first()).copied().unwrap_or_default()
}

/// What access logs mask.
pub fn redact(declarations: &[Arc<Call>]) -> Redact {
    let mut calls = declarations.iter();
    match calls.find(|call| call.name() == SERVER.name) {
        Some(call) => Redact::new(call.get("redact")),
        None => Redact::usual(),
    }
}

/// What has programs started as the user that the server is.
pub fn own_programs(declarations: &[Arc<Call>]) -> Vec<String> {
    let mut found = Vec::new();
    for call in declarations {
        if call.name() == fleet::DIRECTIVE.name && !call.is_set("user") {
            found.push(call.subject());
        }
        call.visit_steps(&mut |step| {
            if steps::runs_programs(step) && !step.is_set("user") {
                let site = super::build::name_of(call, call.get("HOST"));
                found.push(format!("{} of site \"{site}\"", step.name()));
            }
        });
    }
    found.dedup();
    found
}

/// The addresses to listen on. One that was there before keeps its number.
pub fn listeners(declarations: &[Arc<Call>], report: &mut Report, previous: &[Bind]) -> Vec<Bind> {
    let ids: FxHashMap<&Address, ListenerId> = previous
        .iter()
        .map(|bind| (&bind.address, bind.id))
        .collect();
    let id_of = |address: &Address| ids.get(address).copied().unwrap_or_else(resource_id);
    let mut binds: Vec<Bind> = Vec::new();
    let mut first: FxHashMap<Address, Place> = FxHashMap::default();
    for call in declarations
        .iter()
        .filter(|call| call.name() == LISTEN.name)
    {
        let address: &Address = call.get("ADDRESS");
        let place = call.place_of("ADDRESS");
        if let Some(first) = first.insert(address.clone(), place) {
            let span = report.sources().span(first);
            let message = format!("listen: \"{address}\" is declared twice");
            let help = format!("first at {}:{}", span.file, span.line);
            report.mistake(place, Code::Duplicate, message, help);
            continue;
        }
        binds.push(Bind {
            id: id_of(address),
            address: address.clone(),
            times: times(call),
            limits: limits(call),
            trust: trust(call, address, report),
            protocol: match call.get("protocol") {
                "fastcgi" => Protocol::Fastcgi,
                _ => Protocol::Http,
            },
            proxy_protocol: call.get("proxy_protocol"),
            max_per_client: call.get("max_connections_per_client"),
            file: file(call, address, report),
        });
    }
    // A declaration with a mistake in it is not among these; but then the result is not used.
    if binds.is_empty() {
        let address = Address::Port(80);
        let (times, limits) = (Times::default(), Limits::default());
        binds.push(Bind {
            id: id_of(&address),
            address,
            times,
            limits,
            trust: None,
            protocol: Protocol::Http,
            proxy_protocol: false,
            max_per_client: 1000,
            file: File::default(),
        });
    }
    binds
}

/// On a plain TCP socket nobody is trusted unless somebody is named.
fn trust(call: &Call, address: &Address, report: &mut Report) -> Option<Arc<Trust>> {
    let prefixes: Option<&[Node]> = call.find("trust");
    let may_be_unix = matches!(address, Address::Unix(_) | Address::Fd(_));
    if call.get("proxy_protocol") && prefixes.is_none() && !may_be_unix {
        let message = "listen: `proxy_protocol` needs `trust`";
        let help = "name those who send the header, as `trust = \"10.0.0.0/8\"`";
        let place = call.place_of("proxy_protocol");
        report.mistake(place, Code::Missing, message.to_owned(), help);
    }
    let networks = Networks::new(prefixes.unwrap_or_default());
    (prefixes.is_some() || may_be_unix).then(|| Arc::new(Trust::new(networks)))
}

fn file(call: &Call, address: &Address, report: &mut Report) -> File {
    let is_unix = matches!(address, Address::Unix(_));
    for option in ["mode", "owner"] {
        if call.is_set(option) && !is_unix {
            let message = format!("listen: `{option}` is for Unix sockets");
            let help = "as in `listen \"unix:/run/app.sock\"`";
            report.mistake(call.place_of(option), Code::Conflict, message, help);
        }
    }
    let text: &str = call.get("mode");
    let mode = octal(text).unwrap_or_else(|| {
        let message = format!("listen: `mode` cannot be \"{text}\"");
        let help = "expected three or four octal digits, as \"0660\"";
        report.mistake(call.place_of("mode"), Code::BadValue, message, help);
        0
    });
    File {
        mode,
        owner: call.find("owner").map(|owner: &str| owner.into()),
    }
}

/// `"0660"`, `"660"`: permission bits and nothing else.
fn octal(text: &str) -> Option<u32> {
    let digits = match text.as_bytes() {
        [b'0', digits @ ..] if digits.len() == 3 => digits,
        digits if digits.len() == 3 => digits,
        _ => return None,
    };
    digits.iter().try_fold(0, |mode, digit| {
        let digit = matches!(digit, b'0'..=b'7').then(|| u32::from(digit - b'0'))?;
        Some(mode * 8 + digit)
    })
}

fn times(call: &Call) -> Times {
    Times {
        header: call.get("header_timeout"),
        body: call.get("body_timeout"),
        idle: call.get("idle_timeout"),
        write: call.get("write_timeout"),
    }
}

fn limits(call: &Call) -> Limits {
    Limits {
        max_request_line: call.get("max_request_line"),
        max_header: call.get("max_header"),
        ..Limits::default()
    }
}

/// The places in `binds` of the addresses that a site's `on` names; all of them without `on`.
pub fn chosen(site: &Call, binds: &[Bind], report: &mut Report) -> Option<Vec<usize>> {
    let on: &[Node] = site.find("on")?;
    let mut chosen = Vec::with_capacity(on.len());
    for node in on {
        let address: &Address = node.get();
        match binds.iter().position(|bind| bind.address == *address) {
            Some(at) if chosen.contains(&at) => {}
            Some(at) => chosen.push(at),
            None => {
                let message = format!("site: `on` cannot be \"{address}\"");
                let help = format!("nothing listens there: write `listen \"{address}\"`");
                report.mistake(node.place, Code::BadValue, message, help);
            }
        }
    }
    Some(chosen)
}
