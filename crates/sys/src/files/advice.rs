//! What the kernel is told of reads to come. It is advice: what becomes of it is no error.

use std::os::fd::AsFd;

/// Reads will be here and there, each of all that is wanted: nothing is to be read beyond them.
pub fn expect_scattered_reads(file: impl AsFd) {
    advise(file, 0, 0, Kind::Random);
}

/// These bytes will be read soon: the disk is to begin now, while nobody waits.
pub fn will_read(file: impl AsFd, offset: u64, len: u64) {
    advise(file, offset, len, Kind::WillNeed);
}

enum Kind {
    Random,
    WillNeed,
}

/// 0 bytes are all that follow.
#[cfg(target_os = "linux")]
fn advise(file: impl AsFd, offset: u64, len: u64, kind: Kind) {
    use rustix::fs::{Advice, fadvise};

    let advice = match kind {
        Kind::Random => Advice::Random,
        Kind::WillNeed => Advice::WillNeed,
    };
    let _ = fadvise(file, offset, std::num::NonZeroU64::new(len), advice);
}

#[cfg(not(target_os = "linux"))]
fn advise(_: impl AsFd, _: u64, _: u64, _: Kind) {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{expect_scattered_reads, will_read};

    #[test]
    fn advice_changes_nothing_that_is_read() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[7; 100_000]).expect("written");
        expect_scattered_reads(&file);
        will_read(&file, 4096, 8192);
        will_read(&file, u64::MAX, 1);
        let mut bytes = Vec::with_capacity(100_000);
        crate::files::fill_at(&file, 0, &mut bytes, 100_000).expect("read");
        assert_eq!(bytes, [7; 100_000]);
    }
}
