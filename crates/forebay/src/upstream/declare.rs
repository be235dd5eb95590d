//! `upstream`: from the configuration to a pool.

use std::sync::Arc;
use std::time::Duration;

use forebay_balance::{Balance, Eject, PeerSpec, PoolSpec, Share};
use forebay_config::{
    Arg, Call, Code, Directive, Endpoint, Node, Opt, Record, RecordType, Report, Scheme, Target,
    Template, Type, Value, Vars,
};
use rustc_hash::FxHashMap;

use super::health;
use super::tls::TlsSpec;
use super::{Definition, Member, Place, Protocol, ProxyHeader, Upstream, fleet, options, report};
use crate::snapshot::{Snapshot, resource_id};

/// See the module.
pub static DIRECTIVE: Directive = Directive::declaration(
    "upstream",
    "A pool of peers. A target given to a step is a pool of one with the defaults below.",
)
.args(&[Arg::required("NAME", Type::Name)])
.items("PEER", Type::Or(&[Type::TARGET, Type::Record(&PEER)]))
.namespace("upstream")
.options(&[
    options::BALANCE,
    options::BY,
    report::OPTION,
    options::STICKY,
    options::SLOW_START,
    Opt::new(
        "health",
        Type::Record(&health::RECORD),
        "Ask each peer at intervals, and use none that does not answer as it should.",
    )
    .unset("passive only"),
    Opt::new(
        "eject",
        Type::Or(&[Type::Boolean, Type::Record(&EJECT)]),
        "So many failures in a row put a peer out of service for a while, but never more than \
         this share of the peers; `false`: never.",
    )
    .unset(r#"{ errors = 5, time = "10s", max = "50%" }"#),
    Opt::new(
        "max_connections",
        Type::Count {
            min: 1,
            max: 1_000_000,
        },
        "Requests at once per peer, over all workers.",
    )
    .default("512"),
    options::QUEUE,
    options::QUEUE_TIMEOUT,
    Opt::new(
        "idle_connections",
        Type::COUNT,
        "Connections kept per peer and worker.",
    )
    .default("64"),
    Opt::new(
        "idle_timeout",
        Type::DURATION,
        "For how long they are kept.",
    )
    .unset("`60s`; to FastCGI applications `5s`"),
    Opt::new(
        "send_proxy",
        Type::OneOf(&["v1", "v2"]),
        "Start each connection with a PROXY header that tells who the client is. Such a \
         connection belongs to its client and is not kept.",
    ),
    Opt::new(
        "tls_name",
        Type::Template(Vars::Request),
        "With TLS, the name that is asked for and that the certificate must hold.",
    )
    .unset("the peer's; of a bare address, the request's host"),
    Opt::new(
        "tls_ca",
        Type::Path,
        "The authorities, in PEM form, one of which must have signed it.",
    )
    .unset("the system's"),
    Opt::new(
        "tls_cert",
        Type::Path,
        "A certificate to be known by, with its chain, in PEM form.",
    ),
    Opt::new("tls_key", Type::Path, "The key of that certificate."),
    Opt::new(
        "tls_verify",
        Type::Boolean,
        "`false`: whoever answers is believed to be the peer.",
    )
    .default("true"),
])
.check(check)
.example(r#"local app = upstream "app" { "10.0.0.1:8080", { "10.0.0.2:8080", weight = 2 } }"#);

fn check(call: &Call, report: &mut Report) {
    health::check(call, report);
    options::check_by(call, report);
    report::check(call, report);
    options::check_slow_start(call, report);
}

static PEER: RecordType = RecordType {
    name: "peer",
    args: &[Arg::required("TARGET", Type::TARGET)],
    options: &[
        Opt::new(
            "weight",
            Type::Count { min: 1, max: 1_000 },
            "Its part of the requests, compared with the others.",
        )
        .default("1"),
        Opt::new(
            "backup",
            Type::Boolean,
            "Used only when no other peer can be.",
        )
        .default("false"),
        Opt::new(
            "max_connections",
            Type::Count {
                min: 1,
                max: 1_000_000,
            },
            "In place of the pool's.",
        )
        .unset("the pool's"),
    ],
};

static EJECT: RecordType = RecordType {
    name: "eject",
    args: &[],
    options: &[
        Opt::new(
            "errors",
            Type::Count {
                min: 1,
                max: 1_000_000,
            },
            "Failures in a row.",
        )
        .default("5"),
        Opt::new("time", Type::DURATION, "For how long.").default(r#""10s""#),
        Opt::new("max", Type::Percent, "At most this share of the peers.").default(r#""50%""#),
    ],
};

/// The pools of a configuration that is being built.
#[derive(Default)]
pub struct Upstreams {
    /// What stays as it was is carried over.
    previous: Vec<Arc<Upstream>>,
    /// By the declaration's number.
    declared: FxHashMap<u32, Arc<Upstream>>,
    /// By the target's text.
    targets: FxHashMap<(Box<str>, Protocol), Arc<Upstream>>,
}

/// What is said of a pool that speaks something else than the step it is given to.
fn two_protocols(call: &Call, made: &Upstream, wanted: Protocol) -> (String, &'static str) {
    let subject = call.subject();
    if made.definition.processes.is_none() {
        let help = "its peers speak HTTP or FastCGI, not both: declare two";
        let message = format!("{subject}: `proxy` and `fastcgi` cannot have one pool");
        return (message, help);
    }
    match wanted {
        Protocol::Http => (
            format!("{subject} speaks FastCGI, and `proxy` HTTP"),
            "give it to `fastcgi`, or declare it with `protocol = \"http\"`",
        ),
        Protocol::FastCgi => (
            format!("{subject} speaks HTTP, and `fastcgi` FastCGI"),
            "give it to `proxy`, or declare it with `protocol = \"fastcgi\"`",
        ),
    }
}

impl Upstreams {
    /// Starts from the pools that are in service.
    pub fn new(previous: Option<&Snapshot>) -> Upstreams {
        let previous = previous
            .map(|snapshot| snapshot.upstreams.clone())
            .unwrap_or_default();
        Upstreams {
            previous,
            ..Upstreams::default()
        }
    }

    /// The pool that a step's argument means, one declared by `upstream` or a target, for who speaks
    /// this with its peers.
    pub fn of(
        &mut self,
        node: &Node,
        protocol: Protocol,
        report: &mut Report,
    ) -> Option<Arc<Upstream>> {
        match &node.value {
            Value::Declared(call) => {
                let made = self.declared(call, protocol, report)?;
                if made.definition.protocol == protocol {
                    return Some(made);
                }
                let (message, help) = two_protocols(call, &made, protocol);
                report.mistake(node.place, Code::Conflict, message, help);
                None
            }
            Value::Target(target) => {
                let key = (target.text.clone(), protocol);
                if let Some(made) = self.targets.get(&key) {
                    return Some(made.clone());
                }
                let member = member(target, node, protocol, report)?;
                let made = self.make(single(member, node, protocol, report))?;
                self.targets.insert(key, made.clone());
                Some(made)
            }
            _ => None,
        }
    }

    /// The pool of a declaration. Its peers speak what who uses it first speaks with them.
    fn declared(
        &mut self,
        call: &Call,
        protocol: Protocol,
        report: &mut Report,
    ) -> Option<Arc<Upstream>> {
        if let Some(made) = self.declared.get(&call.id) {
            return Some(made.clone());
        }
        let definition = match call.name() == fleet::DIRECTIVE.name {
            true => fleet::definition(call, report)?,
            false => definition(call, protocol, report)?,
        };
        let made = self.make(definition)?;
        self.declared.insert(call.id, made.clone());
        Some(made)
    }

    /// All pools of the configuration.
    pub fn all(&self) -> Vec<Arc<Upstream>> {
        let mut all: Vec<_> = self
            .declared
            .values()
            .chain(self.targets.values())
            .cloned()
            .collect();
        all.sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
        all
    }

    fn make(&self, definition: Definition) -> Option<Arc<Upstream>> {
        let same = self
            .previous
            .iter()
            .find(|old| old.definition == definition);
        if let Some(same) = same {
            return Some(same.clone());
        }
        // The types have checked what a pool could refuse.
        let made = Upstream::new(resource_id(), definition).ok()?;
        for old in &self.previous {
            made.take_orders_of(old);
        }
        Some(Arc::new(made))
    }
}

fn single(member: Member, node: &Node, protocol: Protocol, report: &mut Report) -> Definition {
    let tls = member.tls.then(TlsSpec::default);
    warn_of_nobody(tls.as_ref(), node.place, report);
    Definition {
        name: Arc::from(&*member.label),
        protocol,
        peers: vec![member],
        pool: PoolSpec::new(vec![PeerSpec::default()]),
        by: None,
        report: None,
        sticky: None,
        health: None,
        queue: 1024,
        queue_timeout: Duration::from_secs(10),
        idle_connections: 64,
        idle_timeout: idle_timeout_of(protocol),
        send_proxy: None,
        tls,
        processes: None,
    }
}

/// How long connections are kept unless told. One that is kept to a FastCGI application keeps a
/// process from whoever else uses it, and a new one costs next to nothing.
fn idle_timeout_of(protocol: Protocol) -> Duration {
    Duration::from_secs(match protocol {
        Protocol::Http => 60,
        Protocol::FastCgi => 5,
    })
}

/// A pool of FastCGI applications has no peer that answers an HTTP request.
fn check_health(call: &Call, report: &mut Report) {
    let is_of_http = |health| matches!(health, health::Kind::Http(_) | health::Kind::Tls(_));
    if health::of(call).is_some_and(|health| is_of_http(health.kind)) {
        let message = format!("{}: its `health` asks for HTTP", call.subject());
        let help = "its peers speak FastCGI: write kind = \"fastcgi\", or \"tcp\"";
        let place = call.place_of("health");
        report.mistake(place, Code::Conflict, message, help);
    }
}

fn definition(call: &Call, protocol: Protocol, report: &mut Report) -> Option<Definition> {
    if protocol == Protocol::FastCgi {
        check_health(call, report);
    }
    let max_connections: u32 = call.get("max_connections");
    let mut peers = Vec::new();
    let mut specs = Vec::new();
    let mut right = true;
    for node in &call.items {
        let mut spec = PeerSpec {
            max_connections,
            ..PeerSpec::default()
        };
        let target = match &node.value {
            Value::Record(record) => {
                spec.weight = record.get("weight");
                spec.backup = record.get("backup");
                spec.max_connections = record.find("max_connections").unwrap_or(max_connections);
                record.get::<&Target>("TARGET")
            }
            _ => node.get::<&Target>(),
        };
        match member(target, node, protocol, report) {
            Some(member) => {
                spec.id = forebay_balance::hash_key(target.text.as_bytes());
                peers.push(member);
                specs.push(spec);
            }
            None => right = false,
        }
    }
    let tls = TlsSpec::of(call, report)?;
    let tls = peers.iter().any(|peer| peer.tls).then_some(tls);
    warn_of_nobody(tls.as_ref(), call.place, report);
    if tls.is_none()
        && let Some(node) = TLS_OPTIONS.iter().find_map(|option| call.node(option))
    {
        let message = format!("{}: no peer is spoken to over TLS", call.subject());
        report.warning(node.place, message, "write its target as \"https://…\"");
    }
    if specs.len() > forebay_balance::MAX_PEERS {
        report.mistake(
            call.place,
            Code::BadValue,
            format!("{} has too many peers", call.subject()),
            format!("at most {}", forebay_balance::MAX_PEERS),
        );
        return None;
    }
    let balance = Balance::from_name(call.get("balance")).unwrap_or_default();
    let pool = PoolSpec {
        balance,
        eject: eject(call),
        slow_start: call.get("slow_start"),
        ..PoolSpec::new(specs)
    };
    right.then(|| Definition {
        name: Arc::from(call.get::<&str>("NAME")),
        protocol,
        peers,
        pool,
        by: call.find::<&Template>("by").cloned(),
        report: report::of(call),
        sticky: call.find::<&str>("sticky").map(Into::into),
        health: health::of(call),
        queue: call.get("queue"),
        queue_timeout: call.get("queue_timeout"),
        idle_connections: call.get("idle_connections"),
        idle_timeout: call
            .find("idle_timeout")
            .unwrap_or(idle_timeout_of(protocol)),
        send_proxy: call
            .find::<&str>("send_proxy")
            .map(|version| match version {
                "v1" => ProxyHeader::V1,
                _ => ProxyHeader::V2,
            }),
        tls,
        processes: None,
    })
}

const TLS_OPTIONS: [&str; 4] = ["tls_name", "tls_ca", "tls_cert", "tls_key"];

/// Says so where a connection over TLS can come about with nobody.
pub fn warn_of_nobody(tls: Option<&TlsSpec>, place: forebay_config::Place, report: &mut Report) {
    if tls.is_some_and(TlsSpec::trusts_nobody) {
        let message = "the system trusts no authority, so no certificate will be";
        let help = "install the package `ca-certificates`, or give an upstream `tls_ca`";
        report.warning(place, message, help);
    }
}

fn eject(call: &Call) -> Option<Eject> {
    match call.node("eject").map(|node| &node.value) {
        None | Some(Value::Boolean(true)) => Some(Eject::default()),
        Some(Value::Record(record)) => Some(eject_of(record)),
        Some(_) => None,
    }
}

fn eject_of(record: &Record) -> Eject {
    Eject {
        errors: record.get("errors"),
        time: record.get("time"),
        max: Share::percent(crate::steps::proxy::percent_of(record.get("max"))),
    }
}

/// The peer that a target means; says so if it is one that cannot be reached yet.
fn member(target: &Target, node: &Node, protocol: Protocol, report: &mut Report) -> Option<Member> {
    if protocol == Protocol::FastCgi && target.text.contains("://") {
        let message = format!("FastCGI has no scheme, and \"{}\" has one", target.text);
        let help = "write the target alone, as \"127.0.0.1:9000\" or \"unix:/run/php-fpm.sock\"";
        report.mistake(node.place, Code::BadValue, message, help);
        return None;
    }
    let is_peer = |place| {
        Some(Member {
            label: target.text.clone(),
            place,
            tls: target.scheme == Scheme::Https,
        })
    };
    let unbuilt = match (target.scheme, &target.to) {
        (Scheme::Http | Scheme::Https, Endpoint::Socket(address)) => {
            return is_peer(Place::Address(*address));
        }
        (Scheme::Http | Scheme::Https, Endpoint::Name(name, port)) => {
            return is_peer(Place::Name(name.clone(), *port));
        }
        (Scheme::Http | Scheme::Https, Endpoint::Unix(path)) => {
            return is_peer(Place::Unix(path.clone()));
        }
        (Scheme::H2c, _) => "targets with `h2c://` are",
        (Scheme::H3, _) => "targets with `h3://` are",
        (_, Endpoint::Srv(_)) => "targets with `srv:` are",
        (_, _) => "targets with variables are",
    };
    report.mistake(
        node.place,
        Code::BadValue,
        format!("{unbuilt} not built yet"),
        "use an address, a name or a Unix socket: \"10.0.0.1:8080\", \"https://app\", \"unix:/run/app.sock\"",
    );
    None
}
