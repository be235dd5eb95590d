//! Files that lie beside others in a coding.

use super::*;

const ALL: &str = "gzip, deflate, br, zstd";

/// `a.txt` in two codings (any bytes do), `sub/index.html` in one.
fn dir() -> Dir {
    let dir = Dir::new();
    dir.file("www/a.txt.br", "coded by br");
    dir.file_at("www/a.txt.gz", "coded by gzip", STAMP + 1);
    dir.file("www/sub/index.html.zst", "coded by zstd");
    dir
}

/// Each way in which a file and its siblings can be met.
fn each_way(test: impl Fn(&str, &Dir, &Bench)) {
    let dir = dir();
    let bench = dir.bench("", "");
    let none = crate::files::Memory::new(0);
    bench.worker.files.memory.replace(none);
    test("read anew", &dir, &bench);
    let bench = dir.bench("", "");
    for _ in 0..3 {
        for coding in ["", "br", "gzip"] {
            let got = bench.get("/a.txt").field("Accept-Encoding", coding).run();
            assert_eq!(got.status(), 200);
        }
    }
    assert_eq!(count(&bench), 3);
    test("in memory", &dir, &bench);
    expire(&bench);
    test("in memory and expired", &dir, &bench);
    let bench = on(dir.bench("", ""), Arc::new(ColdDisk::default()));
    test("waited for", &dir, &bench);
    let bench = on(dir.bench("", ""), ColdDisk::with_names());
    test("waited for, but for its name", &dir, &bench);
}

fn ask(bench: &Bench, path: &str, accepts: &str) -> Got {
    bench.get(path).field("Accept-Encoding", accepts).run()
}

