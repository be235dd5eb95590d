//! What is stored is found again: at once, after an end, after a kill; by size, age and use.

use std::path::Path;

use forebay_store::BLOCK_BYTES;
use forebay_store::disk::{ASIDE, Admit, Disk, Got, What};
use forebay_store::rules::Rule;

use crate::layer::Memory;
use crate::{DIR, SEGMENT, open, open_in, options, put, read, version};

#[test]
fn what_is_stored_is_found_again() {
    let layer = Memory::default();
    let block = usize::try_from(BLOCK_BYTES).unwrap();
    let lens = [
        0,
        1,
        1000,
        block - 1,
        block,
        block + 1,
        3 * block,
        5 * block + 7,
    ];
    let (disk, opened) = open(&layer, &options());
    assert!(opened.notices.is_empty(), "{:?}", opened.notices);
    for (at, len) in lens.into_iter().enumerate() {
        assert!(put(&disk, &format!("k{at}"), 0, 1, len, 0));
    }
    disk.flush(false);
    let check = |disk: &Disk| {
        for at in 0..lens.len() {
            assert_eq!(version(disk, &format!("k{at}")), Some(1), "{at}");
        }
        assert_eq!(version(disk, "other"), None);
    };
    check(&disk);
    // Killed: there is no saved index.
    let killed = layer.killed();
    let (again, opened) = open(&killed, &options());
    assert!(opened.notices.is_empty(), "{:?}", opened.notices);
    check(&again);
    // Ended: there is one, and nothing else has to be read.
    disk.close();
    assert_eq!(disk.usage().objects, lens.len());
    drop(disk);
    let (again, _) = open(&layer, &options());
    check(&again);
    assert!(put(&again, "k1", 0, 2, 70_000, 0));
    again.flush(false);
    assert_eq!(version(&again, "k1"), Some(2));
}

#[test]
fn variants_stand_beside_each_other() {
    let (disk, _) = open(&Memory::default(), &options());
    for variant in 0..3 {
        put(&disk, "k", variant, u64::from(variant), 100, 0);
    }
    put(&disk, "k", 1, 11, 100, 0);
    disk.flush(false);
    let versions: Vec<u64> = read(&disk, "k").iter().map(|read| read.version).collect();
    assert_eq!(versions, [11, 2, 0], "the newest first");
}

#[test]
fn what_is_gone_does_not_come_back() {
    let layer = Memory::default();
    let (disk, _) = open(&layer, &options());
    put(&disk, "kept", 0, 1, 100, 0);
    put(&disk, "k", 0, 1, 100, 0);
    disk.flush(true);
    disk.remove(crate::hash("k"));
    // Also while it still waits to be written.
    let gate = layer.faults.gate.write();
    put(&disk, "waits", 0, 1, 100, 0);
    disk.remove(crate::hash("waits"));
    drop(gate);
    disk.flush(false);
    for disk in [&disk, &open(&layer.killed(), &options()).0] {
        assert_eq!(version(disk, "k"), None);
        assert_eq!(version(disk, "waits"), None);
        assert_eq!(version(disk, "kept"), Some(1));
    }
}

#[test]
fn the_size_is_held_and_the_oldest_goes() {
    let layer = Memory::default();
    let options = options();
    let (disk, _) = open(&layer, &options);
    for at in 0..600 {
        put(&disk, &format!("k{at}"), 0, 1, 30_000, 0);
        if at % 10 == 0 {
            disk.flush(at % 100 == 0);
            let total = layer.total();
            assert!(total <= options.size_bytes, "{total} at {at}");
            assert!(disk.usage().bytes <= options.size_bytes);
        }
    }
    disk.flush(true);
    assert_eq!(version(&disk, "k599"), Some(1));
    assert_eq!(version(&disk, "k0"), None);
    let usage = disk.usage();
    assert!(usage.evicted > 400 && usage.errors.is_empty(), "{usage:?}");
    // Most of it is used.
    assert!(
        layer.total() >= options.size_bytes - 3 * SEGMENT,
        "{}",
        layer.total()
    );
    // With less room than before it becomes as small as it must.
    disk.close();
    drop(disk);
    let mut less = options;
    less.size_bytes = 4 * SEGMENT;
    let (disk, _) = open(&layer, &less);
    put(&disk, "new", 0, 1, 1000, 0);
    disk.flush(true);
    assert!(layer.total() <= less.size_bytes, "{}", layer.total());
    assert_eq!(version(&disk, "new"), Some(1));
}

