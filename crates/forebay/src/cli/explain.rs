//! `forebay explain`: what a configuration does with one request, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use forebay_config::Report;
use serde_json::Value;

use super::live::{self, Why};
use super::{WRONG, admin, failed, print, wrong};
use crate::control::build::build_apart;
use crate::control::source::Source;
use crate::explain::{Asked, Explanation, explain, render};

/// What is explained if no file is named, as `run` would run it.
const DEFAULT: &str = "forebay.lua";

/// Tell what a configuration does with a request, and why
///
/// Shows the listener and the site that take it, each step on its way with what decides there, the
/// routes tried, and the answer. The request goes through the code that would serve it, but nothing
/// is sent: what another server would answer is not asked. Files are looked at as they are now.
///
/// URL is http://HOST/PATH, https://HOST/PATH, or /PATH if there is one site.
#[derive(clap::Args)]
#[command(
    override_usage = "forebay explain [OPTIONS] [FILE] <URL>\n       forebay explain --live [--json] <URL>",
    after_help = "\
Examples:
  forebay explain http://example.com/a/b           with ./forebay.lua
  forebay explain forebay.lua /index.html -H \"Accept-Encoding: gzip\"
  forebay explain forebay.lua https://example.com/login -X POST --client 192.0.2.7
  forebay explain forebay.lua /x --json            for scripts; docs/explain.md has the names
  forebay explain --live https://example.com/a     what the running server has of it

Exit status: 0 whatever the answer is, 2 a mistake in the configuration or in what was asked."
)]
pub struct Args {
    /// The configuration file; ./forebay.lua if only a URL is given
    #[arg(value_name = "FILE", required = true)]
    first: String,
    /// What is asked for
    #[arg(value_name = "URL")]
    second: Option<String>,
    /// A field of the request, as "Name: value"; several may be given
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    fields: Vec<String>,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The client's address, with or without a port; 127.0.0.1 unless given
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// Print one JSON document with the same facts
    #[arg(long)]
    json: bool,
    /// Ask the running server instead what its caches have stored of the URL and what they are
    /// bringing in, as a plain request for it would find it
    #[arg(long, conflicts_with_all = ["second", "fields", "method", "client"])]
    live: bool,
    #[command(flatten)]
    admin: admin::Admin,
}

impl Args {
    /// Explains.
    pub fn run(self) -> ExitCode {
        if self.live {
            return match live::ask(&self.admin, &self.first, self.json) {
                Ok(text) => print(&text),
                Err(Why::Wrong(what)) => wrong(what),
                Err(Why::Failed(why)) => failed(why),
            };
        }
        let (file, url) = match &self.second {
            Some(url) => (PathBuf::from(&self.first), url),
            None => (PathBuf::from(DEFAULT), &self.first),
        };
        let client = self.client.as_deref();
        let asked = match Asked::new(url, Some(&self.method), &self.fields, client) {
            Ok(asked) => asked,
            Err(why) => return wrong(why),
        };
        let loaded = Source::File(file).load().and_then(|mut loaded| {
            match build_apart(&loaded.declarations, &mut loaded.report) {
                Some(built) => Ok((built, loaded)),
                None => Err(loaded.report),
            }
        });
        let (built, mut loaded) = match loaded {
            Ok(loaded) => loaded,
            Err(report) => {
                let mistakes = match self.json {
                    true => report.render_json(),
                    false => report.render(),
                };
                print(&mistakes);
                return ExitCode::from(WRONG);
            }
        };
        eprint!("{}", loaded.report.render_warnings());
        match explain(asked, &mut loaded, &built) {
            Ok(told) => match self.show(&told, &loaded.report) {
                Ok(text) => print(&text),
                Err(error) => failed(error),
            },
            Err(why) => wrong(why),
        }
    }

    fn show(&self, told: &Explanation, report: &Report) -> Result<String, serde_json::Error> {
        if !self.json {
            return Ok(render(told, |text| report.masked(text)));
        }
        let mut value = serde_json::to_value(told)?;
        mask(&mut value, report);
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }
}

/// Takes secrets out of all texts. Before they are written: a quote in one would be escaped then.
fn mask(value: &mut Value, report: &Report) {
    match value {
        Value::String(text) => *text = report.masked(text),
        Value::Array(values) => values.iter_mut().for_each(|value| mask(value, report)),
        Value::Object(values) => values.values_mut().for_each(|value| mask(value, report)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
