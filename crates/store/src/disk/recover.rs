//! Opening directories: whose they are, what has been purged, and what is in them.
//!
//! What cannot be read is kept aside under another name, and a new store is begun: a cache that
//! does not start helps nobody, and one that serves what it does not understand does harm.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use super::checkpoint::{self, Known};
use super::identity::{Identity, Unread};
use super::index::{Entry, Index};
use super::layer::Layer;
use super::queue::Queue;
use super::record::{self, Head, Kind, SEGMENT_HEADER_BYTES, UNIT};
use super::rule_log::{Log, RuleLog, Written};
use super::volume::{
    Begin, DIRTY, Limits, Seen, Segment, Segments, Volume, Whose, generation_of, is_ours, walk,
};
use super::{Notice, Options, What};

/// Where what is not read is kept, in the directory itself.
pub const ASIDE: &str = "refused";

/// No segment is smaller, so that the largest record finds its place in half of one...
const MIN_SEGMENT: u64 = 4 * 1024 * 1024;
/// ... nor larger: it is what goes at a time.
const MAX_SEGMENT: u64 = 256 * 1024 * 1024;

/// A directory that is ours to use, before it is known whether what is in it is.
struct Candidate {
    dir: PathBuf,
    lock: Box<dyn std::any::Any + Send + Sync>,
    identity: Option<Identity>,
    log: Option<Log>,
}

/// What is known when all directories are open.
pub(crate) struct Recovered {
    pub(crate) volumes: Vec<(Volume, u32)>,
    pub(crate) identity: Identity,
    pub(crate) newest: u64,
    pub(crate) rules: Vec<Written>,
    pub(crate) notices: Vec<Notice>,
}

/// Opens all directories that can be used.
pub(crate) fn open(
    layer: &Arc<dyn Layer>,
    dirs: &[PathBuf],
    options: &Options,
    fresh: u128,
) -> Recovered {
    let mut notices = Vec::new();
    let mut candidates = Vec::new();
    for dir in dirs {
        match candidate(&**layer, dir, &mut notices) {
            Ok(candidate) => candidates.push(candidate),
            Err(error) => notices.push(Notice::of(dir, What::Failed, error.to_string())),
        }
    }
    let newest = candidates.iter().filter_map(|one| one.identity);
    let newest = newest.max_by_key(|identity| (identity.epoch, identity.is_settled));
    let mut identity = newest.unwrap_or(Identity {
        store: fresh,
        secret: options.secret,
        epoch: 0,
        is_settled: true,
    });
    candidates.retain_mut(|one| match agree(&**layer, one, &identity, &mut notices) {
        Ok(()) => true,
        Err(error) => {
            notices.push(Notice::of(&one.dir, What::Failed, error.to_string()));
            false
        }
    });
    // First all learn of the new epoch, then it counts: a directory that is missing when rules are
    // written is found out by its old one, and not one whose turn had not come at a crash.
    identity.epoch += 1;
    identity.is_settled = false;
    write_identity(&**layer, &mut candidates, identity, &mut notices);
    let (log_newest, floor, rules) = united(&candidates);

    let mut found = Vec::new();
    for one in candidates {
        match contents(layer, &one, &identity, options, floor) {
            Ok(contents) => found.push((one, contents)),
            Err(error) => notices.push(Notice::of(&one.dir, What::Failed, error.to_string())),
        }
    }
    let asked = found.iter().map(|(_, contents)| contents.asked);
    let oldest = asked
        .clone()
        .map(|(oldest, _)| oldest)
        .min()
        .unwrap_or(u64::MAX);
    // Not only rules have numbers: what is here may have been asked for after the last one.
    let newest = asked
        .map(|(_, newest)| newest)
        .max()
        .unwrap_or(0)
        .max(log_newest);
    let floor = oldest.min(newest).max(floor);
    let rules: Vec<Written> = rules
        .into_iter()
        .filter(|rule| rule.number > floor)
        .collect();

    let mut volumes = Vec::new();
    let mut ready = Vec::new();
    for (one, contents) in found {
        match RuleLog::begin(layer, &one.dir, identity.store, (newest, floor), &rules) {
            Ok(log) => ready.push((one, contents, log)),
            Err(error) => notices.push(Notice::of(&one.dir, What::Failed, error.to_string())),
        }
    }
    identity.is_settled = true;
    for (one, contents, log) in ready {
        if let Err(error) = identity.write(&**layer, &one.dir) {
            notices.push(Notice::of(&one.dir, What::Failed, error.to_string()));
            continue;
        }
        for text in contents.lost {
            notices.push(Notice::of(&one.dir, What::Lost, text));
        }
        let volume = Volume::new(Begin {
            dir: one.dir,
            layer: layer.clone(),
            store: identity.store,
            limits: limits(options),
            index: contents.index,
            segments: contents.segments,
            queue: Queue::new(options.queue_bytes, options.write_bytes_per_second),
            rules: log,
            lock: one.lock,
        });
        volumes.push((volume, contents.next_generation));
    }
    Recovered {
        volumes,
        identity,
        newest,
        rules,
        notices,
    }
}

