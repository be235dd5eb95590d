//! FastCGI towards web servers: one task per connection, however many requests are on it.
//!
//! ```text
//!   idle (no buffer) ── readable ──▶ read ──▶ understand ──▶ run ──▶ send ──┐
//!        ▲                            ▲                                      │
//!        │ nothing is under way       └──────────────────────────────────────┘
//!        └── or: close, where the web server wants no more, or has closed
//! ```
//!
//! The requests of a connection run in its task: each is a future of its own ([`respond`]), polled
//! whenever the connection is. Nearly all web servers have one request on a connection; for those
//! that have more, at most a hundred are looked at.
//!
//! A web server that closes its side has left: §5.4 and the usual web servers know no other way to
//! say so on a connection that has one request.

mod inlet;
mod request;
mod respond;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_fastcgi::{Capacity, HEADER_LEN, Limits, Params, ProtocolStatus, Server, ServerEvent};
use forebay_fields::Fields;
use smallvec::SmallVec;

use self::inlet::{Inlet, Inlets, StdinBody};
use super::h1::{self, Link, Registered};
use crate::exchange::{Body, Exchange, Fault, Interim, Lease, Reason, guard};
use crate::worker::BUFFER_BYTES;

/// What may wait to be sent before more is made or asked.
const FLUSH_BYTES: usize = 64 * 1024;
/// So often it goes round before others have their turn.
const TURNS: u32 = 8;
/// So many requests it begins before it looks at what there is to be sent and to be polled.
const TURN_REQUESTS: u32 = 32;
/// Requests at once on one connection.
const MAX_REQUESTS: u16 = 100;

/// How being busy ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing is under way: the web server may go on.
    Idle,
    /// All is said.
    Close,
    /// It is of no use any more; what is under way is given up.
    Drop,
}

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Nothing of the web server's.
    Nothing,
    /// The rest of a request's parameters.
    Params,
    /// More of a request's body.
    Body,
    /// That it takes what is sent.
    Reader,
}

/// A connection with something under way.
struct Conn {
    link: Rc<Link>,
    server: RefCell<Server>,
    inlets: RefCell<Inlets>,
    /// The web server wants no more on this connection, or must not go on with it.
    closing: Cell<bool>,
    /// A response was broken off: only the end of the connection says so.
    broken: Cell<bool>,
    waits: Cell<Waits>,
    /// Something was received. A new socket is taken to be readable before anybody has looked.
    has_come: Cell<bool>,
}

/// A request under way.
struct Running {
    id: u16,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

/// A request of which only the first record of its body tells whether it has one.
struct Undecided {
    id: u16,
    exchange: Lease,
}

/// What is under way on a connection: mostly one request.
#[derive(Default)]
struct Work {
    running: SmallVec<[Running; 1]>,
    undecided: SmallVec<[Undecided; 1]>,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.undecided.is_empty()
    }
}

/// Serves a connection from its beginning to its end.
pub async fn serve(link: Rc<Link>) {
    let _registered = Registered::new(&link);
    let conn = Conn::new(&link);
    let mut first = true;
    while h1::idle(&link, first).await {
        link.open_desk();
        let mut work = Work::default();
        let end = poll_fn(|cx| conn.poll_busy(&mut work, cx)).await;
        // What is under way is given up before the connection is.
        drop(work);
        if end == End::Close {
            h1::linger(&link).await;
        }
        link.close_desk();
        if end != End::Idle {
            return;
        }
        first &= !conn.has_come.replace(false);
    }
}

impl Conn {
    fn new(link: &Rc<Link>) -> Rc<Conn> {
        let limits = link.listener.with_served(|served| served.limits);
        let max_head = limits.max_header.saturating_add(limits.max_request_line);
        let of_parts = Limits::default();
        let limits = Limits {
            max_requests: MAX_REQUESTS,
            // The target stands in several of them, and some are about the server.
            max_params_bytes: max_head.saturating_mul(4),
            max_value: of_parts.max_value.max(max_head),
            ..of_parts
        };
        let capacity = Capacity {
            max_conns: 10_000,
            max_reqs: 10_000,
            responder: true,
            authorizer: false,
            filter: false,
        };
        Rc::new(Conn {
            link: link.clone(),
            server: RefCell::new(Server::new(limits, capacity)),
            inlets: RefCell::default(),
            closing: Cell::new(false),
            broken: Cell::new(false),
            waits: Cell::new(Waits::Nothing),
            has_come: Cell::new(false),
        })
    }

