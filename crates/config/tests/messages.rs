//! Mistakes: what is said, and where.

mod common;

use common::{check, load, shown};

/// The example of the language's description, to the letter.
#[test]
fn the_example() {
    let text = "\
local app = upstream \"app\" { \"10.0.0.1:8080\", balence = \"least_requests\" }
site { \"example.com\",
  route \"/api/*\" { limit { rate = \"100 per second\" }, prxy(app) },
  proxy(app),
}
";
    let expected = "\
forebay.lua:1:47: upstream \"app\" has no option `balence`
  1 | local app = upstream \"app\" { \"10.0.0.1:8080\", balence = \"least_requests\" }
    |                                               ^^^^^^^ did you mean `balance`?
forebay.lua:3:35: limit: `rate` cannot be \"100 per second\"
  3 |   route \"/api/*\" { limit { rate = \"100 per second\" }, prxy(app) },
    |                                   ^^^^^^^^^^^^^^^^ expected COUNT/TIME, as \"100/s\" or \"20/10s\"
forebay.lua:3:55: unknown name `prxy`
  3 |   route \"/api/*\" { limit { rate = \"100 per second\" }, prxy(app) },
    |                                                       ^^^^ did you mean `proxy`?
3 mistakes; nothing was changed
";
    assert_eq!(shown(text), expected);
}

#[test]
fn as_json() {
    let report = load("site { \"a\", files \"/x\" { max_age = \"1 day\" } }\nfoo()").unwrap_err();
    let expected = concat!(
        r#"{"file":"forebay.lua","line":1,"column":36,"end_column":43,"code":"bad_value","#,
        r#""message":"files: `max_age` cannot be \"1 day\"","#,
        r#""help":"expected a duration, as \"250ms\", \"5s\" or \"10m\""}"#,
        "\n",
        r#"{"file":"forebay.lua","line":2,"column":1,"end_column":4,"code":"unknown_name","#,
        r#""message":"unknown name `foo`","help":""}"#,
        "\n",
    );
    assert_eq!(report.render_json(), expected);
}

