//! A worker's side: programs are asked for, and what came of them is heard.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_sys::net;
use forebay_sys::process::{End, Identity, LaunchStep};
use rustc_hash::FxHashMap;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::Notify;

use super::message::{MAX_NEWS, News, StartOptions, read_news, write_end, write_hold, write_start};

/// Messages that may wait because the helper is busy: more would only be waited for longer.
const MAX_UNSENT: usize = 1_024;

/// One descriptor of a program.
#[derive(Debug)]
pub enum Place {
    /// `/dev/null`.
    Null,
    /// This one; it is closed here once the helper has it.
    Fd(Rc<OwnedFd>),
}

/// A program to be started.
pub struct Spec<'a> {
    /// The file to execute, absolute.
    pub program: &'a [u8],
    /// Its arguments, the name that it is called by first.
    pub arguments: &'a [&'a [u8]],
    /// Its whole environment.
    pub environment: &'a [(&'a [u8], &'a [u8])],
    /// The directory it runs in, absolute.
    pub dir: &'a [u8],
    /// Its descriptors from 0 on, at most four.
    pub places: Vec<Place>,
    /// Who it runs as; none: who this server is.
    pub identity: Option<&'a Identity>,
    /// `LISTEN_PID` is in its environment too.
    pub tells_pid: bool,
    /// Its process id is wanted: being told of it costs both sides a wake-up.
    pub wants_pid: bool,
}

/// Why there is no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Its arguments and its environment are too long, or hold a NUL.
    TooLarge,
    /// Too many wait to be started already.
    Busy,
    /// There is no helper.
    Gone,
    /// The system said no.
    Failed(LaunchStep, i32),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("its arguments and its environment are too large"),
            Self::Busy => f.write_str("too many programs wait to be started"),
            Self::Gone => f.write_str("the helper process is gone: restart Forebay"),
            Self::Failed(step, errno) => {
                let error = io::Error::from_raw_os_error(*errno);
                write!(f, "{}: {error}", step.name())
            }
        }
    }
}

/// How many descriptors a program may open to begin with, as everywhere; the helper's own limit is
/// much higher, and some programs go through all numbers below theirs.
const MAX_FILES: u32 = 1_024;

/// A way to the helper, for one thread.
#[derive(Debug)]
pub struct Channel {
    /// One end of a pair of sockets of which the helper has the other.
    pub socket: OwnedFd,
    /// Who programs run as for whom nothing is said; none: who the helper is.
    pub identity: Option<Identity>,
}

/// A worker's way to the helper.
#[derive(Default)]
pub struct Programs {
    channel: RefCell<Option<Channel>>,
    link: RefCell<Option<Rc<Link>>>,
}

/// What of it is in use, once the first program was asked for.
struct Link {
    socket: UnixDatagram,
    identity: Option<Identity>,
    unsent: RefCell<VecDeque<Message>>,
    /// Something waits to be sent.
    wake: Notify,
    running: RefCell<FxHashMap<u32, Rc<State>>>,
    next: Cell<u32>,
    is_gone: Cell<bool>,
}

struct Message {
    bytes: Vec<u8>,
    fds: Vec<Rc<OwnedFd>>,
}

/// Sees a program end.
pub struct Watch(Rc<State>);

impl Watch {
    /// Comes back when it has ended, or could not be started.
    pub async fn over(&self) {
        poll_fn(|cx| match self.0.over.get() {
            Some(_) => Poll::Ready(()),
            None => self.0.wait(cx),
        })
        .await;
    }
}

/// What is known of a program.
#[derive(Default)]
struct State {
    pid: Cell<Option<u32>>,
    over: Cell<Option<Result<Over, StartError>>>,
    waiting: RefCell<Vec<Waker>>,
}

/// How a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// How.
    pub end: End,
    /// Processor time that it and all that it has waited for have taken, in microseconds.
    pub cpu_us: u64,
}

