//! The step `fastcgi`: which script runs, what it is told, and whose source is never sent.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use forebay_tests::php::PhpFpm;
use forebay_tests::{Builder, Client, Request, Server};

/// All variables, one a line.
const VARS: &str = "<?php header('Content-Type: text/plain');\
    foreach ($_SERVER as $k => $v) { if (is_string($v)) echo $k, '=', $v, \"\\n\"; }";
/// Which script this is, and what is behind it.
const WHICH: &str = "<?php echo substr($_SERVER['SCRIPT_FILENAME'], strlen($_SERVER['DOCUMENT_ROOT'])),\
    ' ', $_SERVER['PATH_INFO'] ?? '-', ' ', $_SERVER['QUERY_STRING'];";

fn builder(php: &PhpFpm, config: &str) -> Builder {
    Server::builder(config)
        .set("php", php.target())
        .set("root", php.root())
}

fn before(php: &PhpFpm, pipeline: &str) -> Server {
    builder(php, &format!("site {{ \"*\", {pipeline} }}")).start()
}

fn vars(client: &Client, request: &Request) -> BTreeMap<String, String> {
    let response = client.request(request).expect(200);
    let pairs = response.text().lines().filter_map(|l| l.split_once('='));
    pairs.map(|(k, v)| (k.into(), v.into())).collect()
}

