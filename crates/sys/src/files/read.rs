//! Reading at an offset, with and without waiting, and sending a file to a socket.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use bytes::BufMut;
use rustix::io::retry_on_intr;

use crate::spare::{advance, spare};

/// Reads what is in memory already: up to `max` bytes at `offset`, appended to `buffer`.
///
/// * `Ok(Some(n))`: `n` bytes were appended. Fewer than asked for may mean that only the first
///   part was in memory; `Some(0)` is the end of the file (or `max`, or the room, was 0).
/// * `Ok(None)`: nothing can be said without waiting: the data is not in memory, or the kernel or
///   the file system cannot tell. Call [`read_at`] where waiting is allowed.
///
/// Never grows a buffer that has room: reserve first. At most the next contiguous free part of
/// `buffer` is filled.
pub fn read_now(
    file: impl AsFd,
    offset: u64,
    buffer: &mut impl BufMut,
    max: usize,
) -> io::Result<Option<usize>> {
    nowait::read(file.as_fd(), offset, buffer, max)
}

/// Reads up to `max` bytes at `offset` and appends them to `buffer`, waiting for the disk if it
/// must. May return fewer bytes than there are; 0 is the end of the file (or `max`, or the room in
/// `buffer`, was 0). As with [`read_now`], reserve room first.
pub fn read_at(
    file: impl AsFd,
    offset: u64,
    buffer: &mut impl BufMut,
    max: usize,
) -> io::Result<usize> {
    let file = file.as_fd();
    let n = {
        let spare = spare(buffer, max);
        if spare.is_empty() {
            return Ok(0);
        }
        retry_on_intr(|| {
            rustix::io::pread(file, &mut *spare, offset).map(|(filled, _)| filled.len())
        })?
    };
    advance(buffer, n);
    Ok(n)
}

/// Reads until `len` bytes are appended or the file ends; returns how many were. Waits.
pub fn fill_at(
    file: impl AsFd,
    offset: u64,
    buffer: &mut impl BufMut,
    len: usize,
) -> io::Result<usize> {
    let mut done = 0;
    while done < len {
        let n = read_at(&file, offset + done as u64, buffer, len - done)?;
        if n == 0 {
            break;
        }
        done += n;
    }
    Ok(done)
}

/// Sends up to `max` bytes at `offset` of `file` to `socket` and returns how many were taken; 0 is
/// the end of the file. `WouldBlock` if the socket takes none now.
///
/// The file's pages are not copied on Linux, so they may change until the client has acknowledged
/// them; and a page that is not in memory is waited for: ask [`read_now`] first. Elsewhere at most
/// 64 KiB are read and written.
pub fn send_file(socket: impl AsFd, file: impl AsFd, offset: u64, max: usize) -> io::Result<usize> {
    send::send(socket.as_fd(), file.as_fd(), offset, max)
}

#[cfg(target_os = "linux")]
mod nowait {
    use std::{
        ffi::c_int,
        io,
        os::fd::{AsRawFd, BorrowedFd},
    };

    use bytes::BufMut;

    pub(super) fn read(
        file: BorrowedFd<'_>,
        offset: u64,
        buffer: &mut impl BufMut,
        max: usize,
    ) -> io::Result<Option<usize>> {
        let n = {
            let spare = crate::spare::spare(buffer, max);
            if spare.is_empty() {
                return Ok(Some(0));
            }
            let iov = libc::iovec {
                iov_base: spare.as_mut_ptr().cast(),
                iov_len: spare.len(),
            };
            loop {
                match preadv2(file, &iov, offset) {
                    Ok(n) => break n,
                    Err(e) => match e.raw_os_error() {
                        Some(libc::EINTR) => {}
                        // Not in memory; or a file system (EOPNOTSUPP), a kernel (ENOSYS) or a
                        // container's filter (EPERM) that does not know the call.
                        Some(libc::EAGAIN | libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM) => {
                            return Ok(None);
                        }
                        _ => return Err(e),
                    },
                }
            }
        };
        crate::spare::advance(buffer, n);
        Ok(Some(n))
    }

    #[expect(
        unsafe_code,
        reason = "no safe preadv2 into uninitialised memory exists"
    )]
    fn preadv2(file: BorrowedFd<'_>, iov: &libc::iovec, offset: u64) -> io::Result<usize> {
        const ONE: c_int = 1;
        let Ok(offset) = i64::try_from(offset) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        #[cfg(not(target_env = "gnu"))]
        use libc::preadv2 as call;
        #[cfg(target_env = "gnu")]
        use libc::preadv64v2 as call;
        // SAFETY: `iov` describes memory that the caller holds a mutable borrow of for the whole
        // call, and the kernel writes at most `iov_len` bytes there; the descriptor is borrowed,
        // so it is open. rustix's `preadv2` takes initialised memory only.
        let n = unsafe { call(file.as_raw_fd(), iov, ONE, offset, libc::RWF_NOWAIT) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
mod nowait {
    use std::{io, os::fd::BorrowedFd};

    use bytes::BufMut;

    /// No portable way exists to read only what is in memory.
    pub(super) fn read(
        _: BorrowedFd<'_>,
        _: u64,
        _: &mut impl BufMut,
        _: usize,
    ) -> io::Result<Option<usize>> {
        Ok(None)
    }
}

mod send {
    use super::{BorrowedFd, io, read_at, retry_on_intr};

    #[cfg(target_os = "linux")]
    pub(super) fn send(
        socket: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        max: usize,
    ) -> io::Result<usize> {
        let mut at = offset;
        match retry_on_intr(|| rustix::fs::sendfile(socket, file, Some(&mut at), max)) {
            // A file system without sendfile (EINVAL) still can be read.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                by_copy(socket, file, offset, max)
            }
            sent => Ok(sent?),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) use by_copy as send;

    /// The portable way: read a piece, write it.
    pub(super) fn by_copy(
        socket: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        max: usize,
    ) -> io::Result<usize> {
        const PIECE: usize = 64 * 1024;
        let max = max.min(PIECE);
        let mut piece = Vec::with_capacity(max);
        if read_at(file, offset, &mut piece, max)? == 0 {
            return Ok(0);
        }
        Ok(retry_on_intr(|| rustix::io::write(socket, &piece))?)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    /// The portable way beside `sendfile`: the tests of `send_file` cover the other one.
    #[test]
    fn a_file_can_be_sent_by_copying() {
        let content: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let (socket, mut client) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all
        });
        let mut sent = 0;
        loop {
            let n = send::by_copy(socket.as_fd(), file.as_fd(), sent, usize::MAX).unwrap();
            assert!(n <= 64 * 1024);
            if n == 0 {
                break;
            }
            sent += n as u64;
        }
        drop(socket);
        assert!(reader.join().unwrap() == content);

        let (socket, _client) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let full = loop {
            if let Err(e) = send::by_copy(socket.as_fd(), file.as_fd(), 0, usize::MAX) {
                break e;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
}
