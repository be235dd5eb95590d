//! What is purged is not found again, and what is asked for later is.

mod common;

use common::{Head, KEY, bytes, found, lead, store};
use forebay_store::rules::Rule;
use forebay_store::{BLOCK_BYTES, Outcome};

const MB: u64 = 1 << 20;

fn head(variant: u8, tag: &'static str) -> Head {
    Head { variant, tag }
}

#[test]
fn a_purge_meets_what_was_asked_for_before_it() {
    let store = store(64 * MB);
    let hash = store.hash(KEY);
    let now = || store.rules.newest();
    store.store(hash, KEY, now(), head(0, "red"), bytes(0..100));
    store.store(hash, KEY, now(), head(1, "red"), bytes(0..100));
    assert_eq!(store.usage().objects, 2);
    store.purge(&Rule::Tag((*b"red").into()), false);
    assert!(found(&store, KEY).is_none());

    // Asked for before, answered after.
    let asked = lead(&store, hash);
    store.purge(&Rule::Url(KEY.into()), false);
    let (object, mut filler) = store.publish(hash, KEY, asked.asked_at(), head(0, ""), None, false);
    asked.land(Outcome::Object(object.clone()));
    filler.push(&bytes(0..10));
    assert!(filler.finish());
    assert!(found(&store, KEY).is_none());

    store.store(hash, KEY, now(), head(0, "red"), bytes(0..100));
    assert!(found(&store, KEY).is_some());
    store.purge(&Rule::All, true);
    let stale = found(&store, KEY).expect("it is there, but must be validated");
    assert!(stale.is_stale());
    let fresh = store.refresh(&stale, now(), head(0, "red"));
    assert!(!fresh.is_stale() && stale.is_gone());
    assert_eq!(found(&store, KEY).unwrap().id, fresh.id);
}

#[test]
fn a_sweep_gives_memory_and_rules_back() {
    let store = store(64 * MB);
    for number in 0..10_000 {
        let key = format!("http://a.example/{number}");
        let tag = if number % 2 == 0 { "even" } else { "odd" };
        store.store(
            store.hash(key.as_bytes()),
            key.as_bytes(),
            0,
            head(0, tag),
            bytes(0..512),
        );
    }
    let before = store.usage();
    assert_eq!(before.objects, 10_000);
    store.purge(&Rule::Tag((*b"even").into()), false);
    assert_eq!(store.sweep().gone, 5_000);
    let after = store.usage();
    assert_eq!((after.objects, after.rules), (5_000, 0));
    // Queues stand in pieces of their own.
    assert!(after.bytes <= before.bytes / 2 + 32 * 1024);
    assert!(found(&store, b"http://a.example/7").is_some());
}

#[test]
fn a_rule_stays_for_what_is_under_way() {
    let store = store(64 * MB);
    let hash = store.hash(KEY);
    let rule = Rule::Host((*b"a.example").into());

    let asked = lead(&store, hash);
    store.purge(&rule, false);
    store.sweep();
    assert_eq!(store.usage().rules, 1);
    let (_, hidden) = store.publish(hash, KEY, asked.asked_at(), head(0, ""), Some(4), true);
    drop(asked);
    store.sweep();
    assert_eq!(
        store.usage().rules,
        1,
        "the object that is being filled may not come back"
    );
    let mut hidden = hidden;
    hidden.push(&bytes(0..4));
    assert!(hidden.finish());
    assert!(found(&store, KEY).is_none());
    store.sweep();
    assert_eq!(store.usage().rules, 0);
    assert_eq!(store.usage().objects, 0);
}

#[test]
fn memory_is_another_from_one_moment_to_the_next() {
    let store = store(64 * MB);
    for number in 0..40_000 {
        let key = format!("http://a.example/{number}");
        let hash = store.hash(key.as_bytes());
        store.store(hash, key.as_bytes(), 0, head(0, ""), bytes(0..512));
    }
    let before = store.usage();
    assert_eq!((before.objects, before.evicted), (40_000, 0));
    store.set_memory(4 * MB);
    let after = store.usage();
    assert!(after.bytes <= 4 * MB && after.bytes > 3 * MB, "{after:?}");
    assert!(after.objects > 1000, "{after:?}");
    assert_eq!(after.memory_bytes, 4 * MB);
    store.set_memory(64 * MB);
    assert_eq!(store.usage().objects, after.objects);
}

#[test]
fn uses_are_counted_for_as_many_keys_as_there_is_room_for() {
    let store = store(MB);
    let key = |number: u32| store.hash(&number.to_le_bytes());
    assert_eq!((store.count_use(key(0)), store.count_use(key(0))), (1, 2));
    for number in 1..20_000 {
        assert_eq!(store.count_use(key(number)), 1);
    }
    assert_eq!(store.count_use(key(19_999)), 2);
    assert_eq!(store.count_use(key(0)), 1, "it is forgotten");
}

#[test]
fn memory_has_a_bound() {
    let store = store(4 * MB);
    for number in 0..20_000 {
        let key = format!("http://a.example/{number}");
        let hash = store.hash(key.as_bytes());
        store.store(hash, key.as_bytes(), 0, head(0, ""), bytes(0..1024));
        assert!(store.usage().bytes <= 4 * MB);
    }
    let usage = store.usage();
    assert!(usage.objects > 2000 && usage.evicted > 10_000, "{usage:?}");
    // Blocks go one by one, and the object with the last of them.
    for number in 0..40 {
        let key = format!("http://b.example/{number}");
        let hash = store.hash(key.as_bytes());
        store.store(
            hash,
            key.as_bytes(),
            0,
            head(0, ""),
            bytes(0..6 * BLOCK_BYTES),
        );
        assert!(store.usage().bytes <= 4 * MB);
    }
    let usage = store.usage();
    assert!(usage.objects < 12_000, "{usage:?}");
}

#[test]
fn what_comes_under_a_renewed_head_is_counted() {
    for len in [1000, 4 * BLOCK_BYTES] {
        let store = store(64 * MB);
        let hash = store.hash(KEY);
        let (object, mut filler) = store.publish(hash, KEY, 0, head(0, ""), Some(len), false);
        filler.push(&bytes(0..len / 2));
        // A 304 comes while the body does.
        let renewed = store.refresh(&object, 0, head(0, "new"));
        filler.push(&bytes(len / 2..len));
        assert!(filler.finish());
        drop(object);
        // What is counted for the one that is gone is not any more.
        store.sweep();
        let held = store.usage().bytes;
        assert!(held >= len && held < len + 16 * 1024, "{held} of {len}");
        assert!(renewed.body.is_complete());
        store.set_memory(1024);
        assert_eq!(store.usage().objects, 0, "{len}: it can be thrown out");
    }
}

#[test]
fn variants_are_bounded() {
    let store = store(64 * MB);
    let hash = store.hash(KEY);
    for variant in 0..100 {
        store.store(hash, KEY, 0, head(variant, ""), bytes(0..10));
    }
    assert_eq!(store.usage().objects, 32);
    let oldest = store.variants(hash, KEY).pop().unwrap();
    assert_eq!(oldest.meta.variant, 68);
    store.store(hash, KEY, 0, head(99, ""), bytes(0..20));
    assert_eq!(store.usage().objects, 32);
}
