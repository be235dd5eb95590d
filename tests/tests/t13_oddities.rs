//! The step `fastcgi`, and what is odd about PHP and other applications: what php-fpm's own
//! regression tests, and the bugs of those who have spoken with it, have taught.

use std::os::unix::fs::symlink;

use forebay_tests::peers::Nginx;
use forebay_tests::php::{App, PhpFpm, record};
use forebay_tests::{Builder, Request, Response, Server, wait};

const OK: &str = "Content-Type: text/plain\r\n\r\nhello";

fn builder(php: &PhpFpm, pipeline: &str) -> Builder {
    Server::builder(&format!("site {{ \"*\", {pipeline} }}"))
        .set("php", php.target())
        .set("root", php.root())
}

fn plain(php: &PhpFpm) -> Server {
    builder(php, r#"fastcgi "@php@" { root = "@root@" }"#).start()
}

/// PHP's FastCGI reads each record of parameters for itself: a pair that goes on in the next one is
/// a broken request to it.
#[test]
fn parameters_of_more_than_a_record_reach_php() {
    let script = "<?php echo strlen($_SERVER['REQUEST_URI']), ' ', strlen($_SERVER['HTTP_X_FIELD_69']),\
        ' ', $_SERVER['HTTP_X_LAST'], ' ', file_get_contents('php://input');";
    let php = PhpFpm::start(1, &[("a.php", script)]);
    let server = plain(&php);
    let mut conn = server.client().connect();
    // The border of the first record falls everywhere in a pair, its lengths and its name.
    for len in (13_000..13_800).step_by(13) {
        let target = format!("/a.php?{}", "q".repeat(len));
        let mut request = Request::post(&target, "a body");
        for number in 0..70 {
            request = request.field(&format!("X-Field-{number}"), &"v".repeat(620));
        }
        request = request.field("X-Last", "last");
        let expected = format!("{} 620 last a body", target.len());
        assert_eq!(conn.exchange(&request).expect(200).text(), expected);
    }
}

/// What a script says with `header()`, and what nginx makes of the same.
#[test]
fn statuses_and_fields_as_php_says_them() {
    let says = "<?php foreach ($_GET as $line) { header($line, false); } echo 'body';";
    let php = PhpFpm::start(
        4,
        &[
            ("says.php", says),
            ("empty.php", "<?php"),
            (
                "code.php",
                "<?php http_response_code((int) $_GET['c']); echo 'body';",
            ),
            ("gone.php", "<?php echo 'all'; exit(3);"),
            (
                "fatal.php",
                "<?php echo str_repeat('x', 100); no_such_function();",
            ),
            ("early.php", "<?php no_such_function();"),
            (
                "long.php",
                "<?php header('X-Long: ' . str_repeat('y', 20000)); echo 'body';",
            ),
            (
                "many.php",
                "<?php for ($i = 0; $i < 90; $i++) { header(\"X-$i: $i\"); } echo 'body';",
            ),
            (
                "zip.php",
                "<?php ini_set('zlib.output_compression', 1); echo str_repeat('z', 5000);",
            ),
            ("newline.php", "<?php echo \"\\n\\n body\";"),
            (
                "none.php",
                "<?php header_remove(); ini_set('default_mimetype', ''); echo 'body';",
            ),
        ],
    );
    let server = plain(&php);
    let nginx = Nginx::start(
        &format!(
            "location / {{ include /etc/nginx/fastcgi_params; fastcgi_pass {}; \
             fastcgi_buffers 8 64k; fastcgi_buffer_size 64k; \
             fastcgi_param SCRIPT_FILENAME {}$fastcgi_script_name; }}",
            php.target(),
            php.root()
        ),
        &[],
    );
    let shown = |response: Response| {
        let fields = [
            "content-type",
            "location",
            "x-long",
            "x-89",
            "content-encoding",
            "x-a",
            "x-b",
        ];
        let fields = fields.map(|name| format!("{:?}", response.head.all(name)));
        (response.status(), fields, response.body)
    };
    for (target, status) in [
        ("/says.php?a=Status:%20404%20Not%20Found", 404),
        ("/says.php?a=HTTP/1.1%20410%20Gone", 410),
        ("/says.php?a=Status:%20500%20A%20word", 500),
        ("/says.php?a=Location:%20/x&b=Status:%20303%20S", 303),
        ("/says.php?a=Status:%20303%20S&b=Location:%20/x", 303),
        ("/says.php?a=Location:%20https://b.test/", 302),
        ("/says.php?a=Location:%20//b.test/", 302),
        ("/says.php?a=HTTP/1.1%20201%20Made&b=Location:%20/x", 201),
        ("/says.php?a=HTTP/1.1%20307%20T&b=Location:%20/x", 307),
        ("/says.php?a=X-A:&b=X-B:%20%20%20two%20", 200),
        ("/says.php?a=X-A:%20%C3%BC", 200),
        ("/says.php?a=content-type:text/plain", 200),
        ("/says.php?a=Content-Type:%20a/b&b=X-A:%201&c=X-A:%202", 200),
        ("/code.php?c=404", 404),
        ("/code.php?c=204", 204),
        ("/code.php?c=304", 304),
        ("/empty.php", 200),
        ("/gone.php", 200),
        ("/fatal.php", 200),
        ("/early.php", 500),
        ("/long.php", 200),
        ("/many.php", 200),
        ("/zip.php", 200),
        ("/newline.php", 200),
    ] {
        let request = Request::get(target).field("Accept-Encoding", "gzip");
        let ours = server.client().request(&request).expect(status);
        let theirs = nginx.client().request(&request);
        assert_eq!(shown(ours), shown(theirs), "{target}");
    }
    // nginx passes these on without the space that HTTP/1.1 has behind the number.
    for (target, status) in [
        ("/says.php?a=Status:%20404", 404),
        ("/says.php?a=HTTP/1.0%20410", 410),
        ("/code.php?c=299", 299),
        ("/code.php?c=599", 599),
    ] {
        let got = server.client().get(target).expect(status);
        assert_eq!(got.text(), "body", "{target}");
    }
    // None of these is a status of a final response.
    for code in [100, 101, 600, 999] {
        let target = format!("/says.php?a=HTTP/1.1%20{code}%20Odd");
        assert_eq!(server.client().get(&target).status(), 502, "{code}");
    }
    assert_eq!(server.client().get("/empty.php").expect(200).body, b"");
    // RFC 3875 §6.2: a response has at least one field.
    assert_eq!(server.client().get("/none.php").status(), 502);
}

#[test]
fn heads_in_pieces_with_words_for_the_log_between() {
    let app = App::start();
    let server = Server::builder("site { \"*\", fastcgi \"@app@\" { retries = 0 } }")
        .set("app", app.target())
        .start();
    let ask = || {
        let mut conn = server.client().connect();
        conn.send(&Request::get("/"));
        let mut asked = app.accept();
        let _ = asked.read_stdin();
        (conn, asked)
    };
    // Its complaints come in the middle of a name, of a value, of the line's end, before and behind.
    let (mut conn, mut asked) = ask();
    for piece in [
        "Content-T",
        "ype: text/",
        "plain\r",
        "\nX-A: 1\r\n\r",
        "\nhe",
        "llo",
    ] {
        asked.stderr("PHP Warning: in the midst\n");
        asked.stdout(piece);
    }
    asked.stderr("and behind");
    asked.end();
    let got = conn.read_response().expect(200);
    assert_eq!(
        (got.text(), got.field("content-type"), got.field("x-a")),
        ("hello", Some("text/plain"), Some("1"))
    );
    server.wait_stderr("in the midst");
    server.wait_stderr("and behind");
    drop(asked);
    // A line of 40 KB, in records that end anywhere; lines that end with LF and CRLF alike.
    let (mut conn, mut asked) = ask();
    let long = "y".repeat(40_000);
    for piece in format!("X-A: {long}\nX-B: 2\r\n\n\nbody")
        .as_bytes()
        .chunks(997)
    {
        asked.stdout(piece);
    }
    asked.end();
    let got = conn.read_response().expect(200);
    assert_eq!((got.text(), got.field("x-a")), ("\nbody", Some(&*long)));
    drop(asked);
    // A body and an error stream that are ended twice, and a status that counts as nothing.
    let (mut conn, mut asked) = ask();
    asked.stdout("Content-Type: a/b\r\n\r\n");
    asked.send(7, b"");
    asked.send(6, b"");
    asked.send(3, &[0, 0, 0, 255, 0, 0, 0, 0]);
    assert_eq!(conn.read_response().expect(200).body, b"");
    drop(asked);
    for (what, bytes) in [
        ("no end of the head", record(6, 1, b"Content-Type: a/b\r\n")),
        (
            "the stream ends in it",
            [record(6, 1, b"Content-Type: a/b\r\n"), record(6, 1, b"")].concat(),
        ),
        (
            "a line that does not end",
            record(6, 1, b"Content-Type: a/b"),
        ),
        (
            "a NUL in a value",
            record(6, 1, b"Content-Type: a/b\0c\r\n\r\nx"),
        ),
        ("a NUL in a name", record(6, 1, b"X-\0A: b\r\n\r\nx")),
        (
            "a blank before the colon",
            record(6, 1, b"Content-Type : a/b\r\n\r\nx"),
        ),
        ("a folded line", record(6, 1, b"X-A: b\r\n c\r\n\r\nx")),
        ("no name", record(6, 1, b": b\r\n\r\nx")),
        ("a bell", record(6, 1, b"X-A: \x07\r\n\r\nx")),
        (
            "a status of two digits",
            record(6, 1, b"Status: 20 OK\r\n\r\nx"),
        ),
        (
            "a status that goes on",
            record(6, 1, b"Status: 200OK\r\n\r\nx"),
        ),
        (
            "two statuses",
            record(6, 1, b"Status: 200\r\nStatus: 404\r\n\r\nx"),
        ),
        (
            "an upgrade",
            record(6, 1, b"Status: 101 S\r\nUpgrade: x\r\n\r\nx"),
        ),
    ] {
        let (mut conn, mut asked) = ask();
        asked.raw(&bytes);
        asked.half_close();
        assert_eq!(conn.read_response().status(), 502, "{what}");
    }
}

/// `PATH_INFO` and `SCRIPT_NAME` as long as a request line may be, names that no file can have.
#[test]
fn overlong_paths_do_no_harm() {
    let which = "<?php echo substr($_SERVER['SCRIPT_FILENAME'], strlen($_SERVER['DOCUMENT_ROOT'])),\
        ' ', strlen($_SERVER['PATH_INFO'] ?? ''), ' ', strlen($_SERVER['SCRIPT_NAME']), ' ',\
        strlen($_SERVER['PATH_TRANSLATED'] ?? '');";
    let php = PhpFpm::start(1, &[("index.php", which), ("a.php", which)]);
    let server = plain(&php);
    let mut conn = server.client().connect();
    let root = php.root().len();
    for len in [250, 255, 256, 4_000, 4_095, 4_096, 4_097, 15_000] {
        let mut check = |path: String, expected: String| {
            let got = conn.get(&path).expect(200);
            assert_eq!(got.text(), expected, "{len}: {}", &path[..40]);
        };
        let info = format!("/{}", "x".repeat(len));
        check(
            format!("/a.php{info}"),
            format!("/a.php {} 6 {}", len + 1, root + len + 1),
        );
        let deep = "/x".repeat(len / 2);
        check(
            format!("/a.php{deep}/y.php"),
            format!("/a.php {} 6 {}", deep.len() + 6, root + deep.len() + 6),
        );
        // No script has such a name, or lies so deep.
        check(format!("{info}.php"), "/index.php 0 10 0".to_owned());
        check(format!("{deep}/y.php"), "/index.php 0 10 0".to_owned());
        check(
            format!("{info}.php/a.php/b"),
            "/index.php 0 10 0".to_owned(),
        );
    }
    let escaped = "%C3%BC".repeat(2_000);
    let got = conn.get(&format!("/a.php/{escaped}")).expect(200);
    assert_eq!(got.text(), format!("/a.php 4001 6 {}", root + 4001));
    assert_eq!(conn.get("/a.php").expect(200).text(), "/a.php 0 6 0");
}

/// php-fpm takes settings from parameters of these names; a client has no way to them.
#[test]
fn settings_of_php_are_not_the_clients() {
    let script = "<?php echo ini_get('auto_prepend_file'), '|', ini_get('memory_limit'), '|',\
        $_SERVER['DOCUMENT_ROOT'], '|', getenv('HTTP_PROXY') ?: '-', '|', $_SERVER['PHP_VALUE'] ?? '-';";
    let php = PhpFpm::start(1, &[("a.php", script)]);
    let server = plain(&php);
    let mut request = Request::get("/a.php?PHP_VALUE=memory_limit=9M");
    for name in [
        "PHP-VALUE",
        "PHP_VALUE",
        "Php-Admin-Value",
        "HTTP-PHP-VALUE",
        "PROXY",
        "HTTP-PROXY",
        "HTTP_PROXY",
        "proxy",
        "Document-Root",
        "Script-Filename",
        "SCRIPT_FILENAME",
    ] {
        request = request.field(name, "memory_limit=9M");
    }
    let got = server.client().request(&request).expect(200);
    assert_eq!(got.text(), format!("|128M|{}|-|-", php.root()));
}

/// A file that an application names is one in `send_files`, whatever it is called.
#[test]
fn what_is_sent_in_the_place_of_an_answer_lies_where_it_may() {
    let php = PhpFpm::start(
        2,
        &[(
            "send.php",
            "<?php header('Content-Type: a/b'); header($_GET['n'] . ': ' . $_GET['f']); echo 'never seen';",
        )],
    );
    let server = builder(
        &php,
        r#"fastcgi "@php@" { root = "@root@", send_files = { "@dir@/one", "@dir@/two" } }"#,
    )
    .file("one/a b.txt", "in one")
    .file("two/sub/c.txt", "in two")
    .file("other/secret.txt", "secret")
    .start();
    let dir = server.dir().to_owned();
    symlink(dir.join("other/secret.txt"), dir.join("one/link.txt")).expect("a link");
    symlink(dir.join("other"), dir.join("one/linked")).expect("a link");
    symlink("a b.txt", dir.join("one/near.txt")).expect("a link");
    let ask = |name: &str, file: &str| {
        let target = format!("/send.php?n={name}&f={file}");
        server.client().get(&target)
    };
    let at = dir.display();
    for (name, file, text) in [
        ("X-Accel-Redirect", "/a%2520b.txt".to_owned(), "in one"),
        ("X-Accel-Redirect", "/sub/c.txt?x=1".to_owned(), "in two"),
        ("X-Accel-Redirect", "/near.txt".to_owned(), "in one"),
        ("x-sendfile", format!("{at}/one/a%20b.txt"), "in one"),
        ("X-SENDFILE", format!("{at}/two/sub/c.txt"), "in two"),
    ] {
        let got = ask(name, &file).expect(200);
        assert_eq!((got.text(), got.field(name)), (text, None), "{file}");
    }
    for (name, file) in [
        ("X-Accel-Redirect", "/link.txt".to_owned()),
        ("X-Accel-Redirect", "/linked/secret.txt".to_owned()),
        ("X-Accel-Redirect", "/../other/secret.txt".to_owned()),
        (
            "X-Accel-Redirect",
            "/%252e%252e/other/secret.txt".to_owned(),
        ),
        (
            "X-Accel-Redirect",
            "/sub%252f..%252f..%252fother/secret.txt".to_owned(),
        ),
        ("X-Accel-Redirect", "/sub/../../other/secret.txt".to_owned()),
        ("X-Accel-Redirect", "/sub".to_owned()),
        ("X-Accel-Redirect", "//a%2520b.txt".to_owned()),
        ("X-Accel-Redirect", format!("{at}/other/secret.txt")),
        ("X-Sendfile", format!("{at}/other/secret.txt")),
        ("X-Sendfile", format!("{at}/one/../other/secret.txt")),
        ("X-Sendfile", format!("{at}/one/linked/secret.txt")),
        ("X-Sendfile", format!("{at}/one")),
        ("X-Sendfile", format!("{at}/onesecret")),
        ("X-Sendfile", "file:///etc/passwd".to_owned()),
        ("X-Sendfile", "/proc/self/environ".to_owned()),
    ] {
        let got = ask(name, &file);
        assert!(
            matches!(got.status(), 404 | 502),
            "{file}: {}",
            got.status()
        );
        assert!(
            !got.text().contains("secret") && !got.text().contains("never"),
            "{file}"
        );
        assert_eq!(got.field(name), None, "{file}");
    }
}

/// A script may go on behind its answer (`fastcgi_finish_request`), as those of Symfony and Laravel do.
#[test]
fn where_no_connection_is_kept_none_waits_for_what_is_done_behind_an_answer() {
    let php = PhpFpm::start(
        2,
        &[
            (
                "on.php",
                "<?php echo 'said'; fastcgi_finish_request(); $until = $_SERVER['DOCUMENT_ROOT'] . '/go';\
                 for ($i = 0; $i < 4000 && !file_exists($until); $i++) { usleep(5000); clearstatcache(); }\
                 touch($_SERVER['DOCUMENT_ROOT'] . '/done');",
            ),
            ("next.php", "<?php echo 'next';"),
        ],
    );
    let root = std::path::PathBuf::from(php.root());
    let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&root, open).expect("permissions");
    // Nothing tells that the process of a kept connection is still at work: so none is kept.
    let server = Server::builder(
        "local php = upstream \"php\" { \"@php@\", idle_connections = 0 }\n\
         site { \"*\", fastcgi(php) { root = \"@root@\" } }",
    )
    .set("php", php.target())
    .set("root", php.root())
    .start();
    let mut conn = server.client().connect();
    assert_eq!(conn.get("/on.php").expect(200).text(), "said");
    for _ in 0..3 {
        assert_eq!(conn.get("/next.php").expect(200).text(), "next");
    }
    assert!(!root.join("done").exists(), "it goes on still");
    php.file("go", "");
    wait::until("it is done", || root.join("done").exists());
}

