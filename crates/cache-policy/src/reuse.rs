//! Whether a stored response answers a request (RFC 9111 §4, RFC 5861).
//!
//! ```text
//!              fresh, and fresh enough for the request ─────────────▶ Fresh
//!             ╱
//!  stored ───● else, origin not asked yet
//!             ╲   ├─ may be used stale ─────────────────────────────▶ Stale
//!              ╲  ├─ only-if-cached ────────────────────────────────▶ OnlyIfCached (504)
//!               ╲ └─ else ──────────────────────────────────────────▶ Validate
//!                ╲ else, origin has failed
//!                 ├─ may be used although it has ───────────────────▶ Stale
//!                 └─ else ──────────────────────────────────────────▶ Forbidden
//! ```

use crate::policy::Policy;
use crate::reasons::{LifetimeBy, WhyForbidden, WhyStale, WhyValidate};
use crate::request::RequestFacts;
use crate::stored::StoredFacts;
use crate::time::{MAX_SECONDS, Time};

/// What is known of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was not asked yet, and may be.
    Unasked,
    /// It has answered 500, 502, 503 or 504, or something that is no HTTP (RFC 5861 §4).
    Error,
    /// It could not be reached, has not answered in time, or is known to be down.
    Disconnected,
}

/// What a stored response is looked at under.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Time,
    /// The origin.
    pub origin: Origin,
    /// Whether the response was made invalid (RFC 9111 §4.4).
    pub invalidated: bool,
}

impl Moment {
    /// The usual one.
    #[must_use]
    pub fn at(now: Time) -> Self {
        Self {
            now,
            origin: Origin::Unasked,
            invalidated: false,
        }
    }
}

/// What is to be done with a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It is the answer.
    Fresh,
    /// It is the answer, although it is stale. With [`WhyStale::validate_in_background`] a
    /// validation is started, if none is under way.
    Stale(WhyStale),
    /// The origin is asked first, with the conditions that the stored response allows
    /// ([`make_conditional`](crate::make_conditional)); then ask again with what came of it.
    Validate(WhyValidate),
    /// It is not used although the origin has failed: the answer is the origin's error, or 504
    /// where there is none (RFC 9111 §5.2.2.2).
    Forbidden(WhyForbidden),
    /// The answer is 504: the request wants nothing that would have to be asked for
    /// (RFC 9111 §5.2.1.7).
    OnlyIfCached(WhyValidate),
}

/// Decides what a stored response is to a request that it was selected for, by key and by `Vary`.
///
/// A plain hit costs a handful of comparisons.
#[inline]
#[must_use]
pub fn reuse(
    policy: &Policy,
    request: &RequestFacts,
    stored: &StoredFacts,
    moment: &Moment,
) -> Reuse {
    let usable = request.plain & !stored.no_cache() & !moment.invalidated;
    if usable && stored.is_fresh(moment.now) {
        return Reuse::Fresh;
    }
    unusual(policy, request, stored, moment)
}

#[cold]
fn unusual(
    policy: &Policy,
    request: &RequestFacts,
    stored: &StoredFacts,
    moment: &Moment,
) -> Reuse {
    let age_ms = stored.age_ms(moment.now);
    let Some(why) = why_validate(request, stored, age_ms, moment.invalidated) else {
        return Reuse::Fresh;
    };
    // How long it has been stale; `None` while it is fresh.
    let stale_ms = age_ms.checked_sub(stored.lifetime_ms());
    if moment.origin != Origin::Unasked {
        return after_failure(policy, request, stored, moment, why, stale_ms);
    }
    match stale_ms.and_then(|stale_ms| stale_before(policy, request, stored, why, stale_ms)) {
        Some(allowed) => Reuse::Stale(allowed),
        None if request.only_if_cached => Reuse::OnlyIfCached(why),
        None => Reuse::Validate(why),
    }
}

/// Why it is not used as it is; `None` if it may be.
fn why_validate(
    request: &RequestFacts,
    stored: &StoredFacts,
    age_ms: u64,
    invalidated: bool,
) -> Option<WhyValidate> {
    let ms = |seconds: u32| u64::from(seconds) * 1000;
    // Age as the client would see it: 5.9 s is not older than 5.
    let age_s = age_ms / 1000;
    if invalidated {
        Some(WhyValidate::Invalidated)
    } else if stored.no_cache() {
        Some(WhyValidate::NoCache)
    } else if request.no_cache {
        Some(WhyValidate::RequestNoCache)
    } else if request
        .max_age
        .is_some_and(|max| age_s > u64::from(max) || max == 0)
    {
        Some(WhyValidate::RequestMaxAge)
    } else if age_ms >= stored.lifetime_ms() {
        Some(WhyValidate::Stale)
    } else if request
        .min_fresh
        .is_some_and(|min| age_ms.saturating_add(ms(min)) > stored.lifetime_ms())
    {
        Some(WhyValidate::RequestMinFresh)
    } else {
        None
    }
}

