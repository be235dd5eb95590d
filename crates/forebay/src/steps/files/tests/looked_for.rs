//! Where a file is looked for: indexes, tries, slashes.

use super::*;

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
