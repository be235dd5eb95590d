//! What programs say on their error stream: into the error log, line by line.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::net::unix::pipe;

use crate::counters::SiteCounts;
use crate::helper::programs::Watch;

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
/// Bytes of a line.
const MAX_LINE: usize = 1024;
/// Bytes that are read at a time.
const READ: usize = 4096;

/// Logs what comes, until the program has ended or has closed its error stream.
pub async fn log(errors: pipe::Receiver, watch: Watch, speaker: Speaker) {
    let mut lines = Lines {
        speaker,
        held: BytesMut::new(),
        is_cut: false,
        logged: 0,
        dropped: 0,
    };
    loop {
        let is_over = tokio::select! {
            biased;
            ready = errors.readable() => ready.is_err(),
            // What it has left behind may hold the stream for ever.
            () = watch.over() => true,
        };
        lines.held.reserve(READ);
        loop {
            match errors.try_read_buf(&mut lines.held) {
                Ok(0) => return lines.finish(),
                Ok(_) => lines.take(),
                Err(_) => break,
            }
            lines.held.reserve(READ);
        }
        if is_over {
            return lines.finish();
        }
        // Nothing is held for a program that says nothing.
        if lines.held.is_empty() {
            lines.held = BytesMut::new();
        }
    }
}

struct Lines {
    speaker: Speaker,
    held: BytesMut,
    /// The line that comes is longer than what was logged of it.
    is_cut: bool,
    logged: usize,
    dropped: u64,
}

impl Lines {
    /// Logs the lines that are complete, or too long.
    fn take(&mut self) {
        loop {
            let end = memchr::memchr(b'\n', &self.held);
            match end {
                Some(end) => {
                    let line = self.held.split_to(end);
                    self.held.advance(1);
                    if !std::mem::take(&mut self.is_cut) {
                        self.line(&line);
                    }
                }
                None if self.held.len() > MAX_LINE => {
                    let start = self.held.split();
                    if !std::mem::replace(&mut self.is_cut, true) {
                        self.line(&start);
                    }
                    return;
                }
                None => return,
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return;
        }
        if self.logged == MAX_LINES {
            self.dropped += 1;
            return;
        }
        self.logged += 1;
        let text = line.get(..MAX_LINE).unwrap_or(line).escape_ascii();
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

    fn finish(mut self) {
        let rest = self.held.split();
        if !self.is_cut {
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
