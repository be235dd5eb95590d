//! The pages that people write, and the fenced blocks in them.
//!
//! Of a block the first line says what it is: a language, and what is to be done with it (see the
//! tests of the pages), as `lua steps`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    /// Where it stands, for messages.
    pub place: String,
    /// Behind the fence: all of it.
    pub kind: String,
    /// What stands in it, with a newline at the end of each line.
    pub text: String,
}

impl Block {
    /// The language.
    #[must_use]
    pub fn language(&self) -> &str {
        self.kind.split(' ').next().unwrap_or_default()
    }

    /// The file that this is, if it says so: `lua forebay.lua`, `html public/index.html`.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        let (_, name) = self.kind.split_once(' ')?;
        name.contains(['.', '/']).then_some(name)
    }
}

/// The directory of the project.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All pages: those at the root and what is in `docs`, sorted.
///
/// # Panics
/// When a directory cannot be read.
#[must_use]
pub fn pages() -> Vec<PathBuf> {
    let mut pages = BTreeSet::new();
    for name in [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "ARCHITECTURE.md",
    ] {
        pages.insert(root().join(name));
    }
    let mut dirs = vec![root().join("docs")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                pages.insert(path);
            }
        }
    }
    assert!(pages.len() > 10, "the pages are not found");
    pages.into_iter().collect()
}

/// The pages of which each block is a whole example: `docs/reference.md` is made of tables that have
/// tests of their own.
#[must_use]
pub fn written() -> Vec<PathBuf> {
    let mut pages = pages();
    pages.retain(|page| !page.ends_with("docs/reference.md"));
    pages
}

/// The blocks of a page, in order.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn blocks_of(page: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(page).expect("a page");
    let name = page.strip_prefix(root()).unwrap_or(page);
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let mut block = Block {
            place: format!("{}:{}", name.display(), number + 1),
            kind: kind.to_owned(),
            text: String::new(),
        };
        for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
            block.text.push_str(line);
            block.text.push('\n');
        }
        blocks.push(block);
    }
    blocks
}

/// Whether a text is what was expected, in which `…` stands for any text, and a line of nothing else
/// for any lines.
#[must_use]
pub fn matches(expected: &str, got: &str) -> bool {
    let expected: Vec<&str> = expected.lines().map(str::trim_end).collect();
    let got: Vec<&str> = got.lines().map(str::trim_end).collect();
    lines_match(&expected, &got)
}

fn lines_match(expected: &[&str], got: &[&str]) -> bool {
    match (expected.split_first(), got.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), _) => (0..=got.len()).any(|skip| lines_match(rest, &got[skip..])),
        (Some((line, rest)), Some((first, others))) => {
            line_matches(line, first) && lines_match(rest, others)
        }
        _ => false,
    }
}

fn line_matches(expected: &str, got: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(rest) = got.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    let mut rest = rest;
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: &str, got: &str, want: bool) {
        assert_eq!(matches(expected, got), want, "{expected:?} {got:?}");
    }

    #[test]
    fn compares_what_is_shown() {
        check("", "", true);
        check("", "a\n", false);
        check("a\nb\n", "a\nb", true);
        check("a\nb\n", "a\n", false);
        check("a\n", "a\nb\n", false);
        check("a\r\n", "a\n", true);
        check("x…z\n", "xyz\n", true);
        check("x…z\n", "xz\n", true);
        check("x…z\n", "xyzw\n", false);
        check("x…\n", "xyz\n", true);
        check("…a…b…\n", "1a2b3\n", true);
        check("…a…b…\n", "1b2a3\n", false);
        check("…a\n", "b\n", false);
        check("…\n", "", true);
        check("a\n…\nd\n", "a\nb\nc\nd\n", true);
        check("a\n…\nd\n", "a\nd\n", true);
        check("a\n…\nd\n", "a\nb\nc\n", false);
    }

    #[test]
    fn a_block_may_be_a_file() {
        let block = |kind: &str| Block {
            place: String::new(),
            kind: kind.into(),
            text: String::new(),
        };
        assert_eq!(block("lua forebay.lua").file(), Some("forebay.lua"));
        assert_eq!(block("lua steps").file(), None);
        assert_eq!(block("text").file(), None);
        assert_eq!(block("lua steps").language(), "lua");
    }
}
