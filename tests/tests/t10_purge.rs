//! `forebay purge`: what a running server has stored is forgotten.

use std::time::{Duration, Instant};

use forebay_tests::{Gate, Origin, Request, Response, Script, Server, wait};

/// An origin that says of each answer how many it has given, and tags it with its path's first part.
fn origin() -> Origin {
    let count = std::sync::atomic::AtomicUsize::new(1);
    Origin::setup()
        .handle(move |received| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let tag = received.target.split(['/', '?']).nth(1).unwrap_or("");
            let fields =
                format!("Cache-Control: max-age=600\r\nETag: \"1\"\r\nxkey: {tag} all\r\n");
            Script::with_fields(200, &fields, number.to_string())
        })
        .start()
}

struct Case {
    server: Server,
    origin: Origin,
}

impl Case {
    fn new(cache: &str) -> Case {
        let origin = origin();
        let server = Server::before(&origin, &format!("{cache},\nproxy \"@origin@\""));
        Case { server, origin }
    }

    fn get(&self, host: &str, target: &str) -> Response {
        let request = Request::get(target).host(host);
        self.server.client().request(&request)
    }

    /// Whether this is answered from the store.
    fn is_stored(&self, host: &str, target: &str) -> bool {
        let before = self.origin.requests().len();
        let got = self.get(host, target);
        assert_eq!(got.status(), 200);
        self.origin.requests().len() == before
    }

    #[track_caller]
    fn purge(&self, what: &str) -> String {
        self.server
            .command(&format!("purge {what}"))
            .expect(0)
            .stdout
    }

    /// Puts these into the store.
    fn fill(&self, host: &str, targets: &[&str]) {
        for target in targets {
            assert!(!self.is_stored(host, target), "{target}");
            wait::until("it to be stored", || self.is_stored(host, target));
        }
    }
}

#[test]
fn by_url_prefix_host_tag_and_all() {
    let case = Case::new("cache");
    let stored = |host: &str, targets: [&str; 3]| targets.map(|t| case.is_stored(host, t));
    let all = ["/a/1", "/a/2?q=1", "/b/1"];
    case.fill("one.test", &all);
    case.fill("two.test", &all);

    let said = case.purge("http://ONE.test:80/x/../a/1");
    assert!(said.starts_with("1 object purged, "), "{said}");
    assert_eq!(stored("one.test", all), [false, true, true]);
    // The scheme is a part of what a URL names; without one both are meant.
    assert!(case.purge("https://one.test/a/1").starts_with("0 objects"));
    assert!(case.purge("one.test/a/1").starts_with("1 object "));
    assert_eq!(stored("one.test", all), [false, true, true]);

    assert!(
        case.purge("--prefix http://one.test/a/")
            .starts_with("2 objects")
    );
    assert_eq!(stored("one.test", all), [false, false, true]);
    assert!(case.purge("--tag b").starts_with("2 objects"));
    assert_eq!(stored("one.test", all), [true, true, false]);
    assert_eq!(stored("two.test", all), [true, true, false]);
    assert!(case.purge("--host Two.test").starts_with("3 objects"));
    assert_eq!(stored("two.test", all), [false; 3]);
    assert_eq!(stored("one.test", all), [true; 3]);
    assert!(case.purge("--all").starts_with("6 objects"));
    assert_eq!(stored("one.test", all), [false; 3]);
}

#[test]
fn a_soft_purge_has_objects_validated() {
    let case = Case::new("cache");
    case.fill("a.test", &["/a/1"]);
    let said = case.purge("--soft --tag all");
    assert!(said.starts_with("1 object to be validated; "), "{said}");
    let before = case.origin.requests().len();
    assert_eq!(case.get("a.test", "/a/1").status(), 200);
    let requests = case.origin.requests();
    assert_eq!(requests.len(), before + 1);
    assert_eq!(requests[before].field("if-none-match"), Some("\"1\""));
}

