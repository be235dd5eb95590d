//! The web server's side of a connection.
//!
//! ```text
//!   what is sent, of each request               what is received, of each request
//!
//!   begin ─▶ Params ─params─▶ Stdin             Open ── Stdout, Stderr ──▶ Open
//!                 │             │ stdin_end      │ an empty record: that stream is ended
//!    Authorizer:  │             ▼                │
//!    no stdin     │  Filter:  Data              │ END_REQUEST
//!                 │             │ data_end       ▼
//!                 └────────▶ Sent ◀──┘          End: the id is free again
//!
//!   abort, at any time: what comes of it is no longer told, until End
//! ```

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::Limits;
use crate::fault::Fault;
use crate::ids::Ids;
use crate::params::{Params, ParamsBuilder};
use crate::reader::Reader;
use crate::record::{
    HEADER_LEN, Header, Piece, ProtocolStatus, RecordType, Role, read_end_request, write_begin,
    write_end, write_params,
};

/// What came from the application; see [`Client::poll`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The buffer holds nothing that could be told yet.
    NeedMore,
    /// So many bytes at the start of the buffer are of this request's response; at least one.
    Stdout {
        /// The request.
        id: u16,
        /// How many.
        len: usize,
    },
    /// The same of what it has to say to the log.
    Stderr {
        /// The request.
        id: u16,
        /// How many.
        len: usize,
    },
    /// The response is complete. Not all applications say so before [`End`](Self::End).
    StdoutEnd {
        /// The request.
        id: u16,
    },
    /// The request has ended, and its id is free.
    End {
        /// The request.
        id: u16,
        /// What a CGI program would have exited with.
        app_status: u32,
        /// How it ended.
        status: ProtocolStatus,
        /// Whether the connection may be used for another request: that was asked for, and all
        /// of the request was sent. (Applications read what is left of a request that they have
        /// not read to its end as the next one's.)
        reusable: bool,
    },
    /// The answer to [`Client::get_values`].
    Values(Values),
    /// The application does not know the type of a management record; the number of that.
    UnknownType(u8),
    /// The request is spoiled: nothing more of it is told but its [`End`](Self::End).
    Fault {
        /// The request.
        id: u16,
        /// Why.
        fault: Fault,
    },
}

/// What an application says of itself (§4.1); what it does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// `FCGI_MAX_CONNS`: connections at once.
    pub max_conns: Option<u32>,
    /// `FCGI_MAX_REQS`: requests at once.
    pub max_reqs: Option<u32>,
    /// `FCGI_MPXS_CONNS`: whether several requests may be under way on one connection.
    pub multiplexes: Option<bool>,
}

/// A call that the state of the request does not allow: a mistake of the caller. Nothing was
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Misuse {
    /// No request of that id is under way.
    NoSuchRequest,
    /// There is no room for another request, or the id is in use, or it is 0.
    NoRoom,
    /// It is not the turn of that stream, or it was ended.
    WrongTurn,
    /// More would be asked at once than is answered.
    AskedAlready,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchRequest => "no FastCGI request of that id is under way",
            Self::NoRoom => "there is no room for another FastCGI request on the connection",
            Self::WrongTurn => "it is not the turn of that FastCGI stream",
            Self::AskedAlready => "FastCGI's GET_VALUES was sent already",
        })
    }
}

impl std::error::Error for Misuse {}

/// The web server's side of one connection.
///
/// For each request: [`begin`](Self::begin), [`params`](Self::params), [`stdin`](Self::stdin) as
/// often as there is data, [`stdin_end`](Self::stdin_end); meanwhile [`poll`](Self::poll) whenever
/// bytes have come, until it says [`ClientEvent::End`].
#[derive(Debug)]
pub struct Client {
    limits: Limits,
    reader: Reader,
    now: Now,
    requests: Ids<Request>,
    /// Whether an answer to `GET_VALUES` is due.
    asked: bool,
}

/// What the present record is.
#[derive(Clone, Copy, Debug)]
enum Now {
    Between,
    /// Of no interest.
    Skip,
    Output(Stream, u16),
    /// Looked at when it is there as a whole.
    Whole(RecordType, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug)]
