//! One HTTP/1 connection's state, shared by its task, the request body that reads from it and the
//! worker that may close it.

use std::cell::{Cell, RefCell, RefMut};
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use forebay_fields::Fields;
use forebay_http1::{BodyDecoder, Framing, HeadParser, Limits, RequestHead, write_status_line};

use super::pace::Pace;
use crate::exchange::{Exchange, Interim, Reason, Remote, Tunnel};
use crate::listen::{Client, Listener};
use crate::transport::{Out, Transport};
use crate::wheel::Deadline;
use crate::worker::{BUFFER_BYTES, Worker};

/// How long a connection that has been accepted is given for its first request when the server, or
/// its listener, ends.
pub const LAST_CALL: Duration = Duration::from_millis(500);

/// What a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Has sent nothing yet, since this time on the worker's clock.
    Fresh(u64),
    /// Waits for another request since then.
    Idle(u64),
    /// Has an exchange, or a part of a request.
    Busy,
}

/// One connection. An idle one holds this, its socket and its task; no buffer.
pub struct Link {
    /// The worker it belongs to.
    pub worker: Rc<Worker>,
    /// Where it came in.
    pub listener: Rc<Listener>,
    /// Who is at the other end, or for whom that one has connected.
    pub remote: Cell<Remote>,
    io: RefCell<Transport>,
    desk: RefCell<Option<Box<Desk>>>,
    /// The one time that runs for it: what for, its task knows.
    pub deadline: Deadline,
    /// What it is about.
    pub phase: Cell<Phase>,
    /// The client has closed its sending side.
    pub eof: Cell<bool>,
    /// It shall end as soon as nothing is under way on it.
    pub closing: Cell<bool>,
    /// A client that has closed its sending side counts as gone.
    pub eof_is_gone: Cell<bool>,
    /// It is among its client's connections.
    is_counted: Cell<bool>,
    /// Its place in the worker's table.
    pub key: Cell<usize>,
}

/// What a connection needs only while something happens on it.
pub struct Desk {
    /// Reads heads; remembers how far it has looked.
    pub parser: HeadParser,
    /// The head that was read last, until its exchange takes it.
    pub head: RequestHead,
    /// Received and not yet used.
    pub input: BytesMut,
    /// To be sent.
    pub out: Out,
    /// The body of the request under way.
    pub body: BodyDecoder,
    /// A step holds the body of the request and reads it.
    pub body_is_read: bool,
    /// How fast the client sends its body.
    pub pace_in: Pace,
    /// How fast it takes the answer.
    pace_out: Pace,
    /// The client waits for 100 Continue before it sends the body.
    pub expects_continue: bool,
    /// How many 1xx responses may still be sent for this request.
    pub interim_left: u8,
    /// What the connection goes on with, once what is queued has been sent.
    pub tunnel: Option<Box<Tunnel>>,
    /// How many bytes of the response's body have been queued or sent.
    pub body_bytes: u64,
    /// Why the response was broken off, if it was.
    pub broken: Option<Reason>,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk {
            parser: HeadParser::default(),
            head: RequestHead::default(),
            input: BytesMut::new(),
            out: Out::default(),
            body: no_body(),
            body_is_read: false,
            pace_in: Pace::default(),
            pace_out: Pace::default(),
            expects_continue: false,
            interim_left: 0,
            tunnel: None,
            body_bytes: 0,
            broken: None,
        }
    }
}

fn no_body() -> BodyDecoder {
    BodyDecoder::new(Framing::None, &Limits::default())
}

impl Desk {
    /// Makes it fit for another connection.
    pub fn recycle(&mut self) {
        self.parser = HeadParser::default();
        self.head.clear();
        self.out.recycle(4 * BUFFER_BYTES);
        self.body = no_body();
        self.body_is_read = false;
        self.pace_in = Pace::default();
        self.pace_out = Pace::default();
        self.expects_continue = false;
        self.interim_left = 0;
        self.tunnel = None;
        self.body_bytes = 0;
        self.broken = None;
    }
}

/// At most this many 1xx responses are passed on for one request.
pub const MAX_INTERIM: u8 = 8;

