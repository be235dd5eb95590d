//! The real `forebay` binary, run with a configuration of the test's own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use crate::client::{Client, Endpoint};
use crate::fronts::{Front, Kind};
use crate::journal::{Journal, lock};
use crate::port::Reserved;
use crate::wait::{self, PATIENCE};
use crate::{Origin, proc};

/// Standard error that is kept of one server.
const KEEP_STDERR: usize = 1 << 20;

/// The binary under test: `FOREBAY_BIN`, or the one built beside this test.
///
/// # Panics
/// When there is none; the message says how to build it.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FOREBAY_BIN") {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "FOREBAY_BIN names {}, which is no file",
            path.display()
        );
        return path;
    }
    let me = std::env::current_exe().expect("the path of this test");
    // target/debug/deps/CASE-HASH, and the binary is target/debug/forebay.
    let path = me
        .parent()
        .and_then(Path::parent)
        .expect("a target directory")
        .join("forebay");
    assert!(
        path.is_file(),
        "no {}: build it with `cargo build -p forebay`, or name another one in FOREBAY_BIN",
        path.display()
    );
    path
}

/// Whether the binary under test was built to be shipped, as far as its path tells: bars of time
/// and memory are for such a build.
#[must_use]
pub fn is_release() -> bool {
    binary()
        .components()
        .any(|c| matches!(c.as_os_str().to_str(), Some("release" | "dist")))
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Expects this exit status.
    ///
    /// # Panics
    /// When it is another one.
    #[track_caller]
    #[must_use]
    pub fn expect(self, code: i32) -> Self {
        assert!(
            self.code == Some(code),
            "exit status {:?} instead of {code}\n{}{}",
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// Runs the binary with these arguments to its end.
///
/// # Panics
/// When it cannot be run.
#[must_use]
pub fn run(args: &[&str]) -> Output {
    run_in(Path::new("/"), args)
}

/// As [`run`], in a directory.
///
/// # Panics
/// When it cannot be run.
#[must_use]
pub fn run_in(dir: &Path, args: &[&str]) -> Output {
    let output = Command::new(binary())
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the forebay binary to run");
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into(),
        stderr: String::from_utf8_lossy(&output.stderr).into(),
    }
}

/// A server to be started.
///
/// In the configuration `@name@` stands for what [`Builder::set`] gave that name, `@dir@` for the
/// server's own directory. Before it the harness puts, in one line, a `listen` on a free port and a
/// `server` with the admin socket and the number of workers.
pub struct Builder {
    dir: TempDir,
    config: String,
    names: Vec<(String, String)>,
    listen: Option<String>,
    server: String,
    workers: usize,
    env: Vec<(String, String)>,
    limit: Option<String>,
    inherited: Vec<(String, OwnedFd)>,
    port: Reserved,
    more_ports: Vec<Reserved>,
}

impl Builder {
    fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-test-")
            .tempdir()
            .expect("a directory");
        Self {
            dir,
            config: config.into(),
            names: Vec::new(),
            listen: Some(String::new()),
            server: String::new(),
            workers: 2,
            env: Vec::new(),
            limit: None,
            inherited: Vec::new(),
            port: Reserved::new(),
            more_ports: Vec::new(),
        }
    }

    /// Its directory, which the configuration's paths are relative to.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What `@name@` stands for.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.names.push((format!("@{name}@"), value.into()));
        self
    }

    /// `@name@` stands for this origin's target.
    #[must_use]
    pub fn origin(self, name: &str, origin: &Origin) -> Self {
        self.set(name, origin.target())
    }

    /// `@name@` stands for one more free address of 127.0.0.1.
    #[must_use]
    pub fn free_address(mut self, name: &str) -> Self {
        let port = Reserved::new();
        let addr = port.addr().to_string();
        self.more_ports.push(port);
        self.set(name, addr)
    }

    /// Options of the listener, as `max_header = "2KB"`.
    #[must_use]
    pub fn listen(mut self, options: &str) -> Self {
        self.listen = Some(options.into());
        self
    }

    /// No listener but those of the configuration, in which `@listen@` is the free address.
    #[must_use]
    pub fn own_listen(mut self) -> Self {
        self.listen = None;
        self
    }

    /// More options of the process, as `drain = "1s"`.
    #[must_use]
    pub fn server(mut self, options: &str) -> Self {
        self.server = options.into();
        self
    }

    /// How many workers; without this, two.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// One more variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// How many descriptors it may have, soft and hard.
    #[must_use]
    pub fn descriptors(mut self, limit: u64) -> Self {
        self.limit = Some(format!("ulimit -n {limit}"));
        self
    }

    /// How many descriptors it may have at first.
    #[must_use]
    pub fn soft_descriptors(mut self, limit: u64) -> Self {
        self.limit = Some(format!("ulimit -S -n {limit}"));
        self
    }

    /// One more socket that it gets passed in by this name; at most two.
    ///
    /// # Panics
    /// When there are two already.
    #[must_use]
    pub fn pass_in(mut self, name: &str, socket: impl Into<OwnedFd>) -> Self {
        assert!(self.inherited.len() < 2, "one by stdin and one by stdout");
        self.inherited.push((name.into(), socket.into()));
        self
    }

    /// Every user may read what is in its directory.
    ///
    /// # Panics
    /// When that cannot be said.
    #[must_use]
    pub fn open_to_all(self) -> Self {
        open_to_all(self.dir.path());
        self
    }

    /// Writes a file into its directory, with the directories above it.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        write_file(self.dir.path(), path, contents.as_ref());
        self
    }

    /// Starts it and waits until it accepts connections and commands.
    ///
    /// # Panics
    /// When it ends or does not listen within [`PATIENCE`]; its standard error is printed.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Server {
        let mut server = self.start_in_haste();
        server.wait_commands();
        server
    }

    /// Starts it and waits for no more than that it accepts a connection.
    ///
    /// # Panics
    /// As [`Builder::start`].
    #[track_caller]
    #[must_use]
    pub fn start_in_haste(mut self) -> Server {
        let addr = self.port.addr();
        let (config, env) = (self.config.clone(), self.env.clone());
        let before = self.before();
        let passed = std::mem::take(&mut self.inherited);
        let mut server = self.into_server(addr);
        server.write_config(&config);
        let mut command = match &before {
            None => Command::new(binary()),
            Some(before) => {
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", &format!("{before} && exec \"$0\" \"$@\"")])
                    .arg(binary());
                shell
            }
        };
        command.arg("run").arg(&server.config_path);
        command.env_remove("FOREBAY_WORKERS").envs(env);
        server.spawn(
            command,
            passed.into_iter().map(|(_, socket)| socket).collect(),
        );
        server
    }
}

