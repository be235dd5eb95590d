//! Starting a program: everything about it is said beforehand, so that between the new process and
//! its program nothing happens but system calls.
//!
//! On Linux the new process borrows the memory of this one until it executes its program
//! (`CLONE_VM | CLONE_VFORK`, what `posix_spawn` does too): no page table is copied, and what went
//! wrong it writes where its parent reads it. `posix_spawn` itself cannot set limits, users or the
//! signal for the parent's death, so it is done here.

use std::{
    ffi::{CStr, c_char, c_int},
    io,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    ptr,
};

use super::Identity;

/// A program to be started.
///
/// It leads a process group of its own, in the session of this process; a session of its own would
/// cost it a scheduling group, too. It has the default action for every signal and blocks none, holds
/// no descriptors but those named here, and keeps no capability that came
/// without being root.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The file to execute.
    pub program: &'a CStr,
    /// Its arguments, the name it is called by first.
    pub arguments: &'a [&'a CStr],
    /// Its environment, `NAME=value` each; nothing else is in it.
    pub environment: &'a [&'a CStr],
    /// `LISTEN_PID` with its own number is in its environment too (`sd_listen_fds(3)`).
    pub tells_pid: bool,
    /// The directory it runs in.
    pub dir: &'a CStr,
    /// Its descriptors from 0 on; at most [`MAX_LAUNCH_FDS`].
    pub fds: &'a [BorrowedFd<'a>],
    /// Who it runs as; none: who this process is.
    pub identity: Option<&'a Identity>,
    /// How many descriptors it may open, as long as it does not ask for more itself.
    pub max_files: Option<u64>,
}

/// Most descriptors that a program is started with.
pub const MAX_LAUNCH_FDS: usize = 4;

/// What failed in the new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchStep {
    /// Making the process.
    Process,
    /// Its limits.
    Limits,
    /// Becoming the user.
    User,
    /// Going to the directory.
    Directory,
    /// Its descriptors.
    Descriptors,
    /// Executing the program.
    Program,
}

impl LaunchStep {
    /// Every step, in order.
    pub const ALL: [LaunchStep; 6] = [
        LaunchStep::Process,
        LaunchStep::Limits,
        LaunchStep::User,
        LaunchStep::Directory,
        LaunchStep::Descriptors,
        LaunchStep::Program,
    ];

    /// What was tried, as in "… failed".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LaunchStep::Process => "making a process",
            LaunchStep::Limits => "setting its limits",
            LaunchStep::User => "becoming its user",
            LaunchStep::Directory => "going to its directory",
            LaunchStep::Descriptors => "giving it its descriptors",
            LaunchStep::Program => "executing it",
        }
    }
}

/// Starts programs; holds the stack on which new processes run until they are programs. For the
/// only thread of a process: programs die with the thread that started them.
#[derive(Debug)]
pub struct Launcher {
    stack: Vec<u128>,
}

/// Ample for a row of system calls.
const STACK_BYTES: usize = 64 * 1024;

impl Default for Launcher {
    fn default() -> Self {
        Self {
            stack: vec![0; STACK_BYTES / size_of::<u128>()],
        }
    }
}

/// What the new process needs, in plain memory, and where it says what went wrong.
struct Plan {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    /// Where the digits of `LISTEN_PID` go; null: nowhere.
    pid_digits: *mut u8,
    dir: *const c_char,
    fds: [RawFd; MAX_LAUNCH_FDS],
    fd_count: usize,
    identity: *const Identity,
    max_files: Option<libc::rlim_t>,
    parent: libc::pid_t,
    step: LaunchStep,
    errno: c_int,
}

/// `LISTEN_PID=` and room for the digits of any process id, with the NUL behind them.
const LISTEN_PID: &[u8] = b"LISTEN_PID=";
const PID_DIGITS: usize = 20;

