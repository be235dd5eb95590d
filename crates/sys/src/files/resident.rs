//! Whether a part of a file is in memory.

use std::io;
use std::os::fd::AsFd;

/// Whether all of `len` bytes at `offset` are in the page cache, so that sending them waits for no
/// disk; `None` where the system cannot say (before Linux 6.5, elsewhere, on some file systems).
///
/// A page that is counted may still be on its way from the disk: a reader that started it is
/// waiting for it then, and so would we, for that one page.
pub fn is_resident(file: impl AsFd, offset: u64, len: u64) -> Option<bool> {
    if len == 0 {
        return Some(true);
    }
    let pages = pages_in_memory(&file, offset, len).ok()?;
    let page = rustix::param::page_size() as u64;
    let wanted = (offset + len).div_ceil(page) - offset / page;
    Some(pages >= wanted)
}

/// cachestat(2).
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate wraps cachestat(2) yet")]
fn pages_in_memory(file: &impl AsFd, offset: u64, len: u64) -> io::Result<u64> {
    use std::os::fd::AsRawFd;

    /// The same number on every architecture that has it (unified since Linux 5.1).
    const CACHESTAT: libc::c_long = 451;

    #[repr(C)]
    struct Range {
        offset: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Counts {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = Range { offset, len };
    let mut counts = Counts::default();
    // SAFETY: both pointers are to live structures of the layout that cachestat(2) states; the
    // kernel reads the first and writes the second, and keeps neither.
    let result = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_fd().as_raw_fd(),
            &raw const range,
            &raw mut counts,
            0_u32,
        )
    };
    if result == 0 {
        Ok(counts.cached)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn pages_in_memory(_: &impl AsFd, _: u64, _: u64) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::is_resident;

    #[test]
    fn what_was_just_written_is_in_memory_and_what_is_no_file_is_not_known() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[7; 100_000]).expect("written");
        // A kernel without the call says nothing, and then nothing may be claimed.
        if let Some(resident) = is_resident(&file, 0, 100_000) {
            assert!(resident);
            assert_eq!(is_resident(&file, 50_000, 1), Some(true));
            // Beyond the end there are no pages.
            assert_eq!(is_resident(&file, 90_000, 1 << 20), Some(false));
        }
        assert_eq!(is_resident(&file, 0, 0), Some(true));
        let (reader, _writer) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert_ne!(is_resident(&reader, 0, 10), Some(true));
    }
}
