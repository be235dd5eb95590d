//! What programs say on their error stream: into the error log, line by line.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::unix::pipe;

use crate::counters::SiteCounts;
use crate::helper::programs::Watch;
use crate::log::Split;

/// Whose words they are.
pub struct Speaker {
    /// The site, if there is one.
    pub site: Option<Arc<SiteCounts>>,
    /// The request's number.
    pub id: u64,
    /// Its path below the root.
    pub program: Vec<u8>,
}

/// Lines of one program that are logged; the others are counted.
const MAX_LINES: usize = 100;
/// Bytes that are read at a time.
const READ: usize = 4096;

/// Logs what comes, until the program has ended or has closed its error stream.
pub async fn log(errors: pipe::Receiver, watch: Watch, speaker: Speaker) {
    let mut lines = Lines {
        speaker,
        logged: 0,
        dropped: 0,
    };
    let mut split = Split::default();
    let mut held = BytesMut::new();
    loop {
        let is_over = tokio::select! {
            biased;
            ready = errors.readable() => ready.is_err(),
            // What it has left behind may hold the stream for ever.
            () = watch.over() => true,
        };
        loop {
            held.reserve(READ);
            match errors.try_read_buf(&mut held) {
                Ok(0) => return lines.finish(split.rest(&mut held)),
                Ok(_) => split.each(&mut held, |line| lines.line(line)),
                Err(_) => break,
            }
        }
        if is_over {
            return lines.finish(split.rest(&mut held));
        }
        // Nothing is held for a program that says nothing.
        if held.is_empty() {
            held = BytesMut::new();
        }
    }
}

struct Lines {
    speaker: Speaker,
    logged: usize,
    dropped: u64,
}

impl Lines {
    fn line(&mut self, line: &[u8]) {
        if self.logged == MAX_LINES {
            self.dropped += 1;
            return;
        }
        self.logged += 1;
        let text = line.escape_ascii();
        tracing::warn!(
            site = self.site(),
            id = format_args!("{:016x}", self.speaker.id),
            program = %self.speaker.program.escape_ascii(),
            "{text}"
        );
    }

    fn site(&self) -> &str {
        self.speaker.site.as_ref().map_or("", |site| &site.name)
    }

    fn finish(mut self, rest: Option<BytesMut>) {
        if let Some(rest) = rest {
            self.line(&rest);
        }
        if self.dropped > 0 {
            tracing::warn!(
                site = self.site(),
                id = format_args!("{:016x}", self.speaker.id),
                program = %self.speaker.program.escape_ascii(),
                "{} more lines were dropped",
                self.dropped
            );
        }
    }
}
