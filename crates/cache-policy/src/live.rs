//! Running responses that are not stored: who may share one, and where the operator has asked for
//! that (`live` of `cache`).
//!
//! No RFC knows this. What an origin says of storing is about what comes later; a running response
//! is given to several at once, so what counts is what else says that it is for one alone.

use forebay_fields::{Fields, Known};

use crate::policy::Policy;
use crate::range::RangeAsk;
use crate::reasons::WhyNot;
use crate::request::RequestFacts;
use crate::response::ResponseFacts;
use crate::vary::Vary;

impl RequestFacts {
    /// Whether a response that runs for others may be the answer: it is a GET that nothing tells
    /// from theirs. `fields` are those of the client.
    #[must_use]
    pub fn may_join(&self, policy: &Policy, fields: &Fields) -> bool {
        self.get
            && self.around().is_none()
            && !self.authorization
            && !fields.contains(Known::ProxyAuthorization)
            && (policy.strip_cookies || !fields.contains(Known::Cookie))
            && self.range() == RangeAsk::None
            && !fields.contains(Known::Range)
            // It wants what has come since some event, of which others know nothing.
            && fields.get("last-event-id").is_none_or(<[u8]>::is_empty)
    }
}

/// Whether others may join the response to a request that [`may_join`](RequestFacts::may_join),
/// which is not stored for this reason. Its length must not be known: of what has one, who joins
/// would get a part only.
#[must_use]
pub fn is_joined(
    policy: &Policy,
    request: &RequestFacts,
    response: &ResponseFacts,
    why: WhyNot,
) -> bool {
    // What the origin says of storing; nothing that makes the response one client's.
    let is_about_storing = matches!(
        why,
        WhyNot::NoStore | WhyNot::NotCacheable | WhyNot::NeverUsable | WhyNot::ZeroTtl
    );
    let kept_out = |name: &[u8]| response.unstored().any(|unstored| unstored == name);
    let sets_cookie = response.set_cookie
        && !policy.store_set_cookie
        && !policy.strip_cookies
        && !kept_out(b"set-cookie");
    is_about_storing
        && response.status == 200
        && !response.own
        && response.length.is_none()
        && !response.said.private
        && !sets_cookie
        && !request.no_store
        && matches!(response.vary, Vary::Nothing | Vary::Names(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storable;
    use crate::testing::{Lines, fields, request, times};

    fn may_join(policy: &Policy, method: &str, lines: Lines<'_>) -> bool {
        request(policy, method, lines).may_join(policy, &fields(lines))
    }

    #[test]
    fn who_may_join() {
        let policy = Policy::default();
        for lines in [
            &[][..],
            &[("User-Agent", "x"), ("Accept", "text/event-stream")],
            // Browsers ask so for event streams.
            &[("Cache-Control", "no-cache"), ("Pragma", "no-cache")],
            &[("If-None-Match", "\"a\"")],
            &[("Last-Event-ID", "")],
        ] {
            assert!(may_join(&policy, "GET", lines), "{lines:?}");
            assert!(!may_join(&policy, "HEAD", lines), "{lines:?}");
            assert!(!may_join(&policy, "POST", lines), "{lines:?}");
        }
        for line in [
            ("Cookie", "a=b"),
            ("Authorization", "Basic x"),
            ("Proxy-Authorization", "Basic x"),
            ("Range", "bytes=0-"),
            ("Range", "lines=1-"),
            ("Last-Event-ID", "7"),
            ("Upgrade", "websocket"),
            ("If-Match", "\"a\""),
        ] {
            assert!(!may_join(&policy, "GET", &[line]), "{line:?}");
        }
        let strips = Policy {
            strip_cookies: true,
            ..Policy::default()
        };
        assert!(may_join(&strips, "GET", &[("Cookie", "a=b")]));
    }

    fn joined(policy: &Policy, asked: Lines<'_>, status: u16, lines: Lines<'_>) -> bool {
        let request = request(policy, "GET", asked);
        let response = ResponseFacts::of(status, &fields(lines), false);
        match storable(policy, &request, &response, &times()) {
            Ok(_) => panic!("{lines:?} is stored"),
            Err(why) => is_joined(policy, &request, &response, why),
        }
    }

    #[test]
    fn what_is_joined() {
        let policy = Policy::default();
        let no_store = ("Cache-Control", "no-store");
        for lines in [
            &[][..],
            &[no_store],
            &[("Cache-Control", "no-cache")],
            &[(
                "Cache-Control",
                "no-cache, no-store, max-age=0, must-revalidate",
            )],
            &[("Cache-Control", "max-age=0")],
            &[("Cache-Control", "no-store, private=\"x-user\"")],
            &[("Expires", "0"), ("Pragma", "no-cache")],
            &[no_store, ("Vary", "Origin")],
            &[
                ("Cache-Control", "no-store, no-cache=\"set-cookie\""),
                ("Set-Cookie", "a=b"),
            ],
        ] {
            assert!(joined(&policy, &[], 200, lines), "{lines:?}");
            for status in [206, 302, 404, 429, 500] {
                assert!(!joined(&policy, &[], status, lines), "{status}: {lines:?}");
            }
        }
        for lines in [
            &[("Cache-Control", "private")][..],
            &[("Cache-Control", "no-store, private")],
            &[
                ("Cache-Control", "no-cache"),
                ("CDN-Cache-Control", "no-store, private"),
            ],
            &[no_store, ("Set-Cookie", "a=b")],
            &[no_store, ("Vary", "*")],
            &[no_store, ("Content-Length", "10")],
        ] {
            assert!(!joined(&policy, &[], 200, lines), "{lines:?}");
        }
        // The request does not want to be kept in any way.
        assert!(!joined(&policy, &[("Cache-Control", "no-store")], 200, &[]));
        let strips = Policy {
            strip_cookies: true,
            ..Policy::default()
        };
        assert!(joined(
            &strips,
            &[],
            200,
            &[no_store, ("Set-Cookie", "a=b")]
        ));
    }

    #[test]
    fn our_own_answers_are_for_who_has_asked() {
        let policy = Policy::default();
        let request = request(&policy, "GET", &[]);
        let own = ResponseFacts::of(200, &fields(&[]), true);
        assert!(!is_joined(&policy, &request, &own, WhyNot::NeverUsable));
    }
}
