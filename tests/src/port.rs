//! Ports that nobody else gets.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A loopback port that is bound but not listening: a connection to it is refused, the kernel gives
/// it to nobody, and a server that binds with `SO_REUSEPORT` (all that tests start do) may still
/// listen on it. So no test can lose its port between choosing and using it, and none is fixed.
pub struct Reserved {
    socket: Socket,
    second: Option<Socket>,
    addr: SocketAddr,
}

impl Reserved {
    /// Reserves a port of 127.0.0.1.
    #[must_use]
    pub fn new() -> Self {
        Self::on("127.0.0.1:0")
    }

    /// Reserves a port of `addr`, which ends in `:0`.
    ///
    /// # Panics
    /// When there is no such address or no free port.
    #[must_use]
    pub fn on(addr: &str) -> Self {
        let addr: SocketAddr = addr.parse().expect("an address");
        let socket = bind(addr);
        let addr = socket
            .local_addr()
            .ok()
            .and_then(|a| a.as_socket())
            .expect("a bound address");
        Self {
            socket,
            second: None,
            addr,
        }
    }

    /// Reserves the same port of all IPv4 and all IPv6 addresses.
    ///
    /// # Panics
    /// When there is no such port.
    #[must_use]
    pub fn any() -> Self {
        for _ in 0..100 {
            let mut reserved = Self::on("[::]:0");
            let four = SocketAddr::from(([0, 0, 0, 0], reserved.port()));
            if let Ok(socket) = try_bind(four) {
                reserved.second = Some(socket);
                return reserved;
            }
        }
        panic!("no port is free for IPv4 and IPv6");
    }

    /// The address reserved.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets a server bind it that knows only `SO_REUSEADDR`.
    ///
    /// # Panics
    /// When that cannot be said.
    pub fn open_to_others(&self) {
        self.socket.set_reuse_address(true).expect("an option");
    }

    /// The port reserved.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// A listening socket on it, beside the reservation.
    ///
    /// # Panics
    /// When the kernel refuses it.
    #[must_use]
    pub fn listen(&self) -> std::net::TcpListener {
        let socket = bind(self.addr);
        socket.listen(4096).expect("listen");
        socket.into()
    }
}

impl Default for Reserved {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Reserved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sockets = 1 + usize::from(self.second.is_some());
        write!(f, "{:?} on {} ({sockets})", self.socket, self.addr)
    }
}

fn bind(addr: SocketAddr) -> Socket {
    try_bind(addr).unwrap_or_else(|e| panic!("bind {addr}: {e}"))
}

fn try_bind(addr: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}
