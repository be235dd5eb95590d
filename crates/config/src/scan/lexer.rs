//! Luau's tokens, tolerantly: whatever bytes come, tokens do, in linear time.

/// A kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A name or keyword.
    Name,
    Number,
    /// Quoted or in long brackets; also one that is not closed.
    String,
    /// A piece of an interpolated string; an expression follows if `more`.
    Interpolated {
        /// Whether it is the first piece.
        first: bool,
        /// Whether an expression follows.
        more: bool,
    },
    /// An operator or anything else that is not one of the above.
    Op(&'a [u8]),
    End,
}

/// A token and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lexed<'a> {
    pub(crate) token: Token<'a>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Reads tokens one after the other, comments left out.
#[derive(Clone, Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    braces: usize,
    /// How many braces were open where each expression of an interpolated string began.
    interpolated: Vec<usize>,
}

/// Of several bytes, the longest first.
const OPERATORS: [&[u8]; 20] = [
    b"...", b"..=", b"//=", b"..", b"::", b"->", b"==", b"~=", b"<=", b">=", b"+=", b"-=", b"*=",
    b"/=", b"%=", b"^=", b"//", b"<<", b">>", b"!=",
];

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Lexer<'a> {
        Lexer {
            text,
            at: 0,
            braces: 0,
            interpolated: Vec::new(),
        }
    }

    /// The next token; `End` again and again at the end.
    pub(crate) fn next(&mut self) -> Lexed<'a> {
        self.skip_blank();
        let start = self.at;
        let token = self.token();
        Lexed {
            token,
            start,
            end: self.at,
        }
    }

    fn token(&mut self) -> Token<'a> {
        let rest = &self.text[self.at..];
        let Some(first) = rest.first() else {
            return Token::End;
        };
        match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                self.skip_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                Token::Name
            }
            b'0'..=b'9' => self.number(),
            b'.' if rest.get(1).is_some_and(u8::is_ascii_digit) => self.number(),
            b'"' | b'\'' => {
                self.at += 1;
                self.quoted(*first);
                Token::String
            }
            b'`' => {
                self.at += 1;
                self.interpolated_piece(true)
            }
            b'[' => match long_bracket(rest) {
                Some(level) => {
                    self.at += level + 2;
                    self.skip_long(level);
                    Token::String
                }
                None => self.op(1),
            },
            b'{' => {
                self.braces += 1;
                self.op(1)
            }
            b'}' => {
                if self.interpolated.last() == Some(&self.braces) {
                    self.interpolated.pop();
                    self.at += 1;
                    return self.interpolated_piece(false);
                }
                self.braces = self.braces.saturating_sub(1);
                self.op(1)
            }
            _ => {
                let known = OPERATORS.iter().find(|operator| rest.starts_with(operator));
                self.op(known.map_or(1, |operator| operator.len()))
            }
        }
    }

    fn op(&mut self, len: usize) -> Token<'a> {
        let start = self.at;
        self.at += len;
        Token::Op(&self.text[start..self.at])
    }

    fn number(&mut self) -> Token<'a> {
        let start = self.at;
        while let Some(byte) = self.text.get(self.at) {
            let sign = matches!(byte, b'+' | b'-')
                && matches!(self.text[self.at - 1], b'e' | b'E')
                && !self.text[start..].starts_with(b"0x")
                && !self.text[start..].starts_with(b"0X");
            // "1..2" is two numbers and an operator, as Luau refuses it: not our concern.
            let inner = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
            if !(inner || sign && self.at > start) {
                break;
            }
            self.at += 1;
        }
        Token::Number
    }

    /// Past the closing quote, or to the end of the line where it is missing.
    fn quoted(&mut self, quote: u8) {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'\\' => self.skip_escape(),
                b'\n' => return,
                byte => {
                    self.at += 1;
                    if *byte == quote {
                        return;
                    }
                }
            }
        }
    }

    /// Past a backslash and what it escapes: a byte, a line's end, or with `\z` all blanks.
    fn skip_escape(&mut self) {
        self.at += 1;
        match self.text.get(self.at) {
            Some(b'z') => {
                self.at += 1;
                self.skip_while(|byte| byte.is_ascii_whitespace() || byte == 0x0b);
            }
            Some(b'\r') if self.text.get(self.at + 1) == Some(&b'\n') => self.at += 2,
            Some(_) => self.at += 1,
            None => {}
        }
    }

    fn interpolated_piece(&mut self, first: bool) -> Token<'a> {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'\\' => self.skip_escape(),
                b'`' => {
                    self.at += 1;
                    break;
                }
                b'{' => {
                    self.at += 1;
                    self.interpolated.push(self.braces);
                    return Token::Interpolated { first, more: true };
                }
                b'\n' => break,
                _ => self.at += 1,
            }
        }
        Token::Interpolated { first, more: false }
    }

    fn skip_blank(&mut self) {
        loop {
            self.skip_while(|byte| byte.is_ascii_whitespace() || byte == 0x0b);
            let rest = &self.text[self.at..];
            if !rest.starts_with(b"--") {
                return;
            }
            self.at += 2;
            match long_bracket(&rest[2..]) {
                Some(level) => {
                    self.at += level + 2;
                    self.skip_long(level);
                }
                None => self.skip_while(|byte| byte != b'\n'),
            }
        }
    }

    /// Past the closing bracket of this level, or to the end.
    fn skip_long(&mut self, level: usize) {
        while let Some(found) = memchr::memchr(b']', &self.text[self.at..]) {
            self.at += found + 1;
            let rest = &self.text[self.at..];
            let equals = rest
                .iter()
                .take(level)
                .take_while(|byte| **byte == b'=')
                .count();
            if equals == level && rest.get(level) == Some(&b']') {
                self.at += level + 1;
                return;
            }
            // What was looked at is skipped, so that a row of `]=====` costs its length once.
            self.at += equals;
        }
        self.at = self.text.len();
    }

    fn skip_while(&mut self, skipped: impl Fn(u8) -> bool) {
        while self.text.get(self.at).is_some_and(|byte| skipped(*byte)) {
            self.at += 1;
        }
    }
}