fn limits(options: &Options) -> Limits {
    let usual = (options.size_bytes / 64).clamp(MIN_SEGMENT, MAX_SEGMENT);
    // There are 65,536 places for segments.
    let least = options.size_bytes / 60_000;
    let segment = options.segment_bytes.unwrap_or(usual.max(least));
    Limits {
        size_bytes: options.size_bytes,
        segment_bytes: segment.next_multiple_of(UNIT),
        max_objects: options.max_objects,
        on_failure: options.on_failure,
    }
}

/// Locks a directory and reads whose it is; what nobody can read is put aside.
fn candidate(layer: &dyn Layer, dir: &Path, notices: &mut Vec<Notice>) -> io::Result<Candidate> {
    layer.make_dir(dir)?;
    let lock = layer
        .lock(&dir.join("lock"))
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::other("another process uses this directory"),
            _ => error,
        })?;
    let names = layer.list(dir)?;
    let has = |name: &str| names.iter().any(|one| one == name);
    let whose: Whose = Identity::read(layer, dir)?;
    let mut one = Candidate {
        dir: dir.to_owned(),
        lock,
        identity: None,
        log: None,
    };
    let why = match whose {
        _ if has(DIRTY) => {
            clear(layer, dir, &names)?;
            let text = "a purge could not be written to it; what was in it is discarded";
            notices.push(Notice::of(dir, What::Discarded, text.into()));
            return Ok(one);
        }
        None => {
            let left = names.iter().any(|name| is_ours(name));
            clear(layer, dir, &names)?;
            if left {
                let text = "it was not begun, or was given up; what was in it is discarded";
                notices.push(Notice::of(dir, What::Discarded, text.into()));
            }
            return Ok(one);
        }
        Some(Err(Unread::Damaged)) => "its file `store` is damaged".to_owned(),
        Some(Err(Unread::Version(version))) => {
            format!(
                "it has format {version}, and this is format {}",
                record::VERSION
            )
        }
        Some(Ok(identity)) => match RuleLog::read(layer, dir)? {
            Some(log) if log.store == identity.store => {
                one.identity = Some(identity);
                one.log = Some(log);
                return Ok(one);
            }
            _ => "its file `rules` is missing or damaged, and purges may be lost".to_owned(),
        },
    };
    put_aside(layer, dir, &names)?;
    notices.push(Notice::refused(dir, &why));
    Ok(one)
}

/// Whether a directory belongs with the others, and has seen all that they have.
fn agree(
    layer: &dyn Layer,
    one: &mut Candidate,
    with: &Identity,
    notices: &mut Vec<Notice>,
) -> io::Result<()> {
    let Some(identity) = one.identity else {
        return Ok(());
    };
    let names = layer.list(&one.dir)?;
    let is_late = identity.epoch != with.epoch
        && (with.is_settled || identity.epoch.checked_add(1) != Some(with.epoch));
    if identity.store != with.store {
        put_aside(layer, &one.dir, &names)?;
        notices.push(Notice::refused(&one.dir, "it belongs to another store"));
    } else if is_late {
        clear(layer, &one.dir, &names)?;
        let text = "the store was in use without it, so it may have missed purges; what was in it \
                    is discarded";
        notices.push(Notice::of(&one.dir, What::Discarded, text.into()));
    } else {
        return Ok(());
    }
    one.identity = None;
    one.log = None;
    Ok(())
}

fn write_identity(
    layer: &dyn Layer,
    candidates: &mut Vec<Candidate>,
    identity: Identity,
    notices: &mut Vec<Notice>,
) {
    candidates.retain(|one| {
        // One that is new has to have rules before it has a name.
        if one.identity.is_none() {
            return true;
        }
        match identity.write(layer, &one.dir) {
            Ok(()) => true,
            Err(error) => {
                notices.push(Notice::of(&one.dir, What::Failed, error.to_string()));
                false
            }
        }
    });
}

