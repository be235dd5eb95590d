//! The process itself: its limits, its user, its cores and its memory.

mod capability;
mod identity;
mod inheritance;
mod manager;
mod resources;

pub use capability::give_up_low_ports;
pub use identity::{Identity, become_identity, resolve_identity};
pub use inheritance::{close_all_on_exec, disregard, set_close_on_exec};
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

/// Asks the kernel to kill this process when the thread that started it ends, and returns whether
/// it can. `parent` is the process id of who started it, as that one knows it: if it has gone
/// before the call, an error (`NotFound`) says so.
#[cfg(target_os = "linux")]
pub fn die_with_parent(parent: u32) -> io::Result<bool> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

    set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = getppid().map(Pid::as_raw_nonzero);
    let same = now.is_some_and(|pid| u32::try_from(pid.get()).is_ok_and(|pid| pid == parent));
    if same {
        Ok(true)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Asks the kernel to kill this process when the thread that started it ends: only Linux can.
#[cfg(not(target_os = "linux"))]
pub fn die_with_parent(_: u32) -> io::Result<bool> {
    Ok(false)
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
