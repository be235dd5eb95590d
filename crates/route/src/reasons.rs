//! Why a text is not a pattern, and why a pattern does not match.

use std::fmt;

use crate::pattern::{MAX_PARAMS, MAX_PATTERN_BYTES};

/// Why a pattern does not match a path; for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Miss {
    /// The pattern is one path, and this is another.
    OtherPath,
    /// The path is neither the one before `/*` nor below it.
    NotBelow,
    /// The path does not begin as the pattern does.
    OtherBeginning,
    /// The path does not end as the pattern does.
    OtherEnd,
    /// The segment of this number, counted from 1, is another.
    OtherSegment(usize),
    /// The path ends where the pattern wants one more segment, that of this number.
    TooShort(usize),
    /// The path goes on after the pattern's last segment.
    TooLong,
    /// What was asked about is no path (`OPTIONS *`).
    NoPath,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::OtherPath => f.write_str("the path is another"),
            Miss::NotBelow => f.write_str("the path is not below it"),
            Miss::OtherBeginning => f.write_str("the path does not begin so"),
            Miss::OtherEnd => f.write_str("the path does not end so"),
            Miss::OtherSegment(n) => write!(f, "segment {n} of the path is another"),
            Miss::TooShort(n) => write!(f, "the path has no segment {n}"),
            Miss::TooLong => f.write_str("the path goes on after it"),
            Miss::NoPath => f.write_str("the request target is not a path"),
        }
    }
}

/// Why a text is not a pattern. Its `Display` is a sentence for who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// Nothing is written.
    Empty,
    /// More than [`MAX_PATTERN_BYTES`].
    TooLong,
    /// It begins with neither `/` nor `*`.
    NotRooted,
    /// More than one `*`.
    TwoStars,
    /// `?` or `#`: the query is not part of the path.
    NotOnlyAPath(char),
    /// A segment is `.` or `..`, which no normal path has.
    DotSegment,
    /// A `%` without two hexadecimal digits.
    BadEscape,
    /// NUL, CR or LF, escaped or not: no path that is let in has them.
    ForbiddenByte,
    /// What stands behind a `:` is not a name.
    ParamName(String),
    /// Two segments have this name.
    ParamTwice(String),
    /// More than [`MAX_PARAMS`].
    TooManyParams,
    /// A `:name` together with a `*` that is not a last segment of its own.
    ParamWithStar,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::Empty => f.write_str("a pattern cannot be empty"),
            PatternError::TooLong => {
                write!(f, "a pattern has at most {MAX_PATTERN_BYTES} bytes")
            }
            PatternError::NotRooted => {
                f.write_str("a pattern begins with `/` or `*`, as in \"/x/*\" or \"*.php\"")
            }
            PatternError::TwoStars => f.write_str("a pattern has at most one `*`"),
            PatternError::NotOnlyAPath(c) => {
                write!(f, "a pattern is for the path alone and cannot hold `{c}`")?;
                match c {
                    '?' => f.write_str("; for the query there is the condition `query`"),
                    _ => Ok(()),
                }
            }
            PatternError::DotSegment => f.write_str(
                "a pattern cannot hold the segments `.` and `..`: they are gone from every path",
            ),
            PatternError::BadEscape => {
                f.write_str("in a pattern, `%` is followed by two hexadecimal digits")
            }
            PatternError::ForbiddenByte => {
                f.write_str("no path that is let in holds NUL, CR or LF, so no pattern can")
            }
            PatternError::ParamName(name) => write!(
                f,
                "`:{name}` is not a name: letters, digits and `_`, the first one no digit"
            ),
            PatternError::ParamTwice(name) => write!(f, "`:{name}` stands in it twice"),
            PatternError::TooManyParams => {
                write!(f, "a pattern has at most {MAX_PARAMS} segments with a name")
            }
            PatternError::ParamWithStar => {
                f.write_str("beside `:name`, `*` can only be the last segment, as in \"/u/:id/*\"")
            }
        }
    }
}

impl std::error::Error for PatternError {}