/// The rules of all directories: one that was being written when the power went may stand in some
/// of them only.
fn united(candidates: &[Candidate]) -> (u64, u64, Vec<Written>) {
    let logs = || candidates.iter().filter_map(|one| one.log.as_ref());
    let newest = logs().map(|log| log.newest).max().unwrap_or(0);
    let floor = logs().map(|log| log.floor).max().unwrap_or(0);
    let mut rules: Vec<Written> = logs().flat_map(|log| log.rules.iter().cloned()).collect();
    rules.sort_by_key(|rule| rule.number);
    rules.dedup();
    (newest, floor, rules)
}

/// Whether a file with a name of ours is one: somebody else's directory may have been named by
/// mistake, and there is more than one `index` in the world.
fn is_recognised(layer: &dyn Layer, path: &Path) -> io::Result<bool> {
    let mut bytes = BytesMut::new();
    layer.open(path)?.read_at(0, 8, &mut bytes)?;
    let magics: [&[u8]; 4] = [b"FbStore\0", b"FbRules\0", b"FbIndex\0", b"FbSegmnt"];
    // Nothing is lost with nothing; and zeros are a page that has not reached the disk.
    Ok(magics.contains(&&*bytes) || bytes.iter().all(|byte| *byte == 0))
}

/// Removes all that is ours, that which names it first. What only has such a name is kept aside.
fn clear(layer: &dyn Layer, dir: &Path, names: &[String]) -> io::Result<()> {
    let mut ours: Vec<&String> = names.iter().filter(|name| is_ours(name)).collect();
    // The mark goes last: while it is there, nothing else counts.
    ours.sort_by_key(|name| (*name == DIRTY, *name != super::identity::NAME));
    for name in ours {
        if *name == DIRTY {
            layer.sync_dir(dir)?;
        }
        let path = dir.join(name);
        if is_recognised(layer, &path)? {
            layer.remove(&path)?;
        } else {
            layer.make_dir(&dir.join(ASIDE))?;
            layer.rename(&path, &dir.join(ASIDE).join(name))?;
        }
    }
    layer.sync_dir(dir)
}

/// Keeps what is there under another name; what was kept there before goes.
fn put_aside(layer: &dyn Layer, dir: &Path, names: &[String]) -> io::Result<()> {
    let aside = dir.join(ASIDE);
    layer.make_dir(&aside)?;
    // Only what is a store's; what is not goes only if another file gets its name.
    for name in layer.list(&aside)?.iter().filter(|name| is_ours(name)) {
        if is_recognised(layer, &aside.join(name))? {
            layer.remove(&aside.join(name))?;
        }
    }
    let mut ours: Vec<&String> = names.iter().filter(|name| is_ours(name)).collect();
    ours.sort_by_key(|name| *name != super::identity::NAME);
    for name in ours {
        layer.rename(&dir.join(name), &aside.join(name))?;
    }
    layer.sync_dir(&aside)?;
    layer.sync_dir(dir)
}

/// What is in a directory.
struct Contents {
    index: Index,
    segments: Segments,
    next_generation: u32,
    /// The oldest and the newest number of a rule when something in it was asked for.
    asked: (u64, u64),
    lost: Vec<String>,
}

fn contents(
    layer: &Arc<dyn Layer>,
    one: &Candidate,
    identity: &Identity,
    options: &Options,
    floor: u64,
) -> io::Result<Contents> {
    let mut contents = Contents {
        index: Index::default(),
        segments: Segments::default(),
        next_generation: 1,
        asked: (u64::MAX, 0),
        lost: Vec::new(),
    };
    if one.identity.is_none() {
        return Ok(contents);
    }
    // What was replaced or lost may come back with its record, and be older than rules that nothing
    // needed any more.
    contents.index.set_floor(floor);
    let mut there = Vec::new();
    for name in layer.list(&one.dir)? {
        if let Some(generation) = generation_of(&name) {
            contents.next_generation = contents.next_generation.max(generation.saturating_add(1));
            there.push(generation);
        }
    }
    there.sort_unstable();
    // Those of a smaller store than it was before go at once, the oldest first.
    let known = load_index(
        &**layer,
        &one.dir,
        identity,
        options,
        &contents.index,
        &there,
    );
    for generation in there {
        add_segment(layer, &one.dir, identity, &known, generation, &mut contents)?;
    }
    contents
        .index
        .retain(|entry| contents.segments.at(entry.slot).is_some());
    let (mut oldest, mut newest) = (u64::MAX, 0);
    contents.index.each(|entry| {
        oldest = oldest.min(entry.asked_at);
        newest = newest.max(entry.asked_at);
    });
    contents.asked = (oldest, newest);
    Ok(contents)
}

