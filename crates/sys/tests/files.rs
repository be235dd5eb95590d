//! Opening below a root and reading, on real files. Every case of opening runs by the kernel's
//! `openat2` and by the portable walk.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use forebay_sys::files::{
    Facts, Kind, Links, Resolver, Root, fill_at, is_link_refused, open, read_at, read_now,
    send_file,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

const RESOLVERS: [Resolver; 2] = [Resolver::Kernel, Resolver::Walk];

/// What opening a path comes to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Text(String),
    Directory,
    Refused,
    Error(ErrorKind),
}

fn outcome(opened: std::io::Result<File>) -> Outcome {
    match opened {
        Err(e) if is_link_refused(&e) => Outcome::Refused,
        Err(e) => Outcome::Error(e.kind()),
        Ok(mut file) => match Facts::of(&file).unwrap().kind {
            Kind::Directory => Outcome::Directory,
            _ => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                Outcome::Text(text)
            }
        },
    }
}

/// ```text
/// outside/secret        root/a  root/dir/b  root/dir/deep/c   and links of all kinds
/// ```
fn tree() -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    let at = |path: &str| top.path().join(path);
    fs::create_dir_all(at("root/dir/deep")).unwrap();
    fs::create_dir(at("outside")).unwrap();
    for (path, text) in [
        ("outside/secret", "secret"),
        ("root/a", "a"),
        ("root/dir/b", "b"),
        ("root/dir/deep/c", "c"),
    ] {
        fs::write(at(path), text).unwrap();
    }
    for (target, link) in [
        ("dir/b", "to-b"),
        ("to-b", "to-to-b"),
        ("dir", "to-dir"),
        ("dir/", "to-dir-slash"),
        ("../a", "dir/to-a"),
        ("../../a", "dir/deep/to-a"),
        ("deep/../b", "dir/around"),
        ("../outside/secret", "out"),
        ("../outside", "out-dir"),
        ("../../outside/secret", "dir/out"),
        ("../root/a", "out-and-in"),
        ("..", "up"),
        ("loop", "loop"),
        ("pong", "ping"),
        ("ping", "pong"),
        ("nothing", "dangling"),
        (".", "self"),
    ] {
        symlink(target, at(&format!("root/{link}"))).unwrap();
    }
    symlink(at("root/a"), at("root/absolute")).unwrap();
    top
}

#[test]
fn opens_what_is_below_the_root_and_follows_the_links_it_may() {
    use Outcome::{Directory, Error, Refused, Text};

    let top = tree();
    let text = |t: &str| Text(t.to_owned());
    let missing = || Error(ErrorKind::NotFound);
    let check = |path: &str, inside: Outcome, none: Outcome, any: Outcome| {
        for resolver in RESOLVERS {
            let root = Root::open_dir_with(top.path().join("root"), resolver).unwrap();
            for (links, expected) in [
                (Links::Inside, &inside),
                (Links::None, &none),
                (Links::Any, &any),
            ] {
                let place = format!("{path:?} by {resolver:?}, links {links:?}");
                assert_eq!(
                    &outcome(root.open(path.as_bytes(), links)),
                    expected,
                    "{place}"
                );
                let now = outcome(root.open_now(path.as_bytes(), links));
                if now != Error(ErrorKind::WouldBlock) {
                    assert_eq!(&now, expected, "{place}, without waiting");
                }
            }
        }
    };
    let same = |path: &str, expected: fn() -> Outcome| {
        check(path, expected(), expected(), expected());
    };
    same("a", || Text("a".to_owned()));
    same("dir/b", || Text("b".to_owned()));
    same("dir//b", || Text("b".to_owned()));
    same("./dir/./b", || Text("b".to_owned()));
    same("dir/deep/c", || Text("c".to_owned()));
    for path in ["", ".", "dir", "dir/", "dir/.", "dir/deep//"] {
        same(path, || Directory);
    }
    same("missing", || Error(ErrorKind::NotFound));
    same("dir/missing/x", || Error(ErrorKind::NotFound));
    for path in ["a/", "a/x", "a/.", "dir/b/"] {
        same(path, || Error(ErrorKind::NotADirectory));
    }
    // Never asked of the system.
    for path in [
        "/a",
        "/",
        "..",
        "../outside/secret",
        "dir/../a",
        "dir/..",
        "a\0",
        "\0",
    ] {
        same(path, || Error(ErrorKind::InvalidInput));
    }
    // Names that only look like something.
    for path in ["...", "..a", "a..", "dir\\b", "%2e%2e"] {
        same(path, || Error(ErrorKind::NotFound));
    }
    check("to-b", text("b"), Refused, text("b"));
    check("to-to-b", text("b"), Refused, text("b"));
    check("to-dir", Directory, Refused, Directory);
    check("to-dir/b", text("b"), Refused, text("b"));
    check("to-dir/", Directory, Refused, Directory);
    check("to-dir-slash/b", text("b"), Refused, text("b"));
    check("dir/to-a", text("a"), Refused, text("a"));
    check("dir/deep/to-a", text("a"), Refused, text("a"));
    check("to-dir/deep/to-a", text("a"), Refused, text("a"));
    check("dir/around", text("b"), Refused, text("b"));
    check("self/self/a", text("a"), Refused, text("a"));
    check("self", Directory, Refused, Directory);
    check(
        "to-b/",
        Error(ErrorKind::NotADirectory),
        Refused,
        Error(ErrorKind::NotADirectory),
    );
    check("out", Refused, Refused, text("secret"));
    check("out-dir/secret", Refused, Refused, text("secret"));
    check("dir/out", Refused, Refused, text("secret"));
    check("self/dir/out", Refused, Refused, text("secret"));
    check("out-and-in", Refused, Refused, text("a"));
    check("up", Refused, Refused, Directory);
    check("up/outside/secret", Refused, Refused, text("secret"));
    check("absolute", Refused, Refused, text("a"));
    check("loop", Refused, Refused, Refused);
    check("ping", Refused, Refused, Refused);
    check("dangling", missing(), Refused, missing());
}

