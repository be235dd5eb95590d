//! What is never sent: what is hidden, and what is outside of the root.

use super::*;

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
