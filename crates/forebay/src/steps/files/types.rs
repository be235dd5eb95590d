//! `types`: media types by the ending of a file's name, the operator's own before the usual.

use forebay_config::{Call, Code, Node};
use forebay_fields::is_token;

use crate::control::build::Builder;
use crate::files::{ending, media_type};

/// Endings and their types.
#[derive(Default)]
pub struct Types(Box<[(Box<str>, Box<str>)]>);

impl Types {
    /// Those of a call; reports what is none.
    pub fn new(call: &Call, builder: &mut Builder<'_>) -> Types {
        let mut types = Vec::new();
        for (key, value) in call.find::<&[(Node, Node)]>("types").unwrap_or_default() {
            let (ending, kind): (&str, &str) = (key.get(), value.get());
            if ending.is_empty() || ending.bytes().any(|byte| matches!(byte, b'.' | b'/' | 0)) {
                let message = format!("files: `types` cannot have the ending \"{ending}\"");
                let help = "expected what follows the last dot of a name, as `wasm`";
                builder
                    .report
                    .mistake(key.place, Code::BadValue, message, help);
            }
            if !is_media_type(kind) {
                let message = format!("files: `types` cannot have the type \"{kind}\"");
                let help = "expected TYPE/SUBTYPE, as \"text/plain; charset=utf-8\"";
                builder
                    .report
                    .mistake(value.place, Code::BadValue, message, help);
            }
            types.push((ending.to_ascii_lowercase().into(), kind.into()));
        }
        Types(types.into())
    }

    /// The type of a file of this name.
    pub fn of(&self, name: &[u8]) -> &str {
        // Nearly always empty, else short.
        let own = ending(name).and_then(|ending| {
            let mut own = self.0.iter();
            own.find(|(own, _)| own.as_bytes().eq_ignore_ascii_case(ending))
        });
        own.map_or_else(|| media_type(name), |(_, kind)| kind)
    }
}

/// RFC 9110 §8.3.1: two tokens, and parameters in what can stand in a field.
fn is_media_type(text: &str) -> bool {
    let kind = text.split(';').next().unwrap_or_default();
    let halves = kind.trim_end().split_once('/');
    halves.is_some_and(|(kind, sub)| is_token(kind.as_bytes()) && is_token(sub.as_bytes()))
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
