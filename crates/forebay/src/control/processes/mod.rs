//! The processes of `processes`: started, watched, replaced, and ended with the server.
//!
//! ```text
//!             start                       crash: the same slot again, later and later
//!   off ────────────────▶ running ──────────────────────────────────────▶ paused ──▶ running
//!    ▲                       │ had its requests, or is not needed
//!    │ ended                 ▼
//!    └──────────────────  leaving: no new requests; asked to end when the last is answered
//! ```
//!
//! A thread of its own does it for all pools: it looks at each of them ten times a second, and at once
//! when a process has ended or a worker finds none free. What it decides, workers see in the pool: a
//! slot serves, drains or rests.

mod output;
mod share;
mod sockets;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_balance::{Duty, Load, Tick};
use forebay_sys::process::{End, Identity, Usage, group_cpu_us, tree_usage};
use rustc_hash::FxHashSet;
use tokio::net::unix::pipe;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::helper::Helper;
use crate::helper::programs::{Channel, Place, Program, Programs, Spec, Watch};
use crate::log::Ration;
use crate::upstream::fleet::{self, Fleet, run_dir};
use crate::upstream::tally::{Gone, Tally};
use crate::upstream::{Protocol, Upstream};

use share::Share;

/// So often a pool is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// And so often while one of its processes is at the end of its share of a core.
const CLOSE_LOOK: Duration = Duration::from_millis(25);
/// So often it is told in the log that a process is held back.
const TELL_HELD: Duration = Duration::from_secs(60);
/// So often it is measured what its processes take.
const MEASURE: Duration = Duration::from_secs(1);
/// A process that was not needed for so long is ended, if there are more than must be.
const SPARE_TIME: Duration = Duration::from_secs(30);
/// What lives shorter than this and then fails has failed to start.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// What fails to start is tried again after this, then after twice as long, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// While it waits longer than this to be tried again, its slot takes no requests.
const REST_PAUSE: Duration = Duration::from_secs(1);
/// How long a process that is asked to end may take.
const GRACE: Duration = Duration::from_secs(5);
/// At the server's stop all have so long.
const LAST_GRACE: Duration = Duration::from_secs(2);
/// Lines of one pool that are logged in a second.
const LINES: u64 = 50;
/// Where programs are looked for, and look for others, unless `env` says so.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A pool to be looked after, and the sockets of its slots.
type New = (Arc<Upstream>, Vec<UnixListener>);

enum Order {
    Watch(Vec<New>),
    Stop(oneshot::Sender<()>),
}

/// The way to the thread that looks after all pools.
#[derive(Default)]
pub struct Processes {
    thread: Option<(mpsc::UnboundedSender<Order>, JoinHandle<()>)>,
    known: FxHashSet<u64>,
}

impl Processes {
    /// Looks after those of these pools that have processes of their own, from now on and as long as
    /// anybody uses them. Their sockets are there when it comes back.
    ///
    /// # Errors
    /// A sentence: no socket can be bound, or no thread be started.
    pub fn watch(
        &mut self,
        upstreams: &[Arc<Upstream>],
        helper: &Helper,
        identity: Option<&Identity>,
    ) -> Result<(), String> {
        let mut new = Vec::new();
        for upstream in upstreams {
            if let Some(fleet) = &upstream.fleet
                && !self.known.contains(&upstream.id)
            {
                let sockets = sockets::bind(fleet, upstream.definition.processes.as_ref());
                let name = &upstream.definition.name;
                let sockets = sockets.map_err(|error| {
                    let dir = run_dir().display();
                    format!("processes \"{name}\": no socket can be bound in {dir}: {error}")
                })?;
                new.push((upstream.clone(), sockets));
            }
        }
        let mut all = upstreams.iter().map(|upstream| upstream.id);
        self.known = all.by_ref().collect();
        if new.is_empty() {
            return Ok(());
        }
        if self.thread.is_none() {
            let socket = helper.channel().map_err(|error| error.to_string())?;
            let channel = Channel {
                socket,
                identity: identity.cloned(),
            };
            self.thread = Some(start(channel).map_err(|error| {
                format!("the thread that looks after processes cannot start: {error}")
            })?);
        }
        if let Some((orders, _)) = &self.thread {
            // It ends only when it is told to.
            let _ = orders.send(Order::Watch(new));
        }
        Ok(())
    }

