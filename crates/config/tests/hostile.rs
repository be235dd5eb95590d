//! Configurations that are out to hurt: each ends soon, within its memory, with a message.

mod common;

use std::time::Duration;

use common::{options, registry, shown};
use forebay_config::{LoadOptions, load_text};

/// The messages, under a small budget of memory, and more time than any of them takes.
fn small(text: &str) -> String {
    under(Duration::from_secs(60), text)
}

/// What this thread has used of a processor, which nothing else on the machine adds to.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::from_secs(time.tv_sec.try_into().expect("a time"))
}

fn under(cpu: Duration, text: &str) -> String {
    let options = LoadOptions {
        cpu,
        memory: 64 << 20,
        ..options()
    };
    let began = cpu_time();
    let path = std::path::Path::new("forebay.lua");
    let message = match load_text(path, text.into(), &registry(), &options) {
        Ok(_) => String::new(),
        Err(report) => report.render(),
    };
    // Far more than it takes, even on a slow machine; without limits it would be for ever.
    assert!(cpu_time() - began < Duration::from_secs(100), "{text}");
    message
}

#[test]
fn loops_without_end() {
    let stopped = "stopped after 300ms of CPU time";
    for text in [
        "while true do end",
        "repeat until false",
        "local function f() return f() end\nwhile true do pcall(f) end",
        "while true do pcall(function() while true do end end) end",
        "local function f() pcall(f) pcall(f) end\nf()",
        "for i = 1, 1e18 do local x = { i } end",
        "local t = setmetatable({}, { __index = function(t, k) while true do end end })\nlocal x = t.y",
        "string.rep('a', 100000):find(('a*'):rep(30) .. 'b')",
        "table.sort(table.create(100, 1), function() while true do end end)",
    ] {
        let message = under(Duration::from_millis(300), text);
        assert!(message.contains(stopped), "{text}: {message}");
        assert!(message.starts_with("forebay.lua:1:") || message.starts_with("forebay.lua:2:"));
    }
}

#[test]
fn memory_without_end() {
    for text in [
        "local s = string.rep('x', 1e9)",
        "local t = {} for i = 1, 1e9 do t[i] = {} end",
        "local s = 'x' while true do s = s .. s end",
        "local t = table.create(5e7, 0)",
        "local t = {}\nwhile true do t[#t + 1] = compress { min_size = '1KB' } end",
    ] {
        let message = small(text);
        assert!(
            message.contains("stopped at 64MB of memory"),
            "{text}: {message}"
        );
    }
}

#[test]
fn calls_without_end() {
    let message = small("local function f() return 1 + f() end\nf()");
    assert!(message.contains("stack overflow"), "{message}");
}

#[test]
fn deep_nesting() {
    let deep = |open: &str, close: &str, n: usize| open.repeat(n) + &close.repeat(n);
    // Luau's own limit.
    let text = format!("local x = {}", deep("{", "}", 100_000));
    assert!(
        small(&text).contains("Exceeded allowed recursion depth"),
        "{}",
        small(&text)
    );
    // Ours, for what Luau still takes: all of it is checked, though places are only lines.
    for n in [70, 150, 190] {
        let text = format!("site {{ \"a\", {} }}", deep("{", "}", n));
        let message = small(&text);
        assert!(message.contains("nested"), "{n}: {message}");
    }
    let built = "local t = compress\nfor i = 1, 100000 do t = { t } end\nsite { 'a', t }";
    assert!(
        small(built).contains("nested more than 64 deep"),
        "{}",
        small(built)
    );
    let routes =
        "local t = compress\nfor i = 1, 10000 do t = route '/*' { t } end\nsite { 'a', t }";
    assert!(
        small(routes).contains("nested more than 64 deep"),
        "{}",
        small(routes)
    );
    let nots = "local t = path '/'\nfor i = 1, 10000 do t = none { t } end\nsite { 'a', respond(200) { when = t } }";
    assert!(
        small(nots).contains("nested more than 64 deep"),
        "{}",
        small(nots)
    );
    let chain =
        "local t = files '/x'\nfor i = 1, 10000 do t = t { listing = true } end\nsite { 'a', t }";
    assert!(
        small(chain).contains("varied more than 100 times"),
        "{}",
        small(chain)
    );
}

