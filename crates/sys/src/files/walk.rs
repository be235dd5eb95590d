//! Opening below a root without `openat2`: one component at a time.
//!
//! The kernel is never asked to follow a link or to go up: every component is opened with
//! `O_NOFOLLOW` in the directory that was opened before it, links are read and resolved here, and
//! `..` in a link goes back to the descriptor that is held for the directory above. So a rename or
//! a changed link between two steps can make the walk fail, or end in the file that was meant a
//! moment before, but never outside of what the root contained when each step was made.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, openat, readlinkat},
    io::{Errno, retry_on_intr},
};

use super::root::READ;

/// What Linux allows, too.
const MAX_LINKS: usize = 40;
/// Directories held open at once.
const MAX_DEPTH: usize = 128;
/// Components still to be resolved; links can multiply them.
const MAX_COMPONENTS: usize = 4_096;

/// Opens `path`, whose segments the caller has checked: relative, no `..`, no NUL.
pub(super) fn open(root: &OwnedFd, path: &[u8], follow: bool) -> io::Result<File> {
    let mut walk = Walk {
        root,
        dirs: Vec::new(),
        todo: Vec::new(),
        links: 0,
        follow,
    };
    walk.push(path)?;
    walk.run()
}

struct Walk<'a> {
    root: &'a OwnedFd,
    /// The directories below the root that lead to where the walk is.
    dirs: Vec<OwnedFd>,
    /// Components to come, the next one last. Empty ones and `.` are only kept at the end, where
    /// they ask for a directory.
    todo: Vec<Vec<u8>>,
    links: usize,
    follow: bool,
}

impl Walk<'_> {
    fn run(mut self) -> io::Result<File> {
        while let Some(component) = self.todo.pop() {
            let last = self.todo.is_empty();
            match component.as_slice() {
                b".." => {
                    if self.dirs.pop().is_none() {
                        return Err(Errno::XDEV.into());
                    }
                }
                b"" | b"." => {}
                _ if last => match self.open_here(&component, READ) {
                    Ok(file) => return Ok(file.into()),
                    Err(e) => self.follow(&component, e)?,
                },
                _ => match self.open_here(&component, STEP) {
                    Ok(dir) if self.dirs.len() < MAX_DEPTH => self.dirs.push(dir),
                    Ok(_) => return Err(Errno::NAMETOOLONG.into()),
                    Err(e) => self.follow(&component, e)?,
                },
            }
        }
        // The path ended in a directory that is open already, but perhaps only for passing through.
        Ok(self.open_here(b".", READ | OFlags::DIRECTORY)?.into())
    }

    fn here(&self) -> &OwnedFd {
        self.dirs.last().unwrap_or(self.root)
    }

    fn open_here(&self, component: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW;
        retry_on_intr(|| openat(self.here().as_fd(), component, flags, Mode::empty()))
    }

    /// `component` could not be opened: if it is a link, its target takes its place.
    fn follow(&mut self, component: &[u8], error: Errno) -> io::Result<()> {
        // O_NOFOLLOW says ELOOP, with O_DIRECTORY ENOTDIR; some systems EMLINK or EFTYPE.
        let target = match readlinkat(self.here().as_fd(), component, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(_) => return Err(error.into()),
        };
        self.links += 1;
        if !self.follow || self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if target.first() == Some(&b'/') {
            return Err(Errno::XDEV.into());
        }
        self.push(&target)
    }

    fn push(&mut self, path: &[u8]) -> io::Result<()> {
        let parts = path.split(|&b| b == b'/').rev().map(<[u8]>::to_vec);
        self.todo.extend(parts);
        if self.todo.len() > MAX_COMPONENTS {
            return Err(Errno::NAMETOOLONG.into());
        }
        Ok(())
    }
}

/// For passing through a directory, the right to search it is enough.
#[cfg(target_os = "linux")]
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const STEP: OFlags = READ.union(OFlags::DIRECTORY);
