//! What `explain` tells of a request for a FastCGI application: the same search, the same
//! parameters, up to where something would be sent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use forebay_fastcgi::{Limits, Params};
use forebay_sys::files::Root;

use super::find::{Found, LINKS};
use super::params::{self, Placed};
use super::{FastCgi, root_path};
use crate::exchange::{Exchange, Flow, Reason};
use crate::explain::{Notes, Told, shown, value_shown};
use crate::steps::files::directory;
use crate::steps::proxy::loops;
use crate::upstream::sticky::Sticky;

impl FastCgi {
    /// Tells which script would run, and who would be asked with which parameters.
    pub fn tell(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        if loops(exchange) {
            return Told::Fails(Reason::Loop.into());
        }
        let mut root = Vec::new();
        let mut script = None;
        if let Some((template, _)) = &self.scripts {
            match root_path(template, exchange) {
                Some(path) => root = path.into_owned(),
                None => {
                    notes.add("root", "its variables lead to no directory");
                    return Told::Does(Flow::Next);
                }
            }
            match self.tell_script(exchange, &root, notes) {
                Found::Script(found) => script = Some(found),
                Found::Nothing => return Told::Does(Flow::Next),
                Found::Directory => match directory(exchange) {
                    Some(flow) => return Told::Does(flow),
                    None => notes.add("found", "a directory: its own script runs"),
                },
            }
        }
        let body = match exchange.take_body() {
            Ok(body) => body,
            Err(fault) => return Told::Fails(fault),
        };
        self.passing.tell_peers(exchange, notes);
        let placed = script.as_ref().map(|script| Placed {
            root: root.strip_suffix(b"/").unwrap_or(&root),
            script,
            query: self.scripts.as_ref().and_then(|(_, scripts)| {
                let one = scripts.tries().get(script.number)?;
                one.query(exchange)
            }),
        });
        let cookie = self.passing.upstream.sticky.as_ref().map(Sticky::name);
        let params = match params::of(exchange, placed.as_ref(), &body, cookie, &self.env) {
            Ok(params) => params,
            Err(fault) => return Told::Fails(fault),
        };
        let block = params.as_bytes().to_vec().into();
        if let Ok(params) = Params::read(block, &Limits::default()) {
            for (name, value) in &params {
                let (name, value) = (shown(name), shown(value));
                notes.add("sends", format!("{name}={}", masked(&name, &value)));
            }
        }
        self.passing.tell_times(notes);
        Told::Asks
    }

    fn tell_script(&self, exchange: &Exchange, root: &[u8], notes: &mut Notes<'_>) -> Found {
        let Some((_, scripts)) = &self.scripts else {
            return Found::Nothing;
        };
        let opened = match Root::open_dir(Path::new(OsStr::from_bytes(root))) {
            Ok(opened) => opened,
            Err(error) => {
                notes.add("root", format!("{}: {error}", shown(root)));
                return Found::Nothing;
            }
        };
        notes.add("root", shown(root));
        let disk = &exchange.worker.files.disk;
        let paths = scripts.paths(exchange);
        let as_directory = exchange.request.path().ends_with('/');
        let found = scripts.find(&paths, as_directory, |name| {
            let opened = disk.open(&opened, name, LINKS);
            let what = match &opened {
                Ok(_) => "there".to_owned(),
                Err(error) => error.to_string(),
            };
            notes.add("try", format!("/{}: {what}", shown(name)));
            opened
        });
        match found {
            Ok(found) => {
                let text = match &found {
                    Found::Script(script) if script.path_info.is_empty() => {
                        format!("/{}", shown(&script.name))
                    }
                    Found::Script(script) => {
                        let (name, rest) = (shown(&script.name), shown(&script.path_info));
                        format!("/{name}, behind it {rest}")
                    }
                    Found::Directory => "a directory, asked for without its slash".to_owned(),
                    Found::Nothing => "no script".to_owned(),
                };
                notes.add("script", text);
                found
            }
            Err(error) => {
                notes.add("script", error.to_string());
                Found::Nothing
            }
        }
    }
}

/// What is secret in a field is in its variable, too.
pub fn masked(name: &str, value: &str) -> String {
    let field = name.strip_prefix("HTTP_").unwrap_or(name);
    value_shown(&field.replace('_', "-").to_ascii_lowercase(), value).into()
}
