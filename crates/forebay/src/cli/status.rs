//! `forebay status`: how a running server is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;

use super::{admin, failed, print};

/// The control plane answers even when every worker is busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show how the running server is
///
/// Its configuration and since when it runs, listeners, connections, requests, memory, and the
/// upstreams with the state of each peer.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay status
  forebay status --json | jq .connections")]
pub struct Args {
    #[command(flatten)]
    admin: admin::Admin,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What the admin socket says, as far as it is shown.
#[derive(Deserialize)]
struct Status {
    version: String,
    pid: u32,
    uptime_seconds: u64,
    config: String,
    generation: u64,
    generations_alive: Vec<u64>,
    reloads: u64,
    reloads_failed: u64,
    workers: usize,
    listeners: Vec<String>,
    connections: u64,
    max_connections: u64,
    requests: u64,
    memory_bytes: u64,
    upstreams: Vec<Upstream>,
    #[serde(default)]
    stores: Vec<Store>,
    #[serde(default)]
    caches: Vec<Cache>,
}

#[derive(Deserialize)]
struct Store {
    name: String,
    memory_bytes: u64,
    max_memory_bytes: u64,
    objects: u64,
    evicted: u64,
    fills: u64,
    purge_rules: u64,
    live_streams: u64,
    live_readers: u64,
    #[serde(default)]
    disk: Option<Disk>,
}

#[derive(Deserialize)]
struct Disk {
    bytes: u64,
    max_bytes: u64,
    objects: u64,
    evicted: u64,
    refused_queue: u64,
    refused_rate: u64,
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct Cache {
    site: String,
    hit: u64,
    miss: u64,
    stale: u64,
    revalidated: u64,
    collapsed: u64,
    bypass: u64,
    pass: u64,
    store_bytes: u64,
    origin_bytes: u64,
    reasons: BTreeMap<String, u64>,
}

/// Of more sites only those whose caches are asked most are shown.
const MAX_CACHES: usize = 10;

#[derive(Deserialize)]
struct Upstream {
    name: String,
    waiting: u64,
    #[serde(default)]
    processes: Option<Processes>,
    peers: Vec<Peer>,
}

#[derive(Deserialize)]
struct Processes {
    running: u64,
    started: u64,
    ended: BTreeMap<String, u64>,
    held_ms: u64,
}

#[derive(Deserialize)]
struct Peer {
    peer: String,
    state: String,
    in_flight: u64,
    score: Option<f64>,
    #[serde(default)]
    process: Option<Process>,
    addresses: Vec<String>,
}

#[derive(Deserialize)]
struct Process {
    pid: u32,
    memory_bytes: u64,
    held: bool,
}

/// The upstreams of a status, each with its name and how it is shown.
pub fn upstreams(status: &str) -> Result<Vec<(String, String)>, serde_json::Error> {
    let status: Status = serde_json::from_str(status)?;
    let shown = status.upstreams.into_iter().map(|upstream| {
        let mut out = String::new();
        upstream.show(&mut out);
        (upstream.name, out)
    });
    Ok(shown.collect())
}

impl Args {
    /// Asks the server and shows what it says.
    pub fn run(self) -> ExitCode {
        let answer = match self.admin.ask("GET", "/status", Some(PATIENCE)) {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => return failed(answer.text.trim_end()),
            Err(error) => return failed(error),
        };
        if self.json {
            return print(&answer.text);
        }
        match serde_json::from_str::<Status>(&answer.text) {
            Ok(status) => print(&status.show()),
            // A server of another version: what it says is still worth showing.
            Err(_) => print(&answer.text),
        }
    }
}

impl Status {
    fn show(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:14}{value}");
        };
        line("forebay", format!("{}, process {}", self.version, self.pid));
        line("runs for", time(self.uptime_seconds));
        line("configuration", self.configuration());
        line("listens on", self.listeners.join(" "));
        line("workers", self.workers.to_string());
        line(
            "connections",
            format!("{} of at most {}", self.connections, self.max_connections),
        );
        line("requests", self.requests.to_string());
        line(
            "memory",
            format!("{} MB", self.memory_bytes.div_ceil(1 << 20)),
        );
        for upstream in &self.upstreams {
            upstream.show(&mut out);
        }
        for store in &self.stores {
            store.show(&mut out);
        }
        let mut caches: Vec<&Cache> = self.caches.iter().collect();
        caches.sort_by_key(|cache| std::cmp::Reverse(cache.requests()));
        for cache in caches.iter().take(MAX_CACHES) {
            cache.show(&mut out);
        }
        if let Some(more) = caches
            .len()
            .checked_sub(MAX_CACHES)
            .filter(|more| *more > 0)
        {
            let _ = writeln!(out, "\nand caches of {more} more sites: --json has all");
        }
        out
    }

