//! `forebay php`: a PHP site with PHP processes of its own.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use forebay_config::Address;
use forebay_sys::process::{is_root, resolve_identity};

use super::lua::{quote, quote_template};
use super::{failed, print, start, wrong};
use crate::control::source::Source;

/// Serve a PHP site
///
/// Finds php-cgi, starts as many of its processes as are needed, and serves the files of the
/// directory and what its scripts make. WordPress, DokuWiki, Drupal, Laravel and Symfony are known by
/// their files; for others index.php gets what is no file. Nothing that visitors have uploaded runs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay php .
  forebay php /srv/blog --listen 127.0.0.1:3000
  forebay php /srv/blog --cache
  forebay php /srv/blog --print >forebay.lua    the configuration that does the same")]
pub struct Args {
    /// The directory: of an application that has a `public` directory, the one above it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Keep pages that are the same for all, in 256 MB of memory. What is for visitors with a
    /// session is not kept
    #[arg(long)]
    cache: bool,
    /// The program that runs PHP, instead of the newest php-cgi that is found
    #[arg(long, value_name = "PROGRAM")]
    php: Option<PathBuf>,
    /// Only print the configuration
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    listen: start::Listen,
}

/// What an application is, by its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    WordPress,
    DokuWiki,
    Drupal,
    /// Laravel, Symfony and others that keep their code out of the document root.
    Public,
    Plain,
}

/// Everything that a configuration is made of.
struct Site<'a> {
    kind: Kind,
    root: &'a str,
    php: &'a str,
    user: Option<&'a str>,
    cache: bool,
}

impl Args {
    /// Serves until told to stop.
    pub fn run(self) -> ExitCode {
        let dir = match self.dir.canonicalize() {
            Ok(dir) if dir.is_dir() => dir,
            Ok(_) => return wrong(format_args!("{} is no directory", self.dir.display())),
            Err(error) => return wrong(format_args!("{}: {error}", self.dir.display())),
        };
        let Some(php) = self.php.or_else(|| newest(&programs())) else {
            return failed(
                "there is no php-cgi: install it (on Debian `sudo apt-get install php-cgi`), or \
                 name one with --php",
            );
        };
        if !is_there(&php) {
            return wrong(format_args!("there is no program {}", php.display()));
        }
        let kind = Kind::of(&dir);
        let root = kind.root(&dir);
        let (Some(root), Some(program)) = (root.to_str(), php.to_str()) else {
            return wrong(format_args!("{}: its name is not UTF-8", dir.display()));
        };
        let user = user_for(&dir);
        let site = Site {
            kind,
            root,
            php: program,
            user: user.as_deref(),
            cache: self.cache,
        };
        let address = self.listen.address();
        let text = site.configuration(&address);
        if self.print {
            return print(&text);
        }
        let remedy = "Choose another address, as --listen 127.0.0.1:8081.";
        if let Err(error) = start::expect_free(&address, remedy) {
            return failed(error);
        }
        let source = Source::Text(text);
        // Told as a mistake in what was asked, and before anything is started.
        if let Err(report) = source.build(None) {
            let mistakes = report.mistakes();
            let said: Vec<_> = mistakes.iter().map(|one| one.message.as_str()).collect();
            return wrong(said.join("\n"));
        }
        let what = format!("{root}: {}, run by {program}", kind.name());
        start::start(source, what)
    }
}

impl Kind {
    fn of(dir: &Path) -> Kind {
        let has = |name: &str| dir.join(name).exists();
        if has("wp-load.php") && has("wp-includes") {
            Kind::WordPress
        } else if has("doku.php") && has("inc") {
            Kind::DokuWiki
        } else if has("public/index.php") && !has("index.php") {
            Kind::Public
        } else if has("core/lib/Drupal.php") {
            Kind::Drupal
        } else {
            Kind::Plain
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::WordPress => "WordPress",
            Kind::DokuWiki => "DokuWiki",
            Kind::Drupal => "Drupal",
            Kind::Public => "an application with a front controller",
            Kind::Plain => "PHP",
        }
    }

    fn root(self, dir: &Path) -> PathBuf {
        match self {
            Kind::Public => dir.join("public"),
            _ => dir.to_owned(),
        }
    }

    /// What visitors can put files into.
    fn uploads(self) -> &'static [&'static str] {
        match self {
            Kind::WordPress => &["/wp-content/uploads/*"],
            Kind::Drupal => &["/sites/default/files/*"],
            Kind::Public => &["/storage/*", "/uploads/*"],
            Kind::DokuWiki => &[],
            Kind::Plain => &["/uploads/*", "/upload/*", "/files/*"],
        }
    }

    /// What is nobody's.
    fn closed(self) -> &'static [&'static str] {
        match self {
            Kind::DokuWiki => &["/data/*", "/conf/*", "/bin/*", "/inc/*", "/vendor/*"],
            Kind::Drupal => &["/vendor/*", "/sites/default/settings.php"],
            Kind::WordPress => &["/wp-config.php", "/wp-content/debug.log"],
            Kind::Public | Kind::Plain => &[],
        }
    }

    /// Options of `fastcgi`, beside `root`.
    fn front(self) -> &'static str {
        match self {
            Kind::WordPress | Kind::Plain => "",
            Kind::Drupal | Kind::Public => r#", try = { "$path", "/index.php" }"#,
            Kind::DokuWiki => {
                r#", try = { "$path", "$path/index.php", "/doku.php?id=$rest&$query_string" }"#
            }
        }
    }

    /// `cache`: what is for one visitor goes round it.
    fn cache(self) -> &'static str {
        match self {
            // It says nothing of how long its pages are fresh.
            Kind::WordPress => {
                r#"cache { ttl = "1m", stale_while_revalidate = "1m", bypass = { cookie { "wordpress_logged_in_*", "comment_author_*", "wp-postpass_*" }, path { "/wp-admin/*", "/wp-login.php", "/wp-cron.php", "/xmlrpc.php", "/wp-json/*" } } }"#
            }
            Kind::DokuWiki => r#"cache { bypass = cookie { "DokuWiki", "DW*" } }"#,
            Kind::Drupal | Kind::Public | Kind::Plain => r#"cache { bypass = cookie "*" }"#,
        }
    }
}

