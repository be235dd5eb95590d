//! What is told, step by step.

use std::path::Path;

use forebay_config::{LoadOptions, load_text};

use super::*;
use crate::control::build::build_apart;
use crate::explain::walk::Does;
use crate::steps::registry;

/// A request: `METHOD URL`, then fields, each in a line.
#[track_caller]
fn try_told(config: &str, request: &str, client: Option<&str>) -> Result<Explanation, String> {
    let mut lines = request.lines();
    let first = lines.next().unwrap_or_default();
    let (method, url) = first.split_once(' ').unwrap_or(("GET", first));
    let fields: Vec<String> = lines.map(str::to_owned).collect();
    let asked = Asked::new(url, Some(method), &fields, client)?;
    let text = config.as_bytes().to_vec();
    let loaded = load_text(
        Path::new("forebay.lua"),
        text,
        registry(),
        &LoadOptions::default(),
    );
    let mut loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render()));
    let built = build_apart(&loaded.declarations, &mut loaded.report);
    let Some(built) = built else {
        panic!("{config}\n{}", loaded.report.render());
    };
    explain(asked, &mut loaded, &built)
}

#[track_caller]
fn told(config: &str, request: &str) -> Explanation {
    try_told(config, request, None).unwrap_or_else(|why| panic!("{request}: {why}"))
}

/// One site for all hosts with these steps.
#[track_caller]
fn steps(steps: &str, request: &str) -> Explanation {
    told(&format!("site {{ \"*\",\n{steps}\n}}"), request)
}

fn notes(told: &Explanation, step: &str) -> Vec<String> {
    let down = told.steps.iter().filter(|one| one.step == step);
    let up = told.response.iter().filter(|one| one.step == step);
    let all = down.map(|one| &one.notes).chain(up.map(|one| &one.notes));
    all.flatten()
        .map(|note| format!("{}: {}", note.about, note.text))
        .collect()
}

#[track_caller]
fn expect(told: &Explanation, step: &str, expected: &[&str]) {
    let notes = notes(told, step);
    for one in expected {
        assert!(
            notes.iter().any(|note| note.contains(one)),
            "{step}: no {one:?} in {notes:#?}"
        );
    }
}

#[track_caller]
fn does(told: &Explanation, step: &str, expected: Does) {
    let found = told.steps.iter().find(|one| one.step == step);
    assert_eq!(found.map(|one| one.does), Some(expected), "{step}");
}

fn line(at: Option<&At>) -> u32 {
    at.map_or(0, |at| at.line)
}

#[test]
fn the_site_and_why() {
    let config = "site { \"a.test\", respond(200) }\nsite { \"*.a.test\", respond(201) }\n\
                  site { \"*\", name = \"rest\", respond(202) }";
    for (url, matches, host, at, status) in [
        ("http://a.test/", "exact", "a.test", 1, 200),
        ("http://A.test./", "exact", "a.test", 1, 200),
        ("http://b.a.test/", "wildcard", "*.a.test", 2, 201),
        ("http://b.test/", "any", "*", 3, 202),
    ] {
        let told = told(config, url);
        let site = told.site.expect(url);
        assert_eq!((site.matches, &*site.host), (matches, host), "{url}");
        assert_eq!(line(site.at.as_ref()), at, "{url}");
        assert_eq!(told.answer.status, Some(status), "{url}");
        // Equal steps of other sites have places of their own.
        assert_eq!(line(told.answer.at.as_ref()), at, "{url}");
    }
    let none = told("site { \"a.test\", respond(200) }", "http://b.test/");
    assert!(none.site.is_none() && none.steps.is_empty());
    assert_eq!(none.answer.status, Some(404));
    assert_eq!(none.answer.reason, Some("unknown_host"));
    assert_eq!(
        none.answer.sentence,
        "answered with 404: No site answers for this host name"
    );
}

#[test]
fn a_path_alone_needs_one_site() {
    let one = told(
        "site { \"*.b.test\", \"a.test\", respond(200, \"$host\") }",
        "/x",
    );
    assert_eq!(one.request.host, "a.test");
    assert_eq!(
        told("site { \"*.b.test\", respond(200) }", "/")
            .request
            .host,
        "www.b.test"
    );
    let two = "site { \"a.test\", respond(200) } site { \"b.test\", respond(201) }";
    let why = try_told(two, "/x", None).expect_err("no host");
    assert_eq!(
        why,
        "there are several sites: a host is needed, as in http://a.test/x"
    );
    let host = told(two, "GET /x\nHost: b.test");
    assert_eq!(host.answer.status, Some(201));
}

