//! The index, its memory, and what is under way.

mod filler;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use slab::Slab;
use smallvec::SmallVec;

use crate::body::{BLOCK_BYTES, Body, NotFilled};
use crate::disk::Disk;
use crate::flight::{Begin, Flight, Lead};
use crate::key::{BuildAsIs, Hash, Secret, url_of};
use crate::object::{Meta, Object};
use crate::queue::{Queue, Unit};
use crate::rules::{Rule, Rules, Verdict};

pub use filler::Filler;

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
    index: papaya::HashMap<u128, Entry<M>, BuildAsIs>,
    shards: Box<[Shard<M>]>,
    memory_bytes: AtomicU64,
    secret: Secret,
    next_id: AtomicU64,
    objects: AtomicUsize,
    evicted: AtomicU64,
    /// Bytes of bodies whose length is not known yet: they are in no queue, and cannot be evicted.
    unsettled: AtomicU64,
    fills: AtomicUsize,
    /// Of what is being filled and cannot be found yet, when it was asked for, and its key.
    hidden: Mutex<Slab<(u64, Hash)>>,
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

/// What is stored under one hash: variants of one resource, the newest last.
struct Entry<M>(SmallVec<[Arc<Object<M>>; 1]>);

struct Shard<M: Meta> {
    /// Held by whoever changes entries of this shard; who reads them needs none.
    writer: Mutex<()>,
    queue: Mutex<Queue<Held<M>>>,
    flights: Mutex<Flights<M>>,
}

struct Flights<M: Meta> {
    under_way: FxHashMap<Hash, UnderWay<M>>,
    /// Until when a key is not to be waited for.
    passes: FxHashMap<Hash, u64>,
    pass_order: VecDeque<Hash>,
    /// How often keys were asked for under which nothing is stored.
    uses: FxHashMap<u64, u32>,
    use_order: VecDeque<u64>,
}

/// A question that is under way.
struct UnderWay<M: Meta> {
    /// What it is about, in whichever variant.
    key: Hash,
    asked_at: u64,
    flight: Arc<Flight<M>>,
}

/// A unit of memory: an object of one block, or one block of a larger one.
struct Held<M> {
    object: Weak<Object<M>>,
    block: u32,
}

/// The whole object.
const WHOLE: u32 = u32::MAX;

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

impl<M: Meta> Unit for Held<M> {
    fn uses(&self) -> Option<u8> {
        let object = self.object.upgrade()?;
        if object.is_gone() {
            return None;
        }
        if self.block == WHOLE {
            return Some(object.uses.load(Relaxed));
        }
        let slot = object.body.slot(u64::from(self.block))?;
        slot.is_resident().then(|| slot.uses.load(Relaxed))
    }

    fn set_uses(&self, uses: u8) {
        let Some(object) = self.object.upgrade() else {
            return;
        };
        if self.block == WHOLE {
            object.uses.store(uses, Relaxed);
        } else if let Some(slot) = object.body.slot(u64::from(self.block)) {
            slot.uses.store(uses, Relaxed);
        }
    }

