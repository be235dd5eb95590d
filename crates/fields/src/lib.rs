//! The fields of a message head, as ordered slices of one reference-counted buffer.
//!
//! A browser's head has about 15 fields. Parsing them costs 0.2 µs, putting them into a hash map
//! another 1.1 µs; a server that only passes most of them on needs neither the map nor the copies.
//! So [`Fields`] keeps the received head block as it is (`base`), a reused row of offsets into it
//! (one [`Line`](Fields::iter) per field, order and case kept), and a `scratch` buffer for what is
//! added or changed. Names that the server looks at are recognised once, as [`Known`], and their
//! presence is one bit each, so that asking for an absent one costs a bit test.
//!
//! Sending is a few `memcpy`s: neighbouring lines that nobody touched are copied in one run.
//!
//! *Invariant*: no name and no value in a `Fields` contains CR, LF or NUL. Received lines were
//! checked by the parser that pushed them; everything else is checked by [`Fields::append`] and
//! [`Fields::set`], so a head cannot be split by a value, whoever wrote it.
//!
//! *Invariant*: no I/O and no clock here.

mod convert;
mod edit;
mod fields;
mod known;
mod list;
mod name;
mod packed;
mod syntax;

pub use convert::{ConvertError, from_header_map, to_header_map};
pub use edit::{EditError, MAX_SCRATCH_BYTES};
pub use fields::{Field, Fields, Iter, Received, Values, append_decimal};
pub use known::{Known, KnownSet};
pub use list::{Cookies, ListItems, list_items};
pub use name::Name;
pub use packed::Packed;
pub use syntax::{controls, is_token, is_token_byte, is_value};