impl Link {
    /// A connection that has just been accepted.
    pub fn new(
        worker: &Rc<Worker>,
        listener: &Rc<Listener>,
        io: Transport,
        remote: Remote,
    ) -> Rc<Link> {
        Rc::new(Link {
            worker: worker.clone(),
            listener: listener.clone(),
            remote: Cell::new(remote),
            io: RefCell::new(io),
            desk: RefCell::new(None),
            deadline: worker.wheel.register(),
            phase: Cell::new(Phase::Busy),
            eof: Cell::new(false),
            closing: Cell::new(false),
            eof_is_gone: Cell::new(false),
            is_counted: Cell::new(false),
            key: Cell::new(usize::MAX),
        })
    }

    /// Counts it among its client's connections. False: that one has as many as it may. Who is
    /// trusted speaks for many clients, and has no limit.
    pub fn enter_clients(&self) -> bool {
        let address = self.remote.get().address.ip();
        let most = self.listener.with_served(|served| {
            let is_trusted = served.trust.as_ref().is_some_and(|t| t.believes(address));
            (!is_trusted).then_some(served.max_per_client)
        });
        let (Some(most), Some(client)) = (most, self.client()) else {
            return true;
        };
        let may = self.worker.process.clients.enter(client, most);
        self.is_counted.set(may);
        may
    }

    fn client(&self) -> Option<Client> {
        Client::of(self.listener.id, self.remote.get().address.ip())
    }

    /// True once it shall take no further request.
    pub fn is_ending(&self) -> bool {
        self.closing.get() || self.worker.draining.get() || self.listener.is_gone()
    }

    /// Takes buffers from the worker.
    pub fn open_desk(&self) {
        let mut desk = self.desk.borrow_mut();
        if desk.is_none() {
            *desk = Some(self.worker.desk());
        }
    }

    /// Gives the buffers back.
    pub fn close_desk(&self) {
        if let Some(desk) = self.desk.borrow_mut().take() {
            self.worker.give_back_desk(desk);
        }
    }

    /// Works with the buffers. `None` where there are none, which only an idle link has.
    pub fn with_desk<R>(&self, work: impl FnOnce(&mut Desk) -> R) -> Option<R> {
        self.desk.borrow_mut().as_mut().map(|desk| work(desk))
    }

    /// True if nothing received is left over.
    pub fn input_is_empty(&self) -> bool {
        self.with_desk(|desk| desk.input.is_empty()).unwrap_or(true)
    }

