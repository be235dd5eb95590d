//! What the caches do, seen from outside: `$cache`, access logs, metrics, status; and what becomes of
//! what is stored when the configuration changes.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use forebay_tests::{Gate, Origin, Request, Script, Server, wait};
use serde_json::Value;

fn status(server: &Server) -> Value {
    let status = server.admin().get("/status").expect(200);
    serde_json::from_str(status.text()).expect("JSON")
}

/// A sample of the metrics.
fn metric(server: &Server, name: &str) -> u64 {
    let text = server.admin().get("/metrics").expect(200).text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    value.trim().parse().expect("a number")
}

const LOGGED: &str = r#"access_log "access.log" { format = "$path $cache $status" },
    access_log "peer.log" { format = "$cache $peer" },
    access_log "json.log" { format = "json" },
    headers { response = { x_cache = "$cache" } },"#;

#[test]
fn every_way_through_a_cache_has_its_word() {
    let asked = AtomicUsize::new(0);
    let (held, begun) = (Gate::new(), Gate::new());
    let gates = (held.clone(), begun.clone());
    let origin = Origin::setup()
        .handle(move |received| {
            let number = asked.fetch_add(1, Relaxed);
            match &*received.target {
                "/old" if received.field("if-none-match").is_some() => {
                    Script::with_fields(304, "Cache-Control: no-cache\r\nETag: \"1\"\r\n", "")
                }
                "/old" => {
                    Script::with_fields(200, "Cache-Control: no-cache\r\nETag: \"1\"\r\n", "old")
                }
                "/stale" if number > 3 => Script::status(503, "down"),
                "/stale" => Script::with_fields(
                    200,
                    "Cache-Control: max-age=0, stale-if-error=600\r\n",
                    "s",
                ),
                "/mine" => Script::with_fields(200, "Set-Cookie: a=b\r\n", "mine"),
                "/held" => {
                    gates.1.open();
                    Script::with_fields(200, "Cache-Control: max-age=600\r\n", "held")
                        .when(&gates.0)
                }
                _ => Script::with_fields(200, "Cache-Control: max-age=600\r\n", "body"),
            }
        })
        .start();
    let config = format!(
        "site {{ \"*\", name = \"shop\", {LOGGED} cache {{ bypass = query \"fresh\" }}, \
         proxy \"@origin@\" }}"
    );
    let server = Server::builder(&config).origin("origin", &origin).start();
    let mut conn = server.client().connect();
    let mut said = |target: &str| {
        let got = conn.get(target);
        got.field("x-cache").unwrap_or_default().to_owned()
    };
    assert_eq!(said("/old"), "miss");
    assert_eq!(said("/stale"), "miss");
    assert_eq!(said("/new"), "miss");
    assert_eq!(said("/new"), "hit");
    assert_eq!(said("/old"), "revalidated");
    assert_eq!(said("/stale"), "stale");
    assert_eq!(said("/mine"), "pass");
    assert_eq!(said("/mine"), "pass");
    assert_eq!(said("/new?fresh"), "bypass");
    let post = server.client().request(&Request::post("/new", "x"));
    assert_eq!(post.field("x-cache"), Some("bypass"));
    let head = server.client().request(&Request::head("/none"));
    assert_eq!(head.field("x-cache"), Some("pass"));
    let unasked = Request::get("/none").field("Cache-Control", "only-if-cached");
    let unasked = server.client().request(&unasked);
    assert_eq!(
        (unasked.status(), unasked.field("x-cache")),
        (504, Some("pass"))
    );
    let (mut first, mut second) = (server.client().connect(), server.client().connect());
    first.send(&Request::get("/held"));
    assert!(begun.wait(Duration::from_secs(20)), "the origin is asked");
    second.send(&Request::get("/held"));
    second.wait_until_read();
    held.open();
    assert_eq!(first.read_response().field("x-cache"), Some("miss"));
    assert_eq!(second.read_response().field("x-cache"), Some("collapsed"));

    let line = |name: &str| metric(&server, name);
    for (cache, count) in [
        ("hit", 1),
        ("miss", 4),
        ("stale", 1),
        ("revalidated", 1),
        ("collapsed", 1),
        ("bypass", 2),
        ("pass", 4),
    ] {
        let name = format!("forebay_cache_requests_total{{site=\"shop\",cache=\"{cache}\"}}");
        wait::until(cache, || line(&name) == count);
    }
    for (reason, count) in [
        ("bypass", 1),
        ("method", 1),
        ("set-cookie", 1),
        ("hit-for-miss", 1),
        ("head-miss", 1),
        ("only-if-cached", 1),
        ("stale-if-error", 1),
    ] {
        let name = format!("forebay_cache_reasons_total{{site=\"shop\",reason=\"{reason}\"}}");
        assert_eq!(line(&name), count, "{reason}");
    }
    // hit "body", revalidated "old", stale "s", collapsed "held".
    let bytes = |from| format!("forebay_cache_body_bytes_total{{site=\"shop\",from=\"{from}\"}}");
    assert_eq!(line(&bytes("store")), 4 + 3 + 1 + 4);
    // Stored: "old", "s", "body", "held"; passed: "mine" twice, "body" twice, the page of the 504.
    let page = unasked.body.len() as u64;
    assert_eq!(line(&bytes("origin")), 3 + 1 + 4 + 4 + 4 + 4 + 4 + 4 + page);

    let status = status(&server);
    let shop = &status["caches"][0];
    assert_eq!((&shop["site"], &shop["miss"]), (&"shop".into(), &4.into()));
    let store = &status["stores"][0];
    assert_eq!(
        (&store["objects"], &store["fills"]),
        (&3.into(), &0.into()),
        "a POST has made /new invalid"
    );
    let shown = server.command("status").expect(0).stdout;
    assert!(
        shown
            .contains("\n  hit 1, stale 1, revalidated 1, collapsed 1, miss 4, bypass 2, pass 4\n"),
        "{shown}"
    );

    server.signal(rustix::process::Signal::USR1);
    let log = || std::fs::read_to_string(server.dir().join("access.log")).unwrap_or_default();
    wait::until("all lines", || log().lines().count() == 14);
    assert!(
        log().contains("/stale stale 200\n/mine pass 200\n"),
        "{}",
        log()
    );
    let peers = || std::fs::read_to_string(server.dir().join("peer.log")).unwrap_or_default();
    wait::until("all lines", || peers().lines().count() == 14);
    // Who was asked stands there where somebody was, on whatever behalf.
    for (cache, count) in [
        ("hit", 0),
        ("collapsed", 0),
        ("miss", 4),
        ("revalidated", 1),
        ("pass", 3),
    ] {
        let line = format!("{cache} {}", origin.target());
        let lines = peers().lines().filter(|one| **one == line).count();
        assert_eq!(lines, count, "{line} in\n{}", peers());
    }
    let json = || std::fs::read_to_string(server.dir().join("json.log")).unwrap_or_default();
    wait::until("all lines", || json().lines().count() == 14);
    assert_eq!(
        json().matches("\"cache\":\"pass\"").count(),
        4,
        "{}",
        json()
    );
}

