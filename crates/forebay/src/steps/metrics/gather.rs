//! What the server has counted, from all workers.
//!
//! Workers go on counting while they are read, so numbers that belong together may differ by what
//! came in between; none of them ever goes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use forebay_balance::{PeerState, Tick};
use forebay_store::{LiveUsage, Usage, disk};
use forebay_sys::{clock, process};

use super::text::{Dialect, Family, Kind, Seconds, Text};
use crate::counters::{Counters, Histogram};
use crate::exchange::{How, Reason, Why};
use crate::snapshot::Snapshot;
use crate::steps;
use crate::upstream::state_name;
use crate::upstream::tally::{Gone, Sums};
use crate::worker::Process;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// All metrics as text.
pub fn render(process: &Process, snapshot: &Snapshot, dialect: Dialect) -> String {
    let mut text = Text::new(dialect);
    let all: Vec<Arc<Counters>> = process.all.lock().clone();
    server(&mut text, snapshot, all.len());
    counters(&mut text, &all);
    durations(&mut text, snapshot);
    text.single(
        Kind::Gauge,
        "forebay_connections_max",
        "Connections that may be open.",
        process.max_connections.load(Relaxed),
    );
    lost_lines(&mut text, process);
    sites(&mut text, snapshot);
    caches(&mut text, snapshot);
    stores(&mut text, snapshot);
    live(&mut text, snapshot);
    upstreams(&mut text, snapshot);
    system(&mut text);
    text.finish()
}

fn server(text: &mut Text, snapshot: &Snapshot, workers: usize) {
    text.family(Kind::Gauge, "forebay_build_info", "The version that runs.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.single(
        Kind::Gauge,
        "forebay_config_generation",
        "Configurations put into service so far.",
        snapshot.generation.number,
    );
    text.single(
        Kind::Gauge,
        "forebay_workers",
        "Workers that serve.",
        workers,
    );
}

fn counters(text: &mut Text, all: &[Arc<Counters>]) {
    let sum = |pick: &dyn Fn(&Counters) -> u64| -> u64 {
        all.iter()
            .fold(0, |sum, counters| sum.wrapping_add(pick(counters)))
    };
    let each: Vec<_> = all.iter().map(|counters| counters.each()).collect();
    for (at, (kind, name, help, _)) in each.first().into_iter().flatten().enumerate() {
        let values = each.iter().filter_map(|counters| counters.get(at));
        let value = values.fold(0_u64, |sum, counter| sum.wrapping_add(counter.3));
        let kind = match *kind {
            "counter" => Kind::Counter,
            _ => Kind::Gauge,
        };
        text.single(kind, &format!("forebay_{name}"), help, value);
    }
    let mut family = text.family(
        Kind::Counter,
        "forebay_responses",
        "Responses, by the hundreds of their status.",
    );
    for (at, class) in CLASSES.iter().enumerate() {
        family.sample(
            &[("class", class)],
            sum(&|counters| counters.classes[at].get()),
        );
    }
    let mut family = text.family(
        Kind::Counter,
        "forebay_faults",
        "Failures, by reason and whose fault it was.",
    );
    for (at, reason) in Reason::ALL.iter().enumerate() {
        let labels = [("reason", reason.name()), ("by", reason.by().name())];
        family.sample(&labels, sum(&|counters| counters.faults[at].get()));
    }
    waits(text, all);
}

/// Of listeners that had a request.
fn durations(text: &mut Text, snapshot: &Snapshot) {
    let mut listeners: Vec<_> = snapshot.served.values().map(|one| &one.counts).collect();
    listeners.sort_unstable_by_key(|counts| &counts.name);
    let mut family = text.family(
        Kind::Histogram,
        "forebay_request_duration_seconds",
        "From a request's head to the end of its response, by listener. One that is answered at \
         once, in the turn in which it came, is in the first bucket.",
    );
    for counts in listeners {
        histogram(&mut family, ("listener", &counts.name), counts.durations());
    }
}