#[test]
fn the_one_that_the_client_likes_best_stands_for_the_file() {
    each_way(|way, _, bench| {
        let plain = bench.get("/a.txt").run();
        assert_eq!(
            (plain.text().as_str(), plain.field("vary")),
            (DIGITS, Some("Accept-Encoding"))
        );
        let mut tags = vec![plain.field("etag").unwrap().to_owned()];
        for (accepts, coding, text) in [
            (ALL, Some("br"), "coded by br"),
            ("gzip, zstd", Some("gzip"), "coded by gzip"),
            ("gzip, br;q=0.5", Some("gzip"), "coded by gzip"),
            ("zstd, deflate", None, DIGITS),
            ("br;q=0.2, identity", None, DIGITS),
            ("", None, DIGITS),
        ] {
            let got = ask(bench, "/a.txt", accepts);
            assert_eq!(
                (got.status(), got.text().as_str()),
                (200, text),
                "{way}: {accepts}"
            );
            assert_eq!(got.field("content-encoding"), coding, "{way}: {accepts}");
            assert_eq!(got.field("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(
                got.field("vary"),
                Some("Accept-Encoding"),
                "{way}: {accepts}"
            );
            assert_eq!(got.field("accept-ranges"), Some("bytes"));
            tags.push(got.field("etag").unwrap().to_owned());
        }
        assert_eq!(tags.iter().filter(|tag| **tag == tags[0]).count(), 4);
        assert!(tags[1] != tags[0] && tags[2] != tags[0] && tags[1] != tags[2]);
        let head = bench
            .request("HEAD", "/a.txt")
            .field("Accept-Encoding", ALL)
            .run();
        assert_eq!(
            (head.field("content-encoding"), head.response.announced_len),
            (Some("br"), Some(11))
        );
        let index = ask(bench, "/sub/", ALL);
        assert_eq!(
            (index.text().as_str(), index.field("content-encoding")),
            ("coded by zstd", Some("zstd"))
        );
        assert_eq!(
            index.field("content-type"),
            Some("text/html; charset=utf-8")
        );
        // One without any.
        let got = ask(bench, "/sub/b.txt", ALL);
        assert_eq!((got.text().as_str(), got.field("vary")), ("b", None));
    });
}

#[test]
fn ranges_and_conditions_are_about_the_coded_bytes() {
    each_way(|way, _, bench| {
        let tag = |accepts| {
            ask(bench, "/a.txt", accepts)
                .field("etag")
                .unwrap()
                .to_owned()
        };
        let (plain, br) = (tag(""), tag("br"));
        let part = |tag: &str| {
            let ask = bench.get("/a.txt").field("Accept-Encoding", ALL);
            ask.field("Range", "bytes=6-").field("If-Range", tag).run()
        };
        let got = part(&br);
        assert_eq!((got.status(), got.text().as_str()), (206, "by br"), "{way}");
        assert_eq!(got.field("content-range"), Some("bytes 6-10/11"));
        assert_eq!(got.field("content-encoding"), Some("br"));
        assert_eq!(part(&plain).status(), 200, "{way}");
        for (accepts, tag, status) in [(ALL, &br, 304), ("", &plain, 304), (ALL, &plain, 200)] {
            let got = bench.get("/a.txt").field("Accept-Encoding", accepts);
            let got = got.field("If-None-Match", tag).run();
            assert_eq!(
                (got.status(), got.field("vary")),
                (status, Some("Accept-Encoding")),
                "{way}"
            );
            assert!(status == 200 || got.field("content-encoding").is_none());
        }
    });
}

#[test]
fn hot_ones_need_no_look() {
    let dir = dir();
    let bench = dir.bench("", "");
    for _ in 0..3 {
        assert_eq!(ask(&bench, "/a.txt", ALL).text(), "coded by br");
    }
    // Nobody has asked for the file itself; it is there as a name only.
    assert_eq!(count(&bench), 2);
    std::fs::rename(dir.path().join("www"), dir.path().join("away")).unwrap();
    let got = ask(&bench, "/a.txt", ALL);
    assert_eq!((got.text().as_str(), got.waited), ("coded by br", false));
}

#[test]
fn an_older_one_is_not_used() {
    let dir = dir();
    let long = DIGITS.repeat(10_000);
    dir.file_at("www/a.txt", "changed", STAMP + 1);
    dir.file("www/long.txt", &long);
    dir.file_at("www/long.txt.zst", "short", STAMP - 1);
    let bench = dir.bench("", "");
    for _ in 0..4 {
        let got = ask(&bench, "/a.txt", ALL);
        assert_eq!(
            (got.text().as_str(), got.field("content-encoding")),
            ("coded by gzip", Some("gzip"))
        );
        let got = ask(&bench, "/long.txt", ALL);
        assert!(content(&got) == long && got.field("vary").is_none());
    }
    // What comes, changes and goes is seen at the next look.
    dir.file_at("www/a.txt.br", "anew", STAMP + 2);
    dir.file_at("www/a.txt", "changed again", STAMP + 2);
    dir.file_at("www/long.txt.zst", "short", STAMP);
    expire(&bench);
    for _ in 0..4 {
        assert_eq!(ask(&bench, "/a.txt", ALL).text(), "anew");
        assert_eq!(ask(&bench, "/a.txt", "gzip").text(), "changed again");
        assert_eq!(ask(&bench, "/long.txt", ALL).text(), "short");
    }
    fs::remove_file(dir.path().join("www/a.txt.br")).unwrap();
    expire(&bench);
    for _ in 0..3 {
        let got = ask(&bench, "/a.txt", ALL);
        assert_eq!(
            (got.text().as_str(), got.field("vary")),
            ("changed again", None)
        );
    }
}

#[test]
fn a_time_cut_to_the_second_is_not_older() {
    let dir = dir();
    for (nanoseconds, used) in [(0, true), (1, false)] {
        let set = |path: &str, nanoseconds| {
            let time = SystemTime::UNIX_EPOCH + Duration::new(STAMP, nanoseconds);
            let file = fs::File::options().write(true).open(dir.path().join(path));
            file.unwrap().set_modified(time).unwrap();
        };
        set("www/a.txt", 500);
        set("www/a.txt.br", nanoseconds);
        let got = ask(&dir.bench("", ""), "/a.txt", "br");
        assert_eq!(got.field("content-encoding").is_some(), used);
    }
}

#[test]
fn what_is_hidden_or_a_picture_has_none() {
    let dir = dir();
    for name in ["x.png", "x.png.gz", "x.svg", "x.svg.gz", "x.gz", "x.gz.gz"] {
        dir.file(&format!("www/{name}"), name);
    }
    let bench = dir.bench("", "");
    for (path, text) in [
        ("/x.png", "x.png"),
        ("/x.svg", "x.svg.gz"),
        ("/x.gz", "x.gz"),
    ] {
        assert_eq!(ask(&bench, path, "gzip").text(), text);
    }
    let bench = dir.bench(r#"{ hide = "*.br" }"#, "");
    assert_eq!(ask(&bench, "/a.txt", ALL).text(), "coded by gzip");
    // A directory, and one that leads out.
    fs::remove_file(dir.path().join("www/a.txt.gz")).unwrap();
    fs::remove_file(dir.path().join("www/a.txt.br")).unwrap();
    fs::create_dir(dir.path().join("www/a.txt.gz")).unwrap();
    symlink("../secret.txt", dir.path().join("www/a.txt.br")).unwrap();
    assert_eq!(ask(&dir.bench("", ""), "/a.txt", ALL).text(), DIGITS);
}
