//! `limit`: how much and how often a client may.
//!
//! ```text
//!   request ──▶ body announced? ──▶ a place (concurrency) ──▶ its turn (rate) ──▶ next step
//!                    │ too long          │ none                   │ too early
//!                    ▼                   ▼                        ▼
//!                   413           waits for up to `wait`; then `status` with Retry-After
//! ```
//!
//! What is counted is shared by all workers, and by a configuration and the next one that says the
//! same ([`Shared`]). The place is held until the exchange has ended, with its last byte.

mod crowd;
mod pace;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_balance::{Allowances, Gcra, Verdict};
use forebay_config::{
    Call, Code, Directive, Opt, Part, Rate, Report, Template, Type, Variable, Vars,
};
use forebay_fields::Known;
use forebay_sys::clock;

pub use self::crowd::{Crowd, Entry, Permit};
use self::pace::Pace;
use crate::control::build::Builder;
use crate::exchange::{
    Condition, Exchange, Fault, Flow, Local, Reason, Response, Step, Up, expand,
};
use crate::explain::{Notes, Told, shown};
use crate::snapshot::resource_id;
use crate::wheel::timeout;

pub static DIRECTIVE: Directive = Directive::filter(
    "limit",
    "Bounds how often a client may ask, how much at once, how large a request's body is, and how \
     fast a response goes out. A request passes every limit that it comes to, so the lowest counts; \
     one in a route stands for that route alone. It takes at least one of `rate`, `concurrency`, \
     `bandwidth` and `body`. One that is kept in a local and stands in several places is one limit \
     for all of them.",
)
.options(&[
    Opt::new("rate", Type::Rate, "Requests per time."),
    Opt::new(
        "burst",
        Type::Count {
            min: 1,
            max: forebay_config::MAX_COUNT,
        },
        "So many at once, and then evenly at the rate.",
    )
    .unset("the rate's count"),
    Opt::new(
        "wait",
        Type::DURATION,
        "How long a request is held rather than refused.",
    )
    .default(r#""0s""#),
    Opt::new(
        "concurrency",
        Type::Count {
            min: 1,
            max: 1_000_000,
        },
        "Exchanges at once, until their last byte.",
    ),
    Opt::new(
        "status",
        Type::StatusCode,
        "The answer past the rate or the concurrency, with `Retry-After`.",
    )
    .default("429"),
    Opt::new(
        "bandwidth",
        Type::Bandwidth,
        "Of each response's body, once its first bytes have gone.",
    ),
    Opt::new(
        "after",
        Type::SIZE,
        "So many bytes of a response go out before `bandwidth` holds.",
    )
    .default(r#""0B""#),
    Opt::new(
        "body",
        Type::SIZE,
        "Of the request's body; past it the answer is 413. Without any `limit` it is 1GB.",
    ),
    Opt::new(
        "by",
        Type::Template(Vars::Request),
        "One allowance of `rate` and `concurrency` for each value of it; plain text is one for all.",
    )
    .default(r#""$client_net""#),
    Opt::new(
        "count",
        Type::Condition { response: true },
        "Only exchanges for which this holds, once there is a response, use up the rate.",
    )
    .unset("all"),
])
.access_control()
.check(check)
.example(r#"limit { rate = "10/s", burst = 50, body = "64MB" }"#);

fn check(call: &Call, report: &mut Report) {
    let given = |option: &str| call.node(option).is_some();
    if !["rate", "concurrency", "bandwidth", "body"]
        .into_iter()
        .any(given)
    {
        let help = "expected at least one of `rate`, `concurrency`, `bandwidth`, `body`";
        report.mistake(call.place, Code::Missing, "limit: it limits nothing", help);
        return;
    }
    for (option, of) in [
        ("burst", &["rate"][..]),
        ("count", &["rate"]),
        ("after", &["bandwidth"]),
        ("wait", &["rate", "concurrency"]),
        ("by", &["rate", "concurrency"]),
        ("status", &["rate", "concurrency"]),
    ] {
        if call.is_set(option) && !of.iter().copied().any(given) {
            let message = format!("limit: `{option}` changes nothing");
            let help = format!("it belongs to `{}`", of.join("` and `"));
            report.mistake(call.place_of(option), Code::Conflict, message, help);
        }
    }
}

/// See the module.
struct Limit {
    /// Under which an exchange keeps what it holds of this limit.
    id: u64,
    body_bytes: Option<u64>,
    shared: Option<Arc<Shared>>,
    by: By,
    wait: Duration,
    status: u16,
    count: Option<Condition>,
    pace: Option<Pace>,
}

/// What is counted, over all workers.
struct Shared {
    /// Secret, so that no client can choose a value that falls together with another's. 64 bits of
    /// it are compared instead of the value: among a million values, two are taken for one with a
    /// chance of 1 in 37 million.
    keys: RandomState,
    rate: Option<(Gcra, Allowances)>,
    crowd: Option<Arc<Crowd>>,
}

/// Whose allowance it is.
enum By {
    /// `$client_net`, without making a text of it.
    ClientNet,
    Template(Template),
}

pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let rate: Option<Rate> = call.find("rate");
    let concurrency: Option<u32> = call.find("concurrency");
    let shared = (rate.is_some() || concurrency.is_some()).then(|| {
        builder.carried(call, || Shared {
            keys: RandomState::new(),
            rate: rate.map(|rate| {
                let burst = call.find("burst").unwrap_or(rate.count);
                (
                    Gcra::new(rate.count, rate.per, burst),
                    Allowances::default(),
                )
            }),
            crowd: concurrency.map(|limit| Arc::new(Crowd::new(limit))),
        })
    });
    let count = call
        .find("count")
        .and_then(|calls| builder.condition(calls));
    Some(Box::new(Limit {
        id: resource_id(),
        body_bytes: call.find("body"),
        shared,
        by: By::new(call.get("by")),
        wait: call.get("wait"),
        status: call.get("status"),
        count,
        pace: call.find("bandwidth").map(|bytes_per_second| Pace {
            bytes_per_second,
            after_bytes: call.get("after"),
        }),
    }))
}

impl By {
    fn new(template: &Template) -> By {
        match &template.parts[..] {
            [Part::Var(Variable::ClientNet)] => By::ClientNet,
            _ => By::Template(template.clone()),
        }
    }

    /// The value's number; never 0.
    fn key(&self, keys: &RandomState, exchange: &Exchange) -> u64 {
        let hash = match self {
            By::ClientNet => keys.hash_one(match exchange.client_ip() {
                IpAddr::V4(ip) => u64::from(ip.to_bits()),
                // The first half; no /64 that is in use looks like an IPv4 address.
                IpAddr::V6(ip) => u64::try_from(ip.to_bits() >> 64).unwrap_or(0),
            }),
            By::Template(template) => {
                let mut value = Vec::new();
                expand(template, exchange, None, &mut value);
                keys.hash_one(value)
            }
        };
        hash.max(1)
    }
}

/// Why a request may not pass now.
enum Refusal {
    /// All places are taken.
    Full,
    /// It is too early, by so many nanoseconds.
    Early(u64),
}

impl Limit {
    /// A body that says how long it is is refused before anything is done with the request; one
    /// that does not, when so much of it has been read.
    fn bound_body(&self, exchange: &mut Exchange) -> Result<(), Fault> {
        let Some(body_bytes) = self.body_bytes else {
            return Ok(());
        };
        let announced = exchange.request.body().len_bytes();
        if announced.is_some_and(|len| len > body_bytes) {
            return Err(Reason::BodyTooLarge.into());
        }
        let limit = &mut exchange.max_body_bytes;
        // The first limit stands in the place of the default, which it may exceed.
        *limit = Some(limit.map_or(body_bytes, |before| before.min(body_bytes)));
        Ok(())
    }

    /// Whether the exchange has a place already: an application that leads on to another path sends
    /// it through the site again, and it must not wait for itself.
    fn is_inside(&self, exchange: &Exchange) -> bool {
        let held = exchange.kept::<Held>(self.id);
        held.is_some_and(|held| held.permit.is_some())
    }

    /// Lets the request pass, if it may at once.
    fn pass(&self, shared: &Shared, key: u64, exchange: &mut Exchange) -> Result<(), Refusal> {
        let permit = match &shared.crowd {
            Some(crowd) if !self.is_inside(exchange) => {
                Some(crowd.enter(key).ok_or(Refusal::Full)?)
            }
            _ => None,
        };
        if let Some((gcra, table)) = &shared.rate
            && let Verdict::Later(ns) = self.turn(gcra, table, key, 0)
        {
            return Err(Refusal::Early(ns));
        }
        self.note(key, permit, exchange);
        Ok(())
    }

    /// Its turn by the rate. Where only some responses count, nothing is taken before there is one.
    fn turn(&self, gcra: &Gcra, table: &Allowances, key: u64, patience_ns: u64) -> Verdict {
        let now_ns = clock::precise_ns();
        match &self.count {
            None => table.take(key, gcra, now_ns, patience_ns),
            Some(_) => table.look(key, gcra, now_ns),
        }
    }

    /// What the exchange holds of this limit until it ends.
    fn note(&self, key: u64, permit: Option<Permit>, exchange: &mut Exchange) {
        let is_noted = exchange.kept::<Held>(self.id).is_some();
        if !is_noted && (self.count.is_some() || permit.is_some()) {
            exchange.keep(self.id, Held { key, permit });
        }
    }

    /// Waits until the request may pass, for as long as `wait` allows.
    async fn pass_in_time(
        &self,
        shared: &Shared,
        key: u64,
        exchange: &mut Exchange,
    ) -> Result<(), Refusal> {
        let worker = exchange.worker.clone();
        let deadline = worker.wheel.register();
        let until_ns = clock::precise_ns().saturating_add(nanos(self.wait));
        let left_ns = || until_ns.saturating_sub(clock::precise_ns());
        let crowd = shared.crowd.as_ref().filter(|_| !self.is_inside(exchange));
        let permit = match crowd.map(|crowd| crowd.enter_in_turn(key)) {
            None => None,
            Some(Entry::Inside(permit)) => Some(permit),
            Some(Entry::Refused) => return Err(Refusal::Full),
            Some(Entry::Waiting(turn)) => {
                let left = Duration::from_nanos(left_ns());
                match timeout(&deadline, worker.now_ms(), left, turn).await {
                    Ok(Ok(permit)) => Some(permit),
                    _ => return Err(Refusal::Full),
                }
            }
        };
        while let Some((gcra, table)) = &shared.rate {
            let patience_ns = left_ns();
            let Verdict::Later(ns) = self.turn(gcra, table, key, patience_ns) else {
                break;
            };
            if ns > patience_ns {
                return Err(Refusal::Early(ns));
            }
            // Not a moment too early: by the precise clock, whose milliseconds are rounded down.
            let time = Duration::from_nanos(ns) + Duration::from_millis(1);
            let never = std::future::pending::<()>();
            let _ = timeout(&deadline, clock::precise_ms(), time, never).await;
            // It has taken its turn and has now waited for it; else somebody may have been faster.
            if self.count.is_none() {
                break;
            }
        }
        self.note(key, permit, exchange);
        Ok(())
    }

    fn refuse(&self, refusal: &Refusal, exchange: &mut Exchange) -> Response {
        let seconds = match refusal {
            Refusal::Full => 1,
            Refusal::Early(ns) => ns.div_ceil(1_000_000_000),
        };
        let mut response = Response::page(exchange, self.status);
        response.set(Known::RetryAfter, seconds.to_string().as_bytes());
        response.fault = Some(Box::new(Reason::Limited.into()));
        response
    }
}

/// What an exchange holds of a limit.
struct Held {
    key: u64,
    permit: Option<Permit>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Step for Limit {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        if let Err(fault) = self.bound_body(exchange) {
            return Flow::Fail(fault);
        }
        let Some(shared) = &self.shared else {
            return Flow::Next;
        };
        let key = self.by.key(&shared.keys, exchange);
        match self.pass(shared, key, exchange) {
            Ok(()) => Flow::Next,
            Err(Refusal::Early(ns)) if ns <= nanos(self.wait) => Flow::Wait,
            Err(Refusal::Full) if !self.wait.is_zero() => Flow::Wait,
            Err(refusal) => Flow::Answer(self.refuse(&refusal, exchange)),
        }
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange) -> Local<'a, Flow> {
        Box::pin(async move {
            let Some(shared) = &self.shared else {
                return Flow::Next;
            };
            let key = self.by.key(&shared.keys, exchange);
            match self.pass_in_time(shared, key, exchange).await {
                Ok(()) => Flow::Next,
                Err(refusal) => Flow::Answer(self.refuse(&refusal, exchange)),
            }
        })
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        if let Some(body_bytes) = self.body_bytes {
            match exchange.request.body().len_bytes() {
                Some(0) => {}
                Some(len) => notes.add("body", format!("{len} bytes, of at most {body_bytes}")),
                None => notes.add("body", format!("cut at {body_bytes} bytes")),
            }
        }
        if let Some(shared) = &self.shared {
            let key = match &self.by {
                By::ClientNet => exchange.client_net().into_bytes(),
                By::Template(template) => {
                    let mut value = Vec::new();
                    expand(template, exchange, None, &mut value);
                    value
                }
            };
            notes.add("key", format!("\"{}\"", shown(&key)));
            let rate = notes.option("rate").filter(|_| shared.rate.is_some());
            if let Some(rate) = rate {
                let burst = notes.option("burst");
                let burst = burst.map(|burst| format!(", {burst} at once"));
                let burst = burst.unwrap_or_default();
                notes.add(
                    "rate",
                    format!("{rate}{burst}; told as for its first request"),
                );
            }
            if shared.crowd.is_some()
                && let Some(count) = notes.option("concurrency")
            {
                notes.add("concurrency", format!("{count} places, all free here"));
            }
        }
        Told::Runs
    }

    fn explain_response(
        &self,
        exchange: &Exchange,
        response: Option<&Response>,
        notes: &mut Notes<'_>,
    ) {
        if let Some(response) = response {
            notes.own_condition("count", self.count.as_ref(), exchange, response);
        } else if self.count.is_some() {
            notes.add("count", "its status decides whether it counts");
        }
        if let Some(pace) = self.pace {
            let (rate, after) = (pace.bytes_per_second, pace.after_bytes);
            notes.add("bandwidth", format!("{rate} bytes a second after {after}"));
        }
    }

    fn sees_response(&self) -> bool {
        self.count.is_some() || self.pace.is_some()
    }

    fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Up {
        if let Some(count) = &self.count
            && count.holds_for(exchange, response)
            && let Some(Shared {
                rate: Some((gcra, table)),
                ..
            }) = self.shared.as_deref()
            && let Some(held) = exchange.kept::<Held>(self.id)
        {
            table.charge(held.key, gcra, clock::precise_ns());
        }
        if let Some(pace) = self.pace {
            let body = std::mem::take(&mut response.body);
            response.body = pace.apply(&exchange.worker, body);
        }
        Up::Done
    }
}

#[cfg(test)]
mod tests;
