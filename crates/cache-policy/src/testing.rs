//! What the tests of several files need.

use forebay_fields::Fields;

use crate::{
    Asked, Policy, RequestFacts, ResponseFacts, StoredFacts, Time, Times, WhyStored, stored::Making,
};

/// Sun, 06 Nov 1994 08:49:37 GMT.
pub(crate) const NOW: u64 = 784_111_777;

pub(crate) type Lines<'a> = &'a [(&'a str, &'a str)];

pub(crate) fn fields(lines: Lines<'_>) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines {
        fields.append(*name, value).unwrap();
    }
    fields
}

pub(crate) fn times() -> Times {
    let now = Time::from_secs(NOW);
    Times {
        asked: now,
        answered: now,
    }
}

/// `seconds` after the response has come.
pub(crate) fn after(seconds: u64) -> Time {
    Time::from_secs(NOW + seconds)
}

pub(crate) fn request(policy: &Policy, method: &str, lines: Lines<'_>) -> RequestFacts {
    let asked = Asked {
        method,
        safe: matches!(method, "GET" | "HEAD"),
        has_body: false,
        fields: &fields(lines),
    };
    RequestFacts::of(policy, &asked)
}

/// A 200 with these fields as it would be stored, whether it may be or not.
pub(crate) fn stored_with(lines: Lines<'_>) -> (StoredFacts, Fields) {
    let fields = fields(lines);
    let response = ResponseFacts::of(200, &fields, false);
    let (lifetime, by) = crate::freshness::lifetime(&Policy::default(), &response, &times());
    let making = Making {
        times: times(),
        initial_age_ms: crate::freshness::initial_age_ms(&response, &times()),
        lifetime,
        by,
        why: WhyStored::Explicit,
        forced: false,
    };
    (StoredFacts::new(&response, &making), fields)
}

/// The fields as lines of text.
pub(crate) fn text(fields: &Fields) -> String {
    let mut wire = Vec::new();
    fields.write_to(&mut wire);
    String::from_utf8(wire).unwrap().replace("\r\n", "\n")
}
