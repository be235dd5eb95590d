//! One request's hold on a connection to a peer, whatever protocol is spoken on it: what waits to be
//! sent, the upload that is still coming, what has been read, the times, and the place at the peer.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_balance::Tick;
use forebay_fields::Fields;

use super::pool::{Idle, PeerConn};
use super::seat::Seat;
use crate::exchange::{Body, Fault, Pulled, Reason, Stream};
use crate::transport::Out;
use crate::worker::{LARGE_BUFFER_BYTES, Worker};

/// How long a peer may take for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Until it is connected.
    pub connect: Duration,
    /// From the end of the request to the first byte of the response.
    pub first_byte: Duration,
    /// Between two bytes.
    pub read: Duration,
    /// In place of that for tunnels and event streams.
    pub tunnel: Duration,
    /// For everything.
    pub total: Duration,
}

/// How much of a request's body is queued for a peer that does not take it. What it does not take
/// is not pulled from the client either.
const UPLOAD_AHEAD: usize = 64 * 1024;

/// How a protocol puts a request's body on its connection.
pub trait Framing {
    /// A piece of it.
    fn data(&mut self, bytes: Bytes, out: &mut Out);
    /// Its end.
    fn end(&mut self, trailers: Option<&Fields>, out: &mut Out);
}

/// The request's body on its way to the peer.
enum Upload {
    /// There is none, or all of it is queued.
    Done,
    /// It is still coming.
    Coming(Box<dyn Stream>),
    /// The client's side of it failed; the peer must see that it is not whole.
    Broken,
}

/// What a read in the middle of a body has brought.
pub enum Read {
    /// Some bytes.
    Some,
    /// The peer says no more.
    End,
    /// It cannot go on.
    Failed(Fault),
}

/// See the module.
pub struct Line {
    /// The worker it is on.
    pub worker: Rc<Worker>,
    /// The connection, until it is let go.
    pub conn: Option<PeerConn>,
    /// The place at the peer, until it is given back.
    pub seat: Option<Seat>,
    idle: Rc<Idle>,
    /// What was read and is not understood yet.
    pub input: BytesMut,
    /// What waits to be sent.
    pub out: Out,
    upload: Upload,
    /// How long what may take.
    pub times: Times,
    /// When the whole exchange must be over, on the worker's clock.
    until_ms: u64,
    /// Something has been written to the peer.
    pub sent: bool,
    /// Something has been read from the peer.
    pub heard: bool,
    /// Something of the client's body was pulled: it cannot be sent again.
    pulled: bool,
    /// The request's body, where all of it was there from the start.
    held: Option<Bytes>,
    /// How much of a response is held for a client that is slower.
    pub read_ahead: usize,
    /// Bytes of the request, for counting.
    written: u64,
    /// How much of the request was written when the time for the first byte was set.
    armed_at: Option<u64>,
}

impl Line {
    /// A connection that nothing has been said on.
    pub fn new(
        worker: &Rc<Worker>,
        idle: Rc<Idle>,
        seat: Seat,
        conn: PeerConn,
        times: Times,
        read_ahead: usize,
    ) -> Line {
        let now = worker.turn_ms();
        let processes = seat.upstream.definition.processes.as_ref();
        let total = processes.map_or(times.total, |spec| spec.time.min(times.total));
        let total = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
        Line {
            worker: worker.clone(),
            conn: Some(conn),
            seat: Some(seat),
            idle,
            input: BytesMut::new(),
            out: worker.out(),
            upload: Upload::Done,
            times,
            until_ms: now.saturating_add(total),
            sent: false,
            heard: false,
            pulled: false,
            held: None,
            read_ahead,
            written: 0,
            armed_at: None,
        }
    }

    // --- What goes out -------------------------------------------------------------------------

    /// Sends this body behind the head.
    pub fn send_body(&mut self, body: Body, framing: &mut impl Framing) {
        match body {
            // No request has a tunnel.
            Body::Empty | Body::Tunnel(_) => framing.end(None, &mut self.out),
            Body::Bytes(bytes) => {
                self.held = Some(bytes.clone());
                framing.data(bytes, &mut self.out);
                framing.end(None, &mut self.out);
            }
            Body::Stream(body) => self.upload = Upload::Coming(body),
            Body::File(range) => {
                let body = crate::files::FileStream::new(&self.worker, range);
                self.upload = Upload::Coming(Box::new(body));
            }
        }
    }

    /// The request's body, for another try; `None` if some of it was pulled and is gone.
    pub fn take_body(&mut self) -> Option<Body> {
        if let Some(bytes) = self.held.take() {
            return Some(Body::Bytes(bytes));
        }
        if self.pulled {
            return None;
        }
        match std::mem::replace(&mut self.upload, Upload::Broken) {
            Upload::Coming(body) => Some(Body::Stream(body)),
            Upload::Done => {
                self.upload = Upload::Done;
                Some(Body::Empty)
            }
            Upload::Broken => None,
        }
    }