#[test]
fn what_is_used_is_carried_over() {
    let layer = Memory::default();
    let (disk, _) = open(&layer, &options());
    put(&disk, "small", 0, 1, 10_000, 0);
    put(&disk, "unused", 0, 1, 10_000, 0);
    put(&disk, "large", 0, 1, 90_000, 0);
    disk.flush(false);
    for at in 0..600 {
        put(&disk, &format!("k{at}"), 0, 1, 30_000, 0);
        if at % 20 == 0 {
            disk.flush(false);
            assert_eq!(version(&disk, "small"), Some(1), "{at}");
            assert_eq!(version(&disk, "large"), Some(1), "{at}");
        }
    }
    disk.flush(false);
    assert_eq!(version(&disk, "unused"), None);
    assert!(disk.usage().carried >= 4, "{:?}", disk.usage());
    let (again, _) = open(&layer.killed(), &options());
    assert_eq!(version(&again, "small"), Some(1));
    assert_eq!(version(&again, "large"), Some(1));
}

#[test]
fn half_of_a_film_may_go() {
    let (disk, _) = open(&Memory::default(), &options());
    let block = usize::try_from(BLOCK_BYTES).unwrap();
    put(&disk, "film", 0, 1, 20 * block, 0);
    disk.flush(false);
    // One segment after the other goes, with the blocks in it.
    let mut absent = 0;
    for at in 0..200 {
        put(&disk, &format!("k{at}"), 0, 1, 60_000, 0);
        disk.flush(false);
        // Only its place is asked for: a read would be a use.
        if disk.find(crate::hash("film")).is_empty() {
            absent = 20;
            break;
        }
    }
    assert_eq!(absent, 20, "its head goes at last");
}

#[test]
fn a_body_can_be_sent_as_it_comes() {
    let (disk, _) = open(&Memory::default(), &options());
    let len = 3 * usize::try_from(BLOCK_BYTES).unwrap() + 5;
    let bytes = crate::body("k", 1, len);
    let blocks: Vec<_> = bytes
        .chunks(1 << 16)
        .map(bytes::Bytes::copy_from_slice)
        .collect();
    let object = forebay_store::disk::Object {
        hash: crate::hash("k"),
        key: b"k",
        variant: 0,
        asked_at: 0,
        meta: crate::meta("k", 1, len),
    };
    // In any order; one that never comes is absent.
    for (order, absent) in [(vec![2, 0, 3, 1], 0), (vec![3, 0], 2)] {
        let mut intake = disk.begin(object.hash, len as u64).unwrap();
        for number in order {
            assert!(intake.block(u32::try_from(number).unwrap(), blocks[number].clone()));
        }
        assert!(intake.commit(&object));
        disk.flush(false);
        assert_eq!(read(&disk, "k")[0].absent, absent);
    }
    // One that is dropped is never found.
    disk.remove(object.hash);
    let mut intake = disk.begin(object.hash, len as u64).unwrap();
    assert!(intake.block(0, blocks[0].clone()));
    drop(intake);
    disk.flush(false);
    assert!(read(&disk, "k").is_empty());
}

#[test]
fn only_the_second_time_is_stored() {
    let mut options = options();
    options.admit = Admit::Second;
    let (disk, _) = open(&Memory::default(), &options);
    assert!(!disk.wants(crate::hash("k")));
    assert!(disk.wants(crate::hash("k")));
    options.admit = Admit::All;
    let (disk, _) = open(&Memory::default(), &options);
    assert!(disk.wants(crate::hash("k")));
}

#[test]
fn no_more_is_written_than_may_be() {
    let mut options = options();
    options.write_bytes_per_second = 100_000;
    let (disk, _) = open(&Memory::default(), &options);
    let begin = std::time::Instant::now();
    let taken = (0..100)
        .filter(|at| put(&disk, &format!("k{at}"), 0, 1, 10_000, 0))
        .count();
    // A second's worth at once, and what a slow machine has had time for.
    let most = 10 + usize::try_from(begin.elapsed().as_millis()).unwrap() / 90;
    assert!(taken >= 5 && taken <= most, "{taken} of at most {most}");
    assert_eq!(disk.usage().refused_rate, 100 - taken as u64);
}

#[test]
fn several_disks_share_what_is_stored() {
    let layer = Memory::default();
    let dirs = ["/a", "/b", "/c"];
    let (disk, _) = open_in(&layer, &dirs, &options());
    for at in 0..90 {
        put(&disk, &format!("k{at}"), 0, 1, 20_000, 0);
    }
    disk.flush(true);
    let check = |disk: &Disk| (0..90).all(|at| version(disk, &format!("k{at}")) == Some(1));
    assert!(check(&disk));
    for dir in dirs {
        let inside = |path: &&std::path::PathBuf| path.starts_with(dir);
        let paths = layer.paths();
        let bytes: usize = paths
            .iter()
            .filter(inside)
            .map(|p| layer.bytes(p).unwrap().len())
            .sum();
        assert!(bytes > 300_000, "{dir}: {bytes}");
    }
    disk.purge(1, &Rule::Tag((*b"t").into()), false).unwrap();
    disk.close();
    drop(disk);
    // Without one of them the others go on, and purges are written to them.
    let (disk, opened) = open_in(&layer, &["/a", "/c"], &options());
    assert_eq!(opened.newest, 1);
    disk.purge(2, &Rule::All, false).unwrap();
    disk.close();
    drop(disk);
    // It has missed one.
    let (disk, opened) = open_in(&layer, &dirs, &options());
    let notices = &opened.notices;
    assert!(
        notices.len() == 1 && notices[0].what == What::Discarded,
        "{notices:?}"
    );
    assert_eq!(notices[0].dir, Path::new("/b"));
    assert!(opened.rules.iter().any(|rule| rule.rule == Rule::All));
    assert!(disk.usage().objects < 90);
}

