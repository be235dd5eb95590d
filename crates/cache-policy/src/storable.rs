//! Whether a response is stored (RFC 9111 §3).

use crate::freshness::{forced_ttl, initial_age_ms, is_heuristic_status, is_stated, lifetime};
use crate::policy::Policy;
use crate::reasons::{LifetimeBy, WhyNot, WhyStored};
use crate::request::RequestFacts;
use crate::response::{Part, ResponseFacts};
use crate::stored::{Making, StoredFacts, Times};
use crate::vary::Vary;

/// Whether the response may be stored and is worth it; what is kept of it for decisions.
///
/// To be asked when the head has come, and again of the updated head after a 304. What is to be
/// stored of the fields: [`prepare_fields`](crate::prepare_fields).
///
/// # Errors
/// Why it is not stored.
pub fn storable(
    policy: &Policy,
    request: &RequestFacts,
    response: &ResponseFacts,
    times: &Times,
) -> Result<StoredFacts, WhyNot> {
    let forced = forced_ttl(policy, response);
    by_request_and_status(request, response)?;
    if forced.is_none() {
        by_directives(request, response)?;
    } else if request.authorization && !is_shareable(response) {
        // What a response states may be replaced, not what its request was.
        return Err(WhyNot::Authorization);
    }
    let why = allowed_by(policy, response, forced).ok_or(WhyNot::NotCacheable)?;
    let ttl = policy.ttl.of(response.status);
    if ttl == Some(0) && (forced.is_some() || !is_stated(response)) {
        return Err(WhyNot::ZeroTtl);
    }
    by_content(policy, request, response)?;
    let (lifetime, by) = lifetime(policy, response, times);
    let making = Making {
        times: *times,
        initial_age_ms: initial_age_ms(response, times),
        lifetime,
        by,
        why,
        forced: forced.is_some(),
    };
    let facts = StoredFacts::new(response, &making);
    if is_usable(policy, &facts) {
        Ok(facts)
    } else {
        Err(WhyNot::NeverUsable)
    }
}

impl Policy {
    /// Whether an object that was asked for `uses` times, now included, is stored: `min_uses`.
    ///
    /// # Errors
    /// [`WhyNot::TooFewUses`].
    pub fn used_enough(&self, uses: u32) -> Result<(), WhyNot> {
        if uses >= self.min_uses {
            Ok(())
        } else {
            Err(WhyNot::TooFewUses)
        }
    }
}

fn by_request_and_status(request: &RequestFacts, response: &ResponseFacts) -> Result<(), WhyNot> {
    let status = response.status;
    match status {
        _ if request.around().is_some() => Err(WhyNot::Around),
        _ if request.head => Err(WhyNot::Head),
        // 103 among them, and 101.
        0..200 => Err(WhyNot::NotFinal),
        304 => Err(WhyNot::NotModified),
        400.. if response.own => Err(WhyNot::Own),
        // RFC 6585 says of each of these that it must not be stored.
        428 | 429 | 431 | 511 => Err(WhyNot::ForbiddenStatus),
        _ if request.no_store => Err(WhyNot::RequestNoStore),
        _ => Ok(()),
    }
}

fn by_directives(request: &RequestFacts, response: &ResponseFacts) -> Result<(), WhyNot> {
    let said = &response.said;
    if said.must_understand {
        // Then no-store, which is for those who do not know the directive, does not count
        // (RFC 9111 §5.2.2.3).
        if !is_understood(response.status) {
            return Err(WhyNot::NotUnderstood);
        }
    } else if said.no_store {
        return Err(WhyNot::NoStore);
    }
    if said.private {
        return Err(WhyNot::Private);
    }
    if request.authorization && !is_shareable(response) {
        return Err(WhyNot::Authorization);
    }
    Ok(())
}

/// Whether what was asked for with credentials may be shared (RFC 9111 §3.5).
fn is_shareable(response: &ResponseFacts) -> bool {
    let said = &response.said;
    said.public || said.must_revalidate || said.s_maxage.is_some()
}

/// Whether we know all that caching a response with this status takes: the final ones of
/// RFC 9110 §15, and 451 (RFC 7725).
fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=206 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 451 | 500..=505
    )
}

fn allowed_by(policy: &Policy, response: &ResponseFacts, forced: Option<u32>) -> Option<WhyStored> {
    let said = &response.said;
    if forced.is_some() {
        Some(WhyStored::Forced)
    } else if is_stated(response) {
        Some(if said.targeted {
            WhyStored::Targeted
        } else {
            WhyStored::Explicit
        })
    } else if policy.ttl.of(response.status).is_some() {
        Some(WhyStored::Operator)
    } else if said.public {
        Some(WhyStored::Public)
    } else if is_heuristic_status(response.status) {
        Some(WhyStored::Heuristic)
    } else {
        None
    }
}

