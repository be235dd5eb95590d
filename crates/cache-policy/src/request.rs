//! What a request asks of the cache (RFC 9111 §5.2.1, §3, §4).

use forebay_fields::{Fields, Known, KnownSet};

use crate::directives::{Argument, Directive, cache_control};
use crate::policy::Policy;
use crate::range::RangeAsk;
use crate::reasons::WhyAround;
use crate::time::MAX_SECONDS;

/// A request as the cache step has it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// As it was sent: methods are case-sensitive.
    pub method: &'a str,
    /// Whether the method is known to change nothing (RFC 9110 §9.2.1); `false` if it is unknown.
    pub safe: bool,
    /// Whether the request has content, also where its length is not known.
    pub has_body: bool,
    /// Its fields.
    pub fields: &'a Fields,
}

/// What is known of a request: found once, looked at by every decision.
///
/// Request directives are advice to a cache (RFC 9111 §5.2.1); it is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// Nothing in the request restricts or widens what may answer it: the usual case, so that a
    /// hit looks at one flag.
    pub(crate) plain: bool,
    pub(crate) no_cache: bool,
    pub(crate) no_store: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) authorization: bool,
    pub(crate) get: bool,
    pub(crate) head: bool,
    safe: bool,
    around: Option<WhyAround>,
    pub(crate) max_age: Option<u32>,
    pub(crate) min_fresh: Option<u32>,
    /// [`MAX_SECONDS`] where no number is given: "any age".
    pub(crate) max_stale: Option<u32>,
    pub(crate) stale_if_error: Option<u32>,
    range: RangeAsk,
}

/// Without any of these a request has nothing to say to a cache.
const LOOKED_AT: KnownSet = KnownSet::of(&[
    Known::CacheControl,
    Known::Pragma,
    Known::Authorization,
    Known::Upgrade,
    Known::IfMatch,
    Known::IfUnmodifiedSince,
    Known::Range,
]);

impl RequestFacts {
    /// Looks at a request.
    #[must_use]
    pub fn of(policy: &Policy, asked: &Asked<'_>) -> Self {
        let get = asked.method == "GET";
        let head = asked.method == "HEAD";
        let mut facts = Self {
            plain: true,
            no_cache: false,
            no_store: false,
            only_if_cached: false,
            authorization: false,
            get,
            head,
            safe: asked.safe || get || head,
            around: None,
            max_age: None,
            min_fresh: None,
            max_stale: None,
            stale_if_error: None,
            range: RangeAsk::None,
        };
        if !policy.caches_method(asked.method) {
            facts.around = Some(WhyAround::Method);
        } else if asked.has_body && (get || head) {
            facts.around = Some(WhyAround::Body);
        }
        if asked.fields.present().intersects(LOOKED_AT) {
            facts.look_at(asked.fields);
        }
        facts
    }

    fn look_at(&mut self, fields: &Fields) {
        self.authorization = fields.contains(Known::Authorization);
        if self.around.is_none() {
            self.around = if fields.contains(Known::Upgrade) {
                Some(WhyAround::Upgrade)
            } else if fields.contains(Known::IfMatch) || fields.contains(Known::IfUnmodifiedSince) {
                Some(WhyAround::Precondition)
            } else {
                None
            };
        }
        if self.get {
            self.range = RangeAsk::of(fields);
        }
        if fields.contains(Known::CacheControl) {
            cache_control(fields, |directive, argument| {
                self.take(directive, &argument)
            });
        } else if fields.has_token(Known::Pragma, "no-cache") {
            // Only where there is no Cache-Control (RFC 9111 §5.4).
            self.no_cache = true;
        }
        self.plain = !self.no_cache
            && !self.only_if_cached
            && self.max_age.is_none()
            && self.min_fresh.is_none();
    }

