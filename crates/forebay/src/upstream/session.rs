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

use bytes::{Bytes, BytesMut};
use forebay_fields::{Fields, Known, list_items};
use forebay_http1::{
    BodyDecoder, Framing, HeadParser, LAST_CHUNK, Limits, Method, Part, Progress, ResponseHead,
    Version, write_chunk_size, write_last_chunk,
};

use super::line::{Framing as Frames, Line, Read};
use crate::exchange::{Body, Fault, Interim, Pulled, Reason, Stream, Tunnel};
use crate::transport::Out;

/// At most this many 1xx responses come before the final one.
const MAX_INTERIM: u8 = 8;

/// How the request's body is put on the connection.
#[derive(Clone, Copy)]
struct Coding {
    chunked: bool,
}

impl Frames for Coding {
    fn data(&mut self, bytes: Bytes, out: &mut Out) {
        if self.chunked {
            write_chunk_size(out.tail(), bytes.len());
            out.push(bytes);
            out.tail().extend_from_slice(b"\r\n");
        } else {
            out.push(bytes);
        }
    }

    fn end(&mut self, trailers: Option<&Fields>, out: &mut Out) {
        match trailers {
            Some(trailers) if self.chunked => write_last_chunk(out.tail(), trailers),
            _ if self.chunked => out.tail().extend_from_slice(LAST_CHUNK),
            _ => {}
        }
    }
}

/// A request under way.
pub struct Session {
    line: Line,
    coding: Coding,
    decoder: BodyDecoder,
    /// The peer has announced that the connection goes on.
    keep_alive: bool,
    len_bytes: Option<u64>,
    /// The response is one that is silent for most of its time, and then holds no buffer.
    is_event_stream: bool,
    over: bool,
    /// The response's head, once it has come.
    pub head: ResponseHead,
    parser: HeadParser,
    /// Interim responses seen.
    interim: u8,
}

impl Session {
    /// Starts a request on a connection. In a box from the start: it is large, and is moved from
    /// the step to the response's body.
    pub fn new(line: Line) -> Box<Session> {
        Box::new(Session {
            line,
            coding: Coding { chunked: false },
            decoder: no_body(),
            keep_alive: false,
            len_bytes: Some(0),
            is_event_stream: false,
            over: false,
            head: ResponseHead::new(),
            parser: HeadParser::default(),
            interim: 0,
        })
    }

    /// Where the request's head is written.
    pub fn request(&mut self) -> &mut Vec<u8> {
        self.line.out.tail()
    }

    /// Sends this body behind the head.
    pub fn send_body(&mut self, body: Body, chunked: bool) {
        self.coding = Coding { chunked };
        self.line.send_body(body, &mut self.coding);
    }

    /// The request's body, for another try; `None` if some of it was pulled and is gone.
    pub fn take_body(&mut self) -> Option<Body> {
        self.line.take_body()
    }

    /// Something has been written to the peer.
    pub fn is_begun(&self) -> bool {
        self.line.sent
    }

    /// Something has been read from the peer.
    pub fn is_heard(&self) -> bool {
        self.line.heard
    }

    /// Waits for the head of the final response; interim ones go to `interim`.
    pub fn poll_head(
        &mut self,
        method: &Method,
        interim: Option<&Rc<dyn Interim>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            self.line.poll_upload(&mut self.coding, cx)?;
            ready!(self.line.poll_head_bytes(cx))?;
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
        while !self.line.input.is_empty() {
            let (input, head) = (&mut self.line.input, &mut self.head);
            match self.parser.response(input, &RESPONSE_LIMITS, method, head) {
                Ok(Progress::Complete) => {}
                Ok(Progress::Partial) => return Ok(false),
                Err(error) => return Err(Fault::with(Reason::BadResponse, error.sentence())),
            }
            self.parser = HeadParser::default();
            if !head.is_interim() {
                self.line.handle_head(&mut head.fields);
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
            self.line.times.read = self.line.times.tunnel;
        }
        self.line.clear_deadline();
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
        if !self.line.is_sent() {
            return Err("status 101 before it had the whole request");
        }
        let line = &mut self.line;
        let early = if line.input.is_empty() {
            BytesMut::new()
        } else {
            std::mem::take(&mut line.input)
        };
        let (Some(conn), Some(seat)) = (line.conn.take(), line.seat.take()) else {
            return Err("status 101 on a connection that is gone");
        };
        self.over = true;
        Ok(Tunnel {
            protocol: protocol.into_boxed_slice(),
            far: conn.io,
            deadline: conn.deadline,
            early,
            idle: self.line.times.tunnel,
            seat,
            remains: None,
        })
    }

    /// The body of the response whose head has been read. What is there already in whole comes as
    /// bytes, and the connection is free again at once.
    pub fn into_body(mut self: Box<Self>) -> Body {
        if let Some(len) = self.len_bytes
            && self.decoder.ready(&self.line.input) as u64 == len
        {
            let ready = self.decoder.ready(&self.line.input);
            let bytes = self.line.input.split_to(ready).freeze();
            self.decoder.consumed(bytes.len());
            self.finish();
            return bytes.into();
        }
        Body::Stream(self)
    }

    /// The response is complete: the connection and the place at the peer are free.
    fn finish(&mut self) {
        self.over = true;
        self.line.release(self.keep_alive && self.decoder.is_done());
    }

    fn abort(&mut self, fault: Fault) -> Poll<Pulled> {
        self.over = true;
        self.line.cut();
        Poll::Ready(Pulled::Abort(fault))
    }

    /// What the buffer holds of the body, or how the body ends.
    fn decode(&mut self) -> Option<Pulled> {
        match self.decoder.decode(&mut self.line.input) {
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
                self.line.cut();
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
                self.line.clear_deadline();
                return Poll::Ready(pulled);
            }
            // The peer may answer before it has read the whole request.
            if self.line.poll_upload(&mut self.coding, cx).is_err() {
                self.line.break_upload();
            }
            if self.is_event_stream && self.line.input.is_empty() && self.line.is_silent(cx) {
                let fault = ready!(self.line.poll_next_byte(cx));
                return self.abort(fault);
            }
            match ready!(self.line.poll_body_bytes(cx)) {
                Read::Some => {}
                Read::Failed(fault) => return self.abort(fault),
                Read::End => {
                    return match self.decoder.finish() {
                        Ok(()) => {
                            self.finish();
                            Poll::Ready(Pulled::End(None))
                        }
                        Err(_) => self.abort(Reason::Truncated.into()),
                    };
                }
            }
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len_bytes
    }

    fn read_ahead_bytes(&self) -> usize {
        self.line.read_ahead
    }
}

/// Generous: what an application sends is its operator's business, but it cannot fill the memory.
const RESPONSE_LIMITS: Limits = Limits {
    max_request_line: 16 * 1024,
    max_header: 256 * 1024,
    max_fields: Limits::MOST_FIELDS,
};

/// A response of server-sent events, which comes to no end and has nothing to say for minutes.
pub(super) fn is_event_stream(fields: &Fields) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    fields.get(Known::ContentType).is_some_and(|kind| {
        kind.get(..NAME.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    })
}

fn no_body() -> BodyDecoder {
    BodyDecoder::new(Framing::None, &RESPONSE_LIMITS)
}
