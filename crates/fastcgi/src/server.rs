//! The application's side of a connection.
//!
//! ```text
//!               what is received, of each request           what is sent
//!
//!   BEGIN ─▶ Params ── the end of PARAMS ─▶ Request         stdout, stderr ─▶ … ─▶ end
//!    │          │                              │                                  │
//!    │ no room, │ too many, malformed          ▼                                  ▼
//!    │ no such  │                            Stdin ─ Filter: ─▶ Data      the id is free:
//!    │ role     ▼                              │                  │       what still comes
//!    ▼        Fault: the rest is skipped       └─▶ Received ◀─────┘       of it is skipped
//!  Refused    until the caller has ended it
//! ```

use bytes::{Bytes, BytesMut};

use crate::Limits;
use crate::client::Misuse;
use crate::fault::Fault;
use crate::ids::Ids;
use crate::params::{Params, ParamsBuilder};
use crate::reader::Reader;
use crate::record::{
    HEADER_LEN, Header, Piece, ProtocolStatus, RecordType, Role, read_begin, write_end,
    write_end_request, write_unknown_type,
};

/// What came from the web server; see [`Server::poll`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The buffer holds nothing that could be told yet.
    NeedMore,
    /// An answer was written that asks nothing of the caller but to be sent. Whoever has much to
    /// send already sends that first, before more is polled: so a flood of questions is held up.
    Answered,
    /// A request: all its parameters are there.
    Request {
        /// The request.
        id: u16,
        /// What is asked of the application.
        role: Role,
        /// The parameters.
        params: Params,
    },
    /// A request was refused, and the answer was written.
    Refused {
        /// The request. It is not under way.
        id: u16,
        /// Why.
        why: Refusal,
        /// Whether the web server wants to keep the connection.
        keep_conn: bool,
    },
    /// So many bytes at the start of the buffer are of this request's body; at least one.
    Stdin {
        /// The request.
        id: u16,
        /// How many.
        len: usize,
    },
    /// The request's body is complete. An Authorizer has none, and gets no such event.
    StdinEnd {
        /// The request.
        id: u16,
    },
    /// So many bytes at the start of the buffer are of the file that a Filter is to change.
    Data {
        /// The request.
        id: u16,
        /// How many.
        len: usize,
    },
    /// That file is complete.
    DataEnd {
        /// The request.
        id: u16,
    },
    /// Nobody waits for this request any more: it is to be [ended](Server::end) soon.
    Abort {
        /// The request.
        id: u16,
    },
    /// The request is spoiled; nothing more of it is told but an [`Abort`](Self::Abort). It is to
    /// be [ended](Server::end), perhaps with a response that says what was wrong. If its
    /// [`Request`](Self::Request) was not told yet, it will not be.
    Fault {
        /// The request.
        id: u16,
        /// Why.
        fault: Fault,
    },
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The application does not have that role.
    UnknownRole,
    /// `max_requests` are under way.
    Overloaded,
    /// The same where `max_requests` is 1.
    CantMultiplex,
    /// The web server has aborted it before its parameters were complete.
    Aborted,
}

impl Refusal {
    /// How it is said to the web server.
    #[must_use]
    pub const fn status(self) -> ProtocolStatus {
        match self {
            Self::UnknownRole => ProtocolStatus::UnknownRole,
            Self::Overloaded => ProtocolStatus::Overloaded,
            Self::CantMultiplex => ProtocolStatus::CantMultiplex,
            Self::Aborted => ProtocolStatus::RequestComplete,
        }
    }
}

/// What the application says of itself (§4.1), and which roles it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// `FCGI_MAX_CONNS`: connections at once.
    pub max_conns: u32,
    /// `FCGI_MAX_REQS`: requests at once, over all connections.
    pub max_reqs: u32,
    /// Whether it answers requests.
    pub responder: bool,
    /// Whether it allows and denies them.
    pub authorizer: bool,
    /// Whether it changes files.
    pub filter: bool,
}

/// The application's side of one connection.
#[derive(Debug)]
pub struct Server {
    limits: Limits,
    capacity: Capacity,
    reader: Reader,
    now: Now,
    requests: Ids<Request>,
}

