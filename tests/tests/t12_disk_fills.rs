//! The cases of fills, of ranges and of failing origins once more, with a disk; and what only a disk
//! makes possible.

#[path = "t11_failing.rs"]
mod failing;
#[path = "t11_fills.rs"]
mod fills;
#[path = "t11_ranges.rs"]
mod ranges;
