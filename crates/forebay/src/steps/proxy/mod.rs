//! `proxy`: passes requests on to an HTTP server and its answers back.

mod explain;
mod head;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use forebay_balance::{
    Ask, Attempt, Balance, Decision, Failure, NoPeer, Outcome, RetryBudget, RetryOn, RetryPolicy,
    Share, Tick, Tried, hash_key,
};
use forebay_config::{Arg, Call, Directive, Node, Opt, Template, Type};

use crate::control::build::Builder;
use crate::exchange::{Body, Exchange, Fault, Flow, Local, Party, Reason, Response, Step, expand};
use crate::explain::{Notes, Told};
use crate::upstream::sticky::Sticky;
use crate::upstream::{Idle, Seat, Session, Times, Upstream, connect};
use crate::worker::Worker;

const TIMEOUT: Type = Type::Duration {
    min: Duration::from_millis(1),
    max: Duration::from_secs(7 * 86_400),
};

/// See the module.
pub static DIRECTIVE: Directive = Directive::handler(
    "proxy",
    "Passes the request on to an HTTP server: an upstream, or a target that stands for a pool of \
     one. Bodies stream both ways, events arrive at once, and a WebSocket becomes a tunnel. `Forwarded`, `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, \
     `Via` and `CDN-Loop` tell it about the client; what the client wrote into them is removed.",
)
.args(&[Arg::required(
    "TARGET",
    Type::Or(&[Type::Declared(&["upstream"]), Type::TARGET]),
)])
.options(&[
    Opt::new(
        "host",
        Type::Template(forebay_config::Vars::Request),
        "The Host it sees.",
    )
    .unset("as the client sent it"),
    Opt::new(
        "priority",
        Type::Count { min: 0, max: 9 },
        "Who leaves a full pool's queue first (0).",
    )
    .default("5"),
    Opt::new(
        "retries",
        Type::Count { min: 0, max: 5 },
        "Tries on other peers, only while nothing was sent or the method is idempotent.",
    )
    .default("1"),
    Opt::new(
        "retry_on",
        Type::List(&Type::Or(&[
            Type::OneOf(&["connect", "reset", "timeout"]),
            Type::StatusCode,
        ])),
        "After which failures.",
    )
    .default(r#"{ "connect", "reset" }"#),
    Opt::new(
        "retry_budget",
        Type::Percent,
        "Retries' share of the pool's traffic; ten a second are always allowed.",
    )
    .default(r#""20%""#),
    Opt::new("connect_timeout", TIMEOUT, "Until a peer is connected.").default(r#""5s""#),
    Opt::new(
        "first_byte_timeout",
        TIMEOUT,
        "From the end of the request to the first byte of the response.",
    )
    .default(r#""60s""#),
    Opt::new(
        "read_timeout",
        TIMEOUT,
        "Between two bytes of the response.",
    )
    .default(r#""60s""#),
    Opt::new(
        "tunnel_timeout",
        TIMEOUT,
        "In its place for tunnels (WebSocket) and event streams: with nothing passing either way.",
    )
    .default(r#""1h""#),
    Opt::new("total_timeout", TIMEOUT, "For the whole exchange.").default(r#""1d""#),
    Opt::new(
        "buffer",
        Type::Size {
            min: 16 << 10,
            max: 16 << 20,
        },
        "Of the response, held for a client that is slower than the peer.",
    )
    .default(r#""256KB""#),
    Opt::new(
        "abort_on_close",
        Type::Boolean,
        "A client that closes its sending side has left (else it still gets its answer).",
    )
    .default("false"),
])
.example(r#"proxy "127.0.0.1:3000" { read_timeout = "5m" }"#);

/// See the module.
pub struct Proxy {
    upstream: Arc<Upstream>,
    host: Option<Template>,
    priority: u8,
    policy: RetryPolicy,
    budget: RetryBudget,
    times: Times,
    buffer: usize,
    abort_on_close: bool,
}

/// Makes the step of a call.
pub fn build(call: &Call, builder: &mut Builder) -> Option<Box<dyn Step>> {
    let upstream = builder.upstream(call.node("TARGET")?)?;
    let percent: f64 = call.get("retry_budget");
    Some(Box::new(Proxy {
        upstream,
        host: call.find::<&Template>("host").cloned(),
        priority: call.get("priority"),
        policy: RetryPolicy {
            retries: call.get("retries"),
            on: retry_on(call.get("retry_on")),
        },
        budget: RetryBudget::new(Share::percent(percent_of(percent))),
        times: Times {
            connect: call.get("connect_timeout"),
            first_byte: call.get("first_byte_timeout"),
            read: call.get("read_timeout"),
            tunnel: call.get("tunnel_timeout"),
            total: call.get("total_timeout"),
        },
        buffer: call.get("buffer"),
        abort_on_close: call.get("abort_on_close"),
    }))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the type has checked that it is 0 to 100"
)]
pub fn percent_of(percent: f64) -> u32 {
    percent.round() as u32
}

fn retry_on(nodes: &[Node]) -> RetryOn {
    let mut on = RetryOn::nothing();
    for node in nodes {
        match node.as_a::<&str>() {
            Some("connect") => on.connect = true,
            Some("reset") => on.reset = true,
            Some("timeout") => on.timeout = true,
            _ => {
                if let Some(status) = node.as_a::<u16>() {
                    on.add_status(status);
                }
            }
        }
    }
    on
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

/// One try: what it came to, and whether it may be repeated.
struct Failed {
    fault: Fault,
    failure: Failure,
    sent: bool,
    /// The body that was not touched.
    body: Option<Body>,
    /// A response that counts as a failure, if no other peer does better.
    response: Option<Response>,
}

impl Failed {
    /// The peer has seen nothing of the request.
    fn unsent(fault: Fault, failure: Failure, body: Option<Body>) -> Failed {
        Failed {
            fault,
            failure,
            sent: false,
            body,
            response: None,
        }
    }

    /// The peer has answered with something that is no answer.
    fn garbage(detail: impl Into<String>) -> Failed {
        Failed {
            fault: Fault::with(Reason::BadResponse, detail),
            failure: Failure::Garbage,
            sent: true,
            body: None,
            response: None,
        }
    }
}

impl Proxy {
    /// One that asks an upstream for another step, with the defaults of `proxy` and 30 s for an
    /// answer.
    pub fn asking(upstream: Arc<Upstream>) -> Proxy {
        let answer = Duration::from_secs(30);
        Proxy {
            upstream,
            host: None,
            priority: 5,
            policy: RetryPolicy::default(),
            budget: RetryBudget::new(Share::percent(20)),
            times: Times {
                connect: Duration::from_secs(5),
                first_byte: answer,
                read: answer,
                tunnel: answer,
                total: Duration::from_secs(86_400),
            },
            buffer: 256 << 10,
            abort_on_close: false,
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
        if self.abort_on_close
            && let Some(client) = &exchange.interim
        {
            client.end_of_input_is_leaving();
        }
        let mut body = match exchange.take_body() {
            Ok(body) => body,
            Err(fault) => return Flow::Fail(fault),
        };
        let offer = head::offer(exchange);
        let worker = exchange.worker.clone();
        let now = || Tick::from_millis(worker.turn_ms());
        let draw = self.draw(exchange);
        let is_timed = self.upstream.definition.pool.balance == Balance::P2cEwma;
        self.budget.handle_request(now());
        let led = self.upstream.led_to(&exchange.request.fields);
        let mut tried = Tried::default();
        let mut retries = 0;
        let mut fresh = false;
        loop {
            let seat = match self.seat(&worker, tried, draw, led).await {
                Ok(seat) => seat,
                Err(fault) => return Flow::Fail(fault),
            };
            let peer = seat.peer;
            exchange.set_peer(&self.upstream, peer);
            let asked = &self.upstream.peers[peer];
            asked.requests.fetch_add(1, Relaxed);
            let begun = is_timed.then(Instant::now);
            let failed = match self
                .attempt(exchange, seat, body, offer.as_deref(), fresh)
                .await
            {
                Ok(mut response) => {
                    self.upstream.pool.report(peer, Outcome::Success, now());
                    if led != Some(peer) {
                        self.upstream.lead_to(peer, exchange, &mut response);
                    }
                    if let Some(begun) = begun {
                        let took = begun.elapsed();
                        self.upstream.pool.report_time(peer, took, now());
                    }
                    return Flow::Answer(response);
                }
                Err(failed) => failed,
            };
            // What the client did wrong, or we cannot do, says nothing about the peer.
            if failed.fault.reason.by() != Party::Upstream {
                return Flow::Fail(failed.fault);
            }
            let decision = self.decide(exchange, peer, &failed, retries, now());
            match (decision, failed.body) {
                (Decision::AnotherPeer, Some(kept)) => {
                    tried.add(peer);
                    retries += 1;
                    body = kept;
                }
                (Decision::FreshConnection, Some(kept)) => {
                    fresh = true;
                    body = kept;
                }
                _ => {
                    return match failed.response {
                        Some(response) => Flow::Answer(response),
                        None => Flow::Fail(failed.fault),
                    };
                }
            }
            worker.counters.upstream_retries.add(1);
        }
    }

    /// Counts a failure, and says whether there is another try.
    fn decide(
        &self,
        exchange: &Exchange,
        peer: usize,
        failed: &Failed,
        retries: u32,
        now: Tick,
    ) -> Decision {
        if !matches!(failed.failure, Failure::Stale | Failure::Status(_)) {
            let counted = &self.upstream.peers[peer];
            counted.failures.fetch_add(1, Relaxed);
            self.upstream.handle_failure(peer, &failed.fault, now);
        }
        let attempt = Attempt {
            failure: failed.failure,
            sent: failed.sent,
            idempotent: exchange.request.method.is_idempotent(),
            replayable: failed.body.is_some(),
            answered: false,
            retries,
        };
        self.policy.decide(&attempt, &self.budget, now)
    }

    /// The number that the policy draws with, if it does.
    fn draw(&self, exchange: &Exchange) -> u64 {
        let definition = &self.upstream.definition;
        match (definition.pool.balance, &definition.by) {
            (Balance::Hash, by) => {
                let mut key = Vec::new();
                match by {
                    Some(by) => expand(by, exchange, None, &mut key),
                    None => key.extend_from_slice(exchange.client_net().as_bytes()),
                }
                hash_key(&key)
            }
            (Balance::Random | Balance::P2cEwma, _) => exchange.worker.random(),
            _ => 0,
        }
    }

    /// A place: at the peer that the client belongs to, if it can be, else where the policy says.
    async fn seat(
        &self,
        worker: &Worker,
        tried: Tried,
        draw: u64,
        led: Option<usize>,
    ) -> Result<Seat, Fault> {
        let now = Tick::from_millis(worker.turn_ms());
        if let Some(peer) = led.filter(|peer| !tried.contains(*peer))
            && let Some(seat) = self.upstream.seat_at(peer, now)
        {
            return Ok(seat);
        }
        let ask = |tried| Ask::again(now, tried).draw(draw);
        match self.upstream.seat(&ask(tried)) {
            Ok(seat) => Ok(seat),
            // With one peer, or none other in service, the same one again is better than nothing.
            Err(NoPeer::AllTried) => self
                .upstream
                .seat(&ask(Tried::default()))
                .map_err(|_| Reason::NoPeer.into()),
            Err(NoPeer::Full) => {
                let deadline = worker.wheel.register();
                let ask = ask(tried);
                self.upstream
                    .seat_in_turn(worker, &deadline, self.priority, &ask)
                    .await
            }
            Err(_) => Err(Reason::NoPeer.into()),
        }
    }

    /// Sends the request to one peer and waits for the head of its response.
    async fn attempt(
        &self,
        exchange: &mut Exchange,
        seat: Seat,
        body: Body,
        offer: Option<&[u8]>,
        fresh: bool,
    ) -> Result<Response, Failed> {
        let worker = exchange.worker.clone();
        let idle = Idle::of(&worker, &self.upstream);
        let peer = &self.upstream.peers[seat.peer];
        let tls_name = self.upstream.tls_name(peer, exchange);
        let tls_name = tls_name.as_deref();
        let kept = if fresh {
            None
        } else {
            idle.take(seat.peer, tls_name)
        };
        let reused = kept.is_some();
        let conn = match kept {
            Some(conn) => {
                worker.counters.upstream_reused.add(1);
                conn
            }
            None => {
                let remote = exchange.remote;
                let time = self.times.connect;
                match connect(&worker, &self.upstream, peer, &remote, tls_name, time).await {
                    Ok(conn) => conn,
                    Err(fault) => return Err(Failed::unsent(fault, Failure::Connect, Some(body))),
                }
            }
        };
        let mut session = Session::new(&worker, idle, seat, conn, self.times, self.buffer);
        if !reused
            && !peer.tls
            && let Some(header) = self.upstream.definition.send_proxy
        {
            header.write(&exchange.remote, session.request());
        }
        let host = self.host.as_ref();
        let cookie = self.upstream.sticky.as_ref().map(Sticky::name);
        let out = session.request();
        let chunked = match head::write(exchange, host, cookie, &body, offer, out) {
            Ok(chunked) => chunked,
            Err(fault) => return Err(Failed::unsent(fault, Failure::Garbage, None)),
        };
        session.send_body(body, chunked);
        let interim = exchange.interim.as_ref();
        let method = exchange.request.method;
        let result = poll_fn(|cx| session.poll_head(&method, interim, cx)).await;
        if let Err(fault) = result {
            let failure = match fault.reason {
                Reason::UpstreamReset if reused && !session.heard => Failure::Stale,
                reason => reason.of_peer().unwrap_or(Failure::Garbage),
            };
            let sent = session.sent;
            let body = session.take_body();
            return Err(Failed {
                fault,
                failure,
                sent,
                body,
                response: None,
            });
        }
        self.answer(&worker, session, offer)
    }

    /// What the head of a peer's response comes to.
    #[expect(clippy::result_large_err, reason = "handed on once, and taken apart")]
    fn answer(
        &self,
        worker: &Worker,
        mut session: Box<Session>,
        offer: Option<&[u8]>,
    ) -> Result<Response, Failed> {
        let status = session.head.status;
        if status == 101 {
            return tunnel(worker, session, offer).map_err(Failed::garbage);
        }
        if status > 599 {
            return Err(Failed::garbage(format!("status {status}")));
        }
        let listed = self.policy.on.lists(Failure::Status(status));
        let body = if listed { session.take_body() } else { None };
        let response = response_of(worker, session);
        if listed {
            let fault = Reason::StatusRetried.into();
            let failure = Failure::Status(response.status);
            return Err(Failed {
                fault,
                failure,
                sent: true,
                body,
                response: Some(response),
            });
        }
        Ok(response)
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
        status: 101,
        fields,
        body: Body::Tunnel(Box::new(tunnel)),
        from_upstream: true,
        ..Response::default()
    })
}

/// The peer's head and body as a response of our own.
fn response_of(worker: &Worker, mut session: Box<Session>) -> Response {
    let head = &mut session.head;
    head.fields.remove_hop_by_hop();
    let mut fields = worker.fields();
    std::mem::swap(&mut *fields, &mut head.fields);
    Response {
        status: head.status,
        fields,
        announced_len: head.content_length,
        body: session.into_body(),
        from_upstream: true,
        ..Response::default()
    }
}
