//! What the control plane itself asks of other servers: one request on a connection of its own.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use forebay_fastcgi::{Client, ClientEvent};
use forebay_http1::{
    BodyDecoder, Framing, HeadParser, Limits, Method, Part, Progress, ResponseHead,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::transport::Transport;

/// One address of a name that does not answer leaves time for the others.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// A GET to be sent.
pub struct Question<'a> {
    /// Path and query.
    pub target: &'a str,
    /// The Host field.
    pub host: &'a str,
    /// What the server's log shall show of who asks.
    pub agent: &'a str,
    /// The media types that are understood.
    pub accept: &'a str,
}

/// An answer whose body has not been read yet.
pub struct Answer {
    io: Stream,
    head: ResponseHead,
    input: BytesMut,
}

/// The body of an answer.
pub struct Body {
    /// Its bytes, or the first of them.
    pub bytes: Vec<u8>,
    /// Whether these are all.
    pub is_whole: bool,
}

impl Question<'_> {
    /// Asks. There is no limit of time: who calls has one.
    pub async fn ask(&self, io: Transport) -> Result<Answer, String> {
        let mut io = Stream(io);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Forebay ({})\r\nAccept: {}\r\n\
             Accept-Encoding: identity\r\nConnection: close\r\n\r\n",
            self.target, self.host, self.agent, self.accept
        );
        io.write_all(request.as_bytes()).await.map_err(said)?;
        let (head, input) = read_head(&mut io).await?;
        Ok(Answer { io, head, input })
    }
}

impl Answer {
    /// Its status; never an interim one.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Reads the body, up to so many bytes of it.
    pub async fn body(&mut self, most: usize) -> Result<Body, String> {
        let mut decoder = BodyDecoder::new(self.head.framing, &Limits::default());
        let mut bytes = Vec::new();
        let whole = |bytes| {
            Ok(Body {
                bytes,
                is_whole: true,
            })
        };
        loop {
            match decoder.decode(&mut self.input) {
                Ok(Part::Data(data)) if data.len() > most - bytes.len() => {
                    bytes.extend_from_slice(&data.chunk()[..most - bytes.len()]);
                    return Ok(Body {
                        bytes,
                        is_whole: false,
                    });
                }
                Ok(Part::Data(data)) => bytes.extend_from_slice(data.chunk()),
                Ok(Part::End) => return whole(bytes),
                Ok(Part::NeedMore) => {
                    let ends_with_connection = self.head.framing == Framing::UntilClose;
                    match self.io.read_buf(&mut self.input).await.map_err(said)? {
                        0 if ends_with_connection => return whole(bytes),
                        0 => return Err("its answer was cut short".to_owned()),
                        _ => {}
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Connects to the first of these that can be reached.
pub async fn connect(addresses: &[SocketAddr]) -> io::Result<Transport> {
    let mut last = io::Error::other("its name has no address");
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIME, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(Transport::Tcp(stream)),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::other(format!("no connection within {CONNECT_TIME:?}")),
        }
    }
    Err(last)
}

/// Asks a FastCGI application for its values (FastCGI 1.0 §4.1), which every one answers; whatever
/// it says of itself, it is there. There is no limit of time: who calls has one.
pub async fn values(io: Transport) -> Result<(), String> {
    let mut io = Stream(io);
    let mut client = Client::new(forebay_fastcgi::Limits::default());
    let mut out = Vec::new();
    client
        .get_values(&mut out)
        .map_err(|error| error.to_string())?;
    io.write_all(&out).await.map_err(said)?;
    let mut input = BytesMut::with_capacity(4096);
    loop {
        match client.poll(&mut input) {
            Ok(ClientEvent::Values(_) | ClientEvent::UnknownType(_)) => return Ok(()),
            // A record of values has a limit of its own.
            Ok(ClientEvent::NeedMore) => {
                if io.read_buf(&mut input).await.map_err(said)? == 0 {
                    return Err("it closed the connection without an answer".to_owned());
                }
            }
            Ok(_) => return Err("it answers what was not asked".to_owned()),
            Err(fault) => return Err(fault.sentence().to_owned()),
        }
    }
}

/// An error as a sentence.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub fn said(error: io::Error) -> String {
    error.to_string()
}

/// A connection as the runtime's helpers want it. What is asked here is asked rarely: a copy of
/// what is read is nothing.
struct Stream(Transport);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut read = BytesMut::with_capacity(buf.remaining().min(4096));
        ready!(self.0.poll_read(cx, &mut read))?;
        buf.put_slice(&read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bytes, false)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown())
    }
}

async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> Result<(ResponseHead, BytesMut), String> {
    let limits = Limits::default();
    let (mut parser, mut head) = (HeadParser::default(), ResponseHead::new());
    let mut input = BytesMut::with_capacity(4096);
    loop {
        match parser.response(&mut input, &limits, &Method::Get, &mut head) {
            Ok(Progress::Complete) if head.is_interim() => parser = HeadParser::default(),
            Ok(Progress::Complete) => return Ok((head, input)),
            // The parser has a limit of its own for what it waits for.
            Ok(Progress::Partial) => {
                if io.read_buf(&mut input).await.map_err(said)? == 0 {
                    return Err("it closed the connection without an answer".to_owned());
                }
            }
            Err(error) => return Err(error.sentence().to_owned()),
        }
    }
}
