//! What is generated of the tables, and how values come out of calls.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{load, load_in, registry};
use forebay_config::{
    Address, Edit, Match, Node, Part, PathTemplate, Rate, Record, Status, Target, Template,
    Variable, editor_types, reference_markdown,
};

#[test]
fn the_reference() {
    let page = reference_markdown(&registry());
    let section = |name: &str| {
        let start = page.find(&format!("\n### {name}\n")).unwrap();
        let end = page[start + 4..]
            .find("\n### ")
            .map_or(page.len(), |end| start + 4 + end);
        page[start..end].to_owned()
    };
    assert_eq!(
        section("proxy"),
        "
### proxy

`proxy TARGET { OPTION = … }`

HTTP to an upstream.

TARGET: upstream or target

| option | type, limits | default | meaning |
|---|---|---|---|
| `host` | template | `\"$host\"` | The Host it sees. |
| `priority` | count 0–9 | `5` | In the queue. |
| `retries` | count 0–5 | `1` | On another. |
| `retry_on` | \"connect\", \"reset\" or \"timeout\" or status… | `{ \"connect\", \"reset\" }` | When. |
| `read_timeout` | duration 1ms–7d | `\"60s\"` | Between bytes. |
"
    );
    assert!(section("upstream").contains("`{ TARGET, … }`, **peer**:\n\n| option"));
    assert!(section("upstream").contains("`{ … }`, **health**:\n\n| option"));
    assert!(section("errors").contains("`errors { STATUS = PAGE }`"));
    assert!(section("server").contains("At most once\n"));
    assert!(section("site").contains("```lua\nsite { \"example.com\", files \"/srv/www\" }\n```"));
    let order: Vec<usize> = [
        "\n## Declarations",
        "\n## Filters",
        "\n## Handlers",
        "\n## Conditions",
    ]
    .iter()
    .map(|title| page.find(title).unwrap())
    .collect();
    assert!(order.is_sorted());
}

#[test]
fn the_editor_types() {
    let types = editor_types(&registry());
    for line in [
        "declare proxy: ProxyCall",
        "declare access_log: AccessLogCall",
        "\tretries: (number)?,",
        "\twhen: Conditions?,",
        "declare function env(name: string, default: string?): string",
    ] {
        assert!(types.contains(line), "{line}\n{types}");
    }
}

/// Luau takes every type of it. `declare` stands in definition files only, so it is read as a local.
#[test]
fn the_editor_types_are_luau() {
    let types = editor_types(&registry());
    let mut text = String::from("local all = {}\n");
    for line in types.lines() {
        if let Some(function) = line.strip_prefix("declare function ") {
            let (name, rest) = function.split_once('(').unwrap();
            let (parameters, result) = rest.rsplit_once("): ").unwrap();
            text += &format!("type F{name} = ({parameters}) -> {result}\n");
        } else if let Some(value) = line.strip_prefix("declare ") {
            let (name, ty) = value.split_once(": ").unwrap();
            text += &format!("all.{name} = (nil :: any) :: {ty}\n");
        } else {
            text = text + line + "\n";
        }
    }
    let lua = mlua::Lua::new();
    let compiled = lua.load(&text).set_name("=types").into_function();
    assert!(compiled.is_ok(), "{compiled:?}\n{text}");
}

/// The one step of a site.
macro_rules! step {
    ($loaded:ident, $text:expr) => {
        let $loaded = match load(&format!("site {{ \"a\", {} }}", $text)) {
            Ok(loaded) => loaded,
            Err(report) => panic!("{}", report.render()),
        };
        let $loaded = &$loaded.declarations[0].steps[0];
    };
}

#[test]
fn values_and_defaults() {
    step!(
        proxy,
        "proxy \"https://app\" { retries = 3, retry_on = { \"reset\", 502, \"5xx\" } }"
    );
    assert_eq!(proxy.get::<&Target>("TARGET").text.as_ref(), "https://app");
    assert_eq!(proxy.get::<u8>("retries"), 3);
    assert_eq!(proxy.get::<u64>("priority"), 5);
    assert_eq!(
        proxy.get::<Duration>("read_timeout"),
        Duration::from_secs(60)
    );
    assert!(proxy.is_set("retries") && !proxy.is_set("priority"));
    assert_eq!(
        proxy.get::<&Template>("host").parts,
        [Part::Var(Variable::Host)]
    );
    let retry_on: &[Node] = proxy.get("retry_on");
    assert_eq!(retry_on[0].as_a::<&str>(), Some("reset"));
    assert_eq!(retry_on[1].as_a::<Status>(), Some(Status::Code(502)));
    assert_eq!(retry_on[2].as_a::<Status>(), Some(Status::Class(5)));

    step!(
        limit,
        "limit { rate = \"20/10s\", body = \"64MB\" }, files \"/x\""
    );
    let rate = Rate {
        count: 20,
        per: Duration::from_secs(10),
    };
    assert_eq!(limit.get::<Rate>("rate"), rate);
    assert_eq!(limit.get::<u64>("body"), 64 << 20);
    assert_eq!(limit.find::<u64>("burst"), None);

    step!(rewrite, "rewrite \"/$rest\", files \"/x\"");
    assert!(rewrite.node("FROM").is_none());
    assert_eq!(rewrite.get::<&Template>("TO").parts.len(), 2);
    step!(
        rewrite,
        "rewrite(regex [[^/a/(\\d+)]], \"/b/$1\"), files \"/x\""
    );
    assert!(
        rewrite
            .get::<&Match>("FROM")
            .as_regex()
            .unwrap()
            .is_match(b"/a/7")
    );
    step!(redirect, "redirect(\"/x\", 301)");
    assert_eq!(redirect.get::<u16>("STATUS"), 301);
}

