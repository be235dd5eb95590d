//! Where lines go: a file, standard output, standard error.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{Access, access};

/// Who may read a log: its owner and their group. It holds addresses of people.
const MODE: u32 = 0o640;

/// A terminal or a pipe that takes nothing is waited for so long at a time...
const PAUSE: Duration = Duration::from_millis(10);
/// ... and so often.
const PAUSES: u32 = 500;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To the end of this file.
    Path(PathBuf),
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
}

impl Target {
    /// Whether lines could be written there now; the error says what is in the way. Changes
    /// nothing: a configuration is checked as well where it is not to be run.
    pub fn check(&self) -> Result<(), String> {
        let Target::Path(path) = self else {
            return Ok(());
        };
        match path.metadata() {
            Ok(facts) if facts.is_dir() => Err("it is a directory".to_owned()),
            Ok(facts) if facts.file_type().is_fifo() || facts.file_type().is_socket() => {
                Err("it is no file".to_owned())
            }
            Ok(_) => access(path, Access::WRITE_OK)
                .map_err(|error| format!("it cannot be written to: {error}")),
            Err(error) if error.kind() == ErrorKind::NotFound => check_directory(path),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether a file can be made at this path.
fn check_directory(path: &Path) -> Result<(), String> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let shown = dir.display();
    match dir.metadata() {
        Ok(facts) if facts.is_dir() => access(dir, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| format!("the directory {shown} cannot be written to: {error}")),
        Ok(_) => Err(format!("{shown} is no directory")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(format!("there is no directory {shown}"))
        }
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// A place where lines go, once in the process whoever writes to it.
pub struct Sink {
    /// Where.
    pub target: Target,
    /// Known without the lock: that is held as long as a disk takes.
    is_open: AtomicBool,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    file: Option<File>,
    /// The last line was cut by an error in its middle.
    is_torn: bool,
}

impl Sink {
    /// One that is not open yet.
    pub fn new(target: Target) -> Sink {
        Sink {
            target,
            is_open: AtomicBool::new(false),
            open: Mutex::default(),
        }
    }

    /// Opens it, if it is not open.
    pub fn open(&self) -> io::Result<()> {
        if self.is_open.load(Relaxed) {
            return Ok(());
        }
        self.reopen()
    }

    /// Opens it anew: under its name there may be another file by now. Where that fails the old
    /// one is kept.
    pub fn reopen(&self) -> io::Result<()> {
        let file = match &self.target {
            Target::Path(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(MODE)
                .open(path)?,
            // Written to without the buffers and locks of the standard library.
            Target::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            Target::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
        };
        let mut open = self.open.lock();
        open.file = Some(file);
        open.is_torn = false;
        self.is_open.store(true, Relaxed);
        Ok(())
    }

    /// Writes lines. Waits for as long as that takes.
    pub fn write(&self, lines: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock();
        let Open { file, is_torn } = &mut *open;
        let Some(file) = file else {
            return Err(io::Error::other("it is not open"));
        };
        if *is_torn {
            write_all(file, b"\n", &mut false)?;
            *is_torn = false;
        }
        write_all(file, lines, is_torn)
    }
}

/// As `Write::write_all`, but waits for one that takes nothing now, as a terminal may.
fn write_all(file: &mut File, mut bytes: &[u8], is_torn: &mut bool) -> io::Result<()> {
    let mut pauses = 0;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                *is_torn = bytes[written - 1] != b'\n';
                bytes = &bytes[written..];
                pauses = 0;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && pauses < PAUSES => {
                pauses += 1;
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
