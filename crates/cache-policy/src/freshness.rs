//! Age and freshness lifetime (RFC 9111 §4.2).

use crate::policy::Policy;
use crate::reasons::LifetimeBy;
use crate::response::{Expires, ResponseFacts};
use crate::stored::Times;
use crate::time::clamp_seconds;

/// A heuristic lifetime is not longer than a day, however long nothing had changed: nobody has
/// said that it would stay so.
const MAX_HEURISTIC: u64 = 86_400;

/// `corrected_initial_age` in milliseconds (RFC 9111 §4.2.3). Where there is no `Date` that can be
/// read, it is the time of receipt (RFC 9110 §6.6.1), and one in the future makes nothing younger.
pub(crate) fn initial_age_ms(response: &ResponseFacts, times: &Times) -> u64 {
    let received = times.answered.as_secs();
    let apparent_age = received.saturating_sub(response.date.unwrap_or(received));
    let response_delay_ms = times.answered.millis_since(times.asked);
    let corrected_age_ms = u64::from(response.age) * 1000 + response_delay_ms;
    (u64::from(clamp_seconds(apparent_age)) * 1000).max(corrected_age_ms)
}

/// The configured ttl that counts instead of what the response states.
pub(crate) fn forced_ttl(policy: &Policy, response: &ResponseFacts) -> Option<u32> {
    policy.ttl.of(response.status).filter(|_| policy.force)
}

/// Whether the response states a freshness of its own (RFC 9111 §4.2.1).
pub(crate) fn is_stated(response: &ResponseFacts) -> bool {
    let said = &response.said;
    said.s_maxage.is_some()
        || said.max_age.is_some()
        // With a targeted field it counts as little as Cache-Control (RFC 9213 §2.2).
        || (!said.targeted && response.expires != Expires::Absent)
}

/// `freshness_lifetime` in seconds (RFC 9111 §4.2.1, §4.2.2), and where it comes from.
pub(crate) fn lifetime(
    policy: &Policy,
    response: &ResponseFacts,
    times: &Times,
) -> (u32, LifetimeBy) {
    // A configured ttl counts from receipt: the clocks and caches behind an origin are nothing
    // that whoever configures it thinks of.
    let from_receipt = |ttl: u32| {
        let age = initial_age_ms(response, times).div_ceil(1000);
        clamp_seconds(u64::from(ttl).saturating_add(age))
    };
    if let Some(ttl) = forced_ttl(policy, response) {
        return (from_receipt(ttl), LifetimeBy::Forced);
    }
    let said = &response.said;
    let by = |plain, targeted| if said.targeted { targeted } else { plain };
    if let Some(seconds) = said.s_maxage {
        return (
            seconds,
            by(LifetimeBy::SMaxAge, LifetimeBy::TargetedSMaxAge),
        );
    }
    if let Some(seconds) = said.max_age {
        return (seconds, by(LifetimeBy::MaxAge, LifetimeBy::TargetedMaxAge));
    }
    let date = response.date.unwrap_or(times.answered.as_secs());
    match response.expires {
        _ if said.targeted => {}
        Expires::Absent => {}
        Expires::Invalid => return (0, LifetimeBy::Expires),
        Expires::At(end) => {
            return (clamp_seconds(end.saturating_sub(date)), LifetimeBy::Expires);
        }
    }
    if let Some(ttl) = policy.ttl.of(response.status) {
        return (from_receipt(ttl), LifetimeBy::Operator);
    }
    match response.last_modified {
        Some(modified) if said.public || is_heuristic_status(response.status) => {
            let unchanged = date.saturating_sub(modified);
            (
                clamp_seconds((unchanged / 10).min(MAX_HEURISTIC)),
                LifetimeBy::Heuristic,
            )
        }
        _ => (0, LifetimeBy::Nothing),
    }
}

/// Whether a response with this status is cacheable by default (RFC 9110 §15.1, RFC 7725 §3).
pub(crate) fn is_heuristic_status(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 451 | 501
    )
}

#[cfg(test)]
mod tests {
    use forebay_fields::Fields;

    use super::*;
    use crate::policy::Ttl;
    use crate::time::{MAX_SECONDS, Time};

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: u64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const MINUTE_BEFORE: &str = "Sun, 06 Nov 1994 08:48:37 GMT";
    const MINUTE_LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";
    const HOUR_BEFORE: &str = "Sun, 06 Nov 1994 07:49:37 GMT";
    const YEAR_BEFORE: &str = "Sat, 06 Nov 1993 08:49:37 GMT";

