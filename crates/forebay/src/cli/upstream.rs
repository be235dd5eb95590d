//! `forebay upstream`: the peers of a running server, and what they are to do.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::{admin, failed, print, status, wrong};
use crate::control::orders::unknown;

/// Only a server that hangs takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show the peers of upstreams, or take one out of service and back
///
/// With a name, the peers of that upstream and what each of them is at the moment; without, those of
/// all. With a peer and a word, what it is to do from now on; requests under way are finished in any
/// case. It holds until it is told otherwise, over reloads that keep the upstream's name and the
/// peer, and not over a restart.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay upstream app
  forebay upstream app 10.0.0.1:8080 drain
  forebay upstream app 10.0.0.1:8080 up

  drain   no new clients; those that `sticky` leads to it still get there
  down    nobody
  up      everybody again; an ejection ends")]
pub struct Args {
    /// The upstream; of a target given to a step, the target
    name: Option<String>,
    /// The peer, as the configuration writes it
    #[arg(requires = "state")]
    peer: Option<String>,
    /// What it is to do
    #[arg(value_enum)]
    state: Option<State>,
    #[command(flatten)]
    admin: admin::Admin,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum State {
    /// No new clients; those that `sticky` leads to it still get there
    Drain,
    /// Nobody gets there
    Down,
    /// Everybody gets there again
    Up,
}

impl Args {
    /// Asks the server.
    pub fn run(self) -> ExitCode {
        match (&self.name, &self.peer, self.state) {
            (Some(name), Some(peer), Some(state)) => self.order(name, peer, state),
            (name, _, _) => self.show(name.as_deref()),
        }
    }

    fn order(&self, name: &str, peer: &str, state: State) -> ExitCode {
        let state = match state {
            State::Drain => "drain",
            State::Down => "down",
            State::Up => "up",
        };
        let (name, peer) = (encoded(name), encoded(peer));
        let target = format!("/upstream?name={name}&peer={peer}&state={state}");
        match self.admin.ask("POST", &target, Some(PATIENCE)) {
            Ok(answer) if answer.status == 200 => print(&answer.text),
            Ok(answer) if answer.status == 422 => wrong(answer.text.trim_end()),
            Ok(answer) => failed(answer.text.trim_end()),
            Err(error) => failed(error),
        }
    }

    fn show(&self, name: Option<&str>) -> ExitCode {
        let answer = match self.admin.ask("GET", "/status", Some(PATIENCE)) {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => return failed(answer.text.trim_end()),
            Err(error) => return failed(error),
        };
        let upstreams = match status::upstreams(&answer.text) {
            Ok(upstreams) => upstreams,
            Err(error) => {
                return failed(format_args!("the server says what is not known: {error}"));
            }
        };
        let mut out = String::new();
        for (known, text) in &upstreams {
            if name.is_none_or(|name| name == known) {
                out.push_str(text);
            }
        }
        match name {
            Some(name) if out.is_empty() => wrong(unknown(
                "upstream",
                name,
                upstreams.iter().map(|(name, _)| &**name),
            )),
            _ => print(out.trim_start_matches('\n')),
        }
    }
}

/// As a part of a query.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_pass_through_a_query() {
        assert_eq!(encoded("unix:/run/a b.sock"), "unix%3A%2Frun%2Fa%20b.sock");
        assert_eq!(encoded("a+b&c=%"), "a%2Bb%26c%3D%25");
    }
}
