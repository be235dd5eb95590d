//! Real servers from Debian, run with a configuration of the test's own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::client::Client;
use crate::journal::Journal;
use crate::port::Reserved;
use crate::proc;
use crate::wait::PATIENCE;

/// A running nginx; it is killed when dropped.
pub struct Nginx {
    child: Child,
    port: Reserved,
    dir: TempDir,
}

impl Nginx {
    /// Starts nginx with these directives in its one `server`, which listens on a free port; `@dir@`
    /// stands for its directory, into which the files are written first.
    ///
    /// # Panics
    /// When it is not installed (the message names the package) or does not start.
    #[must_use]
    pub fn start(server: &str, files: &[(&str, &[u8])]) -> Self {
        Self::start_listening("", server, files)
    }

    /// The same over TLS; the directives name the certificate.
    ///
    /// # Panics
    /// See [`Nginx::start`].
    #[must_use]
    pub fn start_tls(server: &str, files: &[(&str, &[u8])]) -> Self {
        Self::start_listening("ssl", server, files)
    }

    /// The same with these parameters of `listen`.
    ///
    /// # Panics
    /// See [`Nginx::start`].
    #[must_use]
    pub fn start_listening(listen: &str, server: &str, files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-nginx-")
            .tempdir()
            .expect("a directory");
        open_to_all(dir.path());
        for (path, contents) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a directory above")).expect("directory");
            std::fs::write(&path, contents).expect("a file");
        }
        let port = Reserved::new();
        let root = dir.path().display().to_string();
        let config = format!(
            "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {root}/body; \
             proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fcgi; \
             uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
             server {{ listen {} {listen} reuseport backlog=4096; root {root};\n{} }} }}\n",
            port.addr(),
            server.replace("@dir@", &root)
        );
        let path = dir.path().join("nginx.conf");
        std::fs::write(&path, config).expect("a configuration");
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&path)
            .arg("-e")
            .arg(dir.path().join("error.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("nginx, of the Debian package nginx, does not run: {e}"));
        let mut nginx = Self { child, port, dir };
        nginx.wait_ready();
        nginx
    }

    /// What to write as a target in a configuration.
    #[must_use]
    pub fn target(&self) -> String {
        self.port.addr().to_string()
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// A client of it, to compare with.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::tcp(self.addr())
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Memory of its processes in bytes, shared pages counted by their share.
    #[must_use]
    pub fn pss(&self) -> u64 {
        proc::tree(self.child.id()).into_iter().map(proc::pss).sum()
    }

    fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(self.addr()).is_err() {
            let log =
                || std::fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default();
            let running = matches!(self.child.try_wait(), Ok(None));
            assert!(running, "nginx ended at its start:\n{}", log());
            assert!(Instant::now() < end, "nginx does not listen:\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Journal::current().note("nginx", &format!("listens on {}", self.addr()));
    }
}

/// A running HAProxy that passes TCP on; it is killed when dropped.
pub struct Haproxy {
    child: Child,
    port: Reserved,
    _dir: TempDir,
}

impl Haproxy {
    /// Starts HAProxy with this `server` line, to which it passes what comes to a free port.
    ///
    /// # Panics
    /// When it is not installed (the message names the package) or does not start.
    #[must_use]
    pub fn start(server: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-haproxy-")
            .tempdir()
            .expect("a directory");
        let port = Reserved::new();
        let config = format!(
            "global\n  maxconn 200\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
             listen front\n  bind {}\n  unique-id-format %ci\n  {server}\n",
            port.addr()
        );
        let path = dir.path().join("haproxy.cfg");
        std::fs::write(&path, config).expect("a configuration");
        let child = Command::new("haproxy")
            .args(["-db", "-q", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("haproxy, of the Debian package haproxy: {e}"));
        let mut haproxy = Self {
            child,
            port,
            _dir: dir,
        };
        haproxy.wait_ready();
        haproxy
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::tcp(self.port.addr())
    }

    fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(self.port.addr()).is_err() {
            let running = matches!(self.child.try_wait(), Ok(None));
            assert!(running, "haproxy ended at its start");
            assert!(Instant::now() < end, "haproxy does not listen");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM to the master: it takes its workers with it, which SIGKILL would leave behind.
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// nginx's workers run as another user, and a temporary directory is its owner's alone.
fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}
