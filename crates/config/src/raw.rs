//! What a file has built, before it is checked: plain data with places, without Lua.

use std::rc::Rc;

use crate::place::Place;

/// Depth of tables within tables: deeper ones are a mistake, not a stack overflow.
pub(crate) const MAX_DEPTH: usize = 64;

/// A value with the place where it is written.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) value: RawValue,
    pub(crate) place: Place,
}

#[derive(Clone, Debug)]
pub(crate) enum RawValue {
    Nil,
    Boolean(bool),
    Number(f64),
    Text(Rc<str>),
    Table(Rc<RawTable>),
    /// A directive that was called: the number of the use.
    Use(usize),
    /// A directive as it is, `compress`: its number in the registry.
    Bare(usize),
    /// What a helper that makes values returned.
    Made(Made, Rc<str>),
    Function,
    /// What an unknown name stands for: already reported, and silently skipped.
    Unknown,
    /// Anything that cannot be a value, in words: "a buffer".
    Other(&'static str),
}

/// A helper that makes a value of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    Regex,
    Add,
    Default,
}

impl Made {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Made::Regex => "regex",
            Made::Add => "add",
            Made::Default => "default",
        }
    }
}

/// A table: its list and its named entries.
#[derive(Debug, Default)]
pub(crate) struct RawTable {
    pub(crate) items: Vec<Raw>,
    /// In the order of the source where that is known, else by key.
    pub(crate) keys: Vec<Entry>,
    /// An item that is nil, by its place, and so ends the list before its end.
    pub(crate) hole: Option<(usize, Place)>,
    /// It cannot be used as it is, for this reason.
    pub(crate) refused: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Raw,
    pub(crate) value: Raw,
}

/// One call of a directive.
#[derive(Debug)]
pub(crate) struct Use {
    /// The directive's number in the registry.
    pub(crate) spec: usize,
    /// The use that was called, for a step that is varied or a declaration that is completed.
    pub(crate) of: Option<usize>,
    /// The directive's name, or the local that was called.
    pub(crate) place: Place,
    pub(crate) args: Vec<Raw>,
}

impl Raw {
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            RawValue::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Text as the language writes it, cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut out = String::from("\"");
    for (at, c) in text.chars().enumerate() {
        if at == SHOWN {
            out.push('…');
            break;
        }
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}