/// A program that was asked for. Dropping it ends the program and all that it has started.
pub struct Program {
    link: Weak<Link>,
    number: u32,
    state: Rc<State>,
    grace: Cell<Duration>,
}

impl Programs {
    /// From now on, by this channel. Before, nothing can be started.
    pub fn connect(&self, channel: Channel) {
        *self.channel.borrow_mut() = Some(channel);
    }

    /// Has a program started. It comes back at once; that it could not be started is told by
    /// [`Program::poll_over`].
    ///
    /// # Errors
    /// Nothing was asked for.
    pub fn start(&self, spec: Spec<'_>) -> Result<Program, StartError> {
        let link = self.link()?;
        let number = link.next.get();
        link.next.set(number.wrapping_add(1));
        let mut options = StartOptions {
            places: spec.places.len(),
            passed: 0,
            tells_pid: spec.tells_pid,
            is_reported: spec.wants_pid,
            max_files: MAX_FILES,
            identity: spec.identity.or(link.identity.as_ref()),
        };
        let mut fds = Vec::with_capacity(spec.places.len());
        for (at, place) in spec.places.into_iter().enumerate() {
            if let Place::Fd(fd) = place {
                options.passed |= 1 << at;
                fds.push(fd);
            }
        }
        let environment = spec.environment.iter().copied();
        let bytes = write_start(
            number,
            &options,
            spec.program,
            spec.dir,
            spec.arguments,
            environment,
        );
        let bytes = bytes.ok_or(StartError::TooLarge)?;
        link.send(Message { bytes, fds })?;
        let state = Rc::new(State::default());
        link.running.borrow_mut().insert(number, state.clone());
        Ok(Program {
            link: Rc::downgrade(&link),
            number,
            state,
            grace: Cell::new(GRACE),
        })
    }

    fn link(&self) -> Result<Rc<Link>, StartError> {
        let mut known = self.link.borrow_mut();
        if let Some(link) = &*known {
            return if link.is_gone.get() {
                Err(StartError::Gone)
            } else {
                Ok(link.clone())
            };
        }
        let channel = self.channel.borrow_mut().take().ok_or(StartError::Gone)?;
        let Channel { socket, identity } = channel;
        // A datagram socket to tokio: to it that is what keeps messages apart.
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        let socket = socket
            .set_nonblocking(true)
            .and_then(|()| UnixDatagram::from_std(socket));
        let link = Rc::new(Link {
            socket: socket.map_err(|_| StartError::Gone)?,
            identity,
            unsent: RefCell::default(),
            wake: Notify::new(),
            running: RefCell::default(),
            next: Cell::new(1),
            is_gone: Cell::new(false),
        });
        tokio::task::spawn_local(hear(link.clone()));
        tokio::task::spawn_local(send_late(link.clone()));
        Ok(known.insert(link).clone())
    }
}

/// How long a program that nobody wants any more has to put things in order.
const GRACE: Duration = Duration::from_secs(1);

impl Program {
    /// Its process id, once it runs, if it was wanted.
    pub fn pid(&self) -> Option<u32> {
        self.state.pid.get()
    }

    /// How it has ended; or why it could not be started.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Poll<Result<Over, StartError>> {
        match self.state.over.get() {
            Some(over) => Poll::Ready(over),
            None => self.state.wait(cx),
        }
    }

    /// The same, if it is known.
    pub fn ended(&self) -> Option<Result<Over, StartError>> {
        self.state.over.get()
    }

    /// The same, to be awaited.
    #[cfg(test)]
    pub async fn over(&self) -> Result<Over, StartError> {
        poll_fn(|cx| self.poll_over(cx)).await
    }

    /// For who wants to know when it is over, but does not keep it running.
    pub fn watch(&self) -> Watch {
        Watch(self.state.clone())
    }

    /// Stops it and its group, or lets them go on. False: not now, the helper is busy or gone.
    pub fn hold(&self, is_held: bool) -> bool {
        let Some(link) = self.link.upgrade() else {
            return false;
        };
        let bytes = write_hold(self.number, is_held);
        let fds = Vec::new();
        link.send(Message { bytes, fds }).is_ok()
    }

    /// Asks it to end, and kills it when it has not after `grace`; at once if that is zero.
    pub fn end(&self, grace: Duration) {
        if self.state.over.get().is_some() {
            return;
        }
        if let Some(link) = self.link.upgrade() {
            let grace = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
            let bytes = write_end(self.number, grace);
            let fds = Vec::new();
            // Without the helper it is dead already.
            let _ = link.send_surely(Message { bytes, fds });
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end(self.grace.get());
    }
}

