//! Talking to a running server through its admin socket: HTTP over a Unix socket, one request.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_config::Address;

use crate::control::admin::default_path;

/// More than this no answer has: metrics of 10,000 sites are a few megabytes.
const MAX_ANSWER: u64 = 64 << 20;

/// The head of an answer that goes on, and one line of it.
const MAX_HEAD: usize = 16 << 10;
const MAX_LINE: u64 = 16 << 10;

/// Where the server listens for commands.
#[derive(clap::Args)]
pub struct Admin {
    /// The server's admin socket, as its configuration names it in `server { admin = … }`
    ///
    /// [default: unix:/run/forebay.sock, or forebay.sock in $XDG_RUNTIME_DIR for other users than
    /// root; where nobody listens there the packaged service's, unix:/run/forebay/admin.sock]
    #[arg(long, value_name = "unix:PATH", value_parser = socket_path)]
    admin: Option<PathBuf>,
}

/// Where root's server listens, unless its configuration says otherwise.
const MACHINE: &str = "/run/forebay.sock";

/// Where the packaged service listens: its user may not write to /run.
const PACKAGED: &str = "/run/forebay/admin.sock";

/// What the server answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status of the HTTP response.
    pub status: u16,
    /// Its body.
    pub text: String,
}

impl Admin {
    /// Asks once. The error is for the person who asked and says what may help.
    ///
    /// `patience` is how long the server may be silent; none: for ever, as long as it lives.
    pub fn ask(
        &self,
        method: &str,
        target: &str,
        patience: Option<Duration>,
    ) -> Result<Answer, String> {
        let (path, stream) = self.reach()?;
        exchange(stream, method, target, patience)
            .map_err(plain)
            .map_err(|error| format!("no answer from unix:{}: {error}", path.display()))
    }

    /// Asks for something that goes on: what follows is its body, until the server or the caller
    /// ends it.
    pub fn follow(&self, target: &str) -> Result<BufReader<UnixStream>, String> {
        let (path, mut stream) = self.reach()?;
        let broken = |error| {
            let error = plain(error);
            format!("no answer from unix:{}: {error}", path.display())
        };
        let head = format!("GET {target} HTTP/1.1\r\nHost: forebay\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).map_err(broken)?;
        let mut from = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
            let read = from.by_ref().take(MAX_LINE).read_until(b'\n', &mut head);
            if read.map_err(broken)? == 0 {
                return Err(broken(cut()));
            }
        }
        if head.starts_with(b"HTTP/1.1 200 ") {
            return Ok(from);
        }
        let mut text = String::new();
        let read = from.take(MAX_LINE).read_to_string(&mut text);
        read.map_err(broken)?;
        Err(text.trim_end().to_owned())
    }

    fn reach(&self) -> Result<(&Path, UnixStream), String> {
        match &self.admin {
            Some(path) => Ok((path.as_path(), connect(path)?)),
            None => find([default_path(), Path::new(MACHINE), Path::new(PACKAGED)]),
        }
    }
}

fn socket_path(text: &str) -> Result<PathBuf, String> {
    let here = std::env::current_dir().unwrap_or_default();
    // A path alone is clear enough.
    let address = match text.starts_with(['/', '.']) {
        true => Address::parse(&format!("unix:{text}"), &here),
        false => Address::parse(text, &here),
    };
    match address {
        Some(Address::Unix(path)) => Ok(path),
        _ => Err("expected a Unix socket, as \"unix:/run/forebay.sock\"".to_owned()),
    }
}

fn connect(path: &Path) -> Result<UnixStream, String> {
    UnixStream::connect(path).map_err(|error| unreachable(path, &error))
}

/// The first of these where a server listens. One that is there and cannot be reached is an error
/// at once; if there is none, what is said is about the first.
fn find<const N: usize>(places: [&Path; N]) -> Result<(&Path, UnixStream), String> {
    let mut first = None;
    for path in places {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok((path, stream)),
            Err(error) if nobody(&error) => {
                first.get_or_insert_with(|| unreachable(path, &error));
            }
            Err(error) => return Err(unreachable(path, &error)),
        }
    }
    Err(first.unwrap_or_default())
}

fn nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

