//! A tap: stands between a web server and its application, passes on what they say, and has it
//! told. What it passes on never depends on what is understood of it.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use forebay_config::{Address, Endpoint, Target};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendTimeoutError;

use crate::trace::{Frame, Passed, Who, now};

/// Bytes that are read at once.
const PIECE: usize = 16 * 1024;
/// How long what passes waits for who shows it, before it goes on unseen.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long an application may take to accept.
const CONNECT: Duration = Duration::from_secs(5);
/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;

/// Both sides of a stream, whatever it is.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}
type Boxed = Box<dyn Stream>;

/// Where it listens.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, to be removed at the end.
    Unix(UnixListener, PathBuf),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            // Whoever removed it before has done the same.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listener {
    /// Listens. A Unix socket gets the owner and mode of the application's, so that who may
    /// connect there may connect here; if that is no Unix socket, mode 0660.
    ///
    /// # Errors
    /// In a sentence.
    pub async fn bind(at: &Address, like: &Endpoint) -> Result<Self, String> {
        let wrong = |error: io::Error| format!("cannot listen on {at}: {error}");
        match at {
            Address::Port(port) => {
                let any = std::net::Ipv6Addr::UNSPECIFIED;
                let listener = TcpListener::bind((any, *port)).await.map_err(wrong)?;
                Ok(Self::Tcp(listener))
            }
            Address::Socket(at) => Ok(Self::Tcp(TcpListener::bind(at).await.map_err(wrong)?)),
            Address::Unix(path) => {
                let listener = UnixListener::bind(path).map_err(wrong)?;
                let listener = Self::Unix(listener, path.clone());
                let like = match like {
                    Endpoint::Unix(like) => std::fs::metadata(like).ok(),
                    _ => None,
                };
                open_to(path, like.as_ref()).map_err(wrong)?;
                Ok(listener)
            }
            Address::Fd(_) => Err("the tap listens on an address or a Unix socket".to_owned()),
        }
    }

    /// Where it listens in fact: a port of 0 has become one.
    pub fn local(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|error| error.to_string(), |at| at.to_string()),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    async fn accept(&self) -> io::Result<(Boxed, String)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // What comes in small pieces is passed on in small pieces.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), from.to_string()))
            }
            Self::Unix(listener, path) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), format!("unix:{}", path.display())))
            }
        }
    }
}

fn open_to(path: &Path, like: Option<&std::fs::Metadata>) -> io::Result<()> {
    let mode = like.map_or(0o660, |like| like.mode() & 0o777);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if let Some(like) = like {
        // Only root can; for anybody else it is his own, as it was.
        let _ = chown(path, Some(like.uid()), Some(like.gid()));
    }
    Ok(())
}

/// Accepts and passes on, until the future is dropped.
pub async fn run(listener: Listener, to: Target, frames: Sender<Frame>) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    let to = std::rc::Rc::new(to);
    let mut number = 0;
    loop {
        let place = std::sync::Arc::clone(&places).acquire_owned().await;
        let (server, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("forebay: cannot accept a connection: {error}");
                // Not in a tight loop: there may be no descriptor left.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        number += 1;
        let tell = Tell {
            connection: number,
            frames: frames.clone(),
            behind: std::cell::Cell::new(false),
        };
        let to = std::rc::Rc::clone(&to);
        tokio::task::spawn_local(async move {
            let _place = place;
            between(server, &from, &to, &tell).await;
        });
    }
}

async fn between(mut server: Boxed, from: &str, to: &Target, tell: &Tell) {
    tell.tell(Passed::Opened(format!("{from} to {}", to.text)))
        .await;
    match tokio::time::timeout(CONNECT, connect(&to.to)).await {
        Ok(Ok(mut application)) => {
            let (server_in, server_out) = tokio::io::split(&mut server);
            let (app_in, app_out) = tokio::io::split(&mut application);
            tokio::join!(
                pass(server_in, app_out, Who::Server, tell),
                pass(app_in, server_out, Who::Application, tell),
            );
        }
        Ok(Err(error)) => tell.gap(format!("cannot reach {}: {error}", to.text)).await,
        Err(_) => tell.gap(format!("{} does not accept", to.text)).await,
    }
    tell.closed().await;
}

async fn connect(to: &Endpoint) -> io::Result<Boxed> {
    let tcp = match to {
        Endpoint::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        Endpoint::Socket(address) => TcpStream::connect(address).await?,
        Endpoint::Name(name, port) => TcpStream::connect((name.as_ref(), *port)).await?,
        Endpoint::Srv(_) | Endpoint::Variable(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    tcp.set_nodelay(true)?;
    Ok(Box::new(tcp))
}

/// Passes on until the sender's end, and that too.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    who: Who,
    tell: &Tell,
) {
    let mut buf = vec![0; PIECE];
    loop {
        let len = match from.read(&mut buf).await {
            Ok(0) | Err(_) => break,
            Ok(len) => len,
        };
        let piece = buf.get(..len).unwrap_or_default();
        tell.tell(Passed::Bytes(who, Bytes::copy_from_slice(piece)))
            .await;
        if to.write_all(piece).await.is_err() {
            break;
        }
    }
    // The other direction goes on: an end of input is a half-close.
    let _ = to.shutdown().await;
}

/// Tells of one connection.
struct Tell {
    connection: u32,
    frames: Sender<Frame>,
    /// Bytes went on unseen.
    behind: std::cell::Cell<bool>,
}

impl Tell {
    /// Waits a moment if there is no room; then goes on without, for the rest of the connection:
    /// a trace must not hold up what it looks at, and a part of a record can't be understood.
    async fn tell(&self, what: Passed) {
        if self.behind.get() || self.send(what).await {
            return;
        }
        self.behind.set(true);
        eprintln!(
            "forebay: what connection #{} says goes on unseen: the output is read too slowly",
            self.connection
        );
    }

    async fn gap(&self, why: String) {
        self.tell(Passed::Gap(why)).await;
    }

    async fn closed(&self) {
        if self.behind.replace(false) {
            let why = "the output was read too slowly".to_owned();
            self.tell(Passed::Gap(why)).await;
        }
        self.tell(Passed::Closed).await;
    }

    async fn send(&self, what: Passed) -> bool {
        let frame = Frame {
            time: now(),
            connection: self.connection,
            what,
        };
        match self.frames.send_timeout(frame, PATIENCE).await {
            // Nobody is left to whom it could be told: the end is near.
            Ok(()) | Err(SendTimeoutError::Closed(_)) => true,
            Err(SendTimeoutError::Timeout(_)) => false,
        }
    }
}
