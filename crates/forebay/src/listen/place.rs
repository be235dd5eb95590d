//! An accepted connection: its place, and who serves it.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use crate::exchange::guard;
use crate::protocol::{fastcgi, h1};
use crate::snapshot::Protocol;
use crate::worker::Worker;

/// A connection's place among those that the process may have; given back when its task ends,
/// however it ends.
pub(super) struct Place(Rc<Worker>);

impl Place {
    /// Takes one more, and tells how many are taken then.
    pub(super) fn take(worker: &Rc<Worker>) -> (Self, usize) {
        let open = worker.process.connections.fetch_add(1, Relaxed) + 1;
        worker.counters.open.add(1);
        (Self(worker.clone()), open)
    }
}

impl AsRef<Worker> for Place {
    fn as_ref(&self) -> &Worker {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.process.connections.fetch_sub(1, Relaxed);
        self.0.counters.open.sub(1);
    }
}

/// Serves a connection of which nothing has been read yet but what is not HTTP; or closes it, if its
/// client has too many.
pub(super) fn serve(link: Rc<h1::Link>, place: Place) {
    if !link.enter_clients() {
        link.worker.counters.clients_refused.add(1);
        return;
    }
    match link.listener.with_served(|served| served.protocol) {
        Protocol::Http => tokio::task::spawn_local(guard::Task::new(place, h1::serve(link))),
        Protocol::Fastcgi => {
            tokio::task::spawn_local(guard::Task::new(place, fastcgi::serve(link)))
        }
    };
}