/// A value of every type that is wrong, with its message and its column.
#[test]
fn bad_values() {
    let table = [
        (
            r#"limit { rate = «"x"» }"#,
            r#"limit: `rate` cannot be "x""#,
            r#"expected COUNT/TIME, as "100/s" or "20/10s""#,
        ),
        (
            r#"limit { burst = «1.5», rate = "1/s" }"#,
            r#"limit: `burst` cannot be 1.5"#,
            r#"expected a whole number from 0 to 1000000000"#,
        ),
        (
            r#"limit { burst = «-1», rate = "1/s" }"#,
            r#"limit: `burst` cannot be -1"#,
            r#"expected a whole number from 0 to 1000000000"#,
        ),
        (
            r#"limit { burst = «"5"», rate = "1/s" }"#,
            r#"limit: `burst` cannot be "5""#,
            r#"expected a whole number from 0 to 1000000000"#,
        ),
        (
            r#"limit { body = «"64 MB"» }"#,
            r#"limit: `body` cannot be "64 MB""#,
            r#"expected a size, as "64KB" or "512MB""#,
        ),
        (
            r#"limit { body = «64» }"#,
            r#"limit: `body` cannot be 64"#,
            r#"expected a size, as "64KB" or "512MB""#,
        ),
        (
            r#"limit { bandwidth = «"1MB"» }"#,
            r#"limit: `bandwidth` cannot be "1MB""#,
            r#"expected SIZE/s, as "1MB/s""#,
        ),
        (
            r#"limit { rate = "1/s", by = «"$clientip"» }"#,
            r#"limit: `by`: unknown variable `$clientip`"#,
            r#"did you mean `$client_ip`?"#,
        ),
        (
            r#"files "/x" { listing = «1» }"#,
            r#"files: `listing` cannot be 1"#,
            r#"expected `true` or `false`"#,
        ),
        (
            r#"files "/x" { max_age = «"11y"» }"#,
            r#"files: `max_age` cannot be "11y""#,
            r#"the longest is "10y""#,
        ),
        (
            r#"files «"/x/$uri"»"#,
            r#"files: ROOT: misplaced variable `$uri`"#,
            r#"in a path stand `$host` `$path` `$rest` `$params.NAME` `$vars.NAME`"#,
        ),
        (
            r#"files "/x" { try = «"../y"» }"#,
            r#"files: `try` cannot be "../y""#,
            r#"`..` leads out of the directory"#,
        ),
        (
            r#"files(«true»)"#,
            r#"files: ROOT cannot be true"#,
            r#"expected a path, which may hold variables"#,
        ),
        (
            r#"proxy «"app"»"#,
            r#"proxy: TARGET cannot be "app""#,
            r#"expected a target, as "10.0.0.1:8080", "https://origin" or "unix:/run/app.sock""#,
        ),
        (
            r#"proxy «"http://app/x"»"#,
            r#"proxy: TARGET cannot be "http://app/x""#,
            r#"a target has no path: write `rewrite` above it"#,
        ),
        (
            r#"proxy "a:1" { read_timeout = «"8d"» }"#,
            r#"proxy: `read_timeout` cannot be "8d""#,
            r#"expected a duration from 1ms to 7d"#,
        ),
        (
            r#"proxy "a:1" { retries = «6» }"#,
            r#"proxy: `retries` cannot be 6"#,
            r#"expected a whole number from 0 to 5"#,
        ),
        (
            r#"proxy "a:1" { retry_on = { "reset", «"tmieout"» } }"#,
            r#"proxy: `retry_on` cannot be "tmieout""#,
            r#"did you mean "timeout"?"#,
        ),
        (
            r#"proxy(«compress»)"#,
            r#"proxy: TARGET cannot be the step `compress`"#,
            r#"expected upstream or target"#,
        ),
        (
            r#"allow «"10.0.0.1/8"»"#,
            r#"allow: PREFIX cannot be "10.0.0.1/8""#,
            r#"expected a prefix, as "10.0.0.0/8", "192.0.2.7" or "private""#,
        ),
        (
            r#"respond(«700»)"#,
            r#"respond: STATUS cannot be 700"#,
            r#"expected a status from 200 to 599"#,
        ),
        (
            r#"respond «"200"»"#,
            r#"respond: STATUS cannot be "200""#,
            r#"expected a status from 200 to 599"#,
        ),
        (
            r#"respond(200, «"$status"»)"#,
            r#"respond: TEXT: misplaced variable `$status`"#,
            r#"a request has no response yet"#,
        ),
        (
            r#"respond(200, «"5 $"»)"#,
            r#"respond: TEXT cannot be "5 $""#,
            r#"write `$$` for a dollar sign"#,
        ),
        (
            r#"respond(200) { headers = { x_a = «"a\nb"» } }"#,
            r#"respond: `headers.x_a` cannot be "a\nb""#,
            r#"a field's value is one line without control characters"#,
        ),
        (
            r#"respond(200) { headers = { [«"a b"»] = "c" } }"#,
            r#"respond: `a b` is no field name"#,
            r#"expected letters, digits, `_`, `-`"#,
        ),
        (
            r#"respond(200) { headers = { x_a = «true» } }"#,
            r#"respond: `headers.x_a` cannot be true"#,
            r#"expected a text, a list of texts, `false`, `add "…"` or `default "…"`"#,
        ),
        (
            r#"set(«"a b"», "c")"#,
            r#"set: NAME cannot be "a b""#,
            r#"expected a name: 1 to 64 letters, digits, `-`, `_`, `.`"#,
        ),
        (
            r#"compress { encodings = «"lz4"» }"#,
            r#"compress: `encodings` cannot be "lz4""#,
            r#"expected "zstd", "br" or "gzip""#,
        ),
        (
            r#"cors { origins = «"a*b"» }"#,
            r#"cors: `origins` cannot be "a*b""#,
            r#"expected a match, as "abc", "abc*", "*abc", "*abc*" or `regex "…"`"#,
        ),
        (
            r#"cors { origins = «regex "("» }"#,
            r#"cors: `origins` cannot be regex "(""#,
            r#"not an expression: unclosed group"#,
        ),
        (
            r#"compress { when = share «"200%"» }"#,
            r#"share: PERCENT cannot be "200%""#,
            r#"expected a percentage up to "100%", as "10%""#,
        ),
        (
            r#"compress { when = path «"x"» }"#,
            r#"path: PATTERN cannot be "x""#,
            r#"expected a pattern, as "/x", "/x/*", "*.php", "/a/*.php" or "/u/:id""#,
        ),
        (
            r#"compress { when = «"/x"» }"#,
            r#"compress: `when` cannot be "/x""#,
            r#"expected a condition, or a list of conditions"#,
        ),
        (
            r#"compress { when = «compress» }"#,
            r#"compress: `when` cannot be the step `compress`"#,
            r#"expected a condition, or a list of conditions"#,
        ),
        (
            r#"compress { when = «{}» }"#,
            r#"compress: `when` cannot be a list"#,
            r#"expected at least one condition"#,
        ),
        (
            r#"compress { when = «status "4xx"» }"#,
            r#"compress: `status` looks at the response"#,
            r#"here, nothing but the request is known"#,
        ),
        (
            r#"errors { [«99»] = "/x" }"#,
            r#"errors: the key `[99]` cannot be used"#,
            r#"expected a status, as 404, or a class, as "4xx""#,
        ),
        (
            r#"cache { ttl = { [200] = «"1 d"» } }"#,
            r#"cache: `ttl[200]` cannot be "1 d""#,
            r#"expected a duration, as "250ms", "5s" or "10m""#,
        ),
        (
            r#"cache { ttl = { «"1d"» } }"#,
            r#"cache: `ttl` takes no list, but has "1d""#,
            r#"expected `NAME = VALUE` only"#,
        ),
        (
            r#"functions "f" { count = «{ 1, 2, 3 }» }"#,
            r#"functions: `count` cannot be a list"#,
            r#"expected { count 1–1000000, count 1–1000000 }"#,
        ),
        (
            r#"set("a", «"b\255"»)"#,
            r#"set: TO cannot be a text that is not UTF-8"#,
            r#"expected a text, which may hold variables"#,
        ),
    ];
    for (marked, message, help) in table {
        let start = marked.find('«').unwrap();
        let len = marked.find('»').unwrap() - start - '«'.len_utf8();
        let step = marked.replace(['«', '»'], "");
        let report = load(&format!("site {{ \"a.example\",\n{step} }}")).unwrap_err();
        let [found] = report.mistakes().try_into().unwrap();
        assert_eq!((&*found.message, &*found.help), (message, help), "{step}");
        let columns = (found.line, found.column, found.end_column);
        let start = u32::try_from(start).unwrap();
        assert_eq!(
            columns,
            (2, start + 1, start + 1 + u32::try_from(len).unwrap()),
            "{step}"
        );
    }
}

