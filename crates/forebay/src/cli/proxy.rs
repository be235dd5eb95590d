//! `forebay proxy`: a site that is another server's.

use std::process::ExitCode;

use forebay_config::{Address, Target};

use super::lua::quote;
use super::{failed, start, wrong};
use crate::control::source::Source;

/// Pass requests on to another server
///
/// Bodies stream both ways, connections to the server are kept, and it is told about the client in
/// Forwarded, X-Forwarded-For, X-Forwarded-Proto and Via.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay proxy http://127.0.0.1:3000
  forebay proxy localhost:3000 --listen 127.0.0.1:8000
  forebay proxy unix:/run/app.sock --public
  forebay proxy http://127.0.0.1:3000 --cache

The configuration file that does the same:
  listen \"127.0.0.1:8080\"
  site { \"*\", proxy \"http://127.0.0.1:3000\" }")]
pub struct Args {
    /// The server: http://HOST:PORT, HOST:PORT or unix:PATH
    #[arg(value_name = "URL", value_parser = parse_target)]
    target: String,
    /// Keep answers that may be shared, in 256 MB of memory, and ask for each of them once: `cache`
    /// before `proxy`
    #[arg(long)]
    cache: bool,
    #[command(flatten)]
    listen: start::Listen,
}

impl Args {
    /// Serves until told to stop.
    pub fn run(self) -> ExitCode {
        let address = self.listen.address();
        let remedy = "Choose another address, as --listen 127.0.0.1:8081.";
        if let Err(error) = start::expect_free(&address, remedy) {
            return failed(error);
        }
        let source = Source::Text(configuration(&self.target, &address, self.cache));
        // A scheme that is not built yet, for one: told as a mistake in what was asked, and before
        // anything is started.
        if let Err(report) = source.build(None) {
            let mistakes = report.mistakes();
            let said: Vec<_> = mistakes.iter().map(|one| one.message.as_str()).collect();
            return wrong(said.join("\n"));
        }
        let how = if self.cache {
            ", cached in 256 MB of memory"
        } else {
            ""
        };
        start::start(source, format!("what {} answers{how}", self.target))
    }
}

/// A target as the language writes it: without the slash that a URL ends with.
fn parse_target(url: &str) -> Result<String, String> {
    let here = std::env::current_dir().unwrap_or_default();
    let target = match url.contains("://") {
        true => url.strip_suffix('/').unwrap_or(url),
        false => url,
    };
    let scheme = target.find("://").map_or(0, |at| at + 3);
    if let Some(path) = target[scheme..].find('/')
        && scheme > 0
        && !target[scheme..].starts_with("unix:")
    {
        let server = &target[..scheme + path];
        return Err(format!(
            "give the server alone, {server}: paths go on as they come. To change them, write a \
             configuration with `rewrite`"
        ));
    }
    Target::parse(target, true, false, &here).map(|_| target.to_owned())
}

/// A site that this server answers, at this address.
fn configuration(target: &str, address: &Address, cache: bool) -> String {
    let cache = if cache { "cache, " } else { "" };
    let address = quote(&address.to_string());
    format!(
        "listen({address})\nsite {{ \"*\", {cache}proxy({}) }}\n",
        quote(target)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_urls_mean() {
        for (url, target) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://127.0.0.1:3000/", "http://127.0.0.1:3000"),
            ("localhost:3000", "localhost:3000"),
            ("[::1]:3000", "[::1]:3000"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(parse_target(url).as_deref(), Ok(target), "{url}");
            let text = configuration(target, &Address::Port(8080), false);
            let loaded = Source::Text(text)
                .load()
                .unwrap_or_else(|r| panic!("{}", r.render()));
            let site = loaded.by("site").next().unwrap();
            let got: &Target = site.steps[0].get("TARGET");
            assert_eq!(&*got.text, target);
            let text = configuration(target, &Address::Port(8080), true);
            assert!(text.contains("\"*\", cache, proxy("), "{text}");
        }
        let said = parse_target("http://127.0.0.1:3000/app").expect_err("a path");
        assert!(
            said.starts_with("give the server alone, http://127.0.0.1:3000: "),
            "{said}"
        );
        for url in ["http:///app", "ftp://a", "", "http://", "\") os.exit()"] {
            assert!(parse_target(url).is_err(), "{url}");
        }
    }
}
