//! Where work is done that takes a core for more than a millisecond, such as hashing a password: a
//! few threads for the whole process, and a bounded queue for them. A worker that did it itself
//! would keep all of its other connections waiting.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::exchange::{Fault, Reason};

/// How many pieces of work may wait. Of password hashes, which take about 50 ms, a core does twenty
/// in a second: more of them than this would be waited for longer than anybody waits.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// Runs `work` on one of the threads. Work that nobody waits for any more when its turn comes is
/// left out.
///
/// # Errors
/// [`Overloaded`](Reason::Overloaded): too much waits already. [`Internal`](Reason::Internal):
/// `work` panicked.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    let (done, result) = oneshot::channel();
    let job: Job = Box::new(move || {
        if !done.is_closed() {
            // Nobody may want it any more.
            let _ = done.send(work());
        }
    });
    if queue().try_send(job).is_err() {
        let detail = "too much waits to be computed";
        return Err(Fault::with(Reason::Overloaded, detail));
    }
    let panicked = |_| Fault::with(Reason::Internal, "a computation panicked");
    result.await.map_err(panicked)
}

/// The way to the threads, which start when there is first something to do.
fn queue() -> &'static SyncSender<Job> {
    static POOL: OnceLock<SyncSender<Job>> = OnceLock::new();
    POOL.get_or_init(|| {
        let (queue, jobs) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for number in 0..threads {
            let jobs = jobs.clone();
            let thread = std::thread::Builder::new()
                .name(format!("compute-{number}"))
                .spawn(move || work(&jobs));
            if let Err(error) = thread {
                tracing::error!(%error, "a thread for computations cannot start");
            }
        }
        queue
    })
}

/// How far the threads stand back behind the workers, where there are not enough cores for both:
/// whoever sends one wrong password after the other must not slow everybody else down.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

fn work(jobs: &Mutex<Receiver<Job>>) {
    // Of this thread alone on Linux; elsewhere it would be the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "a thread for computations has the priority of a worker");
    }
    loop {
        let job = jobs.lock().recv();
        let Ok(job) = job else {
            return;
        };
        // Unwind safety: what a panicking job has touched is gone with it.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        if done.is_err() {
            tracing::error!("a computation panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_elsewhere_and_a_panic_costs_only_itself() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let here = std::thread::current().id();
            let there = run(|| std::thread::current().id()).await.expect("a result");
            assert_ne!(here, there);
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            for _ in 0..=threads {
                let failed: Result<(), Fault> = run(|| panic!("on purpose")).await;
                assert_eq!(failed.expect_err("it panicked").reason, Reason::Internal);
            }
            assert_eq!(run(|| 5).await.expect("a result"), 5);
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_threads_stand_back() {
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("this thread");
            // The fields behind the name, which may hold anything, begin with the third.
            let (_, fields) = stat.rsplit_once(')').expect("a name");
            let niceness = fields.split_whitespace().nth(19 - 3);
            niceness
                .and_then(|text| text.parse::<i32>().ok())
                .expect("a number")
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let there = runtime.expect("a runtime").block_on(run(niceness));
        // Not further than 19, if the tests themselves stand back.
        assert_eq!(there.expect("a result"), (niceness() + NICENESS).min(19));
    }

    #[test]
    fn more_than_the_queue_holds_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let (open, gate) = std::sync::mpsc::channel::<()>();
            let gate = Arc::new(Mutex::new(gate));
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let jobs = (0..QUEUE + threads + 1).map(|_| {
                let gate = gate.clone();
                run(move || gate.lock().recv().is_ok())
            });
            let mut jobs: Vec<_> = jobs.map(Box::pin).collect();
            let mut refused = 0;
            std::future::poll_fn(|cx| {
                jobs.retain_mut(|job| match job.as_mut().poll(cx) {
                    std::task::Poll::Ready(result) => {
                        refused += usize::from(result.is_err());
                        false
                    }
                    std::task::Poll::Pending => true,
                });
                std::task::Poll::Ready(())
            })
            .await;
            assert!(refused >= 1, "none was refused");
            drop(open);
            for job in jobs {
                job.await.expect("its turn");
            }
        });
    }
}