/// Of kinds of steps that have waited.
fn waits(text: &mut Text, all: &[Arc<Counters>]) {
    let mut family = text.family(
        Kind::Histogram,
        "forebay_step_wait_seconds",
        "For how long a step has kept requests waiting, by the step's name: for a peer's answer, a \
         disk, a password's hash. What a step does at once is not counted.",
    );
    for (kind, name) in steps::kinds().enumerate() {
        let of_kind = all.iter().filter_map(|counters| counters.waits_of(kind));
        histogram(&mut family, ("step", name), of_kind);
    }
}

/// The sum of these, if anything is counted in them.
fn histogram<'a>(
    family: &mut Family<'_>,
    label: (&str, &str),
    all: impl Iterator<Item = &'a Histogram> + Clone,
) {
    let (buckets, sum_us) = Histogram::total(all);
    let total = buckets.last().map_or(0, |(_, count)| *count);
    if total == 0 {
        return;
    }
    for (end_us, count) in buckets {
        let end = end_us.map_or("+Inf".to_owned(), |us| Seconds(us).to_string());
        family.sample_of("_bucket", &[label, ("le", &end)], count);
    }
    family.sample_of("_sum", &[label], Seconds(sum_us));
    family.sample_of("_count", &[label], total);
}

fn lost_lines(text: &mut Text, process: &Process) {
    text.single(
        Kind::Counter,
        "forebay_error_log_dropped_lines",
        "Lines of the error log dropped because nobody reads standard error fast enough.",
        crate::log::dropped(),
    );
    text.single(
        Kind::Counter,
        "forebay_access_log_dropped_lines",
        "Lines of access logs dropped because they were written too slowly.",
        process.access.dropped_lines.load(Relaxed),
    );
    text.single(
        Kind::Counter,
        "forebay_access_log_failed_lines",
        "Lines of access logs that could not be written.",
        process.access.failed_lines.load(Relaxed),
    );
}

/// Those that have had a request: of thousands of sites most are silent.
fn sites(text: &mut Text, snapshot: &Snapshot) {
    let seen = snapshot.sites.iter();
    let mut seen: Vec<_> = seen
        .filter_map(|site| Some((&*site.name, site.total()?)))
        .collect();
    seen.sort_unstable_by_key(|(name, _)| *name);
    let mut family = text.family(
        Kind::Counter,
        "forebay_site_requests",
        "Requests of a site, by the hundreds of the status that they were answered with.",
    );
    for (name, (classes, _)) in &seen {
        for (class, count) in CLASSES.iter().zip(classes) {
            family.sample(&[("site", name), ("class", class)], count);
        }
    }
    let mut family = text.family(
        Kind::Counter,
        "forebay_site_body_bytes",
        "Bytes of the bodies of a site's responses.",
    );
    for (name, (_, bytes)) in &seen {
        family.sample(&[("site", name)], bytes);
    }
}

/// Of sites whose caches had a request.
fn caches(text: &mut Text, snapshot: &Snapshot) {
    let seen = snapshot.sites.iter();
    let mut seen: Vec<_> = seen
        .filter_map(|site| Some((&*site.name, site.cached()?)))
        .collect();
    if seen.is_empty() {
        return;
    }
    seen.sort_unstable_by_key(|(name, _)| *name);
    let mut family = text.family(
        Kind::Counter,
        "forebay_cache_requests",
        "Requests that came to a cache, by site and what it made of them.",
    );
    for (name, total) in &seen {
        for (how, count) in How::ALL.iter().zip(total.hows) {
            family.sample(&[("site", name), ("cache", how.name())], count);
        }
    }
    let mut family = text.family(
        Kind::Counter,
        "forebay_cache_reasons",
        "Why requests went round a cache, responses were not stored, or stale ones were used.",
    );
    for (name, total) in &seen {
        // Of each site only the few that it has.
        let whys = Why::all().zip(total.whys).filter(|(_, count)| *count > 0);
        for (why, count) in whys {
            family.sample(&[("site", name), ("reason", why.token())], count);
        }
    }
    let mut family = text.family(
        Kind::Counter,
        "forebay_cache_body_bytes",
        "Bytes of bodies: those that clients got out of the store, and those that origins sent.",
    );
    for (name, total) in &seen {
        family.sample(&[("site", name), ("from", "store")], total.store_bytes);
        family.sample(&[("site", name), ("from", "origin")], total.origin_bytes);
    }
}

