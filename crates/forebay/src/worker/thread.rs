//! A worker's thread: its runtime, its listeners, and the messages it is told.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use forebay_sys::memory::give_back_free;
use rustc_hash::FxHashMap;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{MAILBOX, Mail, Mailbox, Process, Worker};
use crate::access;
use crate::counters::Counters;
use crate::files::pool;
use crate::helper::programs::Channel;
use crate::listen::{Dealt, Door, Listener, ListenerId, REAP, accept_all, deal_all, receive};
use crate::snapshot::Snapshot;
use crate::upstream::Idle;
use crate::wheel;

/// What a worker starts with.
pub struct Start {
    /// 0 for the first.
    pub index: usize,
    /// The configuration in force.
    pub snapshot: Arc<Snapshot>,
    /// Its listeners.
    pub doors: Vec<(ListenerId, Door)>,
    /// Its counters, which others read.
    pub counters: Arc<Counters>,
    /// What is counted over all workers.
    pub process: Arc<Process>,
    /// Its way to have programs started.
    pub programs: Channel,
}

/// Tasks that are polled between two looks at the sockets. Tokio's 61 would make a worker with a
/// hundred busy connections ask the kernel twice per round; more than this and a new event waits
/// too long behind them.
const EVENT_INTERVAL: u32 = 128;

/// Starts a worker on a thread of its own; gives its mailbox.
pub fn start(start: Start) -> io::Result<(Mailbox, JoinHandle<()>)> {
    let (mailbox, mail) = mpsc::channel(MAILBOX);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{}", start.index))
        .spawn(move || {
            // A runtime belongs to the thread that makes it.
            match runtime(start.index) {
                Ok(runtime) => {
                    let (worker, done) = match runtime.block_on(work(start, mail)) {
                        Ok(ended) => ended,
                        Err(error) => {
                            tracing::error!(%error, "a worker cannot start");
                            return;
                        }
                    };
                    // What is still under way ends here; its lines are the last.
                    drop(runtime);
                    worker.book.close(&worker.process.access);
                    // Who gave up waiting is told nothing.
                    let _ = done.map(|done| done.send(()));
                }
                Err(error) => tracing::error!(%error, "a worker cannot start"),
            }
        })?;
    Ok((mailbox, thread))
}

/// Without the runtime's own timers, which are not free even if nobody uses them ([`wheel`]).
fn runtime(index: usize) -> io::Result<LocalRuntime> {
    let mut builder = Builder::new_current_thread();
    if cfg!(not(target_os = "linux")) {
        builder.enable_time();
    }
    builder
        .enable_io()
        .event_interval(EVENT_INTERVAL)
        .max_blocking_threads(pool::THREADS)
        .thread_name(format!("files-{index}"))
        .build_local(LocalOptions::default())
}

async fn work(start: Start, mut mail: mpsc::Receiver<Mail>) -> io::Result<Ended> {
    let worker = Worker::new(start.index, start.snapshot, start.counters, start.process);
    worker.programs.connect(start.programs);
    tokio::task::spawn_local(wheel::driver(worker.wheel.clone())?);
    tokio::task::spawn_local(access::drive(worker.clone()));
    let mut listeners = Listeners {
        worker: worker.clone(),
        open: FxHashMap::default(),
        accepting: JoinSet::new(),
    };
    for (id, door) in start.doors {
        listeners.open(id, door);
    }
    while let Some(message) = mail.recv().await {
        match message {
            Mail::Snapshot {
                snapshot,
                open,
                close,
                done,
            } => {
                for id in close {
                    listeners.close(id);
                }
                listeners.serve(&snapshot);
                worker.replace_snapshot(snapshot);
                for (id, door) in open {
                    listeners.open(id, door);
                }
                // Nobody listens for the answer any more if the reload was given up.
                let _ = done.send(());
            }
            Mail::Dealt(dealt) => listeners.receive(dealt),
            Mail::Ping { done } => {
                // Who asked may have given up.
                let _ = done.send(());
            }
            // Rare, and some milliseconds at most: 20 µs for each megabyte that it goes through.
            Mail::MakeRoom {
                upstream,
                peer,
                left,
            } => {
                if let Some(idle) = worker.known_local::<Idle>(upstream) {
                    idle.make_room_for_other(&worker, peer, left);
                }
            }
            Mail::GiveBack => give_back_free(),
            Mail::CloseIdle => drop(worker.reap_idle(REAP)),
            Mail::Drain { done, cut } => {
                worker.draining.set(true);
                listeners.close_all().await;
                // Others may have dealt before they heard of it; from now on they cannot.
                mail.close();
                while let Some(late) = mail.recv().await {
                    if let Mail::Dealt(dealt) = late {
                        listeners.receive(dealt);
                    }
                }
                worker.close_idle();
                tokio::select! {
                    () = drained(&worker) => {}
                    _ = cut => {}
                }
                return Ok((worker, Some(done)));
            }
        }
    }
    Ok((worker, None))
}

