//! Where something begins in what an origin sends: who joins begins there.

use bytes::Bytes;
use memchr::memmem::Finder;
use smallvec::SmallVec;

/// What begins where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Borders {
    /// Every piece, as the origin has sent it.
    Pieces,
    /// What stands behind an empty line, as in `text/event-stream`: lines end in CR, LF or both.
    EmptyLines,
    /// What begins with these bytes at the beginning of a line, as the parts of a multipart type
    /// do; with however many hyphens before them.
    Delimiter(Box<[u8]>),
}

/// The borders in one piece.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cuts {
    /// The first and the last of them, in bytes from its beginning. Between them lies nothing that
    /// anybody would begin with: who has waited begins at the first, who skips at the last.
    pub(super) within: SmallVec<[usize; 2]>,
    /// What comes next begins at one.
    pub(super) ends_at_border: bool,
}

/// Finds them, in whatever pieces the bytes come.
pub(super) enum Scanner {
    Pieces,
    EmptyLines {
        /// Nothing has come of the line yet.
        is_empty: bool,
        /// The last byte was a CR, to which a LF belongs; and whether its line was empty.
        after_cr: Option<bool>,
    },
    Delimiter {
        finder: Box<Finder<'static>>,
        /// What comes next is the beginning of a line.
        at_line: bool,
    },
}

impl Scanner {
    pub(super) fn new(borders: Borders) -> Scanner {
        match borders {
            Borders::Pieces => Scanner::Pieces,
            Borders::EmptyLines => Scanner::EmptyLines {
                is_empty: true,
                after_cr: None,
            },
            Borders::Delimiter(text) => Scanner::Delimiter {
                finder: Box::new(Finder::new(&text).into_owned()),
                at_line: true,
            },
        }
    }

    pub(super) fn scan(&mut self, bytes: &Bytes) -> Cuts {
        let mut cuts = Cuts::default();
        match self {
            Scanner::Pieces => cuts.ends_at_border = true,
            Scanner::EmptyLines { is_empty, after_cr } => {
                let mut at = 0;
                if let (Some(was_empty), Some(first)) = (*after_cr, bytes.first()) {
                    *after_cr = None;
                    at = usize::from(*first == b'\n');
                    if at == 1 && was_empty {
                        cuts.note(at, bytes.len());
                    }
                }
                while let Some(found) = memchr::memchr2(b'\r', b'\n', &bytes[at..]) {
                    let end = at + found;
                    let was_empty = *is_empty && found == 0;
                    let is_pair = bytes[end..].starts_with(b"\r\n");
                    at = end + 1 + usize::from(is_pair);
                    if was_empty {
                        cuts.note(at, bytes.len());
                    }
                    if bytes[end] == b'\r' && at == bytes.len() && !is_pair {
                        *after_cr = Some(was_empty);
                    }
                    *is_empty = true;
                }
                *is_empty &= at == bytes.len();
            }
            Scanner::Delimiter { finder, at_line } => {
                let mut found = finder.find_iter(bytes);
                let line = |at: usize| {
                    let before = bytes[..at].iter().rposition(|byte| *byte != b'-');
                    match before {
                        Some(before) => (bytes[before] == b'\n').then_some(before + 1),
                        None => at_line.then_some(0),
                    }
                };
                for at in found.by_ref().filter_map(line) {
                    cuts.note(at, bytes.len());
                }
                if let Some(last) = bytes.last() {
                    *at_line = *last == b'\n';
                }
            }
        }
        cuts
    }
}

