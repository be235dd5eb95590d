//! One request on one connection to a peer, over HTTP/1.1: the request goes out while the response
//! is looked for, the response's body is pulled, and the connection goes back to the pool the
//! moment the response is complete, not when the client has taken it.
//!
//! ```text
//!   head, small body ─▶ written ──┬─ response's head ──▶ body pulled ──▶ complete ─▶ kept
//!   upload ────── as it comes ────┘        │                 │
//!                                          ▼ fault           ▼ fault: visible to the client
//!                                     perhaps another peer
//! ```

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_fields::{Fields, Known, list_items};
use forebay_http1::{
    BodyDecoder, Framing, HeadParser, LAST_CHUNK, Limits, Method, Part, Progress, ResponseHead,
    Version, write_chunk_size, write_last_chunk,
};

use super::pool::{Idle, PeerConn};
use super::seat::Seat;
use crate::exchange::{Body, Fault, Interim, Pulled, Reason, Stream, Tunnel};
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

/// At most this many 1xx responses come before the final one.
const MAX_INTERIM: u8 = 8;

/// The request's body on its way to the peer.
enum Upload {
    /// There is none, or all of it is queued.
    Done,
    /// It is still coming.
    Coming {
        body: Box<dyn Stream>,
        chunked: bool,
    },
    /// The client's side of it failed; the peer must see that it is not whole.
    Broken,
}

/// A request under way.
pub struct Session {
    worker: Rc<Worker>,
    conn: Option<PeerConn>,
    seat: Option<Seat>,
    idle: Rc<Idle>,
    input: BytesMut,
    out: Out,
    upload: Upload,
    decoder: BodyDecoder,
    times: Times,
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
    /// The peer has announced that the connection goes on.
    keep_alive: bool,
    read_ahead: usize,
    len_bytes: Option<u64>,
    /// The response is one that is silent for most of its time, and then holds no buffer.
    is_event_stream: bool,
    /// Bytes of the request, for counting.
    written: u64,
    over: bool,
    /// The response's head, once it has come.
    pub head: ResponseHead,
    parser: HeadParser,
    /// Interim responses seen.
    interim: u8,
    /// How much of the request was written when the time for the first byte was set.
    armed_at: Option<u64>,
}

impl Session {
    /// Starts a request on a connection. In a box from the start: it is large, and is moved from
    /// the step to the response's body.
    pub fn new(
        worker: &Rc<Worker>,
        idle: Rc<Idle>,
        seat: Seat,
        conn: PeerConn,
        times: Times,
        read_ahead: usize,
    ) -> Box<Session> {
        let now = worker.turn_ms();
        let total = u64::try_from(times.total.as_millis()).unwrap_or(u64::MAX);
        Box::new(Session {
            worker: worker.clone(),
            conn: Some(conn),
            seat: Some(seat),
            idle,
            input: BytesMut::new(),
            out: worker.out(),
            upload: Upload::Done,
            decoder: no_body(),
            times,
            until_ms: now.saturating_add(total),
            sent: false,
            heard: false,
            pulled: false,
            held: None,
            keep_alive: false,
            read_ahead,
            len_bytes: Some(0),
            is_event_stream: false,
            written: 0,
            over: false,
            head: ResponseHead::new(),
            parser: HeadParser::default(),
            interim: 0,
            armed_at: None,
        })
    }

    /// Where the request's head is written.
    pub fn request(&mut self) -> &mut Vec<u8> {
        self.out.tail()
    }

