//! One pattern of a path: `"/x"`, `"/x/*"`, `"*.php"`, `"/a/*.php"`, `"/u/:id"`.
//!
//! A pattern is for the whole path, and for a path that [`normalize`](crate::normalize) made.
//! Its own text is brought into the same form, so `"/caf%c3%a9"` and `"/café"` are one pattern.

use std::fmt;

use crate::path::{Escape, PathFault, is_path_byte, read_escape};
use crate::reasons::{Miss, PatternError};

/// A parsed pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    shape: Shape,
    /// The names of the `:name` segments, in order.
    params: Box<[Box<str>]>,
    text: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// This path and no other.
    Exact(Box<[u8]>),
    /// This path and all below it, from `"/x/*"`; it has no slash at its end, so `"/*"` is the
    /// empty text here, and matches everything.
    Below(Box<[u8]>),
    /// Begins so and ends so: one `*` anywhere else.
    Affix { before: Box<[u8]>, after: Box<[u8]> },
    /// Segment by segment, at least one of them a `:name`; with all below if `below`.
    Segments {
        segments: Box<[Segment]>,
        below: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Text(Box<[u8]>),
    /// One segment that is not empty.
    Param,
}

/// Where in the path the variable parts of a pattern were found. Holds places, not slices, so
/// that an exchange can keep it beside the path it owns; the accessors want that same path again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    rest: Span,
    params: [Span; MAX_PARAMS],
    count: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// See [`PatternError`].
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        if !text.starts_with(['/', '*']) {
            return Err(PatternError::NotRooted);
        }
        if let Some(c) = text.chars().find(|c| matches!(c, '?' | '#')) {
            return Err(PatternError::NotOnlyAPath(c));
        }
        let (before, after) = match text.split_once('*') {
            Some((_, after)) if after.contains('*') => return Err(PatternError::TwoStars),
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        let has_params = text
            .split('/')
            .skip(1)
            .any(|segment| segment.starts_with(':'));
        let (shape, params) = match after {
            _ if has_params => parse_segments(before, after)?,
            None => (Shape::Exact(literal(text)?), Vec::new()),
            // A lone `*` is `/*`.
            Some("") if before.is_empty() => (Shape::Below([].into()), Vec::new()),
            Some("") if before.ends_with('/') => (
                Shape::Below(literal(&before[..before.len() - 1])?),
                Vec::new(),
            ),
            Some(after) => {
                let (before, after) = (literal(before)?, literal(after)?);
                (Shape::Affix { before, after }, Vec::new())
            }
        };
        Ok(Pattern {
            shape,
            params: params.into(),
            text: text.into(),
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches every path.
    pub fn is_catch_all(&self) -> bool {
        matches!(&self.shape, Shape::Below(prefix) if prefix.is_empty())
    }

    /// The names of its `:name` segments, in the order of [`Captures::param`].
    pub fn params(&self) -> &[Box<str>] {
        &self.params
    }

    /// The place of a name among [`Pattern::params`].
    pub fn param_index(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|param| &**param == name)
    }

    /// The value of a named segment in a path that this pattern matched.
    pub fn param<'p>(&self, name: &str, captures: &Captures, path: &'p [u8]) -> Option<&'p [u8]> {
        captures.param(self.param_index(name)?, path)
    }

    /// Whether it matches a normalised path, and where its variable parts are. Does not allocate.
    pub fn matches(&self, path: &[u8]) -> Option<Captures> {
        self.examine(path).ok()
    }

    /// Like [`Pattern::matches`], with the reason for a no.
    ///
    /// # Errors
    ///
    /// The first thing found that keeps the pattern from matching.
    pub fn examine(&self, path: &[u8]) -> Result<Captures, Miss> {
        let mut captures = Captures::default();
        self.capture(path, &mut captures).map(|()| captures)
    }

    /// Like [`Pattern::examine`], into `captures`, which are the default ones: they are too large
    /// to be handed up through several calls.
    pub(crate) fn capture(&self, path: &[u8], captures: &mut Captures) -> Result<(), Miss> {
        if path.first() != Some(&b'/') {
            return Err(Miss::NoPath);
        }
        match &self.shape {
            Shape::Exact(exact) if **exact == *path => Ok(()),
            Shape::Exact(_) => Err(Miss::OtherPath),
            Shape::Below(prefix) => match is_at_or_below(path, prefix) {
                true => {
                    captures.rest = Span::of_rest(path, prefix.len(), path.len());
                    Ok(())
                }
                false => Err(Miss::NotBelow),
            },
            Shape::Affix { before, after } => {
                if !starts_with(path, before) {
                    return Err(Miss::OtherBeginning);
                }
                // What the beginning has used cannot be the end as well.
                let end = path.len().saturating_sub(after.len());
                if end < before.len() || !starts_with(&path[end..], after) {
                    return Err(Miss::OtherEnd);
                }
                captures.rest = Span::of_rest(path, before.len(), end);
                Ok(())
            }
            Shape::Segments { segments, below } => {
                capture_segments(segments, *below, path, captures)
            }
        }
    }

    /// Whether every path that `other` matches is matched by this pattern too. Never wrongly
    /// true; false also for a few unusual pairs (a `*` within a segment against `:name`).
    pub fn covers(&self, other: &Pattern) -> bool {
        if self.is_catch_all() || self.shape == other.shape {
            return true;
        }
        match (&self.shape, &other.shape) {
            (_, Shape::Exact(path)) => self.matches(path).is_some(),
            (Shape::Exact(_), _) => false,
            (Shape::Affix { before, after }, _) => {
                let (other_before, other_after) = other.fixed_ends();
                other_before.starts_with(before) && other_after.ends_with(after)
            }
            (Shape::Below(prefix), Shape::Below(other)) => is_at_or_below(other, prefix),
            (Shape::Below(prefix), Shape::Affix { before, .. }) => {
                before.starts_with(prefix) && before.get(prefix.len()) == Some(&b'/')
            }
            (Shape::Below(prefix), Shape::Segments { segments, .. }) => {
                covers_segments(&text_segments(prefix), true, segments, true)
            }
            (
                Shape::Segments { segments, below },
                Shape::Segments {
                    segments: other,
                    below: b,
                },
            ) => covers_segments(segments, *below, other, *b),
            (
                Shape::Segments {
                    segments,
                    below: true,
                },
                Shape::Below(other),
            ) => covers_segments(segments, true, &text_segments(other), true),
            (
                Shape::Segments {
                    segments,
                    below: true,
                },
                Shape::Affix { before, .. },
            ) => {
                // Only the segments that are whole before the star are certain.
                match before.iter().rposition(|&byte| byte == b'/') {
                    Some(slash) => {
                        covers_segments(segments, true, &text_segments(&before[..slash]), true)
                    }
                    None => false,
                }
            }
            (Shape::Segments { below: false, .. }, _) => false,
        }
    }

    /// Some path that it matches.
    pub(crate) fn sample(&self) -> Vec<u8> {
        match &self.shape {
            Shape::Exact(path) => path.to_vec(),
            Shape::Below(prefix) => [prefix, &b"/"[..]].concat(),
            Shape::Affix { before, after } => {
                let joined = [&**before, &**after].concat();
                match joined.first() {
                    Some(b'/') => joined,
                    _ => [b"/", &*joined].concat(),
                }
            }
            Shape::Segments { segments, .. } => {
                let mut path = Vec::new();
                for segment in segments {
                    path.push(b'/');
                    match segment {
                        Segment::Text(text) => path.extend_from_slice(text),
                        // In no literal: a pattern cannot hold a `*` of its own.
                        Segment::Param => path.push(b'*'),
                    }
                }
                path
            }
        }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What every matched path certainly begins with and ends with, without overlap.
    fn fixed_ends(&self) -> (Vec<u8>, Vec<u8>) {
        match &self.shape {
            Shape::Exact(path) => (path.to_vec(), Vec::new()),
            Shape::Below(prefix) => (prefix.to_vec(), Vec::new()),
            Shape::Affix { before, after } => (before.to_vec(), after.to_vec()),
            Shape::Segments { segments, below } => {
                let text = |segment: &Segment| match segment {
                    Segment::Text(text) => Some(text.clone()),
                    Segment::Param => None,
                };
                let mut before = Vec::new();
                for text in segments.iter().map_while(text) {
                    before.push(b'/');
                    before.extend_from_slice(&text);
                }
                before.push(b'/');
                let mut after = Vec::new();
                if !below {
                    let tail: Vec<_> = segments.iter().rev().map_while(text).collect();
                    for text in tail.iter().rev() {
                        after.push(b'/');
                        after.extend_from_slice(text);
                    }
                }
                (before, after)
            }
        }
    }
}

