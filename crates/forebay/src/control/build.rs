//! From a checked configuration to a snapshot.
//!
//! Each directive's file says how its own calls become steps and tests; here they are put together
//! into pipelines, sites and listeners. What the configuration uses several times, or says several
//! times where that makes no difference, is built once: ten thousand sites with one list of steps
//! share one pipeline, and it stays in the processor's cache.

use std::path::PathBuf;
use std::sync::Arc;

use forebay_config::{Call, Code, Host, Match, Node, Place, Report, Role, Url, When};
use forebay_route::HostTable;
use rustc_hash::{FxHashMap, FxHashSet};

use super::declarations::{self, Bind, SITE, Server};
use super::watch::Made;
use crate::access::{Redact, Sink, Target};
use crate::counters::{ListenerCounts, SiteCounts};
use crate::exchange::{Condition, Entry, Pipeline, Test};
use crate::snapshot::{Carried, Generation, Served, Site, Snapshot};
use crate::steps::cache::{self, Stores};
use crate::steps::{self, FilePage, RemoteKeys};
use crate::upstream::{Protocol, Upstream, Upstreams};

/// As deep as an exchange goes into pipelines of routes.
const MAX_DEPTH: usize = 32;

/// Steps of one pipeline, routes that follow one another counting once; an exchange notes where it
/// has been in 16 bits.
const MAX_STEPS: usize = 10_000;

/// A configuration that is ready to be put into service.
pub struct Built {
    /// What workers serve from.
    pub snapshot: Arc<Snapshot>,
    /// Where to listen.
    pub binds: Vec<Bind>,
    /// What the process shall be.
    pub server: Server,
    /// What it was made of, if that is watched.
    pub made: Made,
    /// What has programs started as the user that the server is.
    pub own_programs: Vec<String>,
}

/// Builds what these declarations say. `previous` is what is in service now: what an equal
/// definition declares is taken over from it.
///
/// With a mistake in the report, whoever put it there, the result is `None`; it goes on to the end
/// nevertheless, so that one run shows all mistakes.
pub fn build(
    declarations: &[Arc<Call>],
    report: &mut Report,
    previous: Option<&Built>,
) -> Option<Built> {
    build_all(declarations, report, previous, false)
}

/// The same, in which every step is one of its own, though another may say the same: so that each
/// knows where it stands.
pub fn build_apart(declarations: &[Arc<Call>], report: &mut Report) -> Option<Built> {
    build_all(declarations, report, None, true)
}

fn build_all(
    declarations: &[Arc<Call>],
    report: &mut Report,
    previous: Option<&Built>,
    apart: bool,
) -> Option<Built> {
    let number = previous.map_or(1, |built| built.snapshot.generation.number + 1);
    let generation = Arc::new(Generation { number });
    let known = previous.map_or(&[][..], |built| &built.binds);
    let binds = declarations::listeners(declarations, report, known);
    let server = declarations::server(declarations);
    let mut builder = Builder::new(report, previous.map(|built| &*built.snapshot));
    let mut has_unnamed = false;
    let is_store = |call: &&Arc<Call>| call.name() == cache::stores::DIRECTIVE.name;
    let stores = || declarations.iter().filter(is_store);
    cache::disks::check_all(stores(), builder.report);
    for call in stores() {
        builder.stores.declare(call);
        let name = call.find::<&str>("NAME").unwrap_or_default();
        if name.is_empty() && std::mem::replace(&mut has_unnamed, true) {
            let message = "cache_store: there are two without a name";
            let help = "give one of them a name, as `cache_store \"big\" { … }`";
            builder
                .report
                .mistake(call.place, Code::Duplicate, message, help);
        }
    }
    builder.redact = Arc::new(declarations::redact(declarations));
    builder.apart = apart;
    let mut sites = Sites::default();
    for call in declarations.iter().filter(|call| call.name() == SITE.name) {
        let hosts: &[Node] = call.get("HOST");
        builder.site = name_of(call, hosts).into();
        builder.stand_beside(call);
        let site = Arc::new(Site {
            counts: builder.counts(),
            pipeline: builder.pipeline(&call.steps),
            generation: generation.clone(),
        });
        let on = declarations::chosen(call, &binds, builder.report);
        sites.list.push(Placed { hosts, site, on });
    }
    let tables = sites.tables(binds.len(), builder.report);
    let Builder {
        upstreams,
        stores,
        mut resources,
        carried,
        sinks,
        sites: counted,
        key_sets,
        ..
    } = builder;
    let upstreams = upstreams.all();
    let caches = stores.all();
    resources.extend(upstreams.iter().map(|upstream| upstream.id));
    if report.has_mistakes() {
        return None;
    }
    let served = binds.iter().zip(tables).map(|(bind, hosts)| {
        (
            bind.id,
            Arc::new(Served {
                hosts,
                counts: counts_of(bind, previous),
                times: bind.times,
                limits: bind.limits,
                trust: bind.trust.clone(),
                protocol: bind.protocol,
                proxy_protocol: bind.proxy_protocol,
                max_per_client: bind.max_per_client,
            }),
        )
    });
    let served = served.collect();
    let snapshot = Arc::new(Snapshot {
        generation,
        served,
        resources,
        upstreams,
        caches,
        carried,
        sinks: sinks.into_values().collect(),
        key_sets: key_sets.into_values().collect(),
        sites: counted.into_values().collect(),
    });
    Some(Built {
        snapshot,
        binds,
        server,
        made: Made::default(),
        own_programs: declarations::own_programs(declarations),
    })
}

