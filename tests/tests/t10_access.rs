//! Who may, how often and how much: limits and access control, with the real binary.

use std::time::{Duration, Instant};

use forebay_tests::load::{self, Load};
use forebay_tests::origin::script::Act;
use forebay_tests::{Gate, Origin, Request, Script, Server, wait};

/// A server for all hosts with this pipeline.
fn serve(pipeline: &str) -> Server {
    Server::start(&format!("site {{ \"*\",\n{pipeline}\n}}"))
}

#[test]
fn a_rate_is_exact_over_all_workers() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    let (rate, burst) = (1_000.0, 100.0);
    // A machine that stands still for a tenth of a second lets what was allowed then pass unused: it
    // may be less, but not every time. It is never more.
    load::best_of(5, || {
        let server = Server::builder(
            r#"site { "*", limit { rate = "1000/s", burst = 100 }, respond(200) }"#,
        )
        .workers(4)
        .start();
        let passed = Arc::new(AtomicU64::new(0));
        let client = server.client();
        let start = Instant::now();
        // Connections are dealt to the workers by the kernel: eight of them reach more than one.
        let load = Load::start(8, |_| {
            let (passed, mut conn) = (passed.clone(), client.connect());
            move || match conn.get("/").status() {
                200 => drop(passed.fetch_add(1, Relaxed)),
                status => assert_eq!(status, 429),
            }
        });
        wait::until("two seconds of load", || {
            start.elapsed() >= Duration::from_secs(2)
        });
        load.finish();
        let seconds = start.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let passed = passed.load(Relaxed) as f64;
        let most = burst + rate * seconds;
        let said = format!("{passed} of {most} in {seconds} s");
        assert!(passed <= most * 1.05, "{said}");
        if passed >= most * 0.95 {
            Ok(said)
        } else {
            Err(said)
        }
    });
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let server = serve(
        r#"route "/login" { limit { rate = "2/h", count = status "4xx" },
             respond(403) { when = query "wrong" }, respond(200) },
           errors { [429] = respond(429, "slow down") },
           limit { rate = "3/h" }, respond(200, "in"),"#,
    );
    let client = server.client();
    let statuses = [(); 4].map(|()| client.get("/").status());
    assert_eq!(statuses, [200, 200, 200, 429]);
    let refused = client.get("/").expect(429);
    assert_eq!(refused.text(), "slow down");
    let seconds: u64 = refused
        .field("retry-after")
        .map_or(0, |text| text.parse().unwrap_or(0));
    assert!((1_100..=1_200).contains(&seconds), "{seconds}");
    // Another client has an allowance of its own.
    assert_eq!(client.clone().from("127.0.0.9").get("/").status(), 200);
    // Only failed logins count.
    let login = |target: &str| client.get(target).status();
    assert_eq!([(); 5].map(|()| login("/login")), [200; 5]);
    assert_eq!([(); 3].map(|()| login("/login?wrong")), [403, 403, 429]);
    assert_eq!(login("/login"), 429);
}