    /// The transport itself, for who passes on what nobody here reads.
    pub fn transport(&self) -> RefMut<'_, Transport> {
        self.io.borrow_mut()
    }

    /// Waits until there is something to read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.borrow().poll_read_ready(cx)
    }

    /// Looks at what has come, without taking it. `Ok(0)` is the end.
    pub fn poll_peek(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.io.borrow().poll_peek(cx, into)
    }

    /// Takes what has been looked at.
    pub fn take_out(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.io.borrow().take_out(bytes)
    }

    /// Reads more into `input`. `Ok(0)` is the end, which is remembered.
    pub fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_by(cx, Transport::poll_read)
    }

    /// The same for a head: that there is something is mostly known already.
    pub fn poll_fill_head(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_by(cx, Transport::poll_read_head)
    }

    #[inline]
    fn poll_fill_by(
        &self,
        cx: &mut Context<'_>,
        read: impl FnOnce(&mut Transport, &mut Context<'_>, &mut BytesMut) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.eof.get() {
            return Poll::Ready(Ok(0));
        }
        let mut desk = self.desk.borrow_mut();
        let Some(desk) = desk.as_mut() else {
            return Poll::Ready(Ok(0));
        };
        if desk.input.capacity() - desk.input.len() < BUFFER_BYTES / 4 {
            desk.input.reserve(BUFFER_BYTES);
        }
        let read = ready!(read(&mut self.io.borrow_mut(), cx, &mut desk.input))?;
        self.worker.counters.received_bytes.add(read as u64);
        if read == 0 {
            self.eof.set(true);
        }
        Poll::Ready(Ok(read))
    }

    /// Sends what waits to be sent.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut desk = self.desk.borrow_mut();
        let Some(desk) = desk.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        if desk.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut sent = 0;
        let result = desk
            .out
            .poll_flush(&mut self.io.borrow_mut(), cx, &mut sent);
        self.worker.counters.sent_bytes.add(sent);
        // Nothing of this happens while the socket takes everything at once.
        if result.is_pending() {
            let now = self.worker.now_ms();
            if sent > 0 {
                // The client reads: its time starts anew.
                self.deadline.set(now, self.listener.times().write);
                if !desk.pace_out.moved(now, sent) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            desk.pace_out.wait(now);
        } else if desk.pace_out.is_waiting() {
            desk.pace_out.moved(self.worker.now_ms(), sent);
            self.deadline.clear();
        }
        result
    }

    /// Whether [`poll_send_file`](Link::poll_send_file) works here.
    pub fn sends_files(&self) -> bool {
        self.io.borrow().sends_files()
    }

    /// Sends what is queued and then some of a file. Pending: the client takes nothing, and the
    /// deadline runs.
    pub fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: &File,
        offset: u64,
        max: u64,
    ) -> Poll<io::Result<u64>> {
        let mut desk = self.desk.borrow_mut();
        let Some(desk) = desk.as_mut() else {
            return Poll::Ready(Ok(0));
        };
        let mut io = self.io.borrow_mut();
        let mut queued = 0;
        let result = match desk.out.poll_flush_more(&mut io, cx, &mut queued) {
            Poll::Ready(Ok(())) => {
                let max = usize::try_from(max).unwrap_or(usize::MAX);
                io.poll_send_file(cx, file, offset, max)
                    .map_ok(|sent| sent as u64)
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        let sent = queued
            + if let Poll::Ready(Ok(sent)) = result {
                sent
            } else {
                0
            };
        desk.body_bytes += sent - queued;
        self.worker.counters.sent_bytes.add(sent);
        let is_blocked = result.is_pending();
        if is_blocked || desk.pace_out.is_waiting() {
            let now = self.worker.now_ms();
            if !desk.pace_out.moved(now, sent) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if is_blocked {
                desk.pace_out.wait(now);
                if sent > 0 || !self.deadline.is_set() {
                    self.deadline.set(now, self.listener.times().write);
                }
            } else {
                self.deadline.clear();
            }
        }
        result
    }

    /// Notes on the exchange what was sent of its response.
    ///
    /// What is queued behind the answers to other requests counts as sent, unless the response was
    /// broken off or `is_cut`.
    pub fn tell(&self, exchange: &mut Exchange, is_cut: bool) {
        self.with_desk(|desk| {
            let unsent = match (desk.broken, is_cut) {
                (None, false) => 0,
                _ => desk.out.len_bytes() as u64,
            };
            exchange.outcome.bytes = desk.body_bytes.saturating_sub(unsent);
            exchange.outcome.fault = desk.broken.or(exchange.outcome.fault);
        });
    }

    /// Lets the deadline run for so long.
    pub fn arm(&self, time: Duration) {
        self.deadline.set(self.worker.now_ms(), time);
    }

    /// Ends the sending side.
    pub fn shutdown(&self) -> io::Result<()> {
        self.io.borrow_mut().shutdown()
    }

    /// Makes the close a reset.
    pub fn reset_on_close(&self) {
        self.io.borrow().reset_on_close();
    }

    /// Asks the connection to end: at once if it is idle, else after its exchange.
    pub fn close_soon(&self) {
        self.closing.set(true);
        match self.phase.get() {
            Phase::Busy => {}
            Phase::Idle(_) => self.arm(Duration::ZERO),
            Phase::Fresh(_) => self.arm(LAST_CALL),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.is_counted.get()
            && let Some(client) = self.client()
        {
            self.worker.process.clients.leave(client);
        }
    }
}

impl Interim for Link {
    fn interim(&self, status: u16, fields: &Fields) {
        let sent = self.with_desk(|desk| {
            if desk.interim_left == 0 {
                return;
            }
            desk.interim_left -= 1;
            let out = desk.out.tail();
            write_status_line(out, status, None);
            fields.write_to(out);
            out.extend_from_slice(b"\r\n");
        });
        debug_assert!(
            sent.is_some(),
            "only a busy connection has interim responses"
        );
        // Sent as far as the socket takes it; the rest goes before the response.
        let _ = self.poll_flush(&mut Context::from_waker(std::task::Waker::noop()));
    }

    fn end_of_input_is_leaving(&self) {
        self.eof_is_gone.set(true);
    }
}