#[test]
fn equal_steps_keep_their_own_lines() {
    let told = steps(
        "set(\"a\", \"1\"),\nroute \"/x\" { respond(200) },\nroute \"/y\" { respond(200) },\nrespond(404)",
        "/y",
    );
    assert_eq!(line(told.answer.at.as_ref()), 4);
    assert_eq!(
        told.answer.sentence,
        "answered by respond at forebay.lua:4 with 200"
    );
}

#[test]
fn conditions_and_which_of_them_decides() {
    let told = steps(
        r#"set("a", "1") { when = { path "/x", all { method "POST", query "q" } } },
           set("b", "1") { when = { path "/y", method "GET" } },
           set("c", "1") { when = none { query "z" } },
           respond(200)"#,
        "/y?z",
    );
    let when = |at: usize| told.steps[at].when.clone().expect("a condition");
    let first = when(0);
    assert!(!first.holds);
    assert_eq!(first.conditions[0].condition, "path \"/x\"");
    assert_eq!(first.conditions[1].of[0].condition, "method \"POST\"");
    // What is not looked at any more is not told.
    assert_eq!(first.conditions[1].of.len(), 1);
    assert_eq!(told.steps[0].does, Does::Skipped);
    let second = when(1);
    assert!(second.holds && second.conditions.len() == 1);
    assert!(!when(2).holds);
    assert!(told.steps[3].when.is_none());
}

#[test]
fn routes_that_were_tried() {
    let told = steps(
        r#"route "/a/*" { respond(200) }, route "*.php" { respond(200) },
           route "/u/:id" { when = method "POST", respond(200) },
           route { "/v", "/u/:id/*" } { set("a", "b"), respond(200) },
           route "/*" { respond(200) }"#,
        "/u/7",
    );
    let routes = &told.steps[0].routes;
    let said: Vec<(&str, bool, bool)> = routes
        .iter()
        .map(|one| (&*one.pattern, one.matches, one.takes))
        .collect();
    assert_eq!(
        said,
        [
            ("/a/*", false, false),
            ("*.php", false, false),
            ("/u/:id", true, false),
            ("/v", false, false),
            ("/u/:id/*", true, true),
        ]
    );
    assert_eq!(routes[0].why.as_deref(), Some("the path is not below it"));
    assert_eq!(routes[2].why.as_deref(), Some("its `when` does not hold"));
    assert_eq!(routes[4].params["id"], "7");
    assert_eq!(routes[4].rest.as_deref(), Some(""));
    assert_eq!(told.steps[0].does, Does::Enters);
    assert_eq!(told.steps[1].depth, 1);
}

#[test]
fn filters_change_what_follows() {
    let told = steps(
        r#"set("v", "$query.q"), rewrite("/a/*", "/b/$rest"),
           headers { request = { x_new = "$vars.v", x_old = false } },
           rewrite("/none", "/c"), limit { body = "1KB" },
           respond(200, "$path $headers.x_new")"#,
        "GET /a/x?q=1\nX-Old: 2",
    );
    expect(&told, "set", &["var: $vars.v = \"1\""]);
    expect(
        &told,
        "rewrite",
        &[
            "from: the path matches \"/a/*\"",
            "uri: /a/x?q=1 → /b/x?q=1",
            "from: \"/none\": no, the path is another",
        ],
    );
    expect(
        &told,
        "headers",
        &["field: - X-Old: 2", "field: + x-new: 1"],
    );
    expect(&told, "limit", &["body: at most 1KB of the request's"]);
    assert_eq!(told.answer.body_bytes, Some(6));
}

#[test]
fn who_may_and_who_may_not() {
    let config =
        r#"site { "*", deny { "192.0.2.0/24" }, allow { "10.0.0.0/8", "private" }, respond(200) }"#;
    let told = |client| try_told(config, "/", Some(client)).expect("told");
    let denied = told("192.0.2.7");
    expect(
        &denied,
        "deny",
        &["client: 192.0.2.7 is in \"192.0.2.0/24\"", "reason: "],
    );
    does(&denied, "deny", Does::Fails);
    assert_eq!(denied.answer.reason, Some("forbidden"));
    let stranger = told("198.51.100.1");
    expect(&stranger, "allow", &["is in none of them"]);
    assert_eq!(stranger.answer.by, Some("allow"));
    assert_eq!(told("10.1.1.1").answer.status, Some(200));
}