#[test]
fn bad_values_of_declarations() {
    let table = [
        (
            "listen \"443\"",
            "1:8: listen \"443\": ADDRESS cannot be \"443\" (expected an address, as \":443\", \"127.0.0.1:80\" or \"unix:/run/a.sock\")",
        ),
        (
            "listen \":1\" { header_timeout = \"1ms\" }",
            "1:32: listen \":1\": `header_timeout` cannot be \"1ms\" (expected a duration from 1s to 1d)",
        ),
        (
            "listen \":1\" { max_header = \"2MB\" }",
            "1:28: listen \":1\": `max_header` cannot be \"2MB\" (expected a size from 1KB to 1MB)",
        ),
        (
            "server { memory = \"x\" }",
            "1:19: server: `memory` cannot be \"x\" (expected percent or size)",
        ),
        (
            "site { \"a:80\", compress }",
            "1:8: site \"a:80\": HOST cannot be \"a:80\" (expected a host name, as \"example.com\", \"*.example.com\" or \"*\")",
        ),
        (
            "site { compress }",
            "1:1: site: HOST is missing (expected a host name, as \"example.com\", \"*.example.com\" or \"*\", or a list)",
        ),
        (
            "site { \"a\" }",
            "1:1: site \"a\": PIPELINE is missing (expected a step, or a list of steps)",
        ),
        (
            "site { \"a\", compress, \"b\" }",
            "1:23: site \"a\": PIPELINE cannot be \"b\" (expected a step, or a list of steps)",
        ),
        (
            "site { \"a\", upstream \"u\" { \"b:1\" } }",
            "1:13: site \"a\": PIPELINE cannot be the declaration `upstream` (expected a step, as `proxy(…)`)",
        ),
        (
            "site { \"a\", path \"/x\" }",
            "1:13: site \"a\": PIPELINE cannot be the condition `path` (a condition stands in the `when` of a step)",
        ),
    ];
    for (text, message) in table {
        check(text, &[message]);
    }
}