/// What allows to use it stale without having asked the origin.
fn stale_before(
    policy: &Policy,
    request: &RequestFacts,
    stored: &StoredFacts,
    why: WhyValidate,
    stale_ms: u64,
) -> Option<WhyStale> {
    // Who asks for freshness does not get what is stale.
    if why != WhyValidate::Stale || request.min_fresh.is_some() || must_ask(stored).is_some() {
        return None;
    }
    // By itself, s-maxage forbids what it does not state the length of (RFC 9111 §5.2.2.10).
    if accepts_stale(request, stale_ms) && !stored.has_s_maxage() {
        return Some(WhyStale::MaxStale);
    }
    // Without max-stale, max-age means "and not stale" (RFC 9111 §5.2.1.1).
    if request.max_age.is_some() {
        return None;
    }
    within(stale_ms, while_revalidate(policy, stored)).then_some(WhyStale::WhileRevalidate)
}

fn after_failure(
    policy: &Policy,
    request: &RequestFacts,
    stored: &StoredFacts,
    moment: &Moment,
    why: WhyValidate,
    stale_ms: Option<u64>,
) -> Reuse {
    match why {
        WhyValidate::Invalidated => return Reuse::Forbidden(WhyForbidden::Invalidated),
        WhyValidate::NoCache => return Reuse::Forbidden(WhyForbidden::NoCache),
        WhyValidate::RequestNoCache => return Reuse::Forbidden(WhyForbidden::RequestNoCache),
        // What remains is advice (RFC 9111 §5.2.1), and better followed than an error.
        WhyValidate::Stale | WhyValidate::RequestMaxAge | WhyValidate::RequestMinFresh => {}
    }
    let Some(stale_ms) = stale_ms else {
        return Reuse::Fresh;
    };
    if let Some(forbidden) = must_ask(stored) {
        return Reuse::Forbidden(forbidden);
    }
    let stated = stored.stale_if_error().max(request.stale_if_error);
    let if_error = policy.stale_if_error.or(stated);
    if within(stale_ms, if_error.max(while_revalidate(policy, stored))) {
        return Reuse::Stale(WhyStale::IfError);
    }
    // What follows is not said by the operator, nor by the response.
    if stored.has_s_maxage() {
        return Reuse::Forbidden(WhyForbidden::SMaxAge);
    }
    if accepts_stale(request, stale_ms) {
        return Reuse::Stale(WhyStale::MaxStale);
    }
    let unreachable = moment.origin == Origin::Disconnected && if_error.is_none();
    if unreachable && within(stale_ms, Some(policy.stale_if_disconnected)) {
        return Reuse::Stale(WhyStale::Disconnected);
    }
    Reuse::Forbidden(WhyForbidden::TooStale)
}

/// What forbids to use it stale in so many words, whatever else is said or configured
/// (RFC 9111 §4.2.4).
fn must_ask(stored: &StoredFacts) -> Option<WhyForbidden> {
    if stored.must_revalidate() {
        Some(WhyForbidden::MustRevalidate)
    } else if stored.proxy_revalidate() {
        Some(WhyForbidden::ProxyRevalidate)
    } else {
        None
    }
}

/// Seconds for which it may be used stale while it is validated. Not where nothing ever said that
/// it was fresh: then it has no age at which it became stale.
fn while_revalidate(policy: &Policy, stored: &StoredFacts) -> Option<u32> {
    if stored.lifetime_by() == LifetimeBy::Nothing {
        return None;
    }
    policy
        .stale_while_revalidate
        .or(stored.stale_while_revalidate())
}

fn accepts_stale(request: &RequestFacts, stale_ms: u64) -> bool {
    match request.max_stale {
        None => false,
        Some(MAX_SECONDS) => true,
        Some(seconds) => stale_ms / 1000 <= u64::from(seconds),
    }
}