    fn response(status: u16, lines: &[(&str, &str)]) -> ResponseFacts {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, value).unwrap();
        }
        ResponseFacts::of(status, &fields, false)
    }

    fn times(delay_ms: u64) -> Times {
        let answered = Time::from_secs(NOW);
        Times {
            asked: answered.minus_millis(delay_ms),
            answered,
        }
    }

    fn check_age(delay_ms: u64, lines: &[(&str, &str)], expected_ms: u64) {
        let age = initial_age_ms(&response(200, lines), &times(delay_ms));
        assert_eq!(age, expected_ms, "{lines:?}");
    }

    #[test]
    fn rfc9111_4_2_3_age() {
        check_age(0, &[], 0);
        check_age(1500, &[], 1500);
        check_age(1500, &[("Age", "10")], 11_500);
        check_age(0, &[("Date", MINUTE_BEFORE)], 60_000);
        // The larger of both, not their sum.
        check_age(500, &[("Date", MINUTE_BEFORE), ("Age", "10")], 60_000);
        check_age(500, &[("Date", MINUTE_BEFORE), ("Age", "60")], 60_500);
        check_age(
            0,
            &[("Age", "99999999999999999999")],
            u64::from(MAX_SECONDS) * 1000,
        );
    }

    #[test]
    fn rfc9111_4_2_3_a_date_that_is_missing_bad_or_in_the_future() {
        check_age(0, &[("Date", MINUTE_LATER)], 0);
        check_age(0, &[("Date", "yesterday")], 0);
        check_age(0, &[("Date", "Sun, 06 Nov 1994 08:48:37 PST")], 0);
        check_age(0, &[("Date", MINUTE_LATER), ("Age", "5")], 5000);
    }

    fn check_with(
        policy: &Policy,
        status: u16,
        lines: &[(&str, &str)],
        expected: (u32, LifetimeBy),
    ) {
        let got = lifetime(policy, &response(status, lines), &times(0));
        assert_eq!(got, expected, "{status} {lines:?}");
    }

    fn check(lines: &[(&str, &str)], seconds: u32, by: LifetimeBy) {
        let mut all = vec![("Date", DATE)];
        all.extend_from_slice(lines);
        check_with(&Policy::default(), 200, &all, (seconds, by));
    }

    #[test]
    fn rfc9111_4_2_1_order_of_lifetimes() {
        let expires = ("Expires", MINUTE_LATER);
        check(&[expires], 60, LifetimeBy::Expires);
        check(
            &[("Cache-Control", "max-age=7"), expires],
            7,
            LifetimeBy::MaxAge,
        );
        let both = ("Cache-Control", "max-age=7, s-maxage=8");
        check(&[both, expires], 8, LifetimeBy::SMaxAge);
        check(
            &[("Cache-Control", "max-age=7, s-maxage=x")],
            0,
            LifetimeBy::SMaxAge,
        );
    }

    #[test]
    fn rfc9213_2_2_targeted_lifetimes_go_first() {
        let others = [("Cache-Control", "s-maxage=8"), ("Expires", MINUTE_LATER)];
        let with = |targeted: &'static str| [others[0], others[1], ("CDN-Cache-Control", targeted)];
        check(&with("max-age=5"), 5, LifetimeBy::TargetedMaxAge);
        check(
            &with("max-age=5, s-maxage=6"),
            6,
            LifetimeBy::TargetedSMaxAge,
        );
        // A valid one without a lifetime: neither Cache-Control nor Expires gives one.
        check(&with("public"), 0, LifetimeBy::Nothing);
        check(&with("&"), 8, LifetimeBy::SMaxAge);
    }

    #[test]
    fn rfc9111_5_3_expires() {
        check(&[("Expires", DATE)], 0, LifetimeBy::Expires);
        check(&[("Expires", MINUTE_BEFORE)], 0, LifetimeBy::Expires);
        check(&[("Expires", "0")], 0, LifetimeBy::Expires);
        let far = "Fri, 31 Dec 9999 23:59:59 GMT";
        check(&[("Expires", far)], MAX_SECONDS, LifetimeBy::Expires);
        // The first of several.
        let two = [("Expires", MINUTE_LATER), ("Expires", "0")];
        check(&two, 60, LifetimeBy::Expires);
        // Relative to the origin's clock, or to ours where it shows none.
        let own = [("Date", MINUTE_BEFORE), ("Expires", MINUTE_LATER)];
        check_with(&Policy::default(), 200, &own, (120, LifetimeBy::Expires));
        let none = [("Expires", MINUTE_LATER)];
        check_with(&Policy::default(), 200, &none, (60, LifetimeBy::Expires));
    }

    #[test]
    fn rfc9111_4_2_2_heuristic_freshness() {
        check(
            &[("Last-Modified", HOUR_BEFORE)],
            360,
            LifetimeBy::Heuristic,
        );
        check(
            &[("Last-Modified", YEAR_BEFORE)],
            86_400,
            LifetimeBy::Heuristic,
        );
        check(&[("Last-Modified", MINUTE_LATER)], 0, LifetimeBy::Heuristic);
        check(&[("Last-Modified", "x")], 0, LifetimeBy::Nothing);
        let old = ("Last-Modified", HOUR_BEFORE);
        for (status, expected) in [
            (404, (360, LifetimeBy::Heuristic)),
            (302, (0, LifetimeBy::Nothing)),
            (500, (0, LifetimeBy::Nothing)),
        ] {
            check_with(&Policy::default(), status, &[old], expected);
        }
        let public = [old, ("Cache-Control", "public")];
        check_with(
            &Policy::default(),
            302,
            &public,
            (360, LifetimeBy::Heuristic),
        );
        // Not where a freshness is stated (RFC 9111 §4.2.2).
        check(
            &[old, ("Cache-Control", "max-age=0")],
            0,
            LifetimeBy::MaxAge,
        );
    }

    #[test]
    fn a_configured_ttl_is_for_what_states_none_and_counts_from_receipt() {
        let mut policy = Policy {
            ttl: Ttl::usual(100),
            ..Policy::default()
        };
        let old = ("Last-Modified", HOUR_BEFORE);
        check_with(&policy, 200, &[old], (100, LifetimeBy::Operator));
        check_with(&policy, 302, &[old], (0, LifetimeBy::Nothing));
        let stated = ("Cache-Control", "max-age=7");
        check_with(&policy, 200, &[stated], (7, LifetimeBy::MaxAge));
        let from_a_cache = [("Date", MINUTE_BEFORE), ("Age", "70")];
        check_with(&policy, 200, &from_a_cache, (170, LifetimeBy::Operator));
        policy.force = true;
        check_with(&policy, 200, &[stated], (100, LifetimeBy::Forced));
        check_with(&policy, 302, &[stated], (7, LifetimeBy::MaxAge));
    }
}