    /// Sends this body behind the head.
    pub fn send_body(&mut self, body: Body, chunked: bool) {
        match body {
            // No request has a tunnel.
            Body::Empty | Body::Tunnel(_) => {}
            Body::Bytes(bytes) => {
                self.held = Some(bytes.clone());
                self.out.push(bytes);
            }
            Body::Stream(body) => self.upload = Upload::Coming { body, chunked },
            Body::File(range) => {
                let body = Box::new(crate::files::FileStream::new(&self.worker, range));
                self.upload = Upload::Coming { body, chunked };
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
            Upload::Coming { body, .. } => Some(Body::Stream(body)),
            Upload::Done => {
                self.upload = Upload::Done;
                Some(Body::Empty)
            }
            Upload::Broken => None,
        }
    }

    /// Waits for the head of the final response; interim ones go to `interim`.
    pub fn poll_head(
        &mut self,
        method: &Method,
        interim: Option<&Rc<dyn Interim>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            self.poll_upload(cx)?;
            let conn = self.conn.as_mut().ok_or(Reason::Internal)?;
            // No buffer is held while nothing has come.
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
                    return self.poll_first_byte(cx);
                }
                Poll::Ready(Ok(0)) => {
                    let reason = if self.input.is_empty() {
                        Reason::UpstreamReset
                    } else {
                        Reason::Truncated
                    };
                    return Poll::Ready(Err(Fault::with(reason, "it closed the connection")));
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Fault::with(Reason::UpstreamReset, error.to_string())));
                }
                Poll::Ready(Ok(_)) => self.heard = true,
            }
            if self.parse_head(method, interim)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// True if the final head is complete.
    fn parse_head(
        &mut self,
        method: &Method,
        interim: Option<&Rc<dyn Interim>>,
    ) -> Result<bool, Fault> {
        while !self.input.is_empty() {
            let (input, head) = (&mut self.input, &mut self.head);
            match self.parser.response(input, &RESPONSE_LIMITS, method, head) {
                Ok(Progress::Complete) => {}
                Ok(Progress::Partial) => return Ok(false),
                Err(error) => return Err(Fault::with(Reason::BadResponse, error.sentence())),
            }
            self.parser = HeadParser::default();
            if !head.is_interim() {
                self.begin_body();
                return Ok(true);
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(Fault::with(
                    Reason::BadResponse,
                    "too many interim responses",
                ));
            }
            // 100 is between the two ends of one connection: the client gets ours, when its body
            // is first pulled.
            if let (Some(client), false) = (interim, head.status == 100) {
                head.fields.remove_hop_by_hop();
                client.interim(head.status, &head.fields);
            }
        }
        Ok(false)
    }

    fn begin_body(&mut self) {
        let head = &self.head;
        self.decoder = BodyDecoder::new(head.framing, &RESPONSE_LIMITS);
        self.keep_alive = head.keep_alive && head.status != 101;
        self.len_bytes = match head.framing {
            Framing::None => Some(0),
            Framing::Length(len) => Some(len),
            Framing::Chunked | Framing::UntilClose => None,
        };
        if self.len_bytes.is_none() && is_event_stream(&head.fields) {
            self.is_event_stream = true;
            self.times.read = self.times.tunnel;
        }
        if let Some(conn) = &self.conn {
            conn.deadline.clear();
        }
    }

    /// What the response whose head has been read, a 101, makes of the connection: a tunnel, if it
    /// names what was offered. Else why that cannot be.
    pub fn take_tunnel(&mut self, offer: Option<&[u8]>) -> Result<Tunnel, &'static str> {
        let Some(offer) = offer else {
            return Err("status 101, though nothing was offered to it");
        };
        if !self.head.upgrade || self.head.version != Version::Http11 {
            return Err("status 101 without `Connection: upgrade` and `Upgrade`");
        }
        let mut protocol = Vec::new();
        for chosen in self.head.fields.list(Known::Upgrade) {
            if !list_items(offer).any(|offered| offered.eq_ignore_ascii_case(chosen)) {
                return Err("status 101 for a protocol that was not offered to it");
            }
            if !protocol.is_empty() {
                protocol.extend_from_slice(b", ");
            }
            protocol.extend_from_slice(chosen);
        }
        if protocol.is_empty() {
            return Err("status 101 without the name of a protocol");
        }
        // RFC 9110 §7.8: the request comes to its end before anything else is spoken.
        if !matches!(self.upload, Upload::Done) || !self.out.is_empty() {
            return Err("status 101 before it had the whole request");
        }
        let early = if self.input.is_empty() {
            BytesMut::new()
        } else {
            std::mem::take(&mut self.input)
        };
        let (Some(conn), Some(seat)) = (self.conn.take(), self.seat.take()) else {
            return Err("status 101 on a connection that is gone");
        };
        self.over = true;
        Ok(Tunnel {
            protocol: protocol.into_boxed_slice(),
            far: conn.io,
            deadline: conn.deadline,
            early,
            idle: self.times.tunnel,
            seat,
            remains: None,
        })
    }

    /// The body of the response whose head has been read. What is there already in whole comes as
    /// bytes, and the connection is free again at once.
    pub fn into_body(mut self: Box<Self>) -> Body {
        if let Some(len) = self.len_bytes
            && self.decoder.ready(&self.input) as u64 == len
        {
            let bytes = self
                .input
                .split_to(self.decoder.ready(&self.input))
                .freeze();
            self.decoder.consumed(bytes.len());
            self.finish();
            return bytes.into();
        }
        Body::Stream(self)
    }

    /// Sends what waits to be sent and pulls more of the upload while the peer takes it.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        loop {
            let Some(conn) = self.conn.as_mut() else {
                return Ok(());
            };
            let before = self.written;
            let flushed = self.out.poll_flush(&mut conn.io, cx, &mut self.written);
            self.sent |= self.written > before;
            if let Poll::Ready(Err(error)) = flushed {
                // It takes no more; perhaps it has answered already (413) and that can be read.
                if conn.io.has_news() {
                    self.out.recycle(0);
                    self.upload = Upload::Broken;
                    return Ok(());
                }
                return Err(Fault::with(Reason::UpstreamReset, error.to_string()));
            }
            if self.out.len_bytes() >= UPLOAD_AHEAD {
                return Ok(());
            }
            let Upload::Coming { body, chunked } = &mut self.upload else {
                return Ok(());
            };
            let chunked = *chunked;
            match body.poll_pull(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Pulled::Data(bytes)) => {
                    self.pulled = true;
                    if chunked {
                        write_chunk_size(self.out.tail(), bytes.len());
                        self.out.push(bytes);
                        self.out.tail().extend_from_slice(b"\r\n");
                    } else {
                        self.out.push(bytes);
                    }
                }
                Poll::Ready(Pulled::End(trailers)) => {
                    self.upload = Upload::Done;
                    match trailers {
                        Some(trailers) if chunked => {
                            write_last_chunk(self.out.tail(), &trailers);
                        }
                        _ if chunked => self.out.tail().extend_from_slice(LAST_CHUNK),
                        _ => {}
                    }
                }
                Poll::Ready(Pulled::Abort(fault)) => {
                    self.upload = Upload::Broken;
                    return Err(fault);
                }
            }
        }
    }

    /// While the peer says nothing: is it still in time?
    fn poll_first_byte(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let asked = matches!(self.upload, Upload::Done) && self.out.is_empty();
        let (time, reason) = if asked {
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

    /// While the peer says nothing in the middle of a body: is it still in time?
    fn poll_next_byte(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        if let Some(conn) = &self.conn
            && !conn.deadline.is_set()
        {
            self.arm(self.times.read);
        }
        ready!(self.poll_deadline(cx));
        let fault = self.timed_out(Reason::ReadTimeout);
        self.abort(fault)
    }

    /// True if nothing has come; then no buffer is held while it is waited for.
    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(conn) = &self.conn else {
            return false;
        };
        let is_silent = conn.io.poll_read_ready(cx).is_pending();
        if is_silent {
            self.worker.give_back_large(std::mem::take(&mut self.input));
        }
        is_silent
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
        if self.worker.now_ms() >= self.until_ms {
            Reason::TotalTimeout
        } else {
            reason
        }
        .into()
    }

    /// The response is complete: the connection and the place at the peer are free.
    fn finish(&mut self) {
        self.over = true;
        let clean = self.keep_alive
            && matches!(self.upload, Upload::Done)
            && self.out.is_empty()
            // More than was announced: nobody knows what the next answer would begin with.
            && self.input.is_empty()
            && self.decoder.is_done();
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

    fn abort(&mut self, fault: Fault) -> Poll<Pulled> {
        self.over = true;
        self.conn = None;
        self.seat = None;
        Poll::Ready(Pulled::Abort(fault))
    }

    /// What the buffer holds of the body, or how the body ends.
    fn decode(&mut self) -> Option<Pulled> {
        match self.decoder.decode(&mut self.input) {
            Ok(Part::Data(bytes)) => {
                // Free at once, not at the next pull: the client may be slow to come to it.
                if self.decoder.remaining() == Some(0) {
                    self.finish();
                }
                Some(Pulled::Data(bytes))
            }
            Ok(Part::End) => {
                let trailers = self.decoder.take_trailers().map(Box::new);
                self.finish();
                Some(Pulled::End(trailers))
            }
            Ok(Part::NeedMore) => None,
            Err(error) => {
                self.conn = None;
                self.seat = None;
                Some(Pulled::Abort(Fault::with(
                    Reason::BadResponse,
                    error.sentence(),
                )))
            }
        }
    }
}

impl Stream for Session {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        loop {
            if self.over {
                return Poll::Ready(Pulled::End(None));
            }
            if let Some(pulled) = self.decode() {
                if let Some(conn) = &self.conn {
                    conn.deadline.clear();
                }
                return Poll::Ready(pulled);
            }
            // The peer may answer before it has read the whole request.
            if self.poll_upload(cx).is_err() {
                self.upload = Upload::Broken;
            }
            if self.is_event_stream && self.input.is_empty() && self.is_silent(cx) {
                return self.poll_next_byte(cx);
            }
            // A response is read ahead of its client only in the room of one buffer: while the
            // client still holds slices of a full one, there is nothing to read into, and the
            // writer, which runs in the same task, pulls again when it has sent some.
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
                return Poll::Ready(Pulled::Abort(Reason::Internal.into()));
            };
            match conn.io.poll_read(cx, &mut self.input) {
                Poll::Ready(Ok(0)) => {
                    return match self.decoder.finish() {
                        Ok(()) => {
                            self.finish();
                            Poll::Ready(Pulled::End(None))
                        }
                        Err(_) => self.abort(Reason::Truncated.into()),
                    };
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return self.abort(Fault::with(Reason::Truncated, error.to_string()));
                }
                Poll::Pending => return self.poll_next_byte(cx),
            }
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len_bytes
    }

    fn read_ahead_bytes(&self) -> usize {
        self.read_ahead
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.worker.give_back_large(std::mem::take(&mut self.input));
        self.worker.give_back_out(std::mem::take(&mut self.out));
    }
}

/// Generous: what an application sends is its operator's business, but it cannot fill the memory.
const RESPONSE_LIMITS: Limits = Limits {
    max_request_line: 16 * 1024,
    max_header: 256 * 1024,
    max_fields: Limits::MOST_FIELDS,
};

/// A response of server-sent events, which comes to no end and has nothing to say for minutes.
fn is_event_stream(fields: &Fields) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    fields.get(Known::ContentType).is_some_and(|kind| {
        kind.get(..NAME.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    })
}

fn no_body() -> BodyDecoder {
    BodyDecoder::new(Framing::None, &RESPONSE_LIMITS)
}
