//! TCP listeners.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::BindError;

/// Where to listen for TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpAddress {
    /// Every address of the machine, IPv6 and IPv4 by one socket (`":80"`); IPv4 alone where IPv6
    /// is switched off.
    Any(u16),
    /// This address. `[::]` means IPv6 only, so that `0.0.0.0` can be bound beside it.
    Ip(SocketAddr),
}

impl TcpAddress {
    /// The port; 0 asks the system for a free one.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Any(port) => *port,
            Self::Ip(address) => address.port(),
        }
    }
}

impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(port) => write!(f, ":{port}"),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// Who else may listen on the same address and port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody but the sockets of this call. `SO_REUSEPORT` alone would let a second server of the
    /// same user take half of the connections unnoticed.
    #[default]
    Exclusive,
    /// Whoever of the same user has set `SO_REUSEPORT`: more sockets for an address that we listen
    /// on already, or a new process that takes over.
    Join,
}

/// Options of TCP listeners.
///
/// `TCP_DEFER_ACCEPT` is not among them, deliberately: a connection that waits in the kernel for
/// its first byte is seen by no limit and no timeout of ours, and is reset when its listener
/// closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Connections that may wait to be accepted, per socket; the system caps it at
    /// `net.core.somaxconn`.
    pub backlog: u16,
    /// Who else may listen there.
    pub sharing: Sharing,
    /// Bytes of unsent data in an accepted socket above which it is not writable, so that what is
    /// sent next can still be decided and memory is bounded.
    pub notsent_lowat: u32,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            backlog: 4_096,
            sharing: Sharing::Exclusive,
            notsent_lowat: 128 * 1024,
        }
    }
}

/// Binds `sockets` listeners (at least one) to the same address and port, among which the kernel
/// spreads the connections. With port 0 all get the same free port.
///
/// They do not block, are closed on exec, and what they accept has `TCP_NODELAY` and
/// `TCP_NOTSENT_LOWAT` set: on Linux by inheritance; see [`prepare_accepted`]. Where
/// `SO_REUSEPORT` does not balance (not Linux), all are one socket, duplicated.
pub fn bind_tcp(
    address: TcpAddress,
    options: &TcpOptions,
    sockets: usize,
) -> Result<Vec<TcpListener>, BindError> {
    bind_all(address, options, sockets).map_err(|source| BindError::new(address, source))
}

fn bind_all(
    address: TcpAddress,
    options: &TcpOptions,
    sockets: usize,
) -> io::Result<Vec<TcpListener>> {
    let first = open_first(address, options)?;
    let local = first
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut bound = vec![first];
    while bound.len() < sockets {
        bound.push(one_more(&bound[0], address, local, options)?);
    }
    // Listening comes last: until all are bound nobody can connect, and a failure leaves nothing.
    for socket in &bound {
        socket.listen(i32::from(options.backlog))?;
    }
    Ok(bound.into_iter().map(TcpListener::from).collect())
}

/// The first socket; for [`TcpAddress::Any`] of the best family that works.
fn open_first(address: TcpAddress, options: &TcpOptions) -> io::Result<Socket> {
    match address {
        TcpAddress::Ip(ip) => open(ip, true, options, true),
        TcpAddress::Any(port) => best_family(port, |any| open(any, false, options, true)),
    }
}

fn best_family<T>(port: u16, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(e) if no_ipv6(&e) => open((Ipv4Addr::UNSPECIFIED, port).into()),
        opened => opened,
    }
}

/// IPv6 is not built in (`EAFNOSUPPORT`), or switched off by `disable_ipv6` (`EADDRNOTAVAIL`).
fn no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PFNOSUPPORT)
    )
}

#[cfg(target_os = "linux")]
fn one_more(
    _: &Socket,
    address: TcpAddress,
    local: SocketAddr,
    options: &TcpOptions,
) -> io::Result<Socket> {
    open(local, matches!(address, TcpAddress::Ip(_)), options, false)
}

#[cfg(not(target_os = "linux"))]
fn one_more(first: &Socket, _: TcpAddress, _: SocketAddr, _: &TcpOptions) -> io::Result<Socket> {
    first.try_clone()
}

