//! Responses into bytes.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_fields::{Fields, Known, KnownSet, append_decimal};
use forebay_http1::{
    LAST_CHUNK, Part, Version, write_chunk_size, write_last_chunk, write_status_line,
};

use super::{Asked, FLUSH_BYTES, Link, Next, files};
use crate::exchange::{Body, Exchange, Fault, FileRange, Response, dress};

/// What this side of the connection says itself; nobody else's word on it is passed on.
const FRAMING: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::ContentLength,
    Known::KeepAlive,
    Known::TransferEncoding,
]);

/// A request body that was not wanted is read away up to this size, so that the connection can go
/// on; a larger one costs more than a new connection.
const DRAIN_BYTES: u64 = 64 * 1024;

/// After an early answer, at most so much is read away...
const LINGER_BYTES: u64 = 1024 * 1024;
/// ... for so long. Closing with something unread would reset the connection, and the client would
/// never see the answer.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// How the end of a body is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// There is none.
    None,
    /// By its length.
    Length(u64),
    /// By a last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What has become of the request's body when it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// It was read to its end.
    None,
    /// It is small enough to be read away.
    Small,
    /// The connection cannot go on behind it.
    Large,
}

/// True if the response can be queued as a whole here and now.
///
/// Of a large one that is logged it has to be known how much the client has taken in the end.
pub fn is_immediate(link: &Link, exchange: &Exchange, response: &Response) -> bool {
    let can_be_queued = match &response.body {
        Body::Empty => true,
        Body::Bytes(bytes) => bytes.len() <= FLUSH_BYTES || exchange.logs.is_empty(),
        Body::File(_) | Body::Stream(_) | Body::Tunnel(_) => false,
    };
    can_be_queued && leftover(link) == Leftover::None
}

/// What is left of the request's body; takes what has been received of it, unless a step is still
/// reading it: then the response is early, and who knows how much is to come.
pub fn leftover(link: &Link) -> Leftover {
    let state = link.with_desk(|desk| {
        if desk.body.is_done() {
            return Leftover::None;
        }
        if desk.body_is_read {
            return Leftover::Large;
        }
        loop {
            match desk.body.decode(&mut desk.input) {
                Ok(Part::End) => return Leftover::None,
                Ok(Part::Data(_)) => {}
                // A client that waits for 100 Continue sends the body or does not: nobody knows.
                Ok(Part::NeedMore) if desk.expects_continue => return Leftover::Large,
                Ok(Part::NeedMore) => {
                    return match desk.body.remaining() {
                        Some(left) if left <= DRAIN_BYTES => Leftover::Small,
                        _ => Leftover::Large,
                    };
                }
                Err(_) => return Leftover::Large,
            }
        }
    });
    state.unwrap_or(Leftover::Large)
}

/// Queues a response that is there as a whole, behind a request body that is over.
pub fn at_once(link: &Link, exchange: &mut Exchange, asked: Asked, mut response: Response) -> Next {
    dress(exchange, &mut response);
    let mut keep = asked.keep && !link.is_ending();
    let form = write_head(link, exchange, asked, &mut response, &mut keep);
    if let (Body::Bytes(bytes), Form::Length(_)) = (std::mem::take(&mut response.body), form) {
        write_data(link, form, bytes);
    }
    link.worker.give_back_fields(response.fields);
    if keep { Next::Go } else { ended(link) }
}

/// True if the response is a part of a file before which nothing has to be asked or waited for.
pub fn is_file_at_hand(link: &Link, response: &Response) -> bool {
    let Body::File(range) = &response.body else {
        return false;
    };
    files::is_at_hand(link, range) && leftover(link) == Leftover::None
}

/// A file that is being sent behind its head, which is queued.
pub struct SentFile {
    /// What is still to be sent; none of it if only the head was asked for.
    range: Option<FileRange>,
    keep: bool,
}

/// Queues the head of such a response, behind a request body that is over.
pub fn file(
    link: &Link,
    exchange: &mut Exchange,
    asked: Asked,
    mut response: Response,
) -> SentFile {
    dress(exchange, &mut response);
    let mut keep = asked.keep && !link.is_ending();
    let form = write_head(link, exchange, asked, &mut response, &mut keep);
    link.worker.give_back_fields(response.fields);
    // The site is needed no more, however long the client takes.
    exchange.release_site();
    let range = match response.body {
        Body::File(range) if form != Form::None => Some(range),
        _ => None,
    };
    SentFile { range, keep }
}

impl SentFile {
    /// Sends it, most often in one turn; what becomes of the connection then.
    pub fn poll(&mut self, link: &Link, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(range) = &mut self.range
            && let Err(fault) = ready!(files::poll_at_hand(link, range, cx))
        {
            break_off(link, &fault, Form::Length(0));
            return Poll::Ready(Next::Drop);
        }
        Poll::Ready(if self.keep { Next::Go } else { ended(link) })
    }
}

/// How a connection ends behind a complete exchange: at once, unless something unread has come,
/// which would make the close a reset.
pub fn ended(link: &Link) -> Next {
    if link.input_is_empty() {
        Next::Close
    } else {
        Next::Linger
    }
}

/// Queues the answer to a head that could not be understood.
pub fn refusal(link: &Link, fault: Fault) {
    link.worker.counters.requests.add(1);
    let mut exchange = Exchange::new(&link.worker, link.remote.get());
    exchange.listener = Some(link.listener.clone());
    let response = Response::fault(&mut exchange, fault);
    let asked = Asked {
        version: Version::Http11,
        is_head: false,
        keep: false,
    };
    at_once(link, &mut exchange, asked, response);
}

