//! What is counted, by each worker for itself and summed by whoever reads.
//!
//! Every counter has one writer, its worker, so counting is a load and a store: no locked
//! instruction, no cache line that two workers write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::exchange::Reason;

/// A number with a single writer.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only ever called by the worker that owns the counter.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes away; only ever called by the worker that owns the counter.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($field:ident $kind:literal $name:literal $help:literal;)*) => {
        /// One worker's counters.
        pub struct Counters {
            $(#[doc = $help] pub $field: Counter,)*
            /// Failures, by the number of their reason.
            pub faults: [Counter; Reason::ALL.len()],
            /// Responses, by hundreds of their status: index 0 is 1xx.
            pub classes: [Counter; 5],
        }

        impl Default for Counters {
            fn default() -> Counters {
                Counters {
                    $($field: Counter::default(),)*
                    faults: std::array::from_fn(|_| Counter::default()),
                    classes: std::array::from_fn(|_| Counter::default()),
                }
            }
        }

        impl Counters {
            /// (kind, name, help, value) of each plain counter.
            pub fn each(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
                vec![$(($kind, $name, $help, self.$field.get()),)*]
            }
        }
    };
}

counters! {
    accepted "counter" "connections_accepted" "Connections accepted.";
    open "gauge" "connections_open" "Connections open now.";
    refused "counter" "connections_refused" "Connections answered 503 or closed because of a limit.";
    proxy_headers_malformed "counter" "proxy_headers_malformed" "Connections closed because their PROXY header was malformed.";
    proxy_headers_late "counter" "proxy_headers_late" "Connections closed because their PROXY header did not come in time.";
    reaped "counter" "connections_reaped" "Idle connections closed to make room.";
    requests "counter" "requests" "Requests begun.";
    received_bytes "counter" "received_bytes" "Bytes read from clients.";
    sent_bytes "counter" "sent_bytes" "Bytes written to clients.";
    aborted "counter" "responses_aborted" "Responses broken off after they had begun.";
    panics "counter" "panics" "Panics contained.";
    slow_turns "counter" "slow_turns" "Turns of a connection that kept the worker for over 20 ms.";
    upstream_connects "counter" "upstream_connects" "Connections opened to peers.";
    upstream_reused "counter" "upstream_reused" "Requests sent on a kept connection to a peer.";
    upstream_retries "counter" "upstream_retries" "Requests tried again on another peer.";
    tunnels "counter" "tunnels" "Tunnels begun, as for WebSocket.";
    tunnels_open "gauge" "tunnels_open" "Tunnels open now.";
    mail_lost "counter" "mail_lost" "Messages to a worker lost because its mailbox was full.";
    fields_dropped "counter" "fields_dropped" "Request fields dropped because of a `_` in the name.";
}

impl Counters {
    /// Counts a failure.
    pub fn fault(&self, reason: Reason) {
        self.faults[reason as usize].add(1);
    }

    /// Counts a response.
    pub fn status(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.classes[class].add(1);
    }
}
