//! Finding the byte where a run of ordinary bytes ends, eight at a time in a register.
//!
//! Vector instructions were tried, through the compiler's own vectorising (it stopped to do so with
//! every other change of the code around it) and through the `wide` crate, 64 bytes in a step:
//! names and values are so short that both were slower than this, above all for small heads.
//!
//! Each function of a word sets the highest bit of the bytes that are looked for. Borrows may set
//! more *above* the lowest right one, so only the lowest mark counts.

const ONES: u64 = u64::MAX / 0xff;
const HIGH: u64 = ONES * 0x80;
const WORD: usize = 8;

/// The first position from `from` on that holds a control character (or DEL) other than HTAB:
/// where a field value ends. `None` if there is none.
#[inline(always)]
pub(crate) fn control(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = find(bytes, from, controls)?;
        if bytes.get(at) != Some(&b'\t') {
            return Some(at);
        }
        from = at + 1;
    }
}

/// The first position from `from` on that holds anything but visible ASCII, or `#`: where a
/// request target ends.
#[inline(always)]
pub(crate) fn target_end(bytes: &[u8], from: usize) -> Option<usize> {
    find(bytes, from, target_ends)
}

/// The first position from `from` on that holds a colon.
#[inline(always)]
pub(crate) fn colon(bytes: &[u8], from: usize) -> Option<usize> {
    find(bytes, from, colons)
}

/// Below 0x20 (HTAB among them), and 0x7f.
#[inline(always)]
const fn controls(word: u64) -> u64 {
    let below_space = word.wrapping_sub(ONES * 0x20);
    let delete = (word & !HIGH) + ONES;
    (below_space | delete) & !word & HIGH
}

#[inline(always)]
const fn target_ends(word: u64) -> u64 {
    let below_bang = word.wrapping_sub(ONES * 0x21) & !word;
    let delete = (word & !HIGH) + ONES;
    (below_bang | delete | word | equal(word, b'#')) & HIGH
}

#[inline(always)]
const fn colons(word: u64) -> u64 {
    equal(word, b':') & HIGH
}

#[inline(always)]
const fn equal(word: u64, byte: u8) -> u64 {
    let zero = word ^ (ONES * byte as u64);
    zero.wrapping_sub(ONES) & !zero
}

#[inline(always)]
fn find(bytes: &[u8], mut from: usize, marks: impl Fn(u64) -> u64) -> Option<usize> {
    let first = |marks: u64| marks.trailing_zeros() as usize / 8;
    let mut rest = bytes.get(from..)?;
    while let Some((word, behind)) = rest.split_first_chunk::<WORD>() {
        let found = marks(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(from + first(found));
        }
        from += WORD;
        rest = behind;
    }
    // What is left is filled up with bytes that nobody looks for.
    let mut word = [b'x'; WORD];
    word.get_mut(..rest.len())?.copy_from_slice(rest);
    let found = marks(u64::from_le_bytes(word));
    (found != 0).then(|| from + first(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Find = fn(&[u8], usize) -> Option<usize>;
    type Wanted = fn(u8) -> bool;

    const FINDS: [(Find, Wanted); 3] = [
        (control, |b| (b < b' ' && b != b'\t') || b == 0x7f),
        (target_end, |b| !matches!(b, b'!'..=b'~') || b == b'#'),
        (colon, |b| b == b':'),
    ];

    #[test]
    fn every_byte_behind_every_byte_at_every_place() {
        for (find, wanted) in FINDS {
            for pair in 0..=u16::MAX {
                for at in 0..2 * WORD + 3 {
                    let mut bytes = [b'y'; 2 * WORD + 4];
                    bytes[at..at + 2].copy_from_slice(&pair.to_be_bytes());
                    let expected = bytes.iter().position(|&b| wanted(b));
                    assert_eq!(find(&bytes, 0), expected, "{}", bytes.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn from_every_place() {
        for (find, wanted) in FINDS {
            let bytes =
                b"aaa\tbbbbbbbbb:ccccccccccc \t\t\t\t\t\t\t\t\tddddddddd\x80\xff#\x7f\x1f:::\n";
            for from in 0..bytes.len() + 3 {
                let expected = bytes
                    .iter()
                    .skip(from)
                    .position(|&b| wanted(b))
                    .map(|n| n + from);
                assert_eq!(find(bytes, from), expected, "from {from}");
            }
        }
    }
}
