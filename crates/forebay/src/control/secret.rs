//! The key that cookies are made with: a file in the directory `state`, so that a restart leads
//! clients back to where they were.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::upstream::Upstream;
use crate::upstream::sticky::{KEY_LEN, has_key, random_key, set_key};

/// In `state`.
const FILE: &str = "sticky.key";

/// Gets the key if one is needed and there is none yet. Where none can be kept, one that lasts as long
/// as the process does has to do.
pub fn prepare<'a>(upstreams: impl IntoIterator<Item = &'a Upstream>, state: &Path) {
    let is_needed = upstreams
        .into_iter()
        .any(|upstream| upstream.sticky.is_some());
    if !is_needed || has_key() {
        return;
    }
    match load(state) {
        Ok(key) => set_key(&key),
        Err(error) => {
            tracing::warn!(
                "no key for `sticky` can be kept: {error}; a restart will lead clients to other \
                 peers; set `server {{ state = \"…\" }}`"
            );
            // Made at its first use otherwise; but then a later reload could change it.
            if let Ok(key) = random_key() {
                set_key(&key);
            }
        }
    }
}

/// The key in this directory; a new one if there is none.
fn load(state: &Path) -> Result<[u8; KEY_LEN], String> {
    let path = state.join(FILE);
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    match read(&path) {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => return Err(format!("{} is no key of ours", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(said(error)),
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.map_err(|error| format!("{}: {error}", state.display()))?;
    let key = random_key()?;
    // Whole under its name or not at all, and never in the place of another's: two servers that start
    // at once get the same one.
    let draft = state.join(format!("{FILE}.{}", std::process::id()));
    let written = write(&draft, &key).and_then(|()| fs::hard_link(&draft, &path));
    let _ = fs::remove_file(&draft);
    match written {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match read(&path) {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err(format!("{} is no key of ours", path.display())),
            Err(error) => Err(said(error)),
        },
        Err(error) => Err(said(error)),
    }
}

/// None if it is not what we have written, or others may read it.
fn read(path: &Path) -> std::io::Result<Option<[u8; KEY_LEN]>> {
    let mut file = fs::File::open(path)?;
    let meta = file.metadata()?;
    let (mut key, mut more) = ([0; KEY_LEN], [0]);
    if !meta.is_file() || meta.permissions().mode() & 0o077 != 0 {
        return Ok(None);
    }
    match file.read_exact(&mut key) {
        Ok(()) => Ok((file.read(&mut more)? == 0).then_some(key)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, key: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(key)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_nobody_elses() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("var/state");
        let key = load(&state).expect("a key");
        assert_ne!(key, [0; KEY_LEN]);
        assert_eq!(load(&state), Ok(key));
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&state) & 0o777, 0o700);
        assert_eq!(mode(&state.join(FILE)) & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(&state).expect("a list").count(),
            1,
            "no draft is left"
        );
    }

    #[test]
    fn what_is_no_key_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        for (bytes, mode) in [
            (&[1; KEY_LEN][..], 0o644),
            (&[1; KEY_LEN - 1], 0o600),
            (&[1; KEY_LEN + 1], 0o600),
            (b"", 0o600),
        ] {
            fs::write(&path, bytes).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            assert!(load(dir.path()).is_err_and(|error| error.contains("no key of ours")));
            assert_eq!(fs::read(&path).expect("still there"), bytes);
        }
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a directory in its place");
        assert!(load(dir.path()).is_err());
        let error = load(Path::new("/proc/no/such")).expect_err("nothing can be made there");
        assert!(error.contains("/proc/no/such"), "{error}");
    }
}