    fn take(&mut self, directive: Directive, argument: &Argument<'_>) {
        // A number that is none means the most restrictive thing the directive can ask for; one
        // that would widen what may answer is not there. Of repeated ones the first one counts.
        let seconds = argument.seconds();
        match directive {
            Directive::NoCache => self.no_cache = true,
            Directive::NoStore => self.no_store = true,
            Directive::OnlyIfCached => self.only_if_cached = true,
            Directive::MaxAge => {
                self.max_age.get_or_insert(seconds.unwrap_or(0));
            }
            Directive::MinFresh => {
                self.min_fresh.get_or_insert(seconds.unwrap_or(MAX_SECONDS));
            }
            Directive::MaxStale => {
                let any = (*argument == Argument::None).then_some(MAX_SECONDS);
                self.max_stale = self.max_stale.or(seconds).or(any);
            }
            Directive::StaleIfError => self.stale_if_error = self.stale_if_error.or(seconds),
            _ => {}
        }
    }

    /// Why the request goes round the cache; `None` if it is to be looked up.
    #[inline]
    #[must_use]
    pub fn around(&self) -> Option<WhyAround> {
        self.around
    }

    /// The same, going round the cache because a condition of the operator's says so.
    #[must_use]
    pub fn bypassing(mut self) -> Self {
        self.around.get_or_insert(WhyAround::Bypass);
        self
    }

    /// Whether a successful response to it makes stored ones invalid (RFC 9111 §4.4): its method
    /// is not known to be safe.
    ///
    /// A method that the operator has cached is asked for like a safe one, and looked up first.
    #[must_use]
    pub fn invalidates(&self) -> bool {
        !self.safe && self.around == Some(WhyAround::Method)
    }

