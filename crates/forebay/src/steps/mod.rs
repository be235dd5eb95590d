//! The steps, one file each: its directive, its checks, its code, its tests.
//!
//! A step's file has
//! * `pub static DIRECTIVE: Directive` — its names, options, defaults, limits and docs, the one
//!   source of checks, messages, the reference and the editor types;
//! * `pub fn build(call: &Call, builder: &mut Builder) -> Option<Box<dyn Step>>` — a checked call
//!   into a step; what only the step can know to be wrong it reports at the place of the value and
//!   returns `None`;
//! * the step itself.
//!
//! Adding one is its file and one line in the registry below.