/// Two patterns are equal when they match the same paths with the same names.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.params == other.params
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Captures {
    /// Those outside of every route: the rest is the path.
    pub fn whole(path: &[u8]) -> Captures {
        Captures {
            rest: Span::of_rest(path, 0, path.len()),
            ..Captures::default()
        }
    }

    /// What `*` matched in `path`, without slashes at its beginning; empty without a `*`.
    ///
    /// All of them, not only one: `redirect "/$rest"` for `/old//evil.example` would else send
    /// clients to `//evil.example`, which is another host.
    pub fn rest<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        self.rest.of(path)
    }

    /// The named segment of this number in `path`; none if the pattern has fewer.
    pub fn param<'p>(&self, number: usize, path: &'p [u8]) -> Option<&'p [u8]> {
        let count = usize::from(self.count);
        self.params[..count].get(number).map(|span| span.of(path))
    }

    /// How many named segments there are.
    pub fn param_count(&self) -> usize {
        usize::from(self.count)
    }
}

impl Span {
    /// Paths are bounded by the longest request line, far below 4 GiB; beyond that a place would
    /// become one that [`Span::of`] finds empty, never a wrong one.
    fn new(start: usize, end: usize) -> Span {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Span { start, end },
            _ => Span::default(),
        }
    }

    /// Without the slashes at its beginning.
    fn of_rest(path: &[u8], start: usize, end: usize) -> Span {
        let slashes = path[start..end]
            .iter()
            .take_while(|&&byte| byte == b'/')
            .count();
        Span::new(start + slashes, end)
    }

    fn of(self, path: &[u8]) -> &[u8] {
        let (start, end) = (
            crate::names::index(self.start),
            crate::names::index(self.end),
        );
        path.get(start..end).unwrap_or_default()
    }
}

