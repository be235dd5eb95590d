//! The one thread that writes the access logs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Sink;
use super::batch::{Batch, Run};
use crate::log::Throttle;

/// Lines that wait to be written may take so much memory: two minutes of a busy server whose disk
/// stalls, or a second of one that is far too slow.
const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;

/// At most so much is gathered before it is written.
const GATHER_BYTES: usize = 1024 * 1024;

/// What the thread is told.
pub enum Job {
    /// Write these.
    Batch(Batch),
    /// Open these anew.
    Reopen(Vec<Arc<Sink>>),
}

/// Where the thread is told.
pub type Jobs = Sender<Job>;

/// The shared half of the access log.
#[derive(Default)]
pub struct Writer {
    started: Mutex<Option<Started>>,
    /// What waits to be written, or is being written.
    queued_bytes: AtomicUsize,
    /// Lines dropped because too many waited.
    pub dropped_lines: AtomicU64,
    /// Lines that could not be written.
    pub failed_lines: AtomicU64,
}

struct Started {
    jobs: Jobs,
    /// Says when the thread has ended.
    ended: oneshot::Receiver<()>,
}

impl Writer {
    /// Starts the thread, if there is anything for it to do and it does not run.
    pub fn start(self: &Arc<Self>, sinks: &[Arc<Sink>]) -> io::Result<()> {
        let mut started = self.started.lock();
        if sinks.is_empty() || started.is_some() {
            return Ok(());
        }
        let (jobs, told) = channel();
        let (ending, ended) = oneshot::channel();
        let writer = self.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                writer.run(&told);
                let _ = ending.send(());
            })?;
        *started = Some(Started { jobs, ended });
        Ok(())
    }

    /// Where lines are handed over; none while no log is configured.
    pub fn jobs(&self) -> Option<Jobs> {
        let started = self.started.lock();
        started.as_ref().map(|started| started.jobs.clone())
    }

    /// True while more than a little waits to be written.
    pub fn is_behind(&self) -> bool {
        self.queued_bytes.load(Relaxed) > MAX_QUEUED_BYTES / 4
    }

    /// Takes lines over. Gives them back where there is no room; then they are counted as dropped.
    pub fn hand_over(&self, jobs: Option<&Jobs>, batch: Batch) -> Option<Batch> {
        let weight = batch.weight_bytes();
        let queued = self.queued_bytes.fetch_add(weight, Relaxed) + weight;
        let refused = match jobs {
            Some(jobs) if queued <= MAX_QUEUED_BYTES => match jobs.send(Job::Batch(batch)) {
                Ok(()) => return None,
                Err(refused) => match refused.0 {
                    Job::Batch(batch) => Some(batch),
                    Job::Reopen(_) => None,
                },
            },
            _ => Some(batch),
        };
        self.queued_bytes.fetch_sub(weight, Relaxed);
        let lines = refused.as_ref().map_or(0, Batch::lines);
        let dropped = self.dropped_lines.fetch_add(lines, Relaxed) + lines;
        static LOG: Throttle = Throttle::new();
        if LOG.pass().is_some() {
            tracing::warn!(
                dropped,
                "the access log is written too slowly: lines are dropped"
            );
        }
        refused
    }

    /// Opens logs anew, behind what has been handed over so far.
    pub fn reopen(&self, sinks: &[Arc<Sink>]) {
        if let Some(jobs) = self.jobs() {
            // It ends only when nobody can tell it anything any more.
            let _ = jobs.send(Job::Reopen(sinks.to_vec()));
        }
    }

    /// Lets everything that the workers have handed over be written; not for longer than this. The
    /// workers have ended: the thread does when nobody is left who could tell it more.
    pub async fn finish(&self, patience: Duration) {
        let started = self.started.lock().take();
        let Some(Started { jobs, ended }) = started else {
            return;
        };
        drop(jobs);
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("the access log is not written to its end");
        }
    }

    fn run(&self, told: &Receiver<Job>) {
        while let Ok(first) = told.recv() {
            let mut gathered = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            let mut reopen = None;
            while let Some(job) = next {
                match job {
                    Job::Batch(batch) => {
                        bytes += batch.bytes.len();
                        gathered.push(batch);
                    }
                    Job::Reopen(sinks) => {
                        reopen = Some(sinks);
                        break;
                    }
                }
                next = (bytes < GATHER_BYTES)
                    .then(|| told.try_recv().ok())
                    .flatten();
            }
            self.write(&gathered);
            let weight = gathered.iter().map(Batch::weight_bytes).sum();
            drop(gathered);
            self.queued_bytes.fetch_sub(weight, Relaxed);
            for sink in reopen.iter().flatten() {
                if let Err(error) = sink.reopen() {
                    tracing::error!(
                        log = ?sink.target,
                        %error,
                        "an access log cannot be opened anew; the old file is used on"
                    );
                }
            }
        }
    }

    /// Writes what goes to one place with as few calls as can be: lines of several logs alternate.
    fn write(&self, batches: &[Batch]) {
        let runs = || batches.iter().flat_map(|batch| &batch.runs);
        let Some(first) = runs().next() else {
            return;
        };
        if runs().all(|run| Arc::ptr_eq(&run.sink, &first.sink)) {
            for batch in batches {
                self.write_to(&first.sink, &batch.bytes, batch.lines());
            }
            return;
        }
        let mut sorted: Vec<(&Run, &[u8])> = Vec::new();
        for batch in batches {
            let mut start = 0;
            for run in &batch.runs {
                sorted.push((run, &batch.bytes[start..run.end]));
                start = run.end;
            }
        }
        // Stable: the lines of one place keep their order.
        sorted.sort_by_key(|(run, _)| Arc::as_ptr(&run.sink).addr());
        let mut piece = Vec::new();
        for of_one in sorted.chunk_by(|a, b| Arc::ptr_eq(&a.0.sink, &b.0.sink)) {
            piece.clear();
            for (_, lines) in of_one {
                piece.extend_from_slice(lines);
            }
            let count = of_one.iter().map(|(run, _)| run.lines).sum();
            self.write_to(&of_one[0].0.sink, &piece, count);
        }
    }

    fn write_to(&self, sink: &Sink, lines: &[u8], count: u64) {
        let Err(error) = sink.write(lines) else {
            return;
        };
        let failed = self.failed_lines.fetch_add(count, Relaxed) + count;
        static LOG: Throttle = Throttle::new();
        if LOG.pass().is_some() {
            tracing::error!(log = ?sink.target, %error, failed, "an access log cannot be written");
        }
    }
}
