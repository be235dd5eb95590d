//! A worker: one thread, one event loop, its own sockets, connections and idle upstream
//! connections.
//!
//! Workers share four things and nothing else: the snapshot, the store, the shared halves of
//! resources, and one bounded mailbox each.

mod sites;
mod thread;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use forebay_fields::Fields;
use forebay_sys::clock;
use forebay_sys::memory::give_back_free;
use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::sync::{mpsc, oneshot};

use crate::counters::Counters;
use crate::exchange::Exchange;
use crate::listen::{Clients, Dealt, Door, Listener, ListenerId};
use crate::protocol::h1::{Desk, Link, Phase};
use crate::snapshot::Snapshot;
use crate::transport::Out;
use crate::wheel::Wheel;

pub use sites::{HeldSite, Sites};
pub use thread::{Start, start};

/// What a read starts with: a browser's head and a small body fit, and it is small enough for a
/// worker to have some thousands in use.
pub const BUFFER_BYTES: usize = 16 * 1024;

/// What a body that is passed on is read by. A proxied megabyte in reads of 256 KiB costs a third
/// less than in reads of 16 KiB.
pub const LARGE_BUFFER_BYTES: usize = 256 * 1024;

/// How many messages may wait for a worker. More means that it has been stuck for long.
pub const MAILBOX: usize = 1024;

/// Something another thread tells a worker.
pub enum Mail {
    /// Serve from this snapshot from now on, and say so.
    Snapshot {
        /// The new one.
        snapshot: Arc<Snapshot>,
        /// Listeners that come.
        open: Vec<(ListenerId, Door)>,
        /// Listeners that go.
        close: Vec<ListenerId>,
        /// Told when every request from now on is answered by it.
        done: oneshot::Sender<()>,
    },
    /// Serve this connection, which another worker has accepted.
    Dealt(Dealt),
    /// Say that it is alive.
    Ping {
        /// Told so.
        done: oneshot::Sender<()>,
    },
    /// Close a connection that is kept to this peer of an upstream: its process is needed for a new
    /// one.
    MakeRoom {
        /// The upstream's number.
        upstream: u64,
        /// The peer's number.
        peer: usize,
        /// How many others may be asked in its place.
        left: usize,
    },
    /// Give memory that is free back to the system: much was thrown away that this worker had
    /// allocated.
    GiveBack,
    /// Close what is idle: another worker has clients waiting and nothing left to accept them with.
    CloseIdle,
    /// Finish what is under way, take nothing new, then end.
    Drain {
        /// Told when the last exchange has ended, and its lines of access logs are handed over.
        done: oneshot::Sender<()>,
        /// Once whoever holds the other end lets go, what is still under way is cut.
        cut: oneshot::Receiver<()>,
    },
}

/// The sending end of a worker's mailbox.
pub type Mailbox = mpsc::Sender<Mail>;

/// What exists once in the process and is counted over all workers.
#[derive(Default)]
pub struct Process {
    /// Connections open, over all workers.
    pub connections: std::sync::atomic::AtomicUsize,
    /// At most this many.
    pub max_connections: std::sync::atomic::AtomicUsize,
    /// How many workers there are.
    pub workers: std::sync::atomic::AtomicUsize,
    /// Writes the access logs.
    pub access: Arc<crate::access::Writer>,
    /// The counters of every worker.
    pub all: parking_lot::Mutex<Vec<Arc<Counters>>>,
    /// The connections of each client, over all workers.
    pub clients: Clients,
    /// The mailboxes of all workers, once they have started.
    pub mailboxes: std::sync::OnceLock<Box<[Mailbox]>>,
}

/// Less than this is not worth asking every worker to give memory back.
const WORTH_GIVING_BACK: u64 = 8 * 1024 * 1024;

impl Process {
    /// Has workers give memory back, where so much of it was thrown away: what a worker has
    /// allocated goes back to the system by way of that worker.
    pub fn give_back(&self, bytes: u64) {
        if bytes < WORTH_GIVING_BACK {
            return;
        }
        give_back_free();
        for mailbox in self.mailboxes.get().into_iter().flatten() {
            // One whose mailbox is full has other things to do.
            let _ = mailbox.try_send(Mail::GiveBack);
        }
    }

    /// Has the workers but this one close what is idle, as descriptors are the process's.
    pub fn ask_for_descriptors(&self, worker: usize) {
        let mailboxes = self.mailboxes.get().into_iter().flatten();
        for (_, mailbox) in mailboxes.enumerate().filter(|(index, _)| *index != worker) {
            // One whose mailbox is full has much to do, and so little that is idle.
            let _ = mailbox.try_send(Mail::CloseIdle);
        }
    }