/// Parses a pattern with `:name` segments; `after` is what stands behind its `*`.
fn parse_segments(
    before: &str,
    after: Option<&str>,
) -> Result<(Shape, Vec<Box<str>>), PatternError> {
    let text = match after {
        None => before,
        Some("") => before
            .strip_suffix('/')
            .ok_or(PatternError::ParamWithStar)?,
        Some(_) => return Err(PatternError::ParamWithStar),
    };
    let mut params: Vec<Box<str>> = Vec::new();
    let mut segments = Vec::new();
    // The first piece is the nothing before the first slash.
    for piece in text.split('/').skip(1) {
        let Some(name) = piece.strip_prefix(':') else {
            segments.push(Segment::Text(literal(piece)?));
            continue;
        };
        let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !named {
            return Err(PatternError::ParamName(name.into()));
        }
        if params.iter().any(|param| **param == *name) {
            return Err(PatternError::ParamTwice(name.into()));
        }
        if params.len() == MAX_PARAMS {
            return Err(PatternError::TooManyParams);
        }
        params.push(name.into());
        segments.push(Segment::Param);
    }
    Ok((
        Shape::Segments {
            segments: segments.into(),
            below: after.is_some(),
        },
        params,
    ))
}

/// The normal form of a pattern's text: as a path's, and what must be escaped is.
fn literal(text: &str) -> Result<Box<[u8]>, PatternError> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => {
                match read_escape(&bytes[at - 1..]) {
                    Ok(Escape::Decoded(byte)) => out.push(byte),
                    Ok(Escape::Kept(normal)) => out.extend_from_slice(&normal),
                    Err(PathFault::ForbiddenEscape) => return Err(PatternError::ForbiddenByte),
                    Err(_) => return Err(PatternError::BadEscape),
                }
                at += 2;
            }
            0 | b'\r' | b'\n' => return Err(PatternError::ForbiddenByte),
            byte if is_path_byte(byte) => out.push(byte),
            byte => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    match out
        .split(|&byte| byte == b'/')
        .any(|segment| matches!(segment, b"." | b".."))
    {
        // `*.` and `/a*..` are no dot segments, but nobody means them either.
        true => Err(PatternError::DotSegment),
        false => Ok(out.into()),
    }
}

