//! `processes`: a pool whose peers this server starts itself.
//!
//! ```text
//!   worker ── a place at a slot ─▶ its socket ─▶ the process that listens there
//!     │ none is free: more are wanted                 ▲ started, watched, replaced
//!     └──────────── Fleet ──────────▶ control/processes.rs ─ by the helper
//! ```
//!
//! Each *slot* is a peer with a Unix socket of its own, which outlives its process: what has connected
//! while a process is being started waits in the kernel. There are some more slots than processes may
//! run, so that one can be replaced by another that is there already.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use forebay_balance::{Balance, Duty, PeerSpec, PoolSpec, Tick};
use forebay_config::{Call, Code, Directive, Node, Opt, Report, Template, Type, Value};
use forebay_sys::process::{self, Identity, resolve_identity};
use tokio::sync::Notify;

use super::tally::Tally;
use super::{Definition, Member, Place, Protocol, Upstream, options};

/// See the module.
pub static DIRECTIVE: Directive = Directive::declaration(
    "processes",
    "A pool whose peers are processes that this server starts, watches and replaces. Each is given \
     a listening Unix socket: as descriptor 0 for FastCGI, as descriptor 3 with `LISTEN_FDS` for \
     HTTP. What it prints goes to the error log. It dies with the server.",
)
.args(&[forebay_config::Arg::required("NAME", Type::Name)])
.items("COMMAND", Type::Text)
.namespace("upstream")
.options(&[
    Opt::new(
        "protocol",
        Type::OneOf(&["fastcgi", "http"]),
        "What is spoken on the socket.",
    )
    .required(),
    Opt::new(
        "count",
        Type::Or(&[COUNT, Type::Pair(&COUNT, &COUNT)]),
        "How many processes, or the least and the most: more are started while requests wait, and \
         ended when they have not been needed for half a minute.",
    )
    .unset("`{ 1, 2 × cores }`"),
    Opt::new(
        "time",
        Type::Duration {
            min: Duration::from_millis(1),
            max: Duration::from_secs(7 * 86_400),
        },
        "How long a request may take; then it is answered 504, and its process is killed and replaced.",
    )
    .default(r#""30s""#),
    Opt::new(
        "memory",
        Type::Size {
            min: 1 << 20,
            max: 1 << 44,
        },
        "How much memory a process and its children may hold; past it it is killed and replaced.",
    )
    .default(r#""256MB""#),
    Opt::new(
        "cpu",
        Type::Percent,
        "How much of a core a process and its children may take, on average over about a second; past \
         it they are held back: stopped until they may go on. The time of a request passes meanwhile.",
    )
    .default(r#""100%""#),
    Opt::new(
        "max_requests",
        Type::Count {
            min: 1,
            max: 1_000_000_000,
        },
        "A process that has had so many is replaced.",
    )
    .default("1000"),
    Opt::new(
        "user",
        Type::Text,
        "`user` or `user:group` as whom they run, if the server was started as root.",
    )
    .unset("the server's own"),
    Opt::new("dir", Type::Path, "The directory they run in.").unset("the main file's"),
    Opt::new(
        "env",
        Type::Map {
            key: &Type::Text,
            value: &Type::Text,
        },
        "Their environment, which holds nothing else but `PATH`.",
    )
    .default("{}"),
    Opt::new(
        "balance",
        Type::OneOf(&[
            "score",
            "least_requests",
            "round_robin",
            "p2c_ewma",
            "hash",
            "random",
            "first",
        ]),
        "How a process is chosen: `score` is the least busy by its processor, memory and disk, measured \
         once a second, children included; the others are those of `upstream`.",
    )
    .default(r#""score""#),
    options::BY,
    options::STICKY,
    options::SLOW_START,
    Opt::new(
        "max_connections",
        Type::Count {
            min: 1,
            max: 1_000_000,
        },
        "Requests at once for each process.",
    )
    .default("1"),
    options::QUEUE,
    options::QUEUE_TIMEOUT,
])
.instead(&[
    ("report", "its load is measured"),
    ("health", "what ends, hangs or takes too much is replaced"),
    ("eject", "what ends, hangs or takes too much is replaced"),
    (
        "timeout",
        "`time` is how long a request may take",
    ),
    ("weight", "its processes are all the same"),
])
.check(check)
.example(
    r#"local php = processes "php" { "php-cgi", protocol = "fastcgi", count = { 2, 8 }, env = { PHP_FCGI_MAX_REQUESTS = "0" } }"#,
);

const COUNT: Type = Type::Count { min: 1, max: 1_000 };

fn check(call: &Call, report: &mut Report) {
    options::check_by(call, report);
    options::check_slow_start(call, report);
    if let Some((least, most)) = pair(call)
        && least > most
    {
        let message = format!("{}: `count` has more at least than at most", call.subject());
        let help = "write the least first, as { 2, 8 }";
        report.mistake(call.place_of("count"), Code::BadValue, message, help);
    }
    if cpu_ppm(call) < LEAST_CPU_PPM {
        let message = format!("{}: with so little `cpu` nothing would run", call.subject());
        let help = "at least \"1%\" of a core";
        report.mistake(call.place_of("cpu"), Code::BadValue, message, help);
    }
}

const LEAST_CPU_PPM: u32 = 10_000;

/// The share of a core in millionths: what a process may take in a second, in microseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a percentage is between 0 and 100"
)]
fn cpu_ppm(call: &Call) -> u32 {
    (call.get::<f64>("cpu") * 10_000.0).round() as u32
}

fn pair(call: &Call) -> Option<(usize, usize)> {
    match call.node("count").map(|node| &node.value) {
        Some(Value::List(both)) => match both.as_slice() {
            [least, most] => Some((least.get(), most.get())),
            _ => None,
        },
        Some(_) => {
            let count: usize = call.get("count");
            Some((count, count))
        }
        None => None,
    }
}

/// What the processes of a pool are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The program and its arguments.
    pub command: Vec<Box<str>>,
    /// How many there are at least.
    pub least: usize,
    /// How many there are at most.
    pub most: usize,
    /// How long a request may take.
    pub time: Duration,
    /// Bytes of memory of each, children included.
    pub memory: u64,
    /// Microseconds of processor time for each in a second, children included.
    pub cpu_ppm: u32,
    /// Requests after which it is replaced.
    pub max_requests: u64,
    /// As whom they run, if not as this server.
    pub identity: Option<Identity>,
    /// Where they run.
    pub dir: PathBuf,
    /// Their environment.
    pub env: Vec<(Box<str>, Box<str>)>,
}

/// The processes of a pool, as workers and their keeper share them.
#[derive(Debug)]
pub struct Fleet {
    /// Where the sockets are.
    pub sockets: Box<[PathBuf]>,
    /// For the keeper: there is something to look at.
    pub wake: Notify,
    /// No process was free.
    is_full: AtomicBool,
    /// Of each slot: a request to its process took longer than it may.
    overran: Box<[AtomicBool]>,
    /// What becomes of them.
    pub tally: Tally,
}

impl Fleet {
    /// The fleet of a pool with this number as a resource.
    pub fn new(id: u64, slots: usize) -> Fleet {
        let socket = |slot| run_dir().join(format!("{id}-{slot}"));
        Fleet {
            sockets: (0..slots).map(socket).collect(),
            wake: Notify::new(),
            is_full: AtomicBool::new(false),
            overran: (0..slots).map(|_| AtomicBool::new(false)).collect(),
            tally: Tally::new(slots),
        }
    }

    /// Says that more processes would be of use.
    pub fn want_more(&self) {
        if !self.is_full.swap(true, Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Whether somebody has said so since the last time.
    pub fn take_full(&self) -> bool {
        self.is_full.swap(false, Relaxed)
    }

    /// Says that a request to this slot took longer than it may.
    pub fn overran(&self, slot: usize) {
        if let Some(overran) = self.overran.get(slot) {
            overran.store(true, Relaxed);
            self.wake.notify_one();
        }
    }

    /// Whether somebody has said so since the last time.
    pub fn take_overran(&self, slot: usize) -> bool {
        let overran = self.overran.get(slot);
        overran.is_some_and(|overran| overran.swap(false, Relaxed))
    }
}

impl Upstream {
    /// Only as many slots as there are processes at least are in service at first.
    pub(super) fn muster(&self) {
        if let Some(spec) = &self.definition.processes {
            for slot in spec.least..self.peers.len() {
                self.pool.set_duty(slot, Duty::Rest, Tick::from_millis(0));
            }
        }
    }
}

/// The directory for the sockets of this process, which only its own user may look into. It is made
/// when the first is bound.
pub fn run_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        use std::hash::{BuildHasher, Hasher};
        let number = std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish();
        let name = format!(
            "forebay-{}-{:08x}",
            std::process::id(),
            number & 0xffff_ffff
        );
        // The service manager's, the session's, or the one for everybody.
        let given = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"];
        let given = given.iter().filter_map(std::env::var_os).map(PathBuf::from);
        let base = given
            .chain([std::env::temp_dir()])
            // The address of a socket has 108 bytes.
            .find(|base| base.is_absolute() && base.is_dir() && base.as_os_str().len() < 60);
        base.unwrap_or_else(|| PathBuf::from("/tmp")).join(name)
    })
}

