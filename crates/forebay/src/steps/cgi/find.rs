//! Which program a request is for: the first file on the way that the path names.

use std::fs::File;
use std::io;

use forebay_sys::files::{Facts, Kind, Links};

use crate::steps::files::find::is_absent;
use crate::steps::files::path::Hide;

/// Links are followed only under the root.
pub const LINKS: Links = Links::Inside;

/// So many directories deep programs are looked for.
const MAX_DEPTH: usize = 32;

/// What looking comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A program.
    Program {
        /// Its path below the root, decoded.
        name: Vec<u8>,
        /// What stands behind it in the path: empty, or from a slash on; decoded.
        path_info: Vec<u8>,
    },
    /// A program that would write a whole HTTP response (RFC 3875 §5).
    NonParsed,
    /// Nothing that can be executed.
    Nothing,
}

/// Looks for the program that `path`, decoded and relative, leads to, opening what is on the way with
/// `open`. It is the first file, and never anything behind one: `/upload.jpg/x` is about
/// `upload.jpg`, which is no program unless somebody has made it one.
///
/// # Errors
/// Whatever keeps a file that may be there from being opened; `WouldBlock` from `open` too.
pub fn find(
    hide: &Hide,
    path: &[u8],
    mut open: impl FnMut(&[u8]) -> io::Result<File>,
) -> io::Result<Found> {
    let ends = memchr::memchr_iter(b'/', path).chain([path.len()]);
    for end in ends.take(MAX_DEPTH) {
        let (name, path_info) = path.split_at(end);
        // Only names up to the program are names: what is behind it is the program's own business.
        if name.is_empty() || hide.refuses(name) {
            return Ok(Found::Nothing);
        }
        let facts = match open(name) {
            Ok(file) => Facts::of(&file)?,
            Err(error) if is_absent(&error) => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        match facts.kind {
            Kind::Directory => {}
            Kind::File if !facts.is_executable => return Ok(Found::Nothing),
            Kind::File if is_non_parsed(name) => return Ok(Found::NonParsed),
            Kind::File => {
                return Ok(Found::Program {
                    name: name.to_vec(),
                    path_info: path_info.to_vec(),
                });
            }
            Kind::Other => return Ok(Found::Nothing),
        }
    }
    Ok(Found::Nothing)
}

/// By its name, as ever.
fn is_non_parsed(name: &[u8]) -> bool {
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    last.get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"nph-"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_file_on_the_way_is_the_program() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, mode) in [
            ("a.sh", 0o755),
            ("plain.txt", 0o644),
            ("d/b.sh", 0o711),
            ("d/nph-x", 0o755),
            ("d/NPH-y", 0o755),
            ("nph-not", 0o644),
            (".hidden", 0o755),
            ("a.sh~", 0o755),
        ] {
            let at = dir.path().join(name);
            std::fs::create_dir_all(at.parent().expect("above")).expect("a directory");
            std::fs::write(&at, "x").expect("a file");
            std::fs::set_permissions(&at, PermissionsExt::from_mode(mode)).expect("a mode");
        }
        let hide = Hide::new([]);
        let look = |path: &str| {
            let open = |name: &[u8]| {
                let name = str::from_utf8(name).expect("a text");
                File::open(dir.path().join(name))
            };
            match find(&hide, path.as_bytes(), open).expect("no error") {
                Found::Nothing => "nothing".to_owned(),
                Found::NonParsed => "nph".to_owned(),
                Found::Program { name, path_info } => {
                    let text = |bytes| String::from_utf8(bytes).expect("a text");
                    format!("{}|{}", text(name), text(path_info))
                }
            }
        };
        for (path, expected) in [
            ("a.sh", "a.sh|"),
            ("a.sh/", "a.sh|/"),
            ("a.sh/x/y", "a.sh|/x/y"),
            ("a.sh//x/../.y", "a.sh|//x/../.y"),
            ("d/b.sh/x", "d/b.sh|/x"),
            ("plain.txt", "nothing"),
            ("plain.txt/a.sh", "nothing"),
            ("d/nph-x", "nph"),
            ("d/nph-x/y", "nph"),
            ("d/NPH-y", "nph"),
            ("nph-not", "nothing"),
            (".hidden", "nothing"),
            ("../a.sh", "nothing"),
            ("d", "nothing"),
            ("d/", "nothing"),
            ("", "nothing"),
            ("/a.sh", "nothing"),
            ("d//b.sh", "nothing"),
            ("no/such", "nothing"),
            ("a.sh\0", "nothing"),
        ] {
            assert_eq!(look(path), expected, "{path:?}");
        }
        let deep = "d/../".repeat(40) + "a.sh";
        assert_eq!(look(&deep), "nothing");
    }
}
