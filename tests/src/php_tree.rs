//! Directories of PHP applications, served by `forebay php`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::Server;
use crate::port::Reserved;

/// A directory with these files, which PHP may read.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn tree(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    // PHP runs as another user.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("permissions");
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    dir
}

/// Serves it, with these options.
///
/// # Panics
/// When it does not start.
#[track_caller]
#[must_use]
pub fn serve(dir: &Path, more: &[&str]) -> (Server, Reserved) {
    let port = Reserved::new();
    let (address, dir) = (port.addr().to_string(), dir.display().to_string());
    let mut args = vec!["php", &dir, "--listen", &address];
    args.extend_from_slice(more);
    (Server::from_command(&args, port.addr()), port)
}
