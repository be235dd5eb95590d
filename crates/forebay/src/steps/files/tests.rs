//! The step as a whole, on files of a temporary directory: from the disk, from memory, and from a
//! disk that has nothing in memory.

mod listings;
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
fn rfc9110_13_2_2_preconditions() {
    each_way("", |way, bench| {
        let etag = bench.get("/a.txt").run().field("etag").unwrap().to_owned();
        let weak = format!("W/{etag}");
        let check = |name: &str, value: &str, status: u16| {
            for method in ["GET", "HEAD"] {
                let got = bench.request(method, "/a.txt").field(name, value).run();
                assert_eq!(got.status(), status, "{way}: {method} {name}: {value}");
            }
        };
        check("If-Match", &etag, 200);
        check("If-Match", &weak, 412);
        check("If-None-Match", &weak, 304);
        check("If-None-Match", "*", 304);
        check("If-None-Match", "\"x\"", 200);
        check("If-Modified-Since", SAME, 304);
        check("If-Modified-Since", BEFORE, 200);
        check("If-Unmodified-Since", BEFORE, 412);
        let same = bench.get("/a.txt").field("If-None-Match", &etag).run();
        assert_eq!(same.field("etag"), Some(etag.as_str()), "RFC 9110 §15.4.5");
        assert_eq!(
            (same.field("content-type"), same.field("last-modified")),
            (None, None)
        );
        assert!(matches!(same.response.body, Body::Empty));
    });
}

