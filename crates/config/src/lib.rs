//! The configuration language: a Lua file becomes a checked, typed tree of calls that know where
//! they are written.
//!
//! ```text
//!  sources ── scan ──> marked sources ── Luau (sandboxed) ──> uses ── check ──> calls
//!  (place)   (spans)                     (lua/, helpers)      (raw)  (tables)   (value)
//!                            `── mistakes, each with its place, all of one run ──> report
//! ```
//!
//! This crate knows no step. Each step's file in the binary declares a [`Directive`]; together they
//! make a [`Registry`]. What a directive's table says is the one source of checks, messages,
//! defaults, the reference page ([`reference_markdown`]) and the editor types ([`editor_types`]).
//!
//! * [`load`] runs a file and returns the declarations, or a [`Report`] of every mistake.
//! * [`Call`] is one use of a directive, with typed access to its arguments and options.
//! * [`Report`] takes further mistakes of whoever builds steps from calls, and shows all of them.
//!
//! Invariants: after a load no Lua runs and nothing of the Lua state is left. A value that reaches
//! the binary is within the limits of its type. No input, however hostile, panics or takes more
//! than the time and memory given to [`load`].

mod address;
mod check;
mod directive;
mod docs;
mod helpers;
mod inputs;
mod load;
mod lua;
mod matching;
mod place;
mod raw;
mod registry;
mod report;
mod scalar;
pub mod scan;
mod template;
mod url;
mod value;

pub use address::{Address, Endpoint, Host, Prefix, Scheme, Target};
pub use directive::{
    Answers, Arg, Check, Directive, Distinct, Items, Keyed, MAX_COUNT, MAX_DURATION, MAX_SIZE, Opt,
    RecordType, Role, Type, Unset, Vars, When,
};
pub use docs::{editor_types, reference_markdown};
pub use inputs::{Inputs, Look};
pub use load::{EnvRead, LoadOptions, Loaded, load, load_text};
pub use matching::{Match, Pattern};
pub use place::{Place, Sources, Span};
pub use registry::Registry;
pub use report::{Code, Diagnostic, MAX_DIAGNOSTICS, Report};
pub use scalar::{Rate, Status, duration, percent, rate, show_duration, show_size, size};
pub use template::{Part, PathTemplate, Template, Variable, WrongTemplate};
pub use url::Url;
pub use value::{Call, Edit, FieldEdit, FromValue, Node, Record, Value};

/// The name most like this one, if any is alike enough to be meant.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer names than any of ours are no slips of them, and comparing costs their square.
    if name.is_empty() || name.len() > 64 {
        return None;
    }
    let score = |other: &str| strsim::damerau_levenshtein(name, other);
    let alike = |(distance, other): &(usize, &str)| {
        let length = name.chars().count().max(other.chars().count());
        *distance <= (length / 3).max(1) && *distance < length
    };
    let all = names.into_iter().map(|other| (score(other), other));
    all.filter(alike)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}
