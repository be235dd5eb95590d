//! One program that runs: what it is told, what it says, and for how long.
//!
//! ```text
//!   request's body ──▶ pipe ──▶ program ──▶ pipe ──▶ head ──▶ body, pulled by the client
//!                                  │ ──▶ pipe ──▶ error log
//!                                  ▼
//!              ended: by itself, by its time, or because nobody wants it any more
//! ```
//!
//! *Its time* passes while it keeps somebody waiting, and only then: not while the client is slow
//! in sending or in taking, because nothing that moves is cut for its length.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use forebay_fastcgi::{CgiHead, CgiHeadParser, CgiLimits};
use forebay_sys::process::End;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe;

use crate::exchange::{Body, Fault, Pulled, Reason, Stream};
use crate::files::FileStream;
use crate::helper::programs::{Place, Program, Spec, StartError};
use crate::steps::limit::Permit;
use crate::wheel::Deadline;
use crate::worker::{LARGE_BUFFER_BYTES, Worker};

/// What a program may take and give.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long it may keep others waiting, all told.
    pub time: Duration,
    /// How many bytes its body may have.
    pub output: u64,
}

/// A program has closed its output: for so long it is waited for whether it ended well.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Of a response's body so much is read ahead of a client that is slower.
const READ_AHEAD: usize = 256 * 1024;

/// A program that runs for an exchange. Dropping it ends the program.
pub struct Run {
    worker: Rc<Worker>,
    /// `None` once it is left to itself.
    program: Option<Running>,
    input: Input,
    buffer: BytesMut,
    parser: CgiHeadParser,
    clock: Clock,
    bounds: Bounds,
    /// What is still to come of a body whose length was announced.
    length_left: Option<u64>,
    /// The length of the whole body, if it was announced.
    len_bytes: Option<u64>,
    output_left: u64,
    /// It has closed its output.
    is_silent: bool,
    is_over: bool,
}

/// What there is while it runs.
struct Running {
    program: Program,
    output: pipe::Receiver,
    /// Its place among those that may run at one time.
    permit: Permit,
}

/// The request's body on its way.
enum Input {
    /// There is none, or all of it was taken, or no more of it is wanted.
    Done,
    Coming {
        body: Box<dyn Stream>,
        to: pipe::Sender,
        held: Bytes,
        /// Nothing comes behind what is held.
        is_last: bool,
    },
}

/// Whom a program's input waits for.
#[derive(PartialEq, Eq)]
enum WaitsFor {
    Program,
    Client,
}

/// What a program's pipes are to it and to us.
pub struct Pipes {
    /// For its descriptors 0, 1 and 2.
    pub places: Vec<Place>,
    input: Option<OwnedFd>,
    output: OwnedFd,
    /// What it says on its error stream.
    pub errors: pipe::Receiver,
}

impl Pipes {
    /// New ones; `has_input`: there is a body for it.
    ///
    /// # Errors
    /// Too many descriptors are open.
    pub fn open(has_input: bool) -> Result<Pipes, Fault> {
        Pipes::try_open(has_input).map_err(|error| {
            Fault::with(
                Reason::Overloaded,
                format!("no pipe for a program: {error}"),
            )
        })
    }

    fn try_open(has_input: bool) -> std::io::Result<Pipes> {
        let (output, its_output) = pipe_with(PipeFlags::CLOEXEC)?;
        let (errors, its_errors) = pipe_with(PipeFlags::CLOEXEC)?;
        let (its_input, input) = if has_input {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (Place::Fd(Rc::new(read)), Some(write))
        } else {
            (Place::Null, None)
        };
        Ok(Pipes {
            places: vec![
                its_input,
                Place::Fd(Rc::new(its_output)),
                Place::Fd(Rc::new(its_errors)),
            ],
            input,
            output,
            errors: receiver(errors)?,
        })
    }
}

/// The end of a new pipe that is read: nothing about it needs to be asked for.
fn receiver(end: OwnedFd) -> std::io::Result<pipe::Receiver> {
    rustix::io::ioctl_fionbio(&end, true)?;
    pipe::Receiver::from_owned_fd_unchecked(end)
}

