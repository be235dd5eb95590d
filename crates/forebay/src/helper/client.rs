//! The server's side: starting the helper and asking it.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use forebay_sys::net::{self, BindError, TcpAddress, TcpOptions, UnixOptions};
use forebay_sys::process;

use super::ARGUMENT;
use super::protocol::{
    MAX_MESSAGE, MAX_SOCKETS, Refusal, Reply, Request, read_reply, write_request,
};

/// How long the helper may take for a request: nearly always microseconds, but a file may lie on a
/// network file system.
const PATIENCE: Duration = Duration::from_secs(5);

/// The helper process, as its server sees it.
///
/// Calls wait for the answer, at most five seconds. They are rare (start, reload) and belong on the
/// control plane's thread, never on a worker's. Calls of several threads follow one another.
/// Dropping it closes the socket, upon which the helper ends by itself.
#[derive(Debug)]
pub struct Helper {
    link: Mutex<Link>,
    child: Mutex<Child>,
    id: u32,
}

/// The server's end, and the number of the last request.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    number: u32,
    /// How long one message may take.
    patience: Duration,
}

/// Why the helper did not do what it was asked for.
#[derive(Debug)]
pub enum HelperError {
    /// The address cannot be bound; the text is that of [`BindError`].
    Bind(BindError),
    /// The file cannot be opened.
    Open {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The helper refused, with its reason.
    Refused {
        /// What was asked for.
        what: String,
        /// Why not.
        reason: &'static str,
    },
    /// The helper did not answer in time.
    Late {
        /// What was asked for.
        what: String,
    },
    /// The helper has ended, or the socket to it is broken.
    Gone {
        /// What was asked for.
        what: String,
        /// What the socket said.
        source: io::Error,
    },
}

impl Helper {
    /// Starts the helper from this process's own binary. To be called first, before there are
    /// threads and while the process is small; from the thread that lives longest, because on
    /// Linux the kernel kills the helper when the *thread* that started it ends.
    ///
    /// The binary's `main` must call [`run_if_asked`](super::run_if_asked).
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new(own_binary()?);
        command
            .arg0("forebay-helper")
            .arg(ARGUMENT)
            .arg(std::process::id().to_string());
        Self::start_with(command)
    }

    /// Starts a helper by a command that leads to `serve`.
    pub(super) fn start_with(mut command: Command) -> io::Result<Self> {
        // A helper that inherited a service manager's socket would hold its port for ever.
        process::close_all_on_exec()?;
        let (ours, theirs) = net::seqpacket_pair()?;
        let link = Link::new(ours, PATIENCE)?;
        let child = command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .env_clear()
            // Else mimalloc takes its first memory as huge pages: 4.2 MiB private instead of 0.4.
            .env("MIMALLOC_ALLOW_THP", "0")
            .current_dir("/")
            .spawn()?;
        let helper = Self {
            id: child.id(),
            link: Mutex::new(link),
            child: Mutex::new(child),
        };
        Ok(helper)
    }

    /// The helper's process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Asks for a sign of life.
    #[cfg_attr(not(test), expect(dead_code, reason = "asked by tests only"))]
    pub fn ping(&self) -> Result<(), HelperError> {
        self.call(&Request::Ping)
            .map(drop)
            .map_err(|e| e.about("a sign of life"))
    }

    /// [`net::bind_tcp`], done by the helper. At most 1,024 sockets.
    pub fn bind_tcp(
        &self,
        address: TcpAddress,
        options: &TcpOptions,
        sockets: usize,
    ) -> Result<Vec<TcpListener>, HelperError> {
        let what = || format!("{sockets} sockets for {address}");
        let sockets = u16::try_from(sockets)
            .ok()
            .filter(|n| (1..=MAX_SOCKETS).contains(n));
        let Some(sockets) = sockets else {
            let reason = "a listener has 1 to 1024 sockets";
            return Err(HelperError::Refused {
                what: what(),
                reason,
            });
        };
        let request = Request::BindTcp {
            address,
            options: *options,
            sockets,
        };
        let bound = self.call(&request).map_err(|e| match e {
            Fault::Failed(source) => HelperError::Bind(BindError {
                address: address.to_string(),
                source,
            }),
            e => e.about(&what()),
        })?;
        let complete = bound.len() == usize::from(sockets);
        let bound = bound.into_iter().map(TcpListener::from).collect();
        if complete {
            Ok(bound)
        } else {
            Err(garbled().about(&what()))
        }
    }

    /// [`net::bind_unix`], done by the helper. The path must be absolute.
    pub fn bind_unix(
        &self,
        path: &Path,
        options: &UnixOptions,
    ) -> Result<UnixListener, HelperError> {
        let address = format!("unix:{}", path.display());
        let bound = self.call(&Request::BindUnix {
            path,
            options: *options,
        });
        match bound.and_then(one) {
            Ok(socket) => Ok(socket.into()),
            Err(Fault::Failed(source)) => Err(HelperError::Bind(BindError { address, source })),
            Err(e) => Err(e.about(&format!("a socket for {address}"))),
        }
    }

    /// Gives the file of a listener that [`Helper::bind_unix`] has bound another owner and mode.
    pub fn change_unix(&self, path: &Path, options: &UnixOptions) -> Result<(), HelperError> {
        let address = format!("unix:{}", path.display());
        let changed = self.call(&Request::ChangeUnix {
            path,
            options: *options,
        });
        match changed {
            Ok(_) => Ok(()),
            Err(Fault::Failed(source)) => Err(HelperError::Bind(BindError { address, source })),
            Err(e) => Err(e.about(&format!("another mode or owner of {address}"))),
        }
    }

