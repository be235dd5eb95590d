//! A queue that takes no more memory than what stands in it.

use std::collections::VecDeque;

/// A row of pieces, each as long as the others: one that grows as a whole takes up to three times
/// what it holds while it is moved.
pub(super) struct Fifo<T> {
    pieces: VecDeque<VecDeque<T>>,
    len: usize,
}

/// So many stand in one piece.
const PIECE: usize = 256;

impl<T> Default for Fifo<T> {
    fn default() -> Fifo<T> {
        Fifo {
            pieces: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> Fifo<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, one: T) {
        self.len += 1;
        match self.pieces.back_mut() {
            Some(piece) if piece.len() < PIECE => piece.push_back(one),
            _ => {
                let mut piece = VecDeque::with_capacity(PIECE);
                piece.push_back(one);
                self.pieces.push_back(piece);
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let piece = self.pieces.front_mut()?;
        // No piece is ever empty.
        let one = piece.pop_front();
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        self.len -= usize::from(one.is_some());
        one
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut kept = Fifo::default();
        while let Some(one) = self.pop() {
            if keep(&one) {
                kept.push(one);
            }
        }
        *self = kept;
    }

    /// The memory it takes, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.pieces.len() * PIECE * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_queue() {
        let mut fifo = Fifo::default();
        for number in 0..1000 {
            fifo.push(number);
        }
        assert_eq!(fifo.heap_bytes(), 1024 * size_of::<i32>());
        for number in 0..300 {
            assert_eq!(fifo.pop(), Some(number));
        }
        fifo.retain(|number| number % 2 == 0);
        assert_eq!(fifo.len(), 350);
        assert_eq!(fifo.pop(), Some(300));
        while fifo.pop().is_some() {}
        assert_eq!((fifo.len(), fifo.heap_bytes()), (0, 0));
    }
}
