//! The steps that need no file and no origin: routes, conditions, templates, fields, errors.

use forebay_tests::{Client, Origin, Request, Response, Script, Server};

/// A server for all hosts with this pipeline.
fn serve(pipeline: &str) -> Server {
    Server::start(&format!("site {{ \"*\",\n{pipeline}\n}}"))
}

#[track_caller]
fn check(client: &Client, target: &str, status: u16, body: &str) {
    let response = client.get(target);
    assert_eq!(
        (response.status(), response.text()),
        (status, body),
        "{target}"
    );
}

#[test]
fn who_asks_for_pages_that_are_not_there_does_not_fill_the_log() {
    let server = Server::builder(r#"site { "*", respond(200) { file = "@dir@/pages/$rest" } }"#)
        .file("pages/a", "a")
        .start();
    let mut conn = server.client().connect();
    for number in 0..50 {
        let _ = conn.get(&format!("/{number}"));
    }
    server.wait_stderr("a page cannot be read");
    let count = server.stderr().matches("a page cannot be read").count();
    // One a second.
    assert!(count < 10, "{}", server.stderr());
}

#[test]
fn respond_answers() {
    let server = serve(
        r#"route "/a" { respond(200, "text") },
           route "/b" { respond(204) },
           route "/c" { respond(418, "I am $host") { headers = { x_a = "b", content_type = "text/x" } } },
           route "/f" { respond(503) { file = "@dir@/down.html", headers = { retry_after = "600" } } },"#,
    );
    server.file("down.html", "<p>down</p>");
    let client = server.client();
    check(&client, "/a", 200, "text");
    let empty = client.get("/b").expect(204);
    assert_eq!((empty.body.len(), empty.field("content-length")), (0, None));
    let teapot = client.get("/c").expect(418);
    assert_eq!(teapot.text(), "I am forebay.test");
    assert_eq!(
        (teapot.field("x-a"), teapot.field("content-type")),
        (Some("b"), Some("text/x"))
    );
    let down = client.get("/f").expect(503);
    assert_eq!(
        (down.text(), down.field("retry-after")),
        ("<p>down</p>", Some("600"))
    );
    assert!(
        down.field("content-type")
            .is_some_and(|t| t.starts_with("text/html"))
    );
}

#[test]
fn redirect_answers() {
    let server = serve(
        r#"route "/a" { redirect "/b" },
           route "/p" { redirect("https://$host$uri", 301) },
           route "/old/*" { redirect "/new/$rest" },"#,
    );
    let check = |target: &str, status, location: &str| {
        let response = server.client().get(target).expect(status);
        assert_eq!(response.field("location"), Some(location), "{target}");
    };
    check("/a", 302, "/b");
    check("/p?x=1", 301, "https://forebay.test/p?x=1");
    check("/old/a/b", 302, "/new/a/b");
    // Nothing that a remote sends may end the field.
    let response = server.client().get("/p?%0d%0aSet-Cookie:a").expect(301);
    assert_eq!(response.field("set-cookie"), None);
}

#[test]
fn the_first_route_that_matches_takes_the_request_for_good() {
    let server = serve(
        r#"route "/a/*" { route "/a/x" { respond(200, "inner") } },
           route { "/b", "/c/*" } { respond(200, "list") },
           route "*.php" { respond(200, "suffix") },
           route "/d/*.txt" { respond(200, "both") },
           route "/u/:id" { respond(200, "user $params.id") },
           route "/m" { when = method "POST", respond(200, "post") },
           route "/m" { respond(200, "other") },"#,
    );
    let client = server.client();
    check(&client, "/a/x", 200, "inner");
    assert_eq!(client.get("/a/y").status(), 404);
    check(&client, "/b", 200, "list");
    assert_eq!(client.get("/b/").status(), 404);
    for target in ["/c", "/c/", "/c/d", "/c/d/e?f"] {
        check(&client, target, 200, "list");
    }
    assert_eq!(client.get("/cd").status(), 404);
    check(&client, "/x/y.php", 200, "suffix");
    check(&client, "/d/a/b.txt", 200, "both");
    assert_eq!(client.get("/d/a.md").status(), 404);
    check(&client, "/u/42", 200, "user 42");
    assert_eq!(client.get("/u/42/x").status(), 404);
    assert_eq!(client.get("/u/").status(), 404);
    check(&client, "/m", 200, "other");
    assert_eq!(client.request(&Request::post("/m", "")).text(), "post");
}

#[test]
fn a_route_that_does_not_answer_leaves_nothing_for_later_ones() {
    let server =
        serve(r#"route "/a/*" { route "/a/x" { respond(200, "inner") } }, respond(200, "last")"#);
    check(&server.client(), "/a/x", 200, "inner");
    assert_eq!(server.client().get("/a/y").status(), 404);
    check(&server.client(), "/b", 200, "last");
}

#[test]
fn routes_match_the_normalised_path() {
    let server = serve(r#"route "/admin/*" { respond(403) }, respond(200)"#);
    for target in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/x/../admin/y",
        "/%61dmin/x",
        "/./admin",
    ] {
        assert_eq!(server.client().get(target).status(), 403, "{target}");
    }
    for target in ["/Admin", "/a%64minx", "/admin%2fx"] {
        assert_eq!(server.client().get(target).status(), 200, "{target}");
    }
}

#[test]
fn the_most_exact_host_wins_in_any_order() {
    let server = Server::start(
        r#"site { "*", respond(200, "any") } site { "*.test", respond(200, "test") }
           site { "*.a.test", respond(200, "a") } site { "b.a.test", respond(200, "b") }"#,
    );
    let ask = |host: &str| {
        server
            .client()
            .request(&Request::get("/").host(host))
            .text()
            .to_owned()
    };
    assert_eq!(ask("b.a.test"), "b");
    assert_eq!(ask("c.a.test"), "a");
    assert_eq!(ask("x.c.a.test"), "a");
    assert_eq!(ask("a.test"), "test");
    assert_eq!(ask("test"), "any");
    assert_eq!(ask("example.com"), "any");
}

#[test]
fn variables_in_templates() {
    let server = serve(
        r#"set("v", "set"),
           route "/rest/*" { respond(200, "[$rest]") },
           route "/cost" { respond(200, "$$5 ${host}x") },
           route "/all" { respond(200, "$method|$scheme|$host|$port|$path|$query_string|$uri|$client_ip|$client_net|$headers.x_a|$cookies.c|$query.q|$vars.v|$vars.w") },
           route "/re/*" { rewrite "/$rest", respond(200, "$path $original_uri") },
           route "/id" { respond(200, "$id") },"#,
    );
    let client = server.client();
    check(&client, "/rest/a/b", 200, "[a/b]");
    check(&client, "/rest", 200, "[]");
    check(&client, "/cost", 200, "$5 forebay.testx");
    let request = Request::get("/all?q=1%202&r=3")
        .host("Example.COM:8080")
        .field("X-A", "field")
        .field("Cookie", "b=1; c=cookie");
    let all = client.request(&request).expect(200);
    let want = "GET|http|example.com|8080|/all|q=1%202&r=3|/all?q=1%202&r=3|127.0.0.1|\
                127.0.0.1/32|field|cookie|1 2|set|";
    let got = all.text();
    // The network is an address and its length, however it is written.
    assert_eq!(
        got.replace("127.0.0.1/32", "127.0.0.1"),
        want.replace("127.0.0.1/32", "127.0.0.1")
    );
    check(&client, "/re/x?y=1", 200, "/x /re/x?y=1");
    let ids: Vec<String> = (0..3)
        .map(|_| client.get("/id").text().to_owned())
        .collect();
    assert!(
        ids.iter().all(|i| !i.is_empty()) && ids[0] != ids[1] && ids[1] != ids[2],
        "{ids:?}"
    );
}

#[test]
fn conditions() {
    let server = serve(
        r#"route "/path" { when = path { "/path", "/other" }, respond(200, "yes") },
           respond(200, "host") { when = host "*.h.test" },
           respond(200, "method") { when = method { "PUT", "DELETE" } },
           respond(200, "scheme") { when = scheme "https" },
           respond(200, "has x") { when = header "x-a" },
           respond(200, "x is") { when = header("x-b", "abc*") },
           respond(200, "cookie") { when = cookie { "session_*" } },
           respond(200, "query") { when = query("debug", "1") },
           respond(200, "regex") { when = header("x-c", regex [[^\d+$]]) },
           respond(200, "all") { when = all { header "x-d", header "x-e" } },
           respond(200, "none") { when = all { header "x-f", none { header "x-g", header "x-h" } } },
           respond(200, "client") { when = client "127.0.0.9" },
           respond(200, "exists") { when = exists "@dir@/flag" },
           set("seen", "yes") { when = header "x-v" },
           respond(200, "var") { when = var("seen", "yes") },
           respond(200, "list") { when = { header "x-i", header "x-j" } },
           respond(200, "else"),"#,
    );
    let client = server.client();
    let ask = |request: Request| client.request(&request).text().to_owned();
    let with = |name: &str, value: &str| ask(Request::get("/").field(name, value));
    assert_eq!(ask(Request::get("/path")), "yes");
    assert_eq!(ask(Request::get("/").host("a.h.test")), "host");
    assert_eq!(ask(Request::new("PUT", "/")), "method");
    assert_eq!(ask(Request::get("/")), "else");
    assert_eq!(with("X-A", "anything"), "has x");
    assert_eq!(with("X-B", "abcdef"), "x is");
    assert_eq!(with("X-B", "xabc"), "else");
    assert_eq!(with("Cookie", "a=b; session_1=c"), "cookie");
    assert_eq!(with("Cookie", "a=session_1"), "else");
    assert_eq!(ask(Request::get("/?debug=1")), "query");
    assert_eq!(ask(Request::get("/?debug=2")), "else");
    assert_eq!(ask(Request::get("/?x&debug=%31")), "query");
    assert_eq!(with("X-C", "123"), "regex");
    assert_eq!(with("X-C", "123a"), "else");
    assert_eq!(with("X-D", ""), "else");
    assert_eq!(
        ask(Request::get("/").field("X-D", "1").field("X-E", "1")),
        "all"
    );
    assert_eq!(with("X-F", "1"), "none");
    assert_eq!(
        ask(Request::get("/").field("X-F", "1").field("X-H", "1")),
        "else"
    );
    assert_eq!(client.clone().from("127.0.0.9").get("/").text(), "client");
    assert_eq!(with("X-V", "1"), "var");
    assert_eq!(with("X-J", "1"), "list");
    server.file("flag", "");
    forebay_tests::wait::until("the file to be seen", || client.get("/").text() == "exists");
    std::fs::remove_file(server.dir().join("flag")).expect("the file");
    forebay_tests::wait::until("the file to be missed", || client.get("/").text() == "else");
}

#[test]
fn share_divides() {
    let server =
        serve(r#"respond(200, "a") { when = share("30%", "$query.k") }, respond(200, "b")"#);
    let mut conn = server.client().connect();
    let mut count = 0;
    for i in 0..1000 {
        let target = format!("/?k={i}");
        let first = conn.get(&target).text().to_owned();
        assert_eq!(
            conn.get(&target).text(),
            first,
            "the same key has the same share"
        );
        count += usize::from(first == "a");
    }
    assert!((200..400).contains(&count), "{count} of 1000");
}

#[test]
fn headers_change_requests() {
    let origin = Origin::echo();
    let server = Server::before(
        &origin,
        r#"headers { request = { x_set = "new $host", x_gone = false, x_list = { "a", "b" },
             x_more = add "2", x_default = default "d", x_kept = default "d", x_empty = "" } },
           proxy "@origin@""#,
    );
    let request = Request::get("/")
        .field("X-Set", "old")
        .field("X-Gone", "1")
        .field("X-More", "1")
        .field("X-Kept", "mine")
        .field("X-Empty", "1");
    let _ = server.client().request(&request).expect(200);
    let seen = origin.only_request();
    assert_eq!(seen.all("x-set"), ["new forebay.test"]);
    assert_eq!(seen.all("x-gone"), [""; 0]);
    assert_eq!(seen.all("x-list"), ["a", "b"]);
    assert_eq!(seen.all("x-more"), ["1", "2"]);
    assert_eq!(seen.all("x-default"), ["d"]);
    assert_eq!(seen.all("x-kept"), ["mine"]);
    assert_eq!(seen.all("x-empty"), [""; 0]);
}

#[test]
fn headers_change_responses() {
    let fields = "X-Old: 1\r\nServer: old\r\nX-More: 1\r\nX-Kept: mine\r\n";
    let origin = Origin::always(Script::with_fields(200, fields, "body"));
    let server = Server::before(
        &origin,
        r#"headers { response = { x_old = false, server = false, x_more = add "2",
             x_kept = default "d", x_default = default "d", x_status = "$status" } },
           headers { response = { x_err = "1" }, when = status "5xx" },
           headers { response = { x_fine = "1" }, when = status { 200, 204 } },
           proxy "@origin@""#,
    );
    let response = server.client().get("/").expect(200);
    let all = |name: &str| response.head.all(name).join(",");
    assert_eq!(all("x-old") + &all("server") + &all("x-err"), "");
    assert_eq!(all("x-more"), "1,2");
    assert_eq!(
        (all("x-kept"), all("x-default")),
        ("mine".into(), "d".into())
    );
    assert_eq!((all("x-status"), all("x-fine")), ("200".into(), "1".into()));
}