    /// Whether it is HEAD: answered from what GET has stored, never stored itself.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.head
    }

    /// Whether it says `no-store`: it may be answered from the cache (RFC 9111 §5.2.1.5), but
    /// what it brings in is not kept.
    #[must_use]
    pub fn no_store(&self) -> bool {
        self.no_store
    }

    /// Whether there is an `Authorization` (RFC 9111 §3.5).
    #[must_use]
    pub fn has_authorization(&self) -> bool {
        self.authorization
    }

    /// Whether it says `only-if-cached` (RFC 9111 §5.2.1.7): where nothing is stored, the answer
    /// is 504.
    #[must_use]
    pub fn only_if_cached(&self) -> bool {
        self.only_if_cached
    }

    /// Which range it asks for. Whether that is to be looked at depends on `If-Range` as well.
    #[must_use]
    pub fn range(&self) -> RangeAsk {
        self.range
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::RangeSpec;

    fn facts_of(method: &str, has_body: bool, lines: &[(&str, &str)]) -> RequestFacts {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, value).unwrap();
        }
        let asked = Asked {
            method,
            safe: matches!(method, "OPTIONS" | "TRACE"),
            has_body,
            fields: &fields,
        };
        RequestFacts::of(&Policy::default(), &asked)
    }

    fn check(lines: &[(&str, &str)], expected: impl Fn(&mut RequestFacts)) {
        let mut wanted = facts_of("GET", false, &[]);
        expected(&mut wanted);
        assert_eq!(facts_of("GET", false, lines), wanted, "{lines:?}");
    }

    fn cc(value: &str, expected: impl Fn(&mut RequestFacts)) {
        check(&[("Cache-Control", value)], expected);
    }

    #[test]
    fn rfc9111_3_methods() {
        for method in ["GET", "HEAD"] {
            assert_eq!(facts_of(method, false, &[]).around(), None, "{method}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "X"] {
            let facts = facts_of(method, false, &[]);
            assert_eq!(facts.around(), Some(WhyAround::Method), "{method}");
            let safe = matches!(method, "OPTIONS" | "TRACE");
            assert_eq!(facts.invalidates(), !safe, "{method}");
        }
    }

    #[test]
    fn a_bypass_is_a_reason_like_others() {
        let facts = facts_of("GET", false, &[]).bypassing();
        assert_eq!(facts.around(), Some(WhyAround::Bypass));
        // It takes nothing back of what an unsafe method does.
        let put = facts_of("PUT", false, &[]).bypassing();
        assert!(put.around() == Some(WhyAround::Method) && put.invalidates());
    }

    #[test]
    fn rfc9110_9_3_1_get_with_content_goes_round() {
        for method in ["GET", "HEAD"] {
            let facts = facts_of(method, true, &[]);
            assert_eq!(facts.around(), Some(WhyAround::Body));
            assert!(!facts.invalidates());
        }
    }

    #[test]
    fn a_cached_post_is_looked_up_and_invalidates_nothing() {
        let policy = Policy {
            methods: vec!["GET".into(), "POST".into()],
            ..Policy::default()
        };
        let asked = Asked {
            method: "POST",
            safe: false,
            has_body: true,
            fields: &Fields::new(),
        };
        let facts = RequestFacts::of(&policy, &asked);
        assert_eq!(facts.around(), None);
        assert!(!facts.invalidates());
    }

    #[test]
    fn rfc9111_4_3_2_preconditions_for_the_origin_go_round() {
        for name in ["If-Match", "If-Unmodified-Since"] {
            let facts = facts_of("GET", false, &[(name, "*")]);
            assert_eq!(facts.around(), Some(WhyAround::Precondition));
        }
        let facts = facts_of("GET", false, &[("Upgrade", "websocket")]);
        assert_eq!(facts.around(), Some(WhyAround::Upgrade));
        let facts = facts_of("GET", false, &[("If-None-Match", "*")]);
        assert_eq!(facts.around(), None);
    }

    #[test]
    fn rfc9111_5_2_1_1_max_age() {
        let max_age = |expected| {
            move |facts: &mut RequestFacts| {
                facts.max_age = Some(expected);
                facts.plain = false;
            }
        };
        cc("max-age=5", max_age(5));
        cc("max-age=\"5\"", max_age(5));
        cc("Max-Age=5, max-age=9", max_age(5));
        cc("max-age=99999999999", max_age(1 << 31));
        for bad in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=x",
            "max-age =5",
        ] {
            cc(bad, max_age(0));
        }
    }

    #[test]
    fn rfc9111_5_2_1_2_max_stale() {
        cc("max-stale", |f| f.max_stale = Some(MAX_SECONDS));
        cc("max-stale=5", |f| f.max_stale = Some(5));
        cc("max-stale=x", |_| {});
        cc("max-stale=5, max-stale", |f| f.max_stale = Some(5));
    }

    #[test]
    fn rfc9111_5_2_1_3_min_fresh() {
        for (text, expected) in [("min-fresh=5", 5), ("min-fresh", MAX_SECONDS)] {
            cc(text, |facts| {
                facts.min_fresh = Some(expected);
                facts.plain = false;
            });
        }
    }

    #[test]
    fn rfc9111_5_2_1_4_to_7_no_cache_no_store_only_if_cached() {
        cc("no-cache", |facts| {
            facts.no_cache = true;
            facts.plain = false;
        });
        cc("NO-STORE, no-transform", |facts| facts.no_store = true);
        cc("only-if-cached", |facts| {
            facts.only_if_cached = true;
            facts.plain = false;
        });
    }

    #[test]
    fn rfc9111_5_4_pragma_counts_only_without_cache_control() {
        let no_cache = |facts: &mut RequestFacts| {
            facts.no_cache = true;
            facts.plain = false;
        };
        check(&[("Pragma", "x, No-Cache")], no_cache);
        check(&[("Pragma", "x")], |_| {});
        check(&[("Pragma", "no-cache"), ("Cache-Control", "x")], |_| {});
    }

    #[test]
    fn rfc5861_4_stale_if_error_in_a_request() {
        cc("stale-if-error=9", |facts| facts.stale_if_error = Some(9));
        cc("stale-if-error", |_| {});
    }

    #[test]
    fn rfc9111_3_5_authorization_is_noticed() {
        check(&[("Authorization", "Basic eA==")], |f| {
            f.authorization = true
        });
    }

    #[test]
    fn rfc9110_14_2_ranges_are_for_get() {
        let range = [("Range", "bytes=0-9")];
        let one = RangeAsk::One(RangeSpec::From(0, 9));
        assert_eq!(facts_of("GET", false, &range).range(), one);
        assert_eq!(facts_of("HEAD", false, &range).range(), RangeAsk::None);
    }
}
