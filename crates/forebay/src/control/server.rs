//! The running server, seen from its control plane: starting, reloading, stopping.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use forebay_balance::Tick;
use forebay_sys::memory::give_back_free;
use forebay_sys::process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::admin;
use super::build::Built;
use super::declarations::Bind;
use super::dns::Names;
use super::health::Checks;
use super::keys::KeySets;
use super::orders::Order;
use super::processes::Processes;
use super::purge::{InForce, NotDone, Prepared, Purge};
use super::reports::Reports;
use super::secret;
use super::service::Service;
use super::sockets::{Inherited, bind_new, remove_files};
use super::source::Source;
use super::watch::{self, Made};
use crate::access::Writer;
use crate::counters::{Counters, SiteCounts};
use crate::exchange::{How, Why};
use crate::helper::Helper;
use crate::helper::programs::Channel;
use crate::listen::ListenerId;
use crate::snapshot::{Generation, Snapshot};
use crate::steps::cache::stores::Kept;
use crate::steps::{Dialect, render_metrics};
use crate::upstream::Upstream;
use crate::worker::{self, Mail, Mailbox, Process, Start};

/// Commands may queue up to here; whoever sends more waits.
const COMMANDS: usize = 64;

/// At the stop, what is left of the access logs is written for so long.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What waits to be written to the disks of caches, and their indexes, for so long.
const LAST_BLOCKS: Duration = Duration::from_secs(10);

/// Processes of its own are asked to end, and killed two seconds later.
const LAST_PROCESSES: Duration = Duration::from_secs(3);

/// What the admin socket asks of the server.
pub enum Command {
    /// Load the configuration anew; answers a summary, or every mistake.
    Reload(oneshot::Sender<Result<String, String>>),
    /// How is it?
    Status(oneshot::Sender<serde_json::Value>),
    /// The metrics, as Prometheus text.
    Metrics(oneshot::Sender<String>),
    /// Have a peer do something; answers what it is then, or what is wrong.
    Order(Order, oneshot::Sender<Result<String, String>>),
    /// Have the caches forget something; answers how much it was, or what is wrong.
    Purge(Purge, oneshot::Sender<Result<serde_json::Value, NotDone>>),
    /// The configuration in service.
    Snapshot(oneshot::Sender<Arc<Snapshot>>),
    /// Finish what is under way and end.
    Stop(oneshot::Sender<()>),
}

/// Where commands are sent.
pub type Commands = mpsc::Sender<Command>;

struct Server {
    source: Source,
    built: Arc<Built>,
    helper: Arc<Helper>,
    inherited: Inherited,
    workers: Vec<Mailbox>,
    process: Arc<Process>,
    names: Names,
    checks: Checks,
    key_sets: KeySets,
    processes: Processes,
    reports: Reports,
    /// Who programs run as for whom nothing is said.
    identity: Option<process::Identity>,
    generations: Vec<Weak<Generation>>,
    started: Instant,
    service: Service,
    reloads: u64,
    failed_reloads: u64,
    /// Ready when what the configuration was made of has changed.
    watched: Watched,
}

type Watched = Pin<Box<dyn Future<Output = ()>>>;

/// What `run` needs to say when it has come up.
pub struct Announce {
    /// Lines for the person who started it, printed once it serves.
    pub lines: Box<dyn Fn(&Built) -> String>,
}

