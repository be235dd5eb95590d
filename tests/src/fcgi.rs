//! A web server's side of FastCGI, record by record: written for the tests, so that what the server
//! under test sends is read by something else than its own code.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::wait::PATIENCE;

/// Numbers of types.
pub mod kind {
    /// A request begins.
    pub const BEGIN: u8 = 1;
    /// Nobody waits for it any more.
    pub const ABORT: u8 = 2;
    /// A request has ended.
    pub const END: u8 = 3;
    /// A part of the parameters.
    pub const PARAMS: u8 = 4;
    /// A part of the body.
    pub const STDIN: u8 = 5;
    /// A part of the response.
    pub const STDOUT: u8 = 6;
    /// Variables are asked for.
    pub const GET_VALUES: u8 = 9;
    /// Their values.
    pub const VALUES: u8 = 10;
    /// A type is not known.
    pub const UNKNOWN: u8 = 11;
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The number of its type.
    pub kind: u8,
    /// The request.
    pub id: u16,
    /// Its content.
    pub content: Vec<u8>,
}

/// The bytes of one.
#[must_use]
pub fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("at most 64 KiB");
    let ([i1, i0], [l1, l0]) = (id.to_be_bytes(), len.to_be_bytes());
    let mut out = vec![1, kind, i1, i0, l1, l0, 0, 0];
    out.extend_from_slice(content);
    out
}

/// Names and values, encoded.
#[must_use]
pub fn pairs(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        for len in [name.len(), value.len()] {
            match u8::try_from(len) {
                Ok(short) if short < 128 => out.push(short),
                _ => {
                    let long = u32::try_from(len).expect("short") | 1 << 31;
                    out.extend_from_slice(&long.to_be_bytes());
                }
            }
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// The first record of a request for the role of this number.
#[must_use]
pub fn begin(id: u16, role: u8, keep: bool) -> Vec<u8> {
    record(kind::BEGIN, id, &[0, role, u8::from(keep), 0, 0, 0, 0, 0])
}

/// A whole request, of a Responder.
#[must_use]
pub fn request(id: u16, keep: bool, params: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = begin(id, 1, keep);
    for part in pairs(params).chunks(60_000) {
        out.extend(record(kind::PARAMS, id, part));
    }
    out.extend(record(kind::PARAMS, id, b""));
    for part in body.chunks(60_000) {
        out.extend(record(kind::STDIN, id, part));
    }
    out.extend(record(kind::STDIN, id, b""));
    out
}

/// A connection to an application.
pub struct Front(Box<dyn Both>);

trait Both: Read + Write {
    fn half_close(&self);
}

impl Both for TcpStream {
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).expect("it is open");
    }
}

impl Both for UnixStream {
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).expect("it is open");
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its response, head and body.
    pub stdout: Vec<u8>,
    /// How it ended as far as FastCGI goes; none: it did not, the connection was closed.
    pub end: Option<u8>,
}

impl Answer {
    /// The response as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The status that its head says.
    ///
    /// # Panics
    /// When it says none.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> u16 {
        let text = self.text();
        let status = text.strip_prefix("Status: ").and_then(|it| it.get(..3));
        let status = status.and_then(|it| it.parse().ok());
        status.unwrap_or_else(|| panic!("no status in {text:?}"))
    }

    /// What stands behind the head.
    #[must_use]
    pub fn body(&self) -> String {
        let text = self.text();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        body.unwrap_or_default()
    }
}

impl Front {
    /// Connects to a TCP port.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn tcp(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("an application");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        Self(Box::new(stream))
    }

    /// Connects to a Unix socket.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("an application");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        Self(Box::new(stream))
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When they are not taken.
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the application reads");
    }

    /// Sends bytes, as many as are taken.
    ///
    /// # Errors
    /// The connection's.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Ends the sending side.
    pub fn half_close(&mut self) {
        self.0.half_close();
    }

    /// The next record; none at the end of the connection.
    ///
    /// # Panics
    /// When none comes, or what comes is none.
    #[track_caller]
    pub fn read_record(&mut self) -> Option<Record> {
        let mut header = [0; 8];
        let mut filled = 0;
        while filled < header.len() {
            match self.0.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return None,
                Ok(0) => panic!("the connection ends in a record's header"),
                Ok(len) => filled += len,
                Err(error) if filled == 0 && error.kind() == io::ErrorKind::ConnectionReset => {
                    return None;
                }
                Err(error) => panic!("no record: {error}"),
            }
        }
        let [version, kind, i1, i0, l1, l0, padding, _] = header;
        assert_eq!(version, 1);
        let mut content = vec![0; u16::from_be_bytes([l1, l0]).into()];
        self.0.read_exact(&mut content).expect("the whole record");
        let mut padding = vec![0; padding.into()];
        self.0.read_exact(&mut padding).expect("the whole record");
        let id = u16::from_be_bytes([i1, i0]);
        Some(Record { kind, id, content })
    }

    /// What comes until this request has ended; records of others are an error.
    ///
    /// # Panics
    /// As [`Front::read_record`].
    #[track_caller]
    pub fn answer(&mut self, id: u16) -> Answer {
        let mut answer = Answer {
            stdout: Vec::new(),
            end: None,
        };
        while let Some(record) = self.read_record() {
            assert_eq!(record.id, id, "{record:?}");
            match record.kind {
                kind::STDOUT => answer.stdout.extend(record.content),
                kind::END => {
                    answer.end = record.content.get(4).copied();
                    break;
                }
                _ => panic!("{record:?}"),
            }
        }
        answer
    }

    /// Sends a whole request and reads its answer.
    ///
    /// # Panics
    /// As [`Front::read_record`].
    #[track_caller]
    pub fn ask(&mut self, params: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&request(1, true, params, body));
        self.answer(1)
    }
}