struct Request {
    role: Role,
    keep_conn: bool,
    sending: Sending,
    stdout_ended: bool,
    stderr_ended: bool,
    /// Aborted or spoiled: its output is skipped.
    muted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Params,
    Stdin,
    Data,
    Sent,
}

impl Client {
    /// Nothing is under way.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            reader: Reader::default(),
            now: Now::Between,
            requests: Ids::default(),
            asked: false,
        }
    }

    /// How many requests are under way.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Whether nothing is under way or half received, so that the connection may be kept, and
    /// its end is no fault.
    #[must_use]
    pub fn is_idle(&self, buf: &BytesMut) -> bool {
        self.requests.len() == 0 && !self.asked && self.is_between(buf)
    }

    /// Drops what is left of the last record's padding, and says whether the next byte that comes
    /// would be of a new request's records: then another [`Client`] can go on with the connection.
    pub fn settle(&mut self, buf: &mut BytesMut) -> bool {
        self.requests.len() == 0
            && !self.asked
            && matches!(self.now, Now::Between)
            && self.reader.settle(buf)
    }

    /// What the end of the stream means.
    ///
    /// # Errors
    /// It came in the middle of something.
    pub fn handle_eof(&self, buf: &BytesMut) -> Result<(), Fault> {
        if self.is_idle(buf) {
            Ok(())
        } else {
            Err(Fault::Truncated)
        }
    }

    fn is_between(&self, buf: &BytesMut) -> bool {
        self.reader.is_between(buf) && matches!(self.now, Now::Between)
    }
}

// --- Sending -----------------------------------------------------------------------------------

impl Client {
    /// Begins a request with the lowest id that is free.
    ///
    /// # Errors
    /// There is no room.
    pub fn begin(&mut self, role: Role, keep_conn: bool, out: &mut Vec<u8>) -> Result<u16, Misuse> {
        let id = self.requests.free().ok_or(Misuse::NoRoom)?;
        self.begin_as(id, role, keep_conn, out)?;
        Ok(id)
    }

    /// Begins a request with this id.
    ///
    /// # Errors
    /// There is no room, the id is in use, or it is 0.
    pub fn begin_as(
        &mut self,
        id: u16,
        role: Role,
        keep_conn: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        let request = Request {
            role,
            keep_conn,
            sending: Sending::Params,
            stdout_ended: false,
            stderr_ended: false,
            muted: false,
        };
        let room = self.requests.len() < usize::from(self.limits.max_requests);
        if id == 0 || !room || !self.requests.insert(id, request) {
            return Err(Misuse::NoRoom);
        }
        write_begin(id, role, keep_conn, out);
        Ok(())
    }

    /// Sends all parameters, and the end of them.
    ///
    /// # Errors
    /// They were sent already.
    pub fn params(
        &mut self,
        id: u16,
        params: &ParamsBuilder,
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        let request = self.turn_of(id, Sending::Params)?;
        request.sending = match request.role {
            Role::Authorizer => Sending::Sent,
            Role::Responder | Role::Filter => Sending::Stdin,
        };
        write_params(id, params.as_bytes(), out);
        Ok(())
    }

    /// The record for the first of `len` bytes of the request's body: at most `most` of them
    /// (a multiple of 8 needs no padding), padded to a multiple of 8 if `pad`.
    ///
    /// # Errors
    /// It is not the body's turn, or there are no bytes: an empty record would end it.
    pub fn stdin(&mut self, id: u16, len: usize, most: u16, pad: bool) -> Result<Piece, Misuse> {
        self.piece(RecordType::Stdin, Sending::Stdin, (id, len), most, pad)
    }

    /// Ends the request's body.
    ///
    /// # Errors
    /// It is not the body's turn.
    pub fn stdin_end(&mut self, id: u16, out: &mut Vec<u8>) -> Result<(), Misuse> {
        let request = self.turn_of(id, Sending::Stdin)?;
        request.sending = match request.role {
            Role::Filter => Sending::Data,
            Role::Responder | Role::Authorizer => Sending::Sent,
        };
        write_end(RecordType::Stdin, id, out);
        Ok(())
    }

    /// As [`stdin`](Self::stdin), of the file that a Filter is to change.
    ///
    /// # Errors
    /// As there.
    pub fn data(&mut self, id: u16, len: usize, most: u16, pad: bool) -> Result<Piece, Misuse> {
        self.piece(RecordType::Data, Sending::Data, (id, len), most, pad)
    }

