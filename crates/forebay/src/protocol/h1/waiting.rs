//! An exchange that cannot be answered on the spot: a step waits, the body streams, or the
//! request's body is still to come. Runs in a box of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::files;
use super::send::{self, Form, Leftover};
use super::tunnel::{self, LOOK};
use super::{Asked, FLUSH_BYTES, Link, Next};
use crate::exchange::{
    Body, CLIENT_LEFT, Exchange, Fault, Pulled, Reason, Response, Stream, dress, guard,
};
use crate::files::FileStream;
use crate::wheel::Deadline;
use crate::worker::BUFFER_BYTES;

/// Between two turns of others, at most so much of a body is sent.
const TURN_BYTES: usize = 256 * 1024;

/// Takes the exchange to its end. `response` is there if only its body, or the request's, needs
/// time.
pub async fn finish(
    link: &Rc<Link>,
    exchange: &mut Exchange,
    asked: Asked,
    response: Option<Response>,
) -> Next {
    link.eof_is_gone.set(false);
    exchange.begin_waiting();
    let response = match response {
        Some(response) => Some(response),
        None => {
            exchange.interim = Some(link.clone());
            run(link, exchange).await
        }
    };
    let Some(mut response) = response else {
        link.worker.counters.fault(Reason::ClientGone);
        exchange.outcome.status = CLIENT_LEFT;
        exchange.outcome.fault = Some(Reason::ClientGone);
        return Next::Drop;
    };
    dress(exchange, &mut response);
    // Whatever the steps have not taken of the request's body nobody will want any more.
    exchange.request.set_body(Body::Empty);
    let leftover = send::leftover(link);
    if let Body::Tunnel(_) = response.body {
        exchange.outcome.status = response.status;
        return tunnel::begin(link, exchange, response, leftover);
    }
    let mut keep = asked.keep && !link.is_ending() && leftover != Leftover::Large;
    let form = send::write_head(link, exchange, asked, &mut response, &mut keep);
    // The site is needed no more: a slow download must not keep an old configuration in memory.
    exchange.release_site();
    let mut tally = Tally {
        link,
        exchange,
        is_over: false,
    };
    let body = std::mem::take(&mut response.body);
    link.worker
        .give_back_fields(std::mem::take(&mut response.fields));
    let sent = match body {
        _ if form == Form::None => Ok(()),
        Body::Empty => Ok(()),
        Body::Bytes(bytes) => {
            let is_large = bytes.len() > FLUSH_BYTES;
            send::write_data(link, form, bytes);
            match is_large {
                true => send_stream(link, form, &mut Nothing).await,
                false => Ok(()),
            }
        }
        Body::File(range) if link.sends_files() && form != Form::Chunked => {
            files::send(link, range).await
        }
        Body::File(range) => {
            send_stream(link, form, &mut FileStream::new(&link.worker, range)).await
        }
        Body::Stream(mut stream) => send_stream(link, form, &mut *stream).await,
        Body::Tunnel(_) => Err(Reason::Internal.into()),
    };
    tally.is_over = true;
    drop(tally);
    if let Err(fault) = sent {
        send::break_off(link, &fault, form);
        return Next::Drop;
    }
    if leftover == Leftover::Small && keep && !drain(link).await {
        return Next::Drop;
    }
    match leftover {
        Leftover::Large => Next::Linger,
        _ if keep => Next::Go,
        _ => send::ended(link),
    }
}

/// Notes how much of a response was sent even where the exchange is cut, as at the server's stop.
struct Tally<'a> {
    link: &'a Link,
    exchange: &'a mut Exchange,
    is_over: bool,
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.link.tell(self.exchange, true);
        }
    }
}

/// What follows a body that is queued as a whole.
struct Nothing;

impl Stream for Nothing {
    fn poll_pull(&mut self, _: &mut Context<'_>) -> Poll<Pulled> {
        Poll::Ready(Pulled::End(None))
    }

