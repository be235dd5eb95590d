//! Fills and their readers: what comes in goes out, to whoever reads, whenever he came.

mod common;

use std::task::{Context, Poll};

use common::{Head, KEY, State, bell, bytes, drain, found, lead, store};
use forebay_store::{AHEAD_BYTES, BLOCK_BYTES, Begin, Outcome, Pushed, Read, Reader, WINDOW_BYTES};
use proptest::prelude::*;

const MB: u64 = 1 << 20;

#[test]
fn a_body_is_read_while_it_comes() {
    for len in [
        0,
        1,
        1000,
        BLOCK_BYTES - 1,
        BLOCK_BYTES,
        BLOCK_BYTES + 1,
        3 * BLOCK_BYTES,
    ] {
        for known in [true, false] {
            let store = store(64 * MB);
            let hash = store.hash(KEY);
            let (object, mut filler) =
                store.publish(hash, KEY, 0, Head::default(), known.then_some(len), false);
            let mut early = Reader::new(object.clone(), 0, None);
            let (bell, waker) = bell();
            let mut at = 0;
            while at < len {
                assert_eq!(drain(&mut early, &waker), State::Waits, "{len} {known}");
                let rung = bell.rung();
                let next = len.min(at + 30_000);
                assert_eq!(filler.push(&bytes(at..next)), Pushed::More);
                assert!(bell.rung() > rung);
                at = next;
                assert_eq!(filler.position(), at);
            }
            assert!(filler.finish());
            assert_eq!(drain(&mut early, &waker), State::End, "{len} {known}");
            assert_eq!(early.position(), len);
            assert!(object.body.is_complete());
            assert_eq!(object.body.len_bytes(), Some(len));
            assert_eq!(object.body.is_whole(), len <= BLOCK_BYTES);
            let found = found(&store, KEY).expect("it is stored");
            let mut late = Reader::new(found, len / 2, None);
            assert_eq!(drain(&mut late, &waker), State::End);
            assert_eq!(store.usage().objects, 1);
            assert!(store.usage().bytes >= len);
        }
    }
}

#[test]
fn what_is_too_short_or_too_long_is_never_complete() {
    let store = store(64 * MB);
    let hash = store.hash(KEY);
    let (object, mut filler) = store.publish(hash, KEY, 0, Head::default(), Some(10), false);
    let mut reader = Reader::new(object.clone(), 0, None);
    let (_, waker) = bell();
    assert_eq!(filler.push(&bytes(0..9)), Pushed::More);
    assert_eq!(drain(&mut reader, &waker), State::Waits);
    assert!(!filler.finish());
    assert_eq!(drain(&mut reader, &waker), State::Failed);
    assert!(found(&store, KEY).is_none() && object.is_gone());

    let (object, mut filler) = store.publish(hash, KEY, 0, Head::default(), Some(10), false);
    assert_eq!(filler.push(&bytes(0..11)), Pushed::TooMuch);
    filler.stop(true, false);
    assert!(found(&store, KEY).is_none() && object.is_gone());

    // One that is just dropped, as by a panic, has failed too.
    let (object, filler) = store.publish(hash, KEY, 0, Head::default(), None, false);
    let mut reader = Reader::new(object, 0, None);
    assert_eq!(drain(&mut reader, &waker), State::Waits);
    drop(filler);
    assert_eq!(drain(&mut reader, &waker), State::Failed);
    assert!(found(&store, KEY).is_none());
}

