//! Types in words: what was expected, and what the reference says.

use std::time::Duration;

use crate::check::Checker;
use crate::directive::{MAX_COUNT, MAX_DURATION, MAX_SIZE, Role, Type};
use crate::raw::{Raw, RawValue, quoted};
use crate::scalar::{show_duration, show_size};

/// "expected …", for the help of a message.
pub(crate) fn expected(ty: &Type) -> String {
    match ty {
        Type::Or(_) => format!("expected {}", kind(ty)),
        Type::Target { schemes, .. } => crate::address::expected_target(*schemes),
        Type::List(item) => format!("{}, or a list", expected(item)),
        _ => format!("expected {}", noun(ty)),
    }
}

fn noun(ty: &Type) -> String {
    let plain = match ty {
        Type::Boolean => "`true` or `false`",
        Type::False => "`false`",
        Type::Bandwidth => "SIZE/s, as \"1MB/s\"",
        Type::Rate => "COUNT/TIME, as \"100/s\" or \"20/10s\"",
        Type::Percent => "a percentage up to \"100%\", as \"10%\"",
        Type::Address => "an address, as \":443\", \"127.0.0.1:80\" or \"unix:/run/a.sock\"",
        Type::Prefix => "a prefix, as \"10.0.0.0/8\", \"192.0.2.7\" or \"private\"",
        Type::Host => "a host name, as \"example.com\", \"*.example.com\" or \"*\"",
        Type::Pattern => "a pattern, as \"/x\", \"/x/*\", \"*.php\", \"/a/*.php\" or \"/u/:id\"",
        Type::Match => "a match, as \"abc\", \"abc*\", \"*abc\", \"*abc*\" or `regex \"…\"`",
        Type::Regex => "`regex \"…\"`",
        Type::Template(_) => "a text, which may hold variables",
        Type::Path => "a path",
        Type::PathOrUrl => "a path, or a URL as \"https://id.example.com/keys.json\"",
        Type::PathTemplate | Type::PathUnder { .. } => "a path, which may hold variables",
        Type::Status => "a status, as 404, or a class, as \"4xx\"",
        Type::StatusCode => "a status from 200 to 599",
        Type::Text => "a text",
        Type::Name => "a name: 1 to 64 letters, digits, `-`, `_`, `.`",
        Type::Pair(..) => "a list of two",
        Type::Map { .. } => "a table, `{ KEY = VALUE }`",
        Type::Fields(_) => "a table of fields, `{ x_name = \"value\" }`",
        Type::Condition { .. } => "a condition, or a list of conditions",
        Type::Pipeline => "a step, or a list of steps",
        Type::Function => "a function",
        Type::Duration { .. }
        | Type::Size { .. }
        | Type::Count { .. }
        | Type::Target { .. }
        | Type::OneOf(_)
        | Type::List(_)
        | Type::Declared(_)
        | Type::Record(_)
        | Type::Or(_) => return limited(ty),
    };
    plain.to_owned()
}

/// The same for types with limits or parts.
fn limited(ty: &Type) -> String {
    match ty {
        Type::Duration { min, max } if is_full(*min, *max) => {
            "a duration, as \"250ms\", \"5s\" or \"10m\"".to_owned()
        }
        Type::Duration { min, max } => {
            format!(
                "a duration from {} to {}",
                show_duration(*min),
                show_duration(*max)
            )
        }
        Type::Size {
            min: 0,
            max: MAX_SIZE,
        } => "a size, as \"64KB\" or \"512MB\"".to_owned(),
        Type::Size { min, max } => {
            format!("a size from {} to {}", show_size(*min), show_size(*max))
        }
        Type::Count { min, max } => format!("a whole number from {min} to {max}"),
        Type::OneOf(words) => words_or(words),
        Type::Declared(names) => format!(
            "what `{}` gives, as `local x = {} …` and then `x`",
            names.join("` or `"),
            names.first().unwrap_or(&"")
        ),
        Type::Record(record) => format!("a table of `{}`", record.name),
        other => kind(other),
    }
}

/// The type as the reference's tables name it: `duration 1s–1d`, `prefix…`.
pub(crate) fn kind(ty: &Type) -> String {
    let plain = match ty {
        Type::Boolean => "boolean",
        Type::False => "`false`",
        Type::Bandwidth => "bandwidth",
        Type::Rate => "rate",
        Type::Percent => "percent",
        Type::Address => "address",
        Type::Target { .. } => "target",
        Type::Prefix => "prefix",
        Type::Host => "host",
        Type::Pattern => "pattern",
        Type::Match => "match",
        Type::Regex => "regex",
        Type::Template(_) => "template",
        Type::Path => "path",
        Type::PathOrUrl => "path or URL",
        Type::PathTemplate | Type::PathUnder { .. } => "path template",
        Type::Status => "status",
        Type::StatusCode => "status 200–599",
        Type::Text => "text",
        Type::Name => "name",
        Type::Condition { .. } => "condition",
        Type::Pipeline => "pipeline",
        Type::Function => "function",
        Type::Duration { min, max } => {
            return match is_full(*min, *max) {
                true => "duration".to_owned(),
                false => format!("duration {}–{}", show_duration(*min), show_duration(*max)),
            };
        }
        Type::Size {
            min: 0,
            max: MAX_SIZE,
        } => "size",
        Type::Size { min, max } => {
            return format!("size {}–{}", show_size(*min), show_size(*max));
        }
        Type::Count {
            min: 0,
            max: MAX_COUNT,
        } => "count",
        Type::Count { min, max } => return format!("count {min}–{max}"),
        Type::OneOf(words) => return words_or(words),
        Type::List(item) => return format!("{}…", kind(item)),
        Type::Pair(first, second) => return format!("{{ {}, {} }}", kind(first), kind(second)),
        Type::Map { key, value } => return format!("{{ {} = {} }}", kind(key), kind(value)),
        Type::Fields(_) => "{ field = template or `false` or list }",
        Type::Declared(names) => return names.join(" or "),
        Type::Record(record) => record.name,
        Type::Or(types) => return types.iter().map(kind).collect::<Vec<_>>().join(" or "),
    };
    plain.to_owned()
}

fn is_full(min: Duration, max: Duration) -> bool {
    min.is_zero() && max == MAX_DURATION
}

fn words_or(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => quoted.concat(),
    }
}

impl Checker {
    /// A value as a message shows it.
    pub(super) fn shown(&self, raw: &Raw) -> String {
        match &raw.value {
            RawValue::Nil => "nil".to_owned(),
            RawValue::Boolean(value) => value.to_string(),
            RawValue::Number(number) => number.to_string(),
            RawValue::Text(text) => quoted(text),
            RawValue::Table(table) if table.keys.is_empty() => "a list".to_owned(),
            RawValue::Table(_) => "a table".to_owned(),
            RawValue::Use(index) => self.shown_directive(self.uses[*index].spec),
            RawValue::Bare(spec) => self.shown_directive(*spec),
            RawValue::Made(made, text) => format!("{} {}", made.name(), quoted(text)),
            RawValue::Function => "a function".to_owned(),
            RawValue::Unknown => "an unknown name".to_owned(),
            RawValue::Other(what) => (*what).to_owned(),
        }
    }

    fn shown_directive(&self, spec: usize) -> String {
        let directive = self.specs[spec].directive;
        let role = match directive.role {
            Role::Declaration => "declaration",
            Role::Filter | Role::Handler | Role::Route => "step",
            Role::Condition => "condition",
        };
        format!("the {role} `{}`", directive.name)
    }
}