/// How many slots there are for so many processes.
fn slots(most: usize) -> usize {
    most + 1 + most / 4
}

/// The pool of a declaration.
pub(super) fn definition(call: &Call, report: &mut Report) -> Option<Definition> {
    let subject = call.subject();
    let identity = match call.find::<&str>("user").map(resolve_identity) {
        None => None,
        Some(Ok(identity)) => Some(identity),
        Some(Err(why)) => {
            let message = format!("{subject}: `user`: {why}");
            report.mistake(call.place_of("user"), Code::NotFound, message, "");
            return None;
        }
    };
    let (least, most) = pair(call).unwrap_or_else(|| (1, 2 * process::cores()));
    let spec = Spec {
        command: call
            .items
            .iter()
            .map(|node| node.get::<&str>().into())
            .collect(),
        least,
        most,
        time: call.get("time"),
        memory: call.get("memory"),
        cpu_ppm: cpu_ppm(call),
        max_requests: call.get("max_requests"),
        identity,
        dir: match call.find::<&Path>("dir") {
            Some(dir) => dir.to_owned(),
            None => main_dir(report),
        },
        env: env(call, report)?,
    };
    let name: &str = call.get("NAME");
    let peer = PeerSpec {
        max_connections: call.get("max_connections"),
        ..PeerSpec::default()
    };
    let slots = slots(most);
    let member = |slot| Member {
        label: format!("{name}/{slot}").into(),
        place: Place::Process(slot),
        tls: false,
    };
    Some(Definition {
        name: name.into(),
        protocol: match call.get("protocol") {
            "fastcgi" => Protocol::FastCgi,
            _ => Protocol::Http,
        },
        peers: (0..slots).map(member).collect(),
        pool: PoolSpec {
            balance: Balance::from_name(call.get("balance")).unwrap_or_default(),
            // One that fails is replaced.
            eject: None,
            slow_start: call.get("slow_start"),
            ..PoolSpec::new(vec![peer; slots])
        },
        by: call.find::<&Template>("by").cloned(),
        report: None,
        sticky: call.find::<&str>("sticky").map(Into::into),
        health: None,
        queue: call.get("queue"),
        queue_timeout: call.get("queue_timeout"),
        // A connection that is kept would keep its process from others, and end with it.
        idle_connections: 0,
        idle_timeout: Duration::ZERO,
        send_proxy: None,
        tls: None,
        processes: Some(spec),
    })
}

/// The directory of the file that the configuration begins with.
fn main_dir(report: &Report) -> PathBuf {
    let main = report.sources().paths().next();
    let dir = main.and_then(Path::parent).unwrap_or(Path::new(""));
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    here.join(dir)
}

fn env(call: &Call, report: &mut Report) -> Option<Vec<(Box<str>, Box<str>)>> {
    let mut env = Vec::new();
    for (key, value) in call.find::<&[(Node, Node)]>("env").unwrap_or_default() {
        let (name, text): (&str, &str) = (key.get(), value.get());
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        if !is_name || text.contains('\0') {
            let message = format!("{}: `env` cannot have \"{name}\"", call.subject());
            let help = "expected the name of a variable and a text without NUL";
            report.mistake(key.place, Code::BadValue, message, help);
            return None;
        }
        env.push((name.into(), text.into()));
    }
    Some(env)
}
