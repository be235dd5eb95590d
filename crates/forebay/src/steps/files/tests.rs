//! The step as a whole, on files of a temporary directory: from the disk, from memory, and from a
//! disk that has nothing in memory.

mod asked;
mod kept_in;
mod listings;
mod looked_for;
mod siblings;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::exchange::{Body, Reason};
use crate::files::testing::ColdDisk;
use crate::files::{Disk, Files};
use crate::steps::testing::{Bench, Got, mistakes};

/// The 2nd of February 2020, 02:02:02 UTC.
const STAMP: u64 = 1_580_608_922;

const SAME: &str = "Sun, 02 Feb 2020 02:02:02 GMT";

const BEFORE: &str = "Sun, 02 Feb 2020 02:02:01 GMT";

const DIGITS: &str = "0123456789";

/// A directory of files, of which the memory may keep all.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        let dir = Dir(tempfile::tempdir().unwrap());
        dir.file("www/index.html", "<p>index</p>");
        dir.file("www/a.txt", DIGITS);
        dir.file("www/sub/index.html", "<p>sub</p>");
        dir.file("www/sub/b.txt", "b");
        dir.file("www/none/x.txt", "x");
        dir.file("www/empty.txt", "");
        dir.file("secret.txt", "secret");
        dir
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, as of long ago.
    fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        self.file_at(path, content, STAMP);
    }

    fn file_at(&self, path: &str, content: impl AsRef<[u8]>, seconds: u64) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }

    /// A server of `www` with these options, then of these steps.
    fn bench(&self, options: &str, steps: &str) -> Bench {
        let www = self.path().join("www");
        Bench::new(&format!(
            "site {{ \"*\", files \"{}\" {options}{steps} }}",
            www.display()
        ))
    }
}

/// Puts another file system in the place of the kernel's.
fn on(mut bench: Bench, disk: Arc<dyn Disk>) -> Bench {
    Rc::get_mut(&mut bench.worker).unwrap().files = Files::new(disk);
    bench
}

fn expire(bench: &Bench) {
    bench.worker.files.memory.borrow_mut().expire();
    bench.worker.files.roots.expire();
}

fn count(bench: &Bench) -> usize {
    bench.worker.files.memory.borrow().count()
}

/// The file's bytes, also where they are a part of an open file.
fn content(got: &Got) -> String {
    match &got.response.body {
        Body::File(part) => {
            let mut bytes = Vec::new();
            let len = usize::try_from(part.end - part.start).unwrap();
            forebay_sys::files::fill_at(&*part.file.file, part.start, &mut bytes, len).unwrap();
            String::from_utf8(bytes).unwrap()
        }
        _ => got.text(),
    }
}

/// Runs the same test on a file read from the disk each time, on one in memory, and on one that
/// has to be waited for.
fn each_way(options: &str, test: impl Fn(&str, &Bench)) {
    let dir = Dir::new();
    let bench = dir.bench(options, "");
    bench
        .worker
        .files
        .memory
        .replace(crate::files::Memory::new(0));
    test("read anew", &bench);

    let bench = dir.bench(options, "");
    for _ in 0..3 {
        assert_eq!(bench.get("/a.txt").run().status(), 200);
    }
    assert_eq!(count(&bench), 1);
    test("in memory", &bench);

    test("in memory and expired", &bench_expired(&dir, options));

    let bench = on(dir.bench(options, ""), Arc::new(ColdDisk::default()));
    test("waited for", &bench);
    let bench = on(dir.bench(options, ""), ColdDisk::with_names());
    test("waited for, but for its name", &bench);
}

fn bench_expired(dir: &Dir, options: &str) -> Bench {
    let bench = dir.bench(options, "");
    for _ in 0..3 {
        assert_eq!(bench.get("/a.txt").run().status(), 200);
    }
    expire(&bench);
    bench
}

