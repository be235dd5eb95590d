//! Another process, one instruction after the other.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};

use super::decode;

/// More instructions are none of a hit.
const MOST: usize = 2_000_000;

/// Says which thread is to be watched, and where the mark is; before it waits for its input.
pub(crate) fn announce(mark: fn()) {
    println!("\n#watch {} {mark:p}", gettid());
}

/// Runs one test of this program in another process, with a variable, and notes the addresses of
/// locked instructions between the marks of its two threads.
pub(crate) fn locked(variable: &str, value: &str, test: &str) -> [Vec<u64>; 2] {
    let me = std::env::current_exe().expect("this program has a name");
    let mut child = Command::new(me)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(variable, value)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs once more");
    let mut go = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let memory = format!("/proc/{}/mem", child.id());
    let both = [(); 2].map(|()| {
        let said = lines.by_ref().map(|line| line.expect("text"));
        let said = said
            .filter_map(|line| Some(line.strip_prefix("#watch ")?.to_owned()))
            .next()
            .expect("a thread announces itself");
        let (thread, mark) = said.split_once(' ').expect("two words");
        let thread = Pid::from_raw(thread.parse().expect("a number"));
        let mark = mark.strip_prefix("0x").unwrap_or(mark);
        let mark = u64::from_str_radix(mark, 16).expect("an address");
        ptrace::attach(thread).expect("it may be watched");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        go.write_all(b"\n").expect("it waits for it");
        let memory = std::fs::File::open(&memory).expect("its memory");
        let locked = follow(thread, mark, &memory);
        ptrace::detach(thread, None).expect("it goes on");
        locked
    });
    lines.for_each(drop);
    assert!(child.wait().expect("it ends").success());
    both
}

fn follow(thread: Pid, mark: u64, memory: &std::fs::File) -> Vec<u64> {
    let mut locked = Vec::new();
    let mut marks = 0;
    let mut pass_on = None;
    for _ in 0..MOST {
        ptrace::step(thread, pass_on.take()).expect("a step");
        match waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops") {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, signal) => pass_on = Some(signal),
            other => panic!("{other:?}"),
        }
        let registers = ptrace::getregs(thread).expect("its registers");
        if registers.rip == mark {
            marks += 1;
        }
        match marks {
            0 => {}
            1 => {
                let mut code = [0; 16];
                let len = memory.read_at(&mut code, registers.rip).expect("its code");
                locked.extend(decode::locked(&code[..len], &registers));
            }
            _ => return locked,
        }
    }
    panic!("it does not come to an end");
}
