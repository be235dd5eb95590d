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
    // Most values are short: eight at a time beats what the compiler makes of a loop over bytes.
    // The last eight overlap those before them.
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().all(|&byte| is_value_byte(byte));
    };
    let (words, _) = bytes.as_chunks::<8>();
    let marks = words
        .iter()
        .fold(controls(u64::from_le_bytes(*last)), |marks, word| {
            marks | controls(u64::from_le_bytes(*word))
        });
    // HTAB, or something that may not be there.
    marks == 0 || bytes.iter().all(|&byte| is_value_byte(byte))
}

const fn is_value_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// Of eight bytes, the highest bits of those that are below 0x20 (HTAB among them) or 0x7f; the first
/// is that of the lowest byte. Borrows may set more above the lowest right one: only that one counts.
#[inline(always)]
#[must_use]
pub const fn controls(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES * 0x80;
    let below_space = word.wrapping_sub(ONES * 0x20);
    let delete = (word & !HIGH) + ONES;
    (below_space | delete) & !word & HIGH
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
    fn rfc9110_5_5_values_of_every_length() {
        for len in 0..40 {
            let mut value = vec![b'v'; len];
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    value[at] = byte;
                    let is_right = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
                    assert_eq!(is_value(&value), is_right, "{byte:#x} at {at} of {len}");
                }
                value[at] = if at % 3 == 0 { b'\t' } else { 0xFF };
            }
        }
    }

    #[test]
    fn rfc9110_5_6_3_optional_white_space_is_trimmed() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(trim(b""), b"");
    }
}
