//! What is told of what the cache did: `Cache-Status` (RFC 9211).

use forebay_cache_policy::{CacheStatus, Forward, Outcome, Time, WhyNot};

use super::stored::Kept;
use crate::exchange::Response;

/// Who tells it.
const NAME: &str = "forebay";

/// A response out of an object.
pub fn object(
    response: &mut Response,
    outcome: Outcome,
    object: &Kept,
    now: Time,
    detail: Option<&str>,
) {
    append(
        response,
        CacheStatus {
            cache: NAME,
            outcome,
            ttl: Some(object.meta.facts.ttl(now)),
            key: None,
            detail,
        },
    );
}

/// A response that is not stored.
pub fn unstored(response: &mut Response, why: Forward, not: WhyNot) {
    let outcome = Outcome::Forwarded {
        why,
        status: None,
        stored: false,
        collapsed: false,
    };
    plain(response, outcome, Some(not.token()));
}

/// A response that has nothing to do with an object.
pub fn plain(response: &mut Response, outcome: Outcome, detail: Option<&str>) {
    append(
        response,
        CacheStatus {
            cache: NAME,
            outcome,
            ttl: None,
            key: None,
            detail,
        },
    );
}

fn append(response: &mut Response, status: CacheStatus<'_>) {
    // A head that is full goes without.
    let _ = status.append_to(&mut response.fields);
}
