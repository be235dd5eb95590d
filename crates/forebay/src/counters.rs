//! What is counted, by each worker for itself and summed by whoever reads.
//!
//! Every counter has one writer, its worker, so counting is a load and a store: no locked
//! instruction, no cache line that two workers write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::exchange::{Cached, How, Reason, Why};
use crate::worker::Worker;

/// More kinds of steps than there are; those beyond would not be counted.
pub const STEP_KINDS: usize = 64;

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
            /// How long steps have kept exchanges waiting, by the numbers of their kinds.
            steps: [OnceLock<Box<Histogram>>; STEP_KINDS],
        }

        impl Default for Counters {
            fn default() -> Counters {
                Counters {
                    $($field: Counter::default(),)*
                    faults: std::array::from_fn(|_| Counter::default()),
                    classes: std::array::from_fn(|_| Counter::default()),
                    steps: std::array::from_fn(|_| OnceLock::new()),
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
    idle "gauge" "connections_idle" "Open connections that wait for a request.";
    exchanges "gauge" "exchanges" "Requests under way.";
    refused "counter" "connections_refused" "Connections answered 503 or closed because of a limit.";
    proxy_headers_malformed "counter" "proxy_headers_malformed" "Connections closed because their PROXY header was malformed.";
    proxy_headers_late "counter" "proxy_headers_late" "Connections closed because their PROXY header did not come in time.";
    clients_refused "counter" "clients_refused" "Connections closed because their client had too many.";
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

    /// Counts a time for which a step of this kind has kept an exchange waiting.
    pub fn step_waited(&self, kind: u8, us: u64) {
        if let Some(step) = self.steps.get(usize::from(kind)) {
            step.get_or_init(Box::default).note(us);
        }
    }

    /// The times of steps of this kind, if there are any.
    pub fn waits_of(&self, kind: usize) -> Option<&Histogram> {
        Some(self.steps.get(kind)?.get()?)
    }

    /// Counts a response.
    pub fn status(&self, status: u16) {
        self.classes[class_of(status)].add(1);
    }
}

/// The place of a status among the classes.
fn class_of(status: u16) -> usize {
    usize::from(status / 100).clamp(1, 5) - 1
}

/// How often which durations have occurred.
///
/// Log-linear, as HDR histograms are: each doubling is cut into four, so that a quantile is known
/// to within a quarter of itself, from 64 µs to 67 s.
pub struct Histogram {
    buckets: [Counter; Histogram::BUCKETS],
    sum_us: Counter,
}

impl Histogram {
    /// The first doubling begins at 2^6 µs; everything below is in one bucket.
    const FIRST: u32 = 6;
    /// The last one ends here, at 2^26 µs; everything above is in one bucket.
    const LAST: u32 = 26;
    const BUCKETS: usize = 2 + 4 * (Histogram::LAST - Histogram::FIRST) as usize;

    /// Counts one.
    pub fn note(&self, us: u64) {
        self.buckets[Histogram::bucket_of(us)].add(1);
        self.sum_us.add(us);
    }

    fn bucket_of(us: u64) -> usize {
        let doubling = us.checked_ilog2().unwrap_or(0);
        if doubling < Histogram::FIRST {
            return 0;
        }
        if doubling >= Histogram::LAST {
            return Histogram::BUCKETS - 1;
        }
        let quarter = (us >> (doubling - 2)) & 3;
        1 + 4 * (doubling - Histogram::FIRST) as usize + usize::try_from(quarter).unwrap_or(0)
    }

    /// The microseconds that this bucket ends before; none: it is the last one.
    fn end_of(bucket: usize) -> Option<u64> {
        if bucket + 1 == Histogram::BUCKETS {
            return None;
        }
        let Some(place) = bucket.checked_sub(1) else {
            return Some(1 << Histogram::FIRST);
        };
        // The bucket's place fits: there are 80.
        let doubling = Histogram::FIRST + u32::try_from(place / 4).unwrap_or(0);
        Some((place as u64 % 4 + 5) << (doubling - 2))
    }

    /// What several have counted together: the end of each bucket in microseconds with how many
    /// were below it, and the sum in microseconds. The last one has no end and counts them all.
    pub fn total<'a>(
        all: impl Iterator<Item = &'a Histogram> + Clone,
    ) -> (Vec<(Option<u64>, u64)>, u64) {
        let mut count = 0;
        let buckets = (0..Histogram::BUCKETS).map(|bucket| {
            count += all
                .clone()
                .map(|one| one.buckets[bucket].get())
                .sum::<u64>();
            (Histogram::end_of(bucket), count)
        });
        (
            buckets.collect(),
            all.clone().map(|one| one.sum_us.get()).sum(),
        )
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_us: Counter::default(),
        }
    }
}

