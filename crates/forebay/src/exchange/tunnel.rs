//! What an exchange becomes when a peer has agreed to go on with another protocol (RFC 9110 §7.8):
//! bytes both ways, that nobody here reads.

use std::time::Duration;

use bytes::BytesMut;

use super::Remains;
use crate::transport::Transport;
use crate::upstream::Seat;
use crate::wheel::Deadline;

/// The far end of a tunnel: a peer that waits for bytes of the protocol that it was offered.
///
/// Comes as the body of a response that says so. Whoever carries the exchange tells the client and
/// then passes bytes on; dropping it instead closes the connection to the peer.
pub struct Tunnel {
    /// What is spoken from now on, as the peer has named it: `websocket`.
    pub protocol: Box<[u8]>,
    /// The connection to the peer.
    pub far: Transport,
    /// That connection's own time.
    pub deadline: Deadline,
    /// What the peer has said already.
    pub early: BytesMut,
    /// When nothing has moved for so long, it is over.
    pub idle: Duration,
    /// The place at the peer, given back at the end.
    #[expect(dead_code, reason = "held, not looked at")]
    pub seat: Seat,
    /// What is left of its exchange.
    pub remains: Option<Remains>,
}
