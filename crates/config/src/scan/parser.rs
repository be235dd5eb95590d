//! Luau's grammar, as far as it takes to know what is a call, what is a table, and where their
//! parts are. Linear: no token is looked at more than twice, nothing is tried and taken back.

use crate::scan::lexer::{Lexed, Lexer, Token};
use crate::scan::{Key, Part, Scan, Site};

/// Depth of expressions and blocks; deeper files are run, but not marked. Luau has a limit of its
/// own for what it compiles.
const MAX_DEPTH: usize = 120;

/// What the marked code calls; a source that uses these names itself is not marked.
pub(crate) const CALL: &str = "_forebay_c";
pub(crate) const TABLE: &str = "_forebay_t";

/// Scans a source. `base` is added to the numbers of the sites in the marked code.
pub fn scan(text: &[u8], base: usize) -> Scan {
    let mut lexer = Lexer::new(text);
    let current = lexer.next();
    let mut parser = Parser {
        text,
        lexer,
        current,
        last_end: 0,
        out: Vec::with_capacity(text.len() + text.len() / 2),
        copied: 0,
        pending: Vec::new(),
        found: Scan::default(),
        base,
        depth: 0,
        failed: u32::try_from(text.len()).is_err(),
    };
    // On the first line, so that no line moves.
    parser.insert(0, &format!("local {CALL},{TABLE}=...;"));
    parser.block();
    if parser.current.token != Token::End {
        parser.failed = true;
    }
    let Parser {
        mut found,
        mut out,
        copied,
        failed,
        ..
    } = parser;
    if failed {
        return Scan::default();
    }
    out.extend_from_slice(&text[copied..]);
    found.code = Some(out);
    found
}

struct Parser<'a> {
    text: &'a [u8],
    lexer: Lexer<'a>,
    current: Lexed<'a>,
    /// The end of the token before the current one.
    last_end: usize,
    out: Vec<u8>,
    /// How much of the text is in `out`.
    copied: usize,
    /// Parts of the sites that are still open, the outer ones first.
    pending: Vec<Part>,
    found: Scan,
    base: usize,
    depth: usize,
    failed: bool,
}

/// What an expression was, as far as tables care.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Never nil.
    Plain,
    /// One value, which may be nil.
    One,
    /// A call or `...`: as many values as it likes, at the end of a list.
    Many,
}

