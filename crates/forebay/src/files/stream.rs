//! A part of a file as a stream of windows.
//!
//! A window is read into a buffer of the worker's and goes out as a slice of that same buffer; once
//! the writer has let go of it, the next window is read into the same place. Nothing is allocated
//! between the first window and the last as long as they come from memory.
//!
//! Windows grow from [`FIRST`] to [`LARGE_BUFFER_BYTES`] while the client takes them as fast as they
//! come, and shrink to [`BUFFER_BYTES`] when it does not: what a slow client has not taken yet is
//! what its download costs, and there may be thousands of them.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use forebay_sys::files::Facts;

use super::OpenFile;
use crate::exchange::{Fault, FileRange, Local, Pulled, Reason, Stream};
use crate::worker::{BUFFER_BYTES, LARGE_BUFFER_BYTES, Worker};

/// The first window of a long body.
const FIRST: usize = 64 * 1024;

/// A client that takes longer than this for a window is a slow one.
const SLOW_MS: u64 = 100;

/// Windows this long are sent without a pause before they become longer: sockets take a few at once
/// even when nobody reads at the other end, so the first ones say nothing of the client.
const GROW_AFTER: u64 = 4 << 20;

/// Reads a part of a file as it is pulled.
pub struct FileStream {
    worker: Rc<Worker>,
    file: Rc<OpenFile>,
    /// What is still to be read.
    at: u64,
    end: u64,
    len_bytes: u64,
    /// The window's place; empty while the pool has it, and before the first.
    buffer: BytesMut,
    /// Whether that is a large one.
    is_large: bool,
    window_bytes: usize,
    /// Sent since the client was last slow.
    fast_bytes: u64,
    pulled_ms: u64,
    waiting: Option<Local<'static, Result<Window, Fault>>>,
}

/// What the pool has read.
struct Window {
    buffer: BytesMut,
    read: io::Result<usize>,
    facts: io::Result<Facts>,
}

impl FileStream {
    /// A stream of this part.
    pub fn new(worker: &Rc<Worker>, range: FileRange) -> FileStream {
        FileStream {
            worker: worker.clone(),
            at: range.start,
            end: range.end,
            len_bytes: range.end - range.start,
            file: range.file,
            buffer: BytesMut::new(),
            is_large: false,
            window_bytes: FIRST,
            fast_bytes: 0,
            pulled_ms: worker.now_ms(),
            waiting: None,
        }
    }

    /// How long the next window may be, by how the client has taken the last one.
    fn adapt(&mut self) -> usize {
        let now = self.worker.now_ms();
        let took = now.saturating_sub(self.pulled_ms);
        self.pulled_ms = now;
        if took > SLOW_MS {
            self.window_bytes = BUFFER_BYTES;
            self.fast_bytes = 0;
        } else if self.fast_bytes >= GROW_AFTER {
            self.window_bytes = LARGE_BUFFER_BYTES;
        } else if self.window_bytes < FIRST && self.fast_bytes >= FIRST as u64 {
            self.window_bytes = FIRST;
        }
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        self.window_bytes.min(left)
    }

    /// Makes the last pull have been at another time.
    #[cfg(test)]
    pub fn pretend_pulled(&mut self, at_ms: u64) {
        self.pulled_ms = at_ms;
    }

    /// An empty buffer with room for `len`: the one at hand if nobody reads it any more.
    fn room(&mut self, len: usize) -> BytesMut {
        let is_large = len > BUFFER_BYTES;
        let bytes = if is_large {
            LARGE_BUFFER_BYTES
        } else {
            BUFFER_BYTES
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        if is_large == self.is_large && buffer.try_reclaim(bytes) {
            return buffer;
        }
        self.give_back(buffer);
        self.is_large = is_large;
        if is_large {
            self.worker.large_buffer()
        } else {
            self.worker.buffer()
        }
    }

    fn give_back(&self, mut buffer: BytesMut) {
        if self.is_large {
            // A window that filled it has left nothing of it visible.
            let _ = buffer.try_reclaim(LARGE_BUFFER_BYTES);
            self.worker.give_back_large(buffer);
        } else {
            self.worker.give_back(buffer);
        }
    }

    /// Reads the window on the pool.
    fn start(&mut self, mut buffer: BytesMut, len: usize) {
        let disk = self.worker.files.disk.clone();
        let file = self.file.file.clone();
        let offset = self.at;
        let device = self.file.facts.device;
        self.waiting = Some(Box::pin(self.worker.files.pool.run(device, move || {
            let read = disk.read(&file, offset, &mut buffer, len);
            // After the bytes: what they were read from is what it was.
            let facts = Facts::of(&*file);
            Window {
                buffer,
                read,
                facts,
            }
        })));
    }

    /// Takes what was read, if the file is still what it was.
    fn take(&mut self, window: Window) -> Pulled {
        let Window {
            mut buffer,
            read,
            facts,
        } = window;
        match (read, facts) {
            (Ok(1..), Ok(facts)) if facts == self.file.facts => {
                let data = buffer.split().freeze();
                self.buffer = buffer;
                self.at += data.len() as u64;
                self.fast_bytes += data.len() as u64;
                Pulled::Data(data)
            }
            (Ok(_), Ok(_)) => Pulled::Abort(Reason::FileChanged.into()),
            (Err(error), _) | (_, Err(error)) => {
                Pulled::Abort(Fault::with(Reason::FileFailed, error.to_string()))
            }
        }
    }
}

impl Stream for FileStream {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        if self.waiting.is_none() {
            if self.at >= self.end {
                return Poll::Ready(Pulled::End(None));
            }
            let len = self.adapt();
            let mut buffer = self.room(len);
            let disk = &self.worker.files.disk;
            match disk.read_now(&self.file.file, self.at, &mut buffer, len) {
                Ok(None) => self.start(buffer, len),
                read => {
                    let read = read.map(|read| read.unwrap_or(0));
                    let facts = Facts::of(&*self.file.file);
                    return Poll::Ready(self.take(Window {
                        buffer,
                        read,
                        facts,
                    }));
                }
            }
        }
        let Some(waiting) = &mut self.waiting else {
            return Poll::Ready(Pulled::Abort(Reason::Internal.into()));
        };
        let window = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        // The disk's time is not the client's.
        self.pulled_ms = self.worker.now_ms();
        Poll::Ready(match window {
            Ok(window) => self.take(window),
            Err(fault) => Pulled::Abort(fault),
        })
    }

    fn len_bytes(&self) -> Option<u64> {
        Some(self.len_bytes)
    }
}

impl Drop for FileStream {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.give_back(buffer);
    }
}