#[test]
fn a_file_is_sent_with_what_is_known_of_it() {
    each_way("", |way, bench| {
        let got = bench.get("/a.txt").run();
        assert_eq!(
            (got.status(), got.text()),
            (200, DIGITS.to_owned()),
            "{way}"
        );
        assert_eq!(got.field("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(got.field("last-modified"), Some(SAME));
        assert_eq!(got.field("accept-ranges"), Some("bytes"));
        assert_eq!(got.field("cache-control"), None);
        let etag = got.field("etag").unwrap();
        assert!(
            etag.len() == 18 && etag.starts_with('"') && etag.ends_with('"'),
            "{etag}"
        );
        let head = bench.request("HEAD", "/a.txt").run();
        assert_eq!(
            (head.status(), head.field("etag")),
            (200, Some(etag)),
            "{way}"
        );
        assert!(matches!(head.response.body, Body::Empty));
        assert_eq!(head.response.announced_len, Some(10));
        let empty = bench.get("/empty.txt").run();
        assert_eq!(
            (empty.status(), empty.text()),
            (200, String::new()),
            "{way}"
        );
        assert_eq!(bench.get("/missing").run().status(), 404, "{way}");
    });
}

#[test]
fn long_files_are_parts_of_a_file_that_stays_open_once_it_is_hot() {
    let dir = Dir::new();
    let long = DIGITS.repeat(20_000);
    dir.file("www/long.txt", &long);
    let bench = dir.bench("", "");
    let mut opened = Vec::new();
    for _ in 0..4 {
        let got = bench.get("/long.txt").run();
        assert!(content(&got) == long);
        let Body::File(part) = &got.response.body else {
            panic!("not a part of a file")
        };
        assert!(part.file.is_local && part.end == 200_000);
        opened.push(part.file.clone());
    }
    assert!(!Rc::ptr_eq(&opened[0], &opened[1]) && Rc::ptr_eq(&opened[2], &opened[3]));
    let part = bench.get("/long.txt").field("Range", "bytes=9-12").run();
    assert_eq!((part.status(), content(&part).as_str()), (206, "9012"));
}

#[test]
fn a_hot_file_is_looked_at_once_a_second() {
    let dir = Dir::new();
    let bench = dir.bench("", "");
    for _ in 0..3 {
        bench.get("/a.txt").run();
    }
    dir.file_at("www/a.txt", "changed!!!", STAMP + 5);
    let etag = {
        let got = bench.get("/a.txt").run();
        assert_eq!(got.text(), DIGITS, "within the second");
        got.field("etag").unwrap().to_owned()
    };
    expire(&bench);
    let got = bench.get("/a.txt").field("If-None-Match", &etag).run();
    assert_eq!((got.status(), got.text()), (200, "changed!!!".to_owned()));
    assert_ne!(got.field("etag"), Some(etag.as_str()));
    // A rename with the same length and time is seen by the inode.
    bench.get("/a.txt").run();
    let etag = bench.get("/a.txt").run().field("etag").unwrap().to_owned();
    dir.file_at("new", "other file", STAMP + 5);
    fs::rename(dir.path().join("new"), dir.path().join("www/a.txt")).unwrap();
    expire(&bench);
    let got = bench.get("/a.txt").run();
    assert_eq!(got.text(), "other file");
    assert_ne!(got.field("etag"), Some(etag.as_str()));
    fs::remove_file(dir.path().join("www/a.txt")).unwrap();
    expire(&bench);
    assert_eq!(bench.get("/a.txt").run().status(), 404);
    assert_eq!(count(&bench), 0);
}

#[test]
fn a_file_kept_open_is_never_answered_with_what_it_was() {
    let dir = Dir::new();
    dir.file("www/long.txt", DIGITS.repeat(20_000));
    let bench = dir.bench("", "");
    for _ in 0..3 {
        assert_eq!(bench.get("/long.txt").run().status(), 200);
    }
    assert_eq!(count(&bench), 1);
    // Within the second, and in place: the open file is the changed one already.
    dir.file_at("www/long.txt", "9".repeat(300_000), STAMP + 5);
    let got = bench.get("/long.txt").run();
    assert_eq!(got.response.body.len_bytes(), Some(300_000));
    assert!(content(&got) == "9".repeat(300_000));
}

#[test]
fn rfc9110_8_8_1_what_has_just_changed_has_a_weak_tag_and_is_not_kept() {
    let dir = Dir::new();
    fs::write(dir.path().join("www/new.txt"), "new").unwrap();
    let ahead = SystemTime::now() + Duration::from_secs(1_000_000);
    let ahead = ahead
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    dir.file_at("www/ahead.txt", "ahead", ahead);
    let bench = dir.bench("", "");
    for _ in 0..3 {
        let got = bench.get("/new.txt").run();
        assert!(got.field("etag").unwrap().starts_with("W/\""));
        assert_eq!(count(&bench), 0);
    }
    // RFC 9110 §8.8.2.1: no Last-Modified in the future.
    let got = bench.get("/ahead.txt").run();
    let time = httpdate::parse_http_date(got.field("last-modified").unwrap()).unwrap();
    assert!(time <= SystemTime::now());
}

#[test]
fn types_of_the_operators_own() {
    let dir = Dir::new();
    dir.file("www/x.LOG", "x");
    dir.file("www/x.y.foo", "x");
    let types = r#"{ types = { log = "text/x-log", Foo = "a/b; c=d", txt = "text/own" } }"#;
    let bench = dir.bench(types, "");
    for (path, kind) in [
        ("/x.LOG", "text/x-log"),
        ("/x.y.foo", "a/b; c=d"),
        ("/a.txt", "text/own"),
        ("/", "text/html; charset=utf-8"),
    ] {
        assert_eq!(
            bench.get(path).run().field("content-type"),
            Some(kind),
            "{path}"
        );
    }
    for (types, said) in [
        (r#"[".log"] = "a/b""#, "cannot have the ending \".log\""),
        (r#"log = "text""#, "cannot have the type \"text\""),
        (r#"log = "a/b\r\nX: y""#, "cannot have the type"),
        (r#"log = "a/ b""#, "cannot have the type"),
    ] {
        let config = format!("site {{ \"*\", files \"/x\" {{ types = {{ {types} }} }} }}");
        let all = mistakes(&config);
        assert!(all.contains(said), "{types}: {all}");
    }
}

#[test]
fn cache_control() {
    let dir = Dir::new();
    for (options, expected) in [
        ("{ max_age = \"1h\" }", "public, max-age=3600"),
        (
            "{ max_age = \"1y\", immutable = true }",
            "public, max-age=31536000, immutable",
        ),
        ("{ max_age = \"0s\" }", "no-cache"),
    ] {
        let bench = dir.bench(options, "");
        for _ in 0..3 {
            let got = bench.get("/a.txt").run();
            assert_eq!(got.field("cache-control"), Some(expected));
        }
        let same = bench.get("/a.txt").field("If-None-Match", "*").run();
        assert_eq!(
            (same.status(), same.field("cache-control")),
            (304, Some(expected))
        );
    }
    for options in ["immutable = true", "immutable = true, max_age = \"0s\""] {
        let text = mistakes(&format!("site {{ \"*\", files \"/srv\" {{ {options} }} }}"));
        assert!(
            text.contains("files: `immutable` without a `max_age`"),
            "{text}"
        );
    }
}

#[test]
fn after_the_root_is_open_nothing_waits_for_what_is_in_memory() {
    let dir = Dir::new();
    let bench = dir.bench("", "");
    assert!(
        bench.get("/a.txt").run().waited,
        "the root is opened on the pool"
    );
    for target in ["/a.txt", "/sub/", "/sub", "/index.html"] {
        // Names are in the kernel's memory after the first look at the latest.
        bench.get(target).run();
        expire(&bench);
        assert!(!bench.get(target).run().waited, "{target}");
    }
}

#[test]
fn failures_of_the_system() {
    const EIO: i32 = 5;
    const ENOMEM: i32 = 12;
    const EACCES: i32 = 13;
    const EMFILE: i32 = 24;
    let dir = Dir::new();
    let disk = ColdDisk::with_names();
    let bench = on(dir.bench("", ", respond(200, \"next\")"), disk.clone());
    for _ in 0..3 {
        assert_eq!(bench.get("/a.txt").run().status(), 200);
    }
    assert_eq!(count(&bench), 1);
    for (errno, status, reason) in [
        (EACCES, 403, Reason::Forbidden),
        (EIO, 500, Reason::FileFailed),
        (EMFILE, 503, Reason::Overloaded),
        (ENOMEM, 503, Reason::Overloaded),
    ] {
        disk.fail(errno);
        let got = bench.get("/sub/b.txt").run();
        let fault = got.response.fault.as_ref().map(|fault| fault.reason);
        assert_eq!((got.status(), fault), (status, Some(reason)));
        // What is in memory still is.
        assert_eq!(bench.get("/a.txt").run().text(), DIGITS);
    }
    // Even when it should be looked at: the machine is out of descriptors.
    disk.fail(EMFILE);
    expire(&bench);
    assert_eq!(bench.get("/a.txt").run().text(), DIGITS);
    disk.fail(EIO);
    expire(&bench);
    assert_eq!(bench.get("/a.txt").run().status(), 500);
    disk.fail(0);
    assert_eq!(bench.get("/sub/b.txt").run().text(), "b");
}

#[test]
fn what_the_configuration_cannot_mean_is_a_mistake() {
    for (options, message) in [
        ("{ index = \"\" }", "files: `index` cannot be \"\""),
        (
            "{ index = { \"index.html\", \"/x\" } }",
            "files: `index` cannot be \"/x\"",
        ),
        ("{ index = \"../x\" }", "files: `index` cannot be \"../x\""),
        ("{ listings = true }", "files has no option `listings`"),
    ] {
        let text = mistakes(&format!("site {{ \"*\", files \"/srv\" {options} }}"));
        assert!(text.contains(message), "{text}");
    }
}