impl Builder {
    /// What a shell has to do before it becomes the server. Sockets to be passed in have come to it
    /// as its standard input and output.
    fn before(&self) -> Option<String> {
        let names: Vec<&str> = self.inherited.iter().map(|(name, _)| &**name).collect();
        let redirect = match names.len() {
            0 => return self.limit.clone(),
            1 => "exec 3<&0 </dev/null",
            _ => "exec 3<&0 4<&1 </dev/null >/dev/null",
        };
        let limit = self.limit.as_deref().unwrap_or("true");
        Some(format!(
            "{limit} && {redirect} && export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}",
            names.len(),
            names.join(":")
        ))
    }

    fn into_server(self, addr: SocketAddr) -> Server {
        Server {
            front: None,
            child: None,
            journal: Journal::current(),
            stderr: Arc::default(),
            reader: None,
            addr,
            prelude: prelude(&self),
            names: self.names,
            config_path: self.dir.path().join("forebay.lua"),
            admin: self.dir.path().join("admin.sock"),
            _ports: self.more_ports,
            port: self.port,
            dir: self.dir,
        }
    }
}

/// Where a server listens that has another one in front of it.
const FRONT_SOCKET: &str = "behind.sock";

/// Which web server is to stand in front of every server of a test, which then is its FastCGI
/// application: so the same cases prove both protocols.
fn in_front() -> Option<Kind> {
    let name = std::env::var("FOREBAY_TESTS_FRONT").ok()?;
    let kind = Kind::of(&name);
    Some(kind.unwrap_or_else(|| panic!("FOREBAY_TESTS_FRONT: there is no front \"{name}\"")))
}

fn prelude(builder: &Builder) -> String {
    let admin = builder.dir.path().join("admin.sock");
    let mut text = format!(
        "server {{ admin = \"unix:{}\", workers = {}, {} }} ",
        admin.display(),
        builder.workers,
        builder.server
    );
    if let Some(options) = &builder.listen {
        let socket = builder.dir.path().join(FRONT_SOCKET);
        let (at, more) = match in_front() {
            None => (builder.port.addr().to_string(), ""),
            Some(_) => {
                let at = format!("unix:{}", socket.display());
                (at, "protocol = \"fastcgi\", mode = \"0666\", ")
            }
        };
        let _ = write!(text, "listen \"{at}\"");
        if !options.is_empty() || !more.is_empty() {
            let _ = write!(text, " {{ {more}{options} }}");
        }
    }
    text
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, mode).expect("permissions");
}

