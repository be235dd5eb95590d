//! What memory costs beside what was asked for.

/// How much the server's allocator gives for so many bytes: mimalloc has four sizes between each
/// power of two and the next. What is weighed by what was asked for alone takes a tenth more than
/// it weighs.
#[must_use]
pub const fn room(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=64 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
    }
}

/// The two counts before everything in an [`Arc`](std::sync::Arc).
pub(crate) const COUNTS_BYTES: usize = 2 * size_of::<usize>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_four_sizes_between_powers_of_two() {
        for (asked, given) in [
            (0, 0),
            (1, 8),
            (9, 16),
            (42, 48),
            (64, 64),
            (65, 80),
            (128, 128),
            (129, 160),
            (193, 224),
            (375, 384),
            (385, 448),
            (1024, 1024),
            (1025, 1280),
            (8192, 8192),
            (65_536, 65_536),
        ] {
            assert_eq!(room(asked), given, "{asked}");
        }
    }
}
