//! The sockets of processes, in a directory that only the server's own user may look into.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};

use crate::upstream::fleet::{self, Fleet, run_dir};

/// The sockets of a fleet. Whom their processes are makes no difference: they inherit them.
pub fn bind(fleet: &Fleet, spec: Option<&fleet::Spec>) -> io::Result<Vec<UnixListener>> {
    debug_assert!(spec.is_some(), "a fleet without processes");
    let dir = run_dir();
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => {
            made?;
            lock(dir)?;
            sweep(dir);
        }
    }
    fleet.sockets.iter().map(UnixListener::bind).collect()
}

/// What says of such a directory that its server is alive: a process id would not, to who has process
/// ids of his own, as in a container that shares the directory for temporary files.
const LOCK: &str = "lock";

/// Holds the lock of our own directory as long as this process lives.
fn lock(dir: &Path) -> io::Result<()> {
    static HELD: OnceLock<File> = OnceLock::new();
    // It gets its name once it is held: between the two, another server that starts could hold it, and
    // take the directory for one that was left behind.
    let new = dir.join("lock.new");
    let file = File::create(&new)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    std::fs::rename(&new, dir.join(LOCK))?;
    // It is made once.
    let _ = HELD.set(file);
    Ok(())
}

/// Removes what servers that were killed have left behind.
fn sweep(own: &Path) {
    let others = own.parent().and_then(|dir| std::fs::read_dir(dir).ok());
    for other in others.into_iter().flatten().flatten() {
        let name = other.file_name();
        let is_one = name
            .to_str()
            .is_some_and(|name| name.starts_with("forebay-"));
        if !is_one || other.path() == own {
            continue;
        }
        // Without a lock it is none of ours, or just being made; somebody else's does not let itself be
        // opened.
        let held = File::open(other.path().join(LOCK)).and_then(|file| {
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            Ok(file)
        });
        if held.is_ok() {
            let _ = std::fs::remove_dir_all(other.path());
        }
    }
}
