//! `send_files`: an application names a file, and that is sent in place of its body, with ranges and
//! preconditions, while the application is free already.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use forebay_config::{Call, Node};
use forebay_fields::{Known, KnownSet};
use forebay_sys::files::{Facts, Kind, Links};

use crate::exchange::{Body, Exchange, Fault, Reason, Response};
use crate::files::{OpenFile, Roots, media_type};
use crate::steps::files::answer::{self, Description, Said};
use crate::steps::files::{find, path};

/// What the application says of its own body, and not of the file.
const OF_BODY: KnownSet = KnownSet::of(&[
    Known::ContentType,
    Known::ContentLength,
    Known::ContentEncoding,
    Known::ContentRange,
    Known::AcceptRanges,
    Known::Etag,
    Known::LastModified,
]);

/// A path.
const SENDFILE: &str = "x-sendfile";
/// A path, or one below the directories; encoded as in a URL.
const ACCEL: &str = "x-accel-redirect";

/// The directories from which files may be sent.
pub struct SendFiles {
    dirs: Box<[PathBuf]>,
}

/// One of them, and the name of a file below it.
type Place = (PathBuf, Vec<u8>);

impl SendFiles {
    /// What a call says; none if it names no directory.
    pub fn of(call: &Call) -> Option<SendFiles> {
        let nodes: &[Node] = call.find("send_files")?;
        let dirs = nodes.iter().map(|node| node.get::<&Path>().to_owned());
        Some(SendFiles {
            dirs: dirs.collect(),
        })
    }

    /// The response, or the file that it names. The fields that name it go no further.
    ///
    /// # Errors
    /// The file is in none of the directories, or cannot be opened.
    pub async fn replace(
        &self,
        exchange: &mut Exchange,
        mut response: Response,
    ) -> Result<Response, Fault> {
        let named = |name: &str| response.fields.get(name).map(<[u8]>::to_vec);
        let (path, uri) = (named(SENDFILE), named(ACCEL));
        if path.is_none() && uri.is_none() {
            return Ok(response);
        }
        response.fields.remove(SENDFILE);
        response.fields.remove(ACCEL);
        // Nothing in it: it names no file.
        let (path, uri) = (
            path.filter(|path| !path.is_empty()),
            uri.filter(|uri| !uri.is_empty()),
        );
        if path.is_none() && uri.is_none() {
            return Ok(response);
        }
        let places = match (&path, &uri) {
            (Some(path), _) => self.places(path, false),
            (None, Some(uri)) => self.places_of_uri(uri),
            (None, None) => Vec::new(),
        };
        if places.is_empty() {
            let detail = "it names a file that is not in `send_files`";
            return Err(Fault::with(Reason::BadResponse, detail));
        }
        // The application is done, whatever it has still to say.
        response.body = Body::Empty;
        response.announced_len = None;
        for (dir, name) in places {
            if let Some(file) = open(exchange, &dir, name.clone()).await? {
                return Ok(send(exchange, response, &name, file));
            }
        }
        Err(Fault::with(
            Reason::NotFound,
            "the file that the application names",
        ))
    }

    fn places_of_uri(&self, uri: &[u8]) -> Vec<Place> {
        let path = uri.split(|&byte| byte == b'?').next().unwrap_or_default();
        let mut decoded = Vec::with_capacity(path.len());
        // An escaped slash is refused: no name holds one.
        let is_right = str::from_utf8(path).is_ok_and(|path| path::decode(path, &mut decoded));
        match is_right {
            true => self.places(&decoded, true),
            false => Vec::new(),
        }
    }

