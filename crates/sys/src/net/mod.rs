//! Sockets: listeners, their options, and descriptors passed between processes.

mod bind;
mod error;
mod fds;
mod inherited;
mod stream;
mod unix;

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    os::fd::AsFd,
    time::Duration,
};

use rustix::{io::Errno, net::sockopt::set_socket_linger};

pub use bind::{Sharing, TcpAddress, TcpOptions, bind_tcp, prepare_accepted, refuse_new};
pub use error::BindError;
pub use fds::{MAX_FDS, Received, recv_with_fds, send_with_fds, seqpacket_pair};
pub use inherited::{InheritedSocket, open_inherited, take_inherited};
pub use stream::{peek, read, take, write, writev};
pub use unix::{UnixFile, UnixOptions, bind_unix};

/// The address without its IPv6 disguise: `[::ffff:192.0.2.1]:80`, as a socket that takes both
/// families names an IPv4 peer, becomes `192.0.2.1:80`. All others stay what they are. Done once,
/// at accept, so that rules, logs and limits see one form of an address only.
#[must_use]
pub fn to_unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::V4(SocketAddrV4::new(ip, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Makes the socket's close an abort: the peer gets RST instead of FIN and unsent data is thrown
/// away. The caller then drops the socket.
pub fn abort(socket: impl AsFd) -> io::Result<()> {
    Ok(set_socket_linger(socket, Some(Duration::ZERO))?)
}

/// Whether this machine or process has run out of descriptors or memory: nobody at the other end has
/// anything to do with it.
#[must_use]
pub fn is_exhausted(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What a failed `accept` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFault {
    /// That one connection is gone; the next may be fine: try again at once.
    Gone,
    /// Nothing waits.
    Empty,
    /// No descriptor or memory is left: free some (a spare descriptor, the oldest idle
    /// connections), or wait; trying at once would spin.
    Exhausted,
    /// The listener itself is broken.
    Broken,
}

impl AcceptFault {
    /// Sorts an error of `accept`. Linux reports pending network errors of the new connection
    /// here, which say nothing about the listener (accept(2), "Error handling").
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        const GONE: [Errno; 11] = [
            Errno::CONNABORTED,
            Errno::INTR,
            Errno::PROTO,
            Errno::NETDOWN,
            Errno::NOPROTOOPT,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::OPNOTSUPP,
            Errno::NETUNREACH,
            Errno::TIMEDOUT,
            // A firewall's rule on the connection.
            Errno::PERM,
        ];
        let Some(code) = error.raw_os_error().map(Errno::from_raw_os_error) else {
            return Self::Broken;
        };
        if code == Errno::AGAIN {
            Self::Empty
        } else if GONE.contains(&code) {
            Self::Gone
        } else if is_exhausted(error) {
            Self::Exhausted
        } else {
            Self::Broken
        }
    }
}
