//! The user and groups a process runs as.

use std::{ffi::CString, io};

use nix::unistd::{
    Gid, Group, Uid, User, getgrouplist, getgroups, getresgid, getresuid, setgroups, setresgid,
    setresuid, setuid,
};

/// A user, its group and the further groups it is in, as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub user: u32,
    /// Primary group id.
    pub group: u32,
    /// All groups, the primary one among them.
    pub groups: Vec<u32>,
}

/// Whether this process may do everything, and so may those that it starts.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Looks up `user` or `user:group`; both may be names or numbers. Without a group the user's own
/// is taken. May ask the network if the system's user database does (NSS): call it at start or
/// reload, not on a request's path.
///
/// # Errors
///
/// A sentence that names what was not found.
pub fn resolve_identity(text: &str) -> Result<Identity, String> {
    let (user_text, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, user) = find_user(user_text)?;
    let gid = match (group_text, &user) {
        (Some(group), _) => find_group(group)?,
        (None, Some(user)) => user.gid,
        (None, None) => {
            return Err(format!(
                "user \"{user_text}\" has no entry in the system's user database: write its group, \
                 as in \"{user_text}:{user_text}\""
            ));
        }
    };
    let mut groups = vec![gid.as_raw()];
    if let Some(user) = user {
        let name = CString::new(user.name).map_err(|_| "a user's name holds a NUL".to_owned())?;
        let all = getgrouplist(&name, gid)
            .map_err(|e| format!("cannot look up the groups of user \"{user_text}\": {e}"))?;
        groups.extend(all.into_iter().map(Gid::as_raw));
        groups.sort_unstable();
        groups.dedup();
    }
    Ok(Identity {
        user: uid.as_raw(),
        group: gid.as_raw(),
        groups,
    })
}

fn find_user(text: &str) -> Result<(Uid, Option<User>), String> {
    let fault = |e| format!("cannot look up user \"{text}\": {e}");
    if let Ok(number) = text.parse::<u32>() {
        let uid = Uid::from_raw(number);
        return Ok((uid, User::from_uid(uid).map_err(fault)?));
    }
    match User::from_name(text).map_err(fault)? {
        Some(user) => Ok((user.uid, Some(user))),
        None => Err(format!("there is no user \"{text}\"")),
    }
}

fn find_group(text: &str) -> Result<Gid, String> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(Gid::from_raw(number));
    }
    let fault = |e| format!("cannot look up group \"{text}\": {e}");
    match Group::from_name(text).map_err(fault)? {
        Some(group) => Ok(group.gid),
        None => Err(format!("there is no group \"{text}\"")),
    }
}

/// Makes the whole process (every thread) run as `identity` from now on, without a way back, and
/// checks that there is none. Call it before there are threads: on Linux each has its own
/// credentials, and although the C library changes all, a system call made by another way in
/// between is made as root.
///
/// Already being that user is fine. After an error the process must end: it may be half changed.
///
/// # Errors
///
/// A sentence that names the step that failed.
pub fn become_identity(identity: &Identity) -> Result<(), String> {
    let uid = Uid::from_raw(identity.user);
    let gid = Gid::from_raw(identity.group);
    if is(identity).map_err(|e| format!("cannot read the process's own user: {e}"))? {
        return Ok(());
    }
    let fault = |what: &str, e: &dyn std::fmt::Display| {
        format!(
            "cannot become user {} with group {}: {what}: {e}; only root can change its user",
            identity.user, identity.group
        )
    };
    let groups: Vec<Gid> = identity.groups.iter().map(|&g| Gid::from_raw(g)).collect();
    // In this order: groups can only be changed while we are root.
    setgroups(&groups).map_err(|e| fault("setgroups", &e))?;
    setresgid(gid, gid, gid).map_err(|e| fault("setresgid", &e))?;
    setresuid(uid, uid, uid).map_err(|e| fault("setresuid", &e))?;
    if !uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        return Err(fault("check", &"root could be regained"));
    }
    match is(identity) {
        Ok(true) => Ok(()),
        Ok(false) => Err(fault("check", &"the system did not do it")),
        Err(e) => Err(fault("check", &e)),
    }
}

/// Whether real, effective and saved ids and all groups are those of `identity`.
fn is(identity: &Identity) -> io::Result<bool> {
    let uid = getresuid()?;
    let gid = getresgid()?;
    let mut groups: Vec<u32> = getgroups()?.into_iter().map(Gid::as_raw).collect();
    groups.push(gid.effective.as_raw());
    groups.sort_unstable();
    groups.dedup();
    let mut wanted = identity.groups.clone();
    wanted.push(identity.group);
    wanted.sort_unstable();
    wanted.dedup();
    Ok([uid.real, uid.effective, uid.saved]
        .iter()
        .all(|u| u.as_raw() == identity.user)
        && [gid.real, gid.effective, gid.saved]
            .iter()
            .all(|g| g.as_raw() == identity.group)
        && groups == wanted)
}
