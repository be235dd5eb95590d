//! `forebay man`: the manual, a page for the program and one for each command.
//!
//! Names, options and examples are those of `--help`; what `--help` has no room for stands in
//! `forebay.1`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_mangen::Man;

use super::{failed, print, shown};

/// Files, signals, environment, exit status, examples: sections that people have written, as roff.
const SECTIONS: &str = include_str!("forebay.1");

/// Print the manual page, or write all of them into a directory
///
/// There is a page for the program, forebay(1), and one for each command, such as forebay-run(1).
/// Those who package Forebay need this; the Debian package has installed them.
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// Write all pages into this directory
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    /// Writes what is asked for.
    pub fn run(self) -> ExitCode {
        match (pages(), self.dir) {
            (Ok(pages), None) => print(&pages[0].text),
            (Ok(pages), Some(dir)) => match write(&pages, &dir) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(format_args!("{}: {error}", dir.display())),
            },
            (Err(error), _) => failed(error),
        }
    }
}

/// A manual page.
struct Page {
    file: String,
    text: String,
}

fn write(pages: &[Page], dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for page in pages {
        std::fs::write(dir.join(&page.file), &page.text)?;
    }
    Ok(())
}

/// All of them, that of the program first.
fn pages() -> io::Result<Vec<Page>> {
    let mut program = shown()
        .disable_help_subcommand(true)
        .subcommand_help_heading("COMMANDS")
        .subcommand_value_name("COMMAND");
    program.build();
    let commands: Vec<clap::Command> = program.get_subcommands().cloned().collect();
    let mut pages = vec![page(program, SECTIONS)?];
    for command in commands {
        let examples = examples(&command);
        let see = ".SH SEE ALSO\n.BR forebay (1)\n";
        pages.push(page(command, &format!("{examples}{see}"))?);
    }
    Ok(pages)
}

/// A page: what the command's own words say, then these sections.
fn page(command: clap::Command, more: &str) -> io::Result<Page> {
    let has_commands = command.has_subcommands();
    let has_options = command.get_arguments().any(|one| !one.is_hide_set());
    let man = Man::new(command)
        .source(concat!("Forebay ", env!("CARGO_PKG_VERSION")))
        .manual("Forebay");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if has_options {
        man.render_options_section(&mut text)?;
    }
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend_from_slice(more.as_bytes());
    Ok(Page {
        file: man.get_filename(),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// What stands below `--help`, its lines as they are.
fn examples(command: &clap::Command) -> String {
    let Some(help) = command.get_after_help() else {
        return String::new();
    };
    let help = help.to_string();
    let text = help.strip_prefix("Examples:\n").unwrap_or(&help);
    let mut out = ".SH EXAMPLES\n.EX\n".to_owned();
    for line in text.lines() {
        // In roff a backslash escapes, a minus may become a hyphen that cannot be copied, and a
        // line that begins with a dot or an apostrophe is a request.
        let line = line.strip_prefix("  ").unwrap_or(line);
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        out.push_str(&line);
        out.push('\n');
    }
    out.push_str(".EE\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let pages = pages().unwrap();
        let files: Vec<&str> = pages.iter().map(|page| page.file.as_str()).collect();
        assert_eq!(files[0], "forebay.1");
        assert!(files.contains(&"forebay-reload.1"), "{files:?}");
        assert!(!files.contains(&"forebay-reference.1"), "it is hidden");
        assert!(!files.contains(&"forebay-help.1"), "{files:?}");
        for page in &pages {
            assert!(page.text.contains(".SH EXAMPLES"), "{}", page.file);
        }
    }

    #[test]
    fn examples_stay_as_they_are() {
        let command = clap::Command::new("x").after_help("Examples:\n  .a --b \\ 'c'\n'd\n");
        assert_eq!(
            examples(&command),
            ".SH EXAMPLES\n.EX\n\\&.a \\-\\-b \\e 'c'\n\\&'d\n.EE\n"
        );
    }
}
