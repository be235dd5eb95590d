//! A connection that speaks no HTTP any more: bytes to and from a peer, unread.
//!
//! ```text
//!   101 queued ─▶ sent ─▶ ┌ client ─▶ peer ┐ each: read ─▶ written ─▶ … ─▶ end ─▶ end told on
//!                         └ peer ─▶ client ┘
//! ```
//!
//! Either way holds one buffer while its receiver does not take what has come, and none otherwise:
//! then its sender is not read. Each ends by itself (a half-close is passed on), and the tunnel with
//! the second. What breaks one side breaks the other, so that both see that it was not an end.

use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::send::{self, Leftover};
use super::{Link, Next};
use crate::exchange::{Body, Exchange, Reason, Response, Tunnel, guard};
use crate::transport::Transport;
use crate::worker::Worker;

/// Between two turns of others, at most so much is passed on either way.
const TURN_BYTES: usize = 256 * 1024;

/// While one side does not take what the other has sent, that other one is not read; so whether it
/// is still there is looked at once in this time.
pub const LOOK: Duration = Duration::from_secs(2);

/// Queues the response that says it, and leaves the tunnel on the desk for [`run`].
pub fn begin(
    link: &Link,
    exchange: &mut Exchange,
    mut response: Response,
    leftover: Leftover,
) -> Next {
    let Body::Tunnel(mut tunnel) = std::mem::take(&mut response.body) else {
        return Next::Drop;
    };
    // What is still to come of the request would be taken for the other protocol.
    if leftover != Leftover::None {
        link.worker.counters.fault(Reason::Internal);
        exchange.outcome.fault = Some(Reason::Internal);
        return Next::Drop;
    }
    tunnel.remains = Some(exchange.leave_remains());
    send::write_switch(link, &response, &tunnel.protocol);
    link.worker.give_back_fields(response.fields);
    link.with_desk(|desk| desk.tunnel = Some(tunnel));
    Next::Tunnel
}

/// Passes on what comes until both sides have ended, or one breaks.
pub fn run(link: &Rc<Link>) -> impl Future<Output = ()> {
    let mut pipe = Pipe::of(link);
    poll_fn(move |cx| match &mut pipe {
        Some(pipe) => pipe.poll(cx),
        None => Poll::Ready(()),
    })
}

/// A tunnel under way.
struct Pipe {
    link: Rc<Link>,
    /// The peer's side.
    tunnel: Box<Tunnel>,
    /// From the client to the peer.
    up: Way,
    /// From the peer to the client.
    down: Way,
    /// The response that begins it has been sent.
    has_begun: bool,
}

/// One direction.
struct Way {
    /// What has come and was not taken yet.
    held: BytesMut,
    /// Since when it waits for its receiver.
    since_ms: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The sender has ended; the receiver will be told behind what is held.
    Ending,
    Ended,
}

/// What has moved in one turn, in bytes.
#[derive(Default, PartialEq, Eq)]
struct Moved {
    read: usize,
    written: usize,
}

/// Who has broken a tunnel.
enum Broken {
    Sender,
    Receiver,
}

