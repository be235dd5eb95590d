//! A worker's connections to peers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::lines::ask_for_room;
use super::{Protocol, Upstream};
use crate::transport::Transport;
use crate::wheel::Deadline;
use crate::worker::Worker;

/// A connection to a peer, between two exchanges or in one. It holds no buffer of its own.
pub struct PeerConn {
    /// The socket.
    pub io: Transport,
    /// Its one time, for whatever is waited for.
    pub deadline: Deadline,
    /// Exchanges it has carried.
    pub used: u32,
}

/// A connection, and since when it has been kept.
type Kept = (u64, PeerConn);

/// The local half of an upstream: kept connections, by peer, the one used last on top: so that the
/// others come of age and close.
pub struct Idle {
    upstream: Arc<Upstream>,
    peers: Box<[RefCell<Vec<Kept>>]>,
    /// A task looks after connections that come of age.
    swept: Cell<bool>,
}

impl Idle {
    /// This worker's half of `upstream`.
    pub fn of(worker: &Worker, upstream: &Arc<Upstream>) -> Rc<Idle> {
        worker.local_in_service(upstream.id, || Idle {
            upstream: upstream.clone(),
            peers: upstream.peers.iter().map(|_| RefCell::default()).collect(),
            swept: Cell::new(false),
        })
    }

    /// A kept connection to this peer that nothing has been heard from: who has news has either
    /// ended or says something nobody asked for, and is dropped. No system call. Over TLS, one to
    /// who has proved to have this name.
    ///
    /// `repeatable`: the request may be sent again. A FastCGI application that ends a process after so
    /// many requests says nothing of it: it closes the connection right behind its last answer, and
    /// throws away what has come by then. A request that must not be sent twice is not given to one
    /// that may be about to.
    pub fn take(
        &self,
        worker: &Worker,
        peer: usize,
        tls_name: Option<&str>,
        repeatable: bool,
    ) -> Option<PeerConn> {
        let mut kept = self.peers[peer].borrow_mut();
        if kept.is_empty() {
            return None;
        }
        let taken = if self.is_fastcgi() && !repeatable {
            take_rested(&mut kept, worker.now_ms())
        } else {
            take_from(&mut kept, tls_name)
        };
        if self.is_fastcgi() && kept.is_empty() {
            self.upstream.peers[peer]
                .lines
                .set_kept_by(worker.index, false);
        }
        taken
    }

    /// Before a new connection to this peer: room for it, if its application has few processes.
    pub fn before_new(&self, worker: &Worker, peer: usize) {
        let lines = &self.upstream.peers[peer].lines;
        if self.is_fastcgi() && lines.is_tight(worker.turn_ms()) {
            self.make_room(worker, peer);
        }
    }

    /// A new connection to this peer is not answered: it may wait for a process that only keeps another.
    pub fn after_waiting(&self, worker: &Worker, peer: usize) {
        self.upstream.peers[peer].lines.tighten(worker.now_ms());
        self.make_room(worker, peer);
    }

    /// Has a connection that is kept to this peer closed, by this worker or else by another one
    /// (see `lines.rs`).
    fn make_room(&self, worker: &Worker, peer: usize) {
        if !self.close_one(worker, peer) {
            self.ask_for_room(worker, peer, worker.process.workers());
        }
    }

    /// The same on behalf of another worker, which has asked; so many are still to be asked.
    pub fn make_room_for_other(&self, worker: &Worker, peer: usize, left: usize) {
        if peer < self.peers.len() && !self.close_one(worker, peer) {
            self.ask_for_room(worker, peer, left);
        }
    }

    fn ask_for_room(&self, worker: &Worker, peer: usize, left: usize) {
        ask_for_room(&self.upstream, peer, &worker.process, worker.index, left);
    }

