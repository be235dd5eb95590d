//! `forebay types`: the configuration's types, for editors.

use std::process::ExitCode;

use super::print;
use crate::steps::registry;

/// Print the configuration's types, for editors
///
/// A definitions file for luau-lsp, so that an editor completes names, shows what they mean and
/// marks mistakes while one types.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay types > forebay.d.luau
  luau-lsp analyze --definitions=forebay.d.luau forebay.lua")]
pub struct Args {}

impl Args {
    /// Prints them.
    pub fn run(self) -> ExitCode {
        print(&forebay_config::editor_types(registry()))
    }
}
