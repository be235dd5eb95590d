//! Where names stand on a line: Luau says only on which line an unknown one was read.

use rustc_hash::FxHashMap;

use crate::scan::{Lexer, Token};

/// The names of one source that could be globals.
pub(crate) struct Names {
    /// Spans, and whether it is read there (rather than assigned, or the key of a table), in order.
    found: Vec<(usize, usize, bool)>,
    /// What the source declares as local.
    locals: Vec<String>,
    /// How many of a name on a line were given out.
    given: FxHashMap<(usize, String, bool), usize>,
}

impl Names {
    pub(crate) fn new(text: &[u8]) -> Names {
        let mut lexer = Lexer::new(text);
        let mut names = Names {
            found: Vec::new(),
            locals: Vec::new(),
            given: FxHashMap::default(),
        };
        let mut before = Token::End;
        // Between `local` and `=`, names are being declared.
        let mut declaring = false;
        let mut current = lexer.next();
        while current.token != Token::End {
            let next = lexer.next();
            let word = &text[current.start..current.end];
            match current.token {
                Token::Name if word == b"local" => declaring = true,
                Token::Name if matches!(before, Token::Op(b"." | b":")) => {}
                Token::Name if declaring => {
                    if let Ok(word) = std::str::from_utf8(word) {
                        names.locals.push(word.to_owned());
                    }
                    declaring = next.token == Token::Op(b",") || word == b"function";
                }
                Token::Name => {
                    let read = next.token != Token::Op(b"=");
                    names.found.push((current.start, current.end, read));
                }
                Token::Op(b",") => {}
                _ => declaring = false,
            }
            before = current.token;
            current = next;
        }
        names.locals.sort_unstable();
        names.locals.dedup();
        names
    }

    pub(crate) fn locals(&self) -> &[String] {
        &self.locals
    }

    /// The next span of this name within a line's range. The error says whether there was any.
    pub(crate) fn next(
        &mut self,
        text: &[u8],
        line: (usize, usize),
        name: &str,
        read: bool,
    ) -> Result<(usize, usize), bool> {
        let first = self.found.partition_point(|(start, ..)| *start < line.0);
        let in_line = self.found[first..]
            .iter()
            .take_while(|(start, ..)| *start < line.1);
        let same = in_line
            .filter(|(start, end, is_read)| {
                &text[*start..*end] == name.as_bytes() && (*is_read || !read)
            })
            .map(|(start, end, _)| (*start, *end));
        let given = self
            .given
            .entry((line.0, name.to_owned(), read))
            .or_insert(0);
        let found = same.clone().nth(*given);
        *given += 1;
        match found {
            Some(span) => Ok(span),
            // With none on the line, the line itself is reported, once.
            None if *given == 1 => Err(false),
            None => Err(true),
        }
    }
}
