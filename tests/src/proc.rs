//! What the kernel says about a process and its sockets.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Whether everything that was sent from these local TCP ports has been read by the other side,
/// which must be on this machine: no socket whose remote port is one of them holds unread bytes.
#[must_use]
pub fn has_read(ports: &[u16]) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().all(|table| {
        let text = fs::read_to_string(table).unwrap_or_default();
        text.lines().skip(1).all(|line| !holds_unread(line, ports))
    })
}

/// Whether the server's end of a loopback connection between these TCP ports still exists.
#[must_use]
pub fn is_connected(server_port: u16, client_port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    let ends = [format!(":{server_port:04X}"), format!(":{client_port:04X}")];
    let text = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    text.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        words.len() > 3
            && words[1].ends_with(&ends[0])
            && words[2].ends_with(&ends[1])
            && words[3] == ESTABLISHED
    })
}

/// Whether any connection to this TCP port of this machine is open at both of its ends.
#[must_use]
pub fn is_in_use(port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    let end = format!(":{port:04X}");
    let text = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    text.lines().skip(1).any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&end)) && words.nth(1) == Some(ESTABLISHED)
    })
}

/// A line of `/proc/net/tcp`: number, local, remote, state, `tx_queue:rx_queue`, all in hex.
fn holds_unread(line: &str, ports: &[u16]) -> bool {
    let mut words = line.split_ascii_whitespace().skip(2);
    let (Some(remote), Some(_state), Some(queues)) = (words.next(), words.next(), words.next())
    else {
        return false;
    };
    if queues.ends_with(":00000000") {
        return false;
    }
    let port = remote
        .rsplit(':')
        .next()
        .and_then(|p| u16::from_str_radix(p, 16).ok());
    port.is_some_and(|p| ports.contains(&p))
}

/// A process and all that it started, by id.
#[must_use]
pub fn tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|w| w.parse::<u32>().ok()),
            );
        }
    }
    all
}

/// Resident memory of one process in bytes; 0 when it is gone.
#[must_use]
pub fn rss(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Memory of one process in bytes, shared pages counted by their share; 0 when it is gone.
#[must_use]
pub fn pss(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// Memory of one process in bytes that is neither code nor files; 0 when it is gone.
#[must_use]
pub fn anonymous(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:")
}

fn kilobytes(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text
        .lines()
        .find(|l| l.starts_with(name))
        .unwrap_or_default();
    line.split_ascii_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// How many descriptors a process has open.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Lets a process have so many descriptors at once from now on, whatever it has; gives the limit that
/// it had. With fewer than it has, it gets no more.
///
/// # Panics
/// When there is no such process.
pub fn limit_descriptors(pid: u32, limit: u64) -> u64 {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let (_, hard) = descriptor_limits(pid);
    let new = Rlimit {
        current: Some(limit),
        maximum: hard.parse().ok(),
    };
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let before = prlimit(pid, Resource::Nofile, new).expect("RLIMIT_NOFILE");
    before.current.unwrap_or(u64::MAX)
}

/// The descriptor that a process would get next.
#[must_use]
pub fn next_descriptor(pid: u32) -> u64 {
    let is_free = |number: &u64| fs::read_link(format!("/proc/{pid}/fd/{number}")).is_err();
    (0..).find(is_free).unwrap_or_default()
}

/// How many sockets listen on this TCP port.
#[must_use]
pub fn listening_sockets(port: u16) -> usize {
    const LISTEN: &str = "0A";
    let end = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| {
            let text = fs::read_to_string(table).unwrap_or_default();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            words.len() > 3 && words[1].ends_with(&end) && words[3] == LISTEN
        })
        .count()
}

/// Lets this process have as many descriptors as it may.
///
/// # Panics
/// When it may not have enough for thousands of connections.
pub fn raise_own_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .expect("RLIMIT_NOFILE");
    assert!(
        limit.maximum.is_none_or(|m| m >= 9000),
        "9,000 descriptors are needed"
    );
}

/// The time a process has spent on a processor.
#[must_use]
pub fn cpu_time(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything but ends with the last parenthesis: field 3 is the
    // first; 14 and 15 are user and system time in ticks of 10 ms (USER_HZ).
    let rest = text.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = rest
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|w| w.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Kills a process, as `kill -9` does.
///
/// # Panics
/// When there is no such process.
pub fn kill(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), Signal::KILL).expect("it is killed");
}

/// What a process does, as the kernel's letter: `R` runs, `S` sleeps, `T` is stopped; none when it is
/// gone.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit(')').next()?.trim_start().chars().next()
}

/// The soft and the hard limit of open files.
#[must_use]
pub fn descriptor_limits(pid: u32) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))
        .unwrap_or_default();
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    )
}

/// The effective capabilities, as the kernel's bits.
#[must_use]
pub fn capabilities(pid: u32) -> u64 {
    let words = status_words(pid, "CapEff:");
    words
        .first()
        .and_then(|w| u64::from_str_radix(w, 16).ok())
        .unwrap_or(u64::MAX)
}

/// The supplementary groups.
#[must_use]
pub fn groups(pid: u32) -> Vec<u32> {
    status_words(pid, "Groups:")
        .iter()
        .filter_map(|w| w.parse().ok())
        .collect()
}

