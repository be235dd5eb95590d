//! `fastcgi`: has a FastCGI application answer, PHP above all.
//!
//! ```text
//!   with `root`:  try ─▶ script? ──no──▶ the next step
//!                          │ yes
//!   params ◀───────────────┘  ─▶ a place at a peer ─▶ stdin ─▶ CGI head ─▶ body
//!                                                                │ Location: /path, without Status
//!                                                                ▼
//!                                                         from the site's top again
//! ```

pub mod auth;
pub mod explain;
pub mod find;
pub mod params;
mod search;

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, LazyLock};

use forebay_balance::Failure;
use forebay_config::{
    Answers, Arg, Call, Code, Directive, Match, Node, Opt, PathTemplate, Template, Type, Value,
    Vars,
};
use forebay_fastcgi::{CgiHead, Kind, ParamsBuilder, Role};
use forebay_fields::Known;
use forebay_http1::Method;

use self::find::{Found, Scripts, Try};
use self::params::Placed;
use self::search::{look, look_inside};
use crate::control::build::Builder;
use crate::exchange::step::{Rest, run_aside};
use crate::exchange::{Body, Exchange, Fault, Flow, Local, Reason, Response, Step};
use crate::explain::{Notes, Told};
use crate::snapshot::resource_id;
use crate::steps::files::{directory, path};
use crate::steps::proxy::pass::{Failed, Passing, Speaker};
use crate::steps::proxy::{gather, loops, options};
use crate::trace::Offered;
use crate::upstream::lines::Unheard;
use crate::upstream::sticky::Sticky;
use crate::upstream::{FcgiSession, OnBehalf, Seat};

/// See the module.
pub static DIRECTIVE: Directive = Directive::handler(
    "fastcgi",
    "Has a FastCGI application answer: php-fpm, or any other. With `root`, the request is for a \
     script under it, and what leads to none is passed on; without, every request is the \
     application's. Beside it in a site, `files` does not send what `scripts` would run. What the \
     application says on its error stream goes to the error log.",
)
.args(&[Arg::required(
    "TARGET",
    Type::Or(&[Type::Declared(&["upstream", "processes"]), Type::TARGET]),
)])
.options(&[
    Opt::new(
        "root",
        Type::PathTemplate,
        "The directory of its scripts, as this server and the application see it.",
    ),
    Opt::new(
        "try",
        Type::List(&Type::PathUnder { query: true }),
        "Tried in order under `root`: the first that is a script runs, the rest of the path is \
         `PATH_INFO`; directories are redirected to `/`. May end in `?query`. The last one is the \
         front controller.",
    )
    .default(r#"{ "$path", "$path/index.php", "/index.php" }"#),
    Opt::new(
        "scripts",
        Type::List(&Type::Match),
        "The names of files that are scripts.",
    )
    .default(r#""*.php""#),
    Opt::new(
        "env",
        Type::Map {
            key: &Type::Text,
            value: &Type::Template(Vars::Request),
        },
        "More parameters, which go before those of the same name.",
    ),
    Opt::new("trace", Type::Boolean, "`forebay fcgi-trace` may look on.").default("false"),
    options::PRIORITY,
    options::RETRIES,
    options::RETRY_ON,
    options::RETRY_BUDGET,
    options::SEND_FILES,
    options::CONNECT_TIMEOUT,
    options::FIRST_BYTE_TIMEOUT,
    options::READ_TIMEOUT,
    options::TUNNEL_TIMEOUT,
    options::TOTAL_TIMEOUT,
    options::BUFFER,
    options::BUFFER_REQUEST,
    options::ABORT_ON_CLOSE,
])
.answers(Answers::Without("root"))
.example(r#"fastcgi "unix:/run/php/php8.2-fpm.sock" { root = "/srv/app" }"#);

/// A request's body of unknown length is taken in up to this, unless `buffer_request` says more:
/// CGI has no other way to say where a body ends than how long it is (RFC 3875 §4.2).
const TAKEN_IN: usize = 1 << 20;

/// An application may lead a request on to another path so often.
const MAX_RESTARTS: u32 = 5;

/// See the module.
struct FastCgi {
    passing: Passing,
    scripts: Option<(PathTemplate, Arc<Scripts>)>,
    env: Box<params::Env>,
    offered: Option<Offered>,
}

/// Makes the step of a call.
pub fn build(call: &Call, builder: &mut Builder) -> Option<Box<dyn Step>> {
    let root = call.find::<&PathTemplate>("root").cloned();
    for option in ["try", "scripts"] {
        if root.is_none() && call.is_set(option) {
            let message = format!("fastcgi: `{option}` without a `root` means nothing");
            let help = "without a root every request is the application's";
            let place = call.place_of(option);
            builder.report.mistake(place, Code::Conflict, message, help);
        }
    }
    if call.get::<&[Node]>("scripts").is_empty() {
        let message = "fastcgi: without `scripts` nothing runs";
        let help = "expected names of files, as { \"*.php\", \"*.phtml\" }";
        let place = call.place_of("scripts");
        builder.report.mistake(place, Code::BadValue, message, help);
    }
    let env = env(call, builder);
    let upstream = builder.fastcgi_upstream(call.node("TARGET")?)?;
    let tries = call.get::<&[Node]>("try").iter();
    let tries = tries.map(|node| Try::new(node.get())).collect();
    let scripts = Scripts::new(tries, patterns(call));
    Some(Box::new(FastCgi {
        passing: options::passing(call, upstream),
        scripts: root.map(|root| (root, Arc::new(scripts))),
        env: env?,
        offered: call.get::<bool>("trace").then(Offered::new),
    }))
}

/// The names of the files that a call of this directive runs: none without a `root`.
pub fn patterns(call: &Call) -> Vec<Match> {
    if !call.is_set("root") {
        return Vec::new();
    }
    let nodes: &[Node] = call.get("scripts");
    nodes
        .iter()
        .map(|node| node.get::<&Match>().clone())
        .collect()
}

/// The operator's variables, of this directive or another one that has them.
pub fn env(call: &Call, builder: &mut Builder) -> Option<Box<params::Env>> {
    let mut env = Vec::new();
    let Some(Value::Map(entries)) = call.node("env").map(|node| &node.value) else {
        return Some(env.into());
    };
    for (key, value) in entries {
        let name: &str = key.get();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_name) {
            let message = format!("{}: `env` cannot name a parameter \"{name}\"", call.name());
            let help = "expected letters, digits and `_`, as APP_ENV";
            builder
                .report
                .mistake(key.place, Code::BadValue, message, help);
            return None;
        }
        env.push((name.into(), value.get::<&Template>().clone()));
    }
    Some(env.into())
}

impl Step for FastCgi {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if loops(exchange) {
            return Flow::Fail(Reason::Loop.into());
        }
        Flow::Wait
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move { self.answer(exchange).await.unwrap_or_else(Flow::Fail) })
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        self.tell(exchange, notes)
    }
}