/// What the present record is.
#[derive(Clone, Copy, Debug)]
enum Now {
    Between,
    /// Of no interest.
    Skip,
    Params(u16),
    Input(Stream, u16),
    Begin(u16),
    GetValues,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdin,
    Data,
}

#[derive(Debug)]
struct Request {
    role: Role,
    keep_conn: bool,
    receiving: Receiving,
    stdout: Sending,
    stderr: Sending,
}

#[derive(Debug)]
enum Receiving {
    /// What has come of the parameters.
    Params(Vec<u8>),
    /// All of them, and what comes next is their end: nearly all web servers send them as one
    /// record, which then need not be copied.
    AllParams(Bytes),
    Stdin,
    Data,
    Received,
    /// Spoiled: all that comes is skipped.
    Spoiled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Unused,
    Open,
    Ended,
}

impl Server {
    /// Nothing is under way.
    #[must_use]
    pub fn new(limits: Limits, capacity: Capacity) -> Self {
        Self {
            limits,
            capacity,
            reader: Reader::default(),
            now: Now::Between,
            requests: Ids::default(),
        }
    }

    /// How many requests are under way.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// The ids of those: when the connection is lost, they are to be given up.
    pub fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.requests.iter()
    }

    /// Whether the web server wants to keep the connection after this request. If not, it is to
    /// be closed when the last one under way has ended (§5.1).
    #[must_use]
    pub fn keep_conn(&self, id: u16) -> Option<bool> {
        self.requests.get(id).map(|request| request.keep_conn)
    }

    /// What the end of the stream means. Without a fault, requests whose input is complete may
    /// still be under way: their answers can still be sent.
    ///
    /// # Errors
    /// It came within a record or before the end of a request's input.
    pub fn handle_eof(&self, buf: &BytesMut) -> Result<(), Fault> {
        let complete = |id| {
            let receiving = self.requests.get(id).map(|request| &request.receiving);
            matches!(receiving, Some(Receiving::Received | Receiving::Spoiled))
        };
        let between = self.reader.is_between(buf) && matches!(self.now, Now::Between);
        if between && self.ids().all(complete) {
            Ok(())
        } else {
            Err(Fault::Truncated)
        }
    }
}

// --- Sending -----------------------------------------------------------------------------------

impl Server {
    /// The record for the first of `len` bytes of the response: at most `most` of them, padded
    /// to a multiple of 8 if `pad`.
    ///
    /// # Errors
    /// There is no such request, the response was ended, or there are no bytes: an empty record
    /// would end it.
    pub fn stdout(&mut self, id: u16, len: usize, most: u16, pad: bool) -> Result<Piece, Misuse> {
        let request = self.requests.get_mut(id).ok_or(Misuse::NoSuchRequest)?;
        send(&mut request.stdout, len.min(most.into()))?;
        Ok(Piece::new(RecordType::Stdout, id, len, most, pad))
    }

    /// The same for the web server's log.
    ///
    /// # Errors
    /// As there.
    pub fn stderr(&mut self, id: u16, len: usize, most: u16, pad: bool) -> Result<Piece, Misuse> {
        let request = self.requests.get_mut(id).ok_or(Misuse::NoSuchRequest)?;
        send(&mut request.stderr, len.min(most.into()))?;
        Ok(Piece::new(RecordType::Stderr, id, len, most, pad))
    }

    /// Ends the response, while the request goes on.
    ///
    /// # Errors
    /// There is no such request, or the response was ended.
    pub fn stdout_end(&mut self, id: u16, out: &mut Vec<u8>) -> Result<(), Misuse> {
        let request = self.requests.get_mut(id).ok_or(Misuse::NoSuchRequest)?;
        if request.stdout == Sending::Ended {
            return Err(Misuse::WrongTurn);
        }
        request.stdout = Sending::Ended;
        write_end(RecordType::Stdout, id, out);
        Ok(())
    }