#[test]
fn who_is_trusted_speaks_for_others() {
    let config = r#"listen ":80" { trust = "127.0.0.1" } site { "*", respond(200) }"#;
    let told = told(
        config,
        "GET /\nX-Forwarded-For: 192.0.2.9\nX-Forwarded-Proto: https",
    );
    assert_eq!(
        (&*told.request.client, told.request.scheme),
        ("192.0.2.9", "https")
    );
}

#[test]
fn limits() {
    let told = steps(
        r#"limit { rate = "10/s", burst = 20, concurrency = 3, by = "$path" }, limit { body = "1KB" }, respond(200)"#,
        "POST /p\nContent-Length: 2000",
    );
    expect(
        &told,
        "limit",
        &[
            "key: \"/p\"",
            "rate: \"10/s\", 20 at once",
            "concurrency: 3 places",
            "body: 2000 bytes, of at most 1024",
        ],
    );
    assert_eq!(
        (told.answer.status, told.answer.by),
        (Some(413), Some("limit"))
    );
}

#[test]
fn passwords_and_tokens() {
    let dir = tempfile::tempdir().expect("a directory");
    let hash = bcrypt::hash_with_salt("x", 4, [1; 16]).expect("a hash");
    std::fs::write(dir.path().join("users"), format!("ann:{hash}\n")).expect("a file");
    let keys = include_str!("../steps/jwt/fixtures/keys.json");
    std::fs::write(dir.path().join("keys.json"), keys).expect("a file");
    let auth = format!(
        "basic_auth \"{}/users\", respond(200)",
        dir.path().display()
    );
    // ann:x, ann:y, eve:x
    for (value, status, said) in [
        (
            "\nAuthorization: Basic YW5uOng=",
            200,
            "\"ann\" is in the file",
        ),
        (
            "\nAuthorization: Basic YW5uOnk=",
            401,
            "\"ann\" is in the file",
        ),
        (
            "\nAuthorization: Basic ZXZlOng=",
            401,
            "\"eve\" is not in the file",
        ),
        ("", 401, "no name and password"),
    ] {
        let told = steps(&auth, &format!("GET /{value}"));
        expect(&told, "basic_auth", &[said]);
        assert_eq!(told.answer.status, Some(status), "{value}");
    }
    let jwt = format!("jwt \"{}/keys.json\", respond(200)", dir.path().display());
    let none = steps(&jwt, "/");
    expect(&none, "jwt", &["token: $headers.authorization holds none"]);
    let bad = steps(&jwt, "GET /\nAuthorization: Bearer a.b.c");
    expect(&bad, "jwt", &["holds one"]);
    assert_eq!(bad.answer.reason, Some("unauthorized"));
    // Keys are not fetched: the answer hangs on them.
    let away = steps(
        r#"jwt "https://id.test/keys", respond(200)"#,
        "GET /\nAuthorization: Bearer a.b.c",
    );
    does(&away, "jwt", Does::AsksLeave);
    assert!(
        away.answer
            .sentence
            .ends_with("if the server that jwt at forebay.lua:2 asks lets it pass")
    );
    // No secret is shown.
    let told = steps(&auth, "GET /\nAuthorization: Basic YW5uOng=");
    let text = render(&told, str::to_owned);
    assert!(!text.contains("YW5uOng="), "{text}");
}

#[test]
fn other_servers_are_not_asked() {
    let told = steps(
        r#"headers { response = { x_a = "b", server = false } }, compress,
           forward_auth "127.0.0.1:1" { uri = "/verify", copy = "Remote-User" },
           proxy "127.0.0.1:2" { host = "app.test", read_timeout = "5m" }"#,
        "GET /x?y\nRemote-User: forged\nAccept-Encoding: br\nCookie: a=secret",
    );
    expect(
        &told,
        "forward_auth",
        &[
            "request: GET /verify HTTP/1.1",
            "sends: X-Forwarded-Uri: /x?y",
            "field: - Remote-User: forged",
        ],
    );
    expect(
        &told,
        "proxy",
        &[
            "upstream: 127.0.0.1:2, by least_requests",
            "request: GET /x?y HTTP/1.1",
            "sends: Host: app.test",
            "sends: Cookie: (not shown)",
            "5m between bytes",
        ],
    );
    assert!(
        !notes(&told, "proxy")
            .iter()
            .any(|note| note.contains("forged"))
    );
    expect(
        &told,
        "compress",
        &["coding: br, if type and size are right"],
    );
    expect(
        &told,
        "headers",
        &["field: removes server", "field: sets x-a"],
    );
    assert_eq!((told.answer.status, told.answer.by), (None, Some("proxy")));
    assert_eq!(
        told.answer.sentence,
        "answered by the server that proxy at forebay.lua:4 asks, if the server that forward_auth \
         at forebay.lua:3 asks lets it pass"
    );
}