    fn configuration(&self) -> String {
        let mut text = format!("{}, generation {}", self.config, self.generation);
        let older = self
            .generations_alive
            .iter()
            .filter(|number| **number != self.generation);
        let older: Vec<String> = older.map(u64::to_string).collect();
        if !older.is_empty() {
            let _ = write!(text, "; exchanges under way still use {}", older.join(", "));
        }
        if self.reloads + self.reloads_failed > 0 {
            let _ = write!(
                text,
                "; {} reloads, {} refused",
                self.reloads, self.reloads_failed
            );
        }
        text
    }
}

impl Store {
    fn show(&self, out: &mut String) {
        let mb = |bytes: u64| bytes.div_ceil(1 << 20);
        let _ = writeln!(
            out,
            "\ncache store {}\n  {} MB of {} MB, {} objects, {} evicted, {} fills, {} purge rules",
            self.name,
            mb(self.memory_bytes),
            mb(self.max_memory_bytes),
            self.objects,
            self.evicted,
            self.fills,
            self.purge_rules
        );
        if self.live_streams > 0 {
            let _ = writeln!(
                out,
                "  {} live streams with {} readers",
                self.live_streams, self.live_readers
            );
        }
        let Some(disk) = &self.disk else {
            return;
        };
        let _ = writeln!(
            out,
            "  on disks {} MB of {} MB, {} objects, {} evicted, {} not written",
            mb(disk.bytes),
            mb(disk.max_bytes),
            disk.objects,
            disk.evicted,
            disk.refused_queue + disk.refused_rate
        );
        for error in &disk.errors {
            let _ = writeln!(out, "  not used: {error}");
        }
    }
}

impl Cache {
    fn requests(&self) -> u64 {
        self.spared() + self.miss + self.bypass + self.pass
    }

    /// Requests for which no origin had to send a body.
    fn spared(&self) -> u64 {
        self.hit + self.stale + self.revalidated + self.collapsed
    }

    fn show(&self, out: &mut String) {
        let tenths = (self.spared() * 1000)
            .checked_div(self.requests())
            .unwrap_or(0);
        let mb = |bytes: u64| bytes.div_ceil(1 << 20);
        let _ = writeln!(
            out,
            "\ncache of {}\n  {}.{} % of {} requests from the store, {} MB; {} MB from origins",
            self.site,
            tenths / 10,
            tenths % 10,
            self.requests(),
            mb(self.store_bytes),
            mb(self.origin_bytes)
        );
        let _ = writeln!(
            out,
            "  hit {}, stale {}, revalidated {}, collapsed {}, miss {}, bypass {}, pass {}",
            self.hit,
            self.stale,
            self.revalidated,
            self.collapsed,
            self.miss,
            self.bypass,
            self.pass
        );
        if !self.reasons.is_empty() {
            let reasons = self.reasons.iter();
            let reasons: Vec<String> = reasons
                .map(|(why, count)| format!("{why} {count}"))
                .collect();
            let _ = writeln!(out, "  because: {}", reasons.join(", "));
        }
    }
}

impl Upstream {
    fn show(&self, out: &mut String) {
        let _ = write!(out, "\nupstream {}", self.name);
        if self.waiting > 0 {
            let _ = write!(out, ", {} requests wait", self.waiting);
        }
        out.push('\n');
        if let Some(processes) = &self.processes {
            processes.show(out);
        }
        for peer in &self.peers {
            let _ = write!(
                out,
                "  {:30} {:10} {} in flight",
                peer.peer, peer.state, peer.in_flight
            );
            if let Some(score) = peer.score {
                let _ = write!(out, "  score {score:.0}");
            }
            if let Some(process) = &peer.process {
                let mb = process.memory_bytes.div_ceil(1 << 20);
                let _ = write!(out, "  process {}, {mb} MB", process.pid);
                if process.held {
                    out.push_str(", held back: it has used up its cpu");
                }
            }
            // A peer that is written as an address is its own only one.
            let others: Vec<&str> = peer
                .addresses
                .iter()
                .map(String::as_str)
                .filter(|a| *a != peer.peer)
                .collect();
            if !others.is_empty() {
                let _ = write!(out, "  ({})", others.join(" "));
            }
            out.push('\n');
        }
    }
}

