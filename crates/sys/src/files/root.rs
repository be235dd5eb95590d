//! Opening files below a root directory, whatever links and renames happen meanwhile.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::{Errno, retry_on_intr},
};

use super::walk;

/// Which symbolic links below a root are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Links {
    /// Those that never leave the root, at no step. A link with an absolute path leaves it, even
    /// if it would come back.
    #[default]
    Inside,
    /// None.
    None,
    /// All, wherever they lead.
    Any,
}

/// How paths are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// By the kernel in one call (`openat2`), if it can; else as [`Resolver::Walk`].
    Kernel,
    /// Component by component, no link followed by the kernel: works everywhere.
    Walk,
}

/// A directory below which files are opened.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("a.txt"), "hello")?;
/// use forebay_sys::files::{Facts, Links, Root};
///
/// let root = Root::open_dir(dir.path())?;
/// let file = match root.open_now(b"a.txt", Links::Inside) {
///     // Not in memory: this call belongs on a thread pool.
///     Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => root.open(b"a.txt", Links::Inside)?,
///     opened => opened?,
/// };
/// assert_eq!(Facts::of(&file)?.len, 5);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    kernel: Kernel,
}

/// What the kernel can do for this root, found out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Nothing,
    /// `openat2` (Linux 5.6).
    Beneath,
    /// `RESOLVE_CACHED`, too (Linux 5.12).
    Cached,
}

impl Root {
    /// Opens a directory as a root. It stays the same directory if it is renamed or replaced.
    pub fn open_dir(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_dir_with(path, Resolver::Kernel)
    }

    /// As [`Root::open_dir`], with a chosen way of resolving paths.
    pub fn open_dir_with(path: impl AsRef<Path>, resolver: Resolver) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry_on_intr(|| openat(CWD, path.as_ref(), flags, Mode::empty()))?;
        let kernel = match resolver {
            Resolver::Kernel => beneath::probe(&dir),
            Resolver::Walk => Kernel::Nothing,
        };
        Ok(Self { dir, kernel })
    }

    /// Whether [`Root::open_now`] can ever succeed here.
    #[must_use]
    pub fn can_open_now(&self) -> bool {
        self.kernel == Kernel::Cached
    }

    /// Opens `path` for reading if that needs no disk.
    ///
    /// `path` is relative to the root and decoded: segments between `/`; empty is the root itself.
    /// Directories open, too, and so do pipes and devices: look at [`Facts`](super::Facts).
    ///
    /// # Errors
    ///
    /// `WouldBlock`: not known without waiting, call [`Root::open`] where waiting is allowed.
    /// `InvalidInput`: `path` starts with `/`, has a segment `..`, or contains NUL: the caller
    /// failed to refuse it. A link that `links` forbids: see [`is_link_refused`]. Else what the
    /// system says: `NotFound`, `PermissionDenied`, `NotADirectory` …
    pub fn open_now(&self, path: &[u8], links: Links) -> io::Result<File> {
        check(path)?;
        if !self.can_open_now() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        beneath::open(&self.dir, name(path), links, beneath::Wait::Never)
    }

    /// Opens `path` for reading and waits for the disk if it must. Path and errors are those of
    /// [`Root::open_now`], without `WouldBlock`.
    pub fn open(&self, path: &[u8], links: Links) -> io::Result<File> {
        check(path)?;
        match (self.kernel, links) {
            (Kernel::Nothing, Links::Any) => {
                let file = retry_on_intr(|| openat(&self.dir, name(path), READ, Mode::empty()))?;
                Ok(file.into())
            }
            (Kernel::Nothing, _) => walk::open(&self.dir, path, links == Links::Inside),
            _ => beneath::open(&self.dir, name(path), links, beneath::Wait::Allowed),
        }
    }
}

/// Whether an open failed because a symbolic link was not to be followed: it leaves the root, or
/// none is allowed, or they go round in a circle.
#[must_use]
pub fn is_link_refused(error: &io::Error) -> bool {
    [Errno::XDEV, Errno::LOOP]
        .into_iter()
        .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

/// Never blocks on a pipe (NONBLOCK), never becomes our terminal (NOCTTY), never reaches a child.
pub(super) const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// The kernel would allow `..` below the root; but then a path has many names, and with
/// [`Links::Any`] nothing would hold it.
fn check(path: &[u8]) -> io::Result<()> {
    let bad = path.first() == Some(&b'/')
        || path.contains(&0)
        || path.split(|&b| b == b'/').any(|segment| segment == b"..");
    if bad {
        Err(io::ErrorKind::InvalidInput.into())
    } else {
        Ok(())
    }
}

fn name(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(if path.is_empty() { b"." } else { path })
}

#[cfg(target_os = "linux")]
mod beneath {
    use rustix::fs::{ResolveFlags, openat2};

    use super::{Errno, File, Kernel, Links, Mode, OFlags, OsStr, OwnedFd, READ, io};

    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(super) enum Wait {
        Never,
        Allowed,
    }

    /// Old kernels say ENOSYS or EINVAL, containers that do not know the call EPERM.
    pub(super) fn probe(dir: &OwnedFd) -> Kernel {
        let can = |resolve| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let opened = openat2(
                dir,
                ".",
                flags,
                Mode::empty(),
                ResolveFlags::BENEATH | resolve,
            );
            // EAGAIN: understood, but not in memory just now.
            matches!(opened, Ok(_) | Err(Errno::AGAIN))
        };
        if !can(ResolveFlags::empty()) {
            Kernel::Nothing
        } else if !can(ResolveFlags::CACHED) {
            Kernel::Beneath
        } else {
            Kernel::Cached
        }
    }

    pub(super) fn open(dir: &OwnedFd, name: &OsStr, links: Links, wait: Wait) -> io::Result<File> {
        // The kernel answers EAGAIN if a directory was renamed while it was resolving `..` in a
        // link; whoever renames without end must not keep us here.
        const TRIES: usize = 16;
        let mut resolve = match links {
            Links::Inside => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            Links::None => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            Links::Any => ResolveFlags::empty(),
        };
        if wait == Wait::Never {
            resolve |= ResolveFlags::CACHED;
        }
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match openat2(dir, name, READ, Mode::empty(), resolve) {
                Ok(file) => return Ok(file.into()),
                Err(Errno::INTR) if tries > 0 => {}
                Err(Errno::AGAIN) if tries > 0 && wait == Wait::Allowed => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod beneath {
    use super::{File, Kernel, Links, OsStr, OwnedFd, io};

    #[derive(Clone, Copy)]
    pub(super) enum Wait {
        Never,
        Allowed,
    }

    pub(super) fn probe(_: &OwnedFd) -> Kernel {
        Kernel::Nothing
    }

    /// Not reached: `probe` promises nothing.
    pub(super) fn open(_: &OwnedFd, _: &OsStr, _: Links, _: Wait) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
