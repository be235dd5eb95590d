//! `multipart/byteranges`: several parts of one file as one body (RFC 9110 §14.6).

use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::answer::content_range;
use crate::exchange::{Body, Pulled, Stream};
use crate::files::FileStream;
use crate::worker::Worker;

/// Parts of a file, each behind a head of its own, pulled one after the other.
pub struct Parts {
    worker: Rc<Worker>,
    /// What has not been begun, the next one last.
    left: Vec<(Bytes, Body)>,
    /// What of the current part is still to come.
    current: Body,
    len_bytes: u64,
}

impl Parts {
    /// These parts of a file of `len` bytes and this type; `body` gives one part's bytes. Also the
    /// type of the whole.
    pub fn new(
        worker: &Rc<Worker>,
        ranges: &[Range<u64>],
        len: u64,
        kind: &[u8],
        body: impl Fn(Range<u64>) -> Body,
    ) -> (Parts, Vec<u8>) {
        // Drawn anew for each response, so that no file can be written to hold it.
        let boundary = format!("{:016x}{:016x}", worker.random(), worker.random());
        let mut left = Vec::with_capacity(ranges.len() + 1);
        for (at, range) in ranges.iter().enumerate() {
            let mut head = if at == 0 {
                Vec::new()
            } else {
                b"\r\n".to_vec()
            };
            for piece in [b"--", boundary.as_bytes(), b"\r\nContent-Type: ", kind] {
                head.extend_from_slice(piece);
            }
            head.extend_from_slice(b"\r\nContent-Range: ");
            head.extend_from_slice(&content_range(Some(range), len));
            head.extend_from_slice(b"\r\n\r\n");
            left.push((Bytes::from(head), body(range.clone())));
        }
        let end = format!("\r\n--{boundary}--\r\n");
        left.push((end.into(), Body::Empty));
        let head_bytes: usize = left.iter().map(|(head, _)| head.len()).sum();
        let body_bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        left.reverse();
        let parts = Parts {
            worker: worker.clone(),
            left,
            current: Body::Empty,
            len_bytes: head_bytes as u64 + body_bytes,
        };
        let kind = format!("multipart/byteranges; boundary={boundary}");
        (parts, kind.into())
    }
}

impl Stream for Parts {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        loop {
            match std::mem::take(&mut self.current) {
                // No part of a file is a tunnel.
                Body::Empty | Body::Tunnel(_) => {}
                Body::Bytes(bytes) => return Poll::Ready(Pulled::Data(bytes)),
                // Its windows are taken from the worker when its turn has come, not before.
                Body::File(range) => {
                    let stream = FileStream::new(&self.worker, range);
                    self.current = Body::Stream(Box::new(stream));
                    continue;
                }
                Body::Stream(mut stream) => {
                    let pulled = stream.poll_pull(cx);
                    if !matches!(pulled, Poll::Ready(Pulled::End(_))) {
                        self.current = Body::Stream(stream);
                        return Poll::Ready(ready!(pulled));
                    }
                }
            }
            match self.left.pop() {
                Some((head, body)) => {
                    self.current = body;
                    return Poll::Ready(Pulled::Data(head));
                }
                None => return Poll::Ready(Pulled::End(None)),
            }
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        Some(self.len_bytes)
    }
}