    /// How many workers there are; 1 while they start.
    pub fn workers(&self) -> usize {
        self.mailboxes.get().map_or(1, |all| all.len().max(1))
    }
}

/// Buffers that wait for their next use.
#[derive(Default)]
struct Spare {
    small: Vec<BytesMut>,
    large: Vec<BytesMut>,
    outs: Vec<Out>,
    params: Vec<Vec<u8>>,
    #[allow(clippy::vec_box, reason = "the boxes are what is kept")]
    desks: Vec<Box<Desk>>,
    #[allow(clippy::vec_box, reason = "the boxes are what is kept")]
    fields: Vec<Box<Fields>>,
    #[allow(clippy::vec_box, reason = "the boxes are what is kept")]
    exchanges: Vec<Box<Exchange>>,
}

/// How many of each kind of buffer a worker keeps. What more than this many connections use at one
/// time goes back to the allocator.
const SPARE: usize = 64;
const SPARE_LARGE: usize = 8;

/// One worker's own things. Everything hangs on it as `Rc<Worker>`; nothing in it is locked.
pub struct Worker {
    /// 0 for the first.
    pub index: usize,
    /// Its deadlines.
    pub wheel: Rc<Wheel>,
    /// Its counters, read by others.
    pub counters: Arc<Counters>,
    /// What is counted over all workers.
    pub process: Arc<Process>,
    /// The configuration in force.
    snapshot: RefCell<Arc<Snapshot>>,
    /// Local halves of resources, by the number of the resource.
    locals: RefCell<FxHashMap<u64, Rc<dyn Any>>>,
    /// Lines of access logs that are not handed over yet.
    pub book: crate::access::Book,
    /// The sites that its exchanges hold.
    pub sites: Sites,
    /// What it serves files with.
    pub files: crate::files::Files,
    /// What it has programs started with.
    pub programs: crate::helper::programs::Programs,
    /// Its connections, so that idle ones can be closed.
    pub links: RefCell<Slab<Rc<Link>>>,
    /// Set once it shall end.
    pub draining: Cell<bool>,
    /// Told when the last connection has ended while it drains.
    pub idle: tokio::sync::Notify,
    /// When the task that runs now began its turn.
    turn_ms: Cell<u64>,
    /// Its number, from 1.
    turn: Cell<u64>,
    date: RefCell<Date>,
    spare: RefCell<Spare>,
    /// Where fields are written that did not come as lines.
    lines: RefCell<BytesMut>,
    /// The state of the generator of numbers that need not be secret.
    random: Cell<u64>,
}

/// The `Date` field's text and the second it stands for.
struct Date {
    second: u64,
    text: [u8; 29],
}

impl Worker {
    /// A worker that serves from `snapshot`.
    pub fn new(
        index: usize,
        snapshot: Arc<Snapshot>,
        counters: Arc<Counters>,
        process: Arc<Process>,
    ) -> Rc<Worker> {
        let wheel = Wheel::new(clock::coarse_ms());
        Rc::new(Worker {
            index,
            book: crate::access::Book::new(&wheel),
            wheel,
            counters,
            process,
            snapshot: RefCell::new(snapshot),
            locals: RefCell::default(),
            sites: Sites::default(),
            files: crate::files::Files::default(),
            programs: crate::helper::programs::Programs::default(),
            links: RefCell::default(),
            draining: Cell::new(false),
            idle: tokio::sync::Notify::new(),
            turn_ms: Cell::new(clock::coarse_ms()),
            turn: Cell::new(1),
            date: RefCell::new(Date {
                second: u64::MAX,
                text: [b' '; 29],
            }),
            spare: RefCell::default(),
            lines: RefCell::default(),
            random: Cell::new(seed(index)),
        })
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> std::cell::Ref<'_, Arc<Snapshot>> {
        self.snapshot.borrow()
    }

    /// Serves from another snapshot, and forgets the local halves of resources that are no more.
    pub fn replace_snapshot(&self, snapshot: Arc<Snapshot>) {
        self.locals
            .borrow_mut()
            .retain(|id, _| snapshot.resources.contains(id));
        *self.snapshot.borrow_mut() = snapshot;
        self.sites.clear();
    }

