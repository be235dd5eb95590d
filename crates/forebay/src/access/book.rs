//! A worker's half of the access log: the lines that are not handed over yet.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::batch::Batch;
use super::{Sink, Writer};
use crate::wheel::{Deadline, Wheel};
use crate::worker::Worker;

/// Lines are handed over when there are so many bytes of them. Larger pieces save no system call
/// worth mentioning: at 150 bytes a line this is one for 400 exchanges.
pub const PIECE_BYTES: usize = 64 * 1024;

/// Room for the line with which a piece becomes full: most have it, or the piece would double.
const LAST_LINE_BYTES: usize = 4 * 1024;

/// A line waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lines that a worker has not handed over yet.
pub struct Book {
    batch: RefCell<Batch>,
    /// When they are to be handed over at the latest.
    due: Deadline,
    /// The worker has ended.
    is_closed: Cell<bool>,
    jobs: RefCell<Option<super::writer::Jobs>>,
}

impl Book {
    /// An empty one.
    pub fn new(wheel: &Rc<Wheel>) -> Book {
        Book {
            batch: RefCell::default(),
            due: wheel.register(),
            is_closed: Cell::new(false),
            jobs: RefCell::default(),
        }
    }

    /// Adds a line, which `write` appends to what it is given.
    pub fn append(&self, worker: &Worker, sink: &Arc<Sink>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut batch = self.batch.borrow_mut();
        let was_empty = batch.bytes.is_empty();
        if was_empty {
            batch.bytes.reserve(PIECE_BYTES + LAST_LINE_BYTES);
        }
        write(&mut batch.bytes);
        batch.end_line(sink);
        let is_full = batch.bytes.len() >= PIECE_BYTES;
        drop(batch);
        if is_full || self.is_closed.get() {
            self.hand_over(&worker.process.access);
        } else if was_empty {
            self.due.set(worker.now_ms(), PATIENCE);
        }
    }

    /// Hands all lines over.
    pub fn hand_over(&self, writer: &Writer) {
        self.due.clear();
        let mut batch = self.batch.borrow_mut();
        if batch.runs.is_empty() {
            return;
        }
        let mut jobs = self.jobs.borrow_mut();
        if jobs.is_none() {
            *jobs = writer.jobs();
        }
        // A piece that is mostly empty would count with all its memory.
        let given = if batch.bytes.len() < batch.bytes.capacity() / 4 {
            let given = Batch {
                bytes: batch.bytes.as_slice().into(),
                runs: batch.runs.drain(..).collect(),
            };
            batch.clear();
            given
        } else {
            std::mem::take(&mut *batch)
        };
        drop(batch);
        if let Some(given) = writer.hand_over(jobs.as_ref(), given) {
            // There is no room for it; its memory is good for the next lines.
            let mut batch = self.batch.borrow_mut();
            *batch = given;
            batch.clear();
        }
        if self.is_closed.get() {
            *jobs = None;
        }
    }

    /// Hands all lines over, and each that still comes at once: the worker ends.
    pub fn close(&self, writer: &Writer) {
        self.is_closed.set(true);
        self.hand_over(writer);
        *self.jobs.borrow_mut() = None;
    }

    /// What has been written and not handed over.
    #[cfg(test)]
    pub fn text(&self) -> String {
        String::from_utf8(self.batch.borrow().bytes.clone()).expect("a text")
    }
}

/// Hands lines over that have waited long enough: a task of the worker's. Never ends.
pub async fn drive(worker: Rc<Worker>) {
    let book = &worker.book;
    loop {
        poll_fn(|cx| book.due.poll_expired(cx)).await;
        book.due.clear();
        if worker.process.access.is_behind() {
            // Small pieces would fill the queue before their bytes do.
            book.due.set(worker.now_ms(), PATIENCE);
            continue;
        }
        book.hand_over(&worker.process.access);
    }
}
