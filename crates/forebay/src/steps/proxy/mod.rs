//! `proxy`: passes requests on to an HTTP server and its answers back.

mod explain;
pub mod gather;
mod head;
pub mod options;
pub mod pass;
pub mod send_files;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use forebay_balance::Failure;
use forebay_config::{Arg, Call, Directive, Opt, Template, Type};

use crate::control::build::Builder;
use crate::exchange::{Body, Exchange, Fault, Flow, Local, Reason, Response, Step};
use crate::explain::{Notes, Told};
use crate::upstream::sticky::Sticky;
use crate::upstream::{Seat, Session, Upstream};
use crate::worker::Worker;
pub use head::{cookies_without, loops, own_name};
pub use options::percent_of;
use pass::{Failed, Passing, Speaker};

/// See the module.
pub static DIRECTIVE: Directive = Directive::handler(
    "proxy",
    "Passes the request on to an HTTP server: an upstream, or a target that stands for a pool of \
     one. Bodies stream both ways, events arrive at once, and a WebSocket becomes a tunnel. `Forwarded`, `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, \
     `Via` and `CDN-Loop` tell it about the client; what the client wrote into them is removed.",
)
.args(&[Arg::required(
    "TARGET",
    Type::Or(&[Type::Declared(&["upstream", "processes"]), Type::TARGET]),
)])
.options(&[
    Opt::new(
        "host",
        Type::Template(forebay_config::Vars::Request),
        "The Host it sees.",
    )
    .unset("as the client sent it"),
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
.example(r#"proxy "127.0.0.1:3000" { read_timeout = "5m" }"#);

/// See the module.
pub struct Proxy {
    passing: Passing,
    host: Option<Template>,
}

/// Makes the step of a call.
pub fn build(call: &Call, builder: &mut Builder) -> Option<Box<dyn Step>> {
    let upstream = builder.upstream(call.node("TARGET")?)?;
    Some(Box::new(Proxy {
        passing: options::passing(call, upstream),
        host: call.find::<&Template>("host").cloned(),
    }))
}

impl Step for Proxy {
    fn name(&self) -> &'static str {
        "proxy"
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if head::loops(exchange) {
            return Flow::Fail(Reason::Loop.into());
        }
        Flow::Wait
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(self.pass_on(exchange))
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        self.tell(exchange, notes)
    }
}

/// A request for all peers that it is tried on.
struct Spoken<'a> {
    proxy: &'a Proxy,
    /// The protocols that the client would go on with. Looked at once: writing a head for a first
    /// peer removes them.
    offer: Option<Vec<u8>>,
}

impl Proxy {
    /// One that asks an upstream for another step, with the defaults of `proxy` and 30 s for an
    /// answer.
    pub fn asking(upstream: Arc<Upstream>) -> Proxy {
        Proxy {
            passing: Passing::plain(upstream, Duration::from_secs(30)),
            host: None,
        }
    }

    /// Passes the exchange's request on and gives the answer.
    pub async fn ask(&self, exchange: &mut Exchange) -> Result<Response, Fault> {
        if head::loops(exchange) {
            return Err(Reason::Loop.into());
        }
        match self.pass_on(exchange).await {
            Flow::Answer(response) => Ok(response),
            Flow::Fail(fault) => Err(fault),
            _ => Err(Reason::Internal.into()),
        }
    }

    async fn pass_on(&self, exchange: &mut Exchange) -> Flow {
        let body = match self.passing.take_body(exchange).await {
            Ok(body) => body,
            Err(fault) => return Flow::Fail(fault),
        };
        let offer = head::offer(exchange);
        let proxy = self;
        let spoken = Spoken { proxy, offer };
        self.passing.pass_on(exchange, body, &spoken).await
    }
}

impl Speaker for Spoken<'_> {
    async fn attempt(
        &self,
        exchange: &mut Exchange,
        seat: Seat,
        body: Body,
        fresh: bool,
    ) -> Result<Response, Failed> {
        let worker = exchange.worker.clone();
        let Proxy { passing, host } = self.proxy;
        let offer = self.offer.as_deref();
        let (line, reused) = match passing.line(exchange, seat, fresh).await {
            Ok(made) => made,
            Err(fault) => return Err(Failed::unsent(fault, Failure::Connect, Some(body))),
        };
        let mut session = Session::new(line);
        let cookie = passing.upstream.sticky.as_ref().map(Sticky::name);
        let out = session.request();
        let chunked = match head::write(exchange, host.as_ref(), cookie, &body, offer, out) {
            Ok(chunked) => chunked,
            Err(fault) => return Err(Failed::unsent(fault, Failure::Garbage, None)),
        };
        session.send_body(body, chunked);
        let interim = exchange.interim.as_ref();
        let method = exchange.request.method;
        let result = poll_fn(|cx| session.poll_head(&method, interim, cx)).await;
        if let Err(fault) = result {
            return Err(Failed {
                failure: Passing::failure(&fault, reused, session.is_heard()),
                fault,
                sent: session.is_begun(),
                body: session.take_body(),
                response: None,
            });
        }
        let status = session.head.status;
        if status == 101 {
            return tunnel(&worker, session, offer).map_err(Failed::garbage);
        }
        if status > 599 {
            return Err(Failed::garbage(format!("status {status}")));
        }
        let listed = passing.policy.on.lists(Failure::Status(status));
        let body = if listed { session.take_body() } else { None };
        passing.judge(response_of(&worker, session), body)
    }
}

/// The peer's agreement to go on with what was offered to it, as a response of our own.
fn tunnel(
    worker: &Worker,
    mut session: Box<Session>,
    offer: Option<&[u8]>,
) -> Result<Response, &'static str> {
    let tunnel = session.take_tunnel(offer)?;
    session.head.fields.remove_hop_by_hop();
    let mut fields = worker.fields();
    std::mem::swap(&mut *fields, &mut session.head.fields);
    Ok(Response {
        body: Body::Tunnel(Box::new(tunnel)),
        from_upstream: true,
        ..Response::of(101, fields)
    })
}

/// The peer's head and body as a response of our own.
fn response_of(worker: &Worker, mut session: Box<Session>) -> Response {
    let head = &mut session.head;
    head.fields.remove_hop_by_hop();
    let mut fields = worker.fields();
    std::mem::swap(&mut *fields, &mut head.fields);
    let (status, announced_len) = (head.status, head.content_length);
    Response {
        announced_len,
        body: session.into_body(),
        from_upstream: true,
        ..Response::of(status, fields)
    }
}
