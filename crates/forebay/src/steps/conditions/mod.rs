//! The conditions: which requests a step or a route is for.
//!
//! A condition's `build` turns a checked call into a [`Test`]; one line in [`CONDITIONS`] makes it
//! known.

mod exists;
mod fields;
mod logic;
mod request;
mod share;

use forebay_config::{Call, Directive};

use crate::control::build::Builder;
use crate::exchange::Test;

type Build = fn(&Call, &mut Builder<'_>) -> Option<Box<dyn Test>>;

/// Every condition, in the order of the reference.
pub static CONDITIONS: &[(&Directive, Build)] = &[
    (&request::PATH, request::path),
    (&request::HOST, request::host),
    (&request::METHOD, request::method),
    (&request::SCHEME, request::scheme),
    (&fields::HEADER, fields::header),
    (&fields::COOKIE, fields::cookie),
    (&fields::QUERY, fields::query),
    (&fields::VAR, fields::var),
    (&request::CLIENT, request::client),
    (&exists::DIRECTIVE, exists::build),
    (&share::DIRECTIVE, share::build),
    (&logic::STATUS, logic::status),
    (&logic::ALL, logic::all),
    (&logic::NONE, logic::none),
];

/// The test of a checked call.
pub fn build(call: &Call, builder: &mut Builder<'_>) -> Option<Box<dyn Test>> {
    let directive: *const Directive = call.directive();
    let (_, build) = CONDITIONS
        .iter()
        .find(|(known, _)| std::ptr::eq(*known, directive))?;
    build(call, builder)
}

/// A test that is a function of the exchange and, if there is one, the response.
fn test<F>(holds: F) -> Option<Box<dyn Test>>
where
    F: Fn(&crate::exchange::Exchange, Option<&crate::exchange::Response>) -> bool
        + Send
        + Sync
        + 'static,
{
    Some(Box::new(holds))
}
