//! Every record of one direction of a connection, for who looks on: nothing is judged but what
//! keeps a record from being read.

use bytes::{Bytes, BytesMut};

use crate::Limits;
use crate::fault::Fault;
use crate::params::Params;
use crate::reader::Reader;
use crate::record::{HEADER_LEN, Header, ProtocolStatus, Role, read_begin, read_end_request};

/// A record as it was sent, without its padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its header.
    pub header: Header,
    /// Its content, of `header.content` bytes.
    pub content: Bytes,
}

/// Cuts the bytes of one direction into records. It holds what was pushed and not taken, so take
/// all that is there after each push: then that is less than a record.
#[derive(Debug, Default)]
pub struct Records {
    reader: Reader,
    buf: BytesMut,
    header: Option<Header>,
}

impl Records {
    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The next record, once it is there as a whole.
    ///
    /// # Errors
    /// What comes is no record. Nobody knows where the next one begins: what follows is lost.
    pub fn next_record(&mut self) -> Result<Option<Record>, Fault> {
        let header = match self.header {
            Some(header) => header,
            None => match self.reader.next(&mut self.buf)? {
                Some(header) => *self.header.insert(header),
                None => return Ok(None),
            },
        };
        let Some(content) = self.reader.whole(&mut self.buf) else {
            return Ok(None);
        };
        self.header = None;
        Ok(Some(Record { header, content }))
    }

    /// Whether the direction could end here: no record has begun.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.header.is_none() && self.reader.is_between(&self.buf)
    }
}

/// What the content of a `BEGIN_REQUEST` says (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The role's number: see [`Role::of`].
    pub role: u16,
    /// Whether the connection is to be kept.
    pub keep_conn: bool,
}

impl Begin {
    /// Reads it.
    ///
    /// # Errors
    /// It has another length than such a record has.
    pub fn read(content: &[u8]) -> Result<Self, Fault> {
        let body = content.try_into().map_err(|_| Fault::BadLength)?;
        let (role, keep_conn) = read_begin(body);
        Ok(Self { role, keep_conn })
    }

    /// The role, if FastCGI 1.0 knows it.
    #[must_use]
    pub const fn known_role(self) -> Option<Role> {
        Role::of(self.role)
    }
}

/// What the content of an `END_REQUEST` says (§5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The application's own status, 0 for success.
    pub app_status: u32,
    /// How the request ended as far as FastCGI goes.
    pub status: ProtocolStatus,
}

impl End {
    /// Reads it.
    ///
    /// # Errors
    /// It has another length than such a record has, or an unknown status.
    pub fn read(content: &[u8]) -> Result<Self, Fault> {
        let body: [u8; HEADER_LEN] = content.try_into().map_err(|_| Fault::BadLength)?;
        let (app_status, status) = read_end_request(body)?;
        Ok(Self { app_status, status })
    }
}

/// Pairs as they stand in `GET_VALUES` and its answer (§4.1); a record of them is one whole block.
///
/// # Errors
/// They are not pairs.
pub fn read_values(content: &Bytes) -> Result<Params, Fault> {
    Params::read(content.clone(), &Limits::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordType;

    fn bytes() -> Vec<u8> {
        let mut out = Vec::new();
        let begin = Header::new(RecordType::BeginRequest, 1, 8);
        out.extend_from_slice(&begin.to_bytes());
        out.extend_from_slice(&[0, 1, 1, 0, 0, 0, 0, 0]);
        let padded = Header {
            padding: 3,
            ..Header::new(RecordType::Stdout, 1, 5)
        };
        out.extend_from_slice(&padded.to_bytes());
        out.extend_from_slice(b"hello\0\0\0");
        out.extend_from_slice(&Header::new(RecordType::Stdout, 1, 0).to_bytes());
        let unknown = Header {
            kind: 77,
            ..Header::new(RecordType::Stdout, 0, 1)
        };
        out.extend_from_slice(&unknown.to_bytes());
        out.push(b'x');
        out.extend_from_slice(&Header::new(RecordType::EndRequest, 1, 8).to_bytes());
        out.extend_from_slice(&[0, 0, 0, 2, 0, 0, 0, 0]);
        out
    }

    fn read(pieces: &[&[u8]]) -> Vec<Record> {
        let mut records = Records::default();
        let mut all = Vec::new();
        for piece in pieces {
            records.push(piece);
            while let Some(record) = records.next_record().expect("these are records") {
                all.push(record);
            }
        }
        assert!(records.is_between());
        all
    }

    #[test]
    fn split_at_every_byte_the_records_are_the_same() {
        let bytes = bytes();
        let whole = read(&[&bytes]);
        let kinds: Vec<_> = whole.iter().map(|one| one.header.kind).collect();
        assert_eq!(kinds, [1, 6, 6, 77, 3]);
        assert_eq!(whole[1].content, "hello");
        assert_eq!(
            Begin::read(&whole[0].content),
            Ok(Begin {
                role: 1,
                keep_conn: true
            })
        );
        let end = End::read(&whole[4].content).expect("an end");
        assert_eq!(end.app_status, 2);
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(read(&[a, b]), whole, "split at {at}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(read(&single), whole);
    }

    #[test]
    fn what_is_no_record_is_said() {
        let mut records = Records::default();
        records.push(b"HTTP/1.1 200 OK\r\n");
        assert_eq!(records.next_record(), Err(Fault::WrongVersion));
        assert_eq!(Begin::read(b"short"), Err(Fault::BadLength));
        assert_eq!(
            End::read(&[0, 0, 0, 0, 9, 0, 0, 0]),
            Err(Fault::UnknownProtocolStatus)
        );
    }
}
