//! The body of a request, read from its connection as it is pulled.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use forebay_http1::Part;

use super::Link;
use crate::exchange::{Fault, Pulled, Reason, Stream};

/// Reads the body of the request under way on `link`.
pub struct ClientBody {
    link: Rc<Link>,
    len_bytes: Option<u64>,
    left_bytes: u64,
}

impl ClientBody {
    /// The body of the request whose head has just been read.
    pub fn new(link: &Rc<Link>, len_bytes: Option<u64>) -> ClientBody {
        link.with_desk(|desk| desk.body_is_read = true);
        ClientBody {
            link: link.clone(),
            len_bytes,
            left_bytes: u64::MAX,
        }
    }

    /// Notes that the client has moved, or that we wait for it. False: it is too slow.
    fn note(&self, moved: Option<usize>) -> bool {
        let now = self.link.worker.now_ms();
        let note = self.link.with_desk(|desk| match moved {
            Some(bytes) => desk.pace_in.moved(now, bytes as u64),
            None => {
                desk.pace_in.wait(now);
                true
            }
        });
        note.unwrap_or(true)
    }

    fn decode(&mut self) -> Option<Pulled> {
        let part = self
            .link
            .with_desk(|desk| desk.body.decode(&mut desk.input));
        match part {
            Some(Ok(Part::Data(bytes))) => {
                let len = bytes.len() as u64;
                if len > self.left_bytes {
                    return Some(Pulled::Abort(Reason::BodyTooLarge.into()));
                }
                self.left_bytes -= len;
                Some(Pulled::Data(bytes))
            }
            Some(Ok(Part::End)) => {
                let trailers = self.link.with_desk(|desk| desk.body.take_trailers());
                Some(Pulled::End(trailers.flatten().map(Box::new)))
            }
            Some(Ok(Part::NeedMore)) => None,
            Some(Err(error)) => Some(Pulled::Abort(Fault::with(
                Reason::BodyMalformed,
                error.to_string(),
            ))),
            None => Some(Pulled::Abort(Reason::ClientGone.into())),
        }
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.link.with_desk(|desk| desk.body_is_read = false);
    }
}

impl Stream for ClientBody {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        let link = self.link.clone();
        // The first pull is what the client with `Expect: 100-continue` waits for (RFC 9110
        // §10.1.1). One that has sent some of the body already does not wait any more.
        link.with_desk(|desk| {
            if std::mem::take(&mut desk.expects_continue) && desk.input.is_empty() {
                desk.out
                    .tail()
                    .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        });
        // Also sends what waits before the body: the answers to pipelined requests.
        if let Poll::Ready(Err(error)) = link.poll_flush(cx) {
            return Poll::Ready(Pulled::Abort(Fault::with(
                Reason::ClientGone,
                error.to_string(),
            )));
        }
        loop {
            if let Some(pulled) = self.decode() {
                link.deadline.clear();
                return Poll::Ready(pulled);
            }
            match link.poll_fill(cx) {
                Poll::Ready(Ok(0)) => {
                    let fault = Fault::with(Reason::BodyMalformed, "it ended inside the body");
                    return Poll::Ready(Pulled::Abort(fault));
                }
                Poll::Ready(Ok(read)) => {
                    if !self.note(Some(read)) {
                        return Poll::Ready(Pulled::Abort(Reason::BodyTooSlow.into()));
                    }
                }
                Poll::Ready(Err(error)) => {
                    let fault = Fault::with(Reason::ClientGone, error.to_string());
                    return Poll::Ready(Pulled::Abort(fault));
                }
                Poll::Pending => {
                    self.note(None);
                    if !link.deadline.is_set() {
                        link.arm(link.listener.times().body);
                    }
                    ready!(link.deadline.poll_expired(cx));
                    link.deadline.clear();
                    return Poll::Ready(Pulled::Abort(Reason::BodyTooSlow.into()));
                }
            }
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len_bytes
    }

    fn limit(&mut self, max_bytes: u64) {
        self.left_bytes = max_bytes;
    }
}
