//! Bodies of any size that can be made and checked piece by piece: the byte at an offset depends on
//! that offset alone, with a period that no buffer or block size divides.

/// A prime, so that bytes that were dropped, doubled or moved by any power of two are noticed.
const PERIOD: u64 = 65_521;

/// The byte at `offset`.
#[must_use]
pub fn byte_at(offset: u64) -> u8 {
    let x = offset % PERIOD;
    // Low bits of a product: neighbours differ, and so do places 256 apart.
    u8::try_from((x * 167 + (x >> 8) * 31) & 0xff).unwrap_or(0)
}

/// Fills `buf` with the bytes from `offset` on.
pub fn fill(offset: u64, buf: &mut [u8]) {
    for (i, b) in (offset..).zip(buf.iter_mut()) {
        *b = byte_at(i);
    }
}

/// The first `len` bytes.
#[must_use]
pub fn bytes(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    fill(0, &mut out);
    out
}

/// One period, doubled, out of which any piece up to a period long can be cut without computing.
#[must_use]
pub fn period() -> Vec<u8> {
    bytes(usize::try_from(PERIOD).unwrap_or(0) * 2)
}

/// Cuts up to `len` bytes that stand at `offset` out of what [`period`] made.
#[must_use]
pub fn cut(period: &[u8], offset: u64, len: usize) -> &[u8] {
    let start = usize::try_from(offset % PERIOD).unwrap_or(0);
    let end = start + len.min(period.len() / 2);
    &period[start..end]
}

/// Checks a body as it comes in.
pub struct Checker {
    period: Vec<u8>,
    offset: u64,
}

impl Default for Checker {
    fn default() -> Self {
        Self::at(0)
    }
}

impl Checker {
    /// Expects the bytes from `offset` on.
    #[must_use]
    pub fn at(offset: u64) -> Self {
        Self {
            period: period(),
            offset,
        }
    }

    /// Takes the next piece.
    ///
    /// # Panics
    /// At the first byte that is not the one expected.
    #[track_caller]
    pub fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let want = cut(&self.period, self.offset, piece.len());
            let n = want.len();
            if want != &piece[..n] {
                let at = want
                    .iter()
                    .zip(piece)
                    .position(|(a, b)| a != b)
                    .unwrap_or(0);
                panic!(
                    "body differs at offset {}: {:#04x} instead of {:#04x}",
                    self.offset + at as u64,
                    piece[at],
                    want[at]
                );
            }
            self.offset += n as u64;
            piece = &piece[n..];
        }
    }

    /// The offset of the byte expected next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}