    /// Ends a request, and what streams of it are open. What is still received of it is skipped.
    /// Says whether the web server wants to keep the connection.
    ///
    /// There is no word in FastCGI for a response that is broken off: whoever must say that closes
    /// the connection instead (§5.5 has only statuses of before the response).
    ///
    /// # Errors
    /// There is no such request.
    pub fn end(
        &mut self,
        id: u16,
        app_status: u32,
        status: ProtocolStatus,
        out: &mut Vec<u8>,
    ) -> Result<bool, Misuse> {
        let request = self.requests.remove(id).ok_or(Misuse::NoSuchRequest)?;
        // §6.2: an empty response is ended as well; a log only if there is one.
        let complete = status == ProtocolStatus::RequestComplete;
        if request.stdout == Sending::Open || (complete && request.stdout == Sending::Unused) {
            write_end(RecordType::Stdout, id, out);
        }
        if request.stderr == Sending::Open {
            write_end(RecordType::Stderr, id, out);
        }
        write_end_request(id, app_status, status, out);
        Ok(request.keep_conn)
    }

    fn refuse(&mut self, id: u16, why: Refusal, keep_conn: bool, out: &mut Vec<u8>) -> ServerEvent {
        self.requests.remove(id);
        write_end_request(id, 0, why.status(), out);
        ServerEvent::Refused { id, why, keep_conn }
    }
}

fn send(stream: &mut Sending, len: usize) -> Result<(), Misuse> {
    if *stream == Sending::Ended || len == 0 {
        return Err(Misuse::WrongTurn);
    }
    *stream = Sending::Open;
    Ok(())
}

// --- Receiving ---------------------------------------------------------------------------------

impl Server {
    /// What the buffer holds next. Call it when bytes have arrived, until it says
    /// [`ServerEvent::NeedMore`]. Answers that need no decision of the caller are written to
    /// `out`. The buffer needs room for `max_management` bytes.
    ///
    /// # Errors
    /// The web server does not keep to FastCGI: the connection is of no more use.
    pub fn poll(&mut self, buf: &mut BytesMut, out: &mut Vec<u8>) -> Result<ServerEvent, Fault> {
        loop {
            match self.now {
                Now::Between => {
                    let Some(header) = self.reader.next(buf)? else {
                        return Ok(ServerEvent::NeedMore);
                    };
                    if let Some(event) = self.start(header, out)? {
                        return Ok(event);
                    }
                }
                Now::Skip => {
                    self.reader.skip(buf, usize::MAX);
                    if self.reader.left() > 0 {
                        return Ok(ServerEvent::NeedMore);
                    }
                    self.now = Now::Between;
                }
                Now::Params(id) => {
                    let ready = self.reader.ready(buf);
                    if let Some(request) = self.requests.get_mut(id)
                        && let Receiving::Params(block) = &mut request.receiving
                    {
                        if block.is_empty() && self.reader.is_last(buf, RecordType::Params, id) {
                            request.receiving = Receiving::AllParams(self.reader.take(buf, ready));
                        } else {
                            block.extend_from_slice(buf.get(..ready).unwrap_or_default());
                            self.reader.skip(buf, ready);
                        }
                    } else {
                        self.reader.skip(buf, ready);
                    }
                    if self.reader.left() > 0 {
                        return Ok(ServerEvent::NeedMore);
                    }
                    self.now = Now::Between;
                }
                Now::Input(stream, id) => {
                    if self.requests.get(id).is_none() {
                        self.now = Now::Skip;
                        continue;
                    }
                    match (self.reader.left(), self.reader.ready(buf)) {
                        (0, _) => self.now = Now::Between,
                        (_, 0) => return Ok(ServerEvent::NeedMore),
                        (_, len) if stream == Stream::Stdin => {
                            return Ok(ServerEvent::Stdin { id, len });
                        }
                        (_, len) => return Ok(ServerEvent::Data { id, len }),
                    }
                }
                Now::Begin(id) => {
                    let Some(&body) = buf.first_chunk() else {
                        return Ok(ServerEvent::NeedMore);
                    };
                    self.reader.skip(buf, HEADER_LEN);
                    self.now = Now::Between;
                    if let Some(event) = self.begin(id, body, out) {
                        return Ok(event);
                    }
                }
                Now::GetValues => {
                    let Some(content) = self.reader.whole(buf) else {
                        return Ok(ServerEvent::NeedMore);
                    };
                    self.now = Now::Between;
                    return self.answer_values(content, out);
                }
            }
        }
    }

