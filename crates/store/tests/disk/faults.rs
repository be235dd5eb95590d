//! Disks that are slow, full or broken: requests do not notice, and nothing purged comes back.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use forebay_store::disk::What;
use forebay_store::rules::Rule;

use crate::layer::Memory;
use crate::{DIR, open, options, put, version};

#[test]
fn a_slow_disk_loses_what_is_new_and_delays_nobody() {
    let layer = Memory::default();
    let mut options = options();
    options.queue_bytes = 1024 * 1024;
    let (disk, _) = open(&layer, &options);
    put(&disk, "before", 0, 1, 1000, 0);
    disk.flush(false);
    let gate = layer.faults.gate.write();
    let begin = Instant::now();
    let taken = (0..200)
        .filter(|at| put(&disk, &format!("k{at}"), 0, 1, 30_000, 0))
        .count();
    // All the time nothing is written at all.
    assert!((30..=110).contains(&taken), "{taken}");
    assert_eq!(version(&disk, "before"), Some(1));
    assert_eq!(disk.usage().refused_queue, 200 - taken as u64);
    assert!(disk.usage().queue_bytes <= 1024 * 1024);
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(gate);
    layer.faults.slow_ms.store(20, SeqCst);
    disk.flush(false);
    assert_eq!(version(&disk, "k0"), Some(1));
    assert_eq!(disk.usage().objects, taken + 1);
}

#[test]
fn a_full_disk_is_left_alone() {
    let layer = Memory::default();
    let (disk, _) = open(&layer, &options());
    put(&disk, "before", 0, 1, 1000, 0);
    disk.flush(true);
    layer
        .faults
        .room
        .store(layer.faults.used.load(SeqCst) + 100_000, SeqCst);
    for at in 0..20 {
        put(&disk, &format!("k{at}"), 0, 1, 30_000, 0);
    }
    disk.flush(false);
    let usage = disk.usage();
    assert_eq!(usage.errors.len(), 1, "{usage:?}");
    assert!(
        usage.errors[0].starts_with("/disk: cannot write"),
        "{usage:?}"
    );
    assert_eq!(usage.objects, 0);
    assert!(!put(&disk, "after", 0, 1, 1000, 0));
    assert_eq!(version(&disk, "before"), None);
    // It is marked, so a purge that is not written to it is none that comes back.
    disk.purge(1, &Rule::All, false).unwrap();
    disk.close();
    drop(disk);
    layer.faults.room.store(0, SeqCst);
    let (disk, opened) = open(&layer, &options());
    assert_eq!(opened.notices[0].what, What::Discarded);
    assert_eq!(version(&disk, "before"), None);
    put(&disk, "after", 0, 1, 1000, 0);
    disk.flush(false);
    assert_eq!(version(&disk, "after"), Some(1));
}

#[test]
fn a_purge_that_cannot_be_written_fails_and_holds() {
    type Breaks = fn(&Memory, bool);
    let breaks: [Breaks; 2] = [
        |layer, broken| layer.faults.fail_writes.store(broken, SeqCst),
        |layer, broken| layer.faults.fail_syncs.store(broken, SeqCst),
    ];
    for broken in breaks {
        let layer = Memory::default();
        let (disk, _) = open(&layer, &options());
        put(&disk, "k", 0, 1, 1000, 0);
        disk.flush(true);
        broken(&layer, true);
        assert!(disk.purge(1, &Rule::All, false).is_err());
        assert_eq!(version(&disk, "k"), None);
        assert_eq!(disk.usage().errors.len(), 1);
        broken(&layer, false);
        disk.close();
        drop(disk);
        let (disk, opened) = open(&layer, &options());
        assert!(
            opened
                .notices
                .iter()
                .any(|notice| notice.what == What::Discarded)
        );
        assert_eq!(version(&disk, "k"), None);
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_left_alone() {
    let layer = Memory::default();
    let (disk, _) = open(&layer, &options());
    put(&disk, "k", 0, 1, 1000, 0);
    disk.flush(true);
    layer.faults.fail_reads.store(true, SeqCst);
    assert_eq!(version(&disk, "k"), None);
    assert!(disk.usage().errors[0].contains("cannot read"));
    layer.faults.fail_reads.store(false, SeqCst);
    assert_eq!(version(&disk, "k"), None);
    assert!(layer.bytes(&Path::new(DIR).join("dirty")).is_some());
}

#[test]
fn a_damaged_record_is_a_miss_and_forgotten() {
    let layer = Memory::default();
    let (disk, _) = open(&layer, &options());
    for key in ["one", "two", "large"] {
        put(
            &disk,
            key,
            0,
            1,
            if key == "large" { 150_000 } else { 1000 },
            0,
        );
    }
    disk.close();
    drop(disk);
    let path = Path::new(DIR).join("segment-00000001");
    let bytes = layer.bytes(&path).unwrap();
    for at in (64..bytes.len()).step_by(997) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let layer = layer.killed();
        layer.set(&path, damaged);
        let (disk, _) = open(&layer, &options());
        let mut whole = 0;
        for key in ["one", "two", "large"] {
            // Every byte that comes is compared by this.
            whole += crate::read(&disk, key)
                .iter()
                .filter(|read| read.absent == 0)
                .count();
        }
        // Zeros behind a record belong to nothing.
        assert!(whole >= 2, "{at}");
        assert!(whole == 2 || disk.usage().damaged == 0, "{at}");
    }
}
