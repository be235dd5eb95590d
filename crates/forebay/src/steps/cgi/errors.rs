//! What programs say on their error stream: into the error log, line by line.

use std::sync::Arc;

use tokio::net::unix::pipe;

use crate::counters::SiteCounts;
use crate::helper::programs::{Watch, each_line};

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

/// Logs what comes, until the program has ended or has closed its error stream.
pub async fn log(errors: pipe::Receiver, watch: Watch, speaker: Speaker) {
    let mut lines = Lines {
        speaker,
        logged: 0,
        dropped: 0,
    };
    each_line(errors, watch, |line| lines.line(line)).await;
    lines.finish();
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

    fn finish(self) {
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