/// An origin whose every answer is another, and may be stored.
fn counting() -> Origin {
    let count = AtomicUsize::new(1);
    Origin::setup()
        .handle(move |_| {
            let body = count.fetch_add(1, Relaxed).to_string();
            Script::with_fields(200, "Cache-Control: max-age=600\r\n", body)
        })
        .start()
}

#[test]
fn what_is_asked_for_rarely_is_not_stored() {
    let origin = counting();
    let server = Server::before(&origin, "cache { min_uses = 3 }, proxy \"@origin@\"");
    let mut conn = server.client().connect();
    for (body, status) in [
        ("1", "forebay; fwd=uri-miss; detail=too-few-uses"),
        ("2", "forebay; fwd=uri-miss; detail=too-few-uses"),
        ("3", "forebay; fwd=uri-miss; fwd-status=200; stored"),
        ("3", "forebay; hit"),
    ] {
        let got = conn.get("/x");
        assert_eq!(got.text(), body);
        let said = got.field("cache-status").unwrap_or_default();
        assert!(said.starts_with(status), "{said}");
    }
    assert_eq!(conn.get("/y").text(), "4");
    assert_eq!(conn.get("/y").text(), "5");
}

#[test]
fn what_is_stored_stays_over_reloads() {
    let origin = counting();
    let config =
        |store: &str, cache: &str| format!("{store} site {{ \"*\", {cache}, proxy \"@origin@\" }}");
    let server = Server::builder(&config("", "cache"))
        .origin("origin", &origin)
        .start();
    let said = |target: &str| server.client().get(target).text().to_owned();
    assert_eq!(said("/a"), "1");
    wait::until("it to be stored", || said("/a") == "1");
    let memory = || status(&server)["stores"][0]["max_memory_bytes"].as_u64();
    // The same store with another cache before it, of another size, declared or not.
    for (store, cache, mb) in [
        ("", "cache { ttl = \"1m\" }", 256),
        ("cache_store { memory = \"8MB\" }", "cache", 8),
        ("cache_store { memory = \"1GB\" }", "cache", 1024),
        ("", "cache", 256),
    ] {
        server.reload_with(&config(store, cache));
        wait::until("its size", || memory() == Some(mb << 20));
        assert_eq!(said("/a"), "1", "{store} {cache}");
    }
    // Another store knows nothing of it.
    server.reload_with(&config(
        "local big = cache_store \"big\" { memory = \"8MB\" }",
        "cache { store = big }",
    ));
    assert_eq!(said("/a"), "2");
}

