//! Standard error, which nobody may be reading.
//!
//! A pipe that is full keeps its writer waiting, for ever if its reader hangs. So once there are
//! workers, a thread of its own writes: they hand lines over, and what is too much for it is dropped
//! and counted. Before that, and where there is no server, lines are written at once.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// Lines may wait with so many bytes.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;

/// Where lines are handed over, once there is a thread that writes them.
static QUEUE: OnceLock<Queue> = OnceLock::new();

struct Queue {
    jobs: Sender<Job>,
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
}

enum Job {
    Line(Vec<u8>),
    /// Say so when all before it has been written.
    Flush(SyncSender<()>),
}

/// Starts the thread. Not before the process has become the user it is to be: a thread keeps the
/// rights that it was started with.
pub fn detach() -> io::Result<()> {
    let (jobs, told) = channel();
    let queue = Queue {
        jobs,
        queued_bytes: AtomicUsize::new(0),
        dropped: AtomicU64::new(0),
    };
    // There is one, as in tests that start several servers.
    if QUEUE.set(queue).is_err() {
        return Ok(());
    }
    std::thread::Builder::new()
        .name("error-log".to_owned())
        .spawn(move || write(&told, &mut io::stderr()))
        .map(drop)
}

/// Waits until what was logged so far is written, but not for longer than this.
pub fn flush(patience: Duration) {
    if let Some(queue) = QUEUE.get() {
        let (done, written) = sync_channel(1);
        if queue.jobs.send(Job::Flush(done)).is_ok() {
            // Who hangs at its other end is not waited for.
            let _ = written.recv_timeout(patience);
        }
    }
}

/// How many lines were dropped.
pub fn dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.dropped.load(Relaxed))
}

/// Takes one event at a time.
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => queue.push(line),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let queued = self.queued_bytes.fetch_add(line.len(), Relaxed) + line.len();
        let is_taken =
            queued <= MAX_QUEUED_BYTES && self.jobs.send(Job::Line(line.to_vec())).is_ok();
        if !is_taken {
            self.queued_bytes.fetch_sub(line.len(), Relaxed);
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn write(told: &Receiver<Job>, to: &mut impl Write) {
    while let Ok(job) = told.recv() {
        match job {
            Job::Line(line) => {
                // Nobody is left who could be told that it failed.
                let _ = to.write_all(&line);
                if let Some(queue) = QUEUE.get() {
                    queue.queued_bytes.fetch_sub(line.len(), Relaxed);
                }
            }
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}
