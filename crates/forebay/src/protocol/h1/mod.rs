//! HTTP/1.x towards clients: one task per connection.
//!
//! ```text
//!      ┌────────────────────────── nothing of a next request is there ──────────────────────┐
//!      ▼                                                                                    │
//!    idle (no buffer) ── readable ──▶ head ── complete ──▶ run ── answered ──▶ answer queued┤
//!                                      │ refused            │ waits, or the body streams    │
//!                                      ▼                    ▼                               │
//!              linger, close ◀── answer queued ◀── last ── waiting (boxed) ── sent ─────────┘
//!                                                           │ 101
//!                                                           ▼
//!                                                         tunnel (boxed) ── over ──▶ close
//! ```
//!
//! A request that is answered from memory never leaves this task's own small future; its answer is
//! queued behind those of the requests before it, and all leave together: when no complete request
//! is left, when an exchange has to wait, or when 64 KiB are collected. Everything else — an
//! upstream, a body that streams — goes on in a boxed future ([`waiting`]), so that an idle
//! connection stays small.

mod body;
mod files;
mod link;
mod pace;
mod send;
mod tunnel;
mod waiting;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use forebay_http1::{BodyDecoder, Framing, HeadError, Method, Progress, RequestHead, Version};

pub use link::{Desk, LAST_CALL, Link, MAX_INTERIM, Phase};
pub use send::linger;

use crate::exchange::{Body, Exchange, Fault, Reason, Response, guard};
use body::ClientBody;

/// A connection answers at most this many requests before others get their turn.
const TURN_REQUESTS: u32 = 32;

/// Answers are sent at the latest when this many bytes have been collected.
const FLUSH_BYTES: usize = 64 * 1024;

/// What of the request the form of its answer depends on.
#[derive(Clone, Copy)]
struct Asked {
    version: Version,
    is_head: bool,
    /// The client would go on after this exchange.
    keep: bool,
}

/// What becomes of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It goes on.
    Go,
    /// It goes on, and nothing has come: the runtime takes a new socket to be readable before it has
    /// looked.
    Nothing,
    /// All is said and all is read: send what waits, then close.
    Close,
    /// All is said, but the client may still be sending: end it so that it sees what was said.
    Linger,
    /// It is of no use any more.
    Drop,
    /// What its desk holds: it speaks no HTTP from now on.
    Tunnel,
}

/// What reading a head comes to.
enum Head {
    Complete,
    /// Nothing of a next request has come yet.
    None,
    /// The client has ended between requests.
    End,
    /// It cannot be answered as it is.
    Refused(Fault),
    /// The connection is broken.
    Broken,
}

/// Serves a connection from its beginning to its end.
pub async fn serve(link: Rc<Link>) {
    let _registered = Registered::new(&link);
    // What the client sends first is waited for like any other request, but for the head's time:
    // who connects and says nothing holds no buffer either.
    let mut first = true;
    while idle(&link, first).await {
        link.open_desk();
        let next = busy(&link).await;
        match next {
            Next::Go | Next::Nothing | Next::Drop => {}
            Next::Close => {
                poll_fn(|cx| poll_sent(&link, cx)).await;
            }
            Next::Linger => Box::pin(linger(&link)).await,
            Next::Tunnel => Box::pin(tunnel::run(&link)).await,
        }
        link.close_desk();
        match next {
            Next::Go => first = false,
            Next::Nothing => {}
            _ => return,
        }
    }
}

/// The connection's place in its worker's table; given up on whatever way out, since the table
/// keeps the socket open.
pub struct Registered<'a>(&'a Rc<Link>);