#[test]
fn a_url_is_purged_as_it_is_written_and_as_caches_make_it() {
    let case =
        Case::new(r#"cache { ignore_query = "utm_*", sort_query = true, key = "$cookies.c" }"#);
    case.fill("a.test", &["/x?b=2&a=1&utm_id=7"]);
    assert!(case.is_stored("a.test", "/x?a=1&b=2"));
    let said = case.purge("http://a.test/x?utm_source=mail&b=2&a=1");
    assert!(said.starts_with("1 object purged"), "{said}");
    assert!(!case.is_stored("a.test", "/x?a=1&b=2"));
}

#[test]
fn what_is_wrong_is_told() {
    let case = Case::new("cache");
    for (what, said) in [
        ("http://a.test/%zz", "is no URL"),
        ("--host http://a.test", "is no host"),
        ("--tag a,b", "is no tag"),
        ("--all --store big", "there is no cache_store `big`"),
    ] {
        let out = case.server.command(&format!("purge {what}")).expect(2);
        assert!(out.stderr.contains(said), "{what}: {}", out.stderr);
    }
    // Everything, or something: both is a slip of the pen.
    for what in [
        "--all http://a.test/",
        "--all --tag a",
        "--all --host a.test",
        "--soft",
    ] {
        let out = case.server.command(&format!("purge {what}")).expect(2);
        assert!(out.stderr.contains("error: "), "{what}: {}", out.stderr);
    }
    case.server.reload_with(r#"site { "*", respond(200) }"#);
    let out = case.server.command("purge --all").expect(2);
    assert!(out.stderr.contains("no `cache`"), "{}", out.stderr);
}

/// Who asked before a purge gets what it asked for; who asks after it joins nobody who asked before.
#[test]
fn a_purge_meets_what_is_being_asked_for() {
    let (first, begun) = (Gate::new(), Gate::new());
    let held = (first.clone(), begun.clone());
    let count = std::sync::atomic::AtomicUsize::new(0);
    let fields = "Cache-Control: max-age=600\r\n";
    let origin = Origin::setup()
        .handle(
            move |_| match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => {
                    held.1.open();
                    Script::with_fields(200, fields, "old").when(&held.0)
                }
                _ => Script::with_fields(200, fields, "new"),
            },
        )
        .start();
    let server = Server::before(&origin, "cache, proxy \"@origin@\"");
    let mut early = server.client().connect();
    early.send(&Request::get("/"));
    assert!(begun.wait(Duration::from_secs(20)), "the origin is asked");
    let _ = server.command("purge --all").expect(0);
    let mut late = server.client().connect();
    late.send(&Request::get("/"));
    late.wait_until_read();
    first.open();
    assert_eq!(early.read_response().text(), "old");
    assert_eq!(late.read_response().text(), "new");
    assert_eq!(server.client().get("/").text(), "new");
}

#[test]
fn ten_thousand_objects_under_one_tag() {
    let fields = "Cache-Control: max-age=600\r\nxkey: many\r\n";
    let origin = Origin::always(Script::with_fields(200, fields, vec![b'x'; 8000]));
    let server = Server::before(&origin, "cache, proxy \"@origin@\"");
    let before = server.rss();
    let mut conns = [(); 4].map(|()| server.client().connect());
    // On a machine that has other things to do a single measurement says little of the purge; one of
    // four that is quick says that it can be.
    let mut full = 0;
    for left in (0..4).rev() {
        let begun = Instant::now();
        for at in 0..10_000 {
            assert_eq!(conns[at % 4].get(&format!("/many/{at}")).status(), 200);
        }
        // What it costs to have stored them tells how fast the machine is.
        let storing = begun.elapsed();
        full = server.rss();
        assert!(full > before + 70_000_000, "{before} {full}");
        let purge = Request::post("/purge?tag=many", "");
        let answer = server.admin().request(&purge).expect(200);
        let done: serde_json::Value = serde_json::from_str(answer.text()).expect("JSON");
        let us = |name: &str| Duration::from_micros(done[name].as_u64().expect("a number"));
        assert!(done["objects"].as_u64() >= Some(9_990), "{done}");
        let is_quick = us("in_force_us") < Duration::from_millis(50).max(storing / 100)
            && us("swept_us") < Duration::from_secs(1).max(storing / 2);
        println!("{done}, stored in {storing:?}");
        if is_quick {
            break;
        }
        assert!(left > 0, "{done}, stored in {storing:?}");
    }
    wait::until("the memory to be the system's again", || {
        server.rss() < before + (full - before) / 3
    });
    let asked = origin.requests().len();
    assert_eq!(server.client().get("/many/17").status(), 200);
    assert_eq!(origin.requests().len(), asked + 1);
}