    /// Ends all processes; comes back when they have ended, or have been killed.
    pub async fn stop(&mut self) {
        if let Some((orders, thread)) = self.thread.take() {
            let (done, stopped) = oneshot::channel();
            if orders.send(Order::Stop(done)).is_ok() {
                let _ = stopped.await;
            }
            if thread.join().is_err() {
                tracing::error!("the thread that looks after processes panicked");
            }
            let _ = std::fs::remove_dir_all(run_dir());
        }
    }
}

fn start(channel: Channel) -> io::Result<(mpsc::UnboundedSender<Order>, JoinHandle<()>)> {
    // One order for each reload, and one for the stop; whoever gives them waits for nothing.
    let (orders, told) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new()
        .name("processes".to_owned())
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(look_after_all(told, channel)),
                Err(error) => tracing::error!(%error, "processes cannot be looked after"),
            }
        })?;
    Ok((orders, thread))
}

async fn look_after_all(mut told: mpsc::UnboundedReceiver<Order>, channel: Channel) {
    let programs = Rc::new(Programs::default());
    programs.connect(channel);
    let (stop, stopping) = watch::channel(false);
    let mut keepers = JoinSet::new();
    while let Some(order) = told.recv().await {
        match order {
            Order::Watch(new) => {
                // Those that have ended are of no interest.
                while keepers.try_join_next().is_some() {}
                for (upstream, sockets) in new {
                    let keeper = Keeper::new(upstream, sockets, programs.clone());
                    if let Some(keeper) = keeper {
                        keepers.spawn_local(keeper.run(stopping.clone()));
                    }
                }
            }
            Order::Stop(done) => {
                let _ = stop.send(true);
                while keepers.join_next().await.is_some() {}
                let _ = done.send(());
                return;
            }
        }
    }
}

/// Looks after one pool.
struct Keeper {
    upstream: Arc<Upstream>,
    spec: fleet::Spec,
    programs: Rc<Programs>,
    slots: Vec<Slot>,
    lines: Rc<Ration>,
    measured: Instant,
    /// When as many processes were last needed as there are.
    needed: Instant,
}

struct Slot {
    socket: Rc<OwnedFd>,
    state: State,
    /// How often in a row it has failed to start.
    failures: u32,
}

enum State {
    Off,
    Running(Running),
    Paused {
        until: Instant,
    },
    Leaving {
        running: Running,
        since: Instant,
        /// It had nothing to do when it was looked at last.
        was_free: bool,
        is_asked: bool,
    },
}

struct Running {
    program: Program,
    since: Instant,
    /// What its slot had had before it.
    requests_before: u64,
    /// Why it is to end, if it is.
    why: Option<Gone>,
    /// What it had taken when it was measured last.
    usage: Usage,
    /// What it may take of a core.
    share: Share,
    /// Since when it is held back.
    held_since: Option<Instant>,
    /// When it was told last that it is held back.
    told_held: Option<Instant>,
}

impl Running {
    /// It is being killed.
    fn is_condemned(&self) -> bool {
        matches!(self.why, Some(Gone::Time | Gone::Memory))
    }
}

fn now() -> Tick {
    Tick::from_millis(forebay_sys::clock::coarse_ms())
}

impl Keeper {
    fn new(
        upstream: Arc<Upstream>,
        sockets: Vec<UnixListener>,
        programs: Rc<Programs>,
    ) -> Option<Keeper> {
        let spec = upstream.definition.processes.clone()?;
        let slots = sockets.into_iter().map(|socket| Slot {
            socket: Rc::new(socket.into()),
            state: State::Off,
            failures: 0,
        });
        Some(Keeper {
            spec,
            programs,
            slots: slots.collect(),
            lines: Rc::new(Ration::new(LINES)),
            measured: Instant::now(),
            needed: Instant::now(),
            upstream,
        })
    }

