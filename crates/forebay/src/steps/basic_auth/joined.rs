//! One computation for all who want the same at the same time: a browser sends thirty requests at
//! once, each with the password, and each would cost a hash.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::OnceCell;

/// What is being computed, by its number. Never more than there are requests that wait for it.
#[derive(Default)]
pub struct Joined {
    running: Mutex<FxHashMap<[u64; 2], Arc<OnceCell<bool>>>>,
}

/// Somebody's share in a computation.
struct Share<'a> {
    all: &'a Joined,
    key: [u64; 2],
    cell: Option<Arc<OnceCell<bool>>>,
}

impl Joined {
    /// The result of `compute`, which does nothing before it is polled, or of the same one that is
    /// under way. Where the one that computes leaves or fails, the next who waits does it.
    pub async fn run<E>(
        &self,
        key: [u64; 2],
        compute: impl Future<Output = Result<bool, E>>,
    ) -> Result<bool, E> {
        let cell = self.running.lock().entry(key).or_default().clone();
        let share = Share {
            all: self,
            key,
            cell: Some(cell),
        };
        // The share alone holds it, also when this future is dropped, so that the last one can
        // tell that it is the last.
        match &share.cell {
            Some(cell) => cell.get_or_try_init(|| compute).await.copied(),
            None => compute.await,
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut running = self.all.running.lock();
        self.cell = None;
        let is_last = |cell: &Arc<OnceCell<bool>>| Arc::strong_count(cell) == 1;
        if running.get(&self.key).is_some_and(is_last) {
            running.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn equal_ones_are_computed_once() {
        let (joined, count) = (Joined::default(), Cell::new(0));
        let compute = async || {
            count.set(count.get() + 1);
            tokio::task::yield_now().await;
            Ok::<bool, ()>(true)
        };
        let (one, other) = ([1, 2], [1, 3]);
        let three = tokio::join!(
            joined.run(one, compute()),
            joined.run(other, compute()),
            joined.run(one, compute()),
        );
        assert_eq!(three, (Ok(true), Ok(true), Ok(true)));
        assert_eq!(count.get(), 2);
        assert!(joined.running.lock().is_empty());
        // It is no memory.
        assert_eq!(joined.run(one, compute()).await, Ok(true));
        assert_eq!(count.get(), 3);
    }

    #[tokio::test]
    async fn the_next_one_takes_over() {
        let (joined, count) = (Joined::default(), Cell::new(0));
        let key = [1, 2];
        let mut first = Box::pin(joined.run(key, async {
            count.set(count.get() + 1);
            std::future::pending::<Result<bool, ()>>().await
        }));
        let mut second = Box::pin(joined.run(key, async {
            count.set(count.get() + 10);
            Err(())
        }));
        let mut third = Box::pin(joined.run(key, async {
            count.set(count.get() + 100);
            Ok::<bool, ()>(false)
        }));
        poll_fn(|cx| {
            assert!(first.as_mut().poll(cx).is_pending());
            assert!(second.as_mut().poll(cx).is_pending());
            assert!(third.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(count.get(), 1);
        drop(first);
        assert_eq!(second.await, Err(()));
        assert_eq!(third.await, Ok(false));
        assert_eq!(count.get(), 111);
        assert!(joined.running.lock().is_empty());
    }
}