    fn poll_busy(self: &Rc<Self>, work: &mut Work, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..TURNS {
            let (filled, ended) = match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => (false, true),
                Poll::Ready(Ok(_)) => {
                    self.has_come.set(true);
                    (true, false)
                }
                Poll::Ready(Err(_)) => return Poll::Ready(End::Drop),
                Poll::Pending => (false, false),
            };
            let mut moved = match self.understand(work) {
                Ok(moved) => moved,
                Err(fault) => return Poll::Ready(self.garbage(fault)),
            };
            moved |= run(work, cx);
            let before = self.queued();
            let sent = match self.link.poll_flush(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Drop),
                Poll::Pending => false,
            };
            moved |= self.queued() < before;
            if self.broken.get() && sent && work.is_empty() {
                return Poll::Ready(End::Drop);
            }
            if sent && work.is_empty() {
                if self.closing.get() {
                    return Poll::Ready(End::Close);
                }
                let nothing_begun =
                    self.link.input_is_empty() && self.server.borrow().requests() == 0;
                if nothing_begun && self.is_between() {
                    let is_ending = self.link.is_ending();
                    return Poll::Ready(if is_ending { End::Close } else { End::Idle });
                }
            }
            if ended {
                return Poll::Ready(self.left(work, sent));
            }
            if moved || filled {
                self.wait_for(Waits::Nothing);
                continue;
            }
            match self.poll_late(sent, work, cx) {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                // Somebody learns that his body comes too slowly.
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        guard::end_turn(cx);
        Poll::Pending
    }

    /// Whether the next byte is a new record's.
    fn is_between(&self) -> bool {
        let at_end = |desk: &mut h1::Desk| self.server.borrow().handle_eof(&desk.input).is_ok();
        self.link.with_desk(at_end).unwrap_or(true)
    }

    fn queued(&self) -> usize {
        let queued = self.link.with_desk(|desk| desk.out.len_bytes());
        queued.unwrap_or_default()
    }