/// A bound socket that does not listen yet.
fn open(
    address: SocketAddr,
    only_v6: bool,
    options: &TcpOptions,
    first: bool,
) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // The kernel looks for conflicts when a socket is bound: if it has no SO_REUSEPORT at that
    // moment, nobody else may listen there. Set right afterwards it lets our further sockets in.
    let exclusive = first && options.sharing == Sharing::Exclusive;
    if !exclusive {
        share_port(&socket)?;
    }
    socket.bind(&address.into())?;
    if exclusive {
        share_port(&socket)?;
    }
    prepare(&socket, options)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(target_os = "linux"))]
fn share_port(_: &Socket) -> io::Result<()> {
    Ok(())
}

/// What accepted sockets inherit on Linux.
pub(super) fn prepare(socket: &Socket, options: &TcpOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(options.notsent_lowat)?;
    #[cfg(not(target_os = "linux"))]
    let _ = options;
    Ok(())
}

/// Sets on an accepted TCP socket what it did not inherit from its listener. Nothing on Linux,
/// where it would cost two system calls per connection.
#[cfg(target_os = "linux")]
pub fn prepare_accepted(_: impl AsFd, _: &TcpOptions) -> io::Result<()> {
    Ok(())
}

/// Sets on an accepted TCP socket what it did not inherit from its listener.
#[cfg(not(target_os = "linux"))]
pub fn prepare_accepted(socket: impl AsFd, options: &TcpOptions) -> io::Result<()> {
    prepare_by_hand(socket, options)
}

#[cfg(any(test, not(target_os = "linux")))]
fn prepare_by_hand(socket: impl AsFd, options: &TcpOptions) -> io::Result<()> {
    let fd = socket.as_fd().try_clone_to_owned()?;
    prepare(&Socket::from(fd), options)
}

/// Tells the kernel to let no new connection reach this listener, so that those which wait in it
/// can be accepted to the last before it is closed; without this, every one that completes between
/// the last `accept` and the close is reset. Returns whether that works here: only on Linux, and
/// newer kernels (seen with 6.18) ask for CAP_NET_ADMIN. Where it does not, accepting until nothing
/// waits and closing at once leaves a gap of microseconds.
///
/// A filter drops what starts a connection (SYN without ACK); handshakes under way are finished.
/// A client whose SYN was dropped sends it again after a second: then another socket of the same
/// port takes it, or it is refused. Accept until that would block for longer than a round trip
/// after this, then close. Accepted sockets inherit the filter, which does not touch them: an
/// established connection has no SYN.
pub fn refuse_new(listener: impl AsFd) -> io::Result<bool> {
    filter::drop_syn(SockRef::from(&listener))
}

#[cfg(target_os = "linux")]
mod filter {
    use std::io;

    use socket2::{SockFilter, SockRef};

    /// Classic BPF (linux/filter.h). On a TCP socket a packet begins with its TCP header, whose
    /// 14th byte holds the flags: SYN is 0x02, ACK 0x10.
    pub(super) fn drop_syn(socket: SockRef<'_>) -> io::Result<bool> {
        const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
        const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
        const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
        const RETURN: u16 = 0x06; // BPF_RET | BPF_K
        let attached = socket.attach_filter(&[
            SockFilter::new(LOAD_BYTE, 0, 0, 13),
            SockFilter::new(AND, 0, 0, 0x12),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ]);
        match attached {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            done => done.map(|()| true),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod filter {
    use std::io;

    use socket2::SockRef;

    pub(super) fn drop_syn(_: SockRef<'_>) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ipv6_all_ipv4_addresses_are_bound() {
        let only_v4 = |error: Errno| {
            best_family(80, move |a| {
                if a.is_ipv4() {
                    Ok(a)
                } else {
                    Err(error.into())
                }
            })
        };
        for missing in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL, Errno::PFNOSUPPORT] {
            assert_eq!(only_v4(missing).unwrap().to_string(), "0.0.0.0:80");
        }
        // Everything else is an answer: falling back would listen on half of what was meant.
        let in_use = only_v4(Errno::ADDRINUSE).unwrap_err();
        assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_is_not_inherited_can_be_set_by_hand() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = TcpOptions {
            notsent_lowat: 4_711,
            ..TcpOptions::default()
        };
        prepare_by_hand(&listener, &options).unwrap();
        let socket = SockRef::from(&listener);
        assert!(socket.tcp_nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 4_711);
    }
}
