//! The site that is served when there is no configuration: it shows that it works and how to begin.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use forebay_config::Address;

use super::lua::{quote, quote_template};

/// The page, with `@name@` where something is put in.
const PAGE: &str = include_str!("welcome.html");

/// The first configuration that the page offers.
const FIRST: &str = include_str!("first.lua");

/// Only this machine's users see it.
pub fn address() -> Address {
    Address::Socket((Ipv4Addr::LOCALHOST, 8080).into())
}

/// A configuration with this site. `file` is the one that would have been read instead.
pub fn configuration(file: &Path) -> String {
    let page = page(file);
    format!(
        "listen({})\nsite {{ \"*\",\n  route \"/\" {{\n    respond(200, {}) {{\n      headers = {{ \
         content_type = \"text/html; charset=utf-8\", cache_control = \"no-store\" }},\n    \
         }},\n  }},\n}}\n",
        quote(&address().to_string()),
        quote_template(&page),
    )
}

fn page(file: &Path) -> String {
    let mut commands = String::new();
    for (name, about) in super::commands() {
        let _ = writeln!(
            commands,
            "<dt><code>forebay {}</code></dt><dd>{}</dd>",
            escape(&name),
            escape(&about)
        );
    }
    // What is put in last is searched no more: a path may hold anything, `@commands@` as well.
    PAGE.replace("@version@", env!("CARGO_PKG_VERSION"))
        .replace("@first@", &escape(FIRST))
        .replace("@commands@", &commands)
        .replace("@file@", &escape(&file.display().to_string()))
}

/// Text in HTML, in an element or between double quotes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::source::Source;

    #[test]
    fn it_is_a_right_configuration() {
        for file in [
            "/srv/forebay.lua",
            "/a \"b\"/<i>$host</i>/@first@/\\/forebay.lua",
        ] {
            let source = Source::Text(configuration(Path::new(file)));
            source
                .build(None)
                .unwrap_or_else(|report| panic!("{}", report.render()));
            let page = page(Path::new(file));
            assert!(page.contains(&escape(file)), "{page}");
            assert!(!page.contains("<i>$host"), "{page}");
            for name in ["check", "serve", "reload", "doctor"] {
                assert!(page.contains(&format!("forebay {name}</code>")), "{name}");
            }
            assert!(!page.contains("reference"), "a hidden command is shown");
        }
    }

    #[test]
    fn the_first_configuration_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("forebay.lua");
        std::fs::create_dir(dir.path().join("public")).unwrap();
        std::fs::write(&file, FIRST).unwrap();
        let built = Source::File(file).build(None);
        let (_, report) = built.unwrap_or_else(|report| panic!("{}", report.render()));
        assert_eq!(report.render_warnings(), "");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page(Path::new("/srv/forebay.lua"));
        for outside in ["src=", "url(", "@import", "<script", "https://"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("width=device-width") && page.contains("prefers-color-scheme"));
    }
}
