//! A php-fpm of the test's own, and an application that speaks FastCGI byte by byte.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use crate::fcgi::record;
use crate::journal::{Journal, escape};
use crate::wait::{self, PATIENCE};

/// A running php-fpm; it is ended when dropped. `app/` in its directory is where its scripts are.
pub struct PhpFpm {
    child: Option<Child>,
    dir: TempDir,
    /// Whether the settings of the system hold, which name all extensions.
    extended: bool,
}

impl PhpFpm {
    /// Starts php-fpm with so many processes and these scripts.
    ///
    /// # Panics
    /// When it is not installed (the message names the package) or does not start.
    #[must_use]
    pub fn start(children: usize, scripts: &[(&str, &str)]) -> Self {
        Self::start_with(children, "", scripts)
    }

    /// The same with these lines in the configuration of its pool.
    ///
    /// # Panics
    /// See [`PhpFpm::start`].
    #[must_use]
    pub fn start_with(children: usize, pool: &str, scripts: &[(&str, &str)]) -> Self {
        Self::make(children, pool, scripts, false)
    }

    /// One with all extensions that are installed.
    ///
    /// # Panics
    /// See [`PhpFpm::start`].
    #[must_use]
    pub fn start_extended(children: usize) -> Self {
        Self::make(children, "", &[], true)
    }

    fn make(children: usize, pool: &str, scripts: &[(&str, &str)], extended: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-php-")
            .tempdir()
            .expect("a directory");
        let mode = std::fs::Permissions::from_mode(0o777);
        let app = dir.path().join("app");
        std::fs::create_dir(&app).expect("a directory");
        // Its processes are another user's.
        for dir in [dir.path(), &app] {
            std::fs::set_permissions(dir, mode.clone()).expect("permissions");
        }
        let root = dir.path().display();
        let mut config = format!(
            "[global]\nerror_log = {root}/fpm.log\nlog_level = warning\n\
             [app]\nlisten = {root}/fpm.sock\nlisten.mode = 0666\nlisten.backlog = 511\n\
             pm = static\npm.max_children = {children}\n\
             php_admin_value[upload_max_filesize] = 200M\nphp_admin_value[post_max_size] = 200M\n\
             php_admin_value[upload_tmp_dir] = {root}\nphp_admin_value[display_errors] = 0\n"
        );
        if rustix::process::geteuid().is_root() {
            config.push_str("user = www-data\ngroup = www-data\n");
        }
        writeln!(config, "{pool}").expect("a text");
        std::fs::write(dir.path().join("fpm.conf"), config).expect("a configuration");
        let mut fpm = Self {
            child: None,
            dir,
            extended,
        };
        for (path, text) in scripts {
            fpm.file(path, text);
        }
        fpm.run();
        fpm
    }

    /// Starts it, again if it was stopped.
    ///
    /// # Panics
    /// When it does not start.
    pub fn run(&mut self) {
        let mut command = Command::new(program());
        if !self.extended {
            command.arg("--no-php-ini");
        }
        let child = command
            .args(["--nodaemonize", "--fpm-config"])
            .arg(self.dir.path().join("fpm.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("php-fpm, of the Debian package php-fpm: {e}"));
        self.child = Some(child);
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            let log =
                || std::fs::read_to_string(self.dir.path().join("fpm.log")).unwrap_or_default();
            assert!(Instant::now() < end, "php-fpm does not listen:\n{}", log());
            std::thread::sleep(Duration::from_millis(2));
        }
        Journal::current().note("php-fpm", "listens");
    }

    /// Ends it, as `systemctl stop` does.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = child.wait();
        let _ = std::fs::remove_file(self.socket());
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("fpm.sock")
    }

    /// What to write as a target in a configuration.
    #[must_use]
    pub fn target(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Where its scripts are.
    #[must_use]
    pub fn root(&self) -> String {
        self.dir.path().join("app").display().to_string()
    }

    /// Writes a file below its scripts' directory.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let at = self.dir.path().join("app").join(path);
        let above = at.parent().expect("a directory above");
        std::fs::create_dir_all(above).expect("a directory");
        std::fs::write(&at, text).expect("a file");
        at
    }
}