impl<'a> Registered<'a> {
    /// Enters it.
    pub fn new(link: &'a Rc<Link>) -> Registered<'a> {
        link.key.set(link.worker.enlist(link));
        Registered(link)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if self.0.phase.get() != Phase::Busy {
            self.0.worker.counters.idle.sub(1);
        }
        self.0.worker.discharge(self.0.key.get());
    }
}

/// Waits for the next request without holding a buffer. False: the connection is over.
///
/// One that has been accepted gets its first answer even if the server is about to end: its request
/// is on the way, and nobody would send it again.
pub async fn idle(link: &Link, first: bool) -> bool {
    if link.eof.get() || (link.is_ending() && !first) {
        return false;
    }
    let now = link.worker.turn_ms();
    let times = link.listener.times();
    link.phase.set(if first {
        Phase::Fresh(now)
    } else {
        Phase::Idle(now)
    });
    let time = match (first, link.is_ending()) {
        (true, true) => LAST_CALL,
        (true, false) => times.header,
        (false, _) => times.idle,
    };
    link.worker.counters.idle.add(1);
    link.deadline.set(now, time);
    let readable = poll_fn(|cx| {
        if let Poll::Ready(result) = link.poll_readable(cx) {
            return Poll::Ready(result.is_ok());
        }
        ready!(link.deadline.poll_expired(cx));
        Poll::Ready(false)
    })
    .await;
    link.phase.set(Phase::Busy);
    link.worker.counters.idle.sub(1);
    link.deadline.clear();
    readable
}

/// Answers requests until nothing of a next one is there.
async fn busy(link: &Rc<Link>) -> Next {
    let mut answered = 0;
    loop {
        match poll_fn(|cx| poll_head(link, answered > 0, cx)).await {
            Head::Complete => {}
            Head::None if answered == 0 => return Next::Nothing,
            Head::None => return Next::Go,
            Head::End => return Next::Close,
            Head::Broken => return Next::Drop,
            Head::Refused(fault) => {
                send::refusal(link, fault);
                return Next::Linger;
            }
        }
        let mut exchange = Exchange::new(&link.worker, link.remote.get());
        exchange.listener = Some(link.listener.clone());
        let asked = begin(link, &mut exchange);
        let mut ending = Ending::of(link, &mut exchange, asked);
        let next = poll_fn(|cx| ending.poll(link, cx)).await;
        drop(ending);
        link.tell(&mut exchange, false);
        drop(exchange);
        if next != Next::Go {
            return next;
        }
        answered += 1;
        if answered % TURN_REQUESTS == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// How an exchange comes to its end. All that a connection's task holds of it, so that the task is
/// as small as can be: an idle connection is little more.
enum Ending<'a> {
    /// All that is to be sent is queued.
    Queued(Next),
    /// Its head is queued, and its body is a part of a file that is in memory.
    File(send::SentFile),
    /// It needs time, and more room.
    Waiting(Pin<Box<dyn Future<Output = Next> + 'a>>),
}

impl<'a> Ending<'a> {
    fn of(link: &'a Rc<Link>, exchange: &'a mut Exchange, asked: Asked) -> Ending<'a> {
        match answer(link, exchange) {
            Some(response) if send::is_immediate(link, exchange, &response) => {
                Ending::Queued(send::at_once(link, exchange, asked, response))
            }
            Some(response) if send::is_file_at_hand(link, &response) => {
                Ending::File(send::file(link, exchange, asked, response))
            }
            response => Ending::Waiting(Box::pin(waiting::finish(link, exchange, asked, response))),
        }
    }

    fn poll(&mut self, link: &Link, cx: &mut Context<'_>) -> Poll<Next> {
        match self {
            Ending::Queued(next) => Poll::Ready(*next),
            Ending::File(file) => file.poll(link, cx),
            Ending::Waiting(rest) => rest.as_mut().poll(cx),
        }
    }
}

/// Reads until a head is complete.
///
/// Answers that wait to be sent leave as soon as no complete request is there any more, before
/// anything else is read: their clients wait for them. `may_end`: where nothing is left of what was
/// received, the connection is idle; whether more has come meanwhile is found out without a buffer.
fn poll_head(link: &Link, may_end: bool, cx: &mut Context<'_>) -> Poll<Head> {
    loop {
        let at_hand = link.with_desk(|desk| {
            let is_full = desk.out.len_bytes() >= FLUSH_BYTES;
            (is_full, !desk.out.is_empty(), desk.input.is_empty())
        });
        let (is_full, is_to_send, is_dry) = at_hand.unwrap_or((false, false, true));
        if is_full && !ready!(poll_sent(link, cx)) {
            return Poll::Ready(Head::Broken);
        }
        if !is_dry {
            match parse(link) {
                Ok(Progress::Complete) => {
                    link.deadline.clear();
                    return Poll::Ready(Head::Complete);
                }
                Ok(Progress::Partial) => {}
                Err(fault) => return Poll::Ready(Head::Refused(fault)),
            }
        }
        if is_to_send && !ready!(poll_sent(link, cx)) {
            return Poll::Ready(Head::Broken);
        }
        // Of what is there the parser may have dropped an empty line.
        if may_end && (is_dry || link.input_is_empty()) {
            return Poll::Ready(Head::None);
        }
        match link.poll_fill_head(cx) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Head::End),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Head::Broken),
            Poll::Pending if link.input_is_empty() => return Poll::Ready(Head::None),
            Poll::Pending => {
                if !link.deadline.is_set() {
                    link.arm(link.listener.times().header);
                }
                ready!(link.deadline.poll_expired(cx));
                return Poll::Ready(Head::Refused(Reason::HeadTooSlow.into()));
            }
        }
    }
}