fn by_content(
    policy: &Policy,
    request: &RequestFacts,
    response: &ResponseFacts,
) -> Result<(), WhyNot> {
    let kept_out = |name: &[u8]| response.unstored().any(|unstored| unstored == name);
    if response.set_cookie
        && !policy.store_set_cookie
        && !policy.strip_cookies
        && !kept_out(b"set-cookie")
    {
        return Err(WhyNot::SetCookie);
    }
    match response.vary {
        Vary::Nothing | Vary::Names(_) => {}
        Vary::Star => return Err(WhyNot::VaryStar),
        Vary::TooLong => return Err(WhyNot::VaryTooLong),
    }
    let length = match &response.part {
        Part::Whole => response.length,
        Part::Multipart => return Err(WhyNot::Multipart),
        Part::Bad => return Err(WhyNot::BadRange),
        Part::Range(_) if !request.get => return Err(WhyNot::PartialMethod),
        Part::Range(part) => Some(part.complete.unwrap_or(part.range.end)),
    };
    if length.is_some_and(|len| len > policy.max_object) {
        return Err(WhyNot::TooLarge);
    }
    Ok(())
}

/// Whether it will ever answer anything: it is fresh for some time, or can be validated, or may be
/// used stale. Storing anything else would only make others wait for it.
fn is_usable(policy: &Policy, facts: &StoredFacts) -> bool {
    if facts.has_validator() {
        return true;
    }
    let age_ms = facts.age_ms(facts.answered());
    let Some(stale_ms) = age_ms.checked_sub(facts.lifetime_ms()) else {
        return !facts.no_cache();
    };
    let allowed = |own: Option<u32>, said: Option<u32>| {
        let seconds = own.or(said).unwrap_or(0);
        stale_ms < u64::from(seconds) * 1000
    };
    // What never was fresh does not become stale: see `reuse`.
    let never_fresh = facts.lifetime_by() == LifetimeBy::Nothing;
    let forbidden = facts.no_cache() || facts.must_revalidate() || facts.proxy_revalidate();
    let while_revalidate = (
        policy.stale_while_revalidate,
        facts.stale_while_revalidate(),
    );
    let if_error = (policy.stale_if_error, facts.stale_if_error());
    !never_fresh
        && !forbidden
        && (allowed(while_revalidate.0, while_revalidate.1) || allowed(if_error.0, if_error.1))
}

#[cfg(test)]
mod tests {
    use forebay_fields::Fields;

    use super::*;
    use crate::policy::Ttl;
    use crate::request::Asked;
    use crate::time::Time;

    const TIMES: Times = Times {
        asked: Time::from_secs(784_111_777),
        answered: Time::from_secs(784_111_777),
    };

    type Lines<'a> = &'a [(&'a str, &'a str)];

