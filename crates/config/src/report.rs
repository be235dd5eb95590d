//! What is wrong with a configuration, and how that is shown: section 10 of the language.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use crate::place::{Place, Sources};

/// Mistakes kept by one report; the rest is only counted, so that a loop that makes a million of
/// them costs neither memory nor patience.
pub const MAX_DIAGNOSTICS: usize = 1_000;

/// Longest source line that is shown; of a longer one the part around the mark is.
const MAX_SHOWN: usize = 160;

/// What kind of mistake it is; stable, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The file is not Lua.
    Syntax,
    /// Lua stopped with an error, or past its budget.
    LuaError,
    /// A name that nothing has.
    UnknownName,
    /// An option that this directive does not have.
    UnknownOption,
    /// A value of the wrong type or outside of its limits.
    BadValue,
    /// Something required is not there.
    Missing,
    /// Said twice.
    Duplicate,
    /// Two things that do not go together.
    Conflict,
    /// A step that no request can reach.
    Unreachable,
    /// A file or a variable of the environment that is not there.
    NotFound,
}

/// One message with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file, as the operator wrote it.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// The column behind the last character.
    pub end_column: u32,
    /// The kind of mistake; none for a warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What is wrong, without its place.
    pub message: String,
    /// What was expected, or the nearest name; may be empty.
    pub help: String,
    /// The source line.
    #[serde(skip)]
    pub source: String,
}

impl Diagnostic {
    /// The message as section 10 shows it: place and text, the line, the mark with the help.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let kind = if self.code.is_none() { "warning: " } else { "" };
        let (file, line, column) = (printable(&self.file), self.line, self.column);
        let _ = writeln!(
            out,
            "{file}:{line}:{column}: {kind}{}",
            printable(&self.message)
        );
        let (text, lead, width) = self.window();
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let _ = writeln!(out, "  {number} | {text}");
        let marks = "^".repeat(width.max(1));
        let _ = write!(out, "  {gutter} | {lead}{marks}");
        if !self.help.is_empty() {
            let _ = write!(out, " {}", printable(&self.help));
        }
        out.push('\n');
        out
    }

    /// The part of the line that is shown, the blanks before the mark, and the mark's width.
    fn window(&self) -> (String, String, usize) {
        let to_usize = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let line: Vec<char> = self.source.chars().collect();
        let start = to_usize(self.column.max(1) - 1).min(line.len());
        let end = to_usize(self.end_column.max(1) - 1).clamp(start, line.len());
        let (from, cut) = match line.len() > MAX_SHOWN {
            true => (start.saturating_sub(MAX_SHOWN / 4), true),
            false => (0, false),
        };
        let to = if cut {
            (from + MAX_SHOWN).min(line.len())
        } else {
            line.len()
        };
        // Tabs stay, in the line and above the mark, so that both move alike.
        let shown = |c: &char| {
            if c.is_control() && *c != '\t' {
                '\u{fffd}'
            } else {
                *c
            }
        };
        let text: String = line[from..to].iter().map(shown).collect();
        let blank = |c: &char| if *c == '\t' { '\t' } else { ' ' };
        let lead: String = line[from..start].iter().map(blank).collect();
        (text, lead, end.min(to) - start)
    }
}

/// Collects mistakes and warnings, with their places, in any order.
///
/// It comes back from a load and can be added to, by what builds steps of the calls, until it is
/// shown.
#[derive(Clone, Debug, Default)]
pub struct Report {
    sources: Arc<Sources>,
    /// Values of the environment, which are never shown.
    secrets: Arc<[String]>,
    mistakes: Vec<Entry>,
    warnings: Vec<Entry>,
    /// Mistakes beyond [`MAX_DIAGNOSTICS`].
    dropped: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    place: Place,
    code: Option<Code>,
    message: String,
    help: String,
}

impl Report {
    /// An empty report on these sources.
    pub fn new(sources: Arc<Sources>) -> Report {
        Report {
            sources,
            ..Report::default()
        }
    }

    pub(crate) fn set_secrets(&mut self, mut secrets: Vec<String>) {
        // One may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        self.secrets = secrets.into();
    }

