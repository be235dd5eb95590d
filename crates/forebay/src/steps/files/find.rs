//! Looking for a file under a root: the same search on the worker, where it may not wait, and on
//! the pool, where it may.

use std::fs::File;
use std::io;

use forebay_sys::files::{Facts, Kind, is_link_refused};
use forebay_sys::net::is_exhausted;
use rustix::io::Errno;

use super::path::{Hide, without_copy};
use crate::exchange::{Accepts, Coding, Codings, Fault, Reason};
use crate::files::media_type;

/// What a search comes to.
#[derive(Debug)]
pub enum Found {
    /// A regular file.
    File(Candidate),
    /// A directory that has an index or is listed, asked for without its slash.
    Directory,
    /// A directory without an index, to be listed.
    Listing(File),
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
    /// The coding it is in, if a sibling stands for it: then `file` and `facts` are the sibling's.
    pub coding: Option<Coding>,
    /// What lies there.
    pub beside: Beside,
}

/// A file and its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    /// What the file itself is.
    pub plain: Facts,
    /// The codings in which it lies beside itself.
    pub siblings: Codings,
}

impl Candidate {
    fn new(file: File, facts: Facts, name: Vec<u8>) -> Candidate {
        Candidate {
            file,
            facts,
            name,
            is_local: false,
            coding: None,
            beside: Beside {
                plain: facts,
                siblings: Codings::default(),
            },
        }
    }

    /// Looks for siblings, `a.css.br` beside `a.css`, and puts the one that the client likes best
    /// in the place of the file.
    fn code(
        mut self,
        accepts: &Accepts,
        hide: &Hide,
        mut open: impl FnMut(&[u8]) -> io::Result<File>,
    ) -> io::Result<Candidate> {
        if !may_have_siblings(&self.name) {
            return Ok(self);
        }
        let mut there: [Option<(File, Facts)>; Coding::ALL.len()] = Default::default();
        for (coding, place) in Coding::ALL.into_iter().zip(&mut there) {
            let mut name = self.name.clone();
            name.extend_from_slice(ending_of(coding).as_bytes());
            if hide.refuses(&name) {
                continue;
            }
            let found = match opened(open(&name)) {
                // It may be there, and what is remembered must not depend on that.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_exhausted(&error) => {
                    return Err(error);
                }
                found => found.ok().flatten(),
            };
            *place = found.filter(|(_, facts)| is_of(facts, &self.beside.plain));
            if place.is_some() {
                self.beside.siblings.insert(coding);
            }
        }
        if let Some(coding) = accepts.choose(self.beside.siblings.iter()) {
            let taken = Coding::ALL.into_iter().zip(there);
            let taken = taken.filter(|(other, _)| *other == coding);
            if let Some((file, facts)) = taken.filter_map(|(_, found)| found).next() {
                (self.file, self.facts, self.coding) = (file, facts, Some(coding));
            }
        }
        Ok(self)
    }
}

fn ending_of(coding: Coding) -> &'static str {
    match coding {
        Coding::Br => ".br",
        Coding::Zstd => ".zst",
        Coding::Gzip => ".gz",
    }
}

/// Whether it is worth a look: what is compressed in its own way has none, and most files of a site
/// are pictures.
fn may_have_siblings(name: &[u8]) -> bool {
    let kind = media_type(name);
    let is_compressed = ["image/", "video/", "audio/", "font/woff"]
        .iter()
        .any(|family| kind.starts_with(family));
    let is_text = matches!(kind, "image/svg+xml" | "image/x-icon" | "image/bmp");
    let is_sibling = || {
        let mut all = Coding::ALL.into_iter();
        all.any(|coding| name.ends_with(ending_of(coding).as_bytes()))
    };
    (!is_compressed || is_text) && !is_sibling()
}

/// Whether a sibling was made from the file as it is: it is not older. Some tools give it the
/// file's time without what is below a second.
fn is_of(sibling: &Facts, plain: &Facts) -> bool {
    let is_cut = sibling.mtime_ns.rem_euclid(1_000_000_000) == 0;
    sibling.kind == Kind::File
        && (sibling.mtime_ns >= plain.mtime_ns
            || (is_cut && sibling.mtime_seconds() == plain.mtime_seconds()))
}

/// How directories are looked into.
pub struct Indexes {
    /// Names to try in a directory, in order.
    pub names: Box<[Box<[u8]>]>,
    /// Names that are passed over.
    pub hide: Hide,
    /// Those without an index are listed.
    pub listing: bool,
    /// A step of the site runs every file that is executable: none is sent, nor a copy of one.
    pub beside_programs: bool,
}

impl Indexes {
    /// Looks for `path`, opening what it comes to with `open`. `path` has been decoded and is
    /// relative to the root; one that is empty or ends in a slash is a directory's. A directory
    /// without its slash is [`Found::Directory`] if `redirects`, else its index. `accepts`: a
    /// sibling may stand for a file.
    ///
    /// # Errors
    /// Whatever keeps a file that may be there from being opened; `WouldBlock` from `open` too.
    pub fn find(
        &self,
        path: &[u8],
        redirects: bool,
        accepts: Option<&Accepts>,
        mut open: impl FnMut(&[u8]) -> io::Result<File>,
    ) -> io::Result<Found> {
        match (self.find_plain(path, redirects, &mut open)?, accepts) {
            (Found::File(candidate), Some(accepts)) => {
                Ok(Found::File(candidate.code(accepts, &self.hide, open)?))
            }
            (found, _) => Ok(found),
        }
    }

    fn find_plain(
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
            Kind::File if self.is_program(&name, &facts, &mut open)? => Ok(Found::Nothing),
            Kind::File => Ok(Found::File(Candidate::new(file, facts, name))),
            Kind::Directory => {
                drop(file);
                name.push(b'/');
                // A directory without an index is nothing: what stands below may know better.
                match self.index(name, open)? {
                    Found::File(_) | Found::Listing(_) if redirects => Ok(Found::Directory),
                    // Its links would lead to beside the directory.
                    Found::Listing(_) => Ok(Found::Nothing),
                    found => Ok(found),
                }
            }
            Kind::Other => Ok(Found::Nothing),
        }
    }

    /// Whether somebody could read a program here that is meant to be run: itself, or a copy of one,
    /// which need not be executable.
    fn is_program(
        &self,
        name: &[u8],
        facts: &Facts,
        open: &mut impl FnMut(&[u8]) -> io::Result<File>,
    ) -> io::Result<bool> {
        if !self.beside_programs {
            return Ok(false);
        }
        if facts.is_executable {
            return Ok(true);
        }
        let dir_len = memchr::memrchr(b'/', name).map_or(0, |slash| slash + 1);
        let (dir, mut last) = name.split_at(dir_len);
        while let Some(of) = without_copy(last).filter(|of| !of.is_empty()) {
            if let Some((_, facts)) = opened(open(&[dir, of].concat()))?
                && facts.kind == Kind::File
                && facts.is_executable
            {
                return Ok(true);
            }
            last = of;
        }
        Ok(false)
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
                && !self.is_program(&name, &facts, &mut open)?
            {
                return Ok(Found::File(Candidate::new(file, facts, name)));
            }
        }
        if self.listing {
            name.truncate(dir);
            let dir = name.strip_suffix(b"/").unwrap_or(&name);
            if let Some((file, facts)) = opened(open(dir))?
                && facts.kind == Kind::Directory
            {
                return Ok(Found::Listing(file));
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