impl FastCgi {
    async fn answer(&self, exchange: &mut Exchange) -> Result<Flow, Fault> {
        let mut root = Cow::default();
        let mut script = None;
        if let Some((template, scripts)) = &self.scripts {
            let Some(path) = root_path(template, exchange) else {
                return Ok(Flow::Next);
            };
            root = path;
            let fixed = matches!(root, Cow::Borrowed(_));
            match look(exchange, &root, fixed, scripts).await? {
                Found::Script(found) => script = Some((scripts, found)),
                Found::Nothing => return Ok(Flow::Next),
                Found::Directory => match directory(exchange) {
                    Some(flow) => return Ok(flow),
                    None => match Box::pin(look_inside(exchange, &root, scripts)).await? {
                        Some(found) => script = Some((scripts, found)),
                        None => return Ok(Flow::Next),
                    },
                },
            }
        }
        let most = self.passing.buffer_request.max(TAKEN_IN);
        let body = gather::with_length(self.passing.take_body(exchange).await?, most).await?;
        let placed = script.as_ref().map(|(scripts, script)| Placed {
            root: root.strip_suffix(b"/").unwrap_or(&root),
            script,
            query: scripts
                .tries()
                .get(script.number)
                .and_then(|one| one.query(exchange)),
        });
        let cookie = self.passing.upstream.sticky.as_ref().map(Sticky::name);
        let params = params::of(exchange, placed.as_ref(), &body, cookie, &self.env)?;
        let asked = Asked {
            passing: &self.passing,
            offered: self.offered.as_ref(),
            params,
            role: Role::Responder,
            led_on: RefCell::default(),
        };
        let flow = self.passing.pass_on(exchange, body, &asked).await;
        let room = asked.params.into_room();
        exchange.worker.give_back_params_room(room);
        match asked.led_on.into_inner() {
            Some(location) => Box::pin(restart(exchange, location)).await,
            None => Ok(flow),
        }
    }
}

/// The path of the root; `None` where its variables lead nowhere.
pub fn root_path<'a>(template: &'a PathTemplate, exchange: &Exchange) -> Option<Cow<'a, [u8]>> {
    let base = template.base.as_os_str().as_bytes();
    if template.rest.parts.is_empty() {
        return Some(base.into());
    }
    let mut path = base.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    let start = path.len();
    let named = path::expand(&template.rest, exchange, &mut path);
    (named && path::is_plain(&path[start..])).then_some(path.into())
}

