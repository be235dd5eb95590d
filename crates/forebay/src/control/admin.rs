//! The admin socket: HTTP and JSON on a Unix socket that only the server's own user may use.
//!
//! It is served by the control plane, so it answers when every worker is busy; and a descriptor is kept
//! for it, so it answers when there is none left.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | JSON |
//! | `GET /metrics` | Prometheus text |
//! | `GET /log`, `POST /log/LEVEL` | the level of the error log |
//! | `POST /reload` | 200 and a summary, or 422 and the mistakes |
//! | `POST /upstream?name=…&peer=…&state=…` | 200, or 422 and what is wrong |
//! | `GET /cached?url=…` | JSON: what is stored under this URL, or 422 and what is wrong |
//! | `POST /purge?url=…` (or `prefix`, `host`, `tag`, `all`; with `soft`, `store`) | JSON, or 422 and what is wrong |
//! | `GET /trace` | what is said to FastCGI applications, until the client leaves; or 422 and why not |
//! | `POST /stop` | 200 once everything under way has ended |

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::BytesMut;
use forebay_config::Address;
use forebay_http1::{HeadParser, Limits, Method, Progress, RequestHead, write_status_line};
use forebay_sys::net::{UnixOptions, bind_unix, is_exhausted};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};

use super::declarations::Server;
use super::orders::Order;
use super::purge::{self, NotDone, Purge};
use super::server::{Command, Commands};
use crate::exchange::query_pairs;
use crate::log::{self, Throttle};
use crate::steps::cache::{live, now};
use crate::trace::{self, Watching};

/// At most this many admin connections at once; more wait.
const MAX_CLIENTS: usize = 32;

/// The file, where nobody has given another.
const NAME: &str = "forebay.sock";

/// A client that says nothing for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bound socket; its file is removed when the server ends.
pub struct Socket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody else may have removed or replaced it; nothing is lost.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Where the admin socket is unless the configuration says otherwise. It stays there: the process
/// may become another user later.
pub fn default_path() -> &'static Path {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        default_path_of(rustix::process::geteuid().is_root(), own)
    });
    &PATH
}

/// What root starts is the machine's; of others each has a directory of their own, and `/run`
/// cannot be written by them.
fn default_path_of(root: bool, own: Option<PathBuf>) -> PathBuf {
    match own {
        Some(own) if !root && own.is_absolute() => own.join(NAME),
        _ => Path::new("/run").join(NAME),
    }
}

/// Binds the admin socket. Where nobody has asked for one, a directory that cannot be written to
/// is no reason not to start.
pub fn bind(server: &Server) -> Result<Option<Socket>, String> {
    let Address::Unix(path) = &server.admin else {
        return Err(format!(
            "`admin` cannot be `{}`: only a Unix socket is built yet, \"unix:/run/forebay.sock\"",
            server.admin
        ));
    };
    let options = UnixOptions {
        mode: 0o600,
        ..UnixOptions::default()
    };
    match bind_unix(path, &options) {
        Ok(listener) => Ok(Some(Socket {
            listener,
            path: path.clone(),
        })),
        Err(error) if server.admin_is_set => Err(error.to_string()),
        Err(error) => {
            tracing::warn!("no admin socket: {error}; set `server {{ admin = \"unix:…\" }}`");
            Ok(None)
        }
    }
}

