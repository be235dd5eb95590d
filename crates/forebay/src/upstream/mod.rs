//! Upstreams.

/// A named pool.
pub struct Upstream;
