//! One request on one connection to a FastCGI application: as `session.rs` for HTTP/1.1.
//!
//! ```text
//!   params, stdin ─▶ written ─────┬─ head of a CGI response ─▶ body pulled ─▶ END_REQUEST ─▶ kept
//!   upload ────── as it comes ────┘        │        ╲               │
//!                                          ▼         stderr ─▶ log  ▼ a fault: visible to the client
//!                                     perhaps another peer
//! ```
//!
//! One request at a time: it is all that php-fpm takes, and one that is given up ends with its
//! connection, which every application understands, unlike `ABORT_REQUEST`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_fastcgi::{
    CgiError, CgiHead, CgiHeadParser, CgiLimits, Client, ClientEvent, Limits, Misuse,
    ParamsBuilder, ProtocolStatus, Role,
};
use forebay_fields::Fields;

use super::Upstream;
use super::line::{Framing, Line, Read};
use super::lines::{PATIENCE_MS, Unheard};
use super::session::is_event_stream;
use crate::counters::SiteCounts;
use crate::exchange::{Body, Fault, Pulled, Reason, Stream};
use crate::log::{Ration, Throttle};
use crate::trace::{Tap, Who};
use crate::transport::Out;
use crate::wheel::Deadline;

/// The longest record of a body that needs no padding.
const MOST: u16 = 0xfff8;

/// While the head is not complete, so much of the response is taken at a time: what is behind the
/// head is not copied.
const HEAD_PIECE: usize = 4 * 1024;

/// What one line of the log may hold of what an application says there.
const SAID_BYTES: usize = 2 * 1024;

/// How much of it is logged of one request.
const MAX_SAID_BYTES: usize = 16 * 1024;

/// How often room is made for one and the same connection.
const ANOTHER_TRY: Duration = Duration::from_secs(1);

const LIMITS: Limits = Limits {
    max_requests: 1,
    max_params_bytes: 256 * 1024,
    max_params: 512,
    max_name: 1024,
    max_value: 64 * 1024,
    max_management: 1024,
};

/// What an application has to say to the log.
struct Said {
    site: Option<Arc<SiteCounts>>,
    id: u64,
    upstream: Arc<Upstream>,
    peer: usize,
    text: Vec<u8>,
    logged: usize,
}

/// The connection as the one request on it sees it.
struct Wire {
    client: Client,
    id: u16,
    /// Somebody looks on.
    tap: Option<Box<Tap>>,
}

/// What the records that have come say.
enum Event {
    /// More must come first.
    NeedMore,
    /// So many bytes of the response.
    Data(usize),
    /// There are no more of them.
    DataEnd,
    /// The request is over; whether the connection can take another one.
    End(bool),
}

/// A request under way.
pub struct FcgiSession {
    line: Line,
    wire: Wire,
    said: Said,
    parser: CgiHeadParser,
    /// What has come of a head that did not come at once.
    head_bytes: BytesMut,
    /// What has come of the body and is not pulled yet: the first of it, and what is behind that. Most
    /// bodies that come at once are one piece.
    first: Bytes,
    pieces: VecDeque<Bytes>,
    /// How much of the body is to come, if its head has said so.
    left: Option<u64>,
    len_bytes: Option<u64>,
    is_event_stream: bool,
    /// All of the body has come.
    has_all: bool,
    /// Nothing more is to come; whether the connection can take another request.
    ended: Option<bool>,
    /// Why no more of the body can come.
    failed: Option<Fault>,
    fresh: Option<Fresh>,
    over: bool,
}

/// A connection that has never been heard from: perhaps its application has no process for it.
struct Fresh {
    _unheard: Unheard,
    patience: Deadline,
}

/// For whom an application is asked.
pub struct OnBehalf {
    /// Where it is counted.
    pub site: Option<Arc<SiteCounts>>,
    /// The exchange's number.
    pub id: u64,
    /// The pool.
    pub upstream: Arc<Upstream>,
    /// The peer's number in it.
    pub peer: usize,
}