fn stores(text: &mut Text, snapshot: &Snapshot) {
    if snapshot.caches.stores.is_empty() {
        return;
    }
    let usages = snapshot.caches.stores.iter();
    let usages: Vec<_> = usages
        .map(|kept| (kept.shown(), kept.store.usage()))
        .collect();
    let mut each = |kind, name: &str, help: &str, value: &dyn Fn(&Usage) -> u64| {
        let mut family = text.family(kind, &format!("forebay_cache_store_{name}"), help);
        for (store, usage) in &usages {
            family.sample(&[("store", store)], value(usage));
        }
    };
    let gauge = Kind::Gauge;
    each(gauge, "memory_bytes", "Memory that objects take.", &|u| {
        u.bytes
    });
    each(
        gauge,
        "memory_max_bytes",
        "Memory that objects may take.",
        &|u| u.memory_bytes,
    );
    each(gauge, "objects", "Objects that are stored.", &|u| {
        u.objects as u64
    });
    let help = "Objects, and blocks of large ones, thrown out for others.";
    each(Kind::Counter, "evictions", help, &|u| u.evicted);
    each(
        gauge,
        "asking",
        "Questions to origins without an answer yet.",
        &|u| u.flights as u64,
    );
    each(gauge, "fills", "Transfers that bring objects in.", &|u| {
        u.fills as u64
    });
    each(
        gauge,
        "purge_rules",
        "Purges that something old may still be about.",
        &|u| u.rules as u64,
    );
    let help = "How often there were too many purges, and they became fewer and wider ones.";
    each(Kind::Counter, "purge_rules_widened", help, &|u| {
        u.rules_widened
    });
    disks(text, snapshot);
}

/// What stores have on disks.
fn disks(text: &mut Text, snapshot: &Snapshot) {
    let stores = snapshot.caches.stores.iter();
    let usages: Vec<_> = stores
        .filter_map(|kept| Some((kept.shown(), kept.disks.max_bytes(), kept.disks.usage()?)))
        .collect();
    if usages.is_empty() {
        return;
    }
    let mut each = |kind, name: &str, help: &str, value: &dyn Fn(&disk::Usage, u64) -> u64| {
        let mut family = text.family(kind, &format!("forebay_cache_disk_{name}"), help);
        for (store, max, usage) in &usages {
            family.sample(&[("store", store)], value(usage, *max));
        }
    };
    let (gauge, counter) = (Kind::Gauge, Kind::Counter);
    let help = "What is on the disks of a store.";
    each(gauge, "bytes", help, &|u, _| u.bytes);
    let help = "What they may hold.";
    each(gauge, "max_bytes", help, &|_, max| max);
    let help = "Objects that are found on disks.";
    each(gauge, "objects", help, &|u, _| u.objects as u64);
    let help = "Memory of the index of what is on disks.";
    each(gauge, "index_bytes", help, &|u, _| u.index_bytes as u64);
    let help = "Waits to be written.";
    each(gauge, "queue_bytes", help, &|u, _| u.queue_bytes as u64);
    let help = "Directories that are not used any more, or could not be opened.";
    each(gauge, "failed", help, &|u, _| u.errors.len() as u64);
    let help = "What was written.";
    each(counter, "written_bytes", help, &|u, _| u.written_bytes);
    let help = "Objects that went to make room.";
    each(counter, "evictions", help, &|u, _| u.evicted);
    let help = "Objects that stayed since they were used, and were written anew.";
    each(counter, "carried", help, &|u, _| u.carried);
    let help = "Records that were not what they must be; they are as if they were not there.";
    each(counter, "damaged", help, &|u, _| u.damaged);
    let mut family = text.family(
        counter,
        "forebay_cache_disk_refused",
        "Objects that were not written: too much waited already, or more came than `disk_write`.",
    );
    for (store, _, usage) in &usages {
        for (reason, count) in [("queue", usage.refused_queue), ("rate", usage.refused_rate)] {
            family.sample(&[("store", store), ("reason", reason)], count);
        }
    }
}