#[test]
fn relative_paths_start_at_the_main_file() {
    let loaded = load_in(
        Path::new("/conf"),
        "site { \"a\", basic_auth \"users\", files \"www/$host\" }",
    );
    let loaded = loaded.unwrap();
    let steps = &loaded.declarations[0].steps;
    assert_eq!(steps[0].get::<&Path>("FILE"), Path::new("/conf/users"));
    assert_eq!(
        steps[1].get::<&PathTemplate>("ROOT").base,
        Path::new("/conf/www")
    );
    let listen = load_in(Path::new("/conf"), "listen \"unix:a.sock\"").unwrap();
    let address: &Address = listen.declarations[0].get("ADDRESS");
    assert_eq!(*address, Address::Unix("/conf/a.sock".into()));
}

#[test]
fn fields() {
    step!(
        headers,
        "headers { response = { x_frame_options = \"DENY\", server = false, [\"X-B\"] = { \"1\", \"2\" },
           vary = add \"Origin\", x_c = default \"$status\" } }, files \"/x\""
    );
    let edits: &[forebay_config::FieldEdit] = headers.get("response");
    let names: Vec<&str> = edits.iter().map(|edit| &*edit.name).collect();
    assert_eq!(names, ["x-frame-options", "server", "X-B", "vary", "x-c"]);
    assert!(matches!(edits[1].edit, Edit::Remove));
    assert!(matches!(&edits[2].edit, Edit::Set(lines) if lines.len() == 2));
    assert!(matches!(&edits[3].edit, Edit::Add(_)));
    assert!(matches!(&edits[4].edit, Edit::Default(_)));
}

#[test]
fn records() {
    let text = "local a = upstream \"a\" { \"b:1\", { \"c:1\", weight = 3 }, health = { path = \"/\" }, eject = false }\n\
                site { \"x\", proxy(a) }";
    let loaded = load(text).unwrap();
    let upstream = &loaded.declarations[0];
    let peers: Vec<(&Target, u64)> = upstream
        .items
        .iter()
        .map(|node| node.get::<&Record>())
        .map(|peer| (peer.get("TARGET"), peer.get("weight")))
        .collect();
    assert_eq!((peers[0].1, peers[1].1), (1, 3));
    assert_eq!(peers[1].0.text.as_ref(), "c:1");
    let health: &Record = upstream.get("health");
    assert_eq!(health.get::<Duration>("every"), Duration::from_secs(5));
    assert_eq!(health.get::<&[Node]>("status").len(), 1);
    assert!(!upstream.get::<bool>("eject"));
}

#[test]
fn steps_kept_and_varied() {
    let text = "local php = fastcgi \"unix:/run/php.sock\"\n\
                local a = php { root = \"/srv/a\" }\n\
                site { \"a\", a, files \"/x\" }\n\
                site { \"b\", php { root = \"/srv/b\" }, a { root = \"/srv/c\" } }\n\
                site { \"c\", route \"/x\" { a }, php }\n\
                local s = site { \"d\" }\n\
                s { compress }\n\
                s { \"e\", files \"/y\", name = \"dee\" }";
    let loaded = match load(text) {
        Ok(loaded) => loaded,
        Err(report) => panic!("{}", report.render()),
    };
    assert_eq!(loaded.report.render_warnings(), "");
    let root = |site: usize, step: usize| {
        let step = &loaded.declarations[site].steps[step];
        step.find::<&PathTemplate>("root")
            .map(|root| root.base.display().to_string())
    };
    assert_eq!(root(0, 0).as_deref(), Some("/srv/a"));
    assert_eq!(root(1, 0).as_deref(), Some("/srv/b"));
    assert_eq!(root(1, 1).as_deref(), Some("/srv/c"));
    assert_eq!(root(2, 1), None);
    let last = &loaded.declarations[3];
    assert_eq!(last.steps.len(), 2);
    assert_eq!(last.get::<&[Node]>("HOST").len(), 2);
    assert_eq!(last.get::<&str>("name"), "dee");
    // The same step in two places is one.
    let shared = &loaded.declarations[2].steps[0].steps[0];
    assert_eq!(shared.id, loaded.declarations[0].steps[0].id);
}

#[test]
fn places_can_be_shown_later() {
    let loaded = load("site { \"a\",\n  respond(200) }").unwrap();
    let mut report = loaded.report;
    let step = &loaded.declarations[0].steps[0];
    report.mistake(
        step.place_of("STATUS"),
        forebay_config::Code::Conflict,
        "no",
        "why",
    );
    assert_eq!(
        report.render(),
        "forebay.lua:2:11: no\n  2 |   respond(200) }\n    |           ^^^ why\n\
         1 mistake; nothing was changed\n"
    );
}

#[test]
fn a_file_that_is_not_there() {
    let registry = registry();
    let path = Path::new("/nowhere/forebay.lua");
    let report = forebay_config::load(path, &registry, &common::options()).unwrap_err();
    assert!(
        report
            .render()
            .starts_with("/nowhere/forebay.lua:1:1: /nowhere/forebay.lua: there is")
    );
}
