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
/// their files; for others index.php gets what is no file. Of an application that keeps its document
/// root in `public`, `web` or `webroot`, only that is served. Nothing that visitors have uploaded runs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  forebay php .
  forebay php /srv/blog --listen 127.0.0.1:3000
  forebay php /srv/blog --cache
  forebay php /srv/blog --print >forebay.lua    the configuration that does the same")]
pub struct Args {
    /// The directory: that of the application
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

/// Where applications keep what is for browsers, if not beside their code.
const ROOTS: [&str; 3] = ["public", "web", "webroot"];

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
    /// Composer has put its packages below the root.
    has_vendor: bool,
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
        let (kind, root) = find(&dir);
        let has_vendor = has_vendor(&root);
        let (Some(root), Some(program)) = (root.to_str(), php.to_str()) else {
            return wrong(format_args!("{}: its name is not UTF-8", dir.display()));
        };
        let user = user_for(&dir);
        let site = Site {
            kind,
            root,
            has_vendor,
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
        if kind == Kind::Plain && !has_scripts(Path::new(root)) {
            eprintln!("forebay: there is no script in {root}: is it the right directory?");
        }
        let what = format!("{root}: {}, run by {program}", name(kind, &dir));
        start::start(source, what)
    }
}

/// What is in a directory, and which one is to be served.
fn find(dir: &Path) -> (Kind, PathBuf) {
    let has = |name: &str| dir.join(name).exists();
    for name in ROOTS {
        // An index.php beside it is what a server without rules gets: CakePHP's leads there.
        let is_for_all = name == "webroot" || !has("index.php");
        if has(&format!("{name}/index.php")) && is_for_all {
            let root = dir.join(name);
            return match Kind::of(&root) {
                Kind::Plain => (Kind::Public, root),
                kind => (kind, root),
            };
        }
    }
    let kind = match Kind::of(dir) {
        Kind::Plain if dir.parent().is_some_and(is_framework) => Kind::Public,
        kind => kind,
    };
    (kind, dir.to_owned())
}

/// Whether this is the directory of an application by Laravel or Symfony.
fn is_framework(dir: &Path) -> bool {
    dir.join("artisan").is_file() || dir.join("bin/console").is_file()
}

/// What an application is called.
fn name(kind: Kind, dir: &Path) -> &'static str {
    let above = dir.parent().unwrap_or(dir);
    let has = |name: &str| dir.join(name).is_file() || above.join(name).is_file();
    match kind {
        Kind::WordPress => "WordPress",
        Kind::DokuWiki => "DokuWiki",
        Kind::Drupal => "Drupal",
        Kind::Public if has("artisan") => "Laravel",
        Kind::Public if has("bin/console") => "Symfony",
        Kind::Public => "an application with a front controller",
        Kind::Plain => "PHP",
    }
}

/// Where a link below the root leads that goes out of it into the application: Laravel keeps what
/// visitors have uploaded in `storage/app/public`, and links `public/storage` to it.
fn linked(root: &Path, pattern: &str) -> Option<PathBuf> {
    let dir = root.join(pattern.trim_start_matches('/').trim_end_matches("/*"));
    let to = dir.canonicalize().ok().filter(|to| to.is_dir())?;
    let root = root.canonicalize().ok()?;
    let is_inside = !to.starts_with(&root) && to.starts_with(root.parent()?);
    is_inside.then_some(to)
}

/// Whether there is something to run, right in this directory.
fn has_scripts(root: &Path) -> bool {
    let entries = root.read_dir().into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| Path::new(&name).extension().is_some_and(|it| it == "php"))
}

fn has_vendor(root: &Path) -> bool {
    root.join("vendor/autoload.php").exists()
}

impl Kind {
    fn of(root: &Path) -> Kind {
        let has = |name: &str| root.join(name).exists();
        if (has("wp-load.php") && has("wp-includes")) || has("wp/wp-load.php") {
            Kind::WordPress
        } else if has("doku.php") && has("inc") {
            Kind::DokuWiki
        } else if has("core/lib/Drupal.php") {
            Kind::Drupal
        } else {
            Kind::Plain
        }
    }

