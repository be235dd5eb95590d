//! Directories without an index, listed.

use super::*;

fn dir() -> Dir {
    let dir = Dir::new();
    dir.file_at("www/pub/b.txt", DIGITS, STAMP + 1);
    dir.file_at("www/pub/A.txt", "a", STAMP + 2);
    dir.file("www/pub/c.txt", DIGITS.repeat(200));
    dir.file("www/pub/inner/x.txt", "x");
    dir.file("www/pub/.secret", "x");
    dir.file("www/pub/script.php", "x");
    dir
}

fn json(bench: &Bench, target: &str) -> serde_json::Value {
    let got = bench.get(target).field("Accept", "application/json").run();
    assert_eq!(got.field("content-type"), Some("application/json"));
    assert_eq!(got.field("vary"), Some("Accept"));
    serde_json::from_slice(&got.bytes()).expect("JSON")
}

fn names(bench: &Bench, target: &str) -> Vec<String> {
    let value = json(bench, target);
    let entries = value["entries"].as_array().expect("entries").iter();
    entries
        .map(|entry| entry["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn sorted_by_what_the_query_says() {
    let dir = dir();
    for bench in [
        dir.bench("{ listing = true }", ""),
        on(
            dir.bench("{ listing = true }", ""),
            Arc::new(ColdDisk::default()),
        ),
    ] {
        for (query, expected) in [
            ("", ["inner", "A.txt", "b.txt", "c.txt"]),
            (
                "?sort=name&order=desc",
                ["inner", "c.txt", "b.txt", "A.txt"],
            ),
            ("?sort=size", ["inner", "A.txt", "b.txt", "c.txt"]),
            (
                "?order=desc&sort=size",
                ["inner", "c.txt", "b.txt", "A.txt"],
            ),
            ("?sort=time", ["inner", "c.txt", "b.txt", "A.txt"]),
            ("?sort=x&order=y&z", ["inner", "A.txt", "b.txt", "c.txt"]),
        ] {
            assert_eq!(names(&bench, &format!("/pub/{query}")), expected, "{query}");
        }
    }
    let bench = dir.bench("{ listing = true }", "");
    let value = json(&bench, "/pub/?x");
    assert_eq!(
        (value["path"].as_str(), value["complete"].as_bool()),
        (Some("/pub/"), Some(true))
    );
    let entry = serde_json::json!({
        "name": "A.txt", "type": "file", "href": "A.txt", "size": 1,
        "modified": "2020-02-02T02:02:04Z",
    });
    assert_eq!(value["entries"][1], entry);
    assert_eq!(value["entries"][0]["type"], "directory");
    assert_eq!(value["entries"][0]["href"], "inner/");
}

#[test]
fn only_where_there_is_no_index_and_behind_a_slash() {
    let dir = dir();
    let bench = dir.bench("{ listing = true }", "");
    assert_eq!(bench.get("/").run().text(), "<p>index</p>");
    assert_eq!(bench.get("/sub/").run().text(), "<p>sub</p>");
    let got = bench.get("/pub?sort=size").run();
    assert_eq!(
        (got.status(), got.field("location")),
        (301, Some("/pub/?sort=size"))
    );
    for target in [
        "/missing/",
        "/pub/b.txt/",
        "/pub/.secret/",
        "/pub//",
        "/pub/%2e%2e%2f/",
    ] {
        assert_eq!(bench.get(target).run().status(), 404, "{target}");
    }
    let head = bench.request("HEAD", "/pub/").run();
    let get = bench.get("/pub/").run();
    assert_eq!(
        head.response.body.len_bytes(),
        get.response.body.len_bytes()
    );
    assert_eq!(get.field("cache-control"), Some("no-cache"));
    assert!(
        get.field("content-security-policy")
            .is_some_and(|p| p.starts_with("default-src 'none'"))
    );
    let got = bench.request("POST", "/pub/").run();
    assert_eq!(
        (got.status(), got.field("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    assert_eq!(bench.request("OPTIONS", "/pub/").run().status(), 204);
    // Without the option, what stands below may know better.
    assert_eq!(
        dir.bench("", ", respond(200, \"below\")")
            .get("/pub/")
            .run()
            .text(),
        "below"
    );
    // A path that has no slash for the client would have links to beside the directory.
    let bench = dir.bench("{ listing = true, try = \"/pub\" }", "");
    assert_eq!(bench.get("/x").run().status(), 404);
}

#[test]
fn names_mean_nothing_but_themselves() {
    let dir = dir();
    let evil = "<img src=x onerror=a()>\"'&.txt";
    for name in [
        evil,
        "javascript:x",
        "a?b#c",
        "per%20cent",
        "rtl\u{202e}gpj.exe",
        "\u{fc}",
    ] {
        dir.file(&format!("www/evil/{name}"), "x");
    }
    let bytes = std::ffi::OsStr::from_bytes(b"\xff.txt");
    fs::write(dir.path().join("www/evil").join(bytes), "x").unwrap();
    let bench = dir.bench("{ listing = true }", "");
    let html = bench.get("/evil/").run().text();
    assert!(
        !html.contains("<img") && !html.contains('\u{202e}'),
        "{html}"
    );
    assert!(
        html.contains("&lt;img src=x onerror=a()&gt;&quot;&#39;&amp;.txt</a>"),
        "{html}"
    );
    assert!(!html.contains("href=\"javascript:"));
    // Every link leads to its file.
    let mut count = 0;
    for link in html.split("<td><a href=\"").skip(1) {
        let link = link.split('"').next().unwrap();
        if link != "../" {
            assert_eq!(
                bench.get(&format!("/evil/{link}")).run().text(),
                "x",
                "{link}"
            );
            count += 1;
        }
    }
    assert_eq!(count, 7);
    let html = bench.get("/evil/%3Cb%3E/../").run().text();
    assert!(!html.contains("<b>"), "{html}");
}

#[test]
fn links_are_shown_as_far_as_they_are_followed() {
    let dir = dir();
    for (to, name) in [
        ("a.txt", "good"),
        ("../secret.txt", "out"),
        ("gone", "gone"),
        ("sub", "dir"),
    ] {
        let to = if name == "out" {
            "../../secret.txt".into()
        } else {
            format!("../{to}")
        };
        symlink(to, dir.path().join("www/pub").join(name)).unwrap();
    }
    let inner = &["dir", "inner", "A.txt", "b.txt", "c.txt", "good"][..];
    let bench = dir.bench("{ listing = true }", "");
    assert_eq!(names(&bench, "/pub/"), inner);
    let bench = dir.bench("{ listing = true, symlinks = \"none\" }", "");
    assert_eq!(names(&bench, "/pub/"), ["inner", "A.txt", "b.txt", "c.txt"]);
    let bench = dir.bench("{ listing = true, symlinks = \"any\" }", "");
    assert_eq!(names(&bench, "/pub/").len(), 7);
}

#[test]
fn large_directories_are_cut() {
    let dir = dir();
    fs::create_dir(dir.path().join("www/large")).unwrap();
    for number in 0..10_001 {
        fs::write(dir.path().join(format!("www/large/{number}")), "").unwrap();
    }
    let bench = dir.bench("{ listing = true }", "");
    let value = json(&bench, "/large/");
    assert_eq!(value["entries"].as_array().map(Vec::len), Some(10_000));
    assert_eq!(value["complete"], false);
    assert!(
        bench
            .get("/large/")
            .run()
            .text()
            .contains("only 10000 entries are shown")
    );
    assert!(bench.get("/pub/").run().text().contains("<a href=\"../\">"));
}

#[test]
fn behind_a_rewrite_the_way_up_is_the_clients() {
    let dir = dir();
    let www = dir.path().join("www");
    let bench = Bench::new(&format!(
        "site {{ \"*\", route \"/docs/*\" {{ rewrite \"/$rest\", files \"{}\" {{ listing = true }} }} }}",
        www.display()
    ));
    let html = bench.get("/docs/pub/").run().text();
    let crumbs = "<h1><a href=\"../../\">/</a><a href=\"../\">docs/</a>pub/</h1>";
    assert!(html.contains(crumbs), "{html}");
}