impl Pipe {
    fn of(link: &Rc<Link>) -> Option<Pipe> {
        let (tunnel, early) = link
            .with_desk(|desk| Some((desk.tunnel.take()?, std::mem::take(&mut desk.input))))
            .flatten()?;
        let counters = &link.worker.counters;
        counters.tunnels.add(1);
        counters.tunnels_open.add(1);
        let mut pipe = Pipe {
            link: link.clone(),
            tunnel,
            up: Way::new(early),
            down: Way::new(BytesMut::new()),
            has_begun: false,
        };
        pipe.down.held = std::mem::take(&mut pipe.tunnel.early);
        if link.eof.get() {
            pipe.up.state = State::Ending;
        }
        Some(pipe)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_begun {
            if !ready!(super::poll_sent(&self.link, cx)) {
                return self.break_off(Reason::ClientGone);
            }
            self.link.close_desk();
            self.has_begun = true;
            self.moved();
        }
        let worker = &self.link.worker;
        let (mut going_up, mut going_down) = (Moved::default(), Moved::default());
        let (up, down) = {
            let near = &mut *self.link.transport();
            let far = &mut self.tunnel.far;
            (
                self.up.poll(worker, near, far, &mut going_up, cx),
                self.down.poll(worker, far, near, &mut going_down, cx),
            )
        };
        worker.counters.received_bytes.add(going_up.read as u64);
        worker.counters.sent_bytes.add(going_down.written as u64);
        if let Some(remains) = &mut self.tunnel.remains {
            remains.bytes += going_down.written as u64;
        }
        if going_up != Moved::default() || going_down != Moved::default() {
            self.moved();
        }
        match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            (Poll::Ready(Err(Broken::Sender)), _) | (_, Poll::Ready(Err(Broken::Receiver))) => {
                return self.break_off(Reason::ClientGone);
            }
            (Poll::Ready(Err(Broken::Receiver)), _) | (_, Poll::Ready(Err(Broken::Sender))) => {
                return self.break_off(Reason::UpstreamReset);
            }
            _ => {}
        }
        if let Some(reason) = self.trouble(cx) {
            return self.break_off(reason);
        }
        ready!(self.link.deadline.poll_expired(cx));
        self.break_off(Reason::TunnelIdle)
    }

    /// The time in which nothing may move starts anew.
    fn moved(&self) {
        let now = self.link.worker.turn_ms();
        self.link.deadline.set(now, self.tunnel.idle);
    }

    /// While one side takes nothing, the other is not read: is it still there? And the client may
    /// not keep its peer waiting for longer than any other client.
    fn trouble(&self, cx: &mut Context<'_>) -> Option<Reason> {
        let look = &self.tunnel.deadline;
        if self.up.since_ms.is_none() && self.down.since_ms.is_none() {
            look.clear();
            return None;
        }
        let now = self.link.worker.turn_ms();
        if look.is_set() && look.poll_expired(cx).is_ready() {
            look.clear();
            if self.link.transport().broken().is_err() {
                return Some(Reason::ClientGone);
            }
            if self.tunnel.far.broken().is_err() {
                return Some(Reason::UpstreamReset);
            }
            let write = self.link.listener.times().write;
            if let Some(since) = self.down.since_ms
                && u128::from(now.saturating_sub(since)) >= write.as_millis()
            {
                return Some(Reason::ClientTooSlow);
            }
        }
        if !look.is_set() {
            look.set(now, LOOK);
        }
        // Not expired, as it was set just now or looked at above; this is for being woken.
        let _ = look.poll_expired(cx);
        None
    }

    /// Both sides see that it did not come to its end.
    fn break_off(&mut self, reason: Reason) -> Poll<()> {
        self.link.worker.counters.fault(reason);
        if let Some(remains) = &mut self.tunnel.remains {
            remains.fault = Some(reason);
        }
        self.link.reset_on_close();
        self.tunnel.far.reset_on_close();
        Poll::Ready(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // What it has held is given back before it is counted as gone.
        self.tunnel.remains = None;
        let worker = &self.link.worker;
        worker.counters.tunnels_open.sub(1);
        self.up.let_go(worker);
        self.down.let_go(worker);
    }
}

impl Way {
    fn new(held: BytesMut) -> Way {
        Way {
            held,
            since_ms: None,
            state: State::Open,
        }
    }

    /// Passes on what comes; adds to `moved` what did. Ready at the end.
    fn poll(
        &mut self,
        worker: &Worker,
        from: &mut Transport,
        to: &mut Transport,
        moved: &mut Moved,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            while !self.held.is_empty() {
                if moved.written >= TURN_BYTES {
                    guard::end_turn(cx);
                    return Poll::Pending;
                }
                match to.poll_write(cx, &self.held, false) {
                    Poll::Ready(Ok(taken @ 1..)) => {
                        self.held.advance(taken);
                        self.since_ms = None;
                        moved.written += taken;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(Broken::Receiver)),
                    Poll::Pending => {
                        self.since_ms.get_or_insert(worker.turn_ms());
                        return Poll::Pending;
                    }
                }
            }
            self.let_go(worker);
            if self.state == State::Ending {
                // It may have gone altogether meanwhile; then the other way sees that.
                let _ = to.shutdown();
                self.state = State::Ended;
            }
            if self.state == State::Ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.poll_fill(worker, from, cx)) {
                Ok(0) => self.state = State::Ending,
                Ok(read) => moved.read += read,
                // Over TLS, an end that was not announced. Many applications end so, and a reset
                // would take what they have said last from who still reads it; whether it was all
                // is for the protocol inside to tell.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.state = State::Ending;
                }
                Err(_) => return Poll::Ready(Err(Broken::Sender)),
            }
        }
    }

    /// Reads what has come. A buffer is taken only when something has.
    fn poll_fill(
        &mut self,
        worker: &Worker,
        from: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        ready!(from.poll_read_ready(cx))?;
        self.held = worker.buffer();
        let read = from.poll_read(cx, &mut self.held);
        if self.held.is_empty() {
            self.let_go(worker);
        }
        read
    }

    fn let_go(&mut self, worker: &Worker) {
        if self.held.capacity() > 0 {
            worker.give_back(std::mem::take(&mut self.held));
        }
    }
}
