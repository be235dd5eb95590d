use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use super::*;

type Reader = LiveReader<&'static str, &'static str>;
type Filler = LiveFiller<&'static str, &'static str>;
type All = Arc<Lives<&'static str, &'static str>>;

const HASH: Hash = Hash(7);

fn lives() -> All {
    Lives::new(u64::MAX)
}

fn begin(lives: &All, borders: Borders, too_slow: TooSlow) -> (Filler, Reader) {
    let begun = lives.begin(HASH, b"key", "head", borders, too_slow);
    begun.expect("room for it")
}

fn join(lives: &All, too_slow: TooSlow) -> Reader {
    let joined = lives.join(HASH, b"key", too_slow, |_| true);
    joined.expect("one that runs")
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn poll<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

fn data(text: &'static str) -> Poll<Heard<&'static str>> {
    Poll::Ready(Heard::Data(Bytes::from_static(text.as_bytes())))
}

fn next(reader: &mut Reader) -> Poll<Heard<&'static str>> {
    poll(|cx| reader.poll_next(cx))
}

fn push(filler: &Filler, text: &'static str) {
    filler.push(&Bytes::from_static(text.as_bytes()));
}

fn push_bytes(filler: &Filler, len: usize) {
    filler.push(&Bytes::from(vec![b'x'; len]));
}

/// Takes all that is there; says how many bytes that was.
fn drain(reader: &mut Reader) -> usize {
    let mut len = 0;
    while let Poll::Ready(Heard::Data(bytes)) = next(reader) {
        len += bytes.len();
    }
    len
}

#[test]
fn who_joins_gets_what_comes_from_then_on() {
    let lives = lives();
    let (filler, mut first) = begin(&lives, Borders::Pieces, TooSlow::Cut);
    push(&filler, "a");
    push(&filler, "b");
    let mut second = join(&lives, TooSlow::Cut);
    assert_eq!(*second.head(), Arc::new("head"));
    assert_eq!(next(&mut second), Poll::Pending);
    push(&filler, "c");
    for expected in ["a", "b", "c"] {
        assert_eq!(next(&mut first), data(expected));
    }
    assert_eq!(next(&mut second), data("c"));
    filler.finish("over");
    for reader in [&mut first, &mut second] {
        assert_eq!(next(reader), Poll::Ready(Heard::End("over")));
    }
    // It does not run any more.
    assert!(lives.join(HASH, b"key", TooSlow::Cut, |_| true).is_none());
}

#[test]
fn who_joins_begins_where_something_begins() {
    let lives = lives();
    let (filler, _first) = begin(&lives, Borders::EmptyLines, TooSlow::Cut);
    push(&filler, "data: 1\n\nda");
    // The event that has begun is whole.
    let mut inside = join(&lives, TooSlow::Cut);
    push(&filler, "ta: 2\n\n");
    let mut behind = join(&lives, TooSlow::Cut);
    push(&filler, "data: 3\n\n");
    assert_eq!(next(&mut inside), data("da"));
    assert_eq!(next(&mut inside), data("ta: 2\n\n"));
    assert_eq!(next(&mut inside), data("data: 3\n\n"));
    assert_eq!(next(&mut behind), data("data: 3\n\n"));
}

#[test]
fn where_the_beginning_is_gone_it_waits_for_the_next() {
    let lives = lives();
    let (filler, mut first) = begin(&lives, Borders::EmptyLines, TooSlow::Cut);
    // One event that is longer than what is kept for those who join.
    for _ in 0..40 {
        push_bytes(&filler, 64 * 1024);
        drain(&mut first);
    }
    let mut second = join(&lives, TooSlow::Cut);
    push(&filler, "the end\n\ndata: 1\n\nda");
    push(&filler, "ta: 2\n\n");
    assert_eq!(next(&mut second), data("data: 1\n\n"));
    assert_eq!(next(&mut second), data("da"));
    assert_eq!(next(&mut second), data("ta: 2\n\n"));
}

#[test]
fn the_fastest_sets_the_pace_and_a_slow_one_is_cut() {
    let lives = lives();
    let (filler, mut slow) = begin(&lives, Borders::Pieces, TooSlow::Cut);
    let mut fast = join(&lives, TooSlow::Cut);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    assert!(slow.poll_cut(&mut Context::from_waker(&waker)).is_pending());
    let mut pushed = 0;
    let room = |filler: &Filler| poll(|cx| filler.poll_room(cx));
    while room(&filler) == Poll::Ready(Room::More) {
        push_bytes(&filler, 10_000);
        pushed += 10_000;
    }
    assert!(
        pushed > AHEAD_BYTES && pushed < AHEAD_BYTES + 20_000,
        "{pushed}"
    );
    assert_eq!(drain(&mut fast) as u64, pushed);
    for _ in 0..1000 {
        assert_eq!(room(&filler), Poll::Ready(Room::More));
        push_bytes(&filler, 10_000);
        assert_eq!(drain(&mut fast), 10_000);
        assert!(lives.usage().bytes <= WINDOW_BYTES, "{:?}", lives.usage());
    }
    assert_eq!(woken.0.load(Relaxed), 1, "only when it is cut");
    assert!(poll(|cx| slow.poll_cut(cx)).is_ready());
    assert_eq!(next(&mut slow), Poll::Ready(Heard::Cut));
    drop(slow);
    assert_eq!(lives.usage().readers, 1);
    assert!(lives.usage().cut > 0);
}

#[test]
fn the_filler_is_woken_when_there_is_room_and_not_before() {
    let lives = lives();
    let (filler, mut first) = begin(&lives, Borders::Pieces, TooSlow::Cut);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    while filler.poll_room(&mut cx).is_ready() {
        push_bytes(&filler, 100_000);
    }
    let times = || woken.0.load(Relaxed);
    assert_eq!(times(), 0);
    let _ = next(&mut first);
    assert_eq!(times(), 1);
    // It has looked, and there was room.
    assert_eq!(filler.poll_room(&mut cx), Poll::Ready(Room::More));
    let _ = next(&mut first);
    assert_eq!(times(), 1);
    while filler.poll_room(&mut cx).is_ready() {
        push_bytes(&filler, 100_000);
    }
    // Who joins is where it is.
    let second = join(&lives, TooSlow::Cut);
    assert_eq!(times(), 2);
    assert_eq!(filler.poll_room(&mut cx), Poll::Ready(Room::More));
    drop(second);
    assert!(filler.poll_room(&mut cx).is_pending());
    drop(first);
    assert_eq!(times(), 3);
    assert_eq!(filler.poll_room(&mut cx), Poll::Ready(Room::Alone));
}

#[test]
fn who_waits_for_what_never_begins_leaves_nobody_behind() {
    let lives = lives();
    let (filler, mut first) = begin(&lives, Borders::EmptyLines, TooSlow::Cut);
    for _ in 0..20 {
        push_bytes(&filler, 100_000);
        drain(&mut first);
    }
    // Nothing that it could begin with is kept.
    let mut second = join(&lives, TooSlow::Cut);
    let mut pushed = 0;
    while poll(|cx| filler.poll_room(cx)).is_ready() {
        push_bytes(&filler, 100_000);
        pushed += 100_000;
        assert!(pushed < 2 * SINCE_BORDER_BYTES);
    }
    assert_eq!(next(&mut second), Poll::Pending);
    assert_eq!(drain(&mut first) as u64, pushed, "it is not cut");
    push(&filler, "\n\ndata: 1\n\n");
    assert_eq!(next(&mut second), data("data: 1\n\n"));
}

#[test]
fn who_skips_goes_on_at_the_newest_border() {
    let lives = lives();
    let (filler, mut slow) = begin(&lives, Borders::EmptyLines, TooSlow::Skip);
    let mut fast = join(&lives, TooSlow::Skip);
    push(&filler, "data: 1\n\n");
    assert_eq!(next(&mut slow), data("data: 1\n\n"));
    for _ in 0..500 {
        push_bytes(&filler, 10_000);
        push(&filler, "\n\n");
        drain(&mut fast);
    }
    assert!(poll(|cx| slow.poll_cut(cx)).is_pending());
    push(&filler, "data: last\n\n");
    assert_eq!(next(&mut slow), data("data: last\n\n"));
    assert_eq!(next(&mut slow), Poll::Pending);
    for _ in 0..500 {
        push_bytes(&filler, 10_000);
        push(&filler, "\n\n");
        drain(&mut fast);
    }
    push(&filler, "data: 2");
    push(&filler, "2\n\nda");
    push(&filler, "ta: 3");
    assert_eq!(next(&mut slow), data("da"));
    assert_eq!(next(&mut slow), data("ta: 3"));
    assert_eq!(lives.usage().skipped, 2);
}

#[test]
fn with_the_last_reader_it_is_over() {
    let lives = lives();
    let (filler, first) = begin(&lives, Borders::Pieces, TooSlow::Cut);
    let second = join(&lives, TooSlow::Cut);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    assert_eq!(filler.poll_room(&mut cx), Poll::Ready(Room::More));
    drop(first);
    assert_eq!(woken.0.load(Relaxed), 0);
    drop(second);
    assert_eq!(woken.0.load(Relaxed), 1);
    assert_eq!(filler.poll_room(&mut cx), Poll::Ready(Room::Alone));
    // Who comes now begins another one, though this one is not closed yet.
    assert!(lives.join(HASH, b"key", TooSlow::Cut, |_| true).is_none());
    let (other, reader) = begin(&lives, Borders::Pieces, TooSlow::Cut);
    drop(filler);
    drop(join(&lives, TooSlow::Cut));
    drop((other, reader));
    assert_eq!(lives.usage(), LiveUsage::default());
    assert!(lives.table.lock().is_empty());
}

#[test]
fn what_is_lost_is_no_end() {
    let lives = lives();
    let (filler, mut reader) = begin(&lives, Borders::Pieces, TooSlow::Cut);
    push(&filler, "a");
    drop(filler);
    assert_eq!(next(&mut reader), data("a"));
    assert_eq!(next(&mut reader), Poll::Ready(Heard::Lost));
}

#[test]
fn only_what_fits_is_joined_and_the_newest_of_it() {
    let lives = lives();
    let mut all = Vec::new();
    for head in ["a", "b", "a2"] {
        all.extend(lives.begin(HASH, b"key", head, Borders::Pieces, TooSlow::Cut));
    }
    let joined = |key: &[u8], letter: &str| {
        let fits = |head: &&str| head.starts_with(letter);
        let joined = lives.join(HASH, key, TooSlow::Cut, fits);
        joined.map(|reader| **reader.head())
    };
    assert_eq!(joined(b"key", "a"), Some("a2"));
    assert_eq!(joined(b"key", "b"), Some("b"));
    assert_eq!(joined(b"key", "c"), None);
    // Another key of the same hash.
    assert_eq!(joined(b"yek", "a"), None);
    assert!(lives.has(HASH, b"key") && !lives.has(HASH, b"yek"));
    lives.retain(|key, head| key == b"key" && *head != "a2");
    assert_eq!(joined(b"key", "a"), Some("a"));
    for _ in all.len() - 1..MAX_OF_KEY {
        all.extend(lives.begin(HASH, b"key", "c", Borders::Pieces, TooSlow::Cut));
    }
    let more = lives.begin(HASH, b"key", "c", Borders::Pieces, TooSlow::Cut);
    assert!(more.is_none(), "too many");
    drop(all);
    assert_eq!(lives.usage(), LiveUsage::default());
}

#[test]
fn no_more_run_than_small_windows_have_room() {
    for (max_bytes, most) in [(0, 8), (20 * SMALL_WINDOW_BYTES, 20)] {
        let lives = Lives::new(max_bytes);
        let begin = |key: u8| {
            let hash = Hash(u128::from(key));
            lives.begin(hash, &[key], "head", Borders::Pieces, TooSlow::Cut)
        };
        let mut all: Vec<(Filler, Reader)> = (0..most).filter_map(begin).collect();
        assert_eq!(all.len(), usize::from(most));
        assert!(begin(most).is_none());
        all.pop();
        assert!(begin(most).is_some());
    }
}

#[test]
fn windows_are_small_where_all_together_take_too_much() {
    let lives = lives();
    lives.set_max_bytes(1024 * 1024);
    let (filler, _slow) = begin(&lives, Borders::Pieces, TooSlow::Cut);
    let mut fast = join(&lives, TooSlow::Cut);
    for _ in 0..500 {
        push_bytes(&filler, 10_000);
        drain(&mut fast);
        assert!(lives.usage().bytes <= 1024 * 1024 + 20_000);
    }
}