    /// Reads more unless enough waits to be understood: a body that nobody pulls stays with who
    /// sends it.
    fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if self.link.with_desk(|desk| desk.input.len() < BUFFER_BYTES) != Some(true) {
            return Poll::Pending;
        }
        // Its turn ends by itself, after so many rounds.
        self.link.poll_fill_head(cx)
    }

    /// The web server has closed its side.
    fn left(&self, work: &Work, sent: bool) -> End {
        if work.is_empty() && sent && self.server.borrow().requests() == 0 && self.is_between() {
            return End::Close;
        }
        self.link.worker.counters.fault(Reason::ClientGone);
        End::Drop
    }

    fn garbage(&self, fault: forebay_fastcgi::Fault) -> End {
        self.link.worker.counters.fault(Reason::BadRequest);
        crate::log::fault(&Fault::with(Reason::BadRequest, fault.sentence()), "");
        End::Drop
    }

    fn wait_for(&self, what: Waits) {
        if self.waits.replace(what) != what || what == Waits::Nothing {
            self.link.deadline.clear();
        }
        let times = self.link.listener.times();
        let time = match what {
            Waits::Nothing => return,
            Waits::Params => times.header,
            Waits::Body => times.body,
            Waits::Reader => times.write,
        };
        if !self.link.deadline.is_set() {
            self.link.arm(time);
        }
    }

    /// Looks whether the web server is too slow. `Ready(None)`: a body is.
    fn poll_late(&self, sent: bool, work: &Work, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let waits_for_body = || self.inlets.borrow().iter().any(Inlet::waits);
        // More requests than are being answered: the parameters of one are not complete.
        let begun = self.server.borrow().requests();
        let answered = work.running.len() + work.undecided.len();
        let what = match sent {
            false => Waits::Reader,
            true if waits_for_body() => Waits::Body,
            true if begun > answered || work.is_empty() => Waits::Params,
            true if !work.undecided.is_empty() => Waits::Params,
            true => Waits::Nothing,
        };
        self.wait_for(what);
        if what == Waits::Nothing || self.link.deadline.poll_expired(cx).is_pending() {
            return Poll::Pending;
        }
        self.wait_for(Waits::Nothing);
        let reason = match what {
            Waits::Body => {
                for inlet in self.inlets.borrow_mut().iter_mut() {
                    if inlet.waits() {
                        inlet.fail(Reason::BodyTooSlow.into());
                    }
                }
                return Poll::Ready(None);
            }
            Waits::Reader => Reason::ClientTooSlow,
            Waits::Params | Waits::Nothing => Reason::HeadTooSlow,
        };
        self.link.worker.counters.fault(reason);
        Poll::Ready(Some(End::Drop))
    }

    /// Takes what has come apart. True: something has happened.
    fn understand(self: &Rc<Self>, work: &mut Work) -> Result<bool, forebay_fastcgi::Fault> {
        let mut moved = false;
        let mut begun = 0;
        while self.queued() < FLUSH_BYTES && begun < TURN_REQUESTS {
            let event = self.link.with_desk(|desk| {
                let mut server = self.server.borrow_mut();
                server.poll(&mut desk.input, desk.out.tail())
            });
            let Some(event) = event.transpose()? else {
                break;
            };
            match event {
                ServerEvent::NeedMore => break,
                // Of the last record of a body the bytes may wait for their turn.
                ServerEvent::Stdin { id, len } if !self.take_in(work, id, len) => break,
                ServerEvent::Stdin { .. } | ServerEvent::Answered => {}
                ServerEvent::Request { id, params, .. } => {
                    begun += 1;
                    self.request(work, id, &params);
                }
                ServerEvent::StdinEnd { id } => {
                    self.decide(work, id, false);
                    if let Some(inlet) = self.inlets.borrow_mut().get_mut(id) {
                        inlet.end();
                    }
                }
                ServerEvent::Refused { keep_conn, .. } => {
                    self.closing.set(self.closing.get() || !keep_conn);
                }
                ServerEvent::Abort { id } => self.abort(work, id),
                ServerEvent::Fault { id, fault } => self.spoiled(work, id, fault),
                // Only a Filter has such a stream, and that role is refused.
                ServerEvent::Data { .. } | ServerEvent::DataEnd { .. } => {}
            }
            moved = true;
        }
        Ok(moved)
    }

    /// A part of a body. False: it has to wait.
    fn take_in(self: &Rc<Self>, work: &mut Work, id: u16, len: usize) -> bool {
        self.decide(work, id, true);
        let mut inlets = self.inlets.borrow_mut();
        let mut server = self.server.borrow_mut();
        let taken = self.link.with_desk(|desk| match inlets.get_mut(id) {
            Some(inlet) if inlet.is_wanted() => {
                let room = inlet.room();
                if room > 0 {
                    inlet.push(server.take(&mut desk.input, len.min(room)));
                }
                room > 0
            }
            _ => {
                server.skip(&mut desk.input, len);
                true
            }
        });
        taken.unwrap_or(true)
    }

    fn request(self: &Rc<Self>, work: &mut Work, id: u16, params: &Params) {
        let mut exchange = self.exchange();
        match request::read(&self.link, params, &mut exchange) {
            Ok(Some(len)) => self.start(work, id, exchange, Some(len), None),
            Ok(None) => work.undecided.push(Undecided { id, exchange }),
            Err(fault) => self.start(work, id, exchange, Some(0), Some(fault)),
        }
    }

    fn exchange(&self) -> Lease {
        let mut exchange = Exchange::new(&self.link.worker, self.link.remote.get());
        exchange.listener = Some(self.link.listener.clone());
        exchange
    }

    /// Now it is known whether this request has a body.
    fn decide(self: &Rc<Self>, work: &mut Work, id: u16, has_body: bool) {
        if let Some(at) = work.undecided.iter().position(|one| one.id == id) {
            let Undecided { exchange, .. } = work.undecided.swap_remove(at);
            let len = if has_body { None } else { Some(0) };
            self.start(work, id, exchange, len, None);
        }
    }

    /// Begins to answer; with a fault if it cannot be done otherwise.
    fn start(
        self: &Rc<Self>,
        work: &mut Work,
        id: u16,
        mut exchange: Lease,
        len: Option<u64>,
        fault: Option<Fault>,
    ) {
        if len != Some(0) {
            self.inlets.borrow_mut().insert(id, Inlet::new(len));
            let body = StdinBody::new(self.clone(), id, len);
            exchange.request.set_body(Body::Stream(Box::new(body)));
        }
        if let Some(rest) = respond::begin(self, id, exchange, fault) {
            let future = Box::pin(rest);
            work.running.push(Running { id, future });
        }
    }

    /// Nobody waits for the answer any more.
    fn abort(&self, work: &mut Work, id: u16) {
        work.running.retain(|one| one.id != id);
        work.undecided.retain(|one| one.id != id);
        self.end(id);
    }

    /// What was received of a request makes no sense.
    fn spoiled(self: &Rc<Self>, work: &mut Work, id: u16, fault: forebay_fastcgi::Fault) {
        let is_answered = work.running.iter().any(|one| one.id == id);
        if is_answered {
            let why = Fault::with(Reason::BodyMalformed, fault.sentence());
            if let Some(inlet) = self.inlets.borrow_mut().get_mut(id) {
                inlet.fail(why);
            }
            return;
        }
        work.undecided.retain(|one| one.id != id);
        let exchange = self.exchange();
        let fault = request::refused(fault);
        self.start(work, id, exchange, Some(0), Some(fault));
    }

    /// Queues bytes of a response.
    fn push(&self, id: u16, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let piece = self
                .server
                .borrow_mut()
                .stdout(id, bytes.len(), u16::MAX, false);
            // It was ended: then nobody wants it.
            let Ok(piece) = piece else { return };
            let now = bytes.split_to(piece.content);
            self.link.with_desk(|desk| {
                desk.out.tail().extend_from_slice(&piece.header);
                desk.out.push(now);
            });
        }
    }

    /// Queues what is written of a response: a head, mostly as one record.
    fn push_written(&self, id: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let rest = self.link.with_desk(|desk| {
            let out = desk.out.tail();
            let start = out.len();
            out.extend_from_slice(&[0; HEADER_LEN]);
            write(out);
            let len = out.len() - start - HEADER_LEN;
            let place = out.get_mut(start..start + HEADER_LEN);
            if let Some(place) = place
                && len <= usize::from(u16::MAX)
                && let Ok(piece) = self.server.borrow_mut().stdout(id, len, u16::MAX, false)
            {
                debug_assert_eq!((piece.content, piece.padding), (len, 0));
                place.copy_from_slice(&piece.header);
                return Bytes::new();
            }
            let rest = out.split_off(start + HEADER_LEN);
            out.truncate(start);
            rest.into()
        });
        self.push(id, rest.unwrap_or_default());
    }

    /// Ends a request, in whatever state it is.
    fn end(&self, id: u16) {
        self.inlets.borrow_mut().remove(id);
        let kept = self.link.with_desk(|desk| {
            let complete = ProtocolStatus::RequestComplete;
            let mut server = self.server.borrow_mut();
            server.end(id, 0, complete, desk.out.tail())
        });
        // One that is not under way any more says nothing about the connection.
        if let Some(Ok(keep_conn)) = kept {
            self.closing.set(self.closing.get() || !keep_conn);
        }
    }

    /// A response is not complete and never will be. FastCGI has no word for that: the others on
    /// this connection are finished, then it is closed without this one's end.
    fn break_off(&self, id: u16, fault: &Fault) {
        self.inlets.borrow_mut().remove(id);
        self.link.worker.counters.fault(fault.reason);
        self.link.worker.counters.aborted.add(1);
        self.closing.set(true);
        self.broken.set(true);
    }
}

/// Polls all that is under way. True: something has ended.
fn run(work: &mut Work, cx: &mut Context<'_>) -> bool {
    let before = work.running.len();
    work.running
        .retain_mut(|one| one.future.as_mut().poll(cx).is_pending());
    work.running.len() < before
}

impl Interim for Conn {
    /// A response of CGI has one head.
    fn interim(&self, _: u16, _: &Fields) {}

    /// It always is, here.
    fn end_of_input_is_leaving(&self) {}
}