/// What is counted of a listener: goes on as long as the listener does.
fn counts_of(bind: &Bind, previous: Option<&Built>) -> Arc<ListenerCounts> {
    let served = previous.and_then(|built| built.snapshot.served.get(&bind.id));
    match served {
        Some(served) => served.counts.clone(),
        None => Arc::new(ListenerCounts::new(bind.address.to_string())),
    }
}

/// The name of a site.
pub(super) fn name_of(call: &Call, hosts: &[Node]) -> String {
    match (call.find("name"), hosts.first()) {
        (Some(name), _) => str::to_owned(name),
        (None, Some(host)) => host.get::<&Host>().to_string(),
        (None, None) => String::new(),
    }
}

/// All sites, in the order in which they stand.
#[derive(Default)]
struct Sites<'a> {
    list: Vec<Placed<'a>>,
}

/// A site with where it answers.
struct Placed<'a> {
    hosts: &'a [Node],
    site: Arc<Site>,
    /// The places of its listeners; none: all of them.
    on: Option<Vec<usize>>,
}

impl Placed<'_> {
    fn is_on(&self, listener: usize) -> bool {
        self.on.as_ref().is_none_or(|on| on.contains(&listener))
    }
}

type Hosts = HostTable<Arc<Site>>;

impl Sites<'_> {
    /// A table for each listener. Those that no site names serve the same and share one.
    fn tables(&self, listeners: usize, report: &mut Report) -> Vec<Arc<Hosts>> {
        let named = |at: usize| {
            let mut sites = self.list.iter();
            sites.any(|placed| placed.on.is_some() && placed.is_on(at))
        };
        let mut shared: Option<Arc<Hosts>> = None;
        let mut tables = Vec::with_capacity(listeners);
        for at in 0..listeners {
            let own = named(at);
            let table = match (&shared, own) {
                (Some(shared), false) => shared.clone(),
                _ => Arc::new(self.table(at, report)),
            };
            if !own {
                shared = Some(table.clone());
            }
            tables.push(table);
        }
        tables
    }

    fn table(&self, listener: usize, report: &mut Report) -> Hosts {
        let mut table = Hosts::new();
        for placed in self.list.iter().filter(|placed| placed.is_on(listener)) {
            for node in placed.hosts {
                let Some(host) = steps::patterns::host(node) else {
                    continue;
                };
                let shown = host.to_string();
                if table.insert(host, placed.site.clone()).is_err() {
                    let message = format!("site: \"{shown}\" is declared twice");
                    let help = "on one listener, a host has one site";
                    report.mistake(node.place, Code::Duplicate, message, help);
                }
            }
        }
        table
    }
}

