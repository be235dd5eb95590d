//! Caching decisions of a shared cache: pure functions of fields, the operator's policy and a given
//! time. RFC 9111 whole, RFC 5861 (stale), RFC 9211 (`Cache-Status`), RFC 9213
//! (`CDN-Cache-Control`). No I/O, no clock, no random source; nothing is stored here either.
//!
//! What a peer has sent is looked at once, and becomes *facts*: [`RequestFacts`] and
//! [`ResponseFacts`]. Of what is stored, [`StoredFacts`] are kept beside the fields: 56 bytes,
//! which are all that a hit looks at. A decision is a closed enum, and every reason in it has a
//! sentence and the section that it comes from ([`WhyNot::text`], [`WhyNot::section`]).
//!
//! A request's way through this crate:
//!
//! 1. [`RequestFacts::of`] looks at it. If it goes [round the cache](RequestFacts::around), only
//!    [`invalidated`] is left to ask, when an unsafe one has been answered (RFC 9111 §4.4).
//! 2. [`QueryRules::apply`] and [`Key::write`] make its primary key, [`VaryNames::write_key`] its
//!    secondary one, for the `Vary` of what is stored under the primary key (§4.1).
//! 3. [`reuse()`] says what the stored response is to it: the answer, as it is or stale, or to be
//!    validated first (§4). An answer has [`StoredFacts::age`] as its `Age`. What of it the
//!    client wants, by its own conditions, is for whoever sends it: to RFC 9110 §13, §4.3.2 adds
//!    only [`StoredFacts::modified`].
//! 4. Where the origin has to be asked, [`prepare_request`] and [`normalise_request`] make one
//!    request for all of a client's; [`make_conditional`] makes that a validation,
//!    [`make_range`] one for the bytes that are absent.
//! 5. The answer to a validation: [`Validation::of`] its status. By a 304, [`update`] brings up
//!    to date what [`select`] finds; when the origin has failed, [`reuse()`] is asked again and
//!    told so; everything else is a new response.
//! 6. A new response: [`ResponseFacts::of`] it, then [`storable()`], which says no with a reason
//!    or gives the facts to keep; [`prepare_fields`] leaves of its fields what is stored. A part
//!    is put together with what is there if [`may_combine`] says so (§3.4).
//! 7. Who else may have one that is not stored, while it runs: [`is_joined`] and
//!    [`RequestFacts::may_join`].
//! 8. [`CacheStatus::append_to`] tells the client's side what was done (RFC 9211).
//!
//! `Warning` is neither made nor looked at: RFC 9111 §5.5 has done away with it.

#![forbid(unsafe_code)]

mod accept;
mod cache_status;
mod combine;
mod directives;
mod freshness;
mod invalidate;
mod key;
mod live;
mod policy;
mod prepare;
mod range;
mod reasons;
mod request;
mod response;
mod reuse;
mod storable;
mod stored;
#[cfg(test)]
mod testing;
mod time;
mod validate;
mod vary;

pub use accept::{Codings, normalise_request};
pub use cache_status::{CacheStatus, Forward, Outcome};
pub use combine::{covered, may_combine};
pub use invalidate::{Target, invalidated};
pub use key::{Key, NameRule, QueryRules, has_content};
pub use live::is_joined;
pub use policy::{Policy, Ttl};
pub use prepare::{make_conditional, make_range, prepare_fields, prepare_request};
pub use range::{ContentRange, RangeAsk, RangeSpec};
pub use reasons::{
    LifetimeBy, WhyApart, WhyAround, WhyForbidden, WhyNot, WhyStale, WhyStored, WhyValidate,
};
pub use request::{Asked, RequestFacts};
pub use response::ResponseFacts;
pub use reuse::{Moment, Origin, Reuse, reuse};
pub use storable::storable;
pub use stored::{StoredFacts, Times};
pub use time::{MAX_SECONDS, Time, delta_seconds, http_date};
pub use validate::{Updated, Validation, head_matches, select, update};
pub use vary::{Vary, VaryNames};