impl Run {
    /// Has a program started that gets this body; also what it says on its error stream.
    ///
    /// # Errors
    /// It cannot be.
    pub fn start(
        worker: &Rc<Worker>,
        spec: Spec<'_>,
        body: Body,
        permit: Permit,
        bounds: Bounds,
    ) -> Result<(Run, pipe::Receiver), Fault> {
        let mut pipes = Pipes::open(body.len_bytes() != Some(0))?;
        let places = std::mem::take(&mut pipes.places);
        let program = worker.programs.start(Spec { places, ..spec });
        let program = program.map_err(|error| not_started(&error))?;
        let failed =
            |error: std::io::Error| Fault::with(Reason::Internal, format!("a pipe: {error}"));
        let output = receiver(pipes.output).map_err(failed)?;
        let input = match pipes.input {
            None => Input::Done,
            Some(to) => {
                let to = pipe::Sender::from_owned_fd(to).map_err(failed)?;
                Input::new(worker, body, to)
            }
        };
        let run = Run {
            worker: worker.clone(),
            program: Some(Running {
                program,
                output,
                permit,
            }),
            input,
            buffer: worker.large_buffer(),
            parser: CgiHeadParser::default(),
            clock: Clock::new(worker, bounds.time),
            bounds,
            length_left: None,
            len_bytes: None,
            output_left: bounds.output,
            is_silent: false,
            is_over: false,
        };
        Ok((run, pipes.errors))
    }

    /// Its program, while it runs for somebody.
    pub fn program(&self) -> Option<&Program> {
        self.program.as_ref().map(|running| &running.program)
    }

