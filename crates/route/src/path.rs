//! Path normalisation: RFC 3986 §6.2.2, once, and nothing else.
//!
//! Two parsers that disagree about a path are how access rules are walked around (`/admin` at
//! the proxy, `/%61dmin` at the application) and how caches are poisoned. So there is one form,
//! made once, and everything behind it sees that form.

use std::borrow::Cow;
use std::fmt;

/// Why a path is refused. All are answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathFault {
    /// It does not begin with `/`.
    NotRooted,
    /// A `%` is not followed by two hexadecimal digits.
    BadEscape,
    /// `%00`, `%0a` or `%0d`: they end a name or a line in whoever decodes them later.
    ForbiddenEscape,
    /// A byte that may not stand in a path unescaped: a control byte, a space, `?`, `#`, or
    /// anything above `0x7e`.
    ForbiddenByte,
    /// Its dot segments climb above the root.
    AboveRoot,
}

impl PathFault {
    /// Every fault, for tables of metrics and documentation.
    pub const ALL: [PathFault; 5] = [
        PathFault::NotRooted,
        PathFault::BadEscape,
        PathFault::ForbiddenEscape,
        PathFault::ForbiddenByte,
        PathFault::AboveRoot,
    ];

    /// A short constant name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            PathFault::NotRooted => "path_not_rooted",
            PathFault::BadEscape => "path_bad_escape",
            PathFault::ForbiddenEscape => "path_forbidden_escape",
            PathFault::ForbiddenByte => "path_forbidden_byte",
            PathFault::AboveRoot => "path_above_root",
        }
    }

    /// The sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            PathFault::NotRooted => "the path does not begin with a slash",
            PathFault::BadEscape => "the path has a % that is not followed by two hex digits",
            PathFault::ForbiddenEscape => "the path has an escaped NUL, CR or LF",
            PathFault::ForbiddenByte => "the path has a byte that must be escaped",
            PathFault::AboveRoot => "the path leads out of the root",
        }
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for PathFault {}

/// Parts a request target (origin-form, RFC 9112 §3.2.1) at its first `?`. `/a?` has an empty
/// query, `/a` has none: the difference is kept, because it is sent on.
pub fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|&byte| byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// The normal form of a path (without query): escapes of unreserved characters are decoded once,
/// the hex digits of all other escapes are upper case, dot segments are removed. `//` and `%2F`
/// stay as they are, and so does everything that is not named here.
///
/// The result begins with `/`, is never longer than `path`, holds only bytes from `0x21` to
/// `0x7e`, and normalising it again changes nothing. A path that is already normal is borrowed:
/// no allocation.
///
/// # Errors
///
/// See [`PathFault`]; nothing is repaired that is broken, because the next one to read it might
/// repair it differently.
pub fn normalize(path: &[u8]) -> Result<Cow<'_, [u8]>, PathFault> {
    if path.first() != Some(&b'/') {
        return Err(PathFault::NotRooted);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    match first_unnormal_segment(path)? {
        None => Ok(Cow::Borrowed(path)),
        Some(start) => rewrite(path, start).map(Cow::Owned),
    }
}