    fn fields(lines: Lines<'_>) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, value).unwrap();
        }
        fields
    }

    /// A case: what it differs in from a GET that is answered with 200.
    struct Case<'a> {
        policy: Policy,
        method: &'a str,
        request: Lines<'a>,
        status: u16,
        own: bool,
    }

    impl Default for Case<'_> {
        fn default() -> Self {
            Self {
                policy: Policy::default(),
                method: "GET",
                request: &[],
                status: 200,
                own: false,
            }
        }
    }

    impl Case<'_> {
        fn check(&self, response: Lines<'_>, expected: Result<WhyStored, WhyNot>) {
            let (asked, answer) = (fields(self.request), fields(response));
            let asked = Asked {
                method: self.method,
                safe: false,
                has_body: false,
                fields: &asked,
            };
            let request = RequestFacts::of(&self.policy, &asked);
            let facts = ResponseFacts::of(self.status, &answer, self.own);
            let got = storable(&self.policy, &request, &facts, &TIMES);
            let got = got.map(|stored| stored.why_stored());
            assert_eq!(got, expected, "{} {response:?}", self.status);
        }
    }

    fn check(response: Lines<'_>, expected: Result<WhyStored, WhyNot>) {
        Case::default().check(response, expected);
    }

    fn check_status(status: u16, response: Lines<'_>, expected: Result<WhyStored, WhyNot>) {
        let case = Case {
            status,
            ..Case::default()
        };
        case.check(response, expected);
    }

    const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");
    const STORED: Result<WhyStored, WhyNot> = Ok(WhyStored::Explicit);

    #[test]
    fn rfc9111_3_what_states_its_freshness_is_stored_with_any_final_status() {
        for status in [200, 201, 204, 302, 307, 403, 404, 500, 503, 599, 299] {
            check_status(status, &[FRESH], STORED);
        }
        let expires = ("Expires", "Sun, 06 Nov 1994 09:49:37 GMT");
        check_status(302, &[expires], STORED);
        check_status(302, &[("Cache-Control", "s-maxage=5")], STORED);
    }

    #[test]
    fn rfc9111_3_responses_that_are_not_final() {
        for status in [100, 101, 102, 103, 199] {
            check_status(status, &[FRESH], Err(WhyNot::NotFinal));
        }
        check_status(304, &[FRESH], Err(WhyNot::NotModified));
    }

    #[test]
    fn rfc9111_3_methods() {
        for (method, expected) in [
            ("GET", STORED),
            ("HEAD", Err(WhyNot::Head)),
            ("POST", Err(WhyNot::Around)),
            ("OPTIONS", Err(WhyNot::Around)),
        ] {
            let case = Case {
                method,
                ..Case::default()
            };
            case.check(&[FRESH], expected);
        }
    }

    #[test]
    fn rfc9110_15_1_statuses_that_are_cacheable_by_default() {
        let tagged = ("ETag", "\"a\"");
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501] {
            check_status(status, &[tagged], Ok(WhyStored::Heuristic));
        }
        for status in [
            201, 202, 302, 303, 307, 400, 401, 403, 421, 425, 500, 502, 503,
        ] {
            check_status(status, &[tagged], Err(WhyNot::NotCacheable));
            let public = [tagged, ("Cache-Control", "public")];
            check_status(status, &public, Ok(WhyStored::Public));
        }
    }

    #[test]
    fn rfc6585_statuses_that_are_never_stored() {
        for status in [428, 429, 431, 511] {
            check_status(status, &[FRESH], Err(WhyNot::ForbiddenStatus));
        }
    }

    #[test]
    fn own_errors_are_never_stored() {
        for (status, expected) in [
            (404, Err(WhyNot::Own)),
            (502, Err(WhyNot::Own)),
            (200, STORED),
        ] {
            let case = Case {
                status,
                own: true,
                ..Case::default()
            };
            case.check(&[FRESH], expected);
        }
    }

    #[test]
    fn rfc9111_5_2_2_5_no_store() {
        check(
            &[("Cache-Control", "max-age=60, no-store")],
            Err(WhyNot::NoStore),
        );
        check(&[("Cache-Control", "NO-STORE=\"x\"")], Err(WhyNot::NoStore));
        check(
            &[("Cache-Control", "public, no-store")],
            Err(WhyNot::NoStore),
        );
        check(&[FRESH, ("Pragma", "no-cache")], STORED);
    }

    #[test]
    fn rfc9111_5_2_1_5_no_store_in_the_request() {
        let case = Case {
            request: &[("Cache-Control", "no-store")],
            ..Case::default()
        };
        case.check(&[FRESH], Err(WhyNot::RequestNoStore));
    }

    #[test]
    fn rfc9111_5_2_2_7_private() {
        check(
            &[("Cache-Control", "max-age=60, private")],
            Err(WhyNot::Private),
        );
        check(
            &[("Cache-Control", "max-age=60, private=\"x-user\"")],
            STORED,
        );
    }

    #[test]
    fn rfc9111_5_2_2_3_must_understand() {
        let both = ("Cache-Control", "max-age=60, must-understand, no-store");
        check(&[both], STORED);
        check_status(599, &[both], Err(WhyNot::NotUnderstood));
        check_status(
            425,
            &[("Cache-Control", "max-age=60, must-understand")],
            Err(WhyNot::NotUnderstood),
        );
    }

    #[test]
    fn rfc9111_3_5_authorization() {
        let case = Case {
            request: &[("Authorization", "Basic eA==")],
            ..Case::default()
        };
        case.check(&[FRESH], Err(WhyNot::Authorization));
        for allowed in [
            "max-age=60, public",
            "s-maxage=60",
            "max-age=60, must-revalidate",
        ] {
            case.check(&[("Cache-Control", allowed)], STORED);
        }
        for not in ["max-age=60, proxy-revalidate", "max-age=60, immutable"] {
            case.check(&[("Cache-Control", not)], Err(WhyNot::Authorization));
        }
    }

    #[test]
    fn rfc9213_2_2_the_targeted_field_decides_alone() {
        let with = |own, targeted| [("Cache-Control", own), ("CDN-Cache-Control", targeted)];
        check(&with("no-store", "max-age=5"), Ok(WhyStored::Targeted));
        check(&with("max-age=5", "no-store"), Err(WhyNot::NoStore));
        check(&with("private", "max-age=5"), Ok(WhyStored::Targeted));
        check(&with("no-store", "Max-Age=5"), Err(WhyNot::NoStore));
        check(&with("max-age=5", ""), STORED);
    }

    #[test]
    fn set_cookie_is_refused_unless_it_is_configured_or_not_kept() {
        let cookie = ("Set-Cookie", "a=b");
        check(&[FRESH, cookie], Err(WhyNot::SetCookie));
        for kept_out in ["no-cache=\"set-cookie\"", "private=\"Set-Cookie\""] {
            let control = format!("max-age=60, {kept_out}");
            check(&[("Cache-Control", &control), cookie], STORED);
        }
        for (store_set_cookie, strip_cookies) in [(true, false), (false, true)] {
            let case = Case {
                policy: Policy {
                    store_set_cookie,
                    strip_cookies,
                    ..Policy::default()
                },
                ..Case::default()
            };
            case.check(&[FRESH, cookie], STORED);
        }
    }

    #[test]
    fn rfc9111_4_1_vary_star() {
        check(&[FRESH, ("Vary", "a, *")], Err(WhyNot::VaryStar));
        check(&[FRESH, ("Vary", "a, b")], STORED);
        let long = "a,".repeat(2) + &"b".repeat(600);
        check(&[FRESH, ("Vary", &long)], Err(WhyNot::VaryTooLong));
    }

    #[test]
    fn rfc9111_3_3_parts() {
        let part = |value| [FRESH, ("Content-Range", value)];
        check_status(206, &part("bytes 0-9/20"), STORED);
        check_status(206, &part("bytes 0-9/*"), STORED);
        check_status(206, &part("bytes 0-9/5"), Err(WhyNot::BadRange));
        check_status(206, &[FRESH], Err(WhyNot::BadRange));
        let several = [FRESH, ("Content-Type", "multipart/byteranges; boundary=x")];
        check_status(206, &several, Err(WhyNot::Multipart));
        let post = Case {
            method: "POST",
            status: 206,
            policy: Policy {
                methods: vec!["POST".into()],
                ..Policy::default()
            },
            ..Case::default()
        };
        post.check(&part("bytes 0-9/20"), Err(WhyNot::PartialMethod));
    }

    #[test]
    fn max_object_counts_the_whole_of_a_part() {
        let case = |status| Case {
            status,
            policy: Policy {
                max_object: 100,
                ..Policy::default()
            },
            ..Case::default()
        };
        case(200).check(&[FRESH, ("Content-Length", "100")], STORED);
        case(200).check(&[FRESH, ("Content-Length", "101")], Err(WhyNot::TooLarge));
        let part = |value| [FRESH, ("Content-Length", "10"), ("Content-Range", value)];
        case(206).check(&part("bytes 0-9/100"), STORED);
        case(206).check(&part("bytes 0-9/101"), Err(WhyNot::TooLarge));
        case(206).check(&part("bytes 95-104/*"), Err(WhyNot::TooLarge));
    }

    #[test]
    fn configured_ttl_and_force() {
        let mut ttl = Ttl::usual(60);
        ttl.set(302, 5);
        ttl.set(404, 0);
        let case = |status, force| Case {
            status,
            policy: Policy {
                ttl: ttl.clone(),
                force,
                ..Policy::default()
            },
            ..Case::default()
        };
        case(200, false).check(&[], Ok(WhyStored::Operator));
        case(302, false).check(&[], Ok(WhyStored::Operator));
        case(307, false).check(&[], Err(WhyNot::NotCacheable));
        case(404, false).check(&[], Err(WhyNot::ZeroTtl));
        case(404, false).check(&[FRESH], STORED);
        case(404, true).check(&[FRESH], Err(WhyNot::ZeroTtl));
        let private = ("Cache-Control", "private, no-store, no-cache, max-age=0");
        case(200, false).check(&[private], Err(WhyNot::NoStore));
        case(200, true).check(&[private], Ok(WhyStored::Forced));
        case(307, true).check(&[private], Err(WhyNot::NoStore));
        // It replaces what the response says, not what else holds.
        case(200, true).check(&[private, ("Set-Cookie", "a=b")], Err(WhyNot::SetCookie));
        case(200, true).check(&[private, ("Vary", "*")], Err(WhyNot::VaryStar));
        let authorized = Case {
            request: &[("Authorization", "Basic eA==")],
            ..case(200, true)
        };
        authorized.check(&[private], Err(WhyNot::Authorization));
    }

    #[test]
    fn rfc9111_4_2_what_could_never_be_used_is_not_stored() {
        check(&[], Err(WhyNot::NeverUsable));
        check(&[("Cache-Control", "max-age=0")], Err(WhyNot::NeverUsable));
        check(
            &[("Cache-Control", "max-age=60, no-cache")],
            Err(WhyNot::NeverUsable),
        );
        check(&[FRESH, ("Age", "60")], Err(WhyNot::NeverUsable));
        check(&[("Expires", "0")], Err(WhyNot::NeverUsable));
        for validator in [
            ("ETag", "W/\"a\""),
            ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            check(
                &[("Cache-Control", "no-cache, max-age=0"), validator],
                STORED,
            );
        }
        check(
            &[("Cache-Control", "max-age=0, stale-while-revalidate=5")],
            STORED,
        );
        check(&[("Cache-Control", "max-age=0, stale-if-error=5")], STORED);
        let late = [
            ("Cache-Control", "max-age=0, stale-if-error=5"),
            ("Age", "5"),
        ];
        check(&late, Err(WhyNot::NeverUsable));
        let must = "max-age=0, stale-if-error=5, must-revalidate";
        check(&[("Cache-Control", must)], Err(WhyNot::NeverUsable));
    }

    #[test]
    fn rfc9111_4_the_most_recent_is_the_one_with_the_latest_date() {
        let stored = |date: &str, answered: u64| {
            let response = fields(&[FRESH, ("Date", date)]);
            let facts = ResponseFacts::of(200, &response, false);
            let policy = Policy::default();
            let request = crate::testing::request(&policy, "GET", &[]);
            let at = Time::from_secs(answered);
            let times = Times {
                asked: at,
                answered: at,
            };
            storable(&policy, &request, &facts, &times)
                .unwrap()
                .recency()
        };
        let (early, late) = (
            "Sun, 06 Nov 1994 08:49:36 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
        );
        let now = TIMES.answered.as_secs();
        assert!(stored(late, now) > stored(early, now + 5));
        assert!(stored(late, now + 1) > stored(late, now));
    }

    #[test]
    fn min_uses() {
        let policy = Policy {
            min_uses: 2,
            ..Policy::default()
        };
        assert_eq!(policy.used_enough(1), Err(WhyNot::TooFewUses));
        assert_eq!(policy.used_enough(2), Ok(()));
    }

    #[test]
    fn rfc9111_4_2_3_age_of_what_is_stored() {
        let response = fields(&[FRESH, ("Age", "10")]);
        let facts = ResponseFacts::of(200, &response, false);
        let asked = Asked {
            method: "GET",
            safe: true,
            has_body: false,
            fields: &Fields::new(),
        };
        let policy = Policy::default();
        let request = RequestFacts::of(&policy, &asked);
        let stored = storable(&policy, &request, &facts, &TIMES).unwrap();
        let at = |seconds| Time::from_secs(TIMES.answered.as_secs() + seconds);
        assert_eq!((stored.age(at(0)), stored.ttl(at(0))), (10, 50));
        assert_eq!((stored.age(at(49)), stored.ttl(at(49))), (59, 1));
        assert!(stored.is_fresh(at(49)) && !stored.is_fresh(at(50)));
        assert_eq!(stored.ttl(Time::from_millis(at(50).as_millis() + 1)), -1);
        assert_eq!(stored.fresh_until(), at(50));
        // A clock that was set back.
        assert_eq!(stored.age(Time::default()), 0);
        let soft = stored.stale_from(at(20));
        assert!(soft.is_fresh(at(19)) && !soft.is_fresh(at(20)));
        assert_eq!(stored.stale_from(at(90)), stored);
    }

    #[test]
    fn rfc9111_1_2_2_the_oldest_age_is_never_fresh() {
        let response = fields(&[
            ("Cache-Control", "max-age=99999999999"),
            ("Age", "99999999999"),
        ]);
        let facts = ResponseFacts::of(200, &response, false);
        let initial = initial_age_ms(&facts, &TIMES);
        let making = Making {
            times: TIMES,
            initial_age_ms: initial,
            lifetime: lifetime(&Policy::default(), &facts, &TIMES).0,
            by: LifetimeBy::MaxAge,
            why: WhyStored::Explicit,
            forced: false,
        };
        let stored = StoredFacts::new(&facts, &making);
        assert!(!stored.is_fresh(TIMES.answered));
        assert_eq!(stored.age(TIMES.answered), crate::time::MAX_SECONDS);
    }
}
