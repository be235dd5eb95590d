//! A place at a peer, and the queue for one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use forebay_balance::{Ask, NoPeer, Pushed, Tick, Tried};
use tokio::sync::oneshot::{self, error::RecvError};

use super::Upstream;
use crate::exchange::{Fault, Reason};
use crate::wheel::{Deadline, timeout};
use crate::worker::Worker;

/// A place at one peer: one of its `max_connections`, held for an exchange and given back when
/// dropped.
pub struct Seat {
    /// The pool.
    pub upstream: Arc<Upstream>,
    /// The peer's number in it.
    pub peer: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.upstream.pool.release(self.peer) || self.upstream.waiting() > 0 {
            self.upstream.wake_next();
        }
    }
}

/// A turn in the queue: ready when there may be a place. Who leaves when it is theirs already gives it
/// to the next one; else the place would stay empty while others wait for it.
struct Turn<'a> {
    upstream: &'a Upstream,
    woken: oneshot::Receiver<()>,
}

impl Future for Turn<'_> {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.woken).poll(cx)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.woken.close();
        if self.woken.try_recv().is_ok() {
            self.upstream.wake_next();
        }
    }
}

impl Upstream {
    /// A place at a peer, now.
    pub fn seat(self: &Arc<Self>, ask: &Ask) -> Result<Seat, NoPeer> {
        let chosen = self.pool.acquire(ask)?;
        Ok(Seat {
            upstream: self.clone(),
            peer: chosen.peer,
        })
    }

    /// The same; where the request has been to all that could be used, one of them again. With one
    /// peer, or none other in service, that is better than nothing.
    pub fn seat_again(self: &Arc<Self>, ask: &Ask) -> Result<Seat, NoPeer> {
        match self.seat(ask) {
            Err(NoPeer::AllTried) => {
                let mut ask = *ask;
                ask.tried = Tried::default();
                self.seat(&ask)
            }
            seat => seat,
        }
    }

    /// A place at this very peer, for a client that belongs to it.
    pub fn seat_at(self: &Arc<Self>, peer: usize, now: Tick) -> Option<Seat> {
        self.pool.acquire_at(peer, now).then(|| Seat {
            upstream: self.clone(),
            peer,
        })
    }

    /// A place at a peer, as soon as there is one, for as long as `queue_timeout` allows.
    pub async fn seat_in_turn(
        self: &Arc<Self>,
        worker: &Worker,
        deadline: &Deadline,
        priority: u8,
        ask: &Ask,
    ) -> Result<Seat, Fault> {
        let until = worker.now_ms() + millis(self.definition.queue_timeout);
        loop {
            let turn = self.queue(worker, priority)?;
            // Looked at again once in the queue: a place may have been given back in between,
            // when nobody was there to be woken.
            match self.seat_again(ask) {
                Ok(seat) => return Ok(seat),
                Err(NoPeer::Full) => {}
                Err(_) => return Err(Reason::NoPeer.into()),
            }
            let now = worker.now_ms();
            let left = std::time::Duration::from_millis(until.saturating_sub(now));
            match timeout(deadline, now, left, turn).await {
                Ok(Ok(())) => {}
                // Put out of the queue by one of a better priority.
                Ok(Err(_)) => return Err(Reason::PoolFull.into()),
                Err(_) => return Err(Reason::PoolTimeout.into()),
            }
            match self.seat_again(ask) {
                Ok(seat) => return Ok(seat),
                Err(NoPeer::Full) => {}
                Err(_) => return Err(Reason::NoPeer.into()),
            }
        }
    }

    fn queue(&self, worker: &Worker, priority: u8) -> Result<Turn<'_>, Fault> {
        let (wake, woken) = oneshot::channel();
        let now = Tick::from_millis(worker.now_ms());
        let mut waiting = self.waiting.lock();
        // Those who have left are only found here; a full queue of them must refuse nobody.
        while waiting.poll_expired(now).is_some() {}
        let refused = matches!(waiting.push(priority, now, wake), Pushed::Refused(_));
        self.waiting_count.store(waiting.len(), Ordering::SeqCst);
        if refused {
            Err(Reason::PoolFull.into())
        } else {
            let upstream = self;
            Ok(Turn { upstream, woken })
        }
    }

    /// Wakes as many as there is room for at a peer that is back.
    pub fn wake_some(&self, peer: usize) {
        let room = self.definition.pool.peers[peer].max_connections;
        for _ in 0..room {
            if self.waiting() == 0 {
                break;
            }
            self.wake_next();
        }
    }

    /// Wakes the one whose turn it is; one that has given up is passed over.
    fn wake_next(&self) {
        if self.waiting_count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock();
        while let Some(wake) = waiting.poll_next() {
            if wake.send(()).is_ok() {
                break;
            }
        }
        self.waiting_count.store(waiting.len(), Ordering::SeqCst);
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::Bench;

    #[test]
    fn a_process_of_its_own_has_one_connection() {
        let bench = Bench::new(
            r#"local own = processes "own" { "php-cgi", protocol = "fastcgi" }
               local more = processes "more" { "app", protocol = "fastcgi", max_connections = 2 }
               site { "*", route "/own" { fastcgi(own) }, route "/more" { fastcgi(more) },
                 fastcgi "unix:/run/php.sock" }"#,
        );
        for pool in &bench.built.snapshot.upstreams {
            let is_one = &*pool.definition.name == "own";
            let mut peers = pool.peers.iter();
            assert!(peers.all(|peer| peer.lines.is_tight(0) == is_one));
        }
    }

    #[test]
    fn who_leaves_when_it_is_their_turn_gives_it_on() {
        let bench = Bench::new(
            r#"local pool = upstream "pool" { "127.0.0.1:1", max_connections = 1 }
               site { "*", proxy(pool) }"#,
        );
        let pool = bench.built.snapshot.upstreams[0].clone();
        let mut turns: Vec<_> = (0..3)
            .filter_map(|_| pool.queue(&bench.worker, 5).ok())
            .collect();
        assert_eq!(turns.len(), 3);
        pool.wake_next();
        drop(turns.remove(0));
        assert!(turns[0].woken.try_recv().is_ok(), "the second");
        assert!(turns[1].woken.try_recv().is_err(), "nobody else");
        // One whose turn it is not yet takes nothing with them, and one who had theirs neither.
        drop(turns.remove(1));
        drop(turns.remove(0));
        assert_eq!(pool.waiting(), 1, "who has left is passed over later");
        pool.wake_next();
        assert_eq!(pool.waiting(), 0);
    }
}
