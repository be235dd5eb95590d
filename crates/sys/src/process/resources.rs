//! Cores and memory.

use std::{fs, io, path::Path};

/// How many threads can run at once: the machine's cores, cut by this process's CPU affinity and
/// by its cgroup's CPU quota (rounded down, at least 1).
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Pins the calling thread to one core: the `index`-th of those this process may use, counted
/// round. Returns the core's number, or `None` where pinning does not exist.
#[cfg(target_os = "linux")]
pub fn pin_to_core(index: usize) -> io::Result<Option<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    // The process's first thread tells what the process may use: the calling one may have been
    // pinned before.
    let allowed = sched_getaffinity(Some(rustix::process::getpid()))?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&core| allowed.is_set(core))
        .collect();
    let Some(&core) = cores.get(index % cores.len().max(1)) else {
        return Ok(None);
    };
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one)?;
    Ok(Some(core))
}

/// Pins the calling thread to one core: not on this system.
#[cfg(not(target_os = "linux"))]
pub fn pin_to_core(_: usize) -> io::Result<Option<usize>> {
    Ok(None)
}

/// Bytes of memory this process may use: the machine's, or its cgroup's limit if that is less.
/// `None` where neither can be read.
#[must_use]
pub fn memory_available() -> Option<u64> {
    memory_below(Path::new("/"))
}

/// As [`memory_available`], with another root directory.
fn memory_below(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| field_kib(&text, "MemTotal:"));
    let own = read("proc/self/cgroup").unwrap_or_default();
    let mut least = machine;
    for path in limit_files(&own) {
        // "max" (v2) and a number beyond every machine (v1) mean no limit.
        let limit = read(&path).and_then(|text| text.trim().parse::<u64>().ok());
        least = match (least, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    least
}

/// The files that may hold a memory limit of this process: of its cgroup and all those above.
fn limit_files(own: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in own.lines() {
        // "0::/path" (v2) or "4:memory:/path" (v1).
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (tree, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let mut path = path.trim_matches('/');
        loop {
            let slash = if path.is_empty() { "" } else { "/" };
            files.push(format!("{tree}{slash}{path}/{file}"));
            if path.is_empty() {
                break;
            }
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    files
}

/// Bytes of memory of this process that are in RAM, shared ones included.
#[cfg(target_os = "linux")]
pub fn resident_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    let pages = pages.ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Bytes of memory of a process that are in RAM: not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn resident_memory() -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Bytes of memory that process `pid` alone has in RAM: what would be free if it ended.
pub fn private_memory(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let clean = field_kib(&text, "Private_Clean:").ok_or(io::ErrorKind::InvalidData)?;
    let dirty = field_kib(&text, "Private_Dirty:").ok_or(io::ErrorKind::InvalidData)?;
    Ok(clean + dirty)
}

/// The value of a line like `MemTotal:  123 kB`, in bytes.
fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
