//! From the path of a request to the path of a file.
//!
//! A path is decoded exactly once, segment by segment, and what could make two readers see two
//! different paths in it names no file: an escaped slash, NUL, a backslash, `.` and `..` by any
//! way, and empty segments (`//admin` would pass the route that guards `/admin/*`).

use std::sync::Arc;

use forebay_config::{Match, Part, Template, Variable};

use crate::exchange::Exchange;

/// Names that are never looked up.
pub struct Hide {
    patterns: Box<[Match]>,
    /// Scripts that another step of the site runs.
    scripts: Arc<[Match]>,
}

/// What editors and people put behind the name of a file that they keep a copy of, and what packs
/// it: behind `.`, `_` or `-`.
const COPIES: [&[u8]; 33] = [
    b"bak",
    b"backup",
    b"old",
    b"orig",
    b"original",
    b"save",
    b"sav",
    b"swp",
    b"swo",
    b"swn",
    b"tmp",
    b"temp",
    b"copy",
    b"rej",
    b"dist",
    b"new",
    b"gz",
    b"br",
    b"zst",
    b"bz2",
    b"xz",
    b"zip",
    b"tar",
    b"7z",
    b"tgz",
    b"rar",
    b"txt",
    // What package managers put beside what was changed: `.dpkg-old`, `.ucf-dist`, `.rpmsave`.
    b"dpkg",
    b"ucf",
    b"rpmsave",
    b"rpmnew",
    b"rpmorig",
    b"mine",
];

impl Hide {
    /// Files and directories whose names match one of these, in the case given or in lower case:
    /// on a file system that is blind to case, `INDEX.PHP` is the script as well.
    pub fn new(patterns: impl IntoIterator<Item = Match>) -> Hide {
        Hide {
            patterns: patterns.into_iter().collect(),
            scripts: Arc::from([]),
        }
    }

    /// And these scripts, with all that may be a copy of one: a script is not to be read by those
    /// for whom it runs.
    #[must_use]
    pub fn and_scripts(self, scripts: Arc<[Match]>) -> Hide {
        Hide { scripts, ..self }
    }

    /// Whether this path names nothing that may be sent. A path that ends in a slash is one of a
    /// directory.
    pub fn refuses(&self, path: &[u8]) -> bool {
        if memchr::memchr2(0, b'\\', path).is_some() {
            return true;
        }
        let dir = path.strip_suffix(b"/").unwrap_or(path);
        // The root itself.
        !path.is_empty() && dir.split(|&byte| byte == b'/').any(|name| self.hides(name))
    }

    /// Why a path names nothing that may be sent, if it does not.
    pub fn why(&self, path: &[u8]) -> Option<&'static str> {
        if !self.refuses(path) {
            return None;
        }
        if memchr::memchr2(0, b'\\', path).is_some() {
            return Some("it holds a NUL or a backslash");
        }
        let dir = path.strip_suffix(b"/").unwrap_or(path);
        let mut names = dir.split(|&byte| byte == b'/');
        Some(match names.find(|name| self.hides(name)) {
            Some([]) => "a segment of it is empty",
            Some([b'.', ..]) => "names that begin with a dot are hidden",
            Some(name) if self.is_script(name) => "another step of the site runs such scripts",
            _ => "a name in it is among `hide`",
        })
    }

    fn hides(&self, name: &[u8]) -> bool {
        match name {
            [] => return true,
            // RFC 8615.
            b".well-known" => return false,
            // Among them `.` and `..`.
            [b'.', ..] => return true,
            _ => {}
        }
        if self.patterns.iter().any(|pattern| pattern.matches(name)) || self.is_script(name) {
            return true;
        }
        if !name.iter().any(u8::is_ascii_uppercase) {
            return false;
        }
        let lower = name.to_ascii_lowercase();
        self.patterns.iter().any(|pattern| pattern.matches(&lower))
    }

    /// Whether a name is that of a script, or of a copy of one.
    fn is_script(&self, name: &[u8]) -> bool {
        if self.scripts.is_empty() {
            return false;
        }
        let lower = name.to_ascii_lowercase();
        let any = |name: &[u8]| self.scripts.iter().any(|script| script.matches(name));
        let mut left = Some(lower.as_slice());
        while let Some(name) = left {
            if any(name) {
                return true;
            }
            left = without_copy(name);
        }
        any(name)
    }
}

/// The name that this is a copy of, if it looks like one. Dots and blanks at the end of a name are
/// nothing to some file systems.
pub fn without_copy(name: &[u8]) -> Option<&[u8]> {
    match name {
        [b'#', name @ ..] | [name @ .., b'#' | b'~' | b'.' | b' '] => return Some(name),
        _ => {}
    }
    // A stream of a file, as NTFS has them: `x.php::$DATA` is `x.php`.
    if let Some(at) = memchr::memchr(b':', name) {
        return Some(&name[..at]);
    }
    let at = name.iter().rposition(|byte| b"._-".contains(byte))?;
    let end = &name[at + 1..];
    // Emacs numbers them `x.php.~1~`, people `x.php.bak2`.
    let end = end.strip_prefix(b"~").unwrap_or(end);
    let digits = end.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let word = &end[..end.len() - digits.count()];
    (word.is_empty() || COPIES.contains(&word) || COPIES.contains(&end)).then(|| &name[..at])
}

/// Whether every segment of a relative path is a name: none is empty, `.` or `..`.
pub fn is_plain(path: &[u8]) -> bool {
    memchr::memchr2(0, b'\\', path).is_none()
        && path
            .split(|&byte| byte == b'/')
            .all(|name| !matches!(name, b"" | b"." | b".."))
}

