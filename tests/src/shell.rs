//! A shell on a machine of its own: other processes, another network, empty `/srv`, `/run`,
//! `/etc/forebay` and `/var/log`. So what the pages show runs as it stands there, with its ports and
//! paths, however many run at once, and ends with the test.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::docs::matches;
use crate::server::binary;
use crate::wait::PATIENCE;

/// What follows the output of a command, and then its exit status; no command prints it.
const END: &[u8] = b"\x1e-- end of output --\x1e";

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(30);

/// A running shell, in an empty directory.
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    output: Receiver<Vec<u8>>,
    unread: Vec<u8>,
    jobs: usize,
    dir: TempDir,
}

impl Shell {
    /// Starts one.
    ///
    /// # Panics
    /// When the system has no namespaces for it; it takes root.
    #[must_use]
    pub fn start() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        // Servers that become another user read in it, too.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("permissions");
        let mut child = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "sh", "-c", "exec bash --norc 2>&1"])
            .current_dir(dir.path())
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("unshare, of the Debian package util-linux");
        let mut stdout = child.stdout.take().expect("its output");
        let (send, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = stdout.read(&mut buffer) {
                if send.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut shell = Self {
            stdin: child.stdin.take().expect("its input"),
            child,
            output,
            unread: Vec::new(),
            jobs: 0,
            dir,
        };
        shell.furnish();
        shell
    }

    fn furnish(&mut self) {
        let program = binary();
        let mut text = String::from("ip link set lo up\n");
        text.push_str("mkdir -p /etc/forebay /var/log/forebay\n");
        for dir in ["/srv", "/run", "/etc/forebay", "/var/log", "/mnt"] {
            let _ = writeln!(text, "mount -t tmpfs -o mode=755 none {dir}");
        }
        let _ = writeln!(text, "mkdir -p /var/log/forebay /run/haproxy /mnt/bin");
        let _ = writeln!(text, "ln -s '{}' /mnt/bin/forebay", program.display());
        text.push_str("export PATH=/mnt/bin:$PATH:/usr/sbin:/sbin\n");
        for line in text.lines() {
            let (said, code) = self.run(line);
            assert!(code == 0 && said.is_empty(), "{line}: exit {code}: {said}");
        }
    }

    /// The directory that it began in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a command to its end: what it printed, and its exit status.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> (String, i32) {
        // In braces, not in a subshell: `cd` and variables are to stay.
        let mark = "\\036-- end of output --\\036";
        let text = format!("{{ {command}\n}} </dev/null\nprintf '{mark}%d{mark}' $?\n");
        self.stdin.write_all(text.as_bytes()).expect("a shell");
        self.stdin.flush().expect("a shell");
        let said = self.read_to_end(command);
        let status = self.read_to_end(command);
        (said, status.parse().expect("an exit status"))
    }

    /// What comes before the next mark.
    #[track_caller]
    fn read_to_end(&mut self, command: &str) -> String {
        let end = Instant::now() + COMMAND;
        loop {
            if let Some(at) = self.unread.windows(END.len()).position(|part| part == END) {
                let rest = self.unread.split_off(at + END.len());
                let mut said = std::mem::replace(&mut self.unread, rest);
                said.truncate(at);
                return String::from_utf8_lossy(&said).into_owned();
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.unread.extend(bytes),
                Err(reason) => panic!(
                    "{command}: {}\n{}",
                    match reason {
                        RecvTimeoutError::Timeout => "it does not end",
                        RecvTimeoutError::Disconnected => "the shell has ended",
                    },
                    String::from_utf8_lossy(&self.unread)
                ),
            }
        }
    }

    /// Runs a command that is to succeed, and returns what it printed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn succeed(&mut self, command: &str) -> String {
        let (said, code) = self.run(command);
        assert!(code == 0, "{command}: exit {code}: {said}");
        said
    }

    /// Writes a file, with the directories above it.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn write(&mut self, path: &str, text: &str) {
        let dir = Path::new(path).parent().unwrap_or(Path::new("."));
        let dir = match dir.to_str() {
            Some("") | None => ".",
            Some(dir) => dir,
        };
        let text = format!("mkdir -p '{dir}'; cat >'{path}' <<'END OF FILE'\n{text}END OF FILE");
        let said = self.succeed(&text);
        assert_eq!(said, "", "{path}");
    }

    /// Starts a command that goes on, and waits until it listens, or until it has printed what is
    /// expected.
    ///
    /// # Panics
    /// When it does neither, or ends.
    #[track_caller]
    pub fn spawn(&mut self, command: &str, expected: &str) -> Job {
        // What Forebay prints when everything listens.
        let expected = match expected {
            "" if command.starts_with("forebay ") => "…\nForebay … serves …\n…",
            expected => expected,
        };
        self.jobs += 1;
        let log = format!("/mnt/job-{}", self.jobs);
        let before = self.sockets();
        // In front, so that the command may send its output elsewhere.
        let number = self.succeed(&format!(
            ": >{log}; >{log} 2>&1 </dev/null {command} & echo $!"
        ));
        let job = Job {
            pid: number.trim().to_owned(),
            log,
        };
        let end = Instant::now() + PATIENCE;
        loop {
            let ready = if expected.is_empty() {
                self.sockets() > before
            } else {
                matches(expected, &self.said(&job))
            };
            if ready {
                return job;
            }
            let (_, code) = self.run(&format!("kill -0 {}", job.pid));
            if code != 0 || Instant::now() > end {
                let said = self.said(&job);
                panic!("{command}: it is not ready:\n{said}\nexpected:\n{expected}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends what was spawned, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn end(&mut self, job: &Job) {
        let pid = &job.pid;
        let _ = self.run(&format!("kill {pid}; wait {pid}"));
    }

    /// What it has printed.
    ///
    /// # Panics
    /// When that cannot be read.
    #[track_caller]
    pub fn said(&mut self, job: &Job) -> String {
        self.succeed(&format!("cat {}", job.log))
    }

    /// How many sockets listen. `ss -l` alone also shows those that are bound and do not listen
    /// yet, which Python's server is for as long as it looks for the machine's name.
    #[track_caller]
    fn sockets(&mut self) -> usize {
        self.succeed("ss -Htnx state listening").lines().count()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The first process of its own number space: with it all others end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that goes on.
pub struct Job {
    pid: String,
    log: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_commands_one_after_the_other() {
        let mut shell = Shell::start();
        assert_eq!(shell.run("echo a; false"), ("a\n".into(), 1));
        assert_eq!(shell.run("cat; cd /srv && ls"), (String::new(), 0));
        assert_eq!(shell.succeed("pwd"), "/srv\n");
        shell.write("/srv/a/b", "it's $one\n");
        assert_eq!(shell.succeed("cat /srv/a/b"), "it's $one\n");
        assert!(!Path::new("/srv/a/b").exists(), "it is not the machine's");
        let job = shell.spawn("sh -c 'echo begun; exec tail -f /dev/null'", "beg…\n");
        shell.end(&job);
        assert_eq!(shell.said(&job), "begun\n");
    }
}
