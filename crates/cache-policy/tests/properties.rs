//! What must hold for every response, every request and every moment.

use forebay_cache_policy::{
    Asked, Codings, ContentRange, Key, Moment, Origin, Policy, QueryRules, RequestFacts,
    ResponseFacts, Reuse, StoredFacts, Target, Time, Times, Ttl, Vary, invalidated,
    normalise_request, prepare_fields, reuse, storable, update,
};
use forebay_fields::Fields;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Sun, 06 Nov 1994 08:49:37 GMT.
const NOW: u64 = 784_111_777;
const DATES: [&str; 6] = [
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:00:00 GMT",
    "Sunday, 06-Nov-94 09:00:00 GMT",
    "Sun Nov  6 08:49:36 1994",
    "0",
    "Sun, 06 Nov 1994 08:49:37 PST",
];

const ODD_ARGUMENTS: [&str; 8] = [
    "=",
    "=x",
    "=-1",
    "= 5",
    " =5",
    "=99999999999",
    "=\"set-cookie, x-a\"",
    "=\"\"",
];

/// Directives of every kind, right and wrong, of requests and of responses.
fn directive() -> impl Strategy<Value = String> {
    let names = select(vec![
        "max-age",
        "s-maxage",
        "no-cache",
        "no-store",
        "private",
        "public",
        "must-revalidate",
        "proxy-revalidate",
        "must-understand",
        "max-stale",
        "min-fresh",
        "only-if-cached",
        "stale-while-revalidate",
        "stale-if-error",
        "immutable",
        "x-own",
    ]);
    let arguments = prop_oneof![
        4 => Just(String::new()),
        4 => (0_u32..200).prop_map(|seconds| format!("={seconds}")),
        1 => (0_u32..200).prop_map(|seconds| format!("=\"{seconds}\"")),
        1 => select(ODD_ARGUMENTS.to_vec()).prop_map(str::to_owned),
    ];
    (names, arguments).prop_map(|(name, argument)| format!("{name}{argument}"))
}

fn directives() -> impl Strategy<Value = Vec<String>> {
    vec(directive(), 0..5)
}

/// A field of a response that means something to a cache.
fn response_field() -> impl Strategy<Value = (&'static str, String)> {
    let date = select(DATES.to_vec()).prop_map(str::to_owned);
    prop_oneof![
        (select(vec!["Date", "Expires", "Last-Modified"]), date),
        (
            Just("Age"),
            select(vec!["0", "5", "70", "x", "5, 6"]).prop_map(str::to_owned)
        ),
        (
            Just("ETag"),
            select(vec!["\"a\"", "W/\"a\"", "\"b\"", "bad"]).prop_map(str::to_owned)
        ),
        (
            Just("Vary"),
            select(vec!["a", "B, a", "*", "accept-encoding"]).prop_map(str::to_owned)
        ),
        (Just("Set-Cookie"), Just("a=b".to_owned())),
        (
            Just("CDN-Cache-Control"),
            directives().prop_map(|all| all.join(", "))
        ),
        (
            Just("Content-Range"),
            select(vec!["bytes 0-9/20", "bytes 5-4/3"]).prop_map(str::to_owned)
        ),
        (Just("Connection"), Just("x-a".to_owned())),
        (Just("X-A"), Just("1".to_owned())),
    ]
}

