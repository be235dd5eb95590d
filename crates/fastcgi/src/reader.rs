//! The row of records that both roles read: where one ends and the next begins.
//!
//! ```text
//!   Between ──header──▶ In { left } ──left = 0──▶ padding is skipped ──▶ Between
//! ```

use bytes::{Buf, Bytes, BytesMut};

use crate::fault::Fault;
use crate::record::{HEADER_LEN, Header, RecordType};

#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Content of the present record that was not taken yet.
    left: u16,
    /// Padding behind it, or behind the one before.
    padding: u8,
}

impl Reader {
    /// The next record's header, taken off the buffer; `None` if it is not there yet. To be
    /// asked when nothing is [`left`](Self::left) of the one before.
    pub(crate) fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Header>, Fault> {
        debug_assert_eq!(self.left, 0, "the last record was not read");
        if !self.settle(buf) {
            return Ok(None);
        }
        let Some(&bytes) = buf.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::read(bytes)?;
        buf.advance(HEADER_LEN);
        self.left = header.content;
        self.padding = header.padding;
        Ok(Some(header))
    }

    /// Takes padding off the buffer; true if nothing is left of the present record.
    pub(crate) fn settle(&mut self, buf: &mut BytesMut) -> bool {
        if self.left > 0 {
            return false;
        }
        let skipped = buf.len().min(self.padding.into());
        buf.advance(skipped);
        self.padding -= u8::try_from(skipped).unwrap_or(self.padding);
        self.padding == 0
    }

    /// How many bytes of the content have not been taken.
    pub(crate) fn left(&self) -> usize {
        self.left.into()
    }

    /// How many of them are in the buffer.
    pub(crate) fn ready(&self, buf: &BytesMut) -> usize {
        self.left().min(buf.len())
    }

    /// Takes content off the buffer; at most what is [`ready`](Self::ready).
    pub(crate) fn take(&mut self, buf: &mut BytesMut, len: usize) -> Bytes {
        let len = len.min(self.ready(buf));
        self.count(len);
        buf.split_to(len).freeze()
    }

    /// The same without keeping it.
    pub(crate) fn skip(&mut self, buf: &mut BytesMut, len: usize) {
        let len = len.min(self.ready(buf));
        self.count(len);
        buf.advance(len);
    }

    /// The whole content, once it is there.
    pub(crate) fn whole(&mut self, buf: &mut BytesMut) -> Option<Bytes> {
        let len = self.left();
        (buf.len() >= len).then(|| self.take(buf, len))
    }

    /// Whether the whole content is in the buffer, and behind it the empty record that ends its
    /// stream.
    pub(crate) fn is_last(&self, buf: &BytesMut, kind: RecordType, id: u16) -> bool {
        let end = self.left() + usize::from(self.padding);
        let header = buf.get(end..).and_then(<[u8]>::first_chunk);
        let next = header.and_then(|bytes| Header::read(*bytes).ok());
        next.is_some_and(|next| next.kind == kind as u8 && next.id == id && next.content == 0)
    }

    /// Whether the input could end here.
    pub(crate) fn is_between(&self, buf: &BytesMut) -> bool {
        self.left == 0 && buf.len() <= self.padding.into()
    }

    fn count(&mut self, len: usize) {
        self.left -= u16::try_from(len).unwrap_or(self.left);
    }
}
