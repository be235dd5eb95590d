//! The process itself: its limits, its user, its cores and its memory.

mod capability;
mod children;
mod identity;
mod inheritance;
mod launch;
mod manager;
mod resources;

pub use capability::give_up_low_ports;
pub use children::{
    ChildSignal, End, Ended, Ending, Usage, adopt_orphans, end_group, group_cpu_us, hold_group,
    kill_all_children, next_ended, reap, tree_usage,
};
pub use identity::{Identity, become_identity, is_root, resolve_identity};
pub use inheritance::{close_all_on_exec, disregard, set_close_on_exec};
pub use launch::{Launch, LaunchStep, Launcher, MAX_LAUNCH_FDS};
pub use manager::{NotifyState, ServiceManager};
pub use resources::{
    cores, cpu_time_us, memory_available, open_files, pin_to_core, private_memory, resident_memory,
};

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of descriptors this process may open as far as it is allowed to (the hard
/// limit; `RLIMIT_NOFILE`), and returns it. Each connection takes one, a proxied one two.
pub fn raise_nofile() -> io::Result<u64> {
    let now = getrlimit(Resource::Nofile);
    if now.current == now.maximum {
        return Ok(now.maximum.unwrap_or(u64::MAX));
    }
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        },
    )?;
    Ok(now.maximum.unwrap_or(u64::MAX))
}

/// How many descriptors this process may open now (`RLIMIT_NOFILE`, soft).
#[must_use]
pub fn nofile() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Makes sure that this process was started by the one with this number, which has not gone since.
///
/// # Errors
/// It has gone (`NotFound`).
pub fn expect_parent(parent: u32) -> io::Result<()> {
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Leads a session of its own from now on, and a process group, without a terminal.
///
/// # Errors
/// It leads a process group already.
pub fn lead_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Sets the name that `ps` and `top` show for this thread; of the first thread, for the process.
/// Cut at 15 bytes. Nothing happens where that does not exist.
pub fn set_name(name: &std::ffi::CStr) {
    #[cfg(target_os = "linux")]
    // Only a wish: a process without its name still works.
    let _ = rustix::thread::set_name(name);
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}
