//! A strict HTTP/1 response reader (RFC 9112), written for the tests alone: what the server's own
//! codec would forgive, this one reports. No I/O: it asks a [`Source`] for more bytes.

use std::fmt;

/// Why no whole response came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The connection ended cleanly before the first byte.
    Closed,
    /// The connection ended cleanly within a response.
    Truncated,
    /// The connection was reset.
    Reset,
    /// Nothing came within the time.
    Timeout,
    /// What came is not HTTP/1; the sentence says why.
    Malformed(String),
    /// Any other error of the socket.
    Io(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection was closed before a response"),
            Self::Truncated => f.write_str("the connection was closed within a response"),
            Self::Reset => f.write_str("the connection was reset"),
            Self::Timeout => f.write_str("nothing came in time"),
            Self::Malformed(why) => write!(f, "not HTTP/1: {why}"),
            Self::Io(why) => f.write_str(why),
        }
    }
}

/// Where bytes come from.
pub trait Source {
    /// What has come in and was not yet consumed.
    fn pending(&self) -> &[u8];
    /// Drops the first `n` pending bytes.
    fn consume(&mut self, n: usize);
    /// Waits for more pending bytes: how many came, 0 at a clean end.
    ///
    /// # Errors
    /// `Reset`, `Timeout`, `Io`.
    fn fill(&mut self) -> Result<usize, Trouble>;
}

/// A name and a value, as they came but for the white space around the value.
pub type Field = (String, String);

/// A status line and its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// 0 or 1.
    pub minor: u8,
    /// 100 to 599.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// In the order they came.
    pub fields: Vec<Field>,
    /// The bytes, the empty line included.
    pub raw: Vec<u8>,
}

/// How the end of a body was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The kind of response or request has no body.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status line and fields.
    pub head: Head,
    /// The body, decoded.
    pub body: Vec<u8>,
    /// What followed a chunked body.
    pub trailers: Vec<Field>,
    /// The 1xx responses that came before.
    pub interim: Vec<Head>,
    /// How the end of the body was told.
    pub framing: Framing,
}

impl Head {
    /// The value of the field that occurs at most once.
    ///
    /// # Panics
    /// When it occurs more than once.
    #[track_caller]
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} occurs {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// The values of all fields of this name.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        find_all(&self.fields, name)
    }

    /// Whether a comma-separated field holds this token.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        has_token(&self.fields, name, token)
    }
}

impl Response {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// As [`Head::field`].
    ///
    /// # Panics
    /// When it occurs more than once.
    #[track_caller]
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[track_caller]
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// Expects this status and returns the response for more.
    ///
    /// # Panics
    /// When it is another one.
    #[track_caller]
    #[must_use]
    pub fn expect(self, status: u16) -> Self {
        assert!(
            self.status() == status,
            "status {} instead of {status}: {}",
            self.status(),
            crate::journal::escape(&self.body)
        );
        self
    }

    /// Whether the server said that it closes the connection after this response.
    #[must_use]
    pub fn says_close(&self) -> bool {
        if self.head.minor == 0 {
            return !self.head.has_token("connection", "keep-alive");
        }
        self.head.has_token("connection", "close")
    }
}

/// The values of all fields of this name.
#[must_use]
pub fn find_all<'a>(fields: &'a [Field], name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.as_str())
        .collect()
}