/// Whether a byte may stand in a path as it is.
pub(crate) const fn is_path_byte(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'#' && byte != b'?'
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What an escape becomes in normal form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escape {
    Decoded(u8),
    Kept([u8; 3]),
}

/// Reads the escape that `text` begins with.
pub(crate) fn read_escape(text: &[u8]) -> Result<Escape, PathFault> {
    let &[b'%', high, low, ..] = text else {
        return Err(PathFault::BadEscape);
    };
    let (Some(high_value), Some(low_value)) = (hex_value(high), hex_value(low)) else {
        return Err(PathFault::BadEscape);
    };
    match high_value << 4 | low_value {
        0 | b'\n' | b'\r' => Err(PathFault::ForbiddenEscape),
        byte if is_unreserved(byte) => Ok(Escape::Decoded(byte)),
        _ => Ok(Escape::Kept([
            b'%',
            high.to_ascii_uppercase(),
            low.to_ascii_uppercase(),
        ])),
    }
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Whether a path that begins with `/` is certainly normal: nothing escaped, no segment that
/// begins with a dot, no byte that is forbidden. Nearly all paths are, so this is written for
/// vector instructions: 16 bytes at a time, each beside the one before it.
fn is_plain(path: &[u8]) -> bool {
    let Some((_, bytes)) = path.split_first() else {
        return false;
    };
    let before = &path[..bytes.len()];
    let (chunks, _) = bytes.as_chunks::<16>();
    let (chunks_before, _) = before.as_chunks::<16>();
    for (chunk, chunk_before) in chunks.iter().zip(chunks_before) {
        if has_odd(chunk, chunk_before) {
            return false;
        }
    }
    // What is left over is read by blocks that end at the end and overlap what was read.
    if let (Some(last), Some(last_before)) = (bytes.last_chunk::<16>(), before.last_chunk::<16>()) {
        return !has_odd(last, last_before);
    }
    if let (Some(first), Some(first_before), Some(last), Some(last_before)) = (
        bytes.first_chunk::<8>(),
        before.first_chunk::<8>(),
        bytes.last_chunk::<8>(),
        before.last_chunk::<8>(),
    ) {
        return !has_odd_word(first, first_before) && !has_odd_word(last, last_before);
    }
    !bytes
        .iter()
        .zip(before)
        .any(|(&byte, &before)| oddness(byte, before) == 0)
}

#[inline(always)]
fn has_odd(bytes: &[u8; 16], before: &[u8; 16]) -> bool {
    let mut least = u8::MAX;
    for at in 0..16 {
        least = least.min(oddness(bytes[at], before[at]));
    }
    least == 0
}

/// The same for eight bytes, in one word: half a vector register is no gain. A byte of a word is
/// zero somewhere if `(word - 01…) & !word` has a high bit set (Bit Twiddling Hacks, S. E.
/// Anderson).
fn has_odd_word(bytes: &[u8; 8], before: &[u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let (bytes, before) = (u64::from_ne_bytes(*bytes), u64::from_ne_bytes(*before));
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let all = |byte: u8| ONES * u64::from(byte);
    let below = bytes.wrapping_sub(all(0x21)) & !bytes;
    let above = bytes.wrapping_add(ONES) | bytes;
    let special = zero(bytes ^ all(b'%')) | zero(bytes ^ all(b'#')) | zero(bytes ^ all(b'?'));
    let dot_segment = zero((bytes ^ all(b'.')) | (before ^ all(b'/')));
    (below | above | special | dot_segment) & HIGH != 0
}

/// 0 for a byte that needs a closer look, else something else. Written with minima and without a
/// comparison, because of that the compiler makes a dozen vector instructions; of comparisons
/// joined by `|` it makes shuffles, and 30 bytes took two to three times as long.
#[inline(always)]
fn oddness(byte: u8, before: u8) -> u8 {
    let in_range = (0x7f - 0x21_u8).saturating_sub(byte.wrapping_sub(0x21));
    let dot_segment = (byte ^ b'.') | (before ^ b'/');
    in_range
        .min(byte ^ b'%')
        .min(byte ^ b'#')
        .min(byte ^ b'?')
        .min(dot_segment)
}

/// The start of the first segment that normalisation changes, if there is one. Checks every byte
/// before it, and not those behind.
fn first_unnormal_segment(path: &[u8]) -> Result<Option<usize>, PathFault> {
    let mut start = 1;
    let mut at = 1;
    loop {
        match path.get(at) {
            None | Some(b'/') => {
                if matches!(&path[start..at], b"." | b"..") {
                    return Ok(Some(start));
                }
                if at == path.len() {
                    return Ok(None);
                }
                at += 1;
                start = at;
            }
            Some(b'%') => match read_escape(&path[at..])? {
                Escape::Kept(normal) if path[at..].starts_with(&normal) => at += 3,
                _ => return Ok(Some(start)),
            },
            Some(&byte) if is_path_byte(byte) => at += 1,
            Some(_) => return Err(PathFault::ForbiddenByte),
        }
    }
}

/// Copies `path` up to `start`, which is the start of a segment, and normalises from there on.
fn rewrite(path: &[u8], start: usize) -> Result<Vec<u8>, PathFault> {
    let mut out = Vec::with_capacity(path.len());
    out.extend_from_slice(&path[..start]);
    let mut segment = out.len();
    let mut at = start;
    // `out` ends with a slash whenever a segment begins.
    loop {
        match path.get(at) {
            end @ (None | Some(b'/')) => {
                match &out[segment..] {
                    b"." => out.truncate(segment),
                    b".." => {
                        out.truncate(segment);
                        drop_last_segment(&mut out)?;
                    }
                    _ if end.is_some() => out.push(b'/'),
                    _ => {}
                }
                if end.is_none() {
                    return Ok(out);
                }
                at += 1;
                segment = out.len();
            }
            Some(b'%') => {
                match read_escape(&path[at..])? {
                    Escape::Decoded(byte) => out.push(byte),
                    Escape::Kept(normal) => out.extend_from_slice(&normal),
                }
                at += 3;
            }
            Some(&byte) if is_path_byte(byte) => {
                out.push(byte);
                at += 1;
            }
            Some(_) => return Err(PathFault::ForbiddenByte),
        }
    }
}

/// Takes the last segment off an output that ends with a slash. An empty segment (`//`) is one
/// like any other, RFC 3986 §5.2.4.
fn drop_last_segment(out: &mut Vec<u8>) -> Result<(), PathFault> {
    out.pop();
    match out.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => {
            out.truncate(slash + 1);
            Ok(())
        }
        None => Err(PathFault::AboveRoot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Result<&str, PathFault>) {
        let got = normalize(input.as_bytes());
        let shown = got
            .as_ref()
            .map(|path| String::from_utf8_lossy(path).into_owned());
        assert_eq!(
            shown.as_deref().map_err(|fault| **fault),
            expected,
            "for {input:?}"
        );
        if expected == Ok(input) {
            assert!(matches!(got, Ok(Cow::Borrowed(_))), "{input:?} was copied");
        }
    }

    #[test]
    fn what_is_normal_is_borrowed() {
        for path in [
            "/",
            "/a",
            "/a/b",
            "/a/",
            "//",
            "/a//b",
            "/a.b",
            "/...",
            "/.well-known/acme",
            "/..a",
            "/a..",
            "/a/.b/c",
            "/%2F",
            "/a%20b",
            "/%C3%A9",
            "/a%5Cb",
            "/a;b=c",
            "/:x",
            "/*",
            "/~u",
            "/a%25b",
            "/!$&'()*+,;=:@",
            "/\\",
            "/%7F",
            "/0123456789abcdef0123456789abcdef/x.html",
        ] {
            check(path, Ok(path));
        }
    }

    #[test]
    fn rfc3986_6_2_2_2_unreserved_escapes_are_decoded_once() {
        check("/%61", Ok("/a"));
        check("/%41%7a%30%2d%2E%5f%7E", Ok("/Az0-._~"));
        check("/x/%61dmin", Ok("/x/admin"));
        check("/%2561", Ok("/%2561"));
        check("/%252e%252e/", Ok("/%252e%252e/"));
        check("/%25%36%31", Ok("/%2561"));
    }

    #[test]
    fn rfc3986_6_2_2_1_hex_digits_are_upper_case() {
        check("/%2f", Ok("/%2F"));
        check("/%c3%a9/%3a", Ok("/%C3%A9/%3A"));
        check("/a%2fb/../c", Ok("/c"));
    }

    #[test]
    fn rfc3986_5_2_4_dot_segments_are_removed() {
        check("/.", Ok("/"));
        check("/./", Ok("/"));
        check("/a/.", Ok("/a/"));
        check("/a/./b", Ok("/a/b"));
        check("/a/..", Ok("/"));
        check("/a/../", Ok("/"));
        check("/a/b/..", Ok("/a/"));
        check("/a/b/c/./../../g", Ok("/a/g"));
        check("/mid/content=5/../6", Ok("/mid/6"));
        check("/a/%2e%2E/b", Ok("/b"));
        check("/a/.%2e/b", Ok("/b"));
        check("/%2e", Ok("/"));
        check("/a//../b", Ok("/a/b"));
        check("//..", Ok("/"));
        check("/a/.../b/....", Ok("/a/.../b/...."));
        check("/a/..;/b", Ok("/a/..;/b"));
        check("/a/..%2Fb", Ok("/a/..%2Fb"));
        check("/a/..%5cb", Ok("/a/..%5Cb"));
    }

    #[test]
    fn a_path_that_leaves_the_root_is_refused() {
        for path in [
            "/..",
            "/../",
            "/../a",
            "/a/../..",
            "/a/../../b",
            "/%2e%2e",
            "/./..",
            "//../..",
        ] {
            check(path, Err(PathFault::AboveRoot));
        }
    }

    #[test]
    fn broken_and_dangerous_escapes_are_refused() {
        for path in [
            "/%", "/%1", "/%zz", "/%2", "/a%2/b", "/%%", "/%g0", "/%0g", "/a/../%",
        ] {
            check(path, Err(PathFault::BadEscape));
        }
        for path in [
            "/%00",
            "/%0a",
            "/%0A",
            "/%0d",
            "/%0D",
            "/a%2e/%00",
            "/./%0a",
        ] {
            check(path, Err(PathFault::ForbiddenEscape));
        }
        check("/%01", Ok("/%01"));
    }

    #[test]
    fn bytes_that_must_be_escaped_are_refused() {
        for byte in (0..=0x20).chain(0x7f..=0xff).chain([b'#', b'?']) {
            for at in 1..40 {
                let mut path = vec![b'a'; 40];
                path[0] = b'/';
                path[at] = byte;
                assert_eq!(
                    normalize(&path),
                    Err(PathFault::ForbiddenByte),
                    "{byte} at {at}"
                );
                path[1] = b'.';
                path[2] = b'/';
                if at > 2 {
                    assert_eq!(
                        normalize(&path),
                        Err(PathFault::ForbiddenByte),
                        "{byte} at {at}"
                    );
                }
            }
        }
        check("", Err(PathFault::NotRooted));
        check("*", Err(PathFault::NotRooted));
        check("a/b", Err(PathFault::NotRooted));
    }

    #[test]
    fn the_fast_look_knows_every_byte_at_every_place() {
        for len in 2..50 {
            for at in 1..len {
                let mut path = vec![b'a'; len];
                path[0] = b'/';
                for byte in 0..=u8::MAX {
                    path[at] = byte;
                    let dot_segment = at == 1 && byte == b'.';
                    let plain = is_path_byte(byte) && byte != b'%' && !dot_segment;
                    assert_eq!(is_plain(&path), plain, "{byte} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn the_fast_look_finds_an_odd_byte_at_every_place() {
        for len in 2..80 {
            for at in 1..len {
                let mut path = vec![b'a'; len];
                path[0] = b'/';
                assert!(is_plain(&path));
                path[at] = b'%';
                assert!(!is_plain(&path), "% at {at} of {len}");
                path[at] = b'.';
                path[at - 1] = b'/';
                assert!(!is_plain(&path), "/. at {at} of {len}");
            }
        }
    }

    #[test]
    fn targets_are_split_at_the_first_question_mark() {
        assert_eq!(split_target(b"/a"), (&b"/a"[..], None));
        assert_eq!(split_target(b"/a?"), (&b"/a"[..], Some(&b""[..])));
        assert_eq!(split_target(b"/a?b?c"), (&b"/a"[..], Some(&b"b?c"[..])));
        assert_eq!(split_target(b"?"), (&b""[..], Some(&b""[..])));
    }

    #[test]
    fn every_fault_has_a_name_and_a_sentence_of_its_own() {
        let names: std::collections::HashSet<_> = PathFault::ALL.iter().map(|f| f.name()).collect();
        let texts: std::collections::HashSet<_> =
            PathFault::ALL.iter().map(|f| f.to_string()).collect();
        assert_eq!(
            (names.len(), texts.len()),
            (PathFault::ALL.len(), PathFault::ALL.len())
        );
    }
}
