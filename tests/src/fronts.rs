//! Web servers from Debian that have the server under test as their FastCGI application.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::proc;
use crate::wait;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx.
    Nginx,
    /// Apache with `mod_proxy_fcgi`.
    Apache,
    /// lighttpd.
    Lighttpd,
    /// Caddy.
    Caddy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nginx, Self::Apache, Self::Lighttpd, Self::Caddy];

    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let named = |kind: &Self| format!("{kind:?}").eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(named)
    }
}

/// A running web server; it is ended when dropped.
#[derive(Debug)]
pub struct Front(Child);

impl Front {
    /// Starts one that listens at `addr` and passes everything on to the application at this Unix
    /// socket. Its files are in `dir`.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn start(kind: Kind, addr: SocketAddr, socket: &Path, dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a directory");
        let config = config(kind, addr, socket, dir);
        let path = dir.join("config");
        std::fs::write(&path, config).expect("a file");
        let mut command = command(kind, &path);
        let log = std::fs::File::create(dir.join("output")).expect("a file");
        let child = command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .env("XDG_DATA_HOME", dir)
            .env("XDG_CONFIG_HOME", dir)
            .spawn()
            .unwrap_or_else(|e| panic!("{kind:?} does not run: {e}"));
        let mut front = Self(child);
        wait::until("the web server in front", || {
            if let Ok(Some(status)) = front.0.try_wait() {
                let said = std::fs::read_to_string(dir.join("output")).unwrap_or_default();
                panic!("{kind:?} ended with {status}\n{said}");
            }
            std::net::TcpStream::connect(addr).is_ok()
        });
        front
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Its children, too: they would go on listening.
        for pid in proc::tree(self.0.id()) {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.0.wait();
    }
}

fn command(kind: Kind, config: &Path) -> Command {
    let (program, args): (_, &[&str]) = match kind {
        Kind::Nginx => ("nginx", &["-c"]),
        Kind::Apache => ("/usr/sbin/apache2", &["-DFOREGROUND", "-f"]),
        Kind::Lighttpd => ("/usr/sbin/lighttpd", &["-D", "-f"]),
        Kind::Caddy => ("caddy", &["run", "--adapter", "caddyfile", "--config"]),
    };
    let mut command = Command::new(program);
    command.args(args).arg(config);
    if kind == Kind::Nginx {
        command.arg("-e").arg(config.with_file_name("error.log"));
    }
    command
}

fn config(kind: Kind, addr: SocketAddr, socket: &Path, dir: &Path) -> String {
    let (dir, socket) = (dir.display(), socket.display());
    match kind {
        Kind::Nginx => format!(
            "daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log; user root;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {dir}/body; \
             proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fcgi; \
             uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi; \
             client_max_body_size 0; large_client_header_buffers 8 64k; \
             client_header_buffer_size 64k;\n\
             upstream app {{ server unix:{socket}; keepalive 8; keepalive_requests 1000000; }}\n\
             server {{ listen {addr} reuseport backlog=4096; merge_slashes off; keepalive_requests 1000000;\n\
             location / {{ include /etc/nginx/fastcgi_params; fastcgi_pass app; \
             fastcgi_keep_conn on; fastcgi_max_temp_file_size 0; fastcgi_request_buffering off; \
             fastcgi_buffer_size 64k; fastcgi_buffers 8 64k; }} }} }}\n"
        ),
        Kind::Apache => {
            let modules = "/usr/lib/apache2/modules";
            format!(
                "ServerRoot {dir}\nPidFile {dir}/pid\nErrorLog {dir}/error.log\n\
                 LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
                 LoadModule authz_core_module {modules}/mod_authz_core.so\n\
                 LoadModule proxy_module {modules}/mod_proxy.so\n\
                 LoadModule proxy_fcgi_module {modules}/mod_proxy_fcgi.so\n\
                 Listen {addr}\nServerName localhost\nUser www-data\nGroup www-data\n\
                 Mutex posixsem\nDefaultRuntimeDir {dir}\nAllowEncodedSlashes NoDecode\n\
                 LimitRequestFieldSize 65536\nLimitRequestLine 65536\n\
                 LimitRequestBody 0\nMaxKeepAliveRequests 0\nMergeSlashes Off\n\
                 ProxyPass / \"unix:{socket}|fcgi://app/\" enablereuse=on flushpackets=on\n"
            )
        }
        Kind::Lighttpd => format!(
            "server.port = {}\nserver.bind = \"{}\"\nserver.document-root = \"{dir}\"\n\
             server.errorlog = \"{dir}/error.log\"\nserver.modules = ( \"mod_fastcgi\" )\n\
             server.stream-response-body = 1\nserver.stream-request-body = 1\n\
             server.max-keep-alive-requests = 1000000\nserver.upload-dirs = ( \"{dir}\" )\nserver.max-request-field-size = 65536\n\
             fastcgi.server = ( \"\" => (( \"socket\" => \"{socket}\", \
             \"check-local\" => \"disable\" )) )\n",
            addr.port(),
            addr.ip()
        ),
        Kind::Caddy => format!(
            "{{\n admin off\n auto_https off\n}}\n\
             http://:{} {{\n bind {}\n reverse_proxy unix/{socket} {{\n  \
             flush_interval -1\n  transport fastcgi {{\n   root {dir}\n  }}\n }}\n}}\n",
            addr.port(),
            addr.ip()
        ),
    }
}
