//! Binding what a configuration names, and removing the files of Unix sockets that go.

use std::path::Path;

use forebay_config::Address;
use forebay_sys::net::{
    InheritedSocket, TcpAddress, TcpOptions, UnixOptions, open_inherited, take_inherited,
};
use forebay_sys::process;
use rustc_hash::FxHashMap;

use super::build::Built;
use super::declarations::{Bind, Server};
use crate::helper::Helper;
use crate::listen::{Door, ListenerId, Shared};

/// The sockets that were passed in when the process was started, by name. They are kept for its
/// whole life: a later configuration may name those that this one does not.
#[derive(Default)]
pub struct Inherited(Vec<(String, Result<InheritedSocket, String>)>);

impl Inherited {
    /// Takes them. The first call gets them all.
    pub fn take() -> Result<Inherited, String> {
        let passed = take_inherited()
            .map_err(|error| format!("the sockets passed in by LISTEN_FDS: {error}"))?;
        let opened = passed.into_iter().map(|(name, fd)| {
            let socket = open_inherited(fd, &TcpOptions::default());
            (name, socket)
        });
        Ok(Inherited(opened.collect()))
    }

    /// All of this name.
    fn find(&self, name: &str) -> Result<Vec<Shared>, String> {
        let cannot = |why: &dyn std::fmt::Display| format!("cannot listen on fd:{name}: {why}");
        let mut found = Vec::new();
        for (_, socket) in self.0.iter().filter(|(known, _)| known == name) {
            let socket = socket.as_ref().map_err(|error| cannot(error))?;
            let socket = socket.try_clone().map_err(|error| cannot(&error))?;
            found.push(Shared::Inherited(socket));
        }
        if found.is_empty() {
            let names: Vec<&str> = self.0.iter().map(|(name, _)| &**name).collect();
            return Err(cannot(&match names.len() {
                0 => "no socket was passed in: the service manager sets LISTEN_FDS".to_owned(),
                _ => format!(
                    "no such socket was passed in; there are {}",
                    names.join(", ")
                ),
            }));
        }
        Ok(found)
    }
}

/// Sockets that listen and are not with the workers yet.
#[derive(Default)]
pub struct Sockets(FxHashMap<ListenerId, Bound>);

enum Bound {
    /// One for each worker.
    Each(Vec<std::net::TcpListener>),
    /// For all of them.
    Shared(Vec<Shared>),
}

/// Binds what is not bound yet. Always by the helper: it may bind what this process may not, and
/// all sockets of an address must belong to the same user. Where something cannot be bound,
/// nothing of it stays.
pub fn bind_new(
    (helper, inherited): (&Helper, &Inherited),
    built: &Built,
    bound: &[Bind],
    workers: usize,
) -> Result<Sockets, String> {
    let is_new = |bind: &&Bind| !bound.iter().any(|old| old.id == bind.id);
    let mut sockets = Sockets::default();
    let done = bind_each((helper, inherited), built, is_new, workers, &mut sockets)
        .and_then(|()| change_files(helper, built, bound));
    if let Err(error) = done {
        let made = |bind: &&Bind| sockets.0.contains_key(&bind.id);
        remove_files(helper, built.binds.iter().filter(made));
        return Err(error);
    }
    Ok(sockets)
}

fn bind_each(
    (helper, inherited): (&Helper, &Inherited),
    built: &Built,
    is_new: impl Fn(&&Bind) -> bool,
    workers: usize,
    sockets: &mut Sockets,
) -> Result<(), String> {
    for bind in built.binds.iter().filter(is_new) {
        let tcp = |address| {
            helper
                .bind_tcp(address, &TcpOptions::default(), workers)
                .map(Bound::Each)
                .map_err(|error| error.to_string())
        };
        let made = match &bind.address {
            Address::Port(port) => tcp(TcpAddress::Any(*port))?,
            Address::Socket(address) => tcp(TcpAddress::Ip(*address))?,
            Address::Unix(path) => {
                let options = file_options(bind, &built.server)?;
                let socket = helper
                    .bind_unix(path, &options)
                    .map_err(|error| error.to_string())?;
                Bound::Shared(vec![Shared::Unix(socket)])
            }
            Address::Fd(name) => Bound::Shared(inherited.find(name)?),
        };
        sockets.0.insert(bind.id, made);
    }
    Ok(())
}

/// Gives the files of Unix sockets that stay another mode or owner where the configuration does.
fn change_files(helper: &Helper, built: &Built, bound: &[Bind]) -> Result<(), String> {
    for bind in &built.binds {
        let old = bound.iter().find(|old| old.id == bind.id);
        if let (Some(old), Address::Unix(path)) = (old, &bind.address)
            && old.file != bind.file
        {
            let options = file_options(bind, &built.server)?;
            helper
                .change_unix(path, &options)
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// The file of a Unix listener belongs to whom its `owner` names, else to the user that serves.
fn file_options(bind: &Bind, server: &Server) -> Result<UnixOptions, String> {
    let mut options = UnixOptions {
        mode: bind.file.mode,
        ..UnixOptions::default()
    };
    if let Some(owner) = bind.file.owner.as_ref().or(server.user.as_ref()) {
        let identity = process::resolve_identity(owner)
            .map_err(|error| format!("listen \"{}\": {error}", bind.address))?;
        (options.user, options.group) = (Some(identity.user), Some(identity.group));
    }
    Ok(options)
}

/// Removes the files of these listeners.
pub fn remove_files<'a>(helper: &Helper, binds: impl Iterator<Item = &'a Bind>) {
    let paths = binds.filter_map(|bind| match &bind.address {
        Address::Unix(path) => Some(&**path),
        _ => None,
    });
    for path in paths {
        remove(helper, path);
    }
}

fn remove(helper: &Helper, path: &Path) {
    // A file that stays is no more than that: the next start replaces it.
    if let Err(error) = helper.remove_unix(path) {
        tracing::warn!("{error}");
    }
}

impl Sockets {
    /// What one of so many workers gets.
    pub fn of(&mut self, worker: usize, workers: usize) -> Vec<(ListenerId, Door)> {
        self.0
            .iter_mut()
            .filter_map(|(id, bound)| Some((*id, bound.of(*id, worker, workers)?)))
            .collect()
    }
}

impl Bound {
    fn of(&mut self, id: ListenerId, worker: usize, workers: usize) -> Option<Door> {
        match self {
            // Any one of an address's sockets is as good as another.
            Bound::Each(sockets) => sockets.pop().map(Door::Own),
            // One worker deals them all; which one is another for each listener.
            Bound::Shared(sockets) if id % workers as u64 == worker as u64 => {
                Some(Door::Dealer(std::mem::take(sockets)))
            }
            Bound::Shared(_) => Some(Door::Dealt),
        }
    }
}