    /// The head of its response.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<CgiHead, Fault>> {
        loop {
            let waits = match self.poll_input(cx) {
                Ok(waits) => waits,
                Err(fault) => return Poll::Ready(Err(fault)),
            };
            match self.parser.parse(&mut self.buffer, &LIMITS) {
                Ok(Some(head)) => return Poll::Ready(self.begin_body(head)),
                Ok(None) => {}
                Err(error) => {
                    return Poll::Ready(Err(Fault::with(Reason::BadResponse, error.sentence())));
                }
            }
            if self.is_silent {
                let fault = ready!(self.poll_end(cx)).unwrap_or_else(|| {
                    Fault::with(
                        Reason::BadResponse,
                        "it closed its output without an answer",
                    )
                });
                return Poll::Ready(Err(fault));
            }
            if self.poll_output(cx)?.is_pending() {
                return self.poll_time(&waits, cx).map(Err);
            }
        }
    }

    fn begin_body(&mut self, head: CgiHead) -> Result<CgiHead, Fault> {
        if head.status > 599 {
            let what = format!("status {}", head.status);
            return Err(Fault::with(Reason::BadResponse, what));
        }
        if head
            .content_length
            .is_some_and(|len| len > self.bounds.output)
        {
            return Err(Fault::with(Reason::BadResponse, TOO_MUCH));
        }
        self.length_left = head.content_length;
        self.len_bytes = head.content_length;
        Ok(head)
    }

    /// Its body; `has_none`: the response has none, whatever the program says.
    pub fn into_body(mut self: Box<Self>, has_none: bool) -> Body {
        if has_none {
            self.leave();
            return Body::Empty;
        }
        Body::Stream(self)
    }

    /// Leaves the program to itself: its answer is complete, but it may have something to do yet.
    /// It still has its place and its time.
    pub fn leave(&mut self) {
        self.is_over = true;
        self.input = Input::Done;
        let left = self.clock.left(self.worker.now_ms());
        if let Some(running) = self.program.take() {
            let deadline = self.worker.wheel.register();
            deadline.set(self.worker.now_ms(), left);
            tokio::task::spawn_local(running.finish(deadline));
        }
    }

    /// Passes on as much of the request's body as the program takes.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<WaitsFor, Fault> {
        loop {
            let Input::Coming {
                body,
                to,
                held,
                is_last,
            } = &mut self.input
            else {
                return Ok(WaitsFor::Program);
            };
            if !held.is_empty() {
                match Pin::new(to).poll_write(cx, held) {
                    Poll::Ready(Ok(len)) => {
                        held.advance(len);
                        self.clock.stop(self.worker.now_ms());
                    }
                    // It does not want to know more, which is its right.
                    Poll::Ready(Err(_)) => self.input = Input::Done,
                    Poll::Pending => return Ok(WaitsFor::Program),
                }
                continue;
            }
            if *is_last {
                self.input = Input::Done;
                continue;
            }
            match body.poll_pull(cx) {
                Poll::Ready(Pulled::Data(bytes)) => *held = bytes,
                Poll::Ready(Pulled::End(_)) => self.input = Input::Done,
                // The program must not take a part for the whole: it is ended with its run.
                Poll::Ready(Pulled::Abort(fault)) => return Err(fault),
                Poll::Pending => return Ok(WaitsFor::Client),
            }
        }
    }

    /// Reads some of what it says.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Fault> {
        if self.buffer.capacity() == self.buffer.len() {
            if !self.buffer.is_empty() {
                self.buffer.reserve(LARGE_BUFFER_BYTES);
            } else if !self.buffer.try_reclaim(READ_AHEAD) {
                self.buffer = self.worker.large_buffer();
            }
        }
        let Some(running) = &mut self.program else {
            return Err(Reason::Internal.into());
        };
        loop {
            match running.output.poll_read_ready(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(error)) => return Err(broken(&error)),
                Poll::Ready(Ok(())) => {}
            }
            match running.output.try_read_buf(&mut self.buffer) {
                Ok(0) => self.is_silent = true,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(broken(&error)),
            }
            self.clock.stop(self.worker.now_ms());
            return Ok(Poll::Ready(()));
        }
    }

    /// While it says nothing: is it still in time? Ready with what it has done wrong.
    fn poll_time(&mut self, waits: &WaitsFor, cx: &mut Context<'_>) -> Poll<Fault> {
        let now = self.worker.now_ms();
        if *waits == WaitsFor::Client {
            self.clock.stop(now);
            return Poll::Pending;
        }
        ready!(self.clock.poll_over(now, cx));
        Poll::Ready(Reason::TotalTimeout.into())
    }

    /// It has closed its output: what is wrong with how it has ended, if anything is. What ends
    /// well but does not end is not waited for for long.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Fault>> {
        let Some(running) = &self.program else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(over) = running.program.poll_over(cx) {
            return Poll::Ready(match over {
                Err(error) => Some(not_started(&error)),
                Ok(over) => match over.end {
                    End::Exited(0) => None,
                    End::Exited(status) => self.len_bytes.is_none().then(|| {
                        let what = format!("it ended with status {status}");
                        Fault::with(Reason::BadResponse, what)
                    }),
                    End::Killed(signal) => {
                        let what = format!("it was ended by signal {signal}");
                        Some(Fault::with(Reason::Truncated, what))
                    }
                },
            });
        }
        self.clock.shorten(LAST_WORD);
        let now = self.worker.now_ms();
        self.clock.poll_over(now, cx).map(|()| None)
    }

    fn abort(&mut self, fault: Fault) -> Poll<Pulled> {
        self.is_over = true;
        self.program = None;
        self.input = Input::Done;
        Poll::Ready(Pulled::Abort(fault))
    }

    fn finish(&mut self) -> Poll<Pulled> {
        self.leave();
        Poll::Ready(Pulled::End(None))
    }

    /// What the buffer holds of the body.
    fn take(&mut self) -> Option<Bytes> {
        let left = self.length_left.unwrap_or(u64::MAX).min(self.output_left);
        let len = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(self.buffer.len());
        if len == 0 {
            return None;
        }
        self.output_left -= len as u64;
        if let Some(left) = &mut self.length_left {
            *left -= len as u64;
        }
        Some(self.buffer.split_to(len).freeze())
    }
}

impl Stream for Run {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        loop {
            if self.is_over {
                return Poll::Ready(Pulled::End(None));
            }
            if let Some(bytes) = self.take() {
                return Poll::Ready(Pulled::Data(bytes));
            }
            // What goes beyond an announced length is nobody's.
            if self.length_left == Some(0) {
                return self.finish();
            }
            if !self.buffer.is_empty() {
                return self.abort(Fault::with(Reason::BadResponse, TOO_MUCH));
            }
            if self.is_silent {
                if self.length_left.is_some() {
                    return self.abort(Reason::Truncated.into());
                }
                return match ready!(self.poll_end(cx)) {
                    Some(fault) if fault.reason == Reason::Truncated => self.abort(fault),
                    _ => self.finish(),
                };
            }
            let waits = match self.poll_input(cx) {
                Ok(waits) => waits,
                Err(fault) => return self.abort(fault),
            };
            match self.poll_output(cx) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => {
                    let fault = ready!(self.poll_time(&waits, cx));
                    return self.abort(fault);
                }
                Err(fault) => return self.abort(fault),
            }
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len_bytes
    }

    fn read_ahead_bytes(&self) -> usize {
        READ_AHEAD
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.worker
            .give_back_large(std::mem::take(&mut self.buffer));
    }
}

