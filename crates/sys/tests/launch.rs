//! Programs that are started, and how they end. Each test is a process of its own (nextest), because
//! the ends of children are those of the whole process.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use forebay_sys::process::{
    End, Ended, Ending, Identity, Launch, LaunchStep, Launcher, adopt_orphans, close_all_on_exec,
    end_group, kill_all_children, next_ended, reap, tree_usage,
};
use rustix::pipe::{PipeFlags, pipe_with};

/// What a shell is started with.
struct Shell<'a> {
    script: &'a str,
    environment: &'a [&'a CStr],
    tells_pid: bool,
    dir: &'a CStr,
    identity: Option<&'a Identity>,
    max_files: Option<u64>,
}

impl<'a> Shell<'a> {
    fn new(script: &'a str) -> Shell<'a> {
        Shell {
            script,
            environment: &[],
            tells_pid: false,
            dir: c"/",
            identity: None,
            max_files: None,
        }
    }

    fn start(&self, launcher: &mut Launcher) -> (u32, File) {
        let script = CString::new(self.script).unwrap();
        let (output, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let null: OwnedFd = File::open("/dev/null").unwrap().into();
        let places: [BorrowedFd<'_>; 3] = [null.as_fd(), write.as_fd(), write.as_fd()];
        let launch = Launch {
            program: c"/bin/sh",
            arguments: &[c"a-shell", c"-c", &script],
            environment: self.environment,
            tells_pid: self.tells_pid,
            dir: self.dir,
            fds: &places,
            identity: self.identity,
            max_files: self.max_files,
        };
        let pid = launcher.launch(&launch).unwrap();
        (pid, output.into())
    }

    /// Its output and how it ended.
    fn run(&self) -> (String, Ended) {
        let (pid, mut output) = self.start(&mut Launcher::default());
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        (text, ended(pid))
    }
}

fn ended(pid: u32) -> Ended {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(one) = next_ended() {
            let ended = reap(one).unwrap();
            if one == pid {
                return ended;
            }
        }
        assert!(Instant::now() < until, "{pid} does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_program_has_what_it_was_given_and_nothing_else() {
    // What this test was given by those who run it.
    close_all_on_exec().unwrap();
    let script = "echo \"$0 $(pwd) $A $LISTEN_PID=$$ $(env | grep -vc -e ^PWD -e ^_ -e ^SHLVL)\"; \
        ls /proc/self/fd | tr '\\n' ' '; grep -e SigBlk -e SigIgn /proc/self/status; \
        cut -d' ' -f5,6 /proc/$$/stat; exit 7";
    let shell = Shell {
        environment: &[c"A=b c", c"PATH=/usr/bin:/bin"],
        tells_pid: true,
        dir: c"/usr",
        ..Shell::new(script)
    };
    let (text, ended) = shell.run();
    let pid = ended.pid;
    // A group of its own, in our session: 0 where that began outside of our number space.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let behind_name = stat.rsplit_once(") ").unwrap().1;
    let session = behind_name.split(' ').nth(3).unwrap();
    let expected = format!(
        "a-shell /usr b c {pid}={pid} 3\n0 1 2 3 SigBlk:\t0000000000000000\n{pid} {session}\n"
    );
    let (ignored, rest): (Vec<&str>, Vec<&str>) = text
        .split_inclusive('\n')
        .partition(|line| line.starts_with("SigIgn:"));
    assert_eq!(rest.concat(), expected);
    let ignored = u64::from_str_radix(ignored[0][7..].trim(), 16).unwrap();
    // Signal 13, which Rust ignores.
    assert_eq!(ignored & (1 << 12), 0);
    assert_eq!(ended.end, End::Exited(7));
    assert!(ended.cpu_us > 0);
}

#[test]
fn a_limit_of_descriptors_can_be_raised_again() {
    let shell = Shell {
        max_files: Some(64),
        ..Shell::new("ulimit -Sn; ulimit -Sn 65 && ulimit -Sn")
    };
    assert_eq!(shell.run().0, "64\n65\n");
}

#[test]
fn a_program_is_another_user_when_root_starts_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let identity = Identity {
        user: 65_534,
        group: 65_533,
        groups: vec![65_533, 4_711],
    };
    let script =
        "grep -e ^Uid -e ^Gid -e ^Groups -e ^CapEff -e ^CapPrm -e ^CapAmb /proc/self/status";
    let shell = Shell {
        identity: Some(&identity),
        ..Shell::new(script)
    };
    let none = "0000000000000000";
    let expected = format!(
        "Uid:\t65534\t65534\t65534\t65534\nGid:\t65533\t65533\t65533\t65533\n\
         Groups:\t4711 65533 \nCapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\n"
    );
    assert_eq!(shell.run().0, expected);
    // It still dies with who started it, though becoming a user takes that wish back.
    let starter = std::thread::spawn(move || {
        let shell = Shell {
            identity: Some(&identity),
            ..Shell::new("echo up; sleep 1000")
        };
        let (pid, mut output) = shell.start(&mut Launcher::default());
        output.read_exact(&mut [0; 3]).unwrap();
        pid
    });
    let pid = starter.join().unwrap();
    assert_eq!(ended(pid).end, End::Killed(9));
}

#[test]
fn a_program_dies_with_the_thread_that_started_it() {
    let starter = std::thread::spawn(|| Shell::new("sleep 1000").start(&mut Launcher::default()).0);
    let pid = starter.join().unwrap();
    assert_eq!(ended(pid).end, End::Killed(9));
}

#[test]
fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let mut launcher = Launcher::default();
    let mut check = |program: &CStr, dir: &CStr, expected: LaunchStep, errno: i32| {
        let launch = Launch {
            program,
            arguments: &[program],
            environment: &[],
            tells_pid: false,
            dir,
            fds: &[],
            identity: None,
            max_files: None,
        };
        let (step, error) = launcher.launch(&launch).unwrap_err();
        assert_eq!((step, error.raw_os_error()), (expected, Some(errno)));
        assert!(!step.name().is_empty());
        assert_eq!(next_ended(), None);
    };
    check(c"/no/such/program", c"/", LaunchStep::Program, 2);
    check(c"/etc/passwd", c"/", LaunchStep::Program, 13);
    check(
        c"/bin/true",
        c"/no/such/directory",
        LaunchStep::Directory,
        2,
    );
}

#[test]
fn a_group_ends_with_its_children_and_orphans_leave_no_zombie() {
    adopt_orphans().unwrap();
    let mut launcher = Launcher::default();
    // The second shell lets SIGTERM pass, and so do its children.
    let script = "sh -c 'trap \"\" TERM; sleep 1000 & echo up; sleep 1000' & \
        sh -c 'setsid sleep 1000 & echo up'; wait";
    let (pid, mut output) = Shell::new(script).start(&mut launcher);
    output.read_exact(&mut [0; 6]).unwrap();
    end_group(pid, Ending::Ask);
    assert_eq!(ended(pid).end, End::Killed(15));
    // What has left the group is found as an orphan.
    kill_all_children(Duration::from_secs(10));
    // Nobody holds the other end any more.
    assert_eq!(output.read_to_end(&mut Vec::new()).unwrap(), 0);
    let own = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap();
    assert_eq!(children, "");
}

#[test]
fn what_a_tree_takes_is_that_of_its_children_too() {
    let script = "python3 -c 'x = bytearray(40 << 20)\nwhile True: pass' & wait";
    let shell = Shell {
        environment: &[c"PATH=/usr/local/bin:/usr/bin:/bin"],
        ..Shell::new(script)
    };
    let (pid, _output) = shell.start(&mut Launcher::default());
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let usage = tree_usage(pid);
        if usage.memory_bytes > 40 << 20 && usage.cpu_us > 50_000 {
            break;
        }
        assert!(Instant::now() < until, "{usage:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    end_group(pid, Ending::Kill);
    let _ = ended(pid);
    assert_eq!(tree_usage(pid).memory_bytes, 0);
}
