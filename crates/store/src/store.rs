//! The index, its memory, and what is under way.

mod filler;
mod held;
mod seen;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use slab::Slab;
use smallvec::SmallVec;

use crate::body::{BLOCK_BYTES, Body, NotFilled};
use crate::content::Content;
use crate::disk::Disk;
use crate::flight::{Begin, Flight, Lead};
use crate::index::Index;
use crate::key::{Hash, Secret, url_of};
use crate::object::{Mark, Meta, Object};
use crate::queue::Queue;
use crate::rules::{Rule, Rules, Verdict};

use self::held::{Held, WHOLE};

pub use filler::Filler;
pub use seen::Question;

/// How a store is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for objects, all that belongs to them included.
    pub memory_bytes: u64,
    /// Under which keys are hashed.
    pub secret: [u8; 16],
}

/// At most so many variants of one resource; the oldest goes first.
pub(crate) const MAX_VARIANTS: usize = 32;

/// At most so many keys in one shard are known not to be for all.
const MAX_PASSES: usize = 4096;

/// At most so many units in one shard are moved while others wait for it.
const SHRINK_MOVES: usize = 512;

/// Uses of at most so many keys in one shard are counted before anything is stored under them.
const MAX_COUNTED: usize = 8192;

/// A shard is worth its while from this size on.
const SHARD_BYTES: u64 = 16 * 1024 * 1024;

const MAX_SHARDS: u64 = 16;

/// Where objects are kept.
pub struct Store<M: Meta> {
    /// Variants of one resource stand under one hash, the newest first.
    index: Index<Object<M>>,
    shards: Box<[Shard<M>]>,
    memory_bytes: AtomicU64,
    secret: Secret,
    next_id: AtomicU64,
    evicted: AtomicU64,
    /// Bytes of bodies whose length is not known yet: they are in no queue, and cannot be evicted.
    unsettled: AtomicU64,
    fills: AtomicUsize,
    /// What is being filled and cannot be found yet, and the hash of its key.
    hidden: Mutex<Slab<(Arc<Object<M>>, Hash)>>,
    /// Somebody is about to sweep.
    to_be_swept: AtomicBool,
    /// What has been purged.
    pub rules: Rules,
    pub(crate) disk: OnceLock<Arc<Disk>>,
    /// Held by whoever writes rules to disks.
    pub(crate) purging: Mutex<()>,
    before_sweep: OnceLock<BeforeSweep>,
}

/// Looks with the rules at what else they are about, before they are let go.
type BeforeSweep = Box<dyn Fn(&Rules) + Send + Sync>;

struct Shard<M: Meta> {
    queue: Mutex<Queue<Held<M>>>,
    flights: Mutex<Flights<M>>,
}

struct Flights<M: Meta> {
    under_way: FxHashMap<Hash, UnderWay<M>>,
    /// Until when a key is not to be waited for, and why, as who has asked puts it.
    passes: FxHashMap<Hash, (u64, u8)>,
    pass_order: VecDeque<Hash>,
    /// How often keys were asked for under which nothing is stored.
    uses: FxHashMap<u64, u32>,
    use_order: VecDeque<u64>,
}

/// A question that is under way.
struct UnderWay<M: Meta> {
    /// What it is about, in whichever variant.
    key: Hash,
    /// The key itself, for people who want to know.
    text: Box<[u8]>,
    asked_at: u64,
    /// When it was asked, on the clock of those who ask.
    since_ms: u64,
    flight: Arc<Flight<M>>,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects that can be found.
    pub objects: usize,
    /// Memory they take, in bytes.
    pub bytes: u64,
    /// Units that were thrown out for others.
    pub evicted: u64,
    /// Memory it may take, in bytes.
    pub memory_bytes: u64,
    /// Questions under way.
    pub flights: usize,
    /// Fills under way.
    pub fills: usize,
    /// Purge rules in force.
    pub rules: usize,
    /// How often there were too many of them, and they became fewer and wider ones.
    pub rules_widened: u64,
}

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects that went.
    pub gone: usize,
    /// Objects that have to be validated from now on.
    pub stale: usize,
    /// Memory that came back, in bytes.
    pub bytes: u64,
}