#[test]
fn missing_and_too_many() {
    check(
        "site { \"a\", proxy { retries = 1 }, cors {}, redirect(), files(\"a\", \"b\"), limit {} }",
        &[
            "1:13: proxy: TARGET is missing (expected upstream or target)",
            "1:36: cors: `origins` is missing (expected a match, as \"abc\", \"abc*\", \"*abc\", \"*abc*\" or `regex \"…\"`, or a list)",
            "1:45: redirect: an empty call (write `redirect` without `()`)",
            "1:68: files: \"b\" is one too many (expected `files ROOT { OPTION = … }`)",
            "1:74: limit: no limit (give one of `rate`, `concurrency`, `bandwidth`, `body`)",
        ],
    );
    check(
        "site { \"a\", errors {} }",
        &["1:13: errors: it has no entry (expected `STATUS = PAGE`)"],
    );
    check(
        "site { \"a\", proxy { \"b:1\" } }",
        &["1:21: proxy takes no list, but has \"b:1\" (expected `proxy TARGET { OPTION = … }`)"],
    );
}

#[test]
fn unknown_options() {
    check(
        "site { \"a\", htps = \"force\", files \"/x\" { indx = 1, foo = 2, [3] = 4, when = path \"/\" } }",
        &[
            "1:13: site \"a\" has no option `htps` (did you mean `https`?)",
            "1:42: files has no option `indx` (did you mean `index`?)",
            "1:52: files has no option `foo` (it has `try` `index` `listing` `max_age` `immutable` `when`)",
            "1:62: files has no option `[3]` (it has `try` `index` `listing` `max_age` `immutable` `when`)",
        ],
    );
    check(
        "site { \"a\", cache { when = path \"/x\" }, compress }",
        &["1:21: cache has no option `when`"],
    );
    check(
        "site { \"a\", errors { [404] = \"/x\", intercpt = true } }",
        &["1:36: errors has no option `intercpt` (did you mean `intercept`?)"],
    );
}

/// Every place is that of the key or value itself, also far from the directive's call.
#[test]
fn places_in_nested_tables_and_behind_locals() {
    check(
        r#"local health = {
  path = "/up",
  evry = "1s",
}
local peers = { "10.0.0.1:80", { "10.0.0.2", weight = 0 } }
local app = upstream "app" {
  health = health,
  peers,
}
local opts = { max_age = "soon", }
local steps = {
  compress,
  files "/x" (opts),
}
site { "a.example",
  { { steps } },
  proxy(app),
}
"#,
        &[
            "3:3: upstream \"app\": `health` has no option `evry` (did you mean `every`?)",
            "5:34: upstream \"app\": PEER cannot be \"10.0.0.2\" (expected a target, as \"10.0.0.1:8080\", \"https://origin\" or \"unix:/run/app.sock\")",
            "5:55: upstream \"app\": `weight` cannot be 0 (expected a whole number from 1 to 1000)",
            "10:26: files: `max_age` cannot be \"soon\" (expected a duration, as \"250ms\", \"5s\" or \"10m\")",
        ],
    );
}

#[test]
fn places_of_several_calls_on_a_line() {
    check(
        "site { \"a\", limit { rate = 1 }, limit { rate = 2 }, limit { rate = 3 }, files \"x\" }",
        &[
            "1:28: limit: `rate` cannot be 1 (expected COUNT/TIME, as \"100/s\" or \"20/10s\")",
            "1:48: limit: `rate` cannot be 2 (expected COUNT/TIME, as \"100/s\" or \"20/10s\")",
            "1:68: limit: `rate` cannot be 3 (expected COUNT/TIME, as \"100/s\" or \"20/10s\")",
        ],
    );
}

/// A table built step by step has no place of its own for a key: the argument's is the best known.
#[test]
fn places_in_loops() {
    check(
        r#"for i = 1, 3 do
  local options = {}
  options["max_age"] = i
  site { "h" .. i .. ".example", files "/x" (options) }
end
"#,
        &[
            "4:46: files: `max_age` cannot be 1 (expected a duration, as \"250ms\", \"5s\" or \"10m\")",
            "4:46: files: `max_age` cannot be 2 (expected a duration, as \"250ms\", \"5s\" or \"10m\")",
            "4:46: files: `max_age` cannot be 3 (expected a duration, as \"250ms\", \"5s\" or \"10m\")",
        ],
    );
}

