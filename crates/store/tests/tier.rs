//! Memory and disks together: what leaves memory, or the process, is found again on a disk.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use common::{Head, KEY};
use forebay_store::disk::{self, Admit, Disk, Got, Layer, SystemFiles};
use forebay_store::rules::Rule;
use forebay_store::{BLOCK_BYTES, Object, Options, Pushed, Reader, Store};

const MB: u64 = 1024 * 1024;

struct Dir(tempfile::TempDir);

impl Dir {
    fn open(&self, memory_bytes: u64, admit: Admit) -> Arc<Store<Head>> {
        let layer: Arc<dyn Layer> = Arc::new(SystemFiles);
        let options = disk::Options {
            size_bytes: 64 * MB,
            write_bytes_per_second: 0,
            admit,
            queue_bytes: 32 << 20,
            max_objects: 100_000,
            segment_bytes: None,
            on_failure: |_| {},
            secret: [9; 16],
        };
        let dirs = [PathBuf::from(self.0.path())];
        let (disk, opened) = Disk::open(&layer, &dirs, &options);
        assert!(opened.notices.is_empty(), "{:?}", opened.notices);
        let options = Options {
            memory_bytes,
            secret: [1; 16],
        };
        let store = Store::new(options);
        store.attach(disk, &opened);
        store
    }
}

fn dir() -> Dir {
    Dir(tempfile::tempdir().unwrap())
}

fn head(variant: u8, tag: &'static str) -> Head {
    Head { variant, tag }
}

fn body(len: u64) -> Bytes {
    let byte = |at: u64| u8::try_from(at * 31 % 251).unwrap();
    (0..len).map(byte).collect()
}

fn publish(store: &Arc<Store<Head>>, key: &[u8], meta: Head, len: u64) {
    let hash = store.hash(key);
    let asked_at = store.rules.newest();
    let (_, mut filler) = store.publish(hash, key, asked_at, meta, Some(len), false);
    for chunk in body(len).chunks(100_000) {
        assert_eq!(filler.push(&Bytes::copy_from_slice(chunk)), Pushed::More);
    }
    assert!(filler.finish());
}

fn in_memory(store: &Arc<Store<Head>>, key: &[u8]) -> bool {
    common::found(store, key).is_some()
}

/// What comes from a disk, taken up.
fn from_disk(store: &Arc<Store<Head>>, key: &[u8]) -> Vec<Arc<Object<Head>>> {
    store.disk().unwrap().flush(false);
    let hash = store.hash(key);
    let Got::Here(found) = store.look_on_disk(key, true) else {
        return Vec::new();
    };
    found
        .into_iter()
        .filter_map(|one| store.take_up(hash, key, one))
        .collect()
}

/// Reads all of an object, and brings what is absent from the disk.
fn read(store: &Arc<Store<Head>>, object: &Arc<Object<Head>>) -> Vec<u8> {
    let (_, waker) = common::bell();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut reader = Reader::new(object.clone(), 0, None);
    let mut all = Vec::new();
    loop {
        match reader.poll_read(&mut cx) {
            std::task::Poll::Ready(forebay_store::Read::Data(bytes)) => {
                all.extend_from_slice(&bytes)
            }
            std::task::Poll::Ready(forebay_store::Read::End) => return all,
            std::task::Poll::Ready(forebay_store::Read::Absent(at)) => {
                let (mut filler, blocks) = store.fill_from_disk(object, at, None).unwrap().unwrap();
                let range = filler.range();
                for number in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
                    let number = u32::try_from(number).unwrap();
                    let bytes = store.disk().unwrap().read_block(&blocks, number);
                    assert_eq!(filler.push(&bytes.unwrap()), Pushed::More);
                }
                assert!(filler.finish());
            }
            _ => panic!("nobody brings it"),
        }
    }
}