    /// Closes the connection that has been kept for longest; false if there is none.
    fn close_one(&self, worker: &Worker, peer: usize) -> bool {
        let mut kept = self.peers[peer].borrow_mut();
        if kept.is_empty() {
            return false;
        }
        // The process of one that is closed already is not held by it.
        kept.retain_mut(|(_, conn)| !conn.io.has_news());
        let closes = !kept.is_empty();
        if closes {
            kept.remove(0);
        }
        if kept.is_empty() {
            self.upstream.peers[peer]
                .lines
                .set_kept_by(worker.index, false);
        }
        closes
    }

    fn is_fastcgi(&self) -> bool {
        self.upstream.definition.protocol == Protocol::FastCgi
    }

    /// Keeps a connection whose exchange is over.
    pub fn keep(self: &Rc<Self>, worker: &Rc<Worker>, peer: usize, conn: PeerConn) {
        let definition = &self.upstream.definition;
        if !self.upstream.keeps_connections() || worker.draining.get() {
            return;
        }
        let lines = &self.upstream.peers[peer].lines;
        if self.is_fastcgi() && lines.is_waited_for(worker.turn_ms()) {
            return;
        }
        let mut kept = self.peers[peer].borrow_mut();
        if kept.len() >= definition.idle_connections {
            return;
        }
        kept.push((worker.turn_ms(), conn));
        if self.is_fastcgi() && kept.len() == 1 {
            lines.set_kept_by(worker.index, true);
        }
        if !self.swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), worker.clone()));
        }
    }

    /// Drops what has been kept for too long, and what its peer has closed. True if any is left.
    fn drop_old(&self, worker: &Worker) -> bool {
        let max_ms = u64::try_from(self.upstream.definition.idle_timeout.as_millis());
        let oldest = worker.now_ms().saturating_sub(max_ms.unwrap_or(u64::MAX));
        let mut any = false;
        for (number, peer) in self.peers.iter().enumerate() {
            let mut kept = peer.borrow_mut();
            let had = !kept.is_empty();
            kept.retain_mut(|(since, conn)| *since > oldest && !conn.io.has_news());
            any |= !kept.is_empty();
            if had && kept.is_empty() && self.is_fastcgi() {
                let lines = &self.upstream.peers[number].lines;
                lines.set_kept_by(worker.index, false);
            }
        }
        any
    }
}

/// A connection that its peer has not closed for so long it will not close because of the answer
/// that it was kept after.
const RESTED_MS: u64 = 50;

/// The one that has rested for longest, if it is long enough.
fn take_rested(kept: &mut Vec<Kept>, now_ms: u64) -> Option<PeerConn> {
    kept.retain_mut(|(_, conn)| !conn.io.has_news());
    let (since, _) = kept.first()?;
    (now_ms.saturating_sub(*since) >= RESTED_MS).then(|| kept.remove(0).1)
}

/// The one used last that is of use; those that are not are dropped.
fn take_from(kept: &mut Vec<Kept>, tls_name: Option<&str>) -> Option<PeerConn> {
    loop {
        let (_, mut conn) = match tls_name {
            None => kept.pop()?,
            Some(_) => {
                let is_it = |(_, conn): &Kept| conn.io.tls_name() == tls_name;
                let at = kept.iter().rposition(is_it)?;
                kept.remove(at)
            }
        };
        if !conn.io.has_news() {
            return Some(conn);
        }
    }
}

/// Closes connections that come of age, for as long as there are any. The pool's other owners gone,
/// it ends: a reload has taken the upstream away.
async fn sweep(idle: std::rc::Weak<Idle>, worker: Rc<Worker>) {
    loop {
        let Some(pause) = idle.upgrade().map(|idle| pause(&idle)) else {
            return;
        };
        worker.wheel.sleep(pause).await;
        let Some(idle) = idle.upgrade() else { return };
        if !idle.drop_old(&worker) {
            idle.swept.set(false);
            return;
        }
    }
}

fn pause(idle: &Idle) -> Duration {
    let timeout = idle.upstream.definition.idle_timeout;
    (timeout / 4).clamp(Duration::from_millis(250), Duration::from_secs(15))
}
