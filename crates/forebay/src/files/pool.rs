//! Where the waiting for disks is done: a few threads per worker, and a bounded queue for them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::exchange::{Fault, Reason};

/// Threads per worker. What is in memory never comes here, so these only wait: more of them than a
/// disk serves at once would only lengthen its queue. A solid-state disk gives most of what it has
/// at a depth of 16, and there is a pool for every core.
pub const THREADS: usize = 16;

/// Of these, one file system may hold half: one that hangs (a network file system whose server is
/// gone keeps its threads for ever) does not take the others along.
const LANE: usize = THREADS / 2;

/// How many may wait for a thread before further requests are refused. Bodies that are being sent
/// wait beyond that: there are never more of them than connections.
const QUEUE: usize = 1024;

/// File systems that are told apart. Those that nobody uses just now are forgotten first.
const LANES: usize = 64;

/// A worker's way to the threads.
pub struct Pool {
    threads: Arc<Semaphore>,
    lanes: RefCell<FxHashMap<u64, Arc<Semaphore>>>,
    waiting: Cell<usize>,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            threads: Arc::new(Semaphore::new(THREADS)),
            lanes: RefCell::default(),
            waiting: Cell::new(0),
        }
    }
}

impl Pool {
    /// Runs `work`, which may wait for the file system `device`, on a thread of the pool. Dropping
    /// the future forgets the result; work that has begun goes on and holds its thread.
    ///
    /// # Errors
    /// `work` panicked, or the server is ending.
    pub fn run<T, F>(
        self: &Rc<Pool>,
        device: u64,
        work: F,
    ) -> impl Future<Output = Result<T, Fault>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let pool = self.clone();
        async move {
            let place = Place::take(&pool);
            let lane = permit(pool.lane(device)).await?;
            let thread = permit(pool.threads.clone()).await?;
            drop(place);
            let job = tokio::task::spawn_blocking(move || {
                let result = work();
                // Here and not where the result is awaited: that future may be gone.
                drop((lane, thread));
                result
            });
            job.await
                .map_err(|error| Fault::with(Reason::Internal, error.to_string()))
        }
    }

    /// As [`run`](Pool::run), for a request that can still be refused.
    ///
    /// # Errors
    /// Also [`Reason::Overloaded`]: too many wait already.
    pub async fn run_or_refuse<T: Send + 'static>(
        self: &Rc<Pool>,
        device: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        if self.waiting.get() >= QUEUE {
            return Err(Fault::with(
                Reason::Overloaded,
                "too many requests wait for the disk",
            ));
        }
        self.run(device, work).await
    }

    /// Waits until every thread is free, and checks that nobody waits for one.
    #[cfg(test)]
    pub async fn settle(&self) {
        assert_eq!(self.waiting.get(), 0);
        let all = u32::try_from(THREADS).unwrap();
        drop(self.threads.acquire_many(all).await.unwrap());
        let free = |lane: &Arc<Semaphore>| lane.available_permits() == LANE;
        assert!(self.lanes.borrow().values().all(free));
    }

    fn lane(&self, device: u64) -> Arc<Semaphore> {
        let mut lanes = self.lanes.borrow_mut();
        if lanes.len() >= LANES && !lanes.contains_key(&device) {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        lanes
            .entry(device)
            .or_insert_with(|| Arc::new(Semaphore::new(LANE)))
            .clone()
    }
}

async fn permit(semaphore: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    // Nobody closes them.
    semaphore
        .acquire_owned()
        .await
        .map_err(|_| Reason::Internal.into())
}

/// One who waits for a thread.
struct Place(Rc<Pool>);

impl Place {
    fn take(pool: &Rc<Pool>) -> Place {
        pool.waiting.set(pool.waiting.get() + 1);
        Place(pool.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}