fn fields(lines: &[(&str, String)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines {
        fields.append(*name, value).unwrap();
    }
    fields
}

fn with_control(control: &[String], lines: &[(&str, String)]) -> Fields {
    let mut all = lines.to_vec();
    all.push(("Cache-Control", control.join(", ")));
    fields(&all)
}

fn text(fields: &Fields) -> String {
    let mut wire = Vec::new();
    fields.write_to(&mut wire);
    String::from_utf8(wire).unwrap()
}

fn policy() -> impl Strategy<Value = Policy> {
    let ttl = prop_oneof![Just(Ttl::default()), (0_u32..200).prop_map(Ttl::usual)];
    let stale = || prop::option::of(0_u32..200);
    (ttl, any::<bool>(), any::<bool>(), stale(), stale()).prop_map(
        |(ttl, strip_cookies, store_set_cookie, revalidate, error)| Policy {
            ttl,
            strip_cookies,
            store_set_cookie,
            stale_while_revalidate: revalidate,
            stale_if_error: error,
            stale_if_disconnected: 300,
            ..Policy::default()
        },
    )
}

fn request(policy: &Policy, method: &str, control: &[String]) -> RequestFacts {
    let asked = Asked {
        method,
        safe: true,
        has_body: false,
        fields: &with_control(control, &[]),
    };
    RequestFacts::of(policy, &asked)
}

fn times() -> Times {
    Times {
        asked: Time::from_secs(NOW - 1),
        answered: Time::from_secs(NOW),
    }
}

fn stored(policy: &Policy, status: u16, response: &Fields) -> Option<StoredFacts> {
    let facts = ResponseFacts::of(status, response, false);
    storable(policy, &request(policy, "GET", &[]), &facts, &times()).ok()
}

fn status() -> impl Strategy<Value = u16> {
    select(vec![
        200, 200, 203, 204, 206, 301, 302, 304, 404, 429, 500, 103,
    ])
}

/// How much a decision allows.
fn rank(reuse: Reuse) -> u8 {
    match reuse {
        Reuse::Fresh => 0,
        Reuse::Stale(_) => 1,
        Reuse::Validate(_) | Reuse::Forbidden(_) | Reuse::OnlyIfCached(_) => 2,
    }
}

proptest! {
    #[test]
    fn time_makes_nothing_fresher(
        policy in policy(),
        control in directives(),
        lines in vec(response_field(), 0..5),
        asked in directives(),
        origin in select(vec![Origin::Unasked, Origin::Error, Origin::Disconnected]),
        mut moments in vec(0_u64..700_000, 2..8),
    ) {
        let Some(stored) = stored(&policy, 200, &with_control(&control, &lines)) else {
            return Ok(());
        };
        let request = request(&policy, "GET", &asked);
        moments.sort_unstable();
        let mut worst = 0;
        for moment in moments {
            let now = Time::from_millis(NOW * 1000 + moment);
            let moment = Moment { origin, ..Moment::at(now) };
            let rank = rank(reuse(&policy, &request, &stored, &moment));
            prop_assert!(rank >= worst, "{control:?} {lines:?} {asked:?} at {now:?}");
            prop_assert!(rank > 0 || stored.is_fresh(now));
            worst = rank;
        }
    }

    #[test]
    fn the_case_of_directives_does_not_count(
        control in directives(),
        lines in vec(response_field(), 0..5),
    ) {
        let upper: Vec<String> = control.iter().map(|one| one.to_uppercase()).collect();
        let facts = |control: &[String]| {
            ResponseFacts::of(200, &with_control(control, &lines), false)
        };
        prop_assert_eq!(facts(&control), facts(&upper));
        let policy = Policy::default();
        prop_assert_eq!(request(&policy, "GET", &control), request(&policy, "GET", &upper));
    }

    #[test]
    fn unknown_directives_and_lines_do_not_count(control in directives(), at in any::<Index>()) {
        let mut more = control.clone();
        more.insert(at.index(control.len() + 1), "x-unknown=\"no-store, private\"".to_owned());
        let of = |fields: &Fields| ResponseFacts::of(200, fields, false);
        let plain = of(&with_control(&control, &[]));
        prop_assert_eq!(&of(&with_control(&more, &[])), &plain);
        let each: Vec<_> = control.iter().map(|one| ("Cache-Control", one.clone())).collect();
        prop_assert_eq!(&of(&fields(&each)), &plain);
    }

    #[test]
    fn what_forbids_to_store_is_never_outdone(
        mut control in directives(),
        mut lines in vec(response_field(), 0..5),
        status in status(),
        at in any::<Index>(),
        forbids in select(vec!["no-store", "private"]),
    ) {
        // What goes before it by its meaning.
        control.retain(|one| one != "must-understand");
        lines.retain(|(name, _)| *name != "CDN-Cache-Control");
        control.insert(at.index(control.len() + 1), forbids.to_owned());
        let policy = Policy { ttl: Ttl::usual(60), ..Policy::default() };
        prop_assert_eq!(stored(&policy, status, &with_control(&control, &lines)), None);
    }

    #[test]
    fn only_usable_final_responses_are_stored(
        policy in policy(),
        control in directives(),
        lines in vec(response_field(), 0..6),
        status in 0_u16..1000,
    ) {
        let response = with_control(&control, &lines);
        if let Some(stored) = stored(&policy, status, &response) {
            prop_assert!(status >= 200 && status != 304);
            prop_assert!(!matches!(Vary::of(&response), Vary::Star));
            let answers = |origin| {
                let moment = Moment { origin, ..Moment::at(stored.answered()) };
                rank(reuse(&policy, &request(&policy, "GET", &[]), &stored, &moment)) < 2
            };
            let usable = answers(Origin::Unasked) || answers(Origin::Error);
            prop_assert!(stored.has_validator() || usable);
            prop_assert!(stored.age(stored.answered()) >= 1, "a second on the way");
        }
    }

    #[test]
    fn preparing_fields_again_changes_nothing(
        policy in policy(),
        control in directives(),
        lines in vec(response_field(), 0..6),
    ) {
        let mut fields = with_control(&control, &lines);
        for round in 0..2 {
            let before = text(&fields);
            let facts = ResponseFacts::of(200, &fields, false);
            prepare_fields(&policy, &facts, &times(), &mut fields).unwrap();
            prop_assert!(round == 0 || text(&fields) == before);
        }
        for gone in ["Connection", "Age", "Content-Range"] {
            prop_assert!(!fields.contains(gone));
        }
    }

    #[test]
    fn the_same_update_twice_is_one(
        policy in policy(),
        control in directives(),
        lines in vec(response_field(), 0..6),
        new in vec(response_field(), 0..6),
    ) {
        let mut merged = with_control(&control, &lines);
        let Some(stored) = stored(&policy, 200, &merged) else {
            return Ok(());
        };
        let new = fields(&new);
        let facts = ResponseFacts::of(304, &new, false);
        let request = request(&policy, "GET", &[]);
        let mut once = None;
        for _ in 0..2 {
            let updated =
                update(&policy, &request, &stored, &mut merged, &facts, &new, &times()).unwrap();
            let sorted = {
                let mut lines: Vec<String> = text(&merged).lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let seen = (format!("{updated:?}").contains("Stored"), sorted);
            prop_assert_eq!(once.get_or_insert(seen.clone()), &seen);
        }
    }

    #[test]
    fn a_normalised_request_has_the_same_secondary_key(
        encoding in "[a-z*]{0,4}(;q=[01](\\.[0-9]{0,3})?)?\
            (, ?(br|GZIP|zstd|identity|\\*)(;q=0(\\.[0-9])?)?){0,3}",
        language in "([a-zA-Z]{1,3}(;q=0\\.[0-9])?,? ?){0,14}",
    ) {
        let mut vary = Fields::new();
        vary.append("Vary", "Accept-Language, Accept-Encoding").unwrap();
        let Vary::Names(names) = Vary::of(&vary) else { panic!("no names") };
        let mut request = fields(&[("Accept-Encoding", encoding), ("Accept-Language", language)]);
        let key = |request: &Fields| {
            let mut key = Vec::new();
            assert!(names.write_key(request, &mut key));
            key
        };
        let (before, codings) = (key(&request), Codings::of(&request));
        normalise_request(&mut request).unwrap();
        prop_assert_eq!(key(&request), before);
        prop_assert_eq!(Codings::of(&request), codings);
        let once = text(&request);
        normalise_request(&mut request).unwrap();
        prop_assert_eq!(text(&request), once);
    }

    #[test]
    fn sorted_queries_do_not_depend_on_their_order(
        values in vec("[a-z]{0,3}", 1..8),
        seed in any::<[Index; 8]>(),
    ) {
        let parameters: Vec<String> =
            values.iter().enumerate().map(|(n, value)| format!("p{n}={value}")).collect();
        let mut other = parameters.clone();
        for (at, index) in seed.iter().enumerate().take(other.len()) {
            let to = index.index(other.len());
            other.swap(at, to);
        }
        let rules = QueryRules { sort: true, ..QueryRules::default() };
        let (one, two) = (parameters.join("&"), other.join("&"));
        prop_assert_eq!(rules.apply(one.as_bytes()), rules.apply(two.as_bytes()));
    }

    #[test]
    fn different_keys_are_written_differently(
        parts in vec(("[a-z]{1,3}", prop::option::of("[a-z=&]{0,3}"), "[0-9:\\nPOST]{0,5}",
            prop::option::of("[0-9:\\nPOST]{0,5}")), 2),
    ) {
        let write = |parts: &(String, Option<String>, String, Option<String>)| {
            let (path, query, extra, content) = parts;
            let path = format!("/{path}");
            let key = Key {
                scheme: "http",
                host: "a",
                port: 80,
                path: path.as_bytes(),
                query: query.as_ref().map(String::as_bytes),
                extra: extra.as_bytes(),
                content: content.as_ref().map(|content| ("POST", content.as_bytes())),
            };
            let mut out = Vec::new();
            key.write(&mut out);
            out
        };
        prop_assert_eq!(write(&parts[0]) == write(&parts[1]), parts[0] == parts[1]);
    }

    #[test]
    fn a_content_range_reads_as_it_is_written(
        first in any::<u64>(), len in 1_u64.., rest in prop::option::of(0_u64..9),
    ) {
        let Some(end) = first.checked_add(len) else { return Ok(()) };
        let complete = match rest {
            None => None,
            Some(rest) => match end.checked_add(rest) {
                Some(len) if len < u64::MAX => Some(len),
                _ => return Ok(()),
            },
        };
        let part = ContentRange { range: first..end, complete };
        prop_assert_eq!(ContentRange::parse(part.to_string().as_bytes()), Some(part));
    }

    #[test]
    fn what_is_invalid_is_a_path_of_the_same_origin(
        base in "/[a-c./]{0,8}",
        reference in "(https?:)?(//[a-b@:0-9]{0,4})?[a-c./?#:%]{0,10}",
    ) {
        let policy = Policy::default();
        let asked = Asked { method: "PUT", safe: false, has_body: true, fields: &Fields::new() };
        let request = RequestFacts::of(&policy, &asked);
        let target = Target {
            scheme: "http",
            host: "a",
            port: 80,
            path_and_query: base.as_bytes(),
        };
        let response = fields(&[("Location", reference.clone())]);
        let all = invalidated(&request, 200, &target, &response);
        prop_assert_eq!(&all[0], base.as_bytes());
        if let Some((_, authority)) = reference.split_once("//").filter(|(scheme, _)| {
            matches!(*scheme, "" | "http:" | "https:")
        }) {
            let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
            let same = matches!(&authority[..end], "a" | "a:" | "a:80");
            let own = same && !reference.starts_with("https");
            prop_assert!(own || all.len() == 1, "{}", reference);
        }
        for uri in all.iter().skip(1) {
            prop_assert!(uri.starts_with(b"/"), "{}", uri.escape_ascii());
        }
    }
}