/// What the variables say under these names; `-` where there is none.
fn named(vars: &BTreeMap<String, String>, names: &str) -> String {
    let values = names
        .split(' ')
        .map(|name| vars.get(name).map_or("-", |value| value));
    values.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_variables_of_cgi() {
    let php = PhpFpm::start(2, &[("d/vars.php", VARS)]);
    let server = before(&php, r#"fastcgi "@php@" { root = "@root@" }"#);
    let client = server.client();
    let request = Request::get("/d/./vars.php/a%20b/%C3%BC?x=1&y=%20")
        .host("Shop.Example:8080")
        .field("User-Agent", "test/1")
        .field("Accept-Language", "de");
    let got = vars(&client, &request);
    let root = php.root();
    let check = |name: &str, expected: &str| {
        assert_eq!(got.get(name).map(String::as_str), Some(expected), "{name}");
    };
    check("SCRIPT_FILENAME", &format!("{root}/d/vars.php"));
    check("SCRIPT_NAME", "/d/vars.php");
    check("PATH_INFO", "/a b/\u{fc}");
    check("PATH_TRANSLATED", &format!("{root}/a b/\u{fc}"));
    check("DOCUMENT_ROOT", &root);
    check("DOCUMENT_URI", "/d/vars.php/a b/\u{fc}");
    check("PHP_SELF", "/d/vars.php/a b/\u{fc}");
    check("REQUEST_URI", "/d/./vars.php/a%20b/%C3%BC?x=1&y=%20");
    check("QUERY_STRING", "x=1&y=%20");
    check("REQUEST_METHOD", "GET");
    check("REQUEST_SCHEME", "http");
    check("SERVER_PROTOCOL", "HTTP/1.1");
    check("GATEWAY_INTERFACE", "CGI/1.1");
    check("SERVER_NAME", "shop.example");
    check("SERVER_PORT", "8080");
    check("SERVER_ADDR", "127.0.0.1");
    check("REMOTE_ADDR", "127.0.0.1");
    check("HTTP_HOST", "Shop.Example:8080");
    check("HTTP_USER_AGENT", "test/1");
    check("HTTP_ACCEPT_LANGUAGE", "de");
    check("REDIRECT_STATUS", "200");
    assert!(got["SERVER_SOFTWARE"].starts_with("forebay/"));
    assert!(got["REMOTE_PORT"].parse::<u16>().is_ok());
    let absent = "HTTPS REMOTE_USER AUTH_TYPE CONTENT_LENGTH CONTENT_TYPE HTTP_CONNECTION";
    assert_eq!(named(&got, absent), "- - - - - -");
    let posted = Request::post("/d/vars.php", "a=b").field("Content-Type", "text/x");
    let got = vars(&client, &posted);
    assert_eq!(named(&got, "CONTENT_LENGTH CONTENT_TYPE"), "3 text/x");
    assert_eq!(named(&got, "PATH_INFO PATH_TRANSLATED"), "- -");
    let empty = vars(&client, &Request::post("/d/vars.php", ""));
    assert_eq!(named(&empty, "CONTENT_LENGTH"), "0");
    // HTTP/1.0 needs no Host; then it is the address that was asked.
    let old = vars(&client, &Request::get("/d/vars.php").http10());
    assert_eq!(
        named(&old, "SERVER_NAME SERVER_PROTOCOL"),
        "127.0.0.1 HTTP/1.0"
    );
}

#[test]
fn what_a_client_could_forge_is_not_told() {
    let php = PhpFpm::start(2, &[("vars.php", VARS)]);
    let server = before(&php, r#"fastcgi "@php@" { root = "@root@" }"#);
    let request = Request::post("/vars.php", "abc")
        .field("Proxy", "http://evil.example/")
        .field("X_Forwarded_For", "192.0.2.1")
        .field("Content_Length", "7")
        .field("X-Forwarded-For", "192.0.2.2")
        .field("X-Forwarded-Proto", "https")
        .field("Forwarded", "for=192.0.2.3")
        .field("X-Real-IP", "192.0.2.4")
        .field("X.Dotted", "x")
        .field("X-Two", "1")
        .field("X-Two", "2")
        .field("Cookie", "a=1")
        .field("Cookie", "b=2");
    let got = vars(&server.client(), &request);
    for (name, value) in &got {
        assert!(
            !value.contains("evil") && !value.contains("192.0.2."),
            "{name}={value}"
        );
    }
    let names = "HTTP_PROXY HTTP_X_DOTTED HTTP_CONTENT_LENGTH HTTPS CONTENT_LENGTH REMOTE_ADDR";
    assert_eq!(named(&got, names), "- - - - 3 127.0.0.1");
    assert_eq!(named(&got, "HTTP_X_TWO"), "1, 2");
    assert_eq!(got["HTTP_COOKIE"], "a=1; b=2");
}

#[test]
fn who_is_trusted_speaks_for_the_client() {
    let php = PhpFpm::start(2, &[("vars.php", VARS)]);
    let server = builder(&php, r#"site { "*", fastcgi "@php@" { root = "@root@" } }"#)
        .listen(r#"trust = "127.0.0.1""#)
        .start();
    let request = Request::get("/vars.php")
        .host("shop.example")
        .field("X-Forwarded-For", "192.0.2.7")
        .field("X-Forwarded-Proto", "https");
    let got = vars(&server.client(), &request);
    let names = "REMOTE_ADDR HTTPS REQUEST_SCHEME SERVER_PORT HTTP_X_FORWARDED_FOR";
    assert_eq!(named(&got, names), "192.0.2.7 on https 443 -");
}

#[test]
fn who_has_a_name_is_named() {
    let php = PhpFpm::start(2, &[("vars.php", VARS)]);
    // Of "lovelace", as `htpasswd -nbB -C 4` makes it.
    let user = "ada:$2y$04$xG3TDzcfwZcY.WtniCDkaueKlQ9wjbOGkcmJIs3BXqiych/J.Jkh6";
    let server = builder(
        &php,
        r#"site { "*", basic_auth "@dir@/users", fastcgi "@php@" { root = "@root@" } }"#,
    )
    .file("users", format!("{user}\n"))
    .start();
    let client = server.client();
    assert_eq!(client.get("/vars.php").status(), 401);
    // The first time the hash decides, later what is remembered of it.
    for _ in 0..2 {
        let request = Request::get("/vars.php").field("Authorization", "Basic YWRhOmxvdmVsYWNl");
        let got = vars(&client, &request);
        assert_eq!(
            named(&got, "REMOTE_USER AUTH_TYPE PHP_AUTH_USER"),
            "ada Basic ada"
        );
    }
}

#[test]
fn the_operators_parameters_go_first() {
    let php = PhpFpm::start(2, &[("vars.php", VARS)]);
    let server = before(
        &php,
        r#"set("tier", "gold"),
           fastcgi "@php@" { root = "@root@", env = {
             APP_ENV = "prod", WHO = "$client_ip as $vars.tier", SERVER_NAME = "fixed.example", HTTP_X_OWN = "ours" } }"#,
    );
    let request = Request::get("/vars.php").field("X-Own", "theirs");
    let got = vars(&server.client(), &request);
    assert_eq!(
        named(&got, "APP_ENV SERVER_NAME HTTP_X_OWN"),
        "prod fixed.example ours"
    );
    assert_eq!(got["WHO"], "127.0.0.1 as gold");
}

#[test]
fn a_prefix_that_was_taken_off_is_in_the_scripts_name() {
    let php = PhpFpm::start(2, &[("vars.php", VARS), ("d/index.php", VARS)]);
    let server = before(
        &php,
        r#"route "/blog/*" { rewrite "/$rest", fastcgi "@php@" { root = "@root@" } }, respond(404)"#,
    );
    let client = server.client();
    let got = vars(&client, &Request::get("/blog/vars.php/x"));
    let names = "SCRIPT_NAME PATH_INFO REQUEST_URI";
    assert_eq!(named(&got, names), "/blog/vars.php /x /blog/vars.php/x");
    let to = client.get("/blog/d?a").expect(301);
    assert_eq!(to.field("location"), Some("/blog/d/?a"));
}

#[test]
fn the_first_try_that_is_a_script_runs() {
    let scripts = ["index.php", "a.php", "d/index.php", "d/b.php"].map(|path| (path, WHICH));
    let php = PhpFpm::start(2, &scripts);
    php.file("up.jpg", WHICH);
    php.file("empty/x.txt", "");
    let server = before(&php, r#"fastcgi "@php@" { root = "@root@" }"#);
    let check = |target: &str, expected: &str| {
        let got = server.client().get(target).expect(200);
        assert_eq!(got.text(), expected, "{target}");
    };
    check("/", "/index.php - ");
    check("/a.php", "/a.php - ");
    check("/a.php?q", "/a.php - q");
    check("/a.php/x/y.php", "/a.php /x/y.php ");
    check("/a.php/", "/a.php / ");
    check("/d/", "/d/index.php - ");
    check("/d/b.php/x", "/d/b.php /x ");
    check("/pretty/page?x=1", "/index.php - x=1");
    check("/empty/", "/index.php - ");
    check("/empty", "/index.php - ");
    check("/up.jpg/x.php", "/index.php - ");
    check("/up.jpg", "/index.php - ");
    check("/A.PHP", "/index.php - ");
    check("/d//b.php", "/index.php - ");
    check("/a%2Ephp", "/a.php - ");
    check("/d%2Fb.php", "/index.php - ");
    check("/.hidden.php", "/index.php - ");
    let to = server.client().get("/d?q=1").expect(301);
    assert_eq!(to.field("location"), Some("/d/?q=1"));
    // What has a body would lose it on the way.
    let posted = server.client().request(&Request::post("/d", "x"));
    assert_eq!(posted.expect(200).text(), "/d/index.php - ");
}

/// How php-fpm's own regression tests and the attack on it were done (CVE-2019-11043): a newline, and
/// a query whose length moves PHP's buffers.
#[test]
fn newlines_and_overlong_values_do_no_harm() {
    let php = PhpFpm::start(1, &[("index.php", WHICH), ("a.php", WHICH)]);
    let server = before(&php, r#"fastcgi "@php@" { root = "@root@" }"#);
    let client = server.client();
    for len in [1, 1_700, 1_750, 1_800, 4_000, 15_000] {
        let query = "Q".repeat(len);
        for path in [
            "/index.php/PHP%0Ais_the_shittiest_lang.php",
            "/a.php%0d",
            "/a.php%00.jpg",
        ] {
            assert_eq!(
                client.get(&format!("{path}?{query}")).status(),
                400,
                "{path}"
            );
        }
        let got = client.get(&format!("/a.php/{}?{query}", "x".repeat(len.min(900))));
        assert!(
            got.expect(200)
                .text()
                .starts_with("/a.php /xxx".get(..9).unwrap())
        );
        assert_eq!(client.get("/a.php").expect(200).text(), "/a.php - ");
    }
    let mut long = Request::get("/a.php");
    for number in 0..80 {
        long = long.field(&format!("X-Field-{number}"), &"v".repeat(700));
    }
    assert_eq!(client.request(&long).expect(200).text(), "/a.php - ");
    assert_eq!(client.get("/a.php").expect(200).text(), "/a.php - ");
}

#[test]
fn where_nothing_is_found_the_next_step_is_asked() {
    let php = PhpFpm::start(1, &[("a.php", WHICH)]);
    let server = before(
        &php,
        r#"fastcgi "@php@" { root = "@root@" }, respond(200, "next")"#,
    );
    assert_eq!(server.client().get("/b.php").expect(200).text(), "next");
    assert_eq!(
        server.client().get("/a.php").expect(200).text(),
        "/a.php - "
    );
    let server = before(&php, r#"fastcgi "@php@" { root = "@root@/none" }"#);
    assert_eq!(server.client().get("/a.php").status(), 404);
}

#[test]
fn tries_with_queries_variables_and_other_names() {
    // A process for each server that keeps a connection.
    let php = PhpFpm::start(
        8,
        &[
            ("doku.php", WHICH),
            ("app.phtml", WHICH),
            ("a.test/index.php", WHICH),
        ],
    );
    let dokuwiki = before(
        &php,
        r#"fastcgi "@php@" { root = "@root@", try = { "$path", "$path/index.php", "/doku.php?id=$rest&$query_string" } }"#,
    );
    let text = |server: &Server, request: &Request| {
        server
            .client()
            .request(request)
            .expect(200)
            .text()
            .to_owned()
    };
    let got = text(&dokuwiki, &Request::get("/wiki/a%26b?do=edit"));
    assert_eq!(got, "/doku.php - id=wiki/a%26b&do=edit");
    assert_eq!(
        text(&dokuwiki, &Request::get("/doku.php?id=x")),
        "/doku.php - id=x"
    );
    let front = before(
        &php,
        r#"fastcgi "@php@" { root = "@root@", try = "/doku.php$path" }"#,
    );
    assert_eq!(text(&front, &Request::get("/a/b?c")), "/doku.php /a/b c");
    // Another name than PHP's own: php-fpm refuses it, but is asked.
    let other = before(
        &php,
        r#"fastcgi "@php@" { root = "@root@", scripts = "*.phtml" }, respond(404)"#,
    );
    assert_eq!(other.client().get("/app.phtml").status(), 403);
    assert_eq!(other.client().get("/doku.php").status(), 404);
    let hosts = before(&php, r#"fastcgi "@php@" { root = "@root@/$host" }"#);
    let got = text(&hosts, &Request::get("/").host("a.test"));
    assert_eq!(got, "/index.php - ");
    assert_eq!(
        hosts
            .client()
            .request(&Request::get("/").host("b.test"))
            .status(),
        404
    );
    for outside in ["..", ".", "../x"] {
        let got = hosts.client().request(&Request::get("/").host(outside));
        assert!(
            matches!(got.status(), 400 | 404),
            "{outside}: {}",
            got.status()
        );
    }
}

#[test]
fn links_are_followed_under_the_root_only() {
    let php = PhpFpm::start(
        1,
        &[("v1/a.php", "<?php echo 1;"), ("v2/a.php", "<?php echo 2;")],
    );
    let root = Path::new(&php.root()).to_owned();
    php.file("out.php", "<?php echo 'out';");
    symlink(root.join("out.php"), root.join("v1/link.php")).expect("a link");
    symlink("a.php", root.join("v1/same.php")).expect("a link");
    symlink("v1", root.join("current")).expect("a link");
    let server = before(&php, r#"fastcgi "@php@" { root = "@root@/current" }"#);
    let client = server.client();
    assert_eq!(client.get("/a.php").expect(200).text(), "1");
    assert_eq!(client.get("/same.php").expect(200).text(), "1");
    assert_eq!(client.get("/link.php").status(), 404);
}

#[test]
fn source_never_leaks() {
    let secret = "<?php /* the secret */ echo 'ran';";
    let php = PhpFpm::start(1, &[("a.php", secret), ("d/index.php", secret)]);
    let copies = [
        "a.PHP",
        "A.php",
        "a.php~",
        "a.php.bak",
        "a.php.BAK",
        "a.php.swp",
        ".a.php.swp",
        "a.php.old",
        "a.php.orig",
        "a.php.save",
        "a.php.1",
        "a.php_bak",
        "a.php.gz",
        "#a.php#",
        ".env",
        ".git/config",
        "d/.htaccess",
        "a.php.2024-01-01",
        "a.php.",
        "a.php ",
        "a.PHP.",
        "a.php::$DATA",
        "a.php.~1~",
        "a.php.bak2",
        "a.php.txt",
        "a.php.dpkg-old",
        "d/.a.php.un~",
    ];
    for copy in copies {
        php.file(copy, secret);
    }
    php.file("a.css", "open");
    let pipelines = [
        r#"files "@root@", fastcgi "@php@" { root = "@root@" }"#,
        // The operator's own list takes nothing away, nor does the order of the steps.
        r#"route "/x/*" { fastcgi "@php@" { root = "@root@" } }, files "@root@" { hide = {}, listing = true }"#,
        r#"files "@root@" { hide = "*.css" }, errors { [404] = { files "@root@" { hide = {} }, fastcgi "@php@" { root = "@root@" } } }, respond(404)"#,
    ];
    for pipeline in pipelines {
        let server = before(&php, pipeline);
        let mut targets: Vec<String> = copies.iter().map(|c| format!("/{c}")).collect();
        targets.extend(
            [
                "/a.php",
                "/a.php/",
                "/a.php/x",
                "/a.php/x.css",
                "/a%2ephp",
                "/a.php%20",
                "/a.php%2f",
                "/a.php%20.",
                "/a.php%2e",
                "/a.php%3a%3a$data",
                "/A%2ePHP/x",
                "/a.php%5c",
                "/a.php%252e",
                "/d/index.php",
                "/d/",
                "/d",
                "/",
                "//a.php",
                "/./a.php",
                "/d/../a.php",
                "/a.php;x",
                "/%61.php",
            ]
            .map(String::from),
        );
        for target in targets {
            let target = target.replace('#', "%23").replace(' ', "%20");
            for range in [None, Some("bytes=0-40")] {
                let mut request = Request::get(&target);
                if let Some(range) = range {
                    request = request.field("Range", range);
                }
                let got = server.client().request(&request);
                assert!(!got.text().contains("secret"), "{target} by {pipeline}");
            }
        }
    }
    let server = before(&php, pipelines[0]);
    assert_eq!(server.client().get("/a.css").expect(200).text(), "open");
    // A site that runs no scripts is not touched by one that does.
    let server = builder(
        &php,
        r#"site { "a.test", files "@root@" { hide = {} }, fastcgi "@php@" { root = "@root@" } }
           site { "b.test", files "@root@" { hide = {} }, respond(404) }"#,
    )
    .start();
    let ask = |host: &str| server.client().request(&Request::get("/a.php").host(host));
    assert_eq!(ask("a.test").expect(200).text(), "ran");
    assert!(ask("b.test").expect(200).text().contains("secret"));
}

#[test]
fn explain_tells_which_script_and_whom() {
    let php = PhpFpm::start(1, &[("a.php", WHICH), ("index.php", WHICH)]);
    let server = before(
        &php,
        r#"files "@root@", fastcgi "@php@" { root = "@root@", env = { APP_ENV = "prod" } }"#,
    );
    let path = server.config_path().display().to_string();
    let explain = |url: &str| {
        let output = forebay_tests::server::run(&["explain", &path, url, "-H", "Cookie: secret=1"]);
        output.expect(0).stdout
    };
    let said = explain("http://x.test/a.php/b");
    for text in [
        "/a.php, behind it /b",
        "SCRIPT_NAME=/a.php",
        "APP_ENV=prod",
        "fpm.sock",
    ] {
        assert!(said.contains(text), "{text} in {said}");
    }
    assert!(!said.contains("secret=1"), "{said}");
    assert!(explain("http://x.test/none").contains("SCRIPT_NAME=/index.php"));
}

#[test]
fn mistakes_are_said() {
    for (config, expected) in [
        (
            r#"site { "*", fastcgi "http://127.0.0.1:9000" }"#,
            "FastCGI has no scheme",
        ),
        (
            r#"site { "*", fastcgi "unix:/a" { try = "/x.php" } }"#,
            "`try` without a `root` means nothing",
        ),
        (
            r#"site { "*", fastcgi "unix:/a" { root = "/srv", try = {} } }"#,
            "expected at least one",
        ),
        (
            r#"site { "*", fastcgi "unix:/a" { root = "/srv", scripts = {} } }"#,
            "without `scripts` nothing runs",
        ),
        (
            r#"site { "*", fastcgi "unix:/a" { env = { ["A-B"] = "x" } } }"#,
            "cannot name a parameter",
        ),
        (
            r#"site { "*", fastcgi "unix:/a", respond(404) }"#,
            "respond",
        ),
        (
            r#"local a = upstream "a" { "unix:/a" } site { "*", route "/x" { proxy(a) }, fastcgi(a) }"#,
            "cannot have one pool",
        ),
        (
            r#"local a = upstream "a" { "unix:/a", health = { path = "/" } } site { "*", fastcgi(a) }"#,
            "asks for HTTP",
        ),
        (
            r#"local a = upstream "a" { "unix:/a", health = { kind = "fastcgi", path = "/" } } site { "*", fastcgi(a) }"#,
            "has no `path`",
        ),
        (
            r#"site { "*", fastcgi "unix:/a" { hedge = "1s" } }"#,
            "no option `hedge`",
        ),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("forebay.lua");
        std::fs::write(&path, config).expect("a file");
        let output = forebay_tests::server::run_in(dir.path(), &["check", "forebay.lua"]);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.code, Some(2), "{config}: {said}");
        assert!(said.contains(expected), "{config}: {said}");
    }
}