/// What is counted of a listener. Carried over reloads, as the listener is.
pub struct ListenerCounts {
    /// Its address, as it was written.
    pub name: Box<str>,
    /// How long exchanges took, by worker.
    durations: OnceLock<Box<[Arc<Histogram>]>>,
}

impl ListenerCounts {
    /// Nothing counted yet.
    pub fn new(name: String) -> ListenerCounts {
        ListenerCounts {
            name: name.into(),
            durations: OnceLock::new(),
        }
    }

    /// This worker's share.
    pub fn of_worker(&self, worker: &Worker) -> Arc<Histogram> {
        let all = self.durations.get_or_init(|| {
            let count = worker.process.workers.load(Relaxed).max(worker.index + 1);
            std::iter::repeat_with(Arc::default).take(count).collect()
        });
        all.get(worker.index).cloned().unwrap_or_default()
    }

    /// How long exchanges took.
    pub fn durations(&self) -> impl Iterator<Item = &Histogram> + Clone {
        let all = self.durations.get().map_or(&[][..], |all| all);
        all.iter().map(|one| &**one)
    }
}

/// What is counted of the sites of one name. Carried over reloads: counters never jump back.
pub struct SiteCounts {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// A row for each worker, made at the site's first request: of ten thousand sites most wait.
    rows: OnceLock<Box<[SiteRow]>>,
    /// The same of its caches, made at the first request that comes to one.
    cached: OnceLock<Box<[CacheRow]>>,
}

/// One worker's share, in a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct SiteRow {
    classes: [Counter; 5],
    bytes: Counter,
}

/// One worker's share of what a site's caches do.
#[repr(align(64))]
struct CacheRow {
    hows: [Counter; How::ALL.len()],
    whys: [Counter; Why::COUNT],
    store_bytes: Counter,
    origin_bytes: Counter,
}

impl Default for CacheRow {
    fn default() -> CacheRow {
        CacheRow {
            hows: Default::default(),
            whys: std::array::from_fn(|_| Counter::default()),
            store_bytes: Counter::default(),
            origin_bytes: Counter::default(),
        }
    }
}

/// What the caches of a site have done.
pub struct CacheTotal {
    /// Requests, by the number of [`How`].
    pub hows: [u64; How::ALL.len()],
    /// Requests, by the number of [`Why`].
    pub whys: [u64; Why::COUNT],
    /// Bytes of bodies that clients got and no origin had to send for them.
    pub store_bytes: u64,
    /// Bytes of bodies that origins have sent.
    pub origin_bytes: u64,
}

/// A row for each worker.
fn rows<T: Default>(worker: &Worker) -> Box<[T]> {
    let count = worker.process.workers.load(Relaxed).max(worker.index + 1);
    std::iter::repeat_with(T::default).take(count).collect()
}

impl SiteCounts {
    /// Nothing counted yet.
    pub fn new(name: Arc<str>) -> SiteCounts {
        SiteCounts {
            name,
            rows: OnceLock::new(),
            cached: OnceLock::new(),
        }
    }

