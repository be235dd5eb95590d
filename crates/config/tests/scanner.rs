//! The scanner: what it finds in a source, that it understands Luau, and that nothing upsets it.

use std::time::{Duration, Instant};

use forebay_config::scan::{Key, Scan, scan};
use mlua::Lua;
use proptest::prelude::*;

/// Every site and its parts, as they stand in the source: `name(part, key=part)`.
fn sites(text: &str) -> Vec<String> {
    let found = scan(text.as_bytes(), 0);
    assert!(found.code.is_some(), "not understood: {text}");
    let at = |span: (u32, u32)| &text[span.0 as usize..span.1 as usize];
    let mut shown = Vec::new();
    for site in &found.sites {
        let parts = &found.parts[site.first as usize..(site.first + site.count) as usize];
        let parts: Vec<String> = parts
            .iter()
            .map(|part| match part.key {
                Key::Item => at(part.value_span).to_owned(),
                Key::Name => format!("{}={}", at(part.key_span), at(part.value_span)),
                Key::Literal => format!("[{}]={}", at(part.key_span), at(part.value_span)),
                Key::Computed => format!("[?]={}", at(part.value_span)),
            })
            .collect();
        let name = match site.called {
            Some(name) => at(name),
            None if at(site.span).starts_with('{') => "",
            None => at(site.span),
        };
        shown.push(format!("{name}({})", parts.join(", ")));
    }
    shown
}

