//! Which site and which route a request belongs to. Pure: no I/O, no clock, no dependency.
//!
//! A request's way through this crate:
//!
//! 1. [`split_target`] parts the request target into path and query;
//! 2. [`normalize`] brings the path into the one form that matching, cache keys and upstreams
//!    all see, so that none of them can be made to disagree about it;
//! 3. [`HostTable::get`] finds what answers for the host name;
//! 4. [`RouteSet::candidates`] lists the routes whose patterns match, in the order in which they
//!    were declared. The caller takes the first whose own condition is true.
//!
//! What comes from a remote is bytes (`&[u8]`); what comes from the configuration is text
//! (`&str`) and is parsed once, into [`HostPattern`] and [`Pattern`], with errors that are
//! sentences for the person who wrote it.
//!
//! Nothing here allocates per request, except [`normalize`] when a path is not normal, and
//! [`RouteSet::candidates`] when more than eight kinds of pattern match one path.

#![forbid(unsafe_code)]

mod host;
mod names;
mod path;
mod pattern;
mod reasons;
mod set;

pub use host::{DuplicateHost, HostError, HostMatch, HostPattern, HostTable, MAX_HOST_BYTES};
pub use path::{PathFault, normalize, split_target};
pub use pattern::{Captures, MAX_PARAMS, MAX_PATTERN_BYTES, Pattern};
pub use reasons::{Miss, PatternError};
pub use set::{Candidate, Candidates, Explained, MAX_PATTERNS, RouteSet, TooMany, Unreachable};
