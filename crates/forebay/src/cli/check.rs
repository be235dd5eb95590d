//! `forebay check`: every mistake of a configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{WRONG, print, summary};
use crate::control::build::build;
use crate::control::source::Source;

/// Check a configuration file without running it
///
/// Shows every mistake with its line and column, or `ok` and what is reachable where. Nothing is
/// bound, and no running server is touched. Exit status 2 if there are mistakes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay check forebay.lua
  forebay check forebay.lua --json         for editors and scripts: an object per mistake, with
                                           file, line, column, end_column, code, message, help
  forebay check forebay.lua && forebay reload")]
pub struct Args {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print mistakes as JSON, an object per line; nothing if there are none
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Checks it as a start or reload would.
    pub fn run(self) -> ExitCode {
        let source = Source::File(self.file);
        let checked = source.load().and_then(|mut loaded| {
            match build(&loaded.declarations, &mut loaded.report, None) {
                Some(built) => Ok((built, loaded)),
                None => Err(loaded.report),
            }
        });
        match checked {
            Ok((built, loaded)) => {
                eprint!("{}", loaded.report.render_warnings());
                if self.json {
                    ExitCode::SUCCESS
                } else {
                    print(&summary::of(&loaded.declarations, &built.binds))
                }
            }
            Err(report) => {
                let mistakes = if self.json {
                    report.render_json()
                } else {
                    report.render()
                };
                print(&mistakes);
                ExitCode::from(WRONG)
            }
        }
    }
}
