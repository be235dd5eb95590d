//! What programs print, taken apart into lines.

use bytes::{Buf, BytesMut};

/// Bytes of a line; the rest of a longer one is left out.
const MAX_LINE: usize = 1024;

/// Takes lines off a buffer.
#[derive(Default)]
pub struct Split {
    /// The line that comes is longer than what was taken of it.
    is_cut: bool,
}

impl Split {
    /// Gives every line that is complete, or too long; blank ones are left out.
    pub fn each(&mut self, held: &mut BytesMut, mut line: impl FnMut(&[u8])) {
        loop {
            let end = memchr::memchr(b'\n', held);
            let taken = match end {
                Some(end) => {
                    let taken = held.split_to(end);
                    held.advance(1);
                    (!std::mem::take(&mut self.is_cut)).then_some(taken)
                }
                None if held.len() > MAX_LINE => {
                    let taken = held.split();
                    (!std::mem::replace(&mut self.is_cut, true)).then_some(taken)
                }
                None => return,
            };
            if let Some(taken) = taken {
                let taken = taken.strip_suffix(b"\r").unwrap_or(&taken);
                if !taken.trim_ascii().is_empty() {
                    line(taken.get(..MAX_LINE).unwrap_or(taken));
                }
            }
        }
    }

    /// The last line, which has no end.
    pub fn rest(&mut self, held: &mut BytesMut) -> Option<BytesMut> {
        let rest = held.split();
        (!self.is_cut && !rest.trim_ascii().is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_every_split() {
        let long = "x".repeat(3 * MAX_LINE);
        let text = format!("one\r\n\n  \ntwo\n{long}\nthree\nunended");
        for step in [1, 2, 7, 1_000, text.len()] {
            let (mut split, mut held) = (Split::default(), BytesMut::new());
            let mut lines = Vec::new();
            for piece in text.as_bytes().chunks(step) {
                held.extend_from_slice(piece);
                split.each(&mut held, |line| {
                    lines.push(String::from_utf8(line.to_vec()).expect("a text"));
                });
                assert!(held.len() <= MAX_LINE);
            }
            let rest = split.rest(&mut held).expect("a rest");
            assert_eq!(&rest[..], b"unended");
            let cut = lines.remove(2);
            assert!(cut.len() <= MAX_LINE && cut.bytes().all(|byte| byte == b'x'));
            assert_eq!(lines, ["one", "two", "three"], "in pieces of {step}");
        }
    }
}