impl Launcher {
    /// Starts a program; gives its process id.
    ///
    /// # Errors
    /// The step that failed, and why: the program was not executed and no process is left.
    pub fn launch(&mut self, launch: &Launch<'_>) -> Result<u32, (LaunchStep, io::Error)> {
        if launch.fds.len() > MAX_LAUNCH_FDS {
            let error = io::ErrorKind::InvalidInput.into();
            return Err((LaunchStep::Descriptors, error));
        }
        let mut listen_pid = [0; LISTEN_PID.len() + PID_DIGITS];
        listen_pid[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
        let mut environment = pointers(launch.environment);
        let mut pid_digits = ptr::null_mut();
        if launch.tells_pid {
            environment.pop();
            environment.push(listen_pid.as_ptr().cast());
            environment.push(ptr::null());
            pid_digits = listen_pid[LISTEN_PID.len()..].as_mut_ptr();
        }
        let arguments = pointers(launch.arguments);
        let mut fds = [-1; MAX_LAUNCH_FDS];
        for (place, fd) in fds.iter_mut().zip(launch.fds) {
            *place = fd.as_raw_fd();
        }
        let mut plan = Plan {
            program: launch.program.as_ptr(),
            arguments: arguments.as_ptr(),
            environment: environment.as_ptr(),
            pid_digits,
            dir: launch.dir.as_ptr(),
            fds,
            fd_count: launch.fds.len(),
            identity: launch.identity.map_or(ptr::null(), ptr::from_ref),
            max_files: launch
                .max_files
                .and_then(|most| libc::rlim_t::try_from(most).ok()),
            parent: own_pid(),
            step: LaunchStep::Process,
            errno: 0,
        };
        let started = self.start(&mut plan);
        match (started, plan.errno) {
            (Ok(pid), 0) => Ok(pid),
            (Ok(pid), errno) => {
                reap(pid);
                Err((plan.step, io::Error::from_raw_os_error(errno)))
            }
            (Err(error), _) => Err((LaunchStep::Process, error)),
        }
    }

    /// Makes the process and waits until it is its program or has failed.
    #[expect(unsafe_code, reason = "no safe function makes a process in this way")]
    fn start(&mut self, plan: &mut Plan) -> io::Result<u32> {
        // SAFETY: both sets are plain C data that the calls fill in before they are read.
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // No handler may run in the new process while it uses our memory.
        // SAFETY: the pointers are valid for the calls.
        unsafe {
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        }
        // SAFETY: the stack's end is aligned to 16 bytes and grows down into memory that is ours
        // alone; `enter` makes system calls only, touches nothing but `plan` and that stack, and
        // never returns into our frames. With CLONE_VFORK this thread, the only one, sleeps until
        // the process has executed its program or ended, so `plan` and all it points to live long
        // enough and nobody else looks at them meanwhile.
        let pid = unsafe { make(self.stack.as_mut_ptr_range().end, ptr::from_mut(plan)) };
        let error = io::Error::last_os_error();
        // SAFETY: the pointer is valid for the call.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
        u32::try_from(pid).map_err(|_| error)
    }
}

/// Makes a process that runs [`enter`], on Linux in our memory.
///
/// # Safety
/// As said at the call.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe function makes a process in this way")]
unsafe fn make(stack: *mut u128, plan: *mut Plan) -> libc::pid_t {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: handed on to the caller.
    unsafe { libc::clone(enter, stack.cast(), flags, plan.cast()) }
}

/// The portable way: a copy, which tells by its exit status that it failed, but not how.
///
/// # Safety
/// As said at the call.
#[cfg(not(target_os = "linux"))]
#[expect(unsafe_code, reason = "no safe function makes a process in this way")]
unsafe fn make(_: *mut u128, plan: *mut Plan) -> libc::pid_t {
    // SAFETY: the process has one thread, and the copy makes system calls only.
    unsafe {
        match libc::fork() {
            0 => {
                enter(plan.cast());
                libc::_exit(127)
            }
            pid => pid,
        }
    }
}

/// The new process, up to its program. Comes back only on failure, which ends it.
#[expect(unsafe_code, reason = "what stands between a process and its program")]
extern "C" fn enter(plan: *mut libc::c_void) -> c_int {
    // SAFETY: `start` passes a plan that nobody else uses now.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    // SAFETY: only system calls, with pointers out of the plan, all valid for as long as it is.
    plan.errno = unsafe { prepare(plan) };
    127
}

/// Does every step and executes the program; gives the error number of the one that failed.
///
/// # Safety
/// Everything the plan points to is valid.
#[expect(unsafe_code, reason = "system calls between a process and its program")]
unsafe fn prepare(plan: &mut Plan) -> c_int {
    // SAFETY: see above; each call is one system call and allocates nothing. `errno` is that of
    // our parent, who sleeps.
    unsafe {
        // Rust ignores it, and what is ignored stays so.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::setpgid(0, 0);
        plan.step = LaunchStep::Limits;
        if let Some(most) = plan.max_files
            && !lower_max_files(most)
        {
            return errno();
        }
        plan.step = LaunchStep::User;
        if let Some(identity) = plan.identity.as_ref()
            && !become_user(identity)
        {
            return errno();
        }
        give_up_capabilities();
        plan.step = LaunchStep::Directory;
        if libc::chdir(plan.dir) != 0 {
            return errno();
        }
        plan.step = LaunchStep::Descriptors;
        if !place_fds(&mut plan.fds, plan.fd_count) {
            return errno();
        }
        plan.step = LaunchStep::Process;
        if !die_with_parent(plan.parent) {
            return libc::ESRCH;
        }
        write_pid(plan.pid_digits);
        plan.step = LaunchStep::Program;
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::execve(plan.program, plan.arguments, plan.environment);
        errno()
    }
}

/// Lowers the number of descriptors, which this process has raised for itself, and leaves how far it
/// may be raised again: some programs close every number up to it when they start.
#[expect(unsafe_code, reason = "between a process and its program")]
fn lower_max_files(most: libc::rlim_t) -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the place is ours and valid for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return false;
        }
        limit.rlim_cur = limit.rlim_max.min(most);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
    }
}

