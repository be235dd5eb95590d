//! What `explain` tells of looking for a file: the same search, noting what is opened.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use forebay_sys::files::{Facts, Kind, Root, is_link_refused};

use super::find::Found;
use super::{FilesStep, Try, accepts};
use crate::exchange::Exchange;
use crate::explain::{Notes, show_template, shown};

impl FilesStep {
    /// Tells of each path that is tried, up to the one that is found.
    pub(super) fn tell(&self, exchange: &Exchange, notes: &mut Notes<'_>) {
        let Some(root) = self.root_path(exchange) else {
            return notes.add("root", "its variables lead to no directory");
        };
        let opened = match Root::open_dir(Path::new(OsStr::from_bytes(&root))) {
            Ok(opened) => opened,
            Err(error) => return notes.add("root", format!("{}: {error}", shown(&root))),
        };
        notes.add("root", shown(&root));
        let accepts = accepts(exchange);
        let disk = &exchange.worker.files.disk;
        for attempt in &self.tries {
            let mut path = Vec::new();
            if !attempt.expand(exchange, &mut path) {
                notes.add("try", format!("{}: it names no file", attempt.written()));
                continue;
            }
            if let Some(why) = self.indexes.hide.why(&path) {
                notes.add("try", format!("/{}: {why}", shown(&path)));
                continue;
            }
            let mut has_file = false;
            let open = |name: &[u8]| {
                let opened = disk.open(&opened, name, self.links);
                let what = what_is(&opened);
                // Behind the file come its siblings in codings, which are mostly not there.
                if !has_file || opened.is_ok() {
                    notes.add("try", format!("/{}: {what}", shown(name)));
                }
                has_file |= what.starts_with("a file");
                opened
            };
            let found = self
                .indexes
                .find(&path, attempt.redirects(), accepts.as_ref(), open);
            match found {
                Ok(Found::Nothing) => continue,
                Ok(Found::File(candidate)) => {
                    notes.add("found", format!("/{}", shown(&candidate.name)));
                    if let Some(coding) = candidate.coding {
                        let name = coding.name();
                        notes.add("coding", format!("{name}, by the file beside it"));
                    }
                }
                Ok(Found::Directory) => {
                    notes.add("found", "a directory, asked for without its slash");
                }
                Ok(Found::Listing(_)) => notes.add("found", "a directory, which is listed"),
                Err(error) => notes.add("found", error.to_string()),
            }
            return;
        }
        notes.add("found", "nothing that is sent");
    }
}

impl Try {
    /// As it is written.
    fn written(&self) -> String {
        match self {
            Try::Path => "$path".to_owned(),
            Try::Other(template) => show_template(template),
        }
    }
}

fn what_is(opened: &io::Result<File>) -> String {
    let facts = match opened {
        Ok(file) => Facts::of(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return "not there".to_owned(),
        Err(error) if is_link_refused(error) => return "a link that is not followed".to_owned(),
        Err(error) => return error.to_string(),
    };
    match facts {
        Ok(facts) => match facts.kind {
            Kind::File => format!("a file of {} bytes", facts.len),
            Kind::Directory => "a directory".to_owned(),
            Kind::Other => "neither a file nor a directory".to_owned(),
        },
        Err(error) => error.to_string(),
    }
}