#[test]
fn calls_and_tables() {
    let table: [(&str, &[&str]); 13] = [
        ("f(a, 'b', { c })", &["f(a, 'b', { c })", "(c)"]),
        (
            "f 'x' { a = 1, ['b'] = 2, [3] = 4, [i] = 5, 6; 7 }",
            &["f('x')", "f(a=1, ['b']=2, [3]=4, [?]=5, 6, 7)"],
        ),
        ("f()", &["f()"]),
        (
            "local x = steps.cache { ttl = '1d' }",
            &["steps.cache(ttl='1d')"],
        ),
        (
            "f(function(a, b) return g(a, { b }) end, 2)",
            &[
                "f(function(a, b) return g(a, { b }) end, 2)",
                "g(a, { b })",
                "(b)",
            ],
        ),
        ("s:method(f(1)):other { 2 }", &["f(1)", "(2)"]),
        ("f[[long]]", &["f([[long]])"]),
        ("f -- comment\n { 1 }", &["f(1)"]),
        (
            "local s = `a{f(1)}b{ { x = `{g 'y'}` } }`",
            &["f(1)", "(x=`{g 'y'}`)", "g('y')"],
        ),
        (
            "if a then f(1) elseif b then f(2) else f(3) end",
            &["f(1)", "f(2)", "f(3)"],
        ),
        (
            "local x = if a then f(1) elseif b then f(2) else { 3 }",
            &["f(1)", "f(2)", "(3)"],
        ),
        ("(f)(1)(2)", &["(f)(1)", "(f)(2)"]),
        (
            "f(((a)), -b, not c, #d, ...)",
            &["f(((a)), -b, not c, #d, ...)"],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(sites(text), expected, "{text}");
    }
}

/// Sources in every corner of the grammar: the marked code compiles and gives the same.
const PROGRAMS: &[&str] = &[
    "local a, b = 1, 2 return a + b",
    "local function f(...) return select('#', ...), ... end return f(), f(1), (f(1, 2)), f(f(3))",
    "local t = { 1, 2, f = function(self, x) return x end, [10] = 5, ['k'] = 6; 7 }\nreturn #t, t.f(t, 8), t:f(9), t[10], t.k",
    "local s = 0 for i = 1, 10, 2 do s += i end for k, v in pairs({ a = 1 }) do s += v end return s",
    "local i = 0 repeat i += 1 local done = i > 3 until done return i",
    "local n = 0 while true do n += 1 if n == 2 then continue end if n > 4 then break end end return n",
    "local s = 'a' s ..= 'b' return s .. [[c]] .. [=[d]=] .. \"e\\\"\" .. 'f\\z\n   g' .. `h{1 + 1}i{'j'}`",
    "local x: number, y: { [string]: number } = 1, { a = 2 } return x + y.a",
    "type P<T> = { first: T, rest: P<T>? } | nil\nexport type Q = (number, ...string) -> (boolean, string)\nlocal function f<T>(a: T, ...: number): T return a end return f(3)",
    "local x = (5 :: any) :: number return x",
    "return if 1 > 2 then 'a' elseif 2 > 1 then 'b' else 'c'",
    "local function f(t) return t end return f { f { f { 4 } } }[1][1][1]",
    "local f = function(x) return function(y) return x .. y end end return f 'a' 'b'",
    "local function f(s)\n  return s\nend\nreturn f\n'x', (f)\n{ 1 }[1]",
    "local continue, type = 1, type return continue, type(continue)",
    "local continue = function(x) return x end continue(1) return continue 'x'",
    "local t = { a = { b = { c = function() return 'd' end } } } return t.a.b.c(), t.a['b'].c()",
    "do local a <const> = 1 end return 2",
    "local a = -2 ^ 2 local b = not nil == true local c = 'x' .. 1 .. 2 return a, b, c, 7 // 2, 7 % 3, 0xFF, 1e3, 0b11, 1_000",
    "@native local function f() return 1 end return f()",
    "local r = { pcall(error, 'x') } return #r, r[1], r[2]",
    "return (function(...) return { ... } end)(1, nil, 3)[3]",
    "function _G_() end return 1",
    "return",
    "",
    "--[==[ a ]] ]==] return --[[x]] 1 -- y",
    ";;; local a = 1; return a;",
    "local t = {} t.x, t.y = 1, 2 t['z'] = 3 t.f = {} t.f.g = 4 return t.x + t.y + t.z + t.f.g",
];

/// Runs a source with markers that keep count, and returns what it returned, and the count.
fn run(lua: &Lua, code: &[u8], marked: bool) -> Result<(String, u32), String> {
    let chunk = lua
        .load(code)
        .set_name("=c")
        .into_function()
        .map_err(|e| e.to_string())?;
    let harness = "\
        local chunk = ...\n\
        local count = 0\n\
        local function call(n, ...) count += 1 return ... end\n\
        local function mark(n, t, sure) count += 1 return t end\n\
        local all = table.pack(pcall(chunk, call, mark))\n\
        for i = 1, all.n do\n\
          all[i] = if type(all[i]) == 'table' then 'table' else tostring(all[i])\n\
        end\n\
        return table.concat(all, ' ', 1, all.n), count";
    let (shown, count) = lua
        .load(harness)
        .call::<(String, u32)>(chunk)
        .map_err(|e| e.to_string())?;
    assert!(marked || count == 0);
    Ok((shown, count))
}

#[test]
fn marked_code_means_the_same() {
    let lua = Lua::new();
    for text in PROGRAMS {
        let plain = run(&lua, text.as_bytes(), false);
        let found = scan(text.as_bytes(), 0);
        let Ok((plain, _)) = plain else {
            // Newer than this Luau: nothing to compare.
            continue;
        };
        let code = found
            .code
            .unwrap_or_else(|| panic!("not understood: {text}"));
        let shown = String::from_utf8_lossy(&code).into_owned();
        let (marked, count) =
            run(&lua, &code, true).unwrap_or_else(|error| panic!("{error}\n{shown}"));
        assert_eq!(marked, plain, "{shown}");
        assert!(count > 0 || found.sites.is_empty(), "{shown}");
        assert_eq!(
            code.iter().filter(|b| **b == b'\n').count(),
            text.matches('\n').count()
        );
    }
}

/// What must hold for any input: see the fuzz target `config_scanner`, which checks the same.
fn check_invariants(text: &[u8], found: &Scan) {
    let len = u32::try_from(text.len()).unwrap();
    for site in &found.sites {
        assert!(site.span.0 <= site.span.1 && site.span.1 <= len);
        assert!((site.first + site.count) as usize <= found.parts.len());
    }
    for part in &found.parts {
        assert!(part.key_span.0 <= part.key_span.1 && part.key_span.1 <= len);
        assert!(part.value_span.0 <= part.value_span.1 && part.value_span.1 <= len);
    }
    let Some(code) = &found.code else { return };
    // The source, with something in between.
    let mut rest = code.iter();
    assert!(text.iter().all(|byte| rest.any(|other| other == byte)));
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines(code), lines(text));
}