#[test]
fn what_was_stored_is_found_after_a_restart() {
    let dir = dir();
    let lens = [0, 100, BLOCK_BYTES, BLOCK_BYTES + 1, 20 * BLOCK_BYTES + 5];
    let key = |len: u64| format!("http://a.example/{len}").into_bytes();
    let store = dir.open(64 * MB, Admit::All);
    for len in lens {
        publish(&store, &key(len), head(0, "t"), len);
    }
    store.disk().unwrap().close();
    drop(store);
    let store = dir.open(64 * MB, Admit::All);
    for len in lens {
        assert!(!in_memory(&store, &key(len)));
        let found = from_disk(&store, &key(len));
        assert_eq!(found.len(), 1, "{len}");
        assert_eq!(found[0].meta, head(0, "t"));
        assert!(read(&store, &found[0]) == body(len), "{len}");
        assert!(in_memory(&store, &key(len)));
    }
    assert!(from_disk(&store, b"http://a.example/other").is_empty());
}

#[test]
fn what_is_too_large_for_memory_is_on_the_disk() {
    let dir = dir();
    let store = dir.open(8 * MB, Admit::All);
    let len = 10 * MB;
    publish(&store, KEY, head(0, ""), len);
    let found = from_disk(&store, KEY);
    assert!(read(&store, &found[0]) == body(len));
    assert!(store.usage().bytes <= 8 * MB, "{:?}", store.usage());
}

#[test]
fn what_memory_throws_out_stays_on_the_disk() {
    let dir = dir();
    let store = dir.open(MB, Admit::All);
    let key = |number: u64| format!("http://a.example/{number}").into_bytes();
    for number in 0..500 {
        publish(&store, &key(number), head(0, ""), 10_000);
    }
    let gone: Vec<u64> = (0..500)
        .filter(|number| !in_memory(&store, &key(*number)))
        .collect();
    assert!(gone.len() > 300, "{}", gone.len());
    for number in gone {
        let found = from_disk(&store, &key(number));
        assert!(read(&store, &found[0]) == body(10_000));
    }
}

#[test]
fn variants_come_from_the_disk_each_by_itself() {
    let dir = dir();
    let store = dir.open(MB, Admit::All);
    for variant in 0..3 {
        publish(&store, KEY, head(variant, ""), 1000);
    }
    publish(&store, KEY, head(1, "new"), 1000);
    store.disk().unwrap().close();
    drop(store);
    let store = dir.open(MB, Admit::All);
    let mut found = from_disk(&store, KEY);
    found.sort_by_key(|object| object.meta.variant);
    let metas: Vec<&Head> = found.iter().map(|object| &object.meta).collect();
    assert_eq!(metas, [&head(0, ""), &head(1, "new"), &head(2, "")]);
}

#[test]
fn purges_hold_over_restarts() {
    let rules = [
        Rule::All,
        Rule::Url(KEY.into()),
        Rule::Host((*b"a.example").into()),
        Rule::Tag((*b"t").into()),
    ];
    for rule in rules {
        let dir = dir();
        let store = dir.open(MB, Admit::All);
        publish(&store, KEY, head(0, "t"), 1000);
        publish(&store, b"http://b.example/", head(0, ""), 1000);
        store.purge_durably(&rule, false).unwrap();
        assert!(!in_memory(&store, KEY));
        assert!(from_disk(&store, KEY).is_empty(), "{rule:?}");
        store.sweep();
        store.disk().unwrap().close();
        drop(store);
        for _ in 0..3 {
            let store = dir.open(MB, Admit::All);
            assert!(from_disk(&store, KEY).is_empty(), "{rule:?}");
            let other = from_disk(&store, b"http://b.example/").len();
            assert_eq!(other, usize::from(rule != Rule::All), "{rule:?}");
            // What is asked for after it is not met by it.
            publish(&store, b"http://a.example/new", head(0, "t"), 1000);
            assert!(in_memory(&store, b"http://a.example/new"));
            store.sweep();
            store.disk().unwrap().close();
            drop(store);
        }
        let store = dir.open(MB, Admit::All);
        assert_eq!(
            from_disk(&store, b"http://a.example/new").len(),
            1,
            "{rule:?}"
        );
    }
}