/// The number of `=` if a long bracket opens here.
fn long_bracket(text: &[u8]) -> Option<usize> {
    let level = text
        .strip_prefix(b"[")?
        .iter()
        .take_while(|byte| **byte == b'=')
        .count();
    (text.get(level + 1) == Some(&b'[')).then_some(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens' bytes, with a bar between them.
    fn check(text: &str, expected: &str) {
        let mut lexer = Lexer::new(text.as_bytes());
        let mut found = Vec::new();
        loop {
            let lexed = lexer.next();
            if lexed.token == Token::End {
                break;
            }
            found.push(&text[lexed.start..lexed.end]);
        }
        assert_eq!(found.join("|"), expected);
    }

    #[test]
    fn tokens() {
        check("local a=1 -- x\nb", "local|a|=|1|b");
        check("--[[ x ]] a --[==[ ]] ]==] b", "a|b");
        check(r#"f"a\"b" 'c\\' d"#, r#"f|"a\"b"|'c\\'|d"#);
        check("[[a]b]] [=[ ]] ]=] x[1]", "[[a]b]]|[=[ ]] ]=]|x|[|1|]");
        check(
            "1e-5 0xFF 1_000 .5 a..b ...",
            "1e-5|0xFF|1_000|.5|a|..|b|...",
        );
        check("a ..= b // c // d == e", "a|..=|b|//|c|//|d|==|e");
        check(
            "`a{b}c{ {x=`q{1}`} }d` e",
            "`a{|b|}c{|{|x|=|`q{|1|}`|}|}d`|e",
        );
        check(
            "\"open\nnext \"a\\z \n b\" c",
            "\"open|next|\"a\\z \n b\"|c",
        );
        check("[==[ never closed", "[==[ never closed");
        check("@ # ?", "@|#|?");
    }
}