/// Builds steps and conditions, each once.
pub struct Builder<'a> {
    /// Where a step reports what only it can know to be wrong.
    pub report: &'a mut Report,
    /// The pools that were built.
    pub upstreams: Upstreams,
    /// The stores of caches.
    pub stores: Stores,
    /// What access logs mask.
    pub redact: Arc<Redact>,
    /// The resources with local halves; those of others are dropped by the workers.
    pub resources: FxHashSet<u64>,
    /// The name of the site that is being built.
    pub site: Arc<str>,
    /// The names of the scripts that the steps of that site run.
    pub scripts: Arc<[Match]>,
    /// One of its steps runs every file that is executable.
    pub runs_programs: bool,
    /// Each set of such names that a site has had, as text.
    script_sets: Vec<String>,
    /// The number of that site's set; 0: it runs none.
    script_set: u32,
    /// The shared halves of steps that were made.
    carried: Carried,
    /// Those of the configuration in service.
    inherited: Carried,
    /// How many steps with a shared half say the same in one site.
    equal_shared: FxHashMap<String, u32>,
    /// The definition of each step with a shared half, by its call's number.
    definitions: FxHashMap<u32, Box<str>>,
    /// The number of the first use of a stateless step, by what it says.
    equal: FxHashMap<String, u32>,
    /// Pipelines by the numbers of their calls, with their depth.
    pipelines: FxHashMap<Box<[u32]>, (Arc<Pipeline>, usize)>,
    /// Pages that are files, by path.
    pages: FxHashMap<PathBuf, Arc<FilePage>>,
    /// Where access logs go.
    sinks: FxHashMap<Target, Arc<Sink>>,
    /// What is counted of sites, by name.
    sites: FxHashMap<Arc<str>, Arc<SiteCounts>>,
    /// Sets of keys that are fetched, by their URLs.
    key_sets: FxHashMap<Box<str>, Arc<RemoteKeys>>,
    /// What is in service.
    previous: Known,
    /// Whether equal steps are kept apart.
    apart: bool,
    /// How deep the pipelines below the one that is being built are.
    depth: usize,
}

/// What is taken over from the configuration in service.
#[derive(Default)]
struct Known {
    sinks: FxHashMap<Target, Arc<Sink>>,
    sites: FxHashMap<Arc<str>, Arc<SiteCounts>>,
    key_sets: FxHashMap<Box<str>, Arc<RemoteKeys>>,
}

impl Known {
    fn new(snapshot: &Snapshot) -> Known {
        let sinks = snapshot.sinks.iter();
        let sites = snapshot.sites.iter();
        let key_sets = snapshot.key_sets.iter();
        Known {
            sinks: sinks
                .map(|sink| (sink.target.clone(), sink.clone()))
                .collect(),
            sites: sites
                .map(|site| (site.name.clone(), site.clone()))
                .collect(),
            key_sets: key_sets
                .map(|keys| (keys.url.text.clone(), keys.clone()))
                .collect(),
        }
    }
}

