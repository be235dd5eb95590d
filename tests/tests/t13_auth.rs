//! The step `fastcgi_auth`, before an Authorizer that says what the test has it say.

use forebay_tests::php::App;
use forebay_tests::server::run_in;
use forebay_tests::{Builder, Request, Server};

fn builder(authorizer: &App, rest: &str) -> Builder {
    Server::builder(&format!(
        "site {{ \"*\", fastcgi_auth \"@auth@\", {rest} }}"
    ))
    .set("auth", authorizer.target())
}

const ALLOWED: &str = "Status: 200 OK\r\nVariable-REMOTE_USER: ann\r\nVariable-GROUP: staff\r\n\
                       X-Other: no\r\n\r\n";

#[test]
fn fcgi_s6_3_what_an_authorizer_is_asked_and_what_becomes_of_its_answer() {
    let (auth, app) = (App::start(), App::start());
    let server = builder(
        &auth,
        "fastcgi \"@app@\" { env = { GROUP = \"by $vars.GROUP\" } }",
    )
    .set("app", app.target())
    .start();
    let mut client = server.client().connect();
    let request = Request::post("/a/b?c", "a body")
        .field("Authorization", "Basic YTpi")
        .field("Variable-REMOTE-USER", "forged");
    client.send(&request);
    let mut asked = auth.accept_authorizer();
    assert_eq!(asked.param("REQUEST_METHOD"), Some("POST"));
    assert_eq!(asked.param("REQUEST_URI"), Some("/a/b?c"));
    assert_eq!(asked.param("HTTP_AUTHORIZATION"), Some("Basic YTpi"));
    for hidden in [
        "CONTENT_LENGTH",
        "PATH_INFO",
        "PATH_TRANSLATED",
        "SCRIPT_NAME",
    ] {
        assert_eq!(asked.param(hidden), None, "{hidden}");
    }
    asked.answer(ALLOWED);
    let mut answering = app.accept();
    assert_eq!(
        answering.read_stdin(),
        b"a body",
        "the body is for who answers"
    );
    assert_eq!(answering.param("REMOTE_USER"), Some("ann"));
    assert_eq!(
        answering.param("GROUP"),
        Some("by staff"),
        "the operator's word is the last"
    );
    assert_eq!(answering.param("HTTP_VARIABLE_REMOTE_USER"), Some("forged"));
    assert_eq!(answering.param("HTTP_X_OTHER"), None);
    answering.answer("Content-Type: text/plain\r\n\r\nhello");
    let response = client.read_response().expect(200);
    assert_eq!(response.text(), "hello");
    assert_eq!(response.field("x-other"), None);
    // The authorizer's connection is kept.
    client.send(&Request::get("/next"));
    asked.read_params();
    assert_eq!(asked.param("REQUEST_URI"), Some("/next"));
    asked.answer("Status: 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nnot you");
    let refused = client.read_response().expect(403);
    assert_eq!(refused.text(), "not you");
}

#[test]
fn any_other_answer_is_the_clients_and_none_is_a_fault() {
    let auth = App::start();
    let server = builder(&auth, "respond(200, \"inside\")").start();
    for (answer, status, field) in [
        (
            "Status: 302 Found\r\nLocation: https://login.test/\r\n\r\n",
            302,
            Some("https://login.test/"),
        ),
        // Of an Authorizer a path is no other page to be served instead.
        ("Location: /login\r\n\r\n", 302, Some("/login")),
        ("Status: 204 None\r\n\r\n", 204, None),
        (
            "Status: 401 Who\r\nWWW-Authenticate: Basic\r\n\r\n",
            401,
            None,
        ),
        ("no head at all\r\n\r\n", 502, None),
    ] {
        let mut client = server.client().connect();
        client.send(&Request::get("/"));
        let mut asked = auth.accept_authorizer();
        asked.answer(answer);
        drop(asked);
        let response = client.read_response().expect(status);
        assert_eq!(response.field("location"), field, "{answer:?}");
        assert!(!response.text().contains("inside"), "{answer:?}");
    }
    let mut client = server.client().connect();
    client.send(&Request::get("/"));
    auth.accept_authorizer().answer("Status: 200 OK\r\n\r\n");
    assert_eq!(client.read_response().expect(200).text(), "inside");
    drop(auth);
    assert_eq!(server.client().get("/").expect(502).status(), 502);
}

#[test]
fn what_it_says_is_known_to_the_steps_below_and_to_logs() {
    let auth = App::start();
    let server = Server::builder(
        "site { \"*\", access_log \"access.log\" { format = \"combined\" },\n\
         fastcgi_auth \"@auth@\", respond(200, \"$vars.GROUP\") }",
    )
    .set("auth", auth.target())
    .start();
    let mut client = server.client().connect();
    client.send(&Request::get("/a"));
    let mut asked = auth.accept_authorizer();
    asked.answer(ALLOWED);
    assert_eq!(client.read_response().expect(200).text(), "staff");
    client.send(&Request::get("/b"));
    asked.read_params();
    // A name cannot be several fields of the line.
    asked.answer("Status: 200 OK\r\nVariable-REMOTE_USER: b - [\"\r\n\r\n");
    let _ = client.read_response().expect(200);
    let log = server.dir().join("access.log");
    for expected in ["127.0.0.1 - ann [", "127.0.0.1 - b\\x20-\\x20[\\x22 ["] {
        forebay_tests::wait::until("the lines", || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains(expected))
        });
    }
}

#[test]
fn below_a_cache_it_would_guard_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "site { \"*\", cache, fastcgi_auth \"127.0.0.1:1\", respond(200) }";
    std::fs::write(dir.path().join("forebay.lua"), text).expect("a file");
    let said = run_in(dir.path(), &["check", "forebay.lua"]).expect(2);
    assert!(said.stdout.contains("fastcgi_auth"), "{}", said.stdout);
}
