//! Open files and their bytes, read without a worker ever waiting for a disk.

mod stream;

use std::fs::File;

use forebay_sys::files::Facts;

pub use stream::FileStream;

/// A file that is being sent, with the facts under which its response was made.
pub struct OpenFile {
    /// The file.
    pub file: File,
    /// What it was when it was opened.
    pub facts: Facts,
}
