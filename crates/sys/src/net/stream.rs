//! Reading and writing sockets that do not block.
//!
//! The C library's `recv` and `send` are cancellation points: in a process with threads each of
//! them switches asynchronous cancellation on and off, two locked instructions a call. These are the
//! bare system calls. What that saves is within the noise of a measurement (0.4 % of a small
//! request, side by side); what it is kept for is that they read into spare room and take flags.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use bytes::BufMut;
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::spare::{advance, spare};

/// Reads what has come, at most the next contiguous free part of `buffer`, which must not be empty.
/// 0 is the end.
pub fn read(socket: impl AsFd, buffer: &mut impl BufMut) -> io::Result<usize> {
    let n = {
        let spare = spare(buffer, usize::MAX);
        if spare.is_empty() {
            return Ok(0);
        }
        retry_on_intr(|| rustix::io::read(&socket, &mut *spare).map(|(filled, _)| filled.len()))?
    };
    advance(buffer, n);
    Ok(n)
}

/// Looks at what has come without taking it. 0 is the end.
pub fn peek(socket: impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    let (n, _) = retry_on_intr(|| recv(&socket, &mut *into, RecvFlags::PEEK))?;
    Ok(n)
}

/// Takes as much as `into` holds, or what there is.
pub fn take(socket: impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    let (n, _) = retry_on_intr(|| recv(&socket, &mut *into, RecvFlags::empty()))?;
    Ok(n)
}

/// Writes some of `bytes`. `more`: so much follows at once that a segment cut short here would be
/// wasted (`MSG_MORE`; elsewhere than on Linux the kernel decides itself).
pub fn write(socket: impl AsFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    let mut flags = SendFlags::NOSIGNAL;
    #[cfg(target_os = "linux")]
    flags.set(SendFlags::MORE, more);
    let _ = more;
    Ok(retry_on_intr(|| send(&socket, bytes, flags))?)
}

/// Writes some of `slices`, in order.
///
/// There is no flag against `SIGPIPE` here; Rust's start-up code has it ignored.
pub fn writev(socket: impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::io::writev(&socket, slices))?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().expect("a pair");
        a.set_nonblocking(true).expect("non-blocking");
        b.set_nonblocking(true).expect("non-blocking");
        (a, b)
    }

    #[test]
    fn what_is_looked_at_stays_until_it_is_taken() {
        let (a, b) = pair();
        let mut into = [0; 4];
        let nothing = peek(&b, &mut into).expect_err("nothing yet");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        write(&a, b"abcdef", false).expect("written");
        for _ in 0..2 {
            assert_eq!(peek(&b, &mut into).expect("some"), 4);
            assert_eq!(&into, b"abcd");
        }
        assert_eq!(take(&b, &mut into[..3]).expect("some"), 3);
        assert_eq!(take(&b, &mut into).expect("the rest"), 3);
        assert_eq!(&into[..3], b"def");
        drop(a);
        assert_eq!(peek(&b, &mut into).expect("the end"), 0);
    }

    #[test]
    fn what_is_written_is_read_and_the_end_is_zero() {
        let (a, b) = pair();
        let mut buffer = bytes::BytesMut::with_capacity(8);
        assert_eq!(
            read(&b, &mut buffer).expect_err("nothing yet").kind(),
            ErrorKind::WouldBlock
        );
        assert_eq!(write(&a, b"abc", true).expect("written"), 3);
        let slices = [IoSlice::new(b"de"), IoSlice::new(b"fghij")];
        assert_eq!(writev(&a, &slices).expect("written"), 7);
        // No more than there is room for.
        assert_eq!(read(&b, &mut buffer).expect("read"), 8);
        assert_eq!(&buffer[..], b"abcdefgh");
        buffer.clear();
        assert_eq!(read(&b, &mut buffer).expect("read"), 2);
        drop(a);
        assert_eq!(read(&b, &mut buffer).expect("the end"), 0);
        assert_eq!(
            write(&b, b"x", false).expect_err("gone").kind(),
            ErrorKind::BrokenPipe
        );
    }
}