#[test]
fn peers_and_choices() {
    let config = r#"local app = upstream "app" { "127.0.0.1:1", "127.0.0.1:2", balance = "hash", by = "$path" }
        site { "*", limit { body = "1KB" }, proxy(app) }"#;
    let choice = |url: &str| {
        let notes = notes(&told(config, url), "proxy");
        let found = notes.iter().find(|note| note.starts_with("choice: "));
        found.expect("a choice").clone()
    };
    assert_eq!(choice("/a"), choice("/a"));
    let all: std::collections::BTreeSet<String> =
        (0..50).map(|n| choice(&format!("/{n}"))).collect();
    assert_eq!(all.len(), 2, "{all:?}");
    // A body of unknown length is let through by `limit`, and cut while it is sent.
    let chunked = told(config, "POST /\nTransfer-Encoding: chunked");
    expect(&chunked, "proxy", &["sends: Transfer-Encoding: chunked"]);
}

#[test]
fn files_and_where_they_are_looked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    };
    write("index.html", "hello");
    write("a.css", &"a{}".repeat(1000));
    write("a.css.br", "coded");
    write("sub/index.html", "sub");
    write("x.php", "<?");
    let files = format!(
        "files \"{}\" {{ try = {{ \"$path\", \"$path.html\" }}, max_age = \"1h\" }}",
        dir.path().display()
    );
    for (request, status, said) in [
        ("/", Some(200), "try: /index.html: a file of 5 bytes"),
        ("/index", Some(200), "found: /index.html"),
        ("HEAD /", Some(200), "body: 5 bytes"),
        (
            "/sub",
            Some(301),
            "found: a directory, asked for without its slash",
        ),
        ("/none", Some(404), "try: /none.html: not there"),
        ("/.env", Some(404), "names that begin with a dot are hidden"),
        ("/x.php", Some(404), "a name in it is among `hide`"),
        ("/a//b", Some(404), "a segment of it is empty"),
        ("/a%2fb", Some(404), "it names no file"),
        ("POST /", Some(405), "methods: only GET, HEAD, OPTIONS"),
        ("OPTIONS /", Some(204), "field: Allow: GET, HEAD, OPTIONS"),
        (
            "GET /a.css\nAccept-Encoding: br",
            Some(200),
            "coding: br, by the file beside it",
        ),
        (
            "GET /\nRange: bytes=1-2",
            Some(206),
            "field: Content-Range: bytes 1-2/5",
        ),
        ("GET /\nIf-None-Match: *", Some(304), "field: ETag"),
        (
            "/a.css",
            Some(200),
            "field: Cache-Control: public, max-age=3600",
        ),
    ] {
        let told = steps(&files, request);
        expect(&told, "files", &[said]);
        assert_eq!(told.answer.status, status, "{request}");
    }
    let gone = steps("files \"/nowhere/at/all\"", "/");
    expect(&gone, "files", &["root: /nowhere/at/all: "]);
    assert_eq!(gone.answer.by, None);
}

#[test]
fn the_way_back() {
    let text = "x".repeat(2000);
    let pipeline = format!(
        r#"access_log "stderr" {{ when = status "5xx" }},
           compress, cors {{ origins = "https://a.test" }}, security_headers,
           headers {{ response = {{ x_err = "1" }}, when = status "4xx" }},
           route "/big" {{ respond(200, "{text}") }}, respond(404)"#
    );
    let big = steps(
        &pipeline,
        "GET /big\nAccept-Encoding: gzip\nOrigin: https://a.test",
    );
    expect(
        &big,
        "compress",
        &[
            "coding: gzip: the client takes it",
            "field: + Content-Encoding: gzip",
        ],
    );
    expect(
        &big,
        "cors",
        &[
            "pages of https://a.test may read it",
            "+ Access-Control-Allow-Origin",
        ],
    );
    expect(
        &big,
        "security_headers",
        &["+ X-Content-Type-Options: nosniff"],
    );
    expect(&big, "headers", &["when: status \"4xx\" does not hold"]);
    expect(&big, "access_log", &["if its `when` holds"]);
    let order: Vec<&str> = big.response.iter().map(|one| one.step).collect();
    assert_eq!(order, ["headers", "security_headers", "cors", "compress"]);
    let small = steps(&pipeline, "GET /x\nOrigin: https://b.test");
    expect(&small, "cors", &["pages of https://b.test may not read it"]);
    expect(&small, "headers", &["status \"4xx\" holds", "+ x-err: 1"]);
    let preflight = steps(
        &pipeline,
        "OPTIONS /x\nOrigin: https://a.test\nAccess-Control-Request-Method: GET",
    );
    assert_eq!(
        (preflight.answer.status, preflight.answer.by),
        (Some(204), Some("cors"))
    );
    for (request, why) in [
        ("GET /big", "takes none of the codings"),
        ("GET /x\nAccept-Encoding: br", "media type is not among"),
        (
            "GET /big\nAccept-Encoding: br\nCache-Control: no-transform",
            "forbids it",
        ),
    ] {
        expect(&steps(&pipeline, request), "compress", &[why]);
    }
    expect(
        &steps(
            "compress, respond(200, \"short\")",
            "GET /\nAccept-Encoding: br",
        ),
        "compress",
        &["it is smaller than `min_size`"],
    );
}