/// What runs and is shared without being stored.
fn live(text: &mut Text, snapshot: &Snapshot) {
    let usages = snapshot.caches.stores.iter();
    let usages: Vec<_> = usages
        .map(|kept| (kept.shown(), kept.lives.usage()))
        .collect();
    if usages.is_empty() {
        return;
    }
    let mut each = |kind, name: &str, help: &str, value: &dyn Fn(&LiveUsage) -> u64| {
        let mut family = text.family(kind, &format!("forebay_cache_live_{name}"), help);
        for (store, usage) in &usages {
            family.sample(&[("store", store)], value(usage));
        }
    };
    let gauge = Kind::Gauge;
    let help = "Running responses that clients may join.";
    each(gauge, "streams", help, &|u| u.streams);
    each(gauge, "readers", "Clients that follow one.", &|u| u.readers);
    let help = "Memory that is held for the slower ones.";
    each(gauge, "memory_bytes", help, &|u| u.bytes);
    let counter = Kind::Counter;
    each(counter, "cut", "Clients cut, too slow for one.", &|u| u.cut);
    let help = "Times that a client too slow for one has skipped ahead.";
    each(counter, "skipped", help, &|u| u.skipped);
}

/// What is known of a peer. Pools of one name are told together: a target that is given to two
/// steps with other options is two pools.
#[derive(Default)]
struct Peer {
    requests: u64,
    failures: u64,
    ejections: u64,
    in_flight: u64,
    is_up: bool,
    score: Option<f32>,
    state: &'static str,
}

fn upstreams(text: &mut Text, snapshot: &Snapshot) {
    let now = Tick::from_millis(clock::coarse_ms());
    let mut peers: BTreeMap<(&str, &str), Peer> = BTreeMap::new();
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    let mut fleets: BTreeMap<&str, Sums> = BTreeMap::new();
    for upstream in &snapshot.upstreams {
        let name = &*upstream.definition.name;
        if let Some(fleet) = &upstream.fleet {
            fleet.tally.add_to(fleets.entry(name).or_default());
        }
        *waiting.entry(name).or_default() += upstream.waiting();
        for (index, peer) in upstream.peers.iter().enumerate() {
            let view = upstream.pool.view(index, now);
            let sum = peers.entry((name, &peer.label)).or_default();
            sum.requests += peer.requests.load(Relaxed);
            sum.failures += peer.failures.load(Relaxed);
            sum.ejections += u64::from(view.ejections);
            sum.in_flight += u64::from(view.in_flight);
            sum.state = state_name(view.state);
            sum.score = upstream.pool.score(index, now).or(sum.score);
            sum.is_up |= matches!(view.state, PeerState::Up | PeerState::Warming);
        }
    }
    let mut family = text.family(
        Kind::Gauge,
        "forebay_upstream_waiting",
        "Requests that wait for a place at a peer.",
    );
    for (name, waiting) in &waiting {
        family.sample(&[("upstream", name)], waiting);
    }
    let mut each = |kind, name: &str, help: &str, value: &dyn Fn(&Peer) -> u64| {
        let mut family = text.family(kind, name, help);
        for ((upstream, peer), sum) in &peers {
            family.sample(&[("upstream", upstream), ("peer", peer)], value(sum));
        }
    };
    each(
        Kind::Counter,
        "forebay_peer_requests",
        "Requests sent to a peer, tries included.",
        &|peer| peer.requests,
    );
    each(
        Kind::Counter,
        "forebay_peer_failures",
        "Requests to a peer that failed by its fault.",
        &|peer| peer.failures,
    );
    each(
        Kind::Counter,
        "forebay_peer_ejections",
        "How often a peer was taken out for its failures.",
        &|peer| peer.ejections,
    );
    each(
        Kind::Gauge,
        "forebay_peer_in_flight",
        "Requests under way at a peer.",
        &|peer| peer.in_flight,
    );
    each(
        Kind::Gauge,
        "forebay_peer_up",
        "Whether a peer is in service.",
        &|peer| u64::from(peer.is_up),
    );
    let mut family = text.family(
        Kind::Gauge,
        "forebay_peer_score",
        "How loaded a peer is by what it reports, from 0 to 100.",
    );
    for ((upstream, peer), sum) in &peers {
        if let Some(score) = sum.score {
            family.sample(&[("upstream", upstream), ("peer", peer)], score);
        }
    }
    let mut family = text.family(
        Kind::Gauge,
        "forebay_peer_state",
        "What a peer is, as a label.",
    );
    for ((upstream, peer), sum) in &peers {
        let labels = [
            ("upstream", *upstream),
            ("peer", *peer),
            ("state", sum.state),
        ];
        family.sample(&labels, 1);
    }
    processes(text, &fleets);
}