/// Runs the server until it is told to stop. The helper has been started already, before any
/// thread was.
pub fn run(source: Source, helper: Helper, announce: &Announce) -> ExitCode {
    let (built, report) = match source.build(None) {
        Ok(built) => built,
        Err(report) => {
            eprint!("{}", report.render());
            return ExitCode::from(2);
        }
    };
    eprint!("{}", report.render_warnings());
    crate::log::start(built.server.log, built.server.log_format);
    let served = serve(source, built, helper, announce);
    crate::log::flush(LAST_LINES);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(source: Source, built: Built, helper: Helper, announce: &Announce) -> Result<(), String> {
    if let Err(error) = process::raise_nofile() {
        tracing::warn!(%error, "the limit of open files stays at {}", process::nofile());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_name("control")
        .build()
        .map_err(|error| format!("the control plane cannot start: {error}"))?;
    let result = runtime.block_on(async {
        // Before anything listens: a signal that comes right after the start is not lost, and does
        // not kill.
        let signals = Signals::watch()?;
        let (server, admin) = Server::start(source, built, helper).await?;
        eprint!("{}", (announce.lines)(&server.built));
        give_back_free();
        server.run(admin, signals).await
    });
    // A reload that is still loading is not waited for.
    runtime.shutdown_background();
    result
}

/// The signals that the server listens to.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
}

impl Signals {
    fn watch() -> Result<Signals, String> {
        Ok(Signals {
            term: watch_signal(SignalKind::terminate())?,
            int: watch_signal(SignalKind::interrupt())?,
            hup: watch_signal(SignalKind::hangup())?,
            usr1: watch_signal(SignalKind::user_defined1())?,
        })
    }
}

fn register(process: &Process) -> Arc<Counters> {
    let counters = Arc::new(Counters::default());
    process.all.lock().push(counters.clone());
    counters
}

fn worker_count(built: &Built) -> Result<usize, String> {
    if let Some(text) = std::env::var_os("FOREBAY_WORKERS") {
        let count = text.to_str().and_then(|text| text.parse().ok());
        return match count {
            Some(count @ 1..=1024) => Ok(count),
            _ => Err(format!(
                "FOREBAY_WORKERS is {text:?}, expected a number from 1 to 1024"
            )),
        };
    }
    Ok(built.server.workers.unwrap_or_else(process::cores))
}

/// 80 % of the descriptors, unless the configuration says otherwise: a proxied exchange takes two.
fn max_connections(built: &Built) -> usize {
    let by_files = usize::try_from(process::nofile()).unwrap_or(usize::MAX) / 10 * 8;
    built.server.max_connections.unwrap_or(by_files)
}

/// Opens the access logs that are not open yet, and starts the thread that writes them.
fn open_logs(built: &Built, access: &Arc<Writer>) -> Result<(), String> {
    for sink in &built.snapshot.sinks {
        sink.open()
            .map_err(|error| format!("access_log {:?} cannot be opened: {error}", sink.target))?;
    }
    access
        .start(&built.snapshot.sinks)
        .map_err(|error| format!("the access log cannot be started: {error}"))
}

fn stores_of(built: &Built) -> impl Iterator<Item = &Arc<Kept>> {
    built.snapshot.caches.stores.iter()
}

fn upstreams_of(built: &Built) -> impl Iterator<Item = &Upstream> {
    built.snapshot.upstreams.iter().map(|upstream| &**upstream)
}

/// What the caches of a site have done; none if no request has come to one.
fn cache_status(site: &SiteCounts) -> Option<serde_json::Value> {
    let total = site.cached()?;
    let mut status = serde_json::json!({
        "site": &*site.name,
        "store_bytes": total.store_bytes,
        "origin_bytes": total.origin_bytes,
    });
    for (how, count) in How::ALL.iter().zip(total.hows) {
        status[how.name()] = count.into();
    }
    let whys = Why::all().zip(total.whys).filter(|(_, count)| *count > 0);
    status["reasons"] = whys.map(|(why, count)| (why.token(), count)).collect();
    Some(status)
}

/// Purges and gives the memory back off this thread, which answers others meanwhile: the one waits
/// for disks, the other takes a while.
fn carry_out(
    purge: Prepared,
    process: Arc<Process>,
    answer: oneshot::Sender<Result<serde_json::Value, NotDone>>,
) {
    tokio::spawn(async move {
        let in_force = tokio::task::spawn_blocking(|| purge.put_in_force()).await;
        let done = match in_force {
            Ok(Ok(in_force)) => sweep(in_force, process).await,
            Ok(Err(not_done)) => Err(not_done),
            Err(error) => Err(NotDone::NotWritten(format!("the purge failed: {error}"))),
        };
        // Who asked may be gone.
        let _ = answer.send(done);
    });
}

async fn sweep(purged: InForce, process: Arc<Process>) -> Result<serde_json::Value, NotDone> {
    let swept = crate::compute::run(move || {
        let (done, bytes) = purged.sweep();
        process.give_back(bytes);
        done
    });
    // The purge is in force all the same; memory comes back with the next one.
    swept
        .await
        .map_err(|fault| NotDone::Mistake(format!("purged, but not counted: {fault}")))
}

fn now() -> Tick {
    Tick::from_millis(forebay_sys::clock::coarse_ms())
}

fn warn_unresolved(names: Vec<String>) {
    for name in names {
        tracing::warn!("a name cannot be resolved: {name}; it is tried again");
    }
}

/// Whoever finds a mistake in a program that runs as root has the machine.
fn warn_of_root(built: &Built) {
    if process::is_root() {
        for what in &built.own_programs {
            tracing::warn!("{what}: its programs run as root; give it a `user`, or `server` one");
        }
    }
}

fn watch_signal(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("a signal cannot be watched: {error}"))
}