impl<'a> Builder<'a> {
    fn new(report: &'a mut Report, previous: Option<&Snapshot>) -> Builder<'a> {
        Builder {
            report,
            upstreams: Upstreams::new(previous),
            stores: Stores::new(
                previous.map_or_else(Vec::new, |snapshot| snapshot.caches.stores.clone()),
            ),
            redact: Arc::default(),
            sinks: FxHashMap::default(),
            sites: FxHashMap::default(),
            key_sets: FxHashMap::default(),
            previous: previous.map(Known::new).unwrap_or_default(),
            resources: FxHashSet::default(),
            site: Arc::from(""),
            scripts: Arc::from([]),
            runs_programs: false,
            script_sets: vec![String::new()],
            script_set: 0,
            carried: Carried::default(),
            inherited: previous
                .map(|snapshot| snapshot.carried.clone())
                .unwrap_or_default(),
            equal_shared: FxHashMap::default(),
            definitions: FxHashMap::default(),
            equal: FxHashMap::default(),
            pipelines: FxHashMap::default(),
            pages: FxHashMap::default(),
            apart: false,
            depth: 0,
        }
    }

    /// Looks through a site for steps that run scripts: what they run, `files` beside them does not
    /// send.
    fn stand_beside(&mut self, site: &Call) {
        let mut scripts = Vec::new();
        let mut runs_programs = false;
        site.visit_steps(&mut |step| {
            scripts.extend(steps::scripts_of(step));
            runs_programs |= steps::runs_programs(step);
        });
        self.runs_programs = runs_programs;
        let said = format!("{scripts:?} {runs_programs}");
        let said = if scripts.is_empty() { "" } else { &said };
        let known = self.script_sets.iter().position(|set| set == said);
        let number = known.unwrap_or_else(|| {
            self.script_sets.push(said.to_owned());
            self.script_sets.len() - 1
        });
        self.script_set = u32::try_from(number).unwrap_or(u32::MAX);
        self.scripts = scripts.into();
    }

    /// The pipeline of these steps. Routes that follow one another become one step.
    pub fn pipeline(&mut self, calls: &[Arc<Call>]) -> Arc<Pipeline> {
        let mut key: Vec<u32> = calls.iter().map(|call| self.number(call)).collect();
        if self.script_set > 0 {
            // Not the number of a call: there are not so many.
            key.push(u32::MAX - self.script_set);
        }
        let key = key.into_boxed_slice();
        if let Some((pipeline, depth)) = self.pipelines.get(&key) {
            self.depth = self.depth.max(*depth);
            return pipeline.clone();
        }
        let beside = std::mem::take(&mut self.depth);
        let pipeline = Pipeline::new(self.entries(calls));
        let depth = self.depth + 1;
        self.depth = beside.max(depth);
        let place = calls.first().map_or(Place::NONE, |call| call.place);
        if depth > MAX_DEPTH {
            let message = format!("routes are nested more than {MAX_DEPTH} deep");
            self.report.mistake(place, Code::Conflict, message, "");
        }
        if pipeline.entries.len() > MAX_STEPS {
            let message = format!("a pipeline has more than {MAX_STEPS} steps");
            self.report.mistake(place, Code::Conflict, message, "");
        }
        self.pipelines.insert(key, (pipeline.clone(), depth));
        pipeline
    }

    /// The number that stands for a step: equal ones that keep nothing are one.
    fn number(&mut self, call: &Call) -> u32 {
        if self.apart || !call.directive().stateless {
            return call.id;
        }
        *self.equal.entry(call.form()).or_insert(call.id)
    }

    fn entries(&mut self, calls: &[Arc<Call>]) -> Vec<Entry> {
        let is_route = |call: &Arc<Call>| call.directive().role == Role::Route;
        let mut entries = Vec::with_capacity(calls.len());
        for run in calls.chunk_by(|a, b| is_route(a) && is_route(b)) {
            match run {
                [call] if !is_route(call) => entries.extend(self.entry(call)),
                routes => {
                    let step = steps::route::build_all(routes, self);
                    let (when, kind) = (None, steps::kind_of(routes[0].directive()));
                    let call = routes[0].id;
                    entries.extend(step.map(|step| Entry {
                        when,
                        step,
                        kind,
                        call,
                    }));
                }
            }
        }
        entries
    }

    fn entry(&mut self, call: &Call) -> Option<Entry> {
        // A step whose condition looks at the response looks at it itself.
        let own = call.directive().when == When::Response && looks_at_response(&call.when);
        let when = if own {
            None
        } else {
            self.condition(&call.when)
        };
        let step = steps::build(call, self)?;
        let kind = steps::kind_of(call.directive());
        let call = call.id;
        Some(Entry {
            when,
            step,
            kind,
            call,
        })
    }

    /// The condition of these calls; none if there are none, which is "always".
    pub fn condition(&mut self, calls: &[Arc<Call>]) -> Option<Condition> {
        (!calls.is_empty()).then(|| Condition(self.tests(calls)))
    }

    /// The tests of these calls.
    pub fn tests(&mut self, calls: &[Arc<Call>]) -> Box<[Box<dyn Test>]> {
        calls
            .iter()
            .filter_map(|call| steps::conditions::build(call, self))
            .collect()
    }

    /// The shared half of a step: that of the configuration in service, where an equal step stood
    /// in a site of the same name; else a new one. A call that stands in several places has one.
    ///
    /// Equal steps of one site are told apart by their order: each has its own, and which of them
    /// goes on with which matters less than that none begins anew.
    pub fn carried<T: Send + Sync + 'static>(
        &mut self,
        call: &Call,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        if let Some(known) = self.definitions.get(&call.id)
            && let Some(shared) = self.carried.get(known)
        {
            return shared;
        }
        let said = format!("{}\n{}", self.site, call.form());
        let number = self.equal_shared.entry(said.clone()).or_default();
        *number += 1;
        let definition = format!("{number}\n{said}");
        let shared = match self.inherited.get(&definition) {
            Some(shared) => shared,
            None => Arc::new(make()),
        };
        self.carried.insert(&definition, shared.clone());
        self.definitions.insert(call.id, definition.into());
        shared
    }