    fn hash(&self) -> u64 {
        let Some(object) = self.object.upgrade() else {
            return 0;
        };
        match self.block {
            WHOLE => object.hash.half(),
            // Blocks of one object are remembered each by itself.
            block => object.hash.half() ^ u64::from(block + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        }
    }
}

impl<M: Meta> Store<M> {
    /// An empty one.
    pub fn new(options: Options) -> Arc<Store<M>> {
        let shards = (options.memory_bytes / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let shard = |_| Shard {
            writer: Mutex::new(()),
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
            index: papaya::HashMap::with_hasher(BuildAsIs::default()),
            shards: (0..shards).map(shard).collect(),
            memory_bytes: AtomicU64::new(options.memory_bytes),
            secret: Secret(options.secret),
            next_id: AtomicU64::new(1),
            objects: AtomicUsize::new(0),
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
            objects: self.objects.load(Relaxed),
            bytes: self.shards.iter().map(bytes).sum(),
            evicted: self.evicted.load(Relaxed),
            memory_bytes: self.memory_bytes.load(Relaxed),
            flights: self.shards.iter().map(flights).sum(),
            fills: self.fills.load(Relaxed),
            rules: self.rules.len(),
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
        // Other bits than those by which the index places it.
        let number = (hash.0 >> 96) as usize % self.shards.len();
        &self.shards[number]
    }

    // --- Finding ---------------------------------------------------------------------------------

    /// Shows the variants that are stored under a key, without a lock; purged ones are not left out:
    /// ask [`is_alive`](Store::is_alive) of the one that fits.
    pub fn with<R>(&self, hash: Hash, key: &[u8], look: impl FnOnce(&[Arc<Object<M>>]) -> R) -> R {
        let index = self.index.pin();
        match index.get(&hash.0) {
            Some(Entry(objects)) if objects.first().is_some_and(|one| *one.key == *key) => {
                look(objects)
            }
            _ => look(&[]),
        }
    }

    /// What is stored under these keys, `most` objects at most. Looks at every object.
    pub fn find(&self, wanted: impl Fn(&[u8]) -> bool, most: usize) -> Vec<Arc<Object<M>>> {
        let index = self.index.pin();
        let all = index.iter().flat_map(|(_, Entry(objects))| objects);
        let found = all.filter(|object| wanted(&object.key));
        found.take(most).cloned().collect()
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
            Verdict::Stale => object.set_stale(),
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
    pub fn begin(self: &Arc<Store<M>>, key: Hash, now_ms: u64) -> Begin<M> {
        self.begin_variant(key, key, now_ms)
    }

    /// The same of one variant: `hash` is that of the key, with that of what it is chosen by.
    pub fn begin_variant(self: &Arc<Store<M>>, key: Hash, hash: Hash, now_ms: u64) -> Begin<M> {
        let mut flights = self.shard(hash).flights.lock();
        if let Some(under) = flights.under_way.get(&hash) {
            return Begin::Follow(under.flight.follow());
        }
        if let Some(until) = flights.passes.get(&hash) {
            if *until > now_ms {
                return Begin::Pass;
            }
            flights.passes.remove(&hash);
        }
        let flight = Flight::new();
        let asked_at = self.rules.newest();
        let under = UnderWay {
            key,
            asked_at,
            flight: flight.clone(),
        };
        flights.under_way.insert(hash, under);
        drop(flights);
        Begin::Lead(Lead::new(self, flight, hash, asked_at))
    }

    pub(crate) fn end_flight(&self, hash: Hash) {
        self.shard(hash).flights.lock().under_way.remove(&hash);
    }

    /// Makes nobody wait for this until then: what came was not for all.
    pub fn pass(&self, hash: Hash, until_ms: u64) {
        let mut flights = self.shard(hash).flights.lock();
        if flights.passes.insert(hash, until_ms).is_none() {
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
        let object = self.object(hash, key, asked_at, meta, Arc::new(Body::new(len_bytes)));
        if !when_complete {
            self.insert(&object);
        }
        // A body of no bytes has nothing to begin with.
        let (run, range) = object.body.begin(0, None).unwrap_or((u32::MAX, 0..0));
        if len_bytes == Some(0) {
            object.body.set_empty();
        }
        let hidden = when_complete.then(|| self.hidden.lock().insert((asked_at, hash)));
        let filler = Filler::new(self, object.clone(), run, range, hidden);
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
        let object = self.object(hash, key, asked_at, meta, body);
        self.insert(&object);
        let filler = Filler::new(self, object.clone(), run, range, None);
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
        let there: SmallVec<[Arc<Object<M>>; 4]> =
            self.with(hash, key, |all| all.iter().cloned().collect());
        for object in &there {
            self.take_out(object);
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
        let (run, range) = object.body.begin(at, end)?;
        Ok(Filler::new(self, object.clone(), run, range, None))
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
        let body = Arc::new(Body::of(bytes));
        let object = self.object(hash, key, asked_at, meta, body);
        self.insert(&object);
        match object.body.whole().map(Bytes::len) {
            Some(len) => self.hold(&object, WHOLE, len),
            None => {
                let len = object.body.len_bytes().unwrap_or(0);
                for block in 0..len.div_ceil(BLOCK_BYTES) {
                    self.hold_block(&object, block, BLOCK_BYTES.min(len - block * BLOCK_BYTES));
                }
            }
        }
        object
    }

    /// The same object with another head: a 304 has updated it.
    pub fn refresh(&self, old: &Arc<Object<M>>, asked_at: u64, meta: M) -> Arc<Object<M>> {
        let body = old.body.clone();
        let object = self.object(old.hash, &old.key, asked_at, meta, body);
        object.uses.store(old.uses.load(Relaxed), Relaxed);
        if let Some(blocks) = old.on_disk.get() {
            let _ = object.on_disk.set(blocks.clone());
        }
        self.insert(&object);
        // A larger one stays on the disk as it was: after a restart it is validated once more.
        if object.body.whole().is_some() {
            self.offer(&object);
        }
        // Its blocks stand in the queue under the old one's name, which is gone now.
        match object.body.whole().map(Bytes::len) {
            Some(len) => self.hold(&object, WHOLE, len),
            None => {
                let len = object.body.len_bytes().unwrap_or(0);
                for block in 0..len.div_ceil(BLOCK_BYTES) {
                    if object
                        .body
                        .slot(block)
                        .is_some_and(|slot| slot.is_resident())
                    {
                        self.hold_block(&object, block, BLOCK_BYTES.min(len - block * BLOCK_BYTES));
                    }
                }
            }
        }
        object
    }

    pub(crate) fn object(
        &self,
        hash: Hash,
        key: &[u8],
        asked_at: u64,
        meta: M,
        body: Arc<Body>,
    ) -> Arc<Object<M>> {
        let id = self.next_id.fetch_add(1, Relaxed);
        Arc::new(Object::new(id, hash, key.into(), asked_at, meta, body))
    }

    /// Puts an object where it is found, in place of the one that it replaces.
    fn insert(&self, object: &Arc<Object<M>>) {
        let _writer = self.shard(object.hash).writer.lock();
        self.insert_locked(object);
    }

    /// Puts an object where it is found, unless there is one that it would replace: that one.
    pub(crate) fn insert_if_absent(&self, object: &Arc<Object<M>>) -> Option<Arc<Object<M>>> {
        let _writer = self.shard(object.hash).writer.lock();
        let there = self.with(object.hash, &object.key, |objects| {
            let mut same = objects.iter().filter(|one| object.meta.replaces(&one.meta));
            same.find(|one| !one.is_gone()).cloned()
        });
        if there.is_none() {
            self.insert_locked(object);
        }
        there
    }

    /// Counts the memory of an object that came from a disk.
    pub(crate) fn hold_first(&self, object: &Arc<Object<M>>) {
        match object.body.whole().map(Bytes::len) {
            Some(len) => self.hold(object, WHOLE, len),
            None => self.hold_block(object, 0, BLOCK_BYTES),
        }
        object.queued.store(true, Release);
    }

    fn insert_locked(&self, object: &Arc<Object<M>>) {
        let index = self.index.pin();
        let mut objects: SmallVec<[Arc<Object<M>>; 1]> = SmallVec::new();
        if let Some(Entry(there)) = index.get(&object.hash.0) {
            for one in there {
                if *one.key != *object.key || object.meta.replaces(&one.meta) || one.is_gone() {
                    one.set_gone();
                } else {
                    objects.push(one.clone());
                }
            }
            self.objects.fetch_sub(there.len(), Relaxed);
        }
        if objects.len() == MAX_VARIANTS {
            objects.remove(0).set_gone();
        }
        objects.push(object.clone());
        self.objects.fetch_add(objects.len(), Relaxed);
        index.insert(object.hash.0, Entry(objects));
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
        object.set_gone();
        let _writer = self.shard(object.hash).writer.lock();
        let index = self.index.pin();
        let Some(Entry(there)) = index.get(&object.hash.0) else {
            return;
        };
        let stay: SmallVec<[Arc<Object<M>>; 1]> = there
            .iter()
            .filter(|one| one.id != object.id)
            .cloned()
            .collect();
        let taken = there.len() - stay.len();
        self.objects.fetch_sub(taken, Relaxed);
        if stay.is_empty() {
            index.remove(&object.hash.0);
        } else if taken > 0 {
            index.insert(object.hash.0, Entry(stay));
        }
    }

    /// Counts a unit of memory, and throws out what has to go for it.
    fn hold(&self, object: &Arc<Object<M>>, block: u32, len: usize) {
        let own = match block == WHOLE || block == 0 {
            true => object.own_bytes(),
            false => size_of::<Bytes>(),
        };
        let weight = u32::try_from(len + own).unwrap_or(u32::MAX);
        let held = Held {
            object: Arc::downgrade(object),
            block,
        };
        let mut out: SmallVec<[Held<M>; 4]> = SmallVec::new();
        let mut queue = self.shard(object.hash).queue.lock();
        queue.insert(weight, held, &mut |held| out.push(held));
        drop(queue);
        self.throw_out(out);
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
        let Some(object) = held.object.upgrade() else {
            return;
        };
        if held.block == WHOLE {
            self.take_out(&object);
            return;
        }
        object.body.evict(u64::from(held.block));
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
        for (_, (asked_at, _)) in &*self.hidden.lock() {
            oldest = oldest.min(*asked_at);
        }
        if let Some(look) = self.before_sweep.get() {
            look(&self.rules);
        }
        let index = self.index.pin();
        for (_, Entry(objects)) in &index {
            for object in objects {
                let was_stale = object.is_stale();
                match self.is_alive(object) {
                    true if object.judged_at.load(Relaxed) < newest => {
                        oldest = oldest.min(object.asked_at);
                    }
                    true => {}
                    false => swept.gone += 1,
                }
                swept.stale += usize::from(!was_stale && object.is_stale());
                // A soft rule is remembered by the object itself, so none has to be kept for it;
                // what is still being filled has been judged like any other.
            }
        }
        for shard in &self.shards {
            shard.queue.lock().forget_gone();
        }
        self.forget_rules(oldest.min(self.disk_oldest()));
        swept.bytes = bytes_before.saturating_sub(self.usage().bytes);
        swept
    }
}
