//! Where the waiting for disks is done: a few threads per worker, and a bounded queue for them.
//!
//! Who finds no thread free waits for one; but a thread that has done its work goes on with what
//! waits in its lane, without the worker: to be put to sleep and woken again for each piece costs
//! more than a read of 64 KiB does.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

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

/// A thread does so many pieces of work of one lane before those of others have their turn.
const STREAK: usize = 8;

/// A worker's way to the threads.
pub struct Pool {
    threads: Arc<Semaphore>,
    lanes: RefCell<FxHashMap<u64, Arc<Lane>>>,
    waiting: Cell<usize>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Work that waits; `None`: it has begun, or nobody wants it any more.
type Slot = Arc<Mutex<Option<Job>>>;

/// The threads that one file system may hold, and what waits for one of them.
struct Lane {
    threads: Arc<Semaphore>,
    queue: Mutex<LaneQueue>,
}

struct LaneQueue {
    slots: VecDeque<Slot>,
    /// From so many on, those are taken out whose work is gone.
    clean_at: usize,
}

/// What it takes to hold a thread.
type Hold = (OwnedSemaphorePermit, OwnedSemaphorePermit);

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
            let (tell, mut told) = oneshot::channel();
            let job: Job = Box::new(move || {
                // Unwind safety: what a panic has left is dropped, and not looked at.
                if !tell.is_closed()
                    && let Ok(result) = catch_unwind(AssertUnwindSafe(work))
                {
                    let _ = tell.send(result);
                }
            });
            let lane = pool.lane(device);
            match pool.try_hold(&lane) {
                Some(hold) => spawn(job, lane, hold),
                None => {
                    // Woken when a thread is free, or when one that was has done this already.
                    let _place = Place::take(&pool);
                    let waits = Waits::new(lane.clone(), job);
                    let mut hold = pin!(pool.hold(lane.clone()));
                    let early = poll_fn(|cx| match Pin::new(&mut told).poll(cx) {
                        Poll::Ready(told) => Poll::Ready(Ok(told)),
                        Poll::Pending => hold.as_mut().poll(cx).map(Err),
                    });
                    match early.await {
                        Ok(told) => return told.map_err(|_| failed()),
                        Err(hold) => {
                            let hold = hold?;
                            if let Some(job) = waits.take() {
                                spawn(job, lane, hold);
                            }
                        }
                    }
                }
            }
            told.await.map_err(|_| failed())
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
        for lane in self.lanes.borrow().values() {
            assert_eq!(lane.threads.available_permits(), LANE);
            assert!(lane.next().is_none());
        }
    }

    fn lane(&self, device: u64) -> Arc<Lane> {
        let mut lanes = self.lanes.borrow_mut();
        if lanes.len() >= LANES && !lanes.contains_key(&device) {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        lanes.entry(device).or_default().clone()
    }

    /// Holds a thread if one is free.
    fn try_hold(&self, lane: &Lane) -> Option<Hold> {
        let of_lane = lane.threads.clone().try_acquire_owned().ok()?;
        Some((of_lane, self.threads.clone().try_acquire_owned().ok()?))
    }

    async fn hold(&self, lane: Arc<Lane>) -> Result<Hold, Fault> {
        let of_lane = permit(lane.threads.clone()).await?;
        Ok((of_lane, permit(self.threads.clone()).await?))
    }
}

impl Default for Lane {
    fn default() -> Lane {
        Lane {
            threads: Arc::new(Semaphore::new(LANE)),
            queue: Mutex::new(LaneQueue {
                slots: VecDeque::new(),
                clean_at: QUEUE,
            }),
        }
    }
}

impl Lane {
    fn push(&self, slot: Slot) {
        let mut queue = self.queue.lock();
        if queue.slots.len() >= queue.clean_at {
            queue.slots.retain(|slot| slot.lock().is_some());
            queue.clean_at = QUEUE.max(2 * queue.slots.len());
        }
        queue.slots.push_back(slot);
    }

    /// The work that has waited for longest.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        std::iter::from_fn(|| queue.slots.pop_front()).find_map(|slot| slot.lock().take())
    }
}

/// Does it on a thread, and then some of what waits in the same lane.
fn spawn(job: Job, lane: Arc<Lane>, hold: Hold) {
    drop(tokio::task::spawn_blocking(move || {
        job();
        for _ in 1..STREAK {
            match lane.next() {
                Some(job) => job(),
                None => break,
            }
        }
        // Here and not where the result is awaited: that future may be gone.
        drop(hold);
    }));
}

fn failed() -> Fault {
    Fault::with(Reason::Internal, "work on a thread has failed")
}

async fn permit(semaphore: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    // Nobody closes them.
    semaphore
        .acquire_owned()
        .await
        .map_err(|_| Reason::Internal.into())
}

/// Work that waits in its lane, unless it is dropped.
struct Waits(Slot);

impl Waits {
    fn new(lane: Arc<Lane>, job: Job) -> Waits {
        let slot = Arc::new(Mutex::new(Some(job)));
        lane.push(slot.clone());
        Waits(slot)
    }

    fn take(&self) -> Option<Job> {
        self.0.lock().take()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.take();
    }
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