#[test]
fn no_template_can_end_a_field() {
    let origin = Origin::echo();
    let server = Server::before(
        &origin,
        r#"headers { request = { x_q = "$query.q" }, response = { x_q = "$query.q" } },
           proxy "@origin@""#,
    );
    let response = server.client().get("/?q=a%0d%0aEvil:%20b%00c");
    assert_eq!(response.field("evil"), None);
    for request in origin.requests() {
        assert_eq!(request.field("evil"), None);
        assert!(!request.raw.windows(5).any(|w| w == b"\nEvil"));
    }
}

#[test]
fn rewrite_changes_what_the_steps_below_see() {
    let origin = Origin::echo();
    let server = Server::before(
        &origin,
        r#"route "/strip/*" { rewrite "/$rest", proxy "@origin@" },
           route "/add/*" { rewrite "/pre$path", proxy "@origin@" },
           route "/query/*" { rewrite "/q?p=$rest", proxy "@origin@" },
           route "/re/*" { rewrite(regex [[^/re/(\d+)-(\w+)$]], "/item/$2/$1"), proxy "@origin@" },
           rewrite("/from/*", "/to/$rest"), proxy "@origin@""#,
    );
    let client = server.client();
    check(&client, "/strip/a/b?c=d", 200, "GET /a/b?c=d");
    check(&client, "/strip", 200, "GET /");
    check(&client, "/add/x", 200, "GET /pre/add/x");
    check(&client, "/query/x?old=1", 200, "GET /q?p=x");
    check(&client, "/re/12-abc?x", 200, "GET /item/abc/12?x");
    check(&client, "/re/other", 200, "GET /re/other");
    check(&client, "/from/a", 200, "GET /to/a");
    check(&client, "/else", 200, "GET /else");
    let stripped = &origin.requests()[0];
    assert_eq!(stripped.field("x-forwarded-prefix"), Some("/strip"));
    // A prefix that the client claims is not believed.
    let request = Request::get("/else").field("X-Forwarded-Prefix", "/evil");
    let _ = client.request(&request).expect(200);
    assert_eq!(
        origin
            .requests()
            .last()
            .expect("a request")
            .field("x-forwarded-prefix"),
        None
    );
}

