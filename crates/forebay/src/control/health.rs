//! Active health checks: one task per peer, once per process.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use forebay_balance::{Health as State, HealthCounter, Tick, hash_key};
use forebay_http1::{
    BodyDecoder, Framing, HeadParser, Limits, Method, Part, Progress, ResponseHead,
};
use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;

use crate::transport::Transport;
use crate::upstream::{Ask, Health, Place, Upstream};

/// Of an answer's body, so much is looked at.
const BODY_BYTES: usize = 64 * 1024;

/// The checks that run.
#[derive(Default)]
pub struct Checks {
    /// By the pool's number.
    running: FxHashMap<u64, Vec<AbortHandle>>,
}

impl Checks {
    /// Checks the peers of these upstreams and of no others. Those that stay go on as they are.
    pub fn watch(&mut self, upstreams: &[Arc<Upstream>]) {
        self.running.retain(|id, tasks| {
            let stays = upstreams.iter().any(|upstream| upstream.id == *id);
            if !stays {
                tasks.iter().for_each(AbortHandle::abort);
            }
            stays
        });
        for upstream in upstreams {
            let Some(health) = &upstream.definition.health else {
                continue;
            };
            self.running.entry(upstream.id).or_insert_with(|| {
                let task = |peer| {
                    let check = keep_checking(Arc::downgrade(upstream), peer, health.clone());
                    tokio::spawn(check).abort_handle()
                };
                (0..upstream.peers.len()).map(task).collect()
            });
        }
    }
}

async fn keep_checking(upstream: Weak<Upstream>, peer: usize, health: Health) {
    let mut counter = HealthCounter::new(health.up, health.down);
    // Not all at the same moment: each peer has its own place within the first interval. The very
    // first check comes at once, so that what is down at the start is soon known.
    let mut pause = spread(&upstream, peer, health.every);
    loop {
        let checked = {
            // Held for the check only: a pool that is gone ends its checks.
            let Some(upstream) = upstream.upgrade() else {
                return;
            };
            let check = check(&upstream, peer, &health);
            match tokio::time::timeout(health.timeout, check).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer within {:?}", health.timeout)),
            }
        };
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let changed = counter.handle_check(checked.is_ok());
        if let Some(state) = changed {
            let now = Tick::from_millis(forebay_sys::clock::coarse_ms());
            upstream.pool.set_down(peer, state == State::Down, now);
            let (upstream, peer) = (&*upstream.definition.name, &*upstream.peers[peer].label);
            match checked {
                Ok(()) => tracing::info!(upstream, peer, "the peer is up: its checks pass"),
                Err(why) => {
                    tracing::warn!(upstream, peer, why, "the peer is down: its checks fail")
                }
            }
        }
        drop(upstream);
        tokio::time::sleep(pause).await;
        pause = health.every;
    }
}

fn spread(upstream: &Weak<Upstream>, peer: usize, every: Duration) -> Duration {
    let Some(upstream) = upstream.upgrade() else {
        return every;
    };
    let hash = hash_key(upstream.peers[peer].label.as_bytes());
    let part = u32::try_from(hash % 1_000).unwrap_or(0) + 1;
    every * part / 1_000
}

/// One check; the error says what was wrong.
async fn check(upstream: &Upstream, peer: usize, health: &Health) -> Result<(), String> {
    let peer = &upstream.peers[peer];
    let (io, label) = match &peer.place {
        Place::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(said)?;
            (Transport::Unix(stream), "localhost")
        }
        Place::Address(address) => (connect(&[*address]).await?, host_of(&peer.label)),
        Place::Name(..) => {
            let addresses = peer.addresses.load_full();
            (connect(&addresses).await?, host_of(&peer.label))
        }
    };
    let Some(asked) = &health.ask else {
        return Ok(());
    };
    let io = upstream.secure_check(peer, io, asked.host.as_deref());
    ask(Stream(io.await.map_err(said)?), asked, label).await
}

/// What a target's text says of who it is.
fn host_of(label: &str) -> &str {
    label.split_once("://").map_or(label, |(_, host)| host)
}

async fn connect(addresses: &[SocketAddr]) -> Result<Transport, String> {
    let mut last = "its name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(Transport::Tcp(stream)),
            Err(error) => last = said(error),
        }
    }
    Err(last)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn said(error: io::Error) -> String {
    error.to_string()
}

/// Asks, and looks at the answer.
async fn ask(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    ask: &Ask,
    label: &str,
) -> Result<(), String> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Forebay (health check)\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        ask.path,
        ask.host.as_deref().unwrap_or(label)
    );
    io.write_all(request.as_bytes()).await.map_err(said)?;
    let (head, mut rest) = read_head(&mut io).await?;
    if !ask.status.iter().any(|status| status.matches(head.status)) {
        return Err(format!("it answers with status {}", head.status));
    }
    let Some(wanted) = &ask.body else {
        return Ok(());
    };
    let body = read_body(&mut io, &head, &mut rest).await?;
    if wanted.matches(&body) {
        Ok(())
    } else {
        Err("the body of its answer does not match".to_owned())
    }
}

/// A connection as the runtime's helpers want it. A check is rare: a copy of what it reads is
/// nothing.
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

/// The body, as much of it as is looked at.
async fn read_body(
    io: &mut (impl AsyncRead + Unpin),
    head: &ResponseHead,
    input: &mut BytesMut,
) -> Result<Vec<u8>, String> {
    let mut decoder = BodyDecoder::new(head.framing, &Limits::default());
    let mut body = Vec::new();
    loop {
        match decoder.decode(input) {
            Ok(Part::Data(mut data)) => {
                let room = BODY_BYTES - body.len();
                data.truncate(room);
                body.extend_from_slice(data.chunk());
                if body.len() == BODY_BYTES {
                    return Ok(body);
                }
            }
            Ok(Part::End) => return Ok(body),
            Ok(Part::NeedMore) => {
                let ends_with_connection = head.framing == Framing::UntilClose;
                match io.read_buf(input).await.map_err(said)? {
                    0 if ends_with_connection => return Ok(body),
                    0 => return Err("its answer was cut short".to_owned()),
                    _ => {}
                }
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
