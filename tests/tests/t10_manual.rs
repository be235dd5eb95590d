//! What is packaged: completions, manual pages and configurations, judged by the
//! shells, by `man` and by `check`. How the package is installed is tried by `packaging/test`.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use forebay_tests::docs::root;
use forebay_tests::server::run;
use tempfile::TempDir;

/// A directory with a completion script and a file to complete.
fn dir(shell: &str, name: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let script = run(&["completions", shell]).expect(0).stdout;
    std::fs::write(dir.path().join(name), script).expect("a file");
    std::fs::write(dir.path().join("site.lua"), "").expect("a file");
    dir
}

#[track_caller]
fn output_of(program: &str, package: &str, dir: &Path, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("HOME", dir)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}, of the Debian package {package}: {error}"))
}

/// What bash offers for these words, the last of which is completed.
fn bash(words: &[&str]) -> Vec<String> {
    let dir = dir("bash", "forebay.bash");
    // As readline does it.
    let script = "source ./forebay.bash; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                  COMP_LINE=\"$*\"; COMP_POINT=${#COMP_LINE}; \
                  spec=$(complete -p forebay); function=${spec#*-F }; function=${function%% *}; \
                  \"$function\" forebay \"${COMP_WORDS[COMP_CWORD]}\" \
                  \"${COMP_WORDS[COMP_CWORD-1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut args = vec!["--norc", "-c", script, "bash"];
    args.extend_from_slice(words);
    let output = output_of("bash", "bash", dir.path(), &args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let offered = String::from_utf8_lossy(&output.stdout);
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_files() {
    assert_eq!(bash(&["forebay", "rel"]), ["reload"]);
    assert_eq!(bash(&["forebay", "st"]), ["status", "stop"]);
    assert_eq!(bash(&["forebay", "reload", "--ad"]), ["--admin"]);
    // Nothing of its own: what bash completes then are files.
    assert_eq!(bash(&["forebay", "check", "sit"]), [""]);
    let script = run(&["completions", "bash"]).expect(0).stdout;
    assert!(script.contains("-o bashdefault -o default forebay"));
    assert_eq!(bash(&["forebay", "completions", "b"]), ["bash"]);
    assert_eq!(bash(&["forebay", "log", "d"]), ["debug"]);
    // What is hidden stays so.
    assert_eq!(bash(&["forebay", "refe"]), [""]);
}

#[test]
fn fish_completes() {
    let dir = dir("fish", "forebay.fish");
    let offered = |line: &str| {
        let script = format!("source ./forebay.fish; complete -C '{line}'");
        let output = output_of("fish", "fish", dir.path(), &["--no-config", "-c", &script]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(offered("forebay rel"), ["reload"]);
    assert_eq!(offered("forebay reload --ad"), ["--admin"]);
}

/// zsh completes only at a terminal; that it takes the script, and for `forebay`, is what is seen.
#[test]
fn zsh_takes_the_script() {
    let dir = dir("zsh", "_forebay");
    let script = "autoload -Uz compinit; fpath=($PWD $fpath); compinit -u -d ./dump; \
                  print -r -- ${_comps[forebay]}; autoload +X _forebay && print loaded";
    let output = output_of("zsh", "zsh", dir.path(), &["-f", "-c", script]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "_forebay\nloaded\n"
    );
}

#[test]
fn man_finds_nothing_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let _ = run(&["man", dir.path().to_str().expect("a name")]).expect(0);
    let mut names: Vec<String> = std::fs::read_dir(dir.path())
        .expect("the pages")
        .map(|page| {
            page.expect("a page")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    names.sort();
    assert!(names.contains(&"forebay.1".to_owned()), "{names:?}");
    assert!(names.contains(&"forebay-run.1".to_owned()), "{names:?}");
    for name in &names {
        let output = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", name])
            .current_dir(dir.path())
            .env("LC_ALL", "C.UTF-8")
            .env("MANROFFSEQ", "")
            .stdin(Stdio::null())
            .output()
            .expect("man, of the Debian package man-db");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
        // Its first line is what `apropos` searches.
        let listed = output_of("lexgrog", "man-db", dir.path(), &[name]);
        let said = String::from_utf8_lossy(&listed.stdout);
        let title = name.trim_end_matches(".1");
        assert!(said.contains(&format!("{name}: \"{title} - ")), "{said}");
    }
}

#[test]
fn the_manual_says_what_the_program_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let page = run(&["man"]).expect(0).stdout;
    std::fs::write(dir.path().join("forebay.1"), page).expect("a page");
    let output = Command::new("man")
        .args(["-l", "-E", "UTF-8", "forebay.1"])
        .current_dir(dir.path())
        .envs([
            ("LC_ALL", "C.UTF-8"),
            ("MANWIDTH", "100"),
            ("MAN_KEEP_FORMATTING", ""),
        ])
        .stdin(Stdio::null())
        .output()
        .expect("man, of the Debian package man-db");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for section in [
        "SYNOPSIS",
        "COMMANDS",
        "CONFIGURATION",
        "FILES",
        "SIGNALS",
        "ENVIRONMENT",
        "EXIT STATUS",
        "EXAMPLES",
    ] {
        assert!(
            text.lines().any(|line| line == section),
            "no {section}\n{text}"
        );
    }
    for word in ["SIGHUP", "forebay-reload(1)", "/etc/forebay/forebay.lua"] {
        assert!(text.contains(word), "no {word}\n{text}");
    }
    // The configuration that it shows is right.
    let (_, config) = text.split_once("each reload:\n\n").expect("an example");
    let (config, _) = config.split_once("\n\n").expect("its end");
    std::fs::write(dir.path().join("forebay.lua"), config).expect("a file");
    let checked = dir.path().join("forebay.lua");
    let checked = run(&["check", checked.to_str().expect("a name")]);
    assert_eq!(checked.code, Some(0), "{config}\n{}", checked.stdout);
}

/// Also with the example that its comments show.
#[test]
fn the_packaged_configurations_are_right() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("forebay.lua");
    for name in ["forebay.lua", "container.lua"] {
        let path = root().join("packaging").join(name);
        let text = std::fs::read_to_string(path).expect("a configuration");
        let mut example = false;
        let mut whole = String::new();
        for line in text.lines() {
            example |= line.starts_with("-- site {");
            match line.strip_prefix("-- ") {
                Some(line) if example => whole.push_str(line),
                _ => whole.push_str(line),
            }
            whole.push('\n');
        }
        assert_eq!(example, name == "forebay.lua", "an example in {name}");
        std::fs::write(&file, whole).expect("a file");
        let checked = run(&["check", file.to_str().expect("a name")]);
        let said = format!("{}{}", checked.stdout, checked.stderr);
        assert_eq!(checked.code, Some(0), "{name}: {said}");
        assert!(!said.contains("warning"), "{name}: {said}");
    }
}