#[test]
fn allow_and_deny_go_by_address() {
    let server = serve(
        r#"route "/in" { allow { "127.0.0.0/30", "10.0.0.0/8" }, respond(200) },
           route "/out" { deny "127.0.0.2", respond(200) },
           route "/private" { allow "private", respond(200) },"#,
    );
    let ask = |from: &str, target: &str| server.client().from(from).get(target).status();
    assert_eq!(ask("127.0.0.1", "/in"), 200);
    assert_eq!(ask("127.0.0.3", "/in"), 200);
    assert_eq!(ask("127.0.0.4", "/in"), 403);
    assert_eq!(ask("127.0.0.1", "/out"), 200);
    assert_eq!(ask("127.0.0.2", "/out"), 403);
    assert_eq!(ask("127.0.0.2", "/private"), 200);
    // What a client claims about itself changes nothing.
    let claim = Request::get("/in").field("X-Forwarded-For", "127.0.0.1");
    let claim = claim.field("Forwarded", "for=127.0.0.1");
    assert_eq!(
        server.client().from("127.0.0.4").request(&claim).status(),
        403
    );
}

fn kind(response: &Response) -> &str {
    response.field("content-type").unwrap_or_default()
}

#[test]
fn built_in_error_pages_go_by_accept() {
    let server = serve(r#"route "/x" { respond(200) }"#);
    let ask = |accept: &str| {
        let mut request = Request::get("/nothing");
        if !accept.is_empty() {
            request = request.field("Accept", accept);
        }
        server.client().request(&request).expect(404)
    };
    let html = ask("text/html,application/xhtml+xml,*/*;q=0.8");
    assert!(kind(&html).starts_with("text/html"), "{}", kind(&html));
    assert!(html.text().contains("404"));
    let json = ask("application/json");
    assert!(kind(&json).contains("json"), "{}", kind(&json));
    let value: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
    assert_eq!(value["status"], 404);
    let text = ask("text/plain");
    assert!(kind(&text).starts_with("text/plain"), "{}", kind(&text));
    assert!(text.text().contains("404"));
    let json = ask("text/html;q=0.1, application/json");
    assert!(kind(&json).contains("json"), "{}", kind(&json));
    let _ = ask("");
    let _ = ask("*/*");
    // Nothing of the request's own comes back unescaped.
    let got = server.client().request(
        &Request::get("/<script>alert(1)</script>".replace('<', "%3C").as_str())
            .field("Accept", "text/html"),
    );
    assert!(!got.text().contains("<script>"));
}

#[test]
fn errors_are_replaced() {
    let origin = Origin::always(Script::status(404, "the application's own"));
    let server = Server::builder(
        r#"site { "*",
             errors { [404] = "@dir@/404.html", ["5xx"] = { respond(200, "sorry for $original_uri") } },
             route "/app" { proxy "@origin@" },
             route "/down" { proxy "@dead@" },
             route "/intercept" { errors { [404] = "@dir@/app.html", intercept = true }, proxy "@origin@" },
             route "/else" { respond(403) } }"#,
    )
    .origin("origin", &origin)
    .free_address("dead")
    .file("404.html", "<p>own 404</p>")
    .file("app.html", "<p>intercepted</p>")
    .start();
    let client = server.client();
    let missing = client.get("/nothing").expect(404);
    assert_eq!(missing.text(), "<p>own 404</p>");
    assert!(kind(&missing).starts_with("text/html"));
    assert_eq!(
        client.get("/app").expect(404).text(),
        "the application's own"
    );
    assert_eq!(
        client.get("/intercept").expect(404).text(),
        "<p>intercepted</p>"
    );
    check(&client, "/down", 200, "sorry for /down");
    assert_eq!(client.get("/else").status(), 403);
    // HEAD stays HEAD.
    let head = client.request(&Request::head("/nothing")).expect(404);
    assert_eq!(head.body, b"");
    // A file that is gone must not loop.
    std::fs::remove_file(server.dir().join("404.html")).expect("the file");
    assert_eq!(client.get("/nothing").status(), 404);
}

