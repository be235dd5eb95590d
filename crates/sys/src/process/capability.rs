//! The privilege to bind low ports, where it came without being root.

use std::io;

/// Gives up `CAP_NET_BIND_SERVICE`, for good, and returns whether this process had it. Root keeps
/// it: root could have it back. For the calling thread and those that it starts, so it is called
/// before there are others.
#[cfg(target_os = "linux")]
pub fn give_up_low_ports() -> io::Result<bool> {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    if rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let mut sets = capabilities(None)?;
    let low_ports = CapabilitySet::NET_BIND_SERVICE;
    if !(sets.permitted | sets.inheritable).contains(low_ports) {
        return Ok(false);
    }
    // What is neither permitted nor inheritable is not ambient either (capabilities(7)).
    sets.effective.remove(low_ports);
    sets.permitted.remove(low_ports);
    sets.inheritable.remove(low_ports);
    set_capabilities(None, sets)?;
    Ok(true)
}

/// Gives up the privilege to bind low ports: only Linux has it.
#[cfg(not(target_os = "linux"))]
pub fn give_up_low_ports() -> io::Result<bool> {
    Ok(false)
}
