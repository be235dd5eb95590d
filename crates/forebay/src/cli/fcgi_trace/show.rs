//! What was seen, as text for a terminal or as lines of JSON.

use std::fmt::Write as _;

use forebay_fastcgi::RecordType;
use serde_json::{Value, json};

use super::conversation::{Data, Means, Pairs, Seen, What};
use crate::explain;
use crate::trace::Who;

/// How much of it is shown.
#[derive(Clone, Copy)]
pub struct Show {
    /// Bytes of each record's data.
    pub body: usize,
    /// Data as hexadecimal digits, also where they are text.
    pub hex: bool,
    /// A line of JSON for each record.
    pub json: bool,
}

/// Bytes in a line of hexadecimal digits.
const HEX_LINE: usize = 16;
/// Under a record's own line.
const INDENT: &str = "                     ";

impl Show {
    /// Adds it to `out`, with its line's end.
    pub fn push(&self, seen: &Seen, out: &mut String) {
        if self.json {
            out.push_str(&self.line_of_json(seen).to_string());
            out.push('\n');
        } else {
            self.text(seen, out);
        }
    }

    fn text(&self, seen: &Seen, out: &mut String) {
        let day = seen.time % 86_400_000_000;
        let (s, us) = (day / 1_000_000, day % 1_000_000);
        let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
        let _ = write!(out, "{h:02}:{m:02}:{s:02}.{us:06} #{}", seen.connection);
        if seen.id != 0 {
            let _ = write!(out, "/{}", seen.id);
        }
        let arrow = match seen.who {
            Who::Server => "→",
            Who::Application => "←",
        };
        match &seen.what {
            What::Note(text) => {
                let _ = writeln!(out, " {arrow} ({})", harmless(text.as_bytes()));
            }
            What::Record { kind, len, means } => {
                let _ = write!(out, " {arrow} {} {len} bytes", type_name(*kind));
                self.means(means, out);
            }
        }
    }

    fn means(&self, means: &Means, out: &mut String) {
        match means {
            Means::Nothing => out.push('\n'),
            Means::StreamEnd => out.push_str(": the end of the stream\n"),
            Means::Text(text) => {
                let _ = writeln!(out, ": {}", harmless(text.as_bytes()));
            }
            Means::Pairs(pairs) => {
                let s = if pairs.len() == 1 { "" } else { "s" };
                let _ = writeln!(out, ": {} value{s} in all", pairs.len());
                push_pairs(pairs, " = ", out);
            }
            Means::Data(data) => {
                out.push('\n');
                push_pairs(&data.head, ": ", out);
                self.data(data, out);
            }
        }
    }

    fn data(&self, data: &Data, out: &mut String) {
        if data.withheld {
            let _ = writeln!(out, "{INDENT}| (names a secret; --secrets shows it)");
            return;
        }
        let body = data.body.as_ref();
        let shown = body.get(..self.body).unwrap_or(body);
        match text_of(shown).filter(|_| !self.hex) {
            Some(text) => {
                for line in text.split_inclusive('\n') {
                    let line = line.strip_suffix('\n').unwrap_or(line);
                    let line = line.strip_suffix('\r').unwrap_or(line);
                    let _ = writeln!(out, "{INDENT}| {}", harmless(line.as_bytes()));
                }
            }
            None => push_hex(shown, out),
        }
        if body.len() > shown.len() {
            let _ = writeln!(out, "{INDENT}| … {} bytes more", body.len() - shown.len());
        }
    }

    fn line_of_json(&self, seen: &Seen) -> Value {
        let mut line = json!({
            "time": seconds(seen.time),
            "connection": seen.connection,
            "from": match seen.who {
                Who::Server => "server",
                Who::Application => "application",
            },
        });
        let (kind, len, means) = match &seen.what {
            What::Note(text) => {
                line["note"] = json!(text);
                return line;
            }
            What::Record { kind, len, means } => (kind, len, means),
        };
        line["id"] = json!(seen.id);
        line["type"] = json!(type_name(*kind).trim_end());
        line["length"] = json!(len);
        match means {
            Means::Nothing => {}
            Means::StreamEnd => line["end"] = json!(true),
            Means::Text(text) => line["text"] = json!(text),
            Means::Pairs(pairs) => line["values"] = pairs_of_json(pairs),
            Means::Data(data) => {
                if !data.head.is_empty() {
                    line["head"] = pairs_of_json(&data.head);
                }
                self.data_of_json(data, &mut line);
            }
        }
        line
    }

    fn data_of_json(&self, data: &Data, line: &mut Value) {
        if data.withheld {
            line["withheld"] = json!(true);
            return;
        }
        let body = data.body.as_ref();
        let shown = body.get(..self.body).unwrap_or(body);
        match text_of(shown).filter(|_| !self.hex) {
            Some(text) => line["data"] = json!(text),
            None => {
                let mut hex = String::with_capacity(2 * shown.len());
                for byte in shown {
                    let _ = write!(hex, "{byte:02x}");
                }
                line["hex"] = json!(hex);
            }
        }
        if body.len() > shown.len() {
            line["cut"] = json!(body.len() - shown.len());
        }
    }
}

