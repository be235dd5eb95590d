//! What `explain` tells of a request for a program: the same search, the same variables, up to where
//! it would be started.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use forebay_config::show_duration;
use forebay_sys::files::{Facts, Kind, Root};

use super::find::{Found, LINKS, find};
use super::{Cgi, decoded};
use crate::exchange::{Exchange, Flow, Reason};
use crate::explain::{Notes, Told, shown};
use crate::steps::fastcgi::explain::masked;
use crate::steps::fastcgi::find::Script;
use crate::steps::fastcgi::root_path;
use crate::steps::files::find as lookup;
use crate::steps::proxy::loops;

impl Cgi {
    /// Tells which program would be started, and with which variables.
    pub(super) fn tell(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        if loops(exchange) {
            return Told::Fails(Reason::Loop.into());
        }
        let Some(root) = root_path(&self.root, exchange) else {
            notes.add("root", "its variables lead to no directory");
            return Told::Does(Flow::Next);
        };
        let root = root.strip_suffix(b"/").unwrap_or(&root).to_vec();
        notes.add("root", shown(&root));
        let script = match self.tell_program(exchange, &root, notes) {
            Ok(Found::Nothing) => return Told::Does(Flow::Next),
            Ok(Found::NonParsed) => return Told::Fails(Reason::NonParsed.into()),
            Ok(Found::Program { name, path_info }) => Script {
                number: 0,
                name,
                path_info,
            },
            Err(error) => return Told::Fails(lookup::fault(&error)),
        };
        let body = match exchange.take_body() {
            Ok(body) => body,
            Err(fault) => return Told::Fails(fault),
        };
        let variables = match self.variables(exchange, &root, &script, &body) {
            Ok(variables) => variables,
            Err(fault) => return Told::Fails(fault),
        };
        for (name, value) in &variables {
            let (name, value) = (shown(name), shown(value));
            notes.add("sends", format!("{name}={}", masked(&name, &value)));
        }
        if let Some(identity) = &self.identity {
            let who = format!("user {}, group {}", identity.user, identity.group);
            notes.add("user", who);
        }
        let time = show_duration(self.bounds.time);
        let limits = format!("{time} of waiting, {} bytes", self.bounds.output);
        notes.add("limits", limits);
        Told::Asks
    }

    fn tell_program(
        &self,
        exchange: &Exchange,
        root: &[u8],
        notes: &mut Notes<'_>,
    ) -> io::Result<Found> {
        let opened = match Root::open_dir(Path::new(OsStr::from_bytes(root))) {
            Ok(opened) => opened,
            Err(error) if lookup::is_absent(&error) => {
                notes.add("program", error.to_string());
                return Ok(Found::Nothing);
            }
            Err(error) => return Err(error),
        };
        let Some(path) = decoded(exchange) else {
            notes.add("program", "the path is that of no file");
            return Ok(Found::Nothing);
        };
        let disk = &exchange.worker.files.disk;
        let found = find(&self.hide, &path, |name| {
            let opened = disk.open(&opened, name, LINKS);
            notes.add("try", format!("/{}: {}", shown(name), what_is(&opened)));
            opened
        })?;
        let text = match &found {
            Found::Nothing => "none".to_owned(),
            Found::NonParsed => "one that would write a whole HTTP response".to_owned(),
            Found::Program { name, path_info } if path_info.is_empty() => {
                format!("/{}", shown(name))
            }
            Found::Program { name, path_info } => {
                format!("/{}, behind it {}", shown(name), shown(path_info))
            }
        };
        notes.add("program", text);
        Ok(found)
    }
}

fn what_is(opened: &io::Result<std::fs::File>) -> String {
    let facts = match opened {
        Ok(file) => Facts::of(file),
        Err(error) => return error.to_string(),
    };
    match facts {
        Ok(facts) => match (facts.kind, facts.is_executable) {
            (Kind::Directory, _) => "a directory".to_owned(),
            (Kind::File, true) => "an executable file".to_owned(),
            (Kind::File, false) => "a file that is not executable".to_owned(),
            (Kind::Other, _) => "neither a file nor a directory".to_owned(),
        },
        Err(error) => error.to_string(),
    }
}