/// Answers on the admin socket until the runtime ends.
pub async fn serve(socket: Socket, commands: Commands) {
    let listener = match socket.listener.try_clone().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin socket cannot be served");
            return;
        }
    };
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    let spare = Arc::new(Mutex::new(spare()));
    loop {
        let Ok(place) = clients.clone().acquire_owned().await else {
            return;
        };
        let mut accepted = listener.accept().await;
        if accepted.as_ref().is_err_and(is_exhausted) && spare.lock().take().is_some() {
            accepted = listener.accept().await;
        }
        match accepted {
            Ok((stream, _)) => {
                let (commands, spare) = (commands.clone(), spare.clone());
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = answer(stream, &commands).await {
                        tracing::debug!(%error, "an admin client left");
                    }
                    // Its descriptor is free now, for the next one.
                    let mut spare = spare.lock();
                    if spare.is_none() {
                        *spare = self::spare();
                    }
                });
            }
            Err(error) => {
                static LOG: Throttle = Throttle::new();
                if let Some(dropped) = LOG.pass() {
                    tracing::warn!(%error, dropped, "the admin socket cannot accept; trying again");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A descriptor to be given up for a client when there is no other.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

async fn answer(mut stream: UnixStream, commands: &Commands) -> std::io::Result<()> {
    let head = match tokio::time::timeout(PATIENCE, read_head(&mut stream)).await {
        Ok(Ok(Some(head))) => head,
        Ok(Ok(None)) | Err(_) => return Ok(()),
        Ok(Err(error)) => return Err(error),
    };
    if (head.method, head.target()) == (Method::Get, "/trace") {
        return match trace::watch() {
            Ok(watching) => follow(stream, watching).await,
            Err(why) => write_answer(stream, 422, TEXT, why.sentence()).await,
        };
    }
    let (status, kind, body) = match (head.method, head.target()) {
        (Method::Get, "/status") => match ask(commands, Command::Status).await {
            Some(status) => (200, JSON, format!("{status:#}\n")),
            None => gone(),
        },
        (Method::Get, "/metrics") => match ask(commands, Command::Metrics).await {
            Some(text) => (200, "text/plain; version=0.0.4", text),
            None => gone(),
        },
        (Method::Post, "/reload") => match ask(commands, Command::Reload).await {
            Some(Ok(summary)) => (200, TEXT, format!("{summary}\n")),
            Some(Err(mistakes)) => (422, TEXT, mistakes),
            None => gone(),
        },
        // Nothing of the server is touched, so it need not be asked.
        (Method::Get, "/log") => (200, TEXT, format!("{}\n", log::level())),
        (Method::Post, target) if level_in(target).is_some() => {
            let level = level_in(target).unwrap_or_default();
            let before = log::level();
            log::set_level(level);
            (200, TEXT, format!("{level}, was {before}\n"))
        }
        (Method::Post, target) if target.starts_with("/upstream?") => order(target, commands).await,
        (Method::Get, target) if target.starts_with("/cached?") => cached(target, commands).await,
        (Method::Post, target) if target.starts_with("/purge?") => purged(target, commands).await,
        (Method::Post, "/stop") => {
            // Ends with the process at the latest.
            ask(commands, Command::Stop).await;
            (200, TEXT, "stopped\n".to_owned())
        }
        _ => {
            let known = "GET /status, GET /metrics, GET /log, POST /log/LEVEL, POST /reload, \
                         GET /cached?url=…, GET /trace, POST /upstream?name=…&peer=…&state=…, POST /purge?url=…, POST /stop\n";
            (404, TEXT, format!("unknown request; there are {known}"))
        }
    };
    write_answer(stream, status, kind, &body).await
}

async fn write_answer(
    mut stream: UnixStream,
    status: u16,
    kind: &str,
    body: &str,
) -> std::io::Result<()> {
    let mut out = Vec::with_capacity(body.len() + 128);
    write_status_line(&mut out, status, None);
    out.extend_from_slice(
        format!(
            "Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    out.extend_from_slice(body.as_bytes());
    tokio::time::timeout(PATIENCE, stream.write_all(&out))
        .await
        .unwrap_or(Ok(()))
}

/// Tells what passes until the client leaves. One that reads slowly misses some, and is told so.
async fn follow(mut stream: UnixStream, mut watching: Watching) -> std::io::Result<()> {
    let mut out = Vec::new();
    write_status_line(&mut out, 200, None);
    out.extend_from_slice(b"Content-Type: application/octet-stream\r\nConnection: close\r\n\r\n");
    out.extend_from_slice(&trace::MAGIC);
    stream.write_all(&out).await?;
    let (mut from, mut to) = stream.split();
    let mut nothing = [0; 1];
    loop {
        out.clear();
        tokio::select! {
            frames = watching.next() => {
                for frame in frames {
                    frame.write(&mut out)?;
                }
            }
            // It has nothing more to say, so this is its end.
            _ = from.read(&mut nothing) => return Ok(()),
        }
        tokio::select! {
            written = to.write_all(&out) => written?,
            _ = from.read(&mut nothing) => return Ok(()),
        }
    }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The level that the target of a request names.
fn level_in(target: &str) -> Option<&'static str> {
    let name = target.strip_prefix("/log/")?;
    log::LEVELS.into_iter().find(|level| *level == name)
}

/// What became of an order.
async fn order(target: &str, commands: &Commands) -> (u16, &'static str, String) {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let Some(order) = Order::parse(query) else {
        let usage = "expected ?name=UPSTREAM&peer=PEER&state=drain, down or up\n";
        return (400, TEXT, usage.to_owned());
    };
    match ask(commands, |told| Command::Order(order, told)).await {
        Some(Ok(done)) => (200, TEXT, format!("{done}\n")),
        Some(Err(wrong)) => (422, TEXT, format!("{wrong}\n")),
        None => gone(),
    }
}

/// What is stored under a URL, and what is on its way.
async fn cached(target: &str, commands: &Commands) -> (u16, &'static str, String) {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let mut pairs = query_pairs(query);
    let Some((_, url)) = pairs.find(|(name, _)| **name == *b"url") else {
        return (400, TEXT, "expected ?url=URL\n".to_owned());
    };
    let urls = match purge::urls(&String::from_utf8_lossy(&url), false) {
        Ok(urls) => urls,
        Err(wrong) => return (422, TEXT, format!("{wrong}\n")),
    };
    let Some(snapshot) = ask(commands, Command::Snapshot).await else {
        return gone();
    };
    let look = move || {
        let caches = &snapshot.caches;
        let keyed = urls.iter().map(|url| purge::keyed(url, &caches.queries));
        let wanted: Vec<Vec<u8>> = keyed.flatten().collect();
        serde_json::to_string_pretty(&live::look(caches, &wanted, now()))
    };
    // It may wait for a disk.
    match tokio::task::spawn_blocking(look).await {
        Ok(Ok(found)) => (200, JSON, format!("{found}\n")),
        Ok(Err(error)) => (500, TEXT, format!("{error}\n")),
        Err(error) => (500, TEXT, format!("{error}\n")),
    }
}

/// What a purge came to.
async fn purged(target: &str, commands: &Commands) -> (u16, &'static str, String) {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let purge = match Purge::parse(query) {
        Ok(purge) => purge,
        Err(usage) => return (400, TEXT, format!("{usage}\n")),
    };
    match ask(commands, |told| Command::Purge(purge, told)).await {
        Some(Ok(done)) => (200, JSON, format!("{done:#}\n")),
        Some(Err(NotDone::Mistake(wrong))) => (422, TEXT, format!("{wrong}\n")),
        Some(Err(NotDone::NotWritten(wrong))) => (500, TEXT, format!("{wrong}\n")),
        None => gone(),
    }
}

fn gone() -> (u16, &'static str, String) {
    (503, TEXT, "the server is stopping\n".to_owned())
}

async fn ask<T>(
    commands: &Commands,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    commands.send(command(answer)).await.ok()?;
    answered.await.ok()
}

/// The head of the one request of a connection; its body, if any, is of no interest.
async fn read_head(stream: &mut UnixStream) -> std::io::Result<Option<RequestHead>> {
    let limits = Limits::default();
    let (mut parser, mut head) = (HeadParser::default(), RequestHead::default());
    let mut input = BytesMut::with_capacity(1024);
    loop {
        match parser.request(&mut input, &limits, &mut head) {
            Ok(Progress::Complete) => return Ok(Some(head)),
            Ok(Progress::Partial) => {}
            Err(error) => {
                stream
                    .write_all(forebay_http1::canned_response(error.status()))
                    .await?;
                return Ok(None);
            }
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_the_machines_or_the_users() {
        let of = |root, own: Option<&str>| default_path_of(root, own.map(PathBuf::from));
        for (root, own, want) in [
            (true, None, "/run/forebay.sock"),
            (true, Some("/run/user/0"), "/run/forebay.sock"),
            (false, Some("/run/user/7"), "/run/user/7/forebay.sock"),
            (false, Some("elsewhere"), "/run/forebay.sock"),
            (false, None, "/run/forebay.sock"),
        ] {
            assert_eq!(of(root, own), Path::new(want), "{root} {own:?}");
        }
    }
}
