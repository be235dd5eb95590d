//! The helper's side: one request after the other, until the server's end closes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use socket2::{SockRef, Type};

use forebay_sys::files::{self, Facts, Kind};
use forebay_sys::net::{self, BindError, MAX_FDS, UnixFile};
use forebay_sys::process;

use super::ARGUMENT;
use super::protocol::{MAX_MESSAGE, Refusal, Reply, Request, read_request, write_reply};

/// Runs as the helper if the command line says so, and returns its exit code when the server is
/// gone. `None` at once for any other command line. To be called first in `main`, before anything
/// starts a thread or allocates much.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let parent = arguments.next().and_then(|id| id.to_str()?.parse().ok());
    Some(run(parent))
}

/// The life of the helper; `parent` is the server's process id.
pub(super) fn run(parent: Option<u32>) -> ExitCode {
    let input = io::stdin();
    let is_ours = SockRef::from(&input)
        .r#type()
        .is_ok_and(|kind| kind == Type::SEQPACKET);
    let (Some(parent), true) = (parent, is_ours) else {
        eprintln!("forebay: {ARGUMENT} is for Forebay's own use: it starts its helper itself");
        return ExitCode::from(2);
    };
    let prepared = process::die_with_parent(parent)
        .and_then(|_| process::disregard())
        // 1,024 sockets of one listener are 1,024 descriptors.
        .and_then(|()| process::raise_nofile());
    if let Err(e) = prepared {
        // The server was faster in ending than the helper in starting.
        eprintln!("forebay: helper: cannot start: {e}");
        return ExitCode::FAILURE;
    }
    process::set_name(c"forebay-helper");
    match serve(input.as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("forebay: helper: cannot talk to the server: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Answers requests until the other end is closed.
pub(super) fn serve(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut files = Files::default();
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let received = net::recv_with_fds(socket, &mut buffer)?;
        if received.len == 0 {
            return Ok(());
        }
        let (number, request) = read_request(&buffer[..received.len]);
        let outcome = request
            .ok_or(Reply::Refused(Refusal::Malformed))
            .and_then(|r| handle(&r, &mut files));
        let sent = match outcome {
            Ok(fds) => send_all(socket, number, &fds),
            Err(reply) => net::send_with_fds(socket, &write_reply(number, reply), &[]),
        };
        match sent {
            // The server has gone meanwhile.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            sent => sent?,
        }
    }
}

/// The files of the Unix listeners that were bound here; removed at the end, because the server may
/// not be allowed to by then.
#[derive(Default)]
struct Files(Vec<UnixFile>);

impl Files {
    fn add(&mut self, path: &Path) {
        self.0.retain(|file| file.path() != path);
        // If it has gone already, there is nothing to be removed.
        self.0.extend(UnixFile::of(path));
    }

    fn find(&self, path: &Path) -> Result<&UnixFile, Reply> {
        let found = self.0.iter().find(|file| file.path() == path);
        found.ok_or(Reply::Refused(Refusal::NotBound))
    }

    fn remove(&mut self, path: &Path) -> Result<(), Reply> {
        self.find(path)?.remove().map_err(|e| failed(&e))?;
        self.0.retain(|file| file.path() != path);
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in &self.0 {
            // Nobody is left to be told.
            let _ = file.remove();
        }
    }
}

/// Sends descriptors, as many to a message as fit.
fn send_all(socket: BorrowedFd<'_>, number: u32, fds: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut rest = fds.as_slice();
    while rest.len() > MAX_FDS {
        let (now, later) = rest.split_at(MAX_FDS);
        net::send_with_fds(socket, &write_reply(number, Reply::More), now)?;
        rest = later;
    }
    net::send_with_fds(socket, &write_reply(number, Reply::Done), rest)
}

fn handle(request: &Request<'_>, files: &mut Files) -> Result<Vec<OwnedFd>, Reply> {
    match request {
        Request::Ping => Ok(Vec::new()),
        Request::BindTcp {
            address,
            options,
            sockets,
        } => {
            let bound = net::bind_tcp(*address, options, usize::from(*sockets));
            Ok(bound
                .map_err(bind_failed)?
                .into_iter()
                .map(OwnedFd::from)
                .collect())
        }
        Request::BindUnix { path, options } => {
            absolute(path)?;
            let socket = net::bind_unix(path, options).map_err(bind_failed)?;
            files.add(path);
            Ok(vec![socket.into()])
        }
        Request::ChangeUnix { path, options } => {
            let changed = files.find(path)?.change(options);
            changed.map_err(|e| failed(&e))?;
            Ok(Vec::new())
        }
        Request::RemoveUnix { path } => files.remove(path).map(|()| Vec::new()),
        Request::Open { path } => {
            absolute(path)?;
            Ok(vec![open(path)?.into()])
        }
    }
}

fn absolute(path: &Path) -> Result<(), Reply> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err(Reply::Refused(Refusal::NotAbsolute))
    }
}

fn open(path: &Path) -> Result<File, Reply> {
    let file = files::open(path).map_err(|e| failed(&e))?;
    match Facts::of(&file) {
        Ok(Facts {
            kind: Kind::File, ..
        }) => Ok(file),
        Ok(_) => Err(Reply::Refused(Refusal::NotAFile)),
        Err(e) => Err(failed(&e)),
    }
}

fn bind_failed(error: BindError) -> Reply {
    failed(&error.source)
}

fn failed(error: &io::Error) -> Reply {
    error
        .raw_os_error()
        .map_or(Reply::Refused(Refusal::NoReason), Reply::Failed)
}
