//! `forebay log LEVEL`: how much the running server writes to its error log.

use std::process::ExitCode;
use std::time::Duration;

use super::{admin, failed, print};
use crate::log::LEVELS;

/// Only a server that hangs takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Change how much the running server writes to its error log
///
/// It holds at once, until the next reload or the next `forebay log`. Without a level, the one that
/// holds is shown.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay log debug
  forebay log")]
pub struct Args {
    /// How much: errors only, or warnings, information, or every detail too
    #[arg(value_name = "LEVEL", value_parser = clap::builder::PossibleValuesParser::new(LEVELS))]
    level: Option<String>,
    #[command(flatten)]
    admin: admin::Admin,
}

impl Args {
    /// Tells the server.
    pub fn run(self) -> ExitCode {
        let answer = match &self.level {
            Some(level) => self
                .admin
                .ask("POST", &format!("/log/{level}"), Some(PATIENCE)),
            None => self.admin.ask("GET", "/log", Some(PATIENCE)),
        };
        match answer {
            Ok(answer) if answer.status == 200 => print(&answer.text),
            Ok(answer) => failed(answer.text.trim_end()),
            Err(error) => failed(error),
        }
    }
}