    /// As long as anybody uses the pool, or until the server stops.
    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        while !*stopping.borrow_and_update() {
            self.look();
            // Whoever has a place here, or waits for one, holds the pool.
            if Arc::strong_count(&self.upstream) == 1 {
                break;
            }
            let Some(fleet) = &self.upstream.fleet else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(self.pause()) => {}
                () = fleet.wake.notified() => {}
                _ = stopping.changed() => {}
            }
        }
        let grace = match *stopping.borrow() {
            true => LAST_GRACE,
            false => GRACE,
        };
        self.end(grace).await;
    }

    /// How long nothing has to be looked at.
    fn pause(&self) -> Duration {
        let is_tight = |slot: &Slot| match &slot.state {
            State::Running(running) | State::Leaving { running, .. } => running.share.is_tight(),
            State::Off | State::Paused { .. } => false,
        };
        match self.slots.iter().any(is_tight) {
            true => CLOSE_LOOK,
            false => LOOK,
        }
    }

    /// Ends all of them.
    async fn end(mut self, grace: Duration) {
        for slot in &mut self.slots {
            if let State::Running(running) | State::Leaving { running, .. } = &slot.state {
                running.program.end(grace);
            }
        }
        for slot in self.slots {
            if let State::Running(running) | State::Leaving { running, .. } = slot.state {
                running.program.watch().over().await;
            }
        }
        if let Some(fleet) = &self.upstream.fleet {
            for socket in &fleet.sockets {
                // At the server's stop their directory goes as a whole.
                let _ = std::fs::remove_file(socket);
            }
        }
    }

    /// Does what there is to be done.
    fn look(&mut self) {
        let now = Instant::now();
        let since = now.duration_since(self.measured);
        if since >= MEASURE {
            self.measured = now;
            self.measure(since);
        }
        for number in 0..self.slots.len() {
            self.take_end(number, now);
            self.enforce(number);
            self.hold_back(number, now);
            self.let_go(number, now);
        }
        self.recycle(now);
        self.scale(now);
    }

    /// Takes note of a process that has ended.
    fn take_end(&mut self, number: usize, now: Instant) {
        let (running, leaves) = match &self.slots[number].state {
            State::Running(running) => (running, false),
            State::Leaving { running, .. } => (running, true),
            State::Paused { until } if *until <= now => return self.start(number),
            State::Paused { .. } | State::Off => return,
        };
        let Some(ended) = running.program.ended() else {
            if let (Some(tally), Some(pid)) = (self.tally(), running.program.pid()) {
                tally.note_pid(number, pid);
            }
            return;
        };
        let served = self.requests(number) > running.requests_before;
        let why = match &ended {
            Err(_) => Gone::Start,
            Ok(over) => running.why.unwrap_or(match over.end {
                End::Exited(0) if served => Gone::Exit,
                _ => Gone::Crash,
            }),
        };
        if let Some(tally) = self.tally() {
            if let Some(since) = running.held_since {
                tally.note_held(number, Some(now.duration_since(since)));
            }
            tally.note_gone(number, why);
        }
        if leaves {
            self.slots[number].state = State::Off;
            self.duty(number, Duty::Rest);
            return;
        }
        let lived = now.duration_since(running.since);
        let is_well = !matches!(why, Gone::Start | Gone::Crash);
        let peer = &*self.upstream.peers[number].label;
        if !is_well {
            match ended {
                Ok(over) => {
                    let how = match over.end {
                        End::Exited(status) => format!("ended with status {status}"),
                        End::Killed(signal) => format!("was ended by signal {signal}"),
                    };
                    tracing::warn!(peer, ?lived, "a process {how}: it is started again");
                }
                Err(error) => tracing::error!(peer, "a process cannot be started: {error}"),
            }
        }
        let slot = &mut self.slots[number];
        slot.failures = match is_well || lived >= SHORT_LIFE {
            true => 0,
            false => slot.failures.saturating_add(1),
        };
        // The first time at once: what serves well and crashes now and then is to be there again.
        match slot.failures {
            0 | 1 => self.start(number),
            failures => {
                let pause = FIRST_PAUSE
                    .saturating_mul(1 << (failures - 2).min(20))
                    .min(LONGEST_PAUSE);
                slot.state = State::Paused { until: now + pause };
                if pause > REST_PAUSE {
                    self.duty(number, Duty::Rest);
                    self.refuse(number);
                }
            }
        }
    }

    /// Measures what they take, and tells the pool how busy they are.
    fn measure(&mut self, since: Duration) {
        let mut loads = Vec::with_capacity(self.slots.len());
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if let State::Running(running) | State::Leaving { running, .. } = &mut slot.state
                && let Some(pid) = running.program.pid()
            {
                let usage = tree_usage(pid);
                let before = std::mem::replace(&mut running.usage, usage);
                loads.push((number, load(&before, &usage, since, &self.spec)));
                if let Some(fleet) = &self.upstream.fleet {
                    fleet.tally.note_memory(number, usage.memory_bytes);
                }
            }
        }
        self.upstream.pool.report_loads(&loads, MEASURE, now());
    }

    /// Kills a process that has taken too long or too much.
    fn enforce(&mut self, number: usize) {
        let overran = self
            .upstream
            .fleet
            .as_ref()
            .is_some_and(|fleet| fleet.take_overran(number));
        let slot = &mut self.slots[number];
        let (State::Running(running) | State::Leaving { running, .. }) = &mut slot.state else {
            return;
        };
        if running.is_condemned() {
            return;
        }
        let peer = &*self.upstream.peers[number].label;
        if overran {
            tracing::warn!(
                peer,
                "a process took too long for a request: it is replaced"
            );
        } else if running.usage.memory_bytes > self.spec.memory {
            let bytes = running.usage.memory_bytes;
            tracing::warn!(
                peer,
                bytes,
                "a process holds too much memory: it is replaced"
            );
        } else {
            return;
        }
        running.why = Some(match overran {
            true => Gone::Time,
            false => Gone::Memory,
        });
        running.program.end(Duration::ZERO);
    }

    /// Stops a process that has taken more than its share of a core, and lets it go on.
    fn hold_back(&mut self, number: usize, now: Instant) {
        let is_busy = self.upstream.pool.view(number, self::now()).in_flight > 0;
        let running = match &mut self.slots[number].state {
            State::Running(running) => running,
            // Who is asked to end goes on, to hear it.
            State::Leaving {
                running,
                is_asked: false,
                ..
            } => running,
            _ => return,
        };
        let Some(pid) = running.program.pid() else {
            return;
        };
        if running.is_condemned() || !running.share.is_due(is_busy, now) {
            return;
        }
        running.share.handle_taken(group_cpu_us(pid), now);
        let is_held = running.share.is_used_up();
        if is_held == running.share.is_held() || !running.program.hold(is_held) {
            return;
        }
        running.share.set_held(is_held);
        let since = match is_held {
            true => running.held_since.replace(now),
            false => running.held_since.take(),
        };
        if let Some(fleet) = &self.upstream.fleet {
            let time = since.map(|since| now.duration_since(since));
            fleet.tally.note_held(number, time);
        }
        let is_news = |told: Instant| now.duration_since(told) >= TELL_HELD;
        if is_held && running.told_held.is_none_or(is_news) {
            running.told_held = Some(now);
            let peer = &*self.upstream.peers[number].label;
            tracing::warn!(
                peer,
                "a process takes more than its share of a core: it is held back"
            );
        }
    }

    /// Asks a process to end that is to leave and has nothing to do.
    fn let_go(&mut self, number: usize, now: Instant) {
        let in_flight = self.upstream.pool.view(number, self::now()).in_flight;
        let State::Leaving {
            running,
            since,
            was_free,
            is_asked,
        } = &mut self.slots[number].state
        else {
            return;
        };
        // Twice: somebody may have chosen it just before it was to get no more.
        let is_free = in_flight == 0 && std::mem::replace(was_free, in_flight == 0);
        let is_late = now.duration_since(*since) > self.spec.time.saturating_add(GRACE);
        if (is_free || is_late) && !*is_asked {
            *is_asked = true;
            running.program.end(GRACE);
            if let (Some(since), Some(fleet)) = (running.held_since.take(), &self.upstream.fleet) {
                fleet
                    .tally
                    .note_held(number, Some(now.duration_since(since)));
            }
        }
    }

    /// Replaces what has had its requests, as many at a time as there are slots to spare: first there
    /// is another one, then it leaves.
    fn recycle(&mut self, now: Instant) {
        for number in 0..self.slots.len() {
            let State::Running(running) = &self.slots[number].state else {
                continue;
            };
            let had = self
                .requests(number)
                .saturating_sub(running.requests_before);
            if had < self.spec.max_requests || running.is_condemned() {
                continue;
            }
            let Some(spare) = self.off() else {
                return;
            };
            self.start(spare);
            self.leave(number, Gone::Requests, now);
        }
    }

    /// As many as are needed.
    fn scale(&mut self, now: Instant) {
        let is_full = self.upstream.fleet.as_ref().is_some_and(Fleet::take_full);
        let waiting = self.upstream.waiting();
        let active = self.active();
        let is_short = is_full || waiting > 0;
        let more = if active < self.spec.least {
            self.spec.least - active
        } else if is_short {
            // Twice as many each time: a burst is met soon, and one request more is no burst.
            let room = self.spec.most.saturating_sub(active);
            room.min(waiting.max(1)).min(active.max(1))
        } else {
            0
        };
        for _ in 0..more {
            if let Some(spare) = self.off() {
                self.start(spare);
            }
        }
        let busy = self.busy();
        if is_short || busy >= active || active <= self.spec.least {
            self.needed = now;
        } else if now.duration_since(self.needed) >= SPARE_TIME {
            self.needed = now;
            let is_running = |slot: &Slot| matches!(slot.state, State::Running(_));
            if let Some(last) = self.slots.iter().rposition(is_running) {
                self.leave(last, Gone::Spare, now);
            }
        }
    }

    /// How many there are that do not leave.
    fn active(&self) -> usize {
        let is_active =
            |slot: &&Slot| matches!(slot.state, State::Running(_) | State::Paused { .. });
        self.slots.iter().filter(is_active).count()
    }

    /// How many have something to do.
    fn busy(&self) -> usize {
        let is_busy = |number: &usize| self.upstream.pool.view(*number, now()).in_flight > 0;
        (0..self.slots.len()).filter(is_busy).count()
    }

    /// The first slot without a process.
    fn off(&self) -> Option<usize> {
        let is_off = |slot: &Slot| matches!(slot.state, State::Off);
        self.slots.iter().position(is_off)
    }

    fn leave(&mut self, number: usize, why: Gone, since: Instant) {
        let slot = &mut self.slots[number];
        slot.state = match std::mem::replace(&mut slot.state, State::Off) {
            State::Running(running) => State::Leaving {
                running: Running {
                    // What it is being killed for came first.
                    why: running.why.or(Some(why)),
                    ..running
                },
                since,
                was_free: false,
                is_asked: false,
            },
            other => other,
        };
        self.duty(number, Duty::Drain);
    }

    fn duty(&self, number: usize, duty: Duty) {
        self.upstream.order(number, duty, now());
    }

    fn tally(&self) -> Option<&Tally> {
        self.upstream.fleet.as_ref().map(|fleet| &fleet.tally)
    }

    fn requests(&self, number: usize) -> u64 {
        let requests = &self.upstream.peers[number].requests;
        requests.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Starts a process in a slot, which serves from then on: what connects before it listens waits.
    fn start(&mut self, number: usize) {
        if let Some(fleet) = &self.upstream.fleet {
            // What is said of the one before is not about this one.
            let _ = fleet.take_overran(number);
            self.upstream.pool.forget_load(number);
        }
        match self.program(number) {
            Ok(program) => {
                self.wake_at_end(program.watch());
                if let Some(tally) = self.tally() {
                    tally.note_start();
                }
                self.slots[number].state = State::Running(Running {
                    program,
                    since: Instant::now(),
                    requests_before: self.requests(number),
                    why: None,
                    usage: Usage::default(),
                    share: Share::new(self.spec.cpu_ppm, Instant::now()),
                    held_since: None,
                    told_held: None,
                });
                self.duty(number, Duty::Serve);
                self.upstream.pool.warm_up(number, now());
            }
            Err(error) => {
                let peer = &*self.upstream.peers[number].label;
                tracing::error!(peer, "a process cannot be started: {error}");
                if let Some(tally) = self.tally() {
                    tally.note_gone(number, Gone::Start);
                }
                let until = Instant::now() + LONGEST_PAUSE;
                self.slots[number].state = State::Paused { until };
                self.duty(number, Duty::Rest);
            }
        }
    }

    /// Refuses what has connected to a slot and waits for a process there. The next one gets a new
    /// socket.
    fn refuse(&mut self, number: usize) {
        let Some(fleet) = &self.upstream.fleet else {
            return;
        };
        let path = &fleet.sockets[number];
        let _ = std::fs::remove_file(path);
        match UnixListener::bind(path) {
            Ok(socket) => self.slots[number].socket = Rc::new(socket.into()),
            Err(error) => {
                let peer = &*self.upstream.peers[number].label;
                tracing::error!(peer, %error, "a process has no socket");
            }
        }
    }

    fn wake_at_end(&self, watch: Watch) {
        let upstream = Arc::downgrade(&self.upstream);
        tokio::task::spawn_local(async move {
            watch.over().await;
            if let Some(upstream) = upstream.upgrade()
                && let Some(fleet) = &upstream.fleet
            {
                fleet.wake.notify_one();
            }
        });
    }

    fn program(&self, number: usize) -> Result<Program, String> {
        let spec = &self.spec;
        let mut environment: Vec<(&[u8], &[u8])> = spec
            .env
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        let path = spec.env.iter().find(|(name, _)| &**name == "PATH");
        let path = path.map_or(SEARCH_PATH, |(_, path)| path);
        if !environment.iter().any(|(name, _)| *name == b"PATH") {
            environment.push((b"PATH", path.as_bytes()));
        }
        let name = spec.command.first().map_or("", |name| name);
        let program = find_program(name, path, &spec.dir)
            .ok_or_else(|| format!("there is no program \"{name}\" in {path}"))?;
        let arguments: Vec<&[u8]> = spec.command.iter().map(|part| part.as_bytes()).collect();
        let (output, its_output) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io_text)?;
        let output = pipe::Receiver::from_owned_fd(output).map_err(|error| error.to_string())?;
        let its_output = Rc::new(its_output);
        let socket = Place::Fd(self.slots[number].socket.clone());
        let (out, err) = (Place::Fd(its_output.clone()), Place::Fd(its_output));
        let is_http = self.upstream.definition.protocol == Protocol::Http;
        let places = match is_http {
            true => vec![Place::Null, out, err, socket],
            false => vec![socket, out, err],
        };
        if is_http {
            environment.push((b"LISTEN_FDS", b"1"));
        }
        let program = self.programs.start(Spec {
            program: program.as_os_str().as_bytes(),
            arguments: &arguments,
            environment: &environment,
            dir: spec.dir.as_os_str().as_bytes(),
            places,
            identity: spec.identity.as_ref(),
            tells_pid: is_http,
            wants_pid: true,
        });
        let program = program.map_err(|error| error.to_string())?;
        let label = self.upstream.peers[number].label.clone();
        let lines = self.lines.clone();
        tokio::task::spawn_local(output::log(output, program.watch(), label, lines));
        Ok(program)
    }
}

