//! An explanation for people: plain text for a terminal, indented by nesting.

use std::fmt::Write as _;

use super::Explanation;
use super::notes::{At, Note, Tried, said};
use super::walk::{Does, StepTold, UpTold};

/// Routes that do not match are shown up to this many in a row: of a thousand nobody reads all.
const MAX_MISSES: usize = 12;

/// Where the written step begins.
const PLACE_COLUMN: usize = 18;

/// The text. Whatever a remote or the command line has given is escaped; `mask` takes secrets out,
/// and sees them as they are.
pub fn render(told: &Explanation, mask: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let request = &told.request;
    let client = match request.client.as_str() {
        "" => "a client without an address",
        client => client,
    };
    let _ = writeln!(out, "{} {} from {client}\n", request.method, request.url);
    let listener = &told.listener;
    let _ = writeln!(
        out,
        "listener  {}{}",
        listener.address,
        behind(listener.at.as_ref())
    );
    for note in &listener.notes {
        let _ = writeln!(out, "          {note}");
    }
    if let Some(site) = &told.site {
        let why = match site.matches {
            "exact" => "the name itself",
            "wildcard" => "a name below it",
            _ => "every other name",
        };
        let place = behind(site.at.as_ref());
        let _ = writeln!(
            out,
            "site      {}{place}: {} is {why}",
            site.host, request.host
        );
    }
    if told.site.is_none() {
        let _ = writeln!(out, "site      none");
    }
    if !request.path.is_empty() {
        let _ = writeln!(out, "path      {}", request.path);
    }
    if !told.steps.is_empty() {
        out.push('\n');
    }
    for step in &told.steps {
        describe_step(step, &mut out);
    }
    if !told.response.is_empty() {
        out.push_str("\non the way back\n");
    }
    for up in &told.response {
        describe_up(up, &mut out);
    }
    out.push('\n');
    for (name, value) in &told.answer.fields {
        let _ = writeln!(out, "  {name}: {value}");
    }
    if let Some(bytes) = told
        .answer
        .body_bytes
        .filter(|_| told.answer.status.is_some())
    {
        let _ = writeln!(out, "  {bytes} bytes");
    }
    let _ = writeln!(out, "{}", told.answer.sentence);
    mask(&out)
        .split_inclusive('\n')
        .map(harmless_line)
        .collect()
}

fn behind(at: Option<&At>) -> String {
    at.map(|at| format!(" ({}:{})", at.file, at.line))
        .unwrap_or_default()
}

fn place(at: Option<&At>) -> String {
    at.map(|at| format!("{}:{}", at.file, at.line))
        .unwrap_or_default()
}

fn describe_step(step: &StepTold, out: &mut String) {
    let indent = "  ".repeat(step.depth);
    let written = match step.routes.is_empty() {
        true => &step.written,
        // Of routes in a row each is shown below, with its place.
        false => step.step,
    };
    let place = place(step.at.as_ref());
    let _ = writeln!(out, "{place:PLACE_COLUMN$}{indent}{written}");
    let mut line = |text: &str| {
        let _ = writeln!(out, "{:PLACE_COLUMN$}{indent}  {text}", "");
    };
    if let Some(when) = &step.when {
        for test in &when.conditions {
            line(&format!("when {}", said(test)));
        }
    }
    for route in tried(&step.routes) {
        line(&route);
    }
    for note in &step.notes {
        line(&of_note(note));
    }
    let does = match step.does {
        Does::Skipped => "does not apply",
        Does::Passes if !step.routes.is_empty() => "no route takes it",
        Does::Passes => "goes on",
        Does::Enters => return,
        Does::Answers => "answers",
        Does::Fails => "refuses it",
        Does::Asks => "asks for the answer",
        Does::AsksLeave => "asks, and goes on with 2xx; any other answer is the answer",
        Does::Waits => "waits for what only the running server has",
    };
    match step.status {
        Some(status) => line(&format!("{does}: {status}")),
        None => line(does),
    }
}

/// Lines on routes, long rows of misses cut short.
fn tried(routes: &[Tried]) -> Vec<String> {
    let mut lines = Vec::new();
    let misses = routes.iter().filter(|one| !one.matches).count();
    let mut left = misses.saturating_sub(MAX_MISSES);
    if left > 0 {
        lines.push(format!("{left} patterns before these do not match"));
    }
    for one in routes {
        if !one.matches && left > 0 {
            left -= 1;
            continue;
        }
        let mut text = format!("\"{}\"", one.pattern);
        if let Some(at) = &one.at {
            text.push_str(&format!(" ({}:{})", at.file, at.line));
        }
        match (&one.why, one.takes) {
            (_, true) => text.push_str(" takes it"),
            (Some(why), _) => text.push_str(&format!(": no, {why}")),
            (None, false) => {}
        }
        if let Some(rest) = one.rest.as_ref().filter(|_| one.matches) {
            text.push_str(&format!(", * = \"{rest}\""));
        }
        for (name, value) in &one.params {
            text.push_str(&format!(", :{name} = \"{value}\""));
        }
        lines.push(text);
        for test in one.when.iter().flat_map(|when| &when.conditions) {
            lines.push(format!("  when {}", said(test)));
        }
    }
    lines
}

fn describe_up(up: &UpTold, out: &mut String) {
    let indent = "  ".repeat(up.depth);
    let place = place(up.at.as_ref());
    let _ = writeln!(out, "{place:PLACE_COLUMN$}{indent}{}", up.step);
    for note in &up.notes {
        let _ = writeln!(out, "{:PLACE_COLUMN$}{indent}  {}", "", of_note(note));
    }
    if up.notes.is_empty() {
        let _ = writeln!(out, "{:PLACE_COLUMN$}{indent}  changes nothing", "");
    }
}

fn of_note(note: &Note) -> String {
    match note.about {
        "field" => note.text.clone(),
        about => format!("{about}: {}", note.text),
    }
}

/// A line without what could move a terminal's cursor, or hide in it.
fn harmless_line(line: &str) -> String {
    match line.strip_suffix('\n') {
        Some(text) => harmless(text) + "\n",
        None => harmless(line),
    }
}

/// Text without what could move a terminal's cursor, or hide in it.
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Letters that are shown stand for themselves, in whatever script; `escape_debug` would
        // escape quotes as well.
        let escaped = c.escape_debug();
        match c {
            '"' | '\'' | '\\' | '\t' => out.push(c),
            _ => out.extend(escaped),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        for (text, expected) in [
            ("plain \"text\" ü\n", "plain \"text\" ü\n"),
            ("a\x1b[2Jb\n", "a\\u{1b}[2Jb\n"),
            ("a\rb\u{202e}c", "a\\rb\\u{202e}c"),
        ] {
            assert_eq!(harmless_line(text), expected);
        }
    }
}