    /// This worker's half of a resource, made at its first use.
    pub fn local<T: 'static>(&self, id: u64, make: impl FnOnce() -> T) -> Rc<T> {
        if let Some(found) = self.locals.borrow().get(&id)
            && let Ok(found) = found.clone().downcast::<T>()
        {
            return found;
        }
        let made = Rc::new(make());
        self.locals.borrow_mut().insert(id, made.clone());
        made
    }

    /// This worker's half of a resource, if it was used.
    pub fn known_local<T: 'static>(&self, id: u64) -> Option<Rc<T>> {
        let found = self.locals.borrow().get(&id)?.clone();
        found.downcast::<T>().ok()
    }

    /// The same, for a resource that must not be held once it is out of service: an exchange that goes
    /// on with one gets a half of its own.
    pub fn local_in_service<T: 'static>(&self, id: u64, make: impl FnOnce() -> T) -> Rc<T> {
        if let Some(found) = self.locals.borrow().get(&id)
            && let Ok(found) = found.clone().downcast::<T>()
        {
            return found;
        }
        if self.snapshot.borrow().resources.contains(&id) {
            return self.local(id, make);
        }
        Rc::new(make())
    }

    /// Notes the time at which a connection's task begins its turn.
    pub fn begin_turn(&self) -> u64 {
        let now = clock::coarse_ms();
        self.turn_ms.set(now);
        self.turn.set(self.turn.get() + 1);
        now
    }

    /// The number of the turn that a connection's task has now; never 0.
    pub fn turn(&self) -> u64 {
        self.turn.get()
    }

    /// The time at which the connection's task that runs now began its turn, for what happens in
    /// every request: even a read of the clock that costs 15 ns costs it five times. Elsewhere it
    /// would be the time of somebody else's turn, however long ago: see [`Worker::now_ms`].
    pub fn turn_ms(&self) -> u64 {
        self.turn_ms.get()
    }

    /// Milliseconds on the worker's clock, which only ever goes forward; as coarse as the kernel's
    /// tick, because reading it must cost nothing.
    pub fn now_ms(&self) -> u64 {
        clock::coarse_ms()
    }

    /// The text of the `Date` field (RFC 9110 §5.6.7), made once a second.
    pub fn with_date<R>(&self, use_it: impl FnOnce(&[u8; 29]) -> R) -> R {
        let second = clock::coarse_unix_seconds();
        let mut date = self.date.borrow_mut();
        if date.second != second {
            date.second = second;
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
            let text = httpdate::fmt_http_date(time);
            if let Ok(text) = text.as_bytes().try_into() {
                date.text = text;
            }
        }
        use_it(&date.text)
    }

    /// A number that need not be secret (xorshift64*).
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// An empty buffer of [`BUFFER_BYTES`].
    pub fn buffer(&self) -> BytesMut {
        let spare = self.spare.borrow_mut().small.pop();
        spare.unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
    }

    /// An empty buffer of [`LARGE_BUFFER_BYTES`].
    pub fn large_buffer(&self) -> BytesMut {
        let spare = &mut self.spare.borrow_mut().large;
        // What was given back may still have been in use then: heads and bodies are slices of it.
        // By now it mostly is not; one that is, is left to those who use it.
        while let Some(mut buffer) = spare.pop() {
            if buffer.try_reclaim(LARGE_BUFFER_BYTES) {
                return buffer;
            }
        }
        BytesMut::with_capacity(LARGE_BUFFER_BYTES)
    }

    /// Takes a buffer back. One that others still hold slices of, or that has another size, goes
    /// to the allocator when the last of them lets go.
    pub fn give_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut spare = self.spare.borrow_mut();
        if spare.small.len() < SPARE
            && buffer.try_reclaim(BUFFER_BYTES)
            && buffer.capacity() < 2 * BUFFER_BYTES
        {
            spare.small.push(buffer);
        }
    }

    /// Takes a large buffer back; slices of it may still be in use.
    pub fn give_back_large(&self, mut buffer: BytesMut) {
        if buffer.capacity() == 0 {
            return;
        }
        buffer.clear();
        let mut spare = self.spare.borrow_mut();
        if spare.large.len() < SPARE_LARGE {
            spare.large.push(buffer);
        }
    }

    /// An empty queue of bytes to send.
    pub fn out(&self) -> Out {
        self.spare.borrow_mut().outs.pop().unwrap_or_default()
    }

    /// Takes such a queue back.
    pub fn give_back_out(&self, mut out: Out) {
        out.recycle(4 * BUFFER_BYTES);
        let mut spare = self.spare.borrow_mut();
        if spare.outs.len() < SPARE {
            spare.outs.push(out);
        }
    }

    /// Room for the parameters of a request to an application.
    pub fn params_room(&self) -> Vec<u8> {
        self.spare.borrow_mut().params.pop().unwrap_or_default()
    }

    /// Takes it back.
    pub fn give_back_params_room(&self, room: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        // What an unusual request needed goes back to the allocator.
        if spare.params.len() < SPARE && room.capacity() <= BUFFER_BYTES {
            spare.params.push(room);
        }
    }

    /// Room for the fields of a request that did not come as lines: about so many bytes, empty. What
    /// is split off it comes back when whoever holds it lets go.
    pub fn with_lines<R>(&self, len_bytes: usize, work: impl FnOnce(&mut BytesMut) -> R) -> R {
        if len_bytes > BUFFER_BYTES {
            return work(&mut BytesMut::with_capacity(len_bytes));
        }
        let mut lines = self.lines.borrow_mut();
        if lines.capacity() < len_bytes {
            lines.reserve(BUFFER_BYTES);
        }
        work(&mut lines)
    }

    /// What an HTTP/1 connection works with while it is busy.
    pub fn desk(&self) -> Box<Desk> {
        let spare = self.spare.borrow_mut().desks.pop();
        let mut desk = spare.unwrap_or_default();
        desk.input = self.buffer();
        desk
    }

    /// Takes it back.
    pub fn give_back_desk(&self, mut desk: Box<Desk>) {
        self.give_back(std::mem::take(&mut desk.input));
        desk.recycle();
        let mut spare = self.spare.borrow_mut();
        if spare.desks.len() < SPARE {
            spare.desks.push(desk);
        }
    }

    /// Empty fields, with room from their last use.
    pub fn fields(&self) -> Box<Fields> {
        self.spare.borrow_mut().fields.pop().unwrap_or_default()
    }

    /// Takes fields back.
    pub fn give_back_fields(&self, mut fields: Box<Fields>) {
        fields.clear();
        let mut spare = self.spare.borrow_mut();
        if spare.fields.len() < SPARE {
            spare.fields.push(fields);
        }
    }

    /// An exchange to be used again, if one is there.
    pub fn spare_exchange(&self) -> Option<Box<Exchange>> {
        self.spare.borrow_mut().exchanges.pop()
    }

    /// Takes an exchange back; it has been cleared.
    pub fn give_back_exchange(&self, exchange: Box<Exchange>) {
        let mut spare = self.spare.borrow_mut();
        if spare.exchanges.len() < SPARE {
            spare.exchanges.push(exchange);
        }
    }

    /// Closes up to `count` of the connections that have been idle for longest. False: none is.
    pub fn reap_idle(&self, count: usize) -> bool {
        let mut idle: Vec<(u64, Rc<Link>)> = self
            .links
            .borrow()
            .iter()
            .filter(|(_, link)| !link.closing.get())
            .filter_map(|(_, link)| match link.phase.get() {
                Phase::Fresh(since) | Phase::Idle(since) => Some((since, link.clone())),
                Phase::Busy => None,
            })
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(count);
        for (_, link) in &idle {
            link.close_soon();
        }
        self.counters.reaped.add(idle.len() as u64);
        !idle.is_empty()
    }

    /// Ends every idle connection, and the others after their exchange.
    pub fn close_idle(&self) {
        let links: Vec<_> = self
            .links
            .borrow()
            .iter()
            .map(|(_, link)| link.clone())
            .collect();
        links.iter().for_each(|link| link.close_soon());
    }

    /// The same for the connections that came in by one listener.
    pub fn close_idle_of(&self, listener: &Rc<Listener>) {
        let links = self.links.borrow();
        let of = links
            .iter()
            .filter(|(_, link)| Rc::ptr_eq(&link.listener, listener));
        let of: Vec<_> = of.map(|(_, link)| link.clone()).collect();
        drop(links);
        of.iter().for_each(|link| link.close_soon());
    }

    /// Puts a connection into the table; gives its key.
    pub fn enlist(&self, link: &Rc<Link>) -> usize {
        self.links.borrow_mut().insert(link.clone())
    }

    /// Takes a connection out of the table.
    pub fn discharge(&self, key: usize) {
        let mut links = self.links.borrow_mut();
        let gone = links.try_remove(key);
        let empty = links.is_empty();
        drop(links);
        drop(gone);
        if empty && self.draining.get() {
            self.idle.notify_waiters();
        }
    }

    /// Notes the beginning of an exchange.
    pub fn begin(&self) {
        self.counters.exchanges.add(1);
    }

    /// Notes the end of an exchange.
    pub fn end(&self) {
        self.counters.exchanges.sub(1);
    }
}

/// A start for the generator: different for each worker and start of the process.
fn seed(index: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_usize(index);
    hasher.finish() | 1
}
