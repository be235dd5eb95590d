//! The programs that this process has started: knowing that they have ended, and ending them with
//! all that they have started themselves.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::atomic::{AtomicI32, Ordering::Relaxed},
    time::Duration,
};

use rustix::pipe::{PipeFlags, pipe_with};

/// Readable while children may have ended: of one process, at most once.
#[derive(Debug)]
pub struct ChildSignal {
    reader: OwnedFd,
    /// Held for the handler.
    _writer: OwnedFd,
}

/// Where the handler writes.
static WRITER: AtomicI32 = AtomicI32::new(-1);

impl ChildSignal {
    /// Watches for the ends of children from now on.
    pub fn watch() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        WRITER.store(writer.as_raw_fd(), Relaxed);
        handle_child_signals()?;
        Ok(Self {
            reader,
            _writer: writer,
        })
    }

    /// Takes back that it is readable; before the ends are looked for.
    pub fn clear(&self) {
        let mut bytes = [0; 64];
        while rustix::io::read(&self.reader, &mut bytes).is_ok_and(|len| len == bytes.len()) {}
    }
}

impl AsFd for ChildSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[expect(unsafe_code, reason = "no safe function installs a handler")]
fn handle_child_signals() -> io::Result<()> {
    extern "C" fn note(_: c_int) {
        let writer: RawFd = WRITER.load(Relaxed);
        // SAFETY: `write` may be called in a handler; the byte is there, and a pipe that is full
        // says already what there is to say. Whoever was interrupted gets its `errno` back.
        unsafe {
            let errno = errno_place();
            let before = *errno;
            libc::write(writer, [0_u8].as_ptr().cast(), 1);
            *errno = before;
        }
    }
    // SAFETY: the handler is async-signal-safe, see there; `action` is a plain C struct for which
    // all zeroes are valid, and the pointers are valid for the calls.
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut())
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "where the C library keeps it")]
fn errno_place() -> *mut c_int {
    // SAFETY: gives this thread's place, which is always there.
    unsafe { libc::__errno_location() }
}

#[cfg(not(target_os = "linux"))]
#[expect(unsafe_code, reason = "where the C library keeps it")]
fn errno_place() -> *mut c_int {
    // SAFETY: gives this thread's place, which is always there.
    unsafe { libc::__error() }
}

/// From now on, what children leave behind when they end becomes a child of this process, so that
/// it can be ended too and leaves no zombie. Does nothing where the system cannot.
pub fn adopt_orphans() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// How a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

/// A child that has ended, with what it and all its own children that it has waited for have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its process id.
    pub pid: u32,
    /// How.
    pub end: End,
    /// Processor time, in microseconds.
    pub cpu_us: u64,
}

/// A child that has ended but still holds its process id, if there is one: what leads a group can
/// be ended by that number as a group without meaning anybody else.
#[expect(unsafe_code, reason = "rustix does not tell which child it was")]
#[must_use]
pub fn next_ended() -> Option<u32> {
    // SAFETY: `info` is a plain C struct which the call fills in; with WNOHANG and no child that
    // has ended it stays zero, which is what is asked then.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &raw mut info, flags) != 0 {
            return None;
        }
        info.si_pid()
    };
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

/// Takes the end of a child that [`next_ended`] has named; its process id is free then.
#[expect(unsafe_code, reason = "no safe function gives what it has taken too")]
#[must_use]
pub fn reap(pid: u32) -> Option<Ended> {
    let number = libc::pid_t::try_from(pid).ok()?;
    let mut status = 0;
    // SAFETY: both places are plain C data which the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::wait4(number, &raw mut status, libc::WNOHANG, &raw mut usage) != number {
            return None;
        }
        usage
    };
    let end = if libc::WIFSIGNALED(status) {
        End::Killed(u8::try_from(libc::WTERMSIG(status)).unwrap_or(u8::MAX))
    } else {
        End::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    };
    let us = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    let cpu_us = us(usage.ru_utime) + us(usage.ru_stime);
    Some(Ended { pid, end, cpu_us })
}

/// What is sent to a program and all that it has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// End in your own way.
    Ask,
    /// End now.
    Kill,
}

/// Tells the group that this child of ours leads to end. It must not have been reaped: else the
/// number may be another's. Nothing happens where nobody is left.
pub fn end_group(leader: u32, how: Ending) {
    use rustix::process::Signal;

    match how {
        Ending::Ask => {
            signal_group(leader, Signal::TERM);
            // Who is held could not hear it.
            signal_group(leader, Signal::CONT);
        }
        Ending::Kill => signal_group(leader, Signal::KILL),
    }
}