/// Whether a comma-separated field holds this token.
#[must_use]
pub fn has_token(fields: &[Field], name: &str, token: &str) -> bool {
    find_all(fields, name)
        .iter()
        .flat_map(|v| v.split(','))
        .any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// Reads a head without its body, 1xx ones put aside into `interim`.
///
/// # Errors
/// See [`Trouble`].
pub fn read_head(source: &mut dyn Source, interim: &mut Vec<Head>) -> Result<Head, Trouble> {
    loop {
        let raw = read_head_bytes(source)?;
        let head = parse_head(&raw).map_err(Trouble::Malformed)?;
        if head.status >= 200 || head.status == 101 {
            return Ok(head);
        }
        check_no_framing(&head).map_err(Trouble::Malformed)?;
        interim.push(head);
    }
}

fn read_head_bytes(source: &mut dyn Source) -> Result<Vec<u8>, Trouble> {
    loop {
        let pending = source.pending();
        if let Some(end) = find(pending, b"\r\n\r\n") {
            let raw = pending[..end + 4].to_vec();
            source.consume(end + 4);
            return Ok(raw);
        }
        if !pending.is_empty() && !b"HTTP/1.".starts_with(&pending[..pending.len().min(7)]) {
            return Err(Trouble::Malformed("it does not begin with HTTP/1.".into()));
        }
        if pending.len() > 1 << 20 {
            return Err(Trouble::Malformed("a head of more than 1 MiB".into()));
        }
        let empty = pending.is_empty();
        if source.fill()? == 0 {
            return Err(if empty {
                Trouble::Closed
            } else {
                Trouble::Truncated
            });
        }
    }
}

/// Parses a response head that ends in an empty line.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_head(raw: &[u8]) -> Result<Head, String> {
    let text = raw.strip_suffix(b"\r\n").ok_or("a head without an end")?;
    let mut lines = split_lines(text)?.into_iter();
    let line = lines.next().ok_or("an empty head")?;
    let line = std::str::from_utf8(line).map_err(|_| "a status line that is not text")?;
    let rest = line.strip_prefix("HTTP/1.").ok_or("not HTTP/1")?;
    let minor = match rest.as_bytes().first() {
        Some(b'0') => 0,
        Some(b'1') => 1,
        _ => return Err(format!("version in {line:?}")),
    };
    let rest = rest[1..]
        .strip_prefix(' ')
        .ok_or("no space after the version")?;
    let (code, reason) = rest
        .split_once(' ')
        .ok_or("no space after the status (RFC 9112 section 4)")?;
    if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("status {code:?}"));
    }
    let status: u16 = code.parse().map_err(|_| format!("status {code:?}"))?;
    if !(100..600).contains(&status) {
        return Err(format!("status {status}"));
    }
    if reason.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        return Err("a control character in the reason".into());
    }
    let fields = lines.map(parse_field).collect::<Result<Vec<_>, _>>()?;
    Ok(Head {
        minor,
        status,
        reason: reason.into(),
        fields,
        raw: raw.to_vec(),
    })
}

/// Splits at CRLF; a CR or LF anywhere else is an error, as is a missing last CRLF.
fn split_lines(mut text: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    while !text.is_empty() {
        let end = find(text, b"\r\n").ok_or("a line without CRLF")?;
        let line = &text[..end];
        if line.iter().any(|&b| b == b'\r' || b == b'\n') {
            return Err("a bare CR or LF".into());
        }
        lines.push(line);
        text = &text[end + 2..];
    }
    Ok(lines)
}

fn parse_field(line: &[u8]) -> Result<Field, String> {
    let shown = || line.escape_ascii().to_string();
    let colon = line
        .iter()
        .position(|&b| b == b':')
        .ok_or_else(|| format!("field {}", shown()))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_tchar) {
        return Err(format!("field name in {}", shown()));
    }
    if value.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return Err(format!("a control character in {}", shown()));
    }
    let value = String::from_utf8_lossy(value);
    Ok((
        String::from_utf8_lossy(name).into(),
        value.trim_matches([' ', '\t']).into(),
    ))
}

fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn check_no_framing(head: &Head) -> Result<(), String> {
    for name in ["content-length", "transfer-encoding"] {
        if !head.all(name).is_empty() {
            return Err(format!(
                "{name} in a {} (RFC 9110 section 8.6)",
                head.status
            ));
        }
    }
    Ok(())
}

