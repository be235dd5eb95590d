//! Values of the directive tables, written in the language: defaults are parsed by the same types
//! as what an operator writes.

use std::path::Path;
use std::rc::Rc;

use crate::check::{Checker, Slot};
use crate::directive::Type;
use crate::place::Place;
use crate::raw::{Entry, MAX_DEPTH, Raw, RawTable, RawValue};
use crate::report::Report;
use crate::scan::{Lexer, Token};
use crate::value::Node;

/// Reads a literal (`"10s"`, `5`, `true`, `{ 1, 2, a = "b" }`) as this type. The error is a
/// sentence.
pub(crate) fn literal(text: &str, ty: &Type, dir: &Path) -> Result<Node, String> {
    let mut reader = Reader {
        text,
        lexer: Lexer::new(text.as_bytes()),
    };
    let raw = reader
        .value(0)
        .ok_or_else(|| format!("not a literal: {text}"))?;
    if reader.lexer.next().token != Token::End {
        return Err(format!("more than one literal: {text}"));
    }
    let mut checker = Checker::new(dir.to_owned(), Report::default(), Vec::new());
    let subject = || "default".to_owned();
    let slot = Slot {
        subject: &subject,
        parent: None,
        name: "value",
    };
    let node = checker.value(&raw, ty, &slot);
    let wrong = checker.report.mistakes();
    match (node, wrong.first()) {
        (Some(node), None) => Ok(node),
        (_, Some(first)) => Err(format!("{}: {}", first.message, first.help)),
        (None, None) => Err(format!("of another type: {text}")),
    }
}

struct Reader<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<Raw> {
        let lexed = self.lexer.next();
        let text = self.text.get(lexed.start..lexed.end)?;
        let value = match lexed.token {
            Token::Name => match text {
                "true" => RawValue::Boolean(true),
                "false" => RawValue::Boolean(false),
                _ => return None,
            },
            Token::Number => RawValue::Number(text.parse().ok()?),
            Token::String => RawValue::Text(unquoted(text)?.into()),
            Token::Op(b"{") if depth < MAX_DEPTH => {
                RawValue::Table(Rc::new(self.table(depth + 1)?))
            }
            _ => return None,
        };
        Some(Raw {
            value,
            place: Place::NONE,
        })
    }

    fn table(&mut self, depth: usize) -> Option<RawTable> {
        let mut table = RawTable::default();
        loop {
            let before = self.lexer.clone();
            let lexed = self.lexer.next();
            match lexed.token {
                Token::Op(b"}") => return Some(table),
                Token::Op(b",") => continue,
                Token::Name if self.lexer.clone().next().token == Token::Op(b"=") => {
                    let name = self.text.get(lexed.start..lexed.end)?;
                    self.lexer.next();
                    let value = RawValue::Text(name.into());
                    let key = Raw {
                        value,
                        place: Place::NONE,
                    };
                    table.keys.push(Entry {
                        key,
                        value: self.value(depth)?,
                    });
                }
                _ => {
                    self.lexer = before;
                    table.items.push(self.value(depth)?);
                }
            }
        }
    }
}

/// The text of a quoted string; defaults need no escapes but `\"` and `\\`.
fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\\\"", "\"").replace("\\\\", "\\"))
}
