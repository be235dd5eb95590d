//! Caching decisions of a shared cache.

mod accept;
mod cache_status;
mod combine;
mod directives;
mod freshness;
mod invalidate;
mod key;
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
pub use key::{Key, NameRule, QueryRules};
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