fn within(stale_ms: u64, seconds: Option<u32>) -> bool {
    seconds.is_some_and(|seconds| stale_ms < u64::from(seconds) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lines, after, request, stored_with};

    struct Case<'a> {
        policy: Policy,
        request: Lines<'a>,
        response: &'a str,
        origin: Origin,
        invalidated: bool,
    }

    /// A response with this `Cache-Control` that came now.
    fn case(response: &str) -> Case<'_> {
        Case {
            policy: Policy::default(),
            request: &[],
            response,
            origin: Origin::Unasked,
            invalidated: false,
        }
    }

    impl<'a> Case<'a> {
        fn asked(mut self, request: Lines<'a>) -> Self {
            self.request = request;
            self
        }

        fn with(mut self, origin: Origin) -> Self {
            self.origin = origin;
            self
        }

        fn configured(mut self, change: impl Fn(&mut Policy)) -> Self {
            change(&mut self.policy);
            self
        }

        fn check(&self, age: u64, expected: Reuse) -> &Self {
            let (stored, _) = stored_with(&[("Cache-Control", self.response)]);
            let request = request(&self.policy, "GET", self.request);
            let moment = Moment {
                now: after(age),
                origin: self.origin,
                invalidated: self.invalidated,
            };
            let got = reuse(&self.policy, &request, &stored, &moment);
            assert_eq!(
                got, expected,
                "{} {:?} at {age} s",
                self.response, self.request
            );
            self
        }
    }

    const STALE: Reuse = Reuse::Validate(WhyValidate::Stale);
    const SWR: Reuse = Reuse::Stale(WhyStale::WhileRevalidate);
    const IF_ERROR: Reuse = Reuse::Stale(WhyStale::IfError);
    const TOO_STALE: Reuse = Reuse::Forbidden(WhyForbidden::TooStale);

    #[test]
    fn rfc9111_4_2_fresh_until_its_lifetime_is_over() {
        case("max-age=60")
            .check(0, Reuse::Fresh)
            .check(59, Reuse::Fresh)
            .check(60, STALE)
            .check(1 << 40, STALE);
    }

    #[test]
    fn rfc9111_5_2_2_4_no_cache() {
        let no_cache = Reuse::Validate(WhyValidate::NoCache);
        case("max-age=60, no-cache").check(0, no_cache);
        case("max-age=60, no-cache, stale-while-revalidate=60").check(60, no_cache);
        case("max-age=60, no-cache")
            .with(Origin::Disconnected)
            .check(0, Reuse::Forbidden(WhyForbidden::NoCache));
        case("max-age=60, no-cache=\"x-a\"").check(0, Reuse::Fresh);
    }

    #[test]
    fn rfc9111_5_2_1_4_no_cache_in_the_request() {
        let lines = [
            [("Cache-Control", "no-cache")],
            [("Pragma", "no-cache")],
            [("Cache-Control", "max-stale, no-cache")],
        ];
        for line in &lines {
            case("max-age=60")
                .asked(line)
                .check(0, Reuse::Validate(WhyValidate::RequestNoCache))
                .check(90, Reuse::Validate(WhyValidate::RequestNoCache));
            case("max-age=60")
                .asked(line)
                .with(Origin::Error)
                .check(0, Reuse::Forbidden(WhyForbidden::RequestNoCache));
        }
    }

    #[test]
    fn rfc9111_5_2_1_1_max_age_of_the_request() {
        let older = Reuse::Validate(WhyValidate::RequestMaxAge);
        case("max-age=60")
            .asked(&[("Cache-Control", "max-age=10")])
            .check(10, Reuse::Fresh)
            .check(11, older);
        case("max-age=60")
            .asked(&[("Cache-Control", "max-age=0")])
            .check(0, older);
        // Without max-stale it means "and not stale".
        case("max-age=5, stale-while-revalidate=60")
            .asked(&[("Cache-Control", "max-age=100")])
            .check(6, STALE);
        case("max-age=5")
            .asked(&[("Cache-Control", "max-age=100, max-stale=10")])
            .check(6, Reuse::Stale(WhyStale::MaxStale))
            .check(101, older);
    }

    #[test]
    fn rfc9111_5_2_1_2_max_stale() {
        let allowed = Reuse::Stale(WhyStale::MaxStale);
        case("max-age=60")
            .asked(&[("Cache-Control", "max-stale=10")])
            .check(59, Reuse::Fresh)
            .check(70, allowed)
            .check(71, STALE);
        case("max-age=60")
            .asked(&[("Cache-Control", "max-stale")])
            .check(1 << 33, allowed);
        for forbids in ["must-revalidate", "proxy-revalidate", "s-maxage=60"] {
            case(&format!("max-age=60, {forbids}"))
                .asked(&[("Cache-Control", "max-stale")])
                .check(61, STALE);
        }
    }

    #[test]
    fn rfc9111_5_2_1_3_min_fresh() {
        case("max-age=60, stale-while-revalidate=9")
            .asked(&[("Cache-Control", "min-fresh=10")])
            .check(50, Reuse::Fresh)
            .check(51, Reuse::Validate(WhyValidate::RequestMinFresh))
            .check(60, STALE);
    }

    #[test]
    fn rfc9111_5_2_1_7_only_if_cached() {
        let only = [("Cache-Control", "only-if-cached")];
        case("max-age=60")
            .asked(&only)
            .check(0, Reuse::Fresh)
            .check(60, Reuse::OnlyIfCached(WhyValidate::Stale));
        case("max-age=60, stale-while-revalidate=5")
            .asked(&only)
            .check(60, SWR);
        case("max-age=60, no-cache")
            .asked(&only)
            .check(0, Reuse::OnlyIfCached(WhyValidate::NoCache));
    }

    #[test]
    fn rfc5861_3_stale_while_revalidate() {
        case("max-age=60, stale-while-revalidate=10")
            .check(60, SWR)
            .check(69, SWR)
            .check(70, STALE);
        assert!(WhyStale::WhileRevalidate.validate_in_background());
        assert!(!WhyStale::MaxStale.validate_in_background());
        // Stated beside s-maxage it is meant; must-revalidate is against it.
        case("s-maxage=60, stale-while-revalidate=10").check(60, SWR);
        case("max-age=60, stale-while-revalidate=10, must-revalidate").check(60, STALE);
        case("max-age=60, stale-while-revalidate=10, proxy-revalidate").check(60, STALE);
    }

    #[test]
    fn the_operators_stale_times_replace_the_responses() {
        let swr =
            |seconds| move |policy: &mut Policy| policy.stale_while_revalidate = Some(seconds);
        case("max-age=60")
            .configured(swr(10))
            .check(69, SWR)
            .check(70, STALE);
        case("max-age=60, stale-while-revalidate=10")
            .configured(swr(0))
            .check(60, STALE);
        case("s-maxage=60").configured(swr(10)).check(60, SWR);
        case("max-age=60, must-revalidate")
            .configured(swr(10))
            .check(60, STALE);
        // Not for what never was fresh.
        case("public").configured(swr(10)).check(0, STALE);
        case("max-age=0").configured(swr(10)).check(0, SWR);
        let error = |seconds| move |policy: &mut Policy| policy.stale_if_error = Some(seconds);
        case("max-age=60")
            .configured(error(10))
            .with(Origin::Error)
            .check(69, IF_ERROR)
            .check(70, TOO_STALE);
        case("max-age=60, stale-if-error=10")
            .configured(error(0))
            .with(Origin::Disconnected)
            .check(60, TOO_STALE);
    }

    #[test]
    fn rfc5861_4_stale_if_error() {
        for origin in [Origin::Error, Origin::Disconnected] {
            case("max-age=60, stale-if-error=10")
                .with(origin)
                .check(69, IF_ERROR)
                .check(70, TOO_STALE);
            case("max-age=60")
                .asked(&[("Cache-Control", "stale-if-error=5")])
                .with(origin)
                .check(64, IF_ERROR)
                .check(65, TOO_STALE);
            case("s-maxage=60, stale-if-error=10")
                .with(origin)
                .check(60, IF_ERROR)
                .check(70, Reuse::Forbidden(WhyForbidden::SMaxAge));
        }
        // Before the origin was asked it allows nothing.
        case("max-age=60, stale-if-error=10").check(60, STALE);
        case("max-age=60").with(Origin::Error).check(60, TOO_STALE);
    }

    #[test]
    fn rfc9111_4_2_4_disconnected() {
        case("max-age=60")
            .with(Origin::Disconnected)
            .check(60, Reuse::Stale(WhyStale::Disconnected))
            .check(60 + 86_400, TOO_STALE);
        case("max-age=60, s-maxage=60")
            .with(Origin::Disconnected)
            .check(60, Reuse::Forbidden(WhyForbidden::SMaxAge));
    }

    #[test]
    fn rfc9111_5_2_2_2_must_revalidate_is_never_served_stale() {
        for origin in [Origin::Error, Origin::Disconnected] {
            for (directive, why) in [
                ("must-revalidate", WhyForbidden::MustRevalidate),
                ("proxy-revalidate", WhyForbidden::ProxyRevalidate),
            ] {
                case(&format!("max-age=60, stale-if-error=10, {directive}"))
                    .asked(&[("Cache-Control", "max-stale, stale-if-error=9")])
                    .configured(|policy| policy.stale_if_error = Some(60))
                    .with(origin)
                    .check(60, Reuse::Forbidden(why))
                    .check(59, Reuse::Fresh);
            }
        }
    }

    #[test]
    fn what_is_fresh_answers_when_the_origin_has_failed() {
        for wish in ["max-age=0", "min-fresh=100"] {
            case("max-age=60")
                .asked(&[("Cache-Control", wish)])
                .with(Origin::Disconnected)
                .check(59, Reuse::Fresh);
        }
    }

    #[test]
    fn rfc9111_4_4_what_is_invalid_is_validated_first() {
        let mut invalid = case("max-age=60, stale-while-revalidate=60");
        invalid.invalidated = true;
        invalid.check(0, Reuse::Validate(WhyValidate::Invalidated));
        invalid.check(61, Reuse::Validate(WhyValidate::Invalidated));
        let invalid = invalid.with(Origin::Disconnected);
        invalid.check(0, Reuse::Forbidden(WhyForbidden::Invalidated));
    }
}