    /// Ends that file.
    ///
    /// # Errors
    /// It is not its turn.
    pub fn data_end(&mut self, id: u16, out: &mut Vec<u8>) -> Result<(), Misuse> {
        self.turn_of(id, Sending::Data)?.sending = Sending::Sent;
        write_end(RecordType::Data, id, out);
        Ok(())
    }

    /// Says that nobody waits for this request any more. What still comes of it is skipped, and
    /// it stays under way until the application ends it.
    ///
    /// # Errors
    /// There is no such request.
    pub fn abort(&mut self, id: u16, out: &mut Vec<u8>) -> Result<(), Misuse> {
        let request = self.requests.get_mut(id).ok_or(Misuse::NoSuchRequest)?;
        request.muted = true;
        write_end(RecordType::AbortRequest, id, out);
        Ok(())
    }

    /// Asks for the three variables that FastCGI 1.0 knows (§4.1).
    ///
    /// # Errors
    /// The answer to the last question has not come.
    pub fn get_values(&mut self, out: &mut Vec<u8>) -> Result<(), Misuse> {
        if std::mem::replace(&mut self.asked, true) {
            return Err(Misuse::AskedAlready);
        }
        // Each name with its length before it, and a value of length 0.
        let names = b"\x0e\0FCGI_MAX_CONNS\x0d\0FCGI_MAX_REQS\x0f\0FCGI_MPXS_CONNS";
        let len = u16::try_from(names.len()).unwrap_or_default();
        out.extend_from_slice(&Header::new(RecordType::GetValues, 0, len).to_bytes());
        out.extend_from_slice(names);
        Ok(())
    }

    fn turn_of(&mut self, id: u16, sending: Sending) -> Result<&mut Request, Misuse> {
        let request = self.requests.get_mut(id).ok_or(Misuse::NoSuchRequest)?;
        if request.sending == sending {
            Ok(request)
        } else {
            Err(Misuse::WrongTurn)
        }
    }

    fn piece(
        &mut self,
        kind: RecordType,
        sending: Sending,
        (id, len): (u16, usize),
        most: u16,
        pad: bool,
    ) -> Result<Piece, Misuse> {
        self.turn_of(id, sending)?;
        if len == 0 || most == 0 {
            return Err(Misuse::WrongTurn);
        }
        Ok(Piece::new(kind, id, len, most, pad))
    }
}

// --- Receiving ---------------------------------------------------------------------------------

impl Client {
    /// What the buffer holds next. Call it when bytes have arrived, until it says
    /// [`ClientEvent::NeedMore`]. The buffer needs room for `max_management` bytes.
    ///
    /// # Errors
    /// The application does not keep to FastCGI: the connection is of no more use.
    pub fn poll(&mut self, buf: &mut BytesMut) -> Result<ClientEvent, Fault> {
        loop {
            match self.now {
                Now::Between => {
                    let Some(header) = self.reader.next(buf)? else {
                        return Ok(ClientEvent::NeedMore);
                    };
                    if let Some(event) = self.start(header)? {
                        return Ok(event);
                    }
                }
                Now::Skip => {
                    self.reader.skip(buf, usize::MAX);
                    if self.reader.left() > 0 {
                        return Ok(ClientEvent::NeedMore);
                    }
                    self.now = Now::Between;
                }
                Now::Output(stream, id) => {
                    if self.requests.get(id).is_none_or(|request| request.muted) {
                        self.now = Now::Skip;
                        continue;
                    }
                    match (self.reader.left(), self.reader.ready(buf)) {
                        (0, _) => self.now = Now::Between,
                        (_, 0) => return Ok(ClientEvent::NeedMore),
                        (_, len) if stream == Stream::Stdout => {
                            return Ok(ClientEvent::Stdout { id, len });
                        }
                        (_, len) => return Ok(ClientEvent::Stderr { id, len }),
                    }
                }
                Now::Whole(kind, id) => {
                    let Some(content) = self.reader.whole(buf) else {
                        return Ok(ClientEvent::NeedMore);
                    };
                    self.now = Now::Between;
                    return self.whole(kind, id, content);
                }
            }
        }
    }