impl Running {
    /// Lets it come to its end, and takes no notice of what it still says.
    async fn finish(self, deadline: Deadline) {
        let Running {
            program,
            output,
            permit,
        } = self;
        std::future::poll_fn(|cx| {
            let mut waste = [0; 4096];
            while output.poll_read_ready(cx).is_ready()
                && output.try_read(&mut waste).is_ok_and(|len| len > 0)
            {}
            let is_over = program.poll_over(cx).is_ready() || deadline.poll_expired(cx).is_ready();
            if is_over {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        drop((program, permit));
    }
}

impl Input {
    fn new(worker: &Rc<Worker>, body: Body, to: pipe::Sender) -> Input {
        let coming = |body, held, is_last| Input::Coming {
            body,
            to,
            held,
            is_last,
        };
        match body {
            Body::Empty | Body::Tunnel(_) => Input::Done,
            Body::Bytes(bytes) => coming(Box::new(Nothing), bytes, true),
            Body::File(range) => {
                let file = FileStream::new(worker, range);
                coming(Box::new(file), Bytes::new(), false)
            }
            Body::Stream(stream) => coming(stream, Bytes::new(), false),
        }
    }
}

/// What follows a body that is held as a whole.
struct Nothing;

impl Stream for Nothing {
    fn poll_pull(&mut self, _: &mut Context<'_>) -> Poll<Pulled> {
        Poll::Ready(Pulled::End(None))
    }

    fn len_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

/// The time that a program has, which passes while others wait for it.
struct Clock {
    deadline: Deadline,
    left_ms: u64,
    /// What comes behind that: see [`Clock::shorten`].
    rest_ms: u64,
    /// Since when it runs.
    since: Option<u64>,
}

impl Clock {
    fn new(worker: &Rc<Worker>, time: Duration) -> Clock {
        Clock {
            deadline: worker.wheel.register(),
            left_ms: millis(time),
            rest_ms: 0,
            since: None,
        }
    }

    /// Lets it run; ready when the time is over.
    fn poll_over(&mut self, now_ms: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            self.since = Some(now_ms);
            let left = Duration::from_millis(self.left_ms);
            self.deadline.set(now_ms, left);
        }
        self.deadline.poll_expired(cx)
    }

    /// Stops it.
    fn stop(&mut self, now_ms: u64) {
        if let Some(since) = self.since.take() {
            let passed = now_ms.saturating_sub(since);
            self.left_ms = self.left_ms.saturating_sub(passed);
            self.deadline.clear();
        }
    }

    /// Lets it be over after this already, unless it runs; what is left then comes behind it.
    fn shorten(&mut self, most: Duration) {
        if self.since.is_none() && self.rest_ms == 0 {
            let short = self.left_ms.min(millis(most));
            self.rest_ms = self.left_ms - short;
            self.left_ms = short;
        }
    }

    /// All that is left.
    fn left(&mut self, now_ms: u64) -> Duration {
        self.stop(now_ms);
        Duration::from_millis(self.left_ms + self.rest_ms)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a program that does not run is to its client.
pub fn not_started(error: &StartError) -> Fault {
    let reason = match error {
        StartError::TooLarge => Reason::HeadTooLarge,
        StartError::Busy => Reason::Overloaded,
        StartError::Gone | StartError::Failed(..) => Reason::ProgramFailed,
    };
    Fault::with(reason, error.to_string())
}

fn broken(error: &std::io::Error) -> Fault {
    Fault::with(Reason::Internal, format!("a program's output: {error}"))
}

const TOO_MUCH: &str = "more output than `output` allows";

/// As those of other applications: what a program sends is its operator's business, but it cannot
/// fill the memory.
const LIMITS: CgiLimits = CgiLimits {
    max_header: 64 * 1024,
    max_fields: 100,
};
