//! What README and docs show is so: every configuration is right, every message is what `check`
//! says, every command exists.
//!
//! Of a fenced block its first line says what it is:
//! * `lua`: a whole configuration;
//! * `lua steps`: steps, to stand in a site;
//! * `lua mistakes`: a configuration whose mistakes are the `text` block that follows;
//! * `sh`: commands.

use std::path::{Path, PathBuf};

use forebay_tests::server::{run, run_in};
use forebay_tests::{Request, Server};
use tempfile::TempDir;

struct Block {
    /// Where it stands, for messages.
    place: String,
    kind: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The pages that people write; `docs/reference.md` is made of tables that have tests of their own.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for dir in ["docs", "docs/internals"] {
        let entries = std::fs::read_dir(root().join(dir)).expect("a directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        pages.extend(paths.filter(|path| {
            path.extension().is_some_and(|ending| ending == "md")
                && path.file_name().is_some_and(|name| name != "reference.md")
        }));
    }
    pages
}

fn blocks_of(page: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(page).expect("a page");
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let mut block = Block {
            place: format!("{}:{}", page.display(), number + 1),
            kind: kind.to_owned(),
            text: String::new(),
        };
        for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
            block.text.push_str(line);
            block.text.push('\n');
        }
        blocks.push(block);
    }
    blocks
}

fn blocks() -> Vec<Block> {
    let blocks: Vec<Block> = pages().iter().flat_map(|page| blocks_of(page)).collect();
    assert!(blocks.len() > 20, "the pages are not found");
    blocks
}

/// A directory with what the examples read.
fn dir() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join("sites")).expect("a directory");
    std::fs::create_dir_all(dir.path().join("public")).expect("a directory");
    std::fs::write(dir.path().join("networks.txt"), "10.0.0.0/8\n").expect("a file");
    std::fs::write(dir.path().join("users"), "# none yet\n").expect("a file");
    let keys = include_str!("../../crates/forebay/src/steps/jwt/fixtures/keys.json");
    std::fs::write(dir.path().join("keys.json"), keys).expect("a file");
    dir
}

fn check(text: &str) -> forebay_tests::server::Output {
    let dir = dir();
    std::fs::write(dir.path().join("forebay.lua"), text).expect("a file");
    run_in(dir.path(), &["check", "forebay.lua"])
}

#[test]
fn the_configurations_are_right() {
    for block in blocks() {
        let text = match block.kind.as_str() {
            "lua" => block.text.clone(),
            "lua steps" => format!("site {{ \"*\",\n{}\n}}", block.text),
            _ => continue,
        };
        let output = check(&text);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.code, Some(0), "{}\n{said}", block.place);
        assert!(!said.contains("warning"), "{}\n{said}", block.place);
    }
}

#[test]
fn the_messages_are_what_check_says() {
    let blocks = blocks();
    let mut seen = 0;
    for pair in blocks
        .windows(2)
        .filter(|pair| pair[0].kind == "lua mistakes")
    {
        assert_eq!(pair[1].kind, "text", "{}", pair[1].place);
        assert_eq!(
            check(&pair[0].text).expect(2).stdout,
            pair[1].text,
            "{}",
            pair[0].place
        );
        seen += 1;
    }
    assert!(seen > 0);
}

/// Expects that the command of such a line exists, with its options.
#[track_caller]
fn expect_command(line: &str, place: &str) {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    if !program.ends_with("forebay") {
        return;
    }
    let Some(command) = words.next() else { return };
    let help = run(&[command, "--help"]);
    assert_eq!(help.code, Some(0), "{place}: {line}");
    for option in words.filter(|word| word.starts_with("--")) {
        let option = option.split('=').next().unwrap_or(option);
        assert!(help.stdout.contains(option), "{place}: {line}: no {option}");
    }
}

#[test]
fn the_commands_exist() {
    for block in blocks().iter().filter(|block| block.kind == "sh") {
        for line in block.text.lines() {
            expect_command(line, &block.place);
        }
    }
}

#[test]
fn what_help_shows_is_so() {
    for command in [
        "run",
        "serve",
        "proxy",
        "check",
        "reload",
        "status",
        "stop",
        "types",
        "completions",
    ] {
        let help = run(&[command, "--help"]).expect(0).stdout;
        let (_, examples) = help.split_once("Examples:\n").expect("examples");
        let (examples, config) = match examples.split_once("does the same:\n") {
            Some((examples, config)) => (examples, Some(config)),
            None => (examples, None),
        };
        for line in examples.lines() {
            expect_command(line.trim(), command);
        }
        if let Some(config) = config {
            let _ = check(config).expect(0);
        }
    }
}

#[test]
fn the_first_configuration_serves() {
    let first = blocks_of(&root().join("README.md"));
    let first = first
        .iter()
        .find(|block| block.kind == "lua")
        .expect("a configuration");
    let config = first.text.replace("127.0.0.1:8080", "@listen@");
    assert_ne!(config, first.text, "it listens elsewhere");
    let server = Server::builder(&config)
        .own_listen()
        .file("public/index.html", "a page")
        .file("public/assets/a.css", "a {}")
        .start();
    let mut conn = server.client().connect();
    let page = conn
        .exchange(&Request::get("/").host("localhost"))
        .expect(200);
    assert_eq!(page.text(), "a page");
    let _ = conn
        .exchange(&Request::get("/assets/a.css").host("localhost"))
        .expect(200);
    assert_eq!(
        conn.exchange(&Request::get("/").host("other.test"))
            .status(),
        404
    );
}

#[test]
fn the_reference_is_that_of_the_binary() {
    let page = std::fs::read_to_string(root().join("docs/reference.md")).expect("the page");
    let now = run(&["reference"]).expect(0).stdout;
    assert!(
        page == now,
        "docs/reference.md: write it anew with `forebay reference`"
    );
}