    /// Takes `len` bytes of the data that [`poll`](Self::poll) has told off the buffer; never more
    /// than that.
    pub fn take(&mut self, buf: &mut BytesMut, len: usize) -> Bytes {
        match self.now {
            Now::Input(..) => self.reader.take(buf, len),
            _ => Bytes::new(),
        }
    }

    /// As [`take`](Self::take), for a caller that has used them where they were.
    pub fn skip(&mut self, buf: &mut BytesMut, len: usize) {
        if matches!(self.now, Now::Input(..)) {
            self.reader.skip(buf, len);
        }
    }

    fn start(&mut self, header: Header, out: &mut Vec<u8>) -> Result<Option<ServerEvent>, Fault> {
        let Header { id, content, .. } = header;
        let kind = RecordType::of(header.kind);
        if (id == 0) != kind.is_none_or(RecordType::is_management) {
            // A type that is not known, with an id, is no management record: §4.2 is not for it.
            let known = kind.is_some();
            return Err(if known {
                Fault::UnexpectedId
            } else {
                Fault::UnexpectedType
            });
        }
        let Some(kind) = kind else {
            self.now = Now::Skip;
            write_unknown_type(header.kind, out);
            return Ok(Some(ServerEvent::Answered));
        };
        match kind {
            RecordType::BeginRequest => {
                if usize::from(content) != HEADER_LEN {
                    return Err(Fault::BadLength);
                }
                if self.requests.get(id).is_some() {
                    return Err(Fault::DuplicateId);
                }
                self.now = Now::Begin(id);
            }
            RecordType::GetValues => {
                if content > self.limits.max_management {
                    return Err(Fault::ManagementTooLong);
                }
                self.now = Now::GetValues;
            }
            RecordType::AbortRequest => {
                self.now = Now::Skip;
                return Ok(self.abort(id, out));
            }
            RecordType::Params => return Ok(self.start_params(id, content)),
            RecordType::Stdin => return Ok(self.start_input(Stream::Stdin, id, content)),
            RecordType::Data => return Ok(self.start_input(Stream::Data, id, content)),
            RecordType::EndRequest
            | RecordType::Stdout
            | RecordType::Stderr
            | RecordType::GetValuesResult
            | RecordType::UnknownType => return Err(Fault::UnexpectedType),
        }
        Ok(None)
    }

    fn abort(&mut self, id: u16, out: &mut Vec<u8>) -> Option<ServerEvent> {
        let request = self.requests.get(id)?;
        if matches!(
            request.receiving,
            Receiving::Params(_) | Receiving::AllParams(_)
        ) {
            // Nobody knows of it yet.
            let keep_conn = request.keep_conn;
            return Some(self.refuse(id, Refusal::Aborted, keep_conn, out));
        }
        Some(ServerEvent::Abort { id })
    }

    fn start_params(&mut self, id: u16, content: u16) -> Option<ServerEvent> {
        self.now = Now::Skip;
        // §3.3: what is of no request under way is ignored.
        let request = self.requests.get_mut(id)?;
        match &mut request.receiving {
            Receiving::Params(block) if content == 0 => {
                let block = std::mem::take(block).into();
                Some(request.params(id, block, &self.limits))
            }
            Receiving::AllParams(block) if content == 0 => {
                let block = std::mem::take(block);
                Some(request.params(id, block, &self.limits))
            }
            Receiving::Params(block) => {
                let len = block.len().saturating_add(content.into());
                if u32::try_from(len).map_or(true, |len| len > self.limits.max_params_bytes) {
                    return Some(request.spoil(id, Fault::ParamsTooLarge));
                }
                self.now = Now::Params(id);
                None
            }
            Receiving::Spoiled => None,
            _ if content == 0 => None,
            _ => Some(request.spoil(id, Fault::DataAfterEnd)),
        }
    }

