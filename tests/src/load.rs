//! Load under which nothing may fail: threads that ask and check until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