#[test]
fn limit_takes_its_status_and_when() {
    let server = serve(
        r#"limit { body = "10B", when = path "/small" },
           route "/small" { respond(200) }, route "/big" { respond(200) },"#,
    );
    let post = |target: &str| {
        server
            .client()
            .request(&Request::post(target, [b'x'; 100]))
            .status()
    };
    assert_eq!(post("/small"), 413);
    assert_eq!(post("/big"), 200);
}

#[test]
fn steps_are_kept_and_varied() {
    let server = serve(
        r#"(function()
             local base = respond(200, "base")
             local loud = base { headers = { x_loud = "1" } }
             return { route "/a" { base }, route "/b" { loud } }
           end)(),"#,
    );
    assert_eq!(server.client().get("/a").expect(200).field("x-loud"), None);
    assert_eq!(
        server.client().get("/b").expect(200).field("x-loud"),
        Some("1")
    );
}

#[test]
fn metrics_are_prometheus_text() {
    let server = serve(r#"route "/metrics" { metrics }, respond(200)"#);
    for _ in 0..5 {
        let _ = server.client().get("/").expect(200);
    }
    let metrics = server.client().get("/metrics").expect(200);
    assert!(kind(&metrics).starts_with("text/plain") || kind(&metrics).contains("openmetrics"));
    let text = metrics.text();
    assert!(
        text.contains("# TYPE") && text.contains("forebay_"),
        "{text}"
    );
}