/// Appends a path's segments, decoded; false if one holds an escaped slash.
///
/// `path` is in normal form, so every escape in it is complete.
pub fn decode(path: &str, out: &mut Vec<u8>) -> bool {
    let mut rest = path.as_bytes();
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let [_, high, low, after @ ..] = &rest[at..] else {
            return false;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return false;
        };
        match u8::try_from(high * 16 + low) {
            Ok(b'/') | Err(_) => return false,
            Ok(byte) => out.push(byte),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    true
}

/// Appends the path that a template names for this exchange, relative to its directory; false if it
/// names none, because a variable in it is absent or holds an escaped slash.
///
/// Text stands for itself; `$path`, `$rest` and `$params` are decoded. Where two parts would make a
/// double slash, one is left out. What it comes to must still be asked [`Hide::refuses`].
pub fn expand<'a>(template: &'a Template, exchange: &'a Exchange, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for part in &template.parts {
        let at_slash = out.len() == start || out.last() == Some(&b'/');
        let joined = |text: &'a str| match text.strip_prefix('/') {
            Some(rest) if at_slash => rest,
            _ => text,
        };
        let done = match part {
            Part::Text(text) => {
                out.extend_from_slice(joined(text).as_bytes());
                true
            }
            Part::Var(Variable::Path) => decode(joined(exchange.request.path()), out),
            Part::Var(Variable::Rest) => decode(exchange.rest(), out),
            Part::Var(Variable::Param(name)) => {
                let value = exchange.captures.param(name).unwrap_or("");
                !value.is_empty() && decode(value, out)
            }
            Part::Var(variable) => {
                let before = out.len();
                let template = Template {
                    parts: vec![Part::Var(variable.clone())],
                };
                crate::exchange::expand(&template, exchange, None, out);
                out.len() > before
            }
        };
        if !done {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hide() -> Hide {
        let patterns = ["*.php", "*.cgi", "private"];
        Hide::new(patterns.iter().filter_map(|pattern| Match::parse(pattern)))
    }

    #[test]
    fn names_that_are_passed_over() {
        let hide = hide();
        for path in [
            ".env",
            ".git/config",
            "a/.htaccess",
            "a/.git/",
            "x.php",
            "X.PHP",
            "a.Cgi",
            "private/a",
            "a/private",
            "Private/a",
            "a//b",
            "/a",
            "a//",
            "a/../b",
            "..",
            "./a",
            "a\\b",
            "a\0",
            "x.php/",
            ".well-known/.x",
            "/",
            "..a",
        ] {
            assert!(hide.refuses(path.as_bytes()), "{path}");
        }
        for path in [
            "",
            "a",
            "a/",
            "a/b.txt",
            ".well-known/acme",
            "a/.well-known/x",
            "x.php.txt",
            "php",
            "a b",
            "\u{fc}",
            "a..b",
            "~a",
            "publicprivate",
        ] {
            assert!(!hide.refuses(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn scripts_and_their_copies_are_no_files() {
        let scripts: Vec<Match> = Match::parse("*.php").into_iter().collect();
        let hide = Hide::new([]).and_scripts(scripts.into());
        for path in [
            "x.php",
            "x.PHP",
            "X.pHp",
            "x.php/y",
            "x.php/",
            "x.php~",
            "x.php.bak",
            "x.PHP.BAK",
            "x.php.swp",
            ".x.php.swp",
            "x.php.old~",
            "x.php_bak",
            "x.php-2024-01-31",
            "x.php.1",
            "x.php.",
            "x.php .",
            "x.php.gz",
            "x.php.tar.gz",
            "#x.php#",
            "a/x.php.orig/b",
            "x.php::$DATA",
            "X.PHP:stream",
            "x.php.~1~",
            "x.php.~12~.gz",
            "x.php.bak2",
            "x.php.old3~",
            "x.php.bz2",
            "x.php.7z",
            "x.php.txt",
            "x.php.dpkg-old",
            "x.php.ucf-dist",
            "x.php.rpmsave",
            "x.php. .",
        ] {
            assert!(hide.refuses(path.as_bytes()), "{path}");
        }
        for path in [
            "x.phps",
            "php",
            "x.txt~",
            "x.bak",
            "a.1",
            "xphp.bak",
            "x.php.css",
            "x:y.txt",
            "notes.txt",
        ] {
            assert!(!hide.refuses(path.as_bytes()), "{path}");
        }
        assert!(!Hide::new([]).refuses(b"x.php"));
    }

    #[test]
    fn segments_are_decoded_once() {
        let check = |path: &str, expected: Option<&str>| {
            let mut out = Vec::new();
            let got = decode(path, &mut out).then_some(out);
            assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{path}");
        };
        check("", Some(""));
        check("a/b", Some("a/b"));
        check("a%20b", Some("a b"));
        check("%C3%BC.txt", Some("\u{fc}.txt"));
        check("per%2520cent", Some("per%20cent"));
        check("a%2Fb", None);
        check("a%5Cb", Some("a\\b"));
        check("%2", None);
        check("%zz", None);
        check("%+1", None);
    }

    #[test]
    fn plain_paths() {
        for (path, plain) in [
            ("a", true),
            ("a.b/c", true),
            (".a", true),
            ("", false),
            ("a/", false),
            ("/a", false),
            ("a//b", false),
            ("a/../b", false),
            ("..", false),
            ("a/.", false),
            ("a\0", false),
        ] {
            assert_eq!(is_plain(path.as_bytes()), plain, "{path}");
        }
    }
}
