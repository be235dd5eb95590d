//! What it costs to start a program and to wait for it: borrowing this process's memory, and copying
//! it as `fork` does. Run it with `--release`.

use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use forebay_sys::process::{Launch, Launcher};
use rustix::process::{Pid, WaitOptions, waitpid};

const RUNS: u32 = 1_000;

fn main() {
    // As much as the helper has.
    let ballast = vec![1_u8; 512 * 1024];
    let mut launcher = Launcher::default();
    for round in 0..3 {
        let borrowed = time(|| {
            let launch = Launch {
                program: c"/bin/true",
                arguments: &[c"true"],
                environment: &[],
                tells_pid: false,
                dir: c"/",
                fds: &[],
                identity: None,
                max_files: Some(1_024),
            };
            let pid = launcher.launch(&launch).expect("started");
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let _ = waitpid(pid, WaitOptions::empty());
        });
        let copied = time(|| {
            let mut command = Command::new("/bin/true");
            command.env_clear().stdin(Stdio::null());
            // Becoming a user keeps the standard library from `posix_spawn`.
            command.uid(rustix::process::getuid().as_raw());
            let status = command.status().expect("started");
            assert!(status.success());
        });
        println!("round {round}: borrowed {borrowed:.0} µs, copied {copied:.0} µs");
    }
    black_box(ballast);
}

fn time(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..RUNS {
        run();
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(RUNS)
}
