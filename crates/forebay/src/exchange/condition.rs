//! Conditions: which exchanges a step applies to.

use super::{Exchange, Response};

/// One test. Pure but for those that look at the file system, which remember for a second.
pub trait Test: Send + Sync {
    /// Whether it is true for this exchange; `response` where one is already known.
    fn holds(&self, exchange: &Exchange, response: Option<&Response>) -> bool;

    /// The tests that it is made of, in the order in which they are written.
    fn parts(&self) -> &[Box<dyn Test>] {
        &[]
    }
}

/// Most tests are a function and what it closes over.
impl<F> Test for F
where
    F: Fn(&Exchange, Option<&Response>) -> bool + Send + Sync,
{
    fn holds(&self, exchange: &Exchange, response: Option<&Response>) -> bool {
        self(exchange, response)
    }
}

/// A list of tests, true when one of them is.
pub struct Condition(pub Box<[Box<dyn Test>]>);

impl Condition {
    /// Whether it is true for a request on its way down.
    pub fn holds(&self, exchange: &Exchange) -> bool {
        self.0.iter().any(|test| test.holds(exchange, None))
    }

    /// Whether it is true for a response on its way up.
    pub fn holds_for(&self, exchange: &Exchange, response: &Response) -> bool {
        self.0
            .iter()
            .any(|test| test.holds(exchange, Some(response)))
    }
}