/// How the body of the response to a request of this method ends (RFC 9112 section 6.3).
///
/// # Errors
/// A sentence when the fields contradict each other or the status.
pub fn framing(head: &Head, method: &str) -> Result<Framing, String> {
    let lengths = head.all("content-length");
    let codings = head.all("transfer-encoding");
    if !codings.is_empty() && !lengths.is_empty() {
        return Err("both Content-Length and Transfer-Encoding".into());
    }
    if lengths.len() > 1 {
        return Err("several Content-Length".into());
    }
    if head.minor == 0 && !codings.is_empty() {
        return Err("Transfer-Encoding in HTTP/1.0".into());
    }
    let length = lengths.first().map(|v| parse_length(v)).transpose()?;
    if matches!(head.status, 100..=199 | 204) {
        check_no_framing(head)?;
        return Ok(Framing::None);
    }
    if method == "HEAD" || head.status == 304 {
        return Ok(Framing::None);
    }
    match codings.as_slice() {
        [] => {}
        [one] if one.eq_ignore_ascii_case("chunked") => return Ok(Framing::Chunked),
        other => return Err(format!("Transfer-Encoding {other:?}")),
    }
    if let Some(n) = length {
        return Ok(Framing::Length(n));
    }
    if head.minor == 1 && !head.has_token("connection", "close") {
        return Err("a body until the end of the connection, without Connection: close".into());
    }
    Ok(Framing::UntilClose)
}

fn parse_length(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Content-Length {text:?}"));
    }
    text.parse().map_err(|_| format!("Content-Length {text:?}"))
}

/// Reads a body part by part.
#[derive(Debug)]
pub struct Body {
    state: State,
    /// What followed a chunked body; filled when the last part was read.
    pub trailers: Vec<Field>,
}

#[derive(Debug)]
enum State {
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

impl Body {
    /// A reader for a body with this framing.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            trailers: Vec::new(),
        }
    }

    /// The next part, or `None` when the body is whole.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn next(&mut self, source: &mut dyn Source) -> Result<Option<Vec<u8>>, Trouble> {
        loop {
            match self.state {
                State::Done => return Ok(None),
                State::Length(left) => {
                    let part = take(source, left)?;
                    let left = left - part.len() as u64;
                    self.state = if left == 0 {
                        State::Done
                    } else {
                        State::Length(left)
                    };
                    return Ok(Some(part));
                }
                State::UntilClose => {
                    if source.pending().is_empty() && source.fill()? == 0 {
                        self.state = State::Done;
                        return Ok(None);
                    }
                    return take(source, u64::MAX).map(Some);
                }
                State::ChunkSize => {
                    let line = read_line(source)?;
                    let size = chunk_size(&line).map_err(Trouble::Malformed)?;
                    self.state = if size == 0 {
                        State::Trailers
                    } else {
                        State::Chunk(size)
                    };
                }
                State::Chunk(left) => {
                    let part = take(source, left)?;
                    let left = left - part.len() as u64;
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::Chunk(left)
                    };
                    return Ok(Some(part));
                }
                State::ChunkEnd => {
                    if !read_line(source)?.is_empty() {
                        return Err(Trouble::Malformed("a chunk longer than its size".into()));
                    }
                    self.state = State::ChunkSize;
                }
                State::Trailers => {
                    let line = read_line(source)?;
                    if line.is_empty() {
                        self.state = State::Done;
                        continue;
                    }
                    self.trailers
                        .push(parse_field(&line).map_err(Trouble::Malformed)?);
                }
            }
        }
    }
}

/// At least one and at most `limit` bytes.
fn take(source: &mut dyn Source, limit: u64) -> Result<Vec<u8>, Trouble> {
    if source.pending().is_empty() && source.fill()? == 0 {
        return Err(Trouble::Truncated);
    }
    let pending = source.pending();
    let n = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .min(pending.len());
    let part = pending[..n].to_vec();
    source.consume(n);
    Ok(part)
}