impl FcgiSession {
    /// Begins a request on a connection; `unheard` of a new one.
    ///
    /// # Errors
    /// Only by a mistake of this program's.
    pub fn new(
        mut line: Line,
        role: Role,
        params: &ParamsBuilder,
        keep_conn: bool,
        unheard: Option<Unheard>,
        on_behalf: OnBehalf,
        mut tap: Option<Box<Tap>>,
    ) -> Result<Box<FcgiSession>, Fault> {
        let mut client = Client::new(LIMITS);
        let out = line.out.tail();
        let id = client.begin(role, keep_conn, out).map_err(misused)?;
        client.params(id, params, out).map_err(misused)?;
        if let Some(tap) = &mut tap {
            tap.bytes(Who::Server, out);
        }
        let patience = Duration::from_millis(PATIENCE_MS);
        let fresh = unheard.map(|unheard| {
            let deadline = line.worker.wheel.register();
            deadline.set(line.worker.now_ms(), patience);
            Fresh {
                _unheard: unheard,
                patience: deadline,
            }
        });
        let fields = line.worker.fields();
        Ok(Box::new(FcgiSession {
            line,
            wire: Wire { client, id, tap },
            said: Said {
                site: on_behalf.site,
                id: on_behalf.id,
                upstream: on_behalf.upstream,
                peer: on_behalf.peer,
                text: Vec::new(),
                logged: 0,
            },
            parser: CgiHeadParser::new(fields),
            head_bytes: BytesMut::new(),
            first: Bytes::new(),
            pieces: VecDeque::new(),
            left: None,
            len_bytes: None,
            is_event_stream: false,
            has_all: false,
            ended: None,
            failed: None,
            fresh,
            over: false,
        }))
    }

