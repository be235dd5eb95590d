//! What must hold for every path, every host name and every list of patterns.

use std::borrow::Cow;

use forebay_route::{HostPattern, HostTable, Pattern, RouteSet, normalize};
use proptest::collection::vec;
use proptest::prelude::*;

/// Paths in which everything that normalisation cares about is frequent.
fn wild_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        ".",
        ".",
        "..",
        "%2e",
        "%2E",
        "%2f",
        "%",
        "%41",
        "%zz",
        "%00",
        "%25",
        "%3a",
        "a",
        "b",
        "%7E",
        ";",
        "//",
        "index.html",
    ]);
    vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// The definition, written as slowly and plainly as RFC 3986 states it.
fn plain_normalize(path: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        if c != '%' {
            decoded.push(c);
            rest = &rest[1..];
            continue;
        }
        let byte = u8::from_str_radix(rest.get(1..3)?, 16).ok()?;
        match byte {
            0 | 10 | 13 => return None,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                decoded.push(char::from(byte));
            }
            _ => decoded.push_str(&format!("%{byte:02X}")),
        }
        rest = &rest[3..];
    }
    let segments: Vec<&str> = decoded.split('/').skip(1).collect();
    let mut out: Vec<&str> = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        let last = number + 1 == segments.len();
        match *segment {
            "." => {}
            ".." => {
                out.pop()?;
            }
            other => {
                out.push(other);
                continue;
            }
        }
        if last {
            out.push("");
        }
    }
    Some(format!("/{}", out.join("/")))
}

fn pattern_text() -> impl Strategy<Value = String> {
    let segment = || prop::sample::select(vec!["a", "b", "c", "", "a.x", ":p", ":q", "b.y.x"]);
    let ending = prop::sample::select(vec![
        "", "", "", "/*", "/*", "*", "/*.x", "/*.y", "*.x", "/*/a", "/a*", "/*.y.x", "/*a", "/",
    ]);
    (vec(segment(), 0..4), ending).prop_map(|(segments, ending)| {
        let mut text: String = segments
            .iter()
            .map(|segment| format!("/{segment}"))
            .collect();
        text.push_str(ending);
        text
    })
}

fn patterns() -> impl Strategy<Value = Pattern> {
    pattern_text().prop_filter_map("not a pattern", |text| Pattern::parse(&text).ok())
}

fn matched_path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "c", "", "a.x", "b.y.x", "ca", ".x", "d"]);
    vec(segment, 1..5).prop_map(|segments| {
        segments
            .iter()
            .map(|segment| format!("/{segment}"))
            .collect::<String>()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn normalize_is_what_the_rfc_says(path in wild_path()) {
        let got = normalize(path.as_bytes()).ok().map(|path| path.into_owned());
        prop_assert_eq!(got, plain_normalize(&path).map(String::into_bytes));
    }

    #[test]
    fn normalize_never_panics_and_is_stable(
        path in prop_oneof![vec(any::<u8>(), 0..80), wild_path().prop_map(String::into_bytes)],
    ) {
        let Ok(normal) = normalize(&path) else { return Ok(()) };
        prop_assert!(normal.len() <= path.len());
        prop_assert_eq!(normal[0], b'/');
        prop_assert!(normal.iter().all(|byte| matches!(byte, 0x21..=0x7e)));
        prop_assert!(!normal.split(|&byte| byte == b'/').any(|s| s == b"." || s == b".."));
        prop_assert!(matches!(normalize(&normal), Ok(Cow::Borrowed(same)) if same == &*normal));
    }

    #[test]
    fn a_route_set_finds_what_a_loop_over_the_patterns_finds(
        routes in vec(vec(patterns(), 1..4), 0..24),
        paths in vec(matched_path(), 1..12),
    ) {
        let set = RouteSet::new(routes.iter().cloned()).unwrap();
        for path in &paths {
            let path = path.as_bytes();
            let found: Vec<_> = set
                .candidates(path)
                .map(|found| (found.route, found.pattern, found.captures))
                .collect();
            let expected: Vec<_> = routes
                .iter()
                .enumerate()
                .filter_map(|(route, patterns)| {
                    patterns.iter().enumerate().find_map(|(number, pattern)| {
                        Some((route, number, pattern.matches(path)?))
                    })
                })
                .collect();
            prop_assert_eq!(found, expected, "for {:?}", String::from_utf8_lossy(path));
            let explained = set.explain(path).filter(|said| said.result.is_ok());
            let mut explained: Vec<_> = explained.map(|said| said.route).collect();
            explained.dedup();
            let routes: Vec<_> = set.candidates(path).map(|found| found.route).collect();
            prop_assert_eq!(explained, routes);
        }
    }

    #[test]
    fn whoever_covers_matches_too(
        one in patterns(),
        other in patterns(),
        paths in vec(matched_path(), 1..40),
    ) {
        if one.covers(&other) {
            for path in paths.iter().map(|path| path.as_bytes()) {
                prop_assert!(
                    other.matches(path).is_none() || one.matches(path).is_some(),
                    "{} does not cover {} at {:?}", one, other, path
                );
            }
        }
    }

    #[test]
    fn a_catch_all_makes_what_follows_unreachable(routes in vec(vec(patterns(), 1..4), 0..12)) {
        let catch_all = vec![Pattern::parse("/*").unwrap()];
        let count: usize = routes.iter().map(Vec::len).sum();
        let all = std::iter::once(catch_all).chain(routes);
        let dead = RouteSet::new(all).unwrap().unreachable(|route| route == 0);
        prop_assert_eq!(dead.len(), count);
        prop_assert!(dead.iter().all(|dead| dead.by == 0));
    }

    #[test]
    fn patterns_and_hosts_never_panic(text in "\\PC{0,40}", path in vec(any::<u8>(), 0..40)) {
        if let Ok(pattern) = Pattern::parse(&text) {
            let captures = pattern.matches(&path);
            prop_assert_eq!(Pattern::parse(pattern.as_str()), Ok(pattern));
            prop_assert!(captures.is_none_or(|found| found.rest(&path).len() <= path.len()));
        }
        let mut table = HostTable::new();
        if let Ok(host) = HostPattern::parse(&text) {
            table.insert(host, ()).unwrap();
        }
        let _ = table.get(&path);
    }

    #[test]
    fn a_host_table_finds_what_a_loop_over_the_names_finds(
        names in vec("(\\*\\.)?[ab](\\.[ab]){0,3}|\\*", 0..20),
        hosts in vec("[abc](\\.[abc]){0,4}", 1..20),
    ) {
        let mut table = HostTable::new();
        let mut inserted: Vec<HostPattern> = Vec::new();
        for name in names {
            let host = HostPattern::parse(&name).unwrap();
            match table.insert(host.clone(), inserted.len()) {
                Ok(()) => inserted.push(host),
                Err(back) => prop_assert!(inserted.contains(&back.pattern)),
            }
        }
        for host in hosts {
            // Exact before wildcard, and a longer wildcard before a shorter one.
            let best = inserted
                .iter()
                .enumerate()
                .filter(|(_, name)| name.matches(host.as_bytes()))
                .max_by_key(|(_, name)| (!name.is_wildcard(), !name.is_any(), name.as_str().len()))
                .map(|(number, _)| number);
            prop_assert_eq!(table.get(host.as_bytes()).copied(), best, "for {}", host);
        }
    }
}
