//! What an unsafe request makes invalid (RFC 9111 §4.4).

use forebay_fields::{Fields, Known};

use crate::key::default_port;
use crate::request::RequestFacts;

/// The URI that a request was for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `http` or `https`, in lower case.
    pub scheme: &'a str,
    /// The host without port.
    pub host: &'a str,
    /// The port, also where it is the scheme's own.
    pub port: u16,
    /// The path, and the query if there is one, as they were sent.
    pub path_and_query: &'a [u8],
}

/// What is invalid after a response to an unsafe request: path and query of each URI, all of the
/// target's own scheme, host and port. The target first, then what `Location` and
/// `Content-Location` name.
///
/// Nothing, if the method is safe or the response is an error: then nothing has changed. URIs of
/// other origins are left out, since one must not drop what is another's.
///
/// Paths are as they are written there: the caller brings them into the one form that keys have.
#[must_use]
pub fn invalidated(
    request: &RequestFacts,
    status: u16,
    target: &Target<'_>,
    response: &Fields,
) -> Vec<Vec<u8>> {
    if !request.invalidates() || !(200..400).contains(&status) {
        return Vec::new();
    }
    let mut all = vec![target.path_and_query.to_vec()];
    for name in [Known::Location, Known::ContentLocation] {
        let reference = response.get_only(name);
        if let Some(uri) = reference.and_then(|reference| resolve(target, reference))
            && !all.contains(&uri)
        {
            all.push(uri);
        }
    }
    all
}

/// A longer reference names nothing that could have been asked for.
const MAX_REFERENCE: usize = 16 << 10;

/// Path and query of a reference, relative to the target (RFC 3986 §5.2); `None` if it leads to
/// another origin or is none.
fn resolve(target: &Target<'_>, reference: &[u8]) -> Option<Vec<u8>> {
    let is_uri = reference.iter().all(u8::is_ascii_graphic) && reference.len() <= MAX_REFERENCE;
    if !is_uri {
        return None;
    }
    let reference = until(reference, |byte| byte == b'#');
    let behind_scheme = match scheme_len(reference) {
        None => reference,
        Some(len) => {
            let (scheme, rest) = (&reference[..len], &reference[len + 1..]);
            let same = scheme.eq_ignore_ascii_case(target.scheme.as_bytes());
            // `http:path` is nothing that anybody means (RFC 3986 §5.2.2).
            if !same || !rest.starts_with(b"//") {
                return None;
            }
            rest
        }
    };
    if let Some(rest) = behind_scheme.strip_prefix(b"//") {
        let authority = until(rest, |byte| matches!(byte, b'/' | b'?'));
        if !is_same_authority(target, authority) {
            return None;
        }
        return Some(without_dots(&rest[authority.len()..], b"/"));
    }
    let base = until(target.path_and_query, |byte| byte == b'?');
    match behind_scheme {
        [] => None,
        [b'/', ..] => Some(without_dots(behind_scheme, b"/")),
        [b'?', ..] => Some([base, behind_scheme].concat()),
        relative => {
            let dir = base.iter().rposition(|&byte| byte == b'/')?;
            Some(without_dots(relative, &base[..=dir]))
        }
    }
}

fn until(bytes: &[u8], end: impl Fn(u8) -> bool) -> &[u8] {
    let len = bytes.iter().position(|&byte| end(byte));
    &bytes[..len.unwrap_or(bytes.len())]
}

/// The length of the scheme that a reference begins with.
fn scheme_len(reference: &[u8]) -> Option<usize> {
    let len = until(reference, |byte| matches!(byte, b':' | b'/' | b'?')).len();
    let scheme = reference.get(..len)?;
    let right = scheme.first()?.is_ascii_alphabetic()
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    (right && reference.get(len) == Some(&b':')).then_some(len)
}

fn is_same_authority(target: &Target<'_>, authority: &[u8]) -> bool {
    // Behind the last colon, unless that stands within an address of IPv6.
    let colon = authority.iter().rposition(|&byte| byte == b':');
    let colon = colon.filter(|&at| !authority[at..].contains(&b']'));
    let (host, port) = match colon {
        None => (authority, b"".as_slice()),
        Some(at) => (&authority[..at], &authority[at + 1..]),
    };
    let port = match port {
        b"" => default_port(target.scheme),
        digits => crate::time::number(digits).and_then(|port| u16::try_from(port).ok()),
    };
    host.eq_ignore_ascii_case(target.host.as_bytes()) && port == Some(target.port)
}