    /// Sends this body behind the parameters.
    pub fn send_body(&mut self, body: Body) {
        self.line.send_body(body, &mut self.wire);
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

    /// Waits for the head of the response.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<CgiHead, Fault>> {
        loop {
            self.line.poll_upload(&mut self.wire, cx)?;
            let before = self.line.input.len();
            match self.line.poll_head_bytes(cx) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    self.lose_patience(cx);
                    return Poll::Pending;
                }
            }
            self.show(before);
            self.fresh = None;
            loop {
                let len = match self.next()? {
                    Event::NeedMore => break,
                    Event::Data(len) => len,
                    Event::DataEnd | Event::End(_) => {
                        let what = "it ended before the head of its response was complete";
                        return Poll::Ready(Err(Fault::with(Reason::BadResponse, what)));
                    }
                };
                match self.read_head(len.min(HEAD_PIECE)) {
                    Ok(Some(mut head)) => {
                        self.line.handle_head(&mut head.fields);
                        return Poll::Ready(Ok(head));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        let fault = Fault::with(Reason::BadResponse, error.sentence());
                        return Poll::Ready(Err(fault));
                    }
                }
            }
        }
    }

    /// The head, if it ends in the next `len` bytes of the response.
    fn read_head(&mut self, len: usize) -> Result<Option<CgiHead>, CgiError> {
        let limits = CgiLimits::default();
        let (client, input) = (&mut self.wire.client, &mut self.line.input);
        // Where all of it has come at once, it is read where it is.
        if self.head_bytes.is_empty()
            && let Some((head, used)) = self.parser.read(&input[..len], &limits)?
        {
            client.skip(input, used);
            self.begin_body(&head);
            return Ok(Some(head));
        }
        self.head_bytes.extend_from_slice(&client.take(input, len));
        let head = self.parser.parse(&mut self.head_bytes, &limits)?;
        if let Some(head) = &head {
            self.begin_body(head);
            let rest = std::mem::take(&mut self.head_bytes).freeze();
            self.take_in(rest);
        }
        Ok(head)
    }

    /// Has room made for a connection that is waited for in vain; again and again, since what is made
    /// may be taken by somebody else.
    fn lose_patience(&mut self, cx: &mut Context<'_>) {
        while let Some(Fresh { patience, .. }) = &self.fresh
            && patience.poll_expired(cx).is_ready()
        {
            self.line.make_room();
            patience.set(self.line.worker.now_ms(), ANOTHER_TRY);
        }
    }

    /// Shows what was read behind the first `before` bytes of the buffer.
    fn show(&mut self, before: usize) {
        if let Some(tap) = &mut self.wire.tap {
            let new = self.line.input.get(before..).unwrap_or_default();
            tap.bytes(Who::Application, new);
        }
    }

    fn begin_body(&mut self, head: &CgiHead) {
        self.left = head.content_length;
        self.len_bytes = head.content_length;
        if self.len_bytes.is_none() && is_event_stream(&head.fields) {
            self.is_event_stream = true;
            self.line.times.read = self.line.times.tunnel;
        }
        self.line.clear_deadline();
    }

    /// The body of the response whose head has come. What is there already in whole comes as bytes,
    /// and the connection is free again at once. `has_none`: no response of this kind has a body.
    ///
    /// # Errors
    /// The body is there, and is not what its head says.
    pub fn into_body(mut self: Box<Self>, has_none: bool) -> Result<Body, Fault> {
        self.take_all_in();
        if has_none {
            self.first = Bytes::new();
            self.pieces.clear();
            self.finish();
            return Ok(Body::Empty);
        }
        if let Some(fault) = self.failed.take() {
            return Err(fault);
        }
        // Not before the request has ended: an application that has more to say would be cut off.
        if self.ended.is_none() {
            return Ok(Body::Stream(self));
        }
        self.finish();
        let first = std::mem::take(&mut self.first);
        if self.pieces.is_empty() {
            return Ok(first.into());
        }
        let mut all = BytesMut::from(first);
        for piece in &self.pieces {
            all.extend_from_slice(piece);
        }
        Ok(all.freeze().into())
    }

    /// What the buffer holds next. What is for the log is taken out on the way.
    fn next(&mut self) -> Result<Event, Fault> {
        let input = &mut self.line.input;
        loop {
            let event = match self.wire.client.poll(input) {
                Ok(ClientEvent::NeedMore) => {
                    self.said.log();
                    Event::NeedMore
                }
                Ok(ClientEvent::Stdout { len, .. }) => Event::Data(len),
                Ok(ClientEvent::Stderr { len, .. }) => {
                    self.said.add(&self.wire.client.take(input, len));
                    continue;
                }
                Ok(ClientEvent::StdoutEnd { .. }) => Event::DataEnd,
                Ok(ClientEvent::End {
                    status, reusable, ..
                }) => {
                    self.said.log();
                    match status {
                        ProtocolStatus::RequestComplete => {}
                        ProtocolStatus::UnknownRole => {
                            let what = "it is no FastCGI responder";
                            return Err(Fault::with(Reason::BadResponse, what));
                        }
                        ProtocolStatus::Overloaded | ProtocolStatus::CantMultiplex => {
                            return Err(Fault::with(Reason::PeerRefused, "it is overloaded"));
                        }
                    }
                    Event::End(reusable && self.wire.client.settle(input))
                }
                Ok(ClientEvent::Fault { fault, .. }) | Err(fault) => {
                    return Err(Fault::with(Reason::BadResponse, fault.sentence()));
                }
                Ok(ClientEvent::Values(_) | ClientEvent::UnknownType(_)) => {
                    let what = "it answers what was not asked";
                    return Err(Fault::with(Reason::BadResponse, what));
                }
            };
            return Ok(event);
        }
    }

    /// Takes what the buffer holds of the body, up to the end of the request if that is there.
    fn take_all_in(&mut self) {
        while self.ended.is_none() && self.failed.is_none() {
            match self.next() {
                Ok(Event::NeedMore) => return,
                Ok(Event::Data(len)) => {
                    let piece = self.wire.client.take(&mut self.line.input, len);
                    self.take_in(piece);
                }
                Ok(Event::DataEnd) => self.end_data(),
                Ok(Event::End(reusable)) => {
                    self.end_data();
                    self.ended = Some(reusable);
                }
                Err(fault) => self.failed = Some(fault),
            }
        }
    }

    /// A piece of the body, as far as its head has announced it.
    fn take_in(&mut self, mut piece: Bytes) {
        if let Some(left) = &mut self.left {
            if (piece.len() as u64) > *left {
                static LOG: Throttle = Throttle::new();
                if let Some(dropped) = LOG.pass() {
                    let peer = self.said.peer();
                    let what = "the application sends more than its Content-Length says";
                    tracing::warn!(site = self.said.site(), peer, dropped, "{what}");
                }
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            }
            *left -= piece.len() as u64;
            self.has_all |= *left == 0;
        }
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// The first of what has come of the body.
    fn pop(&mut self) -> Option<Bytes> {
        let next = self.pieces.pop_front().unwrap_or_default();
        let first = std::mem::replace(&mut self.first, next);
        (!first.is_empty()).then_some(first)
    }

    fn end_data(&mut self) {
        if self.left.is_some_and(|left| left > 0) {
            let what = "it is shorter than its Content-Length says";
            self.failed = Some(Fault::with(Reason::Truncated, what));
        }
        self.has_all = true;
    }

    /// The response is complete: the connection and the place at the peer are free.
    fn finish(&mut self) {
        self.over = true;
        self.line.release(self.ended == Some(true));
    }

    fn abort(&mut self, fault: Fault) -> Poll<Pulled> {
        self.over = true;
        self.line.cut();
        Poll::Ready(Pulled::Abort(fault))
    }

    /// The next piece, or the end, if they are there.
    fn taken(&mut self) -> Option<Pulled> {
        if self.first.is_empty() {
            self.take_all_in();
        }
        if let Some(piece) = self.pop() {
            // Free at once, not at the next pull: the client may be slow to come to it.
            if self.has_all && !self.over {
                self.take_all_in();
                if self.ended.is_some() && self.failed.is_none() {
                    self.finish();
                }
            }
            self.line.clear_deadline();
            return Some(Pulled::Data(piece));
        }
        if let Some(fault) = self.failed.take() {
            self.over = true;
            self.line.cut();
            return Some(Pulled::Abort(fault));
        }
        if self.ended.is_some() && !self.over {
            self.finish();
        }
        self.over.then_some(Pulled::End(None))
    }

    /// What ends the wait for the rest: nothing is missing if only the request's end is.
    fn cut_short(&mut self, fault: Fault) -> Poll<Pulled> {
        if !self.has_all {
            return self.abort(fault);
        }
        self.over = true;
        self.line.cut();
        Poll::Ready(Pulled::End(None))
    }
}

