//! `forebay run`: a configuration file, or the welcome site.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{failed, start, welcome};
use crate::control::source::Source;

/// What is run if no file is named.
const DEFAULT: &str = "forebay.lua";

/// Run a configuration file
///
/// Without FILE it runs ./forebay.lua if that exists, else a built-in site on
/// http://127.0.0.1:8080/ that shows that it works and how to begin.
///
/// The server stays in the foreground and writes its log to standard error. SIGTERM, SIGINT
/// (Ctrl-C) and `forebay stop` let exchanges under way end first; SIGHUP and `forebay reload` put
/// the changed file into service.
#[derive(Default, clap::Args)]
#[command(after_help = "\
Examples:
  forebay run                              ./forebay.lua, or the welcome site
  forebay run /etc/forebay/forebay.lua
  FOREBAY_WORKERS=1 forebay run            one worker thread, whatever the file says")]
pub struct Args {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Args {
    /// Serves until told to stop.
    pub fn run(self) -> ExitCode {
        match self.file {
            Some(file) => run_file(file),
            None if Path::new(DEFAULT).exists() => run_file(DEFAULT.into()),
            None => run_welcome(),
        }
    }
}

fn run_file(file: PathBuf) -> ExitCode {
    let what = file.display().to_string();
    start::start(Source::File(file), what)
}

fn run_welcome() -> ExitCode {
    let file = match std::env::current_dir() {
        Ok(here) => here.join(DEFAULT),
        Err(error) => return failed(format_args!("the working directory is gone: {error}")),
    };
    let remedy = "Stop it, or say where to listen instead: write `listen \"127.0.0.1:8081\"` into \
                  a forebay.lua, or run `forebay serve DIR --listen 127.0.0.1:8081`.";
    if let Err(error) = start::expect_free(&welcome::address(), remedy) {
        return failed(error);
    }
    let what = format!("its welcome site, as there is no {}", file.display());
    start::start(Source::Text(welcome::configuration(&file)), what)
}
