//! Ports that nobody else gets.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A loopback port that is bound but not listening: a connection to it is refused, the kernel gives
/// it to nobody, and a server that binds with `SO_REUSEPORT` (all that tests start do) may still
/// listen on it. So no test can lose its port between choosing and using it, and none is fixed.
pub struct Reserved {
    socket: Socket,
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
        Self { socket, addr }
    }

    /// The address reserved.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
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
        write!(f, "{:?} on {}", self.socket, self.addr)
    }
}

fn bind(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    if addr.is_ipv6() {
        socket.set_only_v6(true).expect("IPV6_V6ONLY");
    }
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket
        .bind(&addr.into())
        .unwrap_or_else(|e| panic!("bind {addr}: {e}"));
    socket
}