/// A worker that serves no more, and who is told once its last lines are handed over.
type Ended = (Rc<Worker>, Option<oneshot::Sender<()>>);

/// Waits until no connection is left. Who waits for this has a time limit.
async fn drained(worker: &Rc<Worker>) {
    loop {
        let idle = worker.idle.notified();
        // One that was taken just now is not in the table before its task has had a turn.
        if worker.links.borrow().is_empty() && worker.counters.open.get() == 0 {
            return;
        }
        idle.await;
    }
}

struct Listeners {
    worker: Rc<Worker>,
    open: FxHashMap<ListenerId, Rc<Listener>>,
    /// The tasks that accept.
    accepting: JoinSet<()>,
}

impl Listeners {
    fn open(&mut self, id: ListenerId, door: Door) {
        let served = self.worker.snapshot().served.get(&id).cloned();
        let Some(served) = served else {
            tracing::error!(listener = id, "a listener without a configuration");
            return;
        };
        let listener = Listener::new(id, served, &self.worker);
        // Those that have ended are of no interest.
        while self.accepting.try_join_next().is_some() {}
        match door {
            Door::Own(socket) => match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => {
                    let accepting = accept_all(self.worker.clone(), listener.clone(), socket);
                    self.accepting.spawn_local(accepting);
                }
                Err(error) => {
                    tracing::error!(%error, "a listener cannot be watched");
                    return;
                }
            },
            Door::Dealer(sockets) => {
                for socket in sockets {
                    let dealing = deal_all(self.worker.clone(), listener.clone(), socket);
                    self.accepting.spawn_local(dealing);
                }
            }
            Door::Dealt => {}
        }
        self.open.insert(id, listener);
    }

    /// Serves what another worker has accepted. Where the listener was closed meanwhile, the client
    /// still gets its answer, as do those that a closing listener has accepted itself.
    fn receive(&self, dealt: Dealt) {
        let listener = match self.open.get(&dealt.listener) {
            Some(listener) => listener.clone(),
            None => {
                let closed = Listener::new(dealt.listener, dealt.served.clone(), &self.worker);
                closed.close();
                closed
            }
        };
        receive(&self.worker, &listener, dealt);
    }

    fn close(&mut self, id: ListenerId) {
        if let Some(listener) = self.open.remove(&id) {
            listener.close();
            self.worker.close_idle_of(&listener);
        }
    }

    /// Closes all of them; comes back when what the kernel had accepted has been taken.
    async fn close_all(&mut self) {
        for (_, listener) in self.open.drain() {
            listener.close();
        }
        while self.accepting.join_next().await.is_some() {}
    }

    fn serve(&self, snapshot: &Snapshot) {
        for (id, listener) in &self.open {
            if let Some(served) = snapshot.served.get(id) {
                listener.serve(served.clone());
            }
        }
    }
}
