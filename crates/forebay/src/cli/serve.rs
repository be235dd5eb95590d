//! `forebay serve`: a directory as a site.

use std::path::PathBuf;
use std::process::ExitCode;

use forebay_config::Address;

use super::lua::{quote, quote_template};
use super::{failed, start, wrong};
use crate::control::source::Source;

/// Serve the files of a directory
///
/// For GET and HEAD, with ranges, validators and media types; index.html stands for its directory,
/// one without is listed. Files whose names begin with a dot, and scripts, are not served.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay serve .
  forebay serve ./public --listen 127.0.0.1:3000
  forebay serve /srv/www --public          other machines may connect, on port 8080

The configuration file that does the same:
  listen \"127.0.0.1:8080\"
  site { \"*\", files \"./public\" { listing = true } }")]
pub struct Args {
    /// The directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    listen: start::Listen,
}

impl Args {
    /// Serves until told to stop.
    pub fn run(self) -> ExitCode {
        let dir = match self.dir.canonicalize() {
            Ok(dir) if dir.is_dir() => dir,
            Ok(_) => return wrong(format_args!("{} is no directory", self.dir.display())),
            Err(error) => return wrong(format_args!("{}: {error}", self.dir.display())),
        };
        let Some(text) = dir.to_str() else {
            return wrong(format_args!("{}: its name is not UTF-8", dir.display()));
        };
        let address = self.listen.address();
        let remedy = "Choose another address, as --listen 127.0.0.1:8081.";
        if let Err(error) = start::expect_free(&address, remedy) {
            return failed(error);
        }
        let what = dir.display().to_string();
        start::start(Source::Text(configuration(text, &address)), what)
    }
}

/// A site of these files, at this address.
fn configuration(dir: &str, address: &Address) -> String {
    let address = quote(&address.to_string());
    format!(
        "listen({address})\nsite {{ \"*\", files({}) {{ listing = true }} }}\n",
        quote_template(dir)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_directory_can_be_served() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "plain",
            "with $host in it",
            "\"quoted\"",
            "a\\b",
            "line\nbreak",
            "ä€",
        ] {
            let dir = dir.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            let address = Address::Port(8080);
            let text = configuration(dir.to_str().unwrap(), &address);
            let loaded = Source::Text(text)
                .load()
                .unwrap_or_else(|r| panic!("{}", r.render()));
            let site = loaded.by("site").next().unwrap();
            let root: &forebay_config::PathTemplate = site.steps[0].get("ROOT");
            assert_eq!(root.base, dir, "{name:?}");
            assert!(root.rest.parts.is_empty(), "{name:?}");
        }
    }
}