#[test]
fn blocks_of_a_fill_that_stopped_stay_and_are_completed() {
    let store = store(64 * MB);
    let len = 4 * BLOCK_BYTES + 100;
    let hash = store.hash(KEY);
    let (object, mut filler) = store.publish(hash, KEY, 0, Head::default(), Some(len), false);
    assert_eq!(filler.push(&bytes(0..2 * BLOCK_BYTES + 50)), Pushed::More);
    filler.stop(false, true);
    assert_eq!(object.body.resident_blocks(), 2);
    let (_, waker) = bell();
    let mut reader = Reader::new(found(&store, KEY).unwrap(), 0, None);
    assert_eq!(drain(&mut reader, &waker), State::Absent(2 * BLOCK_BYTES));

    // A far range first, then the hole: each brings only what is absent.
    let mut far = store.fill(&object, 3 * BLOCK_BYTES + 7, Some(len)).unwrap();
    assert_eq!(far.range(), 3 * BLOCK_BYTES..len);
    let mut hole = store.fill(&object, reader.position(), None).unwrap();
    assert_eq!(hole.range(), 2 * BLOCK_BYTES..3 * BLOCK_BYTES);
    assert!(store.fill(&object, reader.position(), None).is_err());
    assert_eq!(far.push(&bytes(far.range())), Pushed::More);
    assert!(far.finish());
    assert_eq!(drain(&mut reader, &waker), State::Waits);
    assert_eq!(hole.push(&bytes(hole.range())), Pushed::More);
    assert!(hole.finish());
    assert_eq!(drain(&mut reader, &waker), State::End);
    assert!(object.body.is_complete());
}

#[test]
fn a_reader_waits_for_one_fill_after_another() {
    let store = store(64 * MB);
    let len = 3 * BLOCK_BYTES;
    let hash = store.hash(KEY);
    let middle = BLOCK_BYTES..2 * BLOCK_BYTES;
    let part = store.publish_part(hash, KEY, 0, Head::default(), len, middle.clone());
    let (object, mut filler) = part.unwrap();
    assert_eq!(filler.push(&bytes(middle)), Pushed::More);
    assert!(filler.finish());
    let (bell, waker) = bell();
    let mut reader = Reader::new(object.clone(), 0, None);
    for (absent, range) in [(0, 0..BLOCK_BYTES), (2 * BLOCK_BYTES, 2 * BLOCK_BYTES..len)] {
        assert_eq!(drain(&mut reader, &waker), State::Absent(absent));
        let mut filler = store.fill(&object, absent, reader.end()).unwrap();
        assert_eq!(filler.range(), range);
        for _ in 0..3 {
            assert_eq!(drain(&mut reader, &waker), State::Waits);
        }
        let rung = bell.rung();
        assert_eq!(filler.push(&bytes(range)), Pushed::More);
        assert_eq!(bell.rung(), rung + 1);
        assert!(filler.finish());
    }
    assert_eq!(drain(&mut reader, &waker), State::End);
    assert!(
        store
            .publish_part(hash, KEY, 0, Head::default(), len, 1..2)
            .is_none()
    );
}

#[test]
fn an_object_that_is_too_big_keeps_a_window() {
    let store = store(8 * MB);
    let len = 64 * MB;
    let hash = store.hash(KEY);
    let (object, mut filler) = store.publish(hash, KEY, 0, Head::default(), Some(len), false);
    assert!(object.body.is_windowed());
    let mut fast = Reader::new(object.clone(), 0, None);
    let mut slow = Reader::new(object.clone(), 0, None);
    let (bell, waker) = bell();
    let mut cx = Context::from_waker(&waker);
    let mut at = 0;
    let mut most = 0;
    while at < len {
        if filler.poll_room(&mut cx).is_pending() {
            assert!(at <= fast.position() + AHEAD_BYTES + 40_000);
            let rung = bell.rung();
            assert_eq!(drain(&mut fast, &waker), State::Waits);
            assert!(bell.rung() > rung, "the fill is woken");
            continue;
        }
        let next = len.min(at + 40_000);
        assert_eq!(filler.push(&bytes(at..next)), Pushed::More);
        at = next;
        most = most.max(object.body.resident_blocks());
    }
    assert!(filler.finish());
    assert_eq!(drain(&mut fast, &waker), State::End);
    let window = (WINDOW_BYTES + AHEAD_BYTES) / BLOCK_BYTES + 2;
    assert!(most as u64 <= window, "{most} blocks");
    assert_eq!(drain(&mut slow, &waker), State::Absent(0));
    assert!(
        store.fill(&object, 0, None).is_err(),
        "nothing of it would stay"
    );
    assert!(found(&store, KEY).is_none());
}