/// The descriptors in their places, not closed on exec.
///
/// # Safety
/// Only changes descriptors of a process that is about to execute a program.
#[expect(unsafe_code, reason = "numbers that no owner stands behind")]
unsafe fn place_fds(fds: &mut [RawFd; MAX_LAUNCH_FDS], count: usize) -> bool {
    // Out of the way first, if one stands where another shall be.
    const ABOVE: RawFd = 16;
    // SAFETY: `fcntl` and `dup2` take no pointers.
    unsafe {
        for fd in fds.iter_mut().take(count) {
            if *fd < ABOVE {
                *fd = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, ABOVE);
                if *fd < 0 {
                    return false;
                }
            }
        }
        for (place, fd) in (0..).zip(fds.iter().take(count)) {
            if libc::dup2(*fd, place) < 0 {
                return false;
            }
        }
    }
    true
}

/// Becomes a user, by the calls of the system itself: those of the C library would tell other
/// threads about it, by memory that is not this process's own.
///
/// # Safety
/// Only changes who a process is that is about to execute a program.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the C library's functions are not for here")]
unsafe fn become_user(identity: &Identity) -> bool {
    #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
    use libc::{
        SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID,
    };
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    use libc::{
        SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID,
    };
    let groups = identity.groups.as_slice();
    let (user, group) = (identity.user, identity.group);
    // SAFETY: the list is as long as is said, and only read.
    unsafe {
        libc::syscall(SETGROUPS, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(SETRESGID, group, group, group) == 0
            && libc::syscall(SETRESUID, user, user, user) == 0
    }
}

/// The portable way.
///
/// # Safety
/// Only changes who a process is that is about to execute a program.
#[cfg(not(target_os = "linux"))]
#[expect(unsafe_code, reason = "between a process and its program")]
unsafe fn become_user(identity: &Identity) -> bool {
    let count = c_int::try_from(identity.groups.len()).unwrap_or(0);
    // SAFETY: the list is as long as is said, and only read; the process has one thread.
    unsafe {
        libc::setgroups(count, identity.groups.as_ptr()) == 0
            && libc::setgid(identity.group) == 0
            && libc::setuid(identity.user) == 0
    }
}

/// What a process keeps over `execve` without being root (`CAP_NET_BIND_SERVICE` of a service).
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "between a process and its program")]
fn give_up_capabilities() {
    let (all, none) = (libc::PR_CAP_AMBIENT_CLEAR_ALL, 0);
    // SAFETY: takes no pointers. Older systems have no such capabilities to give up.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, all, none, none, none) };
}

#[cfg(not(target_os = "linux"))]
fn give_up_capabilities() {}

/// From now on it is killed when its parent ends. After it has become its user, because that takes
/// the wish back. False: the parent has ended already.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "between a process and its program")]
fn die_with_parent(parent: libc::pid_t) -> bool {
    // SAFETY: neither call takes a pointer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 && libc::getppid() == parent }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: libc::pid_t) -> bool {
    true
}

/// Writes this process's number, in digits; what follows is NUL already.
///
/// # Safety
/// `digits` is null or has room for [`PID_DIGITS`].
#[expect(unsafe_code, reason = "nothing may be allocated here")]
unsafe fn write_pid(digits: *mut u8) {
    if digits.is_null() {
        return;
    }
    let pid = own_pid().unsigned_abs();
    let mut unit = 1_000_000_000_u32;
    let mut at = 0;
    while unit > 0 {
        let digit = pid / unit % 10;
        if at > 0 || digit > 0 {
            // SAFETY: ten digits at most.
            unsafe {
                digits
                    .add(at)
                    .write(b'0' + u8::try_from(digit).unwrap_or(0))
            };
            at += 1;
        }
        unit /= 10;
    }
}

fn own_pid() -> libc::pid_t {
    #[expect(unsafe_code, reason = "rustix keeps no number that libc takes")]
    // SAFETY: takes nothing and cannot fail.
    unsafe {
        libc::getpid()
    }
}

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Takes the end of a child of ours that has ended or is about to.
#[expect(unsafe_code, reason = "a child without a `Child`")]
fn reap(pid: u32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: the status is not asked for.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    }
}

fn pointers(texts: &[&CStr]) -> Vec<*const c_char> {
    let mut all: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
    all.push(ptr::null());
    all
}