impl Stream for FcgiSession {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        loop {
            if let Some(pulled) = self.taken() {
                return Poll::Ready(pulled);
            }
            // The application may answer before it has read the whole request.
            if self.line.poll_upload(&mut self.wire, cx).is_err() {
                self.line.break_upload();
            }
            if self.is_event_stream && self.line.input.is_empty() && self.line.is_silent(cx) {
                let fault = ready!(self.line.poll_next_byte(cx));
                return self.cut_short(fault);
            }
            let before = self.line.input.len();
            match ready!(self.line.poll_body_bytes(cx)) {
                Read::Some => self.show(before),
                Read::Failed(fault) => return self.cut_short(fault),
                // Not silently: only the application knows whether it was all.
                Read::End => return self.cut_short(Reason::Truncated.into()),
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

impl Framing for Wire {
    fn data(&mut self, mut bytes: Bytes, out: &mut Out) {
        while !bytes.is_empty() {
            let Ok(piece) = self.client.stdin(self.id, bytes.len(), MOST, false) else {
                debug_assert!(false, "a body out of its turn");
                return;
            };
            out.tail().extend_from_slice(&piece.header);
            let content = bytes.split_to(piece.content);
            if let Some(tap) = &mut self.tap {
                tap.bytes(Who::Server, &piece.header);
                tap.bytes(Who::Server, &content);
            }
            out.push(content);
        }
    }

    fn end(&mut self, _: Option<&Fields>, out: &mut Out) {
        let before = out.tail().len();
        let ended = self.client.stdin_end(self.id, out.tail());
        if let Some(tap) = &mut self.tap {
            tap.bytes(Who::Server, out.tail().get(before..).unwrap_or_default());
        }
        debug_assert!(ended.is_ok(), "a body is ended out of its turn");
    }
}

impl Said {
    fn site(&self) -> &str {
        self.site.as_ref().map_or("", |site| &site.name)
    }

    fn peer(&self) -> &str {
        &self.upstream.peers[self.peer].label
    }

    fn add(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let room = SAID_BYTES.saturating_sub(self.text.len());
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.text.extend_from_slice(now);
            bytes = rest;
            if self.text.len() >= SAID_BYTES {
                self.log();
            }
        }
    }

    fn log(&mut self) {
        // A site with a loud application must not drown what others have to say.
        static LOG: Ration = Ration::new(50);
        if self.text.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.text);
        if self.logged >= MAX_SAID_BYTES {
            return;
        }
        self.logged += text.len();
        if let Some(dropped) = LOG.pass() {
            let text = String::from_utf8_lossy(text.trim_ascii_end());
            let id = format!("{:016x}", self.id);
            let (site, peer) = (self.site(), self.peer());
            tracing::warn!(
                site,
                id,
                peer,
                text = &*text,
                dropped,
                "the application says"
            );
        }
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        self.log();
    }
}

fn misused(_: Misuse) -> Fault {
    Fault::with(Reason::Internal, "a FastCGI request out of its turn")
}