impl<M: Meta> Store<M> {
    /// An empty one.
    pub fn new(options: Options) -> Arc<Store<M>> {
        let shards = (options.memory_bytes / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let shard = |_| Shard {
            queue: Mutex::new(Queue::new(options.memory_bytes / shards)),
            flights: Mutex::new(Flights {
                under_way: FxHashMap::default(),
                passes: FxHashMap::default(),
                pass_order: VecDeque::new(),
                uses: FxHashMap::default(),
                use_order: VecDeque::new(),
            }),
        };
        Arc::new(Store {
            index: Index::default(),
            shards: (0..shards).map(shard).collect(),
            memory_bytes: AtomicU64::new(options.memory_bytes),
            secret: Secret(options.secret),
            next_id: AtomicU64::new(1),
            evicted: AtomicU64::new(0),
            unsettled: AtomicU64::new(0),
            fills: AtomicUsize::new(0),
            hidden: Mutex::new(Slab::new()),
            to_be_swept: AtomicBool::new(false),
            rules: Rules::default(),
            disk: OnceLock::new(),
            purging: Mutex::new(()),
            before_sweep: OnceLock::new(),
        })
    }

    /// The hash of a key of this store.
    pub fn hash(&self, key: &[u8]) -> Hash {
        self.secret.hash(key)
    }

    /// What it holds.
    pub fn usage(&self) -> Usage {
        let bytes = |shard: &Shard<M>| shard.queue.lock().bytes();
        let flights = |shard: &Shard<M>| shard.flights.lock().under_way.len();
        Usage {
            objects: self.index.len(),
            bytes: self.shards.iter().map(bytes).sum(),
            evicted: self.evicted.load(Relaxed),
            memory_bytes: self.memory_bytes.load(Relaxed),
            flights: self.shards.iter().map(flights).sum(),
            fills: self.fills.load(Relaxed),
            rules: self.rules.len(),
            rules_widened: self.rules.widened(),
        }
    }

    /// Has more memory from now on, or less: then what is too much is thrown out, a few units at a
    /// time, so that nobody waits for it for long.
    pub fn set_memory(&self, memory_bytes: u64) {
        self.memory_bytes.store(memory_bytes, Relaxed);
        let each = memory_bytes / self.shards.len() as u64;
        for shard in &self.shards {
            shard.queue.lock().set_budget(each);
            let mut fits = false;
            while !fits {
                let mut out: SmallVec<[Held<M>; 4]> = SmallVec::new();
                fits = shard
                    .queue
                    .lock()
                    .shrink(SHRINK_MOVES, &mut |held| out.push(held));
                self.throw_out(out);
            }
        }
    }

    pub(crate) fn shard_bytes(&self) -> u64 {
        self.memory_bytes.load(Relaxed) / self.shards.len() as u64
    }

    fn shard(&self, hash: Hash) -> &Shard<M> {
        self.shard_of(hash.place())
    }

    fn shard_of(&self, place: u32) -> &Shard<M> {
        // Not the highest bits: by those ghosts are placed.
        let number = ((place as usize & 0xFFF) * self.shards.len()) >> 12;
        &self.shards[number]
    }

    // --- Finding ---------------------------------------------------------------------------------

    /// Shows the variants that are stored under a key, the newest first, until `look` has found what
    /// it wants; without a lock. Purged ones are not left out: ask [`is_alive`](Store::is_alive) of
    /// the one that fits.
    pub fn with<R>(
        &self,
        hash: Hash,
        key: &[u8],
        mut look: impl FnMut(&Arc<Object<M>>) -> Option<R>,
    ) -> Option<R> {
        self.index
            .find(hash.place(), |object| match *object.key == *key {
                true => look(object),
                false => None,
            })
    }

    /// All of them, the newest first.
    pub fn variants(&self, hash: Hash, key: &[u8]) -> SmallVec<[Arc<Object<M>>; 4]> {
        let there = self.index.lock(hash.place()).all(hash.place());
        there.into_iter().filter(|one| *one.key == *key).collect()
    }

    /// What is stored under these keys, `most` objects at most. Looks at every object.
    pub fn find(&self, wanted: impl Fn(&[u8]) -> bool, most: usize) -> Vec<Arc<Object<M>>> {
        let mut found = Vec::new();
        self.index.each(|object| {
            if found.len() < most && wanted(&object.key) {
                found.push(object);
            }
        });
        found
    }

    /// Whether an object may be used: no purge has met it. One that is dead goes.
    pub fn is_alive(&self, object: &Arc<Object<M>>) -> bool {
        let newest = self.rules.newest();
        if object.judged_at.load(Relaxed) == newest {
            return !object.is_gone();
        }
        let tags = object.meta.tags();
        let url = url_of(&object.key);
        match self.rules.judge(object.asked_at, url, tags.iter().copied()) {
            Verdict::Alive => {}
            Verdict::Stale => _ = object.set(Mark::Stale),
            Verdict::Dead => {
                self.take_out(object);
                return false;
            }
        }
        object.judged_at.store(newest, Relaxed);
        !object.is_gone()
    }

    // --- Asking ----------------------------------------------------------------------------------

    /// Who is to ask for something that is absent, while nothing is known of its variants.
    pub fn begin(self: &Arc<Store<M>>, key: Hash, text: &[u8], now_ms: u64) -> Begin<M> {
        self.begin_variant(key, text, key, now_ms)
    }

    /// The same of one variant: `hash` is that of the key, with that of what it is chosen by.
    pub fn begin_variant(
        self: &Arc<Store<M>>,
        key: Hash,
        text: &[u8],
        hash: Hash,
        now_ms: u64,
    ) -> Begin<M> {
        let mut flights = self.shard(hash).flights.lock();
        if let Some(under) = flights.under_way.get(&hash) {
            return Begin::Follow(under.flight.follow());
        }
        if let Some((until, _)) = flights.passes.get(&hash) {
            if *until > now_ms {
                return Begin::Pass;
            }
            flights.passes.remove(&hash);
        }
        let flight = Flight::new();
        let asked_at = self.rules.newest();
        let under = UnderWay {
            key,
            text: text.into(),
            asked_at,
            since_ms: now_ms,
            flight: flight.clone(),
        };
        flights.under_way.insert(hash, under);
        drop(flights);
        Begin::Lead(Lead::new(self, flight, hash, asked_at))
    }

    pub(crate) fn end_flight(&self, hash: Hash) {
        self.shard(hash).flights.lock().under_way.remove(&hash);
    }

    /// Makes nobody wait for this until then: what came was not for all. `why` is for people who
    /// look.
    pub fn pass(&self, hash: Hash, until_ms: u64, why: u8) {
        let mut flights = self.shard(hash).flights.lock();
        if flights.passes.insert(hash, (until_ms, why)).is_none() {
            flights.pass_order.push_back(hash);
        }
        while flights.pass_order.len() > MAX_PASSES {
            if let Some(oldest) = flights.pass_order.pop_front() {
                flights.passes.remove(&oldest);
            }
        }
    }

    /// How often this was asked for lately, now included. Bounded: what was counted first is
    /// forgotten first.
    pub fn count_use(&self, hash: Hash) -> u32 {
        let mut flights = self.shard(hash).flights.lock();
        let Flights {
            uses, use_order, ..
        } = &mut *flights;
        let count = uses.entry(hash.half()).or_insert_with(|| {
            use_order.push_back(hash.half());
            0
        });
        *count = count.saturating_add(1);
        let count = *count;
        if use_order.len() > MAX_COUNTED
            && let Some(oldest) = use_order.pop_front()
        {
            uses.remove(&oldest);
        }
        count
    }

    // --- Storing ---------------------------------------------------------------------------------

    /// A new object of which nothing is there but its head, and what is to fill it. It can be
    /// found at once, or, if `when_complete`, when it is complete: until then the one that it
    /// replaces stays.
    pub fn publish(
        self: &Arc<Store<M>>,
        hash: Hash,
        key: &[u8],
        asked_at: u64,
        meta: M,
        len_bytes: Option<u64>,
        when_complete: bool,
    ) -> (Arc<Object<M>>, Filler<M>) {
        let body = Arc::new(Body::new(len_bytes));
        let object = self.object(hash, key, asked_at, meta, Content::from(body.clone()));
        if !when_complete {
            self.insert(&object);
        }
        // A body of no bytes has nothing to begin with.
        let (run, range) = body.begin(0, None).unwrap_or((u32::MAX, 0..0));
        if len_bytes == Some(0) {
            body.set_empty();
        }
        let hidden = when_complete.then(|| self.hidden.lock().insert((object.clone(), hash)));
        let filler = Filler::new(self, object.clone(), body, run, range, hidden, false);
        (object, filler)
    }

    /// The same for an object of which a part comes first. `None`: the part does not begin where a
    /// block does.
    pub fn publish_part(
        self: &Arc<Store<M>>,
        hash: Hash,
        key: &[u8],
        asked_at: u64,
        meta: M,
        len_bytes: u64,
        part: Range<u64>,
    ) -> Option<(Arc<Object<M>>, Filler<M>)> {
        if !part.start.is_multiple_of(BLOCK_BYTES) {
            return None;
        }
        let body = Arc::new(Body::new(Some(len_bytes)));
        let (run, range) = body.begin(part.start, Some(part.end)).ok()?;
        let content = Content::from(body.clone());
        let object = self.object(hash, key, asked_at, meta, content);
        self.insert(&object);
        let filler = Filler::new(self, object.clone(), body, run, range, None, false);
        Some((object, filler))
    }

    /// Takes away all that is stored under a key: something has changed it. True if it took a rule,
    /// for what is under way; then there is something to [`sweep`](Store::sweep).
    pub fn invalidate(&self, hash: Hash, key: &[u8]) -> bool {
        if let Some(disk) = self.disk.get() {
            disk.remove(disk.hash(key));
        }
        // What is under way was asked for before.
        let is_coming = self.is_under_way(hash);
        if is_coming {
            self.rules.add(&Rule::Url(url_of(key).into()), false);
        }
        for object in self.variants(hash, key) {
            self.take_out(&object);
        }
        is_coming
    }

    /// Whether something that can not be found yet is asked for under this key, in any variant.
    fn is_under_way(&self, key: Hash) -> bool {
        let asks = |shard: &Shard<M>| {
            let flights = shard.flights.lock();
            flights.under_way.values().any(|under| under.key == key)
        };
        let is_hidden = || self.hidden.lock().iter().any(|(_, (_, of))| *of == key);
        self.shards.iter().any(asks) || is_hidden()
    }

    /// Some more of an object's bytes, from the block on in which `at` is, as far as they are
    /// absent and asked for.
    pub fn fill(
        self: &Arc<Store<M>>,
        object: &Arc<Object<M>>,
        at: u64,
        end: Option<u64>,
    ) -> Result<Filler<M>, NotFilled> {
        self.fill_by(object, at, end, false)
    }

    pub(crate) fn fill_by(
        self: &Arc<Store<M>>,
        object: &Arc<Object<M>>,
        at: u64,
        end: Option<u64>,
        disk: bool,
    ) -> Result<Filler<M>, NotFilled> {
        let body = object.body.body().ok_or(NotFilled::Needless)?;
        let (run, range) = body.begin(at, end)?;
        Ok(Filler::new(
            self,
            object.clone(),
            body,
            run,
            range,
            None,
            disk,
        ))
    }

    /// An object that is there as a whole; it does not go to disks.
    pub fn store(
        self: &Arc<Store<M>>,
        hash: Hash,
        key: &[u8],
        asked_at: u64,
        meta: M,
        bytes: Bytes,
    ) -> Arc<Object<M>> {
        let object = self.object(hash, key, asked_at, meta, Content::of(bytes));
        self.insert(&object);
        self.hold_all(&object);
        object
    }

    /// The same object with another head: a 304 has updated it.
    pub fn refresh(&self, old: &Arc<Object<M>>, asked_at: u64, meta: M) -> Arc<Object<M>> {
        let hash = self.hash(&old.key);
        let object = self.object(hash, &old.key, asked_at, meta, old.body.share());
        object.uses.store(old.uses.load(Relaxed), Relaxed);
        self.insert(&object);
        // A larger one stays on the disk as it was: after a restart it is validated once more.
        if object.body.is_whole() {
            self.offer(&object);
        } else if old.has(Mark::Offered) {
            object.set(Mark::Offered);
        }
        // Its blocks stand in the queue under the old one's name, which is gone now.
        self.hold_all(&object);
        object
    }

    pub(crate) fn object(
        &self,
        hash: Hash,
        key: &[u8],
        asked_at: u64,
        meta: M,
        body: Content,
    ) -> Arc<Object<M>> {
        let id = self.next_id.fetch_add(1, Relaxed);
        Arc::new(Object::new(id, hash, key.into(), asked_at, meta, body))
    }

    /// Puts an object where it is found, in place of the one that it replaces.
    fn insert(&self, object: &Arc<Object<M>>) {
        self.insert_unless(object, |_| false);
    }

    /// Puts an object where it is found, unless there is one that it would replace: that one.
    pub(crate) fn insert_if_absent(&self, object: &Arc<Object<M>>) -> Option<Arc<Object<M>>> {
        let same = |one: &Object<M>| object.meta.replaces(&one.meta) && !one.is_gone();
        self.insert_unless(object, same)
    }

    fn insert_unless(
        &self,
        object: &Arc<Object<M>>,
        stays: impl Fn(&Object<M>) -> bool,
    ) -> Option<Arc<Object<M>>> {
        let writer = self.index.lock(object.place);
        let mut there = writer.all(object.place);
        there.retain(|one| *one.key == *object.key);
        if let Some(stays) = there.iter().find(|one| stays(one)) {
            return Some(stays.clone());
        }
        // Before what it replaces goes: somebody may be looking.
        writer.insert(object.clone());
        let mut variants = 1;
        for one in there {
            let is_over = object.meta.replaces(&one.meta) || one.is_gone();
            if is_over || variants == MAX_VARIANTS {
                one.set(Mark::Gone);
                writer.remove(&one);
            } else {
                variants += 1;
            }
        }
        None
    }

    /// Takes an object away, also from disks; who reads it goes on.
    pub fn remove(&self, object: &Arc<Object<M>>) {
        if let Some(disk) = self.disk.get() {
            disk.remove(disk.hash(&object.key));
        }
        self.take_out(object);
    }

    /// Takes an object out of memory; on disks it stays.
    fn take_out(&self, object: &Arc<Object<M>>) {
        object.set(Mark::Gone);
        self.index.lock(object.place).remove(object);
    }

    /// Counts what is there of an object.
    pub(crate) fn hold_all(&self, object: &Arc<Object<M>>) {
        if let Some(len) = object.body.whole_bytes() {
            return self.hold(object, WHOLE, len);
        }
        let len = object.body.len_bytes().unwrap_or(0);
        for block in 0..len.div_ceil(BLOCK_BYTES) {
            if object.body.uses(block).is_some() {
                self.hold_block(object, block, BLOCK_BYTES.min(len - block * BLOCK_BYTES));
            }
        }
    }

    /// Counts a unit of memory, and throws out what has to go for it.
    fn hold(&self, object: &Arc<Object<M>>, block: u32, len: usize) {
        let object = &self.holder(object);
        if block == WHOLE && object.set(Mark::Queued) {
            return;
        }
        object.body.settle();
        let held = Held::new(object, block, len);
        let mut out: SmallVec<[Held<M>; 4]> = SmallVec::new();
        let mut queue = self.shard_of(object.place).queue.lock();
        queue.insert(held, &mut |held| out.push(held));
        drop(queue);
        self.throw_out(out);
    }

    /// Whose memory it is: a 304 may have put another one with the same blocks in its place while
    /// they came.
    fn holder(&self, object: &Arc<Object<M>>) -> Arc<Object<M>> {
        if !object.is_gone() {
            return object.clone();
        }
        let shared = self.index.find(object.place, |one| {
            one.body.is_shared_with(&object.body).then(|| one.clone())
        });
        shared.unwrap_or_else(|| object.clone())
    }

    fn throw_out(&self, out: SmallVec<[Held<M>; 4]>) {
        self.evicted.fetch_add(out.len() as u64, Relaxed);
        for held in out {
            self.evict(&held);
        }
    }

    fn hold_block(&self, object: &Arc<Object<M>>, block: u64, len: u64) {
        if let (Ok(block), Ok(len)) = (u32::try_from(block), usize::try_from(len)) {
            self.hold(object, block, len);
        }
    }

    fn evict(&self, held: &Held<M>) {
        let Some((object, block)) = held.unit() else {
            return;
        };
        if block == WHOLE {
            self.take_out(&object);
            return;
        }
        object.body.evict(u64::from(block));
        if object.body.resident_blocks() == 0 && !object.body.is_filling() {
            self.take_out(&object);
        }
    }

    // --- Purging ---------------------------------------------------------------------------------

    /// Puts a purge in force: from now on nothing that was asked for before it is used. The memory
    /// comes back with the next [`sweep`](Store::sweep).
    pub fn purge(&self, rule: &Rule, soft: bool) -> u64 {
        self.rules.add(rule, soft)
    }

    /// Whether who has put a purge in force is to [`sweep`](Store::sweep): not if somebody else is
    /// about to.
    pub fn wants_sweep(&self) -> bool {
        !self.to_be_swept.swap(true, AcqRel)
    }

    /// Who was to sweep cannot.
    pub fn sweep_fell_out(&self) {
        self.to_be_swept.store(false, Release);
    }

    /// Has somebody else look at the rules before a sweep lets them go; said once.
    pub fn before_sweep(&self, look: impl Fn(&Rules) + Send + Sync + 'static) {
        let _ = self.before_sweep.set(Box::new(look));
    }

    /// Looks at every object, takes away what is dead, and lets go of rules that are over.
    pub fn sweep(&self) -> Swept {
        // First: a purge from here on may be one that this does not see.
        self.to_be_swept.store(false, Release);
        let mut swept = Swept::default();
        let bytes_before = self.usage().bytes;
        let newest = self.rules.newest();
        // Read before the objects: what lands meanwhile has landed in the index, or is still here.
        let mut oldest = newest;
        for shard in &self.shards {
            for under in shard.flights.lock().under_way.values() {
                oldest = oldest.min(under.asked_at);
            }
        }
        for (_, (object, _)) in &*self.hidden.lock() {
            oldest = oldest.min(object.asked_at);
        }
        if let Some(look) = self.before_sweep.get() {
            look(&self.rules);
        }
        self.index.each(|object| {
            let was_stale = object.is_stale();
            match self.is_alive(&object) {
                true if object.judged_at.load(Relaxed) < newest => {
                    oldest = oldest.min(object.asked_at);
                }
                true => {}
                false => swept.gone += 1,
            }
            swept.stale += usize::from(!was_stale && object.is_stale());
            // A soft rule is remembered by the object itself, so none has to be kept for it;
            // what is still being filled has been judged like any other.
        });
        for shard in &self.shards {
            shard.queue.lock().forget_gone();
        }
        self.forget_rules(oldest.min(self.disk_oldest()));
        swept.bytes = bytes_before.saturating_sub(self.usage().bytes);
        swept
    }
}