impl Site<'_> {
    fn configuration(&self, address: &Address) -> String {
        let address = quote(&address.to_string());
        let root = quote_template(self.root);
        let user = self
            .user
            .map_or(String::new(), |user| format!(", user = {}", quote(user)));
        let mut out = format!(
            "listen({address})\n\
             local php = processes \"php\" {{ {}, protocol = \"fastcgi\"{user}, env = {{ PHP_FCGI_MAX_REQUESTS = \"0\" }} }}\n\
             site {{ \"*\", compress,\n",
            quote(self.php)
        );
        // A path that ends in a pattern is matched as one segment after the other, so these go first.
        for path in self.kind.closed() {
            let _ = writeln!(out, "  route {} {{ respond(403) }},", quote(path));
        }
        for path in self.kind.uploads() {
            let _ = writeln!(out, "  route {} {{ files({root}) }},", quote(path));
        }
        let _ = writeln!(out, "  files({root}),");
        if self.cache {
            let _ = writeln!(out, "  {},", self.kind.cache());
        }
        let front = self.kind.front();
        let _ = writeln!(out, "  fastcgi(php) {{ root = {root}{front} }},\n}}");
        out
    }
}

/// The user whose processes they are, where root starts the server: not root.
fn user_for(dir: &Path) -> Option<String> {
    if !is_root() {
        return None;
    }
    let owner = dir.metadata().ok().map(|it| it.uid());
    let owner = owner.filter(|owner| *owner != 0).map(|it| it.to_string());
    let usual = ["www-data", "nobody"].map(str::to_owned);
    let mut users = owner.into_iter().chain(usual);
    users.find(|user| resolve_identity(user).is_ok())
}

/// Whether there is such a program: a path, or a name in `PATH`.
fn is_there(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Every program that is called php-cgi, with or without a version behind it.
fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = Vec::new();
    for dir in std::env::split_paths(&path) {
        for entry in dir.read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| version(name).is_some()) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// The version in the name of a program; of `php-cgi` the highest: it is the machine's choice.
fn version(name: &str) -> Option<(u32, u32)> {
    let version = name.strip_prefix("php-cgi")?;
    if version.is_empty() {
        return Some((u32::MAX, 0));
    }
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The newest; of several of one version the one that comes first in `PATH`.
fn newest(programs: &[PathBuf]) -> Option<PathBuf> {
    let of = |path: &PathBuf| path.file_name()?.to_str().and_then(version);
    let highest = programs.iter().filter_map(of).max()?;
    programs
        .iter()
        .find(|path| of(path) == Some(highest))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Kind; 5] = [
        Kind::WordPress,
        Kind::DokuWiki,
        Kind::Drupal,
        Kind::Public,
        Kind::Plain,
    ];

    #[test]
    fn applications_are_known_by_their_files() {
        for (files, expected) in [
            (
                &["wp-load.php", "wp-includes/version.php", "index.php"][..],
                Kind::WordPress,
            ),
            (&["doku.php", "inc/init.php"], Kind::DokuWiki),
            (&["artisan", "public/index.php"], Kind::Public),
            (&["bin/console", "public/index.php"], Kind::Public),
            (&["index.php", "core/lib/Drupal.php"], Kind::Drupal),
            (&["index.php", "public/index.php"], Kind::Plain),
            (&["hello.php"], Kind::Plain),
            (&[], Kind::Plain),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            for file in files {
                let path = dir.path().join(file);
                std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
                std::fs::write(path, "").expect("a file");
            }
            assert_eq!(Kind::of(dir.path()), expected, "{files:?}");
        }
    }

    #[test]
    fn every_configuration_is_right() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("with $host and \"quotes\"");
        std::fs::create_dir(&root).expect("a directory");
        for kind in ALL {
            for cache in [false, true] {
                let site = Site {
                    kind,
                    root: root.to_str().expect("text"),
                    php: "/bin/true",
                    user: None,
                    cache,
                };
                let text = site.configuration(&Address::Port(8080));
                let source = Source::Text(text.clone());
                if let Err(report) = source.build(None) {
                    panic!("{text}\n{}", report.render());
                }
                assert_eq!(text.contains("cache {"), cache);
            }
        }
    }

    #[test]
    fn the_newest_program_is_taken() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        for (found, expected) in [
            (
                &["/b/php-cgi7.4", "/b/php-cgi8.2", "/b/php-cgi8.10"][..],
                Some("/b/php-cgi8.10"),
            ),
            (&["/b/php-cgi8.2", "/b/php-cgi"], Some("/b/php-cgi")),
            (&["/a/php-cgi", "/b/php-cgi"], Some("/a/php-cgi")),
            (&["/b/php-cgi-old", "/b/php"], None),
        ] {
            assert_eq!(
                newest(&paths(found)),
                expected.map(PathBuf::from),
                "{found:?}"
            );
        }
    }
}
