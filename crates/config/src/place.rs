//! Where something stands in the sources: compact places, and the texts that turn them into lines
//! and columns when a message is shown.

use std::path::{Path, PathBuf};

/// A span of one source file, as byte offsets.
///
/// Small and `Copy`, because every node of a configuration carries one; line and column are only
/// worked out by [`Sources::span`], when something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    file: u32,
    start: u32,
    end: u32,
}

impl Place {
    /// The place of what stands in no file: a default, or a value of the program itself.
    pub const NONE: Place = Place {
        file: u32::MAX,
        start: 0,
        end: 0,
    };

    /// The start of the main file.
    pub(crate) const START: Place = Place {
        file: 0,
        start: 0,
        end: 0,
    };

    /// The bytes `start..end` of the file with this number (see [`Sources`]).
    pub fn new(file: u32, start: usize, end: usize) -> Place {
        // Sources are limited to far less than 4 GiB when they are read.
        let cut = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Place {
            file,
            start: cut(start),
            end: cut(end.max(start)),
        }
    }

    /// Whether it stands in a file.
    pub fn is_known(self) -> bool {
        self.file != u32::MAX
    }

    pub(crate) fn offsets(self) -> (u32, u32) {
        (self.start, self.end)
    }

    /// The number of its file, in the order in which files were loaded.
    pub fn file(self) -> u32 {
        self.file
    }
}

/// A place as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The file, as the operator wrote it.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// The column behind the last character; never before `column`. A span of several lines ends
    /// with its first one.
    pub end_column: u32,
    /// The whole line, without its end.
    pub text: String,
}

/// The sources of one load.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    name: String,
    path: PathBuf,
    text: Vec<u8>,
    /// The offset of each line's first byte.
    lines: Vec<u32>,
}

impl Sources {
    /// Adds a file and returns its number. `name` is what messages call it.
    pub fn add(&mut self, name: &str, path: &Path, text: Vec<u8>) -> u32 {
        let mut lines = vec![0];
        for (at, byte) in text.iter().enumerate() {
            if *byte == b'\n' {
                lines.push(u32::try_from(at + 1).unwrap_or(u32::MAX));
            }
        }
        self.files.push(Source {
            name: name.to_owned(),
            path: path.to_owned(),
            text,
            lines,
        });
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The text of a file; empty for a number that was not given out.
    pub fn text(&self, file: u32) -> &[u8] {
        self.get(file).map_or(&[], |source| &source.text)
    }

    /// The paths of all files, in the order in which they were loaded.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|source| source.path.as_path())
    }

    /// A place with the trimmed text of this line (from 1); the last line if there are fewer.
    pub fn line_place(&self, file: u32, line: u32) -> Place {
        let Some(source) = self.get(file) else {
            return Place::NONE;
        };
        let index = usize::try_from(line.max(1) - 1)
            .unwrap_or(0)
            .min(source.lines.len() - 1);
        let (start, end) = source.line(index);
        let text = &source.text[start..end];
        let lead = text
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        let tail = text[lead..]
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        Place::new(file, start + lead, end - tail)
    }

    /// The byte offsets of this line (from 1) in its file, without the line's end.
    pub(crate) fn line_range(&self, file: u32, line: u32) -> Option<(usize, usize)> {
        let source = self.get(file)?;
        let index = usize::try_from(line.checked_sub(1)?).ok()?;
        (index < source.lines.len()).then(|| source.line(index))
    }

    /// File, line and columns of a place. A place in no file is the start of the main file.
    pub fn span(&self, place: Place) -> Span {
        let place = if place.is_known() {
            place
        } else {
            Place::new(0, 0, 0)
        };
        let Some(source) = self.get(place.file) else {
            return Span {
                file: String::new(),
                line: 1,
                column: 1,
                end_column: 1,
                text: String::new(),
            };
        };
        let offset = place
            .start
            .min(u32::try_from(source.text.len()).unwrap_or(u32::MAX));
        let index = source.lines.partition_point(|start| *start <= offset) - 1;
        let (line_start, line_end) = source.line(index);
        let start = usize::try_from(offset)
            .unwrap_or(0)
            .min(line_end)
            .max(line_start);
        let end = usize::try_from(place.end)
            .unwrap_or(start)
            .clamp(start, line_end);
        let column = 1 + characters(&source.text[line_start..start]);
        Span {
            file: source.name.clone(),
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            column,
            end_column: column + characters(&source.text[start..end]),
            text: String::from_utf8_lossy(&source.text[line_start..line_end]).into_owned(),
        }
    }

    fn get(&self, file: u32) -> Option<&Source> {
        self.files.get(usize::try_from(file).ok()?)
    }
}

impl Source {
    fn line(&self, index: usize) -> (usize, usize) {
        let offset = |line: usize| {
            self.lines
                .get(line)
                .and_then(|at| usize::try_from(*at).ok())
        };
        let start = offset(index).unwrap_or(0);
        let mut end = offset(index + 1).map_or(self.text.len(), |next| next - 1);
        if end > start && self.text[end - 1] == b'\r' {
            end -= 1;
        }
        (start, end.max(start))
    }
}

fn characters(bytes: &[u8]) -> u32 {
    u32::try_from(String::from_utf8_lossy(bytes).chars().count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns() {
        let mut sources = Sources::default();
        let file = sources.add(
            "f.lua",
            Path::new("/f.lua"),
            b"ab\r\n  c\xc3\xa4d e\n\n".to_vec(),
        );
        let span = |start, end| {
            let span = sources.span(Place::new(file, start, end));
            (span.line, span.column, span.end_column, span.text)
        };
        assert_eq!(span(0, 2), (1, 1, 3, "ab".to_owned()));
        assert_eq!(span(9, 10), (2, 5, 6, "  cäd e".to_owned()));
        assert_eq!(span(6, 60), (2, 3, 8, "  cäd e".to_owned()));
        assert_eq!(span(13, 13), (3, 1, 1, String::new()));
        assert_eq!(span(99, 120), (4, 1, 1, String::new()));
        assert_eq!(sources.line_place(file, 2), Place::new(file, 6, 12));
        assert_eq!(sources.line_place(file, 77), Place::new(file, 14, 14));
        assert_eq!(sources.span(Place::NONE).line, 1);
    }
}