fn capture_segments(
    segments: &[Segment],
    below: bool,
    path: &[u8],
    captures: &mut Captures,
) -> Result<(), Miss> {
    // Where the slash before the next segment stands, or the end.
    let mut at = 0;
    for (number, segment) in (1..).zip(segments) {
        if at == path.len() {
            return Err(Miss::TooShort(number));
        }
        let start = at + 1;
        at = segment_end(path, start);
        match segment {
            Segment::Text(text)
                if text.len() == at - start && starts_with(&path[start..], text) => {}
            Segment::Param if start < at => {
                captures.params[usize::from(captures.count)] = Span::new(start, at);
                captures.count += 1;
            }
            _ => return Err(Miss::OtherSegment(number)),
        }
    }
    match below {
        true => captures.rest = Span::of_rest(path, at, path.len()),
        false if at < path.len() => return Err(Miss::TooLong),
        false => {}
    }
    Ok(())
}

/// `path.starts_with(beginning)`, with a look at the length first: an empty `Box` points nowhere,
/// and `memcmp` with masked loads, as glibc has it for AVX-512, takes 100 ns to find that out.
fn starts_with(path: &[u8], beginning: &[u8]) -> bool {
    beginning.is_empty() || path.starts_with(beginning)
}

/// The end of the segment that begins at `start`: the next slash or the end of the path.
pub(crate) fn segment_end(path: &[u8], start: usize) -> usize {
    path[start..]
        .iter()
        .position(|&byte| byte == b'/')
        .map_or(path.len(), |len| start + len)
}

/// The segments of a literal path without its last slash.
pub(crate) fn text_segments(path: &[u8]) -> Vec<Segment> {
    path.split(|&byte| byte == b'/')
        .skip(1)
        .map(|text| Segment::Text(text.into()))
        .collect()
}

/// Whether `path` is `prefix` or below it.
fn is_at_or_below(path: &[u8], prefix: &[u8]) -> bool {
    starts_with(path, prefix) && matches!(path.get(prefix.len()), None | Some(b'/'))
}

fn covers_segments(of: &[Segment], below: bool, other: &[Segment], other_below: bool) -> bool {
    let long_enough = match below {
        true => of.len() <= other.len(),
        false => of.len() == other.len() && !other_below,
    };
    long_enough
        && of.iter().zip(other).all(|(of, other)| match (of, other) {
            (Segment::Text(text), Segment::Text(other)) => text == other,
            (Segment::Param, Segment::Text(other)) => !other.is_empty(),
            (Segment::Param, Segment::Param) => true,
            (Segment::Text(_), Segment::Param) => false,
        })
}

/// The most `:name` segments of one pattern. [`Captures`] has room for these, and nobody has been
/// seen to need half of them.
pub const MAX_PARAMS: usize = 8;