#[test]
fn places_in_tabs_and_wide_letters() {
    let text = "site { \"a\",\n\t-- é\n\tset(\"ä\", \"ö\"), respond(99) }";
    let expected = "\
forebay.lua:3:6: set: NAME cannot be \"ä\"
  3 | \tset(\"ä\", \"ö\"), respond(99) }
    | \t    ^^^ expected a name: 1 to 64 letters, digits, `-`, `_`, `.`
forebay.lua:3:25: respond: STATUS cannot be 99
  3 | \tset(\"ä\", \"ö\"), respond(99) }
    | \t                       ^^ expected a status from 200 to 599
2 mistakes; nothing was changed
";
    assert_eq!(shown(text), expected);
}

#[test]
fn lines_of_two_digits_and_long_lines() {
    let text = format!(
        "{}site {{ \"a\", {}nope }}",
        "\n".repeat(99),
        "compress, ".repeat(50)
    );
    let shown = shown(&text);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "forebay.lua:100:513: unknown name `nope`");
    assert!(lines[1].starts_with("  100 | ") && lines[1].ends_with("compress, nope }"));
    assert!(lines[2].starts_with("      | ") && lines[2].ends_with("^^^^ did you mean `none`?"));
    assert_eq!(lines[1].find("nope"), lines[2].find("^^^^"));
    assert!(lines[1].len() < 200);
}

#[test]
fn unknown_names_and_globals() {
    check(
        r#"local stps = { prxy "a:1", prxy "b:1", foo.bar.baz { x = 1 }:qux() .. "z" }
hosts = { "a.example" }
site { hosts, stp, compress }
function helper() end
site = 3
for _, x in undefined do print(x) end
if missing < 3 and #missing == 0 then compress {} end
"#,
        &[
            "1:16: unknown name `prxy` (did you mean `proxy`?)",
            "1:28: unknown name `prxy` (did you mean `proxy`?)",
            "1:40: unknown name `foo`",
            "2:1: `hosts` is not a local (write `local hosts = …`)",
            "3:15: unknown name `stp` (did you mean `stps`?)",
            "4:10: `helper` is not a local (write `local helper = …`)",
            "5:1: `site` cannot be assigned (choose another name)",
            "6:13: unknown name `undefined`",
            "7:4: unknown name `missing`",
        ],
    );
}

#[test]
fn nil_in_a_list_is_not_skipped() {
    check(
        "local access = {}\nsite { \"a\", access.private, files \"/x\" }",
        &["2:13: site \"a\": item 2 of the list is nil (has the name a value at this point?)"],
    );
    check(
        "local access\nsite { \"a\", files \"/x\", access }",
        &["2:25: site \"a\": item 3 of the list is nil (has the name a value at this point?)"],
    );
    check(
        "local x\nsite { \"a\", proxy(x) }",
        &["2:19: proxy: TARGET cannot be nil (expected upstream or target)"],
    );
    // A function in the last place may give nothing.
    check(
        "local function none_of_them() end\nsite { \"a\", files \"/x\", none_of_them() }",
        &[],
    );
}

#[test]
fn given_twice() {
    check(
        "site { \"a\", limit { rate = \"1/s\", body = \"1MB\", rate = \"2/s\" }, files \"/x\" }",
        &["1:49: `rate` is given twice (the second would replace the first)"],
    );
    check(
        "server { watch = true }\nserver { workers = 1 }",
        &["2:1: `server { OPTION = … }` is given twice (first at forebay.lua:1)"],
    );
    check(
        "site { \"a\", \"B\", compress }\nsite { \"b\", compress }\nsite { \"b\", on = \":80\", compress }\nsite { \"b\", on = { \":81\", \":80\" }, compress }",
        &[
            "2:8: site: \"b\" is declared twice (first at forebay.lua:1)",
            "4:8: site: \"b\" is declared twice (first at forebay.lua:3)",
        ],
    );
    check(
        "local a = upstream \"a\" { \"b:1\" }\nlocal b = upstream \"a\" { \"c:1\" }\nsite { \"x\", route \"/a\" { proxy(a) }, proxy(b) }",
        &["2:20: upstream \"a\" is declared twice (first at forebay.lua:1)"],
    );
    check(
        "site { \"a\", respond(200) { headers = { x_a = \"1\", [\"X-A\"] = \"2\" } } }",
        &["1:52: respond: the field `X-A` is given twice (give its lines as a list)"],
    );
}

#[test]
fn order_of_steps() {
    check(
        r#"site { "a",
  proxy "b:1",
  compress,
  files "/x",
}
site { "b",
  route "/*" { respond(404) },
  compress,
}
site { "c",
  route "/a/*" { files "/x" },
  route "/a/b" { files "/y" },
  route { "/a", "/b" } { files "/z" },
  route "/a/*" { when = method "POST", files "/z" },
  respond(403) { when = path "/q" },
  files "/x",
  fastcgi "unix:/a" { root = "/x" },
  fastcgi "unix:/a",
}
site { "d", cache { force = true }, route "/x" { allow "10.0.0.0/8", compress }, deny "10.0.0.1", files "/x" }
"#,
        &[
            "3:3: site \"a\": `compress` is never reached (`proxy` above answers every request)",
            "8:3: site \"b\": `compress` is never reached (the route above takes every request)",
            "12:3: route \"/a/b\" is never reached (route \"/a/*\" above takes its requests)",
            "14:3: route \"/a/*\" is never reached (route \"/a/*\" above takes its requests)",
            "20:50: site \"d\": access control below `cache` (what is answered from the store would not be asked: move it above)",
            "20:82: site \"d\": access control below `cache` (what is answered from the store would not be asked: move it above)",
        ],
    );
}

