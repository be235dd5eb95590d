//! Finding out where things stand. Luau tells a callee only the line of the call, so the sources
//! are read here, too: every call's arguments and every table's keys and values get their spans,
//! and the code that is run says at each of them which one it is.
//!
//! Nothing here fails: what is not understood is left as it is, and then messages know the line
//! only.

mod lexer;
mod parser;

pub(crate) use lexer::{Lexer, Token};
pub use parser::scan;

/// What a scan has found in one file.
#[derive(Debug, Default)]
pub struct Scan {
    /// Calls and tables, in the order of their starts; `code` names them by their number from 1,
    /// plus the number it was given.
    pub sites: Vec<Site>,
    /// The parts of all sites.
    pub parts: Vec<Part>,
    /// The source with a marker in every call and table, on the lines on which they were. None if
    /// something was not understood: then the source must be run as it is.
    pub code: Option<Vec<u8>>,
}

/// A call or a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The called name (`upstream`, `steps.cache`), or the table with its braces.
    pub span: (u32, u32),
    /// Of a table that is all that is given in a call, `server { … }`: the called name.
    pub called: Option<(u32, u32)>,
    /// Its first part, in [`Scan::parts`].
    pub first: u32,
    /// The number of its parts.
    pub count: u32,
}

/// An argument of a call, or an entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// How its key is written.
    pub key: Key,
    /// Of the key; of the value where there is none.
    pub key_span: (u32, u32),
    /// Of the value.
    pub value_span: (u32, u32),
}

/// How a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Not at all: an argument, or an item of a list.
    Item,
    /// As a name, `a = 1`.
    Name,
    /// As a plain text or number in brackets, `["a"] = 1`, `[404] = 1`.
    Literal,
    /// As an expression whose value is not seen.
    Computed,
}