fn unreachable(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    let help = match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            "no server runs there; if its configuration has another `server { admin = … }`, name \
             it with --admin"
        }
        ErrorKind::PermissionDenied => {
            "only the user who started the server may use it: try it with `sudo`"
        }
        _ => "expected the socket that the server's configuration names in `server { admin = … }`",
    };
    format!("cannot reach unix:{path}: {error}\n{help}")
}

fn exchange(
    mut stream: UnixStream,
    method: &str,
    target: &str,
    patience: Option<Duration>,
) -> io::Result<Answer> {
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let head = format!("{method} {target} HTTP/1.1\r\nHost: forebay\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer) {
        Ok(_) => parse(&answer).ok_or_else(cut),
        // What a socket with a time limit says would be "Resource temporarily unavailable".
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            let waited = patience.unwrap_or_default().as_secs();
            Err(io::Error::other(format!(
                "it has been silent for {waited} s"
            )))
        }
        Err(error) => Err(error),
    }
}

/// A socket that breaks has several words for it.
fn plain(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => cut(),
        _ => error,
    }
}

fn cut() -> io::Error {
    io::Error::new(
        ErrorKind::UnexpectedEof,
        "it broke off; did the server end?",
    )
}

/// A whole response whose length is told, or nothing.
fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines
        .next()?
        .strip_prefix("HTTP/1.1 ")?
        .get(..3)?
        .parse()
        .ok()?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let (_, length) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = length.trim().parse().ok()?;
    (body.len() == length).then(|| Answer {
        status,
        text: String::from_utf8_lossy(body).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn answers_are_whole_or_none() {
        let parsed = |text: &str| parse(text.as_bytes()).map(|got| (got.status, got.text));
        let whole = "HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 3\r\n\r\nno\n";
        assert_eq!(parsed(whole), Some((422, "no\n".to_owned())));
        for cut in 0..whole.len() {
            assert_eq!(parsed(&whole[..cut]), None, "{cut}");
        }
        for strange in [
            "HTTP/1.1 200 OK\r\n\r\nno length",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ntoo much",
            "HTTP/1.1 2\r\nContent-Length: 0\r\n\r\n",
            "SSH-2.0\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert_eq!(parsed(strange), None, "{strange}");
        }
    }

    #[test]
    fn only_unix_sockets_are_asked() {
        for (text, path) in [
            ("unix:/run/a.sock", "/run/a.sock"),
            ("/run/a.sock", "/run/a.sock"),
            ("unix:/run/./b.sock", "/run/./b.sock"),
        ] {
            let got = socket_path(text).unwrap();
            assert_eq!(got, Path::new(path), "{text}");
        }
        for text in ["127.0.0.1:80", "unix:", "", "run"] {
            assert!(socket_path(text).is_err(), "{text}");
        }
    }

    fn ask(admin: &Path, patience: Duration) -> Result<Answer, String> {
        Admin {
            admin: Some(admin.to_owned()),
        }
        .ask("GET", "/status", Some(patience))
    }

    #[test]
    fn the_packaged_service_is_found_where_nobody_else_listens() {
        let dir = tempfile::tempdir().unwrap();
        let (usual, packaged) = (dir.path().join("usual"), dir.path().join("packaged"));
        let found = || find([&usual, &packaged]).map(|(path, _)| path.to_owned());
        let error = found().unwrap_err();
        assert!(error.contains("/usual: "), "{error}");
        let service = UnixListener::bind(&packaged).unwrap();
        assert_eq!(found(), Ok(packaged.clone()));
        // What a server that was killed has left behind.
        drop(UnixListener::bind(&usual).unwrap());
        assert_eq!(found(), Ok(packaged.clone()));
        std::fs::remove_file(&usual).unwrap();
        let _other = UnixListener::bind(&usual).unwrap();
        assert_eq!(found(), Ok(usual.clone()));
        drop(service);
    }

    #[test]
    fn what_does_not_answer_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let error = ask(&path, Duration::from_secs(1)).unwrap_err();
        assert!(
            error.contains("admin.sock") && error.contains("--admin"),
            "{error}"
        );
        let silent = UnixListener::bind(&path).unwrap();
        let error = ask(&path, Duration::from_millis(20)).unwrap_err();
        assert!(error.contains("silent"), "{error}");
        let ending = std::thread::spawn(move || drop((silent.accept(), silent.accept())));
        let error = ask(&path, Duration::from_secs(10)).unwrap_err();
        assert!(error.contains("did the server end"), "{error}");
        ending.join().unwrap();
    }
}
