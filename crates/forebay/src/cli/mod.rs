//! The command line, one file per command.
//!
//! A command has its arguments, which are its `--help` too, and `run`, which returns the exit
//! status: 0 when it was done, 1 when it failed, 2 when what was asked is wrong (a mistake in a
//! configuration or on the command line).

mod admin;
mod check;
mod completions;
mod doctor;
mod explain;
mod fcgi_trace;
mod live;
mod log;
mod lua;
mod man;
mod php;
mod proxy;
mod purge;
mod reference;
mod reload;
mod run;
mod serve;
mod start;
mod status;
mod stop;
mod summary;
mod types;
mod upstream;
mod welcome;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// What was asked is wrong.
const WRONG: u8 = 2;

/// A web server, reverse proxy and load balancer in one binary, configured in Lua.
///
/// Without a command it runs ./forebay.lua, or a built-in welcome site if there is no such file.
#[derive(Parser)]
#[command(name = "forebay", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  forebay serve ./public                  a directory, on http://127.0.0.1:8080/
  forebay proxy http://127.0.0.1:3000     an application, on the same address
  forebay php /srv/blog                   a PHP site, with PHP processes of its own
  forebay check forebay.lua               every mistake of a configuration
  forebay explain forebay.lua /a/b        what it does with a request, and why
  forebay run forebay.lua                 run it
  forebay reload                          put the changed file into service

`forebay COMMAND --help` says more. Exit status: 0 done, 1 failed, 2 a mistake in what was asked.";

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Serve(serve::Args),
    Proxy(proxy::Args),
    Php(php::Args),
    Check(check::Args),
    Explain(explain::Args),
    Reload(reload::Args),
    Status(status::Args),
    Purge(purge::Args),
    Upstream(upstream::Args),
    Log(log::Args),
    FcgiTrace(fcgi_trace::Args),
    Stop(stop::Args),
    Doctor(doctor::Args),
    Types(types::Args),
    Completions(completions::Args),
    Man(man::Args),
    Reference(reference::Args),
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        None => run::Args::default().run(),
        Some(Command::Run(args)) => args.run(),
        Some(Command::Serve(args)) => args.run(),
        Some(Command::Proxy(args)) => args.run(),
        Some(Command::Php(args)) => args.run(),
        Some(Command::Check(args)) => args.run(),
        Some(Command::Explain(args)) => args.run(),
        Some(Command::Reload(args)) => args.run(),
        Some(Command::Status(args)) => args.run(),
        Some(Command::Purge(args)) => args.run(),
        Some(Command::Upstream(args)) => args.run(),
        Some(Command::Log(args)) => args.run(),
        Some(Command::FcgiTrace(args)) => args.run(),
        Some(Command::Stop(args)) => args.run(),
        Some(Command::Doctor(args)) => args.run(),
        Some(Command::Types(args)) => args.run(),
        Some(Command::Completions(args)) => args.run(),
        Some(Command::Man(args)) => args.run(),
        Some(Command::Reference(args)) => args.run(),
    }
}

/// The commands that are shown, each with what it does in a line.
fn commands() -> Vec<(String, String)> {
    let about = |command: &clap::Command| {
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        (command.get_name().to_owned(), about)
    };
    shown().get_subcommands().map(about).collect()
}

/// The command line without the commands that are hidden.
fn shown() -> clap::Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|one| !one.is_hide_set());
    let mut program = clap::Command::new("forebay").version(env!("CARGO_PKG_VERSION"));
    program = program.subcommands(shown.cloned().collect::<Vec<_>>());
    if let Some(about) = all.get_about() {
        program = program.about(about.clone());
    }
    match all.get_long_about() {
        Some(about) => program.long_about(about.clone()),
        None => program,
    }
}

/// Writes a command's result to standard output. Whoever reads it may stop reading: `head` does.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            failed(format_args!("cannot write to standard output: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says why it could not be done.
fn failed(why: impl std::fmt::Display) -> ExitCode {
    eprintln!("forebay: {why}");
    ExitCode::FAILURE
}

/// Says what is wrong with what was asked.
fn wrong(what: impl std::fmt::Display) -> ExitCode {
    eprintln!("forebay: {what}");
    ExitCode::from(WRONG)
}