#[test]
fn what_is_known_opens_without_waiting() {
    let top = tree();
    let root = Root::open_dir(top.path().join("root")).unwrap();
    if root.can_open_now() {
        root.open(b"dir/b", Links::Inside).unwrap();
        assert_eq!(
            outcome(root.open_now(b"dir/b", Links::Inside)),
            Outcome::Text("b".to_owned())
        );
    }
    let walking = Root::open_dir_with(top.path(), Resolver::Walk).unwrap();
    assert!(!walking.can_open_now());
}

#[test]
fn a_root_must_be_a_directory() {
    let top = tree();
    for (path, expected) in [
        ("root/a", ErrorKind::NotADirectory),
        ("none", ErrorKind::NotFound),
    ] {
        let error = Root::open_dir(top.path().join(path)).unwrap_err();
        assert_eq!(error.kind(), expected, "{path}");
    }
}

#[test]
fn a_root_stays_what_it_was_when_it_is_replaced() {
    let top = tree();
    let path = top.path().join("root");
    for resolver in RESOLVERS {
        let root = Root::open_dir_with(&path, resolver).unwrap();
        fs::rename(&path, top.path().join("old")).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(
            outcome(root.open(b"a", Links::Inside)),
            Outcome::Text("a".to_owned())
        );
        fs::remove_dir(&path).unwrap();
        fs::rename(top.path().join("old"), &path).unwrap();
    }
}

/// A pipe nobody writes to, and a socket: opening must not wait.
#[test]
fn special_files_do_not_make_it_wait() {
    let top = tempfile::tempdir().unwrap();
    let pipe = top.path().join("pipe");
    rustix::fs::mkfifoat(CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    for resolver in RESOLVERS {
        let root = Root::open_dir_with(top.path(), resolver).unwrap();
        let file = root.open(b"pipe", Links::None).unwrap();
        assert_eq!(Facts::of(&file).unwrap().kind, Kind::Other);
    }
    assert_eq!(Facts::of(open(&pipe).unwrap()).unwrap().kind, Kind::Other);
}

/// Chains of links end somewhere, and so do links that multiply each other.
#[test]
fn links_are_not_followed_without_end() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: String| top.path().join(name);
    fs::create_dir(at("0".to_owned())).unwrap();
    for i in 1..=64 {
        // Each is fifty times the one before: 50⁶⁴ steps, if they were all made.
        let target = format!("{}/../", i - 1).repeat(50);
        symlink(format!("{target}{}", i - 1), at(i.to_string())).unwrap();
    }
    for resolver in RESOLVERS {
        let root = Root::open_dir_with(top.path(), resolver).unwrap();
        let error = root.open(b"64", Links::Inside).unwrap_err();
        assert!(is_link_refused(&error), "{resolver:?}: {error}");
    }
}

