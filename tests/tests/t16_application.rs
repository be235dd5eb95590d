//! `listen { protocol = "fastcgi" }`: this server as the application of another one, record by
//! record.

use std::path::PathBuf;

use forebay_tests::client::Endpoint;
use forebay_tests::fcgi::{Front, begin, kind, pairs, record, request};
use forebay_tests::origin::script::Act;
use forebay_tests::server::Signal;
use forebay_tests::wait::until;
use forebay_tests::{Builder, Gate, Origin, Script, Server};

const ECHO: &str = "respond(200, \"$method $uri|$host|$scheme|$client_ip|$headers.x_test|$port\")";

fn builder(pipeline: &str) -> Builder {
    Server::builder(&format!(
        "listen \"unix:@dir@/app.sock\" {{ protocol = \"fastcgi\" }}\nsite {{ \"*\", {pipeline} }}"
    ))
}

fn start(pipeline: &str) -> Server {
    builder(pipeline).start()
}

fn socket(server: &Server) -> PathBuf {
    server.dir().join("app.sock")
}

fn front(server: &Server) -> Front {
    Front::unix(&socket(server))
}

const GET: &[(&str, &str)] = &[
    ("REQUEST_METHOD", "GET"),
    ("REQUEST_URI", "/a%20b?c=d"),
    ("HTTP_HOST", "example.com:8080"),
    ("HTTP_X_TEST", "t"),
    ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("REMOTE_ADDR", "192.0.2.7"),
    ("REMOTE_PORT", "1234"),
];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let changed = |name: &str| more.iter().any(|(other, _)| *other == name);
    let kept = GET.iter().copied().filter(|(name, _)| !changed(name));
    let mut params: Vec<_> = kept.collect();
    params.extend_from_slice(more);
    params
}

#[test]
fn a_request_is_answered_and_the_connection_kept_if_asked_for() {
    let server = start(ECHO);
    let mut web = front(&server);
    for _ in 0..3 {
        let answer = web.ask(GET, b"");
        assert_eq!(answer.end, Some(0));
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.body(),
            "GET /a%20b?c=d|example.com|http|192.0.2.7|t|8080"
        );
        assert!(answer.text().contains("\r\nContent-Length: "), "{answer:?}");
        assert!(!answer.text().contains("Connection:"), "{answer:?}");
    }
    // Without FCGI_KEEP_CONN the application closes (§5.1).
    web.send(&request(2, false, GET, b""));
    assert_eq!(web.answer(2).status(), 200);
    assert_eq!(web.read_record(), None);
}

#[test]
fn however_a_request_arrives_the_answer_is_the_same() {
    let server = start("respond(200, \"$method $uri\")");
    let bytes = request(1, true, GET, b"a body");
    let mut web = front(&server);
    web.send(&bytes);
    let whole = web.answer(1);
    assert_eq!(whole.status(), 200);
    for at in 1..bytes.len() {
        let (start, end) = bytes.split_at(at);
        web.send(start);
        web.send(end);
        assert_eq!(web.answer(1), whole, "split at {at}");
    }
    for byte in &bytes {
        web.send(&[*byte]);
    }
    assert_eq!(web.answer(1), whole);
}

#[test]
fn what_parameters_say_becomes_the_request() {
    let server = start(ECHO);
    let mut web = front(&server);
    for (params, expected) in [
        // RFC 3875: without a REQUEST_URI the target is made of what it was taken apart into.
        (
            with(&[
                ("REQUEST_URI", ""),
                ("SCRIPT_NAME", "/a"),
                ("PATH_INFO", "/ü %"),
                ("QUERY_STRING", "x=1"),
            ]),
            "GET /a/%C3%BC%20%25?x=1|example.com|http|192.0.2.7|t|8080",
        ),
        (
            with(&[("HTTPS", "on"), ("HTTP_HOST", "a")]),
            "GET /a%20b?c=d|a|https|192.0.2.7|t|443",
        ),
        (
            with(&[
                ("HTTP_HOST", ""),
                ("SERVER_NAME", "b"),
                ("SERVER_PORT", "81"),
                ("HTTPS", "off"),
            ]),
            "GET /a%20b?c=d|b|http|192.0.2.7|t|81",
        ),
        (
            with(&[("REMOTE_ADDR", "2001:db8::1"), ("HTTPS", "")]),
            "GET /a%20b?c=d|example.com|http|2001:db8::1|t|8080",
        ),
        (
            with(&[("REMOTE_ADDR", "unix:"), ("REQUEST_METHOD", "DELETE")]),
            "DELETE /a%20b?c=d|example.com|http||t|8080",
        ),
    ] {
        assert_eq!(web.ask(&params, b"").body(), expected, "{params:?}");
    }
}

