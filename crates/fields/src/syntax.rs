//! The character classes of RFC 9110 §5.5 and §5.6.2.

/// Which bytes are `tchar` (RFC 9110 §5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "byte < 256")]
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether `byte` may stand in a token, e.g. in a field name (RFC 9110 §5.6.2).
#[inline]
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Whether `bytes` is a token: one or more token characters.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

/// Whether `bytes` may stand in a field value: no control character but HTAB (RFC 9110 §5.5).
///
/// Bytes from 0x80 on pass: they are opaque, and origins do send them.
#[must_use]
pub fn is_value(bytes: &[u8]) -> bool {
    // Without a branch per byte, so that the compiler can do 16 or 32 at a time.
    bytes.iter().fold(true, |ok, &b| {
        ok & (((b >= b' ') & (b != 0x7f)) | (b == b'\t'))
    })
}

/// `value` without leading and trailing SP and HTAB (`OWS`, RFC 9110 §5.6.3).
#[inline]
#[must_use]
pub(crate) const fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_5_6_2_tokens() {
        assert!(is_token(b"x-Foo_1.2~!#$%&'*+^`|"));
        for bad in [
            b"".as_slice(),
            b" a",
            b"a b",
            b"a:",
            b"a\r",
            b"a\n",
            b"a\0",
            b"\"a\"",
            b"\x80",
        ] {
            assert!(!is_token(bad), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn rfc9110_5_5_values() {
        for good in [b"".as_slice(), b"a\tb c", b"caf\xc3\xa9", b"~\x80\xff"] {
            assert!(is_value(good), "{}", good.escape_ascii());
        }
        for bad in [b"\r".as_slice(), b"\n", b"\0", b"a\x0bb", b"a\x7f", b"\x1f"] {
            assert!(!is_value(bad), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn rfc9110_5_6_3_optional_white_space_is_trimmed() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(trim(b""), b"");
    }
}