#[test]
fn one_asks_and_the_others_hear() {
    let store = store(64 * MB);
    let hash = store.hash(KEY);
    let (bell, waker) = bell();
    let mut cx = Context::from_waker(&waker);
    let follow = || match store.begin(hash, KEY, 0) {
        Begin::Follow(follow) => Box::pin(follow),
        _ => panic!("nobody leads"),
    };
    let first = lead(&store, hash);
    let (mut one, mut other) = (follow(), follow());
    assert!(one.as_mut().poll(&mut cx).is_pending());
    assert!(other.as_mut().poll(&mut cx).is_pending());
    assert_eq!(first.followers(), 2);
    let seen = store.questions(|key| key == KEY, 9);
    assert_eq!((seen.len(), seen[0].followers), (1, 2));
    assert_eq!((seen[0].hashes, &*seen[0].key), ((hash, hash), KEY));
    assert!(store.questions(|key| key != KEY, 9).is_empty());
    assert!(store.questions(|_| true, 0).is_empty());
    drop(other);
    assert_eq!(first.followers(), 1);
    first.land(Outcome::Failed(502));
    assert_eq!(bell.rung(), 1);
    let std::task::Poll::Ready(Outcome::Failed(502)) = one.as_mut().poll(&mut cx) else {
        panic!("it has failed");
    };

    let dropped = lead(&store, hash);
    let mut one = follow();
    drop(dropped);
    assert!(matches!(
        one.as_mut().poll(&mut cx),
        std::task::Poll::Ready(Outcome::Dropped)
    ));

    lead(&store, hash).land(Outcome::Pass);
    store.pass(hash, 1000, 7);
    assert_eq!(store.passed(hash, 999), Some((1000, 7)));
    assert_eq!(store.passed(hash, 1000), None);
    assert!(matches!(store.begin(hash, KEY, 999), Begin::Pass));
    assert!(matches!(store.begin(hash, KEY, 1000), Begin::Lead(_)));
    assert_eq!(store.usage().flights, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the pieces, and wherever readers begin and end: each gets exactly his bytes.
    #[test]
    fn every_reader_gets_his_bytes(
        len in 0..5 * BLOCK_BYTES,
        known in any::<bool>(),
        pieces in prop::collection::vec(1..90_000_u64, 1..40),
        starts in prop::collection::vec((0..5 * BLOCK_BYTES, 0..5 * BLOCK_BYTES), 1..8),
    ) {
        let store = store(64 * MB);
        let hash = store.hash(KEY);
        let (object, mut filler) =
            store.publish(hash, KEY, 0, Head::default(), known.then_some(len), false);
        let (_, waker) = bell();
        let mut readers: Vec<_> = starts
            .iter()
            .map(|(a, b)| (Reader::new(object.clone(), *a.min(b), Some(*a.max(b))), *a.max(b)))
            .collect();
        let mut at = 0;
        for piece in pieces.iter().cycle() {
            if at == len {
                break;
            }
            let next = len.min(at + piece);
            prop_assert_eq!(filler.push(&bytes(at..next)), Pushed::More);
            at = next;
            for (reader, _) in &mut readers {
                drain(reader, &waker);
            }
        }
        prop_assert!(filler.finish());
        for (mut reader, end) in readers {
            prop_assert_eq!(drain(&mut reader, &waker), State::End);
            prop_assert!(reader.position() >= end.min(len));
        }
        prop_assert!(object.body.is_complete());
    }
}

#[test]
fn what_is_far_ahead_is_taken_over_by_another_fill() {
    let store = store(64 * MB);
    let len = 8 * MB;
    let hash = store.hash(KEY);
    let (object, mut first) = store.publish(hash, KEY, 0, Head::default(), Some(len), false);
    let (bell, waker) = bell();
    let (begin, end) = (6 * MB + 100, 6 * MB + 2 * BLOCK_BYTES);
    let mut far = Reader::new(object.clone(), begin, Some(end));
    let mut cx = Context::from_waker(&waker);
    // It is told once that it is far ahead; then it waits with the others.
    assert!(matches!(far.poll_read(&mut cx), Poll::Ready(Read::Far(at)) if at == begin));
    assert!(far.poll_read(&mut cx).is_pending());
    // Near ones are not.
    assert!(store.fill(&object, MB / 2, None).is_err());

    // Nothing came of it: the first one has it again.
    let failed = store.fill(&object, begin, Some(end)).unwrap();
    assert_eq!(failed.range(), 6 * MB..end);
    assert_eq!(first.range(), 0..6 * MB);
    failed.stop(true, true);
    assert_eq!(first.range().end, end);

    let rung = bell.rung();
    let mut second = store.fill(&object, begin, Some(end)).unwrap();
    assert!(bell.rung() > rung || !far.poll_read(&mut cx).is_ready());
    assert!(
        store.fill(&object, begin + BLOCK_BYTES, Some(end)).is_err(),
        "one who brings it"
    );
    assert_eq!(second.push(&bytes(second.range())), Pushed::More);
    assert!(second.finish());
    assert_eq!(drain(&mut far, &waker), State::End);
    // The first one's transfer goes on behind its end: that is not taken.
    assert_eq!(first.push(&bytes(0..5 * MB)), Pushed::More);
    assert_eq!(first.push(&bytes(5 * MB..7 * MB)), Pushed::Enough);
    assert!(first.finish());
    let mut whole = Reader::new(object.clone(), 0, None);
    assert_eq!(drain(&mut whole, &waker), State::Absent(end));
    let mut rest = store.fill(&object, end, None).unwrap();
    assert_eq!(rest.push(&bytes(end..len)), Pushed::More);
    assert!(rest.finish());
    assert_eq!(drain(&mut whole, &waker), State::End);
}

#[test]
fn who_has_not_waited_for_a_fill_that_failed_may_begin_another() {
    let store = store(64 * MB);
    let len = 4 * BLOCK_BYTES;
    let hash = store.hash(KEY);
    let (object, mut filler) = store.publish(hash, KEY, 0, Head::default(), Some(len), false);
    let (_, waker) = bell();
    let mut waits = Reader::new(object.clone(), 0, None);
    assert_eq!(filler.push(&bytes(0..BLOCK_BYTES)), Pushed::More);
    assert_eq!(drain(&mut waits, &waker), State::Waits);
    filler.stop(true, true);
    assert_eq!(drain(&mut waits, &waker), State::Failed);
    let mut comes = Reader::new(found(&store, KEY).unwrap(), 0, None);
    assert_eq!(drain(&mut comes, &waker), State::Absent(BLOCK_BYTES));
}

#[test]
fn bodies_of_unknown_length_have_a_share_together() {
    let store = store(64 * MB);
    let mut fills = Vec::new();
    for nth in 0..20_u8 {
        let key = [nth];
        let hash = store.hash(&key);
        let (object, mut filler) = store.publish(hash, &key, 0, Head::default(), None, false);
        let reader = Reader::new(object.clone(), 0, None);
        assert_eq!(filler.push(&bytes(0..4 * MB)), Pushed::More);
        fills.push((filler, object, reader));
    }
    let kept = fills
        .iter()
        .filter(|(_, object, _)| !object.body.is_windowed())
        .count();
    assert_eq!(kept, 4, "a quarter of the memory");
    // Small ones stay; and when those are over, large ones again.
    let one = |len: u64| {
        let hash = store.hash(KEY);
        let (object, mut filler) = store.publish(hash, KEY, 0, Head::default(), None, false);
        assert_eq!(filler.push(&bytes(0..len)), Pushed::More);
        assert!(filler.finish());
        object.body.is_windowed()
    };
    assert!(!one(BLOCK_BYTES + 1));
    drop(fills);
    assert!(!one(4 * MB));
}
