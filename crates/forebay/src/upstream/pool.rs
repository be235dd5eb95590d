//! A worker's connections to peers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Upstream;
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
        worker.local(upstream.id, || Idle {
            upstream: upstream.clone(),
            peers: upstream.peers.iter().map(|_| RefCell::default()).collect(),
            swept: Cell::new(false),
        })
    }

    /// A kept connection to this peer that nothing has been heard from: who has news has either
    /// ended or says something nobody asked for, and is dropped. No system call. Over TLS, one to
    /// who has proved to have this name.
    pub fn take(&self, peer: usize, tls_name: Option<&str>) -> Option<PeerConn> {
        let mut kept = self.peers[peer].borrow_mut();
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

    /// Keeps a connection whose exchange is over.
    pub fn keep(self: &Rc<Self>, worker: &Rc<Worker>, peer: usize, conn: PeerConn) {
        let definition = &self.upstream.definition;
        // One that began with a PROXY header speaks for one client only.
        let one_client = definition.send_proxy.is_some();
        if one_client || definition.idle_timeout.is_zero() || worker.draining.get() {
            return;
        }
        let mut kept = self.peers[peer].borrow_mut();
        if kept.len() >= definition.idle_connections {
            return;
        }
        kept.push((worker.turn_ms(), conn));
        if !self.swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), worker.clone()));
        }
    }

    /// Drops what has been kept for too long, and what its peer has closed. True if any is left.
    fn drop_old(&self, now_ms: u64) -> bool {
        let max_ms = u64::try_from(self.upstream.definition.idle_timeout.as_millis());
        let oldest = now_ms.saturating_sub(max_ms.unwrap_or(u64::MAX));
        let mut any = false;
        for peer in &self.peers {
            let mut kept = peer.borrow_mut();
            kept.retain_mut(|(since, conn)| *since > oldest && !conn.io.has_news());
            any |= !kept.is_empty();
        }
        any
    }
}

/// Closes connections that come of age, for as long as there are any. The pool's other owners gone,
/// it ends: a reload has taken the upstream away.
async fn sweep(idle: std::rc::Weak<Idle>, worker: Rc<Worker>) {
    loop {
        let Some(pause) = idle.upgrade().map(|idle| pause(&idle)) else {
            return;
        };
        tokio::time::sleep(pause).await;
        let Some(idle) = idle.upgrade() else { return };
        if !idle.drop_old(worker.now_ms()) {
            idle.swept.set(false);
            return;
        }
    }
}

fn pause(idle: &Idle) -> Duration {
    let timeout = idle.upstream.definition.idle_timeout;
    (timeout / 4).clamp(Duration::from_millis(250), Duration::from_secs(15))
}