/// `dir` and the path of `reference` behind it, without the segments `.` and `..`
/// (RFC 3986 §5.2.4), and with the reference's query. `dir` ends with a slash.
fn without_dots(reference: &[u8], dir: &[u8]) -> Vec<u8> {
    let path = until(reference, |byte| byte == b'?');
    let query = &reference[path.len()..];
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let mut out = Vec::with_capacity(dir.len() + reference.len());
    let inner = dir.strip_prefix(b"/").unwrap_or(dir);
    let segments = inner.split_inclusive(|&byte| byte == b'/');
    out.push(b'/');
    for segment in segments.chain(path.split_inclusive(|&byte| byte == b'/')) {
        match segment {
            b"." | b"./" => {}
            b".." | b"../" => {
                // The last segment goes; the slash before it stays.
                out.pop();
                let keep = out.iter().rposition(|&byte| byte == b'/');
                out.truncate(keep.map_or(0, |slash| slash + 1));
                if out.is_empty() {
                    out.push(b'/');
                }
            }
            segment => out.extend_from_slice(segment),
        }
    }
    out.extend_from_slice(query);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::testing::{Lines, fields, request};

    const TARGET: Target<'_> = Target {
        scheme: "https",
        host: "example.com",
        port: 443,
        path_and_query: b"/b/c/d?q",
    };

    fn after(method: &str, status: u16, response: Lines<'_>) -> Vec<String> {
        let request = request(&Policy::default(), method, &[]);
        let all = invalidated(&request, status, &TARGET, &fields(response));
        let text = |uri| String::from_utf8(uri).unwrap();
        all.into_iter().map(text).collect()
    }

    #[test]
    fn rfc9111_4_4_after_unsafe_methods_that_succeeded() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "X-UNKNOWN"] {
            for status in [200, 201, 204, 303, 304, 399] {
                assert_eq!(
                    after(method, status, &[]),
                    ["/b/c/d?q"],
                    "{method} {status}"
                );
            }
            for status in [100, 400, 404, 500] {
                assert!(after(method, status, &[]).is_empty(), "{method} {status}");
            }
        }
        for method in ["GET", "HEAD"] {
            assert!(after(method, 200, &[]).is_empty(), "{method}");
        }
    }

    #[test]
    fn rfc9111_4_4_location_and_content_location_of_the_same_origin() {
        let both = [("Location", "/new?1"), ("Content-Location", "other")];
        assert_eq!(
            after("POST", 201, &both),
            ["/b/c/d?q", "/new?1", "/b/c/other"]
        );
        let same = [("Location", "d?q"), ("Content-Location", "/b/c/d?q")];
        assert_eq!(after("POST", 201, &same), ["/b/c/d?q"]);
        let twice = [("Location", "/a"), ("Location", "/b")];
        assert_eq!(after("POST", 201, &twice), ["/b/c/d?q"]);
        let elsewhere = [("Location", "https://other.example/x")];
        assert_eq!(after("POST", 201, &elsewhere), ["/b/c/d?q"]);
    }

    #[test]
    fn rfc3986_5_4_references() {
        for (reference, expected) in [
            ("g", Some("/b/c/g")),
            ("./g", Some("/b/c/g")),
            ("g/", Some("/b/c/g/")),
            ("/g", Some("/g")),
            ("?y", Some("/b/c/d?y")),
            ("g?y/../x", Some("/b/c/g?y/../x")),
            ("g#s", Some("/b/c/g")),
            ("", None),
            ("#s", None),
            (".", Some("/b/c/")),
            ("..", Some("/b/")),
            ("../g", Some("/b/g")),
            ("../..", Some("/")),
            ("../../g", Some("/g")),
            ("../../../g", Some("/g")),
            ("/./g", Some("/g")),
            ("/../g", Some("/g")),
            ("g.", Some("/b/c/g.")),
            ("..g", Some("/b/c/..g")),
            ("g/../h", Some("/b/c/h")),
            ("g//h", Some("/b/c/g//h")),
            ("/a:b", Some("/a:b")),
        ] {
            let got = resolve(&TARGET, reference.as_bytes());
            assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{reference}");
        }
    }

    #[test]
    fn rfc9111_4_4_only_the_same_origin() {
        for (reference, expected) in [
            ("https://example.com/x", Some("/x")),
            ("HTTPS://EXAMPLE.com:443/x", Some("/x")),
            ("https://example.com:/x", Some("/x")),
            ("https://example.com", Some("/")),
            ("https://example.com?x", Some("/?x")),
            ("//example.com/x", Some("/x")),
            ("http://example.com/x", None),
            ("https://example.com:80/x", None),
            ("https://example.com:443x/", None),
            ("https://www.example.com/x", None),
            ("https://example.com@evil.example/x", None),
            ("https://user@example.com/x", None),
            ("https:x", None),
            ("https:/x", None),
            ("data:x", None),
            ("//other/x", None),
            ("/a b", None),
            ("/caf\u{e9}", None),
        ] {
            let got = resolve(&TARGET, reference.as_bytes());
            assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{reference}");
        }
        let six = Target {
            host: "[2001:db8::1]",
            port: 8080,
            ..TARGET
        };
        assert!(resolve(&six, b"https://[2001:DB8::1]:8080/x").is_some());
        assert!(resolve(&six, b"https://[2001:db8::1]/x").is_none());
    }
}