    /// Counts what a cache has made of an exchange that is over.
    pub fn note_cached(&self, worker: &Worker, cached: Cached, bytes: u64) {
        let all = self.cached.get_or_init(|| rows(worker));
        let Some(row) = all.get(worker.index) else {
            return;
        };
        row.hows[cached.how as usize].add(1);
        if cached.why != Why::Usual {
            row.whys[cached.why.number()].add(1);
        }
        match cached.how {
            how if how.is_from_store() => row.store_bytes.add(bytes),
            // Counted as it comes in, by `note_fetched`.
            How::Miss => {}
            How::Pass if cached.why == Why::Live => {}
            _ => row.origin_bytes.add(bytes),
        }
    }

    /// Counts what an origin has sent to be stored or shared.
    pub fn note_fetched(&self, worker: &Worker, bytes: u64) {
        let all = self.cached.get_or_init(|| rows(worker));
        if let Some(row) = all.get(worker.index) {
            row.origin_bytes.add(bytes);
        }
    }

    /// What its caches have done; none if no request has come to one.
    pub fn cached(&self) -> Option<CacheTotal> {
        let all = self.cached.get()?;
        let sum = |of: &dyn Fn(&CacheRow) -> u64| all.iter().map(of).sum::<u64>();
        Some(CacheTotal {
            hows: std::array::from_fn(|how| sum(&|row| row.hows[how].get())),
            whys: std::array::from_fn(|why| sum(&|row| row.whys[why].get())),
            store_bytes: sum(&|row| row.store_bytes.get()),
            origin_bytes: sum(&|row| row.origin_bytes.get()),
        })
    }

    /// Counts an exchange that is over.
    pub fn note(&self, worker: &Worker, status: u16, bytes: u64) {
        let rows = self.rows.get_or_init(|| rows(worker));
        if let Some(row) = rows.get(worker.index) {
            // One that was cut before it had a response has none.
            if status != 0 {
                row.classes[class_of(status)].add(1);
            }
            row.bytes.add(bytes);
        }
    }

    /// Counts what has passed through a tunnel.
    pub fn note_bytes(&self, worker: &Worker, bytes: u64) {
        // Its own response is counted, of no class.
        self.note(worker, 0, bytes);
    }

    /// Responses by hundreds of their status, and bytes of bodies; none if it has had no request.
    pub fn total(&self) -> Option<([u64; 5], u64)> {
        let rows = self.rows.get()?;
        let class = |class: usize| rows.iter().map(|row| row.classes[class].get()).sum();
        let bytes = rows.iter().map(|row| row.bytes.get()).sum();
        Some((std::array::from_fn(class), bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_bucket_that_ends_behind_it() {
        let mut last = 0;
        for bucket in 0..Histogram::BUCKETS {
            let Some(end) = Histogram::end_of(bucket) else {
                assert_eq!((bucket, last), (Histogram::BUCKETS - 1, 1 << 26));
                continue;
            };
            assert!(end > last, "{bucket}: {end} after {last}");
            for us in [last, last.midpoint(end), end - 1] {
                assert_eq!(Histogram::bucket_of(us), bucket, "{us}");
            }
            // A quarter of a doubling.
            assert!(bucket == 0 || (end - last) * 4 <= end, "{last}..{end}");
            last = end;
        }
        for us in [1 << 26, u64::MAX] {
            assert_eq!(Histogram::bucket_of(us), Histogram::BUCKETS - 1);
        }
    }

    #[test]
    fn histograms_add_up() {
        let (a, b) = (Histogram::default(), Histogram::default());
        for us in [0, 63, 100] {
            a.note(us);
        }
        b.note(80_000_000);
        let (buckets, sum_us) = Histogram::total([&a, &b].into_iter());
        assert_eq!(sum_us, 80_000_163);
        assert_eq!(buckets.first(), Some(&(Some(64), 2)));
        assert_eq!(buckets[Histogram::BUCKETS - 2], (Some(1 << 26), 3));
        assert_eq!(buckets.last(), Some(&(None, 4)));
    }
}