impl Drop for PhpFpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Debian names it by its version.
fn program() -> PathBuf {
    let dirs = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"];
    let mut found: Vec<PathBuf> = dirs
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("php-fpm"))
        })
        .collect();
    found.sort();
    found
        .pop()
        .expect("no php-fpm: install the Debian package php-fpm")
}

/// An application whose every byte the test sends and reads itself. Its reader of records is not the
/// server's own, on purpose.
pub struct App {
    listener: UnixListener,
    dir: TempDir,
}

/// One connection to it.
pub struct Asked {
    socket: UnixStream,
    pending: Vec<u8>,
    /// The id of the request that was read last.
    pub id: u16,
    /// The role that it is to be asked for.
    pub role: u8,
    /// Whether the connection is to be kept.
    pub keeps: bool,
    /// Its parameters, in order.
    pub params: Vec<(String, String)>,
}

/// A record: its type and content.
pub type Record = (u8, Vec<u8>);

impl App {
    /// Listens on a Unix socket of its own.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-app-")
            .tempdir()
            .expect("a directory");
        let listener = UnixListener::bind(dir.path().join("app.sock")).expect("a socket");
        Self { listener, dir }
    }

    /// What to write as a target in a configuration.
    #[must_use]
    pub fn target(&self) -> String {
        format!("unix:{}", self.dir.path().join("app.sock").display())
    }

    /// Takes the next connection and reads a request up to the end of its parameters.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    #[must_use]
    pub fn accept(&self) -> Asked {
        let mut asked = self.accept_silently();
        asked.read_params();
        asked
    }

    /// The same of a request for an Authorizer.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    #[must_use]
    pub fn accept_authorizer(&self) -> Asked {
        let mut asked = self.accept_silently();
        asked.role = 2;
        asked.read_params();
        asked
    }

    /// Takes the next connection.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    #[must_use]
    pub fn accept_silently(&self) -> Asked {
        self.listener.set_nonblocking(true).expect("non-blocking");
        let socket = wait::until_some("a connection to the application", || {
            self.listener.accept().ok()
        });
        let socket = socket.0;
        socket.set_nonblocking(false).expect("blocking");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Asked {
            socket,
            pending: Vec::new(),
            id: 0,
            role: 1,
            keeps: false,
            params: Vec::new(),
        }
    }
}