    fn start_input(&mut self, stream: Stream, id: u16, content: u16) -> Option<ServerEvent> {
        self.now = Now::Skip;
        let request = self.requests.get_mut(id)?;
        let is_filter = request.role == Role::Filter;
        match (&request.receiving, stream) {
            (Receiving::Spoiled, _) => None,
            (Receiving::Stdin, Stream::Stdin) | (Receiving::Data, Stream::Data) if content > 0 => {
                self.now = Now::Input(stream, id);
                None
            }
            (Receiving::Stdin, Stream::Stdin) => {
                request.receiving = match request.role {
                    Role::Filter => Receiving::Data,
                    Role::Responder | Role::Authorizer => Receiving::Received,
                };
                Some(ServerEvent::StdinEnd { id })
            }
            (Receiving::Data, Stream::Data) => {
                request.receiving = Receiving::Received;
                Some(ServerEvent::DataEnd { id })
            }
            // An end that is said twice, or of a stream that the role does not have.
            (Receiving::Data | Receiving::Received, _) if content == 0 => None,
            (Receiving::Data, Stream::Stdin) | (Receiving::Received, Stream::Stdin) => {
                Some(request.spoil(id, Fault::DataAfterEnd))
            }
            (Receiving::Received, Stream::Data) if is_filter => {
                Some(request.spoil(id, Fault::DataAfterEnd))
            }
            _ => Some(request.spoil(id, Fault::OutOfOrder)),
        }
    }

    /// A request begins, unless it is refused.
    fn begin(&mut self, id: u16, body: [u8; HEADER_LEN], out: &mut Vec<u8>) -> Option<ServerEvent> {
        let (role, keep_conn) = read_begin(body);
        let role = Role::of(role).filter(|role| match role {
            Role::Responder => self.capacity.responder,
            Role::Authorizer => self.capacity.authorizer,
            Role::Filter => self.capacity.filter,
        });
        let Some(role) = role else {
            return Some(self.refuse(id, Refusal::UnknownRole, keep_conn, out));
        };
        if self.requests.len() >= self.limits.max_requests.into() {
            let why = match self.limits.max_requests {
                1 => Refusal::CantMultiplex,
                _ => Refusal::Overloaded,
            };
            return Some(self.refuse(id, why, keep_conn, out));
        }
        let request = Request {
            role,
            keep_conn,
            receiving: Receiving::Params(Vec::new()),
            stdout: Sending::Unused,
            stderr: Sending::Unused,
        };
        self.requests.insert(id, request);
        None
    }

    fn answer_values(&self, content: Bytes, out: &mut Vec<u8>) -> Result<ServerEvent, Fault> {
        let asked = Params::read(content, &self.limits).map_err(|_| Fault::BadValues)?;
        let multiplexes = self.limits.max_requests > 1;
        let mut answer = ParamsBuilder::new(usize::from(u16::MAX));
        // Each at most once, however often it is asked for.
        let known: [(&[u8], u32); 3] = [
            (b"FCGI_MAX_CONNS", self.capacity.max_conns),
            (b"FCGI_MAX_REQS", self.capacity.max_reqs),
            (b"FCGI_MPXS_CONNS", multiplexes.into()),
        ];
        for (name, value) in known {
            if asked.get(name).is_some() {
                let pushed = answer.push(name, value.to_string().as_bytes());
                debug_assert_eq!(pushed, Ok(()), "three short pairs have room");
            }
        }
        let len = u16::try_from(answer.as_bytes().len()).unwrap_or_default();
        out.extend_from_slice(&Header::new(RecordType::GetValuesResult, 0, len).to_bytes());
        out.extend_from_slice(answer.as_bytes());
        Ok(ServerEvent::Answered)
    }
}

impl Request {
    /// All its parameters have come.
    fn params(&mut self, id: u16, block: Bytes, limits: &Limits) -> ServerEvent {
        let params = match Params::read(block, limits) {
            Ok(params) => params,
            Err(fault) => return self.spoil(id, fault),
        };
        let role = self.role;
        self.receiving = match role {
            Role::Authorizer => Receiving::Received,
            Role::Responder | Role::Filter => Receiving::Stdin,
        };
        ServerEvent::Request { id, role, params }
    }

    fn spoil(&mut self, id: u16, fault: Fault) -> ServerEvent {
        debug_assert!(fault.connection_goes_on());
        self.receiving = Receiving::Spoiled;
        ServerEvent::Fault { id, fault }
    }
}
