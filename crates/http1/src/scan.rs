//! Finding the byte where a run of ordinary bytes ends: sixteen at a time with the vector
//! instructions that every x86-64 has, else, and in the last bytes of a buffer, eight at a time in
//! a register.
//!
//! Sixteen, because names and values are so short: most end in the first or second step. With 64 in
//! a step (the `wide` crate) small heads took longer than with eight; the compiler's own vectorising
//! came and went with every other change of the code around it.
//!
//! Each function of a word sets the highest bit of the bytes that are looked for. Borrows may set
//! more *above* the lowest right one, so only the lowest mark counts.

const ONES: u64 = u64::MAX / 0xff;
const HIGH: u64 = ONES * 0x80;
const WORD: usize = 8;

/// A byte that is looked for: in a word, and in a vector, of which it gives one bit for each byte.
trait Wanted {
    fn in_word(word: u64) -> u64;

    #[cfg(target_feature = "sse2")]
    fn in_vector(vector: vector::Vector) -> u32;
}

/// Below 0x20 (HTAB among them), and 0x7f.
struct Controls;

/// Anything but visible ASCII, and `#`.
struct TargetEnds;

struct Colons;

struct Questions;

/// The first position from `from` on that holds a control character (or DEL) other than HTAB:
/// where a field value ends. `None` if there is none.
#[inline(always)]
pub(crate) fn control(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = find::<Controls>(bytes, from)?;
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
    find::<TargetEnds>(bytes, from)
}

/// The first position from `from` on that holds a colon.
#[inline(always)]
pub(crate) fn colon(bytes: &[u8], from: usize) -> Option<usize> {
    find::<Colons>(bytes, from)
}

/// The first question mark between the two positions; the second one if there is none. Looks a
/// little behind them, so that most often it takes but a step or two.
#[inline(always)]
pub(crate) fn question(bytes: &[u8], from: usize, to: usize) -> usize {
    let looked_at = bytes.get(..to + 2 * WORD).unwrap_or(bytes);
    let found = find::<Questions>(looked_at, from);
    found.map_or(to, |at| at.min(to))
}

impl Wanted for Controls {
    #[inline(always)]
    fn in_word(word: u64) -> u64 {
        forebay_fields::controls(word)
    }

    #[cfg(target_feature = "sse2")]
    #[inline(always)]
    fn in_vector(vector: vector::Vector) -> u32 {
        vector::bits(vector::at_most(vector, 0x1f) | vector::equal(vector, 0x7f))
    }
}

impl Wanted for TargetEnds {
    #[inline(always)]
    fn in_word(word: u64) -> u64 {
        let below_bang = word.wrapping_sub(ONES * 0x21) & !word;
        let delete = (word & !HIGH) + ONES;
        (below_bang | delete | word | equal(word, b'#')) & HIGH
    }

    #[cfg(target_feature = "sse2")]
    #[inline(always)]
    fn in_vector(vector: vector::Vector) -> u32 {
        let invisible = vector::at_most(vector, b' ') | vector::at_least(vector, 0x7f);
        vector::bits(invisible | vector::equal(vector, b'#'))
    }
}

impl Wanted for Colons {
    #[inline(always)]
    fn in_word(word: u64) -> u64 {
        equal(word, b':') & HIGH
    }

    #[cfg(target_feature = "sse2")]
    #[inline(always)]
    fn in_vector(vector: vector::Vector) -> u32 {
        vector::bits(vector::equal(vector, b':'))
    }
}

impl Wanted for Questions {
    #[inline(always)]
    fn in_word(word: u64) -> u64 {
        equal(word, b'?') & HIGH
    }

    #[cfg(target_feature = "sse2")]
    #[inline(always)]
    fn in_vector(vector: vector::Vector) -> u32 {
        vector::bits(vector::equal(vector, b'?'))
    }
}

#[inline(always)]
const fn equal(word: u64, byte: u8) -> u64 {
    let zero = word ^ (ONES * byte as u64);
    zero.wrapping_sub(ONES) & !zero
}

