//! Connections that begin with a header of the PROXY protocol, because the server in front passes
//! bytes on and knows nothing of HTTP.

mod parse;

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use forebay_sys::net::to_unmapped;

use self::parse::{Ends, Header, MAX_HEADER, Malformed, parse};
use super::place::{Place, serve};
use crate::exchange::Remote;
use crate::log::Throttle;
use crate::protocol::h1::{LAST_CALL, Link, Phase, Registered};

/// Nearly every header fits.
const FIRST_LOOK: usize = 256;

/// Why no header came.
enum Fault {
    Malformed(Malformed),
    TooSlow,
    /// The connection has ended, perhaps without a byte: who checks whether we listen does so.
    Gone,
}

/// Reads the header, then serves the connection for whom it names. Without a right one it is
/// closed, and nothing is said: who is there does not expect an answer.
pub async fn serve_behind_header(link: Rc<Link>, place: Place) {
    let received = {
        let _registered = Registered::new(&link);
        let now = link.worker.turn_ms();
        link.phase.set(Phase::Fresh(now));
        let time = if link.is_ending() {
            LAST_CALL
        } else {
            link.listener.times().header
        };
        link.deadline.set(now, time);
        let mut header = Vec::new();
        poll_fn(|cx| poll_header(&link, &mut header, cx)).await
    };
    link.phase.set(Phase::Busy);
    link.deadline.clear();
    match received {
        Ok(ends) => {
            if let Some(Ends {
                source,
                destination,
            }) = ends
            {
                link.remote.set(Remote {
                    address: to_unmapped(source),
                    local: to_unmapped(destination),
                    ..link.remote.get()
                });
            }
            serve(link, place);
        }
        Err(Fault::Malformed(malformed)) => refuse(&link, malformed),
        Err(Fault::TooSlow) => link.worker.counters.proxy_headers_late.add(1),
        Err(Fault::Gone) => {}
    }
}

/// Takes exactly the header out of the socket: what follows belongs to whoever reads next. So it is
/// looked at first, and taken out as far as it is known to be part of the header.
fn poll_header(
    link: &Link,
    header: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Ends>, Fault>> {
    loop {
        let start = header.len();
        header.resize((start + FIRST_LOOK).min(MAX_HEADER), 0);
        let peeked = link.poll_peek(cx, &mut header[start..]);
        let came = match &peeked {
            Poll::Ready(Ok(came)) => *came,
            _ => 0,
        };
        header.truncate(start + came);
        match peeked {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(_) => return Poll::Ready(Err(Fault::Gone)),
            Poll::Pending => {
                ready!(link.deadline.poll_expired(cx));
                return Poll::Ready(Err(Fault::TooSlow));
            }
        }
        let (len, done) = match parse(header) {
            Ok(Header::Complete { len, ends }) => (len, Some(ends)),
            Ok(Header::Partial) => (header.len(), None),
            Err(malformed) => return Poll::Ready(Err(Fault::Malformed(malformed))),
        };
        if take_out(link, &mut header[start..len]).is_err() {
            return Poll::Ready(Err(Fault::Gone));
        }
        if let Some(ends) = done {
            return Poll::Ready(Ok(ends));
        }
    }
}

/// Reads what has been looked at.
fn take_out(link: &Link, bytes: &mut [u8]) -> io::Result<()> {
    link.worker.counters.received_bytes.add(bytes.len() as u64);
    link.take_out(bytes)
}

fn refuse(link: &Link, malformed: Malformed) {
    static LOG: Throttle = Throttle::new();
    link.worker.counters.proxy_headers_malformed.add(1);
    if let Some(dropped) = LOG.pass() {
        let remote = link.remote.get().address;
        tracing::warn!(%remote, dropped, "a PROXY header is malformed: {malformed}");
    }
}
