//! What `forebay explain` says of a cache: the key, whether a request goes round it, and of a
//! response whether it is stored and how long it is fresh, each with the place where that is laid
//! down.

use forebay_cache_policy::{
    RequestFacts, ResponseFacts, StoredFacts, Times, Vary, WhyAround, storable,
};
use forebay_http1::Method;
use forebay_store::TooSlow;

use super::key::Key;
use super::{Cache, now};
use crate::exchange::{Exchange, Flow, Response, errand};
use crate::explain::{Notes, Told, shown};

/// What is known of a request when its response is looked at.
struct Asked(RequestFacts);

impl Cache {
    pub(super) fn tell_request(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        if let (Method::Other(_), Some(purge)) = (&exchange.request.method, &self.purge)
            && exchange.request.method.as_str() == "PURGE"
        {
            let allowed = purge.holds(exchange);
            let text = if allowed {
                "allowed"
            } else {
                "refused: `purge` does not hold"
            };
            notes.add("purge", text);
            return match allowed {
                // What is purged in the running server is of no use to be told here.
                true => Told::Does(Flow::Answer(self.purged(exchange))),
                false => Told::Fails(crate::exchange::Reason::Forbidden.into()),
            };
        }
        let facts = self.facts(exchange);
        let around = match &self.bypass {
            Some(bypass) if bypass.holds(exchange) => Some(WhyAround::Bypass),
            _ => facts.around(),
        };
        if let Some(why) = around {
            notes.add("cache", format!("goes round it: {why}"));
            if !exchange.request.method.is_safe() {
                let text = "what is stored under this URL goes if it succeeds (RFC 9111 §4.4)";
                notes.add("invalidates", text);
            }
            // Not noted for the way up, where it would be done: nothing is taken away here.
            return Told::Does(Flow::Next);
        }
        let key = Key::of(&self.shared, exchange);
        notes.add("key", shown(&key.bytes));
        if exchange.request.method == Method::Post {
            let text = "the content counts as well, which is not known here (configuration)";
            notes.add("key", text);
        }
        notes.add("store", self.shared.kept.shown().to_owned());
        if self.refresh.as_ref().is_some_and(|one| one.holds(exchange)) {
            notes.add(
                "cache",
                "fetched anew, and replaced: `refresh` holds (configuration)",
            );
        } else if facts.only_if_cached() {
            let text = "only-if-cached: 504 unless it is stored (RFC 9111 §5.2.1.7)";
            notes.add("cache", text);
        } else if facts.is_head() {
            let text = "HEAD is answered from a stored GET; without one it goes on and stores \
                        nothing (RFC 9110 §9.3.2)";
            notes.add("cache", text);
        } else {
            notes.add(
                "cache",
                "told as if nothing were stored: one request brings it in for all",
            );
            let uses = self.shared.policy.min_uses;
            if uses > 1 {
                notes.add(
                    "uses",
                    format!("requests before the {uses}. pass (configuration)"),
                );
            }
            self.tell_live(exchange, &facts, notes);
            self.derive(&mut exchange.request);
            errand::derive(&mut exchange.request);
        }
        exchange.keep(self.shared.id, Asked(facts));
        Told::Does(Flow::Next)
    }

    fn tell_live(&self, exchange: &Exchange, facts: &RequestFacts, notes: &mut Notes<'_>) {
        let slow = match self.shared.live {
            None => return,
            Some(TooSlow::Cut) => "who is too slow is cut",
            Some(TooSlow::Skip) => "who is too slow skips ahead",
        };
        notes.add(
            "live",
            match self.may_join(exchange, facts) {
                true => format!(
                    "a stream that may not be stored is joined where it is; {slow} (configuration)"
                ),
                false => {
                    "not with this request: it has a cookie, credentials, a range or an event \
                          to go on from (configuration)"
                        .to_owned()
                }
            },
        );
    }

    pub(super) fn tell_response(
        &self,
        exchange: &Exchange,
        response: Option<&Response>,
        notes: &mut Notes<'_>,
    ) {
        let Some(Asked(request)) = exchange.kept::<Asked>(self.shared.id) else {
            return;
        };
        let policy = &self.shared.policy;
        let Some(response) = response else {
            self.tell_unknown(notes);
            return;
        };
        let own = response.fault.is_some() || response.wants_page;
        let facts = ResponseFacts::of(response.status, &response.fields, own);
        let times = Times {
            asked: now(),
            answered: now(),
        };
        let length = response.body.len_bytes();
        match storable(policy, request, &facts, &times) {
            Ok(_) if length.is_some_and(|len| len > policy.max_object) => {
                let why = forebay_cache_policy::WhyNot::TooLarge;
                notes.add("stored", format!("no: {why}"));
            }
            Ok(stored) => tell_stored(&stored, &facts, notes),
            Err(why) => notes.add("stored", format!("no: {why}")),
        }
        let mut fields = response.fields.clone();
        let tags = self.shared.take_tags(&mut fields);
        let tags: Vec<String> = tags.iter().map(shown).collect();
        if !tags.is_empty() {
            notes.add("tags", tags.join(" "));
        }
    }

    /// Another server makes the response: what will decide.
    fn tell_unknown(&self, notes: &mut Notes<'_>) {
        let policy = &self.shared.policy;
        let mut text = match policy.force {
            true => "if its status has a `ttl`, whatever it says (configuration)".to_owned(),
            false => "unless it says no-store or private, sets a cookie, or its status and fields \
                      allow no caching (RFC 9111 §3)"
                .to_owned(),
        };
        if policy.store_set_cookie {
            text = text.replace("sets a cookie, ", "");
        }
        notes.add("stored", text);
        let ttl = |status: u16| policy.ttl.of(status);
        let fresh = match (policy.force, ttl(200)) {
            (true, Some(seconds)) => format!("{seconds} s for a 200, by `ttl` (configuration)"),
            (_, Some(seconds)) => format!(
                "by s-maxage, max-age or Expires (RFC 9111 §4.2.1); else {seconds} s for a 200, by \
                 `ttl` (configuration)"
            ),
            (_, None) => "by s-maxage, max-age or Expires (RFC 9111 §4.2.1); else a tenth of the \
                          time since Last-Modified, a day at most (RFC 9111 §4.2.2)"
                .to_owned(),
        };
        notes.add("fresh", fresh);
        self.tell_stale(notes);
    }

    fn tell_stale(&self, notes: &mut Notes<'_>) {
        let policy = &self.shared.policy;
        for (seconds, what) in [
            (
                policy.stale_while_revalidate,
                "while it is validated (RFC 5861 §3)",
            ),
            (
                policy.stale_if_error,
                "where the origin fails (RFC 5861 §4)",
            ),
        ] {
            if let Some(seconds) = seconds {
                notes.add("stale", format!("used for {seconds} s more {what}"));
            }
        }
    }
}

fn tell_stored(stored: &StoredFacts, facts: &ResponseFacts, notes: &mut Notes<'_>) {
    notes.add("stored", format!("yes: {}", stored.why_stored()));
    let lifetime = stored.lifetime();
    let fresh = match lifetime {
        0 => format!("never: {}", stored.lifetime_by()),
        _ => format!("for {lifetime} s: {}", stored.lifetime_by()),
    };
    notes.add("fresh", fresh);
    let age = stored.age(now());
    if age > 0 {
        notes.add("age", format!("{age} s already (RFC 9111 §4.2.3)"));
    }
    if let Vary::Names(names) = facts.vary() {
        let names: Vec<String> = names.iter().map(shown).collect();
        let text = format!("one for each value of {} (RFC 9111 §4.1)", names.join(", "));
        notes.add("variants", text);
    }
}