/// Stops the group that this child of ours leads, or lets it go on. It must not have been reaped.
pub fn hold_group(leader: u32, is_held: bool) {
    signal_group(
        leader,
        match is_held {
            true => rustix::process::Signal::STOP,
            false => rustix::process::Signal::CONT,
        },
    );
}

fn signal_group(leader: u32, signal: rustix::process::Signal) {
    use rustix::process::{Pid, kill_process_group};

    let pid = i32::try_from(leader).ok().and_then(Pid::from_raw);
    // Number 1 would be everybody.
    if let Some(pid) = pid.filter(|pid| pid.as_raw_nonzero().get() > 1) {
        // Nobody is left, which is as well; or a program that has become another user's by itself,
        // which cannot be signalled by who is not root.
        let _ = kill_process_group(pid, signal);
    }
}

/// Kills every child that there is, and waits for that; those that become our children meanwhile
/// too. Comes back after `patience` at the latest, because a process that waits for a disk dies
/// when the disk answers.
pub fn kill_all_children(patience: Duration) {
    let until = std::time::Instant::now() + patience;
    let pause = Duration::from_millis(1);
    loop {
        let left = children();
        for pid in &left {
            end_group(*pid, Ending::Kill);
            kill(*pid);
        }
        while let Some(pid) = next_ended() {
            let _ = reap(pid);
        }
        if left.is_empty() || std::time::Instant::now() > until {
            return;
        }
        std::thread::sleep(pause);
    }
}

fn kill(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};

    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It has just ended.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// What a process and all that it has started have taken so far, and hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in microseconds, that of children it has waited for included.
    pub cpu_us: u64,
    /// Bytes in memory but for what are files: these are others' too, and given up when memory is
    /// short.
    pub memory_bytes: u64,
    /// Bytes read from disks and written to them. Another user's process does not tell.
    pub io_bytes: u64,
}

/// Looks at a process and all that it has started, at most 1,000 of them. What cannot be read counts
/// as nothing.
#[must_use]
pub fn tree_usage(pid: u32) -> Usage {
    let mut all = vec![pid];
    let mut next = 0;
    let mut sum = Usage::default();
    while let Some(&pid) = all.get(next).filter(|_| next < MOST) {
        next += 1;
        sum.cpu_us += cpu_of(pid).unwrap_or(0);
        sum.memory_bytes += memory_of(pid).unwrap_or(0);
        sum.io_bytes += io_of(pid).unwrap_or(0);
        all.extend(children_of(&pid.to_string()));
    }
    sum
}

/// Processor time in microseconds that the group which this process leads has taken so far, that of
/// children it has waited for included. For who looks often: it costs a part of [`tree_usage`].
#[must_use]
pub fn group_cpu_us(leader: u32) -> u64 {
    let mut all = vec![leader];
    let mut next = 0;
    let mut sum = 0;
    while let Some(&pid) = all.get(next).filter(|_| next < MOST) {
        next += 1;
        if let Some(stat) = Stat::of(pid)
            && stat.group == leader
        {
            sum += stat.cpu_us;
        }
        all.extend(children_of(&pid.to_string()));
    }
    sum
}

/// Processes of one tree that are looked at.
const MOST: usize = 1_000;

fn cpu_of(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.cpu_us)
}

/// What `/proc/PID/stat` tells (proc_pid_stat(5)).
struct Stat {
    group: u32,
    cpu_us: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The fields behind the name, which may hold anything, begin with the third.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let group = fields.nth(5 - 3)?.parse().ok()?;
        let times = fields.skip(14 - 6).take(4);
        let ticks: u64 = times.filter_map(|time| time.parse::<u64>().ok()).sum();
        let cpu_us = ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
        Some(Stat { group, cpu_us })
    }
}

fn memory_of(pid: u32) -> Option<u64> {
    let kib = field_of(&format!("/proc/{pid}/status"), "RssAnon:")?;
    Some(kib * 1024)
}

fn io_of(pid: u32) -> Option<u64> {
    let file = format!("/proc/{pid}/io");
    Some(field_of(&file, "read_bytes:")? + field_of(&file, "write_bytes:")?)
}

fn field_of(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The process ids of the children of this process, those that have ended included; none where the
/// system does not tell.
fn children() -> Vec<u32> {
    children_of("self")
}

fn children_of(pid: &str) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let all = list.split_ascii_whitespace();
            all.filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}
