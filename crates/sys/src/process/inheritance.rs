//! What a program that this process executes gets from it, and what it does not.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsFd, RawFd},
};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Whether a descriptor is closed when another program is executed.
pub fn set_close_on_exec(fd: impl AsFd, close: bool) -> io::Result<()> {
    let mut flags = fcntl_getfd(&fd)?;
    flags.set(FdFlags::CLOEXEC, close);
    Ok(fcntl_setfd(&fd, flags)?)
}

/// Marks every descriptor but standard input, output and error as closed on exec. What Forebay
/// opens is so anyway; what it was given (a service manager's sockets, a shell's leftovers) is not,
/// and a child that holds a listener would keep its port taken.
pub fn close_all_on_exec() -> io::Result<()> {
    if at_once() { Ok(()) } else { one_by_one() }
}

/// `close_range` with `CLOSE_RANGE_CLOEXEC`: Linux 5.11.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe function exists that only marks")]
fn at_once() -> bool {
    // SAFETY: the call takes no pointers, and with this flag it closes nothing: no owner of a
    // descriptor loses it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            c_int::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    done == 0
}

#[cfg(not(target_os = "linux"))]
fn at_once() -> bool {
    false
}

/// The portable way: ask for each number that may be open.
#[expect(
    unsafe_code,
    reason = "a number that may not be open cannot be borrowed"
)]
fn one_by_one() -> io::Result<()> {
    // A descriptor may lie above a limit that was lowered since; such are rare enough.
    const MOST: u64 = 65_536;
    let end = RawFd::try_from(super::nofile().min(MOST)).unwrap_or(RawFd::MAX);
    for fd in FIRST..end {
        // SAFETY: F_GETFD and F_SETFD take no pointers, close nothing, and fail with EBADF if the
        // number is not in use.
        let marked = unsafe {
            match libc::fcntl(fd, libc::F_GETFD) {
                -1 => continue,
                flags => libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC),
            }
        };
        if marked == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The first descriptor after standard error.
const FIRST: c_int = 3;

/// From now on SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 do nothing to this process: for
/// one whose life is bound to another. Programs it executes get the default actions back, which would not be so
/// if the signals were ignored (signal(7)).
#[expect(
    unsafe_code,
    reason = "no safe function installs a handler that does nothing"
)]
pub fn disregard() -> io::Result<()> {
    extern "C" fn nothing(_: c_int) {}

    let ours = [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ];
    for signal in ours {
        // SAFETY: the handler does nothing, so it is async-signal-safe; `action` is a plain C
        // struct for which all zeroes are valid (no flags, no restorer), its mask is then set up
        // by `sigemptyset`, and both pointers are valid for the calls.
        let set = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn closes(fd: &File) -> bool {
        fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC)
    }

    /// Both ways mark what is open, and leave standard error to those who come.
    #[test]
    fn every_descriptor_is_marked() {
        let standard_before = fcntl_getfd(std::io::stderr()).unwrap();
        for mark in [close_all_on_exec, one_by_one] {
            let files: Vec<_> = (0..20).map(|_| File::open("/dev/null").unwrap()).collect();
            for file in &files {
                set_close_on_exec(file, false).unwrap();
                assert!(!closes(file));
            }
            mark().unwrap();
            assert!(files.iter().all(closes));
        }
        assert_eq!(fcntl_getfd(std::io::stderr()).unwrap(), standard_before);
    }
}