/// A few tables that stand for more values than there is room for.
#[test]
fn doubling() {
    let tables =
        "local t = { compress, compress }\nfor i = 1, 50 do t = { t, t } end\nsite { 'a', t }";
    assert!(
        small(tables).contains("more than 5000000 values"),
        "{}",
        small(tables)
    );
    let routes = "local t = route '/*' { compress, files '/x' }\n\
                  for i = 1, 50 do t = route '/a' { t, t } end\nsite { 'a', t }";
    assert!(!small(routes).is_empty());
    let conditions = "local t = path '/'\nfor i = 1, 60 do t = none { t, t } end\n\
                      site { 'a', compress { when = t }, files '/x' }";
    assert_eq!(small(conditions), "");
}

#[test]
fn tricks_with_metatables() {
    let table = [
        ("local t = {} t[1] = t\nsite { 'a', t }", "holds itself"),
        (
            "local t = setmetatable({}, { __index = { rate = '1/s' } })\nsite { 'a', limit(t) }",
            "has a metatable",
        ),
        (
            "site { 'a', setmetatable({ compress }, {}) }",
            "has a metatable",
        ),
        ("setmetatable(compress, {})", "this table cannot be changed"),
        ("rawset(compress, 1, 2)", "this table cannot be changed"),
        ("compress[1] = 2", "this table cannot be changed"),
        ("getmetatable(compress).__call = nil", "with '__call'"),
        (
            "local t = table.clone(compress)\nsite { 'a', t }",
            "has a metatable",
        ),
        ("string.rep = nil", "this table cannot be changed"),
        ("getmetatable('').__index = nil", "attempt to index nil"),
        ("local x = getfenv()", "unknown name `getfenv`"),
        ("loadstring('x = 1')()", "unknown name `loadstring`"),
        ("local x = debug.info", "unknown name `debug`"),
        ("local x = io.open", "unknown name `io`"),
        ("os.execute('true')", "attempt to call"),
        ("coroutine.wrap(function() end)", "unknown name `coroutine`"),
        ("_G.x = 1", "unknown name `_G`"),
        ("for x in compress do end", "cannot be iterated over"),
        ("local x = #compress", "has no length"),
        ("local x = 'a' .. compress", "is not a text"),
        (
            "local _forebay_c = 1\nsite { 'a', limit { rate = 1 } }",
            "`rate` cannot be 1",
        ),
    ];
    for (text, expected) in table {
        let message = small(text);
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn many_mistakes() {
    let text = "for i = 1, 5000 do site { 'a' .. i, limit { rate = i } } end";
    let shown = shown(text);
    let last = shown.lines().last().unwrap();
    assert_eq!(
        last,
        "5000 mistakes, of which 1000 are shown; nothing was changed"
    );
    assert_eq!(shown.lines().count(), 3001);
}

#[test]
fn giant_texts() {
    let text = "local s = string.rep('x', 20000000)\nsite { 'a', respond(200, s), set('x', s:sub(1, 300) .. '$') }";
    let shown = shown(text);
    assert!(
        shown.contains("TEXT cannot be a text of more than 16MB"),
        "{shown}"
    );
    assert!(shown.len() < 2000, "{}", shown.len());
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let shown =
        shown("site { 'a\\27[2J', compress } -- \u{1b}[31m\nsite { 'b\u{1b}]0;x\u{7}', compress }");
    assert!(
        !shown.contains('\u{1b}') && !shown.contains('\u{7}'),
        "{shown:?}"
    );
}

/// Whatever stands in a file: it ends, and nothing panics.
#[test]
fn odd_sources() {
    for text in [
        "",
        "\u{feff}",
        "#!/usr/bin/forebay\n",
        "\0",
        "--[[",
        "[[",
        "'",
        "`",
        "`{",
        "return 5",
        "return compress",
        "\r\n\r\n",
        "\u{1b}Lua",
        "site",
        "site(",
        "{",
        "}",
        ")",
        "...",
        "site { ... , compress }",
        "goto x",
        "local x <const> = 5",
        "local x: { a: number } = { a = 1 }",
        "type T = { [string]: number }\nlocal function f<X>(a: X, ...: any): (X, number?) return a, 1 end",
    ] {
        small(text);
    }
}

/// A source that cannot be marked is run all the same; its messages know the line only.
#[test]
fn sources_without_marks() {
    let text = "local _forebay_c = 1\nsite { 'a',\n  limit {\n    rate = 1 } }\nlocal x = nope";
    let message = small(text);
    let places: Vec<&str> = message
        .lines()
        .filter(|line| line.starts_with("forebay"))
        .collect();
    assert_eq!(
        places,
        [
            "forebay.lua:3:3: limit: `rate` cannot be 1",
            "forebay.lua:5:11: unknown name `nope`",
        ]
    );
}
