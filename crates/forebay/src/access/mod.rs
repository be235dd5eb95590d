//! The access log: a line for each exchange, when it is over.
//!
//! ```text
//!   step access_log ─▶ exchange.logs ─(the exchange ends)─▶ worker's Book ──┐ 64 KiB, or a second
//!                                                           worker's Book ──┴─▶ Writer ─▶ Sink
//! ```
//!
//! * The step only notes on the exchange that it is to be logged ([`Log`]). What came of it is known
//!   when it ends, however it ends: then the line is written ([`write_lines`]).
//! * A worker writes lines into a piece of memory of its own ([`Book`]) and hands the piece over when
//!   it is full, at the latest after a second.
//! * One thread writes all pieces ([`Writer`]). When a disk stalls, 8 MiB wait for it; what is over
//!   is dropped and counted. No worker ever waits.

mod batch;
mod book;
mod line;
mod redact;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use forebay_config::Template;

use crate::exchange::{Condition, Exchange, Response};

pub use book::{Book, drive};
pub use line::push_time;
pub use redact::Redact;
pub use sink::{Sink, Target};
pub use writer::Writer;

/// How a line looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// That of Apache and nginx, which every tool reads.
    Combined,
    /// An object per line.
    Json,
    /// As the operator has written it.
    Template(Template),
}

/// One `access_log` of the configuration.
pub struct Log {
    /// Where its lines go.
    pub sink: Arc<Sink>,
    /// How they look.
    pub format: Format,
    /// Which exchanges have one, where that depends on the response.
    pub when: Option<Condition>,
    /// What is masked.
    pub redact: Arc<Redact>,
}

/// Writes the lines of an exchange that is over.
pub fn write_lines(exchange: &mut Exchange) {
    let mut logs = std::mem::take(&mut exchange.logs);
    for log in &logs {
        if holds(log, exchange) {
            let worker = &exchange.worker;
            worker.book.append(worker, &log.sink, |out| {
                line::write(log, exchange, out);
                out.push(b'\n');
            });
        }
    }
    // The room for them is used again.
    logs.clear();
    exchange.logs = logs;
}

fn holds(log: &Log, exchange: &mut Exchange) -> bool {
    let Some(when) = &log.when else {
        return true;
    };
    // The response itself has been sent; what is asked about it is its status.
    let response = Response::new(exchange, exchange.outcome.status);
    let holds = when.holds_for(exchange, &response);
    exchange.worker.give_back_fields(response.fields);
    holds
}
