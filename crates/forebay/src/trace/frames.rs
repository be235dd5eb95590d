//! What passes, as it is kept in a file or sent by a running server: who sent which bytes, when.
//!
//! The file begins with [`MAGIC`]; then come frames, all numbers big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | microseconds since 1970 |
//! | 4 | number of the connection |
//! | 1 | 0: opened, 1: sent by the web server, 2: by the application, 3: bytes are missing from here on, 4: closed |
//! | 4 | how many bytes follow, at most 65,536 |
//! | … | the bytes; of a connection that is opened or has a gap, text that says more |

use std::io::{self, Read, Write};

use bytes::Bytes;

/// Microseconds since 1970.
pub type Time = u64;

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The web server.
    Server,
    /// The application.
    Application,
}

/// The first bytes, with the format's version.
pub const MAGIC: [u8; 8] = *b"FCGITRC1";
/// Bytes of one frame.
pub const MAX_LEN: usize = 64 * 1024;
const HEADER_LEN: usize = 17;

/// Something that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When.
    pub time: Time,
    /// On which connection.
    pub connection: u32,
    /// What.
    pub what: Passed,
}

/// What passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// A connection was opened; between whom.
    Opened(String),
    /// Bytes.
    Bytes(Who, Bytes),
    /// Bytes that are missing; why.
    Gap(String),
    /// The connection was closed.
    Closed,
}

impl Frame {
    /// Writes it.
    ///
    /// # Errors
    /// Of the writer.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (kind, bytes) = match &self.what {
            Passed::Opened(text) => (0, text.as_bytes()),
            Passed::Bytes(Who::Server, bytes) => (1, bytes.as_ref()),
            Passed::Bytes(Who::Application, bytes) => (2, bytes.as_ref()),
            Passed::Gap(text) => (3, text.as_bytes()),
            Passed::Closed => (4, &[][..]),
        };
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        to.write_all(&self.time.to_be_bytes())?;
        to.write_all(&self.connection.to_be_bytes())?;
        to.write_all(&[kind])?;
        to.write_all(&len.to_be_bytes())?;
        to.write_all(bytes)
    }

    /// Reads the next one; `None` at the end.
    ///
    /// # Errors
    /// Of the reader; or what comes is no frame, or a part of one.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER_LEN];
        match read_full(from, &mut header)? {
            0 => return Ok(None),
            HEADER_LEN => {}
            _ => return Err(wrong("it ends in the middle of a frame")),
        }
        let [
            t7,
            t6,
            t5,
            t4,
            t3,
            t2,
            t1,
            t0,
            c3,
            c2,
            c1,
            c0,
            kind,
            l3,
            l2,
            l1,
            l0,
        ] = header;
        let len = usize::try_from(u32::from_be_bytes([l3, l2, l1, l0])).unwrap_or(usize::MAX);
        if len > MAX_LEN {
            return Err(wrong("a frame is longer than frames are"));
        }
        let mut bytes = vec![0; len];
        if read_full(from, &mut bytes)? < len {
            return Err(wrong("it ends in the middle of a frame"));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let what = match kind {
            0 => Passed::Opened(text(&bytes)),
            1 => Passed::Bytes(Who::Server, bytes.into()),
            2 => Passed::Bytes(Who::Application, bytes.into()),
            3 => Passed::Gap(text(&bytes)),
            4 => Passed::Closed,
            _ => return Err(wrong("a frame has an unknown kind")),
        };
        Ok(Some(Self {
            time: u64::from_be_bytes([t7, t6, t5, t4, t3, t2, t1, t0]),
            connection: u32::from_be_bytes([c3, c2, c1, c0]),
            what,
        }))
    }
}

/// Fills `buf`, unless the end comes before; how much there is.
pub fn read_full(from: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were_written() {
        let frame = |what| Frame {
            time: 1 << 50,
            connection: 3,
            what,
        };
        let frames = [
            frame(Passed::Opened("a to b".to_owned())),
            frame(Passed::Bytes(Who::Server, Bytes::from_static(b"\x01x"))),
            frame(Passed::Bytes(Who::Application, Bytes::new())),
            frame(Passed::Gap("slow".to_owned())),
            frame(Passed::Closed),
        ];
        let mut file = Vec::new();
        for frame in &frames {
            frame.write(&mut file).expect("written");
        }
        let mut rest = file.as_slice();
        let mut read = Vec::new();
        while let Some(frame) = Frame::read(&mut rest).expect("a frame") {
            read.push(frame);
        }
        assert_eq!(read, frames);
        for cut in 1..file.len() {
            let mut rest = &file[..cut];
            let last = loop {
                match Frame::read(&mut rest) {
                    Ok(Some(_)) => {}
                    last => break last,
                }
            };
            let whole = file.len() - rest.len();
            assert!(
                last.is_err() || rest.is_empty(),
                "cut at {cut}, {whole} read"
            );
        }
    }

    #[test]
    fn a_frame_of_any_length_is_refused() {
        let mut bytes = [0; HEADER_LEN];
        bytes[13] = 0xff;
        assert!(Frame::read(&mut bytes.as_slice()).is_err());
    }
}