/// Reads the saved index; says how far it knows the segments that are still there.
fn load_index(
    layer: &dyn Layer,
    dir: &Path,
    identity: &Identity,
    options: &Options,
    index: &Index,
    there: &[u32],
) -> FxHashMap<u32, Known> {
    let known = std::cell::RefCell::new(Vec::new());
    let begin = |start: &checkpoint::Start| {
        let objects = usize::try_from(start.objects).unwrap_or(usize::MAX);
        index.reserve(objects.min(options.max_objects));
        let is_there = |one: &&Known| there.binary_search(&one.generation).is_ok();
        let mut slots = vec![false; 1 << 16];
        for one in start.segments.iter().filter(is_there) {
            slots[usize::from(one.slot)] = true;
        }
        known.replace(slots);
    };
    let insert = |entry: Entry| {
        // Of segments that went since, nothing is left.
        if known.borrow().get(usize::from(entry.slot)) == Some(&true) {
            index.insert(entry);
        }
    };
    match checkpoint::load(layer, dir, identity.store, begin, insert) {
        Some(start) => start
            .segments
            .into_iter()
            .map(|one| (one.generation, one))
            .collect(),
        None => {
            index.retain(|_| false);
            FxHashMap::default()
        }
    }
}

/// Opens a segment, and reads what the saved index does not know of it.
fn add_segment(
    layer: &Arc<dyn Layer>,
    dir: &Path,
    identity: &Identity,
    known: &FxHashMap<u32, Known>,
    generation: u32,
    contents: &mut Contents,
) -> io::Result<()> {
    let path = dir.join(super::volume::segment_name(generation));
    let file = layer.open(&path)?;
    let mut bytes = BytesMut::new();
    file.read_at(0, SEGMENT_HEADER_BYTES, &mut bytes)?;
    let known = known.get(&generation);
    if record::parse_segment_header(&bytes) != Some((identity.store, generation)) {
        // Its first page has not reached the disk, or something else was put in its place.
        let text = format!("{} cannot be read, and is removed", path.display());
        contents.lost.push(text);
        if let Some(known) = known {
            contents.index.retain(|entry| entry.slot != known.slot);
        }
        return layer.remove(&path);
    }
    let slot = match known {
        Some(known) => Some(known.slot),
        None => free_slot(contents),
    };
    let Some(slot) = slot else {
        return layer.remove(&path);
    };
    let len_bytes = file.len_bytes()?.next_multiple_of(UNIT);
    let segment = Segment {
        generation,
        slot,
        file,
        path,
        len_bytes: AtomicU64::new(len_bytes),
    };
    let begin = known.map_or(SEGMENT_HEADER_BYTES as u64, |known| known.len_bytes);
    let index = &contents.index;
    walk(&*segment.file, generation, begin, len_bytes, |seen| {
        if let Seen::Whole(at, header, payload) = seen {
            match header.kind {
                Kind::Head => {
                    if let Some(entry) = entry_of(slot, at, header, &payload) {
                        index.insert(entry);
                    }
                }
                _ => {
                    index.remove(header.tag, |_| true);
                }
            }
        }
    })?;
    segment.file.expect_scattered_reads();
    contents.segments.add(Arc::new(segment));
    Ok(())
}

/// A slot that neither a segment has nor one that the saved index knows: entries would be taken for
/// those of another one.
fn free_slot(contents: &Contents) -> Option<u16> {
    let mut taken = vec![false; 1 << 16];
    contents
        .index
        .each(|entry| taken[usize::from(entry.slot)] = true);
    for segment in contents.segments.all() {
        taken[usize::from(segment.slot)] = true;
    }
    let free = taken.iter().position(|taken| !taken)?;
    u16::try_from(free).ok()
}

fn entry_of(slot: u16, at: u64, header: &record::Header, payload: &bytes::Bytes) -> Option<Entry> {
    let head = Head::parse(payload)?;
    let fits = head.hash.half() == header.tag;
    fits.then_some(())?;
    Some(Entry {
        tag: header.tag,
        slot,
        offset: u32::try_from(at / UNIT).ok()?,
        units: u16::try_from(header.record_bytes() / UNIT).ok()?,
        variant: head.variant,
        asked_at: head.asked_at,
        several: head.table.is_some(),
        used: false,
    })
}
