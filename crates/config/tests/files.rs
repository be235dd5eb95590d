//! What a file reads while it is loaded: other files, the environment, lists of paths.

mod common;

use std::fs;
use std::path::Path;

use common::load_in;
use forebay_config::Report;

/// Loads `forebay.lua` in a directory with these files, and returns its messages, short.
#[track_caller]
fn check(files: &[(&str, &str)], text: &str, expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), files);
    let found = match load_in(dir.path(), text) {
        Ok(loaded) => short(&loaded.report, dir.path()),
        Err(report) => short(&report, dir.path()),
    };
    assert_eq!(found, expected);
}

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn short(report: &Report, dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    let line = |one: &forebay_config::Diagnostic| {
        let help = if one.help.is_empty() {
            String::new()
        } else {
            format!(" ({})", one.help)
        };
        let place = format!("{}:{}:{}", one.file, one.line, one.column);
        format!("{place}: {}{help}", one.message).replace(&prefix, "")
    };
    report.mistakes().iter().map(line).collect()
}

#[test]
fn places_in_required_files() {
    check(
        &[
            (
                "parts/steps.lua",
                "return {\n  compress,\n  limit { rate = 5 },\n}",
            ),
            ("sites/a.lua", "site { \"a\", steps, files \"/x\" }"),
            (
                "sites/b.lua",
                "local steps = require \"parts/steps\"\nsite { \"b\", steps, fils \"/x\" }",
            ),
        ],
        "local steps = require \"parts/steps\"\nrequire(glob \"sites/*.lua\")\nsite { \"c\", steps, files \"/x\" }",
        &[
            "parts/steps.lua:3:18: limit: `rate` cannot be 5 (expected COUNT/TIME, as \"100/s\" or \"20/10s\")",
            "sites/a.lua:1:13: unknown name `steps`",
            "sites/b.lua:2:20: unknown name `fils` (did you mean `files`?)",
        ],
    );
}

#[test]
fn required_once_with_its_value() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[
            ("app.lua", "return upstream \"app\" { \"a:1\" }"),
            ("sites/x.lua", "site { \"x\", proxy(require \"app\") }"),
            ("sites/y.lua", "site { \"y\", proxy(require \"app.lua\") }"),
        ],
    );
    let loaded = load_in(dir.path(), "require \"sites/*\"").unwrap();
    assert_eq!(loaded.by("upstream").count(), 1);
    assert_eq!(loaded.by("site").count(), 2);
    let names: Vec<String> = loaded
        .files
        .iter()
        .map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string())
        .collect();
    assert_eq!(
        names,
        ["forebay.lua", "sites/x.lua", "app.lua", "sites/y.lua"]
    );
    assert_eq!(
        loaded.globs,
        [format!("{}/sites/*.lua", dir.path().display())]
    );
}

#[test]
fn require_refuses() {
    check(
        &[
            ("a.lua", "require \"b\""),
            (
                "b.lua",
                "local x = require \"a\"\nsite { \"a\", x, files \"/x\" }",
            ),
            ("broken.lua", "site { \"c\", compress\n"),
            ("stops.lua", "local x\n\nx.y = 1"),
        ],
        r#"require "../etc/passwd"
require "/etc/passwd"
require "a/../../b"
require "missing"
require(5)
require { "a", 7 }
require "broken"
require "stops"
site { "d", limit { rate = 1 } }
"#,
        &[
            "forebay.lua:1:9: require cannot be \"../etc/passwd\" (expected a name below the main file's directory, without `..`)",
            "forebay.lua:2:9: require cannot be \"/etc/passwd\" (expected a name below the main file's directory, without `..`)",
            "forebay.lua:3:9: require cannot be \"a/../../b\" (expected a name below the main file's directory, without `..`)",
            "forebay.lua:4:9: require: \"missing\": there is no such file (looked for missing.lua)",
            "forebay.lua:5:9: require takes a name, or a list of names and patterns (expected `require \"NAME\"`)",
            "forebay.lua:6:9: require takes a name, or a list of names and patterns (expected `require \"NAME\"`)",
            "forebay.lua:9:28: limit: `rate` cannot be 1 (expected COUNT/TIME, as \"100/s\" or \"20/10s\")",
            "b.lua:1:19: \"a\" requires itself (a.lua → b.lua → a.lua)",
            "broken.lua:2:1: Expected '}' (to close '{' at line 1), got <eof>",
            "stops.lua:3:1: attempt to index nil with 'y'",
        ],
    );
}

#[test]
fn reads() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[
            ("token", "abc\n"),
            ("list", "\u{20} 10.0.0.0/8 \r\n\n# no\n192.0.2.1\n"),
            ("d/1", ""),
            ("d/2", ""),
        ],
    );
    let text = r#"
assert(read "token" == "abc")
local list = lines "list"
assert(#list == 2 and list[1] == "10.0.0.0/8" and list[2] == "192.0.2.1")
local found = glob "d/*"
assert(#found == 2 and found[1] == "d/1" and found[2] == "d/2")
assert(#glob "e/*" == 0)
assert(env "SECRET" == "hunter22" and env("OTHER", "x") == "x")
assert(os.time() > 0 and os.date() ~= "")
site { "a", allow(list), respond(200, read "token") }
"#;
    let loaded = load_in(dir.path(), text).unwrap();
    assert_eq!(loaded.files.len(), 3);
    let env: Vec<(&str, bool)> = loaded.env.iter().map(|e| (&*e.name, e.set)).collect();
    assert_eq!(env, [("SECRET", true), ("OTHER", false)]);
}

#[test]
fn reads_that_fail() {
    check(
        &[("binary", "a\u{0}b")],
        r#"local a = read "none"
local b = lines("/dev/zero")
local c = read "."
local d = glob "[x"
local e = read(5)
local f = read()
local g = env("A", "B", "C")
site { "a", respond(200, a), allow(b), basic_auth(c .. "/x"), files(nope), set("x", read "none") }
"#,
        &[
            "forebay.lua:1:16: read: \"none\": there is no such file (looked for none)",
            "forebay.lua:2:17: lines: \"/dev/zero\": not a regular file (looked for /dev/zero)",
            "forebay.lua:3:16: read: \".\": not a regular file (looked for .)",
            "forebay.lua:4:16: glob: \"[x\" is not a pattern: invalid range pattern",
            "forebay.lua:5:16: read cannot be a number (expected `read \"PATH\"`)",
            "forebay.lua:6:11: read: a text is missing (expected `read \"PATH\"`)",
            "forebay.lua:7:25: env: a text is one too many (expected `env \"NAME\"` or `env(\"NAME\", \"DEFAULT\")`)",
            "forebay.lua:8:69: unknown name `nope` (did you mean `none`?)",
            "forebay.lua:8:90: read: \"none\": there is no such file (looked for none)",
        ],
    );
}
