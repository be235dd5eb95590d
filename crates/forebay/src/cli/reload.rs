//! `forebay reload`: the changed configuration, put into service.

use std::process::ExitCode;
use std::time::Duration;

use super::{WRONG, admin, failed, print};

/// A load may take 10 s of CPU time, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// Put the changed configuration into service
///
/// The running server loads its file anew. When the command returns, every new request is answered
/// by it. On any mistake the old configuration stays and the mistakes are shown (exit status 2).
/// Exchanges under way keep the configuration that they started with.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay reload
  forebay reload --admin unix:/srv/app/forebay.sock")]
pub struct Args {
    #[command(flatten)]
    admin: admin::Admin,
}

impl Args {
    /// Asks the server and says what came of it.
    pub fn run(self) -> ExitCode {
        match self.admin.ask("POST", "/reload", Some(PATIENCE)) {
            Ok(answer) if answer.status == 200 => print(&answer.text),
            Ok(answer) if answer.status == 422 => {
                eprint!("{}", answer.text);
                ExitCode::from(WRONG)
            }
            Ok(answer) => failed(answer.text.trim_end()),
            Err(error) => failed(error),
        }
    }
}
