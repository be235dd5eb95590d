//! Matches for names and values, and path patterns.

use std::fmt;

use memchr::memmem;
use regex::bytes::{Regex, RegexBuilder};

/// Compiled size of one expression: more is a mistake, not memory.
const REGEX_SIZE: usize = 1 << 20;

/// A test of a name or value, in time linear in its length.
#[derive(Clone)]
pub struct Match {
    /// As it was written.
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Equal,
    Begins,
    Ends,
    Contains,
    Regex(Regex),
}

impl Match {
    /// Reads `"abc"`, `"abc*"`, `"*abc"`, `"*abc*"`, `"*"`. A `*` elsewhere is none.
    pub fn parse(text: &str) -> Option<Match> {
        let (kind, inner) = Match::split(text);
        (!inner.contains('*')).then(|| Match {
            text: text.into(),
            kind,
        })
    }

    /// An expression; the error says what is wrong with it.
    pub fn regex(text: &str) -> Result<Match, String> {
        let regex = RegexBuilder::new(text)
            .size_limit(REGEX_SIZE)
            .dfa_size_limit(REGEX_SIZE)
            .build()
            .map_err(|error| last_line(&error.to_string()))?;
        Ok(Match {
            text: text.into(),
            kind: Kind::Regex(regex),
        })
    }

    fn split(text: &str) -> (Kind, &str) {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            // "*" alone ends with the empty text, so everything does.
            (Some(rest), Some(_)) => match rest.strip_suffix('*') {
                Some(inner) => (Kind::Contains, inner),
                None => (Kind::Ends, rest),
            },
            (Some(rest), None) => (Kind::Ends, rest),
            (None, Some(rest)) => (Kind::Begins, rest),
            (None, None) => (Kind::Equal, text),
        }
    }

    /// Whether this value is one.
    pub fn matches(&self, value: &[u8]) -> bool {
        let inner = self.inner().as_bytes();
        match &self.kind {
            Kind::Equal => value == inner,
            Kind::Begins => value.starts_with(inner),
            Kind::Ends => value.ends_with(inner),
            Kind::Contains => memmem::find(value, inner).is_some(),
            Kind::Regex(regex) => regex.is_match(value),
        }
    }

    /// The same match for names of header fields: blind to case, with `-` for `_`. Only for values
    /// given in lower case.
    ///
    /// An expression is compiled again; that it fits once more is all but certain, and if not, the
    /// error says so.
    pub fn for_fields(&self) -> Result<Match, String> {
        match &self.kind {
            Kind::Regex(_) => {
                let blind = format!("(?i:{})", self.text);
                Ok(Match {
                    text: self.text.clone(),
                    ..Match::regex(&blind)?
                })
            }
            kind => {
                let text = self.text.to_ascii_lowercase().replace('_', "-");
                Ok(Match {
                    text: text.into(),
                    kind: kind.clone(),
                })
            }
        }
    }

    /// The value that is the only one to match, if there is one: for a table instead of a search.
    pub fn exact(&self) -> Option<&str> {
        matches!(self.kind, Kind::Equal).then_some(&*self.text)
    }

    /// The expression, if it is one.
    pub fn as_regex(&self) -> Option<&Regex> {
        match &self.kind {
            Kind::Regex(regex) => Some(regex),
            _ => None,
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn inner(&self) -> &str {
        match self.kind {
            Kind::Equal | Kind::Regex(_) => &self.text,
            Kind::Begins => &self.text[..self.text.len() - 1],
            Kind::Ends => &self.text[1..],
            Kind::Contains => &self.text[1..self.text.len() - 1],
        }
    }
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.as_regex().is_some() {
            "regex "
        } else {
            ""
        };
        write!(f, "{kind}{:?}", self.text)
    }
}

impl PartialEq for Match {
    fn eq(&self, other: &Match) -> bool {
        self.text == other.text && self.as_regex().is_some() == other.as_regex().is_some()
    }
}

/// `regex` draws a picture of several lines; its last one says what is wrong.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// A path pattern: `/x`, `/x/*`, `*.php`, `/a/*.php`, `/u/:id`; checked, and kept as text for the
/// compiler of routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
}

