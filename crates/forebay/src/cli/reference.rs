//! `forebay reference`: `docs/reference.md`, from the tables that the checks use.

use std::process::ExitCode;

use super::print;
use crate::steps::registry;

/// Print docs/reference.md, which `./test` compares with this
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Args {}

impl Args {
    /// Prints it.
    pub fn run(self) -> ExitCode {
        print(&forebay_config::reference_markdown(registry()))
    }
}
