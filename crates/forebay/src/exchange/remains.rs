//! What is left of an exchange that has become a tunnel.
//!
//! The exchange itself is over with the 101: it is counted, and its memory is used again. What
//! steps hold until its end, as a place of `limit`, is held until the end of the tunnel, and its
//! line in the access log is written then, with what the tunnel has come to.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use super::{Exchange, Outcome, Reason};
use crate::access;
use crate::counters::SiteCounts;
use crate::worker::Worker;

/// See the module. Dropped at the tunnel's end, however it ends.
pub struct Remains {
    /// How many bytes the client was sent through the tunnel.
    pub bytes: u64,
    /// Why it was broken off, if it was.
    pub fault: Option<Reason>,
    worker: Rc<Worker>,
    #[expect(dead_code, reason = "held, not looked at")]
    kept: Vec<(u64, Box<dyn Any>)>,
    counts: Option<Arc<SiteCounts>>,
    /// Only where there is a line to write: it takes about as much memory as the rest of a tunnel.
    logged: Option<Box<Exchange>>,
}

impl Exchange {
    /// Takes out what outlives it.
    pub fn leave_remains(&mut self) -> Remains {
        self.release_site();
        Remains {
            bytes: 0,
            fault: None,
            worker: self.worker.clone(),
            kept: std::mem::take(&mut self.kept),
            counts: self.counts.clone(),
            logged: (!self.logs.is_empty()).then(|| self.take_for_log()),
        }
    }

    /// What a line may say of it, in as little room as it needs.
    fn take_for_log(&mut self) -> Box<Exchange> {
        let mut logged = Box::new(Exchange::blank(&self.worker, self.remote));
        logged.request = std::mem::take(&mut self.request).compact();
        logged.captures = std::mem::take(&mut self.captures);
        logged.vars = std::mem::take(&mut self.vars);
        logged.logs = std::mem::take(&mut self.logs);
        logged.peer = self.peer.take();
        logged.counts = self.counts.clone();
        logged.outcome = self.outcome;
        logged.id = self.id;
        logged.started_ms = self.started_ms;
        logged.waits_since_ns = self.waits_since_ns;
        logged.protocol = self.protocol;
        logged
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if let Some(counts) = &self.counts {
            counts.note_bytes(&self.worker, self.bytes);
        }
        if let Some(logged) = &mut self.logged {
            logged.outcome = Outcome {
                bytes: self.bytes,
                fault: self.fault,
                ..logged.outcome
            };
            access::write_lines(logged);
        }
    }
}