/// Of pools of processes of this server's own.
fn processes(text: &mut Text, fleets: &BTreeMap<&str, Sums>) {
    if fleets.is_empty() {
        return;
    }
    let mut each = |kind, name: &str, help: &str, value: &dyn Fn(&Sums) -> u64| {
        let mut family = text.family(kind, &format!("forebay_processes_{name}"), help);
        for (upstream, sums) in fleets {
            family.sample(&[("upstream", upstream)], value(sums));
        }
    };
    let gauge = Kind::Gauge;
    each(gauge, "running", "Processes that run.", &|s| s.running);
    let help = "Processes that have used up their `cpu`, and are stopped for a moment.";
    each(gauge, "held", help, &|s| s.held);
    let help = "Memory of processes and their children, measured once a second.";
    each(gauge, "memory_bytes", help, &|s| s.memory_bytes);
    let help = "Processes that were started.";
    each(Kind::Counter, "started", help, &|s| s.starts);
    let mut family = text.family(
        Kind::Counter,
        "forebay_processes_held_seconds",
        "How long processes were stopped because they had used up their `cpu`, together.",
    );
    for (upstream, sums) in fleets {
        let held = Seconds(sums.held_ms.saturating_mul(1000));
        family.sample(&[("upstream", upstream)], held);
    }
    let mut family = text.family(
        Kind::Counter,
        "forebay_processes_ended",
        "Processes that have ended, by why: killed for their `time` or `memory`, replaced after \
         `max_requests`, not needed any more (`spare`), ended by themselves (`exit`, `crash`), or \
         not to be started (`start`).",
    );
    for (upstream, sums) in fleets {
        for (why, count) in Gone::ALL.iter().zip(sums.gone) {
            family.sample(&[("upstream", upstream), ("reason", why.name())], count);
        }
    }
}

/// The process, under the names that all servers use. What the system does not tell is left out.
fn system(text: &mut Text) {
    if let Ok(bytes) = process::resident_memory() {
        text.single(
            Kind::Gauge,
            "process_resident_memory_bytes",
            "Memory in RAM.",
            bytes,
        );
    }
    if let Ok(count) = process::open_files() {
        text.single(
            Kind::Gauge,
            "process_open_fds",
            "Descriptors that are open.",
            count,
        );
    }
    text.single(
        Kind::Gauge,
        "process_max_fds",
        "Descriptors that may be open.",
        process::nofile(),
    );
    text.single(
        Kind::Counter,
        "process_cpu_seconds",
        "Time of processors used.",
        Seconds(process::cpu_time_us()),
    );
}
