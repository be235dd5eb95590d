//! Those who follow the bytes of an object.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::body::{BLOCK_BYTES, Look, Place};
use crate::object::{Meta, Object};

/// Follows the bytes of an object.
pub struct Reader<M: Meta> {
    object: Arc<Object<M>>,
    at: u64,
    end: Option<u64>,
    place: Place,
    is_counted: bool,
}

/// What a reader gets.
pub enum Read {
    /// The next bytes.
    Data(Bytes),
    /// There are no more.
    End,
    /// What comes next, from this byte on, is not there, and nobody brings it.
    Absent(u64),
    /// What comes next, from this byte on, comes only after much else; said once.
    Far(u64),
    /// Who was to bring the rest could not.
    Failed,
}

impl<M: Meta> Reader<M> {
    /// Of these bytes; an open end is that of the body.
    pub fn new(object: Arc<Object<M>>, at: u64, end: Option<u64>) -> Reader<M> {
        let is_counted = object.body.add_reader();
        Reader {
            object,
            at,
            end,
            place: Place::default(),
            is_counted,
        }
    }

    /// What it reads.
    pub fn object(&self) -> &Arc<Object<M>> {
        &self.object
    }

    /// Where it ends, if that is not the end of the body.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// Where it stands, in bytes from the body's beginning.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next bytes: at once what is there, or when they come.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        if self.end.is_some_and(|end| self.at >= end) {
            return Poll::Ready(Read::End);
        }
        let look = self.object.body.look(self.at, &mut self.place, cx);
        Poll::Ready(match look {
            Look::Data(mut bytes) => {
                let left = self.end.map_or(u64::MAX, |end| end - self.at);
                if bytes.len() as u64 > left {
                    bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                }
                let block = self.at / BLOCK_BYTES;
                self.at += bytes.len() as u64;
                if self.at / BLOCK_BYTES != block {
                    self.object.body.note_position(self.at);
                }
                Read::Data(bytes)
            }
            Look::End => Read::End,
            Look::Wait => {
                self.object.body.note_position(self.at);
                return Poll::Pending;
            }
            Look::Far => Read::Far(self.at),
            Look::Absent => {
                self.object.body.note_position(self.at);
                Read::Absent(self.at)
            }
            Look::Failed => Read::Failed,
        })
    }
}

impl<M: Meta> Drop for Reader<M> {
    fn drop(&mut self) {
        if self.is_counted {
            self.object.body.remove_reader();
        }
    }
}