    /// The place where lines for this go; the same one as long as anybody uses it.
    pub fn sink(&mut self, target: Target) -> Arc<Sink> {
        let known = self.previous.sinks.get(&target);
        let make = || {
            known
                .cloned()
                .unwrap_or_else(|| Arc::new(Sink::new(target.clone())))
        };
        self.sinks
            .entry(target.clone())
            .or_insert_with(make)
            .clone()
    }

    /// The set of keys at this URL; the same one as long as anybody uses it.
    pub fn key_set(&mut self, url: &Url) -> Arc<RemoteKeys> {
        let known = self.previous.key_sets.get(&url.text);
        let make = || {
            known
                .cloned()
                .unwrap_or_else(|| Arc::new(RemoteKeys::new(url.clone())))
        };
        let keys = self.key_sets.entry(url.text.clone()).or_insert_with(make);
        keys.clone()
    }

    /// What is counted of the sites of this name.
    fn counts(&mut self) -> Arc<SiteCounts> {
        let name = &self.site;
        let known = self.previous.sites.get(name).cloned();
        let make = || known.unwrap_or_else(|| Arc::new(SiteCounts::new(name.clone())));
        self.sites.entry(name.clone()).or_insert_with(make).clone()
    }

    /// The pool that a step's argument means: an `upstream`, or a target on its own.
    pub fn upstream(&mut self, node: &Node) -> Option<Arc<Upstream>> {
        self.upstreams.of(node, Protocol::Http, self.report)
    }

    /// The same for who speaks FastCGI with its peers.
    pub fn fastcgi_upstream(&mut self, node: &Node) -> Option<Arc<Upstream>> {
        self.upstreams.of(node, Protocol::FastCgi, self.report)
    }

    /// The page in this file; one for each path.
    pub fn page(&mut self, node: &Node) -> Arc<FilePage> {
        let page = FilePage::new(node.get());
        match page.path() {
            Some(path) => {
                let path = path.to_owned();
                self.pages
                    .entry(path)
                    .or_insert_with(|| Arc::new(page))
                    .clone()
            }
            None => Arc::new(page),
        }
    }
}

