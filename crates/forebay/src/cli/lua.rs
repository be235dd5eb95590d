//! Writing values into a configuration that a command makes up.

use std::fmt::Write as _;

/// A Lua text that means exactly this one, whatever is in it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            // Three digits, so that one that follows is not taken for a part of it.
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\{:03}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The same for an option that is a template, where `$` starts a variable.
pub fn quote_template(text: &str) -> String {
    quote(&text.replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::source::Source;

    /// What a configuration with this value sees of it.
    fn seen(value: &str) -> String {
        let check = format!("site {{ \"*\", respond(200, {}) }}", quote_template(value));
        let loaded = Source::Text(check).load().unwrap_or_else(|report| {
            panic!("{}", report.render());
        });
        let template: &forebay_config::Template = loaded.declarations[0].steps[0].get("TEXT");
        template.as_literal().map(str::to_owned).unwrap_or_default()
    }

    #[test]
    fn every_text_comes_through() {
        for text in [
            "plain",
            r#"with "quotes" and \ backslashes \n"#,
            "lines\nof\r\ntext\ttabbed\u{b}1\u{7f}2",
            "$host $$ ${path} $",
            "]] --[[ ]=] --",
            "\") } } os.exit() --",
            "ä€😀",
            "\u{1}23",
        ] {
            assert_eq!(seen(text), text);
        }
    }

    proptest::proptest! {
        // Each case runs a configuration.
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_comes_through(text in "[ -~\\n\\t\\u{1}\\u{e4}$\"\\\\]{1,40}") {
            proptest::prop_assert_eq!(seen(&text), text);
        }
    }
}