/// Exact to the microsecond until the year 2255, as far as a 64-bit float goes.
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds since 1970 have 51 bits"
)]
fn seconds(time: u64) -> f64 {
    time as f64 / 1e6
}

/// As wide as the longest.
fn type_name(kind: u8) -> String {
    let name = match RecordType::of(kind) {
        Some(RecordType::BeginRequest) => "BEGIN_REQUEST",
        Some(RecordType::AbortRequest) => "ABORT_REQUEST",
        Some(RecordType::EndRequest) => "END_REQUEST",
        Some(RecordType::Params) => "PARAMS",
        Some(RecordType::Stdin) => "STDIN",
        Some(RecordType::Stdout) => "STDOUT",
        Some(RecordType::Stderr) => "STDERR",
        Some(RecordType::Data) => "DATA",
        Some(RecordType::GetValues) => "GET_VALUES",
        Some(RecordType::GetValuesResult) => "GET_VALUES_RESULT",
        Some(RecordType::UnknownType) => "UNKNOWN_TYPE",
        None => return format!("TYPE_{kind:<8}"),
    };
    format!("{name:<13}")
}

fn push_pairs(pairs: &Pairs, between: &str, out: &mut String) {
    for (name, value) in pairs {
        let (name, value) = (harmless(name), harmless(value));
        let _ = writeln!(out, "{INDENT}{name}{between}{value}");
    }
}

fn push_hex(bytes: &[u8], out: &mut String) {
    for line in bytes.chunks(HEX_LINE) {
        let _ = write!(out, "{INDENT}|");
        for byte in line {
            let _ = write!(out, " {byte:02x}");
        }
        for _ in line.len()..HEX_LINE {
            out.push_str("   ");
        }
        let shown = |&byte: &u8| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        };
        let text: String = line.iter().map(shown).collect();
        let _ = writeln!(out, "  {text}");
    }
}

/// Names and values may repeat, so they are a list and no object.
fn pairs_of_json(pairs: &Pairs) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = pairs
        .iter()
        .map(|(name, value)| json!([text(name), text(value)]));
    Value::Array(pairs.collect())
}

/// Text, if it is one but for a character that was cut at the end.
fn text_of(bytes: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            let whole = bytes.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).unwrap_or_default()
        }
        Err(_) => return None,
    };
    let strange = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\x1b');
    (!text.contains(strange)).then_some(text)
}

/// Bytes as text that does nothing to a terminal.
fn harmless(bytes: &[u8]) -> String {
    explain::harmless(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const SHOW: Show = Show {
        body: 8,
        hex: false,
        json: false,
    };

    fn seen(means: Means) -> Seen {
        Seen {
            time: 3_723_000_004,
            connection: 7,
            who: Who::Application,
            id: 1,
            what: What::Record {
                kind: 6,
                len: 12,
                means,
            },
        }
    }

    fn data(body: &'static [u8]) -> Means {
        Means::Data(Data {
            body: Bytes::from_static(body),
            ..Data::default()
        })
    }

    fn text(show: Show, means: Means) -> String {
        let mut out = String::new();
        show.push(&seen(means), &mut out);
        out
    }

    #[test]
    fn a_terminal_is_safe_from_what_is_shown() {
        let pairs = vec![(b"A\x1b[2J".to_vec(), "b\r\u{202e}".as_bytes().to_vec())];
        let lines = text(SHOW, Means::Pairs(pairs));
        assert_eq!(
            lines,
            format!(
                "01:02:03.000004 #7/1 ← STDOUT        12 bytes: 1 value in all\n\
                 {INDENT}A\\u{{1b}}[2J = b\\r\\u{{202e}}\n"
            )
        );
        assert!(text(SHOW, data(b"a\x1bc\n")).ends_with("| a\\u{1b}c\n"));
    }

    #[test]
    fn data_are_text_or_digits_and_cut() {
        let lines = text(SHOW, data(b"one\r\ntwo and more"));
        assert!(
            lines.ends_with(&format!(
                "{INDENT}| one\n{INDENT}| two\n{INDENT}| … 9 bytes more\n"
            )),
            "{lines}"
        );
        let digits = text(SHOW, data(b"\xff\x00a"));
        assert!(digits.contains("| ff 00 61 "), "{digits}");
        assert!(digits.ends_with("  ..a\n"), "{digits}");
        let json = Show { json: true, ..SHOW };
        let line: Value = serde_json::from_str(&text(json, data(b"\xffabcdefghi"))).expect("JSON");
        assert_eq!(line["hex"], "ff61626364656667");
        assert_eq!(line["cut"], 2);
        assert_eq!(line["from"], "application");
        assert_eq!(line["type"], "STDOUT");
    }
}