impl Processes {
    fn show(&self, out: &mut String) {
        let _ = write!(out, "  {} run, {} started", self.running, self.started);
        let said = |why: &str| match why {
            "start" => "could not be started",
            "crash" => "crashed",
            "exit" => "ended by themselves",
            "time" => "killed for their time",
            "memory" => "killed for their memory",
            "requests" => "replaced after their requests",
            "spare" => "not needed any more",
            _ => "ended otherwise",
        };
        for (why, count) in &self.ended {
            let _ = write!(out, ", {count} {}", said(why));
        }
        if self.held_ms > 0 {
            let _ = write!(out, "; held back for {} s", self.held_ms.div_ceil(1000));
        }
        out.push('\n');
    }
}

/// `93784` → `1 d 2 h 3 min`, `62` → `1 min 2 s`.
fn time(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (length, unit) in units {
        if rest >= length {
            parts.push(format!("{} {unit}", rest / length));
            rest %= length;
        }
    }
    parts.truncate(3);
    if parts.is_empty() {
        "0 s".to_owned()
    } else {
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        for (seconds, text) in [
            (0, "0 s"),
            (62, "1 min 2 s"),
            (3_600, "1 h"),
            (93_784, "1 d 2 h 3 min"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }

    #[test]
    fn a_status_is_readable() {
        let json = r#"{
            "version": "0.1.0", "pid": 7, "uptime_seconds": 62, "config": "forebay.lua",
            "generation": 3, "generations_alive": [2, 3], "reloads": 2, "reloads_failed": 1,
            "workers": 2, "listeners": [":80", "127.0.0.1:81"], "connections": 5,
            "max_connections": 800, "requests": 1000, "memory_bytes": 10485761,
            "upstreams": [{ "name": "app", "waiting": 2, "peers": [
                { "peer": "app.test:80", "state": "up", "in_flight": 1,
                  "addresses": ["192.0.2.1:80"] },
                { "peer": "192.0.2.9:80", "state": "ejected", "in_flight": 0,
                  "addresses": ["192.0.2.9:80"] }
            ]}, { "name": "php", "waiting": 0,
                "processes": { "running": 1, "held": 1, "memory_bytes": 5, "started": 9,
                    "ended": { "memory": 2, "time": 1 }, "held_ms": 1500 },
                "peers": [{ "peer": "php/0", "state": "up", "in_flight": 1, "score": 49.6,
                    "process": { "pid": 71, "memory_bytes": 3000000, "held": true },
                    "addresses": [] }]
            }],
            "stores": [{ "name": "default", "memory_bytes": 5000000, "max_memory_bytes": 268435456,
                "objects": 12, "evicted": 3, "asking": 0, "fills": 1, "purge_rules": 2,
                "live_streams": 1, "live_readers": 9,
                "disk": { "bytes": 7000000, "max_bytes": 1073741824, "objects": 40, "evicted": 5,
                    "refused_queue": 1, "refused_rate": 2, "errors": ["/disk1: cannot read: gone"] }
            }],
            "caches": [{ "site": "a.test", "hit": 80, "stale": 2, "revalidated": 3, "collapsed": 4,
                "miss": 6, "bypass": 3, "pass": 2, "store_bytes": 2000000, "origin_bytes": 10,
                "reasons": { "set-cookie": 2 } }]
        }"#;
        let status: Status = serde_json::from_str(json).unwrap();
        let expected = "\
forebay       0.1.0, process 7
runs for      1 min 2 s
configuration forebay.lua, generation 3; exchanges under way still use 2; 2 reloads, 1 refused
listens on    :80 127.0.0.1:81
workers       2
connections   5 of at most 800
requests      1000
memory        11 MB

upstream app, 2 requests wait
  app.test:80                    up         1 in flight  (192.0.2.1:80)
  192.0.2.9:80                   ejected    0 in flight

upstream php
  1 run, 9 started, 2 killed for their memory, 1 killed for their time; held back for 2 s
  php/0                          up         1 in flight  score 50  process 71, 3 MB, held back: it has used up its cpu

cache store default
  5 MB of 256 MB, 12 objects, 3 evicted, 1 fills, 2 purge rules
  1 live streams with 9 readers
  on disks 7 MB of 1024 MB, 40 objects, 5 evicted, 3 not written
  not used: /disk1: cannot read: gone

cache of a.test
  89.0 % of 100 requests from the store, 2 MB; 1 MB from origins
  hit 80, stale 2, revalidated 3, collapsed 4, miss 6, bypass 3, pass 2
  because: set-cookie 2
";
        assert_eq!(status.show(), expected);
    }
}