/// Goes on with another path of this server, from its site's top (RFC 3875 §6.2.2).
pub async fn restart(exchange: &mut Exchange, location: Vec<u8>) -> Result<Flow, Fault> {
    static RESTARTS: LazyLock<u64> = LazyLock::new(resource_id);
    let restarts = exchange.take_kept::<u32>(*RESTARTS).unwrap_or(0) + 1;
    if restarts > MAX_RESTARTS {
        let what = "it leads from one path to another without an end";
        return Err(Fault::with(Reason::BadResponse, what));
    }
    exchange.keep(*RESTARTS, restarts);
    exchange.lead_on();
    let location = String::from_utf8(location).map_err(|_| Reason::BadResponse)?;
    let Some(site) = exchange.site.clone() else {
        return Err(Reason::Internal.into());
    };
    let mut request = exchange.request.without_body();
    request.set_target(&location);
    request.prefix = None;
    request
        .normalize()
        .map_err(|fault| Fault::with(Reason::BadResponse, fault.to_string()))?;
    if request.method != Method::Head {
        request.method = Method::Get;
    }
    for name in [Known::ContentType, Known::ContentLength] {
        request.fields.remove(name);
    }
    // What was asked for stays what is logged, and what the steps above have to do with.
    let asked = std::mem::replace(&mut exchange.request, request);
    let captures = std::mem::take(&mut exchange.captures);
    exchange.allowed_methods = None;
    let response = run_aside(exchange, Rest::from(site.pipeline.clone())).await;
    exchange.captures = captures;
    exchange.request = asked;
    Ok(Flow::Answer(response))
}

/// A request for all peers that it is tried on.
struct Asked<'a> {
    passing: &'a Passing,
    offered: Option<&'a Offered>,
    params: ParamsBuilder,
    role: Role,
    /// The path that an application leads on to.
    led_on: RefCell<Option<Vec<u8>>>,
}

impl Speaker for Asked<'_> {
    async fn attempt(
        &self,
        exchange: &mut Exchange,
        seat: Seat,
        body: Body,
        fresh: bool,
    ) -> Result<Response, Failed> {
        let upstream = self.passing.upstream.clone();
        let peer = seat.peer;
        let (line, reused) = match self.passing.line(exchange, seat, fresh).await {
            Ok(made) => made,
            Err(fault) => return Err(Failed::unsent(fault, Failure::Connect, Some(body))),
        };
        let unheard = (!reused).then(|| Unheard::new(&upstream, peer));
        let keep_conn = upstream.keeps_connections();
        let on_behalf = OnBehalf {
            site: exchange.site.as_ref().map(|site| site.counts.clone()),
            id: exchange.id,
            upstream,
            peer,
        };
        let tap = self.offered.and_then(|offered| {
            offered.tap(|| {
                let site = on_behalf.site.as_ref().map_or("", |site| &site.name);
                let peer = &on_behalf.upstream.peers[on_behalf.peer].label;
                format!("request {:016x} of {site} to {peer}", on_behalf.id)
            })
        });
        let begun = FcgiSession::new(
            line,
            self.role,
            &self.params,
            keep_conn,
            unheard,
            on_behalf,
            tap,
        );
        let mut session = match begun {
            Ok(session) => session,
            Err(fault) => return Err(Failed::unsent(fault, Failure::Garbage, None)),
        };
        // An Authorizer has none (§6.3).
        if self.role == Role::Responder {
            session.send_body(body);
        }
        let mut head = match poll_fn(|cx| session.poll_head(cx)).await {
            Ok(head) => head,
            Err(fault) => {
                let is_refused = fault.reason == Reason::PeerRefused;
                return Err(Failed {
                    failure: Passing::failure(&fault, reused, session.is_heard()),
                    fault,
                    // What it has refused it has not begun (§5.5).
                    sent: session.is_begun() && !is_refused,
                    body: session.take_body(),
                    response: None,
                });
            }
        };
        if self.role == Role::Authorizer && head.kind == Kind::LocalRedirect {
            // No other page is to be served instead: it is for the client.
            head.status = 302;
        }
        if head.status > 599 {
            return Err(Failed::garbage(format!("status {}", head.status)));
        }
        if self.role == Role::Responder && head.kind == Kind::LocalRedirect {
            let location = head.fields.get(Known::Location).map(<[u8]>::to_vec);
            *self.led_on.borrow_mut() = location;
            // Whatever else it says is not for anybody.
            drop(session.into_body(true));
            return Ok(Response::new(exchange, 200));
        }
        let listed = self.passing.policy.on.lists(Failure::Status(head.status));
        let kept = if listed { session.take_body() } else { None };
        let method = exchange.request.method;
        let has_none = method == Method::Head || matches!(head.status, 204 | 304);
        match session.into_body(has_none) {
            Ok(body) => self.passing.judge(response_of(head, body), kept),
            Err(fault) => Err(Failed {
                failure: fault.reason.of_peer().unwrap_or(Failure::Garbage),
                fault,
                sent: true,
                body: None,
                response: None,
            }),
        }
    }
}

/// What an application has answered.
pub fn response_of(head: CgiHead, body: Body) -> Response {
    Response {
        announced_len: head.content_length,
        body,
        from_upstream: true,
        ..Response::of(head.status, head.fields)
    }
}