impl Pattern {
    /// Reads a pattern; the error is what was expected.
    pub fn parse(text: &str) -> Result<Pattern, &'static str> {
        const SHAPES: &str =
            "expected a pattern, as \"/x\", \"/x/*\", \"*.php\", \"/a/*.php\" or \"/u/:id\"";
        if !text.starts_with('/') && !text.starts_with("*.") {
            return Err(SHAPES);
        }
        // What a normalised path cannot hold, a pattern with it could never match.
        if text
            .bytes()
            .any(|byte| byte.is_ascii_control() || matches!(byte, b'?' | b'#' | b' '))
        {
            return Err("a pattern is for the path: no query, no blanks");
        }
        if text.matches('*').count() > 1 {
            return Err("a pattern has at most one `*`");
        }
        if let Some((before, after)) = text.split_once('*') {
            if !(before.is_empty() || before.ends_with('/')) || after.contains('/') {
                return Err(SHAPES);
            }
            if !after.is_empty() && !after.starts_with('.') {
                return Err("behind `*` stands nothing or a suffix, as in \"*.php\"");
            }
        }
        let mut names: Vec<&str> = Vec::new();
        for segment in text.split('/') {
            let Some(name) = segment.strip_prefix(':') else {
                continue;
            };
            let right = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(right) {
                return Err("a parameter is a whole segment: `:` and letters, digits, `_`");
            }
            if names.contains(&name) {
                return Err("each parameter of a pattern has a name of its own");
            }
            names.push(name);
        }
        Ok(Pattern { text: text.into() })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether every path that `other` matches is matched by this one too, as far as that is plain:
    /// equal ones, and those below `/x/*`.
    pub fn covers(&self, other: &Pattern) -> bool {
        if self == other {
            return true;
        }
        match self.text.strip_suffix("/*") {
            Some("") => true,
            // A parameter stands for any segment: what it covers is left to the reader.
            Some(prefix) if !prefix.contains("/:") => {
                let below = other.text.strip_prefix(prefix);
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches() {
        let table = [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("abc*", "abcd", true),
            ("abc*", "xabc", false),
            ("*abc", "xabc", true),
            ("*abc", "abcx", false),
            ("*abc*", "xabcx", true),
            ("*abc*", "abxc", false),
            ("*aab*", "aaab", true),
            ("*", "", true),
            ("*", "x", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, value, expected) in table {
            let found = Match::parse(pattern).unwrap().matches(value.as_bytes());
            assert_eq!(found, expected, "{pattern} {value}");
        }
        for pattern in ["a*b", "*a*b*", "***"] {
            assert_eq!(Match::parse(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn expressions() {
        let other = Match::regex(r"[^a\d+]").unwrap();
        assert!(other.matches(b"b") && !other.matches(b"a1+"));
        assert_eq!(Match::regex("(").unwrap_err(), "unclosed group");
        assert!(Match::regex(r"\w{1000}{1000}").is_err());
        let slow = Match::regex("(a*)*b").unwrap();
        assert!(!slow.matches(&[b'a'; 100_000]));
    }

    #[test]
    fn names_of_fields_are_blind_to_case() {
        assert!(
            Match::parse("X_Key*")
                .unwrap()
                .for_fields()
                .unwrap()
                .matches(b"x-key-a")
        );
        assert!(
            Match::regex("^X-")
                .unwrap()
                .for_fields()
                .unwrap()
                .matches(b"x-a")
        );
    }

    #[test]
    fn patterns() {
        for text in [
            "/", "/x", "/x/*", "/*", "*.php", "/a/*.php", "/u/:id", "/u/:id/*", "/a%20b",
        ] {
            assert_eq!(Pattern::parse(text).unwrap().text(), text);
        }
        let bad = [
            ("", "expected a pattern"),
            ("x", "expected a pattern"),
            ("*", "expected a pattern"),
            ("/x*", "expected a pattern"),
            ("/*/x", "expected a pattern"),
            ("/*/*", "a pattern has at most one `*`"),
            ("/x?y", "a pattern is for the path"),
            ("/*php", "behind `*` stands nothing or a suffix"),
            ("/u/:", "a parameter is a whole segment"),
            ("/u/:a-b", "a parameter is a whole segment"),
            ("/:a/:a", "each parameter of a pattern"),
        ];
        for (text, start) in bad {
            let error = Pattern::parse(text).unwrap_err();
            assert!(error.starts_with(start), "{text}: {error}");
        }
    }

    #[test]
    fn covering() {
        let covers = |a: &str, b: &str| {
            Pattern::parse(a)
                .unwrap()
                .covers(&Pattern::parse(b).unwrap())
        };
        assert!(covers("/*", "*.php") && covers("/a/*", "/a") && covers("/a/*", "/a/*.php"));
        assert!(covers("/a/*", "/a/b/*") && covers("/a", "/a"));
        assert!(!covers("/a/*", "/ab") && !covers("/a", "/a/*") && !covers("/a/*", "*.php"));
    }
}
