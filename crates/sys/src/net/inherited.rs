//! Sockets that a service manager has bound and passed in (`LISTEN_FDS`, sd_listen_fds(3)).

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use socket2::{SockRef, Type};

use super::TcpOptions;
use super::bind::prepare;

/// A listening socket that was passed in.
#[derive(Debug)]
pub enum InheritedSocket {
    /// Of TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl InheritedSocket {
    /// A second descriptor of the same socket.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }
}

/// What was passed in to this process, with the names that the service manager has given
/// (`LISTEN_FDNAMES`; several may have the same one). Only the first call gets them; others get
/// nothing, as they do if the environment means another process.
///
/// To be called while there is one thread. The error is of an environment that contradicts itself.
#[expect(unsafe_code, reason = "a number becomes an owned descriptor")]
pub fn take_inherited() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return Ok(Vec::new());
    }
    // It marks each as closed on exec, which fails for one that is not open.
    let passed = sd_notify::listen_fds_with_names()?;
    let owned = passed.map(|(number, name)| {
        // SAFETY: the number is that of an open descriptor, as its flags could be set just now. Its
        // owner was the service manager, which has left it to this process, and nobody here has
        // made an owner of it: this is the only place that does, and it is passed once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        (name, fd)
    });
    Ok(owned.collect())
}

/// Makes a descriptor that was passed in ready to accept on. The error says what it is instead of
/// a listening stream socket.
pub fn open_inherited(fd: OwnedFd, options: &TcpOptions) -> Result<InheritedSocket, String> {
    let (is_stream, is_listener, is_unix) = {
        let socket = SockRef::from(&fd);
        let Ok(kind) = socket.r#type() else {
            return Err("it is no socket".to_owned());
        };
        let address = socket.local_addr();
        let is_unix = address.is_ok_and(|address| address.is_unix());
        (
            kind == Type::STREAM,
            socket.is_listener().unwrap_or(false),
            is_unix,
        )
    };
    if !is_stream {
        return Err("it is no stream socket".to_owned());
    }
    if !is_listener {
        return Err("it does not listen".to_owned());
    }
    ready(&fd, is_unix, options).map_err(|error| error.to_string())?;
    Ok(if is_unix {
        InheritedSocket::Unix(fd.into())
    } else {
        InheritedSocket::Tcp(fd.into())
    })
}

fn ready(fd: impl AsFd, is_unix: bool, options: &TcpOptions) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    socket.set_nonblocking(true)?;
    if is_unix {
        return Ok(());
    }
    prepare(&socket, options)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn what_listens_is_opened_and_accepts_without_waiting() {
        let options = TcpOptions::default();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let opened = open_inherited(tcp.try_clone().unwrap().into(), &options).unwrap();
        let InheritedSocket::Tcp(opened) = opened else {
            panic!("{opened:?}");
        };
        assert_eq!(opened.local_addr().unwrap(), tcp.local_addr().unwrap());
        let nothing = opened.accept().unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        assert!(SockRef::from(&opened).tcp_nodelay().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(dir.path().join("a.sock")).unwrap();
        let opened = open_inherited(unix.into(), &options).unwrap();
        let InheritedSocket::Unix(opened) = opened.try_clone().unwrap() else {
            panic!("{opened:?}");
        };
        let nothing = opened.accept().unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_does_not_listen_is_told() {
        let check = |fd: OwnedFd, expected: &str| {
            let said = open_inherited(fd, &TcpOptions::default()).unwrap_err();
            assert_eq!(said, expected);
        };
        let file = std::fs::File::open("/dev/null").unwrap();
        check(file.into(), "it is no socket");
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        check(udp.into(), "it is no stream socket");
        check(UnixStream::pair().unwrap().0.into(), "it does not listen");
    }
}