/// While a directory and a link that leads outside change places, nothing outside is opened.
#[test]
fn a_race_with_a_rename_does_not_lead_outside() {
    for resolver in RESOLVERS {
        let top = tree();
        let at = |path: &str| top.path().join(path);
        fs::create_dir(at("root/swap")).unwrap();
        fs::write(at("root/swap/secret"), "fine").unwrap();
        let root = Root::open_dir_with(at("root"), resolver).unwrap();
        let done = AtomicBool::new(false);
        let mut seen = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (at("root/swap"), at("root/out-dir"));
                while !done.load(Ordering::Relaxed) {
                    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
                }
            });
            for _ in 0..20_000 {
                for opened in [
                    root.open(b"swap/secret", Links::Inside),
                    root.open(b"swap/secret", Links::None),
                ] {
                    match outcome(opened) {
                        Outcome::Text(text) => {
                            assert_eq!(text, "fine", "{resolver:?}");
                            seen += 1;
                        }
                        Outcome::Refused => {}
                        // Too many renames in a row.
                        Outcome::Error(ErrorKind::WouldBlock) => {}
                        // The walk: a link when opened, a directory when read as a link.
                        Outcome::Error(ErrorKind::NotADirectory) => {}
                        other => panic!("{resolver:?}: {other:?}"),
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(seen > 0, "{resolver:?}: never opened, so nothing was shown");
    }
}

#[test]
fn facts_tell_one_content_from_another() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("a");
    fs::write(&path, "four").unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let before = UNIX_EPOCH - Duration::from_millis(1_500);
    let later = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    for (time, ns, seconds) in [
        (later, 1_700_000_000_123_456_789, 1_700_000_000),
        (before, -1_500_000_000, -2),
    ] {
        file.set_modified(time).unwrap();
        let facts = Facts::of(&file).unwrap();
        assert_eq!((facts.len, facts.kind), (4, Kind::File));
        assert_eq!((facts.mtime_ns, facts.mtime_seconds()), (ns, seconds));
        assert_eq!(facts, Facts::of(File::open(&path).unwrap()).unwrap());
    }
    let old = Facts::of(&file).unwrap();
    let new = top.path().join("b");
    fs::write(&new, "four").unwrap();
    File::options()
        .write(true)
        .open(&new)
        .unwrap()
        .set_modified(before)
        .unwrap();
    fs::rename(&new, &path).unwrap();
    let replaced = Facts::of(File::open(&path).unwrap()).unwrap();
    assert_eq!((replaced.len, replaced.mtime_ns), (old.len, old.mtime_ns));
    assert_ne!(replaced, old, "another file of the same length and time");
}