/// How busy a process was between two looks: all of a core and of the memory that it may take, and as
/// much as a plain disk does are 100 each.
fn load(before: &Usage, after: &Usage, since: Duration, spec: &fleet::Spec) -> Load {
    const DISK_BYTES: f32 = 100.0 * 1024.0 * 1024.0;
    let seconds = since.as_secs_f32().max(0.001);
    let of = |before: u64, after: u64| as_f32(after.saturating_sub(before)) / seconds;
    Load {
        cpu: 100.0 * of(before.cpu_us, after.cpu_us) / as_f32(spec.cpu_ppm.max(1).into()),
        memory: 100.0 * as_f32(after.memory_bytes) / as_f32(spec.memory.max(1)),
        io: 100.0 * of(before.io_bytes, after.io_bytes) / DISK_BYTES,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "of a share, seven digits are plenty"
)]
fn as_f32(number: u64) -> f32 {
    number as f32
}

fn io_text(error: rustix::io::Errno) -> String {
    io::Error::from(error).to_string()
}

/// The file of a program: as it is written if there is a slash in it, else where `path` leads to.
fn find_program(name: &str, path: &str, dir: &Path) -> Option<std::path::PathBuf> {
    if name.contains('/') {
        return Some(dir.join(name));
    }
    let is_program = |file: &std::path::PathBuf| {
        let found = std::fs::metadata(file);
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let dirs = path.split(':').filter(|dir| !dir.is_empty());
    let mut files = dirs.map(|from| dir.join(from).join(OsStr::new(name)));
    files.find(is_program)
}
