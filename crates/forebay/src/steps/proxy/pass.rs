//! Passing a request on to an upstream, whatever its peers speak: a place at a peer, a try, another
//! one where that is allowed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use forebay_balance::{
    Ask, Attempt, Balance, Decision, Failure, NoPeer, Outcome, RetryBudget, RetryPolicy, Share,
    Tick, Tried, hash_key,
};

use super::gather;
use super::send_files::SendFiles;
use crate::exchange::{Body, Exchange, Fault, Flow, Party, Reason, Response, expand};
use crate::upstream::{Idle, Line, PeerConn, Seat, Times, Upstream, connect};
use crate::worker::Worker;

/// What it takes to pass requests on.
pub struct Passing {
    pub upstream: Arc<Upstream>,
    pub priority: u8,
    pub policy: RetryPolicy,
    pub budget: RetryBudget,
    pub times: Times,
    pub buffer: usize,
    pub buffer_request: usize,
    pub abort_on_close: bool,
    pub send_files: Option<SendFiles>,
}

/// Who sends a request to one peer and waits for the head of its response.
pub trait Speaker {
    /// One try.
    async fn attempt(
        &self,
        exchange: &mut Exchange,
        seat: Seat,
        body: Body,
        fresh: bool,
    ) -> Result<Response, Failed>;
}

/// One try: what it came to, and whether it may be repeated.
pub struct Failed {
    pub fault: Fault,
    pub failure: Failure,
    pub sent: bool,
    /// The body that was not touched.
    pub body: Option<Body>,
    /// A response that counts as a failure, if no other peer does better.
    pub response: Option<Response>,
}

impl Failed {
    /// The peer has seen nothing of the request.
    pub fn unsent(fault: Fault, failure: Failure, body: Option<Body>) -> Failed {
        Failed {
            fault,
            failure,
            sent: false,
            body,
            response: None,
        }
    }

    /// The peer has answered with something that is no answer.
    pub fn garbage(detail: impl Into<String>) -> Failed {
        Failed {
            fault: Fault::with(Reason::BadResponse, detail),
            failure: Failure::Garbage,
            sent: true,
            body: None,
            response: None,
        }
    }
}

impl Passing {
    /// With the defaults of `proxy`, and this long for an answer.
    pub fn plain(upstream: Arc<Upstream>, answer: Duration) -> Passing {
        Passing {
            upstream,
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
            buffer_request: 0,
            abort_on_close: false,
            send_files: None,
        }
    }

    /// The request's body, as much of it taken in as `buffer_request` says.
    pub async fn take_body(&self, exchange: &mut Exchange) -> Result<Body, Fault> {
        if self.abort_on_close
            && let Some(client) = &exchange.interim
        {
            client.end_of_input_is_leaving();
        }
        let body = exchange.take_body()?;
        match self.buffer_request {
            0 => Ok(body),
            most => Box::pin(gather::take_in(body, most)).await,
        }
    }

    /// Passes the exchange's request on with this body.
    pub async fn pass_on(
        &self,
        exchange: &mut Exchange,
        mut body: Body,
        speaker: &impl Speaker,
    ) -> Flow {
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
            let failed = match speaker.attempt(exchange, seat, body, fresh).await {
                Ok(mut response) => {
                    self.upstream.pool.report(peer, Outcome::Success, now());
                    if led != Some(peer) {
                        self.upstream.lead_to(peer, exchange, &mut response);
                    }
                    if let Some(begun) = begun {
                        let took = begun.elapsed();
                        self.upstream.pool.report_time(peer, took, now());
                    }
                    return self.finish(exchange, response).await;
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

    async fn finish(&self, exchange: &mut Exchange, response: Response) -> Flow {
        let Some(send_files) = &self.send_files else {
            return Flow::Answer(response);
        };
        match send_files.replace(exchange, response).await {
            Ok(response) => Flow::Answer(response),
            Err(fault) => Flow::Fail(fault),
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
    pub fn draw(&self, exchange: &Exchange) -> u64 {
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
        let ask = Ask::again(now, tried).draw(draw);
        match self.upstream.seat_again(&ask) {
            Ok(seat) => Ok(seat),
            Err(NoPeer::Full) => {
                if let Some(fleet) = &self.upstream.fleet {
                    fleet.want_more();
                }
                let deadline = worker.wheel.register();
                let turn = self
                    .upstream
                    .seat_in_turn(worker, &deadline, self.priority, &ask);
                Box::pin(turn).await
            }
            Err(_) => Err(Reason::NoPeer.into()),
        }
    }

    /// A connection for a request that has this place, and whether it has carried others before. What
    /// begins each connection stands in it already.
    pub async fn line(
        &self,
        exchange: &Exchange,
        seat: Seat,
        fresh: bool,
    ) -> Result<(Line, bool), Fault> {
        let worker = &exchange.worker;
        let idle = Idle::of(worker, &self.upstream);
        let peer = &self.upstream.peers[seat.peer];
        let tls_name = self.upstream.tls_name(peer, exchange);
        let tls_name = tls_name.as_deref();
        let kept = if fresh {
            None
        } else {
            let repeatable = exchange.request.method.is_idempotent();
            idle.take(worker, seat.peer, tls_name, repeatable)
        };
        let reused = kept.is_some();
        let conn: PeerConn = match kept {
            Some(conn) => {
                worker.counters.upstream_reused.add(1);
                conn
            }
            None => {
                let remote = exchange.remote;
                let time = self.times.connect;
                idle.before_new(worker, seat.peer);
                let connecting = connect(worker, &self.upstream, peer, &remote, tls_name, time);
                // In a box, as whatever most requests have no use for: what waits here is moved, and
                // its room is taken, for every request.
                Box::pin(connecting).await?
            }
        };
        let mut line = Line::new(worker, idle, seat, conn, self.times, self.buffer);
        if !reused
            && !peer.tls
            && let Some(header) = self.upstream.definition.send_proxy
        {
            header.write(&exchange.remote, line.out.tail());
        }
        Ok((line, reused))
    }

    /// What a failed session says of its peer.
    pub fn failure(fault: &Fault, reused: bool, heard: bool) -> Failure {
        match fault.reason {
            Reason::UpstreamReset if reused && !heard => Failure::Stale,
            reason => reason.of_peer().unwrap_or(Failure::Garbage),
        }
    }

    /// A response, or what it counts as if its status is one that is tried again; `body` is the
    /// request's, where it was not touched.
    #[expect(clippy::result_large_err, reason = "handed on once, and taken apart")]
    pub fn judge(&self, response: Response, body: Option<Body>) -> Result<Response, Failed> {
        let failure = Failure::Status(response.status);
        if !self.policy.on.lists(failure) {
            return Ok(response);
        }
        Err(Failed {
            fault: Reason::StatusRetried.into(),
            failure,
            sent: true,
            body,
            response: Some(response),
        })
    }
}