#[test]
fn a_configuration_that_is_refused_changes_no_store() {
    let origin = counting();
    let site = "site { \"*\", cache, proxy \"@origin@\" }";
    let server = Server::builder(site).origin("origin", &origin).start();
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = held.local_addr().expect("its address");
    server.write_config(&format!(
        "cache_store {{ memory = \"1MB\" }} listen \"{taken}\" {site}"
    ));
    let refused = server.reload();
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let memory = &status(&server)["stores"][0]["max_memory_bytes"];
    assert_eq!(memory.as_u64(), Some(256 << 20));
}

#[test]
fn a_running_server_tells_what_it_has_stored() {
    let fields = "Cache-Control: max-age=600\r\nETag: \"v1\"\r\nxkey: red blue\r\n\
                  Vary: Accept-Language\r\n";
    let origin = Origin::always(Script::with_fields(200, fields, vec![b'x'; 70_000]));
    let config = "cache { key = \"$cookies.c\", ignore_query = \"utm_*\" }, proxy \"@origin@\"";
    let server = Server::before(&origin, config);
    let explain = |url: &str| server.command(&format!("explain --live {url}"));
    let said = explain("http://a.test/x").expect(0).stdout;
    let nothing = "nothing is stored for http://a.test/x, and nothing is on its way\n";
    assert_eq!(said, nothing);
    for (cookie, language) in [("c=1", "de"), ("c=2", "de"), ("c=1", "fr")] {
        let request = Request::get("/x?a=1").host("a.test");
        let request = request
            .field("Cookie", cookie)
            .field("Accept-Language", language);
        assert_eq!(server.client().request(&request).status(), 200);
    }
    let json = explain("http://a.test/x?a=1&utm_id=7 --json")
        .expect(0)
        .stdout;
    let found: Value = serde_json::from_str(&json).expect("JSON");
    let list = found["stored"].as_array().expect("a list");
    assert_eq!(list.len(), 3, "{json}");
    let first = &list[0];
    assert_eq!(first["key"], "http://a.test/x?a=1\n1:1");
    assert_eq!(first["vary"][0], "accept-language:de");
    assert_eq!(
        (&first["tags"][0], &first["tags"][1]),
        (&"red".into(), &"blue".into())
    );
    assert_eq!(
        (&first["bytes"], &first["blocks_in_all"]),
        (&70_000.into(), &2.into())
    );
    assert_eq!(first["lifetime"], 600);
    assert!(first["ttl"].as_i64() > Some(500), "{json}");
    let said = explain("a.test/x?a=1").expect(0).stdout;
    for line in [
        "  body      70000 bytes, 2 of 2 blocks are there\n",
        "  lifetime  600 s: max-age (RFC 9111 §5.2.2.1)\n",
        "  ETag      \"v1\"\n",
        "  now       it is used: it is fresh (RFC 9111 §4.2)\n",
    ] {
        assert_eq!(said.matches(line).count(), 3, "no {line:?} in\n{said}");
    }
    let _ = server.command("purge --soft --all").expect(0);
    let said = explain("a.test/x?a=1").expect(0).stdout;
    assert_eq!(said.matches("a soft purge has met it").count(), 3, "{said}");
    let wrong = explain("http://a.test/%zz").expect(2);
    assert!(wrong.stderr.contains("is no URL"), "{}", wrong.stderr);
}