/// What is below a cache is asked once for all who wait: an application that leads on to the page that
/// is being asked for must not have it wait for itself.
#[test]
fn local_redirects_below_a_cache_come_to_an_end() {
    // PHP says a status with each `Location`; this does not.
    let app = App::start();
    let server = Server::builder(
        "site { \"*\", route \"/page\" { respond(200, \"the page\") }, cache { ttl = \"1m\" }, fastcgi \"@app@\" }",
    )
    .set("app", app.target())
    .start();
    let ask = |target: &str, answer: &str| {
        let mut conn = server.client().connect();
        conn.send(&Request::get(target));
        let mut asked = app.accept();
        let _ = asked.read_stdin();
        asked.answer(answer);
        drop(asked);
        conn
    };
    let got = ask("/to-page", "Location: /page\n\n").read_response();
    assert_eq!(got.expect(200).text(), "the page");
    // To itself; and round by another.
    for (first, second) in [("/a", "/a"), ("/b", "/c")] {
        let mut conn = server.client().connect();
        conn.send(&Request::get(first));
        let mut asked = app.accept();
        for number in 0..6 {
            if number > 0 {
                asked.read_params();
            }
            let _ = asked.read_stdin();
            let to = if number % 2 == 0 { second } else { first };
            asked.answer(format!("Location: {to}\n\n"));
        }
        assert_eq!(conn.read_response().status(), 502, "{first}");
    }
    // What is stored is of use to it.
    let mut conn = ask("/stored", OK);
    assert_eq!(conn.read_response().expect(200).text(), "hello");
    let mut conn = ask("/to-stored", "Location: /stored\n\n");
    assert_eq!(conn.read_response().expect(200).text(), "hello");
}

/// What is sent in the place of an answer is stored as any other answer.
#[test]
fn a_file_in_the_place_of_an_answer_is_cached() {
    let php = PhpFpm::start(
        2,
        &[(
            "send.php",
            "<?php header('Cache-Control: max-age=60'); header('X-Accel-Redirect: /' . $_GET['f']);",
        )],
    );
    let body = forebay_tests::pattern::bytes(200_000);
    let server = builder(
        &php,
        r#"cache, fastcgi "@php@" { root = "@root@", send_files = "@dir@/files" }"#,
    )
    .file("files/a.bin", &body)
    .file("files/b.bin", &body)
    .start();
    let client = server.client();
    for expected in ["miss", "hit"] {
        let got = client.get("/send.php?f=a.bin").expect(200);
        assert!(got.body == body, "the file");
        let status = got.field("cache-status").unwrap_or_default();
        assert!(status.contains(expected), "{status}");
    }
    for expected in ["miss", "hit"] {
        let part = Request::get("/send.php?f=b.bin").field("Range", "bytes=100000-100099");
        let got = client.request(&part).expect(206);
        assert!(got.body == body[100_000..100_100], "a part");
        let status = got.field("cache-status").unwrap_or_default();
        assert!(status.contains(expected), "{status}");
    }
}
