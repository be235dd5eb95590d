//! `forebay purge`: has a running server forget what it has stored.

use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;

use super::upstream::encoded;
use super::{admin, failed, print, wrong};

/// It looks at every object once, on a thread that stands back behind the workers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Have the running server forget what it has stored
///
/// From the moment it is in force nothing is used that was asked for before it: all variants of what
/// it names, and what is being brought in; who is being answered already gets it to its end. A URL
/// without a scheme means both, and also the one that a cache makes of it by leaving out parameters.
/// Where several are named, each is purged, not only what they have in common.
#[derive(clap::Args)]
#[command(
    override_usage = "forebay purge [OPTIONS] <URL|--prefix URL|--host HOST|--tag TAG|--all>",
    group = clap::ArgGroup::new("what").required(true).multiple(true),
    after_help = "\
Examples:
  forebay purge https://example.com/style.css
  forebay purge --prefix https://example.com/blog/
  forebay purge --host example.com --soft
  forebay purge --tag product-17 --tag start-page
  forebay purge --all"
)]
pub struct Args {
    /// A URL with all of its variants; several may be given
    #[arg(value_name = "URL", group = "what")]
    urls: Vec<String>,
    /// All URLs that begin so
    #[arg(long, value_name = "URL", group = "what")]
    prefix: Vec<String>,
    /// All URLs of a host, with its port if it is not that of the scheme
    #[arg(long, value_name = "HOST", group = "what")]
    host: Vec<String>,
    /// All that the application has given this tag
    #[arg(long, value_name = "TAG", group = "what")]
    tag: Vec<String>,
    /// Everything
    #[arg(long, group = "what", conflicts_with_all = ["urls", "prefix", "host", "tag"])]
    all: bool,
    /// Have it validated before it is used again, rather than fetched anew
    #[arg(long)]
    soft: bool,
    /// Only in the store of this name; else in all
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
    #[command(flatten)]
    admin: admin::Admin,
}

/// What the admin socket says.
#[derive(Deserialize)]
struct Done {
    objects: u64,
    bytes: u64,
    soft: bool,
    #[serde(default)]
    on_disks: bool,
    in_force_us: u64,
    swept_us: u64,
}

impl Args {
    /// Asks the server.
    pub fn run(self) -> ExitCode {
        let answer = match self.admin.ask("POST", &self.target(), Some(PATIENCE)) {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) if matches!(answer.status, 400 | 414 | 422 | 431) => {
                return wrong(answer.text.trim_end());
            }
            Ok(answer) => return failed(answer.text.trim_end()),
            Err(error) => return failed(error),
        };
        match serde_json::from_str::<Done>(&answer.text) {
            Ok(done) => print(&done.show()),
            // A server of another version: what it says is still worth showing.
            Err(_) => print(&answer.text),
        }
    }

    fn target(&self) -> String {
        let lists = [
            ("url", &self.urls),
            ("prefix", &self.prefix),
            ("host", &self.host),
            ("tag", &self.tag),
        ];
        let mut query: Vec<String> = Vec::new();
        for (name, values) in lists {
            query.extend(values.iter().map(|v| format!("{name}={}", encoded(v))));
        }
        if self.all {
            query.push("all=1".to_owned());
        }
        if self.soft {
            query.push("soft=1".to_owned());
        }
        if let Some(store) = &self.store {
            query.push(format!("store={}", encoded(store)));
        }
        format!("/purge?{}", query.join("&"))
    }
}

impl Done {
    fn show(&self) -> String {
        let s = if self.objects == 1 { "" } else { "s" };
        let disks = match self.on_disks {
            true => ", and what is on disks",
            false => "",
        };
        let (in_force, swept) = (shown(self.in_force_us), shown(self.swept_us));
        match self.soft {
            true => format!(
                "{} object{s} to be validated{disks}; in force after {in_force}, all looked at after \
                 {swept}\n",
                self.objects
            ),
            false => format!(
                "{} object{s} purged, {} KB{disks}; in force after {in_force}, memory given back after \
                 {swept}\n",
                self.objects,
                self.bytes.div_ceil(1024)
            ),
        }
    }
}

fn shown(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_readable() {
        let done = |objects, soft| Done {
            on_disks: soft,
            objects,
            bytes: 5000,
            soft,
            in_force_us: 57,
            swept_us: 12_345,
        };
        assert_eq!(
            done(1, false).show(),
            "1 object purged, 5 KB; in force after 0.05 ms, memory given back after 12.34 ms\n"
        );
        assert_eq!(
            done(20, true).show(),
            "20 objects to be validated, and what is on disks; in force after 0.05 ms, all looked at after 12.34 ms\n"
        );
    }
}