/// Pieces of sources, so that a random row of them is now and then a program.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "local ",
        "function ",
        "end ",
        "if ",
        "then ",
        "else ",
        "elseif ",
        "for ",
        "in ",
        "do ",
        "while ",
        "repeat ",
        "until ",
        "return ",
        "break ",
        "continue ",
        "type ",
        "and ",
        "or ",
        "not ",
        "nil ",
        "true ",
        "a ",
        "f",
        "x.y",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "=",
        ",",
        ";",
        ":",
        "::",
        "->",
        "<",
        ">",
        ">>",
        "...",
        "..",
        "+",
        "-",
        "#",
        "'s'",
        "\"s\"",
        "[[s]]",
        "`",
        "`a{",
        "}b`",
        "--c\n",
        "--[[c]]",
        "1",
        "0x",
        "1e",
        "\\",
        "\n",
        " ",
        "@",
        "|",
        "&",
        "?",
        "'",
        "\"",
        "[=[",
        "]=]",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes(text in prop::collection::vec(any::<u8>(), 0..200)) {
        check_invariants(&text, &scan(&text, 0));
    }

    #[test]
    fn any_tokens(pieces in prop::collection::vec(piece(), 0..60)) {
        let text = pieces.concat().into_bytes();
        check_invariants(&text, &scan(&text, 1_000_000));
    }
}

/// Any program that Luau takes, marked, is one that Luau takes.
#[test]
fn marked_tokens_compile() {
    let lua = Lua::new();
    let compiles = |code: &[u8]| {
        lua.load(code)
            .set_name("=c")
            .set_mode(mlua::chunk::ChunkMode::Text)
            .into_function()
            .is_ok()
    };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut both = 0;
    for _ in 0..20_000 {
        let tree = prop::collection::vec(piece(), 0..8)
            .new_tree(&mut runner)
            .unwrap();
        let text = proptest::strategy::ValueTree::current(&tree)
            .concat()
            .into_bytes();
        let found = scan(&text, 0);
        if let Some(code) = found.code
            && compiles(&text)
        {
            both += 1;
            assert!(compiles(&code), "{}", String::from_utf8_lossy(&code));
        }
    }
    assert!(both > 500, "{both}");
}

/// Twice the input takes about twice the time, whatever it is made of.
#[test]
fn linear_time() {
    for piece in [
        "{",
        "(",
        "f(",
        "f{",
        "[",
        "`{",
        "`",
        "\"",
        "'",
        "[[",
        "]=",
        "[==[",
        "--[[",
        "a.",
        "a ",
        "-",
        "not ",
        "if ",
        "function(",
        "local a: {",
        "type A = <",
        "<",
        "f 'x' ",
        "f{}",
        "{},",
        "`{`{",
        "x = `a{",
        "for ",
        "\\",
        "\u{0}",
        "é",
        "1e+",
    ] {
        let text = piece.repeat(2_000_000 / piece.len());
        let began = Instant::now();
        check_invariants(text.as_bytes(), &scan(text.as_bytes(), 0));
        // Quadratic would be hours.
        assert!(began.elapsed() < Duration::from_secs(60), "{piece}");
    }
}
