//! Load under which nothing may fail: threads that ask and check until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{Client, Request};

/// Threads that each call a closure again and again; stopped and joined by [`Load::finish`].
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Starts `threads` threads. Each makes what it needs (a connection, say) with `make`, and then
    /// calls that again and again.
    #[must_use]
    pub fn start<W, M>(threads: usize, make: M) -> Self
    where
        M: Fn(usize) -> W,
        W: FnMut() + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let threads = (0..threads)
            .map(|i| {
                let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
                let mut work = make(i);
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        work();
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self {
            stop,
            count,
            threads,
        }
    }

    /// How many calls have been made.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Stops all threads and says how many calls were made.
    ///
    /// # Panics
    /// When a thread has panicked: something that must not fail has failed.
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = 0;
        for thread in self.threads {
            failed += usize::from(thread.join().is_err());
        }
        assert!(failed == 0, "{failed} threads of the load have failed");
        self.count.load(Ordering::Relaxed)
    }
}

/// Calls `work` for this long and returns how long each call took, sorted.
pub fn times(duration: Duration, mut work: impl FnMut()) -> Vec<Duration> {
    let end = Instant::now() + duration;
    let mut all = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        work();
        all.push(begun.elapsed());
    }
    all.sort_unstable();
    all
}

/// The time below which `percent` of these (sorted) are.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// Connections that each read the response to a request slowly, all by one thread.
pub struct SlowReaders {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl SlowReaders {
    /// Opens `count` connections with small receive buffers, sends the request on each, and from then
    /// on reads from each of them at most `rate` bytes a second.
    #[must_use]
    pub fn start(client: &Client, request: &Request, count: usize, rate: usize) -> Self {
        let client = client.clone().receive_buffer(16 << 10);
        let mut conns: Vec<_> = (0..count).map(|_| client.connect()).collect();
        for conn in &mut conns {
            conn.send(request);
        }
        let (stop, read) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let thread = {
            let (stop, read) = (Arc::clone(&stop), Arc::clone(&read));
            std::thread::spawn(move || {
                const ROUND: Duration = Duration::from_millis(200);
                while !stop.load(Ordering::Relaxed) {
                    let round = Instant::now() + ROUND;
                    // What has ended is no longer read; how many are left is what `stop` returns.
                    conns.retain_mut(|conn| match conn.drain((rate / 5).max(1)) {
                        Ok(n) => {
                            read.fetch_add(n as u64, Ordering::Relaxed);
                            true
                        }
                        Err(_) => false,
                    });
                    std::thread::sleep(round.saturating_duration_since(Instant::now()));
                }
                conns.len()
            })
        };
        Self {
            stop,
            read,
            thread: Some(thread),
        }
    }

    /// How many bytes were read by all together.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Stops reading, drops the connections and says how many of them were still alive.
    ///
    /// # Panics
    /// When the thread has panicked.
    pub fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .map_or(0, |t| t.join().expect("the readers' thread"))
    }
}

impl Drop for SlowReaders {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a measurement up to `rounds` times until one meets its bar: other work on the machine can
/// only make it worse, never better.
///
/// # Panics
/// When none did; the message holds what each of them said.
#[track_caller]
pub fn best_of(rounds: usize, mut measure: impl FnMut() -> Result<String, String>) {
    let mut said = Vec::new();
    for _ in 0..rounds {
        match measure() {
            Ok(what) => {
                println!("{what}");
                return;
            }
            Err(what) => said.push(what),
        }
    }
    panic!("no round of {rounds} met the bar:\n{}", said.join("\n"));
}
