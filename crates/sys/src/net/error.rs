//! Why an address could not be bound, and what to do about it.

use std::{fmt, io};

use rustix::io::Errno;

/// An address that could not be bound. Its text names the address, the reason and a remedy:
/// `cannot bind :80: permission denied: ports below 1024 need root, CAP_NET_BIND_SERVICE …`.
#[derive(Debug)]
pub struct BindError {
    /// The address as it would be written in a configuration.
    pub address: String,
    /// The system's error.
    pub source: io::Error,
}

impl BindError {
    pub(crate) fn new(address: impl fmt::Display, source: io::Error) -> Self {
        Self {
            address: address.to_string(),
            source,
        }
    }

    fn is_unix(&self) -> bool {
        self.address.starts_with("unix:")
    }

    /// The reason in a word or two, and what helps.
    fn reason(&self) -> Option<(&'static str, String)> {
        let code = Errno::from_raw_os_error(self.source.raw_os_error()?);
        let unix = self.is_unix();
        let text = match code {
            Errno::ACCESS | Errno::PERM if unix => (
                "permission denied",
                "the directory must be writable by the user who starts Forebay".to_owned(),
            ),
            Errno::ACCESS | Errno::PERM => (
                "permission denied",
                "ports below 1024 need root, CAP_NET_BIND_SERVICE, or \
                 `sysctl net.ipv4.ip_unprivileged_port_start=80`"
                    .to_owned(),
            ),
            Errno::ADDRINUSE if unix => (
                "in use",
                "another process accepts connections there, or a file that is no socket has this \
                 name"
                    .to_owned(),
            ),
            Errno::ADDRINUSE => (
                "in use",
                format!("another process listens there; {} names it", self.ss()),
            ),
            Errno::ADDRNOTAVAIL => (
                "not an address of this machine",
                "`ip address` shows those it has; without a host, as in \":80\", all are meant"
                    .to_owned(),
            ),
            Errno::AFNOSUPPORT => (
                "address family not supported",
                "IPv6 is switched off here".to_owned(),
            ),
            Errno::MFILE | Errno::NFILE => (
                "no file descriptor left",
                "raise the limit (`ulimit -n`, LimitNOFILE= in systemd)".to_owned(),
            ),
            Errno::NOENT | Errno::NOTDIR => (
                "no such directory",
                "the socket's directory must exist".to_owned(),
            ),
            Errno::NAMETOOLONG => (
                "path too long",
                "a Unix socket's path has at most 107 bytes".to_owned(),
            ),
            Errno::ROFS => (
                "read-only file system",
                "the socket's directory must be writable".to_owned(),
            ),
            _ => return None,
        };
        Some(text)
    }

    /// The command that shows who has the port.
    fn ss(&self) -> String {
        match self.address.rsplit_once(':') {
            Some((_, port)) if !port.is_empty() => format!("`ss -ltnp sport = :{port}`"),
            _ => "`ss -ltnp`".to_owned(),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some((what, help)) => write!(f, "cannot bind {}: {what}: {help}", self.address),
            None => write!(f, "cannot bind {}: {}", self.address, self.source),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