#[test]
fn pages_of_errors() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("404.html"), "<p>gone").expect("a file");
    let file = format!("errors {{ [404] = \"{}/404.html\" }}", dir.path().display());
    let told = steps(&file, "/x");
    expect(
        &told,
        "errors",
        &["page: for 404: ", "+ Content-Type: text/html"],
    );
    assert_eq!(
        (told.answer.status, told.answer.body_bytes),
        (Some(404), Some(7))
    );
    let page = steps(
        "errors { [\"4xx\"] = { set(\"a\", \"b\"), respond(410, \"page\") } },\nrespond(403)",
        "/x",
    );
    expect(
        &page,
        "errors",
        &["page: for 4xx: a pipeline", "status: 403 → 410"],
    );
    assert_eq!(page.answer.status, Some(410));
    assert!(
        page.answer
            .sentence
            .ends_with("with the page of respond at forebay.lua:2")
    );
    // A page that another server makes is not asked for.
    let away = steps("errors { [404] = proxy \"127.0.0.1:1\" }", "/x");
    does(&away, "proxy", Does::Asks);
    assert_eq!(away.answer.status, None);
    assert!(away.answer.sentence.contains("in the place of a 404"));
    expect(&steps(&file, "/x"), "errors", &["404.html"]);
    expect(
        &steps(
            "errors { [404] = respond(404) }, proxy \"127.0.0.1:1\"",
            "/",
        ),
        "errors",
        &["leaves alone what an application answers"],
    );
}

#[test]
fn heads_that_are_refused() {
    let config = r#"listen ":80" { max_request_line = "1KB" } site { "*", respond(200) }"#;
    let long = format!("/{}", "x".repeat(2000));
    for (request, status, reason) in [
        ("/%00", 400, "bad_path"),
        ("/../x", 400, "path_above_root"),
        ("/%zz", 400, "bad_path"),
        ("GET /\nHost: a b", 400, "bad_request"),
        (
            "GET /\nContent-Length: 1\nTransfer-Encoding: chunked",
            400,
            "bad_request",
        ),
        ("GET /\nTransfer-Encoding: gzip", 501, "coding_unknown"),
        ("TRACE /", 405, "method_refused"),
        (&*long, 414, "target_too_long"),
    ] {
        let told = told(config, request);
        assert_eq!(
            (told.answer.status, told.answer.reason),
            (Some(status), Some(reason)),
            "{request}"
        );
        assert!(told.steps.is_empty());
    }
    let server = told(config, "OPTIONS *\nHost: a.test");
    assert_eq!(server.answer.status, Some(204));
}

#[test]
fn what_waits_for_a_disk_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("on-host.a"), "").expect("a file");
    let config = format!(
        "site {{ \"*\", set(\"v\", \"host.a\"), respond(503) {{ when = exists \"{}/on-$vars.v\" }}, respond(200) }}",
        dir.path().display()
    );
    assert_eq!(told(&config, "/").answer.status, Some(503));
}

