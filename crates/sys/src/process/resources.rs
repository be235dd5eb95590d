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

/// How many descriptors this process has open.
pub fn open_files() -> io::Result<u64> {
    // Since Linux 6.2 the directory says how many entries it has; before, its size is 0, and they
    // have to be counted.
    match fs::metadata("/proc/self/fd")?.len() {
        0 => Ok(fs::read_dir("/proc/self/fd")?.count() as u64),
        count => Ok(count),
    }
}

/// Microseconds of processor time that this process has used, its threads' included.
#[must_use]
pub fn cpu_time_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // Neither part is negative on this clock.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_counted() {
        let before = open_files().unwrap();
        let more: Vec<fs::File> = (0..100)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests of this process open and close files meanwhile.
        let now = open_files().unwrap();
        assert!(now + 20 > before + 100, "{before} and {now}");
        drop(more);
        assert!(cpu_time_us() > 0);
    }

    /// A root directory with the given files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn memory_is_the_least_of_machine_and_all_cgroups_above() {
        const KIB: u64 = 1024;
        let machine = ("proc/meminfo", "MemTotal:  4000000 kB\nMemFree:  1 kB\n");
        let v2 = ("proc/self/cgroup", "0::/system.slice/forebay.service\n");
        let v1 = (
            "proc/self/cgroup",
            "5:cpu,cpuacct:/x\n4:memory:/box\n0::/unified\n",
        );
        let at_v2 = "sys/fs/cgroup/system.slice/forebay.service/memory.max";
        let above_v2 = "sys/fs/cgroup/system.slice/memory.max";
        let at_v1 = "sys/fs/cgroup/memory/box/memory.limit_in_bytes";
        let no_limit_v1 = "9223372036854771712\n";
        let all = 4_000_000 * KIB;
        for (files, expected) in [
            (vec![machine], Some(all)),
            (vec![], None),
            (vec![machine, v2, (at_v2, "max\n")], Some(all)),
            (vec![machine, v2, (at_v2, "1048576\n")], Some(1_048_576)),
            (
                vec![machine, v2, (at_v2, "max\n"), (above_v2, "2097152\n")],
                Some(2_097_152),
            ),
            (
                vec![machine, v2, (at_v2, "3\n"), (above_v2, "2\n")],
                Some(2),
            ),
            (vec![machine, v2, (at_v2, "99999999999999\n")], Some(all)),
            (vec![v2, (at_v2, "7\n")], Some(7)),
            (vec![machine, v1, (at_v1, no_limit_v1)], Some(all)),
            (vec![machine, v1, (at_v1, "65536\n")], Some(65_536)),
            // What cannot be read is not a limit.
            (vec![machine, v2, (at_v2, "many\n")], Some(all)),
            (vec![("proc/meminfo", "MemTotal: x kB\n")], None),
            (
                vec![machine, ("proc/self/cgroup", "nonsense\n::\n0::\n")],
                Some(all),
            ),
        ] {
            assert_eq!(memory_below(root(&files).path()), expected, "{files:?}");
        }
    }

    #[test]
    fn the_real_numbers_make_sense() {
        let resident = resident_memory().unwrap();
        let private = private_memory(std::process::id()).unwrap();
        let all = memory_available().unwrap();
        assert!(100_000 < private && private <= all, "{private} of {all}");
        assert!(resident <= all, "{resident} of {all}");
        let block = vec![1_u8; 16 << 20];
        let more = private_memory(std::process::id()).unwrap();
        assert!(
            more >= private + (8 << 20),
            "{more} after {private}, {}",
            block.len()
        );
    }

    #[test]
    fn a_thread_is_pinned_to_the_core_asked_for() {
        for index in [0, 1, 5] {
            let (core, cores) = std::thread::spawn(move || (pin_to_core(index).unwrap(), cores()))
                .join()
                .unwrap();
            if core.is_some() {
                assert_eq!(cores, 1, "index {index}");
            }
        }
        // The other threads, and so the process, keep theirs; and counted round it is the same.
        let twice = std::thread::spawn(|| {
            let first = pin_to_core(0).unwrap();
            (first, pin_to_core(cores_of_process()).unwrap())
        });
        let (first, again) = twice.join().unwrap();
        assert_eq!(first, again);
    }

    fn cores_of_process() -> usize {
        let pid = Some(rustix::process::getpid());
        let allowed = rustix::thread::sched_getaffinity(pid).unwrap();
        usize::try_from(allowed.count()).unwrap()
    }
}
