//! One request of a connection, from its steps to the last byte of its response.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use forebay_fields::{Known, KnownSet, append_decimal};
use forebay_http1::{Method, reason_phrase};

use super::{Conn, FLUSH_BYTES};
use crate::exchange::{
    Body, CLIENT_LEFT, Exchange, Fault, Lease, Pulled, Reason, Response, Stream, dress, guard,
};
use crate::files::FileStream;
use crate::transport::COPY_BYTES;

/// What this side says itself, and what would be taken for the response's status.
const FRAMING: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::ContentLength,
    Known::KeepAlive,
    Known::Status,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// Answers a request; with this fault if it could not be read. What is there without waiting is queued
/// here and now; else there is something to be polled.
pub fn begin(
    conn: &Rc<Conn>,
    id: u16,
    mut exchange: Lease,
    fault: Option<Fault>,
) -> Option<impl Future<Output = ()> + use<>> {
    let response = match fault {
        Some(fault) => Some(Response::fault(&mut exchange, fault)),
        None => run(conn, &mut exchange),
    };
    match response {
        Some(response) if matches!(response.body, Body::Empty | Body::Bytes(_)) => {
            at_once(conn, id, &mut exchange, response);
            None
        }
        response => Some(respond(conn.clone(), id, exchange, response)),
    }
}

/// Queues a response that is there as a whole.
fn at_once(conn: &Conn, id: u16, exchange: &mut Exchange, mut response: Response) {
    let rest = open(conn, id, exchange, &mut response);
    if let Some(Body::Bytes(bytes)) = rest {
        conn.push(id, bytes);
    }
    conn.link.worker.give_back_fields(response.fields);
    conn.end(id);
}

/// Queues the beginning of a response; gives the body that is to follow.
fn open(conn: &Conn, id: u16, exchange: &mut Exchange, response: &mut Response) -> Option<Body> {
    dress(exchange, response);
    // Whatever the steps have not taken of the request's body nobody will want any more.
    exchange.request.set_body(Body::Empty);
    let has_body = write_head(conn, id, exchange, response);
    let body = std::mem::take(&mut response.body);
    if let (true, Body::Bytes(bytes)) = (has_body, &body) {
        exchange.outcome.bytes = bytes.len() as u64;
    }
    let is_sent = matches!(&body, Body::Bytes(bytes) if bytes.len() <= COPY_BYTES);
    (has_body && !is_sent).then_some(body)
}

/// Goes on with a request of which nothing is queued yet: for its response, or its response's body.
async fn respond(conn: Rc<Conn>, id: u16, exchange: Lease, response: Option<Response>) {
    let mut one = One {
        conn,
        id,
        exchange,
        is_over: false,
    };
    let exchange = &mut one.exchange;
    let mut response = match response {
        Some(response) => response,
        None => {
            exchange.begin_waiting();
            exchange.interim = Some(one.conn.clone());
            guard::finish(exchange).await
        }
    };
    let body = open(&one.conn, id, exchange, &mut response);
    // The site is needed no more: a slow download must not keep an old configuration in memory.
    exchange.release_site();
    let worker = &one.conn.link.worker;
    worker.give_back_fields(std::mem::take(&mut response.fields));
    let sent = match body {
        None | Some(Body::Empty) => Ok(()),
        Some(Body::Bytes(bytes)) => {
            one.conn.push(id, bytes);
            Ok(())
        }
        Some(Body::File(range)) => {
            let mut stream = FileStream::new(worker, range);
            one.send(&mut stream).await
        }
        Some(Body::Stream(mut stream)) => one.send(&mut *stream).await,
        // Nobody was offered one.
        Some(Body::Tunnel(_)) => Err(Reason::Internal.into()),
    };
    one.is_over = true;
    match sent {
        Ok(()) => one.conn.end(id),
        Err(fault) => {
            one.exchange.outcome.fault = Some(fault.reason);
            one.conn.break_off(id, &fault);
        }
    }
}

/// A request, which notes what has become of it even where it is given up.
struct One {
    conn: Rc<Conn>,
    id: u16,
    exchange: Lease,
    is_over: bool,
}

impl Drop for One {
    fn drop(&mut self) {
        if !self.is_over {
            let outcome = &mut self.exchange.outcome;
            if outcome.status == 0 {
                outcome.status = CLIENT_LEFT;
            }
            outcome.fault = Some(Reason::ClientGone);
            self.conn.link.worker.counters.fault(Reason::ClientGone);
        }
    }
}

impl One {
    /// Sends a body as it comes, and pulls no more of it than its web server takes.
    async fn send(&mut self, stream: &mut dyn Stream) -> Result<(), Fault> {
        let ahead = stream.read_ahead_bytes().max(FLUSH_BYTES);
        poll_fn(|cx| self.poll_send(stream, ahead, cx)).await
    }

    fn poll_send(
        &mut self,
        stream: &mut dyn Stream,
        ahead: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            // The connection polls this again when it has sent some.
            if self.conn.queued() >= ahead {
                return Poll::Pending;
            }
            match ready!(stream.poll_pull(cx)) {
                Pulled::Data(bytes) => {
                    self.exchange.outcome.bytes += bytes.len() as u64;
                    self.conn.push(self.id, bytes);
                }
                // There is no place for trailers.
                Pulled::End(_) => return Poll::Ready(Ok(())),
                Pulled::Abort(fault) => return Poll::Ready(Err(fault)),
            }
        }
    }
}

/// Runs the exchange as far as it goes without waiting; `None` where it waits.
fn run(conn: &Conn, exchange: &mut Exchange) -> Option<Response> {
    let listener = &conn.link.listener;
    match listener.with_served(|served| exchange.enter(served)) {
        Some(response) => Some(response),
        None => guard::run(exchange),
    }
}

/// Queues the head (RFC 3875 §6.3), and a small body with it; says whether there is a body.
fn write_head(conn: &Conn, id: u16, exchange: &mut Exchange, response: &mut Response) -> bool {
    let worker = &conn.link.worker;
    worker.counters.status(response.status);
    if let Some(fault) = &response.fault {
        worker.counters.fault(fault.reason);
        crate::log::fault(fault, exchange.site_name());
    }
    exchange.outcome.status = response.status;
    exchange.outcome.fault = response.fault.as_ref().map(|fault| fault.reason);
    let is_head = exchange.request.method == Method::Head;
    let may_have_body = !matches!(response.status, 204 | 304);
    let announced = match (is_head, &response.body) {
        (false, body) => body.len_bytes(),
        // A response to HEAD says what GET's would have said, where that is known.
        (true, Body::Empty) if response.from_upstream => response.announced_len,
        (true, body) => response.announced_len.or(body.len_bytes()),
    };
    let has_body = may_have_body && !is_head;
    // With none, some web servers leave the space out that HTTP/1.1 has behind the number.
    let reason = match reason_phrase(response.status) {
        "" => "Unnamed",
        reason => reason,
    };
    conn.push_written(id, |out| {
        out.extend_from_slice(b"Status: ");
        append_decimal(out, response.status.into());
        out.push(b' ');
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        response.fields.write_without(out, FRAMING);
        if let Some(len) = announced.filter(|_| may_have_body) {
            out.extend_from_slice(b"Content-Length: ");
            append_decimal(out, len);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        match &response.body {
            Body::Bytes(bytes) if has_body && bytes.len() <= COPY_BYTES => {
                out.extend_from_slice(bytes);
            }
            _ => {}
        }
    });
    has_body
}