/// The longest pattern. It bounds the depth of what is compiled from it.
pub const MAX_PATTERN_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// `expected`: the rest, then the values of the named segments.
    fn check(text: &str, path: &str, expected: Option<&[&str]>) {
        let pattern = pattern(text);
        let got = pattern.matches(path.as_bytes()).map(|captures| {
            let mut parts = vec![captures.rest(path.as_bytes())];
            for name in pattern.params() {
                parts.push(pattern.param(name, &captures, path.as_bytes()).unwrap());
            }
            parts
                .iter()
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect::<Vec<_>>()
        });
        let got = got
            .as_ref()
            .map(|parts| parts.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(got.as_deref(), expected, "{text} for {path}");
    }

    #[test]
    fn exact() {
        check("/x", "/x", Some(&[""]));
        for path in ["/", "/x/", "/xy", "/X", "//x", "/x/y"] {
            check("/x", path, None);
        }
        check("/", "/", Some(&[""]));
        check("/x/", "/x/", Some(&[""]));
        check("/x/", "/x", None);
        check("/a:b", "/a:b", Some(&[""]));
    }

    #[test]
    fn below() {
        check("/x/*", "/x", Some(&[""]));
        check("/x/*", "/x/", Some(&[""]));
        check("/x/*", "/x/a/b", Some(&["a/b"]));
        check("/x/*", "/x/a/", Some(&["a/"]));
        for path in ["/", "/xy", "/X/a", "/y/x/"] {
            check("/x/*", path, None);
        }
        check("/x//*", "/x", None);
        check("/x//*", "/x/", Some(&[""]));
        check("/x//*", "/x//a", Some(&["a"]));
        for text in ["/*", "*"] {
            check(text, "/", Some(&[""]));
            check(text, "/a/b", Some(&["a/b"]));
            assert!(pattern(text).is_catch_all());
        }
        assert!(!pattern("/x/*").is_catch_all());
    }

    #[test]
    fn the_rest_has_no_slash_at_its_beginning() {
        check("/old/*", "/old//evil.example", Some(&["evil.example"]));
        check(
            "/old/*",
            "/old////evil.example//x",
            Some(&["evil.example//x"]),
        );
        check("*.php", "//a//b.php", Some(&["a//b"]));
        let whole = Captures::whole(b"//a/b");
        assert_eq!(whole.rest(b"//a/b"), b"a/b");
    }

    #[test]
    fn suffix_and_both() {
        check("*.php", "/a.php", Some(&["a"]));
        check("*.php", "/a/b.php", Some(&["a/b"]));
        check("*.php", "/.php", Some(&[""]));
        for path in ["/a.php/", "/a.php5", "/a.PHP", "/php"] {
            check("*.php", path, None);
        }
        check("/a/*.php", "/a/b.php", Some(&["b"]));
        check("/a/*.php", "/a/b/c.php", Some(&["b/c"]));
        check("/a/*.php", "/a/.php", Some(&[""]));
        check("/a/*.php", "/a.php", None);
        check("/a/*.php", "/b/a/x.php", None);
        check("/x*", "/xyz/a", Some(&["yz/a"]));
        check("/x*", "/x", Some(&[""]));
        check("/a/*/edit", "/a/1/2/edit", Some(&["1/2"]));
        check("/a/*/edit", "/a/edit", None);
        // The beginning and the end may not share bytes.
        check("/aba*aba", "/aba", None);
        check("/aba*aba", "/ababa", None);
        check("/aba*aba", "/abaaba", Some(&[""]));
        check("*/index.php", "/index.php", Some(&[""]));
        check("*.tar.gz", "/x.tar.gz", Some(&["x"]));
    }

    #[test]
    fn segments() {
        check("/u/:id", "/u/5", Some(&["", "5"]));
        for path in ["/u", "/u/", "/u/5/", "/u/5/a", "/v/5", "/u//"] {
            check("/u/:id", path, None);
        }
        check("/u/:id/", "/u/5/", Some(&["", "5"]));
        check("/:a/x/:b", "/1/x/2", Some(&["", "1", "2"]));
        check("/:a/x/:b", "/1/y/2", None);
        check("/u/:id/*", "/u/5", Some(&["", "5"]));
        check("/u/:id/*", "/u/5/", Some(&["", "5"]));
        check("/u/:id/*", "/u/5/a/b", Some(&["a/b", "5"]));
        check("/u/:id/*", "/u", None);
        check("/u/:id/*", "/u//a", None);
        check(
            "/:a/:b/:c/:d/:e/:f/:g/:h",
            "/1/2/3/4/5/6/7/8",
            Some(&["", "1", "2", "3", "4", "5", "6", "7", "8"]),
        );
        let (one, other) = (pattern("/u/:id"), pattern("/u/:name"));
        assert!(one != other && one.covers(&other) && other.covers(&one));
    }

    #[test]
    fn patterns_are_in_normal_form() {
        check("/caf%c3%a9", "/caf%C3%A9", Some(&[""]));
        check("/caf\u{e9}/*", "/caf%C3%A9/x", Some(&["x"]));
        check("/%61 b", "/a%20b", Some(&[""]));
        check("/a%2fb", "/a%2Fb", Some(&[""]));
        check("/u\u{f1}/:id", "/u%C3%B1/5", Some(&["", "5"]));
    }

    #[test]
    fn wrong_patterns_are_told_why() {
        use PatternError as E;
        for (text, error) in [
            ("", E::Empty),
            ("x", E::NotRooted),
            (":id", E::NotRooted),
            ("https://a/x", E::NotRooted),
            ("/*/a/*", E::TwoStars),
            ("**", E::TwoStars),
            ("/a?b=*", E::NotOnlyAPath('?')),
            ("/a#b", E::NotOnlyAPath('#')),
            ("/a/../b", E::DotSegment),
            ("/%2e/*", E::DotSegment),
            ("/a%", E::BadEscape),
            ("/a%2", E::BadEscape),
            ("/a%zz/*", E::BadEscape),
            ("/a%00", E::ForbiddenByte),
            ("/a\nb", E::ForbiddenByte),
            ("/:", E::ParamName(String::new())),
            ("/:1a", E::ParamName("1a".into())),
            ("/:a-b", E::ParamName("a-b".into())),
            ("/:a/:a", E::ParamTwice("a".into())),
            ("/:a/*.php", E::ParamWithStar),
            ("/*/:a", E::ParamWithStar),
            ("/:a/x*", E::ParamWithStar),
            ("/:a/:b/:c/:d/:e/:f/:g/:h/:i", E::TooManyParams),
            (&format!("/{}", "a".repeat(MAX_PATTERN_BYTES)), E::TooLong),
        ] {
            let got = Pattern::parse(text).expect_err(text);
            assert_eq!(got, error, "for {text:?}");
            assert!(!got.to_string().is_empty());
        }
    }

    #[test]
    fn a_miss_has_its_reason() {
        for (text, path, miss) in [
            ("/x", "/y", Miss::OtherPath),
            ("/x/*", "/y", Miss::NotBelow),
            ("/a/*.php", "/b/x.php", Miss::OtherBeginning),
            ("/a/*.php", "/a/x.html", Miss::OtherEnd),
            ("/u/:id", "/v/5", Miss::OtherSegment(1)),
            ("/u/:id", "/u/", Miss::OtherSegment(2)),
            ("/u/:id", "/u", Miss::TooShort(2)),
            ("/u/:id", "/u/5/6", Miss::TooLong),
            ("/*", "*", Miss::NoPath),
        ] {
            assert_eq!(
                pattern(text).examine(path.as_bytes()),
                Err(miss),
                "{text} for {path}"
            );
            assert!(!miss.to_string().is_empty());
        }
    }

    #[test]
    fn covers_knows_what_can_never_be_reached() {
        for (one, other) in [
            ("/*", "/x"),
            ("*", "/u/:id/*"),
            ("/*", "*.php"),
            ("/x/*", "/x"),
            ("/x/*", "/x/y"),
            ("/x/*", "/x/"),
            ("/x/*", "/x/y/*"),
            ("/x/*", "/x/*.php"),
            ("/x/*", "/x/:id"),
            ("/x/*", "/x/y*"),
            ("*.php", "/a.php"),
            ("*.php", "/a/*.php"),
            ("*.php", "*.x.php"),
            ("/a*", "/a/*"),
            ("/a*", "/ab/:id"),
            ("/u/:id", "/u/5"),
            ("/u/:id/*", "/u/5/a"),
            ("/u/:id/*", "/u/:id"),
            ("/u/:id/*", "/u/5/*"),
            ("/u/:id/*", "/u/5/*.php"),
            ("/:a/:b", "/x/:y"),
            ("*/edit", "/u/:id/edit"),
            ("/u/*", "/u/:id/edit"),
            ("/x", "/x"),
        ] {
            assert!(pattern(one).covers(&pattern(other)), "{one} covers {other}");
        }
        for (one, other) in [
            ("/x", "/*"),
            ("/x", "/x/*"),
            ("/x/*", "/xy"),
            ("/x/*", "/x*"),
            ("/x/*", "*.php"),
            ("*.php", "/*"),
            ("*.php", "/u/:id"),
            ("/a/*.php", "*.php"),
            ("/u/:id", "/u/"),
            ("/u/:id", "/u/:id/*"),
            ("/u/5", "/u/:id"),
            ("/u/:id", "/u/5/"),
            ("/u/:id/*", "/u/*"),
            ("/u/:id/*", "/u/*.php"),
            ("/x/y/*", "/x/:id/*"),
            ("/a*a", "/a*"),
            ("/aba*aba", "/aba"),
        ] {
            assert!(
                !pattern(one).covers(&pattern(other)),
                "{one} does not cover {other}"
            );
        }
    }

    #[test]
    fn a_sample_is_matched() {
        for text in [
            "/x", "/", "/x/*", "/*", "*.php", "/a*", "/a/*/b", "/u/:id", "/u/:id/*",
        ] {
            let pattern = pattern(text);
            let sample = pattern.sample();
            assert!(pattern.matches(&sample).is_some(), "{text}: {sample:?}");
        }
    }
}