    /// Where a path leads to: into the directory that it begins with; if `below`, else below each.
    fn places(&self, path: &[u8], below: bool) -> Vec<Place> {
        let place = |dir: &'_ PathBuf, name: &[u8]| {
            path::is_plain(name).then(|| (dir.clone(), name.to_vec()))
        };
        let under = self.dirs.iter().filter_map(|dir| {
            let base = dir.as_os_str().as_bytes();
            let base = base.strip_suffix(b"/").unwrap_or(base);
            match path.strip_prefix(base)? {
                [b'/', name @ ..] => place(dir, name),
                _ => None,
            }
        });
        let under: Vec<Place> = under.collect();
        if !below || !under.is_empty() {
            return under;
        }
        let name = path.strip_prefix(b"/").unwrap_or(path);
        self.dirs
            .iter()
            .filter_map(|dir| place(dir, name))
            .collect()
    }
}

/// A file that is open.
struct Opened {
    file: std::fs::File,
    facts: Facts,
    is_local: bool,
}

/// Opens it; `None` if there is no such file.
async fn open(exchange: &Exchange, dir: &Path, name: Vec<u8>) -> Result<Option<Opened>, Fault> {
    let worker = exchange.worker.clone();
    let dir = dir.as_os_str().as_bytes();
    let root = Roots::wait(&worker.files, dir, worker.now_ms()).await?;
    let root = root.map_err(|error| Fault::with(Reason::FileFailed, error.to_string()))?;
    let (disk, is_local) = (worker.files.disk.clone(), root.is_local);
    let opening = worker.files.pool.run_or_refuse(root.device, move || {
        let file = disk.open(&root.root, &name, Links::Inside)?;
        let facts = Facts::of(&file)?;
        Ok((file, facts))
    });
    match opening.await? {
        Ok((file, facts)) if facts.kind == Kind::File => Ok(Some(Opened {
            file,
            facts,
            is_local,
        })),
        Ok(_) => Ok(None),
        Err(error) if find::is_absent(&error) => Ok(None),
        Err(error) => Err(find::fault(&error)),
    }
}

fn send(exchange: &mut Exchange, mut response: Response, name: &[u8], opened: Opened) -> Response {
    let Opened {
        file,
        facts,
        is_local,
    } = opened;
    let kind = response.fields.get(Known::ContentType).map(<[u8]>::to_vec);
    let kind = kind.and_then(|kind| String::from_utf8(kind).ok());
    response.fields.remove_all(OF_BODY);
    let description = Description::new(&facts);
    let said = Said {
        kind: kind.as_deref().unwrap_or_else(|| media_type(name)),
        coding: None,
        varies: false,
        cache_control: None,
    };
    description.write(&said, &mut response.fields);
    let file = OpenFile::found(file, facts, is_local);
    let decision = answer::decision(exchange, &description, facts.len);
    answer::finish(exchange, response, decision, facts.len, |part| {
        answer::open(&file, part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, is_uri: bool, expected: &[(&str, &str)]) {
        let send_files = SendFiles {
            dirs: [PathBuf::from("/srv/a"), PathBuf::from("/srv/b/")].into(),
        };
        let places = match is_uri {
            true => send_files.places_of_uri(path.as_bytes()),
            false => send_files.places(path.as_bytes(), false),
        };
        let found: Vec<(&str, &str)> = places
            .iter()
            .map(|(dir, name)| {
                let dir = dir.to_str().expect("a text");
                (dir, str::from_utf8(name).expect("a text"))
            })
            .collect();
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn where_a_named_file_is() {
        check("/srv/a/x/y.pdf", false, &[("/srv/a", "x/y.pdf")]);
        check("/srv/b/x", false, &[("/srv/b/", "x")]);
        for outside in [
            "/srv/ab/x",
            "/srv/a",
            "/srv/a/",
            "/srv/a/../b/x",
            "/srv/a//x",
            "/etc/passwd",
            "x",
            "/srv/a/x\0",
            "",
        ] {
            check(outside, false, &[]);
        }
        check("/x%20y?z", true, &[("/srv/a", "x y"), ("/srv/b/", "x y")]);
        check("/srv/b/x", true, &[("/srv/b/", "x")]);
        for outside in ["/../x", "/%2e%2e/x", "/x%2fy", "/", "", "/x/", "/x%00"] {
            check(outside, true, &[]);
        }
    }
}
