//! `cgi`: has a program answer that is started for this one request (RFC 3875).
//!
//! ```text
//!   program? ──no──▶ the next step
//!      │ yes
//!      ▼
//!   a place among those that may run ─▶ started by the helper ─▶ CGI head ─▶ body
//!                                                                  │ Location: /path, no Status
//!                                                                  ▼
//!                                                           from the site's top again
//! ```

mod errors;
mod explain;
mod find;
mod run;

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use forebay_config::{Answers, Arg, Call, Code, Directive, Match, Opt, PathTemplate, Type, Vars};
use forebay_fastcgi::{Kind, Limits, Params};
use forebay_fields::Known;
use forebay_http1::Method;
use forebay_sys::process::{Identity, resolve_identity};

use self::find::{Found, LINKS, find};
use self::run::{Bounds, Run};
use super::fastcgi::find::Script;
use super::fastcgi::params::{self, Placed};
use super::fastcgi::{env, response_of, restart, root_path};
use super::files::find as lookup;
use super::files::path::{self, Hide};
use super::limit::{Crowd, Entry, Permit};
use super::proxy::{gather, loops};
use crate::control::build::Builder;
use crate::exchange::{Body, Exchange, Fault, Flow, Local, Reason, Step};
use crate::explain::{Notes, Told};
use crate::files::Roots;
use crate::helper::programs::Spec;
use crate::wheel::timeout;
use crate::worker::Worker;

