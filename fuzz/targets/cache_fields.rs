//! What fields say to a cache: each line of the input is a value of all that are looked at. No
//! value panics; normal forms are stable; nothing becomes fresher with time.
#![no_main]

use forebay_cache_policy::{
    Asked, CacheStatus, Codings, ContentRange, Moment, Outcome, Policy, QueryRules, RangeAsk,
    RequestFacts, ResponseFacts, Reuse, Target, Time, Times, Ttl, Vary, covered, http_date,
    invalidated, make_conditional, normalise_request, prepare_fields, reuse, storable, update,
};
use forebay_fields::Fields;
use libfuzzer_sys::fuzz_target;

const NOW: Time = Time::from_secs(784_111_777);
const NAMES: [&str; 21] = [
    "Cache-Control",
    "CDN-Cache-Control",
    "Content-Range",
    "Vary",
    "Age",
    "Date",
    "Expires",
    "Last-Modified",
    "ETag",
    "Pragma",
    "Range",
    "Accept-Encoding",
    "Accept-Language",
    "Accept",
    "Location",
    "Content-Location",
    "Content-Length",
    "Content-Type",
    "Connection",
    "Set-Cookie",
    "X-A",
];

fuzz_target!(|input: &[u8]| {
    let mut fields = Fields::new();
    for line in input.split(|&byte| byte == b'\n') {
        // A line may say which field it is, as in a head, or is the value of all.
        let colon = line.windows(2).position(|pair| pair == b": ");
        let own = colon.map(|at| (&line[..at], &line[at + 2..]));
        // What is no value is refused.
        match own.and_then(|(name, value)| Some((find(name)?, value))) {
            Some((name, value)) => {
                let _ = fields.append(name, value);
            }
            None => {
                for name in NAMES {
                    let _ = fields.append(name, line);
                }
            }
        }
        check_value(line);
    }
    check_response(&fields);
    check_request(&fields);
});

fn find(name: &[u8]) -> Option<&'static str> {
    let same = |known: &&&str| known.as_bytes().eq_ignore_ascii_case(name);
    NAMES.iter().find(same).copied()
}

fn check_value(value: &[u8]) {
    if let Some(part) = ContentRange::parse(value) {
        assert!(part.range.start < part.range.end);
        assert!(part.complete.is_none_or(|len| part.range.end <= len));
        assert_eq!(
            ContentRange::parse(part.to_string().as_bytes()),
            Some(part.clone())
        );
    }
    if let Some(secs) = http_date(value) {
        let written = Time::from_secs(secs).to_http_date();
        assert_eq!(http_date(written.as_bytes()), Some(secs));
        assert_eq!(http_date(written.to_uppercase().as_bytes()), Some(secs));
    }
    let even = |name: &[u8]| name.len() % 2 == 0;
    let rules = QueryRules {
        keep: None,
        ignore: Some(&even),
        sort: true,
    };
    if let Some(left) = rules.apply(value) {
        assert_eq!(rules.apply(&left), Some(left.clone()));
    }
    let text = String::from_utf8_lossy(value);
    let status = CacheStatus {
        cache: "forebay",
        outcome: Outcome::Hit,
        ttl: None,
        key: Some(value),
        detail: Some(&text),
    };
    assert!(status.append_to(&mut Fields::new()).is_ok());
}

fn request(method: &str, fields: &Fields) -> RequestFacts {
    let asked = Asked {
        method,
        safe: method == "GET",
        has_body: false,
        fields,
    };
    RequestFacts::of(&policy(), &asked)
}

fn policy() -> Policy {
    Policy {
        ttl: Ttl::usual(60),
        ..Policy::default()
    }
}

fn text(fields: &Fields) -> Vec<u8> {
    let mut wire = Vec::new();
    fields.write_to(&mut wire);
    wire
}

fn check_response(fields: &Fields) {
    let policy = policy();
    let times = Times {
        asked: NOW,
        answered: NOW,
    };
    let get = request("GET", &Fields::new());
    for status in [200, 206] {
        let facts = ResponseFacts::of(status, fields, false);
        let Ok(stored) = storable(&policy, &get, &facts, &times) else {
            continue;
        };
        let mut kept = fields.clone();
        prepare_fields(&policy, &facts, &times, &mut kept).expect("there is room");
        let once = text(&kept);
        let again = ResponseFacts::of(status, &kept, false);
        prepare_fields(&policy, &again, &times, &mut kept).expect("there is room");
        assert_eq!(text(&kept), once);

        let mut conditional = Fields::new();
        let any = make_conditional(&mut conditional, [(&stored, &kept)]);
        assert_eq!(any, Ok(stored.has_validator()));
        let mut fresh = true;
        for seconds in [0, 1, 59, 60, 3600, 1 << 31, 1 << 40] {
            let moment = Moment::at(Time::from_secs(NOW.as_secs() + seconds));
            let is_fresh = reuse(&policy, &get, &stored, &moment) == Reuse::Fresh;
            assert!(fresh || !is_fresh);
            fresh = is_fresh;
        }
        let new = ResponseFacts::of(304, fields, false);
        let updated = update(&policy, &get, &stored, &mut kept, &new, fields, &times);
        assert!(updated.is_ok());
    }
    let target = Target {
        scheme: "http",
        host: "a",
        port: 80,
        path_and_query: b"/b/c?d",
    };
    for uri in invalidated(&request("PUT", &Fields::new()), 200, &target, fields) {
        assert!(uri.starts_with(b"/"));
        assert!(uri.iter().all(u8::is_ascii_graphic));
    }
    if let Vary::Names(names) = Vary::of(fields) {
        assert!(names.iter().is_sorted());
        assert!(names.iter().all(forebay_fields::is_token));
        let mut key = Vec::new();
        if names.write_key(fields, &mut key) {
            let lines = key.iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(lines, names.iter().count());
            let mut normal = fields.clone();
            normalise_request(&mut normal).expect("there is room");
            let mut again = Vec::new();
            assert!(names.write_key(&normal, &mut again));
            assert_eq!(again, key);
        }
    }
}

fn check_request(fields: &Fields) {
    let facts = request("GET", fields);
    if let RangeAsk::One(spec) = facts.range()
        && let Some(range) = covered(spec, Some(100), &[0..100])
    {
        assert!(range.start < range.end && range.end <= 100);
    }
    let mut normal = fields.clone();
    normalise_request(&mut normal).expect("there is room");
    assert_eq!(Codings::of(&normal), Codings::of(fields));
    let once = text(&normal);
    normalise_request(&mut normal).expect("there is room");
    assert_eq!(text(&normal), once);
}