#[test]
fn what_cannot_be_read_is_kept_aside() {
    let file = |name: &str| Path::new(DIR).join(name);
    let cases: [(&str, usize, &str); 5] = [
        ("store", 0, "damaged"),
        ("store", 12, "format"),
        ("store", 40, "damaged"),
        ("rules", 20, "rules"),
        ("rules", 60, "rules"),
    ];
    for (name, at, says) in cases {
        let layer = Memory::default();
        let (disk, _) = open(&layer, &options());
        put(&disk, "k", 0, 1, 100, 0);
        for number in 1..4 {
            disk.purge(number, &Rule::Tag((*b"tag").into()), false)
                .unwrap();
        }
        disk.close();
        drop(disk);
        let mut bytes = layer.bytes(&file(name)).unwrap();
        bytes[at] ^= 2;
        layer.set(&file(name), bytes.clone());
        let (disk, opened) = open(&layer, &options());
        let notices = &opened.notices;
        assert!(
            notices.len() == 1 && notices[0].what == What::Refused,
            "{notices:?}"
        );
        assert!(notices[0].text.contains(says), "{notices:?}");
        assert_eq!(layer.bytes(&file(ASIDE).join(name)), Some(bytes));
        assert_eq!(version(&disk, "k"), None);
        put(&disk, "k", 0, 2, 100, 0);
        disk.flush(false);
        assert_eq!(version(&disk, "k"), Some(2));
    }
}

#[test]
fn what_is_somebody_else_s_is_not_removed() {
    let layer = Memory::default();
    let file = |name: &str| Path::new(DIR).join(name);
    for name in ["index", "rules", "dirty", "notes.txt"] {
        layer.set(&file(name), b"somebody's own text".to_vec());
    }
    let (disk, _) = open(&layer, &options());
    put(&disk, "k", 0, 1, 100, 0);
    disk.flush(true);
    assert_eq!(version(&disk, "k"), Some(1));
    let own = b"somebody's own text".to_vec();
    for name in ["index", "rules", "dirty"] {
        assert_eq!(
            layer.bytes(&file(ASIDE).join(name)),
            Some(own.clone()),
            "{name}"
        );
    }
    assert_eq!(layer.bytes(&file("notes.txt")), Some(own));
}

#[test]
fn a_damaged_index_is_made_anew() {
    let layer = Memory::default();
    let (disk, _) = open(&layer, &options());
    for at in 0..50 {
        put(&disk, &format!("k{at}"), 0, 1, 5000, 0);
    }
    disk.close();
    drop(disk);
    let path = Path::new(DIR).join("index");
    let whole = layer.bytes(&path).unwrap();
    for at in [0, 20, 60, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let killed = layer.killed();
        killed.set(&path, bytes);
        let (disk, _) = open(&killed, &options());
        for at in 0..50 {
            assert_eq!(version(&disk, &format!("k{at}")), Some(1), "{at}");
        }
    }
}

#[test]
fn a_directory_has_one_user() {
    let layer = Memory::default();
    let (_disk, _) = open(&layer, &options());
    let (other, opened) = open(&layer, &options());
    assert_eq!(opened.notices[0].what, What::Failed);
    assert!(
        opened.notices[0].text.contains("another process"),
        "{:?}",
        opened.notices
    );
    assert!(!put(&other, "k", 0, 1, 100, 0));
}

#[test]
fn a_worker_does_not_wait() {
    let layer = Memory::default();
    let (disk, _) = open(&layer, &options());
    put(&disk, "k", 0, 1, 100, 0);
    disk.flush(false);
    let place = disk.find(crate::hash("k"))[0];
    layer
        .faults
        .cold
        .store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(disk.try_read(&place, b"k"), Got::Wait));
    assert!(disk.read(&place, b"k").is_some());
    layer
        .faults
        .cold
        .store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(disk.try_read(&place, b"k"), Got::Here(_)));
    assert!(matches!(disk.try_read(&place, b"x"), Got::Absent));
}