/// See the module.
pub static DIRECTIVE: Directive = Directive::handler(
    "cgi",
    "Has a program answer that is started for this one request, by RFC 3875: an executable file \
     under ROOT, that the path leads to; what stands behind it in the path is `PATH_INFO`. Other \
     paths are passed on. Beside it in a site, `files` sends no executable files. What a program \
     says on its error stream goes to the error log.",
)
.args(&[Arg::required("ROOT", Type::PathTemplate)])
.options(&[
    Opt::new(
        "env",
        Type::Map {
            key: &Type::Text,
            value: &Type::Template(Vars::Request),
        },
        "More variables, which go before those of the same name. Of this server's own environment \
         a program has nothing.",
    )
    .default("{}"),
    Opt::new(
        "user",
        Type::Text,
        "`user` or `user:group` as whom programs run, if the server was started as root.",
    )
    .unset("the server's own"),
    Opt::new(
        "time",
        Type::Duration {
            min: Duration::from_millis(1),
            max: Duration::from_secs(7 * 86_400),
        },
        "How long a program may keep its client waiting, all told; then it is ended.",
    )
    .default(r#""30s""#),
    Opt::new(
        "output",
        Type::SIZE,
        "How large a body may be; a larger one is broken off.",
    )
    .default(r#""64MB""#),
    Opt::new(
        "concurrency",
        Type::Count { min: 1, max: 4_096 },
        "How many programs may run at one time; further requests wait for 10 seconds at most.",
    )
    .default("16"),
    Opt::new(
        "abort_on_close",
        Type::Boolean,
        "A client that closes its sending side has left, and its program is ended (else it still \
         gets its answer).",
    )
    .default("true"),
])
.answers(Answers::Sometimes)
.example(r#"cgi "/usr/lib/cgi-bin" { time = "1m" }"#);

/// A request waits so long for a place.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body of unknown length is taken in up to this: a program learns how long it is before anything
/// else (RFC 3875 §4.1.2).
const TAKEN_IN: usize = 1 << 20;

/// Where programs look for others, unless `env` says so.
const SEARCH_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// See the module.
struct Cgi {
    root: PathTemplate,
    hide: Arc<Hide>,
    env: Box<params::Env>,
    identity: Option<Identity>,
    bounds: Bounds,
    crowd: Arc<Crowd>,
    abort_on_close: bool,
}

/// Makes the step of a call.
pub fn build(call: &Call, builder: &mut Builder) -> Option<Box<dyn Step>> {
    let identity = match call.find::<&str>("user").map(resolve_identity) {
        None => None,
        Some(Ok(identity)) => Some(identity),
        Some(Err(why)) => {
            let place = call.place_of("user");
            let message = format!("cgi: `user`: {why}");
            builder.report.mistake(place, Code::NotFound, message, "");
            return None;
        }
    };
    let concurrency: u32 = call.get("concurrency");
    Some(Box::new(Cgi {
        root: call.get::<&PathTemplate>("ROOT").clone(),
        hide: Arc::new(Hide::new(copies())),
        env: env(call, builder)?,
        identity,
        bounds: Bounds {
            time: call.get("time"),
            output: call.get("output"),
        },
        crowd: builder.carried(call, || Crowd::new(concurrency)),
        abort_on_close: call.get("abort_on_close"),
    }))
}

/// The names of old programs, which editors leave behind executable.
fn copies() -> impl Iterator<Item = Match> {
    let endings = ["*~", "*.bak", "*.old", "*.orig", "*.swp", "*.rej"];
    endings.into_iter().filter_map(Match::parse)
}

impl Step for Cgi {
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

impl Cgi {
    async fn answer(&self, exchange: &mut Exchange) -> Result<Flow, Fault> {
        let Some(root) = root_path(&self.root, exchange) else {
            return Ok(Flow::Next);
        };
        let script = match self.look(exchange, &root).await? {
            Found::Nothing => return Ok(Flow::Next),
            Found::NonParsed => return Err(Reason::NonParsed.into()),
            Found::Program { name, path_info } => Script {
                number: 0,
                name,
                path_info,
            },
        };
        if self.abort_on_close
            && let Some(client) = &exchange.interim
        {
            client.end_of_input_is_leaving();
        }
        let body = gather::with_length(exchange.take_body()?, TAKEN_IN).await?;
        let permit = self.enter(&exchange.worker).await?;
        let root = root.strip_suffix(b"/").unwrap_or(&root);
        let mut run = self.start(exchange, root, &script, body, permit)?;
        let head = poll_fn(|cx| run.poll_head(cx)).await?;
        if head.kind == Kind::LocalRedirect {
            let location = head.fields.get(Known::Location).map(<[u8]>::to_vec);
            run.leave();
            drop(run);
            return restart(exchange, location.unwrap_or_default()).await;
        }
        let has_none =
            exchange.request.method == Method::Head || matches!(head.status, 204 | 205 | 304);
        let body = run.into_body(has_none);
        Ok(Flow::Answer(response_of(head, body)))
    }

    /// Looks for the program: on the worker, or where waiting is allowed.
    async fn look(&self, exchange: &Exchange, root: &[u8]) -> Result<Found, Fault> {
        let Some(path) = decoded(exchange) else {
            return Ok(Found::Nothing);
        };
        let hide = self.hide.clone();
        let find = move |open: &dyn Fn(&[u8]) -> io::Result<File>| find(&hide, &path, open);
        let Worker { files, .. } = &*exchange.worker;
        match Roots::look(files, root, exchange.worker.now_ms(), LINKS, find).await? {
            Err(error) if lookup::is_absent(&error) => Ok(Found::Nothing),
            found => found.map_err(|error| lookup::fault(&error)),
        }
    }

    /// A place among those that may run.
    async fn enter(&self, worker: &Worker) -> Result<Permit, Fault> {
        let waiting = match self.crowd.enter_in_turn(0) {
            Entry::Inside(permit) => return Ok(permit),
            Entry::Waiting(waiting) => waiting,
            Entry::Refused => return Err(Reason::PoolFull.into()),
        };
        let deadline = worker.wheel.register();
        match timeout(&deadline, worker.now_ms(), PATIENCE, waiting).await {
            Ok(permit) => permit.map_err(|_| Reason::Internal.into()),
            Err(_) => Err(Reason::PoolTimeout.into()),
        }
    }

    /// Starts the program for this exchange.
    fn start(
        &self,
        exchange: &Exchange,
        root: &[u8],
        script: &Script,
        body: Body,
        permit: Permit,
    ) -> Result<Box<Run>, Fault> {
        let variables = self.variables(exchange, root, script, &body)?;
        let program = [root, b"/", &script.name].concat();
        let dir_len = memchr::memrchr(b'/', &program).unwrap_or(0).max(1);
        let mut environment: Vec<(&[u8], &[u8])> = variables.iter().collect();
        if variables.get(b"PATH").is_none() {
            environment.push((b"PATH", SEARCH_PATH));
        }
        let spec = Spec {
            program: &program,
            arguments: &[&program],
            environment: &environment,
            // RFC 3875 §7.2.
            dir: &program[..dir_len],
            places: Vec::new(),
            identity: self.identity.as_ref(),
            tells_pid: false,
            wants_pid: false,
        };
        let worker = &exchange.worker;
        let (run, errors) = Run::start(worker, spec, body, permit, self.bounds)?;
        if let Some(program) = run.program() {
            let speaker = errors::Speaker {
                site: exchange.site.as_ref().map(|site| site.counts.clone()),
                id: exchange.id,
                program: script.name.clone(),
            };
            tokio::task::spawn_local(errors::log(errors, program.watch(), speaker));
        }
        Ok(Box::new(run))
    }

    fn variables(
        &self,
        exchange: &Exchange,
        root: &[u8],
        script: &Script,
        body: &Body,
    ) -> Result<Params, Fault> {
        let placed = Placed {
            root,
            script,
            query: None,
        };
        let params = params::of(exchange, Some(&placed), body, None, &self.env)?;
        let block = params.as_bytes().to_vec().into();
        Params::read(block, &Limits::default())
            .map_err(|fault| Fault::with(Reason::HeadTooLarge, fault.to_string()))
    }
}

/// The path of the request, relative and decoded; `None` if it is that of no file.
fn decoded(exchange: &Exchange) -> Option<Vec<u8>> {
    let path = exchange.request.path().strip_prefix('/')?;
    let mut decoded = Vec::with_capacity(path.len());
    path::decode(path, &mut decoded).then_some(decoded)
}
