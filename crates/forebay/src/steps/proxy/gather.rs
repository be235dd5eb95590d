//! Taking the body of a request in before it is passed on.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use crate::exchange::{Body, Fault, Pulled, Reason, Stream};

/// A body of which the beginning was taken in already.
struct Begun {
    held: Option<Bytes>,
    rest: Box<dyn Stream>,
    len_bytes: Option<u64>,
}

/// Takes in a body until `most` bytes are there. One that ends before that comes back as bytes; of
/// another one what was taken in goes ahead of the rest.
pub async fn take_in(body: Body, most: usize) -> Result<Body, Fault> {
    let Body::Stream(mut rest) = body else {
        return Ok(body);
    };
    let len_bytes = rest.len_bytes();
    // Copied: a client that sends single bytes would have as many slices of buffers held for it.
    let mut held = BytesMut::new();
    while held.len() <= most {
        match poll_fn(|cx| rest.poll_pull(cx)).await {
            Pulled::Data(bytes) => held.extend_from_slice(&bytes),
            Pulled::End(_) => return Ok(held.freeze().into()),
            Pulled::Abort(fault) => return Err(fault),
        }
    }
    Ok(Body::Stream(Box::new(Begun {
        held: Some(held.freeze()),
        rest,
        len_bytes,
    })))
}

/// A body whose length is known: one that has not told it is taken in, up to `most` bytes. CGI has no
/// other way to say where a body ends than how long it is (RFC 3875 §4.2).
///
/// # Errors
/// It is longer than that, or does not come.
pub async fn with_length(body: Body, most: usize) -> Result<Body, Fault> {
    if body.len_bytes().is_some() {
        return Ok(body);
    }
    let body = Box::pin(take_in(body, most)).await?;
    match body.len_bytes() {
        Some(_) => Ok(body),
        None => Err(Reason::LengthRequired.into()),
    }
}

impl Stream for Begun {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        match self.held.take() {
            Some(bytes) => Poll::Ready(Pulled::Data(bytes)),
            None => self.rest.poll_pull(cx),
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        self.len_bytes
    }

    // `limit` has been called on what it is made of, by whoever took that out of the request.
}