#[test]
fn a_soft_purge_is_remembered_on_the_disk() {
    let dir = dir();
    let store = dir.open(MB, Admit::All);
    publish(&store, KEY, head(0, "t"), 1000);
    store
        .purge_durably(&Rule::Tag((*b"t").into()), true)
        .unwrap();
    assert!(common::found(&store, KEY).unwrap().is_stale());
    // In memory the object remembers it, so that the rule could go; on the disk it does not.
    store.sweep();
    store.disk().unwrap().close();
    drop(store);
    let store = dir.open(MB, Admit::All);
    assert!(from_disk(&store, KEY)[0].is_stale());
}

#[test]
fn what_is_invalid_or_replaced_does_not_come_back() {
    let dir = dir();
    let store = dir.open(MB, Admit::All);
    publish(&store, KEY, head(0, ""), 1000);
    store.invalidate(store.hash(KEY), KEY);
    assert!(from_disk(&store, KEY).is_empty());
    publish(&store, KEY, head(0, "one"), 1000);
    publish(&store, KEY, head(0, "two"), 70_000);
    store.disk().unwrap().close();
    drop(store);
    let store = dir.open(MB, Admit::All);
    let found = from_disk(&store, KEY);
    assert_eq!(found[0].meta, head(0, "two"));
    // What is newer in memory is not replaced by what was on the disk.
    let Got::Here(mut old) = store.look_on_disk(KEY, true) else {
        panic!("it is there");
    };
    publish(&store, KEY, head(0, "three"), 1000);
    let there = store.take_up(store.hash(KEY), KEY, old.remove(0)).unwrap();
    assert_eq!(there.meta, head(0, "three"));
    // Its head has changed since, by a 304.
    let newest = common::found(&store, KEY).unwrap();
    store.refresh(&newest, store.rules.newest(), head(0, "four"));
    store.disk().unwrap().close();
    drop(store);
    let store = dir.open(MB, Admit::All);
    assert_eq!(from_disk(&store, KEY)[0].meta, head(0, "four"));
}

#[test]
fn the_second_request_is_what_counts() {
    let dir = dir();
    let store = dir.open(MB, Admit::Second);
    publish(&store, KEY, head(0, ""), 1000);
    assert!(from_disk(&store, KEY).is_empty());
    let object = common::found(&store, KEY).unwrap();
    store.used(&object);
    store.disk().unwrap().close();
    drop(store);
    let store = dir.open(MB, Admit::All);
    assert_eq!(from_disk(&store, KEY).len(), 1);
}

#[test]
fn what_several_have_brought_is_whole_on_the_disk() {
    let dir = dir();
    let store = dir.open(64 * MB, Admit::All);
    let len = 4 * MB;
    let (object, mut first) = store.publish(store.hash(KEY), KEY, 0, head(0, ""), Some(len), false);
    let bytes = body(len);
    let part = |from: u64, to: u64| {
        bytes.slice(usize::try_from(from).unwrap()..usize::try_from(to).unwrap())
    };
    assert_eq!(first.push(&part(0, BLOCK_BYTES)), Pushed::More);
    // Far ahead of it: these blocks are taken over.
    let mut second = store.fill(&object, 3 * MB, None).unwrap();
    assert_eq!(second.push(&part(3 * MB, len)), Pushed::More);
    assert!(second.finish());
    assert_eq!(first.push(&part(BLOCK_BYTES, len)), Pushed::Enough);
    assert!(first.finish());
    store.disk().unwrap().close();
    drop((object, store));
    let store = dir.open(64 * MB, Admit::All);
    let found = from_disk(&store, KEY);
    assert!(read(&store, &found[0]) == bytes);
}