#[test]
fn who_may_wait_is_held_and_not_refused() {
    let server = serve(r#"limit { rate = "20/s", burst = 1, wait = "20s" }, respond(200),"#);
    let start = Instant::now();
    let mut conn = server.client().connect();
    for _ in 0..10 {
        assert_eq!(conn.get("/").status(), 200);
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(449), "{took:?}");
}

#[test]
fn a_place_is_held_until_the_last_byte_and_given_on() {
    let gate = Gate::new();
    let slow = Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        .then(Act::Wait(gate.clone()))
        .send("cd");
    let never = Script::new().then(Act::Stall);
    let origin = Origin::setup()
        .route("/slow", slow)
        .route("/never", never)
        .start();
    let server = Server::before(
        &origin,
        r#"route "/waiting" { limit { concurrency = 1, wait = "20s", by = "one" }, respond(200) },
           route "/never" { limit { concurrency = 1, by = "two" },
             respond(200) { when = query "now" }, proxy "@origin@" },
           limit { concurrency = 1 }, proxy "@origin@","#,
    );
    let mut slow = server.client().connect();
    slow.send(&Request::get("/slow"));
    let (head, _) = slow.read_head();
    assert_eq!(head.status, 200);
    // Its head has come, its body not yet.
    let refused = server.client().get("/other").expect(429);
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(server.client().get("/waiting").status(), 200);
    gate.open();
    slow.expect_bytes(b"abcd");
    wait::until("the place is free again", || {
        server.client().get("/other").status() == 200
    });
    // One that leaves gives its place back as well.
    let mut gone = server.client().connect();
    gone.send(&Request::get("/never"));
    origin.wait_for("the request", |requests, _| {
        requests.iter().any(|request| request.target == "/never")
    });
    assert_eq!(server.client().get("/never?now").status(), 429);
    gone.abort();
    wait::until("the place is free again", || {
        server.client().get("/never?now").status() == 200
    });
}

#[test]
fn who_waits_for_a_place_gets_the_one_that_is_given_back() {
    let gate = Gate::new();
    let origin = Origin::setup()
        .route("/1", Script::ok("done").when(&gate))
        .route("/2", Script::ok("done"))
        .start();
    let server = Server::before(
        &origin,
        r#"limit { concurrency = 1, wait = "100ms" } { when = query "soon" },
           limit { concurrency = 1, wait = "20s" }, proxy "@origin@","#,
    );
    let (mut first, mut second) = (server.client().connect(), server.client().connect());
    first.send(&Request::get("/1?soon"));
    let _ = origin.wait_requests(1);
    second.send(&Request::get("/2"));
    second.wait_until_read();
    // Nobody waits for longer than it may.
    let start = Instant::now();
    assert_eq!(server.client().get("/3?soon").status(), 429);
    assert!(start.elapsed() >= Duration::from_millis(96));
    assert_eq!(origin.requests().len(), 1, "the second one waits");
    gate.open();
    assert_eq!(first.read_response().text(), "done");
    assert_eq!(second.read_response().text(), "done");
}

#[test]
fn a_body_goes_out_no_faster_than_allowed() {
    let server = Server::builder(
        r#"site { "*", limit { bandwidth = "15KB/s", after = "50KB" }, files "@dir@/www" }"#,
    );
    let body = vec![b'x'; 65 * 1024];
    let server = server.file("www/file", &body).start();
    let start = Instant::now();
    let got = server.client().get("/file").expect(200);
    let took = start.elapsed();
    assert!(got.body == body);
    assert_eq!(got.field("content-length"), Some("66560"));
    // 15 KB at 15 KB/s; all of it would take 4.3 s.
    assert!(took >= Duration::from_millis(800), "{took:?}");
    assert!(took <= Duration::from_millis(4_000), "{took:?}");
    let start = Instant::now();
    let part = Request::get("/file").field("Range", "bytes=0-40000");
    assert_eq!(
        server.client().request(&part).expect(206).body.len(),
        40_001
    );
    let took = start.elapsed();
    // At that rate it would take 2.6 s.
    assert!(took <= Duration::from_millis(2_400), "{took:?}");
}

#[test]
fn what_was_counted_outlives_a_reload() {
    let config =
        |more: &str| format!("site {{ \"*\", {more} limit {{ rate = \"1/h\" }}, respond(200) }}");
    let server = Server::start(&config(""));
    assert_eq!(server.client().get("/").status(), 200);
    server.reload_with(&config(r#"set("a", "b"),"#));
    assert_eq!(server.client().get("/").status(), 429);
}

#[test]
fn other_origins_and_careful_browsers() {
    let origin = Origin::setup()
        .handle(|_| Script::with_fields(200, "Access-Control-Allow-Origin: *\r\n", "body"))
        .start();
    let server = Server::before(
        &origin,
        r#"security_headers, cors { origins = "https://app.test", credentials = true },
           route "/closed" { respond(403) }, proxy "@origin@","#,
    );
    let ask = |method: &str, target: &str, from: &str| {
        let request = Request::new(method, target)
            .field("Origin", from)
            .field("Access-Control-Request-Method", "PUT");
        server.client().request(&request)
    };
    let allowed = "access-control-allow-origin";
    let preflight = ask("OPTIONS", "/x", "https://app.test").expect(204);
    assert_eq!(preflight.field(allowed), Some("https://app.test"));
    assert_eq!(preflight.field("x-content-type-options"), Some("nosniff"));
    origin.expect_untouched();
    let got = ask("GET", "/x", "https://app.test").expect(200);
    assert_eq!(got.field(allowed), Some("https://app.test"));
    assert_eq!(got.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(got.field("vary"), Some("Origin"));
    assert_eq!(ask("GET", "/x", "https://evil.test").field(allowed), None);
    let closed = ask("GET", "/closed", "https://app.test").expect(403);
    assert_eq!(closed.field(allowed), Some("https://app.test"));
    assert_eq!(closed.field("x-frame-options"), Some("SAMEORIGIN"));
}

/// `ann` with the password `secret`, as `htpasswd -nbB -C 5` of Apache 2.4 prints it.
const ANN: &str = "ann:$2y$05$gNlnQq4jLnIgjOpFUks7QeNedEoA4Zh54buWQVhHqmFnercPtWOq.\n";

/// The field's value for a name and a password.
fn basic(credentials: &str) -> String {
    use std::fmt::Write;
    // RFC 4648 §4, for a few letters.
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = String::from("Basic ");
    for three in credentials.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(*three.get(at).unwrap_or(&0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            let letter = if at > three.len() {
                '='
            } else {
                char::from(letter)
            };
            let _ = write!(value, "{letter}");
        }
    }
    value
}

#[test]
fn names_and_passwords() {
    let server = Server::builder(
        r#"site { "*", name = "docs", errors { [401] = respond(401, "who are you?") },
             basic_auth "users", respond(200, "in") }"#,
    )
    .file("users", ANN)
    .start();
    let ask = |credentials: &str| {
        let request = Request::get("/").field("Authorization", &basic(credentials));
        server.client().request(&request)
    };
    let nobody = server.client().get("/").expect(401);
    assert_eq!(nobody.text(), "who are you?");
    let asked = r#"Basic realm="docs", charset="UTF-8""#;
    assert_eq!(nobody.field("www-authenticate"), Some(asked));
    for (credentials, status) in [
        ("ann:secret", 200),
        ("ann:wrong", 401),
        ("eve:secret", 401),
        ("ann", 401),
        ("ann:secret", 200),
    ] {
        assert_eq!(ask(credentials).status(), status, "{credentials}");
    }
    // Many at once, right and wrong: nobody is mistaken for another.
    let client = server.client();
    let load = Load::start(4, |number| {
        let credentials = if number % 2 == 0 {
            "ann:secret"
        } else {
            "ann:Secret"
        };
        let status = if number % 2 == 0 { 200 } else { 401 };
        let request = Request::get("/").field("Authorization", &basic(credentials));
        let mut conn = client.connect();
        move || assert_eq!(conn.exchange(&request).status(), status)
    });
    wait::until("some hundred requests", || load.count() >= 200);
    load.finish();
    // Who is taken out of the file is out.
    server.file("users", ANN.replace("ann:", "bob:"));
    wait::until("the other file", || ask("bob:secret").status() == 200);
    assert_eq!(ask("ann:secret").status(), 401);
}

/// The same at cost 10.
const SLOW: &str = "ann:$2y$10$abcdefghijklmnopqrstuuqflPDzB6gcMhKa1rZqKiun2YGL5sa2u\n";

#[test]
fn what_is_sent_many_times_at_once_is_hashed_once() {
    // More than may wait to be hashed.
    const MANY: usize = 400;
    let server = Server::builder(r#"site { "*", basic_auth "users", respond(200, "in") }"#)
        .file("users", SLOW)
        .workers(2)
        .start();
    for (credentials, status) in [("ann:wrong", 401), ("eve:secret", 401), ("ann:secret", 200)] {
        let request = Request::get("/").field("Authorization", &basic(credentials));
        let client = server.client();
        let mut conns: Vec<_> = (0..MANY).map(|_| client.connect()).collect();
        conns.iter_mut().for_each(|conn| conn.send(&request));
        for conn in &mut conns {
            assert_eq!(conn.read_response().status(), status, "{credentials}");
        }
    }
}

#[test]
fn a_file_of_users_that_is_wrong_is_no_configuration() {
    let server = Server::start(r#"site { "*", respond(200, "old") }"#);
    server.file("users", format!("{ANN}bob\nsue:{{SHA}}x\n"));
    server.write_config(r#"site { "*", basic_auth "users", respond(200, "new") }"#);
    let output = server.reload();
    let said = output.stdout + &output.stderr;
    assert!(said.contains("users, line 2: there is no colon"), "{said}");
    assert!(
        said.contains("users, line 3: this kind of hash is not known"),
        "{said}"
    );
    assert_eq!(server.client().get("/").text(), "old");
}

#[test]
fn another_server_says_who_may() {
    let auth = Origin::setup()
        .handle(|request| match request.field("cookie") {
            Some("session=ann") => {
                Script::with_fields(200, "X-User: ann\r\nX-Group: a\r\nX-Group: b\r\n", "fine")
            }
            Some("session=none") => Script::status(204, ""),
            Some("session=large") => Script::pattern(3 << 20),
            Some("session=broken") => Script::raw("nonsense\r\n\r\n").close(),
            _ => Script::with_fields(302, "Location: /login\r\n", "log in"),
        })
        .start();
    let app = Origin::echo();
    let server = Server::builder(
        r#"site { "*", forward_auth "@auth@" { uri = "/verify?for=$uri", copy = { "X-User", "X-Group" } },
             proxy "@app@" }"#,
    )
    .origin("auth", &auth)
    .origin("app", &app)
    .start();
    let ask = |session: &str| {
        let request = Request::post("/x?a=1&b", "upload")
            .field("Cookie", &format!("session={session}"))
            .field("X-User", "root")
            .field("X-Forwarded-Uri", "/forged")
            .field("If-None-Match", "\"x\"");
        server.client().request(&request)
    };
    // Whoever does not get 2xx gets what the server has said, and the application hears nothing.
    let refused = ask("eve").expect(302);
    assert_eq!(
        (refused.field("location"), refused.text()),
        (Some("/login"), "log in")
    );
    assert_eq!(ask("broken").status(), 502);
    app.expect_untouched();
    let question = &auth.requests()[0];
    assert_eq!(
        (&*question.method, &*question.target),
        ("GET", "/verify?for=/x?a=1%26b")
    );
    assert_eq!(question.field("x-forwarded-uri"), Some("/x?a=1&b"));
    assert_eq!(question.field("x-forwarded-method"), Some("POST"));
    assert_eq!(question.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(question.field("if-none-match"), None);
    assert_eq!(question.field("content-length"), None);
    // Who does reaches the application with what the server says of them, and the body.
    assert_eq!(ask("ann").status(), 200);
    assert_eq!(ask("none").status(), 200);
    assert_eq!(ask("large").status(), 200);
    let seen = app.requests();
    assert_eq!(seen[0].target, "/x?a=1&b");
    assert_eq!(seen[0].body, b"upload");
    assert_eq!(seen[0].all("x-user"), ["ann"]);
    assert_eq!(seen[0].all("x-group"), ["a", "b"]);
    assert_eq!(seen[0].field("if-none-match"), Some("\"x\""));
    assert_eq!(seen[1].all("x-user"), [""; 0]);
    // Nobody takes off what the server says.
    let hidden = Request::get("/")
        .field("Cookie", "session=ann")
        .field("Connection", "x-user");
    assert_eq!(server.client().request(&hidden).status(), 400);
    // Without the server nobody passes.
    drop(auth);
    assert_eq!(ask("ann").status(), 502);
    assert_eq!(app.requests().len(), 3);
}

#[test]
fn what_is_logged_of_a_request_that_another_server_is_asked_about() {
    let gate = Gate::new();
    let auth = Origin::setup()
        .route("/slow", Script::status(204, "").when(&gate))
        .handle(|request| Script::status(if request.target == "/no" { 403 } else { 204 }, ""))
        .start();
    let server = Server::builder(
        r#"site { "*", access_log "log" { format = "$method $uri $status [$peer]" },
             route "/slow/*" { forward_auth "@auth@" { uri = "/slow" }, respond(200) },
             route "/errors" { errors { [403] = { rewrite "/slow", proxy "@auth@" } }, respond(403) },
             forward_auth "@auth@", respond(200, "in") }"#,
    )
    .origin("auth", &auth)
    .workers(1)
    .start();
    let lines = |count: usize| {
        wait::until_some("the lines", || {
            let log = std::fs::read_to_string(server.dir().join("log")).ok()?;
            let lines: Vec<String> = log.lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    };
    // Who has let it pass has not answered it; who has not, has.
    assert_eq!(server.client().get("/a").status(), 200);
    assert_eq!(server.client().get("/no").status(), 403);
    let refused = format!("GET /no 403 [{}]", auth.target());
    assert_eq!(lines(2), ["GET /a 200 []", &refused]);
    // Who leaves in the middle has asked for what it has asked for.
    let mut conn = server.client().connect();
    conn.send(&Request::new("DELETE", "/slow/x?a=1"));
    let _ = auth.wait_requests(3);
    conn.abort();
    let left = format!("DELETE /slow/x?a=1 499 [{}]", auth.target());
    assert_eq!(lines(3)[2], left);
    // Also where its body is still to be read.
    let mut conn = server.client().connect();
    conn.send(&Request::post("/errors?b=2", "upload"));
    let _ = auth.wait_requests(4);
    conn.abort();
    let left = format!("POST /slow?b=2 499 [{}]", auth.target());
    assert_eq!(lines(4)[3], left);
    gate.open();
}

#[test]
fn tokens() {
    // Made and signed by OpenSSL.
    let keys = include_str!("../../crates/forebay/src/steps/jwt/fixtures/keys.json");
    let tokens = include_str!("../../crates/forebay/src/steps/jwt/fixtures/tokens.txt");
    let app = Origin::echo();
    let server = Server::builder(
        r#"site { "*", jwt "keys.json" { issuer = "https://id.test", audience = "api" },
             headers { request = { x_user = "$vars.jwt_sub", authorization = false } },
             route "/admin" { respond(403) { when = none { var("jwt_admin", "true") } }, proxy "@app@" },
             proxy "@app@" }"#,
    )
    .file("keys.json", keys)
    .origin("app", &app)
    .start();
    let ask = |token: &str| {
        let request = Request::get("/admin")
            .field("Authorization", &format!("Bearer {token}"))
            .field("X-User", "root");
        server.client().request(&request)
    };
    let refused = server.client().get("/").expect(401);
    assert!(
        refused
            .field("www-authenticate")
            .is_some_and(|asked| asked.starts_with("Bearer "))
    );
    for (name, token) in tokens.lines().filter_map(|line| line.split_once(' ')) {
        let right = name != "CONFUSED";
        assert_eq!(ask(token).status(), if right { 200 } else { 401 }, "{name}");
        let cut = &token[..token.len() - 4];
        assert_eq!(ask(cut).status(), 401, "{name}");
    }
    let seen = app.requests();
    assert_eq!(seen.len(), 4);
    for request in &seen {
        assert_eq!(request.all("x-user"), ["ann"]);
        assert_eq!(request.field("authorization"), None);
    }
}