/// The workers that are about to end.
#[derive(Default)]
struct Ending {
    /// Each says here when it has ended.
    draining: Vec<oneshot::Receiver<()>>,
    /// While these are held, exchanges may go on.
    go_on: Vec<oneshot::Sender<()>>,
}

impl Ending {
    /// Waits until all have ended. May be given up and begun again.
    async fn wait(&mut self) {
        while let Some(one) = self.draining.last_mut() {
            let _ = one.await;
            self.draining.pop();
        }
    }
}

impl Server {
    /// Binds what the configuration names, becomes the user it names, and starts the workers.
    async fn start(
        source: Source,
        built: Built,
        helper: Helper,
    ) -> Result<(Server, Option<admin::Socket>), String> {
        let count = worker_count(&built)?;
        let inherited = Inherited::take()?;
        let mut sockets = bind_new((&helper, &inherited), &built, &[], count)?;
        let admin = admin::bind(&built.server)?;
        secret::prepare(upstreams_of(&built), &built.server.state);
        let was_root = process::is_root();
        let mut identity = None;
        // While this is the only thread: others would keep their rights.
        if let Some(user) = &built.server.user {
            let become_it = process::resolve_identity(user)?;
            stores_of(&built).for_each(|kept| kept.disks.make_for(&become_it));
            process::become_identity(&become_it)?;
            // The helper is still root: programs are to be who this server is.
            identity = was_root.then_some(become_it);
        }
        // What the helper keeps: it has bound all there is.
        process::give_up_low_ports()
            .map_err(|error| format!("low ports cannot be given up: {error}"))?;
        let process = Arc::new(Process::default());
        process
            .max_connections
            .store(max_connections(&built), Relaxed);
        process.workers.store(count, Relaxed);
        // As the user that the server has become, with all threads from here on. It can open its logs
        // anew then.
        crate::log::detach()
            .map_err(|error| format!("the error log cannot be started: {error}"))?;
        open_logs(&built, &process.access)?;
        // Before anybody asks: what is on disks is found by the first request.
        stores_of(&built).for_each(|kept| kept.put_in_service());
        warn_of_root(&built);
        let mut names = Names::default();
        warn_unresolved(names.watch(&built.snapshot.upstreams).await);
        let mut checks = Checks::default();
        checks.watch(&built.snapshot.upstreams, &process);
        let mut key_sets = KeySets::default();
        key_sets.watch(&built.snapshot.key_sets, &mut names);
        let mut processes = Processes::default();
        processes.watch(&built.snapshot.upstreams, &helper, identity.as_ref())?;
        let mut reports = Reports::default();
        let bound = reports.bind(&built.snapshot.upstreams)?;
        reports.watch(&built.snapshot.upstreams, bound);
        let mut workers = Vec::new();
        for index in 0..count {
            let start = Start {
                index,
                snapshot: built.snapshot.clone(),
                doors: sockets.of(index, count),
                counters: register(&process),
                process: process.clone(),
                programs: Channel {
                    socket: helper.channel().map_err(|error| error.to_string())?,
                    identity: identity.clone(),
                },
            };
            let (mailbox, _thread) =
                worker::start(start).map_err(|error| format!("a worker cannot start: {error}"))?;
            workers.push(mailbox);
        }
        // Set here and nowhere else.
        let _ = process.mailboxes.set(workers.clone().into());
        let generations = vec![Arc::downgrade(&built.snapshot.generation)];
        let server = Server {
            source,
            built: Arc::new(built),
            helper: Arc::new(helper),
            inherited,
            workers,
            process,
            names,
            checks,
            key_sets,
            processes,
            reports,
            identity,
            generations,
            started: Instant::now(),
            service: Service::of_environment(),
            reloads: 0,
            failed_reloads: 0,
            watched: Box::pin(std::future::pending()),
        };
        Ok((server, admin))
    }