#[inline(always)]
fn find<W: Wanted>(bytes: &[u8], mut from: usize) -> Option<usize> {
    let first = |marks: u64| marks.trailing_zeros() as usize / 8;
    let mut rest = bytes.get(from..)?;
    #[cfg(target_feature = "sse2")]
    while let Some((chunk, behind)) = rest.split_first_chunk::<{ vector::BYTES }>() {
        let found = W::in_vector(vector::of(chunk));
        if found != 0 {
            return Some(from + found.trailing_zeros() as usize);
        }
        from += vector::BYTES;
        rest = behind;
    }
    while let Some((word, behind)) = rest.split_first_chunk::<WORD>() {
        let found = W::in_word(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(from + first(found));
        }
        from += WORD;
        rest = behind;
    }
    // What is left is filled up with bytes that nobody looks for.
    let mut word = [b'x'; WORD];
    word.get_mut(..rest.len())?.copy_from_slice(rest);
    let found = W::in_word(u64::from_le_bytes(word));
    (found != 0).then(|| from + first(found))
}

/// SSE2, which is a part of x86-64.
#[cfg(target_feature = "sse2")]
mod vector {
    use safe_arch::{
        cmp_eq_mask_i8_m128i as same, load_unaligned_m128i, m128i, max_u8_m128i, min_u8_m128i,
        move_mask_i8_m128i, set_splat_i8_m128i,
    };

    pub(super) type Vector = m128i;

    pub(super) const BYTES: usize = 16;

    #[inline(always)]
    pub(super) fn of(bytes: &[u8; BYTES]) -> Vector {
        load_unaligned_m128i(bytes)
    }

    #[inline(always)]
    fn all(byte: u8) -> Vector {
        set_splat_i8_m128i(byte.cast_signed())
    }

    #[inline(always)]
    pub(super) fn equal(vector: Vector, byte: u8) -> Vector {
        same(vector, all(byte))
    }

    /// There are no comparisons of unsigned bytes but by these.
    #[inline(always)]
    pub(super) fn at_most(vector: Vector, byte: u8) -> Vector {
        same(vector, min_u8_m128i(vector, all(byte)))
    }

    #[inline(always)]
    pub(super) fn at_least(vector: Vector, byte: u8) -> Vector {
        same(vector, max_u8_m128i(vector, all(byte)))
    }

    /// One bit for each byte that is marked.
    #[inline(always)]
    pub(super) fn bits(marked: Vector) -> u32 {
        move_mask_i8_m128i(marked).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Find = fn(&[u8], usize) -> Option<usize>;
    type Is = fn(u8) -> bool;

    const FINDS: [(Find, Is); 3] = [
        (control, |b| (b < b' ' && b != b'\t') || b == 0x7f),
        (target_end, |b| !matches!(b, b'!'..=b'~') || b == b'#'),
        (colon, |b| b == b':'),
    ];

    #[test]
    fn every_byte_behind_every_byte_at_every_place() {
        for (find, wanted) in FINDS {
            for pair in 0..=u16::MAX {
                for at in 0..3 * WORD + 3 {
                    let mut bytes = [b'y'; 3 * WORD + 4];
                    bytes[at..at + 2].copy_from_slice(&pair.to_be_bytes());
                    let expected = bytes.iter().position(|&b| wanted(b));
                    assert_eq!(find(&bytes, 0), expected, "{}", bytes.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn questions_are_looked_for_up_to_a_place() {
        let mut bytes = [b'y'; 5 * WORD];
        for at in 0..bytes.len() {
            bytes[at] = b'?';
            for from in 0..bytes.len() {
                for to in from..bytes.len() {
                    let expected = if (from..to).contains(&at) { at } else { to };
                    assert_eq!(question(&bytes, from, to), expected, "{at} {from} {to}");
                }
            }
            bytes[at] = b'y';
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
