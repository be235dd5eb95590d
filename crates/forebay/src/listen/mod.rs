//! Listeners: where connections come from.
//!
//! Every worker has a TCP socket of its own for each address (`SO_REUSEPORT`): the kernel deals
//! new connections out and no worker waits for another. Unix sockets cannot be had so: there one
//! worker accepts and deals ([`deal`]). A listener whose address stays keeps its
//! sockets over a reload; one that goes first stops taking new connections, then is accepted dry,
//! then closes, so that no client that had connected sees a reset.

mod accept;
mod clients;
mod deal;
mod place;
mod proxy_protocol;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::counters::Histogram;
use crate::snapshot::Served;
use crate::worker::Worker;

pub use accept::{REAP, accept_all};
pub use clients::{Client, Clients};
pub use deal::{Dealt, Shared, deal_all, receive};

/// An address's number in this process: the same address keeps it over reloads.
pub type ListenerId = u64;

/// How long a client may take for what. Nothing that moves is cut for its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// For the whole head.
    pub header: Duration,
    /// Between two reads of a body.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Between two writes.
    pub write: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
        }
    }
}

/// How a worker comes by the connections of a listener.
pub enum Door {
    /// From a socket of its own.
    Own(std::net::TcpListener),
    /// It accepts on these for all workers, and deals.
    Dealer(Vec<Shared>),
    /// Another worker deals.
    Dealt,
}

/// A worker's half of a listener.
pub struct Listener {
    /// Its number.
    pub id: ListenerId,
    /// How long this worker's exchanges of it took.
    pub durations: Arc<Histogram>,
    served: RefCell<Arc<Served>>,
    gone: Cell<bool>,
    going: Notify,
}

impl Listener {
    /// A listener that serves this.
    pub fn new(id: ListenerId, served: Arc<Served>, worker: &Worker) -> Rc<Listener> {
        Rc::new(Listener {
            id,
            durations: served.counts.of_worker(worker),
            served: RefCell::new(served),
            gone: Cell::new(false),
            going: Notify::new(),
        })
    }

    /// Works with what requests that come in here are answered from.
    pub fn with_served<R>(&self, work: impl FnOnce(&Served) -> R) -> R {
        work(&self.served.borrow())
    }

    /// What requests that come in here are answered from.
    pub fn served(&self) -> Arc<Served> {
        self.served.borrow().clone()
    }

    /// Answers from something else from now on.
    pub fn serve(&self, served: Arc<Served>) {
        *self.served.borrow_mut() = served;
    }

    /// The times for its clients.
    pub fn times(&self) -> Times {
        self.served.borrow().times
    }

    /// Ends the accepting; what has been accepted is finished.
    pub fn close(&self) {
        self.gone.set(true);
        self.going.notify_waiters();
    }

    /// True once it has been closed: its connections end after their exchange.
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    async fn closed(&self) {
        let going = self.going.notified();
        if !self.gone.get() {
            going.await;
        }
    }
}