    /// Takes `len` bytes of the data that [`poll`](Self::poll) has told off the buffer; never more
    /// than that.
    pub fn take(&mut self, buf: &mut BytesMut, len: usize) -> Bytes {
        match self.now {
            Now::Output(..) => self.reader.take(buf, len),
            _ => Bytes::new(),
        }
    }

    /// As [`take`](Self::take), for a caller that has used them where they were.
    pub fn skip(&mut self, buf: &mut BytesMut, len: usize) {
        if matches!(self.now, Now::Output(..)) {
            self.reader.skip(buf, len);
        }
    }

    fn start(&mut self, header: Header) -> Result<Option<ClientEvent>, Fault> {
        let kind = RecordType::of(header.kind).ok_or(Fault::UnexpectedType)?;
        match kind {
            RecordType::Stdout | RecordType::Stderr => return self.start_output(kind, header),
            RecordType::EndRequest => {
                self.requests.get(header.id).ok_or(Fault::UnexpectedId)?;
            }
            // Only as an answer.
            RecordType::GetValuesResult | RecordType::UnknownType if self.asked => {
                if header.id != 0 {
                    return Err(Fault::UnexpectedId);
                }
            }
            _ => return Err(Fault::UnexpectedType),
        }
        if kind == RecordType::GetValuesResult {
            if header.content > self.limits.max_management {
                return Err(Fault::ManagementTooLong);
            }
        } else if usize::from(header.content) != HEADER_LEN {
            return Err(Fault::BadLength);
        }
        self.now = Now::Whole(kind, header.id);
        Ok(None)
    }

    fn start_output(
        &mut self,
        kind: RecordType,
        header: Header,
    ) -> Result<Option<ClientEvent>, Fault> {
        let Header { id, content, .. } = header;
        let request = self.requests.get_mut(id).ok_or(Fault::UnexpectedId)?;
        let (stream, ended) = match kind {
            RecordType::Stdout => (Stream::Stdout, &mut request.stdout_ended),
            _ => (Stream::Stderr, &mut request.stderr_ended),
        };
        if request.muted {
            self.now = Now::Skip;
        } else if content == 0 {
            // Some applications end a stream twice; there is nothing wrong with that.
            if !std::mem::replace(ended, true) && stream == Stream::Stdout {
                return Ok(Some(ClientEvent::StdoutEnd { id }));
            }
        } else if *ended {
            request.muted = true;
            self.now = Now::Skip;
            let fault = Fault::DataAfterEnd;
            return Ok(Some(ClientEvent::Fault { id, fault }));
        } else {
            self.now = Now::Output(stream, id);
        }
        Ok(None)
    }

    fn whole(&mut self, kind: RecordType, id: u16, content: Bytes) -> Result<ClientEvent, Fault> {
        if kind == RecordType::GetValuesResult {
            self.asked = false;
            return read_values(content, &self.limits).map(ClientEvent::Values);
        }
        let body = *content.first_chunk().ok_or(Fault::BadLength)?;
        if kind == RecordType::UnknownType {
            self.asked = false;
            return Ok(ClientEvent::UnknownType(body[0]));
        }
        let (app_status, status) = read_end_request(body)?;
        let request = self.requests.remove(id).ok_or(Fault::UnexpectedId)?;
        Ok(ClientEvent::End {
            id,
            app_status,
            status,
            reusable: request.keep_conn && request.sending == Sending::Sent,
        })
    }
}

fn read_values(content: Bytes, limits: &Limits) -> Result<Values, Fault> {
    let pairs = Params::read(content, limits).map_err(|_| Fault::BadValues)?;
    let mut values = Values::default();
    for (name, value) in &pairs {
        // §4.1: decimal numbers, as text. Names that are not known are no fault.
        let number = || {
            let digits = value.iter().all(u8::is_ascii_digit);
            let text = str::from_utf8(value).ok().filter(|_| digits);
            text.and_then(|text| text.parse().ok())
                .ok_or(Fault::BadValues)
        };
        match name {
            b"FCGI_MAX_CONNS" => values.max_conns = Some(number()?),
            b"FCGI_MAX_REQS" => values.max_reqs = Some(number()?),
            b"FCGI_MPXS_CONNS" => values.multiplexes = Some(number()? != 0),
            _ => {}
        }
    }
    Ok(values)
}
