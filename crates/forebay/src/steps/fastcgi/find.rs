//! Which script a request is for: looked for on the disk, never guessed from the path.
//!
//! What servers and php-fpm have guessed has been the end of many a site: `/upload.jpg/x.php`, which
//! runs a picture as a script where php-fpm walks up the path itself (`cgi.fix_pathinfo`), or a
//! newline in the path that made a pattern miss and `PATH_INFO` come out empty (CVE-2019-11043).
//! Here a script is a regular file below `root` whose name is one of `scripts`; `PATH_INFO` is what
//! stands behind it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use forebay_config::{Match, Part, Template, Variable};
use forebay_sys::files::{Facts, Kind, Links};

use crate::exchange::{Exchange, expand_url};
use crate::snapshot::resource_id;
use crate::steps::files::find::is_absent;
use crate::steps::files::path::{self, Hide};

/// Of one path so many files are looked at, from its end: only names that match `scripts` are.
const MAX_LOOKS: usize = 8;

/// Links are followed only under `root`.
pub const LINKS: Links = Links::Inside;

/// A path to look at under the root.
pub struct Try {
    path: Template,
    /// With its question mark.
    query: Option<Template>,
    /// It ends in a variable: what stands behind a script in it is `PATH_INFO`.
    splits: bool,
    /// It is the request's path and something behind it: the script stands for a directory.
    is_index: bool,
}

/// How scripts are looked for.
pub struct Scripts {
    /// Tells what was found for it from what was found for others.
    id: u64,
    /// Where the tries lead depends on the request's path alone.
    by_path: bool,
    tries: Box<[Try]>,
    patterns: Box<[Match]>,
    hide: Hide,
}

/// A script that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The number of the try that has led to it.
    pub number: usize,
    /// Its path below the root, decoded.
    pub name: Vec<u8>,
    /// What stands behind it: empty, or from a slash on; decoded.
    pub path_info: Vec<u8>,
}

/// What looking comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This runs.
    Script(Arc<Script>),
    /// A directory that was asked for without its slash.
    Directory,
    /// Nothing that runs.
    Nothing,
}

impl Try {
    /// What a template says.
    pub fn new(template: &Template) -> Try {
        let mut path = Vec::new();
        let mut query: Option<Vec<Part>> = None;
        for part in &template.parts {
            match (&mut query, part) {
                (Some(query), part) => query.push(part.clone()),
                (None, Part::Text(text)) => match text.split_once('?') {
                    Some((before, after)) => {
                        if !before.is_empty() {
                            path.push(Part::Text(before.into()));
                        }
                        query = Some(vec![Part::Text(format!("?{after}").into())]);
                    }
                    None => path.push(part.clone()),
                },
                (None, part) => path.push(part.clone()),
            }
        }
        let splits = matches!(path.last(), Some(Part::Var(_)));
        let is_path = matches!(path.first(), Some(Part::Var(Variable::Path)));
        Try {
            splits,
            is_index: is_path && !splits,
            path: Template { parts: path },
            query: query.map(|parts| Template { parts }),
        }
    }

    /// Its query for this exchange, if it has one of its own.
    pub fn query(&self, exchange: &Exchange) -> Option<Vec<u8>> {
        let query = self.query.as_ref()?;
        let mut out = Vec::new();
        expand_url(query, exchange, &mut out);
        out.remove(0);
        Some(out)
    }
}

/// The paths to look at for one exchange, decoded: a try's number with each.
pub type Paths = Vec<(usize, Vec<u8>)>;