fn write_file(dir: &Path, path: &str, contents: &[u8]) {
    let path = dir.join(path);
    let parent = path.parent().expect("a directory above");
    std::fs::create_dir_all(parent).expect("a directory above");
    std::fs::write(&path, contents).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// A running server; it is killed when dropped.
pub struct Server {
    front: Option<Front>,
    child: Option<Child>,
    journal: Arc<Journal>,
    stderr: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
    addr: SocketAddr,
    names: Vec<(String, String)>,
    prelude: String,
    config_path: PathBuf,
    admin: PathBuf,
    port: Reserved,
    _ports: Vec<Reserved>,
    dir: TempDir,
}

impl Server {
    /// A server to be started with this configuration; see [`Builder`].
    #[must_use]
    pub fn builder(config: &str) -> Builder {
        Builder::new(config)
    }

    /// A server with this configuration.
    ///
    /// # Panics
    /// See [`Builder::start`].
    #[track_caller]
    #[must_use]
    pub fn start(config: &str) -> Self {
        Self::builder(config).start()
    }

    /// A server with one site for all hosts, with this pipeline, in which `@origin@` is the origin.
    ///
    /// # Panics
    /// See [`Builder::start`].
    #[track_caller]
    #[must_use]
    pub fn before(origin: &Origin, pipeline: &str) -> Self {
        let config = format!("site {{ \"*\",\n{pipeline}\n}}\n");
        Self::builder(&config).origin("origin", origin).start()
    }

    /// A client of its address.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::tcp(self.addr)
    }

    /// A client of one more address of the configuration, written there as `@name@`.
    ///
    /// # Panics
    /// When there is no such name or it is no address.
    #[must_use]
    pub fn client_of(&self, name: &str) -> Client {
        let key = format!("@{name}@");
        let (_, text) = self
            .names
            .iter()
            .find(|(n, _)| *n == key)
            .expect("a name that was set");
        match text.strip_prefix("unix:") {
            Some(path) => Client::new(Endpoint::Unix(path.into())),
            None => Client::tcp(text.parse().expect("an address")),
        }
    }

    /// A client of its admin socket.
    #[must_use]
    pub fn admin(&self) -> Client {
        Client::new(Endpoint::Unix(self.admin.clone()))
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Writes a file into its directory.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, path: &str, contents: impl AsRef<[u8]>) {
        write_file(self.dir.path(), path, contents.as_ref());
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// Everything it has written to standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        lock(&self.stderr).clone()
    }

    /// Waits until its standard error contains this text.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn wait_stderr(&self, text: &str) {
        wait::until(&format!("{text:?} on standard error"), || {
            lock(&self.stderr).contains(text)
        });
    }

    /// Replaces the configuration file by rename; the listener and the admin socket stay.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self, config: &str) {
        let mut text = format!("{} {config}", self.prelude);
        text = text.replace("@listen@", &self.addr.to_string());
        text = text.replace("@dir@", &self.dir.path().display().to_string());
        for (name, value) in &self.names {
            text = text.replace(name, value);
        }
        let aside = self.config_path.with_extension("new");
        std::fs::write(&aside, text).expect("the configuration");
        std::fs::rename(&aside, &self.config_path).expect("the configuration");
    }

    /// Runs `forebay COMMAND --admin unix:…` for this server; the command may have arguments.
    #[must_use]
    pub fn command(&self, command: &str) -> Output {
        let admin = format!("unix:{}", self.admin.display());
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.extend(["--admin", &admin]);
        let output = run(&args);
        self.journal.note(command, &format!("{output:?}"));
        output
    }

    /// `forebay reload`.
    #[must_use]
    pub fn reload(&self) -> Output {
        self.command("reload")
    }

    /// Writes a configuration and reloads; expects it to be taken.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn reload_with(&self, config: &str) {
        self.write_config(config);
        let _ = self.reload().expect(0);
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        self.journal.note("server", &format!("is sent {signal:?}"));
        kill_process(pid, signal).expect("a running server");
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it goes on for longer than this.
    #[track_caller]
    pub fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("a running server");
        let end = Instant::now() + patience;
        let status = loop {
            match child.try_wait().expect("the server's state") {
                Some(status) => break Some(status),
                None if Instant::now() > end => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let Some(status) = status else {
            self.child = Some(child);
            panic!("the server goes on after {patience:?}");
        };
        self.join_reader();
        self.journal.note("server", &format!("ended: {status}"));
        status
    }

    /// Ends it at once, without a chance to do anything (`SIGKILL`).
    ///
    /// # Panics
    /// When it has ended already.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running server");
        self.journal.note("server", "is killed");
        child.kill().expect("a running server");
        let _ = child.wait();
        self.join_reader();
    }

    /// Ends it in an orderly way.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let _ = self.wait_exit(PATIENCE);
    }

    /// Starts it once more where it was, with the configuration that is there by now.
    ///
    /// # Panics
    /// See [`Builder::start`].
    #[track_caller]
    pub fn start_again(&mut self) {
        let mut command = Command::new(binary());
        command.arg("run").arg(&self.config_path);
        self.spawn(command, Vec::new());
        self.wait_commands();
    }

    /// Whether it is still running.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// Resident memory of it and its helper, in bytes.
    #[must_use]
    pub fn rss(&self) -> u64 {
        proc::tree(self.pid()).into_iter().map(proc::rss).sum()
    }

    /// Memory of it and its helper in bytes, shared pages counted by their share.
    #[must_use]
    pub fn pss(&self) -> u64 {
        proc::tree(self.pid()).into_iter().map(proc::pss).sum()
    }

    /// Resident memory and what the kernel holds for its sockets, in bytes.
    #[must_use]
    pub fn memory_with_sockets(&self) -> u64 {
        self.rss() + proc::socket_memory(&proc::tree(self.pid()))
    }

    /// A server started by other arguments than `run`, which listens on `addr`.
    ///
    /// # Panics
    /// See [`Builder::start`].
    #[track_caller]
    #[must_use]
    pub fn from_command(args: &[&str], addr: SocketAddr) -> Self {
        let mut server = Builder::new("").into_server(addr);
        let mut command = Command::new(binary());
        command.args(args);
        server.spawn(command, Vec::new());
        server
    }

    #[track_caller]
    fn spawn(&mut self, mut command: Command, passed: Vec<OwnedFd>) {
        let mut passed = passed.into_iter();
        let mut next = || passed.next().map_or_else(Stdio::null, Stdio::from);
        let mut child = command
            .current_dir(self.dir.path())
            .stdin(next())
            .stdout(next())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the forebay binary to run");
        self.follow_stderr(&mut child);
        self.child = Some(child);
        self.wait_listening();
    }

    fn follow_stderr(&mut self, child: &mut Child) {
        let pipe = child.stderr.take().expect("a pipe");
        let (journal, kept) = (Arc::clone(&self.journal), Arc::clone(&self.stderr));
        self.reader = Some(std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                journal.note("server |", &line);
                let mut kept = lock(&kept);
                if kept.len() < KEEP_STDERR {
                    kept.push_str(&line);
                    kept.push('\n');
                }
            }
        }));
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// Until it listens: what is sent to it from then on must not be lost.
    #[track_caller]
    fn wait_listening(&mut self) {
        let addr = self.addr;
        let socket = self.dir.path().join(FRONT_SOCKET);
        match in_front().filter(|_| self.prelude.contains(FRONT_SOCKET)) {
            None => self.wait_while(|| TcpStream::connect(addr).is_err()),
            Some(kind) => {
                self.wait_while(|| UnixStream::connect(&socket).is_err());
                let dir = self.dir.path().join("front");
                self.port.open_to_others();
                open_to_all(self.dir.path());
                self.front = Some(Front::start(kind, addr, &socket, &dir));
            }
        }
    }

    /// Until it also hears commands: the admin socket is not among what it serves, so nothing says
    /// which of them is there first.
    #[track_caller]
    fn wait_commands(&mut self) {
        let admin = self.admin.clone();
        self.wait_while(|| UnixStream::connect(&admin).is_err());
    }

    #[track_caller]
    fn wait_while(&mut self, not_yet: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while not_yet() {
            if !self.is_running() {
                self.join_reader();
                panic!("the server ended at its start:\n{}", self.stderr());
            }
            assert!(
                Instant::now() < end,
                "the server does not listen:\n{}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.join_reader();
        self.journal.print_if_panicking();
    }
}