fn parse(link: &Link) -> Result<Progress, Fault> {
    let limits = link.listener.with_served(|served| served.limits);
    let parsed = link.with_desk(|desk| {
        desk.parser
            .request(&mut desk.input, &limits, &mut desk.head)
    });
    match parsed {
        Some(Ok(progress)) => Ok(progress),
        Some(Err(error)) => Err(refused(error)),
        None => Err(Reason::Internal.into()),
    }
}

/// What a head that cannot be read is answered with.
pub fn refused(error: HeadError) -> Fault {
    let reason = match error.status() {
        414 => Reason::TargetTooLong,
        431 => Reason::HeadTooLarge,
        501 => Reason::CodingUnknown,
        505 => Reason::VersionUnknown,
        _ => Reason::BadRequest,
    };
    Fault::with(reason, error.sentence())
}

/// Waits until everything queued has been sent, for as long as the client keeps reading. False:
/// it does not, or it is gone.
fn poll_sent(link: &Link, cx: &mut Context<'_>) -> Poll<bool> {
    match link.poll_flush(cx) {
        Poll::Ready(result) => Poll::Ready(result.is_ok()),
        Poll::Pending => {
            if !link.deadline.is_set() {
                link.arm(link.listener.times().write);
            }
            ready!(link.deadline.poll_expired(cx));
            link.worker.counters.fault(Reason::ClientTooSlow);
            Poll::Ready(false)
        }
    }
}

/// Moves what was read into the exchange.
fn begin(link: &Rc<Link>, exchange: &mut Exchange) -> Asked {
    let limits = link.listener.with_served(|served| served.limits);
    let asked = link.with_desk(|desk| {
        let head = &mut desk.head;
        desk.body = BodyDecoder::new(head.framing, &limits);
        desk.expects_continue = head.expect_continue;
        desk.interim_left = if head.version == Version::Http11 {
            MAX_INTERIM
        } else {
            0
        };
        desk.body_bytes = 0;
        desk.broken = None;
        let len_bytes = take(head, exchange);
        link.worker
            .counters
            .fields_dropped
            .add(u64::from(head.dropped_fields));
        let asked = Asked {
            version: head.version,
            is_head: head.method == Method::Head,
            keep: head.keep_alive,
        };
        // What was received is held by the exchange's fields now, and by nothing else.
        debug_assert!(head.fields.base().is_empty());
        (asked, len_bytes)
    });
    let Some((asked, len_bytes)) = asked else {
        return Asked {
            version: Version::Http11,
            is_head: false,
            keep: false,
        };
    };
    if len_bytes != Some(0) {
        let body = ClientBody::new(link, len_bytes);
        exchange.request.set_body(Body::Stream(Box::new(body)));
    }
    asked
}

/// Moves a head into its exchange; gives the length of the body, where it is known.
pub fn take(head: &mut RequestHead, exchange: &mut Exchange) -> Option<u64> {
    exchange.protocol = head.version.as_str();
    let request = &mut exchange.request;
    request.method = head.method;
    std::mem::swap(&mut request.fields, &mut head.fields);
    request.take_names(head);
    request.offers_upgrade = head.upgrade;
    match head.framing {
        Framing::None => Some(0),
        Framing::Length(len) => Some(len),
        Framing::Chunked | Framing::UntilClose => None,
    }
}

/// Runs the exchange as far as it goes without waiting; `None` where it waits.
fn answer(link: &Rc<Link>, exchange: &mut Exchange) -> Option<Response> {
    match link.listener.with_served(|served| exchange.enter(served)) {
        Some(response) => Some(response),
        None => guard::run(exchange),
    }
}