#[test]
fn functions_are_refused() {
    check(
        r#"site { "a",
  function(req) return nil end,
  compress { when = function() return true end },
  access_log(function(entry) end),
  files "/x" { max_age = function() end },
}
"#,
        &[
            "2:3: site \"a\": functions are not built yet (use a directive or a plain value)",
            "3:21: compress: functions are not built yet (use a directive or a plain value)",
            "4:14: access_log: functions are not built yet (use a directive or a plain value)",
            "5:26: files: functions are not built yet (use a directive or a plain value)",
        ],
    );
}

#[test]
fn what_is_not_built_is_unknown() {
    check(
        "site { \"a\", jwt \"keys\", files \"/x\" }\nlocal d = directive \"x\" {}\nevery(\"1m\", print)",
        &[
            "1:13: unknown name `jwt`",
            "2:11: unknown name `directive`",
            "3:1: unknown name `every`",
        ],
    );
}

#[test]
fn unused_things_are_warned_of() {
    check(
        r#"local a = upstream "a" { "b:1" }
local s = files "/x"
local t = s { listing = true }
compress { min_size = "1KB" }
site { "a", s }
"#,
        &[
            "1:11: warning: nothing uses upstream \"a\"",
            "3:11: warning: nothing uses this `files` (put it into a pipeline)",
            "4:1: warning: nothing uses this `compress` (put it into a pipeline)",
        ],
    );
}

#[test]
fn syntax_errors() {
    check(
        "site { \"a\",\n  compress\n  files \"/x\" }",
        &["3:3: Expected ',' after table constructor element"],
    );
    check(
        "site { \"a\", compress",
        &["1:1: Expected '}' (to close '{' at column 6), got <eof>"],
    );
    check(
        "local = 5",
        &["1:7: Expected identifier when parsing variable name, got '='"],
    );
}

#[test]
fn lua_errors() {
    check(
        "compress {}\nlocal x\nlocal y = x.z",
        &["3:1: attempt to index nil with 'z'"],
    );
    check("error \"custom\"", &["1:1: custom"]);
    check("error({})", &["1:1: an error that is not a text"]);
    check(
        "local o = { root = \"/a\" }\nfastcgi \"unix:/x\" (o)\no.root = \"/b\"",
        &[
            "3:1: this table cannot be changed (what was given to a directive stays as it was: make a new table)",
        ],
    );
    check(
        "site { \"a\", compress }\nlocal x = compress.foo",
        &["2:1: a directive has no field `foo`"],
    );
    // What was declared before is checked all the same.
    check(
        "site { \"a\", files \"/x\" { listing = 1 } }\nerror \"stop\"",
        &[
            "1:36: files: `listing` cannot be 1 (expected `true` or `false`)",
            "2:1: stop",
        ],
    );
}

#[test]
fn values_of_the_environment_are_masked() {
    let text = "site { \"a\", proxy(\"http://\" .. env \"SECRET\" .. \"/x\") }";
    let shown = shown(text);
    assert!(
        shown.contains("TARGET cannot be \"http://***/x\""),
        "{shown}"
    );
    assert!(!shown.contains("hunter22"), "{shown}");
    check(
        "local x = env \"NOT_SET\"\nlocal y = env(\"NOT_SET\", \"d\")\nfiles(y)\nfiles(x)",
        &[
            "1:15: the environment has no \"NOT_SET\" (set it, or give a default as the second argument)",
        ],
    );
}
