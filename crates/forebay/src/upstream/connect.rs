//! Connecting to a peer: every address of its name, within the time.

use std::future::{pending, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use forebay_sys::net::is_exhausted;
use tokio::net::TcpStream;

use super::pool::PeerConn;
use super::{Peer, Place, Upstream, tls};
use crate::exchange::{Fault, Reason, Remote};
use crate::transport::{Tls, Transport};
use crate::wheel::{Deadline, timeout};
use crate::worker::Worker;

/// No address is given up earlier than this, however many there are.
const LEAST_TIME: Duration = Duration::from_millis(200);
/// A Unix socket whose backlog is full is tried again after so long.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// The PROXY header that tells a peer who the client is (the PROXY protocol, HAProxy's
/// `proxy-protocol.txt`, sections 2.1 and 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// As a line of text.
    V1,
    /// Binary.
    V2,
}

/// Connects to a peer of a pool within `time`: to each of its addresses in turn, each getting its
/// part of the time that is left, so that one that does not answer leaves some for the others.
///
/// `tls_name`: who it must prove to be, where it is spoken to over TLS.
pub async fn connect(
    worker: &Worker,
    upstream: &Upstream,
    peer: &Peer,
    remote: &Remote,
    tls_name: Option<&str>,
    time: Duration,
) -> Result<PeerConn, Fault> {
    let deadline = worker.wheel.register();
    worker.counters.upstream_connects.add(1);
    let until_ms = worker.now_ms() + u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
    let mut io = connect_clear(worker, peer, &deadline, until_ms).await?;
    if let (Some(name), Some(config)) = (tls_name, &upstream.tls) {
        let securing = async {
            // It tells of the connection, so it goes before what is said on it.
            if let Some(header) = upstream.definition.send_proxy {
                let mut bytes = Vec::new();
                header.write(remote, &mut bytes);
                write_all(&mut io, &bytes).await?;
            }
            Tls::connect(io, config.clone(), name).await
        };
        let now = worker.now_ms();
        let left = Duration::from_millis(until_ms.saturating_sub(now));
        // In a box: a handshake is rare, and its state is as large as that of a whole request.
        io = match timeout(&deadline, now, left, Box::pin(securing)).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => return Err(tls::fault(peer, name, &error)),
            Err(_) => return Err(too_slow(peer)),
        };
    }
    Ok(PeerConn {
        io,
        deadline,
        used: 0,
    })
}

async fn connect_clear(
    worker: &Worker,
    peer: &Peer,
    deadline: &Deadline,
    until_ms: u64,
) -> Result<Transport, Fault> {
    let left = |now: u64| Duration::from_millis(until_ms.saturating_sub(now));
    let now = worker.now_ms();
    match &peer.place {
        Place::Unix(path) => loop {
            let now = worker.now_ms();
            match Transport::connect_unix(path) {
                Ok(transport) => return Ok(transport),
                // Its backlog is full: TCP would ask again by itself, and nobody tells when there
                // is room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if left(now) <= BACKLOG_PAUSE {
                        let what = format!("{}: its backlog is full", peer.label);
                        return Err(Fault::with(Reason::PeerRefused, what));
                    }
                    let _ = timeout(deadline, now, BACKLOG_PAUSE, pending::<()>()).await;
                }
                Err(error) => return Err(refused(peer, &error)),
            }
        },
        // Of a peer that is in service it is its socket.
        Place::Process(_) => Err(Fault::with(Reason::Internal, "a process without a socket")),
        Place::Address(address) => {
            let connecting = to_address(*address);
            match timeout(deadline, now, left(now), connecting).await {
                Ok(Ok(io)) => Ok(io),
                Ok(Err(error)) => Err(refused(peer, &error)),
                Err(_) => Err(too_slow(peer)),
            }
        }
        Place::Name(..) => {
            let addresses = peer.addresses.load_full();
            let mut last = Fault::with(Reason::NoAddress, &*peer.label);
            for (index, address) in addresses.iter().enumerate() {
                let now = worker.now_ms();
                let others = u32::try_from(addresses.len() - index).unwrap_or(1);
                let share = (left(now) / others).max(LEAST_TIME).min(left(now));
                match timeout(deadline, now, share, to_address(*address)).await {
                    Ok(Ok(io)) => return Ok(io),
                    Ok(Err(error)) => last = refused(peer, &error),
                    Err(_) => last = too_slow(peer),
                }
            }
            Err(last)
        }
    }
}

async fn write_all(io: &mut Transport, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match poll_fn(|cx| io.poll_write(cx, bytes, false)).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

async fn to_address(address: SocketAddr) -> io::Result<Transport> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Transport::Tcp(stream))
}

/// Where nothing is left to connect with, that is no fault of the peer, and another one would not be
/// reached either.
fn refused(peer: &Peer, error: &io::Error) -> Fault {
    let reason = match is_exhausted(error) {
        true => Reason::Overloaded,
        false => Reason::ConnectFailed,
    };
    Fault::with(reason, format!("{}: {error}", peer.label))
}

fn too_slow(peer: &Peer) -> Fault {
    Fault::with(Reason::ConnectTimeout, &*peer.label)
}

impl ProxyHeader {
    /// Appends the header for a client.
    pub fn write(self, remote: &Remote, out: &mut Vec<u8>) {
        match self {
            ProxyHeader::V1 => write_v1(remote, out),
            ProxyHeader::V2 => write_v2(remote, out),
        }
    }
}

fn write_v1(remote: &Remote, out: &mut Vec<u8>) {
    let (from, to) = (remote.address, remote.local);
    let family = match (from.ip(), to.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
        _ => {
            out.extend_from_slice(b"PROXY UNKNOWN\r\n");
            return;
        }
    };
    let line = format!(
        "PROXY {family} {} {} {} {}\r\n",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    );
    out.extend_from_slice(line.as_bytes());
}

fn write_v2(remote: &Remote, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n\r\n\0\r\nQUIT\n");
    let (from, to) = (remote.address, remote.local);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&a.octets());
            out.extend_from_slice(&b.octets());
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&a.octets());
            out.extend_from_slice(&b.octets());
        }
        _ => {
            // LOCAL: the receiver uses the connection's own addresses.
            out.extend_from_slice(&[0x20, 0x00, 0, 0]);
            return;
        }
    }
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(address: &str, local: &str) -> Remote {
        Remote {
            address: address.parse().expect("an address"),
            local: local.parse().expect("an address"),
            tls: false,
        }
    }

    fn check(header: ProxyHeader, address: &str, local: &str, expected: &[u8]) {
        let mut out = Vec::new();
        header.write(&remote(address, local), &mut out);
        assert_eq!(
            out.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }

    #[test]
    fn proxy_protocol_2_1_a_line_for_each_family() {
        check(
            ProxyHeader::V1,
            "192.0.2.1:5000",
            "192.0.2.2:80",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n",
        );
        check(
            ProxyHeader::V1,
            "[2001:db8::1]:5",
            "[::1]:80",
            b"PROXY TCP6 2001:db8::1 ::1 5 80\r\n",
        );
        check(
            ProxyHeader::V1,
            "192.0.2.1:5000",
            "[::1]:80",
            b"PROXY UNKNOWN\r\n",
        );
    }

    #[test]
    fn proxy_protocol_2_2_binary_for_each_family() {
        check(
            ProxyHeader::V2,
            "192.0.2.1:258",
            "192.0.2.2:80",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x01\x02\0\x50",
        );
        check(
            ProxyHeader::V2,
            "192.0.2.1:258",
            "[::1]:80",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        );
    }
}
