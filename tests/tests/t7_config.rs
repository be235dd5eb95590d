//! `forebay check` and the other commands that need no running server; what a configuration may do.

use std::path::Path;

use forebay_tests::server::{Output, run, run_in};
use forebay_tests::{Request, Server};
use tempfile::TempDir;

fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a directory above")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    dir
}

fn check_in(dir: &Path) -> Output {
    run_in(dir, &["check", "forebay.lua"])
}

/// `check` on one file, as text.
fn check(config: &str) -> Output {
    check_in(dir(&[("forebay.lua", config)]).path())
}

/// What `check --json` says of a configuration: (file, line, column, code, message).
type Said = (String, u64, u64, String, String);

fn mistakes_in(dir: &Path) -> Vec<Said> {
    let output = run_in(dir, &["check", "forebay.lua", "--json"]);
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    output
        .stdout
        .lines()
        .map(|line| {
            let v: serde_json::Value = serde_json::from_str(line)
                .unwrap_or_else(|e| panic!("{line:?} is no JSON: {e}\n{}", output.stderr));
            let number = |name: &str| v[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"));
            let _ = number("end_column");
            (
                text(&v["file"]),
                number("line"),
                number("column"),
                text(&v["code"]),
                text(&v["message"]),
            )
        })
        // A warning has no code.
        .filter(|(.., code, _)| !code.is_empty())
        .collect()
}

fn mistakes(config: &str) -> Vec<Said> {
    mistakes_in(dir(&[("forebay.lua", config)]).path())
}

/// Expects exactly one mistake, at this place and with this code, whose message has these words.
#[track_caller]
fn one(config: &str, line: u64, column: u64, code: &str, words: &str) {
    let got = mistakes(config);
    assert_eq!(got.len(), 1, "{config}\n{got:#?}");
    let (_, l, c, k, message) = &got[0];
    assert_eq!(
        (*l, *c, k.as_str()),
        (line, column, code),
        "{config}\n{message}"
    );
    assert!(message.contains(words), "{message:?} has no {words:?}");
}

#[test]
fn a_right_configuration_is_ok() {
    let output = check(
        r#"listen "127.0.0.1:8080"
           local app = upstream "app" { "127.0.0.1:1", "127.0.0.1:2" }
           site { "example.com", "*.example.com", route "/a/*" { respond(200) }, proxy(app) }"#,
    )
    .expect(0);
    assert!(output.stdout.starts_with("ok"), "{}", output.stdout);
    // The summary says what is reachable where.
    assert!(output.stdout.contains("example.com"), "{}", output.stdout);
}

#[test]
fn the_messages_are_those_of_the_reference() {
    let config = r#"local app = upstream "app" { "10.0.0.1:8080", balence = "least_requests" }
site { "example.com",
  route "/api/*" { limit { body = "100 per second" }, prxy(app) },
  proxy(app),
}
"#;
    let output = check(config).expect(2);
    let want = r#"forebay.lua:1:47: upstream "app" has no option `balence`
  1 | local app = upstream "app" { "10.0.0.1:8080", balence = "least_requests" }
    |                                               ^^^^^^^ did you mean `balance`?
"#;
    let said = output.stdout + &output.stderr;
    assert!(said.contains(want), "{said}");
    let want = r#"forebay.lua:3:35: limit: `body` cannot be "100 per second"
  3 |   route "/api/*" { limit { body = "100 per second" }, prxy(app) },
    |                                   ^^^^^^^^^^^^^^^^ expected "#;
    assert!(said.contains(want), "{said}");
    let want = r#"forebay.lua:3:55: unknown name `prxy`
  3 |   route "/api/*" { limit { body = "100 per second" }, prxy(app) },
    |                                                       ^^^^ did you mean `proxy`?
3 mistakes; nothing was changed
"#;
    assert!(said.ends_with(want), "{said}");
}

#[test]
fn json_has_an_object_per_line() {
    let got = mistakes(
        "local a = upstream \"a\" { \"10.0.0.1:80\", balence = 1 }\nsite { \"*\", proxy(a) }",
    );
    assert_eq!(got.len(), 1, "{got:?}");
    let (file, line, column, code, message) = &got[0];
    assert_eq!((file.as_str(), *line, *column), ("forebay.lua", 1, 41));
    assert_eq!(code, "unknown_option");
    assert!(message.contains("balence"), "{message}");
    let fine = dir(&[("forebay.lua", "site { \"*\", respond(200) }")]);
    let output = run_in(fine.path(), &["check", "forebay.lua", "--json"]).expect(0);
    assert_eq!(
        output
            .stdout
            .lines()
            .filter(|l| l.contains("\"code\""))
            .count(),
        0
    );
}

#[test]
fn each_kind_of_mistake_has_its_code() {
    // Luau names the line of a syntax error and no more.
    let got = mistakes("local a = 1\nsite { \"*\", respond(200) ");
    assert_eq!(
        (got.len(), got[0].1, got[0].3.as_str()),
        (1, 2, "syntax"),
        "{got:?}"
    );
    one(
        "site { \"*\", respnd(200) }",
        1,
        13,
        "unknown_name",
        "respnd",
    );
    one(
        "site { \"*\", respond(200) { headrs = {} } }",
        1,
        28,
        "unknown_option",
        "headrs",
    );
    one("site { \"*\", respond(99) }", 1, 21, "bad_value", "99");
    one(
        "site { \"*\", route \"x\" { respond(200) } }",
        1,
        19,
        "bad_value",
        "x",
    );
    one(
        "site { \"a.test\", respond(200) }\nsite { \"A.test\", respond(200) }",
        2,
        8,
        "duplicate",
        "a.test",
    );
    one(
        "site { \"*\", respond(200), respond(201) }",
        1,
        27,
        "unreachable",
        "",
    );
    let got = mistakes("error \"stop here\"");
    assert_eq!(
        (got.len(), got[0].3.as_str(), got[0].1),
        (1, "lua_error", 1)
    );
    assert!(got[0].4.contains("stop here"), "{got:?}");
    let got = mistakes("site { \"*\", route \"/x\" {}, respond(200, read \"missing.txt\") }");
    assert!(got.iter().any(|m| m.3 == "not_found"), "{got:?}");
}

#[test]
fn names_are_local() {
    for (config, name) in [
        ("x = 1\nsite { \"*\", respond(200) }", "x"),
        (
            "function helper() end\nsite { \"*\", respond(200) }",
            "helper",
        ),
        (
            "local y = undefined_name\nsite { \"*\", respond(200) }",
            "undefined_name",
        ),
    ] {
        let got = mistakes(config);
        assert_eq!((got.len(), got[0].1), (1, 1), "{config}: {got:?}");
        assert!(got[0].4.contains(name), "{got:?}");
    }
}

#[test]
fn every_mistake_is_shown_in_one_run() {
    let got = mistakes(
        r#"local nested = { response = { x_a = "$nothing", x_b = true } }
local pool = upstream "pool" { "10.0.0.1:99999", { "10.0.0.2:80", wieght = 2 } }
site { "exa mple.com",
  headers(nested),
  route "/a/*/b/*" {
    proxy(pool) { first_byte_timeout = "5 seconds", retries = 9 },
  },
  unknown_step { a = other_unknown },
}
"#,
    );
    let places: Vec<(u64, &str)> = got.iter().map(|m| (m.1, m.3.as_str())).collect();
    for line in [1, 2, 3, 5, 6, 8] {
        assert!(
            places.iter().any(|p| p.0 == line),
            "nothing about line {line}: {got:#?}"
        );
    }
    assert_eq!(places.iter().filter(|p| p.0 == 1).count(), 2, "{got:#?}");
    assert_eq!(places.iter().filter(|p| p.0 == 2).count(), 2, "{got:#?}");
    assert_eq!(places.iter().filter(|p| p.0 == 6).count(), 2, "{got:#?}");
    // By file and line.
    let lines: Vec<u64> = places.iter().map(|p| p.0).collect();
    assert!(lines.is_sorted(), "{lines:?}");
    // Each has a column of its own.
    let mut columns: Vec<(u64, u64)> = got.iter().map(|m| (m.1, m.2)).collect();
    columns.dedup();
    assert_eq!(columns.len(), got.len(), "{got:#?}");
}

#[test]
fn mistakes_in_required_files_are_shown_there() {
    let dir = dir(&[
        (
            "forebay.lua",
            "require \"sites/a\"\nrequire(glob \"sites/*.lua\")\nlocal x = nope\n",
        ),
        (
            "sites/a.lua",
            "local m = {}\nsite { \"a.test\",\n  respnd(200) }\nreturn m",
        ),
        (
            "sites/b.lua",
            "site { \"b.test\", respond(200) { bad = 1 } }",
        ),
    ]);
    let got = mistakes_in(dir.path());
    let places: Vec<(&str, u64)> = got.iter().map(|m| (m.0.as_str(), m.1)).collect();
    assert_eq!(
        places,
        [("forebay.lua", 3), ("sites/a.lua", 3), ("sites/b.lua", 1)],
        "{got:#?}"
    );
}

#[test]
fn require_stays_inside_and_runs_once() {
    for name in ["../x", "/etc/passwd", "a/../../x"] {
        let got = mistakes(&format!("require {name:?}\nsite {{ \"*\", respond(200) }}"));
        assert_eq!(got.len(), 1, "{name}: {got:?}");
    }
    let dir = dir(&[
        (
            "forebay.lua",
            "local a = require \"m\"\nlocal b = require \"m\"\nif a ~= b then error \"twice\" end\nsite { \"*\", respond(200, a.text) }",
        ),
        ("m.lua", "return { text = \"x\" }"),
    ]);
    let _ = check_in(dir.path()).expect(0);
}

#[test]
fn the_sandbox_has_no_way_out() {
    for expression in [
        "os.execute(\"true\")",
        "io.open(\"/etc/passwd\")",
        "os.getenv(\"HOME\")",
        "loadstring(\"return 1\")()",
        "dofile(\"x.lua\")",
        "package.path",
        "debug.getregistry()",
        "os.remove(\"x\")",
        "getfenv(0).site",
        "setfenv(1, {})",
        "collectgarbage(\"collect\") + nope",
    ] {
        let got = mistakes(&format!(
            "local x = {expression}\nsite {{ \"*\", respond(200) }}"
        ));
        assert!(!got.is_empty(), "{expression} is allowed");
    }
    for statement in [
        "string.rep = nil",
        "table.x = 1",
        "_G.x = 1",
        "site.x = 1",
        "rawset(_G, \"y\", 1)",
    ] {
        let got = mistakes(&format!("{statement}\nsite {{ \"*\", respond(200) }}"));
        assert!(!got.is_empty(), "{statement} is allowed");
    }
    let _ = check("local t = os.time() + #os.date() + math.floor(1.5)\nsite { \"*\", respond(200, \"\" .. t) }")
        .expect(0);
}

#[test]
fn helpers_give_plain_values() {
    let server = Server::builder(
        r#"local names = {}
           for i, name in ipairs(lines "@dir@/list.txt") do names[i] = name end
           local files = {}
           for i, path in ipairs(glob "sites/*.txt") do files[i] = path:match "[^/]+$" end
           site { "*",
             route "/env" { respond(200, env "FOREBAY_TEST_VALUE") },
             route "/default" { respond(200, env("FOREBAY_TEST_NONE", "fallback")) },
             route "/read" { respond(200, read "@dir@/text.txt") },
             route "/lines" { respond(200, table.concat(names, ",")) },
             route "/glob" { respond(200, table.concat(files, ",")) } }"#,
    )
    .env("FOREBAY_TEST_VALUE", "from outside")
    .file("text.txt", "a text\n")
    .file("list.txt", "one\n\n# comment\ntwo\n")
    .file("sites/b.txt", "")
    .file("sites/a.txt", "")
    .start();
    let ask = |target: &str| server.client().get(target).expect(200).text().to_owned();
    assert_eq!(ask("/env"), "from outside");
    assert_eq!(ask("/default"), "fallback");
    assert_eq!(ask("/read"), "a text");
    assert_eq!(ask("/lines"), "one,two");
    assert_eq!(ask("/glob"), "a.txt,b.txt");
    let got = mistakes("site { \"*\", respond(200, env \"FOREBAY_TEST_NONE\") }");
    assert_eq!(got.len(), 1, "{got:?}");
}

#[test]
fn what_is_not_built_is_an_unknown_name() {
    for name in ["dashboard", "functions \"/x\""] {
        let got = mistakes(&format!("site {{ \"*\", {name}, respond(200) }}"));
        assert!(got.iter().any(|m| m.3 == "unknown_name"), "{name}: {got:?}");
    }
    let got = mistakes("site { \"*\", function(req) return respond(200) end, respond(200) }");
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(
        got[0].4.contains("not built") || got[0].4.contains("yet"),
        "{got:?}"
    );
}

#[test]
fn mistakes_of_order_and_shape() {
    for (config, what) in [
        ("site { \"*\", respond() }", "an empty call"),
        ("site { \"*\" }", "a site without a step"),
        ("site { respond(200) }", "a site without a host"),
        (
            "site { \"*\", proxy \"10.0.0.1\" { host = 5 } }",
            "a number for a template",
        ),
        (
            "site { \"*\", proxy \"ftp://10.0.0.1\" }",
            "an unknown scheme",
        ),
        (
            "site { \"*\", proxy \"10.0.0.1:80/path\" }",
            "a target with a path",
        ),
        ("site { \"*\", redirect }", "a redirect to nowhere"),
        (
            "site { \"*\", redirect(\"/x\", 200) }",
            "a redirect that is none",
        ),
        (
            "site { \"*\", files \"/nonexistent-directory\" { max_age = \"1 h\" } }",
            "a duration",
        ),
        (
            "listen \"127.0.0.1:99999\"\nsite { \"*\", respond(200) }",
            "a port",
        ),
        (
            "listen \"127.0.0.1:1\" { header_timeout = \"1ms\" }\nsite { \"*\", respond(200) }",
            "too short",
        ),
        (
            "server { workers = 0 }\nsite { \"*\", respond(200) }",
            "no workers",
        ),
        (
            "server { workers = 1 }\nserver { workers = 2 }\nsite { \"*\", respond(200) }",
            "two servers",
        ),
        (
            "local u = upstream \"u\" {}\nsite { \"*\", proxy(u) }",
            "a pool without peers",
        ),
        (
            "site { \"*\", respond(200, \"$nope\") }",
            "an unknown variable",
        ),
        (
            "site { \"*\", respond(200) { when = header(regex \"(\") } }",
            "a bad expression",
        ),
        (
            "site { \"*\", route \"/a\" { respond(200) }, respond(200) { when = 5 } }",
            "a bad condition",
        ),
        (
            "site { \"*\", headers { response = { [\"a b\"] = \"x\" } }, respond(200) }",
            "a bad field name",
        ),
        ("site { \"*\", limit, respond(200) }", "a limit of nothing"),
    ] {
        let output = check(config);
        assert_eq!(
            output.code,
            Some(2),
            "{what}: {config}\n{}{}",
            output.stdout,
            output.stderr
        );
    }
}

#[test]
fn warnings_do_not_fail() {
    let output =
        check("local u = upstream \"unused\" { \"10.0.0.1:80\" }\nsite { \"*\", respond(200) }")
            .expect(0);
    let said = output.stdout + &output.stderr;
    assert!(said.contains("unused"), "{said}");
    let _ = check("site { \"*\", proxy \"no-such-name.invalid:80\" }").expect(0);
}

#[test]
fn a_broken_configuration_does_not_start() {
    let dir = dir(&[("forebay.lua", "site { \"*\", respnd(200) }")]);
    let output = run_in(dir.path(), &["run", "forebay.lua"]).expect(2);
    let said = output.stdout + &output.stderr;
    assert!(
        said.contains("forebay.lua:1:13: unknown name `respnd`"),
        "{said}"
    );
    let output = run_in(dir.path(), &["run", "missing.lua"]);
    assert!(output.code.is_some_and(|c| c != 0));
    assert!((output.stdout + &output.stderr).contains("missing.lua"));
}

#[test]
fn commands_explain_themselves() {
    let help = run(&["--help"]).expect(0).stdout;
    for command in [
        "run", "check", "serve", "proxy", "reload", "status", "stop", "types", "doctor",
    ] {
        assert!(help.contains(command), "{command} is not in\n{help}");
        let own = run(&[command, "--help"]).expect(0).stdout;
        assert!(own.len() > 80, "{own}");
    }
    assert!(run(&["--version"]).expect(0).stdout.starts_with("forebay "));
    assert_eq!(run(&["nonsense"]).code, Some(2));
}

#[test]
fn types_and_doctor_print() {
    let types = run(&["types"]).expect(0).stdout;
    for name in [
        "site", "listen", "upstream", "proxy", "files", "route", "respond", "headers",
    ] {
        assert!(types.contains(name), "{name} is not in the types");
    }
    let doctor = run(&["doctor"]);
    let said = doctor.stdout + &doctor.stderr;
    for name in ["somaxconn", "tcp_migrate_req", "port_range"] {
        assert!(said.contains(name), "{name} is not in\n{said}");
    }
}

#[test]
fn commands_to_a_server_that_does_not_run_say_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let admin = format!("unix:{}", dir.path().join("admin.sock").display());
    for command in ["reload", "status", "stop"] {
        let output = run(&[command, "--admin", &admin]);
        assert!(output.code.is_some_and(|c| c != 0), "{command}");
        assert!(
            (output.stdout + &output.stderr).contains("admin.sock"),
            "{command}"
        );
    }
}

#[test]
fn ten_thousand_sites_are_told_apart() {
    let server = Server::start(
        r#"for i = 1, 10000 do site { "host" .. i .. ".test", respond(200, "site " .. i) } end
           for i = 1, 100 do site { "*.wild" .. i .. ".test", respond(200, "wild " .. i) } end"#,
    );
    let mut conn = server.client().connect();
    let mut ask = |host: &str| conn.exchange(&Request::get("/").host(host));
    for i in [1, 2, 999, 5000, 9999, 10_000] {
        assert_eq!(ask(&format!("host{i}.test")).text(), format!("site {i}"));
    }
    for i in [1, 50, 100] {
        assert_eq!(
            ask(&format!("a.b.wild{i}.test")).text(),
            format!("wild {i}")
        );
    }
    assert_eq!(ask("host10001.test").status(), 404);
}