    async fn run(mut self, admin: Option<admin::Socket>, signals: Signals) -> Result<(), String> {
        let Signals {
            mut term,
            mut int,
            mut hup,
            mut usr1,
        } = signals;
        let (commands, mut asked) = mpsc::channel(COMMANDS);
        let admin = admin.map(|socket| tokio::spawn(admin::serve(socket, commands.clone())));
        self.watch(None);
        self.service.ready(&self.built, &self.workers).await?;
        let stopped = loop {
            tokio::select! {
                _ = term.recv() => break None,
                _ = int.recv() => break None,
                _ = hup.recv() => self.reload_unasked().await,
                () = &mut self.watched => self.reload_unasked().await,
                // The files of access logs have been renamed: `logrotate` says so.
                _ = usr1.recv() => self.process.access.reopen(&self.built.snapshot.sinks),
                command = asked.recv() => match command {
                    Some(Command::Reload(answer)) => {
                        // Who asked may have gone meanwhile; it is done all the same.
                        let _ = answer.send(self.reload().await);
                    }
                    Some(Command::Status(answer)) => {
                        let _ = answer.send(self.status());
                    }
                    Some(Command::Metrics(answer)) => {
                        let snapshot = &self.built.snapshot;
                        let text =
                            render_metrics(&self.process, snapshot, Dialect::Prometheus);
                        let _ = answer.send(text);
                    }
                    Some(Command::Order(order, answer)) => {
                        let upstreams = &self.built.snapshot.upstreams;
                        let _ = answer.send(order.carry_out(upstreams, now()));
                    }
                    Some(Command::Purge(purge, answer)) => {
                        match purge.prepare(&self.built.snapshot) {
                            Ok(prepared) => carry_out(prepared, self.process.clone(), answer),
                            Err(wrong) => _ = answer.send(Err(NotDone::Mistake(wrong))),
                        }
                    }
                    Some(Command::Snapshot(answer)) => {
                        let _ = answer.send(self.built.snapshot.clone());
                    }
                    Some(Command::Stop(answer)) => break Some(answer),
                    None => break None,
                },
            }
        };
        // Once the drain has ended, all of these have their own times.
        let drain = self.built.server.drain;
        let limit = drain + 3 * LAST_LINES + LAST_BLOCKS + LAST_PROCESSES;
        self.service.stopping(limit);
        let mut ending = Ending::default();
        tokio::select! {
            () = self.drain(&mut ending) => {}
            // A second signal means now.
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        self.end(ending).await;
        self.processes.stop().await;
        if let Some(stopped) = stopped {
            // Who hears that it has stopped may start another one at once, which needs the place of the
            // admin socket; nor shall a command still find this one.
            if let Some(admin) = admin {
                admin.abort();
                let _ = admin.await;
            }
            let _ = stopped.send(());
            // The answer has to leave before the process does.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // It ends by itself once nobody holds its socket; waiting for it leaves nothing behind.
        if let Ok(helper) = Arc::try_unwrap(self.helper)
            && let Err(error) = helper.stop()
        {
            tracing::debug!(%error, "the helper did not end");
        }
        Ok(())
    }

    /// Lets exchanges under way end, within the time for that.
    async fn drain(&mut self, ending: &mut Ending) {
        tracing::info!("stopping: finishing what is under way");
        let drained = async {
            for mailbox in &self.workers {
                let ((done, drained), (go_on, cut)) = (oneshot::channel(), oneshot::channel());
                if mailbox.send(Mail::Drain { done, cut }).await.is_ok() {
                    ending.draining.push(drained);
                    ending.go_on.push(go_on);
                }
            }
            ending.wait().await;
        };
        if tokio::time::timeout(self.built.server.drain, drained)
            .await
            .is_err()
        {
            tracing::warn!("some exchanges did not end in time and are cut");
        }
    }

    /// Reloads where nobody waits for the answer.
    async fn reload_unasked(&mut self) {
        match self.reload().await {
            Ok(summary) => tracing::info!("{summary}"),
            Err(mistakes) => eprint!("{mistakes}"),
        }
    }

    /// Waits from now on for a change, if that is asked for: of what is in service was made of, or of
    /// what a reload has read that failed just now. That is what somebody will mend; and until then it
    /// would fail again.
    fn watch(&mut self, failed: Option<Made>) {
        self.watched = if self.built.server.watch {
            let made = failed.unwrap_or_else(|| self.built.made.clone());
            Box::pin(watch::changed(made))
        } else {
            Box::pin(std::future::pending())
        };
    }

    /// Cuts what is still under way and writes the access logs to their end.
    async fn end(&self, mut ending: Ending) {
        ending.go_on.clear();
        if tokio::time::timeout(LAST_LINES, ending.wait())
            .await
            .is_err()
        {
            tracing::warn!("a worker does not end");
        }
        self.process.access.finish(LAST_LINES).await;
        let stores = self.built.snapshot.caches.stores.clone();
        let close = move || stores.iter().for_each(|kept| kept.disks.close());
        let closed = tokio::time::timeout(LAST_BLOCKS, tokio::task::spawn_blocking(close));
        if closed.await.is_err() {
            tracing::warn!(
                "a disk of a cache does not end: its index is read anew at the next start"
            );
        }
    }

    /// Loads the configuration anew and puts it into service; on any mistake the old one stays.
    async fn reload(&mut self) -> Result<String, String> {
        let mut failed = None;
        self.service.reloading();
        let outcome = self.try_reload(&mut failed).await;
        self.service.reloaded(&self.built, outcome.is_err());
        match &outcome {
            Ok(_) => {
                self.reloads += 1;
                failed = None;
            }
            Err(_) => self.failed_reloads += 1,
        }
        self.watch(failed);
        outcome
    }

    /// `made`: what it has read, should it fail.
    async fn try_reload(&mut self, made: &mut Option<Made>) -> Result<String, String> {
        let (source, previous) = (self.source.clone(), self.built.clone());
        // Off this thread: a large configuration takes a second, and the admin socket answers
        // meanwhile. On a thread of its own, not one that is kept: what loading took goes back to
        // the allocator as a whole when the thread ends.
        let (told, built) = oneshot::channel();
        let access = self.process.access.clone();
        let load = move || {
            let begun = SystemTime::now();
            let built = source
                .build(Some(&previous))
                .map_err(|report| {
                    // Also what is in service was made of: the mistake may be that it is gone.
                    let mut inputs = previous.made.inputs.clone();
                    inputs.add(report.sources().paths());
                    (report.render(), Made::of(inputs, begun))
                })
                .and_then(|(built, report)| {
                    // Here, because opening a file may wait for a disk.
                    match open_logs(&built, &access) {
                        Ok(()) => Ok((built, report.render_warnings())),
                        Err(error) => {
                            let said = format!("forebay: {error}\nnothing was changed\n");
                            Err((said, built.made))
                        }
                    }
                });
            give_back_free();
            // The server may be stopping.
            let _ = told.send(built);
        };
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(load)
            .map_err(|error| format!("the reload failed: {error}\n"))?;
        let built = built
            .await
            .map_err(|error| format!("the reload failed: {error}\n"))?;
        let (built, warnings) = built.map_err(|(mistakes, read)| {
            *made = Some(read);
            mistakes
        })?;
        *made = Some(built.made.clone());
        let heard = self.reports.bind(&built.snapshot.upstreams);
        let heard = heard.map_err(|error| format!("forebay: {error}\nnothing was changed\n"))?;
        let mut sockets = bind_new(
            (&self.helper, &self.inherited),
            &built,
            &self.built.binds,
            self.workers.len(),
        )
        .map_err(|error| format!("forebay: {error}\nnothing was changed\n"))?;
        warn_of_root(&built);
        warn_unresolved(self.names.watch(&built.snapshot.upstreams).await);
        secret::prepare(upstreams_of(&built), &built.server.state);
        let upstreams = &built.snapshot.upstreams;
        self.checks.watch(upstreams, &self.process);
        self.processes
            .watch(
                &built.snapshot.upstreams,
                &self.helper,
                self.identity.as_ref(),
            )
            .map_err(|error| format!("forebay: {error}\nnothing was changed\n"))?;
        self.reports.watch(&built.snapshot.upstreams, heard);
        let key_sets = &built.snapshot.key_sets;
        self.key_sets.watch(key_sets, &mut self.names);
        let stays = |old: &&Bind| built.binds.iter().any(|new| new.id == old.id);
        let close: Vec<ListenerId> = self
            .built
            .binds
            .iter()
            .filter(|old| !stays(old))
            .map(|old| old.id)
            .collect();
        // From now on nobody finds them; who has is still answered.
        remove_files(
            &self.helper,
            self.built.binds.iter().filter(|old| !stays(old)),
        );
        let mut waiting = Vec::new();
        for (index, mailbox) in self.workers.iter().enumerate() {
            let (done, ready) = oneshot::channel();
            let mail = Mail::Snapshot {
                snapshot: built.snapshot.clone(),
                open: sockets.of(index, self.workers.len()),
                close: close.clone(),
                done,
            };
            mailbox
                .send(mail)
                .await
                .map_err(|_| "a worker has ended\n".to_owned())?;
            waiting.push(ready);
        }
        for ready in waiting {
            ready.await.map_err(|_| "a worker has ended\n".to_owned())?;
        }
        self.process
            .max_connections
            .store(max_connections(&built), Relaxed);
        self.generations
            .retain(|generation| generation.strong_count() > 0);
        self.generations
            .push(Arc::downgrade(&built.snapshot.generation));
        let number = built.snapshot.generation.number;
        let summary = format!(
            "{warnings}generation {number} of {} is in service",
            self.source.name()
        );
        let stores = built.snapshot.caches.stores.clone();
        let stays = |old: &&Arc<Kept>| stores.iter().any(|new| Arc::ptr_eq(&new.disks, &old.disks));
        let gone: Vec<_> = stores_of(&self.built)
            .filter(|old| !stays(old))
            .cloned()
            .collect();
        // Off this thread: it waits for disks, and of much that is too much in memory, it takes a
        // while to throw it out.
        tokio::task::spawn_blocking(move || {
            gone.iter().for_each(|kept| kept.disks.close());
            stores.iter().for_each(|kept| kept.put_in_service());
        });
        // What `forebay log` has said since holds no longer.
        crate::log::set_level(built.server.log);
        self.built = Arc::new(built);
        self.process.access.reopen(&self.built.snapshot.sinks);
        give_back_free();
        Ok(summary)
    }

    fn status(&self) -> serde_json::Value {
        let live: Vec<u64> = self
            .generations
            .iter()
            .filter_map(|generation| Some(generation.upgrade()?.number))
            .collect();
        let listeners: Vec<String> = self
            .built
            .binds
            .iter()
            .map(|bind| bind.address.to_string())
            .collect();
        let now = now();
        let upstreams: Vec<serde_json::Value> = self
            .built
            .snapshot
            .upstreams
            .iter()
            .map(|upstream| upstream.status(now))
            .collect();
        let stores: Vec<serde_json::Value> = self
            .built
            .snapshot
            .caches
            .stores
            .iter()
            .map(|kept| kept.status())
            .collect();
        let sites = self.built.snapshot.sites.iter();
        let caches: Vec<serde_json::Value> = sites.filter_map(|site| cache_status(site)).collect();
        let all = self.process.all.lock();
        let sum = |of: fn(&Counters) -> u64| all.iter().map(|counters| of(counters)).sum::<u64>();
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "helper_pid": self.helper.id(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "config": self.source.name(),
            "generation": self.built.snapshot.generation.number,
            "generations_alive": live,
            "reloads": self.reloads,
            "reloads_failed": self.failed_reloads,
            "workers": self.workers.len(),
            "listeners": listeners,
            "connections": self.process.connections.load(Relaxed),
            "max_connections": self.process.max_connections.load(Relaxed),
            "requests": sum(|counters| counters.requests.get()),
            "memory_bytes": process::resident_memory().unwrap_or(0),
            "upstreams": upstreams,
            "stores": stores,
            "caches": caches,
        })
    }
}
