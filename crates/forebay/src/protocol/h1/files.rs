//! Sending files straight from the kernel's memory.
//!
//! A body of 1 MiB costs half as much by `sendfile` as by a `writev` from our own memory: its pages
//! are not copied into the socket. But `sendfile` waits for a disk where a page is missing, and a
//! worker never waits; so each window is asked for first, and one that is not in memory is read by
//! the pool instead.

use std::future::poll_fn;
use std::task::{Context, Poll};

use forebay_sys::files::is_resident;

use super::link::Link;
use super::send::Form;
use super::waiting::send_stream;
use crate::exchange::{Fault, FileRange, Reason, guard};
use crate::files::FileStream;

/// How much is asked for, and checked to be unchanged, at one time.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// Between two turns of others, at most so much is sent: less than a socket takes at once.
const TURN_BYTES: u64 = 256 * 1024;

/// Sends a part of a file behind what is queued.
pub async fn send(link: &Link, range: FileRange) -> Result<(), Fault> {
    let FileRange {
        file,
        mut start,
        end,
    } = range;
    // The step that gave the range has just asked.
    let mut is_fresh = true;
    while start < end {
        let stop = end.min(start + WINDOW_BYTES);
        // Of another machine's file even that question would wait.
        let is_here = file.is_local && is_resident(&*file.file, start, stop - start) == Some(true);
        if is_here {
            if !std::mem::take(&mut is_fresh) && !file.is_unchanged() {
                return Err(Reason::FileChanged.into());
            }
            if start == 0 && stop == file.facts.len {
                file.set_at_hand(link.worker.now_ms());
            }
            let mut turn = 0;
            poll_fn(|cx| poll_window(link, &file.file, &mut start, stop, &mut turn, cx)).await?;
        } else {
            let window = FileRange {
                file: file.clone(),
                start,
                end: stop,
            };
            let mut stream = FileStream::new(&link.worker, window);
            send_stream(link, Form::Length(stop - start), &mut stream).await?;
            start = stop;
        }
    }
    Ok(())
}

/// Whether a part of a file can be sent without asking anything about it, in one turn.
pub fn is_at_hand(link: &Link, range: &FileRange) -> bool {
    let len = range.end - range.start;
    len <= TURN_BYTES && link.sends_files() && range.file.is_at_hand(link.worker.turn_ms())
}

/// Sends such a part; `range` is what is left of it.
pub fn poll_at_hand(
    link: &Link,
    range: &mut FileRange,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Fault>> {
    let (stop, mut turn) = (range.end, 0);
    poll_window(
        link,
        &range.file.file,
        &mut range.start,
        stop,
        &mut turn,
        cx,
    )
}

fn poll_window(
    link: &Link,
    file: &std::fs::File,
    start: &mut u64,
    stop: u64,
    turn: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Fault>> {
    while *start < stop {
        if *turn >= TURN_BYTES {
            *turn = 0;
            guard::end_turn(cx);
            return Poll::Pending;
        }
        match link.poll_send_file(cx, file, *start, stop - *start) {
            // Shorter than it was a moment ago.
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(Reason::FileChanged.into())),
            Poll::Ready(Ok(sent)) => {
                *start += sent;
                *turn += sent;
            }
            Poll::Ready(Err(error)) => {
                let fault = Fault::with(Reason::ClientGone, error.to_string());
                return Poll::Ready(Err(fault));
            }
            Poll::Pending => {
                if link.deadline.poll_expired(cx).is_ready() {
                    return Poll::Ready(Err(Reason::ClientTooSlow.into()));
                }
                return Poll::Pending;
            }
        }
    }
    Poll::Ready(Ok(()))
}