#[test]
fn rfc9110_14_ranges() {
    each_way("", |way, bench| {
        let ask = |range: &str| bench.get("/a.txt").field("Range", range).run();
        for (range, text, content_range) in [
            ("bytes=2-4", "234", "bytes 2-4/10"),
            ("bytes=5-", "56789", "bytes 5-9/10"),
            ("bytes=-3", "789", "bytes 7-9/10"),
            ("bytes=0-1,50-60", "01", "bytes 0-1/10"),
        ] {
            let got = ask(range);
            assert_eq!(
                (got.status(), got.text().as_str()),
                (206, text),
                "{way}: {range}"
            );
            assert_eq!(got.field("content-range"), Some(content_range));
            assert!(got.field("etag").is_some() && got.field("content-type").is_some());
        }
        let got = ask("bytes=10-");
        assert_eq!(
            (got.status(), got.field("content-range")),
            (416, Some("bytes */10")),
            "{way}"
        );
        assert_eq!(got.field("etag"), None);
        let got = ask("bytes=0-1, 4-5,-1");
        let kind = got.field("content-type").unwrap().to_owned();
        let boundary = kind
            .strip_prefix("multipart/byteranges; boundary=")
            .expect("parts");
        let part = |range: &str, text: &str| {
            format!(
                "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/10\r\n\r\n{text}\r\n"
            )
        };
        let whole = part("0-1", "01") + &part("4-5", "45") + &part("9-9", "9");
        assert_eq!((got.status(), got.field("content-range")), (206, None));
        let len = got.response.body.len_bytes();
        assert_eq!(
            got.pulled(bench),
            format!("{whole}--{boundary}--\r\n").as_bytes(),
            "{way}"
        );
        assert_eq!(len, Some(whole.len() as u64 + boundary.len() as u64 + 6));
        // Overlapping ones, and what is no range, are as if they were not there.
        for range in ["bytes=0-4,3-6", "lines=1-2"] {
            let got = ask(range);
            assert_eq!(
                (got.status(), got.text().as_str()),
                (200, DIGITS),
                "{way}: {range}"
            );
            assert_eq!(got.field("content-range"), None);
        }
        let head = bench
            .request("HEAD", "/a.txt")
            .field("Range", "bytes=0-1")
            .run();
        assert_eq!(
            (head.status(), head.response.announced_len),
            (200, Some(10)),
            "{way}"
        );
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
fn a_directory_has_an_index_and_a_slash() {
    let dir = Dir::new();
    let bench = dir.bench("", ", respond(200, \"next\")");
    assert_eq!(bench.get("/").run().text(), "<p>index</p>");
    assert_eq!(bench.get("/sub/").run().text(), "<p>sub</p>");
    for (target, location) in [
        ("/sub", "/sub/"),
        ("/sub?a=b&c", "/sub/?a=b&c"),
        ("/sub?", "/sub/?"),
        ("/x/../sub", "/sub/"),
        ("/s%75b", "/sub/"),
    ] {
        let got = bench.get(target).run();
        assert_eq!(
            (got.status(), got.field("location")),
            (301, Some(location)),
            "{target}"
        );
        assert_eq!(bench.request("HEAD", target).run().status(), 301);
    }
    // Nothing to be found there: what stands below may know more.
    for target in [
        "/none", "/none/", "/a.txt/", "/a.txt/x", "//sub", "//", "/sub//", "//a.txt",
    ] {
        assert_eq!(bench.get(target).run().text(), "next", "{target}");
    }
    assert_eq!(bench.request("POST", "/sub").run().text(), "next");
}

#[test]
fn a_redirect_knows_what_a_rewrite_has_taken_off() {
    let dir = Dir::new();
    let www = dir.path().join("www");
    let bench = Bench::new(&format!(
        r#"site {{ "*", route "/docs/*" {{ rewrite "/$rest", files "{}" }} }}"#,
        www.display()
    ));
    let got = bench.get("/docs/sub?q").run();
    assert_eq!(
        (got.status(), got.field("location")),
        (301, Some("/docs/sub/?q"))
    );
}

#[test]
fn indexes_are_tried_in_order_and_looked_for_anew() {
    let dir = Dir::new();
    dir.file("www/idx/b.txt", "b");
    dir.file("www/idx/a.php", "source");
    let bench = dir.bench(r#"{ index = { "a.php", ".x", "a.txt", "b.txt" } }"#, "");
    for _ in 0..3 {
        assert_eq!(bench.get("/idx/").run().text(), "b");
    }
    dir.file("www/idx/a.txt", "a");
    expire(&bench);
    assert_eq!(bench.get("/idx/").run().text(), "a");
}

#[test]
fn dotfiles_and_scripts_are_passed_over() {
    let dir = Dir::new();
    let hidden = [
        ".env",
        ".git/config",
        "sub/.htaccess",
        "a.php",
        "x.PHP",
        "b.phtml",
        "c.phar",
        "d.cgi",
        "e.php/x.txt",
    ];
    for path in hidden {
        dir.file(&format!("www/{path}"), "private");
    }
    dir.file("www/.well-known/acme", "public");
    let bench = dir.bench("", "");
    for path in hidden {
        assert_eq!(bench.get(&format!("/{path}")).run().status(), 404, "{path}");
    }
    assert_eq!(bench.get("/%2eenv").run().status(), 404);
    assert_eq!(bench.get("/a.ph%70").run().status(), 404);
    assert_eq!(bench.get("/.well-known/acme").run().text(), "public");

    let bench = dir.bench(r#"{ hide = { "*.txt", "sub" } }"#, "");
    assert_eq!(bench.get("/a.txt").run().status(), 404);
    assert_eq!(bench.get("/sub/").run().status(), 404);
    assert_eq!(bench.get("/.env").run().status(), 404);
    assert_eq!(bench.get("/index.html").run().status(), 200);
}

#[test]
fn nothing_outside_of_the_root_is_sent() {
    let dir = Dir::new();
    let bench = dir.bench("", "");
    for target in [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/sub/..%2f..%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/..%00/secret.txt",
        "/....//secret.txt",
        "/.%2e/secret.txt",
        "/a.txt%00.html",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/sub%2fb.txt",
        "/..;/secret.txt",
        "/a.txt%0a",
        "/./a.txt/.",
    ] {
        let got = bench.get(target).run();
        assert!(
            matches!(got.status(), 400 | 404),
            "{target}: {}",
            got.status()
        );
        assert!(!got.text().contains("secret"), "{target}");
    }
}

#[test]
fn names_are_decoded_once() {
    let dir = Dir::new();
    dir.file("www/with space.txt", "space");
    dir.file("www/per%20cent.txt", "percent");
    dir.file("www/\u{fc}.txt", "umlaut");
    dir.file("www/q?.txt", "question");
    let bench = dir.bench("", "");
    for (target, text) in [
        ("/with%20space.txt", "space"),
        ("/per%2520cent.txt", "percent"),
        ("/%C3%BC.txt", "umlaut"),
        ("/%c3%bc.txt?x", "umlaut"),
        ("/q%3f.txt", "question"),
    ] {
        for _ in 0..3 {
            assert_eq!(bench.get(target).run().text(), text, "{target}");
        }
    }
    for target in [
        "/per%20cent.txt".to_owned(),
        format!("/{}", "x".repeat(300)),
        "/x".repeat(3000),
    ] {
        assert_eq!(bench.get(&target).run().status(), 404);
    }
}

#[test]
fn symbolic_links() {
    let dir = Dir::new();
    let www = dir.path().join("www");
    symlink("a.txt", www.join("in.txt")).unwrap();
    symlink("sub", www.join("in-dir")).unwrap();
    symlink("../secret.txt", www.join("out.txt")).unwrap();
    symlink(dir.path().join("secret.txt"), www.join("abs.txt")).unwrap();
    symlink("loop.txt", www.join("loop.txt")).unwrap();
    let check = |symlinks: &str, target: &str, status: u16| {
        let disks: [Option<Arc<dyn Disk>>; 2] = [None, Some(Arc::new(ColdDisk::default()))];
        for disk in disks {
            let mut bench = dir.bench(&format!("{{ symlinks = \"{symlinks}\" }}"), "");
            if let Some(disk) = disk {
                bench = on(bench, disk);
            }
            assert_eq!(
                bench.get(target).run().status(),
                status,
                "{symlinks} {target}"
            );
        }
    };
    for (target, inside, any, none) in [
        ("/a.txt", 200, 200, 200),
        ("/in.txt", 200, 200, 404),
        ("/in-dir/b.txt", 200, 200, 404),
        ("/out.txt", 404, 200, 404),
        ("/abs.txt", 404, 200, 404),
        ("/loop.txt", 404, 404, 404),
    ] {
        check("inside", target, inside);
        check("any", target, any);
        check("none", target, none);
    }
}

#[test]
fn what_is_no_plain_file_is_passed_over() {
    let dir = Dir::new();
    let www = dir.path().join("www");
    let made = std::process::Command::new("mkfifo")
        .arg(www.join("pipe"))
        .status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(www.join("sock")).unwrap();
    symlink("/dev/zero", www.join("zero")).unwrap();
    for bench in [
        dir.bench("{ symlinks = \"any\" }", ""),
        on(
            dir.bench("{ symlinks = \"any\" }", ""),
            Arc::new(ColdDisk::default()),
        ),
    ] {
        for target in ["/pipe", "/sock", "/zero"] {
            assert_eq!(bench.get(target).run().status(), 404, "{target}");
        }
    }
}

#[test]
fn other_methods_are_refused_only_where_there_is_a_file() {
    let dir = Dir::new();
    for bench in [
        dir.bench("", ""),
        on(dir.bench("", ""), Arc::new(ColdDisk::default())),
    ] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"] {
            let got = bench.request(method, "/a.txt").run();
            let allow = Some("GET, HEAD, OPTIONS");
            assert_eq!((got.status(), got.field("allow")), (405, allow), "{method}");
            assert_eq!(
                bench.request(method, "/missing").run().status(),
                404,
                "{method}"
            );
        }
        let got = bench.request("OPTIONS", "/a.txt").run();
        assert_eq!(
            (got.status(), got.field("allow")),
            (204, Some("GET, HEAD, OPTIONS"))
        );
        assert_eq!(bench.request("OPTIONS", "/missing").run().status(), 404);
    }
    let bench = dir.bench("", ", respond(200, \"next\")");
    assert_eq!(bench.request("POST", "/a.txt").run().text(), "next");
}

#[test]
fn tries_in_order() {
    let dir = Dir::new();
    dir.file("www/about.html", "about");
    dir.file("www/100%.html", "literal");
    for disk in [None, Some(Arc::new(ColdDisk::default()))] {
        let options = r#"{ try = { "$path", "$path.html", "$path/index.html", "/index.html" } }"#;
        let mut bench = dir.bench(options, "");
        if let Some(disk) = disk {
            bench = on(bench, disk);
        }
        for _ in 0..3 {
            for (target, text) in [
                ("/a.txt", DIGITS),
                ("/about", "about"),
                ("/sub/", "<p>sub</p>"),
                ("/deep/link", "<p>index</p>"),
                ("/deep/link/", "<p>index</p>"),
                ("/", "<p>index</p>"),
            ] {
                assert_eq!(bench.get(target).run().text(), text, "{target}");
            }
        }
        // The first try comes to be: it counts.
        let before = bench.get("/later").run().text();
        assert_eq!(before, "<p>index</p>");
        dir.file("www/later", "later");
        expire(&bench);
        assert_eq!(bench.get("/later").run().text(), "later");
        bench.get("/later").run();
        bench.get("/later").run();
        fs::remove_file(dir.path().join("www/later")).unwrap();
        expire(&bench);
        for _ in 0..3 {
            assert_eq!(bench.get("/later").run().text(), "<p>index</p>");
        }
    }
    let bench = dir.bench(r#"{ try = "/100%.html" }"#, "");
    assert_eq!(bench.get("/any").run().text(), "literal");
    // Only what the client has asked for by its name is redirected to.
    let bench = dir.bench(r#"{ try = "/sub" }"#, "");
    assert_eq!(bench.get("/any").run().text(), "<p>sub</p>");
    let bench = dir.bench(r#"{ try = "/x/$vars.none" }"#, "");
    assert_eq!(bench.get("/any").run().status(), 404);
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
fn a_root_with_variables_does_not_lead_out() {
    let dir = Dir::new();
    dir.file("hosts/a.test/x.txt", "a");
    dir.file("hosts/b.test/x.txt", "b");
    dir.file("hosts/x.txt", "outside");
    dir.file("x.txt", "outside");
    let bench = Bench::new(&format!(
        r#"site {{ "*", files "{}/hosts/$host" }}"#,
        dir.path().display()
    ));
    for _ in 0..4 {
        for (host, status, text) in [
            ("a.test", 200, "a"),
            ("b.test", 200, "b"),
            ("c.test", 404, ""),
        ] {
            let got = bench.get("/x.txt").host(host).run();
            assert_eq!(got.status(), status, "{host}");
            assert!(got.text().starts_with(text));
        }
        for host in ["", ".", "..", "a.test/..", "a\\b"] {
            assert_eq!(bench.get("/x.txt").host(host).run().status(), 404, "{host}");
        }
    }
    assert_eq!(count(&bench), 2);
}

#[test]
fn a_root_that_is_replaced_is_seen() {
    let dir = Dir::new();
    dir.file("releases/1/v.txt", "one");
    dir.file("releases/2/v.txt", "two");
    let current = dir.path().join("current");
    symlink("releases/1", &current).unwrap();
    let bench = Bench::new(&format!(r#"site {{ "*", files "{}" }}"#, current.display()));
    for _ in 0..3 {
        assert_eq!(bench.get("/v.txt").run().text(), "one");
    }
    let next = dir.path().join("next");
    symlink("releases/2", &next).unwrap();
    fs::rename(&next, &current).unwrap();
    expire(&bench);
    assert_eq!(bench.get("/v.txt").run().text(), "two");
    fs::remove_file(&current).unwrap();
    expire(&bench);
    assert_eq!(bench.get("/v.txt").run().status(), 404);
    symlink("releases/1", &current).unwrap();
    assert_eq!(bench.get("/v.txt").run().text(), "one");
}

#[test]
fn a_root_may_be_written_with_dots() {
    let dir = Dir::new();
    let path = dir.path().join("www/sub/../../www");
    let bench = Bench::new(&format!(r#"site {{ "*", files "{}" }}"#, path.display()));
    for _ in 0..4 {
        assert_eq!(bench.get("/a.txt").run().text(), DIGITS);
        expire(&bench);
    }
    let bench = Bench::new(r#"site { "*", files "/nowhere/at/all", respond(200, "next") }"#);
    assert_eq!(bench.get("/a.txt").run().text(), "next");
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
fn a_file_that_may_not_be_read_is_forbidden() {
    let dir = Dir::new();
    let path = dir.path().join("www/a.txt");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let readable = fs::File::open(&path).is_ok();
    let bench = dir.bench("", ", respond(200, \"next\")");
    // Root may read everything.
    assert_eq!(
        bench.get("/a.txt").run().status(),
        if readable { 200 } else { 403 }
    );
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