    /// Whether the peer has the whole request.
    pub fn is_sent(&self) -> bool {
        matches!(self.upload, Upload::Done) && self.out.is_empty()
    }

    /// Gives the upload up: the peer will see that it is not whole.
    pub fn break_upload(&mut self) {
        self.upload = Upload::Broken;
    }

    /// Sends what waits to be sent and pulls more of the upload while the peer takes it.
    pub fn poll_upload(
        &mut self,
        framing: &mut impl Framing,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        loop {
            let Some(conn) = self.conn.as_mut() else {
                return Ok(());
            };
            let before = self.written;
            let flushed = self.out.poll_flush(&mut conn.io, cx, &mut self.written);
            self.sent |= self.written > before;
            if let Poll::Ready(Err(error)) = flushed {
                // It takes no more; perhaps it has answered already (413) and that can be read. Where
                // nothing has gone, it had closed before: the body stays fit for another try.
                if self.sent && conn.io.has_news() {
                    self.out.recycle(0);
                    self.upload = Upload::Broken;
                    return Ok(());
                }
                return Err(Fault::with(Reason::UpstreamReset, error.to_string()));
            }
            if self.out.len_bytes() >= UPLOAD_AHEAD {
                return Ok(());
            }
            let Upload::Coming(body) = &mut self.upload else {
                return Ok(());
            };
            match body.poll_pull(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Pulled::Data(bytes)) => {
                    self.pulled = true;
                    framing.data(bytes, &mut self.out);
                }
                Poll::Ready(Pulled::End(trailers)) => {
                    self.upload = Upload::Done;
                    framing.end(trailers.as_deref(), &mut self.out);
                }
                Poll::Ready(Pulled::Abort(fault)) => {
                    self.upload = Upload::Broken;
                    return Err(fault);
                }
            }
        }
    }

    // --- What comes in -------------------------------------------------------------------------

    /// Waits for some bytes of the response's head. No buffer is held while nothing has come.
    pub fn poll_head_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let conn = self.conn.as_mut().ok_or(Reason::Internal)?;
        if self.input.capacity() == self.input.len() {
            match conn.io.poll_read_ready(cx) {
                Poll::Ready(_) if self.input.is_empty() => {
                    self.input = self.worker.large_buffer();
                }
                Poll::Ready(_) => self.input.reserve(self.input.len()),
                Poll::Pending => return self.poll_first_byte(cx),
            }
        }
        let conn = self.conn.as_mut().ok_or(Reason::Internal)?;
        match conn.io.poll_read(cx, &mut self.input) {
            Poll::Pending => {
                if self.input.is_empty() {
                    self.worker.give_back_large(std::mem::take(&mut self.input));
                }
                self.poll_first_byte(cx)
            }
            Poll::Ready(Ok(0)) => {
                let reason = match self.input.is_empty() {
                    true => Reason::UpstreamReset,
                    false => Reason::Truncated,
                };
                Poll::Ready(Err(Fault::with(reason, "it closed the connection")))
            }
            Poll::Ready(Err(error)) => {
                Poll::Ready(Err(Fault::with(Reason::UpstreamReset, error.to_string())))
            }
            Poll::Ready(Ok(_)) => {
                self.heard = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// The head of the response is there: what in it is for this server alone is taken out.
    pub fn handle_head(&self, fields: &mut Fields) {
        if let Some(seat) = &self.seat
            && seat.upstream.reports.is_some()
        {
            let now = Tick::from_millis(self.worker.turn_ms());
            seat.upstream.take_field(seat.peer, fields, now);
        }
    }

    /// Waits for some bytes of the response's body.
    ///
    /// A response is read ahead of its client only in the room of one buffer: while the client still
    /// holds slices of a full one, there is nothing to read into, and the writer, which runs in the
    /// same task, pulls again when it has sent some.
    pub fn poll_body_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        if self.input.capacity() == self.input.len() {
            if self.input.capacity() == 0 {
                self.input = self.worker.large_buffer();
            } else if !self.input.is_empty() {
                self.input.reserve(LARGE_BUFFER_BYTES);
            } else if !self.input.try_reclaim(self.read_ahead.max(1)) {
                self.input = self.worker.large_buffer();
            }
        }
        let Some(conn) = self.conn.as_mut() else {
            return Poll::Ready(Read::Failed(Reason::Internal.into()));
        };
        Poll::Ready(match conn.io.poll_read(cx, &mut self.input) {
            Poll::Ready(Ok(0)) => Read::End,
            Poll::Ready(Ok(_)) => Read::Some,
            Poll::Ready(Err(error)) => {
                Read::Failed(Fault::with(Reason::Truncated, error.to_string()))
            }
            Poll::Pending => Read::Failed(ready!(self.poll_next_byte(cx))),
        })
    }

    /// True if nothing has come; then no buffer is held while it is waited for.
    pub fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(conn) = &self.conn else {
            return false;
        };
        let is_silent = conn.io.poll_read_ready(cx).is_pending();
        if is_silent {
            self.worker.give_back_large(std::mem::take(&mut self.input));
        }
        is_silent
    }

    /// The peer does not answer on this new connection: perhaps it will when another one is closed.
    pub fn make_room(&self) {
        if let Some(seat) = &self.seat {
            self.idle.after_waiting(&self.worker, seat.peer);
        }
    }

    // --- Times ---------------------------------------------------------------------------------

    /// While the peer says nothing: is it still in time?
    fn poll_first_byte(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let (time, reason) = if self.is_sent() {
            (self.times.first_byte, Reason::FirstByteTimeout)
        } else {
            (self.times.read, Reason::ReadTimeout)
        };
        // The time for the first byte runs from the end of the request, so it starts anew whenever
        // some of an upload has gone.
        if self.armed_at != Some(self.written) {
            self.armed_at = Some(self.written);
            self.arm(time);
        }
        ready!(self.poll_deadline(cx));
        Poll::Ready(Err(self.timed_out(reason)))
    }

    /// While the peer says nothing in the middle of a body: is it still in time? Ready with what is
    /// wrong when it is not.
    pub fn poll_next_byte(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        if let Some(conn) = &self.conn
            && !conn.deadline.is_set()
        {
            self.arm(self.times.read);
        }
        ready!(self.poll_deadline(cx));
        Poll::Ready(self.timed_out(Reason::ReadTimeout))
    }

    /// It has said something: the time begins anew.
    pub fn clear_deadline(&self) {
        if let Some(conn) = &self.conn {
            conn.deadline.clear();
        }
    }

    fn arm(&self, time: Duration) {
        let now = self.worker.turn_ms();
        let left = Duration::from_millis(self.until_ms.saturating_sub(now));
        if let Some(conn) = &self.conn {
            conn.deadline.set(now, time.min(left));
        }
    }

    fn poll_deadline(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.conn {
            Some(conn) => conn.deadline.poll_expired(cx),
            None => Poll::Ready(()),
        }
    }

    fn timed_out(&self, reason: Reason) -> Fault {
        if let Some(seat) = &self.seat
            && let Some(fleet) = &seat.upstream.fleet
        {
            fleet.overran(seat.peer);
        }
        if self.worker.now_ms() >= self.until_ms {
            Reason::TotalTimeout
        } else {
            reason
        }
        .into()
    }

    // --- The end -------------------------------------------------------------------------------

    /// The response is complete: the connection and the place at the peer are free. The connection is
    /// kept if the protocol finds nothing wrong with that and nothing more was said: else nobody
    /// knows what the next answer would begin with.
    pub fn release(&mut self, reusable: bool) {
        let clean = reusable && self.is_sent() && self.input.is_empty();
        self.worker.give_back_large(std::mem::take(&mut self.input));
        let seat = self.seat.take();
        if let (Some(mut conn), Some(seat)) = (self.conn.take(), &seat)
            && clean
        {
            conn.deadline.clear();
            conn.used += 1;
            self.idle.keep(&self.worker, seat.peer, conn);
        }
    }

    /// Closes the connection and gives the place at the peer back.
    pub fn cut(&mut self) {
        let (conn, seat) = (self.conn.take(), self.seat.take());
        if let (Some(conn), Some(seat)) = (conn, seat)
            && seat.upstream.fleet.is_some()
            && !self.worker.draining.get()
        {
            let now = self.worker.now_ms();
            let left = Duration::from_millis(self.until_ms.saturating_sub(now));
            // Else it is known already.
            if !left.is_zero() {
                tokio::task::spawn_local(leave_to_itself(conn, seat, now, left));
            }
        }
    }
}

/// A process of our own goes on with a request whose client has left: it is not free before it closes
/// the connection, or its time is over.
async fn leave_to_itself(mut conn: PeerConn, seat: Seat, now_ms: u64, left: Duration) {
    conn.deadline.set(now_ms, left);
    let mut waste = BytesMut::with_capacity(4096);
    let closed = std::future::poll_fn(|cx| {
        loop {
            waste.clear();
            match conn.io.poll_read(cx, &mut waste) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(true),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return conn.deadline.poll_expired(cx).map(|()| false),
            }
        }
    });
    if !closed.await
        && let Some(fleet) = &seat.upstream.fleet
    {
        fleet.overran(seat.peer);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
        self.worker.give_back_large(std::mem::take(&mut self.input));
        self.worker.give_back_out(std::mem::take(&mut self.out));
    }
}
