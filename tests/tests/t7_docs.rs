//! What README and docs show is so: every configuration is right, every message is what `check`
//! says, every command exists.
//!
//! Of a fenced block its first line says what it is:
//! * `lua`: a whole configuration;
//! * `lua steps`: steps, to stand in a site;
//! * `lua mistakes`: a configuration whose mistakes are the `text` block that follows;
//! * `sh`: commands;
//! * `console`: commands behind `$ ` and what they print, in which `…` stands for anything;
//! * with the name of a file, as `lua forebay.lua`: that file, for the commands of its page.
//!
//! The commands of a page run in order, in one shell, on a machine of its own.

use std::time::{Duration, Instant};

use forebay_tests::docs::{Block, blocks_of, matches, root, written};
use forebay_tests::server::{run, run_in};
use forebay_tests::shell::Shell;
use forebay_tests::wait::PATIENCE;
use forebay_tests::{Request, Server};
use tempfile::TempDir;

fn blocks() -> Vec<Block> {
    let blocks: Vec<Block> = written().iter().flat_map(|page| blocks_of(page)).collect();
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

/// The commands of a block, each with what it prints.
fn commands(block: &Block) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut goes_on = false;
    for line in block.text.lines() {
        if goes_on {
            let (command, _) = commands.last_mut().expect("a command");
            command.push('\n');
            command.push_str(line);
        } else if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), String::new()));
        } else {
            let (_, output) = commands
                .last_mut()
                .unwrap_or_else(|| panic!("{}: it begins without a command", block.place));
            output.push_str(line);
            output.push('\n');
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    commands
}

/// Runs a command. One that looks into a file does so until it shows what is expected: lines of logs
/// are written within a second.
fn settled(shell: &mut Shell, command: &str, expected: &str) -> (String, i32) {
    let end = Instant::now() + PATIENCE;
    loop {
        let (said, code) = shell.run(command);
        let looks = ["cat ", "grep ", "tail "].iter();
        let looks = looks.clone().any(|start| command.starts_with(start));
        if !looks || matches(expected, &said) || Instant::now() > end {
            return (said, code);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a page, and returns how many commands it has. What is not as it says goes to `wrong`.
fn run_page(blocks: &[Block], wrong: &mut Vec<String>) -> usize {
    let mut shell = Shell::start();
    let mut seen = 0;
    for block in blocks {
        if let Some(file) = block.file() {
            shell.write(file, &block.text);
            if block.language() == "lua" {
                let (said, code) = shell.run(&format!("forebay check {file}"));
                if code != 0 || said.contains("warning") {
                    wrong.push(format!("{}: exit {code}\n{said}", block.place));
                }
            }
        }
        if block.kind != "console" {
            continue;
        }
        for (command, expected) in commands(block) {
            eprintln!("{}: {command}", block.place);
            seen += 1;
            if let Some(command) = command.strip_suffix(" &") {
                let _ = shell.spawn(command, &expected);
                continue;
            }
            let (said, code) = settled(&mut shell, &command, &expected);
            // What fails says so.
            if !matches(&expected, &said) || (code != 0 && expected.is_empty()) {
                let place = &block.place;
                wrong.push(format!(
                    "{place}: {command}\nexit {code}, and it printed\n{said}"
                ));
            }
        }
    }
    seen
}

#[test]
fn the_transcripts_are_so() {
    let mut pages: Vec<Vec<Block>> = written().iter().map(|page| blocks_of(page)).collect();
    pages.retain(|blocks| blocks.iter().any(|block| block.kind == "console"));
    // Each on a machine of its own; most of the time they wait.
    let (seen, wrong) = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for blocks in &pages {
            threads.push(scope.spawn(|| {
                let mut wrong = Vec::new();
                (run_page(blocks, &mut wrong), wrong)
            }));
        }
        let mut sum = (0, Vec::new());
        for thread in threads {
            let (seen, wrong) = thread.join().expect("a page that runs");
            sum.0 += seen;
            sum.1.extend(wrong);
        }
        sum
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 50, "only {seen} commands are found");
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
        "explain",
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
        .find(|block| block.language() == "lua")
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