#[test]
fn as_text_and_as_json() {
    let told = steps("respond(200, \"hi\")", "http://localhost/a");
    let text = render(&told, str::to_owned);
    assert_eq!(
        text,
        "GET http://localhost/a from 127.0.0.1\n\n\
         listener  :80\n\
         site      * (forebay.lua:1): localhost is every other name\n\
         path      /a\n\n\
         forebay.lua:2     respond(200, \"hi\")\n                    \
         Content-Type: text/plain; charset=utf-8\n                    body: 2 bytes\n                    \
         answers: 200\n\n  Content-Type: text/plain; charset=utf-8\n  2 bytes\n\
         answered by respond at forebay.lua:2 with 200\n"
    );
    let json = serde_json::to_value(&told).expect("JSON");
    assert_eq!(json["answer"]["status"], 200);
    assert_eq!(json["answer"]["by"], "respond");
    assert_eq!(json["steps"][0]["does"], "answers");
    assert_eq!(json["steps"][0]["at"]["line"], 2);
    // What a client sends reaches no terminal raw.
    let told = steps(
        "headers { request = { x_b = \"$headers.x_a\" } }, respond(200)",
        "GET /\nX-A: \u{9b}2J",
    );
    assert!(
        render(&told, str::to_owned).contains("+ x-b: \\u{9b}2J"),
        "{}",
        render(&told, str::to_owned)
    );
}

#[test]
fn what_only_the_running_server_has() {
    let told = steps(
        "limit { rate = \"1/m\", wait = \"5m\" },\nrespond(200)",
        "/",
    );
    assert_eq!(told.answer.status, Some(200));
    // The page comes to the same limit again, which has nothing left.
    let config = "local once = limit { rate = \"1/m\", wait = \"5m\" }\n\
                  site { \"*\", once, errors { [404] = { once, respond(404) } } }";
    let told = self::told(config, "/");
    let waits = told.steps.iter().filter(|step| step.does == Does::Waits);
    assert_eq!(waits.count(), 1);
    assert_eq!(told.answer.status, None);
    assert!(
        told.answer
            .sentence
            .contains("limit at forebay.lua:1 waits"),
        "{}",
        told.answer.sentence
    );
}

#[test]
fn pages_that_are_missing() {
    let told = steps("errors { [404] = \"/nowhere/404.html\" }", "/x");
    expect(&told, "errors", &["/nowhere/404.html: No such file"]);
    assert_eq!(told.answer.status, Some(404));
}

#[test]
fn a_cache_tells_its_key_and_what_is_stored() {
    let config = r#"cache { ignore_query = "utm_*", ttl = "10m", stale_if_error = "1h", key = "$cookies.c" },
        respond(200, "hello") { headers = { cache_tag = "a b", vary = "Accept-Language" } }"#;
    let answer = steps(config, "GET http://x.test/a?utm_id=1&b=2\nCookie: c=red");
    expect(
        &answer,
        "cache",
        &[
            "key: http://x.test/a?b=2",
            "store: default",
            "one request brings it in for all",
            "uri: /a?utm_id=1&b=2 → /a?b=2",
            "stored: yes: the configured ttl is for this status (configuration)",
            "fresh: for 600 s: the configured ttl, since the response states none (configuration)",
            "variants: one for each value of accept-language (RFC 9111 §4.1)",
            "tags: a b",
        ],
    );
    for (request, said) in [
        (
            "POST http://x.test/a",
            "goes round it: this method is not cached (RFC 9111 §3)",
        ),
        (
            "GET http://x.test/a\nIf-Match: \"1\"",
            "goes round it: If-Match",
        ),
        ("HEAD http://x.test/a", "HEAD is answered from a stored GET"),
        (
            "GET http://x.test/a\nCache-Control: no-store",
            "the request says no-store (RFC 9111 §5.2.1.5)",
        ),
        (
            "GET http://x.test/a\nCache-Control: only-if-cached",
            "only-if-cached: 504",
        ),
    ] {
        expect(&steps(config, request), "cache", &[said]);
    }
    let unshared = r#"cache, respond(200, "x") { headers = { cache_control = "private" } }"#;
    let answer = steps(unshared, "GET http://x.test/");
    let said = "stored: no: the response is for its user alone (RFC 9111 §5.2.2.7)";
    expect(&answer, "cache", &[said]);
    let elsewhere =
        r#"cache { bypass = cookie "s", stale_while_revalidate = "1m" }, proxy "127.0.0.1:1""#;
    let answer = steps(elsewhere, "GET http://x.test/");
    expect(
        &answer,
        "cache",
        &[
            "stored: unless it says no-store or private",
            "(RFC 9111 §4.2.1)",
            "stale: used for 60 s more while it is validated (RFC 5861 §3)",
        ],
    );
    let answer = steps(elsewhere, "GET http://x.test/\nCookie: s=1");
    expect(
        &answer,
        "cache",
        &["goes round it: a condition of bypass is true (configuration)"],
    );
}
