//! The helper's side: one request after the other, until the server's end closes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, Type};

use forebay_sys::files::{self, Facts, Kind};
use forebay_sys::net::{self, BindError, MAX_FDS, UnixFile};
use forebay_sys::process;

use super::ARGUMENT;
use super::programs::Keeper;
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
    let prepared = process::expect_parent(parent)
        .and_then(|()| process::disregard())
        // Programs are in this session: none has the terminal that the server was started from.
        .and_then(|()| process::lead_session())
        // 1,024 sockets of one listener are 1,024 descriptors.
        .and_then(|()| process::raise_nofile())
        .and_then(|_| Keeper::new());
    let keeper = match prepared {
        Ok(keeper) => keeper,
        Err(e) => {
            // The server was faster in ending than the helper in starting.
            eprintln!("forebay: helper: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    process::set_name(c"forebay-helper");
    match serve(input.as_fd(), Some(keeper)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("forebay: helper: cannot talk to the server: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Does what is asked until the other end is closed. Without a keeper, no program is started.
pub(super) fn serve(socket: BorrowedFd<'_>, keeper: Option<Keeper>) -> io::Result<()> {
    let mut desk = Desk {
        files: Files::default(),
        keeper,
    };
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        if desk.wait(socket)? && !desk.answer(socket, &mut buffer)? {
            return Ok(());
        }
    }
}

/// What the helper has between requests.
struct Desk {
    files: Files,
    keeper: Option<Keeper>,
}

impl Desk {
    /// Waits for something to do, and does what concerns programs; true if the server wants
    /// something.
    fn wait(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let Some(keeper) = &mut self.keeper else {
            return Ok(true);
        };
        let mut fds = vec![
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
            PollFd::from_borrowed_fd(keeper.signal(), PollFlags::IN),
        ];
        for (channel, is_late) in keeper.sockets() {
            let both = PollFlags::IN | PollFlags::OUT;
            let flags = if is_late { both } else { PollFlags::IN };
            fds.push(PollFd::from_borrowed_fd(channel, flags));
        }
        let patience = keeper
            .patience()
            .and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut fds, patience.as_ref()) {
            // A child has ended, which the next look will show.
            Err(rustix::io::Errno::INTR) => return Ok(false),
            polled => polled?,
        };
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let is_asked = ready.next().unwrap_or(false);
        let has_ends = ready.next().unwrap_or(false);
        let channels: Vec<bool> = ready.collect();
        drop(fds);
        if has_ends {
            keeper.handle_ends();
        }
        // From the last one on: one that is gone is taken out of its place.
        for (place, _) in channels
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, ready)| **ready)
        {
            keeper.handle(place);
        }
        keeper.tick();
        Ok(is_asked)
    }

    /// Answers one request; false once the other end is closed.
    fn answer(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<bool> {
        let received = net::recv_with_fds(socket, buffer)?;
        if received.len == 0 {
            return Ok(false);
        }
        let (number, request) = read_request(&buffer[..received.len]);
        let outcome = match request {
            Some(Request::Channel) => self.add_channel(received.fds),
            Some(request) => handle(&request, &mut self.files),
            None => Err(Reply::Refused(Refusal::Malformed)),
        };
        let sent = match outcome {
            Ok(fds) => send_all(socket, number, &fds),
            Err(reply) => net::send_with_fds(socket, &write_reply(number, reply), &[]),
        };
        match sent {
            // The server has gone meanwhile.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            sent => sent.map(|()| true),
        }
    }

    fn add_channel(&mut self, mut passed: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, Reply> {
        let (Some(keeper), Some(channel), true) =
            (&mut self.keeper, passed.pop(), passed.is_empty())
        else {
            return Err(Reply::Refused(Refusal::Malformed));
        };
        match keeper.add(channel) {
            Ok(true) => Ok(Vec::new()),
            Ok(false) => Err(Reply::Refused(Refusal::TooMany)),
            Err(error) => Err(failed(&error)),
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
        Request::Ping | Request::Channel => Ok(Vec::new()),
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
