//! Unix listeners.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, chmod, fchmod},
    io::Errno,
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::BindError;

/// Options of Unix listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixOptions {
    /// Connections that may wait to be accepted; the system caps it at `net.core.somaxconn`.
    pub backlog: u16,
    /// Permission bits of the socket's file; whoever may write to it may connect.
    pub mode: u32,
    /// Owning user and group, by number; `None` leaves our own. Giving a file away takes root.
    pub user: Option<u32>,
    /// See `user`.
    pub group: Option<u32>,
}

impl Default for UnixOptions {
    fn default() -> Self {
        Self {
            backlog: 4_096,
            mode: 0o660,
            user: None,
            group: None,
        }
    }
}

/// Binds a listener to a path. It does not block and is closed on exec.
///
/// A socket that a dead process has left there is removed first; a live one, and any other kind of
/// file, is not touched: `EADDRINUSE`. Nobody can connect before owner and mode are as asked. The
/// file stays when the listener is closed: whoever binds it removes it, if nobody has taken over.
pub fn bind_unix(path: &Path, options: &UnixOptions) -> Result<UnixListener, BindError> {
    bind(path, options)
        .map_err(|source| BindError::new(format_args!("unix:{}", path.display()), source))
}

/// The file of a Unix listener, known by more than its name: somebody else may have put another one
/// into its place since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl UnixFile {
    /// The file that has this name now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Where it was made.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it another owner and mode. `NotFound` where it is not there any more.
    pub fn change(&self, options: &UnixOptions) -> io::Result<()> {
        if !self.is_there() {
            return Err(Errno::NOENT.into());
        }
        set_owner_and_mode(&self.path, options)
    }

    /// Removes it; what has taken its place stays.
    pub fn remove(&self) -> io::Result<()> {
        if self.is_there() {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }

    fn is_there(&self) -> bool {
        Self::of(&self.path).is_ok_and(|now| now == *self)
    }
}

fn bind(path: &Path, options: &UnixOptions) -> io::Result<UnixListener> {
    // socket2 takes a longer path's error from no system call, and an empty path would bind to a
    // name that the system makes up.
    const MAX_PATH: usize = 107;
    if path.as_os_str().as_bytes().len() > MAX_PATH {
        return Err(Errno::NAMETOOLONG.into());
    }
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT.into());
    }
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    remove_stale(path, &address)?;
    // Linux gives the file the socket's own mode (less the umask); elsewhere this fails or does
    // nothing, and nothing is lost: connecting is refused until the socket listens.
    let _ = fchmod(&socket, Mode::empty());
    socket.bind(&address)?;
    let ready =
        set_owner_and_mode(path, options).and_then(|()| socket.listen(i32::from(options.backlog)));
    if let Err(e) = ready {
        // Ours, just made, and of no use.
        let _ = fs::remove_file(path);
        return Err(e);
    }
    Ok(socket.into())
}

fn set_owner_and_mode(path: &Path, options: &UnixOptions) -> io::Result<()> {
    if options.user.is_some() || options.group.is_some() {
        chown(path, options.user, options.group)?;
    }
    Ok(chmod(path, Mode::from_raw_mode(options.mode & 0o777))?)
}

/// Removes a socket nobody listens on: connecting to it is refused.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if !kind.is_socket() {
        return Err(Errno::ADDRINUSE.into());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose queue is full must not make us wait: EAGAIN, so somebody lives there.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Somebody else was faster.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(e),
        _ => Err(Errno::ADDRINUSE.into()),
    }
}