impl Scripts {
    /// These tries for files with such names.
    pub fn new(tries: Vec<Try>, patterns: Vec<Match>) -> Scripts {
        let by_path = |one: &Try| {
            let mut variables = one.path.variables();
            variables.all(|variable| matches!(variable, Variable::Path))
        };
        Scripts {
            id: resource_id(),
            by_path: tries.iter().all(by_path),
            tries: tries.into(),
            patterns: patterns.into(),
            // Names that begin with a dot, and what is no name.
            hide: Hide::new([]),
        }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the request's path alone decides where the tries lead.
    pub fn go_by_path(&self) -> bool {
        self.by_path
    }

    /// The tries.
    pub fn tries(&self) -> &[Try] {
        &self.tries
    }

    /// The paths to look at.
    pub fn paths(&self, exchange: &Exchange) -> Paths {
        let mut paths = Vec::with_capacity(self.tries.len());
        if !exchange.request.path().starts_with('/') {
            return paths;
        }
        for (number, attempt) in self.tries.iter().enumerate() {
            let mut path = Vec::new();
            if path::expand(&attempt.path, exchange, &mut path) {
                paths.push((number, path));
            }
        }
        paths
    }

    /// Looks for the first of them that leads to a script, opening what may be one with `open`;
    /// `as_directory`: the request's path ends in a slash.
    ///
    /// # Errors
    /// Whatever keeps a file that may be there from being opened; `WouldBlock` from `open` too.
    pub fn find(
        &self,
        paths: &Paths,
        as_directory: bool,
        mut open: impl FnMut(&[u8]) -> io::Result<File>,
    ) -> io::Result<Found> {
        for (number, path) in paths {
            let Some(attempt) = self.tries.get(*number) else {
                continue;
            };
            for end in self.ends(path, attempt.splits).take(MAX_LOOKS) {
                let (name, path_info) = path.split_at(end);
                if !is_file(open(name))? {
                    continue;
                }
                if attempt.is_index && !as_directory {
                    return Ok(Found::Directory);
                }
                return Ok(Found::Script(Arc::new(Script {
                    number: *number,
                    name: name.to_vec(),
                    path_info: path_info.to_vec(),
                })));
            }
        }
        Ok(Found::Nothing)
    }

    /// Where in a path the names of scripts could end, the whole of it first.
    fn ends<'a>(&'a self, path: &'a [u8], splits: bool) -> impl Iterator<Item = usize> + 'a {
        let mut ends = path.len() + 1;
        std::iter::from_fn(move || {
            if ends == 0 {
                return None;
            }
            let end = ends - 1;
            ends = match splits {
                true => path
                    .get(..end)
                    .and_then(|before| memchr::memrchr(b'/', before))
                    .map_or(0, |slash| slash + 1),
                false => 0,
            };
            Some(end)
        })
        .filter(move |&end| self.may_be_script(&path[..end]))
    }

    fn may_be_script(&self, name: &[u8]) -> bool {
        let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        !last.is_empty()
            && self.patterns.iter().any(|pattern| pattern.matches(last))
            && !self.hide.refuses(name)
    }
}

fn is_file(opened: io::Result<File>) -> io::Result<bool> {
    match opened {
        Ok(file) => Ok(Facts::of(&file)?.kind == Kind::File),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts(tries: &[&str], patterns: &[&str]) -> Scripts {
        let vars = forebay_config::Vars::Request;
        let parse = |text: &&str| Try::new(&Template::parse(text, vars).expect("a template"));
        let patterns = patterns.iter().filter_map(|pattern| Match::parse(pattern));
        Scripts::new(tries.iter().map(parse).collect(), patterns.collect())
    }

    /// What is opened for a path, and what is found, where these files and directories are.
    fn look(path: &str, files: &[&str], most_opened: usize) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        for file in files {
            let at = dir.path().join(file);
            std::fs::create_dir_all(at.parent().expect("above")).expect("a directory");
            match file.strip_suffix('/') {
                Some(_) => std::fs::create_dir_all(&at).expect("a directory"),
                None => std::fs::write(&at, "x").expect("a file"),
            }
        }
        let scripts = scripts(&["$path", "$path/index.php", "/index.php"], &["*.php"]);
        let relative = path.trim_start_matches('/');
        let index = match relative.is_empty() || relative.ends_with('/') {
            true => format!("{relative}index.php"),
            false => format!("{relative}/index.php"),
        };
        let paths = vec![
            (0, relative.into()),
            (1, index.into_bytes()),
            (2, b"index.php".to_vec()),
        ];
        let mut opened = 0;
        let found = scripts.find(&paths, path.ends_with('/'), |name| {
            opened += 1;
            File::open(dir.path().join(str::from_utf8(name).expect("a text")))
        });
        assert!(opened <= most_opened, "{path}: {opened} files were opened");
        match found.expect("no error") {
            Found::Nothing => "nothing".to_owned(),
            Found::Directory => "directory".to_owned(),
            Found::Script(script) => {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a text");
                let (name, rest) = (text(script.name.clone()), text(script.path_info.clone()));
                format!("{} {name} {rest}", script.number)
                    .trim_end()
                    .to_owned()
            }
        }
    }

    #[test]
    fn the_first_script_that_exists_runs() {
        let check = |path: &str, files: &[&str], expected: &str| {
            assert_eq!(look(path, files, 10), expected, "{path} in {files:?}");
        };
        check("/a.php", &["a.php"], "0 a.php");
        check("/a.php/x/y", &["a.php"], "0 a.php /x/y");
        check("/a.php/", &["a.php"], "0 a.php /");
        check("/d/a.php/x.php", &["d/a.php"], "0 d/a.php /x.php");
        check("/d.php/a.php/x", &["d.php/a.php"], "0 d.php/a.php /x");
        check("/", &["index.php"], "1 index.php");
        check("/pretty/link", &["index.php"], "2 index.php");
        check("/d", &["d/index.php", "index.php"], "directory");
        check("/d/", &["d/index.php", "index.php"], "1 d/index.php");
        check("/d/", &["d/", "index.php"], "2 index.php");
        check("/x", &[], "nothing");
    }

    #[test]
    fn what_is_no_script_never_runs() {
        let check = |path: &str, files: &[&str], expected: &str| {
            assert_eq!(look(path, files, 10), expected, "{path} in {files:?}");
        };
        check("/up.jpg/x.php", &["up.jpg"], "nothing");
        check("/up.jpg/x.php", &["up.jpg", "index.php"], "2 index.php");
        check("/up.jpg/x.php/y.php", &["up.jpg"], "nothing");
        check("/a.PHP", &["a.PHP"], "nothing");
        check("/a.php5", &["a.php5"], "nothing");
        check("/a.php.bak", &["a.php.bak", "a.php"], "nothing");
        check("/.git/a.php", &[".git/a.php"], "nothing");
        check("/.a.php", &[".a.php"], "nothing");
        check("/d//a.php", &["d/a.php"], "nothing");
        check("/a.php", &["a.php/"], "nothing");
        check("/a.php\\x", &["a.php"], "nothing");
    }

    #[test]
    fn a_long_path_costs_few_looks() {
        let path = "/x.php".repeat(1_000);
        assert_eq!(
            look(&path, &["index.php"], 2 * MAX_LOOKS + 1),
            "2 index.php"
        );
    }

    #[test]
    fn a_try_is_taken_apart() {
        let parts = |text: &str| {
            let scripts = scripts(&[text], &[]);
            let one = &scripts.tries()[0];
            (one.splits, one.is_index, one.query.is_some())
        };
        assert_eq!(parts("$path"), (true, false, false));
        assert_eq!(parts("$path/index.php"), (false, true, false));
        assert_eq!(parts("/index.php"), (false, false, false));
        assert_eq!(parts("/index.php$path"), (true, false, false));
        assert_eq!(
            parts("/doku.php?id=$rest&$query_string"),
            (false, false, true)
        );
    }
}