#[test]
fn what_no_http_request_may_say_no_parameters_may_say() {
    let origin = Origin::always(Script::ok("reached"));
    let server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let mut web = front(&server);
    for (more, status) in [
        (&[("REQUEST_URI", "/a b")][..], 400),
        (&[("REQUEST_URI", "/a#b")], 400),
        (&[("REQUEST_URI", "/a\r\nX: y")], 400),
        (&[("REQUEST_URI", "a")], 400),
        (&[("REQUEST_URI", "/../a")], 400),
        (&[("REQUEST_METHOD", "")], 400),
        (&[("REQUEST_METHOD", "G T")], 400),
        (&[("HTTP_HOST", "a b")], 400),
        (&[("HTTP_HOST", "a"), ("HTTP_HOST", "b")], 400),
        (&[("HTTP_X_TEST", "a\r\nEvil: b")], 400),
        (&[("HTTP_X_TEST", "a\nEvil: b")], 400),
        (&[("HTTP_X:Y", "a")], 400),
        (&[("HTTP_A\r\nB", "a")], 400),
        (&[("CONTENT_LENGTH", "1, 1")], 400),
        (&[("CONTENT_LENGTH", "+1")], 400),
        (&[("CONTENT_LENGTH", "1"), ("CONTENT_LENGTH", "2")], 400),
        (&[("SERVER_NAME", "a\r\nb"), ("HTTP_HOST", "")], 400),
        (&[("REQUEST_URI", "/a\0b")], 400),
        (&[("REQUEST_URI", "/a%00b")], 400),
        (&[("REQUEST_URI", "/a\nb")], 400),
        (&[("HTTP_X_TEST", "a\0b")], 400),
        (&[("HTTP_X\0TEST", "a")], 400),
        (&[("HTTP_", "a")], 400),
        (&[("HTTP_HOST", "a\0")], 400),
        (&[("CONTENT_TYPE", "a/b\r\nEvil: c")], 400),
        (&[("CONTENT_LENGTH", "-1")], 400),
        (&[("CONTENT_LENGTH", "99999999999999999999")], 400),
    ] {
        let answer = web.ask(&with(more), b"");
        assert_eq!((answer.status(), answer.end), (status, Some(0)), "{more:?}");
    }
    let long = "x".repeat(20_000);
    let answer = web.ask(&with(&[("REQUEST_URI", &format!("/{long}"))]), b"");
    assert_eq!(answer.status(), 414);
    let field = "y".repeat(60_000);
    let large = with(&[("HTTP_A", &field), ("HTTP_B", &field)]);
    assert_eq!(web.ask(&large, b"").status(), 431);
    let names: Vec<String> = (0..600).map(|n| format!("HTTP_N{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    assert_eq!(web.ask(&with(&many), b"").status(), 431);
    assert_eq!(
        origin.requests().len(),
        0,
        "nothing of it reaches the origin"
    );
    // And the connection has survived all of it.
    assert_eq!(web.ask(GET, b"").body(), "reached");
}

#[test]
fn fields_of_the_clients_connection_stay_with_the_web_server() {
    let origin = Origin::always(Script::ok("x"));
    let server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let params = with(&[
        ("HTTP_CONNECTION", "close, x-test"),
        ("HTTP_TRANSFER_ENCODING", "chunked"),
        ("HTTP_UPGRADE", "websocket"),
        ("HTTP_PROXY", "http://evil"),
        ("HTTP_EXPECT", "100-continue"),
        ("HTTP_CONTENT_LENGTH", "7"),
        ("CONTENT_LENGTH", "4"),
        ("CONTENT_TYPE", "text/plain"),
        ("HTTP_CONTENT_TYPE", "text/plain"),
        ("REQUEST_METHOD", "POST"),
        ("HTTP_X_FORWARDED_FOR", "198.51.100.9"),
    ]);
    assert_eq!(front(&server).ask(&params, b"body").status(), 200);
    let seen = origin.only_request();
    let all = |name: &str| seen.all(name);
    assert_eq!(all("content-length"), ["4"]);
    assert_eq!(all("content-type"), ["text/plain"]);
    // RFC 9110 §7.6.1: what `Connection` names ends with the connection.
    for name in [
        "x-test",
        "connection",
        "proxy",
        "upgrade",
        "expect",
        "transfer-encoding",
    ] {
        assert_eq!(all(name), Vec::<&str>::new(), "{name}");
    }
    // The client has made that up: nobody has said that it may be believed.
    assert_eq!(all("x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(seen.body, b"body");
}

#[test]
fn who_is_not_trusted_is_not_believed_who_its_client_is() {
    let config = |trust: &str| {
        let text = format!(
            "listen \"@app@\" {{ protocol = \"fastcgi\", {trust} }}\nsite {{ \"*\", {ECHO} }}"
        );
        Server::builder(&text).free_address("app").start()
    };
    for (trust, expected) in [
        ("", "http|127.0.0.1"),
        ("trust = \"127.0.0.0/8\"", "https|192.0.2.7"),
    ] {
        let server = config(trust);
        let Endpoint::Tcp(addr) = *server.client_of("app").endpoint() else {
            panic!("it is a port");
        };
        let answer = Front::tcp(addr).ask(&with(&[("HTTPS", "on")]), b"");
        assert!(answer.body().contains(expected), "{trust}: {answer:?}");
    }
}

#[test]
fn a_body_has_the_length_that_was_said_or_is_refused() {
    let origin = Origin::always(Script::ok("got it"));
    let server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let ask = |len: &str, body: &[u8]| {
        let params = with(&[("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", len)]);
        front(&server).ask(&params, body)
    };
    let large = vec![b'x'; 1 << 20];
    assert_eq!(ask("4", b"four").status(), 200);
    assert_eq!(ask("1048576", &large).status(), 200);
    // Web servers that stream a body do not know its length.
    assert_eq!(ask("", &large).status(), 200);
    assert_eq!(ask("0", b"").status(), 200);
    let bodies: Vec<_> = origin
        .wait_requests(4)
        .into_iter()
        .map(|it| it.body)
        .collect();
    assert!(bodies == [b"four".to_vec(), large.clone(), large, Vec::new()]);
    assert_eq!(ask("5", b"four").status(), 400);
    assert_eq!(ask("3", b"four").status(), 400);
    let whole = |request: &forebay_tests::origin::Received| request.body_end == Some(Ok(()));
    let passed = origin.requests().into_iter().skip(4).filter(whole).count();
    assert_eq!(passed, 0, "no part passes for a whole");
}

#[test]
fn requests_at_once_on_one_connection_are_answered_each_by_its_own() {
    let gate = Gate::new();
    let slow = Script::new()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 300004\r\n\r\n")
        .send(vec![b's'; 300_000])
        .then(Act::Wait(gate.clone()))
        .send("slow");
    let origin = Origin::setup()
        .route("/slow", slow)
        .route("/fast", Script::ok("fast"))
        .start();
    let server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let mut web = front(&server);
    web.send(&request(7, true, &with(&[("REQUEST_URI", "/slow")]), b""));
    for id in 8..40 {
        web.send(&request(id, true, &with(&[("REQUEST_URI", "/fast")]), b""));
    }
    let mut bodies = std::collections::BTreeMap::<u16, Vec<u8>>::new();
    let mut ended = Vec::new();
    while ended.len() < 33 {
        let record = web.read_record().expect("a record");
        match record.kind {
            kind::STDOUT => bodies.entry(record.id).or_default().extend(record.content),
            kind::END => ended.push(record.id),
            _ => panic!("{record:?}"),
        }
        if ended.len() == 32 {
            gate.open();
        }
    }
    assert_eq!(
        ended.last(),
        Some(&7),
        "the slow one holds nobody up: {ended:?}"
    );
    for (id, body) in bodies {
        let end: &[u8] = if id == 7 { b"ssslow" } else { b"fast" };
        assert!(body.ends_with(end), "{id}");
        assert_eq!(body.len() > 300_000, id == 7);
    }
}

#[test]
fn an_abort_ends_its_request_only() {
    let origin = Origin::setup()
        .route("/endless", Script::pattern(1 << 40))
        .route("/fast", Script::ok("fast"))
        .start();
    let server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let mut web = front(&server);
    web.send(&request(
        1,
        true,
        &with(&[("REQUEST_URI", "/endless")]),
        b"",
    ));
    assert_eq!(web.read_record().expect("its head").kind, kind::STDOUT);
    web.send(&record(kind::ABORT, 1, b""));
    // §5.4: the answer to an abort is the request's end.
    let end = loop {
        let record = web.read_record().expect("a record");
        if record.kind == kind::END {
            break record;
        }
    };
    assert_eq!((end.id, end.content[4]), (1, 0));
    until("the origin to be left", || origin.open_connections() == 0);
    let answer = web.ask(&with(&[("REQUEST_URI", "/fast")]), b"");
    assert_eq!(answer.body(), "fast");
}

/// §5.4 among others: what is aborted ends, and the others on the connection do not notice.
#[test]
fn an_abort_of_one_among_others_is_its_own_only() {
    let gate = Gate::new();
    let slow = Script::new()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        .then(Act::Wait(gate.clone()))
        .send("done");
    let origin = Origin::setup()
        .route("/slow", slow)
        .route("/silent", Script::ok("never").when(&Gate::new()))
        .route("/endless", Script::pattern(1 << 40))
        .start();
    let server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let mut web = front(&server);
    let ask = |id: u16, uri: &str| request(id, true, &with(&[("REQUEST_URI", uri)]), b"");
    web.send(&ask(1, "/slow"));
    web.send(&ask(2, "/endless"));
    web.send(&ask(3, "/silent"));
    // One whose body has begun, and one whose parameters have.
    let params = with(&[("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "10")]);
    let mut begun = request(4, true, &params, b"begun");
    begun.truncate(begun.len() - 8);
    web.send(&begun);
    web.send(&begin(5, 1, true));
    web.send(&record(kind::PARAMS, 5, &pairs(GET)));
    until("all to be asked for", || origin.requests().len() == 4);
    for id in [3, 5, 4, 2, 77] {
        web.send(&record(kind::ABORT, id, b""));
    }
    let (mut ended, mut body) = (Vec::new(), Vec::new());
    while !ended.contains(&1) {
        let record = web.read_record().expect("a record");
        match (record.kind, record.id) {
            (kind::STDOUT, 1) => body.extend(record.content),
            (kind::STDOUT, id) => assert!(!ended.contains(&id), "{id} goes on behind its end"),
            (kind::END, id) => ended.push(id),
            _ => panic!("{record:?}"),
        }
        if ended.len() == 4 {
            gate.open();
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 2, 3, 4, 5]);
    assert!(body.ends_with(b"halfdone"));
    // One is kept, and the one of `/silent` does not look.
    until("the others to be left", || origin.open_connections() <= 2);
    // Their numbers are free again.
    web.send(&ask(2, "/slow"));
    assert!(web.answer(2).body().ends_with("halfdone"));
}

/// §3.3, §5.2: of parameters that are not about the request there may be more than a record.
#[test]
fn parameters_over_many_records_are_one_stream() {
    let server = start(ECHO);
    let mut web = front(&server);
    let long = "v".repeat(60_000);
    let params = with(&[
        ("DOCUMENT_ROOT", &long),
        ("SCRIPT_FILENAME", &long),
        ("X", "y"),
    ]);
    let block = pairs(&params);
    assert!(block.len() > 1 << 16);
    for size in [65_535, 60_001, 997] {
        let mut bytes = begin(1, 1, true);
        for part in block.chunks(size) {
            bytes.extend(record(kind::PARAMS, 1, part));
        }
        bytes.extend(record(kind::PARAMS, 1, b""));
        bytes.extend(record(5, 1, b""));
        web.send(&bytes);
        let answer = web.answer(1);
        assert!(answer.body().contains("192.0.2.7|t|"), "{size}: {answer:?}");
    }
}

#[test]
fn a_web_server_that_goes_takes_its_requests_with_it() {
    let origin = Origin::always(Script::pattern(1 << 40));
    let server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let mut web = front(&server);
    web.send(&request(
        1,
        true,
        &with(&[("REQUEST_URI", "/endless")]),
        b"",
    ));
    assert_eq!(web.read_record().expect("its head").kind, kind::STDOUT);
    drop(web);
    until("the origin to be left", || origin.open_connections() == 0);
}

#[test]
fn a_response_that_is_broken_off_has_no_end() {
    let origin = Origin::always(
        Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").close(),
    );
    let server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let mut web = front(&server);
    web.send(&request(1, true, GET, b""));
    let answer = web.answer(1);
    assert_eq!(answer.end, None, "the connection is closed instead");
    assert!(answer.text().ends_with("only this"), "{answer:?}");
}

#[test]
fn what_is_asked_of_the_application_itself() {
    let server = start(ECHO);
    let mut web = front(&server);
    // §4.1
    let asked = pairs(&[
        ("FCGI_MPXS_CONNS", ""),
        ("FCGI_MAX_REQS", ""),
        ("OTHER", ""),
    ]);
    web.send(&record(kind::GET_VALUES, 0, &asked));
    let values = web.read_record().expect("an answer");
    assert_eq!((values.kind, values.id), (kind::VALUES, 0));
    let text = String::from_utf8_lossy(&values.content).into_owned();
    assert!(text.contains("FCGI_MPXS_CONNS1"), "{text:?}");
    assert!(
        text.contains("FCGI_MAX_REQS") && !text.contains("OTHER"),
        "{text:?}"
    );
    // §4.2
    web.send(&record(99, 0, b"what?"));
    let unknown = web.read_record().expect("an answer");
    assert_eq!((unknown.kind, unknown.content[0]), (kind::UNKNOWN, 99));
    // §6.3, §6.4: neither an Authorizer nor a Filter.
    for role in [2, 3] {
        web.send(&begin(5, role, true));
        let end = web.read_record().expect("an answer");
        assert_eq!((end.kind, end.id, end.content[4]), (kind::END, 5, 3));
    }
    assert_eq!(web.ask(GET, b"").status(), 200);
    // What is no FastCGI ends the connection, and nothing else.
    web.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(web.read_record(), None);
    assert_eq!(front(&server).ask(GET, b"").status(), 200);
}

#[test]
fn more_requests_than_a_connection_may_have_are_refused() {
    let gate = Gate::new();
    let origin = Origin::always(Script::ok("done").when(&gate));
    let server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let mut web = front(&server);
    for id in 1..=101 {
        web.send(&request(id, true, GET, b""));
    }
    let end = web.read_record().expect("a refusal");
    assert_eq!((end.kind, end.id, end.content[4]), (kind::END, 101, 2));
    gate.open();
    let mut ended = 0;
    while ended < 100 {
        let record = web.read_record().expect("a record");
        ended += usize::from(record.kind == kind::END);
    }
}

#[test]
fn who_begins_and_does_not_go_on_is_closed() {
    let origin = Origin::always(Script::ok("x"));
    let text = "listen \"unix:@dir@/app.sock\" { protocol = \"fastcgi\", \
                header_timeout = \"1s\", body_timeout = \"1s\" }\n\
                site { \"*\", proxy \"@origin@\" }";
    let server = Server::builder(text).origin("origin", &origin).start();
    let mut web = front(&server);
    web.send(&begin(1, 1, true));
    assert_eq!(web.read_record(), None);
    // The body that does not come is its request's fault only.
    let mut web = front(&server);
    let params = with(&[("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "10")]);
    let mut bytes = request(1, true, &params, b"");
    bytes.truncate(bytes.len() - 8);
    web.send(&bytes);
    assert_eq!(web.answer(1).status(), 408);
    assert_eq!(web.ask(GET, b"").status(), 200);
}

#[test]
fn at_the_stop_what_is_under_way_is_finished() {
    let gate = Gate::new();
    let origin = Origin::always(Script::ok("done").when(&gate));
    let mut server = builder("proxy \"@origin@\"")
        .origin("origin", &origin)
        .start();
    let (mut idle, mut busy) = (front(&server), front(&server));
    assert_eq!(
        idle.ask(
            &with(&[("REQUEST_METHOD", "OPTIONS"), ("REQUEST_URI", "*")]),
            b""
        )
        .status(),
        204
    );
    busy.send(&request(1, true, GET, b""));
    until("the origin to be asked", || origin.requests().len() == 1);
    server.signal(Signal::TERM);
    assert_eq!(idle.read_record(), None);
    gate.open();
    assert_eq!(busy.answer(1).body(), "done");
    assert_eq!(busy.read_record(), None);
    assert!(server.wait_exit(forebay_tests::wait::PATIENCE).success());
}