    /// The sources that places point into.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Adds a mistake: with one in the report, the configuration is not put into service.
    ///
    /// `message` says what is wrong, as "limit: `rate` cannot be "x""; `help` what was expected or
    /// meant, and may be empty. The same message at the same place counts once.
    pub fn mistake(
        &mut self,
        place: Place,
        code: Code,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let entry = Entry {
            place,
            code: Some(code),
            message: message.into(),
            help: help.into(),
        };
        if self.mistakes.len() >= MAX_DIAGNOSTICS {
            self.dropped += 1;
        } else if !self.mistakes.contains(&entry) {
            self.mistakes.push(entry);
        }
    }

    /// Adds a warning, which stops nothing.
    pub fn warning(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        let entry = Entry {
            place,
            code: None,
            message: message.into(),
            help: help.into(),
        };
        if self.warnings.len() < MAX_DIAGNOSTICS && !self.warnings.contains(&entry) {
            self.warnings.push(entry);
        }
    }

    /// How many mistakes were added, those that are not kept included.
    pub(crate) fn count(&self) -> usize {
        self.mistakes.len() + self.dropped
    }

    /// Whether there is any mistake.
    pub fn has_mistakes(&self) -> bool {
        !self.mistakes.is_empty()
    }

    /// The mistakes, by file and line.
    pub fn mistakes(&self) -> Vec<Diagnostic> {
        self.resolve(&self.mistakes)
    }

    /// The warnings, by file and line.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        self.resolve(&self.warnings)
    }

    /// All mistakes as section 10 shows them, with the count as the last line; empty without any.
    pub fn render(&self) -> String {
        if self.mistakes.is_empty() {
            return String::new();
        }
        let mut out: String = self.mistakes().iter().map(Diagnostic::render).collect();
        let shown = self.mistakes.len();
        let total = shown + self.dropped;
        let noun = if total == 1 { "mistake" } else { "mistakes" };
        let of = match self.dropped {
            0 => String::new(),
            _ => format!(", of which {shown} are shown"),
        };
        let _ = writeln!(out, "{total} {noun}{of}; nothing was changed");
        out
    }

    /// All warnings, in the same form.
    pub fn render_warnings(&self) -> String {
        self.warnings().iter().map(Diagnostic::render).collect()
    }

    /// All mistakes as JSON, an object per line.
    pub fn render_json(&self) -> String {
        let line = |diagnostic: &Diagnostic| match serde_json::to_string(diagnostic) {
            Ok(json) => json + "\n",
            // Strings and numbers only: there is nothing in it that could not be written.
            Err(_) => String::new(),
        };
        self.mistakes().iter().map(line).collect()
    }

    fn resolve(&self, entries: &[Entry]) -> Vec<Diagnostic> {
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        sorted.sort_by_key(|entry| {
            if entry.place.is_known() {
                entry.place
            } else {
                Place::START
            }
        });
        sorted
            .into_iter()
            .map(|entry| self.diagnostic(entry))
            .collect()
    }

    fn diagnostic(&self, entry: &Entry) -> Diagnostic {
        let span = self.sources.span(entry.place);
        Diagnostic {
            file: span.file,
            line: span.line,
            column: span.column,
            end_column: span.end_column,
            code: entry.code,
            message: self.masked(&entry.message),
            help: self.masked(&entry.help),
            source: span.text,
        }
    }

    /// The text with every value of the environment in it replaced by `***`.
    ///
    /// Only values of four bytes and more: a shorter one is no secret, and its letters stand in
    /// every other word.
    pub fn masked(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for secret in self.secrets.iter().filter(|secret| secret.len() >= 4) {
            if out.contains(secret.as_str()) {
                out = out.replace(secret.as_str(), "***");
            }
        }
        out
    }
}

/// Text from a file, made harmless for a terminal.
fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().flat_map(escaped).collect())
    } else {
        Cow::Borrowed(text)
    }
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let escape = if c.is_control() {
        Some(c.escape_default())
    } else {
        None
    };
    let plain = if c.is_control() { None } else { Some(c) };
    escape.into_iter().flatten().chain(plain)
}