/// Whether one of these conditions, or one in them, is only known once there is a response.
pub fn looks_at_response(calls: &[Arc<Call>]) -> bool {
    calls
        .iter()
        .any(|call| call.directive().response_only || looks_at_response(&call.steps))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::steps::testing::{Bench, build_after, built, mistakes};

    #[test]
    fn an_address_keeps_its_number_and_a_new_one_gets_its_own() {
        let first = built(
            r#"listen ":81" listen "127.0.0.1:82" { idle_timeout = "5s" } site { "*", respond(200) }"#,
        );
        let again = r#"listen "127.0.0.1:82" listen "[::1]:81" site { "*", respond(200) }"#;
        let (second, _) = build_after(again, Some(&first));
        let second = second.expect("it is right");
        assert_eq!(second.binds[0].id, first.binds[1].id);
        assert!(first.binds.iter().all(|bind| bind.id != second.binds[1].id));
        assert_eq!(first.binds[1].times.idle, Duration::from_secs(5));
        assert_eq!(second.binds[0].times.idle, Duration::from_secs(75));
        let numbers = [&first, &second].map(|built| built.snapshot.generation.number);
        assert_eq!(numbers, [1, 2]);
        assert_eq!(second.snapshot.served.len(), 2);
    }

    #[test]
    fn without_a_listener_it_is_port_80() {
        let built = built(r#"site { "*", respond(200) }"#);
        let addresses: Vec<String> = built
            .binds
            .iter()
            .map(|bind| bind.address.to_string())
            .collect();
        assert_eq!(addresses, [":80"]);
        assert_eq!(built.server, Server::default());
    }

    #[test]
    fn what_the_server_says() {
        let config = r#"server { workers = 3, user = "a:b", max_connections = 7, log = "warn", watch = true, drain = "5s", admin = "unix:/a",
            state = "/var/x" }"#;
        let server = built(&format!("{config} site {{ \"*\", respond(200) }}")).server;
        let expected = Server {
            workers: Some(3),
            user: Some("a:b".into()),
            max_connections: Some(7),
            admin: forebay_config::Address::Unix("/a".into()),
            admin_is_set: true,
            log: "warn",
            watch: true,
            log_format: "text",
            drain: Duration::from_secs(5),
            state: "/var/x".into(),
        };
        assert_eq!(server, expected);
    }

    #[test]
    fn limits_and_times_of_a_listener() {
        let config = r#"listen ":1" { header_timeout = "1s", body_timeout = "2s", idle_timeout = "3s",
            write_timeout = "4s", max_request_line = "1KB", max_header = "2KB" } site { "*", respond(200) }"#;
        let bench = Bench::new(config);
        let served = bench.served();
        let times = served.times;
        let seconds =
            [times.header, times.body, times.idle, times.write].map(|time| time.as_secs());
        assert_eq!(seconds, [1, 2, 3, 4]);
        assert_eq!(
            (served.limits.max_request_line, served.limits.max_header),
            (1024, 2048)
        );
    }

    #[test]
    fn a_site_answers_on_its_own_addresses_only() {
        let built = built(
            r#"listen ":1" listen ":2" listen ":3"
               site { "a.test", respond(200), on = { ":1", ":2" }, name = "here" }
               site { "a.test", respond(200), on = ":3" }
               site { "b.test", respond(200) }"#,
        );
        let name = |at: usize, host: &str| {
            let served = &built.snapshot.served[&built.binds[at].id];
            served
                .hosts
                .get(host.as_bytes())
                .map(|site| site.counts.name.to_string())
        };
        for (at, expected) in [(0, "here"), (1, "here"), (2, "a.test")] {
            assert_eq!(name(at, "a.test").as_deref(), Some(expected));
            assert_eq!(name(at, "b.test").as_deref(), Some("b.test"));
        }
    }

    #[test]
    fn listeners_that_serve_the_same_share_one_table() {
        let built = built(
            r#"listen ":1" listen ":2" listen ":3" site { "*", respond(200) }
               site { "c.test", respond(200), on = ":3" }"#,
        );
        let hosts = |at: usize| &built.snapshot.served[&built.binds[at].id].hosts;
        assert!(Arc::ptr_eq(hosts(0), hosts(1)) && !Arc::ptr_eq(hosts(0), hosts(2)));
    }

    #[test]
    fn what_is_twice_is_said() {
        let check = |config: &str, expected: &str| {
            let said = mistakes(config);
            assert!(said.contains(expected), "{config}: {said}");
        };
        check(
            r#"listen ":1" { proxy_protocol = true } site { "*", respond(200) }"#,
            "listen: `proxy_protocol` needs `trust`",
        );
        check(
            r#"listen ":1" { mode = "0600" } site { "*", respond(200) }"#,
            "listen: `mode` is for Unix sockets",
        );
        for mode in ["", "66", "0888", "07777", "1777", "rw-"] {
            check(
                &format!(r#"listen "unix:/a" {{ mode = "{mode}" }} site {{ "*", respond(200) }}"#),
                &format!("listen: `mode` cannot be \"{mode}\""),
            );
        }
        check(
            r#"listen ":1" listen ":1" site { "*", respond(200) }"#,
            "listen: \":1\" is declared twice",
        );
        check(
            r#"listen ":1" site { "a.test", respond(200) } site { "a.test", respond(200), on = ":1" }"#,
            "site: \"a.test\" is declared twice",
        );
        check(
            r#"listen ":1" site { "a.test", respond(200), on = ":2" }"#,
            "site: `on` cannot be \":2\"",
        );
    }

    #[test]
    fn equal_lists_of_steps_are_built_once() {
        let bench = Bench::new(
            r#"local steps = { set("a", "b"), respond(200, "same") }
               for i = 1, 3 do site { "h" .. i .. ".test", steps } end
               site { "other.test", set("a", "b"), steps }"#,
        );
        let pipeline = |host: &str| bench.site(host).pipeline.clone();
        assert!(Arc::ptr_eq(&pipeline("h1.test"), &pipeline("h3.test")));
        assert!(!Arc::ptr_eq(&pipeline("h1.test"), &pipeline("other.test")));
        assert_eq!(pipeline("other.test").entries.len(), 3);
    }

    #[test]
    fn equal_steps_that_keep_nothing_are_one() {
        let bench = Bench::new(
            r#"site { "a.test", headers { response = { x = "1" }, when = all { path "/x/*", method "GET" } }, respond(200, "same") }
               site { "b.test", headers { response = { x = "1" }, when = all { path "/x/*", method "GET" } }, respond(200, "same") }
               site { "c.test", headers { response = { x = "1" }, when = all { path "/y/*", method "GET" } }, respond(200, "same") }
               site { "d.test", headers { response = { x = "2" }, when = all { path "/x/*", method "GET" } }, respond(200, "same") }
               site { "e.test", headers { response = { x = "1" } }, respond(200, "same") }
               site { "f.test", errors { [404] = respond(410) }, respond(200) }
               site { "g.test", errors { [404] = respond(403) }, respond(200) }
               site { "h.test", limit { body = "1KB" }, respond(200) }
               site { "i.test", limit { body = "1KB" }, respond(200) }"#,
        );
        let same = |a: &str, b: &str| Arc::ptr_eq(&bench.site(a).pipeline, &bench.site(b).pipeline);
        assert!(same("a.test", "b.test"));
        for other in ["c.test", "d.test", "e.test"] {
            assert!(!same("a.test", other), "{other}");
        }
        assert!(!same("f.test", "g.test"));
        // What counts for itself counts for one site alone.
        assert!(!same("h.test", "i.test"));
    }

    #[test]
    fn a_configuration_that_is_gone_leaves_nothing() {
        let config = r#"for i = 1, 50 do
                 site { "h" .. i .. ".test", errors { [404] = "/nowhere/404.html" },
                   route "/a/*" { when = { exists "/nowhere", header("a", "b") }, rewrite(regex "^/a", "/b"), respond(200, "$path") },
                   respond(200, "site " .. i) }
               end"#;
        let first = built(config);
        let site = {
            let served = &first.snapshot.served[&first.binds[0].id];
            Arc::downgrade(served.hosts.get(b"h7.test").expect("a site"))
        };
        let generation = Arc::downgrade(&first.snapshot.generation);
        let (second, _) = build_after(config, Some(&first));
        let second = second.expect("it is right");
        drop(first);
        assert_eq!((site.strong_count(), generation.strong_count()), (0, 0));
        assert_eq!(second.snapshot.generation.number, 2);
    }

    #[test]
    fn ten_thousand_sites_are_built_in_no_time() {
        let config = r#"for i = 1, 10000 do
                 site { "host" .. i .. ".test", "www.host" .. i .. ".test", respond(200, "site " .. i) }
               end"#;
        let options = forebay_config::LoadOptions::default();
        let path = std::path::Path::new("/nowhere/forebay.lua");
        let text = config.as_bytes().to_vec();
        let loaded = forebay_config::load_text(path, text, steps::registry(), &options);
        let mut loaded = loaded.expect("it is right");
        let start = Instant::now();
        let built = build(&loaded.declarations, &mut loaded.report, None).expect("it is right");
        let took = start.elapsed();
        let served = &built.snapshot.served[&built.binds[0].id];
        assert_eq!(served.hosts.len(), 20_000);
        // Timings do not gate a test, but what is quadratic would take minutes.
        assert!(took < Duration::from_secs(10), "{took:?}");
        println!("10,000 sites were built in {took:?}");
    }
}