/// Queues the head; says how the body's end is told.
/// `keep` becomes false where the end of the connection is the end of the body.
pub fn write_head(
    link: &Link,
    exchange: &mut Exchange,
    asked: Asked,
    response: &mut Response,
    keep: &mut bool,
) -> Form {
    let worker = &link.worker;
    worker.counters.status(response.status);
    if let Some(fault) = &response.fault {
        worker.counters.fault(fault.reason);
        crate::log::fault(fault, exchange.site_name());
    }
    exchange.outcome.status = response.status;
    exchange.outcome.fault = response.fault.as_ref().map(|fault| fault.reason);
    let form = form_of(asked, response);
    *keep &= form != Form::UntilClose;
    link.with_desk(|desk| {
        let out = desk.out.tail();
        write_status_line(out, response.status, None);
        response.fields.write_without(out, FRAMING);
        if !response.fields.contains(Known::Date) {
            worker.with_date(|date| {
                out.extend_from_slice(b"Date: ");
                out.extend_from_slice(date);
                out.extend_from_slice(b"\r\n");
            });
        }
        let announced = match form {
            Form::Length(len) => Some(len),
            // A response to HEAD says what GET's would have said; a 304 need not (RFC 9110 §8.6).
            Form::None if asked.is_head && response.status != 304 => {
                response.announced_len.or(match &response.body {
                    // An application that has not said how long it would be.
                    Body::Empty if response.from_upstream => None,
                    body => body.len_bytes(),
                })
            }
            _ => None,
        };
        let has_body = !matches!(response.status, 204 | 304);
        if let Some(len) = announced.filter(|_| has_body) {
            out.extend_from_slice(b"Content-Length: ");
            append_decimal(out, len);
            out.extend_from_slice(b"\r\n");
        }
        if form == Form::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        match (asked.version, *keep) {
            (Version::Http11, true) => {}
            (Version::Http10, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (_, false) => out.extend_from_slice(b"Connection: close\r\n"),
        }
        out.extend_from_slice(b"\r\n");
    });
    form
}

/// Queues the head that ends HTTP on this connection (RFC 9110 §15.2.2). It has no body, and
/// neither a length nor a date: everything behind it is the other protocol's.
pub fn write_switch(link: &Link, response: &Response, protocol: &[u8]) {
    const SKIP: KnownSet = FRAMING.union(KnownSet::of(&[Known::Upgrade]));
    link.worker.counters.status(response.status);
    link.with_desk(|desk| {
        let out = desk.out.tail();
        write_status_line(out, response.status, None);
        response.fields.write_without(out, SKIP);
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: ");
        out.extend_from_slice(protocol);
        out.extend_from_slice(b"\r\n\r\n");
    });
}

/// RFC 9112 §6.3.
fn form_of(asked: Asked, response: &Response) -> Form {
    if asked.is_head || matches!(response.status, 204 | 304) {
        return Form::None;
    }
    match (response.body.len_bytes(), asked.version) {
        (Some(len), _) => Form::Length(len),
        (None, Version::Http11) => Form::Chunked,
        (None, Version::Http10) => Form::UntilClose,
    }
}

/// Queues a piece of a body.
pub fn write_data(link: &Link, form: Form, bytes: Bytes) {
    link.with_desk(|desk| {
        desk.body_bytes += bytes.len() as u64;
        if form == Form::Chunked {
            write_chunk_size(desk.out.tail(), bytes.len());
            desk.out.push(bytes);
            desk.out.tail().extend_from_slice(b"\r\n");
        } else {
            desk.out.push(bytes);
        }
    });
}

/// Queues the end of a body.
pub fn write_end(link: &Link, form: Form, trailers: Option<&Fields>) {
    if form == Form::Chunked {
        match trailers {
            Some(trailers) => link.with_desk(|desk| write_last_chunk(desk.out.tail(), trailers)),
            None => link.with_desk(|desk| desk.out.tail().extend_from_slice(LAST_CHUNK)),
        };
    }
}

/// Ends the connection so that the client sees everything that was sent: what it may still be
/// sending is read away for a while.
pub async fn linger(link: &Link) {
    link.deadline.clear();
    if !poll_fn(|cx| super::poll_sent(link, cx)).await || link.shutdown().is_err() {
        return;
    }
    link.arm(LINGER_TIME);
    let mut left = LINGER_BYTES;
    poll_fn(|cx| poll_discard(link, &mut left, cx)).await;
}

fn poll_discard(link: &Link, left: &mut u64, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        link.with_desk(|desk| desk.input.clear());
        match link.poll_fill(cx) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(read)) if (read as u64) < *left => *left -= read as u64,
            Poll::Ready(Ok(_)) => return Poll::Ready(()),
            Poll::Pending => {
                ready!(link.deadline.poll_expired(cx));
                return Poll::Ready(());
            }
        }
    }
}

/// What a fault in the middle of a body does to the connection: the client must see it.
pub fn break_off(link: &Link, fault: &Fault, form: Form) {
    link.worker.counters.fault(fault.reason);
    link.worker.counters.aborted.add(1);
    link.with_desk(|desk| desk.broken = Some(fault.reason));
    if form == Form::UntilClose {
        // The end of the connection would pass for the end of the body.
        link.reset_on_close();
    }
}
