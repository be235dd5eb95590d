//! Runs an exchange so that a panic in a step costs that exchange only, and a step that keeps its
//! worker for too long is named.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use super::{Exchange, Reason, Response, step};

/// A turn longer than this keeps every other connection of the worker waiting.
const SLOW_TURN_MS: u64 = 20;

/// As [`step::run`].
pub fn run(exchange: &mut Exchange) -> Option<Response> {
    let before = exchange.worker.now_ms();
    let ran = catch_unwind(AssertUnwindSafe(|| step::run(exchange)));
    note_turn(exchange, before);
    ran.unwrap_or_else(|_| Some(after_panic(exchange)))
}

/// As [`step::finish`].
pub async fn finish(exchange: &mut Exchange) -> Response {
    let worker = exchange.worker.clone();
    let finished = {
        let mut run = pin!(step::finish(exchange));
        std::future::poll_fn(|cx| {
            let before = worker.now_ms();
            // Unwind safety: after a panic the run is dropped and only the exchange is looked at,
            // which is cleared for its next use.
            let polled = catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx)));
            if worker.now_ms().saturating_sub(before) > SLOW_TURN_MS {
                worker.counters.slow_turns.add(1);
            }
            match polled {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
                Err(_) => Poll::Ready(None),
            }
        })
        .await
    };
    finished.unwrap_or_else(|| after_panic(exchange))
}

fn after_panic(exchange: &mut Exchange) -> Response {
    exchange.worker.counters.panics.add(1);
    exchange.course.clear();
    Response::fault(exchange, Reason::Internal.into())
}

fn note_turn(exchange: &Exchange, before_ms: u64) {
    let took = exchange.worker.now_ms().saturating_sub(before_ms);
    if took > SLOW_TURN_MS {
        exchange.worker.counters.slow_turns.add(1);
        let site = exchange.site.as_ref().map_or("", |site| &site.name);
        tracing::warn!(
            site,
            took_ms = took,
            "a request kept its worker for too long"
        );
    }
}
