//! `forebay stop`: a running server, ended.

use std::process::ExitCode;

use super::{admin, failed, print};

/// Stop the running server
///
/// It stops listening, lets exchanges under way end, for as long as `server { drain = … }` says (30
/// seconds unless it says otherwise), and ends. The command returns when that has happened.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay stop
  forebay stop --admin unix:/srv/app/forebay.sock")]
pub struct Args {
    #[command(flatten)]
    admin: admin::Admin,
}

impl Args {
    /// Asks the server and waits for its end, which its own configuration limits.
    pub fn run(self) -> ExitCode {
        match self.admin.ask("POST", "/stop", None) {
            Ok(answer) if answer.status == 200 => print(&answer.text),
            Ok(answer) => failed(answer.text.trim_end()),
            Err(error) => failed(error),
        }
    }
}