    /// What visitors can put files into.
    fn uploads(self) -> &'static [&'static str] {
        match self {
            Kind::WordPress => &["/wp-content/uploads/*", "/app/uploads/*"],
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
            // Most of them are PHP under another name.
            Kind::Drupal => &[
                "/vendor/*",
                "/sites/default/settings.php/*",
                "*.module",
                "*.inc",
                "*.install",
                "*.profile",
                "*.engine",
                "*.theme",
                "*.twig",
                "*.yml",
                "*.sql",
            ],
            Kind::WordPress => &["/wp-config.php/*", "/wp-content/debug.log"],
            Kind::Public => &[],
            Kind::Plain => &["*.inc"],
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
                r#"cache { ttl = "1m", stale_while_revalidate = "1m", bypass = { cookie { "wordpress_logged_in_*", "comment_author_*", "wp-postpass_*" }, path { "/wp-admin/*", "/wp-login.php", "/wp-cron.php", "/xmlrpc.php", "/wp-json/*", "/wp/*" } } }"#
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
        // What can be run of a package was not written to be asked for by anybody.
        let packages: &[&str] = match self.has_vendor {
            true => &["/vendor/*", "/composer.json", "/composer.lock"],
            false => &[],
        };
        let known = self.kind.closed();
        let packages = packages.iter().filter(|path| !known.contains(path));
        for path in known.iter().chain(packages) {
            let _ = writeln!(out, "  route {} {{ respond(403) }},", quote(path));
        }
        for path in self.kind.uploads() {
            let (route, linked) = (quote(path), linked(Path::new(self.root), path));
            let _ = match linked.as_deref().and_then(Path::to_str) {
                Some(to) => {
                    let to = quote_template(to);
                    writeln!(
                        out,
                        "  route {route} {{ rewrite \"/$rest\", files({to}) }},"
                    )
                }
                None => writeln!(out, "  route {route} {{ files({root}) }},"),
            };
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
            (&["index.php", "core/lib/Drupal.php"], Kind::Drupal),
            (&["hello.php"], Kind::Plain),
            (&[], Kind::Plain),
        ] {
            check(files, expected, "");
        }
    }

    #[test]
    fn the_document_root_is_found() {
        for (files, expected, root) in [
            (&["artisan", "public/index.php"][..], Kind::Public, "public"),
            (&["bin/console", "public/index.php"], Kind::Public, "public"),
            (&["public/index.php"], Kind::Public, "public"),
            (&["index.php", "public/index.php"], Kind::Plain, ""),
            (&["yii", "web/index.php"], Kind::Public, "web"),
            (
                &[
                    "web/index.php",
                    "web/core/lib/Drupal.php",
                    "vendor/autoload.php",
                ],
                Kind::Drupal,
                "web",
            ),
            (
                &["web/index.php", "web/wp/wp-load.php"],
                Kind::WordPress,
                "web",
            ),
            (&["index.php", "webroot/index.php"], Kind::Public, "webroot"),
            (&["index.php", "web/a.css"], Kind::Plain, ""),
        ] {
            check(files, expected, root);
        }
        // Where somebody names it himself.
        let dir = tree(&["artisan", "public/index.php"]);
        let public = dir.path().join("public");
        assert_eq!(find(&public), (Kind::Public, public.clone()));
        assert_eq!(name(Kind::Public, &public), "Laravel");
        assert_eq!(name(Kind::Public, dir.path()), "Laravel");
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            std::fs::write(path, "").expect("a file");
        }
        dir
    }

    fn check(files: &[&str], expected: Kind, root: &str) {
        let dir = tree(files);
        let found = (expected, dir.path().join(root));
        assert_eq!(find(dir.path()), found, "{files:?}");
    }

    #[test]
    fn what_composer_has_brought_is_closed() {
        for (files, expected) in [
            (&["index.php", "vendor/autoload.php"][..], 1),
            (&["index.php", "vendor/bootstrap.css"], 0),
            (
                &["index.php", "core/lib/Drupal.php", "vendor/autoload.php"],
                1,
            ),
        ] {
            let dir = tree(files);
            let (kind, root) = find(dir.path());
            let site = Site {
                kind,
                root: "/srv",
                has_vendor: has_vendor(&root),
                php: "php",
                user: None,
                cache: false,
            };
            let text = site.configuration(&Address::Port(8080));
            let closed = text.matches(r#"route "/vendor/*" { respond(403) }"#);
            assert_eq!(closed.count(), expected, "{text}");
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
                    has_vendor: true,
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