impl State {
    fn wait<T>(&self, cx: &mut Context<'_>) -> Poll<T> {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn settle(&self, over: Result<Over, StartError>) {
        self.over.set(Some(over));
        self.wake();
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

impl Link {
    fn send(&self, message: Message) -> Result<(), StartError> {
        if self.unsent.borrow().len() >= MAX_UNSENT {
            return Err(StartError::Busy);
        }
        self.send_surely(message)
    }

    /// The same for what takes nothing but time: there is at most one for each program.
    fn send_surely(&self, message: Message) -> Result<(), StartError> {
        if self.is_gone.get() {
            return Err(StartError::Gone);
        }
        let mut unsent = self.unsent.borrow_mut();
        // In order: what is to end must have been started.
        if unsent.is_empty() {
            let sent = self
                .socket
                .try_io(Interest::WRITABLE, || message.send(self.socket.as_fd()));
            match sent {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(StartError::Gone),
            }
        }
        unsent.push_back(message);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes note of everything that is there. `None`: the helper is gone.
    fn take_news(&self) -> Option<()> {
        let mut buffer = [0; MAX_NEWS];
        loop {
            let received = self.socket.try_io(Interest::READABLE, || {
                net::recv_with_fds(&self.socket, &mut buffer)
            });
            let len = match received {
                Ok(received) => received.len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(()),
                Err(_) => return None,
            };
            let (number, news) = read_news(&buffer[..len])?;
            let state = match news {
                News::Started { .. } => self.running.borrow().get(&number).cloned(),
                _ => self.running.borrow_mut().remove(&number),
            };
            let Some(state) = state else {
                continue;
            };
            match news {
                News::Started { pid } => {
                    state.pid.set(Some(pid));
                    state.wake();
                }
                News::Failed { step, errno } => {
                    state.settle(Err(StartError::Failed(step, errno)));
                }
                News::Ended { end, cpu_us } => state.settle(Ok(Over { end, cpu_us })),
            }
        }
    }

    fn close(&self) {
        self.is_gone.set(true);
        self.unsent.borrow_mut().clear();
        for (_, state) in self.running.borrow_mut().drain() {
            state.settle(Err(StartError::Gone));
        }
    }
}

impl Message {
    fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let fds: Vec<_> = self.fds.iter().map(|fd| fd.as_fd()).collect();
        net::send_with_fds(socket, &self.bytes, &fds)
    }
}

/// Hears what the helper says, until it is gone.
async fn hear(link: Rc<Link>) {
    loop {
        if link.socket.readable().await.is_err() || link.take_news().is_none() {
            break;
        }
    }
    link.close();
}

/// Sends what the helper did not take at once.
async fn send_late(link: Rc<Link>) {
    loop {
        link.wake.notified().await;
        // What is sent stays the first until it is: what comes meanwhile comes behind it.
        while !link.unsent.borrow().is_empty() {
            if link.socket.writable().await.is_err() {
                return link.close();
            }
            let sent =
                link.socket
                    .try_io(Interest::WRITABLE, || match link.unsent.borrow().front() {
                        Some(message) => message.send(link.socket.as_fd()),
                        None => Ok(()),
                    });
            match sent {
                Ok(()) => _ = link.unsent.borrow_mut().pop_front(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return link.close(),
            }
        }
    }
}