impl<'a> Parser<'a> {
    fn word(&self) -> &'a [u8] {
        match self.current.token {
            Token::Name => &self.text[self.current.start..self.current.end],
            _ => b"",
        }
    }

    fn is_op(&self, op: &[u8]) -> bool {
        matches!(self.current.token, Token::Op(found) if found == op)
    }

    fn advance(&mut self) {
        let word = self.word();
        if word == CALL.as_bytes() || word == TABLE.as_bytes() {
            self.failed = true;
        }
        self.last_end = self.current.end;
        self.current = self.lexer.next();
    }

    fn take_op(&mut self, op: &[u8]) -> bool {
        let there = self.is_op(op);
        if there {
            self.advance();
        }
        there
    }

    fn take_word(&mut self, word: &[u8]) -> bool {
        let there = self.word() == word;
        if there {
            self.advance();
        }
        there
    }

    fn expect_op(&mut self, op: &[u8]) {
        self.failed |= !self.take_op(op);
    }

    fn expect_word(&mut self, word: &[u8]) {
        self.failed |= !self.take_word(word);
    }

    /// A name that is no keyword.
    fn name(&mut self) {
        let word = self.word();
        if word.is_empty() || is_keyword(word) {
            self.failed = true;
        } else {
            self.advance();
        }
    }

    fn peek(&self) -> Token<'a> {
        self.lexer.clone().next().token
    }

    fn insert(&mut self, at: usize, marker: &str) {
        let Some(text) = self.text.get(self.copied..at) else {
            self.failed = true;
            return;
        };
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(marker.as_bytes());
        self.copied = at;
    }

    /// Enters one more level; false, and failed, where that is too deep.
    fn enter(&mut self) -> bool {
        self.depth += 1;
        self.failed |= self.depth > MAX_DEPTH;
        !self.failed
    }

    fn block(&mut self) {
        if self.enter() {
            while !self.failed && !self.ends_block() {
                self.statement();
            }
        }
        self.depth -= 1;
    }

    fn ends_block(&self) -> bool {
        self.current.token == Token::End
            || matches!(self.word(), b"end" | b"else" | b"elseif" | b"until")
    }

    fn statement(&mut self) {
        match self.word() {
            b"if" => self.if_statement(),
            b"while" => {
                self.advance();
                self.expression();
                self.body();
            }
            b"do" => self.body(),
            b"for" => self.for_statement(),
            b"repeat" => {
                self.advance();
                self.block();
                self.expect_word(b"until");
                self.expression();
            }
            b"function" => {
                self.advance();
                self.name();
                while self.take_op(b".") || self.take_op(b":") {
                    self.name();
                }
                self.function_body();
            }
            b"local" => self.local(),
            b"return" => {
                self.advance();
                if !self.ends_block() && !self.is_op(b";") {
                    self.expressions();
                }
                self.take_op(b";");
            }
            b"break" => self.advance(),
            b"continue" if !self.continues_expression() => self.advance(),
            b"export" if self.peek() == Token::Name => {
                self.advance();
                self.type_alias();
            }
            b"type" if self.peek() == Token::Name => self.type_alias(),
            _ => self.other_statement(),
        }
    }

    fn other_statement(&mut self) {
        if self.take_op(b";") {
            return;
        }
        if self.take_op(b"@") {
            // An attribute of the function that follows.
            self.name();
            return;
        }
        self.suffixed();
        while self.take_op(b",") {
            self.suffixed();
        }
        const ASSIGNING: [&[u8]; 9] = [
            b"=", b"+=", b"-=", b"*=", b"/=", b"//=", b"%=", b"^=", b"..=",
        ];
        if ASSIGNING.iter().any(|op| self.is_op(op)) {
            self.advance();
            self.expressions();
        }
    }

    /// Whether a name, `continue`, is the start of an expression here.
    fn continues_expression(&self) -> bool {
        match self.peek() {
            Token::Op(op) => !matches!(op, b";" | b"}"),
            Token::String => true,
            _ => false,
        }
    }

    fn if_statement(&mut self) {
        self.advance();
        self.expression();
        self.expect_word(b"then");
        self.block();
        while self.take_word(b"elseif") {
            self.expression();
            self.expect_word(b"then");
            self.block();
        }
        if self.take_word(b"else") {
            self.block();
        }
        self.expect_word(b"end");
    }

    fn body(&mut self) {
        self.expect_word(b"do");
        self.block();
        self.expect_word(b"end");
    }

    fn for_statement(&mut self) {
        self.advance();
        self.names();
        if !self.take_op(b"=") {
            self.expect_word(b"in");
        }
        self.expressions();
        self.body();
    }

    fn local(&mut self) {
        self.advance();
        if self.take_word(b"function") {
            self.name();
            self.function_body();
            return;
        }
        self.names();
        if self.take_op(b"=") {
            self.expressions();
        }
    }

    /// Names with their types.
    fn names(&mut self) {
        loop {
            self.name();
            if self.take_op(b":") {
                self.type_expression();
            }
            if self.failed || !self.take_op(b",") {
                return;
            }
        }
    }

    fn function_body(&mut self) {
        if self.is_op(b"<") {
            self.balanced(b"<", b">");
        }
        self.expect_op(b"(");
        while !self.failed && !self.take_op(b")") {
            if !self.take_op(b"...") {
                self.name();
            }
            if self.take_op(b":") {
                self.type_expression();
            }
            if !self.is_op(b")") {
                self.expect_op(b",");
            }
        }
        if self.take_op(b":") {
            self.type_expression();
        }
        self.block();
        self.expect_word(b"end");
    }

    fn expressions(&mut self) {
        self.expression();
        while !self.failed && self.take_op(b",") {
            self.expression();
        }
    }

    /// An expression, and what it is. Operators are not ranked: only the ends matter.
    fn expression(&mut self) -> Shape {
        let mut shape = Shape::One;
        if self.enter() {
            shape = self.operand();
            while !self.failed && self.binary_operator() {
                self.advance();
                self.operand();
                shape = Shape::One;
            }
        }
        self.depth -= 1;
        shape
    }

    fn binary_operator(&self) -> bool {
        match self.current.token {
            Token::Op(op) => matches!(
                op,
                b"+" | b"-"
                    | b"*"
                    | b"/"
                    | b"//"
                    | b"%"
                    | b"^"
                    | b".."
                    | b"=="
                    | b"~="
                    | b"<"
                    | b"<="
                    | b">"
                    | b">="
            ),
            _ => matches!(self.word(), b"and" | b"or"),
        }
    }

    fn operand(&mut self) -> Shape {
        let mut unary = false;
        while !self.failed && (self.word() == b"not" || self.is_op(b"-") || self.is_op(b"#")) {
            unary = true;
            self.advance();
        }
        let mut shape = self.simple();
        while !self.failed && self.take_op(b"::") {
            self.type_expression();
            shape = Shape::One;
        }
        if unary { Shape::One } else { shape }
    }

    fn simple(&mut self) -> Shape {
        match self.current.token {
            Token::Number | Token::String => {
                self.advance();
                return Shape::Plain;
            }
            Token::Interpolated { .. } => {
                self.interpolated();
                return Shape::Plain;
            }
            Token::Op(b"{") => {
                self.table();
                return Shape::Plain;
            }
            Token::Op(b"...") => {
                self.advance();
                return Shape::Many;
            }
            Token::Op(b"@") => {
                self.advance();
                self.name();
                return self.simple_function();
            }
            _ => {}
        }
        match self.word() {
            b"true" | b"false" => {
                self.advance();
                Shape::Plain
            }
            b"nil" => {
                self.advance();
                Shape::One
            }
            b"function" => self.simple_function(),
            b"if" => {
                self.advance();
                self.if_expression();
                Shape::One
            }
            _ => self.suffixed(),
        }
    }

    fn simple_function(&mut self) -> Shape {
        self.expect_word(b"function");
        self.function_body();
        Shape::Plain
    }

    fn if_expression(&mut self) {
        self.expression();
        self.expect_word(b"then");
        self.expression();
        while !self.failed && self.take_word(b"elseif") {
            self.expression();
            self.expect_word(b"then");
            self.expression();
        }
        self.expect_word(b"else");
        self.expression();
    }

    fn interpolated(&mut self) {
        loop {
            let Token::Interpolated { more, .. } = self.current.token else {
                self.failed = true;
                return;
            };
            self.advance();
            if !more || self.failed {
                return;
            }
            self.expression();
        }
    }

    /// A name or an expression in parentheses, and what is done to it.
    fn suffixed(&mut self) -> Shape {
        let start = self.current.start;
        if self.take_op(b"(") {
            self.expression();
            self.expect_op(b")");
        } else {
            self.name();
        }
        // What messages point at: the name with its fields, without what it is called with.
        let mut name_end = self.last_end;
        let mut only_name = true;
        let mut shape = Shape::One;
        while !self.failed {
            match self.current.token {
                Token::Op(b".") => {
                    self.advance();
                    self.failed |= self.word().is_empty();
                    self.advance();
                    if only_name {
                        name_end = self.last_end;
                    }
                    shape = Shape::One;
                }
                Token::Op(b"[") => {
                    self.advance();
                    self.expression();
                    self.expect_op(b"]");
                    only_name = false;
                    shape = Shape::One;
                }
                Token::Op(b":") => {
                    self.advance();
                    self.name();
                    self.method_arguments();
                    only_name = false;
                    shape = Shape::Many;
                }
                Token::Op(b"(" | b"{") | Token::String => {
                    self.call((start, name_end));
                    only_name = false;
                    shape = Shape::Many;
                }
                _ => break,
            }
        }
        shape
    }

    /// Methods are never directives: their arguments need no marks of their own.
    fn method_arguments(&mut self) {
        match self.current.token {
            Token::Op(b"{") => {
                self.table();
            }
            Token::String => self.advance(),
            _ => {
                self.expect_op(b"(");
                if !self.take_op(b")") {
                    self.expressions();
                    self.expect_op(b")");
                }
            }
        }
    }

    /// `f(a, b)` becomes `f(C(n,a, b))`: the arguments come first, then C notes the number, then f
    /// is called, with nothing in between. `f{…}` becomes `f(T(n,{…}))`, where T does the same.
    fn call(&mut self, span: (usize, usize)) {
        let mark = self.pending.len();
        let callee_end = self.last_end;
        let start = self.current.start;
        match self.current.token {
            Token::Op(b"{") => {
                // The parenthesis stands where the name ends: behind a line's end, Luau would take
                // it for the start of another statement.
                self.insert(callee_end, "(");
                let number = self.table();
                self.insert(self.last_end, ")");
                if let Some(site) = self.found.sites.get_mut(number - 1) {
                    site.called = Some(offsets(span.0, span.1));
                }
            }
            Token::String => {
                let number = self.open_site();
                self.insert(callee_end, &format!("({CALL}({},", number + self.base));
                self.advance();
                self.push_argument(start);
                self.insert(self.last_end, "))");
                self.close_site(number, span, mark);
            }
            _ => {
                let number = self.open_site();
                self.expect_op(b"(");
                let empty = self.is_op(b")");
                let comma = if empty { "" } else { "," };
                self.insert(
                    self.last_end,
                    &format!("{CALL}({}{comma}", number + self.base),
                );
                if !empty {
                    self.argument();
                    while !self.failed && self.take_op(b",") {
                        self.argument();
                    }
                }
                self.insert(self.current.start, ")");
                self.expect_op(b")");
                self.close_site(number, span, mark);
            }
        }
    }

    fn argument(&mut self) {
        let start = self.current.start;
        self.expression();
        self.push_argument(start);
    }

    fn push_argument(&mut self, start: usize) {
        let span = offsets(start, self.last_end);
        self.pending.push(Part {
            key: Key::Item,
            key_span: span,
            value_span: span,
        });
    }

    /// `{…}` becomes `T(n,{…},m)`; m items at its start must not be nil. Returns n.
    fn table(&mut self) -> usize {
        let mark = self.pending.len();
        let number = self.open_site();
        let start = self.current.start;
        self.insert(start, &format!("{TABLE}({},", number + self.base));
        self.expect_op(b"{");
        let (mut items, mut doubtful) = (0_usize, false);
        let mut many = false;
        while !self.failed && !self.is_op(b"}") {
            let (item, shape) = self.entry();
            many = item && shape == Shape::Many;
            if item {
                items += 1;
                doubtful |= shape != Shape::Plain;
            }
            if !self.take_op(b",") && !self.take_op(b";") {
                break;
            }
        }
        self.expect_op(b"}");
        let sure = if many { items.saturating_sub(1) } else { items };
        match doubtful && sure > 0 {
            true => self.insert(self.last_end, &format!(",{sure})")),
            false => self.insert(self.last_end, ")"),
        }
        self.close_site(number, (start, self.last_end), mark);
        number
    }

    /// An entry of a table: whether it is an item, and what its value is.
    fn entry(&mut self) -> (bool, Shape) {
        let key_start = self.current.start;
        let mut key = Key::Item;
        let mut key_span = None;
        if self.take_op(b"[") {
            let inner = self.current;
            let literal = matches!(inner.token, Token::String | Token::Number);
            self.expression();
            let alone = literal && self.last_end == inner.end;
            key = if alone { Key::Literal } else { Key::Computed };
            key_span = Some(offsets(inner.start, self.last_end));
            self.expect_op(b"]");
            self.expect_op(b"=");
        } else if self.current.token == Token::Name && self.peek() == Token::Op(b"=") {
            key = Key::Name;
            self.name();
            key_span = Some(offsets(key_start, self.last_end));
            self.advance();
        }
        let start = self.current.start;
        let shape = self.expression();
        let value_span = offsets(start, self.last_end);
        self.pending.push(Part {
            key,
            key_span: key_span.unwrap_or(value_span),
            value_span,
        });
        (key == Key::Item, shape)
    }

    /// Takes a number for a site that begins here.
    fn open_site(&mut self) -> usize {
        self.found.sites.push(Site {
            span: (0, 0),
            called: None,
            first: 0,
            count: 0,
        });
        self.found.sites.len()
    }

    fn close_site(&mut self, number: usize, span: (usize, usize), mark: usize) {
        let parts = self.found.parts.len();
        self.found.parts.extend(self.pending.drain(mark..));
        let (first, end) = offsets(parts, self.found.parts.len());
        if let Some(site) = self.found.sites.get_mut(number - 1) {
            *site = Site {
                span: offsets(span.0, span.1),
                called: None,
                first,
                count: end - first,
            };
        }
    }

    fn type_alias(&mut self) {
        self.expect_word(b"type");
        if self.take_word(b"function") {
            self.name();
            self.function_body();
            return;
        }
        self.name();
        if self.is_op(b"<") {
            self.balanced(b"<", b">");
        }
        self.expect_op(b"=");
        self.type_expression();
    }

    /// A type, without a look at what it means.
    fn type_expression(&mut self) {
        while !self.failed {
            self.take_op(b"|");
            self.take_op(b"&");
            match self.current.token {
                Token::Op(b"{") => self.balanced(b"{", b"}"),
                Token::Op(b"(") => self.balanced(b"(", b")"),
                Token::Op(b"...") => {
                    self.advance();
                    continue;
                }
                Token::String => self.advance(),
                _ => {
                    let word = self.word();
                    if is_keyword(word) && !matches!(word, b"nil" | b"true" | b"false") {
                        self.failed = true;
                        return;
                    }
                    self.failed |= word.is_empty();
                    self.advance();
                    while self.take_op(b".") {
                        self.name();
                    }
                    if self.is_op(b"<") {
                        self.balanced(b"<", b">");
                    }
                    if self.is_op(b"...") {
                        self.advance();
                    }
                    if self.is_op(b"(") {
                        // typeof(…)
                        self.balanced(b"(", b")");
                    }
                }
            }
            while self.take_op(b"?") {}
            if !(self.is_op(b"|") || self.is_op(b"&") || self.take_op(b"->")) {
                return;
            }
        }
    }

    /// From one bracket to the one that closes it.
    fn balanced(&mut self, open: &[u8], close: &[u8]) {
        let mut depth = 0_usize;
        while !self.failed {
            match self.current.token {
                Token::End => self.failed = true,
                Token::Op(op) if op == open => depth += 1,
                Token::Op(op) if op == close => depth -= 1,
                Token::Op(b">>") if close == b">" => depth = depth.saturating_sub(2),
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return;
            }
        }
    }
}

fn offsets(start: usize, end: usize) -> (u32, u32) {
    // The scan fails at once for a text that is longer than this.
    let cut = |offset| u32::try_from(offset).unwrap_or(u32::MAX);
    (cut(start), cut(end))
}

fn is_keyword(word: &[u8]) -> bool {
    matches!(
        word,
        b"and"
            | b"break"
            | b"do"
            | b"else"
            | b"elseif"
            | b"end"
            | b"false"
            | b"for"
            | b"function"
            | b"if"
            | b"in"
            | b"local"
            | b"nil"
            | b"not"
            | b"or"
            | b"repeat"
            | b"return"
            | b"then"
            | b"true"
            | b"until"
            | b"while"
    )
}