fn file_of(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[test]
fn reads_what_is_there_in_pieces_of_any_size() {
    let content = pattern(10_000);
    let file = file_of(&content);
    for piece in [1, 7, 4_095, 4_096, 9_999, 10_000, 20_000] {
        let mut now = Vec::with_capacity(20_000);
        let mut waiting = BytesMut::with_capacity(20_000);
        loop {
            let before = now.len();
            let n = read_at(&file, waiting.len() as u64, &mut waiting, piece).unwrap();
            // What has just been written is in memory.
            let m = read_now(&file, before as u64, &mut now, piece)
                .unwrap()
                .unwrap();
            assert!(m <= piece && n <= piece);
            assert_eq!((m, now.len()), (n, before + m));
            if n == 0 {
                break;
            }
        }
        assert!(now == content && waiting == content, "pieces of {piece}");
    }
}

#[test]
fn reading_appends_and_never_grows_a_buffer_that_has_room() {
    let file = file_of(b"0123456789");
    let mut buffer = BytesMut::with_capacity(8);
    buffer.put_slice(b"ab");
    let room = buffer.capacity() - buffer.len();
    assert_eq!(read_now(&file, 2, &mut buffer, 3).unwrap(), Some(3));
    assert_eq!(&buffer[..], b"ab234");
    let n = read_at(&file, 5, &mut buffer, usize::MAX).unwrap();
    assert_eq!(n, (room - 3).min(5));
    assert_eq!(&buffer[..], &b"ab23456789"[..5 + n]);

    let mut fixed = [0; 4];
    let mut rest = &mut fixed[..];
    assert_eq!(read_now(&file, 8, &mut rest, 10).unwrap(), Some(2));
    assert_eq!(read_now(&file, 0, &mut rest, 10).unwrap(), Some(2));
    assert_eq!(read_now(&file, 0, &mut rest, 10).unwrap(), Some(0));
    assert_eq!(read_at(&file, 0, &mut rest, 10).unwrap(), 0);
    assert_eq!(&fixed, b"8901");
}

#[test]
fn the_end_of_the_file_reads_as_nothing() {
    let file = file_of(b"0123456789");
    let mut buffer = Vec::with_capacity(64);
    for offset in [10, 11, 1 << 40, i64::MAX as u64 - 64] {
        assert_eq!(
            read_now(&file, offset, &mut buffer, 64).unwrap(),
            Some(0),
            "{offset}"
        );
        assert_eq!(
            read_at(&file, offset, &mut buffer, 64).unwrap(),
            0,
            "{offset}"
        );
    }
    assert_eq!(read_now(&file, 0, &mut buffer, 0).unwrap(), Some(0));
    assert_eq!(fill_at(&file, 4, &mut buffer, 64).unwrap(), 6);
    assert_eq!(buffer, b"456789");
    // Offsets the system has no number for.
    for offset in [1 << 63, u64::MAX] {
        assert!(
            read_now(&file, offset, &mut buffer, 64).is_err(),
            "{offset}"
        );
        assert!(read_at(&file, offset, &mut buffer, 64).is_err(), "{offset}");
    }
}

/// Where the system cannot tell what is in memory, it is said so instead of waiting.
#[test]
fn files_that_cannot_be_read_without_waiting_say_so() {
    let file = File::open("/proc/self/status").unwrap();
    let mut buffer = Vec::with_capacity(64);
    assert_eq!(read_now(&file, 0, &mut buffer, 64).unwrap(), None);
    assert!(buffer.is_empty());
    assert_eq!(read_at(&file, 0, &mut buffer, 5).unwrap(), 5);
    assert_eq!(buffer, b"Name:");
}

/// Data that was thrown out of memory is not waited for; once read it is there.
#[test]
fn what_is_not_in_memory_is_not_waited_for() {
    let content = pattern(1 << 20);
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.write_all(&content).unwrap();
    let file = file.as_file();
    file.sync_all().unwrap();
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut buffer = Vec::with_capacity(content.len());
    match read_now(file, 0, &mut buffer, content.len()).unwrap() {
        None => assert!(buffer.is_empty()),
        // A file system in memory has nowhere else to keep it; nor must the advice be followed.
        Some(n) => assert_eq!(buffer, content[..n]),
    }
    buffer.clear();
    assert_eq!(
        fill_at(file, 0, &mut buffer, content.len()).unwrap(),
        content.len()
    );
    buffer.clear();
    let mut done = 0;
    while let Some(n @ 1..) = read_now(file, done, &mut buffer, 1 << 20).unwrap() {
        done += n as u64;
    }
    assert_eq!(buffer, content[..buffer.len()]);
}

#[test]
fn sends_a_file_until_the_socket_is_full() {
    let content = pattern(4 << 20);
    let file = file_of(&content);
    let (socket, mut client) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all
    });
    let (mut sent, mut full) = (0, 0);
    loop {
        match send_file(&socket, &file, sent, 1 << 20) {
            Ok(0) => break,
            Ok(n) => sent += n as u64,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                full += 1;
                wait_until_writable(&socket);
            }
        }
    }
    drop(socket);
    assert!(reader.join().unwrap() == content);
    assert_eq!(sent, content.len() as u64);
    assert!(full > 0, "4 MiB fit into a socket");
}

fn wait_until_writable(socket: &UnixStream) {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut fds, None).unwrap();
}

#[test]
fn sends_from_any_offset_and_leaves_the_files_own_position() {
    let mut file = file_of(b"0123456789");
    std::io::Seek::rewind(&mut file).unwrap();
    let (socket, mut client) = UnixStream::pair().unwrap();
    assert_eq!(send_file(&socket, &file, 3, 4).unwrap(), 4);
    assert_eq!(send_file(&socket, &file, 8, 100).unwrap(), 2);
    assert_eq!(send_file(&socket, &file, 10, 100).unwrap(), 0);
    drop(socket);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "345689");
    text.clear();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "0123456789");
}

/// A file changed while it is served has another time: what `ETag` is made of must notice.
#[test]
fn facts_change_when_the_content_does() {
    let mut file = file_of(b"1");
    file.set_modified(SystemTime::now() - Duration::from_secs(5))
        .unwrap();
    let before = Facts::of(file.as_fd()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file.write_all(b"2").unwrap();
    assert_ne!(Facts::of(file.as_fd()).unwrap(), before);
}
