//! Caching decisions of a shared cache.

mod directives;
mod policy;
mod range;
mod reasons;
mod request;
mod response;
mod time;
mod vary;

pub use policy::{Policy, Ttl};
pub use range::{ContentRange, RangeAsk, RangeSpec};
pub use reasons::{LifetimeBy, WhyAround, WhyNot, WhyStored};
pub use request::{Asked, RequestFacts};
pub use response::ResponseFacts;
pub use time::{MAX_SECONDS, Time, delta_seconds, http_date};
pub use vary::{Vary, VaryNames};