impl Cuts {
    fn note(&mut self, at: usize, len: usize) {
        if at == len {
            self.ends_at_border = true;
        } else if self.within.len() < 2 {
            self.within.push(at);
        } else {
            self.within[1] = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans these pieces, and shows each border as `|`.
    fn shown(borders: Borders, pieces: &[&str]) -> String {
        let mut scanner = Scanner::new(borders);
        let mut text = String::new();
        for piece in pieces {
            let cuts = scanner.scan(&Bytes::copy_from_slice(piece.as_bytes()));
            for (at, letter) in piece.chars().enumerate() {
                if cuts.within.contains(&at) {
                    text.push('|');
                }
                text.push(letter);
            }
            text.push_str(if cuts.ends_at_border { "|/" } else { "/" });
        }
        text
    }

    #[track_caller]
    fn events(pieces: &[&str], expected: &str) {
        let text = shown(Borders::EmptyLines, pieces);
        assert_eq!(text.replace('\r', "R").replace('\n', "N"), expected);
    }

    #[test]
    fn an_event_begins_behind_an_empty_line() {
        events(&["data: 1\n\n", "data: 2\n\n"], "data: 1NN|/data: 2NN|/");
        events(&["data: 1\n", "\ndata: 2"], "data: 1N/N|data: 2/");
        events(&["a\n\nb\n\nc\n\nd"], "aNN|bNNcNN|d/");
        events(&["a\nb\nc\n"], "aNbNcN/");
        // An empty line in the beginning is one, too; two of them are two borders.
        events(&["\na\n\n\nb"], "N|aNNN|b/");
        events(&["a\r\n\r\nb\r\rc"], "aRNRN|bRR|c/");
        events(&["a\r", "\n\r", "\nb"], "aR/NR|/N|b/");
        events(&["a\r\n\r", "\n"], "aRNR|/N|/");
        events(&["a\r", "\nb\r", "\r", "c"], "aR/NbR/R|/c/");
        events(&["a\n", "b\n", "", "\n"], "aN/bN//N|/");
    }

    #[test]
    fn in_whatever_pieces_it_comes_the_borders_are_the_same() {
        let text = "a\r\n\r\nb\n\nc\r\rd\n\r\ne\n\n\n";
        let ends = |pieces: &[&str]| {
            let mut scanner = Scanner::new(Borders::EmptyLines);
            let mut at = 0;
            let mut ends = Vec::new();
            for piece in pieces {
                let cuts = scanner.scan(&Bytes::copy_from_slice(piece.as_bytes()));
                ends.extend(cuts.within.iter().map(|cut| at + cut));
                at += piece.len();
                ends.extend(cuts.ends_at_border.then_some(at));
            }
            ends
        };
        let single: Vec<&str> = (0..text.len()).map(|at| &text[at..=at]).collect();
        let all = ends(&single);
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                for end in ends(&pieces) {
                    assert!(all.contains(&end), "{pieces:?}: {end} of {all:?}");
                }
            }
        }
    }

    #[test]
    fn a_part_begins_with_its_delimiter() {
        let borders = || Borders::Delimiter(b"--frame".as_slice().into());
        let parts = |pieces: &[&str]| shown(borders(), pieces).replace("\r\n", "N");
        assert_eq!(
            parts(&["--frame\r\n\r\nx\r\n--frame\r\n\r\ny"]),
            "|--frameNNxN|--frameNNy/"
        );
        // Only at the beginning of a line, with as many hyphens as there are.
        assert_eq!(parts(&["a--frame\r\n", "--frame"]), "a--frameN/|--frame/");
        assert_eq!(parts(&["a\r\n----frame\r\nb"]), "aN|----frameNb/");
        assert_eq!(
            parts(&["\n--frame--\n--frame--\n--frame"]),
            "\n|--frame--\n--frame--\n|--frame/"
        );
        // One that comes in two pieces is not seen; the next one is.
        assert_eq!(
            parts(&["a\r\n--fr", "ame\r\n--frame"]),
            "aN--fr/ameN|--frame/"
        );
    }

    #[test]
    fn every_piece_begins_something_where_nothing_else_is_known() {
        assert_eq!(shown(Borders::Pieces, &["ab", "c"]), "ab|/c|/");
    }
}