fn status_words(pid: u32, name: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name))
        .unwrap_or_default();
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The effective user and group of a process.
#[must_use]
pub fn user_and_group(pid: u32) -> Option<(u32, u32)> {
    let id = |name: &str| status_words(pid, name).get(1)?.parse::<u32>().ok();
    Some((id("Uid:")?, id("Gid:")?))
}

/// Bytes of kernel memory that the sockets of these processes hold, by `ss`: what waits to be sent
/// and to be read.
///
/// # Panics
/// When `ss` (Debian: iproute2) is not installed.
#[must_use]
pub fn socket_memory(pids: &[u32]) -> u64 {
    let output = Command::new("ss")
        .args(["-tmnpH", "state", "all"])
        .output()
        .expect("ss, of the Debian package iproute2");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let owners: Vec<String> = pids.iter().map(|p| format!("pid={p},")).collect();
    let mut ours = false;
    let mut sum = 0;
    for line in text.lines() {
        // A socket's line may be followed by its skmem on the next one.
        if !line.starts_with([' ', '\t']) {
            ours = owners.iter().any(|o| line.contains(o.as_str()));
        }
        if ours {
            sum += skmem(line);
        }
    }
    sum
}

/// `skmem:(r<read>,rb<limit>,t<sending>,tb<limit>,f<ahead>,w<queued>,…)`
fn skmem(line: &str) -> u64 {
    let Some((_, rest)) = line.split_once("skmem:(") else {
        return 0;
    };
    let number = |word: &str, name: &str| -> u64 {
        word.strip_prefix(name)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    };
    rest.split([',', ')'])
        .map(|word| number(word, "r") + number(word, "w"))
        .sum()
}

/// Threads that the kernel lets do nothing, until this is dropped by the thread that has made it.
pub struct Stopped {
    tids: Vec<Pid>,
    /// Who makes more of them.
    maker: Option<Pid>,
}

impl Stopped {
    /// The threads of this name.
    ///
    /// # Panics
    /// When there is none, or it cannot be stopped: that needs root.
    #[must_use]
    #[track_caller]
    pub fn threads(pid: u32, name: &str) -> Self {
        let tids = threads(pid, name);
        assert!(!tids.is_empty(), "no thread {name}");
        for tid in &tids {
            ptrace::seize(*tid, ptrace::Options::empty()).expect("to trace it");
            interrupt(*tid);
        }
        Self { tids, maker: None }
    }

    /// The threads of this name, and all that the one of the second name makes from now on: it waits
    /// for [`Stopped::go_round`] each time.
    ///
    /// # Panics
    /// As [`Stopped::threads`].
    #[must_use]
    #[track_caller]
    pub fn threads_and_new(pid: u32, name: &str, maker: &str) -> Self {
        let mut stopped = Self::threads(pid, name);
        let tid = threads(pid, maker).pop().expect("a thread of this name");
        ptrace::seize(tid, ptrace::Options::PTRACE_O_TRACECLONE).expect("to trace it");
        stopped.maker = Some(tid);
        stopped
    }

    /// Lets who makes them go on.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn go_round(&mut self) {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::PtraceEvent(tid, _, event)) if Some(tid) == self.maker => {
                    assert_eq!(event, 3, "PTRACE_EVENT_CLONE");
                    ptrace::cont(tid, None).expect("it to go on");
                }
                Ok(WaitStatus::Stopped(tid, signal)) if Some(tid) == self.maker => {
                    ptrace::cont(tid, signal).expect("it to go on");
                }
                // They begin stopped.
                Ok(WaitStatus::PtraceEvent(tid, ..) | WaitStatus::Stopped(tid, _)) => {
                    self.tids.push(tid);
                }
                _ => return,
            }
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Some(maker) = self.maker {
            self.go_round();
            interrupt(maker);
            let _ = ptrace::detach(maker, None);
        }
        for tid in &self.tids {
            let _ = ptrace::detach(*tid, None);
        }
    }
}

fn threads(pid: u32, name: &str) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let tasks = tasks.map(|task| task.expect("a thread").path());
    let is_it = |task: &std::path::PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let tid = |task: std::path::PathBuf| task.file_name()?.to_str()?.parse().ok();
    let tids = tasks.filter(is_it).filter_map(tid);
    tids.map(Pid::from_raw).collect()
}

/// Stops a thread that is traced.
fn interrupt(tid: Pid) {
    ptrace::interrupt(tid).expect("to stop it");
    let status = waitpid(tid, Some(WaitPidFlag::__WALL)).expect("it to stop");
    assert!(
        matches!(
            status,
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)
        ),
        "{status:?}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        let line = " 1: 0100007F:1F90 0100007F:C350 01 00000000:00000010 00:00000000 00000000 0";
        assert!(holds_unread(line, &[50_000]));
        assert!(!holds_unread(line, &[50_001]));
        assert!(!holds_unread(
            &line.replace(":00000010", ":00000000"),
            &[50_000]
        ));
        assert_eq!(
            skmem("x skmem:(r100,rb131072,t0,tb87040,f0,w23,o0,bl0,d0)"),
            123
        );
        let me = std::process::id();
        assert!(rss(me) > 100_000 && pss(me) > 100_000 && descriptors(me) >= 3);
        assert_eq!(tree(me)[0], me);
        assert!(matches!(state(me), Some('R' | 'S' | 'D')));
    }
}
