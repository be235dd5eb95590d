//! Lines of access logs on their way from a worker to the thread that writes them.

use std::sync::Arc;

use super::Sink;

/// Lines of one worker, of all its logs.
#[derive(Default)]
pub struct Batch {
    /// The lines, one behind the other.
    pub bytes: Vec<u8>,
    /// Which of them go where, in their order.
    pub runs: Vec<Run>,
}

/// Lines that follow one another and go to the same place.
pub struct Run {
    /// Where.
    pub sink: Arc<Sink>,
    /// Where they end in [`Batch::bytes`].
    pub end: usize,
    /// How many they are.
    pub lines: u64,
}

impl Batch {
    /// What it takes of the memory that lines may take.
    pub fn weight_bytes(&self) -> usize {
        self.bytes.capacity() + self.runs.capacity() * size_of::<Run>()
    }

    /// How many lines it has.
    pub fn lines(&self) -> u64 {
        self.runs.iter().map(|run| run.lines).sum()
    }

    /// Notes that everything behind the last run is one line that goes to `sink`.
    pub fn end_line(&mut self, sink: &Arc<Sink>) {
        let end = self.bytes.len();
        match self.runs.last_mut() {
            Some(run) if Arc::ptr_eq(&run.sink, sink) => {
                run.end = end;
                run.lines += 1;
            }
            _ => self.runs.push(Run {
                sink: sink.clone(),
                end,
                lines: 1,
            }),
        }
    }

    /// Forgets its lines, and keeps the room for others.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
    }
}
