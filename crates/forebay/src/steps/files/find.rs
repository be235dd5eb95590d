//! Looking for a file under a root: the same search on the worker, where it may not wait, and on
//! the pool, where it may.

use std::fs::File;
use std::io;

use forebay_sys::files::{Facts, Kind, is_link_refused};
use rustix::io::Errno;

use super::path::Hide;
use crate::exchange::{Fault, Reason};

/// What a search comes to.
#[derive(Debug)]
pub enum Found {
    /// A regular file.
    File(Candidate),
    /// A directory that has an index, asked for without its slash.
    Directory,
    /// Nothing that is sent.
    Nothing,
}

/// A file that was found.
#[derive(Debug)]
pub struct Candidate {
    pub file: File,
    pub facts: Facts,
    /// Its path below the root.
    pub name: Vec<u8>,
    /// Whether its root is.
    pub is_local: bool,
}

impl Candidate {
    fn new(file: File, facts: Facts, name: Vec<u8>) -> Candidate {
        Candidate {
            file,
            facts,
            name,
            is_local: false,
        }
    }
}

/// How directories are looked into.
pub struct Indexes {
    /// Names to try in a directory, in order.
    pub names: Box<[Box<[u8]>]>,
    /// Names that are passed over.
    pub hide: Hide,
}

impl Indexes {
    /// Looks for `path`, opening what it comes to with `open`. `path` has been decoded and is
    /// relative to the root; one that is empty or ends in a slash is a directory's. A directory
    /// without its slash is [`Found::Directory`] if `redirects`, else its index.
    ///
    /// # Errors
    /// Whatever keeps a file that may be there from being opened; `WouldBlock` from `open` too.
    pub fn find(
        &self,
        path: &[u8],
        redirects: bool,
        mut open: impl FnMut(&[u8]) -> io::Result<File>,
    ) -> io::Result<Found> {
        if self.hide.refuses(path) {
            return Ok(Found::Nothing);
        }
        let mut name = path.to_vec();
        if path.is_empty() || path.ends_with(b"/") {
            return self.index(name, open);
        }
        let Some((file, facts)) = opened(open(&name))? else {
            return Ok(Found::Nothing);
        };
        match facts.kind {
            Kind::File => Ok(Found::File(Candidate::new(file, facts, name))),
            Kind::Directory => {
                drop(file);
                name.push(b'/');
                // A directory without an index is nothing: what stands below may know better.
                match self.index(name, open)? {
                    Found::File(_) if redirects => Ok(Found::Directory),
                    found => Ok(found),
                }
            }
            Kind::Other => Ok(Found::Nothing),
        }
    }

    fn index(
        &self,
        mut name: Vec<u8>,
        mut open: impl FnMut(&[u8]) -> io::Result<File>,
    ) -> io::Result<Found> {
        let dir = name.len();
        for index in &self.names {
            name.truncate(dir);
            name.extend_from_slice(index);
            if self.hide.refuses(&name) {
                continue;
            }
            if let Some((file, facts)) = opened(open(&name))?
                && facts.kind == Kind::File
            {
                return Ok(Found::File(Candidate::new(file, facts, name)));
            }
        }
        Ok(Found::Nothing)
    }
}

/// `None` where there is nothing by that name that could be sent.
fn opened(opened: io::Result<File>) -> io::Result<Option<(File, Facts)>> {
    match opened {
        Ok(file) => {
            let facts = Facts::of(&file)?;
            Ok(Some((file, facts)))
        }
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error says that no such file is to be had, rather than that it could not be opened.
pub fn is_absent(error: &io::Error) -> bool {
    const ABSENT: [Errno; 7] = [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::NAMETOOLONG,
        Errno::INVAL,
        // Sockets, and devices that nothing stands behind.
        Errno::NXIO,
        Errno::NODEV,
        // A name that this file system cannot have.
        Errno::ILSEQ,
    ];
    is_link_refused(error)
        || error.kind() == io::ErrorKind::InvalidInput
        || ABSENT.into_iter().any(|errno| is(error, errno))
}

/// Whether the machine has run out of something, so that what is in memory is the best there is.
pub fn is_exhausted(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM]
        .into_iter()
        .any(|errno| is(error, errno))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// What a file that cannot be opened or read is answered with.
pub fn fault(error: &io::Error) -> Fault {
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied => Reason::Forbidden,
        _ if is_exhausted(error) => Reason::Overloaded,
        _ => Reason::FileFailed,
    };
    Fault::with(reason, error.to_string())
}