impl Asked {
    /// The next record; `None` where the connection ends.
    ///
    /// # Panics
    /// When it ends within a record, or nothing comes.
    #[track_caller]
    pub fn record(&mut self) -> Option<Record> {
        loop {
            if let Some(&[version, kind, id1, id0, len1, len0, padding, _]) = self.pending.get(..8)
            {
                assert_eq!(version, 1, "the version of a record");
                let len = usize::from(u16::from_be_bytes([len1, len0]));
                if self.pending.len() >= 8 + len + usize::from(padding) {
                    self.id = u16::from_be_bytes([id1, id0]);
                    let content = self.pending[8..8 + len].to_vec();
                    self.pending.drain(..8 + len + usize::from(padding));
                    return Some((kind, content));
                }
            }
            let mut buffer = [0; 65_536];
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    let left = escape(&self.pending);
                    assert!(self.pending.is_empty(), "the end within a record: {left}");
                    return None;
                }
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no record: {error}"),
            }
        }
    }

    /// Whether something more has come, or the end; `None` as long as neither has.
    pub fn goes_on(&mut self) -> Option<bool> {
        if !self.pending.is_empty() {
            return Some(true);
        }
        self.socket.set_nonblocking(true).expect("non-blocking");
        let mut buffer = [0; 4096];
        let read = self.socket.read(&mut buffer);
        self.socket.set_nonblocking(false).expect("blocking");
        match read {
            Ok(count) => {
                self.pending.extend_from_slice(&buffer[..count]);
                Some(count > 0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(_) => Some(false),
        }
    }

    /// Reads the beginning of a request and its parameters.
    ///
    /// # Panics
    /// When something else comes.
    #[track_caller]
    pub fn read_params(&mut self) {
        let (kind, begin) = self.record().expect("the beginning of a request");
        assert_eq!((kind, begin.len()), (1, 8), "BEGIN_REQUEST");
        assert_eq!(&begin[..2], [0, self.role], "the role");
        self.keeps = begin[2] & 1 == 1;
        let mut block = Vec::new();
        loop {
            let (kind, content) = self.record().expect("parameters");
            assert_eq!(kind, 4, "PARAMS");
            if content.is_empty() {
                break;
            }
            block.extend_from_slice(&content);
        }
        let mut rest = &block[..];
        self.params.clear();
        while !rest.is_empty() {
            let (name, value) = (length(&mut rest), length(&mut rest));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let pair = (text(&rest[..name]), text(&rest[name..name + value]));
            self.params.push(pair);
            rest = &rest[name + value..];
        }
    }

    /// The value of a parameter; there may be one of that name only.
    ///
    /// # Panics
    /// When there are two.
    #[track_caller]
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let mut named = self.params.iter().filter(|(its, _)| its == name);
        let value = named.next().map(|(_, value)| &**value);
        assert!(named.next().is_none(), "{name} is there twice");
        value
    }

    /// Reads the request's body to its end.
    ///
    /// # Panics
    /// When something else comes.
    #[track_caller]
    pub fn read_stdin(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let (kind, content) = self.record().expect("a body");
            assert_eq!(kind, 5, "STDIN");
            if content.is_empty() {
                return body;
            }
            body.extend_from_slice(&content);
        }
    }

    /// Sends a record.
    ///
    /// # Panics
    /// When it is not taken.
    #[track_caller]
    pub fn send(&mut self, kind: u8, content: &[u8]) {
        let bytes = record(kind, self.id, content);
        self.raw(&bytes);
    }

    /// Sends a part of the response.
    ///
    /// # Panics
    /// When it is not taken.
    #[track_caller]
    pub fn stdout(&mut self, text: impl AsRef<[u8]>) {
        self.send(6, text.as_ref());
    }

    /// Says something to the log.
    ///
    /// # Panics
    /// When it is not taken.
    #[track_caller]
    pub fn stderr(&mut self, text: impl AsRef<[u8]>) {
        self.send(7, text.as_ref());
    }

    /// Ends the request.
    ///
    /// # Panics
    /// When it is not taken.
    #[track_caller]
    pub fn end(&mut self) {
        self.send(3, &[0; 8]);
    }

    /// A whole answer, and the end of the request.
    ///
    /// # Panics
    /// When it is not taken.
    #[track_caller]
    pub fn answer(&mut self, text: impl AsRef<[u8]>) {
        let mut bytes = record(6, self.id, text.as_ref());
        bytes.extend(record(3, self.id, &[0; 8]));
        self.raw(&bytes);
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When they are not taken.
    #[track_caller]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("a write");
    }

    /// Says no more; what comes is still read.
    ///
    /// # Panics
    /// When that cannot be.
    pub fn half_close(&mut self) {
        self.socket.shutdown(Shutdown::Write).expect("a shutdown");
    }

    /// Waits until the other side has closed the connection.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.record().is_some() {
            assert!(Instant::now() < end, "records without an end");
        }
    }
}

fn length(rest: &mut &[u8]) -> usize {
    let first = rest[0];
    let (len, taken) = match first & 0x80 {
        0 => (u32::from(first), 1),
        _ => (
            u32::from_be_bytes([first & 0x7f, rest[1], rest[2], rest[3]]),
            4,
        ),
    };
    *rest = &rest[taken..];
    usize::try_from(len).expect("a length")
}