    /// Removes the file of a listener that [`Helper::bind_unix`] has bound.
    pub fn remove_unix(&self, path: &Path) -> Result<(), HelperError> {
        let removed = self.call(&Request::RemoveUnix { path });
        let what = || format!("unix:{} removed", path.display());
        removed.map(drop).map_err(|e| e.about(&what()))
    }

    /// Opens a regular file for reading, with the helper's rights. The path must be absolute.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for certificates that only root may read")
    )]
    pub fn open(&self, path: &Path) -> Result<File, HelperError> {
        match self.call(&Request::Open { path }).and_then(one) {
            Ok(file) => Ok(file.into()),
            Err(Fault::Failed(source)) => Err(HelperError::Open {
                path: path.to_owned(),
                source,
            }),
            Err(e) => Err(e.about(&format!("file {}", path.display()))),
        }
    }

    /// A way to have programs started, for one thread. The helper kills them when it is closed.
    pub fn channel(&self) -> Result<OwnedFd, HelperError> {
        let what = "a channel for programs";
        let pair = net::seqpacket_pair().map_err(Fault::Failed);
        let (ours, theirs) = pair.map_err(|e| e.about(what))?;
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = link.call_with(&Request::Channel, &[theirs.as_fd()]);
        taken.map(|_| ours).map_err(|e| e.about(what))
    }

    /// Ends the helper and waits for that.
    pub fn stop(self) -> io::Result<ExitStatus> {
        let Self { link, child, .. } = self;
        drop(link);
        child
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .wait()
    }

    fn call(&self, request: &Request<'_>) -> Result<Vec<OwnedFd>, Fault> {
        self.link
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .call(request)
    }
}

impl Link {
    pub(super) fn new(socket: OwnedFd, patience: Duration) -> io::Result<Self> {
        let mut link = Self {
            socket,
            number: 0,
            patience,
        };
        link.set_patience(patience)?;
        Ok(link)
    }

    /// How long one message may take from now on.
    pub(super) fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        SockRef::from(&self.socket).set_read_timeout(Some(patience))?;
        SockRef::from(&self.socket).set_write_timeout(Some(patience))?;
        self.patience = patience;
        Ok(())
    }

    /// One request and its replies.
    pub(super) fn call(&mut self, request: &Request<'_>) -> Result<Vec<OwnedFd>, Fault> {
        self.call_with(request, &[])
    }

    /// The same with descriptors that ride along.
    fn call_with(
        &mut self,
        request: &Request<'_>,
        passed: &[BorrowedFd<'_>],
    ) -> Result<Vec<OwnedFd>, Fault> {
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let message = write_request(number, request)
            .ok_or_else(|| Fault::Failed(io::ErrorKind::InvalidFilename.into()))?;
        net::send_with_fds(&self.socket, &message, passed).map_err(Fault::of)?;
        let deadline = Instant::now() + self.patience;
        let mut buffer = [0; MAX_MESSAGE];
        let mut fds = Vec::new();
        loop {
            let received = net::recv_with_fds(&self.socket, &mut buffer).map_err(Fault::of)?;
            if received.len == 0 {
                return Err(Fault::Gone(io::ErrorKind::UnexpectedEof.into()));
            }
            let (replied, reply) = read_reply(&buffer[..received.len]).ok_or_else(garbled)?;
            // The answer to a request we had no patience for; what came with it is closed.
            if replied != number {
                if Instant::now() > deadline {
                    return Err(Fault::Late);
                }
                continue;
            }
            fds.extend(received.fds);
            match reply {
                Reply::Done => return Ok(fds),
                Reply::More if fds.len() < usize::from(MAX_SOCKETS) => {}
                Reply::More => return Err(garbled()),
                Reply::Failed(code) => {
                    return Err(Fault::Failed(io::Error::from_raw_os_error(code)));
                }
                Reply::Refused(reason) => return Err(Fault::Refused(reason)),
            }
        }
    }
}

/// Linux knows the binary even if its file was replaced since.
fn own_binary() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        Ok("/proc/self/exe".into())
    } else {
        std::env::current_exe()
    }
}

/// Why a call failed, before it is said what it was for.
#[derive(Debug)]
pub(super) enum Fault {
    Failed(io::Error),
    Refused(Refusal),
    Late,
    Gone(io::Error),
}

impl Fault {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Gone(error),
        }
    }

    pub(super) fn about(self, what: &str) -> HelperError {
        let what = what.to_owned();
        match self {
            Self::Failed(source) | Self::Gone(source) => HelperError::Gone { what, source },
            Self::Refused(reason) => HelperError::Refused {
                what,
                reason: reason.text(),
            },
            Self::Late => HelperError::Late { what },
        }
    }
}

fn garbled() -> Fault {
    Fault::Gone(io::ErrorKind::InvalidData.into())
}

fn one(fds: Vec<OwnedFd>) -> Result<OwnedFd, Fault> {
    <[OwnedFd; 1]>::try_from(fds)
        .map(|[fd]| fd)
        .map_err(|_| garbled())
}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Open { path, source } => write!(f, "cannot open {}: {source}", path.display()),
            Self::Refused { what, reason } => {
                write!(f, "cannot get {what} from the helper process: {reason}")
            }
            Self::Late { what } => write!(
                f,
                "cannot get {what}: the helper process did not answer within {} s; it may be \
                 waiting for a file system",
                PATIENCE.as_secs()
            ),
            Self::Gone { what, source } => write!(
                f,
                "cannot get {what}: the helper process is gone ({source}): restart Forebay"
            ),
        }
    }
}

impl std::error::Error for HelperError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(error) => Some(&error.source),
            Self::Open { source, .. } | Self::Gone { source, .. } => Some(source),
            Self::Refused { .. } | Self::Late { .. } => None,
        }
    }
}
