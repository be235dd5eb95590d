//! Runs an exchange so that a panic in a step costs that exchange only, and a step that keeps its
//! worker for too long is noticed.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::{Exchange, Reason, Response, step};
use crate::log::Throttle;
use crate::worker::Worker;

/// A turn longer than this keeps every other connection of the worker waiting.
const SLOW_TURN_MS: u64 = 20;

/// As [`step::run`].
pub fn run(exchange: &mut Exchange) -> Option<Response> {
    // Unwind safety: after a panic nothing is looked at but the exchange, which is cleared before
    // its next use.
    let ran = catch_unwind(AssertUnwindSafe(|| step::run(exchange)));
    ran.unwrap_or_else(|_| {
        exchange.worker.counters.panics.add(1);
        Some(after_panic(exchange))
    })
}

/// As [`step::finish`].
pub async fn finish(exchange: &mut Exchange) -> Response {
    let worker = exchange.worker.clone();
    let finished = {
        let mut steps = pin!(step::finish(exchange));
        poll_fn(|cx| poll_contained(&worker, steps.as_mut(), cx)).await
    };
    finished.unwrap_or_else(|| after_panic(exchange))
}

pin_project! {
    /// Runs a connection's task to its end, or to a panic in it, which is counted; and looks at
    /// how long its turns are. Holds `place` as long as it lives.
    ///
    /// A struct and not an `async fn`, which keeps its arguments twice: an idle connection is
    /// little more than this.
    pub struct Task<P, F> {
        place: P,
        #[pin]
        task: F,
    }
}

impl<P: AsRef<Worker>, F: Future<Output = ()>> Task<P, F> {
    /// This task of the worker that `place` is of.
    pub fn new(place: P, task: F) -> Task<P, F> {
        Task { place, task }
    }
}

impl<P: AsRef<Worker>, F: Future<Output = ()>> Future for Task<P, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let worker = (*this.place).as_ref();
        let before_ms = worker.begin_turn();
        let polled = poll_contained(worker, this.task, cx);
        note_turn(worker, before_ms);
        polled.map(|_| ())
    }
}

/// Polls a future; one that panics is over, with nothing for a result.
fn poll_contained<F: Future>(
    worker: &Worker,
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Option<F::Output>> {
    // Unwind safety: after a panic the future is dropped, never polled again.
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => {
            worker.counters.panics.add(1);
            Poll::Ready(None)
        }
    }
}

/// Ends a turn of a task that could go on: it is woken when the sockets have been looked at and all
/// others who can go on have had their turn. Waking it on the spot would put it back into the queue
/// of those who are ready, and the sockets are only looked at when that is empty, or long.
pub fn end_turn(cx: &mut Context<'_>) {
    // The runtime has the waker as soon as this was polled once; the rest of it is not needed.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

fn after_panic(exchange: &mut Exchange) -> Response {
    exchange.course.clear();
    Response::fault(exchange, Reason::Internal.into())
}

fn note_turn(worker: &Worker, before_ms: u64) {
    static LOG: Throttle = Throttle::new();
    let took_ms = worker.now_ms().saturating_sub(before_ms);
    if took_ms <= SLOW_TURN_MS {
        return;
    }
    worker.counters.slow_turns.add(1);
    if let Some(dropped) = LOG.pass() {
        tracing::warn!(
            worker = worker.index,
            took_ms,
            dropped,
            "an exchange kept its worker for too long"
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::exchange::{Entry, Exchange, Flow, Local, Pipeline, Remote, Step, step};
    use crate::steps::testing::Bench;

    /// Panics where it is told to.
    struct Panics {
        waits: bool,
    }

    impl Step for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }

        fn on_request(&self, _: &mut Exchange) -> Flow {
            assert!(self.waits, "a panic on the way down");
            Flow::Wait
        }

        fn wait<'a>(&'a self, _: &'a mut Exchange) -> Local<'a, Flow> {
            Box::pin(async { panic!("a panic after a wait") })
        }
    }

    #[test]
    fn a_panic_costs_its_exchange_and_is_counted() {
        let bench = Bench::new(r#"site { "*", respond(200) }"#);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let remote = Remote {
            address,
            local: address,
            tls: false,
        };
        for (count, waits) in [(1, false), (2, true)] {
            let mut exchange = Exchange::new(&bench.worker, remote);
            let entry = Entry {
                when: None,
                step: Box::new(Panics { waits }),
                kind: 0,
                call: 0,
            };
            exchange
                .course
                .start(step::Rest::from(Pipeline::new(vec![entry])));
            let response = match super::run(&mut exchange) {
                Some(response) => response,
                None => bench.block_on(super::finish(&mut exchange)),
            };
            assert_eq!(response.status, 500);
            assert_eq!(bench.worker.counters.panics.get(), count);
            drop(exchange);
            // The next exchange, which uses the same memory again, knows nothing of it.
            let mut next = Exchange::new(&bench.worker, remote);
            assert!(next.course.rest().is_none());
            next.course
                .start(step::Rest::from(bench.site("x").pipeline.clone()));
            assert_eq!(
                step::run(&mut next).map(|response| response.status),
                Some(200)
            );
        }
    }
}