fn read_line(source: &mut dyn Source) -> Result<Vec<u8>, Trouble> {
    loop {
        let pending = source.pending();
        if let Some(end) = find(pending, b"\r\n") {
            let line = pending[..end].to_vec();
            source.consume(end + 2);
            if line.iter().any(|&b| b == b'\r' || b == b'\n') {
                return Err(Trouble::Malformed(
                    "a bare CR or LF in a chunked body".into(),
                ));
            }
            return Ok(line);
        }
        if pending.len() > 65_536 {
            return Err(Trouble::Malformed(
                "a line of more than 64 KiB in a chunked body".into(),
            ));
        }
        if source.fill()? == 0 {
            return Err(Trouble::Truncated);
        }
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, String> {
    let shown = line.escape_ascii().to_string();
    if line.is_empty() || line.len() > 16 || !line.iter().all(u8::is_ascii_hexdigit) {
        return Err(format!("chunk size \"{shown}\""));
    }
    let text = std::str::from_utf8(line).map_err(|_| format!("chunk size \"{shown}\""))?;
    u64::from_str_radix(text, 16).map_err(|_| format!("chunk size \"{shown}\""))
}

/// The offset at which `needle` first stands in `hay`.
#[must_use]
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>, Vec<u8>);

    impl Source for Bytes {
        fn pending(&self) -> &[u8] {
            &self.0
        }
        fn consume(&mut self, n: usize) {
            self.0.drain(..n);
        }
        /// One byte at a time: every reader is tested in every split.
        fn fill(&mut self) -> Result<usize, Trouble> {
            if self.1.is_empty() {
                return Ok(0);
            }
            self.0.push(self.1.remove(0));
            Ok(1)
        }
    }

    fn read(bytes: &str, method: &str) -> Result<(u16, String, Vec<Field>), Trouble> {
        let mut source = Bytes(Vec::new(), bytes.as_bytes().to_vec());
        let head = read_head(&mut source, &mut Vec::new())?;
        let mut body = Body::new(framing(&head, method).map_err(Trouble::Malformed)?);
        let mut all = Vec::new();
        while let Some(part) = body.next(&mut source)? {
            all.extend(part);
        }
        assert_eq!(source.1, b"", "bytes left");
        Ok((
            head.status,
            String::from_utf8_lossy(&all).into(),
            body.trailers,
        ))
    }

    #[test]
    fn bodies_by_rfc9112_6_3() {
        let check = |bytes, method, status, body: &str| {
            assert_eq!(
                read(bytes, method),
                Ok((status, body.into(), vec![])),
                "{bytes}"
            );
        };
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "GET",
            200,
            "abc",
        );
        check(
            "HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n",
            "HEAD",
            200,
            "",
        );
        check(
            "HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n",
            "GET",
            304,
            "",
        );
        check("HTTP/1.1 204 x\r\n\r\n", "GET", 204, "");
        check("HTTP/1.0 200 x\r\n\r\nabc", "GET", 200, "abc");
        check(
            "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n",
            "GET",
            200,
            "",
        );
        let chunked = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(
            &format!("{chunked}2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
            "GET",
            200,
            "abc",
        );
        assert_eq!(
            read(&format!("{chunked}0\r\nX: y\r\n\r\n"), "GET"),
            Ok((200, String::new(), vec![("X".into(), "y".into())]))
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |bytes: &str, want: &str| {
            let got = read(bytes, "GET").expect_err(bytes).to_string();
            assert!(got.contains(want), "{bytes:?}: {got}");
        };
        check("", "closed before");
        check("HTTP/1.1 200", "closed within");
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "closed within",
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            "several",
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
            "Content-Length",
        );
        check("HTTP/1.1 200\r\n\r\n", "no space after the status");
        check("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "field name");
        check("HTTP/1.1 200 OK\r\nA: b\nc\r\n\r\n", "bare CR or LF");
        check(
            "HTTP/1.1 204 OK\r\nContent-Length: 0\r\n\r\n",
            "content-length in a 204",
        );
        check("HTTP/1.1 200 OK\r\n\r\n", "without Connection: close");
        check("<html>", "does not begin");
        let chunked = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(
            &format!("{chunked}2\r\nabc\r\n0\r\n\r\n"),
            "longer than its size",
        );
        check(&format!("{chunked}2;a=b\r\nab\r\n0\r\n\r\n"), "chunk size");
        check(&format!("{chunked}2\r\nab\r\n0\r\n"), "closed within");
    }
}