    fn len_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

/// Runs the steps while looking after the client: one that leaves takes its exchange with it.
async fn run(link: &Rc<Link>, exchange: &mut Exchange) -> Option<Response> {
    let mut steps = pin!(guard::finish(exchange));
    let mut look = None;
    poll_fn(|cx| {
        // What was queued before goes first: answers to earlier requests.
        if let Poll::Ready(Err(_)) = link.poll_flush(cx) {
            return Poll::Ready(None);
        }
        if let Poll::Ready(response) = steps.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        match poll_gone(link, cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending if is_reset(link, &mut look, cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// While nobody reads the request's body, nobody sees that its client has left; and a step may wait
/// for long, as for its turn. So it is looked at now and then.
fn is_reset(link: &Link, look: &mut Option<Deadline>, cx: &mut Context<'_>) -> bool {
    if link.with_desk(|desk| desk.body.is_done()) != Some(false) {
        return false;
    }
    let look = look.get_or_insert_with(|| link.worker.wheel.register());
    if look.is_set() && look.poll_expired(cx).is_ready() {
        look.clear();
        if link.transport().broken().is_err() {
            return true;
        }
    }
    if !look.is_set() {
        look.set(link.worker.turn_ms(), LOOK);
    }
    // Not expired: set just now or looked at above. This is for being woken.
    let _ = look.poll_expired(cx);
    false
}

/// Ready when the client has left. The end of its input is a half-close, not leaving, unless a
/// step has said so; a reset is. While the request's body is still to come, whoever reads it sees
/// that; what comes behind it is the next request and is kept, up to a buffer full.
fn poll_gone(link: &Link, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if link.eof.get() {
            return if link.eof_is_gone.get() {
                Poll::Ready(())
            } else {
                Poll::Pending
            };
        }
        let may_read =
            link.with_desk(|desk| desk.body.is_done() && desk.input.len() < BUFFER_BYTES);
        if may_read != Some(true) {
            return Poll::Pending;
        }
        if ready!(link.poll_fill(cx)).is_err() {
            return Poll::Ready(());
        }
    }
}

/// Sends a body as it comes, and what is queued before it.
pub async fn send_stream(link: &Link, form: Form, stream: &mut dyn Stream) -> Result<(), Fault> {
    let mut flow = Flow {
        ahead: stream.read_ahead_bytes(),
        end: None,
        is_blocked: false,
        is_slow: false,
        turn: 0,
    };
    poll_fn(|cx| flow.poll_send(link, form, stream, cx)).await
}

struct Flow {
    /// While the client takes nothing, so much more is pulled.
    ahead: usize,
    /// How the body has ended, or was broken off; what is queued is the rest.
    end: Option<Result<(), Fault>>,
    /// The client takes nothing now.
    is_blocked: bool,
    /// It has been slower than we are before.
    is_slow: bool,
    /// Bytes since others had their turn.
    turn: usize,
}

/// What came of pulling.
#[derive(PartialEq, Eq)]
enum Pulls {
    /// Something was queued, or the end has come.
    Some,
    /// There is nothing yet.
    None,
    /// Nobody looked: enough is queued, or the end has come.
    Untried,
}

impl Flow {
    /// Pulls while the client takes; while it does not, pulls up to `ahead` bytes more, so that a
    /// small page frees its backend at once and a large one does not fill the memory.
    fn poll_send(
        &mut self,
        link: &Link,
        form: Form,
        stream: &mut dyn Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            // What comes at once leaves with what is queued, as the head, in one write.
            let pulls = self.pull(link, form, stream, cx);
            match link.poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.is_blocked = false;
                    link.deadline.clear();
                    if let Some(end) = self.end.take() {
                        return Poll::Ready(end);
                    }
                    if self.turn >= TURN_BYTES {
                        self.turn = 0;
                        guard::end_turn(cx);
                        return Poll::Pending;
                    }
                }
                Poll::Ready(Err(error)) => {
                    let fault = Fault::with(Reason::ClientGone, error.to_string());
                    return Poll::Ready(Err(fault));
                }
                Poll::Pending => {
                    (self.is_blocked, self.is_slow) = (true, true);
                    if !link.deadline.is_set() {
                        link.arm(link.listener.times().write);
                    }
                    if link.deadline.poll_expired(cx).is_ready() {
                        return Poll::Ready(Err(Reason::ClientTooSlow.into()));
                    }
                    if let Some(Err(fault)) = self.end.take_if(|end| end.is_err()) {
                        return Poll::Ready(Err(fault));
                    }
                    if self.has_enough(link) {
                        return match self.end {
                            Some(_) => Poll::Pending,
                            None => stream.poll_broken(cx).map(Err),
                        };
                    }
                }
            }
            if pulls == Pulls::None {
                // An event stream may be silent for long: its client must not be missed only when
                // there is something to say.
                ready!(poll_gone(link, cx));
                return Poll::Ready(Err(Reason::ClientGone.into()));
            }
        }
    }

    /// Whether no more is to be pulled before the client has taken some.
    fn has_enough(&self, link: &Link) -> bool {
        let queued = || link.with_desk(|desk| desk.out.len_bytes());
        self.end.is_some() || (self.is_blocked && queued().is_none_or(|len| len >= self.ahead))
    }

    /// Pulls one piece, or several where that costs no memory: one write of 256 KiB costs a fifth
    /// less than four of 64 KiB. Not for a client that is slower than we are, so that it does not
    /// keep blocks that the store has thrown out.
    fn pull(
        &mut self,
        link: &Link,
        form: Form,
        stream: &mut dyn Stream,
        cx: &mut Context<'_>,
    ) -> Pulls {
        if self.has_enough(link) {
            return Pulls::Untried;
        }
        let is_in_memory = !self.is_slow && stream.is_in_memory();
        let mut pulls = Pulls::None;
        loop {
            match stream.poll_pull(cx) {
                Poll::Ready(Pulled::Data(bytes)) => {
                    self.turn += bytes.len();
                    send::write_data(link, form, bytes);
                    pulls = Pulls::Some;
                    if !is_in_memory || self.turn >= TURN_BYTES {
                        return pulls;
                    }
                }
                Poll::Ready(Pulled::End(trailers)) => {
                    send::write_end(link, form, trailers.as_deref());
                    self.end = Some(Ok(()));
                    return Pulls::Some;
                }
                Poll::Ready(Pulled::Abort(fault)) => {
                    self.end = Some(Err(fault));
                    return Pulls::Some;
                }
                Poll::Pending => return pulls,
            }
        }
    }
}

/// Reads the small rest of a request's body away.
async fn drain(link: &Rc<Link>) -> bool {
    let mut rest = super::ClientBody::new(link, None);
    loop {
        match poll_fn(|cx| rest.poll_pull(cx)).await {
            Pulled::Data(_) => {}
            Pulled::End(_) => return true,
            Pulled::Abort(_) => return false,
        }
    }
}
